//! What is acknowledged stays, whatever happens to the process; what is not is there wholly or not at all.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::program::DataDir;
use crate::harness::{Ask, Connection, Dice, Key, Options, Server, Workspace, keyward};

/// Clients that write at the same time.
const CLIENTS: usize = 8;
/// How often the process is killed, unless `KEYWARD_SOAK_ROUNDS` says otherwise.
const ROUNDS: usize = 100;
/// Keys of earlier rounds that a client looks at again after each restart.
const LOOKED_AT_AGAIN: usize = 4;

/// What one client knows of one key.
struct Known {
    secret: String,
    /// Every member that an update sets is derived from this number; `None` once the key is deleted.
    version: Option<u64>,
    /// The balance lies between these. They differ only where a crash may have given spent credits back.
    fewest: i64,
    most: i64,
}

/// A request that was sent and not answered.
enum Doubt {
    None,
    Update(String, u64),
    Delete(String),
    Set(String, i64),
    Increase(String, i64),
    Spend(String),
}

/// One client: its keys, and what it does not know.
struct Client {
    number: u64,
    dice: Dice,
    keys: HashMap<String, Known>,
    touched: BTreeSet<String>,
    doubt: Doubt,
    made: u64,
    acknowledged: usize,
}

/// All members that belong together in one version of a key.
fn version_members(client: u64, version: u64) -> Value {
    json!({
        "name": format!("client {client} version {version}"),
        "meta": {"version": version},
        "externalId": format!("owner_{client}_{version}"),
        "permissions": [format!("client.{client}"), format!("version.{version}")],
        "ratelimits": [{"name": format!("v{version}"), "limit": 5, "duration": 60_000, "autoApply": false}],
    })
}

/// Panics unless all members of a key object are of one version; that version.
fn version_of(client: u64, got: &Value) -> u64 {
    let version = got["meta"]["version"].as_u64().unwrap_or_else(|| panic!("half a key: {got}"));
    let wanted = version_members(client, version);
    assert_eq!(got["name"], wanted["name"], "half applied: {got}");
    assert_eq!(got["identity"]["externalId"], wanted["externalId"], "half applied: {got}");
    assert_eq!(got["permissions"], wanted["permissions"], "half applied: {got}");
    assert_eq!(got["ratelimits"].as_array().map(Vec::len), Some(1), "half applied: {got}");
    assert_eq!(got["ratelimits"][0]["name"], wanted["ratelimits"][0]["name"], "half applied: {got}");
    version
}

/// A connection with a root key. Unlike the pooled client it never sends anything twice.
struct Line {
    connection: Connection,
    root: String,
}

impl Line {
    fn open(server: &Server) -> io::Result<Line> {
        Ok(Line { connection: Connection::open(server.addr)?, root: server.root_key() })
    }

    /// The data of an answer, `None` for a 404; an error is a request in doubt. Anything else is a failed test.
    fn call(&mut self, operation: &str, body: &Value) -> io::Result<Option<Value>> {
        let ask = Ask::new("POST", &format!("/v2/{operation}"))
            .header("Content-Type", "application/json")
            .header("Authorization", &format!("Bearer {}", self.root))
            .body(body.to_string());
        let reply = self.connection.exchange(&ask)?;
        match reply.status {
            200 => Ok(Some(reply.json["data"].clone())),
            404 => Ok(None),
            _ => panic!("{operation} {body}: {} {}", reply.status, reply.text()),
        }
    }
}

impl Client {
    fn new(number: usize) -> Client {
        let number = number as u64;
        let dice = Dice::new(0x6b65_7977 + number);
        let (keys, touched) = (HashMap::new(), BTreeSet::new());
        Client { number, dice, keys, touched, doubt: Doubt::None, made: 0, acknowledged: 0 }
    }

    /// Compares a key with what is known of it, and learns what was in doubt.
    fn look(&mut self, line: &mut Line, id: &str) -> io::Result<()> {
        let got = line.call("keys.getKey", &json!({"keyId": id}))?;
        let known = self.keys.get_mut(id).unwrap();
        let Some(got) = got else {
            let excused = matches!(&self.doubt, Doubt::Delete(doubtful) if doubtful == id);
            assert!(known.version.is_none() || excused, "an acknowledged key is lost: {id}");
            known.version = None;
            let verified = line.call("keys.verifyKey", &json!({"key": known.secret}))?.unwrap();
            assert_eq!(verified, json!({"valid": false, "code": "NOT_FOUND"}));
            return Ok(());
        };
        let version = known.version.unwrap_or_else(|| panic!("an acknowledged delete is undone: {got}"));
        let found = version_of(self.number, &got);
        let excused = matches!(&self.doubt, Doubt::Update(doubtful, newer) if doubtful == id && *newer == found);
        assert!(found == version || excused, "version {version} was acknowledged, version {found} is there: {got}");
        known.version = Some(found);
        let left = got["credits"]["remaining"].as_i64().unwrap_or_else(|| panic!("half a key: {got}"));
        let excused = match &self.doubt {
            Doubt::Set(doubtful, value) => doubtful == id && left == *value,
            Doubt::Increase(doubtful, value) => {
                doubtful == id && (known.fewest + value..=known.most + value).contains(&left)
            }
            Doubt::Spend(doubtful) => doubtful == id && left == known.fewest - 1,
            _ => false,
        };
        let (fewest, most) = (known.fewest, known.most);
        assert!(excused || (fewest..=most).contains(&left), "{left} credits where {fewest} to {most} must be: {got}");
        (known.fewest, known.most) = (left, left);
        Ok(())
    }

    /// Looks at every key it touched since the last look, and at a few others.
    fn look_around(&mut self, line: &mut Line) -> io::Result<()> {
        let mut ids = std::mem::take(&mut self.touched);
        for _ in 0..LOOKED_AT_AGAIN {
            ids.extend(self.any_key());
        }
        for id in ids {
            self.look(line, &id)?;
        }
        self.doubt = Doubt::None;
        Ok(())
    }

    fn any_key(&mut self) -> Option<String> {
        let skip = usize::try_from(self.dice.below(self.keys.len().max(1) as u64)).unwrap();
        self.keys.keys().nth(skip).cloned()
    }

    /// Writes until the connection breaks.
    fn write(&mut self, line: &mut Line, api: &str) {
        while self.step(line, api).is_ok() {
            self.doubt = Doubt::None;
            self.acknowledged += 1;
        }
    }

    fn step(&mut self, line: &mut Line, api: &str) -> io::Result<()> {
        let choice = self.dice.below(100);
        let living = self.touched.iter().rev().find(|id| self.keys[*id].version.is_some()).cloned();
        let (Some(id), 30..) = (living, choice) else {
            return self.create(line, api);
        };
        let known = self.keys.get_mut(&id).unwrap();
        match choice {
            30..55 => {
                let newer = known.version.unwrap() + 1;
                let mut body = version_members(self.number, newer);
                body["keyId"] = id.as_str().into();
                self.doubt = Doubt::Update(id, newer);
                line.call("keys.updateKey", &body)?.expect("the key is there");
                known.version = Some(newer);
            }
            55..65 => {
                let value = i64::try_from(choice).unwrap() * 10;
                self.doubt = Doubt::Set(id.clone(), value);
                line.call("keys.updateCredits", &json!({"keyId": id, "operation": "set", "value": value}))?.unwrap();
                (known.fewest, known.most) = (value, value);
            }
            65..75 => {
                self.doubt = Doubt::Increase(id.clone(), 5);
                line.call("keys.updateCredits", &json!({"keyId": id, "operation": "increment", "value": 5}))?.unwrap();
                (known.fewest, known.most) = (known.fewest + 5, known.most + 5);
            }
            75..90 => {
                self.doubt = Doubt::Spend(id);
                let data = line.call("keys.verifyKey", &json!({"key": known.secret}))?.unwrap();
                if data["valid"] == true {
                    known.fewest -= 1;
                }
            }
            _ => {
                self.doubt = Doubt::Delete(id.clone());
                line.call("keys.deleteKey", &json!({"keyId": id, "permanent": choice.is_multiple_of(2)}))?
                    .expect("the key is there");
                known.version = None;
            }
        }
        Ok(())
    }

    fn create(&mut self, line: &mut Line, api: &str) -> io::Result<()> {
        self.made += 1;
        let version = self.made * 1_000_000;
        let mut body = version_members(self.number, version);
        body["apiId"] = api.into();
        body["credits"] = json!({"remaining": 100});
        self.doubt = Doubt::None;
        let data = line.call("keys.createKey", &body)?.expect("the api is there");
        let (id, secret) = (data["keyId"].as_str().unwrap().to_owned(), data["key"].as_str().unwrap().to_owned());
        self.keys.insert(id.clone(), Known { secret, version: Some(version), fewest: 100, most: 100 });
        self.touched.insert(id);
        Ok(())
    }
}

/// Settings for one life of the process: in half of them it checkpoints all the time, so that it is also killed while it
/// does. `KEYWARD_SOAK_SETTINGS` (NAME=VALUE, separated by commas) adds to them.
fn some_options(dice: &mut Dice) -> Options {
    let mut options = Options::default();
    if dice.below(2) == 0 {
        options = options.setting("KEYWARD_STORAGE_CHECKPOINT_INTERVAL_MS", 100);
        options = options.setting("KEYWARD_STORAGE_CHECKPOINT_BYTES", 1 << 20);
    }
    let more = std::env::var("KEYWARD_SOAK_SETTINGS").unwrap_or_default();
    for (name, value) in more.split(',').filter_map(|setting| setting.split_once('=')) {
        options = options.setting(name, value);
    }
    options
}

/// Killed at random moments under concurrent writes, a hundred times on one directory: after each restart everything that
/// was acknowledged is there, what was in doubt is there wholly or not at all, nothing deleted comes back, and spent credits
/// are never charged twice. Some starts are killed too.
/// COM-CON-01, COM-CON-02, KEYS-GEN-35, KEYS-CREDIT-4, KEYS-OBJ-6, COM-CODE-02
#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let rounds =
        std::env::var("KEYWARD_SOAK_ROUNDS").ok().map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    let dir = DataDir::fresh();
    let mut dice = Dice::new(0x6b69_6c6c);
    let mut clients: Vec<Client> = (0..CLIENTS).map(Client::new).collect();
    let mut api = String::new();
    let mut starts = Vec::new();
    for round in 0..=rounds {
        let options = some_options(&mut dice);
        let server = Server::start_with(dir.clone(), options.clone());
        starts.push(server.started_in);
        if round == 0 {
            let mut line = Line::open(&server).unwrap();
            let made = line.call("apis.createApi", &json!({"name": "durable"})).unwrap().unwrap();
            api = made["apiId"].as_str().unwrap().to_owned();
        }
        let last = round == rounds;
        let ready = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let (server, api, ready) = (&server, &api, &ready);
            let threads: Vec<_> = clients
                .iter_mut()
                .map(|client| {
                    scope.spawn(move || {
                        let mut line = Line::open(server).expect("the server takes connections");
                        if last {
                            client.touched = client.keys.keys().cloned().collect();
                        }
                        client.look_around(&mut line).expect("the server answers");
                        ready.fetch_add(1, Ordering::SeqCst);
                        if !last {
                            client.write(&mut line, api);
                        }
                    })
                })
                .collect();
            while ready.load(Ordering::SeqCst) < CLIENTS && !threads.iter().any(|thread| thread.is_finished()) {
                std::thread::sleep(Duration::from_millis(1));
            }
            if !last {
                std::thread::sleep(Duration::from_micros(50_000 + dice.below(100_000)));
                server.kill();
            }
        });
        if dice.below(5) == 0 {
            server.kill();
            Server::start_and_kill(&dir, &options, Duration::from_micros(dice.below(60_000)));
        }
    }
    starts.sort();
    let acknowledged: usize = clients.iter().map(|client| client.acknowledged).sum();
    let living = clients.iter().flat_map(|client| client.keys.values()).filter(|known| known.version.is_some()).count();
    println!(
        "kill -9: {rounds} rounds, {acknowledged} acknowledged writes, {living} living keys; restart until ready: least {:?}, \
         median {:?}, most {:?}",
        starts[0],
        starts[starts.len() / 2],
        starts[starts.len() - 1]
    );
    assert!(acknowledged > rounds * CLIENTS, "too little was written for the test to mean anything: {acknowledged}");
}

/// A first start that is killed anywhere leaves a directory that starts, with a root key that works. EXT-1
#[test]
fn a_first_start_killed_anywhere_can_be_repeated() {
    let mut dice = Dice::new(0x6669_7273);
    for generated in [true, false].repeat(15) {
        let dir = DataDir::fresh();
        let root_key = (!generated).then(|| "a root key of the operator's choice".to_owned());
        let options = Options { root_key, ..Options::default() };
        for _ in 0..=dice.below(2) {
            Server::start_and_kill(&dir, &options, Duration::from_micros(dice.below(40_000)));
        }
        let server = Server::start_with(dir, options);
        server.call("apis.createApi", json!({"name": "made at last"})).bearer(&server.root_key()).expect_ok();
    }
}

/// What was spent or counted a few seconds before a crash is not forgotten. KEYS-CREDIT-4, RL-CON-04, KEYS-ANALYTICS-5
#[test]
fn only_the_last_moment_is_forgotten_in_a_crash() {
    let server = Arc::new(Server::start());
    let workspace = Workspace::on(&server);
    let api = workspace.api();
    let key = workspace.key(&api, json!({"credits": {"remaining": 1000}}));
    let count = || json!({"namespace": "n", "identifier": "i", "limit": 100, "duration": 2_592_000_000_i64});
    for _ in 0..30 {
        workspace.verify(&key, json!({"credits": {"cost": 3}}));
        workspace.ok("ratelimit.limit", count());
    }
    std::thread::sleep(Duration::from_secs(4));
    server.kill();
    let workspace = workspace.moved(server.restart());
    assert_eq!(workspace.get(&key)["credits"]["remaining"], 910);
    assert!(workspace.get(&key)["lastUsedAt"].is_i64(), "KEYS-ANALYTICS-5: the events' journal knows it");
    assert_eq!(workspace.ok("ratelimit.limit", count())["remaining"], 69);
}

/// SIGTERM under load: every answer that came is kept to, exactly; the process ends by itself with 0.
/// COM-RT-10, KEYS-CREDIT-4, RL-CON-04, KEYS-ANALYTICS-5, COM-SYS-04
#[test]
fn a_graceful_stop_loses_nothing() {
    let server = Arc::new(Server::start());
    let workspace = Arc::new(Workspace::on(&server));
    let api = workspace.api();
    let spent = workspace.key(&api, json!({"credits": {"remaining": 1_000_000}}));
    let root = workspace.root.clone();
    let threads: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (server, spent, api, root) = (Arc::clone(&server), spent.clone(), api.clone(), root.clone());
            std::thread::spawn(move || {
                let mut line = Line { connection: Connection::open(server.addr).unwrap(), root };
                let (mut keys, mut spends) = (Vec::new(), 0);
                loop {
                    if n % 2 == 0 {
                        match line.call("keys.createKey", &json!({"apiId": api})) {
                            Ok(data) => keys.push(crate::harness::world::minted(&data.unwrap())),
                            Err(_) => return (keys, spends),
                        }
                    } else {
                        match line.call("keys.verifyKey", &json!({"key": spent.secret})) {
                            Ok(data) => spends += i64::from(data.unwrap()["valid"] == true),
                            Err(_) => return (keys, spends),
                        }
                    }
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.stop(), Some(0), "COM-RT-10");
    let (mut keys, mut spends): (Vec<Key>, i64) = (Vec::new(), 0);
    for thread in threads {
        let (made, spent) = thread.join().unwrap();
        keys.extend(made);
        spends += spent;
    }
    let workspace = workspace.moved(server.restart());
    assert!(!keys.is_empty() && spends > 0);
    for key in &keys {
        assert_eq!(workspace.code(key, json!({})), "VALID");
    }
    let got = workspace.get(&spent);
    let left = got["credits"]["remaining"].as_i64().unwrap();
    assert_eq!(left, 1_000_000 - spends, "COM-RT-10: what ran was finished and answered");
    assert!(got["lastUsedAt"].is_i64(), "KEYS-ANALYTICS-5: {got}");
}

/// A request that was under way when the process was asked to end is finished and answered. COM-RT-10
#[test]
fn a_request_under_way_is_finished_by_a_stop() {
    let server = Arc::new(Server::start());
    let workspace = Workspace::on(&server);
    let body = json!({"name": "under way"}).to_string();
    let ask = workspace.call("apis.createApi", json!({})).raw(body.clone()).ask().clone();
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
        ask.target,
        workspace.root,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&body.as_bytes()[..5]).unwrap();
    // The server has to have begun with the request before it is asked to end.
    std::thread::sleep(Duration::from_millis(300));
    server.terminate();
    std::thread::sleep(Duration::from_millis(300));
    assert!(server.running(), "it ended with a request under way");
    stream.write_all(&body.as_bytes()[5..]).unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert_eq!(server.wait(), Some(0));
    let id = said.split("\"apiId\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an api id").to_owned();
    let workspace = workspace.moved(server.restart());
    assert_eq!(workspace.ok("apis.getApi", json!({"apiId": id}))["name"], "under way");
}

/// One directory, one server: the second says so and leaves the first alone. EXT-1
#[test]
fn a_second_server_on_the_directory_is_refused() {
    let workspace = Workspace::new();
    let begun = Instant::now();
    let refused = keyward(&["serve", "--data-dir", workspace.server.dir.text(), "--listen", "127.0.0.1:0"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let said = refused.stderr.to_lowercase();
    assert!(
        ["in use", "already", "another", "locked"].iter().any(|word| said.contains(word)),
        "not readable: {}",
        refused.stderr
    );
    assert!(said.contains(&workspace.server.dir.text().to_lowercase()), "which directory? {}", refused.stderr);
    assert!(!said.contains("panicked"), "{}", refused.stderr);
    println!("a second server was refused after {:?}", begun.elapsed());
    workspace.api();
    workspace.server.operate(&["workspace", "list"]).json();
}
