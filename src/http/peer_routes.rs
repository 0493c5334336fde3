//! What other nodes ask beside the log and its checkpoints.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use super::peers::{Peers, Reply, text};

/// Answers a request of another node, which has shown who it is.
pub(super) async fn answer(_peers: &Arc<Peers>, _address: SocketAddr, _request: Request<Incoming>) -> Response<Reply> {
    text(StatusCode::NOT_FOUND, "other nodes ask for /replication/log and /replication/checkpoint here")
}
