//! `status` on an open store.

use std::fs;
use std::path::Path;

use keyward_query::search::Freshness;
use keyward_storage::records::{self, workspace};

use super::super::status::{
    CountsShown, DiskShown, EventsShown, ExportLag, FollowerShown, LeaderShown, LeaseShown, QueriesShown, ReasonShown,
    ReplicationShown, RivalShown, SearchShown, ServerShown, Status, StorageShown, VaultShown,
};
use super::unreadable;
use crate::app::Services;
use crate::health;
use crate::metrics::process;
use crate::metrics::recorder::Outcome;
use crate::replication::lease::Shown;
use crate::replication::node::RivalStatus;

/// How the server is, or what the directory holds.
///
/// # Errors
/// A sentence for the operator.
pub fn status(services: &Services) -> Result<Status, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let count = |table| snapshot.count(table).map_err(|error| unreadable(&error));
    let workspaces = workspace::list(&snapshot).map_err(|error| unreadable(&error))?;
    let live = workspaces.iter().filter(|(_, row)| row.deleted_at.is_none()).count();
    let counts = CountsShown {
        workspaces: live as u64,
        keys: count(records::KEY_BY_API)?,
        root_keys: count(records::ROOT_KEY)?,
        identities: count(records::IDENTITY)?,
    };
    // A server looked at its start, and goes by what it found then; a directory is looked at now.
    let is_running = services.search.is_some();
    if !is_running {
        services.vault.look(&snapshot).map_err(|error| unreadable(&error))?;
    }
    let mut exports = Vec::new();
    for export in &services.exports {
        let lag = export.lag(&snapshot).map_err(|error| unreadable(&error))?;
        exports.push(ExportLag { name: export.name.to_owned(), lag_events: lag.events, trouble: export.trouble() });
    }
    let reason =
        |reason: health::Reason| ReasonShown { reason: reason.word().to_owned(), advice: reason.advice().to_owned() };
    let stats = services.storage.stats();
    Ok(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        replication: is_running.then(|| replication(services)),
        server: is_running.then(|| server(services)),
        data_dir: services.data_dir.display().to_string(),
        degraded: health::reasons(services).into_iter().map(reason).collect(),
        counts,
        storage: StorageShown {
            position: stats.position,
            checkpoint: stats.checkpoint,
            read_only: stats.read_only,
            free_bytes: Some(stats.free_bytes).filter(|bytes| *bytes < u64::MAX),
            hot_keys: stats.hot_keys as u64,
            hot_bytes: stats.hot_bytes,
            rate_subjects: stats.rate_subjects as u64,
            waiting_changes: stats.waiting_work as u64,
            waiting_spends: stats.waiting_spends as u64,
        },
        disk: disk(&services.data_dir),
        events: services.events.as_ref().map(|events| {
            let stats = events.stats();
            EventsShown {
                queue: stats.queue_depth,
                queue_max: stats.queue_capacity,
                recorded: stats.written,
                dropped: stats.dropped,
                unsealed_rows: stats.unsealed_rows,
                files: stats.parts,
            }
        }),
        queries: services.query.as_ref().map(|query| {
            let (running, waiting) = query.engine().length();
            QueriesShown { running: running as u64, waiting: waiting as u64 }
        }),
        search: services.search.as_ref().map(|search| {
            let found = search.stats();
            let state = match found.freshness {
                _ if found.failing => "failing",
                Freshness::Current => "current",
                Freshness::Behind(_) => "behind",
                Freshness::Partial => "partial",
            };
            let lag_records = stats.position.saturating_sub(found.position);
            SearchShown { state: state.to_owned(), rows: found.rows, lag_records }
        }),
        vault: VaultShown {
            ready: services.vault.is_set_up(),
            unreadable_data_keys: services.vault.unreadable_data_keys(),
            failures: services.vault.failures(),
        },
        exports,
    })
}

fn replication(services: &Services) -> ReplicationShown {
    let node = &services.node;
    let position = node.position().0;
    let leader = node.link().filter(|_| !node.is_leader()).map(|link| LeaderShown {
        address: link.leader().to_string(),
        reachable: node.is_leader_reachable(),
        lag_records: node.lag_records(),
        staleness_ms: Some(node.staleness_ms()).filter(|millis| *millis < u64::MAX),
        undelivered_batches: services.events.as_ref().map_or(0, |events| events.undelivered()),
    });
    let followers = node.followers().into_iter().map(|follower| FollowerShown {
        name: follower.name,
        address: follower.address.to_string(),
        connected: follower.connected,
        position: follower.position.0,
        lag_records: position.saturating_sub(follower.position.0),
        silent_ms: follower.silent_ms,
    });
    let lease = node.lease().map(|lease| {
        let Shown { holder, held, left_ms, obstacle, trouble } = lease.shown();
        LeaseShown { holder, held, left_ms, obstacle, trouble }
    });
    ReplicationShown {
        role: node.standing().to_owned(),
        term: node.term().0,
        position,
        leader,
        lease,
        rival: node.rival().map(|RivalStatus { name, silent_ms }| RivalShown { name, silent_ms }),
        followers: followers.collect(),
    }
}

fn server(services: &Services) -> ServerShown {
    let counted = services.metrics.requests.read();
    let of = |operation| Outcome::all().map(|outcome| counted.requests(operation, outcome)).sum::<u64>();
    ServerShown {
        pid: std::process::id(),
        started_at: services.metrics.started_at_ms,
        uptime_seconds: services.metrics.uptime_s(),
        connections: services.metrics.http.connections().1,
        requests: (0..counted.operations()).map(of).sum(),
        memory_bytes: process::look().resident_bytes,
    }
}

fn disk(data_dir: &Path) -> DiskShown {
    DiskShown {
        records_bytes: fs::metadata(data_dir.join("records.redb")).map_or(0, |metadata| metadata.len()),
        log_bytes: bytes_below(&data_dir.join("log")),
        events_bytes: bytes_below(&data_dir.join("events")),
        search_bytes: bytes_below(&data_dir.join("search")),
    }
}

/// Bytes of all files below a directory. Files that go away meanwhile count as nothing.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}
