//! apis.*: named containers of keys.

pub mod create_api;
pub mod delete_api;
pub mod get_api;
pub mod list_apis;
pub mod list_keys;
#[cfg(test)]
mod trail_tests;
pub mod update_api;

use keyward_storage::ids::ApiId;
use keyward_storage::records::audit::Target;

use super::problem::{Code, Problem};
use crate::tenants::target;

/// One answer for an API of another workspace, a deleted one and an unknown one (APIS-GEN-4).
pub(super) fn not_found() -> Problem {
    Problem::new(Code::ApiNotFound, "The requested API does not exist or has been deleted.")
}

/// The API as an audit target.
pub(super) fn api_target(id: ApiId, name: &str) -> Target {
    target("api", id, name)
}
