//! The event store from outside: against a plain model, with the power cut at every change, with faults.

#![allow(clippy::unwrap_used, reason = "a test's helpers")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::display::array_value_to_string;
use datafusion::prelude::{SessionConfig, SessionContext};
use keyward_query::events::event::Verification;
use keyward_query::events::tables::{Family, Level, Table};
use keyward_query::events::{Event, Events, Options, Outcome, Ratelimit, Scope, Spaces};
use keyward_storage::disk::memory::{Call, SplitMix};
use keyward_storage::disk::{Disk, MemoryDisk};
use keyward_storage::ids::{IdText, IdentityId, KeyId, KeyspaceId, NamespaceId, OverrideId, WorkspaceId};
use keyward_storage::records::identity::IdentityView;

const MINUTE: u64 = 60_000;
const DAY: u64 = 86_400_000;
/// 28 February 2024, a day before a leap day: months, days and their ends are near.
const START: u64 = 1_709_078_400_000;

pub(super) fn options(disk: &MemoryDisk) -> Options {
    Options {
        dir: PathBuf::from("/data/events"),
        disk: Arc::new(disk.clone()) as Arc<dyn Disk>,
        region: "here".to_owned(),
        clock: Arc::new(|| START + 200 * DAY),
        queue_events: 10_000,
        min_free_bytes: 0,
        retention: None,
    }
}

fn text(kind: u8, number: u64) -> IdText {
    let mut bytes = [kind; 16];
    bytes[15] = b'0' + u8::try_from(number % 10).unwrap();
    IdText::from_bytes(bytes).unwrap()
}

pub(super) fn workspace(number: u64) -> WorkspaceId {
    WorkspaceId(text(b'w', number))
}

/// What columns say, as text.
type Row = Vec<String>;

/// Makes events, each with a request id of its own.
pub(super) struct Source {
    dice: SplitMix,
    made: u64,
    /// Verifications of one workspace around one midnight only: few files, for tests that run very often.
    narrow: bool,
}

impl Source {
    pub(super) fn new(seed: u64) -> Source {
        Source { dice: SplitMix(seed), made: 0, narrow: false }
    }

    pub(super) fn narrow(seed: u64) -> Source {
        Source { narrow: true, ..Source::new(seed) }
    }

    fn event(&mut self) -> Event {
        self.made += 1;
        let mut request_id = *b"req_00000000000000000";
        let number = format!("{:017}", self.made);
        request_id[4..].copy_from_slice(number.as_bytes());
        let dice = &mut self.dice;
        // Late and re-ordered, on both sides of the ends of minutes, days and months.
        let time = match dice.below(4) {
            0 => START + DAY + dice.below(3) * DAY - dice.below(3),
            1 => START + dice.below(40 * DAY),
            _ => START + 2 * DAY + dice.below(5 * MINUTE),
        };
        let time = if self.narrow { START + DAY - 2 * MINUTE + dice.below(3 * MINUTE) } else { time };
        let workspace = workspace(if self.narrow { 0 } else { dice.below(2) });
        if dice.below(3) == 0 && !self.narrow {
            let passed = dice.flip();
            return Ratelimit {
                request_id,
                time,
                workspace,
                namespace: NamespaceId(text(b'n', dice.below(2))),
                identifier: format!("user {}", dice.below(3)),
                override_id: dice.flip().then(|| OverrideId(text(b'o', 1))),
                passed,
                latency_ms: dice.below(1000) as f64 / 8.0,
                limit: 10,
                remaining: dice.below(10),
                reset_at: time + 1000,
                tokens: dice.below(5),
            }
            .into();
        }
        let key = dice.below(3);
        let identity = (key > 0).then(|| {
            Arc::new(IdentityView {
                id: IdentityId(text(b'i', key)),
                external_id: format!("an external id that is longer than a view {key}").into(),
                meta: None,
                ratelimits: Box::new([]),
            })
        });
        let tags = [vec![], vec!["a"], vec!["a", "b"], vec!["b", "a"], vec!["a", "a"]];
        Verification {
            request_id,
            time,
            workspace,
            keyspace: KeyspaceId(text(b's', dice.below(2))),
            key: KeyId(text(b'k', key)),
            identity,
            outcome: [Outcome::Valid, Outcome::RateLimited, Outcome::InsufficientPermissions]
                [usize::try_from(dice.below(3)).unwrap()],
            tags: tags[usize::try_from(dice.below(5)).unwrap()].iter().map(|tag| (*tag).to_owned()).collect(),
            spent_credits: dice.below(4),
            latency_ms: dice.below(1000) as f64 / 8.0,
        }
        .into()
    }
}

/// The raw row of an event, with the columns of AN-TAB-02 and AN-TAB-04.
fn raw_row(event: &Event) -> Row {
    match event {
        Event::Verification(it) => {
            let (identity, external) = match &it.identity {
                Some(identity) => (identity.id.to_string(), identity.external_id.to_string()),
                None => Default::default(),
            };
            vec![
                String::from_utf8(it.request_id.to_vec()).unwrap(),
                it.time.to_string(),
                it.workspace.to_string(),
                it.keyspace.to_string(),
                it.key.to_string(),
                identity,
                external,
                "here".into(),
                "api".into(),
                String::new(),
                it.outcome.as_str().into(),
                format!("[{}]", it.tags.join(", ")),
                it.spent_credits.to_string(),
                format!("{:?}", it.latency_ms),
            ]
        }
        Event::Ratelimit(it) => vec![
            String::from_utf8(it.request_id.to_vec()).unwrap(),
            it.workspace.to_string(),
            it.namespace.to_string(),
            it.identifier.clone(),
            it.override_id.map_or(String::new(), |id| id.to_string()),
            it.time.to_string(),
            it.passed.to_string(),
            format!("{:?}", it.latency_ms),
            it.limit.to_string(),
            it.remaining.to_string(),
            it.reset_at.to_string(),
            it.tokens.to_string(),
        ],
    }
}

/// The start of the bucket of a time, as the table shows it (AN-ROLL-01).
fn bucket(level: Level, time: u64) -> String {
    let at = DateTime::from_timestamp_millis(i64::try_from(time).unwrap()).unwrap().naive_utc();
    let date = at.date();
    match level {
        Level::Minute => at.format("%Y-%m-%dT%H:%M:00").to_string(),
        Level::Hour => at.format("%Y-%m-%dT%H:00:00").to_string(),
        Level::Day => date.to_string(),
        Level::Month => NaiveDate::from_ymd_opt(date.year(), date.month(), 1).unwrap().to_string(),
        Level::Raw => time.to_string(),
    }
}

/// What a table must hold of one workspace, summed up by hand (AN-ROLL-02, AN-ROLL-03).
fn expected(table: Table, events: &[Event], of: WorkspaceId) -> BTreeSet<Row> {
    let events = events.iter().filter(|event| event.family() == table.family && event.workspace() == of);
    if table.level == Level::Raw {
        return events.map(raw_row).collect();
    }
    let mut groups: BTreeMap<Row, [u64; 4]> = BTreeMap::new();
    for event in events {
        let raw = raw_row(event);
        let time = bucket(table.level, event.time());
        let (key, sums) = match event {
            Event::Verification(it) => {
                let [workspace, space, key, identity, external] = [2, 3, 4, 5, 6].map(|at| raw[at].clone());
                let [source, app, outcome, tags] = [8, 9, 10, 11].map(|at| raw[at].clone());
                let key = vec![time, workspace, space, identity, external, key, outcome, source, app, tags];
                (key, [1, it.spent_credits, 0, 0])
            }
            Event::Ratelimit(it) => {
                let when = |value: u64| if it.passed { value } else { 0 };
                let key = vec![time, raw[1].clone(), raw[2].clone(), raw[3].clone()];
                (key, [when(1), 1, it.tokens, when(it.tokens)])
            }
        };
        let held = groups.entry(key).or_default();
        held.iter_mut().zip(sums).for_each(|(held, more)| *held += more);
    }
    let sums = if table.family == Family::Verifications { 2 } else { 4 };
    groups
        .into_iter()
        .map(|(mut row, values)| {
            row.extend(values[..sums].iter().map(u64::to_string));
            row
        })
        .collect()
}

fn rows_of(batches: &[RecordBatch]) -> Vec<Row> {
    let row = |batch: &RecordBatch, row: usize| -> Row {
        batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect()
    };
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(move |at| row(batch, at))).collect()
}

pub(super) struct Reader {
    runtime: tokio::runtime::Runtime,
    context: SessionContext,
}

impl Reader {
    pub(super) fn new() -> Reader {
        Reader {
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
            context: SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2)),
        }
    }

    fn scan(&self, events: &Events, table: Table, scope: &Scope) -> Vec<Row> {
        let frame = self.context.read_table(events.provider(table, scope)).unwrap();
        rows_of(&self.runtime.block_on(frame.collect()).unwrap())
    }

    /// All rows of a table and workspace, none twice.
    fn all(&self, events: &Events, table: Table, of: WorkspaceId, what: &str) -> BTreeSet<Row> {
        let scope = Scope { workspace: of, spaces: Spaces::All, now_ms: START, retention_days: 0 };
        let rows = self.scan(events, table, &scope);
        let distinct: BTreeSet<Row> = rows.iter().cloned().collect();
        assert_eq!(distinct.len(), rows.len(), "{what}: a row or group key of {} came twice", table.name());
        distinct
    }

    /// As [`Reader::check`], of what narrow sources make.
    fn check_narrow(&self, events: &Events, recorded: &[Event], what: &str) {
        for table in Table::all().filter(|table| table.family == Family::Verifications) {
            let found = self.all(events, table, workspace(0), what);
            assert_eq!(found, expected(table, recorded, workspace(0)), "{what}: {}", table.name());
        }
    }

    /// Every table of every workspace holds exactly what these events make.
    pub(super) fn check(&self, events: &Events, recorded: &[Event], what: &str) {
        for of in [workspace(0), workspace(1)] {
            for table in Table::all() {
                let found = self.all(events, table, of, what);
                let wanted = expected(table, recorded, of);
                let missing: Vec<_> = wanted.difference(&found).take(3).collect();
                let strange: Vec<_> = found.difference(&wanted).take(3).collect();
                assert!(
                    missing.is_empty() && strange.is_empty(),
                    "{what}: {} of {of}: {} rows, wanted {}; missing {missing:?}; strange {strange:?}",
                    table.name(),
                    found.len(),
                    wanted.len()
                );
            }
        }
    }
}

pub(super) fn record(events: &Events, recorded: &mut Vec<Event>, source: &mut Source, count: u64) {
    for _ in 0..count {
        let event = source.event();
        recorded.push(event.clone());
        events.try_record(event).expect("the queue is larger");
    }
}

/// AN-ROLL-01 to AN-ROLL-05, AN-TAB-02 to AN-TAB-05, AN-TAB-08, AN-TAB-09: whatever is recorded, imported, sealed, merged,
/// and however often the store is killed or stopped in between, every table holds exactly what a plain sum over all events
/// gives, each group key once.
#[test]
fn tables_agree_with_a_plain_model() {
    let reader = Reader::new();
    for seed in 0..4 {
        let mut dice = SplitMix(seed * 7 + 1);
        let mut source = Source::new(seed);
        let mut disk = MemoryDisk::new();
        let mut events = Events::open(options(&disk)).unwrap();
        let mut recorded = Vec::new();
        for step in 0..14 {
            let what = match dice.below(6) {
                0 => {
                    events.settle();
                    "settled"
                }
                1 => {
                    events.flush();
                    let before = disk.kill();
                    drop(std::mem::replace(&mut events, Events::open(options(&before)).unwrap()));
                    disk = before;
                    "killed"
                }
                2 => {
                    events.stop();
                    events = Events::open(options(&disk)).unwrap();
                    "stopped"
                }
                3 => {
                    import(&events, &mut recorded, &mut source, dice.below(60));
                    "imported"
                }
                _ => {
                    record(&events, &mut recorded, &mut source, dice.below(80));
                    "recorded"
                }
            };
            events.flush();
            if step % 4 == 3 {
                reader.check(&events, &recorded, &format!("seed {seed}, step {step}, {what}"));
            }
        }
        events.settle();
        reader.check(&events, &recorded, &format!("seed {seed}, at the end"));
        check_parts(&events, &recorded);
    }
}

/// A settled store has one part per roll-up, workspace and day.
fn check_parts(events: &Events, recorded: &[Event]) {
    let mut days = BTreeSet::new();
    for event in recorded {
        for level in [Level::Minute, Level::Hour, Level::Day, Level::Month, Level::Raw] {
            let day = match level {
                Level::Month => bucket(Level::Month, event.time()),
                _ => bucket(Level::Day, event.time()),
            };
            days.insert((event.family(), level, event.workspace(), day));
        }
    }
    assert_eq!(events.stats().parts, days.len() as u64);
    assert_eq!(events.stats().unsealed_rows, 0);
}

/// Imports events of both families, given to the store as a fresh store would export them.
fn import(events: &Events, recorded: &mut Vec<Event>, source: &mut Source, count: u64) {
    let elsewhere = Events::open(options(&MemoryDisk::new())).unwrap();
    record(&elsewhere, recorded, source, count);
    elsewhere.flush();
    for family in Family::ALL {
        let batches: Vec<RecordBatch> = elsewhere.export(family, None, None, None).collect::<io::Result<_>>().unwrap();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let imported = events.import(family, batches.into_iter().map(Ok::<_, io::Error>)).unwrap();
        assert_eq!(imported, rows as u64);
    }
}

/// A scenario with everything in it. Gives what was recorded, and how much of it a flush had returned for while the disk
/// still worked.
fn scenario(disk: &MemoryDisk) -> (Vec<Event>, usize) {
    let mut recorded = Vec::new();
    let mut source = Source::narrow(99);
    let Ok(events) = Events::open(options(disk)) else { return (recorded, 0) };
    let mut flushed = 0;
    for round in 0..3 {
        record(&events, &mut recorded, &mut source, 6);
        events.flush();
        if !disk.stopped() {
            flushed = recorded.len();
        }
        if round > 0 {
            events.settle();
        }
    }
    record(&events, &mut recorded, &mut source, 5);
    events.stop();
    if !disk.stopped() {
        flushed = recorded.len();
    }
    (recorded, flushed)
}

/// The events of these whose request ids are in the raw table.
pub(super) fn found_of(reader: &Reader, events: &Events, recorded: &[Event], what: &str) -> Vec<Event> {
    let raw = Table { family: Family::Verifications, level: Level::Raw };
    let ids: BTreeSet<String> =
        reader.all(events, raw, workspace(0), what).into_iter().map(|row| row[0].clone()).collect();
    recorded.iter().filter(|event| ids.contains(&raw_row(event)[0])).cloned().collect()
}

/// The program may be killed and the power may go at any change of the disk: no row is torn or doubled, roll-ups are those
/// of the rows that are there, what a kill cannot take is there, and the store goes on. (The threads' order differs from
/// run to run; the promise does not.)
#[test]
fn the_store_survives_an_end_at_every_change() {
    let reader = Reader::new();
    let whole = MemoryDisk::new();
    scenario(&whole);
    let changes = whole.sequence();
    assert!(changes > 100, "{changes}");
    for stop in 0..=changes {
        let disk = MemoryDisk::new();
        disk.stop_after(stop);
        let (recorded, flushed) = scenario(&disk);
        let killed = stop % 2 == 0;
        let after = if killed { disk.kill() } else { disk.crash(stop) };
        let what = format!("{} at change {stop}", if killed { "killed" } else { "power out" });
        let events = Events::open(options(&after)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let found = found_of(&reader, &events, &recorded, &what);
        if killed {
            let kept = found_of(&reader, &events, &recorded[..flushed], &what);
            assert_eq!(kept.len(), flushed, "{what}: what was flushed is there");
        }
        reader.check_narrow(&events, &found, &what);
        if stop % 3 == 0 {
            events.settle();
            reader.check_narrow(&events, &found, &format!("{what}, then settled"));
        }
    }
}

/// A call of the disk that fails once, whichever and whenever: nothing is lost, doubled or stuck.
#[test]
fn a_disk_that_fails_once_loses_nothing() {
    let reader = Reader::new();
    for call in [Call::Write, Call::Sync, Call::SyncDir, Call::Open, Call::Rename, Call::Remove] {
        for nth in [1, 2, 3, 7, 15, 31] {
            let disk = MemoryDisk::new();
            let what = format!("{call:?} number {nth} fails");
            let events = Events::open(options(&disk)).unwrap();
            let mut recorded = Vec::new();
            let mut source = Source::narrow(nth);
            disk.fail(call, nth, io::ErrorKind::StorageFull);
            for _ in 0..3 {
                record(&events, &mut recorded, &mut source, 6);
                events.settle();
            }
            disk.forgive();
            events.settle();
            reader.check_narrow(&events, &recorded, &what);
            assert_eq!(events.stats().dropped, 0);
            events.stop();
            let events = Events::open(options(&disk.kill())).unwrap();
            reader.check_narrow(&events, &recorded, &format!("{what}, then opened again"));
        }
    }
}

/// AN-PERM-04, AN-PERM-06, AN-RET-01, AN-TAB-08: a scan gives the scope's rows and no others, sealed or not.
#[test]
fn a_scan_never_leaves_its_scope() {
    let reader = Reader::new();
    let events = Events::open(options(&MemoryDisk::new())).unwrap();
    let mut recorded = Vec::new();
    let mut source = Source::new(5);
    record(&events, &mut recorded, &mut source, 300);
    events.settle();
    record(&events, &mut recorded, &mut source, 200);
    events.flush();
    let now = START + 30 * DAY + 12 * 3_600_000;
    for table in Table::all() {
        let space = table.columns().iter().position(|column| column.name == table.space_column()).unwrap();
        let time = table.columns().iter().position(|column| column.name == "time").unwrap();
        let everything = expected(table, &recorded, workspace(0));
        for days in [0, 1, 10, 29, 400] {
            let first = bucket(if table.level == Level::Raw { Level::Raw } else { Level::Day }, {
                if days == 0 { 0 } else { (now / DAY * DAY).saturating_sub(days * DAY) }
            });
            let visible = |row: &Row| match table.level {
                Level::Raw => row[time].parse::<u64>().unwrap() >= first.parse::<u64>().unwrap(),
                _ => row[time] >= first,
            };
            let id = match table.family {
                Family::Verifications => KeyspaceId(text(b's', 1)).to_string(),
                Family::Ratelimits => NamespaceId(text(b'n', 1)).to_string(),
            };
            for (spaces, holds) in [
                (Spaces::All, None),
                (Spaces::These(vec![]), Some("")),
                (Spaces::These(vec!["ks_stranger".into()]), Some("ks_stranger")),
                (Spaces::These(vec!["ks_stranger".into(), id.clone()]), Some(id.as_str())),
            ] {
                let scope = Scope {
                    workspace: workspace(0),
                    spaces,
                    now_ms: now,
                    retention_days: u32::try_from(days).unwrap(),
                };
                let mut found = reader.scan(&events, table, &scope);
                found.sort();
                let wanted = everything.iter().filter(|row| holds.is_none_or(|space_id| row[space] == space_id));
                let wanted: Vec<Row> = wanted.filter(|row| visible(row)).cloned().collect();
                assert_eq!(found, wanted, "{} with {scope:?}", table.name());
            }
        }
        let stranger = Scope { workspace: workspace(7), spaces: Spaces::All, now_ms: now, retention_days: 0 };
        assert!(reader.scan(&events, table, &stranger).is_empty());
    }
}
