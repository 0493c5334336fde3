//! What commands take as arguments: types that cannot hold what is not allowed, whether it was typed in a shell or came
//! over the operator's socket. Both ways go through the same check.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::api::audit_event::OPERATOR;
pub use crate::tenants::{NAME_CHARS_MAX, PERMISSION_CHARS_MAX, PERMISSIONS_MAX, TIME_MAX};

/// Characters of a slug.
pub const SLUG_CHARS_MAX: usize = 64;

/// A checked text: one type a meaning.
macro_rules! text {
    ($($(#[$doc:meta])* $name:ident by $check:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn into_text(self) -> String {
                self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                $check(&text)?;
                Ok($name(text))
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }

        impl FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                text.to_owned().try_into()
            }
        }
    )*};
}

text! {
    /// A name for people: 1 to [`NAME_CHARS_MAX`] characters.
    Name by check_name;
    /// A short unique name of a workspace that can be typed: 1 to [`SLUG_CHARS_MAX`] lower-case letters, digits, `-` and
    /// `_`, beginning with a letter or digit. It cannot be mistaken for a workspace's id.
    Slug by check_slug;
    /// A permission of a root key, in whatever notation: 1 to [`PERMISSION_CHARS_MAX`] characters. Strings that are
    /// neither tuples nor resource names are legal, too (PM-TUP-03, PM-URN-07).
    Permission by check_permission;
}

fn bounded(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.chars().count() > most {
        return Err(format!("{what} has 1 to {most} characters"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{what} has no control characters"));
    }
    Ok(())
}

fn check_name(text: &str) -> Result<(), String> {
    bounded("a name", text, NAME_CHARS_MAX)?;
    if text.trim().is_empty() { Err("a name is more than white space".to_owned()) } else { Ok(()) }
}

fn check_slug(text: &str) -> Result<(), String> {
    bounded("a slug", text, SLUG_CHARS_MAX)?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(plain) || !text.chars().all(|c| plain(c) || matches!(c, '-' | '_')) {
        return Err("a slug has lower-case letters, digits, `-` and `_`, and begins with a letter or digit".to_owned());
    }
    if text == OPERATOR {
        return Err(format!("a slug is not `{OPERATOR}`, which stands for the server's own audit events"));
    }
    if text.starts_with("ws_") {
        return Err("a slug does not begin with ws_, which ids do".to_owned());
    }
    Ok(())
}

fn check_permission(text: &str) -> Result<(), String> {
    bounded("a permission", text, PERMISSION_CHARS_MAX)
}

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number, for a `MAX` that fits.
    pub fn small(self) -> u32 {
        const { assert!(MAX <= u32::MAX as u64) }
        u32::try_from(self.0).expect("the type's own bound was just checked")
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Whole<MIN, MAX> {
    type Error = String;
    fn try_from(number: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&number) { Ok(Whole(number)) } else { Err(format!("must be from {MIN} to {MAX}")) }
    }
}

impl<const MIN: u64, const MAX: u64> From<Whole<MIN, MAX>> for u64 {
    fn from(number: Whole<MIN, MAX>) -> u64 {
        number.0
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Whole<MIN, MAX> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("must be a whole number from {MIN} to {MAX}")).and_then(u64::try_into)
    }
}

/// A moment, Unix ms.
pub type Time = Whole<0, TIME_MAX>;

/// A value, or the word `none` for the absence of one; on the socket that word is `null`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrNone<T>(pub Option<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for OrNone<T> {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(OrNone(None)),
            text => text.parse().map(|value| OrNone(Some(value))).map_err(|error| format!("{error}, or `none`")),
        }
    }
}

/// Reads an optional member whose `null` is a value. Absence is left to `#[serde(default)]`.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses<T: FromStr + for<'de> Deserialize<'de>>(text: &str) -> bool {
        let typed = text.parse::<T>().is_err();
        let sent = serde_json::from_value::<T>(text.into()).is_err();
        assert_eq!(typed, sent, "{text:?} is judged alike wherever it comes from");
        typed
    }

    /// What no command may bring into the records is refused before a command runs.
    #[test]
    fn values_are_bounded_wherever_they_come_from() {
        let long = |chars| "ä".repeat(chars);
        assert!(!refuses::<Name>(&long(255)) && refuses::<Name>(&long(256)));
        assert!(
            refuses::<Name>("") && refuses::<Name>("  ") && refuses::<Name>("a\u{1b}[2J") && !refuses::<Name>("a b")
        );
        assert!(!refuses::<Permission>(&long(512)) && refuses::<Permission>(&long(513)) && refuses::<Permission>(""));
        for legal in ["api.*.create_key", "unkey:v1:ws_1:**#*", "unkey:v1:ws_1:keyspaces//x#a", "*", "whatever else"] {
            assert!(!refuses::<Permission>(legal), "PM-TUP-03, PM-URN-07: {legal}");
        }
        for slug in ["a", "acme", "acme-2_x", "0"] {
            assert!(!refuses::<Slug>(slug), "{slug}");
        }
        for slug in ["", "-a", "Acme", "a.b", "ws_acme", "é", &"a".repeat(65)] {
            assert!(refuses::<Slug>(slug), "{slug}");
        }
        type Days = Whole<1, 36_500>;
        assert_eq!("90".parse::<Days>().map(Whole::small), Ok(90));
        for wrong in ["0", "36501", "-1", "1.5", "", "none"] {
            assert!(wrong.parse::<Days>().is_err(), "{wrong}");
        }
        assert_eq!("none".parse::<OrNone<Days>>(), Ok(OrNone(None)));
        assert_eq!("7".parse::<OrNone<Days>>().map(|days| days.0.map(Whole::get)), Ok(Some(7)));
        assert!("null".parse::<OrNone<Days>>().is_err());
    }
}
