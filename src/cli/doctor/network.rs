//! Sockets and TLS: can clients reach the server, and does it prove who it is.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::Finding;
use crate::config::{Listen, Settings, Transport};
use crate::http::admin::with_socket_path;
use crate::otlp;
use crate::outside::Clock;
use crate::telemetry::error_chain;
use crate::tls::Tls;
use crate::tls::certificates::{self, Certificate, Expiry};
use crate::tls::files;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Connections that the server asks the system to hold until it takes them.
const BACKLOG: u64 = 1024;
/// What clients without a setting for the server always call.
const UNKEY: &str = "api.unkey.com";
/// Where that is explained.
const RECIPE: &str = "packaging/docs/clients-without-base-url.md";

/// Looks at the files of TLS as the server would. The certificates, where they can be used.
pub(super) fn tls(settings: &Settings, clock: &Clock, findings: &mut Vec<Finding>) -> Option<Vec<Certificate>> {
    let check = "tls.files";
    if !settings.tls.is_on() {
        findings.push(Finding::ok(check, "TLS is not set up"));
        return None;
    }
    let usable = Tls::open(&settings.tls, clock.clone())
        .and_then(|_| files::read(&settings.tls))
        .and_then(|(_, material)| Ok((material.remarks(), material.certificates()?)));
    let (remarks, chain) = match usable {
        Ok(usable) => usable,
        Err(error) => {
            let advice = "the server would not start; `keyward tls show FILE` shows what a certificate says";
            findings.push(Finding::problem(check, error_chain(&error), advice));
            return None;
        }
    };
    findings.push(match remarks.into_iter().next() {
        None => Finding::ok(check, format!("certificate and key fit; for {}", chain[0].names.join(", "))),
        Some(remark) => Finding::warning(check, remark, "a key that others have read is to be replaced"),
    });
    findings.push(expiry(&chain, clock.now_ms()));
    Some(chain)
}

fn expiry(chain: &[Certificate], now_ms: u64) -> Finding {
    let check = "tls.expiry";
    let ends = chain.iter().map(|one| one.not_after_ms).min().unwrap_or_default();
    let text = format!("the first certificate of the chain ends on {}", certificates::date(ends));
    let advice = "put a new one in its place (`keyward tls self-signed` renews its own); the running server takes it within seconds";
    match chain.iter().map(|one| one.expiry(now_ms)).max().unwrap_or(Expiry::Far) {
        Expiry::Far => Finding::ok(check, text),
        Expiry::Within30Days => Finding::warning(check, text, advice),
        Expiry::Within7Days => Finding::problem(check, text, advice),
        Expiry::NotYet => Finding::problem(check, "a certificate does not hold yet", "is the clock right?"),
        Expiry::Over => Finding::problem(check, format!("{text}: clients refuse it"), advice),
    }
}

pub(super) fn look(settings: &Settings, chain: Option<&[Certificate]>) -> Vec<Finding> {
    let runs = with_socket_path(&settings.data_dir, |path| UnixStream::connect(path)).is_ok();
    let mut findings: Vec<Finding> = settings.listen.iter().map(|listen| place(settings, listen, runs)).collect();
    findings.push(reach(settings));
    findings.push(backlog());
    findings.extend(telemetry(settings));
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    findings.push(unkey(settings, chain, &hosts));
    findings
}

/// One place to listen at: free where no server runs, and answering where one does.
fn place(settings: &Settings, listen: &Listen, runs: bool) -> Finding {
    let check = "network.listen";
    let (address, transport) = match listen {
        Listen::Tcp { address, transport } => (address, *transport),
        Listen::Unix(path) => {
            let shown = path.display();
            return match (UnixStream::connect(path).is_ok(), runs) {
                (true, true) => Finding::ok(check, format!("the server listens on unix:{shown}")),
                (true, false) => Finding::problem(
                    check,
                    format!("another process listens on unix:{shown}"),
                    "stop it, or name another path in `listen`",
                ),
                (false, true) => Finding::warning(
                    check,
                    format!("the server runs and does not listen on unix:{shown}"),
                    "restart it if `listen` was changed; if systemd hands its sockets over, that is where it listens",
                ),
                (false, false) => Finding::ok(check, format!("unix:{shown} is free")),
            };
        }
    };
    if !runs {
        return match TcpListener::bind(address) {
            Ok(_) => Finding::ok(check, format!("{address} is free")),
            Err(error) => Finding::problem(
                check,
                format!("{address} cannot be listened on: {error}"),
                "stop what has it (ss -ltnp), or name another place in `listen`; where systemd has it for the server, stop its \
                 .socket unit before you run this",
            ),
        };
    }
    let plain = transport == Transport::Plain || transport == Transport::Default && !settings.tls.is_on();
    match ask(address, plain) {
        Ok(()) => Finding::ok(check, format!("the server answers on {address}")),
        Err(why) => Finding::warning(
            check,
            format!("the server runs and does not answer on {address}: {why}"),
            "restart it if `listen` was changed; if systemd hands its sockets over, that is where it listens",
        ),
    }
}

/// Whether a server answers there; with TLS, whether it takes a connection.
fn ask(address: &str, plain: bool) -> Result<(), String> {
    let to = resolve(address).ok_or("its host has no address")?;
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).map_err(|error| error.to_string())?;
    if !plain {
        return Ok(());
    }
    let exchange = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: doctor\r\nConnection: close\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).map(|()| answer)
    };
    match exchange(&mut stream) {
        Ok(answer) if &answer == b"HTTP/1.1 200" => Ok(()),
        Ok(answer) => Err(format!("it says {:?}", String::from_utf8_lossy(&answer))),
        Err(error) => Err(error.to_string()),
    }
}

/// An address that stands for one of this machine's.
fn resolve(address: &str) -> Option<SocketAddr> {
    let mut to = address.to_socket_addrs().ok()?.next()?;
    if to.ip().is_unspecified() {
        to.set_ip(if to.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    Some(to)
}

/// Who can reach the server, and who can read along.
fn reach(settings: &Settings) -> Finding {
    let check = "network.reach";
    let mut open = settings.listen.iter().filter_map(|listen| match listen {
        Listen::Tcp { address, transport } => {
            let local = address.to_socket_addrs().is_ok_and(|mut all| all.all(|one| one.ip().is_loopback()));
            let plain = *transport == Transport::Plain || *transport == Transport::Default && !settings.tls.is_on();
            (!local).then_some((address, plain))
        }
        Listen::Unix(_) => None,
    });
    let Some(first) = open.next() else {
        return Finding::note(
            check,
            "only programs on this machine reach the server",
            "for others name an address of this machine in `listen`, with TLS, or put a proxy in front",
        );
    };
    match std::iter::once(first).chain(open).find(|(_, plain)| *plain) {
        Some((address, _)) => Finding::warning(
            check,
            format!("{address} is reached from other machines without TLS: root keys and keys can be read on the way"),
            "set tls.cert_file and tls.key_file (`keyward tls self-signed` makes them), or let only a proxy with TLS reach it",
        ),
        None => Finding::ok(check, "other machines reach the server with TLS alone"),
    }
}

/// Whether the collector of telemetry takes what it is sent.
fn telemetry(settings: &Settings) -> Option<Finding> {
    let check = "network.telemetry";
    let shown = settings.telemetry.otlp_endpoint.as_ref()?.to_string();
    Some(match otlp::probe(settings)? {
        Ok(()) => Finding::ok(check, format!("the collector at {shown} takes what it is sent")),
        Err(why) => Finding::warning(
            check,
            format!("the collector at {shown} does not take what it is sent: {why}"),
            "traces and metrics are lost to it, and requests are answered as ever; correct telemetry.otlp_endpoint, or start it",
        ),
    })
}

/// Clients that connect at the same moment wait in a queue of the system's; a short one turns them away.
fn backlog() -> Finding {
    let check = "network.backlog";
    let path = "/proc/sys/net/core/somaxconn";
    match fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok()) {
        None => Finding::note(check, "cannot be seen here", "on macOS: sysctl kern.ipc.somaxconn"),
        Some(most) if most < BACKLOG => Finding::warning(
            check,
            format!("the system holds {most} connections until they are taken"),
            format!("sysctl -w net.core.somaxconn={BACKLOG}, and a file in /etc/sysctl.d/ for the next start"),
        ),
        Some(most) => {
            Finding::ok(check, format!("the system holds up to {} connections until they are taken", most.min(BACKLOG)))
        }
    }
}

/// Clients without a setting for the server: do name, certificate and port fit together.
fn unkey(settings: &Settings, chain: Option<&[Certificate]>, hosts: &str) -> Finding {
    let check = "clients.unkey_name";
    let named = hosts
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .any(|line| line.split_whitespace().skip(1).any(|name| name == UNKEY));
    let certified = chain.is_some_and(|chain| chain.first().is_some_and(|own| own.is_for(UNKEY)));
    let on_443 = settings.listen.iter().any(|listen| {
        matches!(listen, Listen::Tcp { address, transport } if address.ends_with(":443") && *transport != Transport::Plain)
    });
    match (named, certified) {
        (false, false) => Finding::note(
            check,
            "SDKs reach this server by their setting for the base URL; @unkey/hono and @unkey/nextjs have none",
            format!("where you use these two, see {RECIPE}"),
        ),
        (true, false) => Finding::problem(
            check,
            format!("/etc/hosts leads {UNKEY} elsewhere, and the certificate here is not for that name"),
            format!("keyward tls self-signed --name {UNKEY} and your own names; see {RECIPE}"),
        ),
        (_, true) if !on_443 => Finding::warning(
            check,
            format!(
                "the certificate is for {UNKEY}, and nothing here listens on port 443 with TLS, which clients call"
            ),
            "add 0.0.0.0:443 to `listen`, or lead that port here",
        ),
        (_, true) => Finding::ok(check, format!("clients that only know {UNKEY} can be led here")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    fn listening(places: &[(&str, Transport)]) -> Settings {
        let listen = |(address, transport): &(&str, Transport)| Listen::Tcp {
            address: (*address).to_owned(),
            transport: *transport,
        };
        Settings { listen: places.iter().map(listen).collect(), ..Settings::default() }
    }

    /// Keys that travel in the clear are worth a word, whichever of several places it is.
    #[test]
    fn plain_places_that_others_reach_are_told() {
        use Transport::*;
        for (places, state) in [
            (&[("127.0.0.1:1", Default), ("[::1]:1", Plain)][..], State::Note),
            (&[("0.0.0.0:1", Default)], State::Warning),
            (&[("0.0.0.0:1", Tls)], State::Ok),
            (&[("0.0.0.0:1", Tls), ("192.0.2.1:2", Plain), ("127.0.0.1:3", Plain)], State::Warning),
        ] {
            assert_eq!(reach(&listening(places)).state, state, "{places:?}");
        }
    }

    /// A place that another process has is wrong; a free one is not.
    #[test]
    fn a_taken_port_is_a_problem() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("bound").to_string();
        let settings = listening(&[(&address, Transport::Default)]);
        assert_eq!(place(&settings, &settings.listen[0], false).state, State::Problem);
        drop(taken);
        assert_eq!(place(&settings, &settings.listen[0], false).state, State::Ok);
    }

    /// The recipe's three parts - hosts entry, certificate, port - are seen to fit together.
    #[test]
    fn the_recipe_for_clients_without_a_setting_is_looked_at_as_a_whole() {
        let now = 1_790_000_000_000;
        let authority = crate::tls::issue::authority("a", now).expect("made");
        let names = ["api.unkey.com".to_owned()];
        let purpose = crate::tls::issue::Purpose::Server;
        let issued = crate::tls::issue::issue(("a", &authority.key), &names, purpose, 10, now).expect("made");
        let chain = certificates::read_pem(issued.certificate.as_bytes()).expect("readable");
        let hosts = "127.0.0.1 localhost\n10.0.0.7 keys.internal api.unkey.com # ours\n";
        let (elsewhere, here) =
            (listening(&[("0.0.0.0:7070", Transport::Tls)]), listening(&[("0.0.0.0:443", Transport::Tls)]));
        for (settings, chain, hosts, state) in [
            (&elsewhere, None, "", State::Note),
            (&elsewhere, None, "# 10.0.0.7 api.unkey.com", State::Note),
            (&here, None, hosts, State::Problem),
            (&elsewhere, Some(&chain[..]), hosts, State::Warning),
            (&here, Some(&chain[..]), hosts, State::Ok),
            (&here, Some(&chain[..]), "", State::Ok),
        ] {
            assert_eq!(unkey(settings, chain, hosts).state, state);
        }
        assert_eq!(expiry(&chain, now).state, State::Warning);
        assert_eq!(expiry(&chain, now + 5 * 24 * 3_600_000).state, State::Problem);
        assert_eq!(expiry(&chain, now + 11 * 24 * 3_600_000).state, State::Problem);
    }
}
