//! Which server a command of `keyward api` asks, and with which credential.
//!
//! A root key comes from a flag, the environment or the file of `keyward auth login`, in this order. The stored key
//! belongs to the stored URL: it is not sent to any other server.

pub mod stored;

use std::io::{self, BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};

use crate::config::{API_URL_VARIABLE, PORTAL_SESSION_VARIABLE, ROOT_KEY_VARIABLE, Secret};
use crate::server_url::ServerUrl;

/// Where a server answers unless somebody says otherwise: `keyward serve`'s own default.
const DEFAULT_URL: &str = "http://127.0.0.1:7070";
/// The file of `keyward auth login`, below the home directory.
const STORED_FILE: &str = ".keyward/config.toml";
/// Bytes of a credential: it has to fit a request's head.
const CREDENTIAL_BYTES_MAX: u64 = 8 * 1024;

/// Names that Unkey's own command line and SDKs read; keyward's come first.
const UNKEY_ROOT_KEY_VARIABLE: &str = "UNKEY_ROOT_KEY";
const UNKEY_URL_VARIABLES: [&str; 2] = ["UNKEY_API_URL", "UNKEY_API_BASE_URL"];

/// Flags that say which server.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct ServerArguments {
    /// Where the server answers [default: what `keyward auth login` stored, else http://127.0.0.1:7070] [env:
    /// KEYWARD_API_URL, UNKEY_API_URL]
    #[arg(long, value_name = "URL")]
    pub api_url: Option<String>,
    /// The file that `keyward auth login` wrote [default: ~/.keyward/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Flags that say which root key.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct KeyArguments {
    /// File whose first line is the root key, - for standard input [default: the environment's KEYWARD_ROOT_KEY or
    /// UNKEY_ROOT_KEY, else what `keyward auth login` stored]
    #[arg(long, value_name = "FILE", conflicts_with = "root_key")]
    pub root_key_file: Option<PathBuf>,
    /// The root key itself. Better not: other users of the machine see command lines, and shells remember them
    #[arg(long, value_name = "KEY")]
    pub root_key: Option<Secret>,
}

/// Flags that say which portal session.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Connection")]
pub struct SessionArguments {
    /// File whose first line is the portal session's access token, - for standard input [default: the environment's
    /// KEYWARD_PORTAL_SESSION]
    #[arg(long, value_name = "FILE", conflicts_with = "portal_session")]
    pub portal_session_file: Option<PathBuf>,
    /// The access token itself. Better not: other users of the machine see command lines, and shells remember them
    #[arg(long, value_name = "TOKEN")]
    pub portal_session: Option<Secret>,
}

/// What of the environment is looked at.
#[derive(Default)]
pub struct Environment(Vec<(String, String)>);

impl Environment {
    /// This process's own. A variable that is empty is as good as none.
    #[expect(
        clippy::disallowed_methods,
        reason = "the client's side of the command line reads its environment here, once"
    )]
    pub fn read() -> Environment {
        let wanted = |name: &str| name == "HOME" || name.starts_with("KEYWARD_") || name.starts_with("UNKEY_");
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Environment(texts.filter(|(name, value)| wanted(name) && !value.is_empty()).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The first of these variables that is set, with its name.
    fn first(&self, names: &[&'static str]) -> Option<(&'static str, &str)> {
        names.iter().find_map(|name| self.get(name).map(|value| (*name, value)))
    }
}

/// A root key, and where it was found, for messages.
#[derive(Debug, Clone)]
pub struct RootKey {
    /// The key.
    pub key: Secret,
    /// In words.
    pub source: String,
}

/// The server and what is known of credentials for it.
#[derive(Debug)]
pub struct Access {
    /// The file of `keyward auth login`; `None` where there is no home directory.
    pub config: Option<PathBuf>,
    /// The server.
    pub url: ServerUrl,
    /// Where the URL was found, in words.
    pub url_source: String,
    stored_key: StoredKey,
}

/// What the file holds.
#[derive(Debug)]
enum StoredKey {
    None,
    Key(Secret),
    /// A key, for that other URL.
    Elsewhere(String),
}

impl Access {
    /// Finds the server.
    ///
    /// # Errors
    /// A sentence about what was typed, set or stored.
    pub fn find(arguments: &ServerArguments, environment: &Environment) -> Result<Access, String> {
        let config = config_path(arguments.config.as_deref(), environment);
        let stored = config.as_deref().map(stored::read).transpose()?.flatten();
        if stored.is_none()
            && let Some(named) = &arguments.config
        {
            return Err(format!("there is no file {}; `keyward auth login --config` makes it", named.display()));
        }
        Access::of(arguments, environment, config, stored.unwrap_or_default())
    }

    /// The file of `keyward auth login`; `None` where there is no home directory and none is named.
    pub fn config_file(arguments: &ServerArguments, environment: &Environment) -> Option<PathBuf> {
        config_path(arguments.config.as_deref(), environment)
    }

    /// Finds the server for a command that writes the file: what is in it does not matter.
    ///
    /// # Errors
    /// A sentence about what was typed or set.
    pub fn find_for_login(arguments: &ServerArguments, environment: &Environment) -> Result<Access, String> {
        let config = config_path(arguments.config.as_deref(), environment);
        Access::of(arguments, environment, config, stored::Stored::default())
    }

    fn of(
        arguments: &ServerArguments,
        environment: &Environment,
        config: Option<PathBuf>,
        stored: stored::Stored,
    ) -> Result<Access, String> {
        let file = config.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let names = [API_URL_VARIABLE, UNKEY_URL_VARIABLES[0], UNKEY_URL_VARIABLES[1]];
        let (text, url_source) = match (&arguments.api_url, environment.first(&names), &stored.api_url) {
            (Some(typed), _, _) => (typed.as_str(), "--api-url".to_owned()),
            (None, Some((name, set)), _) => (set, format!("the environment variable {name}")),
            (None, None, Some(stored)) => (stored.as_str(), file),
            (None, None, None) => (DEFAULT_URL, "the built-in default".to_owned()),
        };
        let url = ServerUrl::parse(text).map_err(|why| format!("{why} (from {url_source})"))?;
        let its_url = stored.api_url.as_deref().unwrap_or(DEFAULT_URL);
        let stored_key = match stored.root_key {
            None => StoredKey::None,
            Some(key) if ServerUrl::parse(its_url).as_ref() == Ok(&url) => StoredKey::Key(key),
            Some(_) => StoredKey::Elsewhere(its_url.to_owned()),
        };
        Ok(Access { config, url, url_source, stored_key })
    }

    /// The root key to send.
    ///
    /// # Errors
    /// A sentence that says how to give one.
    pub fn root_key(&self, arguments: &KeyArguments, environment: &Environment) -> Result<RootKey, String> {
        let found = |key: Secret, source: String| RootKey { key, source };
        let file = self.config.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let root_key = if let Some(path) = &arguments.root_key_file {
            found(read_credential(path)?, path.display().to_string())
        } else if let Some(typed) = &arguments.root_key {
            found(typed.clone(), "--root-key".to_owned())
        } else if let Some((name, set)) = environment.first(&[ROOT_KEY_VARIABLE, UNKEY_ROOT_KEY_VARIABLE]) {
            found(Secret::new(set), format!("the environment variable {name}"))
        } else {
            match &self.stored_key {
                StoredKey::Key(key) => found(key.clone(), file),
                StoredKey::Elsewhere(its_url) => {
                    return Err(format!(
                        "the root key in {file} is for {its_url} and is not sent to {}: give one for that server with \
                         --root-key-file or {ROOT_KEY_VARIABLE}, or log in there",
                        self.url
                    ));
                }
                StoredKey::None => {
                    return Err(format!(
                        "there is no root key: set {ROOT_KEY_VARIABLE}, name its file with --root-key-file (the first \
                         one's is root.key in the data directory), or store one with `keyward auth login`"
                    ));
                }
            }
        };
        check_credential(&root_key.key).map_err(|why| format!("the root key from {} {why}", root_key.source))?;
        Ok(root_key)
    }
}

/// The portal session's access token to send.
///
/// # Errors
/// A sentence that says how to give one.
pub fn portal_session(arguments: &SessionArguments, environment: &Environment) -> Result<Secret, String> {
    let token = match (&arguments.portal_session_file, &arguments.portal_session) {
        (Some(path), _) => read_credential(path)?,
        (None, Some(typed)) => typed.clone(),
        (None, None) => environment.get(PORTAL_SESSION_VARIABLE).map(Secret::new).ok_or_else(|| {
            format!(
                "there is no portal session: set {PORTAL_SESSION_VARIABLE}, or name the file of its access token with \
                 --portal-session-file"
            )
        })?,
    };
    check_credential(&token).map_err(|why| format!("the portal session's access token {why}"))?;
    Ok(token)
}

fn config_path(named: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    named
        .map_or_else(|| environment.get("HOME").map(|home| Path::new(home).join(STORED_FILE)), |path| Some(path.into()))
}

/// Reads the first line of a file, or of standard input for `-`, where a terminal does not show it.
///
/// # Errors
/// A sentence: it cannot be read, or is no short text.
pub fn read_credential(path: &Path) -> Result<Secret, String> {
    if path == Path::new("-") {
        return ask_for_secret("Secret (not shown): ");
    }
    secret_of(std::fs::File::open(path).and_then(first_line), &path.display().to_string())
}

/// Asks for a secret: without echo at a terminal, one line otherwise.
///
/// # Errors
/// A sentence: nobody answers, or the terminal cannot be told to hide what is typed.
pub fn ask_for_secret(question: &str) -> Result<Secret, String> {
    let stdin = io::stdin();
    if stdin.is_terminal() {
        secret_of(hidden_line(&stdin, question), "the terminal")
    } else {
        secret_of(first_line(stdin), "standard input")
    }
}

fn secret_of(line: io::Result<String>, place: &str) -> Result<Secret, String> {
    match line.as_deref().map(str::trim) {
        Ok("") => Err(format!("the first line of {place} is empty")),
        Ok(line) => Ok(Secret::new(line)),
        Err(error) => Err(format!("cannot read {place}: {error}")),
    }
}

/// The first line; what comes behind it is not waited for.
fn first_line(from: impl Read) -> io::Result<String> {
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = Vec::new();
    BufReader::new(from.take(CREDENTIAL_BYTES_MAX + 1)).read_until(b'\n', &mut line)?;
    if line.len() as u64 > CREDENTIAL_BYTES_MAX {
        return Err(wrong("its first line is too long for a credential"));
    }
    String::from_utf8(line).map_err(|_| wrong("it is not text"))
}

/// A credential goes into one line of a request's head.
///
/// # Errors
/// What is wrong with it, without telling it.
pub fn check_credential(credential: &Secret) -> Result<(), &'static str> {
    let text = credential.expose();
    if text.is_empty() {
        Err("is empty")
    } else if text.len() as u64 > CREDENTIAL_BYTES_MAX {
        Err("is too long")
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err("holds white space or other characters that no credential has")
    } else {
        Ok(())
    }
}

/// The answer to a question, not shown while it is typed; only its end is. Whoever interrupts the program is back in a shell, which
/// gives the terminal its echo back.
fn hidden_line(stdin: &io::Stdin, question: &str) -> io::Result<String> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let before = tcgetattr(stdin)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    hidden.local_modes.insert(LocalModes::ECHONL);
    tcsetattr(stdin, OptionalActions::Flush, &hidden)?;
    // Asked only now: who answers at once is not shown either.
    super::ask::prompt(question);
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    tcsetattr(stdin, OptionalActions::Flush, &before)?;
    read.map(|_| line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    fn stored(api_url: Option<&str>, root_key: Option<&str>) -> stored::Stored {
        stored::Stored { api_url: api_url.map(str::to_owned), root_key: root_key.map(Secret::new) }
    }

    fn find(api_url: Option<&str>, set: &[(&str, &str)], stored: stored::Stored) -> Access {
        let arguments = ServerArguments { api_url: api_url.map(str::to_owned), config: None };
        Access::of(&arguments, &environment(set), Some("/home/me/.keyward/config.toml".into()), stored).expect("found")
    }

    /// A flag beats the environment, keyward's names beat Unkey's, and both beat the file.
    #[test]
    fn the_nearest_source_wins() {
        let both = [("UNKEY_API_URL", "http://unkey"), ("KEYWARD_API_URL", "http://keyward")];
        assert_eq!(find(Some("http://flag"), &both, stored(Some("http://file"), None)).url.to_string(), "http://flag");
        assert_eq!(find(None, &both, stored(Some("http://file"), None)).url.to_string(), "http://keyward");
        assert_eq!(find(None, &both[..1], stored(Some("http://file"), None)).url.to_string(), "http://unkey");
        assert_eq!(find(None, &[], stored(Some("http://file"), None)).url.to_string(), "http://file");
        assert_eq!(find(None, &[], stored(None, None)).url.to_string(), DEFAULT_URL);

        let access = find(None, &[], stored(None, Some("unkey_stored")));
        let key = |typed: Option<&str>, set: &[(&str, &str)]| {
            let arguments = KeyArguments { root_key: typed.map(Secret::new), root_key_file: None };
            access.root_key(&arguments, &environment(set)).map(|found| (found.key.expose().to_owned(), found.source))
        };
        let both = [("UNKEY_ROOT_KEY", "unkey_theirs"), ("KEYWARD_ROOT_KEY", "unkey_ours")];
        assert_eq!(key(Some("unkey_typed"), &both).expect("found").0, "unkey_typed");
        assert_eq!(key(None, &both).expect("found").0, "unkey_ours");
        assert_eq!(key(None, &both[..1]).expect("found").1, "the environment variable UNKEY_ROOT_KEY");
        assert_eq!(key(None, &[]).expect("found").0, "unkey_stored");
    }

    /// A stored key goes to the server it was stored for, however that is spelled, and to no other.
    #[test]
    fn a_stored_key_stays_with_its_server() {
        let file = || stored(Some("http://keys.internal:80"), Some("unkey_stored"));
        let none = (KeyArguments::default(), Environment::default());
        for same in [None, Some("http://KEYS.internal/")] {
            assert!(find(same, &[], file()).root_key(&none.0, &none.1).is_ok());
        }
        let told = find(Some("http://elsewhere"), &[], file()).root_key(&none.0, &none.1).expect_err("another server");
        assert!(told.contains("http://keys.internal") && !told.contains("unkey_stored"), "{told}");
        let told = find(None, &[], stored(None, None)).root_key(&none.0, &none.1).expect_err("there is none");
        assert!(told.contains("KEYWARD_ROOT_KEY") && told.contains("auth login"), "{told}");
    }

    /// What cannot be in a header is refused, and not told.
    #[test]
    fn credentials_are_one_word() {
        for (key, why) in [("a b", "white space"), ("a\r\nEvil: 1", "white space"), ("", "empty"), ("ä", "characters")]
        {
            let arguments = KeyArguments { root_key: Some(Secret::new(key)), root_key_file: None };
            let told =
                find(None, &[], stored(None, None)).root_key(&arguments, &environment(&[])).expect_err("refused");
            assert!(told.contains(why) && !told.contains("Evil"), "{told}");
        }
        for text in ["unkey_1\n", " unkey_1 \r\nmore", "unkey_1"] {
            assert_eq!(secret_of(first_line(text.as_bytes()), "x"), Ok(Secret::new("unkey_1")), "{text:?}");
        }
        for (bytes, why) in
            [(&b""[..], "empty"), (b" \nx", "empty"), (&[b'x'; 10_000], "too long"), (b"\xff\n", "text")]
        {
            assert!(secret_of(first_line(bytes), "x").is_err_and(|told| told.contains(why)), "{why}");
        }
    }

    /// A portal session's token comes from a flag or the environment, and is never a root key by mistake.
    #[test]
    fn a_portal_session_has_sources_of_its_own() {
        let of = |typed: Option<&str>, set: &[(&str, &str)]| {
            let typed = typed.map(Secret::new);
            let arguments = SessionArguments { portal_session: typed, portal_session_file: None };
            portal_session(&arguments, &environment(set)).map(|token| token.expose().to_owned())
        };
        let set = [("KEYWARD_PORTAL_SESSION", "set"), ("KEYWARD_ROOT_KEY", "unkey_1")];
        assert_eq!(of(Some("typed"), &set).as_deref(), Ok("typed"));
        assert_eq!(of(None, &set).as_deref(), Ok("set"));
        assert!(of(None, &set[1..]).is_err_and(|told| told.contains("KEYWARD_PORTAL_SESSION")));
        assert!(of(Some("a; b"), &[]).is_err_and(|told| told.contains("access token")));
    }
}
