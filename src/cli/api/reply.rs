//! A keyward's reply: read, and printed for people or exactly as it came.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rows::{Format, Rows};
use crate::cli::ask::{Output, note, print_answer};
use crate::cli::text::{printable, steers};
use crate::http_client::Answer;

/// Why a command that talks to a server brought no reply.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// Sentences.
    pub reasons: Vec<String>,
}

impl Failure {
    /// With one reason.
    pub fn new(code: u8, reason: String) -> Failure {
        Failure { code, reasons: vec![reason] }
    }
}

/// A reply that has the shape of a keyward's (COM-ENV).
#[derive(Debug)]
pub struct Reply {
    status: u16,
    text: String,
    request_id: String,
    took: Duration,
}

/// The members of a reply beside `meta`, as they were written.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    request_id: String,
}

#[derive(Deserialize)]
struct Pagination {
    cursor: Option<String>,
}

/// A refusal, as the reply tells it (COM-ERR-01).
#[derive(Debug, Deserialize)]
pub struct Refusal {
    /// The status in words.
    pub title: String,
    /// What is wrong, for people.
    pub detail: String,
    /// The HTTP status.
    pub status: u16,
    /// The code, as a URL.
    pub r#type: String,
    /// What is wrong with the request, one by one.
    #[serde(default)]
    pub errors: Vec<RefusedField>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Deserialize)]
pub struct RefusedField {
    /// What, and where in the body.
    pub message: String,
    /// What to do about it.
    pub fix: Option<String>,
}

impl Reply {
    /// Reads an answer.
    ///
    /// # Errors
    /// It is no keyward's: what it is instead, in words.
    pub fn read(answer: Answer) -> Result<Reply, String> {
        let Answer { status, body, took } = answer;
        let strange = || format!("it answers with status {status} and something that is no reply of the API");
        let text = String::from_utf8(body).map_err(|_| strange())?;
        let members = members(&text).ok_or_else(strange)?;
        let meta = members.get("meta").and_then(|meta| serde_json::from_str::<Meta>(meta.get()).ok());
        let request_id = meta.map(|meta| printable(&meta.request_id)).ok_or_else(strange)?;
        let refusal = members.get("error").and_then(|error| serde_json::from_str::<Refusal>(error.get()).ok());
        if (status == 200) == refusal.is_some() {
            return Err(strange());
        }
        Ok(Reply { status, text, request_id, took })
    }

    /// `req_…`
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Why the operation was refused, if it was.
    pub fn refusal(&self) -> Option<Refusal> {
        let members = members(&self.text).filter(|_| self.status != 200)?;
        serde_json::from_str(members.get("error")?.get()).ok()
    }

    /// Prints it. For people: the request's id and how long it took, and the data; where standard output is no terminal,
    /// it gets the data alone, and the rest goes to standard error. `format` is how rows are printed; where it is `None`, as a
    /// table at a terminal and as JSON elsewhere.
    pub fn print(&self, output: Output, format: Option<Format>) -> ExitCode {
        if output == Output::Json {
            return print_answer(format!("{}\n", self.text).as_bytes());
        }
        if self.status != 200 {
            return ExitCode::SUCCESS;
        }
        let head = format!("{} (took {} ms)", self.request_id, self.took.as_millis());
        let mut text = String::new();
        let for_people = io::stdout().is_terminal();
        let mut members = members(&self.text).unwrap_or_default();
        let format = format.unwrap_or(if for_people { Format::Table } else { Format::Json });
        if format != Format::Json
            && let Some(rows) = members.get("data").and_then(|data| Rows::read(data.get()))
        {
            let printed = match format {
                Format::Csv => rows.csv(for_people),
                _ if rows.len() == 0 => String::new(),
                _ => rows.table(terminal_width().filter(|_| for_people)),
            };
            let printed = print_answer(printed.as_bytes());
            note([format!("{} {}, {head}", rows.len(), if rows.len() == 1 { "row" } else { "rows" })]);
            return printed;
        }
        if for_people {
            text.push_str(&head);
            text.push_str("\n\n");
        } else {
            note([head]);
        }
        members.remove("meta");
        let pagination = members.remove("pagination").map(RawValue::get);
        match (members.remove("data"), members.is_empty()) {
            (Some(data), true) => text.push_str(&pretty(data.get())),
            (None, true) => text.push_str("{}"),
            (data, false) => {
                let all = data.into_iter().map(|data| (Cow::Borrowed("data"), data)).chain(members);
                let all: Vec<String> =
                    all.map(|(name, value)| format!("{}:{value}", serde_json::json!(name))).collect();
                text.push_str(&pretty(&format!("{{{}}}", all.join(","))));
            }
        }
        text.push('\n');
        let printed = print_answer(text.as_bytes());
        let more = pagination.and_then(|text| serde_json::from_str::<Pagination>(text).ok()?.cursor);
        if let Some(cursor) = more {
            note([format!("more rows follow: --cursor {}", quoted(&printable(&cursor)))]);
        }
        printed
    }
}

/// Characters of a line of the terminal that standard output is.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

fn members(text: &str) -> Option<Members<'_>> {
    serde_json::from_str(text).ok()
}

/// A word that a shell reads as it is.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '=');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Valid JSON with line breaks and indentation. Every number, name and string stays as it was written, but for characters
/// that steer a terminal: they are escaped, which means the same.
fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut level = 0usize;
    let (mut in_string, mut escaped) = (false, false);
    // An opening bracket whose line break waits for what follows.
    let mut opened = false;
    let line = |out: &mut String, level: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", level));
    };
    for sign in json.chars() {
        if in_string {
            match sign {
                _ if steers(sign) => {
                    for unit in sign.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => out.push(sign),
            }
            in_string = escaped || sign != '"';
            escaped = !escaped && sign == '\\';
            continue;
        }
        if sign.is_ascii_whitespace() {
            continue;
        }
        let closes = matches!(sign, '}' | ']');
        if closes {
            level = level.saturating_sub(1);
        }
        if opened != closes {
            line(&mut out, level);
        }
        opened = matches!(sign, '{' | '[');
        out.push(sign);
        match sign {
            '{' | '[' => level += 1,
            ',' => line(&mut out, level),
            ':' => out.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only white space and control characters change.
    #[test]
    fn pretty_json_says_the_same() {
        for (json, shown) in [
            ("{}", "{}"),
            ("[ ]", "[]"),
            ("12345678901234567890.10", "12345678901234567890.10"),
            (
                r#"{"b":1e2,"a":[true,null,{}],"s":"{\"x\": [1,\\"}"#,
                "{\n  \"b\": 1e2,\n  \"a\": [\n    true,\n    null,\n    {}\n  ],\n  \"s\": \"{\\\"x\\\": [1,\\\\\"\n}",
            ),
            ("[[[]]]", "[\n  [\n    []\n  ]\n]"),
            ("\"\u{9b}2J\u{7f}ä\"", "\"\\u009b2J\\u007fä\""),
            ("\"\u{202e}\u{e0041}\"", "\"\\u202e\\udb40\\udc41\""),
        ] {
            assert_eq!(pretty(json), shown);
        }
    }

    fn read(status: u16, body: &str) -> Result<Reply, String> {
        Reply::read(Answer { status, body: body.as_bytes().to_vec(), took: Duration::ZERO })
    }

    /// Only what has the API's shape is taken for a reply.
    #[test]
    fn other_servers_are_recognized() {
        let meta = r#"{"meta":{"requestId":"req_1"}"#;
        let error = r#""error":{"title":"T","detail":"D","status":404,"type":"https://unkey.com/docs/errors/x"}"#;
        assert!(read(200, &format!("{meta},\"data\":{{}}}}")).is_ok_and(|reply| reply.refusal().is_none()));
        assert!(read(200, &format!("{meta}}}")).is_ok(), "COM-ENV-05");
        let refused = read(404, &format!("{meta},{error}}}")).expect("a reply").refusal().expect("a refusal");
        assert_eq!((refused.detail.as_str(), refused.status, refused.errors.len()), ("D", 404, 0));
        for (status, body) in [
            (200, "<html>"),
            (200, "{\"data\":{}}"),
            (200, ""),
            (404, "404 page not found"),
            (502, &format!("{meta},\"data\":{{}}}}")),
            (200, &format!("{meta},{error}}}")),
        ] {
            assert!(read(status, body).expect_err(body).contains(&status.to_string()));
        }
    }

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(
            ["key_1", "", "a b", "it's", "api.*.x"].map(quoted),
            ["key_1", "''", "'a b'", r"'it'\''s'", "'api.*.x'"]
        );
    }
}
