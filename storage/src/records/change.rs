//! Changes that came by way of another node, by the id that node gave them.
//!
//! A node that hands a change on to the leader draws an id for it. The leader notes the id in the transaction of the change
//! itself, so that a repeat - the link was cut before the answer came - finds it, on this leader or, since rows travel, on
//! the next one. A row is of no use once nobody repeats its change any more, and is swept then.

use sha2::{Digest, Sha256};

use super::codec::row;
use super::{CHANGE, Row, row_key, workspace_of};
use crate::error::ReadError;
use crate::ids::WorkspaceNo;
use crate::store::{Read, decode};
use crate::tx::Tx;

/// Names a change that was handed on: the millisecond in which it was drawn, six bytes, big-endian, then random ones. So rows lie
/// in about the order in which they are swept.
pub type ChangeId = [u8; 16];

row! {
    /// A change that was made for another node.
    pub struct ChangeRow in CHANGE version 1 {
        /// The id of the request, its prefix included.
        request: [u8; 21],
        /// Unix ms, by the leader's clock.
        made_at: u64,
        /// From when on nobody repeats it, unix ms.
        expires_at: u64,
    }
}

/// Rows of no workspace.
const NOBODY: WorkspaceNo = WorkspaceNo(0);

/// The id of a change that is handed on now, unix ms, with these random bytes.
pub fn id(now: u64, random: [u8; 10]) -> ChangeId {
    let mut id = [0; 16];
    id[..6].copy_from_slice(&now.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&random);
    id
}

/// The id under which a change is noted: of the same moment, and of whoever sent it and what for, so that nobody who learns the id of
/// another's change finds that, or stands in its way.
pub fn of_sender(id: ChangeId, sender: &[&str]) -> ChangeId {
    let mut of_sender = id;
    of_sender[6..].copy_from_slice(&digest(id, sender)[..10]);
    of_sender
}

/// A digest of an id and of texts, in which each has its length, so that no two lists of them are one.
pub fn digest(id: ChangeId, parts: &[&str]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(id);
    for part in parts {
        digest.update(part.len().to_be_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Reads what is known of a change; `None` for one that was not made, or long ago.
///
/// # Errors
/// What reading or decoding the row says.
pub fn get(read: &impl Read, id: &ChangeId) -> Result<Option<ChangeRow>, ReadError> {
    read.row(&row_key(NOBODY, &[id]))
}

/// Notes a change.
pub fn put(tx: &mut Tx<'_>, id: &ChangeId, row: &ChangeRow) {
    tx.put_bytes(CHANGE, &row_key(NOBODY, &[id]), row.to_bytes());
}

/// Removes rows that have expired at `now`, of the `most` that follow the id `from`. Gives how many were removed, and the id to
/// go on from where there are more rows.
///
/// # Errors
/// What reading or decoding a row says.
pub fn sweep(
    tx: &mut Tx<'_>,
    now: u64,
    from: Option<ChangeId>,
    most: usize,
) -> Result<(usize, Option<ChangeId>), ReadError> {
    let start = from.map(|id| row_key(NOBODY, &[&id]));
    let rows = tx.range(CHANGE, &row_key(NOBODY, &[]), start.as_deref(), most.saturating_add(1))?;
    let next = rows.get(most).and_then(|(key, _)| key.get(4..)?.try_into().ok());
    let mut removed = 0;
    for (key, value) in rows.iter().take(most) {
        let is_one = workspace_of(key) == Some(NOBODY) && key.len() == 20;
        if is_one && decode::<ChangeRow>(value)?.expires_at <= now {
            tx.delete(CHANGE, key);
            removed += 1;
        }
    }
    Ok((removed, next))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = ChangeRow { request: *b"req_aaaaaaaaaaaaaaaaa", made_at: 1, expires_at: 2 };
        let expected = format!("017265715f{}01000000000000000200000000000000", "61".repeat(17));
        assert_eq!(hex(&row.to_bytes()), expected);
        assert_eq!(ChangeRow::from_bytes(&row.to_bytes()), Ok(row));
        let drawn = id(0x0102_0304_0506, [7; 10]);
        assert_eq!(hex(&drawn), format!("010203040506{}", "07".repeat(10)));
        assert_eq!(hex(&of_sender(drawn, &["ws_a", "key_b", "/v2/c"])), "010203040506b472e5116a4a1d9dd81e");
        let others = [&["ws_a", "key_b/v2/c"][..], &["ws_a", "key_b", "/v2/d"], &["ws_ak", "ey_b", "/v2/c"], &[]];
        let mut ids: Vec<ChangeId> = others.map(|sender| of_sender(drawn, sender)).to_vec();
        ids.push(of_sender(drawn, &["ws_a", "key_b", "/v2/c"]));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 5);
    }
}
