//! Events and their queries: verifications and rate-limit decisions, recorded as Arrow batches, sealed into Parquet and
//! read with restricted SQL.

mod error;
pub mod events;
pub mod sql;

pub use error::Refusal;
pub use events::Events;
