//! Events sent to syslog: RFC 5424 messages, over a datagram socket of this machine, UDP (RFC 5426), or TCP with the length
//! before each message (RFC 6587, octet counting).
//!
//! Syslog confirms nothing. A datagram socket of this machine takes a message or says that it does not; of UDP and TCP the
//! system may have taken what never arrives. A TCP connection that its other end has closed is noticed before the next batch.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use super::export::Outgoing;
use crate::api::audit_event;
use crate::auth::instant;
use crate::config::SyslogAddress;

/// Facility 13 (log audit) and severity 5 (notice).
const PRIORITY: u8 = 13 * 8 + 5;
/// How long a connection may take, and a message.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest event name that fits a MSGID.
const MSGID_BYTES: usize = 32;
/// Where Linux says what the machine is called.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

enum Connection {
    Local(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// A syslog daemon, connected when there is something to send.
pub struct SyslogTarget {
    address: SyslogAddress,
    connection: Option<Connection>,
    hostname: String,
}

impl SyslogTarget {
    /// The daemon that listens there.
    pub fn new(address: SyslogAddress) -> SyslogTarget {
        SyslogTarget { address, connection: None, hostname: hostname() }
    }

    /// Sends all of these. After an error they are to come again: some may have been sent.
    pub fn send(&mut self, events: &[Outgoing<'_>]) -> io::Result<()> {
        let mut connection = match self.connection.take().filter(is_alive) {
            Some(connection) => connection,
            None => connect(&self.address)?,
        };
        for event in events {
            let message = self.message(event, &event.line);
            match send_one(&mut connection, &message) {
                Err(error) if is_too_large(&error) => {
                    let mut short = Vec::new();
                    audit_event::write_short_line(event.workspace, event.event, &mut short);
                    send_one(&mut connection, &self.message(event, &short))?;
                }
                sent => sent?,
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// `<PRI>1 TIME HOST APP PROCID MSGID SD MSG`.
    fn message(&self, event: &Outgoing<'_>, line: &[u8]) -> Vec<u8> {
        let name = &event.event.event;
        let is_plain = name.len() <= MSGID_BYTES && name.bytes().all(|byte| byte.is_ascii_graphic());
        let msgid = if is_plain && !name.is_empty() { name } else { "-" };
        // Beyond the calendar's end there is no time to give.
        let time = Some(instant(event.event.time)).filter(|time| !time.contains(' ')).unwrap_or_else(|| "-".to_owned());
        let head = format!("<{PRIORITY}>1 {time} {} keyward - {msgid} - ", self.hostname);
        [head.as_bytes(), line.strip_suffix(b"\n").unwrap_or(line)].concat()
    }
}

fn connect(address: &SyslogAddress) -> io::Result<Connection> {
    match address {
        SyslogAddress::Local(path) => {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Connection::Local(socket))
        }
        SyslogAddress::Udp(host) => {
            let peer = resolve(host)?;
            let any = if peer.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any)?;
            socket.connect(peer)?;
            socket.set_write_timeout(Some(PATIENCE))?;
            Ok(Connection::Udp(socket))
        }
        SyslogAddress::Tcp(host) => {
            let stream = TcpStream::connect_timeout(&resolve(host)?, PATIENCE)?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Connection::Tcp(stream))
        }
    }
}

fn resolve(host: &str) -> io::Result<std::net::SocketAddr> {
    host.to_socket_addrs()?.next().ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("{host} has no address")))
}

/// Whether a stream's other end is still there, as far as it has said; nothing is expected from it.
fn is_alive(connection: &Connection) -> bool {
    let Connection::Tcp(stream) = connection else { return true };
    let look = || {
        stream.set_nonblocking(true)?;
        let seen = (&*stream).read(&mut [0]);
        stream.set_nonblocking(false)?;
        seen
    };
    match look() {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}

fn send_one(connection: &mut Connection, message: &[u8]) -> io::Result<()> {
    match connection {
        Connection::Local(socket) => socket.send(message).map(drop),
        Connection::Udp(socket) => socket.send(message).map(drop),
        Connection::Tcp(stream) => stream.write_all(&[format!("{} ", message.len()).as_bytes(), message].concat()),
    }
}

/// Whether a datagram does not fit its transport.
fn is_too_large(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// What the machine is called, or `-` where that is not known or cannot stand in a message.
fn hostname() -> String {
    let name = std::fs::read_to_string(HOSTNAME_FILE).unwrap_or_default();
    let name = name.trim();
    let fits = !name.is_empty() && name.len() <= 255 && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { name.to_owned() } else { "-".to_owned() }
}
