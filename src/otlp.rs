//! Traces and metrics handed to a collector of OpenTelemetry, by OTLP over HTTP with Protocol Buffers. Off unless
//! `telemetry.otlp_endpoint` names one.
//!
//! [`context`] reads what a caller says of its trace, and decides which requests are traced. [`trace`] notes what a traced
//! request does and hands it to a bounded queue without ever waiting. [`messages`] makes the bytes, by [`protobuf`]; `exporter`
//! is the thread that sends them. Metrics are those of `src/metrics/`, converted each interval: there is no second set.
//!
//! A span holds the operation, the status, the error code and the request id: nothing of a request's headers but the ids of
//! the caller's trace, nothing of its path where that names no operation, nothing of its body, and no tenant.

pub mod context;
mod exporter;
pub mod headers;
pub mod messages;
pub mod protobuf;
pub mod trace;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::app::Services;
use crate::config::{SecretSources, Settings, Signals, Telemetry};
use crate::telemetry::error_chain;
use exporter::Exporter;
use headers::Headers;
use trace::{Item, Tracer};

/// How long a server that stops waits for what is left to be handed over.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(3);
/// How long the thread may take beyond that to end.
const END_TIME_MAX: Duration = Duration::from_millis(500);

/// What was handed over and what was not, since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// Spans that the collector took.
    pub spans_exported: AtomicU64,
    /// Spans for which there was no room, or which the collector did not take.
    pub spans_dropped: AtomicU64,
    /// Tries that failed, of spans and of metrics.
    pub exports_failed: AtomicU64,
}

/// What the exporter and whoever stops or reloads it share.
#[derive(Debug)]
struct Shared {
    headers: RwLock<Arc<Headers>>,
    stops: AtomicBool,
}

/// A running export.
pub struct Otlp {
    tracer: Option<Arc<Tracer>>,
    shared: Arc<Shared>,
    wake: SyncSender<Item>,
    thread: Thread,
    ended: Receiver<()>,
}

impl Otlp {
    /// Starts the export that the settings ask for; `None` where they ask for none.
    ///
    /// # Errors
    /// A sentence for the operator: the headers cannot be read, or there is no thread.
    pub fn start(settings: &Settings, services: &Arc<Services>) -> Result<Option<Otlp>, String> {
        let telemetry = &settings.telemetry;
        let Some(endpoint) = telemetry.otlp_endpoint.clone() else { return Ok(None) };
        let headers = Headers::read(&settings.secrets, &settings.data_dir).map_err(|error| error_chain(&error))?;
        if !headers.is_empty() && !endpoint.is_encrypted() && !endpoint.is_loopback() {
            tracing::warn!(
                %endpoint,
                "the headers for telemetry go to another machine unencrypted: whoever is on the way reads them; use https://"
            );
        }
        let shared = Arc::new(Shared { headers: RwLock::new(Arc::new(headers)), stops: AtomicBool::new(false) });
        let (wake, queue) = sync_channel(telemetry.queue_spans);
        let counts = Arc::clone(&services.metrics.otlp);
        let entropy = services.outside.entropy.clone();
        let tracer = (telemetry.signals != Signals::Metrics)
            .then(|| Arc::new(Tracer::new(telemetry.sampling_ratio, wake.clone(), entropy, counts)));
        let exporter = Exporter::new(endpoint.clone(), telemetry, Arc::clone(&shared), services);
        let (end, ended) = sync_channel(1);
        let thread = thread::Builder::new()
            .name("keyward-otlp".to_owned())
            .spawn(move || {
                exporter.run(&queue);
                let _ = end.send(());
            })
            .map_err(|error| format!("cannot start the thread that exports telemetry: {error}"))?;
        tracing::info!(%endpoint, signals = telemetry.signals.word(), "telemetry is exported by OTLP");
        Ok(Some(Otlp { tracer, shared, wake, thread: thread.thread().clone(), ended }))
    }

    /// What begins traces; `None` where only metrics are exported.
    pub fn tracer(&self) -> Option<Arc<Tracer>> {
        self.tracer.clone()
    }

    /// A handle for changes while it runs.
    pub fn changes(&self) -> Changes {
        Changes { tracer: self.tracer.clone(), shared: Arc::clone(&self.shared) }
    }

    /// Hands over what is left, for some seconds at most.
    pub fn stop(self) {
        self.shared.stops.store(true, Ordering::Release);
        // Where the queue is full the thread does not wait at it.
        let _ = self.wake.try_send(Item::Wake);
        self.thread.unpark();
        if self.ended.recv_timeout(FLUSH_TIME_MAX + END_TIME_MAX) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("the collector of telemetry did not answer in time; the last spans and metrics are lost");
        }
    }
}

/// Whether the collector of the settings takes what it is sent; `None` where none is set up. Blocks, for some seconds at most.
///
/// # Errors
/// Why not.
pub fn probe(settings: &Settings) -> Option<Result<(), String>> {
    let endpoint = settings.telemetry.otlp_endpoint.as_ref()?;
    let headers = Headers::read(&settings.secrets, &settings.data_dir);
    Some(headers.map_err(|error| error_chain(&error)).and_then(|headers| exporter::probe(endpoint, &headers)))
}

/// What can change while telemetry is exported.
pub struct Changes {
    tracer: Option<Arc<Tracer>>,
    shared: Arc<Shared>,
}

impl Changes {
    /// Puts the ratio in force, and reads the headers again. Headers that cannot be read are logged, and those from before
    /// stay; whether they could be.
    pub fn reload(&self, telemetry: &Telemetry, secrets: &SecretSources, data_dir: &Path) -> bool {
        if let Some(tracer) = &self.tracer {
            tracer.set_ratio(telemetry.sampling_ratio);
        }
        match Headers::read(secrets, data_dir) {
            Ok(headers) => {
                *self.shared.headers.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(headers);
                true
            }
            Err(error) => {
                tracing::error!(error = error_chain(&error), "the headers for telemetry stay as they were");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests;
