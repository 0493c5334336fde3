//! Committed, now visible: the effects of a batch reach the hot views.
//!
//! Order matters. Shared views change first and together (one generation); then balances; then the views that point at
//! them. A view is built from the rows as they are after the whole batch, so several changes of one resource publish once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::error::{BadRow, ReadError};
use crate::hot::build::{Builder, permission, unless_stale, workspace_view};
use crate::hot::counters::KeyCounters;
use crate::hot::shared::Publishing;
use crate::hot::{Hot, OPERATOR};
use crate::ids::{ApiId, IdText, IdentityId, KeyId, NamespaceId, PermissionId, RoleId, WorkspaceNo};
use crate::position::Position;
use crate::records::api::{self, ApiView};
use crate::records::key::{self, KeyHash, KeyRow, KeyView};
use crate::records::migration::MigratedKeyRow;
use crate::records::pepper::PepperRow;
use crate::records::ratelimit::{OverrideRow, OverrideView};
use crate::records::role::{RoleRow, RoleView};
use crate::records::root_key::{self, RootKeyRow};
use crate::records::{self, Effect, Row, TableNo, identity, ratelimit, role};
use crate::store::{Snapshot, decode};
use crate::tx::{CreditChange, Moved};

/// What a batch changed, each thing once.
#[derive(Default)]
struct Changed<'e> {
    shared: BTreeSet<(TableNo, WorkspaceNo, IdText)>,
    workspaces: BTreeSet<WorkspaceNo>,
    namespaces: BTreeSet<(WorkspaceNo, IdText)>,
    /// The last row of each override of exactly one identifier; `None` where it was removed.
    overrides: BTreeMap<(WorkspaceNo, NamespaceId, &'e [u8]), Option<OverrideRow>>,
    /// The last row of each key; `None` where it was removed. A batch may make a key and remove it again: only what is
    /// left in the end may become hot.
    keys: BTreeMap<(WorkspaceNo, KeyId), Option<KeyRow>>,
    /// Keys that are no longer found by the hash they came with.
    adopted: BTreeMap<(WorkspaceNo, KeyId), KeyHash>,
    root_keys: BTreeMap<KeyId, Option<RootKeyRow>>,
    pepper: Option<PepperRow>,
    /// Hashes that were given up, though perhaps taken again since.
    freed: Vec<(WorkspaceNo, KeyHash)>,
    freed_root: Vec<KeyHash>,
}

fn split(key: &[u8]) -> Option<(WorkspaceNo, IdText)> {
    Some((records::workspace_of(key)?, IdText::from_bytes(key.get(4..20)?.try_into().ok()?)?))
}

fn collect<'e>(effects: impl Iterator<Item = &'e Effect>) -> Result<Changed<'e>, ReadError> {
    let mut changed = Changed::default();
    for effect in effects {
        match effect.table {
            records::API | records::IDENTITY | records::PERMISSION | records::ROLE => {
                if let Some((workspace, id)) = split(&effect.key) {
                    changed.shared.insert((effect.table, workspace, id));
                }
            }
            records::WORKSPACE => changed.workspaces.extend(records::workspace_of(&effect.key)),
            records::NAMESPACE | records::OVERRIDE_PATTERN => changed.namespaces.extend(split(&effect.key)),
            records::OVERRIDE => {
                if let (Some((workspace, id)), Some(identifier)) = (split(&effect.key), effect.key.get(20..)) {
                    let row = effect.value.as_deref().map(decode).transpose()?;
                    changed.overrides.insert((workspace, NamespaceId(id), identifier), row);
                }
            }
            records::KEY => {
                if let Some((workspace, id)) = split(&effect.key) {
                    let row = effect.value.as_deref().map(decode).transpose()?;
                    changed.keys.insert((workspace, KeyId(id)), row);
                }
            }
            records::MIGRATED_KEY => {
                if let Some((workspace, id)) = split(&effect.key) {
                    let row: Option<MigratedKeyRow> = effect.value.as_deref().map(decode).transpose()?;
                    match row.filter(|row| !row.pending) {
                        Some(row) => drop(changed.adopted.insert((workspace, KeyId(id)), row.foreign)),
                        None => drop(changed.adopted.remove(&(workspace, KeyId(id)))),
                    }
                }
            }
            records::KEY_BY_HASH if effect.value.is_none() => {
                if let (Some(workspace), Some(hash)) =
                    (records::workspace_of(&effect.key), effect.key.get(4..).and_then(|hash| hash.try_into().ok()))
                {
                    changed.freed.push((workspace, hash));
                }
            }
            records::ROOT_KEY => {
                if let Some(id) = <[u8; 16]>::try_from(effect.key.as_slice()).ok().and_then(IdText::from_bytes) {
                    let row = effect.value.as_deref().map(decode).transpose()?;
                    changed.root_keys.insert(KeyId(id), row);
                }
            }
            records::ROOT_KEY_BY_HASH if effect.value.is_none() => {
                changed.freed_root.extend(<KeyHash>::try_from(effect.key.as_slice()).ok());
            }
            records::PEPPER => changed.pepper = effect.value.as_deref().map(decode).transpose()?,
            _ => {}
        }
    }
    Ok(changed)
}

/// Counters of keys on their way from one hash to another.
type Moving = BTreeMap<(WorkspaceNo, KeyId), Arc<KeyCounters>>;

/// Makes a committed batch visible. `snapshot` was taken after its commit; each
/// changed balance is returned as it became, `None` where the key is not in memory.
pub(crate) fn publish<'e>(
    hot: &Hot,
    snapshot: &Snapshot,
    effects: impl Iterator<Item = &'e Effect>,
    credit_changes: &[CreditChange],
    moved: &[Moved],
) -> Result<Vec<Option<u64>>, ReadError> {
    let position = snapshot.position();
    let changed = collect(effects)?;
    if let Some(row) = &changed.pepper {
        // Before any hash of a new stage can be found.
        let missing =
            |_| ReadError::Row { table: records::PEPPER, cause: BadRow::BadValue("a pepper this process has not") };
        hot.peppers.publish(Some(row)).map_err(missing)?;
    }
    publish_shared(hot, snapshot, &changed, position)?;

    // A key that changes its hash keeps its counters, whose spends may be in no row yet. Its old entry goes first: it must
    // not be found twice, and an older fill must not bring it back.
    let mut moving: Moving = BTreeMap::new();
    for Moved { workspace, id, from, to } in moved {
        // Told to the filter, and free of what was looked for in vain.
        drop(hot.keys.forget(workspace.0, to, position));
        if let Some(view) = hot.keys.forget(workspace.0, from, position).filter(|view| view.id == *id) {
            moving.insert((*workspace, *id), Arc::clone(&view.counters));
        }
    }
    for (&(workspace, id), foreign) in &changed.adopted {
        if let Some(view) = hot.keys.forget(workspace.0, foreign, position).filter(|view| view.id == id) {
            moving.insert((workspace, id), Arc::clone(&view.counters));
        }
    }

    let mut balances = Vec::with_capacity(credit_changes.len());
    for change in credit_changes {
        let apply = |counters: &KeyCounters| {
            counters.change(change.change, change.generation, change.balance, change.refill_due)
        };
        balances.push(match moving.get(&(change.workspace, change.id)) {
            Some(counters) => apply(counters),
            None => hot.keys.change(change.workspace.0, &change.hash, position, |view| {
                apply(&view.filter(|view| view.id == change.id)?.counters)
            }),
        });
    }

    let builder = Builder { hot, snapshot };
    // Hashes that were given up are forgotten now and told to be absent at the end: what has got another hash is to be found
    // under that by then. Whoever looks meanwhile reads, which waits for this to be over.
    for (workspace, hash) in &changed.freed {
        drop(hot.keys.forget(workspace.0, hash, position));
    }
    // What was not in memory does not get there only because a switch comes by: there may be more keys than room.
    let cold = || moved.iter().filter(|moved| !moving.contains_key(&(moved.workspace, moved.id)));
    let cold_now: BTreeSet<(WorkspaceNo, KeyHash)> = cold().map(|moved| (moved.workspace, moved.to)).collect();
    let cold_before: BTreeSet<(WorkspaceNo, KeyHash)> = cold().map(|moved| (moved.workspace, moved.from)).collect();
    for ((workspace, id), row) in &changed.keys {
        if let Some(row) = row.as_ref().filter(|row| !cold_now.contains(&(*workspace, row.hash))) {
            publish_key(&builder, *workspace, *id, row, position, moving.get(&(*workspace, *id)))?;
        }
    }
    // One that was taken again in the same batch is somebody's, in memory or not: another reader may have evicted what was
    // published a moment ago.
    for (workspace, hash) in changed.freed.iter().filter(|freed| !cold_before.contains(freed)) {
        if key::find_stored(snapshot, *workspace, hash)?.is_none() {
            hot.keys.publish(workspace.0, hash, position, |_| None);
        }
    }
    for hash in &changed.freed_root {
        drop(hot.root_keys.forget(OPERATOR, hash, position));
    }
    let root_keys = changed.root_keys.iter().filter_map(|(id, row)| Some((id, row.as_ref()?)));
    for (id, row) in root_keys.filter(|(_, row)| row.deleted_at.is_none()) {
        match unless_stale(builder.root_key(*id, row))? {
            Some(view) => hot.root_keys.publish(OPERATOR, &row.hash, position, |_| Some(Arc::new(view))),
            None => drop(hot.root_keys.forget(OPERATOR, &row.hash, position)),
        }
    }
    for hash in &changed.freed_root {
        if root_key::find_stored(snapshot, hash)?.is_none() {
            hot.root_keys.publish(OPERATOR, hash, position, |_| None);
        }
    }
    for ((workspace, namespace, identifier), row) in &changed.overrides {
        let hash = hot.override_hash(*workspace, *namespace, identifier);
        let view = row.as_ref().map(|row| Arc::new(OverrideView::new(row)));
        hot.overrides.publish(workspace.0, &hash, position, |_| view);
    }
    for &(workspace, id) in &changed.namespaces {
        let id = NamespaceId(id);
        if let Some(view) = builder.namespace(workspace, id)? {
            // A name may read like an id; the namespace that has it as its id is found by it then (RL-NS-01).
            let shadowed = match NamespaceId::parse(&view.name) {
                Some(other) if other != id => ratelimit::get(snapshot, workspace, other)?.is_some(),
                _ => false,
            };
            for name in [id.to_string().as_str(), &view.name].into_iter().take(if shadowed { 1 } else { 2 }) {
                let hash = hot.name_hash(workspace, name);
                hot.namespaces.publish(workspace.0, &hash, position, |_| Some(Arc::clone(&view)));
            }
        }
    }
    Ok(balances)
}

/// Puts one view into its cell.
type SetCell = Box<dyn FnOnce(&Publishing<'_>)>;

fn publish_shared(hot: &Hot, snapshot: &Snapshot, changed: &Changed<'_>, position: Position) -> Result<(), ReadError> {
    if changed.shared.is_empty() && changed.workspaces.is_empty() {
        return Ok(());
    }
    let builder = Builder { hot, snapshot };
    // Everything is read and built first: readers wait while the generation is odd.
    let mut set: Vec<SetCell> = Vec::new();
    for &(table, no, id) in &changed.shared {
        match table {
            records::API => {
                let id = ApiId(id);
                let view = api::get(snapshot, no, id)?.and_then(|row| ApiView::new(id, &row));
                set.push(Box::new(move |cells| cells.set_api(no, id, view)));
            }
            records::IDENTITY => {
                let id = IdentityId(id);
                let view = identity::get(snapshot, no, id)?.and_then(|row| builder.identity(no, id, &row));
                set.push(Box::new(move |cells| cells.set_identity(no, id, view)));
            }
            records::PERMISSION => {
                let id = PermissionId(id);
                let view = role::permission(snapshot, no, id)?.map(|row| permission(id, &row));
                set.push(Box::new(move |cells| cells.set_permission(no, id, view)));
            }
            _ => {
                let id = RoleId(id);
                let view =
                    role::role(snapshot, no, id)?.map(|row| role_view(hot, snapshot, no, id, &row)).transpose()?;
                set.push(Box::new(move |cells| cells.set_role(no, id, view.map(|make| make(cells)))));
            }
        }
    }
    for &no in &changed.workspaces {
        let view = workspace_view(snapshot, no)?;
        set.push(Box::new(move |cells| cells.set_workspace(no, (), view)));
    }
    let cells = hot.shared.publish(position);
    for set in set {
        set(&cells);
    }
    Ok(())
}

/// A role's view, to be made while the generation is odd: cells of permissions that have none yet must not show this
/// batch's state any earlier than the others.
fn role_view(
    hot: &Hot,
    snapshot: &Snapshot,
    no: WorkspaceNo,
    id: RoleId,
    row: &RoleRow,
) -> Result<impl FnOnce(&Publishing<'_>) -> RoleView + use<>, ReadError> {
    let mut permissions = Vec::with_capacity(row.permissions.len());
    for &permission_id in &row.permissions {
        let cell = hot.shared.known_permission(no, permission_id);
        let read = match &cell {
            Some(_) => None,
            None => role::permission(snapshot, no, permission_id)?.map(|row| permission(permission_id, &row)),
        };
        permissions.push((permission_id, cell, read));
    }
    let name = row.name.as_str().into();
    Ok(move |cells: &Publishing<'_>| RoleView {
        id,
        name,
        permissions: permissions
            .into_iter()
            .map(|(permission, cell, read)| cell.unwrap_or_else(|| cells.permission(no, permission, read)))
            .collect(),
    })
}

fn publish_key(
    builder: &Builder<'_>,
    workspace: WorkspaceNo,
    id: KeyId,
    row: &KeyRow,
    position: Position,
    moving: Option<&Arc<KeyCounters>>,
) -> Result<(), ReadError> {
    debug_assert_eq!(KeyRow::TABLE, records::KEY);
    let keys = &builder.hot.keys;
    if row.deleted_at.is_some() {
        keys.publish(workspace.0, &row.hash, position, |_| None);
        return Ok(());
    }
    let fresh = builder.counters(workspace, id, row)?;
    let Some(mut view) = unless_stale(builder.key(workspace, id, row, fresh))? else {
        drop(keys.forget(workspace.0, &row.hash, position));
        return Ok(());
    };
    keys.publish(workspace.0, &row.hash, position, |present: Option<&Arc<KeyView>>| {
        // A hot key keeps its counters: there may be spends in them that no row has yet.
        let present = present.filter(|present| present.id == id).map(|present| &present.counters);
        if let Some(counters) = moving.or(present) {
            view.counters = Arc::clone(counters);
        }
        Some(Arc::new(view))
    });
    Ok(())
}
