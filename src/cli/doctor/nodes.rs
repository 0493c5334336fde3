//! Other nodes of the store: may they come, can they be reached, and is the lease what it should be.
//!
//! [`judge`] asks nobody, so that `keyward config check` can say it, too; [`ask`] opens connections. Nothing here shows a secret.

use std::net::{TcpListener, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Finding;
use crate::config::{Leader, Lease, LeaseStore, Replication, Settings, host, is_local};
use crate::http::admin::with_socket_path;
use crate::http::peers;
use crate::outside::Clock;
use crate::replication::census::{self, Told};
use crate::replication::lease::followed;
use crate::replication::lease::register::Register;
use crate::replication::{link_to, token};
use crate::telemetry::error_chain;

/// How long what keeps the lease may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Clocks that differ by more are worth a word, ms.
const APART_MAX_MS: u64 = 1_000;
/// What is said of a file without which nothing goes.
const NO_START: &str = "the server would not start with it";

/// Whether a host is this machine, by what its name leads to: only a machine's own addresses can be bound there.
pub(super) fn is_here(host: &str) -> bool {
    let addresses = (host, 0).to_socket_addrs().map(|all| all.map(|address| address.ip()).collect::<Vec<_>>());
    addresses.is_ok_and(|all| {
        !all.is_empty() && all.iter().all(|ip| !ip.is_unspecified() && UdpSocket::bind((*ip, 0)).is_ok())
    })
}

/// What is said of the settings, and of the files that they name. `is_here` says whether a host is this machine.
pub(in crate::cli) fn judge(settings: &Settings, clock: &Clock, is_here: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let replication = &settings.replication;
    let mut findings = Vec::new();
    findings.extend(unread(&replication.lease));
    if replication.listen.is_none() && replication.follow.is_none() && !replication.lease.is_on() {
        return findings;
    }
    findings.push(admission(settings));
    findings.extend(files(settings, clock));
    findings.extend(plain(replication));
    findings.extend(itself(replication, is_here));
    if replication.lease.is_on() {
        findings.extend(lease(replication));
    }
    findings
}

/// Settings of a lease that nothing reads.
fn unread(lease: &Lease) -> Option<Finding> {
    let default = Lease::default();
    let set = [
        ("lease_endpoints", lease.endpoints != default.endpoints),
        ("lease_ca_file", lease.ca_file.is_some()),
        ("lease_cert_file", lease.cert_file.is_some()),
        ("lease_user", !lease.user.is_empty()),
        ("lease_token_file", lease.token_file.is_some()),
        ("lease_lossy", lease.lossy),
        ("advertise", lease.advertise.is_some()),
    ];
    let named: Vec<String> =
        set.iter().filter(|(_, is_set)| *is_set).map(|(name, _)| format!("replication.{name}")).collect();
    (!lease.is_on() && !named.is_empty()).then(|| {
        Finding::warning(
            "replication.lease",
            format!("replication.lease is none, so nothing reads {}", named.join(", ")),
            "set replication.lease to etcd or kubernetes, or take the others out",
        )
    })
}

/// By what nodes know each other.
fn admission(settings: &Settings) -> Finding {
    let check = "replication.token";
    let replication = &settings.replication;
    match token::open(&settings.secrets, &settings.data_dir) {
        Err(error) => Finding::problem(check, error_chain(&error), NO_START),
        Ok(Some(_)) => Finding::ok(check, "a token is set up; it has to be the same on all nodes"),
        Ok(None) if replication.client_ca_file.is_some() => {
            Finding::ok(check, "no token is set up: nodes show certificates")
        }
        Ok(None) => match &replication.listen {
            Some(address) => {
                let found = format!("replication.listen is {address}, and {}", peers::ADMITS_NOBODY);
                Finding::problem(check, found, "the server would not start without")
            }
            None if settings.tls.is_on() => {
                Finding::ok(check, "no token is set up: this node shows its certificate (tls.cert_file)")
            }
            None => Finding::warning(
                check,
                "this node has neither a token nor a certificate to show to the node that it follows",
                "set replication.token_file to a file with the token of that node",
            ),
        },
    }
}

/// The files of TLS between nodes, and towards what keeps the lease, as the server would read them.
fn files(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let check = "replication.files";
    let replication = &settings.replication;
    let mut wrong = Vec::new();
    if replication.listen.is_some() {
        wrong.extend(peers::tls(settings, clock.clone()).err());
    }
    // A token that cannot be used was told.
    if token::open(&settings.secrets, &settings.data_dir).is_ok() {
        let others = replication.follow.iter().chain(&replication.peers).filter(|node| node.tls);
        wrong.extend(others.filter_map(|node| link_to(settings, node).err()));
    }
    wrong.extend(Register::open(&replication.lease, &settings.secrets, &settings.data_dir).err());
    wrong.sort();
    wrong.dedup();
    wrong.into_iter().map(|why| Finding::problem(check, why, NO_START)).collect()
}

/// What others could read along, where an operator has allowed it.
fn plain(replication: &Replication) -> Option<Finding> {
    let Replication { listen, follow, peers, lease, .. } = replication;
    let nodes = follow.iter().chain(peers).chain(&lease.advertise);
    let mut exposed: Vec<String> = nodes.filter(|node| node.is_exposed(false)).map(Leader::to_string).collect();
    let keepers = lease.endpoints.iter().filter(|url| !url.is_encrypted() && !url.is_loopback());
    exposed.extend(keepers.map(ToString::to_string));
    exposed.dedup();
    (replication.plain && !exposed.is_empty()).then(|| {
        Finding::warning(
            "replication.plain",
            format!("replication.plain allows plain text, and this goes in plain text: {}", exposed.join(", ")),
            format!(
                "whoever reads along on that network has every record and the token: set up TLS (tls.cert_file{}), name the nodes \
                 https://, and take replication.plain out",
                if listen.is_some() { ", for replication.listen" } else { "" }
            ),
        )
    })
}

/// A node that is to ask, or follow, itself.
fn itself(replication: &Replication, is_here: &dyn Fn(&str) -> bool) -> Vec<Finding> {
    let check = "replication.nodes";
    let mut findings = Vec::new();
    if let Some(leader) = replication.follow.as_ref().filter(|leader| is_itself(replication, leader, is_here)) {
        let advice = "name the leader there; on the node that leads, take it out";
        findings.push(Finding::problem(check, format!("replication.follow is {leader}, which is this node"), advice));
    }
    // Where a lease says who leads, all nodes have one list.
    if !replication.lease.is_on() {
        let own = replication.peers.iter().filter(|peer| is_itself(replication, peer, is_here));
        findings.extend(own.map(|peer| {
            let found = format!("replication.peers names {peer}, which is this node");
            let advice = "take it out: this node asks itself at its start, and waits for its own answer";
            Finding::warning(check, found, advice)
        }));
    }
    findings
}

fn is_itself(replication: &Replication, node: &Leader, is_here: &dyn Fn(&str) -> bool) -> bool {
    if replication.lease.advertise.as_ref() == Some(node) {
        return true;
    }
    let Some(listen) = replication.listen.as_deref() else { return false };
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    let own = port(listen).filter(|port| port != "0");
    own.is_some() && port(&node.address) == own && (node.host() == host(listen) || is_here(node.host()))
}

/// Settings of the lease that do not go together.
fn lease(replication: &Replication) -> Vec<Finding> {
    let check = "replication.lease";
    let Replication { lease, listen, peers, .. } = replication;
    let mut findings = Vec::new();
    let Some(advertise) = &lease.advertise else { return findings };
    if !peers.is_empty() && !peers.contains(advertise) {
        findings.push(Finding::warning(
            check,
            format!("replication.peers does not name {advertise}, which is this node's replication.advertise"),
            "add it on all nodes: where that list is not empty, no other address is followed, so nobody would follow this node when \
             it leads",
        ));
    }
    let listens_beyond = listen.as_deref().is_some_and(|listen| !is_local(host(listen)));
    if listens_beyond && is_local(advertise.host()) {
        findings.push(Finding::warning(
            check,
            format!("replication.advertise is {advertise}, by which other machines reach themselves"),
            "name this machine as the others reach it",
        ));
    }
    let is_encrypted = match lease.store {
        // Its own default is.
        LeaseStore::Kubernetes if lease.endpoints.is_empty() => true,
        _ => lease.endpoints.iter().any(|url| url.is_encrypted()),
    };
    if !is_encrypted && (lease.ca_file.is_some() || lease.cert_file.is_some()) {
        findings.push(Finding::warning(
            check,
            "replication.lease_ca_file or replication.lease_cert_file is set, and no endpoint is https://: nothing reads it",
            "name the endpoints https://",
        ));
    }
    findings
}

/// Asks the other nodes and what keeps the lease, and looks at the address for other nodes.
pub(super) fn ask(settings: &Settings, clock: &Clock) -> Vec<Finding> {
    let replication = &settings.replication;
    let mut findings: Vec<Finding> = replication.listen.iter().map(|address| place(settings, address)).collect();
    let mut others: Vec<(&Leader, bool)> = replication.follow.iter().map(|leader| (leader, true)).collect();
    for peer in &replication.peers {
        if !others.iter().any(|(other, _)| *other == peer) && !is_itself(replication, peer, &is_here) {
            others.push((peer, false));
        }
    }
    // Where a file cannot be used nobody is asked: that was told.
    let links: Vec<_> = others
        .iter()
        .filter_map(|(node, is_leader)| Some((link_to(settings, node).ok()?, *node, *is_leader)))
        .collect();
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        let mut stores = Vec::new();
        for (link, node, is_leader) in links {
            let (told, now) = (runtime.block_on(census::question(&link)), clock.now_ms());
            stores.extend(told.as_ref().ok().map(|told| told.store));
            findings.push(other(replication, (node, is_leader), told, now));
        }
        stores.sort_unstable();
        stores.dedup();
        if stores.len() > 1 {
            findings.push(Finding::problem(
                "replication.nodes",
                "the other nodes do not have the same store: one of them was begun by itself",
                "find out which one has the records (`keyward status`), and let the others begin with an empty data directory and \
                 replication.follow",
            ));
        }
    }
    findings.extend(held(settings));
    findings
}

/// The address for other nodes: free where no server runs, and taken by it where one does.
fn place(settings: &Settings, address: &str) -> Finding {
    let check = "replication.listen";
    let runs = with_socket_path(&settings.data_dir, |path| UnixStream::connect(path)).is_ok();
    match (TcpListener::bind(address), runs) {
        (Ok(_), false) => Finding::ok(check, format!("{address} is free")),
        (Err(_), true) => Finding::ok(check, format!("{address} is listened on, and the server runs")),
        (Ok(_), true) => Finding::warning(
            check,
            format!("the server runs and does not listen on {address}"),
            "restart it if replication.listen was changed",
        ),
        (Err(error), false) => Finding::problem(
            check,
            format!("{address} cannot be listened on: {error}"),
            "stop what has it (ss -ltnp), or name another place in replication.listen",
        ),
    }
}

/// What another node has answered.
fn other(
    replication: &Replication,
    (node, is_leader): (&Leader, bool),
    told: Result<Told, String>,
    now_ms: u64,
) -> Finding {
    let check = "replication.nodes";
    let Told { term, name, clock_ms, .. } = match told {
        Ok(told) => told,
        Err(why) => {
            let found = format!("{node} is not reached: {why}");
            let advice = "start keyward there, or see to its address, the network, and that its token or authority is this node's";
            return match is_leader {
                true => Finding::problem(check, found, advice),
                false => Finding::warning(check, found, advice),
            };
        }
    };
    let found = format!("{node} is {name}; the newest term that it has heard of is {}", term.0);
    if name == replication.node {
        return Finding::warning(
            check,
            format!("{found}; that is this node's name, too"),
            "give each node a replication.node of its own, so that status and logs tell them apart",
        );
    }
    match clock_ms.map(|theirs| (theirs.abs_diff(now_ms), theirs > now_ms)) {
        None => Finding::ok(check, found),
        Some((apart, _)) if apart <= APART_MAX_MS => {
            Finding::ok(check, format!("{found}; its clock and this one's differ by {apart} ms"))
        }
        Some((apart, is_ahead)) => Finding::warning(
            check,
            format!("{found}; its clock is {apart} ms {} this one's", if is_ahead { "ahead of" } else { "behind" }),
            "keys expire and windows of limits begin by each node's own clock: let both follow a time server (timedatectl)",
        ),
    }
}

/// What keeps the lease, and whose it is.
fn held(settings: &Settings) -> Option<Finding> {
    let check = "replication.lease";
    let replication = &settings.replication;
    let Lease { name, .. } = &replication.lease;
    // Where a file cannot be used that was told.
    let mut register = Register::open(&replication.lease, &settings.secrets, &settings.data_dir).ok()??;
    Some(match register.read(PATIENCE) {
        Err(error) => Finding::problem(
            check,
            error.to_string(),
            "see to what replication.lease_endpoints names, to the way there, and to the account: no node leads without the lease",
        ),
        Ok(None) => Finding::note(
            check,
            format!("there is no lease {name} yet"),
            "the first node that starts with records, or is to make the first ones, writes it",
        ),
        Ok(Some((_, claim))) => match followed(replication, &claim) {
            Err(why) => Finding::problem(check, why, "until then this node does not follow it"),
            Ok(leader) => {
                let how = if claim.released { "was given back by" } else { "is, or was last, held by" };
                Finding::ok(
                    check,
                    format!("the lease {name} {how} {} at {leader}, term {}", claim.name, claim.reached.term),
                )
            }
        },
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::State;
    use super::*;
    use crate::outside::Outside;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn node(text: &str) -> Leader {
        Leader::parse(text).expect(text)
    }

    fn judged(replication: Replication, token: Option<&Path>) -> Vec<(&'static str, State, String)> {
        let mut settings = Settings { replication, data_dir: Path::new("/none").to_owned(), ..Settings::default() };
        settings.secrets.replication_token_file = token.map(Path::to_owned);
        let findings = judge(&settings, &Outside::system().clock, &is_local);
        assert!(findings.iter().all(|finding| !finding.found.contains(TOKEN)), "no secret is shown");
        findings.into_iter().map(|finding| (finding.check, finding.state, finding.found)).collect()
    }

    /// A token that others may read, that is missing, empty or too short, and none at all where nodes may come: each is told before
    /// the server refuses to start with it.
    #[test]
    fn a_token_is_there_and_private_and_long() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("token");
        let listens = || Replication { listen: Some("127.0.0.1:7071".to_owned()), ..Replication::default() };
        let told = |token: Option<&Path>, state: State, part: &str| {
            let found = judged(listens(), token);
            let (_, is, text) =
                found.iter().find(|(check, ..)| *check == "replication.token").expect("it is looked at");
            assert!(*is == state && text.contains(part), "{found:?}");
        };
        told(None, State::Problem, "nothing says who may follow");
        told(Some(&file), State::Problem, "cannot be read");
        for (text, mode, state, part) in [
            (TOKEN, 0o600, State::Ok, "set up"),
            (TOKEN, 0o640, State::Problem, "chmod 600"),
            (TOKEN, 0o604, State::Problem, "chmod 600"),
            ("", 0o600, State::Problem, "32 to 1024"),
            (&TOKEN[1..], 0o600, State::Problem, "32 to 1024"),
        ] {
            fs::write(&file, text).expect("written");
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
            told(Some(&file), state, part);
        }
        fs::remove_file(&file).expect("removed");
        let follows = Replication { follow: Some(node("http://127.0.0.1:7071")), ..Replication::default() };
        assert_eq!(judged(follows, None)[0].1, State::Warning, "it has nothing to show");
        assert!(judged(Replication::default(), None).is_empty(), "a node by itself");
    }

    /// What is right by itself and foolish together: plain text by permission, a node that names itself, a lease that others cannot
    /// follow, settings that nothing reads.
    #[test]
    fn settings_that_do_not_go_together_are_told() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("token");
        fs::write(&file, TOKEN).expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
        let listens = Replication { listen: Some("127.0.0.1:7071".to_owned()), ..Replication::default() };
        let says = |replication: Replication, check: &str, parts: &[&str]| {
            let found = judged(replication, Some(&file));
            let texts: Vec<&String> =
                found.iter().filter(|(_, state, _)| *state > State::Note).map(|(_, _, text)| text).collect();
            assert_eq!(texts.len(), parts.len(), "{found:?}");
            for part in parts {
                assert!(found.iter().any(|(of, _, text)| *of == check && text.contains(part)), "{part}: {found:?}");
            }
        };
        says(listens.clone(), "", &[]);
        let far = node("http://192.0.2.1:7071");
        says(
            Replication { plain: true, follow: Some(far.clone()), ..listens.clone() },
            "replication.plain",
            &["http://192.0.2.1:7071"],
        );
        let peers = vec![node("http://localhost:7071"), node("http://127.0.0.1:7072"), node("http://127.0.0.1:7071")];
        says(
            Replication { peers: peers.clone(), follow: Some(peers[2].clone()), ..listens.clone() },
            "replication.nodes",
            &["replication.follow is", "names http://localhost:7071", "names http://127.0.0.1:7071"],
        );
        let lease = |change: &dyn Fn(&mut Lease)| {
            let mut lease = Lease {
                store: LeaseStore::Etcd,
                endpoints: vec![crate::server_url::ServerUrl::parse("http://127.0.0.1:2379").expect("a URL")],
                advertise: Some(node("http://127.0.0.1:7071")),
                ..Lease::default()
            };
            change(&mut lease);
            Replication { lease, ..listens.clone() }
        };
        says(lease(&|_| {}), "", &[]);
        says(Replication { peers: peers.clone(), ..lease(&|_| {}) }, "", &[]);
        says(Replication { peers: peers[..2].to_vec(), ..lease(&|_| {}) }, "replication.lease", &["does not name"]);
        says(
            Replication { listen: Some("0.0.0.0:7071".to_owned()), plain: true, ..lease(&|_| {}) },
            "replication.lease",
            &["reach themselves"],
        );
        says(
            lease(&|lease| lease.store = LeaseStore::None),
            "replication.lease",
            &["lease_endpoints, replication.advertise"],
        );
    }

    /// Another node's answer is told with its term; a clock that is far from this one's, and a name that two have, are worth a word.
    #[test]
    fn what_a_node_answers_is_judged() {
        let own = Replication { node: "keys-1".to_owned(), ..Replication::default() };
        let there = node("https://keys-2:7071");
        let said = |name: &str, clock_ms: Option<u64>| {
            let told = Told { store: [1; 16], term: keyward_storage::Term(7), name: name.to_owned(), clock_ms };
            let finding = other(&own, (&there, false), Ok(told), 1_000_000);
            assert!(finding.found.contains("https://keys-2:7071") && finding.found.contains("is 7"), "{finding:?}");
            finding
        };
        assert_eq!(said("keys-2", None).state, State::Ok);
        assert_eq!(said("keys-2", Some(1_000_999)).state, State::Ok);
        assert!(said("keys-2", Some(1_002_000)).found.contains("2000 ms ahead"));
        assert!(said("keys-2", Some(998_000)).found.contains("2000 ms behind"));
        assert_eq!(said("keys-1", None).state, State::Warning);
        let away = |is_leader| other(&own, (&there, is_leader), Err("no".to_owned()), 0).state;
        assert_eq!((away(true), away(false)), (State::Problem, State::Warning));
    }
}
