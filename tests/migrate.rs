//! keys.migrateKeys, migrations.*, and keys that are verified before anybody knows their own hash.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::world::code;
use crate::harness::{HOUR, Key, NOON, Options, Server, Workspace, members};

const SEAM: &str = "github.com/seamapi/prefixed-api-key";

/// The hash of ours (HASH-1).
fn native(key: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(Sha256::digest(key))
}

/// The foreign hash: lower-case hex over the long token (HASH-4).
fn foreign(long: &str) -> String {
    Sha256::digest(long).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn migration(workspace: &Workspace, algorithm: &str) -> String {
    let made = workspace.ok("migrations.createMigration", json!({"name": "from elsewhere", "algorithm": algorithm}));
    assert_eq!(members(&made), ["migrationId"]);
    let id = made["migrationId"].as_str().unwrap().to_owned();
    assert!(id.starts_with("mig_"), "IDS-3: {id}");
    id
}

/// A workspace with an API and a migration.
struct Arrivals {
    workspace: Workspace,
    api: String,
    migration: String,
}

impl Arrivals {
    fn by(algorithm: &str) -> Arrivals {
        Arrivals::at(Workspace::new(), algorithm)
    }

    fn at(workspace: Workspace, algorithm: &str) -> Arrivals {
        let (api, migration) = (workspace.api(), migration(&workspace, algorithm));
        Arrivals { workspace, api, migration }
    }

    fn body(&self, keys: Value) -> Value {
        json!({"migrationId": self.migration, "apiId": self.api, "keys": keys})
    }

    /// Migrates keys: what the answer says, its shape checked.
    fn migrate(&self, keys: Value) -> (Vec<Key>, Vec<String>) {
        outcome(&self.workspace.ok("keys.migrateKeys", self.body(keys)))
    }

    /// Migrates one key and demands that it is taken.
    fn one(&self, key: Value) -> Key {
        let (mut migrated, failed) = self.migrate(json!([key]));
        assert_eq!((migrated.len(), failed), (1, vec![]));
        migrated.remove(0)
    }

    /// Verifies a plaintext, with this migration.
    fn present(&self, key: &str) -> Value {
        self.workspace.ok("keys.verifyKey", json!({"key": key, "migrationId": self.migration}))
    }

    /// Verifies a plaintext, without one.
    fn verify(&self, key: &str) -> Value {
        self.workspace.ok("keys.verifyKey", json!({"key": key}))
    }

    fn get(&self, key: &Key) -> Value {
        self.workspace.get(key)
    }
}

/// The keys of an answer, with their hashes as secrets, and the hashes that failed.
fn outcome(data: &Value) -> (Vec<Key>, Vec<String>) {
    assert_eq!(members(data), ["failed", "migrated"], "KEYS-MIGRATE-11");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let migrated = data["migrated"].as_array().unwrap_or_else(|| panic!("KEYS-MIGRATE-11: {data}"));
    let failed = data["failed"].as_array().unwrap_or_else(|| panic!("KEYS-MIGRATE-11: {data}"));
    let key = |row: &Value| {
        assert_eq!(members(row), ["hash", "keyId"], "KEYS-MIGRATE-11");
        Key { id: text(&row["keyId"]), secret: text(&row["hash"]) }
    };
    (migrated.iter().map(key).collect(), failed.iter().map(text).collect())
}

fn gone() -> Value {
    json!({"valid": false, "code": "NOT_FOUND"})
}

/// Keys that come with a hash of ours are like any other at once, in the order of the request, with all they were given;
/// what has another shape is taken and never matches. KEYS-MIGRATE-1, KEYS-MIGRATE-2, KEYS-MIGRATE-4, KEYS-MIGRATE-5,
/// KEYS-MIGRATE-10, KEYS-MIGRATE-11, KEYS-OBJ-6, KEYFMT-5, HASH-1, HASH-3, EXT-13, KEYS-REROLL-4
#[test]
fn keys_with_a_hash_of_ours_verify_at_once() {
    let arrivals = Arrivals::by("sha256");
    let full = json!({
        "hash": native("old_secret_1"), "name": "the first", "externalId": "any chars: ü/ö \u{1f511}", "meta": {"n": 9_007_199_254_740_993_i64},
        "roles": ["admin", "Admin", "a role"], "permissions": ["b.write", "a.read", "B.WRITE"], "expires": 4_102_444_800_000_i64,
        "credits": {"remaining": 5, "refill": {"interval": "daily", "amount": 7, "refillDay": 3}},
        "ratelimits": [{"name": "rpm", "limit": 3, "duration": 60_000, "autoApply": true, "unknown": 1}],
    });
    let hex = foreign("old_secret_2");
    let (keys, failed) = arrivals.migrate(json!([
        full, {"hash": native("old_secret_2"), "enabled": false, "credits": {"remaining": null}}, {"hash": hex},
        {"hash": "x".repeat(256), "credits": {"remaining": 0}}, {"hash": "abc", "expires": 1}
    ]));
    assert_eq!(failed, Vec::<String>::new());
    let hashes: Vec<&str> = keys.iter().map(|key| key.secret.as_str()).collect();
    let sent = [native("old_secret_1"), native("old_secret_2"), hex.clone(), "x".repeat(256), "abc".into()];
    assert_eq!(hashes, sent, "KEYS-MIGRATE-11: the order of the request");

    let data = arrivals.verify("old_secret_1");
    assert_eq!((code(&data), &data["credits"], &data["keyId"]), ("VALID".into(), &json!(4), &json!(keys[0].id)));
    assert_eq!(data["permissions"], json!(["a.read", "b.write"]));
    assert_eq!(data["roles"], json!(["a role", "admin"]), "KEYS-MIGRATE-6, KEYS-GEN-17");
    assert_eq!(data["ratelimits"][0]["remaining"], 2);
    assert_eq!(data["identity"]["externalId"], "any chars: ü/ö \u{1f511}");
    let got = arrivals.get(&keys[0]);
    assert_eq!(got["start"], "", "KEYS-MIGRATE-5, KEYFMT-5");
    assert_eq!(got["meta"], json!({"n": 9_007_199_254_740_993_i64}));
    assert_eq!(got["credits"]["refill"], json!({"interval": "daily", "amount": 7}), "KEYS-CREATE-5");
    assert!(got.get("updatedAt").is_none(), "KEYS-MIGRATE-5");
    assert_eq!(code(&arrivals.verify("old_secret_2")), "DISABLED");
    assert!(arrivals.get(&keys[1]).get("credits").is_none(), "KEYS-MIGRATE-10");
    for odd in [hex.as_str(), &"x".repeat(256), "abc"] {
        assert_eq!(arrivals.verify(odd), gone(), "a hash is no key");
        assert_eq!(arrivals.present(odd), gone());
    }
    assert_eq!(code(&arrivals.present("old_secret_1")), "VALID", "a migrationId does not hurt");

    // Nobody knows its prefix, so the API's is taken.
    arrivals.workspace.ok("apis.updateApi", json!({"apiId": arrivals.api, "defaultPrefix": "new"}));
    let rerolled = arrivals.workspace.ok("keys.rerollKey", json!({"keyId": keys[0].id, "expiration": HOUR}));
    assert!(rerolled["key"].as_str().unwrap().starts_with("new_"), "KEYS-REROLL-4: {rerolled}");
}

/// A foreign key verifies with its migration, once; from then on it is like any other, with a start and a hash of its own.
/// KEYS-MIGRATE-4, KEYS-MIGRATE-5, KEYS-MIGRATE-13, KEYS-MIGRATE-16, HASH-4, HASH-5, KEYS-GEN-37, KEYFMT-5, KEYS-VERIFY-2,
/// IDS-3
#[test]
fn a_foreign_key_is_adopted_when_it_is_presented() {
    let arrivals = Arrivals::at(Workspace::timed(), SEAM);
    let (short, long) = ("BRTRKFsL", "51FwqftsmMDHHbJAMEXXHCgG");
    let presented = format!("re_{short}_{long}");
    let key = arrivals.one(json!({"hash": foreign(long), "credits": {"remaining": 10}}));
    assert_eq!(arrivals.get(&key)["start"], "");
    assert_eq!(arrivals.verify(&presented), gone(), "not without its migration");
    for nobody in [presented.as_str(), &foreign(long), long] {
        arrivals.workspace.call("keys.whoami", json!({"key": nobody})).expect_problem(404, "unkey/data/key_not_found");
    }

    let call = arrivals.workspace.call("keys.verifyKey", json!({"key": presented, "migrationId": arrivals.migration}));
    let first = call.at(NOON).expect_ok();
    assert_eq!((code(&first), &first["credits"], &first["keyId"]), ("VALID".into(), &json!(9), &json!(key.id)));
    let second = arrivals.workspace.call("keys.verifyKey", json!({"key": presented})).at(NOON).expect_ok();
    assert_eq!((code(&second), &second["credits"]), ("VALID".into(), &json!(8)));
    let got = arrivals.get(&key);
    assert_eq!(got["start"], presented[..7], "KEYS-MIGRATE-16");
    assert_eq!(got["updatedAt"], NOON, "KEYS-GEN-37");
    assert_eq!(
        arrivals.workspace.ok("keys.whoami", json!({"key": presented})),
        got,
        "KEYS-MIGRATE-16: its hash is its own"
    );
    let taken = Arrivals {
        migration: migration(&arrivals.workspace, "sha256"),
        workspace: arrivals.workspace,
        api: arrivals.api,
    };
    assert_eq!(taken.migrate(json!([{"hash": native(&presented)}])).1, [native(&presented)], "KEYS-MIGRATE-16");
    let rerolled = taken.workspace.ok("keys.rerollKey", json!({"keyId": key.id, "expiration": HOUR}));
    assert!(rerolled["key"].as_str().unwrap().starts_with("re_"), "KEYS-REROLL-4: {rerolled}");
}

/// What is no way to a foreign key: another migration, one that is not lazy, one of nobody's or of another workspace, too few
/// parts, and a stored hash in place of a key. Nothing of it changes the key.
/// KEYS-MIGRATE-13, KEYS-MIGRATE-14, HASH-3, HASH-4, COM-RK-09
#[test]
fn only_its_own_migration_leads_to_a_foreign_key() {
    let arrivals = Arrivals::by(SEAM);
    let long = "51FwqftsmMDHHbJAMEXXHCgG";
    let key = arrivals.one(json!({"hash": foreign(long)}));
    let strange = Arrivals::at(arrivals.workspace.neighbour(), SEAM);
    let presented = format!("re_short_{long}");
    let verify = |key: &str, migration: &str| {
        arrivals.workspace.ok("keys.verifyKey", json!({"key": key, "migrationId": migration}))
    };
    let others = [
        migration(&arrivals.workspace, SEAM),
        migration(&arrivals.workspace, "sha256"),
        strange.migration.clone(),
        "mig_0123456789abcdef".into(),
        "no migration at all".into(),
        String::new(),
    ];
    for other in &others {
        assert_eq!(verify(&presented, other), gone(), "KEYS-MIGRATE-14: {other:?}");
    }
    for malformed in [
        long,
        &format!("re_{long}"),
        &format!("_{long}"),
        "___",
        &foreign(long),
        &format!("re_short_{}", foreign(long)),
    ] {
        assert_eq!(verify(malformed, &arrivals.migration), gone(), "KEYS-MIGRATE-13: {malformed}");
    }
    assert_eq!(strange.present(&presented), gone(), "COM-RK-09");
    // The same hash in another workspace is another key.
    let theirs = strange.one(json!({"hash": foreign(long)}));
    assert_eq!(strange.present(&presented)["keyId"], theirs.id.as_str());
    let got = arrivals.get(&key);
    assert!(got["start"] == "" && got.get("updatedAt").is_none(), "nothing was rewritten: {got}");
    assert_eq!(arrivals.present(&presented)["keyId"], key.id.as_str());
    assert_eq!(strange.workspace.ok("keys.verifyKey", json!({"key": presented}))["keyId"], theirs.id.as_str());
}

/// Only a caller who may verify the key makes it its own; then it does not matter what the verification says.
/// KEYS-MIGRATE-13, KEYS-VERIFY-2, EXT-19
#[test]
fn only_one_who_may_verify_adopts_a_key() {
    let arrivals = Arrivals::by(SEAM);
    let workspace = &arrivals.workspace;
    let other = workspace.api();
    let key = |long: &str, mut members: Value| {
        members["hash"] = foreign(long).into();
        arrivals.one(members)
    };
    let plain = key("plain", json!({}));
    let pending = |key: &Key| arrivals.get(key)["start"] == "";
    let weak = workspace.root_key(&[&format!("api.{other}.verify_key"), "api.*.read_key"]);
    let ask = json!({"key": "re_s_plain", "migrationId": arrivals.migration});
    assert_eq!(workspace.server.call("keys.verifyKey", ask.clone()).bearer(&weak.secret).expect_ok(), gone());
    assert!(pending(&plain), "KEYS-MIGRATE-13: not by one who may not");
    let mut elsewhere = ask.clone();
    elsewhere["keyspaces"] = json!(["ks_elsewhere"]);
    assert_eq!(workspace.ok("keys.verifyKey", elsewhere), gone());
    assert!(pending(&plain), "EXT-19: costs nothing");
    let enough = workspace.root_key(&[&format!("api.{}.verify_key", arrivals.api)]);
    assert_eq!(code(&workspace.server.call("keys.verifyKey", ask).bearer(&enough.secret).expect_ok()), "VALID");

    for (long, members, wanted) in [
        ("disabled", json!({"enabled": false}), "DISABLED"),
        ("expired", json!({"expires": 1}), "EXPIRED"),
        ("used", json!({"credits": {"remaining": 0}}), "USAGE_EXCEEDED"),
    ] {
        let key = key(long, members);
        assert_eq!(code(&arrivals.present(&format!("re_s_{long}"))), wanted);
        assert!(!pending(&key), "{wanted}");
        assert_eq!(code(&arrivals.verify(&format!("re_s_{long}"))), wanted, "without its migration from then on");
    }
    // A query that does not parse is told after the key was found.
    let odd = key("odd", json!({}));
    let ask = json!({"key": "re_s_odd", "migrationId": arrivals.migration, "permissions": "a AND"});
    workspace.call("keys.verifyKey", ask).expect_problem(400, "user/bad_request/permissions_query_syntax_error");
    assert!(!pending(&odd));
}

/// Somebody who presents the long token behind a prefix of his own locks nobody out: with its migration the key verifies in
/// every spelling, from one purse. KEYS-MIGRATE-15, KEYS-CREDIT-4
#[test]
fn a_wrong_prefix_locks_nobody_out() {
    let arrivals = Arrivals::by(SEAM);
    let key = arrivals.one(json!({"hash": foreign("LONG"), "credits": {"remaining": 6}}));
    assert_eq!(arrivals.present("x_y_LONG")["credits"], 5);
    assert_eq!(arrivals.verify("re_short_LONG"), gone());
    let right = arrivals.present("re_short_LONG");
    assert_eq!((code(&right), &right["credits"], &right["keyId"]), ("VALID".into(), &json!(4), &json!(key.id)));
    assert_eq!(arrivals.verify("x_y_LONG")["credits"], 3);
    assert_eq!(arrivals.get(&key)["start"], "x_y_LO", "the first presentation counts");
    // Whatever is read and changed in between, there is one balance.
    arrivals.workspace.update(&key, json!({"name": "renamed"}));
    assert_eq!(arrivals.present("re_short_LONG")["credits"], 2);
    arrivals.workspace.ok("keys.updateCredits", json!({"keyId": key.id, "operation": "set", "value": 2}));
    assert_eq!(arrivals.verify("x_y_LONG")["credits"], 1);
    assert_eq!(arrivals.present("z_z_LONG")["credits"], 0);
    assert_eq!(code(&arrivals.present("re_short_LONG")), "USAGE_EXCEEDED");
    assert_eq!(arrivals.get(&key)["credits"]["remaining"], 0);
}

/// First presentations at once, in one spelling and in several, all succeed and spend from one purse, while others read the
/// key by its id. KEYS-MIGRATE-15, KEYS-CREDIT-4, KEYS-GEN-34
#[test]
fn concurrent_first_presentations_all_succeed() {
    let arrivals = Arc::new(Arrivals::by(SEAM));
    for round in 0..10 {
        let long = format!("LONG{round}");
        let key = arrivals.one(json!({"hash": foreign(&long), "credits": {"remaining": 100}}));
        let presenters: Vec<_> = (0..6)
            .map(|number| {
                let (arrivals, presented) = (Arc::clone(&arrivals), format!("re{}_short_{long}", number % 3));
                std::thread::spawn(move || code(&arrivals.present(&presented)))
            })
            .collect();
        let reader = {
            let (arrivals, key) = (Arc::clone(&arrivals), key.clone());
            std::thread::spawn(move || (0..5).for_each(|_| drop(arrivals.get(&key))))
        };
        for presenter in presenters {
            assert_eq!(presenter.join().unwrap(), "VALID");
        }
        reader.join().unwrap();
        assert_eq!(arrivals.get(&key)["credits"]["remaining"], 94, "one purse");
        let spellings = (0..3).filter(|number| code(&arrivals.verify(&format!("re{number}_short_{long}"))) == "VALID");
        assert_eq!(spellings.count(), 1, "one spelling is the key's own");
    }
}

/// A hash that some key of the workspace has is told as failed and changes nothing, also that of a deleted key; a permanent
/// delete frees it, and the foreign one with it. Repeating a call makes nothing.
/// KEYS-MIGRATE-8, KEYS-MIGRATE-11, KEYS-DELETE-2, KEYS-DELETE-3, HASH-3
#[test]
fn a_hash_is_taken_until_its_key_is_purged() {
    let arrivals = Arrivals::by("sha256");
    let workspace = &arrivals.workspace;
    let made = workspace.key(&arrivals.api, json!({}));
    let items = json!([
        {"hash": native("one")}, {"hash": native(&made.secret), "name": "not this one"}, {"hash": native("two")}, {"hash": "odd hash"}
    ]);
    let (keys, failed) = arrivals.migrate(items.clone());
    assert_eq!(
        keys.iter().map(|key| key.secret.as_str()).collect::<Vec<_>>(),
        [&native("one"), &native("two"), "odd hash"]
    );
    assert_eq!(failed, [native(&made.secret)]);
    assert!(workspace.get(&made).get("name").is_none(), "KEYS-MIGRATE-8: the other key is untouched");
    let hashes = [native("one"), native(&made.secret), native("two"), "odd hash".into()];
    let (again, failed) = arrivals.migrate(items.clone());
    assert_eq!((again.len(), failed), (0, hashes.to_vec()), "KEYS-MIGRATE-8, in the order of the request");
    let count = || workspace.all("apis.listKeys", json!({"apiId": arrivals.api}), 100).len();
    assert_eq!(count(), 4);
    workspace.ok("keys.deleteKey", json!({"keyId": keys[0].id}));
    workspace.ok("keys.deleteKey", json!({"keyId": keys[1].id, "permanent": true}));
    let (again, failed) = arrivals.migrate(items.clone());
    assert_eq!((again.len(), failed.len()), (1, 3), "soft-deleted keys keep their hashes");
    assert_eq!(again[0].secret, native("two"));
    assert_eq!((code(&arrivals.verify("two")), arrivals.verify("one")), ("VALID".into(), gone()));
    let elsewhere = Arrivals::at(workspace.neighbour(), "sha256");
    assert_eq!(elsewhere.migrate(items).1, Vec::<String>::new(), "HASH-3: per workspace");

    // A key that was adopted has two hashes.
    let lazy = Arrivals::at(workspace.neighbour(), SEAM);
    let key = lazy.one(json!({"hash": foreign("LONG")}));
    assert_eq!(code(&lazy.present("re_s_LONG")), "VALID");
    lazy.workspace.ok("keys.deleteKey", json!({"keyId": key.id}));
    for answer in [lazy.present("re_s_LONG"), lazy.verify("re_s_LONG"), lazy.present("x_y_LONG")] {
        assert_eq!(answer, gone(), "KEYS-DELETE-2");
    }
    assert_eq!(lazy.migrate(json!([{"hash": foreign("LONG")}])).1.len(), 1, "both hashes stay taken");

    let other = lazy.one(json!({"hash": foreign("OTHER")}));
    assert_eq!(code(&lazy.present("re_s_OTHER")), "VALID");
    lazy.workspace.ok("keys.deleteKey", json!({"keyId": other.id, "permanent": true}));
    assert_eq!((lazy.present("re_s_OTHER"), lazy.verify("re_s_OTHER")), (gone(), gone()));
    let third = lazy.one(json!({"hash": foreign("OTHER")}));
    assert_eq!(lazy.verify("re_s_OTHER"), gone(), "it is pending again");
    assert_eq!(lazy.present("re_s_OTHER")["keyId"], third.id.as_str(), "KEYS-DELETE-3: both hashes are free");
    // A pending one has one.
    let pending = lazy.one(json!({"hash": foreign("PENDING")}));
    lazy.workspace.ok("keys.deleteKey", json!({"keyId": pending.id, "permanent": true}));
    assert_eq!(lazy.present("re_s_PENDING"), gone());
    lazy.one(json!({"hash": foreign("PENDING")}));
}

/// Permission, API, migration, then the keys: in this order, and what is refused makes nothing, not even what it names.
/// KEYS-MIGRATE-3, KEYS-MIGRATE-9, KEYS-MIGRATE-10, KEYS-GEN-35, COM-RK-09
#[test]
fn a_call_is_checked_in_order_and_taken_whole() {
    let arrivals = Arrivals::by("sha256");
    let workspace = &arrivals.workspace;
    let invalid = json!([{"hash": "one", "roles": ["r"], "externalId": "e"}, {"hash": "one"}]);
    let ask = |api: &str, migration: &str, keys: &Value| json!({"apiId": api, "migrationId": migration, "keys": keys});
    let weak = workspace.root_key(&[&format!("api.{}.update_key", arrivals.api), "api.api_other.create_key"]);
    for (api, migration) in [(arrivals.api.as_str(), arrivals.migration.as_str()), ("no such api", "no such migration")]
    {
        let call = workspace.server.call("keys.migrateKeys", ask(api, migration, &invalid)).bearer(&weak.secret);
        call.expect_problem(403, "unkey/authorization/insufficient_permissions").mentioning("create_key");
    }
    let strange = Arrivals::at(workspace.neighbour(), "sha256");
    let deleted = workspace.api();
    workspace.ok("apis.deleteApi", json!({"apiId": deleted}));
    for api in ["no such api", "api_nowhere1", &strange.api, &deleted] {
        let call = workspace.call("keys.migrateKeys", ask(api, "no such migration", &invalid));
        let problem = call.expect_problem(404, "unkey/data/api_not_found");
        problem.saying("The requested API does not exist or has been deleted.");
    }
    for migration in ["no such migration", "mig_0123456789abcdef", &strange.migration] {
        let call = workspace.call("keys.migrateKeys", ask(&arrivals.api, migration, &invalid));
        let problem = call.expect_problem(404, "unkey/data/migration_not_found");
        problem.saying("The requested Migration does not exist or has been deleted.");
    }
    let refused = |keys: Value| {
        let call = workspace.call("keys.migrateKeys", arrivals.body(keys));
        call.expect_problem(400, "unkey/application/invalid_input")
    };
    refused(invalid).mentioning("keys[1].hash");
    let monthly = json!({"remaining": 1, "refill": {"interval": "monthly", "amount": 1}});
    refused(json!([{"hash": "one"}, {"hash": "two", "credits": monthly}]))
        .saying("`refillDay` must be provided when the refill interval is `monthly`.");
    let unlimited = json!({"remaining": null, "refill": {"interval": "daily", "amount": 1}});
    refused(json!([{"hash": "one", "credits": unlimited}]))
        .saying("`credits.remaining` must be provided when `credits.refill` is set.");
    let slugs = |item: usize| (0..1000).map(|n| format!("slug.{item}.{n}")).collect::<Vec<_>>();
    let many: Vec<Value> =
        (0..51).map(|item| json!({"hash": format!("hash {item}"), "permissions": slugs(item)})).collect();
    refused(json!(many)).mentioning("20000");
    assert_eq!(workspace.all("apis.listKeys", json!({"apiId": arrivals.api}), 100), Vec::<Value>::new(), "KEYS-GEN-35");
    // A role that was not made cannot be attached.
    let call = workspace.call("keys.createKey", json!({"apiId": arrivals.api, "roles": ["r"]}));
    call.expect_problem(404, "unkey/data/role_not_found");
    assert_eq!(arrivals.migrate(json!([{"hash": "one"}])).0.len(), 1);
}

/// As many keys as one call takes, all in one transaction: the next request finds every one. KEYS-MIGRATE-1, KEYS-MIGRATE-7
#[test]
fn ten_thousand_keys_come_in_one_call() {
    let arrivals = Arrivals::by("sha256");
    let item = |number: usize| json!({"hash": native(&format!("old_{number}")), "externalId": format!("user {}", number % 100), "roles": ["everyone"]});
    let items: Vec<Value> = (0..10_000).map(item).collect();
    let (keys, failed) = arrivals.migrate(json!(items));
    assert_eq!((keys.len(), failed.len()), (10_000, 0));
    assert_eq!(keys.iter().map(|key| &key.id).collect::<BTreeSet<_>>().len(), 10_000);
    for number in [0, 1, 4_999, 9_999] {
        let data = arrivals.verify(&format!("old_{number}"));
        assert_eq!((code(&data), &data["keyId"]), ("VALID".into(), &json!(keys[number].id)));
        assert_eq!(data["roles"], json!(["everyone"]));
    }
    let of_one = arrivals.workspace.all("apis.listKeys", json!({"apiId": arrivals.api, "externalId": "user 7"}), 30);
    assert_eq!(of_one.len(), 100, "KEYS-MIGRATE-7: one identity");
    let ids: BTreeSet<_> = of_one.iter().map(|key| key["identity"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 1, "KEYS-MIGRATE-7");
}

/// What was adopted stays adopted across `kill -9`, its credits with it, and what was pending is pending; aliases lead on.
/// KEYS-MIGRATE-13, KEYS-MIGRATE-15, COM-CON-02
#[test]
fn a_restart_forgets_no_adoption() {
    let server = Arc::new(Server::start());
    let arrivals = Arrivals::at(Workspace::on(&server), SEAM);
    let adopted = arrivals.one(json!({"hash": foreign("ADOPTED"), "credits": {"remaining": 10}}));
    arrivals.one(json!({"hash": foreign("PENDING"), "credits": {"remaining": 10}}));
    assert_eq!(arrivals.present("re_s_ADOPTED")["credits"], 9);
    arrivals.workspace.ok("keys.updateCredits", json!({"keyId": adopted.id, "operation": "decrement", "value": 4}));
    server.kill();
    let workspace = arrivals.workspace.moved(server.restart());
    let arrivals = Arrivals { workspace, api: arrivals.api, migration: arrivals.migration };
    assert_eq!(arrivals.verify("re_s_PENDING"), gone());
    assert_eq!(arrivals.present("re_s_PENDING")["credits"], 9);
    // By the alias first: nothing of the key is in memory.
    assert_eq!(arrivals.present("x_y_ADOPTED")["credits"], 4);
    assert_eq!(arrivals.verify("re_s_ADOPTED")["credits"], 3);
    assert_eq!(arrivals.get(&adopted)["start"], "re_s_AD");
    assert_eq!(arrivals.workspace.server.stop(), Some(0));
    let workspace = arrivals.workspace.moved(arrivals.workspace.server.restart());
    let arrivals = Arrivals { workspace, api: arrivals.api, migration: arrivals.migration };
    assert_eq!(arrivals.verify("re_s_ADOPTED")["credits"], 2);
    assert_eq!(arrivals.verify("re_s_PENDING")["credits"], 8, "it is its own now");
}

/// A full disk refuses the adoption and not the verification: the key goes on to verify with its migration and to spend from its
/// purse, until there is room. KEYS-MIGRATE-13, KEYS-MIGRATE-15, KEYS-CREDIT-4, COM-CODE-02
#[test]
fn a_full_disk_puts_an_adoption_off() {
    let server = Arc::new(Server::start());
    let arrivals = Arrivals::at(Workspace::on(&server), SEAM);
    let key = arrivals.one(json!({"hash": foreign("LONG"), "credits": {"remaining": 10}}));
    assert_eq!(server.stop(), Some(0));
    let moved = |arrivals: Arrivals, server: Server| {
        let workspace = arrivals.workspace.moved(server);
        Arrivals { workspace, api: arrivals.api, migration: arrivals.migration }
    };
    let full = Options::default().setting("KEYWARD_STORAGE_MIN_FREE_BYTES", 1_u64 << 40);
    let arrivals = moved(arrivals, server.restart_with(full));
    let change = arrivals.workspace.call("apis.createApi", json!({"name": "an api"}));
    if arrivals.workspace.server.exchange(change.ask()).status == 200 {
        println!("this machine has a terabyte free; nothing was tested");
        return;
    }
    for (spelling, left) in [("re_s_LONG", 9), ("re_s_LONG", 8), ("x_y_LONG", 7)] {
        assert_eq!(arrivals.present(spelling)["credits"], left, "{spelling}");
        assert_eq!(arrivals.verify(spelling), gone());
    }
    assert_eq!(arrivals.get(&key)["start"], "", "it is still pending");
    assert_eq!(arrivals.workspace.server.stop(), Some(0));
    let server = arrivals.workspace.server.restart_with(Options::default());
    let arrivals = moved(arrivals, server);
    assert_eq!(arrivals.present("re_s_LONG")["credits"], 6);
    assert_eq!(arrivals.verify("re_s_LONG")["credits"], 5);
}

/// Migrations are listed page by page, by id, with what they were made with. EXT-13, COM-PAG-01, COM-PAG-02, COM-RK-09
#[test]
fn migrations_are_listed_page_by_page() {
    let workspace = Workspace::new();
    migration(&workspace.neighbour(), SEAM);
    let mut made: Vec<Value> = (0..5)
        .map(|number| {
            let algorithm = if number % 2 == 0 { "sha256" } else { SEAM };
            let name = format!("migration \u{fc} {number}");
            let made = workspace.ok("migrations.createMigration", json!({"name": name, "algorithm": algorithm}));
            json!({"id": made["migrationId"], "name": name, "algorithm": algorithm})
        })
        .collect();
    made.sort_by_key(|row| row["id"].as_str().unwrap().to_owned());
    for limit in [1, 2, 5, 100] {
        let mut listed = workspace.all("migrations.listMigrations", json!({}), limit);
        for row in &mut listed {
            let created = row.as_object_mut().unwrap().remove("createdAt");
            assert!(created.is_some_and(|at| at.as_i64().is_some_and(|at| at > NOON - 400 * 24 * HOUR)), "{row}");
        }
        assert_eq!(listed, made);
    }
}
