//! The client's side of TLS: who may vouch for a server, and a stream that is encrypted.
//!
//! Trusted is what the machine trusts: the file that `SSL_CERT_FILE` names, else the first bundle there is of those that
//! systems keep. No authority is built in, so that an operator's own is as good as any other.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::files;
use crate::config;
use crate::named_file;
use crate::telemetry::error_chain;

/// Names the file of trusted certificates, as OpenSSL and curl have it.
const CERTIFICATES_VARIABLE: &str = "SSL_CERT_FILE";
/// Bytes of such a file; those of systems have some hundred KiB.
const BUNDLE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where systems keep theirs: Debian and Alpine, Fedora, SUSE, macOS and the BSDs.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
];

/// An encrypted stream.
pub type Encrypted<S> = StreamOwned<ClientConnection, S>;

/// Agrees with the server at the other end of a stream on a connection to this host.
///
/// # Errors
/// A sentence: there are no trusted certificates, or the server's is not to be trusted. Nothing was asked then.
pub fn encrypt<S: Read + Write>(stream: S, host: &str, trusted: Option<&Trust>) -> Result<Encrypted<S>, String> {
    let config = match trusted {
        Some(Trust(config)) => Arc::clone(config),
        None => trust()?,
    };
    encrypt_with(config, stream, host)
}

/// Whom to trust at one place, and what to show there.
#[derive(Debug, Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Servers whose certificates come from the authorities in `ca_file`, or from those that this machine trusts. Where `own` is set
    /// up, its certificate is shown to whoever asks for one.
    ///
    /// # Errors
    /// A sentence: a file cannot be used.
    pub fn new(ca_file: Option<&Path>, own: &config::Tls) -> Result<Trust, String> {
        let bundle = ca_file.map_or_else(bundle, |path| Ok(path.to_owned()))?;
        let mut config = towards(&bundle, own)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Trust(Arc::new(config)))
    }
}

/// A client that trusts the authorities in a file, and shows its own certificate where it has one.
pub(super) fn towards(ca_file: &Path, own: &config::Tls) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(ca_file)?);
    if !own.is_on() {
        return Ok(builder.with_no_client_auth());
    }
    let (_, material) = files::read(own).map_err(|error| error_chain(&error))?;
    let (chain, key) = material.chain_and_key().map_err(|error| error_chain(&error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}

fn encrypt_with<S: Read + Write>(config: Arc<ClientConfig>, mut stream: S, host: &str) -> Result<Encrypted<S>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("no certificate can be for {host:?}"))?;
    let mut connection = ClientConnection::new(config, name).map_err(|error| error.to_string())?;
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).map_err(|error| {
            format!(
                "no encrypted connection to {host} comes about: {error}. Where its certificate is signed by an authority of \
                 your own, name that authority's file with {CERTIFICATES_VARIABLE}"
            )
        })?;
    }
    Ok(StreamOwned::new(connection, stream))
}

/// What this process trusts, read once.
fn trust() -> Result<Arc<ClientConfig>, String> {
    static TRUST: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    TRUST.get_or_init(|| bundle().and_then(|path| trusting(&path))).clone()
}

#[expect(clippy::disallowed_methods, reason = "a convention of TLS clients, not a setting of keyward's")]
pub(super) fn bundle() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os(CERTIFICATES_VARIABLE).filter(|name| !name.is_empty()) {
        return Ok(named.into());
    }
    BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()).ok_or_else(|| {
        format!(
            "this machine has no file of trusted certificates: install its package (ca-certificates), or name one with \
             {CERTIFICATES_VARIABLE}"
        )
    })
}

/// Those whom a file of PEM certificates names.
fn roots(path: &Path) -> Result<RootCertStore, String> {
    let unreadable = |why: String| format!("cannot read the trusted certificates in {}: {why}", path.display());
    let mut text = Vec::new();
    let read = named_file::open(path).and_then(|file| file.take(BUNDLE_BYTES_MAX).read_to_end(&mut text));
    read.map_err(|error| unreadable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        // Bundles hold old ones that nobody can use any more; the others are good all the same.
        let _ = roots.add(certificate);
    }
    if roots.is_empty() {
        return Err(unreadable("it holds none".to_owned()));
    }
    Ok(roots)
}

/// A client that trusts what is in a file of PEM certificates.
fn trusting(path: &Path) -> Result<Arc<ClientConfig>, String> {
    Trust::new(Some(path), &config::Tls::default()).map(|Trust(config)| config)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    /// A server whose certificate is of an authority that only its file's readers trust: they are answered, others are
    /// not, and neither is who meant another host.
    #[test]
    fn only_who_is_vouched_for_is_talked_to() {
        let made = rcgen::generate_simple_self_signed(vec!["keys.internal".to_owned()]).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("authority.pem");
        std::fs::write(&file, made.cert.pem()).expect("write it");
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let server = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key))
            .expect("a server");
        let server = Arc::new(server);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().take(3) {
                let connection = ServerConnection::new(Arc::clone(&server)).expect("a connection");
                let mut stream = StreamOwned::new(connection, stream.expect("somebody"));
                let mut word = [0; 4];
                if stream.read_exact(&mut word).is_ok() {
                    stream.write_all(&word).expect("answer");
                }
            }
        });
        let connect = || TcpStream::connect(address).expect("connect");
        let own = trusting(&file).expect("it holds one");

        let mut stream = encrypt_with(Arc::clone(&own), connect(), "keys.internal").expect("trusted");
        stream.write_all(b"ping").expect("write");
        let mut word = [0; 4];
        stream.read_exact(&mut word).expect("read");
        assert_eq!(&word, b"ping");

        let told = encrypt_with(own, connect(), "keys.elsewhere").map(drop).expect_err("another host");
        assert!(told.contains("keys.elsewhere") && told.contains("SSL_CERT_FILE"), "{told}");
        let other = rcgen::generate_simple_self_signed(vec!["keys.internal".to_owned()]).expect("another");
        std::fs::write(&file, other.cert.pem()).expect("write it");
        let stranger = trusting(&file).expect("it holds one");
        assert!(encrypt_with(stranger, connect(), "keys.internal").is_err(), "of an authority that nobody trusts");
        thread.join().expect("the server ends");

        std::fs::write(&file, "no certificate").expect("write it");
        assert!(trusting(&file).is_err_and(|why| why.contains("holds none")));
    }
}
