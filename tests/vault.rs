//! Recoverable keys, and the vault they are kept in: over HTTP, and with the operator's commands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::program::DataDir;
use crate::harness::world::minted;
use crate::harness::{Call, Key, Options, Output, Server, Workspace, keyward, keyward_with};

/// Two master keys.
const ONE: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const TWO: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
const PRECONDITION: &str = "unkey/application/precondition_failed";
const DENIED: &str = "unkey/authorization/insufficient_permissions";

/// A file of master keys, beside a data directory.
struct KeyFile {
    path: PathBuf,
    _owner: tempfile::TempDir,
}

impl KeyFile {
    fn new(keys: &[&str]) -> KeyFile {
        let owner = tempfile::tempdir().unwrap();
        let file = KeyFile { path: owner.path().join("master.key"), _owner: owner };
        file.hold(keys);
        file
    }

    fn hold(&self, keys: &[&str]) {
        fs::write(&self.path, keys.join("\n") + "\n").unwrap();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn text(&self) -> &str {
        self.path.to_str().unwrap()
    }

    fn options(&self) -> Options {
        Options::default().setting("KEYWARD_MASTER_KEY_FILE", self.text())
    }
}

/// A workspace on a server of its own with a master key.
fn with_vault() -> (KeyFile, Workspace) {
    let file = KeyFile::new(&[ONE]);
    let server = Arc::new(Server::start_with(DataDir::fresh(), file.options()));
    (file, Workspace::on(&server))
}

/// An API where keys may be recoverable.
fn encrypting(workspace: &Workspace) -> String {
    let api = workspace.api();
    store_encrypted(workspace, &api, true);
    api
}

fn store_encrypted(workspace: &Workspace, api: &str, on: bool) {
    workspace.ok("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": on}));
}

fn recoverable(workspace: &Workspace, api: &str) -> Key {
    workspace.key(api, json!({"recoverable": true, "prefix": "kept"}))
}

/// The plaintext of a key as getKey tells it.
fn plaintext(workspace: &Workspace, key: &Key) -> Option<String> {
    let data = workspace.ok("keys.getKey", json!({"keyId": key.id, "decrypt": true}));
    data.get("plaintext").map(|text| text.as_str().unwrap().to_owned())
}

fn call<'a>(workspace: &'a Workspace, operation: &str, body: Value, held: &[&str]) -> Call<'a> {
    workspace.server.call(operation, body).bearer(&workspace.root_key(held).secret)
}

/// `keyward vault …` on a directory, with a file of master keys for the case that no server runs.
fn vault(dir: &DataDir, command: &str, file: &KeyFile) -> Output {
    keyward(&["vault", command, "--data-dir", dir.text(), "--output", "json", "--master-key-file", file.text()])
}

fn holds(folder: &Path, wanted: &[&[u8]]) -> Option<String> {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = if path.is_dir() {
            holds(&path, wanted)
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            let in_it = |text: &&&[u8]| bytes.windows(text.len()).any(|window| window == **text);
            wanted.iter().find(in_it).map(|text| format!("{} in {}", String::from_utf8_lossy(text), path.display()))
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A recoverable key is read again with `decrypt`, by getKey and listKeys; one that is not never is. The plaintext is in no file.
/// HASH-6, HASH-8, HASH-9, KEYFMT-6, KEYS-CREATE-8, KEYS-GET-3, KEYS-OBJ-1, APIS-LIST-9, KEYS-DELETE-2, KEYS-DELETE-3
#[test]
fn a_recoverable_key_is_read_again() {
    let (_file, workspace) = with_vault();
    let api = encrypting(&workspace);
    let (kept, plain) = (recoverable(&workspace, &api), workspace.key(&api, json!({})));
    assert_eq!(plaintext(&workspace, &kept).as_ref(), Some(&kept.secret));
    assert_eq!(plaintext(&workspace, &plain), None, "HASH-9");
    assert!(workspace.get(&kept).get("plaintext").is_none(), "only where it was asked for");
    let listed = |decrypt: bool| workspace.all("apis.listKeys", json!({"apiId": api, "decrypt": decrypt}), 1);
    for row in listed(true) {
        let wanted = if row["keyId"] == kept.id.as_str() { Some(json!(kept.secret)) } else { None };
        assert_eq!(row.get("plaintext"), wanted.as_ref(), "APIS-LIST-9: {row}");
        assert!(row.get("hash").is_none(), "APIS-LIST-9");
    }
    assert!(listed(false).iter().all(|row| row.get("plaintext").is_none()));
    let whoami = workspace.ok("keys.whoami", json!({"key": kept.secret}));
    assert!(whoami.get("plaintext").is_none(), "KEYS-WHOAMI-4");

    let (soft, hard) = (recoverable(&workspace, &api), recoverable(&workspace, &api));
    let copies = || workspace.server.operate(&["vault", "status"]).json()["copies"].clone();
    assert_eq!(copies(), 3);
    workspace.ok("keys.deleteKey", json!({"keyId": soft.id}));
    workspace.ok("keys.deleteKey", json!({"keyId": hard.id, "permanent": true}));
    assert_eq!(copies(), 2, "HASH-8: a soft delete keeps the copy");
    for gone in [&soft, &hard] {
        let again = json!({"keyId": gone.id, "decrypt": true});
        workspace.call("keys.getKey", again).expect_problem(404, "unkey/data/key_not_found");
    }

    let server = Arc::clone(&workspace.server);
    server.stop();
    let secrets = [kept.secret.as_bytes(), soft.secret.as_bytes(), hard.secret.as_bytes(), ONE.as_bytes()];
    assert_eq!(holds(server.dir.path(), &secrets), None, "HASH-6");
    let control = [&kept.id.as_bytes()["key_".len()..]];
    assert!(holds(server.dir.path(), &control).is_some(), "the search finds what is there");
    assert!(!server.log().contains(&kept.secret) && !server.log().contains(ONE), "COM-LOG-07");
    // It is there after a restart, with another source of the same master key.
    let workspace = workspace.moved(server.restart_with(Options::default().setting("KEYWARD_MASTER_KEY", ONE)));
    assert_eq!(plaintext(&workspace, &kept), Some(kept.secret));
}

/// Encryption is a switch of the API: off, nothing is made or read, and on again, the copies are there.
/// HASH-7, EXT-10, KEYS-CREATE-3, KEYS-GET-2, APIS-LIST-2, KEYS-REROLL-2
#[test]
fn the_switch_of_an_api_hides_copies() {
    let (_file, workspace) = with_vault();
    let api = workspace.api();
    let off = workspace.call("keys.createKey", json!({"apiId": api, "recoverable": true}));
    off.expect_problem(412, PRECONDITION).mentioning("This API does not support key encryption.");
    store_encrypted(&workspace, &api, true);
    let key = recoverable(&workspace, &api);
    store_encrypted(&workspace, &api, false);
    let refusal = workspace.call("keys.getKey", json!({"keyId": key.id, "decrypt": true}));
    refusal.expect_problem(412, PRECONDITION).mentioning("does not support key encryption.");
    let refusal = workspace.call("apis.listKeys", json!({"apiId": api, "decrypt": true}));
    refusal.expect_problem(412, PRECONDITION).mentioning("The requested API does not support key encryption.");
    let refusal = workspace.call("keys.rerollKey", json!({"keyId": key.id, "expiration": 0}));
    refusal.expect_problem(412, PRECONDITION).mentioning("This API does not support key encryption.");
    assert_eq!(workspace.code(&key, json!({})), "VALID");
    store_encrypted(&workspace, &api, true);
    assert_eq!(plaintext(&workspace, &key).as_ref(), Some(&key.secret), "HASH-7");
    let new = minted(&workspace.ok("keys.rerollKey", json!({"keyId": key.id, "expiration": 60_000})));
    assert_eq!(plaintext(&workspace, &new), Some(new.secret.clone()), "KEYS-REROLL-3");
    assert_eq!(plaintext(&workspace, &key), Some(key.secret), "the old key keeps its own");
    let plain = workspace.key(&api, json!({}));
    let plain = minted(&workspace.ok("keys.rerollKey", json!({"keyId": plain.id, "expiration": 0})));
    assert_eq!(plaintext(&workspace, &plain), None, "KEYS-REROLL-3: encrypted iff the original was");
}

/// Sealing asks for encrypt_key and opening for decrypt_key, as tuples or resource names, besides what the operation asks for, and in
/// the contract's order. KEYS-GEN-31, KEYS-GEN-33, KEYS-CREATE-3, KEYS-GET-2, KEYS-REROLL-2, KEYS-REROLL-12, APIS-LIST-2, APIS-LIST-3
#[test]
fn encrypting_and_decrypting_are_permissions_of_their_own() {
    let (_file, workspace) = with_vault();
    let api = encrypting(&workspace);
    let keyspace = workspace.ok("apis.listApis", json!({}))[0]["keyspaceId"].as_str().unwrap().to_owned();
    let key = recoverable(&workspace, &api);
    let of_api = |action: &str| format!("api.{api}.{action}");
    let urn = |path: &str, action: &str| format!("unkey:v1:{}:keyspaces/{keyspace}{path}#{action}", workspace.id);
    let one = format!("/keys/{}", key.id);

    let create = json!({"apiId": api, "recoverable": true});
    let hidden = call(&workspace, "keys.createKey", create.clone(), &["api.*.create_key", "api.*.decrypt_key"]);
    hidden.expect_problem(404, "unkey/data/api_not_found").saying("The specified API was not found.");
    let hidden =
        call(&workspace, "keys.createKey", create.clone(), &[&of_api("create_key"), &urn(&one, "encrypt_key")]);
    hidden.expect_problem(404, "unkey/data/api_not_found");
    for encrypts in ["api.*.encrypt_key".to_owned(), of_api("encrypt_key"), urn("/keys/*", "encrypt_key")] {
        call(&workspace, "keys.createKey", create.clone(), &["api.*.create_key", &encrypts]).expect_ok();
    }

    let get = json!({"keyId": key.id, "decrypt": true});
    for weak in [&["api.*.read_key"][..], &["api.*.decrypt_key"], &["api.*.read_key", "api.*.encrypt_key"]] {
        call(&workspace, "keys.getKey", get.clone(), weak).expect_problem(403, DENIED);
    }
    for decrypts in ["api.*.decrypt_key".to_owned(), of_api("decrypt_key"), urn(&one, "decrypt_key")] {
        let data = call(&workspace, "keys.getKey", get.clone(), &["api.*.read_key", &decrypts]).expect_ok();
        assert_eq!(data["plaintext"], key.secret.as_str());
    }

    let list = json!({"apiId": api, "decrypt": true});
    let reads = ["api.*.read_key", "api.*.read_api"];
    let absent = call(&workspace, "apis.listKeys", list.clone(), &["api.*.read_key", "api.*.decrypt_key"]);
    absent.expect_problem(404, "unkey/data/api_not_found");
    for weak in ["api.*.encrypt_key".to_owned(), urn(&one, "decrypt_key")] {
        let held = [reads[0], reads[1], &weak];
        call(&workspace, "apis.listKeys", list.clone(), &held).expect_problem(403, DENIED);
    }
    for decrypts in ["api.*.decrypt_key".to_owned(), of_api("decrypt_key"), urn("/keys/*", "decrypt_key")] {
        let held = [reads[0], reads[1], &decrypts];
        let (rows, _) = call(&workspace, "apis.listKeys", list.clone(), &held).expect_page();
        assert!(rows.iter().all(|row| row.get("plaintext").is_some()));
    }

    let reroll = json!({"keyId": key.id, "expiration": 60_000});
    let weak = call(&workspace, "keys.rerollKey", reroll.clone(), &["api.*.create_key"]);
    weak.expect_problem(403, DENIED).mentioning("encrypt_key");
    let plain = workspace.key(&api, json!({}));
    let plain = json!({"keyId": plain.id, "expiration": 60_000});
    call(&workspace, "keys.rerollKey", plain, &["api.*.create_key"]).expect_ok();
    for encrypts in [of_api("encrypt_key"), urn("/keys/*", "encrypt_key"), urn("/**", "encrypt_key")] {
        call(&workspace, "keys.rerollKey", reroll.clone(), &["api.*.create_key", &encrypts]).expect_ok();
    }

    // Where several things are wrong, the first of the contract's order is told.
    store_encrypted(&workspace, &api, false);
    call(&workspace, "keys.createKey", create.clone(), &["api.*.create_key"])
        .expect_problem(404, "unkey/data/api_not_found");
    call(&workspace, "keys.getKey", get, &["api.*.read_key"]).expect_problem(403, DENIED);
    call(&workspace, "apis.listKeys", list, &reads).expect_problem(403, DENIED);
    call(&workspace, "keys.rerollKey", reroll, &["api.*.create_key"]).expect_problem(403, DENIED);
    let mut wrong = create;
    wrong["credits"] = json!({"remaining": null, "refill": {"interval": "daily", "amount": 1}});
    workspace.call("keys.createKey", wrong).expect_problem(412, PRECONDITION);
}

/// Without its master key a server starts, and everything but plaintexts goes on; with another one new copies are made, and the
/// old ones answer without plaintext, which the operator hears of. EXT-6, HASH-6, KEYS-GET-3, APIS-LIST-10
#[test]
fn losing_the_master_key_loses_plaintexts_alone() {
    let (file, workspace) = with_vault();
    let api = encrypting(&workspace);
    let key = recoverable(&workspace, &api);
    workspace.server.stop();
    let bare = workspace.moved(workspace.server.restart_with(Options::default()));
    assert!(bare.server.log().contains("is not configured"), "{}", bare.server.log());
    assert_eq!(bare.code(&key, json!({})), "VALID");
    let made = bare.key(&api, json!({}));
    assert_eq!(bare.code(&made, json!({})), "VALID");
    bare.update(&key, json!({"name": "still there"}));
    let call = |operation: &str, body: Value| bare.call(operation, body).expect_problem(412, PRECONDITION);
    for (operation, body) in [
        ("keys.createKey", json!({"apiId": api, "recoverable": true})),
        ("keys.getKey", json!({"keyId": key.id, "decrypt": true})),
        ("apis.listKeys", json!({"apiId": api, "decrypt": true})),
        ("keys.rerollKey", json!({"keyId": key.id, "expiration": 0})),
    ] {
        call(operation, body).mentioning("Vault hasn't been set up.").mentioning("master_key_file");
    }
    bare.ok("keys.rerollKey", json!({"keyId": made.id, "expiration": 0}));
    let status = bare.server.operate(&["vault", "status"]).json();
    assert_eq!(
        (&status["isSetUp"], &status["masterKeys"][0]["configured"]),
        (&json!(false), &json!(false)),
        "{status}"
    );
    let refused = bare.server.operate(&["vault", "rotate"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("keyward vault generate-key"), "{}", refused.stderr);
    bare.server.stop();

    file.hold(&[TWO]);
    let other = bare.moved(bare.server.restart_with(file.options()));
    assert_eq!(plaintext(&other, &key), None, "KEYS-GET-3: 200 without plaintext");
    let (rows, _) = other.call("apis.listKeys", json!({"apiId": api, "decrypt": true})).expect_page();
    assert!(rows.iter().all(|row| row.get("plaintext").is_none()), "APIS-LIST-10");
    assert_eq!(plaintext(&other, &key), None);
    let line = format!("key={}", key.id);
    assert_eq!(other.server.log().matches(&line).count(), 1, "told once: {}", other.server.log());
    assert_eq!(other.server.operate(&["vault", "status"]).json()["decryptionFailures"], 3);
    let later = recoverable(&other, &api);
    assert_eq!(plaintext(&other, &later).as_ref(), Some(&later.secret));
    other.server.stop();

    // Whoever finds the old key again has lost nothing.
    file.hold(&[TWO, ONE]);
    let both = other.moved(other.server.restart_with(file.options()));
    assert_eq!(plaintext(&both, &key), Some(key.secret));
    assert_eq!(plaintext(&both, &later), Some(later.secret));
}

/// A master key that others may read, that is none, or that lies in the data directory stops the start, with the way out; nothing of
/// it is shown. EXT-6
#[test]
fn a_bad_master_key_stops_the_start() {
    let dir = DataDir::fresh();
    let serve = |variable: &str, value: &str| {
        let output =
            keyward_with(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"], &[(variable, value)]);
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(!output.stderr.contains("secret-text"), "{}", output.stderr);
        output.stderr
    };
    let file = KeyFile::new(&[ONE]);
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
    let told = serve("KEYWARD_MASTER_KEY_FILE", file.text());
    assert!(told.contains("0644") && told.contains(&format!("chmod 600 {}", file.text())), "{told}");
    file.hold(&[ONE, "secret-text"]);
    let told = serve("KEYWARD_MASTER_KEY_FILE", file.text());
    assert!(told.contains("line 2 is no master key") && told.contains("keyward vault generate-key"), "{told}");
    let told = serve("KEYWARD_MASTER_KEY", "secret-text");
    assert!(told.contains("KEYWARD_MASTER_KEY") && told.contains("line 1"), "{told}");
    let told = serve("KEYWARD_MASTER_KEY_FILE", "/nowhere/master.key");
    assert!(told.contains("/nowhere/master.key"), "{told}");

    let generated = keyward(&["vault", "generate-key"]);
    assert_eq!(generated.code, Some(0));
    let again = keyward(&["vault", "generate-key", "--output", "json"]).json();
    assert!(generated.stdout.trim() != again["masterKey"] && generated.stdout.trim().len() == 44);
    fs::create_dir(dir.path()).unwrap();
    let inside = dir.path().join("master.key");
    fs::write(&inside, generated.stdout).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o600)).unwrap();
    let told = serve("KEYWARD_MASTER_KEY_FILE", inside.to_str().unwrap());
    assert!(told.contains("data directory") && told.contains("move it"), "{told}");
}

/// The order of sources: the systemd credential before the file, the file before the environment. EXT-6
#[test]
fn the_credential_goes_before_the_file() {
    let (file, workspace) = with_vault();
    let api = encrypting(&workspace);
    let key = recoverable(&workspace, &api);
    workspace.server.stop();
    let credentials = tempfile::tempdir().unwrap();
    fs::write(credentials.path().join("keyward-master-key"), ONE).unwrap();
    file.hold(&[TWO]);
    let options = file.options().setting("KEYWARD_MASTER_KEY", TWO);
    let options = options.setting("CREDENTIALS_DIRECTORY", credentials.path().to_str().unwrap());
    let restarted = workspace.moved(workspace.server.restart_with(options));
    assert_eq!(plaintext(&restarted, &key), Some(key.secret));
    let status = restarted.server.operate(&["vault", "status"]).json();
    assert!(status["source"].as_str().unwrap().contains("keyward-master-key"), "{status}");
}

/// The master key is exchanged on a running server, under load and over a kill, without a failed request; afterwards the new one
/// alone opens everything. EXT-6, HASH-6
#[test]
fn the_master_key_is_exchanged_under_load() {
    const KEYS: usize = 900;
    let (file, workspace) = with_vault();
    let api = encrypting(&workspace);
    let made: Vec<Key> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| (0..KEYS / 6).map(|_| recoverable(&workspace, &api)).collect::<Vec<_>>()))
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    workspace.server.stop();
    file.hold(&[TWO, ONE]);
    let workspace = workspace.moved(workspace.server.restart_with(file.options()));
    let status = |workspace: &Workspace| workspace.server.operate(&["vault", "status"]).json();
    let before = status(&workspace);
    assert_eq!((&before["masterKeys"][1]["removable"], &before["copies"]), (&json!(false), &json!(KEYS)), "{before}");

    // Killed in the midst of it, wherever that is.
    std::thread::scope(|scope| {
        let rotation = scope.spawn(|| workspace.server.operate(&["vault", "rotate"]));
        std::thread::sleep(std::time::Duration::from_millis(30));
        workspace.server.kill();
        rotation.join().unwrap();
    });
    let workspace = workspace.moved(workspace.server.restart());
    assert_eq!(plaintext(&workspace, &made[0]).as_ref(), Some(&made[0].secret));

    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let rotated = std::thread::scope(|scope| {
        for worker in 0..2 {
            let (workspace, made, api, done, asked) = (&workspace, &made, &api, &done, &asked);
            scope.spawn(move || {
                for at in (worker..).step_by(7) {
                    let key = &made[at % made.len()];
                    assert_eq!(workspace.code(key, json!({})), "VALID");
                    assert_eq!(plaintext(workspace, key).as_ref(), Some(&key.secret), "readable all the time");
                    let new = recoverable(workspace, api);
                    assert_eq!(plaintext(workspace, &new), Some(new.secret));
                    asked.fetch_add(1, Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        let rotated = workspace.server.operate(&["vault", "rotate"]);
        done.store(true, Ordering::Relaxed);
        rotated
    });
    let rotated = rotated.json();
    assert!(asked.load(Ordering::Relaxed) >= 2);
    assert_eq!((&rotated["unopened"], &rotated["lostDataKeys"]), (&json!(0), &json!(0)), "{rotated}");
    let after = status(&workspace);
    assert_eq!(after["masterKeys"][1]["removable"], true, "{after}");
    assert_eq!(after["dataKeys"].as_array().unwrap().len(), 1, "{after}");
    assert!(after["rotation"].get("endedAt").is_some(), "{after}");
    workspace.server.stop();

    file.hold(&[TWO]);
    let workspace = workspace.moved(workspace.server.restart_with(file.options()));
    for row in workspace.all("apis.listKeys", json!({"apiId": api, "decrypt": true}), 100) {
        assert!(row.get("plaintext").is_some(), "{row}");
    }
    for key in made.iter().step_by(50) {
        assert_eq!(plaintext(&workspace, key).as_ref(), Some(&key.secret));
    }
}

/// Without a server the commands open the directory themselves. EXT-6
#[test]
fn the_vault_is_looked_after_without_a_server() {
    let (file, workspace) = with_vault();
    let api = encrypting(&workspace);
    let key = recoverable(&workspace, &api);
    workspace.server.stop();
    let dir = &workspace.server.dir;
    file.hold(&[TWO, ONE]);
    let rotated = vault(dir, "rotate", &file).json();
    assert_eq!((&rotated["moved"], &rotated["workspaces"]), (&json!(1), &json!(1)), "{rotated}");
    let status = vault(dir, "status", &file).json();
    assert_eq!(status["masterKeys"][1]["removable"], true, "{status}");
    let text = keyward(&["vault", "status", "--data-dir", dir.text(), "--master-key-file", file.text()]);
    assert!(text.stdout.contains("can be removed now"), "{text:?}");
    file.hold(&[TWO]);
    let restarted = workspace.moved(workspace.server.restart());
    assert_eq!(plaintext(&restarted, &key), Some(key.secret));
}

/// A crash writes no memory to a file, unless the operator wants it. (issue 5, secret hygiene)
#[test]
#[cfg(target_os = "linux")]
fn core_dumps_are_switched_off() {
    let limit = |server: &Server| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", server.process())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        line.split_whitespace().nth(4).unwrap().to_owned()
    };
    let server = Server::start();
    assert_eq!(limit(&server), "0");
    let allowed = Server::start_with(DataDir::fresh(), Options::default().setting("KEYWARD_RUNTIME_CORE_DUMPS", true));
    let own = fs::read_to_string("/proc/self/limits").unwrap();
    let own = own.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(own.split_whitespace().nth(4) == Some(&*limit(&allowed)), "as it was when the operator allows them: {own}");
}
