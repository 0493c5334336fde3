//! Rows of an operation whose answer is a list of free objects, such as a query's: as a table for people, as CSV, or as JSON.

use std::fmt;
use std::marker::PhantomData;

use clap::ValueEnum;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::api::Entry;
use crate::cli::text::printable;

/// Characters of a cell in a table that no terminal bounds.
const CELL_CHARS_MAX: usize = 80;
/// Fewest characters that a cell is cut down to.
const CELL_CHARS_MIN: usize = 12;
/// Between two columns.
const GAP: usize = 2;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns, for people; long values are cut
    Table,
    /// The data as JSON
    Json,
    /// Comma-separated values with a line of names (RFC 4180)
    Csv,
}

/// Whether the operation answers with rows whose members its schema does not name.
pub fn has_rows(entry: &Entry) -> bool {
    let Some(data) = (entry.reply_schema)().data else { return false };
    let row = &data["items"];
    data["type"] == "array" && row["type"] == "object" && row["properties"].is_null()
}

/// A row: its members in their order, as they were written.
struct Row<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Row<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Row<'a>, D::Error> {
        struct Members<'a>(PhantomData<&'a ()>);

        impl<'de: 'a, 'a> Visitor<'de> for Members<'a> {
            type Value = Row<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a row")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Row<'a>, A::Error> {
                let mut row = Vec::with_capacity(members.size_hint().unwrap_or(8));
                while let Some(member) = members.next_entry()? {
                    row.push(member);
                }
                Ok(Row(row))
            }
        }

        deserializer.deserialize_map(Members(PhantomData))
    }
}

/// The rows of an answer.
pub struct Rows<'a> {
    /// In the order in which they first occur: a server sends every row alike.
    names: Vec<String>,
    rows: Vec<Row<'a>>,
}

impl<'a> Rows<'a> {
    /// Reads `data`; `None` where it holds anything else.
    pub fn read(data: &'a str) -> Option<Rows<'a>> {
        let rows: Vec<Row<'a>> = serde_json::from_str(data).ok()?;
        let mut names: Vec<String> = Vec::new();
        for (name, _) in rows.iter().flat_map(|row| &row.0) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        Some(Rows { names, rows })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// What a row has under a name.
    fn cell(row: &Row<'a>, name: &str, at: usize) -> Option<&'a RawValue> {
        // Nearly always it stands where it stands in the first row.
        let member = row.0.get(at).filter(|(have, _)| have == name);
        member.or_else(|| row.0.iter().find(|(have, _)| have == name)).map(|(_, value)| *value)
    }

    fn texts(&self) -> impl Iterator<Item = Vec<Option<String>>> {
        self.rows.iter().map(|row| {
            let cells = self.names.iter().enumerate();
            cells.map(|(at, name)| Self::cell(row, name, at).and_then(text)).collect()
        })
    }

    /// Columns below their names; numbers are aligned to the right. `width` is the terminal's, in characters: values are cut
    /// so that lines fit it as far as they can.
    pub fn table(&self, width: Option<usize>) -> String {
        let shown = |text: &str| printable(&text.replace(['\n', '\r', '\t'], " "));
        let cells: Vec<Vec<String>> = self
            .texts()
            .map(|row| {
                row.into_iter().map(|cell| cell.map_or_else(|| "null".to_owned(), |text| shown(&text))).collect()
            })
            .collect();
        let names: Vec<String> = self.names.iter().map(|name| shown(name)).collect();
        let is_number = |column: usize| {
            let mut values = self.rows.iter().filter_map(|row| Self::cell(row, &self.names[column], column));
            let plain = |value: &RawValue| value.get().starts_with(|c: char| c.is_ascii_digit() || c == '-');
            values.all(|value| plain(value) || value.get() == "null")
        };
        let length = |text: &String| text.chars().count();
        let widest = |column: usize| cells.iter().map(|row| length(&row[column])).max().unwrap_or(0);
        let natural = (0..names.len()).map(|column| widest(column).max(length(&names[column])));
        let widths = fitted(natural.collect(), width);
        let numbers: Vec<bool> = (0..names.len()).map(is_number).collect();
        let mut table = String::new();
        for row in std::iter::once(&names).chain(&cells) {
            let mut line = String::new();
            for ((cell, &width), &number) in row.iter().zip(&widths).zip(&numbers) {
                let cell = cut(cell, width);
                match number {
                    true => line.push_str(&format!("{cell:>width$}  ")),
                    false => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            table.push_str(line.trim_end());
            table.push('\n');
        }
        table
    }

    /// Lines of values with commas between them. What is null is empty, what is a list or an object is JSON. For a terminal
    /// control characters are replaced.
    pub fn csv(&self, for_terminal: bool) -> String {
        let mut csv = String::new();
        let names = self.names.iter().map(|name| Some(name.clone())).collect();
        for row in std::iter::once(names).chain(self.texts()) {
            for (at, cell) in row.iter().enumerate() {
                if at > 0 {
                    csv.push(',');
                }
                let cell = cell.as_deref().unwrap_or_default();
                let cell = if for_terminal { printable(cell) } else { cell.to_owned() };
                if cell.contains(['"', ',', '\n', '\r']) {
                    csv.push_str(&format!("\"{}\"", cell.replace('"', "\"\"")));
                } else {
                    csv.push_str(&cell);
                }
            }
            csv.push_str("\r\n");
        }
        csv
    }
}

/// A value as text; `None` for null. Numbers keep every digit.
fn text(value: &RawValue) -> Option<String> {
    match value.get() {
        "null" => None,
        json if json.starts_with('"') => Some(serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())),
        json => Some(json.to_owned()),
    }
}

/// Widths of columns so that a line fits: the widest are cut first, none below the least.
fn fitted(natural: Vec<usize>, width: Option<usize>) -> Vec<usize> {
    let mut widths: Vec<usize> = natural.into_iter().map(|width| width.min(CELL_CHARS_MAX)).collect();
    let Some(room) = width.map(|width| width.saturating_sub(GAP * widths.len().saturating_sub(1))) else {
        return widths;
    };
    while widths.iter().sum::<usize>() > room {
        let Some(widest) = widths.iter_mut().max().filter(|widest| **widest > CELL_CHARS_MIN) else { break };
        *widest -= 1;
    }
    widths
}

/// The front of a text, with a sign where something is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut front: String = text.chars().take(width.saturating_sub(1)).collect();
    front.push('…');
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OPERATIONS;

    const DATA: &str = r#"[
        {"outcome": "VALID", "count()": 9007199254740993, "tags": ["a", "b"], "note": null},
        {"outcome": "a \"q\",\nb\u001b[2J", "count()": -1.5, "tags": [], "note": "x"}
    ]"#;

    /// A table for people: numbers to the right with all their digits, nothing that steers a terminal.
    #[test]
    fn a_table_lines_up() {
        let rows = Rows::read(DATA).expect("rows");
        assert_eq!(rows.len(), 2);
        let wanted = [
            "outcome                  count()  tags       note",
            "VALID           9007199254740993  [\"a\", \"b\"]  null",
            "a \"q\", b\u{fffd}[2J              -1.5  []         x",
        ];
        let table = rows.table(None);
        assert!(table.lines().all(|line| !line.contains('\u{1b}')), "{table}");
        assert_eq!(
            table.split_whitespace().collect::<Vec<_>>(),
            wanted.join(" ").split_whitespace().collect::<Vec<_>>()
        );
        let ends = |line: &str, number: &str| line.find(number).map(|at| line[..at].chars().count() + number.len());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(ends(lines[0], "count()"), ends(lines[1], "9007199254740993"));
        assert_eq!(ends(lines[0], "count()"), ends(lines[2], "-1.5"));
        assert_eq!(Rows::read("[]").expect("no rows").table(None), "\n");
        assert!(Rows::read(r#"{"a":1}"#).is_none());
    }

    /// Lines fit the terminal as far as they can: the widest column gives way.
    #[test]
    fn a_table_fits_its_terminal() {
        let data = format!(r#"[{{"n": 12, "long": "{}", "short": "abcdef"}}]"#, "x".repeat(500));
        let rows = Rows::read(&data).expect("rows");
        let widest = |width| rows.table(width).lines().map(|line| line.chars().count()).max();
        assert_eq!(widest(Some(40)), Some(40));
        assert_eq!(widest(None), Some(2 + 80 + 6 + 2 * GAP));
        assert!(rows.table(Some(40)).contains("x…  abcdef"));
        assert_eq!(widest(Some(3)), Some(2 + CELL_CHARS_MIN + 6 + 2 * GAP), "no narrower than can be read");
    }

    /// CSV as programs read it.
    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let rows = Rows::read(DATA).expect("rows");
        assert_eq!(
            rows.csv(false),
            "outcome,count(),tags,note\r\nVALID,9007199254740993,\"[\"\"a\"\", \"\"b\"\"]\",\r\n\
             \"a \"\"q\"\",\nb\u{1b}[2J\",-1.5,[],x\r\n"
        );
        assert!(!rows.csv(true).contains('\u{1b}'));
    }

    /// Only operations whose rows are free have formats for rows.
    #[test]
    fn queries_have_rows() {
        let named: Vec<&str> = OPERATIONS.iter().filter(|entry| has_rows(entry)).map(|entry| entry.name).collect();
        assert_eq!(named, ["analytics.getVerifications", "analytics.getRatelimits"]);
    }
}
