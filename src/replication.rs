//! Followers: other nodes with the same records, by the leader's log.
//!
//! [`node`] is what the rest of the server knows of it: which role this node has, how far it is, how to reach the leader. The
//! protocol is in `keyward_storage::replication`, its transport in [`crate::http::link`].

use std::sync::Arc;

use crate::app::Services;
use crate::config::Replication;

pub mod carry;
pub mod forward;
pub mod node;
pub mod replies;
pub mod sweep;

/// Begins what a node does beside answering where there are others: it carries its events to the leader, or sweeps the names of
/// changes that others have handed on. Ends with the runtime.
pub fn spawn_serving(services: &Arc<Services>, settings: &Replication) {
    let keeps_events = services.events.as_ref().is_some_and(|events| events.relays_as().is_some());
    if settings.follow.is_some() || keeps_events {
        tokio::spawn(carry::run(Arc::clone(services)));
    }
    if settings.follow.is_some() || settings.listen.is_some() {
        tokio::spawn(sweep::run(Arc::clone(services)));
    }
}
