//! Followers of followers: the log through a node in between, and what goes the other way through it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::call::problem;
use crate::harness::nodes::{Place, follows, level, on, same_records, status, until};
use crate::harness::program::DataDir;
use crate::harness::proxy::Proxy;
use crate::harness::{Options, Server, Workspace};

const SILENCE_MS: u64 = 400;
const STALENESS: &str = "x-keyward-staleness-ms";

fn at(place: &Place, follow: Option<u16>) -> Options {
    place.options(follow).setting("KEYWARD_REPLICATION_SILENCE_MS", SILENCE_MS)
}

fn start(place: &Place, follow: Option<u16>) -> Arc<Server> {
    Arc::new(Server::start_with(DataDir::fresh(), at(place, follow)))
}

/// A follower, once it follows.
fn following(place: &Place, follow: u16) -> Arc<Server> {
    let server = start(place, Some(follow));
    follows(&server);
    server
}

/// Three nodes, each of which follows the one before it, and where they are.
fn three_in_a_row() -> ([Place; 3], [Arc<Server>; 3]) {
    let places = [Place::new("a"), Place::new("b"), Place::new("c")];
    let first = start(&places[0], None);
    let middle = following(&places[1], places[0].peers);
    let last = following(&places[2], places[1].peers);
    (places, [first, middle, last])
}

fn reaches(server: &Server, reachable: bool) {
    until("the leader's word, or its silence", || status(server)["replication"]["leader"]["reachable"] == reachable);
}

fn names(server: &Server) -> Vec<Value> {
    let status = status(server);
    let followers = status["replication"]["followers"].as_array().unwrap();
    followers.iter().filter(|follower| follower["connected"] == true).map(|follower| follower["name"].clone()).collect()
}

/// A change is refused, and says why.
fn refused(workspace: &Workspace) {
    let call = workspace.call("apis.createApi", json!({"name": "refused"}));
    problem(workspace.server.exchange(call.ask()), 503, "unkey/application/service_unavailable").unwrap();
}

/// Verifications that the leader's analytics have.
fn recorded(workspace: &Workspace) -> (u64, u64) {
    let query = "SELECT count() AS n, uniqExact(request_id) AS d FROM key_verifications_v1";
    let rows = workspace.ok("analytics.getVerifications", json!({ "query": query }));
    (rows[0]["n"].as_u64().unwrap(), rows[0]["d"].as_u64().unwrap())
}

/// The last of three nodes is a follower like another: what is changed through it is read there at once, what counts is counted once
/// for all, its events are with the leader once. It knows how the leader is, not only its neighbour; while the middle one is gone it
/// goes on alone. When the leader is lost and the middle one promoted, it goes on there without being told; the old leader comes back
/// at its end; and a circle is refused.
#[test]
fn the_last_of_a_chain_is_a_follower_like_another() {
    let (a, b, c) = (Place::new("a"), Place::new("b"), Place::new("c"));
    let first = start(&a, None);
    let proxy = Proxy::to(a.peers);
    let middle = following(&b, proxy.port);
    let last = following(&c, b.peers);
    let workspace = Workspace::on(&first);
    let here = on(&workspace, &last);
    reaches(&last, true);
    let api = here.api();
    let plain = here.key(&api, json!({"name": "through two nodes"}));
    let read = here.call("keys.getKey", json!({"keyId": plain.id})).send();
    assert_eq!(read.json["data"]["name"], "through two nodes", "its own change");
    assert!(read.header(STALENESS).is_some());
    let limits = json!([{"name": "requests", "limit": 3, "duration": 600_000, "autoApply": true}]);
    let limited = here.key(&api, json!({"ratelimits": limits, "credits": {"remaining": 10}}));
    level(&first, &middle);
    let there = [&workspace, &on(&workspace, &middle), &here];
    let codes: Vec<String> = (0..5).map(|n| there[n % 3].code(&limited, json!({}))).collect();
    assert_eq!(codes, ["VALID", "VALID", "VALID", "RATE_LIMITED", "RATE_LIMITED"], "one limit for all");
    assert_eq!(workspace.get(&limited)["credits"]["remaining"], 7);
    for _ in 0..5 {
        assert_eq!(here.code(&plain, json!({})), "VALID");
    }
    until("the last one's events", || recorded(&workspace) == (10, 10));
    assert_eq!(recorded(&here), (10, 10), "it asks the leader");
    assert_eq!((names(&first), names(&middle)), (vec![json!("b")], vec![json!("c")]));

    // The leader is away for both, although the two hear each other well.
    proxy.hold(true, true);
    reaches(&last, false);
    assert_eq!(last.get("/health/ready/writes").status, 503);
    let alone = here.call("keys.verifyKey", json!({"key": plain.secret})).send();
    assert!(alone.header(STALENESS).is_some_and(|age| age != "0"), "{alone:?}");
    let stale = |server: &Server| status(server)["replication"]["leader"]["stalenessMs"].as_u64().unwrap();
    let of_middle = stale(&middle);
    assert!(stale(&last) >= of_middle, "no fresher than its neighbour");
    refused(&here);
    proxy.heal();
    reaches(&last, true);

    // The one in the middle is killed and comes back.
    middle.kill();
    reaches(&last, false);
    assert_eq!(here.code(&plain, json!({})), "VALID");
    workspace.update(&plain, json!({"name": "meanwhile"}));
    let middle = Arc::new(middle.restart());
    reaches(&last, true);
    level(&first, &last);
    assert_eq!(here.get(&plain)["name"], "meanwhile");
    until("all events", || recorded(&workspace) == (12, 12));

    // The leader is lost, the one in the middle promoted.
    first.kill();
    reaches(&middle, false);
    assert_eq!(middle.operate(&["promote"]).json()["term"], 2);
    reaches(&last, true);
    here.update(&plain, json!({"name": "under the new leader"}));
    assert_eq!(on(&workspace, &middle).get(&plain)["name"], "under the new leader");
    level(&middle, &last);
    assert_eq!(status(&last)["replication"]["term"], 2);
    assert_eq!(here.code(&plain, json!({})), "VALID");
    until("the event is with the new leader", || recorded(&on(&workspace, &middle)).0 >= 1);

    let first = Arc::new(first.restart_with(at(&a, Some(c.peers))));
    follows(&first);
    reaches(&first, true);
    on(&workspace, &first).update(&plain, json!({"name": "through the old leader"}));
    assert_eq!(on(&workspace, &middle).get(&plain)["name"], "through the old leader");
    level(&middle, &last);
    level(&middle, &first);
    for server in [&first, &last, &middle] {
        assert_eq!(server.stop(), Some(0));
    }
    // The leader writes what waits when it stops; the others have that when all have run again.
    let (middle, last, first) = (middle.restart(), last.restart(), first.restart());
    level(&middle, &last);
    level(&middle, &first);
    for server in [&first, &last, &middle] {
        server.kill();
    }
    same_records(&middle, &last);
    same_records(&middle, &first);
}

/// A node that wants to follow one of its own followers is told so, and does nothing.
#[test]
fn nodes_do_not_follow_each_other_in_a_circle() {
    let ([_, b, c], [first, middle, last]) = three_in_a_row();
    let workspace = Workspace::on(&first);
    let api = workspace.api();
    level(&first, &last);
    middle.kill();
    let middle = middle.restart_with(at(&b, Some(c.peers)));
    until("the refusal", || middle.log().contains("in a circle"));
    refused(&on(&workspace, &last));
    assert_eq!(on(&workspace, &Arc::new(middle)).ok("apis.getApi", json!({"apiId": api}))["id"], api.as_str());
}

/// The last node is promoted beside a leader that lives: the one in the middle hands on that its reign is over. Then each follows the
/// new one, directly or through another.
#[test]
fn a_promotion_is_heard_through_the_middle() {
    let ([a, b, c], [first, middle, last]) = three_in_a_row();
    let workspace = Workspace::on(&first);
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    level(&first, &last);
    reaches(&last, true);
    let refused = last.operate(&["promote"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("can be reached"), "{refused:?}");
    assert_eq!(last.operate(&["promote", "--force"]).json()["term"], 2);
    until("the fence", || first.log().contains("another node was promoted"));
    assert_eq!(status(&first)["replication"]["role"], "fenced");
    for server in [&first, &middle] {
        assert_eq!(server.stop(), Some(0));
    }
    let middle = Arc::new(middle.restart_with(at(&b, Some(c.peers))));
    let first = Arc::new(first.restart_with(at(&a, Some(b.peers))));
    follows(&first);
    reaches(&first, true);
    on(&workspace, &first).update(&key, json!({"name": "the other way round"}));
    assert_eq!(on(&workspace, &last).get(&key)["name"], "the other way round");
    level(&last, &middle);
}

/// Two followers are promoted, each without knowing of the other, and hear of each other: both go on taking changes, and say in status,
/// health and metrics who else leads, the log once and not with every second; when the operator has let one follow the other, its changes
/// are in a file, and nothing is said any more.
#[test]
fn two_that_lead_in_one_term_say_so() {
    let (a, b, c) = (Place::new("a"), Place::new("b"), Place::new("c"));
    let first = start(&a, None);
    let (one, two) = (following(&b, a.peers), following(&c, a.peers));
    let workspace = Workspace::on(&first);
    let api = workspace.api();
    level(&first, &one);
    level(&first, &two);
    first.kill();
    for server in [&one, &two] {
        reaches(server, false);
        assert_eq!(server.operate(&["promote"]).json()["term"], 2);
        assert_eq!(status(server)["replication"]["rival"], Value::Null, "it knows of nobody");
    }
    // The old leader follows the one, and the other one, which wants to tell it of its term, hears of that one by it.
    let first = first.restart_with(at(&a, Some(b.peers)));
    follows(&first);
    let metric = "keyward_replication_rival_leader 1";
    for (server, other) in [(&one, "c"), (&two, "b")] {
        until("word of the other one", || status(server)["replication"]["rival"]["name"] == other);
        let health = server.get("/health/ready");
        assert_eq!((health.status, &health.json["reasons"]), (200, &json!(["rival_leader"])));
        assert_eq!(server.get("/health/ready/writes").status, 200, "neither is told to stop");
        assert!(server.get("/metrics").text().contains(metric));
        on(&workspace, server).ok("apis.createApi", json!({"name": "by both"}));
        let tried = || server.log().matches("each without knowing of the other").count();
        assert_eq!(tried(), 1);
    }
    assert_eq!(two.stop(), Some(0));
    let two = Arc::new(two.restart_with(at(&c, Some(b.peers))));
    until("its own changes in a file", || two.log().contains("they are in this file"));
    follows(&two);
    until("one leader", || status(&one)["replication"]["rival"] == Value::Null);
    assert_eq!(one.get("/health/ready").json["status"], "ok");
    assert!(!one.get("/metrics").text().contains(metric));
    assert_eq!(on(&workspace, &two).ok("apis.getApi", json!({"apiId": api}))["id"], api.as_str());
}

/// A leader that was replaced while it was down, and that the new one cannot reach, asks the others before it takes a change.
#[test]
fn a_replaced_leader_asks_before_it_leads() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let asks = |options: Options| options.setting("KEYWARD_REPLICATION_PEERS", format!("http://127.0.0.1:{}", b.peers));
    let first = Arc::new(Server::start_with(DataDir::fresh(), asks(at(&a, None))));
    assert!(first.log().contains("leads without knowing"), "nobody else is there yet");
    let proxy = Proxy::to(a.peers);
    let other = following(&b, proxy.port);
    let workspace = Workspace::on(&first);
    level(&first, &other);
    first.kill();
    proxy.cut();
    reaches(&other, false);
    assert_eq!(other.operate(&["promote"]).json()["term"], 2);
    let first = Arc::new(first.restart());
    let log = first.log();
    assert!(log.find("another node was promoted").unwrap() < log.find("keyward is ready").unwrap(), "{log}");
    refused(&on(&workspace, &first));
    assert_eq!(status(&first)["replication"]["role"], "fenced");
}

/// A node in the middle has records that its new leader has not: it sets them aside and takes all records anew, and so does the one
/// below it, which nobody has told anything.
#[test]
fn a_parting_travels_down() {
    let (a, b, c, d) = (Place::new("a"), Place::new("b"), Place::new("c"), Place::new("d"));
    let first = start(&a, None);
    let middle = following(&b, a.peers);
    let last = following(&c, b.peers);
    let proxy = Proxy::to(a.peers);
    let other = following(&d, proxy.port);
    let workspace = Workspace::on(&first);
    let key = workspace.key(&workspace.api(), json!({"name": "everywhere"}));
    level(&first, &other);
    proxy.hold(true, true);
    workspace.update(&key, json!({"name": "not where it will be led"}));
    level(&first, &middle);
    level(&first, &last);
    first.kill();
    reaches(&other, false);
    assert_eq!(other.operate(&["promote"]).json()["term"], 2);
    assert_eq!(middle.stop(), Some(0));
    let middle = middle.restart_with(at(&b, Some(d.peers)));
    for server in [&middle, &*last] {
        until("the file", || server.log().contains("they are in this file"));
    }
    until("the same name", || {
        reaches(&last, true);
        on(&workspace, &last).call("keys.getKey", json!({"keyId": key.id})).send().json["data"]["name"] == "everywhere"
    });
    on(&workspace, &last).update(&key, json!({"name": "by the new leader"}));
    level(&other, &last);
    for server in [&*last, &middle, &*other] {
        server.kill();
    }
    same_records(&other, &last);
    same_records(&other, &middle);
}
