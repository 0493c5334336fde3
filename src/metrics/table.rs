//! Every metric, once.

/// What a metric's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often values fell below bounds: `_bucket`, `_sum` and `_count`.
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name. The unit is in it: `_seconds`, `_bytes`; without one it counts things.
    pub name: &'static str,
    /// What its numbers are.
    pub kind: Kind,
    /// The labels that each of its series has, in order.
    pub labels: &'static [&'static str],
    /// What it says, a sentence without its full stop.
    pub help: &'static str,
}

impl Metric {
    /// Its unit as UCUM has it, `1` where it counts things: for OTLP.
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        if name.ends_with("_seconds") {
            "s"
        } else if name.ends_with("_bytes") {
            "By"
        } else {
            "1"
        }
    }
}

/// Makes a constant of each metric, and the list of all.
macro_rules! metrics {
    ($($id:ident = $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All of them, in the order of the page.
        pub static METRICS: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    BUILD = "keyward_build_info" Gauge ["version"]
        "Always 1; the label says which version runs";
    DEGRADED = "keyward_degraded" Gauge ["reason"]
        "1 while health calls the server degraded for this reason, else 0";
    REQUESTS = "keyward_requests_total" Counter ["operation", "status", "code"]
        "Requests that were answered, by operation, HTTP status and error code (ok where there was none). Requests that name no operation count as (none), those whose client hung up have status 499";
    REQUEST_SECONDS = "keyward_request_duration_seconds" Histogram ["operation"]
        "Time from a request's head to its whole reply, its body's arrival included, by operation; those without a request so far are left out";
    CONNECTIONS = "keyward_connections" Gauge []
        "Open connections";
    CONNECTIONS_OPENED = "keyward_connections_opened_total" Counter []
        "Connections that were accepted";
    BODY_BYTES = "keyward_large_bodies_bytes" Gauge []
        "Memory that request bodies above 4 KiB take";
    BODY_BYTES_MAX = "keyward_large_bodies_max_bytes" Gauge []
        "Memory that they may take together; at the limit further ones wait";
    VERIFICATIONS = "keyward_verifications_total" Counter ["code"]
        "Verifications that were answered, by the code of the answer";
    DECISIONS = "keyward_ratelimit_decisions_total" Counter ["outcome"]
        "Decisions of ratelimit.limit, and of each entry of ratelimit.multiLimit: passed or refused";
    LOOKUPS = "keyward_lookups_total" Counter ["index", "result"]
        "Looks into the hot index: hit (in memory), absent (known not to exist) or miss (one read from the disk)";
    HOT_KEYS = "keyward_hot_keys" Gauge []
        "Entries of the hot index of keys";
    HOT_BYTES = "keyward_hot_bytes" Gauge []
        "Memory of the hot index of keys, roughly";
    HOT_EVICTIONS = "keyward_hot_evictions_total" Counter []
        "Keys that left memory to make room";
    RATE_SUBJECTS = "keyward_rate_subjects" Gauge []
        "Subjects with a rate-limit window in memory";
    RATE_SUBJECTS_MAX = "keyward_rate_subjects_max" Gauge []
        "Subjects there is room for; at the limit new ones are answered 503";
    LOG_POSITION = "keyward_log_position" Gauge []
        "Number of the newest durable record of the log";
    LOG_RECORDS = "keyward_log_records_total" Counter []
        "Records appended to the log since the start";
    LOG_APPENDED = "keyward_log_appended_bytes_total" Counter []
        "Bytes appended to the log since the start";
    LOG_BYTES = "keyward_log_bytes" Gauge []
        "Bytes of the log on disk";
    SYNC_SECONDS = "keyward_log_sync_duration_seconds" Histogram []
        "Time of each sync of the log: what a change waits for at least";
    BATCH_RECORDS = "keyward_writer_batch_records" Histogram []
        "Records that shared one sync (group commit)";
    BATCH_SECONDS = "keyward_writer_batch_duration_seconds" Histogram []
        "Time of a batch of the writer, from its first transaction to its answers";
    WRITER_QUEUE = "keyward_writer_queue" Gauge []
        "Changes that wait for the writer";
    WRITER_REFUSED = "keyward_writer_refused_total" Counter []
        "Changes that were refused because too many were waiting";
    WAITING_SPENDS = "keyward_writer_waiting_spends" Gauge []
        "Keys whose spent credits are not journaled yet";
    CHECKPOINT_LAG = "keyward_checkpoint_lag_records" Gauge []
        "Records of the log since the last checkpoint: what a crash would have replayed";
    CHECKPOINTS = "keyward_checkpoints_total" Counter []
        "Checkpoints made since the start";
    CHECKPOINT_SECONDS = "keyward_checkpoint_duration_seconds" Histogram []
        "Time of a checkpoint, during which changes wait";
    READ_ONLY = "keyward_storage_read_only" Gauge []
        "1 while changes are refused for lack of disk space, else 0";
    FREE_BYTES = "keyward_storage_free_bytes" Gauge []
        "Free bytes on the disk of the data directory; left out where the system does not tell";
    REPLAYED = "keyward_storage_replayed_records" Gauge []
        "Records that were replayed at the start";
    TORN_BYTES = "keyward_storage_torn_bytes" Gauge []
        "Bytes of an unfinished write that were cut off at the start; nothing in them had been acknowledged";
    DAMAGED_READS = "keyward_storage_damaged_reads_total" Counter []
        "Reads that met a row of the records that is not as it was written; should stay 0";
    EVENTS_QUEUE = "keyward_events_queue" Gauge []
        "Events that wait to be recorded";
    EVENTS_QUEUE_MAX = "keyward_events_queue_max" Gauge []
        "Events that may wait";
    EVENTS_RECORDED = "keyward_events_recorded_total" Counter []
        "Events recorded since the start";
    EVENTS_DROPPED = "keyward_events_dropped_total" Counter []
        "Events that were lost because the queue was full; should stay 0";
    EVENTS_LAG = "keyward_events_lag_seconds" Gauge []
        "From taking an event off the queue to showing it to queries, of the last one";
    EVENTS_JOURNAL = "keyward_events_journal_bytes" Gauge []
        "Bytes of the events' journal on disk";
    EVENTS_UNSEALED = "keyward_events_unsealed_rows" Gauge []
        "Events in memory that are not in Parquet files yet";
    EVENTS_FILES = "keyward_events_files" Gauge []
        "Live Parquet files";
    EVENTS_FILE_BYTES = "keyward_events_file_bytes" Gauge []
        "Bytes of the live Parquet files";
    EVENTS_SEALS = "keyward_events_seals_total" Counter []
        "Times that events were sealed into files since the start";
    QUERIES_RUNNING = "keyward_queries_running" Gauge []
        "Analytics queries that run";
    QUERIES_WAITING = "keyward_queries_waiting" Gauge []
        "Analytics queries that wait for their turn";
    QUERIES = "keyward_queries_total" Counter []
        "Analytics queries that got their turn";
    QUERIES_REFUSED = "keyward_queries_refused_total" Counter []
        "Analytics queries that were refused because too many were waiting";
    QUERY_BYTES = "keyward_query_memory_bytes" Gauge []
        "Memory that running queries have reserved";
    QUERY_BYTES_MAX = "keyward_query_memory_max_bytes" Gauge []
        "Memory that they may reserve together";
    SEARCH_STATE = "keyward_search_state" Gauge ["state"]
        "1 for the state the search index is in, 0 for the others: current, behind, partial (it is being made), failing";
    SEARCH_ROWS = "keyward_search_rows" Gauge []
        "Rows of the search index";
    SEARCH_SEGMENTS = "keyward_search_segments" Gauge []
        "Segments of the search index";
    SEARCH_COMMITS = "keyward_search_commits_total" Counter []
        "Commits of the search index since the start";
    SEARCH_LAG = "keyward_search_lag_records" Gauge []
        "Records of the log that the search index does not have yet";
    SEARCH_BEHIND = "keyward_search_lag_seconds" Gauge []
        "How old the oldest change may be that a search does not find; 0 within the promise of 2 s";
    VAULT_READY = "keyward_vault_ready" Gauge []
        "1 where a master key is configured, so that keys can be made recoverable, else 0";
    VAULT_MISSING = "keyward_vault_unreadable_data_keys" Gauge []
        "Data keys whose master key is not configured, as of the start";
    VAULT_FAILURES = "keyward_vault_failures_total" Counter []
        "Times that the copy of a recoverable key could not be opened";
    EXPORT_LAG = "keyward_audit_export_lag_events" Gauge ["target"]
        "Audit events that a live export has not handed over yet (file or syslog); only where it is set up";
    ROLE = "keyward_replication_role" Gauge ["role"]
        "1 for what this node does with changes, 0 for the others: leader (it takes them), follower (it applies the leader's), fenced (another node was promoted), suspended (it led, and its lease has run out)";
    TERM = "keyward_replication_term" Gauge []
        "Number of the newest term of the log; each promotion begins another";
    STALENESS = "keyward_replication_staleness_seconds" Gauge []
        "On a follower, since it last had all that the leader had; left out before that was ever so, and on a leader";
    REPLICATION_LAG = "keyward_replication_lag_records" Gauge []
        "On a follower, records that the leader is known to have and it has not; 0 on a leader";
    LEADER_REACHABLE = "keyward_replication_leader_reachable" Gauge []
        "On a follower, 1 while the leader is heard, else 0; left out on a leader";
    FOLLOWERS = "keyward_replication_followers" Gauge ["state"]
        "Followers this node has heard of since its start, by whether they are connected now: connected or gone";
    FOLLOWER_LAG = "keyward_replication_follower_lag_records" Gauge []
        "Records that the follower which is furthest behind has not on its disk yet, of those that are connected";
    RIVAL_LEADER = "keyward_replication_rival_leader" Gauge []
        "1 while another node is known to lead in the term that this one leads in, else 0: both take changes, and an operator has to decide";
    LEASE_HELD = "keyward_replication_lease_held" Gauge []
        "1 while this node holds the lease by which it leads, else 0; only where one is set up";
    LEASE_LEFT = "keyward_replication_lease_left_seconds" Gauge []
        "How long the lease still counts: its holder takes no changes after that, others may take it; only where one is set up";
    LEASE_CHANGES = "keyward_replication_lease_changes_total" Counter ["change"]
        "Times that this node got the lease (taken), or was replaced or could not renew it in time (lost); only where one is set up";
    LEASE_FAILURES = "keyward_replication_lease_failures_total" Counter []
        "Requests to what keeps the lease that had no good answer; only where one is set up";
    FORWARDED = "keyward_replication_forwarded_total" Counter []
        "Requests that the leader answered for this node";
    FORWARD_FAILED = "keyward_replication_forward_failed_total" Counter []
        "Requests for the leader that it did not answer";
    ALONE = "keyward_replication_alone_total" Counter []
        "Of these, verifications and limits that were answered without the leader";
    UNDELIVERED = "keyward_replication_undelivered_batches" Gauge []
        "Batches of this node's events that the leader does not have yet; 0 on a leader";
    PARCELS = "keyward_replication_parcels_total" Counter ["outcome"]
        "Parcels of this node's events: taken by the leader, or not (failed); those that failed go again";
    GUESSES = "keyward_root_key_guesses_total" Counter []
        "Requests with unknown root keys";
    GUESSES_SLOWED = "keyward_root_key_guesses_slowed_total" Counter ["held"]
        "Of these, the ones beyond the free attempts of their address: held back (yes), or answered at once because too many were held back already (no)";
    GUESSES_HELD = "keyward_root_key_guesses_held" Gauge []
        "Answers that are held back now";
    OTLP_SPANS = "keyward_otlp_spans_exported_total" Counter []
        "Traced requests that the collector of telemetry took; 0 where none is set up";
    OTLP_DROPPED = "keyward_otlp_spans_dropped_total" Counter []
        "Traced requests that were lost to the collector: the queue was full, or it did not take them";
    OTLP_FAILURES = "keyward_otlp_export_failures_total" Counter []
        "Tries to hand spans or metrics to the collector that failed";
    PROCESS_START = "process_start_time_seconds" Gauge []
        "When the process began, Unix time";
    PROCESS_CPU = "process_cpu_seconds_total" Counter []
        "Processor time of all threads";
    PROCESS_RESIDENT = "process_resident_memory_bytes" Gauge []
        "Bytes in memory; Linux only";
    PROCESS_VIRTUAL = "process_virtual_memory_bytes" Gauge []
        "Bytes of address space; Linux only";
    PROCESS_FILES = "process_open_fds" Gauge []
        "Open files, sockets among them; Linux only";
    PROCESS_FILES_MAX = "process_max_fds" Gauge []
        "Files that may be open";
    PROCESS_THREADS = "process_threads" Gauge []
        "Threads; Linux only";
}

/// The metric that a series belongs to: by its own name, or that of a histogram's part.
pub fn of_series(name: &str) -> Option<&'static Metric> {
    let find = |name: &str| METRICS.iter().find(|metric| metric.name == name).copied();
    find(name).or_else(|| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part))?;
        find(base).filter(|metric| metric.kind == Kind::Histogram)
    })
}
