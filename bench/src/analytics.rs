//! The analytics' figures: ingest through the ring, bytes on disk, and SELECTs over many events.
//!
//! In process, over the event store and the query engine themselves. The events are made up but of a realistic shape: a
//! few key spaces, some thousand keys of which few do most of the work, an identity for most keys, some hundred label
//! sets, and times that advance over thirty days with a little disorder. `bench/clickhouse.py` runs the same SELECTs over the same
//! Parquet files in ClickHouse's engine and prints the ratio.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward::api::wire::RequestId;
use keyward::outside::Entropy;
use keyward_query::events::tables::Family;
use keyward_query::events::{Options as EventOptions, Outcome, Scope, Spaces, Verification};
use keyward_query::{Allowed, Events, Limits, Options as QueryOptions, Query, Select};
use keyward_storage::disk::RealDisk;
use keyward_storage::ids::{IdText, IdentityId, KeyId, KeyspaceId, WorkspaceId};
use keyward_storage::records::identity::IdentityView;
use serde::Serialize;

use crate::compare::scratch;
use crate::{Error, Result};

/// The day after the last event, unix ms: 2026-03-31.
const END: u64 = 1_774_915_200_000;
/// Days of events.
const DAYS: u64 = 30;
/// Milliseconds of a day.
const DAY: u64 = 86_400_000;
/// Keys that are verified.
const KEYS: u64 = 5_000;
/// Key spaces they are in.
const KEYSPACES: u64 = 4;
/// Events out of order by up to so many ms.
const DISORDER: u64 = 2_000;

/// The representative SELECTs: `{start}` is the first event's time, `{day}` and `{week}` lie so long before the end.
const QUERIES: &[(&str, &str)] = &[
    ("count all", "SELECT count(*) AS n FROM key_verifications_v1"),
    ("count a day", "SELECT count(*) AS n FROM key_verifications_v1 WHERE time >= {day}"),
    ("by outcome", "SELECT outcome, count(*) AS n FROM key_verifications_v1 GROUP BY outcome ORDER BY n DESC"),
    (
        "hours of a week by outcome",
        "SELECT toStartOfHour(fromUnixTimestamp64Milli(time)) AS h, outcome, count(*) AS n FROM key_verifications_v1 \
         WHERE time >= {week} GROUP BY h, outcome ORDER BY h, outcome",
    ),
    (
        "top users",
        "SELECT external_id, count(*) AS n, sum(spent_credits) AS credits FROM key_verifications_v1 \
         WHERE external_id != '' GROUP BY external_id ORDER BY n DESC, external_id LIMIT 10",
    ),
    (
        "keys and outcomes",
        "SELECT key_id, outcome, count(*) AS n, max(time) AS latest FROM key_verifications_v1 GROUP BY key_id, outcome \
         ORDER BY n DESC, key_id, outcome LIMIT 100",
    ),
    (
        "distinct keys a day",
        "SELECT toDate(fromUnixTimestamp64Milli(time)) AS d, uniqExact(key_id) AS keys FROM key_verifications_v1 \
         GROUP BY d ORDER BY d",
    ),
    (
        "latency quantiles",
        "SELECT outcome, quantile(0.99)(latency) AS p99, avg(latency) AS mean FROM key_verifications_v1 \
         GROUP BY outcome ORDER BY outcome",
    ),
    (
        "labels",
        "SELECT arrayJoin(tags) AS tag, count(*) AS n FROM key_verifications_v1 WHERE time >= {week} GROUP BY tag \
         ORDER BY n DESC, tag LIMIT 20",
    ),
    (
        "one key's last events",
        "SELECT time, outcome, latency FROM key_verifications_v1 WHERE key_id = '{key}' ORDER BY time DESC LIMIT 100",
    ),
    (
        "success rate a day, rolled up",
        "SELECT time, sumIf(count, outcome = 'VALID') / sum(count) AS rate FROM key_verifications_per_day_v1 \
         WHERE time >= toDate('2026-03-01') GROUP BY time ORDER BY time",
    ),
    (
        "users a month, rolled up",
        "SELECT external_id, sum(count) AS n FROM key_verifications_per_hour_v1 GROUP BY external_id \
         ORDER BY n DESC, external_id LIMIT 20",
    ),
];

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for the data, kept afterwards; `None`: the system's for temporary files, removed.
    pub directory: Option<PathBuf>,
    /// Events to make.
    pub events: u64,
    /// Threads of the query engine.
    pub threads: usize,
    /// How often each SELECT runs after a first time that is not counted.
    pub rounds: usize,
}

/// One SELECT.
#[derive(Debug, Serialize)]
pub struct Timed {
    /// What it stands for.
    pub name: &'static str,
    /// Its text.
    pub sql: String,
    /// The median of the rounds, ms.
    pub median_ms: f64,
    /// The fastest round, ms.
    pub least_ms: f64,
    /// Rows of the answer.
    pub rows: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the events are.
    pub directory: PathBuf,
    /// Events.
    pub events: u64,
    /// Threads of the query engine.
    pub threads: usize,
    /// Events a second from the ring to the journal and to queries, making them included.
    pub ingest_per_second: f64,
    /// CPU seconds of the whole process while taking them in.
    pub ingest_cpu_seconds: f64,
    /// Seconds until all was sealed and merged.
    pub settle_seconds: f64,
    /// Bytes of the sealed files, roll-ups included.
    pub bytes: u64,
    /// The same for an event.
    pub bytes_per_event: f64,
    /// Sealed files.
    pub parts: u64,
    /// The SELECTs.
    pub queries: Vec<Timed>,
}

/// Makes the events and runs the SELECTs.
///
/// # Errors
/// Whatever keeps it from measuring; a SELECT that is refused.
pub fn analytics(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let place = scratch(options.directory.as_ref())?;
    let dir = place.path().join("events");
    let unexpected = |error: &dyn std::fmt::Display| Error::Unexpected(error.to_string());
    let events = Events::open(EventOptions {
        dir: dir.clone(),
        disk: Arc::new(RealDisk),
        region: "local".to_owned(),
        clock: Arc::new(|| END),
        queue_events: 1 << 16,
        min_free_bytes: 0,
        retention: None,
    });
    let events = Arc::new(events.map_err(|error| unexpected(&error))?);
    let world = World::new(WorkspaceId(Random(2).id()), END);
    say(&format!("recording {} events", options.events));
    let (began, cpu) = (Instant::now(), cpu_seconds());
    world.record(&events, options.events);
    let (took, ingest_cpu_seconds) = (began.elapsed(), cpu_seconds() - cpu);
    say("sealing and merging them");
    let began = Instant::now();
    events.settle();
    let settled = began.elapsed();
    let stats = events.stats();
    if stats.written != options.events || stats.dropped != 0 {
        return Err(Error::Unexpected(format!("{} of {} events were written", stats.written, options.events)));
    }

    let memory_bytes = 4 << 30;
    let engine = QueryOptions { threads: options.threads, concurrent: 1, waiting: 1, memory_bytes };
    let query = Query::start(Arc::clone(&events), &engine).map_err(Error::io("start the query engine"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io("start a runtime"))?;
    let mut queries = Vec::new();
    for (name, sql) in QUERIES {
        let sql = world.fill_in(sql);
        let mut times = Vec::new();
        let mut rows = 0;
        for round in 0..=options.rounds {
            let select = Select {
                family: Family::Verifications,
                text: sql.clone(),
                account: 1,
                scope: Scope { workspace: world.workspace, spaces: Spaces::All, now_ms: END, retention_days: 0 },
                allowed: Allowed { queries: u32::MAX, seconds: u32::MAX },
                limits: Limits { memory_bytes, seconds: 300, rows: 10_000_000, answer_bytes: 64 << 20 },
            };
            let began = Instant::now();
            let answer = runtime.block_on(query.select(select));
            let took = began.elapsed();
            rows = answer.map_err(|error| Error::Unexpected(format!("{name}: {error}: {sql}")))?.count;
            if round > 0 {
                times.push(took.as_secs_f64() * 1000.0);
            }
        }
        times.sort_by(f64::total_cmp);
        let median_ms = times.get(times.len() / 2).copied().unwrap_or_default();
        let least_ms = times.first().copied().unwrap_or_default();
        say(&format!("{median_ms:9.2} ms  {rows:7} rows  {name}"));
        queries.push(Timed { name, sql, median_ms, least_ms, rows });
    }
    drop(query);
    events.stop();
    let report = Report {
        directory: dir,
        events: options.events,
        threads: options.threads,
        ingest_per_second: options.events as f64 / took.as_secs_f64(),
        ingest_cpu_seconds,
        settle_seconds: settled.as_secs_f64(),
        bytes: stats.part_bytes,
        bytes_per_event: stats.part_bytes as f64 / options.events as f64,
        parts: stats.parts,
        queries,
    };
    if options.directory.is_some() {
        // Kept for `bench/clickhouse.py`.
        let _ = place.keep();
    }
    Ok(report)
}

impl Report {
    /// The figures as text.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{} events in {}\ningest {:.0} events/s, {:.1} s of CPU; settled in {:.1} s; {} parts, {:.1} bytes an event",
            self.events,
            self.directory.display(),
            self.ingest_per_second,
            self.ingest_cpu_seconds,
            self.settle_seconds,
            self.parts,
            self.bytes_per_event,
        );
        for timed in &self.queries {
            text.push_str(&format!("\n{:9.2} ms (least {:.2})  {}", timed.median_ms, timed.least_ms, timed.name));
        }
        text
    }
}

/// CPU time of this process, user and system, in seconds.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What the made-up events are about.
pub struct World {
    workspace: WorkspaceId,
    end: u64,
    entropy: Entropy,
    keyspaces: Vec<KeyspaceId>,
    keys: Vec<KeyId>,
    identities: Vec<Arc<IdentityView>>,
}

impl World {
    /// Of a workspace, in the thirty days before `end` (unix ms).
    pub fn new(workspace: WorkspaceId, end: u64) -> World {
        let mut random = Random(1);
        World {
            workspace,
            end,
            entropy: Entropy::seeded(3),
            keyspaces: (0..KEYSPACES).map(|_| KeyspaceId(random.id())).collect(),
            keys: (0..KEYS).map(|_| KeyId(random.id())).collect(),
            identities: (0..KEYS / 3)
                .map(|number| {
                    let external_id = format!("customer-{number:05}").into_boxed_str();
                    let id = IdentityId(random.id());
                    Arc::new(IdentityView { id, external_id, meta: None, ratelimits: Box::new([]) })
                })
                .collect(),
        }
    }

    /// Records so many events and waits until they are in the journal.
    pub fn record(&self, events: &Events, all: u64) {
        for number in 0..all {
            let mut event = self.event(number, all).into();
            while let Err(back) = events.try_record(event) {
                event = back;
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        events.flush();
    }

    /// The event of this number out of `all`.
    fn event(&self, number: u64, all: u64) -> Verification {
        let mut random = Random(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 7);
        // A few keys do most of the work: the cube of a uniform number.
        let uniform = random.below(1 << 20) as f64 / f64::from(1 << 20);
        let key = ((uniform * uniform * uniform) * KEYS as f64) as u64;
        let progress = (u128::from(number) * u128::from(DAYS * DAY) / u128::from(all.max(1))) as u64;
        let time = (self.end - DAYS * DAY + progress + random.below(DISORDER)).min(self.end - 1);
        let outcome = match random.below(100) {
            0..=89 => Outcome::Valid,
            90..=94 => Outcome::RateLimited,
            95..=96 => Outcome::UsageExceeded,
            97 => Outcome::Expired,
            98 => Outcome::InsufficientPermissions,
            _ => Outcome::Disabled,
        };
        let path = ["users", "orders", "invoices", "search", "export"][(key % 5) as usize];
        let tags = match random.below(4) {
            0 => Vec::new(),
            1 => vec![format!("path=/v1/{path}")],
            _ => vec![format!("path=/v1/{path}"), format!("environment={}", ["prod", "test"][(key % 2) as usize])],
        };
        // Most take tens of microseconds, some a millisecond.
        let latency_ms = (20 + random.below(40) + if random.below(50) == 0 { random.below(1500) } else { 0 }) as f64;
        Verification {
            request_id: *RequestId::draw(&self.entropy, time).as_bytes(),
            time,
            workspace: self.workspace,
            keyspace: self.keyspaces[(key % KEYSPACES) as usize],
            key: self.keys[key as usize],
            identity: (!key.is_multiple_of(5))
                .then(|| Arc::clone(&self.identities[(key / 3) as usize % self.identities.len()])),
            outcome,
            tags,
            spent_credits: u64::from(outcome == Outcome::Valid && key.is_multiple_of(3)),
            latency_ms: latency_ms / 1000.0,
        }
    }

    fn fill_in(&self, sql: &str) -> String {
        sql.replace("{day}", &(END - DAY).to_string())
            .replace("{week}", &(END - 7 * DAY).to_string())
            .replace("{key}", &self.keys[100].to_string())
    }
}

/// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    fn id(&mut self) -> IdText {
        IdText::draw(|| self.next().to_le_bytes()[0])
    }
}
