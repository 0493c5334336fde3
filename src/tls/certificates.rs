//! What a certificate says: names, issuer, when it holds.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};

const DAY_MS: u64 = 24 * 3_600_000;
/// Certificates that are read of one file.
const CERTIFICATES_MAX: usize = 1000;

/// A certificate, as far as people ask about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Whose it is (RFC 4514).
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Names and addresses that clients may reach its owner by.
    pub names: Vec<String>,
    /// Unix ms from which on it holds.
    pub not_before_ms: u64,
    /// Unix ms until which it holds.
    pub not_after_ms: u64,
    /// Whether its owner may sign others.
    pub is_authority: bool,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
    /// SHA-256 of its public key, in hexadecimal.
    pub key_fingerprint: String,
}

/// How long a certificate goes on to hold; the more urgent the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expiry {
    /// For more than 30 days.
    Far,
    /// Between 7 and 30 days.
    Within30Days,
    /// At most 7 days.
    Within7Days,
    /// It does not hold yet.
    NotYet,
    /// It does not hold any more.
    Over,
}

/// Why a text holds no certificates that can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not in PEM form.
    #[error("it is not in PEM form: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// It has none.
    #[error("no certificate in PEM form is in it")]
    Empty,
    /// One of them is not well-formed.
    #[error("its certificate number {number} is not well-formed: {source}")]
    Certificate {
        /// From 1 on.
        number: usize,
        /// Why.
        source: x509_cert::der::Error,
    },
}

/// Reads all certificates of a text in PEM form.
///
/// # Errors
/// One cannot be read, or there is none.
pub fn read_pem(text: &[u8]) -> Result<Vec<Certificate>, ReadError> {
    let mut all = Vec::new();
    for (index, der) in CertificateDer::pem_slice_iter(text).take(CERTIFICATES_MAX).enumerate() {
        let der = der.map_err(ReadError::Pem)?;
        all.push(Certificate::read(&der).map_err(|source| ReadError::Certificate { number: index + 1, source })?);
    }
    if all.is_empty() { Err(ReadError::Empty) } else { Ok(all) }
}

impl Certificate {
    /// Reads one in DER form.
    ///
    /// # Errors
    /// It is not well-formed.
    pub fn read(der: &[u8]) -> Result<Certificate, x509_cert::der::Error> {
        let certificate = x509_cert::Certificate::from_der(der)?;
        let tbs = &certificate.tbs_certificate;
        let names = tbs.get::<SubjectAltName>()?.map(|(_, names)| names.0).unwrap_or_default();
        let constraints = tbs.get::<BasicConstraints>()?;
        let millis =
            |time: x509_cert::time::Time| u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX);
        Ok(Certificate {
            subject: tbs.subject.to_string(),
            issuer: tbs.issuer.to_string(),
            names: names.iter().filter_map(name).collect(),
            not_before_ms: millis(tbs.validity.not_before),
            not_after_ms: millis(tbs.validity.not_after),
            is_authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
            fingerprint: hex(&Sha256::digest(der)),
            key_fingerprint: hex(&Sha256::digest(tbs.subject_public_key_info.to_der()?)),
        })
    }

    /// How long it goes on to hold.
    pub fn expiry(&self, now_ms: u64) -> Expiry {
        match self.not_after_ms.checked_sub(now_ms) {
            None | Some(0) => Expiry::Over,
            _ if now_ms < self.not_before_ms => Expiry::NotYet,
            Some(left) if left <= 7 * DAY_MS => Expiry::Within7Days,
            Some(left) if left <= 30 * DAY_MS => Expiry::Within30Days,
            Some(_) => Expiry::Far,
        }
    }

    /// Whole days it goes on to hold.
    pub fn days_left(&self, now_ms: u64) -> u64 {
        self.not_after_ms.saturating_sub(now_ms) / DAY_MS
    }

    /// Whether clients that ask for this name or address accept it (RFC 9525: a `*` stands for the whole first label).
    pub fn is_for(&self, name: &str) -> bool {
        let asked = name.to_ascii_lowercase();
        self.names.iter().map(|own| own.to_ascii_lowercase()).any(|own| {
            own == asked
                || own.strip_prefix("*.").is_some_and(|domain| {
                    asked.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == domain)
                })
        })
    }
}

/// A name that clients compare with the one they asked for.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).ok().map(|four| IpAddr::V4(Ipv4Addr::from(four)));
            let six = || <[u8; 16]>::try_from(bytes).ok().map(|six| IpAddr::V6(Ipv6Addr::from(six)));
            four.or_else(six).map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A day, given in Unix ms: `2026-11-30`.
pub fn date(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day()),
        Err(_) => format!("{ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], not_before_ms: u64, not_after_ms: u64) -> Certificate {
        Certificate {
            subject: String::new(),
            issuer: String::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            not_before_ms,
            not_after_ms,
            is_authority: false,
            fingerprint: String::new(),
            key_fingerprint: String::new(),
        }
    }

    /// The operator hears of an end at 30 and at 7 days, and which of two remarks is the more urgent is clear.
    #[test]
    fn an_end_gets_more_urgent() {
        let at = |days: u64| certificate(&[], DAY_MS, 100 * DAY_MS).expiry(days * DAY_MS);
        let seen: Vec<Expiry> = [0, 1, 69, 70, 92, 93, 99, 100, 200].into_iter().map(at).collect();
        use Expiry::*;
        assert_eq!(seen, [NotYet, Far, Far, Within30Days, Within30Days, Within7Days, Within7Days, Over, Over]);
        assert!(Far < Within30Days && Within30Days < Within7Days && Within7Days < NotYet && NotYet < Over);
    }

    /// RFC 9525, 6.3: names are compared whole and without case; a `*` is one label, the first.
    #[test]
    fn names_are_compared_as_clients_do() {
        let own = certificate(&["Key.Example", "*.inner.example", "10.0.0.7", "::1"], 0, 1);
        for name in ["key.example", "a.inner.example", "10.0.0.7", "::1", "B.INNER.EXAMPLE"] {
            assert!(own.is_for(name), "{name}");
        }
        for name in ["example", "a.b.inner.example", "inner.example", ".inner.example", "10.0.0.8", "xkey.example"] {
            assert!(!own.is_for(name), "{name}");
        }
    }
}
