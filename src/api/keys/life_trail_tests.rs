//! What the life of a key leaves in the audit trail: made, changed, refilled, deleted. And what leaves nothing.

use keyward_storage::ids::KeyspaceId;
use keyward_storage::records::audit::AuditEvent;
use serde_json::{Value, json};

use crate::api::testing::{Kit, NOW, Told, names, on, text, tied};

/// A midnight, 00:00:00 UTC, after [`NOW`].
const MIDNIGHT: u64 = (NOW / 86_400_000 + 1) * 86_400_000;

fn only(told: Vec<Told>) -> Told {
    let [one] = <[Told; 1]>::try_from(told).unwrap_or_else(|told| panic!("not one event: {told:?}"));
    one
}

/// The targets that connect a key with something.
fn links(told: &[Told], event: &str) -> Vec<Vec<(String, String, String)>> {
    told.iter().filter(|told| told.event == event).map(|told| told.targets.clone()).collect()
}

/// KEYS-CREATE-7, KEYS-CREATE-11, KEYS-OBJ-6, KEYS-AUDIT-2, KEYS-AUDIT-3, AL-EV-04, AL-EV-05, AL-OP-02: a new key tells of every
/// row that came to be and of each of its links, then of itself, in one action.
#[test]
fn a_new_key_tells_of_all_that_came_with_it() {
    let kit = Kit::new();
    let api = kit.api();
    let members = json!({
        "apiId": api, "name": "a key", "permissions": ["a.read", "a.write", "A.Read"], "externalId": "user_1"
    });
    let key = text(&kit.ok("keys.createKey", members)["keyId"]);
    let told = kit.told();
    tied(&told);
    let mut seen = names(&told);
    assert_eq!(seen.pop(), Some("key.create"), "the key comes last");
    seen.sort_unstable();
    let connect = "authorization.connect_permission_and_key";
    assert_eq!(seen, [connect, connect, "identity.create", "permission.create", "permission.create"]);

    let made = told.last().expect("there");
    assert_eq!(made.description, format!("Created key {key}"));
    // Its target is named by its id (KEYS-CREATE-11).
    assert_eq!(made.targets, [on("key", &key, &key), on("api", &api, "an api")]);
    let connected = links(&told, connect);
    for (targets, slug) in connected.iter().zip(["a.read", "a.write"]) {
        assert_eq!(targets[0], on("key", &key, &key));
        assert_eq!((targets[1].0.as_str(), targets[1].2.as_str()), ("permission", slug));
        let created = told.iter().find(|told| told.event == "permission.create" && told.targets[0].2 == slug);
        assert_eq!(created.expect("told of").targets[0].1, targets[1].1, "the same permission");
    }

    // A key with nothing is one event all the same with its correlation id.
    let key = text(&kit.ok("keys.createKey", json!({"apiId": api}))["keyId"]);
    let made = only(kit.told());
    assert_eq!((made.event.as_str(), made.description), ("key.create", format!("Created key {key}")));
    assert!(made.correlation.is_some(), "KEYS-AUDIT-3");
    // What existed is connected and not created again.
    kit.ok("keys.createKey", json!({"apiId": api, "permissions": ["A.READ"], "externalId": "user_1"}));
    assert_eq!(names(&kit.told()), [connect, "key.create"]);
    kit.refused("keys.createKey", json!({"apiId": api, "permissions": ["b.new"], "roles": ["nobody"]}), 404);
}

/// KEYS-UPDATE-6, KEYS-UPDATE-7, KEYS-UPDATE-9, KEYS-AUDIT-2, AL-EV-09, AL-OP-02: an update tells of permissions it made, of
/// links that came and went, and of itself with old and new values, metadata excepted; also when it changes nothing.
#[test]
fn an_update_tells_what_it_changed() {
    let kit = Kit::new();
    let api = kit.api();
    let key = kit.key(&api, json!({"name": "before", "permissions": ["a.read"], "meta": {"secret": 1}}));
    let changes =
        json!({"keyId": key, "name": "after", "permissions": ["b.read"], "meta": {"secret": 2}, "enabled": false});
    kit.ok("keys.updateKey", changes);
    let told = kit.told();
    tied(&told);
    let update = told.last().expect("there");
    assert_eq!((update.event.as_str(), &update.description), ("key.update", &format!("Updated key {key}")));
    assert_eq!(update.targets, [on("key", &key, "after"), on("api", &api, "an api")]);
    assert_eq!(update.meta[0]["changes"]["name"], json!({"old": "before", "new": "after"}));
    assert_eq!(update.meta[0]["changes"]["enabled"], json!({"old": true, "new": false}));
    assert!(!update.meta[0].to_string().contains("secret"), "AL-EV-09: metadata is not told: {}", update.meta[0]);
    let created = told.iter().find(|told| told.event == "permission.create").expect("told of");
    assert_eq!(created.description, format!("Created b.read ({})", created.targets[0].1));
    assert_eq!(created.meta[0], json!({"name": "b.read", "slug": "b.read"}));
    let gone = links(&told, "authorization.disconnect_permission_and_key");
    let come = links(&told, "authorization.connect_permission_and_key");
    assert_eq!((gone.len(), gone[0][1].2.as_str()), (1, "a.read"));
    assert_eq!((come.len(), come[0][1].2.as_str()), (1, "b.read"));

    kit.ok("keys.updateKey", json!({"keyId": key}));
    let nothing = only(kit.told());
    assert_eq!((nothing.event.as_str(), nothing.correlation.is_some()), ("key.update", true));
    assert_eq!(nothing.meta[0], Value::Null);
    kit.refused("keys.updateKey", json!({"keyId": key, "permissions": ["c.new"], "roles": ["nobody"]}), 404);
}

/// KEYS-UPCRED-8, AL-EV-04: a change of credits names the key space and the key, and tells what was done.
#[test]
fn changed_credits_are_told() {
    let kit = Kit::new();
    let api = kit.api();
    let key = kit.key(&api, json!({"name": "a key"}));
    let change = |operation: &str, value: Value, left: &str, previous: Value| {
        kit.ok("keys.updateCredits", json!({"keyId": key, "operation": operation, "value": value}));
        let told = only(kit.told());
        assert_eq!(told.event, "key.update");
        assert_eq!(told.description, format!("Updated Key {key}, set remaining to {left}."));
        let (kind, id, name) = &told.targets[0];
        assert_eq!((kind.as_str(), KeyspaceId::PREFIX, name.as_str()), ("keySpace", &id[..3], ""));
        assert_eq!(told.targets[1..], [on("key", &key, "a key")]);
        assert_eq!(told.meta[1], json!({"operation": operation, "value": value, "previous_remaining": previous}));
        assert_eq!(told.correlation, None, "one event");
    };
    change("set", json!(7), "7", Value::Null);
    change("increment", json!(3), "10", json!(7));
    change("decrement", json!(100), "0", json!(10));
    change("set", Value::Null, "unlimited", json!(0));
    kit.refused("keys.updateCredits", json!({"keyId": key, "operation": "increment", "value": 1}), 400);
    kit.refused("keys.updateCredits", json!({"keyId": key, "operation": "increment"}), 400);
}

/// KEYS-DELETE-7: the two kinds of deletion are told apart.
#[test]
fn a_deletion_tells_its_kind() {
    let kit = Kit::new();
    let api = kit.api();
    for (permanent, words) in [(false, "Deleted"), (true, "Permanently deleted")] {
        let key = kit.key(&api, json!({"name": "a key", "permissions": ["a.read"]}));
        kit.ok("keys.deleteKey", json!({"keyId": key, "permanent": permanent}));
        let told = only(kit.told());
        assert_eq!((told.event.as_str(), told.description), ("key.delete", format!("{words} {key}")));
        assert_eq!(told.targets, [on("key", &key, "a key")]);
        kit.refused("keys.deleteKey", json!({"keyId": key}), 404);
    }
}

/// KEYS-REFILL-7, AL-EV-01, AL-EV-05: a refill is told by the refill service, at the midnight it was due, and only when it
/// raised the balance.
#[test]
fn a_refill_is_told_by_its_service() {
    let kit = Kit::new();
    let api = kit.api();
    let refill = json!({"interval": "daily", "amount": 10});
    let poor = kit.key(&api, json!({"name": "poor", "credits": {"remaining": 3, "refill": refill}}));
    let unnamed = kit.key(&api, json!({"credits": {"remaining": 0, "refill": refill}}));
    let rich = kit.key(&api, json!({"credits": {"remaining": 10, "refill": refill}}));
    kit.test_time_ms.set(Some(i64::try_from(MIDNIGHT + 5_000).expect("there")));
    for (key, name, previous) in [(&poor, "poor", 3), (&unnamed, unnamed.as_str(), 0)] {
        kit.ok("keys.getKey", json!({"keyId": key}));
        let event: AuditEvent = kit.events().pop().expect("told of");
        assert_eq!((event.event.as_str(), event.time), ("key.update", MIDNIGHT));
        assert_eq!(event.description, format!("Refilled key {name}"));
        let actor = (event.actor.kind.as_str(), event.actor.id.as_str(), event.actor.name.as_str());
        assert_eq!(actor, ("system", "keyrefill", "Key Refill Service"));
        assert_eq!((event.targets[0].kind.as_str(), &event.targets[0].id), ("key", key));
        let meta: Value = serde_json::from_str(event.targets[0].meta.as_deref().expect("there")).expect("there");
        assert_eq!(meta, json!({"refill_amount": 10, "previous_remaining": previous, "new_remaining": 10}));
    }
    for key in [&poor, &unnamed, &rich] {
        kit.ok("keys.getKey", json!({"keyId": key}));
    }
    assert_eq!(kit.told(), [], "nothing is raised twice, and nothing that is full");
}

/// AL-EV-08, COM-RK-06, KEYS-ANALYTICS-6, KEYS-GET-4, KEYS-WHOAMI-4, APIS-GET-6, COM-RK-08: reading, verifying, limiting and being
/// authenticated leave nothing in the trail.
#[test]
fn what_changes_nothing_leaves_nothing() {
    let kit = Kit::new();
    let api = kit.api();
    let made = kit.ok("keys.createKey", json!({"apiId": api, "credits": {"remaining": 5}}));
    let ask = json!({"namespace": "n", "identifier": "i", "limit": 1, "duration": 60_000});
    kit.ok("ratelimit.limit", ask.clone());
    kit.told();
    kit.ok("apis.getApi", json!({"apiId": api}));
    kit.ok("apis.listApis", json!({}));
    kit.ok("keys.getKey", json!({"keyId": made["keyId"]}));
    kit.ok("keys.whoami", json!({"key": made["key"]}));
    assert_eq!(kit.ok("keys.verifyKey", json!({"key": made["key"]}))["credits"], 4);
    kit.ok("keys.verifyKey", json!({"key": "nobody_has_this"}));
    assert_eq!(kit.ok("ratelimit.limit", ask.clone())["success"], false);
    kit.ok("ratelimit.multiLimit", json!([ask]));
    kit.refused("keys.verifyKey", json!({"key": made["key"], "permissions": "AND"}), 400);
    assert_eq!(kit.told(), [], "AL-EV-08");
}

/// KEYS-IP-4: a list of addresses lets nobody in whose address cannot be told.
#[test]
fn an_unknown_address_is_on_no_list() {
    let kit = Kit::new();
    let api = kit.api();
    let key = kit.ok("keys.createKey", json!({"apiId": api}))["key"].clone();
    kit.client_ip.set(None);
    let code = || kit.ok("keys.verifyKey", json!({"key": key}))["code"].clone();
    assert_eq!(code(), "VALID", "without a list nobody asks");
    kit.client_ip.set(Some([192, 0, 2, 1].into()));
    kit.ok("apis.updateApi", json!({"apiId": api, "ipWhitelist": ["0.0.0.0/0", "::/0"]}));
    assert_eq!(code(), "VALID");
    kit.client_ip.set(None);
    assert_eq!(code(), "FORBIDDEN", "KEYS-IP-4");
}
