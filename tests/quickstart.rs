//! The README's first minute, executed as it stands: the block that runs the server (between `<!-- run:begin -->` and
//! `<!-- run:end -->`) in the background, then the quickstart (between `<!-- quickstart:begin -->` and
//! `<!-- quickstart:end -->`), then the API from a shell (`<!-- cli:begin -->` and `<!-- cli:end -->`).
//!
//! Replaced are only the build (`cargo run … --` is the built program), the working and home directory (a fresh one) and
//! the port (a free one instead of 7070).

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the whole of it may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// What stands between the README's blocks and a test.
const PRELUDE: &str = r#"
keyward() { "$PROGRAM" "$@"; }
cargo() { while [ "$1" != -- ]; do shift; done; shift; keyward "$@"; }
"#;

/// The first ```sh block between two marks.
fn block<'a>(readme: &'a str, name: &str) -> &'a str {
    let between = |text: &'a str, begin: &str, end: &str| -> &'a str {
        let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("README.md has no {begin}"));
        rest.split_once(end).unwrap_or_else(|| panic!("README.md has no {end} after {begin}")).0
    };
    let marked = between(readme, &format!("<!-- {name}:begin -->"), &format!("<!-- {name}:end -->"));
    between(marked, "```sh\n", "\n```")
}

/// EXT-1, KEYS-CREATE-8, KEYS-VERIFY-4: from nothing to a verified key by copy and paste.
#[test]
fn the_readme_quickstart_works() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("read README.md");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let ready = "until curl --silent --fail --output /dev/null http://127.0.0.1:7070/health/ready; do sleep 0.05; done";
    let [run, quickstart, cli] = ["run", "quickstart", "cli"].map(|name| block(&readme, name));
    let port_of_cli = "export KEYWARD_API_URL=http://127.0.0.1:7070";
    let script = format!("{PRELUDE}\n{{\n{run}\n}} &\n{ready}\n{quickstart}\n{port_of_cli}\n{cli}\n");
    let script = script.replace("7070", &port);
    let place = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars_os() {
        if ["KEYWARD", "UNKEY"].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            command.env_remove(name);
        }
    }
    let mut child = command
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(place.path())
        .env("HOME", place.path())
        .env("PROGRAM", crate::harness::program::binary())
        .env("KEYWARD_LISTEN", format!("127.0.0.1:{port}"))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash");
    let drain = |mut pipe: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            text
        })
    };
    let stdout = drain(Box::new(child.stdout.take().unwrap()));
    let stderr = drain(Box::new(child.stderr.take().unwrap()));
    let begun = Instant::now();
    let mut status = None;
    while status.is_none() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        status = child.try_wait().unwrap();
    }
    // The script and the server it started are a process group of their own.
    let group = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = child.wait();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let told = format!("script:\n{script}\nstdout:\n{stdout}\nstderr:\n{stderr}");
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{told}");
    let said: String = stdout.split_whitespace().collect();
    assert_eq!(said.matches("\"code\":\"VALID\"").count(), 2, "each block verifies a key\n{told}");
    assert!(place.path().join(".keyward/config.toml").exists(), "{told}");
}

#[test]
fn the_block_is_found() {
    let readme = "# x\n<!-- a:begin -->\n\nText.\n\n```sh\necho 1\necho 2\n```\n<!-- a:end -->\n";
    assert_eq!(block(readme, "a"), "echo 1\necho 2");
}
