//! keyward against the floor: verify at 64 connections, both servers in one run, taking turns.
//!
//! Taking turns (A B A B …) lets a slow minute of the machine fall on both. Throughput comes from closed loops; p99
//! from open loops at the *same* rate, a fraction of the lower capacity. The floor answers with the very bytes that keyward
//! answered to a verify.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::child::{Cores, Server, keyward_binary, start_floor, start_keyward};
use crate::client::Client;
use crate::load::{Arrivals, Outcome, Pace, Plan, run};
use crate::report::{HEADINGS, Latency, Summary, per_request};
use crate::wire::{Header, Target, render};
use crate::{Error, Result};

/// Most keys a comparison makes over HTTP.
pub const MOST_KEYS: usize = 200_000;
/// Connections that make keys.
const MAKERS: usize = 32;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Keys to make, of which every request verifies a random one.
    pub keys: usize,
    /// Give every key a rate limit that applies to each verify (never reached).
    pub rate_limited: bool,
    /// Connections of the generator.
    pub connections: usize,
    /// Rounds: in each of them both servers are measured once.
    pub rounds: usize,
    /// Measured seconds of a server in a round.
    pub seconds: u64,
    /// The open loops' rate as a fraction of the lower capacity.
    pub load: f64,
    /// How the open loops spread their requests.
    pub arrivals: Arrivals,
    /// Generator and servers on cores of their own.
    pub pin: bool,
    /// Fail when keyward/floor throughput is lower.
    pub least_throughput: Option<f64>,
    /// Fail when keyward/floor p99 is higher.
    pub most_p99: Option<f64>,
}

/// One server's side of a comparison.
#[derive(Debug, Serialize)]
pub struct Side {
    /// Closed loops, all rounds together.
    pub closed: Summary,
    /// Throughput of each round.
    pub rounds: Vec<f64>,
    /// Open loops, all rounds together.
    pub open: Summary,
    /// p99 of each round's open loop in microseconds.
    pub open_rounds_p99_us: Vec<f64>,
    /// The server's CPU time per request in the closed loops, in microseconds.
    pub cpu_us_per_request: f64,
    /// The part of a core that the server used in the closed loops. Pinned, and well below 1, it was not the server that
    /// limited the throughput, and the ratio flatters keyward.
    pub busy: f64,
    /// Its resident memory at the end, in bytes.
    pub resident_bytes: u64,
}

/// What a comparison found.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Keys in keyward.
    pub keys: usize,
    /// Whether each has a rate limit.
    pub rate_limited: bool,
    /// Whether generator and servers had cores of their own.
    pub pinned: bool,
    /// Length of the reply's body in bytes, the same on both sides.
    pub body_bytes: usize,
    /// keyward's side.
    pub keyward: Side,
    /// The floor's side.
    pub floor: Side,
    /// keyward's throughput over the floor's, all rounds together.
    pub throughput_ratio: f64,
    /// The lowest and the highest such ratio of a single round.
    pub throughput_ratio_range: (f64, f64),
    /// keyward's p50, p99 and p99.9 over the floor's at the same rate.
    pub latency_ratio: Ratios,
}

/// Latencies of keyward over those of the floor.
#[derive(Debug, Serialize)]
pub struct Ratios {
    /// Of the medians.
    pub p50: f64,
    /// Of the 99th percentiles.
    pub p99: f64,
    /// Of the 99.9th percentiles.
    pub p999: f64,
}

/// The header that authenticates as `root_key`, and the one that announces JSON.
pub fn operation_headers(root_key: &str) -> Vec<Header> {
    vec![
        ("Authorization".to_owned(), format!("Bearer {root_key}")),
        ("Content-Type".to_owned(), "application/json".to_owned()),
    ]
}

/// A root key for one run, of the machine's randomness.
///
/// # Errors
///
/// [`Error::Io`] when there is none to be had.
pub fn fresh_root_key() -> Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(Error::io("draw a random root key"))?;
    Ok(format!("unkey_bench_{}", id.trim().replace('-', "")))
}

/// A scratch directory in `parent`, removed when it is dropped.
///
/// # Errors
///
/// [`Error::Io`] when it cannot be made.
pub fn scratch(parent: Option<&PathBuf>) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("keyward-bench-");
    match parent {
        Some(parent) => builder.tempdir_in(parent),
        None => builder.tempdir(),
    }
    .map_err(Error::io("make a scratch directory"))
}

/// Makes an API; gives its id.
///
/// # Errors
///
/// [`Error::Unexpected`] when the server refuses.
pub fn make_api(target: Target, headers: &[Header]) -> Result<String> {
    let made = Client::connect(target, headers.to_vec())?.operation("apis.createApi", &json!({ "name": "bench" }))?;
    made["apiId"].as_str().map(str::to_owned).ok_or_else(|| Error::Unexpected("createApi gave no apiId".into()))
}

/// The request that makes a key in `api`.
pub fn key_request(api: &str, rate_limited: bool) -> Value {
    let mut ask = json!({ "apiId": api });
    if rate_limited {
        // The highest limit and an hour: counted on every verify, never reached in a run.
        ask["ratelimits"] =
            json!([{ "name": "bench", "limit": 1_000_000_000u64, "duration": 3_600_000, "autoApply": true }]);
    }
    ask
}

/// Makes `count` keys over several connections; gives their plaintexts.
///
/// # Errors
///
/// What the server says.
pub fn make_keys(target: Target, headers: &[Header], ask: &Value, count: usize) -> Result<Vec<String>> {
    let makers = MAKERS.min(count);
    let parts: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..makers)
            .map(|maker| {
                scope.spawn(move || {
                    let mut client = Client::connect(target, headers.to_vec())?;
                    let share = count / makers + usize::from(maker < count % makers);
                    let key = |made: Value| made["key"].as_str().map(str::to_owned);
                    let missing = || Error::Unexpected("createKey gave no key".into());
                    (0..share).map(|_| key(client.operation("keys.createKey", ask)?).ok_or_else(missing)).collect()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a maker of keys panicked")).collect()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.concat())
}

/// A server's runs, gathered.
struct Gathered {
    total: Option<(Plan, Outcome)>,
    throughputs: Vec<f64>,
    p99s: Vec<f64>,
    cpu: Duration,
}

impl Gathered {
    fn new() -> Gathered {
        Gathered { total: None, throughputs: Vec::new(), p99s: Vec::new(), cpu: Duration::ZERO }
    }

    fn measure(&mut self, server: &Server, plan: &Plan) -> Result<()> {
        let before = server.cpu()?;
        let outcome = run(plan)?;
        outcome.expect_all(200)?;
        self.cpu += server.cpu()?.saturating_sub(before);
        self.throughputs.push(outcome.throughput());
        self.p99s.push(Latency::of(&outcome.latency).p99);
        match &mut self.total {
            Some((_, total)) => total.add_run(&outcome),
            None => self.total = Some((plan.clone(), outcome)),
        }
        Ok(())
    }

    fn summary(&self) -> Result<Summary> {
        let (plan, outcome) = self.total.as_ref().ok_or_else(|| Error::Usage("rounds must be at least 1".into()))?;
        Ok(Summary::of(plan, outcome))
    }

    fn cpu_per_request(&self) -> f64 {
        per_request(self.cpu, self.total.as_ref().map_or(0, |(_, outcome)| outcome.sent))
    }
}

/// Makes the comparison. `say` is told what is going on.
///
/// # Errors
///
/// Whatever keeps it from measuring. A bound that is missed is not an error here: see [`Comparison::judge`].
pub fn compare(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Comparison> {
    if !(1..=MOST_KEYS).contains(&options.keys) || options.rounds == 0 || !(0.01..=0.95).contains(&options.load) {
        return Err(Error::Usage(format!("keys: 1 to {MOST_KEYS}; rounds: at least 1; load: 0.01 to 0.95")));
    }
    let binary = keyward_binary(options.keyward.as_deref())?;
    let cores = if options.pin { Some(Cores::choose()?) } else { None };
    let directory = scratch(options.directory.as_ref())?;
    let root_key = fresh_root_key()?;
    let data = directory.path().join("data");
    let keyward = start_keyward(&binary, &data, &root_key, &directory.path().join("keyward.log"), cores)?;
    let headers = operation_headers(&root_key);
    say(&format!("making {} keys", options.keys));
    let api = make_api(keyward.target, &headers)?;
    let keys = make_keys(keyward.target, &headers, &key_request(&api, options.rate_limited), options.keys)?;

    let verify = "/v2/keys.verifyKey";
    let bodies: Vec<Vec<u8>> = keys.iter().map(|key| json!({ "key": key }).to_string().into_bytes()).collect();
    let (status, reply) = Client::connect(keyward.target, headers.clone())?.call("POST", verify, &bodies[0])?;
    let valid = br#""valid":true"#;
    if status != 200 || memchr::memmem::find(&reply, valid).is_none() {
        let reply = String::from_utf8_lossy(&reply);
        return Err(Error::Unexpected(format!("a fresh key does not verify: {status} {reply}")));
    }
    let reply_file = directory.path().join("reply.json");
    std::fs::write(&reply_file, &reply).map_err(Error::io("keep keyward's reply"))?;
    let floor = start_floor(&reply_file, &directory.path().join("floor.log"), cores)?;

    let plan = |server: &Server| -> Result<Plan> {
        let requests: Result<Vec<_>> =
            bodies.iter().map(|body| render(server.target, "POST", verify, &headers, body)).collect();
        let mut plan =
            Plan::closed(server.target, requests?, options.connections, Duration::from_secs(options.seconds));
        plan.must_contain = Some(valid.to_vec());
        plan.spin = options.pin;
        Ok(plan)
    };
    let (mut keyward_plan, mut floor_plan) = (plan(&keyward)?, plan(&floor)?);
    let (mut keyward_closed, mut floor_closed) = (Gathered::new(), Gathered::new());
    for round in 1..=options.rounds {
        say(&format!("closed loop, round {round} of {}", options.rounds));
        keyward_closed.measure(&keyward, &keyward_plan)?;
        floor_closed.measure(&floor, &floor_plan)?;
    }
    let (keyward_summary, floor_summary) = (keyward_closed.summary()?, floor_closed.summary()?);
    let rate = options.load * keyward_summary.throughput.min(floor_summary.throughput);
    for plan in [&mut keyward_plan, &mut floor_plan] {
        plan.pace = Pace::Open { rate, arrivals: options.arrivals };
    }
    let (mut keyward_open, mut floor_open) = (Gathered::new(), Gathered::new());
    for round in 1..=options.rounds {
        say(&format!("open loop at {rate:.0}/s, round {round} of {}", options.rounds));
        keyward_open.measure(&keyward, &keyward_plan)?;
        floor_open.measure(&floor, &floor_plan)?;
    }
    let side = |server: &Server, closed: &Gathered, summary: Summary, open: &Gathered| -> Result<Side> {
        let cpu = closed.cpu_per_request();
        Ok(Side {
            busy: cpu * summary.throughput / 1e6,
            closed: summary,
            rounds: closed.throughputs.clone(),
            open: open.summary()?,
            open_rounds_p99_us: open.p99s.clone(),
            cpu_us_per_request: cpu,
            resident_bytes: server.resident()?,
        })
    };
    let keyward_side = side(&keyward, &keyward_closed, keyward_summary, &keyward_open)?;
    let floor_side = side(&floor, &floor_closed, floor_summary, &floor_open)?;
    keyward.stop()?;
    Ok(Comparison::of(options, reply.len(), keyward_side, floor_side))
}

impl Comparison {
    fn of(options: &Options, body_bytes: usize, keyward: Side, floor: Side) -> Comparison {
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::INFINITY };
        let by_round = keyward.rounds.iter().zip(&floor.rounds).map(|(a, b)| ratio(*a, *b));
        let range = by_round.fold((f64::INFINITY, 0.0f64), |(low, high), each| (low.min(each), high.max(each)));
        let (a, b) = (&keyward.open.latency_us, &floor.open.latency_us);
        let latency_ratio = Ratios { p50: ratio(a.p50, b.p50), p99: ratio(a.p99, b.p99), p999: ratio(a.p999, b.p999) };
        Comparison {
            keys: options.keys,
            rate_limited: options.rate_limited,
            pinned: options.pin,
            body_bytes,
            throughput_ratio: ratio(keyward.closed.throughput, floor.closed.throughput),
            throughput_ratio_range: range,
            latency_ratio,
            keyward,
            floor,
        }
    }

    /// Holds the comparison against the bounds that were asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Missed`] names each bound that was missed.
    pub fn judge(&self, options: &Options) -> Result<()> {
        let throughput = options.least_throughput.filter(|least| self.throughput_ratio < *least);
        let p99 = options.most_p99.filter(|most| self.latency_ratio.p99 > *most);
        let complaints: Vec<String> = [
            throughput.map(|least| format!("throughput is {:.3} of the floor's, not {least}", self.throughput_ratio)),
            p99.map(|most| format!("p99 is {:.2} times the floor's, not {most}", self.latency_ratio.p99)),
        ]
        .into_iter()
        .flatten()
        .collect();
        if complaints.is_empty() { Ok(()) } else { Err(Error::Missed(complaints.join("; "))) }
    }

    /// For people.
    pub fn table(&self) -> String {
        let rows = [
            self.keyward.closed.row("keyward, closed"),
            self.floor.closed.row("floor, closed"),
            self.keyward.open.row("keyward, open"),
            self.floor.open.row("floor, open"),
        ];
        let (low, high) = self.throughput_ratio_range;
        format!(
            "{HEADINGS}\n{}\n\nthroughput keyward/floor {:.3} (rounds {low:.3} to {high:.3})\n\
             latency keyward/floor at the same rate: p50 {:.2}, p99 {:.2}, p99.9 {:.2}\n\
             server CPU per request: keyward {:.2} us ({:.0} % of a core), floor {:.2} us ({:.0} %); generator {:.2} us\n\
             {} keys{}, {}, reply {} bytes",
            rows.join("\n"),
            self.throughput_ratio,
            self.latency_ratio.p50,
            self.latency_ratio.p99,
            self.latency_ratio.p999,
            self.keyward.cpu_us_per_request,
            self.keyward.busy * 100.0,
            self.floor.cpu_us_per_request,
            self.floor.busy * 100.0,
            self.floor.closed.generator_cpu_us_per_request,
            self.keys,
            if self.rate_limited { " with a rate limit each" } else { "" },
            if self.pinned { "generator and server pinned to a core each" } else { "not pinned" },
            self.body_bytes,
        )
    }
}
