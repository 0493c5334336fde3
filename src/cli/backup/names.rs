//! Which paths a file of a backup may have. An archive comes from anywhere, and what it names is written below a directory: so
//! names are taken only where they are of the few shapes that a backup has.

/// The directory of the records.
pub const RECORDS: &str = "records";
/// The store's own facts, in it.
pub const STATE: &str = "records/state";
/// The directory of the events.
pub const EVENTS: &str = "events";
/// The rate-limit windows.
pub const WINDOWS: &str = "windows/journal";
/// Longest path, and its deepest nesting: `events/<table>/<workspace>/<day>/<file>`.
const PATH_BYTES_MAX: usize = 200;
const PARTS_MAX: usize = 5;

/// What a file of a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Its `FORMAT`.
    Format,
    /// Its manifest.
    Manifest,
    /// The facts of the store.
    State,
    /// Rows of the records.
    Rows,
    /// A file that goes into the data directory as it is.
    Plain,
}

/// The path of the chunk of rows with this number, from 1 on.
pub fn rows(number: u64) -> String {
    format!("{RECORDS}/{number:010}.rows")
}

/// What a file with this path is; `None` for a path that no backup has.
pub fn kind(path: &str) -> Option<Kind> {
    let is_plain = |part: &str| {
        let of_names = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=' | b'.');
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(of_names)
    };
    if path.len() > PATH_BYTES_MAX || path.split('/').count() > PARTS_MAX || !path.split('/').all(is_plain) {
        return None;
    }
    let is_rows = |name: &str| {
        name.strip_suffix(".rows")
            .is_some_and(|digits| digits.len() == 10 && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match path {
        super::manifest::FORMAT_FILE => Some(Kind::Format),
        super::manifest::MANIFEST_FILE => Some(Kind::Manifest),
        STATE => Some(Kind::State),
        WINDOWS => Some(Kind::Plain),
        _ => match path.split_once('/') {
            Some((RECORDS, name)) if is_rows(name) => Some(Kind::Rows),
            Some((EVENTS, _)) => Some(Kind::Plain),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What leads out of the directory, or to a place that is none of a backup's, is no name.
    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!(kind(&rows(1)), Some(Kind::Rows));
        assert_eq!(kind("records/state"), Some(Kind::State));
        let part =
            "events/key_verifications_per_minute_v1/ws=ws_aaaaaaaaaaaaaaaa/day=2026-11-30/0000000000000001.parquet";
        assert_eq!(kind(part), Some(Kind::Plain));
        assert_eq!(kind("events/MANIFEST"), Some(Kind::Plain));
        for wrong in [
            "",
            "/",
            "/etc/passwd",
            "..",
            "../events/x",
            "events/../../x",
            "events//x",
            "events/./x",
            "events/.x",
            "events/",
            "events/x\0",
            "events/a\\b",
            "records/0000000001.rows/x",
            "records/1.rows",
            "records.redb",
            "log/1.log",
            "root.key",
            "windows/other",
            "LOCK",
            "admin.sock",
            "search/x",
            "events/a/b/c/d/e",
            "events/é",
        ] {
            assert_eq!(kind(wrong), None, "{wrong:?}");
        }
    }
}
