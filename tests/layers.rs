//! Rate limits in layers: a key's own, its identity's, those of one call; and the clock they are decided by.

use serde_json::{Value, json};

use crate::harness::{DAY, Workspace, now};

fn limit(name: &str, limit: i64, auto: bool) -> Value {
    json!({"name": name, "limit": limit, "duration": 30 * DAY, "autoApply": auto})
}

/// What a verification says of each limit it checked: name, limit, remaining, exceeded.
fn checked(data: &Value) -> Vec<(String, i64, i64, bool)> {
    let entries = data["ratelimits"].as_array().cloned().unwrap_or_default();
    let number = |entry: &Value, name: &str| entry[name].as_i64().unwrap();
    let entry = |entry: &Value| {
        let name = entry["name"].as_str().unwrap().to_owned();
        (name, number(entry, "limit"), number(entry, "remaining"), entry["exceeded"].as_bool().unwrap())
    };
    entries.iter().map(entry).collect()
}

/// KEYS-RL-1, KEYS-RL-2, KEYS-RL-5, KEYS-RL-7, KEYS-RL-12, KEYS-VERIFY-6, RL-USE-01: a key's own limit hides its identity's of
/// the same name entirely, also when only the hidden one would apply by itself; what is not hidden applies to all keys of
/// the identity together.
#[test]
fn a_keys_own_limit_hides_its_identitys() {
    let workspace = Workspace::timed();
    let noon = crate::harness::NOON;
    let api = workspace.api();
    let limits = json!([limit("first", 1, true), limit("quiet", 1, true), limit("shared", 4, true)]);
    workspace.ok("identities.createIdentity", json!({"externalId": "ada", "ratelimits": limits}));
    let own = json!([limit("first", 4, true), limit("quiet", 9, false)]);
    let first = workspace.key(&api, json!({"externalId": "ada", "ratelimits": own}));
    let second = workspace.key(&api, json!({"externalId": "ada"}));

    let data = workspace.verify_at(&first, json!({}), noon);
    let entry = |name: &str, limit: i64, remaining: i64, exceeded: bool| (name.to_owned(), limit, remaining, exceeded);
    assert_eq!(checked(&data), [entry("first", 4, 3, false), entry("shared", 4, 3, false)]);
    let shown: Vec<&str> = data["identity"]["ratelimits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|limit| limit["name"].as_str().unwrap())
        .collect();
    assert_eq!(shown, ["shared"], "what a limit of the key hides is not shown: {data}");
    // Named, the key's own quiet limit is the one that counts.
    let data = workspace.verify_at(&first, json!({"ratelimits": [{"name": "quiet", "cost": 9}]}), noon);
    assert_eq!(
        checked(&data),
        [entry("first", 4, 2, false), entry("quiet", 9, 0, false), entry("shared", 4, 2, false)]
    );

    // The other key has none of its own: the identity's apply, and the shared one has counted both.
    let data = workspace.verify_at(&second, json!({}), noon);
    assert_eq!(
        checked(&data),
        [entry("first", 1, 0, false), entry("quiet", 1, 0, false), entry("shared", 4, 1, false)]
    );
    let data = workspace.verify_at(&second, json!({}), noon);
    assert_eq!(data["code"], "RATE_LIMITED");
    assert_eq!(checked(&data), [entry("first", 1, 0, true), entry("quiet", 1, 0, true), entry("shared", 4, 1, false)]);
    assert_eq!(workspace.verify_at(&first, json!({}), noon)["code"], "VALID", "the refusal took nothing");
    let data = workspace.verify_at(&first, json!({}), noon);
    assert_eq!(
        (data["code"].as_str(), checked(&data)),
        (Some("RATE_LIMITED"), vec![entry("first", 4, 1, false), entry("shared", 4, 0, true)],)
    );
}

/// RL-TIME-01, RL-ALG-06, RL-TIME-02, KEYS-VERIFY-7, COM-HDR-05: without test mode the server's own clock decides, whatever a
/// request says of the time.
#[test]
fn the_servers_clock_decides() {
    let workspace = Workspace::new();
    let ask = json!({"namespace": "clock", "identifier": "i", "limit": 10, "duration": 30 * DAY});
    let end_of_window = |at: i64| (at / (30 * DAY) + 1) * 30 * DAY;
    let before = now();
    let data = workspace.call("ratelimit.limit", ask).at(1_000).expect_ok();
    let after = now();
    let reset = data["reset"].as_i64().unwrap();
    assert!(reset == end_of_window(before) || reset == end_of_window(after), "{data} between {before} and {after}");
}
