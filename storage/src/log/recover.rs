//! The end of the log after a crash: what is a write that did not finish, and what is damage.
//!
//! Everything is read and judged before anything is changed. Segments that the checkpoint covers wholly are judged by
//! their headers alone; a reader that still wants one judges it then.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::error::{LogError, bad_frame, io_error};
use super::frame::{self, Seed};
use super::read::{Cursor, Opened, SegmentFile, Step, TornHead, list, missing};
use super::segment;
use crate::disk::{Disk, DiskFile};
use crate::position::{Position, Term};

/// Bytes searched at once for a frame behind damage.
const SEARCH_BYTES: usize = 256 << 10;

/// A segment and how long it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub first: Position,
    pub bytes: u64,
}

/// A log that may be appended to.
pub(super) struct Tail {
    /// All segments, oldest first. The last is the one to write to; its length is that of its whole frames.
    pub segments: VecDeque<Kept>,
    pub file: std::sync::Arc<dyn DiskFile>,
    pub seed: Seed,
    pub last: Position,
    pub term: Term,
    pub written_at_ms: Option<u64>,
    pub torn_bytes: u64,
    pub strangers: Vec<String>,
}

/// Begins a log whose first record will be the one after `after`.
pub(super) fn begin(
    disk: &dyn Disk,
    dir: &Path,
    store_id: [u8; 16],
    after: Position,
    term: Term,
) -> Result<Tail, LogError> {
    let header = segment::Header { store_id, first: after.next(), term };
    let (file, seed) = segment::begin(disk, dir, &header)
        .map_err(|error| io_error("begin", segment::path(dir, header.first))(error.into()))?;
    let kept = Kept { first: header.first, bytes: segment::HEADER_BYTES as u64 };
    Ok(Tail {
        segments: VecDeque::from([kept]),
        file,
        seed,
        last: after,
        term,
        written_at_ms: None,
        torn_bytes: 0,
        strangers: Vec::new(),
    })
}

/// The segments in a directory: those with a whole header, and a last one that may have been interrupted at birth.
fn survey(
    disk: &dyn Disk,
    dir: &Path,
    store_id: [u8; 16],
    segments: &[Position],
) -> Result<(Vec<SegmentFile>, Option<TornHead>), LogError> {
    let mut whole: Vec<SegmentFile> = Vec::with_capacity(segments.len());
    let mut torn = None;
    for &first in segments {
        if let Some(head) = torn.take() {
            let head: TornHead = head;
            return Err(head.damage());
        }
        match SegmentFile::open(disk, dir, first, store_id)? {
            Opened::Torn(head) => torn = Some(head),
            Opened::Whole(segment) => {
                if let Some(before) = whole.last() {
                    segment.check_term(before.header.term)?;
                }
                whole.push(segment);
            }
        }
    }
    Ok((whole, torn))
}

/// Removes what an interrupted roll left.
fn remove(disk: &dyn Disk, dir: &Path, torn: &TornHead) -> Result<(), LogError> {
    disk.remove(&torn.path).map_err(io_error("remove", &torn.path))?;
    disk.sync_dir(dir).map_err(io_error("sync", dir))
}

/// Begins a log after a checkpoint that came without one. A begin that was interrupted may be repeated.
pub(super) fn create(
    disk: &dyn Disk,
    dir: &Path,
    store_id: [u8; 16],
    after: Position,
    term: Term,
) -> Result<(), LogError> {
    let (segments, _) = list(disk, dir)?;
    let (whole, torn) = survey(disk, dir, store_id, &segments)?;
    if !whole.is_empty() {
        return Err(LogError::AlreadyThere { dir: dir.to_path_buf() });
    }
    if let Some(torn) = torn {
        remove(disk, dir, &torn)?;
    }
    begin(disk, dir, store_id, after, term).map(|_| ())
}

/// Judges the log of a store whose durable checkpoint stands at `applied`, cuts a torn end, and syncs what is left.
pub(super) fn recover(disk: &dyn Disk, dir: &Path, store_id: [u8; 16], applied: Position) -> Result<Tail, LogError> {
    let (segments, strangers) = list(disk, dir)?;
    let (mut whole, torn_head) = survey(disk, dir, store_id, &segments)?;

    if whole.is_empty() && applied == Position::START {
        // A new store, or one that lost its power while it was made: its first segment has no frame yet.
        let mut torn_bytes = 0;
        if let Some(torn) = torn_head {
            if torn.first != Position::START.next() {
                return Err(torn.damage());
            }
            remove(disk, dir, &torn)?;
            torn_bytes = torn.length;
        }
        let tail = begin(disk, dir, store_id, Position::START, Term(0))?;
        return Ok(Tail { torn_bytes, strangers, ..tail });
    }
    if whole.is_empty() {
        // A checkpoint without its log, or one whose new log was not finished: Log::create is for that.
        let behind = LogError::BehindCheckpoint { dir: dir.to_path_buf(), applied, last: Position::START };
        return Err(torn_head.map_or(behind, |torn| torn.damage()));
    }
    let Some(start) = whole.iter().rposition(|segment| segment.header.first <= applied.next()) else {
        return Err(missing(dir, applied.next(), &segments, applied.next()));
    };

    let kept = whole.iter().map(|segment| Kept { first: segment.header.first, bytes: segment.length }).collect();
    let walked = walk(dir, whole.drain(start..), torn_head.as_ref(), applied)?;

    // From here on the log is accepted.
    if let Some(torn) = &torn_head {
        remove(disk, dir, torn)?;
    }
    walked.settle().map_err(io_error("settle the end of", &walked.segment.path))?;
    disk.sync_dir(dir).map_err(io_error("sync", dir))?;

    let mut segments: VecDeque<Kept> = kept;
    if let Some(last) = segments.back_mut() {
        last.bytes = walked.length;
    }
    Ok(Tail {
        segments,
        torn_bytes: walked.segment.length - walked.length + torn_head.map_or(0, |torn| torn.length),
        file: walked.segment.file,
        seed: walked.segment.seed,
        last: walked.last,
        term: walked.term,
        written_at_ms: walked.written_at_ms,
        strangers,
    })
}

/// What a walk over all frames found in the last segment.
struct Walked {
    segment: SegmentFile,
    /// Where its whole frames end.
    length: u64,
    /// Where the last of them begins; none where it has none.
    last_frame: Option<u64>,
    last: Position,
    term: Term,
    written_at_ms: Option<u64>,
}

/// Walks the frames of segments that follow each other, the last of the log among them.
fn walk(
    dir: &Path,
    segments: impl IntoIterator<Item = SegmentFile>,
    torn_head: Option<&TornHead>,
    applied: Position,
) -> Result<Walked, LogError> {
    let mut segments = segments.into_iter().peekable();
    let mut cursor = Cursor::new(segments.next().expect("the segment to start from is among them"));
    let mut written_at_ms = None;
    loop {
        let mut last_frame = None;
        let torn = loop {
            let at = cursor.offset;
            match cursor.step().map_err(io_error("read", &cursor.segment.path))? {
                Step::Frame(header, _) => {
                    last_frame = Some(at);
                    written_at_ms = Some(header.written_at_ms);
                }
                Step::End => break None,
                Step::Bad(defect) => break Some(defect),
            }
        };
        let next = segments.peek().map(|segment| segment.header.first).or(torn_head.map(|head| head.first));
        if let Some(defect) = &torn {
            let file = cursor.segment.path.clone();
            if next.is_some() || !defect.may_be_torn() {
                return Err(bad_frame(file, cursor.offset, defect));
            }
            if let Some(found) = evidence(&cursor, applied).map_err(io_error("read", &file))? {
                let (expected, bad) = defect.expected_and_found();
                let found = format!("{bad}, and {found}");
                return Err(LogError::Damaged { file, offset: cursor.offset, expected, found });
            }
        }
        if let Some(first) = next
            && first != cursor.expected
        {
            if first > cursor.expected {
                return Err(missing(dir, cursor.expected, &[first], cursor.expected));
            }
            let (expected, found) = (format!("the end of records before {first}"), "later records".to_string());
            return Err(LogError::Damaged { file: cursor.segment.path, offset: cursor.offset, expected, found });
        }
        let Some(segment) = segments.next() else {
            let last = Position(cursor.expected.0 - 1);
            if last < applied {
                return Err(LogError::BehindCheckpoint { dir: dir.to_path_buf(), applied, last });
            }
            let (length, term) = (cursor.offset, cursor.term);
            return Ok(Walked { segment: cursor.segment, length, last_frame, last, term, written_at_ms });
        };
        segment.check_term(cursor.term)?;
        cursor.turn_to(segment);
    }
}

/// What speaks against a torn write where the last segment stops being readable.
fn evidence(cursor: &Cursor, applied: Position) -> io::Result<Option<String>> {
    if cursor.expected <= applied {
        return Ok(Some(format!("the checkpoint holds record {applied}, which was here")));
    }
    let tail = cursor.segment.length - cursor.offset;
    let frame_bytes_max = (frame::HEADER_BYTES + frame::MAX_FRAME_BYTES) as u64;
    if tail > frame_bytes_max {
        return Ok(Some(format!("{tail} bytes follow, more than one write has")));
    }
    let later = find_header(&*cursor.segment.file, cursor.offset + 1..cursor.segment.length, cursor.segment.seed)?;
    Ok(later.map(|offset| format!("a later frame begins at byte {offset}")))
}

/// Looks for a whole frame header at any byte of a range. A header alone proves that everything before it was synced,
/// and since its checksum goes on from its segment's, no client can have written one.
fn find_header(file: &dyn DiskFile, range: std::ops::Range<u64>, seed: Seed) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; SEARCH_BYTES];
    let mut from = range.start;
    while range.end.saturating_sub(from) >= frame::HEADER_BYTES as u64 {
        let length = (range.end - from).min(SEARCH_BYTES as u64) as usize;
        let bytes = &mut buffer[..length];
        file.read_exact_at(from, bytes)?;
        let candidates = length - frame::HEADER_BYTES + 1;
        for (at, window) in bytes.windows(frame::HEADER_BYTES).enumerate() {
            let window: &[u8; frame::HEADER_BYTES] = window.try_into().expect("a window has that size");
            // A header that is whole and out of bounds is no torn write either.
            let torn = window[..4] != frame::MAGIC
                || frame::Header::decode(window, seed).is_err_and(|defect| defect.may_be_torn());
            if !torn {
                return Ok(Some(from + at as u64));
            }
        }
        from += candidates as u64;
    }
    Ok(None)
}

impl Walked {
    /// Cuts the torn end, writes the last whole frame again, and syncs.
    ///
    /// Again, because the process before may have died of a sync that failed: then the kernel takes the frame's pages
    /// for clean, and a sync alone would leave it in memory only. Earlier frames were each covered by a sync that
    /// returned, before the next was written.
    fn settle(&self) -> io::Result<()> {
        let file = &self.segment.file;
        if self.length < self.segment.length {
            file.set_len(self.length)?;
        }
        let (offset, bytes) = match self.last_frame {
            Some(offset) => {
                let mut bytes = vec![0; (self.length - offset) as usize];
                file.read_exact_at(offset, &mut bytes)?;
                (offset, bytes)
            }
            None => (0, self.segment.header.encode().0.to_vec()),
        };
        file.write_all_at(offset, &bytes)?;
        file.sync_data()
    }
}
