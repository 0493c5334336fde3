//! `keyward config …`: what is wrong with the settings, and what they are.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::ask::{Output, note, print_answer};
use super::serve::ServeFlags;
use super::{EXIT_USAGE, fail};
use crate::config::{ConfigError, Reading};

/// `keyward config`.
#[derive(Debug, clap::Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say what is wrong with the settings, if anything; nothing is started or opened
    Check(Typed),
    /// Print every setting in force, and where it came from
    Show(Typed),
}

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
    let (typed, text): (Typed, fn(&Reading) -> String) = match arguments.action {
        Action::Check(typed) => (typed, |_| "the settings are good\n".to_owned()),
        Action::Show(typed) => (typed, shown),
    };
    let reading = match typed.flags.read() {
        Ok(reading) => reading,
        Err(ConfigError(problems)) => {
            if typed.output == Output::Json {
                let answer = json!({ "good": false, "problems": problems, "warnings": [] });
                let _ = print_answer(format!("{answer}\n").as_bytes());
            }
            return fail(EXIT_USAGE, problems);
        }
    };
    match typed.output {
        Output::Text => {
            note(reading.warnings.iter().map(|warning| format!("warning: {warning}")));
            print_answer(text(&reading).as_bytes())
        }
        Output::Json => {
            let answer =
                json!({ "good": true, "problems": [], "warnings": reading.warnings, "settings": values(&reading) });
            print_answer(format!("{answer}\n").as_bytes())
        }
    }
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
fn secrets(reading: &Reading) -> [(&'static str, bool); 3] {
    let settings = &reading.settings;
    [
        ("KEYWARD_ROOT_KEY", settings.first_root_key.is_some()),
        ("KEYWARD_MASTER_KEY", settings.secrets.master_key.is_some()),
        ("KEYWARD_PEPPER", settings.secrets.pepper.is_some()),
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
