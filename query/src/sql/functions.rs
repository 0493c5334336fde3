//! The functions of the allowlist (AN-FN-01), one file each: what it takes, what it gives, how ClickHouse behaves.

use super::typed::Typed;
use crate::error::Refusal;

/// What a function may know besides its arguments: nothing but the query's clock, which stands still (AN-TIME-01).
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Unix milliseconds.
    pub now_ms: i64,
}

/// A scalar function.
pub struct Function {
    /// Its name as ClickHouse spells it.
    pub name: &'static str,
    /// Whether ClickHouse itself knows it in this case only: an unaliased call is then keyed in canonical case
    /// (AN-NAME-03).
    pub case_sensitive: bool,
    /// Checks the arguments' number and types and says how to compute the call.
    pub call: fn(&Context, Vec<Typed>) -> Result<Typed, Refusal>,
}

/// The function of this name, in any case.
pub fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name.eq_ignore_ascii_case(name))
}

static FUNCTIONS: &[Function] = &[];
