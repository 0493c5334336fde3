//! ratelimit.createNamespace: make a namespace before anything is counted in it (EXT-14).

use keyward_storage::Abort;
use keyward_storage::records::ratelimit;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{gone, make_namespace};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::Text;
use crate::rbac::Need;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Its name, unique in the workspace and kept exactly as it is given.
    name: Text<1, 512>,
}

/// The new namespace.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    namespace_id: String,
}

/// ratelimit.createNamespace.
pub struct CreateNamespace;

impl Operation for CreateNamespace {
    const NAME: &'static str = "ratelimit.createNamespace";
    const SUMMARY: &'static str = "Create a namespace";
    const DESCRIPTION: &'static str = "Makes a namespace for rate limits. `ratelimit.limit` makes those that are missing by \
        itself, for callers who may; this is for setting overrides first, and for callers who may only limit.\n\nA name \
        that is in use, or is the id of another namespace, is 409; that of a deleted namespace is 410, since it cannot be \
        used again.";
    const ALLOWS: &'static [&'static str] = &["ratelimit.*.create_namespace"];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceAlreadyExists, Code::RatelimitNamespaceGone];
    const AUDITS: &'static [&'static str] = &["ratelimitNamespace.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::tuple("ratelimit", "*", "create_namespace"))?;
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            // Also by id: a namespace whose name is another one's id would never be found (RL-NS-01).
            match ratelimit::find_by_id_or_name(change.tx, change.workspace(), &ask.name)? {
                Some((_, row)) if row.deleted_at.is_some() => Err(Abort::Refused(gone(&ask.name))),
                Some(_) => Err(Abort::Refused(taken(&ask.name))),
                None => Ok(make_namespace(change, ask.name.into_string())),
            }
        });
        Ok(Response { namespace_id: made.await?.value.to_string() })
    }
}

fn taken(name: &str) -> Problem {
    Problem::new(Code::RatelimitNamespaceAlreadyExists, format!("There is a namespace '{name}' already."))
}
