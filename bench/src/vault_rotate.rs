//! A rotation of the vault while keys are verified: how fast it goes, what it does to verifications, and that none fails.
//!
//! Over HTTP, with the operator's command beside the load. Recoverable keys are made first; then verifiers run in a closed
//! loop, for some seconds alone and then until the rotation has ended. A verification that does not answer 200 and `VALID`
//! is a failure, and so is a rotation that leaves a copy behind.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use crate::child::{Server, keyward_binary};
use crate::client::Client;
use crate::compare::{fresh_root_key, make_api, make_keys, operation_headers, scratch};
use crate::load::histogram;
use crate::report::Latency;
use crate::wire::{Header, Target};
use crate::{Error, Result};

/// How long verifiers run alone.
const ALONE: Duration = Duration::from_secs(3);
/// A master key; what it is does not matter here.
const MASTER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// The phases of a run.
const BEFORE: u8 = 0;
const DURING: u8 = 1;
const OVER: u8 = 2;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Recoverable keys.
    pub keys: usize,
    /// Verifiers, each with a connection.
    pub verifiers: usize,
    /// Fail when the rotation takes longer, in seconds.
    pub most_seconds: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Copies that the rotation moved.
    pub moved: u64,
    /// How long it took, the command's start included.
    pub seconds: f64,
    /// Copies a second.
    pub keys_per_second: f64,
    /// Verifications while it ran.
    pub verifications: u64,
    /// Verifications, of the whole run, that were not answered `VALID`.
    pub failures: u64,
    /// One of them.
    pub last_failure: Option<String>,
    /// Latency of a verification before it, in microseconds.
    pub before_us: Latency,
    /// The same while it ran.
    pub during_us: Latency,
}

/// What one verifier saw.
struct Seen {
    before: Histogram<u64>,
    during: Histogram<u64>,
    failures: u64,
    last_failure: Option<String>,
}

/// Makes keys and measures. `say` is told what is going on.
///
/// # Errors
/// Whatever keeps it from measuring; a rotation that fails or leaves copies; [`Report::judge`] holds the rest against its bounds.
pub fn vault_rotate(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let binary = keyward_binary(options.keyward.as_deref())?;
    let directory = scratch(options.directory.as_ref())?;
    let (data, log) = (directory.path().join("data"), directory.path().join("keyward.log"));
    let root_key = fresh_root_key()?;
    let mut serve = Command::new(&binary);
    serve.arg("serve").arg("--data-dir").arg(&data);
    serve.env("KEYWARD_ROOT_KEY", &root_key).env("KEYWARD_MASTER_KEY", MASTER_KEY);
    let server = Server::start(serve, "/health/ready", &log, None)?;
    let headers = operation_headers(&root_key);
    let api = make_api(server.target, &headers)?;
    let on = json!({"apiId": api, "storeEncryptedKeys": true});
    Client::connect(server.target, headers.clone())?.operation("apis.updateApi", &on)?;
    say(&format!("making {} recoverable keys", options.keys));
    let keys = make_keys(server.target, &headers, &json!({"apiId": api, "recoverable": true}), options.keys)?;

    say("rotating while keys are verified");
    let phase = AtomicU8::new(BEFORE);
    let (seen, rotated, seconds) = std::thread::scope(|scope| -> Result<_> {
        let verifiers: Vec<_> = (0..options.verifiers)
            .map(|at| {
                let (headers, keys, phase, target) = (&headers, &keys, &phase, server.target);
                scope.spawn(move || verify(target, headers, keys, at, phase))
            })
            .collect();
        std::thread::sleep(ALONE);
        phase.store(DURING, Ordering::Release);
        let begun = Instant::now();
        let mut rotate = Command::new(&binary);
        rotate.args(["vault", "rotate", "--output", "json", "--data-dir"]).arg(&data).stdin(Stdio::null());
        let output = rotate.output();
        let seconds = begun.elapsed().as_secs_f64();
        phase.store(OVER, Ordering::Release);
        let mut seen = Vec::new();
        for verifier in verifiers {
            seen.push(verifier.join().map_err(|_| Error::Unexpected("a verifier panicked".to_owned()))??);
        }
        Ok((seen, output.map_err(Error::io("run keyward vault rotate"))?, seconds))
    })?;
    server.stop()?;
    let told: Value = serde_json::from_slice(&rotated.stdout).unwrap_or(Value::Null);
    let moved = told["moved"].as_u64().unwrap_or(0);
    if !rotated.status.success() || moved != options.keys as u64 {
        let why = String::from_utf8_lossy(&rotated.stderr);
        return Err(Error::Unexpected(format!("the rotation moved {moved} of {} copies: {told} {why}", options.keys)));
    }
    let (mut before, mut during) = (histogram(), histogram());
    let (mut failures, mut last_failure) = (0, None);
    for seen in seen {
        for (sum, one) in [(&mut before, &seen.before), (&mut during, &seen.during)] {
            sum.add(one).map_err(|error| Error::Unexpected(error.to_string()))?;
        }
        failures += seen.failures;
        last_failure = last_failure.or(seen.last_failure);
    }
    Ok(Report {
        moved,
        seconds,
        keys_per_second: moved as f64 / seconds,
        verifications: during.len(),
        failures,
        last_failure,
        before_us: Latency::of(&before),
        during_us: Latency::of(&during),
    })
}

/// Verifies one key after the other until the rotation is over.
fn verify(target: Target, headers: &[Header], keys: &[String], from: usize, phase: &AtomicU8) -> Result<Seen> {
    let mut client = Client::connect(target, headers.to_vec())?;
    let mut seen = Seen { before: histogram(), during: histogram(), failures: 0, last_failure: None };
    // A stride that is prime to any count of keys in use spreads verifiers over them.
    for key in keys.iter().cycle().skip(from * 7919 % keys.len().max(1)) {
        let in_phase = phase.load(Ordering::Acquire);
        if in_phase == OVER {
            break;
        }
        let begun = Instant::now();
        let answer = client.operation("keys.verifyKey", &json!({ "key": key }));
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        match answer {
            Ok(data) if data["code"] == "VALID" => {
                let latency = if in_phase == BEFORE { &mut seen.before } else { &mut seen.during };
                latency.saturating_record(took);
            }
            Ok(data) => {
                seen.failures += 1;
                seen.last_failure = Some(data.to_string());
            }
            Err(error) => {
                seen.failures += 1;
                seen.last_failure = Some(error.to_string());
                client = Client::connect(target, headers.to_vec())?;
            }
        }
    }
    Ok(seen)
}

impl Report {
    /// Holds the result against what must be.
    ///
    /// # Errors
    /// [`Error::Missed`] for a failed verification, or a rotation that took too long.
    pub fn judge(&self, options: &Options) -> Result<()> {
        if self.failures > 0 {
            let one = self.last_failure.as_deref().unwrap_or_default();
            return Err(Error::Missed(format!("{} verifications failed, one of them: {one}", self.failures)));
        }
        match options.most_seconds {
            Some(most) if self.seconds > most => {
                Err(Error::Missed(format!("the rotation took {:.1} s, not {most:.1}", self.seconds)))
            }
            _ => Ok(()),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        format!(
            "{} copies moved in {:.2} s: {:.0} keys/s\n{} verifications meanwhile, {} failures in all\n\
             a verification before it   p50 {:7.0} us, p99 {:7.0} us\nand beside it              p50 {:7.0} us, p99 {:7.0} us",
            self.moved,
            self.seconds,
            self.keys_per_second,
            self.verifications,
            self.failures,
            self.before_us.p50,
            self.before_us.p99,
            self.during_us.p50,
            self.during_us.p99
        )
    }
}
