//! What can be wrong with a log, by what an operator or a reader can do about it.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::{frame, segment};
use crate::position::Position;

/// Why a log cannot be read. Nothing was changed or removed on the way to any of these but [`LogError::Io`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// Bytes are not what was written there. Restore a backup.
    #[error(
        "{} is damaged at byte {offset}: expected {expected}, found {found}; acknowledged changes may be lost, so \
         restore a backup and keep these files as they are, deleting or editing them cannot help",
        file.display()
    )]
    Damaged {
        /// The segment.
        file: PathBuf,
        /// Where in it.
        offset: u64,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Records that are needed are in no segment. At start: restore a backup. A reader: begin again from a checkpoint.
    #[error(
        "the log in {} has no records from {from} to {through}, which are still needed; \
         segments were lost or removed by hand, so restore them or a backup",
        dir.display()
    )]
    Missing {
        /// The log's directory.
        dir: PathBuf,
        /// The first position that is missing.
        from: Position,
        /// The last one.
        through: Position,
    },
    /// The log ends before the checkpoint: acknowledged records are gone from it. Restore a backup.
    #[error(
        "the log in {} ends at record {last}, and the checkpoint already holds record {applied}; \
         the two do not belong together, so restore the missing segments or a backup",
        dir.display()
    )]
    BehindCheckpoint {
        /// The log's directory.
        dir: PathBuf,
        /// Where the checkpoint stands.
        applied: Position,
        /// The newest record in the log.
        last: Position,
    },
    /// A file of another store. Put the right files back.
    #[error(
        "{} belongs to another store: expected store id {}, found {}; put the files of this store back",
        file.display(), hex(expected), hex(found)
    )]
    ForeignStore {
        /// The segment.
        file: PathBuf,
        /// This store's id.
        expected: [u8; 16],
        /// The file's.
        found: [u8; 16],
    },
    /// Written by a newer release. Start that one.
    #[error(
        "{} has format {found} at byte {offset}, and this release reads up to format {newest}; start the release that \
         wrote it, or a later one",
        file.display()
    )]
    NewerFormat {
        /// The segment.
        file: PathBuf,
        /// Where the format is said.
        offset: u64,
        /// The format found there.
        found: u32,
        /// The newest one this program reads.
        newest: u32,
    },
    /// A log is to be begun where there is one.
    #[error("there is a log in {} already", dir.display())]
    AlreadyThere {
        /// The log's directory.
        dir: PathBuf,
    },
    /// The disk failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the disk said.
        #[source]
        source: io::Error,
    },
}

/// Why a store's log could not be opened.
#[derive(Debug, Error)]
pub enum OpenLogError<E: std::error::Error + 'static> {
    /// The log itself is at fault.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Whoever was handed a record refused it.
    #[error("cannot replay record {position}")]
    Replay {
        /// Its position.
        position: Position,
        /// Why.
        #[source]
        source: E,
    },
}

fn hex(id: &[u8; 16]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A closure for `map_err` that says what was tried, and on what.
pub(super) fn io_error(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LogError {
    let path = path.into();
    move |source| LogError::Io { what, path, source }
}

/// What a bad frame means where a whole one has to be.
pub(super) fn bad_frame(file: PathBuf, offset: u64, defect: &frame::Defect) -> LogError {
    if let frame::Defect::Layout { found } = *defect
        && found > frame::LAYOUT
    {
        let (found, newest) = (u32::from(found), u32::from(frame::LAYOUT));
        return LogError::NewerFormat { file, offset, found, newest };
    }
    let (expected, found) = defect.expected_and_found();
    LogError::Damaged { file, offset, expected, found }
}

/// What a bad segment header means where a whole one has to be.
pub(super) fn bad_segment(file: PathBuf, defect: &segment::Defect) -> LogError {
    if let segment::Defect::Format { found } = *defect
        && found > segment::FORMAT
    {
        return LogError::NewerFormat { file, offset: 0, found, newest: segment::FORMAT };
    }
    let (expected, found) = defect.expected_and_found();
    LogError::Damaged { file, offset: 0, expected, found }
}
