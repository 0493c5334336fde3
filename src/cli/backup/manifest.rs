//! What a backup says of itself: `BACKUP.json`, its last file, and `FORMAT`, its first.
//!
//! `FORMAT` is there so that a keyward that is too old for a backup says so, and which version to install, before it has tried to
//! understand anything else. `BACKUP.json` names every file with its checksum; without it there is no backup.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The newest layout of backups that this program writes and reads.
pub const FORMAT: u32 = 1;
/// The file that a backup begins with.
pub const FORMAT_FILE: &str = "FORMAT";
/// The file that a backup ends with.
pub const MANIFEST_FILE: &str = "BACKUP.json";
/// Longest manifest that is read: of more than a million files.
pub const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// Longest `FORMAT` that is read.
pub const FORMAT_BYTES_MAX: u64 = 256;

const FORMAT_HEAD: &str = "keyward backup format ";
const VERSION_HEAD: &str = "made by keyward ";

/// The text of a backup's `FORMAT`.
pub fn format_text() -> String {
    format!("{FORMAT_HEAD}{FORMAT}\n{VERSION_HEAD}{}\n", env!("CARGO_PKG_VERSION"))
}

/// Reads a backup's `FORMAT`.
///
/// # Errors
/// A sentence for the operator: it is no backup's, or a newer one's.
pub fn check_format(text: &str) -> Result<(), String> {
    let mut lines = text.lines();
    let found = lines.next().and_then(|line| line.strip_prefix(FORMAT_HEAD)).and_then(|text| text.parse::<u32>().ok());
    match found {
        None => Err(format!("its {FORMAT_FILE} is not that of a backup of keyward's; is it a data directory?")),
        Some(found) if found > FORMAT => {
            Err(newer(found, lines.next().and_then(|line| line.strip_prefix(VERSION_HEAD))))
        }
        Some(_) => Ok(()),
    }
}

/// What is said about a backup of a newer version.
fn newer(format: u32, version: Option<&str>) -> String {
    // Only what a version is made of is repeated to the operator.
    let of_version = |sign: char| sign.is_ascii_alphanumeric() || "+-.".contains(sign);
    let version = version.filter(|text| text.len() < 64 && text.chars().all(of_version));
    let install = version.map_or_else(|| "a newer keyward".to_owned(), |version| format!("keyward {version} or newer"));
    format!(
        "it has backup format {format}, and this keyward ({}) knows formats up to {FORMAT}; install {install}",
        env!("CARGO_PKG_VERSION")
    )
}

/// A backup's own account of what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The layout: [`FORMAT`].
    pub format: u32,
    /// What was copied.
    #[serde(flatten)]
    pub of: Told,
    /// Every file but this one, in the order in which they are restored.
    pub files: Vec<FileEntry>,
    /// SHA-256, in hexadecimal digits, of this object as compact JSON in which this member is empty.
    pub checksum: String,
}

/// What a backup is of: known when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Told {
    /// The version that made it.
    pub version: String,
    /// The store, in hexadecimal digits.
    pub store_id: String,
    /// The last transaction in it.
    pub position: u64,
    /// The term it was written in.
    pub term: u64,
    /// When the copy was begun, unix ms.
    pub created_at: u64,
    /// Rows of records.
    pub rows: u64,
    /// Recorded events.
    pub events: u64,
    /// Peppers that a server on it needs, by fingerprint: they are in no backup.
    pub peppers: Vec<String>,
    /// Master keys that recoverable keys in it need, by fingerprint: they are in no backup.
    pub master_keys: Vec<String>,
}

/// A file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the backup.
    pub path: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// The account of these files.
    pub fn new(of: Told, files: Vec<FileEntry>) -> Manifest {
        let manifest = Manifest { format: FORMAT, of, files, checksum: String::new() };
        Manifest { checksum: manifest.sum(), ..manifest }
    }

    /// What [`Manifest::checksum`] must be.
    fn sum(&self) -> String {
        let bare = Manifest { checksum: String::new(), ..self.clone() };
        // A struct of numbers, texts and lists is always JSON.
        hex(&Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()))
    }

    /// Its text.
    pub fn to_text(&self) -> String {
        // A struct of numbers, texts and lists is always JSON.
        format!("{}\n", serde_json::to_string_pretty(self).unwrap_or_default())
    }

    /// Reads one.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, String> {
        #[derive(Deserialize)]
        struct Versions {
            format: u32,
            version: Option<String>,
        }
        let damaged = |error: serde_json::Error| format!("its {MANIFEST_FILE} cannot be read: {error}");
        let Versions { format, version } = serde_json::from_slice(bytes).map_err(damaged)?;
        if format > FORMAT {
            return Err(newer(format, version.as_deref()));
        }
        let manifest: Manifest = serde_json::from_slice(bytes).map_err(damaged)?;
        match manifest.checksum == manifest.sum() {
            true => Ok(manifest),
            false => Err(format!("its {MANIFEST_FILE} is damaged: its checksum does not fit")),
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Sums up a file as it goes by.
pub struct Sum {
    path: String,
    bytes: u64,
    digest: Sha256,
}

impl Sum {
    /// Begins with nothing.
    pub fn new(path: &str) -> Sum {
        Sum { path: path.to_owned(), bytes: 0, digest: Sha256::new() }
    }

    /// Takes the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
    }

    /// The file's entry.
    pub fn entry(self) -> FileEntry {
        FileEntry { path: self.path, bytes: self.bytes, sha256: hex(&self.digest.finalize()) }
    }
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing into a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The layout of a shipped backup stays: what is written is read back, a newer one names what to install, and nothing else
    /// is taken for one.
    #[test]
    fn a_backup_says_what_it_is() {
        assert!(check_format(&format_text()).is_ok());
        let told = check_format("keyward backup format 7\nmade by keyward 9.8.7\n").unwrap_err();
        assert!(told.contains("install keyward 9.8.7 or newer"), "{told}");
        assert!(check_format("keyward data format 1\n").unwrap_err().contains("data directory"));
        assert!(
            check_format("keyward backup format 7\nmade by keyward \u{1b}[31m\n")
                .unwrap_err()
                .ends_with("a newer keyward")
        );

        let mut sum = Sum::new("records/state");
        sum.add(b"a");
        sum.add(b"bc");
        let manifest = Manifest::new(
            Told {
                version: "0.1.0".to_owned(),
                store_id: "00ff".to_owned(),
                position: 3,
                term: 1,
                created_at: 1_700_000_000_000,
                rows: 2,
                events: 1,
                peppers: vec!["pp_1".to_owned()],
                master_keys: Vec::new(),
            },
            vec![sum.entry()],
        );
        let expected = r#"{
  "format": 1,
  "version": "0.1.0",
  "storeId": "00ff",
  "position": 3,
  "term": 1,
  "createdAt": 1700000000000,
  "rows": 2,
  "events": 1,
  "peppers": [
    "pp_1"
  ],
  "masterKeys": [],
  "files": [
    {
      "path": "records/state",
      "bytes": 3,
      "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    }
  ],
  "checksum": "db4009e8f5813a2813e161d75472862a5fd9a876c495c5cfd2674f367dcdea36"
}
"#;
        assert_eq!(manifest.to_text(), expected);
        assert_eq!(Manifest::parse(expected.as_bytes()), Ok(manifest));
        let newer = Manifest::parse(br#"{"format": 2, "version": "3.0.0", "shape": "another"}"#).unwrap_err();
        assert!(newer.contains("install keyward 3.0.0 or newer"), "{newer}");
    }
}
