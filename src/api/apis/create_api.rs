//! apis.createApi: make an API and its key space.

use keyward_storage::ids::{ApiId, KeyspaceId};
use keyward_storage::records::api::{self, ApiRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api_target;
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::Text;
use crate::rbac::Need;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// A name for people. It need not be unique and is kept as it is given.
    name: Text<3, 256>,
}

/// The new API.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    #[schemars(length(min = 8, max = 255), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    api_id: String,
}

/// apis.createApi.
pub struct CreateApi;

impl Operation for CreateApi {
    const NAME: &'static str = "apis.createApi";
    const SUMMARY: &'static str = "Create an API";
    const DESCRIPTION: &'static str = "Makes an API, the container that keys are created in, together with its key \
        space. Every call makes another API. It is usable at once.";
    const ALLOWS: &'static [&'static str] = &["api.*.create_api"];
    const FAILS: &'static [Code] = &[];
    const AUDITS: &'static [&'static str] = &["api.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::tuple("api", "*", "create_api"))?;
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            let id = ApiId(change.new_id());
            let row = ApiRow {
                keyspace: KeyspaceId(change.new_id()),
                name: ask.name.into_string(),
                created_at: change.now(),
                deleted_at: None,
                default_prefix: None,
                default_bytes: None,
                store_encrypted_keys: false,
                delete_protection: false,
                ip_whitelist: Vec::new(),
            };
            let workspace = change.workspace();
            api::put(change.tx, workspace, id, &row);
            change.audit("api.create", format!("Created API {id}"), vec![api_target(id, &row.name)]);
            Ok(id)
        });
        Ok(Response { api_id: made.await?.value.to_string() })
    }
}
