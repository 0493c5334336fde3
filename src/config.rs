//! Settings: what was typed (a file, `KEYWARD_…` variables, flags) and what it means.
//!
//! [`Settings`] is what the parts are built from: complete and checked. `table` describes every setting once - its
//! name, its bounds, its meaning, its field - and reading a file, naming an environment variable, refusing an unknown
//! name and writing `config/keyward.toml` all work from that table, so a setting cannot be known to one of them and
//! unknown to another. `typed` reads what the user typed, `unkey` knows the names of Unkey's own server, `shown` tells what
//! is in force. Precedence: flag, environment, file, default.
//!
//! Nothing here asks the system for anything: the environment and the file's text are handed in.

mod lease;
mod replication;
mod shown;
mod table;
mod typed;
mod unkey;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::server_url::ServerUrl;
pub use lease::{Lease, LeaseStore};
pub use replication::{Ack, CreditsOffline, Leader, Replication, host, is_local};
pub use shown::{Difference, Flag, Shown, flags, page};
pub use table::default_file;
pub use typed::reads_variable;
pub use typed::{
    API_URL_VARIABLE, CONFIG_VARIABLE, ConfigError, MASTER_KEY_VARIABLE, OTLP_HEADERS_VARIABLE, PEPPER_VARIABLE,
    PORTAL_SESSION_VARIABLE, REPLICATION_TOKEN_VARIABLE, ROOT_KEY_VARIABLE, Reading, Typed,
};

/// Complete, checked settings: what the parts of the server are built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where all data lives; relative paths are relative to the working directory.
    pub data_dir: PathBuf,
    /// Where to answer HTTP.
    pub listen: Vec<Listen>,
    /// Whether `X-Test-Time` is honoured (EXT-1, COM-SYS-05).
    pub test_mode: bool,
    /// Label recorded with events as the place they happened at.
    pub region: String,
    /// The first workspace's root key, where the operator chose one. Never read from a file, never printed.
    pub first_root_key: Option<Secret>,
    /// Where secrets come from that are never in the data directory.
    pub secrets: SecretSources,
    /// Operational logs.
    pub log: Log,
    /// The HTTP server.
    pub http: Http,
    /// TLS in front of it.
    pub tls: Tls,
    /// Threads.
    pub runtime: Runtime,
    /// Storage.
    pub storage: Storage,
    /// Queries over recorded events.
    pub analytics: Analytics,
    /// The audit trail.
    pub audit: Audit,
    /// How callers prove who they are.
    pub auth: Auth,
    /// Who may read metrics.
    pub metrics: Metrics,
    /// Other nodes with the same records.
    pub replication: Replication,
    /// What is handed to a collector of OpenTelemetry.
    pub telemetry: Telemetry,
}

/// Where the operator keeps secrets that the data directory must not hold (EXT-6). Of each the first place that has one
/// counts: the systemd credential, the file, the environment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SecretSources {
    /// The directory that systemd puts this service's credentials in.
    pub credentials_dir: Option<PathBuf>,
    /// The file of the master key.
    pub master_key_file: Option<PathBuf>,
    /// The master key, from the environment. Never read from the settings file, never printed.
    pub master_key: Option<Secret>,
    /// The file of the pepper.
    pub pepper_file: Option<PathBuf>,
    /// The pepper, from the environment. Never read from the settings file, never printed.
    pub pepper: Option<Secret>,
    /// The file of the token that nodes know each other by.
    pub replication_token_file: Option<PathBuf>,
    /// That token, from the environment. Never read from the settings file, never printed.
    pub replication_token: Option<Secret>,
    /// The file of headers that go to the collector of telemetry.
    pub otlp_headers_file: Option<PathBuf>,
    /// These headers, from the environment. Never read from the settings file, never printed.
    pub otlp_headers: Option<Secret>,
}

/// A place to answer HTTP at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A TCP socket.
    Tcp {
        /// `HOST:PORT`
        address: String,
        /// What its connections begin with.
        transport: Transport,
    },
    /// A Unix socket at this path.
    Unix(PathBuf),
}

/// What connections of a TCP socket begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TLS where it is set up.
    Default,
    /// HTTP.
    Plain,
    /// TLS.
    Tls,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp { address, transport: Transport::Default } => f.write_str(address),
            Listen::Tcp { address, transport: Transport::Plain } => write!(f, "http://{address}"),
            Listen::Tcp { address, transport: Transport::Tls } => write!(f, "https://{address}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// TLS in front of HTTP.
#[derive(Debug, Clone, PartialEq)]
pub struct Tls {
    /// The server's certificate and those of authorities in between, PEM; empty where there is no TLS.
    pub cert_file: PathBuf,
    /// The private key of the first, PEM.
    pub key_file: PathBuf,
    /// Authorities that clients' certificates must come from, PEM; `None` where clients need none.
    pub client_ca_file: Option<PathBuf>,
    /// From a connection to the end of its handshake.
    pub handshake_timeout: Duration,
    /// Handshakes that go on at one time.
    pub max_handshakes: usize,
}

impl Tls {
    /// Whether it is set up.
    pub fn is_on(&self) -> bool {
        !self.cert_file.as_os_str().is_empty()
    }
}

impl Default for Tls {
    fn default() -> Tls {
        Tls {
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
            client_ca_file: None,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 256,
        }
    }
}

/// Operational logs, written to standard error.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The least important lines that are still written.
    pub level: LogLevel,
    /// How a line is written.
    pub format: LogFormat,
    /// Which requests have a line.
    pub requests: LogRequests,
}

/// Which requests have a line in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRequests {
    /// Those that were refused or failed.
    Failed,
    /// Every one that names an operation, too.
    All,
}

/// Importance of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what needs an operator.
    Error,
    /// Also what may need one soon.
    Warn,
    /// Also what happened, in few lines.
    Info,
    /// Also what each part decides.
    Debug,
    /// Everything.
    Trace,
}

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people; coloured where standard error is a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

/// Limits of the HTTP server.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// Connections open at the same time.
    pub max_connections: usize,
    /// Bytes of one request's body.
    pub max_body_bytes: usize,
    /// From the end of a request's head to its reply.
    pub request_deadline: Duration,
    /// From the first byte of a request to the end of its head.
    pub header_read_timeout: Duration,
    /// How long a connection may stay open without a request.
    pub idle_timeout: Duration,
    /// How long a client may take for the next 64 KiB of a reply.
    pub reply_stall_timeout: Duration,
    /// How long running requests may take to finish once the server was asked to stop.
    pub shutdown_deadline: Duration,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Rights of Unix sockets that are listened on.
    pub unix_socket_mode: u32,
}

/// Threads of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Threads that answer requests; 0 means one for each processor.
    pub worker_threads: usize,
    /// Whether a crash may write this process's memory, secrets included, to a file.
    pub core_dumps: bool,
}

/// Storage: memory, checkpoints, credits.
#[derive(Debug, Clone, PartialEq)]
pub struct Storage {
    /// Keys held in memory.
    pub hot_keys_max: u64,
    /// Subjects with a live rate-limit window.
    pub rate_subjects_max: u64,
    /// Longest time between two checkpoints while there are changes.
    pub checkpoint_interval: Duration,
    /// Bytes of log after which a checkpoint is made.
    pub checkpoint_bytes: u64,
    /// Page cache of redb.
    pub redb_cache_bytes: u64,
    /// When spent credits reach the disk.
    pub credits_journal: CreditsJournal,
    /// Pause between two journal entries of spent credits (`relaxed` only).
    pub credits_journal_interval: Duration,
    /// Free space on the disk below which changes are refused.
    pub min_free_bytes: u64,
}

/// Queries over recorded events.
#[derive(Debug, Clone, PartialEq)]
pub struct Analytics {
    /// Whether they are answered at all.
    pub enabled: bool,
    /// Seconds of peak load that may wait to be recorded.
    pub queue_seconds: usize,
    /// Threads that compute them; 0 means one fewer than processors, at least one.
    pub query_threads: usize,
    /// Queries that run at one time.
    pub concurrent_queries: usize,
    /// Queries that may wait for their turn.
    pub waiting_queries: usize,
    /// Memory of all running queries together.
    pub memory_bytes: usize,
}

/// The audit trail: where its events are handed to as they happen.
#[derive(Debug, Clone, PartialEq)]
pub struct Audit {
    /// A file that they are appended to, JSON lines.
    pub export_file: Option<PathBuf>,
    /// Where syslog takes them.
    pub export_syslog: Option<SyslogAddress>,
}

/// Where a syslog daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A datagram socket of this machine, such as `/dev/log`.
    Local(PathBuf),
    /// `HOST:PORT`, a datagram each.
    Udp(String),
    /// `HOST:PORT`, a stream.
    Tcp(String),
}

impl fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyslogAddress::Local(path) => write!(f, "{}", path.display()),
            SyslogAddress::Udp(host) => write!(f, "udp://{host}"),
            SyslogAddress::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

/// How callers prove who they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// Longest that the answer to an unknown root key is held back.
    pub guess_delay_max: Duration,
}

/// Who may read metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Metrics {
    /// `HOST:PORT` for metrics alone, where there is one.
    pub listen: Option<String>,
    /// Who may read them on the addresses of requests.
    pub allow: Vec<IpNet>,
}

/// What is handed to a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// Where it is; `None` where nothing is handed over.
    pub otlp_endpoint: Option<ServerUrl>,
    /// What of it.
    pub signals: Signals,
    /// Part of the requests that are traced although their callers do not ask for it.
    pub sampling_ratio: f64,
    /// Between two exports of metrics.
    pub metrics_interval: Duration,
    /// Traced requests that may wait to be exported.
    pub queue_spans: usize,
}

/// What is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// Traces and metrics.
    All,
    /// Traces alone.
    Traces,
    /// Metrics alone.
    Metrics,
}

impl Signals {
    /// As the settings have it.
    pub fn word(self) -> &'static str {
        match self {
            Signals::All => "all",
            Signals::Traces => "traces",
            Signals::Metrics => "metrics",
        }
    }
}

/// When spent credits reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditsJournal {
    /// Every few milliseconds: a crash can give back what was spent since.
    Relaxed,
    /// Before the verification is answered.
    Strict,
}

/// Text that must not be printed, and is wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, serde::Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself, for whoever uses, sends or stores it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Secret::new(text))
    }
}

const MIB: u64 = 1024 * 1024;
const GIB: usize = 1024 * 1024 * 1024;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data_dir: PathBuf::from("./keyward-data"),
            listen: vec![Listen::Tcp { address: "127.0.0.1:7070".to_owned(), transport: Transport::Default }],
            test_mode: false,
            region: "local".to_owned(),
            first_root_key: None,
            secrets: SecretSources::default(),
            log: Log { level: LogLevel::Info, format: LogFormat::Text, requests: LogRequests::Failed },
            http: Http {
                max_connections: 10_000,
                max_body_bytes: 10 * 1024 * 1024,
                request_deadline: Duration::from_secs(20),
                header_read_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                reply_stall_timeout: Duration::from_secs(30),
                shutdown_deadline: Duration::from_secs(25),
                trusted_proxies: networks(PRIVATE_NETWORKS),
                unix_socket_mode: 0o660,
            },
            tls: Tls::default(),
            runtime: Runtime { worker_threads: 0, core_dumps: false },
            storage: Storage {
                hot_keys_max: 1_000_000,
                rate_subjects_max: 2_000_000,
                checkpoint_interval: Duration::from_secs(60),
                checkpoint_bytes: 64 * MIB,
                redb_cache_bytes: 16 * MIB,
                credits_journal: CreditsJournal::Relaxed,
                credits_journal_interval: Duration::from_millis(5),
                min_free_bytes: 64 * MIB,
            },
            analytics: Analytics {
                enabled: true,
                queue_seconds: 2,
                query_threads: 0,
                concurrent_queries: 4,
                waiting_queries: 64,
                memory_bytes: 2 * GIB,
            },
            audit: Audit { export_file: None, export_syslog: None },
            auth: Auth { guess_delay_max: Duration::from_secs(4) },
            metrics: Metrics { listen: None, allow: networks(LOOPBACK) },
            replication: Replication::default(),
            telemetry: Telemetry {
                otlp_endpoint: None,
                signals: Signals::All,
                sampling_ratio: 0.01,
                metrics_interval: Duration::from_secs(60),
                queue_spans: 8192,
            },
        }
    }
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().expect("the default networks are well-formed")).collect()
}

/// This machine.
const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1/128"];

/// Loopback and private networks: where a reverse proxy of one's own stands (COM-HDR-02).
const PRIVATE_NETWORKS: &[&str] =
    &["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7", "fe80::/10"];
