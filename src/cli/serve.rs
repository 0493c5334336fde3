//! `keyward serve`: how the server's process begins and ends.
//!
//! Beginning: settings are read and refused as a whole, logging, the port, storage, the operator's socket, ready. The port
//! comes before storage so that a taken one leaves no half-made data directory; who connects early waits. The end, on
//! SIGTERM or SIGINT: not ready, no new connections, running requests finished within their deadline, the operator's
//! socket, storage. A second signal ends the process at once, which storage survives. In between, SIGHUP reads files again.
//! The service manager is told of all of it.

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward_storage::OpenError;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::setting_flags::SettingFlags;
use super::{EXIT_ERROR, EXIT_USAGE, Flags, PepperFileArguments, SecretsArguments, SettingsArguments, fail, operator};
use crate::allocator;
use crate::api;
use crate::app::{Services, ServicesError, close_new_dir};
use crate::audit::Keeper;
use crate::config::{ConfigError, Reading, Settings};
use crate::http::Api;
use crate::http::admin::AdminSocket;
use crate::http::listen::{Drained, Server};
use crate::http::observe;
use crate::http::peers::{self, PeerListener};
use crate::http::service_routes::Documents;
use crate::http::sockets::{self, Listeners};
use crate::otlp::Otlp;
use crate::outside::Outside;
use crate::reload::{self, Reloader};
use crate::replication::lease::{self, Lease};
use crate::replication::{self, census, follow};
use crate::service_manager;
use crate::telemetry::{self, Level, error_chain};
use crate::tls::Tls;

/// File descriptors that are not connections: storage, sockets, logs.
pub(super) const OTHER_FILES: u64 = 256;
/// Threads that read from disk what is not in memory. A read is short; more threads would only take memory of their own.
const READERS: usize = 8;
/// How long commands of the operator that still run are waited for at the end.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(5);
/// How long a server that begins anew waits for its data directory, and between two tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How long the runtime's own threads may take to end when nothing runs on them any more.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(1);

/// What `keyward serve --help` says after the flags.
const AFTER_HELP: &str = "The first start on an empty directory makes a workspace and its root key. The key is taken from \
    KEYWARD_ROOT_KEY where that is set (at least 20 characters), else generated, and written to root.key in the data \
    directory, readable by its owner alone.";

/// Flags of `keyward serve`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct ServeArguments {
    #[command(flatten)]
    flags: ServeFlags,
}

/// What the server's settings are typed as.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeFlags {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Where to answer HTTP: HOST:PORT or unix:/PATH, several with commas or by repeating it [default: 127.0.0.1:7070] [env: KEYWARD_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,
    /// Let the request header X-Test-Time set a request's clock; for tests only [env: KEYWARD_TEST_MODE]
    #[arg(long)]
    test_mode: bool,
    #[command(flatten)]
    secrets: SecretsArguments,
    #[command(flatten)]
    pepper: PepperFileArguments,
    #[command(flatten)]
    more: SettingFlags,
}

impl ServeFlags {
    /// Reads the settings: these flags, this process's environment, the settings file.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn read(&self) -> Result<Reading, ConfigError> {
        let ServeFlags { settings, listen, test_mode, secrets, pepper, more } = self.clone();
        settings.read_with(Flags { listen, test_mode, secrets, pepper, settings: more })
    }
}

/// Runs the server until it is asked to stop.
#[expect(clippy::disallowed_methods, reason = "a convention of terminals, not a setting of keyward's")]
pub fn run(arguments: ServeArguments) -> ExitCode {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ServeArguments { flags } = arguments;
    let Reading { settings, warnings, .. } = match flags.read() {
        Ok(reading) => reading,
        Err(ConfigError(reasons)) => return fail(EXIT_USAGE, reasons),
    };
    let level = telemetry::start(&settings.log, no_colour);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let mut patience = Duration::ZERO;
    loop {
        let flags = flags.clone();
        match serve(&settings, level.clone(), Box::new(move || flags.read()), patience) {
            Ok(Over::Stopped) => return ExitCode::SUCCESS,
            Ok(Over::Again) => {
                tracing::info!("keyward begins anew");
                patience = LOCK_PATIENCE;
            }
            Err(reason) => {
                tracing::error!("{reason}");
                return ExitCode::from(EXIT_ERROR);
            }
        }
    }
}

/// How a server ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It was asked to.
    Stopped,
    /// Other records wait for it: it is to be begun again.
    Again,
}

/// Begins, serves, ends. `Err` is a sentence for the operator.
/// `patience` is how long another process, a command that looked at the directory between two servers, may keep it locked.
fn serve(settings: &Settings, level: Level, read: reload::Read, patience: Duration) -> Result<Over, String> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %settings.data_dir.display(),
        listen = together(settings.listen.iter().map(ToString::to_string)),
        "keyward is starting"
    );
    if settings.test_mode {
        tracing::warn!(
            "test mode is on: any client can set the time of its requests with X-Test-Time; never use it in production"
        );
    }
    if !settings.runtime.core_dumps {
        refuse_core_dumps();
    }
    allow_open_files(settings.http.max_connections as u64 + OTHER_FILES);
    let outside = Outside::system();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if settings.runtime.worker_threads > 0 {
        runtime.worker_threads(settings.runtime.worker_threads);
    }
    let runtime = runtime
        .enable_all()
        .max_blocking_threads(READERS)
        .thread_name("keyward-http")
        .build()
        .map_err(|error| format!("cannot start the threads that answer requests: {error}"))?;

    let entered = runtime.enter();
    let tls = match settings.tls.is_on() {
        true => Some(Tls::open(&settings.tls, outside.clock.clone()).map_err(|error| error_chain(&error))?),
        false => None,
    };
    let listeners = runtime.block_on(sockets::open(settings, tls.as_ref()))?;
    let scraped =
        settings.metrics.listen.as_deref().map(|address| runtime.block_on(observe::bind(address))).transpose()?;
    let peers = runtime.block_on(peers::bind(settings, outside.clock.clone()))?;
    close_new_dir(&settings.data_dir);
    let (settings, lease) = runtime.block_on(records(settings, &outside))?;
    let settings = &settings;
    let services = open_patiently(settings, &outside, patience).map_err(|error| {
        format!("cannot open the data directory {}: {}", settings.data_dir.display(), error_chain(&error))
    })?;
    runtime.block_on(census::take(&services, settings))?;
    let lease = lease.map(|lease| lease.keep(&services)).transpose();
    let lease = lease.map_err(|error| format!("cannot start the thread that keeps the lease: {error}"))?;
    let otlp = Otlp::start(settings, &services)?;
    let keeper = Keeper::start(&services, settings)
        .map_err(|error| format!("cannot start the threads that keep the audit trail: {error}"));
    let outcome = match keeper {
        Ok(keeper) => {
            let changes = (level, read, tls, lease);
            let traced = otlp.as_ref();
            let sockets = (listeners, scraped, peers);
            let outcome = runtime.block_on(answer_requests(settings, outside, &services, sockets, changes, traced));
            // It still reads and writes the store.
            keeper.stop();
            outcome
        }
        Err(reason) => Err(reason),
    };
    if let Some(otlp) = otlp {
        otlp.stop();
    }
    services.shutdown();
    drop(entered);
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    if outcome.is_ok() {
        tracing::info!("storage is closed; keyward has stopped");
    }
    outcome
}

/// Opens the services; a directory that is locked is tried again and again for as long as `patience` says.
fn open_patiently(settings: &Settings, outside: &Outside, patience: Duration) -> Result<Arc<Services>, ServicesError> {
    let until = Instant::now() + patience;
    loop {
        match Services::open(settings, outside.clone()) {
            Err(ServicesError::Storage(OpenError::Locked(_))) if Instant::now() < until => {
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Looks whose the lease is, where there is one, and takes the leader's records where this node has none. Gives the settings to go on
/// with: the lease may name another leader.
async fn records(settings: &Settings, outside: &Outside) -> Result<(Settings, Option<Lease>), String> {
    loop {
        let (asking, entropy) = (settings.clone(), outside.entropy.clone());
        let begun = tokio::task::spawn_blocking(move || lease::begin(&asking, &entropy)).await;
        let (effective, lease) = begun.map_err(|error| error.to_string())??;
        let Some(lease) = lease else {
            follow::begin(&effective).await?;
            return Ok((effective, None));
        };
        if !follow::waits(&effective)? {
            return Ok((effective, Some(lease)));
        }
        // Where that one is gone meanwhile, the next one's records do as well.
        let follow = effective.replication.follow.clone();
        tokio::select! {
            taken = follow::begin(&effective) => taken?,
            () = lease.moved(follow) => {}
        }
    }
}

/// From bound sockets to drained ones.
async fn answer_requests(
    settings: &Settings,
    outside: Outside,
    services: &Arc<Services>,
    (listeners, scraped, peers): (Listeners, Option<TcpListener>, Option<PeerListener>),
    (level, read, tls, lease): (Level, reload::Read, Option<Arc<Tls>>, Option<lease::Keeper>),
    otlp: Option<&Otlp>,
) -> Result<Over, String> {
    let documents = Documents::new(|| {
        let document = api::openapi::document(api::OPERATIONS);
        [api::openapi::yaml(&document), document.to_string(), api::reference::page(&document)]
    });
    let socket = AdminSocket::bind(&settings.data_dir)?;
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    tracing::info!(
        address = together(listeners.names().map(str::to_owned)),
        handed_over = listeners.are_handed_over(),
        "keyward is ready"
    );

    let (stop, stopped) = watch::channel(false);
    let (stop_operator, operator_stopped) = watch::channel(false);
    let (stop_peers, peers_stopped) = watch::channel(false);
    let commands = tokio::spawn(socket.run(operator::commands(services), told(operator_stopped), OPERATOR_PATIENCE));
    let server = Server::new(Api(Arc::clone(services), otlp.and_then(Otlp::tracer)), settings, outside, documents);
    if let Some(scraped) = scraped {
        if let Ok(address) = scraped.local_addr() {
            tracing::info!(%address, "metrics are served");
        }
        tokio::spawn(observe::run(scraped, Arc::clone(services), told(stopped.clone())));
    }
    if let Some(peers) = peers {
        if let Some(address) = peers.address() {
            tracing::info!(%address, "other nodes are answered");
        }
        let (services, settings, stop) = (Arc::clone(services), settings.clone(), told(peers_stopped));
        tokio::spawn(async move { peers::run(peers, services, &settings, stop).await });
    }
    let replication = &settings.replication;
    tokio::spawn(follow::run(Arc::clone(services), replication.node.clone(), replication.silence));
    let node = Arc::clone(&services.node);
    let (watched, replicated) = (Arc::clone(services), Arc::clone(services));
    let (settings_now, limits, services) = (settings.clone(), server.limits(), Arc::clone(services));
    let otlp = otlp.map(Otlp::changes);
    let reloader = Reloader { read, settings: settings_now, level, limits, services, tls: tls.clone(), otlp };
    let hangup = signal(SignalKind::hangup()).map_err(|error| format!("cannot listen for signals: {error}"))?;
    tokio::spawn(reload_at_hangup(reloader, hangup, told(stopped.clone())));
    let mut server = tokio::spawn(server.run(listeners, told(stopped)));
    // These end with the runtime.
    tokio::spawn(allocator::give_back_freed_memory());
    tokio::spawn(service_manager::feed_watchdog(async move || watched.writer_answers().await));
    if let Some(tls) = &tls {
        tokio::spawn(Arc::clone(tls).watch());
    }
    replication::spawn_serving(&replicated, &settings.replication);
    service_manager::ready();

    let mut over = Over::Stopped;
    tokio::select! {
        () = node.restart_asked() => over = Over::Again,
        name = signals.next() => tracing::info!(
            signal = name,
            deadline_s = settings.http.shutdown_deadline.as_secs_f64(),
            "stopping: finishing running requests; a second signal ends the process at once"
        ),
        ended = &mut server => return Err(format!("the HTTP server ended by itself: {ended:?}")),
    }
    service_manager::stopping();
    tokio::spawn(stop_at_second_signal(signals));
    let _ = stop.send(true);
    // Whoever holds a lease gives it back when followers have all, so they are answered a little longer.
    if lease.is_none() {
        let _ = stop_peers.send(true);
    }
    match server.await {
        Ok(Drained::All) => tracing::info!("all requests are answered"),
        Ok(Drained::Cut) => {
            tracing::warn!("the deadline passed with requests still running; their connections were cut")
        }
        Err(error) => tracing::error!(%error, "the HTTP server ended by a bug"),
    }
    if let Some(lease) = lease {
        let _ = tokio::task::spawn_blocking(move || lease.stop()).await;
        let _ = stop_peers.send(true);
    }
    let _ = stop_operator.send(true);
    let _ = commands.await;
    Ok(over)
}

/// Reads the settings again at each SIGHUP, until the server stops.
async fn reload_at_hangup(mut reloader: Reloader, mut hangup: Signal, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return,
            came = hangup.recv() => if came.is_none() { return },
        }
        service_manager::reloading();
        // The settings file may be on a disk that is slow.
        let reloaded = tokio::task::spawn_blocking(move || {
            reloader.reload();
            reloader
        });
        match reloaded.await {
            Ok(back) => {
                service_manager::ready();
                reloader = back;
            }
            Err(error) => {
                service_manager::ready();
                tracing::error!(%error, "a reload ended by a bug; further ones are ignored until a restart");
                return;
            }
        }
    }
}

/// Ends the process at the next signal, whatever still runs; storage survives that.
#[expect(clippy::disallowed_methods, reason = "the operator asked twice")]
async fn stop_at_second_signal(mut signals: Signals) {
    let name = signals.next().await;
    tracing::warn!(signal = name, "stopping at once");
    std::process::exit(i32::from(EXIT_ERROR));
}

/// Waits until it is told to stop, or nobody is left to tell.
async fn told(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Several as one text.
fn together(names: impl Iterator<Item = String>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Sees to it that no crash writes this process's memory to a file, and that no other process of its user reads it: it holds
/// plaintexts of keys, and what decrypts others. A handler of core files that the kernel pipes to ignores the limit, so the
/// process is marked as well.
fn refuse_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let limited = setrlimit(Resource::Core, none);
    let marked = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if let Err(error) = limited.and(marked) {
        tracing::warn!(%error, "core dumps could not be switched off: a crash may write secrets to a file");
    }
}

/// Raises this process's limit of open files as far as it may itself, and says so where that is not enough.
fn allow_open_files(wanted: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let reachable = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(reachable), maximum: limit.maximum });
    if reachable < wanted || raised.is_err() {
        tracing::warn!(
            wanted,
            limit = if raised.is_ok() { reachable } else { limit.current.unwrap_or(0) },
            "http.max_connections needs more open files than this process may have; raise LimitNOFILE or ulimit -n"
        );
    }
}
