//! Conversions.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `CAST(x AS T)`.
pub fn cast(x: Typed, target: &Type) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// What `toInt32(x)` and its like mean: as [`cast`], but NULL stays NULL.
pub fn convert(x: Typed, target: &Type) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
