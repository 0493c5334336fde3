//! What the HTTP layer and the operations hand each other: plain types, no hyper, no JSON.
//!
//! Everything here is already bounded: headers by the listener's limit, the body by the body limit.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use keyward_storage::ids::{KeyId, WorkspaceId};
use keyward_storage::records::change::ChangeId;

use super::problem::{Code, Problem};
use crate::outside::Entropy;

/// A request to an operation, its body read whole and everything its headers say already understood.
#[derive(Debug)]
pub struct Inbound {
    /// Names this request in the reply, the logs and the recorded events.
    pub request_id: RequestId,
    /// The server's clock when the request arrived: Unix milliseconds.
    pub now_ms: u64,
    /// When its client is told that it was not answered in time: what has not begun by then is better left undone.
    pub deadline_ms: u64,
    /// What `X-Test-Time` said, in Unix milliseconds. Always `None` without test mode (COM-HDR-05).
    pub test_time_ms: Option<i64>,
    /// What the `Authorization` header said; judging it is the operations' business (COM-AUTH).
    pub authorization: Authorization,
    /// The value of the `portal_session` cookie, where one was sent. Only portal operations may look at it
    /// (COM-AUTH-11).
    pub portal_session: Option<Box<str>>,
    /// The body's media type.
    pub content_type: ContentType,
    /// The client's address after trusted proxies were walked past (COM-HDR-02); an IPv4-mapped address is given as
    /// IPv4.
    pub client_ip: Option<IpAddr>,
    /// `User-Agent` as sent; bytes that are not UTF-8 are replaced.
    pub user_agent: Option<Arc<str>>,
    /// Whether `X-Unkey-Metrics: disabled` was sent. Only `ratelimit.limit` honours it (COM-HDR-04).
    pub metrics_disabled: bool,
    /// The body, at most `http.max_body_bytes` long; empty where none was sent.
    pub body: Bytes,
    /// Where it comes by way of another node: what that node says of it.
    pub forwarded: Option<Forwarded>,
}

/// What a node says of a request that it hands on to its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forwarded {
    /// Names what the request changes, however often it comes.
    pub change: ChangeId,
    /// Nodes it came through.
    pub hops: u8,
}

/// The `Authorization` header of a request.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// No such header.
    Absent,
    /// One header, its value as sent. It may be empty or all white space (COM-AUTH-01).
    One(Box<str>),
    /// One header whose value is not UTF-8: malformed, whatever it was meant to be.
    NotText,
    /// More than one header: malformed (COM-AUTH-08).
    Several,
}

/// Says which case it is, never the secret.
impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Authorization::Absent => "Absent",
            Authorization::One(_) => "One([REDACTED])",
            Authorization::NotText => "NotText",
            Authorization::Several => "Several",
        })
    }
}

/// The media type of a request's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentType {
    /// `application/json`, in any case and with any parameters (COM-BODY-01).
    Json,
    /// No `Content-Type` header, or an empty one.
    Absent,
    /// Anything else, as sent; bytes that are not UTF-8 are replaced.
    Other(Box<str>),
}

/// The reply of an operation. The HTTP layer adds the content type (COM-ENV-04, COM-ERR-05) and `X-Request-Id`.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// Whether the body is an error envelope, so that `Accept` decides its content type.
    pub is_problem: bool,
    /// The workspace limit's headers; `None` where the workspace has no limit.
    pub rate_limit: Option<RateLimitHeaders>,
    /// A `Retry-After` in whole seconds for other reasons than the workspace limit (COM-CODE-02).
    pub retry_after_s: Option<u32>,
    /// Who asked, where the credential told: for the log.
    pub caller: Option<(WorkspaceId, KeyId)>,
    /// What the log is to say of a request that failed.
    pub failure: Option<Box<Failure>>,
    /// How old the records are that it was answered from, milliseconds, where they may be behind; `u64::MAX` where nobody knows.
    pub staleness_ms: Option<u64>,
    /// The body, whole.
    pub body: Bytes,
}

/// What the log says of a request that failed, beside its status: no detail, which may echo what the client sent.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The error code.
    pub code: Code,
    /// What led here, causes included; for failures of ours only.
    pub cause: Option<String>,
}

impl Outbound {
    /// A success: status 200, JSON.
    pub fn ok(body: impl Into<Bytes>) -> Outbound {
        Outbound {
            status: 200,
            is_problem: false,
            rate_limit: None,
            retry_after_s: None,
            caller: None,
            failure: None,
            staleness_ms: None,
            body: body.into(),
        }
    }

    /// An error; `failure` is what the log says of it.
    pub fn refusal(problem: &Problem, request_id: &str, failure: Failure) -> Outbound {
        Outbound {
            status: problem.status(),
            is_problem: true,
            retry_after_s: problem.retry_after_s(),
            failure: Some(Box::new(failure)),
            ..Outbound::ok(problem.body(request_id))
        }
    }
}

/// The `RateLimit-*` headers of a workspace with a limit (COM-WRL-03 to COM-WRL-05).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimitHeaders {
    /// Requests a minute the workspace may make.
    pub limit: u64,
    /// How many are left in the current window.
    pub remaining: u64,
    /// Whole seconds until the window ends, rounded up; `None` sends no `RateLimit-Reset` and no `Retry-After`: a limit
    /// of 0 never resets (COM-WRL-04).
    pub reset_s: Option<u32>,
    /// Whether this reply is the refusal, so that `Retry-After` says when to come back.
    pub refused: bool,
}

const PREFIX: &[u8; 4] = b"req_";
/// In the order of their bytes, so that what counts up sorts up.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters that tell the millisecond: enough until the year 2081.
const TIME_CHARS: usize = 7;
/// Random characters: 59 bits for the requests of one millisecond. At 20,000 requests a second two ids of a year are alike
/// with a chance of about one in a hundred thousand (COM-ENV-03).
const RANDOM_CHARS: usize = 10;

/// `req_` and characters of `[A-Za-z0-9]` (COM-ENV-02), held in place without an allocation: the millisecond of the
/// request, then random ones. Such ids sort by time, which tells the reader of a log where to look, and neighbours in a
/// file of events share most of their beginning, which halves what they take there.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId([u8; PREFIX.len() + TIME_CHARS + RANDOM_CHARS]);

impl RequestId {
    /// Draws a new id for a request of this time, Unix milliseconds.
    pub fn draw(entropy: &Entropy, now_ms: u64) -> RequestId {
        let mut text = [0u8; PREFIX.len() + TIME_CHARS + RANDOM_CHARS];
        let (prefix, rest) = text.split_at_mut(PREFIX.len());
        let (time, chance) = rest.split_at_mut(TIME_CHARS);
        prefix.copy_from_slice(PREFIX);
        let mut left = now_ms;
        for slot in time.iter_mut().rev() {
            *slot = ALPHABET[usize::try_from(left % 62).expect("less than 62")];
            left /= 62;
        }
        let mut random = [0u8; 16];
        let mut used = random.len();
        for slot in chance {
            // Six bits a character; 62 and 63 are drawn again, so that every character is equally likely.
            *slot = loop {
                if used == random.len() {
                    entropy.fill(&mut random);
                    used = 0;
                }
                let index = random[used] & 63;
                used += 1;
                if let Some(character) = ALPHABET.get(usize::from(index)) {
                    break *character;
                }
            };
        }
        RequestId(text)
    }

    /// The id that another node drew; `None` for what is none.
    pub fn parse(text: &[u8]) -> Option<RequestId> {
        let id: [u8; PREFIX.len() + TIME_CHARS + RANDOM_CHARS] = text.try_into().ok()?;
        let rest = id.strip_prefix(PREFIX)?;
        rest.iter().all(u8::is_ascii_alphanumeric).then_some(RequestId(id))
    }

    /// The id as bytes, all of them ASCII.
    pub fn as_bytes(&self) -> &[u8; PREFIX.len() + TIME_CHARS + RANDOM_CHARS] {
        &self.0
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the prefix and the alphabet are ASCII")
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// COM-ENV-02, COM-ENV-03: ids match `^req_[A-Za-z0-9]+$`, use the whole alphabet, do not repeat within a millisecond,
    /// and sort as their times do.
    #[test]
    fn request_ids_use_the_whole_alphabet_and_nothing_else() {
        let entropy = Entropy::seeded(7);
        let mut seen = std::collections::HashSet::new();
        let mut characters = std::collections::HashSet::new();
        for _ in 0..2_000 {
            let id = RequestId::draw(&entropy, 1_772_323_200_000);
            let rest = id.as_str().strip_prefix("req_").expect("the prefix");
            assert_eq!(rest.len(), TIME_CHARS + RANDOM_CHARS);
            assert!(rest.bytes().all(|byte| ALPHABET.contains(&byte)), "{id}");
            characters.extend(rest.bytes().skip(TIME_CHARS));
            assert!(seen.insert(id), "{id} came twice");
        }
        assert_eq!(characters.len(), ALPHABET.len());
        let times = [0, 1, 61, 62, 1_772_323_200_000, 1_772_323_200_001, 1_772_323_260_000, 3_521_614_606_207];
        let ids = times.map(|time| RequestId::draw(&entropy, time).to_string());
        assert!(ids.is_sorted(), "{ids:?}");
    }

    /// No secret in a log: the debug text of an `Authorization` names its case only.
    #[test]
    fn authorization_never_prints_its_value() {
        let header = Authorization::One("Bearer unkey_secret".into());
        assert!(!format!("{header:?}").contains("secret"));
    }
}
