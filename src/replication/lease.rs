//! The lease that says who leads: a claim in etcd or Kubernetes, renewed by whoever leads, taken by a follower when it has run out.
//!
//! [`machine`] decides, and is the only part with rules in it; [`claim`] is what the store of the lease holds, [`register`] how that is
//! read and swapped, in [`etcd`] and [`kubernetes`]. Here is the thread that carries out what was decided ([`Keeper`]), and what a node
//! does before it opens its records ([`begin`]).
//!
//! Without a lease's word a node takes no change: the end of its tenure is set before each renewal is relied on, and whoever takes
//! changes looks at it by itself ([`keyward_storage::replication::Tenure`]).

pub mod claim;
pub mod etcd;
pub mod kubernetes;
pub mod machine;
pub mod register;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use keyward_storage::disk::RealDisk;
use keyward_storage::replication::install::has_records;
use keyward_storage::replication::{NodeId, Role, uptime_ms};
use keyward_storage::{Position, Term};

use self::claim::{Answered, Claim, NODES_MAX, Reached};
use self::machine::{Machine, Me, Obstacle, Step, Terms};
use self::register::{Register, RegisterError, Swapped, Version};
use super::role;
use crate::app::Services;
use crate::config::{self, Ack, Leader, Settings};
use crate::outside::Entropy;

/// How long a request to the store of the lease may take, at least and at most.
const REQUEST_MIN: Duration = Duration::from_millis(400);
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// Between two looks of a node that has no records yet.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a node that stops waits for its followers to have all, and for the lease to be given back.
const HANDOVER_TIME_MAX: Duration = Duration::from_secs(3);

/// A lease, and this process's part in it.
#[derive(Debug)]
pub struct Lease {
    register: Register,
    /// What the operator said of it.
    replication: config::Replication,
    machine: Machine<Version>,
    terms: Terms,
    session: [u8; 16],
    address: Leader,
    answered: Answered,
    led: bool,
}

/// What others see of it.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// Whose it is; `None` where it is nobody's, or not known.
    pub holder: Option<String>,
    /// Whether it is this node's.
    pub held: bool,
    /// How long it still counts, ms: of this node until it has to stop, of another until it may be taken.
    pub left_ms: u64,
    /// Why this node does not take it.
    pub obstacle: Option<String>,
    /// Why the store gave no answer last; `None` where it did.
    pub trouble: Option<String>,
}

/// What the keeper shares with others.
#[derive(Debug)]
pub struct Shared {
    shown: Mutex<Shown>,
    changed: Condvar,
    /// Followers that the lease names, now and in what is on its way: of these alone it counts what they confirm.
    named: Mutex<Vec<NodeId>>,
    forced: AtomicBool,
    stopping: AtomicBool,
    duration: Duration,
    taken: AtomicU64,
    lost: AtomicU64,
    failures: AtomicU64,
}

/// The thread that keeps the lease.
pub struct Keeper {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Shared {
    /// What is known of the lease.
    pub fn shown(&self) -> Shown {
        self.lock().clone()
    }

    /// How often this node took it, lost it or had it run out, and got no answer from its store, since the start.
    pub fn counts(&self) -> (u64, u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.taken), read(&self.lost), read(&self.failures))
    }

    /// An operator wants this node to lead. Blocks until it does, or for the length of a lease and five seconds.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn insist(&self, services: &Services, forced: bool) -> Result<Term, String> {
        let node = &services.node;
        if node.is_leader() {
            return Err("this node leads already".to_owned());
        }
        let shown = self.shown();
        if let Some(holder) = shown.holder.filter(|_| !shown.held && shown.left_ms > 0) {
            return Err(format!(
                "{holder} holds the lease for another {:.1} s; stop it, and it gives the lease back, or wait until it has run out: nobody \
                 is pushed out of a lease, by --force neither",
                shown.left_ms as f64 / 1e3
            ));
        }
        self.forced.store(forced, Ordering::Release);
        let until = Instant::now() + self.duration + Duration::from_secs(5);
        while !node.is_leader() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.forced.store(false, Ordering::Release);
        if node.is_leader() {
            return Ok(node.term());
        }
        let shown = self.shown();
        let why = shown.trouble.or(shown.obstacle).unwrap_or_else(|| "another node took the lease".to_owned());
        Err(format!("this node does not lead: {why}"))
    }

    /// Whether what a follower confirms counts: whoever leads next has to know that it may have more than others.
    pub fn names(&self, follower: NodeId) -> bool {
        self.named().contains(&follower)
    }

    fn named(&self) -> MutexGuard<'_, Vec<NodeId>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node does before it opens its records: it looks whose the lease is. Gives the settings to go on with, which name the leader
/// to follow, and the lease; `None` where the settings want none. Blocks: a node without records waits until it knows whether to make
/// the first ones.
///
/// # Errors
/// A sentence for the operator: the settings cannot be used.
pub fn begin(settings: &Settings, entropy: &Entropy) -> Result<(Settings, Option<Lease>), String> {
    let replication = &settings.replication;
    let Some(register) = Register::open(&replication.lease, &settings.secrets, &settings.data_dir)? else {
        return Ok((settings.clone(), None));
    };
    let Some(address) = replication.lease.advertise.clone() else {
        return Err("replication.advertise is not set".to_owned());
    };
    let kept = role::read(&RealDisk, &settings.data_dir)
        .map_err(|error| format!("cannot read which role this node had: {error}"))?;
    let terms = Terms {
        duration_ms: u64::try_from(replication.lease.duration.as_millis()).unwrap_or(u64::MAX),
        lossy: replication.lease.lossy,
    };
    let mut session = [0; 16];
    entropy.fill(&mut session);
    let answered = match replication.ack {
        Ack::None => Answered::Alone,
        Ack::One => Answered::BySome,
        Ack::All => Answered::ByAll,
    };
    let led = kept.as_ref().is_none_or(|kept| kept.role == Role::Leader) && replication.follow.is_none();
    let mut lease = Lease {
        register,
        replication: replication.clone(),
        machine: Machine::new(terms),
        terms,
        session,
        address,
        answered,
        led,
    };
    let empty = !has_records(&RealDisk, &settings.data_dir).map_err(|error| error.to_string())?;
    let mut told = String::new();
    loop {
        match lease.look(replication.node.as_str(), empty && led) {
            Ok(Some(claim)) if claim.session == session => return Ok((settings.clone(), Some(lease))),
            Ok(Some(claim)) => {
                let mut settings = settings.clone();
                if claim.address != lease.address.to_string() {
                    match followed(replication, &claim) {
                        Ok(leader) => settings.replication.follow = Some(leader),
                        // Who has records answers from them, and its keeper says why.
                        Err(_) if !empty => {}
                        Err(why) => return Err(why),
                    }
                } else if empty && claim.store.is_none() {
                    return Err(format!(
                        "the lease {} is from a first start of this node that did not come to its end; delete it and start again",
                        replication.lease.name
                    ));
                }
                return Ok((settings, Some(lease)));
            }
            Ok(None) if !empty => return Ok((settings.clone(), Some(lease))),
            Ok(None) if replication.follow.is_some() => return Ok((settings.clone(), Some(lease))),
            Ok(None) => {}
            Err(error) => {
                if told != error.0 {
                    tracing::warn!(why = error.0, "what keeps the lease gives no good answer; it is tried again");
                    told = error.0;
                }
                // Who has records can wait for it with its doors open.
                if !empty {
                    return Ok((settings.clone(), Some(lease)));
                }
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Whom the holder of a lease would be followed at. Whoever can write the lease names the address: the token of the nodes goes
/// there, so it is held to what the operator allowed.
///
/// # Errors
/// A sentence for the operator: not there.
pub fn followed(replication: &config::Replication, claim: &Claim) -> Result<Leader, String> {
    let leader = Leader::parse(&claim.address)?;
    let lease = &replication.lease.name;
    if leader.is_exposed(replication.plain) {
        return Err(format!(
            "the lease {lease} names {leader}, which is not encrypted, so others could read along: its holder needs TLS and an https:// \
             address in replication.advertise, or all nodes replication.plain where nobody else is on that network"
        ));
    }
    if !replication.peers.is_empty() && !replication.peers.contains(&leader) {
        return Err(format!(
            "the lease {lease} names {leader}, which is not among replication.peers: add it there, or find out who wrote the lease"
        ));
    }
    Ok(leader)
}

impl Lease {
    /// How long a request may take.
    fn patience(&self) -> Duration {
        (Duration::from_millis(self.terms.duration_ms) / 6).clamp(REQUEST_MIN, REQUEST_MAX)
    }

    /// Whose the lease is. Where it is not there and this node may make the first records, it is this node's from here on.
    fn look(&mut self, name: &str, founds: bool) -> Result<Option<Claim>, RegisterError> {
        let me = Me {
            session: self.session,
            node: [0; 16],
            name: name.to_owned(),
            address: self.address.to_string(),
            store: None,
            reached: Reached::default(),
            answered_to: Reached::default(),
            answered: self.answered,
            followers: Vec::new(),
            leads: founds,
            led: founds,
            follows: None,
            forced: false,
        };
        self.ask(&Step::Read)?;
        if founds && self.machine.claim().is_none() {
            let step = self.machine.next(uptime_ms(), &me);
            self.ask(&step)?;
            if self.machine.claim().is_none() {
                self.ask(&Step::Read)?;
            }
        }
        Ok(self.machine.claim().cloned())
    }

    /// Asks the register, and tells the machine what it answered.
    fn ask(&mut self, step: &Step<Version>) -> Result<(), RegisterError> {
        let patience = self.patience();
        let asked = match step {
            Step::Read => self.register.read(patience).map(|held| self.machine.read(uptime_ms(), held)),
            Step::Swap(expected, claim) => {
                self.register.swap(expected.as_ref(), claim, patience).map(|swapped| match swapped {
                    Swapped::Done(version) => self.machine.swapped(uptime_ms(), version),
                    Swapped::Conflict => self.machine.conflicted(),
                })
            }
            Step::Lead | Step::Yield(_) | Step::Follow(_) | Step::Wait(_) => Ok(()),
        };
        if asked.is_err() {
            self.machine.failed(uptime_ms());
        }
        asked
    }

    /// Ends when the lease leads to another node than `follow`: for a node that waits for its leader before it has records.
    pub async fn moved(mut self, follow: Option<Leader>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looking = tokio::task::spawn_blocking(move || {
                let looked = self.ask(&Step::Read);
                (self, looked)
            });
            let Ok((lease, looked)) = looking.await else { return std::future::pending().await };
            self = lease;
            let now = self.machine.claim().filter(|_| looked.is_ok()).map(|claim| claim.address.clone());
            if now.is_some_and(|now| follow.as_ref().is_none_or(|follow| follow.to_string() != now)) {
                return;
            }
        }
    }

    /// Keeps it from now on, on a thread of its own.
    ///
    /// # Errors
    /// There is no thread.
    pub fn keep(self, services: &Arc<Services>) -> std::io::Result<Keeper> {
        let shared = Arc::new(Shared {
            shown: Mutex::default(),
            changed: Condvar::new(),
            named: Mutex::default(),
            forced: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            duration: Duration::from_millis(self.terms.duration_ms),
            taken: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        });
        services.storage.standing().tenure().set(self.machine.until());
        services.node.set_lease(Arc::clone(&shared));
        let (services, keeping) = (Arc::clone(services), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("keyward-lease".to_owned()).spawn(move || {
            Keeping {
                lease: self,
                services,
                shared: keeping,
                reigns: false,
                suspended: false,
                trouble: None,
                told: None,
            }
            .run();
        })?;
        Ok(Keeper { shared, thread })
    }
}

impl Keeper {
    /// Gives the lease back, when followers have all that this node has and no change is taken any more; or leaves it as it is.
    /// Blocks for some seconds at most.
    pub fn stop(self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.changed.notify_all();
        let _ = self.thread.join();
    }
}

/// The thread's state.
struct Keeping {
    lease: Lease,
    services: Arc<Services>,
    shared: Arc<Shared>,
    /// Whether it has taken changes since it leads.
    reigns: bool,
    suspended: bool,
    trouble: Option<String>,
    told: Option<Obstacle>,
}

impl Keeping {
    fn run(mut self) {
        while !self.shared.stopping.load(Ordering::Acquire) {
            let me = self.me();
            let step = self.lease.machine.next(uptime_ms(), &me);
            match &step {
                Step::Read | Step::Swap(..) => {
                    let asked = self.lease.ask(&step);
                    self.name_followers();
                    self.note_answer(asked);
                }
                Step::Lead => self.lead(),
                Step::Yield(claim) => {
                    self.give_way(claim);
                    return;
                }
                Step::Follow(claim) => match followed(&self.lease.replication, claim) {
                    Ok(leader) => {
                        tracing::info!(holder = claim.name, %leader, "another node holds the lease: this one follows it");
                        self.services.node.ask_for_restart();
                        return;
                    }
                    // It goes on from what it has, until the lease is another's, or may be taken.
                    Err(why) => {
                        self.wait(LOOK_EVERY);
                        let asked = self.lease.ask(&Step::Read);
                        self.note_answer(asked.and(Err(RegisterError(why))));
                    }
                },
                Step::Wait(millis) => self.wait(Duration::from_millis(*millis)),
            }
            self.services.storage.standing().tenure().set(self.lease.machine.until());
            self.show();
        }
        self.hand_over();
    }

    /// Until then, or until it has to stop.
    fn wait(&self, time: Duration) {
        let shown = self.shared.lock();
        let _ = self.shared.changed.wait_timeout(shown, time);
    }

    fn me(&self) -> Me {
        let (node, storage) = (&self.services.node, &self.services.storage);
        let mut followers: Vec<_> =
            node.followers().iter().filter(|follower| follower.connected).map(|follower| follower.id).collect();
        followers.sort_unstable();
        followers.truncate(NODES_MAX);
        // Before it is looked what is confirmed: what one that is not named any more confirms from here on does not count.
        self.shared.named().retain(|follower| followers.contains(follower));
        let reached = Reached { term: node.term().0, position: node.position().0 };
        let acks = storage.acks();
        let answered_to = match acks.wanted() {
            0 => reached,
            _ => Reached { position: acks.confirmed().0, ..reached },
        };
        Me {
            session: self.lease.session,
            node: storage.node_id(),
            name: node.name().to_owned(),
            address: self.lease.address.to_string(),
            store: Some(storage.source().store_id()),
            reached,
            answered_to,
            answered: self.lease.answered,
            followers,
            leads: node.role() == Role::Leader,
            led: self.lease.led,
            follows: node.link().map(|link| link.leader().to_string()),
            forced: self.shared.forced.load(Ordering::Acquire),
        }
    }

    /// What those have confirmed counts that the lease names since its last renewal.
    fn name_followers(&self) {
        let claim = self.lease.machine.claim().filter(|claim| claim.session == self.lease.session);
        let Some(claim) = claim.filter(|_| !self.lease.machine.is_unsure()) else { return };
        self.shared.named().clone_from(&claim.followers);
        let (node, storage) = (&self.services.node, &self.services.storage);
        for follower in node.followers().iter().filter(|follower| claim.followers.contains(&follower.id)) {
            storage.acks().reached(follower.id, follower.position);
        }
    }

    /// The lease is this node's.
    fn lead(&mut self) {
        self.services.storage.standing().tenure().set(self.lease.machine.until());
        self.reigns = false;
        let forced = self.shared.forced.load(Ordering::Acquire);
        match super::lead(&self.services, forced) {
            Ok(term) => {
                self.shared.taken.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(term = term.0, "this node holds the lease, and leads");
            }
            Err(why) => {
                tracing::error!(why, "this node got the lease and cannot lead; it leaves the lease to others");
                self.lease.machine.pause(uptime_ms());
            }
        }
    }

    /// Another node took the lease while this one was not able to renew it.
    fn give_way(&self, claim: &Claim) {
        self.shared.lost.fetch_add(1, Ordering::Relaxed);
        let standing = self.services.storage.standing();
        standing.tenure().set(0);
        let holder = format!("{} at {}", claim.name, claim.address);
        super::end_reign(&self.services, standing.seen().max(Term(claim.reached.term)), &holder);
        self.services.node.ask_for_restart();
    }

    fn note_answer(&mut self, asked: Result<(), RegisterError>) {
        match asked {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!("what keeps the lease answers again");
                }
            }
            Err(RegisterError(why)) => {
                self.shared.failures.fetch_add(1, Ordering::Relaxed);
                if self.trouble.is_none() {
                    tracing::warn!(why, "what keeps the lease gives no good answer; it is tried again");
                }
                self.trouble = Some(why);
            }
        }
    }

    /// Tells what has changed.
    fn show(&mut self) {
        let (now, machine) = (uptime_ms(), &self.lease.machine);
        // From its promotion until the lease says so it takes none, and has lost none.
        self.reigns |= self.services.node.is_leader();
        let suspended = self.reigns && self.services.node.is_suspended();
        if suspended != self.suspended {
            self.suspended = suspended;
            if suspended {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    "the lease has run out and could not be renewed: this node takes no changes until it is"
                );
            } else if self.services.node.is_leader() {
                tracing::warn!("the lease is renewed: this node takes changes again");
            }
        }
        if self.told.as_ref() != machine.obstacle() {
            self.told = machine.obstacle().cloned();
            if let Some(obstacle) = &self.told {
                tracing::warn!(why = %obstacle, "the lease is nobody's, and this node does not take it");
            }
        }
        let claim = machine.claim();
        let held = claim.is_some_and(|claim| claim.session == self.lease.session && !claim.released);
        let left_ms = match held {
            true => machine.until().saturating_sub(now),
            false => machine.others_left(now).unwrap_or(0),
        };
        *self.shared.lock() = Shown {
            holder: claim.filter(|_| left_ms > 0).map(|claim| claim.name.clone()),
            held,
            left_ms,
            obstacle: machine.obstacle().map(ToString::to_string),
            trouble: self.trouble.clone(),
        };
    }

    /// A node that stops: what waits is written and reaches the followers, then changes end, then the lease is another's to take.
    fn hand_over(&mut self) {
        let (node, storage) = (&self.services.node, &self.services.storage);
        if !node.is_leader() {
            return;
        }
        let until = Instant::now() + HANDOVER_TIME_MAX;
        let (tell, told) = sync_channel(1);
        storage.flush(move || {
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(HANDOVER_TIME_MAX);
        storage.standing().tenure().set(0);
        let level = |position: Position| {
            let mut connected = node.followers().into_iter().filter(|follower| follower.connected).peekable();
            connected.peek().is_none() || connected.any(|follower| follower.position >= position)
        };
        while !level(node.position()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let me = self.me();
        if let Some((version, claim)) = self.lease.machine.release(&me) {
            match self.lease.register.swap(Some(&version), &claim, self.lease.patience()) {
                Ok(Swapped::Done(_)) => tracing::info!("the lease is given back: another node may lead at once"),
                Ok(Swapped::Conflict) => {}
                Err(RegisterError(why)) => {
                    tracing::warn!(why, "the lease could not be given back; it runs out by itself")
                }
            }
        }
    }
}

impl std::fmt::Display for Obstacle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Obstacle::OtherStore => {
                write!(f, "the lease is of nodes with other records; name another one with replication.lease_name")
            }
            Obstacle::NoLease => write!(
                f,
                "there is no lease, and the node that led last begins one; where that is lost, `keyward promote --force` does"
            ),
            Obstacle::Behind(Reached { term, position }) => write!(
                f,
                "this node lacks what was answered: the last leader had it up to record {position} in term {term}; a node that has it has to \
                 come back, or `keyward promote --force` gives it up"
            ),
            Obstacle::Worse(name) => {
                write!(
                    f,
                    "{name} has more, and has to take it; `keyward promote --force` gives up what only that one has"
                )
            }
            Obstacle::Missing(count) => write!(
                f,
                "{count} followers that may have more have not been heard; they have to come back, or `keyward promote --force` gives up \
                 what only they have"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token goes where the lease says: in plain text no further than this machine, and, where the operator has named the nodes, to
    /// none but these.
    #[test]
    fn a_lease_leads_nowhere_that_the_operator_did_not_allow() {
        let leader = |text: &str| Leader::parse(text).unwrap();
        let judged = |address: &str, plain: bool, peers: &[&str]| {
            let peers = peers.iter().map(|peer| leader(peer)).collect();
            let replication = config::Replication { plain, peers, ..config::Replication::default() };
            let claim = Claim {
                session: [1; 16],
                name: "a".to_owned(),
                address: address.to_owned(),
                store: None,
                reached: Reached::default(),
                answered: Answered::Alone,
                followers: Vec::new(),
                renewal: 1,
                duration_ms: 10_000,
                released: false,
                candidates: Vec::new(),
            };
            followed(&replication, &claim).map(|leader| leader.to_string())
        };
        let (far, near, safe) = ("http://192.0.2.2:7071", "http://127.0.0.1:7071", "https://keys-1:7071");
        assert!(judged(far, false, &[]).is_err_and(|why| why.contains("not encrypted")));
        for (address, plain) in [(far, true), (near, false), (safe, false)] {
            assert_eq!(judged(address, plain, &[]).as_deref(), Ok(address));
            assert_eq!(judged(address, plain, &[safe, address]).as_deref(), Ok(address));
            assert!(
                judged(address, plain, &["https://keys-9:7071"]).is_err_and(|why| why.contains("replication.peers"))
            );
        }
        assert!(judged("nonsense", true, &[]).is_err());
    }
}
