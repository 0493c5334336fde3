//! The log: every acknowledged change to records, in order, in files of our own.
//!
//! It is the truth; the redb file is its checkpoint and everything else is derived from the two. A **record** is one
//! transaction's effects, opaque bytes here. A **frame** ([`frame`]) is one group commit: some records, written with one
//! write and synced with one sync before the next is written. A **segment** ([`segment`]) is a file of frames. Whatever
//! reads the log - recovery, replay, followers - reads it with the same cursor.
//!
//! Three rules hold it up:
//!
//! - [`Log::append`] returns after the sync, and a sync that failed is never repeated: the log refuses all further work.
//! - Since a frame is synced before the next one is written, a write that did not finish is the last thing in the last
//!   segment. Anything else that cannot be read is damage, and damage is refused ([`LogError`]), never repaired.
//! - What [`Log::open`] replays is on disk: it decides about the end of the log, cuts it, writes the last frame again
//!   and syncs before it hands out the first record.
//!
//! The bytes are described in `storage/FORMAT.md`.

mod append;
mod error;
pub mod frame;
mod read;
mod recover;
pub mod segment;

pub use append::{AppendError, Log, LogOptions, Recovered, SEGMENT_BYTES_DEFAULT};
pub use error::{LogError, OpenLogError};
pub use frame::{Frame, MAX_FRAME_BYTES, MAX_POSITION, MAX_RECORD_BYTES, MAX_RECORDS_PER_FRAME};
pub use read::{Reader, store_id};
