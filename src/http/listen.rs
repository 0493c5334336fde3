//! Connections: accepted within limits, watched while they are open, drained at the end.
//!
//! HTTP/1.1 with keep-alive, and HTTP/2 for clients that begin with its preface, with TLS in front or without.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::bell::Bell;
use super::client_ip::TrustedProxies;
use super::limits::Limits;
use super::reply_body::Replies;
use super::service_routes::{Documents, Stage};
use super::sockets::{Listener, Listeners, Stream};
use super::{Application, exchange};
use crate::config::Settings;
use crate::outside::Outside;
use crate::telemetry::error_chain;
use crate::tls::Tls;

/// Bytes of a request's head, and of what is read ahead of the operations.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Requests one HTTP/2 connection may have running.
pub(super) const STREAMS_MAX: u32 = 32;
/// Bytes a peer may send on a connection, and on one of its streams, before they are read: they are memory of ours.
const HTTP2_CONNECTION_WINDOW: u32 = 256 * 1024;
const HTTP2_STREAM_WINDOW: u32 = 64 * 1024;
/// Pause between two questions whether an HTTP/2 peer is still there, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after the system refused to hand out a connection (no file descriptors, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long an idle connection that was asked to close may take for it, and connections cut at the end to notice.
const CLOSING_TIME: Duration = Duration::from_secs(1);
/// How long a connection without a request is kept when the server stops, for one that is on its way.
const FAREWELL_TIME: Duration = Duration::from_millis(500);

/// What all connections share.
pub(super) struct Site<A> {
    pub(super) application: A,
    pub(super) outside: Outside,
    pub(super) limits: Arc<Limits>,
    max_connections: usize,
    pub(super) test_mode: bool,
    /// Who may read metrics here.
    pub(super) metrics_for: Vec<IpNet>,
    pub(super) trusted_proxies: TrustedProxies,
    pub(super) documents: Documents,
    pub(super) large_bodies: Arc<Semaphore>,
    pub(super) refusals: exchange::Refusals,
    stage: AtomicU8,
    /// Zero of [`Activity`]'s clock.
    opened: Instant,
}

impl<A> Site<A> {
    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Starting,
            1 => Stage::Ready,
            _ => Stage::Draining,
        }
    }

    fn enter(&self, stage: Stage) {
        let number = match stage {
            Stage::Starting => 0,
            Stage::Ready => 1,
            Stage::Draining => 2,
        };
        self.stage.store(number, Ordering::Release);
    }
}

/// An open connection, as its requests see it.
pub(super) struct Connection<A> {
    pub(super) site: Arc<Site<A>>,
    pub(super) peer: IpAddr,
    pub(super) activity: Arc<Activity>,
    pub(super) place: Arc<Place>,
}

/// One of the places for connections; free again when the last holder drops it. While any is held, the server has not
/// finished draining.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _alive: mpsc::Sender<Infallible>,
    /// Operations of this connection that go on although nobody waits for their answer any more.
    pub(super) abandoned: AtomicU32,
}

/// What connections are told to do, ever more urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Serve,
    /// Finish what runs, take nothing new.
    Finish,
    /// Close now.
    Cut,
}

/// How a server's end went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Every request got its answer.
    All,
    /// The deadline passed with requests still running; their connections were cut.
    Cut,
}

/// An HTTP server, ready to run.
pub struct Server<A> {
    site: Arc<Site<A>>,
    builder: auto::Builder<TokioExecutor>,
}

impl<A: Application> Server<A> {
    /// Builds a server on these operations; nothing is opened yet.
    pub fn new(application: A, settings: &Settings, outside: Outside, documents: Documents) -> Server<A> {
        let limits = &settings.http;
        let large_bodies = Arc::new(exchange::room_for_large_bodies(limits.max_body_bytes));
        application.metrics().http.watch_bodies(&large_bodies);
        let site = Site {
            application,
            outside,
            test_mode: settings.test_mode,
            trusted_proxies: TrustedProxies::new(limits.trusted_proxies.clone()),
            documents,
            large_bodies,
            max_connections: limits.max_connections,
            metrics_for: settings.metrics.allow.clone(),
            limits: Arc::new(Limits::new(settings)),
            refusals: exchange::Refusals::default(),
            stage: AtomicU8::new(0),
            opened: Instant::now(),
        };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .keep_alive(true)
            // More than 100 header fields are refused by hyper itself. To name that limit would have it fill two tables of as
            // many entries for every request, which it otherwise leaves as they are.
            .max_buf_size(HEAD_BYTES_MAX)
            // hyper's own limit also runs while a connection is idle; `Activity` tells the two apart.
            .header_read_timeout(None);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
            .initial_stream_window_size(HTTP2_STREAM_WINDOW)
            .max_header_list_size(HEAD_BYTES_MAX as u32)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        Server { site: Arc::new(site), builder }
    }

    /// Its limits, which may change while it runs.
    pub fn limits(&self) -> Arc<Limits> {
        Arc::clone(&self.site.limits)
    }

    /// Serves until `stop` is ready, then finishes what runs within `http.shutdown_deadline_ms`. All sockets share the places
    /// for connections, the deadlines and the end.
    pub async fn run(self, listeners: Listeners, stop: impl Future<Output = ()>) -> Drained {
        let builder = Arc::new(self.builder);
        let (orders, order) = watch::channel(Order::Serve);
        let (alive, mut all_gone) = mpsc::channel::<Infallible>(1);
        let places = Arc::new(Semaphore::new(self.site.max_connections));
        let Listeners { all: listeners, handed_over } = listeners;
        self.site.enter(Stage::Ready);

        let mut turn = 0;
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                // Without a free place nothing is accepted: further clients wait in the system's queue.
                let permit = Arc::clone(&places).acquire_owned().await.expect("the places are never closed");
                (poll_fn(|cx| accept_any(&listeners, &mut turn, cx)).await, permit)
            };
            let ((listener, accepted), permit) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let place =
                        Arc::new(Place { _permit: permit, _alive: alive.clone(), abandoned: AtomicU32::new(0) });
                    let admitted = Admitted {
                        stream,
                        peer,
                        site: Arc::clone(&self.site),
                        place,
                        builder: Arc::clone(&builder),
                        order: order.clone(),
                        handed_over,
                    };
                    match listener.tls() {
                        None => tokio::spawn(serve(admitted)),
                        Some(tls) => tokio::spawn(serve_encrypted(Arc::clone(tls), admitted)),
                    };
                }
                // The client of this one is gone already; the next is fine.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(error = %error, %listener, "cannot accept a connection; if this goes on, raise the limit of open files");
                    tokio::select! {
                        () = &mut stop => break,
                        () = sleep(ACCEPT_PAUSE) => {}
                    }
                }
            }
        }

        self.site.enter(Stage::Draining);
        drop(listeners);
        drop(alive);
        orders.send_replace(Order::Finish);
        if timeout(self.site.limits.shutdown_deadline(), all_gone.recv()).await.is_ok() {
            return Drained::All;
        }
        orders.send_replace(Order::Cut);
        let _ = timeout(CLOSING_TIME, all_gone.recv()).await;
        Drained::Cut
    }
}

/// The next connection of any of the sockets. They are looked at in turn, from the one after the last that had one, so that a
/// busy one does not keep the others waiting.
fn accept_any<'l>(
    listeners: &'l [Listener],
    turn: &mut usize,
    cx: &mut Context<'_>,
) -> Poll<(&'l Listener, io::Result<(Stream, IpAddr)>)> {
    for step in 0..listeners.len() {
        let at = (*turn + step) % listeners.len();
        if let Poll::Ready(accepted) = listeners[at].poll_accept(cx) {
            *turn = at + 1;
            return Poll::Ready((&listeners[at], accepted));
        }
    }
    Poll::Pending
}

/// A connection that has a place, and what it is served with.
struct Admitted<A> {
    stream: Stream,
    peer: IpAddr,
    site: Arc<Site<A>>,
    place: Arc<Place>,
    builder: Arc<auto::Builder<TokioExecutor>>,
    order: watch::Receiver<Order>,
    /// Whether its socket lives on when this server ends.
    handed_over: bool,
}

/// Serves one connection to its end, after its handshake. When the server stops meanwhile, a handshake still has a moment: its
/// client has been accepted.
async fn serve_encrypted<A: Application>(tls: Arc<Tls>, admitted: Admitted<A>) {
    let Admitted { stream, peer, order, .. } = admitted;
    let Stream::Tcp(stream) = stream else {
        unreachable!("only TCP sockets have TLS in front");
    };
    let late = async {
        ordered(order.clone(), Order::Finish).await;
        sleep(CLOSING_TIME).await;
    };
    let stream = tokio::select! {
        biased;
        stream = tls.accept(stream, peer) => stream,
        () = late => None,
    };
    if let Some(stream) = stream {
        serve(Admitted { stream: Stream::Tls(Box::new(stream)), order, ..admitted }).await;
    }
}

/// Serves one connection to its end.
async fn serve<A: Application>(admitted: Admitted<A>) {
    let Admitted { stream, peer, site, place, builder, order, handed_over } = admitted;
    let activity = Arc::new(Activity::new(site.opened));
    let _counted = Counted::new(&site);
    let connection = Arc::new(Connection { site, peer, activity: Arc::clone(&activity), place });
    let limits = &*connection.site.limits;

    let io = TokioIo::new(Watched { stream, activity: Arc::clone(&activity) });
    let service = service_fn(|request| exchange::answer(Arc::clone(&connection), request));
    let mut http = pin!(builder.serve_connection(io, service));
    let mut look = pin!(sleep_until(activity.next_look(limits)));
    let mut asked = pin!(ordered(order.clone(), Order::Finish));
    let mut bell = Bell::new();
    let reason = poll_fn(|cx| {
        if let Poll::Ready(ended) = http.as_mut().poll(cx) {
            if let Err(error) = ended {
                tracing::debug!(error = %error_chain(&*error), "a connection ended early");
            }
            return Poll::Ready(None);
        }
        bell.poll(cx, |cx| {
            if asked.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Some(Close::Asked));
            }
            loop {
                ready!(look.as_mut().poll(cx));
                match activity.overdue(limits) {
                    Some(reason) => return Poll::Ready(Some(reason)),
                    None => look.as_mut().reset(activity.next_look(limits)),
                }
            }
        })
    });
    let Some(reason) = reason.await else { return };

    match reason {
        // What was begun is unfinished on purpose; there is nobody to tell.
        Close::HeadTooSlow => tracing::debug!("a connection was closed: its request's head took too long"),
        Close::ReplyStalled => tracing::debug!("a connection was closed: its client did not read a reply"),
        Close::Idle => {
            http.as_mut().graceful_shutdown();
            let _ = timeout(CLOSING_TIME, http).await;
        }
        Close::Asked => {
            // A client that was accepted a moment ago is about to send its request; to close now would be to refuse it. Where
            // the socket lives on, the same is done for kept connections: their next request is answered, and told to be the
            // last. (HTTP/2 has a message for this, so that its requests are never lost.)
            let awaited = activity.is_untouched() || handed_over && activity.is_idle();
            if awaited && !activity.is_http2() {
                let begun = poll_fn(|cx| match http.as_mut().poll(cx) {
                    Poll::Ready(_) => Poll::Ready(false),
                    Poll::Pending if activity.is_untouched() || activity.is_idle() => Poll::Pending,
                    Poll::Pending => Poll::Ready(true),
                });
                if timeout(FAREWELL_TIME, begun).await == Ok(false) {
                    return;
                }
            }
            http.as_mut().graceful_shutdown();
            let mut look = pin!(sleep_until(activity.next_look(limits)));
            let mut cut = pin!(ordered(order, Order::Cut));
            loop {
                tokio::select! {
                    _ = &mut http => return,
                    () = &mut cut => return,
                    () = &mut look => match activity.overdue(limits) {
                        Some(_) => return,
                        None => look.as_mut().reset(activity.next_look(limits)),
                    },
                }
            }
        }
    }
}

/// A connection among those that are open.
struct Counted<A: Application>(Arc<Site<A>>);

impl<A: Application> Counted<A> {
    fn new(site: &Arc<Site<A>>) -> Counted<A> {
        site.application.metrics().http.connection_opens();
        Counted(Arc::clone(site))
    }
}

impl<A: Application> Drop for Counted<A> {
    fn drop(&mut self) {
        self.0.application.metrics().http.connection_closes();
    }
}

/// Waits for an order at least as urgent as this one. A server that is gone has no use for its connections either.
async fn ordered(mut orders: watch::Receiver<Order>, order: Order) {
    let _ = orders.wait_for(|current| *current >= order).await;
}

/// Why a connection is closed from this side.
enum Close {
    HeadTooSlow,
    ReplyStalled,
    Idle,
    Asked,
}

/// What a connection is doing and since when, in one word, so that one timer that rarely fires stands for two limits:
/// the head of a request must arrive whole in time, and a connection without a request may stay only so long. While
/// requests run, their own deadlines count, and while large replies are sent, that they go on.
pub(super) struct Activity {
    opened: Instant,
    /// The same moment on the clock of [`coarse_millis`].
    opened_millis: u64,
    /// Milliseconds since `opened`, times two, plus one while a head is being read.
    since: AtomicU64,
    running: AtomicU32,
    /// HTTP/2 peers also send bytes that begin no request, such as answers to our pings, so its connections know only
    /// the second limit, counted from the end of the last request.
    http2: AtomicBool,
    /// Nothing has been received yet: only then is the preface one.
    untouched: AtomicBool,
    pub(super) replies: Replies,
}

const READING_HEAD: u64 = 1;

impl Activity {
    /// A new connection owes its first request's head.
    fn new(opened: Instant) -> Activity {
        let activity = Activity {
            opened,
            opened_millis: coarse_millis().saturating_sub(u64::try_from(opened.elapsed().as_millis()).unwrap_or(0)),
            since: AtomicU64::new(0),
            running: AtomicU32::new(0),
            http2: AtomicBool::new(false),
            untouched: AtomicBool::new(true),
            replies: Replies::default(),
        };
        activity.note(READING_HEAD);
        activity
    }

    /// Milliseconds since `opened`, plus one: never 0.
    pub(super) fn moment(&self) -> u64 {
        coarse_millis().saturating_sub(self.opened_millis) + 1
    }

    fn note(&self, reading_head: u64) {
        self.since.store((self.moment() - 1) * 2 + reading_head, Ordering::Relaxed);
    }

    /// A request goes on until its reply is sent: [`request_ends`](Self::request_ends) will be called for it.
    pub(super) fn reply_begins(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn request_ends(&self) {
        if self.running.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.note(0);
        }
    }

    /// A request begins; it ends when the guard is dropped.
    pub(super) fn begin(&self) -> RequestRunning<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        RequestRunning(self)
    }

    fn received(&self, bytes: &[u8]) {
        if self.running.load(Ordering::Relaxed) > 0 || self.http2.load(Ordering::Relaxed) {
            return;
        }
        if self.untouched.swap(false, Ordering::Relaxed) && bytes.starts_with(b"PRI ") {
            // The preface of HTTP/2 (RFC 9113, 3.4), which begins like no method of HTTP/1.
            self.http2.store(true, Ordering::Relaxed);
            self.note(0);
        } else if self.since.load(Ordering::Relaxed) & READING_HEAD == 0 {
            self.note(READING_HEAD);
        }
    }

    /// Whether nothing has been received yet.
    fn is_untouched(&self) -> bool {
        self.untouched.load(Ordering::Relaxed)
    }

    /// Whether no request runs and none has begun to arrive.
    fn is_idle(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0 && self.since.load(Ordering::Relaxed) & READING_HEAD == 0
    }

    fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Relaxed)
    }

    fn deadline(&self, limits: &Limits) -> Option<(Instant, Close)> {
        if let Some(moment) = self.replies.oldest() {
            let since = self.opened + Duration::from_millis(moment);
            return Some((since + limits.reply_stall_timeout(), Close::ReplyStalled));
        }
        if self.running.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let word = self.since.load(Ordering::Relaxed);
        let since = self.opened + Duration::from_millis(word / 2);
        Some(if word & READING_HEAD == 0 {
            (since + limits.idle_timeout(), Close::Idle)
        } else {
            (since + limits.header_read_timeout(), Close::HeadTooSlow)
        })
    }

    fn overdue(&self, limits: &Limits) -> Option<Close> {
        let (deadline, close) = self.deadline(limits)?;
        (deadline <= Instant::now()).then_some(close)
    }

    /// When to look next: at the deadline as it is now, but soon enough not to miss a shorter one that begins
    /// meanwhile by more than half of it.
    fn next_look(&self, limits: &Limits) -> Instant {
        let shortest = limits.header_read_timeout().min(limits.idle_timeout()).min(limits.reply_stall_timeout());
        let soon = Instant::now() + shortest / 2 + Duration::from_millis(1);
        self.deadline(limits).map_or(soon, |(deadline, _)| deadline.min(soon))
    }
}

/// Milliseconds on a clock that never goes back. It may be a tick (some milliseconds) behind, which limits of seconds do
/// not mind, and costs a fraction of an exact one, which every request would pay twice.
fn coarse_millis() -> u64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::MonotonicCoarse;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    let millis = now.tv_sec.saturating_mul(1000).saturating_add(now.tv_nsec / 1_000_000);
    u64::try_from(millis).unwrap_or(0)
}

/// A request that is being answered.
pub(super) struct RequestRunning<'a>(&'a Activity);

impl Drop for RequestRunning<'_> {
    fn drop(&mut self) {
        self.0.request_ends();
    }
}

/// A stream that tells [`Activity`] when bytes arrive.
struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let received = &buffer.filled()[before..];
        if !received.is_empty() {
            self.activity.received(received);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
