//! Restart time and memory of a store with many keys, of the real binary.
//!
//! The store is filled in process and closed. Then keyward is started on it twice: after a clean stop, and after a kill
//! with a log tail to replay. Between the two every key is verified until all are in memory, and the process's resident
//! memory is read.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::child::{Server, keyward_binary, start_keyward};
use crate::client::Client;
use crate::compare::{operation_headers, scratch};
use crate::load::{Order, Plan, run};
use crate::wire::render;
use crate::{Error, Result, store};

/// Keys made over HTTP before the kill, so that there is a log to replay.
const TAIL: usize = 2000;
/// Connections of the generator.
const CONNECTIONS: usize = 64;
/// Longest one round of verifying every key may take.
const ROUND: Duration = Duration::from_secs(20);
/// Rounds at most until every key is in memory.
const ROUNDS: usize = 10;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Keys in the store, each with one rate limit.
    pub keys: usize,
    /// Fail when a start takes longer, in seconds.
    pub most_seconds: Option<f64>,
    /// Fail when there are more resident bytes per key, all in memory.
    pub most_bytes_per_key: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Keys in the store.
    pub keys: usize,
    /// From starting the process to its first ready answer, after a clean stop.
    pub start_seconds: f64,
    /// The same after a kill.
    pub start_after_kill_seconds: f64,
    /// Resident bytes right after the start.
    pub resident_at_start: u64,
    /// Resident bytes with every key verified at least once.
    pub resident_all_hot: u64,
    /// The same per key, everything the process holds counted.
    pub resident_bytes_per_key: f64,
    /// Verifications made meanwhile.
    pub verified: u64,
}

/// Fills a store and measures.
///
/// # Errors
///
/// Whatever keeps it from measuring; [`Error::Missed`] when a bound is missed.
pub fn restart(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let binary = keyward_binary(options.keyward.as_deref())?;
    let place = scratch(options.directory.as_ref())?;
    let data = place.path().join("data");
    say(&format!("making {} keys", options.keys));
    let services = store::open(&data)?;
    let plaintexts = store::fill(&services, options.keys)?;
    services.shutdown();
    drop(services);
    let root_key = std::fs::read_to_string(data.join("root.key")).map_err(Error::io("read root.key"))?;
    let root_key = root_key.trim();
    let log = place.path().join("log");
    let start = || -> Result<(Server, f64)> {
        let begun = Instant::now();
        let server = start_keyward(&binary, &data, root_key, &log, None)?;
        Ok((server, begun.elapsed().as_secs_f64()))
    };

    let (server, start_seconds) = start()?;
    let resident_at_start = server.resident()?;
    let headers = operation_headers(root_key);
    let requests = plaintexts.iter().map(|key| {
        let body = json!({ "key": key }).to_string();
        render(server.target, "POST", "/v2/keys.verifyKey", &headers, body.as_bytes())
    });
    let requests = requests.collect::<Result<Vec<_>>>()?;
    let mut verified = 0;
    for round in 1..=ROUNDS {
        say(&format!("verifying every key, round {round}"));
        let mut plan = Plan::closed(server.target, requests.clone(), CONNECTIONS, ROUND);
        // Each round begins at the first key; it goes on where it can only by being long enough.
        plan.order = Order::RoundRobin;
        plan.warm_up = Duration::ZERO;
        plan.must_contain = Some(b"\"valid\":true".to_vec());
        let outcome = run(&plan)?;
        verified = outcome.completed;
        if usize::try_from(verified).unwrap_or(usize::MAX) >= options.keys {
            break;
        }
    }
    if usize::try_from(verified).unwrap_or(usize::MAX) < options.keys {
        return Err(Error::Unexpected(format!(
            "no round of {ROUND:?} got through all {} keys; the last verified {verified}",
            options.keys
        )));
    }
    let resident_all_hot = server.resident()?;

    let mut client = Client::connect(server.target, headers.clone())?;
    let api = client.operation("apis.createApi", &json!({ "name": "tail" }))?;
    let api = api.get("apiId").and_then(Value::as_str).unwrap_or_default().to_owned();
    for _ in 0..TAIL {
        client.operation("keys.createKey", &json!({ "apiId": api }))?;
    }
    // Dropping a server kills it.
    drop(server);
    let (server, start_after_kill_seconds) = start()?;
    server.stop()?;

    let report = Report {
        keys: options.keys,
        start_seconds,
        start_after_kill_seconds,
        resident_at_start,
        resident_all_hot,
        resident_bytes_per_key: resident_all_hot as f64 / options.keys as f64,
        verified,
    };
    report.judge(options)?;
    Ok(report)
}

impl Report {
    fn judge(&self, options: &Options) -> Result<()> {
        let slowest = self.start_seconds.max(self.start_after_kill_seconds);
        if let Some(most) = options.most_seconds.filter(|&most| slowest > most) {
            return Err(Error::Missed(format!("a start took {slowest:.2} s; {most} s are allowed")));
        }
        if let Some(most) = options.most_bytes_per_key.filter(|&most| self.resident_bytes_per_key > most) {
            let found = self.resident_bytes_per_key;
            return Err(Error::Missed(format!("{found:.0} resident bytes per key; {most} are allowed")));
        }
        Ok(())
    }

    /// For people.
    pub fn table(&self) -> String {
        format!(
            "{} keys, one rate limit each\nstart after a clean stop   {:8.2} s\nstart after a kill         {:8.2} s\n\
             resident at start          {:8.1} MiB\nresident, all keys hot     {:8.1} MiB\nper key                    {:8.0} bytes",
            self.keys,
            self.start_seconds,
            self.start_after_kill_seconds,
            self.resident_at_start as f64 / (1 << 20) as f64,
            self.resident_all_hot as f64 / (1 << 20) as f64,
            self.resident_bytes_per_key
        )
    }
}
