//! Terms: who leads the store since which record.
//!
//! The first term begins with the store and has no row. Each further one begins with the record that puts its row, which is the
//! first of its term and the only one that puts a row here. So the rows, in order, are the history by which two nodes find out
//! where their logs part ([`crate::replication::History`]).

use super::codec::row;
use super::{TERM, row_key, workspace_of};
use crate::error::ReadError;
use crate::ids::WorkspaceNo;
use crate::position::{Position, Term};
use crate::store::{Read, decode};

row! {
    /// A term that began with a promotion.
    pub struct TermRow in TERM version 1 {
        /// Position of the record that puts this row.
        first: u64,
        /// Drawn at random: two nodes that were both promoted to a term of the same number have not the same term.
        id: [u8; 16],
        /// The node that leads in it.
        node: [u8; 16],
        /// That node's name.
        name: String,
        /// Unix ms, by its clock.
        began_at: u64,
        /// Whether the operator insisted although the leader before could be reached, or had more.
        forced: bool,
    }
}

/// Rows of no workspace.
const NOBODY: WorkspaceNo = WorkspaceNo(0);

/// The key of a term's row.
pub(crate) fn key(term: Term) -> Vec<u8> {
    row_key(NOBODY, &[&term.0.to_be_bytes()])
}

/// The term a row's key names.
fn term_of(key: &[u8]) -> Option<Term> {
    workspace_of(key).filter(|no| *no == NOBODY)?;
    Some(Term(u64::from_be_bytes(key.get(4..)?.try_into().ok()?)))
}

/// All terms but the first, in order.
///
/// # Errors
/// What reading or decoding a row says.
pub fn all(read: &impl Read) -> Result<Vec<(Term, TermRow)>, ReadError> {
    let rows = read.range(TERM, &[], None, usize::MAX)?;
    rows.iter().filter_map(|(key, value)| term_of(key).map(|term| Ok((term, decode(value)?)))).collect()
}

/// The newest term's row; `None` in the first term.
///
/// # Errors
/// What reading or decoding the row says.
pub fn newest(read: &impl Read) -> Result<Option<(Term, TermRow)>, ReadError> {
    let Some(key) = read.last_key(TERM)? else { return Ok(None) };
    let Some(term) = term_of(&key) else { return Ok(None) };
    Ok(read.row(&key)?.map(|row| (term, row)))
}

impl TermRow {
    /// Where it begins.
    pub fn first(&self) -> Position {
        Position(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Row;
    use crate::testing::hex;

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = TermRow { first: 7, id: [1; 16], node: [2; 16], name: "b".into(), began_at: 8, forced: true };
        let expected =
            ["01", "0700000000000000", &"01".repeat(16), &"02".repeat(16), "0100000062", "0800000000000000", "01"];
        assert_eq!(hex(&row.to_bytes()), expected.concat());
        assert_eq!(TermRow::from_bytes(&row.to_bytes()), Ok(row));
        assert_eq!((hex(&key(Term(2))).as_str(), term_of(&key(Term(2)))), ("000000000000000000000002", Some(Term(2))));
    }
}
