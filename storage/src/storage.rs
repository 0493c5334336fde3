//! The handle a server holds: look up, read, transact, spend, limit, stop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crossbeam::channel::{Receiver, Sender, bounded};

use crate::error::{ReadError, Unavailable};
use crate::feed::Source;
use crate::hot::build::{Builder, unless_stale};
use crate::hot::counters::{KeyCounters, MINUTE_MS, Spend};
use crate::hot::index::Lookup;
use crate::hot::{Hot, OPERATOR};
use crate::ids::{KeyId, NamespaceId, WorkspaceNo};
use crate::measure::Distribution;
use crate::pepper::{Chain, Peppers};
use crate::position::{Position, Term};
use crate::queue::{Queue, Turn, Work};
use crate::records::key::{self, KeyDigest, KeyHash, KeyView};
use crate::records::ratelimit::{self, NamespaceView, OverrideView};
use crate::records::root_key::RootKeyView;
use crate::replication::acks::Acks;
use crate::replication::messages::Received;
use crate::replication::{NodeId, NotApplied, NotPromoted, Promotion, Role, Standing};
use crate::store::{Snapshot, Store};
use crate::tx::{Abort, Tx};
use crate::windows_thread;
use crate::writer::{Answer, Fate, Job, MAX_TOUCHES, MAX_WAITING_SPENDS, Ran, Status, StrictSpend, Waiting};
use crate::writer_thread::Command;

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
    /// Bytes appended to the log since the start.
    pub log_bytes_written: u64,
    /// Checkpoints made since the start.
    pub checkpoints: u64,
    /// How long syncs of the log took, ns.
    pub sync_times: Distribution,
    /// How long batches of the writer took, from their first transaction to their answers, ns.
    pub batch_times: Distribution,
    /// Records in each frame of the log: transactions, and one of what counters journal.
    pub batch_sizes: Distribution,
    /// How long checkpoints took, ns.
    pub checkpoint_times: Distribution,
    /// Keys in memory.
    pub hot_keys: usize,
    /// Bytes of the hot key index, roughly.
    pub hot_bytes: u64,
    /// Keys that left memory since the start to make room.
    pub hot_evictions: u64,
    /// Rate-limit subjects in memory.
    pub rate_subjects: usize,
    /// Rate-limit subjects there is room for.
    pub rate_subjects_max: usize,
    /// Transactions, and spends to be journaled before they are answered, that wait for the writer.
    pub waiting_work: usize,
    /// Transactions and spends that were refused since the start because too many were waiting.
    pub refused_work: u64,
    /// Keys whose spends wait for the journal.
    pub waiting_spends: usize,
    /// Records replayed at start.
    pub replayed: u64,
    /// Bytes of an unfinished frame cut off at start.
    pub torn_bytes: u64,
}

/// An open store.
pub struct Storage {
    pub(crate) hot: Arc<Hot>,
    pub(crate) store: Arc<Store>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) commands: Sender<Command>,
    /// The other end of `commands`, for what comes after the writer's end.
    pub(crate) left_over: Receiver<Command>,
    pub(crate) writer_ended: Arc<AtomicBool>,
    pub(crate) waiting: Arc<Waiting>,
    pub(crate) status: Arc<Status>,
    pub(crate) source: Source,
    pub(crate) standing: Arc<Standing>,
    pub(crate) acks: Arc<Acks>,
    pub(crate) node: NodeId,
    pub(crate) strict_credits: bool,
    pub(crate) cleared: bool,
    pub(crate) replayed: u64,
    pub(crate) torn_bytes: u64,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(crate) ask_windows: Sender<windows_thread::Ask>,
    pub(crate) stopped: AtomicBool,
}

impl Storage {
    /// What requests read without a lock.
    pub fn hot(&self) -> &Hot {
        &self.hot
    }

    /// A consistent view of the records.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.store.snapshot()
    }

    /// Where readers of the log come from. It keeps the records open, so whoever has one lets go of it before the store is
    /// opened again.
    pub fn source(&self) -> Source {
        self.source.clone()
    }

    /// The peppers of this process.
    pub fn peppers(&self) -> &Peppers {
        &self.hot.peppers
    }

    /// Whether the file of records was written anew when this was opened; see [`Options::clear_after_switch`](crate::Options).
    pub fn was_cleared(&self) -> bool {
        self.cleared
    }

    /// Looks a key up in memory: no lock, no file.
    pub fn key(&self, workspace: WorkspaceNo, digest: &KeyDigest) -> Lookup<KeyView> {
        self.look_up(digest, |hash| self.stored_key(workspace, hash))
    }

    /// Looks a key up in memory by the hash it is stored under, as its row has it.
    pub fn stored_key(&self, workspace: WorkspaceNo, hash: &KeyHash) -> Lookup<KeyView> {
        self.hot.keys.get_ahead_of(workspace.0, hash, |subject| self.hot.windows.fetch(subject))
    }

    /// Looks something up by its digest, which is its hash where there is no pepper.
    fn look_up<V>(&self, digest: &KeyDigest, get: impl Fn(&KeyHash) -> Lookup<V>) -> Lookup<V> {
        let peppers = &self.hot.peppers;
        if peppers.any() {
            let chain = peppers.chain();
            return look_up_all(&chain, digest, get, || peppers.is_now(&chain));
        }
        match get(&digest.0) {
            // A switch may have begun since, and taken it away.
            Lookup::Absent if peppers.any() => Lookup::Unknown,
            found => found,
        }
    }

    /// Reads something by its digest.
    fn read_by<V>(
        &self,
        digest: &KeyDigest,
        read: impl Fn(&KeyHash) -> Result<Option<V>, ReadError>,
    ) -> Result<Option<V>, ReadError> {
        loop {
            let chain = self.hot.peppers.chain();
            // The older stage first: what has left it by then is found at the newer one.
            for (_, hash) in chain.hashes(digest).iter() {
                if let Some(view) = read(hash)? {
                    return Ok(Some(view));
                }
            }
            if self.hot.peppers.is_now(&chain) {
                return Ok(None);
            }
        }
    }

    /// Looks a key up, from disk where it is not in memory. Blocks.
    pub fn read_key(&self, workspace: WorkspaceNo, digest: &KeyDigest) -> Result<Option<Arc<KeyView>>, ReadError> {
        self.read_by(digest, |hash| self.read_stored(workspace, hash))
    }

    fn read_stored(&self, workspace: WorkspaceNo, hash: &KeyHash) -> Result<Option<Arc<KeyView>>, ReadError> {
        self.hot.keys.get_or_read(workspace.0, hash, || {
            let snapshot = self.store.published_snapshot()?;
            let view = Builder { hot: &self.hot, snapshot: &snapshot }.key_by_hash(workspace, hash);
            Ok(unless_stale(view)?.map(|view| (view, snapshot.position())))
        })
    }

    /// Looks a key up by its id, from disk where it is not in memory. Blocks.
    ///
    /// For a key that was seen under another hash a moment ago: a migrated one gets its own when it is first presented, and any
    /// one gets another while a pepper is switched on.
    pub fn read_key_by_id(&self, workspace: WorkspaceNo, id: KeyId) -> Result<Option<Arc<KeyView>>, ReadError> {
        let mut seen = None;
        loop {
            // What is committed and not published yet would not be found by its hash.
            let row = key::get(&self.store.published_snapshot()?, workspace, id)?;
            let Some(row) = row.filter(|row| row.deleted_at.is_none() && seen != Some(row.hash)) else {
                return Ok(None);
            };
            if let Some(view) = self.read_stored(workspace, &row.hash)?.filter(|view| view.id == id) {
                return Ok(Some(view));
            }
            // Deleted or given another hash since.
            seen = Some(row.hash);
        }
    }

    /// The view of a key if it is in memory, by its hash as its row has it, without counting as a use: for looking through many
    /// keys. A switch of the pepper may have given it another one since the row was read.
    pub fn peek_key(&self, workspace: WorkspaceNo, hash: &KeyHash) -> Option<Arc<KeyView>> {
        let peek = |hash: &KeyHash| self.hot.keys.peek(workspace.0, hash);
        peek(hash).or_else(|| self.hot.peppers.chain().next(hash).and_then(|next| peek(&next)))
    }

    /// Whether no key has this digest, nor had since the start, as far as memory tells: then there is nothing to read.
    pub fn knows_absent(&self, workspace: WorkspaceNo, digest: &KeyDigest) -> bool {
        let absent = |hash: &KeyHash| match self.hot.keys.knows_absent(workspace.0, hash) {
            true => Lookup::<()>::Absent,
            false => Lookup::Unknown,
        };
        matches!(self.look_up(digest, absent), Lookup::Absent)
    }

    /// Looks a root key up in memory.
    pub fn root_key(&self, digest: &KeyDigest) -> Lookup<RootKeyView> {
        self.look_up(digest, |hash| self.hot.root_keys.get(OPERATOR, hash))
    }

    /// Looks a root key up, from disk where it is not in memory. Blocks.
    pub fn read_root_key(&self, digest: &KeyDigest) -> Result<Option<Arc<RootKeyView>>, ReadError> {
        self.read_by(digest, |hash| {
            self.hot.root_keys.get_or_read(OPERATOR, hash, || {
                let snapshot = self.store.published_snapshot()?;
                let view = Builder { hot: &self.hot, snapshot: &snapshot }.root_key_by_hash(hash);
                Ok(unless_stale(view)?.map(|view| (view, snapshot.position())))
            })
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
    /// Once it is begun it runs to its end, whether or not anyone still waits for the answer.
    pub fn transact<R, X>(
        &self,
        turn: Turn,
        now: u64,
        run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<X>> + Send + 'static,
        done: impl FnOnce(Result<Committed<R>, TransactError<X>>) + Send + 'static,
    ) where
        R: Send + 'static,
        X: Send + 'static,
    {
        let job = Job { run: Box::new(move |tx| run_job(tx, run, done)), now, until: turn.until };
        self.hand_in(turn, Work::Transact(job));
    }

    /// What this node does with changes.
    pub fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }

    /// Answers that wait for followers.
    pub fn acks(&self) -> &Acks {
        &self.acks
    }

    /// Names this node among those of its store.
    pub fn node_id(&self) -> NodeId {
        self.node
    }

    /// Hands frames of the leader to the writer, and returns at once; `done` is called, on the writer's thread, when they are
    /// durable and visible, or not applied. Waits while the writer has many commands.
    pub fn replicate(&self, frames: Vec<Received>, done: impl FnOnce(Result<Position, NotApplied>) + Send + 'static) {
        let _ = self.commands.send(Command::Replicate(frames, Box::new(done)));
        self.drop_after_end();
    }

    /// Makes this node the leader; `done` is called on the writer's thread, before it takes the first change.
    pub fn promote(&self, promotion: Promotion, done: impl FnOnce(Result<Term, NotPromoted>) + Send + 'static) {
        let _ = self.commands.send(Command::Promote(promotion, Box::new(done)));
        self.drop_after_end();
    }

    /// Takes credits of a key, all or none, and sees to it that the log learns of it.
    pub fn spend(&self, view: &Arc<KeyView>, cost: u64) -> Spent {
        if let Some(why) = self.standing.refuses().filter(|_| cost > 0) {
            return Spent::Unavailable(why);
        }
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

    /// Journals a spend; `done` is told how many are left once the log holds it. Where that fails, or is not begun before
    /// the store's clock passes `until` (unix ms), the spend is undone.
    pub fn journal_spend(
        &self,
        pending: PendingSpend,
        until: u64,
        done: impl FnOnce(Result<u64, Unavailable>) + Send + 'static,
    ) {
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
            until,
            answer,
        };
        self.hand_in(Turn::of_verification(pending.view.counters.workspace), Work::Spend(spend));
    }

    /// Queues work for the writer, or refuses it.
    fn hand_in(&self, turn: Turn, work: Work) {
        if let Some(why) = self.standing.refuses() {
            return work.refuse(&why);
        }
        if !self.acks.has_room() {
            return work.refuse(&Unavailable::Busy);
        }
        match self.queue.push(turn.lane, work) {
            // A full channel calls the writer as well.
            Ok(true) => drop(self.commands.try_send(Command::Work)),
            Ok(false) => {}
            Err((work, why)) => work.refuse(&why),
        }
    }

    /// A command that is given when the writer has ended would never be followed, and never dropped either. The writer
    /// says that it has ended and then empties the channel, so either that finds the command or this does.
    fn drop_after_end(&self) {
        if self.writer_ended.load(Ordering::SeqCst) {
            drop_all(&self.left_over);
        }
    }

    /// Notes that a key was verified at `now` (unix ms). On a follower that is the leader's to note.
    pub fn touch(&self, view: &KeyView, now: u64) {
        if self.standing.role() != Role::Leader {
            return;
        }
        let minute = u32::try_from(now / MINUTE_MS).unwrap_or(u32::MAX);
        if view.noted_minute.load(Ordering::Relaxed) >= minute {
            return;
        }
        view.noted_minute.fetch_max(minute, Ordering::Relaxed);
        if view.counters.touch(minute) && self.waiting.touched(Arc::clone(&view.counters)) {
            let _ = self.commands.try_send(Command::Wake);
        }
    }

    /// Takes over last uses (unix ms) that somebody else has kept: those that are newer than what is stored are written.
    /// Blocks.
    pub fn restore_uses(&self, uses: impl IntoIterator<Item = (WorkspaceNo, KeyId, u64)>) {
        let mut uses = uses.into_iter().peekable();
        while uses.peek().is_some() {
            // No more than may wait; the rest comes when these are written.
            for (workspace, key, time) in uses.by_ref().take(MAX_TOUCHES) {
                let counters = Arc::new(KeyCounters::new(workspace, key, None, 0));
                if counters.touch(u32::try_from(time / MINUTE_MS).unwrap_or(u32::MAX)) {
                    self.waiting.touched(counters);
                }
            }
            let (tell, told) = std::sync::mpsc::sync_channel(1);
            self.flush(move || {
                let _ = tell.send(());
            });
            let _ = told.recv();
        }
    }

    /// Notes last uses (unix ms) of keys that other nodes have verified; they are written as this one's own are. Of more than
    /// may wait the oldest are forgotten.
    pub fn note_uses(&self, uses: impl IntoIterator<Item = (WorkspaceNo, KeyId, u64)>) {
        for (workspace, key, time) in uses {
            let counters = Arc::new(KeyCounters::new(workspace, key, None, 0));
            if counters.touch(u32::try_from(time / MINUTE_MS).unwrap_or(u32::MAX)) && self.waiting.touched(counters) {
                let _ = self.commands.try_send(Command::Wake);
            }
        }
    }

    /// Writes everything that waits and makes a checkpoint; `done` is called after it.
    pub fn flush(&self, done: impl FnOnce() + Send + 'static) {
        let _ = self.commands.send(Command::Flush(Box::new(done)));
        self.drop_after_end();
    }

    /// Writes down at once what rate limits have counted. Blocks.
    pub fn write_windows(&self) {
        let (tell, told) = bounded(1);
        if self.ask_windows.send(windows_thread::Ask::Write(tell)).is_ok() {
            let _ = told.recv();
        }
    }

    /// Whether changes are refused for lack of room.
    pub fn is_read_only(&self) -> bool {
        self.status.read_only.load(Ordering::Acquire)
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
            log_bytes_written: self.status.log_bytes_written.load(Ordering::Relaxed),
            checkpoints: self.status.checkpoints.load(Ordering::Relaxed),
            sync_times: self.status.sync_times.read(),
            batch_times: self.status.batch_times.read(),
            batch_sizes: self.status.batch_sizes.read(),
            checkpoint_times: self.status.checkpoint_times.read(),
            hot_keys: self.hot.keys.len(),
            hot_bytes: self.hot.keys.bytes(),
            hot_evictions: self.hot.keys.evictions(),
            rate_subjects: self.hot.windows.len(),
            rate_subjects_max: self.hot.windows.capacity(),
            waiting_work: self.queue.len(),
            refused_work: self.queue.refused(),
            waiting_spends: self.waiting.spends(),
            replayed: self.replayed,
            torn_bytes: self.torn_bytes,
        }
    }

    /// Writes everything down, makes a checkpoint and ends the threads. Whatever is handed in afterwards is refused.
    pub fn stop(&self) {
        if self.stopped.swap(true, Ordering::AcqRel) {
            return;
        }
        let _ = self.commands.send(Command::Stop);
        self.drop_after_end();
        let _ = self.ask_windows.send(windows_thread::Ask::Stop);
        self.acks.stop();
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

/// Looks something up under all hashes it may have: at the older stage first, since nothing goes back there. What one of them
/// finds is it; it does not exist where no stage has it and the chain `is_now` what it was.
#[inline(never)]
fn look_up_all<V>(
    chain: &Chain,
    digest: &KeyDigest,
    get: impl Fn(&KeyHash) -> Lookup<V>,
    is_now: impl Fn() -> bool,
) -> Lookup<V> {
    let mut absent = true;
    for (_, hash) in chain.hashes(digest).iter() {
        match get(hash) {
            Lookup::Hot(view) => return Lookup::Hot(view),
            Lookup::Absent => {}
            Lookup::Unknown => absent = false,
        }
    }
    if absent && is_now() { Lookup::Absent } else { Lookup::Unknown }
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

/// Drops every command to a writer that has ended.
pub(crate) fn drop_all(commands: &Receiver<Command>) {
    commands.try_iter().for_each(Command::refuse);
}
