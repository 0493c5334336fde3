//! AND, OR, NOT, IS NULL.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `a AND b`.
pub fn and(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a OR b`.
pub fn or(a: Typed, b: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `NOT a`.
pub fn not(a: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a IS NULL`.
pub fn is_null(a: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a IS NOT NULL`.
pub fn is_not_null(a: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
