//! Texts of strangers on their way to a terminal or a log.
//!
//! Names may hold any character (RL-NS-02): what steers a terminal is taken out or escaped where people read it.

use std::fmt::Write;

/// A text without characters that steer a terminal: names come from clients, too.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Whether a character is not shown but changes how others are: control characters, what separates lines, and format
/// characters, which hide text or turn its order round (Unicode 16.0: categories Cc, Zl, Zp and Cf).
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}'
            | '\u{e0020}'..='\u{e007f}')
}

/// JSON in which such characters are escaped, which means the same: where they stand in JSON as they are, they are within strings.
/// White space between members stays.
pub fn printable_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for sign in json.chars() {
        // JSON has no others below DEL within strings.
        if sign >= '\u{7f}' && steers(sign) {
            for unit in sign.encode_utf16(&mut [0; 2]) {
                // Writing into a string does not fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(sign);
        }
    }
    out
}

/// Lines without such characters; their ends and tabs stay.
pub fn printable_lines(text: &str) -> String {
    let shown = |c: char| if steers(c) && !matches!(c, '\n' | '\t') { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name can neither turn the line round that it stands in, nor hide in it (Trojan Source, CVE-2021-42574).
    #[test]
    fn names_do_not_steer_the_terminal() {
        assert_eq!(
            printable("a\u{202e}b\u{2066}c\u{200b}\u{e0041}\u{2028}\u{9b}"),
            "a\u{fffd}b\u{fffd}c\u{fffd}\u{fffd}\u{fffd}\u{fffd}"
        );
        let fine = "Grüße, 你好, שלום, مرحبا, e\u{301}, 🎉";
        assert_eq!(printable(fine), fine);
    }

    /// Escaped JSON is the same JSON, and lines stay lines.
    #[test]
    fn escaping_changes_no_meaning() {
        let name = "a\u{0}\u{1b}[31m\u{9b}\u{202e}\u{e0041}\n\u{7f}é";
        let json = serde_json::json!({ "name": name }).to_string();
        let shown = printable_json(&json);
        assert!(!shown.chars().any(steers), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")["name"], name);
        assert_eq!(printable_lines("a\tb\nc\u{1b}d"), "a\tb\nc\u{fffd}d");
    }
}
