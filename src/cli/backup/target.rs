//! Where a backup goes: a directory, one archive, or standard output.
//!
//! Whatever it is, it has another name until it is whole, and a backup that fails leaves nothing with the name it would have had.
//! On standard output there is no such thing; there the manifest comes last, and without it nothing is a backup.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward_storage::disk::{Disk, DiskFile};

use super::archive;
use super::manifest::{FORMAT_FILE, FileEntry, MANIFEST_FILE, Manifest, Sum, Told, format_text};
use super::names;

/// The name of standard output, and of standard input.
pub const STANDARD: &str = "-";
/// Bytes that are written to a file at once.
const WRITE_BYTES: usize = 1 << 18;

/// What a target is, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A directory that is not there yet.
    Directory(PathBuf),
    /// A file that ends in `.tar`.
    Archive(PathBuf),
    /// Standard output.
    Standard,
}

impl Place {
    /// The place of this name.
    pub fn named(name: &Path) -> Place {
        match name {
            name if name.as_os_str() == STANDARD => Place::Standard,
            name if name.extension().is_some_and(|end| end == "tar") => Place::Archive(name.to_owned()),
            name => Place::Directory(name.to_owned()),
        }
    }

    /// What it is called while it is not whole: beside the name it will have, and of this process alone.
    pub fn aside(&self) -> Option<PathBuf> {
        let (Place::Directory(path) | Place::Archive(path)) = self else { return None };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Some(path.with_file_name(format!(".{name}.{}.part", std::process::id())))
    }

    fn final_name(&self) -> Option<&Path> {
        match self {
            Place::Directory(path) | Place::Archive(path) => Some(path),
            Place::Standard => None,
        }
    }
}

/// A backup that is being written.
pub struct Target {
    disk: Arc<dyn Disk>,
    place: Place,
    aside: PathBuf,
    out: Out,
    files: Vec<FileEntry>,
    open: Option<Open>,
    is_finished: bool,
}

enum Out {
    /// Files in a directory, and the directories that have been made in it.
    Directory(Vec<PathBuf>),
    Archive(Box<dyn Write>),
}

/// The file that is being written.
struct Open {
    sum: Sum,
    left: u64,
    /// In a directory; an archive has one writer for all.
    file: Option<BufWriter<Appending>>,
}

/// Writes a file of the disk seam from front to end.
struct Appending {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    /// Durable, so that a name that is given later leads to all of it.
    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl Target {
    /// Begins a backup at a place, with its `FORMAT`.
    ///
    /// # Errors
    /// A sentence for the operator: something is there already, or the disk.
    pub fn begin(disk: Arc<dyn Disk>, place: Place) -> Result<Target, String> {
        check(&*disk, &place)?;
        let aside = place.aside().unwrap_or_default();
        let failed = |error: io::Error| format!("{} cannot be made: {error}", aside.display());
        let out = match &place {
            Place::Directory(_) => {
                disk.create_dir_all(&aside).map_err(failed)?;
                Out::Directory(vec![aside.clone()])
            }
            Place::Archive(_) => {
                let file = disk.open(&aside, true).map_err(failed)?;
                file.set_len(0).map_err(failed)?;
                Out::Archive(Box::new(BufWriter::with_capacity(WRITE_BYTES, Appending { file, at: 0 })))
            }
            Place::Standard => Out::Archive(Box::new(BufWriter::with_capacity(WRITE_BYTES, io::stdout()))),
        };
        let mut target = Target { disk, place, aside, out, files: Vec::new(), open: None, is_finished: false };
        let text = format_text();
        target.file(FORMAT_FILE, text.len() as u64)?;
        target.bytes(text.as_bytes())?;
        Ok(target)
    }

    fn failed(&self, error: &io::Error) -> String {
        let place =
            self.place.final_name().map_or_else(|| "standard output".to_owned(), |path| path.display().to_string());
        match keyward_storage::disk::is_no_space(error) {
            true => format!("{place} cannot be written: its disk is full; nothing of the backup is left there"),
            false => format!("{place} cannot be written: {error}"),
        }
    }

    /// Begins the next file, of so many bytes.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn file(&mut self, path: &str, length: u64) -> Result<(), String> {
        self.end_file()?;
        if names::kind(path).is_none() {
            return Err(format!("a backup has no file {path:?}; is the running server a newer one?"));
        }
        let begun = self.begin_file(path, length);
        let file = begun.map_err(|error| self.failed(&error))?;
        self.open = Some(Open { sum: Sum::new(path), left: length, file });
        Ok(())
    }

    fn begin_file(&mut self, path: &str, length: u64) -> io::Result<Option<BufWriter<Appending>>> {
        match &mut self.out {
            Out::Directory(dirs) => {
                let path = self.aside.join(path);
                let parent = path.parent().unwrap_or(&self.aside).to_owned();
                if !dirs.contains(&parent) {
                    self.disk.create_dir_all(&parent)?;
                    dirs.push(parent);
                }
                let file = self.disk.open(&path, true)?;
                file.set_len(0)?;
                Ok(Some(BufWriter::with_capacity(WRITE_BYTES, Appending { file, at: 0 })))
            }
            Out::Archive(out) => {
                out.write_all(&archive::header(path, length)?)?;
                Ok(None)
            }
        }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), String> {
        let Some(open) = self.open.as_mut() else { return Err("bytes came before a file had begun".to_owned()) };
        let Some(left) = open.left.checked_sub(bytes.len() as u64) else {
            return Err("more bytes came than the file was to have".to_owned());
        };
        open.left = left;
        open.sum.add(bytes);
        let written = match (&mut open.file, &mut self.out) {
            (Some(file), _) => file.write_all(bytes),
            (None, Out::Archive(out)) => out.write_all(bytes),
            (None, Out::Directory(_)) => Err(io::Error::other("no file is open")),
        };
        written.map_err(|error| self.failed(&error))
    }

    /// Ends the file that is being written.
    fn end_file(&mut self) -> Result<(), String> {
        let Some(Open { sum, left, file }) = self.open.take() else { return Ok(()) };
        if left > 0 {
            return Err(format!("a file ended {left} bytes before it was to"));
        }
        let entry = sum.entry();
        let ended = match (file, &mut self.out) {
            (Some(mut file), _) => file.flush(),
            (None, Out::Archive(out)) => out.write_all(archive::padding(entry.bytes)),
            (None, Out::Directory(_)) => Ok(()),
        };
        ended.map_err(|error| self.failed(&error))?;
        self.files.push(entry);
        Ok(())
    }

    /// Bytes written so far, of files that are whole.
    pub fn written(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Ends the backup: writes the manifest, and gives it its name.
    ///
    /// # Errors
    /// A sentence for the operator; there is no backup.
    pub fn finish(mut self, of: Told) -> Result<Manifest, String> {
        self.end_file()?;
        let manifest = Manifest::new(of, std::mem::take(&mut self.files));
        let text = manifest.to_text();
        self.file(MANIFEST_FILE, text.len() as u64)?;
        self.bytes(text.as_bytes())?;
        self.end_file()?;
        self.name().map_err(|error| self.failed(&error))?;
        self.is_finished = true;
        Ok(manifest)
    }

    fn name(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Directory(dirs) => {
                for dir in dirs.iter().rev() {
                    self.disk.sync_dir(dir)?;
                }
            }
            Out::Archive(out) => {
                out.write_all(archive::END)?;
                out.flush()?;
            }
        }
        let Some(name) = self.place.final_name() else { return Ok(()) };
        // It may have come to be meanwhile.
        check(&*self.disk, &self.place).map_err(io::Error::other)?;
        self.disk.rename(&self.aside, name)?;
        self.disk.sync_dir(parent_of(name))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.is_finished {
            return;
        }
        // It has a name of its own, and is of no use to anybody.
        match self.place {
            Place::Directory(_) => drop(self.disk.remove_tree(&self.aside)),
            Place::Archive(_) => drop(self.disk.remove(&self.aside)),
            Place::Standard => {}
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Refuses a place where something is.
///
/// # Errors
/// A sentence for the operator.
pub fn check(disk: &dyn Disk, place: &Place) -> Result<(), String> {
    let Some(path) = place.final_name() else { return Ok(()) };
    let (Some(name), dir) = (path.file_name(), parent_of(path)) else {
        return Err(format!("{} names no file and no directory that could be made", path.display()));
    };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let there = disk.list(dir).and_then(|mut files| {
        files.extend(disk.list_dirs(dir)?);
        Ok(files)
    });
    match there {
        Ok(names) if names.iter().any(|other| **other == *name.to_string_lossy()) => {
            Err(format!("{} is there already; name another place, or move it away", path.display()))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{} cannot be looked into: {error}; make that directory first", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyward_storage::disk::MemoryDisk;

    fn told() -> Told {
        Told {
            version: "0.1.0".to_owned(),
            store_id: "00".to_owned(),
            position: 1,
            term: 1,
            created_at: 1,
            rows: 2,
            events: 0,
            peppers: Vec::new(),
            master_keys: Vec::new(),
        }
    }

    /// Writes a backup of some files.
    fn write(disk: &MemoryDisk, place: &Place) -> Result<Manifest, String> {
        let mut target = Target::begin(Arc::new(disk.clone()), place.clone())?;
        let part = "events/ratelimits_v1/ws=ws_aaaaaaaaaaaaaaaa/day=2026-11-30/0000000000000001.parquet";
        for (path, length) in [(names::STATE, 49), (names::rows(1).as_str(), 3000), (names::WINDOWS, 0), (part, 700)] {
            target.file(path, length)?;
            for piece in vec![7; length as usize].chunks(256) {
                target.bytes(piece)?;
            }
        }
        target.finish(told())
    }

    /// What lies at a place after a crash: nothing with the backup's name, or all of it.
    fn whole_or_nothing(disk: &MemoryDisk, place: &Place, expected: &Manifest) -> bool {
        let at = place.final_name().unwrap();
        let is_named = match place {
            Place::Archive(_) => disk.contents(at).is_some(),
            _ => ["FORMAT", "BACKUP.json", "records/state"].iter().any(|name| disk.contents(&at.join(name)).is_some()),
        };
        if !is_named {
            return false;
        }
        match place {
            Place::Archive(_) => {
                let bytes = disk.contents(at).unwrap();
                let mut last = Vec::new();
                archive::read(&mut &*bytes, &mut |path, _, from| {
                    last.clear();
                    from.read_to_end(&mut last).map_err(|error| format!("{path}: {error}"))?;
                    Ok(())
                })
                .unwrap();
                assert_eq!(Manifest::parse(&last).as_ref(), Ok(expected));
            }
            _ => {
                let text = disk.contents(&at.join(MANIFEST_FILE)).expect("what has the name has its manifest");
                assert_eq!(Manifest::parse(&text).as_ref(), Ok(expected));
                for file in &expected.files {
                    let mut sum = Sum::new(&file.path);
                    sum.add(&disk.contents(&at.join(&file.path)).unwrap_or_else(|| panic!("{} is there", file.path)));
                    assert_eq!(sum.entry(), *file);
                }
            }
        }
        true
    }

    /// The power goes, or the process is killed, at every change of the disk: what has the backup's name is all of it.
    #[test]
    fn a_backup_has_its_name_when_it_is_whole() {
        for place in [Place::Directory("/shelf/one".into()), Place::Archive("/shelf/one.tar".into())] {
            let whole = MemoryDisk::new();
            whole.create_dir_all(Path::new("/shelf")).unwrap();
            let expected = write(&whole, &place).unwrap();
            let mut cuts = 0;
            loop {
                let disk = MemoryDisk::new();
                disk.create_dir_all(Path::new("/shelf")).unwrap();
                disk.stop_after(cuts);
                let done = write(&disk, &place);
                assert_eq!(done.is_ok(), !disk.stopped());
                let mut is_there = false;
                for seed in 0..4 {
                    let after = if seed == 0 { disk.kill() } else { disk.crash(cuts * 10 + seed) };
                    is_there = whole_or_nothing(&after, &place, &expected);
                }
                if done.is_ok() {
                    assert!(is_there, "what was told of as done is there after any crash");
                    break;
                }
                cuts += 1;
            }
            assert!(cuts > 4, "{cuts}");
        }
    }

    /// A full disk, wherever that is noticed, leaves nothing at all; a file that is shorter or longer than was said is no backup.
    #[test]
    fn a_backup_that_fails_leaves_nothing() {
        for place in [Place::Directory("/shelf/one".into()), Place::Archive("/shelf/one.tar".into())] {
            let empty = |disk: &MemoryDisk| {
                assert_eq!(disk.list(Path::new("/shelf")).unwrap(), [""; 0]);
                assert_eq!(disk.list_dirs(Path::new("/shelf")).unwrap(), [""; 0]);
                assert_eq!(disk.used_bytes(), 0);
            };
            for room in (0..4000).step_by(97) {
                let disk = MemoryDisk::new();
                disk.create_dir_all(Path::new("/shelf")).unwrap();
                disk.set_capacity(Some(room));
                assert!(write(&disk, &place).is_err_and(|reason| reason.contains("its disk is full")), "{room}");
                empty(&disk);
            }
            let disk = MemoryDisk::new();
            disk.create_dir_all(Path::new("/shelf")).unwrap();
            let mut short = Target::begin(Arc::new(disk.clone()), place.clone()).unwrap();
            short.file(names::STATE, 49).unwrap();
            short.bytes(&[1; 48]).unwrap();
            assert!(short.finish(told()).is_err());
            let mut long = Target::begin(Arc::new(disk.clone()), place.clone()).unwrap();
            long.file(names::STATE, 1).unwrap();
            assert!(long.bytes(&[1; 2]).is_err());
            assert!(long.file("../climbs", 1).is_err());
            drop(long);
            empty(&disk);
        }
    }
}
