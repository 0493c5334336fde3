//! A backup as one file: a tar archive as POSIX has it (ustar), whose last member is the manifest.
//!
//! What is read may come from anywhere. Only plain files with names of a backup's are taken; links, devices and whatever else an
//! archive can hold end the reading. Who unpacks a backup and packs it anew may get headers before a member that tell its long name
//! (GNU tar's, or those of POSIX's pax format): these are read as far as a name needs, and no further, whatever length they announce.

use std::io::{self, Read};

use tar::EntryType;

use super::names;

/// Bytes in which an archive counts.
const BLOCK: usize = 512;
/// What an archive ends with.
pub const END: &[u8] = &[0; 2 * BLOCK];
static ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Files in one archive.
const MEMBERS_MAX: usize = 4_000_000;
/// Bytes of a header that describes the next member: a name, times and attributes of a file need far fewer.
const DESCRIPTION_BYTES_MAX: u64 = 64 << 10;

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
    header.set_entry_type(EntryType::Regular);
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
    let mut archive = tar::Archive::new(from);
    let mut members = 0;
    let mut described: Option<Described> = None;
    for member in archive.entries().map_err(cut)?.raw(true) {
        let mut member = member.map_err(cut)?;
        let kind = member.header().entry_type();
        if matches!(kind, EntryType::GNULongName | EntryType::XHeader) {
            let of_this = Described::read(&mut member, kind)?;
            described = match described.take() {
                None => Some(of_this),
                Some(before) => Some(before.and(of_this)?),
            };
            continue;
        }
        let Described { name, length: described_length, .. } = described.take().unwrap_or_default();
        let name = name.unwrap_or_else(|| member.path_bytes().into_owned());
        let path = String::from_utf8_lossy(&name).into_owned();
        let shown = crate::cli::text::printable(&path);
        members += 1;
        if members > MEMBERS_MAX {
            return Err(format!("it has more than {MEMBERS_MAX} files"));
        }
        match kind {
            EntryType::Regular | EntryType::Continuous => {}
            // Whoever packs a directory anew packs these, too. Nothing is made of them.
            EntryType::Directory => continue,
            _ => return Err(format!("{shown} in it is no plain file; no backup of keyward's has such a thing")),
        }
        let path = path.strip_prefix("./").unwrap_or(&path).to_owned();
        if names::kind(&path).is_none() {
            return Err(format!("{shown} in it is no file that a backup of keyward's has"));
        }
        let length = member.size();
        if described_length.is_some_and(|described| described != length) {
            return Err(format!("{shown} in it has two lengths; no backup of keyward's has such a file"));
        }
        take(&path, length, &mut member)?;
    }
    match described {
        None => Ok(()),
        Some(_) => Err("it is cut off: the last header in it describes a file that does not come".to_owned()),
    }
}

fn cut(error: io::Error) -> String {
    format!("it is cut off or damaged: {error}")
}

/// What headers before a member say of it.
#[derive(Debug, Default)]
struct Described {
    name: Option<Vec<u8>>,
    length: Option<u64>,
    /// Of which kinds they were.
    by: Vec<EntryType>,
}

impl Described {
    /// Reads such a header.
    fn read(member: &mut tar::Entry<'_, impl Read>, kind: EntryType) -> Result<Described, String> {
        let length = member.size();
        if length > DESCRIPTION_BYTES_MAX {
            return Err(format!(
                "a header in it announces {length} bytes about the next file, and {DESCRIPTION_BYTES_MAX} at most are taken; no backup \
                 of keyward's has such a thing"
            ));
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(cut)?;
        if bytes.len() as u64 != length {
            return Err("it is cut off within a header".to_owned());
        }
        let mut described = Described { by: vec![kind], ..Described::default() };
        if kind == EntryType::GNULongName {
            bytes.truncate(bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len()));
            described.name = Some(bytes);
            return Ok(described);
        }
        for record in tar::PaxExtensions::new(&bytes) {
            let record = record.map_err(cut)?;
            match record.key_bytes() {
                b"path" => described.name = Some(record.value_bytes().to_vec()),
                b"size" => {
                    let told = record.value().ok().and_then(|size| size.parse().ok());
                    described.length = Some(told.ok_or("a file in it has a length that is no number")?);
                }
                _ => {}
            }
        }
        Ok(described)
    }

    /// A member may have one header of each kind; what the later one says holds.
    fn and(mut self, later: Described) -> Result<Described, String> {
        if self.by.iter().any(|kind| later.by.contains(kind)) {
            return Err("a file in it is described twice".to_owned());
        }
        self.by.extend(later.by);
        Ok(Described { name: later.name.or(self.name), length: later.length.or(self.length), by: self.by })
    }
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

    /// A member of this kind that announces so many bytes.
    fn announces(kind: EntryType, length: u64) -> Vec<u8> {
        let mut header = tar::Header::new_ustar();
        header.set_path("./PaxHeaders/x").unwrap();
        header.set_entry_type(kind);
        header.set_size(length);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    /// A header of this kind before a member, whole.
    fn describes(kind: EntryType, text: &[u8]) -> Vec<u8> {
        let length = text.len() as u64;
        [&announces(kind, length), text, padding(length)].concat()
    }

    /// Who packs a backup anew with another program gets the same files; what such headers announce is not read into memory because
    /// they say so, and what contradicts itself is refused.
    #[test]
    fn headers_about_the_next_member_are_bounded_and_say_one_thing() {
        let path = "events/key_verifications_v1/ws=ws_aaaaaaaaaaaaaaaa/day=2026-11-30/0000000000000001.parquet";
        let gnu = |path: &str| describes(EntryType::GNULongName, format!("{path}\0").as_bytes());
        let record = |key: &str, value: &str| {
            let rest = format!(" {key}={value}\n");
            let digits = if rest.len() + 2 < 100 { 2 } else { 3 };
            format!("{}{rest}", rest.len() + digits)
        };
        let pax = |records: &[String]| describes(EntryType::XHeader, records.concat().as_bytes());
        let member = archive(&[("events/short", b"x")]);
        let read = |before: &[Vec<u8>]| members(&[before.concat(), member.clone()].concat());
        let expected = vec![(path.to_owned(), b"x".to_vec())];
        assert_eq!(read(&[gnu(path)]), Ok(expected.clone()));
        assert_eq!(
            read(&[pax(&[record("mtime", "1.5"), record("path", path), record("size", "1")])]),
            Ok(expected.clone())
        );
        assert_eq!(read(&[gnu("events/other"), pax(&[record("path", path)])]), Ok(expected));
        for (before, why) in [
            (vec![gnu("../x")], "no file that a backup"),
            (vec![pax(&[record("path", "/etc/passwd")])], "no file that a backup"),
            (vec![pax(&[record("size", "2")])], "two lengths"),
            (vec![pax(&[record("size", "many")])], "no number"),
            (vec![gnu(path), gnu(path)], "described twice"),
            (vec![pax(&[record("path", path)]), gnu(path), pax(&[])], "described twice"),
            (vec![describes(EntryType::XHeader, b"999 path=x\n")], "damaged"),
            (vec![describes(EntryType::XGlobalHeader, b"")], "no plain file"),
            (vec![describes(EntryType::GNULongLink, b"events/x\0")], "no plain file"),
        ] {
            let told = read(&before).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
        let nothing_follows = [gnu(path), END.to_vec()].concat();
        assert!(members(&nothing_follows).is_err_and(|told| told.contains("cut off")));
        assert!(members(&gnu(path)[..BLOCK + 8]).is_err_and(|told| told.contains("cut off")));
        for kind in [EntryType::GNULongName, EntryType::XHeader] {
            let announced = announces(kind, 4 << 30);
            let mut rest = io::repeat(b'a').take(4 << 30);
            let told = super::read(&mut announced.chain(&mut rest), &mut |_, _, _| Ok(())).expect_err("refused");
            assert!(told.contains("announces"), "{told}");
            assert_eq!(rest.limit(), 4 << 30, "nothing of it was read");
        }
    }
}
