//! Where an export's lines go: standard output, or a file that appears when it is whole.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use keyward_storage::disk::{Disk, RealDisk};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 1 << 18;
/// Only its owner reads what is exported, until its owner says otherwise.
const FILE_MODE: u32 = 0o600;

/// What takes the lines.
pub struct Lines {
    out: BufWriter<Box<dyn Write>>,
    name: String,
}

impl Lines {
    /// Takes lines to standard output.
    ///
    /// # Errors
    /// What `fill` says, or a sentence for the operator.
    pub fn to_stdout<R>(fill: impl FnOnce(&mut Lines) -> Result<R, String>) -> Result<R, String> {
        let out: Box<dyn Write> = Box::new(io::stdout());
        let mut lines = Lines { out: BufWriter::with_capacity(WRITE_BYTES, out), name: "standard output".to_owned() };
        let filled = fill(&mut lines)?;
        lines.out.flush().map_err(|error| lines.failed(&error))?;
        Ok(filled)
    }

    /// Takes lines to a file, which is there when all are in it, and not before.
    ///
    /// # Errors
    /// What `fill` says, or a sentence for the operator; there is no new file.
    pub fn to_file<R>(
        path: &Path,
        force: bool,
        fill: impl FnOnce(&mut Lines) -> Result<R, String>,
    ) -> Result<R, String> {
        let name = path.display().to_string();
        let failed = |error: io::Error| format!("{name} cannot be written: {error}");
        let absent = || match !force && fs::symlink_metadata(path).is_ok() {
            true => Err(format!("{name} is there already; --force replaces it")),
            false => Ok(()),
        };
        absent()?;
        let aside = aside(path);
        let write = || {
            let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&aside).map_err(failed)?;
            let out: Box<dyn Write> = Box::new(file.try_clone().map_err(failed)?);
            let mut lines = Lines { out: BufWriter::with_capacity(WRITE_BYTES, out), name: name.clone() };
            let filled = fill(&mut lines)?;
            lines.out.flush().map_err(failed)?;
            file.sync_all().map_err(failed)?;
            // It may have come to be meanwhile.
            absent()?;
            RealDisk.rename(&aside, path).map_err(failed)?;
            RealDisk.sync_dir(path.parent().unwrap_or(Path::new(""))).map_err(failed)?;
            Ok(filled)
        };
        write().inspect_err(|_| {
            // It has its own name and is of no use to anybody.
            let _ = fs::remove_file(&aside);
        })
    }

    /// Writes whole lines, or parts of some.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// An error of [`Lines::write`] as a sentence.
    pub fn failed(&self, error: &io::Error) -> String {
        format!("{} cannot be written: {error}", self.name)
    }
}

/// The name of the file while it is not whole: beside the one it will be, and of this process alone.
fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.part", std::process::id()))
}
