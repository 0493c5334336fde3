//! The thread that hands spans and metrics to the collector.
//!
//! Spans go in batches, soon after they came; one that the collector has no room for is tried again with growing pauses, while
//! further spans wait in the queue or are dropped there. Metrics count from the start, so a try that failed costs nothing but
//! its moment.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::headers::Headers;
use super::messages::{self, Resource};
use super::trace::{Item, Span};
use super::{Counts, FLUSH_TIME_MAX, Shared};
use crate::app::Services;
use crate::config::{Signals, Telemetry};
use crate::http_client::{self, Request};
use crate::metrics::Metrics;
use crate::outside::Outside;
use crate::server_url::ServerUrl;

/// Spans of requests that go at one time.
const BATCH_MAX: usize = 512;
/// How long the first of a batch waits for others.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// How long one try may take, and one that only asks.
const TRY_TIME_MAX: Duration = Duration::from_secs(10);
const PROBE_TIME_MAX: Duration = Duration::from_secs(3);
/// Between two tries: from this, doubled, up to that.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// Tries of a batch; then its spans are dropped.
const TRIES_MAX: u32 = 6;
/// Between two lines about the same trouble, and about trouble that comes and goes.
const COMPLAIN_EVERY: Duration = Duration::from_secs(600);
const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
/// OTLP's media type.
const MEDIA_TYPE: &str = "application/x-protobuf";
/// Statuses after which the same may be sent again (OTLP 1.x, "Retryable Response Codes").
const AGAIN: [u16; 4] = [429, 502, 503, 504];

/// Why something was not taken.
enum Refused {
    /// It may be tried again.
    ForNow(String),
    /// It will never be.
    ForEver(String),
}

/// What the log knows of trouble with the collector.
#[derive(Default)]
struct Trouble {
    is_on: bool,
    /// Whether the log knows of it.
    is_known: bool,
    told: Option<Instant>,
}

/// Spans that go together.
#[derive(Default)]
struct Batch {
    spans: Vec<Span>,
    tries: u32,
    /// When it goes; of no meaning while it is empty.
    due: Option<Instant>,
}

pub(super) struct Exporter {
    endpoint: ServerUrl,
    resource: Resource,
    /// Between two exports of metrics; `None` where they are not exported.
    metrics_interval: Option<Duration>,
    shared: Arc<Shared>,
    services: Weak<Services>,
    counts: Arc<Counts>,
    outside: Outside,
    trouble: Trouble,
}

impl Exporter {
    pub(super) fn new(
        endpoint: ServerUrl,
        telemetry: &Telemetry,
        shared: Arc<Shared>,
        services: &Arc<Services>,
    ) -> Exporter {
        Exporter {
            endpoint,
            resource: Resource::new(&services.region, &services.outside.entropy),
            metrics_interval: (telemetry.signals != Signals::Traces).then_some(telemetry.metrics_interval),
            shared,
            services: Arc::downgrade(services),
            counts: Arc::clone(&services.metrics.otlp),
            outside: services.outside.clone(),
            trouble: Trouble::default(),
        }
    }

    /// Exports until it is told to stop, and then what is left.
    pub(super) fn run(mut self, queue: &Receiver<Item>) {
        let mut batch = Batch::default();
        let mut metrics_due = self.metrics_interval.map(|interval| Instant::now() + interval);
        while !self.shared.stops.load(Ordering::Acquire) {
            let now = Instant::now();
            if metrics_due.is_some_and(|due| due <= now) {
                let outcome = self.send_metrics(now + TRY_TIME_MAX);
                self.remark(&outcome);
                metrics_due = self.metrics_interval.map(|interval| Instant::now() + interval);
                continue;
            }
            if batch.due.is_some_and(|due| due <= now) {
                self.send_batch(&mut batch);
                continue;
            }
            let wakes = [metrics_due, batch.due].into_iter().flatten().min();
            let pause = wakes.map_or(Duration::from_secs(3600), |due| due.saturating_duration_since(now));
            if batch.spans.len() >= BATCH_MAX || batch.tries > 0 {
                // What comes meanwhile waits in the queue, which is bounded.
                thread::park_timeout(pause);
                continue;
            }
            match queue.recv_timeout(pause) {
                Ok(Item::Span(span)) => batch.add(*span),
                Ok(Item::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.flush(batch, queue);
    }

    /// Sends a batch that is due. Where it is not taken it waits, or is dropped.
    fn send_batch(&mut self, batch: &mut Batch) {
        let outcome = self.send_spans(&batch.spans, Instant::now() + TRY_TIME_MAX);
        self.remark(&outcome);
        batch.tries += 1;
        match outcome {
            Err(Refused::ForNow(_)) if batch.tries < TRIES_MAX => {
                let pause = RETRY_FIRST.saturating_mul(1 << (batch.tries - 1)).min(RETRY_LAST);
                batch.due = Some(Instant::now() + pause);
                return;
            }
            Err(_) => self.drop_spans(batch.spans.len()),
            Ok(()) => {}
        }
        *batch = Batch::default();
    }

    /// Sends what is left, within its time: the batch, the queue, the last metrics.
    fn flush(&mut self, mut batch: Batch, queue: &Receiver<Item>) {
        let until = Instant::now() + FLUSH_TIME_MAX;
        let mut goes_on = true;
        loop {
            while batch.spans.len() < BATCH_MAX {
                match queue.try_recv() {
                    Ok(Item::Span(span)) => batch.add(*span),
                    Ok(Item::Wake) => {}
                    Err(_) => break,
                }
            }
            if batch.spans.is_empty() {
                break;
            }
            goes_on = goes_on && Instant::now() < until;
            if goes_on {
                let outcome = self.send_spans(&batch.spans, until);
                self.remark(&outcome);
                goes_on = outcome.is_ok();
            }
            if !goes_on {
                self.drop_spans(batch.spans.len());
            }
            batch = Batch::default();
        }
        if goes_on && self.metrics_interval.is_some() && Instant::now() < until {
            let outcome = self.send_metrics(until);
            self.remark(&outcome);
        }
    }

    fn send_spans(&self, spans: &[Span], until: Instant) -> Result<(), Refused> {
        let body = messages::traces(&self.resource, spans, &self.outside.entropy);
        let answer = self.send("/v1/traces", &body, until)?;
        let mut taken = spans.len() as u64;
        if let Some((rejected, reason)) = messages::rejected(&answer) {
            // A collector counts spans, of which a request has several.
            let lost = rejected.min(taken);
            taken -= lost;
            self.counts.spans_dropped.fetch_add(lost, Ordering::Relaxed);
            tracing::warn!(spans = rejected, reason, "the collector of telemetry did not take all spans");
        }
        self.counts.spans_exported.fetch_add(taken, Ordering::Relaxed);
        Ok(())
    }

    fn send_metrics(&self, until: Instant) -> Result<(), Refused> {
        // The services end with the server.
        let Some(services) = self.services.upgrade() else { return Ok(()) };
        let samples = Metrics::samples(&services);
        let started_at_ms = services.metrics.started_at_ms;
        drop(services);
        let body = messages::metrics(&self.resource, &samples, started_at_ms, self.outside.clock.now_ms());
        let answer = self.send("/v1/metrics", &body, until)?;
        if let Some((points, reason)) = messages::rejected(&answer) {
            tracing::warn!(points, reason, "the collector of telemetry did not take all metrics");
        }
        Ok(())
    }

    fn send(&self, path: &str, body: &[u8], until: Instant) -> Result<Vec<u8>, Refused> {
        let headers = Arc::clone(&self.shared.headers.read().unwrap_or_else(PoisonError::into_inner));
        send(&self.endpoint, &headers, path, body, until)
    }

    fn drop_spans(&self, spans: usize) {
        self.counts.spans_dropped.fetch_add(spans as u64, Ordering::Relaxed);
    }

    /// Counts a failure, and tells the operator of trouble when it begins, now and then while it lasts, and when it ends.
    fn remark(&mut self, outcome: &Result<(), Refused>) {
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.trouble.is_known) {
                    tracing::info!(endpoint = %self.endpoint, "telemetry is exported again");
                }
                self.trouble.is_on = false;
            }
            Err(Refused::ForNow(reason) | Refused::ForEver(reason)) => {
                self.counts.exports_failed.fetch_add(1, Ordering::Relaxed);
                let pause = if self.trouble.is_on { COMPLAIN_EVERY } else { COMPLAIN_AGAIN };
                self.trouble.is_on = true;
                if self.trouble.told.is_none_or(|told| told.elapsed() >= pause) {
                    self.trouble.told = Some(Instant::now());
                    self.trouble.is_known = true;
                    tracing::warn!(
                        endpoint = %self.endpoint,
                        reason,
                        dropped = self.counts.spans_dropped.load(Ordering::Relaxed),
                        "telemetry cannot be exported for now; requests are answered as ever"
                    );
                }
            }
        }
    }
}

impl Batch {
    fn add(&mut self, span: Span) {
        let now = Instant::now();
        self.spans.push(span);
        let due = self.due.unwrap_or(now + BATCH_DELAY);
        self.due = Some(if self.spans.len() >= BATCH_MAX { now } else { due });
    }
}

/// One try. The answer's body, where it was a good one.
fn send(endpoint: &ServerUrl, headers: &Headers, path: &str, body: &[u8], until: Instant) -> Result<Vec<u8>, Refused> {
    let headers = headers.pairs();
    let request = Request {
        method: "POST",
        trust: None,
        path,
        media_type: MEDIA_TYPE,
        headers: &headers,
        body,
        until,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let answer = http_client::send(endpoint, &request).map_err(|error| Refused::ForNow(error.to_string()))?;
    match answer.status {
        200..=299 => Ok(answer.body),
        status @ (401 | 403) => Err(Refused::ForEver(format!(
            "it answered {status}: it wants another credential in the file of telemetry.otlp_headers_file"
        ))),
        404 => Err(Refused::ForEver(format!(
            "it answered 404 to {path}: telemetry.otlp_endpoint wants the URL that stands before /v1/traces, of the port \
                 for OTLP over HTTP (4318 as a rule)"
        ))),
        status if AGAIN.contains(&status) => Err(Refused::ForNow(format!("it answered {status}"))),
        status => Err(Refused::ForEver(format!("it answered {status}"))),
    }
}

/// Whether a collector takes what it is sent: asked with a message that holds no span.
///
/// # Errors
/// Why not.
pub(super) fn probe(endpoint: &ServerUrl, headers: &Headers) -> Result<(), String> {
    match send(endpoint, headers, "/v1/traces", &[], Instant::now() + PROBE_TIME_MAX) {
        Ok(_) => Ok(()),
        Err(Refused::ForNow(reason) | Refused::ForEver(reason)) => Err(reason),
    }
}
