//! keys.updateKey: change a key's settings; what is not named stays as it is.

use keyward_storage::records::key;
use keyward_storage::{Abort, Change as Balance, ReadError};
use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{CreditsPatch, EXPIRES_MAX, meta_text, refill_needs_credits};
use super::{Found, find, find_again, history, links, refill};
use crate::api::attached_limits::{RatelimitsRequest, ratelimits};
use crate::api::call::{Call, Change, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, ExternalId, Ident, Int, List, Meta, Opt, Patch, Slug, Text};
use keyward_storage::records::key::Refill;

/// What to change. Absent leaves as it is; null clears where it is allowed.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The key's id.
    key_id: Ident<3, 255>,
    /// A name for people; null removes it.
    #[serde(default)]
    name: Patch<Text<1, 255>>,
    /// Your own id of whoever holds the key; null unlinks its identity.
    #[serde(default)]
    external_id: Patch<ExternalId>,
    /// Replaces the metadata whole; null removes it.
    #[serde(default)]
    meta: Patch<Meta>,
    /// Unix milliseconds after which the key is expired; null = never.
    #[serde(default)]
    expires: Patch<Int<0, EXPIRES_MAX>>,
    /// Credits; null = unlimited, without refill.
    #[serde(default)]
    credits: Patch<CreditsPatch>,
    /// Replaces all rate limits of the key; of repeated names the last counts.
    #[serde(default)]
    ratelimits: Opt<RatelimitsRequest>,
    /// Whether the key verifies.
    #[serde(default)]
    enabled: Opt<bool>,
    /// Replaces all roles of the key. They must exist.
    #[serde(default)]
    roles: Opt<List<Text<1, 128>, 0, 100>>,
    /// Replaces all direct permissions of the key; missing ones are made.
    #[serde(default)]
    permissions: Opt<List<Slug, 0, 1000>>,
}

/// keys.updateKey.
pub struct UpdateKey;

impl Operation for UpdateKey {
    const NAME: &'static str = "keys.updateKey";
    const SUMMARY: &'static str = "Update a key";
    const DESCRIPTION: &'static str = "Changes a key's settings, all or none. The next verification sees them.";
    const ALLOWS: &'static [&'static str] = &[
        "api.*.update_key",
        "api.<apiId>.update_key",
        "unkey:v1:<workspaceId>:keyspaces/<keyspaceId>/keys/<keyId>#update_key",
    ];
    const FAILS: &'static [Code] = &[Code::KeyNotFound, Code::RoleNotFound];
    const AUDITS: &'static [&'static str] = &[
        "permission.create",
        "identity.create",
        "authorization.disconnect_permission_and_key",
        "authorization.disconnect_role_and_key",
        "authorization.connect_permission_and_key",
        "authorization.connect_role_and_key",
        "key.update",
    ];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let found = find(&call, &ask.key_id).await?;
        let granted = found.need("update_key", |need| call.authorize(need))?;
        let credits = CreditsChange::new(ask.credits)?;
        let id = found.id;
        let changed = granted.transact(Correlate::Always, move |change| {
            let mut found = find_again(change, id)?;
            refill::settle(change, &mut found)?;
            let before = found.row.clone();
            let remaining_before = remaining(change, &found)?;
            credits.apply(change, &mut found)?;
            let role_names: Option<Vec<_>> = Option::from(ask.roles).map(List::into_vec);
            let roles = role_names.map(|names| links::roles(change, &names)).transpose()?;
            let slugs: Option<Vec<_>> = Option::from(ask.permissions).map(List::into_vec);
            let describe = |slug: &str| Some(format!("Auto-created permission: {slug}"));
            let permissions = slugs.map(|slugs| links::permissions(change, &slugs, describe)).transpose()?;
            let row = &mut found.row;
            row.name = ask.name.map(Text::into_string).apply(row.name.take());
            row.meta = ask.meta.map(meta_text).apply(row.meta.take());
            row.expires = ask.expires.map(Int::get_unsigned).apply(row.expires);
            let identity = match ask.external_id {
                Patch::Keep => row.identity,
                Patch::Clear => None,
                Patch::Set(external_id) => Some(links::identity(change, &external_id)?),
            };
            key::set_identity(change.tx, change.workspace(), id, row, identity);
            if let Some(asked) = ask.ratelimits.into() {
                row.ratelimits = ratelimits(change, asked, &row.ratelimits);
            }
            if let Some(permissions) = permissions {
                row.permissions = permissions.iter().map(|(id, _)| *id).collect();
            }
            if let Some(roles) = roles {
                row.roles = roles.iter().map(|(id, _)| *id).collect();
            }
            row.enabled = ask.enabled.unwrap_or(row.enabled);
            let (workspace, now) = (change.workspace(), change.now());
            row.updated_at = Some(now);
            key::update(change.tx, workspace, id, &found.row);
            let remaining_after = remaining(change, &found)?;
            let mut key = found.target();
            key.meta = history::changes(change, &before, &found.row, (remaining_before, remaining_after))?;
            history::record_links(change, &found, &before)?;
            change.audit("key.update", format!("Updated key {id}"), vec![key, found.api_target()]);
            Ok(())
        });
        changed.await?;
        Ok(Empty {})
    }
}

/// Credits left on a key at this moment; `None` = unlimited.
fn remaining(change: &Change<'_, '_>, found: &Found) -> Result<Option<u64>, ReadError> {
    let credits = change.tx.credits(change.workspace(), found.id, &found.row)?;
    Ok(found.row.limited.then_some(credits.balance))
}

/// What becomes of a key's credits and refill.
struct CreditsChange {
    remaining: Patch<u64>,
    refill: Patch<Refill>,
}

impl CreditsChange {
    fn new(ask: Patch<CreditsPatch>) -> Result<CreditsChange, Problem> {
        Ok(match ask {
            Patch::Keep => CreditsChange { remaining: Patch::Keep, refill: Patch::Keep },
            Patch::Clear => CreditsChange { remaining: Patch::Clear, refill: Patch::Clear },
            Patch::Set(CreditsPatch { remaining, refill }) => CreditsChange {
                remaining: remaining.map(Int::get_unsigned),
                refill: match refill {
                    Patch::Keep => Patch::Keep,
                    Patch::Clear => Patch::Clear,
                    Patch::Set(refill) => Patch::Set(refill.for_update()?),
                },
            },
        })
    }

    fn apply(self, change: &mut Change<'_, '_>, found: &mut Found) -> Result<(), Abort<Problem>> {
        if self.remaining.is_keep() && self.refill.is_keep() {
            return Ok(());
        }
        let (workspace, now, id) = (change.workspace(), change.now(), found.id);
        let row = &mut found.row;
        row.limited = match self.remaining {
            Patch::Keep => row.limited,
            Patch::Clear => false,
            Patch::Set(_) => true,
        };
        let sets_refill = matches!(self.refill, Patch::Set(_));
        if sets_refill && !row.limited {
            return Err(Abort::Refused(refill_needs_credits()));
        }
        row.refill = self.refill.apply(row.refill.take()).filter(|_| row.limited);
        let due = if sets_refill {
            refill::due_after(row, now)
        } else {
            change.tx.credits(workspace, id, row)?.refill_due.filter(|_| row.refill.is_some())
        };
        let balance = match self.remaining {
            Patch::Set(value) => Balance::Set(value),
            Patch::Clear => Balance::Set(0),
            Patch::Keep => Balance::Add(0),
        };
        let fits: Result<_, ReadError> = change.tx.change_credits(workspace, id, row, balance, due);
        // A value a request can hold always fits.
        let _ = fits?;
        Ok(())
    }
}
