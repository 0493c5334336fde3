//! The body of a reply on its way out, watched so that a client which does not read it cannot keep it in memory.
//!
//! A small body goes out whole. A larger one is handed over piece by piece, as the connection - or, with HTTP/2, the
//! stream's window - takes them; when the next piece was not taken for `http.reply_stall_timeout_ms`, the connection is
//! closed (`Activity`). Until the last piece is taken its request counts as running.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::listen::{Activity, STREAMS_MAX};

/// Bytes handed over at once, and those of a body that is not watched.
const PIECE_BYTES: usize = 64 * 1024;

/// A reply's body.
pub(super) struct ReplyBody {
    rest: Bytes,
    /// While more than a piece is left.
    watch: Option<Watch>,
}

impl ReplyBody {
    pub(super) fn new(body: Bytes, activity: &Arc<Activity>) -> ReplyBody {
        let watch = (body.len() > PIECE_BYTES).then(|| Watch::begin(activity));
        ReplyBody { rest: body, watch }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let length = self.rest.len().min(PIECE_BYTES);
        let piece = self.rest.split_to(length);
        if self.rest.is_empty() {
            self.watch = None;
        } else if let Some(watch) = &self.watch {
            watch.progressed();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// When each watched reply of a connection last made progress: a moment of its clock, or 0 for none.
#[derive(Default)]
pub(super) struct Replies([AtomicU64; STREAMS_MAX as usize]);

impl Replies {
    /// When the one that has waited longest last made progress.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.0.iter().map(|moment| moment.load(Ordering::Relaxed)).filter(|moment| *moment > 0).min()
    }

    /// Notes a new one; no connection has more requests than there is place for.
    fn enter(&self, now: u64) -> Option<usize> {
        let free = |place: &AtomicU64| place.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.0.iter().position(free)
    }

    fn set(&self, place: usize, moment: u64) {
        self.0[place].store(moment, Ordering::Relaxed);
    }
}

/// A reply that is being watched; it is no more when this is dropped.
struct Watch {
    activity: Arc<Activity>,
    place: Option<usize>,
}

impl Watch {
    fn begin(activity: &Arc<Activity>) -> Watch {
        activity.reply_begins();
        Watch { place: activity.replies.enter(activity.moment()), activity: Arc::clone(activity) }
    }

    fn progressed(&self) {
        if let Some(place) = self.place {
            self.activity.replies.set(place, self.activity.moment());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.activity.replies.set(place, 0);
        }
        self.activity.request_ends();
    }
}
