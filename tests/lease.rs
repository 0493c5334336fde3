//! Fail-over without an operator: a lease in etcd or Kubernetes says who leads.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::call::problem;
use crate::harness::lease::{Etcd, Kubernetes};
use crate::harness::nodes::{Place, follows, level, on, same_records, status, until};
use crate::harness::program::DataDir;
use crate::harness::proxy::Proxy;
use crate::harness::{Options, Server, Workspace};

/// The shortest lease there is, ms.
const DURATION: u64 = 3_000;

/// A node that leads when it gets the lease that is kept at this port.
fn leased(place: &Place, kind: &str, port: u16) -> Options {
    place
        .options(None)
        .setting("KEYWARD_REPLICATION_LEASE", kind)
        .setting("KEYWARD_REPLICATION_LEASE_ENDPOINTS", format!("http://127.0.0.1:{port}"))
        .setting("KEYWARD_REPLICATION_LEASE_DURATION_MS", DURATION)
        .setting("KEYWARD_REPLICATION_ADVERTISE", format!("http://127.0.0.1:{}", place.peers))
}

/// What a node does with changes.
fn role(server: &Server) -> String {
    let told = server.operate(&["status"]);
    // While it begins anew nobody answers.
    if told.code != Some(0) {
        return String::new();
    }
    status(server)["replication"]["role"].as_str().unwrap_or_default().to_owned()
}

fn term(server: &Server) -> u64 {
    status(server)["replication"]["term"].as_u64().unwrap()
}

/// Changes something, whoever leads, as soon as somebody does.
fn change(workspace: &Workspace, key: &crate::harness::Key, name: &str) {
    until("somebody who takes changes", || {
        let call = workspace.call("keys.updateKey", json!({"keyId": key.id, "name": name}));
        let mut connection = match crate::harness::Connection::open(workspace.server.addr) {
            Ok(connection) => connection,
            Err(_) => return false,
        };
        connection.exchange(call.ask()).is_ok_and(|reply| reply.status == 200)
    });
}

/// What a node says to a change that it does not take.
fn refused(workspace: &Workspace, body: Value) -> String {
    let call = workspace.call("keys.updateKey", body);
    problem(workspace.server.exchange(call.ask()), 503, "unkey/application/service_unavailable")
        .expect("refused")
        .detail
}

/// Three nodes and no word of an operator: the leader is killed, and the follower that has all leads when the lease has run out;
/// clients go on through whichever node they know. The old leader comes back and follows; so it goes again, and at the end all have
/// the same records, and all that was answered.
#[test]
fn a_follower_leads_when_the_leader_is_lost() {
    let Some(etcd) = Etcd::start() else { return };
    etcd.ask_for_password("of-the-tests");
    let secret = DataDir::fresh();
    std::fs::write(secret.path(), "of-the-tests\n").unwrap();
    std::fs::set_permissions(secret.path(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let places = [Place::new("a"), Place::new("b"), Place::new("c")];
    let options = |no: usize| {
        leased(&places[no], "etcd", etcd.port)
            .setting("KEYWARD_REPLICATION_LEASE_USER", "root")
            .setting("KEYWARD_REPLICATION_LEASE_PASSWORD_FILE", secret.text())
            .setting("KEYWARD_REPLICATION_ACK", "one")
    };
    // The first one makes the records; the others find it by the lease.
    let mut nodes: Vec<Arc<Server>> =
        (0..3).map(|no| Arc::new(Server::start_with(DataDir::fresh(), options(no)))).collect();
    assert_eq!(nodes.iter().map(|node| role(node)).collect::<Vec<_>>(), ["leader", "follower", "follower"]);
    let workspace = Workspace::on(&nodes[0]);
    let api = workspace.api();
    let keys: Vec<_> = (0..10).map(|n| workspace.key(&api, json!({"name": format!("key {n}")}))).collect();
    let told = nodes[1].operate(&["promote", "--force"]);
    assert!(told.code == Some(1) && told.stderr.contains("a holds the lease"), "{told:?}");

    let mut leads = 0;
    for round in 1..=2 {
        nodes[leads].kill();
        let others: Vec<usize> = (0..3).filter(|no| *no != leads).collect();
        until("another leader", || others.iter().any(|no| role(&nodes[*no]) == "leader"));
        let old = leads;
        leads = others.into_iter().find(|no| role(&nodes[*no]) == "leader").unwrap();
        assert!(term(&nodes[leads]) > round, "a new term");
        // Through the one that follows.
        let third = 3 - old - leads;
        change(&on(&workspace, &nodes[third]), &keys[0], &format!("round {round}"));
        let returned = Arc::new(nodes[old].restart());
        nodes[old] = returned;
        until("the old leader follows", || role(&nodes[old]) == "follower");
        change(&on(&workspace, &nodes[old]), &keys[1], &format!("round {round}"));
        level(&nodes[leads], &nodes[old]);
        level(&nodes[leads], &nodes[third]);
    }
    let led = on(&workspace, &nodes[leads]);
    for (n, key) in keys.iter().enumerate() {
        let name = if n < 2 { "round 2".to_owned() } else { format!("key {n}") };
        assert_eq!(led.get(key)["name"], name);
    }
    for node in &nodes {
        node.kill();
    }
    same_records(&nodes[leads], &nodes[(leads + 1) % 3]);
    same_records(&nodes[leads], &nodes[(leads + 2) % 3]);
}

/// The leader is cut off from etcd alone. It takes no changes from before another one may, goes on verifying, and follows the other one
/// when it hears of it. Where etcd is away as a whole nobody leads, and the one that did goes on when etcd is back.
#[test]
fn a_leader_without_its_lease_takes_no_changes() {
    let Some(mut etcd) = Etcd::start() else { return };
    let (a, b) = (Place::new("a"), Place::new("b"));
    let way = Proxy::to(etcd.port);
    let one = Arc::new(Server::start_with(DataDir::fresh(), leased(&a, "etcd", way.port)));
    let workspace = Workspace::on(&one);
    let api = workspace.api();
    let key = workspace.key(&api, json!({"name": "before"}));

    etcd.kill();
    until("the end of the lease", || role(&one) == "suspended");
    let told = refused(&workspace, json!({"keyId": key.id, "name": "while etcd is away"}));
    assert!(told.contains("which node leads"), "{told}");
    assert_eq!(workspace.code(&key, json!({})), "VALID");
    assert_eq!(one.get("/health/ready/writes").status, 503);
    assert_eq!(one.get("/health/ready").status, 200);
    assert!(one.operate(&["status"]).stdout.contains("suspended"));
    etcd.begin();
    until("the lease again", || role(&one) == "leader");
    assert_eq!(term(&one), 1, "nobody else led");
    change(&workspace, &key, "when it is back");

    let two = Arc::new(Server::start_with(DataDir::fresh(), leased(&b, "etcd", etcd.port)));
    follows(&two);
    level(&one, &two);
    way.cut();
    until("another leader", || {
        let taken = role(&two) == "leader";
        // Whoever leads now was asked first: at no time both say that they do.
        assert!(!taken || role(&one) != "leader", "both lead");
        taken
    });
    // It has heard of the other one, or only lost its lease.
    let told = refused(&workspace, json!({"keyId": key.id, "name": "on the wrong side"}));
    assert!(told.contains("which node leads") || told.contains("Another node leads"), "{told}");
    change(&on(&workspace, &two), &key, "on the right side");
    way.heal();
    until("the old leader follows", || role(&one) == "follower");
    level(&two, &one);
    assert_eq!(on(&workspace, &one).get(&key)["name"], "on the right side");
    assert!(one.log().contains("begins anew"));
    one.kill();
    two.kill();
    same_records(&one, &two);
}

/// Kubernetes keeps the lease as its API has it: a leader that is stopped gives it back, and the next one leads at once; what others
/// note in the object stays; a token that was exchanged is read anew.
#[test]
fn kubernetes_keeps_the_lease() {
    let kubernetes = Kubernetes::start("first-token");
    let token = DataDir::fresh();
    std::fs::write(token.path(), "first-token\n").unwrap();
    let places = [Place::new("a"), Place::new("b")];
    let options = |no: usize| {
        leased(&places[no], "kubernetes", kubernetes.port)
            .setting("KEYWARD_REPLICATION_LEASE_NAME", "keys/leader")
            .setting("KEYWARD_REPLICATION_LEASE_TOKEN_FILE", token.text())
    };
    let one = Arc::new(Server::start_with(DataDir::fresh(), options(0)));
    let two = Arc::new(Server::start_with(DataDir::fresh(), options(1)));
    follows(&two);
    let spec = kubernetes.lease().unwrap()["spec"].clone();
    assert!(spec["holderIdentity"].as_str().unwrap().starts_with("a_"), "{spec}");
    assert_eq!((spec["leaseDurationSeconds"].as_i64(), spec["leaseTransitions"].as_i64()), (Some(3), Some(0)));
    kubernetes.label("team", "keys");
    std::fs::write(token.path(), "second-token\n").unwrap();
    kubernetes.change_token("second-token");
    let workspace = Workspace::on(&one);
    let api = workspace.api();
    let key = workspace.key(&api, json!({"name": "by the first"}));
    until("a renewal", || kubernetes.lease().unwrap()["spec"]["renewTime"] != spec["renewTime"]);

    assert_eq!(one.stop(), Some(0));
    assert!(one.log().contains("the lease is given back"));
    until("the next leader", || role(&two) == "leader");
    let led = on(&workspace, &two);
    assert_eq!(led.get(&key)["name"], "by the first");
    led.update(&key, json!({"name": "by the second"}));
    let object = kubernetes.lease().unwrap();
    assert!(object["spec"]["holderIdentity"].as_str().unwrap().starts_with("b_"), "{object}");
    assert_eq!(object["metadata"]["labels"]["team"], "keys");

    let one = Arc::new(one.restart());
    follows(&one);
    level(&two, &one);
    assert!(!one.log().contains("in this file"), "it stopped with nothing that the other one lacks");
    one.kill();
    two.kill();
    same_records(&one, &two);
}
