//! `keyward doctor`: is this machine, and are these settings, fit for the server; and what is to be done where they are not.
//!
//! It looks and measures, changes nothing, and needs no server. Each finding says what was seen and, where that is not good,
//! what to do about it.

mod disk;
mod files;
mod machine;
mod network;
pub(super) mod nodes;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::ask::{Output, print_answer};
use super::serve::ServeFlags;
use super::{EXIT_ERROR, EXIT_USAGE, fail, text};
use crate::config::{ConfigError, Reading};
use crate::outside::Outside;

const AFTER_HELP: &str = "Run it as the user the server runs as, with the server's settings. It writes up to 32 MiB to a file in \
    the data directory, syncs it, and removes it. Exit code 1 says that something is wrong; warnings alone are exit code 0.";

/// `keyward doctor`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct DoctorArguments {
    #[command(flatten)]
    flags: ServeFlags,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How good a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It could not be seen, or it is for the operator to judge.
    Note,
    /// It may hurt one day.
    Warning,
    /// It is wrong.
    Problem,
}

/// What one look has found.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// What was looked at, such as `disk.sync`.
    check: &'static str,
    state: State,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Finding {
        Finding { check, state: State::Ok, found: found.into(), advice: None }
    }

    fn note(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, state: State::Note, found: found.into(), advice: Some(advice.into()) }
    }

    fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, state: State::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { check, state: State::Problem, found: found.into(), advice: Some(advice.into()) }
    }

    /// Whether it is wrong, and what it says and advises; `None` where nothing is to be done.
    pub(super) fn told(self) -> Option<(bool, String)> {
        let is_wrong = match self.state {
            State::Ok | State::Note => return None,
            State::Warning => false,
            State::Problem => true,
        };
        let advice = self.advice.map_or_else(String::new, |advice| format!("; {advice}"));
        Some((is_wrong, format!("{}{advice}", self.found)))
    }
}

/// Runs `keyward doctor`.
pub fn run(arguments: DoctorArguments) -> ExitCode {
    let reading = match arguments.flags.read() {
        Ok(reading) => reading,
        Err(ConfigError(reasons)) => return fail(EXIT_USAGE, reasons),
    };
    let findings = look(&reading);

    let is_wrong = findings.iter().any(|finding| finding.state == State::Problem);
    let answer = match arguments.output {
        Output::Json => format!("{}\n", json!({ "ok": !is_wrong, "findings": findings })),
        Output::Text => shown(&findings),
    };
    let printed = print_answer(answer.as_bytes());
    if is_wrong { ExitCode::from(EXIT_ERROR) } else { printed }
}

/// Looks at everything.
pub(super) fn look(reading: &Reading) -> Vec<Finding> {
    let Reading { settings, warnings, file, .. } = reading;
    let clock = Outside::system().clock;
    let mut findings: Vec<Finding> =
        warnings.iter().map(|warning| Finding::warning("settings", warning, "correct the name, or unset it")).collect();
    if findings.is_empty() {
        findings.push(Finding::ok("settings", "they are read and make sense"));
    }
    findings.extend(machine::look(settings, &clock));
    findings.extend(file.as_deref().and_then(files::settings));
    findings.extend(files::look(settings));
    findings.extend(disk::look(settings));
    let tls = network::tls(settings, &clock, &mut findings);
    findings.extend(network::look(settings, tls.as_deref()));
    findings.extend(nodes::judge(settings, &clock, &nodes::is_here));
    findings.extend(nodes::ask(settings, &clock));
    findings
}

/// The findings for people: a line each, and what to do below it.
fn shown(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut answer = String::new();
    for Finding { check, state, found, advice } in findings {
        let state = match state {
            State::Ok => "ok",
            State::Note => "note",
            State::Warning => "WARNING",
            State::Problem => "PROBLEM",
        };
        answer.push_str(&format!("{state:<8} {check:<width$}  {}\n", text::printable(found)));
        if let Some(advice) = advice {
            answer.push_str(&format!("{:<8} {:<width$}  -> {}\n", "", "", text::printable(advice)));
        }
    }
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    answer.push_str(&match (count(State::Problem), count(State::Warning)) {
        (0, 0) => "\nNothing is wrong.\n".to_owned(),
        (problems, warnings) => format!("\n{problems} problems, {warnings} warnings.\n"),
    });
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is wrong stands out, each advice below its finding, and nothing in it steers a terminal.
    #[test]
    fn findings_are_for_people() {
        let findings = [
            Finding::ok("disk.space", "enough"),
            Finding::problem("clock", "it went\u{1b}back", "set it"),
            Finding::warning("a", "b", "c"),
        ];
        assert_eq!(
            shown(&findings),
            "ok       disk.space  enough\n\
             PROBLEM  clock       it went\u{fffd}back\n\
             \x20                    -> set it\n\
             WARNING  a           b\n\
             \x20                    -> c\n\
             \n1 problems, 1 warnings.\n"
        );
    }
}
