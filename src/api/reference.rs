//! The reference page: the OpenAPI document as one page of HTML that needs nothing else.
//!
//! No script, no image, no other host: it reads the same in an air-gapped room, and under a policy that allows nothing
//! but the one style element it has. There are no `style` attributes, so that a policy may name that element by its
//! hash.

use std::fmt::{self, Write};

use serde_json::{Map, Value};

use super::openapi::{AUDITS_KEYWORD, CODES_KEYWORD, PERMISSIONS_KEYWORD};
use super::shape::REDACT_KEYWORD;

const STYLE: &str = include_str!("reference/style.css");

/// Deepest level of a schema that the tables show; requests nest four levels.
const LEVELS_MAX: usize = 8;

/// The page for a document of [`super::openapi::document`].
pub fn page(document: &Value) -> String {
    let mut html = String::with_capacity(256 * 1024);
    // Writing into a string does not fail.
    let _ = write_page(document, &mut html);
    html
}

/// One operation as the page shows it.
struct Operation<'a> {
    path: &'a str,
    method: &'a str,
    details: &'a Value,
}

impl Operation<'_> {
    fn id(&self) -> &str {
        self.details["operationId"].as_str().unwrap_or(self.path)
    }

    fn is_in(&self, tag: &str) -> bool {
        self.details["tags"].as_array().is_some_and(|tags| tags.iter().any(|one| one == tag))
    }
}

fn write_page(document: &Value, html: &mut String) -> fmt::Result {
    let operations = operations(document);
    let tags: Vec<&str> =
        document["tags"].as_array().into_iter().flatten().filter_map(|tag| tag["name"].as_str()).collect();
    let title = Escaped(document["info"]["title"].as_str().unwrap_or("API"));
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} API reference</title>\n<style>{STYLE}</style>\n</head>\n<body>\n",
    )?;
    write!(html, "<nav aria-label=\"Operations\">\n<a class=\"brand\" href=\"#top\">{title}</a>\n")?;
    // On a narrow screen the list is shown by this box alone; on a wide one it is always there, and the box is not.
    html.push_str("<input type=\"checkbox\" id=\"menu\"><label for=\"menu\">Operations</label>\n<div>\n");
    for tag in &tags {
        write!(html, "<h2>{}</h2>\n<ul>\n", Escaped(tag))?;
        for operation in operations.iter().filter(|operation| operation.is_in(tag)) {
            let id = operation.id();
            let procedure = id.split_once('.').map_or(id, |(_, procedure)| procedure);
            writeln!(html, "<li><a href=\"#{}\">{}</a></li>", Escaped(id), Escaped(procedure))?;
        }
        html.push_str("</ul>\n");
    }
    html.push_str("</div>\n</nav>\n<main id=\"top\">\n");
    let version = Escaped(document["info"]["version"].as_str().unwrap_or_default());
    writeln!(html, "<header>\n<h1>{title} <small>API {version}</small></h1>")?;
    write_paragraphs(document["info"]["description"].as_str().unwrap_or_default(), html)?;
    html.push_str(
        "<p>The document behind this page: <a href=\"/openapi.yaml\">openapi.yaml</a>, \
         <a href=\"/openapi.json\">openapi.json</a>.</p>\n</header>\n",
    );
    for tag in &tags {
        writeln!(html, "<section class=\"family\">\n<h2>{}</h2>", Escaped(tag))?;
        for operation in operations.iter().filter(|operation| operation.is_in(tag)) {
            write_operation(document, operation, html)?;
        }
        html.push_str("</section>\n");
    }
    html.push_str("</main>\n</body>\n</html>\n");
    Ok(())
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths
        .flat_map(|(path, item)| {
            item.as_object().into_iter().flatten().map(move |(method, details)| Operation { path, method, details })
        })
        .collect()
}

fn write_operation(document: &Value, operation: &Operation<'_>, html: &mut String) -> fmt::Result {
    let Operation { path, method, details } = operation;
    let id = Escaped(operation.id());
    writeln!(html, "<article id=\"{id}\">\n<h3><a href=\"#{id}\">{id}</a></h3>")?;
    writeln!(
        html,
        "<p class=\"route\"><span class=\"method\">{}</span> <code>{}</code></p>",
        Escaped(&method.to_uppercase()),
        Escaped(path)
    )?;
    writeln!(html, "<p class=\"summary\">{}.</p>", Marked(details["summary"].as_str().unwrap_or_default()))?;
    write_paragraphs(details["description"].as_str().unwrap_or_default(), html)?;
    write_facts(document, details, html)?;

    if let Some(schema) = json_schema_of(document, &details["requestBody"]) {
        html.push_str("<h4>Request</h4>\n");
        write_schema(document, schema, html)?;
        write_example(document, operation, schema, html)?;
    }
    for (status, response) in details["responses"].as_object().into_iter().flatten() {
        if let Some(schema) = json_schema_of(document, response).filter(|_| status.starts_with('2')) {
            html.push_str("<h4>Response</h4>\n");
            write_schema(document, schema, html)?;
        }
    }
    write_errors(details, html)?;
    html.push_str("</article>\n");
    Ok(())
}

/// Credential, permissions and audit events.
fn write_facts(document: &Value, details: &Value, html: &mut String) -> fmt::Result {
    let security = details.get("security").unwrap_or(&document["security"]);
    let credential = match security[0].as_object().and_then(|schemes| schemes.keys().next()) {
        Some(scheme) if scheme == "bearer" => "a root key, as <code>Authorization: Bearer …</code>",
        Some(_) => "the cookie <code>portal_session</code>",
        None => "none",
    };
    writeln!(html, "<dl>\n<dt>Credential</dt><dd>{credential}</dd>")?;
    for (keyword, term) in [(PERMISSIONS_KEYWORD, "Permissions"), (AUDITS_KEYWORD, "Audit events")] {
        if let Some(values) = details[keyword].as_array() {
            write!(html, "<dt>{term}</dt><dd>")?;
            for value in values {
                write!(html, "<code>{}</code> ", Escaped(value.as_str().unwrap_or_default()))?;
            }
            html.push_str("</dd>\n");
        }
    }
    html.push_str("</dl>\n");
    Ok(())
}

fn write_errors(details: &Value, html: &mut String) -> fmt::Result {
    let errors: Vec<(&String, &Value)> =
        details["responses"].as_object().into_iter().flatten().filter(|(status, _)| !status.starts_with('2')).collect();
    if errors.is_empty() {
        return Ok(());
    }
    html.push_str(
        "<details>\n<summary>Errors</summary>\n<table>\n<tr><th>Status</th><th>Meaning</th><th>Types</th></tr>\n",
    );
    for (status, response) in errors {
        let meaning = Escaped(response["description"].as_str().unwrap_or_default());
        write!(html, "<tr><td>{}</td><td>{meaning}</td><td>", Escaped(status))?;
        for code in response[CODES_KEYWORD].as_array().into_iter().flatten() {
            write!(html, "<code>{}</code> ", Escaped(code.as_str().unwrap_or_default()))?;
        }
        html.push_str("</td></tr>\n");
    }
    html.push_str("</table>\n</details>\n");
    Ok(())
}

/// The JSON schema of a request or response, its reference followed.
fn json_schema_of<'a>(document: &'a Value, with_content: &'a Value) -> Option<&'a Value> {
    let schema = &with_content["content"]["application/json"]["schema"];
    schema.is_object().then(|| follow(document, schema))
}

/// What a schema refers to, or the schema itself.
fn follow<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let pointer = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    pointer.and_then(|pointer| document.pointer(pointer)).unwrap_or(schema)
}

/// The members of a schema as a table, nested ones below their parents.
fn write_schema(document: &Value, schema: &Value, html: &mut String) -> fmt::Result {
    html.push_str("<table>\n<tr><th>Member</th><th>Type</th><th>Meaning</th></tr>\n");
    if schema["type"] == "array" {
        write_row("the body", &schema.clone(), true, 0, html)?;
    }
    write_members(document, schema, 0, html)?;
    html.push_str("</table>\n");
    Ok(())
}

fn write_members(document: &Value, schema: &Value, level: usize, html: &mut String) -> fmt::Result {
    if level > LEVELS_MAX {
        return Ok(());
    }
    // The members of a list are those of its items.
    let mut schema = follow(document, schema);
    while let Some(items) = schema.get("items") {
        schema = follow(document, items);
    }
    let required = schema["required"].as_array();
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|one| one == name));
    let Some(members) = schema["properties"].as_object() else { return Ok(()) };
    // What must be there comes first.
    for pass in [true, false] {
        for (name, member) in members.iter().filter(|(name, _)| is_required(name) == pass) {
            let member = follow(document, member);
            write_row(name, member, pass, level, html)?;
            write_members(document, member, level + 1, html)?;
        }
    }
    Ok(())
}

fn write_row(name: &str, schema: &Value, required: bool, level: usize, html: &mut String) -> fmt::Result {
    let (name, presence) = (Escaped(name), if required { "required" } else { "optional" });
    write!(
        html,
        "<tr class=\"level-{level} {presence}\"><td><code>{name}</code> <span class=\"presence\">{presence}</span></td>\
         <td><span class=\"type\">{}</span>",
        Escaped(&type_of(schema))
    )?;
    for fact in facts(schema) {
        write!(html, " <span class=\"fact\">{}</span>", Escaped(&fact))?;
    }
    html.push_str("</td><td>");
    if let Some(description) = schema["description"].as_str() {
        write_paragraphs(description, html)?;
    }
    html.push_str("</td></tr>\n");
    Ok(())
}

/// The type in words: `string`, `integer or null`, `array of object`.
fn type_of(schema: &Value) -> String {
    let name = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or "),
        _ => "any".into(),
    };
    match schema.get("items") {
        Some(items) => format!("{name} of {}", type_of(items)),
        None => name,
    }
}

/// Bounds, choices, defaults, and whether it is a secret.
pub fn facts(schema: &Value) -> Vec<String> {
    let range = |low: &str, high: &str, unit: &str| match (schema.get(low), schema.get(high)) {
        (None, None) => None,
        (Some(low), None) => Some(format!("at least {low}{unit}")),
        (None, Some(high)) => Some(format!("at most {high}{unit}")),
        (Some(low), Some(high)) => Some(format!("{low} to {high}{unit}")),
    };
    let mut facts: Vec<String> = [
        range("minLength", "maxLength", " characters"),
        range("minimum", "maximum", ""),
        range("minItems", "maxItems", " items"),
        range("minProperties", "maxProperties", " members"),
    ]
    .into_iter()
    .flatten()
    .collect();
    facts.extend(schema["pattern"].as_str().map(|pattern| format!("matches {pattern}")));
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(Value::to_string).collect();
        facts.push(format!("one of {}", choices.join(", ")));
    }
    facts.extend(schema.get("default").map(|default| format!("default {default}")));
    if schema[REDACT_KEYWORD] == true {
        facts.push("secret: never recorded".into());
    }
    facts
}

fn write_example(document: &Value, operation: &Operation<'_>, schema: &Value, html: &mut String) -> fmt::Result {
    let body = serde_json::to_string_pretty(&example(document, schema, 0)).unwrap_or_default();
    let security = operation.details.get("security").unwrap_or(&document["security"]);
    let credential = match security[0].as_object().and_then(|schemes| schemes.keys().next()) {
        Some(scheme) if scheme == "bearer" => "  -H \"Authorization: Bearer $ROOT_KEY\" \\\n",
        Some(_) => "  -H \"Cookie: portal_session=$ACCESS_TOKEN\" \\\n",
        None => "",
    };
    // No example value holds a single quote, which would end the shell's string.
    let command = format!(
        "curl \"$KEYWARD{}\" \\\n{credential}  -H 'Content-Type: application/json' \\\n  -d '{body}'",
        operation.path
    );
    writeln!(html, "<pre><code>{}</code></pre>", Escaped(&command))
}

/// A small value that a schema takes: what is required, each as short as it may be.
pub(super) fn example(document: &Value, schema: &Value, level: usize) -> Value {
    let schema = follow(document, schema);
    let kind = match &schema["type"] {
        Value::Array(kinds) => &kinds[0],
        kind => kind,
    };
    match kind.as_str() {
        Some("boolean") => schema.get("default").cloned().unwrap_or(Value::Bool(true)),
        Some("integer") => {
            let least = schema["minimum"].as_i64().unwrap_or(1).max(1);
            schema.get("default").cloned().unwrap_or_else(|| least.into())
        }
        _ if schema["examples"].is_array() => schema["examples"][0].clone(),
        Some("string") => match schema["enum"].as_array() {
            Some(choices) => choices.first().cloned().unwrap_or_default(),
            None => {
                let least = usize::try_from(schema["minLength"].as_u64().unwrap_or(0)).unwrap_or(0);
                // Letters are in every set of characters.
                "example".chars().cycle().take(least.max("example".len())).collect::<String>().into()
            }
        },
        Some("array") if level < LEVELS_MAX && schema["minItems"].as_u64().unwrap_or(0) > 0 => {
            vec![example(document, &schema["items"], level + 1)].into()
        }
        Some("array") => Value::Array(Vec::new()),
        Some("object") if level < LEVELS_MAX => {
            let mut members = Map::new();
            // Of members that exclude each other, the first.
            let required = [&schema["required"], &schema["oneOf"][0]["required"]];
            for name in required.into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str) {
                let value = match named_example(name) {
                    Some(id) => id.into(),
                    None => example(document, &schema["properties"][name], level + 1),
                };
                members.insert(name.into(), value);
            }
            // What has an example of its own is worth showing though it is not required.
            for (name, member) in schema["properties"].as_object().into_iter().flatten() {
                if let (Some(shown), false) = (member["examples"].get(0), members.contains_key(name)) {
                    members.insert(name.clone(), shown.clone());
                }
            }
            Value::Object(members)
        }
        _ => Value::Object(Map::new()),
    }
}

/// An id that looks like one, for a member that is one.
fn named_example(member: &str) -> Option<&'static str> {
    Some(match member {
        "apiId" => "api_example1",
        "keyId" => "key_example1",
        "migrationId" => "mig_example1",
        "roleId" => "role_example1",
        _ => return None,
    })
}

/// Paragraphs and lists of a description, with its `code`.
fn write_paragraphs(text: &str, html: &mut String) -> fmt::Result {
    for paragraph in text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty()) {
        if paragraph.lines().all(|line| line.starts_with("- ")) {
            html.push_str("<ul>");
            for line in paragraph.lines() {
                write!(html, "<li>{}</li>", Marked(&line[2..]))?;
            }
            html.push_str("</ul>\n");
        } else {
            writeln!(html, "<p>{}</p>", Marked(paragraph))?;
        }
    }
    Ok(())
}

/// Text as HTML text or attribute value.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

/// Text in which backquotes mark code.
struct Marked<'a>(&'a str);

impl fmt::Display for Marked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces: Vec<&str> = self.0.split('`').collect();
        for (position, piece) in pieces.iter().enumerate() {
            // A backquote without a partner is a backquote.
            match (position % 2 == 1, position + 1 < pieces.len()) {
                (true, true) => write!(f, "<code>{}</code>", Escaped(piece))?,
                (true, false) => write!(f, "`{}", Escaped(piece))?,
                (false, _) => write!(f, "{}", Escaped(piece))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::openapi;
    use crate::api::operation::testing::{LIST_THINGS, MAKE_THING};

    fn document() -> Value {
        openapi::document(&[&MAKE_THING, &LIST_THINGS])
    }

    /// COM-SYS-03: nothing is loaded from anywhere, and nothing runs.
    #[test]
    fn the_page_needs_nothing_else() {
        let page = page(&document());
        for forbidden in
            ["<script", "<img", "<link", "<iframe", "src=", "http://", "https://fonts", "@import", "url(", " style="]
        {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
        assert_eq!(page.matches("<style").count(), 1);
        assert!(STYLE.contains("prefers-color-scheme"));
    }

    /// Whatever a doc comment holds is text.
    #[test]
    fn everything_is_escaped() {
        let page = page(&document());
        assert!(page.contains("&lt;b&gt;no HTML&lt;/b&gt; &amp; &quot;quotes&quot;"));
        assert!(page.contains("And <code>tells</code> its &lt;key&gt; once."));
        assert!(!page.contains("<b>") && !page.contains("<key>"));
        assert_eq!(Marked("a ` b").to_string(), "a ` b");
    }

    /// Each operation shows its permissions, members, errors and a call; tags are balanced.
    #[test]
    fn an_operation_is_shown_whole() {
        let page = page(&document());
        for wanted in [
            "<article id=\"things.makeThing\">",
            "<li><a href=\"#things.makeThing\">makeThing</a></li>",
            "thing.*.make",
            "unkey/data/api_not_found",
            "thing.make",
            "3 to 255 characters",
            "default 16",
            "one of &quot;red&quot;, &quot;green&quot;",
            "secret: never recorded",
            "array of string",
            "curl &quot;$KEYWARD/v2/things.makeThing&quot;",
            "Cookie: portal_session=$ACCESS_TOKEN",
        ] {
            assert!(page.contains(wanted), "{wanted}");
        }
        for element in [
            "nav", "div", "label", "main", "section", "article", "table", "tr", "td", "details", "ul", "li", "p", "dl",
            "code", "pre",
        ] {
            let opened = page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
            assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
        }
    }

    /// The example of a call is a call that passes validation, for every operation there is.
    #[test]
    fn examples_pass_validation() {
        let document = document();
        for entry in crate::api::OPERATIONS.iter().copied().chain([&MAKE_THING, &LIST_THINGS]) {
            let example = example(&document, &(entry.request_schema)(), 0).to_string();
            assert!((entry.check)(example.as_bytes()).is_ok(), "{example}");
            assert!(!example.contains('\''));
        }
    }
}
