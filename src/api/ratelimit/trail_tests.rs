//! What ratelimit.* leaves in the audit trail.

use serde_json::{Value, json};

use crate::api::testing::{Kit, Told, names, on, text};

/// RL-SETOV-04, RL-DELOV-03, RL-GETOV-05, AL-EV-03, AL-EV-04, AL-EV-09, AL-OP-01, AL-OP-02: a set and a change of an override
/// are told, the change with its values; a deletion with its namespace; what changes nothing, reads or is refused is not.
#[test]
fn an_override_tells_its_life() {
    let kit = Kit::new();
    let namespace = text(&kit.ok("ratelimit.createNamespace", json!({"name": "logins"}))["namespaceId"]);
    kit.told();
    let set = |identifier: &str, limit: u64, duration: u64| {
        let body = json!({"namespace": "logins", "identifier": identifier, "limit": limit, "duration": duration});
        text(&kit.ok("ratelimit.setOverride", body)["overrideId"])
    };
    for identifier in ["ada", "user_*"] {
        let id = set(identifier, 3, 60_000);
        let told = kit.told();
        assert_eq!(names(&told), ["ratelimit.set_override"]);
        assert_eq!(told[0].description, format!("Set override {id} for {identifier} in namespace {namespace}"));
        assert_eq!(told[0].targets, [on("ratelimitOverride", &id, identifier)], "RL-SETOV-04");
        assert_eq!((&told[0].meta[..], &told[0].correlation), (&[Value::Null][..], &None));

        assert_eq!(set(identifier, 3, 60_000), id);
        assert_eq!(kit.told(), [], "AL-OP-01");
        assert_eq!(set(identifier, 5, 60_000), id, "RL-SETOV-02");
        let told = kit.told();
        assert_eq!(
            (names(&told), &told[0].targets[..]),
            (vec!["ratelimit.set_override"], &[on("ratelimitOverride", &id, identifier)][..])
        );
        assert_eq!(told[0].meta[0], json!({"changes": {"limit": {"old": 3, "new": 5}}}), "AL-EV-09");

        let one = json!({"namespace": namespace, "identifier": identifier});
        kit.ok("ratelimit.getOverride", one.clone());
        kit.ok("ratelimit.listOverrides", json!({"namespace": namespace}));
        assert_eq!(kit.told(), [], "RL-GETOV-05");
        kit.ok("ratelimit.deleteOverride", one.clone());
        let told = kit.told();
        assert_eq!(names(&told), ["ratelimit.delete_override"]);
        let targets = [on("ratelimitOverride", &id, identifier), on("ratelimitNamespace", &namespace, "logins")];
        assert_eq!(told[0].targets, targets, "RL-DELOV-03");
        assert_eq!(told[0].description, format!("Deleted override {id} for {identifier} in namespace {namespace}"));
        kit.refused("ratelimit.deleteOverride", one, 404);
    }
    let nowhere = json!({"namespace": "nowhere", "identifier": "ada", "limit": 1, "duration": 1000});
    kit.refused("ratelimit.setOverride", nowhere, 404);
}

/// RL-NS-05, RL-MULTI-04, RL-LIMIT-06, EXT-14, AL-EV-03, AL-OP-03: a namespace is told of once when it comes to be, by
/// whichever road, and once when it goes; several of one request are tied together.
#[test]
fn a_namespace_tells_its_life() {
    let kit = Kit::new();
    let entry = |name: &str| json!({"namespace": name, "identifier": "ada", "limit": 1, "duration": 1000});
    let created = |told: &Told, name: &str| {
        let (kind, id, named) = &told.targets[0];
        assert_eq!((told.targets.len(), kind.as_str(), named.as_str()), (1, "ratelimitNamespace", name));
        assert_eq!(told.description, format!("Created rate-limit namespace {name} ({id})"), "RL-LIMIT-06");
        id.clone()
    };
    let id = text(&kit.ok("ratelimit.createNamespace", json!({"name": "made"}))["namespaceId"]);
    let told = kit.told();
    assert_eq!((names(&told), created(&told[0], "made")), (vec!["ratelimitNamespace.create"], id.clone()));
    assert_eq!(told[0].correlation, None);
    kit.ok("ratelimit.limit", entry("made"));
    kit.refused("ratelimit.createNamespace", json!({"name": "made"}), 409);
    kit.refused("ratelimit.createNamespace", json!({"name": id}), 409);

    kit.ok("ratelimit.multiLimit", json!([entry("one"), entry("made"), entry("two"), entry("one")]));
    let told = kit.told();
    assert_eq!(names(&told), ["ratelimitNamespace.create"; 2]);
    created(&told[0], "one");
    created(&told[1], "two");
    crate::api::testing::tied(&told);

    kit.ok("ratelimit.deleteNamespace", json!({"namespace": "made"}));
    let told = kit.told();
    assert_eq!(names(&told), ["ratelimitNamespace.delete"]);
    assert_eq!(told[0].targets, [on("ratelimitNamespace", &id, "made")]);
    assert_eq!(told[0].description, format!("Deleted rate-limit namespace made ({id})"));
    kit.refused("ratelimit.deleteNamespace", json!({"namespace": "made"}), 404);
    kit.refused("ratelimit.createNamespace", json!({"name": "made"}), 410);
    kit.refused("ratelimit.limit", entry("made"), 410);
    kit.refused("ratelimit.multiLimit", json!([entry("one"), entry(&id)]), 410);
}
