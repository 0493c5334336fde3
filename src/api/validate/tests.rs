//! Promises about bodies: what is refused, what is said about it, and that schema and type never disagree.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use super::*;
use crate::api::shape::{ExternalId, Ident, Int, List, Meta, Null, Opt, Patch, Prefix, SecretText, Slug, Text};

/// `keys.createKey`, as the contract's document has it.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CreateKey {
    api_id: Ident<3, 255>,
    #[serde(default)]
    prefix: Opt<Prefix>,
    #[serde(default)]
    name: Opt<Text<1, 255>>,
    #[serde(default)]
    byte_length: Opt<Int<16, 255>>,
    #[serde(default)]
    external_id: Opt<ExternalId>,
    #[serde(default)]
    meta: Opt<Meta>,
    #[serde(default)]
    roles: Opt<List<Text<1, 128>, 0, 100>>,
    #[serde(default)]
    permissions: Opt<List<Slug, 0, 1000>>,
    #[serde(default)]
    expires: Opt<Int<0, 4_102_444_800_000>>,
    #[serde(default)]
    credits: Opt<Credits>,
    #[serde(default)]
    ratelimits: Opt<List<Ratelimit, 0, 50>>,
    #[serde(default)]
    enabled: Opt<bool>,
    #[serde(default)]
    recoverable: Opt<bool>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Credits {
    remaining: Null<Int<0, { i64::MAX }>>,
    #[serde(default)]
    refill: Opt<Refill>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Refill {
    interval: Interval,
    amount: Int<1, { i64::MAX }>,
    #[serde(default)]
    refill_day: Opt<Int<1, 31>>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
enum Interval {
    /// At midnight.
    Daily,
    /// At midnight of a day of the month.
    Monthly,
}

/// Open: unknown members are ignored (KEYS-GEN-11).
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Ratelimit {
    name: Text<3, 128>,
    limit: Int<1, { i64::MAX }>,
    duration: Int<1000, { i64::MAX }>,
    auto_apply: bool,
}

/// `keys.updateKey`: the same members, where `null` clears.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UpdateKey {
    key_id: Ident<3, 255>,
    #[serde(default)]
    name: Patch<Text<1, 255>>,
    #[serde(default)]
    external_id: Patch<ExternalId>,
    #[serde(default)]
    meta: Patch<Meta>,
    #[serde(default)]
    expires: Patch<Int<0, 4_102_444_800_000>>,
    #[serde(default)]
    credits: Patch<UpdateCredits>,
    #[serde(default)]
    enabled: Opt<bool>,
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UpdateCredits {
    #[serde(default)]
    remaining: Patch<Int<0, { i64::MAX }>>,
    #[serde(default)]
    refill: Patch<Refill>,
}

/// `keys.verifyKey`.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VerifyKey {
    key: SecretText<1, 512>,
    #[serde(default)]
    tags: Opt<List<Text<1, 512>, 0, 20>>,
    #[serde(default)]
    permissions: Opt<Text<1, 1000>>,
    #[serde(default)]
    migration_id: Opt<Text<0, 256>>,
}

/// `ratelimit.multiLimit`: an array.
type MultiLimit = List<Limit, 1, 100>;

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Limit {
    namespace: Text<1, 512>,
    #[serde(default)]
    cost: Opt<Int<0, { i64::MAX }>>,
    duration: Int<1000, 2_592_000_000>,
    identifier: Text<1, 512>,
    limit: Int<1, { i64::MAX }>,
}

const PATH: &str = "/v2/test.test";

fn refusal<T: DeserializeOwned + JsonSchema + 'static>(body: &[u8]) -> Problem {
    match decode::<T>(PATH, body) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(body)),
        Err(problem) => problem,
    }
}

fn entries(problem: &Problem) -> Vec<(&str, &str)> {
    problem.errors().iter().map(|error| (&*error.location, &*error.message)).collect()
}

/// COM-VAL-02, COM-VAL-08: every violated keyword has an entry with its pointer, and a message with the data's path.
#[test]
fn every_violation_is_listed_with_its_keyword_and_its_place() {
    fn check<T: DeserializeOwned + JsonSchema + 'static>(body: &str, wanted: &[(&str, &str)]) {
        let problem = refusal::<T>(body.as_bytes());
        assert_eq!(entries(&problem), wanted, "{body}");
        assert_eq!(problem.detail(), "POST request body for '/v2/test.test' failed to validate schema");
        assert_eq!((problem.status(), problem.title()), (400, "Bad Request"));
        assert!(problem.errors().iter().all(|error| error.fix.is_none()));
    }
    check::<CreateKey>("{}", &[("/required", "missing property 'apiId' at body")]);
    check::<Limit>(
        r#"{"cost":1}"#,
        &[("/required", "missing properties 'duration', 'identifier', 'limit', 'namespace' at body")],
    );
    check::<CreateKey>(
        r#"{"apiId":"api_1","nope":1,"never":2}"#,
        &[("/additionalProperties", "additional properties 'nope', 'never' not allowed at body")],
    );
    check::<CreateKey>(
        r#"{"apiId":"a-"}"#,
        &[
            ("/properties/apiId/minLength", "minLength: got 2, want 3 at body.apiId"),
            ("/properties/apiId/pattern", "pattern: got '-' at character 1, want ^[a-zA-Z0-9_]+$ at body.apiId"),
        ],
    );
    check::<CreateKey>(
        r#"{"apiId":null,"byteLength":15,"enabled":"yes","expires":4102444800001}"#,
        &[
            ("/properties/apiId/type", "got null, want string at body.apiId"),
            ("/properties/byteLength/minimum", "minimum: got 15, want 16 at body.byteLength"),
            ("/properties/enabled/type", "got string, want boolean at body.enabled"),
            ("/properties/expires/maximum", "maximum: got 4102444800001, want 4102444800000 at body.expires"),
        ],
    );
    check::<CreateKey>(
        r#"{"apiId":"api_1","ratelimits":[
            {"name":"one","limit":1,"duration":1000,"autoApply":true,"open":"ignored"},
            {"name":"two","limit":0,"duration":999,"autoApply":true},
            {"name":"xy"}]}"#,
        &[
            (
                "/properties/ratelimits/items/properties/duration/minimum",
                "minimum: got 999, want 1000 at body.ratelimits[1].duration",
            ),
            (
                "/properties/ratelimits/items/properties/limit/minimum",
                "minimum: got 0, want 1 at body.ratelimits[1].limit",
            ),
            (
                "/properties/ratelimits/items/required",
                "missing properties 'autoApply', 'duration', 'limit' at body.ratelimits[2]",
            ),
            (
                "/properties/ratelimits/items/properties/name/minLength",
                "minLength: got 2, want 3 at body.ratelimits[2].name",
            ),
        ],
    );
    check::<CreateKey>(
        r#"{"apiId":"api_1","credits":{"refill":{"interval":"weekly","amount":1}}}"#,
        &[
            ("/properties/credits/required", "missing property 'remaining' at body.credits"),
            (
                "/properties/credits/properties/refill/properties/interval/enum",
                "value must be one of 'daily', 'monthly', got 'weekly' at body.credits.refill.interval",
            ),
        ],
    );
    check::<UpdateKey>(
        r#"{"keyId":"key_1","name":1,"enabled":null}"#,
        &[
            ("/properties/enabled/type", "got null, want boolean at body.enabled"),
            ("/properties/name/type", "got number, want string or null at body.name"),
        ],
    );
    check::<MultiLimit>(
        r#"[{"namespace":"a","identifier":"b","limit":1,"duration":1000,"cost":-1}]"#,
        &[("/items/properties/cost/minimum", "minimum: got -1, want 0 at body[0].cost")],
    );
    check::<MultiLimit>("[]", &[("/minItems", "minItems: got 0, want 1 at body")]);
    check::<MultiLimit>("null", &[("/type", "got null, want array at body")]);
    check::<CreateKey>("[]", &[("/type", "got array, want object at body")]);
    check::<CreateKey>(r#"["api_1"]"#, &[("/type", "got array, want object at body")]);
    check::<CreateKey>(
        r#"{"apiId":"api_1","credits":[1]}"#,
        &[("/properties/credits/type", "got array, want object at body.credits")],
    );
    check::<CreateKey>(
        r#"{"apiId":"api_1","credits":{"remaining":1,"refill":{"interval":{"daily":null},"amount":1}}}"#,
        &[(
            "/properties/credits/properties/refill/properties/interval/type",
            "got object, want string at body.credits.refill.interval",
        )],
    );
    let one_tag_too_many = json!({"key": "k", "tags": vec!["t"; 21]}).to_string();
    check::<VerifyKey>(&one_tag_too_many, &[("/properties/tags/maxItems", "maxItems: got 21, want 20 at body.tags")]);
    let meta: serde_json::Map<String, Value> = (0..101).map(|index| (format!("m{index}"), Value::Null)).collect();
    let too_much_meta = json!({"apiId": "api_1", "meta": meta}).to_string();
    check::<CreateKey>(
        &too_much_meta,
        &[("/properties/meta/maxProperties", "maxProperties: got 101, want 100 at body.meta")],
    );
    let too_long_meta = json!({"apiId": "api_1", "meta": {"m": "x".repeat(65_536)}}).to_string();
    check::<CreateKey>(
        &too_long_meta,
        &[("/properties/meta/x-keyward-max-bytes", "meta is longer than 65536 bytes at body.meta")],
    );
}

/// COM-BODY-06, KEYS-GEN-14: a number is judged as it was written, and told where it stands.
#[test]
fn numbers_that_are_no_integers_of_64_bits_have_a_location() {
    for (number, location, message) in [
        ("16.0", "/properties/byteLength/type", "got number 16.0, want integer at body.byteLength"),
        ("2e1", "/properties/byteLength/type", "got number 2e1, want integer at body.byteLength"),
        ("1e999", "/properties/byteLength/type", "got number 1e999, want integer at body.byteLength"),
        (
            "99999999999999999999",
            "/properties/byteLength/maximum",
            "maximum: got 99999999999999999999, want 255 at body.byteLength",
        ),
        (
            "-99999999999999999999",
            "/properties/byteLength/minimum",
            "minimum: got -99999999999999999999, want 16 at body.byteLength",
        ),
    ] {
        let body = format!(r#"{{"apiId":"api_1","byteLength":{number}}}"#);
        assert_eq!(entries(&refusal::<CreateKey>(body.as_bytes())), [(location, message)]);
    }
    let unbounded = r#"{"apiId":"api_1","credits":{"remaining":9223372036854775808}}"#;
    assert_eq!(
        entries(&refusal::<CreateKey>(unbounded.as_bytes())),
        [(
            "/properties/credits/properties/remaining/format",
            "int64: got 9223372036854775808, want an integer of 64 bits at body.credits.remaining",
        )]
    );
}

/// COM-VAL-06, COM-VAL-07, COM-BODY-08, COM-BODY-10: what is no JSON value is told at `requestBody`, with a fix.
#[test]
fn what_is_not_one_json_value_is_told_at_the_body() {
    let deep = |depth: usize| {
        format!("{{\"apiId\":\"api_1\",\"meta\":{{\"m\":{}{}}}}}", "[".repeat(depth - 2), "]".repeat(depth - 2))
    };
    assert!(decode::<CreateKey>(PATH, deep(NESTING_MAX).as_bytes()).is_ok());
    for body in [
        b"{".as_slice(),
        b"{}{}",
        b"{} x",
        b"nonsense",
        b"  ",
        b"{\"apiId\":\"api_1\",}",
        b"{'apiId':1}",
        b"\xef\xbb\xbf{}",
        b"{\"apiId\":\"\xff\"}",
        b"{\"apiId\":\"\\ud800\"}",
        b"{\"\\ud800\":1}",
        deep(NESTING_MAX + 1).as_bytes(),
        "[".repeat(1_000_000).as_bytes(),
        "{\"a\":".repeat(1_000_000).as_bytes(),
    ] {
        let problem = refusal::<CreateKey>(body);
        assert_eq!(problem.detail(), "POST request body for '/v2/test.test' failed to validate schema");
        let found = problem.errors().iter().any(|error| error.location == "requestBody" && error.fix.is_some());
        assert!(found, "{:?}: {:?}", String::from_utf8_lossy(&body[..body.len().min(40)]), problem.errors());
    }
    let empty = refusal::<CreateKey>(b"");
    assert_eq!(empty.detail(), "POST request body for '/v2/test.test' is empty");
    assert_eq!((&*empty.errors()[0].location, empty.errors().len()), ("requestBody", 1));
}

/// COM-BODY-07: of repeated members the last counts, at every level, and numbers in `meta` stay exact on that road too.
#[test]
fn the_last_of_repeated_members_counts() {
    let twice = r#"{"apiId": 7, "meta": {"a": 9007199254740993, "a": 1.10}, "apiId": "api_1",
        "credits": {"remaining": 1, "remaining": 2, "refill": {"amount": 1, "interval": "daily", "amount": 5}},
        "ratelimits": [{"x":1,"x":2,"name":"a","name":"abc","limit":1,"duration":1000,"autoApply":false}]}"#;
    let once = r#"{"apiId": "api_1", "meta": {"a": 1.10},
        "credits": {"remaining": 2, "refill": {"amount": 5, "interval": "daily"}},
        "ratelimits": [{"name":"abc","limit":1,"duration":1000,"autoApply":false}]}"#;
    let [twice, once] = [twice, once].map(|body| decode::<CreateKey>(PATH, body.as_bytes()).expect("it is valid"));
    assert_eq!(twice, once);
    assert_eq!(twice.meta.0.expect("it is there").as_str(), r#"{"a":1.10}"#);
    let wrong_last = refusal::<CreateKey>(br#"{"apiId":"api_1","apiId":7}"#);
    assert_eq!(entries(&wrong_last), [("/properties/apiId/type", "got number, want string at body.apiId")]);
}

/// A body that is wrong in very many ways costs a bounded answer.
#[test]
fn the_number_and_length_of_entries_are_bounded() {
    let wrong = format!("[{}]", vec![r#"{"namespace":"","identifier":"","limit":0,"duration":0}"#; 100].join(","));
    let problem = refusal::<MultiLimit>(wrong.as_bytes());
    assert_eq!(problem.errors().len(), ERRORS_MAX);
    let names: Vec<String> = (0..10_000).map(|index| format!("\"{index}{}\":1", "n".repeat(200))).collect();
    let problem = refusal::<CreateKey>(format!("{{{}}}", names.join(",")).as_bytes());
    let length: usize = problem.errors().iter().map(|error| error.message.len()).sum();
    assert!(length < 2_000, "{length}");
    assert!(problem.errors()[1].message.contains("and 9990 more"), "{:?}", problem.errors()[1]);
}

/// KEYS-GEN-6, COM-VAL-03 to COM-VAL-05: the pinned words of what fails before the body is looked at.
#[test]
fn what_is_said_before_the_body_is_read() {
    let problem = missing_authorization();
    assert_eq!(problem.detail(), "Authorization header for 'bearer' scheme");
    assert_eq!(entries(&problem), [("security", "Authorization header was not found")]);
    assert!(problem.errors()[0].fix.is_some());
    assert!(missing_portal_session().detail().contains("portal_session"));
    for (received, named) in
        [(Some("text/plain"), "text/plain"), (None, "no Content-Type"), (Some(""), "no Content-Type")]
    {
        let problem = wrong_content_type(PATH, received);
        let entry = &problem.errors()[0];
        assert_eq!(entry.location, "requestBody");
        assert!(entry.message.contains(named), "{}", entry.message);
        assert!(entry.fix.as_deref().is_some_and(|fix| fix.contains("application/json")));
    }
}

/// A type that is not made of `shape.rs` is noticed, not half checked.
#[test]
fn a_bound_that_the_walk_does_not_know_is_an_error() {
    for schema in [
        json!({"type": "string", "minContains": 1}),
        json!({"type": "string", "pattern": "^[a-z]+$"}),
        json!({"type": "integer", "format": "uint8", "minimum": 0}),
        json!({"type": "number"}),
        json!({"type": "object", "additionalProperties": {"type": "string"}}),
        json!({"type": "object", "maxProperties": 3}),
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        json!({"oneOf": [{"type": "string"}]}),
        json!({"type": "object", "oneOf": [{"required": ["a", "b"]}, {"required": ["c"]}]}),
        json!({"type": "object", "oneOf": [{"required": ["a"], "minProperties": 2}]}),
        json!(true),
    ] {
        assert!(Rules::read(&schema).is_err(), "{schema}");
    }
}

/// A small generator of bodies along a schema: mostly right, often at a bound, sometimes wrong.
struct Bodies {
    state: u64,
    /// Whether a member was written twice.
    repeated: bool,
}

impl Bodies {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, chance: u64) -> bool {
        self.below(chance) == 0
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.below(choices.len() as u64)).expect("small")]
    }

    fn anything(&mut self) -> String {
        self.pick(&[
            "null",
            "true",
            "0",
            "-0",
            "1.0",
            "1e1",
            "1e400",
            "99999999999999999999",
            "\"\"",
            "\"a b\"",
            "[]",
            "{}",
            "[1]",
            "[[[]]]",
            r#"{"daily":null}"#,
            r#"{"a":{"a":1,"a":2}}"#,
            r#""\ud800""#,
            r#""\u0061bc""#,
            "\"🔑é\"",
        ])
        .to_owned()
    }

    fn body(&mut self, schema: &Value) -> String {
        if self.one_in(40) {
            return self.anything();
        }
        let (kind, nullable) = match &schema["type"] {
            Value::Array(kinds) => (kinds[0].as_str().expect("a name"), true),
            kind => (kind.as_str().expect("a name"), false),
        };
        if nullable && self.one_in(4) {
            return "null".into();
        }
        let near = |bodies: &mut Bodies, low: Option<u64>, high: Option<u64>| {
            let low = low.unwrap_or(0);
            match bodies.below(8) {
                0 => low,
                1 => high.unwrap_or(low + 1),
                2 if bodies.one_in(4) => high.map_or(low, |high| high + 1),
                3 if bodies.one_in(4) => low.saturating_sub(1),
                _ => low + bodies.below(high.map_or(5, |high| high - low + 1).min(5)),
            }
        };
        match kind {
            "boolean" => self.pick(&["true", "false"]).to_owned(),
            "integer" => {
                let sign = if self.one_in(30) { "-" } else { "" };
                format!("{sign}{}", near(self, schema["minimum"].as_u64(), schema["maximum"].as_u64()))
            }
            "string" => {
                if let Value::Array(choices) = &schema["enum"] {
                    return match self.one_in(20) {
                        true => "\"never\"".into(),
                        false => choices[usize::try_from(self.below(choices.len() as u64)).expect("small")].to_string(),
                    };
                }
                let length = near(self, schema["minLength"].as_u64(), schema["maxLength"].as_u64());
                let characters = match (schema.get("pattern"), self.one_in(30)) {
                    (Some(_), false) => ["a", "Z", "9", "_", r"\u0061", "a", "b"],
                    _ => ["a", "-", "🔑", r"\n", r"\ud83d\udd11", " ", "é"],
                };
                let character = self.pick(&characters);
                format!("\"{}\"", character.repeat(usize::try_from(length).expect("small")))
            }
            "array" => {
                let length =
                    near(self, schema["minItems"].as_u64(), schema["maxItems"].as_u64().map(|max| max.min(101)));
                let items: Vec<String> = (0..length).map(|_| self.body(&schema["items"])).collect();
                format!("[{}]", items.join(" , "))
            }
            _ => {
                let mut members = Vec::new();
                let required = schema["required"].as_array().cloned().unwrap_or_default();
                for (name, rules) in schema["properties"].as_object().cloned().unwrap_or_default() {
                    let is_required = required.contains(&Value::from(name.as_str()));
                    if if is_required { self.one_in(40) } else { self.one_in(2) } {
                        continue;
                    }
                    if self.one_in(15) {
                        self.repeated = true;
                        members.push(format!("\"{name}\":{}", self.anything()));
                    }
                    members.push(format!("\"{name}\" : {}", self.body(&rules)));
                }
                let strangers = if schema.get("additionalProperties") == Some(&Value::Bool(false)) { 40 } else { 2 };
                if self.one_in(strangers) {
                    members.push(format!("\"stranger\":{}", self.anything()));
                }
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// One generated body of type `T`: the typed decode and the walk of the schema must agree on it.
fn agree<T: DeserializeOwned + JsonSchema + 'static>(seed: u64) -> Result<bool, TestCaseError> {
    let schema = shape::request_schema::<T>();
    let mut bodies = Bodies { state: seed, repeated: false };
    let body = bodies.body(&schema);
    let errors = Rules::read(&schema).expect("the schema is known").walk(&body, usize::MAX);
    let typed = strict::from_str::<T>(&body);
    if bodies.repeated {
        prop_assert!(typed.is_err() || errors.is_empty(), "{body}: {errors:?}");
    } else {
        prop_assert_eq!(typed.is_ok(), errors.is_empty(), "{}: {:?} {:?}", body, errors, typed.err());
    }
    match decode::<T>(PATH, body.as_bytes()) {
        Ok(_) => prop_assert!(errors.is_empty(), "{body}: {errors:?}"),
        Err(problem) => {
            prop_assert!(!errors.is_empty(), "{body}");
            prop_assert!(problem.errors().iter().all(|error| !error.location.is_empty()), "{body}");
        }
    }
    Ok(errors.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// The promise that lets the fast road be fast: a body is refused by its type exactly when its schema refuses it.
    #[test]
    fn type_and_schema_never_disagree(seed: u64) {
        agree::<CreateKey>(seed)?;
        agree::<UpdateKey>(seed)?;
        agree::<VerifyKey>(seed)?;
        agree::<MultiLimit>(seed)?;
    }

    /// Whatever bytes arrive, the answer is a request or a 400 with entries.
    #[test]
    fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Err(problem) = decode::<CreateKey>(PATH, &body) {
            prop_assert!(problem.status() == 400 && !problem.errors().is_empty());
        }
    }
}

/// The same promise for every operation there is: its schema is one the walk knows, and decoding agrees with it.
#[test]
fn the_types_of_all_operations_agree_with_their_schemas() {
    for entry in crate::api::OPERATIONS {
        let schema = (entry.request_schema)();
        let rules = Rules::read(&schema).unwrap_or_else(|unknown| panic!("{}: {unknown}", entry.name));
        let mut right = 0;
        for seed in 0..200 {
            let body = Bodies { state: seed, repeated: false }.body(&schema);
            let errors = rules.walk(&body, ERRORS_MAX);
            match (entry.check)(body.as_bytes()) {
                Ok(_) => assert!(errors.is_empty(), "{}: {body}: {errors:?}", entry.name),
                Err(problem) => assert_eq!(problem.errors(), errors, "{}: {body}", entry.name),
            }
            right += usize::from(errors.is_empty());
        }
        assert!((1..200).contains(&right), "{}: {right} of 200 are right", entry.name);
    }
}

/// The generator above makes right bodies and wrong ones, enough of both.
#[test]
fn generated_bodies_are_both_right_and_wrong() {
    let right = (0..400).filter(|seed| agree::<CreateKey>(*seed).expect("they agree")).count();
    assert!((80..320).contains(&right), "{right} of 400 are right");
}
