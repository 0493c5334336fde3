//! `round(x[, n])`, `floor(x[, n])`, `ceil(x[, n])` (AN-SEM-09).
//!
//! ClickHouse: to `n` decimal places, before the point where it is negative; the result keeps the type. `round` takes a float
//! that lies between two to the even one, and integers and decimals away from zero. Integers wrap where they round beyond
//! their type.

use std::sync::Arc;

use datafusion::arrow::array::types::{Decimal128Type, Float64Type, Int64Type, UInt64Type};
use datafusion::arrow::array::{AsArray, Decimal128Array, Float64Array, Int64Array, UInt64Array};

use super::super::kernel;
use super::super::operators::convert;
use super::super::typed::Typed;
use super::super::types::Type;
use super::{Function, arguments};
use crate::error::Refusal;

pub(super) const ROUND: Function =
    Function { name: "round", case_sensitive: false, call: |_, given| call(Mode::Round, given) };
pub(super) const FLOOR: Function =
    Function { name: "floor", case_sensitive: false, call: |_, given| call(Mode::Floor, given) };
pub(super) const CEIL: Function =
    Function { name: "ceil", case_sensitive: false, call: |_, given| call(Mode::Ceil, given) };

/// Decimal places beyond which a float is not changed, or is rounded away.
const PLACES_MAX: i64 = 308;

#[derive(Debug, Clone, Copy)]
enum Mode {
    Round,
    Floor,
    Ceil,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Round => "round",
            Mode::Floor => "floor",
            Mode::Ceil => "ceil",
        }
    }

    fn whole(self, value: f64) -> f64 {
        match self {
            Mode::Round => value.round_ties_even(),
            Mode::Floor => value.floor(),
            Mode::Ceil => value.ceil(),
        }
    }

    /// A float to so many places.
    fn float(self, value: f64, places: i64) -> f64 {
        if places == 0 {
            return self.whole(value);
        }
        let unit = 10f64.powi(places.unsigned_abs().min(400) as i32);
        if places > 0 {
            let scaled = value * unit;
            if places > PLACES_MAX || scaled.is_infinite() { value } else { self.whole(scaled) / unit }
        } else if places < -PLACES_MAX {
            0.0
        } else {
            self.whole(value / unit) * unit
        }
    }

    /// A whole number to a multiple of `unit`, wrapping.
    fn signed(self, value: i64, unit: i64) -> i64 {
        let moved = match self {
            Mode::Round => value.wrapping_add(if value < 0 { -unit / 2 } else { unit / 2 }),
            Mode::Floor if value < 0 => value.wrapping_sub(unit - 1),
            Mode::Ceil if value > 0 => value.wrapping_add(unit - 1),
            _ => value,
        };
        (moved / unit).wrapping_mul(unit)
    }

    fn unsigned(self, value: u64, unit: u64) -> u64 {
        let moved = match self {
            Mode::Round => value.wrapping_add(unit / 2),
            Mode::Floor => value,
            Mode::Ceil if value > 0 => value.wrapping_add(unit - 1),
            Mode::Ceil => value,
        };
        (moved / unit).wrapping_mul(unit)
    }

    fn decimal(self, value: i128, unit: i128) -> i128 {
        let half = unit / 2;
        let moved = match self {
            Mode::Round if value < 0 => value.saturating_sub(half),
            Mode::Round => value.saturating_add(half),
            Mode::Floor => return value.div_euclid(unit).saturating_mul(unit),
            Mode::Ceil => return value.saturating_neg().div_euclid(unit).saturating_neg().saturating_mul(unit),
        };
        (moved / unit).saturating_mul(unit)
    }
}

fn call(mode: Mode, given: Vec<Typed>) -> Result<Typed, Refusal> {
    arguments::between(mode.name(), &given, 1, 2)?;
    let places = given.get(1).map_or(Ok(0), |places| arguments::whole(mode.name(), "number of places", places))?;
    let x = given[0].clone();
    let ty = x.ty.inner().clone();
    let nullable = x.ty.clone();
    let parameters = places.to_string();
    match &ty {
        Type::Nothing | Type::Bool => Ok(x),
        _ if ty.is_integer() && places >= 0 => Ok(x),
        _ if ty.is_float() => {
            let wide = convert(x, &Type::Float64)?;
            let between = Type::Float64.nullable_as(&nullable);
            let rounded = kernel::map(mode.name(), parameters, vec![wide], between, move |columns| {
                let values = columns[0].as_primitive::<Float64Type>();
                let rounded: Float64Array = values.unary(|value| mode.float(value, places));
                Ok(Arc::new(rounded))
            })?;
            convert(rounded, &ty)
        }
        Type::UInt64 => kernel::map(mode.name(), parameters, vec![x], nullable, move |columns| {
            let unit = u32::try_from(-places).ok().and_then(|places| 10u64.checked_pow(places));
            let values = columns[0].as_primitive::<UInt64Type>();
            let rounded: UInt64Array = values.unary(|value| unit.map_or(0, |unit| mode.unsigned(value, unit)));
            Ok(Arc::new(rounded))
        }),
        _ if ty.is_integer() => {
            let wide = convert(x, &Type::Int64)?;
            let between = Type::Int64.nullable_as(&nullable);
            let rounded = kernel::map(mode.name(), parameters, vec![wide], between, move |columns| {
                let unit = u32::try_from(-places).ok().and_then(|places| 10i64.checked_pow(places));
                let values = columns[0].as_primitive::<Int64Type>();
                let rounded: Int64Array = values.unary(|value| unit.map_or(0, |unit| mode.signed(value, unit)));
                Ok(Arc::new(rounded))
            })?;
            convert(rounded, &ty)
        }
        Type::Decimal(_, scale) => {
            let beyond = i64::from(*scale) - places;
            if beyond <= 0 {
                return Ok(x);
            }
            let arrow = ty.arrow();
            kernel::map(mode.name(), parameters, vec![x], nullable, move |columns| {
                let unit = u32::try_from(beyond).ok().and_then(|places| 10i128.checked_pow(places));
                let values = columns[0].as_primitive::<Decimal128Type>();
                let rounded: Decimal128Array = values.unary(|value| unit.map_or(0, |unit| mode.decimal(value, unit)));
                Ok(Arc::new(rounded.with_data_type(arrow.clone())))
            })
        }
        _ => Err(arguments::illegal(mode.name(), "a number", &x)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::cases;

    // TABLE BEGIN
    /// Each line as ClickHouse 26 answers it, but for what the module says.
    #[test]
    fn places_on_both_sides_of_the_point() {
        cases(
            r#"
            round(2.5) => Float64 "2"
            round(3.5) => Float64 "4"
            round(-2.5) => Float64 "-2"
            round(2.45,1) => Float64 "2.4"
            round(2.55,1) => Float64 "2.6"
            round(0.125,2) => Float64 "0.12"
            round(1234.5,-2) => Float64 "1200"
            round(1250.0,-2) => Float64 "1200"
            round(1350.0,-2) => Float64 "1400"
            round(15,-1) => UInt8 "20"
            round(25,-1) => UInt8 "30"
            round(-25,-1) => Int8 "-30"
            round(toInt64(-15),-1) => Int64 "-20"
            round(5) => UInt8 "5"
            round(5,2) => UInt8 "5"
            round(toUInt8(255),-1) => UInt8 "4"
            round(toUInt8(250),-2) => UInt8 "44"
            round(toInt64(9223372036854775807),-1) => Int64 "-9223372036854775800"
            round(toInt64(5),-20) => Int64 "0"
            round(5,-1) => UInt8 "10"
            round(4,-1) => UInt8 "0"
            round(-4.5,-1) => Float64 "-0"
            round(nan) => Float64 "nan"
            round(inf,2) => Float64 "inf"
            round('a') => refused
            round(NULL) => Nullable(Nothing) NULL
            round(true) => Bool "true"
            round(1.5,'a') => refused
            round(1.5,1.5) => refused
            round(1.5,materialize(1)) => refused
            round(2.345,20) => Float64 "2.345"
            round(2.345,400) => Float64 "2.345"
            round(2.345,-400) => Float64 "0"
            round(toFloat32(2.5)) => Float32 "2"
            round(toDate('2020-01-01')) => refused
            round() => refused
            round(1,2,3) => refused
            round(0.285,2) => Float64 "0.28"
            round(1.005,2) => Float64 "1"
            round(2.675,2) => Float64 "2.68"
            round(1e300,5) => Float64 "1.0000000000000002e300"
            round(1e17,5) => Float64 "100000000000000000"
            round(123456789.123456789,6) => Float64 "123456789.123457"
            floor(2.7) => Float64 "2"
            floor(-2.7) => Float64 "-3"
            floor(2.77,1) => Float64 "2.7"
            floor(-2.77,1) => Float64 "-2.8"
            floor(27,-1) => UInt8 "20"
            floor(-27,-1) => Int8 "-30"
            floor(toUInt8(27),-1) => UInt8 "20"
            floor(27,1) => UInt8 "27"
            floor('a') => refused
            floor(2.3,1) => Float64 "2.3"
            ceil(2.1) => Float64 "3"
            ceil(-2.7) => Float64 "-2"
            ceil(2.11,1) => Float64 "2.2"
            ceil(21,-1) => UInt8 "30"
            ceil(-27,-1) => Int8 "-20"
            ceil(toUInt8(251),-1) => UInt8 "4"
            ceil(toInt8(-121),-1) => Int8 "-120"
            ceil(20,-1) => UInt8 "20"
            "#,
        );
    }
    // TABLE END
}
