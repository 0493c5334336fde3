//! What this node is among the nodes of its store: role, term, position, and how it stands to the leader.
//!
//! Whoever answers a request asks here, so nothing here takes a lock that is held for longer than a few steps: role (the store's own
//! [`Standing`], which is read here and kept nowhere else), term and times are atomics, and [`Node::wait_for`] waits on a channel that is told once per group commit.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use keyward_storage::replication::Role;
use keyward_storage::replication::{Standing, Word};
use keyward_storage::{Position, Term};
use tokio::sync::watch;

use super::lease;
use crate::http::link::Link;

/// Followers that status tells of; those that have been gone longest are forgotten beyond it.
const FOLLOWERS_MAX: usize = 64;
/// Words of the leader that are remembered until this node has caught up with them.
const WORDS_MAX: usize = 4096;
/// How long another leader of the same term is remembered that says nothing any more: it tries once a second for as long as it can.
const RIVAL_REMEMBERED: Duration = Duration::from_secs(600);
/// Between two lines of the log about it.
const RIVAL_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Standing of a leader whose lease has run out.
pub const SUSPENDED: &str = "suspended";
/// No moment yet.
const NEVER: u64 = u64::MAX;

/// A follower as the leader knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowerStatus {
    /// Tells it from others, whatever its address; drawn when its data directory was made.
    pub id: [u8; 16],
    /// As its operator calls it.
    pub name: String,
    /// Where it connects from, or did last.
    pub address: SocketAddr,
    /// Up to here its disk holds the log.
    pub position: Position,
    /// Whether it is connected.
    pub connected: bool,
    /// Since it last said something, ms.
    pub silent_ms: u64,
}

/// What the leader keeps of a follower.
#[derive(Debug)]
struct Known {
    id: [u8; 16],
    name: String,
    address: SocketAddr,
    position: Position,
    connected: bool,
    heard: Instant,
}

/// Another node that leads in this one's term: both were promoted, each without knowing of the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RivalStatus {
    /// As its operator calls it, or its address.
    pub name: String,
    /// Since it last said so, ms.
    pub silent_ms: u64,
}

/// What is kept of it.
#[derive(Debug)]
struct Rival {
    name: String,
    heard: Instant,
    told: Instant,
}

/// This node.
#[derive(Debug)]
pub struct Node {
    name: String,
    standing: Arc<Standing>,
    term: AtomicU64,
    position: watch::Sender<Position>,
    /// What times here count from; ms.
    began: Instant,
    /// When it was last known to be level with the leader.
    level_at: AtomicU64,
    /// When the leader was last heard.
    heard_at: AtomicU64,
    /// The leader's newest position, as far as it told.
    leader_position: AtomicU64,
    /// Its words that this node has not caught up with yet: where it stood, and when that came. Oldest first.
    words: Mutex<VecDeque<(Position, u64)>>,
    /// Whether the link is up.
    connected: AtomicBool,
    /// After so long without a word the leader counts as unreachable.
    silence: Duration,
    link: Option<Arc<Link>>,
    followers: Mutex<Vec<Known>>,
    rival: Mutex<Option<Rival>>,
    /// Whether the process is to begin anew.
    restart: watch::Sender<bool>,
    lease: OnceLock<Arc<lease::Shared>>,
}

impl Node {
    /// A node that has the records to itself, or leads.
    pub fn leader() -> Node {
        Node::new(Arc::new(Standing::new(Role::Leader)), "keyward", None, Duration::from_secs(2))
    }

    /// A node with this standing and name. `link` leads to the node it follows, or used to follow.
    pub fn new(standing: Arc<Standing>, name: &str, link: Option<Arc<Link>>, silence: Duration) -> Node {
        Node {
            name: name.to_owned(),
            standing,
            term: AtomicU64::new(1),
            position: watch::Sender::new(Position::START),
            began: Instant::now(),
            level_at: AtomicU64::new(NEVER),
            heard_at: AtomicU64::new(NEVER),
            leader_position: AtomicU64::new(0),
            words: Mutex::default(),
            connected: AtomicBool::new(false),
            silence,
            link,
            followers: Mutex::new(Vec::new()),
            rival: Mutex::default(),
            restart: watch::Sender::new(false),
            lease: OnceLock::new(),
        }
    }

    /// What it does with changes.
    pub fn role(&self) -> Role {
        self.standing.role()
    }

    /// As its operator calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it takes changes.
    pub fn is_leader(&self) -> bool {
        self.standing.refuses().is_none()
    }

    /// Whether it leads by a lease that has run out: it takes no changes until that is renewed, or another node leads.
    pub fn is_suspended(&self) -> bool {
        self.standing.is_suspended()
    }

    /// The role that others see: a word for status, health and metrics.
    pub fn standing(&self) -> &'static str {
        if self.is_suspended() { SUSPENDED } else { self.role().word() }
    }

    /// The newest term of its log.
    pub fn term(&self) -> Term {
        Term(self.term.load(Ordering::Acquire))
    }

    /// The last record that is durable here, and visible to whoever reads.
    pub fn position(&self) -> Position {
        *self.position.borrow()
    }

    /// Waits until what stands at `position` is visible here. `false` where `deadline` comes first.
    pub async fn wait_for(&self, position: Position, deadline: Instant) -> bool {
        if self.position() >= position {
            return true;
        }
        let mut told = self.position.subscribe();
        let reached = told.wait_for(|now| *now >= position);
        matches!(tokio::time::timeout_at(deadline.into(), reached).await, Ok(Ok(_)))
    }

    /// How old what is read here may be, ms: 0 on a leader; on a follower the time since it held all that the leader then had.
    /// `u64::MAX` where that was never so since the start. On a leader whose lease has run out, the time since then.
    ///
    /// It counts from when the leader's word came, so what was on its way is not in it: up to one way of the network.
    pub fn staleness_ms(&self) -> u64 {
        match self.role() {
            Role::Leader => self.standing.tenure().since_end_ms().unwrap_or(0),
            Role::Follower | Role::Fenced => self.since(&self.level_at),
        }
    }

    /// Records that the leader is known to have and this node has not.
    pub fn lag_records(&self) -> u64 {
        match self.role() {
            Role::Leader => 0,
            _ => self.leader_position.load(Ordering::Acquire).saturating_sub(self.position().0),
        }
    }

    /// Whether the leader, if it is another node, was heard within `replication.silence_ms`.
    pub fn is_leader_reachable(&self) -> bool {
        match self.role() {
            Role::Leader => !self.standing.tenure().is_over(),
            _ => {
                self.connected.load(Ordering::Acquire)
                    && u128::from(self.since(&self.heard_at)) <= self.silence.as_millis()
            }
        }
    }

    /// The connection to the leader; `None` where this node follows nobody.
    pub fn link(&self) -> Option<&Arc<Link>> {
        self.link.as_ref()
    }

    /// The lease that says who leads; `None` where an operator does.
    pub fn lease(&self) -> Option<&Arc<lease::Shared>> {
        self.lease.get()
    }

    /// From now on a lease says so.
    pub fn set_lease(&self, lease: Arc<lease::Shared>) {
        let _ = self.lease.set(lease);
    }

    /// The followers it has heard of since the start, by name.
    pub fn followers(&self) -> Vec<FollowerStatus> {
        let mut all: Vec<FollowerStatus> = self
            .known()
            .iter()
            .map(|known| FollowerStatus {
                id: known.id,
                name: known.name.clone(),
                address: known.address,
                position: known.position,
                connected: known.connected,
                silent_ms: millis(known.heard.elapsed()),
            })
            .collect();
        all.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
        all
    }

    /// What the writer has made durable and visible.
    pub fn committed(&self, position: Position, term: Term) {
        self.term.fetch_max(term.0, Ordering::AcqRel);
        self.position.send_if_modified(|now| std::mem::replace(now, position) != position);
        self.note_level(position);
    }

    /// The node that is followed said how it stands. Where that is not the leader itself, this node is no fresher than that one, and
    /// has heard of the leader when that one had: ages add up along the chain.
    pub fn heard(&self, word: Word) {
        let now = millis(self.began.elapsed());
        let heard = if word.silent_ms == u64::MAX { NEVER } else { now.saturating_sub(word.silent_ms) };
        self.heard_at.store(heard, Ordering::Release);
        self.knows_of(word.leader);
        if word.stale_ms < u64::MAX {
            let mut words = self.words();
            // Where there are too many, the newer ones are left out: that makes it look staler, never fresher.
            if words.len() < WORDS_MAX {
                words.push_back((word.position, now.saturating_sub(word.stale_ms)));
            }
        }
        self.note_level(self.position());
    }

    /// What this node says of itself to those that follow it, once they were sent everything up to `position`.
    pub fn word(&self, position: Position) -> Word {
        if self.is_leader() {
            return Word::leader(position);
        }
        let leader = Position(self.leader_position.load(Ordering::Acquire)).max(position);
        let silent_ms = if self.is_leader_reachable() { self.since(&self.heard_at) } else { u64::MAX };
        Word { position, leader, stale_ms: self.staleness_ms(), silent_ms }
    }

    /// The leader has come at least as far as this.
    pub fn knows_of(&self, leader: Position) {
        self.leader_position.fetch_max(leader.0, Ordering::AcqRel);
    }

    /// Another leader may stand further back than the one before.
    pub fn forget_leader(&self) {
        self.words().clear();
        self.leader_position.store(0, Ordering::Release);
    }

    /// Asks for the process to begin anew: other records wait for it.
    pub fn ask_for_restart(&self) {
        self.restart.send_replace(true);
    }

    /// Waits until somebody has asked for that.
    pub async fn restart_asked(&self) {
        // The sender lives as long as this does.
        let _ = self.restart.subscribe().wait_for(|asked| *asked).await;
    }

    /// The stream of the leader's log has begun, or ended.
    pub fn set_connected(&self, connected: bool) {
        self.connected.store(connected, Ordering::Release);
    }

    /// It holds all that the leader had when it said the words that `position` has come past.
    fn note_level(&self, position: Position) {
        let mut words = self.words();
        while let Some(&(_, heard)) = words.front().filter(|(leader, _)| *leader <= position) {
            words.pop_front();
            // Another node may be followed now, which is staler than the one before was.
            let later = |level| (level == NEVER || level < heard).then_some(heard);
            let _ = self.level_at.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
        }
    }

    fn words(&self) -> std::sync::MutexGuard<'_, VecDeque<(Position, u64)>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another node leads in this one's term, as that one or this one has just said. Whether the log should say so: not more than once a
    /// minute.
    pub fn meets_rival(&self, name: &str) -> bool {
        let mut rival = self.rival.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match rival.as_mut().filter(|rival| rival.name == name) {
            Some(rival) => {
                rival.heard = now;
                let tells = now.duration_since(rival.told) >= RIVAL_TOLD_EVERY;
                if tells {
                    rival.told = now;
                }
                tells
            }
            None => {
                *rival = Some(Rival { name: name.to_owned(), heard: now, told: now });
                true
            }
        }
    }

    /// The other node that leads in this one's term, while both do as far as this one knows: until it follows this one, or has not been
    /// heard for ten minutes.
    pub fn rival(&self) -> Option<RivalStatus> {
        if self.role() != Role::Leader {
            return None;
        }
        let rival = self.rival.lock().unwrap_or_else(PoisonError::into_inner);
        let rival = rival.as_ref().filter(|rival| rival.heard.elapsed() < RIVAL_REMEMBERED)?;
        Some(RivalStatus { name: rival.name.clone(), silent_ms: millis(rival.heard.elapsed()) })
    }

    /// A follower has come, or gone on to `position`.
    pub fn follower_at(&self, id: [u8; 16], name: &str, address: SocketAddr, position: Position) {
        {
            // Whoever follows this node leads no more.
            let mut rival = self.rival.lock().unwrap_or_else(PoisonError::into_inner);
            rival.take_if(|rival| rival.name == name);
        }
        let mut known = self.known();
        let heard = Instant::now();
        match known.iter_mut().find(|known| known.id == id) {
            Some(known) => {
                (known.address, known.position, known.connected, known.heard) = (address, position, true, heard);
                if known.name != name {
                    name.clone_into(&mut known.name);
                }
            }
            None => {
                if known.len() >= FOLLOWERS_MAX
                    && let Some(oldest) =
                        known.iter().enumerate().min_by_key(|(_, known)| (known.connected, known.heard))
                {
                    let oldest = oldest.0;
                    known.swap_remove(oldest);
                }
                known.push(Known { id, name: name.to_owned(), address, position, connected: true, heard });
            }
        }
    }

    /// A follower's connection has ended.
    pub fn follower_gone(&self, id: [u8; 16]) {
        if let Some(known) = self.known().iter_mut().find(|known| known.id == id) {
            known.connected = false;
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Vec<Known>> {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Since a moment, ms.
    fn since(&self, moment: &AtomicU64) -> u64 {
        match moment.load(Ordering::Acquire) {
            NEVER => u64::MAX,
            at => millis(self.began.elapsed()).saturating_sub(at),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(NEVER - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A follower is as stale as the last word that it had everything of; what it is told of and does not hold yet does not
    /// count, however recent.
    #[tokio::test]
    async fn stale_since_it_was_last_level() {
        let node = Node::new(Arc::new(Standing::new(Role::Follower)), "b", None, Duration::from_secs(3600));
        assert_eq!((node.staleness_ms(), node.is_leader_reachable()), (u64::MAX, false));
        node.set_connected(true);
        node.heard(Word::leader(Position(5)));
        assert_eq!((node.staleness_ms(), node.lag_records()), (u64::MAX, 5));
        assert!(node.is_leader_reachable());
        node.committed(Position(3), Term(2));
        assert_eq!((node.staleness_ms(), node.lag_records(), node.term()), (u64::MAX, 2, Term(2)));
        let soon = Instant::now() + Duration::from_secs(60);
        let (waited, ()) =
            tokio::join!(node.wait_for(Position(5), soon), async { node.committed(Position(5), Term(2)) });
        assert!(waited);
        assert!(node.staleness_ms() < 3_600_000 && node.lag_records() == 0);
        assert!(!node.wait_for(Position(6), Instant::now()).await, "not in time");
        node.standing.set(Role::Leader);
        assert_eq!((node.staleness_ms(), node.standing()), (0, "leader"));
        node.standing.tenure().set(1);
        assert!(node.is_suspended() && !node.is_leader() && node.staleness_ms() > 0 && node.standing() == SUSPENDED);
    }

    /// Along a chain ages add up: whoever follows a follower is at least as stale as that one, and the leader is away for both.
    #[test]
    fn ages_add_up_along_a_chain() {
        let follower = || Node::new(Arc::new(Standing::new(Role::Follower)), "b", None, Duration::from_secs(3600));
        let (middle, last) = (follower(), follower());
        for node in [&middle, &last] {
            node.set_connected(true);
            node.committed(Position(5), Term(1));
        }
        last.heard(middle.word(Position(5)));
        assert_eq!(
            (last.staleness_ms(), last.is_leader_reachable()),
            (u64::MAX, false),
            "the middle one knows nothing yet"
        );
        middle.heard(Word { stale_ms: 0, silent_ms: 0, ..Word::leader(Position(9)) });
        last.heard(middle.word(Position(5)));
        assert_eq!(
            (last.lag_records(), last.is_leader_reachable()),
            (4, true),
            "the leader's position, not the middle one's"
        );
        assert_eq!(last.staleness_ms(), u64::MAX, "it is level with a node that is not");
        middle.committed(Position(9), Term(1));
        let word = middle.word(Position(9));
        assert!(word.stale_ms < 1_000_000 && word.silent_ms < 1_000_000 && word.leader == Position(9));
        last.heard(Word { stale_ms: word.stale_ms + 1_000_000, ..word });
        last.committed(Position(9), Term(1));
        // The clock of the test began a moment ago, so a moment before it counts as its beginning.
        assert!(last.staleness_ms() >= middle.staleness_ms());
        middle.set_connected(false);
        last.heard(middle.word(Position(9)));
        assert!(!last.is_leader_reachable(), "the middle one does not reach it");
    }

    /// A follower that comes back is the one that went, and their number is bounded.
    #[test]
    fn followers_are_known_by_their_ids() {
        let node = Node::leader();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        for id in 0..=255u8 {
            node.follower_at([id; 16], "one of many", address, Position(1));
            node.follower_gone([id; 16]);
        }
        assert_eq!(node.followers().len(), FOLLOWERS_MAX);
        node.follower_at([255; 16], "by another name", address, Position(9));
        let all = node.followers();
        let last = all.iter().find(|follower| follower.id == [255; 16]).unwrap();
        assert_eq!((last.name.as_str(), last.position, last.connected), ("by another name", Position(9), true));
        assert_eq!(all.len(), FOLLOWERS_MAX);
    }

    /// Another leader of the same term is told of once, and not again every second; it is one no more when it follows, or when this
    /// node does not lead.
    #[test]
    fn a_rival_is_one_until_somebody_gives_way() {
        let node = Node::leader();
        assert_eq!(node.rival(), None);
        assert_eq!(["b", "b", "b", "c", "c"].map(|name| node.meets_rival(name)), [true, false, false, true, false]);
        assert_eq!(node.rival().map(|rival| rival.name).as_deref(), Some("c"));
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        node.follower_at([1; 16], "another", address, Position(1));
        assert!(node.rival().is_some());
        node.follower_at([2; 16], "c", address, Position(1));
        assert_eq!(node.rival(), None);
        node.meets_rival("c");
        node.standing.set(Role::Fenced);
        assert_eq!(node.rival(), None);
    }
}
