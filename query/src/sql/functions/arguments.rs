//! Checks of a call's arguments, with messages that name the function.

use chrono_tz::Tz;

use super::super::operators::calendar;
use super::super::typed::Typed;
use super::super::types::Type;
use crate::error::Refusal;

/// Exactly `N` arguments.
pub fn exactly<const N: usize>(function: &str, arguments: Vec<Typed>) -> Result<[Typed; N], Refusal> {
    let count = arguments.len();
    <[Typed; N]>::try_from(arguments).map_err(|_| wrong_count(function, &N.to_string(), count))
}

/// At least `least` and at most `most` arguments.
pub fn between(function: &str, arguments: &[Typed], least: usize, most: usize) -> Result<(), Refusal> {
    if (least..=most).contains(&arguments.len()) {
        return Ok(());
    }
    Err(wrong_count(function, &format!("{least} to {most}"), arguments.len()))
}

fn wrong_count(function: &str, wanted: &str, count: usize) -> Refusal {
    let plural = if wanted == "1" { "" } else { "s" };
    Refusal::query(format!("function {function} takes {wanted} argument{plural}, not {count}"))
}

/// An argument of a type that the function does not take.
pub fn illegal(function: &str, wanted: &str, argument: &Typed) -> Refusal {
    Refusal::query(format!("function {function} takes {wanted}, not a value of type {}", argument.ty))
}

/// Whether any argument is a bare NULL: nearly every function then gives NULL.
pub fn any_null(arguments: &[Typed]) -> bool {
    arguments.iter().any(|argument| argument.ty == Type::Nothing)
}

/// A constant text.
pub fn text<'a>(function: &str, what: &str, argument: &'a Typed) -> Result<&'a str, Refusal> {
    argument.as_text().ok_or_else(|| illegal(function, &format!("a constant text as its {what}"), argument))
}

/// A constant whole number.
pub fn whole(function: &str, what: &str, argument: &Typed) -> Result<i64, Refusal> {
    let refusal = || illegal(function, &format!("a constant whole number as its {what}"), argument);
    if !argument.ty.is_integer() {
        return Err(refusal());
    }
    argument
        .as_literal()
        .and_then(super::super::operators::exact)
        .and_then(|value| i64::try_from(value).ok())
        .ok_or_else(refusal)
}

/// The name of a time zone, where one is given.
pub fn zone(function: &str, argument: Option<&Typed>) -> Result<Option<Tz>, Refusal> {
    argument.map(|argument| calendar::zone(text(function, "time zone", argument)?)).transpose()
}

/// The precision of a DateTime64: 0 to 9 digits.
pub fn precision(function: &str, argument: &Typed) -> Result<u8, Refusal> {
    let digits = whole(function, "precision", argument)?;
    u8::try_from(digits)
        .ok()
        .filter(|&digits| digits <= 9)
        .ok_or_else(|| Refusal::query(format!("function {function} takes a precision from 0 to 9, not {digits}")))
}
