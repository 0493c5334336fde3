//! From a body's bytes to a request, or to a 400 that lists everything that is wrong with it (COM-BODY, COM-VAL).
//!
//! [`decode`] is one typed decode and nothing else for a body that is right. For one that is not, the body is walked
//! along the request type's schema, which finds every violated keyword and its place; the schema is generated then,
//! once per type. A body in which the walk finds nothing has a member twice, which the typed decode refuses and the
//! contract takes (COM-BODY-07): it is written anew with the last of each, and decoded again.
//!
//! That the two agree is a promise of `shape.rs` and is tested there and here: a body is refused by the typed decode
//! exactly when the walk finds a violation or a repeated member.

mod rules;
mod strict;

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::problem::{Code, FieldError, Problem};
use super::shape;

pub use rules::{Rules, UnknownKeyword};

/// How deep a body's objects and arrays may nest (COM-BODY-10).
pub const NESTING_MAX: usize = 64;

/// Entries that one refusal lists at most.
pub const ERRORS_MAX: usize = 100;

/// Decodes the body of `POST <path>`.
///
/// # Errors
/// 400 `invalid_input` as COM-VAL-02, COM-VAL-06 and COM-VAL-07 have it.
pub fn decode<T: DeserializeOwned + JsonSchema + 'static>(path: &str, body: &[u8]) -> Result<T, Problem> {
    if body.is_empty() {
        return Err(empty_body(path));
    }
    // Checked once for all strings, those of ignored members included.
    let Ok(text) = std::str::from_utf8(body) else {
        return Err(undecodable(path, "the body is not UTF-8".into(), "Send the body as JSON in UTF-8."));
    };
    if let Some(position) = too_deep(text) {
        let message = format!("the JSON nests deeper than {NESTING_MAX} levels at byte {position}");
        return Err(undecodable(path, message, "Send a body with less nesting."));
    }
    strict::from_str(text).or_else(|error| refuse_or_reread(path, text, &error))
}

/// The road of a body that the typed decode refused.
#[cold]
fn refuse_or_reread<T: DeserializeOwned + JsonSchema + 'static>(
    path: &str,
    text: &str,
    error: &serde_json::Error,
) -> Result<T, Problem> {
    // This scan does not recurse and keeps nothing.
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let message = format!("the body is not valid JSON: {error}");
        return Err(undecodable(path, message, "Send exactly one complete JSON value."));
    }
    let rules = match rules::<T>() {
        Ok(rules) => rules,
        Err(unknown) => return Err(disagreement(path, &unknown)),
    };
    let errors = rules.walk(text, ERRORS_MAX);
    if !errors.is_empty() {
        return Err(Problem::new(Code::InvalidInput, failed_to_validate(path)).with_errors(errors));
    }
    let reread = rules.rewrite(text).and_then(|rewritten| strict::from_str(&rewritten));
    reread.map_err(|_| disagreement(path, error))
}

/// The rules of a request type, made on first use. Only bodies that are refused get here.
fn rules<T: JsonSchema + 'static>() -> Result<Arc<Rules>, UnknownKeyword> {
    // One entry per request type of the operations table. A static in a generic function is shared by all its
    // instances, hence the map.
    static MADE: Mutex<Option<HashMap<TypeId, Arc<Rules>>>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    if let Some(rules) = made.get(&TypeId::of::<T>()) {
        return Ok(rules.clone());
    }
    let rules = Arc::new(Rules::read(&shape::request_schema::<T>())?);
    made.insert(TypeId::of::<T>(), rules.clone());
    Ok(rules)
}

/// A request type whose decoding and schema disagree: a bug of ours, and still the client's 400, because the typed
/// decode did refuse the body.
#[cold]
fn disagreement(path: &str, error: &dyn std::error::Error) -> Problem {
    tracing::error!(path, %error, "a body was refused by its type and not by its schema");
    let message = format!("the body was refused: {error}");
    Problem::new(Code::InvalidInput, failed_to_validate(path)).with_errors(vec![FieldError {
        location: Cow::Borrowed(""),
        message,
        fix: None,
    }])
}

/// Where an opening bracket stands that nests too deep. Looks at bytes and keeps a number: no recursion.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    // Most bodies have too few brackets for it, which a vectorised count finds out.
    if bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= NESTING_MAX {
        return None;
    }
    let mut depth = 0usize;
    let mut in_string = false;
    let mut escaped = false;
    for (position, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > NESTING_MAX {
                    return Some(position);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The detail of every schema refusal (COM-VAL-02, pinned).
fn failed_to_validate(path: &str) -> String {
    format!("POST request body for '{path}' failed to validate schema")
}

/// One entry at `requestBody`, with what to do about it.
fn at_request_body(detail: String, message: String, fix: &'static str) -> Problem {
    let entry = FieldError { location: "requestBody".into(), message, fix: Some(fix.into()) };
    Problem::new(Code::InvalidInput, detail).with_errors(vec![entry])
}

/// COM-VAL-07: not JSON, or more or less than one value of it.
fn undecodable(path: &str, message: String, fix: &'static str) -> Problem {
    at_request_body(failed_to_validate(path), message, fix)
}

/// COM-VAL-06: nothing was sent.
fn empty_body(path: &str) -> Problem {
    at_request_body(
        format!("POST request body for '{path}' is empty"),
        "the body is empty, a JSON value is wanted".into(),
        "Send the request's fields as a JSON object.",
    )
}

/// COM-VAL-05: a body of another media type than JSON. `received` is the header as sent; `None` where there was none.
pub fn wrong_content_type(path: &str, received: Option<&str>) -> Problem {
    let message = match received {
        None | Some("") => "the request has no Content-Type, want 'application/json'".to_owned(),
        Some(received) => {
            let received: String = received.chars().take(100).filter(|character| !character.is_control()).collect();
            format!("got Content-Type '{received}', want 'application/json'")
        }
    };
    at_request_body(failed_to_validate(path), message, "Send the header 'Content-Type: application/json'.")
}

/// COM-VAL-03: a bearer operation without, or with an empty, `Authorization` header. The words are pinned (KEYS-GEN-6).
pub fn missing_authorization() -> Problem {
    at_security(
        "Authorization header for 'bearer' scheme",
        "Authorization header was not found",
        "Send the header 'Authorization: Bearer ROOT_KEY'.",
    )
}

/// COM-VAL-04: a portal operation without its cookie.
pub fn missing_portal_session() -> Problem {
    at_security(
        "Cookie 'portal_session' for 'portalSession' scheme",
        "Cookie 'portal_session' was not found",
        "Send the cookie 'portal_session' that portal.exchangeCode gave you.",
    )
}

fn at_security(detail: &'static str, message: &'static str, fix: &'static str) -> Problem {
    let entry = FieldError { location: "security".into(), message: message.into(), fix: Some(fix.into()) };
    Problem::new(Code::InvalidInput, detail).with_errors(vec![entry])
}

#[cfg(test)]
mod tests;
