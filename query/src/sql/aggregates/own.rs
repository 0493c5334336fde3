//! An aggregate function of DataFusion's made from a state per group: what every aggregate of the dialect lowers to where
//! none of DataFusion's means the same. One implementation of [`Groups`] serves GROUP BY, the aggregate without groups
//! (which is group 0), running windows, and windows whose start moves, which are computed anew from the rows in the frame.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, Signature, Volatility,
};

use super::rows::Rows;

/// The states of an aggregate for groups that are numbered from zero.
pub trait Groups: Send + Sync {
    /// Makes room for so many groups; those that are new have seen no row.
    fn resize(&mut self, groups: usize);

    /// Takes rows of the arguments.
    fn update(&mut self, columns: &[ArrayRef], rows: &Rows<'_>) -> Result<()>;

    /// Takes states that others have given, each into its group (all into group 0 where none are named).
    fn merge(&mut self, states: &[ArrayRef], groups: Option<&[usize]>) -> Result<()>;

    /// The results of the first groups.
    fn values(&self, first: usize) -> Result<ArrayRef>;

    /// The states of the first groups, one column per part.
    fn states(&self, first: usize) -> Result<Vec<ArrayRef>>;

    /// Drops the first groups; the others move down.
    fn forget(&mut self, first: usize);

    /// Bytes held, which the query's memory is charged with.
    fn size(&self) -> usize;
}

type Make = dyn Fn() -> Box<dyn Groups> + Send + Sync;

/// What an own aggregate is. Two are the same where name, parameters and result type are.
pub struct Definition {
    /// Its name in plans.
    pub name: &'static str,
    /// What the states depend on besides their arguments.
    pub parameters: String,
    /// The Arrow types of a state's parts.
    pub state: Vec<DataType>,
    /// The Arrow type of the result.
    pub returns: DataType,
    /// The result over a frame without rows.
    pub empty: ScalarValue,
}

struct Own {
    definition: Definition,
    signature: Signature,
    make: Arc<Make>,
}

/// DataFusion's function of a definition, whose states `make` makes.
pub fn function(
    definition: Definition,
    make: impl Fn() -> Box<dyn Groups> + Send + Sync + 'static,
) -> Arc<AggregateUDF> {
    let signature = Signature::variadic_any(Volatility::Immutable);
    Arc::new(AggregateUDF::new_from_impl(Own { definition, signature, make: Arc::new(make) }))
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Definition { name, parameters, returns, .. } = &self.definition;
        write!(f, "{name}[{parameters}] -> {returns}")
    }
}

impl PartialEq for Own {
    fn eq(&self, other: &Own) -> bool {
        let key = |own: &Own| (own.definition.name, own.definition.parameters.clone(), own.definition.returns.clone());
        key(self) == key(other)
    }
}

impl Eq for Own {}

impl Hash for Own {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
        self.definition.parameters.hash(state);
        self.definition.returns.hash(state);
    }
}

impl AggregateUDFImpl for Own {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(self.definition.returns.clone())
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |(part, ty): (usize, &DataType)| {
            Arc::new(Field::new(format_state_name(arguments.name, &part.to_string()), ty.clone(), true))
        };
        Ok(self.definition.state.iter().enumerate().map(field).collect())
    }

    fn default_value(&self, _ty: &DataType) -> Result<ScalarValue> {
        Ok(self.definition.empty.clone())
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        let mut groups = (self.make)();
        groups.resize(1);
        Ok(Box::new(Single { name: self.definition.name, groups }))
    }

    fn groups_accumulator_supported(&self, _arguments: AccumulatorArgs<'_>) -> bool {
        true
    }

    fn create_groups_accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(Many { make: Arc::clone(&self.make), groups: (self.make)(), count: 0 }))
    }

    fn create_sliding_accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Sliding {
            name: self.definition.name,
            make: Arc::clone(&self.make),
            frame: VecDeque::new(),
            bytes: 0,
        }))
    }
}

/// For GROUP BY.
struct Many {
    make: Arc<Make>,
    groups: Box<dyn Groups>,
    count: usize,
}

impl Many {
    fn resize(&mut self, count: usize) {
        self.count = count;
        self.groups.resize(count);
    }

    fn emit<T>(&mut self, emit_to: EmitTo, give: impl Fn(&dyn Groups, usize) -> Result<T>) -> Result<T> {
        let first = match emit_to {
            EmitTo::All => self.count,
            EmitTo::First(first) => first,
        };
        let given = give(self.groups.as_ref(), first)?;
        self.groups.forget(first);
        self.count -= first;
        Ok(given)
    }
}

impl GroupsAccumulator for Many {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> Result<()> {
        self.resize(total_num_groups);
        self.groups.update(values, &Rows::new(values, Some(group_indices), opt_filter))
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        self.emit(emit_to, |groups, first| groups.values(first))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.emit(emit_to, |groups, first| groups.states(first))
    }

    fn merge_batch(&mut self, values: &[ArrayRef], group_indices: &[usize], total_num_groups: usize) -> Result<()> {
        self.resize(total_num_groups);
        self.groups.merge(values, Some(group_indices))
    }

    fn convert_to_state(&self, values: &[ArrayRef], opt_filter: Option<&BooleanArray>) -> Result<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let each: Vec<usize> = (0..rows).collect();
        let mut groups = (self.make)();
        groups.resize(rows);
        groups.update(values, &Rows::new(values, Some(&each), opt_filter))?;
        groups.states(rows)
    }

    fn size(&self) -> usize {
        size_of::<Many>() + self.groups.size()
    }
}

/// Without GROUP BY, and for windows that only grow.
struct Single {
    name: &'static str,
    groups: Box<dyn Groups>,
}

impl fmt::Debug for Single {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Single").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Accumulator for Single {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.groups.update(values, &Rows::new(values, None, None))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        ScalarValue::try_from_array(&self.groups.values(1)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Single>() + self.groups.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.groups.states(1)?.iter().map(|part| ScalarValue::try_from_array(part, 0)).collect()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.groups.merge(states, None)
    }
}

/// For windows whose start moves: keeps the rows of the frame and aggregates them anew for every row. The work is bounded
/// by the frame's length, the whole by the query's time.
struct Sliding {
    name: &'static str,
    make: Arc<Make>,
    frame: VecDeque<Vec<ArrayRef>>,
    bytes: usize,
}

impl fmt::Debug for Sliding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sliding").field("name", &self.name).finish_non_exhaustive()
    }
}

fn rows_of(columns: &[ArrayRef]) -> usize {
    columns.first().map_or(0, |column| column.len())
}

fn bytes_of(columns: &[ArrayRef]) -> usize {
    columns.iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

impl Accumulator for Sliding {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        if rows_of(values) > 0 {
            self.bytes += bytes_of(values);
            self.frame.push_back(values.to_vec());
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let mut leaving = rows_of(values);
        while leaving > 0 {
            let Some(oldest) = self.frame.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(bytes_of(&oldest));
            let rows = rows_of(&oldest);
            if rows > leaving {
                let kept: Vec<ArrayRef> = oldest.iter().map(|column| column.slice(leaving, rows - leaving)).collect();
                self.bytes += bytes_of(&kept);
                self.frame.push_front(kept);
            }
            leaving -= rows.min(leaving);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let mut groups = (self.make)();
        groups.resize(1);
        for columns in &self.frame {
            groups.update(columns, &Rows::new(columns, None, None))?;
        }
        ScalarValue::try_from_array(&groups.values(1)?, 0)
    }

    fn size(&self) -> usize {
        size_of::<Sliding>() + self.bytes
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut groups = (self.make)();
        groups.resize(1);
        for columns in &self.frame {
            groups.update(columns, &Rows::new(columns, None, None))?;
        }
        groups.states(1)?.iter().map(|part| ScalarValue::try_from_array(part, 0)).collect()
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        datafusion::common::internal_err!("a window's frame takes rows, not states")
    }
}
