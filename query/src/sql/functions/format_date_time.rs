//! `formatDateTime(t, format[, tz])` (AN-TIME-08).
//!
//! ClickHouse's constant format, after MySQL's: `%Y` year, `%y` its last two digits, `%C` its century, `%G` and `%g` the ISO
//! year, `%V` the ISO week, `%Q` quarter, `%m` and `%c` month, `%M` and `%b` its name and short name, `%d` and `%e` day
//! (`%e` in as few digits as it has), `%j` day of the year, `%W` and `%a` the weekday's name and short name, `%w` and `%u` its
//! number from Sunday 0 and from Monday 1, `%H` and `%k` hour, `%I` `%h` `%l` hour of twelve, `%p` AM or PM, `%i` minute,
//! `%S` and `%s` second, `%f` six digits of its fraction, `%F` date, `%D` `mm/dd/yy`, `%T` time, `%R` `hh:mm`, `%r`
//! `hh:mm AM`, `%z` offset, `%n` `%t` `%%` themselves. Any other is refused, and so is a lone `%` at the end. A Date is its
//! midnight in any zone.

use std::sync::Arc;

use datafusion::arrow::array::types::{Date32Type, Int64Type};
use datafusion::arrow::array::{Array, AsArray, StringViewBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;

use super::super::kernel;
use super::super::operators::calendar::{self, Clock, DAY_S};
use super::super::operators::{self, render};
use super::super::typed::Typed;
use super::super::types::{Type, ticks_per_second};
use super::{Context, Function, arguments};
use crate::error::Refusal;

pub(super) const FORMAT_DATE_TIME: Function = Function { name: "formatDateTime", case_sensitive: true, call };

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

fn call(_: &Context, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between("formatDateTime", &given, 2, 3)?;
    if arguments::any_null(&given) {
        return Ok(operators::null());
    }
    let format = arguments::text("formatDateTime", "format", &given[1])?;
    let parts = parse(format)?;
    let zone = arguments::zone("formatDateTime", given.get(2))?;
    let x = given[0].clone();
    let (ticks, zone) = match x.ty.inner() {
        Type::Date => (0, None),
        Type::DateTime(own) => (1, zone.or(*own)),
        Type::DateTime64(precision, own) => (ticks_per_second(*precision), zone.or(*own)),
        _ => return Err(arguments::illegal("formatDateTime", "a Date, DateTime or DateTime64", &x)),
    };
    let parameters = format!("{format:?} {} {ticks}", zone.map_or("UTC", chrono_tz::Tz::name));
    let ty = Type::String.nullable_as(&x.ty);
    kernel::map("formatDateTime", parameters, vec![x], ty, move |columns| {
        let column = &columns[0];
        let clock = Clock::new(zone);
        let ticks_of_rows = if ticks == 0 { Arc::clone(column) } else { cast(column, &DataType::Int64)? };
        let mut built = StringViewBuilder::with_capacity(column.len());
        let mut text = String::new();
        // Rows of one instant, as grouped or sorted ones are, are written once.
        let mut last = None;
        for row in 0..column.len() {
            if column.is_null(row) {
                built.append_null();
                continue;
            }
            let (second, below_us) = if ticks == 0 {
                (i64::from(ticks_of_rows.as_primitive::<Date32Type>().value(row)) * DAY_S, 0)
            } else {
                let value = ticks_of_rows.as_primitive::<Int64Type>().value(row);
                (calendar::second_of(value, ticks), micros(value.rem_euclid(ticks), ticks))
            };
            if last != Some((second, below_us)) {
                last = Some((second, below_us));
                text.clear();
                let offset = clock.offset(second);
                write(&parts, second + offset, offset, below_us, &mut text);
            }
            built.append_value(&text);
        }
        Ok(Arc::new(built.finish()))
    })
}

fn micros(below: i64, ticks: i64) -> i64 {
    if ticks > 1_000_000 { below / (ticks / 1_000_000) } else { below * (1_000_000 / ticks) }
}

/// A piece of a format.
#[derive(Debug)]
enum Part {
    Text(String),
    Field(char),
}

fn parse(format: &str) -> Result<Vec<Part>, Refusal> {
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = format.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        match rest.next() {
            Some('%') => text.push('%'),
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some(field) if "YyCGgVQmcMbdejWawuHkIhlpiSsfFDTRrz".contains(field) => {
                if !text.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                parts.push(Part::Field(field));
            }
            Some(other) => return Err(Refusal::query(format!("function formatDateTime knows no %{other}"))),
            None => return Err(Refusal::query("a format of formatDateTime cannot end with a lone %")),
        }
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(parts)
}

/// Writes a second of the local clock.
fn write(parts: &[Part], local: i64, offset: i64, below_us: i64, text: &mut String) {
    let (days, time) = (local.div_euclid(DAY_S), local.rem_euclid(DAY_S));
    let (year, month, day) = calendar::civil(days);
    let (hour, minute, second) = (time / 3_600, time / 60 % 60, time % 60);
    let twelve = (hour + 11) % 12 + 1;
    let weekday = calendar::weekday(days);
    let name =
        |names: &[&'static str], at: i64| usize::try_from(at).ok().and_then(|at| names.get(at).copied()).unwrap_or("");
    let two = |value: i64, text: &mut String| render::digits(value, 2, text);
    let noon = if hour < 12 { "AM" } else { "PM" };
    for part in parts {
        match part {
            Part::Text(piece) => text.push_str(piece),
            Part::Field(field) => match field {
                'Y' => render::digits(year, 4, text),
                'y' => two(year.rem_euclid(100), text),
                'C' => two(year.div_euclid(100), text),
                'G' => render::digits(calendar::iso_week(days).0, 4, text),
                'g' => two(calendar::iso_week(days).0.rem_euclid(100), text),
                'V' => two(calendar::iso_week(days).1, text),
                'Q' => render::digits((month - 1) / 3 + 1, 1, text),
                'm' | 'c' => two(month, text),
                'M' => text.push_str(name(&MONTHS, month - 1)),
                'b' => text.push_str(&name(&MONTHS, month - 1)[..3]),
                'd' => two(day, text),
                'e' => render::digits(day, 1, text),
                'j' => render::digits(calendar::day_of_year(days), 3, text),
                'W' => text.push_str(name(&WEEKDAYS, weekday)),
                'a' => text.push_str(&name(&WEEKDAYS, weekday)[..3]),
                'w' => render::digits((weekday + 1) % 7, 1, text),
                'u' => render::digits(weekday + 1, 1, text),
                'H' | 'k' => two(hour, text),
                'I' | 'h' | 'l' => two(twelve, text),
                'p' => text.push_str(noon),
                'i' => two(minute, text),
                'S' | 's' => two(second, text),
                'f' => render::digits(below_us, 6, text),
                'F' => render::date(days, text),
                'D' => {
                    two(month, text);
                    text.push('/');
                    two(day, text);
                    text.push('/');
                    two(year.rem_euclid(100), text);
                }
                'T' => {
                    two(hour, text);
                    text.push(':');
                    two(minute, text);
                    text.push(':');
                    two(second, text);
                }
                'R' | 'r' => {
                    two(if *field == 'R' { hour } else { twelve }, text);
                    text.push(':');
                    two(minute, text);
                    if *field == 'r' {
                        text.push(' ');
                        text.push_str(noon);
                    }
                }
                _ => {
                    text.push(if offset < 0 { '-' } else { '+' });
                    two(offset.abs() / 3_600, text);
                    two(offset.abs() / 60 % 60, text);
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn every_specifier() {
        cases(
            r#"
            formatDateTime(toDateTime('2026-03-18 04:05:06'), '%Y %y %m %d %j %H %I %i %S %p %M %b %W %a %w %u %V %G %Q %F %T %D %R %%') => String "2026 26 03 18 077 04 04 05 06 AM March Mar Wednesday Wed 3 3 12 2026 1 2026-03-18 04:05:06 03/18/26 04:05 %"
            formatDateTime(toDateTime('2026-01-01 14:05:06'), '%Y %y %m %d %j %H %I %i %S %p %M %b %W %a %w %u %V %G %Q %F %T %D %R %%') => String "2026 26 01 01 001 14 02 05 06 PM January Jan Thursday Thu 4 4 01 2026 1 2026-01-01 14:05:06 01/01/26 14:05 %"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%I %p %h %l %k %e %C %f %g %n %t %z %s %r %c') => String "12 AM 12 12 00 1 20 000000 26 \n \t +0000 06 12:05 AM 01"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%e') => String "1"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%C') => String "20"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%f') => String "000000"
            formatDateTime(toDateTime64('2026-01-01 00:05:06.123',3), '%f') => String "123000"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%h') => String "12"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%g') => String "26"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%k|%l') => String "00|12"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%n%t') => String "\n\t"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%z') => String "+0000"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%s') => String "06"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%r') => String "12:05 AM"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%c') => String "01"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%x') => refused
            formatDateTime(toDateTime('2026-01-01 00:05:06'), 'abc%') => refused
            formatDateTime(toDateTime('2026-01-01 00:05:06'), 'äb %Y') => String "äb 2026"
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '') => String ""
            formatDateTime(toDateTime('2026-01-01 00:05:06'), '%Y-%m-%d %H', 'America/New_York') => String "2025-12-31 19"
            formatDateTime(toDateTime('2026-01-01 00:05:06','Europe/Berlin'), '%H %z') => String "00 +0100"
            formatDateTime(toDate('2026-01-01'), '%Y-%m-%d %H:%i') => String "2026-01-01 00:00"
            formatDateTime(toDate('2026-01-01'), '%Y-%m-%d %H:%i','America/New_York') => String "2026-01-01 00:00"
            formatDateTime(toDateTime64('2026-01-01 00:05:06.123',3), '%F %T') => String "2026-01-01 00:05:06"
            formatDateTime(5, '%F') => refused
            formatDateTime('2026-01-01', '%F') => refused
            formatDateTime(toDate('2026-01-01')) => refused
            formatDateTime(toDate('2026-01-01'), 5) => refused
            formatDateTime(toDate('2026-01-01'), '%F', 'Foo') => refused
            formatDateTime(NULL, '%F') => Nullable(Nothing) NULL
            formatDateTime(toDate('2026-01-04'), '%w %u %V %G %a %W') => String "0 7 01 2026 Sun Sunday"
            formatDateTime(toDate('2024-12-30'), '%w %u %V %G %g %j %U') => refused
            formatDateTime(toDate('2024-12-30'), '%U') => refused
            formatDateTime(toDate('2024-12-30'), '%v') => refused
            formatDateTime(toDate('2024-12-30'), '%E') => refused
            formatDateTime(toDate('2024-12-30'), '%O') => refused
            "#,
        );
    }
    // TABLE END
}
