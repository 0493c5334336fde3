//! Conditions.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `if(condition, then, otherwise)` and `condition ? then : otherwise`.
pub fn if_else(condition: Typed, then: Typed, otherwise: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `CASE [operand] WHEN .. THEN .. ELSE .. END`.
pub fn case(operand: Option<Typed>, branches: Vec<(Typed, Typed)>, otherwise: Option<Typed>) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `coalesce(a, b, ..)`.
pub fn coalesce(arguments: Vec<Typed>) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
