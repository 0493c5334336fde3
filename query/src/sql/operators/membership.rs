//! IN with a list.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;

/// `a IN (list)`; an array literal on the right is the list of its elements.
pub fn in_list(a: Typed, list: Vec<Typed>) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// `a NOT IN (list)`.
pub fn not_in_list(a: Typed, list: Vec<Typed>) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}
