//! What can change of the HTTP layer while it runs: limits, and whether each request has a line in the log. All of it is read
//! by requests without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::{LogRequests, Settings};

/// Limits in force. A request that has begun may still end by the ones before.
#[derive(Debug)]
pub struct Limits {
    max_body_bytes: AtomicUsize,
    request_deadline_ms: AtomicU64,
    header_read_timeout_ms: AtomicU64,
    idle_timeout_ms: AtomicU64,
    reply_stall_timeout_ms: AtomicU64,
    shutdown_deadline_ms: AtomicU64,
    logs_all: AtomicBool,
}

impl Limits {
    /// As the settings say.
    pub fn new(settings: &Settings) -> Limits {
        let zero = || AtomicU64::new(0);
        let limits = Limits {
            max_body_bytes: AtomicUsize::new(0),
            request_deadline_ms: zero(),
            header_read_timeout_ms: zero(),
            idle_timeout_ms: zero(),
            reply_stall_timeout_ms: zero(),
            shutdown_deadline_ms: zero(),
            logs_all: AtomicBool::new(false),
        };
        limits.change(settings);
        limits
    }

    /// Puts these in force.
    pub fn change(&self, settings: &Settings) {
        let http = &settings.http;
        self.logs_all.store(settings.log.requests == LogRequests::All, Ordering::Relaxed);
        let set = |cell: &AtomicU64, time: Duration| cell.store(millis(time), Ordering::Relaxed);
        self.max_body_bytes.store(http.max_body_bytes, Ordering::Relaxed);
        set(&self.request_deadline_ms, http.request_deadline);
        set(&self.header_read_timeout_ms, http.header_read_timeout);
        set(&self.idle_timeout_ms, http.idle_timeout);
        set(&self.reply_stall_timeout_ms, http.reply_stall_timeout);
        set(&self.shutdown_deadline_ms, http.shutdown_deadline);
    }

    /// Whether a request that was carried out has a line in the log, too.
    pub fn logs_all(&self) -> bool {
        self.logs_all.load(Ordering::Relaxed)
    }

    /// Bytes of one request's body.
    pub fn max_body_bytes(&self) -> usize {
        self.max_body_bytes.load(Ordering::Relaxed)
    }

    /// From the end of a request's head to its reply.
    pub fn request_deadline(&self) -> Duration {
        time(&self.request_deadline_ms)
    }

    /// From the first byte of a request to the end of its head.
    pub fn header_read_timeout(&self) -> Duration {
        time(&self.header_read_timeout_ms)
    }

    /// How long a connection may stay open without a request.
    pub fn idle_timeout(&self) -> Duration {
        time(&self.idle_timeout_ms)
    }

    /// How long a client may take for the next piece of a reply.
    pub fn reply_stall_timeout(&self) -> Duration {
        time(&self.reply_stall_timeout_ms)
    }

    /// How long running requests may take once the server was asked to stop.
    pub fn shutdown_deadline(&self) -> Duration {
        time(&self.shutdown_deadline_ms)
    }
}

fn time(millis: &AtomicU64) -> Duration {
    Duration::from_millis(millis.load(Ordering::Relaxed))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
