//! Handing a request on to the leader: how often, how long, and what is known where no reply comes.
//!
//! Each request that is handed on has an id, so it may be sent again when the link is cut: the leader carries it out once
//! ([`super::replies`], and for changes [`keyward_storage::records::change`]). The reply says how far the leader's log was behind
//! it; this node waits until it is there itself, so that whoever changed something here reads it here.
//!
//! What comes from a node that follows this one goes on under the name that it has ([`relay`]): nothing of it is answered here, since
//! that node knows best what it can answer itself.

use std::time::{Duration, Instant};

use keyward_storage::Position;
use keyward_storage::records::change;
use tokio::time::sleep;

use crate::api::operation::{OnFollower, Pace};
use crate::api::wire::{Forwarded, Inbound, Outbound};
use crate::app::Services;
use crate::http::forward::{Asked, NoReply};
use crate::http::link::Link;
use crate::replication::node::Role;

/// Nodes that a request goes through at most: whoever follows in a circle is not asked for ever.
pub const HOPS_MAX: u8 = keyward_storage::replication::CHAIN_MAX as u8;
/// How long a request that changes something waits for a leader that is not heard.
const LINK_PATIENCE: Duration = Duration::from_secs(1);
/// How long others do, for so many seconds after the node has started.
const YOUNG_PATIENCE: Duration = Duration::from_millis(250);
const YOUNG_S: u64 = 2;
/// How long a reply waits at most until this node has what it tells of.
const VISIBLE_PATIENCE: Duration = Duration::from_secs(5);
/// How long a query may take at most, which bounds itself on the leader.
const STOPS_PATIENCE: Duration = Duration::from_secs(600);
/// What is left of the request's time for its way back to the client.
const MARGIN: Duration = Duration::from_millis(50);
/// Before a request is sent again over a link that is up; it doubles.
const AGAIN_MIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// How often it is looked whether the leader can still be reached.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Why there is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The leader did not get the request: nothing came of it.
    Unsent,
    /// It may have got it.
    Unknown,
}

/// What a request is handed on under: the name that another node gave it, or a new one.
pub fn name(services: &Services, before: Option<Forwarded>) -> Forwarded {
    match before {
        Some(Forwarded { change, hops }) => Forwarded { change, hops: hops.saturating_add(1) },
        None => {
            let mut random = [0; 10];
            services.outside.entropy.fill(&mut random);
            Forwarded { change: change::id(services.outside.clock.now_ms(), random), hops: 1 }
        }
    }
}

/// Hands a request on.
///
/// # Errors
/// The leader gave no reply within the request's time; or, where this node can go on by itself, soon enough; or this node leads
/// now.
pub async fn forward(
    services: &Services,
    path: &'static str,
    inbound: &Inbound,
    forwarded: Forwarded,
    (how, pace): (OnFollower, Pace),
) -> Result<Outbound, Lost> {
    let node = &services.node;
    let (begun, whole) = (Instant::now(), time_left(services, inbound, pace));
    let alone = how.goes_on_alone();
    // Half of it is for answering without the leader.
    let time = if alone { whole / 2 } else { whole };
    let (mut outbound, position) = ask(services, path, inbound, forwarded, (alone, time)).await?;
    let until = (Instant::now() + VISIBLE_PATIENCE).min(begun + whole);
    if how == OnFollower::Leader && !node.wait_for(position, until).await {
        outbound.staleness_ms = Some(node.staleness_ms());
    }
    Ok(outbound)
}

/// Hands on what another node has handed on to this one. The reply, and the position that whoever reads must have reached to see what
/// it tells of: the node that asked waits until it is there, and then this one was there before.
///
/// # Errors
/// As [`forward`].
pub async fn relay(
    services: &Services,
    path: &'static str,
    inbound: &Inbound,
    (how, pace): (OnFollower, Pace),
) -> Result<(Outbound, Position), Lost> {
    let forwarded = name(services, inbound.forwarded);
    let time = time_left(services, inbound, pace);
    ask(services, path, inbound, forwarded, (how.goes_on_alone(), time)).await
}

/// How long the reply to a request may take.
fn time_left(services: &Services, inbound: &Inbound, pace: Pace) -> Duration {
    let left_ms = inbound.deadline_ms.saturating_sub(services.outside.clock.now_ms());
    match pace {
        Pace::Finishes => Duration::from_millis(left_ms).min(STOPS_PATIENCE).saturating_sub(MARGIN),
        Pace::Stops => STOPS_PATIENCE,
    }
}

/// Asks the node that is followed, for so long; whoever can go on `alone` is told soon that it has to.
async fn ask(
    services: &Services,
    path: &'static str,
    inbound: &Inbound,
    forwarded: Forwarded,
    (alone, time): (bool, Duration),
) -> Result<(Outbound, Position), Lost> {
    let node = &services.node;
    if forwarded.hops > HOPS_MAX {
        tracing::warn!(
            path,
            hops = forwarded.hops,
            "a request was handed on by more nodes than can be in one chain: do they follow each other in a circle? It is refused"
        );
        return Err(Lost::Unsent);
    }
    // Whom a leader without a lease used to follow leads no more than it does itself.
    let link = node.link().filter(|_| node.role() != Role::Leader).ok_or(Lost::Unsent)?;
    let begun = Instant::now();
    let deadline = begun + time;
    let patience = match alone {
        false => LINK_PATIENCE,
        // A node that has just started has heard nobody yet.
        true if services.metrics.uptime_s() < YOUNG_S => YOUNG_PATIENCE,
        true => Duration::ZERO,
    };
    if !heard(services, link, begun + patience.min(time / 4)).await {
        services.metrics.replication.unreachable();
        return Err(Lost::Unsent);
    }
    let mut lost = Lost::Unsent;
    let mut pause = AGAIN_MIN;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let asked = Asked { path, inbound, forwarded, left };
        let reply = tokio::select! {
            biased;
            reply = asked.ask(link) => reply,
            () = given_up(services, alone, deadline) => {
                services.metrics.replication.unreachable();
                return Err(Lost::Unknown);
            }
        };
        match reply {
            Ok(answered) => {
                services.metrics.replication.forwarded();
                return Ok(answered);
            }
            Err(NoReply::Refused) => return Err(lost),
            Err(NoReply::Doubtful) => lost = Lost::Unknown,
            Err(NoReply::Lost(error)) => {
                if !error.is_unsent() {
                    lost = Lost::Unknown;
                }
                tracing::debug!(error = %crate::telemetry::error_chain(&error), path, "a request did not reach the leader");
            }
        }
        if alone {
            services.metrics.replication.unreachable();
            return Err(lost);
        }
        // What was not sent is not worth the whole wait; of what may have been made the client is to hear.
        let until = match lost {
            Lost::Unsent => deadline.min(begun + LINK_PATIENCE),
            Lost::Unknown => deadline,
        };
        let up = async {
            sleep(pause).await;
            link.wait_until_up().await;
        };
        tokio::select! {
            () = up => {}
            () = given_up(services, false, until) => {
                services.metrics.replication.unreachable();
                return Err(lost);
            }
        }
        pause = (pause * 2).min(AGAIN_MAX);
    }
}

/// Waits until the leader is heard, over a link that is up. Whether that came before the deadline; what is sent into silence comes
/// to nothing, and nobody would know.
async fn heard(services: &Services, link: &Link, deadline: Instant) -> bool {
    loop {
        if link.is_up() && services.node.is_leader_reachable() {
            return true;
        }
        if Instant::now() >= deadline || services.node.is_leader() {
            return false;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Ends when the reply is waited for no more: at the deadline, when this node was promoted, or, where it can go on `alone`, when
/// the leader is not heard any more.
async fn given_up(services: &Services, alone: bool, deadline: Instant) {
    let node = &services.node;
    while Instant::now() < deadline && !node.is_leader() && (!alone || node.is_leader_reachable()) {
        sleep(LOOK_EVERY).await;
    }
}
