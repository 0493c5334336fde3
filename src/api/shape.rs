//! The building blocks of requests and responses: parse and schema in one type.
//!
//! A request type is an ordinary struct of these, with `#[derive(Deserialize, JsonSchema)]`. What its schema says is what
//! decoding enforces; `validate.rs` explains a refusal by walking the same schema. Three rules keep it that way:
//!
//! - A member that may be absent is an [`Opt`] or a [`Patch`] and carries `#[serde(default)]`. `Option` is not used in
//!   requests, because it takes `null` for absent and the contract does not (COM-BODY-05). A member that must be there and
//!   may be `null` is a [`Null`].
//! - A closed object carries `#[serde(deny_unknown_fields)]` (COM-BODY-07).
//! - A default is documentation only (COM-BODY-04): `#[schemars(extend("default" = 16))]`.
//!
//! ```
//! use keyward::api::shape::{Ident, Int, List, Meta, Opt, Slug, Text};
//!
//! /// Makes a key.
//! #[derive(serde::Deserialize, schemars::JsonSchema)]
//! #[serde(rename_all = "camelCase", deny_unknown_fields)]
//! struct Request {
//!     /// The API that the key belongs to.
//!     api_id: Ident<3, 255>,
//!     /// A name for humans.
//!     #[serde(default)]
//!     name: Opt<Text<1, 255>>,
//!     /// Random bytes in the key.
//!     #[serde(default)]
//!     #[schemars(extend("default" = 16))]
//!     byte_length: Opt<Int<16, 255>>,
//!     /// Whatever should come back with each verification.
//!     #[serde(default)]
//!     meta: Opt<Meta>,
//!     /// Permissions by slug.
//!     #[serde(default)]
//!     permissions: Opt<List<Slug, 0, 1000>>,
//! }
//! let ask: Request = serde_json::from_str(r#"{"apiId":"api_1","byteLength":24}"#).unwrap();
//! assert_eq!(ask.byte_length.map_or(16, |length| length.get()), 24);
//! ```
//!
//! Responses are ordinary structs with `#[derive(Serialize, JsonSchema)]`; a member without a value is an `Option` with
//! `skip_serializing_if` (COM-ENV-06). Secrets are [`Secret`] and [`SecretText`], which mark themselves in the schema for
//! the redaction of recorded bodies (COM-LOG-03) and never print themselves.

mod meta;
mod text;
mod values;

pub use meta::{Meta, MetaError, META_BYTES_MAX, META_DEPTH_MAX, META_MEMBERS_MAX, Verbatim};
pub use text::{
    Anything, Charset, ExternalChars, ExternalId, Ident, Prefix, Resource, ResourceChars, Secret, SecretText, Slug,
    SlugChars, Text, WordChars, pattern,
};
pub use values::{Empty, Int, List, Null, Opt, Patch};

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// The keyword that bounds the compact length of a [`Meta`] in bytes; JSON Schema has none for it.
pub const MAX_BYTES_KEYWORD: &str = "x-keyward-max-bytes";

/// The mark of a secret member, read by the redaction of recorded bodies (COM-LOG-03).
pub const REDACT_KEYWORD: &str = "x-unkey-redact";

/// The schema of a request type, everything it refers to inlined.
pub fn request_schema<T: JsonSchema>() -> Schema {
    generate::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of a response type, everything it refers to inlined. An `Option` that is left out when it has no value is
/// never `null` (COM-ENV-06), and the schema says so.
pub fn response_schema<T: JsonSchema>() -> Schema {
    let mut schema = generate::<T>(SchemaSettings::draft2020_12().for_serialize());
    never_null_where_left_out(schema.as_object_mut().map(Value::Object).as_mut());
    schema
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> Schema {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = T::json_schema(&mut SchemaGenerator::new(settings));
    tidy(&mut schema);
    schema
}
