//! The register that holds the claim: read, and swapped by version, in etcd or in Kubernetes.
//!
//! Both speak JSON over HTTP. The client is the program's own: a lease is two requests of a known shape, and neither etcd's gRPC client
//! (which needs protoc where it is built) nor that of Kubernetes (a hundred crates) has more to give to them.

use std::path::Path;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::claim::Claim;
use super::etcd::Etcd;
use super::kubernetes::Kubernetes;
use crate::config::{Lease, LeaseStore, SecretSources};
use crate::http_client::{self, Answer, PostError};
use crate::server_url::ServerUrl;
use crate::tls::client::Trust;
use crate::vault::sources;

/// Bytes of an answer: a lease has a few hundred, and what others note in it.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a file with a token or a password.
const SECRET_BYTES_MAX: usize = 16 << 10;

/// Names one content of the register; opaque, as its keeper has it.
pub type Version = String;
/// What is there; `None` where nothing is.
pub type Held = Option<(Version, Claim)>;

/// Why there is no answer: a sentence for the log. Whether a swap came about is not known.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct RegisterError(pub String);

/// What became of a swap.
#[derive(Debug)]
pub enum Swapped {
    /// It came about; this is the new version.
    Done(Version),
    /// Something else was there.
    Conflict,
}

/// A register.
#[derive(Debug)]
pub enum Register {
    /// In etcd.
    Etcd(Etcd),
    /// In Kubernetes.
    Kubernetes(Kubernetes),
}

impl Register {
    /// The one that the settings name; `None` where they name none.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn open(lease: &Lease, secrets: &SecretSources, data_dir: &Path) -> Result<Option<Register>, String> {
        match lease.store {
            LeaseStore::None => Ok(None),
            LeaseStore::Etcd => Etcd::open(lease, secrets, data_dir).map(|etcd| Some(Register::Etcd(etcd))),
            LeaseStore::Kubernetes => Kubernetes::open(lease).map(|own| Some(Register::Kubernetes(own))),
        }
    }

    /// Reads it, the newest there is. Blocks for `patience` at most.
    ///
    /// # Errors
    /// No endpoint gave an answer, or there is something else in that place.
    pub fn read(&mut self, patience: Duration) -> Result<Held, RegisterError> {
        match self {
            Register::Etcd(etcd) => etcd.read(patience),
            Register::Kubernetes(kubernetes) => kubernetes.read(patience),
        }
    }

    /// Puts a claim in place of that version; of nothing where that is `None`. Blocks for `patience` at most.
    ///
    /// # Errors
    /// No endpoint gave an answer: it may have come about.
    pub fn swap(
        &mut self,
        expected: Option<&Version>,
        claim: &Claim,
        patience: Duration,
    ) -> Result<Swapped, RegisterError> {
        match self {
            Register::Etcd(etcd) => etcd.swap(expected, claim, patience),
            Register::Kubernetes(kubernetes) => kubernetes.swap(expected, claim, patience),
        }
    }
}

/// Several endpoints of one service, of which any will do.
#[derive(Debug)]
pub(super) struct Endpoints {
    urls: Vec<ServerUrl>,
    trust: Option<Trust>,
    /// The one that answered last is asked first.
    first: usize,
}

/// One request to any of them.
pub(super) struct Ask<'a> {
    pub method: &'static str,
    pub path: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

impl Endpoints {
    /// These, and whom to trust there.
    pub(super) fn new(urls: Vec<ServerUrl>, ca_file: Option<&Path>, lease: &Lease) -> Result<Endpoints, String> {
        let encrypted = urls.iter().any(ServerUrl::is_encrypted);
        let trust = encrypted.then(|| Trust::new(ca_file, &lease.own())).transpose()?;
        Ok(Endpoints { urls, trust, first: 0 })
    }

    /// Asks one after the other until one answers, none for longer than its share of `patience`. An answer of 500 and above is none:
    /// that server has no part in the majority, perhaps.
    pub(super) fn ask(&mut self, ask: &Ask<'_>, patience: Duration) -> Result<Answer, RegisterError> {
        let begun = Instant::now();
        let count = self.urls.len();
        let mut why = "there is no endpoint".to_owned();
        for turn in 0..count {
            let at = (self.first + turn) % count;
            let left = patience.saturating_sub(begun.elapsed());
            let share = left / u32::try_from(count - turn).unwrap_or(1);
            let request = http_client::Request {
                method: ask.method,
                trust: self.trust.as_ref(),
                path: ask.path,
                media_type: "application/json",
                headers: ask.headers,
                body: ask.body,
                until: Instant::now() + share,
                answer_bytes_max: ANSWER_BYTES_MAX,
            };
            why = match http_client::send(&self.urls[at], &request) {
                Ok(answer) if answer.status < 500 => {
                    self.first = at;
                    return Ok(answer);
                }
                Ok(answer) => format!("{} answers {}: {}", self.urls[at], answer.status, excerpt(&answer.body)),
                Err(error @ PostError::Unreachable(_)) => error.to_string(),
                Err(error) => format!("{}: {error}", self.urls[at]),
            };
        }
        Err(RegisterError(why))
    }
}

/// The beginning of an answer, for the log.
pub(super) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(300)]).trim().replace(char::is_control, " ")
}

/// A secret's one line.
pub(super) fn line(what: &'static str, path: &Path) -> Result<Zeroizing<String>, RegisterError> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text =
        text.map_err(|error| RegisterError(format!("the {what} cannot be read from {}: {error}", path.display())))?;
    let line = text.trim();
    if line.is_empty() || line.len() > SECRET_BYTES_MAX || line.contains(char::is_control) {
        return Err(RegisterError(format!("the {what} in {} is not one line of text", path.display())));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// A secret that nobody but the owner of its file may read.
pub(super) fn private_line(
    what: &'static str,
    path: &Path,
    secrets: &SecretSources,
    data_dir: &Path,
) -> Result<Zeroizing<String>, String> {
    let wanted =
        sources::Wanted { what, credential: "keyward-lease-password", file: Some(path), variable: "", given: None };
    match sources::find(wanted, secrets, data_dir).map_err(|error| crate::telemetry::error_chain(&error))? {
        Some(found) => Ok(Zeroizing::new(found.text.trim().to_owned())),
        None => Err(format!("there is no {what}")),
    }
}
