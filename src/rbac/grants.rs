//! What a root key holds, and whether it is enough (PM-TUP, PM-EVAL).

use std::cmp::Ordering;
use std::fmt;

use super::Urn;

/// A root key's permissions, prepared for fast questions. Immutable; made when the key's permissions are read.
///
/// Only permissions of the root key's own rows belong in here, direct ones and those of its roles (PM-EVAL-07).
#[derive(Debug, Clone)]
pub struct Grants {
    workspace: Box<str>,
    /// Every permission, sorted bytewise, without duplicates.
    all: Box<[Box<str>]>,
    /// Those that are URNs of this workspace; the others can cover nothing here.
    urns: Box<[Urn]>,
    administrator: bool,
}

/// A requirement: a tree of leaves, OR and AND that borrows its parts, so that asking costs no allocation.
///
/// ```
/// # use keyward::rbac::{Grants, Need};
/// let held = Grants::new("ws_1", ["api.*.verify_key"]);
/// let need = [Need::any_or_one("api", "api_1", "verify_key"), Need::urn(&["keyspaces", "ks_1", "keys", "key_1"],
/// "verify_key")];
/// assert!(held.check(&Need::Any(&need)).is_ok());
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Need<'a> {
    /// The tuple `<kind>.<id>.<action>`, met by that very string only; `*` is a literal (PM-TUP-02).
    Tuple {
        /// The resource type, `api` for instance.
        kind: &'a str,
        /// A resource's id, or `*`.
        id: &'a str,
        /// What is to be done.
        action: &'a str,
    },
    /// `<kind>.*.<action>` or `<kind>.<id>.<action>`: the commonest OR.
    AnyOrOne {
        /// The resource type.
        kind: &'a str,
        /// A resource's id.
        id: &'a str,
        /// What is to be done.
        action: &'a str,
    },
    /// The resource name `unkey:v1:<the caller's workspace>:<path>#<action>`, met by any URN that covers it.
    Urn {
        /// The path's segments. A `*` among them is a literal (PM-URN-04).
        path: &'a [&'a str],
        /// What is to be done.
        action: &'a str,
    },
    /// Any other string, met by that very string only.
    Exactly(&'a str),
    /// Met when one of them is; never when there is none.
    Any(&'a [Need<'a>]),
    /// Met when all of them are. Met without any, too (PM-EVAL-03): refuse empty lists before asking.
    All(&'a [Need<'a>]),
}

impl<'a> Need<'a> {
    /// The tuple `<kind>.<id>.<action>`.
    pub const fn tuple(kind: &'a str, id: &'a str, action: &'a str) -> Need<'a> {
        Need::Tuple { kind, id, action }
    }

    /// `<kind>.*.<action>` or `<kind>.<id>.<action>`, which the contract writes `<kind>.{*|id}.<action>`.
    pub const fn any_or_one(kind: &'a str, id: &'a str, action: &'a str) -> Need<'a> {
        Need::AnyOrOne { kind, id, action }
    }

    /// A resource name in the caller's workspace.
    pub const fn urn(path: &'a [&'a str], action: &'a str) -> Need<'a> {
        Need::Urn { path, action }
    }
}

/// What is missing, in the contract's words (PM-EVAL-04). It says nothing about what the caller holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied(String);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Denied {}

impl Grants {
    /// Prepares the permissions of a root key that administers `workspace`. Order and duplicates do not matter.
    pub fn new<S: AsRef<str>>(workspace: &str, permissions: impl IntoIterator<Item = S>) -> Grants {
        let mut all: Vec<Box<str>> = permissions.into_iter().map(|permission| permission.as_ref().into()).collect();
        all.sort_unstable();
        all.dedup();
        let urns: Box<[Urn]> =
            all.iter().filter_map(|text| Urn::parse(text)).filter(|urn| urn.workspace() == workspace).collect();
        let administrator = urns.iter().any(Urn::is_administrator);
        Grants { workspace: workspace.into(), all: all.into(), urns, administrator }
    }

    /// The workspace these permissions are about.
    pub fn workspace(&self) -> &str {
        &self.workspace
    }

    /// Every permission, sorted bytewise, without duplicates.
    pub fn all(&self) -> impl ExactSizeIterator<Item = &str> {
        self.all.iter().map(|permission| &**permission)
    }

    /// Whether the administrator URN is among them.
    pub fn is_administrator(&self) -> bool {
        self.administrator
    }

    /// Whether exactly this string is among them.
    pub fn holds(&self, permission: &str) -> bool {
        self.all.binary_search_by(|held| (**held).cmp(permission)).is_ok()
    }

    /// Whether the requirement is met. The administrator URN meets every one (PM-URN-09).
    pub fn allows(&self, need: &Need<'_>) -> bool {
        self.administrator || self.meets(need)
    }

    /// As [`Grants::allows`], and says what is missing.
    pub fn check(&self, need: &Need<'_>) -> Result<(), Denied> {
        if self.allows(need) { Ok(()) } else { Err(self.missing(need)) }
    }

    /// As [`Grants::check`] where the contract wants tuples on purpose: the administrator URN does not help
    /// (PM-URN-09).
    pub fn check_without_administrator(&self, need: &Need<'_>) -> Result<(), Denied> {
        if self.meets(need) { Ok(()) } else { Err(self.missing(need)) }
    }

    /// Whether a holder of these permissions may hand out `permission` (EXT-12): it holds the very string, or a grant
    /// of its own covers it. The administrator URN covers everything, `x.*.y` also `x.<id>.y`, a URN what lies below
    /// it.
    pub fn may_grant(&self, permission: &str) -> bool {
        if self.administrator || self.holds(permission) {
            return true;
        }
        if let Some(urn) = Urn::parse(permission) {
            return self.urns.iter().any(|held| held.covers_grant(&urn));
        }
        match tuple(permission) {
            Some((kind, _, action)) => self.holds_parts(&[kind, ".*.", action]),
            None => false,
        }
    }

    /// The middle parts of the tuples `<kind>.<anything>.<action>`, `*` included, for operations that restrict their
    /// rows to what a grant names (PM-TAB-02).
    pub fn ids<'a>(&'a self, kind: &'a str, action: &'a str) -> impl Iterator<Item = &'a str> {
        self.all().filter_map(move |held| {
            let (held_kind, id, held_action) = tuple(held)?;
            (held_kind == kind && held_action == action).then_some(id)
        })
    }

    /// Whether one of the resource names is for this action on resources whose path begins with `root`, whichever they are.
    pub fn has_urn(&self, root: &str, action: &str) -> bool {
        let reaches = |urn: &Urn| urn.path().split('/').next().is_some_and(|first| [root, "*", "**"].contains(&first));
        self.urns.iter().any(|urn| (urn.is_administrator() || urn.action() == action) && reaches(urn))
    }

    fn meets(&self, need: &Need<'_>) -> bool {
        match *need {
            Need::Tuple { kind, id, action } => self.holds_parts(&[kind, ".", id, ".", action]),
            Need::AnyOrOne { kind, id, action } => {
                self.holds_parts(&[kind, ".*.", action]) || self.holds_parts(&[kind, ".", id, ".", action])
            }
            Need::Urn { path, action } => self.urns.iter().any(|urn| urn.covers(path.iter().copied(), action)),
            Need::Exactly(permission) => self.holds(permission),
            Need::Any(needs) => needs.iter().any(|need| self.meets(need)),
            Need::All(needs) => needs.iter().all(|need| self.meets(need)),
        }
    }

    /// Whether the concatenation of `parts` is among the permissions; nothing is concatenated.
    fn holds_parts(&self, parts: &[&str]) -> bool {
        self.all.binary_search_by(|held| compare_to_parts(held, parts)).is_ok()
    }

    fn missing(&self, need: &Need<'_>) -> Denied {
        // An AND speaks for its first failing child, which may be an AND itself.
        let mut need = *need;
        while let Need::All(needs) = need {
            match needs.iter().find(|child| !self.meets(child)) {
                Some(child) => need = *child,
                None => break,
            }
        }
        let mut text = String::new();
        if matches!(need, Need::Any(_) | Need::AnyOrOne { .. }) {
            text.push_str("Missing one of these permissions: ");
            self.write(&need, &mut text);
        } else {
            text.push_str("Missing permission: '");
            self.write(&need, &mut text);
            text.push('\'');
        }
        Denied(text)
    }

    /// Writes a requirement as people read it. ORs within ORs are one list; an AND within an OR, and an OR within an
    /// AND, stand in parentheses.
    fn write(&self, need: &Need<'_>, text: &mut String) {
        match *need {
            Need::Tuple { kind, id, action } => text.extend([kind, ".", id, ".", action]),
            Need::AnyOrOne { kind, id, action } => {
                text.extend([kind, ".*.", action, " or ", kind, ".", id, ".", action]);
            }
            Need::Urn { path, action } => {
                text.extend(["unkey:v1:", &self.workspace, ":"]);
                for (position, segment) in path.iter().enumerate() {
                    text.extend([if position == 0 { "" } else { "/" }, segment]);
                }
                text.extend(["#", action]);
            }
            Need::Exactly(permission) => text.push_str(permission),
            Need::Any(needs) | Need::All(needs) => {
                let and = matches!(need, Need::All(_));
                for (position, child) in needs.iter().enumerate() {
                    if position > 0 {
                        text.push_str(if and { " and " } else { " or " });
                    }
                    let parentheses = match child {
                        Need::All(children) => !and && children.len() > 1,
                        Need::Any(children) => and && children.len() > 1,
                        Need::AnyOrOne { .. } => and,
                        _ => false,
                    };
                    text.push_str(if parentheses { "(" } else { "" });
                    self.write(child, text);
                    text.push_str(if parentheses { ")" } else { "" });
                }
            }
        }
    }
}

/// Splits a tuple at its two dots; `None` for strings of another shape (PM-TUP-03).
fn tuple(permission: &str) -> Option<(&str, &str, &str)> {
    let mut parts = permission.split('.');
    let tuple = (parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(tuple)
}

/// Compares `held` with the concatenation of `parts`, bytewise.
fn compare_to_parts(held: &str, parts: &[&str]) -> Ordering {
    let mut rest = held.as_bytes();
    for part in parts {
        let part = part.as_bytes();
        let here = rest.len().min(part.len());
        match rest[..here].cmp(part) {
            Ordering::Equal => rest = &rest[here..],
            unequal => return unequal,
        }
    }
    if rest.is_empty() { Ordering::Equal } else { Ordering::Greater }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &[&str] = &["keyspaces", "ks_1", "keys", "key_1"];

    /// PM-TUP-02, PM-TUP-03, KEYS-GEN-28, PM-URN-05: tuples are strings, and the two notations never mix.
    #[test]
    fn tuples_are_compared_byte_by_byte() {
        let need = Need::any_or_one("api", "api_1", "update_key");
        for (held, wanted) in [
            ("api.*.update_key", true),
            ("api.api_1.update_key", true),
            ("api.api_2.update_key", false),
            ("API.*.UPDATE_KEY", false),
            ("*", false),
            ("api.*", false),
            ("api.*.*", false),
            ("api.read.update_key", false),
            ("api.update_key", false),
            ("api.*.update_key ", false),
            ("unkey:v1:ws_1:**#update_key", false),
            ("unkey:v1:ws_1:**#*", true),
            ("unkey:v1:ws_2:**#*", false),
        ] {
            assert_eq!(Grants::new("ws_1", [held]).allows(&need), wanted, "{held}");
        }
        let tuple_as_urn = Need::urn(KEY, "update_key");
        assert!(!Grants::new("ws_1", ["api.*.update_key"]).allows(&tuple_as_urn));
    }

    /// PM-EVAL-04, KEYS-GEN-27: what a refusal says, for each shape of requirement.
    #[test]
    fn a_refusal_names_what_is_missing() {
        let held = Grants::new("ws_1", ["rbac.*.add_role_to_key", "a secret of the caller's"]);
        let either = Need::any_or_one("api", "api_1", "update_key");
        let urn = Need::urn(KEY, "update_key");
        let present = Need::tuple("rbac", "*", "add_role_to_key");
        let both = [either, present];
        let cases: [(Need<'_>, &str); 7] = [
            (Need::tuple("api", "*", "create_api"), "Missing permission: 'api.*.create_api'"),
            (Need::Exactly("documents.read"), "Missing permission: 'documents.read'"),
            (urn, "Missing permission: 'unkey:v1:ws_1:keyspaces/ks_1/keys/key_1#update_key'"),
            (either, "Missing one of these permissions: api.*.update_key or api.api_1.update_key"),
            (
                Need::Any(&[either, urn]),
                "Missing one of these permissions: api.*.update_key or api.api_1.update_key or \
                 unkey:v1:ws_1:keyspaces/ks_1/keys/key_1#update_key",
            ),
            (
                Need::Any(&[urn, Need::All(&both)]),
                "Missing one of these permissions: unkey:v1:ws_1:keyspaces/ks_1/keys/key_1#update_key or \
                 ((api.*.update_key or api.api_1.update_key) and rbac.*.add_role_to_key)",
            ),
            (
                Need::All(&[present, Need::All(&both)]),
                "Missing one of these permissions: api.*.update_key or api.api_1.update_key",
            ),
        ];
        for (need, wanted) in cases {
            let denied = held.check(&need).expect_err("the permission is missing").to_string();
            assert_eq!(denied, wanted);
            assert!(!denied.contains(['{', '}']) && !denied.contains("secret"), "PM-EVAL-04, COM-ERR-09");
        }
    }

    /// PM-EVAL-02, PM-EVAL-03: OR and AND, the empty ones included.
    #[test]
    fn or_wants_one_and_and_wants_all() {
        let held = Grants::new("ws_1", ["a", "b"]);
        let [a, b, c] = [Need::Exactly("a"), Need::Exactly("b"), Need::Exactly("c")];
        assert!(held.allows(&Need::Any(&[c, a])) && !held.allows(&Need::Any(&[c])) && !held.allows(&Need::Any(&[])));
        assert!(held.allows(&Need::All(&[a, b])) && !held.allows(&Need::All(&[a, c])) && held.allows(&Need::All(&[])));
    }

    /// PM-URN-09: the administrator URN opens every operation but those that want a tuple on purpose.
    #[test]
    fn the_administrator_may_do_everything_but_what_wants_a_tuple_on_purpose() {
        let held = Grants::new("ws_1", ["unkey:v1:ws_1:**#*"]);
        let minting = Need::any_or_one("portal", "pc_1", "create_portal_session");
        assert!(held.is_administrator() && held.check(&minting).is_ok());
        assert!(held.check_without_administrator(&minting).is_err());
    }

    /// EXT-12: a root key grants what it holds, and what a grant of its own covers.
    #[test]
    fn a_root_key_grants_what_its_own_grants_cover() {
        let held = Grants::new(
            "ws_1",
            ["api.*.read_key", "api.api_1.update_key", "documents.read", "unkey:v1:ws_1:keyspaces/*#create_key"],
        );
        for (permission, wanted) in [
            ("api.*.read_key", true),
            ("api.api_7.read_key", true),
            ("api.api_1.update_key", true),
            ("api.*.update_key", false),
            ("api.api_2.update_key", false),
            ("documents.read", true),
            ("documents.write", false),
            ("unkey:v1:ws_1:keyspaces/ks_1#create_key", true),
            ("unkey:v1:ws_1:keyspaces/**#create_key", false),
            ("unkey:v1:ws_1:**#*", false),
        ] {
            assert_eq!(held.may_grant(permission), wanted, "{permission}");
        }
        assert!(Grants::new("ws_1", ["unkey:v1:ws_1:**#*"]).may_grant("whatever"));
    }

    /// PM-TAB-02: analytics takes the middle part of any tuple that fits, whatever it is.
    #[test]
    fn the_ids_of_a_grant_are_its_middle_parts() {
        let held = Grants::new(
            "ws_1",
            ["api.api_1.read_analytics", "api.gone.read_analytics", "api.a.b.read_analytics", "api.api_2.read_key"],
        );
        assert_eq!(held.ids("api", "read_analytics").collect::<Vec<_>>(), ["api_1", "gone"]);
    }

    /// RL-GETOV-04, EXT-12: whether somebody has anything to do with a kind of resource.
    #[test]
    fn a_resource_name_is_about_its_root() {
        for (held, wanted) in [
            ("unkey:v1:ws_1:rootKeys/key_1#read", true),
            ("unkey:v1:ws_1:rootKeys/*#read", true),
            ("unkey:v1:ws_1:*/key_1#read", true),
            ("unkey:v1:ws_1:**#read", true),
            ("unkey:v1:ws_1:**#*", true),
            ("unkey:v1:ws_1:rootKeys/*#write", false),
            ("unkey:v1:ws_1:limits#read", false),
            ("unkey:v1:ws_2:rootKeys/*#read", false),
        ] {
            assert_eq!(Grants::new("ws_1", [held]).has_urn("rootKeys", "read"), wanted, "{held}");
        }
    }

    proptest! {
        /// Looking a tuple up by its parts is looking up their concatenation.
        #[test]
        fn parts_compare_like_their_concatenation(
            held in proptest::collection::vec("[ab.*]{0,6}", 0..20),
            parts in proptest::collection::vec("[ab.*]{0,3}", 0..5),
        ) {
            let grants = Grants::new("ws_1", &held);
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            prop_assert_eq!(grants.holds_parts(&parts), held.contains(&parts.concat()));
        }
    }
}
