//! What the tests of the whole crate share: a store on a disk in memory, transactions that are waited for, and a plain
//! model of what it should hold.
#![allow(dead_code, reason = "each test binary uses its part")]

pub mod model;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keyward_storage::disk::MemoryDisk;
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::ids::IdText;
use keyward_storage::{Abort, Committed, OpenError, Options, Storage, TransactError, Turn, Tx};

/// Where the store is on its disk.
pub const DIR: &str = "/data";

/// Longest a test waits for an answer that has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer of the writer.
pub type Answer<R> = Result<Committed<R>, TransactError<&'static str>>;

/// Options for a small, restless store: a hot index of a few keys, short segments, no checkpoint but on request.
pub fn options(disk: &MemoryDisk) -> Options {
    let fatal = Arc::new(|error: &keyward_storage::Fatal| panic!("the store gave up: {error:?}"));
    Options {
        hot_keys_max: 8,
        rate_subjects_max: 64,
        redb_cache_bytes: 1 << 20,
        segment_bytes: 4096,
        checkpoint_interval: Duration::from_secs(3600),
        credits_journal_interval: Duration::from_millis(1),
        min_free_bytes: 0,
        ..Options::new(DIR, Arc::new(disk.clone()), Arc::new(|| 1_000_000), [7; 32], fatal)
    }
}

/// Notes that the store gave up, instead of panicking.
pub fn noting_fatal(options: Options) -> (Options, Arc<Mutex<Vec<String>>>) {
    let fatal = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&fatal);
    let on_fatal = Arc::new(move |error: &keyward_storage::Fatal| {
        noted.lock().expect("no panic").push(format!("{error:?}"));
    });
    (Options { on_fatal, ..options }, fatal)
}

/// Opens a store that has to open.
pub fn open(options: Options) -> Storage {
    Storage::open(options).unwrap_or_else(|error| panic!("the store does not open: {}", chain(&error)))
}

/// An error with its causes, as an operator sees it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// Why a store did not open, in full.
pub fn refusal(opened: Result<Storage, OpenError>) -> String {
    chain(&opened.err().expect("it must not open"))
}

/// Hands a transaction in; its answer comes through the channel.
pub fn submit<R: Send + 'static>(
    storage: &Storage,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<&'static str>> + Send + 'static,
) -> Receiver<Answer<R>> {
    submit_in_turn(storage, Turn::FIRST, run)
}

/// The same, taking this turn.
pub fn submit_in_turn<R: Send + 'static>(
    storage: &Storage,
    turn: Turn,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<&'static str>> + Send + 'static,
) -> Receiver<Answer<R>> {
    let (tell, told) = channel();
    storage.transact(
        turn,
        1,
        run,
        // Nobody listens any more: the test gave up on this store.
        move |answer| {
            let _ = tell.send(answer);
        },
    );
    told
}

/// Waits for an answer that has to come.
pub fn wait<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(PATIENCE).expect("an answer")
}

/// Runs a transaction that has to be applied.
pub fn transact<R: Send + 'static>(
    storage: &Storage,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<&'static str>> + Send + 'static,
) -> Committed<R> {
    wait(&submit(storage, run)).unwrap_or_else(|error| panic!("not applied: {error:?}"))
}

/// Keeps the writer busy until it is dropped: all that is handed in meanwhile becomes one batch.
pub struct Plug(Option<Sender<()>>);

impl Plug {
    /// Takes hold of the writer.
    pub fn new(storage: &Storage) -> Plug {
        let (release, released) = channel::<()>();
        let (running, runs) = channel();
        storage.transact(
            Turn::FIRST,
            1,
            move |_| -> Result<(), Abort<()>> {
                running.send(()).expect("the test waits");
                // Ends when the plug is dropped.
                let _ = released.recv();
                Ok(())
            },
            |_| {},
        );
        wait(&runs);
        Plug(Some(release))
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// Writes everything that waits and makes a checkpoint.
pub fn flush(storage: &Storage) {
    let (tell, told) = channel();
    storage.flush(move || tell.send(()).expect("the test waits"));
    wait(&told);
}

/// A fresh random id.
pub fn id(dice: &mut SplitMix) -> IdText {
    IdText::draw(|| dice.draw() as u8)
}

/// A random hash.
pub fn hash(dice: &mut SplitMix) -> [u8; 32] {
    let mut hash = [0; 32];
    for part in hash.chunks_exact_mut(8) {
        part.copy_from_slice(&dice.draw().to_le_bytes());
    }
    hash
}

/// A path below the data directory.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// A clock that a test moves.
pub fn clock(now: &Arc<AtomicU64>) -> Arc<dyn Fn() -> u64 + Send + Sync> {
    let now = Arc::clone(now);
    Arc::new(move || now.load(Ordering::SeqCst))
}
