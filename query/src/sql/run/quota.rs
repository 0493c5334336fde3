//! How many queries a workspace may ask in an hour, and how long they may run in all (AN-RES-02).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::Refusal;

/// Length of a window, which begins at a multiple of it, ms.
const WINDOW_MS: i64 = 3_600_000;
/// Entries that are kept without a look at what they are good for.
const KEPT: usize = 4_096;

/// What a workspace may use in a window.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// Queries that pass the gate, whether or not they then fail (AN-RES-03).
    pub queries: u32,
    /// Seconds of execution.
    pub seconds: u32,
}

/// What every workspace has used in the current window.
#[derive(Default)]
pub struct Quotas(Mutex<State>);

#[derive(Default)]
struct State {
    /// By workspace and number of the window. With the server's own clock a workspace has at most two; only tests, which
    /// move the clock from request to request, have more.
    used: HashMap<(u32, i64), Used>,
    /// The number of entries at which the past is forgotten.
    swept_at: usize,
    newest: i64,
}

#[derive(Default, Clone, Copy)]
struct Used {
    queries: u32,
    time: Duration,
}

impl Quotas {
    /// Counts a query that begins at `now_ms`.
    ///
    /// # Errors
    /// [`Refusal::Quota`] where the window has none left; then it is not counted.
    pub fn begin(&self, workspace: u32, allowed: Allowed, now_ms: i64) -> Result<(), Refusal> {
        let window = now_ms.div_euclid(WINDOW_MS);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = state.entry(workspace, window);
        let what = if used.queries >= allowed.queries {
            format!("{} of {} queries", used.queries, allowed.queries)
        } else if used.time >= Duration::from_secs(allowed.seconds.into()) {
            format!("{} of {} seconds of execution", used.time.as_secs(), allowed.seconds)
        } else {
            used.queries += 1;
            return Ok(());
        };
        let end_ms = (window + 1) * WINDOW_MS;
        let left_s = u32::try_from((end_ms - now_ms + 999) / 1000).unwrap_or(u32::MAX);
        Err(Refusal::Quota {
            text: format!(
                "The query quota of the current window is used up: {what}. The next window begins at {}.",
                clock(end_ms)
            ),
            retry_after_s: left_s,
        })
    }

    /// Adds the time that a query took, to the window that it began in.
    pub fn add(&self, workspace: u32, began_ms: i64, took: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let used = state.entry(workspace, began_ms.div_euclid(WINDOW_MS));
        used.time = used.time.saturating_add(took);
    }
}

impl State {
    fn entry(&mut self, workspace: u32, window: i64) -> &mut Used {
        self.newest = self.newest.max(window);
        if self.used.len() >= self.swept_at.max(KEPT) && !self.used.contains_key(&(workspace, window)) {
            let newest = self.newest;
            self.used.retain(|&(_, window), _| window >= newest - 1);
            self.swept_at = 2 * self.used.len();
        }
        self.used.entry((workspace, window)).or_default()
    }
}

/// A moment as people read it.
fn clock(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms)
        .map_or_else(|| format!("{ms} ms"), |at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Allowed = Allowed { queries: 2, seconds: 10 };
    /// 14:23:45 on 18 March 2026.
    const NOW: i64 = 1_773_843_825_000;

    fn refused(quotas: &Quotas, workspace: u32, now_ms: i64) -> (String, u32) {
        match quotas.begin(workspace, ALLOWED, now_ms) {
            Err(Refusal::Quota { text, retry_after_s }) => (text, retry_after_s),
            other => panic!("{other:?}"),
        }
    }

    /// AN-RES-02: windows are hours of the clock; the refusal says which quota, and when the window ends.
    #[test]
    fn a_window_is_an_hour_of_the_clock() {
        let quotas = Quotas::default();
        quotas.begin(1, ALLOWED, NOW).expect("the first");
        quotas.begin(1, ALLOWED, NOW + 1).expect("the second");
        let (text, left_s) = refused(&quotas, 1, NOW);
        assert!(text.contains("The query quota of the current window is used up: 2 of 2 queries"), "{text}");
        assert!(text.contains("2026-03-18 15:00:00 UTC"), "{text}");
        assert_eq!(left_s, 36 * 60 + 15);
        let last = NOW - NOW.rem_euclid(WINDOW_MS) + WINDOW_MS - 1;
        assert_eq!(refused(&quotas, 1, last).1, 1, "rounded up: nobody is told to come back too early");
        quotas.begin(1, ALLOWED, last + 1).expect("the next window");
        quotas.begin(2, ALLOWED, NOW).expect("another workspace");
    }

    /// AN-RES-02: seconds of execution count in the window that the query began in.
    #[test]
    fn time_counts_too() {
        let quotas = Quotas::default();
        quotas.begin(1, ALLOWED, NOW).expect("the first");
        quotas.add(1, NOW, Duration::from_millis(9_999));
        quotas.begin(1, Allowed { queries: 9, ..ALLOWED }, NOW).expect("a millisecond is left");
        quotas.add(1, NOW, Duration::from_millis(1));
        let allowed = Allowed { queries: 9, ..ALLOWED };
        let Err(Refusal::Quota { text, .. }) = quotas.begin(1, allowed, NOW) else { panic!("it is used up") };
        assert!(text.contains("10 of 10 seconds of execution"), "{text}");
    }

    /// Entries of windows that are over do not pile up, however many workspaces there were.
    #[test]
    fn the_past_is_forgotten() {
        let quotas = Quotas::default();
        for hour in 0..10 {
            for workspace in 0..5_000 {
                quotas.begin(workspace, ALLOWED, NOW + hour * WINDOW_MS).expect("the first of its window");
            }
        }
        let state = quotas.0.into_inner().expect("nobody panicked");
        assert!(state.used.len() <= 20_000, "{}", state.used.len());
        assert!((0..5_000).all(|workspace| state.used.contains_key(&(workspace, state.newest))));
    }
}
