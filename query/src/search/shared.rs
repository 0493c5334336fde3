//! What the thread that keeps the index and those who search share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use keyward_storage::Source;
use keyward_storage::ids::WorkspaceNo;
use keyward_storage::position::Position;

use super::view::View;

/// What the thread is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It opens the index, or makes it.
    Opening,
    /// It follows the log.
    Following,
    /// It waits to try again.
    Failing,
}

/// How much of the records searches find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// All that is older than [`PROMISE`].
    Current,
    /// What changed within so many milliseconds may be missing.
    Behind(u64),
    /// The index is being made: anything may be missing.
    Partial,
}

/// After this a change is found (EXT-15).
pub const PROMISE: Duration = Duration::from_secs(2);

/// Longest a search waits for the index to be opened.
const OPENING: Duration = Duration::from_secs(2);
/// Most workspaces of which it is remembered up to where the index has their events.
const WORKSPACES_MAX: usize = 10_000;

pub struct Shared {
    source: Source,
    view: ArcSwapOption<View>,
    /// The log position up to which the view has everything, and a moment at which that was all there was.
    caught_up: Mutex<(Position, Instant)>,
    /// Up to which number each workspace's events are in the view, at least.
    events_through: Mutex<HashMap<WorkspaceNo, u64>>,
    standing: AtomicU8,
    damage: AtomicBool,
    stop: Mutex<bool>,
    stopping: Condvar,
    /// Commits since the start.
    pub commits: AtomicU64,
}

impl Shared {
    pub fn new(source: Source) -> Shared {
        Shared {
            source,
            view: ArcSwapOption::empty(),
            caught_up: Mutex::new((Position::START, Instant::now())),
            events_through: Mutex::default(),
            standing: AtomicU8::new(Standing::Opening as u8),
            damage: AtomicBool::new(false),
            stop: Mutex::new(false),
            stopping: Condvar::new(),
            commits: AtomicU64::new(0),
        }
    }

    /// The last commit; `None` before the first.
    pub fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// The last commit. Right after the start there is none yet, for a moment: that is waited for.
    pub fn first_view(&self) -> Option<Arc<View>> {
        let until = Instant::now() + OPENING;
        loop {
            let view = self.view();
            if view.is_some() || self.is(Standing::Failing) || self.stops() || Instant::now() >= until {
                return view;
            }
            self.sleep(Duration::from_millis(2));
        }
    }

    /// Shows a commit to searches.
    pub fn show(&self, view: View, position: Position, as_of: Instant) {
        self.view.store(Some(Arc::new(view)));
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.catch_up(position, as_of);
    }

    /// Takes a commit that cannot be trusted away from searches.
    pub fn hide(&self) {
        self.view.store(None);
    }

    /// Says that the view has everything up to `position`, which was all there was at `as_of`.
    pub fn catch_up(&self, position: Position, as_of: Instant) {
        *self.caught_up.lock().unwrap_or_else(PoisonError::into_inner) = (position, as_of);
    }

    /// Up to which log position the view has everything.
    pub fn position(&self) -> Position {
        self.caught_up.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// How much of the records the view has.
    pub fn freshness(&self) -> Freshness {
        if self.view.load().as_ref().is_none_or(|view| !view.complete) {
            return Freshness::Partial;
        }
        let (position, as_of) = *self.caught_up.lock().unwrap_or_else(PoisonError::into_inner);
        let age = as_of.elapsed();
        if position >= self.source.position() || age <= PROMISE {
            return Freshness::Current;
        }
        Freshness::Behind(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
    }

    /// Up to which number a workspace's events are known to be in a complete view.
    pub fn events_through(&self, workspace: WorkspaceNo) -> Option<u64> {
        self.events_through.lock().unwrap_or_else(PoisonError::into_inner).get(&workspace).copied()
    }

    /// Notes that. Numbers only grow, and so does what complete views have.
    pub fn note_events_through(&self, workspace: WorkspaceNo, through: u64) {
        let mut known = self.events_through.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= WORKSPACES_MAX {
            known.clear();
        }
        known.insert(workspace, through);
    }

    pub fn stand(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }

    pub fn is(&self, standing: Standing) -> bool {
        self.standing.load(Ordering::Relaxed) == standing as u8
    }

    /// Notes that a search could not read the index.
    pub fn note_damage(&self) {
        self.damage.store(true, Ordering::Relaxed);
        self.source.wake();
    }

    /// Whether that was noted since this was last asked.
    pub fn take_damage(&self) -> bool {
        self.damage.swap(false, Ordering::Relaxed)
    }

    /// Tells the thread to stop.
    pub fn end(&self) {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.notify_all();
        self.source.wake();
    }

    pub fn stops(&self) -> bool {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until it is time to stop.
    pub fn sleep(&self, long: Duration) {
        let stop = self.stop.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.stopping.wait_timeout_while(stop, long, |stop| !*stop));
    }
}
