//! identities.listIdentities: the identities of the workspace.

use keyward_storage::ids::IdentityId;
use keyward_storage::records::identity;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Reader;
use super::identity_object::Identity;
use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, Paging, Search, SearchText};
use crate::api::operation::{OnFollower, Operation, Page};
use crate::api::problem::{Code, Problem};

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
    /// Only identities whose id or external id holds this text, in whatever letters' case.
    #[serde(default)]
    search: SearchText,
}

/// identities.listIdentities.
pub struct ListIdentities;

impl Operation for ListIdentities {
    const NAME: &'static str = "identities.listIdentities";
    const SUMMARY: &'static str = "List identities";
    const DESCRIPTION: &'static str = "Returns the workspace's identities by id, with their metadata and rate limits.\n\n\
        A root key that may read only some identities gets a page only where it may read every identity on it; otherwise \
        the answer is 403, because with rows left out the page would look complete. Narrow it with `search`.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &[
        "identity.*.read_identity",
        "identity.<identityId>.read_identity",
        "unkey:v1:<workspaceId>:projects/*/identities/*#read_identity",
    ];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<Identity>;

    async fn run(call: Call, ask: Request) -> Result<Page<Identity>, Problem> {
        let reader = Reader::new(&call)?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, IdentityId::PREFIX);
        let search = Search::new(&ask.search);
        let workspace = call.workspace();
        let read = call.read("identities", move |storage| {
            let snapshot = storage.snapshot()?;
            let (from, most) = (paging.from(), paging.most());
            let ids = if search.finds_everything() {
                identity::ids(&snapshot, workspace, from, most)?
            } else {
                identity::search(&snapshot, workspace, from, most, |id, external_id| {
                    search.finds([&*id.spell(), external_id])
                })?
            };
            let mut on_page = Vec::new();
            let row = |id| {
                on_page.push(id);
                Ok(identity::get_live(&snapshot, workspace, id)?.map(|row| Identity::stored(id, &row)))
            };
            Ok((paging.fill(ids, |id| id.0, row)?, on_page))
        });
        let (page, on_page) = read.await?;
        // What comes behind the page only lends its id to the cursor.
        on_page.into_iter().try_for_each(|id| reader.check(id))?;
        Ok(page)
    }
}
