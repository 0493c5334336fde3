//! A rotation of the vault while keys are verified: how fast it goes, what it does to verifications, and that none fails.
//!
//! Over HTTP, with the operator's command beside the load. Recoverable keys are made first; then verifiers run in a closed
//! loop, for some seconds alone and then until the rotation has ended. A verification that does not answer 200 and `VALID`
//! is a failure, and so is a rotation that leaves a copy behind.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use crate::child::{Server, keyward_binary};
use crate::client::Client;
use crate::compare::{fresh_root_key, make_api, make_keys, operation_headers, scratch};
use crate::report::Latency;
use crate::{Error, Result, verifiers};

/// How long verifiers run alone.
const ALONE: Duration = Duration::from_secs(3);
/// A master key; what it is does not matter here.
const MASTER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
/// The phases of a run.
const BEFORE: usize = 0;
const DURING: usize = 1;
const PHASES: usize = 2;

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
    let beside = verifiers::beside(options.verifiers, server.target, &headers, &keys, PHASES, |phase| {
        std::thread::sleep(ALONE);
        phase.store(DURING, Ordering::Release);
        let begun = Instant::now();
        let mut rotate = Command::new(&binary);
        rotate.args(["vault", "rotate", "--output", "json", "--data-dir"]).arg(&data).stdin(Stdio::null());
        let output = rotate.output();
        let seconds = begun.elapsed().as_secs_f64();
        Ok((output.map_err(Error::io("run keyward vault rotate"))?, seconds))
    });
    let (seen, (rotated, seconds)) = beside?;
    server.stop()?;
    let told: Value = serde_json::from_slice(&rotated.stdout).unwrap_or(Value::Null);
    let moved = told["moved"].as_u64().unwrap_or(0);
    if !rotated.status.success() || moved != options.keys as u64 {
        let why = String::from_utf8_lossy(&rotated.stderr);
        return Err(Error::Unexpected(format!("the rotation moved {moved} of {} copies: {told} {why}", options.keys)));
    }
    let verifiers::Seen { phases, failures, last_failure } = seen;
    Ok(Report {
        moved,
        seconds,
        keys_per_second: moved as f64 / seconds,
        verifications: phases[DURING].len(),
        failures,
        last_failure,
        before_us: Latency::of(&phases[BEFORE]),
        during_us: Latency::of(&phases[DURING]),
    })
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
