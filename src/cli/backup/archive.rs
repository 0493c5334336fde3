//! A backup as one file: a tar archive as POSIX has it (ustar), whose last member is the manifest.
//!
//! What is read may come from anywhere. Only plain files with names of a backup's are taken; links, devices and whatever else an
//! archive can hold end the reading.

use std::io::{self, Read};

use super::names;

/// Bytes in which an archive counts.
const BLOCK: usize = 512;
/// What an archive ends with.
pub const END: &[u8] = &[0; 2 * BLOCK];
static ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Files in one archive.
const MEMBERS_MAX: usize = 4_000_000;

/// The header of a member: a file of its owner alone.
///
/// # Errors
/// A path that has no place in it.
pub fn header(path: &str, length: u64) -> io::Result<[u8; BLOCK]> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path)?;
    header.set_size(length);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// What follows a member of so many bytes.
pub fn padding(length: u64) -> &'static [u8] {
    let over = usize::try_from(length % BLOCK as u64).unwrap_or(0);
    &ZEROS[..(BLOCK - over) % BLOCK]
}

/// What takes the files of an archive: a path, its bytes by number, and the bytes.
type TakeMember<'a> = dyn FnMut(&str, u64, &mut dyn Read) -> Result<(), String> + 'a;

/// Reads an archive: `take` is given each file of it with its length, and reads it to its end.
///
/// # Errors
/// A sentence for the operator: it is cut or foreign, cannot be read, or what `take` says.
pub fn read(from: &mut dyn Read, take: &mut TakeMember<'_>) -> Result<(), String> {
    let cut = |error: io::Error| format!("it is cut off or damaged: {error}");
    let mut archive = tar::Archive::new(from);
    let mut members = 0;
    for member in archive.entries().map_err(cut)? {
        let mut member = member.map_err(cut)?;
        let path = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        let shown = crate::cli::text::printable(&path);
        members += 1;
        if members > MEMBERS_MAX {
            return Err(format!("it has more than {MEMBERS_MAX} files"));
        }
        match member.header().entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => {}
            // Whoever packs a directory anew packs these, too. Nothing is made of them.
            tar::EntryType::Directory => continue,
            _ => return Err(format!("{shown} in it is no plain file; no backup of keyward's has such a thing")),
        }
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        if names::kind(&path).is_none() {
            return Err(format!("{shown} in it is no file that a backup of keyward's has"));
        }
        let length = member.size();
        take(&path, length, &mut member)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, contents) in members {
            bytes.extend_from_slice(&header(path, contents.len() as u64).unwrap());
            bytes.extend_from_slice(contents);
            bytes.extend_from_slice(padding(contents.len() as u64));
        }
        bytes.extend_from_slice(END);
        bytes
    }

    fn members(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
        let mut found = Vec::new();
        read(&mut &*bytes, &mut |path, length, from| {
            let mut contents = Vec::new();
            from.read_to_end(&mut contents).map_err(|error| error.to_string())?;
            if contents.len() as u64 != length {
                return Err("it is cut off".to_owned());
            }
            found.push((path.to_owned(), contents));
            Ok(())
        })?;
        Ok(found)
    }

    /// What is written is read back, whatever the lengths; a name of a hundred characters and more fits.
    #[test]
    fn an_archive_holds_what_was_put_into_it() {
        let long =
            "events/key_verifications_per_minute_v1/ws=ws_aaaaaaaaaaaaaaaa/day=2026-11-30/0000000000000001.parquet";
        let contents: Vec<u8> = (0..1500).map(|n| n as u8).collect();
        for length in [0, 1, 511, 512, 513, 1500] {
            let expected = vec![(long.to_owned(), contents[..length].to_vec()), ("FORMAT".to_owned(), b"x".to_vec())];
            let bytes = archive(&[(long, &contents[..length]), ("FORMAT", b"x")]);
            assert_eq!(members(&bytes), Ok(expected));
            // Cut within a member: never a shorter file.
            if length > 0 {
                assert!(members(&bytes[..BLOCK + length / 2]).is_err());
            }
        }
    }

    /// Links, devices, absolute paths and what climbs out of the directory end the reading.
    #[test]
    fn what_is_not_a_plain_file_of_a_backup_is_refused() {
        use tar::EntryType;
        for (kind, path) in [
            (EntryType::Symlink, "events/x"),
            (EntryType::Link, "events/x"),
            (EntryType::Char, "events/x"),
            (EntryType::Block, "events/x"),
            (EntryType::Fifo, "events/x"),
            (EntryType::GNUSparse, "events/x"),
            (EntryType::Regular, "../x"),
            (EntryType::Regular, "/etc/cron.d/x"),
            (EntryType::Regular, "events/../../x"),
            (EntryType::Regular, "root.key"),
        ] {
            let mut header = tar::Header::new_ustar();
            let bytes = header.as_mut_bytes();
            bytes[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_cksum();
            let bytes = [header.as_bytes().as_slice(), END].concat();
            assert!(members(&bytes).is_err(), "{kind:?} {path}");
        }
    }
}
