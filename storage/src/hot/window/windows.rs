//! The map from subjects to cells, and the two ways of taking from them: one, or all of several.
//!
//! **One** limit is one compare-and-swap on its cell. **Several** are claimed in the order of their subjects (so that no
//! two batches can wait for each other), decided, and released with one store each; a claim is held for a handful of
//! instructions, never across a lookup, an allocation or an await. Whoever meets a claim spins, then yields. A batch that
//! is denied needs no claim at all: it is decided on a snapshot, which is exact because counts only grow.
//!
//! **Nothing is written unless something is counted**: a denied or cost-0 request of an unknown subject makes no cell.
//!
//! **A cell is dropped when nothing in it counts any more** (RL-ALG-12), by exchanging its word for the retired one; from
//! then on nobody can count into it, and whoever still holds it looks the subject up again. That exchange and a count
//! compete for the same word, so a count is never lost. When all room is taken by live windows a new subject is refused:
//! a live window is never forgotten.
//!
//! **Room is shared** by a dynamic threshold (A. K. Choudhury, E. L. Hahne: *Dynamic Queue Length Thresholds for
//! Shared-Memory Packet Switches*, 1998): a workspace gets a new subject while it holds at most [`SHARE`] times as many as
//! there is room left for. Alone it may take 3/4 of all, the next one 3/4 of what is left then, and whoever comes later
//! still finds room. Each subject carries its workspace's account in its hash, so that who holds how many is known exactly,
//! over restarts too, for two additions per subject.

use crossbeam::utils::CachePadded;
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

use super::super::sync::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, AtomicWord, Ordering, spin_loop, yield_now};
use super::super::table::{Guard, Table, fetch_all, pin};
#[cfg(shuttle)]
use super::cell::Narrow as Live;
#[cfg(not(shuttle))]
use super::cell::Wide as Live;
use super::cell::{Counts, Decision, Layout, Moment, step};
use super::history::History;

/// How many times as many subjects as there is room left for a workspace may hold and still get a new one.
pub const SHARE: usize = 3;
/// Accounts of who holds how many subjects. Workspaces are numbered from 1 on, so only beyond so many do two share one,
/// and then the share of one account.
const ACCOUNTS: usize = if cfg!(shuttle) { 4 } else { 1 << 16 };
/// Calls of [`Windows::sweep`] that together look at every cell once.
pub const SWEEPS_PER_ROUND: usize = 16;
/// How long (ms) a cell outlives its last window that counts, so that a clock set back by less finds it.
pub const SETTLE_MS: u64 = 10_000;
/// How far (ms) one sweep lets itself be moved on by the clock. A clock that jumps ahead and back again within as many
/// sweeps as the jump has minutes makes the sweep forget nothing (RL-TIME-05).
pub const TRUST_MS_PER_SWEEP: u64 = 60_000;
/// Buckets looked through on behalf of one new subject when there is no room.
const INLINE_SWEEP_BUCKETS: usize = 256;
/// Buckets walked under one pin.
const BUCKETS_PER_PIN: usize = 4_096;
/// Entries a batch can have without an allocation.
const SMALL_BATCH: usize = 8;
/// Times a batch that takes nothing tries to get an undisturbed snapshot before it claims its cells like any other.
const SNAPSHOT_TRIES: usize = 4;
/// Times a batch looks for dead cells before it gives up: where there is room for some of its subjects only, it would take
/// its own blank ones for dead, again and again.
const SWEEP_TRIES: usize = 4;

/// Whether the processor can exchange a cell's 128 bits as one; where not, each exchange takes a lock, which is correct
/// but slow: worth a warning at the start.
pub fn cells_are_lock_free() -> bool {
    AtomicWord::is_lock_free()
}

/// What a subject is about. Kinds never share a counter (RL-USE-03, COM-WRL-08, KEYS-RL-5). The numbers are part of the
/// stored subjects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `ratelimit.limit` and `multiLimit`: owner is the namespace's id without its prefix, name the identifier.
    Namespace = 1,
    /// A key's own or a custom limit: owner is the key's id without its prefix, name the limit's.
    Key = 2,
    /// An identity's limit: owner is the identity's id without its prefix, name the limit's.
    Identity = 3,
    /// A workspace's limit on its own API requests: owner and name are empty.
    Workspace = 4,
}

/// Who is counted: a keyed hash of what makes up the subject, 111 bits, and the account of its workspace. Without the
/// store's secret nobody can aim at a collision, and at 2^32 subjects an accidental one has a chance of 2^-48.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Subject(pub(super) u128);

/// Set in subjects that are counted even where there is no room: workspaces are few and made by the operator, and no
/// tenant may stop another's requests by filling the room.
const ALWAYS_ADMITTED: u128 = 1 << 127;
/// Where a subject carries the account of its workspace: the workspace's number modulo 2^16.
const ACCOUNT_SHIFT: u32 = 111;
const ACCOUNT: u128 = (u16::MAX as u128) << ACCOUNT_SHIFT;

impl Subject {
    fn table_hash(self) -> u64 {
        // The lower half, as good a hash as the whole.
        self.0 as u64
    }

    /// Enough of the hash to find the bucket by.
    pub(crate) fn low_hash(self) -> u32 {
        self.0 as u32
    }

    fn account(self) -> usize {
        account_of((self.0 >> ACCOUNT_SHIFT) as u16)
    }
}

fn account_of(workspace: u16) -> usize {
    usize::from(workspace) % ACCOUNTS
}

/// One check of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    /// Who is counted; made with the same duration as stands below.
    pub subject: Subject,
    /// The limit's duration in ms, 1,000 or more; less is taken as 1,000.
    pub duration_ms: u64,
    /// Tokens allowed per duration. Not part of the subject (RL-ALG-09).
    pub limit: u64,
    /// Tokens to take; 0 only asks (RL-ALG-08).
    pub cost: u64,
}

/// All room, or as much of it as one workspace may have, is taken by windows that still count: this new subject cannot be
/// counted, hence not admitted. Nothing was taken. The caller answers 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room for another rate-limit window")]
pub struct Exhausted;

/// The counter of one subject. With the subject and the chain's pointer: 64 bytes.
struct Cell {
    word: AtomicWord,
    duration_ms: u64,
    /// Whether it changed since the journal last read it.
    changed: AtomicBool,
}

/// A cell as the journal keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Saved {
    pub subject: Subject,
    pub duration_ms: u64,
    /// An unclaimed word of the layout in use.
    pub word: u128,
}

/// What became of a saved cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restored {
    /// It counts again.
    Kept,
    /// Nothing in it counted any more.
    Expired,
    /// There was no room.
    NoRoom,
}

/// All rate-limit windows of a store.
pub struct Windows {
    seed: [u8; 16],
    table: Table<Subject, Cell>,
    /// A bit per bucket: something in it changed since the journal last looked.
    changed: Box<[AtomicU64]>,
    /// Cells in use or about to be; one that is retired and about to be unlinked counts no more.
    admitted: CachePadded<AtomicUsize>,
    /// The same for each account.
    held: Box<[AtomicU32]>,
    capacity: usize,
    /// The bucket the next sweep begins with, modulo their number.
    cursor: AtomicUsize,
    /// The time as the sweep believes it, Unix ms; 0 before the first one.
    believed_ms: AtomicU64,
    history: Option<History>,
}

impl Windows {
    /// No windows yet, and room for those of `max_subjects` subjects: some 80 bytes each, taken as they come.
    /// `seed` is the store's secret; with another one, saved windows are not found again.
    pub fn new(seed: [u8; 16], max_subjects: usize) -> Windows {
        let capacity = max_subjects.max(1);
        // A bucket for each: at half the room, which is much, one subject in four has another before it.
        let table = Table::with_buckets(capacity);
        let words = table.bucket_count().div_ceil(64);
        Windows {
            seed,
            table,
            changed: (0..words).map(|_| AtomicU64::new(0)).collect(),
            admitted: CachePadded::new(AtomicUsize::new(0)),
            held: (0..ACCOUNTS).map(|_| AtomicU32::new(0)).collect(),
            capacity,
            cursor: AtomicUsize::new(0),
            believed_ms: AtomicU64::new(0),
            history: None,
        }
    }

    /// Windows for test mode, where requests bring times in any order (RL-TIME-02, 03): every window is kept, none saved.
    pub fn for_tests(seed: [u8; 16], max_subjects: usize) -> Windows {
        Windows { history: Some(History::new(max_subjects)), ..Windows::new(seed, 1) }
    }

    /// The subject of a limit. `owner` and `name` are told apart wherever the border between them lies.
    pub fn subject(&self, kind: Kind, workspace: u32, owner: &[u8], name: &[u8], duration_ms: u64) -> Subject {
        let mut hasher = SipHasher24::new_with_key(&self.seed);
        let mut head = [0u8; 21];
        head[0] = kind as u8;
        head[1..5].copy_from_slice(&workspace.to_le_bytes());
        head[5..13].copy_from_slice(&duration_ms.to_le_bytes());
        head[13..].copy_from_slice(&(owner.len() as u64).to_le_bytes());
        hasher.write(&head);
        hasher.write(owner);
        hasher.write(name);
        let hash = hasher.finish128().as_u128() & !(ALWAYS_ADMITTED | ACCOUNT);
        let admission = if kind == Kind::Workspace { ALWAYS_ADMITTED } else { 0 };
        Subject(hash | admission | u128::from(workspace as u16) << ACCOUNT_SHIFT)
    }

    /// Fetches the bucket of a subject, of whose hash the low bits will do, and the mark that it changed; gives the address
    /// of the cell that is most likely the subject's.
    pub(crate) fn fetch(&self, hash: u64) -> usize {
        fetch_all(&raw const self.changed[self.table.bucket_of(hash) / 64]);
        self.table.newest(hash)
    }

    /// Subjects with a window in memory.
    pub fn len(&self) -> usize {
        self.history.as_ref().map_or_else(|| self.table.len(), History::len)
    }

    /// Whether no subject has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of a workspace.
    pub fn held_by(&self, workspace: u32) -> usize {
        self.held[account_of(workspace as u16)].load(Ordering::Acquire) as usize
    }

    /// The most there can be.
    pub fn capacity(&self) -> usize {
        self.history.as_ref().map_or(self.capacity, History::capacity)
    }

    /// Decides on one request and counts it if it passes: linearizable (RL-CON-02), without spurious denials (RL-CON-03),
    /// without a lock, and without an allocation where the subject is known.
    ///
    /// # Errors
    /// [`Exhausted`] for a subject that would have to be counted and finds no room.
    pub fn take(&self, take: &Take, now_ms: u64) -> Result<Decision, Exhausted> {
        if let Some(history) = &self.history {
            return Ok(history.take(take, now_ms));
        }
        let guard = pin();
        let mut patience = Patience::new();
        let hash = take.subject.table_hash();
        let mut known = self.table.get(hash, &take.subject, &guard);
        loop {
            let Some(cell) = known else {
                let step = step::<Live>(0, now_ms, take.duration_ms, take.limit, take.cost);
                let Some(first) = step.next_word else {
                    return Ok(step.decision);
                };
                let (cell, ours) = self.admit(take.subject, take.duration_ms, first, now_ms, &guard)?;
                if ours {
                    self.mark_changed(cell, hash);
                    return Ok(step.decision);
                }
                known = Some(cell);
                continue;
            };
            let word = cell.word.load(Ordering::SeqCst);
            if word & Live::CLAIM != 0 {
                patience.wait();
                if word == Live::RETIRED {
                    known = self.table.get(hash, &take.subject, &guard);
                }
                continue;
            }
            let step = step::<Live>(word, now_ms, take.duration_ms, take.limit, take.cost);
            let Some(next) = step.next_word else {
                return Ok(step.decision);
            };
            if cell.word.compare_exchange(word, next, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                self.mark_changed(cell, hash);
                return Ok(step.decision);
            }
        }
    }

    /// Decides on several requests as one: all are counted or none is (RL-MULTI-05 to 11, KEYS-RL-7). `out` becomes one
    /// decision per take, in their order; the result says whether all passed. In a batch that failed, an entry that
    /// would have passed has its cost back in `remaining` (RL-MULTI-07).
    ///
    /// Linearizable: a batch that fails was never visible to anyone. Allocates for more than 8 entries, and where `out`
    /// is too small.
    ///
    /// # Errors
    /// [`Exhausted`] as for [`take`](Self::take); nothing was counted then and `out` has no meaning.
    pub fn take_all(&self, takes: &[Take], now_ms: u64, out: &mut Vec<Decision>) -> Result<bool, Exhausted> {
        out.clear();
        if let Some(history) = &self.history {
            return Ok(history.take_all(takes, now_ms, out));
        }
        if let [take] = takes {
            let decision = self.take(take, now_ms)?;
            out.push(decision);
            return Ok(decision.passed);
        }
        out.resize(takes.len(), Decision::default());
        let guard = pin();
        let mut few = [Slot::default(); SMALL_BATCH];
        let mut many = Vec::new();
        let slots = if takes.len() <= SMALL_BATCH {
            &mut few[..takes.len()]
        } else {
            many.resize(takes.len(), Slot::default());
            &mut many[..]
        };
        arrange(slots, takes);

        let mut patience = Patience::new();
        for _ in 0..SNAPSHOT_TRIES {
            if self.look(slots, &guard) {
                let verdict = decide(slots, takes, now_ms, out);
                if verdict.takes_something() {
                    break;
                }
                if self.unmoved(slots, &guard) {
                    return Ok(verdict.passed);
                }
            }
            patience.wait();
        }

        let mut sweeps = SWEEP_TRIES;
        loop {
            self.enter_all(slots, takes, now_ms, &mut sweeps, &guard)?;
            let Some(claims) = Claims::of(slots) else {
                patience.wait();
                continue;
            };
            let verdict = decide(claims.slots, takes, now_ms, out);
            if verdict.takes_something() {
                for slot in claims.slots.iter_mut().filter(|slot| slot.leads && slot.spent > 0) {
                    slot.word = slot.moment.plus(slot.spent).pack::<Live>();
                }
            }
            drop(claims);
            if verdict.takes_something() {
                for slot in slots.iter().filter(|slot| slot.leads && slot.spent > 0) {
                    if let Some(cell) = slot.cell {
                        self.mark_changed(cell, slot.subject.table_hash());
                    }
                }
            }
            return Ok(verdict.passed);
        }
    }

    /// Drops cells in which nothing counts any more; returns how many. To be called about every second by one thread;
    /// each call looks at a part of the cells, [`SWEEPS_PER_ROUND`] calls at all.
    pub fn sweep(&self, now_ms: u64) -> usize {
        let believed = self.believable(now_ms);
        self.believed_ms.store(believed, Ordering::Relaxed);
        let buckets = self.table.bucket_count().div_ceil(SWEEPS_PER_ROUND);
        self.drop_dead(buckets, believed.saturating_sub(SETTLE_MS))
    }

    /// Moves the sweep's idea of the time towards `now_ms`: back at once, ahead by little at a time.
    fn believable(&self, now_ms: u64) -> u64 {
        match self.believed_ms.load(Ordering::Relaxed) {
            0 => now_ms,
            last => now_ms.min(last.saturating_add(TRUST_MS_PER_SWEEP)),
        }
    }

    /// Drops what does not count at `judged_ms` from the next `buckets` buckets.
    fn drop_dead(&self, buckets: usize, judged_ms: u64) -> usize {
        let all = self.table.bucket_count();
        let mut left = buckets.min(all);
        let mut dropped = 0;
        // The place is free as soon as the cell is retired, under the stripe lock still: whoever waits for the lock to look
        // for a dead cell finds the place instead.
        let drop_if_dead = |subject: &Subject, cell: &Cell| {
            let dead = retire_if_dead(cell, judged_ms);
            if dead {
                self.give_back(*subject);
            }
            dead
        };
        while left > 0 {
            let run = left.min(BUCKETS_PER_PIN);
            let start = self.cursor.fetch_add(run, Ordering::Relaxed) & (all - 1);
            let guard = pin();
            let sweep = |range| self.table.sweep(range, &guard, drop_if_dead);
            dropped += sweep(start..start + run);
            if start + run > all {
                dropped += sweep(0..start + run - all);
            }
            left -= run;
        }
        dropped
    }

    /// The cell of a subject that had none a moment ago, and whether this call made it, with `word` in it.
    fn admit<'g>(
        &'g self,
        subject: Subject,
        duration_ms: u64,
        word: u128,
        now_ms: u64,
        guard: &'g Guard,
    ) -> Result<(&'g Cell, bool), Exhausted> {
        if subject.0 & ALWAYS_ADMITTED != 0 {
            self.admitted.fetch_add(1, Ordering::AcqRel);
            self.held[subject.account()].fetch_add(1, Ordering::AcqRel);
        } else {
            let subject = [subject];
            if !self.reserve(&subject, SHARE) {
                self.make_room(&subject, now_ms)?;
            }
        }
        Ok(self.enter(subject, duration_ms, word, guard))
    }

    /// Finds the cells of a batch, blank ones where there are none. Room is made for all of them before the first enters:
    /// a sweep in between would take the blank ones for dead.
    fn enter_all<'g>(
        &'g self,
        slots: &mut [Slot<'g>],
        takes: &[Take],
        now_ms: u64,
        sweeps: &mut usize,
        guard: &'g Guard,
    ) -> Result<(), Exhausted> {
        for slot in slots.iter_mut().filter(|slot| slot.leads) {
            slot.cell = self.table.get(slot.subject.table_hash(), &slot.subject, guard);
        }
        let missing = Missing(slots);
        if missing.subjects().next().is_some() {
            if !self.reserve(&missing, SHARE) {
                *sweeps = sweeps.checked_sub(1).ok_or(Exhausted)?;
                self.make_room(&missing, now_ms)?;
            }
            for slot in slots.iter_mut().filter(|slot| slot.leads && slot.cell.is_none()) {
                slot.cell = Some(self.enter(slot.subject, takes[slot.entry].duration_ms, 0, guard).0);
            }
        }
        Ok(())
    }

    /// Drops cells that are dead, and reserves room for new subjects then.
    fn make_room(&self, subjects: &impl Subjects, now_ms: u64) -> Result<(), Exhausted> {
        let buckets = subjects.subjects().count().saturating_mul(INLINE_SWEEP_BUCKETS);
        self.drop_dead(buckets, self.believable(now_ms));
        if self.reserve(subjects, SHARE) { Ok(()) } else { Err(Exhausted) }
    }

    /// Reserves room for new subjects if there is, for all or for none.
    ///
    /// They are put on their accounts first and taken off again where that was too much: so an account never holds more
    /// than its share, and two that try for the last of it at once may both be refused.
    fn reserve(&self, subjects: &impl Subjects, share: usize) -> bool {
        let (mut wanted, mut most_held) = (0, 0);
        for subject in subjects.subjects() {
            let held = self.held[subject.account()].fetch_add(1, Ordering::AcqRel) as usize + 1;
            most_held = most_held.max(held);
            wanted += 1;
        }
        let more = |admitted: usize| {
            let room = self.capacity.saturating_sub(admitted);
            (wanted <= room && most_held <= room.saturating_mul(share)).then(|| admitted + wanted)
        };
        let reserved = self.admitted.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok();
        if !reserved {
            for subject in subjects.subjects() {
                self.held[subject.account()].fetch_sub(1, Ordering::AcqRel);
            }
        }
        reserved
    }

    /// Gives the room of a subject back.
    fn give_back(&self, subject: Subject) {
        self.admitted.fetch_sub(1, Ordering::AcqRel);
        self.held[subject.account()].fetch_sub(1, Ordering::AcqRel);
    }

    /// Enters a cell for which room was reserved; gives the room back where another thread entered it first.
    fn enter<'g>(&'g self, subject: Subject, duration_ms: u64, word: u128, guard: &'g Guard) -> (&'g Cell, bool) {
        let make = || Cell { word: AtomicWord::new(word), duration_ms, changed: AtomicBool::new(false) };
        let (cell, ours) = self.table.get_or_insert_noting(subject.table_hash(), subject, make, guard);
        if !ours {
            self.give_back(subject);
        }
        (cell, ours)
    }

    /// Reads the words of a batch's cells; false where one is claimed or retired.
    fn look<'g>(&'g self, slots: &mut [Slot<'g>], guard: &'g Guard) -> bool {
        for slot in slots.iter_mut().filter(|slot| slot.leads) {
            slot.cell = self.table.get(slot.subject.table_hash(), &slot.subject, guard);
            slot.word = slot.cell.map_or(0, |cell| cell.word.load(Ordering::SeqCst));
            if slot.word & Live::CLAIM != 0 {
                return false;
            }
        }
        true
    }

    /// Whether all cells still are as [`look`](Self::look) found them. Then they were so all at once at some instant
    /// between the two: a subject's word never returns to an earlier value.
    fn unmoved(&self, slots: &[Slot<'_>], guard: &Guard) -> bool {
        slots.iter().filter(|slot| slot.leads).all(|slot| match slot.cell {
            Some(cell) => cell.word.load(Ordering::SeqCst) == slot.word,
            None => self.table.get(slot.subject.table_hash(), &slot.subject, guard).is_none(),
        })
    }

    /// Notes for the journal that a cell's word was changed, just now.
    ///
    /// The order is what matters: word, then mark, then the bucket's bit here; bit, then mark, then word in
    /// [`changed_cells`](Self::changed_cells). All are sequentially consistent, so either this thread finds the mark
    /// taken away and sets it again, or the journal finds the new word.
    fn mark_changed(&self, cell: &Cell, hash: u64) {
        if !cell.changed.load(Ordering::SeqCst) {
            cell.changed.store(true, Ordering::SeqCst);
            let bucket = self.table.bucket_of(hash);
            self.changed[bucket / 64].fetch_or(1 << (bucket % 64), Ordering::SeqCst);
        }
    }

    /// Hands out every cell changed since the last call that still counts at `now_ms`. Where `keep` fails, marks are lost:
    /// only [`all_cells`](Self::all_cells) is complete then.
    pub(super) fn changed_cells<E>(&self, now_ms: u64, mut keep: impl FnMut(Saved) -> Result<(), E>) -> Result<(), E> {
        let mut guard = pin();
        for (index, bits) in self.changed.iter().enumerate() {
            if bits.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut set = bits.swap(0, Ordering::SeqCst);
            while set != 0 {
                let bucket = index * 64 + set.trailing_zeros() as usize;
                set &= set - 1;
                let mut outcome = Ok(());
                self.table.visit(bucket..bucket + 1, &guard, |subject, cell| {
                    if outcome.is_ok() && cell.changed.swap(false, Ordering::SeqCst) {
                        outcome = saved(*subject, cell, now_ms).map_or(Ok(()), &mut keep);
                    }
                });
                outcome?;
            }
            guard.repin();
        }
        Ok(())
    }

    /// Hands out every cell that counts at `now_ms`, and takes their marks away.
    pub(super) fn all_cells<E>(&self, now_ms: u64, mut keep: impl FnMut(Saved) -> Result<(), E>) -> Result<(), E> {
        // Bits first: a cell that changes from here on is found again by the next `changed_cells`.
        for bits in &self.changed {
            if bits.load(Ordering::Relaxed) != 0 {
                bits.swap(0, Ordering::SeqCst);
            }
        }
        let all = self.table.bucket_count();
        for start in (0..all).step_by(BUCKETS_PER_PIN) {
            let guard = pin();
            let mut outcome = Ok(());
            self.table.visit(start..start + BUCKETS_PER_PIN, &guard, |subject, cell| {
                if outcome.is_ok() {
                    cell.changed.swap(false, Ordering::SeqCst);
                    outcome = saved(*subject, cell, now_ms).map_or(Ok(()), &mut keep);
                }
            });
            outcome?;
        }
        Ok(())
    }

    /// Puts a saved cell back, unmarked, before the windows are used. Of two words of one subject the later one stays.
    pub(super) fn restore(&self, saved: Saved, now_ms: u64) -> Restored {
        let counts = Counts::unpack::<Live>(saved.word);
        if Moment::at(counts, now_ms, saved.duration_ms, Live::MAX_WINDOW).is_blank() {
            return Restored::Expired;
        }
        let guard = pin();
        let cell = match self.table.get(saved.subject.table_hash(), &saved.subject, &guard) {
            Some(cell) => cell,
            // No sweep: what was restored before is alive. No share either: a live window is never forgotten.
            None if self.reserve(&[saved.subject], usize::MAX) => {
                self.enter(saved.subject, saved.duration_ms, saved.word, &guard).0
            }
            None => return Restored::NoRoom,
        };
        let mut word = cell.word.load(Ordering::SeqCst);
        while word & Live::CLAIM == 0 && word < saved.word {
            match cell.word.compare_exchange(word, saved.word, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => break,
                Err(newer) => word = newer,
            }
        }
        Restored::Kept
    }

    /// A number that tells whether saved subjects were made with this store's secret.
    pub(super) fn seed_check(&self) -> u64 {
        let mut hasher = SipHasher24::new_with_key(&self.seed);
        hasher.write(b"keyward windows: seed check");
        hasher.finish128().as_u64().0
    }

    /// Whether these are windows of test mode.
    pub(super) fn is_for_tests(&self) -> bool {
        self.history.is_some()
    }
}

/// A cell as it is now, unless nothing in it counts. A claim is read through: what it is about to change is marked then.
fn saved(subject: Subject, cell: &Cell, now_ms: u64) -> Option<Saved> {
    let word = cell.word.load(Ordering::SeqCst);
    let counts = Counts::unpack::<Live>(word);
    let blank = Moment::at(counts, now_ms, cell.duration_ms, Live::MAX_WINDOW).is_blank();
    let counts = word != Live::RETIRED && !blank;
    counts.then_some(Saved { subject, duration_ms: cell.duration_ms, word: word & !Live::CLAIM })
}

/// Takes a cell out of use if nothing in it counts at `judged_ms`. The word decides: whoever counts first keeps the cell.
fn retire_if_dead(cell: &Cell, judged_ms: u64) -> bool {
    let mut word = cell.word.load(Ordering::SeqCst);
    loop {
        let counts = Counts::unpack::<Live>(word);
        let blank = Moment::at(counts, judged_ms, cell.duration_ms, Live::MAX_WINDOW).is_blank();
        if word & Live::CLAIM != 0 || !blank {
            return false;
        }
        match cell.word.compare_exchange(word, Live::RETIRED, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => return true,
            Err(newer) => word = newer,
        }
    }
}

/// One entry of a batch, in the order of subjects. The first of equal subjects leads: the cell is its.
#[derive(Clone, Copy, Default)]
struct Slot<'g> {
    subject: Subject,
    /// Which take this is.
    entry: usize,
    leads: bool,
    cell: Option<&'g Cell>,
    /// The cell's unclaimed word as read, then as it is to be left.
    word: u128,
    moment: Moment,
    /// The costs of all entries of the subject.
    spent: u64,
}

/// Subjects that want room.
trait Subjects {
    fn subjects(&self) -> impl Iterator<Item = Subject>;
}

impl Subjects for [Subject; 1] {
    fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.iter().copied()
    }
}

/// Those of a batch that have no cell.
struct Missing<'s, 'g>(&'s [Slot<'g>]);

impl Subjects for Missing<'_, '_> {
    fn subjects(&self) -> impl Iterator<Item = Subject> {
        self.0.iter().filter(|slot| slot.leads && slot.cell.is_none()).map(|slot| slot.subject)
    }
}

/// Puts a batch into the order in which cells are claimed, equal subjects in the order of their entries.
fn arrange(slots: &mut [Slot<'_>], takes: &[Take]) {
    for (entry, (slot, take)) in slots.iter_mut().zip(takes).enumerate() {
        slot.subject = take.subject;
        slot.entry = entry;
    }
    slots.sort_unstable_by_key(|slot| (slot.subject, slot.entry));
    let mut before = None;
    for slot in slots {
        slot.leads = before != Some(slot.subject);
        before = Some(slot.subject);
    }
}

/// What a batch comes to.
#[derive(Clone, Copy)]
struct Verdict {
    passed: bool,
    costs_something: bool,
}

impl Verdict {
    fn takes_something(self) -> bool {
        self.passed && self.costs_something
    }
}

/// Decides on a batch given the words in its leading slots. Entries of different subjects do not touch each other, so
/// going by subject is going in the order of entries (RL-MULTI-05).
fn decide(slots: &mut [Slot<'_>], takes: &[Take], now_ms: u64, out: &mut [Decision]) -> Verdict {
    let mut verdict = Verdict { passed: true, costs_something: false };
    for run in slots.chunk_by_mut(|a, b| a.subject == b.subject) {
        let counts = Counts::unpack::<Live>(run[0].word);
        let moment = Moment::at(counts, now_ms, takes[run[0].entry].duration_ms, Live::MAX_WINDOW);
        let mut spent = 0u64;
        for slot in run.iter() {
            let take = &takes[slot.entry];
            let decision = moment.judge(take.limit, spent, take.cost, Live::MAX_COUNT);
            verdict.passed &= decision.passed;
            out[slot.entry] = decision;
            spent = spent.saturating_add(take.cost);
        }
        verdict.costs_something |= spent > 0;
        run[0].moment = moment;
        run[0].spent = spent;
    }
    if !verdict.passed {
        hand_back(takes, out);
    }
    verdict
}

/// In a failed batch, entries that would have passed get their cost back (RL-MULTI-07).
pub(super) fn hand_back(takes: &[Take], out: &mut [Decision]) {
    for (take, decision) in takes.iter().zip(out) {
        if decision.passed {
            decision.remaining += take.cost;
        }
    }
}

/// Claimed cells. Dropping releases them, each with its slot's word: also if a decision panicked.
struct Claims<'s, 'g> {
    slots: &'s mut [Slot<'g>],
    claimed: usize,
}

impl<'s, 'g> Claims<'s, 'g> {
    /// Claims the cells of all leading slots, in order, and notes their words; none where one has been retired.
    fn of(slots: &'s mut [Slot<'g>]) -> Option<Claims<'s, 'g>> {
        let mut claims = Claims { slots, claimed: 0 };
        while let Some(slot) = claims.slots.get_mut(claims.claimed) {
            if let Some(cell) = slot.cell {
                slot.word = claim(cell)?;
            }
            claims.claimed += 1;
        }
        Some(claims)
    }
}

impl Drop for Claims<'_, '_> {
    fn drop(&mut self) {
        for slot in &self.slots[..self.claimed] {
            if let Some(cell) = slot.cell {
                cell.word.store(slot.word, Ordering::SeqCst);
            }
        }
    }
}

/// Claims one cell and returns its word; none where it is retired.
fn claim(cell: &Cell) -> Option<u128> {
    let mut patience = Patience::new();
    loop {
        let word = cell.word.load(Ordering::SeqCst);
        if word == Live::RETIRED {
            return None;
        }
        if word & Live::CLAIM != 0 {
            patience.wait();
        } else if cell.word.compare_exchange(word, word | Live::CLAIM, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
            return Some(word);
        }
    }
}

/// Waiting for somebody who needs a few instructions: spin a little longer each time, then give the processor away, in
/// case it is on this one that the other wants to run.
struct Patience(u32);

impl Patience {
    fn new() -> Patience {
        Patience(0)
    }

    fn wait(&mut self) {
        const SPIN_ROUNDS: u32 = if cfg!(shuttle) { 0 } else { 6 };
        if self.0 < SPIN_ROUNDS {
            for _ in 0..1 << self.0 {
                spin_loop();
            }
            self.0 += 1;
        } else {
            yield_now();
        }
    }
}
