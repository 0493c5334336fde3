//! What rootKeys.* leaves in the audit trail.

use serde_json::{Value, json};

use crate::api::testing::{Kit, NOW, names, on, text};

/// EXT-12, AL-EV-03, AL-EV-06, AL-EV-09, AL-OP-01: one event for each change, with old and new values and never a secret;
/// none for what changes nothing or is refused.
#[test]
fn a_root_key_tells_its_life() {
    let kit = Kit::new();
    let made =
        kit.ok("rootKeys.createKey", json!({"permissions": ["b", "a", "b"], "name": "ci", "expires": NOW + 5_000}));
    let id = text(&made["keyId"]);
    let told = kit.told();
    assert_eq!(names(&told), ["root_key.create"]);
    assert_eq!(told[0].description, format!("Created root key {id}"));
    assert_eq!((&told[0].targets[..], &told[0].correlation), (&[on("rootKey", &id, "ci")][..], &None));

    let update = json!({"keyId": id, "name": null, "permissions": ["c", "a"], "enabled": false});
    kit.ok("rootKeys.updateKey", update.clone());
    let told = kit.told();
    assert_eq!((names(&told), &told[0].targets[..]), (vec!["root_key.update"], &[on("rootKey", &id, "")][..]));
    let both = |old: Value, new: Value| json!({"old": old, "new": new});
    assert_eq!(
        told[0].meta[0]["changes"],
        json!({
            "name": both("ci".into(), Value::Null),
            "permissions": both(json!(["a", "b"]), json!(["a", "c"])),
            "enabled": both(true.into(), false.into()),
        }),
        "AL-EV-09"
    );
    kit.ok("rootKeys.updateKey", update);
    kit.ok("rootKeys.updateKey", json!({"keyId": id}));
    kit.ok("rootKeys.listKeys", json!({}));
    assert_eq!(kit.told(), [], "AL-OP-01, AL-EV-08");

    let next = |expiration: Value, meta: Value| {
        let rerolled = kit.ok("rootKeys.rerollKey", json!({"keyId": id, "expiration": expiration}));
        let told = kit.told();
        let new = text(&rerolled["keyId"]);
        assert_eq!(names(&told), ["root_key.reroll"]);
        assert_eq!(told[0].targets, [on("rootKey", &new, ""), on("rootKey", &id, "")]);
        assert_eq!(told[0].description, format!("Rerolled root key ({id}) to ({new})"));
        assert_eq!(told[0].meta, [Value::Null, meta], "AL-EV-09");
        assert!(!format!("{told:?}").contains(&text(&rerolled["key"])), "AL-EV-06");
        new
    };
    next(Value::Null, Value::Null);
    next(90_000.into(), Value::Null);
    next(2_000.into(), json!({"changes": {"expires": both((NOW + 5_000).into(), (NOW + 2_000).into())}}));
    let new = next(0.into(), json!({"changes": {"deletedAt": both(Value::Null, NOW.into())}}));

    kit.ok("rootKeys.deleteKey", json!({"keyId": new}));
    let told = kit.told();
    assert_eq!((names(&told), &told[0].targets[..]), (vec!["root_key.delete"], &[on("rootKey", &new, "")][..]));
    assert_eq!(told[0].description, format!("Deleted root key {new}"));

    let rows = kit.ok("rootKeys.listKeys", json!({}));
    let is_own = |row: &&Value| row["permissions"][0].as_str().is_some_and(|first| first.ends_with("**#*"));
    let own = text(&rows.as_array().and_then(|rows| rows.iter().find(is_own)).expect("the kit's own")["keyId"]);
    for (operation, body, status) in [
        ("rootKeys.createKey", json!({"permissions": [], "expires": NOW}), 400),
        ("rootKeys.createKey", json!({"permissions": ["a\u{1b}[2J"]}), 400),
        ("rootKeys.createKey", json!({"permissions": [], "name": "  "}), 400),
        ("rootKeys.updateKey", json!({"keyId": own, "enabled": false}), 412),
        ("rootKeys.deleteKey", json!({"keyId": own}), 412),
        ("rootKeys.deleteKey", json!({"keyId": new}), 404),
        ("rootKeys.updateKey", json!({"keyId": new, "name": "x"}), 404),
        ("rootKeys.rerollKey", json!({"keyId": id, "expiration": null}), 404),
    ] {
        kit.refused(operation, body, status);
    }
}
