//! Text into tokens.

use super::tree::At;
use crate::error::Refusal;

/// A token and where it begins.
#[derive(Debug, Clone)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Lexeme<'a>,
    /// Its first byte.
    pub at: At,
}

/// What a token is.
#[derive(Debug, Clone, PartialEq)]
pub enum Lexeme<'a> {
    /// A keyword or a name.
    Word(&'a str),
    /// A name in backquotes or double quotes, without them.
    Quoted(String),
    /// A number as written, without a sign.
    Number(&'a str),
    /// Text in single quotes, without them, its escapes resolved.
    Text(String),
    /// Anything else.
    Symbol(&'static str),
    /// Behind the last token.
    End,
}

/// Longest first.
const SYMBOLS: &[&str] = &[
    "<>", "!=", "<=", ">=", "==", "->", "::", "||", "(", ")", "[", "]", "{", "}", ",", ";", ".", "+", "-", "*", "/",
    "%", "=", "<", ">", "?", ":",
];

/// The tokens of a text, the last being [`Lexeme::End`].
pub fn tokens(text: &str) -> Result<Vec<Token<'_>>, Refusal> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let start = At(at);
        let (kind, length) = match bytes[at] {
            b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c => (None, 1),
            b'-' if rest.starts_with("--") => (None, line(rest)),
            b'#' if rest.starts_with("# ") || rest.starts_with("#!") => (None, line(rest)),
            b'/' if rest.starts_with("/*") => match rest[2..].find("*/") {
                Some(end) => (None, end + 4),
                None => return Err(syntax(text, start, "a comment is never closed")),
            },
            b'\'' => {
                let (value, length) = quoted(text, start, b'\'')?;
                (Some(Lexeme::Text(value)), length)
            }
            quote @ (b'`' | b'"') => {
                let (name, length) = quoted(text, start, quote)?;
                if name.is_empty() {
                    return Err(syntax(text, start, "a name is empty"));
                }
                (Some(Lexeme::Quoted(name)), length)
            }
            first if first.is_ascii_digit() || (first == b'.' && starts_fraction(bytes, &tokens, at)) => {
                let number = number(rest);
                if bytes.get(at + number.len()).is_some_and(|&next| is_name_part(next)) {
                    return Err(syntax(text, start, "a number runs into a name"));
                }
                (Some(Lexeme::Number(number)), number.len())
            }
            first if is_name_start(first) => {
                let length = rest.bytes().take_while(|&byte| is_name_part(byte)).count();
                (Some(Lexeme::Word(&rest[..length])), length)
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Some(Lexeme::Symbol(symbol)), symbol.len()),
                None => {
                    let found = rest.chars().next().unwrap_or(' ');
                    return Err(syntax(text, start, &format!("{found:?} stands where nothing can be read")));
                }
            },
        };
        tokens.extend(kind.map(|kind| Token { kind, at: start }));
        at += length;
    }
    tokens.push(Token { kind: Lexeme::End, at: At(text.len()) });
    Ok(tokens)
}

/// The refusal of a text that cannot be read, with the place in words (AN-GATE-04).
pub fn syntax(text: &str, at: At, what: &str) -> Refusal {
    let before = text.get(..at.0).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    Refusal::query(format!("Invalid SQL syntax at line {line}, column {column}: {what}."))
}

/// Whether the dot at this byte begins a number: digits follow it, and it does not belong to what stands before it.
fn starts_fraction(bytes: &[u8], tokens: &[Token<'_>], at: usize) -> bool {
    let qualifies = match tokens.last() {
        Some(Token { kind: Lexeme::Word(word), at: start }) => start.0 + word.len() == at,
        Some(Token { kind: Lexeme::Quoted(_) | Lexeme::Symbol("]" | ")"), .. }) => true,
        _ => false,
    };
    !qualifies && bytes.get(at + 1).is_some_and(u8::is_ascii_digit)
}

fn is_name_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

fn is_name_part(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// How many bytes are left of a line.
fn line(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// The number a text begins with: digits with a fraction and an exponent, or `0x` and `0b` with theirs; digits may be
/// parted by underscores.
fn number(text: &str) -> &str {
    let bytes = text.as_bytes();
    let run = |from: usize, of: fn(&u8) -> bool| bytes[from..].iter().take_while(|byte| of(byte)).count();
    let digit = |byte: &u8| byte.is_ascii_digit() || *byte == b'_';
    if bytes.len() > 2 && bytes[0] == b'0' && matches!(bytes[1], b'x' | b'X') {
        return &text[..2 + run(2, |byte| byte.is_ascii_hexdigit())];
    }
    if bytes.len() > 2 && bytes[0] == b'0' && matches!(bytes[1], b'b' | b'B') {
        return &text[..2 + run(2, |byte| matches!(byte, b'0' | b'1'))];
    }
    let mut end = run(0, digit);
    if bytes.get(end) == Some(&b'.') {
        end += 1;
        end += run(end, digit);
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let exponent = run((end + 1 + sign).min(bytes.len()), |byte| byte.is_ascii_digit());
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    &text[..end]
}

/// What stands between quotes, and how many bytes that takes with them. A quote is doubled or escaped.
fn quoted(text: &str, start: At, quote: u8) -> Result<(String, usize), Refusal> {
    let bytes = &text.as_bytes()[start.0..];
    let mut value: Vec<u8> = Vec::new();
    let mut at = 1;
    loop {
        match bytes.get(at) {
            None => return Err(syntax(text, start, "a quote is never closed")),
            Some(&byte) if byte == quote => {
                at += 1;
                if bytes.get(at) != Some(&quote) {
                    break;
                }
                value.push(quote);
                at += 1;
            }
            Some(b'\\') => {
                let Some(&escaped) = bytes.get(at + 1) else {
                    return Err(syntax(text, start, "a quote is never closed"));
                };
                at += 2;
                match escaped {
                    b'b' => value.push(0x08),
                    b'f' => value.push(0x0c),
                    b'r' => value.push(b'\r'),
                    b'n' => value.push(b'\n'),
                    b't' => value.push(b'\t'),
                    b'0' => value.push(0),
                    b'a' => value.push(0x07),
                    b'v' => value.push(0x0b),
                    b'e' => value.push(0x1b),
                    b'N' => {}
                    b'x' => {
                        let digits = bytes.get(at..at + 2).and_then(|digits| std::str::from_utf8(digits).ok());
                        let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else {
                            return Err(syntax(text, start, "\\x wants two hexadecimal digits"));
                        };
                        value.push(byte);
                        at += 2;
                    }
                    b'\\' | b'\'' | b'"' | b'`' | b'/' | b'=' => value.push(escaped),
                    // `\%` and `\_` are LIKE's own; any other backslash is text as well.
                    other => value.extend([b'\\', other]),
                }
            }
            Some(&byte) => {
                value.push(byte);
                at += 1;
            }
        }
    }
    Ok((String::from_utf8(value).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()), at))
}
