//! TLS in front of HTTP: certificates from files, read again when they change; handshakes within limits.
//!
//! rustls with its ring provider and its defaults: TLS 1.3, and TLS 1.2 with ephemeral keys and authenticated ciphers alone. A
//! handshake takes the configuration there is at its moment, so a new certificate counts for every connection made after it and
//! for none made before. [`certificates`] reads what a certificate says; [`issue`] makes one where nobody else does.

pub mod certificates;
pub mod client;
pub mod files;
pub mod issue;
pub mod peer;

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::Poll;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{Acceptor, WebPkiClientVerifier};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use crate::config;
use crate::outside::Clock;
use crate::telemetry::error_chain;
use certificates::{Certificate, Expiry};
use files::{Fingerprint, Material, TlsError};

/// An encrypted connection, its handshake done.
pub type Stream = tokio_rustls::server::TlsStream<TcpStream>;

/// Between two looks at the files. A change counts when two looks see the same: certificate and key are two files, and are
/// rarely replaced in one step.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Between two lines about handshakes that failed; one line tells of all since the last.
const FAILURES_INTERVAL_MS: u64 = 60_000;
/// Between two lines about a certificate that ends soon.
const EXPIRY_INTERVAL_MS: u64 = 24 * 3_600_000;
/// What clients are offered above TLS (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS as it is set up: shared by all sockets that have it in front.
pub struct Tls {
    settings: config::Tls,
    clock: Clock,
    /// Whether it tells the operator of the certificate: of two sockets with the same one, one does.
    tells: bool,
    /// Handshakes that may go on at one time.
    turns: Semaphore,
    current: RwLock<Arc<Current>>,
    watched: Mutex<Watched>,
    failures: Failures,
}

/// What handshakes are made with until the files change.
struct Current {
    config: Arc<ServerConfig>,
    /// The server's own, and those it sends along.
    chain: Vec<Certificate>,
    /// Of what was read.
    digest: [u8; 32],
}

/// What the last looks at the files saw, and said.
struct Watched {
    /// Files that were read, whether or not they could be used.
    read: Fingerprint,
    /// Files that differ from these, seen once.
    changed: Option<Fingerprint>,
    told: Option<(Expiry, u64)>,
}

/// How many handshakes failed.
#[derive(Debug, Default)]
struct Failures {
    all: AtomicU64,
    /// Of these, how many the log knows of, and Unix ms of its last line.
    told: Mutex<(u64, u64)>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files of the settings.
    ///
    /// # Errors
    /// They cannot be read, or are no certificate, key and authorities that fit each other.
    pub fn open(settings: &config::Tls, clock: Clock) -> Result<Arc<Tls>, TlsError> {
        Tls::read(settings, clock, true)
    }

    /// The same, for another socket with a certificate that is watched already: of the certificate it tells nothing.
    ///
    /// # Errors
    /// As [`Tls::open`].
    pub fn open_beside(settings: &config::Tls, clock: Clock) -> Result<Arc<Tls>, TlsError> {
        Tls::read(settings, clock, false)
    }

    fn read(settings: &config::Tls, clock: Clock, tells: bool) -> Result<Arc<Tls>, TlsError> {
        let (read, material) = files::read(settings)?;
        let current = Current::build(&material, settings)?;
        for remark in material.remarks().into_iter().filter(|_| tells) {
            tracing::warn!("{remark}");
        }
        let tls = Tls {
            turns: Semaphore::new(settings.max_handshakes),
            settings: settings.clone(),
            clock,
            tells,
            current: RwLock::new(Arc::new(current)),
            watched: Mutex::new(Watched { read, changed: None, told: None }),
            failures: Failures::default(),
        };
        tls.remark_expiry();
        Ok(Arc::new(tls))
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The handshake of a connection that was just accepted. `None` where it fails, or does not end in time, its waiting for a
    /// turn included; that was logged.
    pub async fn accept(&self, stream: TcpStream, peer: IpAddr) -> Option<Stream> {
        let handshake = async {
            // A turn is for computing: whoever has sent nothing yet, or does not go on, holds none.
            let greeted = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let mut handshake = pin!(greeted.into_stream(Arc::clone(&self.current().config)));
            let answered = {
                let _turn = self.turns.acquire().await.map_err(io::Error::other)?;
                poll_fn(|cx| Poll::Ready(handshake.as_mut().poll(cx))).await
            };
            match answered {
                Poll::Ready(ended) => ended,
                Poll::Pending => handshake.await,
            }
        };
        let why = match timeout(self.settings.handshake_timeout, handshake).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error_chain(&error),
            Err(_) => "it did not end in time".to_owned(),
        };
        tracing::debug!(%peer, why, "a TLS handshake failed");
        self.failures.count(self.clock.now_ms(), peer, &why);
        None
    }

    /// Handshakes that failed since the start.
    pub fn failed_handshakes(&self) -> u64 {
        self.failures.all.load(Ordering::Relaxed)
    }

    /// When the first certificate of the server's chain ends, Unix ms.
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.current().chain.iter().map(|certificate| certificate.not_after_ms).min()
    }

    /// Looks at the files now and then, takes them when they have changed, and tells the operator when a certificate is about to
    /// end. Goes on for as long as it is polled.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(LOOK_INTERVAL).await;
            let tls = Arc::clone(&self);
            // The files may be on a disk that is slow.
            let _ = tokio::task::spawn_blocking(move || tls.look()).await;
        }
    }

    /// One look at the files.
    fn look(&self) {
        let seen = Fingerprint::of(&self.settings);
        let settled = {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if seen == watched.read {
                watched.changed = None;
                false
            } else if watched.changed.as_ref() == Some(&seen) {
                true
            } else {
                watched.changed = Some(seen);
                false
            }
        };
        if settled {
            self.reload();
        }
        self.remark_expiry();
    }

    /// Reads the files again, whether they have changed or not. What cannot be used is logged, and what was there stays.
    /// Whether they can be used.
    pub fn reload(&self) -> bool {
        // Before they are read: a change in between is seen at the next look.
        let seen = Fingerprint::of(&self.settings);
        let outcome = self.take_files();
        {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.read = seen;
            watched.changed = None;
        }
        let is_good = outcome.is_ok();
        match outcome {
            Ok(Some(ends)) => {
                tracing::info!(ends, "the certificate of the server was read again, and counts from now on")
            }
            Ok(None) => tracing::debug!("the certificate of the server was read again, and is the same"),
            Err(error) => tracing::error!(
                error = error_chain(&error),
                "the certificate of the server was changed and cannot be used; the one from before stays"
            ),
        }
        is_good
    }

    /// Takes what the files hold; `None` where that is what we have. `Some` is when the new certificate ends.
    fn take_files(&self) -> Result<Option<String>, TlsError> {
        let (_, material) = files::read(&self.settings)?;
        let before = self.current();
        if material.digest() == before.digest {
            return Ok(None);
        }
        let now_ms = self.clock.now_ms();
        let current = Current::build(&material, &self.settings)?;
        // What has ended is better than what will never be: but not than what still holds.
        let over = |chain: &[Certificate]| chain.iter().any(|one| one.expiry(now_ms) == Expiry::Over);
        if over(&current.chain) && !over(&before.chain) {
            return Err(TlsError::Over { path: self.settings.cert_file.clone() });
        }
        for remark in material.remarks().into_iter().filter(|_| self.tells) {
            tracing::warn!("{remark}");
        }
        let ends = current.chain.first().map(|own| certificates::date(own.not_after_ms)).unwrap_or_default();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).told = None;
        self.remark_expiry();
        Ok(Some(ends))
    }

    /// Tells the operator of a certificate that ends soon: at once when it gets more urgent, and once a day.
    fn remark_expiry(&self) {
        if !self.tells {
            return;
        }
        let now_ms = self.clock.now_ms();
        let current = self.current();
        let Some(first) = current.chain.iter().min_by_key(|certificate| certificate.not_after_ms) else { return };
        let expiry = current.chain.iter().map(|one| one.expiry(now_ms)).max().unwrap_or(Expiry::Far);
        {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            let again = |(told, at): (Expiry, u64)| told != expiry || now_ms.saturating_sub(at) >= EXPIRY_INTERVAL_MS;
            if !watched.told.is_none_or(again) {
                return;
            }
            watched.told = Some((expiry, now_ms));
        }
        let file = self.settings.cert_file.display();
        let (subject, ends) = (&first.subject, certificates::date(first.not_after_ms));
        match expiry {
            Expiry::Far => {}
            Expiry::Within30Days => {
                tracing::warn!(%file, subject, ends, "a TLS certificate ends within 30 days; put a new one in its place");
            }
            Expiry::Within7Days => {
                tracing::warn!(%file, subject, ends, "a TLS certificate ends within 7 days; put a new one in its place");
            }
            Expiry::NotYet => {
                tracing::error!(%file, "a TLS certificate does not hold yet: clients refuse it; is the clock right?");
            }
            Expiry::Over => {
                tracing::error!(%file, subject, ends, "a TLS certificate has ended: clients refuse it; put a new one in its place");
            }
        }
    }
}

impl Failures {
    /// Counts one, and tells the operator about all of them once in a while: port scanners make many.
    fn count(&self, now_ms: u64, peer: IpAddr, why: &str) {
        let all = self.all.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, at) = *told;
        if now_ms.saturating_sub(at) >= FAILURES_INTERVAL_MS {
            *told = (all, now_ms);
            drop(told);
            tracing::info!(handshakes = all - known, %peer, why, "TLS handshakes failed; the last of them is shown");
        }
    }
}

impl Current {
    fn build(material: &Material, settings: &config::Tls) -> Result<Current, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let refuse = |why: rustls::Error| TlsError::Refused { path: settings.cert_file.clone(), source: why };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(refuse)?;
        let builder = match (&settings.client_ca_file, material.client_roots()?) {
            (Some(path), Some(roots)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|error| TlsError::bad("authorities of clients", path, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let (chain, key) = material.chain_and_key()?;
        let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { cert: settings.cert_file.clone(), key: settings.key_file.clone() }
            }
            error => refuse(error),
        })?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(refuse)?;
        Ok(Current { config: Arc::new(config), chain: material.certificates()?, digest: material.digest() })
    }
}
