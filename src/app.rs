//! Puts the parts together, in order, and takes them apart in reverse: the only file that knows them all.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use keyward_query::events::{LastUse, Options as EventOptions};
use keyward_query::search::Options as SearchOptions;
use keyward_query::{Events, Query, Search};
use keyward_storage::disk::{self, Disk, RealDisk};
use keyward_storage::hot::window::cells_are_lock_free;
use keyward_storage::ids::{KeyId, WorkspaceId, WorkspaceNo};
use keyward_storage::records::audit::Actor;
use keyward_storage::records::{self, workspace};
use keyward_storage::replication::Standing;
use keyward_storage::replication::install::has_records;
use keyward_storage::{
    Abort, Committed, OpenError, Options, ReadError, Snapshot, Storage, Term, TransactError, Turn, Tx, Unavailable,
    may_lie_in_an_empty_dir,
};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::audit;
use crate::audit::export::Export;
use crate::config::{CreditsJournal, CreditsOffline, Replication, Settings};
use crate::guesses::Guesses;
use crate::http::admin::Operator;
use crate::metrics::Metrics;
use crate::otlp::trace::{self, Work};
use crate::outside::Outside;
use crate::pepper::switch::NotSwitched;
use crate::pepper::{self, Configured};
use crate::replication;
use crate::replication::node::{Node, Role};
use crate::replication::replies::Replies;
use crate::replication::role::{self, Begin, Kept};
use crate::tenants::{self, By, NewRootKey};
use crate::vault::{SourceError, Vault};

/// Rights to a data directory that nobody but its owner should have.
pub const RIGHTS_OF_OTHERS: u32 = 0o077;
/// Of these, the ones by which what is in it can be changed.
pub const WRITE_OF_OTHERS: u32 = 0o022;
/// The file in the data directory that holds the first root key.
pub const ROOT_KEY_FILE: &str = "root.key";
/// Fewest characters of a root key the operator chooses (EXT-1).
pub const CHOSEN_ROOT_KEY_CHARS_MIN: usize = 20;
/// The directory of the search index, below the data directory.
pub const SEARCH_DIR: &str = "search";
/// The directory of events, below the data directory.
pub const EVENTS_DIR: &str = "events";
/// What a second of peak load is where the queue of events is sized.
const PEAK_EVENTS_PER_SECOND: usize = 65_536;
/// Before a step that found no place with the writer is tried again, and how often it is.
const STEP_PAUSE: Duration = Duration::from_millis(20);
const STEP_TRIES: u32 = 500;
/// Name of the workspace made at the first start.
const FIRST_WORKSPACE: &str = "default";

/// What the operations work on.
pub struct Services {
    /// Records and counters.
    pub storage: Storage,
    /// Clock and randomness.
    pub outside: Outside,
    /// Plaintexts of recoverable keys.
    pub vault: Arc<Vault>,
    /// Where peppers come from.
    pub peppers: Configured,
    /// Label of this server in events.
    pub region: String,
    /// Recorded verifications and rate-limit decisions. `None` only for commands that open the records alone.
    pub events: Option<Arc<Events>>,
    /// Answers SELECTs over them. `None` where that is switched off.
    pub query: Option<Query>,
    /// Attempts with unknown root keys.
    pub guesses: Guesses,
    /// Live exports of the audit trail.
    pub exports: Vec<Arc<Export>>,
    /// Finds keys and audit events. `None` only for commands that open the records alone.
    pub search: Option<Arc<Search>>,
    /// What requests did, and what the HTTP layer holds.
    pub metrics: Metrics,
    /// Where all data lives.
    pub data_dir: PathBuf,
    /// What this node is among those with the same records.
    pub node: Arc<Node>,
    /// What other nodes were answered a moment ago.
    pub replies: Replies,
    /// What becomes of keys with credits while the leader is away.
    pub credits_offline: CreditsOffline,
}

/// Why the services could not be opened. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ServicesError {
    /// The store.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The processor lacks what keyward's counters need.
    #[error(
        "this processor has no lock-free 128-bit compare-and-swap (cmpxchg16b on x86-64), which keyward's counters need"
    )]
    Processor,
    /// A secret of the operator's.
    #[error(transparent)]
    Secret(#[from] SourceError),
    /// The pepper of an empty store.
    #[error("the pepper could not be put to use")]
    Pepper(#[from] NotSwitched),
    /// The events.
    #[error(transparent)]
    Events(#[from] keyward_query::events::OpenError),
    /// The events of a follower, which are its leader's.
    #[error("cannot note that events are kept for the leader")]
    EventsOfFollower(#[source] io::Error),
    /// The threads of queries.
    #[error("cannot start the threads that compute queries")]
    QueryThreads(#[source] io::Error),
    /// The thread of the search index.
    #[error("cannot start the thread that keeps the search index")]
    SearchThread(#[source] io::Error),
    /// The first root key could not be written down.
    #[error("cannot write the first root key to {path}")]
    RootKeyFile {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The link to the leader cannot be set up.
    #[error("{0}")]
    Replication(String),
    /// What this node was is not known.
    #[error(
        "cannot use the file that says which role this node has ({path}); if it is lost, remove it on the leader alone"
    )]
    Role {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The first workspace could not be made.
    #[error("cannot make the first workspace: {0}")]
    FirstWorkspace(String),
    /// The disk has no room for the first workspace.
    #[error(
        "cannot make the first workspace: the disk is full: {free_bytes} bytes are free and storage.min_free_bytes asks for \
         {min_free_bytes}; free some space, name a data directory on a larger disk, or lower storage.min_free_bytes"
    )]
    FirstWorkspaceNoSpace {
        /// On the disk of the data directory.
        free_bytes: u64,
        /// As the settings say.
        min_free_bytes: u64,
    },
}

#[cfg(test)]
impl Services {
    /// The records alone, for tests beside the code: no events, no index, nobody slowed.
    pub fn of_records(storage: Storage, outside: Outside, vault: Arc<Vault>) -> Services {
        Services {
            metrics: Metrics::new(outside.clock.now_ms()),
            data_dir: PathBuf::from("/data"),
            node: Arc::new(Node::leader()),
            replies: Replies::default(),
            credits_offline: CreditsOffline::Refuse,
            storage,
            outside,
            vault,
            peppers: Configured::default(),
            region: "test".to_owned(),
            events: None,
            query: None,
            guesses: Guesses::new(std::time::Duration::ZERO),
            exports: Vec::new(),
            search: None,
        }
    }
}

impl Services {
    /// Opens the store as the settings say and, in an empty one, makes the first workspace with its root key (EXT-1).
    pub fn open(settings: &Settings, outside: Outside) -> Result<Arc<Services>, ServicesError> {
        if !cells_are_lock_free() {
            return Err(ServicesError::Processor);
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let vault = Arc::new(Vault::open(&settings.secrets, &settings.data_dir)?);
        let peppers = Configured::open(&settings.secrets, &settings.data_dir)?;
        let (begin, kept) = begin_as(settings, &*disk)?;
        let link = replication::new_link(settings).map_err(ServicesError::Replication)?;
        let Replication { node: name, silence, log_bytes, listen, .. } = &settings.replication;
        let standing = Arc::new(Standing::new(begin.role()));
        let node = Arc::new(Node::new(Arc::clone(&standing), name, link, *silence));
        let told = Arc::clone(&node);
        let storage = Storage::open(Options {
            clear_after_switch: true,
            acks_wanted: settings.replication.acks_wanted(),
            ack_timeout: settings.replication.ack_timeout,
            keep_log_bytes: if listen.is_some() { *log_bytes } else { 0 },
            standing,
            on_commit: Some(Arc::new(move |position, term| told.committed(position, term))),
            ..storage_options(settings, Arc::clone(&disk), &outside, &peppers)
        })?;
        if let Some(kept) = kept {
            storage.standing().see(kept.term);
        }
        node.committed(storage.source().position(), storage.source().history().map_err(OpenError::from)?.term());
        note_beginning(begin, settings, &*disk, (&node, storage.standing().seen()))?;
        warn_of_open_dir(&settings.data_dir);
        let keeping = Keeping::default();
        let events = Arc::new(Events::open(events_options(settings, Arc::clone(&disk), &outside, &keeping))?);
        if !node.is_leader() {
            // Before the first request: its event is the leader's already.
            let mut random = [0; 4];
            outside.entropy.fill(&mut random);
            events.relay(u32::from_le_bytes(random)).map_err(ServicesError::EventsOfFollower)?;
        }
        let query = settings.analytics.enabled.then(|| start_queries(settings, &events)).transpose()?;
        let search = Some(Arc::new(start_search(settings, Arc::clone(&disk), &storage)?));
        let services = Arc::new(Services {
            metrics: Metrics::new(outside.clock.now_ms()),
            data_dir: settings.data_dir.clone(),
            node,
            replies: Replies::default(),
            credits_offline: settings.replication.credits_offline,
            storage,
            outside,
            vault,
            peppers,
            region: settings.region.clone(),
            events: Some(events),
            query,
            search,
            guesses: Guesses::new(settings.auth.guess_delay_max),
            exports: audit::export::exports(&settings.audit),
        });
        let _ = keeping.0.set(Arc::downgrade(&services));
        let leads = services.node.is_leader();
        if leads {
            services.restore_uses()?;
        }
        let snapshot = services.storage.snapshot().map_err(OpenError::from)?;
        services.vault.remark(&snapshot).map_err(OpenError::from)?;
        // What a follower has is its leader's to make.
        let is_empty = leads && snapshot.count(records::WORKSPACE).map_err(OpenError::from)? == 0;
        if is_empty && !services.peppers.peppers.is_empty() {
            // Whoever configures a pepper before the first start wants no hash without it, that of the first root key included.
            let by = By::new(server_actor(), services.outside.clock.now_ms(), &services.outside.entropy);
            pepper::switch::switch(&services, &by, &mut |_| Ok(()))?;
            pepper::switch::note_cleared(&services)?;
        } else {
            pepper::remark(services.storage.peppers(), &snapshot).map_err(OpenError::from)?;
        }
        drop(snapshot);
        if leads && services.storage.was_cleared() {
            pepper::switch::note_cleared(&services)?;
        }
        if is_empty {
            services.make_first_workspace(settings, &*disk)?;
        } else if let Some(chosen) = &settings.first_root_key {
            let digest = crate::secret::digest(chosen.expose());
            if services.storage.read_root_key(&digest).map_err(OpenError::from)?.is_none() {
                tracing::warn!(
                    "KEYWARD_ROOT_KEY is set and is no root key of this data directory: it is used at the first start \
                     only; make another root key with `keyward root-key create`"
                );
            }
        }
        Ok(services)
    }

    /// Hands the last uses of keys that the events' journal holds to the records, which write theirs down only now and then
    /// (KEYS-ANALYTICS-5).
    fn restore_uses(&self) -> Result<(), OpenError> {
        let uses = self.events.as_ref().map(|events| events.take_last_uses()).unwrap_or_default();
        self.storage.restore_uses(self.known_uses(uses)?);
        Ok(())
    }

    /// The last uses of keys whose workspaces there are, by the workspaces' numbers.
    pub fn known_uses(&self, uses: Vec<LastUse>) -> Result<Vec<(WorkspaceNo, KeyId, u64)>, ReadError> {
        let snapshot = self.storage.snapshot()?;
        let mut numbers: HashMap<WorkspaceId, Option<WorkspaceNo>> = HashMap::new();
        let mut known = Vec::with_capacity(uses.len());
        for last in uses {
            let no = match numbers.get(&last.workspace) {
                Some(no) => *no,
                None => {
                    let no = workspace::find(&snapshot, last.workspace)?;
                    numbers.insert(last.workspace, no);
                    no
                }
            };
            known.extend(no.map(|no| (no, last.key, last.time)));
        }
        Ok(known)
    }

    /// Writes everything down and closes the stores: first what is derived, then the records it refers to.
    pub fn shutdown(&self) {
        if let Some(search) = &self.search {
            search.stop();
        }
        if let Some(events) = &self.events {
            events.stop();
        }
        self.storage.stop();
    }

    /// Runs a transaction and waits for its fate. Once begun it runs to its end even if nobody waits.
    pub async fn transact<R, X>(
        &self,
        turn: Turn,
        now: u64,
        run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<X>> + Send + 'static,
    ) -> Result<Committed<R>, TransactError<X>>
    where
        R: Send + 'static,
        X: Send + 'static,
    {
        let _step = trace::step(Work::WriteRecords);
        let (tell, told) = oneshot::channel();
        self.storage.transact(turn, now, run, move |fate| {
            // Nobody waits any more: only the reply is lost.
            let _ = tell.send(fate);
        });
        // The answer is dropped unsent only when the writer has ended.
        self.noting_damage(told.await.unwrap_or(Err(TransactError::Unavailable(Unavailable::Stopped))))
    }

    /// Waits until the writer has answered a question that changes nothing.
    pub async fn writer_answers(&self) {
        let busy = |fate: &Result<Committed<()>, TransactError<()>>| {
            matches!(fate, Err(TransactError::Unavailable(Unavailable::Busy)))
        };
        // A queue that is full says nothing about who empties it.
        while busy(&self.transact(Turn::FIRST, self.outside.clock.now_ms(), |_| Err(Abort::Refused(()))).await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// As [`Services::transact`], for a thread that may block.
    pub fn transact_blocking<R, X>(
        &self,
        turn: Turn,
        now: u64,
        run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<X>> + Send + 'static,
    ) -> Result<Committed<R>, TransactError<X>>
    where
        R: Send + 'static,
        X: Send + 'static,
    {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.storage.transact(turn, now, run, move |fate| {
            let _ = tell.send(fate);
        });
        self.noting_damage(told.recv().unwrap_or(Err(TransactError::Unavailable(Unavailable::Stopped))))
    }

    fn noting_damage<R, X>(&self, fate: Result<R, TransactError<X>>) -> Result<R, TransactError<X>> {
        if let Err(TransactError::Read(error)) = &fate {
            self.note_damage(error);
        }
        fate
    }

    /// Counts a read that met damage, so that health tells of it.
    pub fn note_damage(&self, error: &ReadError) {
        if error.is_damage() {
            self.metrics.damaged_reads.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As [`Services::transact_blocking`], for a step of long work: where the writer has no place it is asked again, for ten
    /// seconds at least. `now` is asked at each try.
    ///
    /// # Errors
    /// The store takes no changes, or the records cannot be read. Nothing of the step is done then.
    pub fn transact_patiently<R: Send + 'static>(
        &self,
        turn: Turn,
        now: impl Fn() -> u64,
        run: impl Fn(&mut Tx<'_>) -> Result<R, ReadError> + Clone + Send + 'static,
    ) -> Result<R, TransactError<Infallible>> {
        for _ in 0..STEP_TRIES {
            let run = run.clone();
            match self.transact_blocking(turn, now(), move |tx| run(tx).map_err(Abort::Read)) {
                Err(TransactError::Unavailable(Unavailable::Busy)) => std::thread::sleep(STEP_PAUSE),
                outcome => return outcome.map(|committed| committed.value),
            }
        }
        Err(TransactError::Unavailable(Unavailable::Busy))
    }

    /// Reads from disk on a thread that may block.
    pub async fn read<R, E>(
        self: &Arc<Self>,
        read: impl FnOnce(&Storage) -> Result<R, E> + Send + 'static,
    ) -> Result<R, ReadFailed>
    where
        R: Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let _step = trace::step(Work::ReadRecords);
        let services = Arc::clone(self);
        match tokio::task::spawn_blocking(move || read(&services.storage)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                let failed = ReadFailed(Box::new(error));
                if let Some(error) = failed.of_records() {
                    self.note_damage(error);
                }
                Err(failed)
            }
            Err(error) => Err(ReadFailed(Box::new(error))),
        }
    }

    /// A consistent view of the records.
    pub fn snapshot(&self) -> Result<Snapshot, ReadFailed> {
        self.storage.snapshot().map_err(|error| ReadFailed(Box::new(error)))
    }

    fn make_first_workspace(&self, settings: &Settings, disk: &dyn Disk) -> Result<(), ServicesError> {
        let entropy = &self.outside.entropy;
        let id = WorkspaceId(tenants::draw_id(entropy));
        let permissions = vec![tenants::administrator(id)];
        let name = Some("first root key".to_owned());
        let key = match &settings.first_root_key {
            Some(chosen) => NewRootKey::chosen(chosen.expose(), name, permissions, entropy),
            None => NewRootKey::generate(name, permissions, None, entropy),
        };
        // The file comes first: a key whose file was lost would lock the operator out, while a file whose key never came
        // to be is overwritten at the next start.
        let path = settings.data_dir.join(ROOT_KEY_FILE);
        write_durably(disk, &path, Zeroizing::new(format!("{}\n", *key.minted.plaintext)).as_bytes())
            .map_err(|source| ServicesError::RootKeyFile { path: path.clone(), source })?;
        let by = By::new(server_actor(), self.outside.clock.now_ms(), entropy).correlated();
        self.transact_blocking(Turn::FIRST, by.now, move |tx| -> Result<WorkspaceNo, Abort<Infallible>> {
            let no = tenants::create_workspace(tx, id, FIRST_WORKSPACE, Some(FIRST_WORKSPACE.to_owned()), &by)?;
            tenants::create_root_key(tx, no, key, &by)?;
            Ok(no)
        })
        .map(drop)
        // It is made, and its followers are still to come.
        .or_else(|error| match error {
            TransactError::Unavailable(Unavailable::Unconfirmed) => Ok(()),
            error => Err(error),
        })
        .map_err(|error| match error {
            TransactError::Unavailable(Unavailable::NoSpace) => ServicesError::FirstWorkspaceNoSpace {
                free_bytes: self.storage.stats().free_bytes,
                min_free_bytes: settings.storage.min_free_bytes,
            },
            error => ServicesError::FirstWorkspace(error.to_string()),
        })?;
        tracing::info!(
            workspace = %id,
            path = %path.display(),
            "first start: made a workspace; its root key is in the file named here"
        );
        Ok(())
    }
}

/// Who does what the server does by itself.
fn server_actor() -> Actor {
    tenants::system_actor("keyward", "keyward serve")
}

/// How long a workspace's events are kept, as its row says when it is asked: the store of events is opened before there are
/// services to ask.
#[derive(Default, Clone)]
struct Keeping(Arc<OnceLock<Weak<Services>>>);

impl Keeping {
    /// Days; 0 = for ever, also while the row cannot be read: what is deleted by mistake does not come back. `None` where
    /// there is no such workspace.
    fn days(&self, workspace: WorkspaceId) -> Option<u32> {
        const FOR_EVER: u32 = 0;
        let Some(services) = self.0.get().and_then(Weak::upgrade) else { return Some(FOR_EVER) };
        let row = || -> Result<Option<workspace::WorkspaceRow>, keyward_storage::ReadError> {
            let snapshot = services.storage.snapshot()?;
            let Some(no) = workspace::find(&snapshot, workspace)? else { return Ok(None) };
            workspace::get(&snapshot, no)
        };
        row().map_or(Some(FOR_EVER), |row| row.map(|row| row.limits.logs_retention_days))
    }
}

/// The store of events as the settings say.
fn events_options(settings: &Settings, disk: Arc<dyn Disk>, outside: &Outside, keeping: &Keeping) -> EventOptions {
    let clock = outside.clock.clone();
    let keeping = keeping.clone();
    EventOptions {
        dir: settings.data_dir.join(EVENTS_DIR),
        disk,
        region: settings.region.clone(),
        clock: Arc::new(move || clock.now_ms()),
        queue_events: settings.analytics.queue_seconds.saturating_mul(PEAK_EVENTS_PER_SECOND),
        min_free_bytes: settings.storage.min_free_bytes,
        // Nothing is deleted by the wall clock where tests move it (EXT-4).
        retention: (!settings.test_mode).then(|| Arc::new(move |workspace| keeping.days(workspace)) as _),
    }
}

/// Opens the store of events for a command, while no server runs and the directory is locked. It deletes nothing, however
/// old: that is the server's.
pub fn open_events(settings: &Settings, outside: &Outside) -> Result<Events, keyward_query::events::OpenError> {
    let options = events_options(settings, Arc::new(RealDisk), outside, &Keeping::default());
    Events::open(EventOptions { retention: None, ..options })
}

/// The threads of queries as the settings say.
fn start_queries(settings: &Settings, events: &Arc<Events>) -> Result<Query, ServicesError> {
    let analytics = &settings.analytics;
    let threads = match analytics.query_threads {
        0 => std::thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1)),
        threads => threads,
    };
    let options = keyward_query::Options {
        threads,
        concurrent: analytics.concurrent_queries,
        waiting: analytics.waiting_queries,
        memory_bytes: analytics.memory_bytes,
    };
    Query::start(Arc::clone(events), &options).map_err(ServicesError::QueryThreads)
}

/// The search index of the records.
fn start_search(settings: &Settings, disk: Arc<dyn Disk>, storage: &Storage) -> Result<Search, ServicesError> {
    let options = SearchOptions {
        dir: settings.data_dir.join(SEARCH_DIR),
        disk,
        source: storage.source(),
        min_free_bytes: settings.storage.min_free_bytes,
    };
    Search::start(options).map_err(ServicesError::SearchThread)
}

/// Closes a directory to others in which a store is to be made: whoever made it did not say that others may look into a store. One that
/// has a store already was opened on purpose, perhaps, and is left as it is.
pub fn close_new_dir(dir: &Path) {
    let Ok(found) = std::fs::metadata(dir) else { return };
    let mode = found.permissions().mode() & 0o7777;
    // Neither a store nor anything of somebody's is in it.
    let is_nothing = |entry: std::fs::DirEntry| entry.file_name().to_str().is_some_and(may_lie_in_an_empty_dir);
    let is_new = std::fs::read_dir(dir).is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(is_nothing)));
    if mode & RIGHTS_OF_OTHERS == 0 || !is_new || found.uid() != Operator::current().uid {
        return;
    }
    let closed = std::fs::Permissions::from_mode(mode & !RIGHTS_OF_OTHERS);
    // Where it cannot be done it is told with every start.
    if std::fs::set_permissions(dir, closed).is_ok() {
        tracing::info!(
            path = %dir.display(),
            mode = format_args!("{mode:04o}"),
            "the data directory was open to other users; it is for its owner alone now"
        );
    }
}

/// Says in the log where others than its owner may use the data directory. It is not refused: a directory may be opened on
/// purpose, to a backup's user for instance.
fn warn_of_open_dir(dir: &Path) {
    let Ok(found) = std::fs::metadata(dir) else { return };
    let mode = found.permissions().mode() & 0o7777;
    if mode & RIGHTS_OF_OTHERS != 0 {
        let may = if mode & WRITE_OF_OTHERS != 0 { "change and replace" } else { "list, and may read," };
        tracing::warn!(
            path = %dir.display(),
            mode = format_args!("{mode:04o}"),
            "other users of this machine may {may} what is in the data directory; chmod 700 {}",
            dir.display()
        );
    }
}

/// Ends the process: going on would answer from a state that the disk does not hold. Starting again recovers it.
#[expect(clippy::disallowed_methods, reason = "nothing may run after a failed sync, destructors least of all")]
fn end_at_once(error: &keyward_storage::Fatal) {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "storage cannot go on; the process ends so that the next start recovers from what is on the disk"
    );
    std::process::exit(1);
}

/// Which role this node begins in, and what it was.
fn begin_as(settings: &Settings, disk: &dyn Disk) -> Result<(Begin, Option<Kept>), ServicesError> {
    let kept = role::read(disk, &settings.data_dir)
        .map_err(|source| ServicesError::Role { path: settings.data_dir.clone(), source })?;
    let follow = settings.replication.follow.as_ref().map(ToString::to_string);
    let begin = Begin::decide(kept.as_ref(), follow.as_deref());
    // Whoever makes the first records holds the lease already.
    let first = || has_records(disk, &settings.data_dir).is_ok_and(|there| !there);
    let begin = if settings.replication.lease.is_on() && !first() { begin.under_a_lease() } else { begin };
    Ok((begin, kept))
}

/// Tells the operator what this node begins as, and remembers where it follows: from here on it may have changes that are not its
/// own.
fn note_beginning(
    begin: Begin,
    settings: &Settings,
    disk: &dyn Disk,
    (node, heard): (&Node, Term),
) -> Result<(), ServicesError> {
    let leader = settings.replication.follow.as_ref().map(ToString::to_string);
    match begin {
        Begin::Leader => return Ok(()),
        Begin::LeaderByItself => {}
        // Whether it led last is what its file still says.
        Begin::Candidate => {
            tracing::info!(leader, position = node.position().0, "this node leads when it gets the lease");
            return Ok(());
        }
        Begin::LeaderInstead => {
            tracing::warn!(
                leader,
                term = node.term().0,
                "this node was promoted in place of the leader that replication.follow still names: it leads; take that setting out"
            );
            return Ok(());
        }
        Begin::Follower => tracing::info!(leader, position = node.position().0, "this node follows"),
        Begin::FollowerOfNobody => tracing::error!(
            "this node was a follower, and replication.follow names no leader any more: it takes no changes; name the leader, or make it \
             one with `keyward promote`"
        ),
        Begin::Fenced => tracing::error!(
            "another node was promoted: this one takes no changes; set replication.follow to the new leader and restart, and it follows"
        ),
    }
    let kept = Kept { role: begin.role(), term: heard.max(node.term()), instead_of: None };
    role::write(disk, &settings.data_dir, &kept)
        .map_err(|source| ServicesError::Role { path: settings.data_dir.clone(), source })
}

/// Opens the store as the settings say; also used by commands while no server runs.
pub fn open_storage(
    settings: &Settings,
    disk: Arc<dyn Disk>,
    outside: &Outside,
    peppers: &Configured,
) -> Result<Storage, OpenError> {
    Storage::open(storage_options(settings, disk, outside, peppers))
}

fn storage_options(settings: &Settings, disk: Arc<dyn Disk>, outside: &Outside, peppers: &Configured) -> Options {
    let mut fresh = [0; 32];
    outside.entropy.fill(&mut fresh);
    let clock = outside.clock.clone();
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut options =
        Options::new(&settings.data_dir, disk, Arc::new(move || clock.now_ms()), fresh, Arc::new(end_at_once));
    let storage = &settings.storage;
    options.hot_keys_max = size(storage.hot_keys_max);
    options.rate_subjects_max = size(storage.rate_subjects_max);
    options.redb_cache_bytes = size(storage.redb_cache_bytes);
    options.checkpoint_bytes = storage.checkpoint_bytes;
    options.checkpoint_interval = storage.checkpoint_interval;
    options.strict_credits = storage.credits_journal == CreditsJournal::Strict;
    options.credits_journal_interval = storage.credits_journal_interval;
    options.min_free_bytes = storage.min_free_bytes;
    options.any_order_of_times = settings.test_mode;
    options.peppers.clone_from(&peppers.peppers);
    // A command that changes a follower's records would make a history of its own of them. What cannot be read is told where the
    // server is started.
    let role = begin_as(settings, &*options.disk).map_or(Role::Follower, |(begin, _)| begin.role());
    options.standing = Arc::new(Standing::new(role));
    // Also while no server runs: a command that makes a checkpoint must not take the log away that the index goes on from.
    options.expected_reader = Search::position(&options.disk, &settings.data_dir.join(SEARCH_DIR));
    options
}

fn write_durably(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    disk::replace(disk, &path.with_extension("key.new"), path, |file| {
        file.write_all_at(0, bytes)?;
        file.sync_data()
    })
}

/// The records could not be read; the cause is for the log.
#[derive(Debug, thiserror::Error)]
#[error("the records could not be read")]
pub struct ReadFailed(#[source] pub Box<dyn std::error::Error + Send + Sync>);

impl ReadFailed {
    fn of_records(&self) -> Option<&ReadError> {
        self.0.downcast_ref()
    }

    /// Whether what was read is damaged.
    pub fn is_damage(&self) -> bool {
        self.of_records().is_some_and(ReadError::is_damage)
    }
}

/// Finds a workspace by the id an operator typed.
pub fn find_workspace(
    read: &impl keyward_storage::Read,
    text: &str,
) -> Result<Option<(WorkspaceNo, workspace::WorkspaceRow)>, keyward_storage::ReadError> {
    let no = match WorkspaceId::parse(text) {
        Some(id) => workspace::find(read, id)?,
        None => workspace::find_slug(read, text)?,
    };
    match no {
        Some(no) => Ok(workspace::get(read, no)?.filter(|row| row.deleted_at.is_none()).map(|row| (no, row))),
        None => Ok(None),
    }
}
