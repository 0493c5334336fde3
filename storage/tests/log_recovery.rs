//! The log's promise: what was acknowledged is replayed, in order and unaltered, whatever happens to the disk - or the
//! store refuses to start and says why.
#![allow(clippy::unwrap_used)]

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keyward_storage::disk::memory::{Call, Op, SplitMix};
use keyward_storage::disk::{Disk, MemoryDisk};
use keyward_storage::log::{
    AppendError, Log, LogError, LogOptions, MAX_RECORDS_PER_FRAME, OpenLogError, Reader, Recovered, frame, segment,
    store_id,
};
use keyward_storage::position::{Position, Term};

const STORE: [u8; 16] = *b"0123456789abcdef";
const DIR: &str = "/data/log";
const HEAD: usize = segment::HEADER_BYTES;

type Records = Vec<(Position, Term, Vec<u8>)>;

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { segment_bytes, store_id: STORE }
}

fn path(first: u64) -> PathBuf {
    segment::path(Path::new(DIR), Position(first))
}

fn open(
    disk: &MemoryDisk,
    segment_bytes: u64,
    applied: u64,
) -> Result<(Log, Recovered, Records), OpenLogError<Infallible>> {
    let mut records = Records::new();
    let replay = |position, term, bytes: &[u8]| {
        records.push((position, term, bytes.to_vec()));
        Ok(())
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let (log, recovered) = Log::open(disk, Path::new(DIR), options(segment_bytes), Position(applied), replay)?;
    assert_eq!(recovered.replayed, records.len() as u64);
    assert_eq!(recovered.last, log.last());
    Ok((log, recovered, records))
}

fn log_error(result: Result<(Log, Recovered, Records), OpenLogError<Infallible>>) -> LogError {
    match result.err().expect("this log is to be refused") {
        OpenLogError::Log(error) => error,
        OpenLogError::Replay { .. } => unreachable!("the replay of these tests takes everything"),
    }
}

/// A log of five frames in three segments: records 1-2 and 3 | 4 and 5-7 | 8.
struct Sample {
    disk: MemoryDisk,
    records: Records,
}

const SAMPLE_SEGMENT_BYTES: u64 = 220;

fn sample() -> Sample {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, SAMPLE_SEGMENT_BYTES, 0).unwrap();
    let mut records = Records::new();
    let frames: [(u64, &[&[u8]]); 5] = [
        (1, &[b"alpha", b""]),
        (1, &[b"gamma: a record of some length"]),
        (2, &[b"delta delta delta delta"]),
        (2, &[b"eps", b"zeta", b"eta"]),
        (3, &[b"theta, the last one"]),
    ];
    for (term, batch) in frames {
        log.append(Term(term), 1_000 * term, batch).unwrap();
        for record in batch {
            records.push((Position(records.len() as u64 + 1), Term(term), record.to_vec()));
        }
    }
    let names = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(names, ["00000000000000000001.log", "00000000000000000004.log", "00000000000000000008.log"]);
    Sample { disk, records }
}

/// Where each frame of a whole segment begins, and the file's end.
fn frame_starts(bytes: &[u8]) -> Vec<usize> {
    let (_, seed) = segment::Header::decode(bytes.first_chunk().unwrap()).unwrap();
    let mut starts = vec![HEAD];
    while let Ok(frame) = frame::Frame::decode(&bytes[*starts.last().unwrap()..], seed) {
        starts.push(starts.last().unwrap() + frame.header.frame_bytes() as usize);
    }
    assert_eq!(starts.last(), Some(&bytes.len()));
    starts
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A shipped layout is frozen: a log written by any release is read by all later ones.
#[test]
fn the_bytes_on_disk_never_change() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, 1 << 20, 0).unwrap();
    log.append(Term(2), 1_700_000_000_123, &[&b"first"[..], b"", b"\x00\xff"]).unwrap();
    log.append(Term(3), 1_700_000_000_456, &[b"second frame"]).unwrap();

    let frozen = [
        // magic, format, store id, first position, term, checksum
        "4b574c4f475345470100000030313233343536373839616263646566",
        "0100000000000000000000000000000078ba7432",
        // magic, layout, header length, payload length, records, first position, term
        "4b57465201003800130000000300000001000000000000000200000000000000",
        // synced through, written at, payload checksum, header checksum
        "00000000000000007b68e5cf8b0100009150800194bed7b8",
        "0500000066697273740000000002000000",
        "00ff",
        "4b57465201003800100000000100000004000000000000000300000000000000",
        "0300000000000000c869e5cf8b0100007c142a4e67089863",
        "0c0000007365636f6e64206672616d65",
    ];
    assert_eq!(
        hex(&disk.contents(&path(1)).unwrap()),
        frozen.concat(),
        "the layout of the log has shipped and must not change: logs on users' disks look like this. Give a new layout \
         a new number (segment::FORMAT), keep reading this one, and keep this test"
    );
}

/// A cut at every byte: in the last segment the whole frames before it remain and the log goes on; where acknowledged
/// records are gone for certain, or in any earlier segment, the store does not start.
#[test]
fn a_log_cut_short_loses_its_torn_end_or_refuses() {
    let Sample { disk, records } = sample();
    let last = records.len() as u64;
    for (first, next) in [(1, Some(4)), (4, Some(8)), (8, None)] {
        let whole = disk.contents(&path(first)).unwrap();
        let starts = frame_starts(&whole);
        for cut in 0..whole.len() {
            for applied in [0, 3, 4, 7, last] {
                let disk = disk.kill();
                disk.plant(&path(first), &whole[..cut]);
                let found = open(&disk, SAMPLE_SEGMENT_BYTES, applied);
                // Which records must be there, if any outcome but a refusal is allowed.
                let remain = match next {
                    // The checkpoint covers the segment: all that is asked of it is a whole header.
                    Some(next) if applied + 1 >= next => (cut >= HEAD).then_some(last),
                    Some(_) => None,
                    None => {
                        let frames = starts[1..].iter().filter(|end| **end <= cut).count() as u64;
                        let remain = first - 1 + frames; // one record per frame here
                        (remain >= applied).then_some(remain)
                    }
                };
                let about = format!("segment {first} cut at {cut}, checkpoint at {applied}");
                let Some(remain) = remain else {
                    let error = log_error(found).to_string();
                    assert!(error.contains("backup"), "{about}: {error}");
                    assert_eq!(disk.contents(&path(first)).unwrap().len(), cut, "{about}: a refusal changes nothing");
                    continue;
                };
                let (mut log, recovered, replayed) = found.unwrap_or_else(|error| panic!("{about}: {error}"));
                assert_eq!(replayed, records[applied as usize..remain as usize], "{about}");
                let kept =
                    if next.is_some() || cut < HEAD { 0 } else { *starts.iter().rfind(|at| **at <= cut).unwrap() };
                let torn = if next.is_some() { 0 } else { cut - kept };
                assert_eq!(recovered.torn_bytes, torn as u64, "{about}");

                log.append(Term(9), 9, &[b"afterwards"]).unwrap();
                let (_, recovered, replayed) = open(&disk, SAMPLE_SEGMENT_BYTES, applied).unwrap();
                assert_eq!(replayed.last(), Some(&(Position(remain + 1), Term(9), b"afterwards".to_vec())), "{about}");
                assert_eq!((recovered.torn_bytes, recovered.written_at_ms), (0, Some(9)), "{about}");
            }
        }
    }
}

/// A byte altered anywhere is noticed. Only in the very last frame can it pass for a write that did not finish; that is
/// why the checkpoint's position is held against the log.
#[test]
fn an_altered_byte_is_never_replayed() {
    let Sample { disk, records } = sample();
    for first in [1, 4, 8] {
        let whole = disk.contents(&path(first)).unwrap();
        for at in 0..whole.len() {
            for pattern in [0x01, 0x80, 0xff] {
                let about = format!("segment {first}, byte {at} altered by {pattern:02x}");
                let mut altered = whole.clone();
                altered[at] ^= pattern;
                let disk = disk.kill();
                disk.plant(&path(first), &altered);

                log_error(open(&disk, SAMPLE_SEGMENT_BYTES, if first == 8 { 8 } else { first - 1 }));
                assert_eq!(disk.contents(&path(first)).unwrap(), altered, "{about}: a refusal changes nothing");
                match open(&disk, SAMPLE_SEGMENT_BYTES, 0) {
                    Err(_) => {}
                    Ok((_, recovered, replayed)) => {
                        assert!(first == 8 && at >= HEAD, "{about}: only the last frame passes for torn");
                        assert_eq!(replayed, records[..7], "{about}");
                        assert_eq!(recovered.torn_bytes, (whole.len() - HEAD) as u64, "{about}");
                    }
                }
            }
        }
    }
}

/// Whatever bytes are in a segment, opening it returns: it neither panics nor believes a length.
#[test]
fn garbage_is_refused_or_cut_but_never_believed() {
    let Sample { disk, records } = sample();
    let mut dice = SplitMix(7);
    for round in 0..3_000 {
        let disk = disk.kill();
        let first = [1, 4, 8][dice.below(3) as usize];
        let mut bytes = disk.contents(&path(first)).unwrap();
        for _ in 0..1 + dice.below(4) {
            let at = dice.below(bytes.len() as u64) as usize;
            match dice.below(4) {
                0 => bytes[at] = dice.draw() as u8,
                1 => bytes[at..].fill(0),
                2 => drop(bytes.splice(at..at, dice.draw().to_le_bytes())),
                _ => bytes.extend_from_within(..at),
            }
        }
        disk.plant(&path(first), &bytes);
        if let Ok((_, _, replayed)) = open(&disk, SAMPLE_SEGMENT_BYTES, 0) {
            assert_eq!(replayed, records[..replayed.len()], "round {round}");
            assert!(replayed.len() >= 7, "round {round}: only the last frame may pass for torn");
        }
    }
}

/// Holes, reigns that end twice, files of others and of the future: each is refused by its name.
#[test]
fn a_refusal_says_what_is_wrong_and_what_to_do() {
    let Sample { disk, .. } = sample();
    let refused = |change: &dyn Fn(&MemoryDisk), applied| {
        let disk = disk.kill();
        change(&disk);
        log_error(open(&disk, SAMPLE_SEGMENT_BYTES, applied))
    };
    let planted =
        |first: u64, header: segment::Header| move |disk: &MemoryDisk| disk.plant(&path(first), &header.encode().0);
    let header = segment::Header { store_id: STORE, first: Position(8), term: Term(2) };

    let hole = refused(&|disk| disk.remove(&path(4)).unwrap(), 0);
    assert!(matches!(hole, LogError::Missing { from: Position(4), through: Position(7), .. }), "{hole}");
    let late = refused(&|disk| disk.remove(&path(1)).unwrap(), 2);
    assert!(matches!(late, LogError::Missing { from: Position(3), through: Position(3), .. }), "{late}");
    let behind = refused(&|_| (), 9);
    assert!(matches!(behind, LogError::BehindCheckpoint { applied: Position(9), last: Position(8), .. }), "{behind}");
    let foreign = refused(&planted(8, segment::Header { store_id: [7; 16], ..header }), 0);
    assert!(matches!(foreign, LogError::ForeignStore { found: [7, ..], .. }), "{foreign}");
    let fallen = refused(&planted(8, segment::Header { term: Term(1), ..header }), 0);
    assert_eq!(
        fallen.to_string(),
        "/data/log/00000000000000000008.log is damaged at byte 0: expected term 2 or a later one, found term 1; \
         acknowledged changes may be lost, so restore a backup and keep these files as they are, deleting or editing \
         them cannot help"
    );
    let renamed = refused(&planted(9, segment::Header { first: Position(10), ..header }), 0);
    assert!(matches!(renamed, LogError::Damaged { .. }), "{renamed}");
    let newer = refused(
        &|disk| {
            let mut bytes = disk.contents(&path(8)).unwrap();
            bytes[8] = 2;
            disk.plant(&path(8), &bytes);
        },
        0,
    );
    assert!(matches!(newer, LogError::NewerFormat { found: 2, newest: 1, .. }), "{newer}");
    let middle = refused(
        &|disk| {
            let mut bytes = disk.contents(&path(4)).unwrap();
            bytes[HEAD + frame::HEADER_BYTES + 4] ^= 1;
            disk.plant(&path(4), &bytes);
        },
        0,
    );
    assert!(matches!(middle, LogError::Damaged { offset: 48, .. }), "{middle}");
    // The same damage in the last segment, where a cut would be tempting: the frame behind it forbids that.
    let before_the_last = refused(
        &|disk| {
            disk.remove(&path(8)).unwrap();
            let mut bytes = disk.contents(&path(4)).unwrap();
            bytes[HEAD + frame::HEADER_BYTES + 4] ^= 1;
            disk.plant(&path(4), &bytes);
        },
        0,
    );
    assert!(before_the_last.to_string().contains("a later frame begins at byte 131"), "{before_the_last}");
}

/// A checkpoint without a log is a loss, unless somebody says that it came so: a backup, a follower's first checkpoint.
#[test]
fn a_checkpoint_without_its_log_is_refused_until_a_log_is_begun_for_it() {
    let disk = MemoryDisk::new();
    assert_eq!(store_id(&disk, Path::new(DIR)).unwrap(), None);
    let refused = log_error(open(&disk, 1 << 20, 100));
    assert!(matches!(refused, LogError::BehindCheckpoint { .. }), "{refused}");

    disk.plant(&path(101), b"KW"); // the power went while it was begun
    assert_eq!(store_id(&disk, Path::new(DIR)).unwrap(), None);
    let refused = log_error(open(&disk, 1 << 20, 100));
    assert!(matches!(refused, LogError::Damaged { .. }), "{refused}");
    Log::create(&disk, Path::new(DIR), &options(1 << 20), Position(100), Term(4)).unwrap();
    let again = Log::create(&disk, Path::new(DIR), &options(1 << 20), Position(100), Term(4)).unwrap_err();
    assert!(matches!(again, LogError::AlreadyThere { .. }), "{again}");
    assert_eq!(store_id(&disk, Path::new(DIR)).unwrap(), Some(STORE));

    let (mut log, recovered, replayed) = open(&disk, 1 << 20, 100).unwrap();
    assert_eq!((recovered.last, recovered.term, replayed.len()), (Position(100), Term(4), 0));
    assert!(matches!(log.append(Term(3), 0, &[b"x"]), Err(AppendError::StaleTerm { newest: Term(4), .. })));
    assert_eq!(log.append(Term(4), 0, &[b"x"]).unwrap(), Position(101));
    assert_eq!(log.first_kept(), Position(101));
    let refused = log_error(open(&disk, 1 << 20, 99));
    assert!(matches!(refused, LogError::Missing { from: Position(100), through: Position(100), .. }), "{refused}");
}

/// A client may store any bytes. Those of a frame, in a record that a power cut tears, must not keep the store from
/// starting: a frame is one in its own segment only.
#[test]
fn a_record_that_looks_like_a_frame_cannot_stop_recovery() {
    let Sample { disk, records } = sample();
    let mut forged = disk.contents(&path(4)).unwrap()[HEAD..].to_vec();
    forged.extend_from_slice(&disk.contents(&path(1)).unwrap());
    let (mut log, _, _) = open(&disk, 1 << 20, 0).unwrap();
    log.append(Term(3), 0, &[&forged[..], b"more"]).unwrap();
    let bytes = disk.contents(&path(8)).unwrap();
    disk.plant(&path(8), &bytes[..bytes.len() - 1]);
    let (_, recovered, replayed) = open(&disk, 1 << 20, 0).unwrap();
    assert_eq!(replayed, records);
    assert!(recovered.torn_bytes > forged.len() as u64);
}

/// Acknowledged means: written with one write, synced by one sync after it; in a new segment, after its header and its
/// name were synced.
#[test]
fn nothing_is_acknowledged_before_the_sync_that_covers_it() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, 400, 0).unwrap();
    let mut rolls = 0;
    let (mut file, mut length) = (path(1), HEAD as u64);
    for number in 0..20u64 {
        let record = vec![0; number as usize * 7];
        let from = disk.sequence();
        let last = log.append(Term(1), number, &[record]).unwrap();
        let done = disk.journal(from);

        let mut expected = Vec::new();
        let frame = (frame::HEADER_BYTES + frame::RECORD_HEADER_BYTES) as u64 + number * 7;
        if done.len() > 2 {
            assert!(length + frame > 400, "no segment is left before it is full");
            rolls += 1;
            (file, length) = (path(last.0), HEAD as u64);
            expected.push(Op::Create(file.clone()));
            expected.push(Op::Write { path: file.clone(), offset: 0, len: length });
            expected.push(Op::Sync(file.clone()));
            expected.push(Op::SyncDir(DIR.into()));
        }
        expected.push(Op::Write { path: file.clone(), offset: length, len: frame });
        expected.push(Op::Sync(file.clone()));
        assert_eq!(done, expected, "record {last}");
        length += frame;
    }
    assert!(rolls > 3);
    assert_eq!(log.total_bytes(), disk.used_bytes());
    assert_eq!(log.bytes_written(), disk.used_bytes() - HEAD as u64, "all but what open() wrote");
}

/// A full disk makes the store read-only and heals by itself: nothing of the refused batch stays, in a frame or in the
/// roll before it.
#[test]
fn a_full_disk_takes_nothing_and_heals() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, 400, 0).unwrap();
    log.append(Term(1), 1, &[vec![1; 50]]).unwrap();
    let used = disk.used_bytes();

    // Room for a part of the frame; then for a smaller one.
    disk.set_capacity(Some(used + 110));
    assert!(matches!(log.append(Term(1), 2, &[vec![2; 100]]), Err(AppendError::NoSpace(_))));
    assert_eq!(disk.used_bytes(), used, "the part is cut off again");
    log.append(Term(1), 3, &[vec![3; 10]]).unwrap();
    // Room for a part of a new segment's header; for a header and a part of the frame; for a frame in the old segment.
    let used = disk.used_bytes();
    disk.set_capacity(Some(used + 30));
    assert!(matches!(log.append(Term(1), 4, &[vec![4; 140]]), Err(AppendError::NoSpace(_))));
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 1, "the segment that could not be begun is gone");
    disk.set_capacity(Some(used + 65));
    log.append(Term(1), 5, &[vec![5; 5]]).unwrap();
    assert_eq!(disk.used_bytes(), used + 65);
    for seed in 0..20 {
        // Its name must not come back either: the old segment has gone on past the position in it.
        let (_, recovered, _) = open(&disk.crash(seed), 400, 0).unwrap();
        assert_eq!((recovered.last, recovered.torn_bytes), (Position(3), 0), "seed {seed}");
    }
    disk.set_capacity(Some(used + 130));
    assert!(matches!(log.append(Term(1), 6, &[vec![6; 140]]), Err(AppendError::NoSpace(_))));
    assert_eq!(disk.used_bytes(), used + 65 + HEAD as u64, "it is empty, and ready");
    for seed in 0..20 {
        let (_, recovered, _) = open(&disk.crash(seed), 400, 0).unwrap();
        assert_eq!((recovered.last, recovered.torn_bytes), (Position(3), 0), "seed {seed}");
    }
    disk.set_capacity(None);
    assert_eq!(log.append(Term(1), 7, &[vec![7; 100]]).unwrap(), Position(4));
    let (_, recovered, replayed) = open(&disk, 400, 0).unwrap();
    assert_eq!((recovered.torn_bytes, replayed.len()), (0, 4));

    // A cut that fails leaves a tail nobody knows: that is fatal.
    disk.fail(Call::Write, 1, io::ErrorKind::StorageFull);
    disk.fail(Call::SetLen, 1, io::ErrorKind::Other);
    assert!(matches!(log.append(Term(1), 8, &[b"x"]), Err(AppendError::Fatal(_))));
    assert!(matches!(log.append(Term(1), 8, &[b"x"]), Err(AppendError::Fatal(_))));
}

/// A failed sync is never tried again: afterwards nobody knows what is on disk, and a success would be a lie.
#[test]
fn a_failed_sync_stops_the_log_for_good() {
    for call in [Call::Sync, Call::Write] {
        let disk = MemoryDisk::new();
        let (mut log, _, _) = open(&disk, 400, 0).unwrap();
        log.append(Term(1), 1, &[b"kept"]).unwrap();
        disk.fail(call, 1, io::ErrorKind::Other);
        assert!(matches!(log.append(Term(1), 2, &[b"doubtful"]), Err(AppendError::Fatal(_))));
        let from = disk.sequence();
        assert!(matches!(log.append(Term(1), 3, &[b"refused"]), Err(AppendError::Fatal(_))));
        assert_eq!(disk.journal(from), [], "it does not even try");
        assert_eq!(log.last(), Position(1));

        // The restarted process reads from the kernel's memory what is on no disk. Before it believes that, it writes
        // it again: what is replayed once is there after a power cut, too.
        let disk = disk.kill();
        let (_, _, replayed) = open(&disk, 400, 0).unwrap();
        assert_eq!(replayed.len(), if call == Call::Sync { 2 } else { 1 });
        for seed in 0..20 {
            assert_eq!(open(&disk.crash(seed), 400, 0).unwrap().2, replayed, "{call:?}, seed {seed}");
        }
    }
    // The same for a segment's header and for its name.
    for call in [Call::Sync, Call::SyncDir] {
        let disk = MemoryDisk::new();
        let (mut log, _, _) = open(&disk, 200, 0).unwrap();
        log.append(Term(1), 1, &[vec![1; 80]]).unwrap();
        disk.fail(call, 1, io::ErrorKind::Other);
        assert!(matches!(log.append(Term(1), 2, &[vec![2; 80]]), Err(AppendError::Fatal(_))));
        let disk = disk.kill();
        let (mut log, _, _) = open(&disk, 200, 0).unwrap();
        log.append(Term(1), 2, &[vec![2; 80]]).unwrap();
        for seed in 0..20 {
            assert_eq!(open(&disk.crash(seed), 200, 0).unwrap().1.last, Position(2), "{call:?}, seed {seed}");
        }
    }
}

/// What is more than a frame takes is refused before anything is written, and nothing is nothing.
#[test]
fn batches_are_bounded() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, 400, 0).unwrap();
    let from = disk.sequence();
    let many = vec![b""; MAX_RECORDS_PER_FRAME + 1];
    assert!(matches!(log.append(Term(1), 1, &many), Err(AppendError::TooLarge { .. })));
    assert_eq!(log.append(Term(1), 1, &[b""; 0]).unwrap(), Position::START);
    assert_eq!(disk.journal(from), []);
    // A frame larger than a segment, and than what a reader reads at once, has a segment to itself.
    let large: Vec<u8> = (0..1_000_000u32).map(|number| number as u8).collect();
    log.append(Term(1), 1, &[&b"small"[..]]).unwrap();
    log.append(Term(1), 1, &[&large[..], b"and"]).unwrap();
    log.append(Term(1), 1, &[&b"small"[..]]).unwrap();
    log.append(Term(1), 1, &many[1..]).unwrap();
    let (_, _, replayed) = open(&disk, 400, 0).unwrap();
    assert_eq!(replayed.len(), 4 + MAX_RECORDS_PER_FRAME);
    assert!(replayed[1].2 == large && replayed[2].2 == b"and" && replayed[3].2 == b"small");
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 4);
}

/// Segments go once the checkpoint and every reader are past them; the store then opens from that checkpoint, and from
/// no earlier one.
#[test]
fn removed_segments_are_those_nobody_needs() {
    let Sample { disk, records } = sample();
    let (mut log, _, _) = open(&disk, SAMPLE_SEGMENT_BYTES, 0).unwrap();
    assert_eq!(log.remove_through(Position(2)).unwrap(), 0, "record 3 is in that segment, too");
    assert_eq!(log.remove_through(Position(3)).unwrap(), 1);
    assert_eq!(log.first_kept(), Position(4));
    assert_eq!(log.total_bytes(), disk.used_bytes());
    for applied in 3..=8 {
        assert_eq!(open(&disk.kill(), SAMPLE_SEGMENT_BYTES, applied).unwrap().2, records[applied as usize..]);
    }
    let refused = log_error(open(&disk, SAMPLE_SEGMENT_BYTES, 2));
    assert!(matches!(refused, LogError::Missing { from: Position(3), .. }), "{refused}");
    assert_eq!(log.remove_through(Position(u64::MAX - 1)).unwrap(), 1, "never the one that is written to");
    let (mut log, recovered, _) = open(&disk, SAMPLE_SEGMENT_BYTES, 8).unwrap();
    assert_eq!(recovered.last, Position(8));
    assert_eq!(log.append(Term(3), 0, &[b"on"]).unwrap(), Position(9));
}

/// What others leave in the directory is neither read nor touched, but named.
#[test]
fn strange_files_are_left_alone() {
    let Sample { disk, records } = sample();
    let strange =
        [".00000000000000000008.log.swp", "00000000000000000004.log~", "00000000000000000009.log.tmp", "9.log"];
    for name in strange {
        disk.plant(&Path::new(DIR).join(name), b"KWLOGSEG?");
    }
    let (_, recovered, replayed) = open(&disk, SAMPLE_SEGMENT_BYTES, 0).unwrap();
    assert_eq!((replayed, recovered.strangers), (records, strange.map(String::from).to_vec()));
    assert_eq!(disk.list(Path::new(DIR)).unwrap().len(), 3 + strange.len());
}

/// A reader follows the writer from any position, across segments, and sees what is synced and no more - also after the
/// writer had to take a part of a frame back that the reader had already read ahead.
#[test]
fn a_reader_follows_the_writer() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, 300, 0).unwrap();
    let mut reader = log.reader(Position::START).unwrap();
    let mut seen = Vec::new();
    let mut written = Vec::new();
    for number in 0..40u64 {
        let record = vec![number as u8; number as usize * 3];
        disk.set_capacity(Some(disk.used_bytes() + 70));
        let refused = log.append(Term(1), 0, &[vec![0xee; 200], record.clone()]);
        assert!(matches!(refused, Err(AppendError::NoSpace(_))));
        disk.set_capacity(None);
        let last = log.append(Term(1), 0, &[record.clone(), b"x".to_vec()]).unwrap();
        written.extend([record, b"x".to_vec()]);
        let told = if number % 3 == 0 { last.0 } else { last.0 - 2 };
        while let Some(frame) = reader.next(Position(told)).unwrap() {
            seen.extend(frame.records().map(|(_, bytes)| bytes.to_vec()));
        }
        assert_eq!(seen, written[..told as usize], "all it is told of, and no more");
    }
    let from = log.first_kept();
    let mut late = log.reader(Position(30)).unwrap();
    let frame = late.next(log.last()).unwrap().expect("there are more");
    assert_eq!(frame.header.last(), Position(32));
    // Who is too far behind is told to begin again from a checkpoint.
    log.remove_through(Position(60)).unwrap();
    assert!(log.first_kept() > from);
    assert!(matches!(log.reader(Position(30)), Err(LogError::Missing { from: Position(31), .. })));
    let lost = loop {
        match late.next(log.last()) {
            Ok(frame) => assert!(frame.is_some(), "the end is not reached"),
            Err(error) => break error,
        }
    };
    assert!(matches!(lost, LogError::Missing { .. }), "{lost}");
}

/// A reader reads ahead, and so may have read a part of a frame that was just being written. It looks again.
#[test]
fn a_reader_looks_again_at_what_was_being_written() {
    let disk = MemoryDisk::new();
    let (mut log, _, _) = open(&disk, 1 << 20, 0).unwrap();
    log.append(Term(1), 0, &[b"one"]).unwrap();
    let length = disk.used_bytes() as usize;
    log.append(Term(1), 0, &[b"two"]).unwrap();
    let whole = disk.contents(&path(1)).unwrap();
    for cut in length..whole.len() {
        let mut begun = whole.clone();
        begun[cut..].fill(0);
        for begun in [&whole[..cut], &begun] {
            let disk = MemoryDisk::new();
            disk.plant(&path(1), begun);
            let mut reader = Reader::open(Arc::new(disk.clone()), Path::new(DIR), STORE, Position::START).unwrap();
            assert_eq!(reader.next(Position(1)).unwrap().unwrap().header.last(), Position(1));
            assert!(reader.next(Position(1)).unwrap().is_none());
            disk.open(&path(1), false).unwrap().write_all_at(cut as u64, &whole[cut..]).unwrap();
            assert_eq!(reader.next(Position(2)).unwrap().unwrap().records().next(), Some((Position(2), &b"two"[..])));
        }
    }
    // But when it still is no frame after the writer has synced it, it is damage.
    disk.open(&path(1), false).unwrap().write_all_at(length as u64 + 60, b"X").unwrap();
    let mut reader = log.reader(Position(1)).unwrap();
    assert!(matches!(reader.next(Position(2)), Err(LogError::Damaged { .. })));
}

/// One life after another of a store: batches, rolls, clean-ups, full disks, failing writes and syncs, power cuts at any
/// operation (recovery's own included) and kills. After each, every acknowledged record is replayed, in order; at most
/// the one batch that was under way follows, whole; and what was replayed once stays.
#[test]
fn acknowledged_records_outlive_everything() {
    let mut adopted = 0;
    for seed in 0..500u64 {
        let mut dice = SplitMix(seed);
        let mut disk = MemoryDisk::new();
        let mut model = Records::new();
        let mut doubtful = Records::new();
        let mut applied = 0u64;
        let mut term = 1;
        for life in 0..6 {
            let about = format!("seed {seed}, life {life}");
            if dice.below(4) == 0 {
                disk.stop_after(dice.below(8));
            }
            let (mut log, recovered, replayed) = match open(&disk, 2_000, applied) {
                Ok(opened) => opened,
                Err(error) => {
                    assert!(disk.stopped(), "{about}: {error}");
                    disk = disk.crash(dice.draw());
                    continue;
                }
            };
            if recovered.last.0 > model.len() as u64 {
                model.append(&mut doubtful);
                adopted += 1;
            }
            doubtful.clear();
            assert_eq!(replayed, model[applied as usize..], "{about}");
            assert_eq!(recovered.last.0, model.len() as u64, "{about}");

            let mut reader = log.reader(Position(log.first_kept().0 - 1)).unwrap();
            let mut kept = log.first_kept().0 as usize - 1;
            while let Some(frame) = reader.next(log.last()).unwrap() {
                for (position, bytes) in frame.records() {
                    assert_eq!((position, frame.header.term, bytes.to_vec()), model[kept], "{about}");
                    kept += 1;
                }
            }
            assert_eq!(kept, model.len(), "{about}: whatever is kept can be read");

            if !disk.stopped() && dice.flip() {
                disk.stop_after(dice.below(30));
            }
            for _ in 0..dice.below(20) {
                match dice.below(12) {
                    0 => disk.set_capacity(Some(disk.used_bytes() + dice.below(600))),
                    1 | 2 => disk.set_capacity(None),
                    3 if dice.below(4) == 0 => disk.fail(Call::Sync, 1 + dice.below(3), io::ErrorKind::Other),
                    4 if dice.below(4) == 0 => disk.fail(Call::Write, 1 + dice.below(3), io::ErrorKind::Other),
                    5 => term += dice.below(2),
                    6 => applied = log.last().0,
                    7 => drop(log.remove_through(Position(dice.below(applied + 1)))),
                    _ => {}
                }
                let batch: Vec<Vec<u8>> = (0..1 + dice.below(4))
                    .map(|_| {
                        let length = [0, 10, 100, 700][dice.below(4) as usize];
                        (0..length).map(|_| dice.draw() as u8).collect()
                    })
                    .collect();
                let first = model.len() as u64 + 1;
                let placed = batch
                    .iter()
                    .enumerate()
                    .map(|(number, bytes)| (Position(first + number as u64), Term(term), bytes.clone()));
                match log.append(Term(term), 0, &batch) {
                    Ok(last) => {
                        model.extend(placed);
                        assert_eq!(last.0, model.len() as u64, "{about}");
                    }
                    Err(AppendError::NoSpace(_)) => {}
                    Err(AppendError::Fatal(_)) => {
                        doubtful.extend(placed);
                        break;
                    }
                    Err(error) => panic!("{about}: {error}"),
                }
            }
            // A process that died alone finds the kernel's memory as it was.
            disk = if disk.stopped() || dice.flip() { disk.crash(dice.draw()) } else { disk.kill() };
        }
    }
    assert!(adopted > 20, "batches that were under way do come back whole now and then, here {adopted} times");
}
