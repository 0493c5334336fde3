//! A request type's schema, compiled for walking: which keywords a body violates, and where.
//!
//! The walk goes along the schema, never deeper than the schema, over pieces of the body's own text, so that a number
//! is judged as it was written. Memory is bounded by the schema and by the cap on entries, not by the body.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::api::problem::FieldError;
use crate::api::shape::{self, MAX_BYTES_KEYWORD, META_DEPTH_MAX, META_MEMBERS_MAX, MetaError};

/// What a schema asks of a value.
#[derive(Debug)]
pub struct Rules {
    nullable: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Boolean,
    Integer {
        minimum: i64,
        maximum: i64,
    },
    String {
        min: usize,
        max: usize,
        pattern: Option<Pattern>,
        choices: Option<Vec<String>>,
    },
    Array {
        min: usize,
        max: usize,
        items: Box<Rules>,
    },
    Object {
        members: Vec<Member>,
        closed: bool,
        /// Of these members exactly one must be there; empty where nothing of the kind is asked.
        one_of: Vec<String>,
    },
    /// A [`shape::Meta`]: any members, kept as text.
    Meta {
        bytes_max: usize,
    },
}

#[derive(Debug)]
struct Pattern {
    text: String,
    holds: fn(&str) -> bool,
}

#[derive(Debug)]
struct Member {
    name: String,
    required: bool,
    rules: Rules,
}

/// A schema uses something that the walk does not know. A request type made of `shape.rs` never does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownKeyword {
    /// What it is and where it stands.
    pub what: String,
}

impl fmt::Display for UnknownKeyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the schema cannot be checked: {}", self.what)
    }
}

impl std::error::Error for UnknownKeyword {}

/// Keywords that describe and do not constrain.
const ANNOTATIONS: [&str; 8] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "format",
    shape::REDACT_KEYWORD,
    shape::LONG_TEXT_KEYWORD,
];

impl Rules {
    /// Compiles a schema.
    ///
    /// # Errors The first keyword, type or pattern that the walk has no check for. Nothing is skipped: a bound that is
    /// written down is a bound that holds.
    pub fn read(schema: &Value) -> Result<Rules, UnknownKeyword> {
        Rules::read_at(schema, "")
    }

    fn read_at(schema: &Value, place: &str) -> Result<Rules, UnknownKeyword> {
        let unknown = |what: &dyn fmt::Display| UnknownKeyword { what: format!("{what} at '{place}'") };
        let Value::Object(schema) = schema else {
            return Err(unknown(&"a schema that takes anything, or nothing,"));
        };
        let (name, nullable) = match schema.get("type") {
            Some(Value::String(name)) => (name.as_str(), false),
            Some(Value::Array(names)) => match &names[..] {
                [Value::String(name), null] if null == "null" => (name.as_str(), true),
                _ => return Err(unknown(&"a choice of types")),
            },
            _ => return Err(unknown(&"a schema without a type")),
        };
        let known: &[&str] = match name {
            "boolean" => &[],
            "integer" => &["minimum", "maximum"],
            "string" => &["minLength", "maxLength", "pattern", "enum"],
            "array" => &["minItems", "maxItems", "items"],
            "object" if is_meta(schema) => &["additionalProperties", "maxProperties", MAX_BYTES_KEYWORD],
            "object" => &["properties", "required", "additionalProperties", "oneOf"],
            _ => return Err(unknown(&format_args!("the type {name}"))),
        };
        let is_known = |keyword: &str| keyword == "type" || known.contains(&keyword) || ANNOTATIONS.contains(&keyword);
        if let Some(keyword) = schema.keys().find(|keyword| !is_known(keyword)) {
            return Err(unknown(&format_args!("the keyword {keyword} of {name}")));
        }
        let size = |keyword: &str, other: usize| match schema.get(keyword) {
            None => Ok(other),
            Some(value) => value
                .as_u64()
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(|| unknown(&format_args!("{keyword}: {value}"))),
        };
        let bound = |keyword: &str, other: i64| match schema.get(keyword) {
            None => Ok(other),
            Some(value) => value.as_i64().ok_or_else(|| unknown(&format_args!("{keyword}: {value}"))),
        };
        let kind = match name {
            "boolean" => Kind::Boolean,
            "integer" => match schema.get("format").and_then(Value::as_str) {
                Some("int64") => {
                    Kind::Integer { minimum: bound("minimum", i64::MIN)?, maximum: bound("maximum", i64::MAX)? }
                }
                // Another width has bounds that no keyword says.
                _ => return Err(unknown(&"an integer that is not int64")),
            },
            "string" => {
                let pattern = match schema.get("pattern").map(|text| (text, text.as_str().and_then(shape::pattern))) {
                    None => None,
                    Some((text, Some(holds))) => {
                        Some(Pattern { text: text.as_str().unwrap_or_default().to_owned(), holds })
                    }
                    Some((text, None)) => return Err(unknown(&format_args!("the pattern {text}"))),
                };
                let choices = match schema.get("enum") {
                    None => None,
                    Some(Value::Array(choices)) => {
                        Some(choices.iter().filter_map(Value::as_str).map(str::to_owned).collect())
                    }
                    Some(other) => return Err(unknown(&format_args!("enum: {other}"))),
                };
                Kind::String { min: size("minLength", 0)?, max: size("maxLength", usize::MAX)?, pattern, choices }
            }
            "array" => {
                let items = schema.get("items").ok_or_else(|| unknown(&"an array without items"))?;
                let items = Box::new(Rules::read_at(items, &format!("{place}/items"))?);
                Kind::Array { min: size("minItems", 0)?, max: size("maxItems", usize::MAX)?, items }
            }
            _ if is_meta(schema) => {
                if size("maxProperties", usize::MAX)? != META_MEMBERS_MAX {
                    return Err(unknown(&"another bound on meta than the type's"));
                }
                Kind::Meta { bytes_max: size(MAX_BYTES_KEYWORD, usize::MAX)? }
            }
            _ => Kind::Object {
                members: read_members(schema, place)?,
                closed: is_closed(schema).map_err(|what| unknown(&what))?,
                one_of: one_of(schema).map_err(|what| unknown(&what))?,
            },
        };
        Ok(Rules { nullable, kind })
    }
}

/// Whether it is the schema of a [`shape::Meta`]: no other object bounds the number of its members.
fn is_meta(schema: &Map<String, Value>) -> bool {
    schema.contains_key("maxProperties")
}

/// Whether unknown members are refused.
fn is_closed(schema: &Map<String, Value>) -> Result<bool, &'static str> {
    match schema.get("additionalProperties") {
        None | Some(Value::Bool(true)) => Ok(false),
        Some(Value::Bool(false)) => Ok(true),
        Some(_) => Err("a schema for unknown members"),
    }
}

/// The members of which exactly one must be there: a choice between objects that require one member each.
fn one_of(schema: &Map<String, Value>) -> Result<Vec<String>, &'static str> {
    let Some(choices) = schema.get("oneOf") else { return Ok(Vec::new()) };
    let names = choices.as_array().into_iter().flatten().map(|choice| {
        let keywords = choice.as_object().filter(|keywords| keywords.len() == 1)?;
        match keywords.get("required")?.as_array()?.as_slice() {
            [Value::String(name)] => Some(name.clone()),
            _ => None,
        }
    });
    names.collect::<Option<_>>().ok_or("a choice between more than required members")
}

fn read_members(schema: &Map<String, Value>, place: &str) -> Result<Vec<Member>, UnknownKeyword> {
    let required: Vec<&str> = match schema.get("required") {
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let Some(Value::Object(properties)) = schema.get("properties") else { return Ok(Vec::new()) };
    let mut members = Vec::with_capacity(properties.len());
    for (name, rules) in properties {
        let rules = Rules::read_at(rules, &format!("{place}/properties/{name}"))?;
        members.push(Member { name: name.clone(), required: required.contains(&name.as_str()), rules });
    }
    Ok(members)
}

impl Rules {
    /// Every keyword that a valid JSON text violates, at most `errors_max` of them (COM-VAL-02, COM-VAL-08).
    pub fn walk(&self, text: &str, errors_max: usize) -> Vec<FieldError> {
        let mut walk = Walk { errors: Vec::new(), errors_max, location: String::new(), place: String::from("body") };
        self.check(text, &mut walk);
        walk.errors
    }

    fn check(&self, text: &str, walk: &mut Walk) {
        let text = text.trim_ascii();
        let got = type_of(text);
        if got == "null" && self.nullable {
            return;
        }
        if got != self.kind.carrier() {
            let (want, or_null) = (self.kind.name(), if self.nullable { " or null" } else { "" });
            return walk.found("type", format_args!("got {got}, want {want}{or_null}"));
        }
        match &self.kind {
            Kind::Boolean => {}
            Kind::Integer { minimum, maximum } => check_integer(text, *minimum, *maximum, walk),
            Kind::String { min, max, pattern, choices } => {
                let Ok(string) = decode_string(text) else {
                    return walk.not_text();
                };
                check_string(&string, *min, *max, pattern.as_ref(), choices.as_deref(), walk);
            }
            Kind::Array { min, max, items } => {
                let mut length = 0usize;
                each_element(text, |element| {
                    if length < *max && !walk.is_full() {
                        walk.enter("/items", format_args!("[{length}]"), |walk| items.check(element, walk));
                    }
                    length += 1;
                });
                if length < *min {
                    walk.found("minItems", format_args!("minItems: got {length}, want {min}"));
                }
                if length > *max {
                    walk.found("maxItems", format_args!("maxItems: got {length}, want {max}"));
                }
            }
            Kind::Object { members, closed, one_of } => check_object(text, members, *closed, one_of, walk),
            Kind::Meta { bytes_max } => match shape::compact(text, *bytes_max) {
                Ok(_) => {}
                Err(MetaError::TooManyMembers { got }) => {
                    walk.found("maxProperties", format_args!("maxProperties: got {got}, want {META_MEMBERS_MAX}"));
                }
                Err(MetaError::TooDeep) => {
                    walk.found("type", format_args!("nests deeper than {META_DEPTH_MAX} levels"));
                }
                Err(error @ (MetaError::TooLong { .. } | MetaError::NotAnObject | MetaError::NotJson)) => {
                    walk.found(MAX_BYTES_KEYWORD, format_args!("{error}"));
                }
            },
        }
    }

    /// The same value with the last of repeated members only, and without members that an open object ignores. The text
    /// is one in which [`Rules::walk`] found nothing.
    ///
    /// # Errors
    /// Text that is not JSON.
    pub fn rewrite(&self, text: &str) -> Result<String, serde_json::Error> {
        let mut out = String::with_capacity(text.len());
        self.write(text.trim_ascii(), &mut out)?;
        Ok(out)
    }

    fn write(&self, text: &str, out: &mut String) -> Result<(), serde_json::Error> {
        match (&self.kind, text.as_bytes().first()) {
            (Kind::Object { members, .. }, Some(b'{')) => {
                let found = last_members(text, members, |_| {})?;
                out.push('{');
                let mut first = true;
                for (member, value) in members.iter().zip(found) {
                    if let Some(value) = value {
                        out.push_str(if first { "" } else { "," });
                        first = false;
                        out.push_str(&Value::from(member.name.as_str()).to_string());
                        out.push(':');
                        member.rules.write(value, out)?;
                    }
                }
                out.push('}');
            }
            (Kind::Array { items, .. }, Some(b'[')) => {
                out.push('[');
                let mut written = Ok(());
                let mut first = true;
                each_element(text, |element| {
                    if written.is_ok() {
                        out.push_str(if first { "" } else { "," });
                        first = false;
                        written = items.write(element, out);
                    }
                });
                written?;
                out.push(']');
            }
            _ => out.push_str(text),
        }
        Ok(())
    }
}

impl Kind {
    /// The type's name in JSON Schema.
    fn name(&self) -> &'static str {
        match self {
            Kind::Integer { .. } => "integer",
            _ => self.carrier(),
        }
    }

    /// The type's name in JSON.
    fn carrier(&self) -> &'static str {
        match self {
            Kind::Boolean => "boolean",
            Kind::Integer { .. } => "number",
            Kind::String { .. } => "string",
            Kind::Array { .. } => "array",
            Kind::Object { .. } | Kind::Meta { .. } => "object",
        }
    }
}

/// The type of a valid JSON text.
fn type_of(text: &str) -> &'static str {
    match text.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "boolean",
        Some(b'n') => "null",
        _ => "number",
    }
}

/// Judges a number as it is written (COM-BODY-06).
fn check_integer(text: &str, minimum: i64, maximum: i64, walk: &mut Walk) {
    let is_written_as_one = text != "-0" && !text.contains(['.', 'e', 'E']);
    if !is_written_as_one {
        return walk.found("type", format_args!("got number {}, want integer", Excerpt(text)));
    }
    // Without a fraction and an exponent, what does not parse is out of range.
    match text.parse::<i64>() {
        Ok(number) => {
            if number < minimum {
                walk.found("minimum", format_args!("minimum: got {number}, want {minimum}"));
            }
            if number > maximum {
                walk.found("maximum", format_args!("maximum: got {number}, want {maximum}"));
            }
        }
        Err(_) => {
            let got = Excerpt(text);
            match text.starts_with('-') {
                true if minimum > i64::MIN => walk.found("minimum", format_args!("minimum: got {got}, want {minimum}")),
                false if maximum < i64::MAX => {
                    walk.found("maximum", format_args!("maximum: got {got}, want {maximum}"));
                }
                _ => walk.found("format", format_args!("int64: got {got}, want an integer of 64 bits")),
            }
        }
    }
}

fn check_string(
    string: &str,
    min: usize,
    max: usize,
    pattern: Option<&Pattern>,
    choices: Option<&[String]>,
    walk: &mut Walk,
) {
    let length = string.chars().count();
    if length < min {
        walk.found("minLength", format_args!("minLength: got {length}, want {min}"));
    }
    if length > max {
        walk.found("maxLength", format_args!("maxLength: got {length}, want {max}"));
    }
    if let Some(Pattern { text, holds }) = pattern
        && !holds(string)
    {
        // What came is told by its first character that does not fit: the value itself may be a misplaced secret.
        let misfit = string.char_indices().find(|(at, character)| !holds(&string[*at..at + character.len_utf8()]));
        match misfit {
            Some((at, character)) => {
                let position = string[..at].chars().count();
                let character = character.escape_debug();
                walk.found("pattern", format_args!("pattern: got '{character}' at character {position}, want {text}"));
            }
            None => walk.found("pattern", format_args!("pattern: got a string of {length} characters, want {text}")),
        }
    }
    if let Some(choices) = choices
        && !choices.iter().any(|choice| choice == string)
    {
        let choices = choices.iter().map(|choice| format!("'{choice}'")).collect::<Vec<_>>().join(", ");
        walk.found("enum", format_args!("value must be one of {choices}, got '{}'", Excerpt(string)));
    }
}

fn check_object(text: &str, members: &[Member], closed: bool, one_of: &[String], walk: &mut Walk) {
    // Names of unknown members are a stranger's: few are kept, and the rest is counted.
    const NAMED_MAX: usize = 10;
    let mut strange: Vec<String> = Vec::new();
    let mut strange_count = 0usize;
    let found = last_members(text, members, |name| {
        if strange.len() < NAMED_MAX {
            let name = format!("'{}'", Excerpt(name));
            if strange.contains(&name) {
                return;
            }
            strange.push(name);
        }
        strange_count += 1;
    });
    let Ok(found) = found else {
        return walk.not_text();
    };
    let missing: Vec<String> = members
        .iter()
        .zip(&found)
        .filter(|(member, value)| member.required && value.is_none())
        .map(|(member, _)| format!("'{}'", member.name))
        .collect();
    if !missing.is_empty() {
        let properties = if missing.len() == 1 { "property" } else { "properties" };
        walk.found("required", format_args!("missing {properties} {}", missing.join(", ")));
    }
    if !one_of.is_empty() {
        let is_there =
            |name: &&String| members.iter().zip(&found).any(|(at, value)| at.name == **name && value.is_some());
        let choices = one_of.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
        match one_of.iter().filter(is_there).count() {
            0 => walk.found("required", format_args!("missing property {choices}")),
            1 => {}
            count => walk.found("oneOf", format_args!("oneOf: got {count} of {choices}, want exactly one")),
        }
    }
    if closed && !strange.is_empty() {
        let more = match strange_count - strange.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        walk.found(
            "additionalProperties",
            format_args!("additional properties {}{more} not allowed", strange.join(", ")),
        );
    }
    for (member, value) in members.iter().zip(found) {
        if let Some(value) = value
            && !walk.is_full()
        {
            let location = ["/properties/", &member.name].concat();
            walk.enter(&location, format_args!(".{}", member.name), |walk| member.rules.check(value, walk));
        }
    }
}

/// The list of violations as it grows, and where the walk is.
struct Walk {
    errors: Vec<FieldError>,
    errors_max: usize,
    /// The keyword pointer of the schema that is being checked.
    location: String,
    /// The data path of the value that is being checked.
    place: String,
}

impl Walk {
    fn is_full(&self) -> bool {
        self.errors.len() >= self.errors_max
    }

    /// Goes one step down, and up again.
    fn enter(&mut self, location: &str, place: fmt::Arguments<'_>, check: impl FnOnce(&mut Walk)) {
        let lengths = (self.location.len(), self.place.len());
        self.location.push_str(location);
        // Writing into a string does not fail.
        let _ = fmt::Write::write_fmt(&mut self.place, place);
        check(self);
        self.location.truncate(lengths.0);
        self.place.truncate(lengths.1);
    }

    /// Notes a violated keyword.
    fn found(&mut self, keyword: &str, message: fmt::Arguments<'_>) {
        if !self.is_full() {
            let location = Cow::Owned([&self.location, "/", keyword].concat());
            let message = format!("{message} at {}", self.place);
            self.errors.push(FieldError { location, message, fix: None });
        }
    }

    /// Notes a string or a name that is valid JSON and no text: it has a lone surrogate.
    fn not_text(&mut self) {
        if !self.is_full() {
            self.errors.push(FieldError {
                location: "requestBody".into(),
                message: format!("a string with half a surrogate pair at {}", self.place),
                fix: Some("Send whole Unicode characters.".into()),
            });
        }
    }
}

/// At most 64 characters of what a stranger wrote, control characters escaped.
struct Excerpt<'a>(&'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARS_MAX: usize = 64;
        let mut characters = self.0.chars();
        for character in characters.by_ref().take(CHARS_MAX) {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        f.write_str(if characters.next().is_some() { "…" } else { "" })
    }
}

/// A string of JSON, decoded; borrowed where it has no escapes.
fn decode_string(text: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    CowSeed.deserialize(&mut serde_json::Deserializer::from_str(text))
}

/// Reads a string without copying it where that can be helped.
struct CowSeed;

impl<'de> DeserializeSeed<'de> for CowSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for CowSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// The last value of each member of an object; `strange` hears the names of the others.
fn last_members<'a>(
    text: &'a str,
    members: &[Member],
    strange: impl FnMut(&str),
) -> Result<Vec<Option<&'a str>>, serde_json::Error> {
    struct Members<'m, F>(&'m [Member], F);

    impl<'de, F: FnMut(&str)> Visitor<'de> for Members<'_, F> {
        type Value = Vec<Option<&'de str>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Self::Value, A::Error> {
            let mut found = vec![None; self.0.len()];
            while let Some(name) = object.next_key_seed(CowSeed)? {
                match self.0.iter().position(|member| member.name == name) {
                    Some(index) => found[index] = Some(object.next_value::<&RawValue>()?.get()),
                    None => {
                        object.next_value::<IgnoredAny>()?;
                        (self.1)(&name);
                    }
                }
            }
            Ok(found)
        }
    }

    serde_json::Deserializer::from_str(text).deserialize_map(Members(members, strange))
}

/// Calls `each` for every element of an array that is valid JSON; nothing is kept.
fn each_element(text: &str, each: impl FnMut(&str)) {
    struct Elements<F>(F);

    impl<'de, F: FnMut(&str)> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut array: A) -> Result<(), A::Error> {
            while let Some(element) = array.next_element::<&RawValue>().map_err(A::Error::custom)? {
                (self.0)(element.get());
            }
            Ok(())
        }
    }

    let walked = serde_json::Deserializer::from_str(text).deserialize_seq(Elements(each));
    debug_assert!(walked.is_ok(), "the text was checked before the walk: {walked:?}");
}
