//! Followers: several processes with the same records. What the leader has answered is there, on whichever node leads next.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::call::problem;
use crate::harness::nodes::{Place, level, on, same_records, until};
use crate::harness::program::DataDir;
use crate::harness::{Ask, Connection, Server, Workspace};

/// What a node says to a change that it does not take.
fn refused(workspace: &Workspace, operation: &str, body: Value) -> String {
    let call = workspace.call(operation, body);
    let reply = workspace.server.exchange(call.ask());
    problem(reply, 503, "unkey/application/service_unavailable").expect("refused").detail
}

/// A follower begins with a checkpoint, goes on with the log, through its own restarts and the leader's, killed or stopped; when
/// both are stopped their records are the same, byte for byte.
#[test]
fn a_follower_has_what_the_leader_has() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let leader = Arc::new(Server::start_with(DataDir::fresh(), a.options(None)));
    let workspace = Workspace::on(&leader);
    let api = workspace.api();
    let before = workspace.key(&api, json!({"credits": {"remaining": 10}, "name": "before"}));
    let follower = Server::start_with(DataDir::fresh(), b.options(Some(a.peers)));
    let after = workspace.key(&api, json!({"name": "after"}));
    assert_eq!(workspace.code(&before, json!({})), "VALID");
    level(&leader, &follower);
    assert!(follower.log().contains("the leader's log is followed"), "by the log, not by another checkpoint");

    follower.kill();
    workspace.update(&after, json!({"name": "while it was away"}));
    let follower = follower.restart();
    level(&leader, &follower);

    leader.kill();
    let leader = Arc::new(leader.restart());
    let workspace = on(&workspace, &leader);
    workspace.update(&after, json!({"name": "after the leader was killed"}));
    level(&leader, &follower);
    let said = follower.log();
    assert!(!said.contains("taken anew"), "its log was there all the time: {said}");

    assert_eq!(follower.stop(), Some(0));
    assert_eq!(leader.stop(), Some(0));
    // The leader writes what waits when it stops; the follower has that when both have run again.
    let leader = leader.restart();
    let follower = follower.restart();
    level(&leader, &follower);
    follower.kill();
    leader.kill();
    same_records(&leader, &follower);
}

/// The leader is killed, a follower promoted: it has everything that was answered while it was level, and takes changes at once. The
/// leader before it is refused when it returns, follows, and what only it had is in a file.
#[test]
fn a_promoted_follower_leads_and_the_old_leader_follows() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let old = Arc::new(Server::start_with(
        DataDir::fresh(),
        a.options(None).setting("KEYWARD_REPLICATION_ACK", "one").setting("KEYWARD_REPLICATION_ACK_TIMEOUT_MS", 300),
    ));
    let new = Arc::new(Server::start_with(DataDir::fresh(), b.options(Some(a.peers))));
    until("the stream", || new.log().contains("the leader's log is followed"));
    let workspace = Workspace::on(&old);
    let api = workspace.api();
    let keys: Vec<_> = (0..20).map(|n| workspace.key(&api, json!({"name": format!("key {n}")}))).collect();

    let output = new.operate(&["promote"]);
    assert!(output.code == Some(1) && output.stderr.contains("can be reached"), "{output:?}");
    // What is changed while no follower is there is made, and its answer says that nobody has confirmed it.
    new.kill();
    let told = refused(&workspace, "keys.updateKey", json!({"keyId": keys[0].id, "name": "on one node alone"}));
    assert!(told.contains("few followers have confirmed"), "{told}");
    old.kill();

    let new = Arc::new(new.restart());
    let promoted = new.operate(&["promote"]).json();
    assert_eq!(promoted["term"], 2);
    let led = on(&workspace, &new);
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(led.get(key)["name"], format!("key {n}"), "answered by the leader, so it is here");
    }
    led.update(&keys[1], json!({"name": "by the new leader"}));

    // It comes back as it was, believing that it leads, and is told.
    let old = old.restart();
    until("the fence", || old.log().contains("another node was promoted"));
    let told = on(&workspace, &Arc::new(old));
    let why = refused(&told, "keys.updateKey", json!({"keyId": keys[2].id, "name": "too late"}));
    assert!(why.contains("Another node leads"), "{why}");
    let old = told.server;
    assert_eq!(old.stop(), Some(0));

    // As a follower it sets aside what only it has, and takes the rest anew.
    let old = old.restart_with(a.options(Some(b.peers)));
    until("the file", || old.log().contains("they are in this file"));
    until("the stream", || old.log().contains("the leader's log is followed"));
    level(&new, &old);
    let names: Vec<String> = std::fs::read_dir(old.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("diverged-1-"))
        .collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let aside = std::fs::read(old.dir.path().join(&names[0])).unwrap();
    assert!(aside.windows(17).any(|part| part == b"on one node alone"));

    // A node that was promoted leads after a restart, though its settings name the one it replaced.
    assert_eq!(old.stop(), Some(0));
    assert_eq!(new.stop(), Some(0));
    let new = new.restart();
    assert!(new.log().contains("promoted in place of"));
    let old = old.restart();
    level(&new, &old);
    old.kill();
    new.kill();
    same_records(&new, &old);
}

/// Clients that write at the same time while leaders are killed.
const CLIENTS: usize = 4;
/// How often a leader is killed, unless `KEYWARD_SOAK_ROUNDS` says otherwise.
const ROUNDS: usize = 4;

/// What clients were answered.
#[derive(Default)]
struct Answered {
    /// Plaintexts of keys that were made.
    keys: Vec<String>,
    /// Answers with a key of 50 credits, by its plaintext: so many were spent.
    spent: u64,
}

/// Makes keys, and spends credits of one, until the server is gone.
fn work(server: &Server, root: &str, api: &str, shared: &str) -> Answered {
    let mut answered = Answered::default();
    let Ok(mut connection) = Connection::open(server.addr) else { return answered };
    let ask = |operation: &str, body: &Value| {
        Ask::new("POST", &format!("/v2/{operation}"))
            .header("Content-Type", "application/json")
            .header("Authorization", &format!("Bearer {root}"))
            .body(body.to_string())
    };
    loop {
        let Ok(made) = connection.exchange(&ask("keys.createKey", &json!({"apiId": api}))) else { return answered };
        match made.status {
            200 => answered.keys.push(made.json["data"]["key"].as_str().unwrap().to_owned()),
            // Made, and not confirmed: it may be lost.
            503 => {}
            other => panic!("{other}: {}", made.text()),
        }
        let Ok(spent) = connection.exchange(&ask("keys.verifyKey", &json!({"key": shared}))) else { return answered };
        if spent.status == 200 && spent.json["data"]["code"] == "VALID" {
            answered.spent += 1;
        }
    }
}

/// Leader after leader is killed under load, and its follower promoted within two seconds: with `ack = one` nothing that was answered
/// is lost, and with `credits_journal = strict` no credit is given out twice. Each old leader returns as a follower.
#[test]
fn nothing_answered_is_lost_when_leaders_are_killed() {
    let rounds = std::env::var("KEYWARD_SOAK_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let places = [Place::new("a"), Place::new("b")];
    let options = |own: usize, follow: bool| {
        let options = places[own].options(follow.then_some(places[1 - own].peers));
        let options =
            options.setting("KEYWARD_REPLICATION_ACK", "one").setting("KEYWARD_REPLICATION_ACK_TIMEOUT_MS", 2000);
        options.setting("KEYWARD_STORAGE_CREDITS_JOURNAL", "strict")
    };
    let mut leads = 0;
    let mut leader = Arc::new(Server::start_with(DataDir::fresh(), options(0, false)));
    let mut follower = Arc::new(Server::start_with(DataDir::fresh(), options(1, true)));
    until("the stream", || follower.log().contains("the leader's log is followed"));
    let workspace = Workspace::on(&leader);
    let api = workspace.api();
    let credits = 1_000_000;
    let shared = workspace.key(&api, json!({"credits": {"remaining": credits}}));
    let (mut keys, mut spent) = (Vec::new(), 0);
    for round in 0..rounds {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (leader, root) = (Arc::clone(&leader), workspace.root.clone());
                let (api, shared) = (api.clone(), shared.secret.clone());
                std::thread::spawn(move || work(&leader, &root, &api, &shared))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300 + 70 * (round as u64 % 5)));
        leader.kill();
        let mut made = 0;
        for client in clients {
            let answered = client.join().unwrap();
            made += answered.keys.len();
            keys.extend(answered.keys);
            spent += answered.spent;
        }
        assert!(made > 0, "nothing was answered in round {round}");
        until("the leader's silence", || follower.operate(&["promote"]).code == Some(0));
        leads = 1 - leads;
        let new = Arc::clone(&follower);
        let led = on(&workspace, &new);
        for key in keys.iter().rev().take(made + 20) {
            assert_eq!(led.ok("keys.verifyKey", json!({"key": key}))["code"], "VALID", "an answered key is lost");
        }
        let left = led.ok("keys.getKey", json!({"keyId": shared.id}))["credits"]["remaining"].as_u64().unwrap();
        assert!(credits - left >= spent, "credits were given out twice: {spent} were spent, {left} are left");

        let old = Arc::new(leader.restart_with(options(1 - leads, true)));
        until("the stream", || old.log().contains("the leader's log is followed"));
        level(&new, &old);
        (leader, follower) = (new, old);
    }
    let led = on(&workspace, &leader);
    for key in &keys {
        assert_eq!(led.ok("keys.verifyKey", json!({"key": key}))["code"], "VALID", "an answered key is lost");
    }
    leader.kill();
    follower.kill();
}
