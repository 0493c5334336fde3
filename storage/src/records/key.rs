//! Keys: what a caller presents, and all that hangs on one.
//!
//! A key's direct permissions, roles and own rate limits are lists in its row, so reading a key is reading one row. A
//! list may name what was deleted since: ids never recur, so such a link is ignored from then on. Credits have a table of
//! their own, because they change far more often than anything else.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use super::codec::{part, row};
use super::{CREDITS, KEY_BY_API, KEY_BY_HASH, KEY_BY_IDENTITY, KEY_COPY, LAST_USED, Row, migration, pepper, row_key};
use crate::error::ReadError;
use crate::hot::counters::{KeyCounters, MINUTE_MS};
use crate::hot::shared::Shared;
use crate::hot::window::Subject;
use crate::ids::{ApiId, IdentityId, KeyId, PermissionId, RatelimitId, RoleId, WorkspaceNo};
use crate::pepper::Peppered;
use crate::records::api::ApiView;
use crate::records::identity::IdentityView;
use crate::records::role::{PermissionView, RoleView};
use crate::store::{Read, Snapshot};
use crate::tx::Tx;

/// What is presented for a key: the 32 bytes of its SHA-256 (HASH-1), or what stands for a foreign hash
/// ([`migration::foreign_hash`]). Nothing is stored under it while there is a pepper, and it is never printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyDigest(pub [u8; 32]);

impl std::fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyDigest")
    }
}

/// What a key is stored under: its digest, or, where there are peppers, the HMAC of it ([`crate::pepper`]).
pub type KeyHash = [u8; 32];

part! {
    /// A rate limit of a key or an identity.
    pub struct Ratelimit {
        /// Its id.
        id: RatelimitId,
        /// Its name, unique on its owner.
        name: String,
        /// Most cost per window.
        limit: u64,
        /// Window length, ms.
        duration: u64,
        /// Whether every verification counts against it.
        auto_apply: bool,
    }
}

part! {
    /// How a key's credits come back.
    pub struct Refill {
        /// Credits are raised to this.
        amount: u64,
        /// Day of the month, 1..31; `None` = every day.
        day: Option<u8>,
    }
}

row! {
    /// A key.
    pub struct KeyRow in KEY version 1 {
        /// See [`KeyHash`].
        hash: KeyHash,
        /// The API it hangs under.
        api: ApiId,
        /// Prefix and first characters of the plaintext; empty for a migrated key not seen yet.
        start: String,
        /// Its name.
        name: Option<String>,
        /// Its metadata: compact JSON text of an object.
        meta: Option<String>,
        /// The identity it is linked to.
        identity: Option<IdentityId>,
        /// Unix ms; still valid in that very millisecond.
        expires: Option<u64>,
        /// A disabled key verifies as `DISABLED`.
        enabled: bool,
        /// Whether it has a limited number of credits; then `CREDITS` has a row for it.
        limited: bool,
        /// How its credits come back; only with `limited`.
        refill: Option<Refill>,
        /// Its own rate limits, in the order they were set.
        ratelimits: Vec<Ratelimit>,
        /// Permissions attached to it directly.
        permissions: Vec<PermissionId>,
        /// Roles attached to it.
        roles: Vec<RoleId>,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its last change.
        updated_at: Option<u64>,
        /// Unix ms of its soft deletion.
        deleted_at: Option<u64>,
    }
}

row! {
    /// Credits left on a key.
    pub struct CreditsRow in CREDITS version 1 {
        /// Raised by every set, change and refill; a spend names the generation it was taken from.
        generation: u64,
        /// How many are left.
        balance: u64,
        /// Unix ms from which the next refill is due; `None` without a refill.
        refill_due: Option<u64>,
    }
}

row! {
    /// When a key was last verified.
    pub struct LastUsedRow in LAST_USED version 1 {
        /// Minutes since 1970.
        minute: u32,
    }
}

/// All a verify needs of a key, in memory: whole and immutable, but for the counters it shares with its predecessors.
///
/// Fields stand in the order in which a verify asks for them, and what most keys lack is one pointer away, so that a plain
/// key takes two cache lines: at a million keys each further line is a wait for memory, and 64 MB of it.
#[derive(Debug)]
#[repr(C)]
pub struct KeyView {
    /// Its API; empty once that is deleted.
    pub api: Arc<Shared<ApiView>>,
    /// Its own rate limits.
    pub ratelimits: RatelimitViews,
    /// Credits and last use.
    pub counters: Arc<KeyCounters>,
    /// See [`KeyRow::enabled`].
    pub enabled: bool,
    /// See [`KeyRow::limited`].
    pub limited: bool,
    /// Minute of the last verification through this view, so that `counters` need not be asked once a minute is noted.
    pub(crate) noted_minute: AtomicU32,
    /// Its workspace.
    pub workspace: WorkspaceNo,
    /// Unix ms; [`NEVER`] for a key that does not expire.
    expires: u64,
    linked: Option<Box<Linked>>,
    /// Its identity; empty once that is deleted.
    pub identity: Option<Arc<Shared<IdentityView>>>,
    /// Its id.
    pub id: KeyId,
    /// Its name.
    pub name: Option<Box<str>>,
}

/// Bytes a shared cell with its view takes, its entry in the map of cells included. Each link counts it whole: cells that
/// many keys share are counted many times, which only makes eviction come early, while cells of one key's own would
/// otherwise not be counted at all.
const SHARED_BYTES: usize = 280;

/// The rate limits of a key. Most keys have one or none, and one stands in the view itself: a wait for memory less.
#[derive(Debug)]
pub enum RatelimitViews {
    /// Exactly one.
    One(RatelimitView),
    /// None, or several.
    Many(Box<[RatelimitView]>),
}

impl From<Box<[RatelimitView]>> for RatelimitViews {
    fn from(limits: Box<[RatelimitView]>) -> RatelimitViews {
        match <Box<[RatelimitView; 1]>>::try_from(limits) {
            Ok(one) => {
                let [one] = *one;
                RatelimitViews::One(one)
            }
            Err(limits) => RatelimitViews::Many(limits),
        }
    }
}

impl std::ops::Deref for RatelimitViews {
    type Target = [RatelimitView];
    fn deref(&self) -> &[RatelimitView] {
        match self {
            RatelimitViews::One(one) => std::slice::from_ref(one),
            RatelimitViews::Many(limits) => limits,
        }
    }
}

/// What stands for "does not expire": no request can name such a time.
const NEVER: u64 = u64::MAX;

/// What many keys have none of.
#[derive(Debug, Default)]
pub(crate) struct Linked {
    /// Direct permissions.
    pub permissions: Box<[Arc<Shared<PermissionView>>]>,
    /// Roles.
    pub roles: Box<[Arc<Shared<RoleView>>]>,
    /// Metadata: compact JSON text.
    pub meta: Option<Box<str>>,
}

impl KeyView {
    /// The view of a key, from its row and what that refers to.
    pub(crate) fn new(
        (workspace, id, row): (WorkspaceNo, KeyId, &KeyRow),
        api: Arc<Shared<ApiView>>,
        identity: Option<Arc<Shared<IdentityView>>>,
        ratelimits: RatelimitViews,
        linked: Linked,
        counters: Arc<KeyCounters>,
    ) -> KeyView {
        let has_links = !linked.permissions.is_empty() || !linked.roles.is_empty() || linked.meta.is_some();
        KeyView {
            api,
            ratelimits,
            counters,
            enabled: row.enabled,
            limited: row.limited,
            noted_minute: AtomicU32::new(0),
            workspace,
            expires: row.expires.unwrap_or(NEVER),
            linked: has_links.then(|| Box::new(linked)),
            identity,
            id,
            name: row.name.as_deref().map(Into::into),
        }
    }

    /// See [`KeyRow::expires`].
    pub fn expires(&self) -> Option<u64> {
        (self.expires != NEVER).then_some(self.expires)
    }

    /// Direct permissions.
    pub fn permissions(&self) -> &[Arc<Shared<PermissionView>>] {
        self.linked.as_deref().map_or(&[], |linked| &linked.permissions)
    }

    /// Roles.
    pub fn roles(&self) -> &[Arc<Shared<RoleView>>] {
        self.linked.as_deref().map_or(&[], |linked| &linked.roles)
    }

    /// Metadata: compact JSON text.
    pub fn meta(&self) -> Option<&str> {
        self.linked.as_deref().and_then(|linked| linked.meta.as_deref())
    }

    /// Bytes it takes, roughly, counters included.
    pub(crate) fn bytes(&self) -> usize {
        let links = self.linked.as_deref().map_or(0, |linked| {
            size_of::<Linked>()
                + (linked.permissions.len() + linked.roles.len()) * SHARED_BYTES
                + linked.meta.as_deref().map_or(0, str::len)
        });
        size_of::<KeyView>()
            + size_of::<KeyCounters>()
            + self.name.as_deref().map_or(0, str::len)
            + links
            + if self.identity.is_some() { SHARED_BYTES } else { 0 }
            + self.ratelimits.iter().map(|limit| limit.name.len()).sum::<usize>()
            + if self.ratelimits.len() > 1 { size_of_val(&*self.ratelimits) } else { 0 }
    }
}

/// A rate limit, with the subject its counter has.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct RatelimitView {
    /// Its counter (KEYS-RL-5).
    pub subject: Subject,
    /// Most cost per window.
    pub limit: u64,
    /// Window length, ms.
    pub duration: u64,
    /// Its name.
    pub name: Box<str>,
    /// Its id.
    pub id: RatelimitId,
    /// Whether every verification counts against it.
    pub auto_apply: bool,
}

/// The stored key of a key's rows.
pub(crate) fn key(workspace: WorkspaceNo, id: KeyId) -> Vec<u8> {
    row_key(workspace, &[id.as_bytes()])
}

/// Which key a row's stored key names; `None` where it is none of a key's.
pub(crate) fn of_row_key(key: &[u8]) -> Option<(WorkspaceNo, KeyId)> {
    Some((super::workspace_of(key)?, KeyId(crate::store::id_from(key.get(4..)?)?)))
}

/// Reads a key, soft-deleted ones included.
pub fn get(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<Option<KeyRow>, ReadError> {
    read.row(&key(workspace, id))
}

/// Reads a key that is neither deleted itself nor by its API (KEYS-GEN-24).
pub fn get_live(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<Option<KeyRow>, ReadError> {
    match get(read, workspace, id)?.filter(|row| row.deleted_at.is_none()) {
        Some(row) if super::api::get_live(read, workspace, row.api)?.is_some() => Ok(Some(row)),
        _ => Ok(None),
    }
}

/// Finds a key by its digest, soft-deleted ones included (HASH-3).
pub fn find(read: &impl Peppered, workspace: WorkspaceNo, digest: &KeyDigest) -> Result<Option<KeyId>, ReadError> {
    pepper::find(read, digest, |hash| read.bytes(KEY_BY_HASH, &row_key(workspace, &[hash])))
}

/// Finds a key by the hash it is stored under.
pub(crate) fn find_stored(
    read: &impl Read,
    workspace: WorkspaceNo,
    hash: &KeyHash,
) -> Result<Option<KeyId>, ReadError> {
    let entry = read.bytes(KEY_BY_HASH, &row_key(workspace, &[hash]))?;
    Ok(entry.as_deref().and_then(pepper::read_entry).map(|(id, _)| id))
}

/// The stored credits of a key. While it is hot its live balance is in [`KeyView::counters`].
pub fn credits(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<Option<CreditsRow>, ReadError> {
    read.row(&key(workspace, id))
}

/// Whether there is a row for a key, soft-deleted or not.
pub(crate) fn exists(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<bool, ReadError> {
    Ok(read.bytes(KeyRow::TABLE, &key(workspace, id))?.is_some())
}

/// What is counted of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Credits left; 0 for a key that never had a limited number.
    pub balance: u64,
    /// Unix ms from which the next refill is due.
    pub refill_due: Option<u64>,
    /// Unix ms of the last verification, whole minutes.
    pub last_used_ms: Option<u64>,
}

/// What is counted of a key, exactly, without making it hot. `hot` is its view if it was in memory *before* `snapshot` was
/// taken: what it counted is in the view then, or else, since it was written before the key left memory, in the snapshot.
pub fn counted(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    id: KeyId,
    hot: Option<&KeyView>,
) -> Result<Counted, ReadError> {
    let credits =
        credits(snapshot, workspace, id)?.unwrap_or(CreditsRow { generation: 0, balance: 0, refill_due: None });
    let hot = hot.map(|view| &*view.counters);
    // A view of another generation is behind a change in the snapshot, or ahead of the snapshot by one.
    let balance =
        hot.filter(|hot| hot.generation() == credits.generation).map_or(credits.balance, KeyCounters::balance);
    let minute = last_used(snapshot, workspace, id)?.max(hot.map_or(0, KeyCounters::last_minute));
    let last_used_ms = (minute > 0).then(|| u64::from(minute) * MINUTE_MS);
    Ok(Counted { balance, refill_due: credits.refill_due, last_used_ms })
}

/// The stored minute of a key's last verification, in minutes since 1970.
pub(crate) fn last_used(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<u32, ReadError> {
    Ok(read.row::<LastUsedRow>(&key(workspace, id))?.map_or(0, |row| row.minute))
}

/// Puts a new key and its indexes. Its hash is what [`Tx::hash`] makes of its digest.
pub fn insert(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &KeyRow) -> Result<(), ReadError> {
    own_hash(tx, workspace, id, &row.hash)?;
    tx.put_bytes(KEY_BY_API, &row_key(workspace, &[row.api.as_bytes(), id.as_bytes()]), Vec::new());
    if let Some(identity) = row.identity {
        tx.put_bytes(KEY_BY_IDENTITY, &of_identity(workspace, identity, id), row.api.as_bytes().to_vec());
    }
    update(tx, workspace, id, row);
    Ok(())
}

/// Puts the entry of a hash that [`Tx::hash`] has just made.
pub(crate) fn own_hash(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, hash: &KeyHash) -> Result<(), ReadError> {
    let stage = tx.chain()?.newest_stage();
    tx.put_bytes(KEY_BY_HASH, &row_key(workspace, &[hash]), pepper::entry(id, stage));
    Ok(())
}

/// The stored key of an identity's link to a key.
fn of_identity(workspace: WorkspaceNo, identity: IdentityId, id: KeyId) -> Vec<u8> {
    row_key(workspace, &[identity.as_bytes(), id.as_bytes()])
}

/// Links a key to another identity, or to none. The caller puts the row.
pub fn set_identity(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    id: KeyId,
    row: &mut KeyRow,
    identity: Option<IdentityId>,
) {
    let before = std::mem::replace(&mut row.identity, identity);
    if before == identity {
        return;
    }
    if let Some(before) = before {
        tx.delete(KEY_BY_IDENTITY, &of_identity(workspace, before, id));
    }
    if let Some(identity) = identity {
        tx.put_bytes(KEY_BY_IDENTITY, &of_identity(workspace, identity, id), row.api.as_bytes().to_vec());
    }
}

/// Ids of an API's live keys, or of those of them that one identity has: at most `most`, by id ascending, from the id text
/// `from` on (bytewise, inclusive; it need not be an id).
pub fn ids(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    api: ApiId,
    identity: Option<IdentityId>,
    from: &[u8],
    most: usize,
) -> Result<Vec<KeyId>, ReadError> {
    let key_id = |id: &[u8]| crate::store::id_from(id).map(KeyId);
    match identity {
        None => snapshot.select(KEY_BY_API, &row_key(workspace, &[api.as_bytes()]), from, most, |id, _| Ok(key_id(id))),
        Some(identity) => {
            let prefix = row_key(workspace, &[identity.as_bytes()]);
            snapshot.select(KEY_BY_IDENTITY, &prefix, from, most, |id, of| {
                Ok(if of == api.as_bytes() { key_id(id) } else { None })
            })
        }
    }
}

/// Puts a key that exists. Its hash, API and identity must be what they were: see [`migration::adopt`] and
/// [`set_identity`].
pub fn update(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &KeyRow) {
    tx.put_bytes(KeyRow::TABLE, &key(workspace, id), row.to_bytes());
}

/// Takes a key out of the listings of its API and of its identity.
fn unlist(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &KeyRow) {
    tx.delete(KEY_BY_API, &row_key(workspace, &[row.api.as_bytes(), id.as_bytes()]));
    if let Some(identity) = row.identity {
        tx.delete(KEY_BY_IDENTITY, &of_identity(workspace, identity, id));
    }
}

/// Marks a key deleted: it leaves all listings; its hash stays taken, and so does its alias (KEYS-DELETE-2).
pub fn soft_delete(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &KeyRow, now: u64) {
    unlist(tx, workspace, id, row);
    update(tx, workspace, id, &KeyRow { deleted_at: Some(now), ..row.clone() });
}

/// Removes a key and all that is its own, its encrypted copy too (HASH-8); its hash becomes free, and so does its alias
/// (KEYS-DELETE-3).
pub fn purge(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: KeyId, row: &KeyRow) -> Result<(), ReadError> {
    unlist(tx, workspace, id, row);
    tx.delete(KEY_BY_HASH, &row_key(workspace, &[&row.hash]));
    migration::forget_key(tx, workspace, id)?;
    for table in [KeyRow::TABLE, CREDITS, LAST_USED, KEY_COPY] {
        tx.delete(table, &key(workspace, id));
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
        let row = KeyRow {
            hash: [1; 32],
            api: ApiId(id('a')),
            start: "p_3Zab".into(),
            name: Some("n".into()),
            meta: Some("{\"a\":1}".into()),
            identity: Some(IdentityId(id('i'))),
            expires: Some(9),
            enabled: true,
            limited: true,
            refill: Some(Refill { amount: 4, day: Some(31) }),
            ratelimits: vec![Ratelimit {
                id: RatelimitId(id('r')),
                name: "rpm".into(),
                limit: 5,
                duration: 60_000,
                auto_apply: true,
            }],
            permissions: vec![PermissionId(id('p'))],
            roles: vec![RoleId(id('o'))],
            created_at: 1,
            updated_at: Some(2),
            deleted_at: None,
        };
        assert_eq!(
            hex(&row.to_bytes()),
            "0101010101010101010101010101010101010101010101010101010101010101016161616161616161616161616161616106000\
             000705f335a616201010000006e01070000007b2261223a317d016969696969696969696969696969696901090000000000000\
             00101010400000000000000011f01000000727272727272727272727272727272720300000072706d050000000000000060ea\
             0000000000000101000000707070707070707070707070707070700\
             1000000 6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f0100000000000000010200000000000000 00"
                .replace(' ', "")
        );
        assert_eq!(KeyRow::from_bytes(&row.to_bytes()), Ok(row));
        let credits = CreditsRow { generation: 3, balance: 2, refill_due: Some(1) };
        assert_eq!(hex(&credits.to_bytes()), "0103000000000000000200000000000000010100000000000000");
        assert_eq!(CreditsRow::from_bytes(&credits.to_bytes()), Ok(credits));
        let used = LastUsedRow { minute: 0x0102 };
        assert_eq!(hex(&used.to_bytes()), "0102010000");
        assert_eq!(LastUsedRow::from_bytes(&used.to_bytes()), Ok(used));
    }
}
