//! Until when a node may lead, where a lease says so.
//!
//! The moment is one of this machine's own clock that no operator and no time server sets, and that goes on while the machine
//! sleeps: of two nodes that compare nothing, each counts the length of a lease by itself (Gray and Cheriton, *Leases: an efficient
//! fault-tolerant mechanism for distributed file cache consistency*, SOSP 1989). Threads that take changes ask here, so that one
//! that was stopped for a while finds out by itself and not by the word of another thread that was stopped as well.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Without a lease a node leads until it is told otherwise.
const FOR_EVER: u64 = u64::MAX;

/// Milliseconds since some moment before this process began.
pub fn uptime_ms() -> u64 {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::Boottime;
    // On the others the monotonic clock is the one that counts sleep, or there is none that does.
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::Monotonic;
    let now = clock_gettime(CLOCK);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// Until when a node may lead. All threads share it.
#[derive(Debug)]
pub struct Tenure(AtomicU64);

impl Default for Tenure {
    /// For ever.
    fn default() -> Tenure {
        Tenure(AtomicU64::new(FOR_EVER))
    }
}

impl Tenure {
    /// Sets its end, by [`uptime_ms`]; a moment that has passed ends it at once.
    pub fn set(&self, until_ms: u64) {
        self.0.store(until_ms.min(FOR_EVER - 1), Ordering::SeqCst);
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.since_end_ms().is_some()
    }

    /// How long it has been over, ms; `None` while it lasts.
    pub fn since_end_ms(&self) -> Option<u64> {
        match self.0.load(Ordering::SeqCst) {
            FOR_EVER => None,
            until => uptime_ms().checked_sub(until),
        }
    }

    /// How long it still lasts, ms; `None` where it has no end.
    pub fn left_ms(&self) -> Option<u64> {
        match self.0.load(Ordering::SeqCst) {
            FOR_EVER => None,
            until => Some(until.saturating_sub(uptime_ms())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It ends by itself when its moment has come, and a later moment begins it again.
    #[test]
    fn it_ends_by_itself() {
        let tenure = Tenure::default();
        assert_eq!((tenure.is_over(), tenure.left_ms()), (false, None));
        tenure.set(uptime_ms() + 3_600_000);
        assert!(!tenure.is_over() && tenure.left_ms().is_some_and(|left| left > 3_000_000));
        tenure.set(uptime_ms());
        assert!(tenure.is_over() && tenure.left_ms() == Some(0));
        tenure.set(u64::MAX);
        assert!(!tenure.is_over() && tenure.left_ms().is_some(), "a lease has an end, however far");
    }
}
