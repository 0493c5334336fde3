//! `keyward-bench`: see `--help`, and the library's documentation for what the figures mean.

use std::io::Write;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use keyward_bench::child::pin_to;
use keyward_bench::load::{Arrivals, Order, Pace, Plan, run};
use keyward_bench::report::{HEADINGS, Summary};
use keyward_bench::wire::{Header, Target, render};
use keyward_bench::{
    Error, Result, analytics, audit_verify, backup, beside, compare, create_key, delete_role, floor, replication,
    restart, search, vault_rotate,
};
use serde::Serialize;

/// The same allocator as keyward's, so that the floor does not differ in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures keyward over HTTP, on this machine only.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Load a server that is running.
    Http(Box<Http>),
    /// Serve a fixed answer with bare hyper and keyward's listener settings.
    Floor(Floor),
    /// keyward's verify against the floor, taking turns, as ratios.
    Compare(Compare),
    /// Durable key creation, beside what the disk alone can do.
    CreateKey(CreateKey),
    /// Start-up time and resident memory of a store with many keys.
    Restart(Restart),
    /// Deleting a role that very many keys hold, beside other changes.
    DeleteRole(DeleteRole),
    /// Rotating the vault while keys are verified.
    VaultRotate(VaultRotate),
    /// Backing a large store up while keys are verified, and restoring it.
    Backup(Backup),
    /// Ingest of events, their bytes on disk, and SELECTs over them.
    Analytics(Analytics),
    /// Verifications beside heavy queries, and how soon a query sees one.
    Beside(Beside),
    /// Verification of a long chain of audit events.
    AuditVerify(AuditVerify),
    /// The search index: its size, searches, its lag behind changes, and verifications beside it.
    Search(Search),
    /// Followers: how far one is behind, how fast it catches up, what it costs its leader.
    Replication(Replication),
}

#[derive(Args)]
struct Http {
    /// Origin to load: http://ADDRESS:PORT, loopback only.
    #[arg(long)]
    target: String,
    /// Path of the requests.
    #[arg(long)]
    path: String,
    /// POST, or GET (then without body).
    #[arg(long, default_value = "POST")]
    method: String,
    /// Connections kept open.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Threads of the generator.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Measured time in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Time before that which is not measured, in seconds.
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Open loop at so many requests a second; without it, closed loop.
    #[arg(long)]
    rate: Option<f64>,
    /// How an open loop spreads its requests.
    #[arg(long, value_enum, default_value_t = Spread::Even)]
    arrivals: Spread,
    /// A request header, "Name: value"; may be given several times.
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Send the content of this file as bearer credential (keyward writes DATA/root.key).
    #[arg(long)]
    bearer_file: Option<PathBuf>,
    /// Request body from a file.
    #[arg(long, conflicts_with = "bodies")]
    body_file: Option<PathBuf>,
    /// Request bodies from a file, one a line.
    #[arg(long)]
    bodies: Option<PathBuf>,
    /// Which body is next.
    #[arg(long, value_enum, default_value_t = Next::Random)]
    order: Next,
    /// Every answer's body must hold this text.
    #[arg(long)]
    must_contain: Option<String>,
    /// Bind the generator to this core.
    #[arg(long)]
    core: Option<usize>,
    /// Open loop: wait by spinning instead of a timer (takes a whole core).
    #[arg(long)]
    spin: bool,
    /// Seed of the random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Exit with 1 unless every answer is a 200 that holds what it must.
    #[arg(long)]
    strict: bool,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Floor {
    /// Where to listen; loopback only.
    #[arg(long, default_value = "127.0.0.1:7071")]
    listen: SocketAddr,
    /// Length of the answer's body.
    #[arg(long, default_value_t = 180, conflicts_with = "body_file")]
    body_bytes: usize,
    /// The answer's body from a file.
    #[arg(long)]
    body_file: Option<PathBuf>,
    /// The runtime's workers; default: one per core that may be used.
    #[arg(long)]
    threads: Option<usize>,
    /// Bind the server to this core.
    #[arg(long)]
    core: Option<usize>,
    /// Have hyper limit the time a request's head may take to 10 s (keyward does that by itself, and cheaper).
    #[arg(long)]
    head_deadline: bool,
}

#[derive(Args)]
struct Setting {
    /// keyward's binary; default: the one beside this program.
    #[arg(long)]
    keyward: Option<PathBuf>,
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Connections kept open.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Bind the generator to one core and the server to another.
    #[arg(long)]
    pin: bool,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Compare {
    #[command(flatten)]
    setting: Setting,
    /// Keys to make and verify.
    #[arg(long, default_value_t = 10_000)]
    keys: usize,
    /// Give every key a rate limit (never reached).
    #[arg(long)]
    rate_limited: bool,
    /// Rounds; in each both servers are measured once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measured seconds of a server in a round.
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Rate of the open loops as a fraction of the lower capacity.
    #[arg(long, default_value_t = 0.5)]
    load: f64,
    /// How the open loops spread their requests.
    #[arg(long, value_enum, default_value_t = Spread::Even)]
    arrivals: Spread,
    /// Exit with 1 when keyward/floor throughput is lower than this.
    #[arg(long)]
    least_throughput: Option<f64>,
    /// Exit with 1 when keyward/floor p99 is higher than this.
    #[arg(long)]
    most_p99: Option<f64>,
}

#[derive(Args)]
struct CreateKey {
    #[command(flatten)]
    setting: Setting,
    /// Measured seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Exit with 1 below so many keys a second.
    #[arg(long)]
    least: Option<f64>,
}

#[derive(Args)]
struct Backup {
    /// keyward's binary; default: the one beside this program.
    #[arg(long)]
    keyward: Option<PathBuf>,
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keys in the store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Verifiers, each with a connection in a closed loop.
    #[arg(long, default_value_t = 4)]
    verifiers: usize,
    /// Exit with 1 where verifications beside the backup are fewer than this part of what is normal.
    #[arg(long)]
    least_ratio: Option<f64>,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct VaultRotate {
    /// keyward's binary; default: the one beside this program.
    #[arg(long)]
    keyward: Option<PathBuf>,
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Recoverable keys.
    #[arg(long, default_value_t = 100_000)]
    keys: usize,
    /// Verifiers, each with a connection in a closed loop.
    #[arg(long, default_value_t = 4)]
    verifiers: usize,
    /// Exit with 1 when the rotation takes longer than this, in seconds.
    #[arg(long)]
    most_seconds: Option<f64>,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Restart {
    /// keyward's binary; default: the one beside this program.
    #[arg(long)]
    keyward: Option<PathBuf>,
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keys in the store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Exit with 1 when a start takes longer than this, in seconds.
    #[arg(long)]
    most_seconds: Option<f64>,
    /// Exit with 1 when there are more resident bytes per key than this.
    #[arg(long)]
    most_bytes_per_key: Option<f64>,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct DeleteRole {
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keys that hold the role.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Exit with 1 when a change beside the deletion takes longer than this, in milliseconds.
    #[arg(long)]
    most_ms: Option<f64>,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Analytics {
    /// Directory for the data, which is kept there; default: the system's for temporary files, removed afterwards.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Events to make.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Threads of the query engine.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// How often each SELECT is timed, after a first time that is not.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Beside {
    /// keyward's binary; default: the one beside this program.
    #[arg(long)]
    keyward: Option<PathBuf>,
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Connections kept open.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Events to make.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Verifications a second.
    #[arg(long, default_value_t = 2000.0)]
    rate: f64,
    /// Rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Measured seconds, alone and beside queries, of a round.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Exit with 1 when p99 beside queries is more than so many times the one alone.
    #[arg(long)]
    most_p99: Option<f64>,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct AuditVerify {
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Events of the chain.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How often it is verified.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Exit with 1 when the quickest round takes longer than this, in seconds.
    #[arg(long)]
    most_seconds: Option<f64>,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Search {
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Keys to make, and as many audit events.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Changes a second while the lag is measured.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// Seconds of each of the two measurements beside changes.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Replication {
    /// keyward's binary; default: the one beside this program.
    #[arg(long)]
    keyward: Option<PathBuf>,
    /// Directory for the data; default: the system's for temporary files.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// Changes a second while the lag is measured.
    #[arg(long, default_value_t = 3000)]
    rate: u64,
    /// Seconds of that, and of each measurement of verifications.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Changes that the follower has to catch up with.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// How many of these are written at one time.
    #[arg(long, default_value = "64")]
    writers: NonZeroUsize,
    /// How often verifications are measured without a follower and with one.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Generator and leader on cores of their own.
    #[arg(long)]
    pin: bool,
    /// One JSON object on stdout and nothing else.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Spread {
    /// At equal distances.
    Even,
    /// As of many unrelated clients.
    Poisson,
}

impl From<Spread> for Arrivals {
    fn from(spread: Spread) -> Arrivals {
        match spread {
            Spread::Even => Arrivals::Even,
            Spread::Poisson => Arrivals::Poisson,
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Next {
    /// Uniformly at random.
    Random,
    /// One after the other.
    RoundRobin,
}

fn main() -> ExitCode {
    // As keyward's main does.
    keyward::allocator::keep_freed_memory();
    let done = match Arguments::parse().command {
        Command::Http(http) => load(&http),
        Command::Floor(floor) => serve(&floor),
        Command::Compare(arguments) => contrast(arguments),
        Command::CreateKey(arguments) => create(arguments),
        Command::Restart(arguments) => start_again(arguments),
        Command::DeleteRole(arguments) => delete(arguments),
        Command::VaultRotate(arguments) => rotate(arguments),
        Command::Backup(arguments) => back_up(arguments),
        Command::Analytics(arguments) => ask(arguments),
        Command::Beside(arguments) => ask_beside(arguments),
        Command::AuditVerify(arguments) => verify(arguments),
        Command::Search(arguments) => find(arguments),
        Command::Replication(arguments) => replicate(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("keyward-bench: {error}"));
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}

fn load(http: &Http) -> Result<()> {
    let target = Target::parse(&http.target)?;
    let mut headers: Vec<Header> = Vec::new();
    for header in &http.headers {
        let (name, value) =
            header.split_once(':').ok_or_else(|| Error::Usage(format!("--header {header:?} has no colon")))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let read = |path: &PathBuf| std::fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())));
    if let Some(path) = &http.bearer_file {
        headers.push(("Authorization".to_owned(), format!("Bearer {}", read(path)?.trim())));
    }
    let has_type = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if http.method != "GET" && !has_type {
        headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    }
    let bodies = match (&http.bodies, &http.body_file) {
        (Some(path), _) => read(path)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        (None, Some(path)) => vec![read(path)?],
        (None, None) => vec![String::new()],
    };
    let requests: Result<Vec<_>> =
        bodies.iter().map(|body| render(target, &http.method, &http.path, &headers, body.as_bytes())).collect();
    let mut plan = Plan::closed(target, requests?, http.connections, seconds(http.seconds)?);
    plan.warm_up = seconds(http.warm_up)?;
    plan.threads = http.threads;
    plan.order = match http.order {
        Next::Random => Order::Random,
        Next::RoundRobin => Order::RoundRobin,
    };
    if let Some(rate) = http.rate {
        plan.pace = Pace::Open { rate, arrivals: http.arrivals.into() };
    }
    plan.spin = http.spin;
    plan.must_contain = http.must_contain.clone().map(String::into_bytes);
    plan.seed = http.seed;
    if let Some(core) = http.core {
        pin_to(core)?;
    }
    let outcome = run(&plan)?;
    let summary = Summary::of(&plan, &outcome);
    print(http.json, &summary, || {
        let mut text = format!("{HEADINGS}\n{}\nstatuses: {:?}", summary.row(summary.mode), summary.statuses);
        if let Some(failure) = &outcome.last_failure {
            text.push_str(&format!("\n{} failures, one of them: {failure}", summary.failures));
        }
        text
    })?;
    if http.strict { outcome.expect_all(200) } else { Ok(()) }
}

fn seconds(value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| Error::Usage(format!("{value} is not a number of seconds")))
}

fn serve(arguments: &Floor) -> Result<()> {
    let body = match &arguments.body_file {
        Some(path) => std::fs::read(path).map_err(Error::io(format!("read {}", path.display())))?.into(),
        None => floor::body_of(arguments.body_bytes)?,
    };
    if body.len() > floor::MAX_BODY {
        return Err(Error::Usage(format!("the body must be at most {} bytes", floor::MAX_BODY)));
    }
    if let Some(core) = arguments.core {
        pin_to(core)?;
    }
    floor::serve(arguments.listen, body, arguments.threads, arguments.head_deadline)
}

fn contrast(arguments: Compare) -> Result<()> {
    let setting = arguments.setting;
    let options = compare::Options {
        keyward: setting.keyward,
        directory: setting.directory,
        keys: arguments.keys,
        rate_limited: arguments.rate_limited,
        connections: setting.connections,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        load: arguments.load,
        arrivals: arguments.arrivals.into(),
        pin: setting.pin,
        least_throughput: arguments.least_throughput,
        most_p99: arguments.most_p99,
    };
    let comparison = compare::compare(&options, &mut say)?;
    print(setting.json, &comparison, || comparison.table())?;
    comparison.judge(&options)
}

fn create(arguments: CreateKey) -> Result<()> {
    let setting = arguments.setting;
    let options = create_key::Options {
        keyward: setting.keyward,
        directory: setting.directory,
        connections: setting.connections,
        seconds: arguments.seconds,
        pin: setting.pin,
        least: arguments.least,
    };
    let report = create_key::create_key(&options, &mut say)?;
    print(setting.json, &report, || report.table())?;
    report.judge(&options)
}

fn start_again(arguments: Restart) -> Result<()> {
    let options = restart::Options {
        keyward: arguments.keyward,
        directory: arguments.directory,
        keys: arguments.keys,
        most_seconds: arguments.most_seconds,
        most_bytes_per_key: arguments.most_bytes_per_key,
    };
    let report = restart::restart(&options, &mut say)?;
    print(arguments.json, &report, || report.table())
}

fn delete(arguments: DeleteRole) -> Result<()> {
    let options =
        delete_role::Options { directory: arguments.directory, keys: arguments.keys, most_ms: arguments.most_ms };
    let report = delete_role::delete_role(&options, &mut say)?;
    print(arguments.json, &report, || report.table())
}

fn ask(arguments: Analytics) -> Result<()> {
    let Analytics { directory, events, threads, rounds, json } = arguments;
    let report = analytics::analytics(&analytics::Options { directory, events, threads, rounds }, &mut say)?;
    print(json, &report, || report.table())
}

fn ask_beside(arguments: Beside) -> Result<()> {
    let options = beside::Options {
        keyward: arguments.keyward,
        directory: arguments.directory,
        connections: arguments.connections,
        events: arguments.events,
        rate: arguments.rate,
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        most_p99: arguments.most_p99,
    };
    let report = beside::beside(&options, &mut say)?;
    print(arguments.json, &report, || report.table())?;
    report.judge(&options)
}

fn rotate(arguments: VaultRotate) -> Result<()> {
    let VaultRotate { keyward, directory, keys, verifiers, most_seconds, json } = arguments;
    let options = vault_rotate::Options { keyward, directory, keys, verifiers, most_seconds };
    let report = vault_rotate::vault_rotate(&options, &mut say)?;
    print(json, &report, || report.table())?;
    report.judge(&options)
}

fn back_up(arguments: Backup) -> Result<()> {
    let Backup { keyward, directory, keys, verifiers, least_ratio, json } = arguments;
    let options = backup::Options { keyward, directory, keys, verifiers, least_ratio };
    let report = backup::backup(&options, &mut say)?;
    print(json, &report, || report.table())?;
    report.judge(&options)
}

fn verify(arguments: AuditVerify) -> Result<()> {
    let AuditVerify { directory, events, rounds, most_seconds, json } = arguments;
    let options = audit_verify::Options { directory, events, rounds, most_seconds };
    let report = audit_verify::audit_verify(&options, &mut say)?;
    print(json, &report, || report.table())
}

fn find(arguments: Search) -> Result<()> {
    let Search { directory, keys, rate, seconds, json } = arguments;
    let report = search::search(&search::Options { directory, keys, rate, seconds }, &mut say)?;
    print(json, &report, || report.table())
}

fn replicate(arguments: Replication) -> Result<()> {
    let Replication { keyward, directory, rate, seconds, records, writers, rounds, pin, json } = arguments;
    let options =
        replication::Options { keyward, directory, rate, seconds, records, writers: writers.get(), rounds, pin };
    let report = replication::replication(&options, &mut say)?;
    print(json, &report, || report.table())
}

/// Progress and complaints; stdout is for results.
fn say(text: &str) {
    // Nobody is left to be told that stderr is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn print(json: bool, figures: &impl Serialize, table: impl FnOnce() -> String) -> Result<()> {
    let text = if json {
        serde_json::to_string_pretty(figures)
            .map_err(|error| Error::Unexpected(format!("the figures have no JSON form: {error}")))?
    } else {
        table()
    };
    writeln!(std::io::stdout(), "{text}").map_err(Error::io("print the figures"))
}
