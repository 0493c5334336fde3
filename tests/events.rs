//! `keyward events import|export` (EXT-4): files into a running server and into a stopped one, and back out.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::program::{DataDir, binary};
use crate::harness::{Options, Output, Server, Workspace, keyward, utc};

const VERIFICATIONS: &str = "key_verifications_v1";
const RATELIMITS: &str = "ratelimits_v1";

/// The data set that queries are tested with.
fn data(table: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("query/tests/data/{table}.ndjson"))
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The rows of a file in an order of their own, all in one workspace.
fn rows(path: &Path) -> Vec<String> {
    let mut rows: Vec<String> = lines(path)
        .into_iter()
        .map(|mut row| {
            row["workspace_id"] = json!("");
            // The same number, however it is written: `40` or `40.0`.
            row["latency"] = json!(row["latency"].as_f64());
            row.to_string()
        })
        .collect();
    rows.sort();
    rows
}

/// A directory for files, and the program run on a data directory.
struct Desk {
    dir: DataDir,
    files: TempDir,
}

impl Desk {
    fn at(dir: &DataDir) -> Desk {
        Desk { dir: dir.clone(), files: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, verb: &str, table: &str, more: &[&str], files: &[&Path]) -> Output {
        let mut arguments = vec!["events", verb, "--data-dir", self.dir.text(), "--table", table];
        arguments.extend(more);
        arguments.extend(files.iter().map(|file| file.to_str().unwrap()));
        keyward(&arguments)
    }

    fn import(&self, table: &str, more: &[&str], files: &[&Path]) -> Value {
        self.run("import", table, more, files).json()
    }

    fn export(&self, table: &str, more: &[&str], name: &str) -> (Value, PathBuf) {
        let path = self.path(name);
        (self.run("export", table, more, &[&path]).json(), path)
    }

    /// How many rows a table has.
    fn count(&self, table: &str) -> usize {
        let output = self.run("export", table, &[], &[Path::new("-")]);
        assert_eq!(output.code, Some(0), "{output:?}");
        let count = output.stdout.lines().count();
        assert!(output.stderr.contains(&format!("{count} rows")), "{output:?}");
        count
    }

    /// What is said of an import that fails with that exit code.
    fn refusal(&self, code: i32, table: &str, more: &[&str], files: &[&Path]) -> String {
        let output = self.run("import", table, more, files);
        assert_eq!((output.code, output.stdout.as_str()), (Some(code), ""), "{output:?}");
        assert!(!output.stderr.contains("panicked") && !output.stderr.contains('\r'), "{output:?}");
        output.stderr
    }
}

/// A workspace that keeps, and shows, everything.
fn keeping(workspace: Workspace) -> Workspace {
    let days = ["workspace", "update", "--workspace", &workspace.id, "--logs-retention-days", "36500"];
    workspace.server.operate(&days).json();
    workspace
}

fn query(workspace: &Workspace, operation: &str, sql: &str) -> Value {
    workspace.call(operation, json!({ "query": sql })).at(utc(2024, 4, 1)).expect_ok()
}

/// A decision of this workspace.
fn decision(workspace: &str, no: usize) -> String {
    json!({
        "request_id": format!("req_{no}"), "workspace_id": workspace, "namespace_id": "rlns_1", "identifier": "ada",
        "override_id": "", "time": 1_710_862_538_170_u64, "passed": true, "latency": 0.5, "limit": 10, "remaining": 9,
        "reset_at": 1_710_862_560_000_u64, "tokens": 1,
    })
    .to_string()
}

/// Imported rows are in the very next query, summed up in the roll-ups, and on the disk before the command answers. EXT-4,
/// AN-ROLL-01
#[test]
fn imported_rows_are_seen_at_once_and_survive() {
    let server = Arc::new(Server::timed());
    let workspace = keeping(Workspace::on(&server));
    let desk = Desk::at(&server.dir);
    for (table, operation, level, summed) in [
        (VERIFICATIONS, "analytics.getVerifications", "key_verifications_per_hour_v1", "sum(count)"),
        (RATELIMITS, "analytics.getRatelimits", "ratelimits_per_day_v1", "sum(total)"),
    ] {
        let expected = lines(&data(table)).len();
        assert_eq!(desk.import(table, &["--workspace", &workspace.id], &[&data(table)]), json!({ "rows": expected }));
        let counted = query(&workspace, operation, &format!("SELECT count() AS n FROM {table}"));
        assert_eq!(counted, json!([{ "n": expected }]));
        let counted = query(&workspace, operation, &format!("SELECT {summed} AS n FROM {level}"));
        assert_eq!(counted, json!([{ "n": expected }]));
    }
    server.kill();
    assert_eq!(desk.count(VERIFICATIONS), lines(&data(VERIFICATIONS)).len());
    let workspace = workspace.moved(server.restart());
    let counted = query(&workspace, "analytics.getRatelimits", "SELECT count() AS n FROM ratelimits_v1");
    assert_eq!(counted, json!([{ "n": lines(&data(RATELIMITS)).len() }]));
}

/// Rows go out and in again unchanged, in both formats, with a server and without; so do their sums. EXT-4
#[test]
fn exports_are_imported_again_with_a_server_and_without() {
    let first = Arc::new(Server::timed());
    let desk = Desk::at(&first.dir);
    let sums = |workspace: &Workspace| {
        let sql = "SELECT time, key_id, outcome, tags, count, spent_credits FROM key_verifications_per_day_v1 \
                   ORDER BY time, key_id, outcome, tags, count, spent_credits, identity_id, source";
        query(workspace, "analytics.getVerifications", sql)
    };
    let workspace = keeping(Workspace::on(&first));
    for table in [VERIFICATIONS, RATELIMITS] {
        desk.import(table, &["--workspace", &workspace.id], &[&data(table)]);
        let original = rows(&data(table));
        let (told, exported) = desk.export(table, &[], &format!("{table}.ndjson"));
        assert_eq!(told, json!({ "rows": original.len() }));
        assert_eq!(rows(&exported), original);
        assert!(lines(&exported).iter().all(|row| row["workspace_id"] == workspace.id.as_str()));
        desk.export(table, &[], &format!("{table}.parquet"));
    }
    let summed = sums(&workspace);
    first.stop();
    for table in [VERIFICATIONS, RATELIMITS] {
        let (_, alone) = desk.export(table, &[], &format!("{table}.alone.jsonl"));
        assert_eq!(rows(&alone), rows(&data(table)), "without a server");
        desk.export(table, &[], &format!("{table}.alone.parquet"));
    }

    // Into another directory: the Parquet files of one way into a server, of the other without.
    let second = Server::timed();
    let other = Desk::at(&second.dir);
    other.import(VERIFICATIONS, &["--workspace", "default"], &[&desk.path("key_verifications_v1.alone.parquet")]);
    second.stop();
    other.import(RATELIMITS, &["--workspace", "default"], &[&desk.path("ratelimits_v1.parquet")]);
    let second = Arc::new(second.restart());
    let id = second.operate(&["workspace", "get", "--workspace", "default"]).json()["workspaceId"].clone();
    let root = second.root_key();
    let workspace = keeping(Workspace { server: Arc::clone(&second), id: id.as_str().unwrap().to_owned(), root });
    for table in [VERIFICATIONS, RATELIMITS] {
        let (_, exported) = other.export(table, &[], &format!("{table}.ndjson"));
        assert_eq!(rows(&exported), rows(&data(table)), "from Parquet");
    }
    assert_eq!(sums(&workspace), summed);
}

/// A bad row is told by file, line and column; nothing of its file is imported, and what came before it in other files
/// stays. With a server and without. EXT-4
#[test]
fn a_file_is_imported_as_a_whole_or_not_at_all() {
    let server = Arc::new(Server::timed());
    let workspace = Workspace::on(&server);
    let desk = Desk::at(&server.dir);
    let good = decision(&workspace.id, 1);
    let many = |bad: &str| format!("{}{bad}\n{good}\n", format!("{good}\n").repeat(20_000));
    let file = |name: &str, bad: &str| desk.file(name, &many(bad));
    let stranger = "ws_1111111111111111";
    let cases = [
        (
            file("time.ndjson", &good.replace("1710862538170", "\"noon\"")),
            "line 20001, column time: invalid type: string \"noon\", expected a whole number from 0 to 253402300799999, \
             the milliseconds since 1970 up to the year 9999",
        ),
        (
            file("extra.ndjson", &good.replace("\"tokens\":1", "\"tokens\":1,\"cost\":2")),
            "line 20001, column cost: ratelimits_v1 has no such column; its columns are request_id, workspace_id, \
             namespace_id, identifier, override_id, time, passed, latency, limit, remaining, reset_at, tokens",
        ),
        (
            file("passed.jsonl", &good.replace("\"passed\":true,", "")),
            "line 20001, column passed: is missing; only texts, tags and spent_credits may be left out",
        ),
        (
            file("workspace.ndjson", &decision(stranger, 2)),
            "line 20001, column workspace_id: there is no workspace `ws_1111111111111111`; make the rows name one that \
             exists, or put them all into one with --workspace WS",
        ),
    ];
    let fine = desk.file("fine.ndjson", &good);
    let mut expected = 0;
    for running in [true, false] {
        if !running {
            server.stop();
        }
        for (file, told) in &cases {
            let told = format!("keyward: {}: {told}\nkeyward: nothing of this file was imported\n", file.display());
            assert_eq!(desk.refusal(1, RATELIMITS, &[], &[file]), told);
        }
        assert_eq!(desk.count(RATELIMITS), expected);
        let told = desk.refusal(1, RATELIMITS, &[], &[&fine, &cases[0].0, &fine]);
        assert!(told.ends_with("keyward: the files before it were, with 1 rows\n"), "{told}");
        expected += 1;
        assert_eq!(desk.count(RATELIMITS), expected);
        // The line of the server and that of the command: the first one counts.
        let both = desk.file("both.ndjson", &format!("{good}\n{}\n{}", decision(stranger, 3), many("{}")));
        assert!(desk.refusal(1, RATELIMITS, &[], &[&both]).contains("line 2, column workspace_id: there is no"));
        let told = desk.refusal(1, RATELIMITS, &[], &[&desk.path("nowhere.ndjson")]);
        assert!(told.contains("nowhere.ndjson: the file cannot be opened"), "{told}");
        let told = desk.refusal(1, RATELIMITS, &["--workspace", "nobody"], &[&fine]);
        assert!(told.contains("there is no workspace `nobody`"), "{told}");
    }
}

/// Rows keep the workspace that they name, each sees its own, and `--workspace` gives all of them to one. A deleted
/// workspace takes none. EXT-4, AN-TAB-08
#[test]
fn rows_go_to_the_workspaces_that_they_name() {
    let server = Arc::new(Server::timed());
    let (one, other) = (Workspace::on(&server), Workspace::on(&server));
    let desk = Desk::at(&server.dir);
    let text: Vec<String> = (0..5).map(|no| decision(if no % 2 == 0 { &one.id } else { &other.id }, no)).collect();
    let mixed = desk.file("mixed.ndjson", &text.join("\n"));
    assert_eq!(desk.import(RATELIMITS, &[], &[&mixed]), json!({"rows": 5}));
    let of = |workspace: &str, name: &str| {
        let (told, path) = desk.export(RATELIMITS, &["--workspace", workspace], name);
        let mut ids: Vec<_> = lines(&path).iter().map(|row| row["request_id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        assert_eq!(told["rows"], ids.len());
        ids
    };
    assert_eq!(of(&one.id, "one.ndjson"), ["req_0", "req_2", "req_4"]);
    assert_eq!(of(&other.id, "other.ndjson"), ["req_1", "req_3"]);
    assert_eq!(
        desk.import(RATELIMITS, &["--workspace", "default", "--output", "json"], &[&mixed, &mixed]),
        json!({"rows": 10})
    );
    assert_eq!(of("default", "default.ndjson").len(), 10);
    assert_eq!(of(&other.id, "again.ndjson").len(), 2);
    server.operate(&["workspace", "delete", "--workspace", &other.id]).json();
    assert!(desk.refusal(1, RATELIMITS, &[], &[&mixed]).contains("line 2, column workspace_id: there is no workspace"));
    assert_eq!(desk.count(RATELIMITS), 15);
}

/// An export takes the rows from `--start` to before `--end`; its file is private, appears whole, and replaces another only
/// when told to. EXT-4
#[test]
fn an_export_is_a_private_file_of_its_own() {
    let server = Arc::new(Server::timed());
    let desk = Desk::at(&server.dir);
    let at = |ms: u64| decision("", 1).replace("1710862538170", &ms.to_string());
    let text: Vec<String> = [1_000, 2_000, 3_000, 4_000].map(at).to_vec();
    desk.import(RATELIMITS, &["--workspace", "default"], &[&desk.file("in.ndjson", &text.join("\n"))]);
    for running in [true, false] {
        if !running {
            server.stop();
        }
        let name = format!("out-{running}.ndjson");
        let (told, path) = desk.export(RATELIMITS, &["--start", "2000", "--end", "4000"], &name);
        assert_eq!(told, json!({"rows": 2}));
        let times: Vec<_> = lines(&path).iter().map(|row| row["time"].clone()).collect();
        assert_eq!(times, [2_000, 3_000]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let before = std::fs::read(&path).unwrap();
        let again = desk.run("export", RATELIMITS, &[], &[&path]);
        assert_eq!((again.code, again.stdout.as_str()), (Some(1), ""));
        assert!(again.stderr.contains("is there already; --force replaces it"), "{again:?}");
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(desk.run("export", RATELIMITS, &["--force"], &[&path]).json(), json!({"rows": 4}));
        assert_eq!(lines(&path).len(), 4);

        let gone = desk.path("gone.parquet");
        let refused = desk.run("export", RATELIMITS, &["--workspace", "nobody"], &[&gone]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let nowhere = desk.run("export", RATELIMITS, &[], &[&desk.path("no/where.parquet")]);
        assert!(nowhere.code == Some(1) && nowhere.stderr.contains("cannot be written"), "{nowhere:?}");
        let (none, _) = desk.export(VERIFICATIONS, &[], &format!("none-{running}.parquet"));
        assert_eq!(none, json!({"rows": 0}));
        assert_eq!(desk.import(VERIFICATIONS, &[], &[&desk.path(&format!("none-{running}.parquet"))]), none);
    }
    let mut names: Vec<_> =
        std::fs::read_dir(desk.files.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = ["in.ndjson", "none-false.parquet", "none-true.parquet", "out-false.ndjson", "out-true.ndjson"];
    assert_eq!(names, expected, "nothing half-made is left");
}

/// What cannot be meant is refused before anything is read: roll-ups, which are derived; names that say nothing. EXT-4
#[test]
fn only_raw_tables_and_files_that_say_what_they_are() {
    let desk = Desk::at(&DataDir::fresh());
    let file = desk.file("a.ndjson", "");
    for verb in ["import", "export"] {
        let told = desk.run(verb, "ratelimits_per_hour_v1", &[], &[&file]);
        assert_eq!(told.code, Some(2));
        assert!(told.stderr.contains("a roll-up is derived from ratelimits_v1"), "{told:?}");
        let told = desk.run(verb, "default.ratelimits_v1", &[], &[&file]);
        assert!(told.code == Some(2) && told.stderr.contains("key_verifications_v1 or ratelimits_v1"), "{told:?}");
        let told = desk.run(verb, RATELIMITS, &[], &[&desk.path("a.csv")]);
        assert!(told.code == Some(2) && told.stderr.contains("end in .parquet, .ndjson or .jsonl"), "{told:?}");
        assert_eq!(desk.run(verb, RATELIMITS, &[], &[]).code, Some(2));
    }
    let told = desk.run("export", RATELIMITS, &["--start", "yesterday"], &[&desk.path("b.ndjson")]);
    assert!(told.code == Some(2) && told.stderr.contains("unix milliseconds"), "{told:?}");
    let told = desk.refusal(1, RATELIMITS, &[], &[&file]);
    assert!(told.contains("keyward serve --data-dir"), "no command but serve makes a data directory: {told}");
}

/// Standard input is a file, too. A server that is asked to stop waits for no import: it ends, and nothing of the rows that
/// had come is there; neither is anything of those of a command that was killed. EXT-4
#[test]
fn a_cut_import_leaves_nothing() {
    let server = Arc::new(Server::start_with(DataDir::fresh(), Options::timed()));
    let desk = Desk::at(&server.dir);
    let begin = |lines: usize| {
        let mut command = Command::new(binary());
        command.args(["events", "import", "--data-dir", server.dir.text(), "--table", RATELIMITS]);
        command
            .args(["--workspace", "default", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let line = format!("{}\n", decision("", 1));
        child.stdin.as_mut().unwrap().write_all(line.repeat(lines).as_bytes()).unwrap();
        child
    };
    let whole = begin(10).wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&whole.stdout), "{\"rows\":10}\n", "{whole:?}");

    let mut killed = begin(30_000);
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(desk.count(RATELIMITS), 10);

    let mut cut = begin(30_000);
    assert_eq!(server.stop(), Some(0));
    // It finds out when it goes on sending.
    let line = format!("{}\n", decision("", 2));
    let _ = cut.stdin.as_mut().unwrap().write_all(line.repeat(30_000).as_bytes());
    let output = cut.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("standard input: ") && told.contains("nothing of this file was imported"), "{told}");
    assert_eq!(desk.count(RATELIMITS), 10);
}

/// An export that is interrupted leaves no file: neither the one it was to write nor a piece of it. EXT-4
#[test]
fn an_interrupted_export_leaves_nothing() {
    // A server that never sends what it was asked for.
    let folder = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(folder.path().join("admin.sock")).unwrap();
    let out = tempfile::tempdir().unwrap();
    for signal in ["INT", "TERM"] {
        let mut command = Command::new(binary());
        command.args(["events", "export", "--table", VERIFICATIONS, "--data-dir"]).arg(folder.path());
        let mut exporting = command.arg(out.path().join("rows.parquet")).spawn().unwrap();
        let (mut socket, _) = listener.accept().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(socket.try_clone().unwrap()), &mut line).unwrap();
        socket.write_all(b"{\"go\":{}}\n").unwrap();
        let pieces = || std::fs::read_dir(out.path()).unwrap().count();
        while pieces() == 0 {
            assert!(exporting.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let id = exporting.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
        assert!(!exporting.wait().unwrap().success());
        assert_eq!(pieces(), 0, "after {signal}");
    }
}
