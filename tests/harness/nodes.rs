//! Nodes of one store: where they are, where they stand, what records they have.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyward_storage::disk::RealDisk;
use keyward_storage::replication::{Role, Standing};
use keyward_storage::{Options as StoreOptions, Read, Storage};
use serde_json::Value;

use super::{Options, Server, Workspace};

/// How long a node may take to get somewhere.
const PATIENCE: Duration = Duration::from_secs(60);
/// What nodes of the tests know each other by.
pub const TOKEN: &str = "the-token-that-nodes-of-the-tests-know-each-other-by";

/// A port that nobody has: a node that is started again must be found where it was.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what} never came");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A workspace as another node has it.
pub fn on(workspace: &Workspace, server: &Arc<Server>) -> Workspace {
    Workspace { server: Arc::clone(server), id: workspace.id.clone(), root: workspace.root.clone() }
}

/// How a node is started: its ports stay the same when it starts again.
#[derive(Clone)]
pub struct Place {
    name: &'static str,
    http: u16,
    /// Where it answers other nodes.
    pub peers: u16,
}

impl Place {
    pub fn new(name: &'static str) -> Place {
        Place { name, http: free_port(), peers: free_port() }
    }

    /// As a follower of whoever answers at that port, or as the leader.
    pub fn options(&self, follow: Option<u16>) -> Options {
        let options = Options { listen: format!("127.0.0.1:{}", self.http), ..Options::default() }
            .setting("KEYWARD_REPLICATION_LISTEN", format!("127.0.0.1:{}", self.peers))
            .setting("KEYWARD_REPLICATION_TOKEN", TOKEN)
            .setting("KEYWARD_REPLICATION_NODE", self.name);
        match follow {
            Some(port) => options.setting("KEYWARD_REPLICATION_FOLLOW", format!("http://127.0.0.1:{port}")),
            None => options,
        }
    }
}

/// Waits until a node follows.
pub fn follows(server: &Server) {
    until("the stream", || server.log().contains("the leader's log is followed"));
}

pub fn status(server: &Server) -> Value {
    server.operate(&["status"]).json()
}

fn position(server: &Server) -> u64 {
    status(server)["storage"]["position"].as_u64().unwrap()
}

/// Waits until a follower has all that the leader has.
pub fn level(leader: &Server, follower: &Server) {
    until("the same position", || position(follower) >= position(leader));
}

/// A table's number, a row's key and its value.
type Row = (u16, Vec<u8>, Vec<u8>);

/// Every row of a stopped node's records, and its position.
fn records(dir: &Path) -> (u64, Vec<Row>) {
    let options = StoreOptions::new(dir, Arc::new(RealDisk), Arc::new(|| 0), [0; 32], Arc::new(|_| {}));
    let storage =
        Storage::open(StoreOptions { standing: Arc::new(Standing::new(Role::Follower)), ..options }).expect("it opens");
    let snapshot = storage.snapshot().unwrap();
    let mut rows = Vec::new();
    for table in 0..200 {
        let of_table = snapshot.range(table, &[], None, usize::MAX).unwrap();
        rows.extend(of_table.into_iter().map(|(key, value)| (table, key, value)));
    }
    (snapshot.position().0, rows)
}

/// Fails unless two stopped nodes have the same records, byte for byte.
pub fn same_records(one: &Server, other: &Server) {
    let (one, other) = (records(one.dir.path()), records(other.dir.path()));
    assert_eq!(one.0, other.0, "positions");
    for (a, b) in one.1.iter().zip(&other.1) {
        assert_eq!(a, b);
    }
    assert_eq!(one.1.len(), other.1.len(), "rows");
}
