//! `toIntervalNanosecond` to `toIntervalYear`: `INTERVAL n UNIT` as a function.
//!
//! ClickHouse: any number, cut to its whole part, or text that is a whole number. An interval is added to times and to
//! intervals of its unit; as a result column it is refused (AN-JSON-13).

use super::super::operators;
use super::super::typed::Typed;
use super::super::types::Unit;
use super::{Function, arguments};
use crate::error::Refusal;

macro_rules! interval_functions {
    ($($constant:ident $unit:ident $name:literal)*) => {
        $(pub(super) const $constant: Function =
            Function { name: $name, case_sensitive: true, call: |_, given| call($name, Unit::$unit, given) };)*
    };
}

interval_functions! {
    NANOSECOND Nanosecond "toIntervalNanosecond"
    MICROSECOND Microsecond "toIntervalMicrosecond"
    MILLISECOND Millisecond "toIntervalMillisecond"
    SECOND Second "toIntervalSecond"
    MINUTE Minute "toIntervalMinute"
    HOUR Hour "toIntervalHour"
    DAY Day "toIntervalDay"
    WEEK Week "toIntervalWeek"
    MONTH Month "toIntervalMonth"
    QUARTER Quarter "toIntervalQuarter"
    YEAR Year "toIntervalYear"
}

fn call(name: &str, unit: Unit, given: Vec<Typed>) -> Result<Typed, Refusal> {
    let [amount] = arguments::exactly(name, given)?;
    operators::interval(amount, unit)
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn numbers_and_text_become_intervals() {
        cases(
            r#"
            toIntervalDay(5) => IntervalDay "5"
            toIntervalDay('5') => IntervalDay "5"
            toIntervalDay(5.7) => IntervalDay "5"
            toIntervalDay('abc') => refused
            toIntervalDay(NULL) => Nullable(Nothing) NULL
            toIntervalDay(toDate('2020-01-01')) => IntervalDay "18262"
            toIntervalDay([1]) => refused
            toIntervalDay() => refused
            toIntervalDay(true) => IntervalDay "1"
            toIntervalDay(toIntervalDay(3)) => IntervalDay "3"
            toIntervalDay(toIntervalHour(3)) => refused
            "#,
        );
    }
    // TABLE END
}
