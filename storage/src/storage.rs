//! The handle a server holds: open a store, look up, read, transact, spend, limit, stop.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};

use crate::disk::Disk;
use crate::error::{OpenError, ReadError, Unavailable};
use crate::hot::build::{Builder, unless_stale};
use crate::hot::counters::{MINUTE_MS, Spend};
use crate::hot::index::{Index, Lookup};
use crate::hot::window::{WindowJournal, Windows};
use crate::hot::{Hot, OPERATOR};
use crate::ids::{NamespaceId, WorkspaceNo};
use crate::log::{self, Log, LogError, LogOptions, OpenLogError};
use crate::position::{Position, Term};
use crate::records::key::{KeyHash, KeyView};
use crate::records::ratelimit::{self, NamespaceView, OverrideRow, OverrideView};
use crate::records::root_key::RootKeyView;
use crate::records::{self, Effect, decode_record, workspace_of};
use crate::store::{Snapshot, State, Store, Tables, put_state};
use crate::tx::{Abort, Tx};
use crate::writer::{Answer, Fatal, Fate, Job, MAX_WAITING_SPENDS, Ran, Room, Status, StrictSpend, Waiting, Writer};
use crate::writer_thread::{self, Command, Timing};

/// The newest data directory format this build reads and writes.
pub const FORMAT: u32 = 1;
/// Transactions that may wait for the writer; one more is refused as busy.
const QUEUE: usize = 8192;
/// How often rate-limit cells are written down and old ones dropped.
const WINDOWS_EVERY: Duration = Duration::from_secs(1);
/// How often last-used times are written down.
const TOUCHES_EVERY: Duration = Duration::from_secs(30);
/// Records applied in one redb commit while the log is replayed, and their bytes, as far as one record allows.
const REPLAY_BATCH: usize = 4096;
const REPLAY_BATCH_BYTES: usize = 32 << 20;

/// How to open a store.
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// Where files are.
    pub disk: Arc<dyn Disk>,
    /// Gives the time, unix ms.
    pub clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Random bytes that become a new store's identity and secret seed.
    pub fresh: [u8; 32],
    /// Most keys in the hot index.
    pub hot_keys_max: usize,
    /// Most bytes in the hot index.
    pub hot_bytes_max: u64,
    /// Most rate-limit subjects with a live window.
    pub rate_subjects_max: usize,
    /// redb's cache, bytes.
    pub redb_cache_bytes: usize,
    /// Size at which a log segment is closed, bytes.
    pub segment_bytes: u64,
    /// Log bytes after which a checkpoint is made at once.
    pub checkpoint_bytes: u64,
    /// Longest between two checkpoints while there are changes.
    pub checkpoint_interval: Duration,
    /// Whether a spend is journaled before it is answered.
    pub strict_credits: bool,
    /// Longest a spend waits for the journal where it is not.
    pub credits_journal_interval: Duration,
    /// Free bytes below which changes are refused.
    pub min_free_bytes: u64,
    /// Whether rate limits must serve times in any order (test mode).
    pub any_order_of_times: bool,
    /// Called when nothing can be written any more: the process has to stop.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
}

impl Options {
    /// Sensible sizes for a directory.
    pub fn new(
        dir: impl Into<PathBuf>,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Fn() -> u64 + Send + Sync>,
        fresh: [u8; 32],
        on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    ) -> Options {
        Options {
            dir: dir.into(),
            disk,
            clock,
            fresh,
            hot_keys_max: 4_000_000,
            hot_bytes_max: 2 << 30,
            rate_subjects_max: 4_000_000,
            redb_cache_bytes: 64 << 20,
            segment_bytes: 64 << 20,
            checkpoint_bytes: 64 << 20,
            checkpoint_interval: Duration::from_secs(30),
            strict_credits: false,
            credits_journal_interval: Duration::from_millis(5),
            min_free_bytes: 64 << 20,
            any_order_of_times: false,
            on_fatal,
        }
    }
}

/// What a transaction that was applied gave.
#[derive(Debug)]
pub struct Committed<R> {
    /// What its function returned.
    pub value: R,
    /// Where it stands in the log.
    pub position: Position,
    /// The last balance it changed, as it became when it was published; `None` where the key was not in memory.
    pub balance: Option<u64>,
}

/// Why a transaction was not applied.
#[derive(Debug, thiserror::Error)]
pub enum TransactError<X> {
    /// Its own checks refused it.
    #[error("the transaction was refused by its checks")]
    Refused(X),
    /// The store does not take changes now.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The records could not be read.
    #[error(transparent)]
    Read(ReadError),
}

/// What became of a spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spent {
    /// Taken; so many are left.
    Taken(u64),
    /// Not enough; so many are left.
    Short(u64),
    /// The view is out of use: look the key up again.
    LookAgain,
    /// Too many spends wait for a full disk.
    Unavailable(Unavailable),
    /// Taken, and to be journaled before it is answered: hand this to [`Storage::journal_spend`].
    Journal(PendingSpend),
}

/// A spend that must reach the log before it is answered.
#[derive(Debug, Clone)]
pub struct PendingSpend {
    view: Arc<KeyView>,
    cost: u64,
    generation: u64,
    left: u64,
}

impl PartialEq for PendingSpend {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.view, &other.view) && self.cost == other.cost && self.left == other.left
    }
}

impl Eq for PendingSpend {}

/// Numbers for metrics and `status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Last position that is durable.
    pub position: u64,
    /// Position of the last checkpoint.
    pub checkpoint: u64,
    /// Whether changes are refused for lack of room.
    pub read_only: bool,
    /// Free bytes on the disk, at most a second old; `u64::MAX` where the system does not tell.
    pub free_bytes: u64,
    /// Log frames written since start, each with one sync.
    pub syncs: u64,
    /// Log records written since start.
    pub transactions: u64,
    /// Bytes of log on disk.
    pub log_bytes: u64,
    /// Keys in memory.
    pub hot_keys: usize,
    /// Bytes of the hot key index, roughly.
    pub hot_bytes: u64,
    /// Rate-limit subjects in memory.
    pub rate_subjects: usize,
    /// Keys whose spends wait for the journal.
    pub waiting_spends: usize,
    /// Records replayed at start.
    pub replayed: u64,
    /// Bytes of an unfinished frame cut off at start.
    pub torn_bytes: u64,
}

/// An open store.
pub struct Storage {
    hot: Arc<Hot>,
    store: Arc<Store>,
    commands: Sender<Command>,
    /// The other end of `commands`, for what comes after the writer's end.
    left_over: Receiver<Command>,
    writer_ended: Arc<AtomicBool>,
    waiting: Arc<Waiting>,
    status: Arc<Status>,
    strict_credits: bool,
    replayed: u64,
    torn_bytes: u64,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop_windows: Sender<()>,
    stopped: AtomicBool,
    /// Held for as long as the store is open.
    _lock: Box<dyn Send + Sync>,
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> OpenError + '_ {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

impl Storage {
    /// Opens the store in a directory, making it where it is empty: takes the lock, checks the format, replays the log
    /// since the checkpoint, loads the counters, and starts the writer.
    ///
    /// # Errors
    /// Says in words what to do: the directory is in use, was written by a newer keyward, or cannot be trusted.
    pub fn open(options: Options) -> Result<Storage, OpenError> {
        // redb panics on some damage to its file; to whoever starts the server that is a checkpoint that cannot be opened.
        catch_unwind(AssertUnwindSafe(|| Storage::open_unguarded(options))).unwrap_or_else(|_| {
            let cause = redb::Error::Corrupted("reading it panicked; the lines above say where".to_owned());
            Err(OpenError::Checkpoint(Box::new(cause)))
        })
    }

    fn open_unguarded(options: Options) -> Result<Storage, OpenError> {
        let (disk, dir) = (Arc::clone(&options.disk), options.dir.clone());
        let min_free_bytes = options.min_free_bytes;
        Storage::open_it(options).map_err(|error| match error {
            // Otherwise the words might send the operator after a backup.
            error if error.is_no_space() => {
                OpenError::NoSpace { free_bytes: disk.free_bytes(&dir).ok(), path: dir, min_free_bytes }
            }
            OpenError::Io { path, source } => explain(&*disk, path, source),
            error => error,
        })
    }

    fn open_it(options: Options) -> Result<Storage, OpenError> {
        let Options { dir, disk, clock, fresh, .. } = &options;
        disk.create_dir_all(dir).map_err(io_error(dir))?;
        refuse_foreign_files(&**disk, dir)?;
        let lock_path = dir.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked(dir.clone()),
            _ => OpenError::Io { path: lock_path.clone(), source },
        })?;
        let known = read_format(&**disk, dir)?;

        let log_dir = dir.join("log");
        // A store whose checkpoint file was lost is rebuilt from its log, which names the store.
        let logged_id = log::store_id(&**disk, &log_dir).map_err(|error| OpenError::Log(Box::new(error)))?;
        if known && logged_id.is_none() {
            return Err(OpenError::LogMissing(log_dir));
        }
        let unusable = |error| OpenError::Checkpoint(Box::new(error));
        let opened = Store::open(&**disk, dir, options.redb_cache_bytes).map_err(unusable)?;
        let (store, mut state) = match opened {
            Some(opened) => opened,
            None => {
                require_whole_log(&**disk, &log_dir)?;
                if logged_id.is_none()
                    && let Ok(free) = disk.free_bytes(dir)
                    && free < options.min_free_bytes
                {
                    // A store is not begun where its first change would be refused.
                    let min_free_bytes = options.min_free_bytes;
                    return Err(OpenError::NoSpace { path: dir.clone(), free_bytes: Some(free), min_free_bytes });
                }
                let (store_id, seed) = fresh.split_at(16);
                let state = State {
                    position: Position::START,
                    term: Term(1),
                    store_id: logged_id.unwrap_or_else(|| store_id.try_into().expect("half of 32 bytes")),
                    seed: seed.try_into().expect("half of 32 bytes"),
                };
                (Store::create(&**disk, dir, options.redb_cache_bytes, state).map_err(unusable)?, state)
            }
        };
        let checkpoint = state.position;

        let mut replay = Replay { store: &store, state, effects: Vec::new(), records: 0, bytes: 0 };
        let log_options = LogOptions { segment_bytes: options.segment_bytes, store_id: state.store_id };
        disk.create_dir_all(&log_dir).map_err(io_error(&log_dir))?;
        let (log, recovered) =
            Log::open(Arc::clone(disk), &log_dir, log_options, checkpoint, |position, term, record| {
                replay.take(position, term, record)
            })
            .map_err(|error| match error {
                OpenLogError::Replay { source, .. } => source,
                OpenLogError::Log(error) => OpenError::Log(Box::new(error)),
            })?;
        replay.flush()?;
        state = replay.state;
        if !known {
            // Only now: a directory with this file has a log, so one without is a log that was lost.
            write_format(&**disk, dir)?;
        }
        if !recovered.strangers.is_empty() {
            tracing::warn!(files = ?recovered.strangers, "the log directory holds files that are not keyward's; they are left alone");
        }
        if recovered.replayed > 0 || recovered.torn_bytes > 0 {
            tracing::info!(
                records = recovered.replayed,
                torn_bytes = recovered.torn_bytes,
                position = state.position.0,
                "the write-ahead log was replayed"
            );
        }

        let store = Arc::new(store);
        let snapshot = store.snapshot()?;
        let hot = Arc::new(load_hot(&options, &snapshot, state.seed)?);
        drop(snapshot);
        let (journal, loaded) =
            WindowJournal::open(Arc::clone(disk), dir, state.store_id, &hot.windows, clock()).map_err(io_error(dir))?;
        tracing::debug!(cells = loaded.kept, "rate-limit cells loaded");
        if loaded.ignored_bytes > 0 || loaded.no_room > 0 || loaded.unread.is_some() {
            tracing::warn!(
                ignored_bytes = loaded.ignored_bytes,
                without_room = loaded.no_room,
                unread = loaded.unread.as_ref().map(tracing::field::display),
                "some rate-limit windows could not be read back: what was counted in them is forgotten"
            );
        }

        let status = Arc::new(Status { free_bytes: AtomicU64::new(u64::MAX), ..Status::default() });
        status.position.store(state.position.0, Ordering::Relaxed);
        status.checkpoint.store(checkpoint.0, Ordering::Relaxed);
        let waiting = Arc::new(Waiting::default());
        let mut writer = Writer {
            disk: Arc::clone(disk),
            dir: dir.clone(),
            store: Arc::clone(&store),
            checkpointed_bytes: log.bytes_written(),
            log,
            hot: Arc::clone(&hot),
            state,
            waiting: Arc::clone(&waiting),
            status: Arc::clone(&status),
            min_free_bytes: options.min_free_bytes,
            room: Room::Enough,
            full_at: None,
            now: clock(),
        };
        writer.look_at_room();
        let (commands, queue) = bounded(QUEUE);
        let left_over = queue.clone();
        let writer_ended = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&writer_ended);
        let timing = Timing {
            spends: options.credits_journal_interval,
            touches: TOUCHES_EVERY,
            checkpoint: options.checkpoint_interval,
            checkpoint_bytes: options.checkpoint_bytes,
        };
        let on_fatal = Arc::clone(&options.on_fatal);
        let writer_thread = spawn("keyward-writer", dir, move || {
            // A writer that is gone must not go unnoticed: whatever it died of, the process cannot write any more.
            let outcome = catch_unwind(AssertUnwindSafe(|| writer_thread::run(writer, &queue, &timing)));
            if let Err(error) = outcome.unwrap_or(Err(Fatal::Panicked)) {
                on_fatal(&error);
            }
            ended.store(true, Ordering::SeqCst);
            refuse_all(&queue);
        })?;
        let (stop_windows, windows_stop) = bounded(0);
        let windows_hot = Arc::clone(&hot);
        let clock = Arc::clone(clock);
        let windows_thread = spawn("keyward-windows", dir, move || {
            let mut journal = journal;
            let mut failing = false;
            loop {
                let stopping = !matches!(windows_stop.recv_timeout(WINDOWS_EVERY), Err(RecvTimeoutError::Timeout));
                let now = clock();
                windows_hot.windows.sweep(now);
                // A bounded, documented loss: counting goes on in memory, the next round writes what changed.
                match journal.write_changed(&windows_hot.windows, now) {
                    Err(cause) if !failing => {
                        tracing::warn!(
                            %cause,
                            "rate-limit windows cannot be written down; counting goes on in memory and this is tried \
                             again every second; a restart before it succeeds forgets what was counted"
                        );
                        failing = true;
                    }
                    Ok(_) if failing => {
                        tracing::info!("rate-limit windows are written down again");
                        failing = false;
                    }
                    _ => {}
                }
                if stopping {
                    return;
                }
            }
        })?;
        Ok(Storage {
            hot,
            store,
            commands,
            left_over,
            writer_ended,
            waiting,
            status,
            strict_credits: options.strict_credits,
            replayed: recovered.replayed,
            torn_bytes: recovered.torn_bytes,
            threads: Mutex::new(vec![writer_thread, windows_thread]),
            stop_windows,
            stopped: AtomicBool::new(false),
            _lock: lock,
        })
    }

    /// What requests read without a lock.
    pub fn hot(&self) -> &Hot {
        &self.hot
    }

    /// A consistent view of the records.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.store.snapshot()
    }

    /// Looks a key up in memory: no lock, no file.
    pub fn key(&self, workspace: WorkspaceNo, hash: &KeyHash) -> Lookup<KeyView> {
        self.hot.keys.get(workspace.0, hash)
    }

    /// Looks a key up, from disk where it is not in memory. Blocks.
    pub fn read_key(&self, workspace: WorkspaceNo, hash: &KeyHash) -> Result<Option<Arc<KeyView>>, ReadError> {
        self.hot.keys.get_or_read(workspace.0, hash, || {
            let snapshot = self.store.published_snapshot()?;
            let view = Builder { hot: &self.hot, snapshot: &snapshot }.key_by_hash(workspace, hash);
            Ok(unless_stale(view)?.map(|view| (view, snapshot.position())))
        })
    }

    /// Looks a root key up in memory.
    pub fn root_key(&self, hash: &KeyHash) -> Lookup<RootKeyView> {
        self.hot.root_keys.get(OPERATOR, hash)
    }

    /// Looks a root key up, from disk where it is not in memory. Blocks.
    pub fn read_root_key(&self, hash: &KeyHash) -> Result<Option<Arc<RootKeyView>>, ReadError> {
        self.hot.root_keys.get_or_read(OPERATOR, hash, || {
            let snapshot = self.store.published_snapshot()?;
            let view = Builder { hot: &self.hot, snapshot: &snapshot }.root_key_by_hash(hash);
            Ok(unless_stale(view)?.map(|view| (view, snapshot.position())))
        })
    }

    /// Looks a namespace up in memory by its id or name; the id wins (RL-NS-01).
    pub fn namespace(&self, workspace: WorkspaceNo, id_or_name: &str) -> Lookup<NamespaceView> {
        self.hot.namespaces.get(workspace.0, &self.hot.name_hash(workspace, id_or_name))
    }

    /// Looks a namespace up by its id or name, from disk where it is not in memory. Blocks.
    pub fn read_namespace(
        &self,
        workspace: WorkspaceNo,
        id_or_name: &str,
    ) -> Result<Option<Arc<NamespaceView>>, ReadError> {
        let hash = self.hot.name_hash(workspace, id_or_name);
        self.hot.namespaces.get_or_read(workspace.0, &hash, || {
            let snapshot = self.store.published_snapshot()?;
            let builder = Builder { hot: &self.hot, snapshot: &snapshot };
            let view = match ratelimit::find_by_id_or_name(&snapshot, workspace, id_or_name)? {
                Some((id, _)) => builder.namespace(workspace, id)?,
                None => None,
            };
            Ok(Some((view, snapshot.position())))
        })
    }

    /// Looks up the override of exactly this identifier in memory.
    pub fn override_of(
        &self,
        workspace: WorkspaceNo,
        namespace: NamespaceId,
        identifier: &str,
    ) -> Lookup<OverrideView> {
        self.hot.overrides.get(workspace.0, &self.hot.override_hash(workspace, namespace, identifier.as_bytes()))
    }

    /// Looks up the override of exactly this identifier, from disk where it is not in memory. Blocks.
    pub fn read_override_of(
        &self,
        workspace: WorkspaceNo,
        namespace: NamespaceId,
        identifier: &str,
    ) -> Result<Option<Arc<OverrideView>>, ReadError> {
        let hash = self.hot.override_hash(workspace, namespace, identifier.as_bytes());
        self.hot.overrides.get_or_read(workspace.0, &hash, || {
            let snapshot = self.store.published_snapshot()?;
            let builder = Builder { hot: &self.hot, snapshot: &snapshot };
            Ok(Some((builder.override_of(workspace, namespace, identifier)?, snapshot.position())))
        })
    }

    /// Hands a transaction to the writer and returns at once; `done` is called, on the writer's thread, when its fate is
    /// decided: applied means durable and visible. `now` is the request's time, unix ms.
    ///
    /// Once it is handed in it runs to its end, whether or not anyone still waits for the answer.
    pub fn transact<R, X>(
        &self,
        now: u64,
        run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<X>> + Send + 'static,
        done: impl FnOnce(Result<Committed<R>, TransactError<X>>) + Send + 'static,
    ) where
        R: Send + 'static,
        X: Send + 'static,
    {
        let job = Job { run: Box::new(move |tx| run_job(tx, run, done)), now };
        self.hand_in(Command::Transact(job));
    }

    /// Takes credits of a key, all or none, and sees to it that the log learns of it.
    pub fn spend(&self, view: &Arc<KeyView>, cost: u64) -> Spent {
        let too_many = || self.waiting.spends() >= MAX_WAITING_SPENDS && self.status.read_only.load(Ordering::Acquire);
        if cost > 0 && !view.counters.is_dirty() && too_many() {
            return Spent::Unavailable(Unavailable::NoSpace);
        }
        match view.counters.spend(cost) {
            Spend::Retired => Spent::LookAgain,
            Spend::Short { left } => Spent::Short(left),
            Spend::Taken { left, first, generation } => {
                // Whoever makes a cell dirty queues it, without exception: nobody else does, and what is dirty and not
                // queued would never be journaled.
                if first && self.waiting.spent(Arc::clone(&view.counters)) && !self.strict_credits {
                    // A full queue wakes the writer as well.
                    let _ = self.commands.try_send(Command::Wake);
                }
                if self.strict_credits && cost > 0 {
                    return Spent::Journal(PendingSpend { view: Arc::clone(view), cost, generation, left });
                }
                Spent::Taken(left)
            }
        }
    }

    /// Journals a spend; `done` is told how many are left once the log holds it. Where that fails the spend is undone.
    pub fn journal_spend(&self, pending: PendingSpend, done: impl FnOnce(Result<u64, Unavailable>) + Send + 'static) {
        let left = pending.left;
        let answer: Answer = Box::new(move |fate| {
            done(match fate {
                Fate::Done { .. } => Ok(left),
                Fate::Unavailable(why) => Err(why),
                Fate::Unreadable(_) => Err(Unavailable::Stopped),
            });
        });
        let spend = StrictSpend {
            counters: Arc::clone(&pending.view.counters),
            cost: pending.cost,
            generation: pending.generation,
            answer,
        };
        self.hand_in(Command::Spend(spend));
    }

    /// Queues a command for the writer, or refuses it.
    fn hand_in(&self, command: Command) {
        match self.commands.try_send(command) {
            Ok(()) => self.refuse_after_end(),
            Err(TrySendError::Full(command) | TrySendError::Disconnected(command)) => {
                command.refuse(if self.is_stopped() { &Unavailable::Stopped } else { &Unavailable::Busy });
            }
        }
    }

    /// A command that is queued when the writer has ended would never be answered, and never dropped either. The writer
    /// says that it has ended and then empties the queue, so either that finds the command or this does.
    fn refuse_after_end(&self) {
        if self.writer_ended.load(Ordering::SeqCst) {
            refuse_all(&self.left_over);
        }
    }

    /// Notes that a key was verified at `now` (unix ms).
    pub fn touch(&self, view: &KeyView, now: u64) {
        let minute = u32::try_from(now / MINUTE_MS).unwrap_or(u32::MAX);
        if view.noted_minute.load(Ordering::Relaxed) >= minute {
            return;
        }
        view.noted_minute.fetch_max(minute, Ordering::Relaxed);
        if view.counters.touch(minute) && self.waiting.touched(Arc::clone(&view.counters)) {
            let _ = self.commands.try_send(Command::Wake);
        }
    }

    /// Writes everything that waits and makes a checkpoint; `done` is called after it.
    pub fn flush(&self, done: impl FnOnce() + Send + 'static) {
        let _ = self.commands.send(Command::Flush(Box::new(done)));
        self.refuse_after_end();
    }

    /// Numbers for metrics and status.
    pub fn stats(&self) -> Stats {
        Stats {
            position: self.status.position.load(Ordering::Acquire),
            checkpoint: self.status.checkpoint.load(Ordering::Acquire),
            read_only: self.status.read_only.load(Ordering::Acquire),
            free_bytes: self.status.free_bytes.load(Ordering::Relaxed),
            syncs: self.status.syncs.load(Ordering::Relaxed),
            transactions: self.status.transactions.load(Ordering::Relaxed),
            log_bytes: self.status.log_bytes.load(Ordering::Relaxed),
            hot_keys: self.hot.keys.len(),
            hot_bytes: self.hot.keys.bytes(),
            rate_subjects: self.hot.windows.len(),
            waiting_spends: self.waiting.spends(),
            replayed: self.replayed,
            torn_bytes: self.torn_bytes,
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire) || self.writer_ended.load(Ordering::SeqCst)
    }

    /// Writes everything down, makes a checkpoint and ends the threads. Whatever is handed in afterwards is refused.
    pub fn stop(&self) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ = self.commands.send(Command::Stop);
        self.refuse_after_end();
        let _ = self.stop_windows.send(());
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A writer that panicked has said so through its panic; nothing is left to do here.
            let _ = thread.join();
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.stop();
    }
}

fn refuse_all(queue: &Receiver<Command>) {
    for command in queue.try_iter() {
        command.refuse(&Unavailable::Stopped);
    }
}

fn spawn(name: &str, dir: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(io_error(dir))
}

fn run_job<R, X>(
    tx: Option<&mut Tx<'_>>,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<X>>,
    done: impl FnOnce(Result<Committed<R>, TransactError<X>>) + Send + 'static,
) -> Ran
where
    R: Send + 'static,
    X: Send + 'static,
{
    let unavailable = |fate: Fate| match fate {
        Fate::Unavailable(why) => TransactError::Unavailable(why),
        Fate::Unreadable(error) => TransactError::Read(error),
        Fate::Done { .. } => TransactError::Unavailable(Unavailable::Stopped),
    };
    let Some(tx) = tx else {
        return Ok((false, Box::new(move |fate| done(Err(unavailable(fate))))));
    };
    match run(tx) {
        Ok(value) => Ok((
            true,
            Box::new(move |fate| {
                done(match fate {
                    Fate::Done { position, balance } => Ok(Committed { value, position, balance }),
                    fate => Err(unavailable(fate)),
                });
            }),
        )),
        Err(Abort::Refused(why)) => Ok((
            false,
            Box::new(move |fate| {
                done(Err(match fate {
                    Fate::Done { .. } => TransactError::Refused(why),
                    fate => unavailable(fate),
                }));
            }),
        )),
        Err(Abort::Read(error)) => Err((error, Box::new(move |fate| done(Err(unavailable(fate)))))),
    }
}

/// Says what the operator can do about a file that cannot be used.
fn explain(disk: &dyn Disk, path: PathBuf, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => {
            OpenError::Denied { owner: disk.owner(&path), user: rustix::process::geteuid().as_raw(), path }
        }
        io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnlyFileSystem(path),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => OpenError::NotADirectory(path),
        _ => OpenError::Io { path, source },
    }
}

/// Files that a start may leave behind before there is a log, wherever it is killed, and what file systems put there.
const OWN_FILES: [&str; 9] = [
    "LOCK",
    "FORMAT",
    "FORMAT.new",
    "root.key",
    "root.key.new",
    "admin.sock",
    crate::store::FILE,
    crate::store::FILE_ASIDE,
    "lost+found",
];
const OWN_DIRS: [&str; 4] = ["log", "windows", "admin.sock.new", "lost+found"];

/// Refuses a directory that is something else's: its files would be mixed with the store's, and a mistyped path would
/// make an empty store beside the real one. Runs before the lock, so that such a directory is left as it is.
fn refuse_foreign_files(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let files = disk.list(dir).map_err(io_error(dir))?;
    if files.iter().any(|name| name == "FORMAT") {
        return Ok(());
    }
    let dirs = disk.list_dirs(dir).map_err(io_error(dir))?;
    let foreign =
        |names: Vec<String>, own: &[&str]| names.into_iter().filter(|name| !own.contains(&name.as_str())).min();
    let Some(found) = foreign(files, &OWN_FILES).or_else(|| foreign(dirs, &OWN_DIRS)) else { return Ok(()) };
    // With a log it is a store, whatever else lies there; one that cannot be read is for the log to explain.
    match log::store_id(disk, &dir.join("log")) {
        Ok(None) => Err(OpenError::ForeignFiles { dir: dir.to_owned(), found }),
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

const FORMAT_HEAD: &str = "keyward data format ";

/// Reads the format file; refuses a newer format. Whether there is one: a store that was opened before.
fn read_format(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join("FORMAT");
    if !disk.list(dir).map_err(io_error(dir))?.iter().any(|name| name == "FORMAT") {
        return Ok(false);
    }
    let file = disk.open(&path, false).map_err(io_error(&path))?;
    let length = file.len().map_err(io_error(&path))?;
    if length == 0 {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(length.min(256)).expect("at most 256")];
    file.read_exact_at(0, &mut bytes).map_err(io_error(&path))?;
    let found = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix(FORMAT_HEAD))
        .and_then(|number| number.trim_end().parse::<u32>().ok())
        .ok_or_else(|| OpenError::NotAStore(path.clone()))?;
    if found > FORMAT {
        return Err(OpenError::NewerFormat { dir: dir.to_owned(), found, known: FORMAT });
    }
    Ok(true)
}

/// Writes the format file, which gets its name when it is whole: a power cut must not leave one that nobody understands.
fn write_format(disk: &dyn Disk, dir: &Path) -> Result<(), OpenError> {
    let (path, aside) = (dir.join("FORMAT"), dir.join("FORMAT.new"));
    let write = || {
        let file = disk.open(&aside, true)?;
        file.set_len(0)?;
        file.write_all_at(0, format!("{FORMAT_HEAD}{FORMAT}\n").as_bytes())?;
        file.sync_data()?;
        disk.rename(&aside, &path)?;
        disk.sync_dir(dir)
    };
    write().map_err(|source| {
        let _ = disk.remove(&aside);
        OpenError::Io { path, source }
    })
}

/// Refuses to rebuild a lost checkpoint from a log whose beginning is gone, before an empty one stands where the lost one
/// may be put back.
fn require_whole_log(disk: &dyn Disk, log_dir: &Path) -> Result<(), OpenError> {
    let names = match disk.list(log_dir) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(io_error(log_dir))?,
    };
    let from = Position::START.next();
    match names.iter().filter_map(|name| log::segment::first_of_name(name)).min().filter(|oldest| *oldest > from) {
        None => Ok(()),
        Some(oldest) => {
            let through = Position(oldest.0 - 1);
            Err(OpenError::Log(Box::new(LogError::Missing { dir: log_dir.to_owned(), from, through })))
        }
    }
}

/// Applies the log's records to redb in batches.
struct Replay<'a> {
    store: &'a Store,
    state: State,
    effects: Vec<Effect>,
    records: usize,
    bytes: usize,
}

impl Replay<'_> {
    fn take(&mut self, position: Position, term: Term, record: &[u8]) -> Result<(), OpenError> {
        self.effects.extend(decode_record(record).map_err(|cause| OpenError::Record { position, cause })?);
        self.state.position = position;
        self.state.term = term;
        self.records += 1;
        self.bytes += record.len();
        if self.records >= REPLAY_BATCH || self.bytes >= REPLAY_BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        if self.records == 0 {
            return Ok(());
        }
        let apply = || -> Result<(), redb::Error> {
            let txn = self.store.begin()?;
            {
                let tables = Tables::new(&txn);
                for effect in &self.effects {
                    tables.apply(effect)?;
                }
            }
            put_state(&txn, self.state)?;
            Ok(txn.commit()?)
        };
        apply().map_err(|error| OpenError::Checkpoint(Box::new(error)))?;
        self.effects.clear();
        self.records = 0;
        self.bytes = 0;
        Ok(())
    }
}

/// Root keys and namespaces are few beside keys; still their indexes are bounded.
const ROOT_KEYS_MAX: usize = 200_000;
const ROOT_KEY_BYTES_MAX: u64 = 256 << 20;
const NAMESPACES_MAX: usize = 200_000;
const NAMESPACE_BYTES_MAX: u64 = 256 << 20;
/// Overrides are all in memory up to these bounds, so that a decision reads nothing from the disk (RL-CON-05); beyond
/// them, those in use.
const OVERRIDES_MAX: usize = 1_000_000;
const OVERRIDE_BYTES_MAX: u64 = 64 << 20;

/// Makes the hot structures and tells their filters what is stored.
fn load_hot(options: &Options, snapshot: &Snapshot, seed: [u8; 16]) -> Result<Hot, ReadError> {
    let count =
        |table| -> Result<usize, ReadError> { Ok(usize::try_from(snapshot.count(table)?).unwrap_or(usize::MAX)) };
    let windows = if options.any_order_of_times {
        Windows::for_tests(seed, options.rate_subjects_max)
    } else {
        Windows::new(seed, options.rate_subjects_max)
    };
    let hot = Hot::new(
        Index::new(options.hot_keys_max, options.hot_bytes_max, count(records::KEY_BY_HASH)?),
        Index::new(ROOT_KEYS_MAX, ROOT_KEY_BYTES_MAX, count(records::ROOT_KEY_BY_HASH)?),
        Index::new(NAMESPACES_MAX, NAMESPACE_BYTES_MAX, 2 * count(records::NAMESPACE)?),
        Index::new(OVERRIDES_MAX, OVERRIDE_BYTES_MAX, count(records::OVERRIDE)?),
        windows,
        seed,
    );
    snapshot.scan(records::KEY_BY_HASH, |key, _| {
        if let (Some(workspace), Some(hash)) = (workspace_of(key), key.get(4..).and_then(|hash| hash.try_into().ok())) {
            hot.keys.exists(workspace.0, hash);
        }
    })?;
    snapshot.scan(records::ROOT_KEY_BY_HASH, |key, _| {
        if let Ok(hash) = key.try_into() {
            hot.root_keys.exists(OPERATOR, hash);
        }
    })?;
    snapshot.scan(records::NAMESPACE_BY_NAME, |key, id| {
        if let (Some(workspace), Some(name)) =
            (workspace_of(key), key.get(4..).and_then(|name| std::str::from_utf8(name).ok()))
        {
            hot.namespaces.exists(workspace.0, &hot.name_hash(workspace, name));
            if let Some(id) = crate::store::id_from(id) {
                let id = NamespaceId(id).to_string();
                hot.namespaces.exists(workspace.0, &hot.name_hash(workspace, &id));
            }
        }
    })?;
    let mut undecodable = None;
    hot.overrides.load(snapshot.position(), |enter| {
        snapshot.scan(records::OVERRIDE, |key, value| {
            let place = (workspace_of(key), key.get(4..20).and_then(crate::store::id_from), key.get(20..));
            if let (Some(workspace), Some(namespace), Some(identifier)) = place {
                let hash = hot.override_hash(workspace, NamespaceId(namespace), identifier);
                match crate::store::decode::<OverrideRow>(value) {
                    Ok(row) => enter(workspace.0, &hash, OverrideView::new(&row)),
                    Err(error) => undecodable = Some(error),
                }
            }
        })
    })?;
    match undecodable {
        Some(error) => Err(error),
        None => Ok(hot),
    }
}
