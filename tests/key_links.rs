//! keys.addPermissions, removePermissions, setPermissions, addRoles, removeRoles, setRoles.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::world::with;
use crate::harness::{Key, Workspace, members};

const PERMISSION_OPERATIONS: [&str; 3] = ["keys.addPermissions", "keys.removePermissions", "keys.setPermissions"];
const ROLE_OPERATIONS: [&str; 3] = ["keys.addRoles", "keys.removeRoles", "keys.setRoles"];

fn role(workspace: &Workspace, name: &str, slugs: &[&str]) {
    workspace.ok("permissions.createRole", json!({"name": name, "permissions": slugs}));
}

/// One member of each element, in order.
fn each(data: &Value, member: &str) -> Vec<String> {
    let rows = data.as_array().unwrap_or_else(|| panic!("not a list: {data}"));
    rows.iter().map(|row| row[member].as_str().unwrap().to_owned()).collect()
}

/// What getKey says of a key, its last use aside; its time of change must not be there.
fn settings(workspace: &Workspace, key: &Key) -> Value {
    let mut settings = workspace.get(key);
    settings.as_object_mut().unwrap().remove("lastUsedAt");
    assert!(settings.get("updatedAt").is_none(), "KEYS-PERM-8, KEYS-ROLE-8: {settings}");
    settings
}

/// Calls one of the six on a key: the slugs or names that it holds then.
fn on(workspace: &Workspace, operation: &str, key: &Key, listed: &[&str]) -> Vec<String> {
    let (list, member) = if operation.ends_with("Roles") { ("roles", "name") } else { ("permissions", "slug") };
    each(&workspace.ok(operation, json!({"keyId": key.id, list: listed})), member)
}

/// Runs these at the same time, and hands back what each says.
fn at_once<T: Send + 'static>(runs: impl Iterator<Item = impl FnOnce() -> T + Send + 'static>) -> Vec<T> {
    let threads: Vec<_> = runs.map(std::thread::spawn).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Permissions come, go and are replaced; the answer is what the key holds directly, by slug; the next verification sees
/// it; nothing else about the key changes.
/// KEYS-PERM-1, KEYS-PERM-3, KEYS-PERM-4, KEYS-PERM-5, KEYS-PERM-8, KEYS-GEN-16, KEYS-GEN-17, KEYS-GEN-19, KEYS-GEN-23,
/// KEYS-GEN-34, KEYS-GEN-37, COM-CON-01
#[test]
fn permissions_come_and_go() {
    let workspace = Workspace::new();
    let body = json!({"name": "Read", "slug": "Docs.Read", "description": "all of it"});
    workspace.ok("permissions.createPermission", body);
    role(&workspace, "r", &["through.role", "both"]);
    let members_of_key = json!({"roles": ["r"], "credits": {"remaining": 9}, "name": "n"});
    let key = workspace.key(&workspace.api(), members_of_key);
    let seen = || workspace.verify(&key, json!({"credits": {"cost": 0}}))["permissions"].clone();
    assert_eq!(seen(), json!(["both", "through.role"]));
    let before = settings(&workspace, &key);

    let data = workspace
        .ok("keys.addPermissions", json!({"keyId": key.id, "permissions": ["z", "docs.read", "B", "b", "both"]}));
    assert_eq!(each(&data, "slug"), ["B", "Docs.Read", "both", "z"], "KEYS-PERM-5, KEYS-GEN-19");
    assert_eq!(members(&data[0]), ["id", "name", "slug"]);
    assert_eq!(
        (members(&data[1]), &data[1]["description"]),
        (vec!["description", "id", "name", "slug"], &json!("all of it"))
    );
    assert_eq!(data[0]["name"], "B", "KEYS-PERM-3: name = slug");
    assert_eq!(seen(), json!(["B", "Docs.Read", "both", "through.role", "z"]), "KEYS-PERM-8");
    assert_eq!(workspace.code(&key, json!({"permissions": "B AND Docs.Read", "credits": {"cost": 0}})), "VALID");
    let again = workspace.ok("keys.addPermissions", json!({"keyId": key.id, "permissions": ["DOCS.READ", "Z"]}));
    assert_eq!(again, data, "KEYS-PERM-3");

    assert_eq!(
        on(&workspace, "keys.removePermissions", &key, &["BOTH", "b", "through.role"]),
        ["Docs.Read", "z"],
        "KEYS-PERM-4"
    );
    assert_eq!(on(&workspace, "keys.removePermissions", &key, &["b"]), ["Docs.Read", "z"], "KEYS-PERM-3");
    assert_eq!(seen(), json!(["Docs.Read", "both", "through.role", "z"]), "KEYS-PERM-4");

    assert_eq!(on(&workspace, "keys.setPermissions", &key, &["new.one", "Z", "NEW.one"]), ["new.one", "z"]);
    assert_eq!(seen(), json!(["both", "new.one", "through.role", "z"]));
    assert_eq!(
        workspace.code(&key, json!({"permissions": "Docs.Read", "credits": {"cost": 0}})),
        "INSUFFICIENT_PERMISSIONS"
    );
    assert_eq!(on(&workspace, "keys.setPermissions", &key, &["z", "new.one"]), ["new.one", "z"]);
    let cleared = workspace.ok("keys.setPermissions", json!({"keyId": key.id, "permissions": []}));
    assert_eq!(cleared, json!([]), "KEYS-PERM-5");
    assert_eq!(workspace.ok("keys.removePermissions", json!({"keyId": key.id, "permissions": ["z"]})), json!([]));
    assert_eq!(settings(&workspace, &key), before, "nothing else changed");

    let perm = workspace.ok("permissions.getPermission", json!({"permission": "z"}))["id"].as_str().unwrap().to_owned();
    assert_eq!(on(&workspace, "keys.addPermissions", &key, &[&perm]), [perm.as_str()], "KEYS-PERM-1: an id is a slug");
    let many: Vec<String> = (0..1000).map(|number| format!("many.{number:03}")).collect();
    let listed: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(on(&workspace, "keys.setPermissions", &key, &listed), many, "KEYS-PERM-1");
    assert_eq!(on(&workspace, "keys.addPermissions", &key, &listed), many);
    assert_eq!(on(&workspace, "keys.removePermissions", &key, &listed[1..]), ["many.000"]);
}

/// Roles come, go and are replaced; the answer is the key's roles by name with what they grant; the next verification sees
/// both. KEYS-ROLE-1, KEYS-ROLE-4, KEYS-ROLE-5, KEYS-ROLE-8, KEYS-GEN-17, KEYS-GEN-19, KEYS-GEN-23, KEYS-GEN-34, COM-CON-01
#[test]
fn roles_come_and_go() {
    let workspace = Workspace::new();
    role(&workspace, "Zoo Keeper", &["z.feed", "a.open"]);
    role(&workspace, "admin", &["a.open", "b.close"]);
    role(&workspace, "bare", &[]);
    workspace.ok("permissions.updateRole", json!({"role": "bare", "description": "nothing yet"}));
    let key = workspace.key(&workspace.api(), json!({"permissions": ["own"]}));
    let seen = || {
        let verified = workspace.verify(&key, json!({}));
        (verified["roles"].clone(), verified["permissions"].clone())
    };
    assert_eq!(seen(), (json!(null), json!(["own"])));
    let before = settings(&workspace, &key);

    let data =
        workspace.ok("keys.addRoles", json!({"keyId": key.id, "roles": ["bare", "ADMIN", "zoo keeper", "admin"]}));
    assert_eq!(each(&data, "name"), ["Zoo Keeper", "admin", "bare"], "KEYS-ROLE-5, KEYS-GEN-19");
    assert_eq!(members(&data[0]), ["id", "name", "permissions"]);
    assert_eq!(each(&data[0]["permissions"], "slug"), ["a.open", "z.feed"], "KEYS-ROLE-5");
    assert_eq!(members(&data[0]["permissions"][0]), ["id", "name", "slug"]);
    assert_eq!(members(&data[2]), ["description", "id", "name"]);
    assert_eq!(
        seen(),
        (json!(["Zoo Keeper", "admin", "bare"]), json!(["a.open", "b.close", "own", "z.feed"])),
        "KEYS-ROLE-8"
    );
    assert_eq!(workspace.ok("keys.addRoles", json!({"keyId": key.id, "roles": ["Bare"]})), data, "KEYS-ROLE-4");

    assert_eq!(on(&workspace, "keys.removeRoles", &key, &["ZOO KEEPER", "bare"]), ["admin"]);
    assert_eq!(on(&workspace, "keys.removeRoles", &key, &["Zoo Keeper"]), ["admin"], "KEYS-ROLE-4");
    assert_eq!(seen(), (json!(["admin"]), json!(["a.open", "b.close", "own"])));
    assert_eq!(on(&workspace, "keys.setRoles", &key, &["bare", "zoo keeper"]), ["Zoo Keeper", "bare"]);
    assert_eq!(seen(), (json!(["Zoo Keeper", "bare"]), json!(["a.open", "own", "z.feed"])));
    assert_eq!(workspace.ok("keys.setRoles", json!({"keyId": key.id, "roles": []})), json!([]), "KEYS-ROLE-4");
    assert_eq!(seen(), (json!(null), json!(["own"])));
    assert_eq!(settings(&workspace, &key), before, "nothing else changed");

    let names: Vec<String> = (0..100).map(|number| format!("role {number:02}")).collect();
    names.iter().for_each(|name| role(&workspace, name, &[]));
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    for operation in ["keys.addRoles", "keys.setRoles"] {
        assert_eq!(on(&workspace, operation, &key, &listed), names, "KEYS-ROLE-1");
    }
}

/// What a key is asked to lose must exist, and roles must exist in any case; the first that does not is named, and nothing
/// is changed, whatever else was listed. A key that is deleted, unknown or foreign is not found.
/// KEYS-PERM-1, KEYS-PERM-2, KEYS-PERM-9, KEYS-ROLE-1, KEYS-ROLE-2, KEYS-ROLE-10, KEYS-GEN-24, KEYS-GEN-25, KEYS-GEN-26,
/// KEYS-GEN-35
#[test]
fn what_is_named_must_exist() {
    let workspace = Workspace::new();
    let neighbour = workspace.neighbour();
    let api = workspace.api();
    role(&workspace, "known", &["docs.read"]);
    role(&workspace, "deleted", &[]);
    role(&neighbour, "foreign", &["foreign.slug"]);
    let id = workspace.ok("permissions.getRole", json!({"role": "known"}))["id"].as_str().unwrap().to_owned();
    workspace.ok("permissions.deleteRole", json!({"role": "deleted"}));
    let key = workspace.key(&api, json!({"permissions": ["docs.read"], "roles": ["known"]}));
    let before = workspace.get(&key);
    let asked = |operation: &str, list: &str, named: Value| {
        let mut body = json!({"keyId": key.id});
        body[list] = named;
        workspace.call(operation, body)
    };
    for missing in ["no.such", "foreign.slug", "perm_1234567890abcdef"] {
        let call = asked("keys.removePermissions", "permissions", json!(["docs.read", missing, "nor.this"]));
        let problem = call.expect_problem(404, "unkey/data/permission_not_found");
        problem.saying(&format!("Permission '{missing}' was not found."));
    }
    for operation in ROLE_OPERATIONS {
        for missing in ["no such role", "foreign", "deleted", &id] {
            let call = asked(operation, "roles", json!(["known", missing, "nor this"]));
            let problem = call.expect_problem(404, "unkey/data/role_not_found");
            problem.saying(&format!("Role '{missing}' was not found."));
        }
    }
    assert_eq!(workspace.get(&key), before, "nothing changed");

    let gone = workspace.key(&api, json!({}));
    workspace.ok("keys.deleteKey", json!({"keyId": gone.id}));
    let closed = workspace.api();
    let of_closed = workspace.key(&closed, json!({}));
    workspace.ok("apis.deleteApi", json!({"apiId": closed}));
    let foreign = neighbour.key(&neighbour.api(), json!({}));
    let lists = PERMISSION_OPERATIONS.map(|name| (name, json!({"permissions": ["left.behind"]})));
    for (operation, body) in
        lists.into_iter().chain(ROLE_OPERATIONS.map(|name| (name, json!({"roles": ["no such role"]}))))
    {
        for id in [gone.id.as_str(), &of_closed.id, &foreign.id, "key_nowhere", "invalid", "wrong_1234567890"] {
            let call = workspace.call(operation, with(body.clone(), "keyId", id));
            let problem = call.expect_problem(404, "unkey/data/key_not_found");
            problem.saying("We could not find the requested key. The specified key was not found.");
        }
        for raw in ["{", r#"{"keyId":"key_1""#, "[]", "\"\""] {
            workspace.call(operation, json!({})).raw(raw).expect_invalid();
        }
    }
    let left = workspace.call("permissions.getPermission", json!({"permission": "left.behind"}));
    left.expect_problem(404, "unkey/data/permission_not_found");
}

/// Who may not: the key comes first, then the right to change it, then the right to make what is missing, which is asked
/// only where something is. KEYS-GEN-25, KEYS-GEN-27, KEYS-GEN-28, KEYS-GEN-29, KEYS-GEN-31, KEYS-GEN-32, KEYS-GEN-33, KEYS-PERM-2,
/// KEYS-ROLE-2, KEYS-ROLE-3, PM-EVAL-01, PM-EVAL-02
#[test]
fn rights_are_asked_in_order() {
    let workspace = Workspace::new();
    let api = workspace.api();
    role(&workspace, "known", &["exists"]);
    let key = workspace.key(&api, json!({}));
    let (update, add) = ("api.*.update_key", "rbac.*.add_permission_to_key");
    let (remove, create) = ("rbac.*.remove_permission_from_key", "rbac.*.create_permission");
    let urn = format!("unkey:v1:{}:keyspaces/*/keys/*#update_key", workspace.id);
    let making = format!("unkey:v1:{}:rbac/permissions/*#create_permission", workspace.id);
    let slugs = |slug: &str| json!({"keyId": key.id, "permissions": [slug]});
    let names = |name: &str| json!({"keyId": key.id, "roles": [name]});
    let status = |operation: &str, body: Value, held: &[&str]| {
        let root = workspace.root_key(held);
        workspace.server.call(operation, body).bearer(&root.secret).send().status
    };
    for (operation, enough, lacking) in [
        ("keys.addPermissions", vec![update, add], vec![vec![update], vec![add], vec![update, remove]]),
        ("keys.removePermissions", vec![update, remove], vec![vec![update], vec![remove], vec![update, add]]),
        (
            "keys.setPermissions",
            vec![update, add, remove],
            vec![vec![update, add], vec![update, remove], vec![add, remove]],
        ),
    ] {
        assert_eq!(status(operation, slugs("exists"), &enough), 200, "{operation}");
        assert_eq!(status(operation, slugs("exists"), &[&urn]), 200, "{operation}");
        for held in lacking {
            assert_eq!(status(operation, slugs("exists"), &held), 403, "{operation}: {held:?}");
            let absent = json!({"keyId": "key_nowhere", "permissions": ["exists"]});
            assert_eq!(status(operation, absent, &held), 404, "KEYS-GEN-25: {operation}");
        }
        if operation == "keys.removePermissions" {
            assert_eq!(status(operation, slugs("missing"), &[update]), 403);
            assert_eq!(status(operation, slugs("missing"), &enough), 404, "KEYS-PERM-2");
            continue;
        }
        for short in [enough.clone(), vec![&*urn]] {
            let root = workspace.root_key(&short);
            let call = workspace.server.call(operation, slugs("missing")).bearer(&root.secret);
            let problem = call.expect_problem(403, "unkey/authorization/insufficient_permissions");
            problem.saying(&format!("Missing one of these permissions: {making} or {create}"));
        }
        let made = |number: usize| slugs(&format!("{operation}.{number}"));
        assert_eq!(status(operation, made(1), &[&urn, create]), 200, "{operation}");
        assert_eq!(status(operation, made(2), &[&enough[..], &[&*making]].concat()), 200, "{operation}");
    }
    let missing = workspace.call("permissions.getPermission", json!({"permission": "missing"}));
    missing.expect_problem(404, "unkey/data/permission_not_found");

    assert_eq!(status("keys.addRoles", names("known"), &[update]), 403, "KEYS-ROLE-3");
    assert_eq!(status("keys.addRoles", names("no such role"), &[update]), 403, "KEYS-ROLE-2");
    assert_eq!(status("keys.addRoles", names("no such role"), &[update, "rbac.*.add_role_to_key"]), 404, "KEYS-ROLE-2");
    assert_eq!(status("keys.addRoles", names("known"), &[update, "rbac.*.add_role_to_key"]), 200, "KEYS-ROLE-3");
    for operation in ["keys.removeRoles", "keys.setRoles"] {
        assert_eq!(status(operation, names("known"), &[&format!("api.{api}.update_key")]), 200, "KEYS-ROLE-3");
        let all_but =
            ["rbac.*.add_role_to_key", "rbac.*.remove_role_from_key", "api.*.create_key", "api.other.update_key"];
        assert_eq!(status(operation, names("known"), &all_but), 403, "KEYS-ROLE-3");
    }
    let weak = workspace.root_key(&["api.*.create_key", update]);
    let create_key = json!({"apiId": api, "permissions": ["made.by.createKey"]});
    workspace.server.call("keys.createKey", create_key).bearer(&weak.secret).expect_ok();
    let update_key = json!({"keyId": key.id, "permissions": ["made.by.updateKey"]});
    workspace.server.call("keys.updateKey", update_key).bearer(&weak.secret).expect_ok();
}

/// Requests on one key at the same time all succeed, as if one came after the other: of sets one list is left, of adds the
/// union, and a slug is made once. KEYS-PERM-7, COM-CON-04
#[test]
fn permissions_of_one_key_in_many_requests_at_once() {
    let workspace = Arc::new(Workspace::new());
    let key = workspace.key(&workspace.api(), json!({}));
    let lists = |operation: &str| -> Vec<Vec<String>> {
        (0..10).map(|list| (0..5).map(|slug| format!("{operation}.{}", (list + slug) % 12)).collect()).collect()
    };
    let run = |operation: &'static str, lists: &[Vec<String>]| {
        at_once(lists.iter().cloned().enumerate().map(|(number, mut list)| {
            let (workspace, key) = (Arc::clone(&workspace), key.clone());
            if number % 2 == 1 {
                list.iter_mut().for_each(|slug| *slug = slug.to_uppercase());
            }
            move || {
                let listed: Vec<&str> = list.iter().map(String::as_str).collect();
                let held = on(&workspace, operation, &key, &listed);
                let holds = |slug: &str| held.iter().any(|own| own.eq_ignore_ascii_case(slug));
                assert!(list.iter().all(|slug| holds(slug)), "{list:?} in {held:?}");
            }
        }));
        let verified = workspace.verify(&key, json!({}))["permissions"].clone();
        let held = verified.as_array().unwrap().iter().map(|slug| slug.as_str().unwrap().to_lowercase());
        let mut held: Vec<String> = held.collect();
        held.sort();
        held
    };
    let added = lists("add");
    let mut union: Vec<String> = added.concat();
    union.sort();
    union.dedup();
    assert_eq!(run("keys.addPermissions", &added), union, "KEYS-PERM-7");
    for _ in 0..3 {
        let mut set = lists("set");
        let left = run("keys.setPermissions", &set);
        set.iter_mut().for_each(|list| list.sort());
        assert!(set.contains(&left), "KEYS-PERM-7: {left:?}");
    }
    for made in ["add.", "set."] {
        let listed = workspace.all("permissions.listPermissions", json!({"search": made}), 100);
        assert_eq!(listed.len(), 12, "KEYS-PERM-7: a slug is made once");
    }
}

/// The same for roles; and each way of changing them may run beside the others. KEYS-ROLE-7, COM-CON-04
#[test]
fn roles_of_one_key_in_many_requests_at_once() {
    let workspace = Arc::new(Workspace::new());
    let names: Vec<String> = (0..8).map(|number| format!("role {number}")).collect();
    names.iter().for_each(|name| role(&workspace, name, &[]));
    let key = workspace.key(&workspace.api(), json!({}));
    let run = |operation: &'static str, list: Vec<String>| {
        let (workspace, key) = (Arc::clone(&workspace), key.clone());
        move || on(&workspace, operation, &key, &list.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let held = || workspace.verify(&key, json!({}))["roles"].clone();

    let all_hold_it = at_once((0..10).map(|_| run("keys.addRoles", vec![names[0].clone()])));
    assert!(all_hold_it.iter().all(|held| held == &names[..1]), "KEYS-ROLE-7");
    at_once((0..8).map(|number| run("keys.addRoles", names[number.min(7)..].iter().take(2).cloned().collect())));
    assert_eq!(held(), json!(names), "KEYS-ROLE-7: the union");
    let lists: Vec<Vec<String>> = (0..8).map(|at| names.iter().cycle().skip(at).take(3).cloned().collect()).collect();
    for _ in 0..3 {
        at_once(lists.iter().map(|list| run("keys.setRoles", list.clone())));
        let left = held();
        let is_left = |list: &Vec<String>| {
            let mut sorted = list.clone();
            sorted.sort();
            left == json!(sorted)
        };
        assert!(lists.iter().any(is_left), "KEYS-ROLE-7: {left}");
    }
    workspace.ok("keys.setRoles", json!({"keyId": key.id, "roles": [names[0]]}));
    let mixed = (0..12).map(|number| match number % 3 {
        0 => run("keys.addRoles", vec![names[1].clone()]),
        1 => run("keys.removeRoles", vec![names[0].clone(), names[2].clone()]),
        _ => run("keys.setRoles", vec![names[3].clone()]),
    });
    at_once(mixed.collect::<Vec<_>>().into_iter());
    assert!([json!([names[1], names[3]]), json!([names[3]])].contains(&held()), "KEYS-ROLE-7: {}", held());
}

/// Valid requests are valid however many are made at once: never a 400. (The contract's 100,000, scaled down.) KEYS-ROLE-9
#[test]
fn validation_has_no_memory() {
    const THREADS: usize = 20;
    const EACH: usize = 150;
    let workspace = Arc::new(Workspace::new());
    role(&workspace, "one", &[]);
    role(&workspace, "two", &[]);
    let api = workspace.api();
    at_once((0..THREADS).map(|thread| {
        let workspace = Arc::clone(&workspace);
        let key = workspace.key(&api, json!({}));
        move || {
            for number in 0..EACH {
                let names: &[&str] = [&["one"][..], &["two", "one"], &[]][(thread + number) % 3];
                let mut sorted = names.to_vec();
                sorted.sort_unstable();
                assert_eq!(on(&workspace, "keys.setRoles", &key, names), sorted, "KEYS-ROLE-9");
            }
        }
    }));
}
