//! migrations.listMigrations: the migrations of the workspace (EXT-13).

use keyward_storage::ids::MigrationId;
use keyward_storage::records::migration::MigrationRow;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Algorithm;
use crate::api::call::Call;
use crate::api::listing::{Cursor, LIMIT_DEFAULT, Limit, Paging};
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
}

/// A migration.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Migration {
    /// Its id.
    id: String,
    /// Its name.
    name: String,
    /// How the hashes of its keys were made.
    algorithm: Algorithm,
    /// Unix milliseconds.
    created_at: u64,
}

/// migrations.listMigrations.
pub struct ListMigrations;

impl Operation for ListMigrations {
    const NAME: &'static str = "migrations.listMigrations";
    const SUMMARY: &'static str = "List migrations";
    const DESCRIPTION: &'static str = "Returns the workspace's migrations by id.";
    const ON_FOLLOWER: OnFollower = OnFollower::Local;
    const ALLOWS: &'static [&'static str] = &["api.*.create_key"];
    const FAILS: &'static [Code] = &[];
    type Request = Request;
    type Response = Page<Migration>;

    async fn run(call: Call, ask: Request) -> Result<Page<Migration>, Problem> {
        let _granted = call.authorize(&Need::tuple("api", "*", "create_key"))?;
        let paging = Paging::new(&ask.limit, LIMIT_DEFAULT, &ask.cursor, MigrationId::PREFIX);
        let shown = |id, row: MigrationRow| Migration {
            id: MigrationId(id).to_string(),
            name: row.name,
            algorithm: row.algorithm.into(),
            created_at: row.created_at,
        };
        paging.read(&call, "migrations", |_, _| true, shown).await
    }
}
