//! Copies under changes are the model at their position; a restore is there as a whole or not at all, wherever the power goes;
//! and what verification calls whole opens and is what was written.

mod harness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyward_storage::backup::{Restore, RestoreError};
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::disk::{Disk, MemoryDisk};
use keyward_storage::ids::{KeyId, WorkspaceNo};
use keyward_storage::position::Position;
use keyward_storage::records::key::{KeyDigest, KeyRow};
use keyward_storage::verify::{Finding, Observer, verify};
use keyward_storage::{OpenError, Options, Spent, Storage};

use harness::model::{Credits, In, Model, Op, Plan};
use harness::{DIR, chain, flush, open, options, path, submit, transact, wait};

/// The id that restored stores get here.
const RESTORED: [u8; 16] = *b"a restored store";

fn exactly(expected: &Credits, stored: u64) -> bool {
    expected.balance == stored
}

/// A copy as it leaves a store.
#[derive(Clone)]
struct Copied {
    state: Vec<u8>,
    chunks: Vec<Vec<u8>>,
    position: Position,
}

fn copied(mut copy: keyward_storage::backup::Copy) -> Copied {
    let (state, position) = (copy.state().to_vec(), copy.position());
    let mut chunks = Vec::new();
    let mut rows = 0;
    while let Some((chunk, more)) = copy.next_chunk().expect("readable") {
        chunks.push(chunk);
        rows += more;
    }
    assert_eq!(rows, copy.rows());
    Copied { state, chunks, position }
}

/// Restores a copy with a file besides, as a backup does.
fn restore(disk: &MemoryDisk, from: &Copied) -> Result<(), RestoreError> {
    let mut into = Restore::begin(Arc::new(disk.clone()), Path::new(DIR))?;
    into.state(&from.state, RESTORED)?;
    for chunk in &from.chunks {
        into.rows(chunk)?;
    }
    let file = into.file(Path::new("events/MANIFEST"))?;
    let failed = |source| RestoreError::Open(OpenError::Io { path: path("events/MANIFEST"), source });
    file.write_all_at(0, b"manifest").map_err(failed)?;
    file.sync_data().map_err(failed)?;
    into.finish().map(drop)
}

#[derive(Default)]
struct Found(Vec<Finding>);

impl Observer for Found {
    fn found(&mut self, finding: Finding) {
        self.0.push(finding);
    }
    fn read(&mut self, done: u64, all: u64) {
        assert!(done <= all);
    }
}

/// What is wrong with a data directory, in words.
fn damage(disk: &MemoryDisk) -> Vec<String> {
    let mut found = Found::default();
    let before = disk.sequence();
    let disk_now: Arc<dyn Disk> = Arc::new(disk.clone());
    if let Err(error) = verify(&disk_now, Path::new(DIR), &mut found) {
        return vec![chain(&error)];
    }
    assert_eq!(disk.sequence(), before, "verifying has changed the disk");
    let damage = found.0.into_iter().filter(|finding| finding.is_damage);
    damage.map(|Finding { file, what, advice, .. }| format!("{file}: {what} -> {advice}")).collect()
}

/// A store with a history of random changes, and the model of it.
fn store(disk: &MemoryDisk, seed: u64, plans: u64) -> (Storage, Model) {
    let storage = open(Options { checkpoint_bytes: 16 << 10, ..options(disk) });
    let (mut dice, mut model) = (SplitMix(seed), Model::default());
    for _ in 0..plans {
        let plan = model.random_plan(&mut dice);
        transact(&storage, move |tx| plan.run(tx));
    }
    flush(&storage);
    (storage, model)
}

/// Keys beside those of the random changes, unless `KEYWARD_SOAK_KEYS` says otherwise, and seeds that are tried with so many.
const CROWD: (u64, u64) = (200, 6);
/// Where they are: behind the last workspace that random changes make.
const CROWDED: WorkspaceNo = WorkspaceNo(5);
/// Keys made in one transaction.
const AT_ONCE: u64 = 500;

/// What has become of the model at a position of the log.
enum Step {
    Changed(Box<Plan>),
    /// So many credits are left of a key.
    Spent(In<KeyId>, u64),
}

impl Step {
    fn note(&self, model: &mut Model) {
        match self {
            Step::Changed(plan) => plan.note(model),
            Step::Spent(at, left) => model.credits.get_mut(at).expect("limited").balance = *left,
        }
    }
}

/// Puts many keys into a store and into the model; gives them.
fn crowd(storage: &Storage, dice: &mut SplitMix, model: &mut Model, keys: u64) -> Vec<(In<KeyId>, KeyRow)> {
    let first = Model::first_plan(dice, CROWDED, 1);
    let Some(Op::NewKey(_, pattern, _)) = first.ops.last().cloned() else { panic!("a plan that ends with a key") };
    let mut made = Vec::new();
    let mut make = |plan: Plan| {
        plan.note(model);
        transact(storage, move |tx| plan.run(tx));
    };
    make(first);
    while (made.len() as u64) < keys {
        let mut ops = Vec::new();
        for _ in 0..AT_ONCE.min(keys - made.len() as u64) {
            let row = KeyRow { hash: harness::hash(dice), limited: false, ..(*pattern).clone() };
            let at = (CROWDED, KeyId(harness::id(dice)));
            made.push((at, row.clone()));
            ops.push(Op::NewKey(at, Box::new(row), None));
        }
        make(Plan::new(dice, CROWDED, ops));
    }
    made
}

/// Changes a store at random, and one of the crowd each time, until it is told to stop; gives every step with its position.
fn unrest(
    storage: &Storage,
    dice: &mut SplitMix,
    mut model: Model,
    mut crowd: Vec<(In<KeyId>, KeyRow)>,
    stop: &AtomicBool,
) -> Vec<(u64, Step)> {
    let mut steps = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let one = dice.below(crowd.len() as u64) as usize;
        crowd[one].1.name = Some(format!("changed {}", dice.below(1000)));
        let op = Op::Key(crowd[one].0, Box::new(crowd[one].1.clone()));
        for plan in [Plan::new(dice, CROWDED, vec![op]), model.random_plan(dice)] {
            let run = plan.clone();
            let committed = wait(&submit(storage, move |tx| run.run(tx))).expect("applied");
            steps.push((committed.position.0, Step::Changed(Box::new(plan))));
        }
        // Spends reach the log before the next change does, so they belong to its position.
        let limited = model.limited_keys();
        if let Some(at) = limited.get(dice.below(limited.len().max(1) as u64) as usize) {
            let view = storage.read_key(at.0, &KeyDigest(model.keys[at].hash)).expect("readable").expect("live");
            if let Spent::Taken(left) = storage.spend(&view, dice.below(3)) {
                flush(storage);
                model.credits.get_mut(at).expect("limited").balance = left;
                steps.push((storage.stats().position, Step::Spent(*at, left)));
            }
        }
    }
    steps
}

/// Changes of every kind go on while copies are begun and read: each is the model at its position, to the last credit, and the
/// store made of it is whole, begins its log there, and goes on.
#[test]
#[expect(clippy::disallowed_methods, reason = "a variable of whoever runs the tests, not a setting of keyward's")]
fn a_copy_under_changes_is_the_model_at_its_position() {
    let soak = std::env::var("KEYWARD_SOAK_KEYS").ok().map(|keys| keys.parse().expect("a number of keys"));
    let (keys, seeds) = soak.map_or(CROWD, |keys| (keys, 1));
    for seed in 0..seeds {
        let disk = MemoryDisk::new();
        let (storage, mut model) = store(&disk, seed, 40);
        let mut dice = SplitMix(seed + 1000);
        while model.workspaces.len() < CROWDED.0 as usize - 1 {
            let plan = Model::first_plan(&mut dice, WorkspaceNo(model.workspaces.len() as u32 + 1), 1);
            plan.note(&mut model);
            transact(&storage, move |tx| plan.run(tx));
        }
        let mut start = model.clone();
        let crowd = crowd(&storage, &mut dice, &mut start, keys);
        let stop = AtomicBool::new(false);
        let (copies, steps) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| unrest(&storage, &mut dice, model, crowd, &stop));
            let copies: Vec<Copied> = (0..4)
                .map(|number| {
                    let copy = storage.copy().expect("readable");
                    // Some are read at once, some only when much has changed.
                    if number % 2 == 1 {
                        let far = storage.stats().position + 30;
                        while storage.stats().position < far {
                            std::thread::yield_now();
                        }
                    }
                    copied(copy)
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            (copies, writer.join().expect("no panic"))
        });
        assert!(steps.len() > 30, "seed {seed}: changes while copies were made");
        for copy in copies {
            let mut expected = start.clone();
            let behind = steps.partition_point(|(position, _)| *position <= copy.position.0);
            steps[..behind].iter().for_each(|(_, step)| step.note(&mut expected));
            let target = MemoryDisk::new();
            restore(&target, &copy).unwrap_or_else(|error| panic!("seed {seed}: {}", chain(&error)));
            assert_eq!(damage(&target), [""; 0], "seed {seed}");
            let restored = open(options(&target));
            assert_eq!(restored.stats().position, copy.position.0);
            assert_eq!(restored.stats().replayed, 0);
            let snapshot = restored.snapshot().expect("readable");
            let mut difference = expected.difference(&snapshot, exactly);
            // A position without a step is that of a journal record whose spend was being noted: the step behind it says it.
            let is_of_a_step = behind > 0 && steps[behind - 1].0 == copy.position.0;
            if let (Some(_), false, Some((_, step @ Step::Spent(..)))) = (&difference, is_of_a_step, steps.get(behind))
            {
                step.note(&mut expected);
                difference = expected.difference(&snapshot, exactly);
            }
            assert_eq!(difference, None, "seed {seed}, position {}", copy.position);
            drop(snapshot);
            let plan = Model::first_plan(&mut SplitMix(555), WorkspaceNo(CROWDED.0 + 1), 1);
            assert_eq!(transact(&restored, move |tx| plan.run(tx)).position, copy.position.next());
            restored.stop();
            drop(restored);
            assert_eq!(damage(&target), [""; 0], "seed {seed}, after a life");
        }
        storage.stop();
        drop(storage);
        assert_eq!(damage(&disk), [""; 0], "seed {seed}, where the copies came from");
    }
}

/// The power goes at every change of the disk while a store is restored: then a start refuses the directory, or finds nothing in
/// it, or all; and where it was not all, the same restore succeeds afterwards.
#[test]
fn a_restore_is_there_as_a_whole_or_not_at_all() {
    let source = MemoryDisk::new();
    let (storage, model) = store(&source, 3, 12);
    let copy = copied(storage.copy().expect("readable"));
    let mut cuts = 0;
    let mut seen = BTreeMap::<&str, u32>::new();
    loop {
        let disk = MemoryDisk::new();
        disk.stop_after(cuts);
        let done = restore(&disk, &copy);
        assert_eq!(done.is_ok(), !disk.stopped(), "after {cuts} changes: {:?}", done.err().map(|error| chain(&error)));
        for seed in 0..4 {
            let after = if seed == 0 { disk.kill() } else { disk.crash(cuts * 10 + seed) };
            let all = |storage: Storage| {
                let snapshot = storage.snapshot().expect("readable");
                let difference = model.difference(&snapshot, exactly);
                assert_eq!(difference, None, "after {cuts} changes, seed {seed}");
            };
            let files: Vec<String> = after.list(Path::new(DIR)).unwrap_or_default();
            let nothing = files.iter().all(|name| name == "LOCK");
            match Storage::open(options(&after)) {
                Ok(storage) if nothing => {
                    *seen.entry("nothing").or_default() += 1;
                    assert_eq!(storage.stats().position, 0, "after {cuts} changes, seed {seed}");
                    continue;
                }
                Ok(storage) => {
                    *seen.entry("all").or_default() += 1;
                    all(storage);
                    continue;
                }
                Err(error) => {
                    *seen.entry("refused").or_default() += 1;
                    assert!(matches!(error, OpenError::HalfRestored(_)), "after {cuts} changes: {}", chain(&error));
                    assert!(done.is_err() || disk.stopped());
                }
            }
            restore(&after, &copy).unwrap_or_else(|error| panic!("after {cuts} changes, again: {}", chain(&error)));
            all(open(options(&after)));
        }
        if done.is_ok() {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 20 && seen.len() == 3, "{cuts} changes, {seen:?}");
}

/// A disk that is full, wherever that is noticed, leaves the directory as it was, empty or not there; so do rows that cannot be read. A directory with
/// something in it is not touched.
#[test]
fn what_fails_leaves_the_directory_as_it_was() {
    let source = MemoryDisk::new();
    let (storage, _) = store(&source, 4, 12);
    let copy = copied(storage.copy().expect("readable"));
    let whole = MemoryDisk::new();
    restore(&whole, &copy).expect("it has room");
    let needed = whole.used_bytes();
    let mut tried = 0;
    for room in (0..needed).step_by(usize::try_from(needed / 40).expect("small").max(1)) {
        let disk = MemoryDisk::new();
        disk.set_capacity(Some(room));
        if restore(&disk, &copy).is_err() {
            tried += 1;
            assert!(
                disk.list(Path::new(DIR)).is_err(),
                "the directory is not there either, with room for {room} bytes"
            );
        }
    }
    assert!(tried > 10);

    let disk = MemoryDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("made");
    let cut = copy.chunks[0].len() / 2;
    let broken = Copied { chunks: vec![copy.chunks[0][..cut].to_vec()], ..copy.clone() };
    assert!(matches!(restore(&disk, &broken), Err(RestoreError::Rows(_))));
    let no_state = Restore::begin(Arc::new(disk.clone()), Path::new(DIR)).and_then(Restore::finish);
    assert!(matches!(no_state, Err(RestoreError::Order)));
    assert_eq!(disk.list(Path::new(DIR)).expect("it was there before"), Vec::<String>::new());

    disk.plant(&path("somebody's"), b"else");
    assert!(matches!(restore(&disk, &copy), Err(RestoreError::NotEmpty { .. })));
    assert_eq!(disk.contents(&path("somebody's")), Some(b"else".to_vec()));
}

/// Any byte of any file of a store is changed: verification says so, or the store is still exactly what it was. What a start
/// refuses is refused by verification in the same words.
#[test]
fn what_is_called_whole_is_what_was_written() {
    let original = MemoryDisk::new();
    let (storage, model) = store(&original, 5, 30);
    storage.stop();
    drop(storage);
    assert_eq!(damage(&original), [""; 0]);
    let mut files = vec![path("records.redb"), path("FORMAT")];
    files.extend(original.list(&path("log")).expect("listed").iter().map(|name| path("log").join(name)));
    let mut dice = SplitMix(17);
    let (mut told, mut refused) = (0, 0);
    for file in &files {
        let bytes = original.contents(file).expect("it is there");
        let tries = (bytes.len() as u64).min(if file.ends_with("records.redb") { 150 } else { 25 });
        for _ in 0..tries {
            let disk = original.kill();
            let mut damaged = bytes.clone();
            // Most of a new file of records is zeros that nobody reads.
            let from = dice.below(bytes.len() as u64) as usize;
            let at = bytes[from..].iter().position(|byte| *byte != 0).map_or(from, |on| from + on);
            damaged[at] ^= 1 << dice.below(8);
            disk.plant(file, &damaged);
            let said = damage(&disk);
            let opened = Storage::open(options(&disk));
            let shown = format!("byte {at} of {}: verification says {said:?}", file.display());
            match opened {
                Err(error) => {
                    refused += 1;
                    let told = chain(&error);
                    let last = told.rsplit(": ").next().expect("a text");
                    assert!(said.iter().any(|line| line.contains(last)), "{shown}, a start says {told}");
                }
                Ok(storage) if said.is_empty() => {
                    let snapshot = storage.snapshot().expect("readable");
                    assert_eq!(model.difference(&snapshot, exactly), None, "{shown}");
                }
                Ok(_) => told += 1,
            }
        }
    }
    assert!(told >= 3 && refused > 10, "{told} were told of, {refused} refused");
}

/// A directory of an older format is kept before it is changed, once, and what is kept is a data directory. Wherever the power
/// goes meanwhile, the old state is in the directory or in what was kept of it.
#[test]
fn an_upgrade_keeps_what_was() {
    let source = MemoryDisk::new();
    let (storage, model) = store(&source, 6, 12);
    storage.stop();
    drop(storage);
    source.plant(&path("FORMAT"), b"keyward data format 0\n");
    source.plant(&path("root.key"), b"unkey_secret");
    source.plant(&path("events/t/0000000000000001.parquet"), b"events");
    let same = |disk: &MemoryDisk| {
        let storage = Storage::open(options(disk)).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let snapshot = storage.snapshot().expect("readable");
        assert_eq!(model.difference(&snapshot, exactly), None);
    };
    // The snapshot as a data directory of its own, on a disk of its own.
    let taken_out = |disk: &MemoryDisk| {
        let out = MemoryDisk::new();
        let kept = path("before-format-1");
        for name in ["FORMAT", "records.redb", "VERSION"] {
            if let Some(bytes) = disk.contents(&kept.join(name)) {
                out.plant(&path(name), &bytes);
            }
        }
        for name in disk.list(&kept.join("log")).expect("kept") {
            out.plant(&path("log").join(&name), &disk.contents(&kept.join("log").join(&name)).expect("kept"));
        }
        out
    };
    let mut cuts = 0;
    loop {
        let disk = source.kill();
        disk.stop_after(cuts);
        let (options, _) = harness::noting_fatal(options(&disk));
        let _ = Storage::open(options);
        let stopped = disk.stopped();
        let after = disk.crash(cuts);
        let kept = after.contents(&path("before-format-1").join("FORMAT"));
        match after.contents(&path("FORMAT")).as_deref() {
            Some(b"keyward data format 0\n") => same(&after),
            Some(_) => {
                assert_eq!(kept.as_deref(), Some(&b"keyward data format 0\n"[..]), "after {cuts} changes");
                same(&after);
            }
            None => panic!("after {cuts} changes, FORMAT is gone"),
        }
        let after = disk.crash(cuts + 7);
        same(&after);
        same(&taken_out(&after));
        let kept = path("before-format-1");
        assert_eq!(after.contents(&kept.join("root.key")), None, "a secret is not copied");
        assert_eq!(after.contents(&kept.join("events/t/0000000000000001.parquet")), Some(b"events".to_vec()));
        if !stopped {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 10, "{cuts}");

    // No room for what has to be kept: nothing is changed, and the words say what to do.
    let disk = source.kill();
    disk.set_capacity(Some(disk.used_bytes() + 1000));
    let refused = harness::refusal(Storage::open(options(&disk)));
    assert!(refused.contains("make room") && refused.contains("before-format-1"), "{refused}");
    assert_eq!(disk.contents(&path("FORMAT")).as_deref(), Some(&b"keyward data format 0\n"[..]));
}

/// A newer format is refused, naming the version to install where it is known; verification says the same.
#[test]
fn a_newer_format_names_what_to_install() {
    let disk = MemoryDisk::new();
    let (storage, _) = store(&disk, 7, 3);
    storage.stop();
    drop(storage);
    disk.plant(&path("FORMAT"), b"keyward data format 9\n");
    disk.plant(&path("VERSION"), b"4.5.6\n");
    let refused = harness::refusal(Storage::open(options(&disk)));
    assert!(refused.contains("install keyward 4.5.6 or newer"), "{refused}");
    assert_eq!(damage(&disk), [refused]);
    disk.plant(&path("VERSION"), b"\x1b[31m\n");
    let refused = harness::refusal(Storage::open(options(&disk)));
    assert!(refused.ends_with("install a newer keyward"), "{refused}");
}
