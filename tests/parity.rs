//! The document this server publishes, against the structure of Unkey's (`openapi.json` of the contract).
//!
//! For each operation that both have: the request as it is validated (members, which are required, types, bounds,
//! patterns, enumerations, whether unknown members are refused), the answer as clients decode it, and the statuses. Each
//! difference must be one that a statement of the contract asks for, and stands in [`MEANT`] with it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Workspace;
use crate::harness::document::Document;

/// Differences that are meant: operations, what differs there, and the statement that asks for it. `*` stands for
/// anything.
#[rustfmt::skip]
const MEANT: &[(&str, &str, &str)] = &[
    // What every operation can answer.
    ("*", "status 408: only ours", "COM-BODY-09"),
    ("*", "status 413: only ours", "COM-BODY-02"),
    ("*", "status 503: only ours", "COM-CODE-02"),
    ("*", "answer.meta.requestId: pattern: theirs none*", "COM-ENV-02"),
    // A 64-bit number is bounded by its type (the published bound is 2^63 - 1, rounded by somebody's doubles).
    ("*", "*: maximum: theirs 9223372036854776000, ours none", "COM-BODY-06"),
    // Answers tell the true values; the published bounds of answers are narrower than those of requests.
    ("*", "answer.data*: m*", "COM-SDK-03"),
    ("keys.verifyKey", "answer.data*ratelimits[].id: pattern*", "KEYS-VERIFY-6"),
    // Any string is a cursor.
    ("*", "answer.pagination.cursor: m*", "COM-PAG-03"),
    // Single operations.
    ("analytics.getVerifications", "status 412: only ours", "AN-ERR-07"),
    ("apis.listKeys", "status 412: only ours", "APIS-LIST-2"),
    ("keys.migrateKeys", "request.keys: maxItems: theirs none, ours 10000", "KEYS-MIGRATE-1"),
    ("keys.migrateKeys", "request.keys[].hash: maxLength: theirs none, ours 256", "KEYS-MIGRATE-1"),
    ("keys.setPermissions", "request.permissions: maxItems: theirs none, ours 1000", "KEYS-PERM-1"),
    ("permissions.createRole", "request.permissions: maxItems: theirs none, ours 1000", "RB-CR-09"),
    ("permissions.setRolePermissions", "request.permissions: maxItems: theirs none, ours 1000", "RB-SR-08"),
    ("permissions.setRolePermissions", "request.role: only ours", "RB-SR-01"),
    ("permissions.setRolePermissions", "request: required: theirs permissions roleId, ours permissions", "RB-SR-01"),
    ("permissions.deleteRole", "status 404: only ours", "RB-DR-01"),
    ("permissions.listRoles", "status 404: only theirs", "RB-LR-01"),
    ("ratelimit.setOverride", "status 412: only ours", "RL-OVR-04: patterns are matched in bounded time, so few fit"),
    ("apis.deleteApi", "request.apiId: pattern: theirs *, ours none", "APIS-DELETE-1"),
    ("keys.createKey", "status 412: only ours", "KEYS-CREATE-3"),
    ("keys.rerollKey", "status 412: only ours", "KEYS-REROLL-2"),
    ("keys.getKey", "status 412: only ours", "KEYS-GET-2"),
    ("keys.updateCredits", "request.keyId: *", "KEYS-GEN-15"),
    ("keys.verifyKey", "request.keyspaces: only ours", "EXT-19"),
    ("keys.verifyKey", "answer.data.keyspaceId: only ours", "EXT-19"),
    ("keys.verifyKey", "request.ratelimits: maxItems: theirs none, ours 50", "KEYS-VERIFY-1"),
    ("keys.verifyKey", "status 404: only theirs", "KEYS-VERIFY-2"),
    ("keys.verifyKey", "status 412: only ours", "KEYS-RL-4"),
    ("ratelimit.limit", "status 404: only theirs", "RL-NS-04"),
    ("ratelimit.multiLimit", "status 404: only theirs", "RL-NS-04"),
];

/// Keywords that bound a value. `format` and `default` say nothing that is enforced (COM-BODY-04).
const BOUNDS: &[&str] =
    &["minLength", "maxLength", "pattern", "minimum", "maximum", "minItems", "maxItems", "maxProperties"];

/// Where the contract may lie.
fn contract() -> Option<PathBuf> {
    let named = std::env::var_os("KEYWARD_CONTRACT").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let places = ["../shared/contract", "../../shared/contract"].map(|place| root.join(place));
    named.into_iter().chain(places).map(|folder| folder.join("openapi.json")).find(|file| file.is_file())
}

/// Whether `*` in the pattern can be filled so that it is the text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(tail, &rest[at..]))
        }),
    }
}

/// What a schema says of one place, with references followed and `allOf` merged.
#[derive(Default)]
struct Shape {
    types: BTreeSet<String>,
    bounds: BTreeMap<&'static str, Value>,
    values: Option<BTreeSet<String>>,
    required: BTreeSet<String>,
    members: BTreeMap<String, Shape>,
    items: Option<Box<Shape>>,
    /// Whether unknown members are refused.
    closed: bool,
}

impl Shape {
    fn of(document: &Document, schema: &Value) -> Shape {
        let mut shape = Shape::default();
        shape.add(document, schema);
        shape
    }

    fn add(&mut self, document: &Document, schema: &Value) {
        let schema = document.resolve(schema);
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.add(document, part);
        }
        match &schema["type"] {
            Value::String(one) => self.types.extend([one.clone()]),
            Value::Array(several) => self.types.extend(several.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => {}
        }
        for bound in BOUNDS {
            if let Some(value) = schema.get(*bound) {
                self.bounds.insert(bound, value.clone());
            }
        }
        // A bound that every value keeps is none.
        self.bounds.retain(|bound, value| !(bound.starts_with("min") && bound.len() == 9 && *value == 0));
        if let Some(values) = schema["enum"].as_array() {
            self.values = Some(values.iter().filter(|value| !value.is_null()).map(Value::to_string).collect());
        }
        self.required
            .extend(schema["required"].as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()));
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            self.members.entry(name.clone()).or_default().add(document, member);
        }
        if let Some(items) = schema.get("items") {
            self.items.get_or_insert_default().add(document, items);
        }
        self.closed |= schema["additionalProperties"] == false;
    }
}

/// Whether a place is what callers send or what they get.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Request,
    Answer,
}

/// Notes how our shape of a place differs from theirs.
fn compare(at: &str, side: Side, theirs: &Shape, ours: &Shape, found: &mut Vec<String>) {
    let mut differ = |what: &str, theirs: String, ours: String| {
        if theirs != ours {
            found.push(format!("{at}: {what}: theirs {theirs}, ours {ours}"));
        }
    };
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(" ");
    differ("type", list(&theirs.types), list(&ours.types));
    let values = |shape: &Shape| shape.values.as_ref().map_or_else(|| "anything".to_owned(), list);
    differ("values", values(theirs), values(ours));
    for bound in BOUNDS {
        let of = |shape: &Shape| shape.bounds.get(bound).map_or_else(|| "none".to_owned(), Value::to_string);
        differ(bound, of(theirs), of(ours));
    }
    // Members that only one side knows are told below.
    let both = |shape: &Shape| {
        let known =
            shape.required.iter().filter(|name| theirs.members.contains_key(*name) && ours.members.contains_key(*name));
        known.cloned().collect::<BTreeSet<_>>()
    };
    differ("required", list(&both(theirs)), list(&both(ours)));
    // Clients ignore what they do not know in an answer (COM-SDK-02), so whether one is closed is no promise.
    if side == Side::Request {
        differ("unknown members", theirs.closed.to_string(), ours.closed.to_string());
    }
    for name in theirs.members.keys().filter(|name| !ours.members.contains_key(*name)) {
        found.push(format!("{at}.{name}: only theirs"));
    }
    for (name, member) in &ours.members {
        match theirs.members.get(name) {
            Some(their) => compare(&format!("{at}.{name}"), side, their, member, found),
            None => found.push(format!("{at}.{name}: only ours")),
        }
    }
    match (&theirs.items, &ours.items) {
        (Some(theirs), Some(ours)) => compare(&format!("{at}[]"), side, theirs, ours, found),
        (None, None) => {}
        (theirs, _) => found.push(format!("{at}[]: only {}", if theirs.is_some() { "theirs" } else { "ours" })),
    }
}

/// All differences of one operation.
fn differences(theirs: &Document, ours: &Document, operation: &str) -> Vec<String> {
    let mut found = Vec::new();
    let shapes = |document: &Document, schema: &Value| Shape::of(document, schema);
    let request = |document: &Document| shapes(document, document.request(operation));
    compare("request", Side::Request, &request(theirs), &request(ours), &mut found);
    let answer = |document: &Document| shapes(document, document.answer(operation, 200));
    compare("answer", Side::Answer, &answer(theirs), &answer(ours), &mut found);
    let statuses = |document: &Document| -> BTreeSet<String> {
        document.operation(operation)["responses"].as_object().unwrap().keys().cloned().collect()
    };
    let (theirs, ours) = (statuses(theirs), statuses(ours));
    found.extend(theirs.difference(&ours).map(|status| format!("status {status}: only theirs")));
    found.extend(ours.difference(&theirs).map(|status| format!("status {status}: only ours")));
    found
}

/// COM-SYS-02, COM-SDK-01, COM-SDK-02: our document says of each of Unkey's operations what Unkey's says, but where the
/// contract asks for something else; and nothing stands in the table that is no longer so.
#[test]
fn the_document_is_unkeys_but_for_what_is_meant() {
    let Some(file) = contract() else {
        println!("skipped: the contract's openapi.json is not here (KEYWARD_CONTRACT names its folder)");
        return;
    };
    let text = std::fs::read_to_string(&file).unwrap();
    let theirs = Document::new(serde_json::from_str(&text).unwrap());
    let workspace = Workspace::new();
    let ours = workspace.server.document();
    let names = ours.operations();
    let shared: Vec<&String> = names.iter().filter(|name| !theirs.operation(name).is_null()).collect();
    assert!(shared.len() > 10, "{file:?} has few of our operations: {shared:?}");

    let mut used = vec![false; MEANT.len()];
    let mut unmeant = Vec::new();
    for operation in &shared {
        for difference in differences(&theirs, ours, operation) {
            let mut is_meant = false;
            for (row, (operations, what, _)) in MEANT.iter().enumerate() {
                let fits = matches(operations, operation) && matches(what, &difference);
                used[row] |= fits;
                is_meant |= fits;
            }
            if !is_meant {
                unmeant.push(format!("{operation} {difference}"));
            }
        }
    }
    assert!(unmeant.is_empty(), "{} differences that nothing asks for:\n{}", unmeant.len(), unmeant.join("\n"));
    for (row, (operations, what, why)) in MEANT.iter().enumerate() {
        let is_served = shared.iter().any(|operation| matches(operations, operation));
        assert!(used[row] || !is_served, "no longer so, drop it: {operations} {what} ({why})");
    }
    let missing = theirs.operations().into_iter().filter(|name| !names.contains(name));
    println!("not served: {}", missing.collect::<Vec<_>>().join(" "));
}

#[test]
fn patterns_of_the_table_match_as_they_read() {
    for (pattern, text, fits) in [
        ("keys.*", "keys.getKey", true),
        ("keys.*", "apis.getApi", false),
        ("*: maximum*", "a: maximum: x", true),
        ("a*b*c", "a--b--c", true),
        ("a*b*c", "a--c--b", false),
        ("same", "same", true),
        ("same", "samer", false),
    ] {
        assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
    }
}
