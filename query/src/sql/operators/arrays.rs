//! Array and tuple literals, and their elements.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `[a, b, ..]`.
pub fn array(elements: Vec<Typed>) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `(a, b, ..)`.
pub fn tuple(members: Vec<Typed>) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a[index]`.
pub fn array_element(a: Typed, index: Typed) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a.1`: the member of a tuple at this place, counted from one.
pub fn tuple_element(a: Typed, at: usize) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// The members of a tuple.
pub fn members(tuple: &Typed) -> Option<Vec<Typed>> {
    None
}
