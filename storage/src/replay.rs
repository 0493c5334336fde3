//! The log since the checkpoint, applied again at start.

use std::io;
use std::path::Path;

use crate::directory::io_error;
use crate::disk::Disk;
use crate::error::OpenError;
use crate::log::{self, LogError};
use crate::position::{Position, Term};
use crate::records::{Effect, decode_record};
use crate::store::{State, Store, Tables, put_state};

/// Records applied in one redb commit, and their bytes, as far as one record allows.
const BATCH: usize = 4096;
const BATCH_BYTES: usize = 32 << 20;

/// Refuses to rebuild a lost checkpoint from a log whose beginning is gone, before an empty one stands where the lost one
/// may be put back.
pub fn require_whole_log(disk: &dyn Disk, log_dir: &Path) -> Result<(), OpenError> {
    let names = match disk.list(log_dir) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(()),
        listed => listed.map_err(io_error(log_dir))?,
    };
    let from = Position::START.next();
    match names.iter().filter_map(|name| log::segment::first_of_name(name)).min().filter(|oldest| *oldest > from) {
        None => Ok(()),
        Some(oldest) => {
            let through = Position(oldest.0 - 1);
            Err(OpenError::Log(Box::new(LogError::Missing { dir: log_dir.to_owned(), from, through })))
        }
    }
}

/// Applies the log's records to redb in batches.
pub struct Replay<'a> {
    store: &'a Store,
    state: State,
    effects: Vec<Effect>,
    records: usize,
    bytes: usize,
}

impl Replay<'_> {
    /// Begins at the checkpoint.
    pub fn new(store: &Store, state: State) -> Replay<'_> {
        Replay { store, state, effects: Vec::new(), records: 0, bytes: 0 }
    }

    /// Takes the next record; it is applied with its batch.
    pub fn take(&mut self, position: Position, term: Term, record: &[u8]) -> Result<(), OpenError> {
        self.effects.extend(decode_record(record).map_err(|cause| OpenError::Record { position, cause })?);
        self.state.position = position;
        self.state.term = term;
        self.records += 1;
        self.bytes += record.len();
        if self.records >= BATCH || self.bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// Applies what is left and gives the state at the end of the log.
    pub fn finish(mut self) -> Result<State, OpenError> {
        self.flush()?;
        Ok(self.state)
    }

    fn flush(&mut self) -> Result<(), OpenError> {
        if self.records == 0 {
            return Ok(());
        }
        let apply = || -> Result<(), redb::Error> {
            let txn = self.store.begin()?;
            {
                let tables = Tables::new(&txn);
                for effect in &self.effects {
                    tables.apply(effect)?;
                }
            }
            put_state(&txn, self.state)?;
            Ok(txn.commit()?)
        };
        apply().map_err(|error| OpenError::Checkpoint(Box::new(error)))?;
        self.effects.clear();
        self.records = 0;
        self.bytes = 0;
        Ok(())
    }
}
