//! The OpenAPI document a server publishes, read as a judge of its own answers.

use serde_json::Value;

use super::client::Reply;

/// What stands before the path of a code.
const ERRORS: &str = "https://unkey.com/docs/errors/";

/// Codes that any operation may answer with and that the document does not repeat for each. This list may only shrink.
const SAID_ONCE: &[&str] = &["unkey/data/workspace_not_found"];

/// A parsed `/openapi.json`.
pub struct Document {
    pub json: Value,
}

impl Document {
    /// Wraps it; panics if it is no OpenAPI document.
    pub fn new(json: Value) -> Document {
        assert!(json["paths"].is_object(), "/openapi.json has no paths: {json}");
        Document { json }
    }

    /// The names of the operations under `/v2/` that are POSTed, sorted.
    pub fn operations(&self) -> Vec<String> {
        let paths = self.json["paths"].as_object().unwrap();
        let posted = paths.iter().filter(|(_, item)| item.get("post").is_some());
        let mut names: Vec<String> =
            posted.filter_map(|(path, _)| path.strip_prefix("/v2/")).map(str::to_owned).collect();
        names.sort();
        names
    }

    /// The POST operation of that name.
    pub fn operation(&self, name: &str) -> &Value {
        &self.json["paths"][format!("/v2/{name}")]["post"]
    }

    /// Follows `$ref`s until something else stands there.
    pub fn resolve<'a>(&'a self, mut value: &'a Value) -> &'a Value {
        while let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').expect("references stay inside the document");
            value = self.json.pointer(pointer).unwrap_or_else(|| panic!("dangling reference {reference}"));
        }
        value
    }

    /// The schema of an operation's request body.
    pub fn request(&self, name: &str) -> &Value {
        let body = self.resolve(&self.operation(name)["requestBody"]);
        self.resolve(&body["content"]["application/json"]["schema"])
    }

    /// The schema of an operation's answer with that status.
    pub fn answer(&self, name: &str, status: u16) -> &Value {
        let response = self.resolve(&self.operation(name)["responses"][status.to_string()]);
        self.resolve(&response["content"]["application/json"]["schema"])
    }

    /// The member of an object schema, through `allOf` and `anyOf` too.
    pub fn member<'a>(&'a self, schema: &'a Value, name: &str) -> Option<&'a Value> {
        let schema = self.resolve(schema);
        if let Some(member) = schema["properties"].get(name) {
            return Some(self.resolve(member));
        }
        let parts = ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten();
        parts.filter_map(|part| self.member(part, name)).next()
    }

    /// Fails for an answer that the document does not declare for its operation, or declares in another shape.
    pub fn judge(&self, name: &str, reply: &Reply) {
        let operation = self.operation(name);
        if operation.is_null() {
            return;
        }
        let status = reply.status.to_string();
        let code = reply.json["error"]["type"].as_str().and_then(|code| code.strip_prefix(ERRORS)).unwrap_or_default();
        if SAID_ONCE.contains(&code) {
            return;
        }
        let declared = operation["responses"].get(&status);
        let declared = declared.unwrap_or_else(|| panic!("{name} does not declare a {status}: {}", reply.text()));
        if status != "200" {
            let codes = declared["x-keyward-codes"].as_array();
            let codes = codes.unwrap_or_else(|| panic!("{name} lists no codes for {status}: {declared}"));
            assert!(codes.contains(&code.into()), "{name} does not declare {code} for {status}: {}", reply.text());
        }
        let content = &self.resolve(declared)["content"];
        let media = content.get(reply.media_type()).or_else(|| content.get("application/json"));
        let schema = &media.unwrap_or_else(|| panic!("{name} declares no JSON for {status}"))["schema"];
        let mut wrong = Vec::new();
        self.violations(schema, &reply.json, "", &mut wrong);
        assert!(wrong.is_empty(), "{name} answered against its own document: {wrong:?} in {}", reply.text());
    }

    /// Collects where a value breaks a schema. The subset of JSON Schema that answers need.
    fn violations(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let schema = self.resolve(schema);
        let types: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one.as_str()],
            Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|name| is_of_type(value, name)) {
            wrong.push(format!("{at}: not of type {types:?}: {value}"));
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            wrong.push(format!("{at}: {value} is none of {allowed:?}"));
        }
        if let Some(wanted) = schema.get("const")
            && wanted != value
        {
            wrong.push(format!("{at}: {value} is not {wanted}"));
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.violations(part, value, at, wrong);
        }
        for choice in ["anyOf", "oneOf"] {
            let fits = |part: &Value| {
                let mut found = Vec::new();
                self.violations(part, value, at, &mut found);
                found.is_empty()
            };
            if let Some(parts) = schema[choice].as_array()
                && !parts.iter().any(fits)
            {
                wrong.push(format!("{at}: fits none of {choice}: {value}"));
            }
        }
        if let Some(object) = value.as_object() {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !object.contains_key(name) {
                    wrong.push(format!("{at}: {name} is missing"));
                }
            }
            for (name, member) in object {
                let at = format!("{at}/{name}");
                match (schema["properties"].get(name), &schema["additionalProperties"]) {
                    (Some(schema), _) => self.violations(schema, member, &at, wrong),
                    (None, Value::Bool(false)) => wrong.push(format!("{at}: not declared")),
                    (None, other @ Value::Object(_)) => self.violations(other, member, &at, wrong),
                    _ => {}
                }
            }
        }
        if let (Some(items), Some(schema)) = (value.as_array(), schema.get("items")) {
            for (index, item) in items.iter().enumerate() {
                self.violations(schema, item, &format!("{at}/{index}"), wrong);
            }
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}
