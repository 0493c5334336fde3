//! The one connection to the leader: HTTP/2, made anew whenever it ends, shared by all that have something to ask.
//!
//! Multiplexing, flow control and pings are HTTP/2's. A request on a connection that is not there fails at once: whoever asks
//! knows better than this whether to wait, to answer by itself, or to give up.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use keyward_storage::replication::NodeId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::streams::{Arriving, pieces};
use crate::config::Leader;
use crate::telemetry::error_chain;
use crate::tls::peer::Connector;

/// Longest that a connection may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);
/// Pause before the first new attempt; each further one is twice as long, up to the last.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Bytes that the leader may send ahead of what is read, on one stream and on all together: memory of ours.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Pieces of a stream that wait for the leader to read them.
const PIECES_WAITING: usize = 4;
/// Bytes of an answer that says why something was not done.
const TEXT_BYTES_MAX: usize = 4096;

/// With which a node says which one a message began at, whoever hands it on.
pub(super) const NODE: HeaderName = HeaderName::from_static("keyward-node");
/// With which a node tells its clock, unix ms.
pub(super) const CLOCK: HeaderName = HeaderName::from_static("keyward-clock-ms");

/// What requests to the leader carry.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body that is there as a whole.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// Why the leader gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no connection to it: nothing was sent.
    #[error("there is no connection to the leader")]
    Down,
    /// The connection ended, or the stream did. Whether the leader did what it was asked nobody knows.
    #[error("the connection to the leader was cut")]
    Cut(#[source] hyper::Error),
}

impl LinkError {
    /// Whether the leader certainly has not seen the request.
    pub fn is_unsent(&self) -> bool {
        match self {
            LinkError::Down => true,
            LinkError::Cut(error) => error.is_canceled(),
        }
    }
}

/// The connection to the leader.
pub struct Link {
    leader: Leader,
    tls: Option<Connector>,
    authorization: Option<HeaderValue>,
    /// After so long without a sign of life the connection counts as dead.
    silence: Duration,
    sender: RwLock<Option<SendRequest<Body>>>,
    /// Whether there is a connection.
    up: watch::Sender<bool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("leader", &self.leader).finish_non_exhaustive()
    }
}

impl Link {
    /// A link to this leader, not connected yet: [`Link::run`] sees to that. `tls` is given where the leader speaks it, `token`
    /// where it asks for one.
    pub fn new(leader: Leader, tls: Option<Connector>, token: Option<&str>, silence: Duration) -> Arc<Link> {
        let authorization = token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok());
        let authorization = authorization.map(|mut value| {
            value.set_sensitive(true);
            value
        });
        let (sender, up) = (RwLock::new(None), watch::Sender::new(false));
        Arc::new(Link { leader, tls, authorization, silence, sender, up })
    }

    /// Whom it leads to.
    pub fn leader(&self) -> &Leader {
        &self.leader
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Waits until there is a connection.
    pub async fn wait_until_up(&self) {
        // The sender lives as long as this does.
        let _ = self.up.subscribe().wait_for(|up| *up).await;
    }

    /// Asks the leader. The URI is a path; where it leads is added, and the token. The answer's head is awaited for as long as
    /// the caller likes: dropping the future ends the stream.
    ///
    /// # Errors
    /// There is no connection, or it ended before the answer's head came.
    pub async fn request(&self, mut request: Request<Body>) -> Result<Response<Incoming>, LinkError> {
        let sender = self.sender.read().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sender = sender.ok_or(LinkError::Down)?;
        sender.ready().await.map_err(|_| LinkError::Down)?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let scheme = if self.leader.tls { "https" } else { "http" };
        if let Ok(uri) = Uri::builder().scheme(scheme).authority(&*self.leader.address).path_and_query(path).build() {
            *request.uri_mut() = uri;
        }
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        sender.send_request(request).await.map_err(LinkError::Cut)
    }

    /// Begins a stream at this path: what is written goes to the leader for as long as the writer lives.
    ///
    /// # Errors
    /// There is no connection, or it ended before the leader said whether it takes part.
    pub async fn stream(&self, path: &'static str) -> Result<(mpsc::Sender<Bytes>, Answered), LinkError> {
        let (write, body) = pieces(PIECES_WAITING);
        let response = self.request(post(path, body.boxed_unsync())).await?;
        if response.status() == StatusCode::OK {
            return Ok((write, Answered::Stream(Arriving::new(response.into_body()))));
        }
        let (status, bytes) = told(response).await;
        let text = String::from_utf8_lossy(&bytes).trim().replace(char::is_control, " ");
        let why = if text.is_empty() { format!("it answers with status {status}") } else { text };
        Ok((write, Answered::Refused(why)))
    }

    /// Sends a message to this path, which has come through so many nodes, from the one with this id; gives the status of the answer,
    /// and its bytes as far as they are few.
    ///
    /// # Errors
    /// There is no connection, or it ended before the answer came.
    pub async fn post(
        &self,
        path: &'static str,
        message: Bytes,
        (hops, from): (u8, Option<NodeId>),
    ) -> Result<(u16, Bytes), LinkError> {
        let mut request = post(path, whole(message));
        let headers = request.headers_mut();
        headers.insert(super::forward::HOPS, HeaderValue::from(u16::from(hops)));
        let from = from.and_then(|id| HeaderValue::try_from(super::forward::hex(&id)).ok());
        headers.extend(from.map(|from| (NODE, from)));
        Ok(told(self.request(request).await?).await)
    }

    /// Connects for one question, a message without a body to this path. The status of the answer, the other node's clock where it tells
    /// it, unix ms, and its bytes as far as they are few.
    ///
    /// # Errors
    /// A sentence for the operator: it cannot be reached, or did not answer in time.
    pub async fn ask_once(&self, path: &'static str) -> Result<(u16, Option<u64>, Bytes), String> {
        let asking = async {
            let connection = self.connect().await.map_err(|error| error_chain(&error))?;
            let mut answered = pin!(async {
                let response =
                    self.request(post(path, whole(Bytes::new()))).await.map_err(|error| error_chain(&error))?;
                let clock = super::forward::number(response.headers(), &CLOCK);
                let (status, bytes) = told(response).await;
                Ok((status, clock, bytes))
            });
            tokio::select! {
                biased;
                answered = answered.as_mut() => answered,
                // What came before its end is still to be read.
                _ = connection => answered.await,
            }
        };
        timeout(CONNECT_TIME_MAX, asking).await.unwrap_or_else(|_| Err("it does not answer".to_owned()))
    }

    /// Keeps the connection up for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut pause = PAUSE_MIN;
        let mut failing = false;
        loop {
            let why = match timeout(CONNECT_TIME_MAX, self.connect()).await {
                Ok(Ok(connection)) => {
                    tracing::info!(leader = %self.leader, "connected to the leader");
                    (pause, failing) = (PAUSE_MIN, false);
                    let ended = connection.await;
                    self.up.send_replace(false);
                    *self.sender.write().unwrap_or_else(PoisonError::into_inner) = None;
                    ended.map_or_else(|error| error_chain(&error), |()| "the leader closed it".to_owned())
                }
                Ok(Err(error)) => error_chain(&error),
                Err(_) => "it does not answer".to_owned(),
            };
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(leader = %self.leader, why, "there is no connection to the leader; it is tried again and again");
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Makes a connection, and gives the future that is its life.
    async fn connect(&self) -> io::Result<impl Future<Output = Result<(), hyper::Error>>> {
        let stream = TcpStream::connect(&*self.leader.address).await?;
        stream.set_nodelay(true)?;
        let io: Box<dyn Transport> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(stream).await?),
        };
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .keep_alive_interval(self.silence / 2)
            .keep_alive_timeout(self.silence)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await
            .map_err(io::Error::other)?;
        *self.sender.write().unwrap_or_else(PoisonError::into_inner) = Some(sender);
        self.up.send_replace(true);
        Ok(connection)
    }
}

/// What the leader answers to a stream.
pub enum Answered {
    /// It takes part; this is its side.
    Stream(Arriving),
    /// It does not, and says why.
    Refused(String),
}

fn post(path: &'static str, body: Body) -> Request<Body> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(path);
    request
}

/// A short answer: its status and its bytes, none where they are many.
async fn told(response: Response<Incoming>) -> (u16, Bytes) {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), TEXT_BYTES_MAX).collect().await;
    (status, body.map(|body| body.to_bytes()).unwrap_or_default())
}

/// A connection, encrypted or not.
trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}
