//! Copies that cannot be opened: told to the operator once for each key, and never more often than a log can bear.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use keyward_storage::ids::{KeyId, WorkspaceId};

use super::Unopened;

/// Keys that are remembered as told.
const TOLD_MAX: usize = 4096;
/// Lines within [`SPAN`].
const LINES_MAX: u32 = 20;
/// What lines are counted over.
const SPAN: Duration = Duration::from_secs(60);

/// How long a failure is trouble.
const LATELY: Duration = Duration::from_secs(3600);

/// What was told, and how often there was something to tell.
#[derive(Debug)]
pub struct Complaints {
    count: AtomicU64,
    began: Instant,
    /// Seconds after `began` of the last failure that is no lack of a master key, plus one; 0 where there was none.
    last: AtomicU64,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    keys: HashSet<KeyId>,
    /// When the present span began, and the lines in it.
    span: Option<(Instant, u32)>,
}

impl Default for Complaints {
    fn default() -> Complaints {
        Complaints { count: AtomicU64::new(0), began: Instant::now(), last: AtomicU64::new(0), told: Mutex::default() }
    }
}

impl Complaints {
    /// Counts that a copy could not be opened, and logs it unless that was logged before or the log has enough lines: it is
    /// then logged another time. With all places taken it is counted only.
    pub fn tell(&self, workspace: WorkspaceId, key: KeyId, why: Unopened) {
        self.count.fetch_add(1, Ordering::Relaxed);
        // A copy whose master key is not configured is whole, and is told of as such.
        if !matches!(why, Unopened::MasterKeyMissing(_)) {
            self.last.store(self.began.elapsed().as_secs() + 1, Ordering::Relaxed);
        }
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).is_due(key, Instant::now()) {
            tracing::error!(
                %workspace,
                %key,
                why = %why,
                "the encrypted copy of a recoverable key cannot be opened, and it was answered without its plaintext; \
                 `keyward vault status` tells of all"
            );
        }
    }

    /// Whether a copy was found within the last hour that cannot be opened although its master key is configured.
    pub fn came_lately(&self) -> bool {
        match self.last.load(Ordering::Relaxed) {
            0 => false,
            last => self.began.elapsed() < Duration::from_secs(last - 1) + LATELY,
        }
    }

    /// How often a copy could not be opened.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Told {
    fn is_due(&mut self, key: KeyId, now: Instant) -> bool {
        if self.keys.contains(&key) || self.keys.len() == TOLD_MAX {
            return false;
        }
        let span = self.span.get_or_insert((now, 0));
        if now.duration_since(span.0) >= SPAN {
            *span = (now, 0);
        }
        if span.1 == LINES_MAX {
            return false;
        }
        span.1 += 1;
        self.keys.insert(key)
    }
}

#[cfg(test)]
mod tests {
    use keyward_storage::ids::IdText;

    use super::*;

    /// KEYS-GET-3: once for each key, a bounded number of lines in a minute, and what was held back comes later.
    #[test]
    fn each_key_is_told_once_and_few_in_a_minute() {
        let begun = Instant::now();
        let mut told = Told::default();
        let key = |n: usize| {
            let digits = format!("{n:016}");
            KeyId(IdText::from_bytes(digits.as_bytes().try_into().unwrap()).unwrap())
        };
        let due =
            |told: &mut Told, minute: u32| (0..100).filter(|n| told.is_due(key(*n), begun + SPAN * minute)).count();
        for minute in 0..5 {
            assert_eq!(due(&mut told, minute), 20);
            assert_eq!(due(&mut told, minute), 0);
        }
        assert_eq!(due(&mut told, 6), 0, "all were told");
        let more =
            (100..2 * TOLD_MAX).filter(|n| told.is_due(key(*n), begun + SPAN * u32::try_from(*n).unwrap())).count();
        assert_eq!(100 + more, TOLD_MAX, "the memory of it is bounded");
    }
}
