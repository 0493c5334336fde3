//! The switch on a store in memory: cut off wherever it can be, and under load.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use keyward_storage::disk::MemoryDisk;
use keyward_storage::ids::{ApiId, KeyId, MigrationId, WorkspaceId, WorkspaceNo};
use keyward_storage::records::api::{self, ApiRow};
use keyward_storage::records::audit::{self, OPERATOR};
use keyward_storage::records::key::{self, KeyDigest, KeyRow};
use keyward_storage::records::migration::{self, Algorithm};
use keyward_storage::records::pepper as rows;
use keyward_storage::records::root_key::{self, RootKeyRow};
use keyward_storage::{Abort, Change, Lookup, OpenError, ReadError, Spent, Storage, Turn, Tx};

use super::switch::{NotSwitched, Progress, disclose, switch};
use super::*;
use crate::app::{Services, open_storage};
use crate::config::{Secret, Settings};
use crate::outside::{Clock, Outside};
use crate::tenants::{self, By, draw_id};
use crate::vault::Vault;

const NOW: u64 = 1_795_256_643_000;
const ONE: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const TWO: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";
const CREDITS: u64 = 1000;

fn try_open(disk: MemoryDisk, peppers: &str) -> Result<Services, OpenError> {
    let pepper = (!peppers.is_empty()).then(|| Secret::new(peppers));
    let secrets = SecretSources { pepper, ..SecretSources::default() };
    let settings = Settings { data_dir: Path::new("/data").to_owned(), ..Settings::default() };
    // The system's randomness: a seed would give ids again that an earlier life of the store has drawn.
    let outside = Outside { clock: Clock::fixed(NOW), entropy: Entropy::system() };
    let configured = Configured::open(&secrets, &settings.data_dir).expect("legal");
    let storage = open_storage(&settings, Arc::new(disk), &outside, &configured)?;
    let services = Services::of_records(storage, outside, Arc::new(Vault::open(&secrets, &settings.data_dir).unwrap()));
    Ok(Services { peppers: configured, ..services })
}

fn open(disk: MemoryDisk, peppers: &str) -> Services {
    try_open(disk, peppers).expect("opened")
}

fn by(services: &Services) -> By {
    By::new(tenants::system_actor("uid:1000", "ada"), NOW, &services.outside.entropy)
}

fn transact<R: Send + 'static>(
    services: &Services,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, ReadError> + Send + 'static,
) -> R {
    let run = move |tx: &mut Tx<'_>| run(tx).map_err(Abort::<std::convert::Infallible>::Read);
    services.transact_blocking(Turn::FIRST, NOW, run).expect("taken").value
}

fn never(_: &Progress) -> io::Result<()> {
    Ok(())
}

/// What is presented, and whose it is.
#[derive(Clone, Default)]
struct Keys {
    /// Keys that are found, with what they are found by.
    live: Vec<(WorkspaceNo, KeyDigest, KeyId)>,
    /// Aliases, which lead to a key's row and to no view.
    aliases: Vec<(WorkspaceNo, KeyDigest, KeyId)>,
    root_keys: Vec<(KeyDigest, KeyId)>,
    /// Credits by key, exactly.
    credits: BTreeMap<KeyId, u64>,
}

fn digest_of(text: &str) -> KeyDigest {
    crate::secret::digest(text)
}

fn key_row(hash: key::KeyHash, api: ApiId) -> KeyRow {
    KeyRow {
        hash,
        api,
        start: String::new(),
        name: None,
        meta: None,
        identity: None,
        expires: None,
        enabled: true,
        limited: true,
        refill: None,
        ratelimits: Vec::new(),
        permissions: Vec::new(),
        roles: Vec::new(),
        created_at: NOW,
        updated_at: None,
        deleted_at: None,
    }
}

fn new_key(services: &Services, no: WorkspaceNo, api: ApiId, digest: KeyDigest) -> KeyId {
    let id = KeyId(draw_id(&services.outside.entropy));
    transact(services, move |tx| {
        let row = key_row(tx.hash(&digest)?, api);
        key::insert(tx, no, id, &row)?;
        tx.change_credits(no, id, &row, Change::Set(CREDITS), None)?.expect("few");
        Ok(())
    });
    id
}

fn new_workspace(services: &Services) -> (WorkspaceNo, ApiId) {
    let (id, api, by) =
        (WorkspaceId(draw_id(&services.outside.entropy)), ApiId(draw_id(&services.outside.entropy)), by(services));
    let keyspace = keyward_storage::ids::KeyspaceId(draw_id(&services.outside.entropy));
    let no = transact(services, move |tx| {
        let no = tenants::create_workspace(tx, id, "a workspace", None, &by)?;
        let row = ApiRow {
            keyspace,
            name: "an api".to_owned(),
            created_at: NOW,
            deleted_at: None,
            default_prefix: None,
            default_bytes: None,
            store_encrypted_keys: false,
            delete_protection: false,
            ip_whitelist: Vec::new(),
        };
        api::put(tx, no, api, &row);
        Ok(no)
    });
    (no, api)
}

/// Two workspaces with all that has a hash: keys, soft-deleted ones, pending and adopted migrated ones, root keys, revoked ones.
fn fill(services: &Services) -> Keys {
    let mut keys = Keys::default();
    for workspace in 0..2 {
        let (no, api) = new_workspace(services);
        for n in 0..20 {
            let digest = digest_of(&format!("key {n} of {workspace}"));
            let id = new_key(services, no, api, digest);
            keys.live.push((no, digest, id));
            keys.credits.insert(id, CREDITS);
        }
        let soft = keys.live.pop().expect("twenty").2;
        keys.credits.remove(&soft);
        let entropy = services.outside.entropy.clone();
        let (by, migration) = (by(services), MigrationId(draw_id(&entropy)));
        let made = transact(services, move |tx| {
            let row = key::get(tx, no, soft)?.expect("there");
            key::soft_delete(tx, no, soft, &row, NOW);
            let mut made = Vec::new();
            for adopted in [false, true] {
                let foreign = migration::foreign_hash(Algorithm::PrefixedApiKey, &format!("{workspace} {adopted}"));
                let native = digest_of(&format!("{workspace} {adopted}"));
                let id = KeyId(draw_id(&entropy));
                let mut row = key_row(tx.hash(&foreign)?, api);
                row.limited = false;
                migration::insert_pending(tx, no, id, &row, migration)?;
                if adopted {
                    let came = migration::of_key(tx, no, id)?.expect("there");
                    let row = KeyRow { hash: tx.hash(&native)?, ..row };
                    migration::adopt(tx, no, id, &row, &came)?;
                }
                made.push((id, foreign, native, adopted));
            }
            let mut root_keys = Vec::new();
            for revoked in [false, true] {
                let secret = format!("a root key of workspace {workspace}, {revoked}");
                let key = tenants::NewRootKey::chosen(&secret, None, Vec::new(), &entropy);
                let (id, digest) = (key.id, key.minted.digest);
                tenants::create_root_key(tx, no, key, &by)?;
                let row = root_key::get(tx, id)?.expect("there");
                if revoked {
                    tenants::revoke_root_key(tx, id, &row, &by)?;
                } else {
                    root_keys.push((digest, id));
                }
            }
            Ok((made, root_keys))
        });
        for (id, foreign, native, adopted) in made.0 {
            keys.aliases.push((no, foreign, id));
            keys.live.push((no, if adopted { native } else { foreign }, id));
        }
        keys.root_keys.extend(made.1);
    }
    keys
}

fn look_up(storage: &Storage, no: WorkspaceNo, digest: &KeyDigest) -> Option<Arc<key::KeyView>> {
    match storage.key(no, digest) {
        Lookup::Hot(view) => Some(view),
        Lookup::Absent => None,
        Lookup::Unknown => storage.read_key(no, digest).expect("readable"),
    }
}

fn spend(storage: &Storage, no: WorkspaceNo, digest: &KeyDigest, cost: u64) -> Option<u64> {
    loop {
        let view = look_up(storage, no, digest)?;
        match storage.spend(&view, cost) {
            Spent::Taken(left) => return Some(left),
            Spent::LookAgain => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Every key is found by what is presented for it and has its credits; what never was a key is not.
fn all_are_found(services: &Services, keys: &Keys) {
    let storage = &services.storage;
    let snapshot = storage.snapshot().expect("readable");
    for (no, digest, id) in &keys.live {
        let view = look_up(storage, *no, digest).unwrap_or_else(|| panic!("{id} is lost"));
        assert_eq!(view.id, *id);
        assert_eq!(key::find(&snapshot, *no, digest).expect("readable"), Some(*id));
        if let Some(credits) = keys.credits.get(id) {
            assert_eq!(view.counters.balance(), *credits, "credits of {id}");
        }
        let row = key::get(&snapshot, *no, *id).expect("readable").expect("there");
        assert!(storage.peek_key(*no, &row.hash).is_some_and(|view| view.id == *id), "listings see it hot");
    }
    for (no, digest, id) in &keys.aliases {
        assert!(!storage.knows_absent(*no, digest));
        assert_eq!(key::find(&snapshot, *no, digest).expect("readable"), Some(*id), "an alias");
    }
    for (digest, id) in &keys.root_keys {
        let view = match storage.root_key(digest) {
            Lookup::Hot(view) => view,
            _ => storage.read_root_key(digest).expect("readable").expect("a root key is lost"),
        };
        assert_eq!(view.id, *id);
    }
    let nobody = digest_of("nobody's");
    let no = keys.live[0].0;
    assert!(look_up(storage, no, &nobody).is_none() && storage.read_root_key(&nobody).expect("readable").is_none());
}

fn census(services: &Services) -> rows::Census {
    rows::census(&services.storage.snapshot().expect("readable")).expect("readable")
}

fn events(services: &Services, name: &str) -> usize {
    let snapshot = services.storage.snapshot().expect("readable");
    let events = audit::list(&snapshot, OPERATOR, 0, usize::MAX).expect("readable");
    events.iter().filter(|(_, row)| row.event.event == name).count()
}

/// A switch that is killed after any of its transactions leaves every key found with its credits, takes new keys, spends and
/// changes, and goes on where it was; then the pepper is exchanged in the same way, and the new one alone opens the store.
#[test]
fn a_switch_that_is_killed_anywhere_goes_on() {
    let plain = MemoryDisk::new();
    let services = open(plain.clone(), "");
    let keys = fill(&services);
    services.shutdown();
    drop(services);
    let (disk, keys) = killed_anywhere(plain, keys, ONE, "", 1);
    let (disk, keys) = killed_anywhere(disk, keys, &format!("{TWO},{ONE}"), ONE, 2);

    let services = open(disk.kill(), TWO);
    all_are_found(&services, &keys);
    services.shutdown();
    drop(services);
    for wrong in ["", ONE] {
        let refusal = try_open(disk.kill(), wrong).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refusal.contains("--pepper-file") && refusal.contains("pp_"), "{refusal}");
    }
}

/// Switches a store with a cut at every place in turn; gives what the switch that was not cut made.
fn killed_anywhere(start: MemoryDisk, keys: Keys, with: &str, before: &str, stage: u8) -> (MemoryDisk, Keys) {
    let mut interrupted = 0;
    for steps in 0.. {
        let mut keys = keys.clone();
        let cut = start.kill();
        let services = open(cut.clone(), with);
        all_are_found(&services, &keys);
        let mut told = 0;
        let outcome = switch(&services, &by(&services), &mut |_| {
            told += 1;
            if told > steps { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        });
        let ended = outcome.is_ok();
        assert!(ended || matches!(outcome, Err(NotSwitched::Unwatched(_))), "{outcome:?}");
        interrupted += u32::from(!ended);
        all_are_found(&services, &keys);
        // As it is on the disk at this very moment; what the process still had in memory is lost.
        let killed = cut.kill();
        services.shutdown();
        drop(services);

        let services = open(killed.clone(), with);
        all_are_found(&services, &keys);
        let (no, digest, id) = keys.live[0];
        assert_eq!(spend(&services.storage, no, &digest, 3), keys.credits.get(&id).map(|left| left - 3));
        *keys.credits.get_mut(&id).expect("limited") -= 3;
        let (gone_no, gone_digest, gone) = keys.live.remove(1);
        let api = transact(&services, move |tx| {
            let row = key::get(tx, gone_no, gone)?.expect("there");
            key::purge(tx, gone_no, gone, &row)?;
            Ok(row.api)
        });
        keys.credits.remove(&gone);
        assert!(look_up(&services.storage, gone_no, &gone_digest).is_none(), "it is purged");
        // Its hash is free again, at whatever stage it was.
        let again = new_key(&services, gone_no, api, gone_digest);
        keys.live.push((gone_no, gone_digest, again));
        keys.credits.insert(again, CREDITS);
        let progress = switch(&services, &by(&services), &mut never).expect("to its end");
        assert_eq!((progress.resumed, progress.was_needed), (!ended, !ended));
        all_are_found(&services, &keys);
        let census = census(&services);
        assert_eq!(census.before(stage), 0, "{census:?}");
        assert_eq!(census.keys.into_keys().collect::<Vec<_>>(), [stage]);
        assert_eq!(
            (events(&services, "pepper.enable"), events(&services, "pepper.complete")),
            (stage.into(), stage.into())
        );
        services.shutdown();
        drop(services);
        if ended {
            assert!(interrupted > 8, "only {interrupted} places to interrupt it");
            if !before.is_empty() {
                assert!(try_open(killed.kill(), before).is_err(), "the old pepper is not enough");
            }
            return (killed, keys);
        }
    }
    unreachable!("a switch ends")
}

/// Under verifications that spend, changes of credits and new keys no lookup fails at any moment of two switches, and every
/// credit is accounted for.
#[test]
fn a_live_switch_never_gives_a_wrong_answer() {
    let disk = MemoryDisk::new();
    let services = open(disk.clone(), "");
    let keys = fill(&services);
    services.shutdown();
    drop(services);
    let mut added: BTreeMap<KeyId, u64> = BTreeMap::new();
    let spent: BTreeMap<KeyId, AtomicU64> = keys.credits.keys().map(|id| (*id, AtomicU64::new(0))).collect();
    for peppers in [ONE.to_owned(), format!("{TWO}\n{ONE}")] {
        let services = open(disk.clone(), &peppers);
        let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (services, keys, spent, stop, rounds) = (&services, &keys, &spent, &stop, &rounds);
                scope.spawn(move || {
                    let nobody = digest_of("nobody's");
                    for at in (worker..).step_by(5) {
                        let (no, digest, id) = &keys.live[at % keys.live.len()];
                        let view = look_up(&services.storage, *no, digest).unwrap_or_else(|| panic!("{id} is lost"));
                        assert_eq!(view.id, *id, "another key");
                        // No more than was there at first, so that every spend succeeds.
                        if let Some(spent) = spent.get(id).filter(|spent| spent.load(Ordering::Relaxed) < CREDITS / 2) {
                            spend(&services.storage, *no, digest, 1).unwrap_or_else(|| panic!("{id} is lost"));
                            spent.fetch_add(1, Ordering::Relaxed);
                        }
                        assert!(look_up(&services.storage, *no, &nobody).is_none());
                        let (digest, id) = &keys.root_keys[at % keys.root_keys.len()];
                        let found = match services.storage.root_key(digest) {
                            Lookup::Hot(view) => Some(view.id),
                            Lookup::Absent => None,
                            Lookup::Unknown => {
                                services.storage.read_root_key(digest).expect("readable").map(|view| view.id)
                            }
                        };
                        assert_eq!(found, Some(*id), "a root key");
                        rounds.fetch_add(1, Ordering::Relaxed);
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                    }
                });
            }
            let changer = scope.spawn(|| {
                let mut added: BTreeMap<KeyId, u64> = BTreeMap::new();
                for at in (0..).step_by(3) {
                    let (no, _, id) = keys.live[at % keys.live.len()];
                    if keys.credits.contains_key(&id) {
                        transact(&services, move |tx| {
                            let row = key::get(tx, no, id)?.expect("there");
                            tx.change_credits(no, id, &row, Change::Add(7), None)?.expect("few");
                            Ok(())
                        });
                        *added.entry(id).or_default() += 7;
                    }
                    let digest = digest_of(&format!("made at {at} of {peppers}"));
                    let api = transact(&services, move |tx| Ok(key::get(tx, no, id)?.expect("there").api));
                    let new = new_key(&services, no, api, digest);
                    assert_eq!(look_up(&services.storage, no, &digest).map(|view| view.id), Some(new));
                    if stop.load(Ordering::Relaxed) {
                        return added;
                    }
                }
                unreachable!("it is stopped")
            });
            // Workers are at it before, and after.
            let wait = |more: u64| {
                let until = rounds.load(Ordering::Relaxed) + more;
                while rounds.load(Ordering::Relaxed) < until {
                    std::thread::yield_now();
                }
            };
            wait(200);
            let switched = switch(&services, &by(&services), &mut |_| {
                std::thread::yield_now();
                Ok(())
            });
            wait(200);
            stop.store(true, Ordering::Relaxed);
            assert!(switched.expect("to its end").was_needed);
            for (id, more) in changer.join().expect("no panic") {
                *added.entry(id).or_default() += more;
            }
        });
        let mut expected = keys.clone();
        for (id, left) in &mut expected.credits {
            *left = *left + added.get(id).unwrap_or(&0) - spent[id].load(Ordering::Relaxed);
        }
        all_are_found(&services, &expected);
        services.shutdown();
        drop(services);
        // And on the disk.
        let services = open(disk.clone(), &peppers);
        all_are_found(&services, &expected);
        services.shutdown();
    }
}

/// A disabled pepper lies in the store, which then opens without one, and can be exchanged for a new one at any time; the old
/// one is covered again.
#[test]
fn a_disabled_pepper_is_needed_no_more() {
    let disk = MemoryDisk::new();
    let services = open(disk.clone(), ONE);
    let keys = fill(&services);
    assert_eq!(disclose(&services, &by(&services)).expect("nothing to do"), None);
    switch(&services, &by(&services), &mut never).expect("to its end");
    assert!(disclose(&services, &by(&services)).expect("disabled").is_some());
    assert_eq!(events(&services, "pepper.disable"), 1);
    services.shutdown();
    drop(services);
    let services = open(disk.kill(), "");
    all_are_found(&services, &keys);
    assert!(matches!(switch(&services, &by(&services), &mut never), Err(NotSwitched::No(_))));
    services.shutdown();
    drop(services);
    let services = open(disk.clone(), ONE);
    let again = switch(&services, &by(&services), &mut never).expect_err("it was in the directory").to_string();
    assert!(again.contains("keyward pepper generate"), "{again}");
    services.shutdown();
    drop(services);
    let services = open(disk.clone(), TWO);
    switch(&services, &by(&services), &mut never).expect("to its end");
    all_are_found(&services, &keys);
    services.shutdown();
    drop(services);
    assert!(try_open(disk.kill(), ONE).is_err());
}

/// The hash of a root key that was revoked before a switch is gone, too, and one that is made and revoked after it never was
/// there without pepper.
#[test]
fn revoked_root_keys_leave_no_digest() {
    let disk = MemoryDisk::new();
    let services = open(disk, ONE);
    fill(&services);
    switch(&services, &by(&services), &mut never).expect("to its end");
    let snapshot = services.storage.snapshot().expect("readable");
    let all = rows::root_keys(&snapshot, &[], usize::MAX).expect("readable");
    let revoked: Vec<RootKeyRow> = all
        .into_iter()
        .map(|id| root_key::get(&snapshot, id).expect("readable").expect("there"))
        .filter(|row| row.deleted_at.is_some())
        .collect();
    assert!(revoked.len() == 2 && revoked.iter().all(|row| row.hash == [0; 32]));
    drop(snapshot);
    services.shutdown();
}

/// What is no pepper is refused by its line, and never shown; the first one counts.
#[test]
fn wrong_lines_are_named_and_not_shown() {
    let two = read(&format!("# since May\n{ONE}\r\n\n  {TWO} \n")).unwrap();
    assert_eq!(two.len(), 2);
    assert_eq!(read(&format!("{ONE},{TWO}")).unwrap()[0].fingerprint, two[0].fingerprint);
    assert_eq!(read(&generate(&Entropy::seeded(1))).unwrap().len(), 1);
    let short = STANDARD.encode([7; 31]);
    let many: String = (0..17).map(|byte| STANDARD.encode([byte; 32]) + "\n").collect();
    for (wrong, why) in [
        (String::new(), BadPeppers::Empty),
        (format!("{ONE}\n{short}"), BadPeppers::Line { line: 2 }),
        (format!("{ONE}\n{ONE}"), BadPeppers::Repeated { line: 2 }),
        (many, BadPeppers::TooMany),
    ] {
        let refusal = read(&wrong).unwrap_err();
        assert!(!refusal.to_string().contains(&short), "{refusal}");
        assert_eq!(refusal, why);
    }
}
