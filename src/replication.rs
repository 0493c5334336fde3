//! Followers: other nodes with the same records, by the leader's log.
//!
//! [`node`] is what the rest of the server knows of it: which role this node has, how far it is, how to reach the leader. [`role`]
//! remembers the role across starts, [`token`] is what nodes know each other by. [`lead`] and [`follow`] move the messages that
//! `keyward_storage::replication` decides on; [`census`] asks, before a node leads, whether another one does; the transport is [`crate::http::link`] and [`crate::http::peers`].
//!
//! Where a [`lease`] says who leads, it is taken and renewed there.
//!
//! A node that follows hands on what is the leader's to do ([`forward`]; the leader knows repeats by [`replies`], and [`sweep`]s
//! what it noted of them), and brings it its events ([`carry`]).

pub mod carry;
pub mod census;
pub mod follow;
pub mod forward;
pub mod lead;
pub mod lease;
pub mod node;
pub mod replies;
pub mod role;
pub mod sweep;
pub mod token;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use keyward_storage::Term;
use keyward_storage::disk::RealDisk;
use keyward_storage::replication::{NotPromoted, Promotion, Role};

use crate::app::Services;
use crate::config::{Leader, Replication, Settings};
use crate::http::link::Link;
use crate::telemetry::error_chain;
use crate::tls::peer::Connector;
use role::Kept;

/// The link to the leader that the settings name; `None` where they name none.
///
/// # Errors
/// A sentence for the operator: the token or a file of TLS cannot be used.
pub fn new_link(settings: &Settings) -> Result<Option<Arc<Link>>, String> {
    let replication = &settings.replication;
    replication.follow.as_ref().map(|leader| link_to(settings, leader)).transpose()
}

/// A link to a node, not connected yet.
///
/// # Errors
/// A sentence for the operator: the token or a file of TLS cannot be used.
pub fn link_to(settings: &Settings, leader: &Leader) -> Result<Arc<Link>, String> {
    let replication = &settings.replication;
    let token = token::open(&settings.secrets, &settings.data_dir).map_err(|error| error_chain(&error))?;
    let tls = match leader.tls {
        false => None,
        true => Some(Connector::new(leader.host(), replication.ca_file.as_deref(), &settings.tls)?),
    };
    Ok(Link::new(leader.clone(), tls, token.as_ref().map(|token| token.as_str()), replication.silence))
}

/// Another node leads in this term: this one takes no changes from now on, nor after a restart. Blocks.
pub fn end_reign(services: &Services, term: Term, name: &str) {
    if !services.storage.standing().fence(term) {
        return;
    }
    let next = match services.node.lease() {
        Some(_) => "it begins anew as the follower of whoever holds the lease",
        None => "set replication.follow to the new leader and restart, and it follows",
    };
    tracing::error!(
        term = term.0,
        leader = name,
        "another node was promoted: this one takes no changes any more; {next}"
    );
    let kept = Kept { role: Role::Fenced, term, instead_of: None };
    if let Err(error) = role::write(&RealDisk, &services.data_dir, &kept) {
        tracing::error!(%error, "that could not be written down: do not start this node as a leader again");
    }
}

/// Makes this node the leader. Blocks.
///
/// # Errors
/// A sentence for the operator: it is not, and nothing was changed.
pub fn promote(services: &Services, forced: bool) -> Result<Term, String> {
    let node = &services.node;
    if let Some(lease) = node.lease() {
        return lease.insist(services, forced);
    }
    if !forced {
        if node.role() == Role::Fenced {
            return Err(format!(
                "another node leads in term {}; promoting this one makes two histories of one store. Let it follow that one \
                 (replication.follow), or insist with --force",
                services.storage.standing().seen().0
            ));
        }
        if node.role() == Role::Follower && node.is_leader_reachable() {
            let leader = node.link().map_or_else(String::new, |link| format!(" {}", link.leader()));
            return Err(format!(
                "the leader can be reached (by{leader}); stop it first, so that no change is lost, or insist with --force"
            ));
        }
        let lacks = node.lag_records();
        if lacks > 0 {
            return Err(format!(
                "this node lacks {lacks} records that the leader had told of: another follower may have them \
                 (`keyward status` there tells its position); promote the one that is furthest, or insist with --force"
            ));
        }
    }
    lead(services, forced)
}

/// Begins a new term, led by this node, whatever others think of that. Blocks.
///
/// # Errors
/// A sentence for the operator. Nothing was changed, unless it says so.
fn lead(services: &Services, forced: bool) -> Result<Term, String> {
    let node = &services.node;
    let mut id = [0; 16];
    services.outside.entropy.fill(&mut id);
    let promotion = Promotion {
        node: services.storage.node_id(),
        name: node.name().to_owned(),
        id,
        now: services.outside.clock.now_ms(),
        forced,
    };
    let (tell, told) = sync_channel(1);
    services.storage.promote(promotion, move |outcome| {
        let _ = tell.send(outcome);
    });
    let term = told.recv().unwrap_or(Err(NotPromoted::Stopped)).map_err(|error| error.to_string())?;
    tracing::warn!(
        term = term.0,
        position = node.position().0,
        forced,
        "this node was promoted: it leads, and takes changes"
    );
    let instead_of = node.link().map(|link| link.leader().to_string());
    let kept = Kept { role: Role::Leader, term, instead_of };
    role::write(&RealDisk, &services.data_dir, &kept)
        .map_err(|error| format!("this node leads in term {}, but that could not be written down: {error}", term.0))?;
    Ok(term)
}

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
