//! Answers that wait until followers hold what they tell of.
//!
//! The writer never waits for a follower: it hands the answer in here and begins its next batch (pipelining). An answer is given
//! when as many followers as are wanted have said that their disks hold its position, or when its time is over: then it says that
//! the change is made and not confirmed. Answers are handed in by rising position, so that one walk from the front finds all that
//! are due; all have the same time, so that the front is also the one that is late first.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::position::Position;
use crate::replication::NodeId;

/// Answers that may wait; at that many no further changes are taken.
pub const ROOM: usize = 16_384;
/// Followers whose positions are kept.
const FOLLOWERS_MAX: usize = 64;

/// Told whether the position it waited for is confirmed.
pub type Told = Box<dyn FnOnce(bool) + Send>;

/// What waits for followers.
pub struct Acks {
    wanted: usize,
    timeout: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

impl std::fmt::Debug for Acks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acks").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// Each follower, up to where its disk holds the log.
    followers: Vec<(NodeId, Position)>,
    confirmed: Position,
    waiting: VecDeque<(Position, Instant, Told)>,
    late: u64,
    stopped: bool,
}

impl Acks {
    /// So many followers are wanted, for so long.
    pub fn new(wanted: usize, timeout: Duration) -> Acks {
        Acks { wanted, timeout, state: Mutex::default(), changed: Condvar::new() }
    }

    /// How many followers have to confirm.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// Up to where as many followers as are wanted hold the log.
    pub fn confirmed(&self) -> Position {
        self.lock().confirmed
    }

    /// How many answers wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// How many answers could not wait any longer.
    pub fn late(&self) -> u64 {
        self.lock().late
    }

    /// Whether there is room for more.
    pub fn has_room(&self) -> bool {
        self.wanted == 0 || self.waiting() < ROOM
    }

    /// Tells when `position` is confirmed, or cannot be in time. At once where nobody has to confirm.
    pub fn hold(&self, position: Position, told: Told) {
        if self.wanted == 0 {
            return told(true);
        }
        let mut state = self.lock();
        if state.confirmed >= position {
            drop(state);
            return told(true);
        }
        if state.stopped {
            drop(state);
            return told(false);
        }
        // Positions rise: an answer that came later waits for no less.
        let position = state.waiting.back().map_or(position, |(last, ..)| position.max(*last));
        state.waiting.push_back((position, Instant::now() + self.timeout, told));
        if state.waiting.len() == 1 {
            drop(state);
            self.changed.notify_all();
        }
    }

    /// A follower's disk holds the log up to here. It may be less than before: its data directory may be another one.
    pub fn reached(&self, follower: NodeId, position: Position) {
        if self.wanted == 0 {
            return;
        }
        let mut state = self.lock();
        match state.followers.iter_mut().find(|(node, _)| *node == follower) {
            Some((_, reached)) => *reached = position,
            None => {
                if state.followers.len() >= FOLLOWERS_MAX
                    && let Some(last) = (0..state.followers.len()).min_by_key(|at| state.followers[*at].1)
                {
                    state.followers.swap_remove(last);
                }
                state.followers.push((follower, position));
            }
        }
        let mut positions: Vec<Position> = state.followers.iter().map(|(_, reached)| *reached).collect();
        positions.sort_unstable_by(|one, other| other.cmp(one));
        // What was confirmed once stays so.
        let now = positions.get(self.wanted - 1).copied().unwrap_or(Position::START);
        state.confirmed = state.confirmed.max(now);
        let confirmed = state.confirmed;
        let due = state.waiting.iter().take_while(|(position, ..)| *position <= confirmed).count();
        let due: Vec<_> = state.waiting.drain(..due).collect();
        drop(state);
        for (_, _, told) in due {
            told(true);
        }
    }

    /// Gives up what has waited too long; `None` where nothing waits, else how long to the next.
    fn expire(&self, now: Instant) -> Option<Duration> {
        let mut state = self.lock();
        let late = state.waiting.iter().take_while(|(_, until, _)| *until <= now).count();
        state.late += late as u64;
        let late: Vec<_> = state.waiting.drain(..late).collect();
        let next = state.waiting.front().map(|(_, until, _)| until.saturating_duration_since(now));
        drop(state);
        for (_, _, told) in late {
            told(false);
        }
        next
    }

    /// Gives up what waits too long, until [`Acks::stop`]. A thread's work.
    pub(crate) fn run(&self) {
        loop {
            let next = self.expire(Instant::now());
            let state = self.lock();
            if state.stopped {
                return;
            }
            match next {
                // Something may have been handed in since.
                None if state.waiting.is_empty() => {
                    drop(self.changed.wait(state).unwrap_or_else(PoisonError::into_inner));
                }
                None => {}
                Some(next) => drop(self.changed.wait_timeout(state, next).unwrap_or_else(PoisonError::into_inner)),
            }
        }
    }

    /// Gives up everything that waits: the writer has ended.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        let rest = std::mem::take(&mut state.waiting);
        drop(state);
        self.changed.notify_all();
        for (_, _, told) in rest {
            told(false);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Answers notes that were told: position, and whether it was confirmed.
    type Notes = Arc<Mutex<Vec<(u64, bool)>>>;

    fn hold(acks: &Acks, notes: &Notes, position: u64) {
        let notes = Arc::clone(notes);
        acks.hold(Position(position), Box::new(move |confirmed| notes.lock().unwrap().push((position, confirmed))));
    }

    fn taken(notes: &Notes) -> Vec<(u64, bool)> {
        std::mem::take(&mut notes.lock().unwrap())
    }

    /// An answer is given when as many followers as are wanted have come past it, in the order of positions; whoever goes back
    /// takes nothing back, and what is late is told so.
    #[test]
    fn answers_wait_for_as_many_as_are_wanted() {
        let (acks, notes) = (Acks::new(2, Duration::from_secs(3600)), Notes::default());
        for position in [3, 5, 5, 8] {
            hold(&acks, &notes, position);
        }
        acks.reached([1; 16], Position(8));
        assert_eq!(taken(&notes), [], "one is not two");
        acks.reached([2; 16], Position(5));
        assert_eq!(taken(&notes), [(3, true), (5, true), (5, true)]);
        acks.reached([2; 16], Position(1));
        hold(&acks, &notes, 5);
        assert_eq!(taken(&notes), [(5, true)], "it was confirmed once");
        assert_eq!(acks.waiting(), 1);
        acks.expire(Instant::now() + Duration::from_secs(7200));
        assert_eq!((taken(&notes), acks.late()), (vec![(8, false)], 1));
        hold(&acks, &notes, 9);
        acks.stop();
        hold(&acks, &notes, 10);
        assert_eq!(taken(&notes), [(9, false), (10, false)]);

        let none = Acks::new(0, Duration::ZERO);
        hold(&none, &notes, 1);
        assert_eq!(taken(&notes), [(1, true)]);
    }
}
