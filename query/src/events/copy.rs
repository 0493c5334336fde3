//! A copy of the events as of one moment, for a backup: a directory as a start would find it.
//!
//! The moment is one of the manifest and of what queries see, which agree while the manifest is held: parts that are live, and
//! batches that are not sealed. Whoever holds the copy keeps the files of these parts. What is not sealed is written as journal
//! segments, its batches numbered anew: nothing outside of the journal and the watermark knows their numbers.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use keyward_storage::disk::{Disk, DiskFile};

use super::core::Core;
use super::journal::{self, Frames, OWN};
use super::live::Live;
use super::manifest::{self, State};
use super::parts::{self, Part};
use super::store::JOURNAL_DIR;
use super::tables::Family;

/// Bytes of a journal segment, about: it is in memory as a whole.
const SEGMENT_BYTES: usize = 4 << 20;

/// The events as they were at one moment.
pub struct Copy {
    disk: Arc<dyn Disk>,
    live: Arc<Live>,
    state: State,
    manifest: Vec<u8>,
}

/// A file of a copy.
pub struct File<'a> {
    /// Its path below the directory of events.
    pub path: &'a str,
    /// Bytes that it has.
    pub length: u64,
    /// Those bytes.
    pub bytes: &'a mut dyn Read,
}

impl Copy {
    pub(crate) fn new(core: &Core) -> io::Result<Copy> {
        let (state, live) = {
            let manifest = core.manifest();
            (manifest.state().clone(), core.view.load())
        };
        // A part whose file was missing at the start is in the manifest alone, and no copy can have it.
        let parts: std::collections::BTreeMap<_, _> =
            live.all_parts().values().flat_map(|parts| parts.iter()).map(|part| (part.info.no, part.info)).collect();
        // Rows of other stores that are not sealed are among the copy's own batches; that they are here is said by the marks. A
        // parcel that comes again after a restore, because its sender never heard of its arrival, is known by them.
        let mut sealed = state.sealed;
        for (source, number) in live.marks() {
            let mark = sealed.entry(*source).or_default();
            *mark = (*mark).max(*number);
        }
        let state = State { parts, sealed };
        Ok(Copy { disk: Arc::clone(&core.disk), live, manifest: state.to_bytes()?, state })
    }

    /// Bytes of all files, about.
    pub fn bytes(&self) -> u64 {
        let unsealed = Family::ALL.iter().flat_map(|family| self.live.unsealed(*family));
        let unsealed: usize = unsealed.map(|batch| batch.rows.get_array_memory_size()).sum();
        let parts: u64 = self.state.parts.values().map(|part| part.bytes).sum();
        parts + (self.manifest.len() + unsealed) as u64
    }

    /// Rows of raw tables: events.
    pub fn events(&self) -> u64 {
        let raw = |part: &&manifest::PartInfo| part.table.level == super::tables::Level::Raw;
        let sealed: u64 = self.state.parts.values().filter(raw).map(|part| part.rows).sum();
        sealed + self.live.unsealed_rows() as u64
    }

    /// Hands out every file, the manifest last: until it is there, the others are no events. `take` reads each to its end. Blocks.
    ///
    /// # Errors
    /// The disk, and the first error of `take`.
    pub fn files<E: From<io::Error>>(&self, take: &mut dyn FnMut(File<'_>) -> Result<(), E>) -> Result<(), E> {
        for part in self.live.all_parts().values().flat_map(|parts| parts.iter()) {
            let file = self.disk.open(&part.path, false)?;
            let length = file.len()?;
            if length != part.info.bytes {
                let what =
                    format!("{} has {length} bytes, and the manifest says {}", part.path.display(), part.info.bytes);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what).into());
            }
            let path = path_of(part);
            take(File { path: &path, length, bytes: &mut Reading { file, at: 0, end: length } })?;
        }
        self.journal(take)?;
        let length = self.manifest.len() as u64;
        take(File { path: manifest::NAME, length, bytes: &mut &*self.manifest })
    }

    fn journal<E: From<io::Error>>(&self, take: &mut dyn FnMut(File<'_>) -> Result<(), E>) -> Result<(), E> {
        let mut batches = Family::ALL.into_iter().flat_map(|family| self.live.unsealed(family)).peekable();
        let mut number = self.state.sealed.get(&OWN).copied().unwrap_or(0);
        let mut segment = 0;
        while batches.peek().is_some() {
            let (mut frames, mut bytes) = (Frames::default(), journal::MAGIC.to_vec());
            while let Some(batch) = (bytes.len() < SEGMENT_BYTES).then(|| batches.next()).flatten() {
                number += 1;
                bytes.extend_from_slice(frames.next(number, batch.family, &batch.rows, None)?);
            }
            segment += 1;
            let path = journal::path(Path::new(JOURNAL_DIR), segment);
            let path = path.to_string_lossy();
            take(File { path: &path, length: bytes.len() as u64, bytes: &mut &*bytes })?;
        }
        Ok(())
    }
}

/// The path of a part below the directory of events.
fn path_of(part: &Part) -> String {
    let dir = parts::directory(Path::new(""), part.info.table, part.info.workspace, part.info.day);
    dir.join(parts::file_name(part.info.no)).to_string_lossy().into_owned()
}

/// Reads a file of the disk seam from front to end.
struct Reading {
    file: Arc<dyn DiskFile>,
    at: u64,
    end: u64,
}

impl Read for Reading {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        self.file.read_exact_at(self.at, &mut buffer[..left])?;
        self.at += left as u64;
        Ok(left)
    }
}
