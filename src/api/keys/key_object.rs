//! A key as getKey and whoami show it (KEYS-OBJ-1).

use std::sync::Arc;

use keyward_storage::ids::{IdentityId, KeyId};
use keyward_storage::records::identity::{IdentityRow, IdentityView};
use keyward_storage::records::key::{Counted, KeyRow, KeyView, Refill};
use keyward_storage::records::role::{PermissionView, RoleView};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::refill;
use super::settings::Interval;
use crate::api::attached_limits::Ratelimit;
use crate::api::identities::identity_object::Identity;
use crate::api::shape::{Secret, Verbatim, shown_meta};

/// What a key's view refers to, all as of one moment.
pub struct Resolved {
    /// Its identity.
    pub identity: Option<Arc<IdentityView>>,
    /// Its roles, by name.
    pub roles: Vec<Arc<RoleView>>,
    /// Its permissions, direct and through roles, by slug, each once.
    pub permissions: Vec<Arc<PermissionView>>,
}

impl Resolved {
    /// Reads the cells a view points at. Call it within `SharedViews::consistent`.
    pub fn read(view: &KeyView) -> Resolved {
        let identity = view.identity.as_ref().and_then(|cell| cell.load().clone());
        let mut roles: Vec<Arc<RoleView>> = Vec::new();
        let mut permissions: Vec<Arc<PermissionView>> = Vec::new();
        if !view.roles().is_empty() || !view.permissions().is_empty() {
            roles.extend(view.roles().iter().filter_map(|cell| cell.load().clone()));
            let direct = view.permissions().iter();
            permissions.extend(
                direct
                    .chain(roles.iter().flat_map(|role| role.permissions.iter()))
                    .filter_map(|cell| cell.load().clone()),
            );
            roles.sort_unstable_by(|one, other| one.name.cmp(&other.name));
            permissions.sort_unstable_by(|one, other| one.slug.cmp(&other.slug));
            permissions.dedup_by(|one, other| one.slug == other.slug);
        }
        Resolved { identity, roles, permissions }
    }
}

/// What a key's row refers to, all as of one snapshot; what was deleted is not there.
pub struct Linked<'a> {
    /// Its identity.
    pub identity: Option<(IdentityId, &'a IdentityRow)>,
    /// Names of its roles.
    pub roles: Vec<&'a str>,
    /// Slugs of its permissions, direct and through roles.
    pub permissions: Vec<&'a str>,
}

/// A key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyObject {
    /// Its id.
    #[schemars(length(min = 8, max = 255), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    key_id: String,
    /// Its prefix and first characters; empty for a migrated key not seen yet.
    start: String,
    /// Whether it verifies.
    enabled: bool,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Its metadata, as it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Verbatim<String>>,
    /// Unix milliseconds.
    created_at: u64,
    /// Unix milliseconds of its last change.
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_at: Option<u64>,
    /// Unix milliseconds of its last verification, rounded down to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<u64>,
    /// Unix milliseconds after which it is expired.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    /// Slugs of its permissions, its own and those of its roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    permissions: Vec<String>,
    /// Names of its roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
    /// What is left of its credits; absent for a key with unlimited ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    credits: Option<Credits>,
    /// The identity it is linked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<Identity>,
    /// Its own rate limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ratelimits: Vec<Ratelimit>,
    /// The key itself: only where `decrypt` was asked for and the key is recoverable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plaintext: Option<Secret>,
}

/// Credits of a key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credits {
    /// How many are left.
    pub remaining: Option<u64>,
    /// How they come back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refill: Option<RefillObject>,
}

/// How credits come back.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefillObject {
    /// How often.
    interval: Interval,
    /// Credits are raised to this number.
    #[schemars(range(min = 1))]
    amount: u64,
    /// Day of the month; only with `monthly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31))]
    refill_day: Option<u8>,
}

impl RefillObject {
    /// As it is stored: monthly exactly when it has a day.
    pub fn new(refill: &Refill) -> RefillObject {
        let interval = if refill.day.is_some() { Interval::Monthly } else { Interval::Daily };
        RefillObject { interval, amount: refill.amount, refill_day: refill.day }
    }
}

impl KeyObject {
    /// The key as its row, its view and what that refers to tell.
    pub fn new(row: &KeyRow, view: &KeyView, resolved: &Resolved) -> KeyObject {
        let owned = |text: Option<&str>| text.map(|text| Verbatim(text.to_owned()));
        KeyObject {
            key_id: view.id.to_string(),
            start: row.start.clone(),
            enabled: view.enabled,
            name: view.name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
            meta: owned(shown_meta(view.meta())),
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_used_at: view.counters.last_used_ms(),
            expires: view.expires().filter(|&expires| expires != 0),
            permissions: resolved.permissions.iter().map(|permission| permission.slug.to_string()).collect(),
            roles: resolved.roles.iter().map(|role| role.name.to_string()).collect(),
            credits: view.limited.then(|| Credits {
                remaining: Some(view.counters.balance()),
                refill: row.refill.as_ref().map(RefillObject::new),
            }),
            identity: resolved.identity.as_deref().map(Identity::new),
            ratelimits: view.ratelimits.iter().map(Ratelimit::new).collect(),
            plaintext: None,
        }
    }

    /// The key as its row, what is counted of it and what it refers to tell, at `now`: a refill that is due shows, though
    /// none is made (KEYS-REFILL-5).
    pub fn stored(id: KeyId, row: &KeyRow, counted: &Counted, mut linked: Linked<'_>, now: u64) -> KeyObject {
        let owned = |text: Option<&str>| text.map(|text| Verbatim(text.to_owned()));
        let (remaining, refilled_at) = refill::as_settled(row, counted.balance, counted.refill_due, now);
        linked.roles.sort_unstable();
        linked.permissions.sort_unstable();
        linked.permissions.dedup();
        KeyObject {
            key_id: id.to_string(),
            start: row.start.clone(),
            enabled: row.enabled,
            name: row.name.clone().filter(|name| !name.is_empty()),
            meta: owned(shown_meta(row.meta.as_deref())),
            created_at: row.created_at,
            updated_at: row.updated_at.max(refilled_at),
            last_used_at: counted.last_used_ms,
            expires: row.expires.filter(|&expires| expires != 0),
            permissions: linked.permissions.into_iter().map(str::to_owned).collect(),
            roles: linked.roles.into_iter().map(str::to_owned).collect(),
            credits: row
                .limited
                .then(|| Credits { remaining: Some(remaining), refill: row.refill.as_ref().map(RefillObject::new) }),
            identity: linked.identity.map(|(id, row)| Identity::stored(id, row)),
            ratelimits: row.ratelimits.iter().map(Ratelimit::stored).collect(),
            plaintext: None,
        }
    }
}

/// Serializes an iterator as an array.
pub fn array<S: Serializer, T: Serialize>(serializer: S, items: impl Iterator<Item = T>) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(items)
}
