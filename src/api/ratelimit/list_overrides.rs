//! ratelimit.listOverrides: the overrides of a namespace.

use keyward_storage::ids::OverrideId;
use keyward_storage::records::ratelimit;
use schemars::JsonSchema;
use serde::Deserialize;

use super::override_object::Override;
use super::{live_namespace, may_not};
use crate::api::call::Call;
use crate::api::listing::{Cursor, Limit, Paging};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::api::shape::Text;
use crate::rbac::Need;

/// Rows on a page whose request names no number (RL-LISTOV-01).
const LIMIT_DEFAULT: usize = 50;

/// Of which namespace, and which page.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The namespace's id or name.
    namespace: Text<1, 512>,
    /// Rows on the page.
    #[serde(default)]
    #[schemars(extend("default" = 50))]
    limit: Limit,
    /// Where the page begins, from the page before.
    #[serde(default)]
    cursor: Cursor,
}

/// ratelimit.listOverrides.
pub struct ListOverrides;

impl Operation for ListOverrides {
    const NAME: &'static str = "ratelimit.listOverrides";
    const SUMMARY: &'static str = "List the overrides of a namespace";
    const DESCRIPTION: &'static str = "Returns the overrides of a namespace by id.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["ratelimit.*.read_override", "ratelimit.<namespaceId>.read_override"];
    const FAILS: &'static [Code] = &[Code::RatelimitNamespaceNotFound];
    type Request = Request;
    type Response = Page<Override>;

    async fn run(call: Call, ask: Request) -> Result<Page<Override>, Problem> {
        let namespace = live_namespace(&call, &ask.namespace).await?.id;
        let need = namespace.spell();
        let _granted = call
            .may(&Need::any_or_one("ratelimit", &need, "read_override"))
            .ok_or_else(|| may_not("read_override", &ask.namespace))?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, OverrideId::PREFIX);
        let workspace = call.workspace();
        let page = call.read("overrides", move |storage| {
            let snapshot = storage.snapshot()?;
            let ids = ratelimit::override_ids(&snapshot, workspace, namespace, paging.from(), paging.most())?;
            let row = |(id, identifier): (OverrideId, String)| {
                let row = ratelimit::get_override(&snapshot, workspace, namespace, &identifier)?;
                Ok(row.map(|row| Override::new(id, identifier, row.limit, row.duration)))
            };
            paging.fill(ids, |(id, _)| id.0, row)
        });
        page.await
    }
}
