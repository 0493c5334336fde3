//! The files of an import and of an export, and the rows' way between them and a store.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyward_query::events::RecordBatch;
use keyward_query::events::files::frames::{Decoder, Encoder};
use keyward_query::events::files::{BadRow, FileError, Format, RowReader, RowWriter};
use keyward_query::events::tables::Family;
use keyward_storage::disk::{Disk, RealDisk};
use serde_json::Value;

use super::super::admin_client::{CallError, finish};
use super::super::operator::events::{Added, Import, Imported, NotImported, Told, exported};
use super::interrupt;
use super::progress::Progress;
use super::{ExportEvents, ImportEvents};
use crate::app::Services;
use crate::http::admin::stream::{Frame, Frames};

/// Bytes that are written to a file at once.
const WRITE_BYTES: usize = 1 << 18;
/// Only its owner reads what is exported, until its owner says otherwise.
const FILE_MODE: u32 = 0o600;
/// Standard input or output.
const STANDARD: &str = "-";

/// How a file's rows stand in it, by its name.
fn format_of(path: &Path) -> Result<Format, String> {
    if path.as_os_str() == STANDARD {
        return Ok(Format::Ndjson);
    }
    Format::of(path).ok_or_else(|| {
        format!("{}: the name does not say what is in it; let it end in .parquet, .ndjson or .jsonl", path.display())
    })
}

/// Why a file's rows are not, or may not be, in the store: a sentence for the operator.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// Nothing of the file was imported.
    Nothing(String),
    /// The server had all of the file, and was gone before it answered.
    Unknown(String),
}

impl From<String> for NotAdded {
    fn from(reason: String) -> NotAdded {
        NotAdded::Nothing(reason)
    }
}

/// A file to import.
pub struct Source {
    path: PathBuf,
    format: Format,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_os_str() == STANDARD {
            true => f.write_str("standard input"),
            false => write!(f, "{}", self.path.display()),
        }
    }
}

impl Source {
    /// The file with this name, or standard input for `-`.
    ///
    /// # Errors
    /// A name that does not say the format.
    pub fn named(path: &Path) -> Result<Source, String> {
        Ok(Source { path: path.to_owned(), format: format_of(path)? })
    }

    /// Opens it.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn open(&self) -> Result<Opened, String> {
        if self.path.as_os_str() == STANDARD {
            return Ok(Opened { format: self.format, file: None, bytes: None });
        }
        let file = File::open(&self.path).map_err(|error| format!("the file cannot be opened: {error}"))?;
        let metadata = file.metadata().map_err(|error| format!("the file cannot be read: {error}"))?;
        if metadata.is_dir() {
            return Err("this is a directory; name the files in it".to_owned());
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Opened { format: self.format, file: Some(file), bytes })
    }
}

/// An open file to import.
pub struct Opened {
    format: Format,
    /// Absent: standard input.
    file: Option<File>,
    bytes: Option<u64>,
}

impl Opened {
    /// Imports it into an open store.
    ///
    /// # Errors
    /// A sentence for the operator; nothing was imported.
    pub fn import(self, ask: &ImportEvents, services: &Services) -> Result<Added, String> {
        let unit = self.format.unit();
        let import = Import::begin(services, ask.clone())?;
        let rows = self.rows(ask.table.family(), import.told())?;
        import.run(rows).map_err(|why| match why {
            NotImported::Bad(bad) => bad.in_words(unit),
            NotImported::Source(error) => error.to_string(),
            NotImported::Failed(reason) => reason,
        })
    }

    /// Sends it to a server.
    ///
    /// # Errors
    /// See [`NotAdded`].
    pub fn send(self, family: Family, mut frames: Frames, told: Value) -> Result<Added, NotAdded> {
        let unit = self.format.unit();
        let told = serde_json::from_value(told).map_err(|error| format!("the server's answer: {error}"))?;
        let mut encoder = Encoder::new(family).map_err(|error| error.to_string())?;
        let sent = self.rows(family, told).map_err(Unsent::Refused).and_then(|rows| {
            for rows in rows {
                let rows = rows.map_err(Unsent::Source)?;
                encoder.encode(&rows, &mut |frame| frames.send(frame)).map_err(Unsent::Connection)?;
            }
            frames.end().map_err(Unsent::Connection)
        });
        if matches!(sent, Err(Unsent::Source(_) | Unsent::Refused(_))) {
            // Where this does not arrive, the connection's end does.
            let _ = frames.abort();
        }
        // A server that refuses a row answers at once and reads no further.
        let answer = finish(&mut frames);
        let refused = match answer.as_ref().map(|answer| serde_json::from_value(answer.clone())) {
            Ok(Ok(Imported::Added(added))) if sent.is_ok() => return Ok(added),
            Ok(Ok(Imported::Refused { row, column, reason })) => Some(BadRow { row, column, reason }),
            _ => None,
        };
        let reason = match (sent, refused, answer) {
            // Without its answer nobody knows whether the server was done.
            (Ok(()), None, Err(CallError::Failed(reason))) => return Err(NotAdded::Unknown(reason)),
            // Whichever row comes first in the file is the one to tell of.
            (Err(Unsent::Source(FileError::Row { bad, .. })), Some(refused), _) if bad.row <= refused.row => {
                bad.in_words(unit)
            }
            (_, Some(refused), _) => refused.in_words(unit),
            (Err(Unsent::Source(error)), None, _) => error.to_string(),
            (Err(Unsent::Refused(reason)), None, _) => reason,
            (_, None, Err(error)) => error.to_string(),
            (Err(Unsent::Connection(error)), None, Ok(_)) => format!("cannot talk to the running server: {error}"),
            (Ok(()), None, Ok(answer)) => format!("the server's answer: {answer}"),
        };
        Err(NotAdded::Nothing(reason))
    }

    /// Its rows; progress is shown as they are taken.
    fn rows(self, family: Family, told: Told) -> Result<Watched, String> {
        let reader = match (self.format, self.file) {
            (Format::Parquet, Some(file)) => {
                RowReader::parquet(family, told.workspace_id, file).map_err(|error| error.to_string())?
            }
            (_, Some(file)) => RowReader::ndjson(family, told.workspace_id, Box::new(file)),
            (_, None) => RowReader::ndjson(family, told.workspace_id, Box::new(io::stdin())),
        };
        Ok(Watched { reader, progress: Progress::new(self.bytes) })
    }
}

/// Why rows did not get to the server.
enum Unsent {
    Source(FileError),
    Refused(String),
    Connection(io::Error),
}

/// Rows whose reading is shown.
struct Watched {
    reader: RowReader,
    progress: Progress,
}

impl Iterator for Watched {
    type Item = Result<RecordBatch, FileError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rows = self.reader.next();
        match &rows {
            Some(Ok(_)) => self.progress.show(self.reader.rows(), self.reader.bytes()),
            _ => self.progress.end(),
        }
        rows
    }
}

/// A file to write.
pub struct Target {
    path: PathBuf,
    format: Format,
    force: bool,
}

impl Target {
    /// The file with this name, or standard output for `-`.
    ///
    /// # Errors
    /// A name that does not say the format.
    pub fn named(path: &Path, force: bool) -> Result<Target, String> {
        Ok(Target { path: path.to_owned(), format: format_of(path)?, force })
    }

    /// Whether the rows go to standard output.
    pub fn is_stdout(&self) -> bool {
        self.path.as_os_str() == STANDARD
    }

    /// Refuses a file that is there.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn check(&self) -> Result<(), String> {
        if !self.is_stdout() && !self.force && fs::symlink_metadata(&self.path).is_ok() {
            return Err(format!("{} is there already; --force replaces it", self.path.display()));
        }
        Ok(())
    }

    /// Writes the rows of an open store.
    ///
    /// # Errors
    /// A sentence for the operator; there is no new file.
    pub fn export(&self, ask: &ExportEvents, services: &Services) -> Result<u64, String> {
        let batches = exported(services, ask.clone())?;
        let batches = batches.map(|batch| batch.map_err(|error| format!("the events could not be read: {error}")));
        self.write(ask.table.family(), batches)
    }

    /// Writes the rows that a server sends.
    ///
    /// # Errors
    /// A sentence for the operator; there is no new file.
    pub fn receive(&self, family: Family, mut frames: Frames) -> Result<u64, String> {
        let mut decoder = Decoder::new(family);
        let failed = |error: io::Error| format!("cannot talk to the running server: {error}");
        let mut ended = false;
        let batches = std::iter::from_fn(|| {
            if ended {
                return None;
            }
            let received = frames.receive();
            ended = !matches!(received, Ok(Frame::Bytes(_)));
            match received {
                Ok(Frame::Bytes(frame)) => Some(decoder.decode(frame).map_err(failed)),
                // The answer that follows must say that it went well.
                Ok(Frame::End) => finish(&mut frames).err().map(|error| Err(error.to_string())),
                Ok(Frame::Aborted) => Some(Err(match finish(&mut frames) {
                    Err(error) => error.to_string(),
                    Ok(answer) => format!("the server's answer: {answer}"),
                })),
                Err(error) => Some(Err(failed(error))),
            }
        });
        self.write(family, batches)
    }

    /// Writes all of these rows or none.
    fn write(&self, family: Family, batches: impl Iterator<Item = Result<RecordBatch, String>>) -> Result<u64, String> {
        if self.is_stdout() {
            let failed = |error: io::Error| format!("standard output cannot be written: {error}");
            let out = BufWriter::with_capacity(WRITE_BYTES, io::stdout());
            let (rows, mut out) = self.write_to(out, family, batches, failed)?;
            out.flush().map_err(failed)?;
            return Ok(rows);
        }
        let failed = |error: io::Error| format!("{} cannot be written: {error}", self.path.display());
        let aside = self.aside();
        interrupt::remove_if_interrupted(&aside).map_err(failed)?;
        let written = || {
            let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&aside).map_err(failed)?;
            let out = BufWriter::with_capacity(WRITE_BYTES, file);
            let (rows, out) = self.write_to(out, family, batches, failed)?;
            let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
            file.sync_all().map_err(failed)?;
            // It may have come to be meanwhile.
            self.check()?;
            RealDisk.rename(&aside, &self.path).map_err(failed)?;
            RealDisk.sync_dir(self.path.parent().unwrap_or(Path::new(""))).map_err(failed)?;
            Ok(rows)
        };
        written().inspect_err(|_: &String| {
            // It has its own name and is of no use to anybody.
            let _ = fs::remove_file(&aside);
        })
    }

    fn write_to<W: Write + Send>(
        &self,
        out: W,
        family: Family,
        batches: impl Iterator<Item = Result<RecordBatch, String>>,
        failed: impl Fn(io::Error) -> String,
    ) -> Result<(u64, W), String> {
        let written = Counted { out, bytes: 0 };
        let mut writer = RowWriter::new(self.format, family, written).map_err(&failed)?;
        let mut progress = Progress::new(None);
        let mut rows = 0;
        for batch in batches {
            let batch = batch?;
            writer.write(&batch).map_err(&failed)?;
            rows += batch.num_rows() as u64;
            progress.show(rows, writer.get_ref().bytes);
        }
        progress.end();
        let written = writer.finish().map_err(&failed)?;
        Ok((rows, written.out))
    }

    /// The name of the file while it is not whole: beside the one it will be, and of this process alone.
    fn aside(&self) -> PathBuf {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        self.path.with_file_name(format!(".{name}.{}.part", std::process::id()))
    }
}

/// Counts what is written.
struct Counted<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use serde_json::json;

    use super::*;

    /// Imports one row into a server that does this once it has told the client to send.
    fn imported(server: impl FnOnce(&mut Frames) + Send + 'static) -> Result<Added, NotAdded> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one.ndjson");
        fs::write(&path, "{\"workspace_id\":\"ws_aaaaaaaaaaaaaaaa\",\"time\":1,\"latency\":1}\n").unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let serving = thread::spawn(move || server(&mut Frames::new(other).unwrap()));
        let told = json!({ "workspaceId": null });
        let opened = Source::named(&path).unwrap().open().unwrap();
        let added = opened.send(Family::Verifications, Frames::new(one).unwrap(), told);
        serving.join().unwrap();
        added
    }

    /// EXT-4, "all or nothing": nobody is told that nothing was imported by a server that may have imported everything.
    #[test]
    fn a_server_that_is_gone_before_its_answer_leaves_the_outcome_open() {
        let gone_early = imported(|_| {});
        assert!(matches!(gone_early, Err(NotAdded::Nothing(_) | NotAdded::Unknown(_))), "{gone_early:?}");
        let gone_late = imported(|frames| while frames.receive().unwrap() != Frame::End {});
        assert!(matches!(gone_late, Err(NotAdded::Unknown(_))), "{gone_late:?}");
        let refused = imported(|frames| {
            while frames.receive().unwrap() != Frame::End {}
            frames.send_line(&json!({ "error": { "message": "the disk is full" } })).unwrap();
        });
        assert_eq!(refused.unwrap_err(), NotAdded::Nothing("the disk is full".to_owned()));
    }
}
