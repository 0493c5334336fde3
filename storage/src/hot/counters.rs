//! What changes on a key with every verification: credits left, and the minute of the last use.
//!
//! Counters are not part of the key's view, so replacing a view never resets or revives a count. There is exactly one
//! `KeyCounters` per hot key; every view of the key shares it.
//!
//! The credit word is one 128-bit atomic: 63 bits of balance, a *retired* bit, a *dirty* bit and 63 bits of generation.
//! A spend is one compare-and-swap, so credits are never over-spent, however many threads. A *dirty* cell has spends the
//! log does not hold yet; it waits in the writer's queue and is never evicted. A *retired* cell was evicted: whoever still
//! holds it looks the key up again. Every set, change and refill starts a new generation, so that a spend journaled late
//! can be told from what was set meanwhile.

use super::sync::{AtomicBool, AtomicU32, AtomicU128, Ordering};
use crate::ids::{KeyId, WorkspaceNo};
use crate::records::key::CreditsRow;

/// The largest balance there can be: 2^63 - 1, the largest number a client can send.
pub const MAX_BALANCE: u64 = i64::MAX as u64;

const BALANCE: u128 = MAX_BALANCE as u128;
const RETIRED: u128 = 1 << 63;
const DIRTY: u128 = 1 << 64;
const GENERATION_SHIFT: u32 = 65;

/// No refill is due, ever.
const NEVER: u32 = u32::MAX;

/// The minute a refill due at `due` (unix ms) falls in, since 1970. Refills fall due on whole minutes; one that did not
/// would only be asked for early, and the transaction that makes it looks at the exact time.
fn due_minute(due: Option<u64>) -> u32 {
    due.map_or(NEVER, |due| u32::try_from(due / MINUTE_MS).unwrap_or(NEVER))
}

/// Last uses and refills are kept in whole minutes (KEYS-ANALYTICS-5).
pub const MINUTE_MS: u64 = 60_000;

/// The counters of one key.
#[derive(Debug)]
pub struct KeyCounters {
    word: AtomicU128,
    /// Minute since 1970 from which a refill is due.
    refill_due: AtomicU32,
    /// Minutes since 1970 of the last verification; 0 = never.
    last_used: AtomicU32,
    /// Whether `last_used` is newer than the stored one.
    touched: AtomicBool,
    pub(crate) workspace: WorkspaceNo,
    pub(crate) id: KeyId,
}

/// What became of a spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spend {
    /// Taken; so many are left.
    Taken {
        /// Credits left after it.
        left: u64,
        /// Whether the cell was clean before: then it has to be handed to the writer.
        first: bool,
        /// The generation it was taken from.
        generation: u64,
    },
    /// Not enough: nothing was taken, so many are left.
    Short {
        /// Credits left.
        left: u64,
    },
    /// The cell was evicted: look the key up again.
    Retired,
}

/// A change of a balance by the API, applied when the writer publishes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Exactly this many are left.
    Set(u64),
    /// So many more.
    Add(u64),
    /// So many fewer, but never below none.
    Subtract(u64),
    /// At least this many (a refill).
    RaiseTo(u64),
}

impl Change {
    /// The balance it makes of another. `None` where it would pass [`MAX_BALANCE`].
    pub fn apply(self, balance: u64) -> Option<u64> {
        match self {
            Change::Set(value) => Some(value),
            Change::Add(value) => balance.checked_add(value),
            Change::Subtract(value) => Some(balance.saturating_sub(value)),
            Change::RaiseTo(value) => Some(balance.max(value)),
        }
        .filter(|&balance| balance <= MAX_BALANCE)
    }
}

fn pack(generation: u64, balance: u64) -> u128 {
    (u128::from(generation) << GENERATION_SHIFT) | u128::from(balance.min(MAX_BALANCE))
}

fn balance_of(word: u128) -> u64 {
    u64::try_from(word & BALANCE).expect("63 bits fit")
}

fn generation_of(word: u128) -> u64 {
    u64::try_from(word >> GENERATION_SHIFT).expect("63 bits fit")
}

/// A balance with its generation, as the journal writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u128);

impl Mark {
    pub fn balance(self) -> u64 {
        balance_of(self.0)
    }
    pub fn generation(self) -> u64 {
        generation_of(self.0)
    }
}

impl KeyCounters {
    pub(crate) fn new(workspace: WorkspaceNo, id: KeyId, credits: Option<&CreditsRow>, last_used: u32) -> KeyCounters {
        KeyCounters {
            word: AtomicU128::new(credits.map_or(0, |row| pack(row.generation, row.balance))),
            refill_due: AtomicU32::new(due_minute(credits.and_then(|row| row.refill_due))),
            last_used: AtomicU32::new(last_used),
            touched: AtomicBool::new(false),
            workspace,
            id,
        }
    }

    /// Credits left. Meaningful only for a key with a limited number.
    pub fn balance(&self) -> u64 {
        balance_of(self.word.load(Ordering::Acquire))
    }

    /// Changes whenever the balance is set or refilled.
    pub fn generation(&self) -> u64 {
        generation_of(self.word.load(Ordering::Acquire))
    }

    /// Whether a refill is due at `now`.
    pub fn refill_is_due(&self, now: u64) -> bool {
        let due = self.refill_due.load(Ordering::Acquire);
        due != NEVER && now / MINUTE_MS >= u64::from(due)
    }

    /// Takes `cost` credits, all or none.
    pub(crate) fn spend(&self, cost: u64) -> Spend {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if word & RETIRED != 0 {
                return Spend::Retired;
            }
            let balance = balance_of(word);
            if cost == 0 {
                return Spend::Taken { left: balance, first: false, generation: generation_of(word) };
            }
            if balance < cost {
                return Spend::Short { left: balance };
            }
            let next = (word - u128::from(cost)) | DIRTY;
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    return Spend::Taken {
                        left: balance - cost,
                        first: word & DIRTY == 0,
                        generation: generation_of(word),
                    };
                }
                Err(seen) => word = seen,
            }
        }
    }

    /// Gives back a spend that could not be journaled before its answer (`strict`), unless the balance was set meanwhile.
    pub(crate) fn give_back(&self, cost: u64, generation: u64) {
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            (generation_of(word) == generation)
                .then(|| pack(generation, balance_of(word) + cost) | (word & (RETIRED | DIRTY)))
        });
    }

    /// Applies a published change that started `generation` and made `stored` of the stored balance; gives the balance
    /// it makes of this one, or `None` where this cell already has it (it was filled from the changed row).
    ///
    /// A cell that does not have the generation before it holds nothing to go on from, since the key had no limit when it
    /// was filled: it becomes what is stored. Only the writer calls this.
    pub(crate) fn change(&self, change: Change, generation: u64, stored: u64, refill_due: Option<u64>) -> Option<u64> {
        if self.generation() >= generation {
            return None;
        }
        // Before the balance: who sees that must not find the refill still due that made it.
        self.refill_due.store(due_minute(refill_due), Ordering::Release);
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let balance = if generation_of(word) + 1 == generation {
                change.apply(balance_of(word)).unwrap_or(MAX_BALANCE)
            } else {
                stored
            };
            let next = pack(generation, balance) | (word & (RETIRED | DIRTY));
            match self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(balance),
                Err(seen) => word = seen,
            }
        }
    }

    /// Becomes what the leader has written: on a follower nobody spends. `minute` is that of the last verification, 0 = not told.
    pub(crate) fn replicate(&self, credits: Option<&CreditsRow>, minute: u32) {
        if let Some(row) = credits {
            self.refill_due.store(due_minute(row.refill_due), Ordering::Release);
            let next = |word| Some(pack(row.generation, row.balance) | (word & RETIRED));
            let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        }
        self.last_used.fetch_max(minute, Ordering::SeqCst);
    }

    /// Whether it has spends the journal does not hold.
    pub(crate) fn is_dirty(&self) -> bool {
        self.word.load(Ordering::Acquire) & DIRTY != 0
    }

    /// What the journal has to hold, if anything.
    pub(crate) fn unjournaled(&self) -> Option<Mark> {
        let word = self.word.load(Ordering::Acquire);
        (word & DIRTY != 0).then_some(Mark(word))
    }

    /// The journal holds `mark`. Whether the cell is clean now; if not, more was spent meanwhile.
    pub(crate) fn journaled(&self, mark: Mark) -> bool {
        self.word.compare_exchange(mark.0, mark.0 & !DIRTY, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Notes a verification in a minute (since 1970). Whether this is the first since the stored one.
    pub(crate) fn touch(&self, minute: u32) -> bool {
        self.last_used.fetch_max(minute, Ordering::SeqCst) < minute && !self.touched.swap(true, Ordering::SeqCst)
    }

    /// Unix ms of the last verification, whole minutes; `None` if there was none.
    pub fn last_used_ms(&self) -> Option<u64> {
        match self.last_used.load(Ordering::Acquire) {
            0 => None,
            minute => Some(u64::from(minute) * 60_000),
        }
    }

    /// The minute of the last verification, to be stored.
    pub(crate) fn last_minute(&self) -> u32 {
        self.last_used.load(Ordering::Acquire)
    }

    /// `minute` is stored, or given up. Whether there is a later one, so that the counters have to be queued again.
    pub(crate) fn touch_stored(&self, minute: u32) -> bool {
        self.touched.store(false, Ordering::SeqCst);
        self.last_used.load(Ordering::SeqCst) > minute && !self.touched.swap(true, Ordering::SeqCst)
    }

    /// Puts the counters out of use, if nothing is left to write; then nobody can spend from them.
    pub(crate) fn retire(&self) -> bool {
        if self.touched.load(Ordering::Acquire) {
            return false;
        }
        let word = self.word.load(Ordering::Acquire);
        word & DIRTY == 0
            && self.word.compare_exchange(word, word | RETIRED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    fn counters(balance: u64) -> KeyCounters {
        let row = CreditsRow { generation: 1, balance, refill_due: None };
        KeyCounters::new(WorkspaceNo(1), KeyId(id('k')), Some(&row), 0)
    }

    /// KEYS-CREDIT-1, KEYS-CREDIT-2: enough is taken, too little is not, cost 0 always passes.
    #[test]
    fn a_spend_takes_all_or_nothing() {
        let cell = counters(5);
        assert_eq!(cell.spend(15), Spend::Short { left: 5 });
        assert_eq!(cell.spend(1), Spend::Taken { left: 4, first: true, generation: 1 });
        assert_eq!(cell.spend(4), Spend::Taken { left: 0, first: false, generation: 1 });
        assert_eq!(cell.spend(0), Spend::Taken { left: 0, first: false, generation: 1 });
        assert_eq!(cell.spend(1), Spend::Short { left: 0 });
    }

    /// KEYS-CREDIT-4: with R credits and cost c exactly floor(R/c) spends succeed, however many threads.
    #[test]
    fn credits_are_never_overspent() {
        let cell = counters(10_000);
        let taken: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (0..5_000).filter(|_| matches!(cell.spend(3), Spend::Taken { .. })).count() as u64)
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).sum()
        });
        assert_eq!((taken, cell.balance()), (3_333, 1));
    }

    /// A spend after the journal's look keeps the cell dirty; a change keeps spends that are not journaled.
    #[test]
    fn nothing_spent_is_forgotten() {
        let cell = counters(10);
        cell.spend(1);
        let mark = cell.unjournaled().expect("dirty");
        assert_eq!((mark.balance(), mark.generation()), (9, 1));
        cell.spend(2);
        assert!(!cell.journaled(mark));
        assert!(!cell.retire(), "a cell with unjournaled spends is never evicted");
        assert_eq!(cell.change(Change::Add(5), 2, 15, None), Some(12));
        assert_eq!(cell.change(Change::Add(5), 2, 15, None), None, "a change is applied once");
        let mark = cell.unjournaled().expect("still dirty");
        assert_eq!((mark.balance(), mark.generation()), (12, 2));
        assert!(cell.journaled(mark));
        assert!(cell.retire());
        assert_eq!(cell.spend(1), Spend::Retired);
    }
}
