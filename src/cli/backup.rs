//! `keyward backup`: all that a data directory holds, as of one moment, in a directory or one archive.
//!
//! Beside a running server that sends what there is to this process, which writes it; without one this process opens the
//! directory itself. Either way what is written is the same, and nothing has the backup's name before all of it is there.

pub mod archive;
pub mod manifest;
pub mod names;
pub mod source;
pub mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use keyward_query::priority::{self, Priority};
use keyward_storage::disk::{Disk, RealDisk};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::admin_client::finish;
use super::ask::{Output, Reach, StoreArguments, Way, note, print_answer};
use super::events::interrupt;
use super::operator::backup::{Backup, Piece};
use super::progress::Line;
use super::vault::NoArguments;
use super::{EXIT_ERROR, SecretsArguments, fail, text};
use crate::http::admin::stream::{Frame, Frames};
use manifest::{Manifest, Told};
use target::{Place, Target};

const AFTER_HELP: &str = "A name that ends in .tar is one archive, `-` an archive on standard output, anything else a \
    directory, which must not be there yet. It is safe at any time: verifications and changes go on, and what is in the backup \
    is of one moment. It holds hashes of keys and the audit trail: keep it as you keep the data directory. Not in it are \
    root.key, the pepper and the master key, which belong elsewhere, and the search index, which is made anew.\n\n\
    keyward backup --data-dir /var/lib/keyward /backup/keyward-2026-11-30\n\
    keyward backup --data-dir /var/lib/keyward - | zstd > keyward.tar.zst\n\
    keyward verify-data /backup/keyward-2026-11-30\n\
    keyward restore /backup/keyward-2026-11-30 --data-dir /var/lib/keyward-new";

/// `keyward backup`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct BackupArguments {
    /// Where to: a directory, a file that ends in .tar, or - for standard output
    #[arg(value_name = "TARGET")]
    target: PathBuf,
    #[command(flatten)]
    secrets: SecretsArguments,
    #[command(flatten)]
    store: StoreArguments,
}

/// What was backed up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackedUp {
    /// Where it is; `-` for standard output.
    pub target: String,
    /// What it is of.
    #[serde(flatten)]
    pub of: Told,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Runs `keyward backup`.
pub fn run(arguments: BackupArguments) -> ExitCode {
    let BackupArguments { target, secrets, store } = arguments;
    let output = store.output();
    let reach = match store.reach_with(secrets) {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let place = Place::named(&target);
    let manifest = match back_up(&reach, &place) {
        Ok(manifest) => manifest,
        Err(reason) => return fail(EXIT_ERROR, [reason, "there is no backup".to_owned()]),
    };
    let done = BackedUp {
        target: target.display().to_string(),
        files: manifest.files.len() as u64,
        bytes: manifest.bytes(),
        of: manifest.of,
    };
    let answer = match output {
        Output::Json => format!("{}\n", json!(done)),
        Output::Text => done.text(),
    };
    if place == Place::Standard {
        // Standard output is the archive.
        note(answer.lines());
        return ExitCode::SUCCESS;
    }
    print_answer(answer.as_bytes())
}

/// Backs up what `reach` leads to.
fn back_up(reach: &Reach, place: &Place) -> Result<Manifest, String> {
    // Before a server is asked for anything.
    target::check(&RealDisk, place)?;
    if let Some(aside) = place.aside() {
        interrupt::remove_if_interrupted(&aside).map_err(|error| format!("cannot listen for signals: {error}"))?;
    }
    // Writing must not take from a server on the same machine what it answers requests with: where there are two busy threads
    // for each core, this takes a thirtieth of one.
    priority::set(Priority::Patient);
    let mut line = Line::new("bytes");
    let written = match reach.begin("backup", &NoArguments {})? {
        Way::Server(mut frames, told) => {
            let told = serde_json::from_value(told).map_err(|error| format!("the server's answer: {error}"))?;
            receive(&mut frames, told, place, &mut line)
        }
        Way::Directory(services) => {
            let written = Backup::begin(&services).and_then(|mut backup| {
                let target = Target::begin(Arc::new(RealDisk) as Arc<dyn Disk>, place.clone())?;
                write(&mut backup, target, &mut |done, all| line.show(done, all))
            });
            services.shutdown();
            written
        }
    };
    line.end();
    written
}

/// Writes a backup of an open store.
///
/// # Errors
/// A sentence for the operator; there is no backup.
pub fn write(backup: &mut Backup<'_>, mut target: Target, tell: &mut dyn FnMut(u64, u64)) -> Result<Manifest, String> {
    let all = backup.bytes();
    backup.run(&mut |piece| match piece {
        Piece::File { path, length } => {
            target.file(path, length)?;
            tell(target.written(), all);
            Ok(())
        }
        Piece::Bytes(bytes) => target.bytes(bytes),
    })?;
    target.finish(backup.told().clone())
}

/// What a server says before it sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Going {
    /// What the backup is of.
    pub of: Told,
    /// Bytes that will come, about.
    pub bytes: u64,
}

/// Writes a backup that a server sends.
fn receive(frames: &mut Frames, told: Going, place: &Place, line: &mut Line) -> Result<Manifest, String> {
    let gone = |error: std::io::Error| format!("the connection to the server is gone: {error}");
    let mut target = Target::begin(Arc::new(RealDisk) as Arc<dyn Disk>, place.clone())?;
    loop {
        match frames.receive().map_err(gone)? {
            Frame::Bytes(frame) => match Piece::decode(&frame) {
                Some(Piece::File { path, length }) => {
                    target.file(path, length)?;
                    line.show(target.written(), told.bytes.max(target.written()));
                }
                Some(Piece::Bytes(bytes)) => target.bytes(bytes)?,
                None => return Err("the server sent what this version does not understand".to_owned()),
            },
            Frame::End => break,
            Frame::Aborted => {
                return Err(match finish(frames) {
                    Err(error) => error.to_string(),
                    Ok(answer) => format!("the server's answer: {answer}"),
                });
            }
        }
    }
    // It says that this was all.
    finish(frames).map_err(|error| error.to_string())?;
    target.finish(told.of)
}

impl BackedUp {
    fn text(&self) -> String {
        let mut told = text::fields(&[
            ("backup", self.target.clone()),
            ("of", text::time(self.of.created_at)),
            ("position", self.of.position.to_string()),
            ("rows of records", self.of.rows.to_string()),
            ("events", self.of.events.to_string()),
            ("files", self.files.to_string()),
            ("bytes", self.bytes.to_string()),
        ]);
        told.push_str(&needed(&self.of));
        told
    }
}

/// What a backup needs that is not in it.
pub fn needed(of: &Told) -> String {
    let mut told = String::new();
    for pepper in &of.peppers {
        told.push_str(&format!("It needs the pepper {pepper}, which is not in it: without that no key can be used.\n"));
    }
    for master in &of.master_keys {
        told.push_str(&format!(
            "It needs the master key {master}, which is not in it, to read the plaintexts of recoverable keys.\n"
        ));
    }
    told
}
