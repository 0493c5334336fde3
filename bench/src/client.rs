//! A blocking client for what stands around a measurement: making APIs and keys, asking for readiness.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::wire::{Framed, Header, Target, frame, render};
use crate::{Error, Result};

/// How long any single answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// One keep-alive connection to a server.
#[derive(Debug)]
pub struct Client {
    target: Target,
    headers: Vec<Header>,
    stream: TcpStream,
}

impl Client {
    /// Connects; `headers` go with every request.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when nobody listens there.
    pub fn connect(target: Target, headers: Vec<Header>) -> Result<Client> {
        let doing = || format!("connect to {}", target.address);
        let stream = TcpStream::connect_timeout(&target.address, PATIENCE).map_err(Error::io(doing()))?;
        stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
            .map_err(Error::io(doing()))?;
        Ok(Client { target, headers, stream })
    }

    /// Sends a request and waits for status and body.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the connection fails, [`Error::Unexpected`] when the answer cannot be framed.
    pub fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>)> {
        let request = render(self.target, method, path, &self.headers, body)?;
        exchange(&mut self.stream, &request, path)
    }

    /// Calls an operation that must succeed; gives its `data`.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]; [`Error::Unexpected`] for a status other than 200 as well.
    pub fn operation(&mut self, name: &str, ask: &Value) -> Result<Value> {
        let path = format!("/v2/{name}");
        let (status, body) = self.call("POST", &path, ask.to_string().as_bytes())?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        if status != 200 {
            return Err(Error::Unexpected(format!("{path} answered {status}: {}", String::from_utf8_lossy(&body))));
        }
        Ok(answer["data"].clone())
    }
}

fn exchange<S: Read + Write>(stream: &mut S, request: &[u8], path: &str) -> Result<(u16, Vec<u8>)> {
    stream.write_all(request).map_err(Error::io(format!("send to {path}")))?;
    let mut received = Vec::new();
    let mut piece = [0; 16 * 1024];
    loop {
        match frame(&received) {
            Framed::Whole(response) => {
                return Ok((response.status, received[response.body_at..response.end].to_vec()));
            }
            Framed::Broken => return Err(Error::Unexpected(format!("{path}: the answer cannot be framed"))),
            Framed::Partial => {}
        }
        match stream.read(&mut piece).map_err(Error::io(format!("read the answer of {path}")))? {
            0 => return Err(Error::Unexpected(format!("{path}: the server closed the connection"))),
            count => received.extend_from_slice(&piece[..count]),
        }
    }
}
