//! A key gets its own hash in the very batch in which other things happen to it.

mod harness;

use keyward_storage::disk::MemoryDisk;
use keyward_storage::disk::memory::SplitMix;
use keyward_storage::ids::{KeyId, MigrationId, WorkspaceNo};
use keyward_storage::records::key::{self, KeyDigest, KeyRow};
use keyward_storage::records::migration;
use keyward_storage::{Abort, Change, Lookup, Spent};

use harness::model::{Model, Op, Plan};
use harness::{Plug, flush, hash, open, options, submit, transact, wait};

/// KEYS-MIGRATE-13, KEYS-CREDIT-4: spends that are in no row yet are seen by a change of the credits that follows the adoption in
/// its batch; there is one purse before, during and after it, whichever view one holds.
#[test]
fn an_adoption_takes_the_purse_along() {
    let storage = open(options(&MemoryDisk::new()));
    let (mut dice, no) = (SplitMix(7), WorkspaceNo(1));
    let mut plan = Model::first_plan(&mut dice, no, 20);
    let Some(Op::NewKey(at, row, credits)) = plan.ops.pop() else { panic!("the last change is a key") };
    let (foreign, native, id): (_, _, KeyId) = (row.hash, hash(&mut dice), at.1);
    plan.ops.push(Op::PendingKey(at, row, credits, MigrationId(harness::id(&mut dice))));
    transact(&storage, move |tx| plan.run(tx));
    let seen = storage
        .read_key(no, &KeyDigest(foreign))
        .expect("readable")
        .expect("pending keys are found by what they came with");

    let plug = Plug::new(&storage);
    assert_eq!(storage.spend(&seen, 3), Spent::Taken(17), "nobody can write it down now");
    let plan = Plan::new(&mut dice, no, vec![Op::Adopt(at, native)]);
    let adopted = submit(&storage, move |tx| plan.run(tx));
    let raised = submit(&storage, move |tx| {
        let row = key::get(tx, no, id)?.ok_or(Abort::Refused("no key"))?;
        tx.change_credits(no, id, &row, Change::Add(1000), None)?.map_err(|_| Abort::Refused("too many"))
    });
    drop(plug);
    wait(&adopted).expect("applied");
    let raised = wait(&raised).expect("applied");
    assert_eq!((raised.value, raised.balance), (1017, Some(1017)), "the spend is in no row yet");

    assert!(!matches!(storage.key(no, &KeyDigest(foreign)), Lookup::Hot(_)));
    assert!(storage.read_key(no, &KeyDigest(foreign)).expect("readable").is_none(), "an alias is no way to a view");
    let own = storage.read_key(no, &KeyDigest(native)).expect("readable").expect("it is its own");
    assert_eq!(storage.spend(&seen, 7), Spent::Taken(1010), "whoever holds the old view");
    assert_eq!(storage.spend(&own, 10), Spent::Taken(1000), "spends from the same purse");
    let by_id = storage.read_key_by_id(no, id).expect("readable").expect("there");
    assert_eq!((by_id.id, by_id.counters.balance()), (id, 1000));
    flush(&storage);
    let snapshot = storage.snapshot().expect("readable");
    assert_eq!(key::credits(&snapshot, no, id).expect("readable").expect("limited").balance, 1000);
    assert_eq!(key::find(&snapshot, no, &KeyDigest(foreign)).expect("readable"), Some(id), "KEYS-MIGRATE-15");

    // Gone for good, both hashes are free.
    transact(&storage, move |tx| -> Result<(), Abort<&'static str>> {
        let row: KeyRow = key::get(tx, no, id)?.ok_or(Abort::Refused("no key"))?;
        assert!(migration::of_key(tx, no, id)?.is_some_and(|came| !came.pending));
        key::purge(tx, no, id, &row)?;
        assert_eq!(
            (key::find(tx, no, &KeyDigest(foreign))?, key::find(tx, no, &KeyDigest(native))?),
            (None, None),
            "KEYS-DELETE-3"
        );
        Ok(())
    });
    for hash in [foreign, native] {
        assert!(storage.read_key(no, &KeyDigest(hash)).expect("readable").is_none());
    }
    assert!(storage.read_key_by_id(no, id).expect("readable").is_none());
}
