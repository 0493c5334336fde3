//! The vault on a store in memory, cut off wherever a rotation can be.

use std::io;
use std::path::Path;

use keyward_storage::disk::MemoryDisk;
use keyward_storage::ids::ApiId;
use keyward_storage::records::audit;
use keyward_storage::records::key::{self, KeyRow};
use keyward_storage::{Abort, Snapshot, Turn};

use super::rotate::{NotRotated, Progress, rotate};
use super::*;
use crate::app::{Services, open_storage};
use crate::config::{Secret, Settings};
use crate::outside::{Clock, Outside};
use crate::tenants::{self, By};

const NOW: u64 = 1_795_256_643_000;
const OLD: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const NEW: &str = "CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=";
/// Some batches of a rotation.
const COPIES: usize = 50;

type Made = (Owner, Vec<(KeyId, String)>);

/// A store on this disk, with these master keys.
fn open(disk: MemoryDisk, master_keys: &str) -> Services {
    let master_key = (!master_keys.is_empty()).then(|| Secret::new(master_keys));
    let secrets = SecretSources { master_key, ..SecretSources::default() };
    let settings = Settings { data_dir: Path::new("/data").to_owned(), ..Settings::default() };
    // The system's randomness: a seed would give ids and nonces again that an earlier life of the store has drawn.
    let outside = Outside { clock: Clock::fixed(NOW), entropy: Entropy::system() };
    let vault = Arc::new(Vault::open(&secrets, &settings.data_dir).expect("legal"));
    let storage = open_storage(&settings, Arc::new(disk), &outside, &Default::default()).expect("opened");
    Services::of_records(storage, outside, vault)
}

/// Stops a store, and frees its disk.
fn close(services: Services) {
    services.shutdown();
}

fn by(services: &Services) -> By {
    By::new(tenants::system_actor("uid:1000", "ada"), NOW, &services.outside.entropy)
}

fn transact<R: Send + 'static>(
    services: &Services,
    run: impl FnOnce(&mut Tx<'_>) -> Result<R, Abort<NotSealed>> + Send + 'static,
) -> R {
    services.transact_blocking(Turn::FIRST, NOW, run).expect("taken").value
}

fn workspace(services: &Services) -> Owner {
    let (id, by) = (WorkspaceId(draw_id(&services.outside.entropy)), by(services));
    let no = transact(services, move |tx| Ok(tenants::create_workspace(tx, id, "a workspace", None, &by)?));
    Owner { no, id }
}

fn recoverable_key(services: &Services, owner: Owner) -> (KeyId, String) {
    let (vault, entropy) = (Arc::clone(&services.vault), services.outside.entropy.clone());
    let id = KeyId(draw_id(&entropy));
    let plaintext = format!("plaintext_of_{id}");
    let sealed = plaintext.clone();
    let row = KeyRow {
        hash: crate::secret::digest(&plaintext).0,
        api: ApiId(draw_id(&entropy)),
        start: String::new(),
        name: None,
        meta: None,
        identity: None,
        expires: None,
        enabled: true,
        limited: false,
        refill: None,
        ratelimits: Vec::new(),
        permissions: Vec::new(),
        roles: Vec::new(),
        created_at: NOW,
        updated_at: None,
        deleted_at: None,
    };
    transact(services, move |tx| {
        key::insert(tx, owner.no, id, &row)?;
        vault.seal(tx, owner, id, &sealed, (&entropy, NOW)).map_err(Abort::Refused)
    });
    (id, plaintext)
}

fn snapshot(services: &Services) -> Snapshot {
    services.storage.snapshot().expect("readable")
}

fn revealed(services: &Services, owner: Owner, key: KeyId) -> Option<String> {
    services.vault.reveal(&snapshot(services), owner, key).expect("readable").map(|text| text.to_string())
}

fn all_are_revealed(services: &Services, made: &[Made]) {
    for (owner, keys) in made {
        for (id, plaintext) in keys {
            assert_eq!(revealed(services, *owner, *id).as_ref(), Some(plaintext), "{id}");
        }
    }
}

fn never(_: &Progress) -> io::Result<()> {
    Ok(())
}

fn rotations_told(services: &Services, owner: Owner) -> usize {
    let events = audit::list(&snapshot(services), owner.no, 0, usize::MAX).expect("readable");
    events.iter().filter(|(_, row)| row.event.event == "vault.rotate").count()
}

/// Two workspaces with recoverable keys under the old master key, the second one deleted since.
fn filled() -> (MemoryDisk, Vec<Made>) {
    let disk = MemoryDisk::new();
    let services = open(disk.clone(), OLD);
    let owners = [workspace(&services), workspace(&services), workspace(&services)];
    let made: Vec<Made> = owners[..2]
        .iter()
        .map(|owner| (*owner, (0..COPIES).map(|_| recoverable_key(&services, *owner)).collect()))
        .collect();
    let (gone, by) = (owners[1].no, by(&services));
    transact(&services, move |tx| {
        if let Some(row) = workspace_row(tx, gone)? {
            tenants::delete_workspace(tx, gone, &row, &by);
        }
        Ok(())
    });
    close(services);
    (disk, made)
}

fn workspace_row(
    tx: &Tx<'_>,
    no: WorkspaceNo,
) -> Result<Option<keyward_storage::records::workspace::WorkspaceRow>, ReadError> {
    keyward_storage::records::workspace::get(tx, no)
}

/// HASH-6, EXT-6: a rotation that is killed after any of its transactions leaves every copy readable, takes new ones, and goes on
/// where it was; in the end the new master key alone opens all, each workspace has one data key, and one event tells of it.
#[test]
fn a_rotation_that_is_killed_anywhere_goes_on() {
    let (disk, made) = filled();
    let both = format!("{NEW},{OLD}");
    let mut interrupted = 0;
    for steps in 0.. {
        let mut made = made.clone();
        let cut = disk.kill();
        let services = open(cut.clone(), &both);
        let mut told = 0;
        let outcome = rotate(&services, &by(&services), &mut |_| {
            told += 1;
            if told > steps { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
        });
        let ended = outcome.is_ok();
        if !ended {
            assert!(matches!(outcome, Err(NotRotated::Unwatched(_))), "{outcome:?}");
            interrupted += 1;
        }
        // As it is on the disk at this very moment; what the process still had in memory is lost.
        let killed = cut.kill();
        close(services);

        let services = open(killed.clone(), &both);
        all_are_revealed(&services, &made);
        let owner = made[0].0;
        made[0].1.push(recoverable_key(&services, owner));
        let (gone, _) = made[0].1.remove(0);
        transact(&services, move |tx| {
            let row = key::get(tx, owner.no, gone)?.expect("it is there");
            key::purge(tx, owner.no, gone, &row)?;
            Ok(())
        });
        assert_eq!(revealed(&services, owner, gone), None, "HASH-8");
        let progress = rotate(&services, &by(&services), &mut never).expect("to its end");
        assert_eq!((progress.unopened, progress.lost_data_keys), (0, 0));
        assert_eq!(progress.resumed, !ended);
        close(services);

        let services = open(killed.kill(), NEW);
        all_are_revealed(&services, &made);
        let census = services.vault.census(&snapshot(&services)).expect("readable");
        assert_eq!(census.copies(), 2 * COPIES as u64);
        assert_eq!(census.data_keys.len(), 2, "older data keys are gone: {census:?}");
        assert!(census.data_keys.iter().all(|key| key.is_current && key.copies == COPIES as u64), "{census:?}");
        let rotations = if ended { 2 } else { 1 };
        assert_eq!(census.rotation.as_ref().map(|row| (row.number, row.ended_at)), Some((rotations, Some(NOW))));
        for (owner, _) in &made {
            assert_eq!(rotations_told(&services, *owner) as u64, rotations, "once for each rotation");
        }
        close(services);
        if ended {
            break;
        }
    }
    assert!(interrupted > 10, "only {interrupted} places to interrupt it");
}

/// EXT-6: as soon as data keys are wrapped, before any copy is moved, the old master key is needed no more.
#[test]
fn the_old_master_key_is_removable_early() {
    let (disk, made) = filled();
    let services = open(disk.clone(), &format!("{NEW}\n{OLD}"));
    let census = services.vault.census(&snapshot(&services)).expect("readable");
    assert!(!census.masters[1].is_removable() && census.masters[1].copies == 2 * COPIES as u64, "{census:?}");
    let outcome = rotate(&services, &by(&services), &mut |progress| {
        if progress.wrapped > 0 { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    assert!(matches!(outcome, Err(NotRotated::Unwatched(_))));
    let census = services.vault.census(&snapshot(&services)).expect("readable");
    assert!(census.masters[1].is_removable() && !census.masters[0].is_removable(), "{census:?}");
    close(services);
    let services = open(disk.kill(), NEW);
    all_are_revealed(&services, &made);
    close(services);
}

/// EXT-6, KEYS-GET-3: a lost master key costs the plaintexts under it and nothing else. New copies go under a data key of the
/// key that is there, a rotation leaves the lost ones as they are, and they can be read when the key is found again.
#[test]
fn a_lost_master_key_costs_plaintexts_alone() {
    let (disk, made) = filled();
    let (owner, keys) = &made[0];
    let services = open(disk.clone(), "");
    assert!(!services.vault.is_set_up());
    assert_eq!(revealed(&services, *owner, keys[0].0), None);
    assert_eq!(services.vault.failures(), 1);
    assert!(matches!(rotate(&services, &by(&services), &mut never), Err(NotRotated::NoMasterKey)));
    close(services);

    let services = open(disk.clone(), NEW);
    let later = recoverable_key(&services, *owner);
    assert_eq!(revealed(&services, *owner, later.0).as_ref(), Some(&later.1));
    assert_eq!(revealed(&services, *owner, keys[0].0), None);
    let progress = rotate(&services, &by(&services), &mut never).expect("what can be done is done");
    assert_eq!((progress.unopened, progress.lost_data_keys, progress.moved), (2 * COPIES as u64, 2, 1));
    let census = services.vault.census(&snapshot(&services)).expect("readable");
    let lost = &census.masters[1];
    assert_eq!((lost.is_configured, lost.data_keys, lost.copies), (false, 2, 2 * COPIES as u64), "{census:?}");
    close(services);

    let services = open(disk.clone(), &format!("{NEW},{OLD}"));
    all_are_revealed(&services, &made);
    let progress = rotate(&services, &by(&services), &mut never).expect("to its end");
    assert_eq!((progress.unopened, progress.moved), (0, 2 * COPIES as u64 + 1));
    close(services);
    let services = open(disk, NEW);
    all_are_revealed(&services, &made);
    assert_eq!(revealed(&services, *owner, later.0), Some(later.1));
    close(services);
}

/// HASH-6: a copy that is put beside another key, and a data key that is put into another workspace, open nothing.
#[test]
fn moved_rows_do_not_open() {
    let (disk, made) = filled();
    let services = open(disk, OLD);
    let ((one, keys), (other, others)) = (&made[0], &made[1]);
    let (one, other, from, to, into) = (*one, *other, keys[0].0, keys[1].0, others[0].0);
    transact(&services, move |tx| {
        let copy = rows::copy(tx, one.no, from)?.expect("it is there");
        rows::put_copy(tx, one.no, to, &copy);
        rows::put_copy(tx, other.no, into, &copy);
        let keyring = rows::keyring(tx, one.no)?.expect("it is there");
        let data_key = rows::data_key(tx, one.no, keyring.current)?.expect("it is there");
        rows::put_data_key(tx, other.no, keyring.current, &data_key);
        Ok(())
    });
    assert_eq!(revealed(&services, one, from).as_ref(), Some(&keys[0].1));
    assert_eq!(revealed(&services, one, to), None);
    assert_eq!(revealed(&services, other, into), None);
    assert_eq!(services.vault.failures(), 2);
    close(services);
}

/// Unwrapped data keys are bounded.
#[test]
fn few_data_keys_are_kept() {
    let mut unwrapped = Unwrapped::default();
    let cipher = Arc::new(Cipher::new(&SymmetricKey::from_bytes(&[1; 32]).expect("32 bytes")));
    let id = DataKeyId(draw_id(&Entropy::seeded(1)));
    let count = u32::try_from(UNWRAPPED_MAX).expect("small") + 10;
    (0..count).for_each(|no| unwrapped.put((WorkspaceNo(no), id), Arc::clone(&cipher)));
    unwrapped.put((WorkspaceNo(count - 1), id), cipher);
    assert_eq!((unwrapped.ciphers.len(), unwrapped.order.len()), (UNWRAPPED_MAX, UNWRAPPED_MAX));
    assert!(unwrapped.get((WorkspaceNo(9), id)).is_none() && unwrapped.get((WorkspaceNo(10), id)).is_some());
    unwrapped.forget((WorkspaceNo(10), id));
    assert_eq!((unwrapped.ciphers.len(), unwrapped.order.len()), (UNWRAPPED_MAX - 1, UNWRAPPED_MAX - 1));
}
