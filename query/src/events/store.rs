//! The event store: open it, record, scan, import, export, stop.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};
use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::catalog::TableProvider;
use keyward_storage::disk::Disk;
use keyward_storage::ids::{KeyId, WorkspaceId};

use super::core::{Core, Retention};
use super::event::{Event, workspace_of};
use super::journal::{self, OWN};
use super::keeper::{Job, Keeper};
use super::live::Unsealed;
use super::manifest::{self, Manifest};
use super::parts::{self, Part};
use super::recorder::{Ask, Closed, Recorder, Recovered, SealAt, Syncer};
use super::relay::{self, Outbox, Relaying};
use super::ring::Ring;
use super::scan::{EventTable, Scope};
use super::seal::Sealer;
use super::tables::{Family, Level, Table};

/// The journal's directory in the store's.
pub(crate) const JOURNAL_DIR: &str = "journal";
/// Rows that begin a seal.
const SEAL_ROWS: usize = 524_288;
/// Age of the oldest row that begins a seal.
const SEAL_AGE: Duration = Duration::from_secs(300);
/// Callers that may wait for the recorder or the keeper at a time.
const ASKS_MAX: usize = 64;
/// How long health remembers that events were dropped.
const DEGRADED_FOR: Duration = Duration::from_secs(60);
/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// How a store is set up.
pub struct Options {
    /// Its directory, made where absent.
    pub dir: PathBuf,
    /// Where that directory is.
    pub disk: Arc<dyn Disk>,
    /// The server's label, column `region`.
    pub region: String,
    /// The time, unix ms: for retention.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Events that may wait for the recorder.
    pub queue_events: usize,
    /// Below so many free bytes nothing is journaled, sealed or compacted.
    pub min_free_bytes: u64,
    /// Days a workspace's rows are kept (0 = for ever; `None` = it has no say). Absent: nothing is ever deleted, as in
    /// test mode (EXT-4).
    pub retention: Option<Retention>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk.
    #[error("cannot read or write the events in {dir}")]
    Disk {
        /// Where.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Numbers for metrics and health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that wait for the recorder.
    pub queue_depth: u64,
    /// Events that may wait.
    pub queue_capacity: u64,
    /// Events dropped since the start.
    pub dropped: u64,
    /// Events recorded since the start.
    pub written: u64,
    /// Milliseconds from taking an event off the queue to showing it to queries, of the last one.
    pub lag_ms: u64,
    /// Bytes of the journal's files.
    pub journal_bytes: u64,
    /// Rows in memory, not in Parquet yet.
    pub unsealed_rows: u64,
    /// Live Parquet files.
    pub parts: u64,
    /// Bytes of the live Parquet files.
    pub part_bytes: u64,
    /// Seals since the start.
    pub seals: u64,
    /// Whether events were dropped lately, or cannot be written.
    pub degraded: bool,
}

/// What keeps events from being kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Events were dropped within the last minute: the queue was full, or nothing could be written.
    pub dropped: bool,
    /// The journal could not be written or synced.
    pub journal: bool,
    /// Events could not be sealed or compacted.
    pub sealing: bool,
}

impl Trouble {
    /// Whether there is any.
    pub fn is_any(self) -> bool {
        self.dropped || self.journal || self.sealing
    }
}

/// Events of a workspace in a period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Verifications.
    pub verifications: u64,
    /// Rate-limit decisions.
    pub ratelimits: u64,
}

/// A key's last verification that the journal knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastUse {
    /// Whose key it is.
    pub workspace: WorkspaceId,
    /// The key.
    pub key: KeyId,
    /// Unix ms.
    pub time: u64,
}

/// The event store.
pub struct Events {
    core: Arc<Core>,
    asks: Sender<Ask>,
    jobs: Sender<Job>,
    last_uses: Mutex<Vec<LastUse>>,
    sealed: Arc<AtomicU64>,
    syncer: Arc<Syncer>,
    outbox: Mutex<Outbox>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events").field("dir", &self.core.dir).finish_non_exhaustive()
    }
}

impl Events {
    /// Opens the store: recovers what a crash left, starts its threads.
    ///
    /// # Errors
    /// The disk, or a manifest that is damaged: live files must not be taken for orphans.
    pub fn open(options: Options) -> Result<Events, OpenError> {
        let dir = options.dir.clone();
        let failed = |source| OpenError::Disk { dir: dir.clone(), source };
        let seal_at = SealAt { rows: SEAL_ROWS, age: SEAL_AGE };
        let opened = open(options, seal_at).map_err(failed)?;
        let Opened { core, recorder, keeper, asks, jobs, last_uses, sealed, syncer } = opened;
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(failed)
        };
        let threads = vec![
            spawn("events", Box::new(move || recorder.run()))?,
            spawn("events-keeper", Box::new(move || keeper.run()))?,
        ];
        Ok(Events {
            core,
            asks,
            jobs,
            last_uses: Mutex::new(last_uses),
            sealed,
            syncer,
            outbox: Mutex::default(),
            threads: Mutex::new(threads),
        })
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// Batches up to this number are in Parquet, or with another store.
    pub(super) fn sealed(&self) -> &AtomicU64 {
        &self.sealed
    }

    pub(super) fn syncer(&self) -> &Syncer {
        &self.syncer
    }

    pub(super) fn outbox_lock(&self) -> &Mutex<Outbox> {
        &self.outbox
    }

    /// Asks the recorder something; `Err` where it has ended.
    pub(super) fn tell(&self, ask: Ask) -> Result<(), ()> {
        self.asks.send(ask).map_err(|_| ())?;
        self.core.ring.wake();
        Ok(())
    }

    /// Records an event; queries see it within a second. Waits up to 5 ms where the queue is full, then drops and counts
    /// it. Whether it was taken.
    pub async fn record(&self, event: impl Into<Event>) -> bool {
        self.core.ring.push(event.into()).await
    }

    /// Records an event without waiting: where the queue is full it is dropped and counted.
    pub fn record_or_drop(&self, event: impl Into<Event>) {
        if self.core.ring.try_push(event.into()).is_err() {
            self.core.ring.count_dropped(1);
        }
    }

    /// Records an event without waiting, or gives it back where the queue is full.
    #[expect(
        clippy::result_large_err,
        reason = "the event itself is handed back; boxing it would allocate on the hot path"
    )]
    pub fn try_record(&self, event: impl Into<Event>) -> Result<(), Event> {
        self.core.ring.try_push(event.into())
    }

    /// A table as a caller sees it: what it holds is read at each scan.
    pub fn provider(&self, table: Table, scope: &Scope) -> Arc<dyn TableProvider> {
        Arc::new(EventTable::new(Arc::clone(&self.core), table, scope.clone()))
    }

    /// Adds raw rows in any order, all or none; roll-ups follow. The batches have the raw table's schema. Gives the number
    /// of rows. Blocks.
    ///
    /// # Errors
    /// The source's first error, a row that cannot be kept, or the disk. Nothing is added then.
    pub fn import<E>(
        &self,
        family: Family,
        batches: impl Iterator<Item = Result<RecordBatch, E>>,
    ) -> Result<u64, super::transfer::ImportError<E>> {
        let rows = super::transfer::import(&self.core, family, batches)?;
        let _ = self.jobs.send(Job::Look);
        Ok(rows)
    }

    /// Raw rows of one workspace or all, from `start` to before `end` (unix ms), in batches. Blocks as it is read.
    pub fn export(
        &self,
        family: Family,
        workspace: Option<WorkspaceId>,
        start: Option<i64>,
        end: Option<i64>,
    ) -> impl Iterator<Item = io::Result<RecordBatch>> + Send + use<> {
        super::transfer::Export::new(&self.core, family, workspace, start, end)
    }

    /// Events of a workspace on the days from `from` to before `to` (days since 1970). Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn usage(&self, workspace: WorkspaceId, from: i32, to: i32) -> io::Result<Usage> {
        let count = |family, column| self.count(family, column, workspace, from, to);
        Ok(Usage {
            verifications: count(Family::Verifications, "count")?,
            ratelimits: count(Family::Ratelimits, "total")?,
        })
    }

    /// The sum of a column of the roll-up by day, and the rows that are in no roll-up yet.
    fn count(&self, family: Family, column: &str, workspace: WorkspaceId, from: i32, to: i32) -> io::Result<u64> {
        let live = self.core.view.load();
        let mut counted = 0;
        let days = live.parts(Table { family, level: Level::Day }, workspace).iter();
        for part in days.filter(|part| (from..to).contains(&part.info.day)) {
            for rows in self.core.parts.read(part, Some(&[column]))? {
                counted += rows?.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
            }
        }
        let (start, end) = (i64::from(from) * DAY_MS, i64::from(to) * DAY_MS);
        let mut counted = u64::try_from(counted).unwrap_or(0);
        for batch in live.unsealed(family) {
            let rows = super::transfer::select(&batch.rows, Some(workspace), Some(start), Some(end))?;
            counted += rows.num_rows() as u64;
        }
        Ok(counted)
    }

    /// The last uses of keys that the journal holds, given out once: after a crash they may be newer than what the keys'
    /// store has written down (KEYS-ANALYTICS-5).
    pub fn take_last_uses(&self) -> Vec<LastUse> {
        std::mem::take(&mut *self.last_uses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Numbers for metrics and health.
    pub fn stats(&self) -> Stats {
        let live = self.core.view.load();
        let counters = &self.core.counters;
        let all = || live.all_parts().values().flat_map(|parts| parts.iter());
        Stats {
            queue_depth: self.core.ring.depth() as u64,
            queue_capacity: self.core.ring.capacity() as u64,
            dropped: self.core.ring.dropped(),
            written: counters.written.load(Ordering::Relaxed),
            lag_ms: counters.lag_ms.load(Ordering::Relaxed),
            journal_bytes: counters.journal_bytes.load(Ordering::Relaxed)
                + counters.closed_bytes.load(Ordering::Relaxed),
            unsealed_rows: live.unsealed_rows() as u64,
            parts: all().count() as u64,
            part_bytes: all().map(|part| part.info.bytes).sum(),
            seals: counters.seals.load(Ordering::Relaxed),
            degraded: self.is_degraded(),
        }
    }

    /// Rows and bytes of the live Parquet files, by table.
    pub fn sizes(&self) -> Vec<(&'static str, u64, u64)> {
        let live = self.core.view.load();
        let of = |table: Table| {
            let lists = live.all_parts().iter().filter(|((other, _), _)| *other == table);
            let parts = lists.flat_map(|(_, parts)| parts.iter());
            parts.fold((table.name(), 0, 0), |(name, rows, bytes), part| {
                (name, rows + part.info.rows, bytes + part.info.bytes)
            })
        };
        Table::all().map(of).collect()
    }

    /// Whether events were dropped lately, or cannot be written.
    pub fn is_degraded(&self) -> bool {
        self.trouble().is_any()
    }

    /// What keeps events from being kept, at the moment.
    pub fn trouble(&self) -> Trouble {
        let counters = &self.core.counters;
        Trouble {
            dropped: self.core.ring.dropped_within(DEGRADED_FOR),
            journal: counters.journal_fails.load(Ordering::Relaxed),
            sealing: counters.keeper_fails.load(Ordering::Relaxed),
        }
    }

    /// Begins a copy of all events there are: what was recorded before is in it. Blocks.
    ///
    /// # Errors
    /// The manifest of the copy would be too large.
    pub fn copy(&self) -> io::Result<super::copy::Copy> {
        self.flush();
        super::copy::Copy::new(&self.core)
    }

    /// Returns when queries see everything recorded before. Blocks.
    pub fn flush(&self) {
        self.ask(Ask::Flush);
    }

    /// Seals everything recorded so far and merges parts until there is nothing left to merge. Blocks.
    pub fn settle(&self) {
        self.ask(Ask::Settle);
    }

    fn ask(&self, ask: impl FnOnce(Sender<()>) -> Ask) {
        let (tell, told) = bounded(1);
        // Where the thread has ended there is nothing to wait for.
        if self.tell(ask(tell)).is_ok() {
            let _ = told.recv();
        }
    }

    /// Records what waits, seals it, and ends the threads. Blocks. What is recorded later is kept by nobody.
    pub fn stop(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if threads.is_empty() {
            return;
        }
        let _ = self.asks.send(Ask::Stop);
        self.core.ring.wake();
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the event store ended by a bug");
            }
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A store whose threads have not begun.
pub(crate) struct Opened {
    pub core: Arc<Core>,
    pub recorder: Recorder,
    pub keeper: Keeper,
    pub asks: Sender<Ask>,
    pub jobs: Sender<Job>,
    pub last_uses: Vec<LastUse>,
    pub sealed: Arc<AtomicU64>,
    pub syncer: Arc<Syncer>,
}

/// Recovers a store.
pub(crate) fn open(options: Options, seal_at: SealAt) -> io::Result<Opened> {
    let Options { dir, disk, region, clock, queue_events, min_free_bytes, retention } = options;
    let journal_dir = dir.join(JOURNAL_DIR);
    disk.create_dir_all(&dir)?;
    disk.create_dir_all(&journal_dir)?;
    let on_disk = parts::walk(&*disk, &dir)?;
    refuse_lost_manifest(&*disk, &dir, &on_disk)?;
    let manifest = Manifest::open(Arc::clone(&disk), &dir)?;
    let greatest = on_disk.iter().map(|(no, _)| *no).chain(manifest.state().parts.keys().copied()).max();
    sweep_orphans(&*disk, &manifest, &on_disk)?;
    let live = live_parts(&dir, &manifest, &on_disk);
    let mut marks = manifest.state().sealed.clone();
    let sealed = marks.remove(&OWN).unwrap_or(0);
    let relaying = relay::recall(&*disk, &dir)?;
    let journal = read_journal(&*disk, &journal_dir, sealed, marks, relaying)?;

    let sealer = Sealer::new(Arc::clone(&disk), &dir, greatest.map_or(1, |no| no + 1));
    let ring = Ring::new(queue_events);
    let core = Arc::new(Core::new(&dir, disk, min_free_bytes, clock, retention, ring, sealer, manifest));
    let rows = journal.unsealed.iter().map(|batch| batch.rows.num_rows()).sum();
    core.set_relaying(relaying);
    core.counters.journaled.store(journal.last_batch, Ordering::Release);
    core.view.change(|view| {
        view.add_parts(live);
        journal.unsealed.into_iter().for_each(|batch| view.push(batch, sealed));
        view.come_to(&journal.marks);
    });
    let (asks, asked): (Sender<Ask>, Receiver<Ask>) = bounded(ASKS_MAX);
    let (jobs, told): (Sender<Job>, Receiver<Job>) = bounded(ASKS_MAX);
    // What was recorded before the rows went to another store, and not sealed yet.
    let goals: VecDeque<(u64, Vec<(u32, u64)>)> = relaying
        .filter(|relaying| relaying.from > sealed)
        .map(|relaying| (relaying.from, journal.marks.iter().map(|(source, number)| (*source, *number)).collect()))
        .into_iter()
        .collect();
    let sealed = Arc::new(AtomicU64::new(sealed));
    let syncer = Arc::new(Syncer::default());
    let recovered = Recovered {
        next_segment: journal.next_segment,
        last_batch: journal.last_batch,
        rows: if relaying.is_some() { 0 } else { rows },
        marks: journal.marks,
        relaying: relaying.is_some(),
    };
    let recorder = Recorder::new(
        Arc::clone(&core),
        &region,
        asked,
        jobs.clone(),
        Arc::clone(&syncer),
        Arc::clone(&sealed),
        seal_at,
        recovered,
    );
    let keeper = Keeper::new(Arc::clone(&core), told, Arc::clone(&sealed), journal.closed, goals);
    Ok(Opened { core, recorder, keeper, asks, jobs, last_uses: journal.last_uses, sealed, syncer })
}

/// Refuses files of events without a manifest, which would be taken for orphans, all of them.
pub(crate) fn refuse_lost_manifest(disk: &dyn Disk, dir: &Path, on_disk: &[(u64, PathBuf)]) -> io::Result<()> {
    if on_disk.is_empty() || disk.list(dir)?.iter().any(|name| name == manifest::NAME) {
        return Ok(());
    }
    let files = on_disk.len();
    Err(manifest::damaged(&format!(
        "it is missing, though {files} files of events are there; put it back, or restore a backup"
    )))
}

/// Removes files that the manifest does not name: seals, merges and imports that never took effect.
fn sweep_orphans(disk: &dyn Disk, manifest: &Manifest, on_disk: &[(u64, PathBuf)]) -> io::Result<()> {
    let mut swept = 0;
    for (_, path) in on_disk.iter().filter(|(no, _)| !manifest.state().parts.contains_key(no)) {
        disk.remove(path)?;
        swept += 1;
    }
    if swept > 0 {
        tracing::info!(files = swept, "removed event files that were being written when the last run ended");
    }
    Ok(())
}

fn live_parts(dir: &Path, manifest: &Manifest, on_disk: &[(u64, PathBuf)]) -> Vec<Arc<Part>> {
    let there: HashSet<&PathBuf> = on_disk.iter().map(|(_, path)| path).collect();
    let mut live = Vec::with_capacity(manifest.state().parts.len());
    for info in manifest.state().parts.values() {
        let part = Part::new(dir, *info);
        if there.contains(&part.path) {
            live.push(Arc::new(part));
        } else {
            tracing::error!(path = %part.path.display(), rows = info.rows, "an event file is missing; its rows are lost");
        }
    }
    live
}

/// What the journal's segments hold.
struct Recovery {
    unsealed: Vec<Unsealed>,
    closed: Vec<Closed>,
    last_uses: Vec<LastUse>,
    next_segment: u64,
    last_batch: u64,
    /// Up to which batch the rows of other stores are here.
    marks: BTreeMap<u32, u64>,
}

/// Reads the journal behind what is sealed; `marks` says how far the rows of other stores are. What is kept for another store
/// stays where it is.
fn read_journal(
    disk: &dyn Disk,
    dir: &Path,
    sealed: u64,
    marks: BTreeMap<u32, u64>,
    relaying: Option<Relaying>,
) -> io::Result<Recovery> {
    let segments = journal::list(disk, dir)?;
    let mut recovery = Recovery {
        unsealed: Vec::new(),
        closed: Vec::new(),
        last_uses: Vec::new(),
        next_segment: segments.last().map_or(1, |last| last + 1),
        last_batch: sealed,
        marks,
    };
    let mut uses: HashMap<KeyId, LastUse> = HashMap::new();
    let newest = segments.last().copied();
    for segment in segments {
        let contents = journal::read(disk, dir, segment)?;
        if !contents.whole {
            // The end of the newest is what a crash tears; elsewhere a failed write has left it, or the disk lost something.
            let torn = Some(segment) == newest;
            tracing::warn!(
                path = %journal::path(dir, segment).display(),
                bytes = contents.bytes,
                torn,
                "a segment of the events' journal is not whole; what stands before the gap is kept"
            );
        }
        let mut last = 0;
        for batch in contents.batches {
            last = last.max(batch.number);
            if batch.family == Family::Verifications {
                note_uses(&mut uses, &batch.rows);
            }
            let is_new = batch.number > recovery.last_batch;
            recovery.last_batch = recovery.last_batch.max(batch.number);
            if let Some(from) = batch.from {
                let mark = recovery.marks.entry(from.source).or_default();
                // Its writing failed, as far as its writer could tell, and it came again.
                if from.number <= *mark && batch.number > sealed {
                    continue;
                }
                *mark = from.number.max(*mark);
            }
            if is_new && relaying.is_none_or(|relaying| batch.number <= relaying.from) {
                let numbers = (batch.number, batch.number);
                recovery.unsealed.extend(Unsealed::new(batch.family, batch.rows, numbers));
            }
        }
        recovery.closed.push(Closed { segment, last, bytes: contents.bytes });
    }
    recovery.last_uses = uses.into_values().collect();
    Ok(recovery)
}

/// Notes when the keys of these verifications were used last.
pub(crate) fn note_uses(uses: &mut HashMap<KeyId, LastUse>, rows: &RecordBatch) {
    let column = |name: &str| rows.column_by_name(name).expect("the journal checks the schema");
    let (keys, workspaces) = (column("key_id").as_string_view(), column("workspace_id").as_string_view());
    let times = column("time").as_primitive::<Int64Type>();
    for row in 0..rows.num_rows() {
        let (Some(key), Some(workspace)) = (KeyId::parse(keys.value(row)), workspace_of(workspaces.value(row))) else {
            continue;
        };
        let time = u64::try_from(times.value(row)).unwrap_or(0);
        let known = uses.entry(key).or_insert(LastUse { workspace, key, time });
        known.time = known.time.max(time);
    }
}
