//! What a node does with changes, as all threads see it.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tenure::Tenure;
use crate::error::Unavailable;
use crate::position::Term;
use crate::replication::NodeId;

/// What a node does with changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes them.
    Leader,
    /// It applies the leader's.
    Follower,
    /// It was the leader until another node was promoted: it takes none any more, and will follow.
    Fenced,
}

impl Role {
    /// Its name for programs: in status, health and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Fenced => "fenced",
        }
    }

    fn number(self) -> u8 {
        match self {
            Role::Leader => 0,
            Role::Follower => 1,
            Role::Fenced => 2,
        }
    }

    /// Why a change is not taken in this role; `None` where it is.
    pub fn refuses(self) -> Option<Unavailable> {
        match self {
            Role::Leader => None,
            Role::Follower => Some(Unavailable::NotLeader),
            Role::Fenced => Some(Unavailable::Fenced),
        }
    }
}

/// A node's role, the newest term it has heard of, and whom it has its log from. The one place for these: whoever asks what a node
/// is asks here.
#[derive(Debug)]
pub struct Standing {
    role: AtomicU8,
    /// Of any node; its own log may be in an older one.
    seen: AtomicU64,
    /// On a follower whose log is known to be the beginning of its leader's: the nodes that the log comes through, the leader first.
    above: Mutex<Option<Vec<NodeId>>>,
    /// How often any of this changed, but for the term.
    changes: AtomicU64,
    /// Until when it may lead.
    tenure: Tenure,
}

impl Standing {
    /// A node that begins in this role, and that nothing but its role keeps from leading.
    pub fn new(role: Role) -> Standing {
        Standing {
            role: AtomicU8::new(role.number()),
            seen: AtomicU64::new(0),
            above: Mutex::default(),
            changes: AtomicU64::new(0),
            tenure: Tenure::default(),
        }
    }

    /// Its role now.
    pub fn role(&self) -> Role {
        match self.role.load(Ordering::Acquire) {
            0 => Role::Leader,
            1 => Role::Follower,
            _ => Role::Fenced,
        }
    }

    /// Why a change is not taken now; `None` where it is.
    pub fn refuses(&self) -> Option<Unavailable> {
        self.role().refuses().or_else(|| self.is_suspended().then_some(Unavailable::Suspended))
    }

    /// Whether it leads by a lease that has run out.
    pub fn is_suspended(&self) -> bool {
        self.role() == Role::Leader && self.tenure.is_over()
    }

    /// Until when it may lead.
    pub fn tenure(&self) -> &Tenure {
        &self.tenure
    }

    /// The newest term it has heard of.
    pub fn seen(&self) -> Term {
        Term(self.seen.load(Ordering::Acquire))
    }

    /// Notes a term that some node is in.
    pub fn see(&self, term: Term) {
        self.seen.fetch_max(term.0, Ordering::AcqRel);
    }

    /// Takes no changes any more, since another node leads in this term. Whether it took them until now.
    pub fn fence(&self, term: Term) -> bool {
        self.see(term);
        let (from, to) = (Role::Leader.number(), Role::Fenced.number());
        let fenced = self.role.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if fenced {
            self.changed();
        }
        fenced
    }

    /// Takes a role: before anything is handed in, or on the writer's thread.
    pub fn set(&self, role: Role) {
        self.role.store(role.number(), Ordering::Release);
        self.changed();
    }

    /// The node that is followed has said that this node's log is the beginning of its own, and which nodes it comes through, the
    /// leader first, itself last.
    pub fn welcomed(&self, above: &[NodeId]) {
        let mut known = self.above();
        if known.as_deref() != Some(above) {
            *known = Some(above.to_vec());
            self.changed();
        }
    }

    /// This node's log is known to be another one than its leader's: nobody may follow it.
    pub fn parted(&self) {
        if self.above().take().is_some() {
            self.changed();
        }
    }

    /// Through which nodes the log comes here, the leader first; `None` where it is not the leader's as far as is known, and so
    /// nobody can follow this node.
    pub fn serves(&self) -> Option<Vec<NodeId>> {
        match self.role() {
            Role::Leader => Some(Vec::new()),
            Role::Follower => self.above().clone(),
            Role::Fenced => None,
        }
    }

    /// A number that is another one after each change of role, and of the nodes that the log comes through: whoever follows this node
    /// begins anew then.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    fn above(&self) -> MutexGuard<'_, Option<Vec<NodeId>>> {
        // Nothing panics while it is held.
        self.above.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
