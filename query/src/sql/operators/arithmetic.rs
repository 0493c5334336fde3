//! Arithmetic.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `a + b`.
pub fn plus(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a - b`.
pub fn minus(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a * b`.
pub fn multiply(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a / b`.
pub fn divide(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a % b`.
pub fn modulo(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `-a`.
pub fn negate(a: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
