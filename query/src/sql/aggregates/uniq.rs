//! `uniq(x, ..)` and `uniqExact(x, ..)` (AN-SEM-18).
//!
//! ClickHouse: how many different values, or tuples of values, there are in which nothing is NULL, as a UInt64. `uniqExact`
//! knows values by 128-bit hashes. `uniq` is exact up to [`SAMPLE_MAX`] values and then keeps those whose hash ends in
//! enough zeros (adaptive sampling: Wegman, after Flajolet, "On Adaptive Sampling", 1990), so that a group takes two MiB at
//! most; its standard error is below 0.4 %.

use std::sync::Arc;

use datafusion::arrow::array::types::UInt8Type;
use datafusion::arrow::array::{ArrayRef, AsArray, UInt8Array, UInt64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};

use super::keys::{Hashes, KeySet, each_words, words, words_type};
use super::own::{self, Definition, Groups};
use super::rows::Rows;
use super::{Aggregate, Aggregated, Call, no_parameters};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::operators::coerce;
use crate::sql::typed::Typed;
use crate::sql::types::Type;

pub(super) const UNIQ: Aggregate = Aggregate { name: "uniq", case_sensitive: true, build: uniq };
pub(super) const UNIQ_EXACT: Aggregate = Aggregate { name: "uniqExact", case_sensitive: true, build: uniq_exact };

/// Up to this many values `uniq` is exact; beyond, it keeps between half as many and as many.
const SAMPLE_MAX: usize = 131_072;

fn uniq(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    no_parameters("uniq", &call)?;
    build("uniq", call.arguments, vec![words_type(), DataType::UInt8], || {
        Box::new(Sampled { samples: Vec::new(), hashes: Hashes::default(), bytes: 0 })
    })
}

fn uniq_exact(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    no_parameters("uniqExact", &call)?;
    exact("uniqExact", call.arguments)
}

/// The exact number of different tuples, for `count(DISTINCT ..)` too.
pub(super) fn exact(name: &str, arguments: Vec<Typed>) -> Result<Aggregated, Refusal> {
    if arguments.is_empty() {
        return Err(Refusal::query(format!("function {name} takes at least one argument to tell apart")));
    }
    build("uniqExact", arguments, vec![words_type()], || {
        Box::new(Exact { sets: Vec::new(), hashes: Hashes::default(), bytes: 0 })
    })
}

fn build(
    name: &'static str,
    arguments: Vec<Typed>,
    state: Vec<DataType>,
    make: impl Fn() -> Box<dyn Groups> + Send + Sync + 'static,
) -> Result<Aggregated, Refusal> {
    if arguments.is_empty() {
        return Err(Refusal::query(format!("function {name} takes at least 1 argument, not 0")));
    }
    let nothing = Type::UInt8.nullable();
    let arguments = arguments
        .into_iter()
        .map(|x| if x.ty == Type::Nothing { coerce(x, &nothing) } else { Ok(x) })
        .map(|x| x.map(|x| x.expr))
        .collect::<Result<Vec<_>, Refusal>>()?;
    let empty = ScalarValue::UInt64(Some(0));
    let definition =
        Definition { name, parameters: String::new(), state, returns: DataType::UInt64, empty: empty.clone() };
    Ok(Aggregated {
        function: own::function(definition, make),
        arguments,
        distinct: false,
        filter: None,
        ty: Type::UInt64,
        empty: Some(empty),
    })
}

/// One set of 128-bit keys per group.
struct Exact {
    sets: Vec<KeySet<u128>>,
    hashes: Hashes,
    bytes: usize,
}

impl Groups for Exact {
    fn resize(&mut self, groups: usize) {
        self.sets.resize_with(groups, KeySet::new);
    }

    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let key = self.hashes.long(columns)?;
        rows.each(|row, group| {
            let set = &mut self.sets[group];
            let before = set.bytes();
            set.insert(key(row));
            self.bytes += set.bytes() - before;
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        each_words(&states[0], |row, words| {
            let set = &mut self.sets[groups.map_or(0, |groups| groups[row])];
            let before = set.bytes();
            for pair in words.chunks_exact(2) {
                set.insert((u128::from(pair[0]) << 64) | u128::from(pair[1]));
            }
            self.bytes += set.bytes() - before;
        });
        Ok(())
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        Ok(Arc::new(self.sets[..first].iter().map(|set| set.len() as u64).collect::<UInt64Array>()))
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        let halves = |set: &KeySet<u128>| set.iter().flat_map(|key| [(key >> 64) as u64, key as u64]).collect();
        Ok(vec![words(self.sets[..first].iter().map(halves))])
    }

    fn forget(&mut self, first: usize) {
        for set in self.sets.drain(..first) {
            self.bytes -= set.bytes();
        }
    }

    fn size(&self) -> usize {
        self.bytes + self.hashes.bytes() + self.sets.capacity() * size_of::<KeySet<u128>>()
    }
}

/// Hashes that end in at least `level` zeros: each stands for 2^level values.
struct Sample {
    kept: KeySet<u64>,
    level: u8,
}

impl Sample {
    fn insert(&mut self, hash: u64) {
        if hash.trailing_zeros() < u32::from(self.level) {
            return;
        }
        self.kept.insert(hash);
        while self.kept.len() > SAMPLE_MAX {
            self.raise(self.level + 1);
        }
    }

    fn raise(&mut self, level: u8) {
        if level > self.level {
            self.level = level;
            self.kept.retain(|hash| hash.trailing_zeros() >= u32::from(level));
        }
    }
}

struct Sampled {
    samples: Vec<Sample>,
    hashes: Hashes,
    bytes: usize,
}

impl Groups for Sampled {
    fn resize(&mut self, groups: usize) {
        self.samples.resize_with(groups, || Sample { kept: KeySet::new(), level: 0 });
    }

    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let hashes = self.hashes.short(columns)?;
        rows.each(|row, group| {
            let sample = &mut self.samples[group];
            let before = sample.kept.bytes();
            sample.insert(hashes[row]);
            self.bytes += sample.kept.bytes() - before;
        });
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        let levels = states[1].as_primitive::<UInt8Type>();
        each_words(&states[0], |row, words| {
            let sample = &mut self.samples[groups.map_or(0, |groups| groups[row])];
            let before = sample.kept.bytes();
            sample.raise(levels.value(row));
            for &hash in words {
                sample.insert(hash);
            }
            self.bytes += sample.kept.bytes() - before;
        });
        Ok(())
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        let estimate = |sample: &Sample| (sample.kept.len() as u64) << sample.level;
        Ok(Arc::new(self.samples[..first].iter().map(estimate).collect::<UInt64Array>()))
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        let samples = &self.samples[..first];
        let levels: UInt8Array = samples.iter().map(|sample| sample.level).collect::<Vec<_>>().into();
        Ok(vec![words(samples.iter().map(|sample| sample.kept.iter().collect())), Arc::new(levels)])
    }

    fn forget(&mut self, first: usize) {
        for sample in self.samples.drain(..first) {
            self.bytes -= sample.kept.bytes();
        }
    }

    fn size(&self) -> usize {
        self.bytes + self.hashes.bytes() + self.samples.capacity() * size_of::<Sample>()
    }
}
