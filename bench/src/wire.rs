//! The little of HTTP/1.1 that a load generator needs.
//!
//! Requests are rendered once, before the clock runs, and sent as bytes. Responses are framed by their
//! `Content-Length` alone: whatever comes with another framing is a protocol error here, since none of the measured
//! replies uses one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{Error, Result};

/// Longest response head that is read, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// Longest response body that is read, in bytes: a measured reply is small.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// Most response headers that are read.
const MAX_HEADERS: usize = 64;

/// Where requests go: an HTTP origin on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address and port; always a loopback address.
    pub address: SocketAddr,
}

impl Target {
    /// Reads `http://HOST:PORT`, with or without a slash behind it.
    ///
    /// Only loopback hosts are taken (`127.0.0.0/8`, `::1`, `localhost`): a load generator that can be pointed at
    /// other people's machines is not a thing to have in a repository.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for anything else.
    pub fn parse(text: &str) -> Result<Target> {
        let refuse = |why: &str| Error::Usage(format!("target {text:?}: {why}"));
        let origin = text.strip_prefix("http://").ok_or_else(|| refuse("must begin with http://"))?;
        let origin = origin.strip_suffix('/').unwrap_or(origin);
        let address = match origin.strip_prefix("localhost:") {
            Some(port) => {
                let port = port.parse().map_err(|_| refuse("the port is not a number"))?;
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
            }
            None => origin.parse().map_err(|_| refuse("must be http://ADDRESS:PORT"))?,
        };
        if !address.ip().is_loopback() {
            return Err(refuse("only loopback addresses may be loaded"));
        }
        Ok(Target { address })
    }
}

/// A request header.
pub type Header = (String, String);

/// Renders one request, ready to be written to a connection as often as wanted.
///
/// # Errors
///
/// [`Error::Usage`] if the path or a header holds what would break the framing.
pub fn render(target: Target, method: &str, path: &str, headers: &[Header], body: &[u8]) -> Result<Vec<u8>> {
    let clean = |text: &str| text.bytes().all(|byte| byte >= b' ' && byte != 0x7f);
    if !path.starts_with('/') || !clean(path) || path.contains(' ') {
        return Err(Error::Usage(format!("{path:?} is not a path")));
    }
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", target.address);
    for (name, value) in headers {
        if name.is_empty() || !clean(name) || name.contains([' ', ':']) || !clean(value) {
            return Err(Error::Usage(format!("header {name:?} cannot be sent")));
        }
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if method != "GET" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body);
    Ok(request)
}

/// One whole response at the beginning of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Where the body begins, in bytes from the buffer's beginning.
    pub body_at: usize,
    /// Where the response ends.
    pub end: usize,
    /// The server announced that it closes the connection behind this response.
    pub closes: bool,
}

/// What stands at the beginning of a buffer of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed {
    /// A whole response.
    Whole(Response),
    /// The beginning of one: read on.
    Partial,
    /// Not something that can be framed; the connection is of no more use.
    Broken,
}

/// Frames the response at the beginning of `received`.
pub fn frame(received: &[u8]) -> Framed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let body_at = match response.parse(received) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if received.len() <= MAX_HEAD => return Framed::Partial,
        Ok(httparse::Status::Partial) | Err(_) => return Framed::Broken,
    };
    let Some(status) = response.code else { return Framed::Broken };
    let mut length = None;
    let mut closes = false;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let parsed = std::str::from_utf8(header.value).ok().and_then(|text| text.parse::<usize>().ok());
            let Some(parsed) = parsed.filter(|length| *length <= MAX_BODY) else { return Framed::Broken };
            length = Some(parsed);
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes |= header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let Some(length) = length else { return Framed::Broken };
    let end = body_at + length;
    if received.len() < end {
        return Framed::Partial;
    }
    Framed::Whole(Response { status, body_at, end, closes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_can_be_loaded() {
        for good in ["http://127.0.0.1:7070", "http://127.9.9.9:1/", "http://[::1]:80", "http://localhost:7070"] {
            assert!(Target::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "http://10.0.0.1:80",
            "http://0.0.0.0:80",
            "http://example.com:80",
            "https://127.0.0.1:443",
            "127.0.0.1:80",
            "http://127.0.0.1",
            "http://127.0.0.1:80/path",
            "http://localhost.example.com:80",
            "http://[::ffff:10.0.0.1]:80",
        ] {
            assert!(matches!(Target::parse(bad), Err(Error::Usage(_))), "{bad}");
        }
    }

    #[test]
    fn a_header_cannot_smuggle_a_second_request() {
        let target = Target::parse("http://127.0.0.1:1").unwrap();
        let header = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
        assert!(render(target, "POST", "/a", &header("A", "b\r\n\r\nGET / HTTP/1.1"), b"").is_err());
        assert!(render(target, "POST", "/a", &header("A:", "b"), b"").is_err());
        assert!(render(target, "POST", "/a b", &[], b"").is_err());
        let request = render(target, "POST", "/a", &header("A", "b"), b"{}").unwrap();
        assert_eq!(request, b"POST /a HTTP/1.1\r\nHost: 127.0.0.1:1\r\nA: b\r\nContent-Length: 2\r\n\r\n{}");
    }

    #[test]
    fn a_response_is_whole_only_when_its_last_byte_is_there() {
        let bytes = b"HTTP/1.1 429 Too Many Requests\r\ncontent-LENGTH: 5\r\nx: y\r\n\r\nhelloHTTP/1.1 200";
        let end = bytes.len() - b"HTTP/1.1 200".len();
        for cut in 0..end {
            assert_eq!(frame(&bytes[..cut]), Framed::Partial, "cut at {cut}");
        }
        let whole = Framed::Whole(Response { status: 429, body_at: end - 5, end, closes: false });
        assert_eq!(frame(&bytes[..end]), whole);
        assert_eq!(frame(bytes), whole, "what follows belongs to the next response");
    }

    #[test]
    fn what_cannot_be_framed_is_said_to_be_broken() {
        for bytes in [
            &b"HTTP/1.1 200 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert_eq!(frame(bytes), Framed::Broken, "{:?}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(frame(&[b'x'; 8]), Framed::Broken);
        let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        endless.resize(MAX_HEAD + 1, b'a');
        assert_eq!(frame(&endless), Framed::Broken);
    }
}
