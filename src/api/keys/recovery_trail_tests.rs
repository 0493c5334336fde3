//! The audit trail of recoverable keys: each reading of a plaintext leaves an event, and nothing else does.

use serde_json::json;

use crate::api::testing::{Kit, names, on, text};

/// KEYS-GET-4, APIS-LIST-13, AL-NAME-02, AL-EV-06: getKey tells of each decryption, listKeys of each call with the number of
/// plaintexts, and neither without `decrypt`. No event holds a plaintext.
#[test]
fn every_decryption_is_told() {
    let kit = Kit::new();
    let api = kit.api();
    kit.ok("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": true}));
    let made = kit.ok("keys.createKey", json!({"apiId": api, "recoverable": true, "name": "mine"}));
    let (id, plaintext) = (text(&made["keyId"]), text(&made["key"]));
    let plain = kit.key(&api, json!({"name": "not kept"}));
    kit.told();

    assert!(kit.ok("keys.getKey", json!({"keyId": id})).get("plaintext").is_none());
    kit.ok("apis.listKeys", json!({"apiId": api}));
    assert!(kit.ok("keys.getKey", json!({"keyId": plain, "decrypt": true})).get("plaintext").is_none(), "HASH-9");
    assert_eq!(kit.told(), [], "nothing was decrypted");

    assert_eq!(kit.ok("keys.getKey", json!({"keyId": id, "decrypt": true}))["plaintext"], plaintext.as_str());
    let told = kit.told();
    assert_eq!(names(&told), ["key.decrypt"]);
    assert_eq!(told[0].description, format!("Decrypted {id}"));
    assert_eq!(told[0].targets, [on("key", &id, "mine"), on("api", &api, "an api")]);

    let rows = kit.ok("apis.listKeys", json!({"apiId": api, "decrypt": true}));
    let shown: Vec<_> = rows.as_array().expect("a list").iter().filter_map(|row| row.get("plaintext")).collect();
    assert_eq!(shown, [&json!(plaintext)], "APIS-LIST-9");
    let events = kit.events();
    assert_eq!(events.len(), 1, "one for the call");
    assert_eq!(events[0].event, "key.decrypt");
    assert_eq!(events[0].targets[0].kind, "api");
    assert_eq!(events[0].targets[0].meta.as_deref(), Some(r#"{"count":1}"#));
    assert!(!format!("{events:?}{told:?}").contains(&plaintext), "AL-EV-06");

    kit.ok("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": false}));
    kit.refused("keys.getKey", json!({"keyId": id, "decrypt": true}), 412);
    kit.refused("apis.listKeys", json!({"apiId": api, "decrypt": true}), 412);
    kit.refused("keys.rerollKey", json!({"keyId": id, "expiration": 0}), 412);
    kit.refused("keys.createKey", json!({"apiId": api, "recoverable": true}), 412);
}
