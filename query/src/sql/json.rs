//! The rows of an answer as JSON text, exactly as the contract encodes ClickHouse's types (AN-JSON).
//!
//! Columns come in, text goes out: no value tree is made in between, and nothing is written beyond the answer's bound.

use std::collections::HashMap;
use std::io::Write as _;

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, ListArray, PrimitiveArray, RecordBatch, StringViewArray,
    StructArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use super::types::Type;
use crate::error::Refusal;

const SECONDS_PER_DAY: i64 = 86_400;

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputColumn {
    /// The member it becomes in every row (AN-NAME).
    pub name: String,
    /// What its values mean.
    pub ty: Type,
}

/// Writes an array of rows, batch after batch.
pub struct Encoder {
    members: Vec<Member>,
    out: Vec<u8>,
    rows: u64,
    bytes_max: usize,
}

/// A member of every row.
struct Member {
    /// Its position in the batches.
    column: usize,
    ty: Type,
    /// `"name":`, with a comma in front of all but the first.
    key: Vec<u8>,
}

impl Encoder {
    /// For rows of these columns; of two with one name the last is sent (AN-OP-03). The text may have `bytes_max` bytes.
    ///
    /// # Errors
    /// A column of a type that no answer can hold (AN-JSON-13).
    pub fn new(columns: &[OutputColumn], bytes_max: usize) -> Result<Encoder, Refusal> {
        if let Some(column) = columns.iter().find(|column| holds_interval(&column.ty)) {
            let OutputColumn { name, ty } = column;
            return Err(Refusal::query(format!(
                "The column '{name}' is of type {ty}, which cannot be a result; add it to a time, or convert it."
            )));
        }
        let last: HashMap<&str, usize> = columns.iter().enumerate().map(|(at, column)| (&*column.name, at)).collect();
        let mut members = Vec::with_capacity(columns.len());
        for (at, column) in columns.iter().enumerate() {
            if last[&*column.name] != at {
                continue;
            }
            let mut key = Vec::with_capacity(column.name.len() + 4);
            if !members.is_empty() {
                key.push(b',');
            }
            write_text(&mut key, &column.name);
            key.push(b':');
            members.push(Member { column: at, ty: column.ty.clone(), key });
        }
        Ok(Encoder { members, out: vec![b'['], rows: 0, bytes_max })
    }

    /// Appends the rows of a batch.
    ///
    /// # Errors
    /// The text would be longer than allowed (AN-LIM-04).
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), Refusal> {
        let columns: Vec<Cells> = self
            .members
            .iter()
            .map(|member| Cells::of(batch.column(member.column), &member.ty))
            .collect::<Result<_, _>>()?;
        let mut out = Sink { bytes: std::mem::take(&mut self.out), bytes_max: self.bytes_max };
        for row in 0..batch.num_rows() {
            if self.rows > 0 {
                out.bytes.push(b',');
            }
            self.rows += 1;
            out.bytes.push(b'{');
            for (member, cells) in self.members.iter().zip(&columns) {
                out.bytes.extend_from_slice(&member.key);
                cells.write(row, &mut out)?;
            }
            out.bytes.push(b'}');
            out.check(1)?;
        }
        self.out = out.bytes;
        Ok(())
    }

    /// How many rows were appended.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The whole array; `[]` where there was no row.
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(b']');
        self.out
    }
}

/// Whether a value of this type holds an interval anywhere.
fn holds_interval(ty: &Type) -> bool {
    match ty {
        Type::Interval(_) => true,
        Type::Nullable(inner) | Type::Array(inner) => holds_interval(inner),
        Type::Tuple(members) => members.iter().any(holds_interval),
        _ => false,
    }
}

/// Text with a bound.
struct Sink {
    bytes: Vec<u8>,
    bytes_max: usize,
}

impl Sink {
    /// Refuses to go on where `more` bytes would not fit.
    fn check(&self, more: usize) -> Result<(), Refusal> {
        if self.bytes.len() + more <= self.bytes_max {
            return Ok(());
        }
        Err(Refusal::Memory(
            "The response size exceeds the limit of 4194304 bytes. Select fewer rows or columns, or add a LIMIT."
                .to_owned(),
        ))
    }
}

/// A column, looked at once and not again for each cell.
enum Cells {
    Null,
    /// `true` and `false`.
    Bool(BooleanArray),
    /// `0` and `1`: a predicate that nobody turned into a number.
    Bit(BooleanArray),
    Int8(PrimitiveArray<Int8Type>),
    Int16(PrimitiveArray<Int16Type>),
    Int32(PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    UInt8(PrimitiveArray<UInt8Type>),
    UInt16(PrimitiveArray<UInt16Type>),
    UInt32(PrimitiveArray<UInt32Type>),
    UInt64(PrimitiveArray<UInt64Type>),
    Float32(PrimitiveArray<Float32Type>),
    Float64(PrimitiveArray<Float64Type>),
    Decimal(Decimal128Array, u32),
    Text(StringViewArray),
    Date(PrimitiveArray<Date32Type>),
    /// Counts of 10^-digits seconds.
    Time {
        counts: PrimitiveArray<Int64Type>,
        digits: u32,
        zone: Option<Tz>,
    },
    List(ListArray, Box<Cells>),
    Tuple(StructArray, Vec<Cells>),
}

impl Cells {
    /// Values of `ty` in a column, which is brought into that type's own form where it has another.
    fn of(column: &ArrayRef, ty: &Type) -> Result<Cells, Refusal> {
        let ty = ty.inner();
        if let (DataType::Boolean, true) = (column.data_type(), ty.is_integer()) {
            return Ok(Cells::Bit(column.as_boolean().clone()));
        }
        let wanted = ty.arrow();
        let column = if column.data_type().equals_datatype(&wanted) {
            ArrayRef::clone(column)
        } else {
            cast(column, &wanted).map_err(|error| {
                tracing::error!(%error, %ty, found = %column.data_type(), "a bug: a result column has another type");
                Refusal::query(format!("A column of type {ty} cannot be sent; convert it with toString."))
            })?
        };
        Ok(match ty {
            Type::Nothing => Cells::Null,
            Type::Bool => Cells::Bool(column.as_boolean().clone()),
            Type::UInt8 => Cells::UInt8(numbers(&column)),
            Type::UInt16 => Cells::UInt16(numbers(&column)),
            Type::UInt32 => Cells::UInt32(numbers(&column)),
            Type::UInt64 => Cells::UInt64(numbers(&column)),
            Type::Int8 => Cells::Int8(numbers(&column)),
            Type::Int16 => Cells::Int16(numbers(&column)),
            Type::Int32 => Cells::Int32(numbers(&column)),
            Type::Int64 | Type::Interval(_) => Cells::Int64(numbers(&column)),
            Type::Float32 => Cells::Float32(numbers(&column)),
            Type::Float64 => Cells::Float64(numbers(&column)),
            Type::Decimal(_, scale) => {
                Cells::Decimal(numbers::<Decimal128Type>(&column), u32::from(scale.unsigned_abs()))
            }
            Type::String => Cells::Text(column.as_string_view().clone()),
            Type::Date => Cells::Date(numbers(&column)),
            Type::DateTime(zone) => time(&column, *zone),
            Type::DateTime64(_, zone) => time(&column, *zone),
            Type::Array(element) => {
                let list: &ListArray = column.as_list();
                Cells::List(list.clone(), Box::new(Cells::of(list.values(), element)?))
            }
            Type::Tuple(members) => {
                let tuple = column.as_struct();
                let parts = tuple.columns().iter().zip(members).map(|(part, ty)| Cells::of(part, ty));
                Cells::Tuple(tuple.clone(), parts.collect::<Result<_, _>>()?)
            }
            Type::Nullable(inner) => return Cells::of(&column, inner),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Null => true,
            Cells::Bool(column) | Cells::Bit(column) => column.is_null(row),
            Cells::Int8(column) => column.is_null(row),
            Cells::Int16(column) => column.is_null(row),
            Cells::Int32(column) => column.is_null(row),
            Cells::Int64(column) => column.is_null(row),
            Cells::UInt8(column) => column.is_null(row),
            Cells::UInt16(column) => column.is_null(row),
            Cells::UInt32(column) => column.is_null(row),
            Cells::UInt64(column) => column.is_null(row),
            Cells::Float32(column) => column.is_null(row),
            Cells::Float64(column) => column.is_null(row),
            Cells::Decimal(column, _) => column.is_null(row),
            Cells::Text(column) => column.is_null(row),
            Cells::Date(column) => column.is_null(row),
            Cells::Time { counts, .. } => counts.is_null(row),
            Cells::List(column, _) => column.is_null(row),
            Cells::Tuple(column, _) => column.is_null(row),
        }
    }

    /// Appends one value.
    fn write(&self, row: usize, sink: &mut Sink) -> Result<(), Refusal> {
        let out = &mut sink.bytes;
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        match self {
            Cells::Null => {}
            Cells::Bool(column) => out.extend_from_slice(if column.value(row) { b"true" } else { b"false" }),
            Cells::Bit(column) => out.push(if column.value(row) { b'1' } else { b'0' }),
            Cells::Int8(column) => write_integer(out, column.value(row)),
            Cells::Int16(column) => write_integer(out, column.value(row)),
            Cells::Int32(column) => write_integer(out, column.value(row)),
            Cells::Int64(column) => write_integer(out, column.value(row)),
            Cells::UInt8(column) => write_integer(out, column.value(row)),
            Cells::UInt16(column) => write_integer(out, column.value(row)),
            Cells::UInt32(column) => write_integer(out, column.value(row)),
            Cells::UInt64(column) => write_integer(out, column.value(row)),
            Cells::Float32(column) => write_float32(out, column.value(row)),
            Cells::Float64(column) => write_float64(out, column.value(row)),
            Cells::Decimal(column, scale) => write_decimal(out, column.value(row), *scale),
            Cells::Text(column) => {
                let text = column.value(row);
                sink.check(text.len())?;
                write_text(&mut sink.bytes, text);
            }
            Cells::Date(column) => write_moment(out, i64::from(column.value(row)) * SECONDS_PER_DAY, 0, 0, None),
            Cells::Time { counts, digits, zone } => {
                let per_second = 10_i64.pow(*digits);
                let count = counts.value(row);
                let (second, fraction) = (count.div_euclid(per_second), count.rem_euclid(per_second));
                write_moment(out, second, fraction, *digits, *zone);
            }
            Cells::List(list, elements) => {
                let (from, to) = (list.value_offsets()[row], list.value_offsets()[row + 1]);
                out.push(b'[');
                for at in from..to {
                    if at > from {
                        sink.bytes.push(b',');
                    }
                    elements.write(usize::try_from(at).expect("Arrow's offsets are not negative"), sink)?;
                    sink.check(0)?;
                }
                sink.bytes.push(b']');
            }
            Cells::Tuple(_, parts) => {
                out.push(b'[');
                for (at, part) in parts.iter().enumerate() {
                    if at > 0 {
                        sink.bytes.push(b',');
                    }
                    part.write(row, sink)?;
                }
                sink.bytes.push(b']');
            }
        }
        Ok(())
    }
}

fn numbers<T: ArrowPrimitiveType>(column: &ArrayRef) -> PrimitiveArray<T> {
    column.as_primitive::<T>().clone()
}

/// A column of timestamps as counts of its unit.
fn time(column: &ArrayRef, zone: Option<Tz>) -> Cells {
    let (counts, digits) = match column.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            (numbers::<TimestampMillisecondType>(column).reinterpret_cast(), 3)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            (numbers::<TimestampMicrosecondType>(column).reinterpret_cast(), 6)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            (numbers::<TimestampNanosecondType>(column).reinterpret_cast(), 9)
        }
        _ => (numbers::<TimestampSecondType>(column).reinterpret_cast(), 0),
    };
    Cells::Time { counts, digits, zone }
}

fn write_integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest digits that read back as the same number; JSON has no NaN and no infinity (AN-JSON-02).
fn write_float64(out: &mut Vec<u8>, value: f64) {
    let size = value.abs();
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if size == 0.0 || (1e-6..1e21).contains(&size) {
        write!(out, "{value}").expect("memory takes everything");
    } else {
        write!(out, "{value:e}").expect("memory takes everything");
    }
}

fn write_float32(out: &mut Vec<u8>, value: f32) {
    let size = value.abs();
    if !value.is_finite() {
        out.extend_from_slice(b"null");
    } else if size == 0.0 || (1e-6..1e21).contains(&size) {
        write!(out, "{value}").expect("memory takes everything");
    } else {
        write!(out, "{value:e}").expect("memory takes everything");
    }
}

/// A string, without the zeros that a decimal ends with (AN-JSON-12).
fn write_decimal(out: &mut Vec<u8>, value: i128, scale: u32) {
    out.push(b'"');
    if value < 0 {
        out.push(b'-');
    }
    let per_one = 10_u128.pow(scale.min(38));
    let (whole, mut fraction) = (value.unsigned_abs() / per_one, value.unsigned_abs() % per_one);
    write_integer(out, whole);
    if fraction > 0 {
        let mut width = scale as usize;
        while fraction.is_multiple_of(10) {
            fraction /= 10;
            width -= 1;
        }
        write!(out, ".{fraction:0width$}").expect("memory takes everything");
    }
    out.push(b'"');
}

/// RFC 3339: local time and its offset, `Z` where that is zero, and the fraction without the zeros that it ends with
/// (AN-JSON-06 to AN-JSON-08). `fraction` counts 10^-digits seconds.
fn write_moment(out: &mut Vec<u8>, second: i64, mut fraction: i64, mut digits: u32, zone: Option<Tz>) {
    let offset = zone.map_or(0, |zone| offset_of(zone, second));
    let local = second.saturating_add(offset);
    let (year, month, day) = civil(local.div_euclid(SECONDS_PER_DAY));
    let clock = local.rem_euclid(SECONDS_PER_DAY);
    let (hour, minute, second) = (clock / 3600, clock / 60 % 60, clock % 60);
    out.push(b'"');
    if (0..=9999).contains(&year) {
        two_digits(out, year / 100);
        two_digits(out, year % 100);
    } else {
        write_integer(out, year);
    }
    for (sign, number) in [(b'-', month), (b'-', day), (b'T', hour), (b':', minute), (b':', second)] {
        out.push(sign);
        two_digits(out, number);
    }
    if fraction > 0 {
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        let width = digits as usize;
        write!(out, ".{fraction:0width$}").expect("memory takes everything");
    }
    if offset == 0 {
        out.push(b'Z');
    } else {
        out.push(if offset < 0 { b'-' } else { b'+' });
        two_digits(out, offset.abs() / 3600);
        out.push(b':');
        two_digits(out, offset.abs() / 60 % 60);
    }
    out.push(b'"');
}

/// How far a zone's clocks are before UTC at that second, in seconds.
fn offset_of(zone: Tz, second: i64) -> i64 {
    match DateTime::<Utc>::from_timestamp(second, 0) {
        Some(at) => zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc().into(),
        None => 0,
    }
}

/// Two decimal digits of a number from 0 to 99.
fn two_digits(out: &mut Vec<u8>, number: i64) {
    let number = u8::try_from(number).unwrap_or(0);
    out.extend_from_slice(&[b'0' + number / 10 % 10, b'0' + number % 10]);
}

/// Year, month and day of the Gregorian calendar, from days since 1970: years begin in March and come in eras of 400, so
/// that the leap day is a year's last (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A JSON string.
fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(br#"\""#),
            b'\\' => out.extend_from_slice(br"\\"),
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b'\t' => out.extend_from_slice(br"\t"),
            control => write!(out, "\\u{control:04x}").expect("memory takes everything"),
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Int64Builder, ListBuilder, UInt8Builder, new_null_array};
    use datafusion::arrow::datatypes::{Field, Schema};
    use datafusion::common::ScalarValue;

    use super::*;

    const ROOM: usize = 4_194_304;

    fn batch(columns: Vec<ArrayRef>) -> RecordBatch {
        let fields: Vec<Field> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| Field::new(format!("c{at}"), column.data_type().clone(), true))
            .collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("equally long columns")
    }

    fn column(name: &str, ty: Type) -> OutputColumn {
        OutputColumn { name: name.to_owned(), ty }
    }

    /// The text of one column of values.
    fn values(ty: Type, column: ArrayRef) -> String {
        let mut encoder = Encoder::new(&[self::column("v", ty)], ROOM).expect("a type that can be sent");
        encoder.push(&batch(vec![column])).expect("small");
        let text = String::from_utf8(encoder.finish()).expect("JSON is UTF-8");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON");
        text.replace(r#"{"v":"#, "").replace('}', "")
    }

    fn one(ty: Type, value: ScalarValue) -> String {
        let text = values(ty, value.to_array_of_size(1).expect("an array"));
        text[1..text.len() - 1].to_owned()
    }

    fn at(ms: i64) -> ScalarValue {
        ScalarValue::TimestampMillisecond(Some(ms), None)
    }

    fn zone(name: &str) -> Option<Tz> {
        Some(name.parse().expect("a zone"))
    }

    /// AN-JSON-01 to AN-JSON-12, AN-JSON-15: each type has its own form, and no digit is lost.
    #[test]
    fn each_type_has_its_form() {
        let seconds = |second| ScalarValue::TimestampSecond(Some(second), None);
        let days = |days| ScalarValue::Date32(Some(days));
        let float = |value| ScalarValue::Float64(Some(value));
        let text = |text: &str| ScalarValue::Utf8View(Some(text.to_owned()));
        let decimal = |value, scale| ScalarValue::Decimal128(Some(value), 38, scale);
        let noon = 1_773_843_825;
        for (ty, value, wanted) in [
            (Type::UInt64, ScalarValue::UInt64(Some(u64::MAX)), "18446744073709551615"),
            (Type::Int64, ScalarValue::Int64(Some(i64::MIN)), "-9223372036854775808"),
            (Type::Int64, ScalarValue::Int64(Some(9_007_199_254_740_993)), "9007199254740993"),
            (Type::UInt8, ScalarValue::UInt8(Some(1)), "1"),
            (Type::UInt8, ScalarValue::Boolean(Some(true)), "1"),
            (Type::UInt8.nullable(), ScalarValue::Boolean(None), "null"),
            (Type::Bool, ScalarValue::Boolean(Some(true)), "true"),
            (Type::Bool, ScalarValue::Boolean(Some(false)), "false"),
            (Type::Float64, float(f64::NAN), "null"),
            (Type::Float64, float(f64::NEG_INFINITY), "null"),
            (Type::Float64, float(2.0), "2"),
            (Type::Float64, float(-0.1), "-0.1"),
            (Type::Float64, float(0.1 + 0.2), "0.30000000000000004"),
            (Type::Float64, float(1e20), "100000000000000000000"),
            (Type::Float64, float(1e21), "1e21"),
            (Type::Float64, float(1.5e-7), "1.5e-7"),
            (Type::Float64, float(f64::MAX), "1.7976931348623157e308"),
            (Type::Float64, float(5e-324), "5e-324"),
            (Type::Float32, ScalarValue::Float32(Some(0.1)), "0.1"),
            (Type::Float32, ScalarValue::Float32(Some(f32::INFINITY)), "null"),
            (Type::String, text("a\"b\\c\n\t\r\u{1}\u{7f}é😀"), "\"a\\\"b\\\\c\\n\\t\\r\\u0001\u{7f}é😀\""),
            (Type::String, text(""), r#""""#),
            (Type::Date, days(20_530), r#""2026-03-18T00:00:00Z""#),
            (Type::Date, days(0), r#""1970-01-01T00:00:00Z""#),
            (Type::Date, days(65_535), r#""2149-06-06T00:00:00Z""#),
            (Type::DateTime(None), seconds(noon), r#""2026-03-18T14:23:45Z""#),
            (Type::DateTime(None), seconds(0), r#""1970-01-01T00:00:00Z""#),
            (Type::DateTime(zone("UTC")), seconds(noon), r#""2026-03-18T14:23:45Z""#),
            (Type::DateTime(zone("Europe/Berlin")), seconds(noon), r#""2026-03-18T15:23:45+01:00""#),
            (Type::DateTime(zone("Europe/London")), seconds(noon), r#""2026-03-18T14:23:45Z""#),
            (Type::DateTime(zone("Europe/Berlin")), seconds(1_782_864_000), r#""2026-07-01T02:00:00+02:00""#),
            (Type::DateTime(zone("America/St_Johns")), seconds(1_768_000_000), r#""2026-01-09T19:36:40-03:30""#),
            (Type::DateTime64(3, None), at(1_773_843_825_670), r#""2026-03-18T14:23:45.67Z""#),
            (Type::DateTime64(3, None), at(1_773_843_825_000), r#""2026-03-18T14:23:45Z""#),
            (Type::DateTime64(3, None), at(1_773_843_825_005), r#""2026-03-18T14:23:45.005Z""#),
            (Type::DateTime64(3, None), at(-1), r#""1969-12-31T23:59:59.999Z""#),
            (Type::DateTime64(3, zone("Asia/Tokyo")), at(1_773_843_825_670), r#""2026-03-18T23:23:45.67+09:00""#),
            (
                Type::DateTime64(9, None),
                ScalarValue::TimestampNanosecond(Some(1_773_843_825_000_000_001), None),
                r#""2026-03-18T14:23:45.000000001Z""#,
            ),
            (Type::DateTime64(0, None), seconds(noon), r#""2026-03-18T14:23:45Z""#),
            (Type::Decimal(38, 3), decimal(1_500, 3), r#""1.5""#),
            (Type::Decimal(38, 3), decimal(-5, 3), r#""-0.005""#),
            (Type::Decimal(38, 3), decimal(0, 3), r#""0""#),
            (Type::Decimal(38, 0), decimal(42, 0), r#""42""#),
            (Type::Nothing, ScalarValue::Null, "null"),
            (Type::String.nullable(), ScalarValue::Utf8View(None), "null"),
            (Type::Date.nullable(), days(1), r#""1970-01-02T00:00:00Z""#),
        ] {
            assert_eq!(one(ty.clone(), value.clone()), wanted, "{ty} {value:?}");
        }
    }

    /// The calendar agrees with chrono's on every day of some thousand years.
    #[test]
    fn the_calendar_is_right() {
        use chrono::{Datelike, Days, NaiveDate};
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).expect("a day");
        for days in (0..1_500_000).step_by(7) {
            let day = epoch.checked_add_days(Days::new(days)).expect("in range");
            let wanted = (i64::from(day.year()), i64::from(day.month()), i64::from(day.day()));
            assert_eq!(civil(i64::try_from(days).expect("small")), wanted);
        }
        assert_eq!(civil(-1), (1969, 12, 31));
    }

    /// AN-JSON-10, AN-JSON-13, AN-JSON-14: arrays hold what their elements are, one-byte numbers and NaN too; tuples are
    /// arrays.
    #[test]
    fn arrays_hold_elements() {
        let mut bytes = ListBuilder::new(UInt8Builder::new());
        bytes.append_value([Some(1), Some(2), None]);
        bytes.append_value([]);
        let bytes: ArrayRef = Arc::new(bytes.finish());
        assert_eq!(values(Type::Array(Box::new(Type::UInt8.nullable())), Arc::clone(&bytes)), "[[1,2,null],[]]");
        // A sliced list counts its elements from the slice's own offsets.
        assert_eq!(values(Type::Array(Box::new(Type::UInt8.nullable())), bytes.slice(1, 1)), "[[]]");

        let mut nested = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
        nested.values().append_value([Some(1)]);
        nested.values().append_value([]);
        nested.append(true);
        let nested: ArrayRef = Arc::new(nested.finish());
        let ty = Type::Array(Box::new(Type::Array(Box::new(Type::Int64))));
        assert_eq!(values(ty, nested), "[[[1],[]]]");

        let floats = ScalarValue::new_list_nullable(
            &[ScalarValue::Float64(Some(f64::NAN)), ScalarValue::Float64(Some(1.5))],
            &DataType::Float64,
        );
        assert_eq!(values(Type::Array(Box::new(Type::Float64)), floats), "[[null,1.5]]");

        let ty = Type::Tuple(vec![Type::Int64, Type::String]);
        let DataType::Struct(fields) = ty.arrow() else { panic!("a tuple is a struct") };
        let parts: Vec<ArrayRef> = vec![
            ScalarValue::Int64(Some(1)).to_array().expect("an array"),
            ScalarValue::Utf8View(Some("a".to_owned())).to_array().expect("an array"),
        ];
        assert_eq!(values(ty, Arc::new(StructArray::new(fields, parts, None))), r#"[[1,"a"]]"#);
    }

    /// AN-OP-02, AN-OP-03: rows are objects; of two columns with one name the last one wins; no row is an empty array.
    #[test]
    fn rows_are_objects_and_the_last_name_wins() {
        let number = |value| ScalarValue::Int64(Some(value)).to_array().expect("an array");
        let columns = [column("a", Type::Int64), column("b \"q\"", Type::Int64), column("a", Type::Int64)];
        let mut encoder = Encoder::new(&columns, ROOM).expect("numbers");
        let rows = batch(vec![number(1), number(2), number(3)]);
        encoder.push(&rows).expect("small");
        encoder.push(&rows).expect("small");
        assert_eq!(encoder.rows(), 2);
        let text = String::from_utf8(encoder.finish()).expect("JSON is UTF-8");
        assert_eq!(text, r#"[{"b \"q\"":2,"a":3},{"b \"q\"":2,"a":3}]"#);
        assert_eq!(Encoder::new(&columns, ROOM).expect("numbers").finish(), b"[]");
    }

    /// AN-JSON-13: an interval is no result, wherever it is hidden.
    #[test]
    fn an_interval_is_no_result() {
        let interval = Type::Interval(crate::sql::types::Unit::Day);
        for ty in [interval.clone(), interval.clone().nullable(), Type::Array(Box::new(interval))] {
            let refused = Encoder::new(&[column("i", ty)], ROOM).map(|_| ()).expect_err("refused");
            assert!(matches!(&refused, Refusal::Query(text) if text.contains("'i'")), "{refused:?}");
        }
    }

    /// AN-LIM-04: whatever makes an answer long, what is written stays near the bound.
    #[test]
    fn a_long_answer_is_refused_before_it_is_written() {
        let long = ScalarValue::Utf8View(Some("x".repeat(1000))).to_array_of_size(100).expect("an array");
        let huge = ScalarValue::Utf8View(Some("x".repeat(200_000))).to_array().expect("an array");
        let list = ScalarValue::List(ScalarValue::new_list_nullable(
            &vec![ScalarValue::Int64(Some(1)); 100_000],
            &DataType::Int64,
        ));
        for (ty, values) in [
            (Type::String, long),
            (Type::String, huge),
            (Type::Array(Box::new(Type::Int64)), list.to_array().expect("an array")),
            (Type::Nothing, new_null_array(&DataType::Null, 50_000)),
        ] {
            let mut encoder = Encoder::new(&[column("v", ty)], 50_000).expect("a type that can be sent");
            let refused = encoder.push(&batch(vec![values])).expect_err("too long");
            assert!(matches!(&refused, Refusal::Memory(text) if text.contains("response size")), "{refused:?}");
        }
        let text = ScalarValue::Utf8View(Some("x".repeat(20))).to_array().expect("an array");
        let mut encoder = Encoder::new(&[column("v", Type::String)], 30).expect("text");
        encoder.push(&batch(vec![Arc::clone(&text)])).expect("to the byte");
        assert_eq!(encoder.finish().len(), 30);
        let mut encoder = Encoder::new(&[column("v", Type::String)], 29).expect("text");
        encoder.push(&batch(vec![text])).expect_err("one byte too many");
    }
}
