//! ratelimit.getOverride: which override acts on an identifier.

use schemars::JsonSchema;
use serde::Deserialize;

use super::override_object::Override;
use super::{live_namespace, override_for, override_not_found};
use crate::api::call::Call;
use crate::api::operation::{OnFollower, Operation};
use crate::api::problem::{Code, Problem};
use crate::api::shape::Text;
use crate::rbac::Need;

/// Whose override, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The namespace's id or name.
    namespace: Text<1, 512>,
    /// The identifier, as a limit would name it.
    identifier: Text<1, 512>,
}

/// ratelimit.getOverride.
pub struct GetOverride;

impl Operation for GetOverride {
    const NAME: &'static str = "ratelimit.getOverride";
    const SUMMARY: &'static str = "Get the override of an identifier";
    const DESCRIPTION: &'static str = "Returns the override that a limit on this identifier would apply: its own, or else \
        the pattern that matches it best. Overrides the caller may not read are answered as if they did not exist.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "ratelimit.*.read_override",
        "ratelimit.<namespaceId>.read_override",
        "unkey:v1:<workspaceId>:ratelimits/namespaces/<namespaceId>/overrides/<overrideId>#read_override",
    ];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceNotFound, Code::RatelimitOverrideNotFound];
    type Request = Request;
    type Response = Override;

    async fn run(call: Call, ask: Request) -> Result<Override, Problem> {
        // Who may read no override anywhere does not learn either which namespaces there are (RL-GETOV-04).
        let grants = &call.principal.grants;
        let by_tuple = grants.ids("ratelimit", "read_override").next().is_some();
        if !by_tuple && !grants.has_urn("ratelimits", "read_override") {
            return Err(override_not_found());
        }
        let view = live_namespace(&call, &ask.namespace).await?;
        let found = override_for(&call, &view, &ask.identifier).await?;
        let (identifier, found) = found.ok_or_else(override_not_found)?;
        let (namespace, id) = (view.id.spell(), found.id.spell());
        let path = ["ratelimits", "namespaces", &namespace, "overrides", &id];
        let need = [Need::any_or_one("ratelimit", &namespace, "read_override"), Need::urn(&path, "read_override")];
        let _granted = call.may(&Need::Any(&need)).ok_or_else(override_not_found)?;
        Ok(Override::new(found.id, identifier.to_owned(), found.limit, found.duration))
    }
}
