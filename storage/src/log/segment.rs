//! One segment: a file of frames that follow each other without a gap, named after the first position in it.
//!
//! ```text
//!  0  magic "KWLOGSEG"        28  first position u64
//!  8  format u32 = 1          36  term u64: no frame in it is of an earlier one
//! 12  store id, 16 bytes      44  CRC-32 of the 44 bytes before, u32
//! ```
//!
//! The header is on disk, and the file's name too, before the first frame is written.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{MAX_POSITION, Seed, u32_at, u64_at};
use crate::disk::{Disk, DiskFile};
use crate::position::{Position, Term};

/// What every segment begins with.
pub const MAGIC: [u8; 8] = *b"KWLOGSEG";
/// The format this program writes, and the newest one it reads.
pub const FORMAT: u32 = 1;
/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 48;

const CHECKED_BYTES: usize = HEADER_BYTES - 4;
const NAME_DIGITS: usize = 20;
const NAME_END: &str = ".log";

/// A segment's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The store it belongs to: drawn at random when the store is made.
    pub store_id: [u8; 16],
    /// The position of the first record in it.
    pub first: Position,
    /// The reign it was begun in.
    pub term: Term,
}

/// Why bytes are no segment header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Defect {
    /// They do not begin as a segment does.
    Magic {
        /// What is there.
        found: [u8; 8],
    },
    /// A format this program does not know. Its checksum was not looked at: it may stand elsewhere.
    Format {
        /// Its number.
        found: u32,
    },
    /// The checksum does not fit the bytes.
    Checksum {
        /// By the bytes.
        computed: u32,
        /// As stored.
        stored: u32,
    },
    /// The first position is one no record can have.
    First {
        /// By the header.
        found: Position,
    },
}

impl Defect {
    /// What should be there, and what is, in words.
    pub fn expected_and_found(&self) -> (String, String) {
        match self {
            Defect::Magic { found } => {
                let expected = format!("a log segment, beginning with {}", MAGIC.escape_ascii());
                (expected, found.escape_ascii().to_string())
            }
            Defect::Format { found } => (format!("log format {FORMAT}"), format!("{found}")),
            Defect::Checksum { computed, stored } => {
                (format!("a segment header with checksum {computed:08x}"), format!("{stored:08x}"))
            }
            Defect::First { found } => ("a first position within its bounds".into(), format!("{found}")),
        }
    }
}

impl Header {
    /// The header's bytes, and what the checksums of the frames below it go on from.
    pub fn encode(&self) -> ([u8; HEADER_BYTES], Seed) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..28].copy_from_slice(&self.store_id);
        bytes[28..36].copy_from_slice(&self.first.0.to_le_bytes());
        bytes[36..44].copy_from_slice(&self.term.0.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        (bytes, Seed(crc))
    }

    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<(Header, Seed), Defect> {
        let (magic, rest) = bytes.split_first_chunk::<8>().expect("a header is longer than its magic");
        if *magic != MAGIC {
            return Err(Defect::Magic { found: *magic });
        }
        let format = u32_at(bytes, 8);
        if format != FORMAT {
            return Err(Defect::Format { found: format });
        }
        let (computed, stored) = (crc32fast::hash(&bytes[..CHECKED_BYTES]), u32_at(bytes, CHECKED_BYTES));
        if computed != stored {
            return Err(Defect::Checksum { computed, stored });
        }
        let (store_id, _) = rest[4..].split_first_chunk::<16>().expect("a header is longer than that");
        let first = Position(u64_at(bytes, 28));
        if first == Position::START || first > MAX_POSITION {
            return Err(Defect::First { found: first });
        }
        Ok((Header { store_id: *store_id, first, term: Term(u64_at(bytes, 36)) }, Seed(stored)))
    }
}

/// Where the segment that begins at this position is kept.
pub fn path(dir: &Path, first: Position) -> PathBuf {
    dir.join(format!("{:0width$}{NAME_END}", first.0, width = NAME_DIGITS))
}

/// The position a file's name promises; `None` where it is no segment's name.
pub fn first_of_name(name: &str) -> Option<Position> {
    let digits = name.strip_suffix(NAME_END)?;
    if digits.len() != NAME_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(Position)
}

/// Why a segment could not be begun.
pub(super) enum BeginError {
    /// Nothing was written that needs to last: the file can be removed.
    Unwritten(io::Error),
    /// A sync failed, and nobody knows what is on disk; or the file is not what recovery left.
    Fatal(io::Error),
}

impl From<BeginError> for io::Error {
    fn from(error: BeginError) -> io::Error {
        match error {
            BeginError::Unwritten(source) | BeginError::Fatal(source) => source,
        }
    }
}

/// Makes a segment, durable with its name, ready for its first frame.
pub(super) fn begin(disk: &dyn Disk, dir: &Path, header: &Header) -> Result<(Arc<dyn DiskFile>, Seed), BeginError> {
    let (bytes, seed) = header.encode();
    let file = disk.open(&path(dir, header.first), true).map_err(BeginError::Unwritten)?;
    if !file.is_empty().map_err(BeginError::Unwritten)? {
        // Recovery left no file by this name: somebody else writes here.
        return Err(BeginError::Fatal(io::ErrorKind::AlreadyExists.into()));
    }
    file.write_all_at(0, &bytes).map_err(BeginError::Unwritten)?;
    file.sync_data().map_err(BeginError::Fatal)?;
    disk.sync_dir(dir).map_err(BeginError::Fatal)?;
    Ok((file, seed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header reads back, and a single altered bit anywhere in it is noticed.
    #[test]
    fn a_header_is_whole_or_nothing() {
        let header = Header { store_id: *b"0123456789abcdef", first: Position(42), term: Term(7) };
        let (bytes, seed) = header.encode();
        assert_eq!(Header::decode(&bytes), Ok((header, seed)));
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes;
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&altered).is_err(), "bit {bit}");
        }
    }

    /// Only our own names are ours: what an editor or a log rotation leaves behind is never read, let alone removed.
    #[test]
    fn only_its_own_spelling_is_a_segment() {
        let name = path(Path::new("log"), Position(42));
        assert_eq!(name, Path::new("log/00000000000000000042.log"));
        assert_eq!(first_of_name("00000000000000000042.log"), Some(Position(42)));
        for stranger in
            ["42.log", "+0000000000000000042.log", "00000000000000000042.log~", "00000000000000000042.log.gz"]
        {
            assert_eq!(first_of_name(stranger), None, "{stranger}");
        }
        assert_eq!(first_of_name("99999999999999999999.log"), None, "more than 64 bits");
    }
}
