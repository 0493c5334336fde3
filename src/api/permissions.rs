//! permissions.*: what keys may do in the customer's own application, as permissions and named sets of them.

pub mod create_permission;
pub mod create_role;
pub mod delete_permission;
pub mod delete_role;
pub mod get_permission;
pub mod get_role;
pub mod list_permissions;
pub mod list_roles;
pub mod set_role_permissions;
mod slugs;
#[cfg(test)]
mod trail_tests;
pub mod update_permission;
pub mod update_role;

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use keyward_storage::ids::{PermissionId, RoleId, WorkspaceNo};
use keyward_storage::records::audit::Target;
use keyward_storage::records::role::{self, PermissionRow, RoleRow};
use keyward_storage::{Abort, Read, ReadError};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::call::{Call, Change};
use super::problem::{Code, Problem};
use super::shape::{List, Opt, Patch, Slug, Text};
use crate::rbac::Need;
use crate::tenants::target;
pub use slugs::Slugs;

/// Slugs in one request (RB-CR-09, RB-SR-08).
pub const SLUGS_MAX: usize = 1000;

/// A list of slugs in a request.
pub type SlugList = List<Slug, 0, SLUGS_MAX>;

/// An id or a name of a role.
pub type RoleName = Text<1, 128>;

/// A longer text about a permission or a role; an empty one is none (RB-PERM-01).
pub type Description = Text<0, 512>;

/// A permission and its row.
pub type PermissionEntry = (PermissionId, PermissionRow);

/// A role and its row.
pub type RoleEntry = (RoleId, RoleRow);

/// A permission.
#[derive(Clone, Serialize, JsonSchema)]
pub struct Permission {
    /// Its id.
    #[schemars(length(min = 3, max = 255), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    id: String,
    /// A label for people.
    #[schemars(length(min = 1, max = 512))]
    name: String,
    /// What verification compares, in the spelling it was stored with.
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[a-zA-Z0-9_:\-\.\*]+$"))]
    slug: String,
    /// A longer text about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    description: Option<String>,
}

impl Permission {
    fn new((id, row): PermissionEntry) -> Permission {
        Permission { id: id.to_string(), name: row.name, slug: row.slug, description: row.description }
    }

    /// Permissions as replies show them: by slug, bytewise (RB-ROLE-03, KEYS-PERM-5).
    pub fn sorted(entries: Vec<PermissionEntry>) -> Vec<Permission> {
        let mut permissions: Vec<Permission> = entries.into_iter().map(Permission::new).collect();
        permissions.sort_unstable_by(|one, other| one.slug.cmp(&other.slug));
        permissions
    }
}

/// A role.
#[derive(Serialize, JsonSchema)]
pub struct Role {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// A longer text about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<String>,
    /// What it grants, by slug.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<Permission>,
}

/// Reads roles with their permissions. A permission that several of them grant is read once.
struct Roles<'r, R> {
    read: &'r R,
    workspace: WorkspaceNo,
    known: HashMap<PermissionId, Option<Permission>>,
}

impl<'r, R: Read> Roles<'r, R> {
    fn new(read: &'r R, workspace: WorkspaceNo) -> Roles<'r, R> {
        Roles { read, workspace, known: HashMap::new() }
    }

    /// A role as replies show it.
    fn show(&mut self, (id, row): RoleEntry) -> Result<Role, ReadError> {
        let mut permissions = Vec::with_capacity(row.permissions.len());
        for permission in row.permissions {
            let shown = match self.known.get(&permission) {
                Some(shown) => shown,
                None => {
                    let row = role::permission(self.read, self.workspace, permission)?;
                    self.known.entry(permission).or_insert(row.map(|row| Permission::new((permission, row))))
                }
            };
            permissions.extend(shown.clone());
        }
        permissions.sort_unstable_by(|one, other| one.slug.cmp(&other.slug));
        Ok(Role { id: id.to_string(), name: row.name, description: row.description, permissions })
    }
}

impl Role {
    /// Roles as replies show them: by name, bytewise (KEYS-ROLE-5). What they grant is read here and not in the
    /// transaction that linked them: that would keep other changes waiting for what may be thousands of rows.
    pub async fn sorted(call: &Call, entries: Vec<RoleEntry>) -> Result<Vec<Role>, Problem> {
        let workspace = call.workspace();
        let roles = call.read("roles", move |storage| {
            let snapshot = storage.snapshot()?;
            let mut roles = Roles::new(&snapshot, workspace);
            entries.into_iter().map(|entry| roles.show(entry)).collect::<Result<Vec<Role>, ReadError>>()
        });
        let mut roles = roles.await?;
        roles.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(roles)
    }
}

/// Finds a permission by id or slug; where both match, the id does (RB-ID-01).
fn find_permission(
    read: &impl Read,
    workspace: WorkspaceNo,
    named: &str,
) -> Result<Option<PermissionEntry>, ReadError> {
    if let Some(id) = PermissionId::parse(named)
        && let Some(row) = role::permission(read, workspace, id)?
    {
        return Ok(Some((id, row)));
    }
    by_slug(read, workspace, named)
}

/// Finds a permission by its slug, whatever the letters' case (RB-SLUG-02).
fn by_slug(read: &impl Read, workspace: WorkspaceNo, slug: &str) -> Result<Option<PermissionEntry>, ReadError> {
    let Some(id) = role::find_permission(read, workspace, slug)? else { return Ok(None) };
    Ok(role::permission(read, workspace, id)?.map(|row| (id, row)))
}

/// Finds a role by id or name; where both match, the id does (RB-ID-01).
fn find_role(read: &impl Read, workspace: WorkspaceNo, named: &str) -> Result<Option<RoleEntry>, ReadError> {
    if let Some(entry) = role_by_id(read, workspace, named)? {
        return Ok(Some(entry));
    }
    role_by_name(read, workspace, named)
}

/// Finds a role by its id.
fn role_by_id(read: &impl Read, workspace: WorkspaceNo, id: &str) -> Result<Option<RoleEntry>, ReadError> {
    let Some(id) = RoleId::parse(id) else { return Ok(None) };
    Ok(role::role(read, workspace, id)?.map(|row| (id, row)))
}

/// Finds a role by its name, whatever the letters' case (RB-ROLE-02).
pub fn role_by_name(read: &impl Read, workspace: WorkspaceNo, name: &str) -> Result<Option<RoleEntry>, ReadError> {
    let Some(id) = role::find_role(read, workspace, name)? else { return Ok(None) };
    Ok(role::role(read, workspace, id)?.map(|row| (id, row)))
}

/// Those of these permissions that still exist, with their rows: a deleted one stays named where it was linked, and is no
/// link any more (RB-DEL-01).
pub fn existing(change: &Change<'_, '_>, ids: &[PermissionId]) -> Result<Vec<PermissionEntry>, ReadError> {
    let mut entries = Vec::with_capacity(ids.len());
    for &id in ids {
        entries.extend(role::permission(change.tx, change.workspace(), id)?.map(|row| (id, row)));
    }
    Ok(entries)
}

/// Those of the entries that are not among the others, in their order.
pub fn without<I: Eq + Hash + Copy, R>(entries: Vec<(I, R)>, others: &[(I, R)]) -> Vec<(I, R)> {
    let others: HashSet<I> = others.iter().map(|(id, _)| *id).collect();
    entries.into_iter().filter(|(id, _)| !others.contains(id)).collect()
}

/// Those of the entries that are among the others too, in their order.
pub fn among<I: Eq + Hash + Copy, R>(entries: Vec<(I, R)>, others: &[(I, R)]) -> Vec<(I, R)> {
    let others: HashSet<I> = others.iter().map(|(id, _)| *id).collect();
    entries.into_iter().filter(|(id, _)| others.contains(id)).collect()
}

/// Whether the caller may make a permission that a request names and that does not exist, as all but createRole ask it
/// (RB-SR-02, KEYS-GEN-31). Asked before the transaction, which alone knows whether it is needed.
pub fn may_create(call: &Call) -> Result<(), Problem> {
    let urn = Need::urn(&["rbac", "permissions", "*"], "create_permission");
    call.authorize(&Need::Any(&[urn, Need::tuple("rbac", "*", "create_permission")])).map(drop)
}

/// A description in a request, as a row has it.
fn described(text: Opt<Description>) -> Option<String> {
    text.map(Text::into_string).filter(|text| !text.is_empty())
}

/// What a row's description becomes: an empty one removes it, as null does.
fn redescribed(patch: Patch<Description>, before: Option<String>) -> Option<String> {
    patch.map(Text::into_string).apply(before).filter(|text| !text.is_empty())
}

/// One answer for a permission that does not exist and one of another workspace (RB-WS-01).
fn permission_not_found() -> Problem {
    Problem::new(Code::PermissionNotFound, "The requested permission does not exist.")
}

/// One answer for a role that does not exist and one of another workspace (RB-WS-01).
fn role_not_found() -> Problem {
    Problem::new(Code::RoleNotFound, "The requested role does not exist.")
}

/// Refuses a slug that another permission has (RB-CP-02).
fn refuse_taken_slug(change: &Change<'_, '_>, slug: &str, own: Option<PermissionId>) -> Result<(), Abort<Problem>> {
    match role::find_permission(change.tx, change.workspace(), slug)? {
        Some(id) if own != Some(id) => Err(Abort::Refused(Problem::new(
            Code::PermissionAlreadyExists,
            format!("A permission with slug '{slug}' already exists in this workspace."),
        ))),
        _ => Ok(()),
    }
}

/// Refuses a name that another role has (RB-CR-04).
fn refuse_taken_name(change: &Change<'_, '_>, name: &str, own: Option<RoleId>) -> Result<(), Abort<Problem>> {
    match role::find_role(change.tx, change.workspace(), name)? {
        Some(id) if own != Some(id) => Err(Abort::Refused(Problem::new(
            Code::RoleAlreadyExists,
            format!("A role with name '{name}' already exists in this workspace."),
        ))),
        _ => Ok(()),
    }
}

/// A permission as an audit target; its display name is its name, not its slug (AL-EV-02).
pub fn permission_target((id, row): &PermissionEntry) -> Target {
    target("permission", id, &row.name)
}

/// The same with all there is to know of it (RB-CP-03, RB-DP-02).
fn whole_permission_target(entry: &PermissionEntry) -> Target {
    let row = &entry.1;
    let description = row.description.as_deref().unwrap_or_default();
    let meta = json!({ "name": row.name, "slug": row.slug, "description": description });
    Target { meta: Some(meta.to_string()), ..permission_target(entry) }
}

/// A role as an audit target.
pub fn role_target((id, row): &RoleEntry) -> Target {
    target("role", id, &row.name)
}

/// The same with all there is to know of it (RB-CR-06, RB-DR-02).
fn whole_role_target(entry: &RoleEntry) -> Target {
    let description = entry.1.description.as_deref().unwrap_or_default();
    let meta = json!({ "name": entry.1.name, "description": description });
    Target { meta: Some(meta.to_string()), ..role_target(entry) }
}
