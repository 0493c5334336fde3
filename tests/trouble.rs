//! Followers in trouble: encrypted and not let in, without room, slow, away for too long, behind a network that drops packets one way,
//! of another release.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::nodes::{Place, follows, level, on, same_records, status, until};
use crate::harness::program::DataDir;
use crate::harness::proxy::Proxy;
use crate::harness::{Options, Server, Workspace, keyward};

const SILENCE_MS: u64 = 400;

fn at(place: &Place, follow: Option<u16>) -> Options {
    place.options(follow).setting("KEYWARD_REPLICATION_SILENCE_MS", SILENCE_MS)
}

fn start(options: Options) -> Arc<Server> {
    Arc::new(Server::start_with(DataDir::fresh(), options))
}

fn reaches(server: &Server, reachable: bool) {
    until("the leader's word, or its silence", || status(server)["replication"]["leader"]["reachable"] == reachable);
}

fn without(mut options: Options, name: &str) -> Options {
    options.settings.retain(|(set, _)| set != name);
    options
}

/// Whoever cannot show that it is a node holds no place among the nodes' connections: neither by saying nothing, nor by asking again and
/// again, which is one line of the log.
#[test]
fn strangers_are_sent_away() {
    let place = Place::new("a");
    let leader = start(at(&place, None));
    let reads_to_its_end = |said: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", place.peers)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(said).unwrap();
        let mut heard = Vec::new();
        // Reset or closed, but over.
        let _ = stream.read_to_end(&mut heard).inspect_err(|error| assert!(error.kind() != io::ErrorKind::WouldBlock));
        heard
    };
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    assert!(!reads_to_its_end(&preface).is_empty());
    assert!(!leader.log().contains("wrong replication token"), "it asked for nothing");
    // POST /v2/x over http, as HPACK has it, on the first three streams.
    let head = [&[0x83, 0x86, 0x44, 5][..], b"/v2/x"].concat();
    let mut asking = preface;
    for stream in [1, 3, 5] {
        asking.extend([0, 0, head.len() as u8, 1, 5, 0, 0, 0, stream]);
        asking.extend(&head);
    }
    reads_to_its_end(&asking);
    until("the refusal", || leader.log().contains("wrong replication token"));
    assert_eq!(leader.log().matches("wrong replication token").count(), 1);
}

/// Clients talk to the nodes in the clear, nodes to each other by TLS: with a token, or with certificates alone. Whoever has neither the
/// one nor the other is not let in, and the log says why; with what was missing it follows on from where it was.
#[test]
fn nodes_talk_by_tls() {
    let home = DataDir::named("pki");
    let made = |arguments: &[&str]| {
        let all = [&["tls", "self-signed", "--dir", home.text(), "--output", "json"], arguments].concat();
        let made = keyward(&all).json();
        ["caFile", "certFile", "keyFile"].map(|name| made[name].as_str().unwrap().to_owned())
    };
    let [ca, certificate, key] = made(&["--name", "localhost"]);
    let [_, client_certificate, client_key] = made(&["--client", "b"]);
    let plain = |options: Options| Options { listen: format!("http://{}", options.listen), ..options };
    for by_certificate in [false, true] {
        let (a, b) = (Place::new("a"), Place::new("b"));
        let token = "KEYWARD_REPLICATION_TOKEN";
        let leader =
            plain(at(&a, None)).setting("KEYWARD_TLS_CERT_FILE", &certificate).setting("KEYWARD_TLS_KEY_FILE", &key);
        let follower = plain(at(&b, Some(a.peers)))
            .setting("KEYWARD_REPLICATION_FOLLOW", format!("https://localhost:{}", a.peers))
            .setting("KEYWARD_REPLICATION_CA_FILE", &ca);
        let (leader, good, bad) = match by_certificate {
            false => {
                (leader, follower.clone(), follower.setting(token, "another-token-of-which-nobody-knows-anything"))
            }
            true => {
                // The follower has no address of its own: its certificate is a client's.
                let follower = without(without(follower, token), "KEYWARD_REPLICATION_LISTEN");
                let good = follower
                    .clone()
                    .setting("KEYWARD_TLS_CERT_FILE", &client_certificate)
                    .setting("KEYWARD_TLS_KEY_FILE", &client_key);
                (without(leader, token).setting("KEYWARD_REPLICATION_CLIENT_CA_FILE", &ca), good, follower)
            }
        };
        let leader = start(leader);
        let follower = start(good.clone());
        follows(&follower);
        let workspace = Workspace::on(&leader);
        let api = workspace.api();
        let issued = on(&workspace, &follower).key(&api, json!({"name": "by TLS"}));
        assert_eq!(workspace.code(&issued, json!({})), "VALID");
        level(&leader, &follower);

        assert_eq!(follower.stop(), Some(0));
        let follower = Arc::new(follower.restart_with(bad));
        let word =
            if by_certificate { "there is no connection to the leader" } else { "the replication token is wrong" };
        until("the refusal", || follower.log().contains(word));
        assert_eq!(status(&follower)["replication"]["leader"]["reachable"], false);
        assert_eq!(on(&workspace, &follower).code(&issued, json!({})), "VALID", "by itself");
        workspace.update(&issued, json!({"name": "meanwhile"}));
        assert_eq!(follower.stop(), Some(0));
        let follower = Arc::new(follower.restart_with(good));
        follows(&follower);
        level(&leader, &follower);
        assert_eq!(on(&workspace, &follower).get(&issued)["name"], "meanwhile");
    }
}

/// A small disk of its own, as long as this lives.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount.
    fn at(path: &Path, mib: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(path).unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| SmallDisk(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// The disk of a follower is full: it says so and goes on verifying from what it has, however far the leader goes; it applies the rest
/// when there is room.
#[test]
fn a_follower_without_room_goes_on() {
    let dir = DataDir::fresh();
    let Some(disk) = SmallDisk::at(dir.path(), 96) else {
        eprintln!("skipped: this user may not mount a disk");
        return;
    };
    let (a, b) = (Place::new("a"), Place::new("b"));
    let leader = start(at(&a, None));
    let follower = at(&b, Some(a.peers)).setting("KEYWARD_STORAGE_MIN_FREE_BYTES", 16 << 20);
    let follower = Arc::new(Server::start_with(dir, follower));
    follows(&follower);
    let workspace = Workspace::on(&leader);
    let key = workspace.key(&workspace.api(), json!({"name": "before"}));
    level(&leader, &follower);
    let ballast = follower.dir.path().join("ballast");
    let free = status(&follower)["storage"]["freeBytes"].as_u64().unwrap();
    std::fs::write(&ballast, vec![1; usize::try_from(free - (8 << 20)).unwrap()]).unwrap();
    until("the full disk", || {
        workspace.update(&key, json!({"name": "while there is no room"}));
        follower.log().contains("the disk is full: nothing is applied until there is room")
    });
    let here = on(&workspace, &follower);
    assert_eq!(here.code(&key, json!({})), "VALID");
    assert_eq!(here.get(&key)["name"], "before");
    assert!(follower.get("/health/ready").text().contains("disk_full"));
    std::fs::remove_file(&ballast).unwrap();
    level(&leader, &follower);
    until("the change", || here.get(&key)["name"] == "while there is no room");
    assert!(!follower.log().contains("taken anew"), "its log was there all the time");
    drop((here, follower));
    drop(disk);
}

/// A follower behind a slow network holds nobody up: the leader takes changes while it is further and further behind, and it has them
/// all when the network is fast again, through connections that were cut and came again meanwhile.
#[test]
fn a_slow_follower_holds_nobody_up() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let leader = start(at(&a, None));
    let proxy = Proxy::to(a.peers);
    let follower = start(at(&b, Some(proxy.port)));
    follows(&follower);
    let workspace = Workspace::on(&leader);
    let key = workspace.key(&workspace.api(), json!({}));
    level(&leader, &follower);
    proxy.slow(20_000);
    for round in 0..150 {
        workspace.update(&key, json!({"name": format!("round {round}"), "meta": {"ballast": "x".repeat(4000)}}));
        if round % 50 == 25 {
            proxy.blink();
        }
    }
    let position = |server: &Server| status(server)["storage"]["position"].as_u64().unwrap();
    assert!(position(&leader) > position(&follower), "it is behind, and was not waited for");
    proxy.heal();
    level(&leader, &follower);
    assert_eq!(on(&workspace, &follower).get(&key)["name"], "round 149");
    assert!(!follower.log().contains("taken anew"));
}

/// Writes until the leader has let its oldest segment of the log go: keys with much beside them, many in one change.
fn write_a_segment(workspace: &Workspace, api: &str) {
    let dir = workspace.server.dir.path().join("log");
    let oldest = || std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).min().unwrap();
    let before = oldest();
    let migration = workspace.ok("migrations.createMigration", json!({"name": "ballast", "algorithm": "sha256"}));
    let ballast = "x".repeat(60_000);
    let mut number = 0;
    until("the end of the first segment", || {
        let keys = (0..50).map(|_| {
            number += 1;
            let hash = base64::engine::general_purpose::STANDARD.encode(Sha256::digest(format!("key {number}")));
            json!({"hash": hash, "meta": {"ballast": ballast}})
        });
        let keys: Vec<Value> = keys.collect();
        let body = json!({"migrationId": migration["migrationId"], "apiId": api, "keys": keys});
        workspace.ok("keys.migrateKeys", body);
        oldest() != before
    });
}

/// A follower that was away for longer than its leader keeps the log takes all records anew, by itself, and has the same bytes then.
#[test]
fn a_follower_that_was_away_for_too_long_begins_anew() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let leader = start(
        at(&a, None).setting("KEYWARD_REPLICATION_LOG_BYTES", 0).setting("KEYWARD_STORAGE_CHECKPOINT_BYTES", 4 << 20),
    );
    let follower = start(at(&b, Some(a.peers)));
    follows(&follower);
    let workspace = Workspace::on(&leader);
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    level(&leader, &follower);
    follower.kill();
    write_a_segment(&workspace, &api);
    let follower = Arc::new(follower.restart());
    until("all records", || follower.log().contains("all records are taken anew"));
    until("the stream", || {
        let log = follower.log();
        log.rfind("the leader's log is followed") > log.rfind("all records are taken anew")
    });
    workspace.update(&key, json!({"name": "by the log again"}));
    level(&leader, &follower);
    assert_eq!(on(&workspace, &follower).get(&key)["name"], "by the log again");
    follower.kill();
    leader.kill();
    same_records(&leader, &follower);
}

/// Tells the test below that it is where it wants to be.
const INSIDE: &str = "KEYWARD_TEST_NETWORK";

/// In a network of its own, where the kernel drops what the leader sends, or what it is sent: either way the follower goes on alone, no
/// change is made twice or lost, and all is well when the packets come again.
#[test]
fn packets_are_lost_one_way() {
    if std::env::var_os(INSIDE).is_none() {
        let test = std::env::current_exe().unwrap();
        let run = "ip link set lo up && exec \"$0\" --exact trouble::packets_are_lost_one_way --nocapture";
        let output = Command::new("unshare").args(["--net", "sh", "-c", run]).arg(test).env(INSIDE, "1").output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                let said =
                    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
                let is_forbidden = ["unshare:", "RTNETLINK", "ip: "].iter().any(|word| said.contains(word));
                assert!(is_forbidden && !said.contains("panicked"), "{said}");
                eprintln!("skipped: this user may make no network of its own: {said}");
            }
            Err(error) => eprintln!("skipped: there is no unshare: {error}"),
        }
        return;
    }
    let ip = |arguments: &str| {
        let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
        output.status.success()
    };
    // What is local goes by a rule that comes before all others; it has to come after those made here.
    if !(ip("rule add pref 100 lookup local") && ip("rule del pref 0")) {
        eprintln!("skipped: this kernel has no rules of routing");
        return;
    }
    let (a, b) = (Place::new("a"), Place::new("b"));
    let leader = start(at(&a, None));
    let follower = start(at(&b, Some(a.peers)));
    follows(&follower);
    let workspace = Workspace::on(&leader);
    let here = on(&workspace, &follower);
    let key = workspace.key(&workspace.api(), json!({"name": "before"}));
    level(&leader, &follower);
    for (round, way) in ["sport", "dport"].into_iter().enumerate() {
        assert!(ip(&format!("rule add pref 10 ipproto tcp {way} {} blackhole", a.peers)));
        reaches(&follower, false);
        assert_eq!(here.code(&key, json!({})), "VALID");
        let call = here.call("keys.updateKey", json!({"keyId": key.id, "name": format!("refused {round}")}));
        assert_eq!(follower.exchange(call.ask()).status, 503);
        workspace.update(&key, json!({"name": format!("meanwhile {round}")}));
        assert!(ip("rule del pref 10"));
        reaches(&follower, true);
        level(&leader, &follower);
        assert_eq!(here.get(&key)["name"], format!("meanwhile {round}"));
        here.update(&key, json!({"name": format!("after {round}")}));
        assert_eq!(workspace.get(&key)["name"], format!("after {round}"));
    }
    follower.kill();
    leader.kill();
    same_records(&leader, &follower);
}

/// This release and the one that `KEYWARD_OTHER_BINARY` names, each as the leader of the other: what is changed through the follower is
/// there, counted once, and comes back by the log.
#[test]
fn releases_follow_each_other() {
    let Some(other) = std::env::var_os("KEYWARD_OTHER_BINARY").map(PathBuf::from) else {
        eprintln!("skipped: KEYWARD_OTHER_BINARY names no other release");
        return;
    };
    let of = |is_other: bool, options: Options| match is_other {
        true => Options { binary: other.clone(), ..options },
        false => options,
    };
    for other_leads in [true, false] {
        let (a, b) = (Place::new("a"), Place::new("b"));
        let leader = start(of(other_leads, at(&a, None)));
        let follower = start(of(!other_leads, at(&b, Some(a.peers))));
        follows(&follower);
        let workspace = Workspace::on(&leader);
        let here = on(&workspace, &follower);
        let api = here.api();
        let limits = json!([{"name": "requests", "limit": 3, "duration": 600_000, "autoApply": true}]);
        let key = here.key(&api, json!({"name": "skewed", "ratelimits": limits}));
        let codes: Vec<String> = (0..5).map(|n| [&here, &workspace][n % 2].code(&key, json!({}))).collect();
        assert_eq!(codes, ["VALID", "VALID", "VALID", "RATE_LIMITED", "RATE_LIMITED"]);
        follower.kill();
        workspace.update(&key, json!({"name": "while it was away"}));
        let follower = Arc::new(follower.restart());
        reaches(&follower, true);
        level(&leader, &follower);
        assert_eq!(on(&workspace, &follower).get(&key)["name"], "while it was away");
        leader.kill();
        reaches(&follower, false);
        assert_eq!(follower.operate(&["promote"]).json()["term"], 2);
        let leader = leader.restart_with(of(other_leads, at(&a, Some(b.peers))));
        follows(&leader);
        level(&follower, &leader);
    }
}
