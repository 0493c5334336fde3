//! Every way of tampering with a stopped store that we could think of is found, and named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::channel;

use super::*;
use crate::disk::MemoryDisk;
use crate::disk::memory::SplitMix;
use crate::ids::{CorrelationId, WorkspaceId};
use crate::records::audit::expire::BrokenFront;
use crate::records::audit::{Actor, AuditAnchor, AuditEvent, Target, chains, head};
use crate::records::workspace::{WorkspaceLimits, WorkspaceRow};
use crate::records::{AUDIT_ANCHOR, AUDIT_HEAD, Effect, TableNo};
use crate::store::Tables;
use crate::testing::id as letters;
use crate::{Abort, Options, Storage, Turn, Tx};

const DIR: &str = "/data";
const NO: WorkspaceNo = WorkspaceNo(1);
const OTHER: WorkspaceNo = WorkspaceNo(2);
/// Events of each chain before retention has been at work, beside the one that makes the workspace.
const EVENTS: u64 = 40;

fn options(disk: &MemoryDisk) -> Options {
    let fatal = Arc::new(|error: &crate::Fatal| panic!("the store gave up: {error:?}"));
    Options {
        redb_cache_bytes: 1 << 20,
        min_free_bytes: 0,
        ..Options::new(DIR, Arc::new(disk.clone()), Arc::new(|| 1_000_000), [7; 32], fatal)
    }
}

fn transact<R: Send + 'static>(
    storage: &Storage,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<()>> + Send + 'static,
) -> R {
    let (tell, told) = channel();
    storage.transact(Turn::FIRST, 1, run, move |fate| tell.send(fate).expect("the test waits"));
    told.recv().expect("an answer").expect("applied").value
}

/// The n-th event of a chain, made at n.
fn event(no: WorkspaceNo, n: u64) -> AuditEvent {
    let mut dice = SplitMix(n * 1000 + u64::from(no.0));
    let mut id = || IdText::draw(|| dice.draw() as u8);
    AuditEvent {
        id: EventId(id()),
        time: n,
        event: "key.update".into(),
        description: format!("Updated key {n}"),
        actor: Actor { kind: "rootkey".into(), id: "key_1".into(), name: "root key".into() },
        remote_ip: Some("203.0.113.7".into()),
        user_agent: Some("curl".into()),
        targets: vec![Target { kind: "key".into(), id: format!("key_{n}"), name: String::new(), meta: None }],
        correlation: Some(CorrelationId(id())),
    }
}

fn expire_through(
    tx: &mut Tx<'_>,
    no: WorkspaceNo,
    time: u64,
) -> Result<Result<Option<expire::Expired>, BrokenFront>, ReadError> {
    expire::expire(
        tx,
        no,
        |event| event.time <= time,
        |events, target| AuditEvent {
            event: expire::EVENT.into(),
            description: format!("Deleted {events} events"),
            targets: vec![target],
            ..event(no, 1000 + time)
        },
    )
}

/// A stopped store with two workspaces' chains and one of the operator's; retention has been at the first.
fn made() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let storage = Storage::open(options(&disk)).expect("it opens");
    for (no, name) in [(OPERATOR, 'o'), (NO, 'a'), (OTHER, 'b')] {
        transact(&storage, move |tx| {
            if no != OPERATOR {
                let row = WorkspaceRow {
                    id: WorkspaceId(letters(name)),
                    name: name.to_string(),
                    slug: None,
                    enabled: true,
                    created_at: 0,
                    deleted_at: None,
                    limits: WorkspaceLimits::default(),
                };
                workspace::put(tx, no, None, &row);
            }
            (0..=EVENTS).for_each(|n| tx.audit(no, event(no, n)));
            Ok(())
        });
    }
    let expired = transact(&storage, |tx| Ok(expire_through(tx, NO, 9)?));
    let expired = expired.expect("the chain holds").expect("there were old ones");
    assert_eq!((expired.events, expired.anchor.sequence, expired.more), (10, 10, false));
    storage.stop();
    disk
}

type Rows = BTreeMap<(TableNo, Vec<u8>), Vec<u8>>;

/// The audit tables of a store, to be edited, each row with a checksum that fits.
fn edit(disk: &MemoryDisk, change: impl FnOnce(&mut Rows)) {
    let (store, state) =
        crate::store::Store::open(disk, DIR.as_ref(), 1 << 20).expect("it opens").expect("it is there");
    let mut rows = Rows::new();
    let snapshot = store.snapshot().expect("readable");
    for table in [AUDIT, AUDIT_HEAD, AUDIT_ANCHOR] {
        snapshot
            .scan(table, |key, value| {
                rows.insert((table, key.to_vec()), value.to_vec());
            })
            .expect("whole");
    }
    drop(snapshot);
    let before = rows.clone();
    change(&mut rows);
    let gone = before.keys().filter(|key| !rows.contains_key(*key)).map(|key| (key, None));
    let put = rows.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(key, value)| (key, Some(value)));
    let txn = store.begin().expect("a batch");
    {
        let tables = Tables::new(&txn);
        for ((table, key), value) in gone.chain(put) {
            let effect = Effect { table: *table, key: key.clone(), value: value.cloned() };
            tables.apply(&effect).expect("applied");
        }
    }
    txn.commit().expect("committed");
    store.checkpoint(state).expect("durable");
}

fn place(no: WorkspaceNo, sequence: u64) -> (TableNo, Vec<u8>) {
    (AUDIT, row_key(no, &[&sequence.to_be_bytes()]))
}

fn head_place(no: WorkspaceNo) -> (TableNo, Vec<u8>) {
    (AUDIT_HEAD, row_key(no, &[]))
}

fn anchor_place(no: WorkspaceNo) -> (TableNo, Vec<u8>) {
    (AUDIT_ANCHOR, row_key(no, &[]))
}

/// Changes an event and leaves the chain as it is.
fn alter(rows: &mut Rows, sequence: u64, change: impl FnOnce(&mut AuditRow)) {
    let bytes = rows.get_mut(&place(NO, sequence)).expect("there");
    let mut row = AuditRow::from_bytes(bytes).expect("an event");
    change(&mut row);
    assert_ne!(row.to_bytes(), *bytes, "something changed");
    *bytes = row.to_bytes();
}

fn remove(rows: &mut Rows, sequence: u64) -> Vec<u8> {
    rows.remove(&place(NO, sequence)).expect("there")
}

/// Computes every hash from an event on anew, as somebody would who knows the layout, and gives the head.
fn rechain(rows: &mut Rows, from: u64) {
    let mut before = match rows.get(&place(NO, from - 1)) {
        Some(row) => hash(NO, from - 1, row),
        None => rows.get(&anchor_place(NO)).map_or([0; 32], |row| AuditAnchor::from_bytes(row).unwrap().hash),
    };
    let mut sequence = from;
    while let Some(bytes) = rows.get_mut(&place(NO, sequence)) {
        let row = AuditRow { previous: before, ..AuditRow::from_bytes(bytes).unwrap() };
        *bytes = row.to_bytes();
        before = hash(NO, sequence, bytes);
        sequence += 1;
    }
    rows.insert(head_place(NO), AuditHead { sequence: sequence - 1, hash: before }.to_bytes());
}

struct Case {
    what: &'static str,
    change: fn(&mut Rows),
    /// Found at this number, as this.
    found: (u64, &'static str),
    /// Whether it is found without a kept head.
    alone: bool,
}

const fn case(what: &'static str, found: (u64, &'static str), change: fn(&mut Rows)) -> Case {
    Case { what, change, found, alone: true }
}

/// Only heads that were kept elsewhere can tell: every hash was computed anew.
const fn rewritten(what: &'static str, found: (u64, &'static str), change: fn(&mut Rows)) -> Case {
    Case { what, change, found, alone: false }
}

/// The newest event: retention's own stands there.
const LAST: u64 = EVENTS + 2;

const CASES: &[Case] = &[
    case("the id is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.id = EventId(letters('x')))),
    case("the time is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.time += 1)),
    case("the name is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.event = "key.delete".into())),
    case("the description is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.description.push('!'))),
    case("the actor's kind is changed", (20, "changed"), |rows| {
        alter(rows, 20, |row| row.event.actor.kind = "user".into())
    }),
    case("the actor's id is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.actor.id.push('2'))),
    case("the actor's name is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.actor.name.clear())),
    case("the address is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.remote_ip = None)),
    case("the user agent is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.user_agent = None)),
    case("a target is added", (20, "changed"), |rows| {
        alter(rows, 20, |row| row.event.targets.push(row.event.targets[0].clone()));
    }),
    case("a target's id is changed", (20, "changed"), |rows| alter(rows, 20, |row| row.event.targets[0].id.push('0'))),
    case("a target's meta is added", (20, "changed"), |rows| {
        alter(rows, 20, |row| row.event.targets[0].meta = Some("{}".into()));
    }),
    case("the correlation is taken away", (20, "changed"), |rows| alter(rows, 20, |row| row.event.correlation = None)),
    case("the link to the event before is changed", (20, "changed"), |rows| {
        alter(rows, 20, |row| row.previous[0] ^= 1)
    }),
    case("the first event's link is changed", (11, "beginning"), |rows| alter(rows, 11, |row| row.previous[31] ^= 1)),
    case("the newest event is changed", (LAST, "head_differs"), |rows| alter(rows, LAST, |row| row.event.time += 1)),
    case("an event's layout is one we do not know", (20, "no_event"), |rows| {
        rows.get_mut(&place(NO, 20)).unwrap()[0] = 9;
    }),
    case("the first event is removed", (11, "missing"), |rows| drop(remove(rows, 11))),
    case("an event in the middle is removed", (20, "missing"), |rows| drop(remove(rows, 20))),
    case("some events in the middle are removed", (20, "missing"), |rows| {
        (20..25).for_each(|at| drop(remove(rows, at)))
    }),
    case("the newest event is removed", (LAST, "cut_off"), |rows| drop(remove(rows, LAST))),
    case("an event is removed and the others close up", (20, "changed"), |rows| {
        for at in 20..LAST {
            let next = remove(rows, at + 1);
            rows.insert(place(NO, at), next);
        }
    }),
    case("two neighbours change places", (20, "moved"), |rows| {
        let (one, other) = (remove(rows, 20), remove(rows, 21));
        rows.extend([(place(NO, 20), other), (place(NO, 21), one)]);
    }),
    case("two distant events change places", (31, "moved"), |rows| {
        let (one, other) = (remove(rows, 20), remove(rows, 31));
        rows.extend([(place(NO, 20), other), (place(NO, 31), one)]);
    }),
    case("an event stands in another's place as well", (20, "moved"), |rows| {
        let copy = rows[&place(NO, 30)].clone();
        rows.insert(place(NO, 20), copy);
        alter(rows, 30, |row| row.event.time += 1);
    }),
    case("an event is repeated behind the newest", (LAST + 1, "behind_head"), |rows| {
        let copy = rows[&place(NO, LAST)].clone();
        rows.insert(place(NO, LAST + 1), copy);
    }),
    case("a forged event follows the newest, chained", (LAST + 1, "behind_head"), |rows| {
        let previous = hash(NO, LAST, &rows[&place(NO, LAST)]);
        rows.insert(place(NO, LAST + 1), AuditRow { previous, event: event(NO, 77) }.to_bytes());
    }),
    case("a forged event replaces one, chained to the one before", (20, "changed"), |rows| {
        let previous = hash(NO, 19, &rows[&place(NO, 19)]);
        rows.insert(place(NO, 20), AuditRow { previous, event: event(NO, 77) }.to_bytes());
    }),
    case("a deleted event comes back", (10, "before_anchor"), |rows| {
        rows.insert(place(NO, 10), AuditRow { previous: [0; 32], event: event(NO, 9) }.to_bytes());
    }),
    case("an event comes from another workspace", (20, "changed"), |rows| {
        let foreign = rows[&place(OTHER, 20)].clone();
        rows.insert(place(NO, 20), foreign);
    }),
    case("a row with a strange key lies between", (21, "no_event"), |rows| {
        let copy = rows[&place(NO, 20)].clone();
        let (table, mut key) = place(NO, 20);
        key.push(0);
        rows.insert((table, key), copy);
    }),
    case("the head is behind", (LAST, "behind_head"), |rows| {
        let hash = hash(NO, LAST - 1, &rows[&place(NO, LAST - 1)]);
        rows.insert(head_place(NO), AuditHead { sequence: LAST - 1, hash }.to_bytes());
    }),
    case("the head is ahead", (LAST + 1, "cut_off"), |rows| {
        rows.insert(head_place(NO), AuditHead { sequence: LAST + 3, hash: [1; 32] }.to_bytes());
    }),
    case("the head's hash is changed", (LAST, "head_differs"), |rows| {
        rows.insert(head_place(NO), AuditHead { sequence: LAST, hash: [1; 32] }.to_bytes());
    }),
    case("the head is removed", (LAST, "head_missing"), |rows| drop(rows.remove(&head_place(NO)))),
    case("the anchor's hash is changed", (11, "beginning"), |rows| {
        rows.insert(anchor_place(NO), AuditAnchor { sequence: 10, hash: [1; 32] }.to_bytes());
    }),
    case("the anchor is removed", (1, "missing"), |rows| drop(rows.remove(&anchor_place(NO)))),
    case("the front is removed and the anchor moved with it", (15, "anchor_differs"), |rows| {
        let hash = hash(NO, 15, &rows[&place(NO, 15)]);
        (11..=15).for_each(|at| drop(remove(rows, at)));
        rows.insert(anchor_place(NO), AuditAnchor { sequence: 15, hash }.to_bytes());
    }),
    case("the whole chain is removed", (0, "head_missing"), |rows| {
        rows.retain(|(_, key), _| !key.starts_with(&NO.0.to_be_bytes()));
    }),
    case("the chain of a workspace is given to another that is not there", (0, "no_workspace"), |rows| {
        let (no, key) = (WorkspaceNo(9), place(NO, 20));
        let row = rows[&key].clone();
        rows.insert((AUDIT, row_key(no, &[&1_u64.to_be_bytes()])), row);
    }),
    rewritten("an event is changed and all hashes computed anew", (30, "kept_differs"), |rows| {
        alter(rows, 20, |row| row.event.description.push('!'));
        rechain(rows, 20);
    }),
    rewritten("an event is removed, the others close up, all hashes anew", (30, "kept_differs"), |rows| {
        for at in 20..LAST {
            let next = remove(rows, at + 1);
            rows.insert(place(NO, at), next);
        }
        rechain(rows, 20);
    }),
    rewritten("an event is inserted and all hashes computed anew", (30, "kept_differs"), |rows| {
        for at in (20..=LAST).rev() {
            let row = remove(rows, at);
            rows.insert(place(NO, at + 1), row);
        }
        rows.insert(place(NO, 20), AuditRow { previous: [0; 32], event: event(NO, 77) }.to_bytes());
        rechain(rows, 20);
    }),
    rewritten("the tail is cut off with a head that fits", (30, "kept_missing"), |rows| {
        (29..=LAST).for_each(|at| drop(remove(rows, at)));
        // Retention's own event was in the tail, so the front cannot have been cut: it has to look as if it never was.
        rows.remove(&anchor_place(NO));
        for at in 11..=28 {
            let row = remove(rows, at);
            rows.insert(place(NO, at - 10), row);
        }
        rechain(rows, 1);
    }),
];

fn found(storage: &Storage, kept: &[(WorkspaceNo, ChainPoint)]) -> Vec<(WorkspaceNo, Finding)> {
    let mut all = Vec::new();
    for no in chains(&storage.snapshot().expect("readable")).expect("readable") {
        let kept: Vec<ChainPoint> = kept.iter().filter(|(of, _)| *of == no).map(|(_, point)| *point).collect();
        let verified = verify(&|| storage.snapshot(), no, &kept, &mut |_| {}).expect("readable");
        assert_eq!(verified.more, 0);
        all.extend(verified.findings.into_iter().map(|finding| (no, finding)));
    }
    all
}

/// AL-EV-06: each kind of tampering is found and named by the number of the event; the untouched chains beside it are whole,
/// and an untouched store is whole altogether. What was computed anew is found by a kept head, and by nothing else.
#[test]
fn every_kind_of_tampering_is_found() {
    assert!(CASES.len() >= 20);
    let disk = made();
    let storage = Storage::open(options(&disk)).expect("it opens");
    let snapshot = storage.snapshot().expect("readable");
    let at = |no, sequence: u64| {
        let row = snapshot.bytes(AUDIT, &row_key(no, &[&sequence.to_be_bytes()])).unwrap().unwrap();
        (no, ChainPoint { sequence, hash: hash(no, sequence, &row) })
    };
    let heads = [OPERATOR, NO, OTHER].map(|no| {
        let head = head(&snapshot, no).unwrap();
        (no, ChainPoint { sequence: head.sequence, hash: head.hash })
    });
    let kept = [&heads[..], &[at(NO, 30), at(OTHER, 1), (NO, anchor(&snapshot, NO).unwrap())]].concat();
    assert_eq!(found(&storage, &kept), [], "an untouched store");
    let whole =
        verify(&|| storage.snapshot(), NO, &[at(NO, 30).1, ChainPoint { sequence: 3, hash: [3; 32] }], &mut |_| {});
    let whole = whole.unwrap();
    assert_eq!((whole.events, whole.head, whole.kept_met, whole.kept_expired), (LAST - 10, Some(heads[1].1), 1, 1));
    drop(snapshot);
    storage.stop();
    drop(storage);

    for Case { what, change, found: (sequence, kind), alone } in CASES {
        let disk = made();
        edit(&disk, change);
        let storage = Storage::open(options(&disk)).expect("it opens");
        let (without, with) = (found(&storage, &[]), found(&storage, &kept));
        let names = |findings: &[(WorkspaceNo, Finding)]| {
            findings.iter().any(|(_, finding)| finding.sequence == *sequence && finding.fault.kind() == *kind)
        };
        assert!(names(&with), "{what}: {with:?}");
        assert_eq!(names(&without), *alone, "{what}: {without:?}");
        assert!(*alone || without.is_empty(), "{what}: {without:?}");
        assert!(
            with.iter().all(|(no, _)| *no == NO || *no == WorkspaceNo(9)),
            "{what}: the others are whole: {with:?}"
        );
        if matches!(*kind, "changed" | "moved") {
            let named = with.iter().find(|(_, finding)| finding.sequence == *sequence).map(|(_, finding)| finding);
            assert!(named.is_some_and(|finding| finding.event.is_some()), "{what}: the event is named");
        }
    }
}

/// AL-STORE-04: a chain whose front was tampered with loses nothing to retention, or the evidence would go; a whole one loses
/// whole events at its front, and goes on to be whole with every head that was kept meanwhile. What was deleted is told of
/// once, and telling is not told of again for ever.
#[test]
fn retention_keeps_the_chain_whole_and_the_evidence_there() {
    let disk = made();
    let storage = Storage::open(options(&disk)).expect("it opens");
    let mut kept = Vec::new();
    for time in [9, 10, 25, 39, EVENTS, 100] {
        let head = head(&storage.snapshot().unwrap(), NO).unwrap();
        kept.push((NO, ChainPoint { sequence: head.sequence, hash: head.hash }));
        let expired = transact(&storage, move |tx| Ok(expire_through(tx, NO, time)?)).expect("the chain holds");
        assert_eq!(expired.is_some(), time != 9 && time != 100, "through {time}");
        let left = super::super::list(&storage.snapshot().unwrap(), NO, 0, usize::MAX).unwrap();
        assert!(left.iter().all(|(_, row)| row.event.time > time), "nothing old is left through {time}");
        assert_eq!(
            left.iter().filter(|(_, row)| row.event.event != expire::EVENT).count() as u64,
            EVENTS.saturating_sub(time)
        );
        assert_eq!(found(&storage, &kept), [], "through {time}");
    }
    // Everything is old, and only tells of deletions: that is left alone but for once.
    let first = transact(&storage, |tx| Ok(expire_through(tx, NO, u64::MAX)?)).expect("the chain holds");
    assert_eq!(first, None);
    storage.stop();
    drop(storage);

    let disk = made();
    edit(&disk, |rows| alter(rows, 12, |row| row.event.time = 0));
    let storage = Storage::open(options(&disk)).expect("it opens");
    let refused = transact(&storage, |tx| Ok(expire_through(tx, NO, 30)?));
    assert_eq!(refused, Err(BrokenFront { sequence: 13 }));
    assert_eq!(super::super::list(&storage.snapshot().unwrap(), NO, 0, 1).unwrap()[0].0, 11, "nothing went");
}

/// A damaged row is a finding, and the rest is verified all the same; a chain longer than a batch is one chain.
#[test]
fn damage_and_batches_do_not_end_a_verification() {
    let disk = MemoryDisk::new();
    let storage = Storage::open(options(&disk)).expect("it opens");
    let most = BATCH as u64 + 10;
    transact(&storage, move |tx| {
        (1..=most).for_each(|n| tx.audit(OPERATOR, event(OPERATOR, n)));
        Ok(())
    });
    let mut seen = 0;
    let verified = verify(&|| storage.snapshot(), OPERATOR, &[], &mut |more| seen += more).expect("readable");
    assert!(verified.is_whole(), "{verified:?}");
    assert_eq!((verified.events, seen), (most, most));

    let mut walk = Walk::new(NO, ChainPoint::START, Vec::new());
    let row = |previous, n| AuditRow { previous, event: event(NO, n) }.to_bytes();
    let first = row([0; 32], 1);
    walk.row(&1_u64.to_be_bytes(), Some(&first));
    walk.row(&2_u64.to_be_bytes(), None);
    walk.row(&3_u64.to_be_bytes(), Some(&row([9; 32], 3)));
    let last = walk.before.unwrap().point;
    let done = walk.end(Some(last), ChainPoint::START);
    assert_eq!(done.findings, [Finding { sequence: 2, event: None, fault: Fault::Damaged }]);
}
