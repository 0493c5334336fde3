//! A data directory of this version, committed, that every later one must open: `tests/fixtures/data-1`, made by
//! `KEYWARD_REGENERATE=1 cargo test … fixture` and never again for a format that was shipped.

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::nodes::until;
use crate::harness::program::{DataDir, operate};
use crate::harness::{Options, Server, keyward, keyward_with};

/// Bytes that the fixture may have.
const BYTES_MAX: u64 = 300_000;
const ROOT: &str = "unkey_root_key_of_the_fixture";
/// Secrets of the fixture alone.
const MASTER: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
const PEPPER: &str = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=";
/// What only the plaintexts know: a fixture holds hashes and copies.
const SECRETS: &str = "keys.json";

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/data-1")
}

fn options(folder: &Path) -> Options {
    for (name, text) in [("master.key", MASTER), ("pepper", PEPPER)] {
        let path = folder.join(name);
        fs::write(&path, format!("{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    Options { root_key: Some(ROOT.to_owned()), ..Options::default() }
        .setting("KEYWARD_MASTER_KEY_FILE", folder.join("master.key").display())
        .setting("KEYWARD_PEPPER_FILE", folder.join("pepper").display())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if fs::symlink_metadata(&path).unwrap().file_type().is_socket() {
            fs::write(&target, "").unwrap();
        } else if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

fn bytes(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { bytes(&path) } else { fs::metadata(&path).unwrap().len() }).sum()
}

/// Makes the fixture: one of everything, backed up and restored, which leaves no room that nobody needs, and then a short life
/// that ends by a kill.
fn make() {
    let folder = tempfile::tempdir().unwrap();
    let server = Arc::new(Server::start_with(DataDir::fresh(), options(folder.path())));
    let call = |operation: &str, body: Value| server.call(operation, body).bearer(ROOT).expect_ok();
    let api = call("apis.createApi", json!({"name": "an api of the fixture"}))["apiId"].as_str().unwrap().to_owned();
    call("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": true}));
    let key = call(
        "keys.createKey",
        json!({
            "apiId": api, "name": "fixture key", "prefix": "fix", "credits": {"remaining": 7}, "externalId": "owner", "recoverable": true,
            "meta": {"made": "by a test"}, "permissions": ["documents.read"],
            "ratelimits": [{"name": "rpm", "limit": 5, "duration": 60_000, "autoApply": true}],
        }),
    );
    call("permissions.createRole", json!({"name": "reader"}));
    // However late the test runs.
    let days = ["--logs-retention-days", "36500", "--audit-retention-days", "36500"];
    server.operate(&[&["workspace", "update", "--workspace", "default"][..], &days].concat()).json();
    call("keys.verifyKey", json!({"key": key["key"], "permissions": "documents.read"}));
    call("ratelimit.limit", json!({"namespace": "logins", "identifier": "ada", "limit": 5, "duration": 60_000}));
    server.stop();
    let target = home();
    let _ = fs::remove_dir_all(&target);
    let backup = folder.path().join("backup");
    let environment: Vec<(String, String)> = options(folder.path()).settings;
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let backup = backup.to_str().unwrap();
    keyward_with(&["backup", backup, "--data-dir", server.dir.text(), "--output", "json"], &environment).json();
    keyward(&["restore", backup, "--data-dir", target.to_str().unwrap(), "--output", "json"]).json();
    // A life on it that ends by a kill leaves frames in the log and events in the journal.
    let scratch = DataDir::fresh();
    copy(&target, scratch.path());
    let server = Server::start_with(scratch, options(folder.path()));
    let call = |operation: &str, body: Value| server.call(operation, body).bearer(ROOT).expect_ok();
    let second = call("keys.createKey", json!({"apiId": api, "name": "in the log", "credits": {"remaining": 3}}));
    call("keys.verifyKey", json!({"key": second["key"]}));
    // An answer that is later than what it waits for: the events are in the journal.
    let query = json!({"query": "SELECT COUNT(*) AS n FROM key_verifications_v1"});
    while call("analytics.getVerifications", query.clone())[0]["n"] != json!(2) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    server.kill();
    // Its checkpoint is the restored one, which has no room that nobody needs: the log has what came since.
    let checkpoint = fs::read(target.join("records.redb")).unwrap();
    fs::remove_dir_all(&target).unwrap();
    copy(server.dir.path(), &target);
    fs::write(target.join("records.redb"), checkpoint).unwrap();
    for of_a_process in ["LOCK", "admin.sock"] {
        fs::remove_file(target.join(of_a_process)).unwrap();
    }
    fs::remove_dir_all(target.join("search")).unwrap();
    let known = json!({"key": key["key"], "keyId": key["keyId"], "second": second["key"]});
    fs::write(target.join("..").join(SECRETS), format!("{known}\n")).unwrap();
}

/// A directory of format 1 opens: keys, credits, roles, the trail, events, search, the pepper and the vault.
#[test]
fn a_directory_of_the_first_format_opens() {
    if std::env::var_os("KEYWARD_REGENERATE").is_some() {
        make();
    }
    let size = bytes(&home());
    assert!(size < BYTES_MAX, "the fixture has {size} bytes");
    let known: Value = serde_json::from_str(&fs::read_to_string(home().join("..").join(SECRETS)).unwrap()).unwrap();
    let dir = DataDir::fresh();
    copy(&home(), dir.path());
    let whole = operate(&dir, &["verify-data"]).json();
    assert_eq!(whole["whole"], true, "{whole}");
    assert!(whole["logRecords"].as_u64() > Some(0) && whole["journaledRows"].as_u64() > Some(0), "{whole}");
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir, options(folder.path()));
    let call = |operation: &str, body: Value| server.call(operation, body).bearer(ROOT).expect_ok();
    let verified = call("keys.verifyKey", json!({"key": known["key"], "permissions": "documents.read"}));
    assert_eq!((&verified["code"], &verified["credits"]), (&json!("VALID"), &json!(5)), "{verified}");
    assert_eq!(verified["identity"]["externalId"], "owner");
    let second = call("keys.verifyKey", json!({"key": known["second"]}));
    assert_eq!(second["code"], "VALID", "what is in the log alone is there: {second}");
    let got = call("keys.getKey", json!({"keyId": known["keyId"], "decrypt": true}));
    assert_eq!(got["plaintext"], known["key"], "the vault opens");
    assert_eq!(got["meta"], json!({"made": "by a test"}));
    assert_eq!(server.call("permissions.listRoles", json!({})).bearer(ROOT).expect_page().0.len(), 1);
    let query = "SELECT COUNT(*) AS n FROM key_verifications_v1";
    let counted = call("analytics.getVerifications", json!({"query": query}));
    assert!(counted[0]["n"].as_u64().is_some_and(|events| events >= 2), "{counted}");
    // The index may be one of another version, which is made anew meanwhile.
    let found = || server.call("keys.searchKeys", json!({"query": "fixture key"})).bearer(ROOT).expect_page().0.len();
    until("the key is found", || found() == 1);
    let trail = server.operate(&["audit", "verify"]).json();
    assert!(trail["findings"].as_array().is_some_and(Vec::is_empty) && trail["events"].as_u64() > Some(5), "{trail}");
    let pepper = server.operate(&["pepper", "status"]).json();
    assert_eq!(pepper["hashesWithoutPepper"], 0, "{pepper}");
    assert_eq!(server.stop(), Some(0));
}
