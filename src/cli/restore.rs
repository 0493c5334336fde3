//! `keyward restore`: a data directory from a backup.
//!
//! Records are put as rows into a new file, events and windows as they are, and the log begins behind the position of the backup.
//! The directory is one of keyward's from the moment at which all of it is there and every checksum has been seen to fit; before
//! that no server starts on it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use keyward_storage::backup::{CHUNK_BYTES_MAX, Restore, STATE_BYTES};
use keyward_storage::disk::{Disk, RealDisk};
use serde::Serialize;
use serde_json::json;

use super::ask::{Output, Reach, StoreArguments, print_answer};
use super::backup::manifest::{Manifest, Told, hex};
use super::backup::names::Kind;
use super::backup::needed;
use super::backup::source::{Entry, Source};
use super::progress::Line;
use super::{EXIT_ERROR, EXIT_USAGE, fail, text};
use crate::outside::{Entropy, Outside};
use crate::telemetry::error_chain;

const AFTER_HELP: &str = "The directory must be empty or not there yet; it gets all data of the moment of the backup, and an id of \
    its own, so that no follower takes the two for one. Every checksum is compared first: a backup that is damaged, cut off or of \
    a newer version leaves the directory as it was. A restore that is interrupted is begun anew by running it again.\n\n\
    keyward restore /backup/keyward-2026-11-30 --data-dir /var/lib/keyward-new\n\
    zstd -dc keyward.tar.zst | keyward restore - --data-dir /var/lib/keyward-new\n\n\
    Not in a backup: the pepper and the master key, without which a store that uses them is of little use, and root.key; the root \
    keys themselves work as they did, and `keyward root-key create` makes another.";

/// Bytes that are copied at once.
const COPY_BYTES: usize = 256 << 10;

/// `keyward restore`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct RestoreArguments {
    /// The backup: a directory, an archive, or - for an archive on standard input
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    #[command(flatten)]
    store: StoreArguments,
}

/// What was restored.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// Where to.
    pub data_dir: String,
    /// The id of the store that was made, in hexadecimal digits; what the backup is of has another one.
    pub new_store_id: String,
    /// What the backup is of.
    #[serde(flatten)]
    pub of: Told,
}

/// Runs `keyward restore`.
pub fn run(arguments: RestoreArguments) -> ExitCode {
    let RestoreArguments { backup, store } = arguments;
    let output = store.output();
    let reach: Reach = match store.reach() {
        Ok(reach) => reach,
        Err(answered) => return answered,
    };
    let source = match Source::named(&backup) {
        Ok(source) => source,
        Err(reason) => return fail(EXIT_USAGE, [reason]),
    };
    let data_dir = &reach.settings().data_dir;
    let mut line = Line::new("bytes");
    let outcome = restore(Arc::new(RealDisk), &source, data_dir, &Outside::system().entropy, &mut |done, all| {
        line.show(done, all.max(done));
    });
    line.end();
    let restored = match outcome {
        Ok(restored) => restored,
        Err(reasons) => return fail(EXIT_ERROR, reasons.into_iter().chain(["nothing was restored".to_owned()])),
    };
    let answer = match output {
        Output::Json => format!("{}\n", json!(restored)),
        Output::Text => restored.text(),
    };
    print_answer(answer.as_bytes())
}

/// Restores a backup into an empty directory.
///
/// # Errors
/// Sentences for the operator; the directory is as it was, empty or not there.
pub fn restore(
    disk: Arc<dyn Disk>,
    source: &Source,
    data_dir: &Path,
    entropy: &Entropy,
    how_far: &mut dyn FnMut(u64, u64),
) -> Result<Restored, Vec<String>> {
    let one = |reason: String| vec![reason];
    let mut into = Restore::begin(disk, data_dir).map_err(|error| one(error_chain(&error)))?;
    let mut store_id = [0; 16];
    entropy.fill(&mut store_id);
    let mut rows = 0;
    let Manifest { of, .. } = source.read(&mut |entry| take(&mut into, store_id, entry, &mut rows), how_far)?;
    if rows != of.rows {
        return Err(one(format!("{}: it has {rows} rows, and its manifest says {}", source.shown(), of.rows)));
    }
    let (_, position) = into.finish().map_err(|error| one(error_chain(&error)))?;
    if position.0 != of.position {
        // Its checksums fit, so whoever made it did not make it as this version does.
        tracing::warn!(
            position = position.0,
            told = of.position,
            "the backup's manifest names another position than its records"
        );
    }
    Ok(Restored { data_dir: data_dir.display().to_string(), new_store_id: hex(&store_id), of })
}

/// Puts a file of a backup where it belongs.
fn take(into: &mut Restore, store_id: [u8; 16], entry: Entry<'_>, rows: &mut u64) -> Result<(), String> {
    let Entry { path, kind, bytes } = entry;
    let unread = |error: std::io::Error| format!("{path} cannot be read: {error}");
    let put = |error: keyward_storage::backup::RestoreError| format!("{path}: {}", error_chain(&error));
    let whole = |bytes: &mut dyn Read, most: usize| -> Result<Vec<u8>, String> {
        let mut whole = Vec::new();
        bytes.take(most as u64 + 1).read_to_end(&mut whole).map_err(unread)?;
        if whole.len() > most { Err(format!("{path} is larger than such a file may be")) } else { Ok(whole) }
    };
    match kind {
        Kind::State => into.state(&whole(bytes, STATE_BYTES)?, store_id).map_err(put),
        Kind::Rows => {
            *rows += into.rows(&whole(bytes, CHUNK_BYTES_MAX)?).map_err(put)?;
            Ok(())
        }
        Kind::Plain => {
            let file = into.file(Path::new(path)).map_err(put)?;
            let failed = |error: std::io::Error| format!("{path} cannot be written: {error}");
            let (mut buffer, mut at) = (vec![0; COPY_BYTES], 0);
            loop {
                let read = bytes.read(&mut buffer).map_err(unread)?;
                if read == 0 {
                    break;
                }
                file.write_all_at(at, &buffer[..read]).map_err(failed)?;
                at += read as u64;
            }
            file.sync_data().map_err(failed)
        }
        // These two are the source's own.
        Kind::Format | Kind::Manifest => Ok(()),
    }
}

impl Restored {
    fn text(&self) -> String {
        let mut told = text::fields(&[
            ("restored into", self.data_dir.clone()),
            ("as of", text::time(self.of.created_at)),
            ("position", self.of.position.to_string()),
            ("rows of records", self.of.rows.to_string()),
            ("events", self.of.events.to_string()),
            ("made by version", self.of.version.clone()),
        ]);
        told.push_str(&needed(&self.of));
        told.push_str(&format!("Start it: keyward serve --data-dir {}\n", self.data_dir));
        told
    }
}
