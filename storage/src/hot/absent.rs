//! "No such key", answered from memory.
//!
//! A Bloom filter over the hashes of all keys: what it does not know does not exist, so random guesses cost no disk read.
//! It grows by levels, each twice the one before, so nothing is ever rebuilt while requests run (Almeida et al., "Scalable
//! Bloom Filters", 2007). Bits are only ever set: a purged key's hash costs a disk read until the next start, never a wrong
//! answer. Sixteen bits and six probes per key: one guess in about 2,000 reads the disk.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits per expected key.
const BITS_PER_KEY: usize = 16;
/// Probes per key.
const PROBES: u64 = 6;
/// Keys the smallest level expects.
const FIRST_LEVEL: usize = 1 << 14;
/// Levels there can be: the last expects 2^14 * 2^27 keys, more than memory.
const LEVELS: usize = 28;

struct Level {
    bits: Box<[AtomicU64]>,
    expects: usize,
    holds: AtomicU64,
}

impl Level {
    fn new(expects: usize) -> Level {
        let words = (expects * BITS_PER_KEY).next_power_of_two() / 64;
        Level { bits: (0..words).map(|_| AtomicU64::new(0)).collect(), expects, holds: AtomicU64::new(0) }
    }

    /// The probes of a hash by double hashing (Kirsch and Mitzenmacher, 2006).
    fn probes(&self, hash: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
        let mask = self.bits.len() as u64 * 64 - 1;
        let step = (hash >> 32) | 1;
        (0..PROBES).map(move |probe| {
            let bit = hash.wrapping_add(probe.wrapping_mul(step).wrapping_mul(0x9e37_79b9_7f4a_7c15)) & mask;
            ((bit / 64) as usize, 1 << (bit % 64))
        })
    }
}

/// A set of hashes that can say "surely not".
pub(crate) struct Absent {
    levels: [OnceLock<Level>; LEVELS],
    first: usize,
}

impl Absent {
    /// A filter that expects this many keys before it grows.
    pub fn new(expected: usize) -> Absent {
        let first = expected.max(FIRST_LEVEL).next_power_of_two();
        let absent = Absent { levels: std::array::from_fn(|_| OnceLock::new()), first };
        let _ = absent.levels[0].set(Level::new(first));
        absent
    }

    /// Whether nothing with this (well mixed, keyed) hash was ever inserted.
    pub fn knows_absent(&self, hash: u64) -> bool {
        self.levels
            .iter()
            .map_while(OnceLock::get)
            .all(|level| level.probes(hash).any(|(word, bit)| level.bits[word].load(Ordering::Acquire) & bit == 0))
    }

    /// Adds a hash.
    pub fn insert(&self, hash: u64) {
        for (number, slot) in self.levels.iter().enumerate() {
            let level = slot.get_or_init(|| Level::new(self.first << number));
            if level.holds.fetch_add(1, Ordering::AcqRel) < level.expects as u64 || number + 1 == LEVELS {
                for (word, bit) in level.probes(hash) {
                    level.bits[word].fetch_or(bit, Ordering::AcqRel);
                }
                return;
            }
        }
    }

    /// Adds a hash that may be there already: a key that changes must not use up the filter's room.
    pub fn insert_new(&self, hash: u64) {
        if self.knows_absent(hash) {
            self.insert(hash);
        }
    }

    /// Bytes it takes, for metrics.
    pub fn bytes(&self) -> usize {
        self.levels.iter().map_while(OnceLock::get).map(|level| level.bits.len() * 8).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix(value: u64) -> u64 {
        let mut z = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// What was inserted is never called absent, also after three levels of growth; guesses nearly always are.
    #[test]
    fn present_is_never_absent() {
        let absent = Absent::new(0);
        let present = 100_000;
        for key in 0..present {
            absent.insert(mix(key));
        }
        assert!((0..present).all(|key| !absent.knows_absent(mix(key))));
        let wrong = (present..2 * present).filter(|&key| !absent.knows_absent(mix(key))).count();
        assert!(wrong < 300, "{wrong} of {present} guesses would read the disk");
        assert!(absent.levels.iter().map_while(OnceLock::get).count() >= 3);
    }
}
