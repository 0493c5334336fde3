//! Workspaces, keys and root keys to test with. Tests share two servers and have a workspace of their own each.

use std::sync::{Arc, Mutex, Weak};

use serde_json::{Value, json};

use super::call::Call;
use super::program::{DataDir, Options, Server};

/// The action that covers everything, to be put behind `unkey:v1:<workspace>:`.
pub const ADMINISTRATOR: &str = "**#*";

/// A key as createKey answers it.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

/// A root key as the command line answers it.
#[derive(Clone, Debug)]
pub struct RootKey {
    pub id: String,
    pub secret: String,
}

/// A workspace on some server, with a root key that may do everything.
pub struct Workspace {
    pub server: Arc<Server>,
    pub id: String,
    pub root: String,
}

/// The servers that tests share: alive while some test uses them, and gone when the last one ends.
static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
static SHARED_TIMED: Mutex<Weak<Server>> = Mutex::new(Weak::new());

fn shared(slot: &Mutex<Weak<Server>>, options: Options) -> Arc<Server> {
    let mut slot = slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Server::start_with(DataDir::fresh(), options));
        *slot = Arc::downgrade(&server);
        server
    })
}

impl Workspace {
    /// A new workspace on the shared server.
    pub fn new() -> Workspace {
        Workspace::on(&shared(&SHARED, Options::default()))
    }

    /// A new workspace on the shared server in test mode.
    pub fn timed() -> Workspace {
        Workspace::on(&shared(&SHARED_TIMED, Options::timed()))
    }

    /// A new workspace on this server.
    pub fn on(server: &Arc<Server>) -> Workspace {
        let made = server.operate(&["workspace", "create", "--name", "a workspace of the tests"]).json();
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
        Workspace { server: Arc::clone(server), id: text("workspaceId"), root: text("rootKey") }
    }

    /// Another workspace on the same server.
    pub fn neighbour(&self) -> Workspace {
        Workspace::on(&self.server)
    }

    /// The same workspace seen on another process (after a restart).
    pub fn moved(&self, server: Server) -> Workspace {
        Workspace { server: Arc::new(server), id: self.id.clone(), root: self.root.clone() }
    }

    /// A call with the root key that may do everything.
    pub fn call(&self, operation: &str, body: Value) -> Call<'_> {
        self.server.call(operation, body).bearer(&self.root)
    }

    /// The data of a call that must succeed.
    pub fn ok(&self, operation: &str, body: Value) -> Value {
        self.call(operation, body).expect_ok()
    }

    /// All rows of a list, page by page with this many a page, following cursors to the end (COM-PAG-02).
    pub fn all(&self, operation: &str, members: Value, limit: u64) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut body = members.clone();
            body["limit"] = limit.into();
            if let Some(cursor) = &cursor {
                body["cursor"] = cursor.as_str().into();
            }
            let (page, next) = self.call(operation, body).expect_page();
            assert!(page.len() <= usize::try_from(limit).unwrap(), "COM-PAG-01: a page of {}", page.len());
            rows.extend(page);
            match next {
                Some(next) => cursor = Some(next),
                None => return rows,
            }
        }
    }

    /// A new API's id.
    pub fn api(&self) -> String {
        self.ok("apis.createApi", json!({"name": "an api of the tests"}))["apiId"].as_str().unwrap().to_owned()
    }

    /// A new key in an API, with these members besides `apiId`.
    pub fn key(&self, api: &str, members: Value) -> Key {
        minted(&self.call("keys.createKey", with(members, "apiId", api)).expect_ok())
    }

    /// The same, made at this time of the test clock.
    pub fn key_at(&self, api: &str, members: Value, ms: i64) -> Key {
        minted(&self.call("keys.createKey", with(members, "apiId", api)).at(ms).expect_ok())
    }

    /// The data of a verification with these members besides `key`.
    pub fn verify(&self, key: &Key, members: Value) -> Value {
        self.ok("keys.verifyKey", with(members, "key", &key.secret))
    }

    /// The same at this time of the test clock.
    pub fn verify_at(&self, key: &Key, members: Value, ms: i64) -> Value {
        self.call("keys.verifyKey", with(members, "key", &key.secret)).at(ms).expect_ok()
    }

    /// The code of a verification.
    pub fn code(&self, key: &Key, members: Value) -> String {
        code(&self.verify(key, members))
    }

    /// The data of getKey.
    pub fn get(&self, key: &Key) -> Value {
        self.ok("keys.getKey", json!({"keyId": key.id}))
    }

    /// The same at this time of the test clock.
    pub fn get_at(&self, key: &Key, ms: i64) -> Value {
        self.call("keys.getKey", json!({"keyId": key.id})).at(ms).expect_ok()
    }

    /// updateKey with these members besides `keyId`.
    pub fn update(&self, key: &Key, members: Value) {
        let data = self.ok("keys.updateKey", with(members, "keyId", &key.id));
        assert_eq!(data, json!({}), "KEYS-UPDATE-8");
    }

    /// A new root key for this workspace with these permissions.
    pub fn root_key(&self, permissions: &[&str]) -> RootKey {
        self.root_key_with(permissions, &[])
    }

    /// The same with more arguments for the command.
    pub fn root_key_with(&self, permissions: &[&str], more: &[&str]) -> RootKey {
        let mut arguments = vec!["root-key", "create", "--workspace", &self.id, "--name", "a root key of the tests"];
        permissions.iter().for_each(|permission| arguments.extend(["--permission", permission]));
        arguments.extend(more);
        let made = self.server.operate(&arguments).json();
        let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("no {name}: {made}")).to_owned();
        RootKey { id: text("keyId"), secret: text("key") }
    }

    /// `root-key update` on a root key, with these arguments.
    pub fn change_root_key(&self, key: &RootKey, changes: &[&str]) {
        let mut arguments = vec!["root-key", "update", "--workspace", &self.id, "--key-id", &key.id];
        arguments.extend(changes);
        self.server.operate(&arguments).json();
    }

    /// `root-key revoke` on a root key.
    pub fn revoke(&self, key: &RootKey) {
        self.server.operate(&["root-key", "revoke", "--workspace", &self.id, "--key-id", &key.id]).json();
    }

    /// `workspace update` with these arguments.
    pub fn change(&self, changes: &[&str]) {
        let mut arguments = vec!["workspace", "update", "--workspace", &self.id];
        arguments.extend(changes);
        self.server.operate(&arguments).json();
    }
}

/// The code of a verification's data; `valid` must agree with it (KEYS-VERIFY-4).
pub fn code(data: &Value) -> String {
    let code = data["code"].as_str().unwrap_or_else(|| panic!("no code: {data}"));
    assert_eq!(data["valid"], code == "VALID", "KEYS-VERIFY-4: {data}");
    code.to_owned()
}

/// The object with one more member.
pub fn with(mut object: Value, name: &str, value: &str) -> Value {
    object.as_object_mut().expect("an object").insert(name.to_owned(), value.into());
    object
}

/// A key from createKey's data.
pub fn minted(data: &Value) -> Key {
    assert_eq!(super::members(data), ["key", "keyId"], "KEYS-CREATE-8");
    Key { id: data["keyId"].as_str().unwrap().to_owned(), secret: data["key"].as_str().unwrap().to_owned() }
}
