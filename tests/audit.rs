//! The audit trail from outside: what is in it, whether it is whole, where it is exported to, and what becomes of whoever
//! tries root keys.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::program::{DataDir, operate};
use crate::harness::{Ask, Connection, Options, Output, Server, Workspace};

const PATIENCE: Duration = Duration::from_secs(60);
const UNKNOWN: &str = "unkey/authentication/key_not_found";

/// Waits until something is so.
fn await_that<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The events of an export, whether a server runs or not.
fn exported(dir: &DataDir, arguments: &[&str]) -> Vec<Value> {
    let output = operate(dir, &[&["audit", "export"], arguments].concat());
    assert_eq!(output.code, Some(0), "{output:?}");
    lines(&output.stdout)
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn verify(dir: &DataDir, arguments: &[&str]) -> Output {
    operate(dir, &[&["audit", "verify"], arguments].concat())
}

/// What is found by a verification that finds something.
fn findings(output: &Output) -> Vec<(String, u64, String)> {
    assert_eq!(output.code, Some(1), "{output:?}");
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    let finding = |finding: &Value| {
        let text = |name: &str| finding[name].as_str().unwrap().to_owned();
        (text("workspaceId"), finding["sequence"].as_u64().unwrap(), text("kind"))
    };
    answer["findings"].as_array().unwrap().iter().map(finding).collect()
}

/// Everything that changes a workspace, its settings or its root keys is in its trail, whoever did it by whatever way, and
/// is exported with the contract's members, of a running server and of a stopped one alike. AL-EV-01, AL-EV-02, AL-EV-03,
/// AL-EV-05, AL-EV-07, AL-EV-09, AL-ACTOR-01, AL-ACTOR-02, AL-NAME-02, EXT-2, EXT-3, EXT-12
#[test]
fn the_trail_tells_of_every_change_by_whatever_way() {
    let server = Arc::new(Server::start());
    let workspace = Workspace::on(&server);
    let root_key = workspace.root_key(&["api.*.create_api"]);
    workspace.change_root_key(&root_key, &["--name", "renamed"]);
    workspace.change(&["--audit-retention-days", "30", "--name", "another name"]);
    let ask = server.call("apis.createApi", json!({"name": "an api"})).header("User-Agent", "a test");
    let api = ask.bearer(&root_key.secret).expect_ok()["apiId"].as_str().unwrap().to_owned();
    workspace.ok("apis.updateApi", json!({"apiId": api, "name": "another"}));
    let made = workspace.ok("rootKeys.createKey", json!({"permissions": ["a.b.c"]}));
    let id = made["keyId"].clone();
    workspace.ok("rootKeys.updateKey", json!({"keyId": id, "enabled": false}));
    let rerolled = workspace.ok("rootKeys.rerollKey", json!({"keyId": id, "expiration": 0}));
    workspace.ok("rootKeys.deleteKey", json!({"keyId": rerolled["keyId"]}));
    server.call("apis.createApi", json!({"name": 1})).bearer(&workspace.root).send();
    server.call("apis.deleteApi", json!({"apiId": "api_nowhere1"})).bearer(&workspace.root).send();
    workspace.revoke(&root_key);

    let events = exported(&server.dir, &["--workspace", &workspace.id]);
    let wanted = [
        "workspace.create",
        "root_key.create",
        "root_key.create",
        "root_key.update",
        "workspace.update",
        "api.create",
        "api.update",
        "root_key.create",
        "root_key.update",
        "root_key.reroll",
        "root_key.delete",
        "root_key.delete",
    ];
    assert_eq!(names(&events), wanted);
    let at = |number: usize| &events[number];
    for event in &events {
        assert!(event["event_id"].as_str().unwrap().starts_with("log_"), "{event}");
        assert_eq!(
            (&event["workspace_id"], &event["bucket"], &event["source"]),
            (&json!(workspace.id), &json!("unkey_mutations"), &json!("platform"))
        );
        assert!(
            event["time"].is_u64() && event["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{event}"
        );
        assert!(!event["targets"].as_array().unwrap().is_empty() && event.get("meta").is_none(), "{event}");
        let by_command = [0, 1, 2, 3, 4, 11].map(at).contains(&event);
        assert_eq!(event["actor"]["type"], if by_command { "system" } else { "rootkey" }, "{event}");
        assert_eq!(event.get("remote_ip").is_some(), !by_command, "{event}");
        assert!(event["actor"].get("meta").is_none(), "{event}");
        if by_command {
            let uid = format!("uid:{}", rustix::process::geteuid().as_raw());
            assert_eq!(event["actor"]["id"], json!(uid), "{event}");
            assert!(event["actor"]["name"].is_string(), "{event}");
        }
    }
    assert_eq!(at(0)["correlation_id"], at(1)["correlation_id"]);
    assert_eq!(at(5)["actor"], json!({"type": "rootkey", "id": root_key.id, "name": "renamed"}));
    assert_eq!(
        (&at(5)["user_agent"], &at(5)["targets"]),
        (&json!("a test"), &json!([{"type": "api", "id": api, "name": "an api"}]))
    );
    assert!(at(5).get("correlation_id").is_none());
    let changes = |number: usize, field: &str| at(number)["targets"][0]["meta"]["changes"][field].clone();
    assert_eq!(changes(3, "name"), json!({"old": "a root key of the tests", "new": "renamed"}));
    assert_eq!(changes(4, "auditRetentionDays"), json!({"old": 365, "new": 30}));
    assert_eq!(changes(6, "name"), json!({"old": "an api", "new": "another"}));
    assert_eq!(changes(8, "enabled"), json!({"old": true, "new": false}));

    // A file, whole and private; times cut it; nothing else in it than what is asked for.
    let file = server.dir.path().with_file_name("export.jsonl");
    let path = file.to_str().unwrap();
    let export = operate(&server.dir, &["audit", "export", "-o", path]).json();
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(export["events"], lines(&written).len());
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let again = operate(&server.dir, &["audit", "export", "-o", path]);
    assert!(again.code == Some(1) && again.stderr.contains("--force"), "{again:?}");
    let (first, last) = (at(0)["time"].as_u64().unwrap(), at(11)["time"].as_u64().unwrap());
    let during = |since: u64, until: u64| {
        let (since, until) = (since.to_string(), until.to_string());
        exported(&server.dir, &["--workspace", &workspace.id, "--since", &since, "--until", &until]).len()
    };
    assert_eq!((during(first, last + 1), during(last + 1, last + 2), during(0, first)), (12, 0, 0));
    assert_eq!(server.stop(), Some(0));
    assert_eq!(exported(&server.dir, &[]), lines(&written), "the stopped directory says the same");
    let server = Arc::new(server.restart());
    server.operate(&["workspace", "delete", "--workspace", &workspace.id]).json();
    let after = exported(&server.dir, &["--workspace", &workspace.id]);
    assert_eq!((&after[..12], names(&after[12..])), (&events[..], vec!["workspace.delete"]), "the trail outlives it");
}

/// The chains verify on a running server and on a stopped one, with heads that were kept before more happened; a head that
/// the chain does not lead through is named, with a failing exit code, and what is wrong with a question is said. A crash takes no event whose change was answered. AL-EV-06, AL-STORE-01
#[test]
fn kept_heads_prove_the_trail_is_the_one_it_was() {
    let server = Arc::new(Server::start());
    let workspace = Workspace::on(&server);
    workspace.api();
    let heads = operate(&server.dir, &["audit", "heads"]).json();
    let texts: Vec<&str> =
        heads["heads"].as_array().unwrap().iter().map(|head| head["head"].as_str().unwrap()).collect();
    assert_eq!(texts.len(), 2, "of the first workspace and of this one: {heads}");
    let file = server.dir.path().with_file_name("heads");
    let print = |dir: &DataDir| crate::harness::keyward(&["audit", "heads", "--data-dir", dir.text()]).stdout;
    let printed = print(&server.dir);
    assert_eq!(printed, texts.join("\n") + "\n", "the text is what `verify --heads` reads");
    std::fs::write(&file, &printed).unwrap();
    let kept = file.to_str().unwrap();
    (0..3).for_each(|_| drop(workspace.api()));

    let good = verify(&server.dir, &["--heads", kept]).json();
    assert_eq!((&good["keptMet"], &good["findings"], &good["chains"]), (&json!(2), &json!([]), &json!(2)), "{good}");
    assert_eq!(verify(&server.dir, &["--workspace", &workspace.id]).json()["events"], 6);
    let mine = texts.iter().find(|head| head.starts_with(&workspace.id)).unwrap();
    let other_hash = |head: &str| {
        let (place, hash) = head.rsplit_once(':').unwrap();
        format!("{place}:{}", hash.chars().map(|digit| if digit == '0' { '1' } else { '0' }).collect::<String>())
    };
    let (forged, later) = (other_hash(mine), mine.replacen(":3:", ":30:", 1));
    assert_ne!(later, **mine);
    let nobody = mine.replacen(&workspace.id, "ws_nobody0000000000", 1);
    let ask = ["--head", &forged, "--head", &later, "--head", &nobody];
    let wanted = |output: &Output| {
        let mut found = findings(output);
        found.sort();
        let mut wanted = vec![
            (workspace.id.clone(), 3, "kept_differs".to_owned()),
            (workspace.id.clone(), 30, "kept_missing".to_owned()),
            ("ws_nobody0000000000".to_owned(), 3, "no_workspace".to_owned()),
        ];
        wanted.sort();
        assert_eq!(found, wanted);
    };
    wanted(&verify(&server.dir, &ask));
    server.kill();
    assert_eq!(verify(&server.dir, &["--heads", kept]).json(), good, "after a crash, on the directory");
    wanted(&verify(&server.dir, &ask));
    let text = crate::harness::keyward(&["audit", "verify", "--head", &forged, "--data-dir", server.dir.text()]);
    assert!(
        text.code == Some(1) && text.stdout.contains(&workspace.id) && text.stdout.contains("kept head"),
        "{text:?}"
    );

    for (arguments, said) in [
        (&["--head", "ws_1:3"][..], "WS:SEQUENCE:HASH"),
        (&["--heads", "/nowhere/heads"], "cannot be read"),
        (&["--workspace", "no-such"], "no workspace `no-such`"),
    ] {
        let refused = verify(&server.dir, arguments);
        assert!(refused.code != Some(0) && refused.stderr.contains(said), "{refused:?}");
    }
}

/// A live export to a file goes on where it was after a restart, with a new file after the old one was moved away; nothing is
/// missing from the two together, and `event_id` tells what is there twice. A target that is not there holds up nobody, and
/// is seen in the status. EXT-2
#[test]
fn a_live_export_to_a_file_survives_restarts_and_rotation() {
    let dir = DataDir::fresh();
    let folder = dir.path().with_file_name("exports");
    let file = folder.join("audit.jsonl");
    let options = Options::default().setting("KEYWARD_AUDIT_EXPORT_FILE", file.display());
    let server = Arc::new(Server::start_with(dir.clone(), options));
    let workspace = Workspace::on(&server);
    workspace.api();
    let status = || server.operate(&["audit", "status"]).json()["exports"][0].clone();
    let stuck = await_that("trouble is seen", || Some(status()).filter(|status| status["trouble"].is_string()));
    assert!(stuck["lagEvents"].as_u64().unwrap() >= 3 && stuck["name"] == "file", "{stuck}");

    std::fs::create_dir(&folder).unwrap();
    await_that("it catches up", || {
        Some(status()).filter(|status| status["lagEvents"] == 0 && status["trouble"].is_null())
    });
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let rotated = folder.join("audit.jsonl.1");
    std::fs::rename(&file, &rotated).unwrap();
    workspace.api();
    await_that("a new file", || std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')));
    workspace.api();
    assert_eq!(server.stop(), Some(0));
    // A line that a crash has cut off does not spoil the next one.
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap() + "{\"event_id\":\"cut o").unwrap();
    let server = Arc::new(server.restart());
    let workspace = Workspace { server: Arc::clone(&server), id: workspace.id.clone(), root: workspace.root.clone() };
    workspace.api();
    let all = exported(&server.dir, &[]);
    let ids = |path: &Path| -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.map(|event| event["event_id"].as_str().unwrap().to_owned()).collect()
    };
    let seen = await_that("everything is there", || {
        let mut seen = ids(&rotated);
        seen.extend(ids(&file));
        all.iter().all(|event| seen.iter().any(|id| event["event_id"] == **id)).then_some(seen)
    });
    assert_eq!(seen.len(), all.len(), "it was stopped and started in peace, so nothing comes twice");
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().filter(|line| serde_json::from_str::<Value>(line).is_err()).count(), 1);
}

/// Events reach syslog as RFC 5424 messages, by a datagram socket and by a stream, in order and from the first one on; a
/// daemon that comes late, or goes away and comes back, misses none.
#[test]
fn a_live_export_to_syslog_waits_for_its_daemon() {
    let dir = DataDir::fresh();
    let place = dir.path().with_file_name("log");
    let options = Options::default().setting("KEYWARD_AUDIT_EXPORT_SYSLOG", place.display());
    let server = Arc::new(Server::start_with(dir.clone(), options));
    let workspace = Workspace::on(&server);
    workspace.api();
    let daemon = UnixDatagram::bind(&place).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut heard = Vec::new();
    let mut hear = |daemon: &UnixDatagram, until: &str| {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = daemon.recv(&mut buffer).unwrap();
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            assert!(text.starts_with("<109>1 20"), "{text}");
            let (head, message) = text.split_at(text.find('{').unwrap());
            let event: Value = serde_json::from_str(message).unwrap();
            let fields: Vec<&str> = head.split(' ').collect();
            let name = event["event"].as_str().unwrap();
            assert_eq!((fields[3], fields[4], fields[5], fields[6]), ("keyward", "-", name, "-"), "{head}");
            heard.push(event.clone());
            if event["description"].as_str().unwrap().contains(until) {
                return;
            }
        }
    };
    let api = workspace.api();
    hear(&daemon, &api);
    drop(daemon);
    std::fs::remove_file(&place).unwrap();
    workspace.api();
    let daemon = UnixDatagram::bind(&place).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let api = workspace.api();
    hear(&daemon, &api);
    heard.dedup();
    let all = exported(&server.dir, &[]);
    let of = |events: &[Value]| -> Vec<Value> {
        events.iter().filter(|event| event["workspace_id"] == json!(workspace.id)).cloned().collect()
    };
    assert_eq!(of(&heard), of(&all));
    assert_eq!(server.stop(), Some(0));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let options = Options::default().setting("KEYWARD_AUDIT_EXPORT_SYSLOG", address);
    let server = Arc::new(server.restart_with(options));
    let workspace = Workspace { server, id: workspace.id.clone(), root: workspace.root.clone() };
    let api = workspace.api();
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut length = Vec::new();
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte).unwrap();
        match byte[0] {
            b' ' => break,
            digit => length.push(digit),
        }
    }
    let mut message = vec![0; String::from_utf8(length).unwrap().parse().unwrap()];
    stream.read_exact(&mut message).unwrap();
    let message = String::from_utf8(message).unwrap();
    assert!(message.starts_with("<109>1 ") && message.contains(&api), "it goes on where the other one was: {message}");
}

/// Who tries root keys is slowed after a few, in its own answers only: a valid root key from the same address is answered at
/// once meanwhile, and so is another address. What was tried is a sum in the operator's own chain, by address, and an answer
/// is the same whether it was held back or not. COM-AUTH-05, COM-HDR-02, COM-RK-03, AL-EV-08
#[test]
fn guessing_is_slow_and_told_and_harms_nobody_else() {
    let options = Options::default().setting("KEYWARD_AUTH_GUESS_DELAY_MAX_MS", 15_000);
    let server = Arc::new(Server::start_with(DataDir::fresh(), options));
    let workspace = Workspace::on(&server);
    let guess = |number: usize, address: &str| -> Ask {
        let call = server.call("apis.createApi", json!({"name": "an api"})).bearer(&format!("unkey_guess_{number}"));
        call.header("X-Forwarded-For", address).ask().clone()
    };
    let mut first = None;
    for number in 0..10 {
        let reply = server.exchange(&guess(number, "203.0.113.7"));
        let body = (reply.status, reply.json["error"].clone());
        assert!(body.0 == 401 && body.1["type"].as_str().unwrap().ends_with(UNKNOWN), "{body:?}");
        assert_eq!(*first.get_or_insert(body.clone()), body);
    }
    // Beyond these, answers are held back: seven on the way, the slowest for 15 s. Others are not.
    std::thread::scope(|scope| {
        let slow: Vec<_> = (10..17)
            .map(|number| {
                let (addr, ask) = (server.addr, guess(number, "203.0.113.7"));
                scope.spawn(move || Connection::open(addr).unwrap().exchange(&ask).unwrap())
            })
            .collect();
        let status = || server.operate(&["audit", "status"]).json()["refusedRootKeys"].clone();
        await_that("they are held back", || Some(status()).filter(|counts| counts["slowed"] == 7));
        let call = server.call("apis.createApi", json!({"name": "an api"})).bearer(&workspace.root);
        call.header("X-Forwarded-For", "203.0.113.7").expect_ok();
        assert_eq!(server.exchange(&guess(17, "203.0.113.8")).status, 401);
        assert!(slow.iter().any(|waiting| !waiting.is_finished()), "still held back when all others are answered");
        for waiting in slow {
            let reply = waiting.join().unwrap();
            assert_eq!(Some((reply.status, reply.json["error"].clone())), first);
        }
    });
    for number in 0..3 {
        server.exchange(&guess(number, &format!("2001:db8:1:2::{number}")));
    }
    assert_eq!(server.stop(), Some(0));
    let told = exported(&server.dir, &["--workspace", "operator"]);
    let mut sums: Vec<(String, u64)> = told
        .iter()
        .map(|event| {
            assert_eq!((&event["event"], &event["workspace_id"]), (&json!("root_key.refused"), &json!("operator")));
            assert_eq!(event["actor"]["type"], "system");
            let target = &event["targets"][0];
            (target["id"].as_str().unwrap().to_owned(), target["meta"]["attempts"].as_u64().unwrap())
        })
        .collect();
    sums.sort();
    let wanted = [("2001:db8:1:2::/64", 3), ("203.0.113.7", 17), ("203.0.113.8", 1)];
    assert_eq!(sums, wanted.map(|(address, attempts)| (address.to_owned(), attempts)));
    assert!(verify(&server.dir, &[]).code == Some(0));
    assert!(
        exported(&server.dir, &["--workspace", &workspace.id]).iter().all(|event| event["event"] != "root_key.refused")
    );
}
