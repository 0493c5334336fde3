//! What a key refers to by name: permissions, roles, an identity. Found, made where the contract makes them, or refused.

use keyward_storage::ids::{IdentityId, PermissionId, RoleId};
use keyward_storage::records::identity::{self, IdentityRow};
use keyward_storage::records::role::{self, PermissionRow};
use keyward_storage::{Abort, ReadError};

use crate::api::call::Change;
use crate::api::problem::{Code, Problem};
use crate::tenants::target;

/// A permission or role that a request named, in its stored spelling.
pub struct Named<I> {
    /// Its id.
    pub id: I,
    /// Its slug or name as stored.
    pub name: String,
    /// For a permission, its display name.
    pub label: String,
}

/// The permissions with these slugs, each once; missing ones are made (KEYS-CREATE-7, KEYS-UPDATE-6). Slugs are found
/// whatever their case, and two spellings are one entry (KEYS-GEN-17).
pub fn permissions<S: AsRef<str>>(
    change: &mut Change<'_, '_>,
    slugs: &[S],
    describe: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Named<PermissionId>>, ReadError> {
    let workspace = change.workspace();
    let mut linked: Vec<Named<PermissionId>> = Vec::with_capacity(slugs.len());
    for slug in slugs {
        let slug = slug.as_ref();
        let found = role::find_permission(change.tx, workspace, slug)?;
        let named = match found {
            Some(id) => match role::permission(change.tx, workspace, id)? {
                Some(row) => Named { id, name: row.slug, label: row.name },
                // An index entry without its row cannot be; treated as one that has to be made.
                None => make_permission(change, slug, describe(slug)),
            },
            None => make_permission(change, slug, describe(slug)),
        };
        if !linked.iter().any(|other| other.id == named.id) {
            linked.push(named);
        }
    }
    Ok(linked)
}

fn make_permission(change: &mut Change<'_, '_>, slug: &str, description: Option<String>) -> Named<PermissionId> {
    let id = PermissionId(change.new_id());
    let row = PermissionRow {
        slug: slug.to_owned(),
        name: slug.to_owned(),
        description,
        created_at: change.now(),
        updated_at: None,
    };
    let workspace = change.workspace();
    role::insert_permission(change.tx, workspace, id, &row);
    let mut made = target("permission", id, slug);
    // Slugs have no character that JSON escapes (RB-SLUG-01).
    made.meta = Some(format!(r#"{{"name":"{slug}","slug":"{slug}"}}"#));
    change.audit("permission.create", format!("Created {slug} ({id})"), vec![made]);
    Named { id, name: row.slug, label: row.name }
}

/// The roles with these names, each once; a missing one is refused: roles are never made here (KEYS-CREATE-3 step 7).
pub fn roles<S: AsRef<str>>(change: &Change<'_, '_>, names: &[S]) -> Result<Vec<Named<RoleId>>, Abort<Problem>> {
    let workspace = change.workspace();
    let mut linked: Vec<Named<RoleId>> = Vec::with_capacity(names.len());
    for name in names {
        let name = name.as_ref();
        let found = match role::find_role(change.tx, workspace, name)? {
            Some(id) => role::role(change.tx, workspace, id)?.map(|row| (id, row)),
            None => None,
        };
        let Some((id, row)) = found else {
            return Err(Abort::Refused(Problem::new(Code::RoleNotFound, format!("Role '{name}' was not found."))));
        };
        if !linked.iter().any(|other| other.id == id) {
            linked.push(Named { id, label: row.name.clone(), name: row.name });
        }
    }
    Ok(linked)
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
