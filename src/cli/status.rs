//! `keyward status`: how the server is, or what lies in a directory that none runs on.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::ask::StoreArguments;
use super::vault::NoArguments;
use super::{SecretsArguments, text};

/// `keyward status`.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    #[command(flatten)]
    secrets: SecretsArguments,
    #[command(flatten)]
    store: StoreArguments,
}

/// Answer of `status`. What only a running server has is absent where none runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version that answers: the server's, or this program's.
    pub version: String,
    /// The server's process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerShown>,
    /// The data directory.
    pub data_dir: String,
    /// Why the server does not keep all that it promises; empty where it does.
    pub degraded: Vec<ReasonShown>,
    /// How many there are of what.
    pub counts: CountsShown,
    /// The records and their log.
    pub storage: StorageShown,
    /// Bytes on disk, by part.
    pub disk: DiskShown,
    /// Recorded events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsShown>,
    /// Analytics queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queries: Option<QueriesShown>,
    /// The search index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<SearchShown>,
    /// The vault.
    pub vault: VaultShown,
    /// Live exports of the audit trail.
    pub exports: Vec<ExportLag>,
    /// This node among those with the same records.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replication: Option<ReplicationShown>,
}

/// A node among those with the same records.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicationShown {
    /// `leader`, `follower`, `fenced` or `suspended`.
    pub role: String,
    /// The newest term of its log.
    pub term: u64,
    /// The last record that it has.
    pub position: u64,
    /// Whom it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderShown>,
    /// The lease that says who leads, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseShown>,
    /// Another node that leads in the same term.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rival: Option<RivalShown>,
    /// Who follows it, or has since it started.
    pub followers: Vec<FollowerShown>,
}

/// Another node that leads in this one's term.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RivalShown {
    /// Its name, or its address.
    pub name: String,
    /// Milliseconds since it last said something.
    pub silent_ms: u64,
}

/// The lease that says who leads.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseShown {
    /// Whose it is; absent where it is nobody's, or not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Whether it is this node's.
    pub held: bool,
    /// Until this node has to stop, or another's may be taken.
    pub left_ms: u64,
    /// Why this node does not take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
    /// Why what keeps it gave no answer last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// The node that is followed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaderShown {
    /// Where it is.
    pub address: String,
    /// Whether it is heard.
    pub reachable: bool,
    /// Records that it is known to have and this node has not.
    pub lag_records: u64,
    /// Milliseconds since this node had all that it had; absent where that was never so since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staleness_ms: Option<u64>,
    /// Batches of this node's events that it does not have yet.
    pub undelivered_batches: u64,
}

/// A node that follows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FollowerShown {
    /// As its operator calls it.
    pub name: String,
    /// Where it connects from.
    pub address: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Up to here its disk has the log.
    pub position: u64,
    /// Records behind that.
    pub lag_records: u64,
    /// Milliseconds since it last said something.
    pub silent_ms: u64,
}

/// The server's process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerShown {
    /// Its number.
    pub pid: u32,
    /// Unix ms.
    pub started_at: u64,
    /// Seconds.
    pub uptime_seconds: u64,
    /// Open connections.
    pub connections: u64,
    /// Requests answered since the start.
    pub requests: u64,
    /// Bytes in memory, where the system tells.
    pub memory_bytes: Option<u64>,
}

/// A reason to call the server degraded.
#[derive(Debug, Serialize, Deserialize)]
pub struct ReasonShown {
    /// As in health and metrics.
    pub reason: String,
    /// What it means, and what to do.
    pub advice: String,
}

/// How many there are of what.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CountsShown {
    /// Workspaces that are not deleted.
    pub workspaces: u64,
    /// Keys that are not deleted.
    pub keys: u64,
    /// Root keys, revoked ones included.
    pub root_keys: u64,
    /// Identities.
    pub identities: u64,
}

/// The records and their log.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StorageShown {
    /// Newest durable record of the log.
    pub position: u64,
    /// Record of the last checkpoint.
    pub checkpoint: u64,
    /// Whether changes are refused for lack of space.
    pub read_only: bool,
    /// Free bytes on the disk, where the system tells.
    pub free_bytes: Option<u64>,
    /// Keys in memory, and their bytes.
    pub hot_keys: u64,
    /// Bytes of them, roughly.
    pub hot_bytes: u64,
    /// Rate-limit subjects in memory.
    pub rate_subjects: u64,
    /// Changes that wait for the writer.
    pub waiting_changes: u64,
    /// Keys whose spent credits are not journaled yet.
    pub waiting_spends: u64,
}

/// Bytes on disk, by part.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskShown {
    /// `records.redb`.
    pub records_bytes: u64,
    /// `log/`.
    pub log_bytes: u64,
    /// `events/`.
    pub events_bytes: u64,
    /// `search/`.
    pub search_bytes: u64,
}

/// Recorded events.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventsShown {
    /// Waiting to be recorded.
    pub queue: u64,
    /// That may wait.
    pub queue_max: u64,
    /// Recorded since the start.
    pub recorded: u64,
    /// Lost since the start.
    pub dropped: u64,
    /// In memory, not in files yet.
    pub unsealed_rows: u64,
    /// Parquet files.
    pub files: u64,
}

/// Analytics queries.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueriesShown {
    /// That run.
    pub running: u64,
    /// That wait for their turn.
    pub waiting: u64,
}

/// The search index.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchShown {
    /// `current`, `behind`, `partial` or `failing`.
    pub state: String,
    /// Its rows.
    pub rows: u64,
    /// Records of the log that it does not have yet.
    pub lag_records: u64,
}

/// The vault.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VaultShown {
    /// Whether a master key is configured.
    pub ready: bool,
    /// Data keys whose master key is not configured.
    pub unreadable_data_keys: u64,
    /// Copies that could not be opened since the start.
    pub failures: u64,
}

/// A live export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportLag {
    /// `file` or `syslog`.
    pub name: String,
    /// Events not handed over yet.
    pub lag_events: u64,
    /// What keeps it, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Runs `keyward status`.
pub fn run(arguments: StatusArguments) -> ExitCode {
    match arguments.store.reach_with(arguments.secrets) {
        Ok(reach) => reach.run("status", &NoArguments {}, Status::text),
        Err(answered) => answered,
    }
}

impl Status {
    fn text(&self) -> String {
        let mut fields: Vec<(&str, String)> = Vec::new();
        match &self.server {
            Some(server) => fields.extend([
                ("server", format!("runs, version {}, process {}", self.version, server.pid)),
                ("since", format!("{} ({})", text::time(server.started_at), duration(server.uptime_seconds))),
                ("memory", server.memory_bytes.map_or_else(|| "unknown".to_owned(), bytes)),
                ("connections", server.connections.to_string()),
                ("requests", format!("{} since the start", server.requests)),
            ]),
            None => fields.push(("server", format!("none runs; this is version {}", self.version))),
        }
        let storage = &self.storage;
        let behind = storage.position.saturating_sub(storage.checkpoint);
        fields.extend([
            ("data directory", self.data_dir.clone()),
            (
                "holds",
                format!(
                    "{} workspaces, {} keys, {} root keys, {} identities",
                    self.counts.workspaces, self.counts.keys, self.counts.root_keys, self.counts.identities
                ),
            ),
            ("log position", format!("{}, {behind} after the checkpoint", storage.position)),
            (
                "on disk",
                format!(
                    "records {}, log {}, events {}, search {}",
                    bytes(self.disk.records_bytes),
                    bytes(self.disk.log_bytes),
                    bytes(self.disk.events_bytes),
                    bytes(self.disk.search_bytes)
                ),
            ),
            (
                "free space",
                match (storage.free_bytes, storage.read_only) {
                    (free, true) => {
                        format!("{}: too little, changes are refused", free.map_or_else(String::new, bytes))
                    }
                    (Some(free), false) => bytes(free),
                    (None, false) => "unknown".to_owned(),
                },
            ),
            (
                "in memory",
                format!(
                    "{} keys ({}), {} rate-limit subjects",
                    storage.hot_keys,
                    bytes(storage.hot_bytes),
                    storage.rate_subjects
                ),
            ),
            ("waiting changes", format!("{}, spends of {} keys", storage.waiting_changes, storage.waiting_spends)),
        ]);
        if let Some(events) = &self.events {
            let EventsShown { queue, queue_max, recorded, dropped, unsealed_rows, files } = events;
            fields.push((
                "events",
                format!(
                    "{recorded} recorded, {dropped} lost, {queue} of {queue_max} waiting, {unsealed_rows} unsealed, {files} files"
                ),
            ));
        }
        if let Some(QueriesShown { running, waiting }) = &self.queries {
            fields.push(("queries", format!("{running} running, {waiting} waiting")));
        }
        if let Some(SearchShown { state, rows, lag_records }) = &self.search {
            fields.push(("search index", format!("{state}, {rows} rows, {lag_records} records behind")));
        }
        let vault = match (self.vault.ready, self.vault.unreadable_data_keys, self.vault.failures) {
            (false, 0, 0) => "no master key is configured".to_owned(),
            (_, missing, failures) => format!("{missing} data keys without master key, {failures} failed decryptions"),
        };
        fields.push(("vault", vault));
        for export in &self.exports {
            let trouble = export.trouble.as_deref().map_or_else(String::new, |trouble| format!(": {trouble}"));
            fields.push(("audit export", format!("{}, {} events behind{trouble}", export.name, export.lag_events)));
        }
        if let Some(replication) = &self.replication {
            replication.fields(&mut fields);
        }
        match self.degraded.as_slice() {
            [] => fields.push(("health", "ok".to_owned())),
            reasons => fields
                .extend(reasons.iter().map(|reason| ("DEGRADED", format!("{}: {}", reason.reason, reason.advice)))),
        }
        text::fields(&fields)
    }
}

impl ReplicationShown {
    /// Adds its lines.
    fn fields(&self, fields: &mut Vec<(&'static str, String)>) {
        fields.push(("node", format!("{}, term {}, position {}", self.role, self.term, self.position)));
        if let Some(RivalShown { name, silent_ms }) = &self.rival {
            let term = self.term;
            fields.push(("also leads", format!("{name}, in term {term}, too; heard {silent_ms} ms ago")));
        }
        if let Some(LeaseShown { holder, held, left_ms, obstacle, trouble }) = &self.lease {
            let whose = match (held, holder) {
                (true, _) => format!("this node's for another {left_ms} ms"),
                (false, Some(holder)) => format!("{holder}'s for another {left_ms} ms"),
                (false, None) => "nobody's, or not known".to_owned(),
            };
            fields.push(("lease", whose));
            for (what, why) in [("in the way", obstacle), ("trouble", trouble)] {
                fields.extend(why.iter().map(|why| (what, why.clone())));
            }
        }
        if let Some(leader) = &self.leader {
            let LeaderShown { address, reachable, lag_records, staleness_ms, undelivered_batches } = leader;
            let level = staleness_ms.map_or_else(
                || "not level with it since the start".to_owned(),
                |millis| format!("level with it {millis} ms ago"),
            );
            let heard = if *reachable { "" } else { ", which is not reachable" };
            fields.push(("follows", format!("{address}{heard}: {lag_records} records behind, {level}")));
            fields.push(("events", format!("{undelivered_batches} batches not with the leader yet")));
        }
        for follower in &self.followers {
            let FollowerShown { name, address, connected, position, lag_records, silent_ms } = follower;
            let state = if *connected { "connected" } else { "gone" };
            fields.push((
                "follower",
                format!(
                    "{name} at {address}: {state}, position {position}, {lag_records} records behind, heard {silent_ms} ms ago"
                ),
            ));
        }
    }
}

/// A size as people read it: three digits at most before the unit.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A time as people read it, by its two largest parts.
fn duration(seconds: u64) -> String {
    let parts = [(seconds / 86_400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "min"), (seconds % 60, "s")];
    let first = parts.iter().position(|(count, _)| *count > 0).unwrap_or(parts.len() - 1);
    let shown: Vec<String> = parts[first..].iter().take(2).map(|(count, unit)| format!("{count} {unit}")).collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_for_people() {
        let sizes = [0, 1023, 1024, 10 << 20, 3 << 40, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "10.0 MiB", "3.0 TiB", "16777216.0 TiB"]);
        let times = [0, 59, 61, 3600, 90_061].map(duration);
        assert_eq!(times, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
    }
}
