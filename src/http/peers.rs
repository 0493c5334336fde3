//! The address of `replication.listen`: other nodes of the same store, over HTTP/2.
//!
//! A node shows the token, or a certificate where `replication.client_ca_file` asks for one (then nobody without one gets past the
//! handshake). What is asked is told by the path:
//!
//! - `POST /replication/log`: the follower's messages as the request's body, the leader's as the answer's, for as long as both like;
//! - `POST /replication/checkpoint`: all records as the answer's body;
//! - `POST /replication/fence`: a promoted node tells the leader before it of its term; a node in between hands that on;
//! - `POST /replication/term`: the newest term that this node has heard of.
//!
//! Other paths are `super::peer_routes`'s.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::timeout;

use super::accept;
use super::bodies::{Room, Share};
use super::streams::{Arriving, pieces};
use crate::app::Services;
use crate::config::{self, Settings};
use crate::outside::Clock;
use crate::replication::census;
use crate::replication::lead::{FENCE_PATH, Leading, NotFenced};
use crate::replication::token::{self, Expected};
use crate::telemetry::error_chain;
use crate::tls::Tls;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 256;
/// From a connection to its first request of a node, and from a refusal to its end: whoever cannot show that it is a node holds
/// no place that a follower needs.
const INTRODUCTION_MAX: Duration = Duration::from_secs(5);
const LEAVE_MAX: Duration = Duration::from_secs(1);
/// Streams on one connection: a log, a checkpoint, and what a follower hands on.
const STREAMS_MAX: u32 = 1024;
/// Bytes a node may send on a connection, and on one stream, before they are read.
const CONNECTION_WINDOW: u32 = 4 << 20;
const STREAM_WINDOW: u32 = 256 << 10;
/// Pieces of a stream that wait for the other node to read them.
const PIECES_WAITING: usize = 4;
/// How long a fence may take to arrive, and its bytes.
const FENCE_TIME_MAX: Duration = Duration::from_secs(5);
const FENCE_BYTES_MAX: usize = 16 << 10;

/// Why such a socket is not opened where neither a token nor certificates are asked for.
pub const ADMITS_NOBODY: &str = "nothing says who may follow: set replication.token_file (`openssl rand -hex 32` prints a token), or \
                                 replication.client_ca_file";

/// What answers carry.
pub type Reply = UnsyncBoxBody<Bytes, Infallible>;

/// The socket for other nodes, open.
pub struct PeerListener {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    token: Option<Expected>,
}

/// Opens the socket of `replication.listen`; `None` where there is none.
///
/// # Errors
/// A sentence for the operator.
pub async fn bind(settings: &Settings, clock: Clock) -> Result<Option<PeerListener>, String> {
    let replication = &settings.replication;
    let Some(address) = &replication.listen else { return Ok(None) };
    let token = token::open(&settings.secrets, &settings.data_dir).map_err(|error| error_chain(&error))?;
    if token.is_none() && replication.client_ca_file.is_none() {
        return Err(format!("replication.listen is {address}, and {ADMITS_NOBODY}"));
    }
    let tls = tls(settings, clock)?;
    let bound = TcpListener::bind(address).await;
    let listener = bound
        .map_err(|error| format!("cannot listen on {address} (replication.listen): {error}; choose another address"))?;
    Ok(Some(PeerListener { listener, tls, token: token.map(|token| Expected::new(&token)) }))
}

/// The TLS of that socket; `None` where it speaks none.
///
/// # Errors
/// A sentence for the operator: a file of it cannot be used.
pub fn tls(settings: &Settings, clock: Clock) -> Result<Option<Arc<Tls>>, String> {
    if !settings.tls.is_on() {
        return Ok(None);
    }
    let tls = config::Tls { client_ca_file: settings.replication.client_ca_file.clone(), ..settings.tls.clone() };
    Tls::open_beside(&tls, clock).map(Some).map_err(|error| error_chain(&error))
}

impl PeerListener {
    /// Where it really listens, for a port that was left to the system.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }
}

/// What connections share.
pub(super) struct Peers {
    leading: Leading,
    token: Option<Expected>,
    silence: Duration,
    pub(super) services: Arc<Services>,
    /// Whether requests that are handed on may set their own time.
    pub(super) test_mode: bool,
    /// Room for the bodies of what they hand on and bring.
    bodies: Arc<Room>,
}

/// Answers other nodes until `stop` is ready. Their streams are cut then: they come again.
pub async fn run(peers: PeerListener, services: Arc<Services>, settings: &Settings, stop: impl Future<Output = ()>) {
    let PeerListener { listener, tls, token } = peers;
    if let Some(tls) = &tls {
        tokio::spawn(Arc::clone(tls).watch());
    }
    let leading = Leading::new(&services);
    let peers = Arc::new(Peers {
        leading,
        token,
        silence: settings.replication.silence,
        services,
        test_mode: settings.test_mode,
        bodies: Room::new(),
    });
    accept::each(&listener, CONNECTIONS_MAX, stop, |stream, address, place| {
        let _ = stream.set_nodelay(true);
        let (peers, tls) = (Arc::clone(&peers), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, peers, address, place).await,
                Some(tls) => {
                    if let Some(stream) = tls.accept(stream, address.ip()).await {
                        serve(stream, peers, address, place).await;
                    }
                }
            }
        });
    })
    .await;
    peers.leading.stop();
}

/// Who is at the other end of a connection.
struct Caller {
    address: SocketAddr,
    /// Its room for bodies.
    share: Share,
    /// Whether a request of it was one of a node.
    is_known: AtomicBool,
    /// Rung when one was not.
    refused: Notify,
    is_refused: AtomicBool,
}

impl Caller {
    /// Ready when its place is for others: it was refused, or did not say in time who it is.
    async fn is_nobody(&self) {
        let said_nothing = async {
            tokio::time::sleep(INTRODUCTION_MAX).await;
            if self.is_known.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.refused.notified() => {}
            () = said_nothing => {}
        }
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peers: Arc<Peers>,
    address: SocketAddr,
    _place: OwnedSemaphorePermit,
) {
    let silence = peers.silence;
    let caller = Arc::new(Caller {
        address,
        share: peers.bodies.share(),
        is_known: AtomicBool::new(false),
        refused: Notify::new(),
        is_refused: AtomicBool::new(false),
    });
    let asking = Arc::clone(&caller);
    let service = service_fn(move |request| answer(Arc::clone(&peers), Arc::clone(&asking), request));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .keep_alive_interval(silence / 2)
        .keep_alive_timeout(silence)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = caller.is_nobody() => {
            connection.as_mut().graceful_shutdown();
            timeout(LEAVE_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, error = error_chain(&error), "a connection of another node ended");
    }
}

async fn answer(
    peers: Arc<Peers>,
    caller: Arc<Caller>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Infallible> {
    let address = caller.address;
    if let Some(expected) = &peers.token {
        let presented = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if !presented.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|token| expected.is(token)) {
            // Of many requests one line.
            if !caller.is_refused.swap(true, Ordering::Relaxed) {
                tracing::warn!(%address, "a node came with a wrong replication token, or without one");
            }
            caller.refused.notify_one();
            return Ok(text(StatusCode::UNAUTHORIZED, "the replication token is wrong, or missing"));
        }
    }
    caller.is_known.store(true, Ordering::Relaxed);
    let reply = match (request.method(), request.uri().path()) {
        (&Method::POST, "/replication/log") => {
            let (write, body) = pieces(PIECES_WAITING);
            let arriving = Arriving::new(request.into_body());
            tokio::spawn(async move { peers.leading.log(address, arriving, write).await });
            Response::new(body.boxed_unsync())
        }
        (&Method::POST, "/replication/checkpoint") => {
            let (write, body) = pieces(PIECES_WAITING);
            match peers.leading.checkpoint(address, write) {
                Ok(()) => Response::new(body.boxed_unsync()),
                Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, why),
            }
        }
        (&Method::POST, census::TERM_PATH) => {
            let mut response = Response::new(Full::new(census::term(&peers.services)).boxed_unsync());
            let now = peers.services.outside.clock.now_ms();
            response.headers_mut().insert(super::link::CLOCK, HeaderValue::from(now));
            response
        }
        (&Method::POST, FENCE_PATH) => {
            let hops = super::forward::number(request.headers(), &super::forward::HOPS).unwrap_or(0);
            let body = Limited::new(request.into_body(), FENCE_BYTES_MAX).collect();
            match timeout(FENCE_TIME_MAX, body).await {
                Ok(Ok(body)) => match peers.leading.fence(body.to_bytes(), hops).await {
                    Ok(()) => text(StatusCode::OK, "this node takes no changes any more"),
                    Err(NotFenced::Over(message)) => told(StatusCode::GONE, message),
                    Err(NotFenced::Rival(message)) => told(StatusCode::LOCKED, message),
                    Err(NotFenced::Refused(why)) => text(StatusCode::CONFLICT, &why),
                },
                _ => text(StatusCode::BAD_REQUEST, "the message did not come whole"),
            }
        }
        _ => super::peer_routes::answer(&peers, (address, &caller.share), request).await,
    };
    Ok(reply)
}

/// A message as an answer.
fn told(status: StatusCode, message: Vec<u8>) -> Response<Reply> {
    let mut response = Response::new(Full::new(Bytes::from(message)).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// A short answer for people.
pub(super) fn text(status: StatusCode, text: &str) -> Response<Reply> {
    let mut response = Response::new(Full::new(Bytes::from(format!("{text}\n"))).boxed_unsync());
    *response.status_mut() = status;
    response
}
