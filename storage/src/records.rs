//! The records: which tables there are, what changes them, and what their rows look like.
//!
//! A change is a list of effects, opaque rows put and deleted; whoever applies a log record (the writer, a replay, a
//! follower) only ever applies rows, so they cannot disagree. A row key begins with a fixed-width workspace number.

pub mod api;
pub mod audit;
pub mod change;
pub(crate) mod codec;
pub mod identity;
pub mod key;
pub mod migration;
pub mod pepper;
pub mod ratelimit;
pub mod role;
pub mod root_key;
pub mod term;
pub mod vault;
pub mod workspace;

pub use codec::Row;

use crate::error::{BadRow, ReadError};
use crate::ids::{IdText, WorkspaceNo};
use crate::store::{Read, Snapshot};
use codec::{Field, Input};

/// A table's number, part of the log's layout: never reused.
pub type TableNo = u16;

/// Workspaces by number.
pub const WORKSPACE: TableNo = 1;
/// Workspace id -> number.
pub const WORKSPACE_BY_ID: TableNo = 2;
/// Workspace slug -> number.
pub const WORKSPACE_BY_SLUG: TableNo = 3;
/// Root keys by id.
pub const ROOT_KEY: TableNo = 4;
/// Root key hash -> id, and the hash's stage ([`pepper`]). An index of its own: no tenant's hash can become or shadow a root key (HASH-3).
pub const ROOT_KEY_BY_HASH: TableNo = 5;
/// (workspace administered, root key id) -> nothing.
pub const ROOT_KEY_BY_WORKSPACE: TableNo = 6;
/// APIs.
pub const API: TableNo = 10;
/// Keys.
pub const KEY: TableNo = 11;
/// (workspace, hash) -> key id, and the hash's stage ([`pepper`]); the entry of a soft-deleted key stays (HASH-3). A migrated key has two: its own hash and,
/// as an alias, the foreign one it came with (KEYS-MIGRATE-15).
pub const KEY_BY_HASH: TableNo = 12;
/// (workspace, API, key id) -> nothing: a page of an API's keys.
pub const KEY_BY_API: TableNo = 13;
/// Credits left on keys that have a limited number.
pub const CREDITS: TableNo = 14;
/// Minute of a key's last verification.
pub const LAST_USED: TableNo = 15;
/// Migrations.
pub const MIGRATION: TableNo = 16;
/// (workspace, key id) -> by which migration it came, and under which foreign hash.
pub const MIGRATED_KEY: TableNo = 17;
/// (workspace, identity, key id) -> API: a page of an identity's keys.
pub const KEY_BY_IDENTITY: TableNo = 18;
/// Identities.
pub const IDENTITY: TableNo = 20;
/// (workspace, external id) -> identity id, live ones only.
pub const IDENTITY_BY_EXTERNAL: TableNo = 21;
/// Permissions.
pub const PERMISSION: TableNo = 30;
/// (workspace, case-folded slug) -> permission id.
pub const PERMISSION_BY_SLUG: TableNo = 31;
/// Roles.
pub const ROLE: TableNo = 32;
/// (workspace, case-folded name) -> role id.
pub const ROLE_BY_NAME: TableNo = 33;
/// Rate-limit namespaces.
pub const NAMESPACE: TableNo = 40;
/// (workspace, name) -> namespace id, deleted ones included (RL-NS-03).
pub const NAMESPACE_BY_NAME: TableNo = 41;
/// (workspace, namespace, identifier) -> override of exactly that identifier.
pub const OVERRIDE: TableNo = 42;
/// (workspace, namespace, override id) -> its identifier or pattern: a page of a namespace's overrides.
pub const OVERRIDE_BY_ID: TableNo = 43;
/// (workspace, namespace, pattern) -> override of every identifier that the pattern matches.
pub const OVERRIDE_PATTERN: TableNo = 44;
/// (workspace, sequence number) -> audit event.
pub const AUDIT: TableNo = 50;
/// Workspace -> sequence number and hash of its newest audit event.
pub const AUDIT_HEAD: TableNo = 51;
/// Workspace -> sequence number and hash of the newest audit event that retention has deleted.
pub const AUDIT_ANCHOR: TableNo = 52;
/// (workspace, target of a live export) -> sequence number of the last audit event it was handed.
pub const AUDIT_EXPORTED: TableNo = 53;

/// (workspace, data key id) -> a wrapped data key.
pub const DATA_KEY: TableNo = 60;
/// Workspace -> which data key its new copies go under.
pub const KEYRING: TableNo = 61;
/// (workspace, key id) -> the encrypted copy of a recoverable key.
pub const KEY_COPY: TableNo = 62;
/// The newest rotation of the data keys: one row.
pub const VAULT_ROTATION: TableNo = 63;
/// The peppers that hashes of keys are keyed with: one row.
pub const PEPPER: TableNo = 70;
/// Id of a change that another node handed on -> when it was made.
pub const CHANGE: TableNo = 72;

/// Terms that began with a promotion.
pub const TERM: TableNo = 71;

/// One row put or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Which table.
    pub table: TableNo,
    /// The row's key.
    pub key: Vec<u8>,
    /// Its new value; `None` deletes it.
    pub value: Option<Vec<u8>>,
}

/// The layout version of a log record, its first byte.
const RECORD_VERSION: u8 = 1;

/// Lays out one transaction's effects as a log record.
pub fn encode_record(effects: &[Effect]) -> Vec<u8> {
    let size = effects.iter().map(|effect| 11 + effect.key.len() + effect.value.as_ref().map_or(0, Vec::len)).sum();
    let mut out = Vec::with_capacity(5usize.saturating_add(size));
    out.push(RECORD_VERSION);
    u32::try_from(effects.len()).expect("a record is bounded far below 4 Gi effects").put(&mut out);
    for effect in effects {
        effect.table.put(&mut out);
        put_bytes(&effect.key, &mut out);
        match &effect.value {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                put_bytes(value, &mut out);
            }
        }
    }
    out
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    u32::try_from(bytes.len()).expect("a record is bounded far below 4 GiB").put(out);
    out.extend_from_slice(bytes);
}

/// Reads a log record back. Never panics, whatever the bytes.
pub fn decode_record(bytes: &[u8]) -> Result<Vec<Effect>, BadRow> {
    let mut input = Input::new(bytes);
    match u8::get(&mut input)? {
        RECORD_VERSION => {}
        other => return Err(BadRow::UnknownVersion(other)),
    }
    let count = u32::get(&mut input)? as usize;
    // The shortest effect has seven bytes: a larger count is damage, found before memory is taken for it.
    if count > input.remaining() / 7 {
        return Err(BadRow::Truncated);
    }
    let mut effects = Vec::with_capacity(count);
    for _ in 0..count {
        let table = u16::get(&mut input)?;
        let length = u32::get(&mut input)? as usize;
        let key = input.take(length)?.to_vec();
        let value = if bool::get(&mut input)? {
            let length = u32::get(&mut input)? as usize;
            Some(input.take(length)?.to_vec())
        } else {
            None
        };
        effects.push(Effect { table, key, value });
    }
    input.finish()?;
    Ok(effects)
}

/// Builds a row key: the workspace number, big-endian so that rows of one workspace lie together, then the parts.
pub(crate) fn row_key(workspace: WorkspaceNo, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = Vec::with_capacity(4 + parts.iter().map(|part| part.len()).sum::<usize>());
    key.extend_from_slice(&workspace.0.to_be_bytes());
    for part in parts {
        key.extend_from_slice(part);
    }
    key
}

/// The ids of a page of a workspace's resources: at most `most` of the rows that `keep` wants, by id ascending, from the id
/// text `from` on (bytewise, inclusive; it need not be an id). Ids and not rows, since nobody knows how large those are.
///
/// # Errors
/// What reading or decoding a row says.
pub fn ids<R: Row>(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    from: &[u8],
    most: usize,
    mut keep: impl FnMut(IdText, &R) -> bool,
) -> Result<Vec<IdText>, ReadError> {
    snapshot.select(R::TABLE, &row_key(workspace, &[]), from, most, |key, value| {
        let Some(id) = crate::store::id_from(key) else { return Ok(None) };
        let row = crate::store::decode::<R>(value)?;
        Ok(keep(id, &row).then_some(id))
    })
}

/// A workspace's resource.
///
/// # Errors
/// What reading or decoding the row says.
pub fn get<R: Row>(read: &impl Read, workspace: WorkspaceNo, id: IdText) -> Result<Option<R>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// The workspace a row key belongs to; `None` where the key is too short to have one.
pub(crate) fn workspace_of(key: &[u8]) -> Option<WorkspaceNo> {
    Some(WorkspaceNo(u32::from_be_bytes(key.get(..4)?.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log's record layout is frozen: logs on users' disks hold it. To change it, add a successor with version 2 and
    /// keep reading this one.
    #[test]
    fn record_bytes_are_frozen() {
        let effects = vec![
            Effect { table: API, key: row_key(WorkspaceNo(7), &[b"k"]), value: Some(b"v1".to_vec()) },
            Effect { table: 0xbeef, key: vec![9], value: None },
        ];
        let bytes = encode_record(&effects);
        let expected: &[u8] = &[
            1, // version
            2, 0, 0, 0, // effects
            10, 0, 5, 0, 0, 0, 0, 0, 0, 7, b'k', 1, 2, 0, 0, 0, b'v', b'1', // put
            0xef, 0xbe, 1, 0, 0, 0, 9, 0, // delete, in a table this build does not know
        ];
        assert_eq!(bytes, expected);
        assert_eq!(decode_record(&bytes), Ok(effects));
        for cut in 0..bytes.len() {
            assert!(decode_record(&bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
