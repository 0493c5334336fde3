//! `any(x)`.
//!
//! ClickHouse: the first value met that is not NULL; the type's default of nothing, NULL where a NULL-able `x` has no value. In
//! a window that is the first of the frame.

use datafusion::arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use datafusion::arrow::compute::{interleave, take};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue};

use super::gather::compact;
use super::own::{self, Definition, Groups};
use super::rows::Rows;
use super::{Aggregate, Aggregated, Call, no_parameters, one_argument};
use crate::error::Refusal;
use crate::sql::functions::Context;
use crate::sql::kernel;
use crate::sql::operators::default_of;

pub(super) const ANY: Aggregate = Aggregate { name: "any", case_sensitive: true, build };

fn build(_: &Context, call: Call) -> Result<Aggregated, Refusal> {
    no_parameters("any", &call)?;
    let x = one_argument("any", call.arguments)?;
    let arrow = x.ty.arrow();
    let definition = Definition {
        name: "any",
        parameters: String::new(),
        state: vec![arrow.clone()],
        returns: arrow.clone(),
        empty: ScalarValue::try_new_null(&arrow).map_err(|error| kernel::refusal(&error))?,
    };
    let make = move || {
        let first = First { ty: arrow.clone(), places: Vec::new(), chunks: Vec::new(), bytes: 0 };
        Box::new(first) as Box<dyn Groups>
    };
    Ok(Aggregated {
        function: own::function(definition, make),
        arguments: vec![x.expr],
        distinct: false,
        filter: None,
        empty: (!x.ty.is_nullable()).then(|| default_of(&x.ty)),
        ty: x.ty,
    })
}

/// For every group where its value stands: in a chunk, which holds the first values that one batch brought.
struct First {
    ty: DataType,
    places: Vec<Option<(u32, u32)>>,
    chunks: Vec<ArrayRef>,
    bytes: usize,
}

impl Groups for First {
    fn resize(&mut self, groups: usize) {
        self.places.resize(groups, None);
    }

    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()> {
        let chunk = self.chunks.len() as u32;
        let mut found: Vec<u32> = Vec::new();
        rows.each(|row, group| {
            let place = &mut self.places[group];
            if place.is_none() {
                *place = Some((chunk, found.len() as u32));
                found.push(row as u32);
            }
        });
        if !found.is_empty() {
            let values = compact(take(&columns[0], &UInt32Array::from(found), None)?);
            self.bytes += values.get_array_memory_size();
            self.chunks.push(values);
        }
        Ok(())
    }

    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()> {
        self.update(states, &Rows::new(states, groups, None))
    }

    fn values(&self, first: usize) -> Result<ArrayRef> {
        let null = new_null_array(&self.ty, 1);
        let mut chunks: Vec<&dyn Array> = self.chunks.iter().map(AsRef::as_ref).collect();
        chunks.push(null.as_ref());
        let nothing = (self.chunks.len(), 0);
        let places: Vec<(usize, usize)> = self.places[..first]
            .iter()
            .map(|place| place.map_or(nothing, |(chunk, row)| (chunk as usize, row as usize)))
            .collect();
        Ok(interleave(&chunks, &places)?)
    }

    fn states(&self, first: usize) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.values(first)?])
    }

    fn forget(&mut self, first: usize) {
        self.places.drain(..first);
        if self.places.is_empty() {
            self.chunks.clear();
            self.bytes = 0;
        }
    }

    fn size(&self) -> usize {
        self.bytes
            + self.places.capacity() * size_of::<Option<(u32, u32)>>()
            + self.chunks.capacity() * size_of::<ArrayRef>()
    }
}
