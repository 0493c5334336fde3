//! One request over HTTP/1.1, encrypted or not, and its answer: what commands and the exporter of telemetry need of a client.
//!
//! Blocking and without a runtime: a command asks one thing and ends, the exporter has a thread of its own. A connection
//! serves one request. Everything that comes back is a stranger's: heads, bodies and waiting are bounded.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::server_url::ServerUrl;
use crate::tls::client::{self, Encrypted, Trust};

/// How long one address may take to be connected to.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// From the connection to the last byte of the answer: longer than a server's own deadline is by default.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(120);
/// Bytes of an answer's head, and of each line between the parts of a body.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of an answer's body: more than any operation returns.
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Interim answers (1xx) that are passed over.
const INTERIM_MAX: usize = 8;

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// From before the connection to the last byte.
    pub took: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// No connection came about, so nothing was asked.
    #[error("{0}")]
    Unreachable(String),
    /// The request may have been carried out.
    #[error("the connection was lost before the answer was there ({0}); the request may have been carried out")]
    Lost(io::Error),
    /// Something answers that is no HTTP server, or goes on without end.
    #[error("what answers there does not speak HTTP/1.1: {0}")]
    Strange(String),
}

/// A request in the making.
pub struct Request<'a> {
    /// `GET`, `POST` or `PUT`.
    pub method: &'static str,
    /// Whom to trust; `None` where the machine's authorities are meant.
    pub trust: Option<&'a Trust>,
    /// Behind the URL's own path; begins with `/`.
    pub path: &'a str,
    /// The media type of the body, and of the answer that is wished for.
    pub media_type: &'a str,
    /// More headers: names and values, checked by the caller to be of one line.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// When the answer must be whole.
    pub until: Instant,
    /// Bytes of the answer's body; a longer one is an error.
    pub answer_bytes_max: u64,
}

/// Sends one POST with a JSON body. `headers` are names and values, checked by the caller to be of one line.
///
/// # Errors
/// See [`PostError`]. A refusal is an answer.
pub fn post(url: &ServerUrl, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, PostError> {
    let until = Instant::now() + CONNECT_TIME_MAX + ANSWER_TIME_MAX;
    let media_type = "application/json";
    let (method, trust) = ("POST", None);
    send(url, &Request { method, trust, path, media_type, headers, body, until, answer_bytes_max: BODY_BYTES_MAX })
}

/// Sends one request.
///
/// # Errors
/// See [`PostError`]. A refusal is an answer.
pub fn send(url: &ServerUrl, request: &Request<'_>) -> Result<Answer, PostError> {
    let begun = Instant::now();
    let Request { method, path, media_type, body, .. } = request;
    let stream = Timed { stream: connect(url, request.until)?, until: request.until };
    let mut head = format!(
        "{method} {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: {media_type}\r\nAccept: {media_type}\r\n\
         User-Agent: keyward/{}\r\nConnection: close\r\nContent-Length: {}\r\n",
        url.prefix(),
        url.authority(),
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    for (name, value) in request.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = match url.is_encrypted() {
        false => Wire::Plain(stream),
        true => Wire::Encrypted(Box::new(
            client::encrypt(stream, url.host(), request.trust).map_err(PostError::Unreachable)?,
        )),
    };
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
    // A server may refuse a request before it has read the whole of it: its answer says more than the broken pipe.
    let (status, body) = match (read_answer(&mut BufReader::new(stream), request.answer_bytes_max), sent) {
        (Ok(answer), _) => answer,
        (Err(PostError::Lost(_)), Err(error)) | (Err(PostError::Lost(error)), Ok(())) => {
            return Err(PostError::Lost(error));
        }
        (Err(error), _) => return Err(error),
    };
    Ok(Answer { status, body, took: begun.elapsed() })
}

/// Connects to the first address of the host that answers.
fn connect(url: &ServerUrl, until: Instant) -> Result<TcpStream, PostError> {
    let unreachable = |error: io::Error| PostError::Unreachable(format!("cannot reach {url}: {error}"));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (url.host(), url.port()).to_socket_addrs().map_err(unreachable)? {
        let patience = until.saturating_duration_since(Instant::now()).min(CONNECT_TIME_MAX);
        if patience.is_zero() {
            return Err(unreachable(io::ErrorKind::TimedOut.into()));
        }
        match TcpStream::connect_timeout(&address, patience) {
            Ok(stream) => {
                // A request is one or two writes and then waits: there is nothing to gather.
                stream.set_nodelay(true).map_err(unreachable)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

/// A stream that gives up at a moment, however slowly bytes trickle.
struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The way to a server.
enum Wire {
    Plain(Timed),
    Encrypted(Box<Encrypted<Timed>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(buffer),
            Wire::Encrypted(stream) => stream.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Encrypted(stream) => stream.flush(),
        }
    }
}

fn strange(what: impl Into<String>) -> PostError {
    PostError::Strange(what.into())
}

/// Reads one answer: its status, and its body of so many bytes at most.
fn read_answer(stream: &mut impl BufRead, bytes_max: u64) -> Result<(u16, Vec<u8>), PostError> {
    for _ in 0..=INTERIM_MAX {
        let (status, framing) = read_head(stream)?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = match framing {
            _ if matches!(status, 204 | 304) => Vec::new(),
            Framing::Chunked => read_chunks(stream, bytes_max)?,
            Framing::Length(length) if length > bytes_max => return Err(strange("its answer is too long")),
            Framing::Length(length) => {
                let mut body = Vec::new();
                stream.take(length).read_to_end(&mut body).map_err(PostError::Lost)?;
                if (body.len() as u64) < length {
                    return Err(PostError::Lost(io::ErrorKind::UnexpectedEof.into()));
                }
                body
            }
            Framing::ToTheEnd => {
                let mut body = Vec::new();
                stream.take(bytes_max + 1).read_to_end(&mut body).map_err(PostError::Lost)?;
                if body.len() as u64 > bytes_max {
                    return Err(strange("its answer is too long"));
                }
                body
            }
        };
        return Ok((status, body));
    }
    Err(strange("it never came to an answer"))
}

/// How the end of a body is told.
enum Framing {
    Length(u64),
    Chunked,
    ToTheEnd,
}

fn read_head(stream: &mut impl BufRead) -> Result<(u16, Framing), PostError> {
    let mut head = stream.take(HEAD_BYTES_MAX);
    let first = read_line(&mut head)?;
    let mut words = first.splitn(3, ' ');
    let version = words.next().unwrap_or_default();
    let status = words.next().filter(|word| word.len() == 3).and_then(|word| word.parse::<u16>().ok());
    let Some(status) = status.filter(|_| version.starts_with("HTTP/1.")) else {
        return Err(strange("its first line is no status line"));
    };
    let mut framing = Framing::ToTheEnd;
    loop {
        let line = read_line(&mut head)?;
        if line.is_empty() {
            return Ok((status, framing));
        }
        let Some((name, value)) = line.split_once(':') else { return Err(strange("a header has no colon")) };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => framing = Framing::Chunked,
            "transfer-encoding" => return Err(strange("its answer is encoded in a way nobody asked for")),
            // A length beside chunks means nothing (RFC 9112, 6.3).
            "content-length" if !matches!(framing, Framing::Chunked) => {
                let length = value.parse().map_err(|_| strange("its answer's length is no number"))?;
                framing = Framing::Length(length);
            }
            _ => {}
        }
    }
}

/// A line without its end. The reader is bounded.
fn read_line(stream: &mut impl BufRead) -> Result<String, PostError> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line).map_err(PostError::Lost)?;
    match line.pop() {
        Some(b'\n') => {}
        None => return Err(PostError::Lost(io::ErrorKind::UnexpectedEof.into())),
        Some(_) => return Err(strange("a line has no end")),
    }
    let line = line.strip_suffix(b"\r").unwrap_or(&line);
    String::from_utf8(line.to_vec()).map_err(|_| strange("a line is not text"))
}

fn read_chunks(stream: &mut impl BufRead, bytes_max: u64) -> Result<Vec<u8>, PostError> {
    let mut body = Vec::new();
    loop {
        let line = read_line(&mut stream.by_ref().take(HEAD_BYTES_MAX))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| strange("a chunk has no size"))?;
        if size == 0 {
            // Trailers have nothing that anybody asked for.
            return Ok(body);
        }
        if size > bytes_max.saturating_sub(body.len() as u64) {
            return Err(strange("its answer is too long"));
        }
        let before = body.len() as u64;
        stream.by_ref().take(size).read_to_end(&mut body).map_err(PostError::Lost)?;
        if body.len() as u64 - before < size {
            return Err(PostError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        if !read_line(&mut stream.by_ref().take(2))?.is_empty() {
            return Err(strange("a chunk is longer than its size"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Result<(u16, Vec<u8>), PostError> {
        read_answer(&mut text.as_bytes(), BODY_BYTES_MAX)
    }

    /// Each framing ends where it says, and what is cut short is not taken for whole.
    #[test]
    fn answers_end_where_they_say() {
        for (text, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more", 200, "ok"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\ncontent-length:2\r\n\r\nno", 404, "no"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\n\r\n", 200, "ok!"),
            ("HTTP/1.0 502 Bad Gateway\r\n\r\n<html>", 502, "<html>"),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, ""),
        ] {
            assert_eq!(answer(text).expect(text), (status, body.as_bytes().to_vec()));
        }
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok",
        ] {
            assert!(matches!(answer(cut), Err(PostError::Lost(_))), "{cut:?}");
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(80_000));
        for no_http in [
            "220 mail.example ESMTP\r\n",
            "{\"a\":1}\n",
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
            &endless,
            &"HTTP/1.1 100 Continue\r\n\r\n".repeat(10),
        ] {
            assert!(matches!(answer(no_http), Err(PostError::Strange(_))), "{no_http:.60}");
        }
    }
}
