//! The OpenAPI 3.1 document, made from the table of operations.
//!
//! The same document is the source of the reference page (`reference.rs`) and of the redaction of recorded bodies. It
//! is made once, at start, and is the same text every time: maps are sorted and the table has an order.

mod yaml;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::listing;
use super::operation::{Body, COMMON_FAILURES, Credential, Entry};
use super::problem::{Code, JSON, PROBLEM_JSON, TYPE_BASE};

pub use yaml::yaml;

/// `info.version` (COM-SYS-02): the version of the API, not of the program.
pub const VERSION: &str = "2.0.0";

/// Extension: the permissions that open an operation.
pub const PERMISSIONS_KEYWORD: &str = "x-keyward-permissions";

/// Extension: the audit events that an operation may write.
pub const AUDITS_KEYWORD: &str = "x-keyward-audit-events";

/// Extension: the codes behind a status.
pub const CODES_KEYWORD: &str = "x-keyward-codes";

const INTRODUCTION: &str = "keyward answers the Unkey v2 API. Here are the operations this version has; any other \
answers 404.\n\nEvery operation but liveness is a POST with a JSON body. A success carries `meta.requestId` and `data`; a failure \
carries `meta.requestId` and `error`, whose `type` says what went wrong.\n\nIn the examples `$KEYWARD` is the server, scheme \
and port included, and `$ROOT_KEY` a root key, such as the one in `keyward-data/root.key`; ids stand for your own.";

/// The document of these operations, and of liveness.
pub fn document(entries: &[&'static Entry]) -> Value {
    let mut paths = Map::new();
    let mut schemas = shared_schemas();
    let mut tags: Vec<&str> = Vec::new();
    for entry in entries {
        if !tags.contains(&entry.family) {
            tags.push(entry.family);
        }
        let name = component(entry);
        schemas.insert(format!("{name}RequestBody"), (entry.request_schema)());
        add_reply(&name, entry, &mut schemas);
        paths.insert(entry.path.into(), json!({"post": operation(entry, &name)}));
    }
    paths.insert("/v2/liveness".into(), liveness());
    schemas.insert(
        "V2LivenessResponseBody".into(),
        body_schema(json!({"$ref": "#/components/schemas/V2LivenessResponseData"})),
    );
    schemas.insert(
        "V2LivenessResponseData".into(),
        json!({"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}),
    );
    let tags: Vec<Value> = tags.into_iter().chain(["liveness"]).map(|name| json!({"name": name})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {"title": "keyward", "version": VERSION, "description": INTRODUCTION},
        "servers": [{"url": "/"}],
        "tags": tags,
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "root key",
                    "description": "A root key of the workspace that the request is about.",
                },
                "portalSession": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "portal_session",
                    "description": "The access token that portal.exchangeCode gave.",
                },
            },
            "schemas": schemas,
        },
    })
}

/// `keys.createKey` is `V2KeysCreateKey` among the components, as official clients know it.
fn component(entry: &Entry) -> String {
    let capital = |word: &str| {
        let mut characters = word.chars();
        characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
    };
    format!("V2{}{}", capital(entry.family), capital(entry.procedure))
}

fn reference_to(component: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{component}")})
}

/// The envelope round a `data` schema.
fn body_schema(data: Value) -> Value {
    json!({
        "type": "object",
        "required": ["meta", "data"],
        "properties": {"meta": reference_to("Meta"), "data": data},
    })
}

fn add_reply(name: &str, entry: &Entry, schemas: &mut Map<String, Value>) {
    let reply = (entry.reply_schema)();
    let mut required = vec![Value::from("meta")];
    let mut properties = Map::new();
    properties.insert("meta".into(), reference_to("Meta"));
    if let Some(data) = reply.data {
        let component = format!("{name}ResponseData");
        properties.insert("data".into(), reference_to(&component));
        required.push("data".into());
        schemas.insert(component, data);
    }
    if reply.paged {
        properties.insert("pagination".into(), reference_to("Pagination"));
        required.push("pagination".into());
    }
    for (member, schema) in reply.more {
        properties.insert(member.into(), schema);
        required.push(member.into());
    }
    let body = json!({"type": "object", "required": required, "properties": properties});
    schemas.insert(format!("{name}ResponseBody"), body);
}

fn operation(entry: &Entry, name: &str) -> Value {
    let mut operation = json!({
        "operationId": entry.name,
        "tags": [entry.family],
        "summary": entry.summary,
        "requestBody": {
            "required": entry.body == Body::Required,
            "content": {JSON: {"schema": reference_to(&format!("{name}RequestBody"))}},
        },
        "responses": responses(entry, name),
    });
    if !entry.description.is_empty() {
        operation["description"] = entry.description.into();
    }
    match entry.credential {
        Credential::RootKey => {}
        Credential::PortalSession => operation["security"] = json!([{"portalSession": []}]),
        Credential::None => operation["security"] = json!([]),
    }
    if !entry.allows.is_empty() {
        operation[PERMISSIONS_KEYWORD] = entry.allows.into();
    }
    if !entry.audits.is_empty() {
        operation[AUDITS_KEYWORD] = entry.audits.into();
    }
    operation
}

/// The success, and each status that the operation's codes imply.
fn responses(entry: &Entry, name: &str) -> Value {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    let common = COMMON_FAILURES.iter().filter(|code| is_documented(**code, entry.credential));
    for code in common.chain(entry.fails) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    // The one status that is not its code's own: storage has no room (COM-CODE-02).
    by_status.entry(503).or_default().push(Code::ServiceUnavailable);

    let mut responses = Map::new();
    let body = reference_to(&format!("{name}ResponseBody"));
    responses.insert("200".into(), json!({"description": "Success", "content": {JSON: {"schema": body}}}));
    for (status, mut codes) in by_status {
        codes.sort_unstable();
        codes.dedup();
        let (component, description) = error_component(status);
        let schema = json!({"schema": reference_to(component)});
        let codes: Vec<&str> = codes.iter().map(|code| code.path()).collect();
        let mut response = json!({
            "description": description,
            // Which of the two is sent depends on `Accept` alone (COM-ERR-05).
            "content": {JSON: schema, PROBLEM_JSON: schema},
            CODES_KEYWORD: codes,
        });
        if status == 429 || status == 503 {
            let meaning = "Seconds to wait before another try";
            response["headers"] = json!({"Retry-After": {"description": meaning, "schema": {"type": "integer"}}});
        }
        responses.insert(status.to_string(), response);
    }
    Value::Object(responses)
}

/// Whether a common code is told of in every operation's document. A client never sees 499; a workspace that is gone
/// under a root key is 404 on every operation and said once, in the introduction of clients' own errors.
fn is_documented(code: Code, credential: Credential) -> bool {
    match code {
        Code::ClientClosedRequest | Code::WorkspaceNotFound => false,
        Code::CredentialMissing => credential == Credential::PortalSession,
        Code::CredentialMalformed | Code::RootKeyNotFound | Code::KeyDisabled | Code::InsufficientPermissions => {
            credential == Credential::RootKey
        }
        Code::WorkspaceDisabled | Code::Forbidden | Code::WorkspaceRateLimited => credential != Credential::None,
        _ => true,
    }
}

/// The component of an error status, named as official clients name it, and the status's own words.
fn error_component(status: u16) -> (&'static str, &'static str) {
    match status {
        400 => ("BadRequestErrorResponse", "Bad request"),
        401 => ("UnauthorizedErrorResponse", "The credential is not known"),
        403 => ("ForbiddenErrorResponse", "The credential is known and may not do this"),
        404 => ("NotFoundErrorResponse", "Not found"),
        408 => ("RequestTimeoutErrorResponse", "The request took too long"),
        409 => ("ConflictErrorResponse", "Already exists"),
        410 => ("GoneErrorResponse", "Deleted"),
        412 => ("PreconditionFailedErrorResponse", "Something has to be set up first"),
        413 => ("RequestEntityTooLargeErrorResponse", "The body is too large"),
        422 => ("UnprocessableEntityErrorResponse", "The query needs more than it may use"),
        429 => ("TooManyRequestsErrorResponse", "Too many requests"),
        503 => ("ServiceUnavailableErrorResponse", "Try again in a moment; nothing was changed"),
        _ => ("InternalServerErrorResponse", "An error of the server"),
    }
}

fn liveness() -> Value {
    json!({"get": {
        "operationId": "liveness",
        "tags": ["liveness"],
        "summary": "Tell whether the server answers",
        "security": [],
        "responses": {"200": {
            "description": "Success",
            "content": {JSON: {"schema": reference_to("V2LivenessResponseBody")}},
        }},
    }})
}

/// Schemas that every operation refers to.
fn shared_schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |name: &str, schema: Value| schemas.insert(name.into(), schema);
    add(
        "Meta",
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["requestId"],
            "properties": {"requestId": {
                "type": "string",
                "pattern": "^req_[A-Za-z0-9]+$",
                "description": "Names this request, also in the server's log and in the header X-Request-Id.",
            }},
        }),
    );
    add(
        "Pagination",
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["hasMore"],
            "properties": {
                "hasMore": {"type": "boolean", "description": listing::PAGES_END_EARLY},
                "cursor": {
                    "type": "string",
                    "description": "Where the next page begins; there exactly when hasMore is true.",
                },
            },
        }),
    );
    add(
        "BaseError",
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["title", "detail", "status", "type"],
            "properties": error_properties(),
        }),
    );
    let mut properties = error_properties();
    properties.insert("errors".into(), json!({"type": "array", "items": reference_to("ValidationError")}));
    add(
        "BadRequestErrorDetails",
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["title", "detail", "status", "type", "errors"],
            "properties": properties,
        }),
    );
    add(
        "ValidationError",
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["location", "message"],
            "properties": {
                "location": {"type": "string", "description": "Which rule of the request's schema is violated."},
                "message": {"type": "string", "description": "What was wanted, what came, and where in the body."},
                "fix": {"type": "string", "description": "What to do about it."},
            },
        }),
    );
    for status in [400, 401, 403, 404, 408, 409, 410, 412, 413, 422, 429, 500, 503] {
        let error = if matches!(status, 400 | 408 | 413) { "BadRequestErrorDetails" } else { "BaseError" };
        add(
            error_component(status).0,
            json!({
                "type": "object",
                "required": ["meta", "error"],
                "properties": {"meta": reference_to("Meta"), "error": reference_to(error)},
            }),
        );
    }
    schemas
}

fn error_properties() -> Map<String, Value> {
    let mut properties = Map::new();
    let mut add = |name: &str, kind: &str, description: String| {
        properties.insert(name.into(), json!({"type": kind, "description": description}));
    };
    add("title", "string", "Fixed for each type.".into());
    add("detail", "string", "What happened, for humans.".into());
    add("status", "integer", "The HTTP status.".into());
    add("type", "string", format!("What to tell errors apart by: `{TYPE_BASE}` and the error's code."));
    properties
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::operation::testing::{LIST_THINGS, MAKE_THING};

    fn made() -> Value {
        document(&[&MAKE_THING, &LIST_THINGS])
    }

    /// COM-SYS-02: operations, schemas, statuses and marks are in the document as the table has them.
    #[test]
    fn an_operation_is_documented_as_it_is_declared() {
        let document = made();
        assert_eq!((&document["openapi"], &document["info"]["version"]), (&json!("3.1.0"), &json!("2.0.0")));
        let make = &document["paths"]["/v2/things.makeThing"]["post"];
        assert_eq!((&make["operationId"], &make["tags"]), (&json!("things.makeThing"), &json!(["things"])));
        let statuses: Vec<&String> = make["responses"].as_object().expect("responses").keys().collect();
        let wanted = ["200", "400", "401", "403", "404", "408", "412", "413", "429", "500", "503"];
        assert_eq!(statuses, wanted);
        assert_eq!(make["responses"]["404"][CODES_KEYWORD], json!(["unkey/data/api_not_found"]));
        assert!(make["responses"]["429"]["content"].get("application/problem+json").is_some());
        assert_eq!(make[PERMISSIONS_KEYWORD][0], "thing.*.make");
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["V2ThingsMakeThingRequestBody"]["required"], json!(["boxId", "permissions"]));
        assert_eq!(schemas["V2ThingsMakeThingResponseData"]["properties"]["key"]["x-unkey-redact"], true);
        assert_eq!(schemas["V2ThingsMakeThingResponseBody"]["required"], json!(["meta", "data"]));
    }

    /// COM-SYS-02, COM-SDK-03: answers have the contract's bounds where every true value keeps them, and no others.
    #[test]
    fn answers_are_bounded_as_in_the_contract() {
        let document = document(crate::api::OPERATIONS);
        let bounds = |name: &str, member: &str, keywords: &[&str]| -> Vec<Value> {
            let mut schema = &document["components"]["schemas"][format!("V2{name}ResponseData")];
            for step in member.split('.') {
                let inner = schema.get("items").unwrap_or(schema);
                schema = &inner["properties"][step];
            }
            assert!(schema.is_object(), "{name} {member}");
            keywords.iter().map(|keyword| schema[*keyword].clone()).collect()
        };
        let (range, text) = (["minimum", "maximum"], ["minLength", "maxLength", "pattern"]);
        let (none, words) = (Value::Null, "^[a-zA-Z0-9_]+$");
        for key in ["KeysGetKey", "KeysWhoami"] {
            assert_eq!(bounds(key, "keyId", &text), [json!(8), json!(255), json!(words)]);
            assert_eq!(bounds(key, "credits.refill.refillDay", &range), [json!(1), json!(31)]);
            assert_eq!(bounds(key, "credits.refill.amount", &range), [json!(1), none.clone()]);
            assert_eq!(bounds(key, "credits.remaining", &range), [json!(0), none.clone()]);
            for limits in ["ratelimits", "identity.ratelimits"] {
                let of = |member: &str, keywords: &[&str]| bounds(key, &format!("{limits}.{member}"), keywords);
                assert_eq!(of("id", &text), [json!(8), json!(255), json!("^rl_[a-zA-Z0-9_]+$")]);
                assert_eq!(of("name", &text), [json!(1), none.clone(), none.clone()]);
                assert_eq!(of("limit", &range), [json!(1), none.clone()]);
                assert_eq!(of("duration", &range), [json!(1000), none.clone()]);
            }
        }
        assert_eq!(bounds("ApisCreateApi", "apiId", &text), [json!(8), json!(255), json!(words)]);
        assert_eq!(bounds("ApisGetApi", "id", &text), [json!(8), json!(255), json!(words)]);
        assert_eq!(bounds("ApisGetApi", "name", &text), [json!(3), json!(256), none.clone()]);
        for member in ["limit", "remaining", "reset"] {
            assert_eq!(bounds("RatelimitLimit", member, &range), [json!(0), none.clone()]);
            assert_eq!(bounds("RatelimitMultiLimit", &format!("limits.{member}"), &range), [json!(0), none.clone()]);
        }
    }

    /// COM-PAG-01, PT-AUTH-01: a list has its pagination, a portal operation its own credential.
    #[test]
    fn lists_and_portal_operations_say_so() {
        let document = made();
        let list = &document["paths"]["/v2/things.listThings"]["post"];
        assert_eq!(list["security"], json!([{"portalSession": []}]));
        let body = &document["components"]["schemas"]["V2ThingsListThingsResponseBody"];
        assert_eq!(body["required"], json!(["meta", "data", "pagination"]));
        assert_eq!(document["components"]["schemas"]["V2ThingsListThingsResponseData"]["type"], "array");
    }

    /// Every reference leads somewhere, and making the document twice makes the same text.
    #[test]
    fn the_document_is_whole_and_always_the_same() {
        fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
            match value {
                Value::Object(members) => {
                    found.extend(members.get("$ref").and_then(Value::as_str));
                    members.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        for made in [made, || document(crate::api::OPERATIONS)] {
            let document = made();
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(found.len() > 30);
            for reference in found {
                let pointer = reference.strip_prefix('#').expect("references stay inside");
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            assert_eq!(yaml(&document), yaml(&made()));
        }
    }
}
