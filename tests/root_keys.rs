//! rootKeys.*: root keys that make, change and end root keys, and the ceiling none of them gets through.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::program::DataDir;
use crate::harness::world::{RootKey, minted};
use crate::harness::{ADMINISTRATOR, Ask, Connection, HOUR, MINUTE, NOON, Options, Server, Workspace, members, now};

const DENIED: &str = "unkey/authorization/insufficient_permissions";
const NO_KEY: &str = "unkey/data/key_not_found";
const UNKNOWN: &str = "unkey/authentication/key_not_found";
const PRECONDITION: &str = "unkey/application/precondition_failed";

/// A root key made over HTTP by another one's bearer.
fn make(workspace: &Workspace, bearer: &str, body: Value) -> RootKey {
    let made = minted(&workspace.server.call("rootKeys.createKey", body).bearer(bearer).expect_ok());
    assert!(made.secret.starts_with("unkey_") && made.id.starts_with("key_"), "KEYFMT-8: {made:?}");
    RootKey { id: made.id, secret: made.secret }
}

/// What a root key hears that asks for something `api.*.create_api` opens.
fn try_out(workspace: &Workspace, secret: &str) -> u16 {
    workspace.server.call("apis.createApi", json!({"name": "an api"})).bearer(secret).send().status
}

/// The row of a root key in the list.
fn row(workspace: &Workspace, id: &str) -> Option<Value> {
    workspace.all("rootKeys.listKeys", json!({}), 100).into_iter().find(|row| row["keyId"] == id)
}

fn administrator(workspace: &Workspace) -> String {
    format!("unkey:v1:{}:{ADMINISTRATOR}", workspace.id)
}

/// A root key made over HTTP works at once with what it was given in either spelling, is listed without its secret, and
/// each change of it holds for the very next request of its connection. EXT-12, COM-RK-07, COM-CON-01, KEYFMT-6, KEYFMT-8
#[test]
fn a_root_key_is_changed_for_the_very_next_request() {
    let workspace = Workspace::new();
    let call = |operation: &str, mut body: Value, id: &str| {
        body["keyId"] = id.into();
        assert_eq!(workspace.ok(operation, body), json!({}));
    };
    let wide = format!("unkey:v1:{}:keyspaces/**#read_key", workspace.id);
    let body = json!({"permissions": ["b.c.d", "api.*.create_api", wide, "b.c.d"], "name": "ci"});
    let key = make(&workspace, &workspace.root, body);
    let mut connection = Connection::open(workspace.server.addr).unwrap();
    let ask: Ask = workspace.server.call("apis.createApi", json!({"name": "an api"})).bearer(&key.secret).ask().clone();
    let mut heard = || {
        assert!(connection.usable());
        let reply = connection.exchange(&ask).unwrap();
        let code = reply.json["error"]["type"].as_str().unwrap_or_default();
        (reply.status, code.rsplit("/errors/").next().unwrap().to_owned())
    };
    let refusal = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(heard().0, 200);
    let listed = row(&workspace, &key.id).unwrap();
    let wanted = ["createdAt", "enabled", "end", "expires", "keyId", "lastUsedAt", "name", "permissions", "start"];
    assert_eq!(members(&listed), wanted, "sdk-notes section 8: every member is there");
    assert_eq!(listed["permissions"], json!(["api.*.create_api", "b.c.d", wide]), "sorted, each once");
    assert_eq!((&listed["name"], &listed["expires"], &listed["lastUsedAt"]), (&json!("ci"), &json!(null), &json!(0)));
    assert!(key.secret.starts_with(listed["start"].as_str().unwrap()), "KEYFMT-5: {listed}");
    assert!(key.secret.ends_with(listed["end"].as_str().unwrap()) && listed["end"] != "", "{listed}");
    assert!(!listed.to_string().contains(&key.secret), "KEYFMT-6");

    call("rootKeys.updateKey", json!({"enabled": false, "name": null}), &key.id);
    assert_eq!(heard(), refusal(403, "unkey/authorization/key_disabled"));
    let listed = row(&workspace, &key.id).unwrap();
    assert_eq!((&listed["enabled"], &listed["name"]), (&json!(false), &json!(null)));
    call("rootKeys.updateKey", json!({"enabled": true}), &key.id);
    assert_eq!(heard().0, 200);
    call("rootKeys.updateKey", json!({"permissions": []}), &key.id);
    assert_eq!(heard(), refusal(403, DENIED));
    call("rootKeys.updateKey", json!({"permissions": [administrator(&workspace)], "name": "x"}), &key.id);
    assert_eq!(heard().0, 200);
    call("rootKeys.updateKey", json!({}), &key.id);
    let listed = row(&workspace, &key.id).unwrap();
    assert_eq!((&listed["name"], &listed["permissions"]), (&json!("x"), &json!([administrator(&workspace)])));
    call("rootKeys.deleteKey", json!({}), &key.id);
    assert_eq!(heard(), refusal(401, UNKNOWN));
    assert_eq!(row(&workspace, &key.id), None);
    for (operation, body) in [
        ("rootKeys.deleteKey", json!({"keyId": key.id})),
        ("rootKeys.updateKey", json!({"keyId": key.id, "enabled": true})),
        ("rootKeys.rerollKey", json!({"keyId": key.id, "expiration": null})),
    ] {
        workspace.call(operation, body).expect_problem(404, NO_KEY);
    }
    assert_eq!(heard(), refusal(401, UNKNOWN), "nothing brings it back");
}

/// A root key grants what it holds itself and what a grant of its own covers, and not a letter more: 403 naming what it
/// lacks, and nothing is made. EXT-12, PM-URN-02, PM-URN-03, PM-URN-04, PM-URN-05, PM-TUP-02, PM-EVAL-04
#[test]
fn a_root_key_grants_what_it_holds() {
    let workspace = Workspace::new();
    let ws = &workspace.id;
    let urn = |rest: &str| format!("unkey:v1:{ws}:{rest}");
    let foreign = format!("unkey:v1:{}:keyspaces/ks_1#create_key", workspace.neighbour().id);
    let held = [
        "root_key.*.create_root_key".to_owned(),
        "api.*.read_key".to_owned(),
        "api.api_1.update_key".to_owned(),
        "documents.read".to_owned(),
        urn("keyspaces/*#create_key"),
        urn("ratelimits/**#read_override"),
    ];
    let held: Vec<&str> = held.iter().map(String::as_str).collect();
    let maker = workspace.root_key(&held);
    let before = workspace.all("rootKeys.listKeys", json!({}), 100).len();
    for lacking in [
        "api.*.update_key".to_owned(),
        "api.api_2.update_key".to_owned(),
        "API.*.READ_KEY".to_owned(),
        "api.*.*".to_owned(),
        "*".to_owned(),
        "documents.write".to_owned(),
        "documents.*".to_owned(),
        "root_key.*.update_root_key".to_owned(),
        urn("**#*"),
        urn("**#create_key"),
        urn("keyspaces/**#create_key"),
        urn("keyspaces/ks_1/keys/key_1#create_key"),
        urn("keyspaces/ks_1#read_keyspace"),
        urn("ratelimits/**#*"),
        foreign,
        format!("unkey:v1:{ws}x:keyspaces/ks_1#create_key"),
    ] {
        let body = json!({"permissions": ["documents.read", lacking]});
        let refused = workspace.server.call("rootKeys.createKey", body).bearer(&maker.secret);
        let refused = refused.expect_problem(403, DENIED);
        refused.mentioning(&format!("Missing permission: '{lacking}'"));
    }
    assert_eq!(workspace.all("rootKeys.listKeys", json!({}), 100).len(), before, "nothing was made");
    for covered in [
        "api.*.read_key".to_owned(),
        "api.api_7.read_key".to_owned(),
        "api.api_1.update_key".to_owned(),
        "documents.read".to_owned(),
        "root_key.key_1.create_root_key".to_owned(),
        urn("keyspaces/ks_1#create_key"),
        urn("keyspaces/*#create_key"),
        urn("ratelimits/namespaces/*/overrides/*#read_override"),
        urn("ratelimits/**#read_override"),
    ] {
        make(&workspace, &maker.secret, json!({"permissions": [covered]}));
    }
    let child = make(&workspace, &maker.secret, json!({"permissions": held}));
    make(&workspace, &child.secret, json!({"permissions": held}));
    let odd = json!({"permissions": ["anything at all", "unkey:v2:x#y", "x.y.z.", urn("**#*")]});
    make(&workspace, &workspace.root, odd);
}

/// Nobody takes hold of a root key that has more than its own, by changing, rerolling or deleting it; and none gets more
/// than its own by changing itself. EXT-12
#[test]
fn a_stronger_root_key_is_out_of_reach() {
    let workspace = Workspace::new();
    let manages = [
        "root_key.*.create_root_key",
        "root_key.*.read_root_key",
        "root_key.*.update_root_key",
        "root_key.*.delete_root_key",
    ];
    let manager = workspace.root_key(&[&manages[..], &["api.*.create_api"]].concat());
    let strong = workspace.root_key(&[&administrator(&workspace)]);
    let wider = workspace.root_key(&["api.*.create_api", "api.*.delete_api"]);
    let weak = workspace.root_key(&["api.*.create_api"]);
    let as_manager = |operation: &str, body: Value| workspace.server.call(operation, body).bearer(&manager.secret);
    for (target, missing) in [(&strong, administrator(&workspace)), (&wider, "api.*.delete_api".to_owned())] {
        for (operation, body) in [
            ("rootKeys.updateKey", json!({"keyId": target.id, "name": "mine now"})),
            ("rootKeys.updateKey", json!({"keyId": target.id, "enabled": false})),
            ("rootKeys.updateKey", json!({"keyId": target.id, "permissions": []})),
            ("rootKeys.rerollKey", json!({"keyId": target.id, "expiration": null})),
            ("rootKeys.rerollKey", json!({"keyId": target.id, "expiration": 0})),
            ("rootKeys.deleteKey", json!({"keyId": target.id})),
        ] {
            as_manager(operation, body).expect_problem(403, DENIED).mentioning(&missing);
        }
        assert_eq!(try_out(&workspace, &target.secret), 200, "a refused change changes nothing");
    }
    for target in [&manager, &weak] {
        let body = json!({"keyId": target.id, "permissions": ["api.*.create_api", "api.*.delete_api"]});
        as_manager("rootKeys.updateKey", body).expect_problem(403, DENIED).mentioning("api.*.delete_api");
    }
    as_manager("rootKeys.updateKey", json!({"keyId": weak.id, "permissions": ["api.*.create_api"]})).expect_ok();
    as_manager("rootKeys.updateKey", json!({"keyId": weak.id, "enabled": false})).expect_ok();
    assert_eq!(try_out(&workspace, &weak.secret), 403);
    as_manager("rootKeys.deleteKey", json!({"keyId": weak.id})).expect_ok();
    assert_eq!(try_out(&workspace, &weak.secret), 401);

    // What it gives up itself it can no longer give: the ceiling is what it holds now.
    let only = json!({"keyId": manager.id, "permissions": manages});
    as_manager("rootKeys.updateKey", only).expect_ok();
    as_manager("rootKeys.createKey", json!({"permissions": ["api.*.create_api"]})).expect_problem(403, DENIED);
    // Any key can be cut by one that holds as much, the last administrator's included.
    workspace.ok("rootKeys.updateKey", json!({"keyId": strong.id, "permissions": []}));
    workspace.ok("rootKeys.deleteKey", json!({"keyId": manager.id}));
}

/// A permission with an id reaches that root key only, also in the list; without any there is nothing to see.
/// EXT-12, PM-TAB-01, PM-TUP-02
#[test]
fn permissions_can_name_one_root_key() {
    let workspace = Workspace::new();
    let (one, other) = (workspace.root_key(&[]), workspace.root_key(&[]));
    let tuple = |action: &str| format!("root_key.{}.{action}", one.id);
    let urn = |action: &str| format!("unkey:v1:{}:rootKeys/{}#{action}", workspace.id, one.id);
    for grants in [
        [tuple("read_root_key"), tuple("update_root_key"), tuple("delete_root_key")],
        [urn("read"), urn("write"), urn("delete")],
    ] {
        let grants: Vec<&str> = grants.iter().map(String::as_str).collect();
        let narrow = workspace.root_key(&grants);
        let call = |operation: &str, body: Value| workspace.server.call(operation, body).bearer(&narrow.secret);
        let (rows, cursor) = call("rootKeys.listKeys", json!({"limit": 1})).expect_page();
        assert_eq!((rows.len(), &rows[0]["keyId"], cursor), (1, &json!(one.id), None));
        call("rootKeys.updateKey", json!({"keyId": one.id, "name": "renamed"})).expect_ok();
        let next = minted(&call("rootKeys.rerollKey", json!({"keyId": one.id, "expiration": null})).expect_ok());
        for (operation, body) in [
            ("rootKeys.updateKey", json!({"keyId": other.id, "name": "renamed"})),
            ("rootKeys.rerollKey", json!({"keyId": other.id, "expiration": 0})),
            ("rootKeys.deleteKey", json!({"keyId": next.id})),
            ("rootKeys.deleteKey", json!({"keyId": "key_nowhere"})),
            ("rootKeys.createKey", json!({"permissions": []})),
        ] {
            call(operation, body).expect_problem(403, DENIED);
        }
    }
    let last = workspace.root_key(&[&urn("delete")]);
    workspace.server.call("rootKeys.deleteKey", json!({"keyId": one.id})).bearer(&last.secret).expect_ok();
    let reads_only = workspace.root_key(&["root_key.*.read_root_key"]);
    let call = workspace.server.call("rootKeys.updateKey", json!({"keyId": other.id})).bearer(&reads_only.secret);
    call.expect_problem(403, DENIED).mentioning("update_root_key");
}

/// No root key disables or deletes itself; it may shrink, rename and reroll itself. EXT-12
#[test]
fn a_root_key_does_not_end_itself() {
    let workspace = Workspace::new();
    let own = workspace.root_key(&[&administrator(&workspace)]);
    let call = |operation: &str, body: Value, secret: &str| {
        let mut body = body;
        body["keyId"] = own.id.as_str().into();
        workspace.server.call(operation, body).bearer(secret).expect_problem(412, PRECONDITION);
    };
    call("rootKeys.updateKey", json!({"enabled": false}), &own.secret);
    call("rootKeys.updateKey", json!({"enabled": false, "name": "x"}), &own.secret);
    call("rootKeys.deleteKey", json!({}), &own.secret);
    let server = &workspace.server;
    let same = json!({"keyId": own.id, "enabled": true, "name": "renamed"});
    server.call("rootKeys.updateKey", same).bearer(&own.secret).expect_ok();
    let reroll = json!({"keyId": own.id, "expiration": 0});
    let next = minted(&server.call("rootKeys.rerollKey", reroll).bearer(&own.secret).expect_ok());
    assert_eq!((try_out(&workspace, &own.secret), try_out(&workspace, &next.secret)), (401, 200));
    let narrow = json!({"keyId": next.id, "permissions": ["api.*.create_api"]});
    server.call("rootKeys.updateKey", narrow).bearer(&next.secret).expect_ok();
    server.call("rootKeys.listKeys", json!({})).bearer(&next.secret).expect_problem(403, DENIED);
}

/// Another workspace's root keys, and keys of APIs, are no root keys of this one. COM-RK-09, KEYFMT-8, IDS-4, EXT-12
#[test]
fn foreign_root_keys_are_not_there() {
    let workspace = Workspace::new();
    let stranger = workspace.neighbour();
    let theirs = stranger.root_key(&["api.*.create_api"]);
    let key = workspace.key(&workspace.api(), json!({}));
    for id in [theirs.id.as_str(), &key.id, "key_nowhere", "wrong_abc", "abc"] {
        let mut told = Vec::new();
        for (operation, body) in [
            ("rootKeys.updateKey", json!({"keyId": id, "enabled": false})),
            ("rootKeys.rerollKey", json!({"keyId": id, "expiration": 0})),
            ("rootKeys.deleteKey", json!({"keyId": id})),
        ] {
            told.push(workspace.call(operation, body).expect_problem(404, NO_KEY).body);
        }
        assert!(told.iter().all(|body| *body == told[0]));
    }
    assert_eq!((try_out(&workspace, &theirs.secret), row(&workspace, &theirs.id)), (200, None));
    let listed = workspace.all("rootKeys.listKeys", json!({}), 1);
    assert_eq!(listed.len(), 1, "the workspace's own: {listed:?}");
}

/// A reroll copies name, permissions, state and expiry; the old one goes on, goes on for a while, or ends at once, and
/// never lives longer than it would have. EXT-12, COM-RK-02, KEYS-REROLL-6, KEYS-REROLL-8
#[test]
fn a_reroll_keeps_everything_but_the_secret() {
    let workspace = Workspace::timed();
    let out = |secret: &str, at: i64| {
        let call = workspace.server.call("apis.createApi", json!({"name": "an api"})).bearer(secret);
        call.at(at).send().status
    };
    let reroll = |id: &str, expiration: Value| {
        let call = workspace.call("rootKeys.rerollKey", json!({"keyId": id, "expiration": expiration})).at(NOON);
        let next = minted(&call.expect_ok());
        RootKey { id: next.id, secret: next.secret }
    };
    let body = json!({"permissions": ["api.*.create_api"], "name": "ci", "expires": NOON + HOUR});
    let made = minted(&workspace.call("rootKeys.createKey", body).at(NOON).expect_ok());
    let equal = |one: &str, other: &str| {
        let (one, other) = (row(&workspace, one).unwrap(), row(&workspace, other).unwrap());
        for name in ["name", "permissions", "enabled"] {
            assert_eq!(one[name], other[name], "{name}");
        }
        assert_ne!(one["end"], other["end"]);
        (one["expires"].as_i64(), other["expires"].as_i64())
    };
    let second = reroll(&made.id, json!(null));
    assert_eq!(equal(&made.id, &second.id), (Some(NOON + HOUR), Some(NOON + HOUR)));
    assert_eq!((out(&made.secret, NOON), out(&second.secret, NOON)), (200, 200));

    let third = reroll(&second.id, json!(MINUTE));
    assert_eq!(equal(&second.id, &third.id), (Some(NOON + MINUTE), Some(NOON + HOUR)));
    assert_eq!((out(&second.secret, NOON + MINUTE), out(&second.secret, NOON + MINUTE + 1)), (200, 403));
    assert_eq!((out(&third.secret, NOON + HOUR), out(&third.secret, NOON + HOUR + 1)), (200, 403));

    let fourth = reroll(&third.id, json!(30 * HOUR));
    assert_eq!(equal(&third.id, &fourth.id), (Some(NOON + HOUR), Some(NOON + HOUR)), "KEYS-REROLL-6");

    let fifth = reroll(&fourth.id, json!(0));
    assert_eq!((out(&fourth.secret, NOON), out(&fifth.secret, NOON)), (401, 200));
    assert_eq!(row(&workspace, &fourth.id), None);

    workspace.ok("rootKeys.updateKey", json!({"keyId": fifth.id, "enabled": false}));
    let sixth = reroll(&fifth.id, json!(null));
    assert_eq!(equal(&fifth.id, &sixth.id), (Some(NOON + HOUR), Some(NOON + HOUR)));
    assert_eq!(out(&sixth.secret, NOON), 403, "KEYS-REROLL-8: a disabled one gives a disabled one");
}

/// Power is not handed to what lives longer: not by making, rerolling, enabling or granting; ending things is no matter of
/// age. EXT-12
#[test]
fn a_root_key_makes_nothing_that_outlives_it() {
    let workspace = Workspace::new();
    let expires = now() + HOUR;
    let everything = administrator(&workspace);
    let brief = workspace.root_key_with(&[&everything], &["--expires", &expires.to_string()]);
    let call = |operation: &str, body: Value| workspace.server.call(operation, body).bearer(&brief.secret);
    for longer in [json!({}), json!({"expires": null}), json!({"expires": expires + 1})] {
        let mut body = longer;
        body["permissions"] = json!(["documents.read"]);
        call("rootKeys.createKey", body).expect_problem(403, DENIED).mentioning("expires");
    }
    for past in [0, 1, now() - 1000] {
        let body = json!({"permissions": [], "expires": past});
        let problem = call("rootKeys.createKey", body).expect_problem(400, "unkey/application/invalid_input");
        assert!(problem.errors.is_empty(), "COM-ERR-03");
    }
    let child = make(&workspace, &brief.secret, json!({"permissions": [everything], "expires": expires}));
    let grandchild = json!({"permissions": ["documents.read"], "expires": expires - 1});
    make(&workspace, &child.secret, grandchild);

    let lasting = workspace.root_key(&["documents.read", "api.*.create_api"]);
    call("rootKeys.rerollKey", json!({"keyId": lasting.id, "expiration": 0})).expect_problem(403, DENIED);
    let more = json!({"keyId": lasting.id, "permissions": ["documents.read", "api.*.create_api", "api.*.read_api"]});
    call("rootKeys.updateKey", more).expect_problem(403, DENIED);
    call("rootKeys.updateKey", json!({"keyId": lasting.id, "permissions": ["api.*.create_api"], "name": "less"}))
        .expect_ok();
    assert_eq!(try_out(&workspace, &lasting.secret), 200);
    call("rootKeys.updateKey", json!({"keyId": lasting.id, "enabled": false})).expect_ok();
    call("rootKeys.updateKey", json!({"keyId": lasting.id, "enabled": true})).expect_problem(403, DENIED);
    assert_eq!(try_out(&workspace, &lasting.secret), 403);
    call("rootKeys.deleteKey", json!({"keyId": lasting.id})).expect_ok();
    assert_eq!(try_out(&workspace, &lasting.secret), 401);
    let own = minted(&call("rootKeys.rerollKey", json!({"keyId": brief.id, "expiration": 0})).expect_ok());
    assert_eq!(row(&workspace, &own.id).unwrap()["expires"], expires);
}

/// A root key that is being ended while it makes others leaves none that was made after its end.
/// EXT-12, COM-RK-07, COM-CON-02
#[test]
fn a_root_key_that_ends_leaves_no_heirs() {
    let workspace = Arc::new(Workspace::new());
    for _ in 0..3 {
        let maker = workspace.root_key(&[&administrator(&workspace)]);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (workspace, secret) = (Arc::clone(&workspace), maker.secret.clone());
                std::thread::spawn(move || {
                    let body = json!({"permissions": ["documents.read"], "name": "heir"});
                    loop {
                        let reply = workspace.server.call("rootKeys.createKey", body.clone()).bearer(&secret).send();
                        if reply.status != 200 {
                            return reply.status;
                        }
                    }
                })
            })
            .collect();
        workspace.ok("rootKeys.deleteKey", json!({"keyId": maker.id}));
        let heirs = || {
            let rows = workspace.all("rootKeys.listKeys", json!({}), 100);
            rows.iter().filter(|row| row["name"] == "heir").count()
        };
        let at_its_end = heirs();
        assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 401));
        assert_eq!(heirs(), at_its_end);
    }
}

/// Pages of root keys hold every live one once, by id. EXT-12, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-05
#[test]
fn root_keys_are_listed_page_by_page() {
    let workspace = Workspace::new();
    let ids = |rows: Vec<Value>| rows.iter().map(|row| row["keyId"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let mut made = ids(workspace.all("rootKeys.listKeys", json!({}), 100));
    assert_eq!(made.len(), 1, "the workspace's own");
    made.extend((0..7).map(|_| make(&workspace, &workspace.root, json!({"permissions": []})).id));
    let dropped = make(&workspace, &workspace.root, json!({"permissions": []})).id;
    workspace.ok("rootKeys.deleteKey", json!({"keyId": dropped}));
    made.sort();
    for limit in [1, 3, 8, 100] {
        assert_eq!(ids(workspace.all("rootKeys.listKeys", json!({}), limit)), made, "{limit} a page");
    }
    let list = |body: Value| workspace.call("rootKeys.listKeys", body).expect_page();
    assert_eq!(ids(list(json!({"cursor": made[7]})).0), made[7..], "COM-PAG-03");
    assert_eq!(list(json!({"cursor": "zzz"})), (vec![], None));
}

/// A root key whose plaintext the operator chose shows none of it; a reroll replaces it. A restart keeps all of it.
/// EXT-1, EXT-12, COM-RK-07
#[test]
fn the_first_root_key_is_one_like_others() {
    let server = Arc::new(Server::start_with(DataDir::fresh(), Options::default()));
    let first = server.root_key();
    let call = |server: &Server, operation: &str, body: Value, secret: &str| {
        let reply = server.call(operation, body).bearer(secret).send();
        (reply.status, reply.json["data"].clone())
    };
    let (_, rows) = call(&server, "rootKeys.listKeys", json!({}), &first);
    assert_eq!((rows.as_array().unwrap().len(), &rows[0]["start"], &rows[0]["end"]), (1, &json!(""), &json!("")));
    let (_, next) = call(&server, "rootKeys.rerollKey", json!({"keyId": rows[0]["keyId"], "expiration": 0}), &first);
    let next = minted(&next).secret;
    server.kill();
    let server = server.restart();
    assert_eq!(call(&server, "rootKeys.listKeys", json!({}), &first).0, 401);
    let (status, rows) = call(&server, "rootKeys.listKeys", json!({}), &next);
    assert_eq!((status, rows.as_array().unwrap().len()), (200, 1));
}
