//! A record of a CSV file as a key of `keys.migrateKeys`.
//!
//! Every row is judged here by the operation's own check, so that a wrong one is named by its line before anything is sent.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use time::{Date, Month, PrimitiveDateTime, Time};

use super::csv::Record;
use crate::api::migrations::Algorithm;
use crate::api::{Entry, find};

/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;
/// The operation that keys are taken over by.
const OPERATION: &str = "/v2/keys.migrateKeys";

/// A key on its way.
#[derive(Debug)]
pub struct Row {
    /// How its hash was made.
    pub algorithm: Algorithm,
    /// Its hash, spelled as the operation wants it.
    pub hash: String,
    /// The item of the operation's request.
    pub item: Value,
    /// How many roles and permissions it names.
    pub links: usize,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Hash,
    Algorithm,
    Name,
    Start,
    ExternalId,
    Meta,
    Roles,
    Permissions,
    Expires,
    Enabled,
    Credits,
    RefillInterval,
    RefillAmount,
    RefillDay,
    Ratelimits,
}

/// The names of columns, as they are told, and what they hold.
const NAMES: [(&str, Column); 15] = [
    ("hash", Column::Hash),
    ("algorithm", Column::Algorithm),
    ("name", Column::Name),
    ("start", Column::Start),
    ("external_id", Column::ExternalId),
    ("meta", Column::Meta),
    ("roles", Column::Roles),
    ("permissions", Column::Permissions),
    ("expires", Column::Expires),
    ("enabled", Column::Enabled),
    ("credits", Column::Credits),
    ("refill_interval", Column::RefillInterval),
    ("refill_amount", Column::RefillAmount),
    ("refill_day", Column::RefillDay),
    ("ratelimits", Column::Ratelimits),
];

/// The columns of a file, in its order.
#[derive(Debug)]
pub struct Columns(Vec<Column>);

impl Columns {
    /// Reads the file's first record. `externalId`, `External ID` and `external_id` are one name.
    ///
    /// # Errors
    /// A sentence: a name that is not known, or twice, or no hash.
    pub fn read(header: &Record) -> Result<Columns, String> {
        let plain = |name: &str| -> String {
            name.chars().filter(|sign| sign.is_alphanumeric()).flat_map(char::to_lowercase).collect()
        };
        let mut columns = Vec::with_capacity(header.fields.len());
        for field in &header.fields {
            let known = NAMES.iter().find(|(name, _)| plain(name) == plain(field));
            let Some((name, column)) = known else {
                let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
                return Err(format!(
                    "the first line names the columns, and {field:?} is none: there are {}. Take out what has no place here",
                    names.join(", ")
                ));
            };
            if columns.contains(column) {
                return Err(format!("the column {name} is there twice"));
            }
            columns.push(*column);
        }
        if columns.contains(&Column::Hash) { Ok(Columns(columns)) } else { Err("there is no column `hash`".to_owned()) }
    }

    /// Whether keys come with their first characters, which a hash is stored without.
    pub fn have_start(&self) -> bool {
        self.0.contains(&Column::Start)
    }

    /// Reads a record of the file.
    ///
    /// # Errors
    /// A sentence about the row.
    pub fn row(&self, record: &Record) -> Result<Row, String> {
        if record.fields.len() != self.0.len() {
            return Err(format!("has {} fields, and there are {} columns", record.fields.len(), self.0.len()));
        }
        let field = |column| -> Option<&str> {
            let at = self.0.iter().position(|one| *one == column)?;
            Some(record.fields[at].trim()).filter(|field| !field.is_empty())
        };
        let (algorithm, base) = algorithm(field(Column::Algorithm))?;
        let hash = hash(field(Column::Hash).ok_or("has no hash")?, algorithm, base)?;

        let mut item = Map::new();
        item.insert("hash".to_owned(), json!(hash));
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                item.insert(name.to_owned(), value);
            }
        };
        put("name", field(Column::Name).map(Value::from));
        put("externalId", field(Column::ExternalId).map(Value::from));
        put("meta", field(Column::Meta).map(|text| structure("meta", text)).transpose()?);
        // Names of roles may hold spaces; slugs cannot.
        let roles: Vec<&str> = words(field(Column::Roles), &[',']);
        let permissions = words(field(Column::Permissions), &[',', ' ', '\t', '\n']);
        let links = roles.len() + permissions.len();
        put("roles", (!roles.is_empty()).then(|| json!(roles)));
        put("permissions", (!permissions.is_empty()).then(|| json!(permissions)));
        put("expires", field(Column::Expires).map(moment).transpose()?.map(Value::from));
        put("enabled", field(Column::Enabled).map(yes_or_no).transpose()?.map(Value::from));
        let refill = [Column::RefillInterval, Column::RefillAmount, Column::RefillDay].map(field);
        put("credits", credits(field(Column::Credits), refill)?);
        put("ratelimits", field(Column::Ratelimits).map(|text| structure("ratelimits", text)).transpose()?);
        let item = Value::Object(item);
        check(&item)?;
        Ok(Row { algorithm, hash, item, links })
    }
}

/// Judges a key by the operation's own check.
///
/// # Errors
/// What is wrong with it.
pub fn check(item: &Value) -> Result<(), String> {
    let entry: &Entry = find(OPERATION).ok_or("this program cannot take keys over")?;
    let body = json!({"migrationId": "mig_check", "apiId": "api_check", "keys": [item]}).to_string();
    (entry.check)(body.as_bytes()).map_err(|problem| {
        let told: Vec<_> = problem.errors().iter().map(|error| error.message.replace("keys[0].", "")).collect();
        if told.is_empty() { problem.detail().to_owned() } else { told.join("; ") }
    })
}

/// How the bytes of a hash are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Either,
    Hex,
    Base64,
}

fn algorithm(named: Option<&str>) -> Result<(Algorithm, Base), String> {
    let name = named.unwrap_or("sha256").to_ascii_lowercase().replace('-', "_");
    Ok(match name.as_str() {
        "sha256" | "sha_256" => (Algorithm::Sha256, Base::Either),
        "sha256_hex" => (Algorithm::Sha256, Base::Hex),
        "sha256_base64" => (Algorithm::Sha256, Base::Base64),
        "prefixed_api_key" | "github.com/seamapi/prefixed_api_key" => (Algorithm::PrefixedApiKey, Base::Either),
        _ => {
            return Err(format!(
                "has the algorithm {:?}: keys can be taken over by sha256 and by github.com/seamapi/prefixed-api-key. A \
                 salted or slow hash (bcrypt, argon2, scrypt, PBKDF2) cannot be looked up; such keys have to be issued anew",
                named.unwrap_or_default()
            ));
        }
    })
}

/// A hash as the operation wants it: base64 with padding for whole keys, lower-case hexadecimal for long tokens.
fn hash(text: &str, algorithm: Algorithm, base: Base) -> Result<String, String> {
    let from_hex = || {
        let digits = text.as_bytes();
        let pairs = digits.chunks_exact(2).map(|pair| {
            let pair =
                std::str::from_utf8(pair).ok().filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
            u8::from_str_radix(pair, 16).ok()
        });
        (digits.len() == 2 * HASH_BYTES).then(|| pairs.collect::<Option<Vec<u8>>>()).flatten()
    };
    let from_base64 = || {
        let bare = text.trim_end_matches('=');
        STANDARD_NO_PAD.decode(bare).or_else(|_| URL_SAFE_NO_PAD.decode(bare)).ok()
    };
    let bytes = match base {
        Base::Hex => from_hex(),
        Base::Base64 => from_base64(),
        Base::Either => from_hex().or_else(from_base64),
    };
    let Some(bytes) = bytes.filter(|bytes| bytes.len() == HASH_BYTES) else {
        return Err(
            "has a hash that is no SHA-256: 64 hexadecimal digits or 44 characters of base64 are wanted".to_owned()
        );
    };
    Ok(match algorithm {
        Algorithm::Sha256 => STANDARD.encode(bytes),
        Algorithm::PrefixedApiKey => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    })
}

fn structure(name: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("has {name} that is not JSON: {error}"))
}

fn words<'a>(text: Option<&'a str>, between: &[char]) -> Vec<&'a str> {
    text.unwrap_or_default().split(between).map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("says enabled {text:?}: true or false is wanted")),
    }
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("has {name} {text:?}: a whole number is wanted"))
}

fn credits(remaining: Option<&str>, refill: [Option<&str>; 3]) -> Result<Option<Value>, String> {
    let [interval, amount, day] = refill;
    let Some(remaining) = remaining else {
        return match refill {
            [None, None, None] => Ok(None),
            _ => Err("has a refill and no credits; a key without credits is unlimited".to_owned()),
        };
    };
    let mut credits = json!({"remaining": number("credits", remaining)?});
    match (interval, amount, day) {
        (None, None, None) => {}
        (Some("monthly"), Some(_), None) => return Err("has a monthly refill and no refill_day".to_owned()),
        (Some(interval), Some(amount), day) => {
            let mut refill = json!({"interval": interval, "amount": number("refill_amount", amount)?});
            if let Some(day) = day {
                refill["refillDay"] = json!(number("refill_day", day)?);
            }
            credits["refill"] = refill;
        }
        _ => return Err("has part of a refill: refill_interval and refill_amount belong together".to_owned()),
    }
    Ok(Some(credits))
}

/// A moment in Unix milliseconds: as such, or as `2027-01-31`, or `2027-01-31T12:00:00Z` (RFC 3339, UTC).
fn moment(text: &str) -> Result<i64, String> {
    let wrong = || format!("expires {text:?}: unix milliseconds, 2027-01-31 or 2027-01-31T12:00:00Z is wanted");
    if let Ok(ms) = text.parse::<i64>() {
        return Ok(ms);
    }
    let (day, clock) = match text.split_once(['T', ' ']) {
        Some((day, clock)) => (day, clock.strip_suffix('Z').ok_or_else(wrong)?),
        None => (text, "00:00:00"),
    };
    let parts = |text: &str, sign: char| -> Option<[u16; 3]> {
        let numbers: Vec<u16> = text.split(sign).map(|part| part.parse().ok()).collect::<Option<_>>()?;
        numbers.try_into().ok()
    };
    // Parts of a second are let go.
    let clock = clock.split('.').next().unwrap_or_default();
    let read = || {
        let [year, month, day] = parts(day, '-')?;
        let [hour, minute, second] = parts(clock, ':')?;
        let small = |number: u16| u8::try_from(number).ok();
        let date = Date::from_calendar_date(i32::from(year), Month::try_from(small(month)?).ok()?, small(day)?).ok()?;
        let time = Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?;
        Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp() * 1000)
    };
    read().ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(fields: &[&str]) -> Record {
        Record { line: 1, fields: fields.iter().map(|field| (*field).to_owned()).collect() }
    }

    fn row(columns: &[&str], fields: &[&str]) -> Result<Row, String> {
        Columns::read(&record(columns)).expect("columns").row(&record(fields))
    }

    /// The SHA-256 of `test`, in the spellings that people have it in.
    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    const BASE64: &str = "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=";

    /// KEYS-MIGRATE-4, HASH-4: however a hash is spelled in the file, it is sent as its algorithm wants it.
    #[test]
    fn a_hash_is_sent_in_its_one_spelling() {
        for spelled in [
            HEX,
            &HEX.to_uppercase(),
            BASE64,
            BASE64.trim_end_matches('='),
            &BASE64.replace('+', "-").replace('/', "_"),
        ] {
            let row = row(&["hash"], &[spelled]).expect(spelled);
            assert_eq!((row.hash.as_str(), row.algorithm), (BASE64, Algorithm::Sha256), "{spelled}");
            let row = self::row(&["Hash", "algorithm"], &[spelled, "prefixed-api-key"]).expect(spelled);
            assert_eq!((row.hash.as_str(), row.algorithm), (HEX, Algorithm::PrefixedApiKey), "{spelled}");
        }
        for (hash, algorithm, why) in [
            ("", "sha256", "no hash"),
            ("abc", "", "no SHA-256"),
            (HEX, "sha256_base64", "no SHA-256"),
            (BASE64, "sha256-hex", "no SHA-256"),
            ("$2b$10$abcdefghijklmnopqrstuv", "bcrypt", "issued anew"),
        ] {
            let told = row(&["hash", "algorithm"], &[hash, algorithm]).expect_err(hash);
            assert!(told.contains(why), "{told}");
        }
    }

    /// KEYS-MIGRATE-1: every column ends in its member.
    #[test]
    fn every_column_has_its_place() {
        let names: Vec<&str> = NAMES.iter().map(|(name, _)| *name).collect();
        let fields = [
            HEX,
            "sha256",
            "a name",
            "demo_",
            "ada@example.com",
            r#"{"plan":"pro"}"#,
            "editor, chief editor",
            "docs.read docs.write,x",
            "2027-01-31T12:00:00Z",
            "false",
            "100",
            "monthly",
            "1000",
            "15",
            r#"[{"name":"requests","limit":10,"duration":60000,"autoApply":true}]"#,
        ];
        let row = row(&names, &fields).expect("all of it is right");
        assert_eq!(
            row.item,
            json!({
                "hash": BASE64, "name": "a name", "externalId": "ada@example.com", "meta": {"plan": "pro"},
                "roles": ["editor", "chief editor"], "permissions": ["docs.read", "docs.write", "x"],
                "expires": 1_801_396_800_000_i64, "enabled": false,
                "credits": {"remaining": 100, "refill": {"interval": "monthly", "amount": 1000, "refillDay": 15}},
                "ratelimits": [{"name": "requests", "limit": 10, "duration": 60000, "autoApply": true}],
            })
        );
        assert_eq!(row.links, 5);
        let empty: Vec<&str> = std::iter::once(HEX).chain(std::iter::repeat_n("", names.len() - 1)).collect();
        let row = self::row(&names, &empty).expect("all but the hash may be empty");
        assert_eq!(row.item, json!({"hash": BASE64}));
    }

    #[test]
    fn what_is_wrong_with_a_row_is_told() {
        for (columns, fields, why) in [
            (&["hash", "name"][..], &[HEX][..], "1 fields, and there are 2"),
            (&["hash", "meta"], &[HEX, "plan"], "not JSON"),
            (&["hash", "meta"], &[HEX, "[]"], "meta"),
            (&["hash", "permissions"], &[HEX, "not/fine"], "permissions[0]"),
            (&["hash", "expires"], &[HEX, "31.01.2027"], "2027-01-31"),
            (&["hash", "expires"], &[HEX, "2027-02-30"], "2027-01-31"),
            (&["hash", "expires"], &[HEX, "-5"], "expires"),
            (&["hash", "enabled"], &[HEX, "perhaps"], "true or false"),
            (&["hash", "credits"], &[HEX, "many"], "whole number"),
            (&["hash", "refill_amount"], &[HEX, "5"], "no credits"),
            (&["hash", "credits", "refill_amount"], &[HEX, "5", "5"], "part of a refill"),
            (&["hash", "credits", "refill_amount", "refill_interval"], &[HEX, "5", "5", "monthly"], "refill_day"),
            (&["hash", "credits", "refill_amount", "refill_interval"], &[HEX, "5", "5", "weekly"], "interval"),
            (&["hash", "ratelimits"], &[HEX, r#"[{"name":"requests","limit":10,"duration":60000}]"#], "autoApply"),
        ] {
            let told = row(columns, fields).expect_err(why);
            assert!(told.contains(why), "{fields:?}: {told}");
        }
        for (columns, why) in
            [(&["name"][..], "no column"), (&["hash", "plan"], "\"plan\""), (&["hash", "HASH"], "twice")]
        {
            let told = Columns::read(&record(columns)).expect_err(why);
            assert!(told.contains(why), "{told}");
        }
    }
}
