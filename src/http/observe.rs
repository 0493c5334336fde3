//! The address of `metrics.listen`: `/metrics` for whoever reaches it, and nothing else.
//!
//! Its connections are few and apart from those of requests, so that a server without a free place for clients can still
//! be looked at.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::accept;
use super::exchange::names_its_host;
use super::service_routes;
use crate::app::Services;
use crate::metrics::Metrics;

/// Connections at one time.
const CONNECTIONS_MAX: usize = 16;
/// How long a head may take.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);
/// How long a connection may last: a scraper opens another one.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(300);
/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Opens the socket of `metrics.listen`.
///
/// # Errors
/// A sentence for the operator.
pub async fn bind(address: &str) -> Result<TcpListener, String> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| format!("cannot listen on {address} (metrics.listen): {error}; choose another address"))
}

/// Answers scrapes until `stop` is ready.
pub async fn run(listener: TcpListener, services: Arc<Services>, stop: impl Future<Output = ()>) {
    accept::each(&listener, CONNECTIONS_MAX, stop, |stream, _, place| {
        let services = Arc::clone(&services);
        tokio::spawn(async move {
            let _place = place;
            let service = service_fn(|request| answer(Arc::clone(&services), request));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            let _ = timeout(CONNECTION_TIME_MAX, connection).await;
        });
    })
    .await;
}

async fn answer(services: Arc<Services>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Err(why) = names_its_host(request.version(), request.headers()) {
        let mut response = Response::new(Full::new(Bytes::from_static(why.as_bytes())));
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(response);
    }
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let response = if request.uri().path() == service_routes::METRICS_PATH && is_read {
        service_routes::metrics(Metrics::scrape(services).await)
    } else {
        let mut response = Response::new(Bytes::from_static(b"Only GET /metrics is answered here.\n"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    };
    Ok(response.map(Full::new))
}
