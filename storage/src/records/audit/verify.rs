//! Verification of a chain: reads every event once, hashes the bytes as they lie in the store, and says where they do not
//! join.
//!
//! What it proves: an event that was removed, changed, inserted or put elsewhere by somebody who did not also compute every
//! hash behind it anew. Whoever can write to the store can do that too, so heads kept elsewhere close the gap: a chain that
//! still leads through a kept head is, up to there, the one it was then.
//!
//! A broken joint between two events leaves open which of the two was touched. The rule here: the one whose bytes do not give
//! the hash that its successor names is reported; where an event fits a place that another one holds, it was moved.

use std::fmt;
use std::ops::ControlFlow;

use super::{AuditHead, AuditRow, ChainPoint, OPERATOR, anchor, expire, hash};
use crate::error::ReadError;
use crate::ids::{EventId, IdText, WorkspaceNo};
use crate::records::{AUDIT, Row, row_key, workspace};
use crate::store::{Read, Snapshot};

/// Events read under one snapshot: while it is held the file keeps what it shows.
const BATCH: usize = 16_384;
/// The layout whose offsets [`Stored::read`] knows: that of [`AuditRow`].
const VERSION: u8 = 1;
/// Findings kept of one chain; more are counted.
pub const FINDINGS_MAX: usize = 100;
/// Broken joints whose event is kept, to see whether it belongs elsewhere, and the bytes it may have.
const STRAYS_MAX: usize = 64;
const STRAY_BYTES: usize = 64 << 10;

/// What is wrong at a place of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The events from here through this one are gone.
    Missing {
        /// The last of them.
        through: u64,
    },
    /// The events from here through this one are gone, at the chain's end.
    CutOff {
        /// The newest event, as the head names it.
        through: u64,
    },
    /// The event's bytes do not give the hash that the event behind it names.
    Changed,
    /// The first event does not follow what it should.
    Beginning,
    /// The event fits another place.
    Moved {
        /// That place.
        to: u64,
    },
    /// The row's bytes do not fit their checksum.
    Damaged,
    /// The row is no audit event.
    NoEvent,
    /// The event has a number that retention has deleted.
    BeforeAnchor,
    /// The events from here through this one stand behind the newest one that the head knows.
    BehindHead {
        /// The last of them.
        through: u64,
    },
    /// There is no head, though there are or were events.
    HeadMissing,
    /// The head does not name the hash of the newest event.
    HeadDiffers,
    /// The anchor is not where retention has put it.
    AnchorDiffers {
        /// Where retention has put it.
        told: u64,
    },
    /// The event is not the one that a kept head names.
    KeptDiffers,
    /// A kept head names this event, which is not there.
    KeptMissing,
    /// The chain belongs to no workspace that there is.
    NoWorkspace,
}

impl Fault {
    /// Its name, for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Missing { .. } => "missing",
            Fault::CutOff { .. } => "cut_off",
            Fault::Changed => "changed",
            Fault::Beginning => "beginning",
            Fault::Moved { .. } => "moved",
            Fault::Damaged => "damaged",
            Fault::NoEvent => "no_event",
            Fault::BeforeAnchor => "before_anchor",
            Fault::BehindHead { .. } => "behind_head",
            Fault::HeadMissing => "head_missing",
            Fault::HeadDiffers => "head_differs",
            Fault::AnchorDiffers { .. } => "anchor_differs",
            Fault::KeptDiffers => "kept_differs",
            Fault::KeptMissing => "kept_missing",
            Fault::NoWorkspace => "no_workspace",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing { through } => write!(f, "the events from here through {through} are missing"),
            Fault::CutOff { through } => {
                write!(f, "the end is cut off: the events from here through {through} are missing")
            }
            Fault::Changed => {
                f.write_str("this is not the event that the next one follows: it was changed, or put here")
            }
            Fault::Beginning => f.write_str("the first event does not follow what the chain begins with"),
            Fault::Moved { to } => write!(f, "this event was moved here; it belongs at {to}"),
            Fault::Damaged => f.write_str("the event cannot be read: its bytes do not fit their checksum"),
            Fault::NoEvent => f.write_str("there is a row that is no audit event"),
            Fault::BeforeAnchor => f.write_str("an event stands where retention has deleted all: it was put here"),
            Fault::BehindHead { through } => {
                write!(f, "the events from here through {through} were put behind the newest one")
            }
            Fault::HeadMissing => f.write_str("the record of the newest event is missing"),
            Fault::HeadDiffers => f.write_str("the newest event is not the one on record: one of the two was changed"),
            Fault::AnchorDiffers { told } => write!(
                f,
                "the chain does not begin where retention has cut it: it has deleted the events through {told}, and no others"
            ),
            Fault::KeptDiffers => {
                f.write_str("this is not the event of the kept head: the chain was rewritten up to here")
            }
            Fault::KeptMissing => {
                f.write_str("the event of a kept head is missing: the chain ends before it, or skips it")
            }
            Fault::NoWorkspace => f.write_str("there are events of a workspace that is not there"),
        }
    }
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The place in the chain.
    pub sequence: u64,
    /// The id of the event that stands there.
    pub event: Option<EventId>,
    /// What is wrong.
    pub fault: Fault,
}

/// What a verification has found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Events that were read.
    pub events: u64,
    /// Where the chain ends, as its head has it.
    pub head: Option<ChainPoint>,
    /// Kept heads that the chain leads through.
    pub kept_met: u64,
    /// Kept heads that retention has deleted: nothing can be said of them.
    pub kept_expired: u64,
    /// What is wrong, in order, the first ones of each kind of cause.
    pub findings: Vec<Finding>,
    /// What is wrong besides.
    pub more: u64,
}

impl Verified {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }
}

/// Verifies the chain of a workspace against its own head and against heads that were kept elsewhere. `snapshot` is asked
/// for the newest view again and again; changes go on meanwhile. `seen` is told how many events were read since it was told
/// last.
///
/// # Errors
/// What reading the store says; damage of single rows is a finding.
pub fn verify(
    snapshot: &dyn Fn() -> Result<Snapshot, ReadError>,
    no: WorkspaceNo,
    kept: &[ChainPoint],
    seen: &mut dyn FnMut(u64),
) -> Result<Verified, ReadError> {
    let mut kept = kept.to_vec();
    kept.sort_unstable();
    kept.dedup();
    let prefix = row_key(no, &[]);
    let view = snapshot()?;
    let mut walk = Walk::new(no, anchor(&view, no)?, kept);
    walk.must_have_events = no != OPERATOR;
    if no != OPERATOR && workspace::get(&view, no)?.is_none() {
        walk.find(0, None, Fault::NoWorkspace);
    }
    let mut view = Some(view);
    loop {
        let now = match view.take() {
            Some(view) => view,
            None => snapshot()?,
        };
        walk.catch_up(anchor(&now, no)?);
        let (mut rows, from) = (0, std::mem::take(&mut walk.from));
        walk.from.clone_from(&from);
        now.visit(AUDIT, &prefix, &from, |rest, value| {
            walk.row(rest, value);
            rows += 1;
            if rows == BATCH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        seen(rows as u64);
        if rows < BATCH {
            let head: Option<AuditHead> = now.row(&prefix)?;
            let head = head.map(|head| ChainPoint { sequence: head.sequence, hash: head.hash });
            return Ok(walk.end(head, anchor(&now, no)?));
        }
    }
}

/// An event that was passed.
#[derive(Clone, Copy)]
struct Passed {
    point: ChainPoint,
    event: Option<EventId>,
}

/// An event whose hash is not the one its successor names.
struct Stray {
    sequence: u64,
    event: Option<EventId>,
    /// What the successor names.
    wanted: [u8; 32],
    /// Its row, where that is not too large to be kept.
    bytes: Vec<u8>,
}

/// Where a verification is.
struct Walk {
    no: WorkspaceNo,
    /// A workspace is made with an event.
    must_have_events: bool,
    /// Where the chain began when the walk did.
    anchor: ChainPoint,
    /// The row key, without the workspace, to go on at.
    from: Vec<u8>,
    /// The number of the event to come.
    next: u64,
    /// The event before it; `None` where that could not be read.
    before: Option<Passed>,
    /// The row of that event.
    bytes: Vec<u8>,
    strays: Vec<Stray>,
    /// The newest anchor that an event of the chain tells of.
    told: Option<ChainPoint>,
    /// In order; those before `kept_at` were met.
    kept: Vec<ChainPoint>,
    kept_at: usize,
    done: Verified,
}

impl Walk {
    fn new(no: WorkspaceNo, anchor: ChainPoint, kept: Vec<ChainPoint>) -> Walk {
        let mut walk = Walk {
            no,
            must_have_events: false,
            anchor,
            from: Vec::new(),
            next: anchor.sequence.saturating_add(1),
            before: Some(Passed { point: anchor, event: None }),
            bytes: Vec::new(),
            strays: Vec::new(),
            told: None,
            kept,
            kept_at: 0,
            done: Verified::default(),
        };
        walk.meet_expired(anchor);
        walk
    }

    fn find(&mut self, sequence: u64, event: Option<EventId>, fault: Fault) {
        if self.done.findings.len() < FINDINGS_MAX {
            self.done.findings.push(Finding { sequence, event, fault });
        } else {
            self.done.more += 1;
        }
    }

    /// Retention may have gone past the walk: what it has deleted cannot be read any more, and begins at its anchor.
    fn catch_up(&mut self, anchor: ChainPoint) {
        if anchor.sequence >= self.next {
            self.next = anchor.sequence + 1;
            self.before = Some(Passed { point: anchor, event: None });
            self.anchor = anchor;
            self.meet_expired(anchor);
        }
    }

    /// Passes the kept heads of events that are deleted; only of the newest of these is the hash known.
    fn meet_expired(&mut self, anchor: ChainPoint) {
        while let Some(&kept) = self.kept.get(self.kept_at).filter(|kept| kept.sequence <= anchor.sequence) {
            self.kept_at += 1;
            match kept {
                kept if kept == anchor || kept == ChainPoint::START => self.done.kept_met += 1,
                kept if kept.sequence == anchor.sequence => self.find(kept.sequence, None, Fault::KeptDiffers),
                _ => self.done.kept_expired += 1,
            }
        }
    }

    /// Meets the kept heads up to an event that was read, or that is missing where `hash` is `None`.
    fn meet(&mut self, through: u64, at: Option<(ChainPoint, Option<EventId>)>) {
        while let Some(&kept) = self.kept.get(self.kept_at).filter(|kept| kept.sequence <= through) {
            self.kept_at += 1;
            match at {
                Some((point, _)) if point == kept => self.done.kept_met += 1,
                Some((point, event)) if point.sequence == kept.sequence => {
                    self.find(kept.sequence, event, Fault::KeptDiffers);
                }
                _ => self.find(kept.sequence, None, Fault::KeptMissing),
            }
        }
    }

    fn row(&mut self, rest: &[u8], value: Option<&[u8]>) {
        self.from.clear();
        self.from.extend_from_slice(rest);
        self.from.push(0);
        self.done.events += 1;
        let Ok(sequence) = rest.try_into().map(u64::from_be_bytes) else {
            return self.find(self.next, None, Fault::NoEvent);
        };
        let stored = value.and_then(Stored::read);
        if sequence < self.next {
            return self.find(sequence, stored.map(|stored| stored.id), Fault::BeforeAnchor);
        }
        if sequence > self.next {
            self.find(self.next, None, Fault::Missing { through: sequence - 1 });
            self.meet(sequence - 1, None);
            self.before = None;
        }
        self.next = sequence.saturating_add(1);
        let (Some(bytes), Some(stored)) = (value, stored) else {
            let fault = if value.is_none() { Fault::Damaged } else { Fault::NoEvent };
            self.find(sequence, None, fault);
            self.meet(sequence, None);
            self.before = None;
            return;
        };
        if let Some(before) = self.before.filter(|before| before.point.hash != stored.previous) {
            if before.event.is_some() {
                self.stray(before, stored.previous);
            } else {
                // Before it is no event, only what the anchor says.
                self.find(sequence, Some(stored.id), Fault::Beginning);
            }
        }
        if stored.tells_of_expiry {
            self.told = AuditRow::from_bytes(bytes).ok().and_then(|row| expire::told(&row.event)).or(self.told);
        }
        let point = ChainPoint { sequence, hash: hash(self.no, sequence, bytes) };
        self.meet(sequence, Some((point, Some(stored.id))));
        self.before = Some(Passed { point, event: Some(stored.id) });
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
    }

    fn stray(&mut self, passed: Passed, wanted: [u8; 32]) {
        if self.strays.len() >= STRAYS_MAX {
            return self.find(passed.point.sequence, passed.event, Fault::Changed);
        }
        let bytes = if self.bytes.len() <= STRAY_BYTES { self.bytes.clone() } else { Vec::new() };
        self.strays.push(Stray { sequence: passed.point.sequence, event: passed.event, wanted, bytes });
    }

    fn end(mut self, head: Option<ChainPoint>, anchor: ChainPoint) -> Verified {
        let last = self.next - 1;
        match head {
            None if last == 0 && !self.must_have_events => {}
            None => self.find(last, None, Fault::HeadMissing),
            Some(head) if head.sequence > last => {
                self.find(self.next, None, Fault::CutOff { through: head.sequence });
            }
            Some(head) if head.sequence < last => {
                self.find(head.sequence + 1, None, Fault::BehindHead { through: last });
            }
            Some(head) => {
                if let Some(before) = self.before.filter(|before| before.point.hash != head.hash) {
                    // A last event that was put here from elsewhere is recognized by what the head names.
                    self.stray(before, head.hash);
                    self.find(last, before.event, Fault::HeadDiffers);
                }
            }
        }
        self.meet(u64::MAX, None);
        let told = self.told.unwrap_or(ChainPoint::START);
        if told != anchor {
            self.find(anchor.sequence, None, Fault::AnchorDiffers { told: told.sequence });
        }
        self.place_strays(head.filter(|head| head.sequence == last));
        self.done.findings.sort_by_key(|finding| finding.sequence);
        self.done.head = head;
        self.done
    }

    /// Tells events that were moved from those that were changed.
    fn place_strays(&mut self, head: Option<ChainPoint>) {
        let strays = std::mem::take(&mut self.strays);
        for stray in &strays {
            let fits = |other: &&Stray| {
                other.sequence != stray.sequence
                    && !stray.bytes.is_empty()
                    && hash(self.no, other.sequence, &stray.bytes) == other.wanted
            };
            match strays.iter().find(fits) {
                Some(other) => self.find(stray.sequence, stray.event, Fault::Moved { to: other.sequence }),
                // Told already, as what the head and the newest event disagree on.
                None if head.is_some_and(|head| head.sequence == stray.sequence) => {}
                None => self.find(stray.sequence, stray.event, Fault::Changed),
            }
        }
    }
}

/// What a verification needs of a stored event. Its fields stand at fixed offsets, so nothing is decoded for it.
struct Stored {
    previous: [u8; 32],
    id: EventId,
    tells_of_expiry: bool,
}

impl Stored {
    fn read(row: &[u8]) -> Option<Stored> {
        let (&[version], rest) = row.split_first_chunk()?;
        let (previous, rest) = rest.split_first_chunk::<32>()?;
        let (id, rest) = rest.split_first_chunk::<16>()?;
        let (_time, rest) = rest.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let name = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let id = IdText::from_bytes(*id).filter(|_| version == VERSION)?;
        Some(Stored { previous: *previous, id: EventId(id), tells_of_expiry: name == expire::EVENT.as_bytes() })
    }
}

#[cfg(test)]
mod tests;
