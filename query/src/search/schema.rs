//! What the index holds: terms, and what rows are ordered by. Nothing is stored: whatever is found is read from the records.
//!
//! Every term begins with the kind of row, what the term says, and the workspace's number; so each query names one workspace
//! in each of its terms, and no query can reach another one's rows.
//!
//! ```text
//! term: u8 kind | u8 tag | u32 workspace, big-endian | bytes
//! tag:  'w' a word and a zero byte, or the first 1 to 3 letters of one    '*' every row
//!       'u' an event's number    'p' a key's API    'e' event    'a' actor    'r' resource    'c' correlation
//! ```
//!
//! The first letters of a word are terms of their own, so that a beginning of few letters, which many words share, is one
//! term; a longer one is a range of terms, which are few.
//!
//! What an index costs is the number of its terms, and of these the long ones of which each row has its own. So an id of a
//! resource or a correlation is six bytes of a hash, which leads to other rows seldom, and the records say which those are.
//! A key has no term for its id, because its id is a word.

use keyward_storage::ids::{ApiId, KeyId, WorkspaceNo};
use keyward_storage::records::audit::AuditEvent;
use keyward_storage::records::key::KeyRow;
use tantivy::TantivyDocument;
use tantivy::schema::{FAST, Field, INDEXED, Schema, Term};

use super::texts;
use super::words::Texts;

/// The layout's number. An index of another one is made anew.
pub const VERSION: u32 = 2;
/// Letters of a word that have a term of their own.
pub const LETTERS_MAX: usize = 3;
/// Most bytes of a word in a term. A longer one is found by its beginning and then looked at as a whole.
pub const WORD_BYTES_MAX: usize = 64;
/// Most bytes of an exact value in a term.
const VALUE_BYTES_MAX: usize = 512;

const TERMS: &str = "terms";
/// The greater half of what rows are ordered by.
pub const HIGH: &str = "high";
/// The lesser half.
pub const LOW: &str = "low";
/// The log position at which a row was handed to the index; 0 where the index was made from the records. Of several rows of
/// one key the newest has the greatest.
pub const STAMP: &str = "stamp";

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
    /// Which event it is.
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
    stamp: Field,
}

/// The schema, with its fields.
pub fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let fields = Fields {
        terms: builder.add_bytes_field(TERMS, INDEXED),
        high: builder.add_u64_field(HIGH, FAST),
        low: builder.add_u64_field(LOW, FAST),
        stamp: builder.add_u64_field(STAMP, FAST),
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
    match tag {
        Tag::Resource | Tag::Correlation => bytes.extend_from_slice(&short(value)),
        _ => bytes.extend_from_slice(&value[..value.len().min(VALUE_BYTES_MAX)]),
    }
    bytes
}

/// Six bytes for a value of any length: FNV-1a of 64 bits (draft-eastlake-fnv), folded to 48 as its authors say.
fn short(value: &[u8]) -> [u8; 6] {
    let hash = value
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let folded = (hash >> 48) ^ (hash & 0xffff_ffff_ffff);
    let [_, _, short @ ..] = folded.to_be_bytes();
    short
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

    /// The bytes of the term that this key has, and rarely another: its id as a word.
    pub fn key_bytes(workspace: WorkspaceNo, id: KeyId) -> Vec<u8> {
        let word = String::from_utf8_lossy(id.as_bytes()).to_ascii_lowercase();
        term_bytes(Kind::Key, Tag::Word, workspace, &whole(&word))
    }

    /// The bytes of the term of exactly this event.
    pub fn event_bytes(workspace: WorkspaceNo, sequence: u64) -> Vec<u8> {
        term_bytes(Kind::Event, Tag::Unique, workspace, &sequence.to_be_bytes())
    }

    /// The term of an API's keys.
    pub fn api(&self, workspace: WorkspaceNo, api: ApiId) -> Term {
        self.term(Kind::Key, Tag::Api, workspace, api.as_bytes())
    }

    /// A live key, as it was at a log position.
    pub fn key_document(
        &self,
        workspace: WorkspaceNo,
        id: KeyId,
        row: &KeyRow,
        external: Option<&str>,
        stamp: u64,
    ) -> TantivyDocument {
        let mut document = self.document(key_order(id), stamp);
        for (tag, value) in [(Tag::Any, &[][..]), (Tag::Api, row.api.as_bytes())] {
            document.add_bytes(self.terms, &term_bytes(Kind::Key, tag, workspace, value));
        }
        self.add_words(&mut document, Kind::Key, workspace, &texts::of_key(id, row, external));
        document
    }

    /// An event, as it was at a log position.
    pub fn event_document(
        &self,
        workspace: WorkspaceNo,
        sequence: u64,
        event: &AuditEvent,
        stamp: u64,
    ) -> TantivyDocument {
        let mut document = self.document(event_order(event.time, sequence), stamp);
        let mut add = |tag, value: &[u8]| {
            document.add_bytes(self.terms, &term_bytes(Kind::Event, tag, workspace, value));
        };
        add(Tag::Unique, &sequence.to_be_bytes());
        add(Tag::Any, &[]);
        add(Tag::Event, event.event.as_bytes());
        add(Tag::Actor, event.actor.id.as_bytes());
        event.targets.iter().for_each(|target| add(Tag::Resource, target.id.as_bytes()));
        if let Some(id) = event.correlation {
            add(Tag::Correlation, id.as_bytes());
        }
        self.add_words(&mut document, Kind::Event, workspace, &texts::of_event(event));
        document
    }

    fn document(&self, order: u128, stamp: u64) -> TantivyDocument {
        let mut document = TantivyDocument::new();
        document.add_u64(self.high, (order >> 64) as u64);
        document.add_u64(self.low, order as u64);
        document.add_u64(self.stamp, stamp);
        document
    }

    /// Adds the terms of words, each once: the words themselves, and how they begin.
    fn add_words(&self, document: &mut TantivyDocument, kind: Kind, workspace: WorkspaceNo, texts: &Texts) {
        let mut words: Vec<&str> = texts.words().map(cut).collect();
        words.sort_unstable();
        words.dedup();
        let mut term = term_bytes(kind, Tag::Word, workspace, &[]);
        let head = term.len();
        let mut before = "";
        for word in words {
            // Words that begin alike are neighbours.
            let shared = before.bytes().zip(word.bytes()).take_while(|(one, other)| one == other).count();
            let ends = word.char_indices().map(|(at, sign)| at + sign.len_utf8()).take(LETTERS_MAX);
            term.truncate(head);
            term.extend_from_slice(word.as_bytes());
            for end in ends.filter(|end| *end > shared) {
                document.add_bytes(self.terms, &term[..head + end]);
            }
            term.push(0);
            document.add_bytes(self.terms, &term);
            before = word;
        }
    }
}
