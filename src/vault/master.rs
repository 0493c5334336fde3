//! Master keys: what the operator configures, and no file of the data directory holds.
//!
//! Several may be configured while they are exchanged: the first wraps, all of them unwrap. Which one wrapped a data key
//! is told by a fingerprint.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keyward_storage::records::vault::Fingerprint;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::crypt::{Cipher, KEY_BYTES, SymmetricKey};
use crate::outside::Entropy;

/// Master keys that may be configured at one time: an exchange needs two.
pub const MASTER_KEYS_MAX: usize = 8;

/// A new master key as text, to be kept by the operator.
pub fn generate(entropy: &Entropy) -> Zeroizing<String> {
    Zeroizing::new(STANDARD.encode(SymmetricKey::draw(entropy).expose()))
}

/// A master key, prepared.
#[derive(Debug)]
pub struct MasterKey {
    /// What names it.
    pub fingerprint: Fingerprint,
    /// What it wraps and unwraps with.
    pub cipher: Cipher,
}

impl MasterKey {
    fn new(key: &SymmetricKey) -> MasterKey {
        MasterKey { fingerprint: fingerprint(key), cipher: Cipher::new(key) }
    }
}

/// The configured master keys, the current one first. None at all is legal: then nothing can be recovered.
#[derive(Debug, Default)]
pub struct MasterKeys(Vec<MasterKey>);

/// What is wrong with a text of master keys, without showing any of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMasterKeys {
    /// No key is in it.
    #[error("it holds no master key; `keyward vault generate-key` prints one")]
    Empty,
    /// A line is none.
    #[error(
        "line {line} is no master key: {KEY_BYTES} bytes in base64 are wanted, {} characters, as `keyward vault \
         generate-key` prints them; lines that begin with # are passed over",
        KEY_BYTES.div_ceil(3) * 4
    )]
    Line {
        /// From 1 on.
        line: usize,
    },
    /// A line repeats another one.
    #[error("line {line} holds a master key that stands further up already")]
    Repeated {
        /// From 1 on.
        line: usize,
    },
    /// Too many.
    #[error(
        "it holds more than {MASTER_KEYS_MAX} master keys; take out those that `keyward vault status` calls removable"
    )]
    TooMany,
}

impl MasterKeys {
    /// Reads a text of one key a line, the current one first. Empty lines and lines that begin with `#` are passed over; a
    /// comma ends a line as well, since an environment variable has but one.
    ///
    /// # Errors
    /// The first line that is none, a key that stands there twice, or a wrong number of them.
    pub fn read(text: &str) -> Result<MasterKeys, BadMasterKeys> {
        let mut keys: Vec<MasterKey> = Vec::new();
        for (at, line) in text.split(['\n', ',']).enumerate() {
            let line_no = at + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = Zeroizing::new(STANDARD.decode(line).map_err(|_| BadMasterKeys::Line { line: line_no })?);
            let key = SymmetricKey::from_bytes(&bytes).ok_or(BadMasterKeys::Line { line: line_no })?;
            let key = MasterKey::new(&key);
            if keys.iter().any(|known| known.fingerprint == key.fingerprint) {
                return Err(BadMasterKeys::Repeated { line: line_no });
            }
            if keys.len() == MASTER_KEYS_MAX {
                return Err(BadMasterKeys::TooMany);
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(BadMasterKeys::Empty) } else { Ok(MasterKeys(keys)) }
    }

    /// The one that wraps. `None` where none is configured.
    pub fn current(&self) -> Option<&MasterKey> {
        self.0.first()
    }

    /// The one with this fingerprint, if it is configured.
    pub fn find(&self, fingerprint: &Fingerprint) -> Option<&MasterKey> {
        self.0.iter().find(|key| key.fingerprint == *fingerprint)
    }

    /// All of them, the current one first.
    pub fn all(&self) -> &[MasterKey] {
        &self.0
    }
}

/// What names a master key: eight bytes of a digest of its 32 random ones, which tell nothing about them.
fn fingerprint(key: &SymmetricKey) -> Fingerprint {
    let digest = Sha256::new().chain_update(b"keyward master key\0").chain_update(key.expose()).finalize();
    digest[..8].try_into().expect("a digest has 32 bytes")
}

/// A fingerprint as people see it.
pub struct Shown<'f>(pub &'f Fingerprint);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("mk_")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(byte: u8) -> String {
        STANDARD.encode([byte; KEY_BYTES])
    }

    /// EXT-6: one key or several, the current one first; fingerprints are frozen, since data keys name them.
    #[test]
    fn the_first_key_wraps_and_all_unwrap() {
        let keys = MasterKeys::read(&format!("# since May\n{}\r\n\n  {} \n", text(7), text(8))).unwrap();
        assert_eq!(
            keys.current().map(|key| Shown(&key.fingerprint).to_string()).as_deref(),
            Some("mk_057f40e4419e46d3")
        );
        assert_eq!(keys.all().len(), 2);
        let second = keys.all()[1].fingerprint;
        assert!(keys.find(&second).is_some() && keys.find(&[0; 8]).is_none());
        assert_eq!(MasterKeys::read(&format!("{},{}", text(7), text(8))).unwrap().all().len(), 2);
        assert!(MasterKeys::default().current().is_none());
        let generated = generate(&Entropy::seeded(1));
        assert_eq!(MasterKeys::read(&generated).unwrap().all().len(), 1);
    }

    /// EXT-6: what is no key is refused by its line, and never shown.
    #[test]
    fn wrong_lines_are_named_and_not_shown() {
        let short = STANDARD.encode([7; 31]);
        for (wrong, why) in [
            (String::new(), BadMasterKeys::Empty),
            ("# nothing\n".to_owned(), BadMasterKeys::Empty),
            (format!("{}\n{short}", text(1)), BadMasterKeys::Line { line: 2 }),
            ("secret".to_owned(), BadMasterKeys::Line { line: 1 }),
            (format!("{0}\n{0}", text(1)), BadMasterKeys::Repeated { line: 2 }),
            ((0..9).map(|byte| text(byte) + "\n").collect(), BadMasterKeys::TooMany),
        ] {
            let refusal = MasterKeys::read(&wrong).unwrap_err();
            assert!(!refusal.to_string().contains(&short) && !refusal.to_string().contains("secret"));
            assert_eq!(refusal, why);
        }
    }
}
