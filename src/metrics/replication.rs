//! What a node that follows another one counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Replication {
    forwarded: AtomicU64,
    unreachable: AtomicU64,
    alone: AtomicU64,
    carried: AtomicU64,
    not_carried: AtomicU64,
}

/// Their values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Requests that the leader answered.
    pub forwarded: u64,
    /// Requests that could not be handed on, or whose reply did not come.
    pub unreachable: u64,
    /// Of these, the ones that were answered without the leader.
    pub alone: u64,
    /// Parcels of events that the leader has taken.
    pub carried: u64,
    /// Attempts that failed.
    pub not_carried: u64,
}

impl Replication {
    /// The leader answered a request.
    pub fn forwarded(&self) {
        self.forwarded.fetch_add(1, Ordering::Relaxed);
    }

    /// It could not be asked, or did not answer.
    pub fn unreachable(&self) {
        self.unreachable.fetch_add(1, Ordering::Relaxed);
    }

    /// A request was answered without it.
    pub fn alone(&self) {
        self.alone.fetch_add(1, Ordering::Relaxed);
    }

    /// It took a parcel of events.
    pub fn carried(&self) {
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// It did not.
    pub fn not_carried(&self) {
        self.not_carried.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them.
    pub fn read(&self) -> Counted {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            forwarded: of(&self.forwarded),
            unreachable: of(&self.unreachable),
            alone: of(&self.alone),
            carried: of(&self.carried),
            not_carried: of(&self.not_carried),
        }
    }
}
