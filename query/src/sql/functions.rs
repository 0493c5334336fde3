//! The functions of the allowlist (AN-FN-01), one file each: what it takes, what it gives, how ClickHouse behaves.

mod abs;
pub(super) mod arguments;
mod concat;
mod conditions;
mod date_trunc;
mod format_date_time;
mod has;
mod json_extract_string;
mod length;
mod letters;
mod now;
mod rounding;
mod starts_with;
mod substring;
mod to_interval;
mod to_number;
mod to_start_of;
mod to_string;
mod to_time;
mod trim;
mod unix_timestamp;

use super::typed::Typed;
use crate::error::Refusal;

/// What a function may know besides its arguments: nothing but the query's clock, which stands still (AN-TIME-01).
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// A scalar function.
pub struct Function {
    /// Its name as ClickHouse spells it.
    pub name: &'static str,
    /// Whether ClickHouse itself knows it in this case only: an unaliased call is then keyed in canonical case
    /// (AN-NAME-03).
    pub case_sensitive: bool,
    /// Checks the arguments' number and types and says how to compute the call.
    pub call: fn(&Context, Vec<Typed>) -> Result<Typed, Refusal>,
}

/// The function of this name, in any case.
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(name))
}

/// All but `arrayJoin` and `arrayFilter`, which are no functions of values: the first multiplies rows, the second takes a
/// lambda.
static FUNCTIONS: &[Function] = &[
    now::NOW,
    now::NOW64,
    now::TODAY,
    to_time::TO_DATE,
    to_time::TO_DATE_TIME,
    to_time::TO_DATE_TIME64,
    unix_timestamp::FROM,
    unix_timestamp::TO,
    format_date_time::FORMAT_DATE_TIME,
    to_start_of::MINUTE,
    to_start_of::HOUR,
    to_start_of::DAY,
    to_start_of::WEEK,
    to_start_of::MONTH,
    to_start_of::QUARTER,
    to_start_of::YEAR,
    date_trunc::DATE_TRUNC,
    to_interval::NANOSECOND,
    to_interval::MICROSECOND,
    to_interval::MILLISECOND,
    to_interval::SECOND,
    to_interval::MINUTE,
    to_interval::HOUR,
    to_interval::DAY,
    to_interval::WEEK,
    to_interval::MONTH,
    to_interval::QUARTER,
    to_interval::YEAR,
    letters::LOWER,
    letters::UPPER,
    substring::SUBSTRING,
    concat::CONCAT,
    length::LENGTH,
    trim::TRIM,
    starts_with::STARTS_WITH,
    starts_with::ENDS_WITH,
    json_extract_string::JSON_EXTRACT_STRING,
    rounding::ROUND,
    rounding::FLOOR,
    rounding::CEIL,
    abs::ABS,
    to_number::TO_INT32,
    to_number::TO_INT64,
    to_number::TO_FLOAT64,
    to_string::TO_STRING,
    conditions::IF,
    conditions::COALESCE,
    has::HAS,
    has::HAS_ANY,
    has::HAS_ALL,
];
