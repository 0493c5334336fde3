//! Permissions (slugs) and roles (named sets of permissions) that customers attach to their keys.

use std::sync::Arc;

use super::codec::row;
use super::{PERMISSION_BY_SLUG, ROLE_BY_NAME, Row, row_key};
use crate::error::ReadError;
use crate::hot::shared::Shared;
use crate::ids::{PermissionId, RoleId, WorkspaceNo};
use crate::store::Read;
use crate::tx::Tx;

row! {
    /// A permission.
    pub struct PermissionRow in PERMISSION version 1 {
        /// What verification compares; unique in its workspace whatever the letters' case (RB-SLUG-02).
        slug: String,
        /// A label.
        name: String,
        /// A longer one.
        description: Option<String>,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its last change.
        updated_at: Option<u64>,
    }
}

row! {
    /// A role.
    pub struct RoleRow in ROLE version 1 {
        /// Unique in its workspace whatever the letters' case (RB-ROLE-02).
        name: String,
        /// A longer text.
        description: Option<String>,
        /// What it grants; deleted permissions may still be named and are ignored.
        permissions: Vec<PermissionId>,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its last change.
        updated_at: Option<u64>,
    }
}

/// A permission in memory; a deleted one has none.
#[derive(Debug)]
pub struct PermissionView {
    /// Its id.
    pub id: PermissionId,
    /// Its slug in the stored spelling.
    pub slug: Box<str>,
}

/// A role in memory; a deleted one has none.
#[derive(Debug)]
pub struct RoleView {
    /// Its id.
    pub id: RoleId,
    /// Its name in the stored spelling.
    pub name: Box<str>,
    /// What it grants.
    pub permissions: Box<[Arc<Shared<PermissionView>>]>,
}

/// How slugs and names compare where case does not count: Unicode's full case folding, in which accents distinguish
/// (RB-SLUG-02, RB-ROLE-02). Indexes hold names in this form, so it never changes.
///
/// The standard library has none, but lower, upper and again lower case of each character by itself is the same for all but
/// the dotless i, whose upper case is another letter's.
pub fn folded(name: &str) -> String {
    const DOTLESS_I: char = '\u{131}';
    if name.is_ascii() {
        return name.to_ascii_lowercase();
    }
    let mut folded = String::with_capacity(name.len());
    for sign in name.chars() {
        match sign {
            DOTLESS_I => folded.push(sign),
            _ => folded.extend(sign.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)),
        }
    }
    folded
}

/// Reads a permission.
pub fn permission(
    read: &impl Read,
    workspace: WorkspaceNo,
    id: PermissionId,
) -> Result<Option<PermissionRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Finds a permission by its slug, whatever the letters' case.
pub fn find_permission(
    read: &impl Read,
    workspace: WorkspaceNo,
    slug: &str,
) -> Result<Option<PermissionId>, ReadError> {
    let key = row_key(workspace, &[folded(slug).as_bytes()]);
    Ok(read.bytes(PERMISSION_BY_SLUG, &key)?.and_then(|id| crate::store::id_from(&id)).map(PermissionId))
}

/// Puts a new permission and its index. The caller has seen that the slug is free.
pub fn insert_permission(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: PermissionId, row: &PermissionRow) {
    tx.put_bytes(PermissionRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
    tx.put_bytes(PERMISSION_BY_SLUG, &row_key(workspace, &[folded(&row.slug).as_bytes()]), id.as_bytes().to_vec());
}

/// Puts a permission in place of the row `before`, its index with it. The caller has seen that a new slug is free.
pub fn update_permission(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    id: PermissionId,
    before: &PermissionRow,
    row: &PermissionRow,
) {
    if folded(&before.slug) != folded(&row.slug) {
        tx.delete(PERMISSION_BY_SLUG, &row_key(workspace, &[folded(&before.slug).as_bytes()]));
    }
    insert_permission(tx, workspace, id, row);
}

/// Removes a permission; links to it are ignored from then on.
pub fn delete_permission(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: PermissionId, row: &PermissionRow) {
    tx.delete(PermissionRow::TABLE, &row_key(workspace, &[id.as_bytes()]));
    tx.delete(PERMISSION_BY_SLUG, &row_key(workspace, &[folded(&row.slug).as_bytes()]));
}

/// Reads a role.
pub fn role(read: &impl Read, workspace: WorkspaceNo, id: RoleId) -> Result<Option<RoleRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Finds a role by its name, whatever the letters' case.
pub fn find_role(read: &impl Read, workspace: WorkspaceNo, name: &str) -> Result<Option<RoleId>, ReadError> {
    let key = row_key(workspace, &[folded(name).as_bytes()]);
    Ok(read.bytes(ROLE_BY_NAME, &key)?.and_then(|id| crate::store::id_from(&id)).map(RoleId))
}

/// Puts a role and its index. `before` is the row it replaces; the caller has seen that a new name is free.
pub fn put_role(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: RoleId, before: Option<&RoleRow>, row: &RoleRow) {
    tx.put_bytes(RoleRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
    if let Some(before) = before.filter(|before| folded(&before.name) != folded(&row.name)) {
        tx.delete(ROLE_BY_NAME, &row_key(workspace, &[folded(&before.name).as_bytes()]));
    }
    tx.put_bytes(ROLE_BY_NAME, &row_key(workspace, &[folded(&row.name).as_bytes()]), id.as_bytes().to_vec());
}

/// Removes a role; links to it are ignored from then on.
pub fn delete_role(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: RoleId, row: &RoleRow) {
    tx.delete(RoleRow::TABLE, &row_key(workspace, &[id.as_bytes()]));
    tx.delete(ROLE_BY_NAME, &row_key(workspace, &[folded(&row.name).as_bytes()]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

    /// RB-SLUG-02, RB-ROLE-02: letters' case does not count, in whatever script; accents and the dot of the i do.
    #[test]
    fn names_fold_as_unicode_folds_them() {
        for (one, other) in [
            ("Docs.Read", "dOCS.rEAD"),
            ("STRASSE", "stra\u{df}e"),
            ("STRA\u{1e9e}E", "strasse"),
            ("\u{c4}RZTE", "\u{e4}rzte"),
            // Sigma has two small forms.
            ("\u{3a3}\u{391}\u{3a3}", "\u{3c3}\u{3b1}\u{3c2}"),
            ("\u{212a}elvin", "kelvin"),
            ("\u{130}", "i\u{307}"),
            ("\u{fb03}", "FFI"),
        ] {
            assert_eq!(folded(one), folded(other), "{one} and {other}");
        }
        for (one, other) in [("caf\u{e9}", "cafe"), ("\u{131}", "i"), ("\u{131}", "I"), ("a b", "ab"), (" a", "a")] {
            assert_ne!(folded(one), folded(other), "{one} and {other}");
        }
    }

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let permission =
            PermissionRow { slug: "a.b".into(), name: "n".into(), description: None, created_at: 1, updated_at: None };
        assert_eq!(hex(&permission.to_bytes()), "0103000000612e62010000006e00010000000000000000");
        assert_eq!(PermissionRow::from_bytes(&permission.to_bytes()), Ok(permission));
        let role = RoleRow {
            name: "r".into(),
            description: Some("d".into()),
            permissions: vec![PermissionId(id('p'))],
            created_at: 1,
            updated_at: None,
        };
        assert_eq!(
            hex(&role.to_bytes()),
            "01010000007201010000006401000000707070707070707070707070707070700100000000000000 00".replace(' ', "")
        );
        assert_eq!(RoleRow::from_bytes(&role.to_bytes()), Ok(role));
    }
}
