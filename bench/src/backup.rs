//! A backup of a large store while keys are verified: how long it takes, what it takes from verifications, and that it restores.
//!
//! The keys are put into the store in process; then keyward runs on it, verifiers run in a closed loop for a while before the
//! backup, while it is made, and after it. What they do before and after is what is normal: the ratio is to their mean. A while
//! is long enough for what a busy server does by itself now and then: sealing events, writing down which keys were used.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::child::{Server, keyward_binary};
use crate::compare::{operation_headers, scratch};
use crate::report::Latency;
use crate::{Error, Result, store, verifiers};

/// How long verifiers run before anything is measured: keys that were never verified are not in memory yet.
const WARM_UP: Duration = Duration::from_secs(15);
/// How long they run before the backup, and after it.
const ALONE: Duration = Duration::from_secs(25);
/// The phases of a run.
const WARMING: usize = 0;
const BEFORE: usize = 1;
const DURING: usize = 2;
const AFTER: usize = 3;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Keys in the store.
    pub keys: usize,
    /// Verifiers, each with a connection.
    pub verifiers: usize,
    /// Fail where verifications while the backup is made are fewer than this part of what is normal.
    pub least_ratio: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Keys in the store.
    pub keys: usize,
    /// Rows of records in the backup.
    pub rows: u64,
    /// Bytes of the backup.
    pub bytes: u64,
    /// How long it took, the command's start included.
    pub seconds: f64,
    /// How long restoring it took.
    pub restore_seconds: f64,
    /// Verifications a second before it and after it, while nothing else went on.
    pub normal_per_second: f64,
    /// The same while it was made.
    pub during_per_second: f64,
    /// The one through the other.
    pub ratio: f64,
    /// Verifications that were not answered `VALID`.
    pub failures: u64,
    /// Latency of a verification before it, in microseconds.
    pub before_us: Latency,
    /// The same while it was made.
    pub during_us: Latency,
}

/// Fills a store and measures. `say` is told what is going on.
///
/// # Errors
/// Whatever keeps it from measuring, a backup or a restore that fails; [`Report::judge`] holds the rest against its bounds.
pub fn backup(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let binary = keyward_binary(options.keyward.as_deref())?;
    let directory = scratch(options.directory.as_ref())?;
    let (data, log) = (directory.path().join("data"), directory.path().join("keyward.log"));
    let (target, restored) = (directory.path().join("backup"), directory.path().join("restored"));
    say(&format!("making {} keys", options.keys));
    let keys = {
        let services = store::open(&data)?;
        let keys = store::fill(&services, options.keys)?;
        services.shutdown();
        keys
    };
    let root_key = std::fs::read_to_string(data.join("root.key")).map_err(Error::io("read root.key"))?;
    let headers = operation_headers(root_key.trim());
    let mut serve = Command::new(&binary);
    serve.arg("serve").arg("--data-dir").arg(&data);
    let server = Server::start(serve, "/health/ready", &log, None)?;

    say("verifying, and backing up meanwhile");
    let mut times = [0.0; 4];
    let (seen, output) = verifiers::beside(options.verifiers, server.target, &headers, &keys, times.len(), |phase| {
        let mut output = None;
        for (at, seconds) in times.iter_mut().enumerate() {
            phase.store(at, Ordering::Release);
            let begun = Instant::now();
            if at == DURING {
                let mut command = Command::new(&binary);
                command.arg("backup").arg(&target).arg("--data-dir").arg(&data).args(["--output", "json"]);
                output = Some(command.stdin(Stdio::null()).output());
            } else {
                std::thread::sleep(if at == WARMING { WARM_UP } else { ALONE });
            }
            *seconds = begun.elapsed().as_secs_f64();
        }
        let output = output.ok_or_else(|| Error::Unexpected("no backup was made".to_owned()))?;
        output.map_err(Error::io("run keyward backup"))
    })?;
    server.stop()?;
    let told = answer(&output)?;

    say("restoring it");
    let begun = Instant::now();
    let mut command = Command::new(&binary);
    command.arg("restore").arg(&target).arg("--data-dir").arg(&restored).args(["--output", "json"]);
    let again = answer(&command.stdin(Stdio::null()).output().map_err(Error::io("run keyward restore"))?)?;
    let restore_seconds = begun.elapsed().as_secs_f64();
    if again["position"] != told["position"] || again["rows"] != told["rows"] {
        return Err(Error::Unexpected(format!("the backup {told} was restored as {again}")));
    }

    let verifiers::Seen { phases, failures, .. } = seen;
    let rate = |phase: usize| phases[phase].len() as f64 / times[phase].max(f64::EPSILON);
    let normal = (rate(BEFORE) + rate(AFTER)) / 2.0;
    Ok(Report {
        keys: options.keys,
        rows: told["rows"].as_u64().unwrap_or(0),
        bytes: told["bytes"].as_u64().unwrap_or(0),
        seconds: times[DURING],
        restore_seconds,
        normal_per_second: normal,
        during_per_second: rate(DURING),
        ratio: rate(DURING) / normal.max(f64::EPSILON),
        failures,
        before_us: Latency::of(&phases[BEFORE]),
        during_us: Latency::of(&phases[DURING]),
    })
}

/// The object that a command has printed.
fn answer(output: &std::process::Output) -> Result<Value> {
    if !output.status.success() {
        return Err(Error::Unexpected(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| Error::Unexpected(error.to_string()))
}

impl Report {
    /// Holds the result against what must be.
    ///
    /// # Errors
    /// [`Error::Missed`] for a failed verification, or too few of them.
    pub fn judge(&self, options: &Options) -> Result<()> {
        if self.failures > 0 {
            return Err(Error::Missed(format!("{} verifications failed", self.failures)));
        }
        match options.least_ratio {
            Some(least) if self.ratio < least => Err(Error::Missed(format!(
                "verifications beside the backup were {:.3} of what is normal, not {least:.3}",
                self.ratio
            ))),
            _ => Ok(()),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        format!(
            "{} keys, {} rows: {:.1} MB backed up in {:.2} s, restored in {:.2} s\n\
             verifications: {:.0}/s normally, {:.0}/s beside it: {:.3}; {} failures\n\
             a verification before it   p50 {:7.0} us, p99 {:7.0} us\nand beside it              p50 {:7.0} us, p99 {:7.0} us",
            self.keys,
            self.rows,
            self.bytes as f64 / 1e6,
            self.seconds,
            self.restore_seconds,
            self.normal_per_second,
            self.during_per_second,
            self.ratio,
            self.failures,
            self.before_us.p50,
            self.before_us.p99,
            self.during_us.p50,
            self.during_us.p99
        )
    }
}
