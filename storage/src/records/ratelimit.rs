//! Rate-limit namespaces and their overrides.

use super::codec::row;
use super::{NAMESPACE_BY_NAME, OVERRIDE, OVERRIDE_BY_ID, OVERRIDE_PATTERN, Row, TableNo, row_key};
use crate::error::ReadError;
use crate::ids::{NamespaceId, OverrideId, WorkspaceNo};
use crate::store::{Read, Snapshot};
use crate::tx::Tx;

row! {
    /// A namespace.
    pub struct NamespaceRow in NAMESPACE version 1 {
        /// Unique in its workspace, deleted ones included (RL-NS-03).
        name: String,
        /// Unix ms.
        created_at: u64,
        /// Unix ms of its deletion.
        deleted_at: Option<u64>,
    }
}

row! {
    /// An override: other limits for some identifiers of a namespace.
    pub struct OverrideRow in OVERRIDE version 1 {
        /// Its id.
        id: OverrideId,
        /// Most cost per window.
        limit: u64,
        /// Window length, ms.
        duration: u64,
        /// Unix ms.
        created_at: u64,
    }
}

/// Patterns in one namespace at most: a decision tries them in turn, which bounds its work.
pub const PATTERNS_MAX: usize = 1000;

/// A namespace in memory, with its patterns. Overrides of exactly one identifier are found by themselves
/// ([`Hot::overrides`](crate::hot::Hot::overrides)), so neither a change of one nor a decision costs more the more there
/// are.
#[derive(Debug)]
pub struct NamespaceView {
    /// Its id.
    pub id: NamespaceId,
    /// Its name.
    pub name: Box<str>,
    /// Whether it was deleted: limits on it answer 410.
    pub deleted: bool,
    /// Overrides with a `*`, in the order in which the first match wins (RL-OVR-05).
    patterns: Box<[PatternView]>,
}

/// What an override says, in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverrideView {
    /// Its id.
    pub id: OverrideId,
    /// Most cost per window.
    pub limit: u64,
    /// Window length, ms.
    pub duration: u64,
}

impl OverrideView {
    pub(crate) fn new(row: &OverrideRow) -> OverrideView {
        OverrideView { id: row.id, limit: row.limit, duration: row.duration }
    }
}

/// An override for all identifiers that a pattern matches, in memory.
#[derive(Debug)]
pub struct PatternView {
    pattern: Pattern,
    /// What it says.
    pub says: OverrideView,
}

impl PatternView {
    /// The pattern as it was set.
    pub fn identifier(&self) -> &str {
        &self.pattern.text
    }
}

impl NamespaceView {
    pub(crate) fn new(id: NamespaceId, row: &NamespaceRow, mut patterns: Vec<PatternView>) -> NamespaceView {
        patterns.sort_by(|a, b| a.pattern.precedence().cmp(&b.pattern.precedence()));
        NamespaceView {
            id,
            name: row.name.as_str().into(),
            deleted: row.deleted_at.is_some(),
            patterns: patterns.into(),
        }
    }

    /// Bytes it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let patterns = self.patterns.iter().map(|item| size_of::<PatternView>() + item.pattern.text.len());
        size_of::<NamespaceView>() + self.name.len() + patterns.sum::<usize>()
    }

    /// The pattern that acts on an identifier for which there is no override of its own (RL-OVR-02, RL-OVR-05). One that
    /// the identifier spells out is that identifier's own.
    pub fn pattern_for(&self, identifier: &str) -> Option<&PatternView> {
        let literally = || self.patterns.iter().find(|item| item.identifier() == identifier);
        let own = if is_pattern(identifier) { literally() } else { None };
        own.or_else(|| self.patterns.iter().find(|item| item.pattern.matches(identifier)))
    }
}

/// Whether an override with this identifier is for all that the identifier matches as a pattern (RL-OVR-02).
pub fn is_pattern(identifier: &str) -> bool {
    identifier.contains('*')
}

/// A pattern: `*` stands for any run of characters, everything else for itself (RL-OVR-03). Taken apart once, so that most
/// identifiers are told by comparing their ends.
#[derive(Debug)]
struct Pattern {
    text: Box<str>,
    /// Bytes before the first `*`.
    head: usize,
    /// Bytes behind the last `*`.
    tail: usize,
    stars: usize,
    /// Characters that are not `*`.
    literals: usize,
}

impl Pattern {
    /// The pattern of a text that has a `*`; a text without one matches itself only.
    fn new(text: &str) -> Pattern {
        let stars = text.bytes().filter(|&byte| byte == b'*').count();
        Pattern {
            text: text.into(),
            head: text.find('*').unwrap_or(text.len()),
            tail: text.rfind('*').map_or(0, |at| text.len() - at - 1),
            stars,
            literals: text.chars().count() - stars,
        }
    }

    /// What decides between several that match, smallest first: most literal characters, then fewest `*`, then bytes
    /// (RL-OVR-05).
    fn precedence(&self) -> impl Ord + '_ {
        (std::cmp::Reverse(self.literals), self.stars, self.text.as_bytes())
    }

    /// Whether it matches the whole text. What stands between two `*` is taken where it first occurs, since a later `*`
    /// makes every earlier choice irrelevant: the work is linear in the text (RL-OVR-04).
    fn matches(&self, text: &str) -> bool {
        let Some(inner_end) = self.text.len().checked_sub(self.tail + 1).filter(|_| self.stars > 0) else {
            return *self.text == *text;
        };
        if text.len() < self.head + self.tail
            || !text.as_bytes().starts_with(&self.text.as_bytes()[..self.head])
            || !text.as_bytes().ends_with(&self.text.as_bytes()[inner_end + 1..])
        {
            return false;
        }
        if self.stars == 1 {
            return true;
        }
        let mut rest = &text[self.head..text.len() - self.tail];
        for part in self.text[self.head + 1..inner_end].split('*') {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

/// Reads a namespace, deleted ones included.
pub fn get(read: &impl Read, workspace: WorkspaceNo, id: NamespaceId) -> Result<Option<NamespaceRow>, ReadError> {
    read.row(&row_key(workspace, &[id.as_bytes()]))
}

/// Finds a namespace by its name, deleted ones included.
pub fn find(read: &impl Read, workspace: WorkspaceNo, name: &str) -> Result<Option<NamespaceId>, ReadError> {
    let key = row_key(workspace, &[name.as_bytes()]);
    Ok(read.bytes(NAMESPACE_BY_NAME, &key)?.and_then(|id| crate::store::id_from(&id)).map(NamespaceId))
}

/// Reads a namespace that is not deleted.
pub fn get_live(read: &impl Read, workspace: WorkspaceNo, id: NamespaceId) -> Result<Option<NamespaceRow>, ReadError> {
    Ok(get(read, workspace, id)?.filter(|row| row.deleted_at.is_none()))
}

/// Finds a namespace by its id or name, deleted ones included; the id wins (RL-NS-01).
pub fn find_by_id_or_name(
    read: &impl Read,
    workspace: WorkspaceNo,
    id_or_name: &str,
) -> Result<Option<(NamespaceId, NamespaceRow)>, ReadError> {
    if let Some(id) = NamespaceId::parse(id_or_name)
        && let Some(row) = get(read, workspace, id)?
    {
        return Ok(Some((id, row)));
    }
    match find(read, workspace, id_or_name)? {
        Some(id) => Ok(get(read, workspace, id)?.map(|row| (id, row))),
        None => Ok(None),
    }
}

/// Reads a namespace with its patterns.
pub(crate) fn view(
    read: &impl Read,
    workspace: WorkspaceNo,
    id: NamespaceId,
) -> Result<Option<NamespaceView>, ReadError> {
    let Some(row) = get(read, workspace, id)? else { return Ok(None) };
    let prefix = row_key(workspace, &[id.as_bytes()]);
    let mut patterns = Vec::new();
    for (key, value) in read.range(OVERRIDE_PATTERN, &prefix, None, usize::MAX)? {
        let item: OverrideRow = crate::store::decode(&value)?;
        let pattern = Pattern::new(&String::from_utf8_lossy(&key[prefix.len()..]));
        patterns.push(PatternView { pattern, says: OverrideView::new(&item) });
    }
    Ok(Some(NamespaceView::new(id, &row, patterns)))
}

/// Where the override of an identifier or pattern stands: table and key.
fn place(workspace: WorkspaceNo, namespace: NamespaceId, identifier: &str) -> (TableNo, Vec<u8>) {
    let table = if is_pattern(identifier) { OVERRIDE_PATTERN } else { OVERRIDE };
    (table, row_key(workspace, &[namespace.as_bytes(), identifier.as_bytes()]))
}

/// Reads the override that was set for exactly this identifier or pattern.
pub fn get_override(
    read: &impl Read,
    workspace: WorkspaceNo,
    namespace: NamespaceId,
    identifier: &str,
) -> Result<Option<OverrideRow>, ReadError> {
    let (table, key) = place(workspace, namespace, identifier);
    read.bytes(table, &key)?.map(|bytes| crate::store::decode(&bytes)).transpose()
}

/// Whether a namespace has as many patterns as it may have ([`PATTERNS_MAX`]).
pub fn is_full_of_patterns(
    read: &impl Read,
    workspace: WorkspaceNo,
    namespace: NamespaceId,
) -> Result<bool, ReadError> {
    let prefix = row_key(workspace, &[namespace.as_bytes()]);
    Ok(read.range(OVERRIDE_PATTERN, &prefix, None, PATTERNS_MAX)?.len() == PATTERNS_MAX)
}

/// The ids of a page of a namespace's overrides, each with its identifier or pattern: at most `most`, ascending, from the
/// id text `from` on (bytewise, inclusive; it need not be an id).
///
/// # Errors
/// What reading or decoding a row says.
pub fn override_ids(
    snapshot: &Snapshot,
    workspace: WorkspaceNo,
    namespace: NamespaceId,
    from: &[u8],
    most: usize,
) -> Result<Vec<(OverrideId, String)>, ReadError> {
    let prefix = row_key(workspace, &[namespace.as_bytes()]);
    snapshot.select(OVERRIDE_BY_ID, &prefix, from, most, |id, identifier| {
        let identifier = String::from_utf8_lossy(identifier).into_owned();
        Ok(crate::store::id_from(id).map(|id| (OverrideId(id), identifier)))
    })
}

/// Puts a namespace and its index.
pub fn put(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: NamespaceId, row: &NamespaceRow) {
    tx.put_bytes(NamespaceRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
    tx.put_bytes(NAMESPACE_BY_NAME, &row_key(workspace, &[row.name.as_bytes()]), id.as_bytes().to_vec());
}

/// Puts the override of one identifier or pattern, and its index. One that replaces another keeps its id.
pub fn put_override(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    namespace: NamespaceId,
    identifier: &str,
    row: &OverrideRow,
) {
    let (table, key) = place(workspace, namespace, identifier);
    tx.put_bytes(table, &key, row.to_bytes());
    let by_id = row_key(workspace, &[namespace.as_bytes(), row.id.as_bytes()]);
    tx.put_bytes(OVERRIDE_BY_ID, &by_id, identifier.as_bytes().to_vec());
}

/// Removes the override of one identifier or pattern, and its index.
pub fn remove_override(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    namespace: NamespaceId,
    identifier: &str,
    row: &OverrideRow,
) {
    let (table, key) = place(workspace, namespace, identifier);
    tx.delete(table, &key);
    tx.delete(OVERRIDE_BY_ID, &row_key(workspace, &[namespace.as_bytes(), row.id.as_bytes()]));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};
    use proptest::prelude::*;

    /// Frozen: see `records::codec`.
    #[test]
    fn row_bytes_are_frozen() {
        let namespace = NamespaceRow { name: "ns".into(), created_at: 1, deleted_at: None };
        assert_eq!(hex(&namespace.to_bytes()), "01020000006e73010000000000000000");
        assert_eq!(NamespaceRow::from_bytes(&namespace.to_bytes()), Ok(namespace));
        let over = OverrideRow { id: OverrideId(id('o')), limit: 3, duration: 4, created_at: 5 };
        assert_eq!(
            hex(&over.to_bytes()),
            "016f6f6f6f6f6f6f6f6f6f6f6f6f6f6f6f030000000000000004000000000000000500000000000000"
        );
        assert_eq!(OverrideRow::from_bytes(&over.to_bytes()), Ok(over));
    }

    /// RL-OVR-03, RL-OVR-04.
    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "line\nbreak", true),
            ("*@domain.com", "me@domain.com", true),
            ("*@domain.com", "me@domain.com.evil", false),
            ("user_*", "user_", true),
            ("user_*", "User_1", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*a", "aba", true),
            ("a*b*a", "aa", false),
            ("über*ß", "über-straß", true),
            ("*ä*ö*", "xäyöz", true),
            ("*ä*ö*", "xöyäz", false),
            ("\u{df}*", "\u{c3}", false),
            ("a?c", "abc", false),
            ("**", "x", true),
            ("**", "", true),
            ("*a**b*", "ab", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} on {text:?}");
        }
    }

    proptest! {
        /// RL-OVR-03: the quick matcher agrees with the definition: a `*` takes nothing, or one more character.
        #[test]
        fn matching_is_what_the_contract_defines(pattern in "[ab*ä]{0,6}\\*[ab*ä]{0,6}", text in "[abä]{0,10}") {
            fn defined(pattern: &[char], text: &[char]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, _) => text.is_empty(),
                    (Some(('*', rest)), None) => defined(rest, text),
                    (Some(('*', rest)), Some((_, shorter))) => defined(rest, text) || defined(pattern, shorter),
                    (Some((literal, rest)), Some((char, shorter))) => literal == char && defined(rest, shorter),
                    (Some(_), None) => false,
                }
            }
            let (by_character, characters): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(Pattern::new(&pattern).matches(&text), defined(&by_character, &characters));
        }
    }

    /// RL-OVR-02, RL-OVR-05: most literal characters, fewest stars, smallest bytes; what is spelled out beats all.
    #[test]
    fn the_most_literal_pattern_wins() {
        let row = NamespaceRow { name: "ns".into(), created_at: 1, deleted_at: None };
        let says = OverrideView { id: OverrideId(id('o')), limit: 1, duration: 1 };
        let patterns = ["*", "user_*", "u*", "*_1", "us*_*1", "*b*", "*a*", "a*"]
            .iter()
            .map(|text| PatternView { pattern: Pattern::new(text), says })
            .collect();
        let view = NamespaceView::new(NamespaceId(id('n')), &row, patterns);
        for (identifier, expected) in [
            ("user_1", "user_*"),
            ("user_2", "user_*"),
            ("other", "*"),
            ("b_1", "*_1"),
            ("u9", "u*"),
            ("cab", "*a*"),
            ("ab", "a*"),
            ("*", "*"),
            ("us*_*1", "us*_*1"),
            ("user_*", "user_*"),
            ("user_**", "user_*"),
        ] {
            assert_eq!(view.pattern_for(identifier).map(PatternView::identifier), Some(expected), "{identifier}");
        }
    }
}
