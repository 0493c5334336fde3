//! Settings of replication: who this node follows, who may follow it, what an answer waits for.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Lease;
use crate::server_url::ServerUrl;

/// Other nodes with the same records.
#[derive(Debug, Clone, PartialEq)]
pub struct Replication {
    /// `HOST:PORT` where followers are answered.
    pub listen: Option<String>,
    /// Whose records this node has; `None` where they are its own.
    pub follow: Option<Leader>,
    /// Other nodes that this one asks, when it starts as the leader, whether one of them leads by now.
    pub peers: Vec<Leader>,
    /// Authorities of the leader's certificate, PEM; `None` where the machine's are meant.
    pub ca_file: Option<PathBuf>,
    /// Authorities that certificates of followers must come from, PEM; `None` where they need none.
    pub client_ca_file: Option<PathBuf>,
    /// Whether TLS may be left out beyond this machine.
    pub plain: bool,
    /// This node's name for people.
    pub node: String,
    /// What an answer waits for.
    pub ack: Ack,
    /// How many followers there are, for [`Ack::All`].
    pub followers: usize,
    /// How long an answer waits for followers.
    pub ack_timeout: Duration,
    /// Silence after which the other node counts as unreachable.
    pub silence: Duration,
    /// Bytes of log kept for followers beyond what the node needs itself.
    pub log_bytes: u64,
    /// What becomes of credits while the leader is away.
    pub credits_offline: CreditsOffline,
    /// The lease that says who leads.
    pub lease: Lease,
}

/// Where a leader answers followers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// `HOST:PORT`
    pub address: String,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl Leader {
    /// Whether what it is told could be read on the way: in plain text, beyond this machine, and nobody said that it may.
    pub fn is_exposed(&self, plain: bool) -> bool {
        !self.tls && !plain && !is_local(self.host())
    }

    /// Reads `http://HOST:PORT` or `https://HOST:PORT`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Leader, String> {
        let url = ServerUrl::parse(text)?;
        let address = url.address();
        if !url.prefix().is_empty() {
            return Err(format!("`{url}` has a path; nodes are named by scheme, host and port alone"));
        }
        // What a URL without a port leads to is no node's usual place: it was forgotten.
        if !text.trim_end_matches('/').ends_with(&format!(":{}", url.port())) {
            return Err(format!(
                "`{url}` names no port; write it behind the host, as in replication.listen of that node"
            ));
        }
        Ok(Leader { address, tls: url.is_encrypted() })
    }

    /// The host alone, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        host(&self.address)
    }
}

impl fmt::Display for Leader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.tls { "s" } else { "" }, self.address)
    }
}

/// How many followers hold a change on their disks before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ack {
    /// None.
    None,
    /// Any one.
    One,
    /// As many as there are.
    All,
}

/// What a follower does with a key that has credits while the leader cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreditsOffline {
    /// It answers 503: no credit is given out twice.
    Refuse,
    /// It gives out what it last knew to be left, and tells nobody.
    Allow,
}

impl Default for Replication {
    fn default() -> Replication {
        Replication {
            listen: None,
            follow: None,
            peers: Vec::new(),
            ca_file: None,
            client_ca_file: None,
            plain: false,
            node: "keyward".to_owned(),
            ack: Ack::None,
            followers: 1,
            ack_timeout: Duration::from_secs(5),
            silence: Duration::from_secs(2),
            log_bytes: 256 << 20,
            credits_offline: CreditsOffline::Refuse,
            lease: Lease::default(),
        }
    }
}

impl Replication {
    /// How many followers have to confirm a change.
    pub fn acks_wanted(&self) -> usize {
        match self.ack {
            Ack::None => 0,
            Ack::One => 1,
            Ack::All => self.followers,
        }
    }

    /// What is right by itself and wrong together.
    pub(super) fn check(&self, has_tls: bool, problems: &mut Vec<String>) {
        let exposed =
            "others could read along: set up TLS, or set replication.plain where nobody else is on that network";
        if let Some(listen) = &self.listen
            && !has_tls
            && !self.plain
            && !is_local(host(listen))
        {
            problems.push(format!("replication.listen is {listen} and tls.cert_file is not set, so {exposed}"));
        }
        let named = self.follow.iter().map(|leader| ("replication.follow is", leader));
        for (what, node) in named.chain(self.peers.iter().map(|peer| ("replication.peers names", peer))) {
            if node.is_exposed(self.plain) {
                problems.push(format!("{what} {node}, which is not encrypted, so {exposed}"));
            }
        }
        if self.client_ca_file.is_some() && !has_tls {
            problems
                .push("replication.client_ca_file is set and tls.cert_file is not; certificates need TLS".to_owned());
        }
        self.lease.check(self.listen.is_some(), self.plain, problems);
        if self.ack != Ack::None && self.listen.is_none() {
            problems.push("replication.ack is set and replication.listen is not, so nobody could confirm".to_owned());
        }
    }
}

/// The host of a `HOST:PORT`, without the brackets of an IPv6 address.
pub fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Whether a host is this machine, whatever a name server says.
pub fn is_local(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain text goes no further than this machine unless the operator says so.
    #[test]
    fn plain_text_stays_on_this_machine() {
        let judged = |listen: &str, follow: &str, has_tls: bool, plain: bool| {
            let mut problems = Vec::new();
            let follow = (!follow.is_empty()).then(|| Leader { address: follow.to_owned(), tls: false });
            let listen = Some(listen.to_owned()).filter(|listen| !listen.is_empty());
            Replication { listen, follow, plain, ..Replication::default() }.check(has_tls, &mut problems);
            problems.len()
        };
        for here in ["127.0.0.1:7071", "[::1]:7071", "localhost:7071", "[::ffff:127.0.0.1]:1"] {
            assert_eq!(judged(here, here, false, false), 0, "{here}");
        }
        for there in ["0.0.0.0:7071", "[::]:7071", "keys.internal:7071", "10.0.0.1:7071"] {
            assert_eq!(judged(there, there, false, false), 2, "{there}");
            assert_eq!(judged(there, "", true, false), 0, "encrypted");
            assert_eq!(judged("", there, true, false), 1, "what it listens with does not encrypt what it asks");
            assert_eq!(judged(there, there, false, true), 0, "as the operator says");
        }
    }

    /// A node is named by scheme, host and port; what is read is shown as it was, and a name or password is never.
    #[test]
    fn nodes_are_named_by_scheme_host_and_port() {
        for (typed, shown) in [
            ("https://keys-1.internal:7071", "https://keys-1.internal:7071"),
            ("HTTPS://Keys-1:443/", "https://keys-1:443"),
            ("http://[::1]:7071", "http://[::1]:7071"),
            ("http://127.0.0.1:80", "http://127.0.0.1:80"),
        ] {
            let node = Leader::parse(typed).expect(typed);
            assert_eq!(node.to_string(), shown);
            assert_eq!(Leader::parse(shown), Ok(node), "what is shown can be typed");
        }
        for (typed, why) in [
            ("keys-1:7071", "no scheme"),
            ("https://keys-1", "no port"),
            ("https://[::7071]", "no port"),
            ("https://keys-1:7071/x", "a path"),
            ("https://keys-1:0", "port"),
            ("https://me:s3cret@keys-1:7071", "before the @"),
        ] {
            let told = Leader::parse(typed).expect_err(typed);
            assert!(told.contains(why) && !told.contains("s3cret"), "{typed}: {told}");
        }
    }
}
