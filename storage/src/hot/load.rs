//! The hot structures at start: made as large as the settings say, their filters told what is stored.

use std::sync::Arc;

use super::index::Index;
use super::window::Windows;
use super::{Hot, OPERATOR};
use crate::error::ReadError;
use crate::ids::NamespaceId;
use crate::open::Options;
use crate::pepper::Peppers;
use crate::records::ratelimit::{OverrideRow, OverrideView};
use crate::records::{self, workspace_of};
use crate::store::Snapshot;

/// Root keys and namespaces are few beside keys; still their indexes are bounded.
const ROOT_KEYS_MAX: usize = 200_000;
const ROOT_KEY_BYTES_MAX: u64 = 256 << 20;
const NAMESPACES_MAX: usize = 200_000;
const NAMESPACE_BYTES_MAX: u64 = 256 << 20;
/// Overrides are all in memory up to these bounds, so that a decision reads nothing from the disk (RL-CON-05); beyond
/// them, those in use.
const OVERRIDES_MAX: usize = 1_000_000;
const OVERRIDE_BYTES_MAX: u64 = 64 << 20;

/// Makes the hot structures and tells their filters what is stored.
pub(crate) fn load(
    options: &Options,
    snapshot: &Snapshot,
    peppers: Arc<Peppers>,
    seed: [u8; 16],
) -> Result<Hot, ReadError> {
    let count =
        |table| -> Result<usize, ReadError> { Ok(usize::try_from(snapshot.count(table)?).unwrap_or(usize::MAX)) };
    let windows = if options.any_order_of_times {
        Windows::for_tests(seed, options.rate_subjects_max)
    } else {
        Windows::new(seed, options.rate_subjects_max)
    };
    let hot = Hot::new(
        Index::new(options.hot_keys_max, options.hot_bytes_max, count(records::KEY_BY_HASH)?),
        Index::new(ROOT_KEYS_MAX, ROOT_KEY_BYTES_MAX, count(records::ROOT_KEY_BY_HASH)?),
        Index::new(NAMESPACES_MAX, NAMESPACE_BYTES_MAX, 2 * count(records::NAMESPACE)?),
        Index::new(OVERRIDES_MAX, OVERRIDE_BYTES_MAX, count(records::OVERRIDE)?),
        windows,
        peppers,
        seed,
    );
    snapshot.scan(records::KEY_BY_HASH, |key, _| {
        if let (Some(workspace), Some(hash)) = (workspace_of(key), key.get(4..).and_then(|hash| hash.try_into().ok())) {
            hot.keys.exists(workspace.0, hash);
        }
    })?;
    snapshot.scan(records::ROOT_KEY_BY_HASH, |key, _| {
        if let Ok(hash) = key.try_into() {
            hot.root_keys.exists(OPERATOR, hash);
        }
    })?;
    snapshot.scan(records::NAMESPACE_BY_NAME, |key, id| {
        if let (Some(workspace), Some(name)) =
            (workspace_of(key), key.get(4..).and_then(|name| std::str::from_utf8(name).ok()))
        {
            hot.namespaces.exists(workspace.0, &hot.name_hash(workspace, name));
            if let Some(id) = crate::store::id_from(id) {
                let id = NamespaceId(id).to_string();
                hot.namespaces.exists(workspace.0, &hot.name_hash(workspace, &id));
            }
        }
    })?;
    load_overrides(&hot, snapshot)?;
    Ok(hot)
}

/// Enters the overrides themselves, as far as there is room.
fn load_overrides(hot: &Hot, snapshot: &Snapshot) -> Result<(), ReadError> {
    let mut undecodable = None;
    hot.overrides.load(snapshot.position(), |enter| {
        snapshot.scan(records::OVERRIDE, |key, value| {
            let place = (workspace_of(key), key.get(4..20).and_then(crate::store::id_from), key.get(20..));
            if let (Some(workspace), Some(namespace), Some(identifier)) = place {
                let hash = hot.override_hash(workspace, NamespaceId(namespace), identifier);
                match crate::store::decode::<OverrideRow>(value) {
                    Ok(row) => enter(workspace.0, &hash, OverrideView::new(&row)),
                    Err(error) => undecodable = Some(error),
                }
            }
        })
    })?;
    undecodable.map_or(Ok(()), Err)
}
