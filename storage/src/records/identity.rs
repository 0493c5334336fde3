//! Identities: one end user or tenant of the customer, whose keys share its limits and metadata.

use std::collections::BinaryHeap;

use super::codec::row;
use super::key::{Ratelimit, RatelimitView};
use super::{IDENTITY_BY_EXTERNAL, Row, row_key};
use crate::error::ReadError;
use crate::ids::{IdentityId, WorkspaceNo};
use crate::store::{Read, Snapshot};
use crate::tx::Tx;

row! {
    /// An identity.
    pub struct IdentityRow in IDENTITY version 1 {
        /// What the customer calls it; unique among the live ones of a workspace.
        external_id: String,
        /// Its metadata: compact JSON text of an object.
        meta: Option<String>,
        /// Its rate limits, in the order they were set.
        ratelimits: Vec<Ratelimit>,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its last change.
        updated_at: Option<u64>,
        /// Unix ms of its deletion; it has neither metadata nor limits then.
        deleted_at: Option<u64>,
    }
}

/// What a verify needs of an identity, in memory. A deleted identity has none.
#[derive(Debug)]
pub struct IdentityView {
    /// Its id.
    pub id: IdentityId,
    /// See [`IdentityRow::external_id`].
    pub external_id: Box<str>,
    /// Its metadata: compact JSON text.
    pub meta: Option<Box<str>>,
    /// Its rate limits.
    pub ratelimits: Box<[RatelimitView]>,
}

/// Reads an identity, deleted ones included.
pub fn get(read: &impl Read, workspace: WorkspaceNo, id: IdentityId) -> Result<Option<IdentityRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Reads an identity that is not deleted.
pub fn get_live(read: &impl Read, workspace: WorkspaceNo, id: IdentityId) -> Result<Option<IdentityRow>, ReadError> {
    Ok(get(read, workspace, id)?.filter(|row| row.deleted_at.is_none()))
}

/// Finds a live identity by its external id, byte for byte (ID-RES-03).
pub fn find(read: &impl Read, workspace: WorkspaceNo, external_id: &str) -> Result<Option<IdentityId>, ReadError> {
    let key = row_key(workspace, &[external_id.as_bytes()]);
    Ok(read.bytes(IDENTITY_BY_EXTERNAL, &key)?.and_then(|id| crate::store::id_from(&id)).map(IdentityId))
}

/// Finds a live identity by its id or, where no live one has that id, by its external id (ID-RES-04).
pub fn named(
    read: &impl Read,
    workspace: WorkspaceNo,
    name: &str,
) -> Result<Option<(IdentityId, IdentityRow)>, ReadError> {
    if let Some(id) = IdentityId::parse(name)
        && let Some(row) = get_live(read, workspace, id)?
    {
        return Ok(Some((id, row)));
    }
    let Some(id) = find(read, workspace, name)? else { return Ok(None) };
    Ok(get_live(read, workspace, id)?.map(|row| (id, row)))
}

/// The ids of a page of a workspace's identities: at most `most`, ascending, from the id text `from` on (bytewise,
/// inclusive; it need not be an id), deleted ones left out.
///
/// # Errors
/// What reading or decoding a row says.
pub fn ids(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    from: &[u8],
    most: usize,
) -> Result<Vec<IdentityId>, ReadError> {
    let ids = super::ids(snapshot, workspace, from, most, |_, row: &IdentityRow| row.deleted_at.is_none())?;
    Ok(ids.into_iter().map(IdentityId).collect())
}

/// As [`ids`], of those only whose id and external id `wanted` takes.
///
/// It looks through the index of external ids, which holds both and is a few dozen bytes an identity, however large their
/// metadata: a search in a million of them need not read gigabytes. The index is not in the order of ids, so all of it is
/// looked through, and the smallest ids found are kept.
pub fn search(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    from: &[u8],
    most: usize,
    mut wanted: impl FnMut(IdentityId, &str) -> bool,
) -> Result<Vec<IdentityId>, ReadError> {
    // The greatest of those kept is on top, to be pushed out by a smaller one.
    let mut smallest = BinaryHeap::with_capacity(most.saturating_add(1));
    snapshot.select(IDENTITY_BY_EXTERNAL, &row_key(workspace, &[]), &[], usize::MAX, |external_id, id| {
        let Some(id) = crate::store::id_from(id).filter(|id| id.as_bytes().as_slice() >= from) else { return Ok(None) };
        let beyond = smallest.len() == most && smallest.peek().is_none_or(|greatest| id > *greatest);
        let external_id = std::str::from_utf8(external_id).unwrap_or_default();
        if !beyond && wanted(IdentityId(id), external_id) {
            smallest.push(id);
            if smallest.len() > most {
                smallest.pop();
            }
        }
        Ok(None::<()>)
    })?;
    Ok(smallest.into_sorted_vec().into_iter().map(IdentityId).collect())
}

/// Puts an identity and its index; a deleted one frees its external id (ID-RES-08).
pub fn put(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: IdentityId, row: &IdentityRow) {
    tx.put_bytes(IdentityRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
    let by_external = row_key(workspace, &[row.external_id.as_bytes()]);
    if row.deleted_at.is_some() {
        tx.delete(IDENTITY_BY_EXTERNAL, &by_external);
    } else {
        tx.put_bytes(IDENTITY_BY_EXTERNAL, &by_external, id.as_bytes().to_vec());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = IdentityRow {
            external_id: "user".into(),
            meta: Some("{}".into()),
            ratelimits: Vec::new(),
            created_at: 1,
            updated_at: None,
            deleted_at: Some(2),
        };
        assert_eq!(
            hex(&row.to_bytes()),
            "0104000000757365720102000000 7b7d 00000000 0100000000000000 00 010200000000000000".replace(' ', "")
        );
        assert_eq!(IdentityRow::from_bytes(&row.to_bytes()), Ok(row));
    }
}
