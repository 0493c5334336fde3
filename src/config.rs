//! Settings: what was typed (a file, `KEYWARD_…` variables, flags) and what it means.
//!
//! [`SETTINGS`] describes every setting once: its name, its bounds, its meaning, and the field it fills. Reading a file,
//! naming an environment variable, refusing an unknown name and writing `config/keyward.toml` all work from that table,
//! so a setting cannot be known to one of them and unknown to another. Precedence: flag, environment, file, default.
//!
//! Nothing here asks the system for anything: the environment and the file's text are handed in.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// Complete, checked settings: what the parts of the server are built from.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where all data lives; relative paths are relative to the working directory.
    pub data_dir: PathBuf,
    /// `HOST:PORT` to answer HTTP on.
    pub listen: String,
    /// Whether `X-Test-Time` is honoured (EXT-1, COM-SYS-05).
    pub test_mode: bool,
    /// Label recorded with events as the place they happened at.
    pub region: String,
    /// The first workspace's root key, where the operator chose one. Never read from a file, never printed.
    pub first_root_key: Option<Secret>,
    /// Operational logs.
    pub log: Log,
    /// The HTTP server.
    pub http: Http,
    /// Threads.
    pub runtime: Runtime,
    /// Storage.
    pub storage: Storage,
}

/// Operational logs, written to standard error.
#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// The least important lines that are still written.
    pub level: LogLevel,
    /// How a line is written.
    pub format: LogFormat,
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
    /// How long running requests may take to finish once the server was asked to stop.
    pub shutdown_deadline: Duration,
    /// Peers whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// Threads of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Threads that answer requests; 0 means one for each processor.
    pub worker_threads: usize,
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

/// When spent credits reach the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditsJournal {
    /// Every few milliseconds: a crash can give back what was spent since.
    Relaxed,
    /// Before the verification is answered.
    Strict,
}

/// Text that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that uses it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 3_600 * SECOND_MS;

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            data_dir: PathBuf::from("./keyward-data"),
            listen: "127.0.0.1:7070".to_owned(),
            test_mode: false,
            region: "local".to_owned(),
            first_root_key: None,
            log: Log { level: LogLevel::Info, format: LogFormat::Text },
            http: Http {
                max_connections: 10_000,
                max_body_bytes: 10 * 1024 * 1024,
                request_deadline: Duration::from_secs(20),
                header_read_timeout: Duration::from_secs(10),
                idle_timeout: Duration::from_secs(75),
                shutdown_deadline: Duration::from_secs(25),
                trusted_proxies: PRIVATE_NETWORKS
                    .iter()
                    .map(|network| network.parse().expect("the default networks are well-formed"))
                    .collect(),
            },
            runtime: Runtime { worker_threads: 0 },
            storage: Storage {
                hot_keys_max: 1_000_000,
                rate_subjects_max: 1_000_000,
                checkpoint_interval: Duration::from_secs(60),
                checkpoint_bytes: 64 * MIB,
                redb_cache_bytes: 256 * MIB,
                credits_journal: CreditsJournal::Relaxed,
                credits_journal_interval: Duration::from_millis(5),
                min_free_bytes: 64 * MIB,
            },
        }
    }
}

/// Loopback and private networks: where a reverse proxy of one's own stands (COM-HDR-02).
const PRIVATE_NETWORKS: &[&str] = &[
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
];

/// One setting: its name, what it may be, what it means, and its field.
struct Setting {
    /// Its full name, the table before the dot.
    key: &'static str,
    kind: Kind,
    /// One or more lines for people, without comment signs.
    meaning: &'static str,
    /// Fills the field; `Err` says what is wrong with a value that has the right kind.
    put: fn(&mut Settings, Value) -> Result<(), String>,
    /// The field as it would be written in a file.
    get: fn(&Settings) -> Value,
}

/// What a setting's value may be.
enum Kind {
    Text,
    Boolean,
    /// A whole number within bounds, both included. The setting's name ends in its unit where it has one.
    Integer {
        min: u64,
        max: u64,
    },
    Choice(&'static [&'static str]),
    /// Texts; in an environment variable they are separated by commas.
    List,
}

/// A value as typed, once its kind is known to be right.
#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Boolean(bool),
    Integer(u64),
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

/// Every setting, in the order of the generated file: names without a table first, then table by table.
static SETTINGS: &[Setting] = &[
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
        kind: Kind::Text,
        meaning: "HOST:PORT to answer HTTP on; [HOST]:PORT for an IPv6 address, port 0 for any free port.\n\
                  Also the flag --listen.",
        put: |settings, value| {
            let listen = value.into_text();
            check_listen(&listen)?;
            settings.listen = listen;
            Ok(())
        },
        get: |settings| Value::Text(settings.listen.clone()),
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
            settings.http.trusted_proxies = value.into_list().iter().map(|text| parse_network(text)).collect::<Result<_, _>>()?;
            Ok(())
        },
        get: |settings| Value::List(settings.http.trusted_proxies.iter().map(IpNet::to_string).collect()),
    },
    size!(
        "runtime.worker_threads",
        0,
        1024,
        runtime.worker_threads,
        "Threads that answer requests; 0 means one for each processor."
    ),
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
         forgotten."
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
        "Memory for the pages of the database file."
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
];

/// Begins the name of every environment variable this program reads.
const ENVIRONMENT_PREFIX: &str = "KEYWARD_";
/// Names the settings file, like the flag `--config`.
pub const CONFIG_VARIABLE: &str = "KEYWARD_CONFIG";
/// Holds the first workspace's root key (EXT-1).
pub const ROOT_KEY_VARIABLE: &str = "KEYWARD_ROOT_KEY";
/// A root key has at least this many characters (EXT-1), so that it cannot be guessed easily.
const ROOT_KEY_CHARS_MIN: usize = 20;
/// And at most this many bytes: it has to fit a request's headers.
const ROOT_KEY_BYTES_MAX: usize = 1024;

/// What the user typed, before any of it is judged.
#[derive(Debug, Default)]
pub struct Typed {
    /// The settings file: its name, for messages, and its text.
    pub file: Option<(String, String)>,
    /// Environment variables, names and values; those of other programs may be among them.
    pub environment: Vec<(String, String)>,
    /// `--data-dir`
    pub data_dir: Option<String>,
    /// `--listen`
    pub listen: Option<String>,
    /// `--test-mode`
    pub test_mode: bool,
}

/// Everything that is wrong with what was typed, each entry a sentence without its full stop.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// Settings, and what the user should hear about them although it does no harm.
#[derive(Debug)]
pub struct Reading {
    /// The complete settings.
    pub settings: Settings,
    /// Sentences for the log.
    pub warnings: Vec<String>,
}

impl Typed {
    /// Judges everything that was typed, and refuses it as a whole where anything is wrong with it.
    ///
    /// # Errors
    /// Lists every unknown name, wrong kind and value out of bounds, with the place each was typed at.
    pub fn read(self) -> Result<Reading, ConfigError> {
        let mut problems = Vec::new();
        let mut warnings = Vec::new();
        // By setting: where the value was typed, and the value. Later sources replace earlier ones.
        let mut given: BTreeMap<&'static str, (String, Value)> = BTreeMap::new();

        if let Some((name, text)) = &self.file {
            match text.parse::<toml::Table>() {
                Ok(table) => from_table(&table, "", name, &mut given, &mut problems),
                Err(error) => problems.push(format!("{name} is not well-formed TOML: {}", error.to_string().trim_end())),
            }
        }
        let mut settings = Settings::default();
        for (variable, text) in &self.environment {
            if variable == ROOT_KEY_VARIABLE {
                match check_root_key(text) {
                    Ok(()) => settings.first_root_key = Some(Secret(text.clone())),
                    Err(problem) => problems.push(format!("{ROOT_KEY_VARIABLE} {problem}")),
                }
            } else if variable != CONFIG_VARIABLE && variable.starts_with(ENVIRONMENT_PREFIX) {
                match SETTINGS.iter().find(|setting| variable_name(setting.key) == *variable) {
                    Some(setting) => {
                        from_text(setting, text, format!("the environment variable {variable}"), &mut given, &mut problems);
                    }
                    // Not refused: Kubernetes gives every container variables named after the services around it.
                    None => warnings.push(unknown_variable(variable)),
                }
            }
        }
        for (key, flag, text) in [
            ("data_dir", "--data-dir", self.data_dir),
            ("listen", "--listen", self.listen),
            ("test_mode", "--test-mode", self.test_mode.then(|| "true".to_owned())),
        ] {
            if let Some(text) = text {
                let setting = find(key).expect("flags stand for settings of the table");
                from_text(setting, &text, format!("the flag {flag}"), &mut given, &mut problems);
            }
        }
        for (key, (place, value)) in given {
            let setting = find(key).expect("only settings of the table were collected");
            if let Err(problem) = (setting.put)(&mut settings, value) {
                problems.push(format!("{key}, from {place}: {problem}"));
            }
        }
        if problems.is_empty() { Ok(Reading { settings, warnings }) } else { Err(ConfigError(problems)) }
    }
}

fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// `http.max_connections` is `KEYWARD_HTTP_MAX_CONNECTIONS` in the environment.
fn variable_name(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Collects a table of the file; `prefix` is its name and a dot, or nothing at the top.
fn from_table(
    table: &toml::Table,
    prefix: &str,
    file: &str,
    given: &mut BTreeMap<&'static str, (String, Value)>,
    problems: &mut Vec<String>,
) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        let Some(setting) = find(&key) else {
            let is_table = SETTINGS.iter().any(|setting| setting.key.starts_with(&format!("{key}.")));
            match value {
                toml::Value::Table(inner) if is_table => from_table(inner, &format!("{key}."), file, given, problems),
                _ if is_table => problems.push(format!("`{key}` in {file} must be a table of settings: [{key}]")),
                toml::Value::Table(_) => problems.push(unknown_table(&key, file)),
                _ => problems.push(unknown_key(&key, file)),
            }
            continue;
        };
        match from_toml(setting, value) {
            Ok(value) => {
                given.insert(setting.key, (file.to_owned(), value));
            }
            Err(problem) => problems.push(format!("{key}, from {file}: {problem}")),
        }
    }
}

/// Takes a file's value as what the setting wants.
fn from_toml(setting: &Setting, value: &toml::Value) -> Result<Value, String> {
    let wanted = || format!("must be {}, not {}", describe(&setting.kind), value.type_str());
    match (&setting.kind, value) {
        (Kind::Text, toml::Value::String(text)) => Ok(Value::Text(text.clone())),
        (Kind::Choice(words), toml::Value::String(text)) => one_of(words, text),
        (Kind::Boolean, toml::Value::Boolean(on)) => Ok(Value::Boolean(*on)),
        (Kind::Integer { min, max }, toml::Value::Integer(number)) => in_bounds(*min, *max, i128::from(*number)),
        (Kind::List, toml::Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .map(Value::List)
            .ok_or_else(wanted),
        _ => Err(wanted()),
    }
}

/// Collects a value that was typed as text: in an environment variable or a flag.
fn from_text(
    setting: &'static Setting,
    text: &str,
    place: String,
    given: &mut BTreeMap<&'static str, (String, Value)>,
    problems: &mut Vec<String>,
) {
    let wanted = || format!("must be {}, not `{text}`", describe(&setting.kind));
    let value = match &setting.kind {
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Choice(words) => one_of(words, text),
        Kind::Boolean => text.parse().map(Value::Boolean).map_err(|_| wanted()),
        Kind::Integer { min, max } => {
            text.parse::<i128>().map_err(|_| wanted()).and_then(|number| in_bounds(*min, *max, number))
        }
        Kind::List => {
            Ok(Value::List(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()))
        }
    };
    match value {
        Ok(value) => {
            given.insert(setting.key, (place, value));
        }
        Err(problem) => problems.push(format!("{}, from {place}: {problem}", setting.key)),
    }
}

fn one_of(words: &[&str], text: &str) -> Result<Value, String> {
    if words.contains(&text) {
        Ok(Value::Text(text.to_owned()))
    } else {
        Err(format!("must be {}, not `{text}`", join_words(words)))
    }
}

fn in_bounds(min: u64, max: u64, number: i128) -> Result<Value, String> {
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        _ => Err(format!("must be from {min} to {max}, not {number}")),
    }
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Boolean => "true or false".to_owned(),
        Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
        Kind::Choice(words) => join_words(words),
        Kind::List => "a list of texts".to_owned(),
    }
}

fn join_words(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
}

fn unknown_key(key: &str, file: &str) -> String {
    let mut text = format!("there is no setting `{key}` ({file})");
    if let Some(nearest) = nearest(key, SETTINGS.iter().map(|setting| setting.key.to_owned())) {
        let _ = write!(text, "; did you mean `{nearest}`?");
    }
    text
}

fn unknown_table(table: &str, file: &str) -> String {
    let mut text = format!("there is no table [{table}] ({file})");
    let known = SETTINGS.iter().filter_map(|setting| setting.key.rsplit_once('.')).map(|(table, _)| table.to_owned());
    if let Some(nearest) = nearest(table, known) {
        let _ = write!(text, "; did you mean [{nearest}]?");
    }
    text
}

fn unknown_variable(variable: &str) -> String {
    let mut text = format!("the environment variable {variable} is no setting and was ignored");
    let known = SETTINGS.iter().map(|setting| variable_name(setting.key));
    if let Some(nearest) = nearest(variable, known.chain([CONFIG_VARIABLE.to_owned(), ROOT_KEY_VARIABLE.to_owned()])) {
        let _ = write!(text, "; did you mean {nearest}?");
    }
    text
}

/// The known name that was probably meant: one that ends alike (its table was forgotten or mistaken), else the one with
/// the fewest different characters, where these are few.
fn nearest(typed: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let typed_last = last(typed);
    known
        .map(|name| {
            let distance = if last(&name) == typed_last { 0 } else { edit_distance(typed, &name) };
            (distance, name)
        })
        .min()
        .filter(|(distance, name)| *distance <= name.len() / 3)
        .map(|(_, name)| name)
}

/// How many characters must be put in, taken out or replaced to turn one text into the other (Levenshtein 1966).
fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

fn check_listen(text: &str) -> Result<(), String> {
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

fn check_root_key(text: &str) -> Result<(), String> {
    if text.chars().count() < ROOT_KEY_CHARS_MIN {
        return Err(format!("must have at least {ROOT_KEY_CHARS_MIN} characters"));
    }
    if text.len() > ROOT_KEY_BYTES_MAX {
        return Err(format!("must have at most {ROOT_KEY_BYTES_MAX} bytes"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err("must not begin or end with white space nor hold control characters: no client could send it".to_owned());
    }
    Ok(())
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
        return IpNet::new(IpAddr::V4(four), six.prefix_len() - 96).map(|network| network.trunc()).map_err(|error| error.to_string());
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
         # environment: http.max_connections is KEYWARD_HTTP_MAX_CONNECTIONS, lists are separated by commas. A flag beats\n\
         # the environment, the environment beats this file. A name that is not known here is refused.\n\
         #\n\
         # The first root key can be chosen with KEYWARD_ROOT_KEY (at least 20 characters), and only there.\n",
    );
    let mut table = "";
    for setting in SETTINGS {
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
                let _ = writeln!(text, "# One of {}.", join_words(words));
            }
            Kind::Text | Kind::Boolean | Kind::List => {}
        }
        let value = match (setting.get)(&defaults) {
            Value::Text(text) => toml::Value::String(text).to_string(),
            Value::Boolean(on) => on.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::List(items) => toml::Value::Array(items.into_iter().map(toml::Value::String).collect()).to_string(),
        };
        let _ = writeln!(text, "#{name} = {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(file: &str) -> Typed {
        Typed { file: Some(("keyward.toml".to_owned(), file.to_owned())), ..Typed::default() }
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn problems(typed: Typed) -> Vec<String> {
        typed.read().map(|reading| reading.settings).expect_err("must be refused").0
    }

    /// Flag beats environment beats file beats default, setting by setting.
    #[test]
    fn the_nearest_source_wins() {
        let file = "data_dir = \"from-file\"\nregion = \"file\"\n[http]\nmax_connections = 5\nmax_body_bytes = 2048";
        let reading = Typed {
            environment: variables(&[
                ("KEYWARD_DATA_DIR", "from-environment"),
                ("KEYWARD_REGION", "environment"),
                ("KEYWARD_HTTP_MAX_CONNECTIONS", "6"),
                ("KEYWARD_HTTP_TRUSTED_PROXIES", "10.1.0.0/16, 192.0.2.7"),
                ("PATH", "/bin"),
            ]),
            data_dir: Some("from-flag".to_owned()),
            test_mode: true,
            ..typed(file)
        }
        .read()
        .expect("all of it is right");
        let settings = reading.settings;
        assert_eq!(settings.data_dir, PathBuf::from("from-flag"));
        assert_eq!(settings.region, "environment");
        assert_eq!(settings.http.max_connections, 6);
        assert_eq!(settings.http.max_body_bytes, 2048);
        assert_eq!(settings.http.idle_timeout, Settings::default().http.idle_timeout);
        let proxies: Vec<String> = settings.http.trusted_proxies.iter().map(IpNet::to_string).collect();
        assert_eq!(proxies, ["10.1.0.0/16", "192.0.2.7/32"]);
        assert!(settings.test_mode);
        assert!(reading.warnings.is_empty());
    }

    /// A misspelt name must not be a silent default: it is refused, and the name that was meant is told.
    #[test]
    fn unknown_names_are_refused_with_the_nearest_one() {
        for (file, meant) in [
            ("[http]\nmax_conections = 5", "http.max_connections"),
            ("max_connections = 5", "http.max_connections"),
            ("[storage]\nidle_timeout_ms = 5", "http.idle_timeout_ms"),
            ("[sotrage]\nhot_keys_max = 5", "storage"),
            ("liste = \"x\"", "listen"),
        ] {
            let problems = problems(typed(file));
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert!(problems[0].contains("did you mean") && problems[0].contains(meant), "{problems:?}");
        }
        assert!(!problems(typed("completely_different = 1"))[0].contains("did you mean"));
        let warned = Typed { environment: variables(&[("KEYWARD_LOG_LEVLE", "debug")]), ..Typed::default() };
        assert_eq!(
            warned.read().expect("only a warning").warnings,
            ["the environment variable KEYWARD_LOG_LEVLE is no setting and was ignored; did you mean KEYWARD_LOG_LEVEL?"]
        );
    }

    /// Configuration is refused as a whole: every problem is listed, each with its place and its bounds.
    #[test]
    fn every_problem_is_named_at_once() {
        let problems = problems(Typed {
            environment: variables(&[("KEYWARD_LOG_LEVEL", "loud"), (ROOT_KEY_VARIABLE, "short")]),
            listen: Some("7070".to_owned()),
            ..typed("test_mode = 1\n[http]\nmax_connections = 0\ntrusted_proxies = [\"10.0.0.0/33\"]")
        });
        let text = problems.join("\n");
        for part in [
            "test_mode, from keyward.toml: must be true or false, not integer",
            "http.max_connections, from keyward.toml: must be from 1 to 1000000, not 0",
            "`10.0.0.0/33` is neither an address nor a network",
            "log.level, from the environment variable KEYWARD_LOG_LEVEL: must be `error` or",
            "KEYWARD_ROOT_KEY must have at least 20 characters",
            "listen, from the flag --listen: must be HOST:PORT",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(problems.len(), 6, "{text}");
        assert!(!text.contains("short"), "a secret is never echoed");
    }

    /// The published file is the one the code generates, and what it says by default is the default.
    /// `KEYWARD_REGENERATE=1` in the environment of the test rewrites it.
    #[test]
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
        let settings = generated.lines().filter(|line| line.starts_with('#') && line[1..].starts_with(char::is_alphabetic));
        assert_eq!(settings.count(), SETTINGS.len());
        assert_eq!(typed(&uncommented).read().expect("defaults are within their bounds").settings, Settings::default());
    }

    /// Secrets of the settings never reach a log by way of their debug text.
    #[test]
    fn the_root_key_is_never_printed() {
        let key = "a-root-key-of-thirty-characters";
        let reading = Typed { environment: variables(&[(ROOT_KEY_VARIABLE, key)]), ..Typed::default() }.read().expect("fine");
        assert_eq!(reading.settings.first_root_key.as_ref().map(Secret::expose), Some(key));
        assert!(!format!("{reading:?}").contains(key));
    }
}
