//! Whether a permission can be of use: what the operator is told about one that no operation ever asks for.
//!
//! Such permissions are legal (PM-TUP-03, PM-URN-07) and kept; most often they are a slip of the pen, which a root key
//! would otherwise reveal only by being refused.

use keyward_storage::ids::WorkspaceId;

use crate::rbac::Urn;

/// The tuples that operations ask for: resource types and their actions (PM-TUP-04, EXT-10 to EXT-19; without those of
/// upstream's deploy platform).
const TUPLES: &[(&str, &[&str])] = &[
    (
        "api",
        &[
            "create_api",
            "read_api",
            "update_api",
            "delete_api",
            "create_key",
            "read_key",
            "update_key",
            "delete_key",
            "verify_key",
            "encrypt_key",
            "decrypt_key",
            "read_analytics",
        ],
    ),
    (
        "ratelimit",
        &[
            "limit",
            "create_namespace",
            "read_namespace",
            "update_namespace",
            "delete_namespace",
            "set_override",
            "read_override",
            "delete_override",
            "list_overrides",
            "read_analytics",
        ],
    ),
    (
        "rbac",
        &[
            "create_permission",
            "read_permission",
            "update_permission",
            "delete_permission",
            "create_role",
            "read_role",
            "update_role",
            "delete_role",
            "add_permission_to_key",
            "remove_permission_from_key",
            "add_role_to_key",
            "remove_role_from_key",
            "add_permission_to_role",
            "remove_permission_from_role",
        ],
    ),
    ("identity", &["create_identity", "read_identity", "update_identity", "delete_identity"]),
    ("portal", &["create_portal", "read_portal", "update_portal", "delete_portal", "create_portal_session"]),
    ("root_key", &["create_root_key", "read_root_key", "update_root_key", "delete_root_key"]),
    ("audit_log", &["read_audit_log"]),
    ("workspace", &["read_workspace"]),
];

/// The paths of resource names that operations ask for, and their actions (PM-URN-06). `<>` is any id; a `*` is itself,
/// so that only a wildcard covers it (PM-URN-04).
const PATHS: &[(&str, &[&str])] = &[
    ("keyspaces/<>", &["create_key", "read_keyspace"]),
    ("keyspaces/<>/keys/<>", &["read_key", "update_key", "delete_key", "verify_key", "encrypt_key", "decrypt_key"]),
    ("ratelimits/namespaces/<>/overrides/<>", &["read_override"]),
    ("projects/*/identities/*", &["create_identity", "read_identity", "update_identity", "delete_identity"]),
    ("rbac/permissions/*", &["create_permission"]),
    ("rootKeys/<>", &["read", "write", "delete"]),
    ("limits", &["read"]),
];

/// Why a root key of `workspace` gains nothing by `permission`; `None` where it may gain something.
pub fn why_useless(permission: &str, workspace: WorkspaceId) -> Option<String> {
    if let Some(urn) = Urn::parse(permission) {
        if urn.workspace() != workspace.to_string() {
            return Some(format!("it names another workspace than {workspace}"));
        }
        let useful = urn.is_administrator()
            || PATHS.iter().any(|(path, actions)| actions.contains(&urn.action()) && may_cover(urn.path(), path));
        return (!useful).then(|| "no operation asks for such a resource and action".to_owned());
    }
    if permission.starts_with("unkey:") {
        return Some("it is not of the form unkey:v1:<workspace id>:<path>#<action>".to_owned());
    }
    let mut parts = permission.split('.');
    let (Some(kind), Some(id), Some(action), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Some(
            "it is neither of the form <type>.<id or *>.<action> nor unkey:v1:<workspace id>:<path>#<action>"
                .to_owned(),
        );
    };
    let known = TUPLES.iter().any(|(its_kind, actions)| *its_kind == kind && actions.contains(&action));
    if !known {
        return Some(format!("no operation asks for {kind}.….{action}"));
    }
    // PM-TUP-05
    (id.is_empty() || (kind == "rbac" && id != "*")).then(|| format!("operations ask for {kind}.*.{action}"))
}

/// Whether a granted path covers the path of a requirement for some choice of its ids (PM-URN-03).
fn may_cover(granted: &str, asked: &str) -> bool {
    let mut granted = granted.split('/');
    let mut asked = asked.split('/');
    loop {
        match (granted.next(), asked.next()) {
            (Some("**"), _) | (None, None) => return true,
            (Some(segment), Some(wanted)) if segment == "*" || wanted == "<>" || segment == wanted => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PM-TUP-02, PM-TUP-03, PM-TUP-05, PM-URN-02 to PM-URN-08: what can open something passes without a word, what
    /// cannot is named, and nobody is told that the administrator's permission is useless.
    #[test]
    fn only_useless_permissions_are_remarked_on() {
        let workspace = WorkspaceId::parse("ws_aaaaaaaaaaaaaaaa").expect("an id");
        let urn = |rest: &str| format!("unkey:v1:{workspace}:{rest}");
        for useful in [
            "api.*.create_key",
            "api.api_1.verify_key",
            "ratelimit.my.read_analytics",
            "rbac.*.create_role",
            "root_key.*.create_root_key",
            "workspace.*.read_workspace",
            &urn("rootKeys/*#write"),
            &urn("rootKeys/key_1#read"),
            &urn("limits#read"),
            &urn("**#*"),
            &urn("**#read_key"),
            &urn("keyspaces/*#create_key"),
            &urn("keyspaces/**#create_key"),
            &urn("keyspaces/ks_1/keys/*#read_key"),
            &urn("keyspaces/*/keys/key_1#read_key"),
            &urn("ratelimits/**#read_override"),
            &urn("projects/*/identities/*#create_identity"),
            &urn("rbac/permissions/*#create_permission"),
        ] {
            assert_eq!(why_useless(useful, workspace), None, "{useful}");
        }
        for useless in [
            "*",
            "documents.read",
            "API.*.CREATE_KEY",
            "api.*.create_kee",
            "api.*.*",
            "rbac.role_1.delete_role",
            "api..create_key",
            "project.*.create_app",
            "unkey:v1:ws_bbbbbbbbbbbbbbbb:**#*",
            "unkey:v2:ws_aaaaaaaaaaaaaaaa:**#*",
            &urn("keyspaces/**#*"),
            &urn("keyspaces/*#read_key"),
            &urn("keyspaces/ks_1/keys#read_key"),
            &urn("projects/proj_1/identities/*#create_identity"),
            &urn("**#create_kee"),
        ] {
            assert!(why_useless(useless, workspace).is_some(), "{useless}");
        }
    }
}
