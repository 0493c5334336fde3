//! identities.createIdentity: make an identity with its metadata and rate limits.

use keyward_storage::Abort;
use keyward_storage::ids::IdentityId;
use keyward_storage::records::identity::{self, IdentityRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fate, IdentityMeta, authorize, identity_target, meta_text, refuse_repeated_names, tell_of_limit};
use crate::api::attached_limits::{RatelimitsRequest, ratelimits};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{ExternalId, Opt};

// ID-CREATE-01.
/// What to make. Unknown members are ignored.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Your own id of it, unique in the workspace, letters' case included.
    external_id: ExternalId,
    /// Whatever should come back with each verification of its keys: at most 1 MiB as compact JSON.
    #[serde(default)]
    meta: Opt<IdentityMeta>,
    /// Rate limits that all its keys share; their names are unique.
    #[serde(default)]
    ratelimits: Opt<RatelimitsRequest>,
}

/// The new identity.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    identity_id: String,
}

/// identities.createIdentity.
pub struct CreateIdentity;

impl Operation for CreateIdentity {
    const NAME: &'static str = "identities.createIdentity";
    const SUMMARY: &'static str = "Create an identity";
    const DESCRIPTION: &'static str = "Makes an identity: one end user or tenant of yours, whose keys share its \
        metadata and its rate limits. It is found at once. `keys.createKey` and `keys.updateKey` link keys to it by its \
        external id.";
    const ALLOWS: &'static [&'static str] =
        &["identity.*.create_identity", "unkey:v1:<workspaceId>:projects/*/identities/*#create_identity"];
    const FAILS: &'static [Code] = &[Code::IdentityAlreadyExists];
    const AUDITS: &'static [&'static str] = &["identity.create", "ratelimit.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = authorize(&call, "create_identity")?;
        refuse_repeated_names(ask.ratelimits.as_ref())?;
        let meta = ask.meta.0.map(meta_text).transpose()?.flatten();
        let made = granted.transact(Correlate::Always, move |change| {
            let workspace = change.workspace();
            if identity::find(change.tx, workspace, &ask.external_id)?.is_some() {
                return Err(Abort::Refused(taken(&ask.external_id)));
            }
            let id = IdentityId(change.new_id());
            let row = IdentityRow {
                external_id: ask.external_id.into_string(),
                meta,
                ratelimits: ask.ratelimits.0.map(|asked| ratelimits(change, asked, &[])).unwrap_or_default(),
                created_at: change.now(),
                updated_at: None,
                deleted_at: None,
            };
            identity::put(change.tx, workspace, id, &row);
            change.audit("identity.create", format!("Created identity {id}"), vec![identity_target(id, &row)]);
            for limit in &row.ratelimits {
                tell_of_limit(change, id, &row, limit, Fate::Created);
            }
            Ok(id)
        });
        Ok(Response { identity_id: made.await?.value.to_string() })
    }
}

fn taken(external_id: &str) -> Problem {
    let detail = format!("An identity with the external id '{external_id}' already exists in this workspace.");
    Problem::new(Code::IdentityAlreadyExists, detail)
}
