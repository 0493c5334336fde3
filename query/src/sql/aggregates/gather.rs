//! `groupArray([DISTINCT] x)`, `groupArray(n)(x)`, `groupUniqArray(x)`, `groupUniqArray(n)(x)` (AN-SEM-20).
//!
//! ClickHouse: an array of the values that are not NULL, of the different ones for `groupUniqArray` and DISTINCT, at most
//! `n` of them; in the order met. `[]` of nothing.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt32Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::{interleave, take};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::Result;

use super::keys::{Hashes, KeySet};
use super::own::{self, Definition, Groups};
use super::rows::Rows;
use super::{Aggregate, Aggregated, Call, one_argument};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::operators::{default_of, exact};
use crate::sql::types::Type;

pub(super) const GROUP_ARRAY: Aggregate =
    Aggregate { name: "groupArray", case_sensitive: true, build: |_: &Context, call| build("groupArray", call) };
pub(super) const GROUP_UNIQ_ARRAY: Aggregate = Aggregate {
    name: "groupUniqArray",
    case_sensitive: true,
    build: |_: &Context, call| build("groupUniqArray", call),
};

fn build(name: &'static str, call: Call) -> Result<Aggregated, Refusal> {
    let limit =
        match call.parameters.as_slice() {
            [] => None,
            [limit] => {
                let limit = limit.as_literal().filter(|_| limit.ty.is_integer()).and_then(exact);
                let limit = limit.and_then(|limit| usize::try_from(limit).ok()).filter(|&limit| limit > 0);
                Some(limit.ok_or_else(|| {
                    Refusal::query(format!("function {name} takes a positive number as its parameter"))
                })?)
            }
            _ => return Err(Refusal::query(format!("function {name} takes one parameter at most"))),
        };
    let unique = call.distinct || name == "groupUniqArray";
    let x = one_argument(name, call.arguments)?;
    let ty = Type::Array(Box::new(x.ty.inner().clone()));
    let DataType::List(item) = ty.arrow() else { return Err(Refusal::query("an array is a list")) };
    let definition = Definition {
        name: if unique { "groupUniqArray" } else { "groupArray" },
        parameters: format!("{limit:?}"),
        state: vec![ty.arrow()],
        returns: ty.arrow(),
        empty: default_of(&ty),
    };
    let make = move || {
        let gathered = Gathered {
            item: Arc::clone(&item),
            limit: limit.unwrap_or(usize::MAX),
            counts: Vec::new(),
            seen: unique.then(Vec::new),
            hashes: Hashes::default(),
            chunks: Vec::new(),
            bytes: 0,
        };
        Box::new(gathered) as Box<dyn Groups>
    };
    Ok(Aggregated {
        function: own::function(definition, make),
        arguments: vec![x.expr],
        distinct: false,
        filter: None,
        empty: Some(default_of(&ty)),
        ty,
    })
}

/// A column that holds no more than its own values: views of text let go of the buffers that they were cut from.
pub fn compact(column: ArrayRef) -> ArrayRef {
    match column.as_string_view_opt() {
        Some(texts) => Arc::new(texts.gc()),
        None => column,
    }
}

/// The values kept so far, batch by batch, each with its group; they are brought together when they are asked for.
struct Gathered {
    item: Arc<Field>,
    limit: usize,
    /// How many values each group has.
    counts: Vec<usize>,
    /// What each group has, where values are kept once.
    seen: Option<Vec<KeySet<u128>>>,
    hashes: Hashes,
    chunks: Vec<(ArrayRef, Vec<u32>)>,
    bytes: usize,
}

impl Gathered {
    fn push(&mut self, column: &ArrayRef, kept: Vec<u32>, groups: Vec<u32>) -> Result<()> {
        if kept.is_empty() {
            return Ok(());
        }
        let values = compact(take(column, &UInt32Array::from(kept), None)?);
        self.bytes += values.get_array_memory_size() + groups.capacity() * size_of::<u32>();
        self.chunks.push((values, groups));
        Ok(())
    }
}

impl Groups for Gathered {
    fn resize(&mut self, groups: usize) {
        self.counts.resize(groups, 0);
        if let Some(seen) = &mut self.seen {
            seen.resize_with(groups, KeySet::new);
        }
    }

    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let (mut kept, mut groups) = (Vec::new(), Vec::new());
        let Gathered { counts, seen, hashes, limit, bytes, .. } = self;
        let mut keep = |row: usize, group: usize| {
            if counts[group] < *limit {
                counts[group] += 1;
                kept.push(row as u32);
                groups.push(group as u32);
            }
        };
        match seen {
            None => rows.each(keep),
            Some(seen) => {
                let key = hashes.long(&columns[..1])?;
                rows.each(|row, group| {
                    let set = &mut seen[group];
                    if set.len() < *limit {
                        let before = set.bytes();
                        if set.insert(key(row)) {
                            keep(row, group);
                        }
                        *bytes += set.bytes() - before;
                    }
                });
            }
        }
        self.push(&columns[0], kept, groups)
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        let lists = states[0].as_list::<i32>();
        let from = lists.value_offsets()[0] as usize;
        let to = lists.value_offsets()[lists.len()] as usize;
        let values = lists.values().slice(from, to - from);
        let of_values: Vec<usize> = lists
            .value_offsets()
            .windows(2)
            .enumerate()
            .flat_map(|(row, pair)| {
                std::iter::repeat_n(groups.map_or(0, |groups| groups[row]), (pair[1] - pair[0]) as usize)
            })
            .collect();
        let columns = [values];
        self.update(&columns, &Rows::new(&columns, Some(&of_values), None))
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        let lengths = &self.counts[..first];
        let mut next: Vec<usize> = lengths
            .iter()
            .scan(0, |sum, &length| {
                let start = *sum;
                *sum += length;
                Some(start)
            })
            .collect();
        let total = lengths.iter().sum();
        let mut places = vec![(0, 0); total];
        for (chunk, (_, groups)) in self.chunks.iter().enumerate() {
            for (row, &group) in groups.iter().enumerate() {
                if let Some(slot) = next.get_mut(group as usize) {
                    places[*slot] = (chunk, row);
                    *slot += 1;
                }
            }
        }
        let chunks: Vec<&dyn Array> = self.chunks.iter().map(|(values, _)| values.as_ref()).collect();
        let values = if places.is_empty() {
            datafusion::arrow::array::new_empty_array(self.item.data_type())
        } else {
            interleave(&chunks, &places)?
        };
        let offsets = OffsetBuffer::from_lengths(lengths.iter().copied());
        Ok(Arc::new(ListArray::try_new(Arc::clone(&self.item), offsets, values, None)?))
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(first)?])
    }

    fn forget(&mut self, first: usize) {
        self.counts.drain(..first);
        if let Some(seen) = &mut self.seen {
            for set in seen.drain(..first) {
                self.bytes -= set.bytes();
            }
        }
        let chunks = std::mem::take(&mut self.chunks);
        for (values, groups) in chunks {
            self.bytes -= values.get_array_memory_size() + groups.capacity() * size_of::<u32>();
            let staying = groups.iter().enumerate().filter(|(_, group)| **group as usize >= first);
            let (kept, moved): (Vec<u32>, Vec<u32>) =
                staying.map(|(row, group)| (row as u32, group - first as u32)).unzip();
            // Rows of a chunk can always be taken from it.
            let _ = self.push(&values, kept, moved);
        }
    }

    fn size(&self) -> usize {
        self.bytes
            + self.hashes.bytes()
            + self.counts.capacity() * size_of::<usize>()
            + self.seen.as_ref().map_or(0, |seen| seen.capacity() * size_of::<KeySet<u128>>())
            + self.chunks.capacity() * size_of::<(ArrayRef, Vec<u32>)>()
    }
}
