//! What list operations share: where a page begins, how long it is, and what a search finds (COM-PAG).
//!
//! A page ends at its number of rows, or before that at [`PAGE_BYTES`]: its rows may be large, and nobody's page may take
//! the memory that the others need. So rows are read one by one, by ids that were found before.

use std::io;

use keyward_storage::ReadError;
use keyward_storage::ids::IdText;
use keyward_storage::records::{self, Row};
use serde::Serialize;

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
/// Bytes of its rows, as JSON, at which a page is full. The last row may go beyond it, so that there always is one.
pub const PAGE_BYTES: usize = 4 << 20;
/// What the document says of it, once for all lists.
pub const PAGES_END_EARLY: &str = "Whether more rows follow this page. A page may hold fewer rows than were asked for and \
    be followed by more: it ends once its rows make 4 MiB.";

/// Which page is asked for.
pub struct Paging {
    limit: usize,
    from: Vec<u8>,
    prefix: &'static str,
}

impl Paging {
    /// The page of `limit` rows, or else of `default`, that begins at the cursor. `prefix` is what the ids of these rows
    /// begin with: rows are kept by what comes after it, while a cursor is compared as a whole id (COM-PAG-03).
    pub fn new<const MAX: usize>(
        limit: &Limit,
        default: usize,
        cursor: &Opt<Text<0, MAX>>,
        prefix: &'static str,
    ) -> Paging {
        let limit = limit.as_ref().map_or(default, |limit| usize::try_from(limit.get()).expect("bounded to 1..100"));
        let cursor = cursor.as_deref().unwrap_or_default();
        let from = match cursor.strip_prefix(prefix) {
            Some(rest) => rest.as_bytes().to_vec(),
            None if cursor < prefix => Vec::new(),
            // Behind every id of the kind: no id has such a byte.
            None => vec![0xff],
        };
        Paging { limit, from, prefix }
    }

    /// How many ids to find: one more than the page may have rows, to know whether more follow (COM-PAG-05).
    pub fn most(&self) -> usize {
        self.limit + 1
    }

    /// The bytes behind an id's prefix at which reading begins, inclusive.
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// Reads the page of a kind of resource that `keep` wants, each row as `show` makes it. `what` completes "We could not
    /// load the requested …".
    pub async fn read<R: Row + 'static, T: Serialize + Send + 'static>(
        self,
        call: &Call,
        what: &str,
        keep: impl FnMut(IdText, &R) -> bool + Send + 'static,
        mut show: impl FnMut(IdText, R) -> T + Send + 'static,
    ) -> Result<Page<T>, Problem> {
        let workspace = call.workspace();
        let page = call.read(what, move |storage| {
            let snapshot = storage.snapshot()?;
            let ids = records::ids(&snapshot, workspace, &self.from, self.most(), keep)?;
            let row = |id| Ok(records::get(&snapshot, workspace, id)?.map(|row| show(id, row)));
            self.fill(ids, |id| *id, row)
        });
        page.await
    }

    /// The page at the front of what was found with [`Paging::most`]. What `row` makes nothing of is left out.
    ///
    /// # Errors
    /// The first of `row`.
    pub fn fill<I, T: Serialize>(
        &self,
        found: Vec<I>,
        id_of: impl Fn(&I) -> IdText,
        mut row: impl FnMut(I) -> Result<Option<T>, ReadError>,
    ) -> Result<Page<T>, ReadError> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (number, found) in found.into_iter().enumerate() {
            if number == self.limit || bytes >= PAGE_BYTES {
                let cursor = format!("{}{}", self.prefix, id_of(&found).as_str());
                return Ok(Page::new(rows, Some(cursor)));
            }
            if let Some(row) = row(found)? {
                bytes += json_bytes(&row);
                rows.push(row);
            }
        }
        Ok(Page::new(rows, None))
    }
}

/// How long a row is as JSON. One that is none is told of when it is written.
pub fn json_bytes(row: &impl Serialize) -> usize {
    struct Counter(usize);

    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut counter = Counter(0);
    let _ = serde_json::to_writer(&mut counter, row);
    counter.0
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

    /// COM-PAG-02, COM-PAG-05: an exact last page has no cursor; a page that is full of bytes says where the next one begins; it has at least one row, and what is too many
    /// is not even read.
    #[test]
    fn a_page_ends_at_its_bytes() {
        let paging = Paging::new(&ask("5"), 5, &Cursor::default(), "key_");
        let id = |number: &usize| IdText::from_bytes([b'a' + *number as u8; 16]).expect("letters");
        for (sizes, rows, next) in [
            (&[10, 10, 10][..], 3, None),
            (&[], 0, None),
            (&[10; 5], 5, None),
            (&[10; 6], 5, Some(5)),
            (&[PAGE_BYTES, 10], 1, Some(1)),
            (&[2 * PAGE_BYTES], 1, None),
            (&[PAGE_BYTES / 2, PAGE_BYTES / 2, 10, 10], 2, Some(2)),
            (&[10, 10, PAGE_BYTES, 10], 3, Some(3)),
        ] {
            let mut read = 0;
            let page = paging.fill((0..sizes.len()).collect(), id, |number| {
                read += 1;
                Ok(Some("x".repeat(sizes[number])))
            });
            let mut body = Vec::new();
            crate::api::operation::Reply::write(&page.expect("readable"), &mut body).expect("it serializes");
            let cursor = next.map_or("\"hasMore\":false".to_owned(), |next| {
                format!("\"hasMore\":true,\"cursor\":\"key_{}\"", id(&next).as_str())
            });
            assert!(String::from_utf8(body).expect("JSON is text").ends_with(&format!("{{{cursor}}}")), "{sizes:?}");
            assert_eq!(read, rows, "{sizes:?}");
        }
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
