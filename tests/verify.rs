//! keys.verifyKey: the order of its checks, what it answers, limits, credits, permission queries, last use.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::world::code;
use crate::harness::{HOUR, Key, MINUTE, NOON, Workspace, members};

fn limit(name: &str, limit: i64, duration: i64, auto: bool) -> Value {
    json!({"name": name, "limit": limit, "duration": duration, "autoApply": auto})
}

/// The entry of that name among the checked limits of a verification.
fn entry<'a>(data: &'a Value, name: &str) -> &'a Value {
    let entries = data["ratelimits"].as_array().unwrap_or_else(|| panic!("no ratelimits: {data}"));
    entries.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("no {name}: {data}"))
}

/// (exceeded, remaining) of an entry.
fn state(data: &Value, name: &str) -> (bool, i64) {
    let entry = entry(data, name);
    (entry["exceeded"].as_bool().unwrap(), entry["remaining"].as_i64().unwrap())
}

/// The first failing check names the code, in the server's order; later checks are not made and charge nothing.
/// KEYS-VERIFY-2, KEYS-VERIFY-3, KEYS-VERIFY-4, KEYS-VERIFY-8, KEYS-VERIFY-9, KEYS-CREDIT-3, KEYS-RL-11, KEYS-GEN-34
#[test]
fn the_first_failing_check_names_the_code() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key(
        &api,
        json!({
            "enabled": false, "expires": NOON, "credits": {"remaining": 1}, "permissions": ["a.b"],
            "ratelimits": [limit("calls", 1, HOUR, true)],
        }),
    );
    let ask = json!({"permissions": "not.held", "ratelimits": [{"name": "unknown"}], "credits": {"cost": 9}});
    let at = |ms: i64, ask: &Value| workspace.verify_at(&key, ask.clone(), ms);
    let broken = json!({"key": key.secret, "permissions": "a AND", "ratelimits": [{"name": "unknown"}]});
    let syntax = workspace.call("keys.verifyKey", broken).at(NOON + 1);
    syntax.expect_problem(400, "user/bad_request/permissions_query_syntax_error");

    let disabled = at(NOON + 1, &ask);
    assert_eq!(code(&disabled), "DISABLED");
    assert_eq!((disabled["credits"].as_i64(), disabled.get("ratelimits")), (Some(1), None));
    workspace.update(&key, json!({"enabled": true}));
    assert_eq!(code(&at(NOON + 1, &ask)), "EXPIRED");
    assert_eq!(code(&at(NOON, &ask)), "INSUFFICIENT_PERMISSIONS", "at the instant itself it is still valid");
    workspace.update(&key, json!({"permissions": ["not.held"]}));
    let body = json!({"key": key.secret, "permissions": "not.held", "ratelimits": [{"name": "unknown"}]});
    workspace.call("keys.verifyKey", body).at(NOON).expect_problem(412, "unkey/application/precondition_failed");
    let ask = json!({"permissions": "not.held", "ratelimits": [{"name": "calls", "cost": 2}], "credits": {"cost": 9}});
    let limited = at(NOON, &ask);
    assert_eq!((code(&limited).as_str(), limited["credits"].as_i64()), ("RATE_LIMITED", Some(1)), "KEYS-RL-11");
    let ask = json!({"permissions": "not.held", "credits": {"cost": 9}});
    let poor = at(NOON, &ask);
    assert_eq!((code(&poor).as_str(), poor["credits"].as_i64()), ("USAGE_EXCEEDED", Some(1)));
    assert_eq!(state(&poor, "calls"), (false, 0), "KEYS-RL-11: the limit keeps its charge");
    let again = at(NOON, &json!({}));
    assert_eq!((code(&again).as_str(), again["credits"].as_i64()), ("RATE_LIMITED", Some(1)));
    let valid = at(NOON, &json!({"ratelimits": [{"name": "calls", "cost": 0}]}));
    assert_eq!((code(&valid).as_str(), valid["credits"].as_i64()), ("VALID", Some(0)));
    assert_eq!(code(&at(NOON, &json!({"ratelimits": [{"name": "calls", "cost": 0}]}))), "USAGE_EXCEEDED");
}

/// A key outside the key spaces the caller names is not found, and costs nothing; an empty list names none.
/// KEYS-VERIFY-1, EXT-19
#[test]
fn a_key_outside_the_named_keyspaces_is_not_found() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 3}}));
    for keyspaces in [json!(["ks_nowhere"]), json!(["ks_nowhere", "ks_neither"]), json!([])] {
        let data = workspace.verify(&key, json!({"keyspaces": keyspaces}));
        assert_eq!(data, json!({"valid": false, "code": "NOT_FOUND"}));
    }
    let data = workspace.verify(&key, json!({}));
    assert_eq!(data["credits"], 2);
    let inside = workspace.verify(&key, json!({"keyspaces": ["ks_nowhere", data["keyspaceId"]]}));
    assert_eq!((inside["code"].as_str(), inside["credits"].as_i64()), (Some("VALID"), Some(1)));
}

/// A key that is not there is told nothing about, and a broken query is not looked at.
/// KEYS-VERIFY-2, KEYS-VERIFY-4, KEYS-ANALYTICS-3
#[test]
fn not_found_says_nothing_else() {
    let workspace = Workspace::new();
    let ask = json!({"key": "nobody", "permissions": "a AND (", "ratelimits": [{"name": "unknown"}], "tags": ["x"]});
    assert_eq!(workspace.ok("keys.verifyKey", ask), json!({"valid": false, "code": "NOT_FOUND"}));
}

/// Everything that is known of a key comes back with every code but NOT_FOUND; what is unset is left out.
/// KEYS-VERIFY-6, KEYS-VERIFY-7, KEYS-VERIFY-8, KEYS-GEN-21, KEYS-GEN-23, KEYS-OBJ-3
#[test]
fn the_answer_holds_all_that_is_known() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let plain = workspace.key(&api, json!({}));
    let mut data = workspace.verify(&plain, json!({}));
    // A member of the newest SDK (EXT-19).
    let keyspace = data.as_object_mut().and_then(|data| data.remove("keyspaceId")).unwrap_or_default();
    assert!(keyspace.as_str().is_some_and(|id| id.starts_with("ks_")), "{keyspace}");
    assert_eq!(data, json!({"valid": true, "code": "VALID", "keyId": plain.id, "enabled": true}));

    let key = workspace.key(&api, json!({
        "name": "n", "meta": {"a": [1]}, "externalId": "e", "expires": NOON + HOUR, "credits": {"remaining": 5},
        "permissions": ["b", "a"], "ratelimits": [limit("zz/top", 5, MINUTE, true), limit("aaa", 9, 1000, true), limit("off", 1, 1000, false)],
    }));
    let names = [
        "code",
        "credits",
        "enabled",
        "expires",
        "identity",
        "keyId",
        "keyspaceId",
        "meta",
        "name",
        "permissions",
        "ratelimits",
        "valid",
    ];
    let data = workspace.verify_at(&key, json!({}), NOON + 1);
    assert_eq!(members(&data), names);
    assert_eq!(
        (data["name"].as_str(), data["expires"].as_i64(), data["credits"].as_i64()),
        (Some("n"), Some(NOON + HOUR), Some(4))
    );
    assert_eq!((&data["meta"], &data["permissions"]), (&json!({"a": [1]}), &json!(["a", "b"])));
    assert_eq!(members(&data["identity"]), ["externalId", "id"]);
    let limits = data["ratelimits"].as_array().unwrap();
    let order: Vec<&str> = limits.iter().map(|limit| limit["name"].as_str().unwrap()).collect();
    assert_eq!(order, ["aaa", "zz/top"], "KEYS-GEN-23: sorted by name");
    for entry in limits {
        assert_eq!(members(entry), ["autoApply", "duration", "exceeded", "id", "limit", "name", "remaining", "reset"]);
        assert!(entry["id"].as_str().unwrap().starts_with("rl_"));
    }
    assert_eq!((limits[0]["reset"].as_i64(), limits[1]["reset"].as_i64()), (Some(NOON + 1000), Some(NOON + MINUTE)));

    workspace.update(&key, json!({"enabled": false}));
    let disabled = workspace.verify_at(&key, json!({}), NOON + 1);
    assert_eq!(code(&disabled), "DISABLED");
    let without: Vec<&str> = names.into_iter().filter(|name| *name != "ratelimits").collect();
    assert_eq!(members(&disabled), without, "KEYS-VERIFY-8: all but the limits, which were not checked");
    let custom = json!({"ratelimits": [{"name": "inline", "limit": 3, "duration": 1000}]});
    let inline = workspace.verify_at(&plain, custom, NOON);
    assert_eq!(entry(&inline, "inline")["id"], "", "KEYS-VERIFY-6, SDK: a custom limit has the id \"\"");
}

/// The numbers that clients' own tests rely on. KEYS-RL-12, KEYS-RL-2, KEYS-RL-6, KEYS-RL-7
#[test]
fn acceptance_values_of_limits() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let with = |limits: Value| workspace.key(&api, json!({"ratelimits": limits}));
    let verify = |key: &Key, ask: Value| workspace.verify_at(key, ask, NOON + 5);

    let key = with(json!([limit("auto", 5, MINUTE, true)]));
    let first = verify(&key, json!({}));
    let first = entry(&first, "auto");
    assert_eq!(
        (&first["remaining"], &first["limit"], &first["duration"], &first["autoApply"]),
        (&json!(4), &json!(5), &json!(60_000), &json!(true))
    );

    let key = with(json!([limit("once", 1, MINUTE, true)]));
    assert_eq!(code(&verify(&key, json!({}))), "VALID");
    let second = verify(&key, json!({}));
    assert_eq!((code(&second).as_str(), state(&second, "once")), ("RATE_LIMITED", (true, 0)));

    let key = with(json!([]));
    let custom = |name: &str, limit: i64, duration: i64, cost: i64| json!({"name": name, "limit": limit, "duration": duration, "cost": cost});
    let data = verify(&key, json!({"ratelimits": [custom("ten", 10, MINUTE, 3)]}));
    assert_eq!((state(&data, "ten"), &entry(&data, "ten")["autoApply"]), ((false, 7), &json!(false)));
    let twenty = json!({"ratelimits": [custom("twenty", 20, MINUTE, 15)]});
    assert_eq!(code(&verify(&key, twenty.clone())), "VALID");
    assert_eq!(code(&verify(&key, twenty)), "RATE_LIMITED");
    let mixed = json!({"ratelimits": [custom("10/10s", 10, 10_000, 4), custom("1/1min", 1, MINUTE, 2)]});
    let data = verify(&key, mixed);
    assert_eq!(
        (code(&data).as_str(), state(&data, "1/1min"), state(&data, "10/10s")),
        ("RATE_LIMITED", (true, 0), (false, 10))
    );

    let key = with(json!([limit("minute", 3, MINUTE, true), limit("hour", 10, HOUR, true)]));
    for _ in 0..3 {
        assert_eq!(code(&verify(&key, json!({}))), "VALID");
    }
    for _ in 0..2 {
        let fourth = verify(&key, json!({}));
        assert_eq!(
            (code(&fourth).as_str(), state(&fourth, "minute"), state(&fourth, "hour")),
            ("RATE_LIMITED", (true, 0), (false, 7))
        );
    }
}

/// All or nothing: a call that one limit denies charges none; over many windows exactly what the longest allows passes.
/// KEYS-RL-7, KEYS-RL-6, RL-USE-01
#[test]
fn several_limits_charge_all_or_none() {
    const MONTH: i64 = 30 * 24 * HOUR;
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace
        .key(&api, json!({"ratelimits": [limit("minute", 12, MINUTE, true), limit("month", 200, MONTH, true)]}));
    for n in 1..=12 {
        let data = workspace.verify_at(&key, json!({}), NOON);
        assert_eq!((code(&data).as_str(), state(&data, "month")), ("VALID", (false, 200 - n)));
    }
    let data = workspace.verify_at(&key, json!({}), NOON);
    assert_eq!(
        (code(&data).as_str(), state(&data, "minute"), state(&data, "month")),
        ("RATE_LIMITED", (true, 0), (false, 188))
    );

    let key =
        workspace.key(&api, json!({"ratelimits": [limit("minute", 5, MINUTE, true), limit("month", 50, MONTH, true)]}));
    for window in 0..10 {
        let at = NOON + window * 2 * MINUTE;
        for _ in 0..5 {
            assert_eq!(code(&workspace.verify_at(&key, json!({}), at)), "VALID");
        }
        let sixth = workspace.verify_at(&key, json!({}), at);
        assert_eq!((code(&sixth).as_str(), state(&sixth, "minute").0), ("RATE_LIMITED", true));
    }
    let data = workspace.verify_at(&key, json!({}), NOON + 20 * MINUTE);
    assert_eq!(
        (code(&data).as_str(), state(&data, "month"), state(&data, "minute")),
        ("RATE_LIMITED", (true, 0), (false, 5))
    );
}

/// Which limits are checked: auto-applied ones and the named ones, by name, the last of a repeated name; a custom one hides
/// a stored one for the call; half a custom limit is the stored one. KEYS-RL-2, KEYS-RL-3, KEYS-RL-5, KEYS-RL-8
#[test]
fn named_limits_replace_and_custom_ones_hide() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace
        .key(&api, json!({"ratelimits": [limit("auto", 10, MINUTE, true), limit("manual", 10, MINUTE, false)]}));
    let verify = |limits: Value| workspace.verify_at(&key, json!({"ratelimits": limits}), NOON);
    let names = |data: &Value| -> Vec<String> {
        data["ratelimits"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let data = verify(json!([]));
    assert_eq!((names(&data), state(&data, "auto")), (vec!["auto".to_owned()], (false, 9)), "KEYS-RL-3");
    let data = verify(json!([{"name": "auto", "cost": 3}]));
    assert_eq!((names(&data), state(&data, "auto")), (vec!["auto".to_owned()], (false, 6)), "no double charge");
    let data = verify(json!([{"name": "manual", "cost": 9}, {"name": "manual", "cost": 2}]));
    assert_eq!(
        (names(&data).len(), state(&data, "manual"), state(&data, "auto")),
        (2, (false, 8), (false, 5)),
        "the last counts"
    );
    let data = verify(json!([{"name": "manual", "limit": 1}, {"name": "auto", "duration": 1}]));
    assert_eq!(
        (state(&data, "manual"), state(&data, "auto")),
        ((false, 7), (false, 4)),
        "a lone limit or duration is ignored"
    );
    let data = verify(json!([{"name": "auto", "limit": 20, "duration": MINUTE, "cost": 2}]));
    let hidden = entry(&data, "auto");
    assert_eq!((&hidden["limit"], &hidden["id"], &hidden["autoApply"]), (&json!(20), &json!(""), &json!(false)));
    assert_eq!(hidden["remaining"], 12, "KEYS-RL-5: same name, key and duration are one cell: 6 used, 2 more");
    let data = verify(json!([{"name": "auto", "limit": 20, "duration": HOUR}]));
    assert_eq!(state(&data, "auto"), (false, 19), "KEYS-RL-5: another duration is another cell");
    let data = verify(json!([{"name": "auto", "cost": 0}]));
    assert_eq!((code(&data).as_str(), state(&data, "auto")), ("VALID", (false, 2)), "KEYS-RL-8");
    verify(json!([{"name": "auto", "cost": 2}]));
    let data = verify(json!([{"name": "auto", "cost": 0}]));
    assert_eq!((code(&data).as_str(), state(&data, "auto")), ("VALID", (false, 0)), "KEYS-RL-8: exactly at the limit");
    workspace.update(&key, json!({"ratelimits": [limit("auto", 7, MINUTE, true)]}));
    let data = verify(json!([{"name": "auto", "cost": 0}]));
    assert_eq!((code(&data).as_str(), state(&data, "auto")), ("RATE_LIMITED", (true, 0)), "KEYS-RL-8: over it");
}

/// A limit nobody defined is 412 in words that name key and identity, and charges nothing. KEYS-RL-4, KEYS-ANALYTICS-3
#[test]
fn an_unknown_limit_is_412_and_charges_nothing() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let limits = json!([limit("known", 5, HOUR, true)]);
    let alone = workspace.key(&api, json!({"ratelimits": limits, "credits": {"remaining": 5}}));
    let linked = workspace.key(&api, json!({"ratelimits": limits, "credits": {"remaining": 5}, "externalId": "ext-1"}));
    for ask in [
        json!({"name": "un/known"}),
        json!({"name": "un/known", "cost": 3}),
        json!({"name": "un/known", "limit": 3}),
        json!({"name": "un/known", "duration": 3000}),
    ] {
        let call = |key: &Key| {
            let body = json!({"key": key.secret, "ratelimits": [{"name": "known"}, ask]});
            workspace.call("keys.verifyKey", body).at(NOON).expect_problem(412, "unkey/application/precondition_failed")
        };
        call(&alone).saying(&format!(
            "ratelimit 'un/known' was requested but does not exist for key '{}' and there is no identity connected.",
            alone.id
        ));
        let identity = workspace.get(&linked)["identity"]["id"].as_str().unwrap().to_owned();
        call(&linked).saying(&format!(
            "ratelimit 'un/known' was requested but does not exist for key '{}' nor identity: '{identity}' external ID: 'ext-1'",
            linked.id));
    }
    for key in [&alone, &linked] {
        let data = workspace.verify_at(key, json!({}), NOON);
        assert_eq!((state(&data, "known"), data["credits"].as_i64()), ((false, 4), Some(4)));
        assert!(workspace.get(key).get("lastUsedAt").is_some());
    }
}

/// The window slides: what was counted before weighs by what is left of its window, and the reset is the window's end.
/// KEYS-RL-6, KEYS-VERIFY-7, RL-USE-01
#[test]
fn the_window_of_a_key_slides() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"ratelimits": [limit("calls", 10, MINUTE, true)]}));
    let spend = |cost: i64, at: i64| {
        workspace.verify_at(&key, json!({"ratelimits": [{"name": "calls", "cost": cost}]}), NOON + at)
    };
    let data = spend(10, 59_999);
    assert_eq!((state(&data, "calls"), entry(&data, "calls")["reset"].as_i64()), ((false, 0), Some(NOON + MINUTE)));
    assert_eq!(code(&spend(1, 60_000)), "RATE_LIMITED", "ten still weigh ten");
    let data = spend(1, 66_000);
    assert_eq!(
        (code(&data).as_str(), state(&data, "calls"), entry(&data, "calls")["reset"].as_i64()),
        ("VALID", (false, 0), Some(NOON + 2 * MINUTE))
    );
    assert_eq!(code(&spend(1, 66_000)), "RATE_LIMITED");
    assert_eq!(state(&spend(4, 90_000), "calls"), (false, 0), "1 counted, 5 weigh, 4 fit");
    assert_eq!(state(&spend(1, 120_000), "calls"), (false, 4), "5 weigh 5");
    assert_eq!(state(&spend(1, 300_000), "calls"), (false, 9), "two windows later nothing weighs");
}

/// Limits that cannot be used never let a call pass unlimited. KEYS-RL-9, KEYS-VERIFY-1
#[test]
fn unusable_limits_do_not_fail_open() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    let ask = |limit: i64, duration: i64, cost: i64| {
        let item = json!({"name": "custom", "limit": limit, "duration": duration, "cost": cost});
        workspace.call("keys.verifyKey", json!({"key": key.secret, "ratelimits": [item]})).at(NOON)
    };
    let none = ask(0, MINUTE, 1).expect_ok();
    assert_eq!((code(&none).as_str(), state(&none, "custom")), ("RATE_LIMITED", (true, 0)));
    assert_eq!(code(&ask(0, MINUTE, 0).expect_ok()), "VALID");
    for duration in [0, 1, 999] {
        ask(5, duration, 1).expect_problem(400, "unkey/application/invalid_input");
    }
    assert_eq!(code(&ask(5, 1000, i64::MAX).expect_ok()), "RATE_LIMITED");
    assert_eq!(code(&ask(5, 1000, 5).expect_ok()), "VALID", "the huge cost left no trace");
    for _ in 0..3 {
        ask(i64::MAX, i64::MAX, i64::MAX).expect_ok();
    }
    assert_eq!(code(&ask(10, i64::MAX, i64::MAX).expect_ok()), "RATE_LIMITED");
}

/// Cells belong to a key, a name and a duration: two names, two keys and ratelimit.limit never share one.
/// KEYS-RL-5, RL-USE-03, COM-WRL-08
#[test]
fn cells_do_not_mix() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let limits = json!([limit("one", 1, HOUR, false), limit("two", 1, HOUR, false)]);
    let (first, second) =
        (workspace.key(&api, json!({"ratelimits": limits})), workspace.key(&api, json!({"ratelimits": limits})));
    for key in [&first, &second] {
        for name in ["one", "two"] {
            let ask = json!({"ratelimits": [{"name": name}]});
            let body = json!({"namespace": name, "identifier": key.id, "limit": 1, "duration": HOUR});
            assert_eq!(code(&workspace.verify_at(key, ask.clone(), NOON)), "VALID", "{name}");
            assert_eq!(workspace.call("ratelimit.limit", body).at(NOON).expect_ok()["success"], true);
            assert_eq!(code(&workspace.verify_at(key, ask, NOON)), "RATE_LIMITED", "{name}");
        }
    }
}

fn together<T: Send + 'static>(threads: usize, work: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    let work = Arc::new(work);
    let threads: Vec<_> = (0..threads)
        .map(|n| {
            let work = Arc::clone(&work);
            std::thread::spawn(move || work(n))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// However many ask at once, exactly the limit passes, also where two limits are taken together in any order.
/// KEYS-RL-10, KEYS-RL-7, RL-CON-02
#[test]
fn limits_are_exact_under_concurrency() {
    let workspace = Arc::new(Workspace::timed());
    let api = workspace.api();
    let limits = json!([limit("minute", 90, MINUTE, true), limit("hour", 200, HOUR, true)]);
    let key = workspace.key(&api, json!({"ratelimits": limits}));
    let (asker, asked) = (Arc::clone(&workspace), key.clone());
    let passed: Vec<usize> =
        together(8, move |_| (0..25).filter(|_| code(&asker.verify_at(&asked, json!({}), NOON)) == "VALID").count());
    assert_eq!(passed.iter().sum::<usize>(), 90);
    let data = workspace.verify_at(&key, json!({}), NOON);
    assert_eq!((state(&data, "minute"), state(&data, "hour")), ((true, 0), (false, 110)));
}

/// Credits: the pinned sums; unlimited keys ignore the cost; cost 0 always passes. KEYS-CREDIT-1, KEYS-CREDIT-2, KEYS-VERIFY-6
#[test]
fn credits_are_spent_as_pinned() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let cases = [
        (5, None, "VALID", 4),
        (0, None, "USAGE_EXCEEDED", 0),
        (5, Some(5), "VALID", 0),
        (5, Some(15), "USAGE_EXCEEDED", 5),
        (0, Some(0), "VALID", 0),
        (5, Some(0), "VALID", 5),
    ];
    for (remaining, cost, wanted, left) in cases {
        let key = workspace.key(&api, json!({"credits": {"remaining": remaining}}));
        let ask = cost.map_or(json!({}), |cost: i64| json!({"credits": {"cost": cost}}));
        let data = workspace.verify(&key, ask);
        assert_eq!((code(&data).as_str(), data["credits"].as_i64()), (wanted, Some(left)), "{remaining} {cost:?}");
        assert_eq!(workspace.get(&key)["credits"]["remaining"], left, "KEYS-CREDIT-4: getKey agrees");
    }
    let key = workspace.key(&api, json!({}));
    let data = workspace.verify(&key, json!({"credits": {"cost": 1_000_000_000_000_i64}}));
    assert_eq!((code(&data).as_str(), data.get("credits")), ("VALID", None));
}

/// With R credits and calls of cost c exactly R / c succeed, whoever asks when. KEYS-CREDIT-4, KEYS-VERIFY-9
#[test]
fn credits_are_never_overspent() {
    let workspace = Arc::new(Workspace::new());
    let api = workspace.api();
    for (credits, cost) in [(100, 1), (100, 3), (50, 7)] {
        let key = workspace.key(&api, json!({"credits": {"remaining": credits}}));
        let (asker, asked) = (Arc::clone(&workspace), key.clone());
        let answers: Vec<Vec<(String, i64)>> = together(8, move |_| {
            let verify = |_| asker.verify(&asked, json!({"credits": {"cost": cost}}));
            (0..20).map(verify).map(|data| (code(&data), data["credits"].as_i64().unwrap())).collect()
        });
        let mut lefts: Vec<i64> = Vec::new();
        for (code, left) in answers.into_iter().flatten() {
            match code.as_str() {
                "VALID" => lefts.push(left),
                other => assert_eq!((other, left), ("USAGE_EXCEEDED", credits % cost)),
            }
        }
        lefts.sort_unstable();
        let wanted: Vec<i64> = (0..credits / cost).map(|n| credits % cost + n * cost).collect();
        assert_eq!(lefts, wanted, "each success saw its own balance");
        assert_eq!(workspace.get(&key)["credits"]["remaining"], credits % cost);
    }
}

/// Whatever changes about a key holds for the very next verification. KEYS-GEN-34, KEYS-CREDIT-5, KEYS-PERMQ-6, COM-CON-01
#[test]
fn changes_hold_for_the_next_verification() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 1000}}));
    for round in 0..10 {
        workspace.update(&key, json!({"enabled": false}));
        assert_eq!(workspace.code(&key, json!({})), "DISABLED");
        workspace.update(&key, json!({"enabled": true, "expires": 1}));
        assert_eq!(workspace.code(&key, json!({})), "EXPIRED");
        workspace.update(&key, json!({"expires": null, "permissions": [format!("p.{round}")]}));
        assert_eq!(workspace.code(&key, json!({"permissions": format!("p.{round}")})), "VALID");
        assert_eq!(
            workspace.code(&key, json!({"permissions": format!("p.{}", round + 1)})),
            "INSUFFICIENT_PERMISSIONS"
        );
        workspace.update(&key, json!({"credits": {"remaining": 100 + round}}));
        assert_eq!(workspace.verify(&key, json!({}))["credits"], 99 + round);
        workspace.update(
            &key,
            json!({"name": format!("n{round}"), "meta": {"round": round}, "externalId": format!("e{round}")}),
        );
        let data = workspace.verify(&key, json!({}));
        assert_eq!((&data["name"], &data["meta"]["round"]), (&json!(format!("n{round}")), &json!(round)));
        assert_eq!(data["identity"]["externalId"], format!("e{round}"));
    }
}

/// The last use is the minute of the latest verification, whatever came of it, and never goes back.
/// KEYS-ANALYTICS-5, KEYS-ANALYTICS-1, KEYS-ANALYTICS-3, KEYS-GET-4, KEYS-WHOAMI-4
#[test]
fn the_last_use_is_a_minute_and_never_goes_back() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 1}}));
    let used = || workspace.get(&key).get("lastUsedAt").and_then(Value::as_i64);
    assert_eq!(used(), None);
    workspace.ok("keys.whoami", json!({"key": key.secret}));
    for body in
        [json!({"key": key.secret, "permissions": "("}), json!({"key": key.secret, "ratelimits": [{"name": "none"}]})]
    {
        assert_ne!(workspace.call("keys.verifyKey", body).at(NOON).send().status, 200);
    }
    assert_eq!(used(), None, "KEYS-ANALYTICS-3: refused requests are no use of the key");
    let verify = |at: i64, wanted: &str| assert_eq!(code(&workspace.verify_at(&key, json!({}), at)), wanted);
    verify(NOON + 59_999, "VALID");
    assert_eq!(used(), Some(NOON));
    verify(NOON + 5 * MINUTE + 1, "USAGE_EXCEEDED");
    assert_eq!(used(), Some(NOON + 5 * MINUTE));
    verify(NOON + 2 * MINUTE, "USAGE_EXCEEDED");
    assert_eq!(used(), Some(NOON + 5 * MINUTE), "never decreases");
    workspace.update(&key, json!({"enabled": false}));
    verify(NOON + HOUR, "DISABLED");
    assert_eq!(used(), Some(NOON + HOUR));
    assert_eq!(workspace.ok("keys.whoami", json!({"key": key.secret}))["lastUsedAt"], NOON + HOUR);
}

/// What a query means: AND binds tighter, both read from the left, parentheses override, every sign is literal.
/// KEYS-PERMQ-1, KEYS-PERMQ-2, KEYS-PERMQ-3, PM-QRY-01, PM-QRY-02, PM-QRY-03, PM-QRY-06, PM-QRY-07, PM-EVAL-01, PM-EVAL-02
#[test]
fn permission_queries_mean_what_they_say() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let held =
        json!(["a", "b", "documents.*", "api.*", "api_v2-test:read", "system:admin:*", "android", "and.x", "oracle"]);
    let key = workspace.key(&api, json!({"permissions": held}));
    let many = |operator: &str, first: &str| {
        let rest: String = (0..24).map(|n| format!(" {operator} x{n}")).collect();
        format!("{first}{rest}")
    };
    let cases: &[(&str, bool)] = &[
        ("a", true),
        ("x", false),
        ("a AND b", true),
        ("a AND x", false),
        ("x OR b", true),
        ("x OR y", false),
        ("a OR x AND y", true),
        ("(a OR x) AND y", false),
        ("x AND y OR a", true),
        ("x AND (y OR a)", false),
        ("a and b", true),
        ("x oR a", true),
        ("a\tAND\r\nb", true),
        ("  a  ", true),
        ("((((a))))", true),
        ("(a)AND(b)", true),
        ("android", true),
        ("and.x AND oracle", true),
        ("api.*", true),
        ("api.read", false),
        ("documents.read", false),
        ("documents.*", true),
        ("*", false),
        ("api.* OR api.edit", true),
        ("system:admin:* AND api_v2-test:read", true),
        ("A", false),
        ("a/b", false),
        ("api.*.*.read OR a", true),
        ("unkey:v1:ws:**", false),
    ];
    let ask = |query: &str| workspace.code(&key, json!({"permissions": query}));
    for (query, passes) in cases {
        let wanted = if *passes { "VALID" } else { "INSUFFICIENT_PERMISSIONS" };
        assert_eq!(ask(query), wanted, "{query}");
    }
    assert_eq!(ask(&many("OR", "a")), "VALID", "25 operands");
    assert_eq!(ask(&many("AND", "a")), "INSUFFICIENT_PERMISSIONS");
    assert_eq!(ask(&format!("{}a{}", "(".repeat(60), ")".repeat(60))), "VALID");
    let none = workspace.key(&api, json!({}));
    assert_eq!(workspace.code(&none, json!({"permissions": "a"})), "INSUFFICIENT_PERMISSIONS");
}

/// Every malformed query is refused in the pinned words, with the byte it went wrong at.
/// KEYS-PERMQ-4, KEYS-PERMQ-5, PM-QRY-04, PM-QRY-05, PM-QRY-06, KEYS-VERIFY-2
#[test]
fn malformed_queries_are_refused_word_for_word() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"permissions": ["permission_1"]}));
    let end = "Unexpected end of query. Expected a permission identifier or opening parenthesis.";
    let blank = "Unexpected end of input. Please provide a valid permission query.";
    let unclosed = |at: usize| {
        format!(
            "Missing closing parenthesis ')' at position {at}. Every opening parenthesis must have a matching closing parenthesis."
        )
    };
    let empty = |at: usize| {
        format!(
            "Empty parentheses found at position {at}. Parentheses must contain at least one permission or expression."
        )
    };
    let token = |token: &str, at: usize| {
        format!("Unexpected token '{token}' at position {at}. Expected a permission identifier or opening parenthesis.")
    };
    let extra = |token: &str, at: usize| {
        format!(
            "Unexpected token '{token}' at position {at}. The query appears to have extra content after a valid expression."
        )
    };
    let sign = |sign: &str, at: usize| {
        format!(
            "Invalid character '{sign}' found in query at position {at}. Only letters, numbers, dots, \
        underscores, hyphens, slashes, colons, asterisks, and parentheses are allowed."
        )
    };
    let cases: Vec<(&str, String)> = vec![
        (" ", blank.to_owned()),
        ("\t\r\n  ", blank.to_owned()),
        ("permission_1 AND", end.to_owned()),
        ("permission_1 OR ", end.to_owned()),
        ("(", end.to_owned()),
        ("a AND (b OR", end.to_owned()),
        ("(permission_1 AND permission_2", unclosed(30)),
        ("((a)", unclosed(4)),
        ("permission_1 AND ()", empty(18)),
        ("()", empty(1)),
        ("( )", empty(2)),
        ("AND permission_1", token("AND", 0)),
        ("a AND OR b", token("OR", 6)),
        ("a OR )", token(")", 5)),
        (")", token(")", 0)),
        ("and", token("and", 0)),
        ("a b", extra("b", 2)),
        ("a )", extra(")", 2)),
        ("a (b)", extra("(", 2)),
        ("(a) b OR c", extra("b", 4)),
        ("permission_1 @ x", sign("@", 13)),
        ("@", sign("@", 0)),
        ("a AND b!", sign("!", 7)),
        ("a,b", sign(",", 1)),
        ("a && b", sign("&", 2)),
    ];
    let ask = |query: &str| {
        let call = workspace.call("keys.verifyKey", json!({"key": key.secret, "permissions": query}));
        call.expect_problem(400, "user/bad_request/permissions_query_syntax_error")
    };
    for (query, detail) in &cases {
        let problem = ask(query).saying(detail);
        assert!(problem.errors.is_empty(), "COM-ERR-03: {}", problem.body);
    }
    for (query, at) in [
        ("permission_1\u{0}", 12),
        ("permission_1 OR é", 16),
        ("ü", 0),
        ("a\u{a0}b", 1),
        ("\u{ff41}", 0),
        ("a\u{b}b", 1),
    ] {
        ask(query).mentioning("Invalid character").mentioning(&format!("at position {at}."));
    }
    ask(&format!("{}a{}", "(".repeat(70), ")".repeat(70)));
    ask(&"(".repeat(1000));
}
