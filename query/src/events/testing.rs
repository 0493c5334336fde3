//! Small helpers of the tests beside the code.

use std::sync::Arc;

use keyward_storage::ids::{IdText, IdentityId, KeyId, KeyspaceId, NamespaceId, WorkspaceId};
use keyward_storage::records::identity::IdentityView;

use super::event::{Outcome, Ratelimit, Verification};

/// An id text of one repeated character.
pub fn text(char: char) -> IdText {
    IdText::from_bytes([u8::try_from(char).expect("ASCII"); 16]).expect("alphanumeric")
}

/// A plain verification at this time.
pub fn verification(time: u64) -> Verification {
    Verification {
        request_id: *b"req_aaaaaaaaaaaaaaaaa",
        time,
        workspace: WorkspaceId(text('w')),
        keyspace: KeyspaceId(text('s')),
        key: KeyId(text('k')),
        identity: None,
        outcome: Outcome::Valid,
        tags: Vec::new(),
        spent_credits: 0,
        latency_ms: 0.25,
    }
}

/// The same with an identity and tags.
pub fn identified(time: u64, tags: &[&str]) -> Verification {
    let identity =
        IdentityView { id: IdentityId(text('i')), external_id: "user-1".into(), meta: None, ratelimits: Box::new([]) };
    Verification {
        identity: Some(Arc::new(identity)),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..verification(time)
    }
}

/// A plain decision at this time.
pub fn ratelimit(time: u64) -> Ratelimit {
    Ratelimit {
        request_id: *b"req_bbbbbbbbbbbbbbbbb",
        time,
        workspace: WorkspaceId(text('w')),
        namespace: NamespaceId(text('n')),
        identifier: "ada".into(),
        override_id: None,
        passed: true,
        latency_ms: 0.125,
        limit: 10,
        remaining: 9,
        reset_at: time + 1_000,
        tokens: 1,
    }
}
