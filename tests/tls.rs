//! TLS from a client's side: both protocols, who is let in, what changes while the server runs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keyward::tls::issue::{Issued, Purpose, authority, issue};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};
use serde_json::{Value, json};

use crate::harness::program::DataDir;
use crate::harness::{Options, Server, Workspace, keyward, now};

const PATIENCE: Duration = Duration::from_secs(60);
const NAME: &str = "keys.test.internal";
const DAY_MS: u64 = 24 * 3_600_000;

fn now_ms() -> u64 {
    u64::try_from(now()).unwrap()
}

/// An authority, and a directory for the files of a server.
struct Room {
    dir: DataDir,
    name: &'static str,
    authority: Issued,
}

impl Room {
    fn new(name: &'static str) -> Room {
        let dir = DataDir::named("tls");
        std::fs::create_dir(dir.path()).unwrap();
        let authority = authority(name, now_ms()).unwrap();
        std::fs::write(dir.path().join("ca.pem"), &authority.certificate).unwrap();
        Room { dir, name, authority }
    }

    fn issue(&self, name: &str, purpose: Purpose, days: u64, at_ms: u64) -> Issued {
        issue((self.name, &self.authority.key), &[name.to_owned()], purpose, days, at_ms).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts a certificate where the server looks for its own, each file in one step, as tools do.
    fn install(&self, issued: &Issued) {
        for (name, text, mode) in
            [("server.key", issued.key.as_str(), 0o600), ("server.pem", &issued.certificate, 0o644)]
        {
            let new = self.path("new");
            std::fs::write(&new, text).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::rename(&new, self.path(name)).unwrap();
        }
    }

    /// A server that answers in the clear at its first place and with TLS at its second.
    fn options(&self) -> Options {
        let options = Options { listen: "http://127.0.0.1:0,127.0.0.1:0".to_owned(), ..Options::default() };
        options
            .setting("KEYWARD_TLS_CERT_FILE", self.path("server.pem").display())
            .setting("KEYWARD_TLS_KEY_FILE", self.path("server.key").display())
    }

    fn start(&self, options: Options) -> (Server, SocketAddr) {
        let server = Server::start_with(DataDir::fresh(), options);
        let encrypted = encrypted_place(&server);
        (server, encrypted)
    }

    /// A client that trusts this room's authority.
    fn client(&self) -> Client {
        Client {
            roots: self.authority.certificate.clone(),
            own: None,
            versions: rustls::ALL_VERSIONS,
            protocols: vec![],
        }
    }
}

fn encrypted_place(server: &Server) -> SocketAddr {
    let log = server.log();
    let at = log.rfind("https://127.0.0.1:").expect("it says where it has TLS") + "https://".len();
    let end = log[at..].find(|sign: char| !sign.is_ascii_digit() && sign != '.' && sign != ':').unwrap();
    log[at..at + end].parse().unwrap()
}

#[derive(Clone)]
struct Client {
    roots: String,
    own: Option<(String, String)>,
    versions: &'static [&'static SupportedProtocolVersion],
    protocols: Vec<Vec<u8>>,
}

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    fn config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(self.roots.as_bytes()) {
            roots.add(root.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(self.versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        config.alpn_protocols = self.protocols.clone();
        Arc::new(config)
    }

    /// A connection with its handshake done.
    fn connect(&self, to: SocketAddr) -> io::Result<Encrypted> {
        self.connect_with(self.config(), to)
    }

    fn connect_with(&self, config: Arc<ClientConfig>, to: SocketAddr) -> io::Result<Encrypted> {
        let mut socket = TcpStream::connect(to)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(NAME).unwrap();
        let mut connection = ClientConnection::new(config, name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(connection, socket))
    }

    /// The answer to one GET on a connection of its own.
    fn get(&self, to: SocketAddr, path: &str) -> io::Result<String> {
        exchange(&mut self.connect(to)?, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
    }
}

/// Sends a request that is the last of its connection, and reads what comes.
fn exchange(stream: &mut (impl Read + Write), request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8(answer).unwrap())
}

/// The end of a name of an error, as TLS has it.
fn refused(outcome: io::Result<String>, words: &[&str]) {
    let error = outcome.expect_err("the connection must be refused").to_string();
    assert!(words.iter().any(|word| error.contains(word)), "{error}");
}

/// Waits for something that is about to come.
fn until(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < PATIENCE, "{what} never came");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The API over TLS 1.3 and 1.2, HTTP/1.1 and HTTP/2, beside a place without; whoever speaks in the clear to TLS, or does not
/// trust the authority, or asks for another name, gets nothing.
#[test]
fn both_protocols_are_spoken_over_tls() {
    let room = Room::new("a room");
    room.install(&room.issue(NAME, Purpose::Server, 90, now_ms()));
    let (server, encrypted) = room.start(room.options());
    let workspace = Workspace::on(&Arc::new(server));
    let api = workspace.api();
    let key = workspace.key(&api, json!({}));

    const ONE: &[&[&SupportedProtocolVersion]] = &[&[&rustls::version::TLS13], &[&rustls::version::TLS12]];
    for versions in ONE {
        let client = Client { versions, protocols: vec![b"http/1.1".to_vec()], ..room.client() };
        let mut connection = client.connect(encrypted).unwrap();
        assert_eq!(connection.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
        let body = json!({"key": key.secret}).to_string();
        let request = format!(
            "POST /v2/keys.verifyKey HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            workspace.root,
            body.len()
        );
        let answer = exchange(&mut connection, &request).unwrap();
        let answer: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(answer["data"]["code"], "VALID", "{answer}");
    }

    let client = Client { protocols: vec![b"h2".to_vec(), b"http/1.1".to_vec()], ..room.client() };
    let mut connection = client.connect(encrypted).unwrap();
    assert_eq!(connection.conn.alpn_protocol(), Some(&b"h2"[..]));
    let answer = http2_get(&mut connection, "/health/live").unwrap();
    assert_eq!(answer, r#"{"status":"ok"}"#);

    let mut clear = TcpStream::connect(encrypted).unwrap();
    clear.set_read_timeout(Some(PATIENCE)).unwrap();
    let answer = exchange(&mut clear, "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.is_err() || !answer.unwrap().starts_with("HTTP/"));

    let stranger = Room::new("another room");
    refused(stranger.client().get(encrypted, "/health/live"), &["UnknownIssuer", "BadSignature"]);
    room.install(&room.issue("elsewhere.internal", Purpose::Server, 90, now_ms()));
    workspace.server.signal(rustix::process::Signal::HUP);
    until("the certificate for another name", || room.client().get(encrypted, "/health/live").is_err());
    refused(room.client().get(encrypted, "/health/live"), &["NotValidForName", "not valid for name"]);
    assert_eq!(workspace.server.get("/health/live").status, 200, "the plain place does not mind");
}

/// RFC 9113: preface, settings, one request whose headers stand in HPACK's static table but for path and host; the body of the
/// answer.
fn http2_get(stream: &mut Encrypted, path: &str) -> io::Result<String> {
    let mut block = vec![0x82, 0x87, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(&[0x41, 1, b'x']);
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    bytes.extend_from_slice(&block);
    stream.write_all(&bytes)?;
    stream.flush()?;
    let mut body = Vec::new();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload)?;
        let (kind, flags, id) = (head[3], head[4], head[8]);
        if kind == 0 && id == 1 {
            body.extend_from_slice(&payload);
            if flags & 1 == 1 {
                return Ok(String::from_utf8(body).unwrap());
            }
        }
        assert!(kind != 3 && kind != 7, "the stream was reset: {head:?}");
    }
}

/// With authorities of clients named, a client needs a certificate of one of them: none, another's, an ended one or one for
/// servers is not let in.
#[test]
fn clients_can_be_asked_who_they_are() {
    let room = Room::new("a room");
    let guests = Room::new("guests");
    room.install(&room.issue(NAME, Purpose::Server, 90, now_ms()));
    let options = room.options().setting("KEYWARD_TLS_CLIENT_CA_FILE", guests.path("ca.pem").display());
    let (server, encrypted) = room.start(options);

    let with = |issued: Option<Issued>| {
        let own = issued.map(|issued| (issued.certificate, issued.key.to_string()));
        Client { own, ..room.client() }.get(encrypted, "/health/live")
    };
    let guest = |days, at| Some(guests.issue("ada", Purpose::Client, days, at));
    assert!(with(guest(10, now_ms())).unwrap().starts_with("HTTP/1.1 200"));
    refused(with(None), &["CertificateRequired", "certificate required"]);
    refused(with(Some(room.issue("ada", Purpose::Client, 10, now_ms()))), &["UnknownCA", "DecryptError", "unknown ca"]);
    refused(with(guest(10, now_ms() - 20 * DAY_MS)), &["CertificateExpired", "expired"]);
    assert!(with(Some(guests.issue("ada", Purpose::Server, 10, now_ms()))).is_err());
    assert!(with(guest(10, now_ms())).is_ok(), "and nobody else suffers");
    until("a line about them", || server.log().contains("TLS handshakes failed"));
    assert_eq!(server.get("/health/live").status, 200, "the plain place asks nobody");
}

/// A client that does not go on with its handshake is cut off, and others do not wait for it.
#[test]
fn a_slow_handshake_is_cut_off() {
    let room = Room::new("a room");
    room.install(&room.issue(NAME, Purpose::Server, 90, now_ms()));
    let options = room.options().setting("KEYWARD_TLS_HANDSHAKE_TIMEOUT_MS", 4000);
    // One that is slow has no turn, so that one turn is enough.
    let (server, encrypted) = room.start(options.setting("KEYWARD_TLS_MAX_HANDSHAKES", 1));
    let slow: Vec<TcpStream> = (0..20)
        .map(|n| {
            let mut socket = TcpStream::connect(encrypted).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            // Some begin, some do not.
            if n % 2 == 0 {
                socket.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01]).unwrap();
            }
            socket
        })
        .collect();
    assert!(room.client().get(encrypted, "/health/live").unwrap().starts_with("HTTP/1.1 200"));
    for mut socket in slow {
        let mut rest = Vec::new();
        let ended = socket.read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == io::ErrorKind::ConnectionReset, "it was left open");
    }
    assert_eq!(server.get("/health/live").status, 200);
}

/// Certificates that change under load cost no request: what was connected goes on, what connects next gets the new one. Files
/// that cannot be used change nothing, and the log says why.
#[test]
fn certificates_change_under_load() {
    let room = Room::new("a room");
    room.install(&room.issue(NAME, Purpose::Server, 60, now_ms()));
    // One connection sends its request at the very end.
    let (server, encrypted) = room.start(room.options().setting("KEYWARD_HTTP_HEADER_READ_TIMEOUT_MS", 120_000));
    let over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (client, over, answered) = (room.client(), Arc::clone(&over), Arc::clone(&answered));
            std::thread::spawn(move || {
                // One session's tickets are offered to whatever configuration comes next.
                let config = client.config();
                while !over.load(Ordering::Relaxed) {
                    let mut connection = client.connect_with(Arc::clone(&config), encrypted)?;
                    let request = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
                    let answer = exchange(&mut connection, request)?;
                    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, io::Error>(())
            })
        })
        .collect();
    let shown = |connection: &Encrypted| connection.conn.peer_certificates().unwrap()[0].to_vec();
    let own = |issued: &Issued| CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap().to_vec();
    let mut early = room.client().connect(encrypted).unwrap();

    // By itself, and when told.
    let second = room.issue(NAME, Purpose::Server, 61, now_ms());
    room.install(&second);
    until("the second certificate", || shown(&room.client().connect(encrypted).unwrap()) == own(&second));
    let third = room.issue(NAME, Purpose::Server, 62, now_ms());
    room.install(&third);
    server.signal(rustix::process::Signal::HUP);
    until("the third certificate", || shown(&room.client().connect(encrypted).unwrap()) == own(&third));

    // A key of another, no certificate at all, one that has ended.
    let fourth = room.issue(NAME, Purpose::Server, 63, now_ms());
    let ended = room.issue(NAME, Purpose::Server, 1, now_ms() - 2 * DAY_MS);
    for (name, text, word) in [
        ("server.pem", fourth.certificate.as_str(), "do not belong together"),
        ("server.pem", "not a certificate", "no certificate in PEM form"),
        ("server.key", "not a key", "no private key in PEM form"),
    ] {
        room.install(&third);
        std::fs::write(room.path(name), text).unwrap();
        server.signal(rustix::process::Signal::HUP);
        until(word, || server.log().contains(word));
    }
    room.install(&ended);
    until("the ended one", || server.log().contains("has ended already"));
    std::fs::remove_file(room.path("server.key")).unwrap();
    server.signal(rustix::process::Signal::HUP);
    until("the missing file", || server.log().contains("cannot read the private key file"));
    assert_eq!(shown(&room.client().connect(encrypted).unwrap()), own(&third), "the last good one stays");
    room.install(&fourth);
    until("the fourth certificate", || shown(&room.client().connect(encrypted).unwrap()) == own(&fourth));

    let before = answered.load(Ordering::Relaxed);
    until("load", || answered.load(Ordering::Relaxed) > before + 10);
    over.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap().expect("no request was lost"));
    let request = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(exchange(&mut early, request).unwrap().starts_with("HTTP/1.1 200"), "what was connected goes on");
    assert!(!server.log().contains("panic"), "{}", server.log());
}

/// What is wrong with the files is said before anything is made, in words that help; what is only unwise is said and done.
#[test]
fn a_start_says_what_is_wrong_with_its_files() {
    let room = Room::new("a room");
    room.install(&room.issue(NAME, Purpose::Server, 90, now_ms()));
    let other = room.issue(NAME, Purpose::Server, 90, now_ms());
    std::fs::write(room.path("other.key"), other.key.as_str()).unwrap();
    std::fs::write(
        room.path("encrypted.key"),
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAo=\n-----END ENCRYPTED PRIVATE KEY-----\n",
    )
    .unwrap();
    let dir = DataDir::fresh();
    let start = |cert: &str, key: &str| {
        let (cert, key) = (room.path(cert), room.path(key));
        crate::harness::keyward_with(
            &["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"],
            &[("KEYWARD_TLS_CERT_FILE", cert.to_str().unwrap()), ("KEYWARD_TLS_KEY_FILE", key.to_str().unwrap())],
        )
    };
    for (cert, key, words) in [
        ("server.pem", "none.key", &["cannot read the private key file", "none.key"][..]),
        ("server.pem", "other.key", &["do not belong together", "other.key"]),
        ("server.pem", "encrypted.key", &["is encrypted", "openssl pkey"]),
        ("server.key", "server.key", &["no certificate in PEM form", "server.key"]),
    ] {
        let refused = start(cert, key);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(words.iter().all(|word| refused.stderr.contains(word)), "{refused:?}");
    }
    assert!(!dir.path().exists(), "refused before anything was made");

    room.install(&room.issue(NAME, Purpose::Server, 5, now_ms()));
    std::fs::set_permissions(room.path("server.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let (server, encrypted) = room.start(room.options());
    for words in ["every user of this machine may read it", "ends within 7 days"] {
        assert!(server.log().contains(words), "{}", server.log());
    }
    assert!(room.client().get(encrypted, "/health/live").is_ok());
    server.kill();
    room.install(&room.issue(NAME, Purpose::Server, 1, now_ms() - 2 * DAY_MS));
    let (server, encrypted) = room.start(room.options());
    assert!(server.log().contains("has ended"), "{}", server.log());
    refused(room.client().get(encrypted, "/health/live"), &["Expired", "expired"]);
    assert_eq!(server.get("/health/live").status, 200);
}

/// `keyward tls self-signed` to a client's first answer, its renewal that no client notices, and what `tls show` says of it.
#[test]
fn a_room_without_an_authority_makes_its_own() {
    let home = DataDir::named("pki");
    let dir = home.text();
    let ask =
        ["tls", "self-signed", "--dir", dir, "--name", NAME, "--name", "10.0.0.7,*.x.internal", "--output", "json"];
    let made = keyward(&ask).json();
    let file = |name: &str| made[name].as_str().unwrap().to_owned();
    assert_eq!((made["authorityIsNew"].as_bool(), made["isRenewed"].as_bool()), (Some(true), Some(false)));
    let mode = |path: &str| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&file("caFile")), mode(&file("certFile")), mode(&file("keyFile"))], [0o644, 0o644, 0o600]);
    assert_eq!(mode(&format!("{dir}/ca.key")), 0o600);

    let options = Options { listen: "http://127.0.0.1:0,127.0.0.1:0".to_owned(), ..Options::default() }
        .setting("KEYWARD_TLS_CERT_FILE", file("certFile"))
        .setting("KEYWARD_TLS_KEY_FILE", file("keyFile"));
    let server = Server::start_with(DataDir::fresh(), options);
    let encrypted = encrypted_place(&server);
    let roots = std::fs::read_to_string(file("caFile")).unwrap();
    let client = Client { roots: roots.clone(), own: None, versions: rustls::ALL_VERSIONS, protocols: vec![] };
    assert!(client.get(encrypted, "/health/live").unwrap().starts_with("HTTP/1.1 200"));

    let shown = keyward(&["tls", "show", &file("certFile"), "--output", "json"]).json();
    let one = &shown["certificates"][0];
    assert_eq!(one["names"], json!([NAME, "10.0.0.7", "*.x.internal"]));
    assert_eq!((one["isAuthority"].as_bool(), one["notAfterMs"].as_u64()), (Some(false), made["notAfterMs"].as_u64()));
    let text = keyward(&["tls", "show", &file("caFile")]);
    assert!(text.stdout.contains("signs others  yes") && text.stdout.contains("days left"), "{text:?}");

    let renewed = keyward(&ask).json();
    assert_eq!((renewed["authorityIsNew"].as_bool(), renewed["isRenewed"].as_bool()), (Some(false), Some(true)));
    assert_eq!(std::fs::read_to_string(file("caFile")).unwrap(), roots, "what clients trust stays");
    let certificate = std::fs::read(file("certFile")).unwrap();
    let renewed = CertificateDer::from_pem_slice(&certificate).unwrap().to_vec();
    until("the renewed certificate", || {
        client.connect(encrypted).unwrap().conn.peer_certificates().unwrap()[0].to_vec() == renewed
    });

    let guest = keyward(&["tls", "self-signed", "--dir", dir, "--client", "ada", "--output", "json"]).json();
    assert!(Path::new(guest["certFile"].as_str().unwrap()).ends_with("ada.pem"));

    for (arguments, word) in [
        (&["--name", "https://keys.internal"][..], "only the host's name"),
        (&["--name", "another.internal"], "is also for"),
        (&["--client", "../x"], "cannot name a client"),
        (&["--client", "server"], "cannot name a client"),
    ] {
        let refused = keyward(&[&["tls", "self-signed", "--dir", dir], arguments].concat());
        assert!(refused.code == Some(1) && refused.stderr.contains(word), "{refused:?}");
    }
    std::fs::remove_file(format!("{dir}/ca.key")).unwrap();
    let refused = keyward(&ask);
    assert!(refused.code == Some(1) && refused.stderr.contains("put the authority's key there"), "{refused:?}");
    let text = keyward(&["tls", "self-signed", "--dir", DataDir::named("text").text(), "--name", "localhost"]);
    for word in ["cert_file = ", "NODE_EXTRA_CA_CERTS=", "SSL_CERT_FILE=", "curl --cacert"] {
        assert!(text.stdout.contains(word), "{text:?}");
    }
}
