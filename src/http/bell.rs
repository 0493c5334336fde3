//! A bell: it tells a task that polls many things which of them may have something to say.
//!
//! A connection's task is polled for every request, and beside the requests it waits for a timer and for the shutdown, which
//! concern one poll in millions. To ask those each time means to hand each of them the task's waker each time. With a bell
//! they are handed its own waker, once, and a poll looks at one flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// What rings.
struct Clapper {
    rung: AtomicBool,
    /// The task that listens.
    task: Mutex<Option<Waker>>,
}

impl Wake for Clapper {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        if let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner) {
            task.wake_by_ref();
        }
    }
}

/// One task's bell.
pub(super) struct Bell {
    clapper: Arc<Clapper>,
    rope: Waker,
    listener: Option<Waker>,
}

impl Bell {
    /// A bell that has rung: what is polled through it has not been polled yet.
    pub(super) fn new() -> Bell {
        let clapper = Arc::new(Clapper { rung: AtomicBool::new(true), task: Mutex::new(None) });
        Bell { rope: Waker::from(Arc::clone(&clapper)), clapper, listener: None }
    }

    /// Polls through the bell where it has rung since the last time, and the first time.
    pub(super) fn poll<T>(&mut self, cx: &Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if !self.listener.as_ref().is_some_and(|listener| listener.will_wake(cx.waker())) {
            self.listener = Some(cx.waker().clone());
            *self.clapper.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        }
        // After the listener is known: a ring from here on wakes it, one before is seen now.
        if !self.clapper.rung.load(Ordering::Acquire) || !self.clapper.rung.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        poll(&mut Context::from_waker(&self.rope))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is behind a bell is polled once, and then once for each time it rang; the task that polled last is the one that
    /// is woken.
    #[test]
    fn a_bell_that_has_not_rung_costs_no_poll() {
        let tasks = [Arc::new(Task::default()), Arc::new(Task::default())];
        let wakers = tasks.each_ref().map(|task| Waker::from(Arc::clone(task)));
        let mut bell = Bell::new();
        let mut ropes = Vec::new();
        let mut poll = |task: usize| {
            let polled = bell.poll(&Context::from_waker(&wakers[task]), |cx| {
                ropes.push(cx.waker().clone());
                if ropes.len() == 3 { Poll::Ready(()) } else { Poll::Pending }
            });
            (polled.is_ready(), ropes.len(), ropes[0].clone())
        };
        let (.., rope) = poll(0);
        assert_eq!(poll(0).1, 1);
        rope.wake_by_ref();
        assert_eq!(tasks[0].0.load(Ordering::Relaxed), 1);
        assert_eq!(poll(1).1, 2);
        assert_eq!(poll(1).1, 2);
        rope.wake_by_ref();
        assert_eq!(tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed)), [1, 1]);
        assert!(poll(1).0);
    }
}
