//! Text read as a value of another type: the whole text or nothing (AN-SEM-10, AN-TIME-03).

use super::calendar::{self, DAY_S};

/// A whole number: its lowest 64 bits, since ClickHouse wraps what is too long, and whether a minus stands before it.
pub fn integer(text: &str) -> Option<(u64, bool)> {
    let (negative, digits) = match text.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
    }
    Some((if negative { value.wrapping_neg() } else { value }, negative))
}

/// A floating-point number, `inf`, `infinity` or `nan` in any case.
pub fn float(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// `true`, `t`, `yes`, `y`, `on`, `1` and their opposites, in any case.
pub fn boolean(text: &str) -> Option<bool> {
    let is = |words: [&str; 6]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "t", "yes", "y", "on", "1"]) {
        Some(true)
    } else if is(["false", "f", "no", "n", "off", "0"]) {
        Some(false)
    } else {
        None
    }
}

/// A decimal number as a count of 10^-scale; digits beyond are cut off. `None` also where it does not fit.
pub fn decimal(text: &str, scale: u32) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0i128;
    let padding = std::iter::repeat(b'0');
    let kept = fraction.bytes().chain(padding).take(scale as usize);
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    for digit in whole.bytes().chain(kept) {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    Some(if negative { -value } else { value })
}

/// `YYYY-MM-DD` (month and day may have one digit, any single character may stand between) or `YYYYMMDD`: the day, clamped
/// to what ClickHouse's Date holds. A day that no calendar has is none, where ClickHouse makes up another.
pub fn date(text: &str) -> Option<i64> {
    let mut rest = Cursor(text.as_bytes());
    let day = rest.date()?;
    rest.0.is_empty().then_some(clamp_day(day))
}

/// As [`date`], and a time of day may follow and is cut off.
pub fn date_of_any(text: &str) -> Option<i64> {
    date(text).or_else(|| {
        let instant = instant(text)?;
        (instant.zone == Zone::Local && text.as_bytes().get(10).is_none_or(|&byte| byte == b' '))
            .then(|| clamp_day(instant.seconds.div_euclid(DAY_S)))
    })
}

fn clamp_day(day: i64) -> i64 {
    day.clamp(0, i64::from(u16::MAX))
}

/// Which clock a text speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// The one that the text is read in.
    Local,
    /// UTC less the offset that was written, already taken into account.
    Utc,
    /// Unix seconds were written.
    Unix,
}

/// A point in time as text says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant {
    /// Since 1970-01-01 on the clock of `zone`.
    pub seconds: i64,
    /// Below the second.
    pub nanos: i64,
    /// Which clock.
    pub zone: Zone,
}

/// A date with or without a time: `YYYY-MM-DD[ hh[:mm[:ss[.f]]]]` (a `T` may stand for the blank; `Z` or `±hh:mm` may
/// follow), `YYYYMMDD`, `YYYYMMDDhhmmss`, or ten digits of Unix seconds with or without a fraction. Hours, minutes and
/// seconds beyond their range carry over, as in ClickHouse.
pub fn instant(text: &str) -> Option<Instant> {
    let mut rest = Cursor(text.as_bytes());
    let digits = rest.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 10 {
        let seconds = rest.number(10, 10)?;
        let nanos = rest.fraction()?;
        return rest.0.is_empty().then_some(Instant { seconds, nanos, zone: Zone::Unix });
    }
    let day = rest.date()?;
    let mut instant = Instant { seconds: day * DAY_S, nanos: 0, zone: Zone::Local };
    if digits == 14 {
        instant.seconds += rest.number(2, 2)? * 3_600 + rest.number(2, 2)? * 60 + rest.number(2, 2)?;
        return rest.0.is_empty().then_some(instant);
    }
    if rest.0.is_empty() {
        return Some(instant);
    }
    if !(rest.take(b' ') || rest.take(b'T') || rest.take(b't')) {
        return None;
    }
    instant.seconds += rest.number(1, 2)? * 3_600;
    if rest.take(b':') {
        instant.seconds += rest.number(1, 2)? * 60;
        if rest.take(b':') {
            instant.seconds += rest.number(1, 2)?;
            instant.nanos = rest.fraction()?;
        }
    }
    rest.take(b' ');
    if rest.take(b'Z') || rest.take(b'z') {
        instant.zone = Zone::Utc;
    } else if let Some(sign) = [(b'+', 1), (b'-', -1)].into_iter().find_map(|(c, sign)| rest.take(c).then_some(sign)) {
        let hours = rest.number(2, 2)?;
        rest.take(b':');
        let minutes = if rest.0.is_empty() { 0 } else { rest.number(2, 2)? };
        instant.seconds -= sign * (hours * 3_600 + minutes * 60);
        instant.zone = Zone::Utc;
    }
    rest.0.is_empty().then_some(instant)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let length = self.0.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if length < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(digits.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    }

    fn date(&mut self) -> Option<i64> {
        let year = self.number(4, 4)?;
        let parted = !self.0.first()?.is_ascii_digit();
        let least = if parted { 1 } else { 2 };
        self.0 = &self.0[usize::from(parted)..];
        let month = self.number(least, 2)?;
        if parted {
            if self.0.first()?.is_ascii_digit() {
                return None;
            }
            self.0 = &self.0[1..];
        }
        let day = self.number(least, 2)?;
        let real = (1..=12).contains(&month) && (1..=calendar::days_in_month(year, month)).contains(&day);
        real.then(|| calendar::day(year, month, day))
    }

    /// Nanoseconds of `.ddd`, or zero where no point follows; digits beyond the ninth are cut off.
    fn fraction(&mut self) -> Option<i64> {
        if !self.take(b'.') {
            return Some(0);
        }
        let length = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 {
            return None;
        }
        let (digits, rest) = self.0.split_at(length);
        self.0 = rest;
        let padding = std::iter::repeat(&b'0');
        Some(digits.iter().chain(padding).take(9).fold(0, |value, digit| value * 10 + i64::from(digit - b'0')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_wrap_and_nothing_may_follow() {
        assert_eq!(integer("12"), Some((12, false)));
        assert_eq!(integer("+12"), Some((12, false)));
        assert_eq!(integer("-12"), Some((12u64.wrapping_neg(), true)));
        assert_eq!(integer("9999999999999999999999"), Some((1_864_712_049_423_024_127, false)));
        for text in ["", "-", "--1", " 12", "12 ", "1.5", "1e3", "0x10", "abc"] {
            assert_eq!(integer(text), None, "{text}");
        }
    }

    #[test]
    fn floats_are_read_whole() {
        for (text, value) in
            [("1.5", 1.5), ("1e3", 1e3), ("1.", 1.0), (".5", 0.5), ("+1", 1.0), ("1e400", f64::INFINITY)]
        {
            assert_eq!(float(text), Some(value), "{text}");
        }
        for text in ["inf", "Infinity", "+inf", "-INF"] {
            assert!(float(text).is_some_and(f64::is_infinite), "{text}");
        }
        assert!(float("NaN").is_some_and(f64::is_nan));
        for text in ["", ".", "1e", "-", " 1", "1.5a", "0x10"] {
            assert_eq!(float(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_read_in_every_form() {
        let midnight = 1_773_792_000;
        for (text, seconds) in [
            ("2026-03-18", midnight),
            ("2026-3-18", midnight),
            ("20260318", midnight),
            ("20260318100000", midnight + 36_000),
            ("2026-03-18 10", midnight + 36_000),
            ("2026-03-18 10:00", midnight + 36_000),
            ("2026-03-18 1:2:3", midnight + 3_723),
            ("2026-03-18 25:00:00", midnight + 90_000),
            ("2026-03-18T10:00:00Z", midnight + 36_000),
            ("2026-03-18T10:00:00+01:00", midnight + 32_400),
            ("2026-03-18T10:00:00.000Z", midnight + 36_000),
            ("1773792000", midnight),
        ] {
            assert_eq!(instant(text).map(|instant| instant.seconds), Some(seconds), "{text}");
        }
        assert_eq!(instant("2026-03-18 10:00:00.5").map(|instant| instant.nanos), Some(500_000_000));
        for text in [
            "",
            "abc",
            "0",
            "12345",
            "2026-02-30",
            "2026-13-01",
            "2026-03",
            "2026-03-18 abc",
            "2026-03-18 10:00:00 abc",
            "26-03-18",
        ] {
            assert_eq!(instant(text), None, "{text}");
        }
        assert_eq!(date("1900-01-01"), Some(0));
        assert_eq!(date("2150-01-01"), Some(65_535));
        assert_eq!(date("2026-03-18 10:00:00"), None);
        assert_eq!(date_of_any("2026-03-18 10:00:00"), Some(20_530));
        assert_eq!(date_of_any("2026-03-18T10:00:00Z"), None);
    }

    #[test]
    fn decimals_are_cut_to_their_scale() {
        assert_eq!(decimal("1.456", 2), Some(145));
        assert_eq!(decimal("-1.4", 2), Some(-140));
        assert_eq!(decimal("5", 0), Some(5));
        assert_eq!(decimal(".", 2), None);
        assert_eq!(decimal("1.x", 0), None);
    }
}
