//! An authority of one's own, for rooms where nobody else signs certificates.
//!
//! ECDSA over P-256, which every TLS library takes. The authority holds for ten years and signs nothing but what
//! `keyward tls self-signed` makes; clients trust it, so that the server's certificate can be renewed without their noticing.

use std::net::IpAddr;

use rcgen::PublicKeyData;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use zeroize::Zeroizing;

use super::certificates::hex;

/// How long an authority holds.
const AUTHORITY_DAYS: u64 = 3650;
/// Clocks of clients may be this much behind.
const EARLIER: Duration = Duration::hours(1);
/// Longest name (RFC 1035, 2.3.4), and longest part of one.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
/// Longest common name of a subject (RFC 5280, appendix A.1). Clients look at the other names alone.
const SUBJECT_BYTES_MAX: usize = 64;

/// A certificate and its private key, in PEM form.
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: Zeroizing<String>,
}

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A server proves who it is.
    Server,
    /// A client does.
    Client,
}

/// Why no certificate was made.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct IssueError(#[from] rcgen::Error);

/// Makes an authority of this name. `now_ms` is Unix ms.
///
/// # Errors
/// The system gives no randomness, or the name cannot be written in a certificate.
pub fn authority(name: &str, now_ms: u64) -> Result<Issued, IssueError> {
    let key = KeyPair::generate()?;
    let certificate = authority_params(name, now_ms).self_signed(&key)?;
    Ok(Issued { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

fn authority_params(name: &str, now_ms: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    // It signs owners of names, and no further authorities.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    hold(&mut params, now_ms, AUTHORITY_DAYS);
    params
}

/// Makes a certificate for these names and addresses, signed by the authority of this name and key, in PEM form. The first
/// name is also its subject, where it is short enough.
///
/// # Errors
/// The key is none, the system gives no randomness, or a name cannot be written in a certificate.
pub fn issue(
    authority: (&str, &str),
    names: &[String],
    purpose: Purpose,
    days: u64,
    now_ms: u64,
) -> Result<Issued, IssueError> {
    let (authority_name, authority_key) = authority;
    // Of the authority's certificate a signature holds its name and its key, and these it is found by.
    let signer = Issuer::new(authority_params(authority_name, now_ms), KeyPair::from_pem(authority_key)?);
    let mut params = match purpose {
        Purpose::Server => CertificateParams::new(names)?,
        // What a client is called is no name it could be reached by.
        Purpose::Client => CertificateParams::default(),
    };
    params.distinguished_name =
        named(names.first().filter(|name| name.len() <= SUBJECT_BYTES_MAX).map_or("keyward", String::as_str));
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose {
        Purpose::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Purpose::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    hold(&mut params, now_ms, days);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &signer)?;
    Ok(Issued { certificate: certificate.pem(), key: Zeroizing::new(key.serialize_pem()) })
}

/// SHA-256 of a private key's public part, in hexadecimal, as [`Certificate`](super::certificates::Certificate) has it.
///
/// # Errors
/// The text is no private key in PEM form.
pub fn key_fingerprint(key: &str) -> Result<String, IssueError> {
    Ok(hex(&Sha256::digest(KeyPair::from_pem(key)?.subject_public_key_info())))
}

fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn hold(params: &mut CertificateParams, now_ms: u64, days: u64) {
    let seconds = i64::try_from(now_ms / 1000).unwrap_or(0);
    let now = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    params.not_before = now - EARLIER;
    params.not_after = now + Duration::days(i64::try_from(days).unwrap_or(0));
}

/// A name or address that a server's certificate can be for; `Err` says what is wrong with it.
///
/// # Errors
/// A sentence without its beginning.
pub fn check_name(name: &str) -> Result<(), String> {
    if name.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let plain = name.strip_prefix("*.").unwrap_or(name);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    if name.len() <= NAME_BYTES_MAX && plain.split('.').all(label) {
        return Ok(());
    }
    let hint = match name.rsplit_once(':') {
        Some(_) if name.contains("://") => "; it is an address of a page, of which only the host's name goes here",
        Some((_, port)) if port.parse::<u16>().is_ok() => "; a port does not belong to it",
        _ => "",
    };
    Err(format!("`{name}` is neither the name of a host, such as keys.example.internal, nor an IP address{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::certificates;

    /// What is made is what was asked for, and a second certificate of the same authority hangs together with the first.
    #[test]
    fn certificates_say_what_was_asked_for() {
        let now = 1_790_000_000_000;
        let made = authority("a room", now).unwrap();
        let own = &certificates::read_pem(made.certificate.as_bytes()).unwrap()[0];
        assert!(own.is_authority && own.subject == "CN=a room" && own.issuer == own.subject);
        assert_eq!(own.days_left(now), AUTHORITY_DAYS);
        let names = ["keys.internal", "10.0.0.7", "fd00::7", "*.x.internal"].map(str::to_owned);
        for _ in 0..2 {
            let issued = issue(("a room", &made.key), &names, Purpose::Server, 90, now).unwrap();
            let one = &certificates::read_pem(issued.certificate.as_bytes()).unwrap()[0];
            assert_eq!((&*one.issuer, &one.names[..], one.is_authority), ("CN=a room", &names[..], false));
            assert_eq!(one.days_left(now), 90);
            assert!(one.not_before_ms < now);
            assert!(issued.key.contains("PRIVATE KEY"));
        }
    }

    /// What no client could ask for is refused, and told apart where it is a common mistake.
    #[test]
    fn names_are_hosts_or_addresses() {
        for name in ["localhost", "a.b-c.internal", "*.x.internal", "127.0.0.1", "::1", "_x.y"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for (name, part) in [
            ("", "neither"),
            ("a b", "neither"),
            ("a..b", "neither"),
            ("x.*.y", "neither"),
            ("https://keys.internal", "only the host"),
            ("keys.internal:443", "a port"),
            ("grüße.internal", "neither"),
        ] {
            assert!(check_name(name).unwrap_err().contains(part), "{name}");
        }
        assert!(check_name(&"a.".repeat(200)).is_err());
    }
}
