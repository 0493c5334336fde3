//! What attaching permissions and roles to keys leaves in the audit trail, and in their rows.

use keyward_storage::ids::KeyId;
use keyward_storage::records::key::{self, KeyRow};
use serde_json::{Value, json};

use crate::api::testing::{Kit, Told, names, on, text, tied};

const CREATED: &str = "permission.create";
const CONNECTED: &str = "authorization.connect_permission_and_key";
const DISCONNECTED: &str = "authorization.disconnect_permission_and_key";
const ROLE_CONNECTED: &str = "authorization.connect_role_and_key";
const ROLE_DISCONNECTED: &str = "authorization.disconnect_role_and_key";

fn id_of(kit: &Kit, slug: &str) -> String {
    text(&kit.ok("permissions.getPermission", json!({"permission": slug}))["id"])
}

fn row(kit: &Kit, id: &str) -> KeyRow {
    let snapshot = kit.services.storage.snapshot().expect("a snapshot");
    let id = KeyId::parse(id).expect("a key's id");
    key::get(&snapshot, kit.workspace, id).expect("readable").expect("a key")
}

/// The display names of the second targets, in order: the first one of each event is the key.
fn linked<'t>(told: &'t [Told], key: &str) -> Vec<&'t str> {
    let second = told.iter().map(|event| {
        assert_eq!(event.targets[0], on("key", key, "the key"), "{event:?}");
        event.targets[1].2.as_str()
    });
    second.collect()
}

/// KEYS-PERM-2, KEYS-PERM-3, KEYS-PERM-6, KEYS-AUDIT-1, KEYS-AUDIT-2, KEYS-AUDIT-3, KEYS-AUDIT-4, AL-EV-02, AL-EV-03, AL-EV-04,
/// AL-EV-05, AL-OP-01: permissions that came, went and were made, in the order of the contract; tied where it says so; nothing
/// for what was so already or was refused.
#[test]
fn permissions_of_a_key_are_told() {
    let kit = Kit::new();
    let api = kit.api();
    kit.ok("permissions.createPermission", json!({"name": "Read docs", "slug": "docs.read"}));
    let id = kit.key(&api, json!({"name": "the key"}));
    let call = |operation: &str, slugs: Value| kit.ok(operation, json!({"keyId": id, "permissions": slugs}));

    call("keys.addPermissions", json!(["new.a", "DOCS.READ", "NEW.A", "new.b"]));
    let told = kit.told();
    tied(&told);
    assert_eq!(names(&told), [CREATED, CREATED, CONNECTED, CONNECTED, CONNECTED], "KEYS-PERM-6");
    let new = id_of(&kit, "new.a");
    assert_eq!(told[0].description, format!("Created new.a ({new})"));
    assert_eq!(told[0].targets, [on("permission", &new, "new.a")]);
    assert_eq!(told[0].meta, [json!({"name": "new.a", "slug": "new.a"})]);
    assert_eq!(linked(&told[2..], &id), ["new.a", "Read docs", "new.b"]);
    assert_eq!(told[3].description, format!("Added permission Read docs to key {id}"), "KEYS-PERM-6");
    call("keys.addPermissions", json!(["docs.read", "NEW.b"]));
    assert_eq!(kit.told(), [], "KEYS-PERM-3");
    call("keys.addPermissions", json!(["new.c"]));
    tied(&kit.told());

    call("keys.setPermissions", json!(["newer", "new.b", "docs.read"]));
    let told = kit.told();
    tied(&told);
    assert_eq!(names(&told), [DISCONNECTED, DISCONNECTED, CREATED, CONNECTED], "KEYS-PERM-6");
    assert_eq!(linked(&told[..2], &id), ["new.a", "new.c"]);
    assert_eq!(told[0].description, format!("Removed permission new.a from key {id}"));
    assert_eq!(linked(&told[3..], &id), ["newer"]);
    call("keys.setPermissions", json!(["docs.read", "NEWER", "new.b", "newer"]));
    assert_eq!(kit.told(), [], "AL-OP-01");

    call("keys.removePermissions", json!(["new.b", "new.a", "Docs.Read"]));
    let told = kit.told();
    tied(&told);
    assert_eq!((names(&told), linked(&told, &id)), (vec![DISCONNECTED; 2], vec!["new.b", "Read docs"]));
    call("keys.removePermissions", json!(["new.b"]));
    assert_eq!(kit.told(), [], "KEYS-PERM-3");
    call("keys.removePermissions", json!(["newer"]));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].correlation), (vec![DISCONNECTED], &None), "KEYS-AUDIT-3");
    call("keys.setPermissions", json!([]));
    assert_eq!(kit.told(), []);
    call("keys.setPermissions", json!(["new.a"]));
    let told = kit.told();
    assert_eq!(names(&told), [CONNECTED]);
    tied(&told);

    kit.refused("keys.removePermissions", json!({"keyId": id, "permissions": ["new.a", "no.such"]}), 404);
    kit.refused("keys.addPermissions", json!({"keyId": "key_nowhere", "permissions": ["left"]}), 404);
    kit.refused("permissions.getPermission", json!({"permission": "left"}), 404);
}

/// KEYS-ROLE-2, KEYS-ROLE-4, KEYS-ROLE-6, KEYS-AUDIT-2, KEYS-AUDIT-3, AL-EV-04, AL-EV-05, AL-OP-01: the same for roles.
#[test]
fn roles_of_a_key_are_told() {
    let kit = Kit::new();
    let api = kit.api();
    for name in ["Admin", "editor", "viewer"] {
        kit.ok("permissions.createRole", json!({"name": name}));
    }
    let id = kit.key(&api, json!({"name": "the key"}));
    let call = |operation: &str, names: Value| kit.ok(operation, json!({"keyId": id, "roles": names}));

    call("keys.addRoles", json!(["viewer", "ADMIN", "admin"]));
    let told = kit.told();
    tied(&told);
    assert_eq!((names(&told), linked(&told, &id)), (vec![ROLE_CONNECTED; 2], vec!["viewer", "Admin"]));
    assert_eq!(told[1].description, format!("Added role Admin to key {id}"), "KEYS-ROLE-6");
    call("keys.addRoles", json!(["viewer"]));
    assert_eq!(kit.told(), [], "KEYS-ROLE-4");
    call("keys.addRoles", json!(["viewer", "editor"]));
    let told = kit.told();
    assert_eq!((linked(&told, &id), &told[0].correlation), (vec!["editor"], &None), "AL-EV-04");

    call("keys.setRoles", json!(["editor"]));
    let told = kit.told();
    tied(&told);
    assert_eq!((names(&told), linked(&told, &id)), (vec![ROLE_DISCONNECTED; 2], vec!["viewer", "Admin"]));
    assert_eq!(told[0].description, format!("Removed role viewer from key {id}"), "KEYS-ROLE-6");
    call("keys.setRoles", json!(["EDITOR"]));
    assert_eq!(kit.told(), [], "KEYS-ROLE-4");
    call("keys.setRoles", json!(["admin"]));
    let told = kit.told();
    tied(&told);
    assert_eq!((names(&told), linked(&told, &id)), (vec![ROLE_DISCONNECTED, ROLE_CONNECTED], vec!["editor", "Admin"]));

    call("keys.removeRoles", json!(["viewer"]));
    assert_eq!(kit.told(), [], "KEYS-ROLE-4");
    call("keys.removeRoles", json!(["viewer", "Admin"]));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].correlation), (vec![ROLE_DISCONNECTED], &None), "KEYS-AUDIT-3");
    call("keys.setRoles", json!(["viewer"]));
    tied(&kit.told());

    for operation in ["keys.addRoles", "keys.removeRoles", "keys.setRoles"] {
        kit.refused(operation, json!({"keyId": id, "roles": ["viewer", "Admin", "no such role"]}), 404);
    }
}

/// RB-DEL-01, KEYS-PERM-8, KEYS-ROLE-8: what was deleted is no link any more, and a row that is written forgets it; a request
/// that changes nothing writes nothing, and no request bumps the time of change.
#[test]
fn rows_collect_no_dead_links() {
    let kit = Kit::new();
    let api = kit.api();
    kit.ok("permissions.createRole", json!({"name": "kept", "permissions": ["a", "b"]}));
    kit.ok("permissions.createRole", json!({"name": "gone"}));
    let id = kit.key(&api, json!({"name": "the key", "permissions": ["a", "b", "c"], "roles": ["kept", "gone"]}));
    kit.ok("permissions.deletePermission", json!({"permission": "b"}));
    kit.ok("permissions.deleteRole", json!({"role": "gone"}));
    kit.told();
    let before = row(&kit, &id);
    assert_eq!((before.permissions.len(), before.roles.len()), (3, 2), "a delete rewrites no key");

    kit.ok("keys.addPermissions", json!({"keyId": id, "permissions": ["a"]}));
    kit.ok("keys.removeRoles", json!({"keyId": id, "roles": ["kept"]}));
    assert_eq!(names(&kit.told()), [ROLE_DISCONNECTED]);
    let after = row(&kit, &id);
    assert_eq!((after.permissions.len(), after.roles.len()), (3, 0));

    kit.ok("keys.addPermissions", json!({"keyId": id, "permissions": ["d"]}));
    let after = row(&kit, &id);
    let held: Vec<String> = after.permissions.iter().map(ToString::to_string).collect();
    assert_eq!(held, ["a", "c", "d"].map(|slug| id_of(&kit, slug)));
    assert_eq!(after.updated_at, None, "KEYS-PERM-8, KEYS-ROLE-8");
    kit.told();
    kit.ok("keys.setPermissions", json!({"keyId": id, "permissions": ["a", "c", "d"]}));
    assert_eq!((kit.told(), row(&kit, &id)), (vec![], after));
}
