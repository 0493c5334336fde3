//! A leader and two followers, step by step, over disks, links and an operator that a seed decides. For a part of the seeds the
//! second follower follows the first one, and where answers wait for nobody the operator errs: promotes two nodes to one term.
//!
//! The real writer, log, checkpoint and protocol run here; false are the disks ([`MemoryDisk`]: power cuts at every write, torn
//! writes), the links (messages that wait, are lost, come twice, and connections that are cut), and time, which there is none of.
//! Every step is drawn from the seed, so a seed that fails fails again: the line to paste is in the message.
//!
//! What must hold whatever happened, once everything is whole again:
//! - what was answered as done is there (where answers wait for followers), and what was refused is not;
//! - all nodes have the same rows, position and terms;
//! - what a leader had taken and lost again is in a file that it set aside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::disk::Disk;
use crate::disk::memory::{MemoryDisk, SplitMix};
use crate::feed::{Feed, FeedError};
use crate::log::frame::Frame;
use crate::log::segment;
use crate::open::{Options, Parts};
use crate::position::{Position, Term};
use crate::queue::{Lane, Queue, Work};
use crate::records::{TableNo, decode_record};
use crate::replication::checkpoint::{Receiver, Sender};
use crate::replication::install::set_aside;
use crate::replication::messages::Received;
use crate::replication::serving::Own;
use crate::replication::{
    Deed, Following, History, Message, NodeId, NotApplied, Order, Parting, Promotion, Refusal, Role, Serving, Standing,
    Wire, Word,
};
use crate::store::Read;
use crate::writer::{Answer, Fate, Job, Step};

/// Where every node's store is, on its own disk.
const DIR: &str = "/data";
/// The table of the changes that are made here; none of the product's.
const OPS: TableNo = 9000;
const NODES: usize = 3;
/// Seeds that a test run tries, unless `KEYWARD_SIMULATION_SEEDS` says more.
const SEEDS: u64 = 150;
/// Bytes of log that nodes keep, but for a quarter of the seeds: all of it.
const KEEP: u64 = 1 << 20;
/// Steps of a seed before everything is healed.
const STEPS: u64 = 400;

/// What became of a change, as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    Refused,
    /// No answer, or one that says that nobody has confirmed it.
    Unknown,
}

type Outcomes = Arc<Mutex<BTreeMap<u64, Outcome>>>;

/// A node that runs.
struct Live {
    parts: Parts,
    queue: Queue,
    /// What it does as a follower.
    follows: Option<Follows>,
}

struct Follows {
    following: Following,
    waiting: Vec<Received>,
    up: Wire,
}

/// A leader's side of a connection.
struct Serves {
    serving: Serving,
    feed: Option<Feed>,
    wire: Wire,
    /// [`Standing::changes`] when the stream began.
    changes: u64,
}

struct Node {
    id: NodeId,
    disk: MemoryDisk,
    live: Option<Live>,
    /// Whom its settings name.
    follow: Option<usize>,
    /// As the file in its directory says: what it was, and the newest term it had heard of.
    kept: Role,
    heard: Term,
    /// Its connections to followers, by their number.
    serves: BTreeMap<usize, Serves>,
}

/// What is on its way between a follower and the leader it is connected to.
#[derive(Default)]
struct Connection {
    up: VecDeque<Vec<u8>>,
    down: VecDeque<Vec<u8>>,
}

struct World {
    dice: SplitMix,
    nodes: Vec<Node>,
    /// By follower; where it is connected, to which leader.
    connections: BTreeMap<usize, (usize, Connection)>,
    outcomes: Outcomes,
    next_op: u64,
    wanted: usize,
    /// Bytes of log that nodes keep.
    keep: u64,
    /// Whether one follower follows the other.
    chained: bool,
    /// Terms that two nodes were promoted to, as followers heard of it.
    twins: BTreeSet<Term>,
    /// Whether some of what was lost is in no file, since the log was not kept for long enough.
    gone: bool,
    /// Ops that were found in files that were set aside.
    aside: BTreeSet<u64>,
    /// Whether faults strike.
    faults: bool,
    log: Vec<String>,
}

fn options(disk: &MemoryDisk, role: Role, (wanted, keep): (usize, u64), fresh: u8) -> Options {
    let mut options = Options::new(
        DIR,
        Arc::new(disk.clone()),
        Arc::new(|| 1_000_000),
        [fresh; 32],
        Arc::new(|error| panic!("{error}")),
    );
    options.hot_keys_max = 64;
    options.rate_subjects_max = 64;
    options.redb_cache_bytes = 1 << 20;
    options.segment_bytes = 2048;
    options.standing = Arc::new(Standing::new(role));
    options.acks_wanted = wanted;
    // There is no time here: an answer waits until it is given, or its node is gone.
    options.ack_timeout = Duration::from_secs(3600);
    options.keep_log_bytes = keep;
    options
}

impl Live {
    fn open(disk: &MemoryDisk, role: Role, way: (usize, u64), fresh: u8) -> Live {
        let parts = Parts::open(&options(disk, role, way, fresh)).unwrap_or_else(|error| panic!("{error:?}"));
        Live { parts, queue: Queue::default(), follows: None }
    }

    fn history(&self) -> History {
        self.parts.source.history().expect("readable")
    }

    fn standing(&self) -> &Standing {
        &self.parts.writer.standing
    }

    fn role(&self) -> Role {
        self.standing().role()
    }
}

impl World {
    /// A leader with some changes; followers that have taken them.
    fn new(seed: u64) -> World {
        let mut dice = SplitMix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let wanted = dice.below(3) as usize;
        let keep = if dice.below(4) == 0 { 4096 } else { KEEP };
        let chained = dice.below(2) == 0;
        let nodes = (0..NODES)
            .map(|number| Node {
                id: [0; 16],
                disk: MemoryDisk::new(),
                live: None,
                follow: (number > 0).then_some(0),
                kept: if number == 0 { Role::Leader } else { Role::Follower },
                heard: Term(1),
                serves: BTreeMap::new(),
            })
            .collect();
        let mut world = World {
            dice,
            nodes,
            connections: BTreeMap::new(),
            outcomes: Outcomes::default(),
            next_op: 0,
            wanted,
            aside: BTreeSet::new(),
            keep,
            chained,
            twins: BTreeSet::new(),
            gone: false,
            faults: false,
            log: Vec::new(),
        };
        world.start(0);
        world.change(0);
        world.change(0);
        for follower in 1..NODES {
            world.take_all(follower, 0, None);
        }
        world.point_at(0);
        world.faults = true;
        world
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        self.log.push(what());
    }

    /// Starts a node on what its disk holds.
    fn start(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let role = match (node.kept, node.follow) {
            (Role::Leader, None) => Role::Leader,
            (Role::Fenced, None) => Role::Fenced,
            _ => Role::Follower,
        };
        let live = Live::open(&node.disk, role, (self.wanted, self.keep), number as u8 + 1);
        live.parts.writer.standing.see(node.heard);
        node.id = live.parts.node;
        node.kept = role;
        node.live = Some(live);
        self.note(|| format!("{number} starts as {}", role.word()));
    }

    /// The power of a node goes out now: whatever was on its way to it or from it is gone.
    fn lose_power(&mut self, number: usize) {
        self.cut(number);
        let seed = self.dice.draw();
        let node = &mut self.nodes[number];
        node.serves.clear();
        if let Some(live) = node.live.take() {
            live.parts.writer.acks.stop();
            // redb flushes when it is dropped: a disk without power takes nothing.
            node.disk.stop_after(0);
            drop(catch_unwind(AssertUnwindSafe(|| drop(live))));
        }
        node.disk = node.disk.crash(seed);
        self.note(|| format!("{number} loses its power"));
    }

    /// The operator has the followers follow this leader: both of them, or one through the other.
    fn point_at(&mut self, leader: usize) {
        let is_follower =
            |number: &usize| self.nodes[*number].live.as_ref().is_some_and(|live| live.role() == Role::Follower);
        // Through a node that does not know its place yet the other one would hear an old leader.
        let middle = (0..NODES).find(|number| *number != leader).filter(is_follower);
        for number in (0..NODES).filter(|number| *number != leader) {
            let whom = middle.filter(|middle| self.chained && *middle != number).unwrap_or(leader);
            let before = self.nodes[number].follow.replace(whom);
            if before != Some(whom) {
                self.disconnect(number);
                if let Some(live) = &self.nodes[number].live {
                    live.standing().parted();
                }
            }
        }
    }

    /// Ends every connection of a node.
    fn cut(&mut self, number: usize) {
        let gone: Vec<usize> = self
            .connections
            .iter()
            .filter(|(follower, (leader, _))| **follower == number || *leader == number)
            .map(|(follower, _)| *follower)
            .collect();
        for follower in gone {
            self.disconnect(follower);
        }
    }

    fn disconnect(&mut self, follower: usize) {
        if let Some((leader, _)) = self.connections.remove(&follower) {
            self.nodes[leader].serves.remove(&follower);
            if let Some(live) = &mut self.nodes[follower].live {
                // What has come whole may still be applied; the next stream begins with what is applied by then.
                live.follows = None;
            }
            self.note(|| format!("{follower} and {leader} are cut off"));
        }
    }

    /// Runs something that writes on a node's disk, during which its power may go out. `None` where it did.
    fn risky<R>(&mut self, number: usize, run: impl FnOnce(&mut Live) -> Option<R>) -> Option<R> {
        let strikes = self.faults && self.dice.below(12) == 0;
        if strikes {
            let after = self.dice.below(14);
            self.nodes[number].disk.stop_after(after);
        }
        let live = self.nodes[number].live.as_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| run(live)));
        if self.nodes[number].disk.stopped() {
            self.lose_power(number);
            return None;
        }
        if strikes {
            self.nodes[number].disk.stop_after(u64::MAX);
        }
        match done {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// A client asks a node for a change.
    fn change(&mut self, number: usize) {
        let Some(live) = &self.nodes[number].live else { return };
        if live.role() != Role::Leader {
            return;
        }
        let batch = 1 + self.dice.below(3);
        let mut ops = Vec::new();
        for _ in 0..batch {
            self.next_op += 1;
            ops.push(self.next_op);
            self.outcomes.lock().expect("no panic").insert(self.next_op, Outcome::Unknown);
        }
        let fill = self.dice.below(300) as usize;
        let checkpoint = self.dice.below(6) == 0;
        let outcomes = Arc::clone(&self.outcomes);
        let told = ops.clone();
        self.risky(number, move |live| {
            for op in ops {
                let outcomes = Arc::clone(&outcomes);
                let answer: Answer = Box::new(move |fate| {
                    let outcome = match fate {
                        Fate::Done { .. } => Outcome::Done,
                        Fate::Unavailable(crate::error::Unavailable::Unconfirmed) => Outcome::Unknown,
                        Fate::Unavailable(_) | Fate::Unreadable(_) => Outcome::Refused,
                    };
                    outcomes.lock().expect("no panic").insert(op, outcome);
                });
                let run = Box::new(move |tx: Option<&mut crate::tx::Tx<'_>>| {
                    if let Some(tx) = tx {
                        tx.put_bytes(OPS, &op.to_be_bytes(), vec![op as u8; fill]);
                        // Rows that many change, too, and one that goes.
                        tx.put_bytes(OPS, b"newest", op.to_be_bytes().to_vec());
                        tx.delete(OPS, &[b"shared".as_slice(), &[(op % 3) as u8]].concat());
                        tx.put_bytes(OPS, &[b"shared".as_slice(), &[((op + 1) % 3) as u8]].concat(), vec![op as u8]);
                    }
                    Ok((true, answer))
                });
                let job = Job { run, now: 1_000_000, until: u64::MAX };
                assert!(live.queue.push(Lane::First, Work::Transact(job)).is_ok());
            }
            live.parts.writer.step(Step::default(), &mut live.queue.turns(64, &|| 0)).ok()?;
            if checkpoint {
                live.parts.writer.checkpoint().ok()?;
            }
            Some(())
        });
        self.note(|| format!("{number} was asked for {told:?}"));
    }

    /// A follower introduces itself to the leader its settings name.
    fn connect(&mut self, follower: usize) {
        let Some(leader) = self.nodes[follower].follow else { return };
        if self.connections.contains_key(&follower) || self.nodes[leader].live.is_none() {
            return;
        }
        let id = self.nodes[follower].id;
        let Some(live) = &mut self.nodes[follower].live else { return };
        if live.role() != Role::Follower {
            return;
        }
        let (following, hello) = Following::begin(live.parts.source.store_id, id, "n", &live.history());
        live.follows = Some(Follows { following, waiting: Vec::new(), up: Wire::default() });
        let mut connection = Connection::default();
        connection.up.push_back(hello.encode());
        self.connections.insert(follower, (leader, connection));
        self.nodes[leader]
            .serves
            .insert(follower, Serves { serving: Serving::default(), feed: None, wire: Wire::default(), changes: 0 });
        self.note(|| format!("{follower} connects to {leader}"));
    }

    /// One message arrives at a leader.
    fn deliver_up(&mut self, follower: usize) {
        let Some((leader, connection)) = self.connections.get_mut(&follower) else { return };
        let leader = *leader;
        let Some(bytes) = connection.up.pop_front() else { return };
        let node = &mut self.nodes[leader];
        let (Some(live), Some(serves)) = (&node.live, node.serves.get_mut(&follower)) else { return };
        serves.wire.push(&bytes);
        let Ok(Some(message)) = serves.wire.next_message() else { return self.disconnect(follower) };
        let history = live.history();
        let (standing, store) = (live.standing(), live.parts.source.store_id);
        let own = Own { node: node.id, standing, store, history: &history };
        serves.changes = if serves.feed.is_none() { standing.changes() } else { serves.changes };
        let deeds = serves.serving.receive(message, own);
        let who = serves.serving.follower().map(|(node, _)| node);
        let mut close = false;
        for deed in deeds {
            match deed {
                Deed::Send(message) => {
                    self.send_down(follower, &message);
                }
                Deed::Stream(after) => {
                    let node = &mut self.nodes[leader];
                    let (Some(live), Some(serves)) = (&node.live, node.serves.get_mut(&follower)) else { return };
                    match live.parts.source.resume(after) {
                        Ok(feed) => serves.feed = Some(feed),
                        Err(FeedError::Behind(_)) => {
                            serves.serving.behind();
                            self.send_down(follower, &Message::Behind);
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
                Deed::Reached(position) => {
                    let live = self.nodes[leader].live.as_ref().expect("it runs");
                    live.parts.writer.acks.reached(who.expect("it said who it is"), position);
                }
                Deed::Fence(term) => self.fence(leader, term),
                Deed::Close => close = true,
            }
        }
        if close {
            // What was said last still arrives, and the follower hangs up then.
            self.nodes[leader].serves.remove(&follower);
        }
    }

    fn send_down(&mut self, follower: usize, message: &Message) {
        let (drop_it, twice) =
            if self.faults { (self.dice.below(60) == 0, self.dice.below(60) == 0) } else { (false, false) };
        let Some((_, connection)) = self.connections.get_mut(&follower) else { return };
        if !drop_it {
            connection.down.push_back(message.encode());
        }
        if twice {
            connection.down.push_back(message.encode());
        }
    }

    /// A leader reads its log for a follower.
    fn pump(&mut self, follower: usize) {
        let Some(&(leader, _)) = self.connections.get(&follower) else { return };
        let node = &mut self.nodes[leader];
        let (Some(live), Some(serves)) = (&node.live, node.serves.get_mut(&follower)) else { return };
        let Some(feed) = &mut serves.feed else { return };
        if live.standing().changes() != serves.changes {
            return self.disconnect(follower);
        }
        let store = live.parts.source.store_id;
        let serving = &mut serves.serving;
        let message = match feed.take_frame(|frame, _| serving.frame(frame, store)) {
            Ok(Some(message)) => message,
            Ok(None) => match serving.beat(Word::leader(feed.position())) {
                Some(beat) => beat,
                None => return,
            },
            Err(FeedError::Behind(_)) => {
                serves.feed = None;
                serves.serving.behind();
                Message::Behind
            }
            Err(error) => panic!("{error:?}"),
        };
        feed_release(serves);
        self.send_down(follower, &message);
    }

    /// One message arrives at a follower.
    fn deliver_down(&mut self, follower: usize) {
        let Some((leader, connection)) = self.connections.get_mut(&follower) else { return };
        let leader = *leader;
        let Some(bytes) = connection.down.pop_front() else {
            if !self.nodes[leader].serves.contains_key(&follower) {
                self.disconnect(follower);
            }
            return;
        };
        let Some(live) = &mut self.nodes[follower].live else { return };
        let Some(follows) = &mut live.follows else { return };
        follows.up.push(&bytes);
        let Ok(Some(message)) = follows.up.next_message() else { return self.disconnect(follower) };
        match follows.following.receive(message) {
            Ok(Order::Apply(frame)) => follows.waiting.push(frame),
            Ok(Order::Welcomed(welcome)) => {
                live.standing().see(welcome.term);
                live.standing().welcomed(&welcome.above);
                let node = &mut self.nodes[follower];
                node.heard = node.heard.max(welcome.term);
            }
            Ok(Order::Heard(_)) => {}
            Ok(Order::Part(common, twin)) => {
                live.standing().parted();
                self.twins.extend(twin);
                self.take_all(follower, leader, Some(common));
            }
            Ok(Order::Fetch) => self.take_all(follower, leader, None),
            Ok(Order::Refused(why, text)) => {
                assert!(![Refusal::LeaderLost, Refusal::OtherStore, Refusal::Chain].contains(&why), "{text}");
                self.disconnect(follower);
            }
            // Lost and doubled messages are noticed.
            Err(_) => self.disconnect(follower),
        }
    }

    /// A follower applies what has come.
    fn apply(&mut self, follower: usize) {
        let most = 1 + self.dice.below(8) as usize;
        let checkpoint = self.dice.below(6) == 0;
        let reached = self.risky(follower, |live| {
            let follows = live.follows.as_mut()?;
            let count = most.min(follows.waiting.len());
            let frames: Vec<Received> = follows.waiting.drain(..count).collect();
            if frames.is_empty() {
                return None;
            }
            let position = match live.parts.writer.apply(&frames).ok()? {
                Ok(position) => position,
                Err(NotApplied::NotFollower) => return None,
                Err(error) => panic!("{error}"),
            };
            if checkpoint {
                live.parts.writer.checkpoint().ok()?;
            }
            Some(follows.following.reached(position))
        });
        if let Some(message) = reached
            && let Some((_, connection)) = self.connections.get_mut(&follower)
        {
            connection.up.push_back(message.encode());
        }
    }

    /// A follower sets aside what only it has, takes all records of the leader, and starts anew.
    fn take_all(&mut self, follower: usize, leader: usize, parted: Option<Position>) {
        self.disconnect(follower);
        if let Some(common) = parted {
            let set = self.risky(follower, |live| set_aside(&live.parts.source, common).ok());
            match set {
                None => return,
                Some(None) => {}
                Some(Some(aside)) => {
                    assert!(aside.unreachable == 0 || self.keep < KEEP, "the log is kept for longer than that");
                    self.gone |= aside.unreachable > 0;
                    self.read_aside(follower, &aside.path);
                }
            }
        }
        let Some(from) = &self.nodes[leader].live else { return };
        if from.standing().serves().is_none() {
            return;
        }
        let mut sender = Sender::new(&from.parts.source).expect("readable");
        let mut messages = Vec::new();
        while let Some(message) = sender.next_message().expect("readable") {
            messages.push(message);
        }
        let cut_short = self.faults && self.dice.below(8) == 0;
        if cut_short {
            messages.truncate(self.dice.below(messages.len() as u64) as usize);
        }
        let disk: Arc<dyn Disk> = Arc::new(self.nodes[follower].disk.clone());
        let strikes = self.faults && self.dice.below(4) == 0;
        if strikes {
            let after = self.dice.below(60);
            self.nodes[follower].disk.stop_after(after);
        }
        let wanted = self.nodes[follower].live.as_ref().map(|live| live.parts.source.store_id);
        let taken = catch_unwind(AssertUnwindSafe(|| {
            let mut receiver = Receiver::begin(&disk, Path::new(DIR), 1 << 20, wanted).ok()?;
            let mut position = None;
            for message in messages {
                position = receiver.take(message).ok()?;
            }
            position
        }));
        let done = matches!(taken, Ok(Some(_)));
        if self.nodes[follower].disk.stopped() {
            return self.lose_power(follower);
        }
        self.note(|| format!("{follower} takes all records of {leader}: {done}"));
        if done {
            // It stops, and starts with what waits there; or its power goes out on the way, wherever that is.
            let node = &mut self.nodes[follower];
            if let Some(live) = node.live.take() {
                live.parts.writer.acks.stop();
                node.disk.stop_after(u64::MAX);
                drop(live);
            }
            if strikes {
                let after = self.dice.below(25);
                let node = &mut self.nodes[follower];
                node.disk.stop_after(after);
                let opened = catch_unwind(AssertUnwindSafe(|| {
                    drop(Parts::open(&options(&node.disk, Role::Follower, (0, KEEP), follower as u8 + 1)));
                }));
                let _ = opened;
                return self.lose_power(follower);
            }
            self.start(follower);
        } else if strikes {
            self.nodes[follower].disk.stop_after(u64::MAX);
        }
    }

    /// Notes the changes in a file that was set aside.
    fn read_aside(&mut self, number: usize, path: &Path) {
        let bytes = self.nodes[number].disk.contents(path).expect("it was written");
        let (head, mut rest) = bytes.split_first_chunk::<{ segment::HEADER_BYTES }>().expect("a segment");
        let (header, seed) = segment::Header::decode(head).expect("a segment");
        let mut next = header.first;
        while !rest.is_empty() {
            let frame = Frame::decode(rest, seed).expect("a whole frame");
            assert_eq!(frame.header.first, next);
            next = frame.header.last().next();
            for (_, record) in frame.records() {
                for effect in decode_record(record).expect("whole") {
                    if effect.table == OPS && effect.key.len() == 8 {
                        self.aside.insert(u64::from_be_bytes(effect.key.try_into().expect("eight bytes")));
                    }
                }
            }
            rest = &rest[usize::try_from(frame.header.frame_bytes()).expect("small")..];
        }
    }

    fn fence(&mut self, number: usize, term: Term) {
        let node = &mut self.nodes[number];
        let Some(live) = &node.live else { return };
        if live.parts.writer.standing.fence(term) {
            (node.kept, node.heard) = (Role::Fenced, term);
            self.note(|| format!("{number} is fenced by term {}", term.0));
        }
    }

    /// The leader is gone, and an operator promotes the follower that is furthest, having seen that all others follow that one.
    fn fail_over(&mut self, old: usize) {
        if self.nodes[old].live.is_some() {
            self.lose_power(old);
        }
        for number in 0..NODES {
            if number != old && self.nodes[number].live.is_none() {
                self.start(number);
            }
        }
        // One that still believes that it leads, in an older term, is stopped before anything else.
        let term = self.nodes.iter().filter_map(|node| Some(node.live.as_ref()?.history().term())).max();
        let term = term.unwrap_or(Term(1)).max(self.nodes[old].heard);
        for number in 0..NODES {
            if number != old && self.nodes[number].live.as_ref().is_some_and(|live| live.role() != Role::Follower) {
                self.fence(number, term);
                self.nodes[number].follow = Some(old);
                self.lose_power(number);
                self.start(number);
            }
        }
        let furthest = |number: &usize| {
            let live = self.nodes[*number].live.as_ref().expect("it was started");
            (live.history().term(), live.parts.source.position())
        };
        let new = (0..NODES).filter(|number| *number != old).max_by_key(furthest).expect("there are others");
        for number in 0..NODES {
            self.disconnect(number);
        }
        let old_follows = self.nodes[old].follow;
        self.point_at(new);
        // Nobody has told that one yet.
        self.nodes[old].follow = old_follows;
        let promoted = self.promote(new);
        self.note(|| format!("{new} is promoted in place of {old}: {promoted:?}"));
        let third = NODES - old - new;
        if promoted.is_some() && self.faults && self.wanted == 0 && self.dice.below(3) == 0 {
            let twin = self.nodes[third].live.is_some().then(|| self.promote(third)).flatten();
            self.note(|| format!("and {third} by mistake: {twin:?}"));
        }
    }

    /// Makes a follower the leader; `None` where its power went out: the operator tries again.
    fn promote(&mut self, new: usize) -> Option<Term> {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.dice.draw().to_le_bytes());
        let promotion = Promotion { node: self.nodes[new].id, name: "n".to_owned(), id, now: 1_000_000, forced: false };
        let promoted = self.risky(new, |live| {
            live.follows = None;
            live.parts.writer.promote(&promotion).ok()?.ok()
        });
        let term = promoted?;
        (self.nodes[new].kept, self.nodes[new].heard) = (Role::Leader, term);
        self.nodes[new].follow = None;
        Some(term)
    }

    /// Who leads, as far as an operator knows: in the newest term.
    fn leader(&self) -> Option<usize> {
        let leads = |number: &usize| self.nodes[*number].live.as_ref().is_some_and(|live| live.role() == Role::Leader);
        let term = |number: &usize| self.nodes[*number].live.as_ref().map(|live| live.history().term());
        (0..NODES).filter(leads).max_by_key(term)
    }

    /// What an operator, or a service manager, does sooner or later.
    fn care(&mut self) {
        if let Some(number) = (0..NODES).find(|number| self.nodes[*number].live.is_none()) {
            return self.start(number);
        }
        let Some(leader) = self.leader() else {
            // A promotion that was cut short: whoever is furthest, once more; the one that led before stands aside.
            let term = |number: &usize| self.nodes[*number].live.as_ref().map(|live| live.history().term());
            let old = (0..NODES).filter(|number| self.nodes[*number].kept == Role::Fenced).max_by_key(term);
            let old = old.or_else(|| (0..NODES).find(|number| self.nodes[*number].follow.is_none()));
            return self.fail_over(old.unwrap_or(0));
        };
        for number in 0..NODES {
            // One that was started on the way is for the next time.
            if number == leader || self.nodes[number].live.is_none() {
                continue;
            }
            let live = self.nodes[number].live.as_ref().expect("all run");
            match live.role() {
                // It returned, believing that it leads; the new leader tells it.
                Role::Leader => {
                    let term = self.nodes[leader].live.as_ref().expect("it leads").history().term();
                    self.fence(number, term);
                }
                Role::Fenced => {
                    self.nodes[number].follow = Some(leader);
                    self.lose_power(number);
                    self.start(number);
                }
                Role::Follower => {}
            }
        }
        if (0..NODES).all(|number| {
            number == leader || self.nodes[number].live.as_ref().is_some_and(|live| live.role() == Role::Follower)
        }) {
            self.point_at(leader);
        }
    }

    fn step(&mut self) {
        let follower = self.dice.below(NODES as u64) as usize;
        match self.dice.below(100) {
            0..20 => {
                // Whoever believes that it leads is asked, be it the old one.
                self.change(follower);
            }
            20..38 => self.pump(follower),
            38..56 => self.deliver_down(follower),
            56..74 => self.apply(follower),
            74..84 => self.deliver_up(follower),
            84..92 => self.connect(follower),
            92..94 => self.disconnect(follower),
            94..95 => self.lose_power(follower),
            95..96 => {
                if let Some(leader) = self.leader() {
                    self.fail_over(leader);
                }
            }
            _ => self.care(),
        }
    }

    /// Nothing strikes any more, and everybody does what there is to do.
    fn heal(&mut self) {
        self.faults = false;
        for _ in 0..40 {
            self.care();
            for _ in 0..40 {
                for follower in 0..NODES {
                    self.connect(follower);
                    self.deliver_up(follower);
                    self.pump(follower);
                    self.deliver_down(follower);
                    self.apply(follower);
                }
            }
            let positions: BTreeSet<Position> = self
                .nodes
                .iter()
                .filter_map(|node| node.live.as_ref().map(|live| live.parts.source.position()))
                .collect();
            let all = self.nodes.iter().all(|node| node.live.is_some());
            if all && positions.len() == 1 && self.leader().is_some() && self.connections.len() == NODES - 1 {
                return;
            }
        }
        panic!("it does not heal");
    }

    /// What must hold.
    fn judge(&self) {
        let all: Vec<_> = self.nodes.iter().map(|node| rows(node.live.as_ref().expect("it runs"))).collect();
        let histories: Vec<_> = self.nodes.iter().map(|node| node.live.as_ref().expect("it runs").history()).collect();
        for number in 1..NODES {
            assert_eq!(histories[0], histories[number], "the terms of 0 and {number}");
            assert!(all[0] == all[number], "the rows of 0 and {number} differ");
            assert_eq!(histories[0].parting(&histories[number]), Parting::Follows);
        }
        let there = |op: u64| all[0].contains_key(&(OPS, op.to_be_bytes().to_vec()));
        for (&op, &outcome) in self.outcomes.lock().expect("no panic").iter() {
            match outcome {
                Outcome::Done if self.wanted > 0 => assert!(there(op), "change {op} was answered, and is lost"),
                Outcome::Refused => assert!(!there(op), "change {op} was refused, and is there"),
                // Without waiting for followers it may be lost with its leader, and is in a file then.
                Outcome::Done => assert!(there(op) || self.gone || self.aside.contains(&op), "change {op} is nowhere"),
                Outcome::Unknown => {}
            }
        }
    }
}

/// What the follower holds need not be kept for it.
fn feed_release(serves: &Serves) {
    if let Some(feed) = &serves.feed {
        feed.release(serves.serving.reached());
    }
}

/// Every row of a node.
fn rows(live: &Live) -> BTreeMap<(TableNo, Vec<u8>), Vec<u8>> {
    let snapshot = live.parts.source.snapshot().expect("readable");
    let mut rows = BTreeMap::new();
    for table in snapshot.tables().expect("readable") {
        let of_table = snapshot.range(table, &[], None, usize::MAX).expect("readable");
        rows.extend(of_table.into_iter().map(|(key, value)| ((table, key), value)));
    }
    rows
}

/// Two followers are promoted to the same term, and both take changes: the one that is told to follow the other hears of it, sets
/// aside what it took in that term, and both are the same in the end.
#[test]
fn two_nodes_that_were_promoted_to_one_term_are_told_apart() {
    let mut world = World::new(7);
    (world.faults, world.wanted, world.keep, world.chained) = (false, 0, KEEP, false);
    world.heal();
    world.lose_power(0);
    for number in [1, 2] {
        assert_eq!(world.promote(number), Some(Term(2)));
        world.change(number);
    }
    let taken = world.next_op;
    world.start(0);
    world.heal();
    world.judge();
    assert_eq!(world.twins, BTreeSet::from([Term(2)]), "the nodes that followed have heard of it");
    assert!(
        world.aside.contains(&taken)
            != rows(world.nodes[0].live.as_ref().expect("it runs")).contains_key(&(OPS, taken.to_be_bytes().to_vec())),
        "it is in a file, or in the records"
    );
}

fn simulate(seed: u64) {
    let mut world = World::new(seed);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..STEPS {
            world.step();
        }
        world.heal();
        world.judge();
    }));
    if outcome.is_err() {
        panic!(
            "{}\nKEYWARD_SIMULATION_SEED={seed} cargo test --workspace --lib -- replication::simulation",
            world.log.join("\n")
        );
    }
}

/// A seed that failed, or so many of them.
#[test]
#[expect(clippy::disallowed_methods, reason = "switches of this test")]
fn whatever_happens_nothing_that_was_answered_is_lost() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = number("KEYWARD_SIMULATION_SEED") {
        return simulate(seed);
    }
    let seeds = number("KEYWARD_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || (thread..seeds).step_by(threads as usize).for_each(simulate));
        }
    });
}
