//! ratelimit.deleteOverride: what was set for an identifier no longer acts.

use keyward_storage::Abort;
use keyward_storage::records::ratelimit;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{live_namespace, may_not, namespace_target, override_not_found, still_live};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Text};
use crate::rbac::Need;
use crate::tenants::target;

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The namespace's id or name.
    namespace: Text<1, 512>,
    /// The identifier or pattern exactly as it was set; patterns are not matched here.
    identifier: Text<1, 512>,
}

/// ratelimit.deleteOverride.
pub struct DeleteOverride;

impl Operation for DeleteOverride {
    const NAME: &'static str = "ratelimit.deleteOverride";
    const SUMMARY: &'static str = "Delete an override";
    const DESCRIPTION: &'static str = "Deletes the override that was set for exactly this identifier or pattern. From the \
        next request on limits apply what they ask for, or another pattern that matches; what was counted is kept.";
    const ALLOWS: &'static [&'static str] = &["ratelimit.*.delete_override", "ratelimit.<namespaceId>.delete_override"];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceNotFound, Code::RatelimitOverrideNotFound];
    const AUDITS: &'static [&'static str] = &["ratelimit.delete_override"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let namespace = live_namespace(&call, &ask.namespace).await?.id;
        let need = namespace.spell();
        let granted = call.may(&Need::any_or_one("ratelimit", &need, "delete_override"));
        let granted = granted.ok_or_else(|| may_not("delete_override", &ask.namespace))?;
        let deleted = granted.transact(Correlate::IfSeveral, move |change| {
            let of = still_live(change, namespace)?;
            let workspace = change.workspace();
            let identifier = &*ask.identifier;
            let row = ratelimit::get_override(change.tx, workspace, namespace, identifier)?;
            let row = row.ok_or_else(|| Abort::Refused(override_not_found()))?;
            ratelimit::remove_override(change.tx, workspace, namespace, identifier, &row);
            change.audit(
                "ratelimit.delete_override",
                format!("Deleted override {} for {identifier} in namespace {namespace}", row.id),
                vec![target("ratelimitOverride", row.id, identifier), namespace_target(namespace, &of.name)],
            );
            Ok(())
        });
        deleted.await?;
        Ok(Empty {})
    }
}
