//! keyward's records, counters and log.
//!
//! A change to records goes down one road: a transaction runs on the one [`writer`](crate::Storage::transact), its effects
//! are appended to the write-ahead log and synced, committed to redb, published to the hot index, and only then answered.
//! Counters (credits, rate-limit windows, last use) live in memory, are changed by compare-and-swap and journaled.
//!
//! [`Storage`] is all a server needs: look up, read, transact, spend, limit. The crate knows no HTTP, no JSON and no async
//! runtime: what takes time is answered through a callback.
//!
//! - [`records`]: tables and their rows; what changes them;
//! - [`log`]: frames, segments, recovery;
//! - [`feed`]: a reader's side of the log, for whatever is derived from the records;
//! - [`hot`]: what requests read without a lock;
//! - [`pepper`]: secrets from outside that stored hashes are keyed with;
//! - [`replication`]: the same records on several machines;
//! - [`backup`]: the records out of an open store, and into a new one;
//! - [`verify`]: whether a data directory is whole;
//! - [`disk`]: files behind one seam, with a disk that fails on purpose for the tests.
//!
//! Layouts on disk: `FORMAT.md`.

pub mod backup;
mod directory;
pub mod disk;
pub mod error;
pub mod feed;
mod filling;
pub mod hot;
pub mod ids;
pub mod log;
mod measure;
mod open;
pub mod pepper;
pub mod position;
mod publish;
mod queue;
pub mod records;
mod replay;
pub mod replication;
mod storage;
pub mod store;
#[cfg(test)]
mod testing;
pub mod tx;
mod upgrade;
pub mod verify;
mod walk;
mod windows_thread;
mod writer;
mod writer_thread;

pub use directory::may_lie_in_an_empty_dir;
pub use error::{OpenError, ReadError, Unavailable};
pub use feed::{Feed, FeedError, Source};
pub use hot::counters::{Change, MAX_BALANCE};
pub use hot::index::Lookup;
pub use measure::Distribution;
pub use open::Options;
pub use position::{Position, Term};
pub use queue::Turn;
pub use storage::{Committed, Spent, Stats, Storage, TransactError};
pub use store::{Read, Snapshot};
pub use tx::{Abort, TooManyCredits, Tx};
pub use writer::{Fatal, MAX_TRANSACTION_BYTES, OnCommit};
