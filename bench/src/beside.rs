//! What heavy analytics beside it do to verifications, and how soon a verification is seen by a query.
//!
//! One server with many recorded events. Verifications come at a constant rate (an open loop); round after round they are
//! measured alone and then while one client asks heavy queries back to back: full scans with very many groups. The figure
//! is the p99 beside queries over the p99 alone. Afterwards one key is verified again and again, and each time its events
//! are counted until the new one is among them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyward_query::Events;
use keyward_query::events::Options as EventOptions;
use keyward_storage::disk::RealDisk;
use keyward_storage::ids::WorkspaceId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::analytics::World;
use crate::child::{Server, keyward, keyward_binary, start_keyward};
use crate::client::Client;
use crate::compare::{fresh_root_key, make_api, make_keys, operation_headers, scratch};
use crate::load::{Arrivals, Outcome, Pace, Plan, run};
use crate::report::{HEADINGS, Summary};
use crate::wire::{Target, render};
use crate::{Error, Result};

/// The heavy queries: every event, and a group for each key and minute, for each millisecond, for each request.
const HEAVY: &[&str] = &[
    "SELECT key_id, toStartOfMinute(fromUnixTimestamp64Milli(time)) AS minute, outcome, count(*) AS n, \
     avg(latency) AS mean FROM key_verifications_v1 GROUP BY key_id, minute, outcome ORDER BY n DESC, key_id LIMIT 10",
    "SELECT time, uniqExact(key_id) AS keys, count(*) AS n FROM key_verifications_v1 GROUP BY time \
     ORDER BY n DESC, time LIMIT 10",
    "SELECT substring(request_id, 5, 4) AS part, count(*) AS n FROM key_verifications_v1 GROUP BY part \
     ORDER BY n DESC, part LIMIT 10",
];
/// Keys that are verified.
const KEYS: usize = 1_000;
/// How often freshness is measured.
const SEEN: usize = 100;
/// A query's memory, and that of all queries, bytes.
const MEMORY: u64 = 4 << 30;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Connections kept open.
    pub connections: usize,
    /// Recorded events.
    pub events: u64,
    /// Verifications a second.
    pub rate: f64,
    /// Rounds.
    pub rounds: usize,
    /// Measured seconds, alone and beside queries, of a round.
    pub seconds: u64,
    /// Fail when p99 beside queries is more than so many times the one alone.
    pub most_p99: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Recorded events.
    pub events: u64,
    /// Verifications alone.
    pub alone: Summary,
    /// Verifications beside queries.
    pub beside: Summary,
    /// p99 beside queries over the one alone.
    pub p99_ratio: f64,
    /// Queries that were answered beside them.
    pub queries: usize,
    /// How long they took on average, ms.
    pub query_ms: f64,
    /// The server's resident memory at the end, bytes.
    pub resident_bytes: u64,
    /// From the answer to a verification until a query had counted it, ms: median.
    pub seen_ms_median: f64,
    /// The longest.
    pub seen_ms_most: f64,
}

/// Fills a server and measures.
///
/// # Errors
/// Whatever keeps it from measuring; a query that is refused; [`Report::judge`] holds the result against the bound.
pub fn beside(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let binary = keyward_binary(options.keyward.as_deref())?;
    let directory = scratch(options.directory.as_ref())?;
    let root_key = fresh_root_key()?;
    let data = directory.path().join("data");
    let log = directory.path().join("keyward.log");
    let headers = operation_headers(&root_key);

    let server = start_keyward(&binary, &data, &root_key, &log, None)?;
    let workspace = only_workspace(&binary, &data)?;
    let limits = [
        ("--queries-per-hour", 1_000_000),
        ("--query-seconds-per-hour", 1_000_000),
        ("--query-max-memory", MEMORY),
        ("--query-max-seconds", 300),
    ];
    let mut update = vec!["workspace".to_owned(), "update".to_owned(), "--workspace".to_owned(), workspace.to_string()];
    update.extend(limits.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]));
    operate(&binary, &data, &update)?;
    server.stop()?;
    say(&format!("recording {} events", options.events));
    record(&data.join("events"), workspace, options.events)?;

    let mut command = keyward(&binary, &data, &root_key);
    command.env("KEYWARD_ANALYTICS_MEMORY_BYTES", MEMORY.to_string());
    let server = Server::start(command, "/health/ready", &log, None)?;
    let api = make_api(server.target, &headers)?;
    let keys = make_keys(server.target, &headers, &json!({ "apiId": api }), KEYS)?;
    let requests: Result<Vec<_>> = keys
        .iter()
        .map(|key| {
            let body = json!({ "key": key }).to_string();
            render(server.target, "POST", "/v2/keys.verifyKey", &headers, body.as_bytes())
        })
        .collect();
    let mut plan = Plan::closed(server.target, requests?, options.connections, Duration::from_secs(options.seconds));
    plan.pace = Pace::Open { rate: options.rate, arrivals: Arrivals::Poisson };
    plan.must_contain = Some(br#""valid":true"#.to_vec());

    let (mut alone, mut beside): (Option<Outcome>, Option<Outcome>) = (None, None);
    let (mut queries, mut asking) = (0, Duration::ZERO);
    for round in 1..=options.rounds {
        say(&format!("round {round} of {}", options.rounds));
        gather(&mut alone, &plan)?;
        let done = AtomicBool::new(false);
        let (measured, asked) = std::thread::scope(|scope| {
            let asker = scope.spawn(|| ask(server.target, &root_key, &done));
            let measured = gather(&mut beside, &plan);
            done.store(true, Ordering::Relaxed);
            let asked = asker.join().map_err(|_| Error::Unexpected("the asking thread panicked".to_owned()));
            (measured, asked)
        });
        measured?;
        let (count, time) = asked??;
        queries += count;
        asking += time;
    }
    say("waiting for verifications to be seen");
    let mut seen = freshness(server.target, &root_key, &api)?;
    seen.sort_by(f64::total_cmp);
    let resident_bytes = server.resident()?;
    server.stop()?;
    let summary = |outcome: Option<Outcome>| -> Result<Summary> {
        let outcome = outcome.ok_or_else(|| Error::Usage("rounds must be at least 1".to_owned()))?;
        Ok(Summary::of(&plan, &outcome))
    };
    let (alone, beside) = (summary(alone)?, summary(beside)?);
    Ok(Report {
        events: options.events,
        p99_ratio: beside.latency_us.p99 / alone.latency_us.p99,
        alone,
        beside,
        queries,
        query_ms: asking.as_secs_f64() * 1000.0 / queries.max(1) as f64,
        resident_bytes,
        seen_ms_median: seen.get(seen.len() / 2).copied().unwrap_or_default(),
        seen_ms_most: seen.last().copied().unwrap_or_default(),
    })
}

impl Report {
    /// Holds the result against the bound that was asked for.
    ///
    /// # Errors
    /// [`Error::Missed`].
    pub fn judge(&self, options: &Options) -> Result<()> {
        match options.most_p99.filter(|most| self.p99_ratio > *most) {
            Some(most) => {
                Err(Error::Missed(format!("p99 beside queries is {:.2} times that alone, not {most}", self.p99_ratio)))
            }
            None => Ok(()),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        format!(
            "{HEADINGS}\n{}\n{}\np99 beside queries is {:.2} times that alone\n{} queries over {} events and more, {:.0} ms each; \
             {} MiB resident\na verification is seen by a query after {:.0} ms (median), {:.0} ms (longest of {SEEN})",
            self.alone.row("alone"),
            self.beside.row("beside"),
            self.p99_ratio,
            self.queries,
            self.events,
            self.query_ms,
            self.resident_bytes >> 20,
            self.seen_ms_median,
            self.seen_ms_most,
        )
    }
}

fn gather(into: &mut Option<Outcome>, plan: &Plan) -> Result<()> {
    let outcome = run(plan)?;
    outcome.expect_all(200)?;
    match into {
        Some(total) => total.add_run(&outcome),
        None => *into = Some(outcome),
    }
    Ok(())
}

/// Asks heavy queries one after the other until it is told to stop; how many were answered, and how long they took.
fn ask(target: Target, root_key: &str, done: &AtomicBool) -> Result<(usize, Duration)> {
    let mut client = Client::connect(target, operation_headers(root_key))?;
    let (mut count, mut took) = (0, Duration::ZERO);
    for query in HEAVY.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let began = Instant::now();
        client.operation("analytics.getVerifications", &json!({ "query": query }))?;
        took += began.elapsed();
        count += 1;
    }
    Ok((count, took))
}

/// How long it took, each time, until a verification was counted, ms.
fn freshness(target: Target, root_key: &str, api: &str) -> Result<Vec<f64>> {
    let mut client = Client::connect(target, operation_headers(root_key))?;
    let made = client.operation("keys.createKey", &json!({ "apiId": api }))?;
    let query = format!(
        "SELECT count(*) AS n FROM key_verifications_v1 WHERE key_id = '{}'",
        made["keyId"].as_str().unwrap_or_default()
    );
    let mut times = Vec::with_capacity(SEEN);
    for verified in 1..=SEEN {
        client.operation("keys.verifyKey", &json!({ "key": made["key"] }))?;
        let began = Instant::now();
        loop {
            let rows = client.operation("analytics.getVerifications", &json!({ "query": query }))?;
            let counted = rows[0]["n"].as_u64().or_else(|| rows[0]["n"].as_str().and_then(|text| text.parse().ok()));
            match counted {
                Some(counted) if counted == verified as u64 => break,
                Some(_) if began.elapsed() < Duration::from_secs(30) => {}
                _ => return Err(Error::Unexpected(format!("verification {verified} is not seen: {rows}"))),
            }
        }
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

/// Puts events into the directory of a stopped server.
#[expect(clippy::disallowed_methods, reason = "a bench stands outside: its server lives by the same clock")]
fn record(directory: &Path, workspace: WorkspaceId, count: u64) -> Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let unexpected = |error: &dyn std::fmt::Display| Error::Unexpected(error.to_string());
    let events = Events::open(EventOptions {
        dir: directory.to_owned(),
        disk: Arc::new(RealDisk),
        region: "local".to_owned(),
        clock: Arc::new(move || now),
        queue_events: 1 << 16,
        min_free_bytes: 0,
        retention: None,
    })
    .map_err(|error| unexpected(&error))?;
    World::new(workspace, now).record(&events, count);
    events.settle();
    events.stop();
    Ok(())
}

/// The workspace that a first start makes.
fn only_workspace(binary: &Path, data: &Path) -> Result<WorkspaceId> {
    let listed = operate(binary, data, &["workspace".to_owned(), "list".to_owned()])?;
    let listed: Value = serde_json::from_str(&listed).unwrap_or(Value::Null);
    let id = listed["workspaces"][0]["workspaceId"].as_str().and_then(WorkspaceId::parse);
    id.ok_or_else(|| Error::Unexpected(format!("no workspace is listed: {listed}")))
}

/// Runs an operator's command; gives what it prints.
fn operate(binary: &Path, data: &Path, arguments: &[String]) -> Result<String> {
    let mut command = Command::new(binary);
    command.args(arguments).arg("--data-dir").arg(data).args(["--output", "json"]);
    let output = command.output().map_err(Error::io(format!("run {}", binary.display())))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Unexpected(format!("keyward {} failed: {said}", arguments.join(" "))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
