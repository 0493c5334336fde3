//! A reader's side of the log: where it is, the next frames, wait for more.
//!
//! Whatever is derived from the records (the search index, one day followers) reads the log from a position it remembers. A
//! reader that is registered keeps the segments behind its position, so that it finds them after a pause; but the log must
//! not grow because a reader is slow or dead. So one that would hold more than a number of bytes is **cut loose**: its
//! segments go, it is told so the next time it asks ([`FeedError::Behind`]), and it begins again from the records as they
//! are ([`Source::begin`]).

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::disk::Disk;
use crate::error::{BadRow, ReadError};
use crate::log::{Frame, Log, LogError, Reader};
use crate::position::Position;
use crate::records::{Effect, decode_record};
use crate::replication::History;
use crate::store::{Snapshot, Store};
use crate::writer::Status;

/// Most bytes of log that a reader may hold back beyond what the checkpoint needs; see [`Options`](crate::Options).
pub const FEED_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// Why a reader got nothing.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The log does not go back, or not yet on, to the reader's position: begin again from the records.
    #[error("the log has no records after {0} any more")]
    Behind(Position),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[source] Box<LogError>),
    /// A record cannot be read although its checksum holds.
    #[error("log record {position} cannot be decoded")]
    Record {
        /// Which.
        position: Position,
        /// Why.
        #[source]
        cause: BadRow,
    },
}

/// Where a registered reader stands.
#[derive(Debug)]
struct Place {
    /// What is at or before it is not needed any more.
    after: AtomicU64,
    cut: AtomicBool,
}

impl Place {
    fn new(after: Position) -> Arc<Place> {
        Arc::new(Place { after: AtomicU64::new(after.0), cut: AtomicBool::new(false) })
    }
}

/// All registered readers, as the writer sees them.
#[derive(Debug)]
pub(crate) struct Feeds {
    places: Mutex<Vec<Arc<Place>>>,
    /// Stands for the reader of the last run until one registers.
    expected: Mutex<Option<Arc<Place>>>,
    bytes_max: u64,
    arrival: Mutex<()>,
    arrived: Condvar,
}

impl Feeds {
    /// No readers yet; the log after `expected` is kept for one that will come.
    pub fn new(bytes_max: u64, expected: Option<Position>) -> Feeds {
        let expected = expected.map(Place::new);
        Feeds {
            places: Mutex::new(expected.iter().cloned().collect()),
            expected: Mutex::new(expected),
            bytes_max,
            arrival: Mutex::new(()),
            arrived: Condvar::new(),
        }
    }

    /// Up to where segments may go when the checkpoint stands at `checkpoint`. Readers that would hold too many are cut
    /// loose.
    pub fn hold(&self, log: &Log, checkpoint: Position) -> Position {
        let mut least = checkpoint;
        for place in self.places().iter().filter(|place| !place.cut.load(Ordering::Acquire)) {
            let after = Position(place.after.load(Ordering::Acquire));
            if after >= least {
                continue;
            }
            let bytes = log.bytes_between(after, checkpoint);
            if bytes > self.bytes_max {
                place.cut.store(true, Ordering::Release);
                tracing::warn!(
                    position = after.0,
                    bytes,
                    "a reader of the log is too far behind; its part of the log goes, and it will begin again from the records"
                );
            } else {
                least = after;
            }
        }
        least
    }

    /// Wakes readers that wait. The writer calls it after each batch, and whoever wants a reader to look around.
    pub fn wake(&self) {
        drop(self.arrival.lock().unwrap_or_else(PoisonError::into_inner));
        self.arrived.notify_all();
    }

    fn places(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, after: Position) -> Arc<Place> {
        let place = Place::new(after);
        let mut places = self.places();
        places.push(Arc::clone(&place));
        if let Some(expected) = self.expected.lock().unwrap_or_else(PoisonError::into_inner).take() {
            places.retain(|other| !Arc::ptr_eq(other, &expected));
        }
        place
    }

    fn leave(&self, place: &Arc<Place>) {
        self.places().retain(|other| !Arc::ptr_eq(other, place));
    }
}

/// Where readers come from: the records as they are, and the log of what changes them.
#[derive(Clone)]
pub struct Source {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) log_dir: PathBuf,
    pub(crate) store_id: [u8; 16],
    pub(crate) store: Arc<Store>,
    pub(crate) status: Arc<Status>,
    pub(crate) feeds: Arc<Feeds>,
    /// Dropped last: another process may open the records only when this one has closed them.
    pub(crate) _lock: Arc<dyn Send + Sync>,
}

impl Source {
    /// Names the store: a position in another one means something else.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// A consistent view of the records, at least as new as [`Source::position`].
    ///
    /// # Errors
    /// What reading says.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.store.snapshot()
    }

    /// The terms of the log, as far as it is durable.
    ///
    /// # Errors
    /// What reading says.
    pub fn history(&self) -> Result<History, ReadError> {
        let snapshot = self.snapshot()?;
        History::read(&snapshot, snapshot.position())
    }

    /// The last record that is durable and committed.
    pub fn position(&self) -> Position {
        Position(self.status.position.load(Ordering::Acquire))
    }

    /// A reader of what comes after `after`.
    ///
    /// # Errors
    /// [`FeedError::Behind`] where the log does not reach from there to now, or the log cannot be read.
    pub fn resume(&self, after: Position) -> Result<Feed, FeedError> {
        let place = self.feeds.register(after);
        let feed = Feed { source: self.clone(), place, reader: None, after };
        // A position the log has not come to is another history's.
        if after > self.position() {
            return Err(FeedError::Behind(after));
        }
        if after < self.position() { feed.opened() } else { Ok(feed) }
    }

    /// A reader of what comes after this moment. Whoever reads all records from snapshots taken from now on, and then
    /// follows, has missed nothing; it may see a change twice, in a snapshot and in the log.
    pub fn begin(&self) -> Feed {
        let after = self.position();
        Feed { source: self.clone(), place: self.feeds.register(after), reader: None, after }
    }

    /// Wakes every reader that waits, without news.
    pub fn wake(&self) {
        self.feeds.wake();
    }
}

/// A registered reader of the log.
pub struct Feed {
    source: Source,
    place: Arc<Place>,
    /// Opened at the first frame: where the log has nothing after the position there is no segment to open yet.
    reader: Option<Reader>,
    after: Position,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("after", &self.after).finish_non_exhaustive()
    }
}

impl Feed {
    fn opened(mut self) -> Result<Feed, FeedError> {
        let Source { disk, log_dir, store_id, .. } = &self.source;
        let reader =
            Reader::open(Arc::clone(disk), log_dir, *store_id, self.after).map_err(|error| self.failed(error))?;
        self.reader = Some(reader);
        Ok(self)
    }

    fn failed(&self, error: LogError) -> FeedError {
        match error {
            LogError::Missing { .. } => FeedError::Behind(self.after),
            error => FeedError::Log(Box::new(error)),
        }
    }

    /// The last record that was taken.
    pub fn position(&self) -> Position {
        self.after
    }

    /// Whether there is more to take now.
    pub fn has_more(&self) -> bool {
        self.source.position() > self.after
    }

    /// Takes the next frame, a group commit, and hands its effects to `each` in order; `None` where that is all for now.
    /// Gives the position it has come to.
    ///
    /// # Errors
    /// [`FeedError::Behind`] for a reader that was cut loose, or the log cannot be read. Nothing is missed in between: all
    /// effects before the error were handed out.
    pub fn take(&mut self, mut each: impl FnMut(Effect)) -> Result<Option<Position>, FeedError> {
        let before = self.after;
        let taken = self.take_frame(|frame, after| {
            for (position, record) in frame.records().skip_while(|(position, _)| *position <= after) {
                let effects = decode_record(record).map_err(|cause| FeedError::Record { position, cause })?;
                effects.into_iter().for_each(&mut each);
            }
            Ok(frame.header.last())
        })?;
        taken.transpose().inspect_err(|_| self.after = before)
    }

    /// Takes the next frame, and hands it to `each` with the position that was taken before it: records at or before that may be in
    /// it. `None` where that is all for now.
    ///
    /// # Errors
    /// As [`Feed::take`].
    pub fn take_frame<R>(&mut self, each: impl FnOnce(&Frame<'_>, Position) -> R) -> Result<Option<R>, FeedError> {
        if self.place.cut.load(Ordering::Acquire) {
            return Err(FeedError::Behind(self.after));
        }
        let upto = self.source.position();
        if upto <= self.after {
            return Ok(None);
        }
        if self.reader.is_none() {
            let Source { disk, log_dir, store_id, .. } = &self.source;
            let opened = Reader::open(Arc::clone(disk), log_dir, *store_id, self.after);
            self.reader = Some(opened.map_err(|error| self.failed(error))?);
        }
        let (after, reader) = (self.after, self.reader.as_mut().expect("it was opened above"));
        let frame = match reader.next(upto) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let last = frame.header.last();
        let taken = each(&frame, after);
        self.after = last;
        Ok(Some(taken))
    }

    /// Says that what is at or before `position` is kept elsewhere by now: its segments may go.
    pub fn release(&self, position: Position) {
        self.place.after.fetch_max(position.0, Ordering::AcqRel);
    }

    /// Waits until there is more, somebody wakes it, or this long. Whether there is more.
    pub fn wait(&self, longest: Duration) -> bool {
        let until = Instant::now() + longest;
        let feeds = &self.source.feeds;
        let arrival = feeds.arrival.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_more() {
            let left = until.saturating_duration_since(Instant::now());
            drop(feeds.arrived.wait_timeout(arrival, left).unwrap_or_else(PoisonError::into_inner));
        }
        self.has_more()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.source.feeds.leave(&self.place);
    }
}
