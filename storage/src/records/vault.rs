//! Encrypted copies of recoverable keys, and the data keys they are encrypted under (HASH-6).
//!
//! Everything here is sealed before it comes: this file knows which row refers to which, and no cipher. A copy is a row of
//! its own beside its key, so that what a verify reads stays small; it names the data key it is under. A data key belongs to
//! one workspace, is wrapped by a master key that no file of the data directory holds, and names that one by its
//! fingerprint. The keyring says which data key new copies go under; there are others only while a rotation runs, or where
//! their copies cannot be read for want of a master key.

use super::codec::row;
use super::{DATA_KEY, KEY_COPY, KEYRING, Row, VAULT_ROTATION, key, row_key, workspace_of};
use crate::error::ReadError;
use crate::ids::{DataKeyId, KeyId, WorkspaceNo};
use crate::store::{Read, Snapshot, id_from};
use crate::tx::Tx;

/// What names a master key without telling it.
pub type Fingerprint = [u8; 8];
/// Random bytes beside each sealed text: what AES-GCM calls its nonce.
pub type Nonce = [u8; 12];
/// Bytes of a wrapped data key: 32 and the 16 of the seal.
pub const WRAPPED_BYTES: usize = 48;

row! {
    /// A data key.
    pub struct DataKeyRow in DATA_KEY version 1 {
        /// The master key that wraps it.
        master: Fingerprint,
        /// Nonce of the wrapping.
        nonce: Nonce,
        /// The data key, wrapped.
        wrapped: [u8; WRAPPED_BYTES],
        /// Unix ms.
        created_at: u64,
    }
}

row! {
    /// Which data key a workspace's new copies go under.
    pub struct KeyringRow in KEYRING version 1 {
        /// That one.
        current: DataKeyId,
        /// The rotation that made it; 0 for one that was made because a first copy came.
        rotation: u64,
        /// Whether that rotation has come past all of the workspace's copies.
        settled: bool,
    }
}

row! {
    /// The encrypted copy of a key.
    pub struct CopyRow in KEY_COPY version 1 {
        /// The data key it is under.
        data_key: DataKeyId,
        /// Nonce of the seal.
        nonce: Nonce,
        /// The plaintext, sealed: 16 bytes longer than it.
        sealed: Vec<u8>,
    }
}

row! {
    /// The newest rotation of the data keys. There is one row, or none before the first.
    pub struct RotationRow in VAULT_ROTATION version 1 {
        /// Rotations count from 1.
        number: u64,
        /// Unix ms.
        begun_at: u64,
        /// Unix ms; `None` while there is something left to do.
        ended_at: Option<u64>,
    }
}

/// The one key of [`VAULT_ROTATION`]: that of no workspace.
const ROTATION_KEY: WorkspaceNo = WorkspaceNo(0);

/// Reads a data key.
pub fn data_key(read: &impl Read, workspace: WorkspaceNo, id: DataKeyId) -> Result<Option<DataKeyRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Every data key of every workspace, in the order of workspaces: a few for each that ever had a recoverable key.
pub fn data_keys(read: &impl Read) -> Result<Vec<(WorkspaceNo, DataKeyId, DataKeyRow)>, ReadError> {
    decoded(read.range(DATA_KEY, &[], None, usize::MAX)?)
}

/// The data keys of one workspace.
pub fn data_keys_of(
    read: &impl Read,
    workspace: WorkspaceNo,
) -> Result<Vec<(WorkspaceNo, DataKeyId, DataKeyRow)>, ReadError> {
    decoded(read.range(DATA_KEY, &row_key(workspace, &[]), None, usize::MAX)?)
}

fn decoded(rows: Vec<crate::store::RawRow>) -> Result<Vec<(WorkspaceNo, DataKeyId, DataKeyRow)>, ReadError> {
    let mut all = Vec::with_capacity(rows.len());
    for (key, value) in rows {
        if let (Some(workspace), Some(id)) = (workspace_of(&key), key.get(4..).and_then(id_from)) {
            all.push((workspace, DataKeyId(id), crate::store::decode(&value)?));
        }
    }
    Ok(all)
}

/// Puts a data key.
pub fn put_data_key(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: DataKeyId, row: &DataKeyRow) {
    tx.put_bytes(DATA_KEY, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
}

/// Removes a data key. The caller has seen that no copy is under it: it could never be read again.
pub fn delete_data_key(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: DataKeyId) {
    tx.delete(DATA_KEY, &row_key(workspace, &[id.as_bytes()]));
}

/// Reads a workspace's keyring; `None` where it never had a recoverable key.
pub fn keyring(read: &impl Read, workspace: WorkspaceNo) -> Result<Option<KeyringRow>, ReadError> {
    read.row(&row_key(workspace, &[]))
}

/// Every keyring.
pub fn keyrings(read: &impl Read) -> Result<Vec<(WorkspaceNo, KeyringRow)>, ReadError> {
    let mut all = Vec::new();
    for (key, value) in read.range(KEYRING, &[], None, usize::MAX)? {
        if let Some(workspace) = workspace_of(&key) {
            all.push((workspace, crate::store::decode(&value)?));
        }
    }
    Ok(all)
}

/// Puts a keyring.
pub fn put_keyring(tx: &mut Tx<'_>, workspace: WorkspaceNo, row: &KeyringRow) {
    tx.put_bytes(KEYRING, &row_key(workspace, &[]), row.to_bytes());
}

/// Reads the encrypted copy of a key; `None` for a key that is not recoverable.
pub fn copy(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<Option<CopyRow>, ReadError> {
    read.row(&key::key(workspace, id))
}

/// Whether a key has an encrypted copy.
pub fn has_copy(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<bool, ReadError> {
    Ok(read.bytes(KEY_COPY, &key::key(workspace, id))?.is_some())
}

/// Puts the encrypted copy of a key. It goes with its key ([`key::purge`]).
pub fn put_copy(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &CopyRow) {
    tx.put_bytes(KEY_COPY, &key::key(workspace, id), row.to_bytes());
}

/// At most `most` copies of a workspace, by key id ascending, from `from` on (inclusive).
pub fn copies(
    read: &impl Read,
    workspace: WorkspaceNo,
    from: Option<KeyId>,
    most: usize,
) -> Result<Vec<(KeyId, CopyRow)>, ReadError> {
    let from = from.map(|from| key::key(workspace, from));
    let mut found = Vec::new();
    for (stored, value) in read.range(KEY_COPY, &row_key(workspace, &[]), from.as_deref(), most)? {
        if let Some(id) = stored.get(4..).and_then(id_from) {
            found.push((KeyId(id), crate::store::decode(&value)?));
        }
    }
    Ok(found)
}

/// Calls `each` with the workspace and the data key of every copy, without copying any of them.
///
/// # Errors
/// What reading says, and the first row that cannot be decoded.
pub fn for_each_copy(snapshot: &Snapshot, mut each: impl FnMut(WorkspaceNo, DataKeyId)) -> Result<(), ReadError> {
    let mut bad = None;
    snapshot.scan(KEY_COPY, |key, value| match crate::store::decode::<CopyRow>(value) {
        Ok(row) => {
            if let Some(workspace) = workspace_of(key) {
                each(workspace, row.data_key);
            }
        }
        Err(error) => bad = Some(error),
    })?;
    bad.map_or(Ok(()), Err)
}

/// How many copies there are.
pub fn count_copies(snapshot: &Snapshot) -> Result<u64, ReadError> {
    snapshot.count(KEY_COPY)
}

/// The newest rotation; `None` where there was none yet.
pub fn rotation(read: &impl Read) -> Result<Option<RotationRow>, ReadError> {
    read.row(&row_key(ROTATION_KEY, &[]))
}

/// Puts the newest rotation.
pub fn put_rotation(tx: &mut Tx<'_>, row: &RotationRow) {
    tx.put_bytes(VAULT_ROTATION, &row_key(ROTATION_KEY, &[]), row.to_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let data_key = DataKeyRow { master: [1; 8], nonce: [2; 12], wrapped: [3; WRAPPED_BYTES], created_at: 4 };
        assert_eq!(
            hex(&data_key.to_bytes()),
            ["01", &"01".repeat(8), &"02".repeat(12), &"03".repeat(48), "0400000000000000"].concat()
        );
        assert_eq!(DataKeyRow::from_bytes(&data_key.to_bytes()), Ok(data_key));

        let keyring = KeyringRow { current: DataKeyId(id('d')), rotation: 5, settled: true };
        assert_eq!(hex(&keyring.to_bytes()), ["01", &"64".repeat(16), "0500000000000000", "01"].concat());
        assert_eq!(KeyringRow::from_bytes(&keyring.to_bytes()), Ok(keyring));

        let copy = CopyRow { data_key: DataKeyId(id('d')), nonce: [6; 12], sealed: vec![7; 17] };
        assert_eq!(
            hex(&copy.to_bytes()),
            ["01", &"64".repeat(16), &"06".repeat(12), "11000000", &"07".repeat(17)].concat()
        );
        assert_eq!(CopyRow::from_bytes(&copy.to_bytes()), Ok(copy));

        let rotation = RotationRow { number: 8, begun_at: 9, ended_at: Some(10) };
        assert_eq!(hex(&rotation.to_bytes()), "0108000000000000000900000000000000010a00000000000000");
        assert_eq!(RotationRow::from_bytes(&rotation.to_bytes()), Ok(rotation));
    }
}
