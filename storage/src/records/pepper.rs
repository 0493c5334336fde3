//! Which peppers the stored hashes of keys are keyed with, and what takes the hashes a stage further.
//!
//! One row has the chain ([`crate::pepper`]). At which stage a hash is stands in its entry in the index: behind the id, one
//! byte with the number of links it went through; an entry without that byte is of stage 0, a bare digest.

use std::collections::BTreeMap;
use std::fmt;

use super::codec::{Field, Input, part, row};
use super::key::{self, KeyDigest, KeyHash, KeyRow};
use super::migration::{self, MigratedKeyRow};
use super::root_key::RootKeyRow;
use super::{KEY_BY_HASH, PEPPER, ROOT_KEY_BY_HASH, Row, row_key, workspace_of};
use crate::error::{BadRow, ReadError};
use crate::ids::{ID_RANDOM_CHARS, IdText, KeyId, WorkspaceNo};
use crate::pepper::{NoSwitch, Peppered};
use crate::store::{Read, Snapshot, decode, id_from};
use crate::tx::{Moved, Tx};

/// What names a pepper without telling it.
pub type Fingerprint = [u8; 8];

/// A pepper in its row: encrypted under the one behind it, or, where none is needed from outside any more, as it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kept(pub [u8; 32]);

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Field for Kept {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        <[u8; 32]>::get(input).map(Kept)
    }
}

part! {
    /// A link of the chain.
    pub struct PepperLink {
        /// The pepper.
        fingerprint: Fingerprint,
        /// What is kept of it here; nothing of the last one, which comes from outside.
        kept: Option<Kept>,
    }
}

row! {
    /// The chain of a store.
    pub struct PepperRow in PEPPER version 1 {
        /// Its links, the first one next to the digest.
        links: Vec<PepperLink>,
        /// Unix ms of the beginning of the switch to the last link.
        begun_at: u64,
        /// Unix ms from which every hash is at the last stage; `None` while that is not certain.
        ended_at: Option<u64>,
        /// Unix ms from which no file of records holds an older hash in space that is free again.
        cleared_at: Option<u64>,
    }
}

/// The stored key of the one row: workspace number 0 is nobody's.
const PLACE: WorkspaceNo = WorkspaceNo(0);

/// The chain; `None` where there never was a pepper.
pub fn get(read: &(impl Read + ?Sized)) -> Result<Option<PepperRow>, ReadError> {
    read.bytes(PEPPER, &row_key(PLACE, &[]))?.map(|bytes| decode(&bytes)).transpose()
}

fn put(tx: &mut Tx<'_>, row: &PepperRow) {
    tx.put_bytes(PEPPER, &row_key(PLACE, &[]), row.to_bytes());
}

/// Begins a switch to the first configured pepper, or goes on with it; `None` where it is in use and nothing is left to do.
pub fn begin(tx: &mut Tx<'_>, now: u64) -> Result<Result<Option<PepperRow>, NoSwitch>, ReadError> {
    let before = get(tx)?;
    let row = tx.peppers().begin(before.clone(), now);
    if let Ok(Some(row)) = &row
        && Some(row) != before.as_ref()
    {
        put(tx, row);
    }
    Ok(row)
}

/// Ends a switch. The caller has seen, in a snapshot taken since it began, that no hash is at an older stage: none gets there
/// any more.
pub fn end(tx: &mut Tx<'_>, now: u64) -> Result<Option<PepperRow>, ReadError> {
    let Some(row) = get(tx)?.filter(|row| row.ended_at.is_none()) else { return Ok(None) };
    let row = PepperRow { ended_at: Some(now), ..row };
    put(tx, &row);
    Ok(Some(row))
}

/// Notes that the file of records was written anew since the switch ended.
pub fn cleared(tx: &mut Tx<'_>, now: u64) -> Result<(), ReadError> {
    if let Some(row) = get(tx)?.filter(|row| row.ended_at.is_some() && row.cleared_at.is_none()) {
        put(tx, &PepperRow { cleared_at: Some(now), ..row });
    }
    Ok(())
}

/// Writes the last pepper into its row, so that none is needed from outside any more. Gives the row, and `None` where there is
/// nothing to do.
pub fn disclose(tx: &mut Tx<'_>) -> Result<Result<Option<PepperRow>, NoSwitch>, ReadError> {
    let before = get(tx)?;
    let row = tx.peppers().disclose(before);
    if let Ok(Some(row)) = &row {
        put(tx, row);
    }
    Ok(row)
}

/// An entry of an index of hashes.
pub(crate) fn entry(id: KeyId, stage: u8) -> Vec<u8> {
    let mut value = id.as_bytes().to_vec();
    value.extend((stage > 0).then_some(stage));
    value
}

/// Reads an entry back: whose the hash is, and its stage.
pub(crate) fn read_entry(value: &[u8]) -> Option<(KeyId, u8)> {
    let (id, stage) = value.split_at_checked(ID_RANDOM_CHARS)?;
    let stage = match stage {
        [] => 0,
        [stage] => *stage,
        _ => return None,
    };
    IdText::from_bytes(id.try_into().ok()?).map(|id| (KeyId(id), stage))
}

/// Finds whose a digest is in an index, under whatever stage it is stored.
pub(crate) fn find(
    read: &impl Peppered,
    digest: &KeyDigest,
    entry: impl Fn(&KeyHash) -> Result<Option<Vec<u8>>, ReadError>,
) -> Result<Option<KeyId>, ReadError> {
    // What reads is one state of the store, so the order does not matter here.
    for (stage, hash) in read.peppers().chain_in(read)?.hashes(digest).iter() {
        let found = entry(hash)?.as_deref().and_then(read_entry);
        if let Some((id, _)) = found.filter(|(_, of)| of == stage) {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

/// At most `most` hashes of keys that are at an older stage than `stage`, in the order of the index from `from` on
/// (inclusive). Bytes are the entry's key: to go on, call it with those of the last one and a byte 0 behind.
pub fn waiting(
    snapshot: &Snapshot,
    stage: u8,
    from: &[u8],
    most: usize,
) -> Result<Vec<(WorkspaceNo, KeyHash)>, ReadError> {
    snapshot.select(KEY_BY_HASH, &[], from, most, |key, value| {
        let is_older = read_entry(value).is_some_and(|(_, of)| of < stage);
        let hash = key.get(4..).and_then(|hash| hash.try_into().ok());
        Ok(workspace_of(key).zip(hash).filter(|_| is_older))
    })
}

/// The place of a hash in the index, for [`waiting`].
pub fn place(workspace: WorkspaceNo, hash: &KeyHash) -> Vec<u8> {
    row_key(workspace, &[hash])
}

/// Takes hashes of keys of a workspace to the last stage, with the rows that name them, and says how many were not there yet.
pub fn rehash_keys(tx: &mut Tx<'_>, workspace: WorkspaceNo, hashes: &[KeyHash]) -> Result<u64, ReadError> {
    let chain = tx.chain()?;
    let mut taken = 0;
    for hash in hashes {
        let before = Read::bytes(tx, KEY_BY_HASH, &place(workspace, hash))?;
        // It may have gone with its key since it was seen.
        let Some((id, _)) = before.as_deref().and_then(read_entry).filter(|(_, at)| *at < chain.newest_stage()) else {
            continue;
        };
        let Some(next) = chain.next(hash) else { break };
        tx.delete(KEY_BY_HASH, &place(workspace, hash));
        tx.put_bytes(KEY_BY_HASH, &place(workspace, &next), entry(id, chain.newest_stage()));
        // Its own, or its alias, or both while it is pending.
        if let Some(row) = key::get(tx, workspace, id)?.filter(|row| row.hash == *hash) {
            key::update(tx, workspace, id, &KeyRow { hash: next, ..row });
        }
        if let Some(came) = migration::of_key(tx, workspace, id)?.filter(|came| came.foreign == *hash) {
            migration::put_of_key(tx, workspace, id, &MigratedKeyRow { foreign: next, ..came });
        }
        tx.moves(Moved { workspace, id, from: *hash, to: next });
        taken += 1;
    }
    Ok(taken)
}

/// At most `most` root keys, revoked ones too, by id from `from` on (inclusive), for [`rehash_root_keys`].
pub fn root_keys(snapshot: &Snapshot, from: &[u8], most: usize) -> Result<Vec<KeyId>, ReadError> {
    snapshot.select(RootKeyRow::TABLE, &[], from, most, |id, _| Ok(id_from(id).map(KeyId)))
}

/// Takes the hashes of root keys to the last stage. Of revoked ones, which are never looked for again, nothing is left.
pub fn rehash_root_keys(tx: &mut Tx<'_>, ids: &[KeyId]) -> Result<u64, ReadError> {
    let chain = tx.chain()?;
    let mut taken = 0;
    for id in ids {
        let Some(row) = super::root_key::get(tx, *id)? else { continue };
        let next = if row.deleted_at.is_some() {
            GONE
        } else {
            let before = Read::bytes(tx, ROOT_KEY_BY_HASH, &row.hash)?;
            let older = before.as_deref().and_then(read_entry).filter(|(_, at)| *at < chain.newest_stage());
            let Some(next) = older.and_then(|_| chain.next(&row.hash)) else { continue };
            tx.delete(ROOT_KEY_BY_HASH, &row.hash);
            tx.put_bytes(ROOT_KEY_BY_HASH, &next, entry(*id, chain.newest_stage()));
            next
        };
        if row.hash != next {
            tx.put_bytes(RootKeyRow::TABLE, id.as_bytes(), RootKeyRow { hash: next, ..row }.to_bytes());
            taken += 1;
        }
    }
    Ok(taken)
}

/// What stands for the hash of a root key that was revoked before a switch.
const GONE: KeyHash = [0; 32];

/// How many hashes are at each stage: those of keys and their aliases, and those of root keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Of keys, aliases included.
    pub keys: BTreeMap<u8, u64>,
    /// Of root keys.
    pub root_keys: BTreeMap<u8, u64>,
}

impl Census {
    /// Hashes that are not at this stage yet.
    pub fn before(&self, stage: u8) -> u64 {
        self.keys.range(..stage).chain(self.root_keys.range(..stage)).map(|(_, count)| count).sum()
    }
}

/// Counts hashes by stage. Walks over both indexes.
pub fn census(snapshot: &Snapshot) -> Result<Census, ReadError> {
    let mut census = Census::default();
    let count = |table, counts: &mut BTreeMap<u8, u64>| {
        snapshot.scan(table, |_, value| {
            if let Some((_, stage)) = read_entry(value) {
                *counts.entry(stage).or_default() += 1;
            }
        })
    };
    count(KEY_BY_HASH, &mut census.keys)?;
    count(ROOT_KEY_BY_HASH, &mut census.root_keys)?;
    Ok(census)
}

/// How many hashes there are, those of keys' aliases and of root keys included.
pub fn count(snapshot: &Snapshot) -> Result<u64, ReadError> {
    Ok(snapshot.count(KEY_BY_HASH)? + snapshot.count(ROOT_KEY_BY_HASH)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let row = PepperRow {
            links: vec![
                PepperLink { fingerprint: [1; 8], kept: Some(Kept([2; 32])) },
                PepperLink { fingerprint: [3; 8], kept: None },
            ],
            begun_at: 4,
            ended_at: Some(5),
            cleared_at: None,
        };
        assert_eq!(
            hex(&row.to_bytes()),
            ["0102000000", &"01".repeat(8), "01", &"02".repeat(32), &"03".repeat(8), "00", "0400000000000000"].concat()
                + "01050000000000000000"
        );
        assert_eq!(PepperRow::from_bytes(&row.to_bytes()), Ok(row.clone()));
        assert!(!format!("{row:?}").contains("2, 2"), "a pepper is not printed");

        let id = KeyId(id('k'));
        assert_eq!(hex(&entry(id, 0)), "6b".repeat(16), "as it was before there were peppers");
        assert_eq!(hex(&entry(id, 2)), "6b".repeat(16) + "02");
        assert_eq!((read_entry(&entry(id, 0)), read_entry(&entry(id, 2))), (Some((id, 0)), Some((id, 2))));
        assert_eq!((read_entry(&[b'k'; 15]), read_entry(&[b'k'; 18])), (None, None));
    }
}
