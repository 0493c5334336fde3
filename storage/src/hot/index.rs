//! The hot index: a bounded cache of views by (scope, hash), read without locks.
//!
//! Three kinds of change meet in it. The writer *publishes* what it has just committed. A reader that missed *fills* in
//! what it read from a snapshot. And entries are *evicted* when there are too many. A fill must lose to any publish that
//! came after its snapshot: each bucket remembers the newest position published into it and refuses older fills, whether
//! the entry is still there or not.
//!
//! "No such key" is an entry as well: what was looked up in vain, or deleted, is answered from memory; and a hash that was
//! never stored is answered by the `absent` filter without ever becoming an entry. An index that was loaded whole and has
//! evicted nothing since needs no filter: what it does not know does not exist.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, PoisonError};

use super::absent::Absent;
use super::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};
use super::table::{Found, Table, fetch, fetch_shared, pin};
use crate::error::ReadError;
use crate::position::Position;

/// What the index holds.
pub trait View: Send + Sync + 'static {
    /// Bytes it takes, roughly.
    fn weight(&self) -> usize;

    /// Puts it out of use so that it can be evicted; `false` where it holds what is nowhere else yet.
    fn retire(&self) -> bool {
        true
    }

    /// What whoever looked it up asks another table for next: the low bits of a hash there.
    fn leads_to(&self) -> Option<u32> {
        None
    }

    /// Fetches what of it lies elsewhere and will be asked for.
    fn fetch_parts(&self) {}
}

/// What a view is found by: a scope (a workspace's number, or 0 for what has none) and a 32-byte hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    scope: u32,
    hash: [u8; 32],
}

struct Entry<V> {
    /// `None`: there is no such thing.
    view: Option<Arc<V>>,
    /// The address at which what the view leads to was last, to be fetched at the next lookup and for nothing else; its
    /// lowest bit is [`IDLE`]. (The hash it is found by stands in the node's note: so the whole fits a cache line.)
    ahead: AtomicUsize,
}

/// Not looked up since the clock's hand came by.
const IDLE: usize = 1;

impl<V> Entry<V> {
    fn new(view: Option<Arc<V>>) -> Entry<V> {
        Entry { view, ahead: AtomicUsize::new(0) }
    }
}

/// What the index knows.
#[derive(Debug)]
pub enum Lookup<V> {
    /// It is here.
    Hot(Arc<V>),
    /// There is no such thing.
    Absent,
    /// It must be read.
    Unknown,
}

/// Whether a fill was taken.
pub(crate) enum Filled<V> {
    /// This is what the index holds now: the view given, or another reader's.
    Now(Option<Arc<V>>),
    /// Something newer was published into the bucket: read again.
    Stale,
}

/// Bytes of an entry beside its view: node and `Arc` head.
const ENTRY_BYTES: usize = 80;
/// Buckets per entry of a full index. An entry behind another in its bucket costs a lookup one more wait for memory: with
/// two buckets it is one in four of those looked up, with one two in four, with a quarter of one everybody has two before
/// it.
const BUCKETS_PER_ENTRY: usize = 2;
/// Locks that make concurrent misses of one key share one read.
const MISS_LOCKS: usize = 64;
/// Buckets the clock's hand looks at in one go, and how often per insertion at most.
const SWEEP_BUCKETS: usize = 64;
const SWEEPS: usize = 8;
/// An index this part above its bound is swept until it is not, or all of it was looked at twice: few large views in many
/// buckets are not met often enough otherwise.
const FAR_ABOVE: u64 = 8;

/// A bounded cache of views.
pub struct Index<V> {
    table: Table<Key, Entry<V>>,
    absent: Absent,
    /// Whether everything that is stored is here.
    whole: AtomicBool,
    hasher: RandomState,
    max_entries: usize,
    max_bytes: u64,
    bytes: AtomicU64,
    /// Entries that left to make room.
    evictions: AtomicU64,
    hand: AtomicUsize,
    misses: Box<[Mutex<()>]>,
}

impl<V: View> Index<V> {
    /// An index for at most `max_entries` entries of at most `max_bytes` together, over a store that now holds
    /// `stored` hashes.
    pub(crate) fn new(max_entries: usize, max_bytes: u64, stored: usize) -> Index<V> {
        Index {
            table: Table::with_buckets(max_entries.saturating_mul(BUCKETS_PER_ENTRY).max(64)),
            absent: Absent::new(stored + stored / 2),
            whole: AtomicBool::new(false),
            hasher: RandomState::new(),
            max_entries,
            max_bytes,
            bytes: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
            misses: (0..MISS_LOCKS).map(|_| Mutex::new(())).collect(),
        }
    }

    fn hash(&self, key: &Key) -> u64 {
        self.hasher.hash_one(key)
    }

    /// Looks a view up: no lock, no file, no allocation.
    pub fn get(&self, scope: u32, hash: &[u8; 32]) -> Lookup<V> {
        self.get_ahead_of(scope, hash, |_| 0)
    }

    /// [`get`](Self::get), which also fetches what the view leads to in another table: `fetch_bucket` fetches the bucket of
    /// a hash there and gives the address of what is in it.
    ///
    /// Among a million keys each look at another place is a wait for memory, of some 200 ns, and each place says where the
    /// next one is. So an entry notes what it led to: the view, the bucket of its rate limit and the cell in that are then
    /// waited for together. What was noted may be out of date, which costs a wait and nothing else.
    pub fn get_ahead_of(&self, scope: u32, hash: &[u8; 32], fetch_bucket: impl FnOnce(u64) -> usize) -> Lookup<V> {
        let key = Key { scope, hash: *hash };
        let hashed = self.hash(&key);
        let guard = pin();
        match self.table.find(hashed, &key, &guard) {
            Some(Found { value: Entry { view: Some(view), ahead }, note }) => {
                // All before the view is shared: that holds up whatever is asked of memory after it.
                fetch_shared(view);
                let (cell, leads_to) = (ahead.load(Ordering::Relaxed), note.load(Ordering::Relaxed));
                fetch(cell);
                let found = if leads_to == 0 { 0 } else { fetch_bucket(leads_to.into()) };
                if found != cell {
                    fetch(found);
                    ahead.store(found, Ordering::Relaxed);
                }
                let view = Arc::clone(view);
                view.fetch_parts();
                if leads_to == 0
                    && let Some(hash) = view.leads_to()
                {
                    note.store(hash, Ordering::Relaxed);
                }
                Lookup::Hot(view)
            }
            Some(Found { value: Entry { view: None, ahead }, .. }) => {
                if ahead.load(Ordering::Relaxed) != 0 {
                    ahead.store(0, Ordering::Relaxed);
                }
                Lookup::Absent
            }
            // Asked after the table: whoever removes what is stored says so first.
            None if self.whole.load(Ordering::Acquire) || self.absent.knows_absent(hashed) => Lookup::Absent,
            None => Lookup::Unknown,
        }
    }

    /// The view if it is in memory, without counting as a use.
    pub(crate) fn peek(&self, scope: u32, hash: &[u8; 32]) -> Option<Arc<V>> {
        let key = Key { scope, hash: *hash };
        let guard = pin();
        self.table.get(self.hash(&key), &key, &guard).and_then(|entry| entry.view.clone())
    }

    /// Looks a view up and reads it where it is not in memory. Blocks on the disk; concurrent misses of one key share one
    /// read.
    ///
    /// `read` gives the view as of a snapshot with the snapshot's position, or `None` for the view where its parts were
    /// changed while it read (it is then called again).
    pub(crate) fn get_or_read(
        &self,
        scope: u32,
        hash: &[u8; 32],
        mut read: impl FnMut() -> Result<Option<(Option<Arc<V>>, Position)>, ReadError>,
    ) -> Result<Option<Arc<V>>, ReadError> {
        let key = Key { scope, hash: *hash };
        let stripe = usize::try_from(self.hash(&key) >> 32).expect("32 bits fit") % MISS_LOCKS;
        let _one_reader = self.misses[stripe].lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.get(scope, hash) {
                Lookup::Hot(view) => return Ok(Some(view)),
                Lookup::Absent => return Ok(None),
                Lookup::Unknown => {}
            }
            if let Some((view, at)) = read()?
                && let Filled::Now(view) = self.fill(scope, hash, view, at)
            {
                return Ok(view);
            }
        }
    }

    /// Enters what was read from a snapshot at position `at`.
    pub(crate) fn fill(&self, scope: u32, hash: &[u8; 32], view: Option<Arc<V>>, at: Position) -> Filled<V> {
        let key = Key { scope, hash: *hash };
        let hashed = self.hash(&key);
        {
            let guard = pin();
            let mut bucket = self.table.locked(hashed);
            if let Some(entry) = bucket.get(&key, &guard) {
                return Filled::Now(entry.view.clone());
            }
            if bucket.floor() > at.0 {
                return Filled::Stale;
            }
            self.weigh(view.as_deref(), true);
            bucket.insert(key, Entry::new(view.clone()), &guard);
        }
        self.make_room(&key);
        Filled::Now(view)
    }

    /// Enters what was committed at `position`. `make` gets the present view, whose counters it must go on using; the
    /// view it makes is `None` for what exists no more.
    pub(crate) fn publish(
        &self,
        scope: u32,
        hash: &[u8; 32],
        position: Position,
        make: impl FnOnce(Option<&Arc<V>>) -> Option<Arc<V>>,
    ) {
        let key = Key { scope, hash: *hash };
        let hashed = self.hash(&key);
        self.absent.insert_new(hashed);
        {
            let guard = pin();
            let mut bucket = self.table.locked(hashed);
            bucket.set_floor(position.0);
            let present = bucket.get(&key, &guard).and_then(|entry| entry.view.as_ref());
            let view = make(present);
            self.weigh(present.map(|view| &**view), false);
            self.weigh(view.as_deref(), true);
            bucket.replace(key, Entry::new(view), &guard);
        }
        self.make_room(&key);
    }

    /// Shows the present view, if any, to `change`, which changes counters it has. The change was committed at `position`:
    /// a view that was read before and is filled in later would have the counters of before, so such a fill is refused
    /// from here on.
    pub(crate) fn change<R>(
        &self,
        scope: u32,
        hash: &[u8; 32],
        position: Position,
        change: impl FnOnce(Option<&Arc<V>>) -> R,
    ) -> R {
        let key = Key { scope, hash: *hash };
        let guard = pin();
        let mut bucket = self.table.locked(self.hash(&key));
        bucket.set_floor(position.0);
        change(bucket.get(&key, &guard).and_then(|entry| entry.view.as_ref()))
    }

    /// Forgets an entry as of `position`: the next lookup reads. Gives the view that was forgotten.
    pub(crate) fn forget(&self, scope: u32, hash: &[u8; 32], position: Position) -> Option<Arc<V>> {
        let key = Key { scope, hash: *hash };
        let hashed = self.hash(&key);
        self.absent.insert_new(hashed);
        self.whole.store(false, Ordering::Release);
        let guard = pin();
        let mut bucket = self.table.locked(hashed);
        bucket.set_floor(position.0);
        let view = bucket.get(&key, &guard).and_then(|entry| entry.view.clone());
        self.weigh(view.as_deref(), false);
        bucket.remove(&key, &guard);
        view
    }

    /// Whether nothing with this hash was ever stored, as far as memory tells: then there is nothing to read.
    pub(crate) fn knows_absent(&self, scope: u32, hash: &[u8; 32]) -> bool {
        self.absent.knows_absent(self.hash(&Key { scope, hash: *hash }))
    }

    /// Tells the filter of a hash that is stored; start-up does so for all of them.
    pub(crate) fn exists(&self, scope: u32, hash: &[u8; 32]) {
        self.absent.insert(self.hash(&Key { scope, hash: *hash }));
    }

    /// Enters everything that is stored, as far as there is room: `load` is given what enters one view. Start-up does so,
    /// before anything is looked up; nothing is read from the disk any more as long as all of it stays here.
    pub(crate) fn load<E>(
        &self,
        at: Position,
        load: impl FnOnce(&dyn Fn(u32, &[u8; 32], V)) -> Result<(), E>,
    ) -> Result<(), E> {
        self.whole.store(true, Ordering::Release);
        let enter = |scope: u32, hash: &[u8; 32], view: V| {
            self.exists(scope, hash);
            if self.whole.load(Ordering::Relaxed) {
                let _ = self.fill(scope, hash, Some(Arc::new(view)), at);
            }
        };
        load(&enter)
    }

    fn weigh(&self, view: Option<&V>, enters: bool) {
        if let Some(view) = view {
            let weight = view.weight() as u64;
            if enters {
                self.bytes.fetch_add(weight, Ordering::Relaxed);
            } else {
                self.bytes.fetch_sub(weight, Ordering::Relaxed);
            }
        }
    }

    /// Evicts by the clock algorithm while there is too much: an entry looked up since the hand last came by gets another
    /// round. Entries that cannot be evicted (credits not journaled yet) may carry the index over its bound for as long as
    /// the writer needs for them.
    fn make_room(&self, entered: &Key) {
        let buckets = self.table.bucket_count();
        let above = |entries: usize, bytes: u64| self.len() > entries || self.bytes.load(Ordering::Relaxed) > bytes;
        for sweep in 0..2 * buckets.div_ceil(SWEEP_BUCKETS) {
            if !above(self.max_entries, self.max_bytes) {
                return;
            }
            let far_entries = self.max_entries + self.max_entries / FAR_ABOVE as usize;
            if sweep >= SWEEPS && !above(far_entries, self.max_bytes + self.max_bytes / FAR_ABOVE) {
                return;
            }
            let start = self.hand.fetch_add(SWEEP_BUCKETS, Ordering::Relaxed) % buckets;
            let guard = pin();
            self.table.sweep(start..(start + SWEEP_BUCKETS).min(buckets), &guard, |key, entry| {
                // Whoever entered a view is about to use it: evicting that one would only have it read again.
                if key == entered || !above(self.max_entries, self.max_bytes) {
                    return false;
                }
                if entry.ahead.fetch_or(IDLE, Ordering::Relaxed) & IDLE == 0 {
                    return false;
                }
                match &entry.view {
                    Some(view) if !view.retire() => false,
                    view => {
                        if view.is_some() {
                            self.whole.store(false, Ordering::Release);
                        }
                        self.weigh(view.as_deref(), false);
                        self.evictions.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                }
            });
        }
    }

    /// Entries in memory.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries that left to make room, since the start.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Bytes in memory, roughly: views, entries, buckets and the filter.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
            + (self.len() * ENTRY_BYTES + self.table.bucket_bytes() + self.absent.bytes()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Number(u64);

    impl View for Number {
        fn weight(&self) -> usize {
            8
        }
    }

    fn hash(number: u64) -> [u8; 32] {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_le_bytes());
        hash
    }

    fn loaded(stored: u64) -> Index<Number> {
        let index = Index::new(1000, 1 << 20, 0);
        let all = index.load(Position(1), |enter| {
            (0..stored).for_each(|number| enter(1, &hash(number), Number(number)));
            Ok::<_, std::convert::Infallible>(())
        });
        all.expect("infallible");
        index
    }

    /// RL-CON-05: while everything fits, nothing has to be read, neither what is there nor what is not; a deleted one is
    /// absent.
    #[test]
    fn a_whole_index_reads_nothing() {
        let index = loaded(500);
        for number in 0..100_000 {
            match index.get(1, &hash(number)) {
                Lookup::Hot(view) => assert!(view.0 == number && number < 500),
                Lookup::Absent => assert!(number >= 500, "{number} is said to be absent"),
                Lookup::Unknown => panic!("{number} would be read"),
            }
        }
        index.publish(1, &hash(7), Position(2), |_| None);
        assert!(matches!(index.get(1, &hash(7)), Lookup::Absent));
        index.publish(1, &hash(7), Position(3), |_| Some(Arc::new(Number(8))));
        assert!(matches!(index.get(1, &hash(7)), Lookup::Hot(view) if view.0 == 8));
        index.forget(1, &hash(7), Position(4));
        assert!(matches!(index.get(1, &hash(7)), Lookup::Unknown));
    }

    /// What did not fit, or was evicted, is never said to be absent.
    #[test]
    fn an_index_that_is_not_whole_says_so() {
        for (stored, published) in [(5000, 0), (900, 4000)] {
            let index = loaded(stored);
            for number in stored..stored + published {
                index.publish(1, &hash(number), Position(2), |_| Some(Arc::new(Number(number))));
            }
            let absent = |number: &u64| matches!(index.get(1, &hash(*number)), Lookup::Absent);
            assert_eq!((0..stored + published).find(absent), None, "{stored} stored, {published} published");
            assert!(index.len() < 2000);
        }
    }

    struct Leads(u32);

    impl View for Leads {
        fn weight(&self) -> usize {
            8
        }

        fn leads_to(&self) -> Option<u32> {
            Some(self.0)
        }
    }

    /// A lookup learns where its view leads, the next one fetches that, and a view that takes its place is asked anew.
    /// Addresses are hints only: one that is nowhere does no harm.
    #[test]
    fn a_lookup_knows_what_comes_next() {
        let index = Index::<Leads>::new(8, 1 << 20, 0);
        let hash = [7; 32];
        let asked = |address| {
            let mut asked = None;
            let fetch_bucket = |hash| {
                asked = Some(hash);
                address
            };
            assert!(matches!(index.get_ahead_of(1, &hash, fetch_bucket), Lookup::Hot(_)));
            asked
        };
        index.publish(1, &hash, Position(1), |_| Some(Arc::new(Leads(5))));
        assert_eq!([asked(0), asked(usize::MAX - 63), asked(64)], [None, Some(5), Some(5)]);
        index.publish(1, &hash, Position(2), |_| Some(Arc::new(Leads(6))));
        assert_eq!([asked(0), asked(0)], [None, Some(6)]);
        fetch(usize::MAX);
    }
}
