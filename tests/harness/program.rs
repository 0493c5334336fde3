//! The program as a process: start, wait until ready, kill, stop, and run its commands.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::call::Call;
use super::client::{Ask, Pool, Reply};
use super::document::Document;

/// How long the program may take to be ready or to end before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The root key that servers of the tests are born with unless they ask for another.
pub const FIRST_ROOT_KEY: &str = "unkey_first_root_key_of_the_tests";

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    pub test_mode: bool,
    /// Value of `KEYWARD_ROOT_KEY`; `None` leaves it unset.
    pub root_key: Option<String>,
    /// Value of `--listen`; the first loopback address is where the tests call the server.
    pub listen: String,
    /// More arguments for `keyward serve`.
    pub arguments: Vec<String>,
    /// Settings, as environment variables.
    pub settings: Vec<(String, String)>,
    /// The program; another one for tests of two releases.
    pub binary: PathBuf,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            test_mode: false,
            root_key: Some(FIRST_ROOT_KEY.to_owned()),
            listen: "127.0.0.1:0".to_owned(),
            arguments: Vec::new(),
            // Many tests try keys that do not exist; those about holding such answers back set it anew.
            settings: vec![("KEYWARD_AUTH_GUESS_DELAY_MAX_MS".to_owned(), "0".to_owned())],
            binary: binary(),
        }
    }
}

impl Options {
    /// Started with `--test-mode`.
    pub fn timed() -> Options {
        Options { test_mode: true, ..Options::default() }
    }

    /// With one more setting, by the name of its environment variable.
    pub fn setting(mut self, name: &str, value: impl ToString) -> Options {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }
}

/// What a finished command left behind.
#[derive(Clone, Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Standard output as the one JSON object it must be; the command must have succeeded.
    pub fn json(&self) -> Value {
        assert_eq!(self.code, Some(0), "the command failed: {self:?}");
        let mut values = serde_json::Deserializer::from_str(&self.stdout).into_iter::<Value>();
        let first = values.next().unwrap_or_else(|| panic!("nothing on stdout: {self:?}"));
        let value = first.unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self:?}"));
        assert!(value.is_object(), "stdout is not one JSON object: {self:?}");
        assert!(values.next().is_none(), "stdout holds more than one JSON object: {self:?}");
        value
    }
}

/// The program under test: the one built beside these tests, or the one that `KEYWARD_TEST_BINARY` names (another build
/// profile, a released version).
pub fn binary() -> PathBuf {
    std::env::var_os("KEYWARD_TEST_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_keyward").into(), PathBuf::from)
}

fn command() -> Command {
    command_of(&binary())
}

fn command_of(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG").env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// Runs `keyward` with these arguments to its end.
pub fn keyward<A: AsRef<OsStr>>(arguments: &[A]) -> Output {
    keyward_with(arguments, &[])
}

/// Runs `keyward` with these arguments and environment variables to its end.
pub fn keyward_with<A: AsRef<OsStr>>(arguments: &[A], environment: &[(&str, &str)]) -> Output {
    let mut command = command();
    command.args(arguments).envs(environment.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start keyward");
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = drain(Box::new(child.stdout.take().unwrap()));
    let stderr = drain(Box::new(child.stderr.take().unwrap()));
    let status = wait(&mut child, PATIENCE);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let output = Output {
        code: status.and_then(|status| status.code()),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    };
    assert!(status.is_some(), "keyward did not end within {PATIENCE:?}: {output:?}");
    output
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("wait for keyward") {
            return Some(status);
        }
        if start.elapsed() > patience {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A data directory that goes away with its last user.
#[derive(Clone)]
pub struct DataDir {
    path: PathBuf,
    _owner: Arc<TempDir>,
}

impl DataDir {
    /// A path that does not exist yet inside a fresh temporary directory.
    pub fn fresh() -> DataDir {
        DataDir::named("data")
    }

    /// The same with this relative path as its last part.
    pub fn named(name: &str) -> DataDir {
        let owner = tempfile::Builder::new().prefix("keyward-test-").tempdir().expect("make a temporary directory");
        DataDir { path: owner.path().join(name), _owner: Arc::new(owner) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as text.
    pub fn text(&self) -> &str {
        self.path.to_str().expect("temporary paths are text")
    }
}

/// A running `keyward serve`. Dropping it kills the process; a test that fails prints the end of its log.
pub struct Server {
    child: Mutex<Option<Child>>,
    pub addr: SocketAddr,
    pub dir: DataDir,
    options: Options,
    log: Arc<Mutex<String>>,
    pool: Pool,
    document: OnceLock<Document>,
    /// From starting the process to the first ready answer.
    pub started_in: Duration,
}

impl Server {
    /// Starts a server on a new directory.
    pub fn start() -> Server {
        Server::start_with(DataDir::fresh(), Options::default())
    }

    /// Starts a server in test mode on a new directory.
    pub fn timed() -> Server {
        Server::start_with(DataDir::fresh(), Options::timed())
    }

    /// Starts a server on a directory and waits until it is ready.
    pub fn start_with(dir: DataDir, options: Options) -> Server {
        let begun = Instant::now();
        let mut command = command_of(&options.binary);
        command.args(["serve", "--data-dir", dir.text(), "--listen", &options.listen]);
        if options.test_mode {
            command.arg("--test-mode");
        }
        command.args(&options.arguments).envs(options.settings.iter().map(|(name, value)| (name, value)));
        if let Some(key) = &options.root_key {
            command.env("KEYWARD_ROOT_KEY", key);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start keyward serve");
        let log = Arc::new(Mutex::new(String::new()));
        let addr = follow_log(&mut child, &log);
        let Some(addr) = addr else {
            let _ = child.kill();
            let status = child.wait();
            panic!("keyward serve never said where it listens ({status:?}); its log:\n{}", log.lock().unwrap());
        };
        let mut server = Server {
            child: Mutex::new(Some(child)),
            addr,
            dir,
            options,
            log,
            pool: Pool::new(addr),
            document: OnceLock::new(),
            started_in: Duration::ZERO,
        };
        server.await_ready(begun);
        server.started_in = begun.elapsed();
        server
    }

    /// Starts a server and kills it after that time, wherever it is by then.
    pub fn start_and_kill(dir: &DataDir, options: &Options, after: Duration) {
        let mut command = command();
        command.args(["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"]);
        command.envs(options.settings.iter().map(|(name, value)| (name, value)));
        if let Some(key) = &options.root_key {
            command.env("KEYWARD_ROOT_KEY", key);
        }
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start keyward serve");
        std::thread::sleep(after);
        let _ = child.kill();
        let _ = child.wait();
    }

    fn await_ready(&self, begun: Instant) {
        let ask = Ask::new("GET", "/health/ready");
        loop {
            if self.pool.exchange(&ask).is_ok_and(|reply| reply.status == 200) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "never ready");
            assert!(self.running(), "ended before it was ready");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The key that this server's first workspace was made with.
    pub fn root_key(&self) -> String {
        self.options.root_key.clone().unwrap_or_else(|| {
            let path = self.dir.path().join("root.key");
            std::fs::read_to_string(path).expect("read root.key").trim().to_owned()
        })
    }

    /// A call of an operation, for example `keys.createKey`, without credential.
    pub fn call(&self, operation: &str, body: Value) -> Call<'_> {
        Call::new(self, operation, body)
    }

    /// One exchange over the pooled connections. Panics when there is no answer.
    pub fn exchange(&self, ask: &Ask) -> Reply {
        self.pool.exchange(ask).unwrap_or_else(|error| panic!("no answer to {} {}: {error}", ask.method, ask.target))
    }

    /// A GET without headers.
    pub fn get(&self, target: &str) -> Reply {
        self.exchange(&Ask::new("GET", target))
    }

    /// The document this server publishes about itself.
    pub fn document(&self) -> &Document {
        self.document.get_or_init(|| Document::new(self.get("/openapi.json").json))
    }

    /// A command of the operator on this server's directory, with `--data-dir` and `--output json` filled in.
    pub fn operate(&self, arguments: &[&str]) -> Output {
        operate(&self.dir, arguments)
    }

    /// Everything it has logged so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// The process's number.
    pub fn process(&self) -> u32 {
        self.child.lock().unwrap().as_ref().expect("the server runs").id()
    }

    /// Whether the process still runs.
    pub fn running(&self) -> bool {
        let mut child = self.child.lock().unwrap();
        child.as_mut().is_some_and(|child| child.try_wait().expect("look at keyward").is_none())
    }

    /// `kill -9`, and wait until it is gone.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks for a graceful end (SIGTERM) and returns at once.
    pub fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let child = self.child.lock().unwrap();
        let id = child.as_ref().expect("running").id();
        let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).expect("a process id");
        rustix::process::kill_process(id, signal).expect("send a signal");
    }

    /// Asks for a graceful end and waits for it. The exit code.
    pub fn stop(&self) -> Option<i32> {
        self.terminate();
        self.wait()
    }

    /// Waits until it has ended by itself. The exit code.
    pub fn wait(&self) -> Option<i32> {
        let mut child = self.child.lock().unwrap().take().expect("running");
        let status = wait(&mut child, PATIENCE);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        status.expect("keyward ends after SIGTERM").code()
    }

    /// Starts again on the same directory, with the same options. The process must have ended.
    pub fn restart(&self) -> Server {
        self.restart_with(self.options.clone())
    }

    /// The same with other options.
    pub fn restart_with(&self, options: Options) -> Server {
        assert!(!self.running(), "stop it first");
        Server::start_with(self.dir.clone(), options)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines.len().saturating_sub(40);
            eprintln!("--- the last of {} log lines of {} ---", lines.len(), self.addr);
            lines[tail..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A command of the operator on a directory, running server or not.
pub fn operate(dir: &DataDir, arguments: &[&str]) -> Output {
    let mut all: Vec<&str> = arguments.to_vec();
    all.extend(["--data-dir", dir.text(), "--output", "json"]);
    keyward(&all)
}

/// Copies the process's stderr into `log` until it ends; the address it says it listens on, once it has.
fn follow_log(child: &mut Child, log: &Arc<Mutex<String>>) -> Option<SocketAddr> {
    let (found, listening) = std::sync::mpsc::channel();
    let stderr = child.stderr.take().expect("stderr is a pipe");
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        let mut found = Some(found);
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            let text = String::from_utf8_lossy(&line).into_owned();
            log.lock().unwrap().push_str(&text);
            if let Some(addr) = listening_at(&text)
                && let Some(found) = found.take()
            {
                let _ = found.send(addr);
            }
            line.clear();
        }
    });
    listening.recv_timeout(PATIENCE).ok()
}

/// The loopback address in a line that says that the server listens or is ready.
fn listening_at(line: &str) -> Option<SocketAddr> {
    if !line.contains("listening") && !line.contains("is ready") {
        return None;
    }
    let addr = &line[line.find("127.0.0.1:")?..];
    let end = addr.find(|sign: char| !sign.is_ascii_digit() && sign != '.' && sign != ':').unwrap_or(addr.len());
    addr[..end].parse().ok().filter(|addr: &SocketAddr| addr.port() != 0)
}

#[test]
fn the_address_is_found_in_a_log_line() {
    let line = "2026-11-21T10:00:00Z  INFO keyward: listening addr=127.0.0.1:45123 test_mode=false";
    assert_eq!(listening_at(line), Some("127.0.0.1:45123".parse().unwrap()));
    assert_eq!(listening_at("keyward is ready address=127.0.0.1:8"), Some("127.0.0.1:8".parse().unwrap()));
    assert_eq!(listening_at("starting listen=127.0.0.1:0"), None);
}
