//! One store on several machines: a leader takes changes, followers apply its log.
//!
//! What decides is here, and is plain state: messages in, messages and orders out, no socket, no clock, no thread. Whoever
//! drives it (the server over HTTP/2, the simulation over a false network) moves the bytes.
//!
//! - [`standing`]: what a node does with changes, and whom it has its log from, shared by all threads; [`tenure`]: until when it may
//!   lead;
//! - [`versions`]: which protocol two nodes speak;
//! - [`history`]: which terms there were, and where two logs part;
//! - [`messages`]: the bytes between two nodes, as `storage/REPLICATION.md` describes them;
//! - [`serving`]: the leader's side of one follower; [`following`]: the follower's side;
//! - [`acks`]: answers that wait for followers;
//! - [`checkpoint`]: all records, for a follower that the log does not lead to; [`install`]: how they take the place of what
//!   was there, and what is set aside for the operator before that.

pub mod acks;
pub(crate) mod apply;
pub mod checkpoint;
pub mod following;
pub mod history;
pub mod install;
pub mod messages;
pub mod serving;
pub mod standing;
pub mod tenure;
pub mod versions;

#[cfg(test)]
mod simulation;

pub use apply::{NotApplied, NotPromoted, Promotion};
pub use following::{Following, Order, Welcome};
pub use history::{History, Parting, Reign};
pub use messages::{Hello, Message, Refusal, Wire, WireError, Word};
pub use serving::{Deed, Serving};
pub use standing::{Role, Standing};
pub use tenure::{Tenure, uptime_ms};
pub use versions::Versions;

/// The most nodes between a node and its leader, the leader among them.
pub const CHAIN_MAX: usize = 8;
/// Names a node, drawn at random when its data directory was made.
pub type NodeId = [u8; 16];
