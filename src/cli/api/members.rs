//! A request's members as flags: from its schema to what may be typed, and from what was typed to a body.

use std::io::{self, Read};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, builder::PossibleValuesParser};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{BODY, kebab};
use crate::api::Entry;
use crate::api::reference::facts;
use crate::api::shape::{LONG_TEXT_KEYWORD, REDACT_KEYWORD};
use crate::cli::access::read_credential;

/// Bytes that a flag's file, or standard input, may bring: more than any server takes.
const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Levels of a schema that a flag's help shows.
const LEVELS_MAX: usize = 6;
/// Where members of a request stand in the help.
const HEADING: &str = "Request";

/// Requests that are a list have no name for it: the flag's, by operation.
const LISTS: &[(&str, &str)] = &[("ratelimit.multiLimit", "limits")];
/// The flag of any other.
const LIST: &str = "items";

/// The members of an operation's request.
pub struct Members {
    entry: &'static Entry,
    all: Vec<Member>,
}

/// A member, and the flags that give it.
struct Member {
    /// Its name in the body; `None` for a body that is a list.
    name: Option<String>,
    /// Its flag, without dashes and without the ending of a flag that takes JSON.
    flag: String,
    schema: Value,
    required: bool,
    nullable: bool,
    how: How,
}

/// How a member is typed.
enum How {
    Text,
    /// Text that may as well come from a file.
    LongText,
    /// Text that does not belong on a command line.
    Secret,
    Choice(Vec<String>),
    Whole {
        min: i64,
        max: i64,
    },
    Switch,
    /// Words with commas between them.
    List {
        of_numbers: bool,
    },
    Json,
}

impl How {
    fn of(schema: &Value) -> How {
        let texts = |values: &Vec<Value>| values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        match kind(schema) {
            "boolean" => How::Switch,
            "integer" => How::Whole {
                min: schema["minimum"].as_i64().unwrap_or(i64::MIN),
                max: schema["maximum"].as_i64().unwrap_or(i64::MAX),
            },
            "string" if schema[REDACT_KEYWORD] == true => How::Secret,
            "string" if schema[LONG_TEXT_KEYWORD] == true => How::LongText,
            "string" => schema["enum"].as_array().map_or(How::Text, |values| How::Choice(texts(values))),
            "array" => match kind(&schema["items"]) {
                "string" => How::List { of_numbers: false },
                "integer" => How::List { of_numbers: true },
                _ => How::Json,
            },
            _ => How::Json,
        }
    }
}

/// The type of a schema, but for null.
fn kind(schema: &Value) -> &str {
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null").unwrap_or("any"),
        kind => kind.as_str().unwrap_or("any"),
    }
}

fn is_nullable(schema: &Value) -> bool {
    schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"))
}

impl Members {
    /// Those of an operation, the required ones first.
    pub fn of(entry: &'static Entry) -> Members {
        let schema = (entry.request_schema)();
        let member = |name: Option<&str>, flag: String, schema: &Value, required: bool| Member {
            name: name.map(str::to_owned),
            flag,
            required,
            nullable: is_nullable(schema),
            how: How::of(schema),
            schema: schema.clone(),
        };
        let all = if kind(&schema) == "object" {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let properties = || schema["properties"].as_object().into_iter().flatten();
            let (first, then): (Vec<_>, Vec<_>) = properties().partition(|(name, _)| required.contains(&name.as_str()));
            let of = |(name, schema): (&String, &Value)| {
                member(Some(name), kebab(name), schema, required.contains(&name.as_str()))
            };
            first.into_iter().chain(then).map(of).collect()
        } else {
            let flag = LISTS.iter().find(|(name, _)| *name == entry.name).map_or(LIST, |(_, flag)| flag);
            let mut list = member(None, flag.to_owned(), &schema, true);
            list.how = How::Json;
            vec![list]
        };
        Members { entry, all }
    }

    /// The ids of all their flags.
    pub fn ids(&self) -> Vec<String> {
        self.all.iter().flat_map(Member::ids).collect()
    }

    /// Their flags.
    pub fn arguments(&self) -> Vec<Arg> {
        self.all
            .iter()
            .flat_map(Member::arguments)
            .enumerate()
            .map(|(at, argument)| argument.display_order(at))
            .collect()
    }

    /// The body that was typed.
    ///
    /// # Errors
    /// What is wrong with it, a sentence each, by the operation's own check.
    pub fn body(&self, matches: &ArgMatches, stdin: &mut Stdin) -> Result<String, Vec<String>> {
        if let Some(typed) = matches.get_one::<String>(BODY) {
            // Sent as it is, so that a server of another version judges it.
            return stdin.json(BODY, typed).map_err(|reason| vec![reason]);
        }
        let mut reasons = Vec::new();
        let mut body = String::from("{");
        for member in &self.all {
            match (member.value(matches, stdin), &member.name) {
                (Ok(Some(value)), Some(name)) => {
                    let comma = if body.len() > 1 { "," } else { "" };
                    body.push_str(&format!("{comma}{}:{value}", json!(name)));
                }
                (Ok(Some(value)), None) => return self.checked(value),
                (Ok(None), _) => {}
                (Err(reason), _) => reasons.push(reason),
            }
        }
        body.push('}');
        if reasons.is_empty() { self.checked(body) } else { Err(reasons) }
    }

    fn checked(&self, body: String) -> Result<String, Vec<String>> {
        match (self.entry.check)(body.as_bytes()) {
            Ok(()) => Ok(body),
            Err(problem) if problem.errors().is_empty() => Err(vec![problem.detail().to_owned()]),
            Err(problem) => Err(problem.errors().iter().map(|error| self.by_flag(&error.message)).collect()),
        }
    }

    /// What a check says of a body, with the flag that it is about in front: the messages of COM-VAL-08 end with a place.
    pub fn by_flag(&self, message: &str) -> String {
        let place = message.rsplit_once(" at body").map(|(_, place)| place);
        let flags: Vec<String> = match place {
            // The body itself lacks or has members, which the message names.
            Some("") => {
                let named =
                    |member: &&Member| member.name.as_ref().is_some_and(|name| message.contains(&format!("'{name}'")));
                self.all.iter().filter(named).map(Member::flag).collect()
            }
            Some(place) => {
                let name = place.strip_prefix('.').map(|rest| rest.split(['.', '[']).next().unwrap_or_default());
                self.all.iter().filter(|member| member.name.as_deref() == name).map(Member::flag).collect()
            }
            None => Vec::new(),
        };
        if flags.is_empty() { message.to_owned() } else { format!("{}: {message}", flags.join(", ")) }
    }
}

impl Member {
    /// The flag that gives its value, with dashes.
    fn flag(&self) -> String {
        format!("--{}", self.value_id())
    }

    /// The flag that gives its value, which is also that flag's id.
    fn value_id(&self) -> String {
        if matches!(self.how, How::Json) { format!("{}-json", self.flag) } else { self.flag.clone() }
    }

    fn null_id(&self) -> Option<String> {
        self.nullable.then(|| format!("{}-null", self.flag))
    }

    fn file_id(&self) -> Option<String> {
        matches!(self.how, How::Secret | How::LongText).then(|| format!("{}-file", self.flag))
    }

    fn ids(&self) -> Vec<String> {
        [Some(self.value_id()), self.file_id(), self.null_id()].into_iter().flatten().map(|id| id_of(&id)).collect()
    }

    fn arguments(&self) -> Vec<Arg> {
        let ids = self.ids();
        let others = |mine: &str| ids.iter().filter(|id| **id != id_of(mine)).cloned().collect::<Vec<_>>();
        let made = |flag: String| {
            let others = others(&flag);
            Arg::new(id_of(&flag)).long(flag).help_heading(HEADING).conflicts_with_all(others)
        };
        let mut value = made(self.value_id()).help(self.help());
        value = match &self.how {
            How::Text | How::LongText => value.value_name("TEXT"),
            How::Secret => value.value_name("SECRET"),
            How::Choice(choices) => value
                .value_name("WORD")
                .value_parser(PossibleValuesParser::new(choices.clone()))
                .hide_possible_values(true),
            How::Whole { min, max } => {
                let (min, max) = (*min, *max);
                value.value_name("N").allow_negative_numbers(true).value_parser(move |text: &str| whole(text, min, max))
            }
            How::Switch => value
                .value_name("true|false")
                .num_args(0..=1)
                .default_missing_value("true")
                .value_parser(["true", "false"])
                .hide_possible_values(true),
            How::List { .. } => value.value_name("A,B,…").action(ArgAction::Append),
            How::Json => value.value_name("JSON|@FILE|-").visible_alias(self.flag.clone()),
        };
        if self.required {
            value = value.required_unless_present_any(others(&self.value_id()).into_iter().chain([BODY.to_owned()]));
        }
        let file = self.file_id().map(|flag| {
            made(flag).value_name("FILE").help(match self.how {
                How::LongText => format!("File that holds --{}, - for standard input", self.flag),
                _ => format!("File whose first line is --{}, - for standard input", self.flag),
            })
        });
        let null = self
            .null_id()
            .map(|flag| made(flag).action(ArgAction::SetTrue).help(format!("Sends null for --{}", self.value_id())));
        [Some(value), file, null].into_iter().flatten().collect()
    }

    /// What the member means, and its bounds.
    fn help(&self) -> String {
        let described = self.schema["description"].as_str();
        let mut help = reflowed(described.unwrap_or(if self.name.is_none() { "The list to send" } else { "" }));
        if help.ends_with('.') && !help.contains(". ") && !help.contains('\n') {
            help.pop();
        }
        if matches!(self.how, How::Secret) {
            help.push_str(&format!(
                "; better through --{}-file: other users of the machine see command lines",
                self.flag
            ));
        }
        let mut told: Vec<String> = Vec::new();
        if self.required {
            told.push("required".to_owned());
        }
        told.extend(facts(&self.schema));
        if matches!(self.how, How::List { .. }) {
            told.extend(facts(&self.schema["items"]).into_iter().map(|fact| format!("each {fact}")));
        }
        if !told.is_empty() {
            help.push_str(&format!(" [{}]", told.join("; ")));
        }
        if matches!(self.how, How::Json) && !is_free(&self.schema) {
            help.push_str(&format!("\n{}", shape(&self.schema, 0)));
        }
        help
    }

    /// The member's value as JSON, if any was typed.
    fn value(&self, matches: &ArgMatches, stdin: &mut Stdin) -> Result<Option<String>, String> {
        if self.null_id().is_some_and(|flag| matches.get_flag(&id_of(&flag))) {
            return Ok(Some("null".to_owned()));
        }
        if let Some(path) = self.file_id().and_then(|flag| matches.get_one::<String>(&id_of(&flag))) {
            let flag = format!("{}-file", self.flag);
            if let How::LongText = self.how {
                return Ok(Some(json!(stdin.text(&flag, path)?).to_string()));
            }
            if path == "-" {
                stdin.take(&flag)?;
            }
            let secret = read_credential(Path::new(path))?;
            return Ok(Some(json!(secret.expose()).to_string()));
        }
        let id = id_of(&self.value_id());
        let text = || matches.get_one::<String>(&id);
        Ok(match &self.how {
            How::Text | How::LongText | How::Secret | How::Choice(_) => text().map(|text| json!(text).to_string()),
            How::Whole { .. } => matches.get_one::<i64>(&id).map(i64::to_string),
            How::Switch => text().cloned(),
            How::List { of_numbers } => matches.get_many::<String>(&id).map(|typed| {
                let words = typed.filter(|text| !text.is_empty()).flat_map(|text| text.split(',')).map(str::trim);
                let value = |word: &str| match (of_numbers, word.parse::<i64>()) {
                    (true, Ok(number)) => json!(number),
                    // What is no number is left to the check, which says so.
                    _ => json!(word),
                };
                Value::from_iter(words.map(value)).to_string()
            }),
            How::Json => text().map(|typed| stdin.json(&self.value_id(), typed)).transpose()?,
        })
    }
}

/// The id of a member's flag: none of the command's other flags has such a one.
fn id_of(flag: &str) -> String {
    format!("member {flag}")
}

fn whole(text: &str, min: i64, max: i64) -> Result<i64, String> {
    let range = match (min, max) {
        (i64::MIN, i64::MAX) => String::new(),
        (min, i64::MAX) => format!(" of at least {min}"),
        (i64::MIN, max) => format!(" of at most {max}"),
        (min, max) => format!(" from {min} to {max}"),
    };
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| format!("must be a whole number{range}"))
}

/// Line breaks of the source become spaces; paragraphs and lists stay.
fn reflowed(text: &str) -> String {
    let mut flowed = String::with_capacity(text.len());
    for line in text.lines() {
        let begins = line.is_empty() || line.starts_with("- ") || flowed.is_empty() || flowed.ends_with('\n');
        if !flowed.is_empty() {
            flowed.push(if begins { '\n' } else { ' ' });
        }
        flowed.push_str(line);
    }
    flowed
}

/// Whether a schema takes any object at all.
fn is_free(schema: &Value) -> bool {
    kind(schema) == "object" && schema["properties"].is_null()
}

/// What JSON a schema takes, as short as can be: `{"remaining": integer|null, "refill"?: {…}}`.
fn shape(schema: &Value, level: usize) -> String {
    let mut text = match kind(schema) {
        _ if level > LEVELS_MAX => "…".to_owned(),
        "object" => match schema["properties"].as_object() {
            Some(members) => {
                let is_required =
                    |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == name));
                let (first, then): (Vec<_>, Vec<_>) = members.iter().partition(|(name, _)| is_required(name));
                let of = |(name, member), mark| format!("\"{name}\"{mark}: {}", shape(member, level + 1));
                let first = first.into_iter().map(|member| of(member, ""));
                let members: Vec<String> = first.chain(then.into_iter().map(|member| of(member, "?"))).collect();
                format!("{{{}}}", members.join(", "))
            }
            None => "{…}".to_owned(),
        },
        "array" => format!("[{}, …]", shape(&schema["items"], level + 1)),
        "boolean" => "true|false".to_owned(),
        "string" => match schema["enum"].as_array() {
            Some(choices) => {
                choices.iter().filter(|choice| !choice.is_null()).map(Value::to_string).collect::<Vec<_>>().join("|")
            }
            None => "text".to_owned(),
        },
        kind => kind.to_owned(),
    };
    if is_nullable(schema) {
        text.push_str("|null");
    }
    text
}

/// Standard input, which only one flag can read.
#[derive(Default)]
pub struct Stdin {
    taken_by: Option<String>,
}

impl Stdin {
    /// Notes that a flag reads it.
    ///
    /// # Errors
    /// Another does already.
    pub fn take(&mut self, flag: &str) -> Result<(), String> {
        match self.taken_by.replace(flag.to_owned()) {
            None => Ok(()),
            Some(other) => Err(format!("--{other} and --{flag} cannot both read standard input")),
        }
    }

    /// What a file holds, or with `-` standard input.
    fn text(&mut self, flag: &str, path: &str) -> Result<String, String> {
        if path == "-" {
            self.take(flag)?;
            return read(io::stdin().lock())
                .map_err(|error| format!("cannot read standard input for --{flag}: {error}"));
        }
        let opened = std::fs::File::open(path).and_then(read);
        opened.map_err(|error| format!("cannot read {path} for --{flag}: {error}"))
    }

    /// JSON that was typed, or named as `@FILE` or `-`.
    fn json(&mut self, flag: &str, typed: &str) -> Result<String, String> {
        let text = match typed.strip_prefix('@').or(Some(typed).filter(|typed| *typed == "-")) {
            Some(path) => self.text(flag, path)?,
            None => typed.to_owned(),
        };
        // Kept as it was written: digits of a number, order and all.
        let raw = serde_json::from_str::<&RawValue>(&text).map_err(|error| format!("--{flag} is not JSON: {error}"))?;
        Ok(raw.get().to_owned())
    }
}

fn read(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(INPUT_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than any server takes"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;
    use crate::api::find;

    fn members(name: &str) -> Members {
        Members::of(find(&format!("/v2/{name}")).expect("an operation"))
    }

    fn typed(name: &str, flags: &[&str]) -> Result<String, Vec<String>> {
        let members = members(name);
        let command = Command::new("x")
            .args(members.arguments())
            .arg(Arg::new(BODY).long(BODY).conflicts_with_all(members.ids()));
        let matches = command
            .try_get_matches_from(["x"].iter().chain(flags))
            .map_err(|error| error.to_string().lines().map(str::to_owned).collect::<Vec<_>>())?;
        members.body(&matches, &mut Stdin::default())
    }

    /// COM-BODY-03, KEYS-UPDATE-1: each kind of flag becomes its kind of JSON; absent, null and empty are three things.
    #[test]
    fn flags_become_a_body() {
        let name = ["--key-id", "key_1"];
        for (flags, body) in [
            (vec![], r#"{"keyId":"key_1"}"#),
            (vec!["--name", "null"], r#"{"keyId":"key_1","name":"null"}"#),
            (vec!["--name-null", "--meta-null"], r#"{"keyId":"key_1","meta":null,"name":null}"#),
            (vec!["--meta-json", "null"], r#"{"keyId":"key_1","meta":null}"#),
            (
                vec!["--meta-json", r#"{"b":1e2, "a":12345678901234567890.10}"#],
                r#"{"keyId":"key_1","meta":{"b":1e2, "a":12345678901234567890.10}}"#,
            ),
            (vec!["--meta", "{}"], r#"{"keyId":"key_1","meta":{}}"#),
            (vec!["--roles", ""], r#"{"keyId":"key_1","roles":[]}"#),
            (vec!["--roles", "a, b", "--roles=c"], r#"{"keyId":"key_1","roles":["a","b","c"]}"#),
            (vec!["--enabled"], r#"{"enabled":true,"keyId":"key_1"}"#),
            (vec!["--enabled=false", "--expires", "0"], r#"{"enabled":false,"expires":0,"keyId":"key_1"}"#),
            (vec!["--enabled", "false", "--expires-null"], r#"{"enabled":false,"expires":null,"keyId":"key_1"}"#),
        ] {
            let made = typed("keys.updateKey", &[&name[..], &flags].concat()).expect("a body");
            let in_order = |text: &str| {
                serde_json::from_str::<std::collections::BTreeMap<String, Box<RawValue>>>(text)
                    .expect("an object")
                    .into_iter()
                    .map(|(name, value)| format!("{name}={}", value.get()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(in_order(&made), in_order(body), "{flags:?}");
        }
        let list = r#"[{"namespace":"n","identifier":"i","limit":1,"duration":1000}]"#;
        assert_eq!(typed("ratelimit.multiLimit", &["--limits-json", list]).as_deref(), Ok(list));
        assert_eq!(typed("ratelimit.multiLimit", &["--body-json", "{\"odd\" : 1}"]).as_deref(), Ok("{\"odd\" : 1}"));
    }

    /// What the server would refuse is refused before it is sent, by the flag's name, and every reason at once.
    #[test]
    fn wrong_flags_are_named() {
        for (name, flags, wanted) in [
            ("keys.createKey", vec!["--name", "x"], vec!["--api-id"]),
            (
                "keys.createKey",
                vec!["--api-id", "api_1", "--byte-length", "8"],
                vec!["--byte-length", "from 16 to 255"],
            ),
            (
                "keys.createKey",
                vec!["--api-id", "api_1", "--byte-length", "-1"],
                vec!["--byte-length", "from 16 to 255"],
            ),
            ("keys.createKey", vec!["--api-id", "api_1", "--byte-length", "1.5"], vec!["whole number from 16"]),
            ("keys.createKey", vec!["--api-id", "a!", "--name", ""], vec!["--api-id: ", "--name: minLength"]),
            ("keys.createKey", vec!["--api-id", "api_1", "--meta-json", "{"], vec!["--meta-json is not JSON"]),
            ("keys.createKey", vec!["--api-id", "api_1", "--meta-json", "[]"], vec!["--meta-json: got array"]),
            (
                "keys.createKey",
                vec!["--api-id", "api_1", "--credits-json", "{\"x\":1}"],
                vec!["--credits-json: ", "'remaining'"],
            ),
            (
                "keys.createKey",
                vec!["--api-id", "api_1", "--permissions", "a,b c,"],
                vec!["--permissions: pattern", "permissions[1]", "permissions[2]"],
            ),
            ("keys.createKey", vec!["--api-id", "api_1", "--name-null"], vec!["--name-null"]),
            (
                "keys.createKey",
                vec!["--api-id", "api_1", "--meta-json", "@/nowhere"],
                vec!["cannot read /nowhere for --meta-json"],
            ),
            ("keys.updateKey", vec!["--key-id", "k_1", "--name", "x", "--name-null"], vec!["cannot be used with"]),
            ("keys.updateCredits", vec!["--key-id", "k_1", "--operation", "ad"], vec!["--operation", "increment"]),
            ("keys.updateKey", vec!["--key-id", "k_1", "--body-json", "{}"], vec!["cannot be used with"]),
            ("ratelimit.multiLimit", vec!["--limits-json", "[{}]"], vec!["body[0]"]),
            ("ratelimit.multiLimit", vec!["--body-json", "nonsense"], vec!["--body-json is not JSON"]),
        ] {
            let told = typed(name, &flags).expect_err("wrong").join("\n");
            for words in wanted {
                assert!(told.contains(words), "{name} {flags:?}: no {words:?} in {told}");
            }
        }
        let mut stdin = Stdin::default();
        stdin.take("key-file").expect("the first");
        assert!(stdin.json("meta-json", "-").expect_err("the second").contains("--key-file and --meta-json"));
        let secret = "hush ".repeat(200);
        let told = typed("keys.verifyKey", &["--key", &secret]).expect_err("too long").join("\n");
        assert!(told.contains("--key: maxLength") && !told.contains("hush"), "{told}");
    }

    #[test]
    fn help_says_what_json_is_wanted() {
        let createkey = members("keys.createKey");
        let credits = createkey.all.iter().find(|member| member.flag == "credits").expect("a member");
        let help = credits.help();
        assert!(help.contains(r#""remaining": integer|null"#) && help.contains(r#""refill"?: {"#), "{help}");
        assert_eq!(reflowed("One\ntwo.\n\n- `a`: b\n- `c`: d"), "One two.\n\n- `a`: b\n- `c`: d");
    }
}
