//! Headers that a collector asks for, a credential as a rule: kept with the operator's other secrets.

use std::fmt;
use std::path::Path;

use zeroize::Zeroizing;

use crate::config::{OTLP_HEADERS_VARIABLE, SecretSources};
use crate::vault::sources::{self, SourceError, Wanted};

/// What people call them.
const WHAT: &str = "file of headers for telemetry";
/// Name of their systemd credential.
const CREDENTIAL: &str = "keyward-otlp-headers";
/// Most of them.
const HEADERS_MAX: usize = 32;
/// Headers that are the exporter's own.
const RESERVED: [&str; 6] =
    ["host", "content-length", "content-type", "transfer-encoding", "connection", "content-encoding"];

/// Names and values.
#[derive(Default)]
pub struct Headers(Vec<(String, Zeroizing<String>)>);

/// Names alone: values are secrets.
impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// What is wrong with a text of headers, without showing any of it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeaders {
    /// A line is none.
    #[error(
        "line {line} is no header: `name: value` is wanted, in visible ASCII characters; lines that begin with # are passed over"
    )]
    Line {
        /// From 1 on.
        line: usize,
    },
    /// A line names a header of the exporter's own.
    #[error("line {line} names a header that is keyward's to send")]
    Reserved {
        /// From 1 on.
        line: usize,
    },
    /// Too many.
    #[error("it holds more than {HEADERS_MAX} headers")]
    TooMany,
}

impl Headers {
    /// The headers that the sources name; none at all is legal.
    ///
    /// # Errors
    /// A source is set and cannot be used.
    pub fn read(secrets: &SecretSources, data_dir: &Path) -> Result<Headers, SourceError> {
        let wanted = Wanted {
            what: WHAT,
            credential: CREDENTIAL,
            file: secrets.otlp_headers_file.as_deref(),
            variable: OTLP_HEADERS_VARIABLE,
            given: secrets.otlp_headers.as_ref(),
        };
        let Some(found) = sources::find(wanted, secrets, data_dir)? else { return Ok(Headers::default()) };
        parse(&found.text).map_err(|source| SourceError::Bad {
            what: WHAT,
            place: found.place,
            source: Box::new(source),
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values, each of one line.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }
}

/// Reads a text of one header a line.
fn parse(text: &str) -> Result<Headers, BadHeaders> {
    let mut headers = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let (line_no, line) = (at + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(BadHeaders::Line { line: line_no })?;
        let value = value.trim();
        // RFC 9110, 5.1 and 5.5.
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let is_shown = |byte: u8| byte == b' ' || byte == b'\t' || byte.is_ascii_graphic();
        if name.is_empty() || !name.bytes().all(is_sign) || !value.bytes().all(is_shown) {
            return Err(BadHeaders::Line { line: line_no });
        }
        if RESERVED.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            return Err(BadHeaders::Reserved { line: line_no });
        }
        if headers.len() == HEADERS_MAX {
            return Err(BadHeaders::TooMany);
        }
        headers.push((name.to_owned(), Zeroizing::new(value.to_owned())));
    }
    Ok(Headers(headers))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is no header, or would end one and begin another, is refused by its line and never shown.
    #[test]
    fn headers_are_read_strictly_and_never_shown() {
        let headers =
            parse("# of the collector\n\nAuthorization: Bearer secret-of-ours\nx-scope:  a, b \n").expect("two");
        assert_eq!(headers.pairs(), [("Authorization", "Bearer secret-of-ours"), ("x-scope", "a, b")]);
        assert_eq!(format!("{headers:?}"), r#"["Authorization", "x-scope"]"#);
        assert!(parse("# none\n").expect("none is legal").is_empty());
        for (text, refusal) in [
            ("\nsecret", BadHeaders::Line { line: 2 }),
            ("a b: secret", BadHeaders::Line { line: 1 }),
            (": secret", BadHeaders::Line { line: 1 }),
            ("a: sec\u{7}ret", BadHeaders::Line { line: 1 }),
            ("a: s\rb: secret", BadHeaders::Line { line: 1 }),
            ("a: schlüssel", BadHeaders::Line { line: 1 }),
            ("a: b\nContent-Length: 5", BadHeaders::Reserved { line: 2 }),
            (&"a: b\n".repeat(33), BadHeaders::TooMany),
        ] {
            let told = parse(text).expect_err(text);
            assert!(!told.to_string().contains("secret"), "{told}");
            assert_eq!(told, refusal);
        }
    }
}
