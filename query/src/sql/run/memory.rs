//! Memory of queries: a bound for each, one for those of a workspace, and one for all of them together.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryLimit, MemoryPool, MemoryReservation};

/// The memory that all queries share.
#[derive(Debug)]
pub struct Total {
    limit: usize,
    used: AtomicUsize,
    /// What each workspace uses of it, while it has queries.
    of: Mutex<HashMap<u32, Weak<AtomicUsize>>>,
}

/// The memory of one query, greedily taken: nothing is kept back for operators that have none yet.
#[derive(Debug)]
pub struct Pool {
    limit: usize,
    used: AtomicUsize,
    /// What all queries of the workspace use.
    of_workspace: Arc<AtomicUsize>,
    total: Arc<Total>,
    /// Whether it was the others that left too little.
    crowded: AtomicBool,
}

impl Total {
    /// `limit` bytes.
    pub fn new(limit: usize) -> Total {
        Total { limit, used: AtomicUsize::new(0), of: Mutex::default() }
    }

    /// What the queries of one workspace may use: a quarter is left to the others.
    fn of_one(&self) -> usize {
        self.limit - self.limit / 4
    }

    fn workspace(&self, workspace: u32) -> Arc<AtomicUsize> {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = of.get(&workspace).and_then(Weak::upgrade) {
            return used;
        }
        of.retain(|_, used| used.strong_count() > 0);
        let used = Arc::new(AtomicUsize::new(0));
        of.insert(workspace, Arc::downgrade(&used));
        used
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes there are.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

impl Pool {
    /// `limit` bytes of the total, for a query of this workspace.
    pub fn new(limit: usize, total: &Arc<Total>, workspace: u32) -> Pool {
        Pool {
            limit: limit.min(total.of_one()),
            used: AtomicUsize::new(0),
            of_workspace: total.workspace(workspace),
            total: Arc::clone(total),
            crowded: AtomicBool::new(false),
        }
    }

    /// Bytes that the query may use.
    pub fn limit(&self) -> usize {
        self.limit
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
        self.of_workspace.fetch_add(additional, Ordering::Relaxed);
        self.total.used.fetch_add(additional, Ordering::Relaxed);
    }

    fn shrink(&self, _: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::Relaxed);
        self.of_workspace.fetch_sub(shrink, Ordering::Relaxed);
        self.total.used.fetch_sub(shrink, Ordering::Relaxed);
    }

    fn try_grow(&self, _: &MemoryReservation, additional: usize) -> Result<()> {
        if !take(&self.used, self.limit, additional) {
            return Err(self.refused(additional));
        }
        if !take(&self.of_workspace, self.total.of_one(), additional) {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            self.crowded.store(true, Ordering::Relaxed);
            return Err(self.refused(additional));
        }
        if !take(&self.total.used, self.total.limit, additional) {
            self.used.fetch_sub(additional, Ordering::Relaxed);
            self.of_workspace.fetch_sub(additional, Ordering::Relaxed);
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

    /// A query stops at its own bound, a workspace's at theirs, and all of them at the common one; what is given back can be
    /// taken again.
    #[test]
    fn each_query_and_all_together_are_bounded() {
        let total = Arc::new(Total::new(200));
        let pools = [1, 1, 2].map(|workspace| Arc::new(Pool::new(100, &total, workspace)));
        let reservations = pools.each_ref().map(|pool| {
            let pool: Arc<dyn MemoryPool> = Arc::<Pool>::clone(pool);
            MemoryConsumer::new("a test").register(&pool)
        });
        reservations[0].try_grow(100).expect("within its bound");
        assert!(reservations[0].try_grow(1).is_err() && !pools[0].was_crowded());
        assert!(reservations[1].try_grow(60).is_err() && pools[1].was_crowded(), "a workspace has 150 of them");
        reservations[1].try_grow(50).expect("within the workspace's bound");
        assert!(reservations[2].try_grow(60).is_err() && pools[2].was_crowded());
        reservations[2].try_grow(50).expect("what is left");
        assert_eq!(total.used(), 200);
        reservations[0].shrink(40);
        assert!(reservations[1].try_grow(41).is_err());
        reservations[1].try_grow(40).expect("given back");
        drop(reservations);
        drop(pools);
        assert_eq!(total.used(), 0);
        assert_eq!(Pool::new(1_000, &total, 1).limit(), 150, "no query can have more than its workspace");
    }
}
