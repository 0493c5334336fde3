//! Who leads, decided from what the store of the lease says and what this node's own clock counts; no clock, store or node in here.
//!
//! The store is a register that is read and swapped: a claim, and a version to swap it by. A holder counts the length of its lease
//! from *before* it sent a renewal, and stops a fifth of it early; everybody else counts the whole of it from *after* they first saw
//! that renewal. So nobody leads beside a holder that still takes changes, as long as no two clocks differ in rate by a fifth, and no
//! clock is compared with another (Gray and Cheriton, *Leases*, SOSP 1989; Kleppmann, *How to do distributed locking*, 2016, on
//! why the holder's own check comes before each deed). A swap whose answer was lost counts for nothing until the register is read.
//!
//! When a claim has run out, whoever would lead says so in it, with what its log has. The furthest one takes the lease: at once when
//! all followers that may have more have spoken, else after a while, and where answers waited for followers only if the operator
//! allows for loss.

use super::claim::{Answered, Candidate, Claim, NODES_MAX, Reached};
use keyward_storage::replication::NodeId;

/// A holder stops this part of the lease before it ends elsewhere.
const GUARD_PART: u64 = 5;
/// It renews as often as this within one lease.
const RENEWALS: u64 = 6;
/// How often a register is looked at by those who do not hold the lease, at most and at least, ms.
const LOOK_MIN_MS: u64 = 100;
const LOOK_MAX_MS: u64 = 1_000;
/// How long after a failure it is tried again, ms.
const AGAIN_MS: u64 = 250;
/// How long followers that say nothing are waited for, as a part of the lease.
const WINDOW_PART: u64 = 5;

/// What the operator wants.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long a lease lasts, ms.
    pub duration_ms: u64,
    /// Whether a node may lead that may lack what was answered.
    pub lossy: bool,
}

impl Terms {
    /// From the sending of a renewal until its holder stops, ms.
    pub fn safe_ms(self) -> u64 {
        self.duration_ms - self.duration_ms / GUARD_PART
    }

    /// How often a follower looks, ms.
    pub fn look_ms(self) -> u64 {
        (self.duration_ms / 10).clamp(LOOK_MIN_MS, LOOK_MAX_MS)
    }
}

/// This node now.
#[derive(Debug, Clone)]
pub struct Me {
    /// This process.
    pub session: [u8; 16],
    /// This node.
    pub node: NodeId,
    /// Its name for people.
    pub name: String,
    /// Where it answers others.
    pub address: String,
    /// Whose records it has; `None` before the first ones are made.
    pub store: Option<[u8; 16]>,
    /// What its log has.
    pub reached: Reached,
    /// What whoever leads next has to have: all of it, or what followers have confirmed where answers wait for that.
    pub answered_to: Reached,
    /// What else they may miss.
    pub answered: Answered,
    /// Followers that are connected.
    pub followers: Vec<NodeId>,
    /// Whether it is the leader, be its lease over or not.
    pub leads: bool,
    /// Whether it led when it last ran, so that it may begin a register that is not there.
    pub led: bool,
    /// Whom it follows.
    pub follows: Option<String>,
    /// Whether an operator insists that it leads.
    pub forced: bool,
}

/// Why a node does not lead although the lease is nobody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The lease is of nodes with other records.
    OtherStore,
    /// There is no lease, and only the node that led begins one.
    NoLease,
    /// It lacks what its leader had.
    Behind(Reached),
    /// Another candidate has more.
    Worse(String),
    /// So many followers that may have more have not said anything.
    Missing(usize),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step<V> {
    /// Read the register.
    Read,
    /// Put this claim there, in place of that version; `None` where there must be none.
    Swap(Option<V>, Claim),
    /// Lead: the lease is this node's.
    Lead,
    /// Lead no more: it is this one's.
    Yield(Claim),
    /// Follow this one.
    Follow(Claim),
    /// Nothing for so long, ms.
    Wait(u64),
}

/// What the register was seen to hold.
#[derive(Debug)]
struct Seen<V> {
    /// `None` where there is nothing.
    held: Option<(V, Claim)>,
    /// Since when the same renewal has been there, as far as this node knows.
    since: u64,
    /// When it was read last.
    at: u64,
}

/// A swap that was sent.
#[derive(Debug)]
struct Sent {
    claim: Claim,
    at: u64,
    /// Whether this node led when it was.
    leads: bool,
}

/// The state of one node's part in this. Times are ms by its own clock.
#[derive(Debug)]
pub struct Machine<V> {
    terms: Terms,
    seen: Option<Seen<V>>,
    /// Whether the register has to be read before anything is swapped.
    unsure: bool,
    /// A swap that was sent: its session and renewal are known again by these, and when it was sent.
    sent: Option<Sent>,
    /// Until when the lease is this node's by the last renewal that is known to have come about.
    held_until: u64,
    /// Until when this node may take changes: the same, once the lease says that it leads, and in which term. A follower that had not
    /// heard of the term could lead else, and know nothing of what was answered in it.
    until: u64,
    renewed_at: u64,
    /// The number of its own last renewal.
    renewal: u64,
    not_before: u64,
    obstacle: Option<Obstacle>,
}

impl<V: Clone + PartialEq> Machine<V> {
    /// Nothing is known yet.
    pub fn new(terms: Terms) -> Machine<V> {
        Machine {
            terms,
            seen: None,
            unsure: true,
            sent: None,
            held_until: 0,
            until: 0,
            renewed_at: 0,
            renewal: 0,
            not_before: 0,
            obstacle: None,
        }
    }

    /// Until when this node may take changes.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// Whether the register may hold something else than what is known.
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }

    /// What keeps it from leading.
    pub fn obstacle(&self) -> Option<&Obstacle> {
        self.obstacle.as_ref()
    }

    /// What the register was last seen to hold.
    pub fn claim(&self) -> Option<&Claim> {
        self.seen.as_ref()?.held.as_ref().map(|(_, claim)| claim)
    }

    /// How long a claim of another node still counts, ms; `None` where there is none, or it is over.
    pub fn others_left(&self, now: u64) -> Option<u64> {
        let seen = self.seen.as_ref()?;
        let (_, claim) = seen.held.as_ref()?;
        let end = seen.since + claim.duration_ms;
        (!claim.released && now < end).then(|| end - now)
    }

    /// What to do now.
    pub fn next(&mut self, now: u64, me: &Me) -> Step<V> {
        self.obstacle = None;
        if now < self.not_before {
            return Step::Wait(self.not_before - now);
        }
        let Some(seen) = self.seen.as_ref().filter(|_| !self.unsure) else { return Step::Read };
        let (at, since) = (seen.at, seen.since);
        let Some((version, claim)) = seen.held.clone() else { return self.found(now, me, at, since) };
        if claim.session == me.session {
            return self.hold(now, me, &version, &claim);
        }
        if me.leads {
            return Step::Yield(claim);
        }
        let look_at = at + self.terms.look_ms();
        let other_store = claim.store.is_some_and(|store| me.store.is_some_and(|own| own != store));
        if other_store {
            self.obstacle = Some(Obstacle::OtherStore);
        } else if claim.released || now >= since + claim.duration_ms {
            return self.stand(now, me, &version, &claim, at);
        } else if claim.address != me.address && me.follows.as_ref() != Some(&claim.address) {
            return Step::Follow(claim);
        }
        if now >= look_at { Step::Read } else { Step::Wait(look_at - now) }
    }

    /// There is no lease.
    fn found(&mut self, now: u64, me: &Me, at: u64, since: u64) -> Step<V> {
        // Where a register was lost, its holder may still lead by it.
        let waited = me.leads || now >= since + self.terms.duration_ms;
        if waited && (me.leads || me.led || me.forced) {
            let claim = self.own(me);
            return self.send(now, None, claim, me.leads);
        }
        if !me.led {
            self.obstacle = Some(Obstacle::NoLease);
        }
        let look_at = at + self.terms.look_ms();
        if now >= look_at { Step::Read } else { Step::Wait(look_at - now) }
    }

    /// The lease is this node's.
    fn hold(&mut self, now: u64, me: &Me, version: &V, claim: &Claim) -> Step<V> {
        if !me.leads && !claim.released && now < self.held_until {
            return Step::Lead;
        }
        let due = self.renewed_at + self.terms.duration_ms / RENEWALS;
        let new = claim.followers != me.followers || claim.reached.term != me.answered_to.term;
        let speaks = self.until > 0;
        if now >= due || (new && (!speaks || now >= self.renewed_at + LOOK_MIN_MS)) || claim.released {
            let claim = self.own(me);
            return self.send(now, Some(version.clone()), claim, me.leads);
        }
        Step::Wait((due - now).min(LOOK_MIN_MS))
    }

    /// The lease is nobody's, and this node might lead.
    fn stand(&mut self, now: u64, me: &Me, version: &V, claim: &Claim, at: u64) -> Step<V> {
        let seen_end = self
            .seen
            .as_ref()
            .map_or(now, |seen| if claim.released { seen.since } else { seen.since + claim.duration_ms });
        let open_for = now.saturating_sub(seen_end);
        let heard =
            |node: &NodeId| *node == me.node || claim.candidates.iter().any(|candidate| candidate.node == *node);
        let missing = claim.followers.iter().filter(|node| !heard(node)).count();
        let better = claim
            .candidates
            .iter()
            .filter(|other| other.node != me.node)
            .filter(|other| (other.reached, other.node) > (me.reached, me.node))
            .max_by_key(|other| (other.reached, other.node));
        let obstacle = if me.reached < claim.reached {
            Some(Obstacle::Behind(claim.reached))
        } else if let Some(better) = better {
            Some(Obstacle::Worse(better.name.clone()))
        } else if missing > 0 && claim.answered != Answered::ByAll {
            Some(Obstacle::Missing(missing))
        } else {
            None
        };
        let patience = open_for >= 2 * claim.duration_ms;
        let passes = me.forced
            || match &obstacle {
                None => true,
                Some(Obstacle::Missing(_)) if claim.answered == Answered::Alone => {
                    open_for >= claim.duration_ms / WINDOW_PART
                }
                // The better one has died since, and nothing was promised.
                Some(Obstacle::Worse(_)) if claim.answered != Answered::BySome => patience,
                Some(_) => patience && self.terms.lossy,
            };
        if passes {
            let claim = self.own(me);
            return self.send(now, Some(version.clone()), claim, me.leads);
        }
        self.obstacle = obstacle;
        let own = claim.candidates.iter().find(|candidate| candidate.node == me.node);
        if own.is_none_or(|own| own.reached != me.reached) {
            let mut claim = claim.clone();
            claim.candidates.retain(|candidate| candidate.node != me.node);
            if claim.candidates.len() < NODES_MAX {
                claim.candidates.push(Candidate { node: me.node, name: me.name.clone(), reached: me.reached });
                return self.send(now, Some(version.clone()), claim, me.leads);
            }
        }
        let look_at = at + LOOK_MIN_MS;
        if now >= look_at { Step::Read } else { Step::Wait(look_at - now) }
    }

    /// This node's claim.
    fn own(&mut self, me: &Me) -> Claim {
        // Never the same twice, sent or not: a swap that comes late is not taken for the one that followed it.
        self.renewal += 1;
        let mut followers = me.followers.clone();
        followers.truncate(NODES_MAX);
        Claim {
            session: me.session,
            name: me.name.clone(),
            address: me.address.clone(),
            store: me.store,
            reached: if me.leads { me.answered_to } else { me.reached },
            answered: me.answered,
            followers,
            renewal: self.renewal,
            duration_ms: self.terms.duration_ms,
            released: false,
            candidates: Vec::new(),
        }
    }

    /// The claim by which this node gives the lease back; `None` where it does not hold it.
    pub fn release(&mut self, me: &Me) -> Option<(V, Claim)> {
        (self.held_until, self.until) = (0, 0);
        let (version, claim) = self.seen.as_ref()?.held.clone()?;
        (claim.session == me.session && !self.unsure).then(|| (version, Claim { released: true, ..self.own(me) }))
    }

    fn send(&mut self, now: u64, expected: Option<V>, claim: Claim, leads: bool) -> Step<V> {
        self.sent = Some(Sent { claim: claim.clone(), at: now, leads });
        self.unsure = true;
        Step::Swap(expected, claim)
    }

    /// The register was read.
    pub fn read(&mut self, now: u64, held: Option<(V, Claim)>) {
        self.unsure = false;
        // An answer that was lost: what was sent is there, or it is not and never will be, for its version is gone. A register that
        // is still as it was may yet be swapped by a message that is on its way.
        if let Some(sent) = &self.sent {
            let is_sent = held.as_ref().is_some_and(|(_, claim)| *claim == sent.claim);
            let same = self.seen.as_ref().map(|seen| seen.held.as_ref().map(|(version, _)| version));
            let moved = same != Some(held.as_ref().map(|(version, _)| version));
            if (is_sent || moved)
                && let Some(sent) = self.sent.take().filter(|_| is_sent)
            {
                self.took(&sent);
            }
        }
        self.see(now, held);
    }

    /// A swap has come about.
    pub fn swapped(&mut self, now: u64, version: V) {
        self.unsure = false;
        if let Some(sent) = self.sent.take() {
            self.took(&sent);
            self.see(now, Some((version, sent.claim)));
        }
    }

    /// A swap has not come about: something else is there.
    pub fn conflicted(&mut self) {
        (self.unsure, self.sent) = (true, None);
    }

    /// The register gave no answer.
    pub fn failed(&mut self, now: u64) {
        self.unsure = true;
        self.not_before = now + AGAIN_MS;
    }

    /// The lease could not be made use of: it is left alone until it has run out.
    pub fn pause(&mut self, now: u64) {
        (self.held_until, self.until) = (0, 0);
        self.not_before = now + self.terms.duration_ms;
    }

    fn took(&mut self, sent: &Sent) {
        // A candidacy is no lease.
        if sent.claim.candidates.is_empty() && !sent.claim.released {
            self.renewed_at = sent.at;
            self.held_until = sent.at + self.terms.safe_ms();
            self.until = if sent.leads { self.held_until } else { 0 };
        }
    }

    fn see(&mut self, now: u64, held: Option<(V, Claim)>) {
        let renewal = |claim: &Claim| (claim.session, claim.renewal, claim.released);
        let same = |before: &Seen<V>| match (&before.held, &held) {
            (None, None) => true,
            (Some((_, before)), Some((_, after))) => renewal(before) == renewal(after),
            _ => false,
        };
        let since = self.seen.as_ref().filter(|seen| same(seen)).map_or(now, |seen| seen.since);
        self.seen = Some(Seen { held, since, at: now });
    }
}

#[cfg(test)]
mod tests;
