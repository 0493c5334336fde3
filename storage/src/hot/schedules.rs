//! The hot index, the shared views and the credits under every interleaving the schedule checker thinks of.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" CARGO_TARGET_DIR=target-shuttle cargo test -p keyward-storage --lib hot::schedules`;
//! like `tests/schedules.rs`, but inside the crate, since publishing and filling are nobody else's.
//!
//! The checkpoint is played by a row and its position behind a lock, the writer by a thread that does to them, in the
//! same order, what `writer.rs` and `publish.rs` do.

use std::sync::Arc;

use shuttle::sync::atomic::AtomicU64;
use shuttle::sync::{Mutex, RwLock};
use shuttle::thread::{self, JoinHandle};

use super::counters::{Change, KeyCounters, Spend};
use super::index::{Index, Lookup, View};
use super::shared::{Shared, SharedViews};
use super::sync::Ordering;
use crate::ids::{KeyId, PermissionId, WorkspaceNo};
use crate::position::Position;
use crate::records::key::CreditsRow;
use crate::records::role::PermissionView;
use crate::testing::id;

const NO: WorkspaceNo = WorkspaceNo(1);
const HASH: [u8; 32] = [1; 32];

/// Schedules tried at random, and as many with few preemptions at chosen places (PCT: Burckhardt et al., 2010).
fn explore(story: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(story, 2_000);
    shuttle::check_pct(story, 2_000, 3);
}

/// What a change and a fill agree on: the stored row and the position of its last change.
type Stored<R> = Arc<Mutex<(R, u64)>>;

fn stored<R>(row: R) -> Stored<R> {
    Arc::new(Mutex::new((row, 0)))
}

struct Version(u64);

impl View for Version {
    fn weight(&self) -> usize {
        8
    }
}

fn version_of(index: &Index<Version>, row: &Stored<Option<u64>>) -> Option<u64> {
    let read = || {
        let (version, at) = *row.lock().expect("no panic");
        // The snapshot is taken; what it is made into takes its time.
        thread::yield_now();
        Ok(Some((version.map(|version| Arc::new(Version(version))), Position(at))))
    };
    index.get_or_read(NO.0, &HASH, read).expect("readable").map(|view| view.0)
}

/// Fills the index with other keys, so that it has to evict.
fn crowd(index: &Arc<Index<impl View>>) -> JoinHandle<()> {
    let index = Arc::clone(index);
    thread::spawn(move || {
        for number in 2..5 {
            // "No such key" is an entry as well.
            index.exists(NO.0, &[number; 32]);
            let _ = index.fill(NO.0, &[number; 32], None, Position(0));
        }
    })
}

/// A change that was acknowledged is what every later lookup finds, whatever was being read, filled in and evicted
/// meanwhile: changed, removed, and there again.
#[test]
fn an_acknowledged_change_is_never_undone_by_a_late_fill() {
    explore(|| {
        let index = Arc::new(Index::<Version>::new(2, 1 << 20, 1));
        index.exists(NO.0, &HASH);
        let row = stored(Some(0));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = {
            let (index, row, acknowledged) = (Arc::clone(&index), Arc::clone(&row), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for position in 1..=3 {
                    let version = (position != 2).then_some(position);
                    *row.lock().expect("no panic") = (version, position);
                    index.publish(NO.0, &HASH, Position(position), |_| version.map(|at| Arc::new(Version(at))));
                    acknowledged.store(position, Ordering::SeqCst);
                }
            })
        };
        let reader = {
            let (index, row, acknowledged) = (Arc::clone(&index), Arc::clone(&row), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for _ in 0..2 {
                    let before = acknowledged.load(Ordering::SeqCst);
                    let found = version_of(&index, &row);
                    // The version at 2 is "none", which is also allowed while it is being published.
                    assert!(
                        found.map_or(before <= 2, |version| version >= before && version != 2),
                        "{found:?} after {before}"
                    );
                }
            })
        };
        let crowd = crowd(&index);
        writer.join().expect("the writer");
        reader.join().expect("the reader");
        crowd.join().expect("the crowd");
        assert_eq!(version_of(&index, &row), Some(3));
        assert!(index.bytes() < 1 << 30, "the weights add up");
    });
}

/// Two lookups that miss at once share a read, and get the same view.
#[test]
fn concurrent_misses_get_one_view() {
    explore(|| {
        let index = Arc::new(Index::<Version>::new(8, 1 << 20, 1));
        index.exists(NO.0, &HASH);
        let reads = Arc::new(AtomicU64::new(0));
        let look = || {
            let (index, reads) = (Arc::clone(&index), Arc::clone(&reads));
            thread::spawn(move || {
                let read = || {
                    reads.fetch_add(1, Ordering::SeqCst);
                    Ok(Some((Some(Arc::new(Version(1))), Position(0))))
                };
                index.get_or_read(NO.0, &HASH, read).expect("readable").expect("there")
            })
        };
        let (one, other) = (look(), look());
        let (one, other) = (one.join().expect("one"), other.join().expect("the other"));
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(reads.load(Ordering::SeqCst), 1);
    });
}

struct Key(Arc<KeyCounters>);

impl View for Key {
    fn weight(&self) -> usize {
        8
    }

    fn retire(&self) -> bool {
        self.0.retire()
    }
}

/// A key whose credits are spent, changed, journaled and evicted.
struct Purse {
    index: Arc<Index<Key>>,
    row: Stored<CreditsRow>,
    /// The writer's queue of counters with spends.
    waiting: Mutex<Vec<Arc<KeyCounters>>>,
}

impl Purse {
    fn new(balance: u64) -> Arc<Purse> {
        let index = Arc::new(Index::new(1, 1 << 20, 1));
        index.exists(NO.0, &HASH);
        let row = stored(CreditsRow { generation: 1, balance, refill_due: None });
        Arc::new(Purse { index, row, waiting: Mutex::new(Vec::new()) })
    }

    fn key(&self) -> Arc<Key> {
        let read = || {
            let (row, at) = self.row.lock().expect("no panic").clone();
            thread::yield_now();
            let counters = KeyCounters::new(NO, KeyId(id('k')), Some(&row), 0);
            Ok(Some((Some(Arc::new(Key(Arc::new(counters)))), Position(at))))
        };
        self.index.get_or_read(NO.0, &HASH, read).expect("readable").expect("there")
    }

    /// Verifies `times`, at one credit each; how many passed.
    fn spender(self: &Arc<Purse>, times: u64) -> JoinHandle<u64> {
        let purse = Arc::clone(self);
        thread::spawn(move || (0..times).filter(|_| purse.spend()).count() as u64)
    }

    fn spend(&self) -> bool {
        loop {
            let key = self.key();
            match key.0.spend(1) {
                Spend::Retired => thread::yield_now(),
                Spend::Short { .. } => return false,
                Spend::Taken { first, .. } => {
                    if first {
                        self.waiting.lock().expect("no panic").push(Arc::clone(&key.0));
                    }
                    return true;
                }
            }
        }
    }

    /// What the writer does for the spends that wait.
    fn journal(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock().expect("no panic"));
        for counters in waiting {
            let Some(mark) = counters.unjournaled() else { continue };
            let mut row = self.row.lock().expect("no panic");
            assert_eq!(mark.generation(), row.0.generation, "no change is on its way");
            row.0.balance = mark.balance();
            row.1 += 1;
            drop(row);
            if !counters.journaled(mark) {
                self.waiting.lock().expect("no panic").push(counters);
            }
        }
    }

    /// What a transaction, the writer and the publication do for a change of the balance.
    fn change(&self, change: Change) {
        let mut credits = self.row.lock().expect("no panic").0.clone();
        if let Some(key) = self.index.peek(NO.0, &HASH)
            && key.0.generation() == credits.generation
        {
            credits.balance = key.0.balance();
        }
        credits.generation += 1;
        credits.balance = change.apply(credits.balance).expect("small numbers");
        let position = {
            let mut row = self.row.lock().expect("no panic");
            *row = (credits.clone(), row.1 + 1);
            row.1
        };
        thread::yield_now();
        self.index.change(NO.0, &HASH, Position(position), |key| {
            key?.0.change(change, credits.generation, credits.balance, None)
        });
    }

    /// Credits left once everything is written.
    fn settle(&self) -> u64 {
        while !self.waiting.lock().expect("no panic").is_empty() {
            self.journal();
        }
        let stored = self.row.lock().expect("no panic").0.clone();
        let key = self.key();
        assert_eq!((key.0.balance(), key.0.generation()), (stored.balance, stored.generation), "hot and stored agree");
        assert!(key.0.unjournaled().is_none(), "a dirty cell that nobody waits for");
        stored.balance
    }
}

/// KEYS-CREDIT-4: credits are never over-spent and no spend is lost, while the key is evicted and read again, its spends
/// are journaled, and more credits are added.
#[test]
fn credits_add_up() {
    explore(|| {
        let purse = Purse::new(2);
        let (one, other) = (purse.spender(2), purse.spender(2));
        let writer = {
            let purse = Arc::clone(&purse);
            thread::spawn(move || {
                purse.journal();
                purse.change(Change::Add(1));
                purse.journal();
            })
        };
        let crowd = crowd(&purse.index);
        let taken = one.join().expect("one") + other.join().expect("the other");
        writer.join().expect("the writer");
        crowd.join().expect("the crowd");
        let left = purse.settle();
        assert_eq!(taken + left, 3, "{taken} taken");
        assert!(taken >= 2, "two were there all the time");
    });
}

/// A cut to nothing is final once it is acknowledged, also for a key that is just being read from before the cut.
#[test]
fn an_acknowledged_cut_holds() {
    explore(|| {
        let purse = Purse::new(5);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let spender = {
            let (purse, acknowledged) = (Arc::clone(&purse), Arc::clone(&acknowledged));
            thread::spawn(move || {
                for _ in 0..2 {
                    let cut = acknowledged.load(Ordering::SeqCst) == 1;
                    assert!(!(purse.spend() && cut), "spent what was taken away");
                }
            })
        };
        let writer = {
            let (purse, acknowledged) = (Arc::clone(&purse), Arc::clone(&acknowledged));
            thread::spawn(move || {
                purse.change(Change::Set(0));
                acknowledged.store(1, Ordering::SeqCst);
                purse.journal();
            })
        };
        spender.join().expect("the spender");
        writer.join().expect("the writer");
        assert_eq!(purse.settle(), 0);
    });
}

/// A migrated key's first hash, and the one it gets.
const FOREIGN: [u8; 32] = [9; 32];

/// KEYS-MIGRATE-13, KEYS-CREDIT-4: a key that gets another hash keeps its one purse. Whoever still holds its old view or looks
/// the old hash up, and whoever finds it by the new one, spend from the same credits, whatever is read, evicted, journaled
/// and filled in late meanwhile.
#[test]
fn a_key_that_changes_its_hash_has_one_purse() {
    explore(|| {
        let index = Arc::new(Index::<Key>::new(1, 1 << 20, 1));
        index.exists(NO.0, &FOREIGN);
        // The row: credits and the hash it is found by; the alias of the old one is no way to it.
        let row = stored((CreditsRow { generation: 1, balance: 2, refill_due: None }, FOREIGN));
        let published = Arc::new(RwLock::new(()));
        let waiting: Arc<Mutex<Vec<Arc<KeyCounters>>>> = Arc::new(Mutex::new(Vec::new()));
        let find = {
            let (index, row, published) = (Arc::clone(&index), Arc::clone(&row), Arc::clone(&published));
            move |hash: [u8; 32]| {
                let read = || {
                    let ((credits, own), at) = {
                        let _published = published.read().expect("no panic");
                        row.lock().expect("no panic").clone()
                    };
                    thread::yield_now();
                    let view = (own == hash)
                        .then(|| Arc::new(Key(Arc::new(KeyCounters::new(NO, KeyId(id('k')), Some(&credits), 0)))));
                    Ok(Some((view, Position(at))))
                };
                index.get_or_read(NO.0, &hash, read).expect("readable")
            }
        };
        let spender = || {
            let (find, waiting) = (find.clone(), Arc::clone(&waiting));
            thread::spawn(move || {
                let mut taken = 0;
                for _ in 0..2 {
                    loop {
                        let Some(key) = find(FOREIGN).or_else(|| find(HASH)) else {
                            thread::yield_now();
                            continue;
                        };
                        match key.0.spend(1) {
                            Spend::Retired => thread::yield_now(),
                            Spend::Short { .. } => break,
                            Spend::Taken { first, .. } => {
                                taken += 1;
                                if first {
                                    waiting.lock().expect("no panic").push(Arc::clone(&key.0));
                                }
                                break;
                            }
                        }
                    }
                }
                taken
            })
        };
        let (one, other) = (spender(), spender());
        let journal = {
            let (row, waiting) = (Arc::clone(&row), Arc::clone(&waiting));
            move || {
                let dirty = std::mem::take(&mut *waiting.lock().expect("no panic"));
                for counters in dirty {
                    let Some(mark) = counters.unjournaled() else { continue };
                    {
                        let mut row = row.lock().expect("no panic");
                        row.0.0.balance = mark.balance();
                        row.1 += 1;
                    }
                    if !counters.journaled(mark) {
                        waiting.lock().expect("no panic").push(counters);
                    }
                }
            }
        };
        let writer = {
            let (index, row, published, journal) =
                (Arc::clone(&index), Arc::clone(&row), Arc::clone(&published), journal.clone());
            thread::spawn(move || {
                journal();
                let publishing = published.write().expect("no panic");
                let position = {
                    let mut row = row.lock().expect("no panic");
                    row.0.1 = HASH;
                    row.1 += 1;
                    Position(row.1)
                };
                thread::yield_now();
                let moving = index.forget(NO.0, &FOREIGN, position).map(|key| Arc::clone(&key.0));
                let credits = row.lock().expect("no panic").0.0.clone();
                let fresh = Arc::new(KeyCounters::new(NO, KeyId(id('k')), Some(&credits), 0));
                index.publish(NO.0, &HASH, position, |present| {
                    assert!(present.is_none(), "nobody can have read it yet");
                    Some(Arc::new(Key(moving.unwrap_or(fresh))))
                });
                drop(publishing);
                journal();
            })
        };
        let crowd = crowd(&index);
        let taken = one.join().expect("one") + other.join().expect("the other");
        writer.join().expect("the writer");
        crowd.join().expect("the crowd");
        while !waiting.lock().expect("no panic").is_empty() {
            journal();
        }
        assert!(find(FOREIGN).is_none(), "the old hash leads nowhere");
        let left = find(HASH).expect("there").0.balance();
        assert_eq!((taken, left), (2, 0), "two credits, spent once each");
        assert_eq!(row.lock().expect("no panic").0.0.balance, 0, "and all of it is written down");
    });
}

/// A last use that is noted while an earlier one is being stored is stored later, and keeps the key in memory until then.
#[test]
fn a_later_use_is_not_forgotten() {
    explore(|| {
        let counters = Arc::new(KeyCounters::new(NO, KeyId(id('k')), None, 0));
        let queue = Arc::new(Mutex::new(0u32));
        let user = {
            let (counters, queue) = (Arc::clone(&counters), Arc::clone(&queue));
            thread::spawn(move || {
                for minute in 1..=2 {
                    if counters.touch(minute) {
                        *queue.lock().expect("no panic") += 1;
                    }
                }
            })
        };
        let mut written = 0;
        let mut write = || {
            let waiting = std::mem::take(&mut *queue.lock().expect("no panic"));
            for _ in 0..waiting {
                let minute = counters.last_minute();
                written = minute.max(written);
                if counters.touch_stored(minute) {
                    *queue.lock().expect("no panic") += 1;
                }
            }
        };
        write();
        write();
        user.join().expect("the user");
        write();
        write();
        assert_eq!(written, 2);
        assert!(counters.retire(), "nothing is left to write");
    });
}

/// What one transaction did to two shared resources is seen together or not at all, also by those who just made the cells
/// to look through, and everything acknowledged is seen.
#[test]
fn two_shared_views_change_together() {
    fn view(which: char, version: u64) -> PermissionView {
        PermissionView { id: PermissionId(id(which)), slug: version.to_string().into() }
    }

    explore(|| {
        let shared = Arc::new(SharedViews::new());
        let row = stored(0u64);
        // The writer's hold on what is committed and not published.
        let unpublished = Arc::new(RwLock::new(()));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let cell = {
            let (shared, row, unpublished) = (Arc::clone(&shared), Arc::clone(&row), Arc::clone(&unpublished));
            move |which: char| -> Arc<Shared<PermissionView>> {
                loop {
                    let snapshot = {
                        let _published = unpublished.read().expect("no panic");
                        *row.lock().expect("no panic")
                    };
                    thread::yield_now();
                    let (version, at) = snapshot;
                    let read = || Ok(Some(view(which, version)));
                    if let Ok(cell) =
                        shared.permission(NO, PermissionId(id(which)), Position(at), read).expect("readable")
                    {
                        return cell;
                    }
                }
            }
        };
        // One of the two may be in use already.
        let known = cell('p');
        let reader = {
            let (shared, acknowledged) = (Arc::clone(&shared), Arc::clone(&acknowledged));
            thread::spawn(move || {
                let before = acknowledged.load(Ordering::SeqCst);
                let cells = [cell('p'), cell('q')];
                let seen = shared.consistent(|| {
                    cells.each_ref().map(|cell| {
                        thread::yield_now();
                        cell.load().as_ref().map(|view| view.slug.parse::<u64>().expect("a version"))
                    })
                });
                assert_eq!(seen[0], seen[1], "a mix of two generations");
                assert!(seen[0] >= Some(before), "{seen:?} after {before}");
            })
        };
        let writer = thread::spawn(move || {
            for position in 1..=2 {
                let publishing = unpublished.write().expect("no panic");
                *row.lock().expect("no panic") = (position, position);
                // It reads what it is going to publish.
                thread::yield_now();
                thread::yield_now();
                let cells = shared.publish(Position(position));
                for which in ['p', 'q'] {
                    cells.set_permission(NO, PermissionId(id(which)), Some(view(which, position)));
                    thread::yield_now();
                }
                drop(cells);
                drop(publishing);
                acknowledged.store(position, Ordering::SeqCst);
            }
        });
        reader.join().expect("the reader");
        writer.join().expect("the writer");
        drop(known);
    });
}

/// A lookup in memory never says "no such key" of one that is there, while it is published for the first time.
#[test]
fn a_new_key_is_never_absent_once_acknowledged() {
    explore(|| {
        let index = Arc::new(Index::<Version>::new(1, 1 << 20, 0));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let writer = {
            let (index, acknowledged) = (Arc::clone(&index), Arc::clone(&acknowledged));
            thread::spawn(move || {
                index.publish(NO.0, &HASH, Position(1), |_| Some(Arc::new(Version(1))));
                acknowledged.store(1, Ordering::SeqCst);
            })
        };
        let crowd = crowd(&index);
        let known = acknowledged.load(Ordering::SeqCst) == 1;
        let found = index.get(NO.0, &HASH);
        assert!(!(known && matches!(found, Lookup::Absent)));
        writer.join().expect("the writer");
        crowd.join().expect("the crowd");
        assert!(!matches!(index.get(NO.0, &HASH), Lookup::Absent));
    });
}
