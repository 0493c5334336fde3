//! Backups: `keyward backup`, `restore` and `verify-data`, beside a running server and without one (EXT-5).

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::program::{DataDir, binary, operate};
use crate::harness::{Dice, Key, Options, Output, Server, Workspace, keyward};

/// Where a test keeps its backups.
struct Shelf(tempfile::TempDir);

impl Shelf {
    fn new() -> Shelf {
        Shelf(tempfile::Builder::new().prefix("keyward-backup-").tempdir().unwrap())
    }

    fn place(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

fn restore(backup: &str, dir: &DataDir) -> Output {
    keyward(&["restore", backup, "--data-dir", dir.text(), "--output", "json"])
}

fn verify(dir: &DataDir) -> Output {
    operate(dir, &["verify-data"])
}

fn assert_whole(output: &Output) -> Value {
    let told = output.json();
    assert_eq!((&told["whole"], &told["findings"]), (&json!(true), &json!([])), "{told}");
    told
}

/// Runs keyward in a pipe: bytes in, bytes out.
fn piped(arguments: &[&str], input: &[u8]) -> (Option<i32>, Vec<u8>, String) {
    let mut command = Command::new(binary());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD")) {
        command.env_remove(name);
    }
    let pipe = || Stdio::piped();
    let mut child = command.args(arguments).stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeding = std::thread::spawn(move || {
        // A command that refuses what it reads does not read it all.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    (output.status.code(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// A workspace with one of everything, and what should be seen of it.
struct World {
    workspace: Workspace,
    api: String,
    keys: Vec<(Key, i64)>,
    events: u64,
}

impl World {
    fn on(server: &Arc<Server>) -> World {
        let workspace = Workspace::on(server);
        let api = workspace.api();
        let mut keys = Vec::new();
        let mut events = 0;
        for number in 0..12_i64 {
            let key = workspace.key(
                &api,
                json!({
                    "name": format!("key alpha{number}"), "credits": {"remaining": 100 + number},
                    "externalId": format!("owner-{}", number % 3), "meta": {"number": number},
                    "permissions": ["documents.read"], "roles": [],
                    "ratelimits": [{"name": "rpm", "limit": 50, "duration": 3_600_000, "autoApply": true}],
                }),
            );
            for _ in 0..number {
                assert_eq!(workspace.ok("keys.verifyKey", json!({"key": key.secret}))["code"], "VALID");
                events += 1;
            }
            keys.push((key, 100));
        }
        workspace.ok(
            "ratelimit.limit",
            json!({"namespace": "logins", "identifier": "ada", "limit": 5, "duration": 3_600_000}),
        );
        World { workspace, api, keys, events }
    }

    /// Whether all of it is there, and works.
    fn check(&self, server: Server) -> Server {
        let moved = self.workspace.moved(server);
        for (number, (key, left)) in self.keys.iter().enumerate() {
            let got = moved.ok("keys.getKey", json!({"keyId": key.id}));
            assert_eq!(got["name"], format!("key alpha{number}"));
            assert_eq!(got["identity"]["externalId"], format!("owner-{}", number % 3));
            let verified = moved.ok("keys.verifyKey", json!({"key": key.secret, "permissions": "documents.read"}));
            assert_eq!(verified["code"], "VALID");
            assert_eq!(verified["credits"], left - 1, "credits are counted to the last one");
            // Windows are restored as well: the limit goes on where it was.
            assert_eq!(verified["ratelimits"][0]["remaining"], 50 - number as i64 - 1, "{verified}");
        }
        let limited = moved.ok(
            "ratelimit.limit",
            json!({"namespace": "logins", "identifier": "ada", "limit": 5, "duration": 3_600_000}),
        );
        assert_eq!(limited["remaining"], 3);
        let counted = moved.ok(
            "analytics.getVerifications",
            json!({"query": "SELECT COUNT(*) AS n FROM key_verifications_v1 WHERE outcome = 'VALID'"}),
        );
        let counted = counted[0]["n"].as_u64().unwrap_or_else(|| panic!("{counted}"));
        let mine = self.keys.len() as u64;
        assert!((self.events..=self.events + mine).contains(&counted), "{counted} events of {}", self.events);
        // The index is made anew, beside everything else.
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let found = moved.call("keys.searchKeys", json!({"query": "alpha7"})).expect_page().0;
            if found.len() == 1 {
                break;
            }
            assert!(found.is_empty() && Instant::now() < until, "{found:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        let listed = moved.all("apis.listKeys", json!({"apiId": self.api}), 100);
        assert_eq!(listed.len(), self.keys.len());
        let server = Arc::try_unwrap(moved.server).unwrap_or_else(|_| panic!("nobody else has it"));
        server.operate(&["audit", "verify"]).json();
        server
    }
}

/// Changes keys, and makes and deletes others, until it is told to stop.
fn unrest(workspace: &Workspace, api: &str, stop: &AtomicBool, seed: u64) -> u64 {
    let mut dice = Dice::new(seed);
    let mut changes = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = workspace.key(api, json!({"name": "restless", "credits": {"remaining": 10}}));
        workspace.ok("keys.updateCredits", json!({"keyId": key.id, "operation": "increment", "value": 5}));
        workspace.ok("keys.verifyKey", json!({"key": key.secret}));
        if dice.below(2) == 0 {
            workspace.ok("keys.deleteKey", json!({"keyId": key.id, "permanent": true}));
        }
        changes += 1;
    }
    changes
}

/// EXT-5: a backup is made while others change what they like, in a directory, an archive and a pipe. Each is of one moment,
/// whole by its own checksums, and restores to a server that has all of it: keys, credits, windows, events, search, the trail.
#[test]
fn a_backup_beside_changes_restores_to_all_there_was() {
    let shelf = Shelf::new();
    let server = Arc::new(Server::start());
    let world = World::on(&server);
    let restless = Workspace::on(&server);
    let restless_api = restless.api();
    let stop = AtomicBool::new(false);
    let (directory, archive) = (shelf.place("one"), shelf.place("two.tar"));
    let piped_out = std::thread::scope(|scope| {
        for seed in 0..2 {
            let (restless, api, stop) = (&restless, &restless_api, &stop);
            scope.spawn(move || unrest(restless, api, stop, seed));
        }
        let made = server.operate(&["backup", &directory]).json();
        assert!(made["position"].as_u64().unwrap() > 0 && made["rows"].as_u64().unwrap() > 50, "{made}");
        assert!(made["events"].as_u64().unwrap() >= world.events, "{made}");
        server.operate(&["backup", &archive]).json();
        let (code, out, told) = piped(&["backup", "-", "--data-dir", server.dir.text()], b"");
        assert_eq!(code, Some(0), "{told}");
        assert!(told.contains("position"), "the summary goes where the archive does not: {told}");
        stop.store(true, Ordering::Relaxed);
        out
    });
    // A name that is taken is not overwritten, and nothing of the attempt is left.
    let before = fs::read_dir(shelf.0.path()).unwrap().count();
    let refused = server.operate(&["backup", &directory]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("is there already"), "{}", refused.stderr);
    assert_eq!(fs::read_dir(shelf.0.path()).unwrap().count(), before);

    let root = server.root_key();
    let in_all = files(Path::new(&directory));
    for path in &in_all {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        assert!(
            !fs::read(path).unwrap().windows(root.len()).any(|part| part == root.as_bytes()),
            "a root key in {path:?}"
        );
    }
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&archive).unwrap().permissions().mode() & 0o777, 0o600);
    let relative: Vec<String> =
        in_all.iter().map(|path| path.strip_prefix(&directory).unwrap().to_str().unwrap().to_owned()).collect();
    assert!(relative.contains(&"BACKUP.json".to_owned()), "{relative:?}");
    for left_out in ["root.key", "admin.sock", "LOCK", "search"] {
        assert!(!relative.iter().any(|path| path.starts_with(left_out)), "{relative:?}");
    }
    server.stop();
    assert_whole(&verify(&server.dir));

    for backup in [&directory, &archive] {
        assert_whole(&keyward(&["verify-data", backup, "--output", "json"]));
        let dir = DataDir::fresh();
        let restored = restore(backup, &dir).json();
        assert_ne!(restored["newStoreId"], restored["storeId"]);
        let told = assert_whole(&verify(&dir));
        assert_eq!(told["position"], restored["position"]);
        let again = restore(backup, &dir);
        assert_eq!(again.code, Some(1));
        assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
        let server = world.check(Server::start_with(dir, Options::default()));
        assert_eq!(server.stop(), Some(0));
        assert_whole(&verify(&server.dir));
        // The restored store can be backed up itself, without a server.
        let second = shelf.place(&format!("of {}.tar", Path::new(backup).file_name().unwrap().to_str().unwrap()));
        server.operate(&["backup", &second]).json();
        assert_whole(&keyward(&["verify-data", &second, "--output", "json"]));
    }
    let dir = DataDir::fresh();
    let (code, _, told) = piped(&["restore", "-", "--data-dir", dir.text()], &piped_out);
    assert_eq!(code, Some(0), "{told}");
    world.check(Server::start_with(dir, Options::default()));
}

/// EXT-5: a backup that is damaged, cut, foreign or newer is refused, whichever byte it is; the directory stays empty, and the
/// words name the file.
#[test]
fn a_backup_that_is_not_whole_restores_nothing() {
    let shelf = Shelf::new();
    let server = Arc::new(Server::start());
    let world = World::on(&server);
    let (directory, archive) = (shelf.place("one"), shelf.place("two.tar"));
    server.operate(&["backup", &directory]).json();
    server.operate(&["backup", &archive]).json();
    drop(world);

    let nothing = |backup: &str, what: &str| {
        let dir = DataDir::fresh();
        let refused = restore(backup, &dir);
        assert_eq!(refused.code, Some(1), "{what}: {refused:?}");
        assert!(refused.stderr.contains("nothing was restored"), "{what}: {}", refused.stderr);
        assert!(!dir.path().exists(), "{what}: the directory is as it was: not there");
        refused.stderr
    };
    let mut dice = Dice::new(1);
    for path in files(Path::new(&directory)) {
        let bytes = fs::read(&path).unwrap();
        let name = path.strip_prefix(&directory).unwrap().to_str().unwrap().to_owned();
        let mut damaged = bytes.clone();
        let at = dice.below(bytes.len() as u64) as usize;
        damaged[at] ^= 1;
        fs::write(&path, &damaged).unwrap();
        let told = nothing(&directory, &name);
        assert!(told.contains(&name), "{name}: {told}");
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        nothing(&directory, &name);
        fs::remove_file(&path).unwrap();
        nothing(&directory, &name);
        // A link could lead anywhere.
        let elsewhere = shelf.place("elsewhere");
        fs::write(&elsewhere, &bytes).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        nothing(&directory, &name);
        fs::remove_file(&path).unwrap();
        fs::write(&path, &bytes).unwrap();
    }
    let whole = fs::read(&archive).unwrap();
    let cut = shelf.place("cut.tar");
    for part in [0, 1, 511, 512, whole.len() / 3, whole.len() / 2, whole.len() - 3000] {
        fs::write(&cut, &whole[..part]).unwrap();
        nothing(&cut, &format!("cut at {part}"));
    }
    let manifest = Path::new(&directory).join("BACKUP.json");
    let text = fs::read_to_string(&manifest).unwrap();
    // What is not there is not told of.
    fs::write(&manifest, text.replacen("\"events\": ", "\"events\": 1", 1)).unwrap();
    assert!(nothing(&directory, "its own account").contains("its checksum does not fit"));
    fs::write(&manifest, text.replacen("\"format\": 1", "\"format\": 2", 1).replacen("0.1.0", "7.8.9", 1)).unwrap();
    assert!(nothing(&directory, "newer").contains("install keyward 7.8.9 or newer"));
    fs::write(&manifest, text.replacen("records/state", "../../state", 1)).unwrap();
    nothing(&directory, "a path that climbs");
    fs::write(&manifest, &text).unwrap();
    let dir = DataDir::fresh();
    assert_eq!(restore(&directory, &dir).code, Some(0), "and unharmed it is taken");

    // A data directory is no backup, and says so.
    assert!(nothing(server.dir.text(), "a data directory").contains("is it a data directory?"));
    let told = verify(&server.dir);
    assert_eq!(told.code, Some(1));
    assert!(told.stderr.contains("while a server runs"), "{}", told.stderr);
}

/// Verification of a directory names the file that is damaged, and what to do; a start refuses what it must in the same words.
#[test]
fn damage_is_told_by_file() {
    let server = Arc::new(Server::start());
    let world = World::on(&server);
    drop(world);
    let server = Arc::try_unwrap(server).unwrap_or_else(|_| panic!("nobody else has it"));
    server.stop();
    let dir = &server.dir;
    assert_whole(&verify(dir));
    let mut seen = 0;
    for path in files(dir.path()) {
        let name = path.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned();
        let is_told = name.ends_with(".parquet")
            || name.ends_with("MANIFEST")
            || name == "records.redb"
            || name.starts_with("log/");
        if !is_told {
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        let mut damaged = bytes.clone();
        // A row, the first frame, the first header.
        let row = b"key alpha5";
        let at = match name.as_str() {
            "records.redb" => bytes.windows(row.len()).position(|part| part == row).expect("a key's row"),
            _ => 12.min(bytes.len() - 1),
        };
        damaged[at] ^= 0x40;
        fs::write(&path, &damaged).unwrap();
        let told = verify(dir);
        assert_eq!(told.code, Some(1), "{name}: {told:?}");
        let told: Value = serde_json::from_str(&told.stdout).unwrap();
        let finding = &told["findings"][0];
        let file = finding["file"].as_str().unwrap();
        assert!(name.starts_with(file), "{name}: {told}");
        assert!(!finding["advice"].as_str().unwrap().is_empty());
        fs::write(&path, &bytes).unwrap();
        seen += 1;
    }
    assert!(seen >= 4, "{seen} files");

    // A file of events that is gone, and a manifest that is gone while files are there.
    let parquet =
        files(dir.path()).into_iter().find(|path| path.extension().is_some_and(|end| end == "parquet")).unwrap();
    let bytes = fs::read(&parquet).unwrap();
    fs::remove_file(&parquet).unwrap();
    assert!(verify(dir).stdout.contains("it is missing"));
    fs::write(&parquet, bytes).unwrap();
    let manifest = dir.path().join("events/MANIFEST");
    let bytes = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    let told = verify(dir);
    assert!(told.stdout.contains("files of events are there"), "{told:?}");
    let started = keyward(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"]);
    assert!(started.code == Some(1) && started.stderr.contains("files of events are there"), "{started:?}");
    assert!(parquet.exists(), "a start that does not know which files count removes none");
    fs::write(&manifest, bytes).unwrap();
    assert_whole(&verify(dir));
    server.restart();
}

/// A directory of an older format is kept before it is changed; what is kept is whole, and a server starts on it.
#[test]
fn an_upgrade_keeps_the_directory_as_it_was() {
    let server = Arc::new(Server::start());
    let world = World::on(&server);
    server.stop();
    let dir = server.dir.clone();
    fs::write(dir.path().join("FORMAT"), "keyward data format 0\n").unwrap();
    let upgraded = server.restart();
    assert!(upgraded.log().contains("what it was is kept first"), "{}", upgraded.log());
    assert_eq!(fs::read_to_string(dir.path().join("FORMAT")).unwrap(), "keyward data format 1\n");
    let kept = dir.path().join("before-format-1");
    assert_eq!(fs::read_to_string(kept.join("FORMAT")).unwrap(), "keyward data format 0\n");
    assert!(!kept.join("root.key").exists() && !kept.join("search").exists());
    drop(upgraded);
    // Going back is putting it in the place of the directory.
    let old = DataDir::fresh();
    fs::rename(&kept, old.path()).unwrap();
    fs::write(old.path().join("FORMAT"), "keyward data format 1\n").unwrap();
    assert_whole(&verify(&old));
    drop(server);
    world.check(Server::start_with(old, Options::default()));

    fs::write(dir.path().join("FORMAT"), "keyward data format 2\n").unwrap();
    fs::write(dir.path().join("VERSION"), "5.6.7\n").unwrap();
    let refused = keyward(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("install keyward 5.6.7 or newer"), "{refused:?}");
}

/// A block of shell commands of the operator's page.
fn commands<'a>(page: &'a str, name: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("<!-- {name}:begin -->")).unwrap_or_else(|| panic!("no block {name}"));
    let (block, _) = rest.split_once(&format!("<!-- {name}:end -->")).expect("the block ends");
    block.trim().strip_prefix("```sh\n").and_then(|block| block.strip_suffix("\n```")).expect("a block of sh")
}

/// The operator's page on backups, every command of it run as it stands: but for the paths, for `sudo`, and for `systemctl`, which
/// stops and starts the server of this test.
#[test]
fn the_commands_of_the_operators_page_work() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/docs/operate.md")).unwrap();
    let shelf = Shelf::new();
    let home = DataDir::named("keyward");
    let server = Arc::new(Server::start_with(home.clone(), Options::default()));
    let world = World::on(&server);
    let prelude = r#"
        keyward() { "$PROGRAM" "$@"; }
        sudo() { if [ "$1" = -u ]; then shift 2; fi; "$@"; }
        install() { mkdir -m 700 "${@: -1}"; }
        journalctl() { echo "a line of the log"; }
    "#;
    let run = |script: &str| {
        let backups = shelf.place("");
        let data = home.text().to_owned();
        let script = script.replace("/backup/", &backups).replace("/var/lib/keyward", &data);
        let mut command = Command::new("bash");
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD")) {
            command.env_remove(name);
        }
        let script = format!("{prelude}\n{script}");
        let ran = command.args(["-euo", "pipefail", "-c", &script]).env("PROGRAM", binary()).output().unwrap();
        let shown =
            format!("{script}\n{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success(), "{shown}");
        shown
    };
    let told = run(commands(&page, "backup"));
    assert!(told.contains("All of it is whole."), "{told}");
    let told = run(commands(&page, "support"));
    assert!(told.contains("settings.json") && told.contains("log.txt"), "{told}");
    // What lies between the two `systemctl` is what the operator does while no server runs.
    let restoring = commands(&page, "restore");
    let (first, rest) = restoring.split_once('\n').unwrap();
    let (middle, last) = rest.rsplit_once('\n').unwrap();
    assert!(first.contains("systemctl stop") && last.contains("systemctl start"));
    let World { workspace, api, keys, events } = world;
    drop(server);
    let Workspace { server, id, root } = workspace;
    let server = Arc::try_unwrap(server).unwrap_or_else(|_| panic!("nobody else has it"));
    server.stop();
    let told = run(middle);
    assert!(told.contains("All of it is whole."), "{told}");
    let started = Arc::new(Server::start_with(home.clone(), Options::default()));
    let world = World { workspace: Workspace { server: Arc::clone(&started), id, root }, api, keys, events };
    let compressed = DataDir::fresh();
    let from =
        format!("gzip -dc {} | keyward restore - --data-dir {}", shelf.place("keyward.tar.gz"), compressed.text());
    run(&from);
    world.check(Server::start_with(compressed, Options::default()));
}
