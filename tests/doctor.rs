//! `keyward doctor` from outside: what it finds on a healthy machine, and that it finds what is wrong.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

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
