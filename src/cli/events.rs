//! `keyward events import|export`: raw events from files and into files (EXT-4).
//!
//! Files are read, checked and written here, with the permissions of whoever runs the command; the server is sent rows,
//! never paths.

mod files;
pub(super) mod interrupt;
pub(super) mod progress;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::ValueEnum;
use keyward_query::events::tables::{Family, Level, Table};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::ask::{PlaceArguments, Reach, Way, note, print_answer};
use super::operator::events::Added;
use super::values::TIME_MAX;
use super::{EXIT_ERROR, EXIT_USAGE, fail};
use files::{NotAdded, Source, Target};

/// `keyward events`.
#[derive(Debug, clap::Args)]
pub struct EventsArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Add raw events from files; a file is taken as a whole or not at all
    #[command(after_help = IMPORT_HELP)]
    Import(ImportArguments),
    /// Write raw events to a file
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArguments),
}

const IMPORT_HELP: &str = "Files end in .parquet, or in .ndjson or .jsonl with one JSON object a line; `-` is NDJSON on \
    standard input. Columns have the names and types of the table, in any order; texts, tags and spent_credits may be left \
    out. Rows may come in any order, and queries see them when the command ends. Roll-ups follow by themselves. Nothing \
    tells a row that was imported before from a new one: it is added again.";
const EXPORT_HELP: &str = "The name ends in .parquet, .ndjson or .jsonl; `-` is NDJSON on standard output, and the number of \
    rows then goes to standard error. The file appears when it is whole, readable by its owner alone.";

#[derive(Debug, clap::Args)]
struct ImportArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    ask: ImportEvents,
    /// Files to read, one after the other
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    answer: Answer,
}

#[derive(Debug, clap::Args)]
struct ExportArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    ask: ExportEvents,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// File to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    answer: Answer,
}

/// These commands answer in one way only; `--output json`, which all others know, may be said to them, too.
#[derive(Debug, clap::Args)]
struct Answer {
    #[arg(long = "output", value_enum, hide = true, default_value_t = Form::Json)]
    _form: Form,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Json,
}

/// Arguments of `events.import`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImportEvents {
    /// The table: key_verifications_v1 or ratelimits_v1
    #[arg(long, value_name = "TABLE")]
    pub table: RawTable,
    /// Put all rows into this workspace (id or slug), whatever their workspace_id says
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// Arguments of `events.export`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportEvents {
    /// The table: key_verifications_v1 or ratelimits_v1
    #[arg(long, value_name = "TABLE")]
    pub table: RawTable,
    /// Only rows of this workspace (id or slug); all workspaces without it
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Only rows from this time on, in unix milliseconds
    #[arg(long, value_name = "MS", value_parser = moment)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<i64>,
    /// Only rows before this time, in unix milliseconds
    #[arg(long, value_name = "MS", value_parser = moment)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
}

/// A table of events as they came; the others are made of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RawTable(Family);

impl RawTable {
    /// Which events it holds.
    pub fn family(self) -> Family {
        self.0
    }

    fn table(self) -> Table {
        Table { family: self.0, level: Level::Raw }
    }
}

impl FromStr for RawTable {
    type Err = String;

    fn from_str(name: &str) -> Result<RawTable, String> {
        let found = Table::all().find(|table| table.name() == name);
        let raw = |family| RawTable(family).table().name();
        match found {
            Some(Table { family, level: Level::Raw }) => Ok(RawTable(family)),
            Some(Table { family, .. }) => Err(format!(
                "a roll-up is derived from {} as its rows come in, and is never imported or exported itself; name {}",
                raw(family),
                raw(family)
            )),
            None => {
                let names: Vec<_> = Family::ALL.into_iter().map(raw).collect();
                Err(format!("there is no such table; name {}", names.join(" or ")))
            }
        }
    }
}

impl TryFrom<String> for RawTable {
    type Error = String;

    fn try_from(name: String) -> Result<RawTable, String> {
        name.parse()
    }
}

impl From<RawTable> for String {
    fn from(table: RawTable) -> String {
        table.table().name().to_owned()
    }
}

fn moment(text: &str) -> Result<i64, String> {
    let bounds = || format!("must be unix milliseconds, a whole number from 0 to {TIME_MAX}");
    let ms: u64 = text.parse().map_err(|_| bounds())?;
    i64::try_from(ms).ok().filter(|_| ms <= TIME_MAX).ok_or_else(bounds)
}

/// Runs `keyward events`.
pub fn run(arguments: EventsArguments) -> ExitCode {
    match arguments.action {
        Action::Import(arguments) => import(arguments),
        Action::Export(arguments) => export(arguments),
    }
}

fn import(arguments: ImportArguments) -> ExitCode {
    let ImportArguments { place, ask, files, answer: _ } = arguments;
    // A name that says nothing is found before anything is imported.
    let sources: Result<Vec<Source>, String> = files.iter().map(|file| Source::named(file)).collect();
    let sources = match sources {
        Ok(sources) => sources,
        Err(reason) => return fail(EXIT_USAGE, [reason]),
    };
    let reach = match Reach::of(place) {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let mut rows = 0;
    for source in sources {
        match import_file(&reach, &ask, &source) {
            Ok(added) => {
                rows += added.rows;
                note(added.warnings.iter().map(|warning| format!("warning: {source}: {warning}")));
            }
            Err(why) => {
                let mut reasons = match why {
                    NotAdded::Nothing(reason) => {
                        vec![format!("{source}: {reason}"), "nothing of this file was imported".to_owned()]
                    }
                    NotAdded::Unknown(reason) => vec![
                        format!("{source}: the server had the whole file when it went away: {reason}"),
                        "all of this file was imported, or nothing of it: look with keyward events export before you \
                         import it again, because rows that are there already are added once more"
                            .to_owned(),
                    ],
                };
                if rows > 0 {
                    reasons.push(format!("the files before it were, with {rows} rows"));
                }
                return fail(EXIT_ERROR, reasons);
            }
        }
    }
    print_answer(format!("{}\n", json!({ "rows": rows })).as_bytes())
}

fn import_file(reach: &Reach, ask: &ImportEvents, source: &Source) -> Result<Added, NotAdded> {
    let file = source.open()?;
    match reach.begin("events.import", ask)? {
        Way::Server(frames, told) => file.send(ask.table.family(), frames, told),
        Way::Directory(services) => {
            let imported = file.import(ask, &services);
            services.shutdown();
            Ok(imported?)
        }
    }
}

fn export(arguments: ExportArguments) -> ExitCode {
    let ExportArguments { place, ask, force, file, answer: _ } = arguments;
    let target = match Target::named(&file, force) {
        Ok(target) => target,
        Err(reason) => return fail(EXIT_USAGE, [reason]),
    };
    let reach = match Reach::of(place) {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let exported = export_file(&reach, &ask, &target);
    match exported {
        Ok(rows) if target.is_stdout() => {
            note([format!("{rows} rows")]);
            ExitCode::SUCCESS
        }
        Ok(rows) => print_answer(format!("{}\n", json!({ "rows": rows })).as_bytes()),
        Err(reason) => fail(EXIT_ERROR, [reason]),
    }
}

fn export_file(reach: &Reach, ask: &ExportEvents, target: &Target) -> Result<u64, String> {
    target.check()?;
    match reach.begin("events.export", ask)? {
        Way::Server(frames, _) => target.receive(ask.table.family(), frames),
        Way::Directory(services) => {
            let exported = target.export(ask, &services);
            services.shutdown();
            exported
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXT-4: roll-ups are derived, never imported, and whoever names one is told so.
    #[test]
    fn only_raw_tables_are_moved() {
        for table in Table::all() {
            let named = table.name().parse::<RawTable>();
            match table.level {
                Level::Raw => assert_eq!(named, Ok(RawTable(table.family))),
                _ => assert!(named.is_err_and(|why| why.contains("derived from") && why.ends_with("_v1"))),
            }
        }
        assert_eq!(
            "Ratelimits_v1".parse::<RawTable>(),
            Err("there is no such table; name key_verifications_v1 or ratelimits_v1".to_owned())
        );
    }

    #[test]
    fn moments_are_unix_milliseconds() {
        assert_eq!(moment("253402300799999"), Ok(253_402_300_799_999));
        for wrong in ["-1", "253402300800000", "2026-01-01", "1.5", ""] {
            assert!(moment(wrong).is_err_and(|why| why.contains("unix milliseconds")), "{wrong}");
        }
    }
}
