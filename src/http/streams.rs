//! Bodies that are written and read while they last: streams of bytes between two nodes.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use tokio::sync::mpsc;

/// A body that is written piece by piece. It ends when its writer is dropped.
pub struct Pieces(mpsc::Receiver<Bytes>);

/// A writer, and the body that it writes; so many pieces may wait for the other side to read.
pub fn pieces(waiting: usize) -> (mpsc::Sender<Bytes>, Pieces) {
    let (write, read) = mpsc::channel(waiting);
    (write, Pieces(read))
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = ready!(self.0.poll_recv(cx));
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// The other node's side of a stream.
pub struct Arriving(Incoming);

impl Arriving {
    /// Reads this body.
    pub fn new(body: Incoming) -> Arriving {
        Arriving(body)
    }

    /// What comes next; `None` where the stream has ended, or was cut.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.frame().await?.ok()?.into_data() {
                Ok(bytes) => return Some(bytes),
                // Trailers say nothing here.
                Err(_) => continue,
            }
        }
    }
}
