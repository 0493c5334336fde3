//! Intervals.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `INTERVAL amount UNIT`.
pub fn interval(amount: Typed, unit: Unit) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// A time moved by an interval, forwards or back.
pub fn shift(time: Typed, interval: Typed, back: bool) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
