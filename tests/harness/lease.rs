//! What keeps leases: etcd's own server, and a stand-in for the part of Kubernetes that does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::nodes::free_port;
use super::{Ask, Connection};

/// How long etcd may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// etcd's program: of this machine, or from Debian's package, unpacked into `target/`. `None` where neither is to be had.
fn program() -> Option<&'static Path> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/etcd");
        let unpacked = folder.join("usr/bin/etcd");
        if unpacked.is_file() {
            return Some(unpacked);
        }
        if let Ok(path) = std::env::var("PATH")
            && let Some(own) = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|file| file.is_file())
        {
            return Some(own);
        }
        std::fs::create_dir_all(&folder).ok()?;
        let fetch = "apt-get download etcd-server || { apt-get update && apt-get download etcd-server; }; \
                     for package in etcd-server_*.deb; do dpkg -x \"$package\" .; done";
        let _ = Command::new("sh").args(["-c", fetch]).current_dir(&folder).output();
        Some(unpacked).filter(|file| file.is_file())
    };
    FOUND.get_or_init(find).as_deref()
}

/// etcd, one server. Dropping it kills it.
pub struct Etcd {
    pub port: u16,
    peer_port: u16,
    /// Where it speaks TLS besides: the port, its certificate and the key.
    tls: Option<(u16, [String; 2])>,
    dir: TempDir,
    child: Option<Child>,
}

impl Etcd {
    /// Starts one. `None`, and a line that says so, where there is no etcd.
    pub fn start() -> Option<Etcd> {
        Etcd::start_with(None)
    }

    /// Starts one that speaks TLS at a port besides, with this certificate and its key.
    pub fn start_with(tls: Option<(u16, [String; 2])>) -> Option<Etcd> {
        if program().is_none() {
            println!("skipped: there is no etcd, and Debian's package etcd-server cannot be fetched");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("keyward-etcd-").tempdir().unwrap();
        let mut etcd = Etcd { port: free_port(), peer_port: free_port(), tls, dir, child: None };
        etcd.begin();
        Some(etcd)
    }

    /// Starts it again, with the data that it had.
    pub fn begin(&mut self) {
        let (client, peer) =
            (format!("http://127.0.0.1:{}", self.port), format!("http://127.0.0.1:{}", self.peer_port));
        let mut command = Command::new(program().unwrap());
        command.args(["--data-dir", self.dir.path().to_str().unwrap(), "--log-level", "error"]);
        let mut clients = client.clone();
        if let Some((port, [certificate, key])) = &self.tls {
            clients.push_str(&format!(",https://127.0.0.1:{port}"));
            command.args(["--cert-file", certificate, "--key-file", key]);
        }
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("default={peer}")]);
        self.child = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start etcd"));
        let begun = Instant::now();
        while self.ask("/v3/maintenance/status", &json!({})).is_none() {
            assert!(begun.elapsed() < PATIENCE, "etcd never answered");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// From here on it asks for this password of its user `root`.
    pub fn ask_for_password(&self, password: &str) {
        for (path, body) in [
            ("/v3/auth/role/add", json!({"name": "root"})),
            ("/v3/auth/user/add", json!({"name": "root", "password": password})),
            ("/v3/auth/user/grant", json!({"user": "root", "role": "root"})),
            ("/v3/auth/enable", json!({})),
        ] {
            assert!(self.ask(path, &body).is_some(), "{path}");
        }
    }

    fn ask(&self, path: &str, body: &Value) -> Option<Value> {
        let mut connection = Connection::open(SocketAddr::from(([127, 0, 0, 1], self.port))).ok()?;
        let ask = Ask::new("POST", path).header("Content-Type", "application/json").body(body.to_string());
        connection.exchange(&ask).ok().filter(|reply| reply.status == 200).map(|reply| reply.json)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The Lease API of Kubernetes as its reference describes it: objects by name, `resourceVersion`, 404, 409 and 401, and fields that
/// are checked. One namespace, `keys`.
pub struct Kubernetes {
    pub port: u16,
    state: Arc<Mutex<State>>,
}

struct State {
    token: String,
    version: u64,
    lease: Option<Value>,
}

impl Kubernetes {
    /// Starts one that wants this bearer token.
    pub fn start(token: &str) -> Kubernetes {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { token: token.to_owned(), version: 100, lease: None }));
        let shared = Arc::clone(&state);
        // It ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Kubernetes { port, state }
    }

    /// From here on another token counts.
    pub fn change_token(&self, token: &str) {
        self.state.lock().unwrap().token = token.to_owned();
    }

    /// The object, if there is one.
    pub fn lease(&self) -> Option<Value> {
        self.state.lock().unwrap().lease.clone()
    }

    /// Somebody puts something else in the place of the claim.
    pub fn overwrite(&self, claim: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.as_mut().expect("there is one");
        lease["metadata"]["annotations"]["keyward/claim"] = json!(claim);
        lease["metadata"]["resourceVersion"] = json!(version);
    }

    /// Somebody deletes the object.
    pub fn delete(&self) {
        self.state.lock().unwrap().lease = None;
    }

    /// Somebody notes something in the object.
    pub fn label(&self, name: &str, value: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.as_mut().expect("there is one");
        lease["metadata"]["labels"][name] = json!(value);
        lease["metadata"]["resourceVersion"] = json!(version);
    }
}

/// One request of a connection.
fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut first, mut length, mut bearer) = (String::new(), 0, String::new());
    if reader.read_line(&mut first).is_err() {
        return;
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        let Some((name, value)) = line.trim().split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => bearer = value.to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let mut words = first.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let (status, answer) = answer(&mut state.lock().unwrap(), method, path, &bearer, body);
    let text = answer.to_string();
    let _ = write!(
        stream,
        "HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
}

fn answer(state: &mut State, method: &str, path: &str, bearer: &str, body: Value) -> (u16, Value) {
    const COLLECTION: &str = "/apis/coordination.k8s.io/v1/namespaces/keys/leases";
    let status = |code: u16, reason: &str| {
        (code, json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}))
    };
    if bearer != format!("Bearer {}", state.token) {
        return status(401, "Unauthorized");
    }
    let name = path.strip_prefix(COLLECTION).map(|rest| rest.trim_start_matches('/').to_owned());
    let present =
        state.lease.clone().filter(|lease| name.as_deref().is_some_and(|name| lease["metadata"]["name"] == name));
    let there = state.lease.is_some();
    let mut store = |mut object: Value, code: u16| {
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        if let Some(spec) = object["spec"].as_object_mut() {
            spec.retain(|_, value| !value.is_null());
        }
        state.lease = Some(object.clone());
        (code, object)
    };
    match (method, name.as_deref()) {
        ("GET", Some(name)) if !name.is_empty() => {
            present.map_or_else(|| status(404, "NotFound"), |lease| (200, lease))
        }
        ("POST", Some("")) if !is_lease(&body) => status(422, "Invalid"),
        ("POST", Some("")) if there => status(409, "AlreadyExists"),
        ("POST", Some("")) if !body["metadata"]["resourceVersion"].is_null() => status(400, "BadRequest"),
        ("POST", Some("")) => store(body, 201),
        ("PUT", Some(name)) if !name.is_empty() => match present {
            _ if !is_lease(&body) || body["metadata"]["name"] != name => status(422, "Invalid"),
            None => status(404, "NotFound"),
            Some(lease) if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                status(409, "Conflict")
            }
            Some(_) => store(body, 200),
        },
        _ => status(404, "NotFound"),
    }
}

/// Whether the API server would take it.
fn is_lease(object: &Value) -> bool {
    let spec = &object["spec"];
    // RFC 3339 with six digits behind the second.
    let micro_time = |time: &Value| {
        time.as_str().is_some_and(|time| {
            let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
            shape == "0000-00-00T00:00:00.000000Z"
        })
    };
    let strings = |map: &Value| map.as_object().is_none_or(|map| map.values().all(Value::is_string));
    object["apiVersion"] == "coordination.k8s.io/v1"
        && object["kind"] == "Lease"
        && object["metadata"]["namespace"] == "keys"
        && strings(&object["metadata"]["annotations"])
        && (spec["holderIdentity"].is_null()
            || spec["holderIdentity"].as_str().is_some_and(|holder| !holder.is_empty()))
        && spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds > 0)
        && micro_time(&spec["renewTime"])
        && micro_time(&spec["acquireTime"])
        && spec["leaseTransitions"].as_i64().is_some_and(|count| count >= 0)
}
