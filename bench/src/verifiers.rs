//! Verifiers beside something else: threads that verify keys in a closed loop, and what they see in each phase of it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hdrhistogram::Histogram;
use serde_json::json;

use crate::client::Client;
use crate::load::histogram;
use crate::wire::{Header, Target};
use crate::{Error, Result};

/// What they saw.
pub struct Seen {
    /// Latencies of verifications that were answered `VALID`, ns, by phase.
    pub phases: Vec<Histogram<u64>>,
    /// Verifications that were not.
    pub failures: u64,
    /// One of them.
    pub last_failure: Option<String>,
}

impl Seen {
    fn nothing(phases: usize) -> Seen {
        Seen { phases: (0..phases).map(|_| histogram()).collect(), failures: 0, last_failure: None }
    }

    fn add(&mut self, other: Seen) -> Result<()> {
        for (sum, one) in self.phases.iter_mut().zip(&other.phases) {
            sum.add(one).map_err(|error| Error::Unexpected(error.to_string()))?;
        }
        self.failures += other.failures;
        self.last_failure = self.last_failure.take().or(other.last_failure);
        Ok(())
    }
}

/// Lets so many verify `keys` while `during` runs, which stores the number of each phase as it begins; they end when it does.
///
/// # Errors
/// What `during` says, or a verifier that cannot connect.
pub fn beside<R>(
    count: usize,
    target: Target,
    headers: &[Header],
    keys: &[String],
    phases: usize,
    during: impl FnOnce(&AtomicUsize) -> Result<R>,
) -> Result<(Seen, R)> {
    let phase = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let verifiers: Vec<_> = (0..count)
            .map(|at| {
                let phase = &phase;
                scope.spawn(move || verify(target, headers, keys, at, phases, phase))
            })
            .collect();
        let done = during(&phase);
        phase.store(phases, Ordering::Release);
        let mut seen = Seen::nothing(phases);
        for verifier in verifiers {
            seen.add(verifier.join().map_err(|_| Error::Unexpected("a verifier panicked".to_owned()))??)?;
        }
        Ok((seen, done?))
    })
}

/// Verifies one key after the other until all phases are over.
fn verify(
    target: Target,
    headers: &[Header],
    keys: &[String],
    from: usize,
    phases: usize,
    phase: &AtomicUsize,
) -> Result<Seen> {
    let mut client = Client::connect(target, headers.to_vec())?;
    let mut seen = Seen::nothing(phases);
    // A stride that is prime to any count of keys in use spreads verifiers over them.
    for key in keys.iter().cycle().skip(from * 7919 % keys.len().max(1)) {
        let in_phase = phase.load(Ordering::Acquire);
        if in_phase >= phases {
            break;
        }
        let begun = Instant::now();
        let answer = client.operation("keys.verifyKey", &json!({ "key": key }));
        let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1);
        match answer {
            Ok(data) if data["code"] == "VALID" => seen.phases[in_phase].saturating_record(took),
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
