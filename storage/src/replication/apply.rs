//! The writer as a follower: takes the leader's frames as its own, and becomes a leader when it is told to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{BadRow, ReadError};
use crate::hot::Hot;
use crate::ids::{KeyId, WorkspaceNo};
use crate::position::{Position, Term};
use crate::publish::publish;
use crate::records::key::{self, CreditsRow, KeyRow, LastUsedRow};
use crate::records::term::{self, TermRow};
use crate::records::{self, Effect, Row, decode_record, encode_record};
use crate::replication::messages::Received;
use crate::replication::{NodeId, Role};
use crate::store::{Read, Snapshot, Tables, decode, put_state};
use crate::tx::Moved;
use crate::writer::{Fatal, Room, Writer, nanos};

/// At this size of its records a frame of the leader's is not joined by the next one: one more sync, and less memory.
const ENOUGH_BYTES: usize = 8 << 20;
/// Most records that one step applies, for the same reason.
const ENOUGH_RECORDS: usize = 16_384;

/// Why frames were not applied. Of what came before them all is applied, of them nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotApplied {
    /// This node is no follower.
    #[error("this node does not follow any more")]
    NotFollower,
    /// They do not go on where this node's log ends.
    #[error("record {expected} is next, and {found} came")]
    Gap {
        /// The next one.
        expected: Position,
        /// What came.
        found: Position,
    },
    /// They are of an older term than the log.
    #[error("term {} is over, the log is in term {}", found.0, newest.0)]
    Term {
        /// The log's.
        newest: Term,
        /// Of the frame.
        found: Term,
    },
    /// The disk is full, or nearly.
    #[error("the disk is full: nothing is applied until there is room")]
    NoSpace,
    /// A record cannot be read although its checksum holds: the leader is of a newer release.
    #[error("record {position} cannot be decoded ({cause}); install the leader's release here")]
    Record {
        /// Which.
        position: Position,
        /// Why.
        cause: BadRow,
    },
    /// The writer has ended.
    #[error("the store no longer takes anything")]
    Stopped,
}

/// How a node becomes the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Promotion {
    /// This node.
    pub node: NodeId,
    /// As its operator calls it.
    pub name: String,
    /// Random bytes that tell the new term from any other.
    pub id: [u8; 16],
    /// Unix ms.
    pub now: u64,
    /// Whether the operator insisted.
    pub forced: bool,
}

/// Why a node was not promoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotPromoted {
    /// It is the leader already.
    #[error("this node is the leader already")]
    IsLeader,
    /// It has no records.
    #[error("this node has no records yet, so there is nothing to lead")]
    Empty,
    /// The disk is full.
    #[error("the disk of this node is full; free some space first")]
    NoSpace,
    /// The writer has ended.
    #[error("the store no longer takes anything")]
    Stopped,
}

impl Writer {
    /// Applies the leader's frames, in order, each group of them as one frame of its own log with one sync. All of them are
    /// durable and visible when it returns; gives the position they end at.
    pub fn apply(&mut self, frames: &[Received]) -> Result<Result<Position, NotApplied>, Fatal> {
        let mut rest = frames;
        while let Some(first) = rest.first() {
            if self.standing.role() != Role::Follower {
                return Ok(Err(NotApplied::NotFollower));
            }
            let (expected, found) = (self.state.position.next(), first.header().first);
            if expected != found {
                return Ok(Err(NotApplied::Gap { expected, found }));
            }
            let (newest, term) = (self.state.term, first.header().term);
            if term < newest {
                return Ok(Err(NotApplied::Term { newest, found: term }));
            }
            // Frames of one term that follow each other are one group commit as well.
            let (mut taken, mut bytes, mut records, mut next) = (0, 0, 0, found);
            for frame in rest {
                let header = frame.header();
                let fits = bytes + frame.payload_bytes() <= ENOUGH_BYTES
                    && records + header.records as usize <= ENOUGH_RECORDS;
                if header.term != term || header.first != next || (taken > 0 && !fits) {
                    break;
                }
                taken += 1;
                bytes += frame.payload_bytes();
                records += header.records as usize;
                next = header.last().next();
            }
            let (now, later) = rest.split_at(taken);
            let written_at = now.last().map_or(0, |frame| frame.header().written_at_ms);
            let records: Vec<&[u8]> = now.iter().flat_map(|frame| frame.records().map(|(_, record)| record)).collect();
            if let Err(why) = self.take(term, written_at, &records)? {
                return Ok(Err(why));
            }
            rest = later;
        }
        Ok(Ok(self.state.position))
    }

    /// Begins a new term, with a record of its own, and takes changes from then on.
    pub fn promote(&mut self, promotion: &Promotion) -> Result<Result<Term, NotPromoted>, Fatal> {
        if self.standing.role() == Role::Leader {
            return Ok(Err(NotPromoted::IsLeader));
        }
        if self.state.position == Position::START {
            return Ok(Err(NotPromoted::Empty));
        }
        let term = Term(self.state.term.max(self.standing.seen()).0 + 1);
        let row = TermRow {
            first: self.state.position.next().0,
            id: promotion.id,
            node: promotion.node,
            name: promotion.name.clone(),
            began_at: promotion.now,
            forced: promotion.forced,
        };
        let effect = Effect { table: TermRow::TABLE, key: term::key(term), value: Some(row.to_bytes()) };
        self.now = self.now.max(promotion.now);
        match self.take(term, self.now, &[&encode_record(&[effect])])? {
            Ok(()) => {}
            Err(NotApplied::NoSpace) => return Ok(Err(NotPromoted::NoSpace)),
            Err(_) => return Ok(Err(NotPromoted::Stopped)),
        }
        self.standing.see(term);
        self.standing.set(Role::Leader);
        Ok(Ok(term))
    }

    /// Makes one frame of these records: log, commit, publish. They go on where the log ends.
    fn take(&mut self, term: Term, written_at_ms: u64, records: &[&[u8]]) -> Result<Result<(), NotApplied>, Fatal> {
        let began = Instant::now();
        let room = self.measure_room();
        self.note_room(room);
        if self.room != Room::Enough {
            return Ok(Err(NotApplied::NoSpace));
        }
        let mut effects: Vec<Effect> = Vec::with_capacity(records.len());
        for (record, ahead) in records.iter().zip(1..) {
            match decode_record(record) {
                Ok(own) => effects.extend(own),
                Err(cause) => {
                    return Ok(Err(NotApplied::Record { position: self.state.position.plus(ahead), cause }));
                }
            }
        }
        let store = Arc::clone(&self.store);
        let txn = store.begin()?;
        let mut moved = Vec::new();
        {
            let tables = Tables::new(&txn);
            for effect in &effects {
                moved.extend(moves(&tables, effect)?);
                tables.apply(effect)?;
            }
        }
        let Some(position) = self.append(term, written_at_ms, records, room)? else {
            txn.abort().map_err(redb::Error::from)?;
            return Ok(Err(NotApplied::NoSpace));
        };
        (self.state.position, self.state.term) = (position, term);
        self.now = self.now.max(written_at_ms);
        put_state(&txn, self.state)?;
        let publishing = store.publishing();
        txn.commit().map_err(redb::Error::from)?;
        self.note_commit(records.len());
        let snapshot = self.store.snapshot()?;
        publish_counters(&self.hot, &snapshot, &effects)?;
        publish(&self.hot, &snapshot, effects.iter(), &[], &moved)?;
        if !moved.is_empty() {
            // They are found under another hash only now.
            publish_counters(&self.hot, &snapshot, &effects)?;
        }
        drop(publishing);
        self.tell();
        self.note_room(room);
        self.status.batch_times.note(nanos(began.elapsed()));
        Ok(Ok(()))
    }
}

/// A key that gets another hash by this effect. It is asked before it is applied.
fn moves(tables: &Tables<'_>, effect: &Effect) -> Result<Option<Moved>, ReadError> {
    if effect.table != records::KEY {
        return Ok(None);
    }
    let (Some(value), Some((workspace, id))) = (&effect.value, key::of_row_key(&effect.key)) else { return Ok(None) };
    let Some(before) = tables.row::<KeyRow>(&effect.key)? else { return Ok(None) };
    let after: KeyRow = decode(value)?;
    Ok((before.hash != after.hash).then_some(Moved { workspace, id, from: before.hash, to: after.hash }))
}

/// What the leader has written of counters becomes what they are here: a follower spends nothing, so there is nothing to keep.
fn publish_counters(hot: &Hot, snapshot: &Snapshot, effects: &[Effect]) -> Result<(), ReadError> {
    let mut counters: BTreeMap<(WorkspaceNo, KeyId), (Option<CreditsRow>, u32)> = BTreeMap::new();
    for effect in effects {
        let (Some(value), Some(at)) = (&effect.value, key::of_row_key(&effect.key)) else { continue };
        match effect.table {
            records::CREDITS => counters.entry(at).or_default().0 = Some(decode(value)?),
            records::LAST_USED => counters.entry(at).or_default().1 = decode::<LastUsedRow>(value)?.minute,
            _ => {}
        }
    }
    for ((workspace, id), (credits, minute)) in counters {
        let Some(row) = key::get(snapshot, workspace, id)? else { continue };
        hot.keys.change(workspace.0, &row.hash, snapshot.position(), |view| {
            if let Some(view) = view.filter(|view| view.id == id) {
                view.counters.replicate(credits.as_ref(), minute);
            }
        });
    }
    Ok(())
}
