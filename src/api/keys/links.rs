//! What a key refers to by name: permissions, roles, an identity. Found, made where the contract makes them, or refused; and
//! how a key comes to hold them.

use std::collections::HashSet;

use keyward_storage::ids::IdentityId;
use keyward_storage::records::audit::Target;
use keyward_storage::records::identity::{self, IdentityRow};
use keyward_storage::records::key::{self, KeyRow};
use keyward_storage::records::role;
use keyward_storage::{Abort, ReadError};

use super::Found;
use crate::api::call::Change;
use crate::api::permissions::{self, PermissionEntry, RoleEntry, Slugs, permission_target, role_by_name, role_target};
use crate::api::problem::{Code, Problem};
use crate::rbac::Need;
use crate::tenants::target;

/// The permissions with these slugs, each once; missing ones are made (KEYS-CREATE-7, KEYS-UPDATE-6). Slugs are found
/// whatever their case, and two spellings are one entry (KEYS-GEN-17).
pub fn permissions<S: AsRef<str>>(
    change: &mut Change<'_, '_>,
    slugs: &[S],
    describe: impl Fn(&str) -> Option<String>,
) -> Result<Vec<PermissionEntry>, ReadError> {
    Ok(Slugs::find(change, slugs)?.or_make(change, describe))
}

/// The roles with these names, each once; a missing one is refused: roles are never made here (KEYS-CREATE-3 step 7,
/// KEYS-ROLE-2).
pub fn roles<S: AsRef<str>>(change: &Change<'_, '_>, names: &[S]) -> Result<Vec<RoleEntry>, Abort<Problem>> {
    let mut seen = HashSet::with_capacity(names.len());
    let mut entries = Vec::with_capacity(names.len());
    for name in names.iter().map(S::as_ref) {
        if seen.insert(role::folded(name)) {
            let found = role_by_name(change.tx, change.workspace(), name)?;
            entries.push(found.ok_or_else(|| Abort::Refused(no_such_role(name)))?);
        }
    }
    Ok(entries)
}

/// Records what a key was made with (KEYS-CREATE-11, KEYS-MIGRATE-12).
pub fn tell_first<'e>(
    change: &mut Change<'_, '_>,
    key: &Target,
    permissions: impl IntoIterator<Item = &'e PermissionEntry>,
    roles: impl IntoIterator<Item = &'e RoleEntry>,
) {
    for entry in permissions {
        change.audit(
            "authorization.connect_permission_and_key",
            format!("Added permission {} to key {}", entry.1.slug, key.id),
            vec![key.clone(), permission_target(entry)],
        );
    }
    for entry in roles {
        change.audit(
            "authorization.connect_role_and_key",
            format!("Connected role {} to key {}", entry.1.name, key.id),
            vec![key.clone(), role_target(entry)],
        );
    }
}

fn no_such_role(name: &str) -> Problem {
    Problem::new(Code::RoleNotFound, format!("Role '{name}' was not found."))
}

/// Asks for the key's own resource name with `update_key`, or for that action's tuple and `rbac.*.<action>` for each of
/// these (KEYS-GEN-31).
pub fn need<R>(found: &Found, actions: &[&str], ask: impl FnOnce(&Need<'_>) -> R) -> R {
    let (api, keyspace, key) = (found.row.api.spell(), found.api.keyspace.spell(), found.id.spell());
    let mut tuples = vec![Need::any_or_one("api", &api, "update_key")];
    tuples.extend(actions.iter().map(|action| Need::tuple("rbac", "*", action)));
    ask(&Need::Any(&[Need::urn(&["keyspaces", &keyspace, "keys", &key], "update_key"), Need::All(&tuples)]))
}

/// The permissions a key holds directly, with their rows. Its row may also name some that were deleted: they are left out,
/// and gone from the row once it is written with what is held here.
pub fn held_permissions(change: &Change<'_, '_>, row: &KeyRow) -> Result<Vec<PermissionEntry>, ReadError> {
    permissions::existing(change, &row.permissions)
}

/// The roles a key has, as [`held_permissions`].
pub fn held_roles(change: &Change<'_, '_>, row: &KeyRow) -> Result<Vec<RoleEntry>, ReadError> {
    let mut entries = Vec::with_capacity(row.roles.len());
    for &id in &row.roles {
        entries.extend(role::role(change.tx, change.workspace(), id)?.map(|row| (id, row)));
    }
    Ok(entries)
}

/// Makes these a key's direct permissions. Its time of change stays what it was (KEYS-PERM-8).
pub fn hold_permissions(change: &mut Change<'_, '_>, found: &mut Found, held: &[PermissionEntry]) {
    found.row.permissions = held.iter().map(|(id, _)| *id).collect();
    let workspace = change.workspace();
    key::update(change.tx, workspace, found.id, &found.row);
}

/// Makes these a key's roles. Its time of change stays what it was (KEYS-ROLE-8).
pub fn hold_roles(change: &mut Change<'_, '_>, found: &mut Found, held: &[RoleEntry]) {
    found.row.roles = held.iter().map(|(id, _)| *id).collect();
    let workspace = change.workspace();
    key::update(change.tx, workspace, found.id, &found.row);
}

/// Records that a key gained a permission (KEYS-PERM-6).
pub fn tell_permission_added(change: &mut Change<'_, '_>, found: &Found, entry: &PermissionEntry) {
    let description = format!("Added permission {} to key {}", entry.1.name, found.id);
    let targets = vec![found.target(), permission_target(entry)];
    change.audit("authorization.connect_permission_and_key", description, targets);
}

/// Records that a key lost a permission (KEYS-PERM-6).
pub fn tell_permission_removed(change: &mut Change<'_, '_>, found: &Found, entry: &PermissionEntry) {
    let description = format!("Removed permission {} from key {}", entry.1.name, found.id);
    let targets = vec![found.target(), permission_target(entry)];
    change.audit("authorization.disconnect_permission_and_key", description, targets);
}

/// Records that a key gained a role (KEYS-ROLE-6).
pub fn tell_role_added(change: &mut Change<'_, '_>, found: &Found, entry: &RoleEntry) {
    let description = format!("Added role {} to key {}", entry.1.name, found.id);
    let targets = vec![found.target(), role_target(entry)];
    change.audit("authorization.connect_role_and_key", description, targets);
}

/// Records that a key lost a role (KEYS-ROLE-6).
pub fn tell_role_removed(change: &mut Change<'_, '_>, found: &Found, entry: &RoleEntry) {
    let description = format!("Removed role {} from key {}", entry.1.name, found.id);
    let targets = vec![found.target(), role_target(entry)];
    change.audit("authorization.disconnect_role_and_key", description, targets);
}

/// The identity with this external id, made with empty metadata where there is none (KEYS-OBJ-6).
pub fn identity(change: &mut Change<'_, '_>, external_id: &str) -> Result<IdentityId, ReadError> {
    let workspace = change.workspace();
    if let Some(id) = identity::find(change.tx, workspace, external_id)? {
        return Ok(id);
    }
    let id = IdentityId(change.new_id());
    let row = IdentityRow {
        external_id: external_id.to_owned(),
        meta: None,
        ratelimits: Vec::new(),
        created_at: change.now(),
        updated_at: None,
        deleted_at: None,
    };
    identity::put(change.tx, workspace, id, &row);
    change.audit("identity.create", format!("Created identity {id}"), vec![target("identity", id, external_id)]);
    Ok(id)
}
