//! Events and their queries: verifications and rate-limit decisions, recorded as Arrow batches, sealed into Parquet and
//! read with restricted SQL.

mod error;
pub mod events;
pub mod sql;

pub use error::Refusal;
pub use events::Events;
pub use sql::run::quota::Allowed;
pub use sql::run::{Limits, Options, Rows};
pub use sql::{Query, Select};
