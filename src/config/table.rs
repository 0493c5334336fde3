//! Every setting, once: name, bounds, meaning, field; and the file that is made of them.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use ipnet::IpNet;

use super::{CreditsJournal, Listen, LogFormat, LogLevel, LogRequests, Settings, Signals, SyslogAddress, Transport};
use crate::server_url::ServerUrl;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;

/// One setting: its name, what it may be, what it means, and its field.
pub(super) struct Setting {
    /// Its full name, the table before the dot.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// One or more lines for people, without comment signs.
    pub(super) meaning: &'static str,
    /// Fills the field; `Err` says what is wrong with a value that has the right kind.
    pub(super) put: fn(&mut Settings, Value) -> Result<(), String>,
    /// The field as it would be written in a file.
    pub(super) get: fn(&Settings) -> Value,
}

/// What a setting's value may be.
pub(super) enum Kind {
    Text,
    Boolean,
    /// A whole number within bounds, both included. The setting's name ends in its unit where it has one.
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    /// A number from 0 to 1.
    Ratio,
    /// Texts; in an environment variable they are separated by commas.
    List,
}

/// A value as typed, once its kind is known to be right.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Boolean(bool),
    Integer(u64),
    Ratio(f64),
    List(Vec<String>),
}

impl Value {
    fn into_text(self) -> String {
        match self {
            Value::Text(text) => text,
            other => unreachable!("a text setting was given {other:?}"),
        }
    }

    fn boolean(&self) -> bool {
        matches!(self, Value::Boolean(true))
    }

    fn integer(&self) -> u64 {
        match self {
            Value::Integer(number) => *number,
            other => unreachable!("a number setting was given {other:?}"),
        }
    }

    fn ratio(&self) -> f64 {
        match self {
            Value::Ratio(ratio) => *ratio,
            other => unreachable!("a ratio setting was given {other:?}"),
        }
    }

    fn size(&self) -> usize {
        usize::try_from(self.integer()).unwrap_or(usize::MAX)
    }

    fn into_list(self) -> Vec<String> {
        match self {
            Value::List(list) => list,
            other => unreachable!("a list setting was given {other:?}"),
        }
    }
}

fn from_size(size: usize) -> Value {
    Value::Integer(size as u64)
}

fn from_duration(duration: Duration) -> Value {
    Value::Integer(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A setting that is a number and can be stored as it is.
macro_rules! number {
    ($key:literal, $min:expr, $max:expr, $($field:ident).+, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Integer { min: $min, max: $max },
            meaning: $meaning,
            put: |settings, value| {
                settings.$($field).+ = value.integer();
                Ok(())
            },
            get: |settings| Value::Integer(settings.$($field).+),
        }
    };
}

/// A setting that counts things in memory.
macro_rules! size {
    ($key:literal, $min:expr, $max:expr, $($field:ident).+, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Integer { min: $min, max: $max },
            meaning: $meaning,
            put: |settings, value| {
                settings.$($field).+ = value.size();
                Ok(())
            },
            get: |settings| from_size(settings.$($field).+),
        }
    };
}

/// A setting that is a time in milliseconds.
macro_rules! millis {
    ($key:literal, $min:expr, $max:expr, $($field:ident).+, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Integer { min: $min, max: $max },
            meaning: $meaning,
            put: |settings, value| {
                settings.$($field).+ = Duration::from_millis(value.integer());
                Ok(())
            },
            get: |settings| from_duration(settings.$($field).+),
        }
    };
}

/// A setting that names a file, or none.
macro_rules! path {
    ($key:literal, $($field:ident).+, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Text,
            meaning: $meaning,
            put: |settings, value| {
                settings.$($field).+ = PathBuf::from(value.into_text());
                Ok(())
            },
            get: |settings| Value::Text(settings.$($field).+.to_string_lossy().into_owned()),
        }
    };
}

/// A setting that names a file, or nothing where it is empty.
macro_rules! optional_path {
    ($key:literal, $($field:ident).+, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Text,
            meaning: $meaning,
            put: |settings, value| {
                settings.$($field).+ = Some(value.into_text()).filter(|path| !path.is_empty()).map(PathBuf::from);
                Ok(())
            },
            get: |settings| {
                let path = settings.$($field).+.as_deref();
                Value::Text(path.map_or_else(String::new, |path| path.to_string_lossy().into_owned()))
            },
        }
    };
}

/// A setting that is one of a few words.
macro_rules! choice {
    ($key:literal, $type:ident { $($word:literal = $variant:ident),+ $(,)? }, $($field:ident).+, $meaning:literal) => {
        Setting {
            key: $key,
            kind: Kind::Choice(&[$($word),+]),
            meaning: $meaning,
            put: |settings, value| {
                settings.$($field).+ = match value.into_text().as_str() {
                    $($word => $type::$variant,)+
                    other => return Err(format!("`{other}` is none of its words")),
                };
                Ok(())
            },
            get: |settings| {
                let word = match settings.$($field).+ {
                    $($type::$variant => $word,)+
                };
                Value::Text(word.to_owned())
            },
        }
    };
}

mod lease;
mod replication;

/// Every setting, in the order of the generated file: names without a table first, then table by table.
pub(super) static SETTINGS: LazyLock<Vec<&'static Setting>> =
    LazyLock::new(|| MOST.iter().chain(replication::SETTINGS).chain(lease::SETTINGS).collect());

/// All but those that have a file of their own.
static MOST: &[Setting] = &[
    Setting {
        key: "data_dir",
        kind: Kind::Text,
        meaning: "Where all data lives. Made at the first start. One server at a time can use it.\n\
                  Also the flag --data-dir.",
        put: |settings, value| {
            let path = value.into_text();
            if path.is_empty() {
                return Err("must not be empty".to_owned());
            }
            settings.data_dir = PathBuf::from(path);
            Ok(())
        },
        get: |settings| Value::Text(settings.data_dir.to_string_lossy().into_owned()),
    },
    Setting {
        key: "listen",
        kind: Kind::List,
        meaning: "Where to answer HTTP, one place or several: HOST:PORT; [HOST]:PORT for an IPv6 address, port 0 for any free\n\
                  port; unix:/PATH for a Unix socket, whose clients count as 127.0.0.1. Where tls.cert_file is set, HOST:PORT\n\
                  speaks TLS, and http://HOST:PORT stays plain. Sockets that systemd hands over (a .socket unit) take the\n\
                  place of all of these; FileDescriptorName=http or https says what they speak.\n\
                  Also the flag --listen.",
        put: |settings, value| {
            let places = value.into_list();
            if places.is_empty() {
                return Err("names no place; without one nobody reaches the server".to_owned());
            }
            settings.listen = places.iter().map(|text| parse_listen(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |settings| Value::List(settings.listen.iter().map(Listen::to_string).collect()),
    },
    Setting {
        key: "test_mode",
        kind: Kind::Boolean,
        meaning: "Lets the request header X-Test-Time (Unix milliseconds) set that request's clock. Only for tests:\n\
                  with it, any client can move time. Also the flag --test-mode.",
        put: |settings, value| {
            settings.test_mode = value.boolean();
            Ok(())
        },
        get: |settings| Value::Boolean(settings.test_mode),
    },
    Setting {
        key: "region",
        kind: Kind::Text,
        meaning: "Recorded with every event as the place it happened at: 1 to 64 letters, digits, `-`, `_` and `.`.",
        put: |settings, value| {
            let region = value.into_text();
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if region.is_empty() || region.len() > 64 || !region.chars().all(plain) {
                return Err("must be 1 to 64 letters, digits, `-`, `_` and `.`".to_owned());
            }
            settings.region = region;
            Ok(())
        },
        get: |settings| Value::Text(settings.region.clone()),
    },
    optional_path!(
        "master_key_file",
        secrets.master_key_file,
        "The file that holds the master key, under which recoverable keys are encrypted; empty = none. It must be\n\
         readable by its owner alone and lie outside of data_dir. `keyward vault generate-key` makes a key. During an\n\
         exchange it holds several, one a line: the first encrypts, the others only decrypt. The systemd credential\n\
         keyward-master-key goes before it, and the variable KEYWARD_MASTER_KEY can stand in for it.\n\
         Also the flag --master-key-file."
    ),
    optional_path!(
        "pepper_file",
        secrets.pepper_file,
        "The file that holds the pepper, with which stored hashes of keys are keyed once `keyward pepper enable` has\n\
         switched to it; empty = none. From then on no start does without it. It must be readable by its owner alone\n\
         and lie outside of data_dir. `keyward pepper generate` makes one. During an exchange it holds two, one a line,\n\
         the new one first. The systemd credential keyward-pepper goes before it, and the variable KEYWARD_PEPPER can\n\
         stand in for it. Also the flag --pepper-file, of `keyward serve` and of the operator's commands."
    ),
    choice!(
        "log.level",
        LogLevel { "error" = Error, "warn" = Warn, "info" = Info, "debug" = Debug, "trace" = Trace },
        log.level,
        "The least important lines that are still written to standard error."
    ),
    choice!(
        "log.format",
        LogFormat { "text" = Text, "json" = Json },
        log.format,
        "text is for people, and coloured on a terminal; json is one object a line."
    ),
    choice!(
        "log.requests",
        LogRequests { "failed" = Failed, "all" = All },
        log.requests,
        "Which requests have a line of their own: failed are those that were refused or failed, at most 100 a second; all\n\
         are these and every other request of an operation, at level info. Headers and bodies are in no line."
    ),
    size!(
        "http.max_connections",
        1,
        1_000_000,
        http.max_connections,
        "Connections open at the same time. At the limit new ones wait in the system's queue until one closes.\n\
         Each needs a file descriptor."
    ),
    size!(
        "http.max_body_bytes",
        KIB,
        256 * MIB,
        http.max_body_bytes,
        "Bytes of one request's body; a larger one is answered 413."
    ),
    millis!(
        "http.request_deadline_ms",
        10,
        10 * 60 * SECOND_MS,
        http.request_deadline,
        "From the end of a request's head to its reply, the reading of the body included. Then the answer is 408; a\n\
         change that was already under way is finished all the same."
    ),
    millis!(
        "http.header_read_timeout_ms",
        10,
        10 * 60 * SECOND_MS,
        http.header_read_timeout,
        "From the first byte of a request to the end of its head. Then the connection is closed."
    ),
    millis!(
        "http.idle_timeout_ms",
        100,
        HOUR_MS,
        http.idle_timeout,
        "How long a connection may stay open without a request. Keep it well above the 5 seconds for which clients\n\
         hold on to theirs, and above that of a load balancer in front."
    ),
    millis!(
        "http.reply_stall_timeout_ms",
        10,
        10 * 60 * SECOND_MS,
        http.reply_stall_timeout,
        "How long a client may take for the next 64 KiB of a reply. Then the connection is closed: a reply that is not\n\
         read is memory that others need."
    ),
    millis!(
        "http.shutdown_deadline_ms",
        0,
        10 * 60 * SECOND_MS,
        http.shutdown_deadline,
        "How long running requests may take to finish once the server was asked to stop."
    ),
    Setting {
        key: "http.trusted_proxies",
        kind: Kind::List,
        meaning: "Addresses and networks whose X-Forwarded-For is believed: it is walked from the right past these, and\n\
                  the first other address is the client's. From any other peer the header is ignored.\n\
                  An empty list believes nobody.",
        put: |settings, value| {
            settings.http.trusted_proxies =
                value.into_list().iter().map(|text| parse_network(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |settings| Value::List(settings.http.trusted_proxies.iter().map(IpNet::to_string).collect()),
    },
    Setting {
        key: "http.unix_socket_mode",
        kind: Kind::Text,
        meaning: "Rights of the Unix sockets that are listened on, in octal: who may write there may connect.",
        put: |settings, value| {
            let text = value.into_text();
            let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| (1..=0o777).contains(mode));
            settings.http.unix_socket_mode =
                mode.ok_or_else(|| format!("must be rights in octal such as 0660, not `{text}`"))?;
            Ok(())
        },
        get: |settings| Value::Text(format!("{:04o}", settings.http.unix_socket_mode)),
    },
    path!(
        "tls.cert_file",
        tls.cert_file,
        "The server's certificate, PEM, with those of authorities in between after it; empty means no TLS. It is read again\n\
         when it changes, within seconds, and at SIGHUP; connections go on, and a file that cannot be used changes nothing.\n\
         `keyward tls self-signed` makes one where nobody else does."
    ),
    path!(
        "tls.key_file",
        tls.key_file,
        "The private key of that certificate, PEM, without a password. Only its owner, and its group, should be able to read\n\
         it."
    ),
    optional_path!(
        "tls.client_ca_file",
        tls.client_ca_file,
        "Authorities, PEM: then every client must show a certificate that one of them has signed. Empty: clients need\n\
         none."
    ),
    millis!(
        "tls.handshake_timeout_ms",
        10,
        10 * 60 * SECOND_MS,
        tls.handshake_timeout,
        "From a connection to the end of its handshake. Then it is closed."
    ),
    size!(
        "tls.max_handshakes",
        1,
        100_000,
        tls.max_handshakes,
        "Handshakes that are computed at one time; they cost much more than requests. Further ones wait for their turn, within\n\
         their time. Who has sent nothing yet holds none."
    ),
    size!(
        "runtime.worker_threads",
        0,
        1024,
        runtime.worker_threads,
        "Threads that answer requests; 0 means one for each processor."
    ),
    Setting {
        key: "runtime.core_dumps",
        kind: Kind::Boolean,
        meaning: "Whether a crash may write this process's memory, with the secrets in it, to a file. For debugging alone.",
        put: |settings, value| {
            settings.runtime.core_dumps = value.boolean();
            Ok(())
        },
        get: |settings| Value::Boolean(settings.runtime.core_dumps),
    },
    number!(
        "storage.hot_keys_max",
        1_000,
        1_000_000_000,
        storage.hot_keys_max,
        "Keys held in memory. A key that is not in memory costs its next verification one read from the disk."
    ),
    number!(
        "storage.rate_subjects_max",
        1_000,
        1_000_000_000,
        storage.rate_subjects_max,
        "Subjects with a live rate-limit window. At the limit a new subject is answered 503: a live window is never\n\
         forgotten. A workspace that holds more than three times as many as there is room left for gets no new one, so\n\
         that others do: alone it can have three quarters."
    ),
    millis!(
        "storage.checkpoint_interval_ms",
        100,
        HOUR_MS,
        storage.checkpoint_interval,
        "Longest time between two checkpoints while there are changes. Longer means fewer writes and a slower start\n\
         after a crash."
    ),
    number!(
        "storage.checkpoint_bytes",
        MIB,
        64 * GIB,
        storage.checkpoint_bytes,
        "Bytes of log after which a checkpoint is made in any case."
    ),
    number!(
        "storage.redb_cache_bytes",
        MIB,
        1024 * GIB,
        storage.redb_cache_bytes,
        "Memory for pages of the database file beside what the system caches. Verifications of keys in memory never\n\
         read it."
    ),
    choice!(
        "storage.credits_journal",
        CreditsJournal { "relaxed" = Relaxed, "strict" = Strict },
        storage.credits_journal,
        "When spent credits reach the disk. relaxed: every few milliseconds, so that a crash of the machine can give\n\
         back what was spent since. strict: before the verification is answered."
    ),
    millis!(
        "storage.credits_journal_interval_ms",
        1,
        1_000,
        storage.credits_journal_interval,
        "Pause between two journal entries of spent credits (relaxed only)."
    ),
    number!(
        "storage.min_free_bytes",
        0,
        1024 * GIB,
        storage.min_free_bytes,
        "Free space on the disk below which changes are answered 503; verifications go on."
    ),
    Setting {
        key: "analytics.enabled",
        kind: Kind::Boolean,
        meaning: "Whether queries over recorded events are answered; if not, they are answered 412.",
        put: |settings, value| {
            settings.analytics.enabled = value.boolean();
            Ok(())
        },
        get: |settings| Value::Boolean(settings.analytics.enabled),
    },
    size!(
        "analytics.queue_seconds",
        1,
        600,
        analytics.queue_seconds,
        "Seconds of peak load (65,536 events each, about 10 MiB) that may wait to be recorded while the disk is busy.\n\
         When the queue is full, a request waits up to 5 ms; then its event is dropped and counted, and health says\n\
         degraded."
    ),
    size!(
        "analytics.query_threads",
        0,
        1024,
        analytics.query_threads,
        "Threads that compute queries, at the lowest priority; 0 means one fewer than processors, and at least one."
    ),
    size!(
        "analytics.concurrent_queries",
        1,
        1024,
        analytics.concurrent_queries,
        "Queries that run at one time. Further ones wait for their turn, up to 10 seconds; who has fewer of them running\n\
         is first. The last free one is not for a workspace that has all others."
    ),
    size!(
        "analytics.waiting_queries",
        1,
        10_000,
        analytics.waiting_queries,
        "Queries that may wait for their turn, of one workspace half of them; one more is answered 503."
    ),
    size!(
        "analytics.memory_bytes",
        16 * MIB,
        1024 * GIB,
        analytics.memory_bytes,
        "Memory of all running queries together; those of one workspace have three quarters of it at most. What a single one\n\
         may take is a limit of its workspace."
    ),
    millis!(
        "auth.guess_delay_max_ms",
        0,
        15 * SECOND_MS,
        auth.guess_delay_max,
        "Longest that the answer to an unknown root key is held back, once its address has sent several. Requests with a\n\
         valid one are never held back, from whatever address. 0 holds back nothing; attempts are counted all the same."
    ),
    Setting {
        key: "metrics.listen",
        kind: Kind::Text,
        meaning: "HOST:PORT to answer GET /metrics on, beside `listen`, to whoever reaches it; empty means no such address.\n\
                  Choose one that only your monitoring reaches.",
        put: |settings, value| {
            let listen = value.into_text();
            if !listen.is_empty() {
                check_listen(&listen)?;
            }
            settings.metrics.listen = Some(listen).filter(|listen| !listen.is_empty());
            Ok(())
        },
        get: |settings| Value::Text(settings.metrics.listen.clone().unwrap_or_default()),
    },
    Setting {
        key: "metrics.allow",
        kind: Kind::List,
        meaning: "Addresses and networks that may read GET /metrics on the address of `listen`; for everybody else there is no\n\
                  such page. A request through a proxy comes from each address in its X-Forwarded-For as well.\n\
                  An empty list serves it to nobody there.",
        put: |settings, value| {
            settings.metrics.allow =
                value.into_list().iter().map(|text| parse_network(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |settings| Value::List(settings.metrics.allow.iter().map(IpNet::to_string).collect()),
    },
    optional_path!(
        "audit.export.file",
        audit.export_file,
        "Appends every audit event to this file as it happens, a JSON object a line; empty means no file. It is made\n\
         readable by its owner alone; one that is there keeps its rights, and the log warns where others than its owner\n\
         and its group may read it, or others than its owner may change it. It is opened again when it was moved away\n\
         (logrotate). A restart goes on where it was; an event may then be written twice: event_id tells."
    ),
    Setting {
        key: "audit.export.syslog",
        kind: Kind::Text,
        meaning: "Sends every audit event to syslog as it happens (RFC 5424, facility 13, the event as JSON): /dev/log or\n\
                  another datagram socket, udp://HOST:PORT or tcp://HOST:PORT; empty means not at all. While nobody listens\n\
                  events wait in the store. An event may come twice: event_id tells.",
        put: |settings, value| {
            let text = value.into_text();
            settings.audit.export_syslog = (!text.is_empty()).then(|| parse_syslog(&text)).transpose()?;
            Ok(())
        },
        get: |settings| {
            Value::Text(settings.audit.export_syslog.as_ref().map_or_else(String::new, SyslogAddress::to_string))
        },
    },
    Setting {
        key: "telemetry.otlp_endpoint",
        kind: Kind::Text,
        meaning: "The URL of a collector of OpenTelemetry, http:// or https://, that takes OTLP over HTTP with Protocol Buffers,\n\
                  such as http://127.0.0.1:4318; /v1/traces and /v1/metrics are put behind it. Empty: nothing is exported, and\n\
                  nothing is noted for it. https:// trusts what the machine trusts, or the file that SSL_CERT_FILE names.",
        put: |settings, value| {
            let text = value.into_text();
            settings.telemetry.otlp_endpoint = (!text.is_empty()).then(|| ServerUrl::parse(&text)).transpose()?;
            Ok(())
        },
        get: |settings| {
            Value::Text(settings.telemetry.otlp_endpoint.as_ref().map_or_else(String::new, ServerUrl::to_string))
        },
    },
    optional_path!(
        "telemetry.otlp_headers_file",
        secrets.otlp_headers_file,
        "The file of headers that the collector asks for, one a line, `name: value`; empty = none. It must be readable by\n\
         its owner alone and lie outside of data_dir, and is read again with a reload. The systemd credential\n\
         keyward-otlp-headers goes before it, and the variable KEYWARD_OTLP_HEADERS can stand in for it."
    ),
    choice!(
        "telemetry.signals",
        Signals { "all" = All, "traces" = Traces, "metrics" = Metrics },
        telemetry.signals,
        "What is exported: all is traces and metrics."
    ),
    Setting {
        key: "telemetry.sampling_ratio",
        kind: Kind::Ratio,
        meaning: "Part of the requests that is traced. A request whose caller says in `traceparent` whether it is traced is\n\
                  treated as its caller says, whatever this ratio.",
        put: |settings, value| {
            settings.telemetry.sampling_ratio = value.ratio();
            Ok(())
        },
        get: |settings| Value::Ratio(settings.telemetry.sampling_ratio),
    },
    millis!(
        "telemetry.metrics_interval_ms",
        1_000,
        HOUR_MS,
        telemetry.metrics_interval,
        "Pause between two exports of metrics."
    ),
    size!(
        "telemetry.queue_spans",
        16,
        1_000_000,
        telemetry.queue_spans,
        "Traced requests that may wait for the collector, about half a KiB each. When they are that many, further ones are\n\
         dropped and counted; no request ever waits for a collector."
    ),
];

/// What takes effect without a restart (SIGHUP): what is read each time it is needed, and no size of anything that is made
/// at the start.
pub(super) static RELOADED: &[&str] = &[
    "log.level",
    "log.requests",
    "http.max_body_bytes",
    "http.request_deadline_ms",
    "http.header_read_timeout_ms",
    "http.idle_timeout_ms",
    "http.reply_stall_timeout_ms",
    "http.shutdown_deadline_ms",
    "auth.guess_delay_max_ms",
    "telemetry.sampling_ratio",
];

/// The setting of this name.
pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key).copied()
}

/// What a value of this kind looks like, for messages.
pub(super) fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Boolean => "true or false".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Choice(words) => join_words(words),
        Kind::Ratio => "a number from 0 to 1".to_owned(),
        Kind::List => "a list of texts".to_owned(),
    }
}

/// `a`, `b` or `c`.
pub(super) fn join_words(words: &[&str]) -> String {
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let before = match index {
            0 => "",
            _ if index + 1 == words.len() => " or ",
            _ => ", ",
        };
        let _ = write!(text, "{before}`{word}`");
    }
    text
}

/// A place to listen at.
fn parse_listen(text: &str) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.starts_with('/') {
            Ok(Listen::Unix(PathBuf::from(path)))
        } else {
            Err(format!("`{text}` names no whole path; write unix:/PATH"))
        };
    }
    let (transport, address) = match text.split_once("://") {
        None => (Transport::Default, text),
        Some(("http", address)) => (Transport::Plain, address),
        Some(("https", address)) => (Transport::Tls, address),
        Some(_) => return Err(format!("`{text}` begins with neither http:// nor https://")),
    };
    check_listen(address)?;
    Ok(Listen::Tcp { address: address.to_owned(), transport })
}

pub(super) fn check_listen(text: &str) -> Result<(), String> {
    if text.contains('@') {
        return Err("holds an @: a name and a password have no place in an address".to_owned());
    }
    let (host, port) = text.rsplit_once(':').ok_or("must be HOST:PORT, for instance 127.0.0.1:7070")?;
    if host.is_empty() {
        return Err(format!("names no host; to listen on every address write 0.0.0.0:{port} or [::]:{port}"));
    }
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err("holds an IPv6 address without brackets; write [HOST]:PORT".to_owned());
    }
    port.parse::<u16>().map_err(|_| format!("`{port}` is no port; ports are 0 to 65535"))?;
    Ok(())
}

/// Where syslog listens: a path, or `udp://` or `tcp://` and HOST:PORT.
fn parse_syslog(text: &str) -> Result<SyslogAddress, String> {
    if text.starts_with('/') {
        return Ok(SyslogAddress::Local(PathBuf::from(text)));
    }
    let (scheme, host) = text.split_once("://").unwrap_or(("", text));
    let address = match scheme {
        "udp" => SyslogAddress::Udp(host.to_owned()),
        "tcp" => SyslogAddress::Tcp(host.to_owned()),
        _ => return Err("must be a path such as /dev/log, udp://HOST:PORT or tcp://HOST:PORT".to_owned()),
    };
    check_listen(host)?;
    Ok(address)
}

/// An address or a network. IPv4 ranges mapped into IPv6 are taken as IPv4, as addresses are before they are compared.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let refuse = |_| format!("`{text}` is neither an address nor a network like 10.0.0.0/8");
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let network: IpNet = text.parse().map_err(refuse)?;
    if let IpNet::V6(six) = network
        && let Some(four) = six.addr().to_ipv4_mapped()
        && six.prefix_len() >= 96
    {
        return IpNet::new(IpAddr::V4(four), six.prefix_len() - 96)
            .map(|network| network.trunc())
            .map_err(|error| error.to_string());
    }
    Ok(network.trunc())
}

/// The text of `config/keyward.toml`: every setting with its meaning, its bounds and, commented out, its default.
pub fn default_file() -> String {
    let defaults = Settings::default();
    let mut text = String::from(
        "# keyward's settings, each with its default. Made from src/config.rs: a test keeps the two the same.\n\
         #\n\
         # Use it with `keyward serve --config FILE` or KEYWARD_CONFIG=FILE. Every setting can also be given in the\n\
         # environment: http.max_connections is KEYWARD_HTTP_MAX_CONNECTIONS, lists are separated by commas; and as a flag\n\
         # of `keyward serve`: --http-max-connections. A flag beats the environment, the environment beats this file. A name\n\
         # that is not known here is refused. `keyward config show` tells what is in force and where it came from.\n\
         #\n\
         # The first root key can be chosen with KEYWARD_ROOT_KEY (at least 20 characters), and only there.\n",
    );
    let mut table = "";
    for setting in SETTINGS.iter() {
        let (its_table, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
        if its_table != table {
            let _ = write!(text, "\n[{its_table}]\n");
            table = its_table;
        }
        text.push('\n');
        for line in setting.meaning.lines() {
            let _ = writeln!(text, "# {line}");
        }
        match &setting.kind {
            Kind::Integer { min, max } => {
                let _ = writeln!(text, "# From {min} to {max}.");
            }
            Kind::Choice(words) => {
                let _ = writeln!(text, "# Must be {}.", join_words(words));
            }
            Kind::Ratio => text.push_str("# From 0 to 1.\n"),
            Kind::Text | Kind::Boolean | Kind::List => {}
        }
        if RELOADED.contains(&setting.key) {
            text.push_str("# Changes with a reload (SIGHUP).\n");
        }
        let _ = writeln!(text, "#{name} = {}", in_toml((setting.get)(&defaults)));
    }
    text
}

/// A value as a file has it.
pub(super) fn in_toml(value: Value) -> String {
    match value {
        Value::Text(text) => toml::Value::String(text).to_string(),
        Value::Boolean(on) => on.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Ratio(ratio) => toml::Value::Float(ratio).to_string(),
        Value::List(items) => toml::Value::Array(items.into_iter().map(toml::Value::String).collect()).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Typed;

    /// The published file is the one the code generates, and what it says by default is the default.
    /// `KEYWARD_REGENERATE=1` in the environment of the test rewrites it.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch of this test")]
    fn the_published_file_says_what_the_code_does() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/keyward.toml");
        let generated = default_file();
        if std::env::var_os("KEYWARD_REGENERATE").is_some() {
            std::fs::write(path, &generated).expect("config/keyward.toml can be written");
        }
        let published = std::fs::read_to_string(path).expect("config/keyward.toml is there");
        assert_eq!(published, generated, "run this test with KEYWARD_REGENERATE=1");

        // A comment is `# …`; a setting that is commented out has no space there.
        let uncommented: String = generated
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .fold(String::new(), |text, line| text + line + "\n");
        let settings =
            generated.lines().filter(|line| line.starts_with('#') && line[1..].starts_with(char::is_alphabetic));
        assert_eq!(settings.count(), SETTINGS.len());
        assert_eq!(
            Typed { file: Some(("keyward.toml".to_owned(), uncommented)), ..Typed::default() }
                .read()
                .expect("defaults are within their bounds")
                .settings,
            Settings::default()
        );
    }
}
