//! One request and its reply: bytes to [`Inbound`], [`Outbound`] to bytes.
//!
//! The order is COM-ORD-01 and COM-ORD-02: does the route exist, is the body within its limit; everything after that
//! is the operation's. All of it - the body, the operation - is under one deadline. Most requests are answered in the
//! first poll or two on the connection's own task, without a task or a timer of their own: those are made only for a
//! request that has to wait.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use keyward_storage::ids::{KeyId, WorkspaceId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};

use super::client_ip;
use super::listen::{Connection, Place, Site};
use super::reply_body::ReplyBody;
use super::service_routes::{Health, Page, Stage};
use super::{Answer, Application, service_routes};
use crate::api::problem::{self, Code, JSON, Problem};
use crate::api::wire::{Authorization, ContentType, Failure, Inbound, Outbound, RequestId};
use crate::metrics::Metrics;
use crate::metrics::recorder::Outcome;
use crate::otlp::trace::{self, Ending, Trace};
use crate::telemetry::error_chain;

/// Bodies up to this size are read without asking; the connections' limit bounds their sum.
const SMALL_BODY_BYTES: usize = 4 * 1024;
/// The sum of the larger bodies in memory at one time; further ones wait their turn, within their deadline. Room is taken
/// as bytes arrive, so a body that was only announced takes none.
const LARGE_BODIES_BYTES: usize = 256 * 1024 * 1024;
/// A refused body is read and thrown away up to this size and time, so that the connection can be kept, and so that a
/// client which sends before it listens hears why (a socket closed on unread data loses the reply).
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
const DISCARDED_TIME_MAX: Duration = Duration::from_secs(3);
/// Operations of one connection that may go on without anybody waiting for them. HTTP/2 lets a client begin and give up
/// requests without end; at this many the next is refused until one of them has ended.
const ABANDONED_MAX: u32 = 64;
/// Bytes of a `User-Agent` that are kept.
const USER_AGENT_BYTES: usize = 512;
/// Lines about refused requests in one second; the rest are counted (COM-LOG-07, and a flood must not fill a disk).
const REFUSAL_LINES_PER_SECOND: u32 = 100;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const X_TEST_TIME: HeaderName = HeaderName::from_static("x-test-time");
const X_UNKEY_METRICS: HeaderName = HeaderName::from_static("x-unkey-metrics");
/// On replies out of records that may be behind the leader's: by how many milliseconds.
const STALENESS: HeaderName = HeaderName::from_static("x-keyward-staleness-ms");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
/// The cookie of a portal session.
const PORTAL_COOKIE: &str = "portal_session";

/// A reply, its body whole.
type Reply = Response<Bytes>;

/// Answers one request of a connection.
pub(super) async fn answer<A: Application>(
    connection: Arc<Connection<A>>,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Infallible> {
    let _running = connection.activity.begin();
    let begun = Instant::now();
    let site = &*connection.site;
    let now_ms = site.outside.clock.now_ms();
    let arrived = Arrived { request_id: RequestId::draw(&site.outside.entropy, now_ms), now_ms };
    let (head, mut body) = request.into_parts();
    let mut unanswered = Unanswered {
        head: &head,
        request_id: arrived.request_id,
        metrics: site.application.metrics(),
        operation: None,
        trace: None,
        begun,
        answered: false,
    };

    let path = head.uri.path();
    let (mut failure, mut caller) = (None, None);
    let mut reply = if let Err(why) = names_its_host(head.version, &head.headers) {
        failure = Some(Box::new(Failure { code: Code::InvalidInput, cause: None }));
        refuse(&head, &mut body, arrived, &Problem::new(Code::InvalidInput, why)).await
    } else if let Some(operation) = site.application.find(path) {
        unanswered.operation = Some(site.application.number(operation));
        if let Some(tracer) = site.application.tracer() {
            unanswered.trace = tracer.begin(traceparent(&head.headers), begun, now_ms);
        }
        if head.method == Method::POST {
            let mut outbound = operate(&connection, operation, &head, body, arrived, unanswered.trace.as_ref()).await;
            let reply = reply_of(&mut outbound, &head.headers);
            (failure, caller) = (outbound.failure, outbound.caller);
            reply
        } else {
            refuse_route(&head, &mut body, arrived, Some("POST")).await
        }
    } else if let Some(page) = service_routes::find(path).filter(|page| may_see(*page, &connection, &head)) {
        if head.method == Method::GET || head.method == Method::HEAD {
            if page == Page::Metrics {
                service_routes::metrics(site.application.exposition().await)
            } else {
                let (stage, degraded) = (site.stage(), site.application.degraded());
                let health = Health { stage, degraded, fit: site.application.fit() };
                service_routes::reply(page, &health, &site.documents, arrived.request_id)
            }
        } else {
            refuse_route(&head, &mut body, arrived, Some("GET, HEAD")).await
        }
    } else if let Some(location) = cleaned(&head) {
        redirect(&location)
    } else {
        refuse_route(&head, &mut body, arrived, None).await
    };

    let id = HeaderValue::from_str(arrived.request_id.as_str()).expect("a request id is letters, digits and `_`");
    reply.headers_mut().insert(X_REQUEST_ID, id);
    if site.stage() == Stage::Draining && head.version <= Version::HTTP_11 {
        // No request may follow that nobody would read.
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    unanswered.answered = true;
    unanswered.end(reply.status().as_u16(), failure.as_ref().map(|failure| failure.code));
    let is_refused = reply.status().as_u16() >= 400;
    if is_refused || (unanswered.operation.is_some() && site.limits.logs_all()) {
        let hops = head.headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
        let client_ip = site.trusted_proxies.client_of(connection.peer, hops);
        let trace = unanswered.trace.as_deref();
        let ended = Ended { head: &head, status: reply.status(), arrived, begun, client_ip, caller, failure, trace };
        if is_refused {
            site.refusals.log(site.outside.clock.now_ms(), &ended);
        } else {
            ended.log();
        }
    }
    Ok(reply.map(|body| ReplyBody::new(body, &connection.activity)))
}

/// What the server notes when a request arrives.
#[derive(Clone, Copy)]
struct Arrived {
    request_id: RequestId,
    now_ms: u64,
}

/// Notices that a client went away before its answer: the request's future is dropped, which only the log shows
/// (COM-BODY-09).
struct Unanswered<'a> {
    head: &'a Parts,
    request_id: RequestId,
    metrics: &'a Metrics,
    /// The number of its operation.
    operation: Option<usize>,
    /// Where it is traced.
    trace: Option<Arc<Trace>>,
    begun: Instant,
    answered: bool,
}

impl Unanswered<'_> {
    /// Counts how the request ended, and when.
    fn end(&self, status: u16, code: Option<Code>) {
        let nanos = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.metrics.requests.request(self.operation, Outcome::of(status, code), nanos);
        if let (Some(trace), Some(operation)) = (&self.trace, self.operation) {
            let method = known_method(&self.head.method);
            trace.end(Ending { operation, method, status, code, request_id: self.request_id });
        }
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.end(Code::ClientClosedRequest.status(), Some(Code::ClientClosedRequest));
            tracing::debug!(
                status = Code::ClientClosedRequest.status(),
                method = %self.head.method,
                path = self.head.uri.path(),
                request_id = %self.request_id,
                "the client closed the request before its answer"
            );
        }
    }
}

/// Whether a page is there for whoever asks: metrics are for those who are allowed to read them.
fn may_see<A: Application>(page: Page, connection: &Connection<A>, head: &Parts) -> bool {
    let Site { metrics_for, .. } = &*connection.site;
    let hidden = [header::FORWARDED, header::VIA, X_REAL_IP].iter().any(|name| head.headers.contains_key(name));
    let hops = head.headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    page != Page::Metrics || client_ip::all_from(metrics_for, connection.peer, hops, hidden)
}

/// Reads the body and runs the operation, within the deadline.
async fn operate<A: Application>(
    connection: &Arc<Connection<A>>,
    operation: A::Operation,
    head: &Parts,
    mut body: Incoming,
    arrived: Arrived,
    trace: Option<&Arc<Trace>>,
) -> Outbound {
    let site = &*connection.site;
    let limit = site.limits.max_body_bytes();
    let deadline = site.limits.request_deadline();
    if connection.place.abandoned.load(Ordering::Relaxed) >= ABANDONED_MAX {
        discard(head, &mut body).await;
        let detail =
            "Too many requests of this connection were given up and are still running. Please wait for answers.";
        return outbound_of(&Problem::no_capacity(detail), arrived.request_id);
    }
    let stops = site.application.stops(operation);
    // From the body's end on, the operation's own deadline holds where it has one.
    let bounds_itself = AtomicBool::new(false);
    let work = async {
        let (bytes, room) = match read_body(&mut body, limit, &site.large_bodies).await {
            Ok(read) => read,
            Err(BodyError::TooLarge) => {
                discard(head, &mut body).await;
                let detail = format!("The request body exceeds the maximum allowed size of {limit} bytes.");
                return outbound_of(&Problem::new(Code::RequestBodyTooLarge, detail), arrived.request_id);
            }
            Err(BodyError::Unreadable(error)) => {
                let problem =
                    Problem::new(Code::RequestBodyUnreadable, "The request body could not be read.").because(error);
                return outbound_of(&problem, arrived.request_id);
            }
        };
        bounds_itself.store(stops, Ordering::Relaxed);
        let inbound = inbound_of(connection, head, bytes, arrived);
        // Calling it may panic as well as running it.
        let answer = match catch_unwind(AssertUnwindSafe(|| site.application.respond(operation, inbound))) {
            Ok(answer) => {
                let answer = match trace {
                    Some(trace) => Box::pin(trace::within(Arc::clone(trace), answer)),
                    None => answer,
                };
                Running { answer: Some(answer), stops, place: Arc::clone(&connection.place), room }.await
            }
            Err(_) => Err(Panicked),
        };
        answer.unwrap_or_else(|Panicked| {
            tracing::error!(
                path = head.uri.path(),
                request_id = %arrived.request_id,
                "an operation panicked; its client was answered 500"
            );
            let detail = "Something went wrong on our side. Please try again.";
            outbound_of(&Problem::new(Code::UnexpectedError, detail), arrived.request_id)
        })
    };
    match within(deadline, &bounds_itself, work).await {
        Some(outbound) => outbound,
        None => {
            let detail = format!("The request was not answered within {} milliseconds.", deadline.as_millis());
            outbound_of(&Problem::new(Code::RequestTimeout, detail), arrived.request_id)
        }
    }
}

/// Waits for `work`, at most as long as `limit` unless it says that it bounds itself; `None` when the time is up.
///
/// A request whose body is in memory already needs a second poll, since hyper hands it over only once it was asked for
/// it. A timer costs more than that poll, so the first wait is answered by an immediate second try and the timer is
/// set at the second.
async fn within<F: Future>(limit: Duration, bounds_itself: &AtomicBool, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let mut timer = pin!(None::<Sleep>);
    let mut waited = false;
    poll_fn(move |cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        if !waited {
            waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if bounds_itself.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        if timer.is_none() {
            timer.set(Some(sleep(limit)));
        }
        let timer = timer.as_mut().as_pin_mut().expect("it was set just now");
        timer.poll(cx).map(|()| None)
    })
    .await
}

/// The operation panicked.
struct Panicked;

/// A running operation. Dropped before its end - the client went away, or the deadline passed - it stops where it may,
/// and otherwise goes on in a task of its own: a change that is with the writer already must not be left half-way, only the reply is lost. Until it
/// ends it keeps its connection's place and its body's room, so that abandoned work stays bounded and a shutdown waits
/// for it.
struct Running {
    answer: Option<Answer>,
    stops: bool,
    place: Arc<Place>,
    room: Option<OwnedSemaphorePermit>,
}

impl Future for Running {
    type Output = Result<Outbound, Panicked>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = self.answer.as_mut().expect("nobody polls a future after its end");
        let outcome = match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
            Ok(poll) => Ok(ready!(poll)),
            Err(_) => Err(Panicked),
        };
        self.answer = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(answer) = self.answer.take().filter(|_| !self.stops) else { return };
        let abandoned = Abandoned { place: Arc::clone(&self.place), _room: self.room.take() };
        abandoned.place.abandoned.fetch_add(1, Ordering::Relaxed);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _abandoned = abandoned;
                answer.await;
            });
        }
    }
}

/// What an abandoned operation keeps until its end.
struct Abandoned {
    place: Arc<Place>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        self.place.abandoned.fetch_sub(1, Ordering::Relaxed);
    }
}

enum BodyError {
    TooLarge,
    Unreadable(hyper::Error),
}

/// The room for bodies above [`SMALL_BODY_BYTES`], in KiB; at least one of the largest size fits.
pub(super) fn room_for_large_bodies(max_body_bytes: usize) -> Semaphore {
    Semaphore::new(kib(LARGE_BODIES_BYTES.max(max_body_bytes)) as usize)
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Reads a body of at most `max` bytes. A declared length above it is refused before anything is read (COM-BODY-02).
async fn read_body(
    body: &mut Incoming,
    max: usize,
    large_bodies: &Arc<Semaphore>,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), BodyError> {
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > max as u64) {
        return Err(BodyError::TooLarge);
    }
    let declared = declared.and_then(|length| usize::try_from(length).ok());
    let mut room: Option<OwnedSemaphorePermit> = None;
    // Most bodies come in one piece, which is handed on as it is.
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        let Ok(piece) = frame.map_err(BodyError::Unreadable)?.into_data() else { continue };
        let length = first.len() + all.len() + piece.len();
        if length > max {
            return Err(BodyError::TooLarge);
        }
        if length > SMALL_BODY_BYTES {
            let taken = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let wanted = kib(length).saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX));
            let more = Arc::clone(large_bodies).acquire_many_owned(wanted).await;
            let more = more.expect("the room for bodies is never closed");
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
        if first.is_empty() && all.is_empty() {
            first = piece;
        } else {
            if all.is_empty() {
                all.reserve(declared.unwrap_or(length).min(2 * length));
                all.extend_from_slice(&first);
                first = Bytes::new();
            }
            all.extend_from_slice(&piece);
        }
    }
    let whole = if all.is_empty() { first } else { all.freeze() };
    Ok((whole, room))
}

/// Reads and forgets what is left of a refused request's body, within limits; errors are of no interest any more.
async fn discard(head: &Parts, body: &mut Incoming) {
    // Who waits for `100 Continue` has sent nothing yet, and will not after hearing the refusal.
    if body.is_end_stream() || head.headers.contains_key(header::EXPECT) {
        return;
    }
    if body.size_hint().exact().is_some_and(|length| length > DISCARDED_BYTES_MAX as u64) {
        return;
    }
    let reading = async {
        let mut left = DISCARDED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
    };
    let _ = timeout(DISCARDED_TIME_MAX, reading).await;
}

/// Reads the headers in one pass: looking each up by its name costs a hash each.
fn inbound_of<A: Application>(connection: &Connection<A>, head: &Parts, body: Bytes, arrived: Arrived) -> Inbound {
    let site = &*connection.site;
    let headers = &head.headers;
    let mut inbound = Inbound {
        request_id: arrived.request_id,
        now_ms: arrived.now_ms,
        deadline_ms: arrived.now_ms.saturating_add(millis(site.limits.request_deadline())),
        test_time_ms: None,
        authorization: Authorization::Absent,
        portal_session: None,
        content_type: ContentType::Absent,
        client_ip: None,
        user_agent: None,
        metrics_disabled: false,
        body,
        forwarded: None,
    };
    // Of a name that occurs several times the first value counts, but for the credential (COM-AUTH-08).
    for (name, value) in headers {
        match *name {
            header::AUTHORIZATION => {
                inbound.authorization = match (&inbound.authorization, std::str::from_utf8(value.as_bytes())) {
                    (Authorization::Absent, Ok(text)) => Authorization::One(text.into()),
                    (Authorization::Absent, Err(_)) => Authorization::NotText,
                    _ => Authorization::Several,
                };
            }
            header::CONTENT_TYPE if inbound.content_type == ContentType::Absent => {
                inbound.content_type = content_type(value);
            }
            header::USER_AGENT if inbound.user_agent.is_none() => {
                let agent = text(value);
                // It is recorded with every audit event, and a request can cause thousands.
                inbound.user_agent = Some(agent[..agent.floor_char_boundary(USER_AGENT_BYTES)].into());
            }
            header::COOKIE if inbound.portal_session.is_none() => inbound.portal_session = portal_session(value),
            _ if *name == X_UNKEY_METRICS => inbound.metrics_disabled |= value.as_bytes() == b"disabled",
            _ if site.test_mode && *name == X_TEST_TIME && inbound.test_time_ms.is_none() => {
                inbound.test_time_ms = test_time(value);
            }
            _ => {}
        }
    }
    let hops = headers.get_all(X_FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
    inbound.client_ip = Some(site.trusted_proxies.client_of(connection.peer, hops));
    inbound
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn text(value: &HeaderValue) -> Box<str> {
    String::from_utf8_lossy(value.as_bytes()).into()
}

/// The caller's trace. Where several are named none is meant.
fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

/// A method by a name that is not the client's own.
fn known_method(method: &Method) -> Option<&'static str> {
    const KNOWN: [&str; 9] = ["POST", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| method.as_str() == *known)
}

/// COM-HDR-05.
fn test_time(value: &HeaderValue) -> Option<i64> {
    let time = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| text.trim().parse().ok());
    if time.is_none() {
        tracing::warn!("X-Test-Time is no whole number and was ignored");
    }
    time
}

/// The first `portal_session` among the cookies; an SDK's empty `cookie:` header has none.
fn portal_session(value: &HeaderValue) -> Option<Box<str>> {
    let cookies = std::str::from_utf8(value.as_bytes()).ok()?.split(';');
    let mut sessions = cookies.filter_map(|cookie| cookie.trim().strip_prefix(PORTAL_COOKIE)?.strip_prefix('='));
    sessions.next().map(Box::from)
}

/// COM-BODY-01.
fn content_type(value: &HeaderValue) -> ContentType {
    let media_type = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if media_type.eq_ignore_ascii_case(b"application/json") {
        ContentType::Json
    } else if value.as_bytes().trim_ascii().is_empty() {
        ContentType::Absent
    } else {
        ContentType::Other(text(value))
    }
}

/// An error as an operation would have answered it.
fn outbound_of(problem: &Problem, request_id: RequestId) -> Outbound {
    let cause = std::error::Error::source(problem).map(error_chain);
    Outbound::refusal(problem, request_id.as_str(), Failure { code: problem.code(), cause })
}

/// Makes the reply; what the log is to say of a failure stays behind.
fn reply_of(outbound: &mut Outbound, request: &HeaderMap) -> Reply {
    let mut reply = Response::new(std::mem::take(&mut outbound.body));
    *reply.status_mut() = StatusCode::from_u16(outbound.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = reply.headers_mut();
    let content_type = if outbound.is_problem { error_content_type(request) } else { JSON };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    let mut retry_after_s = outbound.retry_after_s;
    if let Some(limit) = outbound.rate_limit {
        headers.insert(RATELIMIT_LIMIT, HeaderValue::from(limit.limit));
        headers.insert(RATELIMIT_REMAINING, HeaderValue::from(limit.remaining));
        if let Some(reset_s) = limit.reset_s {
            headers.insert(RATELIMIT_RESET, HeaderValue::from(reset_s));
        }
        if limit.refused {
            retry_after_s = retry_after_s.or(limit.reset_s);
        }
    }
    if let Some(seconds) = retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    match outbound.staleness_ms {
        None => {}
        Some(u64::MAX) => drop(headers.insert(STALENESS, HeaderValue::from_static("unknown"))),
        Some(millis) => drop(headers.insert(STALENESS, HeaderValue::from(millis))),
    }
    // Where this server explains the code: `error.type` leads to another host, which may be out of reach (RFC 8288).
    if let Some(failure) = &outbound.failure
        && let Ok(link) = HeaderValue::try_from(format!("</errors/{}>; rel=\"help\"", failure.code.path()))
    {
        headers.insert(header::LINK, link);
    }
    reply
}

/// COM-ERR-05, over all `Accept` headers of the request.
fn error_content_type(request: &HeaderMap) -> &'static str {
    request
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .map(|value| problem::content_type(Some(value)))
        .find(|content_type| *content_type != JSON)
        .unwrap_or(JSON)
}

/// 404, or 405 where methods are `allowed` (COM-RT-06).
async fn refuse_route(head: &Parts, body: &mut Incoming, arrived: Arrived, allowed: Option<&'static str>) -> Reply {
    let problem =
        if allowed.is_some() { Problem::method_not_allowed() } else { Problem::no_such_route(head.uri.path()) };
    let mut reply = refuse(head, body, arrived, &problem).await;
    if let Some(allowed) = allowed {
        reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    }
    reply
}

/// An error before any operation.
async fn refuse(head: &Parts, body: &mut Incoming, arrived: Arrived, problem: &Problem) -> Reply {
    discard(head, body).await;
    let mut reply = reply_of(&mut outbound_of(problem, arrived.request_id), &head.headers);
    reply.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}

/// Whether a request says which host it is for, as HTTP/1 asks for it (RFC 9112, 3.2): with none, two or one that is no host,
/// those on its way may have understood another request than we do. HTTP/2 has it elsewhere, and checked already.
///
/// # Errors
/// What is to be told.
pub(super) fn names_its_host(version: Version, headers: &HeaderMap) -> Result<(), &'static str> {
    if version > Version::HTTP_11 {
        return Ok(());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let is_sign = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    match (hosts.next(), hosts.next()) {
        (None, _) if version == Version::HTTP_11 => Err("The request has no Host header, which HTTP/1.1 asks for."),
        (_, Some(_)) => Err("The request has more than one Host header."),
        (Some(host), None) if !host.as_bytes().iter().all(is_sign) => Err("The request's Host header names no host."),
        _ => Ok(()),
    }
}

/// The page that a GET with `//`, `/./` or `/../` in its path meant (COM-RT-05). A POST is never redirected: clients
/// turn it into a GET (COM-RT-06).
fn cleaned(head: &Parts) -> Option<String> {
    if head.method != Method::GET && head.method != Method::HEAD {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in head.uri.path().split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    let path = format!("/{}", parts.join("/"));
    // Without this the answer would be a redirect to itself, or to a path that does not exist either.
    (path != head.uri.path() && !head.uri.path().ends_with('/') && service_routes::find(&path).is_some())
        .then_some(path)
}

fn redirect(location: &str) -> Reply {
    let mut reply = Response::new(Bytes::new());
    *reply.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let location = HeaderValue::from_str(location).expect("the paths of the pages are ASCII");
    reply.headers_mut().insert(header::LOCATION, location);
    reply
}

/// Writes one line for each refused or failed request, as many as a second may have.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    second: AtomicU64,
    lines: AtomicU32,
}

/// A request that has its answer.
struct Ended<'a> {
    head: &'a Parts,
    status: StatusCode,
    arrived: Arrived,
    begun: Instant,
    client_ip: IpAddr,
    caller: Option<(WorkspaceId, KeyId)>,
    failure: Option<Box<Failure>>,
    trace: Option<&'a Trace>,
}

/// Longest piece of a client's text in a line of the log, bytes.
const LOGGED_TEXT_BYTES: usize = 200;

impl Refusals {
    fn log(&self, now_ms: u64, refused: &Ended<'_>) {
        if !tracing::enabled!(tracing::Level::ERROR) {
            return;
        }
        let second = now_ms / 1000;
        if self.second.swap(second, Ordering::Relaxed) != second {
            let unwritten = self.lines.swap(0, Ordering::Relaxed).saturating_sub(REFUSAL_LINES_PER_SECOND);
            if unwritten > 0 {
                tracing::info!(requests = unwritten, "more requests were refused than the log has room for");
            }
        }
        if self.lines.fetch_add(1, Ordering::Relaxed) >= REFUSAL_LINES_PER_SECOND {
            return;
        }
        refused.log();
    }
}

impl Ended<'_> {
    /// Writes its line: nothing of its headers but where it came from, nothing of its body (COM-LOG-07).
    fn log(&self) {
        let Ended { head, status, arrived, begun, client_ip, caller, failure, trace } = self;
        let failure = failure.as_deref();
        let (status, request_id) = (status.as_u16(), arrived.request_id);
        let method = shortened(head.method.as_str());
        let path = shortened(head.uri.path());
        let code = failure.map(|failure| failure.code.path());
        let workspace = caller.map(|(workspace, _)| workspace.to_string());
        let root_key = caller.map(|(_, key)| key.to_string());
        let trace_id = trace.map(Trace::spelled_id);
        let cause = failure.and_then(|failure| failure.cause.as_deref());
        // To the microsecond: finer digits are noise.
        let latency_ms = (begun.elapsed().as_secs_f64() * 1e6).round() / 1e3;
        macro_rules! line {
            ($level:ident, $text:literal) => {
                tracing::$level!(
                    status, code, method, path, %client_ip, workspace, root_key, %request_id, trace_id, latency_ms, cause,
                    $text
                )
            };
        }
        match status {
            ..400 => line!(info, "a request was answered"),
            503 => line!(warn, "a request was refused"),
            500.. => line!(error, "a request failed"),
            _ => line!(info, "a request was refused"),
        }
    }
}

/// The front of a client's text, cut at a character.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOGGED_TEXT_BYTES)]
}
