//! What other nodes ask beside the log and its checkpoints: requests that they hand on, and parcels of events.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};

use super::bodies::Share;
use super::peers::{Peers, Reply, text};
use super::{forward, parcels};

/// Answers a request of another node, which has shown who it is.
pub(super) async fn answer(
    peers: &Arc<Peers>,
    (address, share): (SocketAddr, &Share),
    request: Request<Incoming>,
) -> Response<Reply> {
    match request.uri().path() {
        parcels::PATH => parcels::answer(&peers.services, share, request).await,
        path if path.starts_with(forward::OPERATIONS_PATH) => {
            forward::answer(&peers.services, peers.test_mode, share, request).await
        }
        path => {
            tracing::debug!(%address, path, "another node asked for something that this version does not know");
            text(StatusCode::NOT_FOUND, "this version of keyward answers nothing to other nodes here")
        }
    }
}
