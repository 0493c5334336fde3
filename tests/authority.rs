//! Who may call what: every operation without a key, with a key that lacks the permission, with another workspace's,
//! and with exactly what it asks for. An operation that the served document lists and this table does not fails here.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::harness::world::{code, minted};
use crate::harness::{ADMINISTRATOR, Server, Workspace};
use crate::things::World;

/// How an operation refuses.
#[derive(Clone, Copy)]
pub enum Refusal {
    /// With this status and code.
    Problem(u16, &'static str),
    /// 200, as if the key did not exist.
    NotFound,
    /// Not at all: another workspace's root key acts in its own workspace.
    Own,
}

use Refusal::{NotFound, Own, Problem};

/// One operation: a minimal valid request, and who may make it.
pub struct Row {
    pub name: &'static str,
    /// A request that its workspace's root key may make.
    pub body: fn(&World) -> Value,
    /// What a root key without the permission hears.
    weak: Refusal,
    /// What another workspace's root key with every permission hears.
    strange: Refusal,
    /// Grants that are enough, each line alone (` & ` joins what is needed together).
    enough: &'static [&'static str],
}

const DENIED: Refusal = Problem(403, "unkey/authorization/insufficient_permissions");
const NO_KEY: Refusal = Problem(404, "unkey/data/key_not_found");
const NO_API: Refusal = Problem(404, "unkey/data/api_not_found");
const NO_PERMISSION: Refusal = Problem(404, "unkey/data/permission_not_found");
const NO_ROLE: Refusal = Problem(404, "unkey/data/role_not_found");
const NO_NAMESPACE: Refusal = Problem(404, "unkey/data/ratelimit_namespace_not_found");
const NO_OVERRIDE: Refusal = Problem(404, "unkey/data/ratelimit_override_not_found");
const NO_IDENTITY: Refusal = Problem(404, "unkey/data/identity_not_found");

/// Tells the names of [`unused`] apart.
static NAMES: AtomicU64 = AtomicU64::new(0);

/// A name that nothing has yet, for requests that can be made once only with the same one.
fn unused(what: &str) -> String {
    format!("{what}_{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

/// The operations, in the order of the document's names.
pub const ROWS: &[Row] = &[
    Row {
        name: "analytics.getRatelimits",
        body: |_| json!({"query": "SELECT count() AS decisions FROM ratelimits_v1"}),
        weak: DENIED,
        strange: Own,
        enough: &["ratelimit.*.read_analytics", "ratelimit.{namespace}.read_analytics"],
    },
    Row {
        name: "analytics.getVerifications",
        body: |_| json!({"query": "SELECT count() AS verifications FROM key_verifications_v1"}),
        weak: DENIED,
        strange: Own,
        enough: &["api.*.read_analytics", "api.{api}.read_analytics"],
    },
    Row {
        name: "apis.createApi",
        body: |_| json!({"name": "payments"}),
        weak: DENIED,
        strange: Own,
        enough: &["api.*.create_api"],
    },
    Row {
        name: "apis.deleteApi",
        body: |world| json!({"apiId": world.api}),
        weak: DENIED,
        strange: NO_API,
        enough: &["api.*.delete_api", "api.{api}.delete_api"],
    },
    Row {
        name: "apis.getApi",
        body: |world| json!({"apiId": world.api}),
        weak: DENIED,
        strange: NO_API,
        enough: &["api.*.read_api", "api.{api}.read_api"],
    },
    Row { name: "apis.listApis", body: |_| json!({}), weak: DENIED, strange: Own, enough: &["api.*.read_api"] },
    Row {
        name: "apis.listKeys",
        body: |world| json!({"apiId": world.api}),
        weak: NO_API,
        strange: NO_API,
        enough: &[
            "api.*.read_key & api.*.read_api",
            "api.{api}.read_key & api.*.read_api",
            "api.*.read_key & api.{api}.read_api",
            "api.{api}.read_key & api.{api}.read_api",
            "unkey:v1:{ws}:keyspaces/*/keys/*#read_key & unkey:v1:{ws}:keyspaces/*#read_keyspace",
            "unkey:v1:{ws}:keyspaces/**#read_key & unkey:v1:{ws}:**#read_keyspace",
        ],
    },
    Row {
        name: "apis.updateApi",
        body: |world| json!({"apiId": world.api}),
        weak: DENIED,
        strange: NO_API,
        enough: &["api.*.update_api", "api.{api}.update_api"],
    },
    Row {
        name: "auditLogs.queryAuditLogs",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["audit_log.*.read_audit_log"],
    },
    Row {
        name: "identities.createIdentity",
        body: |_| json!({"externalId": unused("tenant")}),
        weak: DENIED,
        strange: Own,
        enough: &[
            "identity.*.create_identity",
            "unkey:v1:{ws}:projects/*/identities/*#create_identity",
            "unkey:v1:{ws}:projects/**#create_identity",
        ],
    },
    Row {
        name: "identities.deleteIdentity",
        body: |world| json!({"identity": world.identity}),
        weak: DENIED,
        strange: NO_IDENTITY,
        enough: &["identity.*.delete_identity", "unkey:v1:{ws}:projects/*/identities/*#delete_identity"],
    },
    Row {
        name: "identities.getIdentity",
        body: |world| json!({"identity": world.identity}),
        weak: DENIED,
        strange: NO_IDENTITY,
        enough: &[
            "identity.*.read_identity",
            "identity.{identity}.read_identity",
            "unkey:v1:{ws}:projects/*/identities/*#read_identity",
            "unkey:v1:{ws}:projects/*/**#read_identity",
        ],
    },
    Row {
        name: "identities.listIdentities",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["identity.*.read_identity", "unkey:v1:{ws}:projects/*/identities/*#read_identity"],
    },
    Row {
        name: "identities.updateIdentity",
        body: |world| json!({"identity": world.identity}),
        weak: DENIED,
        strange: NO_IDENTITY,
        enough: &["identity.*.update_identity", "unkey:v1:{ws}:projects/*/identities/*#update_identity"],
    },
    Row {
        name: "keys.addPermissions",
        body: |world| json!({"keyId": world.key.id, "permissions": [world.permission]}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key & rbac.*.add_permission_to_key",
            "api.{api}.update_key & rbac.*.add_permission_to_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/**#update_key",
        ],
    },
    Row {
        name: "keys.addRoles",
        body: |world| json!({"keyId": world.key.id, "roles": [world.role]}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key & rbac.*.add_role_to_key",
            "api.{api}.update_key & rbac.*.add_role_to_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/**#update_key",
        ],
    },
    Row {
        name: "keys.createKey",
        body: |world| json!({"apiId": world.api}),
        weak: NO_API,
        strange: NO_API,
        enough: &[
            "api.*.create_key",
            "api.{api}.create_key",
            "unkey:v1:{ws}:keyspaces/*#create_key",
            "unkey:v1:{ws}:keyspaces/**#create_key",
            "unkey:v1:{ws}:**#create_key",
        ],
    },
    Row {
        name: "keys.deleteKey",
        body: |world| json!({"keyId": world.key.id}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.delete_key",
            "api.{api}.delete_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#delete_key",
            "unkey:v1:{ws}:keyspaces/*/keys/*#delete_key",
        ],
    },
    Row {
        name: "keys.getKey",
        body: |world| json!({"keyId": world.key.id}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.read_key",
            "api.{api}.read_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#read_key",
            "unkey:v1:{ws}:keyspaces/*/**#read_key",
            "unkey:v1:{ws}:keyspaces/**#read_key",
        ],
    },
    Row {
        name: "keys.migrateKeys",
        body: |world| json!({"migrationId": world.migration, "apiId": world.api, "keys": [{"hash": "no hash of ours"}]}),
        weak: DENIED,
        strange: NO_API,
        enough: &["api.*.create_key", "api.{api}.create_key"],
    },
    Row {
        name: "keys.removePermissions",
        body: |world| json!({"keyId": world.key.id, "permissions": [world.permission]}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key & rbac.*.remove_permission_from_key",
            "api.{api}.update_key & rbac.*.remove_permission_from_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/**#update_key",
        ],
    },
    Row {
        name: "keys.removeRoles",
        body: |world| json!({"keyId": world.key.id, "roles": [world.role]}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key",
            "api.{api}.update_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/**#update_key",
        ],
    },
    Row {
        name: "keys.rerollKey",
        body: |world| json!({"keyId": world.key.id, "expiration": 600_000}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.create_key",
            "api.{api}.create_key",
            "unkey:v1:{ws}:keyspaces/*#create_key",
            "unkey:v1:{ws}:keyspaces/**#create_key",
        ],
    },
    Row {
        name: "keys.searchKeys",
        body: |world| json!({"query": world.key.secret}),
        weak: DENIED,
        strange: Own,
        enough: &[
            "api.*.read_key & api.*.read_api",
            "api.{api}.read_key & api.*.read_api",
            "api.*.read_key & api.{api}.read_api",
            "api.{api}.read_key & api.{api}.read_api",
            "unkey:v1:{ws}:keyspaces/*/keys/*#read_key & unkey:v1:{ws}:keyspaces/*#read_keyspace",
            "unkey:v1:{ws}:keyspaces/**#read_key & unkey:v1:{ws}:**#read_keyspace",
        ],
    },
    Row {
        name: "keys.setPermissions",
        body: |world| json!({"keyId": world.key.id, "permissions": [world.permission]}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key & rbac.*.add_permission_to_key & rbac.*.remove_permission_from_key",
            "api.{api}.update_key & rbac.*.add_permission_to_key & rbac.*.remove_permission_from_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/**#update_key",
        ],
    },
    Row {
        name: "keys.setRoles",
        body: |world| json!({"keyId": world.key.id, "roles": [world.role]}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key",
            "api.{api}.update_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/**#update_key",
        ],
    },
    Row {
        name: "keys.updateCredits",
        body: |world| json!({"keyId": world.key.id, "operation": "set", "value": 5}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key",
            "api.{api}.update_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/*/keys/**#update_key",
        ],
    },
    Row {
        name: "keys.updateKey",
        body: |world| json!({"keyId": world.key.id}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "api.*.update_key",
            "api.{api}.update_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#update_key",
            "unkey:v1:{ws}:keyspaces/*/keys/*#update_key",
        ],
    },
    Row {
        name: "keys.verifyKey",
        body: |world| json!({"key": world.key.secret}),
        weak: NotFound,
        strange: NotFound,
        enough: &[
            "api.*.verify_key",
            "api.{api}.verify_key",
            "unkey:v1:{ws}:keyspaces/*/keys/{key}#verify_key",
            "unkey:v1:{ws}:keyspaces/*/keys/*#verify_key",
        ],
    },
    Row {
        name: "keys.whoami",
        body: |world| json!({"key": world.key.secret}),
        weak: NO_KEY,
        strange: NO_KEY,
        enough: &["api.*.read_key", "api.{api}.read_key", "unkey:v1:{ws}:keyspaces/*/keys/{key}#read_key"],
    },
    Row {
        name: "migrations.createMigration",
        body: |_| json!({"name": "from elsewhere", "algorithm": "github.com/seamapi/prefixed-api-key"}),
        weak: DENIED,
        strange: Own,
        enough: &["api.*.create_key"],
    },
    Row {
        name: "migrations.listMigrations",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["api.*.create_key"],
    },
    Row {
        name: "permissions.createPermission",
        body: |_| json!({"name": "a permission", "slug": unused("new")}),
        weak: DENIED,
        strange: Own,
        enough: &["rbac.*.create_permission"],
    },
    Row {
        name: "permissions.createRole",
        body: |_| json!({"name": unused("new")}),
        weak: DENIED,
        strange: Own,
        enough: &["rbac.*.create_role"],
    },
    Row {
        name: "permissions.deletePermission",
        body: |world| json!({"permission": world.permission}),
        weak: DENIED,
        strange: NO_PERMISSION,
        enough: &["rbac.*.delete_permission"],
    },
    Row {
        name: "permissions.deleteRole",
        body: |world| json!({"role": world.role}),
        weak: DENIED,
        strange: NO_ROLE,
        enough: &["rbac.*.delete_role"],
    },
    Row {
        name: "permissions.getPermission",
        body: |world| json!({"permission": world.permission}),
        weak: DENIED,
        strange: NO_PERMISSION,
        enough: &["rbac.*.read_permission"],
    },
    Row {
        name: "permissions.getRole",
        body: |world| json!({"role": world.role}),
        weak: DENIED,
        strange: NO_ROLE,
        enough: &["rbac.*.read_role"],
    },
    Row {
        name: "permissions.listPermissions",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["rbac.*.read_permission"],
    },
    Row {
        name: "permissions.listRoles",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["rbac.*.read_role"],
    },
    Row {
        name: "permissions.setRolePermissions",
        body: |world| json!({"role": world.role, "permissions": [world.permission]}),
        weak: DENIED,
        strange: NO_ROLE,
        enough: &["rbac.*.add_permission_to_role & rbac.*.remove_permission_from_role"],
    },
    Row {
        name: "permissions.updatePermission",
        body: |world| json!({"permission": world.permission}),
        weak: DENIED,
        strange: NO_PERMISSION,
        enough: &["rbac.*.update_permission"],
    },
    Row {
        name: "permissions.updateRole",
        body: |world| json!({"role": world.role}),
        weak: DENIED,
        strange: NO_ROLE,
        enough: &["rbac.*.update_role"],
    },
    Row {
        name: "ratelimit.createNamespace",
        body: |_| json!({"name": unused("namespace")}),
        weak: DENIED,
        strange: Own,
        enough: &["ratelimit.*.create_namespace"],
    },
    Row {
        name: "ratelimit.deleteNamespace",
        body: |world| json!({"namespace": world.namespace}),
        weak: DENIED,
        strange: NO_NAMESPACE,
        enough: &["ratelimit.*.delete_namespace", "ratelimit.{namespace}.delete_namespace"],
    },
    Row {
        name: "ratelimit.deleteOverride",
        body: |world| json!({"namespace": world.namespace, "identifier": "bob"}),
        weak: DENIED,
        strange: NO_NAMESPACE,
        enough: &["ratelimit.*.delete_override", "ratelimit.{namespace}.delete_override"],
    },
    Row {
        name: "ratelimit.getOverride",
        body: |world| json!({"namespace": world.namespace, "identifier": "bob"}),
        weak: NO_OVERRIDE,
        strange: NO_NAMESPACE,
        enough: &[
            "ratelimit.*.read_override",
            "ratelimit.{namespace}.read_override",
            "unkey:v1:{ws}:ratelimits/namespaces/{namespace}/overrides/{override}#read_override",
            "unkey:v1:{ws}:ratelimits/namespaces/{namespace}/overrides/*#read_override",
            "unkey:v1:{ws}:ratelimits/namespaces/{namespace}/**#read_override",
            "unkey:v1:{ws}:ratelimits/namespaces/*/overrides/*#read_override",
            "unkey:v1:{ws}:ratelimits/**#read_override",
        ],
    },
    Row {
        name: "ratelimit.limit",
        body: |_| json!({"namespace": "logins", "identifier": "ada", "limit": 10_000, "duration": 2_592_000_000_i64}),
        weak: DENIED,
        strange: Own,
        enough: &["ratelimit.*.limit"],
    },
    Row {
        name: "ratelimit.listNamespaces",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["ratelimit.*.read_namespace"],
    },
    Row {
        name: "ratelimit.listOverrides",
        body: |world| json!({"namespace": world.namespace}),
        weak: DENIED,
        strange: NO_NAMESPACE,
        enough: &["ratelimit.*.read_override", "ratelimit.{namespace}.read_override"],
    },
    Row {
        name: "ratelimit.multiLimit",
        body: |_| json!([{"namespace": "logins", "identifier": "ada", "limit": 10_000, "duration": 2_592_000_000_i64}]),
        weak: DENIED,
        strange: Own,
        enough: &["ratelimit.*.limit"],
    },
    Row {
        name: "ratelimit.setOverride",
        body: |world| json!({"namespace": world.namespace, "identifier": "bob", "limit": 7, "duration": 60_000}),
        weak: DENIED,
        strange: NO_NAMESPACE,
        enough: &["ratelimit.*.set_override", "ratelimit.{namespace}.set_override"],
    },
    Row {
        name: "rootKeys.createKey",
        body: |_| json!({"permissions": ["documents.read"]}),
        weak: DENIED,
        strange: Own,
        enough: &["root_key.*.create_root_key", "unkey:v1:{ws}:rootKeys/*#write", "unkey:v1:{ws}:rootKeys/**#write"],
    },
    Row {
        name: "rootKeys.deleteKey",
        body: |world| json!({"keyId": world.root_key}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "root_key.*.delete_root_key",
            "root_key.{root_key}.delete_root_key",
            "unkey:v1:{ws}:rootKeys/{root_key}#delete",
        ],
    },
    Row {
        name: "rootKeys.listKeys",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &[
            "root_key.*.read_root_key",
            "root_key.{root_key}.read_root_key",
            "unkey:v1:{ws}:rootKeys/{root_key}#read",
            "unkey:v1:{ws}:rootKeys/*#read",
        ],
    },
    Row {
        name: "rootKeys.rerollKey",
        body: |world| json!({"keyId": world.root_key, "expiration": null}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "root_key.*.update_root_key",
            "root_key.{root_key}.update_root_key",
            "unkey:v1:{ws}:rootKeys/{root_key}#write",
        ],
    },
    Row {
        name: "rootKeys.updateKey",
        body: |world| json!({"keyId": world.root_key}),
        weak: DENIED,
        strange: NO_KEY,
        enough: &[
            "root_key.*.update_root_key",
            "root_key.{root_key}.update_root_key",
            "unkey:v1:{ws}:rootKeys/{root_key}#write",
        ],
    },
    Row {
        name: "workspace.getLimits",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["workspace.*.read_workspace", "workspace.{ws}.read_workspace", "unkey:v1:{ws}:limits#read"],
    },
    Row {
        name: "workspace.getUsage",
        body: |_| json!({}),
        weak: DENIED,
        strange: Own,
        enough: &["workspace.*.read_workspace", "workspace.{ws}.read_workspace", "unkey:v1:{ws}:usage#read"],
    },
];

/// All tuples that mean something (PM-TUP-04), as `type.*.action`.
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
    ("workspace", &["read_workspace"]),
];

/// The row of an operation.
pub fn row(name: &str) -> &'static Row {
    ROWS.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} has no row in tests/authority.rs"))
}

fn filled(grant: &str, workspace: &Workspace, world: &World) -> String {
    grant
        .replace("{ws}", &workspace.id)
        .replace("{api}", &world.api)
        .replace("{key}", &world.key.id)
        .replace("{identity}", &world.identity)
        .replace("{namespace}", &world.namespace)
        .replace("{override}", &world.over)
        .replace("{root_key}", &world.root_key)
}

fn refused(server: &Server, row: &Row, body: Value, bearer: &str, refusal: Refusal) {
    let call = server.call(row.name, body).bearer(bearer);
    match refusal {
        Problem(status, code) => {
            let problem = call.expect_problem(status, code);
            assert!(!problem.detail.contains(['{', '}']), "COM-ERR-09: {}", problem.body);
        }
        NotFound => assert_eq!(call.expect_ok(), json!({"valid": false, "code": "NOT_FOUND"}), "KEYS-VERIFY-2"),
        Own => drop(call.expect_ok()),
    }
}

/// The table and the served document name the same operations.
#[test]
fn every_operation_has_a_row() {
    let workspace = Workspace::new();
    let served = workspace.server.document().operations();
    let tabled: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(served, tabled, "an operation in the document without a row here, or the reverse");
}

/// Without a credential every operation answers 400 and says what it missed.
/// COM-AUTH-01, COM-VAL-01, COM-VAL-03, KEYS-GEN-6, KEYS-GEN-8, COM-AUTH-11, RL-LIMIT-07
#[test]
fn no_operation_answers_without_a_root_key() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    for row in ROWS {
        let bare = || workspace.server.call(row.name, (row.body)(&world));
        for call in [
            bare(),
            bare().authorization(""),
            bare().authorization("   "),
            bare().header("Cookie", "portal_session=pat_1"),
            bare().without("Content-Type").raw("{"),
        ] {
            let problem = call.expect_problem(400, "unkey/application/invalid_input");
            let problem = problem.saying("Authorization header for 'bearer' scheme");
            assert_eq!(problem.errors.len(), 1, "COM-VAL-01: {}", problem.body);
            assert_eq!(problem.errors[0]["location"], "security");
            assert_eq!(problem.errors[0]["message"], "Authorization header was not found");
            assert!(problem.errors[0]["fix"].is_string(), "COM-VAL-03");
        }
    }
}

/// With a key nobody knows: 401 on a valid body, whatever it names; 400 on an invalid one.
/// COM-AUTH-05, COM-ORD-03, COM-ORD-04, COM-ORD-07, KEYS-GEN-3, COM-AUTH-09, COM-AUTH-10
#[test]
fn an_unknown_root_key_is_401_behind_a_valid_body() {
    let workspace = Workspace::new();
    let world = World::nowhere();
    for row in ROWS {
        let body = (row.body)(&world);
        for token in ["unkey_nobody", "a.b.c", &world.key.secret] {
            let problem = workspace.server.call(row.name, body.clone()).bearer(token);
            let problem = problem.expect_problem(401, "unkey/authentication/key_not_found");
            let problem = problem.saying("The provided root key is invalid. We could not find the requested key.");
            assert!(!problem.reply.text().contains("unkey_nobody"), "COM-AUTH-09");
        }
        workspace.server.call(row.name, json!("not what it wants")).bearer("unkey_nobody").expect_invalid();
    }
}

/// A root key that holds everything but what the operation asks for is refused as the table says; so is one of another
/// API, in another spelling, or written as a wildcard that means nothing.
/// PM-TUP-01, PM-TUP-02, PM-TUP-03, PM-TUP-04, PM-URN-02, PM-URN-03, PM-URN-05, PM-URN-07, PM-EVAL-04, PM-EVAL-05,
/// PM-TAB-01, PM-TAB-03, COM-ERR-09, KEYS-GEN-28, KEYS-GEN-29, KEYS-GEN-31, KEYS-GEN-33, KEYS-VERIFY-2, KEYS-WHOAMI-3,
/// KEYS-CREATE-3, APIS-CREATE-2, APIS-GET-2, APIS-DELETE-2, APIS-LIST-3, APIS-LIST-4, KEYS-REROLL-2, KEYS-MIGRATE-3, EXT-13,
/// RL-LIMIT-01, RL-MULTI-01
#[test]
fn every_operation_refuses_a_root_key_without_its_permission() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let other = World::of(&workspace);
    let stranger = workspace.neighbour();
    workspace.ok("ratelimit.limit", (row("ratelimit.limit").body)(&world));
    for row in ROWS {
        // Of what is needed together nothing is held.
        let accepted: Vec<String> = row
            .enough
            .iter()
            .flat_map(|grant| grant.split(" & "))
            .map(|part| filled(part, &workspace, &world))
            .collect();
        let mut held = Vec::new();
        for (kind, actions) in TUPLES {
            for action in *actions {
                let wide = format!("{kind}.*.{action}");
                if accepted.contains(&wide) {
                    held.push(wide.to_uppercase());
                    held.push(format!("{kind}.{action}"));
                    // Who may read some key space or namespace may ask, and sees nothing of others (AN-PERM-04).
                    // And who may read some API's keys may search, among these (EXT-16).
                    if *action != "read_analytics" && row.name != "keys.searchKeys" {
                        held.push(format!("{kind}.{}.{action}", other.api));
                    }
                    held.push(format!("unkey:v1:{}:**#{action}", stranger.id));
                    held.push(format!("unkey:v2:{}:**#{action}", workspace.id));
                    held.push(format!("unkey:v1:{}:keyspaces//keys/*#{action}", workspace.id));
                    held.push(format!("unkey:v1:{}:keyspaces/**/keys#{action}", workspace.id));
                    held.push(format!("unkey:v1:{}:keyspaces/*/keys/{}#{action}", workspace.id, other.key.id));
                    let of_keyspaces = format!("unkey:v1:{}:keyspaces/*#{action}", workspace.id);
                    if !accepted.contains(&of_keyspaces) {
                        held.push(of_keyspaces);
                    }
                } else {
                    held.push(wide);
                }
            }
        }
        held.extend(["*", "**", "api.*", "api.*.*", "*.*.*", "ratelimit.*.*"].map(str::to_owned));
        held.push(format!("unkey:v1:{}:{ADMINISTRATOR}", stranger.id));
        held.push(format!("unkey:v1:{}:keyspaces/**#*", workspace.id));
        let held: Vec<&str> = held.iter().map(String::as_str).collect();
        let weak = workspace.root_key(&held);
        refused(&workspace.server, row, (row.body)(&world), &weak.secret, row.weak);
        let nothing = workspace.root_key(&[]);
        refused(&workspace.server, row, (row.body)(&world), &nothing.secret, row.weak);
    }
    assert_eq!(code(&workspace.verify(&world.key, json!({}))), "VALID", "a refused call changes nothing");
}

/// Each accepted grant is enough by itself, in every spelling the contract lists, and so is the administrator's.
/// PM-TUP-01, PM-URN-01, PM-URN-03, PM-URN-06, PM-URN-09, PM-EVAL-01, PM-EVAL-02, KEYS-GEN-29, KEYS-GEN-30,
/// KEYS-GEN-31, KEYS-DELETE-4, KEYS-UPDATE-10, APIS-CREATE-2, APIS-GET-6, APIS-LIST-3, KEYS-REROLL-2, KEYS-MIGRATE-3, EXT-13,
/// COM-RK-07
#[test]
fn every_accepted_grant_is_enough_alone() {
    let workspace = Workspace::new();
    let first = World::of(&workspace);
    workspace.ok("ratelimit.limit", (row("ratelimit.limit").body)(&first));
    for row in ROWS {
        for grant in row.enough.iter().chain(&["unkey:v1:{ws}:**#*"]) {
            let world = World::of(&workspace);
            let grant = filled(grant, &workspace, &world);
            let held: Vec<&str> = grant.split(" & ").chain(["documents.read", "api.*.no_such_action"]).collect();
            let root = workspace.root_key(&held);
            let data = workspace.server.call(row.name, (row.body)(&world)).bearer(&root.secret).expect_ok();
            if row.name == "keys.verifyKey" {
                assert_eq!(code(&data), "VALID", "{grant}");
            }
        }
    }
}

/// Another workspace's root key with every permission sees nothing of this one, and changes nothing in it.
/// COM-RK-09, KEYS-GEN-25, APIS-GEN-4, APIS-GET-3, APIS-DELETE-9, PM-TAB-04, RL-NS-06, KEYS-GEN-26
#[test]
fn another_workspaces_root_key_sees_nothing() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let stranger = workspace.neighbour();
    workspace.ok("ratelimit.limit", (row("ratelimit.limit").body)(&world));
    for row in ROWS {
        refused(&workspace.server, row, (row.body)(&world), &stranger.root, row.strange);
    }
    assert_eq!(workspace.ok("apis.getApi", json!({"apiId": world.api}))["id"], world.api.as_str());
    assert_eq!(code(&workspace.verify(&world.key, json!({}))), "VALID");
    let again = workspace.ok("ratelimit.limit", (row("ratelimit.limit").body)(&world));
    assert_eq!(again["remaining"], 9998, "the stranger's calls were counted in a namespace of its own");
}

/// A permission of the same name in the administered workspace is another thing: it helps no root key. PM-EVAL-07, COM-RK-05
#[test]
fn a_customers_permission_opens_nothing() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let weak = workspace.root_key(&["api.*.read_api"]);
    let slugs = json!(["api.*.read_key", "api.*.update_key", "api.*.verify_key"]);
    workspace.update(&world.key, json!({"permissions": slugs}));
    let call = |operation: &str| workspace.server.call(operation, (row(operation).body)(&world)).bearer(&weak.secret);
    call("keys.getKey").expect_problem(403, "unkey/authorization/insufficient_permissions");
    call("keys.updateKey").expect_problem(403, "unkey/authorization/insufficient_permissions");
    assert_eq!(call("keys.verifyKey").expect_ok()["code"], "NOT_FOUND");
    assert_eq!(workspace.verify(&world.key, json!({}))["permissions"], slugs_sorted(&slugs));
}

fn slugs_sorted(slugs: &Value) -> Value {
    let mut sorted = slugs.as_array().unwrap().clone();
    sorted.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    sorted.into()
}

/// What is hidden looks exactly like what is not there: same body apart from the request id.
/// COM-ERR-08, KEYS-CREATE-3, KEYS-WHOAMI-3, KEYS-GEN-26, PM-EVAL-05, APIS-GEN-4, COM-RK-09, IDS-4
#[test]
fn hidden_and_absent_are_the_same_answer() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let stranger = workspace.neighbour();
    let weak = workspace.root_key(&["api.*.delete_key"]);
    let refusal = |operation: &str, body: Value, bearer: &str, status: u16, code: &str| {
        workspace.server.call(operation, body).bearer(bearer).expect_problem(status, code)
    };

    let absent =
        refusal("keys.createKey", json!({"apiId": "api_nowhere1"}), &workspace.root, 404, "unkey/data/api_not_found");
    let absent = absent.saying("The specified API was not found.");
    for bearer in [&weak.secret, &stranger.root] {
        let hidden = refusal("keys.createKey", json!({"apiId": world.api}), bearer, 404, "unkey/data/api_not_found");
        assert_eq!(hidden.body, absent.body);
    }

    let absent =
        refusal("keys.whoami", json!({"key": "no such key"}), &workspace.root, 404, "unkey/data/key_not_found");
    for bearer in [&weak.secret, &stranger.root] {
        let hidden = refusal("keys.whoami", json!({"key": world.key.secret}), bearer, 404, "unkey/data/key_not_found");
        assert_eq!(hidden.body, absent.body);
    }

    for operation in ["keys.getKey", "keys.updateKey", "keys.deleteKey", "keys.rerollKey"] {
        for absent in ["key_nowhere", "wrong_abc", "abc"] {
            let wording = "We could not find the requested key. The specified key was not found.";
            let body = |id: &str| match operation {
                "keys.rerollKey" => json!({"keyId": id, "expiration": 0}),
                _ => json!({"keyId": id}),
            };
            let absent = refusal(operation, body(absent), &workspace.root, 404, "unkey/data/key_not_found");
            let absent = absent.saying(wording);
            let foreign = body(&world.key.id);
            let foreign = refusal(operation, foreign, &stranger.root, 404, "unkey/data/key_not_found");
            assert_eq!(foreign.body, absent.body);
        }
    }

    for operation in ["apis.getApi", "apis.deleteApi"] {
        let wording = "The requested API does not exist or has been deleted.";
        let absent =
            refusal(operation, json!({"apiId": "api_nowhere1"}), &workspace.root, 404, "unkey/data/api_not_found");
        let absent = absent.saying(wording);
        let foreign = refusal(operation, json!({"apiId": world.api}), &stranger.root, 404, "unkey/data/api_not_found");
        assert_eq!(foreign.body, absent.body);
    }
}

/// The 403 names what is missing, in the words SDK users search for, and nothing the caller holds.
/// PM-EVAL-04, KEYS-GEN-27, KEYS-GEN-33, APIS-CREATE-2, COM-ERR-09
#[test]
fn a_403_names_what_is_missing() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let denied = "unkey/authorization/insufficient_permissions";
    let weak = workspace.root_key(&["api.*.read_analytics", "api.*.decrypt_key"]);
    let ask = |operation: &str| {
        let body = (row(operation).body)(&world);
        workspace.server.call(operation, body).bearer(&weak.secret).expect_problem(403, denied)
    };
    ask("apis.createApi").mentioning("Missing permission: 'api.*.create_api'");
    for (operation, action) in [
        ("apis.getApi", "read_api"),
        ("apis.deleteApi", "delete_api"),
        ("keys.getKey", "read_key"),
        ("keys.updateKey", "update_key"),
        ("keys.updateCredits", "update_key"),
        ("keys.deleteKey", "delete_key"),
    ] {
        let problem = ask(operation).mentioning("Missing one of these permissions").mentioning(action);
        assert!(!problem.detail.contains("read_analytics"), "it tells what the caller holds: {}", problem.detail);
    }
}

/// Permission comes before the lookup in getApi and deleteApi, after it for keys.
/// APIS-GET-2, APIS-GET-3, APIS-DELETE-2, KEYS-GEN-25, PM-TAB-04
#[test]
fn permission_and_lookup_come_in_the_order_of_the_table() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let nothing = workspace.root_key(&[]);
    let server = &workspace.server;
    for operation in ["apis.getApi", "apis.deleteApi"] {
        for api in [world.api.as_str(), "api_nowhere1"] {
            let call = server.call(operation, json!({"apiId": api})).bearer(&nothing.secret);
            call.expect_problem(403, "unkey/authorization/insufficient_permissions");
        }
    }
    let named = workspace.root_key(&["api.api_nowhere1.read_api"]);
    let call = server.call("apis.getApi", json!({"apiId": "api_nowhere1"})).bearer(&named.secret);
    call.expect_problem(404, "unkey/data/api_not_found");
    let call = server.call("apis.getApi", json!({"apiId": world.api})).bearer(&named.secret);
    call.expect_problem(403, "unkey/authorization/insufficient_permissions");

    for operation in ["keys.getKey", "keys.updateKey", "keys.deleteKey"] {
        let call = server.call(operation, json!({"keyId": world.key.id})).bearer(&nothing.secret);
        call.expect_problem(403, "unkey/authorization/insufficient_permissions");
        let call = server.call(operation, json!({"keyId": "key_nowhere"})).bearer(&nothing.secret);
        call.expect_problem(404, "unkey/data/key_not_found");
    }
}

/// A root key is no key of the workspace it administers, and a key is no root key: neither helps to find the other.
/// KEYFMT-8, COM-RK-01, COM-RK-02, COM-RK-03, KEYS-GEN-7
#[test]
fn keys_and_root_keys_do_not_know_each_other() {
    let workspace = Workspace::new();
    let world = World::of(&workspace);
    let root = workspace.root_key(&["api.*.read_key"]);
    assert!(root.secret.starts_with("unkey_"), "KEYFMT-8: {}", root.secret);
    assert!(root.id.starts_with("key_"), "KEYFMT-8: {}", root.id);
    workspace.call("keys.getKey", json!({"keyId": root.id})).expect_problem(404, "unkey/data/key_not_found");
    workspace.call("keys.whoami", json!({"key": root.secret})).expect_problem(404, "unkey/data/key_not_found");
    let verified = workspace.ok("keys.verifyKey", json!({"key": root.secret}));
    assert_eq!(verified, json!({"valid": false, "code": "NOT_FOUND"}));

    let body = || json!({"keyId": world.key.id});
    let unknown = workspace.server.call("keys.getKey", body()).bearer("unkey_nobody");
    let unknown = unknown.expect_problem(401, "unkey/authentication/key_not_found").body;
    let disabled = workspace.key(&world.api, json!({"enabled": false}));
    let expired = workspace.key(&world.api, json!({"expires": 1}));
    let deleted = workspace.key(&world.api, json!({}));
    workspace.ok("keys.deleteKey", json!({"keyId": deleted.id}));
    for key in [&world.key, &disabled, &expired, &deleted] {
        let call = workspace.server.call("keys.getKey", body()).bearer(&key.secret);
        assert_eq!(call.expect_problem(401, "unkey/authentication/key_not_found").body, unknown, "COM-RK-03");
    }
    let prefixed = minted(&workspace.ok("keys.createKey", json!({"apiId": world.api, "prefix": "unkey"})));
    let call = workspace.server.call("keys.getKey", body()).bearer(&prefixed.secret);
    call.expect_problem(401, "unkey/authentication/key_not_found");
}
