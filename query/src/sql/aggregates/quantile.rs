//! `quantile([p])(x)` (AN-SEM-19).
//!
//! ClickHouse: the value at rank p*(n-1), between two by linear interpolation, as a Float64; p is a constant from 0 to 1, one
//! half unless told otherwise. NaN is left out; NaN of nothing, NULL where a NULL-able `x` has no value. Up to
//! [`SAMPLE_MAX`] values of a group are kept, which is exact; beyond, each is kept with a probability of 2^-level, and the
//! level rises whenever there are too many. The rank is then off by less than 0.003 in two cases of three, and by 0.02 in
//! practice never. The coin is a seeded generator (splitmix64 of Steele, Lea and Flood), so that a query answers the same
//! twice.

use std::sync::Arc;

use datafusion::arrow::array::types::{Float64Type, UInt8Type};
use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, UInt8Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Result, ScalarValue};

use super::own::{self, Definition, Groups};
use super::rows::Rows;
use super::{Aggregate, Aggregated, Call, one_argument};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::functions::arguments;
use crate::sql::operators::convert;
use crate::sql::types::Type;

pub(super) const QUANTILE: Aggregate = Aggregate { name: "quantile", case_sensitive: true, build };

/// Values of a group that are kept at most: 512 KiB.
const SAMPLE_MAX: usize = 65_536;

fn build(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    let level = match call.parameters.as_slice() {
        [] => 0.5,
        [level] => {
            let number = level.ty.is_number().then(|| convert(level.clone(), &Type::Float64)).transpose()?;
            match number.as_ref().and_then(|number| number.as_literal()) {
                Some(ScalarValue::Float64(Some(level))) => *level,
                _ => return Err(arguments::illegal("quantile", "a constant number as its level", level)),
            }
        }
        _ => return Err(Refusal::query("function quantile takes one level at most")),
    };
    if !(0.0..=1.0).contains(&level) {
        return Err(Refusal::query(format!("a quantile's level lies from 0 to 1, which {level} does not")));
    }
    if call.distinct {
        return Err(Refusal::query("function quantile takes no DISTINCT"));
    }
    let x = one_argument("quantile", call.arguments)?;
    if !x.ty.inner().is_number() {
        return Err(arguments::illegal("quantile", "a number", &x));
    }
    let ty = Type::Float64.nullable_as(&x.ty);
    let definition = Definition {
        name: "quantile",
        parameters: level.to_string(),
        state: vec![DataType::List(item()), DataType::UInt8],
        returns: DataType::Float64,
        empty: ScalarValue::Float64(None),
    };
    Ok(Aggregated {
        function: own::function(definition, move || {
            Box::new(Quantiles { level, samples: Vec::new(), coin: Coin(0x6b65_7977_6172_6433), bytes: 0 })
        }),
        arguments: vec![convert(x, &Type::Float64)?.expr],
        distinct: false,
        filter: None,
        empty: (!ty.is_nullable()).then_some(ScalarValue::Float64(Some(f64::NAN))),
        ty,
    })
}

fn item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float64, true))
}

struct Coin(u64);

impl Coin {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// True with a probability of 2^-halvings.
    fn passes(&mut self, halvings: u8) -> bool {
        halvings == 0 || self.bits().trailing_zeros() >= u32::from(halvings)
    }
}

#[derive(Default)]
struct Sample {
    kept: Vec<f64>,
    /// Each kept value stands for 2^level.
    level: u8,
}

impl Sample {
    fn insert(&mut self, value: f64, coin: &mut Coin) {
        if coin.passes(self.level) {
            self.keep(value, coin);
        }
    }

    fn keep(&mut self, value: f64, coin: &mut Coin) {
        self.kept.push(value);
        while self.kept.len() > SAMPLE_MAX {
            self.raise(self.level + 1, coin);
        }
    }

    fn raise(&mut self, level: u8, coin: &mut Coin) {
        if level > self.level {
            let halvings = level - self.level;
            self.kept.retain(|_| coin.passes(halvings));
            self.level = level;
        }
    }

    fn bytes(&self) -> usize {
        self.kept.capacity() * size_of::<f64>()
    }
}

struct Quantiles {
    /// The rank asked for, from 0 to 1.
    level: f64,
    samples: Vec<Sample>,
    coin: Coin,
    bytes: usize,
}

/// The value at a rank from 0 to 1 of values in any order, which are put into another.
fn at(level: f64, values: &mut [f64]) -> Option<f64> {
    let last = values.len().checked_sub(1)?;
    let rank = level * last as f64;
    let left = (rank.floor() as usize).min(last);
    let (_, &mut below, rest) = values.select_nth_unstable_by(left, f64::total_cmp);
    let share = rank - left as f64;
    if share == 0.0 {
        return Some(below);
    }
    let above = rest.iter().copied().min_by(f64::total_cmp).unwrap_or(below);
    Some(below * (1.0 - share) + above * share)
}

impl Groups for Quantiles {
    fn resize(&mut self, groups: usize) {
        self.samples.resize_with(groups, Sample::default);
    }

    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let values = columns[0].as_primitive::<Float64Type>().values();
        rows.each(|row, group| {
            let value = values[row];
            if !value.is_nan() {
                let sample = &mut self.samples[group];
                let before = sample.bytes();
                sample.insert(value, &mut self.coin);
                self.bytes += sample.bytes() - before;
            }
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        let (lists, levels) = (states[0].as_list::<i32>(), states[1].as_primitive::<UInt8Type>());
        let values = lists.values().as_primitive::<Float64Type>().values();
        for row in 0..lists.len() {
            let (from, to) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
            let sample = &mut self.samples[groups.map_or(0, |groups| groups[row])];
            let before = sample.bytes();
            let theirs = levels.value(row);
            sample.raise(theirs, &mut self.coin);
            for &value in &values[from..to] {
                // The level may rise on the way.
                if self.coin.passes(sample.level - theirs) {
                    sample.keep(value, &mut self.coin);
                }
            }
            self.bytes += sample.bytes() - before;
        }
        Ok(())
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        let mut sorted = Vec::new();
        let quantile = |sample: &Sample| {
            sorted.clear();
            sorted.extend_from_slice(&sample.kept);
            at(self.level, &mut sorted)
        };
        Ok(Arc::new(self.samples[..first].iter().map(quantile).collect::<Float64Array>()))
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        let samples = &self.samples[..first];
        let lengths = OffsetBuffer::from_lengths(samples.iter().map(|sample| sample.kept.len()));
        let values: Vec<f64> = samples.iter().flat_map(|sample| sample.kept.iter().copied()).collect();
        let lists = ListArray::try_new(item(), lengths, Arc::new(Float64Array::from(values)), None)?;
        let levels: UInt8Array = samples.iter().map(|sample| sample.level).collect::<Vec<_>>().into();
        Ok(vec![Arc::new(lists), Arc::new(levels)])
    }

    fn forget(&mut self, first: usize) {
        for sample in self.samples.drain(..first) {
            self.bytes -= sample.bytes();
        }
    }

    fn size(&self) -> usize {
        self.bytes + self.samples.capacity() * size_of::<Sample>()
    }
}
