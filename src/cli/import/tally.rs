//! What became of everything that was to be imported.

use serde::Serialize;

use crate::cli::ask::note;
use crate::cli::text::printable;

/// Complaints that are told one by one; a file that is altogether wrong would tell as many as it has lines.
const TOLD_MAX: u64 = 100;

/// What became of the things of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// What there was to import.
    pub read: u64,
    /// What was made.
    pub made: u64,
    /// What was there before.
    pub already: u64,
    /// What was not taken over.
    pub refused: u64,
}

impl Tally {
    /// Counts a thing that was made, or was there.
    pub fn count(&mut self, made: bool) {
        *(if made { &mut self.made } else { &mut self.already }) += 1;
    }

    /// In words.
    pub fn text(&self, what: &str, dry_run: bool) -> String {
        let Tally { read, made, already, refused } = self;
        if dry_run {
            format!("{what}: {} would be imported, {refused} cannot be\n", read - refused)
        } else {
            format!("{what}: {made} imported, {already} there before, {refused} not taken over\n")
        }
    }
}

/// What is wrong with single things, told as it is found.
#[derive(Debug, Default)]
pub struct Complaints(u64);

impl Complaints {
    /// Tells one.
    pub fn add(&mut self, place: &str, why: &str) {
        self.0 += 1;
        if self.0 <= TOLD_MAX {
            note([format!("{place} {}", printable(why))]);
        }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0
    }

    /// Tells of those that were not told.
    pub fn finish(&self) {
        if self.0 > TOLD_MAX {
            note([format!("and {} more", self.0 - TOLD_MAX)]);
        }
    }
}
