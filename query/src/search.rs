//! Full-text search over keys and audit events (EXT-15, EXT-16).
//!
//! The index is derived: a thread follows the log and keeps it (`follow`), a search takes candidates from its last commit
//! (`view`) and judges them by the records (`find`). It can be deleted at any time, and is made anew.
//!
//! `words` says what it means that something is found; `schema` what the index is made of; `directory` where its files
//! are.

mod directory;
mod find;
mod follow;
mod schema;
mod shared;
mod superseded;
mod texts;
mod view;
mod words;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use keyward_storage::disk::Disk;
use keyward_storage::ids::{KeyId, WorkspaceNo};
use keyward_storage::position::Position;
use keyward_storage::{Snapshot, Source};

pub use find::{Events, Found, Keys, Numbered, SearchError};
pub use shared::{Freshness, PROMISE};
pub use words::Words;

use follow::Follower;
use shared::{Shared, Standing};

/// How the index is kept.
pub struct Options {
    /// Its directory, made where absent; nothing else is in it.
    pub dir: PathBuf,
    /// Where that directory is.
    pub disk: Arc<dyn Disk>,
    /// The records, and the log of what changes them.
    pub source: Source,
    /// Below so many free bytes nothing is written.
    pub min_free_bytes: u64,
}

/// Numbers for metrics and health.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Rows in the index, those included that are out of date for a while.
    pub rows: u64,
    /// Segments it consists of.
    pub segments: u64,
    /// Log position up to which it has everything.
    pub position: u64,
    /// Commits since the start.
    pub commits: u64,
    /// How much of the records it has.
    pub freshness: Freshness,
    /// Whether it cannot be kept at the moment.
    pub failing: bool,
}

/// The search index, kept by a thread of its own.
pub struct Search {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").finish_non_exhaustive()
    }
}

impl Search {
    /// Starts the thread. The index is opened, or made, behind the caller's back: nothing about it can fail the start.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(options: Options) -> io::Result<Search> {
        let Options { dir, disk, source, min_free_bytes } = options;
        let shared = Arc::new(Shared::new(source.clone()));
        let follower = Follower { dir, disk, source, min_free_bytes, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name("search".to_owned()).spawn(move || follower.run())?;
        Ok(Search { shared, thread: Mutex::new(Some(thread)) })
    }

    /// The log position of the index in a directory, to be kept for it while the store is opened. `None` where there is none
    /// that could go on.
    pub fn position(disk: &Arc<dyn Disk>, dir: &Path) -> Option<Position> {
        follow::mark(disk, dir).map(|mark| mark.position)
    }

    /// Finds keys, by id ascending. The next page begins at what stands behind the prefix of an id.
    ///
    /// # Errors
    /// There is no index at the moment, or the records cannot be read.
    pub fn keys(&self, snapshot: &Snapshot, ask: &Keys) -> Result<Found<KeyId, String>, SearchError> {
        find::keys(&self.shared, snapshot, ask)
    }

    /// Finds audit events of a workspace, newest first by time and then by sequence number.
    ///
    /// # Errors
    /// The records cannot be read, or the index cannot.
    pub fn events(
        &self,
        snapshot: &Snapshot,
        workspace: WorkspaceNo,
        ask: &Events,
    ) -> Result<Found<Numbered, (u64, u64)>, SearchError> {
        find::events(&self.shared, snapshot, workspace, ask)
    }

    /// Whether the index cannot be kept at the moment.
    pub fn is_failing(&self) -> bool {
        self.shared.is(Standing::Failing)
    }

    /// Numbers for metrics and health.
    pub fn stats(&self) -> Stats {
        let view = self.shared.view();
        Stats {
            rows: view.as_ref().map_or(0, |view| view.rows()),
            segments: view.as_ref().map_or(0, |view| view.segments() as u64),
            position: self.shared.position().0,
            commits: self.shared.commits.load(Ordering::Relaxed),
            freshness: self.shared.freshness(),
            failing: self.shared.is(Standing::Failing),
        }
    }

    /// Commits what is known and ends the thread.
    pub fn stop(&self) {
        self.shared.end();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.stop();
    }
}
