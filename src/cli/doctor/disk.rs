//! The disk: how fast it is, whether it keeps what it is given, how much room it has.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Finding;
use crate::config::Settings;

/// Writes that are synced one by one, and the time they may take in all.
const SYNCS: usize = 64;
const SYNCS_TIME: Duration = Duration::from_secs(3);
/// Bytes of each: a small batch of the log.
const SYNC_BYTES: usize = 4096;
/// Bytes that are written at a stretch, and of one piece of them.
const STRETCH_BYTES: usize = 32 * MIB;
const PIECE_BYTES: usize = MIB;
const MIB: usize = 1024 * 1024;
const GIB: u64 = 1024 * 1024 * 1024;

/// A sync that takes longer makes itself felt, and one that takes this long makes changes unusable.
const SYNC_SLOW: Duration = Duration::from_millis(10);
const SYNC_UNUSABLE: Duration = Duration::from_millis(250);
/// A sync that is faster than this reached no disk.
const SYNC_TOO_FAST: Duration = Duration::from_micros(5);
/// MiB a second below which a backlog of events is hard to work off.
const STRETCH_SLOW: f64 = 20.0;

/// File systems that lose, or only seem to keep, what is written: their numbers (`statfs(2)`), names and what that means.
const FILE_SYSTEMS: &[(u64, &str, &str)] = &[
    (0x0102_1994, "tmpfs", "it is memory: everything is lost when the machine stops"),
    (0x8584_58f6, "ramfs", "it is memory: everything is lost when the machine stops"),
    (0x6969, "NFS", "locks and syncs over a network are as good as the server's settings"),
    (0xff53_4d42, "SMB", "it keeps neither locks nor syncs as a local disk does"),
    (0xfe53_4d42, "SMB", "it keeps neither locks nor syncs as a local disk does"),
    (0x6573_5546, "FUSE", "whether it keeps syncs is up to the program behind it"),
    (0x794c_7630, "overlay", "it is a container's own layer: everything is lost with the container"),
];

pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let dir = nearest(&settings.data_dir);
    let shown = dir.display();
    let mut findings = vec![file_system(&dir), space(settings, &dir)];
    match measure(&dir) {
        Ok((sync, stretch)) => findings.extend([judge_sync(sync), judge_stretch(stretch)]),
        Err(error) => findings.push(Finding::problem(
            "disk.sync",
            format!("cannot write to {shown}: {error}"),
            "run this as the server's user; if you did, give that user the directory, or name another with --data-dir",
        )),
    }
    findings
}

/// The data directory, or what is there of the way to it.
pub(super) fn nearest(data_dir: &Path) -> PathBuf {
    let whole = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    whole.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(target_os = "linux")]
fn file_system(dir: &Path) -> Finding {
    let check = "disk.kind";
    let kind = match rustix::fs::statfs(dir) {
        Ok(found) => u64::try_from(found.f_type).unwrap_or_default() & 0xffff_ffff,
        Err(error) => return Finding::note(check, format!("cannot be seen: {error}"), "look at `df -T`"),
    };
    match FILE_SYSTEMS.iter().find(|(number, ..)| *number == kind) {
        Some((_, name, why)) => Finding::warning(
            check,
            format!("{} is on {name}: {why}", dir.display()),
            "put data_dir on a local disk with ext4, XFS, Btrfs or ZFS",
        ),
        None => Finding::ok(check, format!("{} is on a local file system", dir.display())),
    }
}

#[cfg(not(target_os = "linux"))]
fn file_system(dir: &Path) -> Finding {
    let _ = FILE_SYSTEMS;
    Finding::note(
        "disk.kind",
        format!("{} is on a file system that is not looked at here", dir.display()),
        "see `mount`",
    )
}

fn space(settings: &Settings, dir: &Path) -> Finding {
    let check = "disk.space";
    let found = match rustix::fs::statvfs(dir) {
        Ok(found) => found,
        Err(error) => return Finding::note(check, format!("cannot be seen: {error}"), "look at `df`"),
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let all = found.f_blocks.saturating_mul(found.f_frsize);
    let text = format!("{} MiB of {} MiB are free", free / MIB as u64, all / MIB as u64);
    let least = settings.storage.min_free_bytes;
    if free < least {
        let advice = format!(
            "changes are refused below storage.min_free_bytes ({} MiB); free some space, or move data_dir",
            least / MIB as u64
        );
        Finding::problem(check, text, advice)
    } else if found.f_files > 0 && found.f_favail < 10_000 {
        Finding::warning(
            check,
            format!("{text}, but only {} inodes", found.f_favail),
            "remove small files elsewhere on it",
        )
    } else if free < GIB.max(all / 20) {
        Finding::warning(check, text, "free some space, or shorten the retention of workspaces (--logs-retention-days)")
    } else {
        Finding::ok(check, text)
    }
}

/// A file that goes away with its value.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn new(dir: &Path) -> io::Result<Scratch> {
        let path = dir.join(format!(".keyward-doctor-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Scratch { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The median time of a small synced write, and MiB a second at a stretch.
fn measure(dir: &Path) -> io::Result<(Duration, f64)> {
    let mut scratch = Scratch::new(dir)?;
    let piece = vec![0x5a; PIECE_BYTES];
    let begun = Instant::now();
    let mut times = Vec::with_capacity(SYNCS);
    while times.len() < SYNCS && begun.elapsed() < SYNCS_TIME {
        let one = Instant::now();
        scratch.file.write_all(&piece[..SYNC_BYTES])?;
        scratch.file.sync_data()?;
        times.push(one.elapsed());
    }
    times.sort_unstable();
    let begun = Instant::now();
    let mut written = 0;
    while written < STRETCH_BYTES && begun.elapsed() < SYNCS_TIME {
        scratch.file.write_all(&piece)?;
        scratch.file.sync_data()?;
        written += PIECE_BYTES;
    }
    let stretch = (written / MIB) as f64 / begun.elapsed().as_secs_f64().max(1e-6);
    Ok((times[times.len() / 2], stretch))
}

fn judge_sync(median: Duration) -> Finding {
    let check = "disk.sync";
    let text = format!("a small write is on the disk in {:.2} ms (median)", median.as_secs_f64() * 1e3);
    if median >= SYNC_UNUSABLE {
        Finding::problem(
            check,
            text,
            "every change waits for one of these: use a local SSD, and see what else writes to this disk",
        )
    } else if median >= SYNC_SLOW {
        Finding::warning(
            check,
            text,
            "every change waits for one of these (verifications do not): a local SSD takes below 2 ms",
        )
    } else if median < SYNC_TOO_FAST {
        Finding::warning(
            check,
            format!("{text}: no disk is that fast"),
            "something says \"written\" too early; a power cut may lose acknowledged changes. See the cache settings of the \
             virtual machine or container",
        )
    } else {
        Finding::ok(check, text)
    }
}

fn judge_stretch(mib_per_second: f64) -> Finding {
    let check = "disk.write";
    let text = format!("{mib_per_second:.0} MiB a second are written and synced");
    if mib_per_second < STRETCH_SLOW {
        Finding::warning(
            check,
            text,
            "recorded events may pile up under load: use a faster disk, or raise analytics.queue_seconds",
        )
    } else {
        Finding::ok(check, text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    /// What is measured is judged by what it means for the server, and the measuring leaves nothing behind.
    #[test]
    fn a_disk_is_measured_and_judged() {
        let home = tempfile::tempdir().expect("a directory");
        let (sync, stretch) = measure(home.path()).expect("measured");
        assert!(sync > Duration::ZERO && stretch > 0.0);
        assert_eq!(fs::read_dir(home.path()).expect("there").count(), 0);
        assert_eq!(nearest(&home.path().join("a/b")), home.path());
        let states: Vec<State> =
            [1, 1_000, 20_000, 300_000].map(|micros| judge_sync(Duration::from_micros(micros)).state).to_vec();
        assert_eq!(states, [State::Warning, State::Ok, State::Warning, State::Problem]);
        assert_eq!((judge_stretch(5.0).state, judge_stretch(500.0).state), (State::Warning, State::Ok));
    }

    /// A disk below the settings' reserve is a problem: the server would refuse changes.
    #[test]
    fn too_little_room_is_a_problem() {
        let mut settings = Settings::default();
        settings.storage.min_free_bytes = u64::MAX;
        assert_eq!(space(&settings, Path::new("/")).state, State::Problem);
    }
}
