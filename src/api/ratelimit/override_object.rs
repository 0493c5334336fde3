//! An override as getOverride and listOverrides return it.

use keyward_storage::ids::OverrideId;
use schemars::JsonSchema;
use serde::Serialize;

// RL-OVR-01.
/// An override: the limit of some identifiers of a namespace.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// Its id.
    override_id: String,
    /// The identifier it was set for, or the pattern where it has a `*`.
    identifier: String,
    /// Most cost per window.
    limit: u64,
    /// Window length in milliseconds.
    duration: u64,
}

impl Override {
    /// What an override says, and what it was set for.
    pub fn new(id: OverrideId, identifier: String, limit: u64, duration: u64) -> Override {
        Override { override_id: id.to_string(), identifier, limit, duration }
    }

    /// Its id, which is where the next page begins.
    pub fn id(&self) -> &str {
        &self.override_id
    }
}
