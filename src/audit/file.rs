//! Events appended to a file, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::export::Outgoing;

/// Only its owner reads it, until its owner says otherwise.
const FILE_MODE: u32 = 0o600;
/// Rights that the file should give nobody: to change what is written, or, but for its group, to read it. A file that is there
/// keeps the rights it has, since they are its owner's choice: a group that ships logs is often meant to read it.
const UNDUE: u32 = 0o027;

/// The file, by its name: what has that name when events come is written to.
pub struct FileTarget {
    path: PathBuf,
    open: Option<File>,
    /// Rights that the log was told of.
    told: Option<u32>,
}

impl FileTarget {
    /// A file that is opened, and made, when there is something to write.
    pub fn new(path: PathBuf) -> FileTarget {
        FileTarget { path, open: None, told: None }
    }

    /// Appends all of these. After an error they are to come again: some of them may be there, the last one in part.
    pub fn send(&mut self, events: &[Outgoing<'_>]) -> io::Result<()> {
        let mut file = self.current()?;
        let lines: Vec<u8> = events.iter().flat_map(|event| &event.line).copied().collect();
        // The handle is kept only if all went well: the next one looks how the file ends.
        file.write_all(&lines)?;
        self.open = Some(file);
        Ok(())
    }

    /// Syncs what was appended.
    pub fn sync(&mut self) -> io::Result<()> {
        self.open.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// The file that has the name now: after it was moved away (logrotate) a new one.
    fn current(&mut self) -> io::Result<File> {
        if let Some(file) = self.open.take() {
            let (held, named) = (file.metadata()?, std::fs::symlink_metadata(&self.path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
                return Ok(file);
            }
            file.sync_data()?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(FILE_MODE).open(&self.path)?;
        let found = file.metadata()?;
        let mode = found.mode() & 0o7777;
        if found.is_file() && is_too_open(mode) && self.told != Some(mode) {
            self.told = Some(mode);
            tracing::warn!(
                path = %self.path.display(),
                mode = format_args!("{mode:04o}"),
                "{}",
                rights_advice(&self.path)
            );
        }
        // A line that a crash or a full disk has cut off does not run into the next one.
        if file.metadata()?.is_file() && file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        Ok(file)
    }
}

/// Whether a file with these rights is open to more than its owner, and its group's reading.
pub fn is_too_open(mode: u32) -> bool {
    mode & UNDUE != 0
}

/// What to do about a file that is.
pub fn rights_advice(path: &Path) -> String {
    format!("other users may read or change the exported audit trail; chmod 640 {}", path.display())
}
