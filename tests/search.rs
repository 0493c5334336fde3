//! Search: keys by what a customer can tell (EXT-16), audit events by filters and words (EXT-15), and an index that comes
//! back whatever happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Dice, Key, Server, Workspace};

/// How long a test waits for what has to come; the promise is two seconds, on a machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until the answer is the one that has to come.
fn eventually<T: PartialEq + std::fmt::Debug>(wanted: &T, mut ask: impl FnMut() -> T) {
    let until = Instant::now() + PATIENCE;
    loop {
        let came = ask();
        if came == *wanted {
            return;
        }
        assert!(Instant::now() < until, "wanted {wanted:?}, got {came:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn ids(rows: &[Value]) -> Vec<String> {
    rows.iter().map(|row| row["keyId"].as_str().unwrap().to_owned()).collect()
}

/// The ids of the keys that a query finds.
fn keys(workspace: &Workspace, query: &str) -> Vec<String> {
    ids(&workspace.all("keys.searchKeys", json!({"query": query}), 100))
}

fn of(keys: &[&Key]) -> Vec<String> {
    let mut ids: Vec<String> = keys.iter().map(|key| key.id.clone()).collect();
    ids.sort();
    ids
}

/// EXT-16, APIS-LIST-9: a key is found by the start of it, parts of its name, its id, the external id of its identity, an
/// address in its metadata, and by the whole of it; and is shown as getKey shows it. Changes are followed: a renamed key is
/// found by its new name alone, a deleted one not at all, and so with a deleted identity and a deleted API.
#[test]
fn a_key_is_found_by_whatever_a_customer_can_tell() {
    let workspace = Workspace::new();
    let (api, other) = (workspace.api(), workspace.api());
    let ada = workspace.key(
        &api,
        json!({"prefix": "prod", "name": "Billing (Crème Brûlée)", "externalId": "tenant_ada-1",
            "meta": {"contact": "Ada.Lovelace@example.com", "seats": 25, "deep": {"list": ["north-wing"]}}}),
    );
    let bob = workspace.key(&other, json!({"name": "billing of bob", "externalId": "tenant_bob"}));
    let start = workspace.get(&ada)["start"].as_str().unwrap().to_owned();
    eventually(&of(&[&ada, &bob]), || keys(&workspace, "billing"));
    for query in [
        start.as_str(),
        &start.to_uppercase(),
        &ada.id,
        &ada.id[..9],
        "creme",
        "BRÛLÉE billing",
        "\"creme brulee\"",
        "tenant_ada-1",
        "tenant_ad",
        "ada.lovelace@example.com",
        "lovelace",
        "seats 25",
        "north-wing",
        &ada.secret,
        // More of it than was kept, less than all.
        &ada.secret[..12],
    ] {
        assert_eq!(keys(&workspace, query), of(&[&ada]), "{query}");
    }
    for query in ["lovelace bob", "\"brulee creme\"", "tenant_cy", "key", "***", "\u{0}", "nothing here"] {
        assert_eq!(keys(&workspace, query), Vec::<String>::new(), "{query}");
    }
    let (rows, _) = workspace.call("keys.searchKeys", json!({"query": "lovelace"})).expect_page();
    assert_eq!(rows, [workspace.get(&ada)], "shown as getKey shows it");
    assert_eq!(ids(&workspace.all("keys.searchKeys", json!({"query": "billing", "apiId": other}), 1)), of(&[&bob]));

    workspace.update(&ada, json!({"name": "Invoices", "meta": {"contact": "ada@example.org"}}));
    assert_eq!(keys(&workspace, "creme"), Vec::<String>::new(), "what is shown is as it is now");
    eventually(&of(&[&ada]), || keys(&workspace, "invoices ada@example.org"));
    workspace.ok("identities.deleteIdentity", json!({"identity": "tenant_bob"}));
    assert_eq!(keys(&workspace, "tenant_bob"), Vec::<String>::new());
    assert_eq!(keys(&workspace, "of bob"), of(&[&bob]));
    workspace.ok("keys.deleteKey", json!({"keyId": ada.id}));
    assert_eq!(keys(&workspace, "invoices"), Vec::<String>::new());
    assert_eq!(keys(&workspace, &ada.secret), Vec::<String>::new(), "KEYS-GEN-24: nor by the whole of it");
    workspace.ok("apis.deleteApi", json!({"apiId": other}));
    assert_eq!(keys(&workspace, "of bob"), Vec::<String>::new());
}

/// EXT-16, COM-RK-09, APIS-LIST-3, APIS-LIST-4: whatever the query says, it finds keys of the caller's workspace, and of the
/// APIs whose keys it may list.
#[test]
fn no_query_reaches_what_the_caller_may_not_see() {
    let workspace = Workspace::new();
    let neighbour = workspace.neighbour();
    let (mine, hidden, theirs) = (workspace.api(), workspace.api(), neighbour.api());
    let members = json!({"prefix": "shared", "name": "shared secret name", "externalId": "shared_1"});
    let visible = workspace.key(&mine, members.clone());
    let unseen = workspace.key(&hidden, members.clone());
    let foreign = neighbour.key(&theirs, members);
    eventually(&of(&[&visible, &unseen]), || keys(&workspace, "shared"));
    eventually(&of(&[&foreign]), || keys(&neighbour, "shared"));

    let of_one = workspace.root_key(&[&format!("api.{mine}.read_key"), &format!("api.{mine}.read_api")]);
    let half = workspace.root_key(&["api.*.read_key"]);
    let none = workspace.root_key(&["api.*.create_key"]);
    let long = "shared ".repeat(140);
    let (other_id, other_key) = (foreign.id.clone(), foreign.secret.clone());
    let injected = [
        "shared",
        "*",
        "shared*",
        "~shared",
        "shared OR *",
        "workspace:*",
        "\"shared",
        "terms:shared",
        "+shared -x",
        "sh?red",
        "[a TO z]",
        "shared\u{0}",
        "\u{202e}derahs",
        "k*\u{0}\u{0}\u{0}\u{1}",
        "shared AND workspace:2",
        "(shared)",
        "\\",
        &long,
        &other_id,
        &other_key,
        &unseen.id,
        &unseen.secret,
        "{\"query\":\"shared\"}",
        "😀 shared",
        "ＳＨＡＲＥＤ",
        "%",
        "_",
    ];
    for query in injected {
        let found = |key: &str, members: Value| {
            let mut body = json!({"query": query});
            body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            ids(&workspace.call("keys.searchKeys", body).bearer(key).expect_page().0)
        };
        let seen = found(&of_one.secret, json!({}));
        assert!(seen.is_empty() || seen == of(&[&visible]), "{query}: {seen:?}");
        for id in keys(&workspace, query) {
            assert!(id == visible.id || id == unseen.id, "{query} finds {id} of another workspace");
        }
        for id in keys(&neighbour, query) {
            assert_eq!(id, foreign.id, "{query}");
        }
        for (key, code) in [(&half, "insufficient_permissions"), (&none, "insufficient_permissions")] {
            let call = workspace.call("keys.searchKeys", json!({"query": query})).bearer(&key.secret);
            call.expect_problem(403, &format!("unkey/authorization/{code}"));
        }
        for api in [&hidden, &theirs, &"api_nowhere1".to_owned()] {
            let call = workspace.call("keys.searchKeys", json!({"query": query, "apiId": api})).bearer(&of_one.secret);
            call.expect_problem(404, "unkey/data/api_not_found");
        }
        // No event of another workspace, either.
        let search: String = query.chars().take(256).collect();
        for event in workspace.all("auditLogs.queryAuditLogs", json!({"search": search}), 100) {
            assert_ne!(event["targets"][0]["id"], foreign.id.as_str(), "{query}");
        }
    }
    assert!(!workspace.server.log().contains(&foreign.secret), "a key that is searched for is in no log");
}

/// What an event says, as far as the model of the next test knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Event {
    id: String,
    time: i64,
    name: String,
    targets: Vec<String>,
    actor: String,
    text: String,
    raw: Value,
}

impl Event {
    fn of(raw: &Value) -> Event {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let targets: Vec<String> =
            raw["targets"].as_array().into_iter().flatten().map(|target| text(&target["id"])).collect();
        Event {
            id: text(&raw["event_id"]),
            time: raw["time"].as_i64().unwrap(),
            name: text(&raw["event"]),
            actor: text(&raw["actor"]["id"]),
            text: format!("{} {} {}", raw["description"], raw["actor"], raw["targets"]).to_lowercase(),
            targets,
            raw: raw.clone(),
        }
    }
}

fn events(workspace: &Workspace, body: Value, limit: u64) -> Vec<Event> {
    workspace.all("auditLogs.queryAuditLogs", body, limit).iter().map(Event::of).collect()
}

/// EXT-15, AL-EV-01, AL-EV-02, AL-EV-05, AL-STORE-01, AL-STORE-03: events come newest first, at once, by every filter the same
/// as a plain look through all of them, however many are on a page.
#[test]
fn audit_events_are_filtered_as_by_hand() {
    let workspace = Workspace::timed();
    let mut dice = Dice::new(16);
    let apis: Vec<String> = (0..3).map(|_| workspace.api()).collect();
    let noon = crate::harness::NOON;
    for number in 0..60 {
        let api = &apis[dice.below(3) as usize];
        let time = noon + 1000 * (dice.below(20) as i64);
        let members =
            json!({"apiId": api, "name": format!("key {number}"), "permissions": [format!("perm.{}", number % 7)]});
        workspace.call("keys.createKey", members).at(time).expect_ok();
    }
    let all = events(&workspace, json!({}), 100);
    assert!(all.len() > 120, "{}", all.len());
    assert!(all.is_sorted_by(|one, next| one.time >= next.time), "newest first");
    assert_eq!(all.iter().map(|event| &event.id).collect::<BTreeSet<_>>().len(), all.len(), "each once");
    let first = &all[all.len() / 2].raw;
    assert_eq!((&first["bucket"], &first["source"]), (&json!("unkey_mutations"), &json!("platform")), "AL-EV-01");
    assert!(first["event_id"].as_str().unwrap().starts_with("log_") && first.get("meta").is_none(), "AL-EV-02");
    // Events of one request stand in the order of recording, newest first (AL-EV-05).
    let created = all.iter().position(|event| event.name == "key.create").unwrap();
    let cor = &all[created].raw["correlation_id"];
    let tied = events(&workspace, json!({"correlationId": cor}), 2);
    assert_eq!(tied.first().map(|event| event.name.as_str()), Some("key.create"), "AL-EV-05: the last of its request");
    assert!(tied.len() >= 2 && tied.iter().all(|event| event.raw["correlation_id"] == *cor), "AL-STORE-03");

    let (api, key) = (apis[1].clone(), all[created].targets[0].clone());
    let actor = all[created].actor.clone();
    type Plain<'p> = (Value, Box<dyn Fn(&Event) -> bool + 'p>);
    let cases: Vec<Plain<'_>> = vec![
        (json!({"event": ["key.create"]}), Box::new(|event| event.name == "key.create")),
        (
            json!({"event": ["permission.create", "api.create", "no.such"]}),
            Box::new(|event| ["permission.create", "api.create"].contains(&&*event.name)),
        ),
        (json!({"event": []}), Box::new(|_| true)),
        (json!({"resourceId": api}), Box::new(|event| event.targets.contains(&api))),
        (json!({"resourceId": key}), Box::new(|event| event.targets.contains(&key))),
        (
            json!({"actorId": actor, "event": ["api.create"]}),
            Box::new(|event| event.name == "api.create" && event.actor == actor),
        ),
        (json!({"actorId": "key_nobody"}), Box::new(|_| false)),
        (
            json!({"start": noon + 5000, "end": noon + 9000}),
            Box::new(|event| (noon + 5000..noon + 9000).contains(&event.time)),
        ),
        (json!({"start": noon + 9000, "end": noon + 5000}), Box::new(|_| false)),
        (json!({"search": "perm.3"}), Box::new(|event| event.text.contains("perm.3"))),
        (json!({"search": &key[..10]}), Box::new(|event| event.text.contains(&key[..10].to_lowercase()))),
        (
            json!({"search": "PERM.3", "start": noon + 3000, "event": ["authorization.connect_permission_and_key"]}),
            Box::new(|event| {
                event.text.contains("perm.3")
                    && event.time >= noon + 3000
                    && event.name == "authorization.connect_permission_and_key"
            }),
        ),
        (json!({"search": "   "}), Box::new(|_| true)),
        (json!({"search": "absolutely nothing"}), Box::new(|_| false)),
    ];
    for limit in [100, 7] {
        for (body, plain) in &cases {
            let wanted: Vec<&Event> = all.iter().filter(|event| plain(event)).collect();
            let found = events(&workspace, body.clone(), limit);
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{body}, {limit} a page");
        }
    }
}

/// EXT-15, COM-PAG-02, COM-PAG-06: while events are recorded all the time, whoever walks the pages sees each event that was
/// there at the beginning once, in order; a cursor belongs to its query.
#[test]
fn pages_of_events_neither_repeat_nor_skip() {
    let workspace = Workspace::new();
    for number in 0..30 {
        workspace.ok("permissions.createPermission", json!({"name": "n", "slug": format!("before.{number}")}));
    }
    let body = json!({"event": ["permission.create"], "limit": 4});
    let before: Vec<String> = events(&workspace, body.clone(), 100).into_iter().map(|event| event.id).collect();
    assert_eq!(before.len(), 30);
    let (mut walked, mut ask, mut pages) = (Vec::new(), body.clone(), 0);
    loop {
        let (rows, cursor) = workspace.call("auditLogs.queryAuditLogs", ask.clone()).expect_page();
        walked.extend(rows.iter().map(|row| row["event_id"].as_str().unwrap().to_owned()));
        pages += 1;
        workspace.ok("permissions.createPermission", json!({"name": "n", "slug": format!("meanwhile.{pages}")}));
        match cursor {
            Some(cursor) => ask["cursor"] = cursor.into(),
            None => break,
        }
    }
    assert_eq!(walked, before, "COM-PAG-06: what comes meanwhile stands before the first page");
    let cursor = workspace.call("auditLogs.queryAuditLogs", body).expect_page().1.unwrap();
    for other in
        [json!({"cursor": cursor}), json!({"event": ["api.create"], "cursor": cursor}), json!({"cursor": "zzz"})]
    {
        let problem =
            workspace.call("auditLogs.queryAuditLogs", other).expect_problem(400, "unkey/application/invalid_input");
        assert!(problem.detail.contains("cursor"), "{}", problem.detail);
    }
}

/// What the search must find, by a plain look at every key.
#[derive(Default)]
struct Model {
    /// Live keys: name, external id, metadata text.
    keys: BTreeMap<String, [String; 3]>,
}

const NAMES: [&str; 6] = ["Alpha Team", "alpha-omega", "Ünïcode alpha", "beta_1", "Beta Two", "gamma"];
const OWNERS: [&str; 4] = ["tenant_1", "tenant_2", "cust-alpha", "cust-beta"];
const METAS: [&str; 4] = ["ada@example.com", "bob@example.com", "plan gold", "beta program"];

impl Model {
    /// The part of the rules that these texts need: words without accents; what is written together is found together; the
    /// last word may go on.
    fn find(&self, query: &str) -> Vec<String> {
        let words = |text: &str| -> Vec<String> {
            let plain = text.to_lowercase().replace('ü', "u").replace('ï', "i");
            plain
                .split(|sign: char| !sign.is_alphanumeric())
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let phrases: Vec<Vec<String>> = query.split_whitespace().map(words).collect();
        let is_in = |phrase: &[String], open: bool, text: &String| {
            words(text).windows(phrase.len()).any(|found| {
                let (last, rest) = (phrase.len() - 1, &phrase[..phrase.len() - 1]);
                found[..last] == *rest
                    && if open { found[last].starts_with(&phrase[last]) } else { found[last] == phrase[last] }
            })
        };
        let has = |texts: &[String; 3]| {
            let mut phrases = phrases.iter().enumerate();
            phrases.all(|(at, phrase)| {
                texts.iter().any(|text| is_in(phrase, at + 1 == query.split_whitespace().count(), text))
            })
        };
        self.keys.iter().filter(|(_, texts)| has(texts)).map(|(id, _)| id.clone()).collect()
    }

    fn change(&mut self, workspace: &Workspace, api: &str, dice: &mut Dice) {
        let mut pick = |from: &[&str]| from[dice.below(from.len() as u64) as usize].to_owned();
        let texts = [pick(&NAMES), pick(&OWNERS), pick(&METAS)];
        let members = json!({"name": texts[0], "externalId": texts[1], "meta": {"m": texts[2]}});
        let which = dice.below(self.keys.len().max(1) as u64) as usize;
        let one = self.keys.keys().nth(which).cloned();
        match (dice.below(10), one) {
            (0..5, _) | (_, None) => drop(self.keys.insert(workspace.key(api, members).id, texts)),
            (5..8, Some(id)) => {
                let mut members = members;
                members["keyId"] = id.as_str().into();
                workspace.ok("keys.updateKey", members);
                self.keys.insert(id, texts);
            }
            (_, Some(id)) => {
                let permanent = dice.below(2) == 0;
                workspace.ok("keys.deleteKey", json!({"keyId": id, "permanent": permanent}));
                self.keys.remove(&id);
            }
        }
    }

    fn check(&self, workspace: &Workspace) {
        for query in
            ["alpha", "team alpha", "beta", "tenant_1", "unicode", "ada@example.com", "exam", "gold plan", "cust-alph"]
        {
            eventually(&self.find(query), || keys(workspace, query));
        }
    }
}

/// EXT-16: after any creates, updates and deletes the search finds what a plain look at all keys finds; also after the process
/// was killed, in the middle of them or between them.
#[test]
fn the_index_follows_every_change_and_survives_kills() {
    let mut workspace = Workspace::on(&Arc::new(Server::start()));
    let (mut model, mut dice, api) = (Model::default(), Dice::new(3), workspace.api());
    for round in 0..6 {
        for _ in 0..25 {
            model.change(&workspace, &api, &mut dice);
        }
        if round % 2 == 1 {
            workspace.server.kill();
            let server = workspace.server.restart();
            workspace = workspace.moved(server);
        }
        model.check(&workspace);
    }
    for id in model.keys.keys() {
        let told = events(&workspace, json!({"search": id, "event": ["key.create"]}), 10);
        assert_eq!(told.len(), 1, "{id} was made once: {told:?}");
    }
}

fn index_files(server: &Server) -> Vec<std::path::PathBuf> {
    let listed = fs::read_dir(server.dir.path().join("search")).expect("the index is there");
    listed.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect()
}

/// EXT-15, EXT-16: the index is derived: deleted, damaged or of another version, under a running server or a stopped one, it
/// is made anew, and verifications go on meanwhile. What is no file of an index is left alone, whatever directory that is.
#[test]
fn a_lost_or_damaged_index_is_made_anew() {
    let mut workspace = Workspace::on(&Arc::new(Server::start()));
    let (mut model, mut dice, api) = (Model::default(), Dice::new(5), workspace.api());
    let key = workspace.key(&api, json!({"name": "kept"}));
    for _ in 0..40 {
        model.change(&workspace, &api, &mut dice);
    }
    model.check(&workspace);
    let foreign = workspace.server.dir.path().join("search").join("letters from home.txt");
    fs::write(&foreign, "precious").unwrap();
    for damage in 0..6 {
        let server = Arc::clone(&workspace.server);
        let stopped = damage % 2 == 1;
        if stopped {
            server.stop();
        }
        for file in index_files(&server) {
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = fs::read(&file).unwrap_or_default();
            if file == foreign {
                continue;
            }
            match damage / 2 {
                0 => drop(fs::remove_file(&file)),
                1 if !name.ends_with(".json") && bytes.len() > 64 => {
                    let mut bytes = bytes;
                    let middle = bytes.len() / 2;
                    bytes[middle..middle + 16].iter_mut().for_each(|byte| *byte ^= 0x5a);
                    fs::write(&file, bytes).unwrap();
                }
                2 if name == "meta.json" => {
                    let text = String::from_utf8(bytes).unwrap();
                    let other = text.replace("keyward search 2", "keyward search 0");
                    assert_ne!(text, other, "the index names its version");
                    fs::write(&file, other).unwrap();
                }
                _ => {}
            }
        }
        if stopped {
            let again = server.restart();
            workspace = workspace.moved(again);
        }
        assert_eq!(workspace.code(&key, json!({})), "VALID");
        for _ in 0..5 {
            model.change(&workspace, &api, &mut dice);
        }
        if !(damage == 2 || damage == 4) {
            // What a running server has open it may go on using; the next start finds the damage.
            model.check(&workspace);
        }
        assert_eq!(workspace.code(&key, json!({})), "VALID");
    }
    model.check(&workspace);
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "precious");
}
