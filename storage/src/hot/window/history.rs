//! Test mode: requests bring their own times, in any order (RL-TIME-02, 03).
//!
//! Counts of every window are kept apart, so that a test that goes back counts where it went, and tests do not depend on
//! each other's order. The decision itself is the product's own ([`Moment`]). One lock guards it all: nobody measures
//! test mode.

use std::collections::{HashMap, VecDeque};
use std::sync::PoisonError;

use super::super::sync::Mutex;
use super::cell::{Counts, Decision, Layout, MIN_DURATION_MS, Moment, Wide};
use super::windows::{Subject, Take, hand_back};

/// The fewest windows a history has room for.
const MIN_WINDOWS: usize = 1_024;

/// All windows ever counted in, up to a bound; beyond it the one first counted in is forgotten.
pub(super) struct History {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    accepted: HashMap<(Subject, u64), u64>,
    /// The windows in the order in which they were first counted in.
    order: VecDeque<(Subject, u64)>,
}

impl History {
    pub fn new(max_windows: usize) -> History {
        History { capacity: max_windows.max(MIN_WINDOWS), state: Mutex::new(State::default()) }
    }

    pub fn len(&self) -> usize {
        self.with(|state| state.accepted.len())
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn take(&self, take: &Take, now_ms: u64) -> Decision {
        self.with(|state| {
            let moment = state.moment(take, now_ms);
            let decision = moment.judge(take.limit, 0, take.cost, Wide::MAX_COUNT);
            if decision.passed {
                state.count(take, &moment, self.capacity);
            }
            decision
        })
    }

    pub fn take_all(&self, takes: &[Take], now_ms: u64, out: &mut Vec<Decision>) -> bool {
        self.with(|state| {
            // Batches are short, and this is test mode: looking at each earlier entry is fine.
            out.extend(takes.iter().enumerate().map(|(entry, take)| {
                let same = takes[..entry].iter().filter(|earlier| earlier.subject == take.subject);
                let earlier = same.fold(0u64, |sum, earlier| sum.saturating_add(earlier.cost));
                state.moment(take, now_ms).judge(take.limit, earlier, take.cost, Wide::MAX_COUNT)
            }));
            let passed = out.iter().all(|decision| decision.passed);
            if passed {
                for take in takes {
                    let moment = state.moment(take, now_ms);
                    state.count(take, &moment, self.capacity);
                }
            } else {
                hand_back(takes, out);
            }
            passed
        })
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn moment(&self, take: &Take, now_ms: u64) -> Moment {
        let window = now_ms / take.duration_ms.max(MIN_DURATION_MS);
        let accepted = |window| self.accepted.get(&(take.subject, window)).copied().unwrap_or(0);
        let previous = window.checked_sub(1).map_or(0, accepted);
        let counts = Counts { window, current: accepted(window), previous };
        Moment::at(counts, now_ms, take.duration_ms, u64::MAX)
    }

    fn count(&mut self, take: &Take, moment: &Moment, capacity: usize) {
        if take.cost == 0 {
            return;
        }
        let window = (take.subject, moment.counts.window);
        if !self.accepted.contains_key(&window) {
            if self.accepted.len() >= capacity
                && let Some(oldest) = self.order.pop_front()
            {
                self.accepted.remove(&oldest);
            }
            self.order.push_back(window);
        }
        *self.accepted.entry(window).or_default() += take.cost;
    }
}
