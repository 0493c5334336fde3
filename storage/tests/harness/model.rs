//! What a store should hold, in plain maps, and the changes one can make to both.

use std::collections::{BTreeMap, BTreeSet};

use keyward_storage::disk::memory::SplitMix;
use keyward_storage::ids::{
    ApiId, EventId, IdText, IdentityId, KeyId, KeyspaceId, MigrationId, NamespaceId, OverrideId, PermissionId,
    RatelimitId, RoleId, WorkspaceId, WorkspaceNo,
};
use keyward_storage::records::api::{self, ApiRow};
use keyward_storage::records::audit::{self, Actor, AuditEvent, Target};
use keyward_storage::records::identity::{self, IdentityRow};
use keyward_storage::records::key::{self, KeyDigest, KeyHash, KeyRow, KeyView, Ratelimit};
use keyward_storage::records::migration::{self, MigratedKeyRow};
use keyward_storage::records::ratelimit::{self, NamespaceRow, OverrideRow};
use keyward_storage::records::role::{self, PermissionRow, PermissionView, RoleRow};
use keyward_storage::records::root_key::{self, RootKeyRow};
use keyward_storage::records::workspace::{self, WorkspaceLimits, WorkspaceRow};
use keyward_storage::records::{self, Row};
use keyward_storage::{Abort, Change, Lookup, Snapshot, Storage, Tx};

use super::{hash, id};

/// A resource of a workspace.
pub type In<I> = (WorkspaceNo, I);

/// Credits as they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Credits {
    pub generation: u64,
    pub balance: u64,
    /// Spent since the balance was last known to be in the log: a crash may give back so many.
    pub unjournaled: u64,
    /// May or may not be left of a key that nobody can look up any more, since spends raced its last changes.
    pub in_doubt: u64,
}

/// All records, and nothing but.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub workspaces: BTreeMap<WorkspaceNo, WorkspaceRow>,
    pub apis: BTreeMap<In<ApiId>, ApiRow>,
    pub keys: BTreeMap<In<KeyId>, KeyRow>,
    pub credits: BTreeMap<In<KeyId>, Credits>,
    pub last_used: BTreeMap<In<KeyId>, u64>,
    /// How keys came that came with a foreign hash.
    pub migrated: BTreeMap<In<KeyId>, MigratedKeyRow>,
    pub identities: BTreeMap<In<IdentityId>, IdentityRow>,
    pub permissions: BTreeMap<In<PermissionId>, PermissionRow>,
    pub roles: BTreeMap<In<RoleId>, RoleRow>,
    pub namespaces: BTreeMap<In<NamespaceId>, NamespaceRow>,
    pub overrides: BTreeMap<(WorkspaceNo, NamespaceId, String), OverrideRow>,
    pub root_keys: BTreeMap<KeyId, RootKeyRow>,
    pub audit: BTreeMap<WorkspaceNo, Vec<AuditEvent>>,
    /// Every hash there ever was, and some there never were.
    pub hashes: BTreeSet<In<KeyHash>>,
    pub root_hashes: BTreeSet<KeyHash>,
}

/// One change, to be made to the store and to the model.
#[derive(Debug, Clone)]
pub enum Op {
    Workspace(WorkspaceNo, WorkspaceRow),
    Api(In<ApiId>, ApiRow),
    NewKey(In<KeyId>, Box<KeyRow>, Option<u64>),
    /// With a foreign hash, pending in a migration.
    PendingKey(In<KeyId>, Box<KeyRow>, Option<u64>, MigrationId),
    /// A pending key is presented and gets its own hash.
    Adopt(In<KeyId>, KeyHash),
    Key(In<KeyId>, Box<KeyRow>),
    SoftDelete(In<KeyId>),
    Purge(In<KeyId>),
    Credits(In<KeyId>, Change),
    Limit(In<KeyId>, Option<u64>),
    Identity(In<IdentityId>, IdentityRow),
    NewPermission(In<PermissionId>, PermissionRow),
    DeletePermission(In<PermissionId>),
    Role(In<RoleId>, RoleRow),
    DeleteRole(In<RoleId>),
    Namespace(In<NamespaceId>, NamespaceRow),
    Override(In<NamespaceId>, String, OverrideRow),
    RemoveOverride(In<NamespaceId>, String, OverrideRow),
    RootKey(KeyId, RootKeyRow),
}

/// What a transaction does, all or nothing.
#[derive(Debug, Clone)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub event: AuditEvent,
    pub workspace: WorkspaceNo,
}

fn gone(what: &'static str) -> Abort<&'static str> {
    Abort::Refused(what)
}

impl Op {
    /// Makes the change in a transaction, reading what it rests on from there.
    fn run(&self, tx: &mut Tx<'_>) -> Result<(), Abort<&'static str>> {
        match self {
            Op::Workspace(no, row) => {
                let before = workspace::get(tx, *no)?;
                if before.is_none() && workspace::next_no(tx)? != *no {
                    return Err(gone("the number of the next workspace"));
                }
                workspace::put(tx, *no, before.as_ref(), row);
            }
            Op::Api((no, id), row) => api::put(tx, *no, *id, row),
            Op::NewKey((no, id), row, credits) => {
                if key::find(tx, *no, &KeyDigest(row.hash))?.is_some() {
                    return Err(gone("the hash is taken"));
                }
                key::insert(tx, *no, *id, row)?;
                if let Some(credits) = *credits {
                    let _ = tx.change_credits(*no, *id, row, Change::Set(credits), None)?;
                }
            }
            Op::PendingKey((no, id), row, credits, by) => {
                if key::find(tx, *no, &KeyDigest(row.hash))?.is_some() {
                    return Err(gone("the foreign hash is taken"));
                }
                migration::insert_pending(tx, *no, *id, row, *by)?;
                if let Some(credits) = *credits {
                    let _ = tx.change_credits(*no, *id, row, Change::Set(credits), None)?;
                }
            }
            Op::Adopt((no, id), hash) => {
                let row = key::get(tx, *no, *id)?.ok_or(gone("no key to adopt"))?;
                let came = migration::of_key(tx, *no, *id)?.ok_or(gone("it came with a hash of ours"))?;
                if key::find(tx, *no, &KeyDigest(*hash))?.is_some() {
                    return Err(gone("the hash is taken"));
                }
                migration::adopt(tx, *no, *id, &KeyRow { hash: *hash, start: "re_abcd".into(), ..row }, &came)?;
            }
            Op::Key((no, id), row) => {
                let before = key::get(tx, *no, *id)?.ok_or(gone("no key to change"))?;
                let (limited, identity) = (before.limited, before.identity);
                let mut after = KeyRow { limited, identity, hash: before.hash, start: before.start, ..(**row).clone() };
                key::set_identity(tx, *no, *id, &mut after, row.identity);
                key::update(tx, *no, *id, &after);
            }
            Op::SoftDelete((no, id)) => {
                let row = key::get(tx, *no, *id)?.ok_or(gone("no key to delete"))?;
                key::soft_delete(tx, *no, *id, &row, 77);
            }
            Op::Purge((no, id)) => {
                let row = key::get(tx, *no, *id)?.ok_or(gone("no key to purge"))?;
                key::purge(tx, *no, *id, &row)?;
            }
            Op::Credits((no, id), change) => {
                let row = key::get(tx, *no, *id)?.ok_or(gone("no key to charge"))?;
                tx.change_credits(*no, *id, &row, *change, Some(9))?.map_err(|_| gone("too many credits"))?;
            }
            Op::Limit((no, id), credits) => {
                let row = key::get(tx, *no, *id)?.ok_or(gone("no key to limit"))?;
                key::update(tx, *no, *id, &KeyRow { limited: credits.is_some(), ..row.clone() });
                if let Some(credits) = *credits {
                    let _ = tx.change_credits(*no, *id, &row, Change::Set(credits), None)?;
                }
            }
            Op::Identity((no, id), row) => identity::put(tx, *no, *id, row),
            Op::NewPermission((no, id), row) => role::insert_permission(tx, *no, *id, row),
            Op::DeletePermission((no, id)) => {
                let row = role::permission(tx, *no, *id)?.ok_or(gone("no permission to delete"))?;
                role::delete_permission(tx, *no, *id, &row);
            }
            Op::Role((no, id), row) => {
                let before = role::role(tx, *no, *id)?;
                role::put_role(tx, *no, *id, before.as_ref(), row);
            }
            Op::DeleteRole((no, id)) => {
                let row = role::role(tx, *no, *id)?.ok_or(gone("no role to delete"))?;
                role::delete_role(tx, *no, *id, &row);
            }
            Op::Namespace((no, id), row) => ratelimit::put(tx, *no, *id, row),
            Op::Override((no, id), identifier, row) => ratelimit::put_override(tx, *no, *id, identifier, row),
            Op::RemoveOverride((no, id), identifier, row) => ratelimit::remove_override(tx, *no, *id, identifier, row),
            Op::RootKey(id, row) => root_key::put(tx, *id, row)?,
        }
        Ok(())
    }

    fn note(&self, model: &mut Model) {
        match self {
            Op::Workspace(no, row) => drop(model.workspaces.insert(*no, row.clone())),
            Op::Api(at, row) => drop(model.apis.insert(*at, row.clone())),
            Op::NewKey(at, row, credits) => {
                model.hashes.insert((at.0, row.hash));
                model.keys.insert(*at, (**row).clone());
                if let Some(balance) = *credits {
                    model.credits.insert(*at, Credits { generation: 1, balance, ..Credits::default() });
                }
            }
            Op::PendingKey(at, row, credits, by) => {
                Op::NewKey(*at, row.clone(), *credits).note(model);
                model.migrated.insert(*at, MigratedKeyRow { migration: *by, foreign: row.hash, pending: true });
            }
            Op::Adopt(at, hash) => {
                let row = model.keys.get_mut(at).expect("planned for it");
                (row.hash, row.start) = (*hash, "re_abcd".into());
                model.migrated.get_mut(at).expect("planned for it").pending = false;
                model.hashes.insert((at.0, *hash));
            }
            Op::Key(at, row) => {
                let KeyRow { limited, hash, start, .. } = model.keys[at].clone();
                model.keys.insert(*at, KeyRow { limited, hash, start, ..(**row).clone() });
            }
            Op::SoftDelete(at) => model.keys.get_mut(at).expect("planned for it").deleted_at = Some(77),
            Op::Purge(at) => {
                model.keys.remove(at);
                model.credits.remove(at);
                model.last_used.remove(at);
                model.migrated.remove(at);
            }
            Op::Credits(at, change) => {
                let credits = model.credits.entry(*at).or_default();
                credits.balance = change.apply(credits.balance).expect("small numbers");
                credits.generation += 1;
                credits.unjournaled = 0;
                credits.in_doubt = 0;
            }
            Op::Limit(at, credits) => {
                model.keys.get_mut(at).expect("planned for it").limited = credits.is_some();
                if credits.is_some() {
                    Op::Credits(*at, Change::Set(credits.unwrap_or_default())).note(model);
                }
            }
            Op::Identity(at, row) => drop(model.identities.insert(*at, row.clone())),
            Op::NewPermission(at, row) => drop(model.permissions.insert(*at, row.clone())),
            Op::DeletePermission(at) => drop(model.permissions.remove(at)),
            Op::Role(at, row) => drop(model.roles.insert(*at, row.clone())),
            Op::DeleteRole(at) => drop(model.roles.remove(at)),
            Op::Namespace(at, row) => drop(model.namespaces.insert(*at, row.clone())),
            Op::RemoveOverride((no, id), identifier, _) => {
                model.overrides.remove(&(*no, *id, identifier.clone()));
            }
            Op::Override((no, id), identifier, row) => {
                model.overrides.insert((*no, *id, identifier.clone()), row.clone());
            }
            Op::RootKey(id, row) => {
                model.root_hashes.insert(row.hash);
                model.root_keys.insert(*id, row.clone());
            }
        }
    }
}

impl Plan {
    /// A transaction with these changes, and one audit event that tells of it.
    pub fn new(dice: &mut SplitMix, workspace: WorkspaceNo, ops: Vec<Op>) -> Plan {
        let event = AuditEvent {
            id: EventId(id(dice)),
            time: 5,
            event: "test.change".into(),
            description: format!("{} changes", ops.len()),
            actor: Actor { kind: "system".into(), id: "test".into(), name: String::new() },
            remote_ip: None,
            user_agent: None,
            targets: vec![Target { kind: "key".into(), id: "key_1".into(), name: String::new(), meta: None }],
            correlation: None,
        };
        Plan { ops, event, workspace }
    }

    /// The transaction.
    pub fn run(self, tx: &mut Tx<'_>) -> Result<(), Abort<&'static str>> {
        for op in &self.ops {
            op.run(tx)?;
        }
        tx.audit(self.workspace, self.event);
        Ok(())
    }

    /// What it makes of the model.
    pub fn note(&self, model: &mut Model) {
        for op in &self.ops {
            op.note(model);
        }
        model.audit.entry(self.workspace).or_default().push(self.event.clone());
    }
}

fn pick<T: Clone>(dice: &mut SplitMix, from: impl IntoIterator<Item = T>) -> Option<T> {
    let all: Vec<T> = from.into_iter().collect();
    let at = dice.below(all.len() as u64) as usize;
    all.get(at).cloned()
}

fn some(dice: &mut SplitMix, most: u64, from: Vec<IdText>) -> Vec<IdText> {
    (0..dice.below(most + 1)).filter_map(|_| pick(dice, from.iter().copied())).collect()
}

impl Model {
    fn live_keys(&self) -> Vec<In<KeyId>> {
        self.keys.iter().filter(|(_, row)| row.deleted_at.is_none()).map(|(at, _)| *at).collect()
    }

    /// Live keys with a limited number of credits.
    pub fn limited_keys(&self) -> Vec<In<KeyId>> {
        self.live_keys().into_iter().filter(|at| self.keys[at].limited).collect()
    }

    /// A workspace with an API and a key of so many credits.
    pub fn first_plan(dice: &mut SplitMix, no: WorkspaceNo, credits: u64) -> Plan {
        let api_id = ApiId(id(dice));
        let row = Model::default().a_key(dice, no, api_id, true);
        let ops = vec![
            Op::Workspace(no, a_workspace(dice)),
            Op::Api((no, api_id), an_api(dice)),
            Op::NewKey((no, KeyId(id(dice))), Box::new(row), Some(credits)),
        ];
        Plan::new(dice, no, ops)
    }

    fn a_key(&self, dice: &mut SplitMix, no: WorkspaceNo, api: ApiId, limited: bool) -> KeyRow {
        // Now and then a hash that had an owner and is free again.
        let row = KeyRow {
            hash: self.a_hash(dice, no),
            api,
            start: "p_abc".into(),
            name: None,
            meta: None,
            identity: None,
            expires: None,
            enabled: true,
            limited,
            refill: None,
            ratelimits: Vec::new(),
            permissions: Vec::new(),
            roles: Vec::new(),
            created_at: 1,
            updated_at: None,
            deleted_at: None,
        };
        self.changed_key(dice, no, row)
    }

    /// A hash that no key of the workspace has, neither as its own nor as an alias.
    fn a_hash(&self, dice: &mut SplitMix, no: WorkspaceNo) -> KeyHash {
        let own = self.keys.iter().map(|(at, row)| (at.0, row.hash));
        let taken: BTreeSet<_> = own.chain(self.migrated.iter().map(|(at, came)| (at.0, came.foreign))).collect();
        let free = self.hashes.iter().filter(|at| at.0 == no && !taken.contains(at)).map(|at| at.1);
        let free = pick(dice, free).filter(|_| dice.flip());
        free.unwrap_or_else(|| hash(dice))
    }

    fn changed_key(&self, dice: &mut SplitMix, no: WorkspaceNo, row: KeyRow) -> KeyRow {
        // Links may name what was deleted since: it is ignored (and never comes back).
        let permissions = self.permissions.keys().filter(|at| at.0 == no).map(|at| at.1.0).collect();
        let roles = self.roles.keys().filter(|at| at.0 == no).map(|at| at.1.0).collect();
        let identities = self.identities.keys().filter(|at| at.0 == no).map(|at| at.1);
        KeyRow {
            name: Some(format!("name {}", dice.below(1000))),
            meta: dice.flip().then(|| format!("{{\"n\":{}}}", dice.below(1000))),
            enabled: dice.flip(),
            expires: dice.flip().then(|| dice.below(1000)),
            identity: pick(dice, identities),
            permissions: some(dice, 3, permissions).into_iter().map(PermissionId).collect(),
            roles: some(dice, 2, roles).into_iter().map(RoleId).collect(),
            ratelimits: limits(dice, 2),
            ..row
        }
    }

    /// A random change that fits what is there. All in one workspace, so that a transaction of several has one to be
    /// audited in.
    pub fn random_op(&self, dice: &mut SplitMix, no: WorkspaceNo) -> Option<Op> {
        let here = |at: &WorkspaceNo| *at == no;
        let apis: Vec<_> = self.apis.keys().filter(|at| here(&at.0)).copied().collect();
        let live: Vec<_> = self.live_keys().into_iter().filter(|at| here(&at.0)).collect();
        Some(match dice.below(27) {
            0 => {
                let row = self.workspaces[&no].clone();
                let name = format!("ws {}", dice.below(99));
                Op::Workspace(no, WorkspaceRow { name, enabled: dice.flip(), ..row })
            }
            1 => Op::Api((no, ApiId(id(dice))), an_api(dice)),
            2 => {
                let at = pick(dice, apis)?;
                let deleted_at = (dice.below(4) == 0).then_some(8).or(self.apis[&at].deleted_at);
                Op::Api(at, ApiRow { deleted_at, ..an_api(dice) })
            }
            3..=6 => {
                let api = pick(dice, apis)?.1;
                let limited = dice.flip();
                let row = self.a_key(dice, no, api, limited);
                let (at, credits) = ((no, KeyId(id(dice))), limited.then(|| dice.below(50)));
                match dice.below(3) {
                    0 => Op::PendingKey(at, Box::new(row), credits, MigrationId(id(dice))),
                    _ => Op::NewKey(at, Box::new(row), credits),
                }
            }
            26 => {
                let pending = |at: &In<KeyId>| self.migrated.get(at).is_some_and(|came| came.pending);
                let at = pick(dice, live.into_iter().filter(pending))?;
                Op::Adopt(at, self.a_hash(dice, no))
            }
            7..=9 => {
                let at = pick(dice, live)?;
                Op::Key(at, Box::new(self.changed_key(dice, no, self.keys[&at].clone())))
            }
            10 => Op::SoftDelete(pick(dice, live)?),
            11 | 12 => Op::Purge(pick(dice, self.keys.keys().filter(|at| here(&at.0)).copied())?),
            13..=15 => {
                let at = pick(dice, self.limited_keys().into_iter().filter(|at| here(&at.0)))?;
                let amount = dice.below(30);
                let change = match dice.below(4) {
                    0 => Change::Set(amount),
                    1 => Change::Add(amount),
                    2 => Change::Subtract(amount),
                    _ => Change::RaiseTo(amount),
                };
                Op::Credits(at, change)
            }
            16 => {
                let at = pick(dice, live)?;
                Op::Limit(at, (!self.keys[&at].limited).then(|| dice.below(50)))
            }
            17 => {
                let row = an_identity(dice);
                Op::Identity((no, IdentityId(id(dice))), row)
            }
            18 => {
                let at = pick(dice, self.identities.keys().filter(|at| here(&at.0)).copied())?;
                let row = &self.identities[&at];
                if row.deleted_at.is_some() {
                    return None;
                }
                let changed = an_identity(dice);
                let deleted_at = (dice.below(3) == 0).then_some(9);
                Op::Identity(at, IdentityRow { external_id: row.external_id.clone(), deleted_at, ..changed })
            }
            19 => {
                let row = PermissionRow {
                    slug: format!("p.{}", dice.draw()),
                    name: "p".into(),
                    description: None,
                    created_at: 1,
                    updated_at: None,
                };
                Op::NewPermission((no, PermissionId(id(dice))), row)
            }
            20 => Op::DeletePermission(pick(dice, self.permissions.keys().filter(|at| here(&at.0)).copied())?),
            21 | 22 => {
                let all: Vec<_> = self.permissions.keys().filter(|at| here(&at.0)).map(|at| at.1.0).collect();
                let row = RoleRow {
                    name: format!("r {}", dice.draw()),
                    description: None,
                    permissions: some(dice, 3, all).into_iter().map(PermissionId).collect(),
                    created_at: 1,
                    updated_at: None,
                };
                let known = pick(dice, self.roles.keys().filter(|at| here(&at.0)).copied()).filter(|_| dice.flip());
                Op::Role(known.unwrap_or_else(|| (no, RoleId(id(dice)))), row)
            }
            23 => Op::DeleteRole(pick(dice, self.roles.keys().filter(|at| here(&at.0)).copied())?),
            24 => {
                let known = pick(dice, self.namespaces.keys().filter(|at| here(&at.0)).copied());
                match known.filter(|_| dice.below(4) > 0) {
                    Some(at) if dice.flip() => {
                        let deleted_at = dice.flip().then_some(4);
                        Op::Namespace(at, NamespaceRow { deleted_at, ..self.namespaces[&at].clone() })
                    }
                    Some(at) => {
                        let identifier = match dice.below(5) {
                            4 => "user_*".to_owned(),
                            user => format!("user_{user}"),
                        };
                        let present = self.overrides.get(&(at.0, at.1, identifier.clone())).cloned();
                        match present {
                            Some(row) if dice.flip() => Op::RemoveOverride(at, identifier, row),
                            present => {
                                // One that replaces another keeps its id (RL-SETOV-02).
                                let own = present.map_or_else(|| OverrideId(id(dice)), |row| row.id);
                                let row = OverrideRow { id: own, limit: dice.below(99), duration: 1000, created_at: 1 };
                                Op::Override(at, identifier, row)
                            }
                        }
                    }
                    None => {
                        // Some are named like another one's id (RL-NS-01).
                        let name = match pick(dice, self.namespaces.keys().filter(|at| here(&at.0)).copied()) {
                            Some(other) if dice.flip() && !self.has_name(no, &other.1.to_string()) => {
                                other.1.to_string()
                            }
                            _ => format!("ns {}", dice.draw()),
                        };
                        Op::Namespace(
                            (no, NamespaceId(id(dice))),
                            NamespaceRow { name, created_at: 1, deleted_at: None },
                        )
                    }
                }
            }
            _ => {
                let live = self.root_keys.iter().filter(|(_, row)| row.deleted_at.is_none()).map(|(id, _)| *id);
                match pick(dice, live).filter(|_| dice.below(3) > 0) {
                    Some(at) => {
                        let deleted_at = (dice.below(3) == 0).then_some(3);
                        let row = self.root_keys[&at].clone();
                        Op::RootKey(at, RootKeyRow { enabled: dice.flip(), deleted_at, ..row })
                    }
                    None => {
                        let taken: BTreeSet<_> = self
                            .root_keys
                            .values()
                            .filter(|row| row.deleted_at.is_none())
                            .map(|row| row.hash)
                            .collect();
                        let free = pick(dice, self.root_hashes.difference(&taken).copied()).filter(|_| dice.flip());
                        let hash = free.unwrap_or_else(|| hash(dice));
                        Op::RootKey(KeyId(id(dice)), a_root_key(no, hash))
                    }
                }
            }
        })
    }

    fn has_name(&self, no: WorkspaceNo, name: &str) -> bool {
        self.namespaces.iter().any(|(at, row)| at.0 == no && row.name == name)
    }

    /// The transaction to come: one change or a few, in one workspace, as the model is after it.
    pub fn random_plan(&mut self, dice: &mut SplitMix) -> Plan {
        let last = self.workspaces.keys().next_back().copied();
        let no = match last {
            Some(last) if dice.below(40) > 0 || last.0 >= 4 => WorkspaceNo(1 + dice.below(u64::from(last.0)) as u32),
            last => {
                let plan = Model::first_plan(dice, WorkspaceNo(last.map_or(1, |no| no.0 + 1)), 20);
                plan.note(self);
                return plan;
            }
        };
        let mut after = self.clone();
        let mut ops = Vec::new();
        for _ in 0..1 + dice.below(3) {
            let op = loop {
                if let Some(op) = after.random_op(dice, no) {
                    break op;
                }
            };
            op.note(&mut after);
            ops.push(op);
        }
        let plan = Plan::new(dice, no, ops);
        plan.note(self);
        plan
    }

    /// Checks that a snapshot holds these records and no others; credits as `credits` has it.
    pub fn check_rows(&self, snapshot: &Snapshot, credits: impl Fn(&Credits, u64) -> bool) {
        if let Some(difference) = self.difference(snapshot, credits) {
            panic!("{difference}");
        }
    }

    /// What a snapshot holds that these records do not have, or the other way round; `None` if there is nothing.
    pub fn difference(&self, snapshot: &Snapshot, credits: impl Fn(&Credits, u64) -> bool) -> Option<String> {
        macro_rules! equal {
            ($got:expr, $want:expr, $($what:tt)*) => {
                match ($got, $want) {
                    (got, want) if got != want => {
                        return Some(format!("{}: found {got:?}, expected {want:?}", format_args!($($what)*)));
                    }
                    _ => {}
                }
            };
        }
        let count = |table| snapshot.count(table).expect("readable");
        for (no, events) in &self.audit {
            let stored = audit::list(snapshot, *no, 0, usize::MAX).expect("readable");
            equal!(stored.len(), events.len(), "audit events of {no:?}");
            let mut previous = [0; 32];
            for (number, ((sequence, row), event)) in (1u64..).zip(stored.iter().zip(events)) {
                equal!(*sequence, number, "number of an audit event of {no:?}");
                equal!(row.previous, previous, "chain of {no:?} before event {number}");
                equal!(&row.event, event, "audit event {number} of {no:?}");
                previous = audit::hash(*no, *sequence, &row.to_bytes());
            }
            let head = audit::head(snapshot, *no).expect("readable");
            equal!((head.sequence, head.hash), (events.len() as u64, previous), "head of {no:?}");
        }
        equal!(count(records::AUDIT), self.audit.values().map(|all| all.len() as u64).sum(), "audit events");
        equal!(
            workspace::list(snapshot).expect("readable").into_iter().collect::<BTreeMap<_, _>>(),
            self.workspaces.clone(),
            "workspaces"
        );
        for ((no, id), row) in &self.apis {
            equal!(api::get(snapshot, *no, *id).expect("readable").as_ref(), Some(row), "{id}");
        }
        equal!(count(records::API), self.apis.len() as u64, "APIs");
        for (at, row) in &self.keys {
            let (no, id) = *at;
            equal!(key::get(snapshot, no, id).expect("readable").as_ref(), Some(row), "{id}");
            equal!(
                key::find(snapshot, no, &KeyDigest(row.hash)).expect("readable"),
                Some(id),
                "owner of the hash of {id}"
            );
            let came = migration::of_key(snapshot, no, id).expect("readable");
            equal!(came.as_ref(), self.migrated.get(at), "how {id} came");
            if let Some(came) = came {
                equal!(
                    key::find(snapshot, no, &KeyDigest(came.foreign)).expect("readable"),
                    Some(id),
                    "owner of an alias of {id}"
                );
            }
            let stored = key::credits(snapshot, no, id).expect("readable");
            match (stored, self.credits.get(at)) {
                (Some(stored), Some(expected)) => {
                    equal!(stored.generation, expected.generation, "generation of {id}");
                    if !credits(expected, stored.balance) {
                        return Some(format!("credits of {id}: {} stored, expected {expected:?}", stored.balance));
                    }
                }
                (stored, expected) => {
                    equal!(stored.is_some(), expected.is_some(), "credits of {id}");
                }
            }
        }
        let live = || self.keys.values().filter(|row| row.deleted_at.is_none());
        equal!(count(records::KEY), self.keys.len() as u64, "keys");
        let aliases = self.migrated.values().filter(|came| !came.pending).count();
        equal!(count(records::KEY_BY_HASH), (self.keys.len() + aliases) as u64, "hashes");
        equal!(count(records::MIGRATED_KEY), self.migrated.len() as u64, "migrated keys");
        equal!(count(records::KEY_BY_API), live().count() as u64, "listed keys");
        let linked = live().filter(|row| row.identity.is_some()).count();
        equal!(count(records::KEY_BY_IDENTITY), linked as u64, "keys of identities");
        equal!(count(records::CREDITS), self.credits.len() as u64, "credits");
        for (no, api) in self.apis.keys() {
            let of = |identity: Option<IdentityId>| -> Vec<KeyId> {
                let here = |(at, row): &(&In<KeyId>, &KeyRow)| {
                    at.0 == *no
                        && row.api == *api
                        && row.deleted_at.is_none()
                        && (identity.is_none() || row.identity == identity)
                };
                self.keys.iter().filter(here).map(|(at, _)| at.1).collect()
            };
            let listed = |identity| key::ids(snapshot, *no, *api, identity, b"", usize::MAX).expect("readable");
            equal!(listed(None), of(None), "keys of {api}");
            for (_, identity) in self.identities.keys().filter(|at| at.0 == *no) {
                equal!(listed(Some(*identity)), of(Some(*identity)), "keys of {identity} in {api}");
            }
        }
        for ((no, id), row) in &self.identities {
            equal!(identity::get(snapshot, *no, *id).expect("readable").as_ref(), Some(row), "{id}");
            let found = identity::find(snapshot, *no, &row.external_id).expect("readable");
            equal!(found, row.deleted_at.is_none().then_some(*id), "external id of {id}");
        }
        equal!(count(records::IDENTITY), self.identities.len() as u64, "identities");
        for ((no, id), row) in &self.permissions {
            equal!(role::permission(snapshot, *no, *id).expect("readable").as_ref(), Some(row), "{id}");
        }
        equal!(count(records::PERMISSION), self.permissions.len() as u64, "permissions");
        equal!(count(records::PERMISSION_BY_SLUG), self.permissions.len() as u64, "slugs");
        for ((no, id), row) in &self.roles {
            equal!(role::role(snapshot, *no, *id).expect("readable").as_ref(), Some(row), "{id}");
        }
        equal!(count(records::ROLE), self.roles.len() as u64, "roles");
        equal!(count(records::ROLE_BY_NAME), self.roles.len() as u64, "names of roles");
        for ((no, id), row) in &self.namespaces {
            equal!(ratelimit::get(snapshot, *no, *id).expect("readable").as_ref(), Some(row), "{id}");
        }
        equal!(count(records::NAMESPACE), self.namespaces.len() as u64, "namespaces");
        for ((no, id, identifier), row) in &self.overrides {
            let found = ratelimit::get_override(snapshot, *no, *id, identifier).expect("readable");
            equal!(found.as_ref(), Some(row), "override of {identifier} in {id}");
        }
        let patterns = self.overrides.keys().filter(|(.., identifier)| ratelimit::is_pattern(identifier)).count();
        equal!(count(records::OVERRIDE_PATTERN), patterns as u64, "patterns");
        equal!(count(records::OVERRIDE), (self.overrides.len() - patterns) as u64, "overrides");
        equal!(count(records::OVERRIDE_BY_ID), self.overrides.len() as u64, "overrides by id");
        for (no, id) in self.namespaces.keys() {
            let mut expected: Vec<_> = self
                .overrides
                .iter()
                .filter(|((its_no, its_id, _), _)| (its_no, its_id) == (no, id))
                .map(|((.., identifier), row)| (row.id, identifier.clone()))
                .collect();
            expected.sort();
            let page = ratelimit::override_ids(snapshot, *no, *id, &[], usize::MAX).expect("readable");
            equal!(page, expected, "page of {id}");
        }
        for (id, row) in &self.root_keys {
            equal!(root_key::get(snapshot, *id).expect("readable").as_ref(), Some(row), "root {id}");
        }
        equal!(count(records::ROOT_KEY), self.root_keys.len() as u64, "root keys");
        None
    }

    /// Checks that what requests see, from memory and from disk, is what these records say.
    pub fn check_hot(&self, storage: &Storage) {
        let owners: BTreeMap<_, _> = self.keys.iter().map(|(at, row)| ((at.0, row.hash), at)).collect();
        for &(no, hash) in &self.hashes {
            let expected = owners.get(&(no, hash)).copied().filter(|at| self.keys[at].deleted_at.is_none());
            let in_memory = storage.key(no, &KeyDigest(hash));
            match (&in_memory, expected) {
                (Lookup::Hot(view), Some(at)) => self.check_key(at, view),
                (Lookup::Hot(view), None) => panic!("{} is hot and does not exist", view.id),
                (Lookup::Absent, Some(at)) => panic!("{} is said to be absent", at.1),
                (Lookup::Absent, None) | (Lookup::Unknown, _) => {}
            }
            match (storage.read_key(no, &KeyDigest(hash)).expect("readable"), expected) {
                (Some(view), Some(at)) => self.check_key(at, &view),
                (None, None) => {}
                (found, expected) => panic!("read {found:?}, expected {expected:?}"),
            }
        }
        let root_owners: BTreeMap<_, _> =
            self.root_keys.iter().filter(|(_, row)| row.deleted_at.is_none()).map(|(id, row)| (row.hash, id)).collect();
        for hash in &self.root_hashes {
            let expected = root_owners.get(hash).copied();
            let in_memory = match storage.root_key(&KeyDigest(*hash)) {
                Lookup::Hot(view) => Some(Some(view)),
                Lookup::Absent => Some(None),
                Lookup::Unknown => None,
            };
            for found in in_memory.into_iter().chain([storage.read_root_key(&KeyDigest(*hash)).expect("readable")]) {
                assert_eq!(found.as_ref().map(|view| &view.id), expected, "owner of a root key's hash");
                if let (Some(view), Some(id)) = (found, expected) {
                    let row = &self.root_keys[id];
                    assert_eq!((view.enabled, view.workspace_no), (row.enabled, row.workspace), "root {id}");
                    let workspace = view.workspace.load();
                    let workspace = workspace.as_ref().expect("it is not deleted");
                    assert_eq!(workspace.enabled, self.workspaces[&row.workspace].enabled, "workspace of root {id}");
                }
            }
        }
        for ((no, id), row) in &self.namespaces {
            let own = self.check_namespace(storage, *no, &id.to_string(), *id);
            assert!(own);
            let shadowed = NamespaceId::parse(&row.name).filter(|other| self.namespaces.contains_key(&(*no, *other)));
            self.check_namespace(storage, *no, &row.name, shadowed.unwrap_or(*id));
        }
        assert!(storage.read_namespace(WorkspaceNo(1), "no such namespace").expect("readable").is_none());
    }

    fn check_namespace(&self, storage: &Storage, no: WorkspaceNo, name: &str, id: NamespaceId) -> bool {
        let row = &self.namespaces[&(no, id)];
        let in_memory = match storage.namespace(no, name) {
            Lookup::Hot(view) => Some(view),
            Lookup::Absent => panic!("namespace {name} is said to be absent"),
            Lookup::Unknown => None,
        };
        let read = storage.read_namespace(no, name).expect("readable").expect("it exists");
        for view in in_memory.into_iter().chain([read]) {
            assert_eq!((view.id, &*view.name, view.deleted), (id, &*row.name, row.deleted_at.is_some()), "{name}");
            for user in 0..4 {
                let user = format!("user_{user}");
                let expected = self.overrides.get(&(no, id, user.clone())).map(|row| (row.id, row.limit));
                let in_memory = match storage.override_of(no, id, &user) {
                    Lookup::Hot(view) => Some(view),
                    Lookup::Absent => None,
                    Lookup::Unknown => panic!("{user} in {name} would be read from the disk"),
                };
                let read = storage.read_override_of(no, id, &user).expect("readable");
                for found in [in_memory, read] {
                    assert_eq!(found.map(|found| (found.id, found.limit)), expected, "{user} in {name}");
                }
            }
            let expected = self.overrides.get(&(no, id, "user_*".to_owned())).map(|row| (row.id, row.limit));
            let found = view.pattern_for("user_x").map(|found| (found.says.id, found.says.limit));
            assert_eq!(found, expected, "pattern of {name}");
        }
        true
    }

    fn check_key(&self, at: &In<KeyId>, view: &KeyView) {
        let row = &self.keys[at];
        let no = at.0;
        assert_eq!((view.workspace, view.id), *at);
        assert_eq!(view.name.as_deref(), row.name.as_deref(), "name of {}", view.id);
        assert_eq!(view.meta(), row.meta.as_deref(), "meta of {}", view.id);
        assert_eq!(
            (view.enabled, view.expires(), view.limited),
            (row.enabled, row.expires, row.limited),
            "state of {}",
            view.id
        );
        let api = view.api.load();
        let live = self.apis.get(&(no, row.api)).filter(|api| api.deleted_at.is_none());
        assert_eq!(api.as_ref().map(|api| api.keyspace), live.map(|api| api.keyspace), "API of {}", view.id);
        let identity = view.identity.as_ref().map(|cell| cell.load());
        let found = identity.as_deref().and_then(Option::as_ref).map(|view| (view.id, view.meta.as_deref()));
        let expected = row
            .identity
            .and_then(|id| Some((id, self.identities.get(&(no, id))?)))
            .filter(|(_, row)| row.deleted_at.is_none())
            .map(|(id, row)| (id, row.meta.as_deref()));
        assert_eq!(found, expected, "identity of {}", view.id);
        assert_eq!(slugs(view.permissions()), self.slugs(no, &row.permissions), "permissions of {}", view.id);
        let roles: Vec<_> = view
            .roles()
            .iter()
            .filter_map(|cell| cell.load().as_ref().map(|role| (role.name.to_string(), slugs(&role.permissions))))
            .collect();
        let expected: Vec<_> = row
            .roles
            .iter()
            .filter_map(|id| self.roles.get(&(no, *id)))
            .map(|role| (role.name.clone(), self.slugs(no, &role.permissions)))
            .collect();
        assert_eq!(roles, expected, "roles of {}", view.id);
        let limits: Vec<_> = view.ratelimits.iter().map(|limit| (limit.id, limit.limit)).collect();
        let expected: Vec<_> = row.ratelimits.iter().map(|limit| (limit.id, limit.limit)).collect();
        assert_eq!(limits, expected, "limits of {}", view.id);
        if row.limited {
            assert_eq!(view.counters.balance(), self.credits[at].balance, "credits of {}", view.id);
        }
        assert_eq!(view.counters.last_used_ms(), self.last_used.get(at).copied(), "last use of {}", view.id);
    }

    fn slugs(&self, no: WorkspaceNo, ids: &[PermissionId]) -> Vec<String> {
        ids.iter().filter_map(|id| self.permissions.get(&(no, *id)).map(|row| row.slug.clone())).collect()
    }
}

fn slugs(cells: &[std::sync::Arc<keyward_storage::hot::shared::Shared<PermissionView>>]) -> Vec<String> {
    cells.iter().filter_map(|cell| cell.load().as_ref().map(|view| view.slug.to_string())).collect()
}

fn a_workspace(dice: &mut SplitMix) -> WorkspaceRow {
    WorkspaceRow {
        id: WorkspaceId(id(dice)),
        name: "Acme".into(),
        slug: None,
        enabled: true,
        created_at: 1,
        deleted_at: None,
        limits: WorkspaceLimits::default(),
    }
}

fn an_api(dice: &mut SplitMix) -> ApiRow {
    ApiRow {
        keyspace: KeyspaceId(id(dice)),
        name: "api".into(),
        created_at: 1,
        deleted_at: None,
        default_prefix: None,
        default_bytes: None,
        store_encrypted_keys: false,
        delete_protection: false,
        ip_whitelist: Vec::new(),
    }
}

fn an_identity(dice: &mut SplitMix) -> IdentityRow {
    IdentityRow {
        external_id: format!("user {}", dice.draw()),
        meta: dice.flip().then(|| format!("{{\"m\":{}}}", dice.below(1000))),
        ratelimits: limits(dice, 1),
        created_at: 1,
        updated_at: None,
        deleted_at: None,
    }
}

fn limits(dice: &mut SplitMix, most: u64) -> Vec<Ratelimit> {
    let limit = |number, dice: &mut SplitMix| Ratelimit {
        id: RatelimitId(id(dice)),
        name: format!("limit {number}"),
        limit: dice.below(99),
        duration: 60_000,
        auto_apply: true,
    };
    (0..dice.below(most + 1)).map(|number| limit(number, dice)).collect()
}

/// A root key for a workspace.
pub fn a_root_key(workspace: WorkspaceNo, hash: KeyHash) -> RootKeyRow {
    RootKeyRow {
        hash,
        start: "unkey_abc".into(),
        end: None,
        name: None,
        workspace,
        permissions: vec!["*".into()],
        enabled: true,
        expires: None,
        created_at: 1,
        updated_at: None,
        deleted_at: None,
    }
}
