//! ratelimit.setOverride, getOverride, listOverrides, deleteOverride, and what they do to limits.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::program::DataDir;
use crate::harness::{DAY, HOUR, MINUTE, NOON, Options, Server, Workspace, members};

const NO_NAMESPACE: &str = "unkey/data/ratelimit_namespace_not_found";
const NO_OVERRIDE: &str = "unkey/data/ratelimit_override_not_found";

/// Makes a namespace: its id.
fn make(workspace: &Workspace, name: &str) -> String {
    workspace.ok("ratelimit.createNamespace", json!({"name": name}))["namespaceId"].as_str().unwrap().to_owned()
}

/// Sets an override: its id.
fn set(workspace: &Workspace, namespace: &str, identifier: &str, limit: i64, duration: i64) -> String {
    let body = json!({"namespace": namespace, "identifier": identifier, "limit": limit, "duration": duration});
    let data = workspace.ok("ratelimit.setOverride", body);
    assert_eq!(members(&data), ["overrideId"]);
    let id = data["overrideId"].as_str().unwrap();
    assert!(id.starts_with("rlor_"), "RL-OVR-01: {id}");
    id.to_owned()
}

fn one(namespace: &str, identifier: &str) -> Value {
    json!({"namespace": namespace, "identifier": identifier})
}

fn delete(workspace: &Workspace, namespace: &str, identifier: &str) {
    assert_eq!(workspace.ok("ratelimit.deleteOverride", one(namespace, identifier)), json!({}));
}

/// A request for 100 a minute, at noon: what was applied, what is left, and by which override.
fn limit(workspace: &Workspace, namespace: &str, identifier: &str, cost: i64) -> (bool, i64, i64, Option<String>) {
    let body = json!({
        "namespace": namespace, "identifier": identifier, "limit": 100, "duration": MINUTE, "cost": cost
    });
    let data = workspace.call("ratelimit.limit", body).at(NOON).expect_ok();
    let number = |name: &str| data[name].as_i64().unwrap();
    let over = data.get("overrideId").map(|id| id.as_str().unwrap().to_owned());
    (data["success"].as_bool().unwrap(), number("limit"), number("remaining"), over)
}

/// An override acts on the very next request, on its own identifier only, in place of the request's limit and duration; a
/// change of it keeps its id and what was counted; without it the request's own numbers count again.
/// RL-OVR-01, RL-OVR-02, RL-OVR-06, RL-OVR-07, RL-OVR-09, RL-SETOV-02, RL-SETOV-05, RL-DELOV-02, RL-DELOV-04, RL-LIMIT-06,
/// COM-CON-01, COM-CON-03
#[test]
fn an_override_acts_on_the_next_request() {
    let workspace = Workspace::timed();
    let id = make(&workspace, "logins");
    assert_eq!(limit(&workspace, "logins", "ada", 0), (true, 100, 100, None));
    let over = set(&workspace, "logins", "ada", 3, MINUTE);
    for left in [2, 1, 0] {
        assert_eq!(limit(&workspace, "logins", "ada", 1), (true, 3, left, Some(over.clone())));
    }
    assert_eq!(limit(&workspace, &id, "ada", 1), (false, 3, 0, Some(over.clone())), "on the denial too");
    assert_eq!(limit(&workspace, "logins", "Ada", 1), (true, 100, 99, None), "compared byte by byte");
    assert_eq!(limit(&workspace, "logins", "ada ", 1), (true, 100, 99, None));

    assert_eq!(set(&workspace, &id, "ada", 10, MINUTE), over, "RL-SETOV-02");
    assert_eq!(limit(&workspace, "logins", "ada", 1), (true, 10, 6, Some(over.clone())), "RL-OVR-07");
    assert_eq!(set(&workspace, &id, "ada", 10, HOUR), over);
    assert_eq!(limit(&workspace, "logins", "ada", 1), (true, 10, 9, Some(over.clone())), "RL-OVR-07: other counters");
    let got = workspace.ok("ratelimit.getOverride", one("logins", "ada"));
    assert_eq!(got, json!({"overrideId": over, "identifier": "ada", "limit": 10, "duration": HOUR}));

    delete(&workspace, "logins", "ada");
    assert_eq!(limit(&workspace, "logins", "ada", 1), (true, 100, 95, None), "RL-DELOV-02: the counts are untouched");
    for _ in 0..2 {
        workspace.call("ratelimit.deleteOverride", one(&id, "ada")).expect_problem(404, NO_OVERRIDE);
        workspace.call("ratelimit.getOverride", one(&id, "ada")).expect_problem(404, NO_OVERRIDE);
    }
}

/// An override that was deleted can be set again, and is live. RL-SETOV-03, RL-OVR-09
#[test]
fn a_deleted_override_can_be_set_again() {
    let workspace = Workspace::timed();
    make(&workspace, "again");
    for identifier in ["ada", "u*r"] {
        for limited in 1..4 {
            let over = set(&workspace, "again", identifier, limited, DAY);
            let applied = limit(&workspace, "again", &identifier.replace('*', "se"), 0);
            assert_eq!((applied.1, applied.3), (limited, Some(over.clone())), "RL-SETOV-03");
            let (rows, _) = workspace.call("ratelimit.listOverrides", json!({"namespace": "again"})).expect_page();
            assert_eq!((rows.len(), &rows[0]["overrideId"]), (1, &json!(over)));
            delete(&workspace, "again", identifier);
            assert_eq!(limit(&workspace, "again", &identifier.replace('*', "se"), 0).1, 100);
        }
    }
}

/// Patterns act where no override of the identifier's own does; of several the most literal; getOverride says which.
/// RL-OVR-02, RL-OVR-03, RL-OVR-04, RL-OVR-05, RL-GETOV-01, RL-SETOV-05, RL-DELOV-01, RL-LIMIT-06
#[test]
fn the_most_literal_pattern_acts() {
    let workspace = Workspace::timed();
    make(&workspace, "patterns");
    let patterns = [
        "*",
        "user_*",
        "user_*_admin",
        "*_admin",
        "*@domain.com",
        "a*b*c",
        "über*",
        "user_1",
        "user_**",
        "*\u{1f511}*",
    ];
    for (number, pattern) in (1..).zip(patterns) {
        set(&workspace, "patterns", pattern, number, MINUTE);
    }
    let applies = |identifier: &str, wanted: Option<&str>| {
        let (_, limited, _, over) = limit(&workspace, "patterns", identifier, 0);
        let call = workspace.call("ratelimit.getOverride", one("patterns", identifier));
        match wanted {
            Some(wanted) => {
                let number =
                    1 + i64::try_from(patterns.iter().position(|pattern| *pattern == wanted).unwrap()).unwrap();
                assert_eq!(limited, number, "{identifier:?} should fall under {wanted}");
                let got = call.expect_ok();
                assert_eq!(members(&got), ["duration", "identifier", "limit", "overrideId"]);
                assert_eq!((&got["identifier"], got["limit"].as_i64()), (&json!(wanted), Some(number)), "RL-GETOV-01");
                assert_eq!(got["overrideId"].as_str(), over.as_deref());
            }
            None => {
                assert_eq!((limited, over), (100, None), "{identifier:?}");
                call.expect_problem(404, NO_OVERRIDE);
            }
        }
    };
    for (identifier, wanted) in [
        ("user_1", "user_1"),
        ("user_2", "user_*"),
        ("user_", "user_*"),
        ("user_7_admin", "user_*_admin"),
        ("the_admin", "*_admin"),
        ("User_1", "*"),
        ("me@domain.com", "*@domain.com"),
        ("me@domain.com.evil", "*"),
        ("a\nb\nc", "a*b*c"),
        ("acb", "*"),
        ("überall", "über*"),
        ("a \u{1f511} b", "*\u{1f511}*"),
        ("user_**", "user_**"),
        ("user_*", "user_*"),
        ("*", "*"),
        ("[a-z]?.\\", "*"),
    ] {
        applies(identifier, Some(wanted));
    }
    delete(&workspace, "patterns", "user_1");
    applies("user_1", Some("user_*"));
    workspace.call("ratelimit.deleteOverride", one("patterns", "user_2")).expect_problem(404, NO_OVERRIDE);
    delete(&workspace, "patterns", "user_*");
    applies("user_1", Some("user_**"));
    delete(&workspace, "patterns", "user_**");
    applies("user_1", Some("*"));
    delete(&workspace, "patterns", "*");
    applies("user_1", None);
    applies("*", None);
}

/// A limit of 0 refuses what costs anything, with 200; durations have no upper bound. RL-OVR-08, RL-SETOV-06, RL-ALG-08
#[test]
fn limits_of_zero_and_endless_durations() {
    let workspace = Workspace::timed();
    make(&workspace, "odd");
    let over = Some(set(&workspace, "odd", "nobody", 0, MINUTE));
    assert_eq!(limit(&workspace, "odd", "nobody", 1), (false, 0, 0, over.clone()));
    assert_eq!(limit(&workspace, "odd", "nobody", 0), (true, 0, 0, over.clone()), "nothing is counted yet");
    assert_eq!(set(&workspace, "odd", "nobody", 5, MINUTE), over.clone().unwrap());
    assert_eq!(limit(&workspace, "odd", "nobody", 2), (true, 5, 3, over.clone()));
    set(&workspace, "odd", "nobody", 0, MINUTE);
    assert_eq!(limit(&workspace, "odd", "nobody", 0), (false, 0, 0, over));

    for duration in [2_592_000_001, 400 * DAY, 9_000_000_000_000_000, i64::MAX] {
        let over = Some(set(&workspace, "odd", "long", 5, duration));
        for left in [4, 3] {
            assert_eq!(limit(&workspace, "odd", "long", 1), (true, 5, left, over.clone()), "{duration}");
        }
        let body = json!({"namespace": "odd", "identifier": "long", "limit": 1, "duration": 1000, "cost": 0});
        let reset = workspace.call("ratelimit.limit", body).at(NOON).expect_ok()["reset"].as_i64().unwrap();
        assert!(reset > NOON && reset - NOON <= duration, "RL-ALG-06: {duration}: {reset}");
    }
    let over = Some(set(&workspace, "odd", "much", i64::MAX, MINUTE));
    assert_eq!(limit(&workspace, "odd", "much", 1), (true, i64::MAX, i64::MAX - 1, over));
}

/// In a batch each entry has its own override, exact or by pattern, or none. RL-MULTI-14, RL-MULTI-07, RL-OVR-06, RL-OVR-10
#[test]
fn batches_apply_an_override_to_each_entry() {
    let workspace = Workspace::timed();
    make(&workspace, "first");
    make(&workspace, "second");
    let own = set(&workspace, "first", "ada", 3, MINUTE);
    let pattern = set(&workspace, "second", "user_*", 50, HOUR);
    let entry = |namespace: &str, identifier: &str| json!({"namespace": namespace, "identifier": identifier, "limit": 100, "duration": MINUTE});
    let batch =
        json!([entry("first", "ada"), entry("second", "user_1"), entry("second", "ada"), entry("first", "bob")]);
    let multi = || {
        let data = workspace.call("ratelimit.multiLimit", batch.clone()).at(NOON).expect_ok();
        let each = |entry: &Value| {
            let over = entry.get("overrideId").map(|id| id.as_str().unwrap().to_owned());
            (entry["limit"].as_i64().unwrap(), entry["remaining"].as_i64().unwrap(), over)
        };
        let entries: Vec<_> = data["limits"].as_array().unwrap().iter().map(each).collect();
        (data["passed"].as_bool().unwrap(), entries)
    };
    let wanted = |left: [i64; 4]| {
        vec![
            (3, left[0], Some(own.clone())),
            (50, left[1], Some(pattern.clone())),
            (100, left[2], None),
            (100, left[3], None),
        ]
    };
    for used in 1..4 {
        assert_eq!(multi(), (true, wanted([3 - used, 50 - used, 100 - used, 100 - used])));
    }
    assert_eq!(multi(), (false, wanted([0, 47, 97, 97])), "one is exhausted, so nothing is taken");
    set(&workspace, "first", "ada", 4, MINUTE);
    assert!(multi().0, "RL-OVR-09");

    // The same names on a key are another thing.
    let api = workspace.api();
    let limits = json!([{"name": "first", "limit": 10, "duration": MINUTE, "autoApply": true}]);
    let key = workspace.key(&api, json!({"externalId": "ada", "ratelimits": limits}));
    let verified = workspace.verify_at(&key, json!({}), NOON);
    assert_eq!(verified["ratelimits"][0]["remaining"], 9, "RL-OVR-10");
}

/// Namespaces are found by id and by name; unknown, foreign and deleted ones are one 404, before any permission is asked.
/// RL-SETOV-01, RL-SETOV-05, RL-GETOV-02, RL-GETOV-06, RL-LISTOV-02, RL-LISTOV-04, RL-LISTOV-05, RL-DELOV-01, RL-DELOV-04,
/// RL-NS-01, RL-NS-03, RL-NS-06, COM-RK-09, PM-TAB-01
#[test]
fn absent_foreign_and_deleted_namespaces_are_one_404() {
    let workspace = Workspace::new();
    let id = make(&workspace, "mine");
    set(&workspace, "mine", "ada", 1, MINUTE);
    set(&workspace, &id, "u*", 1, MINUTE);
    let gone = make(&workspace, "gone");
    set(&workspace, "gone", "ada", 1, MINUTE);
    workspace.ok("ratelimit.deleteNamespace", json!({"namespace": "gone"}));
    let stranger = workspace.neighbour();
    make(&stranger, "theirs");
    let bodies = |namespace: &str| {
        [
            (
                "ratelimit.setOverride",
                json!({"namespace": namespace, "identifier": "ada", "limit": 1, "duration": MINUTE}),
            ),
            ("ratelimit.getOverride", one(namespace, "ada")),
            ("ratelimit.listOverrides", json!({"namespace": namespace})),
            ("ratelimit.deleteOverride", one(namespace, "ada")),
        ]
    };
    let weak = workspace.root_key(&["ratelimit.rlns_other.read_override"]);
    let mut told: Vec<Value> = Vec::new();
    for (root, namespaces) in [
        (&workspace.root, [&*gone, "gone", "theirs", "nowhere", "Mine", " mine", "rlns_nowhere1234567"]),
        (&weak.secret, [&*gone, "gone", "theirs", "nowhere", "Mine", " mine", "rlns_nowhere1234567"]),
        (&stranger.root, [&*gone, "gone", "mine", &*id, "nowhere", "Mine", " mine"]),
    ] {
        for (operation, body) in namespaces.into_iter().flat_map(bodies) {
            let problem = workspace.server.call(operation, body).bearer(root).expect_problem(404, NO_NAMESPACE);
            told.push(problem.body);
        }
    }
    assert!(told.iter().all(|body| *body == told[0]), "one answer for all");
    for (operation, body) in bodies("mine").into_iter().filter(|(name, _)| !name.contains("getOverride")) {
        let denied = workspace.server.call(operation, body).bearer(&weak.secret);
        let denied = denied.expect_problem(403, "unkey/authorization/insufficient_permissions");
        assert!(!denied.detail.contains(&id), "PM-EVAL-04: the caller did not name the id: {}", denied.detail);
    }
    let named = workspace.root_key(&["ratelimit.mine.set_override"]);
    let call = workspace.server.call("ratelimit.setOverride", bodies("mine")[0].1.clone()).bearer(&named.secret);
    call.expect_problem(403, "unkey/authorization/insufficient_permissions").mentioning("set_override");
    assert_eq!(workspace.all("ratelimit.listOverrides", json!({"namespace": "mine"}), 100).len(), 2);
    for (operation, body) in bodies("mine") {
        workspace.ok(operation, body);
    }
    for (operation, body) in [bodies(&id)[0].clone(), bodies(&id)[3].clone()] {
        workspace.ok(operation, body);
    }
}

/// What a caller may not read looks exactly like what is not there; one that may read no override anywhere learns nothing
/// of namespaces either. RL-GETOV-02, RL-GETOV-03, RL-GETOV-04, PM-URN-08, PM-EVAL-05
#[test]
fn overrides_one_may_not_read_are_not_there() {
    let workspace = Workspace::new();
    let id = make(&workspace, "secret");
    let other = make(&workspace, "other");
    let over = set(&workspace, "secret", "ada", 1, MINUTE);
    let get = |namespace: &str, identifier: &str, root: &str| {
        workspace.server.call("ratelimit.getOverride", one(namespace, identifier)).bearer(root)
    };
    let absent = get("secret", "bob", &workspace.root).expect_problem(404, NO_OVERRIDE).body;
    let ws = &workspace.id;
    for grants in [
        vec![format!("ratelimit.{other}.read_override")],
        vec!["ratelimit.secret.read_override".to_owned()],
        vec![format!("unkey:v1:{ws}:ratelimits/namespaces/{other}/**#read_override")],
        vec![format!("unkey:v1:{ws}:ratelimits/namespaces/{id}#read_override")],
        vec![format!("unkey:v1:{ws}:ratelimits/namespaces/{id}/overrides/rlor_other#read_override")],
    ] {
        let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
        let root = workspace.root_key(&grants).secret;
        for identifier in ["ada", "bob"] {
            assert_eq!(get("secret", identifier, &root).expect_problem(404, NO_OVERRIDE).body, absent, "{grants:?}");
        }
        get("nowhere", "ada", &root).expect_problem(404, NO_NAMESPACE);
    }
    for grants in [
        vec![],
        vec!["ratelimit.*.set_override".to_owned(), "ratelimit.*.limit".to_owned()],
        vec![format!("unkey:v1:{ws}:ratelimits/**#delete_override")],
        vec![format!("unkey:v1:{}:ratelimits/**#read_override", workspace.neighbour().id)],
        vec![format!("unkey:v1:{ws}:keyspaces/**#read_override")],
    ] {
        let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
        let root = workspace.root_key(&grants).secret;
        for namespace in ["secret", "nowhere", &id] {
            assert_eq!(get(namespace, "ada", &root).expect_problem(404, NO_OVERRIDE).body, absent, "RL-GETOV-04");
        }
    }
    let exact = format!("unkey:v1:{ws}:ratelimits/namespaces/{id}/overrides/{over}#read_override");
    let exact = workspace.root_key(&[&exact]).secret;
    get("secret", "ada", &exact).expect_ok();
    let list = workspace.server.call("ratelimit.listOverrides", json!({"namespace": "secret"})).bearer(&exact);
    list.expect_problem(403, "unkey/authorization/insufficient_permissions");
}

/// Overrides are listed by id, exact ones and patterns alike, fifty a page unless asked otherwise.
/// RL-LISTOV-01, RL-LISTOV-03, RL-LISTOV-05, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-05, COM-PAG-07
#[test]
fn overrides_are_listed_page_by_page() {
    let workspace = Workspace::new();
    let id = make(&workspace, "listed");
    make(&workspace, "empty");
    set(&workspace, "empty", "ada", 1, MINUTE);
    delete(&workspace, "empty", "ada");
    let list = |body: Value| workspace.call("ratelimit.listOverrides", body).expect_page();
    assert_eq!(list(json!({"namespace": "empty"})), (vec![], None));
    let mut made: Vec<Value> = (1..=53)
        .map(|number| {
            let identifier = if number % 7 == 0 { format!("*{number}") } else { format!("user {number}") };
            let over = set(&workspace, "listed", &identifier, number, MINUTE + number);
            json!({"overrideId": over, "identifier": identifier, "limit": number, "duration": MINUTE + number})
        })
        .collect();
    made.sort_by_key(|row| row["overrideId"].as_str().unwrap().to_owned());
    for limit in [1, 26, 53, 100] {
        assert_eq!(workspace.all("ratelimit.listOverrides", json!({"namespace": id}), limit), made, "{limit} a page");
    }
    let (first, cursor) = list(json!({"namespace": "listed"}));
    assert_eq!((&first[..], cursor.as_deref()), (&made[..50], made[50]["overrideId"].as_str()), "RL-LISTOV-01");
    assert_eq!(list(json!({"namespace": "listed", "cursor": cursor.unwrap()})), (made[50..].to_vec(), None));
    assert_eq!(list(json!({"namespace": "listed", "cursor": "zzz"})), (vec![], None));
    assert_eq!(list(json!({"namespace": "listed", "cursor": "", "limit": 100})).0, made);
}

/// Of one identifier set by many at once there is one override, with one id and one of the values. RL-SETOV-07, COM-CON-04
#[test]
fn concurrent_sets_make_one_override() {
    let workspace = Arc::new(Workspace::new());
    make(&workspace, "crowd");
    for identifier in ["ada", "u*"] {
        let threads: Vec<_> = (1..9)
            .map(|number| {
                let workspace = Arc::clone(&workspace);
                std::thread::spawn(move || {
                    (0..5).map(|_| set(&workspace, "crowd", identifier, number, MINUTE)).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut ids: Vec<String> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1, "RL-SETOV-07");
        let got = workspace.ok("ratelimit.getOverride", one("crowd", identifier));
        assert!(got["overrideId"] == ids[0] && (1..9).contains(&got["limit"].as_i64().unwrap()), "{got}");
    }
    assert_eq!(workspace.all("ratelimit.listOverrides", json!({"namespace": "crowd"}), 1).len(), 2);
}

/// A namespace takes a thousand patterns, which bounds what a decision has to try; other overrides have no bound, and a
/// pattern that is there can still be changed. RL-CON-05
#[test]
fn patterns_of_a_namespace_are_bounded() {
    let workspace = Arc::new(Workspace::timed());
    make(&workspace, "many");
    let threads: Vec<_> = (0..8)
        .map(|part| {
            let workspace = Arc::clone(&workspace);
            std::thread::spawn(move || {
                (part * 125..(part + 1) * 125)
                    .for_each(|n| drop(set(&workspace, "many", &format!("u{n:03}*"), n, MINUTE)));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let body = json!({"namespace": "many", "identifier": "one*more", "limit": 1, "duration": MINUTE});
    let full = workspace.call("ratelimit.setOverride", body.clone());
    full.expect_problem(412, "unkey/application/precondition_failed").mentioning("1000");
    set(&workspace, "many", "u007*", 7007, MINUTE);
    set(&workspace, "many", "exactly this one", 8008, MINUTE);
    assert_eq!(limit(&workspace, "many", "u007 and more", 0).1, 7007);
    assert_eq!(limit(&workspace, "many", "u999", 0).1, 999);
    assert_eq!(limit(&workspace, "many", "exactly this one", 0).1, 8008);
    delete(&workspace, "many", "u000*");
    workspace.ok("ratelimit.setOverride", body);
    assert_eq!(limit(&workspace, "many", "one thing more", 0).1, 1);
}

/// A restart, also one nobody announced, keeps overrides, their ids, and what was deleted. RL-CON-04, RL-NS-03, COM-CON-01
#[test]
fn a_restart_keeps_overrides() {
    let server = Arc::new(Server::start_with(DataDir::fresh(), Options::timed()));
    let workspace = Workspace::on(&server);
    make(&workspace, "kept");
    let own = set(&workspace, "kept", "ada", 3, MINUTE);
    let pattern = set(&workspace, "kept", "user_*", 5, MINUTE);
    set(&workspace, "kept", "gone", 1, MINUTE);
    set(&workspace, "kept", "gone*", 1, MINUTE);
    delete(&workspace, "kept", "gone");
    delete(&workspace, "kept", "gone*");
    make(&workspace, "deleted");
    set(&workspace, "deleted", "ada", 1, MINUTE);
    workspace.ok("ratelimit.deleteNamespace", json!({"namespace": "deleted"}));
    let check = |workspace: &Workspace| {
        let applied = |identifier: &str| {
            let (_, limit, _, over) = limit(workspace, "kept", identifier, 0);
            (limit, over)
        };
        assert_eq!(applied("ada"), (3, Some(own.clone())));
        assert_eq!(applied("user_9"), (5, Some(pattern.clone())));
        assert_eq!(applied("gone"), (100, None));
        assert_eq!(workspace.all("ratelimit.listOverrides", json!({"namespace": "kept"}), 1).len(), 2);
        let body = json!({"namespace": "deleted", "identifier": "ada", "limit": 1, "duration": 1000});
        workspace.call("ratelimit.limit", body).expect_problem(410, "unkey/data/ratelimit_namespace_gone");
    };
    check(&workspace);
    server.kill();
    let server = Arc::new(server.restart());
    let moved = Workspace { server: Arc::clone(&server), id: workspace.id.clone(), root: workspace.root.clone() };
    check(&moved);
    assert_eq!(server.stop(), Some(0));
    check(&moved.moved(server.restart()));
}
