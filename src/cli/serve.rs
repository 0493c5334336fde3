//! `keyward serve`: how the server's process begins and ends.
//!
//! Beginning: settings are read and refused as a whole, logging, storage, the port, the operator's socket, ready. The end,
//! on SIGTERM or SIGINT, is the same backwards: not ready, no new connections, running requests finished within their
//! deadline, the operator's socket, storage. A second signal ends the process at once, which storage survives.

use std::error::Error;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::{EXIT_ERROR, EXIT_USAGE, fail};
use crate::app::Services;
use crate::config::{CONFIG_VARIABLE, ConfigError, Reading, Settings, Typed};
use crate::http::admin::AdminSocket;
use crate::http::listen::{Drained, Server, bind};
use crate::http::service_routes::Documents;
use crate::http::Api;
use crate::outside::Outside;
use crate::{api, telemetry};

/// File descriptors that are not connections: storage, sockets, logs.
const OTHER_FILES: u64 = 256;
/// How long commands of the operator that still run are waited for at the end.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(5);
/// How long the runtime's own threads may take to end when nothing runs on them any more.
const RUNTIME_PATIENCE: Duration = Duration::from_secs(1);

/// Flags of `keyward serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArguments {
    /// Settings file; config/keyward.toml lists all settings [env: KEYWARD_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where all data lives, made at the first start [default: ./keyward-data] [env: KEYWARD_DATA_DIR]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<OsString>,
    /// Where to answer HTTP [default: 127.0.0.1:7070] [env: KEYWARD_LISTEN]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Let the request header X-Test-Time set a request's clock; for tests only [env: KEYWARD_TEST_MODE]
    #[arg(long)]
    test_mode: bool,
}

/// Runs the server until it is asked to stop.
pub fn run(arguments: ServeArguments) -> ExitCode {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let Reading { settings, warnings } = match read_settings(arguments) {
        Ok(reading) => reading,
        Err(ConfigError(reasons)) => return fail(EXIT_USAGE, reasons),
    };
    telemetry::start(&settings.log, no_colour);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    match serve(&settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

/// Puts together what was typed: flags, this process's environment, the settings file.
fn read_settings(arguments: ServeArguments) -> Result<Reading, ConfigError> {
    let utf8 = |what: &str, text: OsString| {
        text.into_string().map_err(|_| ConfigError(vec![format!("{what} is not UTF-8; use a name that is")]))
    };
    let mut environment = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        if name.starts_with("KEYWARD_") {
            let value = utf8(&format!("the environment variable {name}"), value)?;
            environment.push((name, value));
        }
    }
    let from_environment = || environment.iter().find(|(name, _)| name == CONFIG_VARIABLE).map(|(_, value)| value.into());
    let file = match arguments.config.or_else(from_environment) {
        Some(path) => Some(read_file(&path)?),
        None => None,
    };
    let data_dir = arguments.data_dir.map(|dir| utf8("the flag --data-dir", dir)).transpose()?;
    Typed { file, environment, data_dir, listen: arguments.listen, test_mode: arguments.test_mode }.read()
}

fn read_file(path: &Path) -> Result<(String, String), ConfigError> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(ConfigError(vec![format!("cannot read the settings file {name}: {error}")])),
    }
}

/// Begins, serves, ends. `Err` is a sentence for the operator.
fn serve(settings: &Settings) -> Result<(), String> {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %settings.data_dir.display(),
        listen = settings.listen,
        "keyward is starting"
    );
    if settings.test_mode {
        tracing::warn!("test mode is on: any client can set the time of its requests with X-Test-Time; never use it in production");
    }
    allow_open_files(settings.http.max_connections as u64 + OTHER_FILES);
    let outside = Outside::system();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if settings.runtime.worker_threads > 0 {
        runtime.worker_threads(settings.runtime.worker_threads);
    }
    let runtime = runtime
        .enable_all()
        .thread_name("keyward-http")
        .build()
        .map_err(|error| format!("cannot start the threads that answer requests: {error}"))?;

    let _entered = runtime.enter();
    let services = Services::open(settings, outside.clone())
        .map_err(|error| format!("cannot open the data directory {}: {}", settings.data_dir.display(), chain(&error)))?;
    let outcome = runtime.block_on(answer_requests(settings, outside, &services));
    tracing::info!("closing storage");
    services.shutdown();
    drop(_entered);
    runtime.shutdown_timeout(RUNTIME_PATIENCE);
    if outcome.is_ok() {
        tracing::info!("keyward has stopped");
    }
    outcome
}

/// From bound sockets to drained ones.
async fn answer_requests(settings: &Settings, outside: Outside, services: &Arc<Services>) -> Result<(), String> {
    let documents = Documents::new(api::openapi::yaml(), api::openapi::json(), api::openapi::reference());
    let listener = bind(&settings.listen).await?;
    let socket = AdminSocket::bind(&settings.data_dir)?;
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "keyward is ready");
    }

    let (stop, stopped) = watch::channel(false);
    let (stop_operator, operator_stopped) = watch::channel(false);
    let operator = tokio::spawn(socket.run(services.operator_commands(), told(operator_stopped), OPERATOR_PATIENCE));
    let server = Server::new(Api(Arc::clone(services)), settings, outside, documents);
    let mut server = tokio::spawn(server.run(listener, told(stopped)));

    tokio::select! {
        name = signals.next() => tracing::info!(
            signal = name,
            deadline_ms = settings.http.shutdown_deadline.as_millis(),
            "stopping: finishing running requests; a second signal ends the process at once"
        ),
        ended = &mut server => return Err(format!("the HTTP server ended by itself: {ended:?}")),
    }
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::warn!(signal = name, "stopping at once");
        std::process::exit(i32::from(EXIT_ERROR));
    });
    let _ = stop.send(true);
    match server.await {
        Ok(Drained::All) => tracing::info!("all requests are answered"),
        Ok(Drained::Cut) => tracing::warn!("the deadline passed with requests still running; their connections were cut"),
        Err(error) => tracing::error!(%error, "the HTTP server ended by a bug"),
    }
    let _ = stop_operator.send(true);
    let _ = operator.await;
    Ok(())
}

/// Waits until it is told to stop, or nobody is left to tell.
async fn told(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
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
            "this process may open fewer files than http.max_connections needs; raise LimitNOFILE (systemd) or ulimit -n"
        );
    }
}

/// An error with what caused it, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
