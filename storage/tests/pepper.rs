//! A key gets the hash of another stage in the very batch in which other things happen to it, and the file of records is
//! written anew.

mod harness;

use harness::model::{Model, Op};
use harness::{Plug, flush, hash, open, options, submit, transact, wait};
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::disk::{Disk, MemoryDisk};
use keyward_storage::ids::{KeyId, MigrationId, WorkspaceNo};
use keyward_storage::pepper::{PEPPER_BYTES, Pepper, Peppered};
use keyward_storage::records::key::{self, KeyDigest, KeyRow};
use keyward_storage::records::{migration, pepper};
use keyward_storage::{Abort, Change, Lookup, Options, Snapshot, Spent, Storage, Tx};
use zeroize::Zeroizing;

const NO: WorkspaceNo = WorkspaceNo(1);

fn with_pepper(disk: &MemoryDisk) -> Options {
    // One segment, as in a small store, which holds everything from the beginning on.
    let segment_bytes = 64 << 20;
    Options { peppers: vec![Pepper::new(Zeroizing::new([7; PEPPER_BYTES]))], segment_bytes, ..options(disk) }
}

fn begin(tx: &mut Tx<'_>) -> Result<(), Abort<&'static str>> {
    pepper::begin(tx, 1)?.map(drop).map_err(|_| Abort::Refused("no switch"))
}

/// Takes all hashes that are in a snapshot a stage further, in one transaction.
fn rehash(snapshot: &Snapshot) -> impl FnOnce(&mut Tx<'_>) -> Result<u64, Abort<&'static str>> + Send + 'static {
    let waiting = pepper::waiting(snapshot, 1, &[], usize::MAX).expect("readable");
    let hashes: Vec<key::KeyHash> = waiting.into_iter().map(|(_, hash)| hash).collect();
    move |tx| Ok(pepper::rehash_keys(tx, NO, &hashes)?)
}

fn raise(id: KeyId) -> impl FnOnce(&mut Tx<'_>) -> Result<u64, Abort<&'static str>> {
    move |tx| {
        let row = key::get(tx, NO, id)?.ok_or(Abort::Refused("no key"))?;
        tx.change_credits(NO, id, &row, Change::Add(1000), None)?.map_err(|_| Abort::Refused("too many"))
    }
}

fn balance(storage: &Storage, digest: &KeyDigest) -> u64 {
    storage.read_key(NO, digest).expect("readable").expect("there").counters.balance()
}

/// Spends that are in no row yet are seen by a change of the credits before or after the key gets its hash, in one batch, whether
/// a migrated key gets its own hash before, after or not at all: there is one purse, whichever view one holds.
#[test]
fn a_new_hash_takes_the_purse_along() {
    for order in ["mc", "cm", "cmc", "amc", "mac", "mca", "acm"] {
        let storage = open(with_pepper(&MemoryDisk::new()));
        let mut dice = SplitMix(7);
        let mut plan = Model::first_plan(&mut dice, NO, 20);
        let Some(Op::NewKey(at, row, credits)) = plan.ops.pop() else { panic!("the last change is a key") };
        let (foreign, native, id) = (KeyDigest(row.hash), hash(&mut dice), at.1);
        plan.ops.push(Op::PendingKey(at, row, credits, MigrationId(harness::id(&mut dice))));
        transact(&storage, move |tx| plan.run(tx));
        let seen = storage.read_key(NO, &foreign).expect("readable").expect("there");
        transact(&storage, begin);
        assert!(matches!(storage.key(NO, &foreign), Lookup::Hot(_)), "{order}: it stays hot");

        let plug = Plug::new(&storage);
        assert_eq!(storage.spend(&seen, 3), Spent::Taken(17), "nobody can write it down now");
        let snapshot = storage.snapshot().expect("readable");
        let mut raised = Vec::new();
        for step in order.chars() {
            match step {
                'm' => drop(submit(&storage, rehash(&snapshot))),
                'c' => raised.push(submit(&storage, raise(id))),
                _ => drop(submit(&storage, move |tx: &mut Tx<'_>| {
                    let row = key::get(tx, NO, id)?.ok_or(Abort::Refused("no key"))?;
                    let came = migration::of_key(tx, NO, id)?.ok_or(Abort::Refused("not migrated"))?;
                    let row = KeyRow { hash: tx.hash(&KeyDigest(native))?, ..row };
                    Ok(migration::adopt(tx, NO, id, &row, &came)?)
                })),
            }
        }
        drop((snapshot, plug));
        let mut expected = 17;
        for raised in &raised {
            expected += 1000;
            let raised = wait(raised).expect("applied");
            assert_eq!(
                (raised.value, raised.balance),
                (expected, Some(expected)),
                "{order}: the spend is in no row yet"
            );
        }
        let digest = if order.contains('a') { KeyDigest(native) } else { foreign };
        assert_eq!(balance(&storage, &digest), expected, "{order}");
        assert_eq!(storage.spend(&seen, 7), Spent::Taken(expected - 7), "{order}: whoever holds the old view");
        assert_eq!(balance(&storage, &digest), expected - 7, "{order}: spends from the same purse");
        if order.contains('a') {
            assert!(
                storage.read_key(NO, &foreign).expect("readable").is_none(),
                "{order}: an alias is no way to a view"
            );
        }
        flush(&storage);
        let snapshot = storage.snapshot().expect("readable");
        assert_eq!(
            key::credits(&snapshot, NO, id).expect("readable").expect("limited").balance,
            expected - 7,
            "{order}"
        );
        let row = key::get(&snapshot, NO, id).expect("readable").expect("there");
        assert_eq!(row.hash, snapshot.peppers().chain().hashes(&digest).newest().1, "{order}");
        assert_eq!(key::find(&snapshot, NO, &foreign).expect("readable"), Some(id), "{order}: by its foreign hash");
        assert!(pepper::waiting(&snapshot, 1, &[], 1).expect("readable").is_empty(), "{order}");
        drop(snapshot);
        // Gone for good, its hashes are free.
        transact(&storage, move |tx: &mut Tx<'_>| -> Result<(), Abort<&'static str>> {
            let row = key::get(tx, NO, id)?.ok_or(Abort::Refused("no key"))?;
            key::purge(tx, NO, id, &row)?;
            assert_eq!((key::find(tx, NO, &foreign)?, key::find(tx, NO, &digest)?), (None, None));
            Ok(())
        });
        for digest in [foreign, digest] {
            assert!(storage.read_key(NO, &digest).expect("readable").is_none() && !storage.knows_absent(NO, &digest));
        }
    }
}

/// A workspace with so many keys: their ids and digests.
fn fill(storage: &Storage, dice: &mut SplitMix, count: usize) -> Vec<(KeyId, KeyDigest)> {
    let mut plan = Model::first_plan(dice, NO, 20);
    let Some(Op::NewKey(_, row, _)) = plan.ops.pop() else { panic!("the last change is a key") };
    let mut keys = Vec::new();
    for _ in 0..count {
        let (id, hash) = (KeyId(harness::id(dice)), hash(dice));
        plan.ops.push(Op::NewKey((NO, id), Box::new(KeyRow { hash, ..(*row).clone() }), Some(20)));
        keys.push((id, KeyDigest(hash)));
    }
    transact(storage, move |tx| plan.run(tx));
    keys
}

/// A key that is not in memory does not come there because its hash changes, and what was never stored is absent at every stage.
#[test]
fn a_switch_fills_no_memory() {
    let disk = MemoryDisk::new();
    let storage = open(with_pepper(&disk));
    let keys = fill(&storage, &mut SplitMix(3), 50);
    storage.stop();
    drop(storage);
    let storage = open(with_pepper(&disk));
    let (first, digest) = keys[0];
    storage.read_key(NO, &digest).expect("readable").expect("there");
    transact(&storage, begin);
    let snapshot = storage.snapshot().expect("readable");
    assert_eq!(transact(&storage, rehash(&snapshot)).value, 50);
    let entries = storage.stats().hot_keys;
    assert!(entries <= 2, "{entries} entries: the key, and that its old hash is nobody's");
    assert!(matches!(storage.key(NO, &digest), Lookup::Hot(view) if view.id == first));
    for (id, digest) in &keys[1..] {
        assert!(matches!(storage.key(NO, digest), Lookup::Unknown));
        assert_eq!(storage.read_key(NO, digest).expect("readable").expect("there").id, *id);
        assert!(matches!(storage.key(NO, digest), Lookup::Hot(_)));
    }
    assert!(matches!(storage.key(NO, &KeyDigest([1; 32])), Lookup::Absent));
}

/// When a switch has ended, the next start that is told to writes the file of records anew and begins a segment of the log: then
/// no file holds a bare digest, and everything is as it was.
#[test]
fn nothing_is_left_of_bare_digests() {
    let disk = MemoryDisk::new();
    let storage = open(with_pepper(&disk));
    let keys = fill(&storage, &mut SplitMix(11), 50);
    transact(&storage, begin);
    let snapshot = storage.snapshot().expect("readable");
    transact(&storage, rehash(&snapshot));
    drop(snapshot);
    transact(&storage, |tx: &mut Tx<'_>| Ok(pepper::end(tx, 2)?));
    storage.stop();
    drop(storage);
    assert!(!holding(&disk, &keys).is_empty(), "the search finds what is there");

    for cleared in [true, false] {
        let storage = open(Options { clear_after_switch: true, ..with_pepper(&disk) });
        assert_eq!(storage.was_cleared(), cleared, "once is enough");
        for (id, digest) in &keys {
            assert_eq!(storage.read_key(NO, digest).expect("readable").expect("there").id, *id);
        }
        transact(&storage, |tx: &mut Tx<'_>| Ok(pepper::cleared(tx, 3)?));
        flush(&storage);
        assert_eq!(holding(&disk, &keys), Vec::<String>::new());
        storage.stop();
    }
}

/// Files of the store that hold one of these.
fn holding(disk: &MemoryDisk, keys: &[(KeyId, KeyDigest)]) -> Vec<String> {
    let mut found = Vec::new();
    for dir in ["", "log"] {
        let dir = harness::path(dir);
        for name in disk.list(&dir).expect("readable") {
            let path = dir.join(&name);
            let Ok(file) = disk.open(&path, false) else { continue };
            let mut bytes = vec![0; usize::try_from(file.len().expect("readable")).expect("small")];
            file.read_exact_at(0, &mut bytes).expect("readable");
            if keys.iter().any(|(_, digest)| bytes.windows(32).any(|window| window == digest.0)) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
