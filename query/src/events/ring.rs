//! The bounded queue between requests and the events' thread.
//!
//! Pushing takes no lock and wakes the thread only where it sleeps. A full ring is the one place where an event can cost a
//! request time: the caller waits up to [`PATIENCE`] without blocking its thread, then the event is dropped and counted,
//! and the store calls itself degraded for a while.
//!
//! It has two parts. Nearly every event goes through a short one, whose few hundred kilobytes stay in the processor's cache:
//! going round in all that a second of peak load needs, each event would wait for memory twice. What finds it full goes into
//! a long one, which takes memory only while it holds something.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crossbeam::queue::{ArrayQueue, SegQueue};

use super::event::Event;

/// How long a caller waits for room.
pub const PATIENCE: Duration = Duration::from_millis(5);
/// How often it looks meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Events that the short part holds.
const SHORT: usize = 4096;

/// Events on their way to the thread that records them, roughly in their order.
pub(crate) struct Ring {
    short: ArrayQueue<Event>,
    long: SegQueue<Event>,
    /// Events in the long part, or about to be.
    long_depth: AtomicUsize,
    /// Most events in the long part.
    long_most: usize,
    dropped: AtomicU64,
    /// When events were dropped last: milliseconds after `began`, 0 = never.
    dropped_at: AtomicU64,
    began: Instant,
    /// Whether the thread sleeps until somebody wakes it.
    asleep: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

impl Ring {
    pub fn new(capacity: usize) -> Ring {
        let short = capacity.clamp(1, SHORT);
        Ring {
            short: ArrayQueue::new(short),
            long: SegQueue::new(),
            long_depth: AtomicUsize::new(0),
            long_most: capacity.saturating_sub(short),
            dropped: AtomicU64::new(0),
            dropped_at: AtomicU64::new(0),
            began: Instant::now(),
            asleep: AtomicBool::new(false),
            sleeper: Mutex::new(None),
        }
    }

    /// Hands an event over, or gives it back where there is no room.
    #[expect(
        clippy::result_large_err,
        reason = "the event itself is handed back; boxing it would allocate on the hot path"
    )]
    pub fn try_push(&self, event: Event) -> Result<(), Event> {
        if let Err(event) = self.short.push(event) {
            if self.long_depth.fetch_add(1, Ordering::AcqRel) >= self.long_most {
                self.long_depth.fetch_sub(1, Ordering::AcqRel);
                return Err(event);
            }
            self.long.push(event);
        }
        // The push has to be seen by whoever said it sleeps before we looked: the other side stores, fences and looks
        // at the queue once more.
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed) {
            self.wake();
        }
        Ok(())
    }

    /// Hands an event over, waiting up to [`PATIENCE`] for room. Whether it was taken.
    pub async fn push(&self, event: Event) -> bool {
        match self.try_push(event) {
            Ok(()) => true,
            Err(event) => Box::pin(self.push_patiently(event)).await,
        }
    }

    async fn push_patiently(&self, mut event: Event) -> bool {
        let mut waited = Duration::ZERO;
        while waited < PATIENCE {
            tokio::time::sleep(LOOK_EVERY).await;
            waited += LOOK_EVERY;
            match self.try_push(event) {
                Ok(()) => return true,
                Err(back) => event = back,
            }
        }
        self.count_dropped(1);
        false
    }

    /// Counts events that nobody will record.
    pub fn count_dropped(&self, events: u64) {
        self.dropped.fetch_add(events, Ordering::Relaxed);
        self.dropped_at.store(self.millis().max(1), Ordering::Relaxed);
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether events were dropped within this time.
    pub fn dropped_within(&self, time: Duration) -> bool {
        let at = self.dropped_at.load(Ordering::Relaxed);
        at > 0 && Duration::from_millis(self.millis().saturating_sub(at)) < time
    }

    /// The next event. What is in the long part came before what has found room since.
    pub fn pop(&self) -> Option<Event> {
        if self.long_depth.load(Ordering::Acquire) > 0
            && let Some(event) = self.long.pop()
        {
            self.long_depth.fetch_sub(1, Ordering::AcqRel);
            return Some(event);
        }
        self.short.pop()
    }

    pub fn depth(&self) -> usize {
        self.short.len() + self.long_depth.load(Ordering::Relaxed)
    }

    pub fn capacity(&self) -> usize {
        self.short.capacity() + self.long_most
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Makes the calling thread the one that sleeps here.
    pub fn adopt(&self) {
        *self.sleeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }

    /// Ends the sleep of the thread that adopted the ring, or its next one.
    pub fn wake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
        if let Some(thread) = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            thread.unpark();
        }
    }

    /// Sleeps until an event comes, somebody wakes the thread, or the time has passed.
    pub fn sleep(&self, at_most: Duration) {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.short.is_empty() && self.long.is_empty() {
            std::thread::park_timeout(at_most);
        }
        self.asleep.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::testing::verification;

    /// design.md, "The hot path": a caller who meets a full ring waits, then the event is dropped and counted; room that
    /// comes in time is used.
    #[test]
    fn a_full_ring_waits_then_drops_and_counts() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let ring = Ring::new(2);
        runtime.block_on(async {
            assert!(ring.push(verification(1).into()).await);
            assert!(ring.push(verification(2).into()).await);
            assert!(!ring.push(verification(3).into()).await, "nobody makes room");
            assert_eq!((ring.dropped(), ring.depth()), (1, 2));
            let late = ring.push(verification(4).into());
            let reader = async {
                tokio::task::yield_now().await;
                ring.pop()
            };
            let (taken, first) = tokio::join!(late, reader);
            assert!(taken, "room came in time");
            assert_eq!(first.map(|event| event.time()), Some(1), "in order");
        });
        assert_eq!(ring.dropped(), 1);
    }

    /// The whole capacity is there, and not more, whichever part an event is in; none is lost or doubled on its way.
    #[test]
    fn both_parts_hold_what_was_asked_for() {
        let ring = Ring::new(SHORT + 100);
        assert_eq!(ring.capacity(), SHORT + 100);
        let mut times: Vec<u64> = Vec::new();
        let mut next = 0u64..;
        for takes in [0, 50, SHORT, SHORT + 100, 1] {
            while let Some(time) = next.next()
                && ring.try_push(verification(time).into()).is_ok()
            {}
            assert_eq!(ring.depth(), ring.capacity());
            // The last one was refused and is sent again.
            next.start -= 1;
            times.extend((0..takes).map(|_| ring.pop().expect("it is full").time()));
        }
        times.extend(std::iter::from_fn(|| ring.pop()).map(|event| event.time()));
        times.sort_unstable();
        assert_eq!(times, (0..next.start).collect::<Vec<u64>>());
        assert_eq!(ring.depth(), 0);
    }

    /// No wake-up is lost: a sleeper that would sleep for a minute takes every event at once.
    #[test]
    fn an_event_ends_the_sleep() {
        let ring = std::sync::Arc::new(Ring::new(8));
        let reader = std::thread::spawn({
            let ring = std::sync::Arc::clone(&ring);
            move || {
                ring.adopt();
                let mut taken = 0;
                while taken < 1_000 {
                    ring.sleep(Duration::from_secs(60));
                    while ring.pop().is_some() {
                        taken += 1;
                    }
                }
            }
        });
        let mut sent = 0;
        while sent < 1_000 {
            match ring.try_push(verification(sent).into()) {
                Ok(()) => sent += 1,
                Err(_) => std::thread::yield_now(),
            }
        }
        reader.join().unwrap();
    }
}
