//! From a bearer token to the principal behind it.
//!
//! A secret is never compared: what is presented is hashed (SHA-256) and looked up by the digest. How long that takes may
//! depend on how much of the digest agrees with a stored one, which tells nothing about the secret, since nobody can choose
//! an input by the first bytes of its digest cheaper than by trying.

use std::net::IpAddr;
use std::sync::Arc;

use keyward_storage::Lookup;
use keyward_storage::records::root_key::RootKeyView;
use keyward_storage::records::workspace::WorkspaceView;

use crate::api::problem::{Code, Problem};
use crate::api::wire::Authorization;
use crate::app::Services;
use crate::metrics::recorder::Index;
use crate::rbac::Grants;
use crate::secret;

/// Who calls: a root key, the workspace it administers, and what it may do there.
pub struct Principal {
    /// The root key.
    pub key: Arc<RootKeyView>,
    /// Its workspace.
    pub workspace: Arc<WorkspaceView>,
    /// Its permissions, prepared.
    pub grants: Arc<Grants>,
}

/// The scheme of the header, its space included (COM-AUTH-06).
const SCHEME: &str = "Bearer ";
/// KEYS-GEN-7, the first sentence for everything malformed.
const MALFORMED: &str =
    "You must provide a valid root key in the Authorization header in the format 'Bearer ROOT_KEY'.";

/// Whether a credential was claimed at all; without one the request fails validation (COM-AUTH-01).
pub fn is_present(authorization: &Authorization) -> bool {
    match authorization {
        Authorization::Absent => false,
        Authorization::One(value) => !value.trim().is_empty(),
        Authorization::NotText | Authorization::Several => true,
    }
}

/// Finds the root key behind the header, in the contract's order (COM-RK-02), `now` in unix ms. The answer about an unknown
/// one may be held back, by how many its address has sent.
pub async fn authenticate(
    services: &Arc<Services>,
    authorization: &Authorization,
    client_ip: Option<IpAddr>,
    now: u64,
) -> Result<Principal, Problem> {
    let token = bearer(authorization)?;
    let hash = secret::digest(token);
    let found = services.storage.root_key(&hash);
    services.metrics.requests.lookup(Index::RootKeys, &found);
    let found = match found {
        Lookup::Hot(view) => Some(view),
        Lookup::Absent => None,
        Lookup::Unknown => {
            Box::pin(services.read(move |storage| storage.read_root_key(&hash))).await.map_err(|error| {
                Problem::new(Code::ServiceUnavailable, "We could not load the provided root key.").because(error)
            })?
        }
    };
    let Some(key) = found else {
        // The server's own clock: nobody is let off by a test time.
        Box::pin(services.guesses.slow_down(client_ip, services.outside.clock.now_ms())).await;
        return Err(unknown());
    };
    let Some(workspace) = key.workspace.load().clone() else {
        return Err(Problem::new(
            Code::WorkspaceNotFound,
            "The provided root key is invalid. The requested workspace does not exist.",
        ));
    };
    if !workspace.enabled {
        return Err(Problem::new(
            Code::WorkspaceDisabled,
            "The provided root key is invalid. The workspace it belongs to is disabled.",
        ));
    }
    if !key.enabled {
        return Err(Problem::new(Code::KeyDisabled, "The provided root key is invalid. The key is disabled."));
    }
    if let Some(expires) = key.expires.filter(|&expires| now > expires) {
        return Err(Problem::new(
            Code::Forbidden,
            format!("The provided root key is invalid. The key expired at {}.", instant(expires)),
        ));
    }
    let grants = prepared(&key, &workspace);
    Ok(Principal { key, workspace, grants })
}

fn bearer(authorization: &Authorization) -> Result<&str, Problem> {
    let value = match authorization {
        Authorization::One(value) => &**value,
        Authorization::Absent | Authorization::NotText => return Err(malformed("")),
        Authorization::Several => return Err(malformed(" Your request has more than one Authorization header.")),
    };
    // White space at the header's ends is not part of it, so `Bearer ` without a key arrives as `Bearer`.
    match value.trim_start().strip_prefix(SCHEME).map(str::trim) {
        Some(token) if !token.is_empty() => Ok(token),
        _ => Err(malformed(" Your authorization header is missing the 'Bearer ' prefix.")),
    }
}

fn malformed(why: &'static str) -> Problem {
    Problem::new(Code::CredentialMalformed, [MALFORMED, why].concat())
}

/// The same answer for a key that was never there, one that is deleted, and one that is no root key (COM-RK-03).
fn unknown() -> Problem {
    Problem::new(Code::RootKeyNotFound, "The provided root key is invalid. We could not find the requested key.")
}

/// The root key's permissions, worked out once per view: any change of the key publishes a new view.
fn prepared(key: &RootKeyView, workspace: &WorkspaceView) -> Arc<Grants> {
    let make = || Arc::new(Grants::new(&workspace.id.spell(), key.permissions.iter()));
    let memo = key.memo.get_or_init(|| make() as Arc<dyn std::any::Any + Send + Sync>);
    Arc::clone(memo).downcast().unwrap_or_else(|_| make())
}

/// An instant for people: ISO 8601 in UTC, or the bare number where it is beyond calendars.
pub fn instant(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX);
    match time::OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            unix_ms % 1000
        ),
        Err(_) => format!("{unix_ms} ms after 1970"),
    }
}
