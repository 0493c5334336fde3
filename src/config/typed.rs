//! What the user typed, read and judged as a whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::table::{Kind, SETTINGS, Setting, Value, describe, find, join_words};
use super::unkey::{ALIASES, UNUSED};
use super::{Listen, Secret, Settings, Transport};
use crate::server_url::without_credentials;

/// Begins the name of every environment variable this program reads.
const ENVIRONMENT_PREFIX: &str = "KEYWARD_";
/// Names the settings file, like the flag `--config`.
pub const CONFIG_VARIABLE: &str = "KEYWARD_CONFIG";
/// Holds the first workspace's root key (EXT-1).
pub const ROOT_KEY_VARIABLE: &str = "KEYWARD_ROOT_KEY";
/// Holds the master key, or several (EXT-6).
pub const MASTER_KEY_VARIABLE: &str = "KEYWARD_MASTER_KEY";
/// Holds the pepper, or several.
pub const PEPPER_VARIABLE: &str = "KEYWARD_PEPPER";
/// Holds the token that nodes of a replicated store know each other by.
pub const REPLICATION_TOKEN_VARIABLE: &str = "KEYWARD_REPLICATION_TOKEN";
/// Holds headers for the collector of telemetry, one a line.
pub const OTLP_HEADERS_VARIABLE: &str = "KEYWARD_OTLP_HEADERS";
/// Names the server that `keyward api` asks.
pub const API_URL_VARIABLE: &str = "KEYWARD_API_URL";
/// Holds the access token of the portal session that `keyward api portal` uses.
pub const PORTAL_SESSION_VARIABLE: &str = "KEYWARD_PORTAL_SESSION";
/// What the command line reads as a client: no settings, and nothing to remark on.
/// Settings whose flags are declared where they are used; all others have one made from their name.
pub(super) const OWN_FLAGS: &[(&str, &str)] = &[
    ("data_dir", "--data-dir"),
    ("listen", "--listen"),
    ("test_mode", "--test-mode"),
    ("master_key_file", "--master-key-file"),
    ("pepper_file", "--pepper-file"),
];
const CLIENT_VARIABLES: [&str; 2] = [API_URL_VARIABLE, PORTAL_SESSION_VARIABLE];
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
    /// `--master-key-file`
    pub master_key_file: Option<String>,
    /// `--pepper-file`
    pub pepper_file: Option<String>,
    /// Flags made from the names of settings: those names, and what was typed.
    pub flags: Vec<(&'static str, String)>,
    /// The directory that systemd puts this service's credentials in.
    pub credentials_dir: Option<PathBuf>,
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
    /// Where settings were typed that are not at their defaults.
    pub places: BTreeMap<&'static str, String>,
    /// The settings file.
    pub file: Option<PathBuf>,
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
                Err(error) => {
                    problems.push(format!("{name} is not well-formed TOML: {}", error.to_string().trim_end()))
                }
            }
        }
        let mut settings = Settings::default();
        settings.secrets.credentials_dir = self.credentials_dir;
        from_unkey(&self.environment, &mut given, &mut warnings, &mut problems);
        for (variable, text) in &self.environment {
            if variable == ROOT_KEY_VARIABLE {
                match check_root_key(text) {
                    Ok(()) => settings.first_root_key = Some(Secret(text.clone())),
                    Err(problem) => problems.push(format!("{ROOT_KEY_VARIABLE} {problem}")),
                }
            } else if variable == MASTER_KEY_VARIABLE {
                settings.secrets.master_key = Some(Secret(text.clone()));
            } else if variable == PEPPER_VARIABLE {
                settings.secrets.pepper = Some(Secret(text.clone()));
            } else if variable == REPLICATION_TOKEN_VARIABLE {
                settings.secrets.replication_token = Some(Secret(text.clone()));
            } else if variable == OTLP_HEADERS_VARIABLE {
                settings.secrets.otlp_headers = Some(Secret(text.clone()));
            } else if variable != CONFIG_VARIABLE
                && !CLIENT_VARIABLES.contains(&variable.as_str())
                && variable.starts_with(ENVIRONMENT_PREFIX)
            {
                match SETTINGS.iter().copied().find(|setting| variable_name(setting.key) == *variable) {
                    Some(setting) => {
                        from_text(
                            setting,
                            text,
                            format!("the environment variable {variable}"),
                            &mut given,
                            &mut problems,
                        );
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
            ("master_key_file", "--master-key-file", self.master_key_file),
            ("pepper_file", "--pepper-file", self.pepper_file),
        ] {
            if let Some(text) = text {
                let setting = find(key).expect("flags stand for settings of the table");
                from_text(setting, &text, format!("the flag {flag}"), &mut given, &mut problems);
            }
        }
        for (key, text) in self.flags {
            let setting = find(key).expect("flags are made from the table");
            from_text(setting, &text, format!("the flag --{}", flag_name(key)), &mut given, &mut problems);
        }
        let mut places = BTreeMap::new();
        for (key, (place, value)) in given {
            let setting = find(key).expect("only settings of the table were collected");
            match (setting.put)(&mut settings, value) {
                Ok(()) => drop(places.insert(key, place)),
                Err(problem) => problems.push(format!("{key}, from {place}: {problem}")),
            }
        }
        check_together(&settings, &mut problems);
        let file = self.file.map(|(name, _)| PathBuf::from(name));
        if problems.is_empty() {
            return Ok(Reading { settings, warnings, places, file });
        }
        // What was typed is quoted, and it may be a URL with a password in it.
        Err(ConfigError(problems.iter().map(|problem| without_credentials(problem)).collect()))
    }
}

/// What is right by itself and wrong together.
fn check_together(settings: &Settings, problems: &mut Vec<String>) {
    let tls = &settings.tls;
    let key = !tls.key_file.as_os_str().is_empty();
    if tls.is_on() != key {
        let (there, missing) = if key { ("tls.key_file", "tls.cert_file") } else { ("tls.cert_file", "tls.key_file") };
        problems.push(format!("{there} is set and {missing} is not; TLS needs both"));
    }
    let encrypted = |listen: &Listen| matches!(listen, Listen::Tcp { transport: Transport::Tls, .. });
    if !tls.is_on() && !key && (tls.client_ca_file.is_some() || settings.listen.iter().any(encrypted)) {
        let why =
            if tls.client_ca_file.is_some() { "tls.client_ca_file is set" } else { "listen has an https:// address" };
        problems.push(format!("{why}, and tls.cert_file and tls.key_file are not; TLS needs both"));
    }
    settings.replication.check(tls.is_on(), problems);
}

/// Whether an environment variable of this name is looked at.
pub fn reads_variable(variable: &str) -> bool {
    let is_known = || {
        ALIASES.iter().any(|alias| alias.variable == variable) || UNUSED.iter().any(|(unused, _)| *unused == variable)
    };
    variable.starts_with(ENVIRONMENT_PREFIX) || variable.starts_with("UNKEY_") || is_known()
}

/// `http.max_connections` is `KEYWARD_HTTP_MAX_CONNECTIONS` in the environment.
pub(super) fn variable_name(key: &str) -> String {
    format!("{ENVIRONMENT_PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// `http.max_connections` is `--http-max-connections` on the command line.
pub(super) fn flag_name(key: &str) -> String {
    key.replace(['.', '_'], "-")
}

/// Collects what Unkey's own variables give.
fn from_unkey(
    environment: &[(String, String)],
    given: &mut BTreeMap<&'static str, (String, Value)>,
    warnings: &mut Vec<String>,
    problems: &mut Vec<String>,
) {
    for (variable, text) in environment {
        if let Some(alias) = ALIASES.iter().find(|alias| alias.variable == variable) {
            let setting = find(alias.setting).expect("aliases stand for settings of the table");
            let place = format!("the environment variable {variable}");
            match (alias.take)(text) {
                Ok(text) => from_text(setting, &text, place, given, problems),
                Err(problem) => problems.push(format!("{}, from {place}: {problem}", alias.setting)),
            }
        } else if let Some((_, why)) = UNUSED.iter().find(|(unused, _)| unused == variable) {
            warnings.push(format!("the environment variable {variable} has no effect: {why}"));
        }
    }
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
        (Kind::Ratio, toml::Value::Float(ratio)) => a_ratio(*ratio),
        (Kind::Ratio, toml::Value::Integer(ratio @ 0..=1)) => a_ratio(*ratio as f64),
        (Kind::List, toml::Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<String>>>()
            .map(Value::List)
            .ok_or_else(wanted),
        (Kind::List, toml::Value::String(text)) => Ok(Value::List(split(text))),
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
        Kind::Ratio => text.parse().map_err(|_| wanted()).and_then(a_ratio),
        Kind::List => Ok(Value::List(split(text))),
    };
    match value {
        Ok(value) => {
            given.insert(setting.key, (place, value));
        }
        Err(problem) => problems.push(format!("{}, from {place}: {problem}", setting.key)),
    }
}

/// The items of a list that was typed as one text.
fn split(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn one_of(words: &[&str], text: &str) -> Result<Value, String> {
    if words.contains(&text) {
        Ok(Value::Text(text.to_owned()))
    } else {
        Err(format!("must be {}, not `{text}`", join_words(words)))
    }
}

fn a_ratio(ratio: f64) -> Result<Value, String> {
    if (0.0..=1.0).contains(&ratio) {
        Ok(Value::Ratio(ratio))
    } else {
        Err(format!("must be {}, not {ratio}", describe(&Kind::Ratio)))
    }
}

fn in_bounds(min: u64, max: u64, number: i128) -> Result<Value, String> {
    match u64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        _ => Err(format!("must be from {min} to {max}, not {number}")),
    }
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
    let others = [
        CONFIG_VARIABLE,
        ROOT_KEY_VARIABLE,
        MASTER_KEY_VARIABLE,
        PEPPER_VARIABLE,
        REPLICATION_TOKEN_VARIABLE,
        OTLP_HEADERS_VARIABLE,
    ]
    .map(str::to_owned);
    if let Some(nearest) = nearest(variable, known.chain(others)) {
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

fn check_root_key(text: &str) -> Result<(), String> {
    if text.chars().count() < ROOT_KEY_CHARS_MIN {
        return Err(format!("must have at least {ROOT_KEY_CHARS_MIN} characters"));
    }
    if text.len() > ROOT_KEY_BYTES_MAX {
        return Err(format!("must have at most {ROOT_KEY_BYTES_MAX} bytes"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        return Err(
            "must not begin or end with white space nor hold control characters: no client could send it".to_owned()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;

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
            [
                "the environment variable KEYWARD_LOG_LEVLE is no setting and was ignored; did you mean KEYWARD_LOG_LEVEL?"
            ]
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
            "log.level, from the environment variable KEYWARD_LOG_LEVEL: must be `error`, `warn`, `info`, `debug` or `trace`",
            "KEYWARD_ROOT_KEY must have at least 20 characters",
            "listen, from the flag --listen: must be HOST:PORT",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(problems.len(), 6, "{text}");
        assert!(!text.contains("short"), "a secret is never echoed");
    }

    /// A list may be one text; what belongs together is asked for together.
    #[test]
    fn places_to_listen_at_are_read_and_tls_is_whole() {
        let read = |file: &str| typed(file).read().map(|reading| reading.settings);
        let settings = read("listen = \"127.0.0.1:7070, [::1]:7070\"").expect("fine");
        assert_eq!(settings.listen.iter().map(Listen::to_string).collect::<Vec<_>>(), ["127.0.0.1:7070", "[::1]:7070"]);
        let both = "[tls]\ncert_file = \"c\"\nkey_file = \"k\"";
        let places = ["http://127.0.0.1:1", "https://127.0.0.1:2", "unix:/run/keyward/http.sock", "127.0.0.1:3"];
        let settings = read(&format!("listen = {places:?}\n{both}")).expect("fine");
        assert_eq!(settings.listen.iter().map(Listen::to_string).collect::<Vec<_>>(), places);
        assert!(settings.tls.is_on());
        for (file, part) in [
            ("listen = []", "names no place"),
            ("listen = [\"unix:relative\"]", "whole path"),
            ("listen = [\"ftp://127.0.0.1:1\"]", "neither http://"),
            ("listen = [\"https://127.0.0.1:1\"]", "tls.cert_file and tls.key_file are not"),
            ("[tls]\ncert_file = \"c\"", "tls.key_file is not"),
            ("[tls]\nkey_file = \"c\"", "tls.cert_file is not"),
            ("[tls]\nclient_ca_file = \"c\"", "TLS needs both"),
            ("[http]\nunix_socket_mode = \"0990\"", "in octal"),
        ] {
            let problems = problems(typed(file));
            assert!(problems.len() == 1 && problems[0].contains(part), "{file}: {problems:?}");
        }
    }

    /// Secrets of the settings never reach a log by way of their debug text.
    #[test]
    fn the_root_key_is_never_printed() {
        let key = "a-root-key-of-thirty-characters";
        let reading =
            Typed { environment: variables(&[(ROOT_KEY_VARIABLE, key)]), ..Typed::default() }.read().expect("fine");
        assert_eq!(reading.settings.first_root_key.as_ref().map(Secret::expose), Some(key));
        assert!(!format!("{reading:?}").contains(key));
    }
}
