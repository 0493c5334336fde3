//! The lock-free structures under every interleaving the schedule checker thinks of.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target-shuttle cargo test -p keyward-storage --test schedules`;
//! without the flag there is nothing here. Under it the atomics and locks of `hot/` are the checker's (`hot/sync.rs`), and
//! a rate cell is laid out in 64 bits, where the checker stops; all other code is the product's.
//!
//! A failure prints its schedule; `shuttle::replay` plays it again.
#![cfg(shuttle)]

use std::path::Path;
use std::sync::Arc;

use keyward_storage::disk::{Disk, MemoryDisk};
use keyward_storage::hot::table::{Table, pin};
use keyward_storage::hot::window::{Kind, Take, WindowJournal, Windows};
use shuttle::thread;

const SEED: [u8; 16] = *b"a secret of ours";

/// Schedules tried at random, and as many with few preemptions at chosen places (PCT: Burckhardt et al., 2010).
fn explore(story: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(story, 3_000);
    shuttle::check_pct(story, 3_000, 3);
}

/// Seconds, for the narrow cell's window numbers are small.
fn take(windows: &Windows, name: &str, limit: u64, cost: u64) -> Take {
    let subject = windows.subject(Kind::Namespace, 1, b"rlns_1", name.as_bytes(), 1_000);
    Take { subject, duration_ms: 1_000, limit, cost }
}

fn used(windows: &Windows, name: &str, now: u64) -> u64 {
    windows.take(&take(windows, name, 9, 0), now).expect("asking needs no room").used
}

mod windows {
    use super::*;

    const NOW: u64 = 20_000;

    /// RL-MULTI-11, RL-CON-02, RL-CON-03: of two single takes and a batch over both subjects either the singles pass or
    /// the batch, never a mixture, while the cells they find are dead and being swept away under their hands.
    #[test]
    fn singles_against_a_batch_and_a_sweep() {
        explore(|| {
            let windows = Arc::new(Windows::new(SEED, 6));
            for name in ["a", "b"] {
                assert!(windows.take(&take(&windows, name, 3, 2), 0).expect("room").passed);
            }
            let single = |name| {
                let windows = Arc::clone(&windows);
                thread::spawn(move || windows.take(&take(&windows, name, 3, 2), NOW).expect("room").passed)
            };
            let (a, b) = (single("a"), single("b"));
            let batch = {
                let windows = Arc::clone(&windows);
                thread::spawn(move || {
                    let both = [take(&windows, "b", 3, 2), take(&windows, "a", 3, 2)];
                    windows.take_all(&both, NOW, &mut Vec::new()).expect("room")
                })
            };
            let sweep = {
                let windows = Arc::clone(&windows);
                thread::spawn(move || (0..8).map(|_| windows.sweep(NOW)).sum::<usize>())
            };
            let (a, b) = (a.join().expect("a"), b.join().expect("b"));
            let batch = batch.join().expect("the batch");
            assert!(sweep.join().expect("the sweep") <= 4);
            assert_eq!((a, b), (!batch, !batch));
            assert_eq!((used(&windows, "a", NOW), used(&windows, "b", NOW)), (2, 2));
            assert!(windows.len() <= 2);
        });
    }

    /// Accounts add up, whoever comes first where cells are entered, refused and swept away, and of what has died nothing
    /// remains. A batch that finds room for one of its two subjects gives up in the end.
    #[test]
    fn accounts_add_up() {
        explore(|| {
            let of = |windows: &Windows, workspace, name: &str| {
                let subject = windows.subject(Kind::Namespace, workspace, b"rlns_1", name.as_bytes(), 1_000);
                Take { subject, duration_ms: 1_000, limit: 9, cost: 1 }
            };
            let windows = Arc::new(Windows::new(SEED, 2));
            assert!(windows.take(&of(&windows, 1, "dead"), 0).is_ok());
            let taker = |workspace: u32, names: &'static [&'static str]| {
                let windows = Arc::clone(&windows);
                thread::spawn(move || {
                    let takes: Vec<Take> = names.iter().map(|name| of(&windows, workspace, name)).collect();
                    usize::from(windows.take_all(&takes, NOW, &mut Vec::new()).is_ok()) * names.len()
                })
            };
            let takers = [taker(1, &["a"]), taker(1, &["a"]), taker(2, &["b", "c"])];
            let sweep = {
                let windows = Arc::clone(&windows);
                thread::spawn(move || windows.sweep(NOW))
            };
            let [one, same, two] = takers.map(|thread| thread.join().expect("a taker"));
            sweep.join().expect("the sweep");
            assert!(windows.len() <= windows.capacity());
            assert!(windows.held_by(1) >= one.max(same) && windows.held_by(2) >= two.min(2));
            assert_eq!(windows.held_by(1) + windows.held_by(2), windows.len());
            while windows.sweep(60_000) > 0 || !windows.is_empty() {}
            assert_eq!((windows.held_by(1), windows.held_by(2)), (0, 0));
        });
    }

    /// Batches in opposite orders neither wait for each other for ever nor admit more than fits; a batch that is denied
    /// does not keep a single take from what is left (RL-MULTI-11).
    #[test]
    fn batches_in_opposite_orders() {
        explore(|| {
            let windows = Arc::new(Windows::new(SEED, 8));
            let batch = |names: &'static [&'static str], limit| {
                let windows = Arc::clone(&windows);
                thread::spawn(move || {
                    let takes: Vec<Take> = names.iter().map(|name| take(&windows, name, limit, 1)).collect();
                    windows.take_all(&takes, NOW, &mut Vec::new()).expect("room")
                })
            };
            // "x" is spent: the last batch never passes.
            assert!(windows.take(&take(&windows, "x", 2, 2), NOW).expect("room").passed);
            let threads = [batch(&["a", "b", "c"], 2), batch(&["c", "a", "b", "a"], 3), batch(&["a", "x"], 2)];
            let [first, second, never] = threads.map(|thread| thread.join().expect("a batch"));
            assert!(!never && (first || second));
            let (first, second) = (u64::from(first), u64::from(second));
            let counts = ["a", "b", "c", "x"].map(|name| used(&windows, name, NOW));
            assert_eq!(counts, [first + 2 * second, first + second, first + second, 2]);
        });
    }

    /// RL-MULTI-11: a batch that takes nothing, because it asks or because it is denied, sees all its subjects at one
    /// instant: two that are only ever counted together are found equal.
    #[test]
    fn a_batch_sees_one_instant() {
        explore(|| {
            let windows = Arc::new(Windows::new(SEED, 4));
            let writer = {
                let windows = Arc::clone(&windows);
                thread::spawn(move || {
                    for _ in 0..2 {
                        let both = [take(&windows, "a", 9, 1), take(&windows, "b", 9, 1)];
                        assert!(windows.take_all(&both, NOW, &mut Vec::new()).expect("room"));
                    }
                })
            };
            let mut seen = Vec::new();
            for excess in [0, 10] {
                let both = [take(&windows, "b", 9, 0), take(&windows, "a", 9, 0), take(&windows, "c", 9, excess)];
                assert_eq!(windows.take_all(&both, NOW, &mut seen), Ok(excess == 0));
                assert_eq!(seen[0], seen[1]);
            }
            writer.join().expect("the writer");
        });
    }

    /// With all room taken by dead windows, new subjects are let in whoever clears the room, and known ones are not lost.
    #[test]
    fn room_is_made_at_once() {
        explore(|| {
            let windows = Arc::new(Windows::new(SEED, 2));
            for name in ["old", "older"] {
                assert!(windows.take(&take(&windows, name, 3, 2), 0).expect("room").passed);
            }
            let threads = ["a", "b"].map(|name| {
                let windows = Arc::clone(&windows);
                thread::spawn(move || windows.take(&take(&windows, name, 3, 2), NOW))
            });
            for thread in threads {
                assert!(thread.join().expect("a take").expect("room").passed);
            }
            assert_eq!((windows.len(), used(&windows, "a", NOW), used(&windows, "b", NOW)), (2, 2, 2));
            assert!(windows.take(&take(&windows, "c", 3, 2), NOW).is_err());
        });
    }

    /// RL-CON-04: whatever the journal misses because it is being counted just then, it finds the next time.
    #[test]
    fn the_journal_misses_nothing_for_good() {
        explore(|| {
            let windows = Arc::new(Windows::new(SEED, 4));
            let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
            let open = |windows: &Windows| {
                WindowJournal::open(Arc::clone(&disk), Path::new("/d"), [1; 16], windows, NOW).expect("a disk").0
            };
            let mut journal = open(&windows);
            journal.write_changed(&windows, NOW).expect("a disk");
            let counting = [1, 2].map(|cost| {
                let windows = Arc::clone(&windows);
                thread::spawn(move || {
                    assert!(windows.take(&take(&windows, "a", 9, cost), NOW).expect("room").passed);
                    let both = [take(&windows, "a", 9, cost), take(&windows, "b", 9, cost)];
                    assert!(windows.take_all(&both, NOW, &mut Vec::new()).expect("room"));
                })
            });
            for _ in 0..2 {
                journal.write_changed(&windows, NOW).expect("a disk");
                thread::yield_now();
            }
            for thread in counting {
                thread.join().expect("counting");
            }
            journal.write_changed(&windows, NOW).expect("a disk");
            let found = Windows::new(SEED, 4);
            open(&found);
            assert_eq!((used(&found, "a", NOW), used(&found, "b", NOW)), (6, 3));
        });
    }
}

mod table {
    use super::*;

    /// One node per key: of all who bring a key in, each appearance has one author, whatever leaves in between and
    /// whoever pushes into the same chain.
    #[test]
    fn a_key_is_there_once() {
        explore(|| {
            let table = Arc::new(Table::<u64, u64>::with_buckets(1));
            let enter = |key, value| {
                let table = Arc::clone(&table);
                thread::spawn(move || i64::from(table.get_or_insert_noting(key, key, || value, &pin()).1))
            };
            let leave = {
                let table = Arc::clone(&table);
                thread::spawn(move || -i64::from(table.remove_if(1, &1, &pin(), |_| true)))
            };
            let put = {
                let table = Arc::clone(&table);
                thread::spawn(move || i64::from(!table.replace(1, 1, 30, &pin())))
            };
            let neighbour = enter(2, 0);
            let balance: i64 =
                [enter(1, 10), enter(1, 20), leave, put].into_iter().map(|thread| thread.join().expect("done")).sum();
            assert_eq!(neighbour.join().expect("done"), 1);
            let mut keys = Vec::new();
            table.visit(0..1, &pin(), |key, _| keys.push(*key));
            keys.sort_unstable();
            assert_eq!(keys, if balance == 1 { vec![1, 2] } else { vec![2] });
            assert!((0..=1).contains(&balance));
            assert_eq!(table.len(), keys.len());
        });
    }

    /// A reader of a key that is being replaced sees the old value or the new, never neither and never one gone back,
    /// while nodes before and behind it come and go.
    #[test]
    fn a_replaced_key_is_never_missed() {
        explore(|| {
            let table = Arc::new(Table::<u64, u64>::with_buckets(1));
            for key in [8, 1, 9] {
                table.replace(key, key, 0, &pin());
            }
            let writer = {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    for number in 1..=2 {
                        assert!(table.replace(1, 1, number, &pin()));
                    }
                })
            };
            let sweeper = {
                let table = Arc::clone(&table);
                thread::spawn(move || table.sweep(0..1, &pin(), |key, _| *key != 1))
            };
            let pusher = {
                let table = Arc::clone(&table);
                thread::spawn(move || *table.get_or_insert(7, 7, || 5, &pin()))
            };
            let mut last = 0;
            for _ in 0..4 {
                let guard = pin();
                let number = *table.get(1, &1, &guard).expect("it is always there");
                assert!(number >= last);
                last = number;
            }
            writer.join().expect("the writer");
            assert_eq!(pusher.join().expect("the pusher"), 5);
            let swept = sweeper.join().expect("the sweeper");
            assert_eq!(table.len(), 4 - swept);
            assert_eq!(table.get(1, &1, &pin()), Some(&2));
        });
    }

    /// What is done under a bucket's lock is one step for all who take it: "compare the floor, then insert", against a
    /// publish that raises the floor, leaves the published value whichever comes first.
    #[test]
    fn a_late_fill_loses() {
        explore(|| {
            let table = Arc::new(Table::<u64, u64>::with_buckets(1));
            let publish = {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    let guard = pin();
                    let mut bucket = table.locked(1);
                    bucket.set_floor(2);
                    bucket.replace(1, 2, &guard);
                })
            };
            let fill = {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    let guard = pin();
                    let mut bucket = table.locked(1);
                    bucket.floor() <= 1 && bucket.insert(1, 1, &guard)
                })
            };
            let seen = table.get(1, &1, &pin()).copied();
            assert!(seen.is_none() || seen == Some(1) || seen == Some(2));
            publish.join().expect("the publisher");
            fill.join().expect("the filler");
            assert_eq!(table.get(1, &1, &pin()), Some(&2));
        });
    }
}

// The hot index, shared views and credits: `src/hot/schedules.rs`, inside the crate, because what they are driven by is.
