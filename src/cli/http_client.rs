//! One request over HTTP/1.1, encrypted or not, and its answer: what `keyward api`, `auth` and `import` need of a client.
//!
//! Blocking and without a runtime: a command asks one thing and ends. A connection serves one request. Everything that
//! comes back is a stranger's: heads, bodies and waiting are bounded.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::tls::client::{self, Encrypted};

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

/// Where a server is: an `http://` or `https://` URL, which may have a path that stands before the operations' own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerUrl {
    is_encrypted: bool,
    /// As in a `Host` header: an IPv6 address is in brackets, and the port is there unless it is the scheme's own.
    authority: String,
    host: String,
    port: u16,
    /// Begins with `/` where there is one, and never ends with one.
    prefix: String,
}

impl ServerUrl {
    /// Reads a URL.
    ///
    /// # Errors
    /// A sentence that says what to type instead.
    pub fn parse(text: &str) -> Result<ServerUrl, String> {
        let refuse = |why: &str| Err(format!("the server's URL {text:?} {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("has no scheme: write it as http://HOST:PORT");
        };
        let (is_encrypted, usual_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (false, 80),
            "https" => (true, 443),
            _ => return refuse("is not of the form http://HOST:PORT or https://HOST:PORT"),
        };
        if rest.contains(['?', '#', '@']) || rest.chars().any(|c| c.is_control() || c.is_whitespace() || !c.is_ascii())
        {
            return refuse("holds more than a host, a port and a path");
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return refuse("is not of the form http://HOST:PORT"),
            },
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.map(|port| (port.bytes().all(|byte| byte.is_ascii_digit()), port.parse::<u16>())) {
            None => usual_port,
            Some((true, Ok(port))) if port > 0 => port,
            Some(_) => return refuse("has no port from 1 to 65535 behind its host"),
        };
        if host.is_empty() || host.contains(['[', ']']) {
            return refuse("names no host");
        }
        let host = host.to_ascii_lowercase();
        let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let authority = if port == usual_port { shown } else { format!("{shown}:{port}") };
        let prefix = path.trim_end_matches('/').to_owned();
        Ok(ServerUrl { is_encrypted, authority, host, port, prefix })
    }

    /// Whether what is sent there can be read by nobody on the way.
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }

    /// Whether what is sent there stays on this machine, as far as the name tells.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        address.map_or_else(|_| self.host == "localhost", |address| address.is_loopback())
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

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

/// Sends one POST with a JSON body. `headers` are names and values, checked by the caller to be of one line.
///
/// # Errors
/// See [`PostError`]. A refusal is an answer.
pub fn post(url: &ServerUrl, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer, PostError> {
    let begun = Instant::now();
    let stream = connect(url)?;
    let mut head = format!(
        "POST {}{path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
         User-Agent: keyward/{}\r\nConnection: close\r\nContent-Length: {}\r\n",
        url.prefix,
        url.authority,
        env!("CARGO_PKG_VERSION"),
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let stream = Timed { stream, until: begun + CONNECT_TIME_MAX + ANSWER_TIME_MAX };
    let mut stream = match url.is_encrypted {
        false => Wire::Plain(stream),
        true => Wire::Encrypted(Box::new(client::encrypt(stream, &url.host).map_err(PostError::Unreachable)?)),
    };
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
    // A server may refuse a request before it has read the whole of it: its answer says more than the broken pipe.
    let (status, body) = match (read_answer(&mut BufReader::new(stream)), sent) {
        (Ok(answer), _) => answer,
        (Err(PostError::Lost(_)), Err(error)) | (Err(PostError::Lost(error)), Ok(())) => {
            return Err(PostError::Lost(error));
        }
        (Err(error), _) => return Err(error),
    };
    Ok(Answer { status, body, took: begun.elapsed() })
}

/// Connects to the first address of the host that answers.
fn connect(url: &ServerUrl) -> Result<TcpStream, PostError> {
    let unreachable = |error: io::Error| PostError::Unreachable(format!("cannot reach {url}: {error}"));
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs().map_err(unreachable)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIME_MAX) {
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

/// Reads one answer: its status and body.
fn read_answer(stream: &mut impl BufRead) -> Result<(u16, Vec<u8>), PostError> {
    for _ in 0..=INTERIM_MAX {
        let (status, framing) = read_head(stream)?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = match framing {
            _ if matches!(status, 204 | 304) => Vec::new(),
            Framing::Chunked => read_chunks(stream)?,
            Framing::Length(length) if length > BODY_BYTES_MAX => return Err(strange("its answer is too long")),
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
                stream.take(BODY_BYTES_MAX + 1).read_to_end(&mut body).map_err(PostError::Lost)?;
                if body.len() as u64 > BODY_BYTES_MAX {
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

fn read_chunks(stream: &mut impl BufRead) -> Result<Vec<u8>, PostError> {
    let mut body = Vec::new();
    loop {
        let line = read_line(&mut stream.by_ref().take(HEAD_BYTES_MAX))?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| strange("a chunk has no size"))?;
        if size == 0 {
            // Trailers have nothing that anybody asked for.
            return Ok(body);
        }
        if size > BODY_BYTES_MAX.saturating_sub(body.len() as u64) {
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

    #[test]
    fn urls_are_read_strictly_and_shown_alike() {
        for (typed, shown) in [
            ("http://127.0.0.1:7070", "http://127.0.0.1:7070"),
            ("HTTP://LocalHost:7070/", "http://localhost:7070"),
            ("http://keys.internal", "http://keys.internal"),
            ("http://keys.internal:80/", "http://keys.internal"),
            ("http://[::1]:7070", "http://[::1]:7070"),
            ("http://gate:8080/keyward/", "http://gate:8080/keyward"),
            ("https://Keys.Example.com:443", "https://keys.example.com"),
            ("https://keys.example.com:80", "https://keys.example.com:80"),
            ("http://keys.example.com:443", "http://keys.example.com:443"),
        ] {
            let url = ServerUrl::parse(typed).expect(typed);
            assert_eq!(url.to_string(), shown);
            assert_eq!(ServerUrl::parse(shown).as_ref(), Ok(&url), "what is shown can be typed");
        }
        for (typed, why) in [
            ("127.0.0.1:7070", "no scheme"),
            ("localhost", "no scheme"),
            ("ftp://x", "http://HOST:PORT"),
            ("http://", "no host"),
            ("http://:7070", "no host"),
            ("http://x:0", "port"),
            ("http://x:99999", "port"),
            ("http://x:+80", "port"),
            ("http://[::1", "port"),
            ("http://[::1]7", "http://HOST:PORT"),
            ("http://user@x", "more than"),
            ("http://x/?a=1", "more than"),
            ("http://x/\r\nEvil: 1", "more than"),
            ("http://exämple", "more than"),
        ] {
            let told = ServerUrl::parse(typed).expect_err(typed);
            assert!(told.contains(why), "{typed}: {told}");
        }
        let loopback = |url: &str| ServerUrl::parse(url).expect(url).is_loopback();
        assert!(loopback("http://127.0.0.2") && loopback("http://[::1]:1") && loopback("http://localhost"));
        assert!(!loopback("http://10.0.0.1") && !loopback("http://localhost.example"));
    }

    fn answer(text: &str) -> Result<(u16, Vec<u8>), PostError> {
        read_answer(&mut text.as_bytes())
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
