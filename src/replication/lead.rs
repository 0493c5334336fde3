//! The side of a node that is followed: streams of the log, one thread each to read it; checkpoints; and the end of a reign. It leads,
//! or follows another one itself, whose log it hands on then.
//!
//! What to answer is `keyward_storage::replication::Serving`'s to say. Here are the threads, the files and the sockets around it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyward_storage::replication::checkpoint::Sender;
use keyward_storage::replication::serving::Own;
use keyward_storage::replication::{Deed, Message, Role, Serving, Wire};
use keyward_storage::{Feed, FeedError, Position};
use tokio::sync::mpsc;

use super::end_reign;
use super::forward::HOPS_MAX;
use crate::app::Services;
use crate::http::link::Link;
use crate::http::streams::Arriving;
use crate::telemetry::error_chain;

/// Where a promoted node says so.
pub const FENCE_PATH: &str = "/replication/fence";
/// What the log says on both nodes.
pub const TWO_LEAD: &str = "another node was promoted to the term that this one leads in, each without knowing of the other: both take \
                            changes. Decide which one goes on, and let the other one follow it (replication.follow): what only that \
                            one has goes into a file";
/// How long the leader may take to answer such a message that a node in between hands on.
const FENCE_TIME_MAX: Duration = Duration::from_secs(2);
/// Longest between two signs of life on a stream of the log.
const BEAT: Duration = Duration::from_millis(100);
/// Bytes of messages that are handed to the connection at once, while there is more.
const PIECE_BYTES: usize = 256 << 10;
/// How long a follower may take to introduce itself.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// Checkpoints that are sent at one time.
const CHECKPOINTS_MAX: usize = 2;
/// How long the log behind a checkpoint is held for the follower that took it.
const HOLD: Duration = Duration::from_secs(600);

/// Why a leader does not give way.
pub enum NotFenced {
    /// It leads in a newer term: the message says which.
    Over(Vec<u8>),
    /// It leads in the same term: the message says who it is.
    Rival(Vec<u8>),
    /// A sentence for the other node.
    Refused(String),
}

/// What all streams share.
pub struct Leading {
    services: Arc<Services>,
    stopped: Arc<AtomicBool>,
    checkpoints: Arc<Mutex<usize>>,
    /// The log behind checkpoints that were sent, held until their takers have come for it.
    held: Arc<Mutex<Vec<(Instant, Feed)>>>,
}

impl Leading {
    /// Nobody follows yet.
    pub fn new(services: &Arc<Services>) -> Leading {
        Leading {
            services: Arc::clone(services),
            stopped: Arc::default(),
            checkpoints: Arc::default(),
            held: Arc::default(),
        }
    }

    /// Ends the streams.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        lock(&self.held).clear();
    }

    /// A follower's stream of the log, to its end.
    pub async fn log(&self, address: SocketAddr, mut arriving: Arriving, write: mpsc::Sender<Bytes>) {
        let serving = Arc::new(Mutex::new(Serving::default()));
        let mut wire = Wire::default();
        let mut follower = None;
        // What it is welcomed to holds as long as this does.
        let changes_before = self.services.storage.standing().changes();
        'stream: loop {
            let next = match &follower {
                Some(_) => arriving.next().await,
                None => tokio::time::timeout(HELLO_TIME_MAX, arriving.next()).await.ok().flatten(),
            };
            let Some(bytes) = next else { break };
            wire.push(&bytes);
            loop {
                let message = match wire.next_message() {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%address, %error, "a follower sent what is no message; its stream is cut");
                        break 'stream;
                    }
                };
                // What it answers to a first message depends on the records; later ones are answered from memory.
                let deeds = if follower.is_none() {
                    match self.greet(&serving, message).await {
                        Some(deeds) => deeds,
                        None => break 'stream,
                    }
                } else {
                    match message {
                        Message::Reached(_) => {}
                        _ => tracing::warn!(%address, "a follower sent a message that cannot stand there"),
                    }
                    lock(&serving).receive_later(message)
                };
                let who = lock(&serving).follower().map(|(node, name)| (node, name.to_owned()));
                for deed in deeds {
                    match deed {
                        Deed::Send(message) => {
                            if let Message::Refused(_, why) = &message {
                                tracing::warn!(%address, name = who.as_ref().map(|(_, name)| name), why, "a follower was not let in");
                            }
                            if write.send(message.encode().into()).await.is_err() {
                                break 'stream;
                            }
                        }
                        Deed::Stream(after) => {
                            let Some((_, name)) = &who else { break 'stream };
                            tracing::info!(%address, name, position = after.0, "a follower follows");
                            follower.clone_from(&who);
                            let (services, serving) = (Arc::clone(&self.services), Arc::clone(&serving));
                            let (write, stopped) = (write.clone(), Arc::clone(&self.stopped));
                            let changes = changes_before;
                            let spawned = std::thread::Builder::new()
                                .name("keyward-feed".to_owned())
                                .spawn(move || feed(&services, &serving, (after, changes), &write, &stopped));
                            if let Err(error) = spawned {
                                tracing::warn!(%error, "there is no thread for a follower; its stream is cut");
                                break 'stream;
                            }
                        }
                        Deed::Reached(position) => {
                            let Some((node, name)) = &who else { break 'stream };
                            self.services.node.follower_at(*node, name, address, position);
                            if self.services.node.lease().is_none_or(|lease| lease.names(*node)) {
                                self.services.storage.acks().reached(*node, position);
                            }
                        }
                        Deed::Fence(term) => {
                            let name = who.as_ref().map_or_else(String::new, |(_, name)| name.clone());
                            let services = Arc::clone(&self.services);
                            let _ = tokio::task::spawn_blocking(move || end_reign(&services, term, &name)).await;
                        }
                        Deed::Close => break 'stream,
                    }
                }
            }
        }
        if let Some((node, name)) = follower {
            self.services.node.follower_gone(node);
            tracing::info!(%address, name, "a follower's stream has ended");
        }
    }

    /// What is to be done after a follower's first message.
    async fn greet(&self, serving: &Arc<Mutex<Serving>>, message: Message) -> Option<Vec<Deed>> {
        let (services, serving) = (Arc::clone(&self.services), Arc::clone(serving));
        let greeted = tokio::task::spawn_blocking(move || {
            let source = services.storage.source();
            let history = source.history()?;
            let (node, standing) = (services.storage.node_id(), services.storage.standing());
            let own = Own { node, standing, store: source.store_id(), history: &history };
            Ok::<_, keyward_storage::ReadError>(lock(&serving).receive(message, own))
        });
        match greeted.await {
            Ok(Ok(deeds)) => Some(deeds),
            Ok(Err(error)) => {
                tracing::error!(error = error_chain(&error), "a follower cannot be let in");
                None
            }
            Err(_) => None,
        }
    }

    /// Begins to send all records. The error is a sentence for the other node.
    pub fn checkpoint(&self, address: SocketAddr, write: mpsc::Sender<Bytes>) -> Result<(), &'static str> {
        if self.services.storage.standing().serves().is_none() {
            return Err(
                "this node is no leader, and follows none that has welcomed it; follow the one that leads, or try again",
            );
        }
        {
            let mut sending = lock(&self.checkpoints);
            if *sending >= CHECKPOINTS_MAX {
                return Err("this leader sends as many checkpoints as it can; try again in a while");
            }
            *sending += 1;
        }
        let (services, sending, held) =
            (Arc::clone(&self.services), Arc::clone(&self.checkpoints), Arc::clone(&self.held));
        let run = move || {
            let outcome = send_checkpoint(&services, &write);
            *lock(&sending) -= 1;
            match outcome {
                Ok(Some(feed)) => {
                    let mut held = lock(&held);
                    held.retain(|(until, _)| *until > Instant::now());
                    held.push((Instant::now() + HOLD, feed));
                }
                Ok(None) => tracing::info!(%address, "the checkpoint for a follower was cut short"),
                Err(error) => tracing::error!(error = error_chain(&error), "the checkpoint for a follower failed"),
            }
        };
        match std::thread::Builder::new().name("keyward-checkpoint".to_owned()).spawn(run) {
            Ok(_) => {
                tracing::info!(%address, "a follower takes all records");
                Ok(())
            }
            Err(_) => {
                *lock(&self.checkpoints) -= 1;
                Err("this leader has no thread to spare; try again in a while")
            }
        }
    }

    /// A promoted node says so, through so many others. Where this one follows, its leader has to hear of it.
    pub async fn fence(&self, bytes: Bytes, hops: u64) -> Result<(), NotFenced> {
        let mut wire = Wire::default();
        wire.push(&bytes);
        let Ok(Some(Message::Fence { store, term, name })) = wire.next_message() else {
            return Err(NotFenced::Refused("that is no message of a promoted node".to_owned()));
        };
        let services = Arc::clone(&self.services);
        let is_own = store == services.storage.source().store_id();
        if is_own
            && services.node.role() == Role::Follower
            && let Some(link) = services.node.link()
        {
            services.storage.standing().see(term);
            return hand_on_fence(link, bytes, hops).await;
        }
        let ended = tokio::task::spawn_blocking(move || {
            let source = services.storage.source();
            if !is_own {
                return Err(NotFenced::Refused("this node has another store".to_owned()));
            }
            let own = source.history().map_err(|error| NotFenced::Refused(error_chain(&error)))?.term();
            let leads = services.storage.standing().role() == Role::Leader;
            if leads && term < own {
                let name = services.node.name().to_owned();
                return Err(NotFenced::Over(Message::Fence { store, term: own, name }.encode()));
            }
            if leads && term == own {
                if services.node.meets_rival(&name) {
                    tracing::error!(term = own.0, other = name, "{TWO_LEAD}");
                }
                let name = services.node.name().to_owned();
                return Err(NotFenced::Rival(Message::Fence { store, term: own, name }.encode()));
            }
            end_reign(&services, term, &name);
            Ok(())
        });
        ended.await.unwrap_or_else(|_| Err(NotFenced::Refused("the server is stopping".to_owned())))
    }
}

/// Tells the leader of a promoted node what that one told this one, which follows.
async fn hand_on_fence(link: &Link, bytes: Bytes, hops: u64) -> Result<(), NotFenced> {
    let refused = |text: &str| Err(NotFenced::Refused(text.to_owned()));
    let Some(hops) = u8::try_from(hops + 1).ok().filter(|hops| *hops <= HOPS_MAX) else {
        return refused("it came through more nodes than can be in one chain: do they follow each other in a circle?");
    };
    match tokio::time::timeout(FENCE_TIME_MAX, link.post(FENCE_PATH, bytes, hops)).await {
        Ok(Ok((200, _))) => Ok(()),
        Ok(Ok((410, message))) => Err(NotFenced::Over(message.to_vec())),
        Ok(Ok((423, message))) => Err(NotFenced::Rival(message.to_vec())),
        Ok(Ok((_, why))) => refused(String::from_utf8_lossy(&why).trim()),
        Ok(Err(_)) | Err(_) => {
            refused("this node follows the leader and cannot reach it now, so that one has not heard of it yet")
        }
    }
}

/// Reads the log for a follower until its stream ends, this node stands otherwise than at `changes`, or the log does not go on.
fn feed(
    services: &Services,
    serving: &Mutex<Serving>,
    (after, changes): (Position, u64),
    write: &mpsc::Sender<Bytes>,
    stopped: &AtomicBool,
) {
    let standing = services.storage.standing();
    let source = services.storage.source();
    let store = source.store_id();
    let say = |message: &Message| write.blocking_send(message.encode().into()).is_ok();
    let behind = || {
        for deed in lock(serving).behind() {
            if let Deed::Send(message) = deed {
                say(&message);
            }
        }
    };
    let mut feed = match source.resume(after) {
        Ok(feed) => feed,
        Err(FeedError::Behind(_)) => return behind(),
        Err(error) => return tracing::error!(error = error_chain(&error), "the log cannot be read for a follower"),
    };
    // After a promotion, a fence, or where this node has its log from others now, the follower has to hear of it: it comes again.
    while !stopped.load(Ordering::Acquire) && standing.changes() == changes && !write.is_closed() {
        let mut piece: Vec<u8> = Vec::new();
        while piece.len() < PIECE_BYTES {
            let taken = feed.take_frame(|frame, _| lock(serving).frame(frame, store).encode());
            match taken {
                Ok(Some(bytes)) => piece.extend_from_slice(&bytes),
                Ok(None) => break,
                Err(FeedError::Behind(_)) => return behind(),
                Err(error) => {
                    return tracing::error!(error = error_chain(&error), "the log cannot be read for a follower");
                }
            }
        }
        feed.release(lock(serving).reached());
        if !feed.has_more()
            && let Some(beat) = lock(serving).beat(services.node.word(feed.position()))
        {
            piece.extend_from_slice(&beat.encode());
        }
        if !piece.is_empty() && write.blocking_send(piece.into()).is_err() {
            return;
        }
        feed.wait(BEAT);
    }
}

/// Sends all records; gives the place in the log behind them, or `None` where the stream was cut.
fn send_checkpoint(
    services: &Services,
    write: &mpsc::Sender<Bytes>,
) -> Result<Option<Feed>, keyward_storage::ReadError> {
    let source = services.storage.source();
    // Before the snapshot, so that nothing is missed in between.
    let feed = source.begin();
    let mut sender = Sender::new(&source)?;
    while let Some(message) = sender.next_message()? {
        if write.blocking_send(message.encode().into()).is_err() {
            return Ok(None);
        }
    }
    Ok(Some(feed))
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
