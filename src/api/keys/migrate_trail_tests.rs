//! What migrating, listing and rerolling leave in the audit trail.

use keyward_storage::Abort;
use keyward_storage::ids::IdentityId;
use keyward_storage::records::identity::{self, IdentityRow};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::testing::{Kit, NOW, Told, names, on, text, tied};

const SEAM: &str = "github.com/seamapi/prefixed-api-key";

fn migration(kit: &Kit, algorithm: &str) -> String {
    let id = text(
        &kit.ok("migrations.createMigration", json!({"name": "from elsewhere", "algorithm": algorithm}))["migrationId"],
    );
    kit.told();
    id
}

/// The ids of the keys an answer says were made.
fn made(data: &Value) -> Vec<String> {
    data["migrated"].as_array().expect("a list").iter().map(|key| text(&key["keyId"])).collect()
}

/// Without its ids, which are drawn: the events about one kind of target, by that target's name.
fn about<'t>(told: &'t [Told], event: &str) -> Vec<&'t str> {
    told.iter().filter(|one| one.event == event).map(|one| one.targets.last().expect("a target").2.as_str()).collect()
}

/// EXT-13, EXT-17: a migration tells how it was made.
#[test]
fn a_migration_is_told() {
    let kit = Kit::new();
    let id = text(&kit.ok("migrations.createMigration", json!({"name": "n", "algorithm": SEAM}))["migrationId"]);
    let told = kit.told();
    assert_eq!(names(&told), ["migration.create"]);
    assert_eq!(told[0].description, format!("Created migration {id}"));
    assert_eq!(told[0].targets, [on("migration", &id, "n")]);
    assert_eq!((&told[0].meta[0], &told[0].correlation), (&json!({"algorithm": SEAM}), &None));
    kit.refused("migrations.createMigration", json!({"name": "n", "algorithm": "md5"}), 400);
    kit.ok("migrations.listMigrations", json!({}));
    assert_eq!(kit.told(), [], "AL-EV-08");
}

/// Each key tells its links and then itself; whatever it names and was not there is made, and told, once, and only for keys that
/// are inserted. KEYS-MIGRATE-6, KEYS-MIGRATE-7, KEYS-MIGRATE-8, KEYS-MIGRATE-12, KEYS-GEN-32, KEYS-OBJ-6, KEYS-AUDIT-2,
/// KEYS-AUDIT-3, KEYS-AUDIT-4, AL-EV-03, AL-EV-04, AL-OP-02, AL-OP-03
#[test]
fn migrated_keys_tell_what_came_with_them() {
    let kit = Kit::new();
    let api = kit.api();
    let by = migration(&kit, "sha256");
    kit.key(&api, json!({"permissions": ["known"], "externalId": "here"}));
    let ask = |keys: Value| json!({"apiId": api, "migrationId": by, "keys": keys});
    let data = kit.ok("keys.migrateKeys", ask(json!([
        {"hash": "one", "name": "first", "externalId": "new", "permissions": ["known", "fresh"], "roles": ["ops", "OPS"]},
        {"hash": "two", "externalId": "here", "permissions": ["FRESH", "Known"], "roles": ["Ops"]},
        {"hash": "three", "externalId": "new"}
    ])));
    let keys = made(&data);
    let told = kit.told();
    tied(&told);
    assert_eq!(
        names(&told),
        [
            "identity.create",
            "permission.create",
            "role.create",
            "authorization.connect_permission_and_key",
            "authorization.connect_permission_and_key",
            "authorization.connect_role_and_key",
            "key.create",
            "authorization.connect_permission_and_key",
            "authorization.connect_permission_and_key",
            "authorization.connect_role_and_key",
            "key.create",
            "key.create",
        ]
    );
    for (event, names) in [
        ("identity.create", vec!["new"]),
        ("permission.create", vec!["fresh"]),
        ("role.create", vec!["ops"]),
        ("authorization.connect_permission_and_key", vec!["known", "fresh", "fresh", "known"]),
        ("authorization.connect_role_and_key", vec!["ops", "ops"]),
    ] {
        assert_eq!(about(&told, event), names, "KEYS-MIGRATE-7: {event}");
    }
    assert_eq!(told[2].meta[0], json!({"name": "ops"}));
    let first = on("key", &keys[0], "first");
    assert_eq!(told[3].targets[0], first);
    assert_eq!(told[3].description, format!("Added permission known to key {}", keys[0]));
    assert_eq!(told[5].description, format!("Connected role ops to key {}", keys[0]));
    assert_eq!(told[6].description, format!("Created key {} in migration {by}", keys[0]));
    assert_eq!(told[6].targets, [first, on("api", &api, "an api")]);
    assert_eq!(told[11].targets, [on("key", &keys[2], ""), on("api", &api, "an api")], "KEYS-AUDIT-2");

    // What only failed keys name is not made.
    let data = kit.ok("keys.migrateKeys", ask(json!([
        {"hash": "one", "externalId": "only here", "permissions": ["only.here"], "roles": ["only here"]}, {"hash": "four"}
    ])));
    let told = kit.told();
    assert_eq!((names(&told), made(&data).len()), (vec!["key.create"], 1), "KEYS-MIGRATE-6");
    assert_eq!(told[0].correlation, None, "AL-EV-04: one event");
    kit.ok("keys.migrateKeys", ask(json!([{"hash": "one"}, {"hash": "four"}])));
    assert_eq!(kit.told(), [], "AL-OP-01: all had failed");
    kit.refused("keys.migrateKeys", ask(json!([{"hash": "five", "externalId": "x"}, {"hash": "five"}])), 400);
    let monthly = json!({"remaining": 1, "refill": {"interval": "monthly", "amount": 1}});
    kit.refused(
        "keys.migrateKeys",
        ask(json!([{"hash": "five", "roles": ["x"]}, {"hash": "six", "credits": monthly}])),
        400,
    );
    kit.refused("keys.migrateKeys", json!({"apiId": api, "migrationId": "mig_none", "keys": [{"hash": "five"}]}), 404);
}

/// A key that is presented for the first time tells nothing: its settings are what they were. KEYS-MIGRATE-13, AL-EV-08
#[test]
fn an_adoption_is_not_told() {
    let kit = Kit::new();
    let api = kit.api();
    let by = migration(&kit, SEAM);
    let hash: String = Sha256::digest("LONG").iter().map(|byte| format!("{byte:02x}")).collect();
    let key = made(&kit.ok("keys.migrateKeys", json!({"apiId": api, "migrationId": by, "keys": [{"hash": hash}]})));
    assert_eq!(names(&kit.told()), ["key.create"]);
    for _ in 0..2 {
        let verified = kit.ok("keys.verifyKey", json!({"key": "re_s_LONG", "migrationId": by}));
        assert_eq!((&verified["code"], &verified["keyId"]), (&json!("VALID"), &json!(key[0])));
    }
    assert_eq!(kit.told(), []);
    let row = kit.ok("keys.getKey", json!({"keyId": key[0]}));
    assert_eq!((&row["start"], &row["updatedAt"]), (&json!("re_s_LO"), &json!(NOW)));
}

/// One event with both keys, and nothing about the copy's making; a refill that was due comes before it and is the program's.
/// KEYS-REROLL-10, KEYS-REROLL-11, KEYS-AUDIT-2, AL-EV-03, AL-EV-04, AL-EV-09
#[test]
fn a_reroll_is_one_event() {
    let kit = Kit::new();
    let api = kit.api();
    let old = kit.key(&api, json!({"name": "mine", "permissions": ["a"], "expires": NOW + 1}));
    let new = text(&kit.ok("keys.rerollKey", json!({"keyId": old, "expiration": 0}))["keyId"]);
    let told = kit.told();
    assert_eq!(names(&told), ["key.reroll"]);
    assert_eq!(told[0].description, format!("Rerolled key ({old}) to ({new})"));
    assert_eq!(told[0].targets, [on("key", &new, "mine"), on("key", &old, "mine"), on("api", &api, "an api")]);
    assert_eq!(told[0].meta[1], json!({"changes": {"expires": {"old": NOW + 1, "new": NOW - 1}}}), "AL-EV-09");
    assert_eq!(told[0].correlation, None);
    let plain = kit.key(&api, json!({}));
    kit.ok("keys.rerollKey", json!({"keyId": plain, "expiration": 60_000}));
    assert_eq!(kit.told()[0].targets[1], on("key", &plain, ""), "KEYS-AUDIT-2");
    kit.refused("keys.rerollKey", json!({"keyId": "key_none", "expiration": 0}), 404);
    kit.refused("keys.rerollKey", json!({"keyId": plain, "expiration": -1}), 400);
}

/// Lists tell nothing, make nothing, and do not show what was deleted. APIS-LIST-11, APIS-LIST-13, AL-EV-08, KEYS-OBJ-1
#[test]
fn a_list_tells_nothing_and_shows_no_deleted_identity() {
    let kit = Kit::new();
    let api = kit.api();
    let key = kit.key(&api, json!({"externalId": "ada"}));
    let list = |body: Value| kit.ok("apis.listKeys", body);
    let with = json!({"apiId": api, "externalId": "ada"});
    let shown = list(with.clone());
    let identity = text(&shown[0]["identity"]["id"]);
    assert_eq!((&shown[0]["keyId"], &shown[0]["identity"]["externalId"]), (&json!(key), &json!("ada")));
    let (workspace, id) = (kit.workspace, IdentityId::parse(&identity).expect("an id"));
    let deleted = kit.services.transact_blocking(keyward_storage::Turn::FIRST, NOW, move |tx| {
        let row = identity::get(tx, workspace, id)?.expect("it is there");
        identity::put(tx, workspace, id, &IdentityRow { deleted_at: Some(NOW), ..row });
        Ok::<_, Abort<std::convert::Infallible>>(())
    });
    deleted.expect("deleted");
    let before = kit.services.storage.stats();
    let shown = list(json!({"apiId": api}));
    assert!(shown[0].get("identity").is_none(), "APIS-LIST-11: {shown}");
    assert_eq!(shown[0], kit.ok("keys.getKey", json!({"keyId": key})));
    assert_eq!(list(with), json!([]), "APIS-LIST-6");
    // A new identity of that name is another one.
    let other = kit.key(&api, json!({"externalId": "ada"}));
    let shown = list(json!({"apiId": api, "externalId": "ada"}));
    assert_eq!((shown.as_array().map(Vec::len), &shown[0]["keyId"]), (Some(1), &json!(other)));
    assert_eq!(kit.told(), [], "APIS-LIST-13");
    assert!(before.transactions < kit.services.storage.stats().transactions, "only the new key was written");
}
