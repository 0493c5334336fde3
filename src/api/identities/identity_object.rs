//! An identity, as identities.* and the keys linked to it show it (ID-RES-01).

use keyward_storage::ids::IdentityId;
use keyward_storage::records::identity::{IdentityRow, IdentityView};
use schemars::JsonSchema;
use serde::Serialize;

use crate::api::attached_limits::Ratelimit;
use crate::api::shape::{Verbatim, shown_meta};

/// An identity.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its id.
    pub id: String,
    /// Your own id of it.
    external_id: String,
    /// Its metadata, as it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Verbatim<String>>,
    /// Its rate limits, in the order they were set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ratelimits: Vec<Ratelimit>,
}

impl Identity {
    /// As its row has it.
    pub fn new(id: IdentityId, row: IdentityRow) -> Identity {
        Identity {
            id: id.to_string(),
            external_id: row.external_id,
            meta: row.meta.filter(|meta| shown_meta(Some(meta)).is_some()).map(Verbatim),
            ratelimits: row.ratelimits.into_iter().map(Ratelimit::from).collect(),
        }
    }
}

/// As the hot index has it.
impl From<&IdentityView> for Identity {
    fn from(view: &IdentityView) -> Identity {
        Identity {
            id: view.id.to_string(),
            external_id: view.external_id.to_string(),
            meta: shown_meta(view.meta.as_deref()).map(|meta| Verbatim(meta.to_owned())),
            ratelimits: view.ratelimits.iter().map(Ratelimit::new).collect(),
        }
    }
}
