//! apis.deleteApi: mark an API deleted; its keys are no longer live.

use keyward_storage::Abort;
use keyward_storage::ids::ApiId;
use keyward_storage::records::api;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{api_target, not_found};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Empty, Text};
use crate::rbac::Need;

/// Which one.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// The API's id.
    api_id: Text<8, 255>,
}

/// apis.deleteApi.
pub struct DeleteApi;

impl Operation for DeleteApi {
    const NAME: &'static str = "apis.deleteApi";
    const SUMMARY: &'static str = "Delete an API";
    const DESCRIPTION: &'static str = "Deletes an API. From the next request on its keys verify as NOT_FOUND and no \
        operation finds them, however many there are. There is no way back.";
    const ALLOWS: &'static [&'static str] = &["api.*.delete_api", "api.<apiId>.delete_api"];
    const FAILS: &'static [Code] = &[Code::ApiNotFound, Code::ProtectedResource];
    const AUDITS: &'static [&'static str] = &["api.delete"];
    type Request = Request;
    type Response = Empty;

    async fn run(call: Call, ask: Request) -> Result<Empty, Problem> {
        let granted = call.authorize(&Need::any_or_one("api", &ask.api_id, "delete_api"))?;
        let id = ApiId::parse(&ask.api_id).ok_or_else(not_found)?;
        let deleted = granted.transact(Correlate::IfSeveral, move |change| {
            let workspace = change.workspace();
            let row = api::get_live(change.tx, workspace, id)?.ok_or_else(|| Abort::Refused(not_found()))?;
            if row.delete_protection {
                return Err(Abort::Refused(Problem::new(
                    Code::ProtectedResource,
                    "This API has delete protection enabled. Disable it before attempting to delete.",
                )));
            }
            // Its keys are not touched: the mark alone ends them, so the transaction does not grow with their number.
            let now = change.now();
            let name = row.name.clone();
            api::put(change.tx, workspace, id, &api::ApiRow { deleted_at: Some(now), ..row });
            change.audit("api.delete", format!("Deleted API {id}"), vec![api_target(id, &name)]);
            Ok(())
        });
        deleted.await?;
        Ok(Empty {})
    }
}
