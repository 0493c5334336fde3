//! What a change of a key leaves in the audit trail: old and new values of what changed (AL-EV-09), and the links that came
//! and went (AL-OP-02).

use keyward_storage::ids::{PermissionId, RoleId};
use keyward_storage::records::key::{KeyRow, Ratelimit, Refill};
use keyward_storage::records::{identity, role};
use keyward_storage::{Abort, ReadError};
use serde_json::{Value, json};

use super::{Found, links};
use crate::api::call::Change;
use crate::api::problem::Problem;
use crate::api::trail::Changes;

/// Old and new values of a key's changed fields, as compact JSON; `None` where nothing but its time changed.
pub fn changes(
    change: &Change<'_, '_>,
    before: &KeyRow,
    after: &KeyRow,
    remaining: (Option<u64>, Option<u64>),
) -> Result<Option<String>, ReadError> {
    let mut changes = Changes::default();
    changes.note("name", json!(before.name), json!(after.name));
    changes.note("enabled", json!(before.enabled), json!(after.enabled));
    changes.note("expires", json!(before.expires), json!(after.expires));
    changes.note("remaining", json!(remaining.0), json!(remaining.1));
    changes.note("refill", refill(before.refill.as_ref()), refill(after.refill.as_ref()));
    changes.note("ratelimits", limits(&before.ratelimits), limits(&after.ratelimits));
    changes.note("externalId", external_id(change, before)?, external_id(change, after)?);
    changes.note_unseen("meta", before.meta != after.meta);
    Ok(changes.into_meta())
}

fn refill(refill: Option<&Refill>) -> Value {
    refill.map_or(Value::Null, |refill| json!({ "amount": refill.amount, "refillDay": refill.day }))
}

fn limits(limits: &[Ratelimit]) -> Value {
    limits
        .iter()
        .map(|limit| {
            json!({
                "name": limit.name, "limit": limit.limit, "duration": limit.duration, "autoApply": limit.auto_apply
            })
        })
        .collect()
}

fn external_id(change: &Change<'_, '_>, row: &KeyRow) -> Result<Value, ReadError> {
    Ok(match row.identity {
        None => Value::Null,
        Some(id) => json!(identity::get_live(change.tx, change.workspace(), id)?.map(|identity| identity.external_id)),
    })
}

/// Records the permissions and roles that a key lost and gained, losses first.
pub fn record_links(change: &mut Change<'_, '_>, found: &Found, before: &KeyRow) -> Result<(), Abort<Problem>> {
    let after = &found.row;
    for id in gone(&before.permissions, &after.permissions) {
        permission(change, found, id, false)?;
    }
    for id in gone(&before.roles, &after.roles) {
        role_link(change, found, id, false)?;
    }
    for id in gone(&after.permissions, &before.permissions) {
        permission(change, found, id, true)?;
    }
    for id in gone(&after.roles, &before.roles) {
        role_link(change, found, id, true)?;
    }
    Ok(())
}

/// What is in the one list and not in the other, in its order.
fn gone<I: PartialEq + Copy>(from: &[I], other: &[I]) -> Vec<I> {
    from.iter().filter(|id| !other.contains(id)).copied().collect()
}

fn permission(change: &mut Change<'_, '_>, found: &Found, id: PermissionId, added: bool) -> Result<(), ReadError> {
    // One that was deleted meanwhile was no link any more.
    let Some(row) = role::permission(change.tx, change.workspace(), id)? else { return Ok(()) };
    let tell = if added { links::tell_permission_added } else { links::tell_permission_removed };
    tell(change, found, &(id, row));
    Ok(())
}

fn role_link(change: &mut Change<'_, '_>, found: &Found, id: RoleId, added: bool) -> Result<(), ReadError> {
    let Some(row) = role::role(change.tx, change.workspace(), id)? else { return Ok(()) };
    let tell = if added { links::tell_role_added } else { links::tell_role_removed };
    tell(change, found, &(id, row));
    Ok(())
}
