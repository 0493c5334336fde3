//! The permission query of `keys.verifyKey`, held against a second reading of the same grammar, and the two notations
//! of root-key permissions.

use keyward::rbac::{Grants, NESTING_MAX, QUERY_CHARS_MAX, Query, Urn};

use crate::Verdict;

/// See [`crate::Target`].
pub const DICTIONARY: &[&[u8]] = &[
    b" AND ",
    b" or ",
    b"(",
    b")",
    b"documents.read",
    b"api.*.verify_key",
    b"unkey:v1:ws_1:**#*",
    b"unkey:v1:ws_1:keyspaces/*/keys/**#read_key",
    b"\t\r\n",
    "\u{e4}\u{1f511}".as_bytes(),
];

/// How many ways of holding permissions a query is tried with.
const ASSIGNMENTS: u32 = 4;

/// Parses a text as a query and as a permission.
///
/// # Panics
///
/// When the parser and the plain reading of the grammar disagree about what is a query or about what it means.
pub fn run(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    read_as_permissions(text);
    let plain = Reader::read(text);
    match Query::parse(text) {
        Err(error) => {
            assert!(plain.is_none(), "refused, and yet it follows the grammar: {error}");
            let _ = error.to_string();
            Verdict::Refused
        }
        Ok(query) => {
            let plain = plain.expect("accepted, and yet it does not follow the grammar");
            for assignment in 0..ASSIGNMENTS {
                let holds = |permission: &str| (crc32fast::hash(permission.as_bytes()) >> assignment) & 1 == 1;
                assert_eq!(query.holds(holds), plain.holds(&holds), "two readings, two meanings");
            }
            let mut named = Vec::new();
            plain.name(&mut named);
            assert!(query.permissions().eq(named), "the permissions in order");
            Verdict::Accepted
        }
    }
}

/// A client's words become permissions of root keys, too: nothing about them may panic.
fn read_as_permissions(text: &str) {
    if let Some(urn) = Urn::parse(text) {
        assert!(urn.covers(urn.path().split('/'), urn.action()), "a grant covers what it spells");
        assert!(urn.covers_grant(&urn), "a grant may be handed on by its holder");
    }
    let words: Vec<&str> = text.split_whitespace().take(100).collect();
    let grants = Grants::new("ws_1", &words);
    for word in &words {
        assert!(grants.holds(word), "what was granted is held");
    }
}

/// The meaning of a query, as a tree.
enum Meaning<'a> {
    Permission(&'a str),
    All(Vec<Meaning<'a>>),
    Any(Vec<Meaning<'a>>),
}

impl<'a> Meaning<'a> {
    fn holds(&self, holds: &impl Fn(&str) -> bool) -> bool {
        match self {
            Meaning::Permission(permission) => holds(permission),
            Meaning::All(parts) => parts.iter().all(|part| part.holds(holds)),
            Meaning::Any(parts) => parts.iter().any(|part| part.holds(holds)),
        }
    }

    fn name(&self, names: &mut Vec<&'a str>) {
        match self {
            Meaning::Permission(permission) => names.push(permission),
            Meaning::All(parts) | Meaning::Any(parts) => parts.iter().for_each(|part| part.name(names)),
        }
    }
}

/// Recursive descent, one function per line of the grammar: slow, and plainly right.
struct Reader<'a> {
    words: Vec<&'a str>,
    next: usize,
}

impl<'a> Reader<'a> {
    fn read(text: &'a str) -> Option<Meaning<'a>> {
        let permitted = |character: char| character.is_ascii_alphanumeric() || "._-*:/".contains(character);
        let space = |character: char| " \t\r\n".contains(character);
        if text.chars().count() > QUERY_CHARS_MAX
            || !text.chars().all(|character| permitted(character) || space(character) || "()".contains(character))
        {
            return None;
        }
        let words = text
            .split(space)
            .flat_map(|word| word.split_inclusive(['(', ')']))
            .flat_map(|word| match word.strip_suffix(['(', ')']) {
                Some(before) => [before, &word[before.len()..]],
                None => [word, ""],
            })
            .filter(|word| !word.is_empty())
            .collect();
        let mut reader = Reader { words, next: 0 };
        let meaning = reader.any(0)?;
        (reader.next == reader.words.len()).then_some(meaning)
    }

    fn take(&mut self, wanted: &str) -> bool {
        let found = self.words.get(self.next).is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        self.next += usize::from(found);
        found
    }

    fn any(&mut self, depth: usize) -> Option<Meaning<'a>> {
        let mut parts = vec![self.all(depth)?];
        while self.take("or") {
            parts.push(self.all(depth)?);
        }
        Some(Meaning::Any(parts))
    }

    fn all(&mut self, depth: usize) -> Option<Meaning<'a>> {
        let mut parts = vec![self.one(depth)?];
        while self.take("and") {
            parts.push(self.one(depth)?);
        }
        Some(Meaning::All(parts))
    }

    fn one(&mut self, depth: usize) -> Option<Meaning<'a>> {
        if self.take("(") {
            if depth == NESTING_MAX {
                return None;
            }
            let inner = self.any(depth + 1)?;
            return self.take(")").then_some(inner);
        }
        let word = *self.words.get(self.next)?;
        let operator = [")", "and", "or"].iter().any(|other| word.eq_ignore_ascii_case(other));
        self.next += 1;
        (!operator).then_some(Meaning::Permission(word))
    }
}
