//! A server that is asked many things in a row: Unkey, or a keyward. It may be away for a moment, or ask for patience.

use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::problem::TYPE_BASE;
use crate::cli::api::Failure;
use crate::cli::ask::note;
use crate::cli::text::printable;
use crate::cli::{EXIT_ERROR, EXIT_UNREACHABLE};
use crate::config::Secret;
use crate::http_client::{Answer, PostError, post};
use crate::server_url::ServerUrl;

/// Pauses before a request is sent again, in seconds; after the last of them it has failed.
const PAUSES_S: [u64; 6] = [1, 2, 4, 8, 15, 30];
/// Most pages of one list: more rows than any workspace has, and an end where a server goes round in circles.
const PAGES_MAX: usize = 1_000_000;

/// Whether a request may be carried out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// The second time changes nothing, or is refused.
    Harmless,
    /// It would make a second thing.
    Harmful,
}

/// Why there is no answer of the wanted kind.
#[derive(Debug)]
pub enum Trouble {
    /// The server refused.
    Refused(Refused),
    /// It could not be asked.
    Failed(Failure),
}

/// A refusal.
#[derive(Debug)]
pub struct Refused {
    /// The HTTP status.
    pub status: u16,
    /// For people.
    pub detail: String,
    /// The whole of it, with the server and what it was asked.
    pub told: String,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Trouble {
        Trouble::Failed(failure)
    }
}

impl Trouble {
    /// As the end of the command.
    pub fn failure(self) -> Failure {
        match self {
            Trouble::Failed(failure) => failure,
            Trouble::Refused(Refused { told, .. }) => Failure::new(EXIT_ERROR, told),
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply<T> {
    /// The member `data`.
    pub data: T,
    /// Where the next page begins.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
    pagination: Option<Pagination>,
}

#[derive(Deserialize)]
struct Pagination {
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct ErrorEnvelope {
    error: ErrorDetails,
}

#[derive(Deserialize)]
struct ErrorDetails {
    detail: String,
    r#type: String,
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    message: String,
}

/// A server, and the root key for it.
pub struct Remote {
    url: ServerUrl,
    authorization: Secret,
    /// Whether it has ever answered: one that was there comes back.
    has_answered: Cell<bool>,
}

impl Remote {
    /// The server at a URL, asked with this root key.
    pub fn new(url: ServerUrl, root_key: &Secret) -> Remote {
        let authorization = Secret::new(format!("Bearer {}", root_key.expose()));
        Remote { url, authorization, has_answered: Cell::new(false) }
    }

    /// Asks for an operation.
    ///
    /// # Errors
    /// It is refused, or the server does not answer within the time that [`PAUSES_S`] gives it.
    pub fn call<T: DeserializeOwned>(
        &self,
        operation: &str,
        body: &Value,
        repeat: Repeat,
    ) -> Result<Reply<T>, Trouble> {
        let path = format!("/v2/{operation}");
        let body = body.to_string();
        let mut pauses = PAUSES_S.iter();
        loop {
            let headers = [("Authorization", self.authorization.expose())];
            let (why, again, code) = match post(&self.url, &path, &headers, body.as_bytes()) {
                Ok(answer) => {
                    self.has_answered.set(true);
                    let status = answer.status;
                    let trouble = match self.read(operation, answer) {
                        Ok(reply) => return Ok(reply),
                        Err(trouble) => trouble,
                    };
                    // 429 and 503 were not carried out; of other failures of the server nobody knows.
                    let again = matches!(status, 429 | 503) || (status >= 500 && repeat == Repeat::Harmless);
                    match trouble {
                        Trouble::Refused(refused) if again => (refused.told, true, EXIT_ERROR),
                        other => return Err(other),
                    }
                }
                Err(error @ PostError::Unreachable(_)) => {
                    (error.to_string(), self.has_answered.get(), EXIT_UNREACHABLE)
                }
                Err(error @ PostError::Lost(_)) => (error.to_string(), repeat == Repeat::Harmless, EXIT_ERROR),
                Err(error @ PostError::Strange(_)) => (format!("{}: {error}", self.url), false, EXIT_ERROR),
            };
            match pauses.next().filter(|_| again) {
                Some(pause_s) => {
                    note([format!("{why}; trying again in {pause_s} s")]);
                    sleep(Duration::from_secs(*pause_s));
                }
                None => return Err(Failure::new(code, why).into()),
            }
        }
    }

    fn read<T: DeserializeOwned>(&self, operation: &str, answer: Answer) -> Result<Reply<T>, Trouble> {
        let Answer { status, body, .. } = answer;
        let strange = || {
            let why =
                format!("{} answers {operation} with status {status} and something that was not expected", self.url);
            Trouble::Failed(Failure::new(EXIT_ERROR, why))
        };
        if status == 200 {
            let envelope: Envelope<T> = serde_json::from_slice(&body).map_err(|_| strange())?;
            let cursor = envelope.pagination.and_then(|pagination| pagination.cursor);
            return Ok(Reply { data: envelope.data.ok_or_else(strange)?, cursor });
        }
        let error = serde_json::from_slice::<ErrorEnvelope>(&body).map_err(|_| strange())?.error;
        let code = printable(error.r#type.strip_prefix(TYPE_BASE).unwrap_or(&error.r#type));
        let mut detail = printable(&error.detail);
        for entry in error.errors.iter().take(10) {
            detail.push_str(&format!("; {}", printable(&entry.message)));
        }
        let told = format!("{} refuses {operation} with {status} ({code}): {detail}", self.url);
        Err(Trouble::Refused(Refused { status, detail, told }))
    }

    /// Walks a list, page by page.
    ///
    /// # Errors
    /// As [`Remote::call`], and what `each` returns.
    pub fn list<T: DeserializeOwned>(
        &self,
        operation: &str,
        mut body: Value,
        mut each: impl FnMut(T) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        for _ in 0..PAGES_MAX {
            let page: Reply<Vec<T>> = self.call(operation, &body, Repeat::Harmless)?;
            page.data.into_iter().try_for_each(&mut each)?;
            match page.cursor.filter(|cursor| body["cursor"] != cursor.as_str()) {
                Some(cursor) => body["cursor"] = cursor.into(),
                None => return Ok(()),
            }
        }
        let why = format!("{} never comes to the end of {operation}", self.url);
        Err(Failure::new(EXIT_ERROR, why).into())
    }

    /// Makes a thing that may be there already, which its unique name tells; whether it was made.
    ///
    /// # Errors
    /// As [`Remote::call`].
    pub fn make(&self, operation: &str, body: &Value) -> Result<bool, Trouble> {
        match self.call::<Value>(operation, body, Repeat::Harmless) {
            Ok(_) => Ok(true),
            Err(Trouble::Refused(refused)) if refused.status == 409 => Ok(false),
            Err(other) => Err(other),
        }
    }
}
