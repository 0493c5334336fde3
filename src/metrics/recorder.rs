//! What requests do, counted on their way: no lock, no allocation, no atomic read-modify-write.
//!
//! Each thread counts in a shard of its own, which nobody else writes: a load, an addition, a store. Whoever reads adds the
//! shards up. A thread that ends leaves its shard, with what is in it, to the next one that begins, so there are never more
//! of them than threads at one time.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use keyward_query::events::Outcome as Verified;
use keyward_storage::Lookup;

use crate::api::problem::Code;

/// Upper bounds of a request's time, ns: from a key in memory to the longest deadline that makes sense.
pub const LATENCIES_NS: [u64; 18] = [
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// With those above all bounds.
const BUCKETS: usize = LATENCIES_NS.len() + 1;

/// How a request ended: its status and its code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome(u8);

/// Statuses that a code has beside its own (`Problem::no_capacity`, `no_such_route`, `method_not_allowed`).
const INSTEAD: [(u16, Code); 3] =
    [(503, Code::ServiceUnavailable), (404, Code::InvalidInput), (405, Code::InvalidInput)];
/// All of them: success, each code with its own status, and those of [`INSTEAD`].
const OUTCOMES: usize = 1 + Code::ALL.len() + INSTEAD.len();
const _: () = assert!(OUTCOMES <= u8::MAX as usize);

impl Outcome {
    /// The request was carried out.
    pub const OK: Outcome = Outcome(0);

    /// What a reply's status and code make.
    pub fn of(status: u16, code: Option<Code>) -> Outcome {
        let Some(code) = code else {
            // Pages and routes that are not there have no code with them.
            let instead = INSTEAD.iter().find(|(other, _)| *other == status).map(|(_, code)| *code);
            return match status {
                ..400 => Outcome::OK,
                _ => instead.map_or(Outcome::of_code(Code::UnexpectedError), |code| Outcome::of(status, Some(code))),
            };
        };
        let instead = INSTEAD.iter().position(|other| status != code.status() && *other == (status, code));
        instead.map_or(Outcome::of_code(code), |at| Outcome((1 + Code::ALL.len() + at) as u8))
    }

    fn of_code(code: Code) -> Outcome {
        Outcome(1 + code as u8)
    }

    /// All there are.
    pub fn all() -> impl Iterator<Item = Outcome> {
        (0..OUTCOMES).map(|number| Outcome(number as u8))
    }

    /// The status, and the code's path; `ok` for success.
    pub fn labels(self) -> (u16, &'static str) {
        let number = usize::from(self.0);
        match number.checked_sub(1) {
            None => (200, "ok"),
            Some(at) => match Code::ALL.get(at) {
                Some(code) => (code.status(), code.path()),
                None => {
                    let (status, code) = INSTEAD[at - Code::ALL.len()];
                    (status, code.path())
                }
            },
        }
    }
}

/// How a verification ended: the events' outcomes, and a key that is not found.
pub const VERIFIED: [(Option<Verified>, &str); 8] = [
    (Some(Verified::Valid), "VALID"),
    (None, "NOT_FOUND"),
    (Some(Verified::Forbidden), "FORBIDDEN"),
    (Some(Verified::InsufficientPermissions), "INSUFFICIENT_PERMISSIONS"),
    (Some(Verified::UsageExceeded), "USAGE_EXCEEDED"),
    (Some(Verified::RateLimited), "RATE_LIMITED"),
    (Some(Verified::Disabled), "DISABLED"),
    (Some(Verified::Expired), "EXPIRED"),
];

/// What is looked up in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    /// Keys that are verified.
    Keys,
    /// Root keys that requests are made with.
    RootKeys,
    /// Namespaces of rate limits.
    Namespaces,
    /// Overrides of rate limits.
    Overrides,
}

/// Their names, in the order of [`Index`].
pub const INDEXES: [&str; 4] = ["keys", "root_keys", "namespaces", "overrides"];
/// What a look-up finds: it is there, it is known not to be, or it must be read.
pub const FOUND: [&str; 3] = ["hit", "absent", "miss"];

/// Where each counter is in a shard.
#[derive(Debug, Clone, Copy)]
struct Layout {
    operations: usize,
}

/// Counters of an operation: the sum of its times, its times by bucket, its outcomes.
const EACH: usize = 1 + BUCKETS + OUTCOMES;
/// Counters beside those of operations.
const OTHERS: usize = VERIFIED.len() + 2 + INDEXES.len() * FOUND.len();

impl Layout {
    fn cells(self) -> usize {
        self.operations * EACH + OTHERS
    }

    fn sum(self, operation: usize) -> usize {
        operation.min(self.operations - 1) * EACH
    }

    fn bucket(self, operation: usize, bucket: usize) -> usize {
        self.sum(operation) + 1 + bucket
    }

    fn outcome(self, operation: usize, outcome: Outcome) -> usize {
        self.sum(operation) + 1 + BUCKETS + usize::from(outcome.0)
    }

    fn verified(self, place: usize) -> usize {
        self.operations * EACH + place
    }

    fn decided(self, passed: bool) -> usize {
        self.verified(VERIFIED.len()) + usize::from(passed)
    }

    fn found(self, index: usize, what: usize) -> usize {
        self.decided(true) + 1 + index * FOUND.len() + what
    }
}

/// The counters of one thread.
#[derive(Debug)]
struct Shard(Box<[AtomicU64]>);

impl Shard {
    fn new(cells: usize) -> Shard {
        Shard((0..cells).map(|_| AtomicU64::new(0)).collect())
    }

    /// Adds, as the only thread that writes here.
    #[inline]
    fn add_alone<const N: usize>(&self, amounts: [(usize, u64); N]) {
        for (cell, amount) in amounts {
            let cell = &self.0[cell];
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Adds beside others.
    fn add<const N: usize>(&self, amounts: [(usize, u64); N]) {
        for (cell, amount) in amounts {
            self.0[cell].fetch_add(amount, Ordering::Relaxed);
        }
    }
}

/// All shards of a recorder.
#[derive(Debug)]
struct Shards {
    layout: Layout,
    lists: Mutex<Lists>,
    /// For threads that are ending and have no place of their own any more.
    last: Shard,
}

#[derive(Debug, Default)]
struct Lists {
    all: Vec<Arc<Shard>>,
    /// Those that no thread has.
    free: Vec<Arc<Shard>>,
}

impl Shards {
    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(&self) -> Arc<Shard> {
        let mut lists = self.lists();
        if let Some(shard) = lists.free.pop() {
            return shard;
        }
        let shard = Arc::new(Shard::new(self.layout.cells()));
        lists.all.push(Arc::clone(&shard));
        shard
    }
}

/// The shard that a thread has, until it ends or counts for another recorder.
struct Mine {
    home: Weak<Shards>,
    shard: Arc<Shard>,
}

impl Drop for Mine {
    fn drop(&mut self) {
        if let Some(home) = self.home.upgrade() {
            home.lists().free.push(Arc::clone(&self.shard));
        }
    }
}

thread_local! {
    static MINE: RefCell<Option<Mine>> = const { RefCell::new(None) };
}

/// Counts what requests do.
#[derive(Debug)]
pub struct Recorder {
    layout: Layout,
    shards: Arc<Shards>,
}

impl Recorder {
    /// All at zero, for so many operations. Requests that are none have a place behind them.
    pub fn new(operations: usize) -> Recorder {
        let layout = Layout { operations: operations + 1 };
        let last = Shard::new(layout.cells());
        Recorder { layout, shards: Arc::new(Shards { layout, lists: Mutex::default(), last }) }
    }

    /// Counts a request: the number of its operation in the table (`None` for what is none), how it ended, and the time from
    /// its head to its reply, ns.
    #[inline]
    pub fn request(&self, operation: Option<usize>, outcome: Outcome, nanos: u64) {
        let at = self.layout;
        let operation = operation.unwrap_or(at.operations - 1);
        let bucket = LATENCIES_NS.iter().position(|bound| nanos <= *bound).unwrap_or(LATENCIES_NS.len());
        self.add([(at.sum(operation), nanos), (at.bucket(operation, bucket), 1), (at.outcome(operation, outcome), 1)]);
    }

    /// Counts a verification; `None` is a key that is not found.
    #[inline]
    pub fn verification(&self, outcome: Option<Verified>) {
        let place = VERIFIED.iter().position(|(other, _)| *other == outcome).unwrap_or(0);
        self.add([(self.layout.verified(place), 1)]);
    }

    /// Counts a decision on a rate limit of `ratelimit.limit` or `ratelimit.multiLimit`.
    #[inline]
    pub fn decision(&self, passed: bool) {
        self.add([(self.layout.decided(passed), 1)]);
    }

    /// Counts a look in memory.
    #[inline]
    pub fn lookup<V>(&self, index: Index, found: &Lookup<V>) {
        let what = match found {
            Lookup::Hot(_) => 0,
            Lookup::Absent => 1,
            Lookup::Unknown => 2,
        };
        self.add([(self.layout.found(index as usize, what), 1)]);
    }

    #[inline]
    fn add<const N: usize>(&self, amounts: [(usize, u64); N]) {
        let added = MINE.try_with(|mine| {
            if let Some(mine) = &*mine.borrow()
                && std::ptr::eq(mine.home.as_ptr(), Arc::as_ptr(&self.shards))
            {
                mine.shard.add_alone(amounts);
                return;
            }
            let shard = self.shards.adopt();
            shard.add_alone(amounts);
            // Dropping what was there gives another recorder its shard back.
            drop(mine.replace(Some(Mine { home: Arc::downgrade(&self.shards), shard })));
        });
        if added.is_err() {
            self.shards.last.add(amounts);
        }
    }

    /// Adds everything up.
    pub fn read(&self) -> Counted {
        let mut cells = vec![0_u64; self.layout.cells()];
        let lists = self.shards.lists();
        for shard in lists.all.iter().map(|shard| &**shard).chain([&self.shards.last]) {
            for (sum, cell) in cells.iter_mut().zip(&shard.0) {
                *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
            }
        }
        Counted { layout: self.layout, cells }
    }

    /// Shards there are: what their memory grows with.
    pub fn shards(&self) -> usize {
        self.shards.lists().all.len()
    }
}

/// What was counted since the start.
#[derive(Debug)]
pub struct Counted {
    layout: Layout,
    cells: Vec<u64>,
}

impl Counted {
    /// Places of operations: those of the table, and one for what is none.
    pub fn operations(&self) -> usize {
        self.layout.operations
    }

    /// Requests of an operation that ended in this way.
    pub fn requests(&self, operation: usize, outcome: Outcome) -> u64 {
        self.cells[self.layout.outcome(operation, outcome)]
    }

    /// The times of an operation: how many fell in each bucket, and their sum, ns.
    pub fn latencies(&self, operation: usize) -> (&[u64], u64) {
        let first = self.layout.bucket(operation, 0);
        (&self.cells[first..first + BUCKETS], self.cells[self.layout.sum(operation)])
    }

    /// Verifications with the outcome at this place of [`VERIFIED`].
    pub fn verifications(&self, place: usize) -> u64 {
        self.cells[self.layout.verified(place)]
    }

    /// Decisions on rate limits.
    pub fn decisions(&self, passed: bool) -> u64 {
        self.cells[self.layout.decided(passed)]
    }

    /// Looks in memory, by the places of [`INDEXES`] and [`FOUND`].
    pub fn lookups(&self, index: usize, what: usize) -> u64 {
        self.cells[self.layout.found(index, what)]
    }
}
