//! Audit events: written in the same transaction as the change they tell of, numbered and chained per workspace.
//!
//! The hash of an event covers its bytes and the hash of the event before it, so a line that is missing, changed or moved
//! shows ([`verify`]). The chain begins with 32 zero bytes, and where retention has cut its front off ([`expire`]), with the
//! anchor: the newest event that is gone.
//!
//! What belongs to no workspace, such as refused root keys, stands in a chain of the operator's own, [`OPERATOR`].

pub mod expire;
pub mod verify;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::codec::{part, row};
use super::{AUDIT, AUDIT_ANCHOR, AUDIT_EXPORTED, AUDIT_HEAD, Row, WORKSPACE, row_key, workspace_of};
use crate::error::ReadError;
use crate::ids::{CorrelationId, EventId, WorkspaceNo};
use crate::store::{Read, Snapshot};
use crate::tx::Tx;

/// The number under which the operator's own events stand; no workspace has it.
pub const OPERATOR: WorkspaceNo = WorkspaceNo(0);

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

row! {
    /// The newest audit event of a workspace that retention has deleted: what the oldest one that is left follows.
    pub struct AuditAnchor in AUDIT_ANCHOR version 1 {
        /// Its number; 0 where nothing was deleted.
        sequence: u64,
        /// Its hash.
        hash: [u8; 32],
    }
}

row! {
    /// How far a live export has got with a workspace's events.
    pub struct AuditExported in AUDIT_EXPORTED version 1 {
        /// The number of the last event that its target has taken.
        sequence: u64,
    }
}

/// An event's place in its chain: enough to tell later whether the chain up to it is still the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainPoint {
    /// The event's number; 0 is the chain's beginning.
    pub sequence: u64,
    /// Its hash.
    pub hash: [u8; 32],
}

impl ChainPoint {
    /// Before the first event.
    pub const START: ChainPoint = ChainPoint { sequence: 0, hash: [0; 32] };
}

/// `SEQUENCE:HASH`, the hash in lower-case hex.
impl fmt::Display for ChainPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.sequence)?;
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A text is no [`ChainPoint`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a place in a chain is SEQUENCE:HASH, the hash in 64 hexadecimal digits")]
pub struct NoChainPoint;

impl FromStr for ChainPoint {
    type Err = NoChainPoint;

    fn from_str(text: &str) -> Result<ChainPoint, NoChainPoint> {
        let (sequence, digits) = text.split_once(':').ok_or(NoChainPoint)?;
        let is_number = !sequence.is_empty() && sequence.bytes().all(|byte| byte.is_ascii_digit());
        let is_hex = digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_number || !is_hex {
            return Err(NoChainPoint);
        }
        let mut hash = [0; 32];
        for (byte, at) in hash.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| NoChainPoint)?;
        }
        Ok(ChainPoint { sequence: sequence.parse().map_err(|_| NoChainPoint)?, hash })
    }
}

/// The hash of a stored event, from its bytes as they are stored: what the next one names as `previous`.
pub fn hash(workspace: WorkspaceNo, sequence: u64, row: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(workspace.0.to_le_bytes());
    digest.update(sequence.to_le_bytes());
    digest.update(row);
    digest.finalize().into()
}

/// The newest event of a workspace.
pub fn head(read: &impl Read, workspace: WorkspaceNo) -> Result<AuditHead, ReadError> {
    Ok(read.row(&row_key(workspace, &[]))?.unwrap_or(AuditHead { sequence: 0, hash: [0; 32] }))
}

/// Where a workspace's chain begins: the newest event that was deleted, or the very start.
pub fn anchor(read: &impl Read, workspace: WorkspaceNo) -> Result<ChainPoint, ReadError> {
    let row: Option<AuditAnchor> = read.row(&row_key(workspace, &[]))?;
    Ok(row.map_or(ChainPoint::START, |row| ChainPoint { sequence: row.sequence, hash: row.hash }))
}

/// The number of the last event that a live export has handed over; 0 where none was.
pub fn exported(read: &impl Read, workspace: WorkspaceNo, target: &str) -> Result<u64, ReadError> {
    let row: Option<AuditExported> = read.row(&row_key(workspace, &[target.as_bytes()]))?;
    Ok(row.map_or(0, |row| row.sequence))
}

/// Notes how far a live export has got.
pub fn put_exported(tx: &mut Tx<'_>, workspace: WorkspaceNo, target: &str, sequence: u64) {
    let key = row_key(workspace, &[target.as_bytes()]);
    tx.put_bytes(AUDIT_EXPORTED, &key, AuditExported { sequence }.to_bytes());
}

/// Where each chain ends, in the order of the workspaces.
pub fn heads(read: &Snapshot) -> Result<Vec<(WorkspaceNo, ChainPoint)>, ReadError> {
    read.select(AUDIT_HEAD, &[], &[], usize::MAX, |key, value| {
        let head: AuditHead = crate::store::decode(value)?;
        Ok(workspace_of(key).map(|no| (no, ChainPoint { sequence: head.sequence, hash: head.hash })))
    })
}

/// Whoever has a chain or could have one: every workspace, deleted ones included, and whatever else the tables name.
pub fn chains(read: &Snapshot) -> Result<BTreeSet<WorkspaceNo>, ReadError> {
    let mut found = BTreeSet::new();
    for table in [WORKSPACE, AUDIT, AUDIT_HEAD, AUDIT_ANCHOR] {
        // A chain may have millions of rows: its first one tells of it, and the next to look for is another's.
        let mut from = Some(OPERATOR);
        while let Some(start) = from.take() {
            read.visit(table, &[], &start.0.to_be_bytes(), |key, _| {
                if let Some(no) = workspace_of(key) {
                    found.insert(no);
                    from = no.0.checked_add(1).map(WorkspaceNo);
                }
                ControlFlow::Break(())
            })?;
        }
    }
    Ok(found)
}

/// Some events of a workspace from a sequence number on, oldest first, a damaged one as `None`: at most `most`, and no more once
/// they have that many bytes. Empty where there are none. For whoever tells of damage and goes on behind it.
///
/// # Errors
/// The table cannot be read.
pub fn page_with_damage(
    read: &Snapshot,
    workspace: WorkspaceNo,
    from: u64,
    most: usize,
    bytes: usize,
) -> Result<Vec<(u64, Option<AuditRow>)>, ReadError> {
    let (mut events, mut taken) = (Vec::new(), 0);
    read.visit(AUDIT, &row_key(workspace, &[]), &from.to_be_bytes(), |rest, value| {
        // A key of another length names no event; `verify` tells of it.
        if let Ok(sequence) = rest.try_into() {
            taken += value.map_or(0, <[u8]>::len);
            events.push((u64::from_be_bytes(sequence), value.and_then(|value| crate::store::decode(value).ok())));
        }
        if events.len() >= most || taken >= bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(events)
}

/// Some events of a workspace from a sequence number on, oldest first: at most `most`, and no more once they have that many
/// bytes. Empty where there are none.
pub fn page(
    read: &Snapshot,
    workspace: WorkspaceNo,
    from: u64,
    most: usize,
    bytes: usize,
) -> Result<Vec<(u64, AuditRow)>, ReadError> {
    let (mut events, mut taken, mut failed) = (Vec::new(), 0, None);
    read.visit(AUDIT, &row_key(workspace, &[]), &from.to_be_bytes(), |rest, value| {
        let decoded = match value {
            Some(value) => {
                taken += value.len();
                crate::store::decode(value)
            }
            None => Err(damaged()),
        };
        match (rest.try_into().map(u64::from_be_bytes), decoded) {
            (Ok(sequence), Ok(row)) => events.push((sequence, row)),
            (_, Ok(_)) => failed = Some(damaged()),
            (_, Err(error)) => failed = Some(error),
        }
        if failed.is_some() || events.len() >= most || taken >= bytes {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    // What stands before the damage is given; the next call begins with the damage.
    match failed {
        Some(error) if events.is_empty() => Err(error),
        _ => Ok(events),
    }
}

fn damaged() -> ReadError {
    ReadError::Row { table: AUDIT, cause: crate::error::BadRow::BadValue("bytes whose checksum does not fit") }
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
        let row = AuditRow { previous: head.hash, event }.to_bytes();
        head.sequence += 1;
        head.hash = hash(workspace, head.sequence, &row);
        tx.put_bytes(AUDIT, &row_key(workspace, &[&head.sequence.to_be_bytes()]), row);
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
        assert_eq!(hex(&hash(WorkspaceNo(1), 1, &row.to_bytes()))[..16], *"3e2a4459a2fc7b8c");

        let anchor = AuditAnchor { sequence: 7, hash: [0xab; 32] };
        assert_eq!(hex(&anchor.to_bytes()), format!("010700000000000000{}", "ab".repeat(32)));
        assert_eq!(AuditAnchor::from_bytes(&anchor.to_bytes()), Ok(anchor));
        let exported = AuditExported { sequence: 8 };
        assert_eq!(hex(&exported.to_bytes()), "010800000000000000");
        assert_eq!(AuditExported::from_bytes(&exported.to_bytes()), Ok(exported));
    }

    /// A place in a chain reads as it is written, and nothing else reads.
    #[test]
    fn chain_points_are_text() {
        let point = ChainPoint { sequence: 42, hash: [0x0f; 32] };
        let text = format!("42:{}", "0f".repeat(32));
        assert_eq!(point.to_string(), text);
        assert_eq!(text.parse(), Ok(point));
        assert_eq!(text.to_uppercase().parse(), Ok(point));
        let short = &text[..text.len() - 1];
        for wrong in
            ["", "42", ":", short, &format!("{text}0"), &text.replace("42", "+42"), &text.replace("42:0f", "42:é0f")]
        {
            assert_eq!(wrong.parse::<ChainPoint>(), Err(NoChainPoint), "{wrong}");
        }
    }
}
