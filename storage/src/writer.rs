//! The one writer: takes a batch of transactions, runs them, appends and syncs their effects, commits, publishes, answers.
//!
//! Durable, then visible, then told. [`Writer::step`] is a plain function over a batch, so tests drive it without a thread;
//! the thread in `writer_thread` only waits, collects and calls it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam::queue::SegQueue;

use crate::disk::Disk;
use crate::error::{ReadError, Unavailable};
use crate::feed::Feeds;
use crate::hot::Hot;
use crate::hot::counters::{KeyCounters, Mark};
use crate::log::{AppendError, Log, MAX_FRAME_BYTES};
use crate::measure::{Histogram, SIZES, TIMES_NS};
use crate::position::{Position, Term};
use crate::publish::publish;
use crate::queue::{Turns, Work};
use crate::records::key::{self, CreditsRow, LastUsedRow};
use crate::records::{Effect, Row, encode_record};
use crate::replication::Standing;
use crate::replication::acks::Acks;
use crate::store::{Read, State, Store, Tables, put_state};
use crate::tx::{Accepted, CreditChange, Moved, Tx};

/// Most transactions in one batch, so in one log frame and one sync.
pub(crate) const MAX_BATCH: usize = 256;
/// Largest transaction: the largest request body is 10 MiB, and its rows and indexes are a small multiple of that.
pub const MAX_TRANSACTION_BYTES: usize = 32 << 20;
/// At this size a batch is closed. The last transaction may go beyond it, and what counters add stays far below the rest
/// of a frame.
const ENOUGH_BATCH_BYTES: usize = 8 << 20;
const _: () = assert!(ENOUGH_BATCH_BYTES + MAX_TRANSACTION_BYTES + (16 << 20) < MAX_FRAME_BYTES);
/// What a spend adds to a batch, roughly.
const SPEND_BYTES: usize = 64;
/// Most last-used times written in one batch, so that no transaction waits long behind them.
pub(crate) const MAX_TOUCHES: usize = 2048;
/// Most keys whose spends may wait for the journal while the disk is full; beyond it spends are refused.
pub(crate) const MAX_WAITING_SPENDS: usize = 100_000;
/// Most keys whose spends are written in one batch: some 6 MiB. A disk that hangs lets more than that gather.
pub(crate) const MAX_SPENDS: usize = 100_000;
/// Most last-used times that wait while the disk is full. Beyond it the oldest is given up: it is still in memory, and
/// lost only if the key is evicted or the process ends before the next use.
const MAX_WAITING_TOUCHES: usize = 16 * MAX_TOUCHES;

/// Free bytes below which nothing at all is written, unless `min_free_bytes` is less still. Between the two spends and last
/// uses are written, few at a time: a step of theirs changes at most a page of redb for each, so some 3 MiB with the log's
/// frame, and redb must never be what finds the disk full.
pub(crate) const HARD_FLOOR_BYTES: u64 = 8 << 20;
/// Most keys whose spends, and most last-used times, that are written in one batch while the disk is low on room.
const MAX_ROWS_WHEN_LOW: usize = 256;
const _: () = assert!((2 * MAX_ROWS_WHEN_LOW + MAX_BATCH) * (4096 + 256) < HARD_FLOOR_BYTES as usize);

/// How much room the disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Everything is taken.
    Enough,
    /// Changes are refused; what spends and last uses need is still written.
    Low,
    /// Nothing is written.
    Gone,
}

/// How a transaction ended.
pub(crate) enum Fate {
    /// Durable and visible up to this position; the last balance it changed, as it became.
    Done { position: Position, balance: Option<u64> },
    /// Not applied.
    Unavailable(Unavailable),
    /// Not applied: the records could not be read.
    Unreadable(ReadError),
}

/// Tells the one who asked.
pub(crate) type Answer = Box<dyn FnOnce(Fate) + Send>;

/// What running a transaction gave: whether it is accepted, and how to tell.
pub(crate) type Ran = Result<(bool, Answer), (ReadError, Answer)>;

/// Runs a transaction; given nothing, it only gives up its way to answer.
type Run = Box<dyn FnOnce(Option<&mut Tx<'_>>) -> Ran + Send>;

/// A transaction in the queue.
pub(crate) struct Job {
    /// What it does.
    pub run: Run,
    /// Unix ms it was handed in at.
    pub now: u64,
    /// Unix ms after which it is not begun any more.
    pub until: u64,
}

/// A spend to be journaled before it is answered.
pub(crate) struct StrictSpend {
    pub counters: Arc<KeyCounters>,
    pub cost: u64,
    pub generation: u64,
    /// Unix ms after which it is given back instead.
    pub until: u64,
    pub answer: Answer,
}

/// Counters with something to write.
#[derive(Default)]
pub(crate) struct Waiting {
    spends: SegQueue<Arc<KeyCounters>>,
    spends_len: AtomicUsize,
    touches: SegQueue<Arc<KeyCounters>>,
    /// Whether the writer was told of the spends.
    told: AtomicBool,
    /// Whether the writer was told that touches have become many.
    told_of_touches: AtomicBool,
}

impl Waiting {
    /// Queues counters whose first unjournaled spend this is. Whether the writer must be woken.
    pub fn spent(&self, counters: Arc<KeyCounters>) -> bool {
        self.spends_len.fetch_add(1, Ordering::AcqRel);
        self.spends.push(counters);
        !self.told.swap(true, Ordering::AcqRel)
    }

    /// Queues counters with a last-used time to be stored. Whether the writer must be woken: until it has written them
    /// the keys cannot be evicted, so it must not wait for its time when they are many.
    pub fn touched(&self, counters: Arc<KeyCounters>) -> bool {
        self.touches.push(counters);
        let waiting = self.touches();
        if waiting > MAX_WAITING_TOUCHES
            && let Some(oldest) = self.touches.pop()
        {
            oldest.touch_stored(u32::MAX);
        }
        waiting >= MAX_TOUCHES && !self.told_of_touches.swap(true, Ordering::AcqRel)
    }

    pub fn spends(&self) -> usize {
        self.spends_len.load(Ordering::Acquire)
    }

    pub fn touches(&self) -> usize {
        self.touches.len()
    }

    fn next_spend(&self) -> Option<Arc<KeyCounters>> {
        let counters = self.spends.pop()?;
        self.spends_len.fetch_sub(1, Ordering::AcqRel);
        Some(counters)
    }
}

/// What the writer tells the world.
pub(crate) struct Status {
    pub position: AtomicU64,
    pub checkpoint: AtomicU64,
    pub read_only: AtomicBool,
    pub syncs: AtomicU64,
    pub transactions: AtomicU64,
    pub log_bytes: AtomicU64,
    /// Bytes appended to the log since the start.
    pub log_bytes_written: AtomicU64,
    /// As last measured; `u64::MAX` while the system has not told.
    pub free_bytes: AtomicU64,
    /// Checkpoints made since the start.
    pub checkpoints: AtomicU64,
    /// How long syncs of the log took, ns.
    pub sync_times: Histogram,
    /// How long batches took, from their first transaction to their answers, ns.
    pub batch_times: Histogram,
    /// Records in a frame of the log.
    pub batch_sizes: Histogram,
    /// How long checkpoints took, ns.
    pub checkpoint_times: Histogram,
}

impl Default for Status {
    fn default() -> Status {
        Status {
            position: AtomicU64::new(0),
            checkpoint: AtomicU64::new(0),
            read_only: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            transactions: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            log_bytes_written: AtomicU64::new(0),
            free_bytes: AtomicU64::new(u64::MAX),
            checkpoints: AtomicU64::new(0),
            sync_times: Histogram::new(TIMES_NS),
            batch_times: Histogram::new(TIMES_NS),
            batch_sizes: Histogram::new(SIZES),
            checkpoint_times: Histogram::new(TIMES_NS),
        }
    }
}

/// A time for a histogram.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The process has to stop: nothing can be written any more, or what is on the disk is in doubt.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// The log could not be written or synced. A sync is never retried: what it covers is in doubt.
    #[error("the write-ahead log could not be written; the process must stop and recover from what is on the disk")]
    Log(#[source] std::io::Error),
    /// redb reported an error. The log is whole; starting again replays it.
    #[error("records.redb could not be written; the process must stop and replay the log")]
    Checkpoint(#[source] Box<redb::Error>),
    /// The writer panicked: a defect of this program. The log is whole up to what was acknowledged.
    #[error("the writer panicked; the process must stop and replay the log")]
    Panicked,
    /// What was just committed could not be read back for the hot index.
    #[error("a committed change could not be read back")]
    Read(#[source] ReadError),
}

impl From<redb::Error> for Fatal {
    fn from(error: redb::Error) -> Fatal {
        Fatal::Checkpoint(Box::new(error))
    }
}

impl From<ReadError> for Fatal {
    fn from(error: ReadError) -> Fatal {
        Fatal::Read(error)
    }
}

pub(crate) struct Writer {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    pub store: Arc<Store>,
    pub log: Log,
    pub hot: Arc<Hot>,
    pub state: State,
    pub waiting: Arc<Waiting>,
    pub status: Arc<Status>,
    /// Who else reads the log.
    pub feeds: Arc<Feeds>,
    /// Free bytes below which changes are refused.
    pub min_free_bytes: u64,
    /// How much there was when it was last looked at.
    pub room: Room,
    /// The free bytes when the log's last write found the disk full all the same (quotas, other writers).
    pub full_at: Option<u64>,
    /// Log bytes at the last checkpoint.
    pub checkpointed_bytes: u64,
    /// Newest time any job brought, unix ms; frames carry it.
    pub now: u64,
    /// What it does with changes.
    pub standing: Arc<Standing>,
    /// Answers that wait for followers.
    pub acks: Arc<Acks>,
    /// Bytes of log that are kept for followers, whoever they are.
    pub keep_log_bytes: u64,
    /// Who is told of each commit once it is visible.
    pub on_commit: Option<OnCommit>,
}

/// Told of the position and term of each commit once it is visible, on the writer's thread.
pub type OnCommit = Arc<dyn Fn(Position, Term) + Send + Sync>;

/// What one step is to do beside the work of its turns.
#[derive(Default)]
pub(crate) struct Step {
    /// Spends that had to wait for this step.
    pub strict: Vec<StrictSpend>,
    /// Journal all waiting spends.
    pub journal_spends: bool,
    /// Write at most so many last-used times.
    pub touches: usize,
}

/// The rows a step journals for counters.
#[derive(Default)]
struct Journal {
    effects: BTreeMap<Vec<u8>, Effect>,
    marks: Vec<(Arc<KeyCounters>, Mark)>,
    /// Set by a transaction of this very batch: to be looked at again after it is published.
    later: Vec<Arc<KeyCounters>>,
    /// With the minute that is stored.
    touched: Vec<(Arc<KeyCounters>, u32)>,
}

impl Writer {
    /// One batch: all or nothing on disk, one frame, one sync. Its work comes as the turns go.
    ///
    /// Gives back strict spends that have to wait for the next step: their balance was set anew in this one.
    ///
    /// While the disk is low on room its jobs are refused, and the counters are written from what `min_free_bytes` kept
    /// free for them; when that is used up they wait.
    pub fn step(&mut self, mut step: Step, turns: &mut Turns<'_>) -> Result<Vec<StrictSpend>, Fatal> {
        let began = Instant::now();
        if let Some(why) = self.standing.refuses() {
            let strict = step.strict.into_iter().map(Work::Spend);
            strict.chain(std::iter::from_fn(|| turns.next())).for_each(|work| work.refuse(&why));
            // A lease may come back; what waits is then written as if nothing had been.
            if why != Unavailable::Suspended {
                self.forget_counters();
            }
            return Ok(Vec::new());
        }
        let room = self.measure_room();
        self.note_room(room);
        if room == Room::Gone {
            let strict = step.strict.into_iter().map(Work::Spend);
            strict.chain(std::iter::from_fn(|| turns.next())).for_each(|work| work.refuse(&Unavailable::NoSpace));
            return Ok(Vec::new());
        }
        if room == Room::Low {
            step.touches = step.touches.min(MAX_ROWS_WHEN_LOW);
        }
        let most_spends = Writer::spends_at_once(room);
        let store = Arc::clone(&self.store);
        let mut publishing = None;
        let txn = store.begin()?;
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut effects: Vec<Effect> = Vec::new();
        let mut credit_changes: Vec<CreditChange> = Vec::new();
        let mut moved: Vec<Moved> = Vec::new();
        let mut answers: Vec<(Position, Range<usize>, Answer)> = Vec::new();
        let mut journal = Journal::default();
        let mut bytes = 0;
        {
            let tables = Tables::new(&txn);
            while bytes < ENOUGH_BATCH_BYTES
                && let Some(work) = turns.next()
            {
                let job = match work {
                    Work::Transact(job) if room == Room::Enough => job,
                    Work::Transact(_) => {
                        work.refuse(&Unavailable::NoSpace);
                        continue;
                    }
                    Work::Spend(spend) => {
                        turns.wrote(SPEND_BYTES);
                        step.strict.push(spend);
                        continue;
                    }
                };
                self.now = self.now.max(job.now);
                let mut tx = Tx::new(&tables, &self.hot, &moved);
                // A transaction that panics is one request's failure: its overlay is dropped, its answer with it.
                let (accepted, answer) = match catch_unwind(AssertUnwindSafe(|| (job.run)(Some(&mut tx)))) {
                    Ok(Ok(ran)) => ran,
                    Ok(Err((error, answer))) => {
                        answer(Fate::Unreadable(error));
                        continue;
                    }
                    Err(_) => continue,
                };
                let last = self.state.position.plus(records.len() as u64);
                if !accepted || tx.is_empty() {
                    // A refusal may rest on a change of this batch, so it too is told only once that is durable.
                    answers.push((last, 0..0, answer));
                    continue;
                }
                let Accepted { effects: own, credit_changes: changes, moved: moves } = match tx.accept() {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        answer(Fate::Unreadable(error));
                        continue;
                    }
                };
                let record = encode_record(&own);
                if record.len() > MAX_TRANSACTION_BYTES {
                    answer(Fate::Unavailable(Unavailable::TooLarge));
                    continue;
                }
                bytes += record.len();
                turns.wrote(record.len());
                for effect in &own {
                    tables.apply(effect)?;
                }
                records.push(record);
                effects.extend(own);
                let first = credit_changes.len();
                credit_changes.extend(changes);
                moved.extend(moves);
                answers.push((last.next(), first..credit_changes.len(), answer));
            }
            let spends = if step.journal_spends || !step.strict.is_empty() { most_spends } else { 0 };
            self.journal(&tables, &step.strict, spends, step.touches, &mut journal)?;
            if !journal.effects.is_empty() {
                let own: Vec<Effect> = std::mem::take(&mut journal.effects).into_values().collect();
                for effect in &own {
                    tables.apply(effect)?;
                }
                records.push(encode_record(&own));
            }
        }
        let position = self.state.position.plus(records.len() as u64);
        if records.is_empty() {
            txn.abort().map_err(redb::Error::from)?;
        } else {
            if self.append(self.state.term, self.now, &records, room)?.is_none() {
                txn.abort().map_err(redb::Error::from)?;
                for (_, _, answer) in answers {
                    answer(Fate::Unavailable(Unavailable::NoSpace));
                }
                for spend in step.strict {
                    Work::Spend(spend).refuse(&Unavailable::NoSpace);
                }
                self.requeue(journal);
                return Ok(Vec::new());
            }
            self.state.position = position;
            put_state(&txn, self.state)?;
            publishing = Some(store.publishing());
            txn.commit().map_err(redb::Error::from)?;
            self.note_commit(records.len());
        }
        let balances = if effects.is_empty() {
            Vec::new()
        } else {
            publish(&self.hot, &self.store.snapshot()?, effects.iter(), &credit_changes, &moved)?
        };
        drop(publishing);
        if !records.is_empty() {
            self.tell();
        }
        self.note_room(room);
        for (counters, mark) in journal.marks.drain(..) {
            if !counters.journaled(mark) {
                self.waiting.spent(counters);
            }
        }
        for (counters, minute) in journal.touched.drain(..) {
            if counters.touch_stored(minute) {
                self.waiting.touched(counters);
            }
        }
        let waits = |spend: &StrictSpend| journal.later.iter().any(|later| Arc::ptr_eq(later, &spend.counters));
        let (again, done): (Vec<_>, Vec<_>) = step.strict.into_iter().partition(waits);
        for counters in journal.later.drain(..) {
            self.waiting.spent(counters);
        }
        for (position, changed, answer) in answers {
            let balance = balances.get(changed).and_then(|own| own.iter().rev().find_map(|balance| *balance));
            self.answer(position, balance, answer);
        }
        for spend in done {
            self.answer(position, None, spend.answer);
        }
        if !records.is_empty() {
            self.status.batch_times.note(nanos(began.elapsed()));
        }
        Ok(again)
    }

    /// Answers once as many followers as have to hold what the answer rests on. Behind the end of a lease nothing is answered as
    /// done: whoever leads next may have chosen by what followers held before they confirmed this.
    fn answer(&self, position: Position, balance: Option<u64>, answer: Answer) {
        let standing = Arc::clone(&self.standing);
        let told = move |confirmed: bool| {
            answer(match confirmed && !standing.tenure().is_over() {
                true => Fate::Done { position, balance },
                false => Fate::Unavailable(Unavailable::Unconfirmed),
            });
        };
        if self.acks.wanted() == 0 {
            return told(true);
        }
        self.acks.hold(position, Box::new(told));
    }

    /// Appends records to the log as one frame, and gives the last one's position; `None` where the disk had no room for it,
    /// which is noted, beside the `room` that was measured.
    pub fn append(
        &mut self,
        term: Term,
        written_at_ms: u64,
        records: &[impl AsRef<[u8]>],
        room: Room,
    ) -> Result<Option<Position>, Fatal> {
        match self.log.append(term, written_at_ms, records) {
            Ok(position) => {
                self.full_at = None;
                Ok(Some(position))
            }
            Err(AppendError::NoSpace(cause)) => {
                if self.full_at.is_none() {
                    tracing::warn!(%cause, "the write-ahead log found no room");
                }
                self.full_at = Some(self.status.free_bytes.load(Ordering::Relaxed));
                self.note_room(room);
                Ok(None)
            }
            Err(AppendError::Fatal(cause)) => Err(Fatal::Log(cause)),
            // Sizes were checked, here or by the leader, and so was the term: a defect of this program, and nothing was written.
            Err(cause) => Err(Fatal::Log(std::io::Error::other(cause))),
        }
    }

    /// Counts a commit of so many records.
    pub fn note_commit(&self, records: usize) {
        self.status.syncs.fetch_add(1, Ordering::Relaxed);
        self.status.transactions.fetch_add(records as u64, Ordering::Relaxed);
        self.status.position.store(self.state.position.0, Ordering::Release);
        self.status.log_bytes.store(self.log.total_bytes(), Ordering::Relaxed);
        self.status.log_bytes_written.store(self.log.bytes_written(), Ordering::Relaxed);
        self.status.sync_times.note(nanos(self.log.sync_time()));
        self.status.batch_sizes.note(records as u64);
    }

    /// Tells whoever waits of a commit that is visible now.
    pub fn tell(&self) {
        self.feeds.wake();
        if let Some(on_commit) = &self.on_commit {
            on_commit(self.state.position, self.state.term);
        }
    }

    /// What counters have to write is not this node's to write down any more.
    fn forget_counters(&self) {
        self.waiting.told.store(false, Ordering::Release);
        self.waiting.told_of_touches.store(false, Ordering::Release);
        while let Some(counters) = self.waiting.next_spend() {
            if let Some(mark) = counters.unjournaled() {
                let _ = counters.journaled(mark);
            }
        }
        while let Some(counters) = self.waiting.touches.pop() {
            let _ = counters.touch_stored(u32::MAX);
        }
    }

    /// Collects the rows of counters that have something to write. Runs after the batch's transactions, so it sees which
    /// balances they set.
    fn journal(
        &self,
        tables: &Tables<'_>,
        strict: &[StrictSpend],
        spends: usize,
        touches: usize,
        journal: &mut Journal,
    ) -> Result<(), Fatal> {
        let mut one = |counters: Arc<KeyCounters>| -> Result<(), Fatal> {
            let Some(mark) = counters.unjournaled() else { return Ok(()) };
            let row_key = key::key(counters.workspace, counters.id);
            if journal.effects.contains_key(&row_key) {
                // Seen before in this batch; if there were more spends since, the first mark does not fit any more and
                // the counters are queued again.
                return Ok(());
            }
            match tables.row::<CreditsRow>(&row_key)? {
                // The spend was taken from a balance that has been set anew in this batch: after it is published the cell
                // holds the new balance with the spend counted, and is written then.
                Some(row) if row.generation > mark.generation() => journal.later.push(counters),
                Some(row) => {
                    let row = CreditsRow { balance: mark.balance(), generation: mark.generation(), ..row };
                    let value = Some(row.to_bytes());
                    journal.effects.insert(row_key.clone(), Effect { table: CreditsRow::TABLE, key: row_key, value });
                    journal.marks.push((counters, mark));
                }
                // Purged, maybe by this very batch: there is nothing to keep a balance for, if the batch gets through.
                None => journal.marks.push((counters, mark)),
            }
            Ok(())
        };
        for spend in strict {
            one(Arc::clone(&spend.counters))?;
        }
        if spends > 0 {
            self.waiting.told.store(false, Ordering::Release);
            for _ in 0..self.waiting.spends().min(spends) {
                match self.waiting.next_spend() {
                    Some(counters) => one(counters)?,
                    None => break,
                }
            }
        }
        if touches > 0 {
            self.waiting.told_of_touches.store(false, Ordering::Release);
        }
        for _ in 0..touches {
            let Some(counters) = self.waiting.touches.pop() else { break };
            let minute = counters.last_minute();
            let (workspace, id) = (counters.workspace, counters.id);
            if minute > key::last_used(tables, workspace, id)? && key::exists(tables, workspace, id)? {
                let row_key = key::key(workspace, id);
                let mut slot = row_key.clone();
                slot.push(1); // apart from the key's credits in the same map
                let value = Some(LastUsedRow { minute }.to_bytes());
                journal.effects.insert(slot, Effect { table: LastUsedRow::TABLE, key: row_key, value });
            }
            journal.touched.push((counters, minute));
        }
        Ok(())
    }

    /// Nothing of the journal was written: everything in it waits again.
    fn requeue(&self, journal: Journal) {
        for (counters, _) in journal.marks {
            self.waiting.spent(counters);
        }
        for counters in journal.later {
            self.waiting.spent(counters);
        }
        for (counters, _) in journal.touched {
            self.waiting.touched(counters);
        }
    }

    /// Asks the disk; notes the free bytes and nothing else.
    pub fn measure_room(&self) -> Room {
        // An error here is no reason to refuse: the append itself will tell.
        let Ok(free) = self.disk.free_bytes(&self.dir) else { return Room::Enough };
        self.status.free_bytes.store(free, Ordering::Relaxed);
        if free >= self.min_free_bytes {
            Room::Enough
        } else if free >= HARD_FLOOR_BYTES {
            Room::Low
        } else {
            Room::Gone
        }
    }

    /// Looks how much room there is, says so where that has changed, and refuses changes or takes them again.
    pub fn look_at_room(&mut self) {
        let measured = self.measure_room();
        let free = self.status.free_bytes.load(Ordering::Relaxed);
        // Somebody made room. Without this a store that nobody writes to would be called full for ever.
        if self.full_at.is_some_and(|then| free >= then.saturating_add(HARD_FLOOR_BYTES)) {
            self.full_at = None;
        }
        self.note_room(measured);
    }

    pub fn note_room(&mut self, measured: Room) {
        let room = if self.full_at.is_some() { Room::Gone } else { measured };
        if std::mem::replace(&mut self.room, room) == room {
            return;
        }
        self.status.read_only.store(room != Room::Enough, Ordering::Release);
        let free_bytes = self.status.free_bytes.load(Ordering::Relaxed);
        let (data_dir, min_free_bytes) = (self.dir.display(), self.min_free_bytes);
        match room {
            Room::Enough => {
                tracing::info!(%data_dir, free_bytes, min_free_bytes, "there is room again: changes are taken");
            }
            Room::Low => tracing::warn!(
                %data_dir,
                free_bytes,
                min_free_bytes,
                "the disk is low on room: changes are refused, verifications go on and spent credits are still written \
                 down; free some space, or lower storage.min_free_bytes"
            ),
            Room::Gone => tracing::warn!(
                %data_dir,
                free_bytes,
                min_free_bytes,
                "the disk is full: changes are refused, verifications go on, but spent credits are no longer written \
                 down and would come back with a restart; free some space"
            ),
        }
    }

    /// Most keys whose spends one step may write.
    fn spends_at_once(room: Room) -> usize {
        if room == Room::Enough { MAX_SPENDS } else { MAX_ROWS_WHEN_LOW }
    }

    /// Steps that write all spends and last-used times that wait now.
    pub fn steps_to_write_all(&self) -> usize {
        let touches = if self.room == Room::Enough { MAX_TOUCHES } else { MAX_ROWS_WHEN_LOW };
        self.waiting.spends() / Writer::spends_at_once(self.room) + self.waiting.touches() / touches + 1
    }

    /// Whether not even the counters can be written.
    pub fn is_out_of_room(&self) -> bool {
        self.room == Room::Gone
    }

    /// Whether changes are refused for lack of room.
    pub fn is_read_only(&self) -> bool {
        self.status.read_only.load(Ordering::Relaxed)
    }

    /// Whether so much was logged that a checkpoint is due.
    pub fn checkpoint_is_due(&self, bytes: u64) -> bool {
        self.log.bytes_written() - self.checkpointed_bytes >= bytes
    }

    /// Whether anything was committed since the last checkpoint.
    pub fn is_ahead_of_checkpoint(&self) -> bool {
        self.state.position.0 > self.status.checkpoint.load(Ordering::Relaxed)
    }

    /// Makes redb durable at the present position and drops the log before it. Left out while the disk is low on
    /// room: redb would need some too, an error of its is fatal, and the log has everything.
    pub fn checkpoint(&mut self) -> Result<(), Fatal> {
        self.look_at_room();
        if self.is_read_only() {
            return Ok(());
        }
        let began = Instant::now();
        self.store.checkpoint(self.state)?;
        self.status.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.status.checkpoint_times.note(nanos(began.elapsed()));
        self.checkpointed_bytes = self.log.bytes_written();
        self.status.checkpoint.store(self.state.position.0, Ordering::Release);
        // Segments that cannot be removed only take room; the next checkpoint tries again.
        let upto = self.feeds.hold(&self.log, self.state.position).min(self.log.keeping(self.keep_log_bytes));
        if let Err(cause) = self.log.remove_through(upto) {
            tracing::warn!(%cause, "old log segments could not be removed");
        }
        self.status.log_bytes.store(self.log.total_bytes(), Ordering::Relaxed);
        Ok(())
    }
}
