//! The vocabulary of ids: a prefix that names the kind and sixteen random characters.
//!
//! Ids are opaque to clients (IDS-1). Inside, the random part has a fixed width, so that an id is a small value that is
//! copied, compared and stored as part of a row key without an allocation.

use std::fmt;

/// Random characters in an id, drawn from `A-Z a-z 0-9`: 95 bits.
pub const ID_RANDOM_CHARS: usize = 16;

/// The alphabet of the random part (IDS-1).
pub const ID_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// The sixteen random characters of an id, without its prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdText([u8; ID_RANDOM_CHARS]);

impl IdText {
    /// Turns sixteen random bytes per character source into id characters.
    ///
    /// `next` hands out random bytes; a byte of 248 or more is drawn again, so that every character is equally likely.
    pub fn draw(mut next: impl FnMut() -> u8) -> IdText {
        let mut text = [0u8; ID_RANDOM_CHARS];
        for slot in &mut text {
            *slot = loop {
                let byte = next();
                if byte < 248 {
                    break ID_ALPHABET[usize::from(byte % 62)];
                }
            };
        }
        IdText(text)
    }

    /// Reads the stored form; `None` where a byte is outside the alphabet.
    pub fn from_bytes(bytes: [u8; ID_RANDOM_CHARS]) -> Option<IdText> {
        bytes.iter().all(u8::is_ascii_alphanumeric).then_some(IdText(bytes))
    }

    /// The stored form: the characters themselves.
    pub fn as_bytes(&self) -> &[u8; ID_RANDOM_CHARS] {
        &self.0
    }

    /// The characters as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the alphabet of ids is ASCII")
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub IdText);

        impl $name {
            /// What the id begins with, its underscore included.
            pub const PREFIX: &'static str = $prefix;

            /// Reads an id as a client sends it; `None` for anything that cannot be an id of this kind (IDS-4: such a
            /// string is simply not found).
            pub fn parse(text: &str) -> Option<$name> {
                let random = text.strip_prefix($prefix)?;
                IdText::from_bytes(random.as_bytes().try_into().ok()?).map($name)
            }

            /// The id as clients write it, held in place: no allocation.
            pub fn spell(&self) -> Spelled {
                Spelled::new($prefix, &self.0)
            }

            /// The random part's bytes, as row keys hold them.
            pub fn as_bytes(&self) -> &[u8; ID_RANDOM_CHARS] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(self.0.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// A workspace: the tenant everything else belongs to.
    WorkspaceId = "ws_";
    /// An API: a named container of keys.
    ApiId = "api_";
    /// The key space of an API, one to one, for life.
    KeyspaceId = "ks_";
    /// A key, root keys included.
    KeyId = "key_";
    /// An identity: one end user or tenant of the customer.
    IdentityId = "id_";
    /// A role.
    RoleId = "role_";
    /// A permission.
    PermissionId = "perm_";
    /// A rate limit that hangs on a key or an identity.
    RatelimitId = "rl_";
    /// A migration: what keys of another system were taken over by.
    MigrationId = "mig_";
    /// A rate-limit namespace.
    NamespaceId = "rlns_";
    /// An override in a rate-limit namespace.
    OverrideId = "rlor_";
    /// A data key of a workspace: what its recoverable keys are encrypted under (never on the wire of the API).
    DataKeyId = "dek_";
    /// An audit event.
    EventId = "log_";
    /// What ties the audit events of one user action together.
    CorrelationId = "cor_";
}

impl fmt::Debug for IdText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An id as text, prefix and all, held in place.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spelled {
    bytes: [u8; 24],
    length: u8,
}

impl Spelled {
    fn new(prefix: &str, text: &IdText) -> Spelled {
        let mut bytes = [0; 24];
        let length = prefix.len() + ID_RANDOM_CHARS;
        bytes[..prefix.len()].copy_from_slice(prefix.as_bytes());
        bytes[prefix.len()..length].copy_from_slice(text.as_bytes());
        Spelled { bytes, length: u8::try_from(length).expect("at most 24") }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).expect("prefixes and alphabet are ASCII")
    }
}

impl std::ops::Deref for Spelled {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Display for Spelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// The short number of a workspace: what row keys and hot entries hold instead of its id. Given out in order from 1 and
/// never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkspaceNo(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    /// IDS-2, IDS-4: an id reads back as itself; another prefix, length or character is no id of the kind.
    #[test]
    fn only_its_own_spelling_is_an_id() {
        let mut byte = 0u8;
        let id = KeyId(IdText::draw(|| {
            byte = byte.wrapping_add(97);
            byte
        }));
        let text = id.to_string();
        assert_eq!(KeyId::parse(&text), Some(id));
        for wrong in ["", "key_", "key_short", &text[1..], &format!("{text}x"), &text.replace("key_", "api_")] {
            assert_eq!(KeyId::parse(wrong), None, "{wrong}");
        }
        assert_eq!(KeyId::parse("key_aaaaaaaa-aaaaaaa"), None);
    }
}
