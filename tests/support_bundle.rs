//! `keyward support-bundle`: everything that helps, and not one secret.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::harness::program::DataDir;
use crate::harness::{Options, Server, keyward_with};

/// Marked, so that a search for the mark finds any part of them.
const ROOT: &str = "unkey_MARKEDrootkey0123456789";
const MASTER: &str = "TUFSS0VEbWFzdGVyLWtleS0wMTIzNDU2Nzg5YWJjZGU=";
const PEPPER: &str = "TUFSS0VEcGVwcGVyLS0tLTAxMjM0NTY3ODlhYmNkZWY=";

/// The bundle of a server with every kind of secret holds none of them, nor a key, a hash or a name of a tenant; and what helps.
#[test]
fn a_bundle_holds_what_helps_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let secret_file = |name: &str, text: &str| {
        fs::write(place(name), format!("{text}\n")).unwrap();
        fs::set_permissions(place(name), fs::Permissions::from_mode(0o600)).unwrap();
        place(name)
    };
    let (master, pepper) = (secret_file("master.key", MASTER), secret_file("pepper", PEPPER));
    let options = Options { root_key: Some(ROOT.to_owned()), ..Options::default() }
        .setting("KEYWARD_MASTER_KEY_FILE", &master)
        .setting("KEYWARD_PEPPER_FILE", &pepper);
    let server = Server::start_with(DataDir::fresh(), options);
    let call = |operation: &str, body| server.call(operation, body).bearer(ROOT).expect_ok();
    let api = call("apis.createApi", json!({"name": "MARKED api"}));
    let api = api["apiId"].as_str().unwrap();
    call("apis.updateApi", json!({"apiId": api, "storeEncryptedKeys": true}));
    let key = call(
        "keys.createKey",
        json!({"apiId": api, "name": "MARKED name", "meta": {"MARKED": "MARKED"}, "externalId": "MARKED_owner", "recoverable": true}),
    );
    let key = key["key"].as_str().unwrap().to_owned();
    call("keys.verifyKey", json!({"key": key}));

    // A log into which somebody has put what belongs into none.
    let log = place("log");
    let lines = format!("{}\nAuthorization: Bearer {key}\nroot {ROOT} and {MASTER} and {PEPPER}\n", server.log());
    fs::write(&log, lines).unwrap();
    let bundle = place("bundle.tar");
    let arguments = [
        "support-bundle",
        &bundle,
        "--data-dir",
        server.dir.text(),
        "--log",
        &log,
        "--output",
        "json",
        "--master-key-file",
        &master,
    ];
    let made = keyward_with(&arguments, &[("KEYWARD_PEPPER_FILE", &pepper), ("KEYWARD_ROOT_KEY", ROOT)]).json();
    assert_eq!(fs::metadata(&bundle).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&bundle).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for secret in ["MARKED", MASTER, PEPPER, &key, ROOT, &MASTER[..12], &PEPPER[..12]] {
        assert!(!text.contains(secret), "{secret} is in the bundle");
    }
    for wanted in [
        "\"data_dir\"",
        "disk.sync",
        "keyward_build_info",
        "records.redb",
        "degraded",
        "\"position\"",
        "[REDACTED]",
        "keyward is ready",
        "mk_",
        "pp_",
    ] {
        assert!(text.contains(wanted), "no {wanted} in the bundle: {made}");
    }
    let again = keyward_with(&arguments, &[]);
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{again:?}");

    // Without a server nothing is opened, and the rest is there.
    server.stop();
    let alone = place("alone.tar");
    let arguments = ["support-bundle", &alone, "--data-dir", server.dir.text(), "--output", "json"];
    keyward_with(&arguments, &[]).json();
    let text = String::from_utf8_lossy(&fs::read(&alone).unwrap()).into_owned();
    assert!(text.contains("no server is running") && text.contains("records.redb") && !text.contains("MARKED"));
}
