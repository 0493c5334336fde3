//! ratelimit.limit and ratelimit.multiLimit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use serde_json::{Value, json};

use crate::harness::{DAY, HOUR, MINUTE, NOON, Options, Server, Workspace, members, now};

fn ask(namespace: &str, identifier: &str, limit: i64, duration: i64, cost: i64) -> Value {
    json!({"namespace": namespace, "identifier": identifier, "limit": limit, "duration": duration, "cost": cost})
}

/// The data of a call at a time of the test clock.
fn limit_at(workspace: &Workspace, body: Value, at: i64) -> Value {
    let data = workspace.call("ratelimit.limit", body).at(at).expect_ok();
    assert_eq!(members(&data), ["limit", "remaining", "reset", "success"]);
    data
}

fn verdict(data: &Value) -> (bool, i64) {
    (data["success"].as_bool().unwrap(), data["remaining"].as_i64().unwrap())
}

/// (passed, remaining) of every entry of a multiLimit answer.
fn verdicts(data: &Value) -> (bool, Vec<(bool, i64)>) {
    assert_eq!(members(data), ["limits", "passed"]);
    let entries = data["limits"].as_array().unwrap();
    for entry in entries {
        assert_eq!(members(entry), ["identifier", "limit", "namespace", "passed", "remaining", "reset"]);
    }
    let each = |entry: &Value| (entry["passed"].as_bool().unwrap(), entry["remaining"].as_i64().unwrap());
    (data["passed"].as_bool().unwrap(), entries.iter().map(each).collect())
}

/// The worked examples, each on a subject of its own that was brought to its counts first.
/// RL-ALG-01, RL-ALG-02, RL-ALG-03, RL-ALG-04, RL-ALG-05, RL-ALG-06, RL-ALG-08, RL-ALG-09, RL-ALG-10, RL-TIME-02
#[test]
fn the_worked_examples() {
    // cur, prev, elapsed, duration, cost, limit -> passes, remaining
    type Example = (i64, i64, i64, i64, i64, i64, bool, i64);
    let examples: &[Example] = &[
        (0, 0, 0, 60_000, 1, 10, true, 9),
        (9, 0, 17_000, 60_000, 1, 10, true, 0),
        (10, 0, 17_000, 60_000, 0, 10, true, 0),
        (10, 0, 17_000, 60_000, 1, 10, false, 0),
        (5, 10, 30_000, 60_000, 1, 10, false, 0),
        (5, 10, 59_400, 60_000, 1, 10, true, 4),
        (0, 0, 17_000, 60_000, 100, 10, false, 0),
        (0, 100, 15_000, 60_000, 1, 100, true, 24),
        (20, 100, 15_000, 60_000, 5, 100, true, 0),
        (20, 100, 15_000, 60_000, 6, 100, false, 0),
        (0, 10, 0, 60_000, 1, 10, false, 0),
        (0, 10, 6_000, 60_000, 1, 10, true, 0),
        (0, 7, 20_000, 60_000, 1, 10, true, 5),
        (3, 50, 2_500, 10_000, 10, 60, true, 10),
        (0, 1, 0, 1_000, 1, 1, false, 0),
        (0, 1, 1, 1_000, 1, 1, true, 0),
        (0, 10, 48_000, 60_000, 1, 10, true, 7),
    ];
    let workspace = Workspace::timed();
    for (number, &(cur, prev, elapsed, duration, cost, limit, passes, remaining)) in examples.iter().enumerate() {
        let subject = format!("example {}", number + 1);
        for (count, at) in [(prev, NOON - duration), (cur, NOON + elapsed)] {
            if count > 0 {
                assert!(verdict(&limit_at(&workspace, ask("worked", &subject, 1_000_000, duration, count), at)).0);
            }
        }
        for seen in 0..2 {
            // A denial leaves no trace, so it can be asked twice; a pass only once.
            let data = limit_at(&workspace, ask("worked", &subject, limit, duration, cost), NOON + elapsed);
            assert_eq!(verdict(&data), (passes, remaining), "{subject}, time {seen}");
            assert_eq!(
                (data["limit"].as_i64(), data["reset"].as_i64()),
                (Some(limit), Some(NOON + duration)),
                "{subject}"
            );
            if passes {
                break;
            }
        }
    }
}

/// The worked timeline. RL-ALG-01, RL-ALG-06, RL-ALG-07, RL-ALG-12
#[test]
fn the_worked_timeline() {
    let workspace = Workspace::timed();
    let call = |at: i64| {
        let data = limit_at(&workspace, ask("timeline", "ada", 10, MINUTE, 1), NOON + at);
        let (success, remaining) = verdict(&data);
        (success, remaining, data["reset"].as_i64().unwrap() - NOON)
    };
    for at in 0..10 {
        assert_eq!(call(at), (true, 9 - at, 60_000));
    }
    assert_eq!(call(30_000), (false, 0, 60_000));
    assert_eq!(call(60_000), (false, 0, 120_000));
    assert_eq!(call(66_000), (true, 0, 120_000));
    for _ in 0..20 {
        assert_eq!(call(66_000), (false, 0, 120_000), "RL-ALG-07: hammering does not prolong a block");
    }
    assert_eq!(call(120_000), (true, 8, 180_000));
    assert_eq!(call(240_000), (true, 9, 300_000));
}

/// Test times may go back and forth; each reads and counts its own window; nonsense in the header is the real clock.
/// RL-TIME-02, RL-TIME-03, RL-ALG-02, RL-ALG-12, RL-EVT-02
#[test]
fn test_times_may_come_in_any_order() {
    let workspace = Workspace::timed();
    let call = |at: i64, cost: i64| verdict(&limit_at(&workspace, ask("any order", "ada", 10, MINUTE, cost), at));
    assert_eq!(call(NOON, 4), (true, 6));
    assert_eq!(call(NOON + DAY, 3), (true, 7));
    assert_eq!(call(NOON - DAY, 2), (true, 8));
    assert_eq!(call(NOON, 0), (true, 6));
    assert_eq!(call(NOON + MINUTE, 1), (true, 5), "4 weigh 4");
    assert_eq!(call(NOON - DAY + 30_000, 1), (true, 7));
    assert_eq!(call(NOON + DAY, 1), (true, 6));
    assert_eq!(call(NOON + 30_000, 6), (true, 0));
    for nonsense in ["", "soon", "1.5", "1e3", "0x10"] {
        let call =
            workspace.call("ratelimit.limit", ask("any order", "bob", 10, MINUTE, 0)).header("X-Test-Time", nonsense);
        let reset = call.expect_ok()["reset"].as_i64().unwrap();
        assert!((now() - MINUTE..=now() + 2 * MINUTE).contains(&reset), "{nonsense}: {reset}");
    }
}

/// Over fifty windows what passes lies between 0.95 and 1.2 times what the limit allows; below the limit all of it.
/// RL-ALG-13
#[test]
fn accepted_rates_stay_near_the_limit() {
    let workspace = Workspace::timed();
    for (limit, duration, tenths) in [(5, 1000, 9), (5, 1000, 10), (5, 5000, 100), (100, 1000, 9)] {
        let per_window = limit * tenths / 10;
        let subject = format!("{limit} {duration} {tenths}");
        let mut passed = 0;
        for window in 0..50 {
            for n in 0..per_window {
                let at = NOON + window * duration + (2 * n + 1) * duration / (2 * per_window);
                passed +=
                    i64::from(verdict(&limit_at(&workspace, ask("accuracy", &subject, limit, duration, 1), at)).0);
            }
        }
        let (allowed, offered) = (50 * limit, 50 * per_window);
        assert!(passed * 100 >= 95 * allowed.min(offered), "{subject}: {passed} of {offered} passed");
        assert!(passed * 100 <= 120 * allowed, "{subject}: {passed} passed, {allowed} allowed");
        assert!(offered >= allowed || passed == offered, "{subject}: below the limit {passed} of {offered} passed");
    }
}

/// Limits and durations: the limit is not part of the subject, the duration is; identifiers are compared byte for byte.
/// RL-ALG-08, RL-ALG-09, RL-ALG-11, RL-LIMIT-05, RL-LIMIT-08, RL-LIMIT-09
#[test]
fn the_subject_is_identifier_and_duration() {
    let workspace = Workspace::timed();
    let call = |identifier: &str, limit: i64, duration: i64, cost: i64| {
        verdict(&limit_at(&workspace, ask("subjects", identifier, limit, duration, cost), NOON))
    };
    assert_eq!(call("ada", 100, MINUTE, 5), (true, 95), "RL-LIMIT-06");
    assert_eq!(call("ada", 10, MINUTE, 1), (true, 4));
    assert_eq!(call("ada", 5, MINUTE, 0), (false, 0), "a lower limit acts on what was counted");
    assert_eq!(call("ada", 6, MINUTE, 0), (true, 0), "exactly at the limit");
    assert_eq!(call("ada", 10, HOUR, 1), (true, 9), "another duration starts from zero");
    for identifier in ["Ada", "ada ", " ada", "a\u{301}da", "áda", "ada\u{0}"] {
        assert_eq!(call(identifier, 10, MINUTE, 1), (true, 9), "{identifier:?}");
    }
    assert_eq!(call("huge", 10, MINUTE, i64::MAX), (false, 0));
    assert_eq!(call("huge", i64::MAX, MINUTE, 1), (true, i64::MAX - 1));
    call("huge", i64::MAX, MINUTE, i64::MAX);
    call("huge", i64::MAX, MINUTE, i64::MAX);
    assert_eq!(call("huge", 10, MINUTE, i64::MAX), (false, 0), "RL-ALG-11: nothing was poisoned");
    let repeated = ask("subjects", "bob", 3, MINUTE, 1);
    for left in [2, 1, 0] {
        assert_eq!(verdict(&limit_at(&workspace, repeated.clone(), NOON)), (true, left), "RL-LIMIT-05");
    }
}

/// The default cost is one; L 100 leaves 99; a second call on L 1 is denied with 200. RL-LIMIT-06, RL-SDK-02, COM-WRL-09
#[test]
fn the_plain_call() {
    let workspace = Workspace::new();
    let body = |limit: i64| json!({"namespace": "plain", "identifier": format!("id {limit}"), "limit": limit, "duration": 2_592_000_000_i64});
    let data = workspace.ok("ratelimit.limit", body(100));
    assert_eq!(verdict(&data), (true, 99));
    assert!(data["reset"].as_i64().unwrap() > now(), "RL-SDK-01, KEYS-VERIFY-7");
    assert_eq!(verdict(&workspace.ok("ratelimit.limit", body(1))), (true, 0));
    assert_eq!(verdict(&workspace.ok("ratelimit.limit", body(1))), (false, 0));
    let quiet = workspace.call("ratelimit.limit", body(100)).header("X-Unkey-Metrics", "disabled");
    assert_eq!(verdict(&quiet.expect_ok()), (true, 98), "RL-LIMIT-04: only the row is left out");
}

/// Any string of 1 to 512 characters names a namespace, exactly as written; they do not mix.
/// RL-NS-01, RL-NS-02, RL-NS-04, RL-LIMIT-06, RL-LIMIT-08
#[test]
fn any_string_names_a_namespace() {
    let workspace = Workspace::timed();
    let long = "n".repeat(255);
    let longest = "\u{1f600}".repeat(512);
    let names = [
        "simple",
        "with.dots-and_underscores",
        "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
        "ünïcödé 名前",
        "\u{1f680}\u{1f468}\u{200d}\u{1f469}",
        "with spaces",
        "with\ttabs",
        "\u{1}\u{7f}\u{0}",
        "a:b/c",
        "  lead",
        "trail  ",
        "x",
        "X",
        &long,
        &longest,
        "rlns_looks_like_an_id",
        "lead",
    ];
    for round in 0..2 {
        for name in names {
            let data = limit_at(&workspace, ask(name, "ada", 10, MINUTE, 1), NOON);
            assert_eq!(verdict(&data), (true, 9 - round), "{name:?}");
        }
    }
    let entries: Vec<Value> = names.iter().map(|name| ask(name, "ada", 10, MINUTE, 1)).collect();
    let data = workspace.call("ratelimit.multiLimit", json!(entries)).at(NOON).expect_ok();
    for (entry, name) in data["limits"].as_array().unwrap().iter().zip(names) {
        assert_eq!(
            (entry["namespace"].as_str(), entry["remaining"].as_i64()),
            (Some(name), Some(7)),
            "echoed as written"
        );
    }
}

/// A namespace is made only by who may make it and may use it; who may not leaves nothing behind.
/// RL-NS-04, RL-NS-06, RL-LIMIT-01, RL-LIMIT-02, RL-MULTI-01, RL-MULTI-02, RL-MULTI-03, RL-MULTI-14
#[test]
fn a_new_namespace_needs_both_permissions() {
    let workspace = Workspace::new();
    let server = &workspace.server;
    let denied = "unkey/authorization/insufficient_permissions";
    let uses = workspace.root_key(&["ratelimit.*.limit"]);
    let makes = workspace.root_key(&["ratelimit.*.create_namespace"]);
    let both = workspace.root_key(&["ratelimit.*.limit", "ratelimit.*.create_namespace"]);
    let named = workspace.root_key(&["ratelimit.*.create_namespace", "ratelimit.rlns_other.limit"]);
    workspace.ok("ratelimit.limit", ask("old", "i", 10, MINUTE, 1));
    let one = |name: &str, key: &str| server.call("ratelimit.limit", ask(name, "i", 10, MINUTE, 1)).bearer(key);
    let two = |name: &str, key: &str| {
        let body = json!([ask("old", "i", 10, MINUTE, 1), ask(name, "i", 10, MINUTE, 1)]);
        server.call("ratelimit.multiLimit", body).bearer(key)
    };
    for key in [&makes, &named] {
        one("new", &key.secret).expect_problem(403, denied);
        two("new", &key.secret).expect_problem(403, denied);
    }
    // Nothing was left behind: who may only use namespaces still hears that it would have to be made.
    for problem in
        [one("new", &uses.secret).expect_problem(403, denied), two("new", &uses.secret).expect_problem(403, denied)]
    {
        problem.mentioning("create_namespace");
    }
    one("old", &uses.secret).expect_ok();
    one("old", &makes.secret).expect_problem(403, denied).mentioning("limit");
    two("old", &makes.secret).expect_problem(403, denied).mentioning("Missing");
    assert!(verdicts(&two("new", &both.secret).expect_ok()).0);
    one("new", &uses.secret).expect_ok();
    let neighbour = workspace.neighbour();
    let foreign = neighbour.root_key(&["ratelimit.*.limit"]);
    one("new", &foreign.secret).expect_problem(403, denied).mentioning("create_namespace");
    two("new", &foreign.secret).expect_problem(403, denied).mentioning("create_namespace");
}

/// Batches are decided in order and together: the pinned and worked examples.
/// RL-MULTI-05, RL-MULTI-06, RL-MULTI-07, RL-MULTI-08, RL-MULTI-09, RL-MULTI-10, RL-MULTI-13, RL-MULTI-14, RL-TIME-04
#[test]
fn batches_take_all_or_nothing() {
    let workspace = Workspace::timed();
    let multi = |entries: Value| verdicts(&workspace.call("ratelimit.multiLimit", entries).at(NOON).expect_ok());
    let used = |identifier: &str, duration: i64| {
        1_000_000 - verdict(&limit_at(&workspace, ask("batch", identifier, 1_000_000, duration, 0), NOON)).1
    };

    let costs = json!([
        ask("batch", "a", 100, MINUTE, 1),
        ask("batch", "b", 50, MINUTE, 3),
        ask("batch", "c", 200, MINUTE, 10)
    ]);
    assert_eq!(multi(costs), (true, vec![(true, 99), (true, 47), (true, 190)]));

    multi(json!([ask("batch", "user", 100, DAY, 8), ask("batch", "user", 100, HOUR, 8)]));
    let day_and_hour = json!([ask("batch", "user", 10, DAY, 3), ask("batch", "user", 20, HOUR, 3)]);
    assert_eq!(multi(day_and_hour), (false, vec![(false, 0), (true, 12)]), "RL-MULTI-08");
    assert_eq!((used("user", DAY), used("user", HOUR)), (8, 8), "RL-MULTI-06");

    let twice = |cost: i64| json!([ask("batch", "same", 5, MINUTE, cost), ask("batch", "same", 5, MINUTE, cost)]);
    assert_eq!(multi(twice(3)), (false, vec![(true, 5), (false, 0)]), "RL-MULTI-09");
    assert_eq!(used("same", MINUTE), 0);
    assert_eq!(multi(twice(2)), (true, vec![(true, 3), (true, 1)]), "RL-MULTI-09");
    assert_eq!(used("same", MINUTE), 4);

    multi(json!([ask("middle", "x", 1, MINUTE, 1)]));
    let three =
        json!([ask("first", "x", 5, MINUTE, 1), ask("middle", "x", 1, MINUTE, 1), ask("last", "x", 7, MINUTE, 2)]);
    assert_eq!(multi(three), (false, vec![(true, 5), (false, 0), (true, 7)]), "RL-MULTI-10");

    for left in [2, 1, 0] {
        assert_eq!(multi(json!([ask("batch", "one", 3, MINUTE, 1)])), (true, vec![(true, left)]), "RL-MULTI-13");
    }
    assert_eq!(multi(json!([ask("batch", "one", 3, MINUTE, 1)])), (false, vec![(false, 0)]));
    assert_eq!(multi(json!([ask("batch", "one", 3, MINUTE, 0)])), (true, vec![(true, 0)]), "RL-ALG-08");
    let hundred: Vec<Value> = (0..100).map(|n| ask("hundred", &format!("{}", n % 10), 10, MINUTE, 1)).collect();
    let (passed, entries) = multi(json!(hundred));
    assert!(
        passed && entries.iter().enumerate().all(|(n, entry)| *entry == (true, 9 - i64::try_from(n / 10).unwrap()))
    );
    let reset =
        workspace.call("ratelimit.multiLimit", json!([ask("r", "r", 1, 1000, 1), ask("r", "r", 1, HOUR, 1)])).at(NOON);
    let reset = reset.expect_ok();
    assert_eq!(
        (&reset["limits"][0]["reset"], &reset["limits"][1]["reset"]),
        (&json!(NOON + 1000), &json!(NOON + HOUR))
    );
}

/// One bad entry refuses the batch and takes nothing. RL-MULTI-01, RL-MULTI-14, RL-EVT-02
#[test]
fn a_bad_entry_refuses_the_batch() {
    let workspace = Workspace::timed();
    let good = ask("bad batch", "a", 10, MINUTE, 1);
    for bad in
        [ask("bad batch", "b", 10, MINUTE, -1), json!({"identifier": "b", "limit": 1, "duration": 1000}), json!(null)]
    {
        let problem = workspace.call("ratelimit.multiLimit", json!([good, bad])).at(NOON).expect_invalid();
        assert!(problem.locations().iter().all(|location| location.starts_with("/items")), "{}", problem.body);
    }
    let problem = workspace.call("ratelimit.multiLimit", json!([])).expect_invalid();
    assert_eq!(problem.locations(), ["/minItems"]);
    assert_eq!(verdict(&limit_at(&workspace, good, NOON)), (true, 9));
}

/// Exactly what fits passes, however many ask at once; a batch that fails is never felt by others.
/// RL-CON-02, RL-CON-03, RL-MULTI-11, RL-LIMIT-06, RL-NS-05
#[test]
fn nothing_is_overadmitted_or_denied_for_nothing() {
    let workspace = Arc::new(Workspace::timed());
    let done = Arc::new(AtomicBool::new(false));
    let failing: Vec<_> = (0..2)
        .map(|_| {
            let (workspace, done) = (Arc::clone(&workspace), Arc::clone(&done));
            std::thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let batch = json!([
                        ask("crowd", "a", 200, MINUTE, 90),
                        ask("crowd", "b", 200, MINUTE, 90),
                        ask("crowd", "c", 1, MINUTE, 2)
                    ]);
                    let data = workspace.call("ratelimit.multiLimit", batch).at(NOON).expect_ok();
                    assert_eq!(data["passed"], false);
                }
            })
        })
        .collect();
    let taken = Arc::new([const { AtomicI64::new(0) }; 2]);
    let threads: Vec<_> = (0..6)
        .map(|n: usize| {
            let (workspace, taken) = (Arc::clone(&workspace), Arc::clone(&taken));
            std::thread::spawn(move || {
                for _ in 0..60 {
                    let (here, there) = if n.is_multiple_of(2) { ("a", "b") } else { ("b", "a") };
                    let single = ask("crowd", here, 200, MINUTE, 1);
                    if n < 2 && verdict(&limit_at(&workspace, single, NOON)).0 {
                        taken[n % 2].fetch_add(1, Ordering::Relaxed);
                    }
                    let batch = json!([ask("crowd", here, 200, MINUTE, 1), ask("crowd", there, 200, MINUTE, 1)]);
                    if verdicts(&workspace.call("ratelimit.multiLimit", batch).at(NOON).expect_ok()).0 {
                        for count in taken.iter() {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    done.store(true, Ordering::Relaxed);
    failing.into_iter().for_each(|thread| thread.join().unwrap());
    let counts: Vec<i64> = taken.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let left = |identifier: &str| verdict(&limit_at(&workspace, ask("crowd", identifier, 200, MINUTE, 0), NOON)).1;
    assert_eq!(counts, [200 - left("a"), 200 - left("b")], "counted is what was told");
    assert!(counts.contains(&200), "one of the two subjects is used up to its last token: {counts:?}");
}

/// A graceful restart keeps counters, of namespaces and of keys. RL-CON-04, RL-TIME-05, COM-RT-10
#[test]
fn a_graceful_restart_keeps_counters() {
    const MONTH: i64 = 2_592_000_000;
    let server = Arc::new(Server::start_with(crate::harness::program::DataDir::fresh(), Options::default()));
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    let key = workspace
        .key(&api, json!({"ratelimits": [{"name": "calls", "limit": 10, "duration": MONTH, "autoApply": true}]}));
    for _ in 0..3 {
        workspace.verify(&key, json!({}));
    }
    assert_eq!(verdict(&workspace.ok("ratelimit.limit", ask("kept", "ada", 10, MONTH, 4))), (true, 6));
    assert_eq!(server.stop(), Some(0));
    let workspace = workspace.moved(server.restart());
    assert_eq!(verdict(&workspace.ok("ratelimit.limit", ask("kept", "ada", 10, MONTH, 1))), (true, 5));
    assert_eq!(workspace.verify(&key, json!({}))["ratelimits"][0]["remaining"], 6);
    assert_eq!(verdict(&workspace.ok("ratelimit.limit", ask("kept", "bob", 10, MONTH, 1))), (true, 9));
}
