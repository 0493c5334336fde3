//! The claim as a key of etcd, over the JSON gateway of its v3 API (`/v3/kv/range`, `/v3/kv/txn`, `/v3/auth/authenticate`).
//!
//! Reads are linearizable, as etcd's are unless one asks for less; a swap is a transaction that compares the key's modification revision.
//! etcd's own leases are not used: what the last leader had must outlive them, and each node counts the time by its own clock anyway.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::claim::{Claim, NO_CLAIM};
use super::register::{Ask, Endpoints, Held, RegisterError, Swapped, Version, excerpt, private_line};
use crate::config::{Lease, SecretSources};
use crate::http_client::Answer;

/// A key of etcd.
pub struct Etcd {
    endpoints: Endpoints,
    key: String,
    login: Option<(String, Zeroizing<String>)>,
    /// What it gave for the password.
    token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("endpoints", &self.endpoints).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Answers. Numbers of 64 bits are texts in this JSON, and what is zero is left out.
#[derive(Deserialize)]
struct Range {
    #[serde(default)]
    kvs: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    #[serde(default)]
    mod_revision: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct Txn {
    header: Header,
    #[serde(default)]
    succeeded: bool,
}

#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    revision: String,
}

#[derive(Deserialize)]
struct Login {
    token: String,
}

impl Etcd {
    /// The key that the settings name.
    ///
    /// # Errors
    /// A sentence for the operator: a file cannot be used.
    pub fn open(lease: &Lease, secrets: &SecretSources, data_dir: &Path) -> Result<Etcd, String> {
        let login = match &lease.password_file {
            None => None,
            Some(path) => {
                Some((lease.user.clone(), private_line("password of the lease's user", path, secrets, data_dir)?))
            }
        };
        let endpoints = Endpoints::new(lease.endpoints.clone(), lease.ca_file.as_deref(), lease)?;
        Ok(Etcd { endpoints, key: STANDARD.encode(&lease.name), login, token: None })
    }

    /// See [`super::register::Register::read`].
    pub fn read(&mut self, patience: Duration) -> Result<Held, RegisterError> {
        let answer = self.call("/v3/kv/range", &json!({ "key": self.key }), patience)?;
        let range: Range = understood(&answer)?;
        let Some(pair) = range.kvs.into_iter().next() else { return Ok(None) };
        let text = STANDARD.decode(pair.value).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.as_deref().and_then(Claim::parse) {
            Some(claim) => Ok(Some((pair.mod_revision, claim))),
            None => Err(RegisterError(NO_CLAIM.to_owned())),
        }
    }

    /// See [`super::register::Register::swap`].
    pub fn swap(
        &mut self,
        expected: Option<&Version>,
        claim: &Claim,
        patience: Duration,
    ) -> Result<Swapped, RegisterError> {
        // A key that is not there has revision 0.
        let expected = expected.map_or("0", String::as_str);
        let ask = json!({
            "compare": [{ "key": self.key, "target": "MOD", "result": "EQUAL", "mod_revision": expected }],
            "success": [{ "request_put": { "key": self.key, "value": STANDARD.encode(claim.text()) } }],
        });
        let answer = self.call("/v3/kv/txn", &ask, patience)?;
        let txn: Txn = understood(&answer)?;
        Ok(if txn.succeeded { Swapped::Done(txn.header.revision) } else { Swapped::Conflict })
    }

    /// Asks, with a token where there is a user; the token is fetched anew when it is not known any more.
    fn call(&mut self, path: &str, body: &Value, patience: Duration) -> Result<Answer, RegisterError> {
        let until = Instant::now() + patience;
        let body = body.to_string();
        let mut fresh = false;
        loop {
            if self.login.is_some() && self.token.is_none() {
                self.authenticate(until)?;
                fresh = true;
            }
            let headers: Vec<(&str, &str)> = self.token.iter().map(|token| ("Authorization", token.as_str())).collect();
            let ask = Ask { method: "POST", path, headers: &headers, body: body.as_bytes() };
            let answer = self.endpoints.ask(&ask, until.saturating_duration_since(Instant::now()))?;
            match answer.status {
                200 => return Ok(answer),
                // An old token, or one of before the server started: some versions say 400 to that.
                400 | 401 if self.token.is_some() && !fresh => self.token = None,
                status => {
                    return Err(RegisterError(format!("etcd answers {status}: {}", excerpt(&answer.body))));
                }
            }
        }
    }

    fn authenticate(&mut self, until: Instant) -> Result<(), RegisterError> {
        let Some((name, password)) = &self.login else { return Ok(()) };
        let body = Zeroizing::new(json!({ "name": name, "password": password.as_str() }).to_string());
        let ask = Ask { method: "POST", path: "/v3/auth/authenticate", headers: &[], body: body.as_bytes() };
        let answer = self.endpoints.ask(&ask, until.saturating_duration_since(Instant::now()))?;
        if answer.status != 200 {
            return Err(RegisterError(format!(
                "etcd does not let replication.lease_user in ({}): {}",
                answer.status,
                excerpt(&answer.body)
            )));
        }
        let Login { token } = understood(&answer)?;
        let plain = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        self.token = plain.then(|| Zeroizing::new(token));
        if plain { Ok(()) } else { Err(RegisterError("etcd's token is no word".to_owned())) }
    }
}

fn understood<T: serde::de::DeserializeOwned>(answer: &Answer) -> Result<T, RegisterError> {
    serde_json::from_slice(&answer.body)
        .map_err(|error| RegisterError(format!("what answers there is not etcd ({error}): {}", excerpt(&answer.body))))
}
