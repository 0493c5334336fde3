//! Where connections come from - TCP addresses, Unix sockets, sockets that systemd hands over - and the streams they bring.
//!
//! Each listening socket is plain or has TLS in front; what is served on it does not differ. A stream is one of three kinds
//! behind an enum, so that reading from a plain one costs a predictable branch and nothing else.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::config::{Listen, Settings, Transport};
use crate::tls::{self, Tls};

/// Longest path of a Unix socket: what every system's socket addresses hold, less the name of the directory it is made in.
const UNIX_PATH_BYTES_MAX: usize = 88;
/// Where a Unix socket is made before it gets its name: a directory beside it that nobody else can enter.
const WORKSHOP: &str = ".kw.new";
/// Sockets that systemd may hand over.
const HANDED_OVER_MAX: usize = 64;
/// Whom a connection over a Unix socket comes from, as far as addresses go: this machine.
const LOCAL_PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A listening socket, open.
pub struct Listener {
    socket: Socket,
    tls: Option<Arc<Tls>>,
    /// As an operator knows it.
    name: String,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// Kept for as long as the socket is.
        _file: Option<SocketFile>,
    },
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Listener {
    /// What encrypts its connections.
    pub(super) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Where it really listens, for a port that was left to the system.
    ///
    /// # Errors
    /// It is no TCP socket.
    #[cfg(test)]
    pub(super) fn tcp_address(&self) -> io::Result<std::net::SocketAddr> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr(),
            Socket::Unix { .. } => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// The next connection, and whom it comes from.
    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, IpAddr)>> {
        match &self.socket {
            Socket::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                // Replies are written whole; waiting for more to send would only delay them.
                let _ = stream.set_nodelay(true);
                (Stream::Tcp(stream), peer.ip())
            }),
            Socket::Unix { listener, .. } => {
                listener.poll_accept(cx).map_ok(|(stream, _)| (Stream::Unix(stream), LOCAL_PEER))
            }
        }
    }
}

/// What a server listens on.
#[derive(Debug)]
pub struct Listeners {
    pub(super) all: Vec<Listener>,
    /// Whether somebody else holds them too, and goes on to hold them when this process is gone.
    pub(super) handed_over: bool,
}

impl Listeners {
    /// As an operator knows them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|listener| listener.name.as_str())
    }

    /// Whether systemd handed them over.
    pub fn are_handed_over(&self) -> bool {
        self.handed_over
    }
}

/// Opens everything the settings name; where systemd hands sockets over, takes these and nothing else. Needs a tokio runtime
/// around it.
///
/// # Errors
/// A sentence for the operator: what failed and what can be done about it.
pub async fn open(settings: &Settings, tls: Option<&Arc<Tls>>) -> Result<Listeners, String> {
    let handed_over = handed_over(tls)?;
    if !handed_over.is_empty() {
        return Ok(Listeners { all: handed_over, handed_over: true });
    }
    let mut all = Vec::with_capacity(settings.listen.len());
    for listen in &settings.listen {
        all.push(match listen {
            Listen::Tcp { address, transport } => {
                let tls = wrapping(*transport, tls).map_err(|why| format!("cannot listen on {address}: {why}"))?;
                bind(address, tls).await?
            }
            Listen::Unix(path) => bind_unix(path, settings.http.unix_socket_mode)?,
        });
    }
    Ok(Listeners { all, handed_over: false })
}

/// What goes in front of a TCP socket's connections.
fn wrapping(transport: Transport, tls: Option<&Arc<Tls>>) -> Result<Option<Arc<Tls>>, String> {
    match (transport, tls) {
        (Transport::Plain, _) => Ok(None),
        (Transport::Default, tls) => Ok(tls.cloned()),
        (Transport::Tls, Some(tls)) => Ok(Some(Arc::clone(tls))),
        (Transport::Tls, None) => Err("TLS is asked for, and tls.cert_file and tls.key_file are not set; \
             `keyward tls self-signed` makes a certificate"
            .to_owned()),
    }
}

/// Opens a TCP socket. `address` is `HOST:PORT`; a name with several addresses gets the first that works.
///
/// # Errors
/// A sentence for the operator.
pub async fn bind(address: &str, tls: Option<Arc<Tls>>) -> Result<Listener, String> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another process has that port; stop it, or choose another with --listen",
            io::ErrorKind::PermissionDenied => {
                "this user may not use that port; choose one from 1024 up with --listen, or grant CAP_NET_BIND_SERVICE"
            }
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; use one of its own, or 0.0.0.0 for all, with --listen"
            }
            _ => "check the host and the port given with --listen",
        };
        format!("cannot listen on {address}: {error}; {advice}")
    })?;
    let name = tcp_name(listener.local_addr().ok(), address, tls.is_some());
    Ok(Listener { socket: Socket::Tcp(listener), tls, name })
}

fn tcp_name(address: Option<std::net::SocketAddr>, asked: &str, tls: bool) -> String {
    let scheme = if tls { "https" } else { "http" };
    address.map_or_else(|| format!("{scheme}://{asked}"), |address| format!("{scheme}://{address}"))
}

/// The file of a Unix socket that we made; it goes with the socket, unless another has taken its place.
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: &fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).as_ref().is_ok_and(ours) {
            // Left behind it is stale, which the next start sees.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Opens a Unix socket with this mode. A socket that is there already is replaced only when nobody listens on it.
///
/// # Errors
/// A sentence for the operator.
#[expect(clippy::disallowed_methods, reason = "a socket is not data: nothing of it has to outlive the process")]
fn bind_unix(path: &Path, mode: u32) -> Result<Listener, String> {
    let shown = path.display();
    let fail = |what: &str, error: io::Error| format!("cannot listen on unix:{shown}: {what}: {error}");
    if path.as_os_str().len() > UNIX_PATH_BYTES_MAX {
        return Err(format!("cannot listen on unix:{shown}: a socket's path has at most {UNIX_PATH_BYTES_MAX} bytes"));
    }
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("looking at what is there", error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(format!("cannot listen on unix:{shown}: something is there that is no socket; move it away"));
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => {
                return Err(format!(
                    "cannot listen on unix:{shown}: another process listens there; stop it, or choose another path"
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                tracing::info!(path = %shown, "replacing a socket that nobody listens on");
            }
            Err(error) => return Err(fail("seeing whether somebody listens there", error)),
        },
    }

    // A socket gets its mode from the process's umask and is there from `bind` on. So it is made where only we can enter,
    // gets its mode there, and then its name, in one step that also replaces a stale one.
    let workshop = path.with_file_name(WORKSHOP);
    match fs::remove_dir_all(&workshop) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail("clearing leftovers", error)),
        _ => {}
    }
    DirBuilder::new()
        .mode(0o700)
        .create(&workshop)
        .map_err(|error| fail("making a private directory beside it", error))?;
    let made = workshop.join("s");
    let listener = UnixListener::bind(&made).map_err(|error| fail("binding it", error))?;
    fs::set_permissions(&made, Permissions::from_mode(mode)).map_err(|error| fail("setting its mode", error))?;
    fs::rename(&made, path).map_err(|error| fail("giving it its name", error))?;
    fs::remove_dir(&workshop).map_err(|error| fail("removing the private directory", error))?;
    let found = fs::symlink_metadata(path).map_err(|error| fail("looking at it", error))?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    Ok(Listener { socket: Socket::Unix { listener, _file: Some(file) }, tls: None, name: format!("unix:{shown}") })
}

/// The sockets that systemd hands over (`sd_listen_fds(3)`); none where it hands over none. A socket unit says by its
/// `FileDescriptorName` whether TLS goes in front: `http` is plain, `https` has it, any other has it where it is set up.
fn handed_over(tls: Option<&Arc<Tls>>) -> Result<Vec<Listener>, String> {
    let fail = |why: &dyn fmt::Display| format!("cannot take the sockets that systemd hands over: {why}");
    let offered: Vec<_> = sd_notify::listen_fds_with_names().map_err(|error| fail(&error))?.collect();
    if offered.len() > HANDED_OVER_MAX {
        return Err(fail(&format_args!("there are {}, and {HANDED_OVER_MAX} is the most", offered.len())));
    }
    let mut taken = Vec::with_capacity(offered.len());
    for (number, name) in offered {
        let socket = adopt(number).map_err(|error| fail(&error))?;
        let transport = match name.as_str() {
            "http" => Transport::Plain,
            "https" => Transport::Tls,
            _ => Transport::Default,
        };
        let unix = std::os::unix::net::UnixListener::from(socket);
        taken.push(if unix.local_addr().is_ok() {
            let path = unix.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
            let listener = unix.set_nonblocking(true).and_then(|()| UnixListener::from_std(unix));
            let listener = listener.map_err(|error| fail(&error))?;
            let name = path.map_or_else(|| "unix:(unnamed)".to_owned(), |path| format!("unix:{}", path.display()));
            Listener { socket: Socket::Unix { listener, _file: None }, tls: None, name }
        } else {
            let tcp = std::net::TcpListener::from(OwnedFd::from(unix));
            let address = tcp
                .local_addr()
                .map_err(|_| fail(&format_args!("descriptor {number} ({name}) is neither a TCP nor a Unix socket")))?;
            let tls = wrapping(transport, tls).map_err(|why| fail(&format_args!("{address}: {why}")))?;
            let listener = tcp.set_nonblocking(true).and_then(|()| TcpListener::from_std(tcp));
            let listener = listener.map_err(|error| fail(&error))?;
            let name = tcp_name(Some(address), "", tls.is_some());
            Listener { socket: Socket::Tcp(listener), tls, name }
        });
    }
    Ok(taken)
}

/// Makes an inherited descriptor ours. Owning a bare number is a promise the compiler cannot check, so the kernel is asked for
/// a descriptor of the same socket instead (`pidfd_getfd(2)` on ourselves, Linux 5.6); the inherited one stays open beside it,
/// as the service manager's does.
#[cfg(target_os = "linux")]
fn adopt(number: std::os::fd::RawFd) -> Result<OwnedFd, String> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let copied =
        pidfd_open(getpid(), PidfdFlags::empty()).and_then(|own| pidfd_getfd(own, number, PidfdGetfdFlags::empty()));
    copied.map_err(|error| {
        format!(
            "descriptor {number}: {error}; this takes Linux 5.6, and in a unit with SystemCallFilter= the calls pidfd_open and \
             pidfd_getfd allowed"
        )
    })
}

#[cfg(not(target_os = "linux"))]
fn adopt(number: std::os::fd::RawFd) -> Result<OwnedFd, String> {
    Err(format!("descriptor {number}: this system has no systemd"))
}

/// The bytes of a connection.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Boxed once, when its handshake is done: it is ten times as large as the others.
    Tls(Box<tls::Stream>),
}

/// Calls the same method of whichever stream it is.
macro_rules! on_stream {
    ($stream:expr, $inner:ident => $call:expr) => {
        match $stream {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Tls($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut *self, inner => Pin::new(inner).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        on_stream!(&mut *self, inner => Pin::new(inner).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(&mut *self, inner => Pin::new(inner).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        on_stream!(self, inner => inner.is_write_vectored())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut *self, inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(&mut *self, inner => Pin::new(inner).poll_shutdown(cx))
    }
}
