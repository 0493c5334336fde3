//! keys.rerollKey: a new secret, the same settings, and the old key's end.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::world::{code, minted};
use crate::harness::{DAY, HOUR, Key, MINUTE, NOON, Workspace, members, utc};

/// Rerolls a key, at this time of the test clock where given.
fn reroll(workspace: &Workspace, key: &Key, expiration: i64, at: Option<i64>) -> Key {
    let call = workspace.call("keys.rerollKey", json!({"keyId": key.id, "expiration": expiration}));
    minted(&match at {
        Some(at) => call.at(at).expect_ok(),
        None => call.expect_ok(),
    })
}

/// What two keys of the same settings have in common: everything but ids, secret and times of their own.
fn settings(object: &Value) -> Value {
    let mut settings = object.clone();
    let all = settings.as_object_mut().unwrap();
    for own in ["keyId", "start", "createdAt", "updatedAt", "lastUsedAt"] {
        all.remove(own);
    }
    if let Some(limits) = all.get_mut("ratelimits") {
        limits.as_array_mut().unwrap().iter_mut().for_each(|limit| drop(limit.as_object_mut().unwrap().remove("id")));
    }
    settings
}

/// A key with everything set gives an equal new one; only what is a key's own is new: id, secret, start, times, ids of its
/// limits. KEYS-REROLL-1, KEYS-REROLL-3, KEYS-REROLL-4, KEYS-REROLL-5, KEYS-REROLL-9, KEYS-REROLL-12, KEYS-GEN-36, KEYS-GEN-37
#[test]
fn a_rerolled_key_is_like_the_old_one() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let full = json!({
        "prefix": "my_app", "byteLength": 24, "name": "the full key", "externalId": "user_1", "meta": {"n": 9_007_199_254_740_993_i64},
        "permissions": ["b.write", "a.read"], "expires": NOON + 400 * DAY, "enabled": true,
        "credits": {"remaining": 70, "refill": {"interval": "monthly", "amount": 90, "refillDay": 31}},
        "ratelimits": [{"name": "zeta", "limit": 5, "duration": 60_000, "autoApply": true},
                       {"name": "alpha", "limit": 9, "duration": 1000, "autoApply": false}],
    });
    let key = workspace.key_at(&api, full, NOON);
    let data = workspace.verify_at(&key, json!({"credits": {"cost": 7}}), NOON + MINUTE);
    assert_eq!((code(&data), &data["credits"]), ("VALID".to_owned(), &json!(63)));
    let before = workspace.get_at(&key, NOON + MINUTE);
    let new = reroll(&workspace, &key, HOUR, Some(NOON + 2 * MINUTE));
    let (old, fresh) = (workspace.get_at(&key, NOON + 2 * MINUTE), workspace.get_at(&new, NOON + 2 * MINUTE));
    assert_eq!(settings(&fresh), settings(&before), "KEYS-REROLL-12");
    assert_eq!(fresh["meta"], json!({"n": 9_007_199_254_740_993_i64}));
    assert!(new.id != key.id && new.secret != key.secret, "KEYS-REROLL-3");
    assert!(new.secret.starts_with("my_app_"), "KEYS-REROLL-4: {}", new.secret);
    assert!(new.secret.len() < "my_app_".len() + 24, "KEYS-REROLL-4: 16 bytes, as the API says: {}", new.secret);
    assert_eq!(fresh["start"], new.secret[.."my_app_".len() + 4], "KEYS-REROLL-3");
    assert_eq!(fresh["createdAt"], NOON + 2 * MINUTE);
    assert!(fresh.get("updatedAt").is_none() && fresh.get("lastUsedAt").is_none(), "KEYS-REROLL-3: {fresh}");
    for (at, limit) in fresh["ratelimits"].as_array().unwrap().iter().enumerate() {
        assert!(limit["id"] != before["ratelimits"][at]["id"], "KEYS-REROLL-3: {limit}");
    }
    assert_eq!(old["expires"], NOON + 2 * MINUTE + HOUR, "KEYS-REROLL-5");
    assert_eq!(old["updatedAt"], NOON + 2 * MINUTE, "KEYS-GEN-37");
    for unchanged in ["name", "meta", "permissions", "credits", "identity", "ratelimits", "start", "createdAt"] {
        assert_eq!(old[unchanged], before[unchanged], "{unchanged} of the old key");
    }
    // A refill is due on the new key as on the old one, and on each by itself.
    assert_eq!(workspace.get_at(&new, utc(2026, 6, 30))["credits"]["remaining"], 90);
    assert_eq!(workspace.get_at(&key, utc(2026, 6, 30) - 1)["credits"]["remaining"], 63);

    let plain = workspace.key_at(&api, json!({}), NOON);
    let (one, other) = (reroll(&workspace, &plain, 0, Some(NOON)), reroll(&workspace, &plain, 0, Some(NOON)));
    assert!(one.id != other.id, "KEYS-GEN-36");
    assert_eq!(members(&workspace.get_at(&one, NOON)), ["createdAt", "enabled", "keyId", "start"]);
    assert_eq!(workspace.get_at(&other, NOON)["expires"], NOON - 1, "what the old key was to be by then");
}

/// The old key ends at once, or on the full minute after its grace period, and never later than it would have anyway; what
/// it was to be before is what the new one gets. KEYS-REROLL-5, KEYS-REROLL-6, KEYS-REROLL-8, KEYS-REROLL-9, KEYS-GEN-34
#[test]
fn the_old_key_ends_when_its_grace_does() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let at = NOON + 17_000;
    for (expires, expiration, ends) in [
        (None, 0, at - 1),
        (None, 1, NOON + MINUTE),
        (None, 43_000, NOON + MINUTE),
        (None, 43_001, NOON + 2 * MINUTE),
        (None, HOUR, NOON + HOUR + MINUTE),
        (Some(at + 5000), HOUR, at + 5000),
        (Some(at + HOUR), 0, at - 1),
        (Some(at + 10 * HOUR), HOUR, NOON + HOUR + MINUTE),
        (Some(at - 1), HOUR, at - 1),
        (Some(0), 0, 0),
        (None, 4_102_444_800_000, NOON + 4_102_444_800_000 + MINUTE),
    ] {
        let mut ask = json!({});
        if let Some(expires) = expires {
            ask["expires"] = expires.into();
        }
        let key = workspace.key_at(&api, ask, NOON);
        let new = reroll(&workspace, &key, expiration, Some(at));
        let case = format!("expires {expires:?}, expiration {expiration}");
        let shown = workspace.get_at(&key, at).get("expires").cloned();
        assert_eq!(shown, (ends != 0).then(|| ends.into()), "{case}");
        assert_eq!(
            workspace.get_at(&new, at).get("expires"),
            expires.filter(|at| *at != 0).map(Value::from).as_ref(),
            "{case}"
        );
        let when = |key: &Key, at: i64| code(&workspace.verify_at(key, json!({}), at));
        let is = |valid: bool| if valid { "VALID" } else { "EXPIRED" };
        assert_eq!(when(&key, at), is(ends >= at), "{case}: the very next verification");
        if ends >= at {
            assert_eq!(when(&key, ends), "VALID", "{case}");
        }
        assert_eq!(when(&key, ends + 1), "EXPIRED", "{case}");
        assert_eq!(when(&new, at), is(expires.is_none_or(|expires| expires >= at)), "KEYS-REROLL-8: {case}");
    }
    let disabled = workspace.key_at(&api, json!({"enabled": false}), NOON);
    let new = reroll(&workspace, &disabled, HOUR, Some(at));
    assert_eq!(code(&workspace.verify_at(&new, json!({}), at)), "DISABLED", "KEYS-REROLL-8");
}

/// In the grace period both keys verify, each with all the credits; limits of the key begin afresh, those of its identity go
/// on. KEYS-REROLL-3, KEYS-REROLL-7
#[test]
fn both_keys_work_in_the_grace_period() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key_at(
        &api,
        json!({"credits": {"remaining": 10}, "ratelimits": [{"name": "own", "limit": 3, "duration": HOUR, "autoApply": true}]}),
        NOON,
    );
    let left = |key: &Key| workspace.verify_at(key, json!({}), NOON + 1)["credits"].clone();
    let windows = |key: &Key| {
        let data = workspace.verify_at(
            key,
            json!({"credits": {"cost": 0}, "ratelimits": [{"name": "own", "cost": 0}]}),
            NOON + 1,
        );
        data["ratelimits"][0]["remaining"].clone()
    };
    assert_eq!((left(&key), left(&key)), (json!(9), json!(8)));
    let new = reroll(&workspace, &key, HOUR, Some(NOON + 1));
    assert_eq!((left(&new), left(&key)), (json!(7), json!(7)), "KEYS-REROLL-7");
    assert_eq!((windows(&new), windows(&key)), (json!(2), json!(0)), "KEYS-REROLL-3");
    assert_eq!(code(&workspace.verify_at(&key, json!({}), NOON + 1)), "RATE_LIMITED");
    assert_eq!(code(&workspace.verify_at(&new, json!({}), NOON + 1)), "VALID");

    let shared = json!([{"name": "shared", "limit": 3, "duration": HOUR, "autoApply": true}]);
    workspace.ok("identities.createIdentity", json!({"externalId": "ada", "ratelimits": shared}));
    let of_ada = workspace.key_at(&api, json!({"externalId": "ada"}), NOON);
    let left = |key: &Key| workspace.verify_at(key, json!({}), NOON)["ratelimits"][0]["remaining"].clone();
    assert_eq!((left(&of_ada), left(&of_ada)), (json!(2), json!(1)));
    let new = reroll(&workspace, &of_ada, HOUR, Some(NOON));
    assert_eq!(left(&new), json!(0), "KEYS-REROLL-3: limits of the identity go on");
    assert_eq!(code(&workspace.verify_at(&new, json!({}), NOON)), "RATE_LIMITED");
    let empty = workspace.key_at(&api, json!({"credits": {"remaining": 0}}), NOON);
    let new = reroll(&workspace, &empty, 0, Some(NOON));
    assert_eq!(code(&workspace.verify_at(&new, json!({}), NOON)), "USAGE_EXCEEDED");
}

/// The prefix is all before the last underscore of what a key begins with; a key without one gets the API's, and its length
/// is the API's. A refill that is due comes first. KEYS-REROLL-4, KEYS-REFILL-5, KEYS-CREATE-9
#[test]
fn a_new_key_looks_like_the_old_one() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let lead = |key: &Key| key.secret.rsplit_once('_').map(|(prefix, _)| prefix.to_owned());
    for prefix in ["prod", "my_app", "my_app_", "_"] {
        let key = workspace.key_at(&api, json!({"prefix": prefix}), NOON);
        assert_eq!(lead(&reroll(&workspace, &key, 0, Some(NOON))).as_deref(), Some(prefix));
    }
    let bare = workspace.key_at(&api, json!({}), NOON);
    assert_eq!(lead(&reroll(&workspace, &bare, 0, Some(NOON))), None);
    workspace.ok("apis.updateApi", json!({"apiId": api, "defaultPrefix": "api_s", "defaultBytes": 32}));
    let new = reroll(&workspace, &bare, 0, Some(NOON));
    assert_eq!(lead(&new).as_deref(), Some("api_s"));
    assert!(new.secret.len() > 40, "32 bytes: {}", new.secret);
    assert_eq!(workspace.get_at(&new, NOON)["start"], new.secret[.."api_s_".len() + 4]);

    let refill = json!({"credits": {"remaining": 1, "refill": {"interval": "daily", "amount": 100}}});
    let key = workspace.key_at(&api, refill, NOON);
    let new = reroll(&workspace, &key, DAY, Some(NOON + DAY));
    for key in [&key, &new] {
        assert_eq!(workspace.get_at(key, NOON + DAY)["credits"]["remaining"], 100);
        assert_eq!(workspace.verify_at(key, json!({"credits": {"cost": 60}}), NOON + DAY)["credits"], 40);
    }
    assert_eq!(workspace.get_at(&new, NOON + 2 * DAY)["credits"]["remaining"], 100, "the next one is due as ever");
}

/// Who may: `create_key` for this key's API or key space; not for another one, and not for the key by itself. A key that is
/// not there is 404 whatever one may. KEYS-REROLL-2, KEYS-REROLL-12, KEYS-GEN-25, KEYS-GEN-27, KEYS-GEN-31, KEYS-GEN-36
#[test]
fn rerolling_needs_permission_to_create() {
    let workspace = Workspace::new();
    let (api, other) = (workspace.api(), workspace.api());
    let key = workspace.key(&api, json!({}));
    let keyspace = |api: &str| {
        let rows = workspace.all("apis.listApis", json!({}), 100);
        let row = rows.into_iter().find(|row| row["id"] == api).unwrap();
        row["keyspaceId"].as_str().unwrap().to_owned()
    };
    let (own, others) = (keyspace(&api), keyspace(&other));
    let urn = |path: &str| format!("unkey:v1:{}:{path}", workspace.id);
    for refused in [
        format!("api.{other}.create_key"),
        format!("api.{api}.update_key"),
        urn(&format!("keyspaces/{others}#create_key")),
        urn(&format!("keyspaces/{own}/keys/{}#create_key", key.id)),
        urn(&format!("keyspaces/{own}/keys/*#create_key")),
    ] {
        let root = workspace.root_key(&[&refused]);
        let call =
            workspace.server.call("keys.rerollKey", json!({"keyId": key.id, "expiration": 0})).bearer(&root.secret);
        let denied = call.expect_problem(403, "unkey/authorization/insufficient_permissions");
        denied.mentioning("Missing one of these permissions").mentioning("create_key");
    }
    assert_eq!(workspace.code(&key, json!({})), "VALID", "a refused reroll changes nothing");
    assert!(workspace.get(&key).get("updatedAt").is_none());
    let enough = workspace.root_key(&[&urn(&format!("keyspaces/{own}#create_key"))]);
    let call = workspace.server.call("keys.rerollKey", json!({"keyId": key.id, "expiration": 0, "surprise": 1}));
    let new = minted(&call.bearer(&enough.secret).expect_ok());
    assert_eq!((workspace.code(&new, json!({})), workspace.code(&key, json!({}))), ("VALID".into(), "EXPIRED".into()));

    let gone = |key: &Key| {
        let call = workspace.call("keys.rerollKey", json!({"keyId": key.id, "expiration": 0}));
        call.expect_problem(404, "unkey/data/key_not_found").mentioning("The specified key was not found.");
    };
    workspace.ok("keys.deleteKey", json!({"keyId": new.id}));
    gone(&new);
    let orphan = workspace.key(&other, json!({}));
    workspace.ok("apis.deleteApi", json!({"apiId": other}));
    gone(&orphan);
}

/// Rerolls and updates of one key come one after another: a copy is of one moment, no acknowledged update is missing from a
/// later copy, and the old key's end is never put off. KEYS-REROLL-6, KEYS-REROLL-10, KEYS-GEN-35, COM-CON-01, COM-CON-04
#[test]
fn a_copy_is_of_one_moment() {
    let workspace = Arc::new(Workspace::new());
    let api = workspace.api();
    let key = workspace.key(&api, json!({"name": "n0", "meta": {"n": 0}, "credits": {"remaining": 1000}}));
    let writer = {
        let (workspace, key) = (Arc::clone(&workspace), key.clone());
        std::thread::spawn(move || {
            for n in 1..=20 {
                let seen = json!({"name": format!("n{n}"), "meta": {"n": n}, "credits": {"remaining": 1000 + n}});
                workspace.update(&key, seen);
                // Whoever rerolls after an acknowledged update copies it.
                let copy = workspace.get(&reroll(&workspace, &key, HOUR, None));
                assert_eq!((&copy["meta"]["n"], &copy["name"]), (&json!(n), &json!(format!("n{n}"))), "KEYS-REROLL-10");
                assert_eq!(copy["credits"]["remaining"], 1000 + n);
            }
        })
    };
    let rerollers: Vec<_> = (0..3)
        .map(|number| {
            let (workspace, key) = (Arc::clone(&workspace), key.clone());
            std::thread::spawn(move || {
                let mut last = 0;
                for _ in 0..20 {
                    let copy = workspace.get(&reroll(&workspace, &key, HOUR * (1 + number), None));
                    let n = copy["meta"]["n"].as_i64().unwrap();
                    assert_eq!(copy["name"], format!("n{n}"), "half an update");
                    assert_eq!(copy["credits"]["remaining"], 1000 + n);
                    assert!(n >= last, "an older state after a newer one");
                    last = n;
                }
            })
        })
        .collect();
    writer.join().unwrap();
    rerollers.into_iter().for_each(|thread| thread.join().unwrap());
    let ends = workspace.get(&key)["expires"].as_i64().unwrap();
    let copies = workspace.all("apis.listKeys", json!({"apiId": api}), 100);
    assert_eq!(copies.len(), 81);
    // The first copy has no end; all later ones have the old key's at that moment, which only ever came closer.
    let mut by_age: Vec<_> = copies.iter().filter(|copy| copy["keyId"] != key.id).collect();
    by_age.sort_by_key(|copy| copy["createdAt"].as_i64());
    assert!(by_age.iter().filter(|copy| copy.get("expires").is_none()).count() == 1, "KEYS-REROLL-8");
    assert!(by_age.iter().filter_map(|copy| copy["expires"].as_i64()).all(|expires| expires >= ends), "KEYS-REROLL-6");
}
