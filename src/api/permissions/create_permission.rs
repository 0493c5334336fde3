//! permissions.createPermission: a permission that roles and keys can then be given.

use keyward_storage::ids::PermissionId;
use keyward_storage::records::role::{self, PermissionRow};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Description, described, refuse_taken_slug, whole_permission_target};
use crate::api::call::{Call, Correlate};
use crate::api::operation::Operation;
use crate::api::problem::{Code, Problem};
use crate::api::shape::{Opt, Slug, Text};
use crate::rbac::Need;

/// What to make.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// A label for people. It need not be unique.
    name: Text<1, 512>,
    /// What verification compares, letter by letter. No other permission of the workspace may have it, in whatever letters'
    /// case.
    slug: Slug,
    /// A longer text about it.
    #[serde(default)]
    description: Opt<Description>,
}

/// The new permission.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Response {
    /// Its id.
    #[schemars(length(min = 3, max = 255), regex(pattern = "^[a-zA-Z0-9_]+$"))]
    permission_id: String,
}

/// permissions.createPermission.
pub struct CreatePermission;

impl Operation for CreatePermission {
    const NAME: &'static str = "permissions.createPermission";
    const SUMMARY: &'static str = "Create a permission";
    const DESCRIPTION: &'static str = "Makes a permission. Keys hold it once it is attached to them, directly or through \
        a role.";
    const ALLOWS: &'static [&'static str] = &["rbac.*.create_permission"];
    const FAILS: &'static [Code] = &[Code::PermissionAlreadyExists];
    const AUDITS: &'static [&'static str] = &["permission.create"];
    type Request = Request;
    type Response = Response;

    async fn run(call: Call, ask: Request) -> Result<Response, Problem> {
        let granted = call.authorize(&Need::tuple("rbac", "*", "create_permission"))?;
        let made = granted.transact(Correlate::IfSeveral, move |change| {
            refuse_taken_slug(change, &ask.slug, None)?;
            let id = PermissionId(change.new_id());
            let row = PermissionRow {
                slug: ask.slug.into_string(),
                name: ask.name.into_string(),
                description: described(ask.description),
                created_at: change.now(),
                updated_at: None,
            };
            let workspace = change.workspace();
            role::insert_permission(change.tx, workspace, id, &row);
            let entry = (id, row);
            let description = format!("Created {} ({id})", entry.1.slug);
            change.audit("permission.create", description, vec![whole_permission_target(&entry)]);
            Ok(id)
        });
        Ok(Response { permission_id: made.await?.value.to_string() })
    }
}
