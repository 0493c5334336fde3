//! permissions.*: permissions, roles, and what verification makes of them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Key, Workspace, members};

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// A new permission's id.
fn permission(workspace: &Workspace, slug: &str) -> String {
    text(&workspace.ok("permissions.createPermission", json!({"name": slug, "slug": slug}))["permissionId"])
}

/// A new role's id.
fn role(workspace: &Workspace, name: &str, slugs: &[&str]) -> String {
    text(&workspace.ok("permissions.createRole", json!({"name": name, "permissions": slugs}))["roleId"])
}

/// The slugs of a list of permissions, in its order.
fn slugs(permissions: &Value) -> Vec<String> {
    let listed = permissions.as_array().unwrap_or_else(|| panic!("not a list: {permissions}"));
    listed.iter().map(|permission| text(&permission["slug"])).collect()
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| text(&row["id"])).collect()
}

fn gone(workspace: &Workspace, operation: &str, member: &str, named: &str) {
    let code = format!("unkey/data/{member}_not_found");
    let problem = workspace.call(operation, json!({member: named})).expect_problem(404, &code);
    problem.saying(&format!("The requested {member} does not exist."));
}

/// Runs these at the same time, and hands back what each says.
fn at_once<T: Send + 'static>(runs: Vec<impl FnOnce() -> T + Send + 'static>) -> Vec<T> {
    let threads: Vec<_> = runs.into_iter().map(std::thread::spawn).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// A permission is made, found by id and by slug in any letters' case, and shown in its stored spelling; its slug is its
/// own, its name need not be.
/// RB-PERM-01, RB-PERM-02, RB-SLUG-01, RB-SLUG-02, RB-ID-01, RB-PROJ-01, RB-CP-02, RB-CP-04, RB-GP-01, RB-GP-02, IDS-1,
/// IDS-3, COM-CON-01, COM-ENV-06
#[test]
fn a_permission_is_made_and_found() {
    let workspace = Workspace::new();
    let make = |members: Value| workspace.ok("permissions.createPermission", members);
    let made = make(json!({"name": "Read the docs", "slug": "Docs.Read", "description": "All of them, ü."}));
    assert_eq!(members(&made), ["permissionId"]);
    let id = text(&made["permissionId"]);
    let random = id.strip_prefix("perm_").unwrap_or_else(|| panic!("IDS-3: {id}"));
    assert!(random.len() >= 12 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "IDS-1: {id}");
    let whole = json!({"id": id, "name": "Read the docs", "slug": "Docs.Read", "description": "All of them, ü."});
    let get = |named: &str| workspace.ok("permissions.getPermission", json!({"permission": named}));
    for named in [id.as_str(), "Docs.Read", "docs.read", "DOCS.READ"] {
        assert_eq!(get(named), whole, "{named}");
    }
    gone(&workspace, "permissions.getPermission", "permission", &id.to_uppercase());

    let empty = make(json!({"name": "Read the docs", "slug": "docs.read.more", "description": ""}));
    assert_eq!(members(&get(&text(&empty["permissionId"]))), ["id", "name", "slug"], "RB-PERM-01");
    for taken in ["Docs.Read", "docs.read"] {
        let call = workspace.call("permissions.createPermission", json!({"name": "another", "slug": taken}));
        call.expect_problem(409, "unkey/data/permission_already_exists").mentioning("already exists").mentioning(taken);
    }
    for slug in ["simple", "with-dashes", "with_underscores", "with.periods", "Mixed123Case", "all-valid_chars.123"] {
        permission(&workspace, slug);
    }
    permission(&workspace, &"x".repeat(128));
    permission(&workspace, "billing:*.write");
    for slug in ["", "with spaces", "with/slash", "with@at", "with,comma", "with#hash", &"x".repeat(129)] {
        workspace.call("permissions.createPermission", json!({"name": "n", "slug": slug})).expect_invalid();
    }
    for body in ["{", r#"{"name":"n""#, "[]", "null"] {
        workspace.call("permissions.createPermission", json!({})).raw(body).expect_invalid();
    }
    for unknown in ["no.such", "perm_1234567890abcdef", "perm_x", "*"] {
        gone(&workspace, "permissions.getPermission", "permission", unknown);
    }
    let neighbour = workspace.neighbour();
    for foreign in [&id, "docs.read"] {
        gone(&neighbour, "permissions.getPermission", "permission", foreign);
    }
    permission(&neighbour, "docs.read");
}

/// Where one permission's slug reads like another's id, and one role's name like another's, the id is found. RB-ID-01
#[test]
fn an_id_beats_a_slug_or_name_that_reads_like_it() {
    let workspace = Workspace::new();
    let first = permission(&workspace, "first");
    let second = permission(&workspace, &first);
    let get = |named: &str| workspace.ok("permissions.getPermission", json!({"permission": named}));
    assert_eq!((&get(&first)["slug"], &get(&second)["slug"]), (&json!("first"), &json!(first)));
    workspace.ok("permissions.deletePermission", json!({"permission": first}));
    assert_eq!(get(&first)["id"], second.as_str(), "once the id is gone, the slug is found");

    let first = role(&workspace, "first", &[]);
    let second = role(&workspace, &first, &[]);
    let get = |named: &str| workspace.ok("permissions.getRole", json!({"role": named}));
    assert_eq!((&get(&first)["name"], &get(&second)["name"]), (&json!("first"), &json!(first)));
    let set = json!({"role": first, "permissions": ["of.the.first"]});
    workspace.ok("permissions.setRolePermissions", set);
    assert!(get(&second).get("permissions").is_none() && get(&first)["permissions"].is_array());
    workspace.ok("permissions.deleteRole", json!({"role": first}));
    assert_eq!(get(&first)["id"], second.as_str());
}

/// Pages hold everything once, by id; a search looks through what it should; another workspace's are never there.
/// RB-LP-01, RB-LP-02, RB-LP-03, RB-LR-01, RB-LR-02, RB-WS-01, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-05, COM-PAG-08
#[test]
fn permissions_and_roles_are_listed_page_by_page() {
    let workspace = Workspace::new();
    let list = |operation: &str, body: Value| workspace.call(operation, body).expect_page();
    for operation in ["permissions.listPermissions", "permissions.listRoles"] {
        assert_eq!(list(operation, json!({})), (vec![], None), "RB-LP-03");
    }
    let neighbour = workspace.neighbour();
    role(&neighbour, "of a neighbour", &["of.a.neighbour"]);

    let mut made: Vec<String> = (0..7)
        .map(|number| {
            let description = if number < 2 { "Reads 100% of_it" } else { "" };
            let body = json!({"name": format!("Label {number}"), "slug": format!("thing.{number}"), "description": description});
            text(&workspace.ok("permissions.createPermission", body)["permissionId"])
        })
        .collect();
    made.sort();
    for limit in [1, 3, 7, 100] {
        assert_eq!(ids(&workspace.all("permissions.listPermissions", json!({}), limit)), made, "{limit} a page");
    }
    for (search, found) in [
        ("LABEL", 7),
        ("  thing.3 ", 1),
        ("100%", 2),
        ("100_", 0),
        ("of_it", 2),
        ("OF_IT", 2),
        ("nowhere", 0),
        ("   ", 7),
        ("", 7),
        (&made[3][5..], 1),
        (&"x".repeat(256), 0),
    ] {
        let (rows, next) = list("permissions.listPermissions", json!({"search": search}));
        assert_eq!((rows.len(), next), (found, None), "RB-LP-02: {search:?}");
    }
    let (rows, _) = list("permissions.listPermissions", json!({"search": "thing.0"}));
    assert_eq!(members(&rows[0]), ["description", "id", "name", "slug"]);
    let (rows, _) = list("permissions.listPermissions", json!({"search": "thing.6"}));
    assert_eq!(members(&rows[0]), ["id", "name", "slug"]);

    let mut roles: Vec<String> = (0..5)
        .map(|number| {
            let slugs: Vec<String> = (0..number).map(|slug| format!("thing.{slug}")).collect();
            let body = json!({"name": format!("Role {number}"), "description": "In 50% of_all", "permissions": slugs});
            text(&workspace.ok("permissions.createRole", body)["roleId"])
        })
        .collect();
    roles.sort();
    for limit in [2, 5, 100] {
        let rows = workspace.all("permissions.listRoles", json!({}), limit);
        assert_eq!(ids(&rows), roles, "{limit} a page");
        for row in rows {
            let number: usize = text(&row["name"])[5..].parse().unwrap();
            let own: Vec<String> = (0..number).map(|slug| format!("thing.{slug}")).collect();
            assert_eq!(row.get("permissions").map_or(vec![], slugs), own, "RB-LR-02: its own permissions only");
            assert_eq!(workspace.ok("permissions.getRole", json!({"role": row["id"]})), row);
        }
    }
    for (search, found) in
        [("rOLE", 5), ("50%", 5), ("50_", 0), ("role 3", 1), ("thing.0", 0), (&roles[2][5..], 1), (" ", 5)]
    {
        assert_eq!(list("permissions.listRoles", json!({"search": search})).0.len(), found, "RB-LR-01: {search:?}");
    }
}

/// A renamed slug is what the very next verification compares, on keys that hold it directly and through a role, and what it
/// was is free; name and description change by themselves. EXT-19, RB-PERM-01, RB-SLUG-02, PM-QRY-07, PM-EVAL-06, KEYS-GEN-23,
/// COM-CON-01
#[test]
fn a_permission_is_changed_under_keys_that_hold_it() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let id = permission(&workspace, "m.old");
    role(&workspace, "r", &["m.old", "b"]);
    let direct = workspace.key(&api, json!({"permissions": ["m.old", "x"]}));
    let through = workspace.key(&api, json!({"roles": ["r"]}));
    let code = |key: &Key, query: &str| workspace.code(key, json!({"permissions": query}));
    for key in [&direct, &through] {
        assert_eq!(code(key, "m.old"), "VALID");
    }
    let update = |members: Value| workspace.ok("permissions.updatePermission", members);
    let updated = update(json!({"permission": "M.OLD", "slug": "z.new"}));
    assert_eq!(updated, json!({"id": id, "name": "m.old", "slug": "z.new"}));
    for key in [&direct, &through] {
        assert_eq!(code(key, "z.new"), "VALID");
        assert_eq!(code(key, "m.old"), "INSUFFICIENT_PERMISSIONS");
    }
    assert_eq!(workspace.verify(&direct, json!({}))["permissions"], json!(["x", "z.new"]), "KEYS-GEN-23");
    assert_eq!(workspace.verify(&through, json!({}))["permissions"], json!(["b", "z.new"]), "KEYS-GEN-23");
    assert_eq!(slugs(&workspace.ok("permissions.getRole", json!({"role": "r"}))["permissions"]), ["b", "z.new"]);
    gone(&workspace, "permissions.getPermission", "permission", "m.old");

    update(json!({"permission": "z.new", "slug": "A.new"}));
    assert_eq!(workspace.verify(&direct, json!({}))["permissions"], json!(["A.new", "x"]), "KEYS-GEN-23");
    assert_eq!(
        (code(&direct, "A.new AND x"), code(&direct, "a.new")),
        ("VALID".into(), "INSUFFICIENT_PERMISSIONS".into())
    );
    update(json!({"permission": "a.NEW", "slug": "a.new"}));
    assert_eq!(code(&direct, "a.new"), "VALID", "its own slug in another spelling is free for it");

    let taken = workspace.call("permissions.updatePermission", json!({"permission": id, "slug": "X", "name": "lost"}));
    taken.expect_problem(409, "unkey/data/permission_already_exists").mentioning("already exists");
    let changed = update(json!({"permission": id, "name": "A label", "description": "Text"}));
    assert_eq!(changed, json!({"id": id, "name": "A label", "slug": "a.new", "description": "Text"}));
    assert_eq!(update(json!({"permission": id, "name": "Another"}))["description"], "Text", "absent leaves");
    for none in [json!(null), json!("")] {
        update(json!({"permission": id, "description": "Text"}));
        assert!(update(json!({"permission": id, "description": none})).get("description").is_none());
    }
    let reused = permission(&workspace, "m.old");
    assert_ne!(reused, id);
    assert_eq!(code(&direct, "m.old"), "INSUFFICIENT_PERMISSIONS", "whoever takes the slug next is another permission");
    gone(&workspace, "permissions.updatePermission", "permission", "no.such");
    gone(&workspace.neighbour(), "permissions.updatePermission", "permission", &id);
}

/// A deleted permission is gone from roles and keys with the next request, and its slug free for another.
/// RB-DP-01, RB-DP-02, RB-DP-04, RB-DEL-01, RB-WS-01, PM-EVAL-06, KEYS-GEN-34, COM-CON-01, COM-CON-03
#[test]
fn a_deleted_permission_leaves_roles_and_keys() {
    let workspace = Workspace::new();
    let api = workspace.api();
    for description in ["described", ""] {
        let body = json!({"name": "n", "slug": "docs.read", "description": description});
        let id = text(&workspace.ok("permissions.createPermission", body)["permissionId"]);
        let name = format!("reader {description}");
        role(&workspace, &name, &["docs.read", "docs.list"]);
        let direct = workspace.key(&api, json!({"permissions": ["docs.read", "docs.list"]}));
        let through = workspace.key(&api, json!({"roles": [name]}));
        let code = |key: &Key| workspace.code(key, json!({"permissions": "docs.read"}));
        assert_eq!((code(&direct), code(&through)), ("VALID".into(), "VALID".into()));

        let weak = workspace.root_key(&["rbac.*.read_permission"]);
        let call =
            workspace.server.call("permissions.deletePermission", json!({"permission": id})).bearer(&weak.secret);
        call.expect_problem(403, "unkey/authorization/insufficient_permissions")
            .saying("Missing permission: 'rbac.*.delete_permission'");
        gone(&workspace.neighbour(), "permissions.deletePermission", "permission", &id);
        assert_eq!(code(&direct), "VALID", "RB-DP-04: it survives");

        let named = if description.is_empty() { "DOCS.read" } else { &id };
        assert_eq!(workspace.ok("permissions.deletePermission", json!({"permission": named})), json!({}));
        for key in [&direct, &through] {
            assert_eq!(code(key), "INSUFFICIENT_PERMISSIONS", "RB-DEL-01");
            assert_eq!(workspace.verify(key, json!({}))["permissions"], json!(["docs.list"]));
            assert_eq!(workspace.get(key)["permissions"], json!(["docs.list"]));
        }
        assert_eq!(slugs(&workspace.ok("permissions.getRole", json!({"role": name}))["permissions"]), ["docs.list"]);
        for named in [id.as_str(), "docs.read"] {
            gone(&workspace, "permissions.deletePermission", "permission", named);
            gone(&workspace, "permissions.getPermission", "permission", named);
        }
        let again = permission(&workspace, "docs.read");
        assert_eq!(
            (code(&direct), code(&through)),
            ("INSUFFICIENT_PERMISSIONS".into(), "INSUFFICIENT_PERMISSIONS".into())
        );
        workspace.ok("permissions.deletePermission", json!({"permission": again}));
    }
}

/// A role is made with what it grants, found by id and by name in any letters' case, and shows its permissions by slug.
/// RB-ROLE-01, RB-ROLE-02, RB-ROLE-03, RB-ROLE-04, RB-PROJ-01, RB-CR-01, RB-CR-03, RB-CR-04, RB-CR-05, RB-CR-08, RB-CR-09, RB-GR-01,
/// RB-GR-02, IDS-3
#[test]
fn a_role_is_made_and_found() {
    let workspace = Workspace::new();
    workspace.ok(
        "permissions.createPermission",
        json!({"name": "List", "slug": "docs.list", "description": "which there are"}),
    );
    let made = json!({
        "name": "Straßenkönig \u{1f451}", "description": "rules",
        "permissions": ["z.last", "Docs.List", "DOCS.LIST", "B.upper", "z.LAST", "a.lower"]
    });
    let made = workspace.ok("permissions.createRole", made);
    assert_eq!(members(&made), ["roleId"]);
    let id = text(&made["roleId"]);
    assert!(id.starts_with("role_"), "IDS-3: {id}");
    let get = |named: &str| workspace.ok("permissions.getRole", json!({"role": named}));
    let shown = get(&id);
    assert_eq!(members(&shown), ["description", "id", "name", "permissions"]);
    assert_eq!((&shown["name"], &shown["description"]), (&json!("Straßenkönig \u{1f451}"), &json!("rules")));
    assert_eq!(slugs(&shown["permissions"]), ["B.upper", "a.lower", "docs.list", "z.last"], "RB-ROLE-03, RB-CR-01");
    let listed = &shown["permissions"][2];
    assert_eq!((&listed["name"], &listed["description"]), (&json!("List"), &json!("which there are")));
    let made = &shown["permissions"][0];
    assert_eq!((members(made), &made["name"]), (vec!["id", "name", "slug"], &json!("B.upper")), "RB-CR-01");
    for named in ["STRASSENKÖNIG \u{1f451}", "strassenkönig \u{1f451}"] {
        assert_eq!(get(named), shown, "RB-ROLE-02");
        let call = workspace.call("permissions.createRole", json!({"name": named, "permissions": ["left.behind"]}));
        call.expect_problem(409, "unkey/data/role_already_exists").mentioning("already exists");
    }
    gone(&workspace, "permissions.getPermission", "permission", "left.behind");
    gone(&workspace, "permissions.getRole", "role", "Straßenkonig \u{1f451}");
    for name in ["café", "cafe", "ΣΑΣ", " ΣΑΣ", "a/b {c}", "\u{0}", &"\u{1f451}".repeat(128)] {
        let id = role(&workspace, name, &[]);
        assert_eq!(get(name), json!({"id": id, "name": name}), "RB-ROLE-01: nothing but what it has");
    }
    assert_eq!(get("σας")["name"], "ΣΑΣ");
    for unknown in ["role_1234567890abcdef", "role_x", "no such role", "straßenkönig"] {
        gone(&workspace, "permissions.getRole", "role", unknown);
    }
    let neighbour = workspace.neighbour();
    gone(&neighbour, "permissions.getRole", "role", &id);
    let foreign = role(&neighbour, "café", &["docs.list"]);
    gone(&workspace, "permissions.getRole", "role", &foreign);
    assert_eq!(neighbour.all("permissions.listRoles", json!({}), 10).len(), 1, "RB-CR-08");
    for body in ["{", r#"{"name":"n","permissions":["a","#, "[]"] {
        workspace.call("permissions.createRole", json!({})).raw(body).expect_invalid();
    }
    let many: Vec<String> = (0..1000).map(|number| format!("many.{number:03}")).collect();
    let slugs_of_many: Vec<&str> = many.iter().map(String::as_str).collect();
    let large = role(&workspace, "large", &slugs_of_many);
    assert_eq!(slugs(&get(&large)["permissions"]), many, "RB-ROLE-04, RB-CR-09");
}

/// A role's name and description change under the keys that have it. EXT-19, RB-ROLE-02, RB-WS-01, COM-CON-01
#[test]
fn a_role_is_changed_under_keys_that_have_it() {
    let workspace = Workspace::new();
    let id = role(&workspace, "Old Name", &["docs.read"]);
    role(&workspace, "taken", &[]);
    let key = workspace.key(&workspace.api(), json!({"roles": ["old name"]}));
    assert_eq!(workspace.verify(&key, json!({}))["roles"], json!(["Old Name"]));
    let update = |members: Value| workspace.ok("permissions.updateRole", members);
    let changed = update(json!({"role": "OLD NAME", "name": "New Name", "description": "Text"}));
    assert_eq!(changed, json!({"id": id, "name": "New Name", "description": "Text"}));
    assert_eq!(workspace.verify(&key, json!({}))["roles"], json!(["New Name"]));
    assert_eq!(workspace.code(&key, json!({"permissions": "docs.read"})), "VALID");
    gone(&workspace, "permissions.getRole", "role", "Old Name");
    assert_eq!(update(json!({"role": id, "name": "new name"}))["description"], "Text", "absent leaves");
    for none in [json!(null), json!("")] {
        update(json!({"role": id, "description": "Text"}));
        assert_eq!(update(json!({"role": id, "description": none})), json!({"id": id, "name": "new name"}));
    }
    let taken = workspace.call("permissions.updateRole", json!({"role": id, "name": "TAKEN"}));
    taken.expect_problem(409, "unkey/data/role_already_exists").mentioning("already exists");
    role(&workspace, "old name", &[]);
    assert_eq!(workspace.verify(&key, json!({}))["roles"], json!(["new name"]));
    gone(&workspace, "permissions.updateRole", "role", "no such role");
    gone(&workspace.neighbour(), "permissions.updateRole", "role", &id);
}

/// What a role grants becomes exactly the list, in the stored spelling; every key that has it sees it with the next
/// request. RB-SR-01, RB-SR-03, RB-SR-04, RB-SR-06, RB-ROLE-03, RB-WS-01, COM-CON-01, KEYS-GEN-34
#[test]
fn what_a_role_grants_is_replaced() {
    let workspace = Workspace::new();
    let id = role(&workspace, "Editors", &["old", "keep.permission"]);
    let key = workspace.key(&workspace.api(), json!({"roles": ["editors"]}));
    assert_eq!(workspace.code(&key, json!({"permissions": "old AND keep.permission"})), "VALID");
    let set = |members: Value| workspace.ok("permissions.setRolePermissions", members);
    let wanted = json!(["KEEP.Permission", "new.permission", "NEW.Permission"]);
    let data = set(json!({"roleId": id, "permissions": wanted}));
    assert_eq!(slugs(&data), ["keep.permission", "new.permission"], "RB-SR-04");
    assert_eq!(members(&data[1]), ["id", "name", "slug"]);
    assert_eq!(workspace.verify(&key, json!({}))["permissions"], json!(["keep.permission", "new.permission"]));
    assert_eq!(workspace.code(&key, json!({"permissions": "old"})), "INSUFFICIENT_PERMISSIONS");
    for way in [
        json!({"roleId": id, "permissions": wanted}),
        json!({"role": id, "permissions": wanted}),
        json!({"role": "EDITORS", "permissions": wanted}),
    ] {
        assert_eq!(set(way), data, "RB-SR-01, RB-SR-04");
    }
    assert_eq!(workspace.ok("permissions.getRole", json!({"role": id}))["permissions"], data);
    assert_eq!(set(json!({"roleId": id, "permissions": []})), json!([]), "RB-SR-04");
    let cleared = workspace.verify(&key, json!({}));
    assert_eq!((cleared.get("permissions"), &cleared["roles"]), (None, &json!(["Editors"])));
    assert!(workspace.ok("permissions.getRole", json!({"role": id})).get("permissions").is_none());
    workspace.ok("permissions.getPermission", json!({"permission": "old"}));

    let refused = |workspace: &Workspace, members: Value| {
        let call = workspace.call("permissions.setRolePermissions", members);
        call.expect_problem(404, "unkey/data/role_not_found").saying("The requested role does not exist.");
    };
    for unknown in ["Editors", "role_1234567890abcdef", "no-such", "a_b"] {
        refused(&workspace, json!({"roleId": unknown, "permissions": ["left.behind"]}));
    }
    refused(&workspace, json!({"role": "no such role", "permissions": ["left.behind"]}));
    refused(&workspace.neighbour(), json!({"roleId": id, "permissions": ["left.behind"]}));
    gone(&workspace, "permissions.getPermission", "permission", "left.behind");

    let call = |body: Value| workspace.call("permissions.setRolePermissions", body);
    call(json!({"roleId": id, "role": "Editors", "permissions": []})).expect_invalid().at("/oneOf");
    call(json!({"permissions": []})).expect_invalid().at("/required");
    call(json!({"roleId": id})).expect_invalid().at("/required");
    call(json!({"roleId": id, "permissions": [""]})).expect_invalid();
    call(json!({"roleId": null, "role": id, "permissions": []})).expect_invalid();
    let unknown = call(json!({"permissions": []})).bearer("unkey_nobody");
    unknown.expect_invalid();
    let unknown = call(json!({"roleId": id, "permissions": []})).bearer("unkey_nobody");
    unknown.expect_problem(401, "unkey/authentication/key_not_found");
}

/// Making what a request names asks for the right to make it, and only where something is missing; a refusal changes
/// nothing. RB-CR-02, RB-CR-03, RB-CR-05, RB-SR-02, RB-SR-06, RB-CP-01, PM-EVAL-04, PM-URN-04
#[test]
fn making_on_the_way_asks_for_the_right_to_make() {
    let workspace = Workspace::new();
    permission(&workspace, "Exists");
    let id = role(&workspace, "r", &["exists"]);
    let ask = |operation: &str, body: &Value, held: &[&str]| {
        let root = workspace.root_key(held);
        workspace.server.call(operation, body.clone()).bearer(&root.secret).send()
    };
    let denied = |operation: &str, body: &Value, held: &[&str], detail: &str| {
        let root = workspace.root_key(held);
        let call = workspace.server.call(operation, body.clone()).bearer(&root.secret);
        call.expect_problem(403, "unkey/authorization/insufficient_permissions").saying(detail);
    };
    let (create_role, link) = ("rbac.*.create_role", "rbac.*.add_permission_to_role");
    let create = "rbac.*.create_permission";
    denied(
        "permissions.createPermission",
        &json!({"name": "n", "slug": "exists"}),
        &["rbac.*.create_role", "rbac.perm_1.create_permission"],
        "Missing permission: 'rbac.*.create_permission'",
    );

    let operation = "permissions.createRole";
    let with = |name: &str, slugs: Value| json!({"name": name, "permissions": slugs});
    denied(operation, &with("r", json!(["missing"])), &[link, create], "Missing permission: 'rbac.*.create_role'");
    let lacks_link = "Missing permission: 'rbac.*.add_permission_to_role'";
    denied(operation, &with("r", json!(["missing"])), &[create_role, create], lacks_link);
    let lacks_create = "Missing permission: 'rbac.*.create_permission'";
    denied(operation, &with("r", json!(["exists", "missing"])), &[create_role, link], lacks_create);
    let urn = format!("unkey:v1:{}:rbac/permissions/*#create_permission", workspace.id);
    denied(operation, &with("r", json!(["missing"])), &[create_role, link, &urn], lacks_create);
    assert_eq!(
        ask(operation, &with("r", json!(["exists"])), &[create_role, link]).status,
        409,
        "after the permissions"
    );
    assert_eq!(ask(operation, &with("none", json!([])), &[create_role]).status, 200, "RB-CR-03");
    assert_eq!(ask(operation, &json!({"name": "absent"}), &[create_role]).status, 200, "RB-CR-03");
    assert_eq!(ask(operation, &with("one", json!(["EXISTS"])), &[create_role, link]).status, 200, "RB-CR-03");
    assert_eq!(ask(operation, &with("two", json!(["made.a"])), &[create_role, link, create]).status, 200);

    let operation = "permissions.setRolePermissions";
    let unlink = "rbac.*.remove_permission_from_role";
    let to = |slugs: Value| json!({"roleId": id, "permissions": slugs});
    for (slugs, held, lacks) in [
        (json!([]), link, unlink),
        (json!(["exists"]), link, unlink),
        (json!([]), unlink, link),
        (json!(["exists", "missing"]), unlink, link),
    ] {
        denied(operation, &to(slugs), &[held, create], &format!("Missing permission: '{lacks}'"));
    }
    let either = format!("Missing one of these permissions: {urn} or {create}");
    denied(operation, &to(json!(["missing"])), &[link, unlink], &either);
    let one = format!("unkey:v1:{}:rbac/permissions/perm_1#create_permission", workspace.id);
    denied(operation, &to(json!(["missing"])), &[link, unlink, &one], &either);
    let absent = json!({"roleId": "role_nowhere", "permissions": ["missing"]});
    assert_eq!(ask(operation, &absent, &[link, unlink]).status, 404, "RB-SR-02: the role comes before the slugs");
    assert_eq!(ask(operation, &absent, &[link]).status, 403, "RB-SR-02: the permission comes before the role");
    assert_eq!(ask(operation, &to(json!(["EXISTS"])), &[link, unlink]).status, 200);
    gone(&workspace, "permissions.getPermission", "permission", "missing");
    assert_eq!(slugs(&workspace.ok("permissions.getRole", json!({"role": id}))["permissions"]), ["Exists"]);
    assert_eq!(ask(operation, &to(json!(["exists", "made.b"])), &[link, unlink, &urn]).status, 200);
    assert_eq!(ask(operation, &to(json!(["exists", "made.c"])), &[link, unlink, create]).status, 200);
}

/// Permission comes before the lookup in the whole family: who may nothing learns nothing.
/// RB-WS-01, RB-GP-02, RB-GR-02, RB-DR-03, RB-DP-04, PM-TUP-05
#[test]
fn who_may_nothing_learns_nothing() {
    let workspace = Workspace::new();
    let permission = permission(&workspace, "docs.read");
    let role = role(&workspace, "r", &[]);
    let held: Vec<String> = ["read", "update", "delete"]
        .iter()
        .flat_map(|verb| [format!("rbac.{permission}.{verb}_permission"), format!("rbac.{role}.{verb}_role")])
        .collect();
    let held: Vec<&str> = held.iter().map(String::as_str).collect();
    for weak in [workspace.root_key(&held), workspace.root_key(&[])] {
        for (member, named) in
            [("permission", &*permission), ("permission", "nowhere"), ("role", &*role), ("role", "nowhere")]
        {
            for verb in ["get", "update", "delete"] {
                let operation = format!("permissions.{verb}{}", if member == "role" { "Role" } else { "Permission" });
                let call = workspace.server.call(&operation, json!({member: named})).bearer(&weak.secret);
                call.expect_problem(403, "unkey/authorization/insufficient_permissions");
            }
        }
        for operation in ["permissions.listPermissions", "permissions.listRoles"] {
            let call = workspace.server.call(operation, json!({})).bearer(&weak.secret);
            call.expect_problem(403, "unkey/authorization/insufficient_permissions");
        }
    }
    workspace.ok("permissions.getRole", json!({"role": role}));
}

/// A role that hundreds of keys have is deleted in one request: each of them, in memory or not, has lost it and what came
/// through it alone with the next verification, keeps what it has besides, and nothing is left of it when the role's name
/// is used again. RB-DR-01, RB-DR-02, RB-DR-03, RB-DEL-01, PM-EVAL-06, KEYS-GEN-34, COM-CON-01
#[test]
fn a_deleted_role_leaves_hundreds_of_keys() {
    const KEYS: usize = 300;
    let workspace = Workspace::new();
    let api = workspace.api();
    let id = role(&workspace, "doomed", &["only.through.it", "held.besides", "through.both"]);
    role(&workspace, "stays", &["through.both"]);
    let bare = role(&workspace, "without relations", &[]);
    let keys: Vec<Key> = (0..KEYS)
        .map(|_| workspace.key(&api, json!({"roles": ["doomed", "stays"], "permissions": ["held.besides"]})))
        .collect();
    for key in keys.iter().step_by(2) {
        assert_eq!(workspace.code(key, json!({"permissions": "only.through.it"})), "VALID");
    }
    let weak = workspace.root_key(&["rbac.*.delete_permission", "rbac.*.update_role"]);
    let call = workspace.server.call("permissions.deleteRole", json!({"role": id})).bearer(&weak.secret);
    call.expect_problem(403, "unkey/authorization/insufficient_permissions");
    gone(&workspace.neighbour(), "permissions.deleteRole", "role", &id);

    assert_eq!(workspace.ok("permissions.deleteRole", json!({"role": "DOOMED"})), json!({}));
    for key in &keys {
        let verified = workspace.verify(key, json!({"permissions": "held.besides AND through.both"}));
        assert_eq!(verified["code"], "VALID");
        assert_eq!(verified["roles"], json!(["stays"]));
        assert_eq!(verified["permissions"], json!(["held.besides", "through.both"]));
    }
    assert_eq!(workspace.code(&keys[0], json!({"permissions": "only.through.it"})), "INSUFFICIENT_PERMISSIONS");
    assert_eq!(workspace.get(&keys[1])["roles"], json!(["stays"]));
    for named in [id.as_str(), "doomed"] {
        gone(&workspace, "permissions.deleteRole", "role", named);
        gone(&workspace, "permissions.getRole", "role", named);
    }
    workspace.ok("permissions.getPermission", json!({"permission": "only.through.it"}));
    role(&workspace, "doomed", &["only.through.it"]);
    for key in keys.iter().take(10) {
        assert_eq!(workspace.code(key, json!({"permissions": "only.through.it"})), "INSUFFICIENT_PERMISSIONS");
    }
    assert_eq!(workspace.ok("permissions.deleteRole", json!({"role": bare})), json!({}), "RB-DR-03");
}

/// Of many creates of one slug, or of one role's name, exactly one succeeds; of many requests that name one missing slug
/// all do, and it is made once. RB-CP-05, RB-CR-07, RB-SR-07, COM-CON-04, AL-OP-03
#[test]
fn what_many_want_to_make_is_made_once() {
    let workspace = Arc::new(Workspace::new());
    let count = |operation: &str, search: &str| workspace.all(operation, json!({"search": search}), 100).len();
    for (operation, member, named) in
        [("permissions.createPermission", "slug", "Fought.Over"), ("permissions.createRole", "name", "Fought Over")]
    {
        let runs = (0..12).map(|number| {
            let workspace = Arc::clone(&workspace);
            let spelled = if number % 2 == 0 { named.to_owned() } else { named.to_lowercase() };
            let mut body = json!({"name": "n"});
            body[member] = spelled.into();
            move || workspace.call(operation, body).send().status
        });
        let mut statuses = at_once(runs.collect());
        statuses.sort_unstable();
        assert_eq!((statuses[0], &statuses[1..]), (200, &[409; 11][..]), "{operation}");
    }
    assert_eq!((count("permissions.listPermissions", "fought"), count("permissions.listRoles", "fought")), (1, 1));

    for round in 0..5 {
        let slug = format!("Wanted.{round}");
        let set: Vec<String> = (0..4).map(|number| role(&workspace, &format!("set {round} {number}"), &[])).collect();
        let runs = (0..8).map(|number| {
            let (workspace, slug) = (Arc::clone(&workspace), slug.clone());
            let target = set.get(number).cloned();
            let slug = if number % 2 == 0 { slug } else { slug.to_lowercase() };
            move || match target {
                Some(id) => {
                    let body = json!({"roleId": id, "permissions": [slug]});
                    (text(&workspace.ok("permissions.setRolePermissions", body)[0]["id"]), id)
                }
                None => {
                    let id = role(&workspace, &format!("created {round} {number}"), &[&slug]);
                    (text(&workspace.ok("permissions.getRole", json!({"role": id}))["permissions"][0]["id"]), id)
                }
            }
        });
        let linked = at_once(runs.collect::<Vec<_>>());
        assert_eq!(count("permissions.listPermissions", &slug), 1, "RB-CR-07, RB-SR-07");
        let wanted = text(&workspace.ok("permissions.getPermission", json!({"permission": slug}))["id"]);
        assert!(linked.iter().all(|(permission, _)| *permission == wanted), "{linked:?}");
    }
}

/// On one role, requests at the same time are as if one came after the other: exactly one list is left. RB-SR-07, COM-CON-04
#[test]
fn the_last_list_of_a_role_wins_completely() {
    let workspace = Arc::new(Workspace::new());
    let id = role(&workspace, "contended", &["at.first"]);
    for _ in 0..5 {
        let lists: Vec<Vec<String>> =
            (0..8).map(|list| (0..6).map(|slug| format!("slug.{}", (list + slug) % 9)).collect()).collect();
        let runs = lists.iter().map(|list| {
            let (workspace, id, list) = (Arc::clone(&workspace), id.clone(), list.clone());
            move || {
                let mut sorted = list.clone();
                sorted.sort();
                let body = json!({"roleId": id, "permissions": list});
                assert_eq!(slugs(&workspace.ok("permissions.setRolePermissions", body)), sorted);
            }
        });
        at_once(runs.collect::<Vec<_>>());
        let left = slugs(&workspace.ok("permissions.getRole", json!({"role": id}))["permissions"]);
        let is_left = |list: &Vec<String>| {
            let mut sorted = list.clone();
            sorted.sort();
            sorted == left
        };
        assert!(lists.iter().any(is_left), "RB-SR-07: {left:?}");
    }
    assert_eq!(workspace.all("permissions.listPermissions", json!({"search": "slug."}), 100).len(), 9);
}
