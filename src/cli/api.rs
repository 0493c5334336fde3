//! `keyward api <family> <operation>`: every operation of the table as a command.
//!
//! Nothing here knows an operation by name: commands, flags and their help are made at run time from [`OPERATIONS`] and
//! each request's schema, with the names that Unkey's own command line uses. What is typed is judged by the operation's
//! own check before it is sent, so that a wrong flag costs no request.

mod explain;
mod members;
mod reply;
mod rows;

use std::fmt;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::access::{self, Access, Environment, KeyArguments, ServerArguments, SessionArguments};
use super::ask::Output;
use super::{EXIT_ERROR, EXIT_USAGE, fail};
use crate::api::operation::Credential;
use crate::api::{Entry, OPERATIONS};
use crate::http_client;
use members::Members;
pub use reply::{Failure, Reply};
use rows::{Format, has_rows};

/// The flag that sends a whole body.
const BODY: &str = "body-json";

/// What `keyward api --help` says after the families.
const AFTER_HELP: &str = "\
Flags are the members of an operation's request: apiId is --api-id; a list of words is --roles a,b (one flag, or several; an \
empty value is an empty list); an object, or a list of objects, is JSON: --meta-json '{\"plan\":\"pro\"}', --meta-json @FILE \
or --meta-json - for standard input. A member that may be null has a flag --NAME-null that sends null. --body-json sends a \
whole body as it is.

Answers go to standard output: the data alone, or with --output json the whole reply exactly as it came, refusals too. \
Everything else goes to standard error.

Exit codes: 0 the operation was carried out (a key that is not valid is an answer, too: look at `valid`), 1 it was refused \
or failed, 2 wrong usage, 3 no server could be reached, so nothing was asked.";

/// Flags of every operation.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Answer")]
struct AnswerArguments {
    /// What to print: the data for people, or the whole reply exactly as it came
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Flags of operations that answer with rows.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Answer")]
struct RowsArguments {
    /// How rows are printed [default: table at a terminal, json elsewhere]
    #[arg(long, value_enum, conflicts_with = "output")]
    format: Option<Format>,
}

/// `keyward api`: an operation, and what was typed for it.
pub struct ApiArguments {
    entry: &'static Entry,
    matches: ArgMatches,
}

impl fmt::Debug for ApiArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What was typed may hold secrets.
        f.debug_tuple("ApiArguments").field(&self.entry).finish()
    }
}

impl Args for ApiArguments {
    fn augment_args(command: Command) -> Command {
        let mut families: Vec<&'static str> = Vec::new();
        for entry in OPERATIONS {
            if !families.contains(&entry.family) {
                families.push(entry.family);
            }
        }
        command
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand_value_name("FAMILY")
            .subcommand_help_heading("Families of operations")
            .after_help(AFTER_HELP)
            .subcommands(families.into_iter().map(|family| {
                // Only the family that was typed has its schemas made.
                Command::new(kebab(family)).about(format!("The operations {family}.*")).defer(with_operations)
            }))
    }

    fn augment_args_for_update(command: Command) -> Command {
        ApiArguments::augment_args(command)
    }
}

impl FromArgMatches for ApiArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (family, matches) = matches.subcommand().ok_or_else(missing)?;
        let (procedure, matches) = matches.subcommand().ok_or_else(missing)?;
        let is_it = |entry: &&&Entry| kebab(entry.family) == family && kebab(entry.procedure) == procedure;
        let entry = OPERATIONS.iter().find(is_it).ok_or_else(missing)?;
        Ok(ApiArguments { entry, matches: matches.clone() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = ApiArguments::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Gives a family's command its operations.
fn with_operations(family: Command) -> Command {
    let name = family.get_name().to_owned();
    family
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand_value_name("OPERATION")
        .subcommand_help_heading("Operations")
        .subcommands(OPERATIONS.iter().filter(|entry| kebab(entry.family) == name).map(|entry| command_of(entry)))
}

/// An operation as a command.
fn command_of(entry: &'static Entry) -> Command {
    let members = Members::of(entry);
    let whole = Arg::new(BODY)
        .long(BODY)
        .visible_alias("body")
        .value_name("JSON|@FILE|-")
        .help("The whole body, sent as it is, in place of all flags above")
        .help_heading("Request")
        .allow_hyphen_values(false)
        .conflicts_with_all(members.ids());
    let command = Command::new(kebab(entry.procedure)).args(members.arguments()).arg(whole);
    let command = ServerArguments::augment_args(command);
    let command = match entry.credential {
        Credential::RootKey => KeyArguments::augment_args(command),
        Credential::PortalSession => SessionArguments::augment_args(command),
        Credential::None => command,
    };
    let command = AnswerArguments::augment_args(command);
    let command = if has_rows(entry) { RowsArguments::augment_args(command) } else { command };
    let mut long = format!("{}.", entry.summary);
    if !entry.description.is_empty() {
        long.push_str("\n\n");
        long.push_str(entry.description);
    }
    let mut after = String::new();
    if !entry.allows.is_empty() {
        after.push_str("Permissions that open it:\n");
        entry.allows.iter().for_each(|permission| after.push_str(&format!("  {permission}\n")));
        after.push('\n');
    }
    after.push_str(&format!("POST {}", entry.path));
    command.about(entry.summary).long_about(long).after_help(after)
}

/// `createKey` as `create-key`.
fn kebab(camel: &str) -> String {
    let signs: Vec<char> = camel.chars().collect();
    let mut kebab = String::with_capacity(camel.len() + 4);
    for (at, sign) in signs.iter().enumerate() {
        // A capital begins a word, and so does the last of several before a small letter.
        let begins = at > 0
            && sign.is_uppercase()
            && (!signs[at - 1].is_uppercase() || signs.get(at + 1).is_some_and(|next| next.is_lowercase()));
        if begins {
            kebab.push('-');
        }
        kebab.extend(sign.to_lowercase());
    }
    kebab
}

/// Runs `keyward api`.
pub fn run(arguments: ApiArguments) -> ExitCode {
    let ApiArguments { entry, matches } = arguments;
    match ask(entry, &matches) {
        Ok((reply, url)) => answer(entry, &reply, &matches, &url),
        Err(Failure { code, reasons }) => fail(code, reasons),
    }
}

/// Sends what was typed; the reply, and what it was sent to.
fn ask(entry: &'static Entry, matches: &ArgMatches) -> Result<(Reply, String), Failure> {
    let usage = |reason: String| Failure::new(EXIT_USAGE, reason);
    let typed = |error: clap::Error| usage(error.to_string());
    let members = Members::of(entry);
    let mut stdin = members::Stdin::default();
    let key = match entry.credential {
        Credential::RootKey => KeyArguments::from_arg_matches(matches).map_err(typed)?,
        _ => KeyArguments::default(),
    };
    let session = match entry.credential {
        Credential::PortalSession => SessionArguments::from_arg_matches(matches).map_err(typed)?,
        _ => SessionArguments::default(),
    };
    for (file, flag) in [(&key.root_key_file, "root-key-file"), (&session.portal_session_file, "portal-session-file")] {
        if file.as_deref() == Some(Path::new("-")) {
            stdin.take(flag).map_err(usage)?;
        }
    }
    let body = members.body(matches, &mut stdin).map_err(|mut reasons| {
        let (family, procedure) = (kebab(entry.family), kebab(entry.procedure));
        reasons.push(format!("`keyward api {family} {procedure} --help` lists the flags"));
        Failure { code: EXIT_USAGE, reasons }
    })?;
    let environment = Environment::read();
    let server = ServerArguments::from_arg_matches(matches).map_err(typed)?;
    let access = Access::find(&server, &environment).map_err(usage)?;
    let header = match entry.credential {
        Credential::RootKey => {
            let root_key = access.root_key(&key, &environment).map_err(usage)?;
            Some(("Authorization", format!("Bearer {}", root_key.key.expose())))
        }
        Credential::PortalSession => {
            let token = access::portal_session(&session, &environment).map_err(usage)?;
            Some(("Cookie", format!("portal_session={}", token.expose())))
        }
        Credential::None => None,
    };
    let headers: Vec<(&str, &str)> = header.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let reply = send(&access, entry.path, &headers, body.as_bytes())?;
    Ok((reply, access.url.to_string()))
}

/// Sends a body and reads a keyward's reply.
///
/// # Errors
/// There is none: the server was not reached, or is no keyward.
pub fn send(access: &Access, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Reply, Failure> {
    match http_client::post(&access.url, path, headers, body) {
        Ok(answer) => Reply::read(answer).map_err(|what| explain::no_keyward(access, &what)),
        Err(error) => Err(explain::no_answer(access, &error)),
    }
}

/// Prints a reply, and says what a refusal means.
fn answer(entry: &'static Entry, reply: &Reply, matches: &ArgMatches, url: &str) -> ExitCode {
    let output = AnswerArguments::from_arg_matches(matches).map_or(Output::Text, |answer| answer.output);
    let format = match has_rows(entry) {
        true => RowsArguments::from_arg_matches(matches).ok().and_then(|rows| rows.format),
        false => Some(Format::Json),
    };
    let printed = reply.print(output, format);
    match reply.refusal() {
        None => printed,
        Some(refusal) => {
            let reasons = explain::refusal(entry, &refusal, reply.request_id(), url);
            fail(EXIT_ERROR, reasons)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kebab_case() {
        for (camel, kebabed) in [
            ("createKey", "create-key"),
            ("rootKeys", "root-keys"),
            ("whoami", "whoami"),
            ("apiId", "api-id"),
            ("ipWhitelist", "ip-whitelist"),
            ("getURL", "get-url"),
            ("getURLOf", "get-url-of"),
            ("sha256Of", "sha256-of"),
        ] {
            assert_eq!(kebab(camel), kebabed);
        }
    }

    /// clap's own rules hold for every operation: no flag twice, no flag that conflicts with one that is not there. And no
    /// two operations are one command.
    #[test]
    fn every_operation_makes_a_sound_command() {
        let mut tree = ApiArguments::augment_args(Command::new("api"));
        tree.build();
        tree.clone().debug_assert();
        let commands: usize = tree
            .get_subcommands()
            .filter(|family| family.get_name() != "help")
            .map(|family| family.get_subcommands().filter(|operation| operation.get_name() != "help").count())
            .sum();
        assert_eq!(commands, OPERATIONS.len());
    }
}
