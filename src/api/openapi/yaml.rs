//! JSON values as YAML 1.2 in block style.

use std::fmt::Write;

use serde_json::Value;

/// Writes a value as a YAML document. A parser of YAML 1.1 or 1.2 reads the same value back.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(members) if !members.is_empty() => write_block(value, 0, false, &mut out),
        Value::Array(items) if !items.is_empty() => write_block(value, 0, false, &mut out),
        scalar => {
            write_inline(scalar, &mut out);
            out.push('\n');
        }
    }
    out
}

/// Writes a map or a list that is not empty, a line per entry. `continues` says that the first line is begun already,
/// by the dash of the list that the value is an item of.
fn write_block(value: &Value, indent: usize, continues: bool, out: &mut String) {
    let mut continues = continues;
    let mut begin_line = |out: &mut String| {
        if !std::mem::take(&mut continues) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
    };
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                begin_line(out);
                write_string(name, out);
                out.push(':');
                write_after_colon(value, indent, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                begin_line(out);
                if is_block(item) {
                    out.push_str("- ");
                    write_block(item, indent + 2, true, out);
                } else {
                    out.push_str("- ");
                    write_inline(item, out);
                    out.push('\n');
                }
            }
        }
        _ => {}
    }
}

fn write_after_colon(value: &Value, indent: usize, out: &mut String) {
    if is_block(value) {
        out.push('\n');
        write_block(value, indent + 2, false, out);
    } else {
        out.push(' ');
        write_inline(value, out);
        out.push('\n');
    }
}

/// Whether a value takes lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn write_inline(value: &Value, out: &mut String) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) => write_string(text, out),
        // Null, booleans and numbers are spelled alike.
        other => out.push_str(&other.to_string()),
    }
}

/// Writes a string plain where nothing could take it for something else, and otherwise in double quotes with JSON's
/// escapes, all of which YAML has.
fn write_string(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            // What YAML takes for a line break or does not let stand unescaped.
            '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing into a string does not fail.
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
}

/// A deliberately small set: words of letters that no version of YAML reads as a boolean, null or number.
fn is_plain(text: &str) -> bool {
    const TAKEN: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b' ');
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/')
        && text.bytes().all(is_word)
        && !text.ends_with(' ')
        && !TAKEN.iter().any(|taken| text.eq_ignore_ascii_case(taken))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Map, json};

    #[test]
    fn a_document_reads_well() {
        let value = json!({
            "openapi": "3.1.0",
            "paths": {"/v2/keys.createKey": {"post": {"tags": ["keys"], "security": [], "deprecated": false}}},
            "list": [{"a": 1, "b": {"c": null}}, ["x", ["y", []]], "say \"hi\": #1\n", {}],
            "200": "yes",
        });
        let text = concat!(
            "\"200\": \"yes\"\n",
            "list:\n",
            "  - a: 1\n",
            "    b:\n",
            "      c: null\n",
            "  - - x\n",
            "    - - \"y\"\n",
            "      - []\n",
            "  - \"say \\\"hi\\\": #1\\n\"\n",
            "  - {}\n",
            "openapi: \"3.1.0\"\n",
            "paths:\n",
            "  /v2/keys.createKey:\n",
            "    post:\n",
            "      deprecated: false\n",
            "      security: []\n",
            "      tags:\n",
            "        - keys\n",
        );
        assert_eq!(yaml(&value), text);
        assert_eq!(parse(text), value);
    }

    /// Reads the block style that [`yaml`] writes, by indentation: written from YAML's rules, not from the code above.
    fn parse(text: &str) -> Value {
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        let value = parse_block(&mut lines.iter().map(|line| (*line).to_owned()).collect(), &mut at);
        assert_eq!(at, lines.len(), "all lines are read");
        value
    }

    fn indent_of(line: &str) -> usize {
        line.len() - line.trim_start_matches(' ').len()
    }

    fn parse_block(lines: &mut Vec<String>, at: &mut usize) -> Value {
        let indent = indent_of(&lines[*at]);
        let first = lines[*at][indent..].to_owned();
        if first.starts_with("- ") {
            let mut items = Vec::new();
            while *at < lines.len() && indent_of(&lines[*at]) == indent && lines[*at][indent..].starts_with("- ") {
                // An item stands where its dash is blanked out.
                let line = format!("{}  {}", " ".repeat(indent), &lines[*at][indent + 2..]);
                lines[*at] = line;
                items.push(parse_block(lines, at));
            }
            return Value::Array(items);
        }
        let Some(_) = split_member(&first) else {
            *at += 1;
            return scalar(&first);
        };
        let mut members = Map::new();
        while *at < lines.len() && indent_of(&lines[*at]) == indent {
            let line = lines[*at][indent..].to_owned();
            let (name, rest) = split_member(&line).expect("a member");
            let Value::String(name) = scalar(name) else { panic!("{name} is no string") };
            *at += 1;
            let value = match rest.strip_prefix(' ') {
                Some(rest) => scalar(rest),
                None => {
                    assert!(rest.is_empty() && indent_of(&lines[*at]) > indent, "{line:?}");
                    parse_block(lines, at)
                }
            };
            assert!(members.insert(name, value).is_none(), "a name stands once");
        }
        Value::Object(members)
    }

    /// Splits a line at the colon that ends its name; `None` for a scalar.
    fn split_member(line: &str) -> Option<(&str, &str)> {
        let mut quoted = false;
        let mut escaped = false;
        for (at, byte) in line.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' if at == 0 || quoted => quoted = !quoted,
                b':' if !quoted && matches!(line.as_bytes().get(at + 1), None | Some(b' ')) => {
                    return Some((&line[..at], &line[at + 1..]));
                }
                _ => {}
            }
        }
        None
    }

    fn scalar(text: &str) -> Value {
        // What is no JSON is a plain string.
        serde_json::from_str(text).unwrap_or_else(|_| {
            assert!(!text.contains(['#', '"', '\'', '{', '[', '&', '*', '!', '|', '>', '%', '@']), "{text:?}");
            Value::from(text)
        })
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = "[a-z]{1,3}|(yes|No|null|~|true|1e3|0x1|2024-01-01|- a|a: b|a #b|\\? x| a|a |\"|\\\\|\n|é🔑|)\
                    |\u{2028}|\u{85}";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(text, inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// What is written is read back as it was.
        #[test]
        fn reading_undoes_writing(value in values()) {
            prop_assert_eq!(parse(&yaml(&value)), value);
        }
    }
}
