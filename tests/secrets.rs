//! No secret is left anywhere but in the reply that made it: every operation is driven with marked secrets, and then all that
//! the program has written is searched for them, byte by byte.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use serde_json::{Value, json};

use crate::authority::ROWS;
use crate::harness::collector::Collector;
use crate::harness::program::DataDir;
use crate::harness::{Options, Reply, Server, Workspace, keyward_with};
use crate::things::World;

/// The one file that holds a secret, by the operator's choice.
const EXCEPTED: &str = "root.key";
/// Members of replies that are there to tell a secret.
const TELLING: &[&str] = &["key", "plaintext"];

/// A secret that was sent or minted, and how it came to be.
struct Mark {
    text: String,
    what: &'static str,
}

/// All secrets so far.
#[derive(Default)]
struct Marks(Vec<Mark>);

impl Marks {
    fn add(&mut self, what: &'static str, text: impl Into<String>) -> String {
        let text = text.into();
        assert!(text.len() >= 16, "too short to be found by no accident: {text}");
        self.0.push(Mark { text: text.clone(), what });
        text
    }

    /// A secret that nobody has, different every time.
    fn made_up(&mut self, what: &'static str) -> String {
        let number = self.0.len();
        self.add(what, format!("mark{number:04}SecretThatMustNotBeSeen"))
    }

    /// Ready to look for all of them at once.
    fn search(&self) -> Search<'_> {
        let mut search = Search { begins: vec![false; 1 << 16], shapes: HashMap::new() };
        for mark in &self.0 {
            let body = mark.text.rsplit('_').next().unwrap().to_owned();
            let base64 = base64::engine::general_purpose::STANDARD_NO_PAD.encode(&mark.text);
            // The last characters depend on what follows.
            let base64 = base64[..base64.len() - 2].to_owned();
            for shape in [body, base64].into_iter().filter(|shape| shape.len() >= 16) {
                let head: [u8; HEAD] = shape.as_bytes()[..HEAD].try_into().unwrap();
                search.begins[usize::from(u16::from_le_bytes([head[0], head[1]]))] = true;
                search.shapes.entry(head).or_default().push((shape, mark.what));
            }
        }
        search
    }
}

/// Bytes by which a mark is recognized first.
const HEAD: usize = 8;

/// Marks as they may stand somewhere - as they are but for their prefix, and as base64 - by how they begin. One pass over the
/// bytes finds all: there are a thousand marks, and megabytes of files.
struct Search<'a> {
    /// Whether any begins with these two bytes.
    begins: Vec<bool>,
    shapes: HashMap<[u8; HEAD], Vec<(String, &'a str)>>,
}

impl Search<'_> {
    /// What of the marks is in some bytes.
    fn found_in(&self, place: &str, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for (at, head) in bytes.windows(HEAD).enumerate() {
            if self.begins[usize::from(u16::from_le_bytes([head[0], head[1]]))]
                && let Some(shapes) = self.shapes.get(head)
            {
                let here = shapes.iter().filter(|(shape, _)| bytes[at..].starts_with(shape.as_bytes()));
                found.extend(here.map(|(shape, what)| format!("{place} holds {what} ({shape})")));
            }
        }
        found
    }
}

/// Every file below a directory.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

/// What is found in the files below a directory, `root.key` excepted.
fn searched(marks: &Search<'_>, folder: &Path) -> Vec<String> {
    let files = files(folder).into_iter().filter(|path| path.file_name().is_none_or(|name| name != EXCEPTED));
    files.flat_map(|path| marks.found_in(&path.display().to_string(), &std::fs::read(&path).unwrap())).collect()
}

/// Notes the secrets that a reply tells, and gives the reply without them.
fn without_told(marks: &mut Marks, value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            // Hashes from elsewhere are told to whoever sent them (migrateKeys), taken or not, and names of unknown members, too
            // (COM-VAL-02): so no secret of these tests is a member's name.
            let keep = |(name, value): (&String, &Value)| match value.as_str().filter(|_| TELLING.contains(&&**name)) {
                None if name == "failed" || name == "hash" => None,
                Some(secret) => {
                    marks.add("a key that was minted", secret);
                    None
                }
                None => Some((name.clone(), without_told(marks, value))),
            };
            Value::Object(members.iter().filter_map(keep).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| without_told(marks, item)).collect()),
        other => other.clone(),
    }
}

/// The bodies of a row with a made-up secret in every member that carries one.
fn with_marks(marks: &mut Marks, mut body: Value) -> Value {
    for (name, what) in [("key", "a key that is presented"), ("code", "an exchange code")] {
        if body.get(name).is_some() {
            body[name] = marks.made_up(what).into();
        }
    }
    if let Some(keys) = body.get_mut("keys").and_then(Value::as_array_mut) {
        for key in keys {
            key["hash"] = marks.made_up("a hash from elsewhere").into();
        }
    }
    body
}

/// COM-LOG-07, COM-AUTH-09, AL-EV-06, EXT-1, EXT-6: keys, root keys, the master key, the pepper, refused credentials,
/// credentials in headers and queries, hashes
/// from elsewhere and bodies that do not parse are in no line of the log at its most talkative, in no metric, in no error, in no reply but
/// the one that tells them, in no export and in no file of the data directory - the log, the records, the events, the
/// journals - while it runs, after a kill and after a stop. The search itself is proved by what it must find.
#[test]
fn no_secret_is_left_anywhere() {
    let mut marks = Marks::default();
    let root = marks.add("the first root key", "unkey_markFirstRootKeyThatMustNotBeSeen");
    let master = marks.add("the master key", "markMasterKeyThatMustNotBeSeenxx");
    let master = base64::engine::general_purpose::STANDARD.encode(master);
    let pepper = marks.add("the pepper", "markPepperThatMustNotBeSeenxxxxx");
    let pepper = base64::engine::general_purpose::STANDARD.encode(pepper);
    let for_collector = marks.add("a header for the collector", "markCollectorsHeaderThatMustNotBeSeen");
    let collector = Collector::start(200);
    let dir = DataDir::fresh();
    let export = dir.path().with_file_name("audit.jsonl");
    let options = Options { root_key: Some(root.clone()), ..Options::default() }
        .setting("KEYWARD_LOG_LEVEL", "trace")
        .setting("KEYWARD_MASTER_KEY", &master)
        .setting("KEYWARD_PEPPER", &pepper)
        .setting("KEYWARD_AUDIT_EXPORT_FILE", export.display())
        .setting("KEYWARD_OTLP_HEADERS", format!("Authorization: Bearer {for_collector}"))
        .setting("KEYWARD_TELEMETRY_OTLP_ENDPOINT", collector.endpoint())
        .setting("KEYWARD_TELEMETRY_SAMPLING_RATIO", "1")
        .setting("KEYWARD_TELEMETRY_METRICS_INTERVAL_MS", "1000");
    let server = Arc::new(Server::start_with(dir.clone(), options));
    let workspace = Workspace::on(&server);
    marks.add("a root key made by the command line", &workspace.root);
    let canary = "canaryNameThatIsNoSecretAndMustBeSeen";
    workspace.ok("apis.createApi", json!({"name": canary}));
    let mut told: Vec<(String, Reply)> = Vec::new();
    assert!(ROWS.len() >= 40);
    for row in ROWS {
        let world = World::of(&workspace);
        marks.add("a key of the tests", &world.key.secret);
        let body = (row.body)(&world);
        let mut send = |marks: &mut Marks, bearer: &str, body: &Value| {
            let query = marks.made_up("a credential in the query");
            let mut ask = server.call(row.name, body.clone()).bearer(bearer).ask().clone();
            ask.target = format!("{}?key={query}", ask.target);
            for (name, what) in [
                ("Cookie", "a cookie"),
                ("Proxy-Authorization", "a credential for a proxy"),
                ("X-Api-Key", "a credential in a header that nobody asked for"),
            ] {
                let mark = marks.made_up(what);
                ask = ask.header(name, &if name == "Cookie" { format!("portal_session={mark}") } else { mark });
            }
            told.push((row.name.to_owned(), server.exchange(&ask)));
        };
        // Refused in each step, carried out, and carried out once more with secrets of nothing.
        let unknown = marks.made_up("an unknown root key");
        send(&mut marks, &unknown, &body);
        let weak = workspace.root_key(&["documents.read"]).secret;
        marks.add("a weak root key", &weak);
        send(&mut marks, &weak, &body);
        let marked = with_marks(&mut marks, body.clone());
        send(&mut marks, &workspace.root, &marked);
        let wrong = json!({"key": marks.made_up("a key of the wrong shape"), "nobody": {"wants": [marks.made_up("a stray body")]}});
        send(&mut marks, &workspace.root, &wrong);
        send(&mut marks, &workspace.root, &body);
    }
    for header in ["Basic ", "bearer ", "Bearer", "", "Bearer a Bearer "] {
        let mark = marks.made_up("a malformed credential");
        let ask =
            server.call("keys.whoami", json!({"key": "x"})).authorization(&format!("{header}{mark}")).ask().clone();
        told.push(("keys.whoami".to_owned(), server.exchange(&ask)));
    }
    for (before, after) in [("{\"key\":\"", ""), ("{\"key\":\"", "\",}"), ("[\"", "\"]"), ("", "")] {
        let mark = marks.made_up("a body that does not parse");
        let call =
            server.call("keys.verifyKey", json!({})).bearer(&workspace.root).raw(format!("{before}{mark}{after}"));
        told.push(("keys.verifyKey".to_owned(), server.exchange(call.ask())));
    }
    let mut found = Vec::new();
    for (name, reply) in &told {
        let rest = if reply.status == 200 { without_told(&mut marks, &reply.json) } else { reply.json.clone() };
        found.push((name, reply.status, rest.to_string()));
    }
    let planted = marks.0[7].text.clone();
    let marks = marks.search();
    let mut leaks: Vec<String> = found
        .iter()
        .flat_map(|(name, status, text)| marks.found_in(&format!("the {status} of {name}"), text.as_bytes()))
        .collect();
    let headers = told.iter().flat_map(|(_, reply)| &reply.headers).map(|(name, value)| format!("{name}: {value}\n"));
    leaks.extend(marks.found_in("the headers of replies", headers.collect::<String>().as_bytes()));

    // Files of events are compressed: what is in them is seen by taking it out.
    for table in ["key_verifications_v1", "ratelimits_v1"] {
        let file = dir.path().with_file_name(format!("{table}.ndjson"));
        server.operate(&["events", "export", "--table", table, file.to_str().unwrap()]).json();
        leaks.extend(marks.found_in(table, &std::fs::read(&file).unwrap()));
    }
    // What an operator is shown: metrics, the status, the settings.
    let metrics = server.get("/metrics");
    assert!(metrics.status == 200 && metrics.text().contains("keyward_requests_total{operation=\"keys.createKey\""));
    leaks.extend(marks.found_in("metrics", &metrics.body));
    for page in ["/health/live", "/health/ready"] {
        leaks.extend(marks.found_in(page, &server.get(page).body));
    }
    let status = server.operate(&["status"]).stdout;
    leaks.extend(marks.found_in("the status", status.as_bytes()));
    let secrets = [
        ("KEYWARD_ROOT_KEY", &*root),
        ("KEYWARD_MASTER_KEY", &*master),
        ("KEYWARD_PEPPER", &*pepper),
        ("KEYWARD_OTLP_HEADERS", &*for_collector),
    ];
    let settings = keyward_with(&["config", "show", "--output", "json"], &secrets);
    assert!(settings.json()["settings"].is_object());
    leaks.extend(marks.found_in("the settings", format!("{}{}", settings.stdout, settings.stderr).as_bytes()));
    let trail = server.operate(&["audit", "export"]).stdout;
    assert!(trail.contains(canary) || trail.contains("Created API"), "the trail is exported");
    leaks.extend(marks.found_in("the audit trail", trail.as_bytes()));
    leaks.extend(searched(&marks, dir.path()));
    collector.wait_for("every operation is traced", |collector| {
        let spans = collector.spans();
        ROWS.iter().all(|row| spans.iter().any(|span| span.of("keyward.operation") == row.name)).then_some(())
    });
    server.kill();
    leaks.extend(searched(&marks, dir.path()));
    let log = server.log();
    let server = server.restart();
    assert_eq!(server.stop(), Some(0));
    leaks.extend(searched(&marks, dir.path()));
    let log = format!("{log}{}", server.log());
    leaks.extend(marks.found_in("the log", log.as_bytes()));
    for post in collector.posts() {
        leaks.extend(marks.found_in(&post.path, &post.body));
    }
    assert!(collector.metrics().is_some_and(|metrics| metrics.len() > 50));
    leaks.extend(marks.found_in("the live export", &std::fs::read(&export).unwrap()));
    leaks.dedup();
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));

    // The search sees: the first root key in its own file, a name in the records and in the log of changes, a mark in a
    // file that somebody puts there, and trace lines in the log.
    let whole = std::fs::read(dir.path().join(EXCEPTED)).unwrap();
    assert!(!marks.found_in(EXCEPTED, &whole).is_empty(), "root.key is excepted by name because it holds one");
    let names = Marks(vec![Mark { text: canary.to_owned(), what: "the canary" }]);
    let seen = searched(&names.search(), dir.path());
    for kind in ["records.redb", "/log/"] {
        assert!(seen.iter().any(|place| place.contains(kind)), "the canary is in {kind}: {seen:?}");
    }
    std::fs::write(dir.path().join("events/planted"), format!("x{}x", planted)).unwrap();
    assert_eq!(searched(&marks, dir.path()).len(), 1, "a planted mark is found");
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "the log is at its most talkative");
}

/// EXT-6: a name and a password in a URL are refused wherever a setting is a URL - in a file, in the environment, in a flag - and neither
/// the refusal of any command nor the support bundle shows them; the place that is to be corrected is named.
#[test]
fn no_secret_of_a_url_is_shown() {
    let mut marks = Marks::default();
    let home = tempfile::tempdir().unwrap();
    let mut shown = Vec::new();
    for (key, variable, scheme) in [
        ("replication.follow", "KEYWARD_REPLICATION_FOLLOW", "https"),
        ("replication.peers", "KEYWARD_REPLICATION_PEERS", "https"),
        ("replication.advertise", "KEYWARD_REPLICATION_ADVERTISE", "http"),
        ("replication.lease_endpoints", "KEYWARD_REPLICATION_LEASE_ENDPOINTS", "https"),
        ("telemetry.otlp_endpoint", "KEYWARD_TELEMETRY_OTLP_ENDPOINT", "https"),
        ("listen", "KEYWARD_LISTEN", "http"),
        ("audit.export.syslog", "KEYWARD_AUDIT_EXPORT_SYSLOG", "tcp"),
        ("http.max_connections", "KEYWARD_HTTP_MAX_CONNECTIONS", "https"),
    ] {
        let mark = marks.made_up("the password of a URL");
        for url in [format!("{scheme}://me:{mark}@127.0.0.1:7071"), format!("{scheme}://{mark}@127.0.0.1:7071")] {
            let data = home.path().join("data");
            let data = data.to_str().unwrap();
            let bundle = home.path().join("bundle.tar");
            for command in [
                &["config", "show", "--data-dir", data][..],
                &["config", "check", "--output", "json", "--data-dir", data],
                &["doctor", "--data-dir", data],
                &["serve", "--data-dir", data],
                &["support-bundle", bundle.to_str().unwrap(), "--data-dir", data],
            ] {
                let output = keyward_with(command, &[(variable, &url)]);
                let all = format!("{}{}", output.stdout, output.stderr);
                assert_eq!(output.code, Some(2), "{key} {command:?}: {all}");
                assert!(all.contains(key), "{key} {command:?}: {all}");
                shown.push(all);
            }
            // A line that is not well-formed is quoted.
            let file = home.path().join("keyward.toml");
            let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
            let table = if table.is_empty() { String::new() } else { format!("[{table}]\n") };
            std::fs::write(&file, format!("{table}{name} = \"{url}\n")).unwrap();
            let output = keyward_with(&["config", "check", "--config", file.to_str().unwrap()], &[]);
            assert_eq!(output.code, Some(2), "{output:?}");
            shown.push(format!("{}{}", output.stdout, output.stderr));
            let output = keyward_with(&["api", "apis", "create-api", "--name", "x", "--api-url", &url], &[]);
            assert_eq!(output.code, Some(2), "{output:?}");
            shown.push(format!("{}{}", output.stdout, output.stderr));
            assert!(!bundle.exists());
        }
    }
    let leaks = marks.search().found_in("what commands say", shown.concat().as_bytes());
    assert!(leaks.is_empty(), "{leaks:?}");
}
