//! Columns of whatever Arrow types a file has, brought into the table's: the same values or a refusal, never a rounded
//! one.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::array_value_to_string;

use super::super::tables::Column;
use crate::sql::types::Type;

/// Why a value cannot be taken: its row in the array, from 0 on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub row: usize,
    pub reason: String,
}

/// Whether columns of this Arrow type can hold what the table's column holds. The refusal names both.
pub(super) fn fits(column: &Column, found: &DataType) -> Result<(), String> {
    let plain = plain(found);
    let taken = match &column.ty {
        Type::String => is_text(plain),
        Type::Array(_) => element(plain).is_some_and(|element| is_text(self::plain(element))),
        Type::Int64 if is_moment(column) => {
            // Fewer bits hold seconds, as some programs write times, but no milliseconds of this century.
            matches!(plain, DataType::Int64 | DataType::UInt64 | DataType::Timestamp(..)) || is_whole_decimal(plain)
        }
        Type::Int64 | Type::UInt64 => plain.is_integer() || is_whole_decimal(plain),
        // Integers of up to 32 bits are floats of 64 without loss, and a decimal is read as its digits would be.
        Type::Float64 => {
            plain.is_floating()
                || plain.is_decimal()
                || (plain.is_integer() && !matches!(plain, DataType::Int64 | DataType::UInt64))
        }
        // ClickHouse's UInt8 is what others have a Boolean for.
        Type::Bool => matches!(plain, DataType::Boolean) || plain.is_integer(),
        _ => false,
    };
    if taken {
        return Ok(());
    }
    let wanted = match &column.ty {
        Type::Int64 if is_moment(column) => "unix milliseconds, as integers of 64 bits, or timestamps",
        Type::Int64 | Type::UInt64 => "integers",
        Type::Float64 => "floating-point numbers",
        Type::Bool => "booleans, or integers that are 0 or 1",
        Type::Array(_) => "lists of texts",
        _ => "texts",
    };
    Err(format!("is of type {found}; {wanted} are expected"))
}

/// Brings a column that [`fits`] into the table's type.
pub(super) fn convert(column: &Column, found: &ArrayRef) -> Result<ArrayRef, Refused> {
    if let Some(nulls) = found.logical_nulls().filter(|nulls| nulls.null_count() > 0) {
        let row = (0..nulls.len()).find(|row| nulls.is_null(*row)).unwrap_or(0);
        return Err(Refused { row, reason: "is NULL, which no column of this table holds".to_owned() });
    }
    let unpacked = match found.data_type() {
        DataType::Dictionary(_, values) => cast(found, values).map_err(unforeseen)?,
        _ => Arc::clone(found),
    };
    match &column.ty {
        Type::String => texts(&unpacked),
        Type::Array(_) => lists(&unpacked, &column.ty),
        Type::Int64 if matches!(unpacked.data_type(), DataType::Timestamp(..)) => milliseconds(&unpacked),
        Type::Float64 => floats(&unpacked),
        Type::Bool if unpacked.data_type().is_integer() => flags(&unpacked),
        ty => exactly(&unpacked, ty),
    }
}

/// The type of the values, for a dictionary of them.
fn plain(found: &DataType) -> &DataType {
    match found {
        DataType::Dictionary(_, values) => values,
        other => other,
    }
}

/// Texts, or bytes that may be some: not every program that writes Parquet marks its texts.
fn is_text(found: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(found, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

fn element(found: &DataType) -> Option<&DataType> {
    match found {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

fn is_whole_decimal(found: &DataType) -> bool {
    use DataType::{Decimal32, Decimal64, Decimal128, Decimal256};
    matches!(found, Decimal32(_, 0) | Decimal64(_, 0) | Decimal128(_, 0) | Decimal256(_, 0))
}

/// Whether the column holds unix milliseconds.
fn is_moment(column: &Column) -> bool {
    matches!(column.name, "time" | "reset_at")
}

/// A conversion that [`fits`] has allowed and Arrow does not know: nothing a row is to blame for.
fn unforeseen(error: ArrowError) -> Refused {
    Refused { row: 0, reason: format!("cannot be converted: {error}") }
}

fn texts(found: &ArrayRef) -> Result<ArrayRef, Refused> {
    if found.data_type().is_string() {
        return cast(found, &DataType::Utf8View).map_err(unforeseen);
    }
    // Bytes that are no text become NULL.
    let texts = cast(found, &DataType::Utf8View).map_err(unforeseen)?;
    no_new_null(&texts, |_| "is not UTF-8".to_owned())?;
    Ok(texts)
}

fn lists(found: &ArrayRef, ty: &Type) -> Result<ArrayRef, Refused> {
    let converted = cast(found, &ty.arrow()).map_err(unforeseen)?;
    let lists = converted.as_list::<i32>();
    if lists.values().null_count() > 0
        && let Some(row) = (0..lists.len()).find(|row| lists.value(*row).null_count() > 0)
    {
        return Err(Refused { row, reason: "holds a NULL or bytes that are not UTF-8".to_owned() });
    }
    Ok(converted)
}

/// The millisecond that a moment lies in.
fn milliseconds(found: &ArrayRef) -> Result<ArrayRef, Refused> {
    let DataType::Timestamp(unit, _) = found.data_type() else {
        return Err(Refused { row: 0, reason: "is no timestamp".to_owned() });
    };
    let unit = *unit;
    let ticks = cast(found, &DataType::Int64).map_err(unforeseen)?;
    let ticks = ticks.as_primitive::<Int64Type>();
    let mut moments = Vec::with_capacity(ticks.len());
    for (row, ticks) in ticks.values().iter().enumerate() {
        let moment = match unit {
            TimeUnit::Second => ticks.checked_mul(1_000),
            TimeUnit::Millisecond => Some(*ticks),
            TimeUnit::Microsecond => Some(ticks.div_euclid(1_000)),
            TimeUnit::Nanosecond => Some(ticks.div_euclid(1_000_000)),
        };
        moments.push(moment.ok_or_else(|| Refused { row, reason: format!("{ticks} seconds are out of range") })?);
    }
    Ok(Arc::new(Int64Array::from(moments)))
}

fn floats(found: &ArrayRef) -> Result<ArrayRef, Refused> {
    cast(found, &DataType::Float64).map_err(unforeseen)
}

/// 0 and 1, and nothing else.
fn flags(found: &ArrayRef) -> Result<ArrayRef, Refused> {
    let numbers = cast(found, &DataType::Int64).map_err(unforeseen)?;
    let numbers = numbers.as_primitive::<Int64Type>();
    let other = (0..numbers.len()).find(|&row| numbers.is_null(row) || !(0..=1).contains(&numbers.value(row)));
    if let Some(row) = other {
        let value = array_value_to_string(found, row).unwrap_or_default();
        return Err(Refused { row, reason: format!("{value} is neither 0 nor 1") });
    }
    Ok(Arc::new(numbers.values().iter().map(|number| Some(*number == 1)).collect::<BooleanArray>()))
}

/// A cast that changes no value.
fn exactly(found: &ArrayRef, ty: &Type) -> Result<ArrayRef, Refused> {
    let safe = CastOptions { safe: true, ..CastOptions::default() };
    let converted = cast_with_options(found, &ty.arrow(), &safe).map_err(unforeseen)?;
    no_new_null(&converted, |row| {
        let value = array_value_to_string(found, row).unwrap_or_default();
        format!("{value} is out of the range of {ty}")
    })?;
    Ok(converted)
}

/// Refuses the first value that a conversion has lost.
fn no_new_null(converted: &ArrayRef, reason: impl FnOnce(usize) -> String) -> Result<(), Refused> {
    if converted.null_count() == 0 {
        return Ok(());
    }
    let lost: BooleanArray = (0..converted.len()).map(|row| Some(converted.is_null(row))).collect();
    let row = lost.values().set_indices().next().unwrap_or(0);
    Err(Refused { row, reason: reason(row) })
}
