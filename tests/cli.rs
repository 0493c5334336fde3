//! The operator's surface: `keyward serve` on an empty directory, and the commands with a server and without.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::program::{DataDir, FIRST_ROOT_KEY, operate};
use crate::harness::{Options, Output, Server, Workspace, keyward, keyward_with, members, now};

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}

/// A failed command: that exit code, a reason on stderr that is no panic, nothing on stdout.
fn refused(output: Output, code: i32) -> Output {
    assert_eq!(output.code, Some(code), "{output:?}");
    assert_eq!(output.stdout, "", "errors go to stderr: {output:?}");
    assert!(!output.stderr.trim().is_empty() && !output.stderr.contains("panicked"), "{output:?}");
    output
}

/// On an empty directory the first root key is made up, written for its owner alone, and only its path is told; it works,
/// and a second start makes no second one. EXT-1, KEYFMT-8, COM-SYS-05
#[test]
fn the_first_start_makes_a_root_key() {
    let server = Server::start_with(DataDir::fresh(), Options { root_key: None, ..Options::default() });
    let path = server.dir.path().join("root.key");
    assert_eq!(mode(&path), 0o600);
    let key = server.root_key();
    assert!(key.starts_with("unkey_") && key.len() >= 20, "KEYFMT-8: {key}");
    assert!(server.log().contains("root.key"), "the path is logged:\n{}", server.log());
    assert!(!server.log().contains(&key), "the key is not logged");
    assert!(!server.log().to_lowercase().contains("test mode"), "COM-SYS-05: not announced when off");
    server.call("apis.createApi", json!({"name": "first"})).bearer(&key).expect_ok();
    assert_eq!(server.stop(), Some(0));
    let again = server.restart();
    assert_eq!(again.root_key(), key);
    again.call("apis.createApi", json!({"name": "second"})).bearer(&key).expect_ok();
    let listed = operate(&again.dir, &["workspace", "list"]).json();
    assert_eq!(rows(&listed).len(), 1, "{listed}");
}

/// `KEYWARD_ROOT_KEY` is the first root key where it is set, and only on an empty directory; under 20 characters it is
/// refused and leaves the directory as it was. EXT-1, COM-RK-01
#[test]
fn the_first_root_key_can_be_given() {
    let dir = DataDir::fresh();
    for short in ["nineteen-characters", "short"] {
        let arguments = ["serve", "--data-dir", dir.text(), "--listen", "127.0.0.1:0"];
        let output = keyward_with(&arguments, &[("KEYWARD_ROOT_KEY", short)]);
        assert!(matches!(output.code, Some(1 | 2)), "{output:?}");
        assert!(output.stderr.contains("KEYWARD_ROOT_KEY") && output.stderr.contains("20"), "{output:?}");
        assert!(!output.stderr.contains(short), "not even a refused key is printed: {output:?}");
        assert!(!dir.path().join("root.key").exists());
    }
    let with = |key: &str| Options { root_key: Some(key.to_owned()), ..Options::default() };
    let server = Server::start_with(dir.clone(), with("exactly-20-charactrs"));
    assert_eq!(std::fs::read_to_string(dir.path().join("root.key")).unwrap().trim(), "exactly-20-charactrs");
    assert_eq!(mode(&dir.path().join("root.key")), 0o600);
    server.call("apis.createApi", json!({"name": "api"})).bearer("exactly-20-charactrs").expect_ok();
    assert!(!server.log().contains("exactly-20-charactrs"));
    server.stop();
    let server = Server::start_with(dir.clone(), with("another-key-of-20-characters"));
    server.call("apis.createApi", json!({"name": "api"})).bearer("exactly-20-charactrs").expect_ok();
    let call = server.call("apis.createApi", json!({"name": "api"})).bearer("another-key-of-20-characters");
    call.expect_problem(401, "unkey/authentication/key_not_found");
}

/// Test mode is announced as a warning. EXT-1, COM-SYS-05
#[test]
fn test_mode_is_announced() {
    let workspace = Workspace::timed();
    let log = workspace.server.log();
    let warning = log.lines().find(|line| line.to_lowercase().contains("test mode") || line.contains("test-mode"));
    assert!(warning.is_some_and(|line| line.contains("WARN")), "{log}");
}

/// The socket is for its owner alone, survives kill -9 as a stale file that hinders nobody. EXT-1
#[test]
fn the_admin_socket_is_private() {
    let server = Server::start();
    let socket = server.dir.path().join("admin.sock");
    assert_eq!(mode(&socket), 0o600);
    server.operate(&["workspace", "list"]).json();
    server.kill();
    operate(&server.dir, &["workspace", "list"]).json();
    let server = server.restart();
    assert_eq!(mode(&socket), 0o600);
    server.operate(&["workspace", "list"]).json();
}

/// A directory whose path is too long for a socket works like any other, with a server and without. EXT-1, EXT-2
#[test]
fn a_long_data_directory_works() {
    let name = format!("{}/{}", "long".repeat(20), "longer".repeat(15));
    let dir = DataDir::named(&name);
    assert!(dir.text().len() > 120 + 20);
    std::fs::create_dir_all(dir.path().parent().unwrap()).unwrap();
    let server = Server::start_with(dir, Options::default());
    let made = server.operate(&["workspace", "create", "--name", "while it runs"]).json();
    assert_eq!(members(&made), ["rootKey", "workspaceId"]);
    let body = json!({"name": "through the socket"});
    server.call("apis.createApi", body.clone()).bearer(made["rootKey"].as_str().unwrap()).expect_ok();
    server.stop();
    let offline = operate(&server.dir, &["workspace", "create", "--name", "while it does not"]).json();
    let server = server.restart();
    server.call("apis.createApi", body).bearer(offline["rootKey"].as_str().unwrap()).expect_ok();
}

/// Every command does the same with a running server and with none, and prints one JSON object and nothing else.
/// EXT-2, EXT-3, KEYFMT-8, IDS-3, COM-RK-07, COM-CON-01
#[test]
fn commands_work_with_a_server_and_without() {
    let server = Server::start();
    let dir = server.dir.clone();
    for running in [true, false] {
        if !running {
            server.stop();
        }
        let ok = |arguments: &[&str]| operate(&dir, arguments).json();
        let made = ok(&["workspace", "create", "--name", "acme", "--slug", if running { "acme" } else { "acme-2" }]);
        assert_eq!(members(&made), ["rootKey", "workspaceId"], "EXT-2");
        let id = made["workspaceId"].as_str().unwrap();
        assert!(id.starts_with("ws_"), "IDS-3: {id}");
        assert!(made["rootKey"].as_str().unwrap().starts_with("unkey_"), "KEYFMT-8: {made}");

        let listed = ok(&["workspace", "list"]);
        let ids: Vec<&Value> = rows(&listed).iter().map(workspace_id).collect();
        assert!(ids.contains(&&json!(id)), "{listed}");
        let got = ok(&["workspace", "get", "--workspace", id]);
        assert!(got.to_string().contains("\"acme\""), "{got}");
        let limits = [
            "--name",
            "renamed",
            "--api-requests-per-minute",
            "7",
            "--logs-retention-days",
            "30",
            "--audit-retention-days",
            "400",
            "--queries-per-hour",
            "11",
            "--query-seconds-per-hour",
            "12",
            "--query-max-memory",
            "1300000",
            "--query-max-seconds",
            "14",
            "--query-max-rows",
            "15000",
        ];
        ok(&[&["workspace", "update", "--workspace", id], &limits[..]].concat());
        let got = ok(&["workspace", "get", "--workspace", id]).to_string();
        for shown in ["renamed", "7", "30", "400", "11", "12", "1300000", "14", "15000"] {
            assert!(got.contains(shown), "EXT-2: no {shown} in {got}");
        }
        ok(&["workspace", "update", "--workspace", id, "--api-requests-per-minute", "none", "--enabled", "false"]);
        ok(&["workspace", "update", "--workspace", id, "--enabled", "true"]);

        let expires = (now() + 86_400_000).to_string();
        let root = ok(&[
            "root-key",
            "create",
            "--workspace",
            id,
            "--name",
            "ci",
            "--permission",
            "api.*.create_api",
            "--permission",
            "api.*.read_api",
            "--expires",
            &expires,
        ]);
        assert_eq!(members(&root), ["key", "keyId"], "EXT-3");
        let (key_id, key) = (root["keyId"].as_str().unwrap(), root["key"].as_str().unwrap());
        assert!(key_id.starts_with("key_") && key.starts_with("unkey_"), "KEYFMT-8: {root}");
        let listed = ok(&["root-key", "list", "--workspace", id]);
        assert!(listed.to_string().contains(key_id), "{listed}");
        let got = ok(&["root-key", "get", "--workspace", id, "--key-id", key_id]);
        for shown in ["ci", "api.*.create_api", "api.*.read_api", &expires] {
            assert!(got.to_string().contains(shown), "no {shown} in {got}");
        }
        for shown in [&listed, &got] {
            assert!(!shown.to_string().contains(key), "KEYFMT-6: a key is told once");
        }
        ok(&["root-key", "update", "--workspace", id, "--key-id", key_id, "--name", "renamed"]);
        assert!(ok(&["root-key", "get", "--workspace", id, "--key-id", key_id]).to_string().contains("renamed"));
        ok(&["root-key", "revoke", "--workspace", id, "--key-id", key_id]);
        refused(operate(&dir, &["root-key", "revoke", "--workspace", id, "--key-id", key_id]), 1);
        ok(&["workspace", "delete", "--workspace", id, "--yes"]);
        refused(operate(&dir, &["workspace", "get", "--workspace", id]), 1);
    }
}

/// What EXT-2 lists works as EXT-2 writes it, with nobody there to be asked. EXT-2
#[test]
fn a_workspace_is_deleted_without_a_conversation() {
    let workspace = Workspace::new();
    workspace.server.operate(&["workspace", "delete", "--workspace", &workspace.id]).json();
}

/// The rows of a list command: the one array in its object.
fn rows(listed: &Value) -> &[Value] {
    let mut arrays = listed.as_object().unwrap().values().filter_map(Value::as_array);
    let rows = arrays.next().unwrap_or_else(|| panic!("no rows: {listed}"));
    assert!(arrays.next().is_none(), "which of the two? {listed}");
    rows
}

fn workspace_id(workspace: &Value) -> &Value {
    workspace
        .get("workspaceId")
        .or_else(|| workspace.get("id"))
        .unwrap_or_else(|| panic!("a workspace without id: {workspace}"))
}

/// What was made with no server running holds in the server that starts next. EXT-2, EXT-3
#[test]
fn changes_made_offline_hold_after_the_start() {
    let server = Server::start();
    server.stop();
    let ok = |arguments: &[&str]| operate(&server.dir, arguments).json();
    let made = ok(&["workspace", "create", "--name", "offline"]);
    let id = made["workspaceId"].as_str().unwrap();
    let root = ok(&["root-key", "create", "--workspace", id, "--name", "narrow", "--permission", "api.*.create_api"]);
    let server = Arc::new(server.restart());
    let narrow = root["key"].as_str().unwrap();
    let api = server.call("apis.createApi", json!({"name": "made later"})).bearer(narrow).expect_ok();
    let call = server.call("apis.getApi", json!({"apiId": api["apiId"]}));
    call.bearer(narrow).expect_problem(403, "unkey/authorization/insufficient_permissions");
    let call = server.call("apis.getApi", json!({"apiId": api["apiId"]}));
    call.bearer(made["rootKey"].as_str().unwrap()).expect_ok();
    let call = server.call("apis.getApi", json!({"apiId": api["apiId"]}));
    call.bearer(FIRST_ROOT_KEY).expect_problem(404, "unkey/data/api_not_found");
}

/// Errors are exit code 1 with the reason on stderr; wrong usage is 2. EXT-2, EXT-3
#[test]
fn exit_codes_tell_errors_from_wrong_usage() {
    let server = Server::start();
    let dir = server.dir.clone();
    for running in [true, false] {
        if !running {
            server.stop();
        }
        for wrong in [
            vec!["workspace", "get", "--workspace", "ws_nowhere"],
            vec!["workspace", "update", "--workspace", "ws_nowhere", "--name", "x"],
            vec!["workspace", "delete", "--workspace", "ws_nowhere", "--yes"],
            vec!["root-key", "create", "--workspace", "ws_nowhere", "--name", "x"],
            vec!["root-key", "list", "--workspace", "ws_nowhere"],
        ] {
            let output = refused(operate(&dir, &wrong), 1);
            assert!(output.stderr.contains("ws_nowhere") || output.stderr.contains("workspace"), "{output:?}");
        }
    }
    for wrong in [
        vec!["workspace", "create", "--data-dir", dir.text()],
        vec!["workspace", "explode"],
        vec!["workspace", "create", "--data-dir", dir.text(), "--name", "x", "--surprise"],
        vec!["workspace", "update", "--data-dir", dir.text(), "--workspace", "ws_1", "--enabled", "perhaps"],
        vec!["workspace", "update", "--data-dir", dir.text(), "--workspace", "ws_1", "--api-requests-per-minute", "-1"],
        vec!["root-key", "create", "--data-dir", dir.text(), "--workspace", "ws_1", "--name", "x", "--expires", "soon"],
        vec!["frobnicate"],
        vec!["serve", "--surprise"],
        vec!["workspace", "list", "--data-dir", dir.text(), "--output", "xml"],
    ] {
        refused(keyward(&wrong), 2);
    }
}

/// A server that cannot start says why and ends with 1 or 2: the port is taken, the address is none, the directory is a
/// file. EXT-1
#[test]
fn a_server_that_cannot_start_says_why() {
    let workspace = Workspace::new();
    let taken = workspace.server.addr.to_string();
    let dir = DataDir::fresh();
    let serve = |dir: &str, listen: &str| keyward(&["serve", "--data-dir", dir, "--listen", listen]);
    let output = refused(serve(dir.text(), &taken), 1);
    assert!(output.stderr.contains(&taken), "{output:?}");
    assert!(!dir.path().exists(), "a taken port makes no data directory");
    for nowhere in ["nowhere", "127.0.0.1", "127.0.0.1:99999", "300.0.0.1:80"] {
        let output = serve(dir.text(), nowhere);
        assert!(matches!(output.code, Some(1 | 2)) && output.stderr.contains("listen"), "{nowhere}: {output:?}");
    }
    let file = dir.path().with_extension("file");
    std::fs::write(&file, "not a directory").unwrap();
    let output = serve(file.to_str().unwrap(), "127.0.0.1:0");
    assert!(matches!(output.code, Some(1 | 2)) && output.stderr.contains(file.to_str().unwrap()), "{output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

/// A command on a directory that is not there does not make one. EXT-2
#[test]
fn a_mistyped_directory_is_not_made() {
    let dir = DataDir::fresh();
    refused(operate(&dir, &["workspace", "list"]), 1);
    assert!(!dir.path().exists(), "a typing error made a database");
}

/// The version and help are on stdout with 0, and every command explains itself. EXT-1, EXT-2, EXT-3
#[test]
fn version_and_help() {
    let version = keyward(&["--version"]);
    assert_eq!((version.code, version.stdout.trim()), (Some(0), concat!("keyward ", env!("CARGO_PKG_VERSION"))));
    let help = keyward(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["serve", "workspace", "root-key"] {
        assert!(help.stdout.contains(command), "{}", help.stdout);
        let help = keyward(&[command, "--help"]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command}");
    }
    for (command, flags) in [
        (vec!["serve"], vec!["--data-dir", "--listen", "--config", "--test-mode", "KEYWARD_ROOT_KEY"]),
        (vec!["workspace", "create"], vec!["--data-dir", "--name", "--slug", "--output"]),
        (
            vec!["workspace", "update"],
            vec!["--workspace", "--enabled", "--api-requests-per-minute", "--query-max-rows", "--output"],
        ),
        (vec!["root-key", "create"], vec!["--workspace", "--name", "--permission", "--expires", "--output"]),
        (vec!["workspace", "list"], vec!["--data-dir"]),
        (vec!["root-key", "revoke"], vec!["--workspace"]),
    ] {
        let help = keyward(&[command.clone(), vec!["--help"]].concat());
        assert_eq!(help.code, Some(0), "{command:?}");
        for flag in flags {
            assert!(help.stdout.contains(flag), "{command:?} --help does not name {flag}:\n{}", help.stdout);
        }
    }
    refused(keyward::<&str>(&[]), 2);
}

/// Without `--output json` a person reads what happened, with the same exit codes. EXT-2
#[test]
fn people_get_text() {
    let workspace = Workspace::new();
    let output = keyward(&["workspace", "create", "--data-dir", workspace.server.dir.text(), "--name", "for people"]);
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stdout.contains("ws_") && output.stdout.contains("unkey_"), "{output:?}");
    let output = keyward(&["workspace", "list", "--data-dir", workspace.server.dir.text()]);
    assert!(output.stdout.contains("for people"), "{output:?}");
}
