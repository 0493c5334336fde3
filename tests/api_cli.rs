//! `keyward api`, `keyward auth`, completions and manual pages, through the built binary: the issue on the API from a
//! shell, and the statements of the contract that show through it.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::program::binary;
use crate::harness::{Output, Server, Workspace, now};

/// A person's shell: a home directory and an environment of its own.
struct Shell {
    home: TempDir,
    environment: Vec<(String, String)>,
}

impl Shell {
    /// A shell that knows no server and no root key.
    fn new() -> Shell {
        let home = tempfile::Builder::new().prefix("keyward-home-").tempdir().unwrap();
        Shell { home, environment: Vec::new() }
    }

    /// A shell in which the server and the root key of a workspace are set.
    fn of(workspace: &Workspace) -> Shell {
        Shell::at(&workspace.server).with("KEYWARD_ROOT_KEY", &workspace.root)
    }

    /// A shell in which a server is set.
    fn at(server: &Server) -> Shell {
        Shell::new().with("KEYWARD_API_URL", &url(server))
    }

    /// With one more variable.
    fn with(mut self, name: &str, value: &str) -> Shell {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(binary());
        for (name, _) in std::env::vars_os() {
            if ["KEYWARD", "UNKEY"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.env("HOME", self.home.path()).envs(self.environment.iter().cloned());
        command
    }

    /// Runs `keyward` with nothing on standard input. What it prints never holds a root key of this shell.
    fn run(&self, arguments: &[&str]) -> Output {
        self.pipe(arguments, "")
    }

    /// Runs `keyward` with this on standard input.
    fn pipe(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that does not read its input may have ended.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        let done = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let output = Output { code: done.status.code(), stdout: text(&done.stdout), stderr: text(&done.stderr) };
        for (_, secret) in self.environment.iter().filter(|(name, _)| name.contains("ROOT_KEY")) {
            assert!(
                !output.stdout.contains(secret) && !output.stderr.contains(secret),
                "{arguments:?} tells the root key"
            );
        }
        assert!(!output.stderr.contains("panicked"), "{arguments:?}: {output:?}");
        output
    }

    /// Runs `keyward api` and demands success: the value on standard output, which is nothing but JSON.
    fn api(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["api"], arguments].concat());
        assert_eq!(output.code, Some(0), "{arguments:?}: {output:?}");
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
    }

    /// Runs `keyward` and demands this exit code, with nothing on standard output: standard error.
    fn refused(&self, arguments: &[&str], code: i32) -> String {
        let output = self.run(arguments);
        assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
        output.stderr
    }

    fn config(&self) -> PathBuf {
        self.home.path().join(".keyward/config.toml")
    }
}

fn url(server: &Server) -> String {
    format!("http://{}", server.addr)
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Answers one connection with these bytes, whatever is asked; the URL, and what was asked.
fn answer_once(answer: Vec<u8>) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap() == 0 {
                return head;
            }
            let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let _ = reader.get_mut().write_all(&answer);
        head + &String::from_utf8(body).unwrap()
    });
    (url, asked)
}

fn http(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into()
}

/// A key's life from a shell: made with every kind of flag, verified, changed, cleared, deleted. KEYS-CREATE-8, KEYS-UPDATE-1,
/// COM-BODY-05 (null is not absence)
#[test]
fn a_key_lives_its_life_in_a_shell() {
    let workspace = Workspace::new();
    let shell = Shell::of(&workspace);
    let api = shell.api(&["apis", "create-api", "--name", "from a shell"])["apiId"].as_str().unwrap().to_owned();
    let role = "documents.editor";
    let expires = (now() + 86_400_000).to_string();
    let meta = shell.home.path().join("meta.json");
    std::fs::write(&meta, r#"{"plan": "pro", "exact": 12345678901234567890.10}"#).unwrap();
    let made = shell.pipe(
        &[
            "api",
            "keys",
            "create-key",
            "--api-id",
            &api,
            "--prefix",
            "shell",
            "--name",
            "it's \"mine\"",
            "--byte-length",
            "24",
            "--external-id",
            "user_1",
            "--meta-json",
            &format!("@{}", meta.display()),
            "--permissions",
            "documents.read,documents.write",
            "--permissions",
            role,
            "--expires",
            &expires,
            "--enabled",
            "--recoverable=false",
            "--credits-json",
            r#"{"remaining": 10, "refill": {"interval": "daily", "amount": 10}}"#,
            "--ratelimits-json",
            "-",
        ],
        r#"[{"name": "requests", "limit": 5, "duration": 60000, "autoApply": true}]"#,
    );
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(made.stderr.contains("req_") && made.stderr.contains("took"), "the request's id is told beside: {made:?}");
    let made: Value = serde_json::from_str(&made.stdout).expect("a pipe gets clean JSON");
    let (id, key) = (made["keyId"].as_str().unwrap(), made["key"].as_str().unwrap());
    assert!(key.starts_with("shell_"), "{made}");

    let seen = workspace.ok("keys.getKey", json!({"keyId": id}));
    for (member, value) in [
        ("name", json!("it's \"mine\"")),
        ("enabled", json!(true)),
        ("expires", json!(expires.parse::<i64>().unwrap())),
        ("permissions", json!(["documents.editor", "documents.read", "documents.write"])),
    ] {
        let mut have = seen[member].clone();
        if let Some(list) = have.as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
        assert_eq!(have, value, "{member}: {seen}");
    }
    assert_eq!((&seen["identity"]["externalId"], &seen["meta"]["plan"]), (&json!("user_1"), &json!("pro")));
    assert_eq!(seen["credits"]["refill"]["interval"], "daily");
    assert_eq!((&seen["ratelimits"][0]["limit"], &seen["ratelimits"][0]["autoApply"]), (&json!(5), &json!(true)));
    let text = shell.run(&["api", "keys", "get-key", "--key-id", id]).stdout;
    assert!(text.contains("12345678901234567890.10"), "numbers are shown as they were written: {text}");

    let verified =
        shell.pipe(&["api", "keys", "verify-key", "--key-file", "-", "--credits-json", r#"{"cost": 3}"#], key);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((&verified["code"], &verified["credits"]), (&json!("VALID"), &json!(7)));
    assert_eq!(
        shell.api(&["keys", "verify-key", "--key", key, "--permissions", "documents.read AND nothing.else"])["code"],
        "INSUFFICIENT_PERMISSIONS",
        "KEYS-VERIFY-4: an answer, and exit code 0"
    );

    // Absence keeps, null clears, an empty list replaces by nothing.
    shell.api(&["keys", "update-key", "--key-id", id, "--enabled=false"]);
    let seen = workspace.ok("keys.getKey", json!({"keyId": id}));
    assert_eq!((&seen["enabled"], &seen["name"]), (&json!(false), &json!("it's \"mine\"")));
    shell.api(&[
        "keys",
        "update-key",
        "--key-id",
        id,
        "--name-null",
        "--meta-json",
        "null",
        "--external-id-null",
        "--expires-null",
        "--credits-null",
        "--permissions",
        "",
        "--ratelimits-json",
        "[]",
        "--enabled",
        "true",
    ]);
    let seen = workspace.ok("keys.getKey", json!({"keyId": id}));
    for gone in ["name", "meta", "identity", "expires", "credits", "permissions", "ratelimits"] {
        assert!(seen.get(gone).is_none(), "{gone} is still there: {seen}");
    }
    assert_eq!(
        shell.api(&["keys", "update-credits", "--key-id", id, "--operation", "set", "--value", "3"])["remaining"],
        3
    );
    assert_eq!(
        shell.api(&["keys", "update-credits", "--key-id", id, "--operation", "set", "--value-null"])["remaining"],
        Value::Null
    );
    assert_eq!(shell.api(&["keys", "delete-key", "--key-id", id, "--permanent"]), json!({}));

    let limits = r#"[{"namespace": "shell", "identifier": "a", "limit": 1, "duration": 60000}]"#;
    assert_eq!(shell.api(&["ratelimit", "multi-limit", "--limits-json", limits])["passed"], true);
    let output = shell.pipe(&["api", "ratelimit", "multi-limit", "--body-json", "-", "--output", "json"], limits);
    assert_eq!(output.json()["data"]["passed"], false, "{output:?}");
}

/// A list says how to go on. COM-PAG-02
#[test]
fn a_page_names_the_next_one() {
    let workspace = Workspace::new();
    let shell = Shell::of(&workspace);
    let mut wanted: BTreeSet<String> = (0..3).map(|_| workspace.api()).collect();
    let mut cursor: Vec<String> = Vec::new();
    loop {
        let mut arguments = vec!["api", "apis", "list-apis", "--limit", "2"];
        arguments.extend(cursor.iter().map(String::as_str));
        let output = shell.run(&arguments);
        let rows: Vec<Value> = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        rows.iter().for_each(|row| assert!(wanted.remove(row["id"].as_str().unwrap()), "{row}"));
        match output.stderr.split_once("more rows follow: ") {
            Some((_, flags)) => cursor = flags.split_whitespace().map(str::to_owned).collect(),
            None => break,
        }
    }
    assert_eq!(wanted, BTreeSet::new());
}

/// With `--output json` a reply is printed as it came, refusals too; numbers, order and white space are the server's.
/// COM-ENV-01, COM-ERR-01
#[test]
fn json_is_printed_exactly_as_it_came() {
    let ok = "{ \"meta\":{\"requestId\":\"req_1\"},\n\"data\":{\"z\":1e3,\"a\":0.10} }";
    let error = r#"{"meta":{"requestId":"req_2"},"error":{"title":"Not Found","detail":"No.","status":404,"type":"https://unkey.com/docs/errors/unkey/data/api_not_found"}}"#;
    let shell = Shell::new().with("UNKEY_ROOT_KEY", "unkey_of_the_test");
    for (answer, code) in [(http("200 OK", ok), 0), (http("404 Not Found", error), 1)] {
        let body = String::from_utf8(answer.clone()).unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
        let (url, asked) = answer_once(answer);
        let output = shell.run(&[
            "api",
            "apis",
            "get-api",
            "--api-id",
            "api_12345678",
            "--api-url",
            &format!("{url}/gate/"),
            "--output=json",
        ]);
        assert_eq!((output.code, output.stdout), (Some(code), format!("{body}\n")));
        assert_eq!(output.stderr.contains("Not Found (404): No."), code == 1, "{}", output.stderr);
        let asked = asked.join().unwrap();
        let head = asked.to_ascii_lowercase();
        assert!(asked.starts_with("POST /gate/v2/apis.getApi HTTP/1.1\r\n"), "a path of the URL is kept: {asked}");
        assert!(asked.ends_with("\r\n\r\n{\"apiId\":\"api_12345678\"}"), "{asked}");
        assert!(asked.contains("Authorization: Bearer unkey_of_the_test\r\n"), "{asked}");
        assert!(
            head.contains("content-type: application/json") && head.contains("accept: application/json"),
            "{asked}"
        );
    }
    let workspace = Workspace::new();
    let shell = Shell::of(&workspace);
    let api = workspace.api();
    let mut told = shell.run(&["api", "apis", "get-api", "--api-id", &api, "--output", "json"]).json();
    told["meta"]["requestId"] = Value::Null;
    assert_eq!(told["data"], workspace.ok("apis.getApi", json!({"apiId": api})));
    assert_eq!(told["data"], shell.api(&["apis", "get-api", "--api-id", &api]));
}

/// A refusal is readable and says what to do; the line it gives for a missing permission works as it stands.
/// COM-ERR-01, COM-VAL-02, COM-VAL-08, PM-EVAL-04
#[test]
fn refusals_say_what_to_do() {
    let workspace = Workspace::new();
    let server = &workspace.server;
    let narrow = ["root-key", "create", "--workspace", &workspace.id, "--name", "n", "--permission", "api.*.read_api"];
    let narrow = server.operate(&narrow).json();
    let shell = Shell::at(server).with("KEYWARD_ROOT_KEY", narrow["key"].as_str().unwrap());
    let create = ["api", "apis", "create-api", "--name", "from a shell"];
    let told = shell.refused(&create, 1);
    for words in [
        "Insufficient Permissions (403)",
        "unkey/authorization/insufficient_permissions",
        "req_",
        "api.*.create_api",
        &url(server),
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    let fix = told.lines().find_map(|line| line.split_once("fix: keyward ")).expect("a line to paste").1;
    let fix = fix.split_once(" (").unwrap().0.replace("KEY_ID", narrow["keyId"].as_str().unwrap());
    let words: Vec<String> = fix.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect();
    let shown = server.operate(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    assert_eq!(shown["permissions"], json!(["api.*.create_api", "api.*.read_api"]), "added, not replaced");
    assert_eq!(shell.run(&create).code, Some(0), "the fix works");

    // What the server finds wrong with a body that was sent as it is has its flags' names, too.
    let shell = Shell::of(&workspace);
    let body = r#"{"apiId": "api!", "name": "", "credits": {"remaining": -1}, "odd": 1}"#;
    let told = shell.refused(&["api", "keys", "create-key", "--body-json", body], 1);
    for words in [
        "Bad Request (400)",
        "--api-id: pattern",
        "--name: minLength",
        "--credits-json: minimum: got -1, want 0 at body.credits.remaining",
        "additional properties 'odd' not allowed",
    ] {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    let told = shell.refused(&["api", "apis", "get-api", "--api-id", "api_nowhere"], 1);
    assert!(told.contains("(404)") && told.contains("unkey/data/api_not_found"), "{told}");
    let told = Shell::at(server).with("KEYWARD_ROOT_KEY", "unkey_nobodys").refused(&create, 1);
    assert!(told.contains("(401)") && told.contains("keyward auth"), "{told}");
    let id = narrow["keyId"].as_str().unwrap();
    server.operate(&["root-key", "update", "--key-id", id, "--enabled", "false"]).json();
    let told = Shell::at(server).with("KEYWARD_ROOT_KEY", narrow["key"].as_str().unwrap()).refused(&create, 1);
    assert!(told.contains("Key is disabled (403)") && told.contains("--enabled true"), "{told}");
}

/// Wrong usage is told by the flag and costs no request: there is no server that could be asked. COM-VAL-08
#[test]
fn wrong_usage_is_refused_before_it_is_sent() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shell = Shell::new()
        .with("KEYWARD_API_URL", &format!("http://{nowhere}"))
        .with("KEYWARD_ROOT_KEY", "unkey_of_the_test_that_is_hushed");
    let create = ["api", "keys", "create-key", "--api-id", "api_12345678"];
    for (flags, words) in [
        (vec!["--byte-length", "300"], vec!["--byte-length", "from 16 to 255"]),
        (vec!["--byte-length", "-1"], vec!["--byte-length", "from 16 to 255"]),
        (vec!["--byte-length", "many"], vec!["whole number"]),
        (vec!["--name", ""], vec!["--name: minLength: got 0, want 1"]),
        (vec!["--meta-json", "{plan: pro}"], vec!["--meta-json is not JSON"]),
        (vec!["--credits-json", "{}"], vec!["--credits-json: missing property 'remaining'"]),
        (vec!["--enabled", "perhaps"], vec!["--enabled", "true", "false"]),
        (vec!["--permissions", "fine,not fine"], vec!["--permissions: pattern", "permissions[1]"]),
        (vec!["--surprise", "1"], vec!["--surprise"]),
        (vec!["--name-null"], vec!["--name-null"]),
        (vec!["--body-json", "{}"], vec!["--body-json", "cannot be used with"]),
        (vec!["--meta-json", "-", "--credits-json", "-"], vec!["cannot both read standard input"]),
        (vec!["--root-key-file", "-", "--meta-json", "-"], vec!["cannot both read standard input"]),
        (vec!["--root-key-file", "/nowhere/root.key"], vec!["/nowhere/root.key"]),
        (vec!["--config", "/nowhere/config.toml"], vec!["/nowhere/config.toml", "auth login"]),
        (vec!["--root-key", "two words"], vec!["--root-key holds white space"]),
        (vec!["--api-url", "localhost:7070"], vec!["http://HOST:PORT", "--api-url"]),
        (vec!["--api-url", "ftp://keys.example.com"], vec!["https://HOST:PORT", "--api-url"]),
        (vec!["--output", "xml"], vec!["--output"]),
    ] {
        let told = shell.refused(&[&create[..], &flags].concat(), 2);
        for words in words {
            assert!(told.contains(words), "{flags:?}: no {words:?} in {told}");
        }
    }
    let told = shell.refused(&["api", "keys", "create-key"], 2);
    assert!(told.contains("--api-id"), "{told}");
    shell.refused(&["api", "keys", "explode"], 2);
    shell.refused(&["api", "nonsense", "x"], 2);
    let told = Shell::new().with("KEYWARD_API_URL", &format!("http://{nowhere}")).refused(&create, 2);
    assert!(told.contains("KEYWARD_ROOT_KEY") && told.contains("keyward auth login"), "{told}");

    // And this is what it is like where nothing is wrong but the server.
    let told = shell.refused(&create, 3);
    assert!(told.contains(&nowhere.to_string()) && told.contains("KEYWARD_API_URL"), "{told}");
}

/// Whatever answers, a person learns what it is, and whether the operation may have been carried out.
#[test]
fn other_servers_are_told_from_keyward() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n<html>hello</html>";
    let proxy = http("502 Bad Gateway", "upstream is gone");
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"meta\"".to_vec();
    for (answer, words) in [
        (page.as_bytes().to_vec(), vec!["status 200", "a keyward?"]),
        (proxy, vec!["status 502", "a keyward?"]),
        (http("200 OK", "{\"data\":{}}"), vec!["status 200", "a keyward?"]),
        (b"220 mail ESMTP\r\n".to_vec(), vec!["HTTP", "is not a keyward"]),
        (cut, vec!["may have been carried out"]),
        (Vec::new(), vec!["may have been carried out"]),
    ] {
        let (url, asked) = answer_once(answer);
        let shell = Shell::new().with("KEYWARD_API_URL", &url).with("KEYWARD_ROOT_KEY", "unkey_of_the_test");
        let told = shell.refused(&["api", "apis", "create-api", "--name", "from a shell"], 1);
        for words in words {
            assert!(told.contains(words), "no {words:?} in {told}");
        }
        asked.join().unwrap();
    }
    let hostile =
        r#"{"meta":{"requestId":"req_\u001b[2J"},"data":{"name":"\u001b[2J"}}"#.replace("\"name\"", "\"n\u{9b}\"");
    let (url, asked) = answer_once(http("200 OK", &hostile));
    let shell = Shell::new().with("KEYWARD_API_URL", &url).with("KEYWARD_ROOT_KEY", "unkey_of_the_test");
    let output = shell.run(&["api", "apis", "get-api", "--api-id", "api_12345678"]);
    let steers = |text: &str| text.chars().any(|sign| sign.is_control() && sign != '\n');
    assert!(output.code == Some(0) && !steers(&output.stdout) && !steers(&output.stderr), "{output:?}");
    asked.join().unwrap();
}

/// A root key is stored by login and by nothing else: checked first, closed to others, used for its own server only, never
/// shown, gone after logout.
#[test]
fn a_stored_root_key_is_kept_well() {
    let workspace = Workspace::new();
    let shell = Shell::at(&workspace.server);
    let run = |arguments: &[&str], stdin: &str| {
        let output = shell.pipe(arguments, stdin);
        let told = format!("{}{}", output.stdout, output.stderr);
        assert!(!told.contains(&workspace.root) && !told.contains("unkey_nobodys"), "a key is told: {told}");
        output
    };
    let list = ["api", "apis", "list-apis"];
    assert_eq!(run(&list, "").code, Some(2), "there is no root key yet");
    assert_eq!(run(&["auth", "status"], "").code, Some(1));

    for (typed, code) in [("unkey_nobodys\n", 1), ("\n", 2), ("two words\n", 2), ("", 2)] {
        let output = run(&["auth", "login"], typed);
        assert_eq!(output.code, Some(code), "{typed:?}: {output:?}");
        assert!(!shell.config().exists(), "{typed:?} was stored");
    }
    let output = run(&["auth", "login"], &format!("{}\nmore\n", workspace.root));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert_eq!((mode(&shell.config()), mode(shell.config().parent().unwrap())), (0o600, 0o700));
    assert_eq!(run(&list, "").code, Some(0));
    let output = run(&["auth", "status"], "");
    assert!(output.code == Some(0) && output.stdout.contains("accepted"), "{output:?}");

    // The stored URL and key are enough by themselves, and are for each other alone.
    let bare = Shell { home: shell.home, environment: Vec::new() };
    assert_eq!(bare.run(&list).code, Some(0));
    let (elsewhere, _) = answer_once(http("200 OK", "{}"));
    let told = bare.refused(&[&list[..], &["--api-url", &elsewhere]].concat(), 2);
    assert!(told.contains("is not sent to") && told.contains(&url(&workspace.server)), "{told}");
    let status = bare.run(&["auth", "status", "--output", "json"]).json();
    assert_eq!((&status["rootKey"], &status["apiUrl"]), (&json!("accepted"), &json!(url(&workspace.server))));
    assert_eq!(status["rootKeyFrom"], bare.config().to_str().unwrap());

    std::fs::set_permissions(bare.config(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let told = bare.refused(&list, 2);
    assert!(told.contains("chmod 600") && !told.contains(&workspace.root), "{told}");
    std::fs::set_permissions(bare.config(), std::fs::Permissions::from_mode(0o600)).unwrap();

    // A file of one's own, a key from a file, and a server that is not there: stored, with a warning.
    let other = bare.home.path().join("other/config.toml");
    let file = workspace.server.dir.path().join("root.key");
    let login = ["auth", "login", "--config", other.to_str().unwrap(), "--root-key-file", file.to_str().unwrap()];
    let nowhere = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let output = bare.run(&[&login[..], &["--api-url", &nowhere]].concat());
    assert!(output.code == Some(0) && output.stderr.contains("was not checked"), "{output:?}");
    assert_eq!(bare.run(&["auth", "status", "--config", other.to_str().unwrap()]).code, Some(3));
    let (no_keyward, _asked) = answer_once(http("200 OK", "<html>"));
    let output = bare.run(&[&login[..], &["--api-url", &no_keyward]].concat());
    assert!(output.code == Some(1) && std::fs::read_to_string(&other).unwrap().contains(&nowhere), "{output:?}");

    // Flags and variables come first, and a key given on the command line is not told either.
    let output = bare.run(&[&list[..], &["--root-key", "unkey_nobodys"]].concat());
    assert!(output.code == Some(1) && !output.stderr.contains("nobodys"), "{output:?}");
    assert_eq!(bare.pipe(&[&list[..], &["--root-key-file", "-"]].concat(), &workspace.root).code, Some(0));
    let config = bare.config();
    let bare = bare.with("UNKEY_ROOT_KEY", "unkey_nobodys_variable");
    assert_eq!(bare.run(&list).code, Some(1), "the environment beats the file");
    for _ in 0..2 {
        assert_eq!(bare.run(&["auth", "logout"]).code, Some(0));
        assert!(!config.exists());
    }
}

/// At a terminal the root key is asked for, and what is typed does not appear.
#[test]
fn a_typed_root_key_is_not_shown() {
    const TERMINAL: &str = r#"
import os, pty, sys
key, program = sys.argv[1], sys.argv[2:]
child, terminal = pty.fork()
if child == 0:
    os.execv(program[0], program)
shown = b""
def more():
    global shown
    try:
        part = os.read(terminal, 4096)
    except OSError:
        return False
    shown += part
    return part != b""
while b"Root key for" not in shown and more():
    pass
os.write(terminal, key.encode() + b"\n")
while more():
    pass
os.write(1, shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;
    let workspace = Workspace::new();
    let shell = Shell::at(&workspace.server);
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, &workspace.root]).arg(binary()).args(["auth", "login"]);
    command.env("HOME", shell.home.path()).envs(shell.environment.iter().cloned()).env_remove("KEYWARD_ROOT_KEY");
    let output = command.stdin(Stdio::null()).output().expect("python3, which .ci/run needs, too");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}{}", String::from_utf8_lossy(&output.stderr));
    assert!(shown.contains("is stored in") && !shown.contains(&workspace.root), "{shown}");
    assert!(std::fs::read_to_string(shell.config()).unwrap().contains(&workspace.root));
}

/// The names of Unkey's command line.
fn kebab(camel: &str) -> String {
    let mut kebab = String::new();
    for sign in camel.chars() {
        if sign.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(sign.to_ascii_lowercase());
    }
    kebab
}

/// Every operation that the server publishes is a command, and every member of its request a flag that the help explains.
#[test]
fn help_lists_every_member_of_every_operation() {
    let workspace = Workspace::new();
    let document = workspace.server.document();
    let shell = Shell::new();
    let operations: Vec<String> = document.operations();
    assert!(operations.len() >= 12);
    for name in operations {
        let (family, procedure) = name.split_once('.').unwrap();
        let (family, procedure) = (kebab(family), kebab(procedure));
        let families = shell.run(&["api", "--help"]).stdout;
        assert!(families.contains(&format!("  {family} ")), "{families}");
        let output = shell.run(&["api", &family, &procedure, "--help"]);
        assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""), "{name}");
        let help = output.stdout;
        let words: BTreeSet<&str> = help.split([' ', '\n', ',', ']', '[']).collect();
        let mut flags =
            vec!["--body-json", "--api-url", "--config", "--output"].into_iter().map(str::to_owned).collect::<Vec<_>>();
        let schema = document.request(&name);
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
            let schema = document.resolve(schema);
            let kinds = schema["type"].to_string();
            let of_objects = document.resolve(&schema["items"])["type"] == "object";
            let json = if kinds.contains("object") || of_objects { "-json" } else { "" };
            flags.push(format!("--{}{json}", kebab(member)));
            if kinds.contains("null") {
                flags.push(format!("--{}-null", kebab(member)));
            }
            let (_, after) = help
                .split_once(&format!("--{}{json} ", kebab(member)))
                .unwrap_or_else(|| panic!("{name} {member}: {help}"));
            let its_help: String =
                after.split("\n      --").next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
            let meaning = schema["description"].as_str().unwrap_or_default();
            let meaning: Vec<&str> =
                meaning.split_whitespace().take(4).map(|word| word.trim_end_matches('.')).collect();
            assert!(its_help.contains(&meaning.join(" ")), "{name} {member} is not explained: {its_help}");
            assert_eq!(
                its_help.contains("[required"),
                required.contains(&json!(member)),
                "{name} {member}: {its_help}"
            );
            for bound in ["minimum", "maximum", "maxLength", "maxItems", "default"] {
                if let Some(bound) = schema.get(bound) {
                    let bound = bound.to_string();
                    assert!(its_help.contains(bound.trim_matches('"')), "{name} {member}: no {bound} in {its_help}");
                }
            }
        }
        for flag in flags {
            assert!(words.contains(flag.as_str()), "{name} --help does not list {flag}:\n{help}");
        }
        for permission in document.operation(&name)["x-keyward-permissions"].as_array().into_iter().flatten() {
            // A long line is wrapped.
            let told = help.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(told.contains(permission.as_str().unwrap()), "{name}: no {permission} in {help}");
        }
    }
}

/// Scripts for shells parse, know the operations, and there is a manual page for each command.
#[test]
fn completions_and_manual_pages_are_made() {
    let shell = Shell::new();
    for (name, check) in [
        ("bash", vec!["bash", "-n"]),
        ("zsh", vec!["zsh", "-n"]),
        ("fish", vec!["fish", "-n"]),
        ("elvish", vec![]),
        ("powershell", vec![]),
    ] {
        let output = shell.run(&["completions", name]);
        assert_eq!(output.code, Some(0), "{name}: {}", output.stderr);
        assert!(output.stdout.contains("create-key") && output.stdout.contains("ratelimits-json"), "{name}");
        let script = shell.home.path().join(name);
        std::fs::write(&script, &output.stdout).unwrap();
        if let [program, flag] = check[..]
            && let Ok(checked) = Command::new(program).arg(flag).arg(&script).output()
        {
            assert!(checked.status.success(), "{name}: {checked:?}");
        }
    }
    shell.refused(&["completions", "tcsh"], 2);

    let dir = shell.home.path().join("man");
    assert_eq!(shell.run(&["man", "--dir", dir.to_str().unwrap()]).code, Some(0));
    let page = std::fs::read_to_string(dir.join("keyward-api-keys-create-key.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("meta\\-json"), "{page}");
    assert_eq!(page, shell.run(&["man", "api", "keys", "create-key"]).stdout);
    for other in ["keyward.1", "keyward-serve.1", "keyward-root-key-update.1", "keyward-auth-login.1"] {
        assert!(dir.join(other).exists(), "{other}");
    }
    shell.refused(&["man", "nonsense"], 2);
}

/// A variable of the client's does not disturb the server, which has settings of the same prefix.
#[test]
fn client_variables_are_no_settings() {
    let workspace = Workspace::new();
    let shell = Shell::of(&workspace).with("KEYWARD_PORTAL_SESSION", "x");
    let output = shell.run(&["workspace", "list", "--data-dir", workspace.server.dir.text()]);
    assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
}

/// Rows of a query as people and programs like them; a query may come from a file; a refusal says what to do.
/// AN-OP-01, AN-OP-02, AN-ERR-03, AN-ERR-11
#[test]
fn queries_from_a_shell() {
    let workspace = Workspace::new();
    let shell = Shell::of(&workspace);
    let sql = "SELECT count() AS n, 'x,\"y\"' AS t FROM key_verifications_v1";
    let asked = |more: &[&str]| shell.run(&[&["api", "analytics", "get-verifications"], more].concat());
    let as_json = json!([{"n": 0, "t": "x,\"y\""}]);
    for more in [vec!["--query", sql], vec!["--query", sql, "--format", "json"]] {
        let output = asked(&more);
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(serde_json::from_str::<Value>(&output.stdout).unwrap(), as_json);
    }
    let output = asked(&["--query", sql, "--format", "csv"]);
    assert_eq!(output.stdout, "n,t\r\n0,\"x,\"\"y\"\"\"\r\n");
    assert!(output.stderr.contains("1 row, req_") && output.stderr.contains("took"), "{output:?}");
    let output = asked(&["--query", sql, "--format", "table"]);
    assert_eq!(output.stdout, "n  t\n0  x,\"y\"\n");
    let none = asked(&["--query", "SELECT key_id FROM key_verifications_v1", "--format", "table"]);
    assert_eq!((none.stdout.as_str(), none.stderr.contains("0 rows")), ("", true), "{none:?}");
    assert_eq!(asked(&["--query", sql, "--format", "csv", "--output", "json"]).code, Some(2));

    let file = shell.home.path().join("query.sql");
    std::fs::write(&file, format!("-- a comment\n{sql}\n")).unwrap();
    let arguments = ["api", "analytics", "get-verifications", "--query-file"];
    let from_file = shell.run(&[&arguments[..], &[file.to_str().unwrap()]].concat());
    assert_eq!(serde_json::from_str::<Value>(&from_file.stdout).unwrap(), as_json, "{from_file:?}");
    let piped = shell.pipe(&[&arguments[..], &["-"]].concat(), sql);
    assert_eq!(serde_json::from_str::<Value>(&piped.stdout).unwrap(), as_json, "{piped:?}");
    assert!(shell.refused(&[&arguments[..], &["/nowhere"]].concat(), 2).contains("/nowhere"));

    let ask = |sql: &'static str| ["api", "analytics", "get-ratelimits", "--query", sql];
    let told = shell.refused(&ask("SELECT 1 FROM key_verifications_v1"), 1);
    assert!(
        told.contains("key_verifications_v1") && told.contains("fix: `keyward api analytics get-ratelimits --help`")
    );
    workspace.change(&["--queries-per-hour", "0"]);
    let told = shell.refused(&ask("SELECT count() FROM ratelimits_v1"), 1);
    assert!(told.contains("--queries-per-hour N"), "{told}");
}
