//! migrations.createMigration: begin to take keys over from another system (EXT-13).

use keyward_storage::ids::MigrationId;
use keyward_storage::records::migration::{self, MigrationRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Algorithm;
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::Text;
use crate::rbac::Need;
use crate::tenants::target;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// A name for people.
    name: Text<1, 255>,
    /// How the hashes of its keys were made.
    algorithm: Algorithm,
}

/// The new migration.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    migration_id: String,
}

/// migrations.createMigration.
pub struct CreateMigration;

impl Operation for CreateMigration {
    const NAME: &'static str = "migrations.createMigration";
    const SUMMARY: &'static str = "Create a migration";
    const DESCRIPTION: &'static str = "Makes a migration: `keys.migrateKeys` takes keys over by it, from their hashes, and \
        `keys.verifyKey` is told its id for keys whose hashes are of a foreign kind.";
    const ALLOWS: &'static [&'static str] = &["api.*.create_key"];
    const FAILS: &'static [Code] = &[];
    const AUDITS: &'static [&'static str] = &["migration.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::tuple("api", "*", "create_key"))?;
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            let id = MigrationId(change.new_id());
            let algorithm = migration::Algorithm::from(ask.algorithm);
            let row = MigrationRow { name: ask.name.into_string(), algorithm, created_at: change.now() };
            let workspace = change.workspace();
            migration::put(change.tx, workspace, id, &row);
            let mut made = target("migration", id, &row.name);
            // The names of algorithms have no character that JSON escapes.
            made.meta = Some(format!(r#"{{"algorithm":"{}"}}"#, algorithm.name()));
            change.audit("migration.create", format!("Created migration {id}"), vec![made]);
            Ok(id)
        });
        Ok(Response { migration_id: made.await?.value.to_string() })
    }
}
