//! Followers: other nodes with the same records, by the leader's log.
//!
//! [`node`] is what the rest of the server knows of it: which role this node has, how far it is, how to reach the leader. The
//! protocol is in `keyward_storage::replication`, its transport in [`crate::http::link`].

pub mod node;
