//! Starts the program on an empty directory, talks to it, kills it, starts it again, and judges its answers.

pub mod call;
pub mod client;
pub mod collector;
pub mod document;
pub mod lease;
pub mod nodes;
pub mod program;
pub mod proxy;
pub mod world;

pub use call::Call;
pub use client::{Ask, Connection, Reply};
pub use program::{Options, Output, Server, keyward, keyward_with};
pub use world::{ADMINISTRATOR, Key, Workspace};

use serde_json::Value;

/// A moment in 2026 that is a whole number of minutes, hours and ten-second windows: 2026-06-15 12:00:00 UTC.
pub const NOON: i64 = 1_781_524_800_000;

/// Milliseconds in a minute, an hour, a day.
pub const MINUTE: i64 = 60_000;
pub const HOUR: i64 = 60 * MINUTE;
pub const DAY: i64 = 24 * HOUR;

/// The system's clock, in Unix milliseconds.
pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Midnight UTC of a day of the Gregorian calendar, in Unix milliseconds (Howard Hinnant's days_from_civil).
pub fn utc(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era - 719_468) * DAY
}

/// The names of an object's members, sorted. Panics on anything but an object.
pub fn members(value: &Value) -> Vec<&str> {
    let mut names: Vec<&str> =
        value.as_object().unwrap_or_else(|| panic!("not an object: {value}")).keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// A seeded generator for tests (SplitMix64, Steele, Lea and Flood 2014): the same seed gives the same test.
pub struct Dice(u64);

impl Dice {
    /// Seeds it.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[test]
fn the_calendar_of_the_tests_is_right() {
    assert_eq!(utc(1970, 1, 1), 0);
    assert_eq!(utc(2000, 2, 29), 951_782_400_000);
    assert_eq!(utc(2026, 6, 15) + 12 * HOUR, NOON);
    assert_eq!(utc(2100, 1, 1), 4_102_444_800_000);
}
