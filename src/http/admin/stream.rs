//! Commands that move more than a line each way: frames over the operator's socket.
//!
//! The request stands on its line as any other. The server refuses it, or says `{"go":…}` on a line of its own; then frames
//! flow, from the client or from the server as the command has it; then comes the server's answer, and the connection ends.
//! A frame is its number of bytes (u32, little-endian) and those bytes; a frame of no bytes ends them, and the number
//! `ABORT` says that they will not be whole. Who writes faster than the other reads waits in the kernel, so neither side
//! holds more than a frame.
//!
//! Blocking: a stream has a thread of its own in the server, and the command has nothing else to do.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use keyward_query::events::files::frames::FRAME_BYTES_MAX;
use serde_json::{Value, json};

use super::LINE_BYTES_MAX;

/// How long either side may do nothing: the other one is writing what it got, or reading a slow file.
const STILL_TIME_MAX: Duration = Duration::from_secs(300);
/// In place of a frame's length: the sender gives up.
const ABORT: u32 = u32::MAX;

/// A connection that carries lines and frames.
pub struct Frames {
    reading: BufReader<UnixStream>,
    writing: UnixStream,
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes, one at least.
    Bytes(Vec<u8>),
    /// That was all.
    End,
    /// The sender gave up: what it has sent is not whole.
    Aborted,
}

impl Frames {
    /// Takes a connection over.
    ///
    /// # Errors
    /// The system's, for a socket that cannot block.
    pub fn new(socket: UnixStream) -> io::Result<Frames> {
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(STILL_TIME_MAX))?;
        socket.set_write_timeout(Some(STILL_TIME_MAX))?;
        Ok(Frames { writing: socket.try_clone()?, reading: BufReader::new(socket) })
    }

    /// Tells the client that frames may flow, and whatever it needs to know for that.
    ///
    /// # Errors
    /// The connection's.
    pub fn go(&mut self, told: &Value) -> io::Result<()> {
        self.send_line(&json!({ "go": told }))
    }

    /// Sends one JSON value on a line.
    ///
    /// # Errors
    /// The connection's.
    pub fn send_line(&mut self, value: &Value) -> io::Result<()> {
        self.writing.write_all(format!("{value}\n").as_bytes())
    }

    /// The JSON value of the next line.
    ///
    /// # Errors
    /// `UnexpectedEof` where the other side is gone, `InvalidData` for what is no JSON, the connection's.
    pub fn receive_line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        (&mut self.reading).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
        if line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_slice(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Sends a frame of at least one byte and at most [`FRAME_BYTES_MAX`].
    ///
    /// # Errors
    /// The connection's.
    pub fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let length = u32::try_from(frame.len()).ok().filter(|length| (1..=FRAME_BYTES_MAX as u32).contains(length));
        let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.writing.write_all(&length.to_le_bytes())?;
        self.writing.write_all(frame)
    }

    /// Says that all frames were sent.
    ///
    /// # Errors
    /// The connection's.
    pub fn end(&mut self) -> io::Result<()> {
        self.writing.write_all(&0_u32.to_le_bytes())
    }

    /// Says that the rest will not come.
    ///
    /// # Errors
    /// The connection's.
    pub fn abort(&mut self) -> io::Result<()> {
        self.writing.write_all(&ABORT.to_le_bytes())
    }

    /// The next frame.
    ///
    /// # Errors
    /// `UnexpectedEof` where the other side is gone, `InvalidData` for a frame that is too large, the connection's.
    pub fn receive(&mut self) -> io::Result<Frame> {
        let mut length = [0; 4];
        self.reading.read_exact(&mut length)?;
        match u32::from_le_bytes(length) {
            0 => Ok(Frame::End),
            ABORT => Ok(Frame::Aborted),
            length if length as usize > FRAME_BYTES_MAX => {
                let reason = format!("a frame of {length} bytes; at most {FRAME_BYTES_MAX} are taken");
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
            length => {
                let mut frame = vec![0; length as usize];
                self.reading.read_exact(&mut frame)?;
                Ok(Frame::Bytes(frame))
            }
        }
    }
}

#[cfg(test)]
impl Frames {
    /// Another handle on the same connection, to send while this one receives.
    pub fn another(&self) -> io::Result<Frames> {
        Frames::new(self.writing.try_clone()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines and frames keep their order and their bounds; what is cut off is no end.
    #[test]
    fn frames_end_only_where_they_say_so() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Frames::new(one).unwrap(), Frames::new(other).unwrap());
        one.go(&json!({"workspaceId": "ws"})).unwrap();
        one.send(b"abc").unwrap();
        one.end().unwrap();
        one.abort().unwrap();
        one.send_line(&json!({"ok": 1})).unwrap();
        assert_eq!(other.receive_line().unwrap(), json!({"go": {"workspaceId": "ws"}}));
        assert_eq!(other.receive().unwrap(), Frame::Bytes(b"abc".to_vec()));
        assert_eq!(other.receive().unwrap(), Frame::End);
        assert_eq!(other.receive().unwrap(), Frame::Aborted);
        assert_eq!(other.receive_line().unwrap(), json!({"ok": 1}));

        for empty_or_large in [Vec::new(), vec![0; FRAME_BYTES_MAX + 1]] {
            assert_eq!(one.send(&empty_or_large).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        one.writing.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        one.writing.write_all(&[9, 0, 0, 0, 1]).unwrap();
        drop(one);
        assert_eq!(other.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(other.receive_line().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
