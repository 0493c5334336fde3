//! The operator's socket: `admin.sock` in the data directory, for whoever may open it.
//!
//! One JSON object a line each way: `{"command":"workspace.create","arguments":{…}}` is answered by `{"ok":…}` or by
//! `{"error":{"message":…}}`. The commands themselves are handed in; this file knows the lines, their limits and who is
//! asking. Files' permissions are the credential: the socket has mode 0600 from its first moment on. A few commands move
//! more than a line: [`stream`].

pub mod stream;

use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{sleep, timeout};

use stream::Frames;

/// The socket's name in the data directory.
pub const SOCKET_NAME: &str = "admin.sock";
/// Where the socket is made before it gets its name: a directory nobody else can enter.
const WORKSHOP_NAME: &str = "admin.sock.new";
/// Bytes of one request, its line end included.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// How long a client may take to send a whole line.
const LINE_TIME_MAX: Duration = Duration::from_secs(30);
/// How long a command may take before its client is told to look again later; the command itself goes on.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(300);
/// How long a client may take to read its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// Connections at one time.
const CONNECTIONS_MAX: usize = 16;
/// Longest path a socket address can hold everywhere we run (macOS: 104 with the terminating zero, Linux: 108).
const SOCKET_PATH_BYTES_MAX: usize = 103;
/// Bytes of `/etc/passwd` that are searched for the operator's name.
const PASSWD_BYTES_MAX: u64 = 1024 * 1024;

/// A command from the operator.
#[derive(Debug, Clone, PartialEq)]
pub struct AdminRequest {
    /// Such as `workspace.create`.
    pub command: String,
    /// Its arguments; empty where none were sent.
    pub arguments: Map<String, Value>,
    /// Who asks.
    pub operator: Operator,
}

/// The operating-system user behind a command, for the audit log (AL-ACTOR-02).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// The user's number.
    pub uid: u32,
    /// The login name, where `/etc/passwd` has one.
    pub name: Option<String>,
}

impl Operator {
    /// The user with this number. Reads `/etc/passwd`; users from elsewhere (LDAP) stay without a name.
    pub fn of_uid(uid: u32) -> Operator {
        Operator { uid, name: login_name(uid) }
    }

    /// The user this process runs as.
    pub fn current() -> Operator {
        Operator::of_uid(rustix::process::geteuid().as_raw())
    }
}

/// What runs a command: a value for `ok`, or a sentence for `error`.
pub type Answer =
    Arc<dyn Fn(AdminRequest) -> Pin<Box<dyn Future<Output = Result<Value, String>> + Send>> + Send + Sync>;
/// What runs a command that moves frames, on a thread of its own.
pub type Stream = Arc<dyn Fn(AdminRequest, &mut Frames) -> Result<Value, String> + Send + Sync>;

/// What runs commands.
#[derive(Clone)]
pub struct Dispatch {
    /// Those that answer a line with a line.
    pub answer: Answer,
    /// Those that move frames.
    pub stream: Stream,
    /// Whether a command is one that moves frames.
    pub is_streamed: fn(&str) -> bool,
}

impl fmt::Debug for Dispatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").finish_non_exhaustive()
    }
}

/// The operator's socket, open and with its name in place.
#[derive(Debug)]
pub struct AdminSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminSocket {
    /// Opens the socket of a data directory, replacing what a crash may have left. Call it only while the directory's
    /// lock is held: then no other server can be listening there. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// A sentence for the operator.
    #[expect(clippy::disallowed_methods, reason = "a socket is not data: nothing of it has to outlive the process")]
    pub fn bind(data_dir: &Path) -> Result<AdminSocket, String> {
        let path = data_dir.join(SOCKET_NAME);
        let fail = |what: &str, error: io::Error| {
            format!("cannot open the operator's socket {}: {what}: {error}", path.display())
        };

        // A socket gets its mode from the process's umask and is there from `bind` on. So it is made in a directory
        // that only we can enter, gets its mode there, and then its name, in one step that also replaces a stale one.
        let workshop = data_dir.join(WORKSHOP_NAME);
        match fs::remove_dir_all(&workshop) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("clearing leftovers", error)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&workshop).map_err(|error| fail("making a private directory", error))?;
        let listener =
            with_socket_path(&workshop, |path| UnixListener::bind(path)).map_err(|error| fail("binding it", error))?;
        let made = workshop.join(SOCKET_NAME);
        fs::set_permissions(&made, Permissions::from_mode(0o600)).map_err(|error| fail("setting its mode", error))?;
        fs::rename(&made, &path).map_err(|error| fail("giving it its name", error))?;
        fs::remove_dir(&workshop).map_err(|error| fail("removing the private directory", error))?;
        Ok(AdminSocket { listener, path })
    }

    /// Answers commands until `stop` is ready. Then the socket's name is removed; commands that run go on to their end
    /// and are waited for no longer than `patience`.
    pub async fn run(self, dispatch: Dispatch, stop: impl Future<Output = ()>, patience: Duration) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (end, ending) = watch::channel(false);
        let mut stop = pin!(stop);
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await.expect("the places are never closed");
                (self.listener.accept().await, place)
            };
            let (accepted, place) = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (dispatch, ending) = (dispatch.clone(), ending.clone());
                    tokio::spawn(async move {
                        let _place = place;
                        if let Err(error) = serve(stream, &dispatch, ending).await {
                            tracing::debug!(%error, "a connection of the operator's socket ended early");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection on the operator's socket");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the operator's socket");
        }
        drop(self.listener);
        end.send_replace(true);
        // All places free means that nobody is being served any more.
        let _ = timeout(patience, places.acquire_many(CONNECTIONS_MAX as u32)).await;
    }
}

/// A request as it stands on its line.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    command: String,
    #[serde(default)]
    arguments: Map<String, Value>,
}

/// Serves one connection: line by line, one command at a time, none after the end has begun.
async fn serve(stream: UnixStream, dispatch: &Dispatch, mut ending: watch::Receiver<bool>) -> io::Result<()> {
    let operator = Operator::of_uid(stream.peer_cred()?.uid());
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reading).take(LINE_BYTES_MAX as u64);
        tokio::select! {
            read = timeout(LINE_TIME_MAX, bounded.read_until(b'\n', &mut line)) => match read {
                Ok(read) => read?,
                Err(_) => return Ok(()),
            },
            _ = ending.wait_for(|ending| *ending) => return Ok(()),
        };
        if line.is_empty() {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            let message = if line.len() == LINE_BYTES_MAX {
                format!("a request may have {LINE_BYTES_MAX} bytes")
            } else {
                "the request ended before its line did".to_owned()
            };
            return answer(&mut writing, Err(message)).await;
        }
        let outcome = match serde_json::from_slice::<Line>(&line) {
            Ok(Line { command, arguments }) => {
                let request = AdminRequest { command, arguments, operator: operator.clone() };
                if (dispatch.is_streamed)(&request.command) {
                    if !reading.buffer().is_empty() {
                        let message = "frames may follow when the server has said `go`".to_owned();
                        return answer(&mut writing, Err(message)).await;
                    }
                    let whole = reading.into_inner().reunite(writing).map_err(io::Error::other)?;
                    return run_stream(whole, dispatch, request, ending).await;
                }
                run(dispatch, request).await
            }
            Err(error) => Err(format!("not a request: {error}")),
        };
        answer(&mut writing, outcome).await?;
    }
}

/// Runs a command that moves frames. When the end has begun its connection is cut, which it takes for a client that is gone:
/// nothing may go on writing to a store that is being closed.
async fn run_stream(
    connection: UnixStream,
    dispatch: &Dispatch,
    request: AdminRequest,
    mut ending: watch::Receiver<bool>,
) -> io::Result<()> {
    let connection = connection.into_std()?;
    let cut = connection.try_clone()?;
    let mut frames = Frames::new(connection)?;
    tracing::info!(command = request.command, uid = request.operator.uid, "the operator runs a command");
    let run = Arc::clone(&dispatch.stream);
    let (tell, told) = oneshot::channel();
    // Not one of the runtime's threads for short reads: a stream may take hours.
    std::thread::Builder::new().name("admin-stream".to_owned()).spawn(move || {
        let outcome = run(request, &mut frames);
        let _ = tell.send(frames.send_line(&in_json(outcome)));
    })?;
    let mut told = pin!(told);
    let ends = async { drop(ending.wait_for(|ending| *ending).await) };
    let ended = tokio::select! {
        ended = &mut told => ended,
        () = ends => {
            let _ = cut.shutdown(Shutdown::Both);
            told.await
        }
    };
    ended.unwrap_or_else(|_| Err(io::Error::other("a stream ended by a bug")))
}

/// Runs a command on a task of its own, so that it comes to its end whatever its client does.
async fn run(dispatch: &Dispatch, request: AdminRequest) -> Result<Value, String> {
    let command = request.command.clone();
    tracing::info!(command, uid = request.operator.uid, "the operator runs a command");
    let run = Arc::clone(&dispatch.answer);
    match timeout(COMMAND_TIME_MAX, tokio::spawn(async move { run(request).await })).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(format!("{command} failed because of a bug; the server's log says where")),
        Err(_) => Err(format!("{command} takes longer than {} seconds; it goes on", COMMAND_TIME_MAX.as_secs())),
    }
}

async fn answer(writing: &mut (impl AsyncWriteExt + Unpin), outcome: Result<Value, String>) -> io::Result<()> {
    let mut line = in_json(outcome).to_string();
    line.push('\n');
    match timeout(ANSWER_TIME_MAX, writing.write_all(line.as_bytes())).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

fn in_json(outcome: Result<Value, String>) -> Value {
    match outcome {
        Ok(value) => json!({ "ok": value }),
        Err(message) => json!({ "error": { "message": message } }),
    }
}

/// Calls `act` with a path to `admin.sock` in `dir` that fits a socket address (`sockaddr_un` holds some hundred
/// bytes). On Linux a longer one is taken through an open handle of the directory.
///
/// # Errors
/// What `act` says; elsewhere than on Linux, `InvalidInput` for a directory whose path is too long.
pub fn with_socket_path<T>(dir: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(SOCKET_NAME);
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return act(&path);
    }
    if cfg!(target_os = "linux") {
        use std::os::fd::AsRawFd;
        let handle = File::open(dir)?;
        return act(Path::new(&format!("/proc/self/fd/{}/{SOCKET_NAME}", handle.as_raw_fd())));
    }
    let message = format!(
        "the path is longer than the {SOCKET_PATH_BYTES_MAX} bytes this system allows; use a shorter --data-dir"
    );
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

fn login_name(uid: u32) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    File::open("/etc/passwd").ok()?.take(PASSWD_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::admin_client::{CallError, call, open_stream};
    use stream::Frame;

    /// Answers every command with what was asked, and `fail` with an error, `panic` with a bug.
    fn echo() -> Dispatch {
        let answer: Answer = Arc::new(|request: AdminRequest| {
            Box::pin(async move {
                match request.command.as_str() {
                    "fail" => Err("as you wish".to_owned()),
                    "panic" => panic!("on purpose"),
                    command => {
                        Ok(json!({"command": command, "arguments": request.arguments, "uid": request.operator.uid}))
                    }
                }
            })
        });
        // Sends back the frames it gets, up to the last one.
        let stream: Stream = Arc::new(|request: AdminRequest, frames: &mut Frames| {
            frames.go(&json!({"command": request.command})).map_err(|error| error.to_string())?;
            let mut count = 0;
            loop {
                match frames.receive().map_err(|error| error.to_string())? {
                    Frame::Bytes(frame) => frames.send(&frame).map_err(|error| error.to_string())?,
                    Frame::End => return Ok(json!({"frames": count})),
                    Frame::Aborted => return Err("the client gave up".to_owned()),
                }
                count += 1;
            }
        });
        Dispatch { answer, stream, is_streamed: |command| command == "stream" }
    }

    /// Asks from a thread of its own, as the blocking client does in another process.
    async fn ask(data_dir: &Path, command: &'static str, arguments: Value) -> Result<Value, CallError> {
        let data_dir = data_dir.to_owned();
        tokio::task::spawn_blocking(move || {
            let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
            call(&data_dir, command, arguments)
        })
        .await
        .expect("the client does not panic")
    }

    /// EXT-1 to EXT-3: commands travel over the socket, in a data directory with a path longer than a socket address
    /// too; the socket is 0600, a stale one is replaced, and without a server the client says so.
    #[tokio::test]
    async fn commands_travel_over_the_socket() {
        for extra in [String::new(), "d".repeat(200)] {
            let home = tempfile::tempdir().expect("a directory for the test");
            let data_dir = home.path().join(extra);
            fs::create_dir_all(&data_dir).expect("made");
            assert!(matches!(ask(&data_dir, "any", json!({})).await, Err(CallError::NoServer)));

            // What a crash leaves: a socket nobody listens on, and a half-made one.
            drop(AdminSocket::bind(&data_dir).expect("a first socket"));
            fs::create_dir(data_dir.join(WORKSHOP_NAME)).expect("made");
            assert!(data_dir.join(SOCKET_NAME).exists());
            assert!(matches!(ask(&data_dir, "any", json!({})).await, Err(CallError::NoServer)));

            let socket = AdminSocket::bind(&data_dir).expect("a second socket in its place");
            let mode = fs::metadata(data_dir.join(SOCKET_NAME)).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(!data_dir.join(WORKSHOP_NAME).exists());

            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let stopped = async { stopped.await.expect("the test stops it") };
            let server = tokio::spawn(socket.run(echo(), stopped, Duration::from_secs(5)));
            let answer = ask(&data_dir, "workspace.create", json!({"name": "Ünï\ncode"})).await.expect("answered");
            assert_eq!(answer["arguments"]["name"], "Ünï\ncode");
            assert_eq!(answer["uid"], rustix::process::geteuid().as_raw());
            assert!(
                matches!(ask(&data_dir, "fail", json!({})).await, Err(CallError::Refused(text)) if text == "as you wish")
            );
            assert!(
                matches!(ask(&data_dir, "panic", json!({})).await, Err(CallError::Refused(text)) if text.contains("bug"))
            );
            ask(&data_dir, "again", json!({})).await.expect("a bug in one command ends nothing else");

            stop.send(()).expect("it runs");
            server.await.expect("it ends");
            assert!(!data_dir.join(SOCKET_NAME).exists());
            assert!(matches!(ask(&data_dir, "any", json!({})).await, Err(CallError::NoServer)));
        }
    }

    /// A line is bounded before work is done on it, and a broken one gets an answer, not silence.
    #[tokio::test]
    async fn broken_and_endless_lines_are_refused() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let socket = AdminSocket::bind(home.path()).expect("a socket");
        tokio::spawn(socket.run(echo(), std::future::pending(), Duration::ZERO));
        let endless = vec![b'x'; LINE_BYTES_MAX];
        for (line, answer) in [
            (b"nonsense\n".as_slice(), "not a request"),
            (b"{\"command\":\"x\",\"extra\":1}\n", "unknown field `extra`"),
            (b"{\"command\":\"x\",\"arguments\":[]}\n", "not a request"),
            (b"{\"command\":\"x\"}", "ended before its line"),
            (&endless, "may have 1048576 bytes"),
        ] {
            let stream =
                with_socket_path(home.path(), |path| std::os::unix::net::UnixStream::connect(path)).expect("open");
            stream.set_nonblocking(true).expect("settable");
            let mut stream = UnixStream::from_std(stream).expect("in a runtime");
            stream.write_all(line).await.expect("sent");
            stream.shutdown().await.expect("ended");
            let mut text = String::new();
            stream.read_to_string(&mut text).await.expect("answered");
            assert!(text.starts_with("{\"error\":{\"message\":\"") && text.contains(answer), "{text:?} for {answer:?}");
        }
    }

    /// EXT-4: a command that moves frames has the connection for itself, both ways; a server that stops cuts it and waits
    /// for it, for nothing may write to a store that is being closed.
    #[tokio::test]
    async fn streams_flow_until_the_server_stops() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let socket = AdminSocket::bind(home.path()).expect("a socket");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { stopped.await.expect("the test stops it") };
        let server = tokio::spawn(socket.run(echo(), stopped, Duration::from_secs(5)));
        let dir = home.path().to_owned();
        let open = tokio::task::spawn_blocking(move || {
            let (mut frames, told) = open_stream(&dir, "stream", Map::new()).expect("taken");
            assert_eq!(told["command"], "stream");
            let long = vec![7; 3 << 20];
            for frame in [b"x".as_slice(), &long] {
                // The other end sends while it is sent to: more than a socket holds needs a reader at both ends.
                std::thread::scope(|scope| {
                    let mut sender = frames.another().expect("the same connection");
                    scope.spawn(move || sender.send(frame).expect("sent"));
                    assert_eq!(frames.receive().expect("back again"), Frame::Bytes(frame.to_vec()));
                });
            }
            frames.end().expect("sent");
            assert_eq!(frames.receive_line().expect("answered"), json!({"ok": {"frames": 2}}));
            let (mut open, _) = open_stream(&dir, "stream", Map::new()).expect("taken");
            open.send(b"x").expect("sent");
            assert_eq!(open.receive().expect("back"), Frame::Bytes(b"x".to_vec()));
            open
        });
        let mut open = open.await.expect("no panic");
        stop.send(()).expect("it runs");
        server.await.expect("it ends although a stream is open");
        assert!(open.receive().is_err(), "the stream was cut");
    }

    /// AL-ACTOR-02: user 0 is root wherever there is a user list.
    #[test]
    fn root_has_a_name() {
        assert_eq!(Operator::of_uid(0).name.as_deref(), Some("root"));
        assert_eq!(Operator::of_uid(4_000_000_000).name, None);
    }
}
