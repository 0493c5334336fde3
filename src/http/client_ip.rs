//! The client's address: the peer's, or what trusted proxies in front say it is (COM-HDR-01, COM-HDR-02).

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// The peers whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// Believes these networks and nobody else.
    pub fn new(networks: Vec<IpNet>) -> TrustedProxies {
        TrustedProxies(networks)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address of the client behind `peer`. `forwarded` are the values of all `X-Forwarded-For` headers in order.
    ///
    /// Each proxy appends the address it was called from, so only the right end was written by someone who is trusted:
    /// the list is walked from there past trusted addresses, and the first other one is the client. Where all are
    /// trusted the client is the leftmost. An entry that is no address ends the walk at the last address before it.
    /// IPv4 addresses mapped into IPv6 count and are given as IPv4.
    pub fn client_of<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a [u8]>) -> IpAddr {
        let mut client = peer.to_canonical();
        for entry in forwarded.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')) {
            if !self.contains(client) {
                break;
            }
            let entry = entry.trim_ascii();
            if entry.is_empty() {
                continue;
            }
            match parse(entry) {
                Some(address) => client = address,
                None => break,
            }
        }
        client
    }
}

/// Whether a request comes from these networks all the way: its peer, and each address that proxies have written down. What
/// came through a proxy that writes down nothing of the kind does not: `hidden` says that there are other signs of one.
pub fn all_from<'a>(networks: &[IpNet], peer: IpAddr, forwarded: impl Iterator<Item = &'a [u8]>, hidden: bool) -> bool {
    let is_in = |address: IpAddr| networks.iter().any(|network| network.contains(&address.to_canonical()));
    let entries = forwarded.flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let mut entries = entries.filter(|entry| !entry.is_empty()).peekable();
    is_in(peer) && !(hidden && entries.peek().is_none()) && entries.all(|entry| parse(entry).is_some_and(is_in))
}

/// Reads `1.2.3.4`, `1.2.3.4:5`, `v6`, `[v6]` and `[v6]:5`; a zone after `%` is dropped.
fn parse(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let address = if let Ok(with_port) = text.parse::<SocketAddr>() {
        with_port.ip()
    } else {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let bare = bare.split_once('%').map_or(bare, |(address, _)| address);
        bare.parse().ok()?
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    /// Metrics are for those who are allowed, whatever a client or a proxy before them writes down.
    #[test]
    fn who_comes_from_elsewhere_does_not_come_from_here() {
        let here: Vec<IpNet> = ["127.0.0.0/8", "::1/128"].map(|network| network.parse().expect("a network")).to_vec();
        let from = |peer: &str, forwarded: &[&str], hidden| {
            let peer = peer.parse().expect("a test's peer is an address");
            all_from(&here, peer, forwarded.iter().map(|value| value.as_bytes()), hidden)
        };
        assert!(from("127.0.0.1", &[], false) && from("::1", &[], false) && from("::ffff:127.0.0.1", &[], false));
        assert!(from("127.0.0.1", &["127.0.0.1"], true), "a proxy of this machine, for a client of it");
        for (peer, forwarded, hidden) in [
            ("192.168.1.5", &[][..], false),
            ("192.168.1.5", &["127.0.0.1"], false),
            ("127.0.0.1", &["203.0.113.9"], false),
            ("127.0.0.1", &["127.0.0.1, 192.168.1.5"], false),
            ("127.0.0.1", &["127.0.0.1", "10.0.0.1"], false),
            ("127.0.0.1", &["unknown"], false),
            ("127.0.0.1", &[], true),
        ] {
            assert!(!from(peer, forwarded, hidden), "{peer} {forwarded:?} {hidden}");
        }
        assert!(!all_from(&[], "127.0.0.1".parse().expect("an address"), std::iter::empty(), false), "nobody");
    }

    /// COM-HDR-02: believed from a trusted peer only, walked from the right past trusted hops. COM-HDR-01: ports are
    /// cut, empty elements skipped, several headers are one list.
    #[test]
    fn only_what_trusted_hops_wrote_is_believed() {
        let trusted = TrustedProxies::new(Settings::default().http.trusted_proxies);
        let check = |peer: &str, forwarded: &[&str], client: &str| {
            let peer = peer.parse().expect("a test's peer is an address");
            let found = trusted.client_of(peer, forwarded.iter().map(|value| value.as_bytes()));
            assert_eq!(found.to_string(), client, "peer {peer}, forwarded {forwarded:?}");
        };
        // Nothing forwarded: the peer.
        check("203.0.113.9", &[], "203.0.113.9");
        check("127.0.0.1", &[], "127.0.0.1");
        check("127.0.0.1", &[""], "127.0.0.1");
        // A stranger's header is ignored, whatever it says.
        check("203.0.113.9", &["198.51.100.1"], "203.0.113.9");
        check("203.0.113.9", &["10.0.0.1"], "203.0.113.9");
        // A trusted peer's is believed.
        check("10.0.0.1", &["198.51.100.1"], "198.51.100.1");
        check("192.168.1.1", &["198.51.100.1:4711"], "198.51.100.1");
        check("172.31.0.1", &["[2001:db8::7]:443"], "2001:db8::7");
        check("fd00::1", &["2001:db8::7"], "2001:db8::7");
        check("fe80::1", &["[2001:db8::7]"], "2001:db8::7");
        check("::1", &["198.51.100.1"], "198.51.100.1");
        // A mapped peer is its IPv4 self, and so is a mapped entry.
        check("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1");
        check("::ffff:203.0.113.9", &["198.51.100.1"], "203.0.113.9");
        // Just outside the private ranges.
        check("172.32.0.1", &["198.51.100.1"], "172.32.0.1");
        check("11.0.0.1", &["198.51.100.1"], "11.0.0.1");
        // What the client itself put there stands left of what the proxy saw, and is not reached.
        check("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1");
        check("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2,10.0.0.3"], "198.51.100.1");
        check("10.0.0.1", &["1.1.1.1", "198.51.100.1, 10.0.0.2"], "198.51.100.1");
        check("10.0.0.1", &["198.51.100.1, , "], "198.51.100.1");
        // All hops are ours: the farthest.
        check("10.0.0.1", &["192.168.7.7, 10.0.0.2"], "192.168.7.7");
        // Garbage ends the walk where it was still believed.
        check("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["_hidden"], "10.0.0.1");
        check("10.0.0.1", &["fe80::9%eth0"], "fe80::9");
    }

    /// COM-HDR-02: the list is a setting; an empty one believes nobody.
    #[test]
    fn an_empty_list_believes_nobody() {
        let nobody = TrustedProxies::new(Vec::new());
        let peer: IpAddr = "127.0.0.1".parse().expect("an address");
        assert_eq!(nobody.client_of(peer, [b"198.51.100.1".as_slice()].into_iter()), peer);
    }
}
