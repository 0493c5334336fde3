//! `keyward auth …`: the root key that `keyward api` uses, kept in a file that its owner alone can read.

use std::process::ExitCode;

use serde_json::json;

use super::access::{
    Access, Environment, KeyArguments, RootKey, ServerArguments, ask_for_secret, check_credential, read_credential,
    stored,
};
use super::api::{self, Failure, Reply};
use super::ask::{Output, note, print_answer};
use super::{EXIT_ERROR, EXIT_UNREACHABLE, EXIT_USAGE, fail, text};
use crate::api::problem::{Code, TYPE_BASE};
use crate::config::Secret;

/// A question that any root key may ask and that changes nothing: an API that does not exist.
const CHECK_PATH: &str = "/v2/apis.getApi";
const CHECK_BODY: &str = r#"{"apiId":"api_doesThisRootKeyWork"}"#;

/// `keyward auth`.
#[derive(Debug, clap::Args)]
pub struct AuthArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Store a root key for `keyward api`: it is asked for without echo, or read as one line from a pipe
    Login(LoginArguments),
    /// Remove the stored root key
    Logout(LogoutArguments),
    /// Say which server and root key `keyward api` would use, and whether they work
    Status(StatusArguments),
}

#[derive(Debug, clap::Args)]
struct LoginArguments {
    #[command(flatten)]
    server: ServerArguments,
    /// File whose first line is the root key, in place of asking for it
    #[arg(long, value_name = "FILE")]
    root_key_file: Option<std::path::PathBuf>,
}

#[derive(Debug, clap::Args)]
struct LogoutArguments {
    /// The file that `keyward auth login` wrote [default: ~/.keyward/config.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
}

#[derive(Debug, clap::Args)]
struct StatusArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    key: KeyArguments,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs `keyward auth`.
pub fn run(arguments: AuthArguments) -> ExitCode {
    let environment = Environment::read();
    let outcome = match arguments.action {
        Action::Login(arguments) => login(&arguments, &environment),
        Action::Logout(arguments) => logout(arguments, &environment),
        Action::Status(arguments) => return status(&arguments, &environment),
    };
    match outcome {
        Ok(lines) => {
            note(lines);
            ExitCode::SUCCESS
        }
        Err(Failure { code, reasons }) => fail(code, reasons),
    }
}

fn login(arguments: &LoginArguments, environment: &Environment) -> Result<Vec<String>, Failure> {
    let usage = |reason: String| Failure::new(EXIT_USAGE, reason);
    let access = Access::find_for_login(&arguments.server, environment).map_err(usage)?;
    let path = access.config.clone().ok_or_else(no_home)?;
    let key = match &arguments.root_key_file {
        Some(path) => read_credential(path),
        None => ask_for_secret(&format!("Root key for {} (not shown): ", access.url)),
    };
    let key = key.map_err(usage)?;
    check_credential(&key).map_err(|why| usage(format!("the root key {why}")))?;
    let mut told = Vec::new();
    match check(&access, &key) {
        Ok(Judged::Accepted) => {}
        Ok(Judged::Refused(why)) => {
            let told = format!("the root key was not stored: {} does not take it: {why}", access.url);
            return Err(Failure::new(EXIT_ERROR, told));
        }
        Ok(Judged::Unknown(why)) => told.push(format!("warning: the root key was not checked: {why}")),
        Err(Failure { code: EXIT_UNREACHABLE, reasons }) => {
            told.push(format!("warning: the root key was not checked: {}", reasons.join("; ")));
        }
        Err(other) => return Err(other),
    }
    if !access.url.is_loopback() && !access.url.is_encrypted() {
        told.push(format!("warning: what is sent to {} is not encrypted, the root key included", access.url));
    }
    stored::write(&path, &access.url.to_string(), &key)
        .map_err(|error| Failure::new(EXIT_ERROR, format!("cannot write {}: {error}", path.display())))?;
    told.push(format!("the root key for {} is stored in {}, readable by you alone", access.url, path.display()));
    Ok(told)
}

fn logout(arguments: LogoutArguments, environment: &Environment) -> Result<Vec<String>, Failure> {
    let server = ServerArguments { config: arguments.config, api_url: None };
    let path = Access::config_file(&server, environment).ok_or_else(no_home)?;
    let shown = path.display();
    match stored::remove(&path) {
        Ok(true) => Ok(vec![format!("{shown} is removed; the root key itself works until it is revoked")]),
        Ok(false) => Ok(vec![format!("there is no {shown}, so nothing was stored there")]),
        Err(error) => Err(Failure::new(EXIT_ERROR, format!("cannot remove {shown}: {error}"))),
    }
}

fn no_home() -> Failure {
    Failure::new(EXIT_USAGE, "there is no home directory (HOME is not set): name the file with --config".to_owned())
}

fn status(arguments: &StatusArguments, environment: &Environment) -> ExitCode {
    let access = match Access::find(&arguments.server, environment) {
        Ok(access) => access,
        Err(reason) => return fail(EXIT_USAGE, [reason]),
    };
    let (source, code, state, why) = match access.root_key(&arguments.key, environment) {
        Err(why) => (None, EXIT_ERROR, "absent", Some(why)),
        Ok(RootKey { key, source }) => {
            let (code, state, why) = match check(&access, &key) {
                Ok(Judged::Accepted) => (0, "accepted", None),
                Ok(Judged::Refused(why)) => (EXIT_ERROR, "refused", Some(why)),
                Ok(Judged::Unknown(why)) => (EXIT_ERROR, "unknown", Some(why)),
                Err(Failure { code, reasons }) => (code, "unknown", Some(reasons.join("; "))),
            };
            (Some(source), code, state, why)
        }
    };
    let answer = match arguments.output {
        Output::Json => {
            let answer = json!({
                "apiUrl": access.url.to_string(),
                "apiUrlFrom": access.url_source,
                "config": access.config.as_ref().map(|path| path.display().to_string()),
                "rootKeyFrom": source,
                "rootKey": state,
            });
            format!("{answer}\n")
        }
        Output::Text => text::fields(&[
            ("server", format!("{} (from {})", access.url, access.url_source)),
            ("root key", source.map_or_else(|| "none".to_owned(), |source| format!("{state} (from {source})"))),
        ]),
    };
    let printed = print_answer(answer.as_bytes());
    match code {
        0 => printed,
        code => fail(code, why),
    }
}

/// What a server makes of a root key.
enum Judged {
    Accepted,
    Refused(String),
    /// It has no time for the question now.
    Unknown(String),
}

/// Asks the server whether it takes a root key.
fn check(access: &Access, key: &Secret) -> Result<Judged, Failure> {
    let bearer = format!("Bearer {}", key.expose());
    let reply = api::send(access, CHECK_PATH, &[("Authorization", &bearer)], CHECK_BODY.as_bytes())?;
    Ok(judge(&reply))
}

fn judge(reply: &Reply) -> Judged {
    let Some(refusal) = reply.refusal() else { return Judged::Accepted };
    let code = refusal.r#type.strip_prefix(TYPE_BASE).unwrap_or_default();
    // Whoever is told one of these was let in first.
    let past_the_door = [Code::ApiNotFound, Code::InsufficientPermissions, Code::WorkspaceRateLimited];
    if past_the_door.iter().any(|known| known.path() == code) {
        return Judged::Accepted;
    }
    if refusal.status == 404 && code == Code::InvalidInput.path() {
        return Judged::Refused("no API is at this URL; the URL is the server's own, without /v2".to_owned());
    }
    let told = text::printable(&format!("{} ({code})", refusal.detail));
    if refusal.status < 500 { Judged::Refused(told) } else { Judged::Unknown(told) }
}
