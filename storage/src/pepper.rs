//! Peppers: secrets from outside of the data directory that stored hashes of keys are keyed with.
//!
//! A key is found by its digest, and a digest alone confirms a guess: whoever steals a backup can try what the owner of a key
//! may have chosen. With a pepper what is stored is the HMAC-SHA-256 (RFC 2104) of the digest under it, which says nothing to
//! one who has not got the pepper.
//!
//! HMAC cannot be undone, but it can be done again. So a pepper is exchanged for another by an HMAC under the new one over what
//! is stored: peppers form a chain, a hash has a *stage*, the number of links it went through, and no plaintext is needed to
//! take any key a stage further. The row of the chain holds every pepper but the last, each encrypted under the one behind it.
//! So the last one is all that has to be kept outside, and it protects all hashes, those of older stages too.
//!
//! Hashes are at one stage, or, while a switch goes on, at the last two. They only ever go forward, each with its row in one
//! transaction. Therefore **the older stage is looked at first**: what has left it by then is at the newer one already.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, Guard};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::error::{BadRow, ReadError};
use crate::records::key::{KeyDigest, KeyHash};
use crate::records::pepper::{self as rows, Fingerprint, Kept, PepperLink, PepperRow};
use crate::records::{PEPPER, Row};
use crate::store::Read;

/// Bytes of a pepper.
pub const PEPPER_BYTES: usize = 32;
/// Links a chain may have: each costs a lookup two more blocks of SHA-256.
pub const CHAIN_MAX: usize = 16;

/// A pepper.
#[derive(Clone)]
pub struct Pepper {
    /// What names it.
    pub fingerprint: Fingerprint,
    secret: Zeroizing<[u8; PEPPER_BYTES]>,
    /// HMAC under it, its key taken in.
    keyed: Hmac<Sha256>,
}

impl Pepper {
    /// Prepares a pepper.
    pub fn new(secret: Zeroizing<[u8; PEPPER_BYTES]>) -> Pepper {
        let keyed = Hmac::new_from_slice(&*secret).expect("HMAC takes keys of any length");
        Pepper { fingerprint: fingerprint(&secret), secret, keyed }
    }

    /// The hash of the next stage.
    fn over(&self, hash: &KeyHash) -> KeyHash {
        self.keyed.clone().chain_update(hash).finalize().into_bytes().into()
    }

    /// Encrypts another pepper, or decrypts it: the exclusive or with what only this one can tell of the other's fingerprint.
    /// A key stream of a pseudo-random function, used for one text alone. Hashes are 32 bytes and this input is longer, so it
    /// is never one of theirs.
    fn cover(&self, fingerprint: &Fingerprint, secret: &[u8; PEPPER_BYTES]) -> Zeroizing<[u8; PEPPER_BYTES]> {
        let stream = self.keyed.clone().chain_update(b"keyward pepper behind another 1\0").chain_update(fingerprint);
        let mut covered: Zeroizing<[u8; PEPPER_BYTES]> = Zeroizing::new(stream.finalize().into_bytes().into());
        covered.iter_mut().zip(secret).for_each(|(byte, other)| *byte ^= other);
        covered
    }

    /// Whether it is the pepper of a link. Both are secrets or made of one: every byte is looked at.
    fn is_of(&self, fingerprint: &Fingerprint) -> bool {
        self.fingerprint.iter().zip(fingerprint).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({})", Shown(&self.fingerprint))
    }
}

/// What names a pepper: eight bytes of a digest of its 32 random ones, which tell nothing about them.
fn fingerprint(secret: &[u8; PEPPER_BYTES]) -> Fingerprint {
    let digest = Sha256::new().chain_update(b"keyward pepper\0").chain_update(secret).finalize();
    digest[..8].try_into().expect("a digest has 32 bytes")
}

/// A fingerprint as people see it.
pub struct Shown<'f>(pub &'f Fingerprint);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pp_")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A pepper that hashes of this store are keyed with is not there. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PepperMissing {
    /// None is configured, or others are.
    #[error(
        "its keys are stored under the pepper {}, and {}; name the file that holds it with --pepper-file or \
         KEYWARD_PEPPER_FILE, or give it in KEYWARD_PEPPER: without it no key would be found, so nothing is served",
        Shown(.wanted),
        .configured.first().map_or_else(
            || "no pepper is configured".to_owned(),
            |first| format!("the configured one is {}", Shown(first))
        )
    )]
    NotConfigured {
        /// The one that is missing.
        wanted: Fingerprint,
        /// Those that are there.
        configured: Vec<Fingerprint>,
    },
    /// A link does not decrypt, although the one behind it is there.
    #[error("the pepper {} in the store's table of peppers is damaged; restore a backup", Shown(.0))]
    Damaged(Fingerprint),
}

/// The links of a store, and the stages that its hashes are at.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    links: Vec<Pepper>,
    /// The stage hashes may be at that have not been taken to the last one; the last one itself while there are none.
    oldest: usize,
}

/// The hashes a key with some digest can be stored under: the one of the older stage first, where there may be such.
pub struct Hashes {
    older: Option<(u8, KeyHash)>,
    newest: (u8, KeyHash),
}

impl Hashes {
    /// With their stages, in the order in which they are to be looked for.
    pub fn iter(&self) -> impl Iterator<Item = &(u8, KeyHash)> {
        self.older.iter().chain([&self.newest])
    }

    /// The one that a new key gets, with its stage.
    pub fn newest(&self) -> (u8, KeyHash) {
        self.newest
    }
}

fn stage(links: usize) -> u8 {
    u8::try_from(links).expect("chains are short")
}

impl Chain {
    /// The chain that a row tells of, from the configured peppers.
    ///
    /// # Errors
    /// One is missing.
    fn of(row: &PepperRow, configured: &[Pepper]) -> Result<Chain, PepperMissing> {
        let mut links: Vec<Pepper> = Vec::with_capacity(row.links.len());
        for PepperLink { fingerprint, kept } in row.links.iter().rev() {
            let found = configured.iter().find(|pepper| pepper.is_of(fingerprint)).cloned();
            let pepper = match (found, kept, links.last()) {
                (Some(pepper), ..) => pepper,
                (None, Some(kept), Some(behind)) => Pepper::new(behind.cover(fingerprint, &kept.0)),
                (None, Some(kept), None) => Pepper::new(Zeroizing::new(kept.0)),
                (None, None, _) => {
                    let configured = configured.iter().map(|pepper| pepper.fingerprint).collect();
                    return Err(PepperMissing::NotConfigured { wanted: *fingerprint, configured });
                }
            };
            if !pepper.is_of(fingerprint) {
                return Err(PepperMissing::Damaged(*fingerprint));
            }
            links.push(pepper);
        }
        links.reverse();
        let oldest = links.len().saturating_sub(usize::from(row.ended_at.is_none()));
        Ok(Chain { links, oldest })
    }

    fn is_of(&self, row: &PepperRow) -> bool {
        self.links.len() == row.links.len()
            && self.links.iter().zip(&row.links).all(|(have, want)| have.is_of(&want.fingerprint))
            && self.is_switching() == row.ended_at.is_none()
    }

    /// Whether some hashes may not be at the last stage yet.
    pub fn is_switching(&self) -> bool {
        self.oldest < self.links.len()
    }

    /// The stage that hashes are taken to.
    pub fn newest_stage(&self) -> u8 {
        stage(self.links.len())
    }

    /// What a digest is stored under.
    pub fn hashes(&self, digest: &KeyDigest) -> Hashes {
        let mut hash = digest.0;
        let mut older = None;
        for (at, pepper) in self.links.iter().enumerate() {
            if at == self.oldest {
                older = Some((stage(at), hash));
            }
            hash = pepper.over(&hash);
        }
        Hashes { older, newest: (stage(self.links.len()), hash) }
    }

    /// The hash of the last stage, of one that is at the one before.
    pub fn next(&self, hash: &KeyHash) -> Option<KeyHash> {
        self.links.last().filter(|_| self.is_switching()).map(|last| last.over(hash))
    }

    /// The rows' form, every link but the last encrypted under the one behind it.
    fn rows(links: &[Pepper]) -> Vec<PepperLink> {
        let behind = links.iter().skip(1).map(Some).chain([None]);
        let row = |(link, behind): (&Pepper, Option<&Pepper>)| PepperLink {
            fingerprint: link.fingerprint,
            kept: behind.map(|behind| Kept(*behind.cover(&link.fingerprint, &link.secret))),
        };
        links.iter().zip(behind).map(row).collect()
    }
}

/// The peppers of a process: those that are configured, and the chain of the store.
#[derive(Debug)]
pub struct Peppers {
    /// The first one is the one to switch to.
    configured: Box<[Pepper]>,
    /// Whether the chain has a link: one look at a word that never changes is all that a store without pepper pays.
    any: AtomicBool,
    chain: ArcSwap<Chain>,
}

impl Peppers {
    /// The peppers that are configured, the one to use first.
    pub fn new(configured: Vec<Pepper>) -> Peppers {
        let (any, chain) = (AtomicBool::new(false), ArcSwap::default());
        Peppers { configured: configured.into(), any, chain }
    }

    /// The configured ones.
    pub fn configured(&self) -> &[Pepper] {
        &self.configured
    }

    /// Whether any hash is keyed.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The chain as it is published.
    pub fn chain(&self) -> Guard<Arc<Chain>> {
        self.chain.load()
    }

    /// Whether this is still the chain. What was looked for in vain under an older one may be there under the new one.
    pub(crate) fn is_now(&self, chain: &Arc<Chain>) -> bool {
        Arc::ptr_eq(&self.chain.load(), chain)
    }

    /// Takes over what was committed, before any hash of it is found.
    ///
    /// # Errors
    /// A pepper is missing.
    pub(crate) fn publish(&self, row: Option<&PepperRow>) -> Result<(), PepperMissing> {
        let chain = row.map_or_else(|| Ok(Chain::default()), |row| Chain::of(row, &self.configured))?;
        let any = !chain.links.is_empty();
        self.chain.store(Arc::new(chain));
        self.any.store(any, Ordering::Release);
        Ok(())
    }

    /// The chain as a snapshot or a transaction sees it.
    ///
    /// # Errors
    /// What reading says.
    pub(crate) fn chain_in(&self, read: &(impl Read + ?Sized)) -> Result<Arc<Chain>, ReadError> {
        // Without a configured pepper nothing can be switched on in this process.
        if self.configured.is_empty() && !self.any() {
            return Ok(self.chain.load_full());
        }
        let Some(row) = rows::get(read)? else { return Ok(Arc::default()) };
        let now = self.chain.load_full();
        if now.is_of(&row) {
            return Ok(now);
        }
        // Committed and not published yet, or older than what is.
        let missing = |_| ReadError::Row { table: PEPPER, cause: BadRow::BadValue("a pepper this process has not") };
        Chain::of(&row, &self.configured).map(Arc::new).map_err(missing)
    }

    /// The row of a switch to the first configured pepper, which begins or goes on; `None` where it is in use already and
    /// nothing is left to do.
    ///
    /// # Errors
    /// What hinders it, in words.
    pub(crate) fn begin(&self, row: Option<PepperRow>, now: u64) -> Result<Option<PepperRow>, NoSwitch> {
        let first = self.configured.first().ok_or(NoSwitch::NotConfigured)?;
        let Some(row) = row else {
            let links = Chain::rows(std::slice::from_ref(first));
            return Ok(Some(PepperRow { links, begun_at: now, ended_at: None, cleared_at: None }));
        };
        let last = row.links.last().map(|link| (link.fingerprint, link.kept.is_some()));
        match last {
            Some((fingerprint, false)) if first.is_of(&fingerprint) => {
                return Ok(Some(row).filter(|row| row.ended_at.is_none()));
            }
            Some((fingerprint, _)) if row.ended_at.is_none() => return Err(NoSwitch::AnotherGoesOn(fingerprint)),
            _ => {}
        }
        if row.links.iter().any(|link| first.is_of(&link.fingerprint)) {
            return Err(NoSwitch::UsedBefore(first.fingerprint));
        }
        if row.links.len() == CHAIN_MAX {
            return Err(NoSwitch::TooMany);
        }
        let mut links = Chain::of(&row, &self.configured).map_err(NoSwitch::Missing)?.links;
        links.push(first.clone());
        Ok(Some(PepperRow { links: Chain::rows(&links), begun_at: now, ended_at: None, cleared_at: None }))
    }

    /// The row of a store that needs no pepper from outside any more: the last one stands in it.
    ///
    /// # Errors
    /// What hinders it, in words.
    pub(crate) fn disclose(&self, row: Option<PepperRow>) -> Result<Option<PepperRow>, NoSwitch> {
        let Some(mut row) = row else { return Ok(None) };
        let chain = Chain::of(&row, &self.configured).map_err(NoSwitch::Missing)?;
        let (Some(link), Some(pepper)) = (row.links.last_mut(), chain.links.last()) else { return Ok(None) };
        if link.kept.is_some() {
            return Ok(None);
        }
        if row.ended_at.is_none() {
            return Err(NoSwitch::AnotherGoesOn(link.fingerprint));
        }
        link.kept = Some(Kept(*pepper.secret));
        Ok(Some(row))
    }
}

/// Why there is no switch. The text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSwitch {
    /// Nothing to switch to.
    #[error(
        "no pepper is configured; `keyward pepper generate` prints one, and --pepper-file, KEYWARD_PEPPER_FILE or \
         KEYWARD_PEPPER gives it to the server"
    )]
    NotConfigured,
    /// A switch to another pepper has not ended.
    #[error(
        "the switch to the pepper {} has not ended; make it the first configured one, restart the server and run `keyward \
         pepper enable` to go on with it",
        Shown(.0)
    )]
    AnotherGoesOn(Fingerprint),
    /// It was in the chain already.
    #[error(
        "the pepper {} was in use before, and was exchanged or has been in the data directory since; make a new one with \
         `keyward pepper generate`",
        Shown(.0)
    )]
    UsedBefore(Fingerprint),
    /// The chain is as long as it may become.
    #[error("the pepper was exchanged {CHAIN_MAX} times, which is as often as can be")]
    TooMany,
    /// What is in use is not there.
    #[error(transparent)]
    Missing(PepperMissing),
}

/// What can be read and knows the peppers, so that keys can be found in it by what is presented.
pub trait Peppered: Read {
    /// The peppers of the process.
    fn peppers(&self) -> &Peppers;
}

/// The row, checked against what is configured: how a store begins.
///
/// # Errors
/// A pepper is missing, or the row cannot be read.
pub(crate) fn load(peppers: &Peppers, read: &impl Read) -> Result<Option<PepperRow>, crate::OpenError> {
    debug_assert_eq!(PepperRow::TABLE, PEPPER);
    let row = rows::get(read)?;
    peppers.publish(row.as_ref())?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;

    fn pepper(byte: u8) -> Pepper {
        Pepper::new(Zeroizing::new([byte; PEPPER_BYTES]))
    }

    fn ended(row: PepperRow) -> PepperRow {
        PepperRow { ended_at: Some(2), ..row }
    }

    /// Frozen: what is stored on users' disks is made like this. The HMAC is the one of RFC 4231 in its construction; the
    /// bytes were computed with Python's `hmac`.
    #[test]
    fn hashes_and_links_are_frozen() {
        let peppers = Peppers::new(vec![pepper(1)]);
        let first = peppers.begin(None, 1).unwrap().unwrap();
        assert_eq!(hex(&first.links[0].fingerprint), FINGERPRINT_1);
        let digest = KeyDigest([0xaa; 32]);
        let chain = Chain::of(&ended(first.clone()), peppers.configured()).unwrap();
        assert_eq!(hex(&chain.hashes(&digest).newest().1), STAGE_1);
        let peppers = Peppers::new(vec![pepper(2), pepper(1)]);
        let second = peppers.begin(Some(ended(first)), 3).unwrap().unwrap();
        assert_eq!(hex(&second.links[0].kept.unwrap().0), COVERED_1);
        let chain = Chain::of(&ended(second), peppers.configured()).unwrap();
        assert_eq!(hex(&chain.hashes(&digest).newest().1), STAGE_2);
    }

    const FINGERPRINT_1: &str = "fe7d1cfe91574a46";
    const STAGE_1: &str = "f759eca5d9a2890a09a3843045656727181397b0d504b0c04b0d26059c34dabf";
    const COVERED_1: &str = "e679922cf41cd229ae7ec979a2026a4b9b98dd25dadb9cfe32ce91f9f76f5160";
    const STAGE_2: &str = "14107d606b6e32d93286b08a34f0355a6ed3fb2a135fb1555ec6bc8c4a9b702d";

    /// After an exchange the last pepper alone opens the whole chain; none opens it without that one; a disclosed one is
    /// needed no more, and never comes back.
    #[test]
    fn the_last_pepper_is_all_it_takes() {
        let both = Peppers::new(vec![pepper(2), pepper(1)]);
        let first = ended(Peppers::new(vec![pepper(1)]).begin(None, 1).unwrap().unwrap());
        let second = both.begin(Some(first.clone()), 3).unwrap().unwrap();
        let switching = Chain::of(&second, &[pepper(2)]).unwrap();
        let digest = KeyDigest([7; 32]);
        let hashes: Vec<_> = switching.hashes(&digest).iter().copied().collect();
        assert_eq!(hashes.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(), [1, 2], "the older stage first");
        assert_eq!(switching.next(&hashes[0].1), Some(hashes[1].1));
        let missing =
            PepperMissing::NotConfigured { wanted: pepper(2).fingerprint, configured: vec![pepper(1).fingerprint] };
        assert_eq!(Chain::of(&second, &[pepper(1)]).unwrap_err(), missing);
        assert!(missing.to_string().contains("--pepper-file"));

        assert_eq!(both.begin(Some(second.clone()), 4).unwrap().unwrap(), second, "it goes on");
        let other = Peppers::new(vec![pepper(3), pepper(2)]);
        assert_eq!(other.begin(Some(second.clone()), 4), Err(NoSwitch::AnotherGoesOn(pepper(2).fingerprint)));
        let second = ended(second);
        assert_eq!(both.begin(Some(second.clone()), 4), Ok(None), "there is nothing to do");
        let back = Peppers::new(vec![pepper(1), pepper(2)]);
        assert_eq!(back.begin(Some(second.clone()), 4), Err(NoSwitch::UsedBefore(pepper(1).fingerprint)));
        assert_eq!(Peppers::new(Vec::new()).begin(None, 1), Err(NoSwitch::NotConfigured));

        let open = both.disclose(Some(second)).unwrap().unwrap();
        let chain = Chain::of(&open, &[]).unwrap();
        assert_eq!(chain.hashes(&digest).newest(), hashes[1]);
        assert_eq!(both.begin(Some(open.clone()), 4), Err(NoSwitch::UsedBefore(pepper(2).fingerprint)));
        let third = other.begin(Some(open.clone()), 5).unwrap().unwrap();
        assert!(third.links[1].kept.is_some_and(|kept| kept.0 != [2; 32]), "it is covered again");
        assert_eq!(Chain::of(&ended(third), &[pepper(3)]).unwrap().links.len(), 3);
        let mut damaged = open;
        damaged.links[0].kept = Some(Kept([9; 32]));
        assert_eq!(Chain::of(&damaged, &[]).unwrap_err(), PepperMissing::Damaged(pepper(1).fingerprint));
    }

    /// No debug text tells a secret.
    #[test]
    fn peppers_are_never_printed() {
        let peppers = Peppers::new(vec![pepper(0x5a)]);
        let row = peppers.begin(None, 1).unwrap();
        peppers.publish(row.as_ref()).unwrap();
        let told = format!("{peppers:?}");
        assert!(told.contains("pp_") && !told.contains("90, 90") && !told.contains("5a5a"), "{told}");
        assert!(!format!("{:?}", KeyDigest([0x5a; 32])).contains("90"));
    }
}
