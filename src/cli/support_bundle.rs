//! `keyward support-bundle`: what helps somebody else to find out what is wrong, in one archive.
//!
//! Nothing in it is a secret: settings are shown as `config show` shows them, status and metrics hold none, and names and keys of
//! tenants are in neither. Whatever secret this process can see itself is looked for in every text all the same, and taken out.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use keyward_storage::disk::{Disk, RealDisk};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::admin_client::{CallError, call};
use super::ask::{Output, note, print_answer};
use super::backup::archive::{END, header, padding};
use super::serve::ServeFlags;
use super::{EXIT_ERROR, EXIT_USAGE, config, doctor, fail};
use crate::app::ROOT_KEY_FILE;
use crate::config::{ConfigError, Reading, Settings};
use crate::outside::Outside;
use crate::telemetry::error_chain;

const AFTER_HELP: &str = "In it: versions, the settings as `keyward config show` shows them, what `keyward doctor` finds, status, \
    health and metrics of the running server, the names and sizes of the files in the data directory, and the end of a log. \
    Not in it: root keys, keys, hashes, peppers, master keys, private keys of TLS, and nothing of what tenants store. Look \
    through it before you send it: tar -xOf keyward-support.tar | less\n\n\
    journalctl -u keyward | keyward support-bundle keyward-support.tar --data-dir /var/lib/keyward --log -";

/// Bytes of a log that are taken from its end.
const LOG_BYTES_MAX: u64 = 2 << 20;
/// Files of the data directory that are listed.
const LISTED_MAX: usize = 20_000;
/// Shortest secret that is looked for: a shorter text would be found everywhere.
const SECRET_BYTES_MIN: usize = 8;
/// Bytes of a file of secrets.
const SECRETS_BYTES_MAX: u64 = 64 << 10;
const REDACTED: &str = "[REDACTED]";
const STANDARD: &str = "-";

/// `keyward support-bundle`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct SupportBundleArguments {
    /// The archive to write, or - for standard output
    #[arg(value_name = "FILE", default_value = "keyward-support.tar")]
    file: PathBuf,
    /// A file whose end is taken along, or - for standard input: the server's log
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    #[command(flatten)]
    flags: ServeFlags,
    /// What to print: a text for people, or one JSON object for programs
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs `keyward support-bundle`.
pub fn run(arguments: SupportBundleArguments) -> ExitCode {
    let SupportBundleArguments { file, log, flags, output } = arguments;
    let reading = match flags.read() {
        Ok(reading) => reading,
        Err(ConfigError(reasons)) => return fail(EXIT_USAGE, reasons),
    };
    let log = match log.map(|path| end_of(&path)).transpose() {
        Ok(log) => log,
        Err(reason) => return fail(EXIT_ERROR, [reason]),
    };
    let secrets = Secrets::of(&reading.settings);
    let members = members(&reading, log);
    let mut archive = Vec::new();
    let mut names = Vec::new();
    for (name, text) in members {
        let text = secrets.taken_out(&text);
        let head = match header(name, text.len() as u64) {
            Ok(head) => head,
            Err(error) => return fail(EXIT_ERROR, [format!("{name} has no place in the archive: {error}")]),
        };
        archive.extend_from_slice(&head);
        archive.extend_from_slice(text.as_bytes());
        archive.extend_from_slice(padding(text.len() as u64));
        names.push(name);
    }
    archive.extend_from_slice(END);
    if let Err(reason) = write(&file, &archive) {
        return fail(EXIT_ERROR, [reason]);
    }
    let answer = match output {
        Output::Json => {
            format!("{}\n", json!({ "file": file.display().to_string(), "bytes": archive.len(), "members": names }))
        }
        Output::Text => format!(
            "{}: {} bytes\nin it: {}\nLook through it before you send it.\n",
            file.display(),
            archive.len(),
            names.join(", ")
        ),
    };
    if file.as_os_str() == STANDARD {
        note(answer.lines());
        return ExitCode::SUCCESS;
    }
    print_answer(answer.as_bytes())
}

fn write(file: &Path, archive: &[u8]) -> Result<(), String> {
    let failed = |error: io::Error| format!("{} cannot be written: {error}", file.display());
    if file.as_os_str() == STANDARD {
        let mut out = io::stdout().lock();
        return out.write_all(archive).and_then(|()| out.flush()).map_err(failed);
    }
    if fs::symlink_metadata(file).is_ok() {
        return Err(format!("{} is there already; name another file, or remove it", file.display()));
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let aside = file.with_extension(format!("{}.part", std::process::id()));
    keyward_storage::disk::replace(&*disk, &aside, file, |out| {
        out.write_all_at(0, archive)?;
        out.sync_data()
    })
    .map_err(failed)
}

/// The texts of the bundle, by their names in it.
fn members(reading: &Reading, log: Option<String>) -> Vec<(&'static str, String)> {
    let data_dir = &reading.settings.data_dir;
    let findings = doctor::look(reading);
    let asked = |command: &str| ask(data_dir, command);
    let status = asked("status");
    let health = match &status {
        Ok(status) => json!({ "degraded": status["degraded"] }),
        Err(reason) => json!({ "unknown": reason }),
    };
    let metrics = match asked("metrics") {
        Ok(told) => told["exposition"].as_str().unwrap_or_default().to_owned(),
        Err(reason) => format!("# {reason}\n"),
    };
    let told = |outcome: Result<Value, String>| pretty(&outcome.unwrap_or_else(|reason| json!({ "unknown": reason })));
    let mut members = vec![
        ("version.json", pretty(&version())),
        ("settings.json", pretty(&json!({ "settings": config::values(reading), "warnings": reading.warnings }))),
        ("doctor.json", pretty(&json!({ "findings": findings }))),
        ("status.json", told(status)),
        ("health.json", pretty(&health)),
        ("metrics.txt", metrics),
        ("vault.json", told(asked("vault.status"))),
        ("pepper.json", told(asked("pepper.status"))),
        ("audit.json", told(asked("audit.status"))),
        ("files.txt", listing(data_dir)),
    ];
    members.extend(log.map(|log| ("log.txt", log)));
    members
}

fn pretty(value: &Value) -> String {
    // A value is always JSON.
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

fn version() -> Value {
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        "madeAt": Outside::system().clock.now_ms(),
    })
}

/// What the running server answers. Where none runs nothing is opened: the directory may be what is wrong.
fn ask(data_dir: &Path, command: &str) -> Result<Value, String> {
    match call(data_dir, command, Map::new()) {
        Ok(mut answer) => Ok(answer["result"].take()),
        Err(error @ (CallError::NoServer | CallError::Refused(_) | CallError::Failed(_))) => Err(error_chain(&error)),
    }
}

/// The files of a directory with their modes, owners, sizes and times.
fn listing(dir: &Path) -> String {
    let mut lines = Vec::new();
    list(dir, dir, &mut lines);
    lines.sort();
    if lines.len() > LISTED_MAX {
        lines.truncate(LISTED_MAX);
        lines.push("and more".to_owned());
    }
    format!("path mode uid bytes modified\n{}\n", lines.join("\n"))
}

fn list(dir: &Path, below: &Path, lines: &mut Vec<String>) {
    let entries = match fs::read_dir(below) {
        Ok(entries) => entries,
        Err(error) => return lines.push(format!("{} cannot be listed: {error}", below.display())),
    };
    for entry in entries.flatten() {
        if lines.len() > LISTED_MAX {
            return;
        }
        let path = entry.path();
        let name = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
        match entry.metadata() {
            Ok(found) => {
                let (mode, uid, bytes, at) = (found.mode() & 0o7777, found.uid(), found.len(), found.mtime());
                lines.push(format!("{name} {mode:04o} {uid} {bytes} {at}"));
                if found.is_dir() {
                    list(dir, &path, lines);
                }
            }
            Err(error) => lines.push(format!("{name} {error}")),
        }
    }
}

/// The end of a log, from the beginning of a line on.
fn end_of(path: &Path) -> Result<String, String> {
    let failed = |error: io::Error| format!("the log {} cannot be read: {error}", path.display());
    let mut bytes = Vec::new();
    if path.as_os_str() == STANDARD {
        // What is read goes by; the end is kept.
        let mut part = vec![0; 64 << 10];
        let mut stdin = io::stdin().lock();
        loop {
            let read = stdin.read(&mut part).map_err(failed)?;
            if read == 0 {
                break;
            }
            bytes.extend_from_slice(&part[..read]);
            let over = bytes.len().saturating_sub(2 * LOG_BYTES_MAX as usize);
            if over > 0 {
                bytes.drain(..bytes.len() - LOG_BYTES_MAX as usize);
            }
        }
    } else {
        let mut file = File::open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_BYTES_MAX))).map_err(failed)?;
        file.take(LOG_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    }
    let over = bytes.len().saturating_sub(LOG_BYTES_MAX as usize);
    let is_cut = over > 0 || bytes.len() as u64 == LOG_BYTES_MAX;
    let tail = &bytes[over..];
    let from = if is_cut { tail.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
    Ok(String::from_utf8_lossy(&tail[from..]).into_owned())
}

/// The secrets that this process can see.
struct Secrets(Vec<Zeroizing<String>>);

impl Secrets {
    fn of(settings: &Settings) -> Secrets {
        let sources = &settings.secrets;
        let given = [&settings.first_root_key, &sources.master_key, &sources.pepper];
        let mut texts: Vec<Zeroizing<String>> =
            given.into_iter().flatten().map(|secret| Zeroizing::new(secret.expose().to_owned())).collect();
        let mut files = vec![settings.data_dir.join(ROOT_KEY_FILE)];
        files.extend(sources.master_key_file.clone());
        files.extend(sources.pepper_file.clone());
        let names = ["keyward-master-key", "keyward-pepper"];
        files.extend(sources.credentials_dir.iter().flat_map(|dir| names.map(|name| dir.join(name))));
        for path in files {
            let mut text = Zeroizing::new(String::new());
            // What this user cannot read is in none of the texts either.
            if File::open(path).and_then(|file| file.take(SECRETS_BYTES_MAX).read_to_string(&mut text)).is_ok() {
                texts.push(text);
            }
        }
        let lines = texts.iter().flat_map(|text| text.lines().map(str::trim));
        let mut found: Vec<Zeroizing<String>> =
            lines.filter(|line| line.len() >= SECRET_BYTES_MIN).map(|line| Zeroizing::new(line.to_owned())).collect();
        // A secret that begins with another one goes first, as a whole.
        found.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Secrets(found)
    }

    /// A text without them, and without what stands behind `Bearer`.
    fn taken_out(&self, text: &str) -> String {
        let mut text = self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), REDACTED));
        let mut from = 0;
        while let Some(at) = text[from..].find("Bearer ").map(|at| from + at + "Bearer ".len()) {
            let is_part = |sign: char| sign.is_ascii_alphanumeric() || "_-.~+/=".contains(sign);
            let end = text[at..].find(|sign| !is_part(sign)).map_or(text.len(), |end| at + end);
            text.replace_range(at..end, REDACTED);
            from = at + REDACTED.len();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Secrets go, whole, wherever they stand; the longer one of two that begin alike goes as a whole.
    #[test]
    fn secrets_are_taken_out() {
        let secrets =
            Secrets(vec![Zeroizing::new("secret-and-more".to_owned()), Zeroizing::new("secret-a".to_owned())]);
        let text = "a secret-and-more, secret-a; Authorization: Bearer abc.DEF_1== end, Bearer ";
        assert_eq!(
            secrets.taken_out(text),
            "a [REDACTED], [REDACTED]; Authorization: Bearer [REDACTED] end, Bearer [REDACTED]"
        );
    }

    /// Of a log its last lines are taken, whole ones.
    #[test]
    fn the_end_of_a_log_begins_with_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let lines: String = (0..400_000).map(|n| format!("line {n}\n")).collect();
        fs::write(&path, &lines).unwrap();
        let end = end_of(&path).unwrap();
        assert!(
            end.starts_with("line ") && lines.ends_with(&end) && end.len() as u64 <= LOG_BYTES_MAX,
            "{}",
            end.len()
        );
        fs::write(&path, "short\n").unwrap();
        assert_eq!(end_of(&path).unwrap(), "short\n");
    }
}
