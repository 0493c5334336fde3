//! Events and their queries: verifications and rate-limit decisions, recorded as Arrow batches, sealed into Parquet and
//! read with restricted SQL. And the search index over keys and audit events.

mod error;
pub mod events;
pub mod priority;
pub mod search;
pub mod sql;

pub use error::Refusal;
pub use events::Events;
pub use search::Search;
pub use sql::run::quota::Allowed;
pub use sql::run::{Limits, Options, Rows};
pub use sql::{Query, Select};
