//! Retention: old events leave at the front of their chain, whole and in order, and leave an anchor behind.
//!
//! Each deletion is told of by an event of its own, at the end of the same chain, which names the new anchor. So the anchor
//! cannot be moved by hand without the chain saying so, nor the chain be cut at its front without the anchor.

use super::{AuditAnchor, AuditEvent, AuditRow, ChainPoint, Target, anchor, hash};
use crate::error::ReadError;
use crate::ids::WorkspaceNo;
use crate::records::{AUDIT, Row, row_key};
use crate::store::{Read, decode};
use crate::tx::Tx;

/// Name of the event that tells of a deletion.
pub const EVENT: &str = "audit_log.expire";
/// Type of its target, whose id is the new anchor as text.
pub const TARGET: &str = "auditLogAnchor";
/// Events one transaction deletes at most.
const EVENTS_MAX: usize = 4096;
/// Events read at a time.
const READ_EVENTS: usize = 128;
/// Bytes of events after which one transaction deletes no more.
const BYTES_MAX: usize = 4 << 20;

/// What was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// How many events.
    pub events: u64,
    /// The newest of them: where the chain begins now.
    pub anchor: ChainPoint,
    /// Whether there may be more to delete.
    pub more: bool,
}

/// The chain does not hold at its front: nothing is deleted, since that would take the evidence away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit chain does not hold at event {sequence}")]
pub struct BrokenFront {
    /// The first event that does not follow the one before it.
    pub sequence: u64,
}

/// Deletes events at the front of a workspace's chain for as long as they are old, and tells of it by the event that `tell`
/// makes of (how many, the new anchor's target). `None` where there is nothing to delete; an event that tells of an earlier
/// deletion is not worth one by itself, or each would call for the next for ever.
///
/// # Errors
/// What reading says.
pub fn expire(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    is_old: impl Fn(&AuditEvent) -> bool,
    tell: impl FnOnce(u64, Target) -> AuditEvent,
) -> Result<Result<Option<Expired>, BrokenFront>, ReadError> {
    let mut last = anchor(tx, workspace)?;
    let (mut old, mut bytes, mut worth_it, mut more) = (Vec::new(), 0, false, true);
    'reading: while old.len() < EVENTS_MAX && bytes < BYTES_MAX {
        let start = row_key(workspace, &[&(last.sequence + 1).to_be_bytes()]);
        let rows = tx.range(AUDIT, &row_key(workspace, &[]), Some(&start), READ_EVENTS)?;
        let is_last = rows.len() < READ_EVENTS;
        for (key, value) in rows {
            let row: AuditRow = decode(&value)?;
            let sequence = last.sequence + 1;
            if !is_old(&row.event) {
                more = false;
                break 'reading;
            }
            if key != row_key(workspace, &[&sequence.to_be_bytes()]) || row.previous != last.hash {
                return Ok(Err(BrokenFront { sequence }));
            }
            last = ChainPoint { sequence, hash: hash(workspace, sequence, &value) };
            bytes += value.len();
            worth_it |= row.event.event != EVENT;
            old.push(key);
        }
        if is_last {
            more = false;
            break;
        }
    }
    if !worth_it {
        return Ok(Ok(None));
    }
    let events = old.len() as u64;
    for key in &old {
        tx.delete(AUDIT, key);
    }
    let row = AuditAnchor { sequence: last.sequence, hash: last.hash };
    tx.put_bytes(AuditAnchor::TABLE, &row_key(workspace, &[]), row.to_bytes());
    let target = Target { kind: TARGET.into(), id: last.to_string(), name: String::new(), meta: None };
    tx.audit(workspace, tell(events, target));
    Ok(Ok(Some(Expired { events, anchor: last, more })))
}

/// The anchor that an event tells of.
pub(super) fn told(event: &AuditEvent) -> Option<ChainPoint> {
    let target = event.targets.first().filter(|target| event.event == EVENT && target.kind == TARGET)?;
    target.id.parse().ok()
}
