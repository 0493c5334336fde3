//! Aggregates over frames that slide, also those that cannot forget a row.
//!
//! DataFusion computes a frame that slides by taking rows out of an accumulator again. Where one cannot do that, the frame's
//! rows are kept, and what they give is computed anew for each row: the cost is that of the frame.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};

use crate::sql::run::watch;

/// The function, as a window function.
pub fn wrap(function: &Arc<AggregateUDF>) -> AggregateUDF {
    AggregateUDF::new_from_impl(Sliding { function: Arc::clone(function) })
}

#[derive(PartialEq, Eq)]
struct Sliding {
    function: Arc<AggregateUDF>,
}

impl fmt::Debug for Sliding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sliding {}", self.function.name())
    }
}

impl Hash for Sliding {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.function.hash(state);
    }
}

impl AggregateUDFImpl for Sliding {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        self.function.return_type(arguments)
    }

    fn return_field(&self, arguments: &[FieldRef]) -> Result<FieldRef> {
        self.function.return_field(arguments)
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(arguments)
    }

    fn is_nullable(&self) -> bool {
        self.function.is_nullable()
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.function.default_value(data_type)
    }

    fn accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        self.function.accumulator(arguments)
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        self.function.state_fields(arguments)
    }

    fn create_sliding_accumulator(&self, arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let owned = Owned::of(&arguments);
        let sliding = self.function.create_sliding_accumulator(owned.arguments())?;
        if sliding.supports_retract_batch() {
            return Ok(sliding);
        }
        // An accumulator is used up by what it is asked: a fresh one is needed for each answer.
        Ok(Box::new(Kept { owned, function: Arc::clone(&self.function), rows: VecDeque::new() }))
    }
}

/// The arguments of an accumulator, kept to make more of them.
#[derive(Debug)]
struct Owned {
    return_field: FieldRef,
    schema: Schema,
    ignore_nulls: bool,
    order_bys: Vec<PhysicalSortExpr>,
    is_reversed: bool,
    name: String,
    is_distinct: bool,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
}

impl Owned {
    fn of(arguments: &AccumulatorArgs<'_>) -> Owned {
        let AccumulatorArgs {
            return_field,
            schema,
            ignore_nulls,
            order_bys,
            is_reversed,
            name,
            is_distinct,
            exprs,
            expr_fields,
        } = arguments;
        Owned {
            return_field: Arc::clone(return_field),
            schema: (*schema).clone(),
            ignore_nulls: *ignore_nulls,
            order_bys: order_bys.to_vec(),
            is_reversed: *is_reversed,
            name: (*name).to_owned(),
            is_distinct: *is_distinct,
            exprs: exprs.to_vec(),
            expr_fields: expr_fields.to_vec(),
        }
    }

    fn arguments(&self) -> AccumulatorArgs<'_> {
        AccumulatorArgs {
            return_field: Arc::clone(&self.return_field),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &self.order_bys,
            is_reversed: self.is_reversed,
            name: &self.name,
            is_distinct: self.is_distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        }
    }
}

/// How many pieces of a frame may wait before they are made one.
const PIECES_MAX: usize = 64;

/// The rows of a frame.
struct Kept {
    function: Arc<AggregateUDF>,
    owned: Owned,
    rows: VecDeque<Vec<ArrayRef>>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "kept rows of {}", self.function.name())
    }
}

impl Kept {
    fn join_pieces(&mut self) -> Result<()> {
        let columns = self.rows.front().map_or(0, Vec::len);
        let joined = (0..columns)
            .map(|column| {
                let pieces: Vec<_> = self.rows.iter().map(|piece| piece[column].as_ref()).collect();
                Ok(concat(&pieces)?)
            })
            .collect::<Result<Vec<_>>>()?;
        self.rows.clear();
        self.rows.push_back(joined);
        Ok(())
    }
}

impl Accumulator for Kept {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if values.first().is_some_and(|column| !column.is_empty()) {
            self.rows.push_back(values.to_vec());
        }
        if self.rows.len() > PIECES_MAX { self.join_pieces() } else { Ok(()) }
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut leaving = values.first().map_or(0, |column| column.len());
        while leaving > 0 {
            let Some(front) = self.rows.front_mut() else {
                return Err(DataFusionError::Internal("a frame loses rows that it does not have".to_owned()));
            };
            let length = front[0].len();
            if length > leaving {
                for column in front.iter_mut() {
                    *column = column.slice(leaving, length - leaving);
                }
                leaving = 0;
            } else {
                leaving -= length;
                self.rows.pop_front();
            }
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        watch::check()?;
        let mut fresh = self.function.accumulator(self.owned.arguments())?;
        for piece in &self.rows {
            fresh.update_batch(piece)?;
        }
        fresh.evaluate()
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn size(&self) -> usize {
        let columns = self.rows.iter().flatten().map(|column| column.get_array_memory_size()).sum::<usize>();
        size_of_val(self) + columns
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(DataFusionError::Internal("a frame is not aggregated in parts".to_owned()))
    }

    fn merge_batch(&mut self, _: &[ArrayRef]) -> Result<()> {
        Err(DataFusionError::Internal("a frame is not aggregated in parts".to_owned()))
    }
}
