//! Rate-limit namespaces and their overrides.

use super::codec::row;
use super::{NAMESPACE_BY_NAME, OVERRIDE, Row, row_key};
use crate::error::ReadError;
use crate::ids::{NamespaceId, OverrideId, WorkspaceNo};
use crate::store::Read;
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

/// A namespace in memory, with all its overrides.
#[derive(Debug)]
pub struct NamespaceView {
    /// Its id.
    pub id: NamespaceId,
    /// Its name.
    pub name: Box<str>,
    /// Whether it was deleted: limits on it answer 410.
    pub deleted: bool,
    /// Overrides for exactly one identifier, sorted by it.
    exact: Box<[OverrideView]>,
    /// Overrides with a `*`, in the order in which the first match wins (RL-OVR-05).
    wildcard: Box<[OverrideView]>,
}

/// An override in memory.
#[derive(Debug)]
pub struct OverrideView {
    /// The identifier or pattern.
    pub identifier: Box<str>,
    /// Its id.
    pub id: OverrideId,
    /// Most cost per window.
    pub limit: u64,
    /// Window length, ms.
    pub duration: u64,
}

impl NamespaceView {
    pub(crate) fn new(id: NamespaceId, row: &NamespaceRow, overrides: Vec<OverrideView>) -> NamespaceView {
        // One that contains `*` is a pattern, and also the exact match of an identifier spelled just so (RL-OVR-02);
        // the latter is found by `override_for` in the sorted list below, so patterns stand in both.
        let mut wildcard: Vec<OverrideView> = Vec::new();
        let mut exact: Vec<OverrideView> = Vec::new();
        for item in overrides {
            if item.identifier.contains('*') {
                wildcard.push(OverrideView { identifier: item.identifier.clone(), ..item });
            }
            exact.push(item);
        }
        exact.sort_by(|a, b| a.identifier.cmp(&b.identifier));
        let stars = |item: &OverrideView| item.identifier.matches('*').count();
        let literals = |item: &OverrideView| item.identifier.chars().filter(|&char| char != '*').count();
        wildcard.sort_by(|a, b| {
            literals(b)
                .cmp(&literals(a))
                .then(stars(a).cmp(&stars(b)))
                .then(a.identifier.as_bytes().cmp(b.identifier.as_bytes()))
        });
        NamespaceView {
            id,
            name: row.name.as_str().into(),
            deleted: row.deleted_at.is_some(),
            exact: exact.into(),
            wildcard: wildcard.into(),
        }
    }

    /// Bytes it takes, roughly.
    pub(crate) fn bytes(&self) -> usize {
        let overrides = self.exact.iter().chain(self.wildcard.iter());
        size_of::<NamespaceView>()
            + self.name.len()
            + overrides.map(|item| size_of::<OverrideView>() + item.identifier.len()).sum::<usize>()
    }

    /// The override that acts on this identifier (RL-OVR-02, RL-OVR-05).
    pub fn override_for(&self, identifier: &str) -> Option<&OverrideView> {
        match self.exact.binary_search_by(|item| (*item.identifier).cmp(identifier)) {
            Ok(found) => Some(&self.exact[found]),
            Err(_) => self.wildcard.iter().find(|item| pattern_matches(&item.identifier, identifier)),
        }
    }
}

/// Whether a pattern matches a whole text; `*` stands for any run of characters, everything else for itself (RL-OVR-03).
///
/// The classic greedy scan with one point to come back to: a later `*` makes every earlier one irrelevant, so the work is
/// at most pattern length times text length and in practice linear.
pub fn pattern_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
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

/// Reads a namespace with its overrides.
pub(crate) fn view(
    read: &impl Read,
    workspace: WorkspaceNo,
    id: NamespaceId,
) -> Result<Option<NamespaceView>, ReadError> {
    let Some(row) = get(read, workspace, id)? else { return Ok(None) };
    let prefix = row_key(workspace, &[id.as_bytes()]);
    let mut overrides = Vec::new();
    for (key, value) in read.range(OVERRIDE, &prefix, None, usize::MAX)? {
        let item: OverrideRow = crate::store::decode(&value)?;
        overrides.push(OverrideView {
            identifier: String::from_utf8_lossy(&key[prefix.len()..]).into(),
            id: item.id,
            limit: item.limit,
            duration: item.duration,
        });
    }
    Ok(Some(NamespaceView::new(id, &row, overrides)))
}

/// Puts a namespace and its index.
pub fn put(tx: &mut Tx<'_>, workspace: WorkspaceNo, id: NamespaceId, row: &NamespaceRow) {
    tx.put_bytes(NamespaceRow::TABLE, &row_key(workspace, &[id.as_bytes()]), row.to_bytes());
    tx.put_bytes(NAMESPACE_BY_NAME, &row_key(workspace, &[row.name.as_bytes()]), id.as_bytes().to_vec());
}

/// Puts the override of one identifier or pattern.
pub fn put_override(
    tx: &mut Tx<'_>,
    workspace: WorkspaceNo,
    namespace: NamespaceId,
    identifier: &str,
    row: &OverrideRow,
) {
    let key = row_key(workspace, &[namespace.as_bytes(), identifier.as_bytes()]);
    tx.put_bytes(OverrideRow::TABLE, &key, row.to_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, id};

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
            ("über*ß", "über-straß", true),
            ("a?c", "abc", false),
            ("**", "x", true),
        ] {
            assert_eq!(pattern_matches(pattern, text), expected, "{pattern} on {text:?}");
        }
    }

    /// RL-OVR-02, RL-OVR-05: exact beats wildcard; then most literal characters, fewest stars, smallest bytes.
    #[test]
    fn the_most_literal_override_wins() {
        let row = NamespaceRow { name: "ns".into(), created_at: 1, deleted_at: None };
        let overrides = ["*", "user_*", "u*", "user_1", "*_1", "us*_*1", "user_*"]
            .iter()
            .map(|text| OverrideView { identifier: (*text).into(), id: OverrideId(id('o')), limit: 1, duration: 1 })
            .collect();
        let view = NamespaceView::new(NamespaceId(id('n')), &row, overrides);
        for (identifier, expected) in [
            ("user_1", "user_1"),
            ("user_2", "user_*"),
            ("other", "*"),
            ("a_1", "*_1"),
            ("u9", "u*"),
            ("user_*", "user_*"),
        ] {
            assert_eq!(view.override_for(identifier).map(|item| &*item.identifier), Some(expected), "{identifier}");
        }
    }
}
