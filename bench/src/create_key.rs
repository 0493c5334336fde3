//! Durable writes: `keys.createKey` over HTTP, beside what the same disk does with nothing but writes and syncs.
//!
//! With C connections a group commit can hold at most C records, so the disk allows at most C times its syncs a second.
//! That bound is measured on the same directory, right after, with groups as large as C of the log's records. How large
//! the groups were is read from the log: a frame is one write and one sync.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use keyward_storage::log::{Frame, segment};
use serde::Serialize;

use crate::child::{Cores, keyward_binary, start_keyward};
use crate::compare::{fresh_root_key, key_request, make_api, operation_headers, scratch};
use crate::load::{Plan, histogram, run};
use crate::report::{HEADINGS, Latency, Summary, per_request};
use crate::wire::render;
use crate::{Error, Result};

/// How long the disk alone is measured, each time.
const DISK_TIME: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// keyward's binary; `None`: the one beside this program.
    pub keyward: Option<PathBuf>,
    /// Directory for the data, on the disk to be measured; `None`: the system's for temporary files.
    pub directory: Option<PathBuf>,
    /// Connections of the generator.
    pub connections: usize,
    /// Measured seconds.
    pub seconds: u64,
    /// Generator and server on cores of their own.
    pub pin: bool,
    /// Fail below so many keys a second.
    pub least: Option<f64>,
}

/// What the disk does with writes and syncs alone.
#[derive(Debug, Serialize)]
pub struct DiskFloor {
    /// Bytes appended before each sync.
    pub bytes: usize,
    /// Syncs a second.
    pub syncs_per_second: f64,
    /// A write and its sync, in microseconds.
    pub latency_us: Latency,
}

/// What a log's segments hold.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LogContent {
    /// Frames: each was one write and one sync.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of the frames.
    pub bytes: u64,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The closed loop over `keys.createKey`.
    pub create_key: Summary,
    /// Keys a second that one group commit per round of all connections would allow.
    pub disk_allows: f64,
    /// The disk with a group of as many records as there are connections, measured twice.
    pub disk_groups: [DiskFloor; 2],
    /// The disk with one record per sync.
    pub disk_single: DiskFloor,
    /// What the log holds at the end.
    pub log: LogContent,
    /// Records in a frame, and so keys per sync, on average.
    pub records_per_sync: f64,
    /// The server's CPU time per request in microseconds.
    pub cpu_us_per_request: f64,
    /// Bytes in the data directory per key at the end.
    pub disk_bytes_per_key: f64,
}

/// Measures. `say` is told what is going on.
///
/// # Errors
///
/// Whatever keeps it from measuring; [`Report::judge`] holds the result against the bound.
pub fn create_key(options: &Options, say: &mut dyn FnMut(&str)) -> Result<Report> {
    let binary = keyward_binary(options.keyward.as_deref())?;
    let cores = if options.pin { Some(Cores::choose()?) } else { None };
    let directory = scratch(options.directory.as_ref())?;
    let root_key = fresh_root_key()?;
    let data = directory.path().join("data");
    let log = directory.path().join("keyward.log");
    let server = start_keyward(&binary, &data, &root_key, &log, cores)?;
    let headers = operation_headers(&root_key);
    let api = make_api(server.target, &headers)?;
    let body = key_request(&api, false).to_string();
    let request = render(server.target, "POST", "/v2/keys.createKey", &headers, body.as_bytes())?;
    let plan = Plan::closed(server.target, vec![request], options.connections, Duration::from_secs(options.seconds));
    say("creating keys");
    let cpu_before = server.cpu()?;
    let outcome = run(&plan)?;
    outcome.expect_all(200)?;
    let cpu = server.cpu()?.saturating_sub(cpu_before);
    server.stop()?;
    let log = read_log(&data.join("log"))?;
    let disk_bytes = size_of(&data)?;
    say("measuring the disk alone");
    let record_bytes = usize::try_from(log.bytes / log.records.max(1)).unwrap_or(usize::MAX);
    let group = || disk_floor(directory.path(), record_bytes.saturating_mul(options.connections));
    let (first, disk_single, second) = (group()?, disk_floor(directory.path(), record_bytes)?, group()?);
    Ok(Report {
        create_key: Summary::of(&plan, &outcome),
        disk_allows: first.syncs_per_second.max(second.syncs_per_second) * options.connections as f64,
        disk_groups: [first, second],
        disk_single,
        records_per_sync: log.records as f64 / log.frames.max(1) as f64,
        log,
        cpu_us_per_request: per_request(cpu, outcome.sent),
        disk_bytes_per_key: disk_bytes as f64 / outcome.sent.max(1) as f64,
    })
}

impl Report {
    /// Holds the result against the bound that was asked for.
    ///
    /// # Errors
    ///
    /// [`Error::Missed`] when there were fewer keys a second.
    pub fn judge(&self, options: &Options) -> Result<()> {
        match options.least {
            Some(least) if self.create_key.throughput < least => {
                Err(Error::Missed(format!("{:.0} keys a second, not {least:.0}", self.create_key.throughput)))
            }
            _ => Ok(()),
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let disk = |floor: &DiskFloor| {
            format!(
                "disk alone, {} bytes a sync: {:.0} syncs/s, p50 {:.0} us, p99 {:.0} us",
                floor.bytes, floor.syncs_per_second, floor.latency_us.p50, floor.latency_us.p99
            )
        };
        format!(
            "{HEADINGS}\n{}\n\n{}\n{}\n{}\na group of all connections per sync would allow {:.0} keys/s: reached {:.0} %\n\
             {} syncs for {} records: {:.1} records a sync, {:.0} bytes of log a record\n\
             server CPU per request {:.1} us; {:.0} bytes on disk per key",
            self.create_key.row("createKey, closed"),
            disk(&self.disk_single),
            disk(&self.disk_groups[0]),
            disk(&self.disk_groups[1]),
            self.disk_allows,
            100.0 * self.create_key.throughput / self.disk_allows,
            self.log.frames,
            self.log.records,
            self.records_per_sync,
            self.log.bytes as f64 / self.log.records.max(1) as f64,
            self.cpu_us_per_request,
            self.disk_bytes_per_key,
        )
    }
}

/// Appends `bytes` and syncs, again and again, in a file of `directory`.
///
/// # Errors
///
/// [`Error::Io`] when the disk refuses.
pub fn disk_floor(directory: &Path, bytes: usize) -> Result<DiskFloor> {
    let path = directory.join("disk-floor");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&path)
        .map_err(Error::io(format!("create {}", path.display())))?;
    let group = vec![0xa5; bytes];
    let mut latency = histogram();
    let start = Instant::now();
    while start.elapsed() < DISK_TIME {
        let begun = Instant::now();
        file.write_all(&group).and_then(|()| file.sync_data()).map_err(Error::io("append and sync"))?;
        latency.saturating_record(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1));
    }
    let syncs_per_second = latency.len() as f64 / start.elapsed().as_secs_f64();
    drop(file);
    std::fs::remove_file(&path).map_err(Error::io(format!("remove {}", path.display())))?;
    Ok(DiskFloor { bytes, syncs_per_second, latency_us: Latency::of(&latency) })
}

/// Counts frames and records in a log that nobody writes to.
fn read_log(directory: &Path) -> Result<LogContent> {
    let doing = || Error::io(format!("read the log in {}", directory.display()));
    let mut content = LogContent::default();
    for entry in std::fs::read_dir(directory).map_err(doing())? {
        let bytes = std::fs::read(entry.map_err(doing())?.path()).map_err(doing())?;
        let Some((head, mut rest)) = bytes.split_first_chunk::<{ segment::HEADER_BYTES }>() else { continue };
        let Ok((_, seed)) = segment::Header::decode(head) else { continue };
        while let Ok(frame) = Frame::decode(rest, seed) {
            content.frames += 1;
            content.records += u64::from(frame.header.records);
            content.bytes += frame.header.frame_bytes();
            rest = usize::try_from(frame.header.frame_bytes()).ok().and_then(|end| rest.get(end..)).unwrap_or(&[]);
        }
    }
    Ok(content)
}

fn size_of(directory: &Path) -> Result<u64> {
    let doing = || Error::io(format!("measure {}", directory.display()));
    let mut sum = 0;
    for entry in std::fs::read_dir(directory).map_err(doing())? {
        let entry = entry.map_err(doing())?;
        let metadata = entry.metadata().map_err(doing())?;
        sum += if metadata.is_dir() { size_of(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}
