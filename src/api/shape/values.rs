//! Numbers, lists, and the three ways of not having a value.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};
use serde_json::Map;

use super::make_nullable;

/// An integer of `MIN` to `MAX`. `10.0`, `1e1`, `-0` and whatever does not fit 64 bits are refused (COM-BODY-06).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Int<const MIN: i64, const MAX: i64>(i64);

impl<const MIN: i64, const MAX: i64> Int<MIN, MAX> {
    /// The number.
    pub fn get(self) -> i64 {
        self.0
    }

    /// The number, of a type whose range does not take negative ones. A negative one, where `MIN` allows it, reads as
    /// 0.
    pub fn get_unsigned(self) -> u64 {
        u64::try_from(self.0).unwrap_or(0)
    }
}

impl<const MIN: i64, const MAX: i64> TryFrom<i64> for Int<MIN, MAX> {
    type Error = String;

    fn try_from(number: i64) -> Result<Self, String> {
        let fits = (MIN..=MAX).contains(&number);
        fits.then_some(Int(number)).ok_or_else(|| format!("{number} is not between {MIN} and {MAX}"))
    }
}

impl<const MIN: i64, const MAX: i64> From<Int<MIN, MAX>> for i64 {
    fn from(number: Int<MIN, MAX>) -> i64 {
        number.0
    }
}

impl<'de, const MIN: i64, const MAX: i64> Deserialize<'de> for Int<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IntVisitor<const MIN: i64, const MAX: i64>;

        impl<const MIN: i64, const MAX: i64> Visitor<'_> for IntVisitor<MIN, MAX> {
            type Value = Int<MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an integer from {MIN} to {MAX}")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                Int::try_from(number).map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                let number = i64::try_from(number)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &"an integer of 64 bits"))?;
                self.visit_i64(number)
            }
        }

        deserializer.deserialize_i64(IntVisitor)
    }
}

impl<const MIN: i64, const MAX: i64> JsonSchema for Int<MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Int".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut schema = Map::new();
        schema.insert("type".into(), "integer".into());
        schema.insert("format".into(), "int64".into());
        // The ends of 64 bits say nothing that the format does not say.
        if MIN > i64::MIN {
            schema.insert("minimum".into(), MIN.into());
        }
        if MAX < i64::MAX {
            schema.insert("maximum".into(), MAX.into());
        }
        schema.into()
    }
}

/// A list of `MIN` to `MAX` elements. Reading stops at the first element too many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T, const MIN: usize, const MAX: usize>(Vec<T>);

impl<T, const MIN: usize, const MAX: usize> List<T, MIN, MAX> {
    /// The elements, owned.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T, const MIN: usize, const MAX: usize> Deref for List<T, MIN, MAX> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const MIN: usize, const MAX: usize> IntoIterator for List<T, MIN, MAX> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const MIN: usize, const MAX: usize> IntoIterator for &'a List<T, MIN, MAX> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>, const MIN: usize, const MAX: usize> Deserialize<'de> for List<T, MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor<T, const MIN: usize, const MAX: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MIN: usize, const MAX: usize> Visitor<'de> for ListVisitor<T, MIN, MAX> {
            type Value = List<T, MIN, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an array of {MIN} to {MAX} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = elements.next_element()? {
                    if list.len() == MAX {
                        return Err(A::Error::invalid_length(MAX.saturating_add(1), &self));
                    }
                    list.push(element);
                }
                if list.len() < MIN { Err(A::Error::invalid_length(list.len(), &self)) } else { Ok(List(list)) }
            }
        }

        deserializer.deserialize_seq(ListVisitor(PhantomData))
    }
}

impl<T: JsonSchema, const MIN: usize, const MAX: usize> JsonSchema for List<T, MIN, MAX> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("List_of_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Map::new();
        schema.insert("type".into(), "array".into());
        if MIN > 0 {
            schema.insert("minItems".into(), MIN.into());
        }
        if MAX < usize::MAX {
            schema.insert("maxItems".into(), MAX.into());
        }
        schema.insert("items".into(), generator.subschema_for::<T>().to_value());
        schema.into()
    }
}

/// A member that may be absent and may not be `null` (COM-BODY-05). Always with `#[serde(default)]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opt<T>(pub Option<T>);

impl<T> Opt<T> {
    /// The value by reference, where there is one.
    pub fn as_ref(&self) -> Option<&T> {
        self.0.as_ref()
    }

    /// The value, or another one.
    pub fn unwrap_or(self, other: T) -> T {
        self.0.unwrap_or(other)
    }

    /// The value, or the type's default.
    pub fn unwrap_or_default(self) -> T
    where
        T: Default,
    {
        self.0.unwrap_or_default()
    }

    /// Turns the value into something else, where there is one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Option<U> {
        self.0.map(change)
    }

    /// Turns the value into something else, or takes another one.
    pub fn map_or<U>(self, other: U, change: impl FnOnce(T) -> U) -> U {
        self.0.map_or(other, change)
    }

    /// Whether there is a value.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl<T: Deref> Opt<T> {
    /// What the value points to, where there is one.
    pub fn as_deref(&self) -> Option<&T::Target> {
        self.0.as_deref()
    }
}

impl<T> Default for Opt<T> {
    fn default() -> Self {
        Opt(None)
    }
}

impl<T> From<Opt<T>> for Option<T> {
    fn from(opt: Opt<T>) -> Option<T> {
        opt.0
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Opt<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(|value| Opt(Some(value)))
    }
}

impl<T: JsonSchema> JsonSchema for Opt<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// A member of an update: absent keeps, `null` clears, a value sets. Always with `#[serde(default)]`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The member is absent.
    #[default]
    Keep,
    /// The member is `null`.
    Clear,
    /// The member has a value.
    Set(T),
}

impl<T> Patch<T> {
    /// Turns the value into something else, where there is one.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Patch<U> {
        match self {
            Patch::Keep => Patch::Keep,
            Patch::Clear => Patch::Clear,
            Patch::Set(value) => Patch::Set(change(value)),
        }
    }

    /// What becomes of `current` when the patch is applied.
    pub fn apply(self, current: Option<T>) -> Option<T> {
        match self {
            Patch::Keep => current,
            Patch::Clear => None,
            Patch::Set(value) => Some(value),
        }
    }

    /// Whether the member is absent.
    pub fn is_keep(&self) -> bool {
        matches!(self, Patch::Keep)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|value| match value {
            None => Patch::Clear,
            Some(value) => Patch::Set(value),
        })
    }
}

impl<T: JsonSchema> JsonSchema for Patch<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Nullable_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator);
        make_nullable(schema.ensure_object());
        schema
    }
}

/// A member that must be there and may be `null`, such as `credits.remaining` (KEYS-OBJ-4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Null<T>(pub Option<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Null<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NullVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for NullVisitor<T> {
            type Value = Null<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or null")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                Option::deserialize(deserializer).map(Null)
            }
        }

        // Asking for an option here would make an absent member read as null: that is what the derive answers for a
        // missing member whose type asks for an option. Behind a newtype the question is put to a member that is there.
        deserializer.deserialize_newtype_struct("Null", NullVisitor(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Null<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Patch::<T>::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Patch::<T>::json_schema(generator)
    }
}

// COM-ENV-05.
/// The answer of an operation that has nothing to tell: `"data": {}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Empty {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize, Debug, PartialEq)]
    struct Ask {
        #[serde(default)]
        opt: Opt<Int<1, 5>>,
        #[serde(default)]
        patch: Patch<Int<1, 5>>,
        null: Null<Int<1, 5>>,
    }

    /// COM-BODY-05: absent, null and a value are three things, and which of them are taken is the type's choice.
    #[test]
    fn absent_and_null_are_different() {
        let ask = |body: &str| serde_json::from_str::<Ask>(body).map_err(|error| error.to_string());
        let values = ask(r#"{"opt":1,"patch":2,"null":3}"#).expect("all have values");
        assert_eq!(values, Ask { opt: Opt(Some(Int(1))), patch: Patch::Set(Int(2)), null: Null(Some(Int(3))) });
        let nulls = ask(r#"{"patch":null,"null":null}"#).expect("two may be null, one absent");
        assert_eq!(nulls, Ask { opt: Opt(None), patch: Patch::Clear, null: Null(None) });
        assert_eq!(ask(r#"{"null":null}"#).expect("two may be absent").patch, Patch::Keep);
        assert!(ask(r#"{"opt":null,"null":null}"#).is_err(), "an Opt takes no null");
        assert!(ask("{}").is_err(), "a Null is not absent");
    }

    /// COM-BODY-06: what is not an integer of 64 bits as written is refused.
    #[test]
    fn integers_are_exact() {
        let parse = |text: &str| serde_json::from_str::<Int<{ i64::MIN }, { i64::MAX }>>(text).ok().map(Int::get);
        for (text, wanted) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("1.0", None),
            ("1e1", None),
            ("-0", None),
            ("\"1\"", None),
            ("null", None),
            ("true", None),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
    }

    /// A list is bounded on both sides.
    #[test]
    fn lists_are_bounded() {
        let parse = |text: &str| serde_json::from_str::<List<i64, 1, 3>>(text).ok().map(List::into_vec);
        assert_eq!(parse("[]"), None);
        assert_eq!(parse("[1]"), Some(vec![1]));
        assert_eq!(parse("[1,2,3]"), Some(vec![1, 2, 3]));
        assert_eq!(parse("[1,2,3,4]"), None);
        assert_eq!(parse("{}"), None);
    }
}
