//! Events appended to a file, one JSON object a line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::export::Outgoing;

/// Only its owner reads it, until its owner says otherwise.
const FILE_MODE: u32 = 0o600;

/// The file, by its name: what has that name when events come is written to.
pub struct FileTarget {
    path: PathBuf,
    open: Option<File>,
}

impl FileTarget {
    /// A file that is opened, and made, when there is something to write.
    pub fn new(path: PathBuf) -> FileTarget {
        FileTarget { path, open: None }
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
