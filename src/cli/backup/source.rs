//! A backup that is read: a directory, an archive, or an archive on standard input.
//!
//! Whichever it is, each file is handed out with its bytes, summed up as they go by, and at the end the sums are compared with the
//! manifest. So whoever takes the files must not make anything of them that counts before [`Source::read`] has returned.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::archive;
use super::manifest::{
    FORMAT_BYTES_MAX, FORMAT_FILE, FileEntry, MANIFEST_BYTES_MAX, MANIFEST_FILE, Manifest, Sum, check_format,
};
use super::names::{self, Kind};
use super::target::STANDARD;

/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 18;
/// Differences that are told one by one.
const TOLD_MAX: usize = 10;

/// A backup.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    is_archive: bool,
}

/// A file of a backup.
pub struct Entry<'a> {
    /// Its path in the backup.
    pub path: &'a str,
    /// What it is.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: &'a mut dyn Read,
}

/// Takes the files of a backup; reads each as far as it likes.
pub type Take<'a> = dyn FnMut(Entry<'_>) -> Result<(), String> + 'a;

impl Source {
    /// The backup of this name, `-` for standard input.
    ///
    /// # Errors
    /// A sentence for the operator: nothing is there.
    pub fn named(path: &Path) -> Result<Source, String> {
        if path.as_os_str() == STANDARD {
            return Ok(Source { path: path.to_owned(), is_archive: true });
        }
        match fs::metadata(path) {
            Ok(found) => Ok(Source { path: path.to_owned(), is_archive: !found.is_dir() }),
            Err(error) => Err(format!("the backup {} cannot be opened: {error}", path.display())),
        }
    }

    /// What it is called.
    pub fn shown(&self) -> String {
        match self.path.as_os_str() == STANDARD {
            true => "the backup on standard input".to_owned(),
            false => format!("the backup {}", self.path.display()),
        }
    }

    /// Reads all of it. `take` is given the files but for `FORMAT` and the manifest; `how_far` is told of bytes, done and all of
    /// them, which is 0 where nobody knows.
    ///
    /// # Errors
    /// Sentences for the operator: it is cut, damaged, foreign or a newer version's, cannot be read, or what `take` says.
    pub fn read(&self, take: &mut Take<'_>, how_far: &mut dyn FnMut(u64, u64)) -> Result<Manifest, Vec<String>> {
        let named = |reason: String| vec![format!("{}: {reason}", self.shown())];
        let (manifest, seen) = match self.is_archive {
            true => self.read_archive(take, how_far),
            false => self.read_directory(take, how_far),
        }
        .map_err(named)?;
        let wrong = differences(&manifest.files, &seen);
        if wrong.is_empty() {
            return Ok(manifest);
        }
        let more = wrong.len().saturating_sub(TOLD_MAX);
        let mut told: Vec<String> = wrong.into_iter().take(TOLD_MAX).flat_map(named).collect();
        if more > 0 {
            told.extend(named(format!("{more} more files are wrong")));
        }
        Err(told)
    }

    fn read_archive(
        &self,
        take: &mut Take<'_>,
        how_far: &mut dyn FnMut(u64, u64),
    ) -> Result<(Manifest, Vec<FileEntry>), String> {
        let (from, all): (Box<dyn Read>, u64) = match self.path.as_os_str() == STANDARD {
            true => (Box::new(io::stdin()), 0),
            false => {
                let file = File::open(&self.path).map_err(|error| error.to_string())?;
                let length = file.metadata().map_err(|error| error.to_string())?.len();
                (Box::new(file), length)
            }
        };
        let mut reading = Reading { seen: Vec::new(), names: BTreeSet::new(), manifest: None, done: 0 };
        // Headers and padding are bytes of the archive, too.
        let read = Rc::new(Cell::new(0));
        let from = Counted { from, read: Rc::clone(&read) };
        archive::read(&mut BufReader::with_capacity(READ_BYTES, from), &mut |path, length, bytes| {
            reading.file(path, length, bytes, take)?;
            how_far(read.get(), all);
            Ok(())
        })?;
        // What an archive is padded with at its end is not read.
        how_far(all.max(read.get()), all);
        match reading.manifest {
            Some(manifest) => Ok((manifest, reading.seen)),
            None => Err(format!("it is cut off: it does not end with {MANIFEST_FILE}")),
        }
    }

    fn read_directory(
        &self,
        take: &mut Take<'_>,
        how_far: &mut dyn FnMut(u64, u64),
    ) -> Result<(Manifest, Vec<FileEntry>), String> {
        let mut reading = Reading { seen: Vec::new(), names: BTreeSet::new(), manifest: None, done: 0 };
        let (mut file, length) = open(&self.path, FORMAT_FILE)?;
        reading.file(FORMAT_FILE, length, &mut file, take)?;
        let (mut file, length) = open(&self.path, MANIFEST_FILE)?;
        let manifest = Manifest::parse(&small(&mut file, length, MANIFEST_BYTES_MAX)?)?;
        let all = manifest.bytes();
        for FileEntry { path, .. } in manifest.files.iter().filter(|file| file.path != FORMAT_FILE) {
            if !matches!(names::kind(path), Some(Kind::State | Kind::Rows | Kind::Plain)) {
                return Err(format!(
                    "{} in it is no file that a backup of keyward's has",
                    crate::cli::text::printable(path)
                ));
            }
            let (mut file, length) = open(&self.path, path)?;
            reading.file(path, length, &mut file, take)?;
            how_far(reading.done, all);
        }
        Ok((manifest, reading.seen))
    }
}

/// What has been read of a backup.
struct Reading {
    seen: Vec<FileEntry>,
    names: BTreeSet<String>,
    manifest: Option<Manifest>,
    done: u64,
}

impl Reading {
    fn file(&mut self, path: &str, length: u64, bytes: &mut dyn Read, take: &mut Take<'_>) -> Result<(), String> {
        let kind = names::kind(path).ok_or("a file in it has a name that none has")?;
        if self.manifest.is_some() {
            return Err(format!("{path} stands behind {MANIFEST_FILE}, which is the last file of a backup"));
        }
        if self.seen.is_empty() && kind != Kind::Format {
            return Err(format!("it does not begin with {FORMAT_FILE}; is it a backup of keyward's?"));
        }
        if !self.names.insert(path.to_owned()) {
            return Err(format!("it has {path} twice"));
        }
        if kind == Kind::Manifest {
            self.manifest = Some(Manifest::parse(&small(bytes, length, MANIFEST_BYTES_MAX)?)?);
            return Ok(());
        }
        let mut summed = Summed { from: bytes, sum: Sum::new(path) };
        match kind {
            Kind::Format => {
                let text = small(&mut summed, length, FORMAT_BYTES_MAX)?;
                check_format(&String::from_utf8_lossy(&text))?;
            }
            _ => take(Entry { path, kind, bytes: &mut summed })?,
        }
        // Whatever nobody has read is summed up, too.
        io::copy(&mut summed, &mut io::sink()).map_err(|error| format!("{path} cannot be read: {error}"))?;
        let entry = summed.sum.entry();
        if entry.bytes != length {
            return Err(format!("{path} is cut off: it has {} bytes of {length}", entry.bytes));
        }
        self.done += entry.bytes;
        self.seen.push(entry);
        Ok(())
    }
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// Sums up what is read.
struct Summed<'a> {
    from: &'a mut dyn Read,
    sum: Sum,
}

impl Read for Summed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.sum.add(&buffer[..read]);
        Ok(read)
    }
}

/// All bytes of a file that must be small.
fn small(from: &mut dyn Read, length: u64, most: u64) -> Result<Vec<u8>, String> {
    if length > most {
        return Err(format!("a file of it has {length} bytes, and {most} at most are taken"));
    }
    let mut bytes = Vec::new();
    from.take(most).read_to_end(&mut bytes).map_err(|error| format!("it cannot be read: {error}"))?;
    Ok(bytes)
}

/// Opens a file of a backup in a directory; not through a link, which could lead anywhere.
fn open(dir: &Path, path: &str) -> Result<(BufReader<File>, u64), String> {
    let whole = dir.join(path);
    let failed = |error: io::Error| match (error.kind(), path) {
        (io::ErrorKind::NotFound, MANIFEST_FILE | FORMAT_FILE) => {
            format!("it has no {path}: it is no backup of keyward's, or one that was not finished")
        }
        _ => format!("{path} cannot be opened: {error}"),
    };
    let no_follow = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(no_follow.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(whole).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(format!("{path} is no plain file"));
    }
    Ok((BufReader::with_capacity(READ_BYTES, file), found.len()))
}

/// What is not as the manifest says, in words.
fn differences(told: &[FileEntry], seen: &[FileEntry]) -> Vec<String> {
    let (mut told, mut seen): (Vec<_>, Vec<_>) = (told.iter().collect(), seen.iter().collect());
    told.sort_by(|one, other| one.path.cmp(&other.path));
    seen.sort_by(|one, other| one.path.cmp(&other.path));
    let mut wrong = Vec::new();
    let mut seen = seen.into_iter().peekable();
    for told in told {
        while let Some(extra) = seen.next_if(|seen| seen.path < told.path) {
            wrong.push(format!("{} is in it, and its manifest does not name it", extra.path));
        }
        match seen.next_if(|seen| seen.path == told.path) {
            None => wrong.push(format!("{} is missing", told.path)),
            Some(seen) if seen != told => wrong.push(format!("{} is damaged: its checksum does not fit", told.path)),
            Some(_) => {}
        }
    }
    wrong.extend(seen.map(|extra| format!("{} is in it, and its manifest does not name it", extra.path)));
    wrong
}
