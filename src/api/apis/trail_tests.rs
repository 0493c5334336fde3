//! What apis.* leaves in the audit trail.

use serde_json::{Value, json};

use crate::api::testing::{Kit, names, on, text};

/// APIS-CREATE-6, APIS-DELETE-8, EXT-10, AL-EV-03, AL-EV-04, AL-EV-09, AL-OP-01: one event for each change, with what changed;
/// none for a request that changes nothing or is refused.
#[test]
fn an_api_tells_its_life() {
    let kit = Kit::new();
    let id = text(&kit.ok("apis.createApi", json!({"name": "first name"}))["apiId"]);
    let told = kit.told();
    assert_eq!(names(&told), ["api.create"]);
    assert_eq!(told[0].description, format!("Created API {id}"));
    assert_eq!((&told[0].targets[..], &told[0].correlation), (&[on("api", &id, "first name")][..], &None));

    let settings = json!({
        "apiId": id, "name": "second name", "deleteProtection": true, "defaultPrefix": "p_", "defaultBytes": 24,
        "ipWhitelist": [" 10.1.2.3/8", "::ffff:192.0.2.1", "10.0.0.0/8"], "storeEncryptedKeys": true
    });
    kit.ok("apis.updateApi", settings.clone());
    let told = kit.told();
    assert_eq!(names(&told), ["api.update"]);
    assert_eq!(told[0].targets, [on("api", &id, "second name")]);
    let both = |old: Value, new: Value| json!({"old": old, "new": new});
    assert_eq!(
        told[0].meta[0]["changes"],
        json!({
            "name": both("first name".into(), "second name".into()),
            "deleteProtection": both(false.into(), true.into()),
            "defaultPrefix": both(Value::Null, "p_".into()),
            "defaultBytes": both(Value::Null, 24.into()),
            "ipWhitelist": both(json!([]), json!(["10.0.0.0/8", "192.0.2.1"])),
            "storeEncryptedKeys": both(false.into(), true.into()),
        })
    );
    kit.ok("apis.updateApi", settings);
    kit.ok("apis.updateApi", json!({"apiId": id}));
    assert_eq!(kit.told(), [], "AL-OP-01");

    kit.refused("apis.updateApi", json!({"apiId": id, "ipWhitelist": ["10.0.0.0/33"]}), 400);
    kit.refused("apis.deleteApi", json!({"apiId": id}), 412);
    kit.ok("apis.updateApi", json!({"apiId": id, "deleteProtection": false}));
    kit.told();
    kit.ok("apis.deleteApi", json!({"apiId": id}));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].targets[..]), (vec!["api.delete"], &[on("api", &id, "second name")][..]));
    kit.refused("apis.deleteApi", json!({"apiId": id}), 404);
    kit.refused("apis.updateApi", json!({"apiId": id}), 404);
}
