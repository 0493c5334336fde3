//! keys.*: issue keys, verify them, change them.

pub mod add_permissions;
pub mod add_roles;
pub mod create_key;
pub mod delete_key;
pub mod get_key;
mod history;
pub(super) mod key_object;
#[cfg(test)]
mod life_trail_tests;
#[cfg(test)]
mod link_trail_tests;
mod links;
pub mod migrate_keys;
#[cfg(test)]
mod migrate_trail_tests;
mod migrated;
mod offline;
pub(super) mod recovery;
#[cfg(test)]
mod recovery_trail_tests;
mod refill;
pub mod remove_permissions;
pub mod remove_roles;
pub mod reroll_key;
pub mod search_keys;
pub mod set_permissions;
pub mod set_roles;
mod settings;
pub mod update_credits;
pub mod update_key;
pub mod verify_key;
pub mod verify_reply;
pub mod whoami;

use std::sync::Arc;

use keyward_storage::Lookup;
use keyward_storage::ids::{ApiId, KeyId, KeyspaceId, WorkspaceNo};
use keyward_storage::records::audit::Target;
use keyward_storage::records::key::{self, KeyDigest, KeyHash, KeyRow, KeyView};
use keyward_storage::records::{api, api::ApiRow};
use keyward_storage::{Abort, Read, ReadError};

use super::call::{Call, Change};
use super::problem::{Code, Problem};
use crate::metrics::recorder::Index;
use crate::rbac::Need;
use crate::tenants::target;

/// One answer for a key that is absent, deleted, or another workspace's (KEYS-GEN-26).
fn not_found() -> Problem {
    Problem::new(Code::KeyNotFound, "We could not find the requested key. The specified key was not found.")
}

/// A live key with what its permissions are asked by.
struct Found {
    id: KeyId,
    row: KeyRow,
    api: ApiRow,
}

/// Reads a live key of a workspace (KEYS-GEN-24).
fn live(read: &impl Read, workspace: WorkspaceNo, id: KeyId) -> Result<Option<Found>, ReadError> {
    let Some(row) = key::get(read, workspace, id)?.filter(|row| row.deleted_at.is_none()) else { return Ok(None) };
    Ok(api::get_live(read, workspace, row.api)?.map(|api| Found { id, row, api }))
}

/// Finds a live key by the id a client sent; else the 404 that tells nothing (KEYS-GEN-25).
async fn find(call: &Call, id: &str) -> Result<Found, Problem> {
    let id = KeyId::parse(id).ok_or_else(not_found)?;
    let workspace = call.workspace();
    call.read("key", move |storage| live(&storage.snapshot()?, workspace, id)).await?.ok_or_else(not_found)
}

/// Reads a key inside a transaction: it may have gone since the handler looked.
fn find_again(change: &Change<'_, '_>, id: KeyId) -> Result<Found, Abort<Problem>> {
    live(change.tx, change.workspace(), id)?.ok_or_else(|| Abort::Refused(not_found()))
}

/// The hot view of a key by its digest, from memory or else from disk.
async fn view(call: &Call, digest: &KeyDigest) -> Result<Option<Arc<KeyView>>, Problem> {
    let workspace = call.workspace();
    let found = call.storage().key(workspace, digest);
    call.services().metrics.requests.lookup(Index::Keys, &found);
    match found {
        Lookup::Hot(view) => Ok(Some(view)),
        Lookup::Absent => Ok(None),
        Lookup::Unknown => {
            let digest = *digest;
            // Boxed, as all that rarely happens on the road of a verify: its future is copied into place on every request.
            Box::pin(call.read("key", move |storage| storage.read_key(workspace, &digest))).await
        }
    }
}

/// How a key was found, to find it again.
#[derive(Debug, Clone, Copy)]
enum Trace {
    /// By what was presented.
    Presented(KeyDigest),
    /// By the hash in its row.
    Stored(KeyHash),
}

/// The hot view of a key that was found like this a moment ago. A migrated key may have been given another hash since, and a
/// switch of the pepper gives one to every key: then it is found by its id.
async fn view_again(call: &Call, trace: &Trace, id: KeyId) -> Result<Option<Arc<KeyView>>, Problem> {
    let workspace = call.workspace();
    let seen = match trace {
        Trace::Presented(digest) => view(call, digest).await?,
        Trace::Stored(hash) => match call.storage().stored_key(workspace, hash) {
            Lookup::Hot(view) => Some(view),
            Lookup::Absent | Lookup::Unknown => None,
        },
    };
    match seen.filter(|view| view.id == id) {
        Some(view) => Ok(Some(view)),
        None => Box::pin(call.read("key", move |storage| storage.read_key_by_id(workspace, id))).await,
    }
}

/// Asks for `api.{*|id}.<action>` or the key's own resource name with that action (KEYS-GEN-31).
fn need_for_key<R>(api: ApiId, keyspace: KeyspaceId, key: KeyId, action: &str, ask: impl FnOnce(&Need<'_>) -> R) -> R {
    let (api, keyspace, key) = (api.spell(), keyspace.spell(), key.spell());
    ask(&Need::Any(&[
        Need::any_or_one("api", &api, action),
        Need::urn(&["keyspaces", &keyspace, "keys", &key], action),
    ]))
}

impl Found {
    /// As [`need_for_key`], for this key.
    fn need<R>(&self, action: &str, ask: impl FnOnce(&Need<'_>) -> R) -> R {
        need_for_key(self.row.api, self.api.keyspace, self.id, action, ask)
    }

    /// The key as an audit target.
    fn target(&self) -> Target {
        target("key", self.id, self.row.name.as_deref().unwrap_or_default())
    }

    /// Its API as an audit target.
    fn api_target(&self) -> Target {
        super::apis::api_target(self.row.api, &self.api.name)
    }
}
