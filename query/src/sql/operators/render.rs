//! Values written as text, as `toString` and `concat` show them (AN-SEM-11).

use std::fmt::{Display, LowerExp, Write};
use std::str::FromStr;
use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::arrow::array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{ArrowPrimitiveType, DataType};
use datafusion::common::Result;

use super::super::types::{Type, ticks_per_second};
use super::calendar::{self, Clock, DAY_S};

/// Writes one row of a column behind what a text already holds; never asked for a row that is NULL.
pub type Writer<'a> = Box<dyn Fn(usize, &mut String) + 'a>;

/// A column as text.
pub fn text(column: &ArrayRef, ty: &Type) -> Result<ArrayRef> {
    let held = prepare(column, ty)?;
    let writer = writer(&held, ty)?;
    let mut built = StringViewBuilder::with_capacity(column.len());
    let mut row_text = String::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            built.append_null();
        } else {
            row_text.clear();
            writer(row, &mut row_text);
            built.append_value(&row_text);
        }
    }
    Ok(Arc::new(built.finish()))
}

/// A column in the form that [`writer`] reads: times as their ticks, everything else as it is.
pub fn prepare(column: &ArrayRef, ty: &Type) -> Result<ArrayRef> {
    Ok(match ty.inner() {
        Type::DateTime(_) | Type::DateTime64(..) => cast(column, &DataType::Int64)?,
        _ => Arc::clone(column),
    })
}

/// How rows of a prepared column are written.
pub fn writer<'a>(column: &'a ArrayRef, ty: &Type) -> Result<Writer<'a>> {
    Ok(match ty.inner() {
        Type::Nothing => Box::new(|_, text| text.push_str("NULL")),
        Type::Bool => {
            let values = column.as_boolean();
            Box::new(move |row, text| text.push_str(if values.value(row) { "true" } else { "false" }))
        }
        Type::UInt8 => integers::<UInt8Type>(column),
        Type::UInt16 => integers::<UInt16Type>(column),
        Type::UInt32 => integers::<UInt32Type>(column),
        Type::UInt64 => integers::<UInt64Type>(column),
        Type::Int8 => integers::<Int8Type>(column),
        Type::Int16 => integers::<Int16Type>(column),
        Type::Int32 => integers::<Int32Type>(column),
        Type::Int64 | Type::Interval(_) => integers::<Int64Type>(column),
        Type::Float32 => {
            let values = column.as_primitive::<Float32Type>();
            Box::new(move |row, text| float(values.value(row), text))
        }
        Type::Float64 => {
            let values = column.as_primitive::<Float64Type>();
            Box::new(move |row, text| float(values.value(row), text))
        }
        Type::Decimal(_, scale) => {
            let values = column.as_primitive::<Decimal128Type>();
            let scale = usize::try_from(*scale).unwrap_or(0);
            Box::new(move |row, text| decimal(values.value(row), scale, text))
        }
        Type::String => {
            let values = column.as_string_view();
            Box::new(move |row, text| text.push_str(values.value(row)))
        }
        Type::Date => {
            let values = column.as_primitive::<Date32Type>();
            Box::new(move |row, text| date(i64::from(values.value(row)), text))
        }
        Type::DateTime(zone) => times(column, 0, 1, *zone),
        Type::DateTime64(precision, zone) => times(column, *precision, ticks_per_second(*precision), *zone),
        Type::Array(element) => {
            let lists = column.as_list::<i32>();
            let element = element.as_ref().clone();
            let values = prepare(lists.values(), &element)?;
            Box::new(move |row, text| {
                let (from, to) = (lists.value_offsets()[row], lists.value_offsets()[row + 1]);
                text.push('[');
                // A prepared element column is owned by this closure, so its writer is made per row.
                if let Ok(write) = writer(&values, &element) {
                    for at in from..to {
                        if at > from {
                            text.push(',');
                        }
                        member(&values, &element, &write, at as usize, text);
                    }
                }
                text.push(']');
            })
        }
        Type::Tuple(members) => {
            let structs = column.as_struct();
            let columns = members
                .iter()
                .zip(structs.columns())
                .map(|(ty, column)| Ok((prepare(column, ty)?, ty.clone())))
                .collect::<Result<Vec<_>>>()?;
            Box::new(move |row, text| {
                text.push('(');
                for (at, (column, ty)) in columns.iter().enumerate() {
                    if at > 0 {
                        text.push(',');
                    }
                    if let Ok(write) = writer(column, ty) {
                        member(column, ty, &write, row, text);
                    }
                }
                text.push(')');
            })
        }
        Type::Nullable(_) => Box::new(|_, _| ()),
    })
}

/// An element of an array or a member of a tuple: NULL is a word, and text and times are quoted.
fn member(column: &ArrayRef, ty: &Type, write: &Writer<'_>, row: usize, text: &mut String) {
    if column.is_null(row) {
        text.push_str("NULL");
        return;
    }
    let quoted = matches!(ty.inner(), Type::String | Type::Date | Type::DateTime(_) | Type::DateTime64(..));
    if !quoted {
        write(row, text);
        return;
    }
    text.push('\'');
    let from = text.len();
    write(row, text);
    if *ty.inner() == Type::String && text[from..].contains(['\'', '\\', '\t', '\n', '\r', '\0', '\u{8}', '\u{c}']) {
        let raw = text.split_off(from);
        for c in raw.chars() {
            match c {
                '\'' => text.push_str("\\'"),
                '\\' => text.push_str("\\\\"),
                '\t' => text.push_str("\\t"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\0' => text.push_str("\\0"),
                '\u{8}' => text.push_str("\\b"),
                '\u{c}' => text.push_str("\\f"),
                other => text.push(other),
            }
        }
    }
    text.push('\'');
}

fn integers<T>(column: &ArrayRef) -> Writer<'_>
where
    T: ArrowPrimitiveType<Native: std::fmt::Display>,
{
    let values = column.as_primitive::<T>();
    Box::new(move |row, text| {
        let _ = write!(text, "{}", values.value(row));
    })
}

/// The shortest digits that read back as the same float, in ClickHouse's form: an exponent from 10^21 on and below 10^-6.
fn float<T>(value: T, text: &mut String)
where
    T: Copy + PartialEq + Into<f64> + FromStr + Display + LowerExp,
{
    let size: f64 = value.into();
    let magnitude = size.abs();
    let from = text.len();
    let _ = if size.is_nan() {
        text.push_str("nan");
        Ok(())
    } else if size.is_infinite() {
        text.push_str(if size > 0.0 { "inf" } else { "-inf" });
        Ok(())
    } else if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        write!(text, "{value:e}")
    } else {
        write!(text, "{value}")
    };
    even(value, from, text);
}

/// Makes the last digit even where two texts of a float, which begins at `from`, are as short and as near: Rust takes the
/// larger one then. That needs a fraction, since no whole float lies between two shorter ones below 10^21.
fn even<T>(value: T, from: usize, text: &mut String)
where
    T: PartialEq + FromStr + Display,
{
    // What Rust writes with a given number of digits is the nearest, and of two the even one.
    let written = &text[from..];
    let odd = written.ends_with(['1', '3', '5', '7', '9']);
    let Some((_, fraction)) = written.split_once('.').filter(|_| odd && written.len() > DIGITS_APART) else { return };
    if fraction.contains('e') {
        return;
    }
    let nearest = format!("{value:.*}", fraction.len());
    if nearest != *written && nearest.parse().is_ok_and(|read: T| read == value) {
        text.truncate(from);
        text.push_str(&nearest);
    }
}

/// Up to so many characters, floats are further apart than their texts: 6 digits (of a Float32) and a point.
const DIGITS_APART: usize = 7;

/// A float as ClickHouse writes it.
pub fn float_text(value: f64) -> String {
    let mut text = String::new();
    float(value, &mut text);
    text
}

fn decimal(value: i128, scale: usize, text: &mut String) {
    if value < 0 {
        text.push('-');
    }
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    text.push_str(whole);
    let fraction = fraction.trim_end_matches('0');
    if !fraction.is_empty() {
        text.push('.');
        text.push_str(fraction);
    }
}

/// `YYYY-MM-DD`.
pub fn date(days: i64, text: &mut String) {
    let (year, month, day) = calendar::civil(days);
    digits(year, 4, text);
    text.push('-');
    digits(month, 2, text);
    text.push('-');
    digits(day, 2, text);
}

/// A number in at least so many digits.
pub fn digits(value: i64, width: usize, text: &mut String) {
    let mut reversed = [b'0'; 20];
    let mut rest = value.unsigned_abs();
    let mut length = 0;
    while rest > 0 || length < width {
        reversed[length] = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
    }
    if value < 0 {
        text.push('-');
    }
    for at in (0..length).rev() {
        text.push(char::from(reversed[at]));
    }
}

/// `YYYY-MM-DD hh:mm:ss` and `precision` digits behind a point.
fn times(column: &ArrayRef, precision: u8, ticks: i64, zone: Option<Tz>) -> Writer<'_> {
    let values = column.as_primitive::<Int64Type>();
    let clock = Clock::new(zone);
    // Ticks may be finer than the precision: DateTime64(1) is kept in milliseconds.
    let cut = ticks / 10i64.pow(u32::from(precision));
    Box::new(move |row, text| {
        let value = values.value(row);
        let local = clock.local(calendar::second_of(value, ticks));
        date(local.div_euclid(DAY_S), text);
        let second = local.rem_euclid(DAY_S);
        for (at, part) in [second / 3_600, second / 60 % 60, second % 60].into_iter().enumerate() {
            text.push(if at == 0 { ' ' } else { ':' });
            digits(part, 2, text);
        }
        if precision > 0 {
            text.push('.');
            digits(value.rem_euclid(ticks) / cut, usize::from(precision), text);
        }
    })
}
