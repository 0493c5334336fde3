//! A file of records that is being made of rows from elsewhere: a backup, another node.

use crate::records::Effect;
use crate::store::{State, Store};

/// Bytes of rows after which what has come is made durable: until then it takes memory, in redb and as pages that the system has to
/// keep.
const DURABLE_BYTES: usize = 64 << 20;

/// Such a file. Nobody reads it before [`Filling::finish`]; what says that it is not whole yet is beside it, and is its maker's.
pub(crate) struct Filling {
    store: Store,
    state: State,
    /// Bytes of rows that are not durable yet.
    waiting: usize,
}

impl Filling {
    /// Fills this one; it will stand at `state`.
    pub fn new(store: Store, state: State) -> Filling {
        Filling { store, state, waiting: 0 }
    }

    /// Puts rows.
    ///
    /// # Errors
    /// The disk's.
    pub fn put(&mut self, rows: &[Effect]) -> Result<(), redb::Error> {
        self.store.fill(rows)?;
        let bytes = |row: &Effect| row.key.len() + row.value.as_ref().map_or(0, Vec::len);
        self.waiting += rows.iter().map(bytes).sum::<usize>();
        if self.waiting >= DURABLE_BYTES {
            self.store.checkpoint(self.state)?;
            self.waiting = 0;
        }
        Ok(())
    }

    /// Makes all of it durable and closes it; gives where it stands.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(self) -> Result<State, redb::Error> {
        self.store.checkpoint(self.state)?;
        Ok(self.state)
    }
}
