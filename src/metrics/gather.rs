//! Asks every part for its numbers.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use keyward_query::search::Freshness;
use keyward_storage::Distribution;

use super::process;
use super::recorder::{FOUND, INDEXES, LATENCIES_NS, Outcome, VERIFIED};
use super::samples::Samples;
use super::table::{self as metric, Metric};
use crate::api::OPERATIONS;
use crate::app::Services;
use crate::health::{self, Reason};
use crate::replication::node::{Role, SUSPENDED};

/// What a request that names no operation counts as.
pub const NO_OPERATION: &str = "(none)";
/// Nanoseconds in the unit of metrics.
const SECOND_NS: f64 = 1e9;

/// Everything, in the order of the table.
pub fn gather(services: &Services) -> Samples {
    let mut to = Samples::default();
    to.add(&metric::BUILD, &[Cow::Borrowed(env!("CARGO_PKG_VERSION"))], 1);
    let reasons = health::reasons(services);
    for reason in Reason::ALL {
        to.add(&metric::DEGRADED, &[reason.word().into()], u64::from(reasons.contains(reason)));
    }
    requests(services, &mut to);
    storage(services, &mut to);
    events_and_queries(services, &mut to);
    search(services, &mut to);
    secrets_and_trail(services, &mut to);
    telemetry(services, &mut to);
    replication(services, &mut to);
    guesses(services, &mut to);
    of_process(services, &mut to);
    to
}

fn requests(services: &Services, to: &mut Samples) {
    let counted = services.metrics.requests.read();
    let name = |operation: usize| OPERATIONS.get(operation).map_or(NO_OPERATION, |entry| entry.name);
    for operation in 0..counted.operations() {
        for outcome in Outcome::all() {
            let count = counted.requests(operation, outcome);
            // A rate needs a first value: each operation has its success from the beginning.
            if count > 0 || outcome == Outcome::OK {
                let (status, code) = outcome.labels();
                to.add(&metric::REQUESTS, &[name(operation).into(), status.to_string().into(), code.into()], count);
            }
        }
    }
    for operation in 0..counted.operations() {
        let (counts, sum) = counted.latencies(operation);
        if counts.iter().any(|count| *count > 0) {
            let values = (&LATENCIES_NS[..], counts, sum);
            to.add_buckets(&metric::REQUEST_SECONDS, &[name(operation).into()], values, SECOND_NS);
        }
    }
    let http = &services.metrics.http;
    let (opened, open) = http.connections();
    to.set(&metric::CONNECTIONS, open);
    to.set(&metric::CONNECTIONS_OPENED, opened);
    let (bodies, bodies_max) = http.bodies();
    to.set(&metric::BODY_BYTES, bodies);
    to.set(&metric::BODY_BYTES_MAX, bodies_max);
    for (place, (_, code)) in VERIFIED.iter().enumerate() {
        to.add(&metric::VERIFICATIONS, &[Cow::Borrowed(*code)], counted.verifications(place));
    }
    for (passed, word) in [(true, "passed"), (false, "refused")] {
        to.add(&metric::DECISIONS, &[word.into()], counted.decisions(passed));
    }
    for (index, name) in INDEXES.into_iter().enumerate() {
        for (what, result) in FOUND.into_iter().enumerate() {
            to.add(&metric::LOOKUPS, &[name.into(), result.into()], counted.lookups(index, what));
        }
    }
}

fn storage(services: &Services, to: &mut Samples) {
    let stats = services.storage.stats();
    to.set(&metric::HOT_KEYS, stats.hot_keys as u64);
    to.set(&metric::HOT_BYTES, stats.hot_bytes);
    to.set(&metric::HOT_EVICTIONS, stats.hot_evictions);
    to.set(&metric::RATE_SUBJECTS, stats.rate_subjects as u64);
    to.set(&metric::RATE_SUBJECTS_MAX, stats.rate_subjects_max as u64);
    to.set(&metric::LOG_POSITION, stats.position);
    to.set(&metric::LOG_RECORDS, stats.transactions);
    to.set(&metric::LOG_APPENDED, stats.log_bytes_written);
    to.set(&metric::LOG_BYTES, stats.log_bytes);
    times(&metric::SYNC_SECONDS, &stats.sync_times, to);
    let sizes = &stats.batch_sizes;
    to.add_buckets(&metric::BATCH_RECORDS, &[], (sizes.bounds, &sizes.counts, sizes.sum), 1.0);
    times(&metric::BATCH_SECONDS, &stats.batch_times, to);
    to.set(&metric::WRITER_QUEUE, stats.waiting_work as u64);
    to.set(&metric::WRITER_REFUSED, stats.refused_work);
    to.set(&metric::WAITING_SPENDS, stats.waiting_spends as u64);
    to.set(&metric::CHECKPOINT_LAG, stats.position.saturating_sub(stats.checkpoint));
    to.set(&metric::CHECKPOINTS, stats.checkpoints);
    times(&metric::CHECKPOINT_SECONDS, &stats.checkpoint_times, to);
    to.set(&metric::READ_ONLY, u64::from(stats.read_only));
    to.set_if(&metric::FREE_BYTES, Some(stats.free_bytes).filter(|bytes| *bytes < u64::MAX));
    to.set(&metric::REPLAYED, stats.replayed);
    to.set(&metric::TORN_BYTES, stats.torn_bytes);
    to.set(&metric::DAMAGED_READS, services.metrics.damaged_reads.load(Ordering::Relaxed));
}

fn times(metric: &'static Metric, times: &Distribution, to: &mut Samples) {
    to.add_buckets(metric, &[], (times.bounds, &times.counts, times.sum), SECOND_NS);
}

fn events_and_queries(services: &Services, to: &mut Samples) {
    if let Some(events) = &services.events {
        let stats = events.stats();
        to.set(&metric::EVENTS_QUEUE, stats.queue_depth);
        to.set(&metric::EVENTS_QUEUE_MAX, stats.queue_capacity);
        to.set(&metric::EVENTS_RECORDED, stats.written);
        to.set(&metric::EVENTS_DROPPED, stats.dropped);
        to.set_seconds(&metric::EVENTS_LAG, stats.lag_ms as f64 / 1e3);
        to.set(&metric::EVENTS_JOURNAL, stats.journal_bytes);
        to.set(&metric::EVENTS_UNSEALED, stats.unsealed_rows);
        to.set(&metric::EVENTS_FILES, stats.parts);
        to.set(&metric::EVENTS_FILE_BYTES, stats.part_bytes);
        to.set(&metric::EVENTS_SEALS, stats.seals);
    }
    if let Some(query) = &services.query {
        let engine = query.engine();
        let ((running, waiting), (begun, refused)) = (engine.length(), engine.turns());
        to.set(&metric::QUERIES_RUNNING, running as u64);
        to.set(&metric::QUERIES_WAITING, waiting as u64);
        to.set(&metric::QUERIES, begun);
        to.set(&metric::QUERIES_REFUSED, refused);
        to.set(&metric::QUERY_BYTES, engine.memory_used() as u64);
        to.set(&metric::QUERY_BYTES_MAX, engine.memory_limit() as u64);
    }
}

fn search(services: &Services, to: &mut Samples) {
    let Some(search) = &services.search else { return };
    let stats = search.stats();
    let (state, behind_ms) = match stats.freshness {
        _ if stats.failing => ("failing", None),
        Freshness::Partial => ("partial", None),
        Freshness::Current => ("current", Some(0)),
        Freshness::Behind(ms) => ("behind", Some(ms)),
    };
    for other in ["current", "behind", "partial", "failing"] {
        to.add(&metric::SEARCH_STATE, &[other.into()], u64::from(other == state));
    }
    to.set(&metric::SEARCH_ROWS, stats.rows);
    to.set(&metric::SEARCH_SEGMENTS, stats.segments);
    to.set(&metric::SEARCH_COMMITS, stats.commits);
    // Asked after the index: what came in between would make it look as if it were ahead.
    let position = services.storage.stats().position;
    to.set(&metric::SEARCH_LAG, position.saturating_sub(stats.position));
    if let Some(ms) = behind_ms {
        to.set_seconds(&metric::SEARCH_BEHIND, ms as f64 / 1e3);
    }
}

fn secrets_and_trail(services: &Services, to: &mut Samples) {
    to.set(&metric::VAULT_READY, u64::from(services.vault.is_set_up()));
    to.set(&metric::VAULT_MISSING, services.vault.unreadable_data_keys());
    to.set(&metric::VAULT_FAILURES, services.vault.failures());
    if !services.exports.is_empty()
        && let Ok(snapshot) = services.storage.snapshot()
    {
        for export in &services.exports {
            if let Ok(lag) = export.lag(&snapshot) {
                to.add(&metric::EXPORT_LAG, &[export.name.into()], lag.events);
            }
        }
    }
}

fn replication(services: &Services, to: &mut Samples) {
    let node = &services.node;
    let role = node.role();
    for other in [Role::Leader.word(), Role::Follower.word(), Role::Fenced.word(), SUSPENDED] {
        to.add(&metric::ROLE, &[other.into()], u64::from(other == node.standing()));
    }
    to.set(&metric::TERM, node.term().0);
    if role != Role::Leader {
        let staleness = node.staleness_ms();
        if staleness < u64::MAX {
            to.set_seconds(&metric::STALENESS, staleness as f64 / 1e3);
        }
    }
    to.set(&metric::REPLICATION_LAG, node.lag_records());
    to.set_if(&metric::LEADER_REACHABLE, (role != Role::Leader).then(|| u64::from(node.is_leader_reachable())));
    let followers = node.followers();
    let (connected, gone): (Vec<_>, Vec<_>) = followers.iter().partition(|follower| follower.connected);
    to.add(&metric::FOLLOWERS, &["connected".into()], connected.len() as u64);
    to.add(&metric::FOLLOWERS, &["gone".into()], gone.len() as u64);
    let position = node.position().0;
    let lag = connected.iter().map(|follower| position.saturating_sub(follower.position.0)).max();
    to.set(&metric::FOLLOWER_LAG, lag.unwrap_or(0));
    to.set(&metric::RIVAL_LEADER, u64::from(node.rival().is_some()));
    if let Some(lease) = node.lease() {
        let shown = lease.shown();
        to.set(&metric::LEASE_HELD, u64::from(shown.held && shown.left_ms > 0));
        to.set_seconds(&metric::LEASE_LEFT, shown.left_ms as f64 / 1e3);
        let (taken, lost, failures) = lease.counts();
        to.add(&metric::LEASE_CHANGES, &["taken".into()], taken);
        to.add(&metric::LEASE_CHANGES, &["lost".into()], lost);
        to.set(&metric::LEASE_FAILURES, failures);
    }
    let counted = services.metrics.replication.read();
    to.set(&metric::FORWARDED, counted.forwarded);
    to.set(&metric::FORWARD_FAILED, counted.unreachable);
    to.set(&metric::ALONE, counted.alone);
    to.set(&metric::UNDELIVERED, services.events.as_ref().map_or(0, |events| events.undelivered()));
    to.add(&metric::PARCELS, &["taken".into()], counted.carried);
    to.add(&metric::PARCELS, &["failed".into()], counted.not_carried);
}

fn guesses(services: &Services, to: &mut Samples) {
    let guesses = services.guesses.counts();
    to.set(&metric::GUESSES, guesses.attempts);
    to.add(&metric::GUESSES_SLOWED, &["yes".into()], guesses.slowed);
    to.add(&metric::GUESSES_SLOWED, &["no".into()], guesses.unslowed);
    to.set(&metric::GUESSES_HELD, guesses.held as u64);
}

fn telemetry(services: &Services, to: &mut Samples) {
    let counts = &services.metrics.otlp;
    to.set(&metric::OTLP_SPANS, counts.spans_exported.load(Ordering::Relaxed));
    to.set(&metric::OTLP_DROPPED, counts.spans_dropped.load(Ordering::Relaxed));
    to.set(&metric::OTLP_FAILURES, counts.exports_failed.load(Ordering::Relaxed));
}

fn of_process(services: &Services, to: &mut Samples) {
    let process = process::look();
    to.set_seconds(&metric::PROCESS_START, services.metrics.started_at_ms as f64 / 1e3);
    to.set_seconds(&metric::PROCESS_CPU, process.cpu.as_secs_f64());
    to.set_if(&metric::PROCESS_RESIDENT, process.resident_bytes);
    to.set_if(&metric::PROCESS_VIRTUAL, process.virtual_bytes);
    to.set_if(&metric::PROCESS_FILES, process.open_files);
    to.set_if(&metric::PROCESS_FILES_MAX, process.open_files_max);
    to.set_if(&metric::PROCESS_THREADS, process.threads);
}
