//! Readers of the log: what they are handed is what happened, their segments stay while they are needed and not for ever, and
//! whoever is too late is told so and can begin again.

mod harness;

use std::collections::BTreeMap;
use std::time::Duration;

use keyward_storage::disk::MemoryDisk;
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::ids::WorkspaceNo;
use keyward_storage::position::Position;
use keyward_storage::records::{Effect, TableNo};
use keyward_storage::{Feed, FeedError, Options, Read, Source, Storage};

use harness::model::Model;
use harness::{flush, open, options, transact};

/// Every row of the tables that a reader has seen change.
type Rows = BTreeMap<(TableNo, Vec<u8>), Vec<u8>>;

/// Changes the store at random, so many times.
fn change(storage: &Storage, model: &mut Model, dice: &mut SplitMix, times: usize) {
    for _ in 0..times {
        let plan = match model.workspaces.is_empty() {
            true => Model::first_plan(dice, WorkspaceNo(1), 1000),
            false => model.random_plan(dice),
        };
        plan.note(model);
        transact(storage, move |tx| plan.run(tx));
    }
}

fn apply(rows: &mut Rows, effect: Effect) {
    match effect.value {
        Some(value) => drop(rows.insert((effect.table, effect.key), value)),
        None => drop(rows.remove(&(effect.table, effect.key))),
    }
}

/// Takes all there is.
fn drain(feed: &mut Feed, rows: &mut Rows) -> Result<(), FeedError> {
    while feed.take(|effect| apply(rows, effect))?.is_some() {}
    Ok(())
}

/// Every row there is, in the tables of the product.
fn all_rows(source: &Source) -> Rows {
    let snapshot = source.snapshot().expect("a snapshot");
    let mut rows = Rows::new();
    for table in 0..100 {
        let of_table = snapshot.range(table, &[], None, usize::MAX).expect("readable");
        rows.extend(of_table.into_iter().map(|(key, value)| ((table, key), value)));
    }
    rows
}

fn segments(disk: &MemoryDisk) -> usize {
    use keyward_storage::disk::Disk;
    disk.list(&harness::path("log")).expect("listed").len()
}

/// A reader that goes on after pauses, restarts and crashes has exactly the rows that are there; what it has not released is
/// kept for it through checkpoints, and through a start that knows of it.
#[test]
fn a_reader_has_what_is_there_and_finds_its_log_again() {
    let disk = MemoryDisk::new();
    let (mut model, mut dice, mut rows) = (Model::default(), SplitMix(11), Rows::new());
    let mut position = Position::START;
    for age in 0..4 {
        let storage = open(Options { expected_reader: Some(position), segment_bytes: 2048, ..options(&disk) });
        let source = storage.source();
        // Nobody has come yet, and a checkpoint is made.
        change(&storage, &mut model, &mut dice, 10);
        flush(&storage);
        let mut feed = source.resume(position).expect("its log is there");
        for _ in 0..3 {
            change(&storage, &mut model, &mut dice, 10);
            flush(&storage);
            drain(&mut feed, &mut rows).expect("its log is there");
            assert_eq!(rows, all_rows(&source));
            assert!(!feed.has_more() && !feed.wait(Duration::ZERO));
        }
        assert!(segments(&disk) > 1, "what it has not released is kept");
        position = feed.position();
        feed.release(position);
        flush(&storage);
        change(&storage, &mut model, &mut dice, 1);
        flush(&storage);
        assert!(segments(&disk) <= 2, "what it has released goes");
        if age % 2 == 0 {
            storage.stop();
        }
    }
}

/// The log does not grow because a reader is dead: beyond its bytes it is cut loose, is told so, and begins again from the
/// records. So is one that comes back too late, or from another history.
#[test]
fn a_reader_that_is_too_far_behind_begins_again() {
    let disk = MemoryDisk::new();
    let storage = open(Options { segment_bytes: 2048, feed_bytes_max: 8192, ..options(&disk) });
    let source = storage.source();
    let (mut model, mut dice) = (Model::default(), SplitMix(12));
    let mut slow = source.begin();
    let mut quick = source.begin();
    let (mut rows, mut nothing) = (Rows::new(), Rows::new());
    for _ in 0..40 {
        change(&storage, &mut model, &mut dice, 5);
        flush(&storage);
        drain(&mut quick, &mut rows).expect("it keeps up");
        quick.release(quick.position());
        assert!(segments(&disk) < 16, "the log is bounded");
    }
    assert!(matches!(drain(&mut slow, &mut nothing), Err(FeedError::Behind(Position::START))));
    assert!(nothing.is_empty(), "nothing is handed out behind a gap");
    assert!(matches!(source.resume(Position::START), Err(FeedError::Behind(_))));
    assert!(matches!(source.resume(Position(u64::MAX)), Err(FeedError::Behind(_))));

    drop(slow);
    let mut again = source.begin();
    let mut begun = all_rows(&source);
    change(&storage, &mut model, &mut dice, 20);
    drain(&mut again, &mut begun).expect("its log is there");
    assert_eq!(begun, all_rows(&source));
    assert_eq!(again.position(), source.position());
}

/// A reader that waits is woken by a change, and by whoever wants it to look around.
#[test]
fn a_reader_that_waits_is_woken() {
    let disk = MemoryDisk::new();
    let storage = open(options(&disk));
    let (source, mut model, mut dice) = (storage.source(), Model::default(), SplitMix(13));
    let feed = source.begin();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| while !feed.wait(Duration::from_secs(60)) {});
        change(&storage, &mut model, &mut dice, 1);
        waiting.join().expect("it was woken");
    });
    let feed = source.begin();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| feed.wait(Duration::from_secs(60)));
        while !waiting.is_finished() {
            source.wake();
            std::thread::yield_now();
        }
        assert!(!waiting.join().expect("it was woken"), "without news");
    });
}
