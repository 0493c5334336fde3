//! Memory of queries: a bound for each, and one for all of them together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// The memory that all queries share.
#[derive(Debug)]
pub struct Total {
    limit: usize,
    used: AtomicUsize,
}

/// The memory of one query, greedily taken: nothing is kept back for operators that have none yet.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    used: AtomicUsize,
    total: Arc<Total>,
    /// Whether it was the others that left too little.
    crowded: AtomicBool,
}

impl Total {
    /// `limit` bytes.
    pub fn new(limit: usize) -> Total {
        Total { limit, used: AtomicUsize::new(0) }
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

impl Pool {
    /// `limit` bytes of the total.
    pub fn new(limit: usize, total: Arc<Total>) -> Pool {
        Pool { limit, used: AtomicUsize::new(0), total, crowded: AtomicBool::new(false) }
    }

    /// Whether memory was refused since other queries had it.
    pub fn was_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    fn refused(&self, additional: usize) -> DataFusionError {
        DataFusionError::ResourcesExhausted(format!("{additional} bytes more"))
    }
}

/// Adds where the sum stays within the limit.
fn take(used: &AtomicUsize, limit: usize, additional: usize) -> bool {
    let within = |used: usize| used.checked_add(additional).filter(|&sum| sum <= limit);
    used.try_update(Ordering::Relaxed, Ordering::Relaxed, within).is_ok()
}

impl MemoryPool for Pool {
    fn name(&self) -> &str {
        "query"
    }

    fn grow(&self, _: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::Relaxed);
        self.total.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.total.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        if !take(&self.used, self.limit, additional) {
            return Err(self.refused(additional));
        }
        if !take(&self.total.used, self.total.limit, additional) {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            self.crowded.store(true, Ordering::Relaxed);
            return Err(self.refused(additional));
        }
        Ok(())
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query: {} of {} bytes", self.reserved(), self.limit)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::execution::memory_pool::MemoryConsumer;

    use super::*;

    /// A query stops at its own bound, and all of them at the common one; what is given back can be taken again.
    #[test]
    fn each_query_and_all_together_are_bounded() {
        let total = Arc::new(Total::new(150));
        let pools = [0, 1].map(|_| Arc::new(Pool::new(100, Arc::clone(&total))));
        let reservations = pools.each_ref().map(|pool| {
            let pool: Arc<dyn MemoryPool> = Arc::<Pool>::clone(pool);
            MemoryConsumer::new("a test").register(&pool)
        });
        reservations[0].try_grow(100).expect("within its bound");
        assert!(reservations[0].try_grow(1).is_err() && !pools[0].was_crowded());
        assert!(reservations[1].try_grow(60).is_err() && pools[1].was_crowded());
        reservations[1].try_grow(50).expect("what is left");
        assert_eq!(total.used(), 150);
        drop(reservations);
        assert_eq!((pools[0].reserved(), total.used()), (0, 0));
    }
}
