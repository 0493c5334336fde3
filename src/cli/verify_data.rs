//! `keyward verify-data`: is a data directory, or a backup, whole; and what is to be done where it is not.
//!
//! It reads everything and changes nothing. What a start would refuse is told in the words of the start.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use keyward_query::{Search, events};
use keyward_storage::disk::{Disk, RealDisk};
use keyward_storage::verify::{self, Finding, Observer};
use serde::Serialize;
use serde_json::json;

use super::ask::{Output, StoreArguments, print_answer};
use super::backup::source::Source;
use super::progress::Line;
use super::restore::restore;
use super::{EXIT_ERROR, EXIT_USAGE, fail, text};
use crate::app::{EVENTS_DIR, SEARCH_DIR};
use crate::outside::Outside;
use crate::telemetry::error_chain;

const AFTER_HELP: &str = "No server may run on the directory: stop it, or verify a backup of it. A backup is restored into a \
    directory for that, which is removed again (--scratch says where, and needs room for all of it).\n\n\
    What is read: every frame of the log, the whole file of records, each row and the indexes that lead to it, the chains of \
    audit events, what log and records have in common, every row of every file of events, and the journal.\n\n\
    Exit codes: 0 it is whole, 1 something is wrong, or it cannot be opened, 2 wrong usage.";

/// Findings that are kept; more are counted.
const FINDINGS_MAX: usize = 1000;
/// Findings that a text tells.
const TOLD_MAX: usize = 50;

/// `keyward verify-data`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct VerifyDataArguments {
    /// A backup to verify in place of the data directory: a directory, an archive, or - for standard input
    #[arg(value_name = "BACKUP")]
    backup: Option<PathBuf>,
    /// Where a backup is restored for that [default: the system's directory for temporary files]
    #[arg(long, value_name = "DIR", requires = "backup")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArguments,
}

/// What was found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedData {
    /// Whether nothing is wrong.
    pub whole: bool,
    /// The last transaction; absent where the records could not be opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Rows of records, indexes included.
    pub rows: u64,
    /// Records of the log.
    pub log_records: u64,
    /// Rows that both the log and the records have.
    pub compared: u64,
    /// Events of the audit trail.
    pub audit_events: u64,
    /// Files of events.
    pub event_files: u64,
    /// Rows in them, roll-ups included.
    pub event_rows: u64,
    /// Rows in the events' journal.
    pub journaled_rows: u64,
    /// What is wrong, or remarkable.
    pub findings: Vec<FindingShown>,
    /// How much is wrong besides.
    pub more_findings: u64,
}

/// Something that was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingShown {
    /// `damage` or `note`.
    pub kind: &'static str,
    /// The file, by its path in the data directory.
    pub file: String,
    /// What it is.
    pub message: String,
    /// What to do.
    pub advice: String,
}

/// Runs `keyward verify-data`.
pub fn run(arguments: VerifyDataArguments) -> ExitCode {
    let VerifyDataArguments { backup, scratch, store } = arguments;
    let output = store.output();
    let reach = match store.reach() {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let outcome = match backup {
        None => directory(&reach.settings().data_dir),
        Some(backup) => match Source::named(&backup) {
            Ok(source) => of_backup(&source, scratch.unwrap_or_else(std::env::temp_dir)),
            Err(reason) => return fail(EXIT_USAGE, [reason]),
        },
    };
    let verified = match outcome {
        Ok(verified) => verified,
        Err(reasons) => return fail(EXIT_ERROR, reasons),
    };
    let answer = match output {
        Output::Json => format!("{}\n", json!(verified)),
        Output::Text => verified.text(),
    };
    match (print_answer(answer.as_bytes()), verified.whole) {
        (printed, true) => printed,
        (_, false) => fail(EXIT_ERROR, ["the data is damaged"]),
    }
}

/// Verifies a backup by restoring it.
fn of_backup(source: &Source, scratch: PathBuf) -> Result<VerifiedData, Vec<String>> {
    let dir = scratch.join(format!("keyward-verify-data-{}", std::process::id()));
    super::events::interrupt::remove_if_interrupted(&dir)
        .map_err(|error| vec![format!("cannot listen for signals: {error}")])?;
    let mut line = Line::new("bytes");
    let restored = restore(Arc::new(RealDisk), source, &dir, &Outside::system().entropy, &mut |done, all| {
        line.show(done, all.max(done));
    });
    line.end();
    let verified = restored.and_then(|_| directory(&dir));
    if let Err(error) = RealDisk.remove_tree(&dir) {
        super::ask::note([format!("warning: {} cannot be removed: {error}", dir.display())]);
    }
    verified
}

/// Verifies a data directory.
fn directory(dir: &Path) -> Result<VerifiedData, Vec<String>> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut seen = Seen { verified: VerifiedData::default(), line: Line::new("rows") };
    let records = verify::verify(&disk, dir, &mut seen).map_err(|error| {
        seen.line.end();
        let hint = match error {
            keyward_storage::OpenError::Locked(_) => {
                "it cannot be verified while a server runs: stop that, or make a backup and verify it"
            }
            _ => "nothing was verified",
        };
        vec![error_chain(&error), hint.to_owned()]
    })?;
    let events = events::verify::verify(&disk, &dir.join(EVENTS_DIR), EVENTS_DIR, &mut seen);
    let ahead = Search::position(&disk, &dir.join(SEARCH_DIR))
        .zip(records.position)
        .filter(|(search, records)| search > records);
    if let Some((search, records)) = ahead {
        let what = format!("the index has changes up to {search}, and the records end at {records}");
        seen.found(Finding::note(SEARCH_DIR, what, "nothing: it is made anew at the next start"));
    }
    seen.line.end();
    let is_damage = |finding: &FindingShown| finding.kind == DAMAGE;
    let whole = seen.verified.more_findings == 0 && !seen.verified.findings.iter().any(is_damage);
    Ok(VerifiedData {
        whole,
        position: records.position.map(|position| position.0),
        rows: records.rows,
        log_records: records.log_records,
        compared: records.compared,
        audit_events: records.audit_events,
        event_files: events.parts,
        event_rows: events.rows,
        journaled_rows: events.journaled,
        ..seen.verified
    })
}

const DAMAGE: &str = "damage";

/// Gathers what is found, and shows how far it is.
struct Seen {
    verified: VerifiedData,
    line: Line,
}

impl Observer for Seen {
    fn found(&mut self, finding: Finding) {
        let Finding { is_damage, file, what, advice } = finding;
        if self.verified.findings.len() < FINDINGS_MAX {
            let kind = if is_damage { DAMAGE } else { "note" };
            self.verified.findings.push(FindingShown { kind, file, message: what, advice });
        } else if is_damage {
            self.verified.more_findings += 1;
        }
    }

    fn read(&mut self, done: u64, all: u64) {
        self.line.show(done, all);
    }
}

impl VerifiedData {
    fn text(&self) -> String {
        let mut told = String::new();
        for FindingShown { kind, file, message, advice } in self.findings.iter().take(TOLD_MAX) {
            let word = if *kind == DAMAGE { "DAMAGE" } else { "note" };
            told.push_str(&format!("{word:<7} {}: {}\n", text::printable(file), text::printable(message)));
            told.push_str(&format!("        -> {}\n", text::printable(advice)));
        }
        let more = self.findings.len().saturating_sub(TOLD_MAX) as u64 + self.more_findings;
        if more > 0 {
            told.push_str(&format!("and {more} more; --output json lists all\n"));
        }
        told.push_str(&text::fields(&[
            ("position", self.position.map_or_else(|| "-".to_owned(), |position| position.to_string())),
            ("rows of records", self.rows.to_string()),
            ("records of the log", self.log_records.to_string()),
            ("rows compared with the log", self.compared.to_string()),
            ("audit events", self.audit_events.to_string()),
            ("files of events", self.event_files.to_string()),
            ("rows in them", self.event_rows.to_string()),
            ("rows in the journal", self.journaled_rows.to_string()),
        ]));
        told.push_str(if self.whole { "All of it is whole.\n" } else { "It is NOT whole.\n" });
        told
    }
}
