//! Where the server listens: several places, Unix sockets, sockets that a service manager hands over; and what it tells that one.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::harness::program::{DataDir, FIRST_ROOT_KEY, binary};
use crate::harness::{Ask, Connection, Options, Server, keyward};

const PATIENCE: Duration = Duration::from_secs(60);

fn get(stream: &mut (impl Read + Write), path: &str) -> io::Result<String> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Several places are one server: IPv4, IPv6 and a Unix socket with its rights. The socket is not taken from whoever listens
/// on it, is replaced when nobody does, and goes away at the end. COM-HDR-01
#[test]
fn one_server_listens_at_several_places() {
    let home = DataDir::named("run");
    std::fs::create_dir(home.path()).unwrap();
    let socket = home.path().join("http.sock");
    // What a crash has left: a socket that nobody listens on.
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    let six = TcpListener::bind("[::1]:0").is_ok();
    let places = format!("127.0.0.1:0,unix:{}{}", socket.display(), if six { ",[::1]:0" } else { "" });
    let options = Options { listen: places.clone(), ..Options::default() };
    let server = Server::start_with(DataDir::fresh(), options.setting("KEYWARD_HTTP_UNIX_SOCKET_MODE", "0600"));

    let found = std::fs::symlink_metadata(&socket).unwrap();
    assert!(found.file_type().is_socket());
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    let answer = get(&mut UnixStream::connect(&socket).unwrap(), "/health/live").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(server.get("/health/live").status, 200);
    if six {
        let log = server.log();
        let at = log.find("http://[::1]:").expect("it says where") + "http://".len();
        let end = log[at..].find([' ', ',', '"']).unwrap();
        let six: SocketAddr = log[at..at + end].parse().unwrap();
        assert!(get(&mut TcpStream::connect(six).unwrap(), "/health/live").unwrap().starts_with("HTTP/1.1 200"));
    }

    let other = DataDir::fresh();
    let serve = |listen: &str| keyward(&["serve", "--data-dir", other.text(), "--listen", listen]);
    let refused = serve(&format!("unix:{}", socket.display()));
    assert!(refused.code == Some(1) && refused.stderr.contains("another process listens there"), "{refused:?}");
    let file = home.path().join("a-file");
    std::fs::write(&file, "precious").unwrap();
    let refused = serve(&format!("unix:{}", file.display()));
    assert!(refused.code == Some(1) && refused.stderr.contains("no socket"), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    assert!(!other.path().exists());

    assert_eq!(server.stop(), Some(0));
    assert!(!socket.exists(), "it goes with the server");
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1, "nothing else is left");
}

/// A server whose socket is handed over as systemd does it: descriptor 3, `LISTEN_FDS`, `LISTEN_PID`.
fn activated(dir: &DataDir, socket: OwnedFd, name: &str) -> Child {
    let script = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" serve --data-dir \"$1\"";
    let mut command = Command::new("sh");
    command.args(["-c", script, binary().to_str().unwrap(), dir.text()]);
    command.env("KEYWARD_ROOT_KEY", FIRST_ROOT_KEY).env("LISTEN_FDNAMES", name).env("NO_COLOR", "1");
    command.stdin(Stdio::from(socket)).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(id, signal).unwrap();
}

/// Waits for the end, and gives what was logged.
fn end(mut child: Child) -> String {
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    log
}

/// A server that restarts behind a socket that lives on refuses nobody: neither who connects for each request nor who keeps a
/// connection. Their requests wait, and are answered by one server or the next.
#[test]
fn a_restart_behind_a_handed_over_socket_loses_no_request() {
    let dir = DataDir::fresh();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let start = || activated(&dir, OwnedFd::from(listener.try_clone().unwrap()), "keyward.socket");
    let mut server = start();

    let over = Arc::new(AtomicBool::new(false));
    let answered: [Arc<AtomicUsize>; 2] = Default::default();
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (over, answered) = (Arc::clone(&over), Arc::clone(&answered[n % 2]));
            std::thread::spawn(move || -> io::Result<()> {
                let kept = n % 2 == 1;
                let mut connection: Option<Connection> = None;
                while !over.load(Ordering::Relaxed) {
                    let mut open = match connection.take() {
                        Some(open) => open,
                        None => Connection::open(addr)?,
                    };
                    let ask = Ask::new("GET", "/v2/liveness");
                    let reply = open.exchange(&if kept { ask } else { ask.header("Connection", "close") })?;
                    assert_eq!(reply.status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                    if kept && reply.header("connection") != Some("close") {
                        connection = Some(open);
                    }
                }
                Ok(())
            })
        })
        .collect();
    let more = |count: usize| {
        let wanted = answered.each_ref().map(|one| one.load(Ordering::Relaxed) + count);
        let begun = Instant::now();
        while answered.iter().zip(wanted).any(|(one, wanted)| one.load(Ordering::Relaxed) < wanted) {
            assert!(begun.elapsed() < PATIENCE, "nothing is answered any more");
            assert!(!clients.iter().any(|client| client.is_finished()), "a client has lost a request");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    more(100);
    for _ in 0..3 {
        send(&server, Signal::TERM);
        let log = end(server);
        assert!(log.contains("handed_over=true") && log.contains(&format!("http://{addr}")), "{log}");
        server = start();
        more(100);
    }
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap().expect("no request is lost"));
    send(&server, Signal::TERM);
    end(server);
}

/// The same with something to lose: verifications that spend credits go on over three restarts, and in the end as many credits
/// are spent as verifications were answered. None is lost, and none is counted twice by a client that had to ask again: none
/// has to.
#[test]
fn restarts_behind_a_handed_over_socket_spend_what_was_answered() {
    const CREDITS: u64 = 1_000_000_000;
    let dir = DataDir::fresh();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let start = || activated(&dir, OwnedFd::from(listener.try_clone().unwrap()), "keyward.socket");
    let ask = |operation: &str, body: &Value| {
        let ask = Ask::new("POST", &format!("/v2/{operation}")).header("Content-Type", "application/json");
        ask.header("Authorization", &format!("Bearer {FIRST_ROOT_KEY}")).body(body.to_string())
    };
    let call = |operation: &str, body: Value| {
        let reply = Connection::open(addr).unwrap().exchange(&ask(operation, &body)).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json["data"].clone()
    };
    let server = start();
    let api = call("apis.createApi", json!({"name": "restarts"}));
    let key = call("keys.createKey", json!({"apiId": api["apiId"], "credits": {"remaining": CREDITS}}));
    let verify = ask("keys.verifyKey", &json!({"key": key["key"]}));

    let over = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    let server = std::thread::scope(|scope| {
        for kept in [false, true, true] {
            let (over, answered, verify) = (&over, &answered, verify.clone());
            scope.spawn(move || {
                let verify = if kept { verify } else { verify.header("Connection", "close") };
                let mut connection: Option<Connection> = None;
                while !over.load(Ordering::Relaxed) {
                    let mut open =
                        connection.take().unwrap_or_else(|| Connection::open(addr).expect("nobody is refused"));
                    let reply = open.exchange(&verify).expect("no request is lost");
                    assert_eq!((reply.status, &reply.json["data"]["code"]), (200, &json!("VALID")));
                    answered.fetch_add(1, Ordering::Relaxed);
                    if kept && reply.header("connection") != Some("close") {
                        connection = Some(open);
                    }
                }
            });
        }
        let more = || {
            let (wanted, begun) = (answered.load(Ordering::Relaxed) + 200, Instant::now());
            // Where a client has failed the others go on, and its panic is told when all have ended.
            while answered.load(Ordering::Relaxed) < wanted && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        more();
        let mut server = server;
        for _ in 0..3 {
            send(&server, Signal::TERM);
            end(server);
            server = start();
            more();
        }
        over.store(true, Ordering::Relaxed);
        server
    });

    let left = call("keys.getKey", json!({"keyId": key["keyId"]}));
    assert_eq!(left["credits"]["remaining"], json!(CREDITS - answered.load(Ordering::Relaxed)));
    send(&server, Signal::TERM);
    end(server);
}

/// A Unix socket can be handed over, too; a name that asks for TLS where none is set up, and a descriptor that is no socket, are
/// refused in words.
#[test]
fn what_is_handed_over_is_looked_at() {
    let home = DataDir::named("run");
    std::fs::create_dir(home.path()).unwrap();
    let path = home.path().join("handed.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = activated(&DataDir::fresh(), OwnedFd::from(listener.try_clone().unwrap()), "http");
    let answer = get(&mut UnixStream::connect(&path).unwrap(), "/health/live").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    send(&server, Signal::TERM);
    end(server);
    assert!(path.exists(), "whoever made it keeps it");

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (descriptor, name, word) in [
        (OwnedFd::from(listener), "https", "TLS is asked for"),
        (OwnedFd::from(file), "http", "neither a TCP nor a Unix"),
    ] {
        let dir = DataDir::fresh();
        let output = activated(&dir, descriptor, name).wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && log.contains(word), "{log}");
        assert!(!dir.path().exists());
    }
}

/// What systemd hears, in its order: ready only when requests are answered, signs of life, a reload from its beginning to its
/// end, and the beginning of the end.
#[test]
fn the_service_manager_is_told() {
    let home = DataDir::named("run");
    std::fs::create_dir(home.path()).unwrap();
    let path = home.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = Options::default().setting("NOTIFY_SOCKET", path.display()).setting("WATCHDOG_USEC", 200_000);
    let server = Server::start_with(DataDir::fresh(), options);
    let hear = || {
        let mut bytes = [0; 1024];
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim_end().to_owned()
    };
    let next = || loop {
        match hear() {
            beat if beat == "WATCHDOG=1" => {}
            other => return other,
        }
    };
    assert_eq!(next(), "READY=1");
    for _ in 0..3 {
        while hear() != "WATCHDOG=1" {}
    }
    server.signal(Signal::HUP);
    let reloading = next();
    assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
    assert_eq!(next(), "READY=1");
    server.terminate();
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}
