//! `keyward pepper …`: what stored hashes of keys are keyed with.

use std::process::ExitCode;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{Output, Reach, StoreArguments, Way, print_answer};
use super::operator;
use super::progress::Line;
use super::vault::NoArguments;
use super::{EXIT_ERROR, fail, text};
use crate::http::admin::Operator;
use crate::outside::Outside;
use crate::pepper;

/// `keyward pepper`.
#[derive(Debug, clap::Args)]
pub struct PepperArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Print a new pepper
    #[command(after_help = GENERATE_HELP)]
    Generate(GenerateArguments),
    /// Show peppers, how many hashes are keyed with each, and which are needed
    Status(StoreArguments),
    /// Switch all hashes to the first configured pepper, or go on with that
    #[command(after_help = ENABLE_HELP)]
    Enable(StoreArguments),
    /// Write the pepper in use into the data directory, so that none has to be configured any more
    #[command(after_help = DISABLE_HELP)]
    Disable(StoreArguments),
}

const GENERATE_HELP: &str = "Keep it where no backup of the data directory goes, and keep a copy of it: once it is in use, no key \
    can be verified without it, and the server does not start.\n\n\
    (umask 077; keyward pepper generate > /etc/keyward/pepper)\n\
    keyward serve --pepper-file /etc/keyward/pepper\n\
    keyward pepper enable";
const ENABLE_HELP: &str = "Verifications and changes go on meanwhile, and no key changes for those who present it. A switch that \
    is interrupted, in whatever way, goes on where it was when this is run again.\n\n\
    To exchange the pepper: put a new one before the old one in its file (one a line), restart the server and run this command. \
    The new one alone is needed as soon as the command has begun; no key has to be made anew. A backup from before needs what it \
    needed: the old pepper, or none.\n\n\
    Space in records.redb that is free again, and the log, may hold older hashes until the next start of the server, which \
    writes the file anew; `keyward pepper status` says when that was done.";
const DISABLE_HELP: &str = "Hashes that are keyed cannot be turned back, so the pepper itself has to stay. After this it lies in \
    the data directory, where a backup takes it along: whoever steals one can confirm guesses of keys, as without any pepper. A \
    new pepper can be switched to at any time.";

#[derive(Debug, clap::Args)]
struct GenerateArguments {
    /// What to print: the pepper alone, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Answer of `pepper.status`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PepperStatus {
    /// Where the configured peppers are.
    pub source: Option<String>,
    /// Peppers, those of the store first, the newest of them at the top.
    pub peppers: Vec<PepperShown>,
    /// Stored hashes in all: of keys, of their foreign hashes, and of root keys.
    pub hashes: u64,
    /// Hashes that are keyed with none.
    pub hashes_without_pepper: u64,
    /// Hashes that a switch has not come to yet.
    pub hashes_to_be_switched: u64,
    /// Unix ms of the last switch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begun_at: Option<u64>,
    /// Unix ms; absent while something is left to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<u64>,
    /// Unix ms from which records.redb holds no older hash in space that is free again; absent while it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cleared_at: Option<u64>,
}

/// A pepper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PepperShown {
    /// `pp_…`: what names it, and tells nothing of it.
    pub fingerprint: String,
    /// Whether it is configured.
    pub configured: bool,
    /// What it is to the store.
    pub state: State,
    /// Hashes that were keyed with it last.
    pub hashes: u64,
}

/// What a pepper is to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Hashes are keyed with it, and it has to be configured.
    InUse,
    /// Hashes are keyed with it, and it lies in the data directory.
    Disabled,
    /// Another one was switched to since, under which it is kept.
    Exchanged,
    /// Nothing has to do with it yet.
    New,
}

/// How far a switch is, and at its end its answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enabled {
    /// `pp_…`
    pub pepper: String,
    /// Hashes there were when it began or went on.
    pub hashes: u64,
    /// Hashes that are keyed with it now and were not before.
    pub moved: u64,
    /// Whether it went on with one that was interrupted.
    pub resumed: bool,
    /// Whether it was in use already, and nothing was left to do.
    pub was_in_use: bool,
}

/// Answer of `pepper.disable`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disabled {
    /// `pp_…`, where there was one to write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pepper: Option<String>,
}

/// Runs `keyward pepper`.
pub fn run(arguments: PepperArguments) -> ExitCode {
    match arguments.action {
        Action::Generate(GenerateArguments { output }) => generate(output),
        Action::Status(store) => match store.reach() {
            Ok(reach) => reach.run("pepper.status", &NoArguments {}, PepperStatus::text),
            Err(answered) => answered,
        },
        Action::Disable(store) => match store.reach() {
            Ok(reach) => reach.run("pepper.disable", &NoArguments {}, Disabled::text),
            Err(answered) => answered,
        },
        Action::Enable(store) => {
            let output = store.output();
            match store.reach() {
                Ok(reach) => answer_switch(output, enable(&reach)),
                Err(answered) => answered,
            }
        }
    }
}

fn generate(output: Output) -> ExitCode {
    let pepper = pepper::generate(&Outside::system().entropy);
    let answer = match output {
        Output::Text => zeroize::Zeroizing::new(format!("{}\n", *pepper)),
        Output::Json => zeroize::Zeroizing::new(format!("{}\n", json!({ "pepper": *pepper }))),
    };
    print_answer(answer.as_bytes())
}

/// Switches where the store is.
fn enable(reach: &Reach) -> Result<Enabled, String> {
    let mut line = Line::new("hashes");
    let outcome = match reach.begin_on_records("pepper.enable", &NoArguments {})? {
        Way::Server(mut frames, _) => line.follow(&mut frames, |progress: &Enabled| (progress.moved, progress.hashes)),
        Way::Directory(services) => {
            let done = operator::pepper::enable(&services, &Operator::current(), &mut |progress| {
                line.show(progress.moved, progress.hashes);
                Ok(())
            });
            services.shutdown();
            done
        }
    };
    line.end();
    outcome
}

fn answer_switch(output: Output, outcome: Result<Enabled, String>) -> ExitCode {
    let enabled = match outcome {
        Ok(enabled) => enabled,
        Err(reason) => return fail(EXIT_ERROR, [reason]),
    };
    let answer = match output {
        Output::Json => format!("{}\n", json!(enabled)),
        Output::Text if enabled.was_in_use => format!("the pepper {} is in use already\n", enabled.pepper),
        Output::Text => text::fields(&[
            ("pepper in use", enabled.pepper),
            ("hashes switched to it", enabled.moved.to_string()),
            ("went on with an interrupted switch", enabled.resumed.to_string()),
        ]),
    };
    print_answer(answer.as_bytes())
}

impl Disabled {
    fn text(&self) -> String {
        match &self.pepper {
            Some(pepper) => format!(
                "the pepper {pepper} lies in the data directory now: it need not be configured any more, and backups from \
                 here on hold it\n"
            ),
            None => "there is nothing to do: no pepper has to be configured\n".to_owned(),
        }
    }
}

impl PepperStatus {
    fn text(&self) -> String {
        let last = match (self.begun_at, self.ended_at) {
            (None, _) => "none".to_owned(),
            (_, Some(ended_at)) => format!("ended {}", text::time(ended_at)),
            (Some(begun_at), None) => format!(
                "begun {} and not ended; run `keyward pepper enable` to go on with it, unless it runs now",
                text::time(begun_at)
            ),
        };
        let mut fields = vec![
            ("peppers from", self.source.clone().unwrap_or_else(|| "nowhere".to_owned())),
            ("stored hashes", self.hashes.to_string()),
            ("of these without pepper", self.hashes_without_pepper.to_string()),
            ("still to be switched", self.hashes_to_be_switched.to_string()),
            ("last switch", last),
        ];
        if self.ended_at.is_some() {
            let cleared = match self.cleared_at {
                Some(at) => format!("gone from records.redb since {}", text::time(at)),
                None => "may be in free space of records.redb until the server is started again".to_owned(),
            };
            fields.push(("older hashes", cleared));
        }
        let mut told = text::fields(&fields);
        if !self.peppers.is_empty() {
            told.push('\n');
            told.push_str(&text::table(
                ["pepper", "hashes", "configured", "state"],
                self.peppers.iter().map(|pepper| {
                    let state = match pepper.state {
                        State::InUse => "in use; no start does without it",
                        State::Disabled => "disabled: it lies in the data directory",
                        State::Exchanged if pepper.hashes > 0 => "exchanged; some hashes are still to be switched",
                        State::Exchanged if pepper.configured => "exchanged; can be removed now",
                        State::Exchanged => "exchanged",
                        State::New => "not in use; if it is the first one, `keyward pepper enable` switches to it",
                    };
                    [
                        pepper.fingerprint.clone(),
                        pepper.hashes.to_string(),
                        pepper.configured.to_string(),
                        state.to_owned(),
                    ]
                }),
            ));
        }
        told
    }
}
