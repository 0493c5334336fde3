//! The files that TLS is set up with: read as a whole, known again by what they look like from outside.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::certificates::{self, Certificate};
use crate::config;
use crate::named_file;

/// Bytes of one file: a chain has some kilobytes, a bundle of authorities some hundred.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Certificates of one file.
const CERTIFICATES_MAX: usize = 1000;
/// Rights of users who are neither the owner nor of the group.
const OTHERS: u32 = 0o007;

/// Why TLS cannot be set up with the files there are. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path}", path = path.display())]
    Unreadable {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file holds something else.
    #[error("the {what} {path} cannot be used: {why}", path = path.display())]
    Bad {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Certificate and key are not a pair.
    #[error(
        "the certificate in {cert} and the private key in {key} do not belong together; the file of the certificate must begin \
         with the server's own, those of authorities in between follow",
        cert = cert.display(), key = key.display()
    )]
    Mismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// rustls takes neither.
    #[error("the certificate in {path} cannot be used", path = path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// A new certificate that has ended already, in place of one that has not.
    #[error("the certificate in {path} has ended already", path = path.display())]
    Over {
        /// The file.
        path: PathBuf,
    },
}

impl TlsError {
    pub(super) fn bad(what: &'static str, path: &Path, why: impl Into<String>) -> TlsError {
        TlsError::Bad { what, path: path.to_owned(), why: why.into() }
    }
}

/// The files as they look from outside; another file of the same name looks different, behind a link too.
#[derive(Debug, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<Look>>);

/// What a file looks like; `None` in its place where there is none.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    /// Device and inode.
    identity: (u64, u64),
    size: u64,
    /// Seconds and nanoseconds of the last change of anything, and of the content.
    changed: (i64, i64),
    written: (i64, i64),
}

impl Fingerprint {
    /// Looks at the files of the settings.
    pub fn of(settings: &config::Tls) -> Fingerprint {
        let paths = [Some(&settings.cert_file), Some(&settings.key_file), settings.client_ca_file.as_ref()];
        let look = |path: &PathBuf| {
            let found = fs::metadata(path).ok()?;
            Some(Look {
                identity: (found.dev(), found.ino()),
                size: found.size(),
                changed: (found.ctime(), found.ctime_nsec()),
                written: (found.mtime(), found.mtime_nsec()),
            })
        };
        Fingerprint(paths.into_iter().flatten().map(look).collect())
    }
}

/// What the files hold.
pub struct Material<'s> {
    settings: &'s config::Tls,
    chain: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    key_mode: u32,
    client_roots: Option<Vec<u8>>,
}

const CERTIFICATE: &str = "certificate file";
const KEY: &str = "private key file";
const AUTHORITIES: &str = "file of clients' authorities";

/// Reads the files of the settings, and how they looked before that.
///
/// # Errors
/// One of them cannot be read.
pub fn read(settings: &config::Tls) -> Result<(Fingerprint, Material<'_>), TlsError> {
    let seen = Fingerprint::of(settings);
    let (chain, _) = read_file(CERTIFICATE, &settings.cert_file)?;
    let (key, key_mode) = read_file(KEY, &settings.key_file)?;
    let client_roots = settings.client_ca_file.as_ref().map(|path| read_file(AUTHORITIES, path)).transpose()?;
    let client_roots = client_roots.map(|(roots, _)| roots.to_vec());
    Ok((seen, Material { settings, chain: chain.to_vec(), key, key_mode, client_roots }))
}

/// A file's bytes and its rights.
fn read_file(what: &'static str, path: &Path) -> Result<(Zeroizing<Vec<u8>>, u32), TlsError> {
    let fail = |source| TlsError::Unreadable { what, path: path.to_owned(), source };
    let file = named_file::open(path).map_err(fail)?;
    let found = file.metadata().map_err(fail)?;
    // Room for all of it at once: a buffer that grows leaves pieces of a key behind.
    let room = usize::try_from(found.size().min(FILE_BYTES_MAX)).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::bad(what, path, format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    Ok((bytes, found.mode() & 0o7777))
}

impl Material<'_> {
    /// What the operator should hear although it hinders nothing.
    pub fn remarks(&self) -> Vec<String> {
        let path = self.settings.key_file.display();
        (self.key_mode & OTHERS != 0)
            .then(|| {
                format!(
                    "the private key file {path} has mode {:04o}: every user of this machine may read it; chmod o= {path}",
                    self.key_mode
                )
            })
            .into_iter()
            .collect()
    }

    /// Tells one content of the files from another.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&self.chain[..], &self.key[..], self.client_roots.as_deref().unwrap_or_default()] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// The server's certificate with those of authorities in between, and its key.
    pub(super) fn chain_and_key(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let chain = parse(CERTIFICATE, &self.settings.cert_file, &self.chain)?;
        let path = &self.settings.key_file;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| {
            let encrypted = self.key.windows(9).any(|part| part == b"ENCRYPTED");
            let why = if encrypted {
                format!("it is encrypted, and nobody is there to type its password; openssl pkey -in {0} -out {0}.plain decrypts it", path.display())
            } else {
                format!("no private key in PEM form is in it ({error})")
            };
            TlsError::bad(KEY, path, why)
        })?;
        Ok((chain, key))
    }

    /// Who signs certificates of clients, where these are asked for.
    pub(super) fn client_roots(&self) -> Result<Option<RootCertStore>, TlsError> {
        let (Some(path), Some(text)) = (&self.settings.client_ca_file, &self.client_roots) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for (number, certificate) in parse(AUTHORITIES, path, text)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|error| {
                TlsError::bad(
                    AUTHORITIES,
                    path,
                    format!("its certificate number {} is no authority ({error})", number + 1),
                )
            })?;
        }
        Ok(Some(roots))
    }

    /// What the certificates of the chain say.
    pub fn certificates(&self) -> Result<Vec<Certificate>, TlsError> {
        let path = &self.settings.cert_file;
        certificates::read_pem(&self.chain).map_err(|error| TlsError::bad(CERTIFICATE, path, error.to_string()))
    }
}

fn parse(what: &'static str, path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(CERTIFICATES_MAX).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::bad(what, path, "no certificate in PEM form is in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(TlsError::bad(what, path, error.to_string())),
    }
}
