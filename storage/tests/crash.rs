//! Power cuts at every change of the disk, full and failing disks, lost and foreign files: what was acknowledged is there,
//! what was not is there wholly or not at all, and what cannot be trusted is refused with words that help.

mod harness;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use keyward_storage::disk::memory::{Call, MemoryDisk, Op as Change, SplitMix};
use keyward_storage::disk::{Disk, RealDisk};
use keyward_storage::hot::window::{Kind, Take};
use keyward_storage::ids::{KeyId, WorkspaceNo};
use keyward_storage::records::Row;
use keyward_storage::records::key::{self, KeyDigest, KeyView};
use keyward_storage::{Lookup, Options, Spent, Storage, TransactError, Turn, Unavailable};

use harness::model::{Credits, In, Model, Op, Plan};
use harness::{DIR, Plug, flush, noting_fatal, open, options, path, refusal, submit, transact, wait};

/// What a store had promised when its power went.
#[derive(Default)]
struct Promises {
    /// The records after each transaction that was handed in, from none on.
    states: Vec<Model>,
    /// How many of them were acknowledged.
    acknowledged: usize,
}

/// The first live key with credits in a model.
fn limited(model: &Model) -> (In<KeyId>, [u8; 32]) {
    let at = model.limited_keys()[0];
    (at, model.keys[&at].hash)
}

fn view(storage: &Storage, model: &Model) -> Arc<KeyView> {
    let (at, hash) = limited(model);
    storage.read_key(at.0, &KeyDigest(hash)).expect("readable").expect("it is live")
}

/// A life of a store with everything in it: birth, single transactions, a batch, spends, windows, segments that roll,
/// checkpoints, a restart, and an end. Stops where the disk does.
fn live(disk: &MemoryDisk, promises: &mut Promises) {
    let mut dice = SplitMix(99);
    let mut model = Model::default();
    promises.states.push(model.clone());
    for age in 0..2 {
        let small = Options { segment_bytes: 2048, ..options(disk) };
        let (options, _) = noting_fatal(small);
        let Ok(storage) = Storage::open(options) else { return };
        for round in 0..3 {
            let plug = (round == 1).then(|| Plug::new(&storage));
            let mut told = Vec::new();
            for _ in 0..3 {
                let plan = if model.workspaces.is_empty() {
                    let plan = Model::first_plan(&mut dice, WorkspaceNo(1), 1000);
                    plan.note(&mut model);
                    plan
                } else {
                    one_workspace_plan(&mut model, &mut dice)
                };
                promises.states.push(model.clone());
                told.push(submit(&storage, move |tx| plan.run(tx)));
                if plug.is_none() && !acknowledged(told.drain(..), promises) {
                    return;
                }
            }
            drop(plug);
            if !acknowledged(told.into_iter(), promises) {
                return;
            }
            // Relaxed spends: a crash may give them back, nothing more.
            if let Spent::Taken(left) = storage.spend(&view(&storage, &model), 2) {
                let at = limited(&model).0;
                for state in promises.states.iter_mut().skip(promises.acknowledged).chain([&mut model]) {
                    let credits = state.credits.get_mut(&at).expect("it is limited");
                    credits.balance = left;
                    credits.unjournaled += 2;
                }
            }
            count_in_window(&storage);
            if round == age {
                let (tell, told) = channel();
                storage.flush(move || tell.send(()).expect("the test waits"));
                if told.recv().is_err() {
                    return;
                }
                for state in promises.states.iter_mut().skip(promises.acknowledged).chain([&mut model]) {
                    state.credits.values_mut().for_each(|credits| credits.unjournaled = 0);
                }
            }
        }
        storage.stop();
    }
}

/// A transaction that leaves the first key alone, so that there is always one to spend from.
fn one_workspace_plan(model: &mut Model, dice: &mut SplitMix) -> Plan {
    let no = WorkspaceNo(1);
    let first = *model.keys.iter().find(|(_, row)| row.limited).expect("made first").0;
    loop {
        let Some(op) = model.random_op(dice, no) else { continue };
        if let Op::SoftDelete(at) | Op::Purge(at) | Op::Limit(at, _) | Op::Credits(at, _) = &op
            && *at == first
        {
            continue;
        }
        let plan = Plan::new(dice, no, vec![op]);
        plan.note(model);
        return plan;
    }
}

fn count_in_window(storage: &Storage) {
    let windows = &storage.hot().windows;
    let subject = windows.subject(Kind::Namespace, 1, b"namespace", b"someone", 60_000);
    let take = Take { subject, duration_ms: 60_000, limit: 1000, cost: 1 };
    windows.take(&take, 1_000_000).expect("there is room");
}

/// Notes which transactions were acknowledged; whether all were.
fn acknowledged(
    told: impl Iterator<Item = std::sync::mpsc::Receiver<harness::Answer<()>>>,
    promises: &mut Promises,
) -> bool {
    for told in told {
        match told.recv() {
            Ok(Ok(_)) => promises.acknowledged += 1,
            Ok(Err(TransactError::Unavailable(_))) | Err(_) => return false,
            Ok(Err(error)) => panic!("{error:?}"),
        }
    }
    true
}

fn given_back(expected: &Credits, stored: u64) -> bool {
    (expected.balance..=expected.balance + expected.unjournaled).contains(&stored)
}

/// Opens what is left and compares it with what was promised; then works with it.
fn survives(disk: &MemoryDisk, promises: &Promises, after: &str) {
    for _ in 0..2 {
        let small = Options { segment_bytes: 2048, ..options(disk) };
        let storage = Storage::open(small)
            .unwrap_or_else(|error| panic!("{after}, the store does not open: {}", harness::chain(&error)));
        let snapshot = storage.snapshot().expect("readable");
        let differences: Vec<_> = promises.states[promises.acknowledged..]
            .iter()
            .map(|state| state.difference(&snapshot, given_back))
            .collect();
        let Some(found) = differences.iter().position(Option::is_none) else {
            panic!("{after}, none of the possible states is there: {differences:?}");
        };
        let mut model = promises.states[promises.acknowledged + found].clone();
        for (at, credits) in &mut model.credits {
            let stored = key::credits(&snapshot, at.0, at.1).expect("readable").expect("compared above");
            credits.balance = stored.balance;
        }
        drop(snapshot);
        model.check_hot(&storage);
    }
    // It goes on as if nothing had happened.
    let storage = open(options(disk));
    let no = storage.snapshot().expect("readable").count(keyward_storage::records::WORKSPACE).expect("readable");
    let plan = Model::first_plan(&mut SplitMix(5), WorkspaceNo(no as u32 + 1), 1);
    transact(&storage, move |tx| plan.run(tx));
    storage.stop();
    drop(storage);
    open(options(disk));
}

/// The whole promise at once: the power goes at every single change of the disk in a store's life.
#[test]
fn a_power_cut_at_any_moment_loses_nothing_acknowledged() {
    let mut cuts = 0;
    loop {
        let disk = MemoryDisk::new();
        disk.stop_after(cuts);
        let mut promises = Promises::default();
        live(&disk, &mut promises);
        // More of them for the birth of a store, where names and files are new.
        for number in 0..if (20..40).contains(&cuts) { 16 } else { 1 } {
            let seed = cuts * 1000 + number;
            survives(&disk.crash(seed), &promises, &format!("after {cuts} changes, seed {seed}"));
        }
        if cuts % 4 == 0 {
            survives(&disk.kill(), &promises, &format!("killed after {cuts} changes"));
        }
        if !disk.stopped() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 100, "only {cuts} changes in a whole life");
}

fn is_log(path: &Path) -> bool {
    path.parent() == Some(&harness::path("log"))
}

fn log_syncs(disk: &MemoryDisk) -> usize {
    disk.journal(0).iter().filter(|change| matches!(change, Change::Sync(path) if is_log(path))).count()
}

/// A store with a workspace, an API and a key of so many credits.
fn store_with(options: Options, credits: u64) -> (Storage, Model) {
    let storage = open(options);
    let mut model = Model::default();
    let plan = Model::first_plan(&mut SplitMix(1), WorkspaceNo(1), credits);
    plan.note(&mut model);
    transact(&storage, move |tx| plan.run(tx));
    (storage, model)
}

fn another(model: &mut Model, seed: u64) -> Plan {
    let mut dice = SplitMix(seed);
    let no = WorkspaceNo(model.workspaces.len() as u32 + 1);
    let plan = Model::first_plan(&mut dice, no, 10);
    plan.note(model);
    plan
}

/// `kill -9` alone could not tell: the page cache survives it. So the order of changes on the disk is looked at.
#[test]
fn nobody_is_told_before_the_sync() {
    let disk = MemoryDisk::new();
    let (storage, mut model) = store_with(Options { segment_bytes: 1 << 20, ..options(&disk) }, 10);
    for seed in 0..10 {
        let plan = another(&mut model, seed);
        let (tell, told) = channel();
        let seen = disk.clone();
        let from = disk.sequence();
        storage.transact(
            Turn::FIRST,
            1,
            move |tx| plan.run(tx),
            move |answer| {
                let log: Vec<_> = seen
                    .journal(from)
                    .into_iter()
                    .filter(|change| matches!(change, Change::Write { path, .. } | Change::Sync(path) if is_log(path)))
                    .collect();
                tell.send((answer.is_ok(), log)).expect("the test waits");
            },
        );
        let (applied, log) = wait(&told);
        assert!(applied);
        assert!(
            matches!(log[..], [Change::Write { .. }, Change::Sync(_)]),
            "one write, one sync, and then the answer: {log:?}"
        );
    }
}

/// Group commit: who waits for the same sync shares it.
#[test]
fn transactions_that_wait_share_a_sync() {
    let disk = MemoryDisk::new();
    let (storage, mut model) = store_with(Options { segment_bytes: 1 << 20, ..options(&disk) }, 10);
    let (syncs, stats) = (log_syncs(&disk), storage.stats());
    let plug = Plug::new(&storage);
    let told: Vec<_> = (0..64)
        .map(|seed| {
            let plan = another(&mut model, seed);
            submit(&storage, move |tx| plan.run(tx))
        })
        .collect();
    drop(plug);
    let mut positions: Vec<_> = told.iter().map(|told| wait(told).expect("applied").position.0).collect();
    assert_eq!(log_syncs(&disk) - syncs, 1);
    assert_eq!(storage.stats().syncs - stats.syncs, 1);
    assert_eq!(storage.stats().transactions - stats.transactions, 64);
    assert!(positions.is_sorted(), "in the order they came");
    positions.dedup();
    assert_eq!(positions.len(), 64, "each at its own position");
    model.check_hot(&storage);
}

/// A full disk refuses changes and nothing else, and heals by itself.
#[test]
fn a_full_disk_takes_no_changes_and_still_verifies() {
    for strict_credits in [false, true] {
        let disk = MemoryDisk::new();
        let (options, fatal) = noting_fatal(Options { min_free_bytes: 1000, strict_credits, ..options(&disk) });
        let (storage, mut model) = store_with(options, 100);
        let (at, _) = limited(&model);
        let key = view(&storage, &model);

        disk.set_free_bytes(Some(999));
        let plan = another(&mut model.clone(), 3);
        let refused = wait(&submit(&storage, move |tx| plan.run(tx))).expect_err("no room");
        assert!(matches!(refused, TransactError::Unavailable(Unavailable::NoSpace)), "{refused:?}");
        assert!(storage.stats().read_only);
        count_in_window(&storage);
        match storage.spend(&key, 5) {
            Spent::Taken(left) => {
                assert!(!strict_credits);
                assert_eq!(left, 95);
                model.credits.get_mut(&at).expect("limited").balance = 95;
            }
            Spent::Journal(pending) => {
                assert!(strict_credits);
                let (tell, told) = channel();
                storage.journal_spend(pending, u64::MAX, move |left| tell.send(left).expect("the test waits"));
                assert_eq!(wait(&told), Err(Unavailable::NoSpace), "what cannot be journaled is not spent");
            }
            other => panic!("{other:?}"),
        }
        // A checkpoint would need room as well; it is left out, and that is no reason to stop.
        flush(&storage);
        model.check_hot(&storage);

        disk.set_free_bytes(None);
        let plan = another(&mut model, 4);
        transact(&storage, move |tx| plan.run(tx));
        assert!(!storage.stats().read_only);
        flush(&storage);
        model.check_hot(&storage);
        model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
        assert_eq!(storage.stats().waiting_spends, 0);
        // Nothing is left over that would keep the key in memory for good.
        let (_, hash) = limited(&model);
        for seed in 10..100 {
            let plan = another(&mut model, seed);
            transact(&storage, move |tx| plan.run(tx));
        }
        assert!(matches!(storage.key(at.0, &KeyDigest(hash)), Lookup::Unknown), "it can be evicted");
        assert!(fatal.lock().expect("no panic").is_empty());
    }
}

/// What `min_free_bytes` keeps free is for counters: below it changes are refused, and yet what was spent and used stays
/// so through a clean end and through a power cut. Only when that is used up too do they wait for room.
#[test]
fn a_disk_low_on_room_still_takes_what_was_spent() {
    const MIB: u64 = 1 << 20;
    for (strict_credits, clean) in [(false, true), (false, false), (true, true), (true, false)] {
        let disk = MemoryDisk::new();
        let made = |disk: &MemoryDisk| Options { min_free_bytes: 64 * MIB, strict_credits, ..options(disk) };
        let (low, fatal) = noting_fatal(made(&disk));
        let (storage, mut model) = store_with(low, 100);
        let (at, _) = limited(&model);
        let key = view(&storage, &model);
        let spend = |cost: u64| match storage.spend(&key, cost) {
            Spent::Taken(left) => Ok(left),
            Spent::Journal(pending) => {
                let (tell, told) = channel();
                storage.journal_spend(pending, u64::MAX, move |left| tell.send(left).expect("the test waits"));
                wait(&told)
            }
            other => panic!("{other:?}"),
        };
        let stored = |storage: &Storage| {
            let row = key::credits(&storage.snapshot().expect("readable"), at.0, at.1).expect("readable");
            row.expect("limited").balance
        };

        disk.set_free_bytes(Some(32 * MIB));
        let plan = another(&mut model.clone(), 3);
        let refused = wait(&submit(&storage, move |tx| plan.run(tx))).expect_err("low on room");
        assert!(matches!(refused, TransactError::Unavailable(Unavailable::NoSpace)), "{refused:?}");
        assert_eq!((storage.stats().read_only, storage.stats().free_bytes), (true, 32 * MIB));
        assert_eq!(spend(5), Ok(95));
        storage.touch(&key, 60_000_000);
        flush(&storage);
        assert_eq!((stored(&storage), storage.stats().waiting_spends), (95, 0));
        assert_eq!(storage.stats().checkpoint, 0, "redb would need room");

        // The reserve is used up.
        disk.set_free_bytes(Some(8 * MIB - 1));
        flush(&storage);
        if strict_credits {
            assert_eq!(spend(5), Err(Unavailable::NoSpace));
        } else {
            assert_eq!(spend(5), Ok(90));
            flush(&storage);
            assert_eq!((stored(&storage), storage.stats().waiting_spends), (95, 1));
        }
        disk.set_free_bytes(Some(8 * MIB));
        assert_eq!(spend(3), Ok(if strict_credits { 92 } else { 87 }));

        model.credits.get_mut(&at).expect("limited").balance = if strict_credits { 92 } else { 87 };
        model.last_used.insert(at, 60_000_000);
        if !clean {
            flush(&storage);
        } else {
            storage.stop();
        }
        let disk = disk.crash(7);
        assert!(fatal.lock().expect("no panic").is_empty());
        drop(storage);
        disk.set_free_bytes(Some(32 * MIB));
        let storage = open(made(&disk));
        assert!(storage.stats().read_only, "known from the start");
        model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
        model.check_hot(&storage);
    }
}

/// An idle store notices by itself that room went and came.
#[test]
fn an_idle_store_notices_the_room() {
    let disk = MemoryDisk::new();
    let (storage, _) = store_with(Options { min_free_bytes: 1000, ..options(&disk) }, 1);
    for free in [999, 1000] {
        disk.set_free_bytes(Some(free));
        while storage.stats().free_bytes != free || storage.stats().read_only != (free < 1000) {
            std::thread::yield_now();
        }
    }
}

/// Many more spends than one step takes while the disk is low are all written at a clean end.
#[test]
fn a_clean_end_on_a_low_disk_writes_every_spend() {
    const KEYS: usize = 1000;
    let disk = MemoryDisk::new();
    let roomy = || Options { hot_keys_max: 2 * KEYS, min_free_bytes: 64 << 20, ..options(&disk) };
    let (storage, mut model) = store_with(roomy(), 10);
    let mut dice = SplitMix(8);
    let (at, _) = limited(&model);
    let row = model.keys[&at].clone();
    let keys: Vec<_> = (0..KEYS)
        .map(|_| {
            let row = key::KeyRow { hash: harness::hash(&mut dice), ..row.clone() };
            Op::NewKey((at.0, KeyId(harness::id(&mut dice))), Box::new(row), Some(9))
        })
        .collect();
    let plan = Plan::new(&mut dice, at.0, keys);
    plan.note(&mut model);
    transact(&storage, move |tx| plan.run(tx));
    disk.set_free_bytes(Some(32 << 20));
    for (at, row) in &model.keys {
        let view = storage.read_key(at.0, &KeyDigest(row.hash)).expect("readable").expect("live");
        assert!(matches!(storage.spend(&view, 3), Spent::Taken(_)));
        storage.touch(&view, 120_000);
        model.last_used.insert(*at, 120_000);
        model.credits.get_mut(at).expect("limited").balance -= 3;
    }
    storage.stop();
    let disk = disk.crash(1);
    let storage = open(Options { hot_keys_max: 2 * KEYS, ..options(&disk) });
    assert!(storage.stats().replayed > 0, "the log has it, not the checkpoint");
    model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
}

/// A first start without room says how much there is and how much is asked for, leaves nothing, and can be repeated.
#[test]
fn a_store_is_not_begun_without_room() {
    let disk = MemoryDisk::new();
    disk.set_free_bytes(Some(999));
    let words = refusal(Storage::open(Options { min_free_bytes: 1000, ..options(&disk) }));
    for part in ["is full", "999 bytes are free", "min_free_bytes asks for 1000"] {
        assert!(words.contains(part), "{words}");
    }
    assert_eq!(names(&disk, ""), ["LOCK"]);
    disk.set_free_bytes(None);

    // Wherever the disk turns out to be full.
    for capacity in (0..).map(|step| step * 4096) {
        disk.set_capacity(Some(capacity));
        match Storage::open(options(&disk)) {
            Ok(_) => break,
            Err(error) => {
                let words = harness::chain(&error);
                assert!(words.contains("is full") && !words.contains("restore"), "at {capacity}: {words}");
                let left = names(&disk, "");
                assert!(!left.iter().any(|name| name.ends_with(".new")), "at {capacity}: {left:?}");
            }
        }
    }
    disk.set_capacity(None);
    let (storage, model) = store_with(options(&disk), 10);
    model.check_hot(&storage);
}

/// A directory that is something else's is left as it is; one that a first start was killed in is not taken for that.
#[test]
fn foreign_files_are_left_alone() {
    let disk = MemoryDisk::new();
    disk.plant(&path("holiday.jpg"), b"a picture");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("holiday.jpg") && words.contains("name an empty directory"), "{words}");
    assert_eq!(names(&disk, ""), ["holiday.jpg"]);
    let disk = MemoryDisk::new();
    disk.plant(&path("photos/holiday.jpg"), b"a picture");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("photos"), "{words}");

    let disk = MemoryDisk::new();
    for name in ["LOCK", "root.key.new", "records.redb.new", "lost+found/x", "admin.sock.new/admin.sock"] {
        disk.plant(&path(name), b"");
    }
    drop(open(options(&disk)));
    disk.plant(&path("notes.txt"), b"beside a store anything may lie");
    drop(open(options(&disk)));
    disk.remove(&path("FORMAT")).expect("removed");
    open(options(&disk));
}

/// Who may not use the directory is told why and what to do.
#[test]
fn a_directory_that_cannot_be_used_says_why() {
    use std::io::ErrorKind;
    let refused_with = |kind| {
        let disk = MemoryDisk::new();
        disk.fail(Call::Open, 1, kind);
        refusal(Storage::open(options(&disk)))
    };
    let words = refused_with(ErrorKind::PermissionDenied);
    assert!(words.contains("/data/LOCK") && words.contains("runs as") && words.contains("chown"), "{words}");
    let words = refused_with(ErrorKind::ReadOnlyFilesystem);
    assert!(words.contains("read-only file system") && words.contains("mount it"), "{words}");

    let home = tempfile::tempdir().expect("a scratch directory");
    let file = home.path().join("file");
    std::fs::write(&file, "x").expect("written");
    for dir in [file.clone(), file.join("below")] {
        let real = Options { dir, disk: Arc::new(RealDisk), ..options(&MemoryDisk::new()) };
        let words = refusal(Storage::open(real));
        assert!(words.contains("has to be a directory"), "{words}");
    }
}

/// A process that dies while the disk is full comes back, verifies, and takes changes again when there is room.
#[test]
fn a_store_starts_on_a_full_disk() {
    let disk = MemoryDisk::new();
    let (storage, mut model) = store_with(options(&disk), 100);
    for seed in 3..8 {
        let plan = another(&mut model, seed);
        transact(&storage, move |tx| plan.run(tx));
    }
    let disk = disk.kill();
    disk.set_capacity(Some(disk.used_bytes() + 10));
    let (options, fatal) = noting_fatal(Options { min_free_bytes: 1000, ..options(&disk) });
    let storage = open(options);
    model.check_hot(&storage);
    for _ in 0..2 {
        let plan = another(&mut model.clone(), 9);
        let refused = wait(&submit(&storage, move |tx| plan.run(tx))).expect_err("no room");
        assert!(matches!(refused, TransactError::Unavailable(Unavailable::NoSpace)), "{refused:?}");
    }
    // What was replayed is not made durable yet: redb would need room, and to fail would be its end.
    assert_eq!(storage.stats().checkpoint, 0);
    disk.set_capacity(None);
    let plan = another(&mut model, 9);
    transact(&storage, move |tx| plan.run(tx));
    flush(&storage);
    model.check_hot(&storage);
    assert_eq!(storage.stats().position, storage.stats().checkpoint);
    assert_eq!(*fatal.lock().expect("no panic"), [""; 0]);
}

/// The same where the log's write is what finds the disk full: nothing of the batch remains, on disk or in memory, and
/// the counters that were to be written with it are written later.
#[test]
fn a_batch_that_finds_no_room_leaves_nothing() {
    let disk = MemoryDisk::new();
    let (storage, mut model) = store_with(options(&disk), 100);
    let (at, _) = limited(&model);
    let key = view(&storage, &model);

    let plug = Plug::new(&storage);
    assert_eq!(storage.spend(&key, 7), Spent::Taken(93));
    storage.touch(&key, 60_000_000);
    let plan = another(&mut model.clone(), 3);
    let made = submit(&storage, move |tx| plan.run(tx));
    let purge = Plan::new(&mut SplitMix(4), WorkspaceNo(1), vec![Op::Purge(at)]);
    let purged = submit(&storage, move |tx| purge.run(tx));
    let (tell, flushed) = channel();
    storage.flush(move || tell.send(()).expect("the test waits"));
    disk.fail(Call::Write, 1, std::io::ErrorKind::StorageFull);
    drop(plug);
    for told in [made, purged] {
        let refused = wait(&told).expect_err("no room");
        assert!(matches!(refused, TransactError::Unavailable(Unavailable::NoSpace)), "{refused:?}");
    }
    wait(&flushed);
    model.credits.get_mut(&at).expect("limited").balance = 93;
    model.last_used.insert(at, 60_000_000);
    model.check_hot(&storage);

    flush(&storage);
    let disk = disk.crash(1);
    let storage = open(options(&disk));
    model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
    model.check_hot(&storage);
}

/// A sync that failed is never repeated: the store stops, says so, and nothing is acknowledged any more.
#[test]
fn a_failed_sync_is_the_end() {
    let disk = MemoryDisk::new();
    let (options, fatal) = noting_fatal(Options { segment_bytes: 1 << 20, ..options(&disk) });
    let (storage, before) = store_with(options, 100);
    let key = view(&storage, &before);

    let plug = Plug::new(&storage);
    let mut model = before.clone();
    let mut states = vec![before.clone()];
    // One batch, and some more that the writer will not live to see.
    let told: Vec<_> = (10..300)
        .map(|seed| {
            let plan = another(&mut model, seed);
            states.push(model.clone());
            submit(&storage, move |tx| plan.run(tx))
        })
        .collect();
    // The log's: the rate-limit windows are synced by a thread of their own, whenever it pleases.
    disk.fail_below(std::path::Path::new(DIR).join("log"), Call::Sync, 1, std::io::ErrorKind::Other);
    drop(plug);
    for told in told {
        // Those of the batch hear nothing, the others that they were refused; nobody is left waiting.
        assert!(!matches!(told.recv(), Ok(Ok(_))), "acknowledged after a failed sync");
    }
    for seed in 4..7 {
        let plan = another(&mut before.clone(), seed);
        let refused = wait(&submit(&storage, move |tx| plan.run(tx))).expect_err("it has stopped");
        assert!(matches!(refused, TransactError::Unavailable(Unavailable::Stopped)), "{refused:?}");
    }
    let fatal = fatal.lock().expect("no panic").clone();
    assert!(matches!(&fatal[..], [one] if one.starts_with("Log(")), "{fatal:?}");
    before.check_hot(&storage);
    assert_eq!(storage.spend(&key, 1), Spent::Taken(99), "what is in memory goes on until the process ends");
    drop(storage);
    let promises = Promises { states, acknowledged: 0 };
    survives(&disk.kill(), &promises, "killed after a failed sync");
    for seed in 0..3 {
        survives(&disk.crash(seed), &promises, "after a failed sync and a power cut");
    }
}

/// The log is whole when redb fails: stop, start, replay.
#[test]
fn an_error_of_the_checkpoint_is_the_end_and_costs_nothing() {
    let disk = MemoryDisk::new();
    let (options, fatal) = noting_fatal(options(&disk));
    let (storage, model) = store_with(options, 100);
    disk.fail(Call::Write, 1, std::io::ErrorKind::Other);
    let (tell, told) = channel::<()>();
    storage.flush(move || tell.send(()).expect("the test waits"));
    told.recv().expect_err("it was not flushed");
    let plan = another(&mut model.clone(), 3);
    let refused = wait(&submit(&storage, move |tx| plan.run(tx))).expect_err("it has stopped");
    assert!(matches!(refused, TransactError::Unavailable(Unavailable::Stopped)), "{refused:?}");
    assert!(fatal.lock().expect("no panic")[0].starts_with("Checkpoint("));
    drop(storage);
    let promises = Promises { states: vec![model], acknowledged: 0 };
    survives(&disk.crash(1), &promises, "after an error of redb and a power cut");
}

fn names(disk: &MemoryDisk, dir: &str) -> Vec<String> {
    let mut names = disk.list(&path(dir)).expect("listed");
    names.sort();
    names
}

/// A data directory of an ended store: `transactions` of them after a checkpoint or without one.
fn ended(checkpointed: bool) -> (MemoryDisk, Model) {
    let disk = MemoryDisk::new();
    let (storage, mut model) = store_with(Options { segment_bytes: 1024, ..options(&disk) }, 10);
    for seed in 0..12 {
        let plan = another(&mut model, seed);
        transact(&storage, move |tx| plan.run(tx));
        if checkpointed && seed == 9 {
            flush(&storage);
        }
    }
    // Before the end, which would make a checkpoint.
    (disk.kill(), model)
}

/// The checkpoint is derived: while the log goes back to its first record, it can be deleted.
#[test]
fn a_lost_checkpoint_is_rebuilt_from_a_whole_log() {
    let (disk, model) = ended(false);
    disk.remove(&path("records.redb")).expect("removed");
    let storage = open(options(&disk));
    assert_eq!(storage.stats().replayed, 13);
    model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
    model.check_hot(&storage);
    storage.stop();
    drop(storage);
    let storage = open(options(&disk));
    assert_eq!(storage.stats().replayed, 0);
    model.check_hot(&storage);
}

/// What cannot be trusted is refused, and the words say what to do.
#[test]
fn a_log_that_lost_something_is_refused() {
    // Without its beginning a log rebuilds nothing, and no empty checkpoint is left where the lost one may be put back.
    let (disk, _) = ended(true);
    disk.remove(&path("records.redb")).expect("removed");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("no records from 1 to") && words.contains("restore"), "{words}");
    assert!(!names(&disk, "").contains(&"records.redb".to_owned()));

    // Without any.
    let (disk, _) = ended(true);
    for name in names(&disk, "log") {
        disk.remove(&path("log").join(name)).expect("removed");
    }
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("holds no log") && words.contains("put the log back or restore a backup"), "{words}");

    // With a hole.
    let (disk, _) = ended(false);
    let segments = names(&disk, "log");
    assert!(segments.len() > 2, "{segments:?}");
    disk.remove(&path("log").join(&segments[1])).expect("removed");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("segments were lost or removed by hand"), "{words}");

    // Damaged where something follows.
    let (disk, _) = ended(false);
    let first = path("log").join(&names(&disk, "log")[0]);
    let file = disk.open(&first, false).expect("there");
    file.write_all_at(200, b"!").expect("written");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("is damaged at byte") && words.contains("restore a backup"), "{words}");
}

/// Bits of the checkpoint that flip are an error, at the start or when the row is read, and never another truth: not a
/// changed key, and not a panic of the process that starts.
#[test]
fn a_damaged_checkpoint_is_never_believed() {
    let (disk, model) = ended(true);
    let (at, hash) = limited(&model);
    let records = path("records.redb");
    let row = {
        let storage = open(options(&disk));
        let row = key::get(&storage.snapshot().expect("readable"), at.0, at.1).expect("readable").expect("there");
        storage.stop();
        row.to_bytes()
    };
    let whole = disk.contents(&records).expect("the checkpoint");
    // Pages that were replaced may still hold copies.
    let places: Vec<_> = (0..whole.len() - row.len()).filter(|&at| whole[at..].starts_with(&row)).collect();
    assert!(!places.is_empty(), "the row stands in the file");
    let (mut refused, mut unreadable) = (0, 0);
    for offset in (0..row.len()).step_by(7) {
        let mut damaged = whole.clone();
        for place in &places {
            damaged[place + offset] ^= 1 << (offset % 8);
        }
        disk.plant(&records, &damaged);
        match Storage::open(options(&disk)) {
            Err(_) => refused += 1,
            Ok(storage) => match storage.read_key(at.0, &KeyDigest(hash)) {
                Err(_) => unreadable += 1,
                Ok(view) => panic!("byte {offset} of the row was changed and believed: {view:?}"),
            },
        }
    }
    assert!(refused + unreadable > 10, "{refused} starts refused, {unreadable} reads refused");
}

/// A directory of a newer release, or of something else altogether, is left alone.
#[test]
fn a_format_that_is_not_known_is_refused() {
    let (disk, _) = ended(true);
    disk.plant(&path("FORMAT"), b"keyward data format 2\n");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("has format 2") && words.contains("install a newer keyward"), "{words}");
    disk.plant(&path("FORMAT"), b"something else");
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("is this a keyward data directory?"), "{words}");
    disk.plant(&path("FORMAT"), b"keyward data format 1\n");
    open(options(&disk));
}

/// Two processes on one directory would tear it apart.
#[test]
fn a_directory_has_one_process() {
    let disk = MemoryDisk::new();
    let (storage, _) = store_with(options(&disk), 1);
    let words = refusal(Storage::open(options(&disk)));
    assert!(words.contains("in use by another keyward process"), "{words}");
    drop(storage);
    open(options(&disk));

    let home = tempfile::tempdir().expect("a scratch directory");
    let real = || Options { dir: home.path().join("data"), disk: Arc::new(RealDisk), ..options(&disk) };
    let (storage, model) = store_with(real(), 10);
    let words = refusal(Storage::open(real()));
    assert!(words.contains("in use by another keyward process"), "{words}");
    drop(storage);
    let storage = open(real());
    model.check_hot(&storage);
}

/// A clean end writes down everything, however much: windows, credits, last uses.
#[test]
fn a_clean_end_forgets_nothing() {
    const KEYS: usize = 5000;
    let disk = MemoryDisk::new();
    let roomy = || Options { hot_keys_max: 2 * KEYS, ..options(&disk) };
    let (storage, mut model) = store_with(roomy(), 10);
    let mut dice = SplitMix(8);
    let (at, _) = limited(&model);
    let row = model.keys[&at].clone();
    let keys: Vec<_> = (0..KEYS)
        .map(|_| {
            let row = key::KeyRow { hash: harness::hash(&mut dice), ..row.clone() };
            Op::NewKey((at.0, KeyId(harness::id(&mut dice))), Box::new(row), Some(9))
        })
        .collect();
    let plan = Plan::new(&mut dice, at.0, keys);
    plan.note(&mut model);
    transact(&storage, move |tx| plan.run(tx));
    for (at, row) in &model.keys {
        let view = storage.read_key(at.0, &KeyDigest(row.hash)).expect("readable").expect("live");
        storage.touch(&view, 120_000);
        assert!(matches!(storage.spend(&view, 3), Spent::Taken(_)));
        model.last_used.insert(*at, 120_000);
        model.credits.get_mut(at).expect("limited").balance -= 3;
    }
    count_in_window(&storage);
    storage.stop();
    drop(storage);
    assert_eq!(names(&disk, "windows"), ["journal"]);
    let storage = open(roomy());
    assert_eq!(storage.stats().replayed, 0, "the checkpoint has it all");
    model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
    model.check_hot(&storage);
    assert_eq!(storage.stats().rate_subjects, 1);
}

/// `strict`: a spend that meets a change of its own key on its way to the log is written after it, and then answered.
#[test]
fn a_strict_spend_waits_for_the_change_it_met() {
    let disk = MemoryDisk::new();
    let strict = || Options { strict_credits: true, ..options(&disk) };
    let (storage, mut model) = store_with(strict(), 10);
    let (at, _) = limited(&model);
    let key = view(&storage, &model);

    let plug = Plug::new(&storage);
    let Spent::Journal(pending) = storage.spend(&key, 4) else { panic!("it has to be journaled") };
    let plan = Plan::new(&mut SplitMix(3), at.0, vec![Op::Credits(at, keyward_storage::Change::Add(7))]);
    plan.note(&mut model);
    let changed = submit(&storage, move |tx| plan.run(tx));
    let (tell, spent) = channel();
    let seen = disk.clone();
    storage.journal_spend(pending, u64::MAX, move |left| {
        tell.send((left, seen.crash(1))).expect("the test waits");
    });
    // This one is never handed in: whoever asked for it has gone. It is spent all the same.
    let Spent::Journal(_) = storage.spend(&key, 1) else { panic!("it has to be journaled") };
    drop(plug);
    assert_eq!(wait(&changed).expect("applied").balance, Some(12));
    let (left, cut) = wait(&spent);
    assert_eq!(left, Ok(6), "as it was when it was taken");
    model.credits.get_mut(&at).expect("limited").balance = 12;
    let after = open(Options { strict_credits: true, ..options(&cut) });
    model.check_rows(&after.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
    flush(&storage);
    assert_eq!(storage.stats().waiting_spends, 0);
    model.check_rows(&storage.snapshot().expect("readable"), |expected, stored| expected.balance == stored);
    model.check_hot(&storage);
}

/// A defect in what the writer calls must not leave a process behind that serves and cannot write.
#[test]
fn a_writer_that_panics_is_noticed() {
    let disk = MemoryDisk::new();
    let (options, fatal) = noting_fatal(options(&disk));
    let (storage, mut model) = store_with(options, 10);
    let plan = another(&mut model, 2);
    storage.transact(Turn::FIRST, 1, move |tx| plan.run(tx), |_| panic!("on purpose"));
    while fatal.lock().expect("no panic").is_empty() {
        std::thread::yield_now();
    }
    let plan = another(&mut model.clone(), 3);
    // The queue is refused, or dropped.
    let answer = submit(&storage, move |tx| plan.run(tx)).recv();
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
    storage.stop();
    assert_eq!(*fatal.lock().expect("no panic"), ["Panicked"]);
    let promises = Promises { states: vec![model], acknowledged: 0 };
    survives(&disk.kill(), &promises, "after a panic");
}

/// A checkpoint comes to its end however many requests spend meanwhile.
#[test]
fn a_flush_ends_under_load() {
    let disk = MemoryDisk::new();
    let (storage, model) = store_with(options(&disk), 1 << 40);
    let storage = Arc::new(storage);
    let stop = Arc::new(AtomicBool::new(false));
    let spender = {
        let (storage, stop, key) = (Arc::clone(&storage), Arc::clone(&stop), view(&storage, &model));
        std::thread::spawn(move || {
            let mut spent = 0;
            while !stop.load(Ordering::Relaxed) {
                assert!(matches!(storage.spend(&key, 1), Spent::Taken(_)));
                spent += 1;
            }
            spent
        })
    };
    for _ in 0..20 {
        flush(&storage);
    }
    stop.store(true, Ordering::Relaxed);
    let spent: u64 = spender.join().expect("no panic");
    flush(&storage);
    let (at, _) = limited(&model);
    let stored = key::credits(&storage.snapshot().expect("readable"), at.0, at.1).expect("readable").expect("there");
    assert_eq!(stored.balance, (1 << 40) - spent);
}

/// What was handed in before the end is answered, one way or the other, and nothing afterwards is taken.
#[test]
fn an_ended_store_answers() {
    let disk = MemoryDisk::new();
    let (storage, mut model) = store_with(options(&disk), 10);
    let storage = Arc::new(storage);
    let plug = Plug::new(&storage);
    let plan = another(&mut model, 2);
    let told = submit(&storage, move |tx| plan.run(tx));
    let ending = Arc::clone(&storage);
    let ended = Arc::new(Mutex::new(false));
    let noted = Arc::clone(&ended);
    let stopper = std::thread::spawn(move || {
        ending.stop();
        *noted.lock().expect("no panic") = true;
    });
    drop(plug);
    wait(&told).expect("it came before the end");
    stopper.join().expect("no panic");
    let plan = another(&mut model.clone(), 3);
    let refused = wait(&submit(&storage, move |tx| plan.run(tx))).expect_err("it has ended");
    assert!(matches!(refused, TransactError::Unavailable(Unavailable::Stopped)), "{refused:?}");
    drop(storage);
    let storage = open(options(&disk));
    model.check_hot(&storage);
    assert_eq!(disk.contents(Path::new(DIR).join("FORMAT").as_path()).expect("there"), b"keyward data format 1\n");
}
