//! What waits for the writer, and whose turn it is.
//!
//! There is one writer and many workspaces, and a change may take it microseconds or a second. So each workspace has a lane
//! of its own, and lanes take turns by the time they have used, not by what they have asked for: start-time fair queueing
//! as for processors, where too the length of a job is known only afterwards (P. Goyal, X. Guo, H. M. Vin: *A Hierarchical
//! CPU Scheduler for Multimedia Operating Systems*, OSDI 1996). The lane that began its turn earliest in virtual time is
//! next; its next turn begins later by the time this one took; virtual time is where the newest turn began. Who was away
//! joins at the present virtual time: nobody saves turns up, and nobody gets rid of used ones by leaving for a moment.
//!
//! Within a lane work is done in the order it came. The operator's lane goes before all others.
//!
//! Room is shared by dynamic thresholds (A. K. Choudhury, E. L. Hahne: *Dynamic Queue Length Thresholds for Shared-Memory
//! Packet Switches*, 1998): a lane may hold as much as there is room left. One lane alone gets a half, two a third each,
//! and whoever comes newly finds a place for as long as there is one at all.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Unavailable;
use crate::ids::WorkspaceNo;
use crate::writer::{Fate, Job, StrictSpend};

/// What may wait in all lanes but the first; where a lane has as much as is left of it, one more is refused as busy.
const ROOM: usize = 8192;
/// What may wait in the first lane.
const FIRST_ROOM: usize = 1024;
/// How long the jobs of a batch may take while others wait for its end: then it is closed, and synced.
const BATCH_TIME: Duration = Duration::from_millis(25);

/// Whose turn something takes, and until when it is worth beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    pub(crate) lane: Lane,
    pub(crate) until: u64,
}

impl Turn {
    /// The operator's and the program's own: before all others.
    pub const FIRST: Turn = Turn { lane: Lane::First, until: u64::MAX };

    /// A change in a workspace.
    pub fn of(workspace: WorkspaceNo) -> Turn {
        Turn { lane: Lane::Changes(workspace), until: u64::MAX }
    }

    /// What a verification in a workspace waits for: it takes turns with that workspace's changes, not its place behind
    /// them.
    pub fn of_verification(workspace: WorkspaceNo) -> Turn {
        Turn { lane: Lane::Verifications(workspace), until: u64::MAX }
    }

    /// The same, to be left undone if the store's clock (unix ms) has passed `until` before it was begun.
    #[must_use]
    pub fn until(self, until: u64) -> Turn {
        Turn { until, ..self }
    }
}

/// A lane of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    First,
    Verifications(WorkspaceNo),
    Changes(WorkspaceNo),
}

/// What the writer does for somebody who waits.
pub(crate) enum Work {
    /// Run a transaction.
    Transact(Job),
    /// Journal a spend before it is answered.
    Spend(StrictSpend),
}

impl Work {
    /// Tells the one who asked that it is not done; what was spent for it is given back.
    pub fn refuse(self, why: &Unavailable) {
        match self {
            Work::Transact(job) => {
                let (Ok((_, answer)) | Err((_, answer))) = (job.run)(None);
                answer(Fate::Unavailable(why.clone()));
            }
            Work::Spend(spend) => {
                spend.counters.give_back(spend.cost, spend.generation);
                (spend.answer)(Fate::Unavailable(why.clone()));
            }
        }
    }
}

/// The lanes, and the order of their turns.
struct Lanes<T> {
    /// Lanes with work, and those whose used time is not forgotten yet: no more of these than were served since the queue
    /// was last empty.
    lanes: BTreeMap<Lane, Waiting<T>>,
    /// Those with work, by the virtual time at which their next turn begins.
    ready: BTreeSet<(u64, Lane)>,
    /// Virtual time, ns.
    now: u64,
    /// What waits in all lanes but the first.
    waiting: usize,
}

struct Waiting<T> {
    work: VecDeque<T>,
    /// When its next turn begins, in virtual time; always 0 for the first lane.
    start: u64,
}

impl<T> Default for Lanes<T> {
    fn default() -> Lanes<T> {
        Lanes { lanes: BTreeMap::new(), ready: BTreeSet::new(), now: 0, waiting: 0 }
    }
}

impl<T> Lanes<T> {
    /// Puts work at the end of its lane; gives it back where there is no room.
    fn push(&mut self, lane: Lane, work: T) -> Result<(), T> {
        let holds = self.lanes.get(&lane).map_or(0, |waiting| waiting.work.len());
        let room = if lane == Lane::First { FIRST_ROOM } else { ROOM - self.waiting };
        if holds >= room {
            return Err(work);
        }
        self.waiting += usize::from(lane != Lane::First);
        let waiting = self.lanes.entry(lane).or_insert_with(|| Waiting { work: VecDeque::new(), start: 0 });
        if waiting.work.is_empty() {
            if lane != Lane::First {
                waiting.start = waiting.start.max(self.now);
            }
            self.ready.insert((waiting.start, lane));
        }
        waiting.work.push_back(work);
        Ok(())
    }

    /// Takes the next piece of work.
    fn pop(&mut self) -> Option<(Lane, T)> {
        let (start, lane) = self.ready.pop_first()?;
        let waiting = self.lanes.get_mut(&lane)?;
        let work = waiting.work.pop_front()?;
        if !waiting.work.is_empty() {
            self.ready.insert((start, lane));
        }
        self.now = self.now.max(start);
        self.waiting -= usize::from(lane != Lane::First);
        Some((lane, work))
    }

    /// Notes that a lane has used the writer for some time.
    fn charge(&mut self, lane: Lane, time: u64) {
        let Some(waiting) = self.lanes.get_mut(&lane).filter(|_| lane != Lane::First) else { return };
        let ready = self.ready.remove(&(waiting.start, lane));
        waiting.start += time;
        if ready {
            self.ready.insert((waiting.start, lane));
        }
    }

    /// Drops the lanes that would join anew as they are: they are empty, and virtual time has passed them.
    fn forget(&mut self) {
        let (now, idle) = (self.now, self.ready.is_empty());
        self.lanes.retain(|_, waiting| !(waiting.work.is_empty() && (idle || waiting.start <= now)));
    }

    fn len(&self) -> usize {
        self.waiting + self.lanes.get(&Lane::First).map_or(0, |first| first.work.len())
    }

    /// Whether any lane but this one has work.
    fn others_wait(&self, lane: Lane) -> bool {
        // Of two at least one is another.
        self.ready.iter().take(2).any(|(_, ready)| *ready != lane)
    }
}

/// The writer's queue. Its lock is held for a few steps in a map, never while something is run; verifying a key takes it
/// only where a verification has to wait for the writer.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    lanes: Lanes<Work>,
    /// Whether the writer was called since it last looked.
    called: bool,
    /// Whether nothing is taken any more.
    closed: bool,
    /// How often there was no room.
    refused: u64,
}

impl Queue {
    /// Hands work in. Whether the writer has to be called; the work and why not, where it is not taken.
    pub fn push(&self, lane: Lane, work: Work) -> Result<bool, (Work, Unavailable)> {
        let mut state = self.lock();
        if state.closed {
            return Err((work, Unavailable::Stopped));
        }
        if let Err(work) = state.lanes.push(lane, work) {
            state.refused += 1;
            return Err((work, Unavailable::Busy));
        }
        Ok(!std::mem::replace(&mut state.called, true))
    }

    /// How much waits.
    pub fn len(&self) -> usize {
        self.lock().lanes.len()
    }

    /// How often there was no room.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    /// Begins a batch of what waits now, at most so much. `clock` gives unix ms.
    pub fn turns<'q>(&'q self, most: usize, clock: &'q dyn Fn() -> u64) -> Turns<'q> {
        let mut state = self.lock();
        state.called = false;
        let left = state.lanes.len().min(most);
        drop(state);
        Turns { queue: self, clock, left, began: Instant::now(), others_wait: false, running: None, ran: Vec::new() }
    }

    /// Takes nothing more; what waits stays.
    pub fn close(&self) {
        self.lock().closed = true;
    }

    /// Takes nothing more, and refuses what waits: the writer has ended.
    pub fn refuse_all(&self) {
        let mut state = self.lock();
        state.closed = true;
        let lanes = std::mem::take(&mut state.lanes);
        drop(state);
        for work in lanes.lanes.into_values().flat_map(|waiting| waiting.work) {
            work.refuse(&Unavailable::Stopped);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and what it guards is whole after each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A batch in the making: gives out the work, whose turn it is, and charges each lane for the time it takes.
///
/// No more goes into it than waited when it began, so that it ends however much arrives meanwhile. Time only decides who is
/// next, nothing about data.
pub(crate) struct Turns<'q> {
    queue: &'q Queue,
    clock: &'q dyn Fn() -> u64,
    left: usize,
    began: Instant,
    /// Whether something else than work waits for the end of the batch.
    others_wait: bool,
    running: Option<Ran>,
    ran: Vec<Ran>,
}

/// A piece of work of this batch.
struct Ran {
    lane: Lane,
    began: Instant,
    time: Duration,
    /// What it adds to the log.
    bytes: u64,
}

impl Turns<'_> {
    /// Whether there is nothing to begin with.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Says that something else waits for the end of the batch, so that it has to be short.
    pub fn others_wait(&mut self) {
        self.others_wait = true;
    }

    /// The next piece of work; the one before it is done. `None` closes the batch.
    pub fn next(&mut self) -> Option<Work> {
        let mut refused = Vec::new();
        let next = {
            let mut state = self.queue.lock();
            self.note_end(&mut state.lanes);
            loop {
                if self.left == 0 || self.is_long_enough(&state.lanes) {
                    break None;
                }
                let Some((lane, work)) = state.lanes.pop() else { break None };
                self.left -= 1;
                let until = match &work {
                    Work::Transact(job) => job.until,
                    Work::Spend(spend) => spend.until,
                };
                if until < (self.clock)() {
                    refused.push(work);
                    continue;
                }
                self.running = Some(Ran { lane, began: Instant::now(), time: Duration::ZERO, bytes: 0 });
                break Some(work);
            }
        };
        for work in refused {
            work.refuse(&Unavailable::Late);
        }
        next
    }

    /// Notes what the piece of work that was given out last adds to the log.
    pub fn wrote(&mut self, bytes: usize) {
        if let Some(running) = &mut self.running {
            running.bytes = bytes as u64;
        }
    }

    fn is_long_enough(&self, lanes: &Lanes<Work>) -> bool {
        let Some(first) = self.ran.first() else { return false };
        self.began.elapsed() >= BATCH_TIME
            && (self.others_wait || self.ran.iter().any(|ran| ran.lane != first.lane) || lanes.others_wait(first.lane))
    }

    /// The running piece of work has ended.
    fn note_end(&mut self, lanes: &mut Lanes<Work>) {
        let Some(mut running) = self.running.take() else { return };
        running.time = running.began.elapsed();
        lanes.charge(running.lane, nanos(running.time));
        self.ran.push(running);
    }
}

impl Drop for Turns<'_> {
    /// The batch is done: what it took beside its pieces - the log, the sync, the commit, publishing - is shared out by
    /// the bytes that each added.
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        self.note_end(&mut state.lanes);
        let own: Duration = self.ran.iter().map(|ran| ran.time).sum();
        let shared = nanos(self.began.elapsed().saturating_sub(own));
        let bytes: u64 = self.ran.iter().map(|ran| ran.bytes).sum();
        for ran in self.ran.iter().filter(|ran| ran.bytes > 0) {
            let part = u128::from(shared) * u128::from(ran.bytes) / u128::from(bytes);
            state.lanes.charge(ran.lane, u64::try_from(part).unwrap_or(u64::MAX));
        }
        state.lanes.forget();
    }
}

/// At least one, so that whoever had a turn comes after whoever had none.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(workspace: u32) -> Lane {
        Lane::Changes(WorkspaceNo(workspace))
    }

    /// Serves everything; each piece says how long it takes. The lanes in the order of their turns.
    fn serve(lanes: &mut Lanes<u64>) -> Vec<Lane> {
        let mut turns = Vec::new();
        while let Some((lane, time)) = lanes.pop() {
            lanes.charge(lane, time);
            lanes.forget();
            turns.push(lane);
        }
        turns
    }

    fn fill(lanes: &mut Lanes<u64>, lane: Lane, pieces: usize, time: u64) {
        for _ in 0..pieces {
            lanes.push(lane, time).expect("there is room");
        }
    }

    /// Turns go by time used: while one workspace has a change that takes a hundred times as long, another has a hundred.
    #[test]
    fn lanes_take_turns_by_the_time_they_use() {
        let mut lanes = Lanes::default();
        fill(&mut lanes, of(1), 3, 100);
        fill(&mut lanes, of(2), 300, 1);
        let turns = serve(&mut lanes);
        let long: Vec<_> = turns.iter().enumerate().filter(|(_, lane)| **lane == of(1)).map(|(at, _)| at).collect();
        assert_eq!(long, [0, 101, 202], "the first of equals has the lower number");
        assert_eq!((turns.len(), lanes.len()), (303, 0));
        assert!(lanes.lanes.is_empty(), "nothing is kept of who has left");
    }

    /// Who comes newly waits for nobody's backlog, and who was away has saved nothing up.
    #[test]
    fn who_was_away_joins_at_the_present() {
        let mut lanes = Lanes::default();
        fill(&mut lanes, of(1), 1000, 10);
        for _ in 0..500 {
            let (lane, time) = lanes.pop().expect("there is work");
            lanes.charge(lane, time);
        }
        fill(&mut lanes, of(2), 100, 10);
        let turns = serve(&mut lanes);
        assert!(turns[..2].contains(&of(2)), "next, or after one more");
        for pair in turns[..200].chunks(2) {
            assert!(pair.contains(&of(1)) && pair.contains(&of(2)), "{pair:?}");
        }
    }

    /// To leave for a moment does not make up for what was used: one that hands in one long change after the other, each
    /// when the last one is done, gets no more than its share.
    #[test]
    fn used_time_is_remembered_while_others_wait() {
        let mut lanes = Lanes::default();
        fill(&mut lanes, of(2), 100, 10);
        fill(&mut lanes, of(1), 1, 100);
        let mut long = 0;
        let mut short = 0;
        while let Some((lane, time)) = lanes.pop() {
            lanes.charge(lane, time);
            lanes.forget();
            if lane == of(1) {
                long += 1;
                fill(&mut lanes, of(1), 1, 100);
            } else {
                short += 1;
                if short == 100 {
                    break;
                }
            }
        }
        assert!((10..=11).contains(&long), "{long}");
    }

    /// The first lane goes before all others and uses up nobody's time; a workspace's verifications do not stand behind
    /// its changes.
    #[test]
    fn the_first_lane_is_first() {
        let mut lanes = Lanes::default();
        fill(&mut lanes, of(1), 2, 100);
        fill(&mut lanes, Lane::Verifications(WorkspaceNo(1)), 2, 1);
        let (lane, time) = lanes.pop().expect("there is work");
        lanes.charge(lane, time);
        fill(&mut lanes, Lane::First, 2, 1000);
        fill(&mut lanes, of(2), 1, 1);
        let turns = serve(&mut lanes);
        assert_eq!(turns[..2], [Lane::First, Lane::First]);
        assert_eq!(turns.last(), Some(&of(1)), "it has used the most");
        assert_eq!(turns.len(), 2 + 5 - 2 + 1);
    }

    /// However many workspaces fill the queue, there is room for another one; the first lane has its own.
    #[test]
    fn a_full_queue_still_has_room_for_others() {
        let mut lanes = Lanes::default();
        let mut held = Vec::new();
        for workspace in 1..=10 {
            let mut pieces = 0;
            while lanes.push(of(workspace), 1).is_ok() {
                pieces += 1;
            }
            held.push(pieces);
        }
        assert_eq!(held[..3], [ROOM / 2, ROOM / 4, ROOM / 8], "as much as was left");
        assert!(held.iter().all(|pieces| *pieces > 0), "{held:?}");
        let mut more = 11;
        while lanes.push(of(more), 1).is_ok() {
            more += 1;
        }
        assert_eq!(lanes.len(), ROOM, "bounded in all");
        fill(&mut lanes, Lane::First, FIRST_ROOM, 1);
        assert!(lanes.push(Lane::First, 1).is_err(), "bounded, too");
        lanes.pop();
        lanes.push(Lane::First, 1).expect("one has left");
    }
}
