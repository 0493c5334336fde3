//! The file that `keyward auth login` writes: a server's URL and a root key for it.
//!
//! It holds a secret: it is written 0600 in a directory of 0700, at once or not at all, and a file that others can read
//! is refused, as ssh does with a private key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use keyward_storage::disk::{Disk, RealDisk};
use serde::Deserialize;

use crate::config::Secret;

/// Bytes of the file: a URL and a key are short.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Its owner reads and writes it, and nobody else.
const FILE_MODE: u32 = 0o600;
/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;
/// Those of them that let others write.
const OTHERS_WRITE: u32 = 0o022;

/// What the file says.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// Where the server answers.
    pub api_url: Option<String>,
    /// A root key for the server at that URL.
    pub root_key: Option<Secret>,
}

/// Reads the file; `None` where there is none.
///
/// # Errors
/// A sentence: it cannot be read, says something else than it may, or is open to others.
pub fn read(path: &Path) -> Result<Option<Stored>, String> {
    let shown = path.display();
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
    };
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(format!("{shown} is not a file that `keyward auth login` has written"));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let stored: Stored = toml::from_str(&text).map_err(|error| {
        // The error's own text shows the line, which may be the one with the key.
        let line =
            error.span().map_or(1, |span| text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1);
        format!("{shown} is no settings file of `keyward auth login`: {} (line {line})", error.message())
    })?;
    let open = if stored.root_key.is_some() { OTHERS } else { OTHERS_WRITE };
    if metadata.permissions().mode() & open != 0 {
        return Err(format!(
            "{shown} is open to other users of this machine, so it is not used; close it with: chmod 600 {shown}"
        ));
    }
    Ok(Some(stored))
}

/// Writes the file in place of the one before, and its directory where that is absent.
///
/// # Errors
/// What the system says.
pub fn write(path: &Path, api_url: &str, root_key: &Secret) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new(""));
    RealDisk.create_dir_all(dir)?;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = dir.join(name);
    let text = format!(
        "# Written by `keyward auth login`. Holds a secret: keep it readable by you alone.\napi_url = {}\nroot_key = {}\n",
        toml::Value::from(api_url),
        toml::Value::from(root_key.expose()),
    );
    let written = OpenOptions::new()
        .write(true)
        // The directory may be anybody's, unlike a store's: no name that is there already is followed or reused.
        .create_new(true)
        .mode(FILE_MODE)
        .open(&fresh)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| RealDisk.rename(&fresh, path));
    if let Err(error) = written {
        // What is left of a failed try may hold the key.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    RealDisk.sync_dir(dir)
}

/// Removes the file; whether there was one.
///
/// # Errors
/// What the system says.
pub fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    /// What is written is read back, closed to others from its first moment; what others could read is refused.
    #[test]
    fn the_file_is_its_owners_alone() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let path = home.path().join("deep/.keyward/config.toml");
        assert_eq!(read(&path), Ok(None));
        let key = Secret::new("unkey_\"quoted\"\\");
        for url in ["http://127.0.0.1:7070", "http://[::1]:1"] {
            write(&path, url, &key).expect("written");
            assert_eq!(read(&path), Ok(Some(Stored { api_url: Some(url.to_owned()), root_key: Some(key.clone()) })));
        }
        assert_eq!((mode(&path), mode(path.parent().expect("a directory"))), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().expect("a directory")).expect("readable").count(), 1, "no leftovers");
        for open in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open)).expect("changed");
            let told = read(&path).expect_err("it is open to others");
            assert!(told.contains("chmod 600") && !told.contains("quoted"), "{told}");
        }
        fs::write(&path, "api_url = \"http://x\"\n").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(read(&path).is_ok_and(|stored| stored.is_some()), "without a secret others may read it");
        assert_eq!((remove(&path).ok(), remove(&path).ok(), read(&path)), (Some(true), Some(false), Ok(None)));
    }

    /// Whatever is wrong with the file, its key is not told.
    #[test]
    fn a_broken_file_does_not_tell_its_key() {
        let home = tempfile::tempdir().expect("a directory for the test");
        let path = home.path().join("config.toml");
        for text in [
            "root_key = \"unkey_hush\" x\n",
            "\nroot_key = [\"unkey_hush\"]\n",
            "root = \"unkey_hush\"\n",
            "unkey_hush",
        ] {
            fs::write(&path, text).expect("written");
            let told = read(&path).expect_err("it is broken");
            assert!(told.contains("line") && !told.contains("hush"), "{told}");
        }
    }
}
