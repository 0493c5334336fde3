//! What the operators of the dialect mean: each takes typed expressions, checks their types as ClickHouse does, and says
//! how to compute the result and of what type it is (AN-SEM-07, AN-SEM-08, AN-TIME-04 to AN-TIME-07, AN-ERR-16).
//!
//! Every function here folds: what it gives over constants is a constant, so `time >= now() - INTERVAL 7 DAY` reaches the
//! optimizer as a column against a literal, and "must be a constant" is a look at `Typed::as_literal`.

mod arithmetic;
mod arrays;
pub mod calendar;
mod compare;
mod conditional;
pub mod convert;
mod extract;
mod interval;
mod like;
mod literal;
mod logic;
mod membership;
pub mod parse;
pub mod render;
mod unify;

pub use arithmetic::{divide, minus, modulo, multiply, negate, plus};
pub use arrays::{array, array_element, members, tuple, tuple_element};
pub use compare::{
    Comparison, between, comparable, compare, equals, greater, greater_or_equals, less, less_or_equals, not_between,
    not_equals,
};
pub use conditional::{case, coalesce, if_else};
pub use convert::{cast, convert};
pub use extract::{Part, extract};
pub use interval::{interval, shift};
pub use like::{ilike, like, not_ilike, not_like};
pub use literal::{boolean, null, number};
pub use logic::{and, is_not_null, is_null, not, or};
pub use membership::{in_list, not_in_list};
pub use unify::{coerce, default_of, super_type};

/// The value of a constant whole number.
pub fn exact(value: &datafusion::common::ScalarValue) -> Option<i128> {
    compare::exact(value).and_then(|(whole, above)| (!above).then_some(whole))
}
