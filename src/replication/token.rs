//! The token that nodes of a store know each other by.

use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::config::{REPLICATION_TOKEN_VARIABLE, SecretSources};
use crate::vault::sources::{self, SourceError, Wanted};

/// Name of its systemd credential.
const CREDENTIAL: &str = "keyward-replication-token";
/// What people call it.
const WHAT: &str = "replication token";
/// Fewest and most characters: it cannot be guessed, and fits a header.
const CHARS_MIN: usize = 32;
const CHARS_MAX: usize = 1024;

/// What is wrong with a token, without showing it.
#[derive(Debug, thiserror::Error)]
#[error(
    "a token has {CHARS_MIN} to {CHARS_MAX} letters, digits and signs of ASCII, in one line; `openssl rand -hex 32` prints one"
)]
struct BadToken;

/// The token that the sources name; `None` where there is none.
///
/// # Errors
/// A source is set and cannot be used.
pub fn open(secrets: &SecretSources, data_dir: &Path) -> Result<Option<Zeroizing<String>>, SourceError> {
    let wanted = Wanted {
        what: WHAT,
        credential: CREDENTIAL,
        file: secrets.replication_token_file.as_deref(),
        variable: REPLICATION_TOKEN_VARIABLE,
        given: secrets.replication_token.as_ref(),
    };
    let Some(found) = sources::find(wanted, secrets, data_dir)? else { return Ok(None) };
    let token = found.text.trim();
    if (CHARS_MIN..=CHARS_MAX).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(Zeroizing::new(token.to_owned())));
    }
    Err(SourceError::Bad { what: WHAT, place: found.place, source: Box::new(BadToken) })
}

/// What a presented token is compared with.
#[derive(Clone)]
pub struct Expected([u8; 32]);

impl Expected {
    /// Expects this token.
    pub fn new(token: &str) -> Expected {
        Expected(Sha256::digest(token).into())
    }

    /// Whether a presented text is it. The time this takes says nothing about how much of it is right: digests are compared, and
    /// all of them.
    pub fn is(&self, presented: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        digest.iter().zip(&self.0).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[test]
    fn a_token_is_long_and_compared_as_a_whole() {
        let look = |text: &str| {
            let secrets = SecretSources { replication_token: Some(Secret::new(text)), ..SecretSources::default() };
            open(&secrets, Path::new("/data"))
        };
        let token = "0123456789abcdef0123456789abcdef";
        assert_eq!(look(&format!("{token}\n")).unwrap().unwrap().as_str(), token);
        for bad in [&token[1..], "0123456789abcdef 0123456789abcdef", ""] {
            let told = look(bad).expect_err("refused");
            assert!(bad.is_empty() || !format!("{told:?}").contains(bad), "never echoed");
        }
        let expected = Expected::new(token);
        assert!(expected.is(token) && !expected.is(&token[1..]) && !expected.is(""));
    }
}
