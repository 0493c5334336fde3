//! Days, months and time zones: the proleptic Gregorian calendar over days since 1970-01-01, and clocks over Unix seconds.

use std::cell::Cell;

use chrono::offset::{LocalResult, TimeZone};
use chrono::{DateTime, NaiveDateTime, Offset};
use chrono_tz::Tz;

use crate::error::Refusal;

/// Seconds of a day.
pub const DAY_S: i64 = 86_400;

/// Beyond this many Unix seconds (about 200,000 years) a clock is asked for its last known offset.
const ZONE_RANGE_S: i64 = 6_000_000_000_000;

/// From here on (1973-01-01) every zone changes its offset at a multiple of a quarter of an hour: Liberia, in January
/// 1972, was the last that did not.
const QUARTERS_FROM_S: i64 = 94_694_400;

/// A quarter of an hour.
const QUARTER_S: i64 = 900;

/// Year, month (1 to 12) and day of the month of a day. The algorithm is `civil_from_days` of Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that the leap day is the last of its year.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day of a year, a month (1 to 12) and a day of the month: `days_from_civil` of the same source.
pub fn day(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = (month + 9) % 12;
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// How many days a month (1 to 12) has.
pub fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// A day moved by months, clamped to the end of the month it falls into (AN-TIME-07). Moves of more than 100,000 years
/// stop there.
pub fn add_months(days: i64, months: i64) -> i64 {
    let (year, month, day_of_month) = civil(days);
    let total = (year * 12 + month - 1).saturating_add(months).clamp(-1_200_000, 1_200_000);
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) + 1);
    day(year, month, day_of_month.min(days_in_month(year, month)))
}

/// The first day of the month.
pub fn start_of_month(days: i64) -> i64 {
    days - civil(days).2 + 1
}

/// The first day of the quarter.
pub fn start_of_quarter(days: i64) -> i64 {
    let (year, month, _) = civil(days);
    day(year, (month - 1) / 3 * 3 + 1, 1)
}

/// The first day of the year.
pub fn start_of_year(days: i64) -> i64 {
    day(civil(days).0, 1, 1)
}

/// The Monday at or before the day.
pub fn monday(days: i64) -> i64 {
    days - (days + 3).rem_euclid(7)
}

/// The Sunday at or before the day.
pub fn sunday(days: i64) -> i64 {
    days - (days + 4).rem_euclid(7)
}

/// Days since Monday, 0 to 6.
pub fn weekday(days: i64) -> i64 {
    (days + 3).rem_euclid(7)
}

/// The day's number in its year, from 1.
pub fn day_of_year(days: i64) -> i64 {
    days - start_of_year(days) + 1
}

/// ISO 8601's year and week (1 to 53): a week belongs to the year that has its Thursday.
pub fn iso_week(days: i64) -> (i64, i64) {
    let thursday = monday(days) + 3;
    let year = civil(thursday).0;
    (year, (thursday - day(year, 1, 1)) / 7 + 1)
}

/// The whole second of a time in ticks, so many to the second. The divisors that occur are spelled out, so that none is a
/// division by a variable, which would cost more than all the rest.
pub fn second_of(value: i64, ticks: i64) -> i64 {
    match ticks {
        1 => value,
        1_000 => value.div_euclid(1_000),
        1_000_000 => value.div_euclid(1_000_000),
        1_000_000_000 => value.div_euclid(1_000_000_000),
        other => value.div_euclid(other),
    }
}

/// The zone of this name in the bundled time-zone database.
pub fn zone(name: &str) -> Result<Tz, Refusal> {
    name.parse().map_err(|_| Refusal::query(format!("there is no time zone '{name}'")))
}

/// A clock of one time zone. UTC costs nothing; any other zone remembers the last quarter of an hour it was asked about,
/// so that neighbouring rows share one look at the database. It is made per batch.
pub struct Clock {
    zone: Option<Tz>,
    quarter: Cell<i64>,
    offset: Cell<i64>,
}

impl Clock {
    /// The clock of a zone, UTC where there is none.
    pub fn new(zone: Option<Tz>) -> Clock {
        let zone = zone.filter(|zone| !matches!(zone, Tz::UTC | Tz::Etc__UTC | Tz::GMT | Tz::Etc__GMT));
        Clock { zone, quarter: Cell::new(i64::MIN), offset: Cell::new(0) }
    }

    /// Seconds that local time is ahead of UTC at this Unix second.
    pub fn offset(&self, unix_s: i64) -> i64 {
        let Some(zone) = self.zone else { return 0 };
        let quarter = unix_s.div_euclid(QUARTER_S);
        if quarter == self.quarter.get() {
            return self.offset.get();
        }
        let offset = i64::from(zone.offset_from_utc_datetime(&naive(unix_s)).fix().local_minus_utc());
        if unix_s >= QUARTERS_FROM_S {
            self.quarter.set(quarter);
            self.offset.set(offset);
        }
        offset
    }

    /// What the local clock shows at this Unix second, as seconds since 1970-01-01 on that clock.
    pub fn local(&self, unix_s: i64) -> i64 {
        unix_s.wrapping_add(self.offset(unix_s))
    }

    /// The Unix second at which the local clock shows this. Of two the earlier, as ClickHouse has it; for a time that the
    /// clock skips, the offset after the gap is taken.
    pub fn unix(&self, local_s: i64) -> i64 {
        let Some(zone) = self.zone else { return local_s };
        let offset = match zone.offset_from_local_datetime(&naive(local_s)) {
            LocalResult::Single(offset) | LocalResult::Ambiguous(offset, _) => {
                i64::from(offset.fix().local_minus_utc())
            }
            LocalResult::None => self.offset(local_s.wrapping_sub(self.offset(local_s.saturating_sub(DAY_S)))),
        };
        local_s.wrapping_sub(offset)
    }

    /// The local day of this Unix second.
    pub fn day(&self, unix_s: i64) -> i64 {
        self.local(unix_s).div_euclid(DAY_S)
    }

    /// Whether it is UTC's.
    pub fn is_utc(&self) -> bool {
        self.zone.is_none()
    }
}

fn naive(seconds: i64) -> NaiveDateTime {
    DateTime::from_timestamp(seconds.clamp(-ZONE_RANGE_S, ZONE_RANGE_S), 0).unwrap_or_default().naive_utc()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Days and their civil dates are one to one, and agree with chrono's calendar.
        #[test]
        fn a_day_has_one_date(days in -700_000i64..1_000_000) {
            let (year, month, day_of_month) = civil(days);
            prop_assert_eq!(day(year, month, day_of_month), days);
            let date = naive(days * DAY_S).date();
            prop_assert_eq!(date.to_string().trim_start_matches('+').to_owned(), format!("{year:04}-{month:02}-{day_of_month:02}"));
            prop_assert!(day_of_month <= days_in_month(year, month));
            let (week_year, week) = iso_week(days);
            prop_assert_eq!(date.format("%G %-V").to_string().trim_start_matches('+').to_owned(), format!("{week_year:04} {week}"));
        }

        /// What a clock shows leads back to the second it was asked about, or to the earlier of two.
        #[test]
        fn a_clock_can_be_read_backwards(seconds in -3_000_000_000i64..5_000_000_000, at in 0usize..4) {
            let clock = Clock::new([Tz::Europe__Berlin, Tz::America__New_York, Tz::Asia__Kolkata, Tz::UTC].get(at).copied());
            let back = clock.unix(clock.local(seconds));
            prop_assert!(back == seconds || (back < seconds && clock.local(back) == clock.local(seconds)));
        }
    }

    /// The two odd hours of Berlin's year, as ClickHouse 26 reads them.
    #[test]
    fn a_skipped_and_a_doubled_hour_are_read_as_clickhouse_does() {
        let clock = Clock::new(Some(Tz::Europe__Berlin));
        let local = |month, day_of_month| day(2026, month, day_of_month) * DAY_S + 9_000;
        assert_eq!(clock.unix(local(3, 29)), 1_774_744_200);
        assert_eq!(clock.unix(local(10, 25)), 1_792_888_200);
    }

    /// AN-TIME-07.
    #[test]
    fn months_clamp_to_their_end() {
        assert_eq!(add_months(day(2026, 3, 31), -1), day(2026, 2, 28));
        assert_eq!(add_months(day(2024, 2, 29), 12), day(2025, 2, 28));
        assert_eq!(add_months(day(2025, 12, 31), 3), day(2026, 3, 31));
        assert_eq!(civil(add_months(day(2026, 3, 31), i64::MAX)).0, 100_000);
    }
}
