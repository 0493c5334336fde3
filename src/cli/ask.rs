//! How a command of the operator reaches its store: over the socket of the server that runs on the data directory, or, where
//! none does, by opening the directory itself. And how its answer reaches the operator.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use keyward_storage::disk::{Disk, RealDisk};
use keyward_storage::{OpenError, Storage};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::admin_client::{CallError, call, open_stream};
use super::operator::{Done, execute};
use super::{EXIT_ERROR, EXIT_USAGE, Flags, PepperFileArguments, SecretsArguments, SettingsArguments, fail};
use crate::app::{Services, open_events, open_storage};
use crate::audit::export::exports;
use crate::config::{ConfigError, Log, LogLevel, Reading, Replication, Settings};
use crate::guesses::Guesses;
use crate::http::admin::stream::Frames;
use crate::http::admin::{AdminRequest, Operator};
use crate::metrics::Metrics;
use crate::outside::Outside;
use crate::pepper::Configured;
use crate::printable::{printable_json, printable_lines};
use crate::replication::node::Node;
use crate::replication::replies::Replies;
use crate::telemetry::{self, error_chain};
use crate::vault::Vault;

/// How long a data directory may be neither served nor free: a server that starts or stops, another command.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// What every data directory has from its first moment on.
const FORMAT_FILE: &str = "FORMAT";

/// Flags of every command of the operator, with the command's own.
#[derive(Debug, clap::Args)]
pub struct Asked<T: clap::Args> {
    /// The command's own.
    #[command(flatten)]
    pub ask: T,
    /// Where its store is, and how it answers.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// Flags that say where a store is, and what it takes to open it.
#[derive(Debug, clap::Args)]
pub struct PlaceArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    #[command(flatten)]
    pepper: PepperFileArguments,
}

impl PlaceArguments {
    fn read_with(self, secrets: SecretsArguments) -> Result<Reading, ConfigError> {
        self.settings.read_with(Flags { secrets, pepper: self.pepper, ..Flags::default() })
    }
}

/// Flags of every command of the operator.
#[derive(Debug, clap::Args)]
pub struct StoreArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// One JSON object
    Json,
}

impl StoreArguments {
    /// The form of the answer.
    pub fn output(&self) -> Output {
        self.output
    }

    /// Reads the settings that say where the store is. `Err` is an exit code: the reason has been printed.
    pub fn reach(self) -> Result<Reach, ExitCode> {
        self.reach_with(SecretsArguments::default())
    }

    /// The same for a command that may need the operator's secrets itself, where no server runs.
    pub fn reach_with(self, secrets: SecretsArguments) -> Result<Reach, ExitCode> {
        Reach::new(self.place.read_with(secrets)).map(|reach| Reach { output: self.output, ..reach })
    }
}

impl<T: clap::Args + Serialize> Asked<T> {
    /// Runs a command on the store it is meant for, as [`Reach::run`].
    pub fn run<R: DeserializeOwned>(self, command: &str, text: impl FnOnce(&R) -> String) -> ExitCode {
        match self.store.reach() {
            Ok(reach) => reach.run(command, &self.ask, text),
            Err(answered) => answered,
        }
    }
}

/// A way to a store.
pub struct Reach {
    settings: Settings,
    output: Output,
}

/// Where a command that moves frames finds its store.
pub enum Way {
    /// A server has taken the command; frames may flow. With what it has told.
    Server(Frames, Value),
    /// No server runs, and this is the directory, open. Shut it down afterwards.
    Directory(Box<Services>),
}

impl Reach {
    /// Reads the settings that say where the store is. `Err` is an exit code: the reason has been printed.
    pub fn of(place: PlaceArguments) -> Result<Reach, ExitCode> {
        Reach::new(place.read_with(SecretsArguments::default()))
    }

    fn new(reading: Result<Reading, ConfigError>) -> Result<Reach, ExitCode> {
        match reading {
            Ok(Reading { settings, warnings, .. }) => {
                note(warnings.iter().map(|warning| format!("warning: {warning}")));
                Ok(Reach { settings, output: Output::Json })
            }
            Err(ConfigError(reasons)) => Err(fail(EXIT_USAGE, reasons)),
        }
    }

    /// The settings that lead there.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Begins a command that moves frames where its store is; a directory is opened with its events.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn begin(&self, command: &str, arguments: &impl Serialize) -> Result<Way, String> {
        self.begin_with(Opening::WithEvents, command, arguments)
    }

    /// The same for a command that needs the records alone.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn begin_on_records(&self, command: &str, arguments: &impl Serialize) -> Result<Way, String> {
        self.begin_with(Opening::RecordsAlone, command, arguments)
    }

    fn begin_with(&self, opening: Opening, command: &str, arguments: &impl Serialize) -> Result<Way, String> {
        let data_dir = &self.settings.data_dir;
        let begin = || open_stream(data_dir, command, members(arguments));
        match reach(&self.settings, opening, PATIENCE, begin)? {
            Reached::Server((frames, told)) => Ok(Way::Server(frames, told)),
            Reached::Directory(services) => Ok(Way::Directory(services)),
        }
    }

    /// Runs a command and prints its answer: the JSON object as it is, or the text that `text` makes of it.
    pub fn run<R: DeserializeOwned>(
        &self,
        command: &str,
        arguments: &impl Serialize,
        text: impl FnOnce(&R) -> String,
    ) -> ExitCode {
        let Done { result, warnings } = match self.ask(command, arguments) {
            Ok(done) => done,
            Err(reason) => return fail(EXIT_ERROR, [reason]),
        };
        note(warnings.iter().map(|warning| format!("warning: {warning}")));
        let answer = match self.output {
            Output::Json => format!("{result}\n"),
            Output::Text => match serde_json::from_value(result) {
                Ok(result) => text(&result),
                Err(error) => {
                    let reason = format!("the command succeeded, but its answer cannot be shown as text: {error}");
                    return fail(EXIT_ERROR, [reason]);
                }
            },
        };
        print_answer(answer.as_bytes())
    }

    /// Runs a command where its store is.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn ask(&self, command: &str, arguments: &impl Serialize) -> Result<Done, String> {
        ask(&self.settings, command, members(arguments), PATIENCE)
    }
}

fn members(arguments: &impl Serialize) -> Map<String, Value> {
    match json!(arguments) {
        Value::Object(arguments) => arguments,
        _ => unreachable!("arguments of commands are structs, which are objects in JSON"),
    }
}

/// Tells the operator something that is neither an answer nor an error, a line each.
pub fn note(lines: impl IntoIterator<Item = impl AsRef<str>>) {
    let mut stderr = io::stderr().lock();
    for line in lines {
        // Standard error may be closed; the answer is elsewhere.
        let _ = writeln!(stderr, "keyward: {}", printable_lines(line.as_ref()));
    }
}

/// Shows a question, without an end of line, where answers do not go.
pub fn prompt(question: &str) {
    let mut stderr = io::stderr().lock();
    // Whoever cannot see the question may still know the answer.
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
}

/// Prints an answer whose command has succeeded.
pub fn print_answer(answer: &[u8]) -> ExitCode {
    let mut stdout = io::stdout().lock();
    let escaped = std::str::from_utf8(answer).ok().filter(|_| stdout.is_terminal()).map(printable_json);
    match stdout.write_all(escaped.as_deref().map_or(answer, str::as_bytes)).and_then(|()| stdout.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(EXIT_ERROR, [format!("the command succeeded, but its answer cannot be printed: {error}")]),
    }
}

/// Asks the server on the data directory, or opens the directory where there is none.
fn ask(settings: &Settings, command: &str, arguments: Map<String, Value>, patience: Duration) -> Result<Done, String> {
    let call = || call(&settings.data_dir, command, arguments.clone());
    match reach(settings, Opening::RecordsAlone, patience, call)? {
        Reached::Server(done) => serde_json::from_value(done).map_err(|error| format!("the server's answer: {error}")),
        Reached::Directory(services) => {
            let request = AdminRequest { command: command.to_owned(), arguments, operator: Operator::current() };
            let outcome = execute(&services, request);
            services.shutdown();
            outcome
        }
    }
}

/// What was there.
enum Reached<T> {
    Server(T),
    Directory(Box<Services>),
}

/// What of a data directory a command needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    RecordsAlone,
    WithEvents,
}

/// Calls the server on the data directory, or opens the directory where there is none.
fn reach<T>(
    settings: &Settings,
    opening: Opening,
    patience: Duration,
    call: impl Fn() -> Result<T, CallError>,
) -> Result<Reached<T>, String> {
    let begun = Instant::now();
    loop {
        match call() {
            Ok(answer) => return Ok(Reached::Server(answer)),
            Err(CallError::NoServer) => {}
            Err(error) => return Err(error.to_string()),
        }
        match open(settings, opening) {
            Ok(services) => return Ok(Reached::Directory(Box::new(services))),
            // Somebody has the directory and does not listen, or does not any more: a server on its way up or down, or
            // another command. Nothing was done yet, so trying again is safe.
            Err(Closed::InUse(_)) if begun.elapsed() < patience => std::thread::sleep(PAUSE),
            Err(Closed::InUse(reason) | Closed::No(reason)) => return Err(reason),
        }
    }
}

/// Why a data directory was not opened, in words.
enum Closed {
    /// Another process has it.
    InUse(String),
    /// Trying again would not help.
    No(String),
}

/// Opens a data directory that a server has made.
fn open(settings: &Settings, opening: Opening) -> Result<Services, Closed> {
    let shown = settings.data_dir.display();
    let refuse = |reason: String| Err(Closed::No(reason));
    match RealDisk.list(&settings.data_dir) {
        Ok(names) if names.iter().any(|name| name == FORMAT_FILE) => {}
        Ok(_) => return refuse(absent(&settings.data_dir)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return refuse(absent(&settings.data_dir));
        }
        Err(error) => return refuse(format!("cannot read the data directory {shown}: {error}")),
    }
    // Files that this process makes belong to its user alone: the server's own could not open them afterwards.
    match fs::metadata(settings.data_dir.join(FORMAT_FILE)) {
        Ok(metadata) if metadata.uid() == Operator::current().uid => {}
        Ok(metadata) => {
            let owner = Operator::of_uid(metadata.uid()).name.unwrap_or_else(|| format!("#{}", metadata.uid()));
            return refuse(format!(
                "no server is running on the data directory {shown}, and it belongs to the user {owner}; start the server, \
                 or run this command as that user: sudo -u {owner} keyward …"
            ));
        }
        Err(error) => return refuse(format!("cannot read the data directory {shown}: {error}")),
    }
    // What storage has to say is told only where it is a warning.
    telemetry::start(&Log { level: LogLevel::Warn, ..Settings::default().log }, true);
    let outside = Outside::system();
    let failed = |why: String| Closed::No(format!("cannot open the data directory {shown}: {why}"));
    let vault = Vault::open(&settings.secrets, &settings.data_dir).map_err(|error| failed(error_chain(&error)))?;
    let vault = Arc::new(vault);
    let peppers =
        Configured::open(&settings.secrets, &settings.data_dir).map_err(|error| failed(error_chain(&error)))?;
    let storage = match open_storage(settings, Arc::new(RealDisk), &outside, &peppers) {
        Ok(storage) => storage,
        Err(error @ OpenError::Locked(_)) => return Err(Closed::InUse(error.to_string())),
        Err(error) => return Err(failed(error_chain(&error))),
    };
    // The events come second: the records' lock is the directory's.
    let events = match opening {
        Opening::RecordsAlone => None,
        Opening::WithEvents => match open_events(settings, &outside) {
            Ok(events) => Some(Arc::new(events)),
            Err(error) => {
                storage.stop();
                return Err(failed(error_chain(&error)));
            }
        },
    };
    Ok(Services {
        node: Arc::new(offline_node(settings, &storage)),
        replies: Replies::default(),
        credits_offline: settings.replication.credits_offline,
        metrics: Metrics::new(outside.clock.now_ms()),
        data_dir: settings.data_dir.clone(),
        storage,
        outside,
        vault,
        peppers,
        region: settings.region.clone(),
        events,
        query: None,
        guesses: Guesses::new(settings.auth.guess_delay_max),
        exports: exports(&settings.audit),
        search: None,
    })
}

/// What the node of a closed directory is.
fn offline_node(settings: &Settings, storage: &Storage) -> Node {
    let Replication { node, silence, .. } = &settings.replication;
    Node::new(storage.standing().role(), node, None, *silence, Arc::default())
}

fn absent(data_dir: &Path) -> String {
    let dir = data_dir.display();
    format!(
        "there is no data directory at {dir}; name it with --data-dir, or make it by a first start: \
         keyward serve --data-dir {dir}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::operator::commands;
    use crate::http::admin::AdminSocket;

    fn settings(data_dir: &Path) -> Settings {
        Settings { data_dir: data_dir.to_owned(), ..Settings::default() }
    }

    fn ask_now(data_dir: &Path, command: &str, arguments: Value) -> Result<Value, String> {
        let Value::Object(arguments) = arguments else { panic!("not an object: {arguments}") };
        ask(&settings(data_dir), command, arguments, Duration::ZERO).map(|done| done.result)
    }

    /// EXT-2, EXT-3: a command reaches its store whether a server runs or not, and what it changed without one is there
    /// when the server starts. No command but `serve` makes a data directory.
    #[test]
    fn commands_reach_the_store_with_and_without_a_server() {
        let home = tempfile::tempdir().expect("a directory for the test");
        for (name, made) in [("nothing", false), ("empty", true)] {
            let dir = home.path().join(name);
            if made {
                fs::create_dir(&dir).expect("made");
            }
            for (command, arguments) in [("workspace.create", json!({"name": "x"})), ("workspace.list", json!({}))] {
                let refusal = ask_now(&dir, command, arguments).expect_err("there is no store");
                assert!(refusal.contains("keyward serve --data-dir"), "{refusal}");
            }
            assert_eq!(fs::read_dir(&dir).map_or(0, Iterator::count), 0, "nothing was made in it");
            assert_eq!(dir.exists(), made);
        }

        let dir = home.path().join("data");
        let services = Services::open(&settings(&dir), Outside::system()).expect("a first start");
        let refusal = ask_now(&dir, "workspace.list", json!({})).expect_err("the lock is taken and nobody listens");
        assert!(refusal.contains("in use"), "{refusal}");

        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let over_the_socket = runtime.block_on(async {
            let socket = AdminSocket::bind(&dir).expect("a socket");
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let stopped = async { drop(stopped.await) };
            let server = tokio::spawn(socket.run(commands(&services), stopped, Duration::from_secs(5)));
            let arguments = json!({"name": "x", "slug": "x"});
            let asked = dir.clone();
            let asked = tokio::task::spawn_blocking(move || ask_now(&asked, "workspace.create", arguments));
            let answer = asked.await.expect("no panic").expect("made");
            drop(stop);
            server.await.expect("no panic");
            answer
        });
        services.shutdown();
        drop(services);

        let alone = ask_now(&dir, "workspace.create", json!({"name": "y", "slug": "y"})).expect("opened and made");
        let listed = ask_now(&dir, "workspace.list", json!({})).expect("the lock is free again");
        let seen: Vec<_> = listed["workspaces"].as_array().expect("a list")[1..]
            .iter()
            .map(|row| (row["slug"].as_str().expect("text"), &row["workspaceId"]))
            .collect();
        assert_eq!(seen, [("x", &over_the_socket["workspaceId"]), ("y", &alone["workspaceId"])]);

        let services = Services::open(&settings(&dir), Outside::system()).expect("the next start");
        let hash = crate::secret::digest(alone["rootKey"].as_str().expect("a key"));
        let key = services.storage.read_root_key(&hash).expect("readable").expect("its key works");
        let workspace = key.workspace.load();
        assert!(workspace.as_ref().is_some_and(|workspace| alone["workspaceId"] == workspace.id.to_string()));
        drop(workspace);
        services.shutdown();
    }
}
