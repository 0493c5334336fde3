//! Metrics: numbers about this server, for Prometheus and for a collector of OpenTelemetry.
//!
//! [`table`] describes every metric once: its name, its kind, its labels and what it says. From the table come the exposition
//! ([`Metrics::exposition`]), what is exported by OTLP, the page `packaging/docs/metrics.md`, and the tests of the dashboard and of the alert rules.
//! [`recorder`] counts what requests do, without a lock; everything else is read from the parts themselves when somebody
//! asks (`gather`).
//!
//! No label holds what a client or a tenant chose - no workspace, no key, no path, no address - so the number of series is
//! bounded by the program: operations times outcomes, and no metric tells anything about a tenant.

mod expose;
mod gather;
pub mod page;
pub mod process;
pub mod recorder;
pub mod samples;
pub mod replication;
pub mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::Semaphore;

use crate::app::Services;
use crate::otlp;
use recorder::Recorder;
use samples::Samples;

pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE;

/// The counters of a server.
#[derive(Debug)]
pub struct Metrics {
    /// What requests do.
    pub requests: Recorder,
    /// What the HTTP layer holds.
    pub http: HttpNow,
    /// What was handed to a collector.
    pub otlp: Arc<otlp::Counts>,
    /// What a node that follows another one counts.
    pub replication: replication::Replication,
    /// When this process began, unix ms.
    pub started_at_ms: u64,
    began: Instant,
    scrapes: Semaphore,
}

/// Scrapes at one time; further ones wait.
const SCRAPES_MAX: usize = 2;

impl Metrics {
    /// All at zero, at this time (unix ms).
    pub fn new(now_ms: u64) -> Metrics {
        Metrics {
            requests: Recorder::new(crate::api::OPERATIONS.len()),
            http: HttpNow::default(),
            otlp: Arc::default(),
            replication: replication::Replication::default(),
            started_at_ms: now_ms,
            began: Instant::now(),
            scrapes: Semaphore::new(SCRAPES_MAX),
        }
    }

    /// Seconds since the start.
    pub fn uptime_s(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Every metric as Prometheus reads it. Reads from the parts and from the system: not for a thread that answers requests.
    pub fn exposition(services: &Services) -> String {
        expose::text(Metrics::samples(services))
    }

    /// The same as numbers.
    pub fn samples(services: &Services) -> Samples {
        gather::gather(services)
    }
}

impl Metrics {
    /// The same on a thread that may block.
    pub async fn scrape(services: Arc<Services>) -> String {
        let reader = Arc::clone(&services);
        let _turn = services.metrics.scrapes.acquire().await;
        // Where the server is stopping there is nobody to be answered.
        tokio::task::spawn_blocking(move || Metrics::exposition(&reader)).await.unwrap_or_default()
    }
}

/// Connections, and the memory that large bodies take.
#[derive(Debug, Default)]
pub struct HttpNow {
    opened: AtomicU64,
    closed: AtomicU64,
    /// The room for large bodies and how much of it there is, KiB; none before there is a server.
    bodies: OnceLock<(Arc<Semaphore>, usize)>,
}

impl HttpNow {
    /// A connection was accepted.
    pub fn connection_opens(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection is gone.
    pub fn connection_closes(&self) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections since the start, and those that are open.
    pub fn connections(&self) -> (u64, u64) {
        // In this order an opening in between makes the difference too large by one, never negative.
        let closed = self.closed.load(Ordering::Relaxed);
        let opened = self.opened.load(Ordering::Relaxed);
        (opened, opened.saturating_sub(closed))
    }

    /// Where the room for large bodies is counted, in KiB.
    pub fn watch_bodies(&self, room: &Arc<Semaphore>) {
        let _ = self.bodies.set((Arc::clone(room), room.available_permits()));
    }

    /// Bytes that large bodies take, and may take.
    pub fn bodies(&self) -> (u64, u64) {
        let Some((room, all)) = self.bodies.get() else { return (0, 0) };
        let used = all.saturating_sub(room.available_permits());
        (used as u64 * 1024, *all as u64 * 1024)
    }
}

#[cfg(test)]
mod tests;
