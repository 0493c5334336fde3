//! Files that an operator names: opened without waiting for anybody, and nothing but files.
//!
//! Opening a named pipe waits until somebody writes there, and reading a device may never end: a server that starts or reloads
//! must do neither.

use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file for reading.
///
/// # Errors
/// What the system says; and a sentence where the name is of something else, which says what it is.
pub fn open(path: &Path) -> io::Result<File> {
    let without_waiting = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
    // Of a socket opening says nothing that anybody understands.
    let is_socket = || std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let file = match OpenOptions::new().read(true).custom_flags(without_waiting).open(path) {
        Err(_) if is_socket() => return Err(no_file("a socket")),
        opened => opened?,
    };
    match kind(file.metadata()?.file_type()) {
        Some(kind) => Err(no_file(kind)),
        None => Ok(file),
    }
}

/// The text of a file, at most so many bytes.
///
/// # Errors
/// As [`open`]; and where it is longer, or is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let read = open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if read as u64 > bytes_max {
        return Err(io::Error::new(ErrorKind::InvalidData, format!("it has more than {bytes_max} bytes")));
    }
    Ok(text)
}

/// What it is, where it is no file.
fn kind(found: FileType) -> Option<&'static str> {
    if found.is_file() {
        None
    } else if found.is_dir() {
        Some("a directory")
    } else if found.is_fifo() {
        Some("a named pipe")
    } else if found.is_char_device() || found.is_block_device() {
        Some("a device")
    } else {
        Some("something else")
    }
}

fn no_file(kind: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, format!("it is {kind}, and a file is wanted"))
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType as Kind, Mode, mknodat};

    use super::*;

    /// A name that is of no file is refused at once, by what it is of; a link leads to its file.
    #[test]
    fn what_is_no_file_is_named() {
        let home = tempfile::tempdir().expect("a directory");
        let path = |name: &str| home.path().join(name);
        mknodat(CWD, path("pipe"), Kind::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).expect("a socket");
        for (path, kind) in [
            (path("pipe"), "a named pipe"),
            (path("socket"), "a socket"),
            (home.path().to_owned(), "a directory"),
            ("/dev/zero".into(), "a device"),
        ] {
            let told = open(&path).expect_err("no file").to_string();
            assert_eq!(told, format!("it is {kind}, and a file is wanted"));
        }
        std::fs::write(path("file"), "text").expect("written");
        std::os::unix::fs::symlink(path("file"), path("link")).expect("linked");
        assert_eq!(read_text(&path("link"), 4).expect("read"), "text");
        assert!(read_text(&path("file"), 3).is_err_and(|why| why.to_string().contains("more than 3 bytes")));
        assert_eq!(open(&path("none")).expect_err("none").kind(), ErrorKind::NotFound);
    }
}
