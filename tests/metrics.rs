//! What an operator sees: metrics, health, status, settings, reload, and that the dashboard and the alerts ask for what there
//! is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward::metrics::table::{Kind, METRICS, of_series};
use serde_json::{Value, json};

use crate::harness::program::{DataDir, operate};
use crate::harness::{Ask, Connection, Options, Reply, Server, Workspace, keyward, keyward_with};

/// What is waited for at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// A scrape, taken apart: values by series, which is a name with its labels as they stand.
struct Scrape(BTreeMap<String, f64>);

impl Scrape {
    fn of(server: &Server) -> Scrape {
        let reply = server.get("/metrics");
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Scrape::read(&reply.text())
    }

    /// Reads the text format strictly: each metric is announced once, with its help and its kind, and is of the table.
    fn read(text: &str) -> Scrape {
        let mut values = BTreeMap::new();
        let mut announced = BTreeSet::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(announced.insert(name), "{name} is announced twice");
                assert_eq!(help, format!("{}.", of_series(name).unwrap_or_else(|| panic!("{name}?")).help));
                current = name;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!(rest, format!("{current} {}", of_series(current).unwrap().kind.name()));
            } else {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert_eq!(of_series(name).unwrap().name, current, "{line} stands below {current}");
                assert!(values.insert(series.to_owned(), value.parse().unwrap()).is_none(), "{series} is there twice");
            }
        }
        Scrape(values)
    }

    fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series}"))
    }

    /// The sum over the series of a metric whose labels hold this text.
    fn sum(&self, name: &str, label: &str) -> f64 {
        let of = self.0.iter().filter(|(series, _)| series.split('{').next() == Some(name) && series.contains(label));
        of.map(|(_, value)| value).sum()
    }
}

/// Waits until something holds.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running server exposes every metric of the table and no other, histograms add up, and what was done is counted by
/// operation, status and code. Requests with made-up paths, keys, names and headers add no series: no label holds what a
/// client chose.
#[test]
fn every_metric_is_there_and_clients_add_none() {
    let export = DataDir::named("audit.jsonl");
    let options = Options::default().setting("KEYWARD_AUDIT_EXPORT_FILE", export.text());
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));
    for _ in 0..3 {
        assert_eq!(workspace.code(&key, json!({})), "VALID");
    }
    workspace.call("keys.getKey", json!({"keyId": "key_nowhere"})).expect_problem(404, "unkey/data/key_not_found");
    let server = &workspace.server;
    assert_eq!(server.get("/v2/keys.verifyKey").status, 405);
    assert_eq!(server.get("/nowhere").status, 404);

    let linux_only = |help: &str| !cfg!(target_os = "linux") && help.contains("Linux only");
    let others_only = |help: &str| {
        (help.starts_with("On a follower") && help.contains("left out")) || help.ends_with("only where one is set up")
    };
    // How far the search index is behind is known once it is open.
    let mut tries = 0;
    let scrape = loop {
        let scrape = Scrape::of(server);
        let of = |series: &str| of_series(series.split('{').next().unwrap()).unwrap().name;
        let there: BTreeSet<&str> = scrape.0.keys().map(|series| of(series)).collect();
        let may_lack = |help: &str| linux_only(help) || others_only(help);
        let missing: Vec<_> =
            METRICS.iter().filter(|metric| !there.contains(metric.name) && !may_lack(metric.help)).collect();
        if missing.is_empty() {
            break scrape;
        }
        tries += 1;
        assert!(tries < 200, "{missing:?}");
        std::thread::sleep(Duration::from_millis(50));
    };
    for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram) {
        let count = scrape.sum(&format!("{}_count", metric.name), "");
        assert_eq!(scrape.sum(&format!("{}_bucket", metric.name), "le=\"+Inf\""), count, "{}", metric.name);
        assert!(scrape.sum(&format!("{}_bucket", metric.name), "le=") >= count);
        assert!(count == 0.0 || scrape.sum(&format!("{}_sum", metric.name), "") > 0.0, "{}", metric.name);
    }
    for (series, value) in [
        (r#"keyward_requests_total{operation="keys.verifyKey",status="200",code="ok"}"#, 3.0),
        (r#"keyward_requests_total{operation="keys.getKey",status="404",code="unkey/data/key_not_found"}"#, 1.0),
        (r#"keyward_requests_total{operation="(none)",status="404",code="unkey/application/invalid_input"}"#, 1.0),
        (r#"keyward_requests_total{operation="(none)",status="405",code="unkey/application/invalid_input"}"#, 0.0),
        (
            r#"keyward_requests_total{operation="keys.verifyKey",status="405",code="unkey/application/invalid_input"}"#,
            1.0,
        ),
        (r#"keyward_request_duration_seconds_count{operation="keys.verifyKey"}"#, 4.0),
        (r#"keyward_verifications_total{code="VALID"}"#, 3.0),
        ("keyward_events_dropped_total", 0.0),
        ("keyward_storage_read_only", 0.0),
    ] {
        assert_eq!(scrape.0.get(series).copied().unwrap_or(0.0), value, "{series}");
    }
    assert!(scrape.get("keyward_connections") >= 1.0 && scrape.get("keyward_log_position") >= 3.0);
    assert!(scrape.get("keyward_log_sync_duration_seconds_count") >= 1.0);
    assert!(scrape.sum("keyward_hot_keys", "") >= 1.0 && scrape.sum("process_resident_memory_bytes", "") > 1e6);

    // Every way to be refused that the flood below knows, once, so that what comes after is only more of it.
    let mark = "cardinality";
    let flood = |from: usize, to: usize| {
        for n in from..to {
            let name = format!("{mark}{n}");
            server.get(&format!("/{name}"));
            server.get(&format!("/v2/{name}.{name}?{name}={name}"));
            server.exchange(&Ask::new("POST", "/health/live").header("X-Request-Id", &name));
            let limit = json!({"namespace": name, "identifier": name, "limit": 1, "duration": 60_000});
            workspace.call("ratelimit.limit", limit).send();
            workspace.call("keys.verifyKey", json!({"key": name, "tags": [name]})).header("User-Agent", &name).send();
            server.call("keys.verifyKey", json!({"key": name})).bearer(&name).send();
            workspace.call("apis.getApi", json!({"apiId": name})).send();
        }
    };
    flood(0, 3);
    let before: BTreeSet<String> = Scrape::of(server).0.into_keys().collect();
    flood(3, 60);
    let after = Scrape::of(server);
    let new: Vec<&String> = after.0.keys().filter(|series| !before.contains(*series)).collect();
    // What requests of its own made appear meanwhile: nothing here does.
    assert!(new.is_empty(), "{new:?}");
    assert!(
        after.0.keys().all(|series| !series.contains(mark) && !series.contains("ws_")),
        "a client's word is a label"
    );
}

/// The address of metrics alone, as the log tells it.
fn metrics_address(server: &Server) -> SocketAddr {
    let log = server.log();
    let line = log.lines().find(|line| line.contains("metrics are served")).expect("the log says where");
    line.rsplit('=').next().unwrap().trim().parse().unwrap()
}

/// Metrics are for this machine unless the operator says otherwise: whoever comes from elsewhere, by a proxy too, gets the
/// very answer of a path that is not there. COM-RT-06
#[test]
fn metrics_are_for_those_who_are_allowed() {
    let like_nowhere = |reply: &Reply| {
        assert_eq!(reply.status, 404, "{}", reply.text());
        assert_eq!(
            reply.json["error"]["detail"],
            "There is no such route. GET /reference lists the operations of this keyward."
        );
    };
    let server = Server::start();
    assert_eq!(server.get("/metrics").status, 200);
    assert_eq!(server.exchange(&Ask::new("HEAD", "/metrics")).status, 200);
    let from = |name: &str, value: &str| server.exchange(&Ask::new("GET", "/metrics").header(name, value));
    assert_eq!(from("X-Forwarded-For", "127.0.0.1").status, 200);
    for forwarded in ["203.0.113.9", "127.0.0.1, 10.1.2.3", "10.1.2.3, 127.0.0.1", "nonsense"] {
        like_nowhere(&from("X-Forwarded-For", forwarded));
    }
    for sign in ["Forwarded", "Via", "X-Real-IP"] {
        like_nowhere(&from(sign, "somebody"));
    }
    like_nowhere(&server.get("/nowhere"));

    let options =
        Options::default().setting("KEYWARD_METRICS_ALLOW", "").setting("KEYWARD_METRICS_LISTEN", "127.0.0.1:0");
    let server = Server::start_with(DataDir::fresh(), options);
    like_nowhere(&server.get("/metrics"));
    let apart = metrics_address(&server);
    let ask = |ask: &Ask| Connection::open(apart).unwrap().exchange(ask).unwrap();
    let scraped = ask(&Ask::new("GET", "/metrics").header("X-Forwarded-For", "203.0.113.9"));
    assert_eq!(scraped.status, 200);
    assert!(Scrape::read(&scraped.text()).get("keyward_log_position") >= 1.0);
    for other in ["/", "/v2/liveness", "/v2/keys.verifyKey", "/openapi.json", "/metrics/"] {
        assert_eq!(ask(&Ask::new("GET", other)).status, 404, "{other}");
    }
    assert_eq!(ask(&Ask::new("POST", "/metrics").body("x")).status, 404);
    assert_eq!(server.stop(), Some(0));
    assert!(Connection::open(apart).is_err(), "it ends with the server");
}

/// What keeps the server from its promises is told by health, metrics and `keyward status` in the same words, and the
/// server goes on answering 200. COM-SYS-04, COM-CODE-02, EXT-5, EXT-6
#[test]
fn trouble_is_told_everywhere_in_the_same_words() {
    let master = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let with_key = Options::default().setting("KEYWARD_MASTER_KEY", master);
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), with_key)));
    let api = workspace.api();
    workspace.ok("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": true}));
    workspace.key(&api, json!({"recoverable": true}));
    let healthy = workspace.server.get("/health/ready");
    assert_eq!((healthy.status, &healthy.json), (200, &json!({"status": "ok"})));
    let status = workspace.server.operate(&["status"]).json();
    assert_eq!(status["degraded"], json!([]), "{status}");
    assert_eq!(workspace.server.stop(), Some(0));

    // No master key, an index that cannot be made, and a disk that has no room.
    let dir = workspace.server.dir.clone();
    std::fs::remove_dir_all(dir.path().join("search")).unwrap();
    std::fs::write(dir.path().join("search"), "in the way").unwrap();
    let all: u64 = 1 << 40;
    let space = rustix::fs::statvfs(dir.path()).unwrap();
    let has_terabyte = space.f_bavail.saturating_mul(space.f_frsize) >= all;
    let server = workspace.server.restart_with(Options::default().setting("KEYWARD_STORAGE_MIN_FREE_BYTES", all));
    let mut wanted = vec!["disk_full", "search_failing", "vault_key_missing"];
    wanted.retain(|reason| *reason != "disk_full" || !has_terabyte);
    let told = || {
        let health = server.get("/health/live");
        assert_eq!(health.status, 200);
        let reasons = health.json["reasons"].as_array().cloned().unwrap_or_default();
        reasons.iter().map(|reason| reason.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    wait_for("all reasons are told", || told() == wanted);
    for page in ["/health/ready", "/health/startup"] {
        let health = server.get(page);
        assert_eq!((health.status, &health.json["status"]), (200, &json!("degraded")), "{page}");
    }
    let scrape = Scrape::of(&server);
    assert_eq!(scrape.sum("keyward_degraded", ""), wanted.len() as f64);
    for reason in &wanted {
        assert_eq!(scrape.get(&format!("keyward_degraded{{reason=\"{reason}\"}}")), 1.0);
    }
    assert_eq!(scrape.get(r#"keyward_search_state{state="failing"}"#), 1.0);
    assert_eq!(scrape.get("keyward_vault_unreadable_data_keys"), 1.0);
    let status = server.operate(&["status"]).json();
    let reasons: Vec<&str> =
        status["degraded"].as_array().unwrap().iter().map(|one| one["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons, wanted);
    assert!(status["degraded"].as_array().unwrap().iter().all(|one| one["advice"].as_str().unwrap().len() > 30));
    let text = keyward(&["status", "--data-dir", dir.text()]);
    assert!(
        text.code == Some(0) && text.stdout.contains("DEGRADED") && text.stdout.contains("keyward vault status"),
        "{text:?}"
    );
}

/// `keyward status` tells how a running server is, and what lies in a directory that none runs on; without a directory it
/// says so. EXT-5
#[test]
fn status_tells_of_a_server_and_of_a_directory() {
    let workspace = Workspace::on(&Arc::new(Server::start()));
    let api = workspace.api();
    let keys: Vec<_> = (0..3).map(|_| workspace.key(&api, json!({"externalId": "ada"}))).collect();
    workspace.ok("keys.deleteKey", json!({"keyId": keys[0].id}));
    workspace.code(&keys[1], json!({}));
    let server = &workspace.server;
    let status = server.operate(&["status"]).json();
    assert_eq!(status["server"]["pid"], server.process());
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["dataDir"], server.dir.text());
    let counts = |status: &Value| status["counts"].clone();
    // The first workspace and that of the tests, each with its root key.
    assert_eq!(counts(&status), json!({"workspaces": 2, "keys": 2, "rootKeys": 2, "identities": 1}));
    assert!(status["server"]["requests"].as_u64() >= Some(6) && status["storage"]["position"].as_u64() >= Some(5));
    assert!(status["disk"]["recordsBytes"].as_u64() > Some(0) && status["disk"]["logBytes"].as_u64() > Some(0));
    assert_eq!((&status["events"]["dropped"], &status["vault"]["ready"]), (&json!(0), &json!(false)));
    assert!(["current", "behind", "partial"].contains(&status["search"]["state"].as_str().unwrap()), "{status}");
    let text = keyward(&["status", "--data-dir", server.dir.text()]);
    for part in ["runs, version", "2 workspaces, 2 keys", "health", "ok"] {
        assert!(text.stdout.contains(part), "{part}: {text:?}");
    }
    server.stop();
    let stopped = operate(&server.dir, &["status"]).json();
    assert_eq!(
        (&stopped["server"], &stopped["events"], &stopped["search"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(counts(&stopped), counts(&status));
    assert!(stopped["disk"]["eventsBytes"].as_u64() > Some(0), "{stopped}");
    let nowhere = operate(&DataDir::fresh(), &["status"]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("there is no data directory"), "{nowhere:?}");
}

/// `keyward config show` tells each setting in force and where it came from, flags before the environment before the file,
/// Unkey's names among them, and no secret; `check` refuses as `serve` does. EXT-1
#[test]
fn settings_are_shown_with_where_they_came_from() {
    let place = DataDir::named("keyward.toml");
    let file = place.text();
    std::fs::write(file, "region = \"file\"\n[http]\nmax_connections = 5\nidle_timeout_ms = 200\n").unwrap();
    let secret = "unkey_aRootKeyThatNobodyMustSee";
    let environment = [
        ("KEYWARD_HTTP_MAX_CONNECTIONS", "6"),
        ("UNKEY_REGION", "frankfurt"),
        ("UNKEY_HTTP_PORT", "8181"),
        ("UNKEY_REDIS_URL", "redis://user:of-no-effect@host"),
        ("KEYWARD_ROOT_KEY", secret),
        ("KEYWARD_MASTER_KEY", secret),
        ("KEYWARD_PEPPER", secret),
    ];
    let show = ["config", "show", "--config", file, "--http-max-connections", "7", "--output", "json"];
    let output = keyward_with(&show, &environment);
    let shown = output.json();
    for (key, value, from) in [
        ("http.max_connections", "7", "the flag --http-max-connections"),
        ("http.idle_timeout_ms", "200", file),
        ("region", "\"frankfurt\"", "the environment variable UNKEY_REGION"),
        ("listen", "[\"0.0.0.0:8181\"]", "the environment variable UNKEY_HTTP_PORT"),
        ("log.level", "\"info\"", "default"),
    ] {
        assert_eq!(shown["settings"][key], json!({"value": value, "from": from}), "{key}");
    }
    let text = keyward_with(&["config", "show", "--config", file], &environment);
    assert!(
        text.stdout.contains("http.max_connections = 6") && text.stdout.contains("KEYWARD_ROOT_KEY is set"),
        "{text:?}"
    );
    assert!(text.stderr.contains("UNKEY_REDIS_URL has no effect"), "{text:?}");
    for output in [&output, &text] {
        let all = format!("{}{}", output.stdout, output.stderr);
        assert!(!all.contains(secret) && !all.contains("of-no-effect"), "{all}");
    }
    // What is no key is refused where it would be one, which showing it is not.
    let check = keyward_with(&["config", "check", "--config", file], &environment);
    assert!(check.code == Some(1) && check.stderr.contains("KEYWARD_MASTER_KEY"), "{check:?}");
    let without = environment.iter().filter(|(name, _)| !matches!(*name, "KEYWARD_MASTER_KEY" | "KEYWARD_PEPPER"));
    let without: Vec<(&str, &str)> = without.copied().collect();
    assert_eq!(keyward_with(&["config", "check", "--config", file], &without).code, Some(0));
    std::fs::write(file, "[http]\nmax_conections = 5\n").unwrap();
    let wrong = keyward(&["config", "check", "--config", file, "--log-level", "loud"]);
    assert_eq!(wrong.code, Some(2));
    for part in ["did you mean `http.max_connections`", "log.level, from the flag --log-level"] {
        assert!(wrong.stderr.contains(part), "{part}: {wrong:?}");
    }
    let unknown = keyward(&["serve", "--http-max-conections", "5"]);
    assert!(unknown.code == Some(2) && unknown.stderr.contains("--http-max-connections"), "{unknown:?}");
}

/// SIGHUP reads the settings again: what can change at once does, what cannot is told, and a file with anything wrong in it
/// changes nothing. COM-BODY-02
#[test]
fn a_reload_is_all_or_nothing() {
    let place = DataDir::named("keyward.toml");
    let file = place.text();
    let write = |text: &str| std::fs::write(file, text).unwrap();
    write("[http]\nmax_body_bytes = 4096\n");
    let options = Options { arguments: vec!["--config".to_owned(), file.to_owned()], ..Options::default() };
    let server = Server::start_with(DataDir::fresh(), options);
    let hangup = || {
        let id = rustix::process::Pid::from_raw(i32::try_from(server.process()).unwrap()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    };
    let said = |what: &str, times: usize| {
        wait_for(what, || server.log().matches(what).count() == times);
    };
    let large =
        || server.call("apis.createApi", json!({"name": "x".repeat(3000)})).bearer(&server.root_key()).send().status;
    assert_eq!(large(), 400, "too long a name, in a body of a size that is taken");

    write("region = \"elsewhere\"\n[http]\nmax_body_bytes = 2048\n[log]\nlevel = \"debug\"\n");
    hangup();
    said("the settings were reloaded changed=2 waiting=1", 1);
    assert_eq!(large(), 413);
    let log = server.log();
    let line = log.lines().find(|line| line.contains("http.max_body_bytes")).expect("it is told");
    assert!(line.contains("4096") && line.contains("2048"), "{line}");
    assert!(log.lines().any(|line| line.contains("region") && line.contains("with a restart")), "{log}");

    write("[http]\nmax_body_bytes = 1024\nmax_body_bites = 5\n");
    hangup();
    said("the settings were not reloaded", 1);
    assert!(server.log().contains("did you mean `http.max_body_bytes`"));
    assert_eq!(
        server.call("apis.createApi", json!({"name": "x".repeat(1500)})).bearer(&server.root_key()).send().status,
        400
    );
    std::fs::remove_file(file).unwrap();
    hangup();
    said("the settings were not reloaded", 2);

    write("[http]\nmax_body_bytes = 4096\n[log]\nlevel = \"warn\"\n");
    hangup();
    wait_for("the limit is back", || large() == 400);
    let lines = server.log().lines().count();
    assert_eq!(server.get("/nowhere").status, 404);
    assert_eq!(server.stop(), Some(0));
    let log = server.log();
    let later: Vec<&str> = log.lines().skip(lines).filter(|line| line.contains(" INFO ")).collect();
    assert!(later.is_empty(), "the log is at `warn`: {later:?}");
}

/// With `log.requests = "all"` each request of an operation has a line as JSON, with who asked and how long it took, and
/// nothing of its headers or its body; without it those that were carried out have none. COM-LOG-07
#[test]
fn every_request_has_a_line_where_that_is_asked_for() {
    let options = Options::default().setting("KEYWARD_LOG_REQUESTS", "all").setting("KEYWARD_LOG_FORMAT", "json");
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let api = workspace.api();
    let call =
        workspace.call("keys.createKey", json!({"apiId": api, "name": "nameInTheBody"})).header("X-Odd", "oddHeader");
    let made = call.send();
    assert_eq!(workspace.server.get("/v2/liveness").status, 200);
    let id = made.json["meta"]["requestId"].as_str().unwrap().to_owned();
    wait_for("the line", || workspace.server.log().contains(&id));
    let log = workspace.server.log();
    let line: Value = serde_json::from_str(log.lines().find(|line| line.contains(&id)).unwrap()).unwrap();
    assert_eq!(
        (&line["status"], &line["path"], &line["level"]),
        (&json!(200), &json!("/v2/keys.createKey"), &json!("INFO"))
    );
    assert_eq!((&line["workspace"], &line["client_ip"]), (&json!(workspace.id), &json!("127.0.0.1")));
    assert!(
        line["latency_ms"].as_f64() > Some(0.0) && line["root_key"].as_str().unwrap().starts_with("key_"),
        "{line}"
    );
    for unseen in ["nameInTheBody", "oddHeader", &workspace.root, "/v2/liveness"] {
        assert!(!log.contains(unseen), "{unseen}:\n{log}");
    }
    let quiet = Workspace::new();
    quiet.api();
    assert!(!quiet.server.log().contains("a request was answered"));
}

/// Names of metrics in an expression, with the labels that it asks them for.
fn asked(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let is_part = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    for prefix in ["keyward_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            if expression[..at].chars().next_back().is_some_and(is_part) {
                continue;
            }
            let rest = &expression[at..];
            let end = rest.find(|sign| !is_part(sign)).unwrap_or(rest.len());
            let labels = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or("");
            let names = labels.split(',').filter(|label| !label.is_empty());
            let names = names.map(|label| label.split(['=', '!']).next().unwrap().trim().to_owned()).collect();
            found.push((rest[..end].to_owned(), names));
        }
    }
    found
}

/// Labels after `by (`.
fn grouped(expression: &str) -> Vec<String> {
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    groups.flat_map(|names| names.split(',').map(|name| name.trim().to_owned())).collect()
}

/// Fails unless an expression asks for metrics that exist, by labels that they have.
fn check(expression: &str) -> usize {
    let everywhere = ["instance", "job", "le"];
    let asked = asked(expression);
    let mut known: Vec<&str> = everywhere.to_vec();
    for (name, labels) in &asked {
        let metric =
            of_series(name).unwrap_or_else(|| panic!("there is no metric {name}, which is asked for in {expression}"));
        assert!(metric.kind != Kind::Histogram || *name != metric.name, "{name} is a histogram: {expression}");
        known.extend(metric.labels);
        for label in labels {
            assert!(metric.labels.contains(&&**label) || everywhere.contains(&&**label), "{name} has no {label}");
        }
    }
    for label in grouped(expression) {
        assert!(known.contains(&&*label), "no label {label} in {expression}");
    }
    asked.len()
}

fn packaged(name: &str) -> String {
    let path = format!("{}/packaging/observability/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The dashboard and the alert rules ask for metrics and labels that exist, and for all that an operator has to see.
#[test]
fn the_dashboard_and_the_alerts_ask_for_what_there_is() {
    let dashboard: Value = serde_json::from_str(&packaged("grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut expressions = 0;
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id is there twice: {panel}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()));
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap();
            assert!(check(expression) > 0, "{expression} asks for nothing of keyward's");
            seen.extend(asked(expression).into_iter().map(|(name, _)| of_series(&name).unwrap().name));
            expressions += 1;
        }
    }
    assert!(expressions > 40, "{expressions}");
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        check(variable["query"]["query"].as_str().unwrap_or_default());
    }
    // Rules are YAML; what is checked are their expressions, on one line or on several that are indented further.
    let rules = packaged("alerts.yml");
    let alerts = rules.matches("- alert: ").count();
    let mut checked = 0;
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(first) = line.trim_start().strip_prefix("expr: ") else { continue };
        let mut expression = first.trim_start_matches('|').to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
            expression.push_str(more);
        }
        checked += usize::from(check(&expression) > 0 || expression.trim().starts_with("up{"));
        seen.extend(asked(&expression).into_iter().map(|(name, _)| of_series(&name).unwrap().name));
    }
    assert_eq!((checked, alerts), (alerts, 24));
    assert!(seen.len() > 45, "{} of {} metrics are looked at", seen.len(), METRICS.len());
}

/// The check sees what it is there for.
#[test]
#[should_panic(expected = "there is no metric keyward_hot_kees")]
fn a_misspelt_metric_is_noticed() {
    check("sum by (instance) (rate(keyward_hot_kees{instance=~\"$instance\"}[5m]))");
}
