//! identities.*: identities, their metadata, the limits their keys share, who may see them, and their end.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::world::code;
use crate::harness::{HOUR, Key, MINUTE, NOON, Workspace, members};

const INVALID: &str = "unkey/application/invalid_input";
const DENIED: &str = "unkey/authorization/insufficient_permissions";
const ABSENT: &str = "unkey/data/identity_not_found";
const TAKEN: &str = "unkey/data/identity_already_exists";

/// Most bytes of metadata (ID-RES-06).
const META_BYTES_MAX: usize = 1_048_576;

fn limit(name: &str, limit: i64, duration: i64, auto: bool) -> Value {
    json!({"name": name, "limit": limit, "duration": duration, "autoApply": auto})
}

/// Metadata of exactly so many bytes.
fn meta_of(bytes: usize) -> Value {
    json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())})
}

/// A new identity's id.
fn create(workspace: &Workspace, external_id: &str, mut rest: Value) -> String {
    rest["externalId"] = external_id.into();
    let made = workspace.ok("identities.createIdentity", rest);
    assert_eq!(members(&made), ["identityId"]);
    made["identityId"].as_str().unwrap().to_owned()
}

fn get(workspace: &Workspace, identity: &str) -> Value {
    workspace.ok("identities.getIdentity", json!({"identity": identity}))
}

/// Deletes one; the answer has no `data` (COM-ENV-05).
fn delete(workspace: &Workspace, identity: &str) {
    let reply = workspace.call("identities.deleteIdentity", json!({"identity": identity})).send();
    assert_eq!((reply.status, members(&reply.json)), (200, vec!["meta"]), "{}", reply.text());
}

/// Every operation that names an identity answers that it does not exist, in the pinned words (ID-GET-02).
fn absent(workspace: &Workspace, identity: &str) {
    for operation in ["identities.getIdentity", "identities.updateIdentity", "identities.deleteIdentity"] {
        let problem = workspace.call(operation, json!({"identity": identity})).expect_problem(404, ABSENT);
        problem.saying("This identity does not exist.");
    }
}

/// The limits of an identity without their ids, and their ids.
fn limits_of(identity: &Value) -> (Value, Vec<String>) {
    let mut limits = identity["ratelimits"].as_array().cloned().unwrap_or_else(|| panic!("no limits: {identity}"));
    let ids = limits.iter_mut().map(|limit| limit.as_object_mut().unwrap().remove("id").unwrap());
    let ids = ids.map(|id| id.as_str().unwrap().to_owned()).collect();
    (limits.into(), ids)
}

/// An identity is found at once, by its id and by its external id, as it was sent: metadata exactly, limits in their order.
/// What it has none of is left out. ID-CREATE-01, ID-CREATE-05, ID-CREATE-08, ID-RES-01, ID-RES-02, ID-RES-03, ID-RES-06,
/// ID-RES-07, ID-RES-09, ID-RES-11, ID-GET-05, IDS-3
#[test]
fn an_identity_is_found_at_once_as_it_was_sent() {
    let workspace = Workspace::new();
    let mut ids = Vec::new();
    for external_id in ["a", "abc", "User", "user", "t.e-n_4nt", &"x".repeat(255)] {
        let id = create(&workspace, external_id, json!({"surprise": 1}));
        let random = id.strip_prefix("id_").unwrap_or_else(|| panic!("IDS-3: {id}"));
        assert!(random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "IDS-1: {id}");
        for name in [id.as_str(), external_id] {
            assert_eq!(get(&workspace, name), json!({"id": id, "externalId": external_id}), "ID-RES-01");
        }
        ids.push(id);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 6, "ID-RES-03: letters' case counts");
    let bare = create(&workspace, "bare", json!({"meta": {}, "ratelimits": []}));
    assert_eq!(get(&workspace, &bare), json!({"id": bare, "externalId": "bare"}), "ID-RES-01: absent, not empty");

    let meta = json!({"big": 9_007_199_254_740_993_i64, "huge": u64::MAX, "null": null, "true": true, "half": -0.5,
        "": {"empty": [], "object": {}, "text": ""}, "text": "ü\u{1f511}\"\\\u{0}", "deep": [1, [2, {"a": [3]}]]});
    let asked: Vec<Value> = (0..50)
        .rev()
        .map(|n| limit(&format!("limit {n}"), i64::MAX - n, if n == 0 { i64::MAX } else { 1000 * n }, n % 2 == 0))
        .collect();
    let mut sent = asked.clone();
    sent[0]["surprise"] = json!({});
    create(&workspace, "full", json!({"meta": meta, "ratelimits": sent}));
    let full = get(&workspace, "full");
    assert_eq!(full["meta"], meta);
    let (limits, limit_ids) = limits_of(&full);
    assert_eq!(
        limits,
        Value::from(asked),
        "ID-RES-02: in the order of the request; ID-RES-11: beyond the published caps"
    );
    assert!(limit_ids.iter().all(|id| id.starts_with("rl_")), "{limit_ids:?}");
    assert_eq!(get(&workspace, "full"), full, "ID-RES-02: stable across reads");

    let raw = r#"{"externalId":"raw","meta":{ "z" : 123456789012345678901234567890, "a":1.10 }}"#;
    workspace.call("identities.createIdentity", json!({})).raw(raw).expect_ok();
    let text = workspace.call("identities.getIdentity", json!({"identity": "raw"})).send().text();
    assert!(text.contains(r#"{"z":123456789012345678901234567890,"a":1.10}"#), "ID-RES-07: digit by digit: {text}");
}

/// An external id is one live identity's; the second request for it is refused and writes nothing, also when they come at
/// once. In another workspace it is another's. ID-CREATE-03, ID-CREATE-07, ID-RES-03, COM-CON-04
#[test]
fn an_external_id_is_taken_once() {
    let workspace = Arc::new(Workspace::new());
    let id = create(&workspace, "tenant", json!({"meta": {"first": true}}));
    let again =
        json!({"externalId": "tenant", "meta": {"first": false}, "ratelimits": [limit("abc", 1, MINUTE, true)]});
    let problem = workspace.call("identities.createIdentity", again).expect_problem(409, TAKEN);
    problem.mentioning("tenant").mentioning("already exists");
    assert_eq!(get(&workspace, "tenant"), json!({"id": id, "externalId": "tenant", "meta": {"first": true}}));
    let neighbour = workspace.neighbour();
    assert_ne!(create(&neighbour, "tenant", json!({})), id);
    absent(&neighbour, &id);

    for round in 0..4 {
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let workspace = Arc::clone(&workspace);
                let body = json!({"externalId": format!("racer{round}"), "meta": {"n": n}});
                std::thread::spawn(move || workspace.call("identities.createIdentity", body).send())
            })
            .collect();
        let replies: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409], "ID-CREATE-07");
        let won = replies.iter().position(|reply| reply.status == 200).unwrap();
        let got = get(&workspace, &format!("racer{round}"));
        assert_eq!(got["id"], replies[won].json["data"]["identityId"]);
        assert_eq!(got["meta"]["n"], won);
    }
}

/// Permission, then repeated names, then the size of metadata, then whether the identity is (or is not) there.
/// ID-CREATE-02, ID-CREATE-04, ID-RES-06, ID-RES-07, ID-UPDATE-01, ID-UPDATE-02, ID-UPDATE-06, ID-UPDATE-12
#[test]
fn faults_are_found_in_their_order() {
    let workspace = Workspace::new();
    create(&workspace, "tenant", json!({"meta": {"kept": 1}}));
    let weak = workspace.root_key(&["identity.*.read_identity"]);
    let twice =
        json!([limit("same", 1, MINUTE, true), limit("other", 1, MINUTE, true), limit("same", 2, MINUTE, true)]);
    for (operation, member, name, last, code) in [
        ("identities.createIdentity", "externalId", "tenant", 409, TAKEN),
        ("identities.updateIdentity", "identity", "nobody", 404, ABSENT),
    ] {
        let too_large = meta_of(META_BYTES_MAX + 1);
        let mut body = json!({member: name, "ratelimits": twice, "meta": too_large});
        workspace.server.call(operation, body.clone()).bearer(&weak.secret).expect_problem(403, DENIED);
        let problem = workspace.call(operation, body.clone()).expect_problem(400, INVALID);
        assert!(problem.mentioning("same").errors.is_empty(), "COM-ERR-03");
        body["ratelimits"] = json!([limit("same", 1, MINUTE, true), limit("Same", 1, MINUTE, true)]);
        let problem = workspace.call(operation, body.clone()).expect_problem(400, INVALID);
        let problem = problem.mentioning("Metadata is too large").mentioning(&(META_BYTES_MAX + 1).to_string());
        assert!(problem.errors.is_empty(), "COM-ERR-03");
        body["meta"] = meta_of(META_BYTES_MAX);
        workspace.call(operation, body.clone()).expect_problem(last, code);
        body[member] = json!("");
        workspace.server.call(operation, body).bearer(&weak.secret).expect_invalid();
    }
    assert_eq!(get(&workspace, "tenant")["meta"], json!({"kept": 1}), "a refused request changes nothing");

    let largest = meta_of(META_BYTES_MAX);
    create(&workspace, "large", json!({"meta": largest}));
    let text = serde_json::to_string_pretty(&json!({"identity": "tenant", "meta": largest, "ratelimits": []})).unwrap();
    let spaced = text.replacen("\"a\": ", &format!("\"a\":{}", " ".repeat(1000)), 1);
    workspace.call("identities.updateIdentity", json!({})).raw(spaced).expect_ok();
    for name in ["large", "tenant"] {
        assert_eq!(get(&workspace, name)["meta"], largest, "ID-RES-06: white space between tokens is no size");
    }
    let api = workspace.api();
    let key = workspace.key(&api, json!({"externalId": "large"}));
    assert_eq!(workspace.verify(&key, json!({}))["identity"]["meta"], largest);
}

/// A text that is the id of one identity and the external id of another means the one with that id. ID-RES-04
#[test]
fn an_id_counts_before_an_external_id() {
    let workspace = Workspace::new();
    let first = create(&workspace, "first", json!({}));
    let second = create(&workspace, &first, json!({"meta": {"named": "like the first"}}));
    assert_eq!(get(&workspace, &first), json!({"id": first, "externalId": "first"}));
    let updated = workspace.ok("identities.updateIdentity", json!({"identity": first, "meta": {"is": "the first"}}));
    assert_eq!(updated, json!({"id": first, "externalId": "first", "meta": {"is": "the first"}}));
    delete(&workspace, &first);
    assert_eq!(get(&workspace, &first)["id"], second.as_str());
    delete(&workspace, &first);
    absent(&workspace, &first);
    absent(&workspace, &second);
}

/// Whoever may read no identity hears 403 whatever it asks for; whoever may read some hears 404 for what is not there and
/// 403 for what is. The refusal names no id. ID-GET-01, ID-GET-02, ID-GET-03, ID-GET-04, ID-RES-10, PM-TAB-01, PM-URN-04,
/// PM-EVAL-04
#[test]
fn reading_tells_nothing_to_whom_it_should_not() {
    let workspace = Workspace::new();
    let (mine, other) = (create(&workspace, "mine", json!({})), create(&workspace, "other", json!({})));
    let gone = create(&workspace, "gone", json!({}));
    delete(&workspace, &gone);
    let foreign = create(&workspace.neighbour(), "foreign", json!({}));
    let ask = |grants: &[&str], identity: &str| {
        let grants: Vec<String> = grants.iter().map(|grant| grant.replace("{ws}", &workspace.id)).collect();
        let root = workspace.root_key(&grants.iter().map(String::as_str).collect::<Vec<_>>());
        let call = workspace.server.call("identities.getIdentity", json!({"identity": identity})).bearer(&root.secret);
        let reply = call.send();
        match reply.status {
            200 => drop(call.expect_ok()),
            403 => {
                let problem = call.expect_problem(403, DENIED).mentioning("Missing one of these permissions: ");
                for id in [&mine, &other] {
                    assert!(!problem.detail.contains(id.as_str()), "ID-GET-03: {}", problem.detail);
                }
            }
            _ => drop(call.expect_problem(404, ABSENT).saying("This identity does not exist.")),
        }
        reply.status
    };
    let of_mine = format!("identity.{mine}.read_identity");
    for grants in [
        &[][..],
        &["identity.*.update_identity", "api.*.read_api"],
        &["unkey:v1:{ws}:projects/proj_1/identities/*#read_identity"],
        &["unkey:v1:{ws}:projects/*/identities/id_1#read_identity", "identity.read_identity"],
    ] {
        for identity in ["mine", &other, "nobody", &gone, &foreign, "foreign"] {
            assert_eq!(ask(grants, identity), 403, "ID-GET-04: {grants:?} {identity}");
        }
    }
    for (identity, status) in
        [("mine", 200), (&*mine, 200), ("other", 403), (&other, 403), ("nobody", 404), (&gone, 404), (&foreign, 404)]
    {
        assert_eq!(ask(&[&of_mine], identity), status, "{identity}");
    }
    for identity in ["mine", &mine] {
        assert_eq!(ask(&["identity.mine.read_identity"], identity), 403, "PM-TAB-01: an external id grants nothing");
        assert_eq!(ask(&["unkey:v1:{ws}:projects/**#read_identity"], identity), 200);
    }
    absent(&workspace, &gone);
    absent(&workspace, "foreign");
}

/// A page is whole or refused: one row that the caller may not read refuses it, and whoever may read none is refused even an
/// empty one. ID-LIST-01, ID-LIST-03, ID-LIST-04
#[test]
fn a_page_is_whole_or_refused() {
    let workspace = Workspace::new();
    let list = |bearer: &str, body: Value| workspace.server.call("identities.listIdentities", body).bearer(bearer);
    let nothing = workspace.root_key(&["identity.*.update_identity"]).secret;
    let stale = workspace.root_key(&["identity.id_nobody.read_identity"]).secret;
    list(&nothing, json!({})).expect_problem(403, DENIED);
    assert_eq!(list(&stale, json!({})).expect_page(), (vec![], None), "ID-LIST-03: an empty page");

    let mut ids: Vec<String> = (0..3).map(|n| create(&workspace, &format!("tenant{n}"), json!({}))).collect();
    let some = workspace.root_key(&[&format!("identity.{}.read_identity", ids[1])]).secret;
    let all = workspace.root_key(&["identity.*.read_identity"]).secret;
    assert_eq!(list(&all, json!({})).expect_page().0.len(), 3);
    list(&nothing, json!({"search": "no match"})).expect_problem(403, DENIED);
    let problem = list(&some, json!({})).expect_problem(403, DENIED);
    assert!(!problem.detail.contains("id_"), "ID-LIST-03 names no row: {}", problem.detail);
    let found = list(&some, json!({"search": "TENANT1"})).expect_page();
    assert_eq!((found.0.len(), &found.0[0]["id"]), (1, &json!(ids[1])));
    assert_eq!(list(&some, json!({"search": "no match"})).expect_page(), (vec![], None));
    list(&some, json!({"search": "tenant"})).expect_problem(403, DENIED);
    let mine = ids[1].clone();
    ids.sort();
    let (rows, cursor) = list(&some, json!({"limit": 1, "cursor": mine})).expect_page();
    let next = ids.iter().position(|id| *id == mine).unwrap() + 1;
    assert_eq!(
        (&rows[0]["id"], cursor.as_ref()),
        (&json!(mine), ids.get(next)),
        "the row behind the page is not asked for"
    );
}

/// Pages hold every live identity once, by id, with what it has; a search narrows them, literally and in any letters' case.
/// ID-LIST-02, ID-LIST-05, ID-LIST-06, COM-PAG-01, COM-PAG-02, COM-PAG-03, COM-PAG-05, COM-PAG-08, COM-RK-09
#[test]
fn identities_are_listed_page_by_page() {
    let workspace = Workspace::new();
    create(&workspace.neighbour(), "payments.foreign", json!({}));
    let mut made: Vec<Value> = (0..8)
        .map(|n| {
            let external_id = format!("{}.{n}_{}", if n < 3 { "Payments" } else { "users" }, n * 7);
            let rest = json!({"meta": {"n": n}, "ratelimits": [limit("calls", 5, MINUTE, true)]});
            get(&workspace, &create(&workspace, &external_id, rest))
        })
        .collect();
    made.sort_by_key(|row| row["id"].as_str().unwrap().to_owned());
    let gone = create(&workspace, "users.gone", json!({}));
    delete(&workspace, &gone);
    for page in [1, 3, 8, 100] {
        assert_eq!(workspace.all("identities.listIdentities", json!({}), page), made, "{page} a page");
    }
    let id = |at: usize| made[at]["id"].as_str().unwrap();
    let list = |body: Value| workspace.call("identities.listIdentities", body).expect_page();
    assert_eq!(list(json!({})), (made.clone(), None), "100 a page where no number is named");
    assert_eq!(list(json!({"limit": 2})).1.as_deref(), Some(id(2)), "COM-PAG-02");
    assert_eq!(list(json!({"cursor": id(5)})).0, made[5..]);
    assert_eq!(list(json!({"cursor": "zzz"})), (vec![], None), "an unknown cursor is no error");
    assert_eq!(list(json!({"cursor": "id_"})).0, made);
    for (search, found) in [
        ("pAYments", 3),
        ("  users ", 5),
        ("  ", 8),
        (".1_7", 1),
        ("%", 0),
        ("s_", 0),
        ("gone", 0),
        ("foreign", 0),
        (&id(2)[5..15].to_lowercase(), 1),
    ] {
        let rows = list(json!({"search": search}));
        assert_eq!((rows.0.len(), rows.1), (found, None), "COM-PAG-08: {search}");
        assert_eq!(workspace.all("identities.listIdentities", json!({"search": search}), 2), rows.0, "{search}");
    }
    assert_eq!(
        list(json!({"search": "users", "cursor": id(6)})).0,
        made[6..]
            .iter()
            .filter(|row| { row["externalId"].as_str().unwrap().starts_with("users") })
            .cloned()
            .collect::<Vec<_>>(),
        "a search goes on from a cursor"
    );
    let bare = workspace.server.call("identities.listIdentities", json!({})).bearer("unkey_nobody");
    bare.without("Content-Type").expect_problem(400, INVALID).at("requestBody");
}

/// An update replaces what it names, keeps the rest and the ids of limits it names again, and answers with the identity as it
/// is then. ID-UPDATE-03, ID-UPDATE-04, ID-UPDATE-05, ID-UPDATE-08, ID-UPDATE-12, ID-RES-02
#[test]
fn an_update_replaces_what_it_names() {
    let workspace = Workspace::new();
    let three = [limit("one", 1, MINUTE, true), limit("two", 2, MINUTE, false), limit("three", 3, HOUR, true)];
    let id = create(&workspace, "tenant", json!({"meta": {"a": 1, "b": {"c": [2]}}, "ratelimits": three}));
    let (_, ids) = limits_of(&get(&workspace, &id));
    let update = |mut members: Value| {
        members["identity"] = if members.get("meta").is_some() { json!("tenant") } else { json!(id) };
        let updated = workspace.ok("identities.updateIdentity", members);
        assert_eq!(updated, get(&workspace, &id), "ID-UPDATE-08");
        updated
    };
    let before = get(&workspace, &id);
    assert_eq!(update(json!({})), before, "ID-UPDATE-05");
    let updated = update(json!({"meta": {"b": 3}}));
    assert_eq!((&updated["meta"], &updated["ratelimits"]), (&json!({"b": 3}), &before["ratelimits"]), "ID-UPDATE-03");

    let two = json!([limit("new", 9, MINUTE, true), limit("two", 20, 2 * MINUTE, true)]);
    let updated = update(json!({"ratelimits": two}));
    let (limits, new_ids) = limits_of(&updated);
    assert_eq!((limits, &updated["meta"]), (two, &json!({"b": 3})), "ID-UPDATE-04: exactly those two, in their order");
    assert_eq!(new_ids[1], ids[1], "ID-UPDATE-04: the same name keeps its id");
    assert!(!ids.contains(&new_ids[0]));
    let (_, back) = limits_of(&update(json!({"ratelimits": [limit("one", 1, MINUTE, true)]})));
    assert!(!ids.contains(&back[0]) && !new_ids.contains(&back[0]), "a limit made again is another one");

    assert_eq!(members(&update(json!({"ratelimits": []}))), ["externalId", "id", "meta"]);
    assert_eq!(members(&update(json!({"meta": {}}))), ["externalId", "id"], "ID-UPDATE-03: cleared");
    update(json!({"meta": {"x": 1}, "ratelimits": three}));
    assert_eq!(members(&update(json!({"meta": {}, "ratelimits": []}))), ["externalId", "id"], "both together");
}

/// (exceeded, remaining) of a checked limit.
fn state(data: &Value, name: &str) -> (bool, i64) {
    let entries = data["ratelimits"].as_array().unwrap_or_else(|| panic!("no limits: {data}"));
    let entry = entries.iter().find(|entry| entry["name"] == name).unwrap_or_else(|| panic!("no {name}: {data}"));
    (entry["exceeded"].as_bool().unwrap(), entry["remaining"].as_i64().unwrap())
}

/// The limits of an identity act through all its keys at once: one count for all; a changed limit keeps it, a changed
/// duration begins anew, and a name that went and came back finds it again. The next verification sees every change.
/// ID-RES-09, ID-UPDATE-07, RL-ALG-09
#[test]
fn keys_share_the_limits_of_their_identity() {
    let workspace = Workspace::timed();
    let api = workspace.api();
    create(
        &workspace,
        "tenant",
        json!({"ratelimits": [limit("calls", 10, HOUR, true), limit("tokens", 50, HOUR, false)]}),
    );
    let keys: Vec<Key> = (0..3).map(|_| workspace.key(&api, json!({"externalId": "tenant"}))).collect();
    let other = workspace.key(&api, json!({"externalId": "somebody"}));
    let verify = |key: &Key| workspace.verify_at(key, json!({}), NOON);
    let update = |limits: Value| {
        drop(workspace.ok("identities.updateIdentity", json!({"identity": "tenant", "ratelimits": limits})))
    };
    for (at, key) in keys.iter().enumerate() {
        let data = verify(key);
        assert_eq!(state(&data, "calls"), (false, 9 - i64::try_from(at).unwrap()), "one count for all: {data}");
        assert_eq!(data["ratelimits"].as_array().unwrap().len(), 1, "only what applies by itself");
        assert_eq!(data["identity"]["externalId"], "tenant");
    }
    let named = json!({"ratelimits": [{"name": "tokens", "cost": 20}]});
    assert_eq!(state(&workspace.verify_at(&keys[0], named.clone(), NOON), "tokens"), (false, 30));
    assert_eq!(state(&workspace.verify_at(&keys[1], named, NOON), "tokens"), (false, 10));
    let exact = json!({"key": keys[0].secret, "ratelimits": [{"name": "Tokens"}]});
    let call = workspace.call("keys.verifyKey", exact).at(NOON);
    call.expect_problem(412, "unkey/application/precondition_failed");
    assert!(verify(&other).get("ratelimits").is_none());

    update(json!([limit("calls", 100, HOUR, true)]));
    assert_eq!(state(&verify(&keys[0]), "calls"), (false, 94), "ID-UPDATE-07: five were counted before");
    update(json!([limit("calls", 3, HOUR, true)]));
    assert_eq!(code(&verify(&keys[1])), "RATE_LIMITED");
    update(json!([limit("calls", 3, 2 * HOUR, true)]));
    assert_eq!(state(&verify(&keys[2]), "calls"), (false, 2), "ID-UPDATE-07: another duration counts anew");
    update(json!([]));
    assert!(verify(&keys[0]).get("ratelimits").is_none());
    update(json!([limit("calls", 100, HOUR, true)]));
    assert_eq!(state(&verify(&keys[0]), "calls"), (false, 93), "the counter belongs to identity, name and duration");
}

/// A deleted identity is gone from every read at once. Its keys go on without it, and do not come back to one that is made
/// with its external id, round after round. ID-DELETE-02, ID-DELETE-03, ID-DELETE-05, ID-DELETE-06, ID-RES-08, ID-CREATE-03,
/// ID-LIST-02, COM-ENV-05
#[test]
fn a_deleted_identity_leaves_its_keys_behind() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let mut left: Vec<Key> = Vec::new();
    for round in 0..4 {
        let limits = if round % 2 == 0 { json!([limit("calls", 1, HOUR, true)]) } else { json!([]) };
        let id = create(&workspace, "tenant", json!({"meta": {"round": round}, "ratelimits": limits}));
        let key = workspace.key(&api, json!({"externalId": "tenant"}));
        let cold = workspace.key(&api, json!({"externalId": "tenant"}));
        let verified = workspace.verify(&key, json!({}));
        assert_eq!(verified["identity"]["meta"]["round"], round);
        for old in &left {
            assert!(
                workspace.verify(old, json!({})).get("identity").is_none(),
                "ID-DELETE-06: old keys are not adopted"
            );
        }
        delete(&workspace, if round < 2 { &id } else { "tenant" });
        absent(&workspace, &id);
        absent(&workspace, "tenant");
        assert_eq!(workspace.call("identities.listIdentities", json!({})).expect_page(), (vec![], None));
        assert_eq!(
            workspace.call("identities.listIdentities", json!({"search": "tenant"})).expect_page(),
            (vec![], None)
        );
        for key in [&key, &cold] {
            for _ in 0..2 {
                let verified = workspace.verify(key, json!({}));
                assert_eq!(code(&verified), "VALID", "ID-DELETE-06: {verified}");
                assert!(verified.get("identity").is_none() && verified.get("ratelimits").is_none(), "{verified}");
            }
            assert!(workspace.get(key).get("identity").is_none());
            assert!(workspace.ok("keys.whoami", json!({"key": key.secret})).get("identity").is_none());
        }
        left.extend([key, cold]);
    }
    let made = workspace.get(&workspace.key(&api, json!({"externalId": "tenant"})));
    assert_eq!(
        members(&made["identity"]),
        ["externalId", "id"],
        "a key makes a new one, without what the old ones had"
    );
    workspace.update(&left[0], json!({"externalId": "tenant"}));
    assert_eq!(workspace.get(&left[0])["identity"], made["identity"], "it comes back where somebody says so");
    for odd in ["no such identity", "'; DROP TABLE identities; --", "id_", "\u{0}\u{1f511}", "%", &"x".repeat(1 << 20)]
    {
        absent(&workspace, odd);
    }
}

/// Deleting, updating and creating ask for `identity.*.<action>`: nothing for one identity is enough, nothing in another
/// spelling, and nothing tells whether the identity exists. ID-DELETE-01, ID-DELETE-08, ID-DELETE-09, ID-UPDATE-01,
/// ID-UPDATE-06, ID-UPDATE-12, ID-CREATE-09
#[test]
fn changing_asks_for_the_permission_before_it_looks() {
    let workspace = Workspace::new();
    let id = create(&workspace, "tenant", json!({}));
    for (operation, action) in [
        ("identities.createIdentity", "create_identity"),
        ("identities.updateIdentity", "update_identity"),
        ("identities.deleteIdentity", "delete_identity"),
    ] {
        let body = |name: &str| match operation {
            "identities.createIdentity" => json!({"externalId": name}),
            _ => json!({"identity": name}),
        };
        let granted = format!("identity.*.{action}");
        for held in [
            vec![],
            vec![granted.replace("identity.*", "api.*")],
            vec!["identity.*.read_identity".to_owned()],
            vec![granted.replace(".*", "")],
            vec!["api.*.read_api".to_owned(), "rbac.*.create_role".to_owned(), "ratelimit.*.limit".to_owned()],
            vec![granted.to_uppercase()],
            vec![granted.replace('*', &id), granted.replace('*', "tenant")],
        ] {
            let held: Vec<&str> = held.iter().map(String::as_str).collect();
            let root = workspace.root_key(&held);
            for name in ["tenant", "nobody", &id] {
                let call = workspace.server.call(operation, body(name)).bearer(&root.secret);
                let problem = call.expect_problem(403, DENIED).mentioning("permission").mentioning(&granted);
                assert!(!problem.detail.contains(['{', '}']), "PM-EVAL-04: {}", problem.detail);
            }
        }
        let call = || workspace.server.call(operation, body("fresh"));
        call().expect_problem(400, INVALID);
        call().authorization("Basic x").expect_problem(400, "unkey/authentication/malformed");
        call().authorization("Bearer ").expect_problem(400, "unkey/authentication/malformed");
        call().bearer("unkey_nobody").expect_problem(401, "unkey/authentication/key_not_found");
        let lost = workspace.neighbour();
        lost.server.operate(&["workspace", "delete", "--workspace", &lost.id, "--yes"]).json();
        lost.call(operation, body("fresh")).expect_problem(404, "unkey/data/workspace_not_found");
    }
    assert_eq!(get(&workspace, "tenant"), json!({"id": id, "externalId": "tenant"}), "a refused call changes nothing");
    workspace.call("identities.getIdentity", json!({"identity": "fresh"})).expect_problem(404, ABSENT);
}

/// Of deletes at once exactly one succeeds. ID-DELETE-04, COM-CON-04
#[test]
fn of_concurrent_deletes_one_wins() {
    let workspace = Arc::new(Workspace::new());
    for _ in 0..4 {
        let id = create(&workspace, "tenant", json!({"ratelimits": [limit("calls", 1, HOUR, true)]}));
        let threads: Vec<_> = (0..8)
            .map(|n| {
                let (workspace, name) = (Arc::clone(&workspace), if n % 2 == 0 { id.clone() } else { "tenant".into() });
                std::thread::spawn(move || {
                    workspace.call("identities.deleteIdentity", json!({"identity": name})).send().status
                })
            })
            .collect();
        let mut statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 404, 404, 404, 404, 404, 404, 404]);
    }
}

/// Updates at once all succeed, of one identity and of many; what is left is one of the sets that were sent, whole, and each
/// answer is the identity as its own request made it. ID-UPDATE-10, ID-UPDATE-11, COM-CON-04
#[test]
fn concurrent_updates_all_succeed() {
    let workspace = Arc::new(Workspace::new());
    create(&workspace, "tenant", json!({}));
    let sets: Vec<Value> = (1..=10)
        .map(|n| json!([limit("shared", n, MINUTE, true), limit(&format!("own{n}"), n, HOUR, false)]))
        .collect();
    let threads: Vec<_> = sets
        .iter()
        .map(|set| {
            let (workspace, body) = (Arc::clone(&workspace), json!({"identity": "tenant", "ratelimits": set}));
            std::thread::spawn(move || workspace.ok("identities.updateIdentity", body))
        })
        .collect();
    for (thread, set) in threads.into_iter().zip(&sets) {
        assert_eq!(limits_of(&thread.join().unwrap()).0, *set);
    }
    let (left, ids) = limits_of(&get(&workspace, "tenant"));
    assert!(sets.contains(&left), "ID-UPDATE-10: {left}");
    assert_ne!(ids[0], ids[1]);

    let threads: Vec<_> = (0..50)
        .map(|n| {
            let workspace = Arc::clone(&workspace);
            std::thread::spawn(move || {
                let name = format!("tenant{n}");
                create(&workspace, &name, json!({}));
                for round in 1..=3 {
                    let limits = json!([limit("calls", round, MINUTE, true), limit("more", n + 1, MINUTE, true)]);
                    let body = json!({"identity": name, "ratelimits": limits, "meta": {"round": round}});
                    workspace.ok("identities.updateIdentity", body);
                }
                let got = get(&workspace, &name);
                assert_eq!((&got["ratelimits"][0]["limit"], &got["meta"]["round"]), (&json!(3), &json!(3)));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
