//! The search index on a disk that fails and loses power: it comes back, and finds what is there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use keyward_query::search::{Events, Freshness, Keys, Options as SearchOptions, Search, Words};
use keyward_storage::disk::Disk;
use keyward_storage::disk::memory::{Call, MemoryDisk, SplitMix};
use keyward_storage::ids::{ApiId, EventId, IdText, KeyId, KeyspaceId, WorkspaceNo};
use keyward_storage::records::api::{self, ApiRow};
use keyward_storage::records::audit::{Actor, AuditEvent, Target};
use keyward_storage::records::key::{self, KeyRow};
use keyward_storage::{Abort, Options, Storage, Turn, Tx};

const DIR: &str = "/data";
/// How long a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

fn id(dice: &mut SplitMix) -> IdText {
    IdText::draw(|| dice.draw() as u8)
}

/// A store with its index, and what is in it.
struct World {
    disk: MemoryDisk,
    storage: Storage,
    search: Search,
    model: Model,
}

#[derive(Default, Clone)]
struct Model {
    /// Live keys of each workspace, with their names.
    keys: BTreeMap<(u32, KeyId), String>,
    /// How many events each workspace has.
    events: BTreeMap<u32, usize>,
}

fn dir() -> std::path::PathBuf {
    Path::new(DIR).join("search")
}

impl World {
    fn open(disk: MemoryDisk, model: Model) -> World {
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let fatal = Arc::new(|error: &keyward_storage::Fatal| panic!("the store gave up: {error:?}"));
        let options = Options {
            expected_reader: Search::position(&shared, &dir()),
            segment_bytes: 4096,
            min_free_bytes: 0,
            ..Options::new(DIR, Arc::clone(&shared), Arc::new(|| 1_000_000), [7; 32], fatal)
        };
        let storage = Storage::open(options).expect("the store opens");
        let source = storage.source();
        let search =
            Search::start(SearchOptions { dir: dir(), disk: shared, source, min_free_bytes: 0 }).expect("a thread");
        World { disk, storage, search, model }
    }

    fn transact(&self, run: impl FnOnce(&mut Tx<'_>) + Send + 'static) {
        let (tell, told) = mpsc::channel();
        self.storage.transact(
            Turn::FIRST,
            1,
            move |tx| -> Result<(), Abort<std::convert::Infallible>> {
                run(tx);
                Ok(())
            },
            move |fate| {
                let _ = tell.send(fate.is_ok());
            },
        );
        assert!(told.recv().expect("an answer"), "the transaction is applied");
    }

    /// Makes, renames and deletes keys in two workspaces, an event for each.
    fn change(&mut self, dice: &mut SplitMix, times: usize) {
        let names = ["alpha one", "alpha two", "beta one", "Gamma-alpha"];
        for _ in 0..times {
            let no = 1 + dice.below(2) as u32;
            let name = names[dice.below(4) as usize].to_owned();
            let live: Vec<KeyId> = self.model.keys.keys().filter(|(of, _)| *of == no).map(|(_, id)| *id).collect();
            let api = ApiId(IdText::from_bytes([b'a' + no as u8; 16]).expect("letters"));
            let old = (!live.is_empty() && dice.below(3) > 0).then(|| live[dice.below(live.len() as u64) as usize]);
            let delete = old.is_some() && dice.below(3) == 0;
            let (key_id, event_id, hash) =
                (old.unwrap_or_else(|| KeyId(id(dice))), EventId(id(dice)), [dice.draw() as u8; 32]);
            let is_new = old.is_none();
            match delete {
                true => drop(self.model.keys.remove(&(no, key_id))),
                false => drop(self.model.keys.insert((no, key_id), name.clone())),
            }
            let count = self.model.events.entry(no).or_default();
            *count += 1;
            let event = an_event(event_id, *count as u64, key_id);
            let mut unique = hash;
            unique[..16].copy_from_slice(key_id.as_bytes());
            self.transact(move |tx| {
                let workspace = WorkspaceNo(no);
                api::put(tx, workspace, api, &an_api());
                let row = KeyRow { hash: unique, name: Some(name), ..a_key(api) };
                let row = match key::get(tx, workspace, key_id).expect("readable") {
                    Some(old) => KeyRow { name: row.name.clone(), ..old },
                    None => row,
                };
                match (is_new, delete) {
                    (true, _) => key::insert(tx, workspace, key_id, &row).expect("readable"),
                    (_, true) => key::soft_delete(tx, workspace, key_id, &row, 5),
                    _ => key::update(tx, workspace, key_id, &row),
                }
                tx.audit(workspace, event);
            });
        }
    }

    fn found(&self, no: u32, query: &str) -> Option<Vec<KeyId>> {
        let ask =
            Keys { workspace: WorkspaceNo(no), apis: None, words: Words::new(query), from: Vec::new(), most: 1000 };
        let snapshot = self.storage.snapshot().expect("a snapshot");
        let found = self.search.keys(&snapshot, &ask).ok()?;
        assert_eq!(found.next, None);
        Some(found.rows)
    }

    /// Waits until the index has everything and finds exactly what is there.
    fn check(&self) {
        let until = Instant::now() + PATIENCE;
        let has = |name: &str, query: &str| name.to_lowercase().split([' ', '-']).any(|word| word.starts_with(query));
        for no in [1, 2] {
            for query in ["alpha", "beta", "gam", "nothing"] {
                let of = self.model.keys.iter().filter(|((of, _), name)| *of == no && has(name, query));
                let wanted: Vec<KeyId> = of.map(|((_, id), _)| *id).collect();
                loop {
                    let stats = self.search.stats();
                    let found = self.found(no, query);
                    let current =
                        stats.freshness == Freshness::Current && stats.position == self.storage.stats().position;
                    if current && found.as_ref() == Some(&wanted) {
                        break;
                    }
                    assert!(Instant::now() < until, "{query}: {found:?}, wanted {wanted:?}; {stats:?}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let ask = Events { words: Some(Words::new("something happened")), most: 1000, ..Events::default() };
            let snapshot = self.storage.snapshot().expect("a snapshot");
            let found = self.search.events(&snapshot, WorkspaceNo(no), &ask).expect("answered");
            let sequences: Vec<u64> = found.rows.iter().map(|(sequence, _)| *sequence).collect();
            let last = self.model.events.get(&no).copied().unwrap_or(0) as u64;
            assert_eq!(sequences, (1..=last).rev().collect::<Vec<_>>(), "each event once, newest first");
        }
    }

    /// Ends everything in order.
    fn close(self) -> (MemoryDisk, Model) {
        self.search.stop();
        self.storage.stop();
        (self.disk, self.model)
    }
}

fn an_event(id: EventId, time: u64, key: KeyId) -> AuditEvent {
    AuditEvent {
        id,
        time,
        event: "key.update".into(),
        description: "Something happened".into(),
        actor: Actor { kind: "system".into(), id: "test".into(), name: "test".into() },
        remote_ip: None,
        user_agent: None,
        targets: vec![Target { kind: "key".into(), id: key.to_string(), name: String::new(), meta: None }],
        correlation: None,
    }
}

fn an_api() -> ApiRow {
    ApiRow {
        keyspace: KeyspaceId(IdText::from_bytes([b'k'; 16]).expect("letters")),
        name: "an api".into(),
        created_at: 1,
        deleted_at: None,
        default_prefix: None,
        default_bytes: None,
        store_encrypted_keys: false,
        delete_protection: false,
        ip_whitelist: Vec::new(),
    }
}

fn a_key(api: ApiId) -> KeyRow {
    KeyRow {
        hash: [0; 32],
        api,
        start: "prod_4fKx".into(),
        name: None,
        meta: None,
        identity: None,
        expires: None,
        enabled: true,
        limited: false,
        refill: None,
        ratelimits: Vec::new(),
        permissions: Vec::new(),
        roles: Vec::new(),
        created_at: 1,
        updated_at: None,
        deleted_at: None,
    }
}

/// EXT-15, EXT-16: after a stop, a kill or a loss of power at any moment the next start finds exactly what is there: the index
/// goes on from where it stood, or is made anew.
#[test]
fn the_index_comes_back_after_a_loss_of_power() {
    let mut dice = SplitMix(21);
    let mut world = World::open(MemoryDisk::new(), Model::default());
    for round in 0..9 {
        world.change(&mut dice, 30);
        if round % 2 == 0 {
            world.check();
        }
        let (disk, model) = match round % 3 {
            0 => world.close(),
            1 => (world.disk.kill(), world.model.clone()),
            // What was not synced may be lost, in any order: of the index, anything.
            _ => (world.disk.crash(round), world.model.clone()),
        };
        world = World::open(disk, model);
        world.check();
    }
}

/// EXT-15: whatever the disk does to the index, nothing else stops, and the index comes back when the disk does.
#[test]
fn a_failing_disk_costs_searches_only() {
    let mut dice = SplitMix(22);
    let mut world = World::open(MemoryDisk::new(), Model::default());
    world.change(&mut dice, 20);
    world.check();
    for (call, kind) in
        [(Call::Write, ErrorKind::StorageFull), (Call::Write, ErrorKind::Other), (Call::Read, ErrorKind::Other)]
    {
        world.disk.fail_below(dir(), call, 1, kind);
        world.change(&mut dice, 20);
        let until = Instant::now() + PATIENCE;
        while !world.search.stats().failing && world.search.stats().position < world.storage.stats().position {
            assert!(Instant::now() < until, "it fails, or it did not need that");
            std::thread::sleep(Duration::from_millis(5));
        }
        world.change(&mut dice, 5);
        world.disk.forgive();
        world.check();
    }
    // Files that are cut or overwritten under its feet.
    let names = world.disk.list(&dir()).expect("listed");
    for name in names {
        let file = world.disk.open(&dir().join(name), false).expect("it is there");
        let length = file.len().expect("a length");
        file.write_all_at(length / 3, &[0x5a; 40]).expect("written");
    }
    let (disk, model) = world.close();
    let world = World::open(disk, model);
    world.check();
}
