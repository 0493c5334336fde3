//! ratelimit.setOverride: another limit for some identifiers of a namespace.

use keyward_storage::Abort;
use keyward_storage::ids::OverrideId;
use keyward_storage::records::ratelimit::{self, OverrideRow, PATTERNS_MAX};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{live_namespace, may_not, still_live};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Int, Text};
use crate::api::trail::Changes;
use crate::rbac::Need;
use crate::tenants::target;

/// What to set for whom.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The namespace's id or name. It must exist.
    namespace: Text<1, 512>,
    /// The identifier; one that contains `*` is a pattern, in which `*` stands for any run of characters.
    identifier: Text<1, 512>,
    /// Most cost per window; 0 refuses everything that costs anything.
    limit: Int<0, { i64::MAX }>,
    /// Window length in milliseconds.
    duration: Int<1000, { i64::MAX }>,
}

/// The override that is now in force.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id; setting it again for the same identifier keeps it.
    override_id: String,
}

/// ratelimit.setOverride.
pub struct SetOverride;

impl Operation for SetOverride {
    const NAME: &'static str = "ratelimit.setOverride";
    const SUMMARY: &'static str = "Set an override";
    const DESCRIPTION: &'static str = "Sets the limit and the duration that `ratelimit.limit` and `ratelimit.multiLimit` \
        apply to an identifier, or to all that match a pattern, in place of what they ask for. The next request sees it. \
        What was counted is kept: with the same duration it counts against the new limit.\n\nAn identifier's own override \
        comes first; of several patterns that match, the one with the most literal characters, then the one with the \
        fewest `*`. A namespace has at most 1,000 patterns (412 beyond that) and any number of other overrides.";
    const ALLOWS: &'static [&'static str] = &["ratelimit.*.set_override", "ratelimit.<namespaceId>.set_override"];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceNotFound, Code::PreconditionFailed];
    const AUDITS: &'static [&'static str] = &["ratelimit.set_override"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let namespace = live_namespace(&call, &ask.namespace).await?.id;
        let need = namespace.spell();
        let granted = call.may(&Need::any_or_one("ratelimit", &need, "set_override"));
        let granted = granted.ok_or_else(|| may_not("set_override", &ask.namespace))?;
        let set = granted.transact(Correlate::IfSeveral, move |change| {
            still_live(change, namespace)?;
            let workspace = change.workspace();
            let identifier = &*ask.identifier;
            let (limit, duration) = (ask.limit.get_unsigned(), ask.duration.get_unsigned());
            let before = ratelimit::get_override(change.tx, workspace, namespace, identifier)?;
            let mut changes = Changes::default();
            let row = match before {
                Some(before) => {
                    changes.note("limit", json!(before.limit), json!(limit));
                    changes.note("duration", json!(before.duration), json!(duration));
                    // A request that changes nothing records nothing (AL-OP-01).
                    if changes.is_empty() {
                        return Ok(before.id);
                    }
                    OverrideRow { limit, duration, ..before }
                }
                None => {
                    if ratelimit::is_pattern(identifier)
                        && ratelimit::is_full_of_patterns(change.tx, workspace, namespace)?
                    {
                        return Err(Abort::Refused(too_many_patterns()));
                    }
                    OverrideRow { id: OverrideId(change.new_id()), limit, duration, created_at: change.now() }
                }
            };
            ratelimit::put_override(change.tx, workspace, namespace, identifier, &row);
            let mut target = target("ratelimitOverride", row.id, identifier);
            target.meta = changes.into_meta();
            let description = format!("Set override {} for {identifier} in namespace {namespace}", row.id);
            change.audit("ratelimit.set_override", description, vec![target]);
            Ok(row.id)
        });
        Ok(Response { override_id: set.await?.value.to_string() })
    }
}

fn too_many_patterns() -> Problem {
    let detail = format!(
        "This namespace has {PATTERNS_MAX} overrides with a wildcard, which is as many as it can have. Delete one first, or \
         set overrides for single identifiers, whose number has no bound."
    );
    Problem::new(Code::PreconditionFailed, detail)
}
