//! Lazy migration: a key that came with a foreign hash is presented (KEYS-MIGRATE-13).
//!
//! Only one who presents it can tell keyward its own hash. The first presentation gives it that hash; from then on it
//! verifies like any other, and the foreign hash goes on to lead to it, for whoever names the migration
//! (KEYS-MIGRATE-15). A rare road, which may read the disk.

use std::sync::Arc;

use keyward_storage::ids::{KeyId, MigrationId, WorkspaceNo};
use keyward_storage::records::key::{self, KeyDigest, KeyView};
use keyward_storage::records::migration::{self, Algorithm, MigratedKeyRow};
use keyward_storage::{ReadError, Snapshot};
use sha2::{Digest, Sha256};

use super::{Found, Trace, live, view_again};
use crate::api::call::{Call, Change, Correlate};
use crate::api::problem::Problem;
use crate::secret::START_CHARS;

/// Longest prefix of a migrated key that its start shows: four times what a prefix of ours may have.
const PREFIX_CHARS_MAX: usize = 64;

/// A key of the layout `<prefix>_<short token>_<long token>` (HASH-4).
struct Presented {
    /// What stands for its foreign hash.
    foreign: KeyDigest,
    /// The prefix and the first characters of the rest, as they are kept for people.
    start: String,
    /// The digest of all of it.
    native: KeyDigest,
}

impl Presented {
    /// Takes a key apart; `None` for one of another layout. Prefixes may hold underscores, tokens do not; nobody checks
    /// their lengths.
    fn new(key: &str, native: KeyDigest) -> Option<Presented> {
        let mut parts = key.rsplitn(3, '_');
        let (long, _short, prefix) = (parts.next()?, parts.next()?, parts.next()?);
        let body = &key[prefix.len() + 1..];
        let shown = body.char_indices().nth(START_CHARS).map_or(body.len(), |(at, _)| at);
        // Whoever presents the key first chooses what comes before its long token; listings should survive it.
        let is_plain = prefix.chars().count() <= PREFIX_CHARS_MAX && !key.chars().any(char::is_control);
        let start = if is_plain { key[..prefix.len() + 1 + shown].to_owned() } else { String::new() };
        let hex: String = Sha256::digest(long).iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Presented { foreign: migration::foreign_hash(Algorithm::PrefixedApiKey, &hex), start, native })
    }
}

/// Where a presented key leads.
enum Lead {
    /// Nowhere.
    Nowhere,
    /// To this key by its own hash: it was presented a moment ago.
    Native(KeyId),
    /// Its foreign hash is this key's, which came by the migration.
    Foreign(Box<Found>, MigratedKeyRow),
}

/// Finds the key that `key` is in the migration of that name, and gives it the hash of `native`, the digest of `key`,
/// where it is presented for the first time. `may` says whether the caller may verify it: nothing is changed for one who may not.
///
/// Returns what it is found by from now on, and its view.
pub async fn present(
    call: &Call,
    key: &str,
    native: KeyDigest,
    migration: &str,
    may: impl Fn(&Found) -> bool,
) -> Result<Option<(Trace, Arc<KeyView>)>, Problem> {
    let (Some(migration), Some(presented)) = (MigrationId::parse(migration), Presented::new(key, native)) else {
        return Ok(None);
    };
    let workspace = call.workspace();
    // Guesses cost no read.
    if call.storage().knows_absent(workspace, &presented.foreign) {
        return Ok(None);
    }
    let foreign = presented.foreign;
    let lead = call.read("key", move |storage| {
        let snapshot = storage.snapshot()?;
        if let Some(id) = key::find(&snapshot, workspace, &native)? {
            return Ok(Lead::Native(id));
        }
        follow(&snapshot, workspace, migration, &foreign)
    });
    let (trace, id) = match lead.await? {
        Lead::Nowhere => return Ok(None),
        Lead::Native(id) => (Trace::Presented(native), id),
        Lead::Foreign(found, _) if !may(&found) => return Ok(None),
        Lead::Foreign(found, came) if came.pending => adopt(call, &found, migration, presented).await?,
        Lead::Foreign(found, _) => (Trace::Stored(found.row.hash), found.id),
    };
    Ok(view_again(call, &trace, id).await?.map(|view| (trace, view)))
}

/// Goes from a foreign hash to its key, if that is live and came by this migration.
fn follow(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    migration: MigrationId,
    foreign: &KeyDigest,
) -> Result<Lead, ReadError> {
    let lazy = migration::get(snapshot, workspace, migration)?
        .is_some_and(|migration| migration.algorithm == Algorithm::PrefixedApiKey);
    if !lazy {
        return Ok(Lead::Nowhere);
    }
    let Some(id) = key::find(snapshot, workspace, foreign)? else { return Ok(Lead::Nowhere) };
    let Some(came) = migration::of_key(snapshot, workspace, id)? else { return Ok(Lead::Nowhere) };
    Ok(match live(snapshot, workspace, id)? {
        Some(found) if came.migration == migration => Lead::Foreign(Box::new(found), came),
        _ => Lead::Nowhere,
    })
}

/// Gives a pending key its own hash. Returns what it is found by now, and whose it is: somebody may have been faster,
/// with this spelling of the key or with another one.
async fn adopt(
    call: &Call,
    found: &Found,
    migration: MigrationId,
    presented: Presented,
) -> Result<(Trace, KeyId), Problem> {
    let (id, before) = (found.id, Trace::Stored(found.row.hash));
    let adopted = call.as_system().transact(Correlate::IfSeveral, move |change: &mut Change<'_, '_>| {
        let (workspace, now) = (change.workspace(), change.now());
        if let Some(owner) = key::find(change.tx, workspace, &presented.native)? {
            return Ok((Trace::Presented(presented.native), owner));
        }
        let Some(Found { mut row, .. }) = live(change.tx, workspace, id)? else { return Ok((before, id)) };
        if let Some(came) = migration::of_key(change.tx, workspace, id)?
            && came.pending
            && came.migration == migration
        {
            row.hash = change.tx.hash(&presented.native)?;
            row.start = presented.start;
            row.updated_at = Some(now);
            migration::adopt(change.tx, workspace, id, &row, &came)?;
            // By the contract; the key's settings are what they were.
            change.may_go_untold();
        }
        Ok((Trace::Stored(row.hash), id))
    });
    match adopted.await {
        Ok(adopted) => Ok(adopted.value),
        // A full disk refuses the rewriting, but verifications go on: under the foreign hash, until there is room.
        // So they do on a follower whose leader is away.
        Err(problem) if problem.status() == 503 && (call.is_alone() || call.storage().stats().read_only) => {
            Ok((before, id))
        }
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KEYS-MIGRATE-13, KEYS-MIGRATE-16, HASH-4: long token, start, and what has too few parts.
    #[test]
    fn a_key_is_taken_apart_from_its_end() {
        let hex = |long: &str| Sha256::digest(long).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for (key, long, start) in [
            ("re_abcdefgh_LONG", "LONG", "re_abcd"),
            ("my_app_s_LONG", "LONG", "my_app_s_LO"),
            ("__", "", "__"),
            ("a__", "", "a__"),
            ("\u{fc}_\u{1f511}\u{1f511}_\u{df}\u{df}", "\u{df}\u{df}", "\u{fc}_\u{1f511}\u{1f511}_\u{df}"),
        ] {
            let presented = Presented::new(key, KeyDigest([0; 32])).unwrap_or_else(|| panic!("{key} has three parts"));
            assert_eq!(presented.foreign, migration::foreign_hash(Algorithm::PrefixedApiKey, &hex(long)), "{key}");
            assert_eq!(presented.start, start, "{key}");
        }
        for key in ["", "_", "re", "re_LONG"] {
            assert!(Presented::new(key, KeyDigest([0; 32])).is_none(), "{key}");
        }
    }
}
