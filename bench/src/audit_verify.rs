//! How long the verification of a long chain of audit events takes.
//!
//! In process, on one thread. The events look like those of `keys.updateKey`, with a change of two fields in their target's
//! metadata. The chain is made, the store closed and opened again, and the chain verified a few times.

use std::path::PathBuf;
use std::time::Instant;

use keyward::tenants::{By, draw_id, system_actor, target};
use keyward_storage::ids::{KeyId, WorkspaceNo};
use keyward_storage::records::audit::{Target, verify::verify};
use keyward_storage::{Abort, Turn};
use serde::Serialize;

use crate::compare::scratch;
use crate::{Error, Result, store};

/// Events made in one transaction.
const EVENTS_PER_TRANSACTION: u64 = 10_000;
/// What an update leaves.
const CHANGES: &str = r#"{"changes":{"name":{"old":"a key","new":"another key"},"enabled":{"old":true,"new":false}}}"#;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory for the data; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Events of the chain.
    pub events: u64,
    /// How often it is verified.
    pub rounds: usize,
    /// Fail when the quickest round takes longer, in seconds.
    pub most_seconds: Option<f64>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Events of the chain.
    pub events: u64,
    /// Each verification, in seconds.
    pub seconds: Vec<f64>,
    /// Of the quickest.
    pub events_per_second: f64,
}

impl Report {
    /// The figures for people.
    pub fn table(&self) -> String {
        let rounds: Vec<String> = self.seconds.iter().map(|seconds| format!("{seconds:.2}")).collect();
        format!("{} events verified in {} s: {:.0} events/s", self.events, rounds.join(", "), self.events_per_second)
    }
}

/// Makes a chain and verifies it.
///
/// # Errors
/// Whatever keeps it from measuring; a chain that does not verify; [`Error::Missed`] when the bound is missed.
pub fn audit_verify(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let place = scratch(options.directory.as_ref())?;
    let data = place.path().join("data");
    let no = WorkspaceNo(1);
    say(&format!("making {} events", options.events));
    let services = store::open(&data)?;
    let mut made = 0;
    while made < options.events {
        let count = EVENTS_PER_TRANSACTION.min(options.events - made);
        let entropy = services.outside.entropy.clone();
        let by = By::new(system_actor("bench", "keyward-bench"), services.outside.clock.now_ms(), &entropy);
        let written = services.transact_blocking(Turn::FIRST, by.now, move |tx| {
            for _ in 0..count {
                let id = KeyId(draw_id(&entropy));
                let changed = Target { meta: Some(CHANGES.to_owned()), ..target("key", id, "a key") };
                let mut event =
                    by.event("key.update", format!("Updated key {id}"), vec![changed, target("api", id, "an API")]);
                event.remote_ip = Some("203.0.113.7".to_owned());
                event.user_agent = Some("an SDK/1.0".to_owned());
                tx.audit(no, event);
            }
            Ok::<_, Abort<std::convert::Infallible>>(())
        });
        written.map_err(|error| Error::Unexpected(error.to_string()))?;
        made += count;
    }
    services.shutdown();
    drop(services);

    let services = store::open(&data)?;
    let mut seconds = Vec::new();
    for round in 1..=options.rounds.max(1) {
        say(&format!("verifying, round {round}"));
        let begun = Instant::now();
        let verified = verify(&|| services.storage.snapshot(), no, &[], &mut |_| {});
        let verified = verified.map_err(|error| Error::Unexpected(error.to_string()))?;
        seconds.push(begun.elapsed().as_secs_f64());
        if !verified.is_whole() || verified.events < options.events {
            return Err(Error::Unexpected(format!("the chain does not verify: {verified:?}")));
        }
    }
    services.shutdown();
    let quickest = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    if let Some(most) = options.most_seconds.filter(|most| quickest > *most) {
        return Err(Error::Missed(format!("a verification took {quickest:.2} s, and {most:.2} s are allowed")));
    }
    Ok(Report { events: options.events, seconds, events_per_second: options.events as f64 / quickest })
}
