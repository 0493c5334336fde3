//! Reading the log: one segment with a cursor that judges, the whole of it with a reader that trusts.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{LogError, bad_frame, bad_segment, io_error};
use super::frame::{self, Frame, Seed};
use super::segment;
use crate::disk::{Disk, DiskFile};
use crate::position::{Position, Term};

/// Bytes read at once, and kept in memory by a reader; more only while a frame is larger.
const CHUNK_BYTES: usize = 256 << 10;

/// The positions at which segments begin, in order, and the names of files that are no segments.
pub(super) fn list(disk: &dyn Disk, dir: &Path) -> Result<(Vec<Position>, Vec<String>), LogError> {
    let mut segments = Vec::new();
    let mut strangers = Vec::new();
    for name in disk.list(dir).map_err(io_error("list", dir))? {
        match segment::first_of_name(&name) {
            Some(first) => segments.push(first),
            None => strangers.push(name),
        }
    }
    segments.sort_unstable();
    strangers.sort_unstable();
    Ok((segments, strangers))
}

/// The store whose log is in a directory, by its oldest segment; none where there is no log. For a store that has to
/// build its checkpoint anew, which is where it keeps its id otherwise.
pub fn store_id(disk: &dyn Disk, dir: &Path) -> Result<Option<[u8; 16]>, LogError> {
    let segments = match list(disk, dir) {
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        listed => listed?.0,
    };
    let Some(&first) = segments.first() else { return Ok(None) };
    let path = segment::path(dir, first);
    let file = disk.open(&path, false).map_err(io_error("open", &path))?;
    let mut bytes = [0; segment::HEADER_BYTES];
    match file.read_exact_at(0, &mut bytes) {
        // Interrupted at birth: it is the only one, and holds nothing.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && segments.len() == 1 => return Ok(None),
        read => read.map_err(io_error("read", &path))?,
    }
    match segment::Header::decode(&bytes) {
        Ok((header, _)) => Ok(Some(header.store_id)),
        Err(defect) => {
            let damage = bad_segment(path.clone(), &defect);
            let length = file.len().map_err(io_error("ask for the length of", &path))?;
            let is_newer = matches!(damage, LogError::NewerFormat { .. });
            if !is_newer && segments.len() == 1 && length <= bytes.len() as u64 {
                // Interrupted at birth as well, with its length on disk before its bytes.
                return Ok(None);
            }
            Err(damage)
        }
    }
}

/// A segment whose header is whole.
#[derive(Clone)]
pub(super) struct SegmentFile {
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    pub header: segment::Header,
    pub seed: Seed,
    /// Its length when it was opened.
    pub length: u64,
}

/// A segment with no more than a part of its header, or a header that is not whole and nothing behind it: what a roll
/// leaves that did not finish.
pub(super) struct TornHead {
    pub first: Position,
    pub path: PathBuf,
    pub length: u64,
    found: String,
}

impl TornHead {
    /// What it means where no roll can have been interrupted.
    pub fn damage(&self) -> LogError {
        let expected = format!("a whole segment header of {} bytes", segment::HEADER_BYTES);
        LogError::Damaged { file: self.path.clone(), offset: 0, expected, found: self.found.clone() }
    }
}

pub(super) enum Opened {
    Whole(SegmentFile),
    Torn(TornHead),
}

impl SegmentFile {
    pub fn open(disk: &dyn Disk, dir: &Path, first: Position, store_id: [u8; 16]) -> Result<Opened, LogError> {
        let path = segment::path(dir, first);
        let file = disk.open(&path, false).map_err(io_error("open", &path))?;
        let length = file.len().map_err(io_error("ask for the length of", &path))?;
        let mut bytes = [0; segment::HEADER_BYTES];
        if length < bytes.len() as u64 {
            let found = format!("{length} bytes");
            return Ok(Opened::Torn(TornHead { first, path, length, found }));
        }
        file.read_exact_at(0, &mut bytes).map_err(io_error("read", &path))?;
        let (header, seed) = match segment::Header::decode(&bytes) {
            Ok(whole) => whole,
            Err(defect) => {
                let damage = bad_segment(path.clone(), &defect);
                if length > bytes.len() as u64 || matches!(damage, LogError::NewerFormat { .. }) {
                    // Frames are written after the header's sync, so this header was whole once.
                    return Err(damage);
                }
                let (_, found) = defect.expected_and_found();
                return Ok(Opened::Torn(TornHead { first, path, length, found }));
            }
        };
        if header.store_id != store_id {
            return Err(LogError::ForeignStore { file: path, expected: store_id, found: header.store_id });
        }
        if header.first != first {
            let (expected, found) = (format!("first position {first}, as in its name"), format!("{}", header.first));
            return Err(LogError::Damaged { file: path, offset: 0, expected, found });
        }
        Ok(Opened::Whole(SegmentFile { path, file, header, seed, length }))
    }

    /// Refuses a segment that was begun in an earlier reign than what stands before it.
    pub fn check_term(&self, newest: Term) -> Result<(), LogError> {
        if self.header.term >= newest {
            return Ok(());
        }
        let (expected, found) = frame::Defect::Term { newest, found: self.header.term }.expected_and_found();
        Err(LogError::Damaged { file: self.path.clone(), offset: 0, expected, found })
    }
}

/// What a cursor finds at its place.
pub(super) enum Step {
    /// A whole frame, the next in order; its payload stands in this range of the cursor's buffer.
    Frame(frame::Header, Range<usize>),
    /// The end of the file.
    End,
    /// Bytes that are no frame, or not the next one. The cursor stays.
    Bad(frame::Defect),
}

/// Walks one segment's frames and judges each.
pub(super) struct Cursor {
    pub segment: SegmentFile,
    /// Where the next frame begins.
    pub offset: u64,
    /// Which position it has to have.
    pub expected: Position,
    /// The newest term so far.
    pub term: Term,
    /// The file's bytes from `start` on, `filled` of them.
    buffer: Vec<u8>,
    start: u64,
    filled: usize,
}

impl Cursor {
    /// A cursor before a segment's first frame.
    pub fn new(segment: SegmentFile) -> Cursor {
        let offset = segment::HEADER_BYTES as u64;
        let (expected, term) = (segment.header.first, segment.header.term);
        Cursor { segment, offset, expected, term, buffer: Vec::new(), start: offset, filled: 0 }
    }

    /// Goes on to another segment, with the same memory.
    pub fn turn_to(&mut self, segment: SegmentFile) {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Cursor { buffer, ..Cursor::new(segment) };
    }

    /// The next frame, if there is a whole one.
    pub fn step(&mut self) -> io::Result<Step> {
        let left = self.segment.length.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Step::End);
        }
        if left < frame::HEADER_BYTES as u64 {
            return Ok(Step::Bad(frame::Defect::HeaderCut { found: left }));
        }
        let at = self.fill(frame::HEADER_BYTES)?;
        let head = self.buffer[at..].first_chunk().expect("that many were filled");
        let header = match frame::Header::decode(head, self.segment.seed) {
            Ok(header) => header,
            Err(defect) => return Ok(Step::Bad(defect)),
        };
        if header.first != self.expected {
            return Ok(Step::Bad(frame::Defect::Position { expected: self.expected, found: header.first }));
        }
        if header.term < self.term {
            return Ok(Step::Bad(frame::Defect::Term { newest: self.term, found: header.term }));
        }
        let (expected, found) = (u64::from(header.payload_bytes), left - frame::HEADER_BYTES as u64);
        if found < expected {
            return Ok(Step::Bad(frame::Defect::PayloadCut { expected, found }));
        }
        let frame_bytes = frame::HEADER_BYTES + header.payload_bytes as usize;
        let at = self.fill(frame_bytes)?;
        let payload = at + frame::HEADER_BYTES..at + frame_bytes;
        if let Err(defect) = header.check(&self.buffer[payload.clone()]) {
            return Ok(Step::Bad(defect));
        }
        self.offset += header.frame_bytes();
        self.expected = header.last().next();
        self.term = header.term;
        Ok(Step::Frame(header, payload))
    }

    /// The payload of the frame that the last step found.
    pub fn payload(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Forgets what was read ahead, and looks again how long the file is.
    pub fn refresh(&mut self) -> io::Result<()> {
        self.filled = 0;
        self.start = self.offset;
        self.segment.length = self.segment.file.len()?;
        Ok(())
    }

    /// Makes the buffer hold `need` bytes from the cursor's place on, and says where in it they begin. The file has them.
    fn fill(&mut self, need: usize) -> io::Result<usize> {
        let at = (self.offset - self.start) as usize;
        if at + need <= self.filled {
            return Ok(at);
        }
        if at < self.filled {
            self.buffer.copy_within(at..self.filled, 0);
        }
        self.filled = self.filled.saturating_sub(at);
        self.start = self.offset;
        let left = usize::try_from(self.segment.length - self.start).unwrap_or(usize::MAX);
        let want = need.max(CHUNK_BYTES).min(left);
        if self.buffer.len() < want {
            self.buffer.resize(want, 0);
        } else if self.buffer.len() > CHUNK_BYTES && want <= CHUNK_BYTES && self.filled <= want {
            // A large frame has passed.
            self.buffer.truncate(CHUNK_BYTES);
            self.buffer.shrink_to_fit();
        }
        let from = self.start + self.filled as u64;
        self.segment.file.read_exact_at(from, &mut self.buffer[self.filled..want.max(self.filled)])?;
        self.filled = want.max(self.filled);
        Ok(0)
    }
}

/// Reads the log from a position on, frame by frame, while its writer goes on writing.
///
/// It holds one file open and some hundred KiB of memory. It never looks beyond the position it is told: what is not
/// synced yet is nobody's to see. What lies before that position was synced, so anything odd there is damage.
pub struct Reader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store_id: [u8; 16],
    after: Position,
    cursor: Cursor,
}

impl Reader {
    /// A reader of the records after `after`. [`LogError::Missing`] where the log begins later than that.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path, store_id: [u8; 16], after: Position) -> Result<Reader, LogError> {
        let (segments, _) = list(&*disk, dir)?;
        let Some(&first) = segments.iter().rfind(|first| **first <= after.next()) else {
            return Err(missing(dir, after.next(), &segments, after.next()));
        };
        match SegmentFile::open(&*disk, dir, first, store_id)? {
            Opened::Whole(segment) => {
                Ok(Reader { disk, dir: dir.to_path_buf(), store_id, after, cursor: Cursor::new(segment) })
            }
            Opened::Torn(head) => Err(head.damage()),
        }
    }

    /// The next frame with records after the reader's beginning, as long as it begins no later than `upto`; `None` where
    /// that is all for now. The very first one may begin with records before it.
    ///
    /// `upto` is a position the writer has synced through: what [`Log::append`](super::Log::append) returned.
    pub fn next(&mut self, upto: Position) -> Result<Option<Frame<'_>>, LogError> {
        let mut looked_again = false;
        let (header, payload) = loop {
            if self.cursor.expected > upto {
                return Ok(None);
            }
            match self.cursor.step() {
                Ok(Step::Frame(header, payload)) => {
                    looked_again = false;
                    if header.last() > self.after {
                        break (header, payload);
                    }
                }
                // The file has grown since it was last looked at, or what was read ahead was being written.
                Ok(Step::End | Step::Bad(_)) if !looked_again => {
                    looked_again = true;
                    self.cursor.refresh().map_err(io_error("read", &self.cursor.segment.path))?;
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && !looked_again => {
                    looked_again = true;
                    self.cursor.refresh().map_err(io_error("read", &self.cursor.segment.path))?;
                }
                Ok(Step::End) => {
                    looked_again = false;
                    self.turn_page(upto)?;
                }
                Ok(Step::Bad(defect)) => {
                    return Err(bad_frame(self.cursor.segment.path.clone(), self.cursor.offset, &defect));
                }
                Err(source) => return Err(io_error("read", &self.cursor.segment.path)(source)),
            }
        };
        Ok(Some(Frame::checked(header, self.cursor.payload(payload))))
    }

    /// Goes on to the segment that begins where this one ended.
    fn turn_page(&mut self, upto: Position) -> Result<(), LogError> {
        let first = self.cursor.expected;
        let opened = match SegmentFile::open(&*self.disk, &self.dir, first, self.store_id) {
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let (segments, _) = list(&*self.disk, &self.dir)?;
                return Err(missing(&self.dir, first, &segments, upto));
            }
            opened => opened?,
        };
        match opened {
            Opened::Whole(segment) => {
                segment.check_term(self.cursor.term)?;
                self.cursor.turn_to(segment);
                Ok(())
            }
            Opened::Torn(head) => Err(head.damage()),
        }
    }
}

/// The records from `from` on are in no segment: up to where the next segment begins, or at least up to `through`.
pub(super) fn missing(dir: &Path, from: Position, segments: &[Position], through: Position) -> LogError {
    let next = segments.iter().find(|first| **first > from);
    let through = next.map_or(through, |first| Position(first.0 - 1));
    LogError::Missing { dir: dir.to_path_buf(), from, through }
}
