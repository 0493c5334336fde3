//! The recorder: the one thread that turns events into journaled batches that queries see, and takes in the batches that
//! other stores hand over.
//!
//! While the store's own rows go to another store it journals them and shows them to nobody: the journal is the queue of what
//! is to be handed over ([`super::relay`]). Without a journal it then takes nothing from the ring, which drops and counts
//! when it is full.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender};
use datafusion::arrow::array::RecordBatch;
use keyward_storage::disk::DiskFile;

use super::columns::Columns;
use super::core::Core;
use super::journal::{BatchId, Segment};
use super::keeper::Job;
use super::live::Unsealed;
use super::relay::{self, Marks, Piece, Relaying, Untaken};
use super::tables::Family;
use crate::priority::{self, Priority};

/// How long an event waits at most for others before it is journaled. With the write itself it stays below the 10 ms that
/// are promised.
const FLUSH_EVERY: Duration = Duration::from_millis(5);
/// Rows that are journaled at once without waiting.
const FLUSH_ROWS: usize = 8_192;
/// The same where they are handed over: a batch is handed over whole, and the largest rows make this many about 40 MB.
const RELAYED_ROWS: usize = 1_024;
/// How long a journaled batch waits at most before queries see it.
const PUBLISH_EVERY: Duration = Duration::from_millis(50);
/// How long the journal may be written and not synced.
const SYNC_EVERY: Duration = Duration::from_millis(900);
/// How long the thread sleeps where nothing wakes it.
const IDLE: Duration = Duration::from_secs(1);
/// How long a journal that failed is left alone.
const JOURNAL_RETRY: Duration = Duration::from_millis(200);
/// Unsealed rows, as a multiple of those that begin a seal, at which nothing more is taken from the ring.
const UNSEALED_SEALS_MAX: usize = 4;

/// What a caller asks of the recorder.
pub(crate) enum Ask {
    /// Tell when everything handed over before is journaled and seen.
    Flush(Sender<()>),
    /// The same, and have it sealed; the answer is given by the keeper.
    Settle(Sender<()>),
    /// Take rows of another store, unless they are here, and tell where they were journaled.
    Take(Box<Piece>, Sender<Result<(), Untaken>>),
    /// Tell how far another store's rows are here.
    Marks(u32, Sender<Marks>),
    /// Keep rows for another store from now on, under a source number of that name; where that is so already and the source
    /// is another one, take that.
    Relay(u32, Sender<io::Result<()>>),
    /// Keep rows as this store's own from now on, also those that were not handed over.
    Keep(Sender<io::Result<()>>),
    /// Record what is left, have it sealed, and end.
    Stop,
}

/// When what is recorded is sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SealAt {
    pub rows: usize,
    pub age: Duration,
}

/// A segment that is written no more, and the last batch in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Closed {
    pub segment: u64,
    pub last: u64,
    pub bytes: u64,
}

/// The recorder's state; [`Recorder::run`] is its thread.
pub(crate) struct Recorder {
    core: Arc<Core>,
    asks: Receiver<Ask>,
    jobs: Sender<Job>,
    syncer: Arc<Syncer>,
    seal_at: SealAt,
    columns: Columns,
    /// Rows in the columns, and when the first came.
    rows: usize,
    rows_since: Option<Instant>,
    journal_dir: PathBuf,
    segment: Option<Segment>,
    next_segment: u64,
    retry_at: Option<Instant>,
    /// Number of the last batch.
    last: u64,
    /// Batches that are journaled and not seen yet, and when the first event of them came.
    pending: Vec<Unsealed>,
    pending_rows: usize,
    pending_since: Option<Instant>,
    /// Batches up to this number are with the keeper.
    cut: u64,
    /// Rows behind the cut, and since when there are any.
    uncut_rows: usize,
    uncut_since: Option<Instant>,
    /// What the keeper has sealed.
    sealed: Arc<AtomicU64>,
    /// Up to which batch the rows of other stores are here.
    marks: BTreeMap<u32, u64>,
    /// Whether rows are kept for another store.
    relaying: bool,
    /// Batches for another store whose writing failed.
    held: VecDeque<(u64, Family, RecordBatch)>,
}

/// What a recorder begins with after recovery.
pub(crate) struct Recovered {
    pub next_segment: u64,
    pub last_batch: u64,
    /// Recovered rows that are not sealed.
    pub rows: usize,
    /// Up to which batch the rows of other stores are here.
    pub marks: BTreeMap<u32, u64>,
    pub relaying: bool,
}

impl Recorder {
    #[expect(clippy::too_many_arguments, reason = "it is put together once")]
    pub fn new(
        core: Arc<Core>,
        region: &str,
        asks: Receiver<Ask>,
        jobs: Sender<Job>,
        syncer: Arc<Syncer>,
        sealed: Arc<AtomicU64>,
        seal_at: SealAt,
        recovered: Recovered,
    ) -> Recorder {
        let journal_dir = core.dir.join(super::store::JOURNAL_DIR);
        Recorder {
            core,
            asks,
            jobs,
            syncer,
            seal_at,
            columns: Columns::new(region),
            rows: 0,
            rows_since: None,
            journal_dir,
            segment: None,
            next_segment: recovered.next_segment,
            retry_at: None,
            last: recovered.last_batch,
            pending: Vec::new(),
            pending_rows: 0,
            pending_since: None,
            cut: sealed.load(Ordering::Acquire),
            uncut_rows: recovered.rows,
            uncut_since: (recovered.rows > 0).then(Instant::now),
            sealed,
            marks: recovered.marks,
            relaying: recovered.relaying,
            held: VecDeque::new(),
        }
    }

    /// Records until it is asked to stop.
    pub fn run(mut self) {
        // It wakes some hundred times a second; a request that runs then is not to wait for it. What it is entitled to even so
        // is many times what it needs, so it keeps its times.
        priority::set(Priority::Background);
        self.core.ring.adopt();
        let syncer = Arc::clone(&self.syncer);
        let core = Arc::clone(&self.core);
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("events-sync".to_owned())
                .spawn_scoped(scope, move || syncer.run(&core))
                .map_or_else(
                    |error| tracing::error!(%error, "no thread to sync the events' journal; a loss of power may cost more"),
                    drop,
                );
            while self.turn() {}
            self.syncer.stop();
        });
    }

    /// One turn; `false` ends the thread.
    fn turn(&mut self) -> bool {
        let asks: Vec<Ask> = self.asks.try_iter().collect();
        let asked = !asks.is_empty();
        let flushed_at = if self.relaying { RELAYED_ROWS } else { FLUSH_ROWS };
        let taken = self.take(if asked && !self.relaying { self.core.ring.capacity() } else { flushed_at });
        let now = Instant::now();
        let due = |since: Option<Instant>, every| since.is_some_and(|since| now.duration_since(since) >= every);
        if self.rows > 0 && (asked || self.rows >= flushed_at || due(self.rows_since, FLUSH_EVERY)) {
            self.flush();
        }
        if asked || self.pending_rows >= FLUSH_ROWS || due(self.pending_since, PUBLISH_EVERY) {
            self.publish();
        }
        let stop = asks.iter().any(|ask| matches!(ask, Ask::Stop));
        let settle = asks.iter().any(|ask| matches!(ask, Ask::Settle(_)));
        let full = self.uncut_rows >= self.seal_at.rows || due(self.uncut_since, self.seal_at.age);
        if self.uncut_rows > 0 && self.relaying {
            if stop || full {
                self.rotate();
            }
        } else if self.uncut_rows > 0 && (stop || settle || (full && self.cut <= self.sealed.load(Ordering::Acquire))) {
            self.cut();
        }
        for ask in asks {
            match ask {
                Ask::Flush(told) => drop(told.send(())),
                Ask::Settle(told) => drop(self.jobs.send(Job::Settle(told))),
                Ask::Take(piece, told) => drop(told.send(self.take_in(*piece))),
                Ask::Marks(source, told) => drop(told.send(Marks::of(&self.marks, source))),
                Ask::Relay(source, told) => drop(told.send(self.relay(source))),
                Ask::Keep(told) => drop(told.send(self.keep())),
                Ask::Stop => drop(self.jobs.send(Job::Stop)),
            }
        }
        if stop {
            return false;
        }
        if taken < flushed_at / 2 || !self.held.is_empty() {
            match self.rows > 0 || !self.held.is_empty() || !self.pending.is_empty() || self.is_full() {
                true => std::thread::park_timeout(FLUSH_EVERY),
                false => self.core.ring.sleep(IDLE),
            }
        }
        true
    }

    /// Whether the keeper is so far behind that taking more would fill the memory.
    fn is_full(&self) -> bool {
        self.uncut_rows >= self.seal_at.rows.saturating_mul(UNSEALED_SEALS_MAX)
    }

    /// Takes events out of the ring.
    fn take(&mut self, at_most: usize) -> usize {
        let most = self.seal_at.rows.saturating_mul(UNSEALED_SEALS_MAX);
        let room = match self.relaying {
            // Its rows are in no memory once they are journaled; what cannot be journaled waits in the ring.
            true if !self.held.is_empty() => 0,
            true => RELAYED_ROWS.saturating_sub(self.rows),
            false => most.saturating_sub(self.uncut_rows + self.rows),
        };
        let mut taken = 0;
        while taken < at_most.min(room) {
            let Some(event) = self.core.ring.pop() else { break };
            self.columns.push(event);
            taken += 1;
        }
        if taken > 0 {
            self.rows += taken;
            self.rows_since.get_or_insert_with(Instant::now);
        }
        taken
    }

    /// Journals what was taken.
    fn flush(&mut self) {
        self.begin_segment();
        if self.relaying && !self.flush_held() {
            return;
        }
        let since = self.rows_since.take();
        for family in Family::ALL {
            let Some(rows) = self.columns.take(family) else { continue };
            self.last += 1;
            let number = self.last;
            let count = rows.num_rows();
            self.uncut_rows += count;
            let journaled = self.append(number, family, &rows, None);
            self.core.counters.written.fetch_add(count as u64, Ordering::Relaxed);
            if self.relaying {
                if !journaled {
                    self.held.push_back((number, family, rows));
                }
            } else {
                self.pending_rows += count;
                self.pending.extend(Unsealed::new(family, rows, (number, number)));
            }
        }
        self.rows = 0;
        if !self.relaying {
            self.pending_since = self.pending_since.or(since);
        }
        self.uncut_since = self.uncut_since.or(since);
        self.note_journaled();
    }

    /// Journals what could not be written before, under the numbers it had: whoever reads them twice knows by these. Whether
    /// there is a journal, and nothing is left of it.
    fn flush_held(&mut self) -> bool {
        while let Some((number, family, rows)) = self.held.pop_front() {
            if !self.append(number, family, &rows, None) {
                self.held.push_front((number, family, rows));
                return false;
            }
        }
        self.segment.is_some()
    }

    /// Writes a batch to the journal. Whether that is done.
    fn append(&mut self, number: u64, family: Family, rows: &RecordBatch, from: Option<BatchId>) -> bool {
        let Some(segment) = &mut self.segment else { return false };
        match segment.append(number, family, rows, from) {
            Ok(()) => {
                self.syncer.note(segment.file());
                self.core.counters.journal_bytes.store(segment.bytes(), Ordering::Relaxed);
                true
            }
            Err(error) => {
                self.journal_failed(&error);
                false
            }
        }
    }

    fn note_journaled(&self) {
        let held = self.held.front().map_or(self.last, |(number, ..)| number - 1);
        self.core.counters.journaled.store(held, Ordering::Release);
    }

    /// Takes rows that another store handed over, unless they are here.
    fn take_in(&mut self, piece: Piece) -> Result<(), Untaken> {
        let source = relay::mark(piece.source, piece.family);
        let mark = self.marks.get(&source).copied().unwrap_or(0);
        if piece.last <= mark {
            return Ok(());
        }
        if piece.first <= mark {
            return Err(Untaken::Overlaps(Marks::of(&self.marks, piece.source)));
        }
        self.begin_segment();
        // What stays here comes after a journal that holds it, and what is to be handed on has no place in between.
        if self.relaying || self.is_full() || self.segment.is_none() {
            return Err(Untaken::Later);
        }
        self.last += 1;
        let number = self.last;
        if !self.append(number, piece.family, &piece.rows, Some(BatchId { source, number: piece.last })) {
            return Err(Untaken::Later);
        }
        self.marks.insert(source, piece.last);
        let count = piece.rows.num_rows();
        self.core.counters.written.fetch_add(count as u64, Ordering::Relaxed);
        self.uncut_rows += count;
        self.uncut_since.get_or_insert_with(Instant::now);
        self.pending_rows += count;
        self.pending_since.get_or_insert_with(Instant::now);
        self.pending.extend(Unsealed::new(piece.family, piece.rows, (number, number)));
        self.note_journaled();
        Ok(())
    }

    /// Keeps rows for another store from now on.
    fn relay(&mut self, source: u32) -> io::Result<()> {
        if self.relaying {
            let from = self.core.relaying().map_or(self.cut, |relaying| relaying.from);
            return relay::remember(&self.core, Relaying { source, from });
        }
        if self.core.adopting.load(Ordering::Acquire) {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        }
        // What was recorded so far is this store's own.
        let from = self.last;
        relay::remember(&self.core, Relaying { source, from })?;
        if self.uncut_rows > 0 {
            self.cut();
        } else {
            self.cut = from;
        }
        self.relaying = true;
        Ok(())
    }

    /// Keeps rows as this store's own from now on. The keeper seals what is in the journal, then forgets the other store.
    fn keep(&mut self) -> io::Result<()> {
        if !self.relaying {
            return Ok(());
        }
        self.begin_segment();
        if !self.held.is_empty() && !self.flush_held() {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.note_journaled();
        self.rotate();
        self.close_segment();
        self.relaying = false;
        self.cut = self.last;
        self.core.adopting.store(true, Ordering::Release);
        let _ = self.jobs.send(Job::Adopt(self.last));
        Ok(())
    }

    /// Ends the segment that is written, of rows that are kept for another store.
    fn rotate(&mut self) {
        self.close_segment();
        self.uncut_rows = 0;
        self.uncut_since = None;
    }

    fn begin_segment(&mut self) {
        if self.segment.is_some() || self.retry_at.is_some_and(|at| Instant::now() < at) {
            return;
        }
        let begun = match self.core.has_room() {
            true => Segment::begin(&*self.core.disk, &self.journal_dir, self.next_segment),
            false => Err(io::Error::from(io::ErrorKind::StorageFull)),
        };
        // Never the same number twice: what stands in a file after an error is unknown.
        self.next_segment += 1;
        match begun {
            Ok(segment) => {
                self.segment = Some(segment);
                self.retry_at = None;
                Core::note(&self.core.counters.journal_fails, false);
            }
            Err(error) => self.journal_failed(&error),
        }
    }

    /// Events go on in memory without a journal: a crash would lose them, a seal keeps them.
    fn journal_failed(&mut self, error: &io::Error) {
        if !self.core.counters.journal_fails.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "events cannot be journaled: until that heals, a crash loses those that are not sealed");
        }
        self.close_segment();
        self.retry_at = Some(Instant::now() + JOURNAL_RETRY);
    }

    fn close_segment(&mut self) {
        if let Some(segment) = self.segment.take() {
            // A batch that could not be written is in the next one.
            let last = self.held.front().map_or(self.last, |(number, ..)| number - 1);
            let closed = Closed { segment: segment.no, last, bytes: segment.bytes() };
            let _ = self.jobs.send(Job::Closed(closed));
        }
    }

    /// Shows queries what is journaled.
    fn publish(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let cut = self.cut;
        let pending = std::mem::take(&mut self.pending);
        self.core.view.change(|live| {
            pending.into_iter().for_each(|batch| live.push(batch, cut));
            live.come_to(&self.marks);
        });
        self.pending_rows = 0;
        if let Some(since) = self.pending_since.take() {
            let lag = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.core.counters.lag_ms.store(lag, Ordering::Relaxed);
        }
    }

    /// Hands what was recorded so far to the keeper and begins a new segment.
    fn cut(&mut self) {
        self.publish();
        self.close_segment();
        self.cut = self.last;
        self.uncut_rows = 0;
        self.uncut_since = None;
        let marks = self.marks.iter().map(|(source, number)| (*source, *number)).collect();
        let _ = self.jobs.send(Job::Seal(self.cut, marks));
    }
}

/// Syncs the journal behind the recorder, which must not wait for a disk.
#[derive(Default)]
pub(crate) struct Syncer {
    dirty: Mutex<Vec<Arc<dyn DiskFile>>>,
    /// Held while files are synced: whoever has it knows of none that is being synced for somebody else.
    syncing: Mutex<()>,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Syncer {
    /// Notes that a file was written.
    fn note(&self, file: &Arc<dyn DiskFile>) {
        let mut dirty = self.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        if !dirty.iter().any(|other| Arc::ptr_eq(other, file)) {
            dirty.push(Arc::clone(file));
        }
    }

    /// Returns when everything noted before is synced.
    ///
    /// # Errors
    /// The first of the disk's.
    pub fn sync(&self) -> io::Result<()> {
        let _one = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let files = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let mut first = Ok(());
        for file in files {
            first = first.and(file.sync_data());
        }
        first
    }

    fn run(&self, core: &Core) {
        loop {
            let stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
            let wait = self.stop.wait_timeout_while(stopped, SYNC_EVERY, |stopped| !*stopped);
            let stopped = *wait.unwrap_or_else(PoisonError::into_inner).0;
            if let Err(error) = self.sync() {
                tracing::error!(%error, "the events' journal cannot be synced: a loss of power loses what is not sealed");
                Core::note(&core.counters.journal_fails, true);
            }
            if stopped {
                return;
            }
        }
    }

    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.notify_all();
    }
}
