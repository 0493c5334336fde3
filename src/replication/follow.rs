//! The follower's side: the stream of the leader's log, applied as it comes; all records anew where the log does not lead here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keyward_storage::disk::{Disk, RealDisk};
use keyward_storage::replication::checkpoint::{Receiver, TakeError};
use keyward_storage::replication::install::{has_records, set_aside};
use keyward_storage::replication::messages::Received;
use keyward_storage::replication::{Following, Message, NotApplied, Order, Role, Welcome, Wire, Word};
use keyward_storage::{Position, Term};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::lead::{FENCE_PATH, TWO_LEAD};
use super::role::{self, Kept};
use super::{end_reign, new_link};
use crate::app::Services;
use crate::config::Settings;
use crate::http::link::{Answered, Link};
use crate::telemetry::error_chain;

/// Pause before a stream is begun again that has ended.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause where that would most likely end the same way.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Bytes of frames that wait for the writer; beyond it nothing more is read from the connection.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Batches that the writer has at one time: one that it applies, one that is next.
const IN_FLIGHT_MAX: usize = 2;
/// How long a promoted node waits for an answer of the leader before it, and between two tries.
const FENCE_TIME_MAX: Duration = Duration::from_secs(2);
const FENCE_PAUSE: Duration = Duration::from_secs(1);
/// At least so often a follower says how far it is, where it is heard that there is nothing new.
const SAY_EVERY: Duration = Duration::from_secs(1);
/// redb's cache while records are taken.
const CACHE_BYTES: usize = 64 << 20;

/// How a stream ended.
enum Ended {
    /// It is worth beginning again at once.
    Cut(String),
    /// The same would happen again until somebody does something.
    Hopeless(String),
    /// The logs part after this position (where two nodes were promoted to one term, in that one), or the leader's does not go back.
    Anew(Option<(Position, Option<Term>)>),
    /// This node leads now.
    Promoted,
}

/// Follows the leader until this node leads itself, and tells the leader before it then. Goes on for as long as it is polled.
pub async fn run(services: Arc<Services>, name: String, silence: Duration) {
    let Some(link) = services.node.link().cloned() else { return };
    tokio::spawn(Arc::clone(&link).run());
    let mut told = String::new();
    while services.node.role() != Role::Leader {
        link.wait_until_up().await;
        if services.node.role() == Role::Leader {
            break;
        }
        let ended = follow(&services, &link, &name, silence).await;
        services.node.set_connected(false);
        let (why, pause) = match ended {
            Ended::Promoted => break,
            Ended::Cut(why) => (why, PAUSE),
            Ended::Hopeless(why) => (why, LONG_PAUSE),
            Ended::Anew(parted) => match take_anew(&services, &link, parted).await {
                Ok(position) => {
                    tracing::info!(
                        position = position.0,
                        "all records of the leader are here; the server begins anew with them"
                    );
                    services.node.ask_for_restart();
                    return std::future::pending().await;
                }
                Err(why) => (why, LONG_PAUSE),
            },
        };
        // The same trouble is one line.
        if told != why {
            tracing::warn!(leader = %link.leader(), why, "the leader's log is not followed now; it is tried again");
            told = why;
        }
        sleep(pause).await;
    }
    tell_the_one_before(&services, &link, &name).await;
}

/// One stream of the log, to its end.
async fn follow(services: &Arc<Services>, link: &Link, name: &str, silence: Duration) -> Ended {
    let source = services.storage.source();
    let (store, node) = (source.store_id(), services.storage.node_id());
    drop(source);
    let history = match services.read(|storage| storage.source().history()).await {
        Ok(history) => history,
        Err(error) => return Ended::Hopeless(error_chain(&error)),
    };
    services.node.forget_leader();
    let (mut following, hello) = Following::begin(store, node, name, &history);
    let (say, answered) = match timeout(silence.max(Duration::from_secs(1)), link.stream("/replication/log")).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Ended::Cut(error_chain(&error)),
        Err(_) => return Ended::Cut("the leader does not answer".to_owned()),
    };
    let mut arriving = match answered {
        Answered::Stream(arriving) => arriving,
        Answered::Refused(why) => return Ended::Hopeless(why),
    };
    if say.send(hello.encode().into()).await.is_err() {
        return Ended::Cut("the stream was cut".to_owned());
    }

    let mut said = Instant::now();
    let mut wire = Wire::default();
    let mut waiting: Vec<Received> = Vec::new();
    let (mut waiting_bytes, mut in_flight) = (0, 0);
    let (tell, mut applied) = mpsc::channel::<Result<Position, NotApplied>>(IN_FLIGHT_MAX);
    loop {
        if in_flight < IN_FLIGHT_MAX && !waiting.is_empty() {
            in_flight += 1;
            waiting_bytes = 0;
            let tell = tell.clone();
            services.storage.replicate(std::mem::take(&mut waiting), move |outcome| {
                // There is room for as many as are in flight; nobody listens where the stream has ended.
                let _ = tell.try_send(outcome);
            });
        }
        tokio::select! {
            biased;
            outcome = applied.recv() => {
                in_flight -= 1;
                match outcome {
                    Some(Ok(position)) => {
                        said = Instant::now();
                        if say.send(following.reached(position).encode().into()).await.is_err() {
                            return Ended::Cut("the stream was cut".to_owned());
                        }
                    }
                    Some(Err(NotApplied::NotFollower)) => return Ended::Promoted,
                    Some(Err(why)) => return Ended::Hopeless(why.to_string()),
                    None => return Ended::Hopeless("the store is closed".to_owned()),
                }
            }
            next = timeout(silence, arriving.next()), if waiting_bytes < WAITING_BYTES_MAX => {
                let Ok(next) = next else {
                    return Ended::Cut(format!("nothing was heard for {} ms", silence.as_millis()));
                };
                let Some(bytes) = next else { return Ended::Cut("the leader ended the stream".to_owned()) };
                wire.push(&bytes);
                loop {
                    let message = match wire.next_message() {
                        Ok(Some(message)) => message,
                        Ok(None) => break,
                        Err(error) => return Ended::Cut(error.to_string()),
                    };
                    match following.receive(message) {
                        Ok(Order::Apply(frame)) => {
                            waiting_bytes += frame.payload_bytes();
                            waiting.push(frame);
                        }
                        Ok(Order::Welcomed(welcome)) => {
                            if let Err(error) = note_term(services, welcome.term).await {
                                return Ended::Hopeless(error);
                            }
                            let Welcome { position, above, .. } = welcome;
                            services.node.set_connected(true);
                            // A node in between says with its first beat how it stands to the leader.
                            match above.len() {
                                1 => services.node.heard(Word::leader(position)),
                                _ => services.node.knows_of(position),
                            }
                            services.storage.standing().welcomed(&above);
                            tracing::info!(
                                leader = %link.leader(),
                                position = position.0,
                                hops = above.len(),
                                "the leader's log is followed"
                            );
                        }
                        Ok(Order::Heard(word)) => {
                            services.node.heard(word);
                            // It is there: whoever only hears is not known to hear.
                            if said.elapsed() >= SAY_EVERY {
                                said = Instant::now();
                                let reached = following.reached(services.node.position());
                                if say.send(reached.encode().into()).await.is_err() {
                                    return Ended::Cut("the stream was cut".to_owned());
                                }
                            }
                        }
                        Ok(Order::Part(common, twin)) => return Ended::Anew(Some((common, twin))),
                        Ok(Order::Fetch) => return Ended::Anew(None),
                        Ok(Order::Refused(_, why)) => return Ended::Hopeless(why),
                        Err(error) => return Ended::Cut(error.to_string()),
                    }
                }
            }
        }
        if services.node.role() == Role::Leader {
            return Ended::Promoted;
        }
    }
}

/// Remembers the leader's term before anything of it is applied: a promotion of this node has to begin a newer one, whatever has come
/// by then and however often it was started since.
async fn note_term(services: &Arc<Services>, term: Term) -> Result<(), String> {
    if services.storage.standing().seen() >= term {
        return Ok(());
    }
    let noting = Arc::clone(services);
    let noted = tokio::task::spawn_blocking(move || {
        let kept = Kept { role: Role::Follower, term, instead_of: None };
        role::write(&RealDisk, &noting.data_dir, &kept)
    });
    match noted.await {
        Ok(Ok(())) => {
            services.storage.standing().see(term);
            Ok(())
        }
        Ok(Err(error)) => Err(format!("the term of the leader cannot be written down: {error}")),
        Err(_) => Err("the server is stopping".to_owned()),
    }
}

/// Sets aside what only this node has, and takes all records of the leader.
async fn take_anew(
    services: &Arc<Services>,
    link: &Link,
    parted: Option<(Position, Option<Term>)>,
) -> Result<Position, String> {
    if let Some((common, twin)) = parted {
        // Whoever follows this node hears of it when the leader's records are here.
        services.storage.standing().parted();
        if let Some(twin) = twin {
            tracing::error!(
                term = twin.0,
                "two nodes were promoted to the same term, each without knowing of the other: this node has records of the one, and \
                 its leader is, or follows, the other"
            );
        }
        let aside = services.read(move |storage| set_aside(&storage.source(), common)).await;
        match aside.map_err(|error| error_chain(&error))? {
            Some(aside) => tracing::error!(
                file = %aside.path.display(),
                first = aside.first.0,
                last = aside.last.0,
                not_in_the_file = aside.unreachable,
                "this node has records that the leader has not: they are in this file, and the leader's take their place"
            ),
            None => tracing::error!(
                position = common.0,
                "this node had records after this position that the leader has not, and its log does not hold them any more"
            ),
        }
    } else {
        tracing::warn!("the leader's log does not go back to where this node is: all records are taken anew");
    }
    let store = services.storage.source().store_id();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    fetch(link, &disk, &services.data_dir, Some(store)).await
}

/// Takes all records of the leader, to be used from the next start on.
async fn fetch(
    link: &Link,
    disk: &Arc<dyn Disk>,
    data_dir: &Path,
    wanted: Option<[u8; 16]>,
) -> Result<Position, String> {
    let (say, answered) = link.stream("/replication/checkpoint").await.map_err(|error| error_chain(&error))?;
    drop(say);
    let mut arriving = match answered {
        Answered::Stream(arriving) => arriving,
        Answered::Refused(why) => return Err(why),
    };
    let mut receiver = Receiver::begin(disk, data_dir, CACHE_BYTES, wanted).map_err(|error| error_chain(&error))?;
    let mut wire = Wire::default();
    let mut told = 0;
    while let Some(bytes) = arriving.next().await {
        wire.push(&bytes);
        while let Some(message) = wire.next_message().map_err(|error| error.to_string())? {
            // It writes files.
            let taking = tokio::task::spawn_blocking(move || {
                let taken = receiver.take(message);
                (receiver, taken)
            });
            let taken: Result<Option<Position>, TakeError>;
            (receiver, taken) = taking.await.map_err(|_| "the server is stopping".to_owned())?;
            if let Some(position) = taken.map_err(|error| error_chain(&error))? {
                return Ok(position);
            }
            if let Some((rows, came)) = receiver.progress()
                && came * 10 >= rows * (told + 1)
            {
                told = came * 10 / rows.max(1);
                tracing::info!(rows = came, of = rows, "taking the leader's records");
            }
        }
    }
    Err("the stream of records was cut".to_owned())
}

/// Whether this node is a follower that has no records yet.
///
/// # Errors
/// A sentence for the operator: the data directory cannot be read.
pub fn waits(settings: &Settings) -> Result<bool, String> {
    let has_records = || has_records(&RealDisk, &settings.data_dir).map_err(|error| error.to_string());
    Ok(settings.replication.follow.is_some() && !has_records()?)
}

/// A follower that has no records yet takes the leader's before anything is opened; waits for the leader as long as that takes.
///
/// # Errors
/// A sentence for the operator: the settings cannot be used.
pub async fn begin(settings: &Settings) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let dir = &settings.data_dir;
    if !waits(settings)? {
        return Ok(());
    }
    disk.create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    let Some(link) = new_link(settings)? else { return Ok(()) };
    let running = tokio::spawn(Arc::clone(&link).run());
    tracing::info!(leader = %link.leader(), "this node has no records yet; it takes its leader's");
    let mut told = String::new();
    loop {
        link.wait_until_up().await;
        match fetch(&link, &disk, dir, None).await {
            Ok(position) => {
                tracing::info!(position = position.0, "all records of the leader are here");
                running.abort();
                return Ok(());
            }
            Err(why) => {
                if told != why {
                    tracing::warn!(leader = %link.leader(), why, "the leader's records cannot be taken now; it is tried again");
                    told = why;
                }
                sleep(LONG_PAUSE).await;
            }
        }
    }
}

/// Tells the leader before this one that its reign is over, until it has heard: it may be cut off from this node and yet reached by
/// clients.
async fn tell_the_one_before(services: &Arc<Services>, link: &Link, name: &str) {
    let (store, term) = (services.storage.source().store_id(), services.node.term());
    let message: Bytes = Message::Fence { store, term, name: name.to_owned() }.encode().into();
    let mut told = String::new();
    loop {
        link.wait_until_up().await;
        match timeout(FENCE_TIME_MAX, link.post(FENCE_PATH, message.clone(), 0)).await {
            Ok(Ok((200, _))) => {
                tracing::info!(leader = %link.leader(), "the leader before this one takes no changes any more");
                return;
            }
            // It was promoted again since, while this one was away: now this one is the leader before.
            Ok(Ok((410, answer))) => {
                let mut wire = Wire::default();
                wire.push(&answer);
                if let Ok(Some(Message::Fence { store: theirs, term, name })) = wire.next_message()
                    && theirs == store
                {
                    let ending = Arc::clone(services);
                    let _ = tokio::task::spawn_blocking(move || end_reign(&ending, term, &name)).await;
                    // The settings name that one already.
                    services.node.ask_for_restart();
                    return;
                }
            }
            Ok(Ok((423, answer))) => {
                let mut wire = Wire::default();
                wire.push(&answer);
                if let Ok(Some(Message::Fence { name: other, .. })) = wire.next_message()
                    && services.node.meets_rival(&other)
                {
                    tracing::error!(term = term.0, other, "{TWO_LEAD}");
                }
            }
            Ok(Ok((_, why))) => {
                let why = String::from_utf8_lossy(&why).trim().to_owned();
                if told != why {
                    tracing::error!(leader = %link.leader(), why, "the leader before this one does not give way");
                    told = why;
                }
            }
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(FENCE_PAUSE).await;
    }
}
