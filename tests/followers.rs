//! Followers as clients see them: any node answers, cut links and killed leaders lose nothing that was answered and make nothing
//! twice, and every event is with the leader once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::nodes::{Place, level, on, same_records, status, until};
use crate::harness::program::DataDir;
use crate::harness::proxy::Proxy;
use crate::harness::{Ask, Connection, Dice, Key, Options, Reply, Server, Workspace};

/// Silence after which nodes of these tests give each other up, ms.
const SILENCE_MS: u64 = 400;
const STALENESS: &str = "x-keyward-staleness-ms";

/// A node that gives others up soon: as a follower of whoever answers at that port, or as the leader.
fn at(place: &Place, follow: Option<u16>) -> Options {
    place.options(follow).setting("KEYWARD_REPLICATION_SILENCE_MS", SILENCE_MS)
}

/// A leader and a follower that reaches it through a proxy.
struct Pair {
    leader: Arc<Server>,
    follower: Arc<Server>,
    proxy: Proxy,
    workspace: Workspace,
}

impl Pair {
    fn start(with: impl Fn(Options) -> Options) -> Pair {
        let (a, b) = (Place::new("a"), Place::new("b"));
        let leader = Arc::new(Server::start_with(DataDir::fresh(), with(at(&a, None))));
        let proxy = Proxy::to(a.peers);
        let follower = Arc::new(Server::start_with(DataDir::fresh(), with(at(&b, Some(proxy.port)))));
        let workspace = Workspace::on(&leader);
        let pair = Pair { leader, follower, proxy, workspace };
        pair.level();
        pair
    }

    /// The workspace as the follower has it.
    fn here(&self) -> Workspace {
        on(&self.workspace, &self.follower)
    }

    fn level(&self) {
        level(&self.leader, &self.follower);
    }

    fn unreachable(&self) {
        until("the silence", || status(&self.follower)["replication"]["leader"]["reachable"] == false);
    }

    fn reachable(&self) {
        until("the leader's word", || status(&self.follower)["replication"]["leader"]["reachable"] == true);
    }
}

/// One request whose answer may be an error or none at all.
fn ask(server: &Server, root: &str, operation: &str, body: &Value) -> io::Result<Reply> {
    let ask = Ask::new("POST", &format!("/v2/{operation}"))
        .header("Content-Type", "application/json")
        .header("Authorization", &format!("Bearer {root}"))
        .body(body.to_string());
    Connection::open(server.addr)?.exchange(&ask)
}

/// The value of a metric without labels.
fn metric(server: &Server, name: &str) -> u64 {
    let page = server.get("/metrics").text();
    let line = page.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_else(|| panic!("no {name}")) as u64
}

/// How many verifications the leader's analytics have, and how many different ones.
fn recorded(workspace: &Workspace) -> (u64, u64) {
    let query = "SELECT count() AS n, uniqExact(request_id) AS d FROM key_verifications_v1";
    let rows = workspace.ok("analytics.getVerifications", json!({ "query": query }));
    (rows[0]["n"].as_u64().unwrap(), rows[0]["d"].as_u64().unwrap())
}

/// A client may talk to any node: what it changes through a follower it reads there at once; what a follower answers by itself says
/// how old it is, what the leader answers does not; plain keys are verified without the leader, what counts is counted by it, once
/// for all nodes; refusals are the leader's word for word; events and last uses of the follower's verifications are with the leader.
#[test]
fn any_node_answers() {
    let pair = Pair::start(|options| options);
    let (there, here) = (&pair.workspace, pair.here());
    let api = here.api();
    let plain = here.key(&api, json!({"name": "plain"}));
    let limits = json!([{"name": "requests", "limit": 3, "duration": 600_000, "autoApply": true}]);
    let limited = here.key(&api, json!({"ratelimits": limits, "credits": {"remaining": 100}}));
    let read = here.call("keys.getKey", json!({"keyId": plain.id})).send();
    assert_eq!(read.json["data"]["name"], "plain", "its own change");
    assert!(read.header(STALENESS).is_some_and(|age| age.parse::<u64>().is_ok()), "{read:?}");
    assert_eq!(here.call("apis.getApi", json!({"apiId": "api_none"})).send().status, 404);
    let read = there.call("keys.getKey", json!({"keyId": plain.id})).send();
    assert_eq!((read.status, read.header(STALENESS)), (200, None), "on the leader it is as it is");

    let before = metric(&pair.follower, "keyward_replication_forwarded_total");
    for _ in 0..5 {
        let verified = here.call("keys.verifyKey", json!({"key": plain.secret})).send();
        assert_eq!(verified.json["data"]["code"], "VALID");
        assert!(verified.header(STALENESS).is_some());
    }
    assert_eq!(metric(&pair.follower, "keyward_replication_forwarded_total"), before, "nobody was asked");
    let codes: Vec<String> = (0..5).map(|n| [&here, there][n % 2].code(&limited, json!({}))).collect();
    assert_eq!(codes, ["VALID", "VALID", "VALID", "RATE_LIMITED", "RATE_LIMITED"], "one limit for both");
    assert_eq!(there.get(&limited)["credits"]["remaining"], 97);
    let passed = (0..6).filter(|n| {
        let limit = json!({"namespace": "logins", "identifier": "ada", "limit": 4, "duration": 600_000});
        [there, &here][n % 2].ok("ratelimit.limit", limit)["success"] == true
    });
    assert_eq!(passed.count(), 4);

    for (operation, body) in [
        ("keys.updateKey", json!({"keyId": "key_none", "name": "x"})),
        ("keys.createKey", json!({"apiId": api, "byteLength": 1})),
        ("permissions.createRole", json!({"name": ""})),
    ] {
        let both = [there, &here].map(|node| {
            let mut reply = node.call(operation, body.clone()).send();
            reply.json["meta"] = Value::Null;
            let link = reply.header("link").map(str::to_owned);
            (reply.status, reply.media_type().to_owned(), link, reply.json)
        });
        assert_eq!(both[0], both[1], "{operation}");
        let stranger =
            [there, &here].map(|node| node.server.call(operation, body.clone()).bearer("unkey_wrong").send());
        assert_eq!(stranger[0].status, stranger[1].status, "{operation}");
        assert!([400, 401].contains(&stranger[0].status), "COM-ORD-01: the body is looked at first");
    }
    until("the follower's events", || recorded(there) == (10, 10));
    assert_eq!(recorded(&here), (10, 10), "it asks the leader");
    assert_eq!(status(&pair.leader)["replication"]["followers"][0]["name"], "b");
    assert_eq!(status(&pair.follower)["replication"]["role"], "follower");
    for (server, role) in [(&pair.leader, "leader"), (&pair.follower, "follower")] {
        let page = server.get("/metrics").text();
        assert!(page.contains(&format!("keyward_replication_role{{role=\"{role}\"}} 1")), "{page}");
        assert_eq!([server.get("/health/ready").status, server.get("/health/ready/writes").status], [200, 200]);
    }
    // The leader writes last uses down twice a minute, and when it stops.
    assert_eq!(pair.leader.stop(), Some(0));
    let there = there.moved(pair.leader.restart());
    assert!(there.get(&plain)["lastUsedAt"].is_u64(), "KEYS-ANALYTICS-5: it was verified by the follower alone");
}

/// The link is silent, both ways or one way: reads and plain keys go on and say how old they are; limits are counted here; credits
/// are refused, or given out as far as the balance goes; changes are answered 503 and made by nobody. After healing all is as if
/// nothing had been, and what was verified meanwhile is in the leader's analytics once.
#[test]
fn a_cut_off_follower_goes_on() {
    let pair = Pair::start(|options| options.setting("KEYWARD_REPLICATION_CREDITS_OFFLINE", "allow"));
    let (there, here) = (&pair.workspace, pair.here());
    let api = there.api();
    let plain = there.key(&api, json!({}));
    let paid = there.key(&api, json!({"credits": {"remaining": 4}}));
    let limits = json!([{"name": "requests", "limit": 2, "duration": 600_000, "autoApply": true}]);
    let limited = there.key(&api, json!({"ratelimits": limits}));
    pair.level();
    let mut verified = 0;
    let mut tried = 0;
    for (up, down) in [(true, true), (true, false), (false, true)] {
        pair.proxy.hold(up, down);
        pair.unreachable();
        let reply = here.call("keys.verifyKey", json!({"key": plain.secret})).send();
        assert_eq!(reply.json["data"]["code"], "VALID");
        verified += 1;
        assert!(reply.header(STALENESS).is_some_and(|age| age != "0"), "{reply:?}");
        for (operation, body) in [
            ("keys.updateKey", json!({"keyId": plain.id, "name": format!("while cut off {tried}")})),
            ("apis.createApi", json!({"name": "while cut off"})),
            ("analytics.getVerifications", json!({"query": "SELECT 1 FROM key_verifications_v1"})),
        ] {
            let reply = ask(&pair.follower, &here.root, operation, &body).unwrap();
            assert_eq!(reply.status, 503, "{operation}: {}", reply.text());
            assert!(reply.header("retry-after").is_some() && reply.text().contains("leader"), "{}", reply.text());
            tried += 1;
        }
        assert_eq!(pair.follower.get("/health/ready").status, 200);
        assert_eq!(pair.follower.get("/health/ready/writes").status, 503);
        assert!(pair.follower.get("/health/ready").text().contains("leader_unreachable"));
        if up && down {
            let codes: Vec<String> = (0..5).map(|_| here.code(&paid, json!({}))).collect();
            assert_eq!(codes, ["VALID", "VALID", "VALID", "VALID", "USAGE_EXCEEDED"], "as far as the balance goes");
            let codes: Vec<String> = (0..3).map(|_| here.code(&limited, json!({}))).collect();
            assert_eq!(codes, ["VALID", "VALID", "RATE_LIMITED"]);
            verified += 8;
        }
        pair.proxy.heal();
        pair.reachable();
    }
    assert_eq!(there.get(&paid)["credits"]["remaining"], 4, "nothing was taken off");
    assert!(there.get(&plain)["name"].is_null(), "nobody has made what was refused");
    until("the events", || recorded(there) == (verified, verified));
    here.update(&plain, json!({"name": "after healing"}));
    assert_eq!(here.get(&plain)["name"], "after healing");

    // As it is unless the operator says otherwise, no credit is given out twice.
    let strict = Pair::start(|options| options);
    let api = strict.workspace.api();
    let paid = strict.workspace.key(&api, json!({"credits": {"remaining": 4}}));
    strict.level();
    strict.proxy.cut();
    strict.unreachable();
    let reply = ask(&strict.follower, &strict.workspace.root, "keys.verifyKey", &json!({"key": paid.secret})).unwrap();
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("credits_offline"), "{}", reply.text());
}

/// What clients did and were told.
#[derive(Default)]
struct History {
    /// Names of keys that were asked for, and whether that was acknowledged.
    made: BTreeMap<String, bool>,
    /// Verifications of the key with credits that were answered as valid.
    spent: u64,
    /// Those whose answer did not come.
    doubtful: u64,
    /// Verifications of a plain key that were answered.
    verified: u64,
}

impl History {
    fn join(&mut self, other: History) {
        self.made.extend(other.made);
        self.spent += other.spent;
        self.doubtful += other.doubtful;
        self.verified += other.verified;
    }

    /// Every acknowledged key is there; no key is there twice; nothing is there that nobody asked for.
    fn check_keys(&self, workspace: &Workspace, api: &str) {
        let mut there: BTreeMap<String, u64> = BTreeMap::new();
        for key in workspace.all("apis.listKeys", json!({"apiId": api}), 100) {
            if let Some(name) = key["name"].as_str().filter(|name| name.starts_with("client")) {
                *there.entry(name.to_owned()).or_default() += 1;
            }
        }
        let twice: Vec<&String> = there.iter().filter(|(_, count)| **count > 1).map(|(name, _)| name).collect();
        assert!(twice.is_empty(), "made twice: {twice:?}");
        let acknowledged = self.made.iter().filter(|(_, acknowledged)| **acknowledged).map(|(name, _)| name);
        let lost: Vec<&String> = acknowledged.filter(|name| !there.contains_key(*name)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        let strange: BTreeSet<&String> = there.keys().filter(|name| !self.made.contains_key(*name)).collect();
        assert!(strange.is_empty(), "nobody asked for {strange:?}");
    }
}

/// A client of one node until it is told to stop.
struct Client<'a> {
    number: usize,
    root: &'a str,
    api: &'a str,
    paid: &'a Key,
    plain: &'a Key,
}

impl Client<'_> {
    fn run(&self, server: &Server, stop: &AtomicBool, done: &AtomicU64) -> History {
        let mut history = History::default();
        let mut dice = Dice::new(self.number as u64);
        let mut made = 0;
        while !stop.load(Ordering::Acquire) {
            let answered = match dice.below(4) {
                0 | 1 => {
                    let name = format!("client {} key {made}", self.number);
                    made += 1;
                    let body = json!({"apiId": self.api, "name": name});
                    let status = ask(server, self.root, "keys.createKey", &body).map_or(0, |reply| reply.status);
                    assert!([0, 200, 408, 503].contains(&status), "{status}");
                    history.made.insert(name, status == 200);
                    status == 200
                }
                2 => {
                    let body = json!({"key": self.paid.secret});
                    match ask(server, self.root, "keys.verifyKey", &body) {
                        Ok(reply) if reply.status == 200 => {
                            history.spent += u64::from(reply.json["data"]["valid"] == true);
                            true
                        }
                        _ => {
                            history.doubtful += 1;
                            false
                        }
                    }
                }
                _ => {
                    let body = json!({"key": self.plain.secret});
                    let reply = ask(server, self.root, "keys.verifyKey", &body);
                    let is_good = reply.is_ok_and(|reply| reply.status == 200);
                    history.verified += u64::from(is_good);
                    is_good
                }
            };
            match answered {
                true => drop(done.fetch_add(1, Ordering::AcqRel)),
                false => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        history
    }
}

/// Clients write through a follower whose link is cut again and again, delayed, held: nothing is made twice, nothing acknowledged is
/// lost, each spend that was answered was taken once, each event is there once; in the end both nodes have the same bytes.
#[test]
fn cut_links_make_nothing_twice() {
    let pair = Pair::start(|options| options.setting("KEYWARD_STORAGE_CREDITS_JOURNAL", "strict"));
    let (there, here) = (&pair.workspace, pair.here());
    let api = there.api();
    let paid = there.key(&api, json!({"credits": {"remaining": 1_000_000}}));
    let plain = there.key(&api, json!({}));
    pair.level();
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let history = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let client = Client { number, root: &here.root, api: &api, paid: &paid, plain: &plain };
                let (server, stop, done) = (&pair.follower, &stop, &done);
                scope.spawn(move || client.run(server, stop, done))
            })
            .collect();
        let mut dice = Dice::new(4);
        for round in 0..24 {
            match dice.below(4) {
                0 => pair.proxy.hold(true, false),
                1 => pair.proxy.hold(false, true),
                2 => pair.proxy.delay(Duration::from_millis(dice.below(20))),
                _ => {}
            }
            std::thread::sleep(Duration::from_millis(20 + dice.below(60)));
            pair.proxy.blink();
            pair.proxy.heal();
            let before = done.load(Ordering::Acquire);
            until(&format!("work after cut {round}"), || done.load(Ordering::Acquire) > before + 4);
        }
        stop.store(true, Ordering::Release);
        let mut history = History::default();
        clients.into_iter().for_each(|client| history.join(client.join().unwrap()));
        history
    });
    assert!(history.made.len() > 50, "{}", history.made.len());
    pair.level();
    history.check_keys(there, &api);
    history.check_keys(&here, &api);
    let left = there.get(&paid)["credits"]["remaining"].as_u64().unwrap();
    let taken = 1_000_000 - left;
    assert!(
        (history.spent..=history.spent + history.doubtful).contains(&taken),
        "{taken} taken, {} answered",
        history.spent
    );
    until("every event once", || {
        let (all, distinct) = recorded(there);
        assert_eq!(all, distinct, "an event is there twice");
        let least = history.verified + history.spent;
        // A spend in doubt may have been made and recorded.
        all >= least
            && all <= least + 2 * history.doubtful + 1_000
            && status(&pair.follower)["replication"]["leader"]["undeliveredBatches"] == 0
    });
    assert_eq!(pair.follower.stop(), Some(0));
    assert_eq!(pair.leader.stop(), Some(0));
    let (leader, follower) = (pair.leader.restart(), pair.follower.restart());
    level(&leader, &follower);
    follower.kill();
    leader.kill();
    same_records(&leader, &follower);
}

/// The leader is killed under load and the follower promoted while its clients go on writing through it: whatever was answered is
/// there, nothing twice; the events that the follower could not deliver are its own. The old leader returns, follows, and in the end
/// has the same bytes.
#[test]
fn a_promotion_under_load_loses_nothing() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let acknowledged = |options: Options| options.setting("KEYWARD_REPLICATION_ACK", "one");
    let old = Arc::new(Server::start_with(DataDir::fresh(), acknowledged(at(&a, None))));
    let new = Arc::new(Server::start_with(DataDir::fresh(), at(&b, Some(a.peers))));
    let workspace = Workspace::on(&old);
    let api = workspace.api();
    let paid = workspace.key(&api, json!({"credits": {"remaining": 1_000_000}}));
    let plain = workspace.key(&api, json!({}));
    level(&old, &new);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let progress = |what: &str, by: u64| {
        let before = done.load(Ordering::Acquire);
        until(what, || done.load(Ordering::Acquire) > before + by);
    };
    let history = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|number| {
                let client = Client { number, root: &workspace.root, api: &api, paid: &paid, plain: &plain };
                let (server, stop, done) = (&new, &stop, &done);
                scope.spawn(move || client.run(server, stop, done))
            })
            .collect();
        progress("work through the follower", 100);
        old.kill();
        progress("work alone", 20);
        until("the promotion", || new.operate(&["promote"]).code == Some(0));
        progress("work on the new leader", 100);
        stop.store(true, Ordering::Release);
        let mut history = History::default();
        clients.into_iter().for_each(|client| history.join(client.join().unwrap()));
        history
    });
    let led = on(&workspace, &new);
    history.check_keys(&led, &api);
    assert_eq!(status(&new)["replication"]["role"], "leader");
    until("its own events", || {
        let (all, distinct) = recorded(&led);
        assert_eq!(all, distinct, "an event is there twice");
        all > 0
    });

    let old = old.restart_with(acknowledged(at(&a, Some(b.peers))));
    until("the old leader follows", || old.log().contains("the leader's log is followed"));
    level(&new, &old);
    let returned = on(&workspace, &Arc::new(old));
    history.check_keys(&returned, &api);
    returned.update(&plain, json!({"name": "through the old leader"}));
    assert_eq!(led.get(&plain)["name"], "through the old leader");
    let old = returned.server;
    assert_eq!(old.stop(), Some(0));
    assert_eq!(new.stop(), Some(0));
    let new = new.restart();
    let old = old.restart();
    level(&new, &old);
    old.kill();
    new.kill();
    same_records(&new, &old);
}

/// A follower is killed again and again while it verifies, and its leader too: what either has journaled is in the leader's
/// analytics once.
#[test]
fn killed_nodes_double_no_event() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let mut leader = Arc::new(Server::start_with(DataDir::fresh(), at(&a, None)));
    let mut follower = Arc::new(Server::start_with(DataDir::fresh(), at(&b, Some(a.peers))));
    let workspace = Workspace::on(&leader);
    let plain = workspace.key(&workspace.api(), json!({}));
    level(&leader, &follower);
    let (mut verified, mut since_start) = (0, 0);
    for round in 0..6 {
        for _ in 0..40 {
            let reply = ask(&follower, &workspace.root, "keys.verifyKey", &json!({"key": plain.secret})).unwrap();
            assert_eq!(reply.json["data"]["code"], "VALID");
            verified += 1;
            since_start += 1;
        }
        // A kill takes what is not journaled; where the machine is busy that can be more than 10 ms.
        until("the journal", || metric(&follower, "keyward_events_recorded_total") == since_start);
        if round % 2 == 0 {
            follower.kill();
            since_start = 0;
            follower = Arc::new(follower.restart());
        } else {
            leader.kill();
            leader = Arc::new(leader.restart());
            until("the leader's word", || status(&follower)["replication"]["leader"]["reachable"] == true);
        }
    }
    let led = on(&workspace, &leader);
    until("every event", || {
        let (all, distinct) = recorded(&led);
        assert_eq!(all, distinct, "an event is there twice");
        all == verified
    });
}
