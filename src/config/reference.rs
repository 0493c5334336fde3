//! The settings as a table for people: the part of `packaging/docs/configure.md` between its two marks.

use std::fmt::Write as _;

use super::Settings;
use super::table::{Kind, SETTINGS, Value, join_words};

/// Every setting with its default, its bounds and its meaning, a Markdown table for each table of the file.
pub fn settings_tables() -> String {
    let defaults = Settings::default();
    let mut text = String::new();
    let mut table = None;
    for setting in SETTINGS {
        let its_table = setting.key.rsplit_once('.').map_or("", |(table, _)| table);
        if table != Some(its_table) {
            let title = if its_table.is_empty() { "General" } else { its_table };
            let _ = write!(text, "\n### {title}\n\n| setting | default | meaning |\n| --- | --- | --- |\n");
            table = Some(its_table);
        }
        let mut meaning = setting.meaning.split_whitespace().collect::<Vec<_>>().join(" ");
        match &setting.kind {
            Kind::Integer { min, max } => {
                let _ = write!(meaning, " From {min} to {max}.");
            }
            Kind::Choice(words) => {
                let _ = write!(meaning, " Must be {}.", join_words(words));
            }
            Kind::Text | Kind::Boolean | Kind::List => {}
        }
        let default = match (setting.get)(&defaults) {
            Value::Text(text) if text.is_empty() => "empty".to_owned(),
            Value::Text(text) => format!("`{text}`"),
            Value::Boolean(on) => format!("`{on}`"),
            Value::Integer(number) => format!("`{number}`"),
            Value::List(items) => items.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", "),
        };
        let _ = writeln!(text, "| `{}` | {default} | {} |", setting.key, meaning.replace('|', "\\|"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- settings:begin -->\n";
    const END: &str = "<!-- settings:end -->";

    /// The documentation's table is the code's. `KEYWARD_REGENERATE=1` in the environment of the test rewrites it.
    #[test]
    #[expect(clippy::disallowed_methods, reason = "a switch of this test")]
    fn the_published_settings_are_those_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/docs/configure.md");
        let published = std::fs::read_to_string(path).expect("packaging/docs/configure.md is there");
        let (before, rest) = published.split_once(BEGIN).expect("the table's first mark");
        let (table, after) = rest.split_once(END).expect("the table's last mark");
        let generated = settings_tables();
        assert_eq!(generated.lines().filter(|line| line.starts_with("| `")).count(), SETTINGS.len());
        if std::env::var_os("KEYWARD_REGENERATE").is_some() {
            let whole = format!("{before}{BEGIN}{generated}{END}{after}");
            std::fs::write(path, whole).expect("packaging/docs/configure.md can be written");
        } else {
            assert!(table == generated, "run this test with KEYWARD_REGENERATE=1");
        }
    }
}
