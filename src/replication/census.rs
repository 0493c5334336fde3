//! Asks the other nodes, before this one leads, whether one of them was promoted while it was down.
//!
//! A leader that was replaced cannot know it from its own disk, and the one that replaced it may be cut off from it. So whoever starts as
//! the leader asks those that `replication.peers` names for the newest term that they have heard of: a newer one than its own ends its
//! reign before it has taken a change. Who does not answer in time is not waited for: with one node of two gone for good the other one
//! has to start.

use std::sync::Arc;

use bytes::Bytes;
use keyward_storage::Term;
use keyward_storage::replication::{Message, Wire};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{end_reign, link_to};
use crate::app::Services;
use crate::config::Settings;
use crate::http::link::Link;

/// Where a node says which term is the newest that it has heard of.
pub const TERM_PATH: &str = "/replication/term";

/// What this node says of terms: the newest that it has heard of, by its name.
pub fn term(services: &Services) -> Bytes {
    let standing = services.storage.standing();
    let message = Message::Fence {
        store: services.storage.source().store_id(),
        term: standing.seen().max(services.node.term()),
        name: services.node.name().to_owned(),
    };
    message.encode().into()
}

/// Asks all others, for as long as `replication.silence_ms`. Afterwards this node leads only where none of them knows of a newer term.
///
/// # Errors
/// A sentence for the operator: the settings cannot be used.
pub async fn take(services: &Arc<Services>, settings: &Settings) -> Result<(), String> {
    let replication = &settings.replication;
    if !services.node.is_leader() {
        return Ok(());
    }
    let mut asked = JoinSet::new();
    for peer in &replication.peers {
        let (link, patience) = (link_to(settings, peer)?, replication.silence);
        asked.spawn(async move {
            let running = tokio::spawn(Arc::clone(&link).run());
            let told = timeout(patience, ask(&link)).await;
            running.abort();
            (link.leader().to_string(), told.ok().flatten())
        });
    }
    let (own, store) = (services.node.term(), services.storage.source().store_id());
    while let Some(told) = asked.join_next().await {
        let Ok((peer, told)) = told else { continue };
        match told {
            Some((theirs, term, name)) if theirs == store && term > own => {
                tracing::warn!(peer, term = term.0, "another node knows of a newer term than this one's");
                let ending = Arc::clone(services);
                let ended = tokio::task::spawn_blocking(move || end_reign(&ending, term, &name)).await;
                return ended.map_err(|_| "the server is stopping".to_owned());
            }
            Some((theirs, ..)) if theirs != store => {
                tracing::warn!(peer, "a node of replication.peers has another store");
            }
            Some(_) => {}
            None => tracing::warn!(
                peer,
                "a node of replication.peers did not say in time whether another one leads; this one leads without knowing"
            ),
        }
    }
    Ok(())
}

/// A node's store, the newest term that it has heard of, its name; `None` where it says none of that.
async fn ask(link: &Link) -> Option<([u8; 16], Term, String)> {
    link.wait_until_up().await;
    let (status, bytes) = link.post(TERM_PATH, Bytes::new(), 0).await.ok()?;
    parse(&bytes).filter(|_| status == 200)
}

fn parse(bytes: &[u8]) -> Option<([u8; 16], Term, String)> {
    let mut wire = Wire::default();
    wire.push(bytes);
    match wire.next_message() {
        Ok(Some(Message::Fence { store, term, name })) => Some((store, term, name)),
        _ => None,
    }
}

/// What a node says of itself.
#[derive(Debug)]
pub struct Told {
    /// Whose records it has.
    pub store: [u8; 16],
    /// The newest term that it has heard of.
    pub term: Term,
    /// Its name.
    pub name: String,
    /// Its clock, unix ms, where its version tells it.
    pub clock_ms: Option<u64>,
}

/// Asks a node once, for an operator who wants to know whether it can be reached.
///
/// # Errors
/// A sentence: it cannot, or does not take this one for a node.
pub async fn question(link: &Link) -> Result<Told, String> {
    let (status, clock_ms, bytes) = link.ask_once(TERM_PATH).await?;
    match parse(&bytes).filter(|_| status == 200) {
        Some((store, term, name)) => Ok(Told { store, term, name, clock_ms }),
        None => {
            let text: String = String::from_utf8_lossy(&bytes).trim().replace(char::is_control, " ");
            Err(format!("it answers with status {status}: {text:.200}"))
        }
    }
}
