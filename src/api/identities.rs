//! identities.*: end users or tenants of the customer, whose keys share metadata and rate limits.

pub mod create_identity;
pub mod delete_identity;
pub mod get_identity;
pub mod identity_object;
pub mod list_identities;
#[cfg(test)]
mod trail_tests;
pub mod update_identity;

use keyward_storage::ids::IdentityId;
use keyward_storage::records::audit::Target;
use keyward_storage::records::identity::IdentityRow;
use keyward_storage::records::key::Ratelimit;

use super::attached_limits::RatelimitsRequest;
use super::call::{Call, Change, Granted};
use super::problem::{Code, Problem};
use super::shape::{Meta, Text};
use super::trail::Changes;
use crate::rbac::Need;
use crate::tenants::target;

/// Bytes the metadata of an identity may have as compact JSON (ID-RES-06).
const META_BYTES_MAX: usize = 1 << 20;

/// Metadata of an identity in a request. Its size is judged by [`meta_text`], because permission comes before it
/// (ID-CREATE-02).
type IdentityMeta = Meta<{ usize::MAX }>;

/// What a request calls an identity: its id or its external id (ID-RES-04).
type IdentityName = Text<1, { usize::MAX }>;

/// The resource every identity is asked for by: the stars are literal, so only a grant with a wildcard in both places
/// covers it (PM-URN-04).
const EVERY_IDENTITY: &[&str] = &["projects", "*", "identities", "*"];

/// One answer for an identity that is absent, deleted, or another workspace's; pinned word for word (ID-GET-02).
fn not_found() -> Problem {
    Problem::new(Code::IdentityNotFound, "This identity does not exist.")
}

/// Asks for an action on every identity: `identity.*.<action>` or its resource name.
fn authorize<'c>(call: &'c Call, action: &str) -> Result<Granted<'c>, Problem> {
    call.authorize(&Need::Any(&[Need::tuple("identity", "*", action), Need::urn(EVERY_IDENTITY, action)]))
}

/// A caller that may read all identities, or some.
struct Reader<'c> {
    call: &'c Call,
    reads_all: bool,
}

impl<'c> Reader<'c> {
    const ACTION: &'static str = "read_identity";

    /// Refuses a caller that may read none, before anything is looked up: it cannot tell what exists (ID-GET-04,
    /// ID-LIST-04).
    fn new(call: &'c Call) -> Result<Reader<'c>, Problem> {
        match authorize(call, Self::ACTION) {
            Ok(_) => Ok(Reader { call, reads_all: true }),
            Err(_) if call.holds_any("identity", Self::ACTION) => Ok(Reader { call, reads_all: false }),
            Err(denied) => Err(denied),
        }
    }

    /// Refuses an identity that the caller may not read. The refusal names no id: the caller may not know it (ID-GET-03).
    fn check(&self, id: IdentityId) -> Result<(), Problem> {
        if self.reads_all || self.call.may(&Need::tuple("identity", &id.spell(), Self::ACTION)).is_some() {
            return Ok(());
        }
        authorize(self.call, Self::ACTION).map(drop)
    }
}

/// Metadata as a row holds it: `None` where it is empty (ID-RES-01).
fn meta_text(meta: IdentityMeta) -> Result<Option<String>, Problem> {
    let bytes = meta.as_str().len();
    if bytes > META_BYTES_MAX {
        return Err(Problem::invalid(format!(
            "Metadata is too large: it may have at most {META_BYTES_MAX} bytes, got {bytes}."
        )));
    }
    Ok((!meta.is_empty()).then(|| meta.as_str().to_owned()))
}

/// Refuses a name that a request gives to two rate limits: one would silently replace the other (ID-CREATE-04,
/// ID-UPDATE-02).
fn refuse_repeated_names(limits: Option<&RatelimitsRequest>) -> Result<(), Problem> {
    let mut names: Vec<&str> = limits.into_iter().flatten().map(|limit| limit.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        None => Ok(()),
        Some(pair) => {
            Err(Problem::invalid(format!("The rate limit '{}' is there more than once: names are unique.", pair[0])))
        }
    }
}

/// The identity as an audit target.
fn identity_target(id: IdentityId, row: &IdentityRow) -> Target {
    target("identity", id, &row.external_id)
}

/// What became of a rate limit.
enum Fate {
    Created,
    Updated(Changes),
    Deleted,
}

/// Tells what became of a rate limit of an identity.
fn tell_of_limit(change: &mut Change<'_, '_>, id: IdentityId, row: &IdentityRow, limit: &Ratelimit, fate: Fate) {
    let (event, became, meta) = match fate {
        Fate::Created => ("ratelimit.create", "Created", None),
        Fate::Updated(changes) => ("ratelimit.update", "Updated", changes.into_meta()),
        Fate::Deleted => ("ratelimit.delete", "Deleted", None),
    };
    let of_limit = Target { meta, ..target("ratelimit", limit.id, &limit.name) };
    let description = format!("{became} ratelimit {} of identity {id}", limit.id);
    change.audit(event, description, vec![identity_target(id, row), of_limit]);
}
