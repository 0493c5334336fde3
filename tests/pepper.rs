//! The pepper, from outside: switched on, exchanged and switched off on a server that goes on to answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base64::Engine;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::program::DataDir;
use crate::harness::world::minted;
use crate::harness::{Key, Options, Output, Server, Workspace, keyward, keyward_with};

/// Two peppers.
const ONE: &str = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
const TWO: &str = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=";

/// A file of peppers, beside a data directory.
struct PepperFile {
    path: PathBuf,
    _owner: tempfile::TempDir,
}

impl PepperFile {
    fn new(peppers: &[&str]) -> PepperFile {
        let owner = tempfile::tempdir().unwrap();
        let file = PepperFile { path: owner.path().join("pepper"), _owner: owner };
        file.hold(peppers);
        file
    }

    fn hold(&self, peppers: &[&str]) {
        fs::write(&self.path, peppers.join("\n") + "\n").unwrap();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn options(&self) -> Options {
        Options::default().setting("KEYWARD_PEPPER_FILE", self.path.to_str().unwrap())
    }
}

fn digest(secret: &str) -> Vec<u8> {
    Sha256::digest(secret).to_vec()
}

/// The files below a folder that hold one of these, whatever the folder.
fn holding(folder: &Path, wanted: &[Vec<u8>]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, wanted));
        } else {
            let bytes = fs::read(&path).unwrap_or_default();
            if wanted.iter().any(|digest| bytes.windows(digest.len()).any(|window| window == *digest)) {
                found.push(path);
            }
        }
    }
    found
}

fn status(server: &Server) -> Value {
    server.operate(&["pepper", "status"]).json()
}

/// Why a start is refused.
fn refusal(dir: &DataDir, environment: &[(&str, &str)]) -> String {
    let Output { code, stderr, .. } =
        keyward_with(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"], environment);
    assert_eq!(code, Some(1), "{stderr}");
    stderr
}

/// The pepper is switched on and exchanged while keys are verified, spent from and made, over a kill, without one wrong answer;
/// then no file holds the bare digest of any key, and no start does without the pepper. (issue 5, HASH-1, HASH-3, HASH-4)
#[test]
fn a_pepper_is_switched_on_and_exchanged_under_load() {
    const CREDITS: usize = 100_000;
    let server = Arc::new(Server::start());
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    let keys: Vec<Key> = (0..300).map(|_| workspace.key(&api, json!({"credits": {"remaining": CREDITS}}))).collect();
    let long = "Gp6cdrEsTcZHqx1EeQT3eB5m";
    let foreign: String = Sha256::digest(long).iter().map(|byte| format!("{byte:02x}")).collect();
    let made = workspace.ok(
        "migrations.createMigration",
        json!({"name": "from elsewhere", "algorithm": "github.com/seamapi/prefixed-api-key"}),
    );
    let arriving = json!({"migrationId": made["migrationId"], "apiId": api, "keys": [{"hash": foreign}]});
    workspace.ok("keys.migrateKeys", arriving);
    let migrated = Key { id: String::new(), secret: format!("old_short_{long}") };
    let by_migration = json!({"migrationId": made["migrationId"]});
    let revoked = workspace.root_key(&["api.*.verify_key"]);
    workspace.revoke(&revoked);
    let weak = workspace.root_key(&["api.*.verify_key"]);
    server.stop();
    let mut secrets: Vec<Vec<u8>> = keys.iter().map(|key| digest(&key.secret)).collect();
    secrets.extend([&workspace.root, &revoked.secret, &weak.secret].map(|secret| digest(secret)));
    secrets.push([&[0xff][..], b"github.com/seamapi/prefixed-api-key\0", foreign.as_bytes()].concat());
    let last = secrets.len() - 1;
    secrets[last] = Sha256::digest(&secrets[last]).to_vec();
    assert!(holding(server.dir.path(), &secrets[last..]).len() >= 2, "the search finds what is there");
    secrets.push(digest(&server.root_key()));

    let file = PepperFile::new(&[ONE]);
    let mut workspace = workspace.moved(server.restart_with(file.options()));
    assert!(workspace.server.log().contains("keyward pepper enable"), "{}", workspace.server.log());
    let mut spent = 0;
    for round in 1..=2 {
        // Killed in the midst of it, wherever that is.
        std::thread::scope(|scope| {
            let switch = scope.spawn(|| workspace.server.operate(&["pepper", "enable"]));
            std::thread::sleep(std::time::Duration::from_millis(8));
            workspace.server.kill();
            switch.join().unwrap();
        });
        workspace = workspace.moved(workspace.server.restart());
        let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        let switched = std::thread::scope(|scope| {
            for worker in 0..2 {
                let (workspace, keys, api, done, asked, weak) = (&workspace, &keys, &api, &done, &asked, &weak);
                scope.spawn(move || {
                    for at in (worker..).step_by(7) {
                        let key = &keys[at % keys.len()];
                        assert_eq!(workspace.code(key, json!({})), "VALID");
                        let whoami = workspace.ok("keys.whoami", json!({"key": key.secret}));
                        assert_eq!(whoami["keyId"], key.id.as_str());
                        let new = workspace.key(api, json!({}));
                        let call = workspace.server.call("keys.verifyKey", json!({"key": new.secret}));
                        assert_eq!(call.bearer(&weak.secret).expect_ok()["code"], "VALID");
                        asked.fetch_add(1, Ordering::Relaxed);
                        if done.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            let switched = workspace.server.operate(&["pepper", "enable"]);
            done.store(true, Ordering::Relaxed);
            switched
        });
        let switched = switched.json();
        spent += asked.load(Ordering::Relaxed);
        let told = status(&workspace.server);
        assert_eq!(
            (&told["hashesToBeSwitched"], &told["hashesWithoutPepper"]),
            (&json!(0), &json!(0)),
            "{switched} {told}"
        );
        assert_eq!(told["peppers"].as_array().unwrap().len(), round, "{told}");
        assert_eq!(
            (&told["peppers"][0]["state"], &told["peppers"][0]["hashes"]),
            (&json!("inUse"), &told["hashes"]),
            "{told}"
        );
        assert!(told.get("endedAt").is_some(), "{told}");
        let left: u64 = keys.iter().map(|key| workspace.get(key)["credits"]["remaining"].as_u64().unwrap()).sum();
        assert_eq!(left as usize, keys.len() * CREDITS - spent, "every credit is accounted for");
        let again = workspace.server.operate(&["pepper", "enable"]).json();
        assert_eq!((&again["wasInUse"], &again["moved"]), (&json!(true), &json!(0)), "{again}");

        assert_eq!(workspace.verify(&migrated, by_migration.clone())["code"], "VALID", "HASH-4");
        assert_eq!(workspace.code(&migrated, json!({})), "VALID", "HASH-5");
        let rerolled = minted(&workspace.ok("keys.rerollKey", json!({"keyId": keys[0].id, "expiration": 86_400_000})));
        assert_eq!(workspace.code(&rerolled, json!({})), "VALID");
        let twice = json!({"migrationId": made["migrationId"], "apiId": api, "keys": [{"hash": foreign}]});
        let refused = workspace.ok("keys.migrateKeys", twice);
        assert_eq!(refused["failed"], json!([foreign]), "HASH-3");
        workspace
            .server
            .call("apis.listApis", json!({}))
            .bearer(&revoked.secret)
            .expect_problem(401, "unkey/authentication/key_not_found");

        workspace.server.stop();
        if round == 1 {
            let missing = refusal(&workspace.server.dir, &[]);
            assert!(missing.contains("no pepper is configured") && missing.contains("--pepper-file"), "{missing}");
            file.hold(&[TWO, ONE]);
        } else {
            let wrong = refusal(&workspace.server.dir, &[("KEYWARD_PEPPER", ONE)]);
            assert!(wrong.contains("--pepper-file") && !wrong.contains(ONE), "{wrong}");
            file.hold(&[TWO]);
        }
        workspace = workspace.moved(workspace.server.restart());
    }
    let told = status(&workspace.server);
    assert!(told.get("clearedAt").is_some(), "{told}");
    assert_eq!((&told["peppers"][1]["state"], &told["peppers"][1]["configured"]), (&json!("exchanged"), &json!(false)));
    for key in keys.iter().step_by(30) {
        assert_eq!(workspace.code(key, json!({})), "VALID");
    }
    workspace.server.stop();
    assert_eq!(holding(workspace.server.dir.path(), &secrets), Vec::<PathBuf>::new());
    for pepper in [ONE, TWO] {
        let raw = base64::engine::general_purpose::STANDARD.decode(pepper).unwrap();
        assert_eq!(holding(workspace.server.dir.path(), &[pepper.into(), raw]), Vec::<PathBuf>::new());
        assert!(!workspace.server.log().contains(pepper));
    }
}

/// A pepper that is configured before the first start is in use from the first root key on; without a server the commands open
/// the directory themselves; a disabled pepper is needed no more.
#[test]
fn a_new_store_begins_with_its_pepper() {
    let file = PepperFile::new(&[ONE]);
    let server = Server::start_with(DataDir::fresh(), file.options());
    let root = server.root_key();
    let told = status(&server);
    assert_eq!((&told["hashes"], &told["hashesWithoutPepper"]), (&json!(1), &json!(0)), "{told}");
    let apis = server.call("apis.listApis", json!({})).bearer(&root).expect_page();
    assert!(apis.0.is_empty());
    let trail = server.operate(&["audit", "export", "--workspace", "operator"]).stdout;
    assert!(trail.contains("pepper.enable") && trail.contains("pepper.complete") && trail.contains("pp_"), "{trail}");
    server.stop();
    assert_eq!(holding(server.dir.path(), &[digest(&root)]), Vec::<PathBuf>::new());

    let dir = &server.dir;
    let closed = keyward(&["workspace", "list", "--data-dir", dir.text()]);
    assert!(closed.code == Some(1) && closed.stderr.contains("--pepper-file"), "{closed:?}");
    let path = file.path.to_str().unwrap();
    let offline = |arguments: &[&str]| {
        keyward(&[arguments, &["--data-dir", dir.text(), "--output", "json", "--pepper-file", path]].concat()).json()
    };
    let made = offline(&["root-key", "create", "--workspace", "default", "--name", "second"]);
    let disabled = offline(&["pepper", "disable"]);
    assert_eq!(disabled["pepper"], told["peppers"][0]["fingerprint"], "{disabled}");
    let bare = server.restart_with(Options::default());
    for root in [&root, made["key"].as_str().unwrap()] {
        let listed = bare.call("apis.listApis", json!({})).bearer(root).send();
        assert!(listed.status == 200 || listed.status == 403, "{listed:?}");
    }
    assert_eq!(status(&bare)["peppers"][0]["state"], "disabled");
    bare.stop();
    file.hold(&[TWO]);
    let enabled = offline(&["pepper", "enable"]);
    assert_eq!((&enabled["moved"], &enabled["resumed"]), (&json!(2), &json!(false)), "{enabled}");
    let text = keyward(&["pepper", "status", "--data-dir", dir.text(), "--pepper-file", path]).stdout;
    assert!(
        text.contains("in use; no start does without it") && text.contains("until the server is started again"),
        "{text}"
    );
}

/// A pepper that others may read, that is none, or that lies in the data directory stops the start, with the way out; nothing of
/// it is shown.
#[test]
fn a_bad_pepper_stops_the_start() {
    let file = PepperFile::new(&[ONE, "nonsense"]);
    let path = file.path.to_str().unwrap().to_owned();
    let dir = DataDir::fresh();
    let told = refusal(&dir, &[("KEYWARD_PEPPER_FILE", &path)]);
    assert!(told.contains("line 2 is no pepper") && told.contains("keyward pepper generate"), "{told}");
    assert!(!told.contains("nonsense") && !told.contains(ONE), "{told}");
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
    let told = refusal(&dir, &[("KEYWARD_PEPPER_FILE", &path)]);
    assert!(told.contains("chmod 600"), "{told}");
    fs::create_dir(dir.path()).unwrap();
    let inside = dir.path().join("pepper");
    fs::write(&inside, ONE).unwrap();
    fs::set_permissions(&inside, fs::Permissions::from_mode(0o600)).unwrap();
    let told = refusal(&dir, &[("KEYWARD_PEPPER_FILE", inside.to_str().unwrap())]);
    assert!(told.contains("inside of the data directory"), "{told}");
    let generated = keyward(&["pepper", "generate"]);
    let again = keyward(&["pepper", "generate", "--output", "json"]).json();
    assert!(generated.stdout.trim() != again["pepper"] && generated.stdout.trim().len() == 44);
    let none = Server::start();
    let refused = none.operate(&["pepper", "enable"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("keyward pepper generate"), "{refused:?}");
}
