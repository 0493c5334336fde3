//! Small helpers of the tests beside the code.

use keyward_storage::ids::{IdText, KeyId, KeyspaceId, WorkspaceId};

use super::event::{Outcome, Verification};

/// An id text of one repeated character.
pub fn text(char: char) -> IdText {
    IdText::from_bytes([u8::try_from(char).expect("ASCII"); 16]).expect("alphanumeric")
}

/// A plain verification at this time.
pub fn verification(time: u64) -> Verification {
    Verification {
        request_id: *b"req_aaaaaaaaaaaaaaaaaaaa",
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
