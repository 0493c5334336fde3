//! identities.deleteIdentity: end an identity; its keys go on without one.

use keyward_storage::Abort;
use keyward_storage::records::identity::{self, IdentityRow};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Fate, IdentityName, authorize, identity_target, not_found, tell_of_limit};
use crate::api::call::{Call, Correlate};
use crate::api::operation::{NoData, Operation};
use crate::api::problem::{Code, Problem};

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The identity's id, or else its external id.
    identity: IdentityName,
}

/// identities.deleteIdentity.
pub struct DeleteIdentity;

impl Operation for DeleteIdentity {
    const NAME: &'static str = "identities.deleteIdentity";
    const SUMMARY: &'static str = "Delete an identity";
    const DESCRIPTION: &'static str = "Deletes an identity with its metadata and rate limits; there is no way back. From \
        the next request on its keys verify as keys without an identity. Its external id is free again, and an identity \
        made with it is a new one, which the old keys do not belong to.";
    const ALLOWS: &'static [&'static str] =
        &["identity.*.delete_identity", "unkey:v1:<workspaceId>:projects/*/identities/*#delete_identity"];
    const FAILS: &'static [Code] = &[Code::IdentityNotFound];
    const AUDITS: &'static [&'static str] = &["identity.delete", "ratelimit.delete"];
    type Request = Request;
    type Response = NoData;

    async fn run(call: Call, ask: Request) -> Result<NoData, Problem> {
        let granted = authorize(&call, "delete_identity")?;
        let deleted = granted.transact(Correlate::Always, move |change| {
            let workspace = change.workspace();
            let found = identity::named(change.tx, workspace, &ask.identity)?;
            let (id, row) = found.ok_or_else(|| Abort::Refused(not_found()))?;
            change.audit("identity.delete", format!("Deleted identity {id}"), vec![identity_target(id, &row)]);
            for limit in &row.ratelimits {
                tell_of_limit(change, id, &row, limit, Fate::Deleted);
            }
            // Its keys are not touched: a link to a deleted identity is ignored, so the transaction does not grow with
            // their number. What nobody can read again is not kept either.
            let now = change.now();
            let gone = IdentityRow { meta: None, ratelimits: Vec::new(), deleted_at: Some(now), ..row };
            identity::put(change.tx, workspace, id, &gone);
            Ok(())
        });
        deleted.await?;
        Ok(NoData)
    }
}
