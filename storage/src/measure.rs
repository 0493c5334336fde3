//! Numbers that one thread keeps and others read: how long something took, or how much of something came at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bounds of times, ns: from what a battery-backed write cache takes to what makes people ask.
pub(crate) const TIMES_NS: &[u64] = &[
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];
/// Bounds of sizes: powers of two up to a batch.
pub(crate) const SIZES: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256];

/// How often values fell between bounds.
pub(crate) struct Histogram {
    bounds: &'static [u64],
    /// One more than bounds: the last counts what is above them all.
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// A histogram as it was at a moment; values that came meanwhile may be in a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds, included, ascending.
    pub bounds: &'static [u64],
    /// How many values were at or below each bound and above the one before it; at the end those above all of them.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: u64,
}

impl Histogram {
    pub fn new(bounds: &'static [u64]) -> Histogram {
        Histogram { bounds, counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(), sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn note(&self, value: u64) {
        let place = self.bounds.partition_point(|bound| *bound < value);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub fn read(&self) -> Distribution {
        Distribution {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: self.sum.load(Ordering::Relaxed),
        }
    }
}

impl Distribution {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value is counted at the first bound that is not below it, and what is above all bounds is counted, too.
    #[test]
    fn a_value_falls_below_its_bound() {
        let sizes = Histogram::new(SIZES);
        for value in [0, 1, 2, 3, 4, 256, 257, u64::from(u32::MAX)] {
            sizes.note(value);
        }
        let read = sizes.read();
        assert_eq!(read.counts, [2, 1, 2, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!((read.count(), read.sum), (8, 523 + u64::from(u32::MAX)));
    }
}
