//! Answers for people: fields, tables and times.

use time::OffsetDateTime;

pub use crate::printable::{printable, steers};

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
