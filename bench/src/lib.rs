//! How fast keyward is, measured so that the answer can be compared and can fail.
//!
//! The HTTP side, in reading order:
//!
//! - [`wire`]: the little HTTP/1.1 a load generator needs: rendered requests, framed responses.
//! - [`load`]: the generator. Closed loop finds the capacity, open loop finds the latency at a given rate.
//! - [`report`]: what a run found, as JSON and as a table.
//! - [`floor`]: bare hyper behind keyward's listener settings: the cost of HTTP with no keyward in it.
//! - [`child`]: starts servers, pins them to a core, reads their CPU time.
//! - [`client`]: a blocking client for set-up work.
//! - [`compare`]: keyward against the floor in one run, as a ratio.
//! - [`restart`]: start-up time and memory of a store with many keys.
//! - [`analytics`]: ingest of events, their bytes on disk, and SELECTs over them.
//! - [`backup`]: a backup of a large store while keys are verified.
//! - [`vault_rotate`]: a rotation of the vault while keys are verified.
//! - [`verifiers`]: what verifications see of either.
//! - [`audit_verify`]: verification of a long chain of audit events.
//! - [`search`]: the search index: its size, searches, its lag, and verifications beside it.
//! - [`replication`]: how far a follower is behind, how fast it catches up, what it costs.
//! - [`create_key`]: durable writes a second, beside what the same disk does with nothing but syncs.
//!
//! Everything here talks to loopback addresses only and for at most [`load::LONGEST_RUN`].

pub mod analytics;
pub mod audit_verify;
pub mod backup;
pub mod beside;
pub mod child;
pub mod client;
pub mod compare;
pub mod create_key;
pub mod delete_role;
pub mod error;
pub mod floor;
pub mod load;
pub mod replication;
pub mod report;
pub mod restart;
pub mod search;
pub mod store;
pub mod vault_rotate;
pub mod verifiers;
pub mod wire;

pub use error::{Error, Result};
