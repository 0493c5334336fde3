//! rootKeys.*: the credentials that administer the workspace, over HTTP (EXT-12).
//!
//! One rule stands above the permissions: nothing a root key does here may leave more power than it has itself, nor take
//! hold of a root key that has more. It is asked inside the transaction, of the calling key as it is then (`Ceiling`).

pub mod create_key;
pub mod delete_key;
pub mod list_keys;
pub mod reroll_key;
#[cfg(test)]
mod trail_tests;
pub mod update_key;

use keyward_storage::Abort;
use keyward_storage::ids::KeyId;
use keyward_storage::records::audit::Target;
use keyward_storage::records::root_key::{self, RootKeyRow};

use super::call::{Call, Change};
use super::problem::{Code, Problem};
use super::shape::{List, Text};
use crate::rbac::{Grants, Need};
use crate::tenants::{NAME_CHARS_MAX, PERMISSION_CHARS_MAX, PERMISSIONS_MAX, target};

/// A root key's name.
type Name = Text<1, NAME_CHARS_MAX>;

/// A root key's permissions, in either spelling. Strings that are neither are legal and open nothing (PM-TUP-03, PM-URN-07).
type Permissions = List<Text<1, PERMISSION_CHARS_MAX>, 0, PERMISSIONS_MAX>;

/// One answer for a root key that is absent, deleted, another workspace's, or a key of an API.
fn not_found() -> Problem {
    Problem::new(Code::KeyNotFound, "The specified root key was not found.")
}

/// Reads a live root key of the caller's workspace inside a transaction.
fn live(change: &Change<'_, '_>, id: KeyId) -> Result<RootKeyRow, Abort<Problem>> {
    let row = root_key::get(change.tx, id)?;
    let row = row.filter(|row| row.deleted_at.is_none() && row.workspace == change.workspace());
    row.ok_or_else(|| Abort::Refused(not_found()))
}

/// The root key as an audit target.
fn root_key_target(id: KeyId, row: &RootKeyRow) -> Target {
    target("rootKey", id, row.name.as_deref().unwrap_or_default())
}

/// Asks for `root_key.{*|id}.<action>`, or for the resource name with the action that official clients' documentation
/// names.
fn need_for_one<R>(id: &str, action: &str, urn_action: &str, ask: impl FnOnce(&Need<'_>) -> R) -> R {
    ask(&Need::Any(&[Need::any_or_one("root_key", id, action), Need::urn(&["rootKeys", id], urn_action)]))
}

/// Refuses what would disturb whoever reads a list of root keys or the audit log, as the command line does.
fn check_name(name: &str) -> Result<(), Problem> {
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        return Err(Problem::invalid("`name` is more than white space and has no control characters."));
    }
    Ok(())
}

/// The permissions as they are stored: sorted, each once.
fn permissions(asked: Permissions) -> Result<Vec<String>, Problem> {
    let mut texts: Vec<String> = asked.into_iter().map(Text::into_string).collect();
    if let Some(at) = texts.iter().position(|text| text.chars().any(char::is_control)) {
        return Err(Problem::invalid(format!("`permissions[{at}]` has control characters.")));
    }
    texts.sort();
    texts.dedup();
    Ok(texts)
}

/// The most that a root key may hand on: what it holds and how long it lives itself (EXT-12).
struct Ceiling {
    grants: Grants,
    expires: Option<u64>,
}

/// Who calls, for `Ceiling::of`.
#[derive(Clone)]
struct Caller {
    id: KeyId,
    workspace: String,
}

impl Caller {
    fn of(call: &Call) -> Caller {
        Caller { id: call.principal.key.id, workspace: call.workspace_id().to_string() }
    }
}

impl Ceiling {
    /// The ceiling of the calling root key as the records have it now: one that was revoked or cut since the request was
    /// authenticated hands on nothing, or less.
    fn of(change: &Change<'_, '_>, caller: &Caller) -> Result<Ceiling, Abort<Problem>> {
        let row = root_key::get(change.tx, caller.id)?.filter(|row| row.deleted_at.is_none() && row.enabled);
        let Some(row) = row else {
            let detail = "The provided root key is invalid. We could not find the requested key.";
            return Err(Abort::Refused(Problem::new(Code::RootKeyNotFound, detail)));
        };
        Ok(Ceiling { grants: Grants::new(&caller.workspace, &row.permissions), expires: row.expires })
    }

    /// Passes where the caller could grant all of these; else 403 naming the first that it could not.
    fn covers(&self, permissions: &[String]) -> Result<(), Abort<Problem>> {
        match permissions.iter().find(|permission| !self.grants.may_grant(permission)) {
            None => Ok(()),
            Some(permission) => Err(Abort::Refused(Problem::new(
                Code::InsufficientPermissions,
                format!("A root key reaches no further than its own permissions. Missing permission: '{permission}'"),
            ))),
        }
    }

    /// Passes where a root key that expires then does not outlive the caller.
    fn outlives(&self, expires: Option<u64>) -> Result<(), Abort<Problem>> {
        let shorter = match (self.expires, expires) {
            (None, _) => true,
            (Some(own), Some(other)) => other <= own,
            (Some(_), None) => false,
        };
        if shorter {
            return Ok(());
        }
        let detail = "A root key gives its permissions to no root key that lives longer than itself: `expires` must be no \
                      later than the expiry of the root key that calls.";
        Err(Abort::Refused(Problem::new(Code::InsufficientPermissions, detail)))
    }
}

/// 412 for what would leave the caller without a key: another root key, or the operator, has to do it.
fn not_oneself(what: &str) -> Problem {
    let detail = format!("A root key cannot {what} itself. Use another root key, or `keyward root-key` on the server.");
    Problem::new(Code::PreconditionFailed, detail)
}
