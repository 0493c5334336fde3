//! The pepper: a secret outside of the data directory that stored hashes of keys are keyed with.
//!
//! What it does stands in [`keyward_storage::pepper`]. Here is where it comes from (the same kinds of places as the master key,
//! EXT-6), and the [`switch`] that takes the hashes of a store to it while requests go on.

pub mod switch;

use std::path::Path;
use std::sync::Mutex;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyward_storage::pepper::{CHAIN_MAX, PEPPER_BYTES, Pepper, Peppers, Shown};
use keyward_storage::records::pepper as rows;
use keyward_storage::{ReadError, Snapshot};
use zeroize::Zeroizing;

use crate::config::{PEPPER_VARIABLE, SecretSources};
use crate::outside::Entropy;
use crate::vault::sources::{self, SourceError, Wanted};

/// Name of its systemd credential.
const CREDENTIAL: &str = "keyward-pepper";
/// What people call it.
const WHAT: &str = "pepper";

/// A new pepper as text, to be kept by the operator.
pub fn generate(entropy: &Entropy) -> Zeroizing<String> {
    let mut secret = Zeroizing::new([0; PEPPER_BYTES]);
    entropy.fill(&mut *secret);
    Zeroizing::new(STANDARD.encode(*secret))
}

/// The configured peppers, and where they are.
#[derive(Debug, Default)]
pub struct Configured {
    /// The one to switch to first.
    pub peppers: Vec<Pepper>,
    /// For people; `None` where there are none.
    pub place: Option<String>,
    /// Held by the one switch that runs.
    switching: Mutex<()>,
}

/// What is wrong with a text of peppers, without showing any of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPeppers {
    /// None is in it.
    #[error("it holds no pepper; `keyward pepper generate` prints one")]
    Empty,
    /// A line is none.
    #[error(
        "line {line} is no pepper: {PEPPER_BYTES} bytes in base64 are wanted, {} characters, as `keyward pepper generate` \
         prints them; lines that begin with # are passed over",
        PEPPER_BYTES.div_ceil(3) * 4
    )]
    Line {
        /// From 1 on.
        line: usize,
    },
    /// A line repeats another one.
    #[error("line {line} holds a pepper that stands further up already")]
    Repeated {
        /// From 1 on.
        line: usize,
    },
    /// Too many.
    #[error("it holds more than {CHAIN_MAX} peppers; the one in use is enough, as `keyward pepper status` names it")]
    TooMany,
}

impl Configured {
    /// The peppers that the sources name. None at all is legal, for a store that uses none.
    ///
    /// # Errors
    /// A source is set and cannot be used.
    pub fn open(secrets: &SecretSources, data_dir: &Path) -> Result<Configured, SourceError> {
        let wanted = Wanted {
            what: WHAT,
            credential: CREDENTIAL,
            file: secrets.pepper_file.as_deref(),
            variable: PEPPER_VARIABLE,
            given: secrets.pepper.as_ref(),
        };
        let Some(found) = sources::find(wanted, secrets, data_dir)? else { return Ok(Configured::default()) };
        match read(&found.text) {
            Ok(peppers) => Ok(Configured { peppers, place: Some(found.place), switching: Mutex::default() }),
            Err(source) => Err(SourceError::Bad { what: WHAT, place: found.place, source: Box::new(source) }),
        }
    }
}

/// Reads a text of one pepper a line, the one to use first. Empty lines and lines that begin with `#` are passed over; a comma
/// ends a line as well, since an environment variable has but one.
fn read(text: &str) -> Result<Vec<Pepper>, BadPeppers> {
    let mut peppers: Vec<Pepper> = Vec::new();
    for (at, line) in text.split(['\n', ',']).enumerate() {
        let (line_no, line) = (at + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bytes = Zeroizing::new(STANDARD.decode(line).map_err(|_| BadPeppers::Line { line: line_no })?);
        let mut secret = Zeroizing::new([0; PEPPER_BYTES]);
        if bytes.len() != PEPPER_BYTES {
            return Err(BadPeppers::Line { line: line_no });
        }
        secret.copy_from_slice(&bytes);
        let pepper = Pepper::new(secret);
        if peppers.iter().any(|known| known.fingerprint == pepper.fingerprint) {
            return Err(BadPeppers::Repeated { line: line_no });
        }
        if peppers.len() == CHAIN_MAX {
            return Err(BadPeppers::TooMany);
        }
        peppers.push(pepper);
    }
    if peppers.is_empty() { Err(BadPeppers::Empty) } else { Ok(peppers) }
}

/// Says in the log, at a start, what of the peppers needs the operator.
///
/// # Errors
/// What reading the records says.
pub fn remark(peppers: &Peppers, snapshot: &Snapshot) -> Result<(), ReadError> {
    let row = rows::get(snapshot)?;
    let in_use = row.as_ref().and_then(|row| row.links.last());
    if row.as_ref().is_some_and(|row| row.ended_at.is_none()) {
        tracing::warn!("a switch of the pepper was interrupted; run `keyward pepper enable` to go on with it");
    } else if let Some(first) = peppers.configured().first()
        && in_use.is_none_or(|link| link.fingerprint != first.fingerprint || link.kept.is_some())
    {
        tracing::warn!(
            pepper = %Shown(&first.fingerprint),
            "the first configured pepper is not the one in use; run `keyward pepper enable` to switch to it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
