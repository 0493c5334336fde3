//! The building blocks of requests and responses: parse and schema in one type.
//!
//! A request type is an ordinary struct of these, with `#[derive(Deserialize, JsonSchema)]`. What its schema says is
//! what decoding enforces; `validate.rs` explains a refusal by walking the same schema. Three rules keep it that way:
//!
//! - A member that may be absent is an [`Opt`] or a [`Patch`] and carries `#[serde(default)]`. `Option` is not used in
//!   requests, because it takes `null` for absent and the contract does not (COM-BODY-05). A member that must be there
//!   and may be `null` is a [`Null`].
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
//! `skip_serializing_if` (COM-ENV-06). Secrets are [`Secret`] and [`SecretText`], which mark themselves in the schema
//! for the redaction of recorded bodies (COM-LOG-03) and never print themselves.

mod meta;
mod text;
mod values;

pub(in crate::api) use meta::compact;
pub use meta::{META_BYTES_MAX, META_DEPTH_MAX, META_MEMBERS_MAX, Meta, MetaError, Verbatim, shown_meta};
pub use text::{
    Anything, Charset, ExternalChars, ExternalId, Ident, Prefix, Resource, ResourceChars, Secret, SecretText, Slug,
    SlugChars, Text, WordChars, pattern,
};
pub use values::{Empty, Int, List, Null, Opt, Patch};

use schemars::JsonSchema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value};

/// The keyword that bounds the compact length of a [`Meta`] in bytes; JSON Schema has none for it.
pub const MAX_BYTES_KEYWORD: &str = "x-keyward-max-bytes";

/// The mark of a secret member, read by the redaction of recorded bodies (COM-LOG-03).
pub const REDACT_KEYWORD: &str = "x-unkey-redact";

/// The mark of a text that is often longer than a line: a command line also reads it from a file.
pub const LONG_TEXT_KEYWORD: &str = "x-keyward-long-text";

/// The schema of a request type, everything it refers to inlined.
pub fn request_schema<T: JsonSchema>() -> Value {
    generate::<T>(SchemaSettings::draft2020_12().for_deserialize())
}

/// The schema of a response type, everything it refers to inlined. An `Option` that is left out when it has no value is
/// never `null` (COM-ENV-06), and the schema says so.
pub fn response_schema<T: JsonSchema>() -> Value {
    let mut schema = generate::<T>(SchemaSettings::draft2020_12().for_serialize());
    forbid_null_where_left_out(&mut schema);
    schema
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let settings = settings.with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = T::json_schema(&mut SchemaGenerator::new(settings)).to_value();
    tidy(&mut schema);
    schema
}

/// Calls `change` on every schema directly below `schema`.
fn for_each_child(schema: &mut Map<String, Value>, mut change: impl FnMut(&mut Value)) {
    for (keyword, value) in schema {
        match (keyword.as_str(), value) {
            ("properties", Value::Object(members)) => members.values_mut().for_each(&mut change),
            ("oneOf" | "anyOf" | "allOf", Value::Array(schemas)) => schemas.iter_mut().for_each(&mut change),
            ("items" | "additionalProperties", value) => change(value),
            _ => {}
        }
    }
}

/// Rewrites what the derive makes of documented enumerations and of optional objects into plainer keywords.
fn tidy(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for_each_child(schema, tidy);

    // An enumeration whose variants have doc comments comes as `oneOf` constants.
    if let Some(Value::Array(choices)) = schema.get("oneOf") {
        let mut names = Vec::new();
        let mut lines = Vec::new();
        for choice in choices {
            match (choice.get("const"), choice.get("enum"), choice.get("description")) {
                (Some(name), None, description) => {
                    if let (Value::String(name), Some(Value::String(description))) = (name, description) {
                        lines.push(format!("- `{name}`: {description}"));
                    }
                    names.push(name.clone());
                }
                (None, Some(Value::Array(undocumented)), _) => names.extend(undocumented.iter().cloned()),
                _ => return,
            }
        }
        schema.remove("oneOf");
        schema.insert("type".into(), "string".into());
        schema.insert("enum".into(), names.into());
        if !lines.is_empty() {
            let mut description = lines.join("\n");
            if let Some(Value::String(before)) = schema.get("description") {
                description = format!("{before}\n\n{description}");
            }
            schema.insert("description".into(), description.into());
        }
    }

    // An optional object comes as a choice between the object and null.
    if let Some(Value::Array(choices)) = schema.get("anyOf")
        && let [Value::Object(inner), null] = &choices[..]
        && null.get("type").is_some_and(|kind| kind == "null")
    {
        let mut inner = inner.clone();
        schema.remove("anyOf");
        make_nullable(&mut inner);
        // What was said of this very place beats what is said of the type.
        inner.append(schema);
        *schema = inner;
    }
}

/// Lets a schema take `null` as well.
fn make_nullable(schema: &mut Map<String, Value>) {
    if let Some(Value::String(kind)) = schema.get("type") {
        let kinds = vec![Value::from(kind.as_str()), "null".into()];
        schema.insert("type".into(), kinds.into());
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.push(Value::Null);
    }
}

fn forbid_null_where_left_out(schema: &mut Value) {
    let Value::Object(schema) = schema else { return };
    for_each_child(schema, forbid_null_where_left_out);
    let required: Vec<String> = match schema.get("required") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let Some(Value::Object(members)) = schema.get_mut("properties") else { return };
    for (_, member) in members.iter_mut().filter(|(name, _)| !required.contains(name)) {
        if let Some(Value::Array(kinds)) = member.get("type")
            && let [kind, null] = &kinds[..]
            && null == "null"
        {
            member["type"] = kind.clone();
            if let Some(Value::Array(values)) = member.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    /// How often credits are refilled.
    #[derive(Deserialize, Serialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    enum Interval {
        /// Each midnight.
        Daily,
        /// On a day of the month.
        Monthly,
    }

    /// What the comments of the type and of its variants become.
    const INTERVAL: &str =
        "How often credits are refilled.\n\n- `daily`: Each midnight.\n- `monthly`: On a day of the month.";

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[allow(dead_code)]
    struct Ask {
        /// The key.
        key_id: Ident<3, 255>,
        #[serde(default)]
        secret: Opt<SecretText<1, 512>>,
        #[serde(default)]
        name: Patch<Text<1, 255>>,
        #[serde(default)]
        #[schemars(extend("default" = 16))]
        byte_length: Opt<Int<16, 255>>,
        remaining: Null<Int<0, { i64::MAX }>>,
        #[serde(default)]
        interval: Opt<Interval>,
        #[serde(default)]
        refill: Patch<Open>,
        #[serde(default)]
        meta: Patch<Meta>,
        #[serde(default)]
        permissions: Opt<List<Slug, 0, 1000>>,
        #[serde(default)]
        external_id: Opt<ExternalId>,
        enabled: bool,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code)]
    struct Open {
        amount: Int<1, { i64::MAX }>,
    }

    /// Schemas come out like the contract's: bounds, patterns, nullable types, closed and open objects, defaults.
    #[test]
    fn a_request_type_is_its_schema() {
        let (words, slugs) = ("^[a-zA-Z0-9_]+$", r"^[a-zA-Z0-9_:\-\.\*]+$");
        let wanted = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["keyId", "remaining", "enabled"],
            "properties": {
                "keyId": {
                    "type": "string", "minLength": 3, "maxLength": 255, "pattern": words, "description": "The key."
                },
                "secret": {"type": "string", "minLength": 1, "maxLength": 512, "x-unkey-redact": true},
                "name": {"type": ["string", "null"], "minLength": 1, "maxLength": 255},
                "byteLength": {"type": "integer", "format": "int64", "minimum": 16, "maximum": 255, "default": 16},
                "remaining": {"type": ["integer", "null"], "format": "int64", "minimum": 0},
                "interval": {
                    "type": "string", "enum": ["daily", "monthly"],
                    "description": INTERVAL,
                },
                "refill": {
                    "type": ["object", "null"], "required": ["amount"],
                    "properties": {"amount": {"type": "integer", "format": "int64", "minimum": 1}},
                },
                "meta": {
                    "type": ["object", "null"], "additionalProperties": true, "maxProperties": 100,
                    "x-keyward-max-bytes": 65536,
                },
                "permissions": {
                    "type": "array", "maxItems": 1000,
                    "items": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": slugs},
                },
                "externalId": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9_.-]+$"},
                "enabled": {"type": "boolean"},
            },
        });
        assert_eq!(request_schema::<Ask>(), wanted);
    }

    #[derive(Serialize, JsonSchema)]
    #[serde(rename_all = "camelCase")]
    struct Reply {
        key: Secret,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        refill: Option<Refill>,
        #[serde(skip_serializing_if = "Option::is_none")]
        interval: Option<Interval>,
        remaining: Option<i64>,
    }

    #[derive(Serialize, JsonSchema)]
    struct Refill {
        amount: i64,
    }

    /// COM-ENV-06, COM-LOG-03: what is left out is never null, what is always there may be; secrets are marked.
    #[test]
    fn a_response_type_is_its_schema() {
        let wanted = json!({
            "type": "object",
            "required": ["key", "remaining"],
            "properties": {
                "key": {"type": "string", "x-unkey-redact": true},
                "name": {"type": "string"},
                "refill": {
                    "type": "object", "required": ["amount"],
                    "properties": {"amount": {"type": "integer", "format": "int64"}},
                },
                "interval": {
                    "type": "string", "enum": ["daily", "monthly"],
                    "description": INTERVAL,
                },
                "remaining": {"type": ["integer", "null"], "format": "int64"},
            },
        });
        assert_eq!(response_schema::<Reply>(), wanted);
    }
}
