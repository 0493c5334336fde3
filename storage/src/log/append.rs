//! The writer's end of the log.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::error::{LogError, OpenLogError, io_error};
use super::frame::{self, Seed};
use super::read::Reader;
use super::recover::{self, Kept, Tail};
use super::segment::{self, BeginError};
use crate::disk::{Disk, DiskFile, is_no_space};
use crate::position::{Position, Term};

/// The length a segment has when the next one is begun: 64 MiB.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// The encode buffer is given back after a batch larger than this.
const BUFFER_KEPT_BYTES: usize = 4 << 20;

/// How a log is kept.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A frame that would make a segment longer than this begins a new one. A frame larger than this has a segment to
    /// itself.
    pub segment_bytes: u64,
    /// The store the log belongs to; files of another one are refused.
    pub store_id: [u8; 16],
}

impl LogOptions {
    /// The usual options for a store.
    pub fn new(store_id: [u8; 16]) -> LogOptions {
        LogOptions { segment_bytes: SEGMENT_BYTES_DEFAULT, store_id }
    }
}

/// What opening a log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The newest record.
    pub last: Position,
    /// The newest term. 0 for a new log.
    pub term: Term,
    /// When the last frame was written, unix milliseconds; none where the newest segments needed have no frame. A clock
    /// that now shows less was set back.
    pub written_at_ms: Option<u64>,
    /// Records that were replayed.
    pub replayed: u64,
    /// Bytes of an unfinished write that were cut off. None of it was ever acknowledged.
    pub torn_bytes: u64,
    /// Files in the log's directory that are no segments; they were left alone.
    pub strangers: Vec<String>,
}

/// Why records were not appended. In every case none of them is in the log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The disk is full. What was written of the batch has been cut off again; the log goes on working, so try later.
    #[error("no space for the log")]
    NoSpace(#[source] io::Error),
    /// The batch is more than one frame takes (`MAX_RECORDS_PER_FRAME`, `MAX_FRAME_BYTES`). Nothing was written.
    #[error("a batch of {records} records is more than one frame of the log takes")]
    TooLarge {
        /// Records in it.
        records: usize,
    },
    /// The writer's reign is over: the log holds a later term. Nothing was written.
    #[error("term {} is over, the log is in term {}", term.0, newest.0)]
    StaleTerm {
        /// The writer's.
        term: Term,
        /// The log's.
        newest: Term,
    },
    /// The disk can no longer be trusted: a write other than into a full disk, or a sync, failed. The process must stop,
    /// since nobody knows what is on disk; recovery finds out. Every later append fails like this too. The batch may
    /// yet be found by recovery.
    #[error("the log cannot be written")]
    Fatal(#[source] io::Error),
}

/// The log, with the right to append: a store has one.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: LogOptions,
    /// Oldest first; the last one is being written, and its length is that of its whole frames.
    segments: VecDeque<Kept>,
    file: Arc<dyn DiskFile>,
    seed: Seed,
    last: Position,
    term: Term,
    buffer: Vec<u8>,
    bytes_written: u64,
    sync_time: Duration,
    failed: bool,
}

impl Log {
    /// Opens the log of a store whose durable checkpoint stands at `applied`; hands every record after `applied`, in
    /// order, to `replay`, and is then ready to append.
    ///
    /// All that is replayed is on disk before the first record is handed out. A directory without a log is a new store
    /// if `applied` is [`Position::START`] and a loss otherwise: a checkpoint that comes without its log, as from a
    /// backup, needs [`Log::create`] first.
    pub fn open<E: std::error::Error + 'static>(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: LogOptions,
        applied: Position,
        mut replay: impl FnMut(Position, Term, &[u8]) -> Result<(), E>,
    ) -> Result<(Log, Recovered), OpenLogError<E>> {
        disk.create_dir_all(dir).map_err(io_error("make", dir))?;
        let tail = recover::recover(&*disk, dir, options.store_id, applied)?;
        let Tail { segments, file, seed, last, term, written_at_ms, torn_bytes, strangers } = tail;

        let mut replayed = 0;
        if last > applied {
            let mut reader = Reader::open(Arc::clone(&disk), dir, options.store_id, applied)?;
            while let Some(frame) = reader.next(last)? {
                for (position, record) in frame.records().skip_while(|(position, _)| *position <= applied) {
                    replay(position, frame.header.term, record)
                        .map_err(|source| OpenLogError::Replay { position, source })?;
                    replayed += 1;
                }
            }
        }

        let recovered = Recovered { last, term, written_at_ms, replayed, torn_bytes, strangers };
        let dir = dir.to_path_buf();
        let buffer = Vec::new();
        Ok((
            Log {
                disk,
                dir,
                options,
                segments,
                file,
                seed,
                last,
                term,
                buffer,
                bytes_written: 0,
                sync_time: Duration::ZERO,
                failed: false,
            },
            recovered,
        ))
    }

    /// Begins a log whose first record will be the one after `after`: for a checkpoint that was restored or fetched
    /// without a log. Refused where a log is. May be repeated if it was interrupted; [`Log::open`] comes next.
    pub fn create(
        disk: &dyn Disk,
        dir: &Path,
        options: &LogOptions,
        after: Position,
        term: Term,
    ) -> Result<(), LogError> {
        disk.create_dir_all(dir).map_err(io_error("make", dir))?;
        recover::create(disk, dir, options.store_id, after, term)
    }

    /// Appends these records as one frame and returns the last one's position once the frame is synced. No records: no
    /// frame.
    ///
    /// One write and one sync; now and then a new segment before that.
    pub fn append(
        &mut self,
        term: Term,
        written_at_ms: u64,
        records: &[impl AsRef<[u8]>],
    ) -> Result<Position, AppendError> {
        if self.failed {
            return Err(AppendError::Fatal(io::Error::other("an earlier failure has stopped the log")));
        }
        if term < self.term {
            return Err(AppendError::StaleTerm { term, newest: self.term });
        }
        if records.is_empty() {
            return Ok(self.last);
        }
        let payload_bytes = frame::payload_bytes(records).ok_or(AppendError::TooLarge { records: records.len() })?;
        let frame_bytes = frame::HEADER_BYTES as u64 + u64::from(payload_bytes);
        let length = self.writing().bytes;
        if length > segment::HEADER_BYTES as u64 && length + frame_bytes > self.options.segment_bytes {
            self.roll(term)?;
        }

        let header = frame::Header {
            payload_bytes,
            records: records.len() as u32,
            first: self.last.next(),
            term,
            synced_through: self.last,
            written_at_ms,
            payload_crc: 0, // encode() knows it
        };
        frame::encode(&mut self.buffer, header, self.seed, records);
        let offset = self.writing().bytes;
        if let Err(error) = self.file.write_all_at(offset, &self.buffer) {
            if !is_no_space(&error) {
                return Err(self.fatal(error));
            }
            // The cut is synced at once: the next frame may go to a new segment, and only the last one may have a torn
            // end.
            return Err(match self.file.set_len(offset).and_then(|()| self.file.sync_data()) {
                Ok(()) => AppendError::NoSpace(error),
                Err(error) => self.fatal(error),
            });
        }
        let began = Instant::now();
        if let Err(error) = self.file.sync_data() {
            return Err(self.fatal(error));
        }
        self.sync_time = began.elapsed();

        self.writing_mut().bytes += frame_bytes;
        self.bytes_written += frame_bytes;
        self.last = header.last();
        self.term = term;
        if self.buffer.capacity() > BUFFER_KEPT_BYTES {
            self.buffer = Vec::new();
        }
        Ok(self.last)
    }

    /// Begins a new segment, unless the one being written has no frame: then the others can be removed as soon as nobody
    /// needs them.
    pub fn begin_segment(&mut self) -> Result<(), AppendError> {
        if self.writing().bytes > segment::HEADER_BYTES as u64 { self.roll(self.term) } else { Ok(()) }
    }

    /// Begins a new segment after the newest record.
    fn roll(&mut self, term: Term) -> Result<(), AppendError> {
        let header = segment::Header { store_id: self.options.store_id, first: self.last.next(), term };
        match segment::begin(&*self.disk, &self.dir, &header) {
            Ok((file, seed)) => {
                self.file = file;
                self.seed = seed;
                self.term = term;
                self.segments.push_back(Kept { first: header.first, bytes: segment::HEADER_BYTES as u64 });
                self.bytes_written += segment::HEADER_BYTES as u64;
                Ok(())
            }
            Err(BeginError::Unwritten(error)) if is_no_space(&error) => {
                // A smaller batch may still fit the old segment and move the position on: the name must be gone by then.
                let path = segment::path(&self.dir, header.first);
                let removed = match self.disk.remove(&path) {
                    Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
                    removed => removed.and_then(|()| self.disk.sync_dir(&self.dir)),
                };
                Err(match removed {
                    Ok(()) => AppendError::NoSpace(error),
                    Err(error) => self.fatal(error),
                })
            }
            Err(error) => Err(self.fatal(error.into())),
        }
    }

    fn fatal(&mut self, error: io::Error) -> AppendError {
        self.failed = true;
        AppendError::Fatal(error)
    }

    fn writing(&self) -> &Kept {
        self.segments.back().expect("a log has a segment")
    }

    fn writing_mut(&mut self) -> &mut Kept {
        self.segments.back_mut().expect("a log has a segment")
    }

    /// Removes segments whose records are all at or before `upto`, never the one being written, and says how many.
    /// Whoever calls this knows every reader and the durable checkpoint: `upto` is the least of their positions.
    ///
    /// They go oldest first, each durably before the next, so that no crash leaves a hole. After an error some of them
    /// are gone and the log goes on working.
    pub fn remove_through(&mut self, upto: Position) -> io::Result<usize> {
        let mut removed = 0;
        while let Some(next) = self.segments.get(1)
            && next.first <= upto.next()
        {
            match self.disk.remove(&segment::path(&self.dir, self.first_kept())) {
                Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
            self.disk.sync_dir(&self.dir)?;
            self.segments.pop_front();
            removed += 1;
        }
        Ok(removed)
    }

    /// Bytes of the segments that [`Log::remove_through`] would remove for `upto` and would not for `after`.
    pub fn bytes_between(&self, after: Position, upto: Position) -> u64 {
        let behind = self.segments.iter().zip(self.segments.iter().skip(1));
        let held = behind.filter(|(_, next)| next.first > after.next() && next.first <= upto.next());
        held.map(|(segment, _)| segment.bytes).sum()
    }

    /// The newest position up to which segments may go so that at least so many bytes are left, where there are so many.
    pub fn keeping(&self, bytes: u64) -> Position {
        let mut left = 0;
        for segment in self.segments.iter().rev() {
            left += segment.bytes;
            if left >= bytes {
                return Position(segment.first.0 - 1);
            }
        }
        Position::START
    }

    /// A reader of the records after `after`, for use beside this writer.
    pub fn reader(&self, after: Position) -> Result<Reader, LogError> {
        Reader::open(Arc::clone(&self.disk), &self.dir, self.options.store_id, after)
    }

    /// The newest record. It is synced, and may be read.
    pub fn last(&self) -> Position {
        self.last
    }

    /// The newest term in the log.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The oldest record that is still in the log; the one after [`Log::last`] where there is none.
    pub fn first_kept(&self) -> Position {
        self.segments.front().expect("a log has a segment").first
    }

    /// Bytes appended since the log was opened.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written
    }

    /// How long the sync of the newest frame took.
    pub fn sync_time(&self) -> Duration {
        self.sync_time
    }

    /// Bytes in all segments.
    pub fn total_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }
}
