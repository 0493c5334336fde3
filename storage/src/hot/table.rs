//! A hash table that is read without locks: fixed buckets, each a chain of immutable links.
//!
//! The product's unsafe code, but for one call of the allocator's. What it promises to the safe world:
//!
//! - **One node per key**, whatever races: a node enters only at the head of its chain, by a compare-and-swap that fails
//!   when anything entered since the chain was scanned.
//! - **A reader sees the old value or the new one, never neither.** A replacement takes the old node's *place* in the
//!   chain, in one store; it is not pushed at the head with the old one unlinked later, where a reader already past the
//!   head could miss both.
//! - **Unlinking has one hand per chain.** `next` of a published node is changed only under the chain's stripe lock, so
//!   the classic hazard of concurrent unlinks of neighbours cannot arise; no marks on pointers are needed. Readers and
//!   `get_or_insert` never take that lock.
//! - **Nothing is freed under a reader**: an unlinked node goes to the epoch collector (K. Fraser, "Practical
//!   lock-freedom", 2004; `crossbeam-epoch`) and is dropped once everyone pinned at that moment has let go.
//!
//! Why a reader standing on an unlinked node still finds its way: that node keeps its last `next`, nodes enter at the head
//! only, and each later unlink bypasses one node that keeps its own `next` in turn; so everything that was in the chain
//! when the reader came, and still is, stays reachable from where it stands.
//!
//! The number of buckets is fixed at birth. Both arrays are taken from the allocator as zero pages, so buckets never
//! touched cost address space and no memory; the heads are in small pages, so that a few entries in many buckets cost
//! little, until there are so many that each page is in use: then the system is asked for huge ones.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;
use std::sync::{Arc, PoisonError};

use crossbeam::epoch;
use crossbeam::utils::CachePadded;

use super::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering};

/// Neighbouring buckets that share a floor: fewer than share a stripe lock.
const BUCKETS_PER_FLOOR: usize = 8;
/// Neighbouring buckets that share a stripe lock, so that a sweep takes a lock once per this many.
const BUCKETS_PER_LOCK: usize = 64;
/// The most stripe locks; beyond, several runs of buckets share one.
const MAX_STRIPES: usize = 1024;
/// Bytes that a processor fetches at a time.
const CACHE_LINE: usize = 64;
/// With an entry per so many buckets hardly a page of them is unused: 512 heads are on one.
const BUCKETS_PER_ENTRY_HUGE: usize = 64;
/// The most buckets; a larger wish gets this many (32 GiB of address space for the heads).
const MAX_BUCKETS: usize = 1 << 32;

/// Keeps what its thread reads out of tables from being freed. Cheap (a store and a fence), not for keeping: a guard held
/// for long holds back every deferred drop in the process.
///
/// A type of its own, and not `crossbeam`'s, because a guard of a private collector would protect nothing here.
pub struct Guard(epoch::Guard);

/// Pins the current thread.
pub fn pin() -> Guard {
    Guard(epoch::pin())
}

impl Guard {
    /// Pushes this thread's deferred drops towards the collector and runs some that are due.
    pub fn flush(&self) {
        self.0.flush();
    }

    /// Lets go and pins anew, so that a long walk does not hold back drops. It takes the guard exclusively: nothing
    /// read under it can still be borrowed.
    pub fn repin(&mut self) {
        self.0.repin();
    }
}

/// Aligned so that one of up to 64 bytes is one cache line: to look at it is one wait for memory.
#[repr(align(64))]
struct Node<K, V> {
    next: AtomicPtr<Node<K, V>>,
    note: AtomicU32,
    key: K,
    value: V,
}

impl<K, V> Node<K, V> {
    fn new(next: *mut Node<K, V>, key: K, value: V) -> Self {
        Node { next: AtomicPtr::new(next), note: AtomicU32::new(0), key, value }
    }
}

/// What is at a key.
pub struct Found<'g, V> {
    /// The value.
    pub value: &'g V,
    /// 32 bits that are the table's users' own; 0 in a node that has just entered, also in place of another.
    pub note: &'g AtomicU32,
}

/// The table. `hash` is always the caller's: well mixed in its low bits, a function of the key, and secret where strangers
/// choose keys. A node costs its key, its value, a pointer, and the allocator's overhead.
pub struct Table<K, V> {
    heads: Box<[AtomicPtr<Node<K, V>>]>,
    floors: Box<[AtomicU64]>,
    stripes: Box<[Mutex<()>]>,
    len: CachePadded<AtomicUsize>,
    owns: PhantomData<Box<Node<K, V>>>,
}

impl<K: Eq + Send + Sync + 'static, V: Send + Sync + 'static> Table<K, V> {
    /// An empty table with a power of two of buckets, `at_least` so many (1 to 2^32).
    pub fn with_buckets(at_least: usize) -> Self {
        let buckets = at_least.clamp(1, MAX_BUCKETS).next_power_of_two();
        let stripes = (buckets / BUCKETS_PER_LOCK).clamp(1, MAX_STRIPES);
        let heads = null_heads(buckets);
        advise(&heads, Pages::Small);
        Table {
            heads,
            floors: zero_floors(buckets.div_ceil(BUCKETS_PER_FLOOR)),
            stripes: (0..stripes).map(|_| Mutex::new(())).collect(),
            len: CachePadded::new(AtomicUsize::new(0)),
            owns: PhantomData,
        }
    }

    /// Entries in the table; exact whenever nobody is changing it.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of buckets, a power of two.
    pub fn bucket_count(&self) -> usize {
        self.heads.len()
    }

    /// Counts a new entry.
    fn entered(&self) {
        // Below zero for a moment where whoever removed an entry counted before whoever had entered it.
        let entries = self.len.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if entries == self.heads.len() / BUCKETS_PER_ENTRY_HUGE {
            advise(&self.heads, Pages::Huge);
        }
    }

    /// Bytes of all buckets.
    pub fn bucket_bytes(&self) -> usize {
        size_of_val(&*self.heads) + size_of_val(&*self.floors)
    }

    /// The bucket a hash falls into.
    pub fn bucket_of(&self, hash: u64) -> usize {
        // Truncation on 32-bit targets loses only bits the mask would cut.
        hash as usize & (self.heads.len() - 1)
    }

    /// The value under a key. Takes no lock and never waits.
    pub fn get<'g>(&'g self, hash: u64, key: &K, guard: &'g Guard) -> Option<&'g V> {
        self.find(hash, key, guard).map(|found| found.value)
    }

    /// [`get`](Self::get), with the note beside the value.
    pub fn find<'g>(&'g self, hash: u64, key: &K, _guard: &'g Guard) -> Option<Found<'g, V>> {
        let head = self.heads[self.bucket_of(hash)].load(Ordering::Acquire);
        // SAFETY: `head` was read from the table under the guard, which with the borrow of `self` outlives the result.
        unsafe { find(head, key) }.map(|node| Found { value: &node.value, note: &node.note })
    }

    /// The address of the newest node in a hash's bucket, as a number: for [`fetch`] only.
    pub fn newest(&self, hash: u64) -> usize {
        self.heads[self.bucket_of(hash)].load(Ordering::Relaxed).addr()
    }

    /// The value under a key, made by `make` where there is none. Lock-free; `make` is called at most once, and its value
    /// dropped again where another thread was first.
    pub fn get_or_insert<'g>(&'g self, hash: u64, key: K, make: impl FnOnce() -> V, guard: &'g Guard) -> &'g V {
        self.get_or_insert_noting(hash, key, make, guard).0
    }

    /// [`get_or_insert`](Self::get_or_insert), saying also whether it was this call that inserted.
    pub fn get_or_insert_noting<'g>(
        &'g self,
        hash: u64,
        key: K,
        make: impl FnOnce() -> V,
        _guard: &'g Guard,
    ) -> (&'g V, bool) {
        let head = &self.heads[self.bucket_of(hash)];
        let mut seen = head.load(Ordering::Acquire);
        // SAFETY: as in `get`.
        if let Some(node) = unsafe { find(seen, &key) } {
            return (&node.value, false);
        }
        let node = Box::into_raw(Box::new(Node::new(seen, key, make())));
        loop {
            // The head being `seen` means that the chain holds no key it did not hold when it was scanned: keys enter only
            // in front of it (what did and is gone again does not matter), a node once unlinked does not come back, and
            // its address is not reused while the guard is held.
            match head.compare_exchange(seen, node, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.entered();
                    // SAFETY: just published; whoever unlinks it defers its drop past this guard.
                    return (unsafe { &(*node).value }, true);
                }
                Err(newer) => seen = newer,
            }
            // SAFETY: `node` is still ours alone; `seen` as in `get`.
            if let Some(other) = unsafe { find(seen, &(*node).key) } {
                // SAFETY: it came from `Box::into_raw` above and was never published.
                drop(unsafe { Box::from_raw(node) });
                return (&other.value, false);
            }
            // SAFETY: still ours alone.
            unsafe { (*node).next.store(seen, Ordering::Relaxed) };
        }
    }

    /// Puts a value under a key, whether or not there was one; returns whether there was. A reader sees the old value or
    /// the new one, never neither. Waits for other holders of the bucket's stripe lock, never for readers. May be mixed
    /// with [`get_or_insert`](Self::get_or_insert) on one key; the latter then returns whichever it met.
    pub fn replace(&self, hash: u64, key: K, value: V, guard: &Guard) -> bool {
        self.locked(hash).replace(key, value, guard)
    }

    /// Removes a key where `may` agrees, which is asked about the current value under the stripe lock; returns whether
    /// it was removed.
    pub fn remove_if(&self, hash: u64, key: &K, guard: &Guard, may: impl FnOnce(&V) -> bool) -> bool {
        self.locked(hash).remove_if(key, guard, may)
    }

    /// Removes every entry of these buckets that `dead` names; returns how many. Holds one stripe lock at a time, for at
    /// most 64 buckets. Buckets past the last are ignored.
    pub fn sweep(&self, buckets: Range<usize>, guard: &Guard, mut dead: impl FnMut(&K, &V) -> bool) -> usize {
        let end = buckets.end.min(self.heads.len());
        let mut bucket = buckets.start;
        let mut removed = 0;
        while bucket < end {
            let run_end = ((bucket / BUCKETS_PER_LOCK + 1) * BUCKETS_PER_LOCK).min(end);
            let _lock = self.lock(bucket);
            for bucket in bucket..run_end {
                removed += self.remove_where(bucket, guard, usize::MAX, &mut dead);
            }
            bucket = run_end;
        }
        removed
    }

    /// Shows every entry of these buckets, without a lock. An entry that enters or leaves meanwhile may be missed; one
    /// that stays is shown exactly once, or, if replaced meanwhile, in its old or its new form.
    pub fn visit(&self, buckets: Range<usize>, _guard: &Guard, mut show: impl FnMut(&K, &V)) {
        let end = buckets.end.min(self.heads.len());
        for head in &self.heads[buckets.start.min(end)..end] {
            let mut at = head.load(Ordering::Acquire);
            // SAFETY: read under the guard; null or valid until it is dropped.
            while let Some(node) = unsafe { at.as_ref() } {
                show(&node.key, &node.value);
                at = node.next.load(Ordering::Acquire);
            }
        }
    }

    /// Takes the stripe lock of a hash's bucket: what is done through the result is one step for everyone else who
    /// takes it ([`replace`](Self::replace), [`remove_if`](Self::remove_if), [`sweep`](Self::sweep)); readers and
    /// [`get_or_insert`](Self::get_or_insert) go on meanwhile. Not re-entrant: do not call those on the table while
    /// holding it.
    pub fn locked(&self, hash: u64) -> BucketGuard<'_, K, V> {
        let bucket = self.bucket_of(hash);
        BucketGuard { table: self, bucket, _lock: self.lock(bucket) }
    }

    fn lock(&self, bucket: usize) -> MutexGuard<'_, ()> {
        let stripe = (bucket / BUCKETS_PER_LOCK) & (self.stripes.len() - 1);
        // A panic in a caller's closure leaves a whole chain: every change of one is a single store.
        self.stripes[stripe].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unlinks up to `most` entries that `dead` names. The caller holds the bucket's stripe lock.
    fn remove_where(&self, bucket: usize, guard: &Guard, most: usize, mut dead: impl FnMut(&K, &V) -> bool) -> usize {
        let mut removed = 0;
        let mut before = ptr::null_mut();
        let mut at = self.heads[bucket].load(Ordering::Acquire);
        // SAFETY: read under the guard; null or valid until it is dropped.
        while let Some(node) = unsafe { at.as_ref() } {
            let next = node.next.load(Ordering::Acquire);
            if removed < most && dead(&node.key, &node.value) {
                // SAFETY: the lock is held, `at` is in the chain, `before` is null or was its predecessor.
                unsafe { self.relink(bucket, before, at, next) };
                self.len.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: `at` has just left the chain.
                unsafe { retire(at, guard) };
                removed += 1;
            } else {
                before = at;
            }
            at = next;
        }
        removed
    }

    /// Makes the pointer that leads to `old` lead to `new`.
    ///
    /// # Safety
    /// The caller holds the bucket's stripe lock and a guard; `old` is in the bucket's chain; `before` is its predecessor,
    /// or null where it was the head when last looked at.
    unsafe fn relink(&self, bucket: usize, mut before: *mut Node<K, V>, old: *mut Node<K, V>, new: *mut Node<K, V>) {
        if before.is_null() {
            match self.heads[bucket].compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                // Nodes were pushed in front of it since: its predecessor is the oldest of them.
                Err(pushed) => before = pushed,
            }
            // SAFETY: every node from the head down to `old` is in the chain, and stays while the lock is held.
            unsafe {
                loop {
                    let next = (*before).next.load(Ordering::Acquire);
                    if next == old {
                        break;
                    }
                    before = next;
                }
            }
        }
        // SAFETY: as above.
        unsafe { (*before).next.store(new, Ordering::Release) };
    }
}

/// A bucket whose stripe lock is held.
pub struct BucketGuard<'t, K, V> {
    table: &'t Table<K, V>,
    bucket: usize,
    _lock: MutexGuard<'t, ()>,
}

impl<'t, K: Eq + Send + Sync + 'static, V: Send + Sync + 'static> BucketGuard<'t, K, V> {
    /// The value under a key of this bucket.
    pub fn get<'g>(&'g self, key: &K, _guard: &'g Guard) -> Option<&'g V> {
        let head = self.table.heads[self.bucket].load(Ordering::Acquire);
        // SAFETY: `head` was read from the table under the guard.
        unsafe { find(head, key) }.map(|node| &node.value)
    }

    /// Puts a value under a key of this bucket; returns whether there was one. See [`Table::replace`].
    pub fn replace(&mut self, key: K, value: V, guard: &Guard) -> bool {
        let head = &self.table.heads[self.bucket];
        let node = Box::into_raw(Box::new(Node::new(ptr::null_mut(), key, value)));
        loop {
            let first = head.load(Ordering::Acquire);
            let mut before = ptr::null_mut();
            let mut at = first;
            // SAFETY: read under the guard; `node` is still ours alone.
            while let Some(old) = unsafe { at.as_ref() } {
                // SAFETY: `node` is still ours alone.
                if unsafe { (*node).key == old.key } {
                    // SAFETY: the lock is held, so `old.next` cannot change; `at` is in the chain after `before`; once
                    // `at` is out of it nobody new can reach it.
                    unsafe {
                        (*node).next.store(old.next.load(Ordering::Acquire), Ordering::Relaxed);
                        self.table.relink(self.bucket, before, at, node);
                        retire(at, guard);
                    }
                    return true;
                }
                before = at;
                at = old.next.load(Ordering::Acquire);
            }
            // SAFETY: `node` is still ours alone.
            unsafe { (*node).next.store(first, Ordering::Relaxed) };
            // Where a lock-free insert was faster the chain is scanned again: it may have been of this key.
            if head.compare_exchange(first, node, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                self.table.entered();
                return false;
            }
        }
    }

    /// Puts a value under a key of this bucket unless there is one already; returns whether it did.
    pub fn insert(&mut self, key: K, value: V, guard: &Guard) -> bool {
        // The bucket is given as a hash: the bits above it do not matter any more.
        self.table.get_or_insert_noting(self.bucket as u64, key, || value, guard).1
    }

    /// Removes a key of this bucket where `may` agrees; returns whether it was removed.
    pub fn remove_if(&mut self, key: &K, guard: &Guard, may: impl FnOnce(&V) -> bool) -> bool {
        let mut may = Some(may);
        self.table.remove_where(self.bucket, guard, 1, |k, v| k == key && may.take().is_some_and(|may| may(v))) == 1
    }

    /// Removes a key of this bucket; returns whether there was one.
    pub fn remove(&mut self, key: &K, guard: &Guard) -> bool {
        self.remove_if(key, guard, |_| true)
    }

    /// The bucket's floor: a number its users keep per eight neighbouring buckets (the newest position published into
    /// them), 0 at first. It belongs to the holder of the lock, which all of them share.
    pub fn floor(&self) -> u64 {
        self.table.floors[self.bucket / BUCKETS_PER_FLOOR].load(Ordering::Relaxed)
    }

    /// Sets the floor of the bucket and its neighbours.
    pub fn set_floor(&mut self, floor: u64) {
        self.table.floors[self.bucket / BUCKETS_PER_FLOOR].store(floor, Ordering::Relaxed);
    }
}

impl<K, V> Drop for Table<K, V> {
    fn drop(&mut self) {
        if self.len.load(Ordering::Relaxed) == 0 {
            return;
        }
        for head in &self.heads {
            let mut at = head.load(Ordering::Relaxed);
            while !at.is_null() {
                // SAFETY: nobody else has the table; a linked node came from `Box::into_raw`, is in one chain only, and
                // was never handed to the collector.
                let node = unsafe { Box::from_raw(at) };
                at = node.next.load(Ordering::Relaxed);
            }
        }
    }
}

/// Walks a chain for a key.
///
/// # Safety
/// `at` is null or was read from a table that, like the guard it was read under, outlives `'g`.
unsafe fn find<'g, K: Eq, V>(mut at: *mut Node<K, V>, key: &K) -> Option<&'g Node<K, V>> {
    // SAFETY: the caller's promise for the first node; the rest were reached from it, hence linked when or after the
    // guard was taken, so that their drop waits for the guard.
    while let Some(node) = unsafe { at.as_ref() } {
        if node.key == *key {
            return Some(node);
        }
        at = node.next.load(Ordering::Acquire);
    }
    None
}

/// Drops a node once nobody can be reading it.
///
/// # Safety
/// `node` came from `Box::into_raw`, is no longer reachable from its table, and is retired once. Keys and values are
/// `Send` and own what they hold (`'static`), so that any thread may drop them at any later time.
unsafe fn retire<K: Send + 'static, V: Send + 'static>(node: *mut Node<K, V>, guard: &Guard) {
    // SAFETY: the caller's promise; `Guard` is always one of the process-wide collector that readers pin.
    unsafe { guard.0.defer_unchecked(move || drop(Box::from_raw(node))) };
}

/// Fetches the cache line of an address, which may be any number: an address that is not there is ignored.
pub fn fetch(address: usize) {
    prefetch(ptr::without_provenance::<u8>(address));
}

/// Fetches the cache lines of a value that is about to be read.
pub fn fetch_all<T>(value: *const T) {
    for offset in (0..size_of::<T>()).step_by(CACHE_LINE) {
        prefetch(value.wrapping_byte_add(offset));
    }
    prefetch(value.wrapping_byte_add(size_of::<T>().saturating_sub(1)));
}

/// [`fetch_all`] of a shared value, whose counts stand right before it.
pub fn fetch_shared<T>(value: &Arc<T>) {
    let value = Arc::as_ptr(value);
    prefetch(value.wrapping_byte_sub(2 * size_of::<usize>()));
    fetch_all(value);
}

#[cfg(target_arch = "x86_64")]
fn prefetch<T>(at: *const T) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint that neither faults nor changes what a program sees, whatever the address; SSE is part of x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
}

#[cfg(target_arch = "aarch64")]
fn prefetch<T>(at: *const T) {
    // SAFETY: a hint that neither faults nor changes what a program sees, whatever the address.
    unsafe { std::arch::asm!("prfm pldl1keep, [{0}]", in(reg) at, options(nostack, preserves_flags, readonly)) };
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn prefetch<T>(_: *const T) {}

/// What the system is to put memory into.
enum Pages {
    /// The smallest it has.
    Small,
    /// 2 MiB where it can: the processor keeps few addresses of pages at hand, and looks others up in memory.
    Huge,
}

/// Asks for a size of pages, which takes effect as they are first touched or, for huge ones in the place of many small ones,
/// some time later. Where the system knows no such thing, nothing changes.
#[cfg(all(target_os = "linux", not(shuttle)))]
fn advise<T>(memory: &[T], pages: Pages) {
    use rustix::mm::{Advice, madvise};
    const HUGE: usize = 2 << 20;
    let advice = match pages {
        Pages::Small => Advice::LinuxNoHugepage,
        Pages::Huge => Advice::LinuxHugepage,
    };
    let start = memory.as_ptr().cast_mut().cast::<u8>();
    let lead = start.align_offset(HUGE);
    let whole = size_of_val(memory).saturating_sub(lead) / HUGE * HUGE;
    if whole > 0 {
        // SAFETY: the range is within `memory`, and this advice changes no byte of it. It fails where the kernel has no huge
        // pages, and then there is nothing to advise.
        let _ = unsafe { madvise(start.wrapping_add(lead).cast(), whole, advice) };
    }
}

#[cfg(not(all(target_os = "linux", not(shuttle))))]
fn advise<T>(_: &[T], _: Pages) {}

#[cfg(not(shuttle))]
fn null_heads<T>(count: usize) -> Box<[AtomicPtr<T>]> {
    // SAFETY: `AtomicPtr<T>` has the bit validity of `*mut T`, whose all-zero pattern is the null pointer.
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

#[cfg(not(shuttle))]
fn zero_floors(count: usize) -> Box<[AtomicU64]> {
    // SAFETY: `AtomicU64` has the bit validity of `u64`.
    unsafe { Box::new_zeroed_slice(count).assume_init() }
}

#[cfg(shuttle)]
fn null_heads<T>(count: usize) -> Box<[AtomicPtr<T>]> {
    (0..count).map(|_| AtomicPtr::new(ptr::null_mut())).collect()
}

#[cfg(shuttle)]
fn zero_floors(count: usize) -> Box<[AtomicU64]> {
    (0..count).map(|_| AtomicU64::new(0)).collect()
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::disk::memory::SplitMix;

    /// A value that counts how many of its kind are alive, and that would show a use after its drop.
    struct Tracked {
        number: u64,
        check: u64,
        alive: Arc<AtomicUsize>,
    }

    impl Tracked {
        fn new(number: u64, alive: &Arc<AtomicUsize>) -> Tracked {
            alive.fetch_add(1, Ordering::Relaxed);
            Tracked { number, check: !number, alive: Arc::clone(alive) }
        }

        fn read(&self) -> u64 {
            assert_eq!(self.check, !self.number, "a dropped value was read");
            self.number
        }
    }

    impl Drop for Tracked {
        fn drop(&mut self) {
            assert_eq!(self.check, !self.number, "dropped twice");
            self.check = self.number;
            self.alive.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Waits until the collector has dropped all but `expected`: other tests of this process may hold it back a while.
    fn settles_at(alive: &AtomicUsize, expected: usize) {
        for _ in 0..100_000 {
            if alive.load(Ordering::Relaxed) == expected {
                return;
            }
            pin().flush();
            std::thread::yield_now();
        }
        assert_eq!(alive.load(Ordering::Relaxed), expected, "values alive");
    }

    /// Against a `HashMap`, over random operations in few buckets with poor hashes: the same answers, the same contents,
    /// and every value dropped exactly once.
    #[test]
    fn behaves_like_a_map() {
        let alive = Arc::new(AtomicUsize::new(0));
        let table = Table::<u64, Tracked>::with_buckets(100);
        assert_eq!(table.bucket_count(), 128);
        let mut model = HashMap::<u64, u64>::new();
        let mut random = SplitMix(7);
        let hash_of = |key: u64| key / 3;
        for number in 0..40_000 {
            let mut guard = pin();
            let key = random.below(400);
            let hash = hash_of(key);
            match random.below(8) {
                0 => {
                    let (value, ours) = table.get_or_insert_noting(hash, key, || Tracked::new(number, &alive), &guard);
                    assert_eq!(ours, !model.contains_key(&key));
                    assert_eq!(value.read(), *model.entry(key).or_insert(number));
                }
                1 | 2 => {
                    let had = table.replace(hash, key, Tracked::new(number, &alive), &guard);
                    assert_eq!(had, model.insert(key, number).is_some());
                }
                3 => {
                    let removed = table.remove_if(hash, &key, &guard, |value| value.read() % 2 == 0);
                    let due = model.get(&key).is_some_and(|number| number % 2 == 0);
                    assert_eq!(removed, due && model.remove(&key).is_some());
                }
                4 if number % 50 == 0 => {
                    let start = random.below(128) as usize;
                    let rest = random.below(5);
                    let in_range = |key: u64| (start..start + 40).contains(&(hash_of(key) as usize % 128));
                    let swept = table.sweep(start..start + 40, &guard, |_, value| value.read() % 5 == rest);
                    let before = model.len();
                    model.retain(|key, number| !(in_range(*key) && *number % 5 == rest));
                    assert_eq!(swept, before - model.len());
                }
                5 => {
                    let mut bucket = table.locked(hash);
                    let had = model.contains_key(&key);
                    assert_eq!(bucket.insert(key, Tracked::new(number, &alive), &guard), !had);
                    model.entry(key).or_insert(number);
                    assert_eq!(bucket.get(&key, &guard).map(Tracked::read), model.get(&key).copied());
                    if number % 3 == 0 {
                        assert!(bucket.remove(&key, &guard) && model.remove(&key).is_some());
                        assert!(!bucket.remove(&key, &guard));
                    }
                }
                _ => assert_eq!(table.get(hash, &key, &guard).map(Tracked::read), model.get(&key).copied()),
            }
            assert_eq!(table.len(), model.len());
            if number % 500 == 0 {
                guard.repin();
                let mut seen = HashMap::new();
                table.visit(0..usize::MAX, &guard, |key, value| assert!(seen.insert(*key, value.read()).is_none()));
                assert_eq!(seen, model);
            }
        }
        let left = table.len();
        settles_at(&alive, left);
        drop(table);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }

    /// Inserts, replacements, removals, sweeps and reads on real threads, in few buckets: a key that is only ever replaced
    /// is never missed and never goes back, no key is ever there twice, no insert is lost, nothing is read after its
    /// drop, and every value is dropped exactly once.
    #[test]
    fn holds_under_threads() {
        const STEADY: u64 = 16;
        const FLEETING: u64 = 64;
        const ROUNDS: u64 = 12_000;
        let alive = Arc::new(AtomicUsize::new(0));
        let table = Table::<u64, Tracked>::with_buckets(8);
        let done = AtomicBool::new(false);
        let value = |number| Tracked::new(number, &alive);
        for key in 0..STEADY {
            table.replace(key, key, value(0), &pin());
        }
        let (net, grown) = std::thread::scope(|scope| {
            // Steady keys: one writer, numbers rise; so no reader may see a number fall, or none.
            let writer = scope.spawn(|| {
                for number in 1..ROUNDS {
                    let key = number % STEADY;
                    assert!(table.replace(key, key, value(number), &pin()));
                }
                done.store(true, Ordering::Release);
            });
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = [0; STEADY as usize];
                    while !done.load(Ordering::Acquire) {
                        let guard = pin();
                        for key in 0..STEADY {
                            let number = table.get(key, &key, &guard).expect("a replaced key is always there").read();
                            assert!(number >= seen[key as usize], "the value of {key} went back");
                            seen[key as usize] = number;
                        }
                        let mut keys = Vec::new();
                        table.visit(0..8, &guard, |key, _| keys.extend((*key < STEADY).then_some(*key)));
                        keys.sort_unstable();
                        assert_eq!(keys, (0..STEADY).collect::<Vec<_>>(), "a steady key was seen twice, or not");
                    }
                });
            }
            // Fleeting keys come and go by every door; each thread keeps the balance of what it did.
            let churners: Vec<_> = (0..3u64)
                .map(|seed| {
                    let (table, value) = (&table, &value);
                    scope.spawn(move || {
                        let mut random = SplitMix(seed);
                        let mut balance = 0isize;
                        for number in 0..ROUNDS {
                            let guard = pin();
                            let key = 1_000 + random.below(FLEETING);
                            match random.below(4) {
                                0 => balance -= isize::from(table.remove_if(key, &key, &guard, |_| true)),
                                1 => balance += isize::from(!table.replace(key, key, value(number), &guard)),
                                2 if number % 16 == 0 => {
                                    let odd =
                                        |key: &u64, v: &Tracked| (1_000..5_000).contains(key) && v.read() % 2 == 1;
                                    balance -= table.sweep(0..8, &guard, odd) as isize;
                                }
                                _ => {
                                    let make = || value(number);
                                    balance += isize::from(table.get_or_insert_noting(key, key, make, &guard).1);
                                }
                            }
                        }
                        balance
                    })
                })
                .collect();
            // Growing keys only ever enter, two threads racing for each: exactly one wins.
            let growers: Vec<_> = (0..2)
                .map(|_| {
                    let (table, value) = (&table, &value);
                    scope.spawn(move || {
                        let enter = |key| table.get_or_insert_noting(key, key, || value(key), &pin()).1;
                        (5_000..5_500).filter(|key| enter(*key)).count()
                    })
                })
                .collect();
            writer.join().expect("the writer");
            let net: isize = churners.into_iter().map(|thread| thread.join().expect("a churner")).sum();
            let grown: usize = growers.into_iter().map(|thread| thread.join().expect("a grower")).sum();
            (net, grown)
        });
        assert_eq!(grown, 500, "each growing key was entered by exactly one thread");
        let mut keys = Vec::new();
        table.visit(0..8, &pin(), |key, value| {
            value.read();
            keys.push(*key);
        });
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "a key is there twice");
        let fleeting = keys.iter().filter(|key| (1_000..5_000).contains(*key)).count();
        assert_eq!(fleeting as isize, net, "what came in less what went out");
        assert_eq!(keys.iter().filter(|key| **key >= 5_000).count(), 500, "an insert was lost");
        assert_eq!(table.len(), keys.len());
        settles_at(&alive, keys.len());
        drop(table);
        assert_eq!(alive.load(Ordering::Relaxed), 0);
    }

    /// A floor belongs to the holder of the bucket's lock, starts at 0, and is that of the bucket's neighbours too.
    #[test]
    fn a_bucket_remembers_its_floor() {
        let table = Table::<u64, ()>::with_buckets(16);
        table.locked(1).set_floor(7);
        for (hash, floor) in [(0, 7), (1, 7), (7, 7), (8, 0), (15, 0), (17, 7)] {
            assert_eq!(table.locked(hash).floor(), floor);
        }
    }

    /// A big empty table costs address space, not memory.
    #[cfg(target_os = "linux")]
    #[test]
    fn untouched_buckets_cost_no_memory() {
        let resident_pages = || -> usize {
            let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
            statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("resident pages")
        };
        let before = resident_pages();
        let table = Table::<u64, u64>::with_buckets(1 << 24);
        let grown = resident_pages().saturating_sub(before) * 4;
        assert_eq!(table.get(77, &77, &pin()), None);
        // 256 MiB were asked for; other tests of this process allocate meanwhile.
        assert!(grown < 64 << 10, "{grown} KiB");
    }
}
