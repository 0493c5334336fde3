//! Connections of an address that has few: the operator's scraper, other nodes.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

/// Pause after the system refused to hand out a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Hands each connection to `take` until `stop` is ready, with the place it holds: at most so many have one at a time, and further
/// ones wait with the system.
pub(super) async fn each(
    listener: &TcpListener,
    most: usize,
    stop: impl Future<Output = ()>,
    mut take: impl FnMut(TcpStream, SocketAddr, OwnedSemaphorePermit),
) {
    let places = Arc::new(Semaphore::new(most));
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.expect("the places are never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = &mut stop => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, address)) => take(stream, address, place),
            Err(_) => sleep(PAUSE).await,
        }
    }
}
