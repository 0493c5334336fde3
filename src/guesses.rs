//! Attempts with unknown root keys: counted by address, slowed, and told to the operator as sums.
//!
//! # What slowing does, and what it does not
//!
//! A request with a valid root key is looked up before anything here is asked, so it is never held back: many honest clients
//! may stand behind one proxy or gateway with somebody who guesses. The price is that whoever does not wait for an answer
//! learns from its absence. So secrets are safe by their length and not by this: a generated root key has 128 random bits, and
//! at a million tries a second for a hundred years the chance to hit one of a thousand is
//! 10^6 * 3.2 * 10^9 s * 10^3 / 3.4 * 10^38 < 10^-19. What slowing does is to make ordinary tools slow, and to keep what they
//! cost small: an address has `FREE` attempts at once and gets one back every `REGAIN_MS`; beyond these the first answer
//! takes `FIRST_DELAY_MS`, each further one twice as long, up to the setting's 4 s. Of one address `PLACES_EACH` answers
//! are held back at a time: 8 / 4 s = 2 attempts a second; what comes beyond that, or beyond `PLACES` of all addresses, is
//! answered at once, as refused as it would be later.
//!
//! Holding back takes a timer, no thread; the connection stays taken, also when its client hangs up, which bounds what one
//! client can have going by the limits of connections.
//!
//! # What is kept
//!
//! A table of `SHARDS` * `EACH_MAX` addresses; IPv6 counts by its /64, which is what a customer of a provider has. Where
//! that is full, the address goes that has the fewest attempts left to answer for; its count stays in the sum of the others.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Attempts of an address that are answered at once.
const FREE: u64 = 10;
/// Time after which an attempt is forgotten, ms.
const REGAIN_MS: u64 = 10_000;
/// The first delay, ms.
const FIRST_DELAY_MS: u64 = 250;
/// Answers held back at one time, of all addresses and of one.
const PLACES: usize = 1024;
const PLACES_EACH: u32 = 8;
/// Parts of the table, each with a lock of its own.
const SHARDS: usize = 16;
/// Addresses in one of them.
const EACH_MAX: usize = 512;
/// Addresses that a report names; the rest is one sum.
pub const NAMED_MAX: usize = 8;

/// An address, or the network that stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// One IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address.
    V6(u64),
    /// Not known.
    Unknown,
}

impl Origin {
    /// What an address counts as.
    pub fn of(address: Option<IpAddr>) -> Origin {
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => Origin::V4(address),
            Some(IpAddr::V6(address)) => {
                Origin::V6(u64::from_be_bytes(address.octets()[..8].try_into().expect("half of sixteen bytes")))
            }
            None => Origin::Unknown,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::V4(address) => write!(f, "{address}"),
            Origin::V6(half) => write!(f, "{}/64", Ipv6Addr::from(u128::from(*half) << 64)),
            Origin::Unknown => f.write_str("unknown"),
        }
    }
}

/// What is known of an address.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// When its attempts will all be forgotten, unix ms.
    clear_at: u64,
    /// Attempts since the last report.
    attempts: u64,
    /// Answers held back now.
    held: u32,
}

/// Attempts since the last report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The addresses with the most, and how many.
    pub named: Vec<(Origin, u64)>,
    /// How many came from others.
    pub others: u64,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Attempts with unknown root keys.
    pub attempts: u64,
    /// Those whose answer was held back.
    pub slowed: u64,
    /// Those beyond the limits of what is held back, answered at once.
    pub unslowed: u64,
    /// Answers held back now.
    pub held: usize,
}

/// The table.
pub struct Guesses {
    delay_max_ms: AtomicU64,
    hasher: RandomState,
    shards: [Mutex<HashMap<Origin, Entry>>; SHARDS],
    /// Attempts of addresses that had to leave the table, since the last report.
    forgotten: AtomicU64,
    attempts: AtomicU64,
    slowed: AtomicU64,
    unslowed: AtomicU64,
    held: AtomicUsize,
}

impl Guesses {
    /// An empty table; answers are held back by no more than this.
    pub fn new(delay_max: Duration) -> Guesses {
        Guesses {
            delay_max_ms: AtomicU64::new(millis(delay_max)),
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            forgotten: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            slowed: AtomicU64::new(0),
            unslowed: AtomicU64::new(0),
            held: AtomicUsize::new(0),
        }
    }

    /// Holds answers back by no more than this from now on.
    pub fn set_delay_max(&self, delay_max: Duration) {
        self.delay_max_ms.store(millis(delay_max), Ordering::Relaxed);
    }

    /// Counts an attempt with an unknown root key at `now` (unix ms), and waits for as long as its answer is to be held back.
    pub async fn slow_down(&self, address: Option<IpAddr>, now: u64) {
        let origin = Origin::of(address);
        if let Some((delay, _place)) = self.attempt(origin, now) {
            tokio::time::sleep(delay).await;
        }
    }

    /// Counts an attempt; for how long its answer is held back, with the place for that. `None` is not at all.
    fn attempt(&self, origin: Origin, now: u64) -> Option<(Duration, Place<'_>)> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let mut shard = self.shard(origin);
        if !shard.contains_key(&origin) && shard.len() >= EACH_MAX {
            self.make_room(&mut shard, now);
        }
        let entry = shard.entry(origin).or_insert(Entry { clear_at: now, attempts: 0, held: 0 });
        entry.attempts += 1;
        // As many attempts as are not forgotten yet, this one included (a leaky bucket, kept as the time at which it is empty).
        entry.clear_at = entry.clear_at.max(now).saturating_add(REGAIN_MS);
        let standing = entry.clear_at.saturating_sub(now).div_ceil(REGAIN_MS);
        let beyond = standing.checked_sub(FREE).filter(|beyond| *beyond > 0)?;
        let doublings = u32::try_from(beyond - 1).unwrap_or(u32::MAX).min(32);
        let delay = (FIRST_DELAY_MS << doublings).min(self.delay_max_ms.load(Ordering::Relaxed));
        // What is beyond the longest delay is not remembered: who stops for a while is soon as good as new.
        entry.clear_at = entry.clear_at.min(now.saturating_add((FREE + 6) * REGAIN_MS));
        if delay == 0 {
            return None;
        }
        if entry.held >= PLACES_EACH || self.held.fetch_add(1, Ordering::AcqRel) >= PLACES {
            if entry.held < PLACES_EACH {
                self.held.fetch_sub(1, Ordering::AcqRel);
            }
            self.unslowed.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        entry.held += 1;
        drop(shard);
        self.slowed.fetch_add(1, Ordering::Relaxed);
        Some((Duration::from_millis(delay), Place { guesses: self, origin }))
    }

    fn shard(&self, origin: Origin) -> MutexGuard<'_, HashMap<Origin, Entry>> {
        let at = self.hasher.hash_one(origin) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets who is forgiven and was reported; where nobody is, who has the least to answer for.
    fn make_room(&self, shard: &mut HashMap<Origin, Entry>, now: u64) {
        shard.retain(|_, entry| entry.clear_at > now || entry.attempts > 0 || entry.held > 0);
        if shard.len() < EACH_MAX {
            return;
        }
        let least = shard.iter().min_by_key(|(_, entry)| (entry.held > 0, entry.clear_at)).map(|(origin, _)| *origin);
        if let Some(entry) = least.and_then(|origin| shard.remove(&origin)) {
            self.forgotten.fetch_add(entry.attempts, Ordering::Relaxed);
        }
    }

    /// Takes what has come since the last report; `None` where that is nothing.
    pub fn take_report(&self, now: u64) -> Option<Report> {
        let mut all = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (origin, entry) in shard.iter_mut().filter(|(_, entry)| entry.attempts > 0) {
                all.push((*origin, std::mem::take(&mut entry.attempts)));
            }
            shard.retain(|_, entry| entry.clear_at > now || entry.held > 0);
        }
        all.sort_unstable_by_key(|(origin, attempts)| (std::cmp::Reverse(*attempts), *origin));
        let mut others = self.forgotten.swap(0, Ordering::Relaxed);
        others += all.iter().skip(NAMED_MAX).map(|(_, attempts)| attempts).sum::<u64>();
        all.truncate(NAMED_MAX);
        (!all.is_empty() || others > 0).then_some(Report { named: all, others })
    }

    /// Numbers for metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            attempts: self.attempts.load(Ordering::Relaxed),
            slowed: self.slowed.load(Ordering::Relaxed),
            unslowed: self.unslowed.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A place among the answers held back.
struct Place<'a> {
    guesses: &'a Guesses,
    origin: Origin,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.guesses.held.fetch_sub(1, Ordering::AcqRel);
        if let Some(entry) = self.guesses.shard(self.origin).get_mut(&self.origin) {
            entry.held = entry.held.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_256_643_000;

    fn v4(last: u8) -> Origin {
        Origin::of(Some(IpAddr::from([203, 0, 113, last])))
    }

    fn delay(guesses: &Guesses, origin: Origin, now: u64) -> u64 {
        guesses.attempt(origin, now).map_or(0, |(delay, _)| u64::try_from(delay.as_millis()).unwrap())
    }

    /// The documented arithmetic: ten at once, then doubling up to the longest, one regained in ten seconds, and everything
    /// forgiven after a quiet while. Other addresses have no part in it.
    #[test]
    fn an_address_is_slowed_by_what_it_sent() {
        let guesses = Guesses::new(Duration::from_secs(4));
        let delays: Vec<u64> = (0..17).map(|_| delay(&guesses, v4(1), NOW)).collect();
        assert_eq!(delays[..10], [0; 10]);
        assert_eq!(delays[10..], [250, 500, 1000, 2000, 4000, 4000, 4000]);
        assert_eq!(delay(&guesses, v4(2), NOW), 0, "another address");
        let later = NOW + 17 * REGAIN_MS;
        assert_eq!(delay(&guesses, v4(1), later), 0, "forgiven");
        let off = Guesses::new(Duration::ZERO);
        assert!((0..100).all(|_| delay(&off, v4(1), NOW) == 0), "switched off");
        assert_eq!(off.counts().attempts, 100);
        // The documented rate of one address: its places, each taken for the longest delay.
        assert_eq!(u64::from(PLACES_EACH) * 1000 / 4000, 2);
    }

    /// No more answers are held back than there are places, of one address and of all; a place is free again afterwards.
    #[test]
    fn what_is_held_back_is_bounded() {
        let guesses = Guesses::new(Duration::from_secs(4));
        for _ in 0..FREE {
            assert_eq!(delay(&guesses, v4(1), NOW), 0);
        }
        let held: Vec<_> = (0..100).filter_map(|_| guesses.attempt(v4(1), NOW)).collect();
        assert_eq!(held.len(), PLACES_EACH as usize);
        assert_eq!(guesses.counts().unslowed, 100 - u64::from(PLACES_EACH));
        drop(held);
        assert_eq!(guesses.counts().held, 0);
        assert!(guesses.attempt(v4(1), NOW).is_some());
        let many: Vec<_> =
            (0..100_000_u64).map(|n| Origin::V6(n % 250)).filter_map(|origin| guesses.attempt(origin, NOW)).collect();
        assert_eq!((many.len(), guesses.counts().held), (PLACES, PLACES));
    }

    /// IPv6 counts by its /64, IPv4 by address, however it is written.
    #[test]
    fn addresses_count_by_what_one_customer_has() {
        let of = |text: &str| Origin::of(Some(text.parse().unwrap()));
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:203.0.113.7"), of("203.0.113.7"));
        assert_eq!(of("2001:db8:1:2::1").to_string(), "2001:db8:1:2::/64");
        assert_eq!(of("203.0.113.7").to_string(), "203.0.113.7");
    }

    /// A flood of addresses takes no more room than there is, and no attempt is lost from the sums.
    #[test]
    fn a_flood_of_addresses_is_a_sum() {
        let guesses = Guesses::new(Duration::from_secs(4));
        let flood = 3 * (SHARDS * EACH_MAX) as u64;
        for _ in 0..20 {
            let _ = guesses.attempt(v4(9), NOW);
        }
        for n in 0..flood {
            let _ = guesses.attempt(Origin::V6(n), NOW + 1);
        }
        let size: usize = guesses.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(size <= SHARDS * EACH_MAX);
        let report = guesses.take_report(NOW + 2).unwrap();
        assert_eq!(report.named.len(), NAMED_MAX);
        assert_eq!(report.named[0], (v4(9), 20), "who insists stays known");
        let named: u64 = report.named.iter().map(|(_, attempts)| attempts).sum();
        assert_eq!(named + report.others, flood + 20);
        assert_eq!(guesses.take_report(NOW + 3), None, "told once");
    }
}
