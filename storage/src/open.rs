//! Opening a store: the directory, the checkpoint, the log behind it, the hot structures, the threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam::channel::bounded;

use crate::directory::{FORMAT, explain, io_error, read_format, refuse_foreign_files, write_format, write_version};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::feed::{FEED_BYTES_MAX_DEFAULT, Feeds, Source};
use crate::hot::load;
use crate::hot::window::WindowJournal;
use crate::log::{self, Log, LogOptions, OpenLogError, Recovered};
use crate::pepper::{self, Pepper, Peppers};
use crate::position::{Position, Term};
use crate::queue::Queue;
use crate::replay::{Replay, require_whole_log};
use crate::replication::acks::Acks;
use crate::replication::install::{install, node_id};
use crate::replication::{NodeId, Role, Standing, Tenure};
use crate::storage::{Storage, drop_all};
use crate::store::{State, Store};
use crate::upgrade;
use crate::windows_thread;
use crate::writer::{Fatal, OnCommit, Room, Status, Waiting, Writer};
use crate::writer_thread::{self, MAX_COMMANDS, Timing};

/// How often last-used times are written down.
const TOUCHES_EVERY: Duration = Duration::from_secs(30);

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
    /// Where the search index stood when it was last written: the log after it is kept until its reader has come back.
    pub expected_reader: Option<Position>,
    /// Most bytes of log that a reader may hold back; see [`crate::feed`].
    pub feed_bytes_max: u64,
    /// Whether a spend is journaled before it is answered.
    pub strict_credits: bool,
    /// Longest a spend waits for the journal where it is not.
    pub credits_journal_interval: Duration,
    /// Free bytes below which changes are refused.
    pub min_free_bytes: u64,
    /// Whether rate limits must serve times in any order (test mode).
    pub any_order_of_times: bool,
    /// The configured peppers, the one to switch to first.
    pub peppers: Vec<Pepper>,
    /// Whether the file of records is written anew, and a new segment of the log begun, where a switch of the pepper has ended
    /// since that was done last. It takes the time of copying all records, and their room on the disk.
    pub clear_after_switch: bool,
    /// Called when nothing can be written any more: the process has to stop.
    pub on_fatal: Arc<dyn Fn(&Fatal) + Send + Sync>,
    /// What the node does with changes at first.
    pub role: Role,
    /// How many followers have to hold a change before it is answered.
    pub acks_wanted: usize,
    /// How long an answer waits for them.
    pub ack_timeout: Duration,
    /// Bytes of log that are kept for followers beyond what the checkpoint needs.
    pub keep_log_bytes: u64,
    /// Until when this node may lead.
    pub tenure: Arc<Tenure>,
    /// Told of each commit, once it is visible, on the writer's thread.
    pub on_commit: Option<OnCommit>,
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
            expected_reader: None,
            feed_bytes_max: FEED_BYTES_MAX_DEFAULT,
            strict_credits: false,
            credits_journal_interval: Duration::from_millis(5),
            min_free_bytes: 64 << 20,
            any_order_of_times: false,
            peppers: Vec::new(),
            clear_after_switch: false,
            on_fatal,
            role: Role::Leader,
            acks_wanted: 0,
            ack_timeout: Duration::from_secs(5),
            keep_log_bytes: 0,
            tenure: Arc::default(),
            on_commit: None,
        }
    }
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
        Storage::open_it(&options).map_err(|error| match error {
            // Otherwise the words might send the operator after a backup.
            error if error.is_no_space() => {
                OpenError::NoSpace { free_bytes: disk.free_bytes(&dir).ok(), path: dir, min_free_bytes }
            }
            OpenError::Io { path, source } => explain(&*disk, path, source),
            error => error,
        })
    }

    fn open_it(options: &Options) -> Result<Storage, OpenError> {
        let Options { dir, disk, clock, .. } = options;
        let Parts { writer, source, node, recovered, cleared } = Parts::open(options)?;
        let (hot, store) = (Arc::clone(&writer.hot), Arc::clone(&writer.store));
        let (waiting, status) = (Arc::clone(&writer.waiting), Arc::clone(&writer.status));
        let (standing, acks) = (Arc::clone(&writer.standing), Arc::clone(&writer.acks));
        let (journal, loaded) = WindowJournal::open(Arc::clone(disk), dir, source.store_id, &hot.windows, clock())
            .map_err(io_error(dir))?;
        tracing::debug!(cells = loaded.kept, "rate-limit cells loaded");
        if loaded.ignored_bytes > 0 || loaded.no_room > 0 || loaded.unread.is_some() {
            tracing::warn!(
                ignored_bytes = loaded.ignored_bytes,
                without_room = loaded.no_room,
                unread = loaded.unread.as_ref().map(tracing::field::display),
                "some rate-limit windows could not be read back: what was counted in them is forgotten"
            );
        }
        let (commands, told) = bounded(MAX_COMMANDS);
        let left_over = told.clone();
        let queue = Arc::new(Queue::default());
        let (work, now) = (Arc::clone(&queue), Arc::clone(clock));
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
            let outcome = catch_unwind(AssertUnwindSafe(|| writer_thread::run(writer, &work, &told, &timing, &*now)));
            if let Err(error) = outcome.unwrap_or(Err(Fatal::Panicked)) {
                on_fatal(&error);
            }
            work.refuse_all();
            ended.store(true, Ordering::SeqCst);
            drop_all(&told);
        })?;
        let (ask_windows, windows_asked) = bounded(0);
        let windows_hot = Arc::clone(&hot);
        let clock = Arc::clone(clock);
        let windows_thread = spawn("keyward-windows", dir, move || {
            windows_thread::run(journal, &windows_hot, &clock, &windows_asked);
        })?;
        let mut threads = vec![writer_thread, windows_thread];
        if options.acks_wanted > 0 {
            let acks = Arc::clone(&acks);
            threads.push(spawn("keyward-acks", dir, move || acks.run())?);
        }
        Ok(Storage {
            hot,
            store,
            queue,
            commands,
            left_over,
            writer_ended,
            waiting,
            status,
            source,
            standing,
            acks,
            node,
            strict_credits: options.strict_credits,
            cleared,
            replayed: recovered.replayed,
            torn_bytes: recovered.torn_bytes,
            threads: Mutex::new(threads),
            ask_windows,
            stopped: AtomicBool::new(false),
        })
    }
}

/// A store without its threads: what they drive, and what was found.
pub(crate) struct Parts {
    pub writer: Writer,
    pub source: Source,
    pub node: NodeId,
    recovered: Recovered,
    cleared: bool,
}

impl Parts {
    /// Opens everything but the rate-limit windows' journal.
    pub fn open(options: &Options) -> Result<Parts, OpenError> {
        let Options { dir, disk, clock, .. } = options;
        disk.create_dir_all(dir).map_err(io_error(dir))?;
        refuse_foreign_files(&**disk, dir)?;
        let lock_path = dir.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked(dir.clone()),
            _ => OpenError::Io { path: lock_path.clone(), source },
        })?;
        install(&**disk, dir)?;
        let format = read_format(&**disk, dir)?;
        upgrade::keep(&**disk, dir, format)?;
        let log_dir = dir.join("log");
        let (mut store, mut state) = open_checkpoint(options, format.is_some(), &log_dir)?;
        store.peppers = Arc::new(Peppers::new(options.peppers.clone()));
        let mut checkpoint = state.position;
        let (mut log, recovered) = {
            let mut replay = Replay::new(&store, state);
            let log_options = LogOptions { segment_bytes: options.segment_bytes, store_id: state.store_id };
            disk.create_dir_all(&log_dir).map_err(io_error(&log_dir))?;
            let opened = Log::open(Arc::clone(disk), &log_dir, log_options, checkpoint, |position, term, record| {
                replay.take(position, term, record)
            });
            let opened = opened.map_err(|error| match error {
                OpenLogError::Replay { source, .. } => source,
                OpenLogError::Log(error) => OpenError::Log(Box::new(error)),
            })?;
            state = replay.finish()?;
            opened
        };
        if format == Some(FORMAT) {
            write_version(&**disk, dir)?;
        } else {
            // Only now: a directory with this file has a log, so one without is a log that was lost.
            write_format(&**disk, dir)?;
        }
        let node = node_id(&**disk, dir, &options.fresh)?;
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

        let switched = pepper::load(&store.peppers, &store.snapshot()?)?
            .is_some_and(|row| row.ended_at.is_some() && row.cleared_at.is_none());
        let mut cleared = false;
        if switched && options.clear_after_switch {
            match clear(options, &store, state, &mut log) {
                Ok(anew) => (store, checkpoint, cleared) = (anew, state.position, true),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "records.redb could not be written anew after the switch of the pepper: space in it that is free again may \
                     hold older hashes of keys; the next start tries again"
                ),
            }
        }
        let store = Arc::new(store);
        let snapshot = store.snapshot()?;
        let hot = Arc::new(load::load(options, &snapshot, Arc::clone(&store.peppers), state.seed)?);
        drop(snapshot);

        let status = Arc::new(Status::default());
        status.position.store(state.position.0, Ordering::Relaxed);
        status.checkpoint.store(checkpoint.0, Ordering::Relaxed);
        let feeds = Arc::new(Feeds::new(options.feed_bytes_max, options.expected_reader));
        let source = Source {
            disk: Arc::clone(disk),
            log_dir,
            store_id: state.store_id,
            store: Arc::clone(&store),
            status: Arc::clone(&status),
            feeds: Arc::clone(&feeds),
            _lock: Arc::from(lock),
        };
        let waiting = Arc::new(Waiting::default());
        let standing = Arc::new(Standing::new(options.role, Arc::clone(&options.tenure)));
        standing.see(state.term);
        let acks = Arc::new(Acks::new(options.acks_wanted, options.ack_timeout));
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
            feeds,
            min_free_bytes: options.min_free_bytes,
            room: Room::Enough,
            full_at: None,
            now: clock(),
            standing: Arc::clone(&standing),
            acks: Arc::clone(&acks),
            keep_log_bytes: options.keep_log_bytes,
            on_commit: options.on_commit.clone(),
        };
        writer.look_at_room();
        Ok(Parts { writer, source, node, recovered, cleared })
    }
}

/// Writes the file of records anew, at the end of the log, and begins a new segment: nothing that was in either before is in
/// what is written from here on, and the next checkpoint lets the older segments go.
fn clear(options: &Options, store: &Store, state: State, log: &mut Log) -> Result<Store, OpenError> {
    tracing::info!(
        "records.redb is written anew, so that nothing is left in it of hashes from before the switch of the pepper"
    );
    log.begin_segment().map_err(|error| OpenError::Log(Box::new(error)))?;
    let anew = store.written_anew(&*options.disk, &options.dir, options.redb_cache_bytes, state);
    anew.map_err(|error| OpenError::Checkpoint(Box::new(error)))
}

/// The checkpoint to begin from; a new one where the directory is empty, or where its file was lost and the log is whole.
fn open_checkpoint(options: &Options, known: bool, log_dir: &Path) -> Result<(Store, State), OpenError> {
    let Options { dir, disk, fresh, .. } = options;
    // A store whose checkpoint file was lost is rebuilt from its log, which names the store.
    let logged_id = log::store_id(&**disk, log_dir).map_err(|error| OpenError::Log(Box::new(error)))?;
    if known && logged_id.is_none() {
        return Err(OpenError::LogMissing(log_dir.to_owned()));
    }
    let unusable = |error| OpenError::Checkpoint(Box::new(error));
    let opened = Store::open(&**disk, dir, options.redb_cache_bytes).map_err(unusable)?;
    match opened {
        Some(opened) => Ok(opened),
        None if options.role != Role::Leader => Err(OpenError::NoRecords(dir.clone())),
        None => {
            require_whole_log(&**disk, log_dir)?;
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
            Ok((Store::create(&**disk, dir, options.redb_cache_bytes, state).map_err(unusable)?, state))
        }
    }
}

fn spawn(name: &str, dir: &Path, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(io_error(dir))
}
