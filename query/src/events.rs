//! Events: from the ring through the journal into Parquet, and back out to queries.
//!
//! ```text
//! request -> ring -> recorder (one thread): columns -> journal (10 ms) -> unsealed batches, seen by queries
//!                                                                              |
//!            keeper (one thread): seal -> Parquet parts + manifest, compact, retire
//! ```
//!
//! What queries see is one immutable snapshot (`live`): the sealed parts and the unsealed batches, swapped as a whole, so
//! that every event is in it once. What is on the disk is decided by one file (`manifest`): a part that it does not name
//! does not exist, a journaled batch at or below its watermark is sealed.

mod columns;
mod compact;
mod constant;
pub mod copy;
mod core;
pub mod event;
pub mod files;
mod journal;
mod keeper;
mod live;
mod manifest;
mod merge;
mod parcel;
mod parts;
mod recorder;
mod relay;
mod retention;
mod ring;
mod rollup;
pub mod scan;
mod seal;
mod store;
pub mod tables;
#[cfg(test)]
mod testing;
mod transfer;
pub mod verify;

pub use core::Retention;
pub use datafusion::arrow::array::RecordBatch;
pub use event::{Event, Outcome, Ratelimit, Verification};
pub use parcel::{PARCEL_BYTES_MAX, Parcel};
pub use relay::{Marks, Taken, Untaken};
pub use scan::{Scope, Spaces};
pub use store::{Events, LastUse, OpenError, Options, Stats, Trouble, Usage};
pub use transfer::ImportError;
