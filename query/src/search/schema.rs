//! What the index holds: terms, and what rows are ordered by. Nothing is stored: whatever is found is read from the records.
//!
//! Every term begins with the kind of row, what the term says, and the workspace's number; so each query names one workspace
//! in each of its terms, and no query can reach another one's rows.
//!
//! ```text
//! term: u8 kind | u8 tag | u32 workspace, big-endian | bytes
//! tag:  'w' a word and a zero byte, or the first 1 to 5 letters of one    '*' every row
//!       'u' the row's id    'p' a key's API    'e' event    'a' actor    'r' resource    'c' correlation
//! ```
//!
//! The first letters of a word are terms of their own, so that a beginning of few letters, which many words share, is one
//! term; a longer one is a range of terms, which are few.

use keyward_storage::ids::{ApiId, KeyId, WorkspaceNo};
use keyward_storage::records::audit::AuditEvent;
use keyward_storage::records::key::KeyRow;
use tantivy::TantivyDocument;
use tantivy::schema::{FAST, Field, INDEXED, Schema, Term};

use super::texts;

/// The layout's number. An index of another one is made anew.
pub const VERSION: u32 = 1;
/// Letters of a word that have a term of their own.
pub const LETTERS_MAX: usize = 5;
/// Most bytes of a word in a term. A longer one is found by its beginning and then looked at as a whole.
pub const WORD_BYTES_MAX: usize = 64;
/// Most bytes of an exact value in a term.
const VALUE_BYTES_MAX: usize = 512;

const TERMS: &str = "terms";
/// The greater half of what rows are ordered by.
pub const HIGH: &str = "high";
/// The lesser half.
pub const LOW: &str = "low";

/// A kind of row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Keys, ordered by id.
    Key,
    /// Audit events, ordered by time and sequence number.
    Event,
}

/// What a term says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// A word, or how one begins.
    Word,
    /// That it is a row.
    Any,
    /// Which row it is.
    Unique,
    /// Which API a key belongs to.
    Api,
    /// The name of an event.
    Event,
    /// Who did it.
    Actor,
    /// What it was done to.
    Resource,
    /// What it belongs together with.
    Correlation,
}

/// The fields of the index.
#[derive(Debug, Clone, Copy)]
pub struct Fields {
    terms: Field,
    high: Field,
    low: Field,
}

/// The schema, with its fields.
pub fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let fields = Fields {
        terms: builder.add_bytes_field(TERMS, INDEXED),
        high: builder.add_u64_field(HIGH, FAST),
        low: builder.add_u64_field(LOW, FAST),
    };
    (builder.build(), fields)
}

/// The bytes of a term.
pub fn term_bytes(kind: Kind, tag: Tag, workspace: WorkspaceNo, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(6 + value.len());
    bytes.push(match kind {
        Kind::Key => b'k',
        Kind::Event => b'e',
    });
    bytes.push(match tag {
        Tag::Word => b'w',
        Tag::Any => b'*',
        Tag::Unique => b'u',
        Tag::Api => b'p',
        Tag::Event => b'e',
        Tag::Actor => b'a',
        Tag::Resource => b'r',
        Tag::Correlation => b'c',
    });
    bytes.extend_from_slice(&workspace.0.to_be_bytes());
    bytes.extend_from_slice(&value[..value.len().min(VALUE_BYTES_MAX)]);
    bytes
}

/// The part of a word that is in terms.
pub fn cut(word: &str) -> &str {
    &word[..word.floor_char_boundary(WORD_BYTES_MAX)]
}

/// A whole word in a term: the zero byte behind it sets it apart from the beginning of another.
pub fn whole(word: &str) -> Vec<u8> {
    let mut bytes = cut(word).as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Where so many letters end.
pub fn letters(word: &str, most: usize) -> usize {
    word.char_indices().nth(most).map_or(word.len(), |(at, _)| at)
}

/// What a key is ordered by.
pub fn key_order(id: KeyId) -> u128 {
    u128::from_be_bytes(*id.as_bytes())
}

/// What an event is ordered by.
pub fn event_order(time: u64, sequence: u64) -> u128 {
    u128::from(time) << 64 | u128::from(sequence)
}

impl Fields {
    /// A term to look for.
    pub fn term(&self, kind: Kind, tag: Tag, workspace: WorkspaceNo, value: &[u8]) -> Term {
        self.term_of(&term_bytes(kind, tag, workspace, value))
    }

    /// A term of these bytes.
    pub fn term_of(&self, bytes: &[u8]) -> Term {
        Term::from_field_bytes(self.terms, bytes)
    }

    /// The field of the terms.
    pub fn terms(&self) -> Field {
        self.terms
    }

    /// The term of exactly this key.
    pub fn key(&self, workspace: WorkspaceNo, id: KeyId) -> Term {
        self.term(Kind::Key, Tag::Unique, workspace, id.as_bytes())
    }

    /// The term of exactly this event.
    pub fn event(&self, workspace: WorkspaceNo, sequence: u64) -> Term {
        self.term(Kind::Event, Tag::Unique, workspace, &sequence.to_be_bytes())
    }

    /// The term of an API's keys.
    pub fn api(&self, workspace: WorkspaceNo, api: ApiId) -> Term {
        self.term(Kind::Key, Tag::Api, workspace, api.as_bytes())
    }

    /// A live key.
    pub fn key_document(
        &self,
        workspace: WorkspaceNo,
        id: KeyId,
        row: &KeyRow,
        external: Option<&str>,
    ) -> TantivyDocument {
        let mut terms = vec![
            term_bytes(Kind::Key, Tag::Unique, workspace, id.as_bytes()),
            term_bytes(Kind::Key, Tag::Any, workspace, &[]),
            term_bytes(Kind::Key, Tag::Api, workspace, row.api.as_bytes()),
        ];
        words(Kind::Key, workspace, texts::of_key(id, row, external).words(), &mut terms);
        self.document(terms, key_order(id))
    }

    /// An event.
    pub fn event_document(&self, workspace: WorkspaceNo, sequence: u64, event: &AuditEvent) -> TantivyDocument {
        let term = |tag, value: &[u8]| term_bytes(Kind::Event, tag, workspace, value);
        let mut terms = vec![
            term(Tag::Unique, &sequence.to_be_bytes()),
            term(Tag::Any, &[]),
            term(Tag::Event, event.event.as_bytes()),
            term(Tag::Actor, event.actor.id.as_bytes()),
        ];
        terms.extend(event.targets.iter().map(|target| term(Tag::Resource, target.id.as_bytes())));
        terms.extend(event.correlation.map(|id| term(Tag::Correlation, id.as_bytes())));
        words(Kind::Event, workspace, texts::of_event(event).words(), &mut terms);
        self.document(terms, event_order(event.time, sequence))
    }

    fn document(&self, mut terms: Vec<Vec<u8>>, order: u128) -> TantivyDocument {
        terms.sort_unstable();
        terms.dedup();
        let mut document = TantivyDocument::new();
        terms.iter().for_each(|term| document.add_bytes(self.terms, term));
        document.add_u64(self.high, (order >> 64) as u64);
        document.add_u64(self.low, order as u64);
        document
    }
}

/// Adds the terms of words: each as a whole, and how it begins.
fn words<'w>(kind: Kind, workspace: WorkspaceNo, words: impl Iterator<Item = &'w str>, terms: &mut Vec<Vec<u8>>) {
    for word in words {
        let word = cut(word);
        terms.push(term_bytes(kind, Tag::Word, workspace, &whole(word)));
        let ends = word.char_indices().map(|(at, sign)| at + sign.len_utf8());
        terms.extend(ends.take(LETTERS_MAX).map(|end| term_bytes(kind, Tag::Word, workspace, &word.as_bytes()[..end])));
    }
}
