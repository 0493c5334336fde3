//! Unkey resource names, `unkey:v1:<workspace>:<path>#<action>`: grammar and cover (PM-URN).

/// A permission in URN notation, split and known to follow the grammar. It owns one copy of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urn {
    text: Box<str>,
    /// Byte offsets in `text`: the workspace id's end, where the path begins, the `#`.
    workspace_end: usize,
    hash: usize,
}

/// What comes before the workspace id.
const SCHEME: &str = "unkey:v1:";

impl Urn {
    /// Reads a stored permission; `None` for anything that is not a URN, which URN matching then ignores (PM-URN-02).
    pub fn parse(text: &str) -> Option<Urn> {
        let (resource, action) = text.split_once('#')?;
        let (workspace, path) = resource.strip_prefix(SCHEME)?.split_once(':')?;
        if workspace.is_empty() || workspace.contains('/') {
            return None;
        }
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            let well_placed = match segment {
                "*" => true,
                "**" => segments.peek().is_none(),
                _ => !segment.is_empty() && !segment.contains([':', '*']),
            };
            if !well_placed {
                return None;
            }
        }
        let well_formed = match action {
            "*" => path == "**",
            _ => {
                !action.is_empty()
                    && !action.contains([':', '#', '/', '*'])
                    && !action.starts_with('_')
                    && !action.ends_with('_')
            }
        };
        well_formed.then(|| Urn {
            text: text.into(),
            workspace_end: SCHEME.len() + workspace.len(),
            hash: resource.len(),
        })
    }

    /// The workspace the name lives in.
    pub fn workspace(&self) -> &str {
        &self.text[SCHEME.len()..self.workspace_end]
    }

    /// The path, `keyspaces/ks_1/keys/*` for instance.
    pub fn path(&self) -> &str {
        &self.text[self.workspace_end + 1..self.hash]
    }

    /// The action; `*` only for [`Urn::is_administrator`].
    pub fn action(&self) -> &str {
        &self.text[self.hash + 1..]
    }

    /// Whether this is `unkey:v1:<workspace>:**#*`, the grant of everything in its workspace.
    pub fn is_administrator(&self) -> bool {
        self.action() == "*"
    }

    /// Whether this grant covers a requirement in the same workspace (PM-URN-03). A star in the requirement's path is a
    /// literal, so that only a wildcard at its place covers it (PM-URN-04).
    pub fn covers<'a>(&self, path: impl IntoIterator<Item = &'a str>, action: &str) -> bool {
        (self.is_administrator() || self.action() == action) && self.covers_path(path, |_| true)
    }

    /// Whether whoever holds this grant may hand out the grant `other` (EXT-12): it covers everything that `other`
    /// covers.
    ///
    /// Unlike a requirement, the other grant's wildcards mean what they say: `keyspaces/*` does not cover
    /// `keyspaces/**`.
    pub fn covers_grant(&self, other: &Urn) -> bool {
        self.workspace() == other.workspace()
            && (self.is_administrator() || self.action() == other.action())
            && self.covers_path(other.path().split('/'), |segment| segment != "**")
    }

    /// `star` says which segments a `*` may stand for.
    fn covers_path<'a>(&self, path: impl IntoIterator<Item = &'a str>, star: impl Fn(&str) -> bool) -> bool {
        let mut granted = self.path().split('/');
        let mut asked = path.into_iter();
        loop {
            match (granted.next(), asked.next()) {
                (Some("**"), _) => return true,
                (Some("*"), Some(segment)) if star(segment) => {}
                (Some(literal), Some(segment)) if literal == segment => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

/// The text as it is stored.
impl std::fmt::Display for Urn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// PM-URN-02: what is a URN and what is not.
    #[test]
    fn the_grammar_is_strict() {
        for urn in [
            "unkey:v1:ws_1:keyspaces/ks_1#create_key",
            "unkey:v1:ws_1:keyspaces/*#create_key",
            "unkey:v1:ws_1:keyspaces/ks_1/**#read_key",
            "unkey:v1:ws_1:keyspaces/*/keys/key_1#read_key",
            "unkey:v1:ws_1:**#*",
            "unkey:v1:ws_1:**#read_key",
            "unkey:v1:ws_1:anything goes/here#a__b",
        ] {
            assert_eq!(Urn::parse(urn).map(|urn| urn.to_string()).as_deref(), Some(urn));
        }
        for other in [
            "",
            "api.*.create_key",
            "unkey:v1:ws_1:keyspaces/ks_1",
            "unkey:v1:ws_1:keyspaces/ks_1#",
            "unkey:v1:ws_1:keyspaces/ks_1#a#b",
            "unkey:v1::keyspaces/ks_1#a",
            "unkey:v1:w/s:keyspaces/ks_1#a",
            "unkey:v2:ws_1:keyspaces/ks_1#a",
            "Unkey:v1:ws_1:keyspaces/ks_1#a",
            "unkey:v1:ws_1#a",
            "unkey:v1:ws_1:#a",
            "unkey:v1:ws_1:/keyspaces#a",
            "unkey:v1:ws_1:keyspaces/#a",
            "unkey:v1:ws_1:keyspaces//ks_1#a",
            "unkey:v1:ws_1:keyspaces:ks_1#a",
            "unkey:v1:ws_1:keyspaces/ks_*#a",
            "unkey:v1:ws_1:keyspaces/***#a",
            "unkey:v1:ws_1:**/keys#a",
            "unkey:v1:ws_1:keyspaces/**/keys#a",
            "unkey:v1:ws_1:keyspaces/**#*",
            "unkey:v1:ws_1:keyspaces#a*",
            "unkey:v1:ws_1:keyspaces#a/b",
            "unkey:v1:ws_1:keyspaces#a:b",
            "unkey:v1:ws_1:keyspaces#_a",
            "unkey:v1:ws_1:keyspaces#a_",
        ] {
            assert_eq!(Urn::parse(other), None, "{other:?}");
        }
    }

    fn covers(grant: &str, path: &str, action: &str) -> bool {
        Urn::parse(&format!("unkey:v1:ws_1:{grant}")).expect("a URN").covers(path.split('/'), action)
    }

    /// PM-URN-03, PM-URN-04, PM-URN-08: the examples of the contract, one by one.
    #[test]
    fn wildcards_in_the_grant_cover_and_stars_in_the_requirement_are_literals() {
        let over = "ratelimits/namespaces/ns_1/overrides/ov_1";
        for (grant, path, action, wanted) in [
            ("keyspaces/*#a", "keyspaces/ks_1", "a", true),
            ("keyspaces/*#a", "keyspaces/ks_1/keys/key_1", "a", false),
            ("keyspaces/ks_1/**#a", "keyspaces/ks_1", "a", true),
            ("keyspaces/ks_1/**#a", "keyspaces/ks_1/keys/key_1", "a", true),
            ("keyspaces/ks_1/**#a", "keyspaces/ks_2", "a", false),
            ("keyspaces/ks_1/**#a", "keyspaces", "a", false),
            ("**#a", "keyspaces/ks_1/keys/key_1", "a", true),
            ("**#a", "keyspaces/ks_1/keys/key_1", "b", false),
            ("**#*", "keyspaces/ks_1/keys/key_1", "b", true),
            ("keyspaces/KS_1#a", "keyspaces/ks_1", "a", false),
            ("keyspaces/ks_1#A", "keyspaces/ks_1", "a", false),
            ("keyspaces/*/keys/key_1#a", "keyspaces/ks_1/keys/key_1", "a", true),
            ("projects/proj_1/identities/*#a", "projects/*/identities/*", "a", false),
            ("projects/*/identities/id_1#a", "projects/*/identities/*", "a", false),
            ("projects/*/identities/*#a", "projects/*/identities/*", "a", true),
            ("projects/**#a", "projects/*/identities/*", "a", true),
            ("keyspaces/ks_1/keys/key_1#a", "keyspaces/ks_1/keys/*", "a", false),
            ("keyspaces/ks_1/keys/*#a", "keyspaces/ks_1/keys/*", "a", true),
            ("ratelimits/namespaces/ns_1/overrides/ov_1#read_override", over, "read_override", true),
            ("ratelimits/namespaces/ns_1/overrides/*#read_override", over, "read_override", true),
            ("ratelimits/namespaces/ns_1/**#read_override", over, "read_override", true),
            ("ratelimits/**#read_override", over, "read_override", true),
            ("ratelimits/namespaces/*/overrides/*#read_override", over, "read_override", true),
            ("**#*", over, "read_override", true),
            ("ratelimits/namespaces/ns_2/**#read_override", over, "read_override", false),
            ("ratelimits/namespaces/ns_1/**#delete_override", over, "read_override", false),
        ] {
            assert_eq!(covers(grant, path, action), wanted, "{grant} for {path}#{action}");
        }
    }

    /// EXT-12: a root key hands out nothing wider than what it holds.
    #[test]
    fn a_grant_covers_no_wider_grant() {
        let urn = |text: &str| Urn::parse(&format!("unkey:v1:ws_1:{text}")).expect("a URN");
        for (held, given, wanted) in [
            ("keyspaces/*#a", "keyspaces/ks_1#a", true),
            ("keyspaces/*#a", "keyspaces/*#a", true),
            ("keyspaces/*#a", "keyspaces/**#a", false),
            ("keyspaces/**#a", "keyspaces/*#a", true),
            ("keyspaces/**#a", "keyspaces/**#a", true),
            ("keyspaces/**#a", "**#a", false),
            ("**#a", "**#*", false),
            ("**#*", "**#*", true),
            ("**#*", "keyspaces/**#a", true),
            ("keyspaces/ks_1#a", "keyspaces/*#a", false),
        ] {
            assert_eq!(urn(held).covers_grant(&urn(given)), wanted, "{held} gives {given}");
        }
        let elsewhere = Urn::parse("unkey:v1:ws_2:keyspaces/ks_1#a").expect("a URN");
        assert!(!urn("**#*").covers_grant(&elsewhere));
    }
}
