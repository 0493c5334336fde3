//! Permissions: what a root key may do, and the permission query of `keys.verifyKey`. Pure functions over strings.
//!
//! - [`Grants`] is what a root key holds, prepared once for fast questions.
//! - [`Need`] is what an operation asks for: a small tree that lives on the stack and borrows its ids.
//! - [`Query`] is what a customer asks about a key, in a language of its own.
//! - [`Urn`] is the newer of the two notations of root-key permissions.
//!
//! Nothing here knows of HTTP or storage: failures say what is missing in words ([`Denied`], [`QueryError`]).

mod grants;
mod query;
mod urn;

pub use grants::{Denied, Grants, Need};
pub use query::{NESTING_MAX, QUERY_CHARS_MAX, Query, QueryError};
pub use urn::Urn;
