//! LIKE and ILIKE.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `a LIKE pattern`.
pub fn like(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a ILIKE pattern`.
pub fn ilike(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a NOT LIKE pattern`.
pub fn not_like(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a NOT ILIKE pattern`.
pub fn not_ilike(a: Typed, pattern: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
