//! Hashes that occur twice in a file: seen before anything is sent.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use crate::api::migrations::Algorithm;

/// Rows whose hashes are remembered, about 50 bytes each. Behind them only what is sent together is compared, and the server.
const ROWS_MAX: usize = 4_000_000;

/// The hashes of a file so far.
pub struct Seen {
    /// By 128 bits of the hash: two that are not the same meet once in 10^24 files of this size.
    lines: HashMap<u128, u64>,
    /// Lines whose hash stands further up.
    again: HashSet<u64>,
    states: [RandomState; 2],
    rows_max: usize,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen::with_room(ROWS_MAX)
    }
}

impl Seen {
    fn with_room(rows_max: usize) -> Seen {
        Seen {
            lines: HashMap::new(),
            again: HashSet::new(),
            states: [RandomState::new(), RandomState::new()],
            rows_max,
        }
    }

    /// Notes the hash of a line; the line where it stands already, if it does.
    pub fn note(&mut self, line: u64, algorithm: Algorithm, hash: &str) -> Option<u64> {
        let what = (algorithm == Algorithm::PrefixedApiKey, hash);
        let [one, two] = self.states.each_ref().map(|state| u128::from(state.hash_one(what)));
        let key = one << 64 | two;
        if let Some(earlier) = self.lines.get(&key) {
            self.again.insert(line);
            return Some(*earlier);
        }
        if self.lines.len() < self.rows_max {
            self.lines.insert(key, line);
        }
        None
    }

    /// Whether the hash of this line stands further up.
    pub fn is_again(&self, line: u64) -> bool {
        self.again.contains(&line)
    }

    /// Whether there were more rows than are remembered.
    pub fn is_full(&self) -> bool {
        self.lines.len() == self.rows_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same hash of the same algorithm is seen again, however far below; without room it is not looked for.
    #[test]
    fn a_hash_is_seen_again() {
        let mut seen = Seen::with_room(3);
        let sha = Algorithm::Sha256;
        assert_eq!(seen.note(2, sha, "one"), None);
        assert_eq!(seen.note(3, Algorithm::PrefixedApiKey, "one"), None, "of another algorithm");
        assert_eq!(seen.note(4, sha, "two"), None);
        assert_eq!(seen.note(9, sha, "one"), Some(2));
        assert!(seen.is_again(9) && !seen.is_again(2) && seen.is_full());
        assert_eq!((seen.note(10, sha, "three"), seen.note(11, sha, "three")), (None, None), "there is no room");
    }
}
