//! Records of another node take the place of those that were here, and what is lost by that is set aside.
//!
//! [`super::checkpoint`] has put them beside the store. At the next start they are moved into it, each step such that a crash
//! after it is followed by the same steps again: the file that says that they are there goes last.

use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::disk::{self, Disk};
use crate::error::OpenError;
use crate::feed::Source;
use crate::log::frame;
use crate::log::{LogError, Reader, segment};
use crate::position::{Position, Term};
use crate::replication::NodeId;
use crate::replication::checkpoint::{DIR, READY};
use crate::store;

/// The file that names the node, in the data directory.
pub const NODE_FILE: &str = "NODE";
const NODE_HEAD: &str = "keyward node ";
/// Directories that are made of the records, and have to be made anew of others.
const DERIVED: [&str; 2] = ["windows", "search"];

/// Moves records that wait beside the store into it; whether there were any. Runs under the directory's lock, before anything in it
/// is read.
pub(crate) fn install(disk: &dyn Disk, dir: &Path) -> Result<bool, OpenError> {
    let from = dir.join(DIR);
    let io_at = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { path, source }
    };
    let listed = |dir: &Path| match disk.list(dir) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        listed => listed.map_err(io_at(dir)),
    };
    if !listed(&from)?.iter().any(|name| name == READY) {
        return Ok(false);
    }
    let log_dir = dir.join("log");
    disk.create_dir_all(&log_dir).map_err(io_at(&log_dir))?;
    let waiting = listed(&from.join("log"))?;
    for name in listed(&log_dir)?.iter().filter(|name| segment::first_of_name(name).is_some()) {
        // Where nothing waits, the one that is here is the new one: it was moved by a start that was interrupted.
        if !waiting.is_empty() {
            let path = log_dir.join(name);
            disk.remove(&path).map_err(io_at(&path))?;
        }
    }
    disk.sync_dir(&log_dir).map_err(io_at(&log_dir))?;
    for derived in DERIVED.map(|name| dir.join(name)) {
        for name in listed(&derived)? {
            let path = derived.join(name);
            disk.remove(&path).map_err(io_at(&path))?;
        }
    }
    let moved = |from: PathBuf, to: PathBuf| match disk.rename(&from, &to) {
        // By the start that was interrupted.
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(io_at(&from)),
    };
    moved(from.join(store::FILE), dir.join(store::FILE))?;
    disk.sync_dir(dir).map_err(io_at(dir))?;
    for name in waiting {
        moved(from.join("log").join(&name), log_dir.join(&name))?;
    }
    disk.sync_dir(&log_dir).map_err(io_at(&log_dir))?;
    disk.sync_dir(&from.join("log")).map_err(io_at(&from))?;
    let ready = from.join(READY);
    disk.remove(&ready).map_err(io_at(&ready))?;
    disk.sync_dir(&from).map_err(io_at(&from))?;
    tracing::info!("the leader's records have taken the place of what was here");
    Ok(true)
}

/// Whether a data directory has records: its own, or a leader's that wait for the next start.
///
/// # Errors
/// The disk's.
pub fn has_records(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    let has = |dir: &Path, name: &str| match disk.list(dir) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(false),
        listed => listed.map(|names| names.iter().any(|found| found == name)),
    };
    Ok(has(dir, store::FILE)? || has(&dir.join(DIR), READY)?)
}

/// The node's id, made where there is none yet. `fresh` are random bytes.
pub(crate) fn node_id(disk: &dyn Disk, dir: &Path, fresh: &[u8; 32]) -> Result<NodeId, OpenError> {
    let path = dir.join(NODE_FILE);
    let io_error = |source| OpenError::Io { path: path.clone(), source };
    match disk.open(&path, false) {
        Ok(file) => {
            let mut bytes = vec![0; usize::try_from(file.len().map_err(io_error)?.min(64)).expect("at most 64")];
            file.read_exact_at(0, &mut bytes).map_err(io_error)?;
            let text = std::str::from_utf8(&bytes).ok().and_then(|text| text.strip_prefix(NODE_HEAD));
            if let Some(id) = text.and_then(|text| from_hex(text.trim_end())) {
                return Ok(id);
            }
            Err(OpenError::NotAStore(path))
        }
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {
            let digest = Sha256::new().chain_update(b"keyward node").chain_update(fresh).finalize();
            let id: NodeId = digest[..16].try_into().expect("half of it");
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            disk::replace(disk, &dir.join("NODE.new"), &path, |file| {
                file.write_all_at(0, format!("{NODE_HEAD}{hex}\n").as_bytes())?;
                file.sync_data()
            })
            .map_err(io_error)?;
            Ok(id)
        }
        Err(source) => Err(io_error(source)),
    }
}

fn from_hex(text: &str) -> Option<NodeId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut id = [0; 16];
    for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(id)
}

/// What was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The file.
    pub path: PathBuf,
    /// The first record in it, and the last.
    pub first: Position,
    /// See above.
    pub last: Position,
    /// Records after the common beginning that the log does not reach back to any more, and that are in no file therefore.
    pub unreachable: u64,
}

/// Why nothing was set aside.
#[derive(Debug, thiserror::Error)]
pub enum SetAsideError {
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// The file cannot be written.
    #[error("{path} cannot be written")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes what the log has after `after` to a file in the data directory, a segment of its own, for the operator: these records
/// are about to be given up. `None` where the log has nothing there.
///
/// # Errors
/// The log's, or the disk's. Doing it again does no harm.
pub fn set_aside(source: &Source, after: Position) -> Result<Option<SetAside>, SetAsideError> {
    let (disk, log_dir, store_id) = (&source.disk, &source.log_dir, source.store_id);
    let last = source.position();
    let mut from = after;
    let mut reader = match Reader::open(std::sync::Arc::clone(disk), log_dir, store_id, after) {
        Err(LogError::Missing { .. }) => {
            let names = disk.list(log_dir).map_err(|source| SetAsideError::Io { path: log_dir.clone(), source })?;
            let Some(oldest) = names.iter().filter_map(|name| segment::first_of_name(name)).min() else {
                return Ok(None);
            };
            from = Position(oldest.0 - 1);
            if from >= last {
                return Ok(None);
            }
            Reader::open(std::sync::Arc::clone(disk), log_dir, store_id, from)?
        }
        opened => opened?,
    };
    let mut file = None;
    let dir = log_dir.parent().unwrap_or(Path::new(""));
    let aside = dir.join("diverged.new");
    let mut offset = segment::HEADER_BYTES as u64;
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| SetAsideError::Io { path, source }
    };
    let mut buffer = Vec::new();
    while let Some(frame) = reader.next(last)? {
        let (_, path, into, seed) = match &file {
            Some(file) => file,
            None => {
                let header = segment::Header { store_id, first: from.next(), term: frame.header.term };
                let (bytes, seed) = header.encode();
                let path = dir.join(format!("diverged-{}-{}.log", frame.header.term.0, header.first));
                let into = disk.open(&aside, true).map_err(fail(&aside))?;
                into.set_len(0).and_then(|()| into.write_all_at(0, &bytes)).map_err(fail(&aside))?;
                file.insert((frame.header.term, path, into, seed))
            }
        };
        let records: Vec<&[u8]> =
            frame.records().skip_while(|(position, _)| *position <= from).map(|(_, record)| record).collect();
        frame::cut(&mut buffer, &frame.header, *seed, &records);
        into.write_all_at(offset, &buffer).map_err(fail(path))?;
        offset += buffer.len() as u64;
    }
    let Some((_, path, into, _)): Option<(Term, _, _, _)> = file else { return Ok(None) };
    into.sync_data()
        .and_then(|()| disk.rename(&aside, &path))
        .and_then(|()| disk.sync_dir(dir))
        .map_err(fail(&path))?;
    Ok(Some(SetAside { path, first: from.next(), last, unreachable: from.0 - after.0 }))
}
