//! apis.listKeys: every key once, as getKey shows it, while everything else goes on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{DAY, HOUR, Key, MINUTE, NOON, Workspace, members, utc};

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["keyId"].as_str().unwrap().to_owned()).collect()
}

fn listed(workspace: &Workspace, api: &str) -> Vec<Value> {
    workspace.call("apis.listKeys", json!({"apiId": api})).expect_page().0
}

/// Each key of every kind is listed exactly as getKey shows it, by id; deleted ones and another API's are not; no hash, no
/// plaintext. APIS-LIST-5, APIS-LIST-9, APIS-LIST-13, APIS-LIST-14, KEYS-OBJ-1, KEYS-OBJ-2, KEYS-OBJ-3, KEYS-GEN-21,
/// KEYS-GEN-23, KEYS-GEN-24, COM-ENV-05
#[test]
fn keys_are_listed_as_they_are_shown() {
    let workspace = Workspace::timed();
    let (api, other) = (workspace.api(), workspace.api());
    assert_eq!(listed(&workspace, &api), Vec::<Value>::new(), "APIS-LIST-9: [] for none");
    workspace.key(&other, json!({}));
    let limit = |name: &str| json!({"name": name, "limit": 5, "duration": 60_000, "autoApply": true});
    let refill = json!({"remaining": 7, "refill": {"interval": "monthly", "amount": 9, "refillDay": 31}});
    let keys: Vec<Key> = [
        json!({}),
        json!({"enabled": false, "name": "disabled", "meta": {}}),
        json!({"expires": 1}),
        json!({"expires": 0}),
        json!({"externalId": "user_1", "meta": {"n": 9_007_199_254_740_993_i64}, "permissions": ["b", "a", "A"]}),
        json!({"credits": refill, "ratelimits": [limit("zeta"), limit("alpha")], "prefix": "my_app"}),
        json!({"credits": {"remaining": 0}, "externalId": "user_2"}),
    ]
    .into_iter()
    .map(|members| workspace.key_at(&api, members, NOON))
    .collect();
    let migration = json!({"name": "from elsewhere", "algorithm": "sha256"});
    let migration = workspace.ok("migrations.createMigration", migration)["migrationId"].clone();
    let pending = json!({"hash": "never seen", "roles": ["ops", "Dev"], "permissions": ["z"]});
    workspace.ok("keys.migrateKeys", json!({"apiId": api, "migrationId": migration, "keys": [pending]}));
    let (soft, hard) = (workspace.key(&api, json!({})), workspace.key(&api, json!({})));
    workspace.ok("keys.deleteKey", json!({"keyId": soft.id}));
    workspace.ok("keys.deleteKey", json!({"keyId": hard.id, "permanent": true}));
    workspace.verify_at(&keys[5], json!({"credits": {"cost": 2}}), NOON + MINUTE);

    let call = workspace.call("apis.listKeys", json!({"apiId": api, "revalidateKeysCache": true, "decrypt": false}));
    let (rows, cursor) = call.at(NOON + HOUR).expect_page();
    assert_eq!((rows.len(), cursor), (8, None));
    assert!(rows.is_sorted_by_key(|row| row["keyId"].as_str().unwrap().to_owned()), "APIS-LIST-5");
    for row in &rows {
        let key = Key { id: row["keyId"].as_str().unwrap().to_owned(), secret: String::new() };
        assert_eq!(*row, workspace.get_at(&key, NOON + HOUR), "APIS-LIST-9");
        assert!(row.get("plaintext").is_none() && row.get("hash").is_none(), "APIS-LIST-9");
    }
    let row = |key: &Key| rows.iter().find(|row| row["keyId"] == key.id.as_str()).unwrap();
    assert_eq!(members(row(&keys[0])), ["createdAt", "enabled", "keyId", "start"]);
    assert_eq!(row(&keys[4])["permissions"], json!(["a", "b"]), "KEYS-GEN-23");
    assert_eq!(row(&keys[5])["credits"]["remaining"], 5);
    assert_eq!(row(&keys[5])["lastUsedAt"], NOON + MINUTE);
    assert!(row(&keys[0]).get("lastUsedAt").is_none(), "APIS-LIST-13: reading is no use");
    let seen = rows.iter().find(|row| row["start"] == "").unwrap();
    assert_eq!((&seen["roles"], &seen["permissions"]), (&json!(["Dev", "ops"]), &json!(["z"])));
    workspace.ok("apis.deleteApi", json!({"apiId": api}));
    workspace.call("apis.listKeys", json!({"apiId": api})).expect_problem(404, "unkey/data/api_not_found");
}

/// Whoever walks 250 keys page by page sees each that was there throughout exactly once, whatever is made and deleted
/// meanwhile, and never one twice; cursors fit every limit and are any text.
/// APIS-LIST-5, APIS-LIST-7, APIS-LIST-8, APIS-LIST-12, APIS-LIST-14, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-05, COM-PAG-06
#[test]
fn a_walk_sees_every_key_once() {
    let workspace = Arc::new(Workspace::new());
    let api = workspace.api();
    let migration = json!({"name": "many", "algorithm": "sha256"});
    let migration = workspace.ok("migrations.createMigration", migration)["migrationId"].clone();
    let items: Vec<Value> =
        (0..250).map(|n| json!({"hash": format!("hash {n}"), "name": "0", "meta": {"n": "0"}})).collect();
    let made = workspace.ok("keys.migrateKeys", json!({"apiId": api, "migrationId": migration, "keys": items}));
    let mut there: Vec<String> = ids(made["migrated"].as_array().unwrap());
    there.sort();

    let (first, cursor) = workspace.call("apis.listKeys", json!({"apiId": api})).expect_page();
    assert_eq!((first.len(), cursor.as_ref()), (100, Some(&there[100])), "the default page; COM-PAG-02");
    let from = |cursor: &str| {
        workspace.call("apis.listKeys", json!({"apiId": api, "cursor": cursor, "limit": 7})).expect_page().0
    };
    assert_eq!(ids(&from(&there[200])), there[200..207], "APIS-LIST-8: with another limit");
    assert_eq!(ids(&from("")), there[..7]);
    assert_eq!(ids(&from("key_")), there[..7]);
    for beyond in ["key_~", "zzz", "nonsense \u{1f511}"] {
        assert_eq!(from(beyond), Vec::<Value>::new(), "APIS-LIST-8: {beyond}");
    }
    let exact =
        workspace.call("apis.listKeys", json!({"apiId": api, "cursor": there[150], "limit": 100})).expect_page();
    assert_eq!((exact.0.len(), exact.1), (100, None), "COM-PAG-05");

    let stop = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = (0..2)
        .map(|number| {
            let (workspace, api, stop) = (Arc::clone(&workspace), api.clone(), Arc::clone(&stop));
            let named = Key { id: there[number * 100].clone(), secret: String::new() };
            std::thread::spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    let key = workspace.key(&api, json!({}));
                    round += 1;
                    workspace.update(&named, json!({"name": round.to_string(), "meta": {"n": round.to_string()}}));
                    workspace.ok("keys.deleteKey", json!({"keyId": key.id, "permanent": round % 2 == 0}));
                }
            })
        })
        .collect();
    for limit in [100, 33, 9] {
        let rows = workspace.all("apis.listKeys", json!({"apiId": api}), limit);
        let seen = ids(&rows);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "APIS-LIST-7: one twice");
        let kept: Vec<&String> = seen.iter().filter(|id| there.binary_search(id).is_ok()).collect();
        assert_eq!(kept, there.iter().collect::<Vec<_>>(), "APIS-LIST-7: one is missing");
        for row in rows.iter().filter(|row| row.get("name").is_some()) {
            assert_eq!(row["name"], row["meta"]["n"], "APIS-LIST-12: half an update");
        }
    }
    stop.store(true, Ordering::Relaxed);
    busy.into_iter().for_each(|thread| thread.join().unwrap());
    // The key the cursor names may go.
    workspace.ok("keys.deleteKey", json!({"keyId": there[100]}));
    assert_eq!(ids(&from(&there[100])), there[101..108]);
}

/// A filter shows one identity's keys in this API, spelled exactly, as they are linked now. APIS-LIST-6, APIS-LIST-14
#[test]
fn keys_of_one_identity_are_found_by_its_external_id() {
    let workspace = Workspace::new();
    let (api, other) = (workspace.api(), workspace.api());
    let of = |external_id: &str, api: &str| workspace.key(api, json!({"externalId": external_id}));
    let mut mine: Vec<String> = (0..7).map(|_| of("ada", &api).id).collect();
    mine.sort();
    let elsewhere = of("ada", &other);
    let (upper, plain) = (of("Ada", &api), workspace.key(&api, json!({})));
    let find = |external_id: &str, limit: u64| {
        ids(&workspace.all("apis.listKeys", json!({"apiId": api, "externalId": external_id}), limit))
    };
    for limit in [1, 3, 7, 100] {
        assert_eq!(find("ada", limit), mine, "{limit} a page");
    }
    assert_eq!(find("Ada", 100), [upper.id.as_str()], "APIS-LIST-6: case-sensitive");
    for nobody in ["ad", "adaa", "ADA", " ada", "\u{0}", &"x".repeat(1000)] {
        let call = workspace.call("apis.listKeys", json!({"apiId": api, "externalId": nobody}));
        assert_eq!(call.expect_page(), (vec![], None), "APIS-LIST-6: {nobody:?}");
    }
    assert_eq!(workspace.all("apis.listKeys", json!({"apiId": api}), 100).len(), 9, "without it all keys");

    let key = |id: &str| Key { id: id.to_owned(), secret: String::new() };
    workspace.update(&plain, json!({"externalId": "ada"}));
    workspace.update(&key(&mine[0]), json!({"externalId": null}));
    workspace.update(&key(&mine[1]), json!({"externalId": "Ada"}));
    workspace.update(&key(&mine[2]), json!({"name": "still hers"}));
    workspace.ok("keys.deleteKey", json!({"keyId": mine[3]}));
    workspace.ok("keys.deleteKey", json!({"keyId": mine[4], "permanent": true}));
    let rerolled = workspace.ok("keys.rerollKey", json!({"keyId": mine[5], "expiration": 0}))["keyId"].clone();
    let mut now = vec![
        plain.id.clone(),
        mine[2].clone(),
        mine[5].clone(),
        mine[6].clone(),
        rerolled.as_str().unwrap().to_owned(),
    ];
    now.sort();
    assert_eq!(find("ada", 2), now);
    assert_eq!(find("Ada", 100).len(), 2);
    let there = workspace.all("apis.listKeys", json!({"apiId": other, "externalId": "ada"}), 100);
    assert_eq!(ids(&there), [elsewhere.id.as_str()]);
}

/// Who may not list sees the very answer of an API that does not exist: both halves are needed, as tuples or as resource
/// names, not one of each; and all of it comes before `decrypt`.
/// APIS-LIST-1, APIS-LIST-2, APIS-LIST-3, APIS-LIST-4, APIS-LIST-14, PM-URN-04, PM-EVAL-05, KEYS-GEN-29, IDS-4
#[test]
fn who_may_not_list_sees_no_api() {
    let workspace = Workspace::new();
    let (api, other) = (workspace.api(), workspace.api());
    let key = workspace.key(&api, json!({}));
    let keyspace = |api: &str| {
        let rows = workspace.all("apis.listApis", json!({}), 100);
        rows.into_iter().find(|row| row["id"] == api).unwrap()["keyspaceId"].as_str().unwrap().to_owned()
    };
    let (own, others) = (keyspace(&api), keyspace(&other));
    let urn = |path: &str| format!("unkey:v1:{}:{path}", workspace.id);
    let absent = workspace
        .call("apis.listKeys", json!({"apiId": "api_nowhere1"}))
        .expect_problem(404, "unkey/data/api_not_found");
    let absent = absent.saying("The requested API does not exist or has been deleted.").body;
    let read_key = format!("api.{api}.read_key");
    let read_api = format!("api.{api}.read_api");
    let urn_keys = urn(&format!("keyspaces/{own}/keys/*#read_key"));
    let urn_space = urn(&format!("keyspaces/{own}#read_keyspace"));
    for held in [
        vec![],
        vec!["api.*.read_key".to_owned()],
        vec!["api.*.read_api".to_owned()],
        vec![read_key.clone(), format!("api.{other}.read_api")],
        vec![format!("api.{other}.read_key"), format!("api.{other}.read_api")],
        vec![read_key.clone(), urn_space.clone()],
        vec![urn_keys.clone(), read_api.clone()],
        vec![urn(&format!("keyspaces/{own}/keys/{}#read_key", key.id)), urn_space.clone()],
        vec![urn(&format!("keyspaces/{others}/keys/*#read_key")), urn(&format!("keyspaces/{others}#read_keyspace"))],
    ] {
        let held: Vec<&str> = held.iter().map(String::as_str).collect();
        let weak = workspace.root_key(&held);
        for decrypt in [false, true] {
            let call =
                workspace.server.call("apis.listKeys", json!({"apiId": api, "decrypt": decrypt})).bearer(&weak.secret);
            let hidden = call.expect_problem(404, "unkey/data/api_not_found");
            assert_eq!(hidden.body, absent, "APIS-LIST-4: {held:?}");
        }
    }
    for held in [[read_key, read_api], [urn_keys, urn_space]] {
        let root = workspace.root_key(&[&held[0], &held[1]]);
        let call = |body: Value| workspace.server.call("apis.listKeys", body).bearer(&root.secret);
        assert_eq!(ids(&call(json!({"apiId": api})).expect_page().0), [key.id.as_str()], "{held:?}");
        let problem =
            call(json!({"apiId": api, "decrypt": true})).expect_problem(412, "unkey/application/precondition_failed");
        problem.mentioning("Vault hasn't been set up.");
        assert_eq!(call(json!({"apiId": other})).expect_problem(404, "unkey/data/api_not_found").body, absent);
    }
    for odd in ["x", "no such api", "\u{1f511}\u{0}", &"x".repeat(10_000)] {
        let problem =
            workspace.call("apis.listKeys", json!({"apiId": odd})).expect_problem(404, "unkey/data/api_not_found");
        assert_eq!(problem.body, absent, "APIS-LIST-1: {odd:.20}");
    }
    let several = json!({"apiId": "", "limit": 0, "externalId": ""});
    let problem = workspace.call("apis.listKeys", several).expect_invalid();
    assert_eq!(problem.errors.len(), 3, "APIS-LIST-1: {}", problem.body);
}

/// What is left of credits is exact to the last verification, and a refill that is due shows, whether or not anybody has used
/// the key since. APIS-LIST-9, APIS-LIST-12, KEYS-REFILL-2, KEYS-REFILL-5, KEYS-VERIFY-9
#[test]
fn credits_in_a_list_are_exact() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key_at(&api, json!({"credits": {"remaining": 500}}), NOON);
    for round in 1..=40 {
        let left = workspace.verify_at(&key, json!({"credits": {"cost": 3}}), NOON)["credits"].clone();
        assert_eq!(listed(&workspace, &api)[0]["credits"]["remaining"], left, "after {round} verifications");
        if round % 10 == 0 {
            workspace.ok("keys.updateCredits", json!({"keyId": key.id, "operation": "increment", "value": 7}));
            assert_eq!(listed(&workspace, &api)[0]["credits"]["remaining"], left.as_i64().unwrap() + 7);
        }
    }
    workspace.ok("keys.deleteKey", json!({"keyId": key.id}));

    let refill = json!({"credits": {"remaining": 5, "refill": {"interval": "daily", "amount": 100}}});
    let poor = workspace.key_at(&api, refill, NOON);
    let at = |at: i64| {
        let (rows, _) = workspace.call("apis.listKeys", json!({"apiId": api})).at(at).expect_page();
        (rows[0]["credits"]["remaining"].as_i64().unwrap(), rows[0].get("updatedAt").cloned())
    };
    let midnight = utc(2026, 6, 16);
    assert_eq!(at(midnight - 1), (5, None));
    assert_eq!(at(midnight), (100, Some(midnight.into())));
    let later = midnight + 5 * DAY + HOUR;
    assert_eq!(at(later), (100, Some((midnight + 5 * DAY).into())), "missed dates are one refill");
    let shown = workspace.call("apis.listKeys", json!({"apiId": api})).at(later).expect_page().0;
    assert_eq!(shown[0], workspace.get_at(&poor, later), "getKey makes it, and shows the same");
    assert_eq!(workspace.verify_at(&poor, json!({"credits": {"cost": 30}}), later)["credits"], 70);
    assert_eq!(at(later).0, 70);
    workspace.ok("keys.updateKey", json!({"keyId": poor.id, "credits": {"remaining": 900}}));
    assert_eq!(at(later + 3 * DAY).0, 900, "KEYS-REFILL-2: never lowered");
}

/// A list read on a fresh process, with nothing in memory, is the same. APIS-LIST-9, KEYS-ANALYTICS-5
#[test]
fn a_list_needs_no_key_in_memory() {
    let server = Arc::new(crate::harness::Server::start());
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    for number in 0..20 {
        let key =
            workspace.key(&api, json!({"credits": {"remaining": 50}, "externalId": format!("user_{}", number % 3)}));
        workspace.verify(&key, json!({"credits": {"cost": number}}));
    }
    let before = listed(&workspace, &api);
    assert_eq!(server.stop(), Some(0));
    let workspace = workspace.moved(server.restart());
    assert_eq!(listed(&workspace, &api), before);
}
