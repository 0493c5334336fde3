//! Strings: bounded in code points, of a set of characters, secret or not.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::REDACT_KEYWORD;

/// Which characters a [`Text`] may hold.
pub trait Charset: 'static + Copy + fmt::Debug + Ord + Hash + Send + Sync {
    /// The pattern as the schema has it; `None` where anything goes.
    const PATTERN: Option<&'static str>;

    /// Whether the text matches the pattern.
    fn holds(text: &str) -> bool;
}

/// Any characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Anything;

impl Charset for Anything {
    const PATTERN: Option<&'static str> = None;

    fn holds(_: &str) -> bool {
        true
    }
}

/// Sets of characters that have letters, digits, the underscore and a few more, and the table in which a walk of a
/// schema finds them by their pattern.
macro_rules! charsets {
    ($($(#[$doc:meta])* $name:ident $pattern:literal also $more:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name;

            impl Charset for $name {
                const PATTERN: Option<&'static str> = Some($pattern);

                fn holds(text: &str) -> bool {
                    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || $more.contains(&byte);
                    !text.is_empty() && text.bytes().all(is_one)
                }
            }
        )*

        /// The check that belongs to a pattern of a schema; `None` for a pattern that no [`Charset`] has.
        pub fn pattern(pattern: &str) -> Option<fn(&str) -> bool> {
            match pattern {
                $($pattern => Some($name::holds),)*
                _ => None,
            }
        }
    };
}

charsets! {
    /// Ids and key prefixes: letters, digits and underscores.
    WordChars "^[a-zA-Z0-9_]+$" also b"";
    /// External ids: letters, digits, underscores, dots and hyphens.
    ExternalChars "^[a-zA-Z0-9_.-]+$" also b".-";
    /// Slugs of permissions: letters, digits and `_:-.*`.
    SlugChars r"^[a-zA-Z0-9_:\-\.\*]+$" also b":-.*";
    /// An id or a slug: letters, digits, underscores and hyphens.
    ResourceChars "^[a-zA-Z0-9_-]+$" also b"-";
}

/// A string of `MIN` to `MAX` code points (COM-BODY-04) of the characters `C`.
///
/// `usize::MAX` means no upper bound but the body's. A string with a lone surrogate (`"\ud800"`) is refused: it is no
/// text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text<const MIN: usize, const MAX: usize, C: Charset = Anything> {
    text: String,
    charset: PhantomData<C>,
}

/// An id of letters, digits and underscores.
pub type Ident<const MIN: usize, const MAX: usize> = Text<MIN, MAX, WordChars>;

/// An external id (KEYS-OBJ-6).
pub type ExternalId = Text<1, 255, ExternalChars>;

/// A permission's slug (KEYS-GEN-16).
pub type Slug = Text<1, 128, SlugChars>;

/// The prefix of keys (KEYFMT-4).
pub type Prefix = Text<1, 16, WordChars>;

/// An id or a slug of a resource.
pub type Resource = Text<3, 255, ResourceChars>;

impl<const MIN: usize, const MAX: usize, C: Charset> Text<MIN, MAX, C> {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, owned.
    pub fn into_string(self) -> String {
        self.text
    }

    fn check(text: &str) -> Result<(), TextError> {
        if !is_as_long_as(text, MIN, MAX) {
            Err(TextError::Length { min: MIN, max: MAX })
        } else if !C::holds(text) {
            Err(TextError::Pattern(C::PATTERN.unwrap_or_default()))
        } else {
            Ok(())
        }
    }
}

/// Whether the text has `min` to `max` code points. Counts only where the number of bytes does not decide.
fn is_as_long_as(text: &str, min: usize, max: usize) -> bool {
    let bytes = text.len();
    // A code point takes one to four bytes.
    if bytes < min || bytes.div_ceil(4) > max {
        return false;
    }
    if bytes.div_ceil(4) >= min && bytes <= max {
        return true;
    }
    let characters = text.chars().count();
    (min..=max).contains(&characters)
}

/// Why a string is refused. Clients read the walk's words instead; see `validate.rs`.
enum TextError {
    Length { min: usize, max: usize },
    Pattern(&'static str),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TextError::Length { min, max } => write!(f, "a string of {min} to {max} characters is wanted"),
            TextError::Pattern(pattern) => write!(f, "a string that matches {pattern} is wanted"),
        }
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> TryFrom<String> for Text<MIN, MAX, C> {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Self::check(&text) {
            Ok(()) => Ok(Text { text, charset: PhantomData }),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> Deref for Text<MIN, MAX, C> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> Borrow<str> for Text<MIN, MAX, C> {
    fn borrow(&self) -> &str {
        &self.text
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> AsRef<str> for Text<MIN, MAX, C> {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> fmt::Display for Text<MIN, MAX, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> From<Text<MIN, MAX, C>> for String {
    fn from(text: Text<MIN, MAX, C>) -> String {
        text.text
    }
}

impl<'de, const MIN: usize, const MAX: usize, C: Charset> Deserialize<'de> for Text<MIN, MAX, C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor<const MIN: usize, const MAX: usize, C>(PhantomData<C>);

        impl<const MIN: usize, const MAX: usize, C: Charset> Visitor<'_> for TextVisitor<MIN, MAX, C> {
            type Value = Text<MIN, MAX, C>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            /// Checks before it copies, so that an overlong string costs no allocation.
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Self::Value::check(text).map_err(E::custom)?;
                Ok(Text { text: text.to_owned(), charset: PhantomData })
            }
        }

        deserializer.deserialize_str(TextVisitor(PhantomData))
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> Serialize for Text<MIN, MAX, C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<const MIN: usize, const MAX: usize, C: Charset> JsonSchema for Text<MIN, MAX, C> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = Map::new();
        schema.insert("type".into(), "string".into());
        if MIN > 0 {
            schema.insert("minLength".into(), MIN.into());
        }
        if MAX < usize::MAX {
            schema.insert("maxLength".into(), MAX.into());
        }
        if let Some(pattern) = C::PATTERN {
            schema.insert("pattern".into(), pattern.into());
        }
        schema.into()
    }
}

/// A string of a request that must not be recorded or printed, such as a key to verify.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText<const MIN: usize, const MAX: usize>(Text<MIN, MAX>);

impl<const MIN: usize, const MAX: usize> SecretText<MIN, MAX> {
    /// The secret itself. The name is long so that it is seen in a review.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Debug for SecretText<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for SecretText<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Text::deserialize(deserializer).map(SecretText)
    }
}

impl<const MIN: usize, const MAX: usize> JsonSchema for SecretText<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Text::<MIN, MAX>::json_schema(generator);
        schema.insert(REDACT_KEYWORD.into(), Value::Bool(true));
        schema
    }
}

/// A secret in a response, such as the key that was just made: sent once, never recorded or printed, and wiped when it is
/// dropped.
#[derive(Clone, PartialEq, Eq, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret on its way to the client.
    pub fn new(secret: impl Into<String>) -> Secret {
        Secret(secret.into())
    }

    /// The secret itself.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[REDACTED]")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = Map::new();
        schema.insert("type".into(), "string".into());
        schema.insert(REDACT_KEYWORD.into(), Value::Bool(true));
        schema.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// COM-BODY-04: lengths count code points, at both bounds, whatever their width in bytes.
    #[test]
    fn lengths_count_code_points() {
        for character in ["a", "\u{e9}", "\u{20ac}", "\u{1f511}"] {
            for (count, wanted) in [(0, false), (2, false), (3, true), (5, true), (6, false)] {
                let text = character.repeat(count);
                assert_eq!(Text::<3, 5>::try_from(text.clone()).is_ok(), wanted, "{text}");
                assert_eq!(is_as_long_as(&text, 3, usize::MAX), count >= 3, "{text}");
                assert_eq!(is_as_long_as(&text, 0, 5), count <= 5, "{text}");
            }
        }
    }

    /// Each charset takes exactly the characters of its pattern, and the walk of a schema finds the same check.
    #[test]
    fn charsets_are_their_patterns() {
        fn check<C: Charset>(more: &str) {
            let holds = pattern(C::PATTERN.expect("it has one")).expect("it is in the table");
            for byte in 0..=u8::MAX {
                let text = char::from(byte).to_string();
                let wanted = byte.is_ascii_alphanumeric() || byte == b'_' || more.contains(char::from(byte));
                assert_eq!((C::holds(&text), holds(&text)), (wanted, wanted), "{text:?} in {:?}", C::PATTERN);
            }
            assert!(!C::holds("") && !C::holds("a\n") && !C::holds("\na"));
        }
        check::<WordChars>("");
        check::<ExternalChars>(".-");
        check::<SlugChars>(":-.*");
        check::<ResourceChars>("-");
        assert!(pattern("^anything else$").is_none());
    }

    /// A secret does not print itself, wherever it ends up.
    #[test]
    fn secrets_do_not_print_themselves() {
        let asked: SecretText<1, 512> = serde_json::from_str(r#""unkey_abc""#).expect("a string");
        let given = Secret::new("unkey_abc");
        assert_eq!(format!("{asked:?}{given:?}"), "[REDACTED][REDACTED]");
        assert_eq!(serde_json::to_string(&given).expect("a string"), r#""unkey_abc""#);
    }
}
