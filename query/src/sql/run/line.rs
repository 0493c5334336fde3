//! How many queries run at one time, and who is next.
//!
//! At the limit a query waits. A free place goes to the workspace that has the fewest queries running, the longest wait
//! first among equals: whoever asks much waits behind whoever asks little. The last place is never the same workspace's as
//! all others, so that long queries of one do not shut out everybody else for as long as they run.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::error::Refusal;

/// Places for running queries, and a bounded line before them.
pub struct Line {
    shared: Arc<Shared>,
}

struct Shared {
    places: usize,
    waiting_max: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    running: usize,
    running_of: HashMap<u32, usize>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    workspace: u32,
    tell: oneshot::Sender<Place>,
}

/// The right to run one query, until it is dropped.
pub struct Place {
    /// `None` once there is nothing to give back.
    shared: Option<Arc<Shared>>,
    workspace: u32,
}

impl Line {
    /// `places` queries run at a time; `waiting_max` more may wait, and of one workspace half of them.
    pub fn new(places: usize, waiting_max: usize) -> Line {
        Line { shared: Arc::new(Shared { places: places.max(1), waiting_max, state: Mutex::default() }) }
    }

    /// Waits for a place. Whoever stops waiting leaves the line.
    ///
    /// # Errors
    /// [`Refusal::Busy`] where the line is full.
    pub async fn enter(&self, workspace: u32) -> Result<Place, Refusal> {
        let told = {
            let mut state = self.shared.lock();
            state.waiting.retain(|waiting| !waiting.tell.is_closed());
            let of_one = self.shared.of_one();
            let may_begin = state.running < self.shared.places && state.may_begin(workspace, of_one);
            if may_begin && !state.waiting.iter().any(|waiting| state.may_begin(waiting.workspace, of_one)) {
                state.begin(workspace);
                return Ok(Place { shared: Some(Arc::clone(&self.shared)), workspace });
            }
            let of_workspace = state.waiting.iter().filter(|waiting| waiting.workspace == workspace).count();
            if state.waiting.len() >= self.shared.waiting_max || of_workspace >= self.shared.waiting_max.div_ceil(2) {
                return Err(Refusal::Busy);
            }
            let (tell, told) = oneshot::channel();
            state.waiting.push_back(Waiting { workspace, tell });
            told
        };
        told.await.map_err(|_| Refusal::Busy)
    }

    /// How many queries run and how many wait.
    pub fn length(&self) -> (usize, usize) {
        let state = self.shared.lock();
        (state.running, state.waiting.iter().filter(|waiting| !waiting.tell.is_closed()).count())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Places that one workspace may have.
    fn of_one(&self) -> usize {
        self.places.saturating_sub(1).max(1)
    }
}

impl State {
    fn may_begin(&self, workspace: u32, of_one: usize) -> bool {
        self.running_of.get(&workspace).is_none_or(|&running| running < of_one)
    }

    fn begin(&mut self, workspace: u32) {
        self.running += 1;
        *self.running_of.entry(workspace).or_default() += 1;
    }

    fn end(&mut self, workspace: u32) {
        self.running -= 1;
        if let Some(running) = self.running_of.get_mut(&workspace) {
            *running -= 1;
            if *running == 0 {
                self.running_of.remove(&workspace);
            }
        }
    }

    /// Takes who is next out of the line.
    fn next(&mut self, of_one: usize) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.tell.is_closed());
        let running = |waiting: &Waiting| self.running_of.get(&waiting.workspace).copied().unwrap_or(0);
        let ready = self.waiting.iter().enumerate().filter(|(_, waiting)| self.may_begin(waiting.workspace, of_one));
        let (next, _) = ready.min_by_key(|(_, waiting)| running(waiting))?;
        self.waiting.remove(next)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let mut state = shared.lock();
        state.end(self.workspace);
        while state.running < shared.places {
            let Some(Waiting { workspace, tell }) = state.next(shared.of_one()) else { break };
            state.begin(workspace);
            if let Err(mut place) = tell.send(Place { shared: Some(Arc::clone(&shared)), workspace }) {
                // It stopped waiting just now. Its place is given back here: the lock is held already.
                place.shared = None;
                state.end(workspace);
            }
        }
    }
}

impl Place {
    /// Whose query it is for.
    pub fn workspace(&self) -> u32 {
        self.workspace
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures::future::BoxFuture;
    use futures::{FutureExt, poll};

    use super::*;

    type Entering<'a> = BoxFuture<'a, Result<Place, Refusal>>;

    async fn ready(entering: &mut Entering<'_>) -> Option<Result<Place, Refusal>> {
        match poll!(entering) {
            Poll::Ready(entered) => Some(entered),
            Poll::Pending => None,
        }
    }

    /// A workspace that asks more than there are places keeps one of them free for others, and is not next while others
    /// wait.
    #[tokio::test]
    async fn who_asks_little_does_not_wait_behind_who_asks_much() {
        let line = Line::new(3, 8);
        let first = line.enter(1).await.expect("a place");
        let second = line.enter(1).await.expect("a place");
        let mut greedy: Vec<Entering<'_>> = (0..4).map(|_| line.enter(1).boxed()).collect();
        for entering in &mut greedy {
            assert!(ready(entering).await.is_none(), "the last place is not for a workspace that has all others");
        }
        assert!(matches!(line.enter(1).await, Err(Refusal::Busy)), "one workspace has half of the line");
        let other = line.enter(2).await.expect("it passes those who may not begin");
        let mut modest = line.enter(3).boxed();
        assert!(ready(&mut modest).await.is_none(), "now there is no place left");
        assert_eq!(line.length(), (3, 5));

        drop(first);
        let modest = ready(&mut modest).await.expect("it is next").expect("a place");
        assert!(ready(&mut greedy[0]).await.is_none());
        drop(second);
        let third = ready(&mut greedy[0]).await.expect("the longest wait").expect("a place");
        drop(other);
        let fourth = ready(&mut greedy[1]).await.expect("the second longest").expect("a place");
        // One that stops waiting is passed over, even if its place has been handed to it already.
        drop(greedy.remove(2));
        drop(third);
        drop(greedy.remove(2));
        drop(modest);
        drop(fourth);
        drop(greedy);
        assert_eq!(line.length(), (0, 0));
        assert!(line.enter(1).await.is_ok());
    }

    /// The line is bounded for everybody together, too.
    #[tokio::test]
    async fn a_full_line_refuses() {
        let line = Line::new(1, 2);
        let _place = line.enter(1).await.expect("a place");
        let (mut one, mut other) = (line.enter(2).boxed(), line.enter(3).boxed());
        assert!(ready(&mut one).await.is_none() && ready(&mut other).await.is_none());
        assert!(matches!(line.enter(4).await, Err(Refusal::Busy)));
        drop(one);
        let mut fourth = line.enter(4).boxed();
        assert!(ready(&mut fourth).await.is_none(), "who left makes room");
    }
}
