//! `keyward import`: keys of another system go on working, nothing is made twice, and what is wrong is named by its line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::harness::program::DataDir;
use crate::harness::{DAY, Options, Output, Server, Workspace, keyward_with, now};

/// SHA-256 in hexadecimal, as most systems keep it.
fn hex(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `keyward import` into a workspace.
fn import(workspace: &Workspace, arguments: &[&str]) -> Output {
    let url = format!("http://{}", workspace.server.addr);
    let home = workspace.server.dir.path().parent().unwrap().to_str().unwrap().to_owned();
    let environment = [("KEYWARD_ROOT_KEY", workspace.root.as_str()), ("KEYWARD_API_URL", &url), ("HOME", &home)];
    keyward_with(&[&["import"], arguments, &["--output", "json"]].concat(), &environment)
}

fn csv(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("keys.csv");
    std::fs::write(&path, text).unwrap();
    path
}

fn counts(told: &Value, of: &str) -> [u64; 4] {
    ["read", "made", "already", "refused"].map(|name| told[of][name].as_u64().unwrap_or_else(|| panic!("{told}")))
}

/// EXT-13, KEYS-MIGRATE-1, KEYS-MIGRATE-4, KEYS-MIGRATE-6, KEYS-MIGRATE-8: a file of hashes becomes keys that verify with all
/// that the file says of them. Wrong rows are named by their lines before anything is sent; run again, nothing is made twice.
#[test]
fn keys_of_a_file_of_hashes_go_on_working() {
    let workspace = Workspace::new();
    let api = workspace.api();
    let folder = tempfile::tempdir().unwrap();
    let expires = now() + DAY;
    let good = format!(
        "hash,algorithm,name,external_id,permissions,roles,expires,enabled,credits,meta,start\n\
         {},,first,ada@example.com,\"docs.read, docs.write\",editor,{expires},,3,\"{{\"\"plan\"\":\"\"pro\"\"}}\",demo_\n\
         {},sha256,second,,,,,false,,,\n\
         {},prefixed-api-key,third,,,,,,,,\n",
        hex("old_first"),
        hex("old_second"),
        hex("longtoken"),
    );
    let bad = format!("{good}abc,,fourth,,,,,,,,\n\n{},bcrypt,fifth,,,,,,,,\n", hex("x"));

    // Judged without a server.
    let file = csv(folder.path(), &bad);
    let dry = ["import", "csv", "--api-id", &api, "--dry-run", "--output", "json", file.to_str().unwrap()];
    let output = keyward_with(&dry, &[("HOME", folder.path().to_str().unwrap())]);
    assert_eq!(output.code, Some(1), "{output:?}");
    for told in ["line 5 has a hash that is no SHA-256", "line 7 has the algorithm \"bcrypt\"", "start is not kept"] {
        assert!(output.stderr.contains(told), "no {told}: {output:?}");
    }
    assert!(output.stdout.contains("\"dryRun\":true"), "{output:?}");

    let arguments = ["csv", "--api-id", &api, file.to_str().unwrap()];
    let output = import(&workspace, &arguments);
    assert_eq!((output.code, output.stdout.as_str()), (Some(1), ""), "{output:?}");
    assert!(output.stderr.contains("nothing was imported") && output.stderr.contains("--skip-bad-rows"), "{output:?}");
    assert_eq!(workspace.ok("apis.listKeys", json!({"apiId": api})), json!([]));

    // The first half, as an interruption leaves it; then the whole of it, in spite of its wrong rows.
    let head: String = good.lines().take(2).map(|line| format!("{line}\n")).collect();
    csv(folder.path(), &head);
    let told = import(&workspace, &arguments).json();
    assert_eq!(counts(&told, "keys"), [1, 1, 0, 0], "{told}");
    csv(folder.path(), &bad);
    let output = import(&workspace, &[&arguments[..], &["--skip-bad-rows"]].concat());
    assert_eq!(output.code, Some(1), "some rows were not taken over: {output:?}");
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(counts(&told, "keys"), [5, 2, 1, 2], "{told}");
    csv(folder.path(), &good);
    let told = import(&workspace, &arguments).json();
    assert_eq!(counts(&told, "keys"), [3, 0, 3, 0], "{told}");

    let verify = |body: Value| workspace.ok("keys.verifyKey", body);
    let data = verify(json!({"key": "old_first", "permissions": "docs.read AND docs.write"}));
    assert_eq!((data["code"].as_str(), data["credits"].as_i64()), (Some("VALID"), Some(2)), "{data}");
    assert_eq!(
        (&data["meta"], &data["roles"], &data["expires"]),
        (&json!({"plan": "pro"}), &json!(["editor"]), &json!(expires))
    );
    assert_eq!((&data["name"], &data["identity"]["externalId"]), (&json!("first"), &json!("ada@example.com")));
    assert_eq!(verify(json!({"key": "old_second"}))["code"], "DISABLED");
    let migration = told["migrations"]["github.com/seamapi/prefixed-api-key"].as_str().unwrap();
    assert_eq!(verify(json!({"key": "old_short_longtoken"}))["code"], "NOT_FOUND", "not before it was presented");
    assert_eq!(verify(json!({"key": "old_short_longtoken", "migrationId": migration}))["code"], "VALID");
    assert_eq!(verify(json!({"key": "old_short_longtoken"}))["code"], "VALID");

    for (text, why) in [("hash,plan\n", "\"plan\" is none"), ("", "it is empty"), ("name\nx\n", "no column `hash`")] {
        csv(folder.path(), text);
        let output = import(&workspace, &arguments);
        assert!(output.code == Some(1) && output.stderr.contains(why), "{output:?}");
    }
}

/// KEYS-MIGRATE-9, COM-BODY-02: a batch that the server refuses as a whole goes in halves, down to the key that is to blame,
/// and a hash that is there twice is named with both its lines before anything is sent, in a dry run too.
#[test]
fn a_refused_batch_costs_only_what_is_to_blame() {
    let options = Options::default().setting("KEYWARD_HTTP_MAX_BODY_BYTES", 4096);
    let workspace = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let api = workspace.api();
    let folder = tempfile::tempdir().unwrap();
    let mut text = "hash,name,meta\n".to_owned();
    for number in 0..120 {
        text.push_str(&format!("{},key {number},\n", hex(&format!("old_{number}"))));
    }
    text.push_str(&format!("{},too large,\"{{\"\"x\"\":\"\"{}\"\"}}\"\n", hex("old_large"), "x".repeat(5000)));
    text.push_str(&format!("{},again,\n", hex("old_7")));
    let file = csv(folder.path(), &text);
    let arguments = ["csv", "--api-id", &api, file.to_str().unwrap()];
    let dry = import(&workspace, &[&arguments[..], &["--dry-run"]].concat());
    let told: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((dry.code, counts(&told, "keys")), (Some(1), [122, 0, 0, 1]), "{dry:?}");
    assert!(dry.stderr.contains("line 123 has the same hash as line 9"), "{dry:?}");
    let output = import(&workspace, &arguments);
    assert!(output.code == Some(1) && output.stderr.contains("nothing was imported"), "{output:?}");

    let output = import(&workspace, &[&arguments[..], &["--skip-bad-rows"]].concat());
    assert_eq!(output.code, Some(1), "{output:?}");
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(counts(&told, "keys"), [122, 120, 0, 2], "{output:?}");
    assert!(output.stderr.contains("line 122 is refused") && output.stderr.contains("4096"), "{output:?}");
    assert!(output.stderr.contains("line 123 has the same hash as line 9"), "{output:?}");
    assert_eq!(workspace.all("apis.listKeys", json!({"apiId": api}), 100).len(), 120);
}

/// EXT-11, EXT-12, EXT-14, APIS-LIST-9, KEYS-OBJ-1: a workspace's permissions, roles, identities, keys and overrides are taken
/// over from a server that answers Unkey's API; keys whose plaintext it does not keep are named. Run again, everything is
/// there already.
#[test]
fn a_workspace_moves_from_one_server_to_another() {
    let options = Options::default().setting("KEYWARD_MASTER_KEY", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    let from = Workspace::on(&Arc::new(Server::start_with(DataDir::fresh(), options)));
    let theirs = from.api();
    from.ok("apis.updateApi", json!({"apiId": theirs, "storeEncryptedKeys": true}));
    from.ok("permissions.createRole", json!({"name": "editor", "permissions": ["docs.read", "docs.write"]}));
    let limits = json!([{"name": "calls", "limit": 5, "duration": 60_000, "autoApply": true}]);
    from.ok("identities.createIdentity", json!({"externalId": "ada", "meta": {"plan": "pro"}, "ratelimits": limits}));
    let members = json!({
        "recoverable": true, "name": "first", "externalId": "ada", "meta": {"x": 1}, "roles": ["editor"],
        "permissions": ["docs.admin"], "expires": now() + DAY,
        "credits": {"remaining": 9, "refill": {"interval": "monthly", "amount": 10, "refillDay": 3}},
        "ratelimits": [{"name": "own", "limit": 3, "duration": 60_000, "autoApply": false}],
    });
    let first = from.key(&theirs, members);
    let second = from.key(&theirs, json!({"recoverable": true, "enabled": false}));
    let lost = from.key(&theirs, json!({"name": "lost"}));
    from.ok("ratelimit.limit", json!({"namespace": "logins", "identifier": "x", "limit": 3, "duration": 60_000}));
    from.ok(
        "ratelimit.setOverride",
        json!({"namespace": "logins", "identifier": "vip_*", "limit": 99, "duration": 60_000}),
    );

    let to = Workspace::new();
    let root_key = from.server.dir.path().join("source.key");
    std::fs::write(&root_key, &from.root).unwrap();
    let url = format!("http://{}", from.server.addr);
    let arguments = [
        "unkey",
        "--from",
        &url,
        "--from-root-key-file",
        root_key.to_str().unwrap(),
        "--api",
        &theirs,
        "--namespace",
        "logins",
    ];
    let output = import(&to, &[&arguments[..], &["--dry-run"]].concat());
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(counts(&told, "keys"), [3, 0, 0, 1], "{output:?}");
    assert_eq!(to.ok("apis.listApis", json!({})), json!([]), "a dry run writes nothing");

    let output = import(&to, &arguments);
    assert_eq!(output.code, Some(1), "one key was not taken over: {output:?}");
    assert!(
        output.stderr.contains(&format!("the key {}", lost.id)) && output.stderr.contains("not kept"),
        "{output:?}"
    );
    let told: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(counts(&told, "keys"), [3, 2, 0, 1], "{told}");
    for (kind, number) in [("permissions", 3), ("roles", 1), ("identities", 1), ("overrides", 1)] {
        assert_eq!(counts(&told, kind), [number, number, 0, 0], "{kind}: {told}");
    }
    for secret in [&first.secret, &second.secret, &from.root, &to.root] {
        assert!(
            !output.stdout.contains(secret.as_str()) && !output.stderr.contains(secret.as_str()),
            "secrets stay secret"
        );
    }

    // What a key is, it is there as well; the ids alone are new.
    let (had, has) = (from.verify(&first, json!({})), to.verify(&first, json!({})));
    for member in ["valid", "code", "name", "meta", "expires", "credits", "enabled", "roles", "permissions"] {
        assert_eq!(had[member], has[member], "{member}: {had} {has}");
    }
    assert_eq!(to.code(&second, json!({})), "DISABLED");
    assert_eq!(to.code(&lost, json!({})), "NOT_FOUND");
    let ours = told["apis"][&theirs].as_str().unwrap();
    let listed = to.ok("apis.listKeys", json!({"apiId": ours}));
    let shown = listed.as_array().unwrap().iter().find(|key| key["name"] == "first").unwrap();
    assert_eq!(shown["credits"]["refill"], json!({"interval": "monthly", "amount": 10, "refillDay": 3}));
    assert_eq!(shown["identity"]["ratelimits"][0]["limit"], 5);
    assert_eq!((&shown["ratelimits"][0]["name"], &shown["ratelimits"][0]["autoApply"]), (&json!("own"), &json!(false)));
    // The role's permissions came by the role alone: without it they are gone.
    to.ok("keys.setRoles", json!({"keyId": shown["keyId"], "roles": []}));
    assert_eq!(to.verify(&first, json!({}))["permissions"], json!(["docs.admin"]));
    let found = to.ok("ratelimit.getOverride", json!({"namespace": "logins", "identifier": "vip_*"}));
    assert_eq!(found["limit"], 99);

    let told: Value = serde_json::from_str(&import(&to, &arguments).stdout).unwrap();
    assert_eq!(counts(&told, "keys"), [3, 0, 2, 1], "{told}");
    assert_eq!(counts(&told, "roles"), [1, 0, 1, 0], "{told}");
    assert_eq!(to.ok("apis.listApis", json!({})).as_array().unwrap().len(), 1);
}
