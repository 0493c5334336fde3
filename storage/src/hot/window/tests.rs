//! The promises of the windows as a whole: one take, batches, test mode, sweeps, restarts, threads.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use super::journal::{DIRECTORY, FILE, HEADER_BYTES, SLOT_BYTES};
use super::windows::{SETTLE_MS, SWEEPS_PER_ROUND, TRUST_MS_PER_SWEEP};
use super::*;
use crate::disk::Disk;
use crate::disk::memory::{Call, MemoryDisk, SplitMix};

const SEED: [u8; 16] = *b"a secret of ours";
const STORE: [u8; 16] = [7; 16];
const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// The start of a window of a minute, an hour, and thirty days.
const T: u64 = 660 * 30 * 24 * HOUR;

fn take(windows: &Windows, name: &str, duration_ms: u64, limit: u64, cost: u64) -> Take {
    let subject = windows.subject(Kind::Namespace, 1, b"rlns_1", name.as_bytes(), duration_ms);
    Take { subject, duration_ms, limit, cost }
}

fn all(windows: &Windows, takes: &[Take], now: u64) -> (bool, Vec<(bool, u64)>) {
    let mut out = Vec::new();
    let passed = windows.take_all(takes, now, &mut out).expect("room");
    (passed, out.iter().map(|decision| (decision.passed, decision.remaining)).collect())
}

/// Tokens that count for a subject, by asking.
fn used(windows: &Windows, mut take: Take, now: u64) -> u64 {
    take.cost = 0;
    windows.take(&take, now).expect("asking needs no room").used
}

fn sweep_round(windows: &Windows, now: u64) -> usize {
    (0..SWEEPS_PER_ROUND).map(|_| windows.sweep(now)).sum()
}

/// RL-USE-03, COM-WRL-08, KEYS-RL-5: kind, workspace, owner, name and duration each make another subject, wherever the
/// border between owner and name lies; and another store's secret makes others altogether.
#[test]
fn subjects_never_meet() {
    let windows = Windows::new(SEED, 16);
    let mut subjects = vec![Windows::new([1; 16], 16).subject(Kind::Key, 1, b"ab", b"c", 1_000)];
    for kind in [Kind::Namespace, Kind::Key, Kind::Identity, Kind::Workspace] {
        for workspace in [1, 2, u32::MAX] {
            for (owner, name) in [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("ab", "C"), ("ab", "c ")] {
                for duration in [1_000, 1_001, i64::MAX as u64] {
                    let subject = || windows.subject(kind, workspace, owner.as_bytes(), name.as_bytes(), duration);
                    assert_eq!(subject(), subject());
                    subjects.push(subject());
                }
            }
        }
    }
    let mut unique = subjects.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), subjects.len());
}

/// RL-MULTI-05, RL-MULTI-06, RL-MULTI-07, RL-MULTI-08, RL-MULTI-09, RL-MULTI-10, KEYS-RL-7, KEYS-RL-8, by their
/// examples, in ordinary and in test mode.
#[test]
fn batches_take_all_or_nothing() {
    for windows in [Windows::new(SEED, 64), Windows::for_tests(SEED, 64)] {
        let minute = |name, limit, cost| take(&windows, name, MINUTE, limit, cost);
        // RL-MULTI-08
        let (day, hour) = (take(&windows, "d", 24 * HOUR, 10, 3), take(&windows, "h", HOUR, 20, 3));
        assert!(all(&windows, &[Take { cost: 8, ..day }, Take { cost: 8, ..hour }], T).0);
        assert_eq!(all(&windows, &[day, hour], T), (false, vec![(false, 0), (true, 12)]));
        assert_eq!((used(&windows, day, T), used(&windows, hour, T)), (8, 8));
        // RL-MULTI-09
        assert_eq!(all(&windows, &[minute("e", 5, 3), minute("e", 5, 3)], T), (false, vec![(true, 5), (false, 0)]));
        assert_eq!(used(&windows, minute("e", 5, 0), T), 0);
        assert_eq!(all(&windows, &[minute("e", 5, 2), minute("e", 5, 2)], T), (true, vec![(true, 3), (true, 1)]));
        assert_eq!(used(&windows, minute("e", 5, 0), T), 4);
        // RL-MULTI-10: the middle one is exhausted, all are told.
        assert!(windows.take(&minute("m", 1, 1), T).expect("room").passed);
        let three = [minute("l", 9, 1), minute("m", 1, 1), minute("r", 9, 2)];
        assert_eq!(all(&windows, &three, T), (false, vec![(true, 9), (false, 0), (true, 9)]));
        // RL-MULTI-14: one remaining per entry.
        let three = [minute("a", 100, 1), minute("b", 50, 3), minute("c", 200, 10)];
        assert_eq!(all(&windows, &three, T), (true, vec![(true, 99), (true, 47), (true, 190)]));
        // RL-ALG-11: a cost that does not fit takes its batch with it, and leaves nothing behind.
        let huge = [minute("x", i64::MAX as u64, 1), minute("y", i64::MAX as u64, i64::MAX as u64)];
        let near = i64::MAX as u64;
        assert_eq!(all(&windows, &huge, T), (false, vec![(true, near), (false, 0)]));
        let twice = [minute("x", near, near), minute("x", near, near)];
        assert!(!all(&windows, &twice, T).0);
        assert_eq!(used(&windows, huge[0], T), 0);
        // KEYS-RL-7: 12 a minute and 200 in 30 days; the thirteenth call leaves the month at 188.
        let limits = [minute("k", 12, 1), take(&windows, "k30", 30 * 24 * HOUR, 200, 1)];
        for call in 1..=12 {
            assert_eq!(all(&windows, &limits, T), (true, vec![(true, 12 - call), (true, 200 - call)]));
        }
        assert_eq!(all(&windows, &limits, T), (false, vec![(false, 0), (true, 188)]));
        // KEYS-RL-8: cost 0 passes exactly at the limit, also beside one that counts.
        let asking = [minute("k", 12, 0), minute("k2", 5, 1)];
        assert_eq!(all(&windows, &asking, T), (true, vec![(true, 0), (true, 4)]));
        // Nothing asked, nothing denied.
        assert_eq!(all(&windows, &[], T), (true, vec![]));
        // A batch of one behaves like the single call (RL-MULTI-13).
        assert_eq!(all(&windows, &[minute("k", 12, 1)], T), (false, vec![(false, 0)]));
    }
}

/// RL-ALG and RL-MULTI written down again over plain maps of unbounded numbers.
#[derive(Default)]
struct Plain {
    accepted: HashMap<(Subject, u64), i128>,
}

impl Plain {
    fn batch(&mut self, takes: &[Take], t: u64) -> (bool, Vec<(bool, u64)>) {
        let mut added = HashMap::<Subject, i128>::new();
        let mut effective = Vec::new();
        for take in takes {
            let (d, s) = (i128::from(take.duration_ms), t / take.duration_ms);
            let count = |s: Option<u64>| s.and_then(|s| self.accepted.get(&(take.subject, s))).copied().unwrap_or(0);
            let elapsed = i128::from(t) - i128::from(s) * d;
            let weight = count(s.checked_sub(1)) * (d - elapsed) / d;
            *added.entry(take.subject).or_default() += i128::from(take.cost);
            effective.push(count(Some(s)) + added[&take.subject] + weight);
        }
        let fits: Vec<bool> = takes.iter().zip(&effective).map(|(take, e)| *e <= i128::from(take.limit)).collect();
        let passed = fits.iter().all(|fits| *fits);
        if passed {
            for take in takes {
                *self.accepted.entry((take.subject, t / take.duration_ms)).or_default() += i128::from(take.cost);
            }
        }
        let entries = takes.iter().zip(effective).zip(fits).map(|((take, e), fits)| {
            let back = if passed { 0 } else { i128::from(take.cost) };
            (fits, if fits { (i128::from(take.limit) - e + back) as u64 } else { 0 })
        });
        (passed, entries.collect())
    }
}

/// RL-ALG-01, RL-ALG-02, RL-ALG-03, RL-ALG-04, RL-ALG-05, RL-ALG-06, RL-ALG-07, RL-ALG-08, RL-ALG-09, RL-ALG-12,
/// RL-MULTI-05, RL-MULTI-06, RL-MULTI-07: over random singles and batches of up to twelve entries, subjects repeated
/// within them, with sweeps and restarts in between, every answer is the contract's; and memory stays small.
#[test]
fn random_schedules_equal_the_plain_reading() {
    for seed in 0..6 {
        let mut random = SplitMix(seed);
        let mut windows = Windows::new(SEED, 64);
        let mut plain = Plain::default();
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let open = |windows: &Windows, t| {
            WindowJournal::open(Arc::clone(&disk), Path::new("/d"), STORE, windows, t).expect("a disk").0
        };
        let mut journal = open(&windows, T);
        let mut t = T + random.below(HOUR);
        for round in 0..3_000 {
            t += [0, 1, 37, 400, 1_900, 61_000][random.below(6) as usize];
            let mut entry = || {
                let duration = [1_000, 7_000, MINUTE][random.below(3) as usize];
                let name = ["a", "b", "c", "d"][random.below(4) as usize];
                take(&windows, name, duration, 3 + random.below(12), random.below(4))
            };
            let batch: Vec<Take> = (0..1 + round % 12).map(|_| entry()).collect();
            // Small batches pass more often.
            let batch = &batch[..1 + random.below(batch.len() as u64) as usize];
            assert_eq!(all(&windows, batch, t), plain.batch(batch, t), "seed {seed}, round {round}");
            match random.below(40) {
                0 => drop(sweep_round(&windows, t)),
                1..4 => drop(journal.write_changed(&windows, t).expect("a disk")),
                4 => {
                    journal.write_changed(&windows, t).expect("a disk");
                    windows = Windows::new(SEED, 64);
                    journal = open(&windows, t);
                }
                _ => {}
            }
            assert!(windows.len() <= 12);
        }
    }
}

/// RL-TIME-02, RL-TIME-03: in test mode the order of test times does not matter, and windows of long ago are still there.
#[test]
fn test_times_come_in_any_order() {
    let minutes = [7u64, 3, 7, 4, 100_000, 3, 8, 5, 4, 7];
    let forward = {
        let mut sorted = minutes;
        sorted.sort_unstable();
        sorted
    };
    let mut after = Vec::new();
    for order in [minutes, forward] {
        let windows = Windows::for_tests(SEED, 0);
        let one = take(&windows, "u", MINUTE, 100, 10);
        for minute in order {
            assert!(windows.take(&one, minute * MINUTE).expect("room").passed);
        }
        assert_eq!((windows.sweep(T), windows.len()), (0, 6));
        after.push((2..10).map(|minute| used(&windows, one, minute * MINUTE + 30_000)).collect::<Vec<_>>());
    }
    assert_eq!(after[0], [0, 20, 30, 20, 5, 30, 25, 5]);
    assert_eq!(after[0], after[1]);

    // When memory demands it, the window first counted in goes first.
    let windows = Windows::for_tests(SEED, 0);
    let one = take(&windows, "u", MINUTE, 1, 1);
    for minute in 0..=windows.capacity() as u64 {
        assert!(windows.take(&one, minute * 2 * MINUTE).expect("room").passed);
    }
    assert_eq!(windows.len(), windows.capacity());
    assert_eq!((used(&windows, one, 0), used(&windows, one, 2 * MINUTE)), (0, 1));
}

/// Denied and asking calls of strangers make no cell, so they cannot fill the memory; nor does a denied batch
/// (RL-ALG-07, RL-MULTI-06).
#[test]
fn what_is_not_counted_leaves_no_trace() {
    let windows = Windows::new(SEED, 2);
    for stranger in 0..100 {
        let name = stranger.to_string();
        let (ask, greedy) = (take(&windows, &name, MINUTE, 5, 0), take(&windows, &name, MINUTE, 5, 6));
        assert!(windows.take(&ask, T).expect("room").passed);
        assert!(!windows.take(&greedy, T).expect("room").passed);
        let fine = take(&windows, "fine", MINUTE, 5, 1);
        assert_eq!(all(&windows, &[fine, greedy], T), (false, vec![(true, 5), (false, 0)]));
        assert_eq!(all(&windows, &[ask, Take { cost: 0, ..fine }], T), (true, vec![(true, 5), (true, 5)]));
        assert!(windows.is_empty());
    }
}

/// RL-ALG-12: with all room taken by live windows a new subject is refused, the known ones go on and keep their counts;
/// when windows have died there is room again, without waiting for a sweep.
#[test]
fn live_windows_are_never_forgotten() {
    let windows = Windows::new(SEED, 3);
    let sub = |name: &str| take(&windows, name, MINUTE, 2, 1);
    for name in ["a", "b", "c"] {
        assert!(windows.take(&sub(name), T).expect("room").passed);
    }
    // All three still weigh in the next window.
    let later = T + 2 * MINUTE - 1;
    for _ in 0..3 {
        assert_eq!(windows.take(&sub("d"), later), Err(Exhausted));
        assert_eq!(windows.take_all(&[sub("a"), sub("d")], later, &mut Vec::new()), Err(Exhausted));
        assert_eq!(sweep_round(&windows, later), 0);
    }
    assert_eq!(used(&windows, sub("a"), later), 0);
    assert_eq!(["a", "b", "c"].map(|name| used(&windows, sub(name), T + 59_999)), [1, 1, 1]);
    // Two of them go on; the third dies, and its place is taken at once.
    for name in ["a", "b"] {
        assert!(windows.take(&sub(name), later).expect("room").passed);
    }
    assert!(windows.take(&sub("d"), later + 1).expect("room of c").passed);
    assert_eq!(windows.take(&sub("c"), later + 1), Err(Exhausted));
    assert_eq!(windows.len(), 3);
    // A batch larger than all the room is refused, not tried for ever, and what it entered meanwhile is not in the way.
    let names: Vec<String> = (0..9).map(|n| n.to_string()).collect();
    let batch: Vec<Take> = names.iter().map(|name| sub(name)).collect();
    let after = T + 9 * MINUTE;
    assert_eq!(sweep_round(&windows, after), 3);
    assert_eq!(windows.take_all(&batch, after, &mut Vec::new()), Err(Exhausted));
    assert!(all(&windows, &batch[..3], after).0);
}

/// A workspace that counts ever new subjects fills its share and no more: it keeps those it has, the others find room for
/// theirs, and so they do after a restart, which forgets no live window. What has died is off its account.
#[test]
fn one_workspace_cannot_take_all_room() {
    const ROOM: usize = 800;
    fn of(windows: &Windows, workspace: u32, n: usize) -> Take {
        let subject = windows.subject(Kind::Key, workspace, b"a key", &n.to_le_bytes(), MINUTE);
        Take { subject, duration_ms: MINUTE, limit: 1_000, cost: 1 }
    }
    fn fill(windows: &Windows, workspace: u32) -> usize {
        (0..).take_while(|&n| windows.take(&of(windows, workspace, n), T).is_ok()).count()
    }

    let windows = Windows::new(SEED, ROOM);
    assert_eq!((fill(&windows, 1), windows.held_by(1)), (600, 600), "three quarters");
    let batch: Vec<Take> = (600..603).map(|n| of(&windows, 1, n)).collect();
    assert_eq!(windows.take_all(&batch, T, &mut Vec::new()), Err(Exhausted));
    assert_eq!((windows.held_by(1), windows.len()), (600, 600), "what was refused is on nobody's account");
    let whole_batch: Vec<Take> = (0..9).map(|n| of(&windows, 1, n)).collect();
    assert!(all(&windows, &whole_batch, T).0, "its own go on");
    // The workspace's own limit is not in it: it is always counted.
    for workspace in [1, 2] {
        let subject = windows.subject(Kind::Workspace, workspace, &[], &[], MINUTE);
        assert!(windows.take(&Take { subject, duration_ms: MINUTE, limit: 9, cost: 1 }, T).expect("always").passed);
    }
    let others: Vec<usize> = (2..4).map(|workspace| fill(&windows, workspace)).collect();
    assert!(others[0] > 100 && others[1] > 30, "{others:?}");
    assert!(all(&windows, &(0..2).map(|n| of(&windows, 100, n)).collect::<Vec<_>>(), T).0, "who comes last");
    let held = |windows: &Windows| (1..=100).map(|workspace| windows.held_by(workspace)).collect::<Vec<_>>();
    assert_eq!(held(&windows).iter().sum::<usize>(), windows.len());

    let world = Restart { disk: Arc::new(MemoryDisk::new()) };
    world.open(&windows, T).0.write_all(&windows, T).expect("a write");
    let found = Windows::new(SEED, ROOM);
    assert_eq!(world.open(&found, T).1.no_room, 0);
    assert_eq!(held(&found), held(&windows), "accounts are known after a restart, too");
    let smaller = Windows::new(SEED, windows.len());
    assert_eq!(world.open(&smaller, T).1.no_room, 0, "even where each has more than its share now");

    assert_eq!(sweep_round(&windows, T + 9 * MINUTE), found.len());
    assert_eq!(held(&windows).iter().sum::<usize>(), 0);
    assert_eq!(fill(&windows, 3), 600);
}

/// RL-ALG-12, RL-TIME-05: a sweep drops what is dead and nothing else; a clock set back a little, or one that jumps ahead
/// for a moment and returns, gives back no budget of a window longer than the sweep believed in.
#[test]
fn sweeps_forget_only_the_dead() {
    let windows = Windows::new(SEED, 1_400);
    let names: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let second = |name: &String| take(&windows, name, 1_000, 1, 1);
    for name in &names {
        assert!(windows.take(&second(name), T).expect("room").passed);
        assert!(windows.take(&take(&windows, name, HOUR, 1, 1), T).expect("room").passed);
    }
    assert_eq!(sweep_round(&windows, T + 2_000 + SETTLE_MS - 1), 0);
    // The clock jumps ahead by a day, and back before it is believed.
    let dropped: usize = (0..5).map(|_| windows.sweep(T + 24 * HOUR)).sum();
    assert_eq!(windows.len(), 1_000 - dropped);
    assert_eq!(sweep_round(&windows, T + 1_500), 0);
    for name in &names {
        assert!(!windows.take(&take(&windows, name, HOUR, 1, 1), T + 1_500).expect("room").passed);
    }
    // A jump that stays is believed in the end, a minute per sweep.
    let jump = 24 * HOUR / TRUST_MS_PER_SWEEP + SWEEPS_PER_ROUND as u64;
    let dropped = dropped + (0..jump).map(|_| windows.sweep(T + 24 * HOUR)).sum::<usize>();
    assert_eq!((dropped, windows.len()), (1_000, 0));
}

/// RL-CON-02, KEYS-RL-10: however many threads, exactly the limit passes, and every token is counted.
#[test]
fn one_subject_under_many_threads() {
    let windows = Windows::new(SEED, 16);
    let one = take(&windows, "hot", HOUR, 5_000, 1);
    let passed = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    let decision = windows.take(&one, T).expect("room");
                    passed.fetch_add(u64::from(decision.passed), Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 5_000);
    assert_eq!(used(&windows, one, T), 5_000);
}

/// RL-MULTI-11: batches over the same subjects in opposite orders, and single takes among them, neither deadlock nor
/// over-admit; what passed is what is counted; and a batch that is always denied takes nothing from others, not even
/// for a moment: every single take that fits passes.
#[test]
fn overlapping_batches_under_threads() {
    let windows = Windows::new(SEED, 64);
    let sub = |name, limit, cost| take(&windows, name, HOUR, limit, cost);
    let (a, b, c) = (sub("a", 3_000, 1), sub("b", 4_000, 2), sub("c", u64::MAX >> 1, 1));
    let quiet = sub("quiet", 2_000, 1);
    let full = sub("full", 1, 1);
    assert!(windows.take(&full, T).expect("room").passed);
    let count = |passed: bool, counter: &AtomicU64| counter.fetch_add(u64::from(passed), Ordering::Relaxed);
    let [forward, backward, single] = [const { AtomicU64::new(0) }; 3];
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut out = Vec::new();
                for _ in 0..2_000 {
                    count(windows.take_all(&[a, b, c], T, &mut out).expect("room"), &forward);
                }
            });
            scope.spawn(|| {
                let mut out = Vec::new();
                for _ in 0..2_000 {
                    // Twice the same subject, so b costs 4 here.
                    count(windows.take_all(&[c, b, a, b], T, &mut out).expect("room"), &backward);
                }
            });
            scope.spawn(|| {
                for _ in 0..400 {
                    count(windows.take(&a, T).expect("room").passed, &single);
                }
            });
            scope.spawn(|| {
                let mut out = Vec::new();
                for _ in 0..2_000 {
                    assert!(
                        !windows.take_all(&[quiet, full, Take { cost: 1_999, ..quiet }], T, &mut out).expect("room")
                    );
                }
            });
        }
        scope.spawn(|| {
            for call in 1..=2_000 {
                let decision = windows.take(&quiet, T).expect("room");
                assert_eq!(
                    (decision.passed, decision.remaining),
                    (true, 2_000 - call),
                    "denied by what never was taken"
                );
            }
        });
    });
    let (forward, backward, single) = (forward.into_inner(), backward.into_inner(), single.into_inner());
    assert_eq!(used(&windows, a, T), forward + backward + single);
    assert_eq!(used(&windows, b, T), 2 * forward + 4 * backward);
    assert_eq!(used(&windows, c, T), forward + backward);
    // Nothing fits any more: admission ended at a limit, not before (RL-CON-03) and not after.
    assert!(used(&windows, a, T) == 3_000 || (3_997..=4_000).contains(&used(&windows, b, T)));
    assert!(used(&windows, a, T) <= 3_000 && used(&windows, b, T) <= 4_000);
}

/// A sweep that runs all the time never loses a count: whenever cells die and their subjects come back at that very
/// moment, singly or in batches, exactly the limit passes.
#[test]
fn sweeping_loses_no_count() {
    const THREADS: usize = 3;
    const STEPS: u64 = 300;
    let windows = Windows::new(SEED, 64);
    let subjects: Vec<Take> = (0..4).map(|n| take(&windows, &n.to_string(), 1_000, 40, 1)).collect();
    let clock = AtomicU64::new(T);
    let done = AtomicBool::new(false);
    let barrier = Barrier::new(THREADS);
    let passed: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
    let dropped = AtomicU64::new(0);
    let sweep = |now| dropped.fetch_add(windows.sweep(now) as u64, Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                sweep(clock.load(Ordering::Acquire));
            }
        });
        for thread in 0..THREADS {
            let (windows, subjects, clock, done) = (&windows, &subjects, &clock, &done);
            let (barrier, passed, sweep) = (&barrier, &passed, &sweep);
            scope.spawn(move || {
                let mut out = Vec::new();
                for step in 1..=STEPS {
                    let now = T + step * 20_000;
                    for call in 0..40 {
                        let first = (thread + call) % 4;
                        let pair = [subjects[first], subjects[(first + 1) % 4]];
                        if windows.take_all(&pair, now, &mut out).expect("room") {
                            passed[first].fetch_add(1, Ordering::Relaxed);
                            passed[(first + 1) % 4].fetch_add(1, Ordering::Relaxed);
                        }
                        let one = windows.take(&subjects[first], now).expect("room").passed;
                        passed[first].fetch_add(u64::from(one), Ordering::Relaxed);
                        sweep(now);
                    }
                    if barrier.wait().is_leader() {
                        for (subject, passed) in subjects.iter().zip(passed) {
                            let passed = passed.swap(0, Ordering::Relaxed);
                            assert_eq!((passed, used(windows, *subject, now)), (40, 40), "step {step}");
                        }
                        // Some are dropped before the next step begins, the others while it does.
                        for _ in 0..SWEEPS_PER_ROUND / 2 {
                            sweep(now + 20_000);
                        }
                        clock.store(now + 20_000, Ordering::Release);
                    }
                    barrier.wait();
                }
                done.store(true, Ordering::Release);
            });
        }
    });
    assert!(dropped.into_inner() > STEPS);
}

struct Restart {
    disk: Arc<MemoryDisk>,
}

impl Restart {
    fn open(&self, windows: &Windows, now: u64) -> (WindowJournal, Loaded) {
        let disk: Arc<dyn Disk> = self.disk.clone();
        WindowJournal::open(disk, Path::new("/data"), STORE, windows, now).expect("a disk")
    }

    fn bytes(&self) -> Vec<u8> {
        let file = self.file();
        let mut bytes = vec![0; file.len().expect("a length") as usize];
        file.read_exact_at(0, &mut bytes).expect("a read");
        bytes
    }

    fn put(&self, bytes: &[u8]) {
        let file = self.file();
        file.set_len(0).expect("a cut");
        file.write_all_at(0, bytes).expect("a write");
    }

    fn file(&self) -> Arc<dyn crate::disk::DiskFile> {
        self.disk.open(&Path::new("/data").join(DIRECTORY).join(FILE), false).expect("the journal")
    }
}

/// RL-CON-04: a graceful restart keeps every count, a power cut keeps what the last write had, which is all but the calls
/// of the last second; windows that died meanwhile are left behind.
#[test]
fn counts_survive_restarts() {
    let mut world = Restart { disk: Arc::new(MemoryDisk::new()) };
    let windows = Windows::new(SEED, 100);
    let hour = |n: u64| take(&windows, &n.to_string(), HOUR, 100, 1 + n);
    let brief = take(&windows, "brief", 1_000, 100, 5);
    let (mut journal, loaded) = world.open(&windows, T);
    assert_eq!((loaded.kept, loaded.ignored_bytes), (0, 0));
    for n in 0..50 {
        assert!(windows.take(&hour(n), T).expect("room").passed);
    }
    windows.take(&brief, T).expect("room");
    assert_eq!(journal.write_changed(&windows, T).expect("a write").cells, 51);
    assert_eq!(journal.write_changed(&windows, T).expect("nothing to do"), Written::default());
    assert!(all(&windows, &[hour(1), hour(2)], T + 5).0);
    let written = journal.write_changed(&windows, T + 5).expect("a write");
    assert_eq!((written.cells, written.bytes, written.anew), (2, 2 * SLOT_BYTES as u64, false));
    // Counted after the last write, hence lost by the cut.
    assert!(windows.take(&hour(3), T + 6).expect("room").passed);

    for cut in 0..20 {
        let crashed = Restart { disk: Arc::new(world.disk.crash(cut)) };
        let found = Windows::new(SEED, 100);
        let (mut journal, loaded) = crashed.open(&found, T + 1_500);
        assert_eq!((loaded.kept, loaded.expired, loaded.ignored_bytes, found.len()), (53, 0, 0, 51));
        for n in 0..50 {
            assert_eq!(used(&found, hour(n), T + 7), if n == 1 || n == 2 { 2 * (1 + n) } else { 1 + n });
        }
        assert_eq!(used(&found, brief, T + 1_500), 2);
        assert_eq!(journal.write_changed(&found, T + 1_500).expect("a write").cells, 51);
    }
    // The graceful stop, and a start at which the brief window is gone.
    assert_eq!(journal.write_all(&windows, T + 7).expect("a write").cells, 51);
    world = Restart { disk: Arc::new(world.disk.crash(99)) };
    let found = Windows::new(SEED, 100);
    let (_, loaded) = world.open(&found, T + 2_000);
    assert_eq!((loaded.kept, loaded.expired, loaded.ignored_bytes), (50, 1, 0));
    assert_eq!(used(&found, hour(3), T + 7), 8);
}

/// Appending for ever does not grow the file for ever.
#[test]
fn the_journal_is_written_anew() {
    let world = Restart { disk: Arc::new(MemoryDisk::new()) };
    let windows = Windows::new(SEED, 150);
    let (mut journal, _) = world.open(&windows, T);
    let mut anew = 0;
    for round in 0..400 {
        for n in 0..100 {
            windows.take(&take(&windows, &n.to_string(), HOUR, 1_000_000, 1), T + round).expect("room");
        }
        anew += usize::from(journal.write_changed(&windows, T).expect("a write").anew);
    }
    assert!((2..10).contains(&anew), "{anew}");
    assert!(world.disk.used_bytes() < 900_000);
    let found = Windows::new(SEED, 100);
    assert_eq!(world.open(&found, T).1.no_room, 0);
    assert_eq!(used(&found, take(&found, "7", HOUR, 1, 0), T + 400), 400);
}

/// Damage costs the counts it hits and nothing else, never the start: every single byte changed, every length cut, a file
/// of another store, another secret, another kind.
#[test]
fn damage_never_stops_the_start() {
    let world = Restart { disk: Arc::new(MemoryDisk::new()) };
    let windows = Windows::new(SEED, 100);
    let names = ["a", "b", "c"];
    let (mut journal, _) = world.open(&windows, T);
    for name in names {
        assert!(windows.take(&take(&windows, name, HOUR, 10, 4), T).expect("room").passed);
    }
    journal.write_all(&windows, T).expect("a write");
    let good = world.bytes();
    assert_eq!(good.len(), HEADER_BYTES + 3 * SLOT_BYTES);
    let left = |bytes: &[u8], windows: &Windows| {
        world.put(bytes);
        let (mut journal, loaded) = world.open(windows, T);
        assert!(loaded.unread.is_none());
        let counts = names.map(|name| used(windows, take(windows, name, HOUR, 10, 0), T));
        assert!(counts.iter().all(|count| *count == 0 || *count == 4));
        journal.write_changed(windows, T).expect("the next file");
        (counts.iter().filter(|count| **count == 4).count(), loaded.ignored_bytes)
    };
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let expected = if at < HEADER_BYTES { (0, good.len() as u64) } else { (2, SLOT_BYTES as u64) };
        assert_eq!(left(&bytes, &Windows::new(SEED, 100)), expected, "byte {at}");
    }
    for length in 0..=good.len() {
        let whole = length.saturating_sub(HEADER_BYTES) / SLOT_BYTES;
        let usable = if length < HEADER_BYTES { 0 } else { HEADER_BYTES + whole * SLOT_BYTES };
        let expected = (whole, (length - usable) as u64);
        assert_eq!(left(&good[..length], &Windows::new(SEED, 100)), expected, "cut at {length}");
    }
    let everything = good.len() as u64;
    assert_eq!(left(&good, &Windows::new(*b"another's secret", 100)), (0, everything));
    assert_eq!(left(&good, &Windows::new(SEED, 2)).0, 2, "no room for the third");
    let mut garbage = SplitMix(3);
    for length in [1, 39, 40, 5_000] {
        let bytes: Vec<u8> = (0..length).map(|_| garbage.draw() as u8).collect();
        assert_eq!(left(&bytes, &Windows::new(SEED, 100)), (0, length as u64));
    }
}

/// Disk errors are told and change nothing in memory; the next call that succeeds has everything.
#[test]
fn disk_errors_are_told() {
    let calls = [Call::Open, Call::SetLen, Call::Write, Call::Sync, Call::Rename, Call::SyncDir];
    for (round, call) in calls.into_iter().enumerate() {
        for appending in [false, true] {
            let world = Restart { disk: Arc::new(MemoryDisk::new()) };
            let windows = Windows::new(SEED, 100);
            let (mut journal, _) = world.open(&windows, T);
            let one = take(&windows, "a", HOUR, 10, 3);
            if appending {
                journal.write_changed(&windows, T).expect("the first file");
            }
            assert!(windows.take(&one, T).expect("room").passed);
            world.disk.fail(call, 1, io::ErrorKind::StorageFull);
            let outcome = journal.write_changed(&windows, T);
            let involved = !appending || matches!(call, Call::Write | Call::Sync);
            assert_eq!(outcome.is_err(), involved, "round {round}, appending {appending}");
            world.disk.forgive();
            assert!(windows.take(&one, T).expect("room").passed);
            journal.write_changed(&windows, T).expect("the disk is well again");
            let after = Restart { disk: Arc::new(world.disk.crash(1)) };
            let found = Windows::new(SEED, 100);
            after.open(&found, T);
            assert_eq!(used(&found, one, T), 6);
        }
    }
    // An error while reading at the start costs counts, not the start.
    let world = Restart { disk: Arc::new(MemoryDisk::new()) };
    let windows = Windows::new(SEED, 100);
    world.open(&windows, T).0.write_all(&windows, T).expect("a file");
    world.disk.fail(Call::Read, 1, io::ErrorKind::Other);
    assert!(world.open(&windows, T).1.unread.is_some());
    // In test mode nothing is kept.
    let windows = Windows::for_tests(SEED, 100);
    let (mut journal, _) = world.open(&windows, T);
    windows.take(&take(&windows, "a", HOUR, 10, 3), T).expect("room");
    assert_eq!(journal.write_all(&windows, T).expect("nothing"), Written::default());
}

/// Counting goes on while the journal reads: what it misses it finds the next time.
#[test]
fn the_journal_misses_nothing_for_good() {
    let world = Restart { disk: Arc::new(MemoryDisk::new()) };
    let windows = Windows::new(SEED, 100);
    let subjects: Vec<Take> = (0..5).map(|n| take(&windows, &n.to_string(), HOUR, 1 << 40, 1)).collect();
    let (mut journal, _) = world.open(&windows, T);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut out = Vec::new();
                    for round in 0..20_000 {
                        windows.take(&subjects[round % 5], T).expect("room");
                        windows.take_all(&subjects[round % 3..round % 3 + 2], T, &mut out).expect("room");
                    }
                })
            })
            .collect();
        let (journal, windows, done) = (&mut journal, &windows, &done);
        scope.spawn(move || {
            while !done.load(Ordering::Acquire) {
                journal.write_changed(windows, T).expect("a disk");
            }
            journal.write_changed(windows, T).expect("a disk");
        });
        for worker in workers {
            worker.join().expect("a worker");
        }
        done.store(true, Ordering::Release);
    });
    let found = Windows::new(SEED, 100);
    world.open(&found, T);
    for subject in subjects {
        assert_eq!(used(&found, subject, T), used(&windows, subject, T));
    }
}
