//! Migrations: keys that come from another system as hashes, their plaintexts unseen (KEYS-MIGRATE).
//!
//! A hash of ours is the key's own from the start, and such a key is like any other. A foreign one cannot be compared with
//! what is presented: the key is stored under what stands for that hash, and *pending*, until it is presented to its
//! migration for the first time; then it gets the hash of what was presented ([`adopt`]). The foreign hash stays as an alias
//! of the key, which only a lookup through the migration finds (KEYS-MIGRATE-15): no view is ever hot under it.

use sha2::{Digest, Sha256};

use super::codec::{Field, Input, row};
use super::key::{self, KeyDigest, KeyHash, KeyRow};
use super::{KEY_BY_HASH, Row, row_key};
use crate::error::{BadRow, ReadError};
use crate::ids::{KeyId, MigrationId, WorkspaceNo};
use crate::store::Read;
use crate::tx::Tx;

/// How the hashes of a migration were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// As keyward's own: SHA-256 of the whole key (HASH-1).
    Sha256,
    /// Of `<prefix>_<short token>_<long token>` the lower-case hex SHA-256 of the long token (HASH-4).
    PrefixedApiKey,
}

impl Algorithm {
    /// Its name in requests, which is also part of what foreign hashes are stored under.
    pub const fn name(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::PrefixedApiKey => "github.com/seamapi/prefixed-api-key",
        }
    }
}

impl Field for Algorithm {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Algorithm::Sha256 => 1,
            Algorithm::PrefixedApiKey => 2,
        });
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        match u8::get(input)? {
            1 => Ok(Algorithm::Sha256),
            2 => Ok(Algorithm::PrefixedApiKey),
            _ => Err(BadRow::BadValue("an unknown algorithm of a migration")),
        }
    }
}

row! {
    /// A migration.
    pub struct MigrationRow in MIGRATION version 1 {
        /// Its name.
        name: String,
        /// How its hashes were made.
        algorithm: Algorithm,
        /// Unix ms.
        created_at: u64,
    }
}

row! {
    /// How a key came that was stored under a foreign hash. Keys that came with a hash of ours have none.
    pub struct MigratedKeyRow in MIGRATED_KEY version 1 {
        /// The migration.
        migration: MigrationId,
        /// What it is stored under by the hash it came with: its alias, and its hash while it is pending.
        foreign: KeyHash,
        /// Whether it has not been presented yet.
        pending: bool,
    }
}

/// What a key is stored under whose hash is none of ours: the SHA-256 of a byte 0xFF, the algorithm's name, a zero byte and
/// the hash's text.
///
/// Whoever learns a stored foreign hash must not be able to present it as a key. No presented key hashes to this: it would
/// have to begin with 0xFF, and no UTF-8 text does.
pub fn foreign_hash(algorithm: Algorithm, text: &str) -> KeyDigest {
    let mut hasher = Sha256::new();
    hasher.update([0xff]);
    hasher.update(algorithm.name());
    hasher.update([0]);
    hasher.update(text);
    KeyDigest(hasher.finalize().into())
}

/// Reads a migration.
pub fn get(read: &impl Read, workspace: WorkspaceNo, id: MigrationId) -> Result<Option<MigrationRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Puts a migration.
pub fn put(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: MigrationId, row: &MigrationRow) {
    tx.put_bytes(MigrationRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
}

/// Reads how a key came; `None` for one that did not come with a foreign hash.
pub fn of_key(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<Option<MigratedKeyRow>, ReadError> {
    read.row(&key::key(workspace, id))
}

pub(crate) fn put_of_key(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &MigratedKeyRow) {
    tx.put_bytes(MigratedKeyRow::TABLE, &key::key(workspace, id), row.to_bytes());
}

/// Puts a new key whose hash is a foreign one, pending in a migration.
pub fn insert_pending(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    id: KeyId,
    row: &KeyRow,
    migration: MigrationId,
) -> Result<(), ReadError> {
    key::insert(tx, workspace, id, row)?;
    put_of_key(tx, workspace, id, &MigratedKeyRow { migration, foreign: row.hash, pending: true });
    Ok(())
}

/// Gives a pending key the hash in `row`, made by [`Tx::hash`] and its own from now on, and puts it. The caller has seen
/// that it is free. The
/// foreign one stays as an alias.
pub fn adopt(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    id: KeyId,
    row: &KeyRow,
    came: &MigratedKeyRow,
) -> Result<(), ReadError> {
    key::own_hash(tx, workspace, id, &row.hash)?;
    key::update(tx, workspace, id, row);
    put_of_key(tx, workspace, id, &MigratedKeyRow { pending: false, ..came.clone() });
    Ok(())
}

/// Removes what tells how a key came, and frees its alias.
pub(crate) fn forget_key(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId) -> Result<(), ReadError> {
    if let Some(came) = of_key(tx, workspace, id)? {
        tx.delete(KEY_BY_HASH, &row_key(workspace, &[&came.foreign]));
        tx.delete(MigratedKeyRow::TABLE, &key::key(workspace, id));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = MigrationRow { name: "n".into(), algorithm: Algorithm::PrefixedApiKey, created_at: 2 };
        assert_eq!(hex(&row.to_bytes()), "01010000006e020200000000000000");
        assert_eq!(MigrationRow::from_bytes(&row.to_bytes()), Ok(row.clone()));
        assert_eq!(
            hex(&MigrationRow { algorithm: Algorithm::Sha256, ..row }.to_bytes()),
            "01010000006e010200000000000000"
        );
        let key = MigratedKeyRow { migration: MigrationId(id('m')), foreign: [7; 32], pending: true };
        assert_eq!(hex(&key.to_bytes()), format!("01{}{}01", "6d".repeat(16), "07".repeat(32)));
        assert_eq!(MigratedKeyRow::from_bytes(&key.to_bytes()), Ok(key));
    }

    /// HASH-4: what stands for a foreign hash is frozen as well, and is no key's own hash.
    #[test]
    fn foreign_hashes_are_frozen() {
        let long = "EXAMPLE";
        assert_eq!(
            hex(&foreign_hash(Algorithm::PrefixedApiKey, long).0),
            "160a384e738a67b0f694e7a95536f42f42874287342fc2ef95e22404714c6039"
        );
        let as_a_key = KeyDigest(Sha256::digest(long).into());
        assert_ne!(foreign_hash(Algorithm::Sha256, long), as_a_key);
        assert_ne!(foreign_hash(Algorithm::Sha256, long), foreign_hash(Algorithm::PrefixedApiKey, long));
    }
}
