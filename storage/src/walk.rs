//! All records of one moment, from the first row to the last: for a backup, and for another node.

use crate::error::ReadError;
use crate::records::TableNo;
use crate::store::{RawRow, Snapshot};

/// A way through all tables of a snapshot, those that this build does not know among them.
pub(crate) struct Walk {
    snapshot: Snapshot,
    /// Tables that are left; the last one may be begun.
    tables: Vec<TableNo>,
    /// The last key that was given of that one.
    after: Option<Vec<u8>>,
}

impl Walk {
    /// Begins before the first row.
    pub fn new(snapshot: Snapshot) -> Result<Walk, ReadError> {
        let mut tables = snapshot.tables()?;
        tables.reverse();
        Ok(Walk { snapshot, tables, after: None })
    }

    /// How many rows are in the tables that are left.
    pub fn count(&self) -> Result<u64, ReadError> {
        self.tables.iter().map(|table| self.snapshot.count(*table)).sum()
    }

    /// The next rows of one table, in the order of tables and keys: so many that they have `bytes` together, and one more at
    /// least; fewer at a table's end. `None` after the last.
    pub fn next_rows(&mut self, bytes: usize) -> Result<Option<(TableNo, Vec<RawRow>)>, ReadError> {
        while let Some(&table) = self.tables.last() {
            let rows = self.snapshot.block(table, self.after.as_deref(), bytes)?;
            if let Some((last, _)) = rows.last() {
                self.after = Some(last.clone());
                return Ok(Some((table, rows)));
            }
            self.tables.pop();
            self.after = None;
        }
        Ok(None)
    }
}
