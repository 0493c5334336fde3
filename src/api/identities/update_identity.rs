//! identities.updateIdentity: an identity's metadata and rate limits; what is not named stays as it is.

use keyward_storage::Abort;
use keyward_storage::ids::IdentityId;
use keyward_storage::records::identity::{self, IdentityRow};
use keyward_storage::records::key::Ratelimit;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::identity_object::Identity;
use super::{
    Fate, IdentityMeta, IdentityName, authorize, identity_target, meta_text, not_found, refuse_repeated_names,
    tell_of_limit,
};
use crate::api::attached_limits::{RatelimitsRequest, ratelimits};
use crate::api::call::{Call, Change, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::Opt;
use crate::api::trail::Changes;

/// What to change. Absent leaves as it is.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The identity's id, or else its external id.
    identity: IdentityName,
    /// Replaces the metadata whole, at most 1 MiB as compact JSON; an empty object clears it.
    #[serde(default)]
    meta: Opt<IdentityMeta>,
    /// Replaces all rate limits; one that is named like a present one keeps its id and its count. Their names are unique.
    #[serde(default)]
    ratelimits: Opt<RatelimitsRequest>,
}

/// identities.updateIdentity.
pub struct UpdateIdentity;

impl Operation for UpdateIdentity {
    const NAME: &'static str = "identities.updateIdentity";
    const SUMMARY: &'static str = "Update an identity";
    const DESCRIPTION: &'static str = "Changes an identity's metadata and rate limits, all or none, and returns it as it \
        is then. The next verification of its keys sees them. A rate limit with another limit goes on counting; one \
        with another duration counts anew.";
    const ALLOWS: &'static [&'static str] =
        &["identity.*.update_identity", "unkey:v1:<workspaceId>:projects/*/identities/*#update_identity"];
    const FAILS: &'static [Code] = &[Code::IdentityNotFound];
    const AUDITS: &'static [&'static str] =
        &["identity.update", "ratelimit.delete", "ratelimit.update", "ratelimit.create"];
    type Request = Request;
    type Response = Identity;

    async fn run(call: Call, ask: Request) -> Result<Identity, Problem> {
        let granted = authorize(&call, "update_identity")?;
        refuse_repeated_names(ask.ratelimits.as_ref())?;
        let meta = ask.meta.0.map(meta_text).transpose()?;
        let updated = granted.transact(Correlate::Always, move |change| {
            let workspace = change.workspace();
            let found = identity::named(change.tx, workspace, &ask.identity)?;
            let (id, before) = found.ok_or_else(|| Abort::Refused(not_found()))?;
            let mut after = before.clone();
            if let Some(meta) = meta {
                after.meta = meta;
            }
            if let Some(asked) = ask.ratelimits.0 {
                after.ratelimits = ratelimits(change, asked, &before.ratelimits);
            }
            if after != before {
                after.updated_at = Some(change.now());
                identity::put(change.tx, workspace, id, &after);
            }
            tell(change, id, &before, &after);
            Ok((id, after))
        });
        let (id, after) = updated.await?.value;
        Ok(Identity::stored(id, &after))
    }
}

/// Records the update, also one that changes nothing (ID-UPDATE-05), and what became of each rate limit (ID-UPDATE-09).
fn tell(change: &mut Change<'_, '_>, id: IdentityId, before: &IdentityRow, after: &IdentityRow) {
    let mut changes = Changes::default();
    changes.note_unseen("meta", before.meta != after.meta);
    let mut target = identity_target(id, after);
    target.meta = changes.into_meta();
    change.audit("identity.update", format!("Updated identity {id}"), vec![target]);
    for gone in before.ratelimits.iter().filter(|limit| counterpart(limit, after).is_none()) {
        tell_of_limit(change, id, after, gone, Fate::Deleted);
    }
    for limit in &after.ratelimits {
        if let Some(changes) = counterpart(limit, before).map(|old| changes_of(old, limit)).filter(|it| !it.is_empty())
        {
            tell_of_limit(change, id, after, limit, Fate::Updated(changes));
        }
    }
    for new in after.ratelimits.iter().filter(|limit| counterpart(limit, before).is_none()) {
        tell_of_limit(change, id, after, new, Fate::Created);
    }
}

/// The same rate limit in another state of its identity.
fn counterpart<'r>(limit: &Ratelimit, row: &'r IdentityRow) -> Option<&'r Ratelimit> {
    row.ratelimits.iter().find(|other| other.id == limit.id)
}

fn changes_of(before: &Ratelimit, after: &Ratelimit) -> Changes {
    let mut changes = Changes::default();
    changes.note("limit", json!(before.limit), json!(after.limit));
    changes.note("duration", json!(before.duration), json!(after.duration));
    changes.note("autoApply", json!(before.auto_apply), json!(after.auto_apply));
    changes
}
