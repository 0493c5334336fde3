//! Something of every kind that a request can name, for tests that go through all operations.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;

use crate::harness::world::minted;
use crate::harness::{Key, Workspace};

/// Something of every kind that a request can name.
#[derive(Clone)]
pub struct World {
    pub api: String,
    pub key: Key,
    /// The id of the key's identity.
    pub identity: String,
    /// The slug of the key's permission.
    pub permission: String,
    /// The name of a role that nobody has.
    pub role: String,
    /// A migration's id.
    pub migration: String,
    /// The id of a rate-limit namespace.
    pub namespace: String,
    /// The id of the override of `bob` in it.
    pub over: String,
    /// The id of a root key that may `documents.read`.
    pub root_key: String,
}

/// Tells the worlds of a workspace apart where names must differ.
static WORLDS: AtomicU64 = AtomicU64::new(0);

impl World {
    /// Made in that workspace, by its own root key.
    pub fn of(workspace: &Workspace) -> World {
        let api = workspace.api();
        let number = WORLDS.fetch_add(1, Ordering::Relaxed);
        let permission = format!("documents.read.{number}");
        let members = json!({
            "credits": {"remaining": 10}, "externalId": format!("user_{number}"), "permissions": [permission]
        });
        let key = workspace.key(&api, members);
        let identity = workspace.get(&key)["identity"]["id"].as_str().unwrap().to_owned();
        let migration = json!({"name": "from elsewhere", "algorithm": "sha256"});
        let migration =
            workspace.ok("migrations.createMigration", migration)["migrationId"].as_str().unwrap().to_owned();
        let namespace = workspace.ok("ratelimit.createNamespace", json!({"name": format!("namespace {number}")}));
        let namespace = namespace["namespaceId"].as_str().unwrap().to_owned();
        let over = json!({"namespace": namespace, "identifier": "bob", "limit": 5, "duration": 60_000});
        let over = workspace.ok("ratelimit.setOverride", over)["overrideId"].as_str().unwrap().to_owned();
        let root_key = minted(&workspace.ok("rootKeys.createKey", json!({"permissions": ["documents.read"]}))).id;
        let role = format!("a role, no. {number}");
        workspace.ok("permissions.createRole", json!({"name": role}));
        World { api, key, identity, permission, role, migration, namespace, over, root_key }
    }

    /// Names of what does not exist.
    pub fn nowhere() -> World {
        World {
            api: "api_nowhere1".to_owned(),
            key: Key { id: "key_nowhere".to_owned(), secret: "x".to_owned() },
            identity: "id_nowhere".to_owned(),
            permission: "no.such.permission".to_owned(),
            role: "no such role".to_owned(),
            migration: "mig_nowhere1".to_owned(),
            namespace: "rlns_nowhere".to_owned(),
            over: "rlor_nowhere".to_owned(),
            root_key: "key_nowhere".to_owned(),
        }
    }
}
