//! A call of an operation, and what every answer must look like whatever was asked.

use serde_json::Value;

use super::client::{Ask, Reply};
use super::program::Server;

/// A call being put together.
#[must_use = "send it"]
pub struct Call<'a> {
    server: &'a Server,
    operation: String,
    ask: Ask,
}

/// An error answer whose shape has been checked.
#[derive(Debug)]
pub struct Problem {
    pub detail: String,
    /// Entries of `errors`; empty where the status has none.
    pub errors: Vec<Value>,
    /// The answer without its request id, to compare two refusals.
    pub body: Value,
    pub reply: Reply,
}

impl Problem {
    /// The locations of `errors`, in order.
    pub fn locations(&self) -> Vec<&str> {
        self.errors.iter().map(|entry| entry["location"].as_str().unwrap()).collect()
    }

    /// Fails unless some entry has this location.
    pub fn at(self, location: &str) -> Problem {
        assert!(self.locations().contains(&location), "no entry at {location}: {}", self.body);
        self
    }

    /// Fails unless the detail is exactly this.
    pub fn saying(self, detail: &str) -> Problem {
        assert_eq!(self.detail, detail, "{}", self.body);
        self
    }

    /// Fails unless the detail contains this.
    pub fn mentioning(self, fragment: &str) -> Problem {
        assert!(self.detail.contains(fragment), "no {fragment:?} in the detail: {}", self.body);
        self
    }

    /// Fails unless this is a schema violation of that operation (COM-VAL-02).
    pub fn schema(self, operation: &str) -> Problem {
        let wanted = format!("POST request body for '/v2/{operation}' failed to validate schema");
        assert!(!self.errors.is_empty(), "a schema violation lists what was violated: {}", self.body);
        self.saying(&wanted)
    }
}

impl<'a> Call<'a> {
    pub(super) fn new(server: &'a Server, operation: &str, body: Value) -> Call<'a> {
        let ask = Ask::new("POST", &format!("/v2/{operation}"))
            .header("Content-Type", "application/json")
            .header("Accept", "application/json")
            .body(body.to_string());
        Call { server, operation: operation.to_owned(), ask }
    }

    /// With this root key as bearer.
    pub fn bearer(self, key: &str) -> Call<'a> {
        self.authorization(&format!("Bearer {key}"))
    }

    /// With this value of the Authorization header, in place of an earlier one.
    pub fn authorization(mut self, value: &str) -> Call<'a> {
        self.ask.headers.retain(|(name, _)| name != "Authorization");
        self.ask.headers.push(("Authorization".to_owned(), value.to_owned()));
        self
    }

    /// With one more header.
    pub fn header(mut self, name: &str, value: &str) -> Call<'a> {
        self.ask.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without the headers of that name.
    pub fn without(mut self, name: &str) -> Call<'a> {
        self.ask.headers.retain(|(have, _)| !have.eq_ignore_ascii_case(name));
        self
    }

    /// At this time of the test clock.
    pub fn at(self, ms: i64) -> Call<'a> {
        self.without("X-Test-Time").header("X-Test-Time", &ms.to_string())
    }

    /// With these bytes as the body.
    pub fn raw(mut self, body: impl Into<Vec<u8>>) -> Call<'a> {
        self.ask.body = body.into();
        self
    }

    /// The request as it would be sent, for a connection of one's own.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Sends it; the answer has passed the checks that hold for every answer.
    pub fn send(&self) -> Reply {
        let reply = self.server.exchange(&self.ask);
        judge(&reply);
        self.server.document().judge(&self.operation, &reply);
        reply
    }

    /// Sends it and demands success: the value of `data`.
    pub fn expect_ok(&self) -> Value {
        let reply = self.send();
        assert_eq!(reply.status, 200, "{} {}: {}", self.operation, self.body(), reply.text());
        reply.json["data"].clone()
    }

    /// Sends it and demands a page of a list: its rows, and the cursor where more follow.
    pub fn expect_page(&self) -> (Vec<Value>, Option<String>) {
        let reply = self.send();
        assert_eq!(reply.status, 200, "{} {}: {}", self.operation, self.body(), reply.text());
        let rows = reply.json["data"].as_array().cloned().unwrap_or_else(|| panic!("no list: {}", reply.text()));
        assert!(reply.json["pagination"].is_object(), "COM-PAG-01: {}", reply.text());
        (rows, reply.json["pagination"]["cursor"].as_str().map(str::to_owned))
    }

    /// Sends it and demands this refusal. `code` is the path after `https://unkey.com/docs/errors/`.
    pub fn expect_problem(&self, status: u16, code: &str) -> Problem {
        let reply = self.send();
        let asked = format!("{} {}", self.operation, self.body());
        problem(reply, status, code).unwrap_or_else(|wrong| panic!("{asked}: {wrong}"))
    }

    /// Demands a 400 for what the body says, by the schema.
    pub fn expect_invalid(&self) -> Problem {
        self.expect_problem(400, "unkey/application/invalid_input").schema(&self.operation)
    }

    fn body(&self) -> String {
        let text = String::from_utf8_lossy(&self.ask.body);
        text.chars().take(400).collect()
    }
}

/// The title that belongs to a code (common.md section 13, COM-CODE-01).
fn title(status: u16, code: &str) -> &'static str {
    match (status, code) {
        (404, "unkey/application/invalid_input") => "Not Found",
        (405, "unkey/application/invalid_input") => "Method Not Allowed",
        (_, "unkey/authorization/insufficient_permissions") => "Insufficient Permissions",
        (_, "unkey/authorization/key_disabled") => "Key is disabled",
        (_, "unkey/authorization/workspace_disabled") => "Workspace is disabled",
        (_, "unkey/application/protected_resource") => "Resource is protected",
        (400, _) => "Bad Request",
        (401, _) => "Unauthorized",
        (403, _) => "Forbidden",
        (404, _) => "Not Found",
        (408, _) => "Request Timeout",
        (409, _) => "Conflicting Resource",
        (410, _) => "Resource Gone",
        (412, _) => "Precondition Failed",
        (422, _) => "Unprocessable Entity",
        (413, _) => "Request Entity Too Large",
        (429, _) => "Too Many Requests",
        (500, _) => "Internal Server Error",
        (503, _) => "Service Unavailable",
        _ => panic!("no title known for {status} {code}"),
    }
}

/// Takes an error answer apart (KEYS-GEN-22): COM-ERR-01 (shape), COM-ERR-02 (status, type, title by code), COM-ERR-03 (when there
/// is an `errors` array), COM-ERR-04 (its entries).
pub fn problem(mut reply: Reply, status: u16, code: &str) -> Result<Problem, String> {
    let wanted = format!("https://unkey.com/docs/errors/{code}");
    let came = format!("wanted {status} {code}, got {} {}", reply.status, reply.text());
    let error = reply.json["error"].clone();
    if reply.status != status || error["type"] != wanted.as_str() {
        return Err(came);
    }
    let check = |holds: bool, rule: &str| if holds { Ok(()) } else { Err(format!("{rule}: {}", reply.text())) };
    check(error["status"] == status, "COM-ERR-02 status")?;
    check(error["title"] == title(status, code), "COM-ERR-02 title")?;
    check(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "COM-ERR-01 detail")?;
    check(reply.json.get("data").is_none(), "COM-ERR-01 no data")?;
    check(super::members(&reply.json) == ["error", "meta"], "COM-ERR-01 members")?;
    let known = ["detail", "errors", "status", "title", "type"];
    check(super::members(&error).iter().all(|name| known.contains(name)), "COM-ERR-01 members of error")?;
    let listed = matches!(status, 400 | 408 | 413 | 499);
    check(error.get("errors").is_some_and(Value::is_array) == listed, "COM-ERR-03 errors")?;
    check(listed || error.get("errors").is_none(), "COM-ERR-03 no errors")?;
    let errors = error["errors"].as_array().cloned().unwrap_or_default();
    for entry in &errors {
        check(entry["location"].is_string() && entry["message"].is_string(), "COM-ERR-04 entry")?;
        check(entry.get("fix").is_none_or(Value::is_string), "COM-ERR-04 fix")?;
    }
    let detail = error["detail"].as_str().unwrap_or_default().to_owned();
    let mut body = std::mem::take(&mut reply.json);
    body["meta"]["requestId"] = Value::Null;
    Ok(Problem { detail, errors, body, reply })
}

/// What holds for every enveloped answer: no CORS header (COM-RT-08), a request id of the right form (COM-ENV-02), the
/// same in the header (COM-ENV-03), success as plain JSON (COM-ENV-04), `data` there (COM-ENV-01), no `null` where there
/// is no value (COM-ENV-06), and never a 500 (COM-ERR-10).
pub fn judge(reply: &Reply) {
    let text = || reply.text();
    assert!(!reply.headers.iter().any(|(name, _)| name.starts_with("access-control-")), "COM-RT-08: {reply:?}");
    assert!(reply.status < 500, "COM-ERR-10: {}", text());
    let id = reply.json["meta"]["requestId"].as_str().unwrap_or_else(|| panic!("COM-ENV-02: {}", text()));
    let random = id.strip_prefix("req_").unwrap_or_else(|| panic!("COM-ENV-02: {id}"));
    assert!(random.len() >= 9 && random.bytes().all(|byte| byte.is_ascii_alphanumeric()), "COM-ENV-02: {id}");
    assert_eq!(super::members(&reply.json["meta"]), ["requestId"], "COM-ENV-02: {}", text());
    assert_eq!(reply.header("x-request-id"), Some(id), "COM-ENV-03");
    if reply.status == 200 {
        assert_eq!(reply.media_type(), "application/json", "COM-ENV-04");
        match &reply.json["data"] {
            // Whether an operation's data is an object or a list, or there is a page, or no data at all (COM-ENV-05), is
            // for its document to say, which judges next; a page has a list, and a cursor exactly when more follows.
            Value::Null => assert_eq!(super::members(&reply.json), ["meta"], "COM-ENV-05: {}", text()),
            data => {
                assert!(data.is_object() || data.is_array(), "COM-ENV-01: {}", text());
                no_nulls(data, &text());
            }
        }
        if let Some(pagination) = reply.json.get("pagination") {
            assert!(reply.json["data"].is_array(), "COM-PAG-01: {}", text());
            let more = pagination["hasMore"].as_bool().unwrap_or_else(|| panic!("COM-PAG-01: {}", text()));
            assert_eq!(pagination["cursor"].is_string(), more, "COM-PAG-02: {}", text());
        }
        // `index` comes with searches alone, which are keyward's own; the document says which.
        let known = ["data", "index", "meta", "pagination"];
        assert!(super::members(&reply.json).iter().all(|name| known.contains(name)), "COM-ENV-01: {}", text());
    } else {
        let media = reply.media_type();
        assert!(media == "application/json" || media == "application/problem+json", "COM-ERR-05: {media}");
    }
}

/// Members that official clients want there, `null` where they have no value; which operations have them so is for the
/// document to say.
const NULLABLE: [&str; 4] = ["remaining", "limit", "name", "expires"];

/// COM-ENV-06: a member without a value is left out, but for [`NULLABLE`] ones; and `meta` is the customer's own.
fn no_nulls(value: &Value, text: &str) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                assert!(!value.is_null() || NULLABLE.contains(&name.as_str()), "COM-ENV-06: {name} is null in {text}");
                if name != "meta" {
                    no_nulls(value, text);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| no_nulls(item, text)),
        _ => {}
    }
}
