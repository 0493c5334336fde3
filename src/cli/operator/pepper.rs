//! The pepper's commands on an open store.

use std::time::{Duration, Instant};

use keyward_storage::pepper::Shown;
use keyward_storage::records::pepper as rows;
use serde_json::{Value, json};

use super::super::pepper::{Disabled, Enabled, PepperShown, PepperStatus, State};
use super::super::vault::NoArguments;
use super::{by, read, unreadable};
use crate::app::Services;
use crate::http::admin::stream::Frames;
use crate::http::admin::{AdminRequest, Operator};
use crate::pepper::switch::{self, Progress};
use crate::telemetry::error_chain;
use crate::tenants::By;

/// Between two reports of how far a switch is.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether a command tells how far it is while it runs.
pub fn is_streamed(command: &str) -> bool {
    command == "pepper.enable"
}

/// Executes a switch on its connection: frames of how far it is flow to the client. Blocks.
///
/// # Errors
/// A sentence for the operator; what is done is kept.
pub fn stream(services: &Services, request: AdminRequest, frames: &mut Frames) -> Result<Value, String> {
    let AdminRequest { arguments, operator, .. } = request;
    let NoArguments {} = read(arguments)?;
    frames.go(&json!({})).map_err(|error| error_chain(&error))?;
    let mut told = Instant::now();
    let outcome = enable(services, &operator, &mut |progress| {
        if told.elapsed() < PAUSE {
            return Ok(());
        }
        told = Instant::now();
        frames.send(json!(progress).to_string().as_bytes())
    });
    // Where the client is gone there is nobody to tell of that.
    let _ = if outcome.is_ok() { frames.end() } else { frames.abort() };
    outcome.map(|enabled| json!(enabled))
}

/// Switches to the first configured pepper on an open store.
///
/// # Errors
/// A sentence for the operator; what is done is kept.
pub fn enable(
    services: &Services,
    operator: &Operator,
    tell: &mut dyn FnMut(&Enabled) -> std::io::Result<()>,
) -> Result<Enabled, String> {
    let done = switch::switch(services, &by(services, operator), &mut |progress| tell(&enabled(progress)));
    done.map(|progress| enabled(&progress)).map_err(|error| error_chain(&error))
}

fn enabled(progress: &Progress) -> Enabled {
    let Progress { hashes, moved, resumed, was_needed, pepper } = progress;
    Enabled {
        pepper: Shown(pepper).to_string(),
        hashes: *hashes,
        moved: *moved,
        resumed: *resumed,
        was_in_use: !was_needed,
    }
}

/// Writes the pepper in use into the data directory.
///
/// # Errors
/// A sentence for the operator; nothing was changed.
pub fn disable(services: &Services, by: &By) -> Result<Disabled, String> {
    let disclosed = switch::disclose(services, by).map_err(|error| error_chain(&error))?;
    Ok(Disabled { pepper: disclosed.map(|pepper| Shown(&pepper).to_string()) })
}

/// Which peppers there are, and what they are needed for.
///
/// # Errors
/// A sentence for the operator.
pub fn status(services: &Services) -> Result<PepperStatus, String> {
    let snapshot = services.storage.snapshot().map_err(|error| unreadable(&error))?;
    let row = rows::get(&snapshot).map_err(|error| unreadable(&error))?;
    let census = rows::census(&snapshot).map_err(|error| unreadable(&error))?;
    let links = row.as_ref().map(|row| &*row.links).unwrap_or_default();
    let configured = services.storage.peppers().configured();
    let last = links.len();
    let mut peppers: Vec<PepperShown> = Vec::new();
    for (at, link) in links.iter().enumerate().rev() {
        let stage = u8::try_from(at + 1).unwrap_or(u8::MAX);
        peppers.push(PepperShown {
            fingerprint: Shown(&link.fingerprint).to_string(),
            configured: configured.iter().any(|pepper| pepper.fingerprint == link.fingerprint),
            state: match link.kept {
                _ if at + 1 < last => State::Exchanged,
                None => State::InUse,
                Some(_) => State::Disabled,
            },
            hashes: census.keys.get(&stage).unwrap_or(&0) + census.root_keys.get(&stage).unwrap_or(&0),
        });
    }
    for pepper in configured {
        if !links.iter().any(|link| link.fingerprint == pepper.fingerprint) {
            peppers.push(PepperShown {
                fingerprint: Shown(&pepper.fingerprint).to_string(),
                configured: true,
                state: State::New,
                hashes: 0,
            });
        }
    }
    let stage = u8::try_from(last).unwrap_or(u8::MAX);
    Ok(PepperStatus {
        source: services.peppers.place.clone(),
        peppers,
        hashes: rows::count(&snapshot).map_err(|error| unreadable(&error))?,
        hashes_without_pepper: census.keys.get(&0).unwrap_or(&0) + census.root_keys.get(&0).unwrap_or(&0),
        hashes_to_be_switched: census.before(stage),
        begun_at: row.as_ref().map(|row| row.begun_at),
        ended_at: row.as_ref().and_then(|row| row.ended_at),
        cleared_at: row.as_ref().and_then(|row| row.cleared_at),
    })
}
