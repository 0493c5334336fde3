//! One writer, many workspaces: who is served next, who is refused, and what is not begun any more.

mod harness;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use keyward_storage::disk::MemoryDisk;
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::ids::WorkspaceNo;
use keyward_storage::records::audit::AuditEvent;
use keyward_storage::records::key::{self, KeyDigest};
use keyward_storage::{Options, Spent, Storage, TransactError, Turn, Unavailable};

use harness::model::{Model, Plan};
use harness::{Answer, Plug, clock, flush, open, options, submit_in_turn, transact, wait};

/// Writes down who was served.
type Served = Arc<Mutex<Vec<&'static str>>>;

fn hand_in(storage: &Storage, turn: Turn, name: &'static str, served: &Served) -> Receiver<Answer<()>> {
    let served = Arc::clone(served);
    submit_in_turn(storage, turn, move |_| {
        served.lock().expect("no panic").push(name);
        Ok(())
    })
}

fn busy(answer: &Result<Answer<()>, std::sync::mpsc::TryRecvError>) -> bool {
    matches!(answer, Ok(Err(TransactError::Unavailable(Unavailable::Busy))))
}

/// A workspace that has handed in a thousand changes holds up nobody: another's change is next or next but one, what a
/// verification of its own waits for is, too, and the operator - who may be about to take its root key away - is first.
#[test]
fn a_burst_of_one_workspace_holds_up_nobody() {
    let storage = open(options(&MemoryDisk::new()));
    let served = Served::default();
    let plug = Plug::new(&storage);
    let mut told: Vec<_> = (0..1000).map(|_| hand_in(&storage, Turn::of(WorkspaceNo(1)), "burst", &served)).collect();
    told.push(hand_in(&storage, Turn::of(WorkspaceNo(2)), "other", &served));
    told.push(hand_in(&storage, Turn::of_verification(WorkspaceNo(1)), "verification", &served));
    told.push(hand_in(&storage, Turn::FIRST, "operator", &served));
    assert_eq!(storage.stats().waiting_work, 1003);
    drop(plug);
    for told in &told {
        wait(told).expect("applied");
    }
    assert_eq!(storage.stats().waiting_work, 0);
    let served = served.lock().expect("no panic");
    assert_eq!(served.len(), 1003);
    let mut first = served[..4].to_vec();
    assert_eq!(first[0], "operator");
    first.sort_unstable();
    assert_eq!(first, ["burst", "operator", "other", "verification"], "one turn each, before anybody's second");
}

/// A workspace that fills its part of the queue is refused; others, and the operator, are not. Room that was served is
/// free again.
#[test]
fn a_workspace_fills_its_own_part_of_the_queue_only() {
    let storage = open(options(&MemoryDisk::new()));
    let served = Served::default();
    let plug = Plug::new(&storage);
    let mut told = Vec::new();
    loop {
        let more = hand_in(&storage, Turn::of(WorkspaceNo(1)), "burst", &served);
        if busy(&more.try_recv()) {
            break;
        }
        told.push(more);
        assert!(told.len() < 1 << 20, "it has a bound");
    }
    for workspace in 2..100 {
        told.push(hand_in(&storage, Turn::of(WorkspaceNo(workspace)), "other", &served));
    }
    told.push(hand_in(&storage, Turn::FIRST, "operator", &served));
    drop(plug);
    for told in &told {
        wait(told).expect("applied");
    }
    wait(&hand_in(&storage, Turn::of(WorkspaceNo(1)), "burst", &served)).expect("applied");
}

/// What nobody waits for any more is not begun: it is told so, leaves nothing, and a spend is given back. What has begun
/// runs to its end, however late.
#[test]
fn what_is_late_is_not_begun() {
    let now = Arc::new(AtomicU64::new(1000));
    let disk = MemoryDisk::new();
    let storage = open(Options { strict_credits: true, clock: clock(&now), ..options(&disk) });
    let (mut dice, mut model) = (SplitMix(1), Model::default());
    let plan = Model::first_plan(&mut dice, WorkspaceNo(1), 10);
    plan.note(&mut model);
    transact(&storage, move |tx| plan.run(tx));
    let at = model.limited_keys()[0];
    let view = storage.read_key(at.0, &KeyDigest(model.keys[&at].hash)).expect("readable").expect("there");

    let plug = Plug::new(&storage);
    let plan = another(&mut dice, 2);
    let late = submit_in_turn(&storage, Turn::of(WorkspaceNo(1)).until(1999), move |tx| plan.run(tx));
    let plan = another(&mut dice, 2);
    plan.note(&mut model);
    let in_time = submit_in_turn(&storage, Turn::of(WorkspaceNo(1)).until(2000), move |tx| plan.run(tx));
    let Spent::Journal(pending) = storage.spend(&view, 4) else { panic!("it has to be journaled") };
    let (tell, spent) = channel();
    storage.journal_spend(pending, 1999, move |left| tell.send(left).expect("the test waits"));
    let running = Arc::clone(&now);
    let slow = submit_in_turn(&storage, Turn::of(WorkspaceNo(1)).until(2000), move |_| {
        running.store(5000, Ordering::SeqCst);
        Ok(())
    });
    now.store(2000, Ordering::SeqCst);
    drop(plug);
    let refused = wait(&late).expect_err("it is late");
    assert!(matches!(refused, TransactError::Unavailable(Unavailable::Late)), "{refused:?}");
    wait(&in_time).expect("applied");
    assert_eq!(wait(&spent), Err(Unavailable::Late));
    wait(&slow).expect("it had begun");
    assert_eq!(view.counters.balance(), 10, "given back");
    flush(&storage);
    let snapshot = storage.snapshot().expect("readable");
    model.check_rows(&snapshot, |expected, stored| expected.balance == stored);
    assert_eq!(key::credits(&snapshot, at.0, at.1).expect("readable").expect("limited").balance, 10);
}

fn another(dice: &mut SplitMix, no: u32) -> Plan {
    Model::first_plan(dice, WorkspaceNo(no), 10)
}

/// Changes that are large by themselves are all taken: a batch is closed before it cannot be written, and they go on in
/// the next one.
#[test]
fn large_changes_are_spread_over_batches() {
    const BYTES: usize = 10 << 20;
    let storage = open(Options { segment_bytes: 1 << 30, ..options(&MemoryDisk::new()) });
    let mut dice = SplitMix(1);
    let plan = another(&mut dice, 1);
    transact(&storage, move |tx| plan.run(tx));
    let syncs = storage.stats().syncs;
    let plug = Plug::new(&storage);
    let told: Vec<_> = (0..6)
        .map(|_| {
            let event = AuditEvent { description: "x".repeat(BYTES), ..another(&mut dice, 1).event };
            submit_in_turn(&storage, Turn::of(WorkspaceNo(1)), move |tx| {
                tx.audit(WorkspaceNo(1), event);
                Ok(())
            })
        })
        .collect();
    drop(plug);
    let positions: Vec<_> = told.iter().map(|told| wait(told).expect("applied").position).collect();
    assert!(positions.is_sorted(), "in the order they came");
    assert!(storage.stats().syncs - syncs > 1);
}
