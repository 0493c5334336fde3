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
    /// As the hot index has it.
    pub fn new(view: &IdentityView) -> Identity {
        let ratelimits = view.ratelimits.iter().map(Ratelimit::new).collect();
        Identity::of(view.id, &view.external_id, view.meta.as_deref(), ratelimits)
    }

    /// As its row has it.
    pub fn stored(id: IdentityId, row: &IdentityRow) -> Identity {
        let ratelimits = row.ratelimits.iter().map(Ratelimit::stored).collect();
        Identity::of(id, &row.external_id, row.meta.as_deref(), ratelimits)
    }

    fn of(id: IdentityId, external_id: &str, meta: Option<&str>, ratelimits: Vec<Ratelimit>) -> Identity {
        let meta = shown_meta(meta).map(|meta| Verbatim(meta.to_owned()));
        Identity { id: id.to_string(), external_id: external_id.to_owned(), meta, ratelimits }
    }
}
