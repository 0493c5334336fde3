//! `keyward config …`: what is wrong with the settings, and what they are.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::ask::{Output, note, print_answer};
use super::doctor::{Finding, nodes};
use super::serve::ServeFlags;
use super::{EXIT_ERROR, EXIT_USAGE, fail};
use crate::config::{ConfigError, Reading, Settings, is_local};
use crate::otlp::headers::Headers;
use crate::outside::Outside;
use crate::pepper::Configured;
use crate::telemetry::error_chain;
use crate::tls::{Tls, files};
use crate::vault::Vault;

/// What is said of settings with which nothing is wrong.
const GOOD: &str = "the settings are good\n";

/// `keyward config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say what is wrong with the settings, and with the secrets and certificates that they name; nothing is started
    #[command(after_help = CHECK_HELP)]
    Check(Typed),
    /// Print every setting in force, and where it came from
    Show(Typed),
}

const CHECK_HELP: &str = "Run it as the user the server runs as. Exit code 2 says that settings are refused, 1 that they are good and \
    that a file they name cannot be used: a secret, a certificate. `keyward serve` ends in the same way.";

/// What `keyward serve` would be started with.
#[derive(Debug, clap::Args)]
struct Typed {
    #[command(flatten)]
    flags: ServeFlags,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs `keyward config`.
pub fn run(arguments: ConfigArguments) -> ExitCode {
    let (typed, is_check) = match arguments.action {
        Action::Check(typed) => (typed, true),
        Action::Show(typed) => (typed, false),
    };
    let mut reading = match typed.flags.read() {
        Ok(reading) => reading,
        Err(ConfigError(problems)) => {
            if typed.output == Output::Json {
                let answer = json!({ "good": false, "problems": problems, "warnings": [] });
                let _ = print_answer(format!("{answer}\n").as_bytes());
            }
            return fail(EXIT_USAGE, problems);
        }
    };
    if is_check {
        let Looked { unusable, remarks } = look_at_files(&reading.settings);
        reading.warnings.extend(remarks);
        if !unusable.is_empty() {
            if typed.output == Output::Json {
                let answer = json!({ "good": false, "problems": unusable, "warnings": reading.warnings });
                let _ = print_answer(format!("{answer}\n").as_bytes());
            }
            return fail(EXIT_ERROR, unusable);
        }
    }
    match typed.output {
        Output::Text => {
            note(reading.warnings.iter().map(|warning| format!("warning: {warning}")));
            let text = if is_check { GOOD.to_owned() } else { shown(&reading) };
            print_answer(text.as_bytes())
        }
        Output::Json => {
            let answer =
                json!({ "good": true, "problems": [], "warnings": reading.warnings, "settings": values(&reading) });
            print_answer(format!("{answer}\n").as_bytes())
        }
    }
}

/// What is said of the files that settings name.
#[derive(Default)]
struct Looked {
    /// Those that the server would not start with.
    unusable: Vec<String>,
    /// What does no harm yet.
    remarks: Vec<String>,
}

/// Reads the secrets and the certificates, as the server would.
fn look_at_files(settings: &Settings) -> Looked {
    let (secrets, data_dir) = (&settings.secrets, &settings.data_dir);
    let mut looked = Looked::default();
    let read = [
        Vault::open(secrets, data_dir).err(),
        Configured::open(secrets, data_dir).err(),
        // They are read where there is somebody to send them to.
        settings.telemetry.otlp_endpoint.as_ref().and_then(|_| Headers::read(secrets, data_dir).err()),
    ];
    looked.unusable.extend(read.into_iter().flatten().map(|error| error_chain(&error)));
    if settings.tls.is_on() {
        let tls = Tls::open(&settings.tls, Outside::system().clock).and_then(|_| files::read(&settings.tls));
        match tls {
            Ok((_, material)) => looked.remarks.extend(material.remarks()),
            Err(error) => looked.unusable.push(error_chain(&error)),
        }
    }
    let clock = Outside::system().clock;
    for (is_wrong, text) in nodes::judge(settings, &clock, &is_local).into_iter().filter_map(Finding::told) {
        if is_wrong { &mut looked.unusable } else { &mut looked.remarks }.push(text);
    }
    looked
}

/// The settings as a file has them, each with its place behind it.
fn shown(reading: &Reading) -> String {
    let lines: Vec<(String, String)> = reading
        .shown()
        .into_iter()
        .map(|shown| (format!("{} = {}", shown.key, shown.value), shown.place.unwrap_or_else(|| "default".to_owned())))
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count().min(60)).max().unwrap_or(0);
    let mut text = String::new();
    for (line, place) in lines {
        // Writing into a string does not fail.
        let _ = writeln!(text, "{line:width$}  # {place}");
    }
    for (secret, is_set) in secrets(reading) {
        let _ = writeln!(text, "{:width$}  # a secret: never shown", format!("{secret} is {}", words(is_set)));
    }
    text
}

fn words(is_set: bool) -> &'static str {
    if is_set { "set" } else { "not set" }
}

/// Secrets from the environment, and whether they are there.
fn secrets(reading: &Reading) -> [(&'static str, bool); 5] {
    let settings = &reading.settings;
    [
        ("KEYWARD_ROOT_KEY", settings.first_root_key.is_some()),
        ("KEYWARD_MASTER_KEY", settings.secrets.master_key.is_some()),
        ("KEYWARD_PEPPER", settings.secrets.pepper.is_some()),
        ("KEYWARD_OTLP_HEADERS", settings.secrets.otlp_headers.is_some()),
        ("KEYWARD_REPLICATION_TOKEN", settings.secrets.replication_token.is_some()),
    ]
}

/// Every setting with its value and its place, for programs. Secrets are no settings.
pub(super) fn values(reading: &Reading) -> Value {
    let settings = reading.shown().into_iter().map(|shown| {
        let value = json!({ "value": shown.value, "from": shown.place.unwrap_or_else(|| "default".to_owned()) });
        (shown.key.to_owned(), value)
    });
    Value::Object(settings.collect())
}
