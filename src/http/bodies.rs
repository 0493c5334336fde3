//! Bodies from other nodes: read whole, into memory that is counted.
//!
//! A node has shown who it is, and is still not trusted with the memory and the patience of all others: it may have lost its mind, or its
//! token to somebody. So each connection has a share of the room, large bodies have a room apart, in which each connection has one at a
//! time, and whoever announces a body sends it, or loses its place.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Bytes that any body may have: as many as a client may be allowed to send, and more than a parcel of events.
pub const BYTES_MAX: usize = 256 << 20;
/// Larger bodies wait for the room of large ones: requests are smaller, but for a few.
const SMALL_BYTES_MAX: usize = 1 << 20;
/// Bytes of all small bodies at one time, of those of one connection, and of all large ones; further ones wait.
const SMALL_BYTES: usize = 64 << 20;
const SHARE_BYTES: usize = SMALL_BYTES / 4;
const LARGE_BYTES: usize = BYTES_MAX;
/// What room is counted in: KiB.
const UNIT: usize = 1024;

/// How long a node may take.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// From one piece of a body to the next.
    piece: Duration,
    /// For a whole body, and for the wait for its room.
    whole: Duration,
}

const TIMES: Times = Times { piece: Duration::from_secs(5), whole: Duration::from_secs(60) };

/// Room for bodies of all nodes.
pub struct Room {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
    times: Times,
}

/// What a connection may have of it.
pub struct Share {
    room: Arc<Room>,
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

/// The room that a body takes, until this is dropped.
pub struct Held {
    _of_all: OwnedSemaphorePermit,
    _of_share: OwnedSemaphorePermit,
}

/// Why a body could not be read.
#[derive(Debug)]
pub enum Unread<E> {
    /// It is larger than such a body may be.
    TooLarge,
    /// It did not come in time, or there was no room for it in time.
    Late,
    /// The stream was cut.
    Broken(E),
}

impl Room {
    /// Nothing is in it.
    pub fn new() -> Arc<Room> {
        Room::with(TIMES)
    }

    fn with(times: Times) -> Arc<Room> {
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Arc::new(Room { small: room(SMALL_BYTES), large: room(LARGE_BYTES), times })
    }

    /// The share of another connection.
    pub fn share(self: &Arc<Room>) -> Share {
        Share {
            room: Arc::clone(self),
            small: Arc::new(Semaphore::new(SHARE_BYTES / UNIT)),
            large: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Share {
    /// Reads a body of at most `max` bytes when there is room for it, and keeps that room until it is dropped.
    ///
    /// # Errors
    /// It is too large, does not come, or not in time. Nothing is kept.
    pub async fn gather<B: Body<Data = Bytes> + Unpin>(
        &self,
        body: &mut B,
        max: usize,
    ) -> Result<(Bytes, Held), Unread<B::Error>> {
        // Nodes send bodies that are there as a whole, so their length is known.
        let announced = body.size_hint().exact().unwrap_or(max as u64);
        let length = usize::try_from(announced).ok().filter(|length| *length <= max.min(BYTES_MAX));
        let Some(length) = length else { return Err(Unread::TooLarge) };
        let reading = async {
            let held = self.place(length).await.ok_or(Unread::TooLarge)?;
            let bytes = gather(body, length, self.room.times.piece).await?;
            Ok((bytes, held))
        };
        timeout(self.room.times.whole, reading).await.unwrap_or(Err(Unread::Late))
    }

    /// Waits for room: first in the share, so that a connection that has too much waits for itself.
    async fn place(&self, length: usize) -> Option<Held> {
        let units = u32::try_from(length.div_ceil(UNIT)).ok()?;
        let (share, of_share, all) = match length <= SMALL_BYTES_MAX {
            true => (&self.small, units, &self.room.small),
            false => (&self.large, 1, &self.room.large),
        };
        Some(Held {
            _of_share: Arc::clone(share).acquire_many_owned(of_share).await.ok()?,
            _of_all: Arc::clone(all).acquire_many_owned(units).await.ok()?,
        })
    }
}

/// Reads a body of at most `max` bytes whose pieces come in time.
///
/// # Errors
/// As [`Share::gather`].
pub async fn gather<B: Body<Data = Bytes> + Unpin>(
    body: &mut B,
    max: usize,
    between: Duration,
) -> Result<Bytes, Unread<B::Error>> {
    let mut all = BytesMut::new();
    while !body.is_end_stream() {
        let frame = timeout(between, body.frame()).await.map_err(|_| Unread::Late)?;
        let Some(frame) = frame else { break };
        let Ok(piece) = frame.map_err(Unread::Broken)?.into_data() else { continue };
        if all.len() + piece.len() > max {
            return Err(Unread::TooLarge);
        }
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use hyper::body::{Frame, SizeHint};
    use tokio::sync::mpsc;

    use super::*;

    /// A body of a node that announces more than it sends.
    struct Announced {
        length: u64,
        pieces: mpsc::Receiver<Bytes>,
    }

    impl Body for Announced {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            self.pieces.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::with_exact(self.length)
        }
    }

    /// A body of this length, and what sends it.
    fn announced(length: usize) -> (mpsc::Sender<Bytes>, Announced) {
        let (send, pieces) = mpsc::channel(1);
        (send, Announced { length: length as u64, pieces })
    }

    /// Reads a body that is sent as it was announced.
    async fn honest(share: &Share, length: usize) -> usize {
        let (send, mut body) = announced(length);
        let sent = async move {
            let _ = send.send(Bytes::from(vec![7; length])).await;
        };
        let (read, ()) = tokio::join!(share.gather(&mut body, BYTES_MAX), sent);
        read.map(|(bytes, _held)| bytes.len()).expect("it comes")
    }

    const NEVER: Duration = Duration::from_secs(3600);

    /// A node that announces bodies and sends none of them is in nobody's way but its own, however many they are.
    #[tokio::test]
    async fn announcements_keep_nobody_else_out() {
        let room = Room::with(Times { piece: NEVER, whole: NEVER });
        let (liar, other) = (Arc::new(room.share()), room.share());
        let mut silent = Vec::new();
        // All that the liar's share holds of small bodies, and as much again that waits for it.
        for length in [255 << 20, 255 << 20].into_iter().chain([SMALL_BYTES_MAX; 2 * SHARE_BYTES / SMALL_BYTES_MAX]) {
            let (send, mut body) = announced(length);
            let liar = Arc::clone(&liar);
            let reading = tokio::spawn(async move { liar.gather(&mut body, BYTES_MAX).await.is_ok() });
            silent.push((send, reading));
        }
        while liar.small.available_permits() > 0 || liar.large.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        for _ in 0..4 {
            assert_eq!(honest(&other, SMALL_BYTES_MAX).await, SMALL_BYTES_MAX);
            assert_eq!(honest(&other, 0).await, 0);
        }
        // Its connection ends, and with it what it held.
        silent.iter().for_each(|(_, reading)| reading.abort());
        for (_, reading) in silent {
            let _ = reading.await;
        }
        assert_eq!(honest(&other, 2 * SMALL_BYTES_MAX).await, 2 * SMALL_BYTES_MAX);
    }

    /// Whoever sends nothing for too long, or takes too long for the whole, loses its place; so a large body of another node has its turn.
    #[tokio::test]
    async fn a_body_that_does_not_come_gives_its_room_back() {
        let soon = Duration::from_millis(20);
        for times in [Times { piece: soon, whole: NEVER }, Times { piece: NEVER, whole: soon }] {
            let room = Room::with(times);
            let liar = room.share();
            let (send, mut body) = announced(255 << 20);
            send.send(Bytes::from_static(b"so much")).await.expect("there is room for one");
            assert!(matches!(liar.gather(&mut body, BYTES_MAX).await, Err(Unread::Late)));
            assert_eq!(room.large.available_permits(), LARGE_BYTES / UNIT);
            drop(send);
        }
        let room = Room::with(Times { piece: soon, whole: NEVER });
        let (liars, other) = ([room.share(), room.share()], room.share());
        let (_first, mut one) = announced(255 << 20);
        let (_second, mut two) = announced(255 << 20);
        let (one, two, honest) = tokio::join!(
            liars[0].gather(&mut one, BYTES_MAX),
            liars[1].gather(&mut two, BYTES_MAX),
            honest(&other, 2 * SMALL_BYTES_MAX)
        );
        assert!(matches!((one, two), (Err(Unread::Late), Err(Unread::Late))));
        assert_eq!(honest, 2 * SMALL_BYTES_MAX);
    }

    /// What is larger than it may be is refused before room is taken, and what is larger than it was announced while it is read.
    #[tokio::test]
    async fn a_body_is_as_long_as_announced_and_no_longer_than_allowed() {
        let room = Room::with(Times { piece: NEVER, whole: NEVER });
        let share = room.share();
        let (_send, mut body) = announced(11);
        assert!(matches!(share.gather(&mut body, 10).await, Err(Unread::TooLarge)));
        let (send, mut body) = announced(3);
        send.send(Bytes::from_static(b"four")).await.expect("there is room for one");
        assert!(matches!(share.gather(&mut body, 10).await, Err(Unread::TooLarge)));
    }
}
