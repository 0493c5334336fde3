//! Where secrets of the operator come from: a systemd credential, else a file, else the environment (EXT-6).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::config::{Secret, SecretSources};
use crate::named_file;

/// Bytes of a file of secrets.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Rights that nobody but the owner of such a file may have.
const OTHERS: u32 = 0o077;

/// Which secret, and by what names it is found.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'s> {
    /// What people call it.
    pub what: &'static str,
    /// Name of its systemd credential.
    pub credential: &'static str,
    /// Its file, where one is set.
    pub file: Option<&'s Path>,
    /// The variable that may hold it.
    pub variable: &'static str,
    /// What that holds, if it is set.
    pub given: Option<&'s Secret>,
}

/// A secret's text, and where it was.
pub struct Found {
    /// For people: "the file …".
    pub place: String,
    /// The secret itself.
    pub text: Zeroizing<String>,
}

/// Why there is no secret although one is meant. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file cannot be read.
    #[error("the {what} cannot be read from {path}")]
    Unreadable {
        /// Which secret.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others may read or write the file.
    #[error(
        "the {what} is in {path}, which others than its owner may use (mode {mode:04o}); take their rights away: \
         chmod 600 {path}"
    )]
    Open {
        /// Which secret.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Its rights.
        mode: u32,
    },
    /// The file is where a backup would take it along.
    #[error(
        "the {what} is in {path}, inside of the data directory: a backup would hold it together with what it protects; \
         move it to another directory, and name it there"
    )]
    InDataDir {
        /// Which secret.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// What was found is no such secret.
    #[error("the {what} in {place} cannot be used")]
    Bad {
        /// Which secret.
        what: &'static str,
        /// Where it is.
        place: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Looks for a secret, in the order of EXT-6; the first place that has one counts. `None` where no place does.
///
/// # Errors
/// A place has one that may not or cannot be used.
pub fn find(wanted: Wanted<'_>, sources: &SecretSources, data_dir: &Path) -> Result<Option<Found>, SourceError> {
    if let Some(path) = sources.credentials_dir.as_ref().map(|dir| dir.join(wanted.credential)) {
        // Who may read a credential is systemd's to decide, and its mode shows an access list as rights of the group.
        match named_file::open(&path) {
            Ok(file) => return read(wanted.what, path, file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SourceError::Unreadable { what: wanted.what, path, source }),
        }
    }
    if let Some(path) = wanted.file {
        let path = path.to_owned();
        let what = wanted.what;
        let unreadable = |source| SourceError::Unreadable { what, path: path.clone(), source };
        let file = named_file::open(&path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o7777;
        if mode & OTHERS != 0 {
            return Err(SourceError::Open { what, path, mode });
        }
        // A data directory that is not there yet holds no file.
        if let (Ok(whole), Ok(data_dir)) = (path.canonicalize(), data_dir.canonicalize())
            && whole.starts_with(data_dir)
        {
            return Err(SourceError::InDataDir { what, path });
        }
        return read(what, path, file).map(Some);
    }
    let given = wanted.given.map(|secret| Found {
        place: format!("the environment variable {}", wanted.variable),
        text: Zeroizing::new(secret.expose().to_owned()),
    });
    Ok(given)
}

fn read(what: &'static str, path: PathBuf, file: File) -> Result<Found, SourceError> {
    let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX as usize));
    match file.take(FILE_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) => Ok(Found { place: format!("the file {}", path.display()), text }),
        Err(source) => Err(SourceError::Unreadable { what, path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// EXT-6: the credential before the file, the file before the variable; a file that others may read is refused with the
    /// way out, and so is one inside of the data directory.
    #[test]
    fn the_nearest_source_wins_and_open_files_are_refused() {
        let home = tempfile::tempdir().unwrap();
        let (credentials, data_dir) = (home.path().join("credentials"), home.path().join("data"));
        fs::create_dir(&credentials).unwrap();
        fs::create_dir(&data_dir).unwrap();
        let file = home.path().join("secret");
        fs::write(&file, "from the file").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        let given = Secret::new("from the variable");
        let sources = SecretSources { credentials_dir: Some(credentials.clone()), ..SecretSources::default() };
        let wanted = |file, given| Wanted { what: "pet's name", credential: "pet", file, variable: "PET", given };
        let look =
            |file, given| find(wanted(file, given), &sources, &data_dir).map(|found| found.map(|found| found.text));

        assert_eq!(look(None, None).unwrap(), None);
        assert_eq!(look(None, Some(&given)).unwrap().unwrap().as_str(), "from the variable");
        assert_eq!(look(Some(&*file), Some(&given)).unwrap().unwrap().as_str(), "from the file");
        fs::write(credentials.join("pet"), "from systemd").unwrap();
        assert_eq!(look(Some(&*file), Some(&given)).unwrap().unwrap().as_str(), "from systemd");

        fs::remove_file(credentials.join("pet")).unwrap();
        for mode in [0o640, 0o604, 0o622] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            let refusal = look(Some(&*file), None).unwrap_err().to_string();
            assert!(refusal.contains(&format!("chmod 600 {}", file.display())), "{refusal}");
        }
        let inside = data_dir.join("secret");
        fs::write(&inside, "x").unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(look(Some(&*inside), None), Err(SourceError::InDataDir { .. })));
        assert!(matches!(look(Some(&*home.path().join("gone")), None), Err(SourceError::Unreadable { .. })));
    }
}
