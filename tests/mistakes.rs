//! What operators and strangers get wrong, and what they are told: files that are none, secrets that cannot be used, rights
//! that are too wide, requests that name no host.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::program::{DataDir, operate};
use crate::harness::{Connection, Options, Output, Server, Workspace, keyward, keyward_with};

const MASTER: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OTHER_MASTER: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";

/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder of an operator's files.
struct Folder(DataDir);

impl Folder {
    fn new() -> Folder {
        let dir = DataDir::named("etc");
        fs::create_dir(dir.path()).unwrap();
        Folder(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file with these rights.
    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    }

    /// A named pipe in which nobody writes.
    fn pipe(&self, name: &str) -> String {
        let path = self.path(name);
        let _ = fs::remove_file(&path);
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    /// A certificate and its key.
    fn certificate(&self) -> (String, String) {
        let made = keyward(&["tls", "self-signed", "--dir", &self.path("tls"), "--name", "keys.internal"]);
        assert_eq!(made.code, Some(0), "{made:?}");
        (self.path("tls/server.pem"), self.path("tls/server.key"))
    }
}

/// A named pipe, a directory or a device in the place of a file neither holds up a start nor a reload: it is refused by its
/// name, with what it is.
#[test]
fn what_is_no_file_holds_nothing_up() {
    let folder = Folder::new();
    let pipe = folder.pipe("pipe");
    let dir = DataDir::fresh();
    let serve = |variables: &[(&str, &str)]| {
        keyward_with(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"], variables)
    };
    let endpoint = ("KEYWARD_TELEMETRY_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let (certificate, key) = folder.certificate();
    for (place, kind) in [(&*pipe, "a named pipe"), (&folder.path(""), "a directory"), ("/dev/zero", "a device")] {
        for variables in [
            &[("KEYWARD_CONFIG", place)][..],
            &[("KEYWARD_TLS_CERT_FILE", place), ("KEYWARD_TLS_KEY_FILE", &key)],
            &[("KEYWARD_TLS_CERT_FILE", &certificate), ("KEYWARD_TLS_KEY_FILE", place)],
        ] {
            let refused = serve(variables);
            assert!(refused.code.is_some_and(|code| code > 0), "{refused:?}");
            assert!(refused.stderr.contains(&format!("it is {kind}, and a file is wanted")), "{refused:?}");
        }
    }
    for variables in [
        &[("KEYWARD_MASTER_KEY_FILE", &*pipe)][..],
        &[("KEYWARD_PEPPER_FILE", &pipe)],
        &[("KEYWARD_TELEMETRY_OTLP_HEADERS_FILE", &pipe), endpoint],
    ] {
        let refused = serve(variables);
        assert!(refused.code == Some(1) && refused.stderr.contains("it is a named pipe"), "{refused:?}");
    }

    let config = folder.file("keyward.toml", "[log]\nlevel = \"debug\"\n", 0o644);
    let options = Options { listen: "http://127.0.0.1:0,127.0.0.1:0".to_owned(), ..Options::default() };
    let options = options
        .setting("KEYWARD_CONFIG", &config)
        .setting("KEYWARD_TLS_CERT_FILE", &certificate)
        .setting("KEYWARD_TLS_KEY_FILE", &key);
    let server = Server::start_with(DataDir::fresh(), options);
    folder.pipe("tls/server.key");
    server.signal(Signal::HUP);
    // What was read anew counts, and the last line does not say that all is well.
    wait_for("the reload ends", || server.log().contains("but not all that they name"));
    let log = server.log();
    assert!(log.contains("it is a named pipe") && log.contains("kept=\"the certificate\""), "{log}");
    assert!(!log.contains("the settings were reloaded changed"), "{log}");
    folder.pipe("keyward.toml");
    server.signal(Signal::HUP);
    wait_for("the settings are refused", || server.log().contains("the settings were not reloaded"));
    assert_eq!(server.get("/health/ready").status, 200);
    assert_eq!(server.stop(), Some(0));
}

/// `config check` reads what the server would read: secrets and certificates that cannot be used end it with 1, as they end the
/// server, and settings that are refused with 2. It prints no secret and makes nothing.
#[test]
fn settings_are_checked_with_the_files_they_name() {
    let folder = Folder::new();
    let dir = DataDir::fresh();
    let check = |variables: &[(&str, &str)]| {
        keyward_with(&["config", "check", "--data-dir", dir.text(), "--output", "json"], variables)
    };
    let told = |output: &Output| -> Value { serde_json::from_str(&output.stdout).unwrap() };
    let (certificate, key) = folder.certificate();
    let master = folder.file("master.key", MASTER, 0o600);
    let pepper = folder.file("pepper", OTHER_MASTER, 0o400);
    let good = [
        ("KEYWARD_MASTER_KEY_FILE", &*master),
        ("KEYWARD_PEPPER_FILE", &*pepper),
        ("KEYWARD_TLS_CERT_FILE", &*certificate),
        ("KEYWARD_TLS_KEY_FILE", &*key),
    ];
    let fine = check(&good);
    assert_eq!((fine.code, &told(&fine)["good"]), (Some(0), &json!(true)), "{fine:?}");

    let open = folder.file("open", "secret-text", 0o644);
    let wrong = folder.file("wrong", "secret-text", 0o600);
    let all = check(&[
        ("KEYWARD_MASTER_KEY_FILE", &open),
        ("KEYWARD_PEPPER_FILE", &wrong),
        ("KEYWARD_TLS_CERT_FILE", &key),
        ("KEYWARD_TLS_KEY_FILE", &key),
        ("KEYWARD_TELEMETRY_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
        ("KEYWARD_TELEMETRY_OTLP_HEADERS_FILE", &wrong),
    ]);
    assert_eq!((all.code, &told(&all)["good"]), (Some(1), &json!(false)), "{all:?}");
    let problems = told(&all)["problems"].as_array().unwrap().clone();
    let has = |word: &str| problems.iter().any(|problem| problem.as_str().unwrap().contains(word));
    for word in ["chmod 600", "is no pepper", "no certificate in PEM form", "is no header"] {
        assert!(has(word) && all.stderr.contains(word), "{word}: {problems:?}");
    }
    assert!(problems.len() == 4 && !format!("{all:?}").contains("secret-text"), "{all:?}");
    assert_eq!(check(&[("KEYWARD_LOG_LEVEL", "loud"), ("KEYWARD_PEPPER_FILE", &wrong)]).code, Some(2));
    let serve = |variable: (&str, &str)| {
        keyward_with(&["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"], &[variable]).code
    };
    assert_eq!((serve(("KEYWARD_PEPPER_FILE", &wrong)), serve(("KEYWARD_LOG_LEVEL", "loud"))), (Some(1), Some(2)));

    // A key that everybody may read is a word, not a refusal, as it is at a start.
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    let warned = check(&good);
    assert!(warned.code == Some(0) && told(&warned)["warnings"][0].as_str().unwrap().contains("0644"), "{warned:?}");
}

/// Rights that are too wide are told at the start and by the doctor: of the data directory, and of an export of the audit trail
/// that was there before.
#[test]
fn wide_rights_are_told() {
    let folder = Folder::new();
    let dir = DataDir::fresh();
    fs::create_dir(dir.path()).unwrap();
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let export = folder.file("audit.jsonl", "", 0o666);
    let options = || Options::default().setting("KEYWARD_AUDIT_EXPORT_FILE", &export);
    set(dir.path(), 0o777);
    let doctor = |check: &str| {
        let seen = keyward_with(
            &["doctor", "--data-dir", dir.text(), "--output", "json"],
            &[("KEYWARD_LISTEN", "127.0.0.1:0"), ("KEYWARD_AUDIT_EXPORT_FILE", &export)],
        );
        let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
        let findings = seen["findings"].as_array().unwrap();
        findings.iter().find(|one| one["check"] == check).unwrap()["state"].as_str().unwrap().to_owned()
    };
    assert_eq!((doctor("files.data_dir").as_str(), doctor("files.audit_export").as_str()), ("problem", "warning"));
    // A directory in which a store is made is closed; one that has a store was opened on purpose, perhaps.
    let server = Server::start_with(dir.clone(), options());
    assert!(server.log().contains("it is for its owner alone now"), "{}", server.log());
    wait_for("the export is opened", || server.log().contains("chmod 640"));
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(server.stop(), Some(0));
    set(dir.path(), 0o777);
    let server = server.restart();
    let log = server.log();
    assert_eq!(fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777, 0o777, "its owner's choice stays");
    assert!(log.contains("may change and replace") && log.contains(&format!("chmod 700 {}", dir.text())), "{log}");
    assert_eq!(fs::metadata(&export).unwrap().permissions().mode() & 0o777, 0o666, "its owner's choice stays");
    assert_eq!(server.stop(), Some(0));

    set(dir.path(), 0o700);
    set(Path::new(&export), 0o640);
    assert_eq!((doctor("files.data_dir").as_str(), doctor("files.audit_export").as_str()), ("ok", "ok"));
    let server = server.restart_with(options());
    operate(&dir, &["workspace", "create", "--name", "another"]).json();
    wait_for("an event is exported", || fs::read_to_string(&export).unwrap().contains("another"));
    assert!(!server.log().contains("chmod"), "{}", server.log());
}

/// A wrong master key is told as what it is, a missing key, and not as damage: its copies are whole. EXT-6, KEYS-GET-3
#[test]
fn a_wrong_master_key_is_no_damage() {
    let with = |key: &str| Options::default().setting("KEYWARD_MASTER_KEY", key);
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), with(MASTER))));
    let api = workspace.api();
    workspace.ok("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": true}));
    let key = workspace.key(&api, json!({"recoverable": true}));
    assert_eq!(workspace.server.stop(), Some(0));
    let workspace = workspace.moved(workspace.server.restart_with(with(OTHER_MASTER)));
    let read = workspace.ok("keys.getKey", json!({"keyId": key.id, "decrypt": true}));
    assert!(read.get("plaintext").is_none(), "{read}");
    let health = workspace.server.get("/health/ready").json;
    assert_eq!((&health["status"], &health["reasons"]), (&json!("degraded"), &json!(["vault_key_missing"])));
    let seen = keyward_with(
        &["doctor", "--data-dir", workspace.server.dir.text(), "--output", "json"],
        &[("KEYWARD_PEPPER", "no pepper")],
    );
    let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
    let pepper = seen["findings"].as_array().unwrap().iter().find(|one| one["check"] == "files.pepper").unwrap();
    assert_eq!(pepper["state"], "problem", "{pepper}");
}

/// RFC 9112, 3.2: a request of HTTP/1.1 without a Host, with two, or with one that is no host is refused, on the address of
/// metrics too; HTTP/1.0 needs none.
#[test]
fn a_request_names_its_host() {
    let server =
        Server::start_with(DataDir::fresh(), Options::default().setting("KEYWARD_METRICS_LISTEN", "127.0.0.1:0"));
    let is_said = |line: &&str| line.contains("metrics are served");
    wait_for("the log says where", || server.log().lines().any(|line| is_said(&line)));
    let log = server.log();
    let line = log.lines().find(is_said).unwrap();
    let metrics = line.rsplit('=').next().unwrap().trim().parse().unwrap();
    let ask = |addr, path: &str, version: &str, hosts: &[&str]| {
        let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
        let text = format!("GET {path} HTTP/{version}\r\n{hosts}\r\n");
        Connection::open(addr).unwrap().exchange_raw(text.as_bytes()).unwrap()
    };
    for (version, hosts, status) in [
        ("1.1", &["keys.internal"][..], 200),
        ("1.1", &["127.0.0.1:7070"], 200),
        ("1.1", &["[::1]:7070"], 200),
        ("1.1", &[""], 200),
        ("1.0", &[], 200),
        ("1.1", &[], 400),
        ("1.1", &["one", "two"], 400),
        ("1.1", &["one", "one"], 400),
        ("1.0", &["one", "two"], 400),
        ("1.1", &["one two"], 400),
        ("1.1", &["one/two"], 400),
        ("1.1", &["user@one"], 400),
    ] {
        let reply = ask(server.addr, "/health/live", version, hosts);
        assert_eq!(reply.status, status, "{hosts:?}: {}", reply.text());
        if status == 400 {
            assert_eq!(
                reply.json["error"]["type"],
                "https://unkey.com/docs/errors/unkey/application/invalid_input",
                "{}",
                reply.text()
            );
        }
        assert_eq!(ask(metrics, "/metrics", version, hosts).status, status, "{hosts:?}");
    }
    let counted = server.get("/metrics").text();
    let series = r#"keyward_requests_total{operation="(none)",status="400",code="unkey/application/invalid_input"}"#;
    assert!(counted.lines().any(|line| line.starts_with(series)), "{counted}");
}

/// Changes a byte wherever this text stands in a file; how often that was.
fn damage(path: &Path, text: &str) -> usize {
    let mut bytes = fs::read(path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - text.len()).filter(|at| bytes[*at..].starts_with(text.as_bytes())).collect();
    for at in &places {
        bytes[*at] ^= 1;
    }
    fs::write(path, bytes).unwrap();
    places.len()
}

/// Rows that the disk has changed cost what reads them and nothing else: the answer says whom to tell and what to run, health
/// and metrics say so, and an export of the audit trail, live or asked for, with a server and without, names the damaged event
/// and goes on with the rest. KEYS-GEN-9, AL-EV-01
#[test]
fn damage_is_named_and_holds_nothing_else_up() {
    let workspace = Workspace::on(&Arc::new(Server::start()));
    let api = workspace.api();
    let whole = workspace.key(&api, json!({"name": "the whole key"}));
    let canary = "canaryNameOfTheDamagedApi";
    workspace.ok("apis.createApi", json!({"name": canary}));
    workspace.ok("apis.createApi", json!({"name": "what came later"}));
    assert_eq!(workspace.server.stop(), Some(0));
    let dir = workspace.server.dir.clone();
    assert!(damage(&dir.path().join("records.redb"), canary) >= 2, "the API and its event");

    let folder = Folder::new();
    let live = folder.path("live.jsonl");
    let options = Options::default().setting("KEYWARD_AUDIT_EXPORT_FILE", &live);
    let workspace = workspace.moved(workspace.server.restart_with(options));
    let server = &workspace.server;
    // The live export meets its damage by itself, and gets what is behind it.
    wait_for("what came later is exported", || {
        fs::read_to_string(&live).is_ok_and(|text| text.contains("what came later"))
    });
    wait_for("the log names the event", || server.log().contains("audit events are damaged and were not exported"));
    let refused = server.exchange(workspace.call("apis.listApis", json!({})).ask());
    let error = &refused.json["error"];
    assert_eq!(refused.status, 500, "{error}");
    assert!(error["type"].as_str().unwrap().ends_with("/unkey/application/service_unavailable"), "{error}");
    let detail = error["detail"].as_str().unwrap();
    assert!(
        detail.starts_with("We could not load the requested APIs") && detail.contains("keyward verify-data"),
        "{detail}"
    );
    assert_eq!(workspace.code(&whole, json!({})), "VALID");
    workspace.key(&api, json!({"name": "made beside the damage"}));
    let health = server.get("/health/ready");
    assert_eq!(
        (health.status, &health.json["status"], &health.json["reasons"]),
        (200, &json!("degraded"), &json!(["records_damaged"]))
    );
    let scrape = server.get("/metrics").text();
    let line = scrape.lines().find(|line| line.starts_with("keyward_storage_damaged_reads_total ")).unwrap();
    assert!(line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= 2, "{line}");

    let export = |name: &str| {
        let file = folder.path(name);
        let exported = operate(&dir, &["audit", "export", "--workspace", &workspace.id, "-o", &file]);
        let told: Value = serde_json::from_str(&exported.stdout).unwrap();
        assert_eq!((exported.code, &told["damaged"]), (Some(1), &json!(1)), "{exported:?}");
        let event = told["damagedEvents"][0].as_str().unwrap();
        assert!(event.starts_with(&workspace.id), "{told}");
        assert!(exported.stderr.contains(&format!("the event {event} is damaged and left out")), "{exported:?}");
        let lines = fs::read_to_string(&file).unwrap();
        assert_eq!(lines.lines().count() as u64, told["events"].as_u64().unwrap());
        assert!(lines.contains("what came later") && !lines.contains(canary));
    };
    export("with-a-server.jsonl");
    assert_eq!(server.stop(), Some(0));
    export("without.jsonl");
}

/// Names may hold any character, and steer nobody's terminal: not in the log, not in an export, not in what commands print.
/// RL-NS-02, COM-LOG-07
#[test]
fn names_steer_no_terminal() {
    let folder = Folder::new();
    let live = folder.path("live.jsonl");
    let options = Options::default()
        .setting("KEYWARD_AUDIT_EXPORT_FILE", &live)
        .setting("KEYWARD_LOG_LEVEL", "debug")
        .setting("KEYWARD_LOG_REQUESTS", "all");
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let name = "evil\u{0}\u{1b}[2J\u{7f}\u{9b}31m\u{202e}name";
    let limit = json!({"namespace": name, "identifier": name, "limit": 1, "duration": 60_000});
    let ask = workspace.call("ratelimit.limit", limit).ask().clone().header("User-Agent", "evil\u{9b}31m\u{202e}agent");
    assert_eq!(workspace.server.exchange(&ask).status, 200);
    workspace.call("ratelimit.getOverride", json!({"namespace": name, "identifier": name})).send();
    wait_for("the event is exported", || fs::read_to_string(&live).is_ok_and(|text| text.contains("evil")));
    let exported = keyward(&["audit", "export", "--data-dir", workspace.server.dir.text()]);
    let operators = [
        keyward(&["audit", "verify", "--data-dir", workspace.server.dir.text()]),
        keyward(&[
            "root-key",
            "revoke",
            "--key-id",
            name.trim_start_matches("evil\0"),
            "--data-dir",
            workspace.server.dir.text(),
        ]),
    ];
    let live = fs::read_to_string(&live).unwrap();
    let told: Vec<&str> = operators.iter().flat_map(|output| [&*output.stdout, &*output.stderr]).collect();
    for text in [&*workspace.server.log(), &*live, &*exported.stdout].into_iter().chain(told) {
        let steering = text.chars().find(|c| keyward::printable::steers(*c) && *c != '\n');
        assert_eq!(steering, None, "{text:?}");
    }
    let named = |line: &str| serde_json::from_str::<Value>(line).unwrap().to_string().contains("evil\\u0000");
    assert!(live.lines().any(named) && exported.stdout.lines().any(named), "the name itself is whole");
    assert!(operators[1].code != Some(0), "{operators:?}");
}
