//! Comparisons.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// Which comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    /// `=`
    Equals,
    /// `!=`
    NotEquals,
    /// `<`
    Less,
    /// `<=`
    LessOrEquals,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEquals,
}

/// `a` against `b`.
pub fn compare(comparison: Comparison, a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a = b`.
pub fn equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a != b`.
pub fn not_equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a < b`.
pub fn less(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a <= b`.
pub fn less_or_equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a > b`.
pub fn greater(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a >= b`.
pub fn greater_or_equals(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a BETWEEN low AND high`.
pub fn between(a: Typed, low: Typed, high: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a NOT BETWEEN low AND high`.
pub fn not_between(a: Typed, low: Typed, high: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// Both sides in one type in which equal values are equal: for keys of joins and for IN with a subquery.
pub fn comparable(a: Typed, b: Typed) -> Result<(Typed, Typed), Refusal> {
    Ok((a, b))
}
