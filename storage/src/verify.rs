//! Whether a data directory is whole: its records, their log, their indexes and the chains of audit events.
//!
//! The directory is opened as a start would open it, over an [`Overlay`] that keeps what a start writes in memory: so what is
//! wrong is told in the words of a start that refuses, and the directory is afterwards what it was. Then everything is read that
//! a start does not read: the whole file of records, every row and what refers to it, every event of every chain, and what the
//! log still has of rows that the checkpoint has, too.

mod agree;
mod links;

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use crate::directory::{RESTORING, io_error, read_format};
use crate::disk::{Disk, Overlay};
use crate::error::{OpenError, ReadError};
use crate::hot::window::journal;
use crate::log::{self, Log, LogOptions, OpenLogError};
use crate::position::{Position, Term};
use crate::records::audit;
use crate::replay::{Replay, require_whole_log};
use crate::store::{self, State, Store};

/// Bytes that opening may write, in memory: the log since the checkpoint, applied.
const OVERLAY_BYTES_MAX: u64 = 4 << 30;
/// redb's cache.
const CACHE_BYTES: usize = 64 << 20;

const RESTORE: &str = "restore a backup into an empty directory: keyward restore";
const REBUILD: &str =
    "restore a backup; or, while the log begins at record 1, move records.redb away and start: it is rebuilt";

/// Something about a data directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it is damage; else it is worth knowing.
    pub is_damage: bool,
    /// The file or directory, by its path in the data directory.
    pub file: String,
    /// What is wrong, or else remarkable.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Finding {
    /// Something that is wrong.
    pub fn damage(file: impl Into<String>, what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { is_damage: true, file: file.into(), what: what.into(), advice: advice.into() }
    }

    /// Something that is no damage.
    pub fn note(file: impl Into<String>, what: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { is_damage: false, ..Finding::damage(file, what, advice) }
    }
}

/// What was read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The last transaction in the store; `None` where it could not be opened.
    pub position: Option<Position>,
    /// Its term.
    pub term: Term,
    /// Rows of the records, indexes included.
    pub rows: u64,
    /// Records of the log.
    pub log_records: u64,
    /// Rows that both the log and the records have.
    pub compared: u64,
    /// Audit events.
    pub audit_events: u64,
}

/// Who is told.
pub trait Observer {
    /// Something was found.
    fn found(&mut self, finding: Finding);
    /// So many more rows, records or events were read of so many that there are, about.
    fn read(&mut self, done: u64, all: u64);
}

/// Verifies a data directory that no process has open. Blocks, and reads all of it but events and the search index.
///
/// # Errors
/// It is none, is in use, or was written by a newer keyward: nothing was verified. What is wrong with it goes to `tell`.
pub fn verify(disk: &Arc<dyn Disk>, dir: &Path, tell: &mut dyn Observer) -> Result<Verified, OpenError> {
    let names = disk.list(dir).map_err(io_error(dir))?;
    if names.iter().any(|name| name == RESTORING) {
        return Err(OpenError::HalfRestored(dir.to_owned()));
    }
    let overlay: Arc<dyn Disk> = Arc::new(Overlay::over(Arc::clone(disk), OVERLAY_BYTES_MAX));
    let lock_path = dir.join("LOCK");
    let _lock = overlay.lock(&lock_path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => OpenError::Locked(dir.to_owned()),
        _ => OpenError::Io { path: lock_path.clone(), source },
    })?;
    if read_format(&*overlay, dir)?.is_none() {
        return Err(OpenError::NotAStore(dir.join("FORMAT")));
    }
    let opened = catch_unwind(AssertUnwindSafe(|| open(&overlay, dir, tell)));
    let opened = opened.unwrap_or_else(|_| {
        tell.found(Finding::damage(store::FILE, "reading it panicked; the lines above say where", REBUILD));
        Ok(None)
    })?;
    let Some((store, log, state)) = opened else { return Ok(Verified::default()) };
    let mut verified = Verified { position: Some(state.position), term: state.term, ..Verified::default() };
    let read = catch_unwind(AssertUnwindSafe(|| read(&overlay, dir, (&store, &log), &mut verified, tell)));
    match read {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tell.found(Finding::damage(store::FILE, chain(&error), REBUILD)),
        Err(_) => tell.found(Finding::damage(store::FILE, "reading it panicked; the lines above say where", REBUILD)),
    }
    windows(&overlay, dir, state.store_id, tell);
    Ok(verified)
}

/// Opens the store as a start does, and reads the file of records through. `None` where that is damaged.
fn open(disk: &Arc<dyn Disk>, dir: &Path, tell: &mut dyn Observer) -> Result<Option<(Store, Log, State)>, OpenError> {
    let log_dir = dir.join("log");
    let logged = match log::store_id(&**disk, &log_dir) {
        Ok(None) => {
            tell.found(Finding::damage("log", OpenError::LogMissing(log_dir).to_string(), RESTORE));
            return Ok(None);
        }
        Ok(Some(id)) => id,
        Err(error) => {
            tell.found(Finding::damage("log", chain(&error), RESTORE));
            return Ok(None);
        }
    };
    let opened = match Store::open(&**disk, dir, CACHE_BYTES) {
        Ok(opened) => opened,
        Err(error) => {
            tell.found(Finding::damage(store::FILE, chain(&error), REBUILD));
            return Ok(None);
        }
    };
    let (store, mut state) = match opened {
        Some((mut store, state)) => {
            match store.check_integrity() {
                Ok(true) => {}
                Ok(false) => {
                    let what = "its own checksums do not fit everywhere; a part of it was repaired in memory";
                    tell.found(Finding::damage(store::FILE, what, REBUILD));
                }
                Err(error) => {
                    tell.found(Finding::damage(store::FILE, chain(&error), REBUILD));
                    return Ok(None);
                }
            }
            (store, state)
        }
        None => {
            if let Err(error) = require_whole_log(&**disk, &log_dir) {
                tell.found(Finding::damage(store::FILE, format!("it is missing, and {}", chain(&error)), RESTORE));
                return Ok(None);
            }
            tell.found(Finding::note(
                store::FILE,
                "it is missing; the log has everything",
                "the next start makes it anew",
            ));
            let state = State { position: Position::START, term: Term(1), store_id: logged, seed: [0; 16] };
            let made = Store::create(&**disk, dir, CACHE_BYTES, state);
            (made.map_err(|error| OpenError::Checkpoint(Box::new(error)))?, state)
        }
    };
    let checkpoint = state.position;
    let mut replay = Replay::new(&store, state);
    let opened =
        Log::open(Arc::clone(disk), &log_dir, LogOptions::new(state.store_id), checkpoint, |position, term, record| {
            replay.take(position, term, record)
        });
    let finished = opened.map_err(|error| match error {
        OpenLogError::Replay { source, .. } => source,
        OpenLogError::Log(error) => OpenError::Log(Box::new(error)),
    });
    match finished.and_then(|opened| Ok((opened, replay.finish()?))) {
        Ok(((log, recovered), replayed)) => {
            state = replayed;
            if recovered.torn_bytes > 0 {
                let what = format!("{} bytes at its end are of a write that did not finish", recovered.torn_bytes);
                tell.found(Finding::note(
                    "log",
                    what,
                    "nothing: they were never acknowledged, and the next start cuts them off",
                ));
            }
            for name in recovered.strangers {
                let file = format!("log/{name}");
                tell.found(Finding::note(file, "it is none of keyward's", "move it elsewhere; it is left alone"));
            }
            Ok(Some((store, log, state)))
        }
        Err(error) => {
            tell.found(Finding::damage("log", chain(&error), RESTORE));
            Ok(None)
        }
    }
}

/// Reads everything in an open store.
fn read(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    (store, log): (&Store, &Log),
    verified: &mut Verified,
    tell: &mut dyn Observer,
) -> Result<(), ReadError> {
    let snapshot = store.snapshot()?;
    let state = snapshot.state();
    let mut all = state.position.0.saturating_sub(log.first_kept().0.saturating_sub(1)) * 2;
    for table in snapshot.tables()? {
        all += snapshot.count(table)?;
    }
    let mut progress = Progress { tell, done: 0, all };
    verified.rows = links::check(store, &mut progress)?;
    let compared = agree::check(disk, &dir.join("log"), log, &snapshot, state.store_id, &mut progress)?;
    (verified.log_records, verified.compared) = compared;
    drop(snapshot);
    let view = store.snapshot()?;
    for no in audit::chains(&view)? {
        let chain = audit::verify::verify(&|| store.snapshot(), no, &[], &mut |_| {})?;
        verified.audit_events += chain.events;
        for finding in &chain.findings {
            let what = format!("audit event {} of workspace number {}: {}", finding.sequence, no.0, finding.fault);
            let advice = "find out who wrote to the data directory; keyward audit verify tells more";
            progress.tell.found(Finding::damage(store::FILE, what, advice));
        }
    }
    Ok(())
}

/// Counts what is read.
struct Progress<'a> {
    tell: &'a mut dyn Observer,
    done: u64,
    all: u64,
}

impl Progress<'_> {
    fn step(&mut self, more: u64) {
        self.done += more;
        self.tell.read(self.done, self.all.max(self.done));
    }
}

/// The rate-limit windows: whatever is wrong with them costs counts, never the start.
fn windows(disk: &Arc<dyn Disk>, dir: &Path, store_id: [u8; 16], tell: &mut dyn Observer) {
    let file = format!("{}/{}", journal::DIRECTORY, journal::FILE);
    match journal::survey(&**disk, dir, store_id) {
        Ok(0) => {}
        Ok(unread) => {
            let what = format!("{unread} bytes of it cannot be used");
            tell.found(Finding::note(file, what, "nothing: what was counted in them is forgotten at the next start"));
        }
        Err(error) => {
            tell.found(Finding::note(
                file,
                format!("it cannot be read: {error}"),
                "look at the disk; counting starts afresh",
            ));
        }
    }
}

/// An error with its causes, as one text.
pub fn chain(error: &dyn Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !told.contains(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
        cause = error.source();
    }
    told
}
