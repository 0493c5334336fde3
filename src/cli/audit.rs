//! `keyward audit …`: whether the audit trail is whole, what it says, and how its live exports stand.

mod output;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use clap::ValueEnum;
use keyward_storage::records::audit::ChainPoint;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::admin_client::finish;
use super::ask::{Asked, Output, PlaceArguments, Reach, StoreArguments, Way, note, print_answer};
use super::operator::audit::{NotExported, export as export_here, verify as verify_here};
use super::values::TIME_MAX;
use super::{EXIT_ERROR, EXIT_USAGE, fail, text};
use crate::http::admin::stream::{Frame, Frames};
use output::Lines;

/// Damaged events that are named one by one.
const NAMED_MAX: usize = 100;
/// Kept heads in one frame.
const HEADS_IN_FRAME: usize = 1000;

/// `keyward audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Check that no audit event is missing, changed or moved
    #[command(after_help = VERIFY_HELP)]
    Verify(VerifyArguments),
    /// Print where each workspace's chain of events ends, to be kept elsewhere
    Heads(Asked<ListHeads>),
    /// Write audit events as JSON, one a line
    #[command(after_help = EXPORT_HELP)]
    Export(ExportArguments),
    /// Show how live exports stand, and how many unknown root keys were refused
    Status(Asked<ShowStatus>),
}

const VERIFY_HELP: &str = "Each event names the hash of the one before it, so an event that was removed, changed, inserted or \
    moved is found and named. Whoever can write to the data directory could compute all hashes anew; heads that were printed \
    earlier and kept elsewhere find that, too: keyward audit heads > FILE, later keyward audit verify --heads FILE. Exits with \
    1 when something is found.";
const EXPORT_HELP: &str = "Workspace by workspace, each oldest first. A file appears when it is whole, readable by its owner \
    alone. A damaged event is named on standard error and left out; the exit code is 1 then. Events as they happen: the settings audit.export.file and audit.export.syslog.";

#[derive(Debug, clap::Args)]
struct VerifyArguments {
    #[command(flatten)]
    asked: Asked<VerifyAudit>,
    /// A head that was kept; may be given several times
    #[arg(long = "head", value_name = "WS:SEQUENCE:HASH")]
    heads: Vec<KeptHead>,
    /// A file of kept heads, one a line, as `keyward audit heads` prints them
    #[arg(long = "heads", value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct ExportArguments {
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    ask: ExportAudit,
    /// Form of the lines
    #[arg(long, value_enum, default_value_t = Form::Jsonl)]
    format: Form,
    /// File to write; standard output without it
    #[arg(short = 'o', long = "out", value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
    /// As all commands have it; this one answers in one way only
    #[arg(long = "output", value_enum, hide = true, default_value_t = Output::Json)]
    _output: Output,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    /// One JSON object a line
    Jsonl,
}

/// Arguments of `audit.verify`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyAudit {
    /// Only this workspace's events (id or slug), or `operator` for the server's own; all without it
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// Arguments of `audit.heads`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListHeads {
    /// Only this workspace's (id or slug), or `operator` for the server's own; all without it
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
}

/// Arguments of `audit.status`: none.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShowStatus {}

/// Arguments of `audit.export`.
#[derive(Debug, Clone, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExportAudit {
    /// Only this workspace's events (id or slug), or `operator` for the server's own; all without it
    #[arg(long, value_name = "WS")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// Only events from this time on, in unix milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=TIME_MAX))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Only events before this time, in unix milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=TIME_MAX))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// Where a chain ended at some time: `WS:SEQUENCE:HASH`, its workspace by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeptHead {
    /// The workspace's id, or `operator`.
    pub workspace: String,
    /// The event and its hash.
    pub point: ChainPoint,
}

impl fmt::Display for KeptHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.workspace, self.point)
    }
}

impl FromStr for KeptHead {
    type Err = String;

    fn from_str(line: &str) -> Result<KeptHead, String> {
        let parts = line.split_once(':').filter(|(workspace, _)| !workspace.is_empty());
        let (workspace, point) = parts.ok_or("a head is WS:SEQUENCE:HASH, as `keyward audit heads` prints it")?;
        let point = point.parse().map_err(|error| format!("{error}; a head is WS:SEQUENCE:HASH"))?;
        Ok(KeptHead { workspace: workspace.to_owned(), point })
    }
}

impl TryFrom<String> for KeptHead {
    type Error = String;

    fn try_from(line: String) -> Result<KeptHead, String> {
        line.parse()
    }
}

impl From<KeptHead> for String {
    fn from(head: KeptHead) -> String {
        head.to_string()
    }
}

/// Answer of `audit.heads`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChainHeads {
    /// One a chain.
    pub heads: Vec<ChainHead>,
}

/// Where a chain ends.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainHead {
    /// `ws_…`, or `operator`.
    pub workspace_id: String,
    /// The number of the newest event.
    pub sequence: u64,
    /// Its hash, in hex.
    pub hash: String,
    /// All of it in one text, for `audit verify --head`.
    pub head: String,
}

impl From<KeptHead> for ChainHead {
    fn from(head: KeptHead) -> ChainHead {
        let point = head.point.to_string();
        let hash = point.rsplit(':').next().unwrap_or_default().to_owned();
        ChainHead { head: head.to_string(), workspace_id: head.workspace, sequence: head.point.sequence, hash }
    }
}

/// Answer of `audit.verify`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditVerified {
    /// Chains that were read.
    pub chains: u64,
    /// Events in them.
    pub events: u64,
    /// Kept heads that the chains lead through.
    pub kept_met: u64,
    /// Kept heads whose events retention has deleted since: nothing can be said of them.
    pub kept_expired: u64,
    /// What is wrong.
    pub findings: Vec<FindingShown>,
    /// How much is wrong besides.
    pub more_findings: u64,
}

/// Answer of `audit.export`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditExported {
    /// Events that were written.
    pub events: u64,
    /// Events that are damaged, and are not among them.
    #[serde(default)]
    pub damaged: u64,
    /// The first of these: `WS:SEQUENCE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged_events: Vec<String>,
}

/// Something that is wrong with a chain.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingShown {
    /// `ws_…`, `operator`, or `#` and a number where no workspace has it.
    pub workspace_id: String,
    /// The place in the chain.
    pub sequence: u64,
    /// The event that stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<String>,
    /// What kind of thing it is, in a word.
    pub kind: String,
    /// The same as a sentence.
    pub message: String,
}

/// Answer of `audit.status`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditStatus {
    /// Live exports that the settings ask for.
    pub exports: Vec<ExportShown>,
    /// Since the server's start.
    pub refused_root_keys: RefusedShown,
}

/// A live export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExportShown {
    /// `file` or `syslog`.
    pub name: String,
    /// Where to.
    pub target: String,
    /// Events that it has not handed over yet.
    pub lag_events: u64,
    /// When the oldest of them was recorded, unix ms.
    pub lag_since: Option<u64>,
    /// What keeps it from going on.
    pub trouble: Option<String>,
}

/// Attempts with unknown root keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedShown {
    /// All of them.
    pub attempts: u64,
    /// Those whose answer was held back.
    pub slowed: u64,
    /// Those that were too many to be held back.
    pub unslowed: u64,
}

/// Runs `keyward audit`.
pub fn run(arguments: AuditArguments) -> ExitCode {
    match arguments.action {
        Action::Verify(arguments) => verify(arguments),
        Action::Heads(asked) => asked.run("audit.heads", |heads: &ChainHeads| {
            heads.heads.iter().map(|head| format!("{}\n", head.head)).collect()
        }),
        Action::Export(arguments) => export(arguments),
        Action::Status(asked) => asked.run("audit.status", status_text),
    }
}

fn status_text(status: &AuditStatus) -> String {
    let exports = status.exports.iter().map(|export| {
        let behind = match export.lag_since {
            Some(since) => format!("{} events, since {}", export.lag_events, text::time(since)),
            None => "nothing".to_owned(),
        };
        let trouble = export.trouble.clone().unwrap_or_else(|| "-".to_owned());
        [export.name.clone(), export.target.clone(), behind, trouble]
    });
    let refused = &status.refused_root_keys;
    let exports = match status.exports.is_empty() {
        true => "no live export; see audit.export.file and audit.export.syslog in the settings\n".to_owned(),
        false => text::table(["export", "target", "behind", "trouble"], exports),
    };
    let refused = [
        ("refused root keys", refused.attempts.to_string()),
        ("held back", refused.slowed.to_string()),
        ("too many to be held back", refused.unslowed.to_string()),
    ];
    format!("{exports}{}", text::fields(&refused))
}

fn verify(arguments: VerifyArguments) -> ExitCode {
    let VerifyArguments { asked: Asked { ask, store }, heads: mut kept, file } = arguments;
    if let Some(file) = file {
        match read_heads(&file) {
            Ok(heads) => kept.extend(heads),
            Err(reason) => return fail(EXIT_USAGE, [reason]),
        }
    }
    let output = store.output();
    let reach = match StoreArguments::reach(store) {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let verified = match verified(&reach, &ask, &kept) {
        Ok(verified) => verified,
        Err(reason) => return fail(EXIT_ERROR, [reason]),
    };
    let is_whole = verified.findings.is_empty() && verified.more_findings == 0;
    let answer = match output {
        Output::Json => format!("{}\n", json!(verified)),
        Output::Text => verified_text(&verified),
    };
    match (print_answer(answer.as_bytes()), is_whole) {
        (printed, true) => printed,
        (_, false) => fail(EXIT_ERROR, ["the audit trail was tampered with or damaged"]),
    }
}

fn verified_text(verified: &AuditVerified) -> String {
    let rows = verified.findings.iter().map(|finding| {
        let event = finding.event_id.clone().unwrap_or_else(|| "-".to_owned());
        [finding.workspace_id.clone(), finding.sequence.to_string(), event, finding.message.clone()]
    });
    let mut answer = match verified.findings.is_empty() {
        true => String::new(),
        false => text::table(["workspace", "sequence", "event", "finding"], rows),
    };
    if verified.more_findings > 0 {
        answer.push_str(&format!("{} more findings\n", verified.more_findings));
    }
    let AuditVerified { chains, events, kept_met, kept_expired, .. } = verified;
    answer.push_str(&format!("{events} events in {chains} chains were read\n"));
    if kept_met + kept_expired > 0 {
        answer.push_str(&format!("{kept_met} kept heads were met, {kept_expired} are older than what is kept\n"));
    }
    answer
}

fn read_heads(file: &Path) -> Result<Vec<KeptHead>, String> {
    let shown = file.display();
    let lines = std::fs::read_to_string(file).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let lines = lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(at, line)| line.trim().parse().map_err(|why| format!("{shown}, line {}: {why}", at + 1))).collect()
}

fn verified(reach: &Reach, ask: &VerifyAudit, kept: &[KeptHead]) -> Result<AuditVerified, String> {
    match reach.begin_on_records("audit.verify", ask)? {
        Way::Server(mut frames, _) => {
            let cut = |error: std::io::Error| format!("cannot talk to the running server: {error}");
            for part in kept.chunks(HEADS_IN_FRAME) {
                frames.send(json!(part).to_string().as_bytes()).map_err(cut)?;
            }
            frames.end().map_err(cut)?;
            let answer = receive(&mut frames, |_| Ok(()))?;
            serde_json::from_value(answer).map_err(|error| format!("the server's answer: {error}"))
        }
        Way::Directory(services) => {
            let verified = verify_here(&services, ask, kept, &mut |_| {});
            services.shutdown();
            verified
        }
    }
}

/// Takes the frames of a server until they end, and then its answer.
fn receive(frames: &mut Frames, mut take: impl FnMut(&[u8]) -> Result<(), String>) -> Result<Value, String> {
    loop {
        match frames.receive() {
            Ok(Frame::Bytes(bytes)) => take(&bytes)?,
            Ok(Frame::End) => return finish(frames).map_err(|error| error.to_string()),
            Ok(Frame::Aborted) => {
                return Err(match finish(frames) {
                    Err(error) => error.to_string(),
                    Ok(answer) => format!("the server's answer: {answer}"),
                });
            }
            Err(error) => return Err(format!("cannot talk to the running server: {error}")),
        }
    }
}

fn export(arguments: ExportArguments) -> ExitCode {
    let ExportArguments { place, ask, format: Form::Jsonl, file, force, _output } = arguments;
    let reach = match Reach::of(place) {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let written = match &file {
        Some(path) => Lines::to_file(path, force, |lines| exported(&reach, &ask, lines)),
        None => Lines::to_stdout(|lines| exported(&reach, &ask, lines)),
    };
    let exported = match written {
        Ok(exported) => exported,
        Err(reason) => return fail(EXIT_ERROR, [reason]),
    };
    let printed = match file {
        Some(_) => print_answer(format!("{}\n", json!(exported)).as_bytes()),
        None => {
            note([format!("{} events", exported.events)]);
            ExitCode::SUCCESS
        }
    };
    if exported.damaged == 0 {
        return printed;
    }
    let AuditExported { damaged, damaged_events, .. } = exported;
    let named =
        damaged_events.into_iter().take(NAMED_MAX).map(|event| format!("the event {event} is damaged and left out"));
    let rest = format!(
        "{damaged} events are damaged and left out, all others are written; `keyward audit verify` and `keyward verify-data` say more"
    );
    fail(EXIT_ERROR, named.chain([rest]))
}

fn exported(reach: &Reach, ask: &ExportAudit, lines: &mut Lines) -> Result<AuditExported, String> {
    match reach.begin_on_records("audit.export", ask)? {
        Way::Server(mut frames, _) => {
            let answer = receive(&mut frames, |bytes| lines.write(bytes).map_err(|error| lines.failed(&error)))?;
            serde_json::from_value(answer).map_err(|error| format!("the server's answer: {error}"))
        }
        Way::Directory(services) => {
            let exported = export_here(&services, ask, &mut |bytes| lines.write(bytes));
            services.shutdown();
            exported.map_err(|error| match error {
                NotExported::Store(reason) => reason,
                NotExported::Out(error) => lines.failed(&error),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head reads as it is printed, by itself and among others.
    #[test]
    fn heads_are_lines() {
        let line = format!("ws_1:42:{}", "0f".repeat(32));
        let head: KeptHead = line.parse().unwrap();
        assert_eq!((head.to_string(), json!(head)), (line.clone(), json!(line)));
        assert_eq!(serde_json::from_value::<KeptHead>(json!(line)).unwrap(), head);
        assert_eq!(ChainHead::from(head).head, line);
        for wrong in ["", "ws_1", "ws_1:42", &format!(":{line}"), &format!("{line}0")] {
            assert!(wrong.parse::<KeptHead>().is_err_and(|why| why.contains("WS:SEQUENCE:HASH")), "{wrong}");
        }
    }
}
