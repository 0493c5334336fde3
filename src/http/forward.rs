//! Requests that one node hands on to another, as HTTP.
//!
//! A follower sends what the client sent - path, body, credential - and what it knows of it: the client's address, the request's
//! id, the time that is left, and a name for what the request changes. The leader answers as it would have answered the client;
//! what the reply's own headers say travels apart, since the follower writes them for its client. A node in between hands both on. It
//! answers 421 where nothing came of the request, and 502 where that is not known.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use keyward_storage::Position;
use keyward_storage::records::change::ChangeId;

use super::bodies::{self, Share, Unread, gather};
use super::link::{Body, Link, LinkError, whole};
use crate::api::operation::Pace;
use crate::api::problem::{Code, JSON, Problem};
use crate::api::wire::{
    Authorization, ContentType, Failure, Forwarded, Inbound, Outbound, RateLimitHeaders, RequestId,
};
use crate::api::{self, Entry};
use crate::app::Services;
use crate::replication::forward::{Lost, relay};
use crate::replication::replies::{self, Standing};

/// Where operations are, on the address for other nodes as on that for clients.
pub const OPERATIONS_PATH: &str = "/v2/";

/// Bytes of a reply that a follower takes.
const REPLY_BYTES_MAX: usize = 256 << 20;
/// How long the leader may say nothing in the middle of a reply.
const REPLY_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Longest that a leader lets a follower wait.
const TIME_MAX: Duration = Duration::from_secs(600);

const AUTHORIZATION: HeaderName = HeaderName::from_static("keyward-authorization");
const AUTHORIZATION_KIND: HeaderName = HeaderName::from_static("keyward-authorization-kind");
const PORTAL_SESSION: HeaderName = HeaderName::from_static("keyward-portal-session");
const CLIENT_IP: HeaderName = HeaderName::from_static("keyward-client-ip");
const REQUEST_ID: HeaderName = HeaderName::from_static("keyward-request-id");
const TEST_TIME: HeaderName = HeaderName::from_static("keyward-test-time");
const UNRECORDED: HeaderName = HeaderName::from_static("keyward-unrecorded");
const TIME_LEFT: HeaderName = HeaderName::from_static("keyward-time-left-ms");
const CHANGE: HeaderName = HeaderName::from_static("keyward-change");
pub(super) const HOPS: HeaderName = HeaderName::from_static("keyward-hops");
const POSITION: HeaderName = HeaderName::from_static("keyward-position");
const ERROR_CODE: HeaderName = HeaderName::from_static("keyward-error-code");
const LIMIT: HeaderName = HeaderName::from_static("keyward-limit");

/// A request to be handed on.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The operation's path.
    pub path: &'static str,
    /// What the client sent.
    pub inbound: &'a Inbound,
    /// What this node says of it.
    pub forwarded: Forwarded,
    /// How long its reply is waited for.
    pub left: Duration,
}

/// Why the leader gave no reply.
#[derive(Debug, thiserror::Error)]
pub enum NoReply {
    /// The other node does not lead, and reaches nobody who does. It did nothing.
    #[error("the node that is followed does not lead")]
    Refused,
    /// The other node handed it on, and heard no more of it.
    #[error("the node that is followed got no reply from the leader")]
    Doubtful,
    /// It did not come.
    #[error(transparent)]
    Lost(#[from] LinkError),
}

impl Asked<'_> {
    /// Asks the node at the end of the link. The reply, and the position that whoever reads must have reached to see what it tells
    /// of.
    ///
    /// # Errors
    /// There was no reply, or none that can be understood.
    pub async fn ask(&self, link: &Link) -> Result<(Outbound, Position), NoReply> {
        let reply = link.request(self.request()).await?;
        if reply.status() == StatusCode::MISDIRECTED_REQUEST {
            return Err(NoReply::Refused);
        }
        if reply.status() == StatusCode::BAD_GATEWAY {
            return Err(NoReply::Doubtful);
        }
        let (head, mut body) = reply.into_parts();
        let body = gather(&mut body, REPLY_BYTES_MAX, REPLY_SILENCE_MAX).await.map_err(|error| match error {
            Unread::Broken(error) => NoReply::Lost(LinkError::Cut(error)),
            Unread::Late => NoReply::Doubtful,
            Unread::TooLarge => NoReply::Refused,
        })?;
        match reply_of(head.status, &head.headers, body) {
            (outbound, Some(position)) => Ok((outbound, position)),
            // Not an operation that spoke: it is of another version, or the request was broken on its way.
            (_, None) => Err(NoReply::Refused),
        }
    }

    fn request(&self) -> Request<Body> {
        let Asked { path, inbound, forwarded, left } = self;
        let mut request = Request::new(whole(inbound.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = hyper::Uri::from_static(path);
        let headers = request.headers_mut();
        // Values came as headers, or are ASCII of ours; one that is none after all is left out.
        let mut put = |name: HeaderName, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(name, value);
            }
        };
        match &inbound.authorization {
            Authorization::Absent => {}
            Authorization::One(text) => put(AUTHORIZATION, text.as_bytes()),
            Authorization::NotText => put(AUTHORIZATION_KIND, b"not-text"),
            Authorization::Several => put(AUTHORIZATION_KIND, b"several"),
        }
        match &inbound.content_type {
            ContentType::Json => put(header::CONTENT_TYPE, JSON.as_bytes()),
            ContentType::Absent => {}
            ContentType::Other(text) => put(header::CONTENT_TYPE, text.as_bytes()),
        }
        if let Some(session) = &inbound.portal_session {
            put(PORTAL_SESSION, session.as_bytes());
        }
        if let Some(ip) = inbound.client_ip {
            put(CLIENT_IP, ip.to_string().as_bytes());
        }
        if let Some(agent) = &inbound.user_agent {
            put(header::USER_AGENT, agent.as_bytes());
        }
        if let Some(time) = inbound.test_time_ms {
            put(TEST_TIME, time.to_string().as_bytes());
        }
        if inbound.metrics_disabled {
            put(UNRECORDED, b"1");
        }
        put(REQUEST_ID, inbound.request_id.as_bytes());
        put(TIME_LEFT, left.as_millis().to_string().as_bytes());
        put(CHANGE, hex(&forwarded.change).as_bytes());
        put(HOPS, forwarded.hops.to_string().as_bytes());
        for name in [AUTHORIZATION, PORTAL_SESSION] {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        request
    }
}

/// Answers a request that another node has handed on. `test_mode` says whether it may set its own time, `share` is its connection's
/// room for bodies.
pub async fn answer(
    services: &Arc<Services>,
    test_mode: bool,
    share: &Share,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    let Some(entry) = api::find(head.uri.path()).filter(|_| head.method == Method::POST) else {
        return bare(StatusCode::NOT_FOUND);
    };
    if !services.node.is_leader() && services.node.link().is_none() {
        return bare(StatusCode::MISDIRECTED_REQUEST);
    }
    let (bytes, _held) = match share.gather(&mut body, bodies::BYTES_MAX).await {
        Ok(read) => read,
        Err(unread) => return bare(status_of(&unread)),
    };
    let now_ms = services.outside.clock.now_ms();
    let Some((inbound, left)) = inbound_of(&head.headers, bytes, now_ms, test_mode) else {
        return bare(StatusCode::BAD_REQUEST);
    };
    if !services.node.is_leader() {
        let on = relay(services, entry.path, &inbound, (entry.on_follower, entry.pace));
        match tokio::time::timeout(left, on).await {
            Ok(Ok((outbound, position))) => return response_of(outbound, position),
            // It was promoted meanwhile: what the leader before it has made of the request is known here by its name.
            _ if services.node.is_leader() => {}
            Ok(Err(Lost::Unsent)) => return bare(StatusCode::MISDIRECTED_REQUEST),
            Ok(Err(Lost::Unknown)) | Err(_) => return bare(StatusCode::BAD_GATEWAY),
        }
    }
    let request_id = inbound.request_id;
    let answered = tokio::time::timeout(left, carry_out(services, entry, inbound)).await;
    let outbound = match answered {
        Ok(Some(outbound)) => outbound,
        Ok(None) => {
            api::refusal(&Problem::unexpected("an operation of another node ended by a bug"), request_id.as_str())
        }
        Err(_) => {
            let detail = format!("The request was not answered within {} milliseconds.", left.as_millis());
            api::refusal(&Problem::new(Code::RequestTimeout, detail), request_id.as_str())
        }
    };
    // Not before the reply is there: what it tells of is in the records by now.
    response_of(outbound, services.node.position())
}

/// Carries a request out, once however often it comes; `None` where its task was ended. It goes on when nobody waits for it any
/// more, but for what changes nothing.
async fn carry_out(services: &Arc<Services>, entry: &'static Entry, inbound: Inbound) -> Option<Outbound> {
    let change = inbound.forwarded?.change;
    if entry.pace == Pace::Stops {
        return Some(api::respond(Arc::clone(services), entry, inbound).await);
    }
    let name = replies::Name::new(change, entry.path, &inbound);
    let ticket = match services.replies.begin(name) {
        Standing::Known(told) => return replies::told(told).await,
        Standing::New(ticket) => ticket,
    };
    let services = Arc::clone(services);
    let carried = tokio::spawn(async move {
        let outbound = api::respond(services, entry, inbound).await;
        ticket.answer(&outbound);
        outbound
    });
    carried.await.ok()
}

/// What another node says of a request, and how long it waits; `None` where that cannot be.
fn inbound_of(headers: &HeaderMap, body: Bytes, now_ms: u64, test_mode: bool) -> Option<(Inbound, Duration)> {
    let text = |name: &HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let authorization = match (headers.get(&AUTHORIZATION), text(&AUTHORIZATION_KIND).as_deref()) {
        (None, None) => Authorization::Absent,
        (None, Some("several")) => Authorization::Several,
        (Some(value), None) => match std::str::from_utf8(value.as_bytes()) {
            Ok(text) => Authorization::One(text.into()),
            Err(_) => Authorization::NotText,
        },
        _ => Authorization::NotText,
    };
    let content_type = match text(&header::CONTENT_TYPE).as_deref() {
        None => ContentType::Absent,
        Some(JSON) => ContentType::Json,
        Some(other) => ContentType::Other(other.into()),
    };
    let left = Duration::from_millis(number(headers, &TIME_LEFT)?).min(TIME_MAX);
    let forwarded = Forwarded {
        change: unhex(headers.get(&CHANGE)?.as_bytes())?,
        hops: u8::try_from(number(headers, &HOPS)?).ok()?,
    };
    let inbound = Inbound {
        request_id: RequestId::parse(headers.get(&REQUEST_ID)?.as_bytes())?,
        now_ms,
        deadline_ms: now_ms.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        test_time_ms: text(&TEST_TIME).filter(|_| test_mode).and_then(|time| time.parse().ok()),
        authorization,
        portal_session: text(&PORTAL_SESSION).map(|session| session.as_ref().into()),
        content_type,
        client_ip: text(&CLIENT_IP).and_then(|ip| ip.parse().ok()),
        user_agent: text(&header::USER_AGENT).map(|agent| agent.as_ref().into()),
        metrics_disabled: headers.contains_key(&UNRECORDED),
        body,
        forwarded: Some(forwarded),
    };
    Some((inbound, left))
}

/// The reply as the leader made it, and the position behind it.
fn reply_of(status: StatusCode, headers: &HeaderMap, body: Bytes) -> (Outbound, Option<Position>) {
    let of = |name: &HeaderName| number(headers, name);
    let code = headers.get(ERROR_CODE).and_then(|code| code.to_str().ok());
    let code = code.and_then(|path| Code::ALL.iter().copied().find(|code| code.path() == path));
    let outbound = Outbound {
        status: status.as_u16(),
        is_problem: code.is_some(),
        rate_limit: headers.get(LIMIT).and_then(rate_limit),
        retry_after_s: of(&header::RETRY_AFTER).and_then(|seconds| u32::try_from(seconds).ok()),
        failure: code.map(|code| Box::new(Failure { code, cause: None })),
        ..Outbound::ok(body)
    };
    (outbound, of(&POSITION).map(Position))
}

fn response_of(outbound: Outbound, position: Position) -> Response<Body> {
    let mut response = Response::new(whole(outbound.body));
    *response.status_mut() = StatusCode::from_u16(outbound.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(POSITION, HeaderValue::from(position.0));
    if let Some(seconds) = outbound.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(failure) = outbound.failure {
        headers.insert(ERROR_CODE, HeaderValue::from_static(failure.code.path()));
    }
    if let Some(RateLimitHeaders { limit, remaining, reset_s, refused }) = outbound.rate_limit {
        let reset = reset_s.map_or_else(|| "-".to_owned(), |seconds| seconds.to_string());
        let value = format!("{limit} {remaining} {reset} {}", if refused { "refused" } else { "passed" });
        headers.extend(HeaderValue::try_from(value).ok().map(|value| (LIMIT, value)));
    }
    response
}

fn rate_limit(value: &HeaderValue) -> Option<RateLimitHeaders> {
    let mut words = value.to_str().ok()?.split(' ');
    Some(RateLimitHeaders {
        limit: words.next()?.parse().ok()?,
        remaining: words.next()?.parse().ok()?,
        reset_s: words.next().map(|word| if word == "-" { Ok(None) } else { word.parse().map(Some) })?.ok()?,
        refused: words.next()? == "refused",
    })
}

/// A reply without a body.
pub(super) fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// How a node hears that its body was not read.
pub(super) fn status_of<E>(unread: &Unread<E>) -> StatusCode {
    match unread {
        Unread::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Unread::Late => StatusCode::REQUEST_TIMEOUT,
        Unread::Broken(_) => StatusCode::BAD_REQUEST,
    }
}

pub(super) fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

fn hex(id: &ChangeId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &[u8]) -> Option<ChangeId> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() == 32 && text.is_ascii())?;
    let mut id = [0; 16];
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbound(number: usize) -> Inbound {
        let text = |text: &str| Some(text.into()).filter(|_| number % 2 == 1);
        Inbound {
            request_id: RequestId::parse(b"req_0000000aaaaaaaaaa").expect("an id"),
            now_ms: 5,
            deadline_ms: 5 + 1234,
            test_time_ms: [None, Some(-7), Some(1_700_000_000_000)][number % 3],
            authorization: [
                Authorization::Absent,
                Authorization::One("Bearer k\u{e9}y ".into()),
                Authorization::NotText,
                Authorization::Several,
                Authorization::One("".into()),
            ][number % 5]
                .clone(),
            portal_session: text("pst"),
            content_type: [ContentType::Json, ContentType::Absent, ContentType::Other("text/\u{fffd}".into())]
                [number % 3]
                .clone(),
            client_ip: [None, Some([192, 0, 2, 1].into()), "2001:db8::1".parse().ok()][number % 3],
            user_agent: [None, Some("an agent\u{fc}/1".into())][number % 2].clone(),
            metrics_disabled: number % 2 == 1,
            body: Bytes::from(vec![7; number]),
            forwarded: Some(Forwarded { change: [number as u8; 16], hops: 3 }),
        }
    }

    /// What the leader sees of a request is what its follower saw, and what the follower gets of a reply is what the leader made.
    #[test]
    fn both_ways_nothing_is_lost() {
        for number in 0..30 {
            let sent = inbound(number);
            let forwarded = sent.forwarded.expect("it is handed on");
            let asked =
                Asked { path: "/v2/keys.createKey", inbound: &sent, forwarded, left: Duration::from_millis(1234) };
            let request = asked.request();
            let came = inbound_of(request.headers(), sent.body.clone(), 5, true);
            let (came, left) = came.unwrap_or_else(|| panic!("{number}"));
            assert_eq!(left, Duration::from_millis(1234));
            assert_eq!(format!("{came:?}"), format!("{sent:?}"));
            assert!(came.authorization == sent.authorization, "{number}");
            let untimed = inbound_of(request.headers(), Bytes::new(), 5, false).expect("whole").0;
            assert_eq!(untimed.test_time_ms, None, "only where tests may move the clock");
        }
        for number in 0..8 {
            let limit = RateLimitHeaders { limit: 9, remaining: 1, reset_s: None, refused: number % 2 == 0 };
            let made = Outbound {
                status: [200, 429, 503][number % 3],
                is_problem: number % 2 == 1,
                rate_limit: [None, Some(limit), Some(RateLimitHeaders { reset_s: Some(7), ..limit })][number % 3],
                retry_after_s: [None, Some(3)][number % 2],
                failure: (number % 2 == 1).then(|| Box::new(Failure { code: Code::WorkspaceRateLimited, cause: None })),
                ..Outbound::ok(vec![1; number])
            };
            let response = response_of(made.clone(), Position(77));
            let (came, position) = reply_of(response.status(), response.headers(), made.body.clone());
            assert_eq!((format!("{came:?}"), position), (format!("{made:?}"), Some(Position(77))));
        }
    }
}
