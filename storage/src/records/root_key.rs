//! Root keys: the credentials that administer a workspace.
//!
//! They are records of the operator's, apart from every workspace's own keys: no `keys.*` operation can reach one
//! (KEYFMT-8), and their hashes have an index of their own.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use super::codec::row;
use super::{ROOT_KEY_BY_HASH, ROOT_KEY_BY_WORKSPACE, Row, pepper};
use crate::error::ReadError;
use crate::hot::shared::Shared;
use crate::ids::{KeyId, WorkspaceNo};
use crate::pepper::Peppered;
use crate::records::key::{KeyDigest, KeyHash};
use crate::records::workspace::WorkspaceView;
use crate::store::{Read, Snapshot};
use crate::tx::Tx;

row! {
    /// A root key.
    pub struct RootKeyRow in ROOT_KEY version 1 {
        /// What it is stored under.
        hash: KeyHash,
        /// Its first characters, for people (KEYFMT-5).
        start: String,
        /// Its last four characters, for people; absent for a key the operator chose.
        end: Option<String>,
        /// Its name.
        name: Option<String>,
        /// The workspace it administers.
        workspace: WorkspaceNo,
        /// What it may do: tuples and resource names, sorted, without duplicates.
        permissions: Vec<String>,
        /// A disabled one is refused with a code of its own.
        enabled: bool,
        /// Unix ms after which it is refused.
        expires: Option<u64>,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its last change.
        updated_at: Option<u64>,
        /// Unix ms of its revocation.
        deleted_at: Option<u64>,
    }
}

/// What authentication needs of a root key, in memory.
#[derive(Debug)]
pub struct RootKeyView {
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: Option<Box<str>>,
    /// The number of the workspace it administers.
    pub workspace_no: WorkspaceNo,
    /// That workspace; its cell is empty once it is deleted.
    pub workspace: Arc<Shared<WorkspaceView>>,
    /// What it may do, sorted.
    pub permissions: Box<[Box<str>]>,
    /// See [`RootKeyRow::enabled`].
    pub enabled: bool,
    /// See [`RootKeyRow::expires`].
    pub expires: Option<u64>,
    /// What the layer above works out from this view, once: its prepared permissions. Storage never looks inside.
    pub memo: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// Reads a root key, revoked ones included.
pub fn get(read: &impl Read, id: KeyId) -> Result<Option<RootKeyRow>, ReadError> {
    read.row(id.as_bytes())
}

/// Finds a live root key by its digest.
pub fn find(read: &impl Peppered, digest: &KeyDigest) -> Result<Option<KeyId>, ReadError> {
    pepper::find(read, digest, |hash| read.bytes(ROOT_KEY_BY_HASH, hash))
}

/// Finds a live root key by the hash it is stored under.
pub(crate) fn find_stored(read: &impl Read, hash: &KeyHash) -> Result<Option<KeyId>, ReadError> {
    Ok(read.bytes(ROOT_KEY_BY_HASH, hash)?.as_deref().and_then(pepper::read_entry).map(|(id, _)| id))
}

/// The root keys of a workspace by id, revoked ones left out.
pub fn list(read: &impl Read, workspace: WorkspaceNo) -> Result<Vec<(KeyId, RootKeyRow)>, ReadError> {
    let prefix = super::row_key(workspace, &[]);
    let mut all = Vec::new();
    for (key, _) in read.range(ROOT_KEY_BY_WORKSPACE, &prefix, None, usize::MAX)? {
        if let Some(id) = crate::store::id_from(&key[4..]).map(KeyId)
            && let Some(row) = get(read, id)?
        {
            all.push((id, row));
        }
    }
    Ok(all)
}

/// The ids of a page of the root keys of a workspace: at most `most` of those that `keep` wants, ascending, from the id
/// text `from` on (bytewise, inclusive; it need not be an id), revoked ones left out.
///
/// # Errors
/// What reading or decoding a row says.
pub fn ids(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    from: &[u8],
    most: usize,
    mut keep: impl FnMut(KeyId) -> bool,
) -> Result<Vec<KeyId>, ReadError> {
    let prefix = super::row_key(workspace, &[]);
    snapshot.select(ROOT_KEY_BY_WORKSPACE, &prefix, from, most, |id, _| {
        Ok(crate::store::id_from(id).map(KeyId).filter(|id| keep(*id)))
    })
}

/// Puts a root key and its indexes; a revoked one leaves them. The hash of a new one is what [`Tx::hash`] makes of its digest,
/// that of another one stays as it is.
pub fn put(tx: &mut Tx<'_>, id: KeyId, row: &RootKeyRow) -> Result<(), ReadError> {
    tx.put_bytes(RootKeyRow::TABLE, id.as_bytes(), row.to_bytes());
    let listed = super::row_key(row.workspace, &[id.as_bytes()]);
    if row.deleted_at.is_some() {
        tx.delete(ROOT_KEY_BY_HASH, &row.hash);
        tx.delete(ROOT_KEY_BY_WORKSPACE, &listed);
    } else {
        if find_stored(tx, &row.hash)? != Some(id) {
            let stage = tx.chain()?.newest_stage();
            tx.put_bytes(ROOT_KEY_BY_HASH, &row.hash, pepper::entry(id, stage));
        }
        tx.put_bytes(ROOT_KEY_BY_WORKSPACE, &listed, Vec::new());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Row;
    use crate::testing::hex;

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = RootKeyRow {
            hash: [0xaa; 32],
            start: "unkey_3Zab".into(),
            end: Some("wxyz".into()),
            name: None,
            workspace: WorkspaceNo(1),
            permissions: vec!["a.*.b".into()],
            enabled: false,
            expires: Some(7),
            created_at: 1,
            updated_at: None,
            deleted_at: None,
        };
        assert_eq!(
            hex(&row.to_bytes()),
            "01aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0a000000756e6b65795f335a616201040000\
             007778797a00010000000100000005000000612e2a2e6200010700000000000000010000000000000000 00"
                .replace(' ', "")
        );
        assert_eq!(RootKeyRow::from_bytes(&row.to_bytes()), Ok(row));
    }
}
