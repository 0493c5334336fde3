//! What the operator can set, where a client notices it: deadlines, bounds, durability, a full disk, the settings file.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::call::{judge, problem};
use crate::harness::program::DataDir;
use crate::harness::{Ask, Connection, Key, Options, Reply, Server, Workspace, keyward, keyward_with};

fn server_with(options: Options) -> Arc<Server> {
    Arc::new(Server::start_with(DataDir::fresh(), options))
}

/// A body that does not come in time is answered, not cut off. COM-BODY-09, COM-RT-09, COM-ERR-03
#[test]
fn a_slow_body_is_408() {
    let server = server_with(Options::default().setting("KEYWARD_HTTP_REQUEST_DEADLINE_MS", 300));
    let ask = server.call("apis.createApi", json!({})).bearer(&server.root_key()).ask().clone();
    let slow = Ask { body: b"{\"name\":".to_vec(), ..ask }.header("Content-Length", "100");
    let reply = Connection::open(server.addr).unwrap().exchange(&slow).unwrap();
    judge(&reply);
    problem(reply, 408, "user/bad_request/request_timeout").unwrap();
    assert_eq!(server.get("/v2/liveness").status, 200);
}

/// A head that does not come in time costs the server only its connection. COM-RT-09
#[test]
fn a_slow_head_is_cut_off() {
    let server = server_with(Options::default().setting("KEYWARD_HTTP_HEADER_READ_TIMEOUT_MS", 200));
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(b"POST /v2/keys.getKey HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut said = Vec::new();
    let ended = stream.read_to_end(&mut said);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset, "it was left open");
    assert_eq!(server.get("/v2/liveness").status, 200);
}

/// More keys than fit in memory: each still verifies, spends, changes and goes away exactly.
/// KEYS-GEN-34, KEYS-CREDIT-4, KEYS-RL-10, COM-CON-01
#[test]
fn keys_that_do_not_fit_in_memory_are_exact_too() {
    const KEYS: usize = 3000;
    let server = server_with(Options::default().setting("KEYWARD_STORAGE_HOT_KEYS_MAX", 1000));
    let workspace = Arc::new(Workspace::on(&server));
    let api = workspace.api();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let (workspace, api) = (Arc::clone(&workspace), api.clone());
            let limits = json!([{"name": "calls", "limit": 10, "duration": 2_592_000_000_i64, "autoApply": true}]);
            let members = json!({"credits": {"remaining": 9}, "ratelimits": limits});
            std::thread::spawn(move || -> Vec<Key> {
                (0..KEYS / 8).map(|_| workspace.key(&api, members.clone())).collect()
            })
        })
        .collect();
    let keys: Vec<Key> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    for round in 1..=3 {
        for key in &keys {
            let data = workspace.verify(key, json!({}));
            assert_eq!((data["code"].as_str(), data["credits"].as_i64()), (Some("VALID"), Some(9 - round)));
            assert_eq!(data["ratelimits"][0]["remaining"], 10 - round);
        }
    }
    for (n, key) in keys.iter().enumerate() {
        match n % 3 {
            0 => drop(workspace.ok("keys.deleteKey", json!({"keyId": key.id}))),
            1 => workspace.update(key, json!({"enabled": false})),
            _ => {}
        }
    }
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(workspace.code(key, json!({})), ["NOT_FOUND", "DISABLED", "VALID"][n % 3], "key {n}");
    }
}

/// With strict credits a spend is on the disk before its answer: kill -9 gives nothing back. KEYS-CREDIT-4
#[test]
fn strict_credits_survive_kill_9() {
    let server = server_with(Options::default().setting("KEYWARD_STORAGE_CREDITS_JOURNAL", "strict"));
    let mut workspace = Workspace::on(&server);
    drop(server);
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 1000}}));
    for round in 1..=5 {
        for n in 1..=20 {
            assert_eq!(workspace.verify(&key, json!({}))["credits"], 1000 - (round - 1) * 20 - n);
        }
        workspace.server.kill();
        workspace = workspace.moved(workspace.server.restart());
        assert_eq!(workspace.get(&key)["credits"]["remaining"], 1000 - round * 20);
    }
}

fn busy(reply: &Reply) {
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.json["error"]["type"], "https://unkey.com/docs/errors/unkey/application/service_unavailable");
    assert_eq!(reply.json["error"]["status"], 503);
    assert_eq!(reply.header("retry-after"), Some("1"), "COM-CODE-02");
}

/// A disk without room stops changes, in words a client's retry logic understands, and not verifications; it is over as
/// soon as there is room. COM-CODE-02, COM-CON-02
#[test]
fn a_full_disk_stops_changes_only() {
    let server = server_with(Options::default());
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 5}, "name": "before"}));
    server.stop();
    let all: u64 = 1 << 40;
    let full = server.restart_with(Options::default().setting("KEYWARD_STORAGE_MIN_FREE_BYTES", all));
    let full = workspace.moved(full);
    let ask = |operation: &str, body: Value| full.server.exchange(full.call(operation, body).ask());
    let first = ask("keys.createKey", json!({"apiId": api}));
    if first.status == 200 {
        println!("this machine has a terabyte free; nothing was tested");
        return;
    }
    busy(&first);
    busy(&ask("keys.updateKey", json!({"keyId": key.id, "name": "after"})));
    assert_eq!(full.code(&key, json!({})), "VALID");
    assert_eq!(full.get(&key)["name"], "before");
    full.call("keys.getKey", json!({"keyId": "key_nowhere"})).expect_problem(404, "unkey/data/key_not_found");
    assert_eq!(full.server.stop(), Some(0));
    let log = full.server.log();
    assert_eq!(log.matches("low on room").count(), 1, "said once:\n{log}");
    for part in [full.server.dir.text(), "free_bytes=", &format!("min_free_bytes={all}")] {
        assert!(log.contains(part), "{part}:\n{log}");
    }
    let again = workspace.moved(full.server.restart_with(Options::default()));
    assert_eq!(again.get(&key)["credits"]["remaining"], 4, "what was spent without room is spent (KEYS-CREDIT-4)");
    again.update(&key, json!({"name": "after"}));
    assert_eq!(again.get(&key)["name"], "after");
}

/// A first start without room says how much there is and how much is asked for, and leaves no half-made store. EXT-1
#[test]
fn a_first_start_without_room_says_so() {
    let dir = DataDir::fresh();
    let serve = ["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"];
    let all = (1_u64 << 40).to_string();
    let space = rustix::fs::statvfs(std::env::temp_dir()).unwrap();
    if space.f_bavail.saturating_mul(space.f_frsize) >= 1 << 40 {
        println!("this machine has a terabyte free; nothing was tested");
        return;
    }
    let refused = keyward_with(&serve, &[("KEYWARD_STORAGE_MIN_FREE_BYTES", &all)]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    for part in ["is full", "bytes are free", "storage.min_free_bytes", &all] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["LOCK"]);
    Server::start_with(dir, Options::default());
}

/// When a workspace has its share of all subjects that can be counted, new ones of it are turned away and no counted one
/// is forgotten; another workspace notices nothing.
/// RL-ALG-12, RL-CON-02, COM-CODE-02
#[test]
fn a_live_window_is_never_forgotten() {
    let server = server_with(Options::default().setting("KEYWARD_STORAGE_RATE_SUBJECTS_MAX", 1000));
    let (greedy, modest) = (Workspace::on(&server), Workspace::on(&server));
    let ask = |workspace: &Workspace, n: usize| {
        let body = json!({"namespace": "n", "identifier": format!("{n}"), "limit": 5, "duration": 2_592_000_000_i64});
        server.exchange(workspace.call("ratelimit.limit", body).ask())
    };
    let mut counted = Vec::new();
    let mut turned_away = 0;
    for n in 0..2500 {
        let reply = ask(&greedy, n);
        if reply.status == 200 {
            assert_eq!(reply.json["data"]["remaining"], 4);
            counted.push(n);
        } else {
            busy(&reply);
            turned_away += 1;
        }
    }
    assert_eq!((counted.len(), turned_away), (750, 1750), "three quarters are for one");
    for n in 0..100 {
        assert_eq!(ask(&modest, n).json["data"]["remaining"], 4, "and for others there is room");
    }
    for n in counted {
        assert_eq!(ask(&greedy, n).json["data"]["remaining"], 3, "subject {n} was forgotten");
    }
}

/// The settings file is read and refused as a whole; logs can be JSON. EXT-1, COM-BODY-02
#[test]
fn the_settings_file_counts() {
    let place = DataDir::named("keyward.toml");
    let file = place.text();
    std::fs::write(file, "[http]\nmax_body_bytes = 2048\n[log]\nformat = \"json\"\n").unwrap();
    let options = Options { arguments: vec!["--config".to_owned(), file.to_owned()], ..Options::default() };
    let server = server_with(options);
    let large = server.call("apis.createApi", json!({"name": "x".repeat(2048)})).bearer(&server.root_key());
    large.expect_problem(413, "user/bad_request/request_body_too_large").mentioning("2048");
    server.stop();
    for line in server.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()), "not JSON: {line}");
    }
    std::fs::write(file, "[http]\nmax_body_bites = 2048\nmax_connections = 0\n").unwrap();
    let dir = DataDir::fresh();
    let refused = keyward(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0", "--config", file]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("max_body_bites") && refused.stderr.contains("max_connections"), "{refused:?}");
    assert!(!dir.path().exists(), "refused before anything was made");
}
