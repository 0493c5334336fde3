//! Every command on a store of its own in memory, with a clock and randomness that repeat themselves.

use std::collections::BTreeSet;
use std::path::Path;

use keyward_storage::disk::MemoryDisk;
use keyward_storage::records::audit::{self, AuditEvent};

use super::*;
use crate::app::open_storage;
use crate::config::Settings;
use crate::outside::Outside;
use crate::secret;
use crate::vault::Vault;

const NOW: u64 = 1_795_256_643_000;

struct World {
    services: Services,
}

impl World {
    fn new() -> World {
        let settings = Settings { data_dir: Path::new("/data").to_owned(), ..Settings::default() };
        let outside = Outside::fixed(NOW, 7);
        let storage =
            open_storage(&settings, Arc::new(MemoryDisk::new()), &outside, &Default::default()).expect("opened");
        let vault = Arc::new(Vault::open(&settings.secrets, &settings.data_dir).expect("no master key is legal"));
        World { services: Services::of_records(storage, outside, vault) }
    }

    fn run(&self, command: &str, arguments: Value) -> Result<Done, String> {
        let Value::Object(arguments) = arguments else { panic!("not an object: {arguments}") };
        let operator = Operator { uid: 1000, name: Some("ada".to_owned()) };
        execute(&self.services, AdminRequest { command: command.to_owned(), arguments, operator })
    }

    fn ok(&self, command: &str, arguments: Value) -> Value {
        self.run(command, arguments).unwrap_or_else(|refusal| panic!("{command}: {refusal}")).result
    }

    fn refusal(&self, command: &str, arguments: Value) -> String {
        self.run(command, arguments).expect_err("must be refused")
    }

    /// A workspace's id.
    fn workspace(&self) -> String {
        text(&self.ok("workspace.create", json!({"name": "a workspace"}))["workspaceId"])
    }

    /// What authentication would find: the root key's id, permissions, workspace. `None` for an unknown key.
    fn authenticate(&self, plaintext: &str) -> Option<(String, Vec<String>, Option<bool>)> {
        let view = self.services.storage.read_root_key(&secret::digest(plaintext)).expect("readable")?;
        let permissions = view.permissions.iter().map(|permission| permission.to_string()).collect();
        let workspace = view.workspace.load();
        Some((view.id.to_string(), permissions, workspace.as_ref().map(|workspace| workspace.enabled)))
    }

    /// The audit events of a workspace, oldest first.
    fn events(&self, workspace: &str) -> Vec<AuditEvent> {
        let snapshot = self.services.storage.snapshot().expect("a snapshot");
        let id = WorkspaceId::parse(workspace).expect("an id");
        let no = workspace::find(&snapshot, id).expect("readable").expect("it was made");
        audit::list(&snapshot, no, 0, usize::MAX).expect("readable").into_iter().map(|(_, row)| row.event).collect()
    }

    fn changes(&self, workspace: &str) -> Value {
        let event = self.events(workspace).pop().expect("an event");
        assert!(event.event.ends_with(".update"), "{}", event.event);
        let meta: Value = serde_json::from_str(event.targets[0].meta.as_deref().expect("meta")).expect("JSON");
        meta["changes"].clone()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not text: {value}")).to_owned()
}

/// EXT-2, AL-EV-03, AL-EV-04, AL-ACTOR-02: a new workspace comes with a root key that may do everything, and the audit log
/// tells of both, of the operator, and of no secret.
#[test]
fn a_workspace_is_made_with_its_root_key() {
    let world = World::new();
    let made = world.ok("workspace.create", json!({"name": "Acme", "slug": "acme"}));
    let members: Vec<&String> = made.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["rootKey", "workspaceId"]);
    let (id, plaintext) = (text(&made["workspaceId"]), text(&made["rootKey"]));
    assert!(plaintext.starts_with("unkey_"), "KEYFMT-8");
    let (key_id, permissions, enabled) = world.authenticate(&plaintext).expect("the key works at once");
    assert_eq!((permissions, enabled), (vec![format!("unkey:v1:{id}:**#*")], Some(true)), "PM-URN-09");

    let events = world.events(&id);
    let told: Vec<(&str, &str)> = events.iter().map(|event| (&*event.event, &*event.targets[0].id)).collect();
    assert_eq!(told, [("workspace.create", &*id), ("root_key.create", &*key_id)]);
    assert!(events[0].correlation.is_some() && events[0].correlation == events[1].correlation);
    for event in &events {
        assert_eq!((&*event.actor.kind, &*event.actor.id, &*event.actor.name), ("system", "uid:1000", "ada"));
        assert_eq!(event.time, NOW);
        assert!(!format!("{event:?}").contains(&plaintext), "AL-EV-06");
    }

    assert_eq!(
        world.ok("workspace.get", json!({"workspace": "acme"})),
        json!({
            "workspaceId": id, "name": "Acme", "slug": "acme", "enabled": true, "createdAt": NOW,
            "limits": {
                "apiRequestsPerMinute": null, "logsRetentionDays": 90, "auditRetentionDays": 365, "queriesPerHour": 1000,
                "querySecondsPerHour": 1800, "queryMaxMemory": 1_000_000_000, "queryMaxSeconds": 30,
                "queryMaxRows": 10_000_000,
            },
        }),
        "EXT-2: the defaults"
    );
    let refusal = world.refusal("workspace.create", json!({"name": "Another", "slug": "acme"}));
    assert!(refusal.contains("`acme` is taken") && refusal.contains(&id), "{refusal}");
    assert_eq!(world.ok("workspace.list", json!({}))["workspaces"].as_array().map(Vec::len), Some(1));
}

/// EXT-2, AL-EV-09, AL-OP-01: an update sets what it names and nothing else, is told with old and new values, and an
/// update that changes nothing leaves no event.
#[test]
fn a_workspace_is_updated_field_by_field() {
    let world = World::new();
    let id = world.workspace();
    let shown = world.ok(
        "workspace.update",
        json!({"workspace": id, "name": "Neu", "apiRequestsPerMinute": 5, "logsRetentionDays": 7, "queryMaxRows": 10}),
    );
    assert_eq!((&shown["name"], &shown["limits"]["apiRequestsPerMinute"]), (&json!("Neu"), &json!(5)));
    assert_eq!(shown["limits"]["auditRetentionDays"], 365, "what is not named stays");
    assert_eq!(
        world.changes(&id),
        json!({
            "name": {"old": "a workspace", "new": "Neu"},
            "apiRequestsPerMinute": {"old": null, "new": 5},
            "logsRetentionDays": {"old": 90, "new": 7},
            "queryMaxRows": {"old": 10_000_000, "new": 10},
        })
    );
    let shown = world.ok("workspace.update", json!({"workspace": id, "apiRequestsPerMinute": null}));
    assert_eq!(shown["limits"]["apiRequestsPerMinute"], Value::Null, "null is no limit, absence is no change");
    let events = world.events(&id).len();
    world.ok("workspace.update", json!({"workspace": id, "name": "Neu", "enabled": true}));
    assert_eq!(world.events(&id).len(), events);
}

/// COM-RK-02, COM-RK-07, COM-WRL-07: what is done to a workspace is seen by its root keys' next request, and a deleted
/// workspace is gone for every command while its slug is free again.
#[test]
fn a_workspace_is_disabled_and_deleted_for_the_next_request() {
    let world = World::new();
    let made = world.ok("workspace.create", json!({"name": "w", "slug": "w"}));
    let (id, plaintext) = (text(&made["workspaceId"]), text(&made["rootKey"]));
    let enabled = || world.authenticate(&plaintext).expect("the key itself stays").2;
    world.ok("workspace.update", json!({"workspace": "w", "enabled": false}));
    assert_eq!(enabled(), Some(false));
    world.ok("workspace.update", json!({"workspace": "w", "enabled": true, "apiRequestsPerMinute": 0}));
    assert_eq!(enabled(), Some(true));

    assert_eq!(world.ok("workspace.delete", json!({"workspace": "w"})), json!({"workspaceId": id, "deletedAt": NOW}));
    assert_eq!(enabled(), None);
    let key_id = world.authenticate(&plaintext).expect("it stays").0;
    for (command, arguments) in [
        ("workspace.get", json!({"workspace": id})),
        ("workspace.update", json!({"workspace": "w", "enabled": true})),
        ("workspace.delete", json!({"workspace": id})),
        ("root-key.create", json!({"workspace": id, "name": "k"})),
        ("root-key.list", json!({"workspace": id})),
    ] {
        assert!(world.refusal(command, arguments).contains("there is no workspace"), "{command}");
    }
    assert!(world.refusal("root-key.get", json!({"keyId": key_id})).contains("there is no root key"));
    assert_eq!(world.events(&id).pop().expect("an event").event, "workspace.delete");
    world.ok("workspace.create", json!({"name": "again", "slug": "w"}));
    assert_eq!(world.ok("workspace.list", json!({}))["workspaces"].as_array().map(Vec::len), Some(1));
}

/// EXT-3, COM-RK-07: the life of a root key. It is found by its plaintext alone, its secret is shown once, and every
/// change is there for the next request.
#[test]
fn a_root_key_is_made_changed_and_revoked() {
    let world = World::new();
    let id = world.workspace();
    let ask = json!({"workspace": id, "name": "ci", "permissions": ["rbac.*.create_role", "api.*.read_api", "api.*.read_api"]});
    let made = world.ok("root-key.create", ask);
    let members: Vec<&String> = made.as_object().expect("an object").keys().collect();
    assert_eq!(members, ["key", "keyId"]);
    let (key_id, plaintext) = (text(&made["keyId"]), text(&made["key"]));
    let permissions = || world.authenticate(&plaintext).expect("it works").1;
    assert_eq!(permissions(), ["api.*.read_api", "rbac.*.create_role"]);

    let shown = world.ok("root-key.get", json!({"keyId": key_id, "workspace": id}));
    assert_eq!(
        shown,
        json!({
            "keyId": key_id, "workspaceId": id, "name": "ci", "start": &plaintext[.."unkey_".len() + 4],
            "end": &plaintext[plaintext.len() - 4..], "permissions": ["api.*.read_api", "rbac.*.create_role"],
            "enabled": true, "expires": null, "createdAt": NOW, "updatedAt": null,
        })
    );
    let listed = world.ok("root-key.list", json!({"workspace": id}));
    let names: BTreeSet<&str> =
        listed["rootKeys"].as_array().expect("a list").iter().filter_map(|key| key["name"].as_str()).collect();
    assert_eq!(names, BTreeSet::from(["ci", "first root key"]));
    assert!(!listed.to_string().contains(&plaintext), "the secret is shown once");

    world.services.outside.clock.set_ms(NOW + 5);
    let ask = json!({"keyId": key_id, "permissions": ["api.*.read_key"], "expires": NOW + 9, "enabled": false});
    let shown = world.ok("root-key.update", ask);
    assert_eq!((&shown["updatedAt"], &shown["expires"]), (&json!(NOW + 5), &json!(NOW + 9)));
    assert_eq!(permissions(), ["api.*.read_key"], "given permissions take the place of the old ones");
    assert_eq!(
        world.changes(&id),
        json!({
            "permissions": {"old": ["api.*.read_api", "rbac.*.create_role"], "new": ["api.*.read_key"]},
            "expires": {"old": null, "new": NOW + 9},
            "enabled": {"old": true, "new": false},
        })
    );
    let events = world.events(&id).len();
    world.ok("root-key.update", json!({"keyId": key_id, "enabled": false}));
    assert_eq!(world.events(&id).len(), events, "AL-OP-01");
    world.ok("root-key.update", json!({"keyId": key_id, "addPermissions": ["api.*.read_api", "api.*.read_key"]}));
    assert_eq!(permissions(), ["api.*.read_api", "api.*.read_key"], "added permissions join the old ones");
    let many: Vec<String> = (0..999).map(|number| format!("nonsense {number}")).collect();
    let refusal = world.refusal("root-key.update", json!({"keyId": key_id, "addPermissions": many}));
    assert!(refusal.contains("at most 1000"), "{refusal}");
    let shown = world.ok("root-key.update", json!({"keyId": key_id, "clearPermissions": true, "expires": null}));
    assert_eq!((permissions().len(), &shown["expires"]), (0, &Value::Null));

    let gone = world.ok("root-key.revoke", json!({"keyId": key_id, "workspace": id}));
    assert_eq!(gone, json!({"keyId": key_id, "revokedAt": NOW + 5}));
    assert_eq!(world.authenticate(&plaintext), None, "the next request finds no such key");
    assert_eq!(world.events(&id).pop().expect("an event").event, "root_key.delete");
    for command in ["root-key.get", "root-key.revoke"] {
        assert!(world.refusal(command, json!({"keyId": key_id})).contains("there is no root key"), "{command}");
    }
    assert_eq!(world.ok("root-key.list", json!({"workspace": id}))["rootKeys"].as_array().map(Vec::len), Some(1));
    let told = world.events(&id);
    assert!(!format!("{told:?}").contains(&plaintext), "AL-EV-06");
}

/// EXT-3, PM-TUP-03, PM-URN-07: a root key may hold nothing, or strings that open nothing; those are remarked on.
#[test]
fn useless_permissions_are_kept_and_remarked_on() {
    let world = World::new();
    let id = world.workspace();
    let stranger = world.workspace();
    let held = ["documents.read".to_owned(), "api.*.read_api".to_owned(), format!("unkey:v1:{stranger}:**#*")];
    let done = world.run("root-key.create", json!({"workspace": id, "name": "k", "permissions": held})).expect("legal");
    assert_eq!(done.warnings.len(), 2, "{:?}", done.warnings);
    assert_eq!(world.authenticate(&text(&done.result["key"])).expect("it works").1.len(), 3);

    let many: Vec<String> = (0..1000).map(|number| format!("nonsense {number}")).collect();
    let done = world.run("root-key.create", json!({"workspace": id, "name": "k", "permissions": many})).expect("legal");
    assert_eq!(done.warnings.len(), WARNINGS_MAX + 1);
    let many: Vec<String> = (0..1001).map(|number| format!("nonsense {number}")).collect();
    let refusal = world.refusal("root-key.create", json!({"workspace": id, "name": "k", "permissions": many}));
    assert!(refusal.contains("at most 1000"), "{refusal}");

    let done = world.run("root-key.create", json!({"workspace": id, "name": "bare"})).expect("legal");
    assert_eq!(done.warnings, [""; 0]);
    assert_eq!(world.authenticate(&text(&done.result["key"])).expect("it works").1.len(), 0);
}

/// EXT-3: an expiry that is over already, such as one in seconds, is taken and remarked on.
#[test]
fn an_expiry_in_the_past_is_remarked_on() {
    let world = World::new();
    let id = world.workspace();
    let create = |expires| world.run("root-key.create", json!({"workspace": id, "name": "k", "expires": expires}));
    let done = create(NOW / 1000).expect("legal");
    assert_eq!(done.warnings, ["this root key is expired already: 1795256643 ms is 1970-01-21 18:40:56 UTC"]);
    assert_eq!(create(NOW).expect("legal").warnings, [""; 0], "it holds to the end of that millisecond");
    let update = |expires| json!({"keyId": done.result["keyId"], "expires": expires});
    assert_eq!(world.run("root-key.update", update(json!(NOW - 1))).expect("legal").warnings.len(), 1);
    assert_eq!(world.run("root-key.update", update(json!(null))).expect("legal").warnings, [""; 0]);
}

/// What is not understood changes nothing and is named.
#[test]
fn wrong_commands_and_arguments_are_refused() {
    let world = World::new();
    let (id, other) = (world.workspace(), world.workspace());
    let key_id = text(&world.ok("root-key.create", json!({"workspace": id, "name": "k"}))["keyId"]);
    let counted = |world: &World| (world.events(&id).len(), world.events(&other).len());
    let before = counted(&world);
    for (command, arguments, part) in [
        ("workspace.destroy", json!({}), "no command `workspace.destroy`"),
        ("workspace.create", json!({}), "missing field `name`"),
        ("workspace.create", json!({"name": ""}), "a name has 1 to 255 characters"),
        ("workspace.create", json!({"name": "x", "slug": "A b"}), "a slug has lower-case letters"),
        ("workspace.create", json!({"name": "x", "color": "red"}), "unknown field `color`"),
        ("workspace.list", json!({"all": true}), "unknown field `all`"),
        ("workspace.get", json!({"workspace": "nobody"}), "there is no workspace `nobody`"),
        ("workspace.update", json!({"workspace": id, "logsRetentionDays": 0}), "must be from 1 to 36500"),
        ("workspace.update", json!({"workspace": id, "apiRequestsPerMinute": -1}), "wrong arguments"),
        ("root-key.create", json!({"workspace": "nobody", "name": "k"}), "there is no workspace `nobody`"),
        ("root-key.create", json!({"workspace": id, "name": "k", "permissions": [""]}), "1 to 512 characters"),
        ("root-key.create", json!({"workspace": id, "name": "k", "expires": u64::MAX}), "must be from 0"),
        ("root-key.get", json!({"keyId": "key_nobody"}), "there is no root key `key_nobody`"),
        ("root-key.get", json!({"keyId": key_id, "workspace": other}), "in this workspace"),
        ("root-key.revoke", json!({"keyId": key_id, "workspace": other}), "in this workspace"),
        ("root-key.update", json!({"keyId": key_id, "workspace": "nobody"}), "there is no workspace"),
        ("root-key.update", json!({"keyId": key_id, "clearPermissions": true, "permissions": ["a"]}), "not several"),
        ("root-key.update", json!({"keyId": key_id, "addPermissions": ["b"], "permissions": ["a"]}), "not several"),
    ] {
        let refusal = world.refusal(command, arguments.clone());
        assert!(refusal.contains(part), "{command} {arguments}: {refusal}");
    }
    assert_eq!(counted(&world), before, "AL-EV-03");
}

/// A store that takes no more changes says so, and nothing hangs.
#[test]
fn a_closed_store_refuses() {
    let world = World::new();
    world.services.shutdown();
    let refusal = world.refusal("workspace.create", json!({"name": "x"}));
    assert!(refusal.contains("no longer takes changes"), "{refusal}");
}
