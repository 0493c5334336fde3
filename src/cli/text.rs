//! Answers for people: fields, tables and times.

use time::OffsetDateTime;

/// A moment, given in Unix ms, as people read it: `2026-11-21 10:24:03 UTC`.
pub fn time(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    match OffsetDateTime::from_unix_timestamp(seconds) {
        Ok(at) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} UTC",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        ),
        // Past the year 9999.
        Err(_) => format!("{ms} ms"),
    }
}

/// Names with their values, one a line.
pub fn fields(fields: &[(&str, String)]) -> String {
    let rows = fields.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]);
    columns(rows.collect())
}

/// Rows below a line of headings.
pub fn table<const N: usize>(headings: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut all = vec![headings.map(str::to_uppercase).to_vec()];
    all.extend(rows.map(|row| row.to_vec()));
    columns(all)
}

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

/// Lines up columns; the last one is as wide as it is.
fn columns(mut rows: Vec<Vec<String>>) -> String {
    for cell in rows.iter_mut().flatten() {
        *cell = printable(cell);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
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

    /// Columns line up by characters, whatever is in them, and times are readable.
    #[test]
    fn tables_are_for_people() {
        let rows = [["ä".to_owned(), time(1_795_256_643_999)], ["b\u{1b}c".to_owned(), time(u64::MAX)]];
        assert_eq!(
            table(["name", "at"], rows.into_iter()),
            "NAME  AT\nä     2026-11-21 10:24:03 UTC\nb\u{fffd}c   18446744073709551615 ms\n"
        );
        assert_eq!(fields(&[("a", "1".to_owned()), ("long", String::new())]), "a     1\nlong\n");
    }
}
