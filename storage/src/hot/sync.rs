//! The atomics and locks of the hot structures: std's, or the schedule checker's under `--cfg shuttle`.
//!
//! Whatever in `hot/` is shared between threads takes its primitives from here, so that `tests/schedules.rs` can run the
//! very same code under every interleaving the checker thinks of.

#[cfg(not(shuttle))]
mod chosen {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Mutex, MutexGuard};
    pub use std::thread::yield_now;

    pub use portable_atomic::AtomicU128;

    /// The shared word of a rate cell: 128 bits.
    pub type AtomicWord = portable_atomic::AtomicU128;
}

#[cfg(shuttle)]
mod chosen {
    pub use shuttle::hint::spin_loop;
    pub use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
    pub use shuttle::sync::{Mutex, MutexGuard};
    pub use shuttle::thread::yield_now;

    /// The word of a key's credits. The checker stops at 64 bits and runs one thread at a time: a look at a word of its own
    /// before each step lets it choose who comes next, and the step itself is one either way.
    #[derive(Debug)]
    pub struct AtomicU128 {
        word: portable_atomic::AtomicU128,
        turn: AtomicU64,
    }

    impl AtomicU128 {
        /// A word.
        pub fn new(word: u128) -> AtomicU128 {
            AtomicU128 { word: portable_atomic::AtomicU128::new(word), turn: AtomicU64::new(0) }
        }

        fn turn(&self) -> &portable_atomic::AtomicU128 {
            self.turn.load(Ordering::SeqCst);
            &self.word
        }

        /// As the product's.
        pub fn load(&self, order: Ordering) -> u128 {
            self.turn().load(order)
        }

        /// As the product's.
        pub fn compare_exchange(&self, old: u128, new: u128, ok: Ordering, err: Ordering) -> Result<u128, u128> {
            self.turn().compare_exchange(old, new, ok, err)
        }

        /// As the product's, but it never fails without a reason.
        pub fn compare_exchange_weak(&self, old: u128, new: u128, ok: Ordering, err: Ordering) -> Result<u128, u128> {
            self.turn().compare_exchange(old, new, ok, err)
        }

        /// As the product's.
        pub fn fetch_update(
            &self,
            ok: Ordering,
            err: Ordering,
            mut change: impl FnMut(u128) -> Option<u128>,
        ) -> Result<u128, u128> {
            let mut word = self.load(err);
            while let Some(next) = change(word) {
                match self.compare_exchange(word, next, ok, err) {
                    Ok(_) => return Ok(word),
                    Err(seen) => word = seen,
                }
            }
            Err(word)
        }
    }

    /// The shared word of a rate cell under the checker, which stops at 64 bits: the cell is laid out narrower there.
    pub struct AtomicWord(AtomicU64);

    /// The narrow layout leaves the upper half of a word empty.
    fn narrow(word: u128) -> u64 {
        u64::try_from(word).expect("the narrow layout has 64 bits")
    }

    impl AtomicWord {
        /// A word to begin with.
        pub fn new(word: u128) -> AtomicWord {
            AtomicWord(AtomicU64::new(narrow(word)))
        }

        /// The word.
        pub fn load(&self, order: Ordering) -> u128 {
            u128::from(self.0.load(order))
        }

        /// Puts a word.
        pub fn store(&self, word: u128, order: Ordering) {
            self.0.store(narrow(word), order);
        }

        /// Puts `new` where `old` stands; the word that stood there.
        pub fn compare_exchange(&self, old: u128, new: u128, ok: Ordering, err: Ordering) -> Result<u128, u128> {
            self.0.compare_exchange(narrow(old), narrow(new), ok, err).map(u128::from).map_err(u128::from)
        }

        /// As `portable_atomic` has it.
        pub fn is_lock_free() -> bool {
            true
        }
    }
}

pub use chosen::*;
