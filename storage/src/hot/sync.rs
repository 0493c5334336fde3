//! The atomics and locks of the hot structures: std's, or the schedule checker's under `--cfg shuttle`.
//!
//! Whatever in `hot/` is shared between threads takes its primitives from here, so that `tests/schedules.rs` can run the
//! very same code under every interleaving the checker thinks of.

#[cfg(not(shuttle))]
mod chosen {
    pub use std::hint::spin_loop;
    pub use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    pub use std::sync::{Mutex, MutexGuard};
    pub use std::thread::yield_now;

    /// The shared word of a rate cell: 128 bits.
    pub type AtomicWord = portable_atomic::AtomicU128;
}

#[cfg(shuttle)]
mod chosen {
    pub use shuttle::hint::spin_loop;
    pub use shuttle::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
    pub use shuttle::sync::{Mutex, MutexGuard};
    pub use shuttle::thread::yield_now;

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
