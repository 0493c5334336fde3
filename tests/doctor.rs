//! `keyward doctor` from outside: what it finds on a healthy machine, and that it finds what is wrong.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::harness::nodes::{Place, follows, free_port};
use crate::harness::program::DataDir;
use crate::harness::{Options, Output, Server, keyward, keyward_with};

fn states(output: &Output) -> Vec<(String, String)> {
    let answer: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = answer["findings"].as_array().unwrap();
    for finding in findings {
        let is_good = finding["state"] == "ok";
        assert_eq!(is_good, finding.get("advice").is_none(), "what is not good says what to do: {finding}");
    }
    assert_eq!(answer["ok"].as_bool(), Some(output.code == Some(0)));
    findings.iter().map(|finding| (text(finding, "check"), text(finding, "state"))).collect()
}

fn state<'a>(states: &'a [(String, String)], check: &str) -> &'a str {
    &states.iter().find(|(name, _)| name == check).unwrap_or_else(|| panic!("{check}: {states:?}")).1
}

/// Before the first start, beside a running server, and with what others may read, a taken port and a broken certificate: each
/// finding is where it belongs, the exit code says whether something is wrong, and nothing is left behind.
#[test]
fn the_doctor_finds_what_is_wrong() {
    let dir = DataDir::fresh();
    let ask = |extra: &[(&str, &str)]| {
        keyward_with(
            &["doctor", "--data-dir", dir.text(), "--output", "json"],
            &[&[("KEYWARD_LISTEN", "127.0.0.1:0")], extra].concat(),
        )
    };
    let before = ask(&[]);
    let seen = states(&before);
    assert_eq!(state(&seen, "files.data_dir"), "note");
    assert_eq!(state(&seen, "network.listen"), "ok");
    assert!(!dir.path().exists(), "it makes nothing");

    let server = Server::start_with(dir.clone(), Options::default());
    let addr = server.addr.to_string();
    let seen = states(&ask(&[("KEYWARD_LISTEN", &addr)]));
    for check in ["settings", "processor", "files.data_dir", "files.root_key", "network.listen", "clock.time"] {
        assert_eq!(state(&seen, check), "ok", "{seen:?}");
    }
    let key = dir.path().join("root.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = ask(&[("KEYWARD_LISTEN", &addr)]);
    assert_eq!((open.code, state(&states(&open), "files.root_key")), (Some(1), "problem"));
    server.stop();
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("doctor")), "{left:?}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let broken =
        ask(&[("KEYWARD_LISTEN", &addr), ("KEYWARD_TLS_CERT_FILE", "/nowhere"), ("KEYWARD_TLS_KEY_FILE", "/nowhere")]);
    let seen = states(&broken);
    assert_eq!(broken.code, Some(1));
    assert_eq!((state(&seen, "network.listen"), state(&seen, "tls.files")), ("problem", "problem"));
    let full = ask(&[("KEYWARD_STORAGE_MIN_FREE_BYTES", &(1_u64 << 40).to_string())]);
    assert!(["ok", "warning", "problem"].contains(&state(&states(&full), "disk.space")));

    let text = keyward(&["doctor", "--data-dir", dir.text()]);
    assert!(text.stdout.contains("-> ") && text.stdout.contains("disk.sync"), "{text:?}");
    assert_eq!(keyward_with(&["doctor"], &[("KEYWARD_LOG_LEVEL", "loud")]).code, Some(2));
}

/// The doctor asks the nodes that the settings name: one that answers is told with its term, one that does not with the reason - nobody is
/// there, or the token is another one - and what it says holds no token. `config check` refuses what the server would refuse.
#[test]
fn the_doctor_asks_other_nodes() {
    let (a, b) = (Place::new("a"), Place::new("b"));
    let leader = Server::start_with(DataDir::fresh(), a.options(None));
    let dir = DataDir::fresh();
    let follower = Server::start_with(dir.clone(), b.options(Some(a.peers)));
    follows(&follower);
    let tokens = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        let path = tokens.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let other = "another-token-that-none-of-these-nodes-has-heard-of";
    let right = file("right", crate::harness::nodes::TOKEN, 0o600);
    let wrong = file("wrong", other, 0o600);
    let open = file("open", other, 0o644);
    let (at_a, at_b) = (format!("http://127.0.0.1:{}", a.peers), format!("127.0.0.1:{}", b.peers));
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let run = |command: &[&str], token: &str, peers: &str| {
        let output = keyward_with(
            &[command, &["--data-dir", dir.text(), "--output", "json"]].concat(),
            &[
                ("KEYWARD_LISTEN", "127.0.0.1:0"),
                ("KEYWARD_REPLICATION_LISTEN", &at_b),
                ("KEYWARD_REPLICATION_FOLLOW", &at_a),
                ("KEYWARD_REPLICATION_PEERS", peers),
                ("KEYWARD_REPLICATION_NODE", "b"),
                ("KEYWARD_REPLICATION_TOKEN_FILE", token),
            ],
        );
        let all = format!("{}{}", output.stdout, output.stderr);
        assert!(!all.contains(other) && !all.contains(crate::harness::nodes::TOKEN), "{all}");
        output
    };
    let healthy = run(&["doctor"], &right, &nobody);
    let of = |check: &str| found(&healthy, check);
    assert_eq!((&*of("replication.token")[0].0, &*of("replication.listen")[0].0), ("ok", "ok"));
    let nodes = of("replication.nodes");
    assert!(nodes[0].0 == "ok" && nodes[0].1.contains("is a; the newest term that it has heard of is 1"), "{nodes:?}");
    assert!(nodes[0].1.contains("its clock and this one's differ by"), "{nodes:?}");
    assert!(nodes[1].0 == "warning" && nodes[1].1.contains(&nobody), "{nodes:?}");

    let stranger = run(&["doctor"], &wrong, "");
    let nodes = found(&stranger, "replication.nodes");
    assert!(stranger.code == Some(1) && nodes[0].1.contains("the replication token is wrong"), "{nodes:?}");
    let refused = run(&["config", "check"], &open, "");
    assert!(refused.code == Some(1) && refused.stderr.contains("chmod 600"), "{refused:?}");
    let refused = run(&["config", "check"], "", "");
    assert!(refused.code == Some(1) && refused.stderr.contains("nothing says who may follow"), "{refused:?}");
    let itself = run(&["config", "check"], &right, &format!("http://{at_b}"));
    assert!(itself.code == Some(0) && itself.stdout.contains("which is this node"), "{itself:?}");
    drop((leader, follower));
}

/// States and texts of the findings of one check.
fn found(output: &Output, check: &str) -> Vec<(String, String)> {
    let answer: Value = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
    let findings = answer["findings"].as_array().unwrap();
    let named = findings.iter().filter(|finding| finding["check"] == check);
    named.map(|finding| (text(finding, "state"), text(finding, "found"))).collect()
}
