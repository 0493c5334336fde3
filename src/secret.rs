//! Key plaintexts: how they are minted and what is kept of them.

use keyward_storage::records::key::KeyDigest;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::outside::Entropy;

/// Random bytes of a key whose request and API name no length (KEYFMT-3).
pub const DEFAULT_BYTES: usize = 16;
/// Prefix of generated root keys (KEYFMT-8).
pub const ROOT_KEY_PREFIX: &str = "unkey";
/// Characters of the body that are kept for people (KEYFMT-5).
pub const START_CHARS: usize = 4;

/// A new key: its plaintext, shown once, and what is stored of it.
pub struct Minted {
    /// `[<prefix>_]<base58 of the random bytes>` (KEYFMT-1, KEYFMT-2).
    pub plaintext: Zeroizing<String>,
    /// See [`digest`].
    pub digest: KeyDigest,
    /// The prefix and the first characters of the body.
    pub start: String,
    /// The last four characters.
    pub end: String,
}

/// Mints a key of `bytes` random bytes.
pub fn mint(prefix: Option<&str>, bytes: usize, entropy: &Entropy) -> Minted {
    let mut random = Zeroizing::new(vec![0; bytes]);
    entropy.fill(&mut random);
    assemble(prefix, &random)
}

fn assemble(prefix: Option<&str>, random: &[u8]) -> Minted {
    let body = Zeroizing::new(bs58::encode(random).into_string());
    // As long as it becomes: one that grew would leave its beginning behind.
    let mut plaintext = Zeroizing::new(String::with_capacity(prefix.map_or(0, |prefix| prefix.len() + 1) + body.len()));
    if let Some(prefix) = prefix {
        plaintext.push_str(prefix);
        plaintext.push('_');
    }
    let start = plaintext.len() + START_CHARS.min(body.len());
    plaintext.push_str(&body);
    Minted {
        digest: digest(&plaintext),
        start: plaintext[..start].to_owned(),
        end: plaintext[plaintext.len() - START_CHARS.min(body.len())..].to_owned(),
        plaintext,
    }
}

/// What a presented key is looked up by: SHA-256 of its bytes, as it stands (HASH-1, KEYFMT-7).
pub fn digest(plaintext: &str) -> KeyDigest {
    KeyDigest(Sha256::digest(plaintext.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use base64::Engine;

    use super::*;

    /// KEYFMT-1, KEYFMT-2, KEYFMT-5: the contract's vectors.
    #[test]
    fn keys_are_base58_behind_their_prefix() {
        let counting: Vec<u8> = (0..16).collect();
        assert_eq!(*assemble(None, &[0; 16]).plaintext, "1".repeat(16));
        assert_eq!(*assemble(None, &counting).plaintext, "12drXXUifSrRnXLGbXg8E");
        assert_eq!(*assemble(None, &[0xff; 16]).plaintext, "YcVfxkQb6JRzqk5kF2tNLv");
        let prefixed = assemble(Some("prod"), &counting);
        assert_eq!((prefixed.plaintext.as_str(), &*prefixed.start), ("prod_12drXXUifSrRnXLGbXg8E", "prod_12dr"));
        assert_eq!(assemble(Some("my_app_"), &counting).start, "my_app__12dr");
    }

    /// HASH-1: the contract's vectors.
    #[test]
    fn hashes_are_sha256() {
        let text = |plaintext| base64::engine::general_purpose::STANDARD.encode(digest(plaintext).0);
        assert_eq!(text("test"), "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=");
        assert_eq!(text("prod_12drXXUifSrRnXLGbXg8E"), "VThvfAPrVzOnB9mjkBip/8J1cjP+jgnqQF8IQoAO3aM=");
    }
}
