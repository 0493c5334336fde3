//! Followers: how far one is behind, how fast it catches up, and what it costs its leader.
//!
//! Lag and catching up are measured in one process, two nodes of which talk over loopback: from a change's answer at the leader to
//! the moment it is visible at the follower, on one clock. What a follower costs is measured over HTTP with nodes that are
//! processes, alone and with a follower in turns.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use keyward::app::Services;
use keyward::config::{Leader, Secret, Settings};
use keyward::http::peers;
use keyward::outside::Outside;
use keyward::replication::follow;
use keyward::tenants::{By, draw_id, system_actor};
use keyward_storage::ids::ApiId;
use keyward_storage::{Abort, Turn};
use serde::Serialize;
use serde_json::json;
use tokio::task::JoinSet;

use crate::child::{Cores, Server, keyward_binary};
use crate::compare::{fresh_root_key, key_request, make_api, make_keys, operation_headers, scratch};
use crate::load::{Plan, histogram, run};
use crate::report::per_request;
use crate::store::{WORKSPACE, make_api as make_api_in};
use crate::wire::render;
use crate::{Error, Result};

/// What nodes here know each other by.
const TOKEN: &str = "a token of the benches, of thirty-two characters";
/// How long a follower may take to get somewhere.
const PATIENCE: Duration = Duration::from_secs(600);
/// Keys that are verified.
const KEYS: usize = 1000;
/// Connections that verify.
const CONNECTIONS: usize = 32;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Changes a second while the lag is measured.
    pub rate: u64,
    /// Seconds of that, and of each measurement of verifications.
    pub seconds: u64,
    /// Changes that the follower has to catch up with.
    pub records: u64,
    /// How many of these are written at one time: each waits for the disk before its writer makes the next.
    pub writers: usize,
    /// How often verifications are measured without a follower and with one.
    pub rounds: usize,
    /// Generator and leader on cores of their own.
    pub pin: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Changes a second that were made while the lag was measured.
    pub changes_per_second: f64,
    /// From a change's answer to its being visible at the follower, ms.
    pub lag_p50_ms: f64,
    /// The same, 99th percentile.
    pub lag_p99_ms: f64,
    /// The same, the longest.
    pub lag_max_ms: f64,
    /// Changes that the follower had to catch up with.
    pub records: u64,
    /// Changes a second when they were written.
    pub written_per_second: f64,
    /// Changes a second when the follower took them.
    pub caught_up_per_second: f64,
    /// Verifications a second of a leader alone, the median of the rounds.
    pub verifies_alone: f64,
    /// The same with a follower.
    pub verifies_followed: f64,
    /// Verifications a second of the follower itself.
    pub verifies_local: f64,
    /// CPU time of the leader for each, in microseconds, with a follower.
    pub leader_cpu_us: f64,
    /// The follower's for each of its own.
    pub follower_cpu_us: f64,
}

/// Measures.
///
/// # Errors
/// Whatever keeps it from measuring.
pub fn replication(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let place = scratch(options.directory.as_ref())?;
    let verifies = verifies(options, place.path(), say)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Error::io("start threads"))?;
    let measured = runtime.block_on(in_process(options, place.path(), say));
    runtime.shutdown_timeout(Duration::from_secs(5));
    let Measured { made, took, lags, written_per_second, caught_up_per_second } = measured?;
    let at = |quantile: f64| lags.value_at_quantile(quantile) as f64 / 1e6;
    Ok(Report {
        changes_per_second: made as f64 / took.as_secs_f64(),
        lag_p50_ms: at(0.5),
        lag_p99_ms: at(0.99),
        lag_max_ms: at(1.0),
        records: options.records,
        written_per_second,
        caught_up_per_second,
        verifies_alone: verifies.alone.per_second(),
        verifies_followed: verifies.followed.per_second(),
        verifies_local: verifies.local.per_second(),
        leader_cpu_us: verifies.followed.cpu_us(),
        follower_cpu_us: verifies.local.cpu_us(),
    })
}

impl Report {
    /// For people.
    pub fn table(&self) -> String {
        format!(
            "lag at {:.0} changes/s: p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms\n\
             {} changes written at {:.0}/s, caught up with at {:.0}/s: {:.1} times as fast\n\
             verifications of the leader: alone {:.0}/s, with a follower {:.0}/s: {:+.1} %\n\
             verifications of the follower itself: {:.0}/s; CPU for each {:.2} us, of the leader's {:.2} us",
            self.changes_per_second,
            self.lag_p50_ms,
            self.lag_p99_ms,
            self.lag_max_ms,
            self.records,
            self.written_per_second,
            self.caught_up_per_second,
            self.caught_up_per_second / self.written_per_second.max(1.0),
            self.verifies_alone,
            self.verifies_followed,
            100.0 * (self.verifies_followed / self.verifies_alone.max(1.0) - 1.0),
            self.verifies_local,
            self.follower_cpu_us,
            self.leader_cpu_us,
        )
    }
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(Error::io("find a port"))
}

/// What is measured in this process.
struct Measured {
    made: u64,
    took: Duration,
    lags: Histogram<u64>,
    written_per_second: f64,
    caught_up_per_second: f64,
}

/// One change: an event of the audit trail, which is what every change has.
async fn change(services: &Arc<Services>, number: u64) -> Result<keyward_storage::Position> {
    let now = services.outside.clock.now_ms();
    let by = By::new(system_actor("bench", "keyward-bench"), now, &services.outside.entropy);
    let done = services.transact(Turn::of(WORKSPACE), now, move |tx| {
        let event = by.event("bench.change", format!("Change {number}"), Vec::new());
        tx.audit(WORKSPACE, event);
        Ok::<_, Abort<std::convert::Infallible>>(())
    });
    done.await.map(|committed| committed.position).map_err(|error| Error::Unexpected(error.to_string()))
}

async fn in_process(options: &Options, place: &Path, say: &mut dyn FnMut(&str)) -> Result<Measured> {
    let port = free_port()?;
    let mut settings = Settings { data_dir: place.join("leader"), ..Settings::default() };
    settings.secrets.replication_token = Some(Secret::new(TOKEN.replace(' ', "-")));
    settings.replication.listen = Some(format!("127.0.0.1:{port}"));
    // Nothing of what is to be caught up with may go meanwhile.
    settings.replication.log_bytes = 64 << 30;
    let outside = Outside::system();
    let unexpected = |error: &dyn std::fmt::Display| Error::Unexpected(error.to_string());
    let listener = peers::bind(&settings, outside.clock.clone()).await.map_err(|error| unexpected(&error))?;
    let leader = Services::open(&settings, outside.clone()).map_err(|error| unexpected(&error))?;
    let serving = {
        let (services, settings) = (Arc::clone(&leader), settings.clone());
        tokio::spawn(async move {
            if let Some(listener) = listener {
                peers::run(listener, services, &settings, std::future::pending()).await;
            }
        })
    };
    let by = By::new(system_actor("bench", "keyward-bench"), outside.clock.now_ms(), &outside.entropy);
    make_api_in(&leader, &by, ApiId(draw_id(&outside.entropy)))?;

    let mut own = Settings { data_dir: place.join("follower"), ..settings.clone() };
    own.replication.listen = None;
    own.replication.follow = Some(Leader { address: format!("127.0.0.1:{port}"), tls: false });
    follow::begin(&own, &follow::Waiting::default()).await.map_err(|error| unexpected(&error))?;
    let follower = Services::open(&own, outside.clone()).map_err(|error| unexpected(&error))?;
    let silence = own.replication.silence;
    let following = tokio::spawn(follow::run(Arc::clone(&follower), "b".to_owned(), silence));
    wait(&leader, &follower).await?;

    say(&format!("changing {} times a second for {} s", options.rate, options.seconds));
    let (made, took, lags) = lag(options, &leader, &follower).await?;
    wait(&leader, &follower).await?;

    say(&format!("{} writers make {} changes without the follower", options.writers, options.records));
    following.abort();
    let _ = following.await;
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..options.writers as u64 {
        let (leader, records, step) = (Arc::clone(&leader), options.records, options.writers);
        writers.spawn(async move {
            for number in (writer..records).step_by(step) {
                change(&leader, number).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done.map_err(|error| unexpected(&error))??;
    }
    let written_per_second = options.records as f64 / began.elapsed().as_secs_f64();
    say("catching up");
    follower.shutdown();
    drop(follower);
    let follower = Services::open(&own, outside.clone()).map_err(|error| unexpected(&error))?;
    let began = Instant::now();
    let following = tokio::spawn(follow::run(Arc::clone(&follower), "b".to_owned(), silence));
    wait(&leader, &follower).await?;
    let caught_up_per_second = options.records as f64 / began.elapsed().as_secs_f64();
    following.abort();
    serving.abort();
    let _ = tokio::join!(following, serving);
    follower.shutdown();
    leader.shutdown();
    Ok(Measured { made, took, lags, written_per_second, caught_up_per_second })
}

async fn wait(leader: &Services, follower: &Services) -> Result<()> {
    match follower.node.wait_for(leader.node.position(), Instant::now() + PATIENCE).await {
        true => Ok(()),
        false => Err(Error::Unexpected("the follower does not get there".to_owned())),
    }
}

/// Changes at a steady pace, each timed from its answer to the follower.
async fn lag(
    options: &Options,
    leader: &Arc<Services>,
    follower: &Arc<Services>,
) -> Result<(u64, Duration, Histogram<u64>)> {
    let mut lags = histogram();
    let mut timed: JoinSet<Result<u64>> = JoinSet::new();
    let began = Instant::now();
    let all = options.rate * options.seconds;
    let mut made = 0;
    while made < all {
        let due = (began.elapsed().as_secs_f64() * options.rate as f64) as u64;
        while made < due.min(all) {
            let (leader, follower) = (Arc::clone(leader), Arc::clone(follower));
            let number = made;
            timed.spawn(async move {
                let position = change(&leader, number).await?;
                let answered = Instant::now();
                if !follower.node.wait_for(position, answered + PATIENCE).await {
                    return Err(Error::Unexpected("a change never came to the follower".to_owned()));
                }
                Ok(u64::try_from(answered.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1))
            });
            made += 1;
        }
        while let Some(done) = timed.try_join_next() {
            lags.saturating_record(done.map_err(|error| Error::Unexpected(error.to_string()))??);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed();
    while let Some(done) = timed.join_next().await {
        lags.saturating_record(done.map_err(|error| Error::Unexpected(error.to_string()))??);
    }
    Ok((made, took, lags))
}

/// What verifications of one kind have come to, round by round.
#[derive(Default)]
struct Rounds {
    per_second: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Rounds {
    fn measure(&mut self, server: &Server, plan: &Plan) -> Result<()> {
        let before = server.cpu()?;
        let outcome = run(plan)?;
        outcome.expect_all(200)?;
        self.per_second.push(outcome.throughput());
        self.cpu_us.push(per_request(server.cpu()?.saturating_sub(before), outcome.sent));
        Ok(())
    }

    fn per_second(&self) -> f64 {
        median(&self.per_second)
    }

    fn cpu_us(&self) -> f64 {
        median(&self.cpu_us)
    }
}

/// Verifications of a leader alone, of one with a follower, and of the follower itself.
#[derive(Default)]
struct Verifies {
    alone: Rounds,
    followed: Rounds,
    local: Rounds,
}

fn verifies(options: &Options, place: &Path, say: &mut dyn FnMut(&str)) -> Result<Verifies> {
    let binary = keyward_binary(options.keyward.as_deref())?;
    let cores = if options.pin { Some(Cores::choose()?) } else { None };
    let port = free_port()?;
    let root_key = fresh_root_key()?;
    let node = |name: &str| {
        let mut command = Command::new(&binary);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(place.join(format!("http-{name}")))
            .env("KEYWARD_ROOT_KEY", &root_key)
            .env("KEYWARD_REPLICATION_TOKEN", TOKEN.replace(' ', "-"));
        command
    };
    let mut command = node("leader");
    command.env("KEYWARD_REPLICATION_LISTEN", format!("127.0.0.1:{port}"));
    let leader = Server::start(command, "/health/ready", &place.join("http-leader.log"), cores)?;
    let headers = operation_headers(&root_key);
    let api = make_api(leader.target, &headers)?;
    let keys = make_keys(leader.target, &headers, &key_request(&api, false), KEYS)?;
    let plan = |server: &Server| -> Result<Plan> {
        let body = |key: &String| json!({ "key": key }).to_string().into_bytes();
        let requests: Result<Vec<Vec<u8>>> =
            keys.iter().map(|key| render(server.target, "POST", "/v2/keys.verifyKey", &headers, &body(key))).collect();
        Ok(Plan::closed(server.target, requests?, CONNECTIONS, Duration::from_secs(options.seconds)))
    };
    let at_leader = plan(&leader)?;
    let mut seen = Verifies::default();
    Rounds::default().measure(&leader, &at_leader)?;
    for round in 0..options.rounds {
        say(&format!("verifying, round {} of {}", round + 1, options.rounds));
        seen.alone.measure(&leader, &at_leader)?;
        let mut command = node("follower");
        command.env("KEYWARD_REPLICATION_FOLLOW", format!("http://127.0.0.1:{port}"));
        // On the generator's core: it is another machine's time that it takes.
        let follower = Server::start(command, "/health/ready", &place.join("http-follower.log"), None)?;
        seen.followed.measure(&leader, &at_leader)?;
        let at_follower = plan(&follower)?;
        seen.local.measure(&follower, &at_follower)?;
        follower.stop()?;
    }
    leader.stop()?;
    Ok(seen)
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
