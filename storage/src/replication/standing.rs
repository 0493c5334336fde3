//! What a node does with changes, as all threads see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::tenure::Tenure;
use crate::error::Unavailable;
use crate::position::Term;

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

/// A role that threads read while another one changes it, without a lock.
#[derive(Debug)]
pub struct RoleCell(AtomicU8);

impl RoleCell {
    /// A node that begins in this role.
    pub fn new(role: Role) -> RoleCell {
        RoleCell(AtomicU8::new(role.number()))
    }

    /// The role now.
    pub fn get(&self) -> Role {
        match self.0.load(Ordering::Acquire) {
            0 => Role::Leader,
            1 => Role::Follower,
            _ => Role::Fenced,
        }
    }

    /// Takes another role.
    pub fn set(&self, role: Role) {
        self.0.store(role.number(), Ordering::Release);
    }

    /// Takes another role where this is the present one; whether it was.
    pub fn replace(&self, from: Role, to: Role) -> bool {
        self.0.compare_exchange(from.number(), to.number(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// A node's role, and the newest term it has heard of.
#[derive(Debug)]
pub struct Standing {
    role: RoleCell,
    /// Of any node; its own log may be in an older one.
    seen: AtomicU64,
    /// Until when it may lead.
    tenure: Arc<Tenure>,
}

impl Standing {
    /// A node that begins in this role, and may lead for as long as `tenure` says.
    pub fn new(role: Role, tenure: Arc<Tenure>) -> Standing {
        Standing { role: RoleCell::new(role), seen: AtomicU64::new(0), tenure }
    }

    /// Its role now.
    pub fn role(&self) -> Role {
        self.role.get()
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
    pub fn tenure(&self) -> &Arc<Tenure> {
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
        self.role.replace(Role::Leader, Role::Fenced)
    }

    /// Takes a role: before anything is handed in, or on the writer's thread.
    pub fn set(&self, role: Role) {
        self.role.set(role);
    }
}
