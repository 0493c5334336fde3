//! Audit events: written in the same transaction as the change they tell of, numbered and chained per workspace.
//!
//! The hash of an event covers its bytes and the hash of the event before it, so a line that is missing, changed or moved
//! shows. The chain begins with 32 zero bytes.

use sha2::{Digest, Sha256};

use super::codec::{Field, part, row};
use super::{AUDIT, AUDIT_HEAD, Row, row_key};
use crate::error::ReadError;
use crate::ids::{CorrelationId, EventId, WorkspaceNo};
use crate::store::Read;
use crate::tx::Tx;

part! {
    /// Who did it (AL-ACTOR).
    pub struct Actor {
        /// `rootkey`, `system`, …
        kind: String,
        /// Id within its kind.
        id: String,
        /// Display name.
        name: String,
    }
}

part! {
    /// What it was done to.
    pub struct Target {
        /// `key`, `api`, … (AL-TYPE).
        kind: String,
        /// Its id.
        id: String,
        /// Its display name at that time; empty when it has none.
        name: String,
        /// More about it: compact JSON text of an object.
        meta: Option<String>,
    }
}

part! {
    /// An audit event as the change tells it (AL-EV-01).
    pub struct AuditEvent {
        /// Unique.
        id: EventId,
        /// Unix ms.
        time: u64,
        /// Name of the event (AL-NAME).
        event: String,
        /// One line for people.
        description: String,
        /// Who.
        actor: Actor,
        /// The client's address.
        remote_ip: Option<String>,
        /// The client's program, as it calls itself.
        user_agent: Option<String>,
        /// What it was done to, in order.
        targets: Vec<Target>,
        /// Ties the events of one user action together (AL-EV-04).
        correlation: Option<CorrelationId>,
    }
}

row! {
    /// An audit event as it is stored.
    pub struct AuditRow in AUDIT version 1 {
        /// Hash of the event before it in the workspace.
        previous: [u8; 32],
        /// The event.
        event: AuditEvent,
    }
}

row! {
    /// The newest audit event of a workspace.
    pub struct AuditHead in AUDIT_HEAD version 1 {
        /// Its number; the first event of a workspace has 1.
        sequence: u64,
        /// Its hash.
        hash: [u8; 32],
    }
}

/// The hash of a stored event: what the next one names as `previous`.
pub fn hash(workspace: WorkspaceNo, sequence: u64, row: &AuditRow) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(256);
    workspace.put(&mut bytes);
    sequence.put(&mut bytes);
    bytes.extend_from_slice(&row.to_bytes());
    Sha256::digest(&bytes).into()
}

/// The newest event of a workspace.
pub fn head(read: &impl Read, workspace: WorkspaceNo) -> Result<AuditHead, ReadError> {
    Ok(read.row(&row_key(workspace, &[]))?.unwrap_or(AuditHead { sequence: 0, hash: [0; 32] }))
}

/// Events of a workspace from a sequence number on, oldest first.
pub fn list(
    read: &impl Read,
    workspace: WorkspaceNo,
    from: u64,
    most: usize,
) -> Result<Vec<(u64, AuditRow)>, ReadError> {
    let prefix = row_key(workspace, &[]);
    let start = row_key(workspace, &[&from.to_be_bytes()]);
    let mut events = Vec::new();
    for (key, value) in read.range(AUDIT, &prefix, Some(&start), most)? {
        if let Some(sequence) = key.get(4..).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes) {
            events.push((sequence, crate::store::decode(&value)?));
        }
    }
    Ok(events)
}

/// Numbers, chains and puts the events of a transaction.
pub(crate) fn append(tx: &mut Tx<'_>, workspace: WorkspaceNo, events: Vec<AuditEvent>) -> Result<(), ReadError> {
    let mut head = head(tx, workspace)?;
    for event in events {
        let row = AuditRow { previous: head.hash, event };
        head.sequence += 1;
        head.hash = hash(workspace, head.sequence, &row);
        tx.put_bytes(AUDIT, &row_key(workspace, &[&head.sequence.to_be_bytes()]), row.to_bytes());
    }
    tx.put_bytes(AUDIT_HEAD, &row_key(workspace, &[]), head.to_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

    /// Frozen, the hash included: chains on users' disks hold it.
    #[test]
    fn row_bytes_and_chain_are_frozen() {
        let row = AuditRow {
            previous: [0; 32],
            event: AuditEvent {
                id: EventId(id('e')),
                time: 1,
                event: "api.create".into(),
                description: "d".into(),
                actor: Actor { kind: "rootkey".into(), id: "key_1".into(), name: "root key".into() },
                remote_ip: Some("::1".into()),
                user_agent: None,
                targets: vec![Target { kind: "api".into(), id: "api_1".into(), name: String::new(), meta: None }],
                correlation: None,
            },
        };
        assert_eq!(
            hex(&row.to_bytes()),
            "0100000000000000000000000000000000000000000000000000000000000000006565656565656565656565656565656501000\
             000000000000a0000006170692e6372656174650100000064 07000000726f6f746b6579050000006b65795f3108000000726f\
             6f74206b6579 01030000003a3a3100 0100000003000000617069050000006170695f31000000000000"
                .replace(' ', "")
        );
        assert_eq!(AuditRow::from_bytes(&row.to_bytes()).as_ref(), Ok(&row));
        assert_eq!(hex(&hash(WorkspaceNo(1), 1, &row))[..16], *"3e2a4459a2fc7b8c");
    }
}
