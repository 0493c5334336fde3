//! What permissions.* leaves in the audit trail.

use serde_json::{Value, json};

use crate::api::testing::{Kit, names, on, text, tied};

const CREATED: &str = "permission.create";
const CONNECTED: &str = "authorization.connect_role_and_permission";
const DISCONNECTED: &str = "authorization.disconnect_role_and_permissions";

fn id_of(kit: &Kit, slug: &str) -> String {
    text(&kit.ok("permissions.getPermission", json!({"permission": slug}))["id"])
}

/// RB-CP-02, RB-CP-03, RB-DP-01, RB-DP-02, RB-DP-03, EXT-19, AL-EV-02, AL-EV-03, AL-EV-04, AL-EV-07, AL-EV-09, AL-OP-01,
/// KEYS-AUDIT-1: one event for each change of a permission, without a correlation; the links that go with it go untold.
#[test]
fn a_permission_tells_its_life() {
    let kit = Kit::new();
    let made = json!({"name": "Read \"docs\"", "slug": "Docs.Read", "description": "look \\ at them"});
    let id = text(&kit.ok("permissions.createPermission", made)["permissionId"]);
    let told = kit.told();
    assert_eq!(names(&told), [CREATED]);
    assert_eq!(told[0].description, format!("Created Docs.Read ({id})"));
    assert_eq!(told[0].targets, [on("permission", &id, "Read \"docs\"")], "AL-EV-02: its name, not its slug");
    assert_eq!(told[0].meta, [json!({"name": "Read \"docs\"", "slug": "Docs.Read", "description": "look \\ at them"})]);
    assert_eq!(told[0].correlation, None, "RB-CP-03");
    kit.ok("permissions.createPermission", json!({"name": "n", "slug": "plain"}));
    assert_eq!(kit.told()[0].meta, [json!({"name": "n", "slug": "plain", "description": ""})], "RB-CP-03");

    kit.refused("permissions.createPermission", json!({"name": "n", "slug": "docs.READ"}), 409);
    kit.refused("permissions.updatePermission", json!({"permission": id, "slug": "PLAIN"}), 409);
    kit.refused("permissions.updatePermission", json!({"permission": "no.such", "name": "n"}), 404);

    let update = json!({"permission": "docs.read", "name": "Read", "slug": "docs.read", "description": null});
    kit.ok("permissions.updatePermission", update.clone());
    let told = kit.told();
    assert_eq!((names(&told), &told[0].correlation), (vec!["permission.update"], &None));
    assert_eq!(told[0].targets, [on("permission", &id, "Read")]);
    let both = |old: Value, new: Value| json!({"old": old, "new": new});
    assert_eq!(
        told[0].meta[0]["changes"],
        json!({
            "name": both("Read \"docs\"".into(), "Read".into()),
            "slug": both("Docs.Read".into(), "docs.read".into()),
            "description": both("look \\ at them".into(), Value::Null),
        })
    );
    kit.ok("permissions.updatePermission", update);
    kit.ok("permissions.updatePermission", json!({"permission": id, "description": ""}));
    assert_eq!(kit.told(), [], "AL-OP-01");

    kit.ok("permissions.createRole", json!({"name": "r", "permissions": ["docs.read"]}));
    let api = kit.api();
    kit.key(&api, json!({"permissions": ["docs.read"], "roles": ["r"]}));
    kit.told();
    kit.ok("permissions.deletePermission", json!({"permission": "DOCS.read"}));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].correlation), (vec!["permission.delete"], &None), "RB-DP-03");
    assert_eq!(told[0].targets, [on("permission", &id, "Read")]);
    assert_eq!(told[0].meta, [json!({"name": "Read", "slug": "docs.read", "description": ""})], "RB-DP-02");
    kit.refused("permissions.deletePermission", json!({"permission": id}), 404);
}

/// RB-CR-04, RB-CR-05, RB-CR-06, RB-CR-01, RB-DR-01, RB-DR-02, EXT-19, AL-EV-03, AL-EV-04, AL-EV-05, AL-EV-09, AL-OP-01: a
/// role, what was made for it and what it grants are told in this order, tied together; a role by itself is told alone.
#[test]
fn a_role_tells_its_life() {
    let kit = Kit::new();
    let alone = text(&kit.ok("permissions.createRole", json!({"name": "alone"}))["roleId"]);
    let told = kit.told();
    assert_eq!(names(&told), ["role.create"]);
    assert_eq!(told[0].targets, [on("role", &alone, "alone")]);
    assert_eq!((&told[0].meta[0], &told[0].correlation), (&json!({"name": "alone", "description": ""}), &None));

    kit.ok("permissions.createPermission", json!({"name": "Old one", "slug": "old.one"}));
    kit.told();
    let made = json!({
        "name": "editor", "description": "edits", "permissions": ["New.One", "OLD.ONE", "new.one", "other", "Other"]
    });
    let id = text(&kit.ok("permissions.createRole", made)["roleId"]);
    let told = kit.told();
    tied(&told);
    assert_eq!(names(&told), ["role.create", CREATED, CREATED, CONNECTED, CONNECTED, CONNECTED], "RB-CR-06");
    let (new, old, other) = (id_of(&kit, "new.one"), id_of(&kit, "old.one"), id_of(&kit, "other"));
    let role = || on("role", &id, "editor");
    let whole = json!({"name": "editor", "description": "edits"});
    assert_eq!((&told[0].targets[..], &told[0].meta[0]), (&[role()][..], &whole));
    assert_eq!(told[1].targets, [on("permission", &new, "New.One")], "RB-CR-01: the first spelling");
    assert_eq!(told[1].meta, [json!({"name": "New.One", "slug": "New.One"})]);
    assert_eq!(told[1].description, format!("Created New.One ({new})"));
    assert_eq!(told[2].targets, [on("permission", &other, "other")]);
    for (event, (permission, name)) in told[3..].iter().zip([(&new, "New.One"), (&old, "Old one"), (&other, "other")]) {
        assert_eq!(event.targets, [role(), on("permission", permission, name)]);
        assert_eq!(event.meta, [whole.clone(), Value::Null]);
    }
    kit.refused("permissions.createRole", json!({"name": "EDITOR", "permissions": ["left.behind"]}), 409);
    kit.refused("permissions.getPermission", json!({"permission": "left.behind"}), 404);

    kit.ok("permissions.updateRole", json!({"role": "EDITOR", "name": "Editor", "description": ""}));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].correlation), (vec!["role.update"], &None));
    assert_eq!(told[0].targets, [on("role", &id, "Editor")]);
    let changes = json!({
        "name": {"old": "editor", "new": "Editor"}, "description": {"old": "edits", "new": null}
    });
    assert_eq!(told[0].meta[0]["changes"], changes);
    kit.ok("permissions.updateRole", json!({"role": id, "name": "Editor", "description": null}));
    kit.ok("permissions.updateRole", json!({"role": id}));
    assert_eq!(kit.told(), [], "AL-OP-01");
    kit.refused("permissions.updateRole", json!({"role": id, "name": "ALONE"}), 409);

    let api = kit.api();
    kit.key(&api, json!({"roles": ["editor"]}));
    kit.ok("permissions.deleteRole", json!({"role": "editor"}));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].correlation), (vec!["role.delete"], &None), "RB-DR-02");
    assert_eq!(told[0].targets, [on("role", &id, "Editor")]);
    assert_eq!(told[0].meta, [json!({"name": "Editor", "description": ""})]);
    kit.refused("permissions.deleteRole", json!({"role": id}), 404);
}

/// RB-SR-04, RB-SR-05, RB-SR-06, AL-EV-04, AL-EV-05, AL-OP-01: what came to exist, what the role lost, what it gained, in this
/// order and tied together, even when it is one event; nothing where nothing changes.
#[test]
fn what_a_role_loses_and_gains_is_told() {
    let kit = Kit::new();
    let id = text(
        &kit.ok("permissions.createRole", json!({"name": "r", "permissions": ["old", "keep.permission"]}))["roleId"],
    );
    kit.told();
    let set = |slugs: Value| kit.ok("permissions.setRolePermissions", json!({"roleId": id, "permissions": slugs}));
    let listed = set(json!(["KEEP.Permission", "new.permission", "NEW.Permission"]));
    let told = kit.told();
    tied(&told);
    assert_eq!(names(&told), [CREATED, DISCONNECTED, CONNECTED], "RB-SR-05");
    let (old, new) = (id_of(&kit, "old"), id_of(&kit, "new.permission"));
    let role = || on("role", &id, "r");
    assert_eq!(told[0].targets, [on("permission", &new, "new.permission")]);
    assert_eq!(told[0].meta, [json!({"name": "new.permission", "slug": "new.permission"})]);
    assert_eq!(told[1].targets, [role(), on("permission", &old, "old")]);
    assert_eq!(told[2].targets, [role(), on("permission", &new, "new.permission")]);
    assert_eq!(set(json!(["new.permission", "keep.permission"])), listed);
    assert_eq!(kit.told(), [], "RB-SR-05, AL-OP-01");

    kit.ok("permissions.deletePermission", json!({"permission": "keep.permission"}));
    kit.told();
    set(json!(["new.permission"]));
    assert_eq!(kit.told(), [], "what went with its permission is no link any more");
    set(json!([]));
    let told = kit.told();
    tied(&told);
    assert_eq!(names(&told), [DISCONNECTED], "AL-EV-04: tied, though alone");
    kit.refused("permissions.setRolePermissions", json!({"roleId": "role_nowhere", "permissions": ["left"]}), 404);
    kit.refused("permissions.setRolePermissions", json!({"roleId": id, "role": id, "permissions": []}), 400);
    kit.refused("permissions.getPermission", json!({"permission": "left"}), 404);
}

/// RB-CP-05, RB-CR-07, RB-SR-07, KEYS-PERM-7, AL-OP-03: of many requests at once that name one missing slug, all succeed but
/// those that want to be its maker by name, and one permission is made, told once.
#[test]
fn one_slug_is_made_once() {
    let kit = Kit::new();
    let api = kit.api();
    let mut calls = Vec::new();
    for number in 0..8 {
        let key = kit.key(&api, json!({}));
        let role = text(&kit.ok("permissions.createRole", json!({"name": format!("role {number}")}))["roleId"]);
        calls.push(("permissions.createRole", json!({"name": format!("new {number}"), "permissions": ["Wanted"]})));
        calls.push(("permissions.setRolePermissions", json!({"roleId": role, "permissions": ["wanted"]})));
        calls.push(("keys.addPermissions", json!({"keyId": key, "permissions": ["WANTED"]})));
        calls.push(("keys.setPermissions", json!({"keyId": key, "permissions": ["wanteD"]})));
    }
    kit.told();
    for (status, reply) in kit.call_at_once(&calls) {
        assert_eq!(status, 200, "{reply}");
    }
    let told = kit.told();
    assert_eq!(told.iter().filter(|event| event.event == CREATED).count(), 1, "AL-OP-03");
    assert_eq!(told.iter().filter(|event| event.event == CONNECTED).count(), 16, "RB-CR-07, RB-SR-07");
    assert_eq!(kit.ok("permissions.listPermissions", json!({})).as_array().map(Vec::len), Some(1));

    let calls: Vec<_> = (0..10)
        .map(|number| {
            let slug = if number % 2 == 0 { "mine" } else { "MINE" };
            ("permissions.createPermission", json!({"name": format!("{number}"), "slug": slug}))
        })
        .collect();
    let mut statuses: Vec<u16> = kit.call_at_once(&calls).into_iter().map(|(status, _)| status).collect();
    statuses.sort_unstable();
    assert_eq!((statuses[0], &statuses[1..]), (200, &[409; 9][..]), "RB-CP-05");
    assert_eq!(names(&kit.told()), [CREATED], "AL-OP-03");
}
