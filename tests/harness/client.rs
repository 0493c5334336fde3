//! A small HTTP/1.1 client over plain sockets: every byte of a request can be chosen, also the wrong ones.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

/// How long one answer may take before the test gives up. Generous: the tests run beside each other on few cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request, byte for byte. `Host` is added; `Content-Length` too unless a framing header is given.
#[derive(Clone, Debug)]
pub struct Ask {
    pub method: &'static str,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    /// A request without headers or body.
    pub fn new(method: &'static str, target: &str) -> Ask {
        Ask { method, target: target.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// The same with one more header.
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with this body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Ask {
        self.body = body.into();
        self
    }

    fn has(&self, name: &str) -> bool {
        self.headers.iter().any(|(have, _)| have.eq_ignore_ascii_case(name))
    }

    fn head(&self, addr: SocketAddr) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: {addr}\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let framed = self.has("content-length") || self.has("transfer-encoding");
        if !framed && (!self.body.is_empty() || self.method == "POST") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// An answer as it came. Header names are in lower case, in order of arrival.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The body as JSON; `Null` where it is none.
    pub json: Value,
}

impl Reply {
    /// The value of the first header of that name (given in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The media type without its parameters.
    pub fn media_type(&self) -> &str {
        self.header("content-type").unwrap_or("").split(';').next().unwrap_or("").trim()
    }
}

/// One connection, kept alive between requests.
pub struct Connection {
    addr: SocketAddr,
    stream: BufReader<TcpStream>,
    /// False once the server has said or shown that it closes.
    usable: bool,
}

impl Connection {
    /// Connects.
    pub fn open(addr: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection { addr, stream: BufReader::new(stream), usable: true })
    }

    /// Sends a request and reads its answer. A server that answers before it has taken the whole body is heard out.
    pub fn exchange(&mut self, ask: &Ask) -> io::Result<Reply> {
        let mut bytes = ask.head(self.addr);
        bytes.extend_from_slice(&ask.body);
        let sent = self.stream.get_mut().write_all(&bytes);
        match self.read_reply(ask.method == "HEAD") {
            Ok(reply) => {
                self.usable &= sent.is_ok();
                Ok(reply)
            }
            Err(error) => {
                self.usable = false;
                Err(sent.err().unwrap_or(error))
            }
        }
    }

    /// Sends a request and reads nothing.
    pub fn send(&mut self, ask: &Ask) -> io::Result<()> {
        let mut bytes = ask.head(self.addr);
        bytes.extend_from_slice(&ask.body);
        self.stream.get_mut().write_all(&bytes)
    }

    /// Sends bytes as they stand and reads one answer.
    pub fn exchange_raw(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        self.stream.get_mut().write_all(bytes)?;
        self.read_reply(false)
    }

    /// Whether the next request may go over this connection.
    pub fn usable(&self) -> bool {
        self.usable
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let read = self.stream.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
    }

    fn read_reply(&mut self, bodiless: bool) -> io::Result<Reply> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let (status, headers) = loop {
            let line = self.line()?;
            let mut words = line.split(' ');
            let version = words.next().unwrap_or("");
            if !version.starts_with("HTTP/1.") {
                return Err(bad(&format!("not a status line: {line:?}")));
            }
            let status: u16 = words.next().and_then(|word| word.parse().ok()).ok_or_else(|| bad("no status"))?;
            let mut headers = Vec::new();
            loop {
                let line = self.line()?;
                if line.is_empty() {
                    break;
                }
                let (name, value) = line.split_once(':').ok_or_else(|| bad("header without a colon"))?;
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if status >= 200 {
                break (status, headers);
            }
        };
        let of = |name: &str| headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.as_str());
        let closes = of("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let length: Option<usize> = of("content-length").and_then(|value| value.parse().ok());
        let chunked = of("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
        let mut body = Vec::new();
        if bodiless || status == 204 || status == 304 {
            // Nothing follows the head.
        } else if chunked {
            loop {
                let size = usize::from_str_radix(self.line()?.split(';').next().unwrap_or("").trim(), 16)
                    .map_err(|_| bad("chunk size"))?;
                let start = body.len();
                body.resize(start + size, 0);
                self.stream.read_exact(&mut body[start..])?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else if let Some(length) = length {
            body.resize(length, 0);
            self.stream.read_exact(&mut body)?;
        } else {
            self.stream.read_to_end(&mut body)?;
            self.usable = false;
        }
        self.usable &= !closes;
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Reply { status, headers, body, json })
    }
}

/// Idle connections to one server.
pub struct Pool {
    addr: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

impl Pool {
    /// A pool without connections.
    pub fn new(addr: SocketAddr) -> Pool {
        Pool { addr, idle: Mutex::new(Vec::new()) }
    }

    /// One exchange, on an idle connection where there is one. An idle connection that turns out to be dead is
    /// replaced by a fresh one once; a fresh one that fails is an error.
    pub fn exchange(&self, ask: &Ask) -> io::Result<Reply> {
        let idle = self.idle.lock().unwrap().pop();
        if let Some(mut connection) = idle
            && let Ok(reply) = connection.exchange(ask)
        {
            self.keep(connection);
            return Ok(reply);
        }
        let mut connection = Connection::open(self.addr)?;
        let reply = connection.exchange(ask)?;
        self.keep(connection);
        Ok(reply)
    }

    fn keep(&self, connection: Connection) {
        if connection.usable() {
            self.idle.lock().unwrap().push(connection);
        }
    }
}
