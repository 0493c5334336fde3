//! The other end of the operator's socket: what the command line says to a running server.
//!
//! Blocking and without a runtime: a command asks one thing and ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::http::admin::stream::Frames;
use crate::http::admin::with_socket_path;

/// A little longer than the server gives a command, so that the server's own words win.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(310);
/// How long the server may take to read a request.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);
/// Bytes of one answer: more than any command returns.
const ANSWER_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Why a call brought no value.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: the data directory may be opened directly.
    #[error("no server is running on this data directory")]
    NoServer,
    /// The server refused, in its own words.
    #[error("{0}")]
    Refused(String),
    /// A server may be there, but could not be asked; the command may have run.
    #[error("cannot talk to the running server: {0}")]
    Failed(String),
}

/// Sends one command to the server on `data_dir` and waits for its answer.
///
/// # Errors
/// See [`CallError`].
pub fn call(data_dir: &Path, command: &str, arguments: Map<String, Value>) -> Result<Value, CallError> {
    let failed = |error: io::Error| CallError::Failed(error.to_string());
    let mut stream = connect(data_dir)?;
    stream.set_write_timeout(Some(SEND_TIME_MAX)).map_err(failed)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(failed)?;
    let mut line = json!({ "command": command, "arguments": arguments }).to_string();
    line.push('\n');
    stream.write_all(line.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    BufReader::new(stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(CallError::Failed("it closed the connection without an answer".to_owned()));
    }
    let answer = serde_json::from_slice(&answer).map_err(|error| CallError::Failed(format!("its answer: {error}")))?;
    read(&answer)
}

/// Begins a command that moves frames, and gives the connection with what the server has told about it. After the frames,
/// [`finish`] reads the answer.
///
/// # Errors
/// See [`CallError`].
pub fn open_stream(
    data_dir: &Path,
    command: &str,
    arguments: Map<String, Value>,
) -> Result<(Frames, Value), CallError> {
    let failed = |error: io::Error| CallError::Failed(error.to_string());
    let mut frames = Frames::new(connect(data_dir)?).map_err(failed)?;
    frames.send_line(&json!({ "command": command, "arguments": arguments })).map_err(failed)?;
    let told = frames.receive_line().map_err(closed)?;
    match told.get("go") {
        Some(told) => Ok((frames, told.clone())),
        None => match read(&told) {
            Ok(_) => Err(CallError::Failed("it does not move frames; is it an older one?".to_owned())),
            Err(error) => Err(error),
        },
    }
}

/// The answer of a command whose frames have flowed.
///
/// # Errors
/// See [`CallError`].
pub fn finish(frames: &mut Frames) -> Result<Value, CallError> {
    read(&frames.receive_line().map_err(closed)?)
}

fn closed(error: io::Error) -> CallError {
    CallError::Failed(match error.kind() {
        io::ErrorKind::UnexpectedEof => "it closed the connection without an answer; is it stopping?".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    })
}

fn connect(data_dir: &Path) -> Result<UnixStream, CallError> {
    with_socket_path(data_dir, |path| UnixStream::connect(path)).map_err(|error| match error.kind() {
        // No directory, no socket, or one that a crash has left.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => CallError::NoServer,
        io::ErrorKind::PermissionDenied => {
            CallError::Failed(format!("{error}; only the user that runs the server, and root, may give it commands"))
        }
        _ => CallError::Failed(error.to_string()),
    })
}

/// What an answer's line says.
fn read(answer: &Value) -> Result<Value, CallError> {
    if let Some(value) = answer.get("ok") {
        return Ok(value.clone());
    }
    match answer.pointer("/error/message").and_then(Value::as_str) {
        Some(message) => Err(CallError::Refused(message.to_owned())),
        None => Err(CallError::Failed("its answer is neither `ok` nor `error`".to_owned())),
    }
}
