//! ratelimit.listNamespaces: the namespaces of the workspace (EXT-14).

use keyward_storage::ids::NamespaceId;
use keyward_storage::records::ratelimit::NamespaceRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, Paging, Search, SearchText};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};
use crate::rbac::Need;

/// Which page.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Rows on the page.
    #[serde(default)]
    #[schemars(extend("default" = 100))]
    limit: Limit,
    /// Where the page begins, from the page before.
    #[serde(default)]
    cursor: Cursor,
    /// Only namespaces whose id or name holds this text, in whatever letters' case.
    #[serde(default)]
    search: SearchText,
}

/// A namespace.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// Its id.
    id: String,
    /// Its name, as it was given.
    name: String,
    /// Unix milliseconds.
    created_at: u64,
}

/// ratelimit.listNamespaces.
pub struct ListNamespaces;

impl Operation for ListNamespaces {
    const NAME: &'static str = "ratelimit.listNamespaces";
    const SUMMARY: &'static str = "List namespaces";
    const DESCRIPTION: &'static str = "Returns the workspace's rate-limit namespaces by id, deleted ones left out.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["ratelimit.*.read_namespace"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<Namespace>;

    async fn run(call: Call, ask: Request) -> Result<Page<Namespace>, Problem> {
        let _granted = call.authorize(&Need::tuple("ratelimit", "*", "read_namespace"))?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, NamespaceId::PREFIX);
        let search = Search::new(&ask.search);
        let keep = move |id, row: &NamespaceRow| {
            row.deleted_at.is_none() && search.finds([&*NamespaceId(id).spell(), &row.name])
        };
        let namespace = |id, row: NamespaceRow| Namespace {
            id: NamespaceId(id).to_string(),
            name: row.name,
            created_at: row.created_at,
        };
        paging.read(&call, "namespaces", keep, namespace).await
    }
}
