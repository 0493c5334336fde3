//! The README's quickstart, executed as it stands.
//!
//! The block is the first ```sh fence between `<!-- quickstart:begin -->` and `<!-- quickstart:end -->`. What it cannot do in a
//! test is replaced: `cargo` and `git` do nothing, `cd` stays where it is, the program is the built one (as `keyward` on the
//! path, as `target/release/keyward`, and as `$KEYWARD`), the working directory is a fresh one, and port 7070 is a free one.

use std::io::Read;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the whole of it may take.
const PATIENCE: Duration = Duration::from_secs(90);

fn block(readme: &str) -> &str {
    let (_, rest) = readme.split_once("<!-- quickstart:begin -->").expect("README.md has no <!-- quickstart:begin -->");
    let (marked, _) = rest.split_once("<!-- quickstart:end -->").expect("README.md has no <!-- quickstart:end -->");
    let (_, fenced) = marked.split_once("```sh\n").expect("no ```sh block between the quickstart's marks");
    fenced.split_once("\n```").expect("the quickstart's block has no end").0
}

/// EXT-1, KEYS-CREATE-8, KEYS-VERIFY-4: from nothing to a verified key by copy and paste.
#[test]
fn the_readme_quickstart_works() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("read README.md");
    let binary = crate::harness::program::binary();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let script = block(&readme)
        .replace("./target/release/keyward", "keyward")
        .replace("target/release/keyward", "keyward")
        .replace("7070", &port);
    let prelude = "cargo() { :; }; git() { :; }; cd() { :; }\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n";
    let place = tempfile::tempdir().unwrap();
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYWARD")) {
        command.env_remove(name);
    }
    let mut child = command
        .args(["-euo", "pipefail", "-c", &format!("{prelude}{script}\n")])
        .current_dir(place.path())
        .env("PATH", path)
        .env("KEYWARD", &binary)
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
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if begun.elapsed() > PATIENCE {
            // The script and what it started are a process group of their own.
            let group = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = child.wait();
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let told = format!("script:\n{script}\nstdout:\n{stdout}\nstderr:\n{stderr}");
    assert!(status.is_some_and(|status| status.success()), "{status:?}\n{told}");
    let said: String = stdout.split_whitespace().collect();
    assert!(said.contains("\"code\":\"VALID\""), "the quickstart ends with a verified key\n{told}");
}

#[test]
fn the_block_is_found() {
    let readme = "# x\n<!-- quickstart:begin -->\n\nText.\n\n```sh\necho 1\necho 2\n```\n<!-- quickstart:end -->\n";
    assert_eq!(block(readme), "echo 1\necho 2");
}
