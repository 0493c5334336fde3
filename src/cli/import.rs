//! `keyward import`: keys of another system, taken over by their hashes, so that their holders go on using them.
//!
//! An import asks a keyward for operations that anybody may ask for, with a root key: it knows nothing that the API does
//! not tell, and leaves the audit events that they leave. Run again, it makes what is missing and nothing twice, which is
//! how one that was interrupted goes on.

mod batches;
mod csv;
mod remote;
mod rows;
mod seen;
mod tally;
mod unkey;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::access::{Access, Environment, KeyArguments, ServerArguments, check_credential, read_credential};
use super::api::Failure;
use super::ask::{Output, note, print_answer};
use super::events::progress::Progress;
use super::{EXIT_ERROR, EXIT_USAGE, fail};
use crate::server_url::ServerUrl;
use batches::{Batches, Migrations};
use csv::{Bad, Reader, Record};
use remote::{Remote, Trouble};
use rows::Columns;
use seen::Seen;
use tally::{Complaints, Tally};
use unkey::{Outcome, Wanted};

/// `keyward import`.
#[derive(Debug, clap::Args)]
pub struct ImportArguments {
    #[command(subcommand)]
    source: Source,
}

#[derive(Debug, clap::Subcommand)]
enum Source {
    /// Keys by their hashes, from a file of comma-separated values
    #[command(after_help = CSV_HELP)]
    Csv(CsvArguments),
    /// Permissions, roles, identities, keys and overrides, from Unkey's API or another keyward
    #[command(after_help = UNKEY_HELP)]
    Unkey(UnkeyArguments),
}

const CSV_HELP: &str = "The first line names the columns: hash (SHA-256 of the whole key, 64 hexadecimal digits or base64), \
    and as many as wanted of algorithm (sha256, or prefixed-api-key for the hash of the long token), name, external_id, meta \
    (JSON), roles and permissions (several separated by commas), expires (unix milliseconds, 2027-01-31, or \
    2027-01-31T12:00:00Z), enabled, credits, refill_interval (daily, monthly), refill_amount, refill_day, ratelimits (JSON, as \
    in keys.createKey) and start. An empty field is as good as none.\n\n\
    The whole file is read and judged before anything is sent; wrong rows are named by their lines, and then nothing is \
    imported unless --skip-bad-rows is given. Hashes that are there already are counted and left as they are: run the same \
    command again after an interruption. The root key needs api.*.create_key.";
const UNKEY_HELP: &str = "Unkey's API tells no hashes, so a key is taken over where Unkey keeps its plaintext (`recoverable`) and \
    the source's root key may decrypt it. All other keys are named on standard error, with their ids. The source's root key \
    needs api.*.read_api, api.*.read_key and api.*.decrypt_key, rbac.*.read_permission, rbac.*.read_role, \
    identity.*.read_identity and, for overrides, ratelimit.*.read_override; keyward's needs api.*.read_api, api.*.create_api, \
    api.*.create_key, rbac.*.create_permission, rbac.*.create_role, identity.*.create_identity, \
    ratelimit.*.create_namespace and ratelimit.*.set_override. What is there already is left as it is: run the same command \
    again after an interruption.";

#[derive(Debug, clap::Args)]
struct CsvArguments {
    /// The API that the keys hang under from now on
    #[arg(long, value_name = "API_ID")]
    api_id: String,
    /// Read and judge the file, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Import the other rows where some are wrong
    #[arg(long)]
    skip_bad_rows: bool,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Debug, clap::Args)]
struct UnkeyArguments {
    /// An API whose keys are imported, by its id at the source; may be given several times
    #[arg(long = "api", value_name = "API_ID")]
    apis: Vec<String>,
    /// A rate-limit namespace whose overrides are imported, by its name; may be given several times
    #[arg(long = "namespace", value_name = "NAME")]
    namespaces: Vec<String>,
    /// Where the source answers
    #[arg(long, value_name = "URL", default_value = "https://api.unkey.com")]
    from: String,
    /// File whose first line is the source's root key, - for standard input
    #[arg(long, value_name = "FILE")]
    from_root_key_file: PathBuf,
    /// Read and count, and write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(Debug, clap::Args)]
struct CommonArguments {
    #[command(flatten)]
    server: ServerArguments,
    #[command(flatten)]
    key: KeyArguments,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl CommonArguments {
    /// The keyward that things are imported into.
    fn target(&self) -> Result<Remote, Failure> {
        let usage = |reason| Failure::new(EXIT_USAGE, reason);
        let environment = Environment::read();
        let access = Access::find(&self.server, &environment).map_err(usage)?;
        let root_key = access.root_key(&self.key, &environment).map_err(usage)?;
        Ok(Remote::new(access.url, &root_key.key))
    }
}

/// Runs `keyward import`.
pub fn run(arguments: ImportArguments) -> ExitCode {
    let done = match &arguments.source {
        Source::Csv(arguments) => import_csv(arguments),
        Source::Unkey(arguments) => import_unkey(arguments),
    };
    match done {
        Ok(code) => code,
        Err(Failure { code, reasons }) => fail(code, reasons),
    }
}

/// Prints the answer; the exit code says whether everything was taken over.
fn answer(output: Output, told: &Value, text: &str, complete: bool) -> ExitCode {
    let printed = match output {
        Output::Json => print_answer(format!("{told}\n").as_bytes()),
        Output::Text => print_answer(text.as_bytes()),
    };
    if complete { printed } else { ExitCode::from(EXIT_ERROR) }
}

/// Says what to do after an import that ended early.
fn ended_early(trouble: Trouble) -> Failure {
    let Failure { code, mut reasons } = trouble.failure();
    reasons.push("what was imported until now stays; the same command goes on from there".to_owned());
    Failure { code, reasons }
}

fn import_csv(arguments: &CsvArguments) -> Result<ExitCode, Failure> {
    let CsvArguments { api_id, dry_run, skip_bad_rows, file, common } = arguments;
    let mut tally = Tally::default();
    let mut complaints = Complaints::default();
    let mut have_start = false;
    let mut seen = Seen::default();
    each_row(file, |columns, read| {
        have_start = columns.have_start();
        tally.read += 1;
        let wrong = match read {
            Err(wrong) => Some(wrong),
            Ok((record, row, _)) => seen
                .note(record.line, row.algorithm, &row.hash)
                .map(|earlier| (record.line, format!("has the same hash as line {earlier}"))),
        };
        if let Some((line, why)) = wrong {
            tally.refused += 1;
            complaints.add(&format!("line {line}"), &why);
        }
        Ok(())
    })
    .map_err(Trouble::failure)?;
    complaints.finish();
    if seen.is_full() {
        note([
            "the file is too long for each hash to be compared with all others: one that is there twice may be missed here",
        ]);
    }
    if have_start {
        note(["the column start is not kept: a hash is stored without the key's first characters"]);
    }
    let told = |tally: &Tally, migrations: Value| json!({"dryRun": dry_run, "keys": tally, "migrations": migrations});
    if *dry_run {
        let text = tally.text("keys", true);
        return Ok(answer(common.output, &told(&tally, json!({})), &text, tally.refused == 0));
    }
    if tally.refused > 0 && !skip_bad_rows {
        let why = format!("{} of {} rows are wrong, and nothing was imported", tally.refused, tally.read);
        let advice = "correct them, or import the others with --skip-bad-rows".to_owned();
        return Err(Failure { code: EXIT_ERROR, reasons: vec![why, advice] });
    }

    let target = common.target()?;
    let mut migrations = Migrations::default();
    let mut complaints = Complaints::default();
    let mut progress = Progress::new(std::fs::metadata(file).ok().map(|metadata| metadata.len()));
    let mut rows = 0;
    let mut bytes = 0;
    let mut batches = Batches::new(&target, api_id.clone(), &mut migrations, &mut tally, &mut complaints);
    let sent = each_row(file, |_, read| {
        if let Ok((record, row, at)) = read
            && !seen.is_again(record.line)
        {
            batches.add(format!("line {}", record.line), row)?;
            bytes = at;
        }
        rows += 1;
        progress.show(rows, bytes);
        Ok(())
    });
    sent.and_then(|()| batches.finish()).map_err(ended_early)?;
    progress.end();
    complaints.finish();
    let migrations = migrations.told()?;
    let mut text = tally.text("keys", false);
    if let Some(id) = migrations.get("github.com/seamapi/prefixed-api-key").and_then(Value::as_str) {
        text.push_str(&format!(
            "verify keys of the algorithm prefixed-api-key with \"migrationId\": \"{id}\" until each was presented once\n"
        ));
    }
    Ok(answer(common.output, &told(&tally, migrations), &text, tally.refused == 0))
}

/// A row of a file with its record and how many bytes were read, or the line and what is wrong with it.
type ReadRow = Result<(Record, rows::Row, u64), (u64, String)>;

/// Reads a file from its begin to its end.
fn each_row(file: &Path, mut each: impl FnMut(&Columns, ReadRow) -> Result<(), Trouble>) -> Result<(), Trouble> {
    let failed = |why: String| Trouble::from(Failure::new(EXIT_ERROR, format!("{}: {why}", file.display())));
    let opened = File::open(file).map_err(|error| failed(error.to_string()))?;
    // It is read twice.
    if !opened.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return Err(failed("it is no regular file".to_owned()));
    }
    let mut reader = Reader::new(BufReader::new(opened));
    let of_bad = |Bad { line, why }: Bad| (line, why);
    let header = match reader.next() {
        Some(Ok(header)) => header,
        Some(Err(bad)) => return Err(failed(format!("line {} {}", bad.line, bad.why))),
        None => return Err(failed("it is empty".to_owned())),
    };
    let columns = Columns::read(&header).map_err(failed)?;
    while let Some(read) = reader.next() {
        let row = read.map_err(of_bad).and_then(|record| match columns.row(&record) {
            Ok(row) => Ok((record, row, reader.bytes())),
            Err(why) => Err((record.line, why)),
        });
        each(&columns, row)?;
    }
    Ok(())
}

fn import_unkey(arguments: &UnkeyArguments) -> Result<ExitCode, Failure> {
    let usage = |reason: String| Failure::new(EXIT_USAGE, reason);
    let UnkeyArguments { apis, namespaces, from, from_root_key_file, dry_run, common } = arguments;
    let url = ServerUrl::parse(from).map_err(|why| usage(format!("{why} (from --from)")))?;
    let root_key = read_credential(from_root_key_file).map_err(usage)?;
    check_credential(&root_key).map_err(|why| usage(format!("the source's root key {why}")))?;
    if apis.is_empty() {
        note(["no --api is given: keys are not imported. Unkey's dashboard shows the ids of your APIs"]);
    }
    if !url.is_encrypted() && !url.is_loopback() {
        note([format!("warning: what {url} tells is not encrypted, plaintexts of keys included")]);
    }
    let source = Remote::new(url, &root_key);
    let target = common.target()?;
    let wanted = Wanted { apis: apis.clone(), namespaces: namespaces.clone(), dry_run: *dry_run };
    let mut outcome = Outcome::default();
    unkey::run(&source, &target, &wanted, &mut outcome).map_err(ended_early)?;
    outcome.complaints.finish();
    let kinds = [
        ("permissions", outcome.permissions),
        ("roles", outcome.roles),
        ("identities", outcome.identities),
        ("keys", outcome.keys),
        ("overrides", outcome.overrides),
    ];
    let mut told = json!({"dryRun": dry_run, "apis": outcome.apis, "migrations": outcome.migrations.told()?});
    let mut text = String::new();
    for (name, tally) in kinds {
        told[name] = json!(tally);
        text.push_str(&tally.text(name, *dry_run));
    }
    for (theirs, ours) in &outcome.apis {
        text.push_str(&format!("the API {theirs} is {ours} here\n"));
    }
    Ok(answer(common.output, &told, &text, outcome.complaints.count() == 0))
}
