//! The floor: bare hyper with keyward's listener settings, answering the same bytes to everything.
//!
//! It reads the request's body, as keyward must, and does nothing else. keyward's throughput divided by the floor's, measured in
//! one run on one machine, is a figure that means the same on another machine.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

use crate::{Error, Result};

/// How long a request's head may take, where hyper is to watch over it.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Largest body the floor answers with.
pub const MAX_BODY: usize = 1024 * 1024;

/// A JSON body of exactly `length` bytes, the shortest being `{"data":""}`.
///
/// # Errors
///
/// [`Error::Usage`] for a length below that or above [`MAX_BODY`].
pub fn body_of(length: usize) -> Result<Bytes> {
    const FRAME: usize = r#"{"data":""}"#.len();
    if !(FRAME..=MAX_BODY).contains(&length) {
        return Err(Error::Usage(format!("the body must be {FRAME} to {MAX_BODY} bytes")));
    }
    Ok(Bytes::from(format!(r#"{{"data":"{}"}}"#, "x".repeat(length - FRAME))))
}

/// Serves until the process ends. `threads` is the runtime's number of workers; `None` is tokio's choice, one per core
/// that the process may use. `head_deadline` has hyper watch the time that a request's head takes, 10 s.
///
/// # Errors
///
/// [`Error::Usage`] for an address that is not loopback, [`Error::Io`] when it cannot be listened on.
pub fn serve(listen: SocketAddr, body: Bytes, threads: Option<usize>, head_deadline: bool) -> Result<()> {
    if !listen.ip().is_loopback() {
        return Err(Error::Usage("the floor listens on loopback addresses only".into()));
    }
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        runtime.worker_threads(threads.max(1));
    }
    let runtime = runtime.enable_all().build().map_err(Error::io("start a runtime"))?;
    runtime.block_on(accept(listen, body, head_deadline)).map_err(Error::io(format!("serve on {listen}")))
}

async fn accept(listen: SocketAddr, body: Bytes, head_deadline: bool) -> io::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // What keyward's src/http/listen.rs sets. Its limit on the time a head may take is a timer of its own per connection,
    // not hyper's per request: the floor goes without, which is cheaper and so in the floor's favour.
    builder
        .http1()
        .timer(TokioTimer::new())
        .keep_alive(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .header_read_timeout(if head_deadline { Some(HEAD_DEADLINE) } else { None });
    builder.http2().timer(TokioTimer::new());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (builder, body) = (builder.clone(), body.clone());
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, body.clone()));
            // A client that goes away is no event here.
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(request: Request<Incoming>, body: Bytes) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let read = request.into_body().collect().await;
    let mut response = Response::new(Full::new(body));
    if read.is_err() {
        *response.status_mut() = StatusCode::BAD_REQUEST;
    }
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::load::{Plan, run};
    use crate::wire::{Target, render};

    /// The generator and the floor understand each other: bodies larger than a packet both ways, none lost.
    #[test]
    fn the_floor_answers_whatever_it_is_sent() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let target = Target { address: listener.local_addr().unwrap() };
        drop(listener);
        let body = body_of(300_000).unwrap();
        // It serves until this process ends.
        std::thread::spawn(move || serve(target.address, body, Some(1), true).unwrap());
        let mut tries = 0;
        while Client::connect(target, Vec::new()).is_err() {
            tries += 1;
            assert!(tries < 1000, "the floor does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        let request = render(target, "POST", "/any", &[], &vec![b'q'; 2_000_000]).unwrap();
        let mut plan = Plan::closed(target, vec![request], 3, Duration::from_millis(200));
        plan.warm_up = Duration::ZERO;
        plan.must_contain = Some(br#"x"}"#.to_vec());
        run(&plan).unwrap().expect_all(200).unwrap();
    }

    #[test]
    fn a_body_has_the_length_that_was_asked_for() {
        for length in [11, 12, 180, MAX_BODY] {
            let body = body_of(length).unwrap();
            assert_eq!(body.len(), length);
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
        }
        assert!(body_of(10).is_err() && body_of(MAX_BODY + 1).is_err());
    }
}
