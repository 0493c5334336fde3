//! All records as they are at a position, from one node to another.
//!
//! The sender reads one consistent snapshot, table by table, in blocks. The receiver writes them to a directory beside the store,
//! checks at the end that all have come, and leaves a log there that begins after them. Nothing of the store itself is touched:
//! that is [`super::install`]'s, at the next start. A transfer that is cut is begun again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc32fast::Hasher;

use crate::disk::{self, Disk};
use crate::error::ReadError;
use crate::feed::Source;
use crate::filling::Filling;
use crate::log::{Log, LogError, LogOptions};
use crate::position::Position;
use crate::records::{Effect, TableNo};
use crate::replication::Versions;
use crate::replication::messages::Message;
use crate::store::{self, RawRow, State, Store};
use crate::walk::Walk;

/// Where records wait for their place, in the data directory.
pub(crate) const DIR: &str = "incoming";
/// The file there that says that they are all there.
pub(crate) const READY: &str = "READY";
/// Bytes of rows in one message; more only where a single row has more.
const BLOCK_BYTES: usize = 1 << 20;

/// Sends all records.
pub struct Sender {
    walk: Walk,
    state: State,
    stage: Stage,
    sum: Sum,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Rows,
    Done,
}

/// What both sides count.
#[derive(Default)]
struct Sum {
    rows: u64,
    hasher: Hasher,
}

impl Sum {
    fn add(&mut self, table: TableNo, rows: &[RawRow]) {
        for (key, value) in rows {
            self.rows += 1;
            self.hasher.update(&table.to_le_bytes());
            for part in [key, value] {
                self.hasher.update(&(part.len() as u64).to_le_bytes());
                self.hasher.update(part);
            }
        }
    }
}

impl Sender {
    /// Sends what there is now. Whoever begins a feed of the log before has, with it, everything that comes later.
    ///
    /// # Errors
    /// What reading says.
    pub fn new(source: &Source) -> Result<Sender, ReadError> {
        let snapshot = source.snapshot()?;
        let state = snapshot.state()?;
        Ok(Sender { walk: Walk::new(snapshot)?, state, stage: Stage::Begin, sum: Sum::default() })
    }

    /// The position that the records stand at.
    pub fn position(&self) -> Position {
        self.state.position
    }

    /// The next message; `None` after the last one.
    ///
    /// # Errors
    /// What reading says.
    pub fn next_message(&mut self) -> Result<Option<Message>, ReadError> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Rows;
                let rows = self.walk.count()?;
                let State { position, term, store_id: store, seed } = self.state;
                Ok(Some(Message::Begin { protocol: Versions::OWN.newest, store, seed, position, term, rows }))
            }
            Stage::Rows => {
                if let Some((table, rows)) = self.walk.next_rows(BLOCK_BYTES)? {
                    self.sum.add(table, &rows);
                    return Ok(Some(Message::Rows(table, rows)));
                }
                self.stage = Stage::Done;
                let Sum { rows, hasher } = std::mem::take(&mut self.sum);
                Ok(Some(Message::End { rows, checksum: hasher.finalize() }))
            }
            Stage::Done => Ok(None),
        }
    }
}

/// Why records were not taken. Taking them can be begun again.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The disk.
    #[error("{path} cannot be used")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file of records.
    #[error("the records cannot be written")]
    Records(#[source] Box<redb::Error>),
    /// The log behind them.
    #[error("the log behind the records cannot be begun")]
    Log(#[from] LogError),
    /// They are of another store than what is here.
    #[error("the records are another store's; to follow that leader, name an empty data directory")]
    OtherStore,
    /// What came is not all records of one moment, as they were sent.
    #[error("the records that came are not those that were sent: {0}")]
    Wrong(&'static str),
    /// The leader speaks another protocol.
    #[error(
        "the leader sends records by protocol {0}, which this release does not know; install the leader's release here"
    )]
    Protocol(u16),
}

impl From<redb::Error> for TakeError {
    fn from(error: redb::Error) -> TakeError {
        TakeError::Records(Box::new(error))
    }
}

/// Takes all records of another node.
pub struct Receiver {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cache_bytes: usize,
    /// Whose records are wanted; `None` where any are.
    wanted: Option<[u8; 16]>,
    /// What is being filled, and how many rows were promised.
    taking: Option<(Filling, u64)>,
    sum: Sum,
    last: Option<(TableNo, Vec<u8>)>,
}

impl Receiver {
    /// Makes room for them in a data directory. What an earlier try left there goes.
    ///
    /// # Errors
    /// The disk's.
    pub fn begin(
        disk: &Arc<dyn Disk>,
        data_dir: &Path,
        cache_bytes: usize,
        wanted: Option<[u8; 16]>,
    ) -> Result<Receiver, TakeError> {
        let dir = data_dir.join(DIR);
        let fail = |source| TakeError::Io { path: dir.clone(), source };
        disk.create_dir_all(&dir.join("log")).map_err(fail)?;
        clear(&**disk, &dir).map_err(fail)?;
        let disk = Arc::clone(disk);
        Ok(Receiver { disk, dir, cache_bytes, wanted, taking: None, sum: Sum::default(), last: None })
    }

    /// How many rows there will be, and how many have come.
    pub fn progress(&self) -> Option<(u64, u64)> {
        self.taking.as_ref().map(|(_, rows)| (*rows, self.sum.rows))
    }

    /// Takes the next message. `Some` when all records are there, durable, and will be used from the next start on: the position
    /// they stand at.
    ///
    /// # Errors
    /// The disk's, or what came is not what was sent.
    pub fn take(&mut self, message: Message) -> Result<Option<Position>, TakeError> {
        match message {
            Message::Begin { protocol, store, seed, position, term, rows } if self.taking.is_none() => {
                if !Versions::OWN.has(protocol) {
                    return Err(TakeError::Protocol(protocol));
                }
                if self.wanted.is_some_and(|wanted| wanted != store) {
                    return Err(TakeError::OtherStore);
                }
                let path = self.dir.join(store::FILE);
                let file = self.disk.open(&path, true).map_err(|source| TakeError::Io { path, source })?;
                let into = Store::over(file, self.cache_bytes)?;
                let state = State { position, term, store_id: store, seed };
                self.taking = Some((Filling::new(into, state), rows));
                Ok(None)
            }
            Message::Rows(table, rows) => {
                let Some((into, _)) = &mut self.taking else {
                    return Err(TakeError::Wrong("rows come before their beginning"));
                };
                self.sum.add(table, &rows);
                if let Some((last_key, _)) = rows.last() {
                    let after = self.last.replace((table, last_key.clone()));
                    // Whatever comes twice, or in another order, would be counted and still be missing.
                    if after.is_some_and(|(no, key)| (no, &key) >= (table, &rows[0].0))
                        || !rows.is_sorted_by(|one, other| one.0 < other.0)
                    {
                        return Err(TakeError::Wrong("rows are out of order"));
                    }
                }
                let put = |(key, value)| Effect { table, key, value: Some(value) };
                into.put(&rows.into_iter().map(put).collect::<Vec<Effect>>())?;
                Ok(None)
            }
            Message::End { rows, checksum } => {
                let Some((into, promised)) = self.taking.take() else {
                    return Err(TakeError::Wrong("an end comes before its beginning"));
                };
                let Sum { rows: came, hasher } = std::mem::take(&mut self.sum);
                if rows != came || promised != came {
                    return Err(TakeError::Wrong("some are missing"));
                }
                if hasher.finalize() != checksum {
                    return Err(TakeError::Wrong("their checksum does not fit"));
                }
                self.finish(into).map(Some)
            }
            _ => Err(TakeError::Wrong("a message came that cannot stand among them")),
        }
    }

    fn finish(&self, into: Filling) -> Result<Position, TakeError> {
        let fail = |source| TakeError::Io { path: self.dir.clone(), source };
        let state = into.finish()?;
        self.disk.sync_dir(&self.dir).map_err(fail)?;
        let options = LogOptions::new(state.store_id);
        Log::create(&*self.disk, &self.dir.join("log"), &options, state.position, state.term)?;
        // From here on the next start takes them.
        disk::replace(&*self.disk, &self.dir.join("READY.new"), &self.dir.join(READY), |file| {
            file.write_all_at(0, format!("keyward records at {}\n", state.position).as_bytes())?;
            file.sync_data()
        })
        .map_err(fail)?;
        Ok(state.position)
    }
}

/// Empties the place where records wait. What says that they are all there goes first.
pub(crate) fn clear(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let remove = |path: PathBuf| match disk.remove(&path) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    remove(dir.join(READY))?;
    disk.sync_dir(dir)?;
    for dir in [dir.join("log"), dir.to_owned()] {
        for name in disk.list(&dir)? {
            remove(dir.join(name))?;
        }
        disk.sync_dir(&dir)?;
    }
    Ok(())
}
