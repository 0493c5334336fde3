//! Carries this node's events to its leader, and sees to it that they are kept for it.
//!
//! While the node follows, its store of events keeps them for another one and this task brings them there, a parcel at a time:
//! the next goes when the one before is acknowledged, which the leader does after a sync. A parcel whose acknowledgement was lost
//! goes again and is known there. When the node leads, what was not delivered is its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use keyward_query::Events;
use keyward_query::events::{Marks, Parcel};
use tokio::time::sleep;

use super::node::Role;
use crate::app::Services;
use crate::http::parcels::{self, Delivery};

/// Pause after a parcel that was not full, or when there was none: events of so long travel together.
const GATHER: Duration = Duration::from_millis(100);
/// Rows from which on the next parcel goes at once.
const FULL_BYTES: usize = 1 << 20;
/// Pause after a failure; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a leader looks at its role.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The task's state.
struct Carrier {
    services: Arc<Services>,
    events: Arc<Events>,
    /// How far the leader is with this node's events, once it has said so.
    marks: Option<Marks>,
    /// How this node stood when it said so: another leader has to say it again.
    changes: u64,
    pause: Duration,
    failing: bool,
}

/// How a turn went.
enum Turn {
    /// There may be more.
    More,
    /// There is nothing to carry for the moment.
    Idle(Duration),
}

/// Carries for as long as it is polled.
pub async fn run(services: Arc<Services>) {
    let Some(events) = services.events.clone() else { return };
    let mut carrier = Carrier { services, events, marks: None, changes: 0, pause: PAUSE_MIN, failing: false };
    loop {
        match carrier.turn().await {
            Ok(Turn::More) => carrier.recovered(),
            Ok(Turn::Idle(pause)) => {
                carrier.recovered();
                sleep(pause).await;
            }
            Err(why) => carrier.failed(&why).await,
        }
    }
}

impl Carrier {
    async fn turn(&mut self) -> Result<Turn, String> {
        if self.services.node.role() == Role::Leader {
            if self.events.relays_as().is_some() {
                self.marks = None;
                let undelivered = self.events.undelivered();
                if self.blocking(|events| events.keep()).await? {
                    tracing::info!(
                        undelivered,
                        "events are this node's own from now on, and so are the batches that were not delivered"
                    );
                }
            }
            return Ok(Turn::Idle(LOOK_EVERY));
        }
        let Some(source) = self.events.relays_as() else {
            self.rename(|events, random| events.relay(random)).await?;
            return Ok(Turn::More);
        };
        let Some(link) = self.services.node.link().filter(|link| link.is_up()).cloned() else {
            return Ok(Turn::Idle(GATHER));
        };
        let changes = self.services.storage.standing().changes();
        if std::mem::replace(&mut self.changes, changes) != changes {
            self.marks = None;
        }
        let Some(marks) = self.marks else {
            let marks = parcels::ask_marks(&link, source).await.map_err(|error| error.to_string())?;
            if self.events.are_anothers(marks) {
                // Another node has that name: a copy of this data directory, or one that drew the same number.
                tracing::warn!(source, "another node's events have this node's name; it takes another");
                self.rename(|events, random| events.rename(random)).await?;
                return Ok(Turn::More);
            }
            self.marks = Some(marks);
            self.events.rewind();
            return Ok(Turn::More);
        };
        let next = self.blocking(move |events| events.next_parcel(marks)).await?;
        let Some(parcel) = next else { return Ok(Turn::Idle(GATHER)) };
        match parcels::deliver(&link, parcel.bytes.clone()).await {
            Ok(Delivery::Taken(marks)) => {
                self.services.metrics.replication.carried();
                let is_full = parcel.bytes.len() >= FULL_BYTES;
                self.marks = Some(marks);
                self.delivered(parcel).await?;
                Ok(if is_full { Turn::More } else { Turn::Idle(GATHER) })
            }
            Ok(Delivery::Overlaps) => {
                self.marks = None;
                Ok(Turn::More)
            }
            Ok(Delivery::Refused(why)) => Err(why),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn delivered(&self, parcel: Parcel) -> Result<(), String> {
        self.blocking(move |events| events.delivered(&parcel)).await
    }

    /// Gives this node a name among the leader's sources.
    async fn rename(
        &mut self,
        how: impl FnOnce(&Events, u32) -> io::Result<()> + Send + 'static,
    ) -> Result<(), String> {
        let mut random = [0; 4];
        self.services.outside.entropy.fill(&mut random);
        self.blocking(move |events| how(events, u32::from_le_bytes(random))).await?;
        self.marks = None;
        Ok(())
    }

    async fn blocking<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Events) -> io::Result<R> + Send + 'static,
    ) -> Result<R, String> {
        let events = Arc::clone(&self.events);
        let done = tokio::task::spawn_blocking(move || work(&events)).await;
        done.map_err(io::Error::other).flatten().map_err(|error| error.to_string())
    }

    fn recovered(&mut self) {
        self.pause = PAUSE_MIN;
        if std::mem::take(&mut self.failing) {
            tracing::info!("events reach the leader again");
        }
    }

    /// Whatever went wrong, the parcel is made anew from what the leader says it has.
    async fn failed(&mut self, why: &str) {
        self.marks = None;
        self.services.metrics.replication.not_carried();
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(why, "events do not reach the leader; they are kept here, and it is tried again");
        }
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}
