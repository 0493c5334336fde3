//! Clock and randomness: the only file that asks the system for either.
//!
//! Logic is handed an [`Outside`] and never asks the system itself; that is what lets a test decide what time it is and
//! which ids are drawn.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Both sources, as they are handed around. Cloning is cheap and clones share their source.
#[derive(Debug, Clone)]
pub struct Outside {
    /// The time.
    pub clock: Clock,
    /// Random bytes.
    pub entropy: Entropy,
}

impl Outside {
    /// The system's own clock and randomness.
    pub fn system() -> Outside {
        Outside { clock: Clock::system(), entropy: Entropy::system() }
    }

    /// A clock that stands still at `now_ms` and randomness that `seed` decides, for tests.
    pub fn fixed(now_ms: u64, seed: u64) -> Outside {
        Outside { clock: Clock::fixed(now_ms), entropy: Entropy::seeded(seed) }
    }
}

/// The server's clock.
#[derive(Debug, Clone)]
pub struct Clock(ClockSource);

#[derive(Debug, Clone)]
enum ClockSource {
    System,
    Fixed(Arc<AtomicU64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Clock {
        Clock(ClockSource::System)
    }

    /// A clock that stands still until [`Clock::set_ms`] moves it.
    pub fn fixed(now_ms: u64) -> Clock {
        Clock(ClockSource::Fixed(Arc::new(AtomicU64::new(now_ms))))
    }

    /// Unix milliseconds. A system clock set before 1970 reads as 0.
    #[expect(clippy::disallowed_methods, reason = "this is the source")]
    pub fn now_ms(&self) -> u64 {
        match &self.0 {
            ClockSource::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            ClockSource::Fixed(now) => now.load(Ordering::Acquire),
        }
    }

    /// Moves a fixed clock, for all its clones; the system's clock takes no orders and stays as it is.
    pub fn set_ms(&self, now_ms: u64) {
        if let ClockSource::Fixed(now) = &self.0 {
            now.store(now_ms, Ordering::Release);
        }
    }
}

/// A source of random bytes, good enough for secrets.
#[derive(Debug, Clone)]
pub struct Entropy(EntropySource);

#[derive(Debug, Clone)]
enum EntropySource {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Entropy {
    /// A ChaCha generator per thread, seeded by the operating system and reseeded as it goes (`rand::rngs::ThreadRng`).
    pub fn system() -> Entropy {
        Entropy(EntropySource::System)
    }

    /// The same bytes for the same seed, for tests.
    pub fn seeded(seed: u64) -> Entropy {
        Entropy(EntropySource::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// Fills `bytes` with random bytes.
    #[expect(clippy::disallowed_methods, reason = "this is the source")]
    pub fn fill(&self, bytes: &mut [u8]) {
        match &self.0 {
            EntropySource::System => rand::rng().fill_bytes(bytes),
            EntropySource::Seeded(generator) => {
                generator.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(bytes);
            }
        }
    }

    /// A random number, every one equally likely.
    pub fn next_u64(&self) -> u64 {
        let mut bytes = [0u8; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that hands out a fixed outside sees the same time and the same bytes every time.
    #[test]
    fn a_fixed_outside_repeats_itself() {
        let (one, two) = (Outside::fixed(1_700_000_000_000, 1), Outside::fixed(1_700_000_000_000, 1));
        assert_eq!(one.clock.now_ms(), 1_700_000_000_000);
        assert_eq!(one.entropy.next_u64(), two.entropy.next_u64());
        let clone = one.clone();
        clone.clock.set_ms(5);
        assert_eq!(one.clock.now_ms(), 5, "clones share their clock");
    }

    /// The system's sources work at all: time has passed 2020 and bytes differ from draw to draw.
    #[test]
    fn the_system_has_a_clock_and_randomness() {
        let outside = Outside::system();
        assert!(outside.clock.now_ms() > 1_577_836_800_000);
        assert_ne!(outside.entropy.next_u64(), outside.entropy.next_u64());
    }
}
