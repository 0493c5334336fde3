//! keys.createKey, getKey, whoami, updateKey, updateCredits, deleteKey.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::world::{minted, with};
use crate::harness::{DAY, Key, NOON, Workspace, members, now};

const ALPHABET: &str = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";

/// Bytes written in base58, by long division; an independent check of what the server prints.
fn base58_length(text: &str) -> usize {
    let zeros = text.bytes().take_while(|byte| *byte == b'1').count();
    let mut bytes: Vec<u8> = Vec::new();
    for sign in text.chars() {
        let mut carry = ALPHABET.find(sign).unwrap_or_else(|| panic!("{sign} is not base58: {text}"));
        for byte in bytes.iter_mut() {
            carry += usize::from(*byte) * 58;
            *byte = u8::try_from(carry % 256).unwrap();
            carry /= 256;
        }
        while carry > 0 {
            bytes.push(u8::try_from(carry % 256).unwrap());
            carry /= 256;
        }
    }
    zeros + bytes.len()
}

/// A key is prefix, underscore and base58 of as many random bytes as asked for; its start shows four characters of it.
/// KEYFMT-1, KEYFMT-2, KEYFMT-3, KEYFMT-4, KEYFMT-5, KEYS-CREATE-8, KEYS-CREATE-9, KEYS-CREATE-10, IDS-1, IDS-2, IDS-3
#[test]
fn a_key_has_the_form_that_was_asked_for() {
    let workspace = Workspace::new();
    let api = workspace.api();
    for (prefix, length) in
        [(None, None), (Some("prod"), None), (None, Some(24)), (Some("my_app_"), Some(255)), (Some("a"), Some(17))]
    {
        let mut ask = json!({});
        if let Some(prefix) = prefix {
            ask["prefix"] = prefix.into();
        }
        if let Some(length) = length {
            ask["byteLength"] = length.into();
        }
        let key = workspace.key(&api, ask);
        let lead = prefix.map(|prefix| format!("{prefix}_")).unwrap_or_default();
        let body = key.secret.strip_prefix(&lead).unwrap_or_else(|| panic!("KEYFMT-1: {}", key.secret));
        assert_eq!(base58_length(body), length.unwrap_or(16), "KEYFMT-2: {body}");
        let got = workspace.get(&key);
        assert_eq!(got["start"], format!("{lead}{}", &body[..4]), "KEYFMT-5");
        assert_eq!(workspace.code(&key, json!({})), "VALID", "KEYS-CREATE-8: it verifies at once");
        let random = key.id.strip_prefix("key_").unwrap_or_else(|| panic!("IDS-3: {}", key.id));
        assert!(random.len() >= 12 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "IDS-1: {}", key.id);
    }
}

/// The plainest key shows what every key has and nothing else; two of them share nothing.
/// KEYS-OBJ-1, KEYS-CREATE-10, KEYS-GEN-21, KEYS-GET-3, KEYS-WHOAMI-4, KEYS-GEN-36, KEYFMT-6, COM-ENV-06
#[test]
fn the_plainest_key_has_four_members() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let before = now();
    let key = workspace.key(&api, json!({}));
    let got = workspace.get(&key);
    assert_eq!(members(&got), ["createdAt", "enabled", "keyId", "start"]);
    assert_eq!((got["keyId"].as_str(), got["enabled"].as_bool()), (Some(key.id.as_str()), Some(true)));
    let created = got["createdAt"].as_i64().unwrap();
    assert!((before..=now()).contains(&created), "{created}");
    assert_eq!(workspace.ok("keys.whoami", json!({"key": key.secret})), got);
    let other = workspace.key(&api, json!({}));
    assert!(other.id != key.id && other.secret != key.secret, "KEYS-GEN-36");
    let empty = json!({"meta": {}, "roles": [], "permissions": [], "ratelimits": [], "expires": 0, "credits": {"remaining": null}});
    let empty = workspace.get(&workspace.key(&api, empty));
    assert_eq!(members(&empty), ["createdAt", "enabled", "keyId", "start"], "KEYS-GEN-21, KEYS-CREATE-6");
}

/// A key with everything set shows all of it, in getKey and whoami alike, arrays in their order.
/// KEYS-OBJ-1, KEYS-OBJ-3, KEYS-OBJ-4, KEYS-OBJ-5, KEYS-OBJ-6, KEYS-GEN-19, KEYS-GEN-21, KEYS-GEN-23, KEYS-GEN-32,
/// KEYS-CREATE-5, KEYS-CREATE-7, KEYS-GET-3, KEYS-GET-4, KEYS-GET-5, KEYS-WHOAMI-4, IDS-3
#[test]
fn a_full_key_shows_everything() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({
        "prefix": "full", "name": "the full key", "externalId": "user_1.a-b", "meta": {"plan": {"tier": ["gold", 1]}},
        "permissions": ["b.write", "a.read", "b.write", "A.READ", "x:*"], "expires": 4_102_444_800_000_i64, "enabled": false,
        "credits": {"remaining": 0, "refill": {"interval": "monthly", "amount": 7, "refillDay": 31}},
        "ratelimits": [{"name": "zeta", "limit": 5, "duration": 60_000, "autoApply": true},
                       {"name": "alpha", "limit": 9, "duration": 1000, "autoApply": false},
                       {"name": "zeta", "limit": 6, "duration": 60_000, "autoApply": true}],
    }));
    let got = workspace.get(&key);
    assert_eq!(
        members(&got),
        [
            "createdAt",
            "credits",
            "enabled",
            "expires",
            "identity",
            "keyId",
            "meta",
            "name",
            "permissions",
            "ratelimits",
            "start"
        ]
    );
    assert_eq!(got["name"], "the full key");
    assert_eq!(got["enabled"], false);
    assert_eq!(got["meta"], json!({"plan": {"tier": ["gold", 1]}}));
    assert_eq!(got["expires"], 4_102_444_800_000_i64);
    assert_eq!(got["permissions"], json!(["a.read", "b.write", "x:*"]), "KEYS-GEN-19, KEYS-GEN-23");
    assert_eq!(
        got["credits"],
        json!({"remaining": 0, "refill": {"interval": "monthly", "amount": 7, "refillDay": 31}})
    );
    assert_eq!(members(&got["identity"]), ["externalId", "id"], "KEYS-OBJ-3");
    assert_eq!(got["identity"]["externalId"], "user_1.a-b");
    assert!(got["identity"]["id"].as_str().unwrap().starts_with("id_"), "IDS-3");
    let limits = got["ratelimits"].as_array().unwrap();
    assert_eq!(limits.len(), 2, "KEYS-GEN-19: of a repeated name the last counts: {limits:?}");
    for limit in limits {
        assert_eq!(members(limit), ["autoApply", "duration", "id", "limit", "name"]);
        assert!(limit["id"].as_str().unwrap().starts_with("rl_"), "IDS-3");
    }
    let of = |name: &str| limits.iter().find(|limit| limit["name"] == name).unwrap()["limit"].clone();
    assert_eq!((of("zeta"), of("alpha")), (json!(6), json!(9)));
    assert_eq!(
        workspace.ok("keys.whoami", json!({"key": key.secret})),
        got,
        "KEYS-WHOAMI-4: a disabled key is told about"
    );

    let daily = json!({"credits": {"remaining": 3, "refill": {"interval": "daily", "amount": 9, "refillDay": 4}}});
    let daily = workspace.get(&workspace.key(&api, daily));
    assert_eq!(
        daily["credits"],
        json!({"remaining": 3, "refill": {"interval": "daily", "amount": 9}}),
        "KEYS-CREATE-5"
    );
    let expired = workspace.key(&api, json!({"expires": 1}));
    assert_eq!(workspace.get(&expired)["expires"], 1, "KEYS-GET-4");
    for _ in 0..2 {
        assert!(workspace.get(&expired).get("lastUsedAt").is_none(), "KEYS-ANALYTICS-5, KEYS-GET-4");
    }
}

/// What createKey refuses beyond its schema leaves nothing behind.
/// KEYS-CREATE-3, KEYS-CREATE-6, KEYS-CREATE-12, KEYS-GEN-35, COM-CON-02
#[test]
fn create_refuses_what_cannot_be() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let call = |members: Value| workspace.call("keys.createKey", with(members, "apiId", &api));
    let refill = |remaining: Value, refill: Value| json!({"credits": {"remaining": remaining, "refill": refill}});
    let daily = json!({"interval": "daily", "amount": 1});
    let wrong = call(refill(json!(null), daily.clone())).expect_problem(400, "unkey/application/invalid_input");
    let wrong = wrong.saying("`credits.remaining` must be provided when `credits.refill` is set.");
    assert!(wrong.errors.is_empty(), "COM-ERR-03: not a schema violation");
    let wrong = call(refill(json!(5), json!({"interval": "monthly", "amount": 1})));
    let wrong = wrong.expect_problem(400, "unkey/application/invalid_input");
    wrong.saying("`refillDay` must be provided when the refill interval is `monthly`.");
    let wrong = call(json!({"recoverable": true})).expect_problem(412, "unkey/application/precondition_failed");
    wrong.mentioning("Vault hasn't been set up.").mentioning("master_key_file");
    let wrong = call(json!({"roles": ["no such role"], "permissions": ["left.behind"], "externalId": "nobody"}));
    let wrong = wrong.expect_problem(404, "unkey/data/role_not_found");
    wrong.saying("Role 'no such role' was not found.");
    call(refill(json!(0), daily)).expect_ok();
    call(json!({"credits": {"remaining": null}})).expect_ok();
}

/// createKey's own checks come in their order: the API, the permission, the vault, the refill, the roles. KEYS-CREATE-3
#[test]
fn create_checks_in_order() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let weak = workspace.root_key(&["api.*.read_api"]);
    let no_refill = json!({"remaining": null, "refill": {"interval": "daily", "amount": 1}});
    let all_wrong = json!({"apiId": "api_nowhere1", "recoverable": true, "credits": no_refill, "roles": ["nobody"]});
    let call = |body: &Value, root: &str| workspace.server.call("keys.createKey", body.clone()).bearer(root);
    call(&all_wrong, &workspace.root).expect_problem(404, "unkey/data/api_not_found");
    let mut body = with(all_wrong, "apiId", &api);
    call(&body, &weak.secret).expect_problem(404, "unkey/data/api_not_found");
    call(&body, &workspace.root).expect_problem(412, "unkey/application/precondition_failed");
    body["recoverable"] = json!(false);
    call(&body, &workspace.root).expect_problem(400, "unkey/application/invalid_input").mentioning("credits.remaining");
    body["credits"] = json!({"remaining": 1, "refill": {"interval": "monthly", "amount": 1}});
    call(&body, &workspace.root).expect_problem(400, "unkey/application/invalid_input").mentioning("refillDay");
    body["credits"] = json!({"remaining": 1});
    call(&body, &workspace.root).expect_problem(404, "unkey/data/role_not_found");
    let creates = workspace.root_key(&["api.*.create_key"]);
    let recoverable = json!({"apiId": api, "recoverable": true});
    call(&recoverable, &creates.secret).expect_problem(412, "unkey/application/precondition_failed");
}

/// A key's plaintext is in the answer that made it and in no file. KEYFMT-6, HASH-1, AL-EV-06, COM-LOG-07
#[test]
fn no_plaintext_is_in_any_file() {
    let server = Arc::new(crate::harness::Server::start());
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    let keys: Vec<Key> =
        (0..20).map(|n| workspace.key(&api, json!({"prefix": format!("p{n}"), "byteLength": 32}))).collect();
    for key in &keys {
        workspace.verify(key, json!({}));
        workspace.ok("keys.whoami", json!({"key": key.secret}));
    }
    workspace.update(&keys[0], json!({"name": "a name that is found on the disk"}));
    server.stop();
    let mut folders = vec![server.dir.path().to_owned()];
    let (mut bytes, mut control) = (0, false);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let Ok(content) = std::fs::read(&path) else { continue };
            bytes += content.len();
            let holds = |needle: &str| content.windows(needle.len()).any(|part| part == needle.as_bytes());
            control |= holds("a name that is found on the disk");
            for secret in keys.iter().map(|key| &key.secret).chain([&workspace.root]) {
                // Without the prefix, of which the start is kept, and the first four characters, which the start holds.
                let body = secret.rsplit_once('_').unwrap().1;
                assert!(!holds(&body[4..]), "{} holds a plaintext", path.display());
            }
        }
    }
    assert!(control && bytes > 0, "the files that were searched are not the records");
}

/// One new external id in many requests at once is one identity; keys of it share its id. KEYS-OBJ-6, COM-CON-04, KEYS-GEN-35
#[test]
fn one_external_id_is_one_identity() {
    let workspace = Arc::new(Workspace::new());
    let api = workspace.api();
    let updated: Vec<Key> = (0..10).map(|_| workspace.key(&api, json!({}))).collect();
    let mut threads = Vec::new();
    for n in 0..20 {
        let (workspace, api) = (Arc::clone(&workspace), api.clone());
        let members = json!({"externalId": "new_one", "name": format!("key {n}")});
        threads.push(std::thread::spawn(move || workspace.key(&api, members)));
    }
    for key in updated {
        let workspace = Arc::clone(&workspace);
        threads.push(std::thread::spawn(move || {
            workspace.update(&key, json!({"externalId": "new_one"}));
            key
        }));
    }
    let keys: Vec<Key> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let mut identities: Vec<String> =
        keys.iter().map(|key| workspace.get(key)["identity"]["id"].as_str().unwrap().to_owned()).collect();
    identities.sort();
    identities.dedup();
    assert_eq!((keys.len(), identities.len()), (30, 1), "KEYS-OBJ-6");
    let other = workspace.get(&workspace.key(&api, json!({"externalId": "New_one"})));
    assert_ne!(other["identity"]["id"], identities[0].as_str(), "KEYS-GEN-17: external ids compare byte for byte");
    let neighbour = workspace.neighbour();
    let foreign = neighbour.get(&neighbour.key(&neighbour.api(), json!({"externalId": "new_one"})));
    assert_ne!(foreign["identity"]["id"], identities[0].as_str(), "COM-RK-09");
}

/// A permission named in another spelling is the one that exists, in its stored spelling; a query compares exactly.
/// KEYS-GEN-17, KEYS-GEN-19, KEYS-GEN-32, KEYS-CREATE-7, KEYS-UPDATE-6, PM-QRY-07
#[test]
fn a_permission_is_found_in_any_case_and_keeps_its_spelling() {
    let workspace = Workspace::new();
    let api = workspace.api();
    workspace.key(&api, json!({"permissions": ["docs.read"]}));
    let key = workspace.key(&api, json!({"permissions": ["Docs.Read", "DOCS.WRITE"]}));
    assert_eq!(workspace.get(&key)["permissions"], json!(["DOCS.WRITE", "docs.read"]));
    workspace.update(&key, json!({"permissions": ["docs.WRITE", "docs.READ", "New.One", "new.one"]}));
    assert_eq!(workspace.get(&key)["permissions"], json!(["DOCS.WRITE", "New.One", "docs.read"]));
    assert_eq!(workspace.code(&key, json!({"permissions": "docs.read"})), "VALID");
    assert_eq!(workspace.code(&key, json!({"permissions": "Docs.Read"})), "INSUFFICIENT_PERMISSIONS");
}

/// Absent leaves, null clears, a value sets: member by member, in sequence and all at once.
/// KEYS-UPDATE-1, KEYS-UPDATE-2, KEYS-UPDATE-7, KEYS-UPDATE-8, KEYS-UPDATE-10, KEYS-GEN-21, KEYS-GEN-37, KEYS-CREDIT-5,
/// SDK null and absent
#[test]
fn update_leaves_clears_and_sets() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    let refill = json!({"interval": "monthly", "amount": 5, "refillDay": 15});
    let full = json!({
        "name": "n", "externalId": "e", "meta": {"a": 1}, "expires": 4_000_000_000_000_i64, "enabled": false,
        "credits": {"remaining": 9, "refill": refill}, "permissions": ["p.q"],
        "ratelimits": [{"name": "abc", "limit": 1, "duration": 1000, "autoApply": false}],
    });
    workspace.update(&key, full.clone());
    let set = workspace.get(&key);
    for name in ["name", "meta", "expires", "enabled", "credits", "permissions"] {
        assert_eq!(set[name], full[name], "{name}");
    }
    assert_eq!(set["identity"]["externalId"], "e");
    assert!(set["updatedAt"].as_i64().unwrap() >= set["createdAt"].as_i64().unwrap(), "KEYS-GEN-37");

    workspace.update(&key, json!({}));
    let mut left = workspace.get(&key);
    assert!(left["updatedAt"].as_i64() >= set["updatedAt"].as_i64(), "KEYS-UPDATE-7");
    left["updatedAt"] = set["updatedAt"].clone();
    assert_eq!(left, set, "absent leaves");

    for (member, cleared) in [
        ("name", json!(null)),
        ("externalId", json!(null)),
        ("meta", json!(null)),
        ("expires", json!(null)),
        ("credits", json!(null)),
        ("permissions", json!([])),
        ("ratelimits", json!([])),
        ("enabled", json!(true)),
    ] {
        workspace.update(&key, json!({member: cleared}));
        let shown = if member == "externalId" { "identity" } else { member };
        let got = workspace.get(&key);
        assert!(got.get(shown).is_none() || got[shown] == true, "{member} is still there: {got}");
        workspace.update(&key, json!({member: full[member]}));
        assert!(workspace.get(&key).get(shown).is_some(), "{member} is back");
    }
    workspace.update(&key, json!({"meta": {}}));
    assert!(workspace.get(&key).get("meta").is_none(), "KEYS-UPDATE-1: an empty object is stored and not shown");
}

/// Credits and refill change apart; a refill without a balance to refill is refused, so is a day where none belongs.
/// KEYS-UPDATE-2, KEYS-UPDATE-3, KEYS-UPDATE-4, KEYS-OBJ-2, KEYS-GEN-35
#[test]
fn update_keeps_credits_and_refill_apart() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 5}}));
    let shown = || workspace.get(&key).get("credits").cloned();
    let change = |credits: Value| workspace.update(&key, json!({"credits": credits}));
    let refuse = |credits: Value, detail: &str| {
        let call = workspace.call("keys.updateKey", json!({"keyId": key.id, "name": "never", "credits": credits}));
        call.expect_problem(400, "unkey/application/invalid_input").saying(detail);
        assert!(workspace.get(&key).get("name").is_none(), "KEYS-UPDATE-4: all or nothing");
    };
    let monthly = json!({"interval": "monthly", "amount": 3, "refillDay": 9});
    change(json!({"refill": monthly}));
    assert_eq!(shown(), Some(json!({"remaining": 5, "refill": monthly})));
    change(json!({"remaining": 8}));
    assert_eq!(shown(), Some(json!({"remaining": 8, "refill": monthly})));
    change(json!({}));
    assert_eq!(shown(), Some(json!({"remaining": 8, "refill": monthly})));
    change(json!({"refill": {"interval": "daily", "amount": 4}}));
    assert_eq!(
        shown(),
        Some(json!({"remaining": 8, "refill": {"interval": "daily", "amount": 4}})),
        "the day is cleared"
    );
    refuse(
        json!({"refill": {"interval": "monthly", "amount": 1}}),
        "`refillDay` must be provided when the refill interval is `monthly`.",
    );
    refuse(
        json!({"refill": {"interval": "daily", "amount": 1, "refillDay": 3}}),
        "`refillDay` must not be provided when the refill interval is `daily`.",
    );
    refuse(
        json!({"remaining": null, "refill": {"interval": "daily", "amount": 1}}),
        "`credits.remaining` must be provided when `credits.refill` is set.",
    );
    change(json!({"refill": null}));
    assert_eq!(shown(), Some(json!({"remaining": 8})));
    change(json!({"refill": monthly}));
    change(json!({"remaining": null}));
    assert_eq!(shown(), None, "unlimited, and the refill went with it");
    refuse(json!({"refill": monthly}), "`credits.remaining` must be provided when `credits.refill` is set.");
    change(json!({"remaining": 1, "refill": monthly}));
    assert_eq!(shown(), Some(json!({"remaining": 1, "refill": monthly})));
    change(json!(null));
    assert_eq!(shown(), None);
}

/// A limit of the same name keeps its id, others come and go; concurrent replacements leave one of the submitted sets.
/// KEYS-UPDATE-5, KEYS-RL-5, KEYS-GEN-23, COM-CON-04
#[test]
fn update_replaces_limits_by_name() {
    let workspace = Arc::new(Workspace::new());
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    let limit = |name: &str, limit: i64| json!({"name": name, "limit": limit, "duration": 2_592_000_000_i64, "autoApply": true});
    let ids = |workspace: &Workspace| -> Vec<(String, String)> {
        let got = workspace.get(&key);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        got["ratelimits"].as_array().unwrap().iter().map(|limit| (text(&limit["name"]), text(&limit["id"]))).collect()
    };
    workspace.update(&key, json!({"ratelimits": [limit("one", 10), limit("two", 10)]}));
    let before = ids(&workspace);
    assert_eq!(workspace.verify(&key, json!({}))["ratelimits"].as_array().unwrap().len(), 2);
    workspace.update(&key, json!({"ratelimits": [limit("three", 10), limit("one", 20)]}));
    let after = ids(&workspace);
    let names: Vec<&str> = after.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["three", "one"], "KEYS-GEN-23: in the order of the request that last set them");
    assert_eq!(after[1], before[0], "the same name keeps its id");
    let data = workspace.verify(&key, json!({}));
    assert_eq!(data["ratelimits"][0]["remaining"], 18, "KEYS-RL-5: a changed limit keeps its count: {data}");

    let threads: Vec<_> = (1..=10)
        .map(|n| {
            let (workspace, key) = (Arc::clone(&workspace), key.clone());
            let limits = json!([limit("one", n), limit("two", n), limit("three", n)]);
            std::thread::spawn(move || workspace.update(&key, json!({"ratelimits": limits})))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let got = workspace.get(&key);
    let counts: Vec<i64> =
        got["ratelimits"].as_array().unwrap().iter().map(|limit| limit["limit"].as_i64().unwrap()).collect();
    assert_eq!(counts.len(), 3);
    assert!(
        counts.iter().all(|count| *count == counts[0]),
        "KEYS-UPDATE-5: exactly one of the submitted sets: {counts:?}"
    );
}

/// updateKey refuses an unknown role and changes nothing then; a deleted key is 404 whatever else is wrong.
/// KEYS-UPDATE-4, KEYS-UPDATE-10, KEYS-GEN-25, KEYS-GEN-35
#[test]
fn update_is_all_or_nothing() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({"name": "old"}));
    let before = workspace.get(&key);
    let body = json!({"keyId": key.id, "name": "new", "externalId": "fresh", "permissions": ["fresh.one"], "roles": ["nobody"]});
    let problem = workspace.call("keys.updateKey", body).expect_problem(404, "unkey/data/role_not_found");
    problem.saying("Role 'nobody' was not found.");
    assert_eq!(workspace.get(&key), before);
    workspace.ok("keys.deleteKey", json!({"keyId": key.id}));
    let body = json!({"keyId": key.id, "credits": {"refill": {"interval": "monthly", "amount": 1}}});
    workspace.call("keys.updateKey", body).expect_problem(404, "unkey/data/key_not_found");
}

/// set, increment and decrement do what they say, stop at nothing, and answer with the state after them.
/// KEYS-UPCRED-1, KEYS-UPCRED-2, KEYS-UPCRED-3, KEYS-UPCRED-4, KEYS-UPCRED-5, KEYS-UPCRED-6, KEYS-UPCRED-9, KEYS-CREDIT-5,
/// KEYS-GEN-37, COM-ENV-06
#[test]
fn update_credits_does_its_sums() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    let call = |operation: &str, value: Value| {
        let mut body = json!({"keyId": key.id, "operation": operation});
        if value != json!("absent") {
            body["value"] = value;
        }
        workspace.call("keys.updateCredits", body)
    };
    let is = |data: Value, remaining: Value| assert_eq!(data, json!({"remaining": remaining}));
    let unlimited = "You cannot increment or decrement a key with unlimited credits.";
    let no_value = "When specifying an increment or decrement operation, a value must be provided.";
    for operation in ["increment", "decrement"] {
        for value in [json!("absent"), json!(null)] {
            let problem = call(operation, value).expect_problem(400, "unkey/application/invalid_input");
            assert!(problem.saying(no_value).errors.is_empty());
        }
        call(operation, json!(1)).expect_problem(400, "unkey/application/invalid_input").saying(unlimited);
    }
    is(call("set", json!(10)).expect_ok(), json!(10));
    assert_eq!(workspace.verify(&key, json!({}))["credits"], 9, "KEYS-UPCRED-9");
    is(call("increment", json!(5)).expect_ok(), json!(14));
    is(call("decrement", json!(4)).expect_ok(), json!(10));
    is(call("decrement", json!(0)).expect_ok(), json!(10));
    is(call("decrement", json!(11)).expect_ok(), json!(0));
    is(call("set", json!(i64::MAX)).expect_ok(), json!(i64::MAX));
    call("increment", json!(1)).expect_problem(400, "unkey/application/invalid_input");
    assert_eq!(workspace.get(&key)["credits"]["remaining"], i64::MAX, "KEYS-UPCRED-5: unchanged");
    assert!(workspace.get(&key)["updatedAt"].is_i64(), "KEYS-GEN-37");

    for value in [json!(null), json!("absent")] {
        let refill = json!({"interval": "daily", "amount": 2});
        workspace.update(&key, json!({"credits": {"remaining": 1, "refill": refill}}));
        assert_eq!(call("set", json!(3)).expect_ok(), json!({"remaining": 3, "refill": refill}), "KEYS-UPCRED-3");
        is(call("set", value).expect_ok(), json!(null));
        assert!(workspace.get(&key).get("credits").is_none(), "KEYS-UPCRED-3: unlimited");
        is(call("set", json!(1)).expect_ok(), json!(1));
        assert_eq!(workspace.get(&key)["credits"], json!({"remaining": 1}), "KEYS-UPCRED-4: the refill is gone");
    }
}

/// Concurrent increments, decrements and verifications lose nothing. KEYS-UPCRED-7, KEYS-CREDIT-4, COM-CON-04
#[test]
fn concurrent_credit_changes_add_up() {
    let workspace = Arc::new(Workspace::new());
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 100_000}}));
    let threads: Vec<_> =
        (0..9)
            .map(|n| {
                let (workspace, key) = (Arc::clone(&workspace), key.clone());
                std::thread::spawn(move || {
                    for _ in 0..40 {
                        match n % 3 {
                            0 => drop(workspace.ok(
                                "keys.updateCredits",
                                json!({"keyId": key.id, "operation": "increment", "value": 7}),
                            )),
                            1 => drop(workspace.ok(
                                "keys.updateCredits",
                                json!({"keyId": key.id, "operation": "decrement", "value": 3}),
                            )),
                            _ => assert_eq!(workspace.code(&key, json!({"credits": {"cost": 2}})), "VALID"),
                        }
                    }
                })
            })
            .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(workspace.get(&key)["credits"]["remaining"], 100_000 + 120 * (7 - 3 - 2));
}

/// A deleted key is gone for everybody at once, softly or for good, and cannot be deleted again.
/// KEYS-DELETE-1, KEYS-DELETE-2, KEYS-DELETE-3, KEYS-DELETE-5, KEYS-DELETE-6, KEYS-GEN-24, KEYS-GEN-34, COM-CON-03, COM-ENV-05
#[test]
fn a_deleted_key_is_gone() {
    let workspace = Workspace::new();
    let api = workspace.api();
    for ask in [json!({}), json!({"permanent": false}), json!({"permanent": true})] {
        let key =
            workspace.key(&api, json!({"externalId": "owner", "permissions": ["a.b"], "credits": {"remaining": 3}}));
        assert_eq!(workspace.code(&key, json!({})), "VALID");
        assert_eq!(workspace.ok("keys.deleteKey", with(ask, "keyId", &key.id)), json!({}));
        assert_eq!(workspace.verify(&key, json!({})), json!({"valid": false, "code": "NOT_FOUND"}));
        let missing = "unkey/data/key_not_found";
        workspace.call("keys.getKey", json!({"keyId": key.id})).expect_problem(404, missing);
        workspace.call("keys.whoami", json!({"key": key.secret})).expect_problem(404, missing);
        workspace.call("keys.updateKey", json!({"keyId": key.id})).expect_problem(404, missing);
        let credits = json!({"keyId": key.id, "operation": "set", "value": 1});
        workspace.call("keys.updateCredits", credits).expect_problem(404, missing);
        for permanent in [false, true] {
            let again = json!({"keyId": key.id, "permanent": permanent});
            workspace.call("keys.deleteKey", again).expect_problem(404, missing);
        }
    }
    let kept = workspace.get(&workspace.key(&api, json!({"externalId": "owner", "permissions": ["a.b"]})));
    assert_eq!(kept["identity"]["externalId"], "owner", "KEYS-DELETE-3: identity and permission stay");
}

/// getKey with decrypt: read permission first, then the vault that is not there. KEYS-GET-2, KEYS-GEN-33, HASH-9, EXT-6
#[test]
fn decrypting_needs_a_vault() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    let body = json!({"keyId": key.id, "decrypt": true});
    let problem =
        workspace.call("keys.getKey", body.clone()).expect_problem(412, "unkey/application/precondition_failed");
    problem.mentioning("Vault hasn't been set up.");
    let weak = workspace.root_key(&["api.*.decrypt_key"]);
    let call = workspace.server.call("keys.getKey", body).bearer(&weak.secret);
    call.expect_problem(403, "unkey/authorization/insufficient_permissions");
    let plain = workspace.ok("keys.getKey", json!({"keyId": key.id, "decrypt": false}));
    assert!(plain.get("plaintext").is_none() && plain.get("hash").is_none(), "KEYFMT-6");
}

/// whoami finds by the exact string and charges nothing. KEYS-WHOAMI-1, KEYS-WHOAMI-2, KEYS-WHOAMI-3, KEYS-WHOAMI-4, KEYFMT-7,
/// KEYS-ANALYTICS-5, HASH-2
#[test]
fn whoami_looks_up_exactly_and_charges_nothing() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let limit = json!([{"name": "abc", "limit": 1, "duration": 3_600_000, "autoApply": true}]);
    let key =
        workspace.key(&api, json!({"credits": {"remaining": 1}, "ratelimits": limit, "permissions": ["z.z", "a.a"]}));
    let first = workspace.ok("keys.whoami", json!({"key": key.secret}));
    for _ in 0..3 {
        assert_eq!(workspace.ok("keys.whoami", json!({"key": key.secret})), first);
    }
    assert_eq!(first["permissions"], json!(["a.a", "z.z"]));
    assert!(first.get("lastUsedAt").is_none() && first.get("plaintext").is_none());
    assert_eq!(workspace.code(&key, json!({})), "VALID", "the one credit and the one call are still there");
    for near in
        [format!(" {}", key.secret), format!("{} ", key.secret), key.secret.to_uppercase(), key.secret[1..].to_owned()]
    {
        workspace.call("keys.whoami", json!({"key": near})).expect_problem(404, "unkey/data/key_not_found");
        assert_eq!(workspace.ok("keys.verifyKey", json!({"key": near}))["code"], "NOT_FOUND", "KEYFMT-7");
    }
}

/// Times of records come from the request's clock, with millisecond precision. KEYS-GEN-10, HASH-11, KEYS-CREATE-10, COM-ENV-07
#[test]
fn times_of_records_are_the_requests() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    let key = workspace.key_at(&api, json!({"expires": NOON + 1}), NOON);
    let got = workspace.get_at(&key, NOON);
    assert_eq!((got["createdAt"].as_i64(), got["expires"].as_i64()), (Some(NOON), Some(NOON + 1)));
    workspace.call("keys.updateKey", json!({"keyId": key.id, "name": "n"})).at(NOON + 5 * DAY + 7).expect_ok();
    assert_eq!(workspace.get_at(&key, NOON + 6 * DAY)["updatedAt"], NOON + 5 * DAY + 7);
    let credits = json!({"keyId": key.id, "operation": "set", "value": 1});
    workspace.call("keys.updateCredits", credits).at(NOON + 6 * DAY).expect_ok();
    assert_eq!(workspace.get_at(&key, NOON + 6 * DAY)["updatedAt"], NOON + 6 * DAY, "KEYS-GEN-37");
    let real = minted(&workspace.ok("keys.createKey", json!({"apiId": api})));
    assert!(workspace.get(&real)["createdAt"].as_i64().unwrap() > 1_700_000_000_000);
    let ignored = workspace.call("keys.createKey", json!({"apiId": api})).header("X-Test-Time", "noon");
    let ignored = workspace.get(&minted(&ignored.expect_ok()));
    assert!(now() - ignored["createdAt"].as_i64().unwrap() < DAY, "RL-TIME-02: a value that is no integer is ignored");
}
