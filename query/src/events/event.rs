//! Events: what a decision on a key or an identifier leaves behind.
//!
//! An event is made on the road of a request, so making one allocates nothing but what the request already holds: ids are
//! values, texts are moved in, and an identity is the view that the decision was made with.

use std::sync::Arc;

use keyward_storage::ids::{IdText, KeyId, KeyspaceId, NamespaceId, OverrideId, WorkspaceId};
use keyward_storage::records::identity::IdentityView;

use super::tables::Family;

/// Bytes of a request id, its prefix included; all of them ASCII.
pub const REQUEST_ID_BYTES: usize = 21;

/// A request id as text.
pub type RequestIdBytes = [u8; REQUEST_ID_BYTES];

/// What became of a verification of a key that was found (AN-TAB-02).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The key is good.
    Valid,
    /// A rate limit is exceeded.
    RateLimited,
    /// The key has expired.
    Expired,
    /// The key is disabled.
    Disabled,
    /// The key lacks a permission.
    InsufficientPermissions,
    /// The caller's address is not admitted.
    Forbidden,
    /// The key has too few credits.
    UsageExceeded,
}

impl Outcome {
    /// As column `outcome` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Valid => "VALID",
            Outcome::RateLimited => "RATE_LIMITED",
            Outcome::Expired => "EXPIRED",
            Outcome::Disabled => "DISABLED",
            Outcome::InsufficientPermissions => "INSUFFICIENT_PERMISSIONS",
            Outcome::Forbidden => "FORBIDDEN",
            Outcome::UsageExceeded => "USAGE_EXCEEDED",
        }
    }
}

/// A verification of a key (KEYS-ANALYTICS). Region and source are the server's and not repeated in each.
#[derive(Debug, Clone)]
pub struct Verification {
    /// The request's id.
    pub request_id: RequestIdBytes,
    /// Unix ms.
    pub time: u64,
    /// Whose key it is.
    pub workspace: WorkspaceId,
    /// The key's space.
    pub keyspace: KeyspaceId,
    /// The key.
    pub key: KeyId,
    /// The key's identity, if it has one.
    pub identity: Option<Arc<IdentityView>>,
    /// What became of it.
    pub outcome: Outcome,
    /// Labels of the request, as sent.
    pub tags: Vec<String>,
    /// Credits really spent.
    pub spent_credits: u64,
    /// Milliseconds the verification took.
    pub latency_ms: f64,
}

/// A rate-limit decision (RL-EVT).
#[derive(Debug, Clone)]
pub struct Ratelimit {
    /// The request's id.
    pub request_id: RequestIdBytes,
    /// Unix ms.
    pub time: u64,
    /// Whose namespace it is.
    pub workspace: WorkspaceId,
    /// The namespace.
    pub namespace: NamespaceId,
    /// Whom or what was counted.
    pub identifier: String,
    /// The override that was applied, if one was.
    pub override_id: Option<OverrideId>,
    /// Whether the request may go on.
    pub passed: bool,
    /// Milliseconds the decision took.
    pub latency_ms: f64,
    /// The limit that was applied.
    pub limit: u64,
    /// What is left in the window.
    pub remaining: u64,
    /// Unix ms at which the window ends.
    pub reset_at: u64,
    /// The cost, also of a request that was denied.
    pub tokens: u64,
}

/// An event of either family.
#[derive(Debug, Clone)]
pub enum Event {
    /// A verification.
    Verification(Verification),
    /// A rate-limit decision.
    Ratelimit(Ratelimit),
}

impl Event {
    /// Which tables it belongs to.
    pub fn family(&self) -> Family {
        match self {
            Event::Verification(_) => Family::Verifications,
            Event::Ratelimit(_) => Family::Ratelimits,
        }
    }

    /// Whose it is.
    pub fn workspace(&self) -> WorkspaceId {
        match self {
            Event::Verification(event) => event.workspace,
            Event::Ratelimit(event) => event.workspace,
        }
    }

    /// Unix ms.
    pub fn time(&self) -> u64 {
        match self {
            Event::Verification(event) => event.time,
            Event::Ratelimit(event) => event.time,
        }
    }
}

impl From<Verification> for Event {
    fn from(event: Verification) -> Event {
        Event::Verification(event)
    }
}

impl From<Ratelimit> for Event {
    fn from(event: Ratelimit) -> Event {
        Event::Ratelimit(event)
    }
}

/// Reads a workspace id out of a column. `None` for what is no such id.
pub(crate) fn workspace_of(text: &str) -> Option<WorkspaceId> {
    WorkspaceId::parse(text)
}

/// A workspace id from its stored bytes.
pub(crate) fn workspace_from(bytes: [u8; 16]) -> Option<WorkspaceId> {
    IdText::from_bytes(bytes).map(WorkspaceId)
}
