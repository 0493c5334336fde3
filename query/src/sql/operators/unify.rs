//! The type that several share.

#![allow(unused_imports, unused_variables)]
use super::super::typed::Typed;
use super::super::types::{Type, Unit};
use crate::error::Refusal;
use datafusion::common::ScalarValue;

/// The least type that holds the values of all of these.
pub fn super_type(types: &[Type]) -> Result<Type, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// A value as the type that it shares with others.
pub fn coerce(x: Typed, target: &Type) -> Result<Typed, Refusal> {
    Err(Refusal::query("this operator is not answered yet"))
}

/// What a value of this type is where there is none: zero, empty, 1970-01-01, or NULL where it may be NULL.
pub fn default_of(ty: &Type) -> ScalarValue {
    ScalarValue::Null
}
