//! Committed, now visible: the effects of a batch reach the hot views.
//!
//! Order matters. Shared views change first and together (one generation); then balances; then the views that point at
//! them. A view is built from the rows as they are after the whole batch, so several changes of one resource publish once.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::ReadError;
use crate::hot::build::{Builder, permission, unless_stale, workspace_view};
use crate::hot::{Hot, OPERATOR};
use crate::ids::{ApiId, IdText, IdentityId, KeyId, NamespaceId, PermissionId, RoleId, WorkspaceNo};
use crate::position::Position;
use crate::records::api::{self, ApiView};
use crate::records::key::{KeyHash, KeyRow, KeyView};
use crate::records::root_key::RootKeyRow;
use crate::records::{self, Effect, Row, TableNo, identity, role};
use crate::store::{Snapshot, decode};
use crate::tx::CreditChange;

/// What a batch changed, each thing once.
#[derive(Default)]
struct Changed {
    shared: BTreeSet<(TableNo, WorkspaceNo, IdText)>,
    workspaces: BTreeSet<WorkspaceNo>,
    namespaces: BTreeSet<(WorkspaceNo, IdText)>,
    /// Keys by table order: the last row of each.
    keys: Vec<(WorkspaceNo, KeyId, KeyRow)>,
    root_keys: Vec<(KeyId, RootKeyRow)>,
    /// Hashes that nothing has any more.
    freed: Vec<(WorkspaceNo, KeyHash)>,
    freed_root: Vec<KeyHash>,
}

fn split(key: &[u8]) -> Option<(WorkspaceNo, IdText)> {
    Some((records::workspace_of(key)?, IdText::from_bytes(key.get(4..20)?.try_into().ok()?)?))
}

fn collect<'e>(effects: impl Iterator<Item = &'e Effect>) -> Result<Changed, ReadError> {
    let mut changed = Changed::default();
    for effect in effects {
        match effect.table {
            records::API | records::IDENTITY | records::PERMISSION | records::ROLE => {
                if let Some((workspace, id)) = split(&effect.key) {
                    changed.shared.insert((effect.table, workspace, id));
                }
            }
            records::WORKSPACE => changed.workspaces.extend(records::workspace_of(&effect.key)),
            records::NAMESPACE | records::OVERRIDE => changed.namespaces.extend(split(&effect.key)),
            records::KEY => {
                if let (Some((workspace, id)), Some(value)) = (split(&effect.key), &effect.value) {
                    changed.keys.push((workspace, KeyId(id), decode(value)?));
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
                if let (Ok(id), Some(value)) = (<[u8; 16]>::try_from(effect.key.as_slice()), &effect.value)
                    && let Some(id) = IdText::from_bytes(id)
                {
                    changed.root_keys.push((KeyId(id), decode(value)?));
                }
            }
            records::ROOT_KEY_BY_HASH if effect.value.is_none() => {
                changed.freed_root.extend(<KeyHash>::try_from(effect.key.as_slice()).ok());
            }
            _ => {}
        }
    }
    Ok(changed)
}

/// Makes a committed batch visible. `snapshot` was taken after its commit; balances are returned as they became.
pub(crate) fn publish<'e>(
    hot: &Hot,
    snapshot: &Snapshot,
    effects: impl Iterator<Item = &'e Effect>,
    credit_changes: &[CreditChange],
) -> Result<Vec<(KeyId, u64)>, ReadError> {
    let position = snapshot.position();
    let changed = collect(effects)?;
    publish_shared(hot, snapshot, &changed, position)?;

    let mut balances = Vec::with_capacity(credit_changes.len());
    for change in credit_changes {
        if let Some(view) = hot.keys.peek(change.workspace.0, &change.hash)
            && let Some(balance) = view.counters.change(change.change, change.generation, change.refill_due)
        {
            balances.push((change.id, balance));
        }
    }

    let builder = Builder { hot, snapshot };
    for (workspace, hash) in &changed.freed {
        hot.keys.publish(workspace.0, hash, position, |_| None);
    }
    for (workspace, id, row) in &changed.keys {
        publish_key(&builder, *workspace, *id, row, position)?;
    }
    for hash in &changed.freed_root {
        hot.root_keys.publish(OPERATOR, hash, position, |_| None);
    }
    for (id, row) in changed.root_keys.iter().filter(|(_, row)| row.deleted_at.is_none()) {
        match unless_stale(builder.root_key(*id, row))? {
            Some(view) => hot.root_keys.publish(OPERATOR, &row.hash, position, |_| Some(Arc::new(view))),
            None => hot.root_keys.forget(OPERATOR, &row.hash, position),
        }
    }
    for &(workspace, id) in &changed.namespaces {
        let id = NamespaceId(id);
        if let Some(view) = builder.namespace(workspace, id)? {
            for name in [id.to_string().as_str(), &view.name] {
                let hash = hot.name_hash(workspace, name);
                hot.namespaces.publish(workspace.0, &hash, position, |_| Some(Arc::clone(&view)));
            }
        }
    }
    Ok(balances)
}

fn publish_shared(hot: &Hot, snapshot: &Snapshot, changed: &Changed, position: Position) -> Result<(), ReadError> {
    if changed.shared.is_empty() && changed.workspaces.is_empty() {
        return Ok(());
    }
    let builder = Builder { hot, snapshot };
    // Everything is read and built first: readers wait while the generation is odd.
    let mut set: Vec<Box<dyn FnOnce(&crate::hot::shared::Publishing<'_>)>> = Vec::new();
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
                // The writer's own snapshot is the newest there is, so it is never stale.
                let view = match role::role(snapshot, no, id)? {
                    Some(row) => unless_stale(builder.role(no, id, &row))?,
                    None => None,
                };
                set.push(Box::new(move |cells| cells.set_role(no, id, view)));
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

fn publish_key(
    builder: &Builder<'_>,
    workspace: WorkspaceNo,
    id: KeyId,
    row: &KeyRow,
    position: Position,
) -> Result<(), ReadError> {
    debug_assert_eq!(KeyRow::TABLE, records::KEY);
    let keys = &builder.hot.keys;
    if row.deleted_at.is_some() {
        keys.publish(workspace.0, &row.hash, position, |_| None);
        return Ok(());
    }
    let fresh = builder.counters(workspace, id, row)?;
    let Some(mut view) = unless_stale(builder.key(workspace, id, row, fresh))? else {
        keys.forget(workspace.0, &row.hash, position);
        return Ok(());
    };
    keys.publish(workspace.0, &row.hash, position, |present: Option<&Arc<KeyView>>| {
        // A hot key keeps its counters: there may be spends in them that no row has yet.
        if let Some(present) = present.filter(|present| present.id == id) {
            view.counters = Arc::clone(&present.counters);
        }
        Some(Arc::new(view))
    });
    Ok(())
}
