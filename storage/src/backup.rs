//! Records out of an open store, and into a new one: what backups are made of.
//!
//! A copy is one snapshot of the store, so it is of one log position, however long it takes to read and whatever is written
//! meanwhile. It is handed out in *chunks*, each laid out as a record of the log (`FORMAT.md`, "Records") that puts rows, in the
//! order of tables and keys; whoever restores it applies rows, as a replay does, and needs to know no table. While a copy is
//! held, space of `records.redb` that becomes free is not used again: the file may grow by what is written meanwhile.
//!
//! A store that is being restored has a file `RESTORING` in its directory from the first moment to the last. Its removal is the
//! moment at which the store exists: with that file there, no start takes the directory for one.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::{self, RESTORING, io_error, write_format};
use crate::disk::{Disk, DiskFile};
use crate::error::{OpenError, ReadError};
use crate::filling::Filling;
use crate::hot::window::journal;
use crate::log::{Log, LogOptions};
use crate::position::{Position, Term};
use crate::records::{Effect, decode_record, encode_record};
use crate::storage::Storage;
use crate::store::{State, Store};
use crate::walk::Walk;

/// Bytes of rows in a chunk, about: a single row may be larger.
const CHUNK_BYTES: usize = 4 << 20;
/// Most bytes of a chunk: a row is at most what a record of the log holds.
pub const CHUNK_BYTES_MAX: usize = crate::log::MAX_RECORD_BYTES + CHUNK_BYTES + 1024;
/// Bytes of a store's facts ([`Copy::state`]).
pub const STATE_BYTES: usize = 49;
/// redb's cache while a store is restored.
const CACHE_BYTES: usize = 64 << 20;

/// The records as they were at one position.
pub struct Copy {
    walk: Walk,
    state: State,
    rows: u64,
}

impl Storage {
    /// Begins a copy of the records. What counters have not written down yet (spent credits, last uses) is not in it: see
    /// [`Storage::flush`].
    ///
    /// # Errors
    /// The file of records cannot be read.
    pub fn copy(&self) -> Result<Copy, ReadError> {
        let snapshot = self.snapshot()?;
        let state = snapshot.state()?;
        let walk = Walk::new(snapshot)?;
        Ok(Copy { rows: walk.count()?, walk, state })
    }
}

impl Copy {
    /// The last transaction that is in it.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// The term of the leader that wrote it.
    pub fn term(&self) -> Term {
        self.state.term
    }

    /// The store it is of.
    pub fn store_id(&self) -> [u8; 16] {
        self.state.store_id
    }

    /// The store's facts, laid out as in its file. They hold a secret: the seed of the hashes of rate-limit subjects.
    pub fn state(&self) -> [u8; STATE_BYTES] {
        self.state.to_bytes()
    }

    /// How many rows there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next chunk, and how many rows are in it; `None` after the last one. Blocks.
    ///
    /// # Errors
    /// The file of records cannot be read, or a row in it is damaged: there is no backup of damage.
    pub fn next_chunk(&mut self) -> Result<Option<(Vec<u8>, u64)>, ReadError> {
        let (mut effects, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES
            && let Some((table, rows)) = self.walk.next_rows(CHUNK_BYTES - bytes)?
        {
            bytes += rows.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            effects.extend(rows.into_iter().map(|(key, value)| Effect { table, key, value: Some(value) }));
        }
        Ok((!effects.is_empty()).then(|| (encode_record(&effects), effects.len() as u64)))
    }
}

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The directory is not for it.
    #[error("{dir} is not empty ({found:?} is in it); name a directory that is, or one that does not exist yet")]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The store cannot be made.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The facts of the store cannot be understood.
    #[error("the facts of the store are none that this keyward knows; install the version that made the backup")]
    State,
    /// A chunk cannot be understood.
    #[error("rows of the backup cannot be decoded")]
    Rows(#[source] crate::error::BadRow),
    /// A chunk comes before the facts, these come twice, or not at all.
    #[error("the parts of the backup are not in their order")]
    Order,
}

/// A store that is being restored. Dropped before [`Restore::finish`], it leaves the directory as it was found: empty, or not there.
pub struct Restore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    found: Found,
    _lock: Box<dyn Send + Sync>,
    /// Directories whose names have to be made durable.
    dirs: BTreeSet<PathBuf>,
    made: Option<Filling>,
    rows: u64,
    is_finished: bool,
}

/// How a restore found its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It was not there.
    Nothing,
    /// Nobody had locked it before.
    Unlocked,
    /// A file `LOCK` was in it.
    Locked,
}

impl Restore {
    /// Takes a directory, which is absent or empty, or holds what an interrupted restore has left.
    ///
    /// # Errors
    /// It holds something else, is in use, or cannot be written.
    pub fn begin(disk: Arc<dyn Disk>, dir: &Path) -> Result<Restore, RestoreError> {
        let explained = |error| match error {
            OpenError::Io { path, source } => directory::explain(&*disk, path, source),
            error => error,
        };
        let io = |path: &Path, error| RestoreError::Open(explained(io_error(path)(error)));
        let was_there = disk.list(dir).is_ok();
        disk.create_dir_all(dir).map_err(|error| io(dir, error))?;
        let mut files = disk.list(dir).map_err(|error| io(dir, error))?;
        files.extend(disk.list_dirs(dir).map_err(|error| io(dir, error))?);
        if !files.iter().any(|name| name == RESTORING)
            && let Some(found) = files.iter().filter(|name| !directory::may_lie_in_an_empty_dir(name)).min()
        {
            return Err(RestoreError::NotEmpty { dir: dir.to_owned(), found: found.clone() });
        }
        let found = match was_there {
            false => Found::Nothing,
            true if files.iter().any(|name| name == "LOCK") => Found::Locked,
            true => Found::Unlocked,
        };
        let lock_path = dir.join("LOCK");
        let lock = disk.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => RestoreError::Open(OpenError::Locked(dir.to_owned())),
            _ => io(&lock_path, error),
        })?;
        let dirs = BTreeSet::from([dir.to_owned()]);
        let restore = Restore {
            disk: Arc::clone(&disk),
            dir: dir.to_owned(),
            found,
            _lock: lock,
            dirs,
            made: None,
            rows: 0,
            is_finished: false,
        };
        restore.clear(false).map_err(|error| io(dir, error))?;
        let marker = dir.join(RESTORING);
        let mark = || {
            disk.open(&marker, true)?.sync_data()?;
            disk.sync_dir(dir)
        };
        mark().map_err(|error| io(&marker, error))?;
        Ok(restore)
    }

    /// Removes what a restore makes, the mark last and only where that is asked for.
    fn clear(&self, with_mark: bool) -> io::Result<()> {
        for name in self.disk.list_dirs(&self.dir)?.iter().filter(|name| *name != "lost+found") {
            self.disk.remove_tree(&self.dir.join(name))?;
        }
        for name in self.disk.list(&self.dir)?.iter().filter(|name| *name != "LOCK" && *name != RESTORING) {
            self.disk.remove(&self.dir.join(name))?;
        }
        self.disk.sync_dir(&self.dir)?;
        if with_mark {
            self.disk.remove(&self.dir.join(RESTORING))?;
            self.disk.sync_dir(&self.dir)?;
        }
        Ok(())
    }

    /// Takes away what the beginning made: the directory, or the lock in it, which is held until this is dropped.
    fn leave(&self) -> io::Result<()> {
        match self.found {
            Found::Nothing => self.disk.remove_tree(&self.dir),
            Found::Unlocked => self.disk.remove(&self.dir.join("LOCK")),
            Found::Locked => Ok(()),
        }
    }

    /// Makes the store: `state` is what [`Copy::state`] gave. The store gets an id of its own, since its log and that of the
    /// store it is a copy of part here: no follower of the one may take a frame of the other.
    ///
    /// # Errors
    /// What is wrong with them, or the disk.
    pub fn state(&mut self, state: &[u8], store_id: [u8; 16]) -> Result<(), RestoreError> {
        let state = State { store_id, ..State::from_bytes(state).ok_or(RestoreError::State)? };
        if self.made.is_some() {
            return Err(RestoreError::Order);
        }
        let store = Store::create(&*self.disk, &self.dir, CACHE_BYTES, state).map_err(unmade)?;
        self.made = Some(Filling::new(store, state));
        Ok(())
    }

    /// Puts the rows of the next chunk, and says how many.
    ///
    /// # Errors
    /// What is wrong with them, or the disk.
    pub fn rows(&mut self, chunk: &[u8]) -> Result<u64, RestoreError> {
        let made = self.made.as_mut().ok_or(RestoreError::Order)?;
        let effects = decode_record(chunk).map_err(RestoreError::Rows)?;
        made.put(&effects).map_err(unmade)?;
        self.rows += effects.len() as u64;
        Ok(effects.len() as u64)
    }

    /// A new file of another part of the data directory, by its path in it. Whoever fills it syncs it.
    ///
    /// # Errors
    /// The disk's.
    pub fn file(&mut self, path: &Path) -> Result<Arc<dyn DiskFile>, RestoreError> {
        let path = self.dir.join(path);
        let parent = path.parent().unwrap_or(&self.dir).to_owned();
        if !self.dirs.contains(&parent) {
            self.disk.create_dir_all(&parent).map_err(|error| RestoreError::Open(io_error(&parent)(error)))?;
            self.dirs.insert(parent);
        }
        let opened = self.disk.open(&path, true);
        opened.map_err(|error| RestoreError::Open(io_error(&path)(error)))
    }

    /// Ends it: the log begins behind the position of the copy, and the store is there. How many rows it has, and that position.
    ///
    /// # Errors
    /// The disk's, or no facts of a store have come; nothing was restored.
    pub fn finish(mut self) -> Result<(u64, Position), RestoreError> {
        let state = self.made.take().ok_or(RestoreError::Order)?.finish().map_err(unmade)?;
        // Counting goes on where it was; what cannot be taken over costs counts alone.
        journal::rehome(&*self.disk, &self.dir, state.store_id).map_err(io_error(&self.dir))?;
        let log_dir = self.dir.join("log");
        Log::create(&*self.disk, &log_dir, &LogOptions::new(state.store_id), state.position, state.term)
            .map_err(|error| OpenError::Log(Box::new(error)))?;
        write_format(&*self.disk, &self.dir)?;
        for dir in &self.dirs {
            self.disk.sync_dir(dir).map_err(io_error(dir))?;
        }
        let marker = self.dir.join(RESTORING);
        self.disk.remove(&marker).map_err(io_error(&marker))?;
        self.is_finished = true;
        self.disk.sync_dir(&self.dir).map_err(io_error(&self.dir))?;
        Ok((self.rows, state.position))
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        if !self.is_finished {
            // redb writes to its file when it is closed.
            self.made = None;
            // Where even this fails the mark stays, and the next restore clears up.
            let _ = self.clear(true).and_then(|()| self.leave());
        }
    }
}

fn unmade(error: redb::Error) -> OpenError {
    OpenError::Checkpoint(Box::new(error))
}
