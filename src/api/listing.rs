//! What list operations share: where a page begins, how long it is, and what a search finds (COM-PAG).

use keyward_storage::ids::IdText;
use keyward_storage::records::{self, Row};

use super::call::Call;
use super::operation::Page;
use super::problem::Problem;
use super::shape::{Int, Opt, Text};

/// `limit` of a list operation (COM-PAG-01).
pub type Limit = Opt<Int<1, 100>>;

/// `cursor` of a list operation: any string; one that no row has begins at the next greater id (COM-PAG-03).
pub type Cursor = Opt<Text<0, { usize::MAX }>>;

/// `search` of a list operation (COM-PAG-08).
pub type SearchText = Opt<Text<0, 256>>;

/// Rows on a page whose request names no number.
pub const LIMIT_DEFAULT: usize = 100;

/// Which page is asked for.
pub struct Paging {
    limit: usize,
    from: Vec<u8>,
}

impl Paging {
    /// The page of `limit` rows, or else of `default`, that begins at the cursor. `prefix` is what the ids of these rows
    /// begin with: rows are kept by what comes after it, while a cursor is compared as a whole id (COM-PAG-03).
    pub fn new<const MAX: usize>(limit: &Limit, default: usize, cursor: &Opt<Text<0, MAX>>, prefix: &str) -> Paging {
        let limit = limit.as_ref().map_or(default, |limit| usize::try_from(limit.get()).expect("bounded to 1..100"));
        let cursor = cursor.as_deref().unwrap_or_default();
        let from = match cursor.strip_prefix(prefix) {
            Some(rest) => rest.as_bytes().to_vec(),
            None if cursor < prefix => Vec::new(),
            // Behind every id of the kind: no id has such a byte.
            None => vec![0xff],
        };
        Paging { limit, from }
    }

    /// How many rows the page has at most.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many rows to read: one more than the page has, to know whether more follow (COM-PAG-05).
    pub fn most(&self) -> usize {
        self.limit + 1
    }

    /// The bytes behind an id's prefix at which reading begins, inclusive.
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// Reads the rows of the page, and one more, of a kind of resource that `keep` wants. `what` completes "We could not
    /// load the requested …".
    pub async fn read<R: Row + Send + 'static>(
        &self,
        call: &Call,
        what: &str,
        keep: impl FnMut(IdText, &R) -> bool + Send + 'static,
    ) -> Result<Vec<(IdText, R)>, Problem> {
        let workspace = call.workspace();
        let (from, most) = (self.from.clone(), self.most());
        call.read(what, move |storage| records::page(&storage.snapshot()?, workspace, &from, most, keep)).await
    }

    /// The page at the front of rows that were read with [`Paging::most`].
    pub fn page<T>(&self, rows: Vec<T>, id_of: impl FnOnce(&T) -> String) -> Page<T> {
        Page::of(rows, self.limit, id_of)
    }
}

/// A search: a literal substring in whatever letters' case, or nothing, which finds everything (COM-PAG-08).
pub struct Search {
    /// Lower-case.
    wanted: String,
}

impl Search {
    /// White space around the text does not count; an empty rest finds everything.
    pub fn new(text: &SearchText) -> Search {
        Search { wanted: text.as_deref().unwrap_or_default().trim().to_lowercase() }
    }

    /// Whether it finds everything.
    pub fn finds_everything(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Whether any of these texts holds what is searched for.
    pub fn finds<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> bool {
        self.finds_everything() || texts.into_iter().any(|text| self.is_in(text))
    }

    /// Most texts are ASCII: those are searched where they lie, since this runs over every row of a workspace.
    fn is_in(&self, text: &str) -> bool {
        let wanted = self.wanted.as_bytes();
        if text.is_ascii() {
            text.as_bytes().windows(wanted.len()).any(|part| part.eq_ignore_ascii_case(wanted))
        } else {
            text.to_lowercase().contains(&self.wanted)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask<T: serde::de::DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).expect("a valid member")
    }

    /// COM-PAG-03, COM-PAG-04: a cursor is compared as a whole id; whatever it says, a page has a beginning.
    #[test]
    fn a_cursor_is_a_lower_bound_whatever_it_is() {
        for (cursor, from) in [
            ("", &b""[..]),
            ("key_abc", b"abc"),
            ("key_", b""),
            ("aaa", b""),
            ("kez", b"\xff"),
            ("zzz", b"\xff"),
            ("key", b""),
        ] {
            let text: Cursor = ask(&format!("{cursor:?}"));
            assert_eq!(Paging::new(&Limit::default(), 5, &text, "key_").from(), from, "{cursor:?}");
        }
        assert_eq!(Paging::new(&ask("7"), 5, &Cursor::default(), "key_").most(), 8);
        assert_eq!(Paging::new(&Limit::default(), 5, &Cursor::default(), "key_").most(), 6);
    }

    /// COM-PAG-08.
    #[test]
    fn a_search_is_a_literal_substring() {
        for (search, text, found) in [
            ("", "anything", true),
            ("   ", "anything", true),
            (" MIDDLE ", "in the middle of", true),
            ("a%b", "a_b", false),
            ("a_b", "axb", false),
            ("a_b", "xA_By", true),
            ("stra\u{df}e", "HauptSTRA\u{df}E 1", true),
            ("\u{e4}", "\u{c4}pfel", true),
            ("longer than it", "long", false),
            (r"\d", "1", false),
        ] {
            let search = Search::new(&ask(&serde_json::to_string(search).expect("text is JSON")));
            assert_eq!(search.finds([text]), found, "{} in {text:?}", search.wanted);
        }
    }
}
