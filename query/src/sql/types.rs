//! ClickHouse's types, as far as a query can meet them, and how Arrow holds each.
//!
//! DataFusion plans over Arrow types; a query means ClickHouse types, which tell more apart (a Bool from a comparison's
//! UInt8, a DateTime from a DateTime64, a NULL-able value from one that has a default). The binder types every expression
//! itself and hands DataFusion expressions whose Arrow types are already the right ones, so that no coercion of
//! DataFusion's ever decides what a query means.

use std::fmt;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};

/// A unit of INTERVAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    /// 10^-9 s.
    Nanosecond,
    /// 10^-6 s.
    Microsecond,
    /// 10^-3 s.
    Millisecond,
    /// One second.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
    /// A calendar day of the value's time zone.
    Day,
    /// Seven days.
    Week,
    /// A calendar month, clamped to its end (AN-TIME-07).
    Month,
    /// Three months.
    Quarter,
    /// Twelve months.
    Year,
}

/// The type of an expression.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Type {
    /// The type of a bare NULL. Arrow: Null.
    Nothing,
    /// `passed`, `true`, `false`. Arrow: Boolean.
    Bool,
    /// Also what comparisons give (AN-JSON-04).
    UInt8,
    /// 16 bits.
    UInt16,
    /// 32 bits.
    UInt32,
    /// 64 bits.
    UInt64,
    /// 8 bits.
    Int8,
    /// 16 bits.
    Int16,
    /// 32 bits.
    Int32,
    /// 64 bits.
    Int64,
    /// Only through CAST.
    Float32,
    /// 64 bits.
    Float64,
    /// Precision and scale: the difference of two DateTime64, or CAST. Arrow: Decimal128.
    Decimal(u8, i8),
    /// Bytes, nearly always UTF-8. Arrow: Utf8View.
    String,
    /// Days. Arrow: Date32.
    Date,
    /// Whole seconds, shown in a time zone (UTC where none). Arrow: Timestamp(Second), without a zone.
    DateTime(Option<Tz>),
    /// 10^-p seconds, p from 0 to 9. Arrow: Timestamp without a zone in the coarsest unit that holds p digits
    /// (see [`Type::arrow`]); digits beyond p are zero.
    DateTime64(u8, Option<Tz>),
    /// A count of units. Arrow: Int64.
    Interval(Unit),
    /// Only on the left of IN, in IN's list, and in CASTs' way: never a column. Arrow: Struct of `1`, `2`, ...
    Tuple(Vec<Type>),
    /// Arrow: List of the element's type, its field called `item` and nullable.
    Array(Box<Type>),
    /// A value that may be NULL. Never nested, never around Array, Tuple or Nothing.
    Nullable(Box<Type>),
}

impl Type {
    /// How Arrow holds values of this type.
    pub fn arrow(&self) -> DataType {
        match self {
            Type::Nothing => DataType::Null,
            Type::Bool => DataType::Boolean,
            Type::UInt8 => DataType::UInt8,
            Type::UInt16 => DataType::UInt16,
            Type::UInt32 => DataType::UInt32,
            Type::UInt64 => DataType::UInt64,
            Type::Int8 => DataType::Int8,
            Type::Int16 => DataType::Int16,
            Type::Int32 => DataType::Int32,
            Type::Int64 | Type::Interval(_) => DataType::Int64,
            Type::Float32 => DataType::Float32,
            Type::Float64 => DataType::Float64,
            Type::Decimal(precision, scale) => DataType::Decimal128(*precision, *scale),
            Type::String => DataType::Utf8View,
            Type::Date => DataType::Date32,
            Type::DateTime(_) => DataType::Timestamp(TimeUnit::Second, None),
            Type::DateTime64(precision, _) => DataType::Timestamp(time_unit(*precision), None),
            Type::Tuple(members) => DataType::Struct(
                members.iter().enumerate().map(|(at, member)| member.field((at + 1).to_string())).collect(),
            ),
            Type::Array(element) => DataType::List(Arc::new(element.field("item"))),
            Type::Nullable(inner) => inner.arrow(),
        }
    }

    /// A nullable Arrow field of this type. Arrow's own nullability is not what tells NULL-able types apart here: outer
    /// joins and empty aggregates make NULLs that defaults then replace.
    pub fn field(&self, name: impl Into<String>) -> Field {
        Field::new(name, self.arrow(), true)
    }

    /// The type without `Nullable`.
    pub fn inner(&self) -> &Type {
        match self {
            Type::Nullable(inner) => inner,
            other => other,
        }
    }

    /// Whether a value may be NULL.
    pub fn is_nullable(&self) -> bool {
        matches!(self, Type::Nullable(_) | Type::Nothing)
    }

    /// The type made NULL-able; an Array, a Tuple and Nothing stay as they are.
    #[must_use]
    pub fn nullable(self) -> Type {
        match self {
            Type::Nullable(_) | Type::Nothing | Type::Array(_) | Type::Tuple(_) => self,
            other => Type::Nullable(Box::new(other)),
        }
    }

    /// This type, NULL-able where `other` is.
    #[must_use]
    pub fn nullable_as(self, other: &Type) -> Type {
        if other.is_nullable() { self.nullable() } else { self }
    }

    /// Whether it is a signed or unsigned integer; not Bool, not an interval.
    pub fn is_integer(&self) -> bool {
        self.is_signed() || self.is_unsigned()
    }

    /// Int8 to Int64.
    pub fn is_signed(&self) -> bool {
        matches!(self, Type::Int8 | Type::Int16 | Type::Int32 | Type::Int64)
    }

    /// UInt8 to UInt64.
    pub fn is_unsigned(&self) -> bool {
        matches!(self, Type::UInt8 | Type::UInt16 | Type::UInt32 | Type::UInt64)
    }

    /// Float32 or Float64.
    pub fn is_float(&self) -> bool {
        matches!(self, Type::Float32 | Type::Float64)
    }

    /// Integers, floats, decimals and Bool, which ClickHouse counts with as a UInt8.
    pub fn is_number(&self) -> bool {
        self.is_integer() || self.is_float() || matches!(self, Type::Bool | Type::Decimal(..))
    }

    /// Date, DateTime or DateTime64.
    pub fn is_time(&self) -> bool {
        matches!(self, Type::Date | Type::DateTime(_) | Type::DateTime64(..))
    }
}

/// The coarsest of Arrow's units that holds `precision` digits below the second.
pub fn time_unit(precision: u8) -> TimeUnit {
    match precision {
        0 => TimeUnit::Second,
        1..=3 => TimeUnit::Millisecond,
        4..=6 => TimeUnit::Microsecond,
        _ => TimeUnit::Nanosecond,
    }
}

/// How many ticks of [`time_unit`] a second of a DateTime64 of this precision has.
pub fn ticks_per_second(precision: u8) -> i64 {
    match time_unit(precision) {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

/// How many of those ticks the last digit of this precision is worth: DateTime64(1) moves in steps of 100 ms.
pub fn grain(precision: u8) -> i64 {
    ticks_per_second(precision) / 10i64.pow(u32::from(precision.min(9)))
}

/// The type's name in ClickHouse, for messages.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Decimal(precision, scale) => write!(f, "Decimal({precision}, {scale})"),
            Type::DateTime(Some(zone)) => write!(f, "DateTime('{zone}')"),
            Type::DateTime(None) => f.write_str("DateTime"),
            Type::DateTime64(precision, Some(zone)) => write!(f, "DateTime64({precision}, '{zone}')"),
            Type::DateTime64(precision, None) => write!(f, "DateTime64({precision})"),
            Type::Interval(unit) => write!(f, "Interval{unit:?}"),
            Type::Tuple(members) => {
                f.write_str("Tuple(")?;
                for (at, member) in members.iter().enumerate() {
                    write!(f, "{}{member}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str(")")
            }
            Type::Array(element) => write!(f, "Array({element})"),
            Type::Nullable(inner) => write!(f, "Nullable({inner})"),
            plain => write!(f, "{plain:?}"),
        }
    }
}
