//! Evaluates expressions as text, for tables of cases: each line of a table is an expression, and what ClickHouse says it
//! is.
//!
//! A case is computed twice: once over constants, which folds it while it is bound, and once with the first constant of
//! every call and operator made a column of several rows, so that the kernels run; both must agree.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::Schema;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::logical_expr::execution_props::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{ColumnarValue, Expr as Plan};
use datafusion::physical_expr::create_physical_expr;
use sqlparser::ast::{
    AccessExpr, BinaryOperator, CeilFloorKind, DataType as Written, DateTimeField, Expr, FunctionArg, FunctionArgExpr,
    FunctionArguments, Subscript, UnaryOperator, Value,
};
use sqlparser::dialect::ClickHouseDialect;
use sqlparser::parser::Parser;

use super::functions::{self, Context};
use super::operators::{self, render};
use super::typed::Typed;
use super::types::{Type, Unit};
use crate::error::Refusal;

/// Rows of the batch that the kernels run over.
const ROWS: usize = 3;

/// 2026-11-30 10:17:32.870 UTC.
pub const NOW_MS: i64 = 1_796_033_852_870;

/// Checks a table: `expression => Type 'value'` in ClickHouse's spelling, or `expression => refused`. Blank lines are free.
pub fn cases(table: &str) {
    let mut wrong = Vec::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let Some((expression, expected)) = line.rsplit_once(" => ") else {
            wrong.push(format!("no expectation: {line}"));
            continue;
        };
        for columns in [false, true] {
            let shown = match evaluate(expression.trim(), columns) {
                Ok((ty, value)) => format!("{ty} {value}"),
                Err(_) if columns => continue,
                Err(refusal) if expected == "refused" => {
                    assert!(matches!(refusal, Refusal::Query(_)), "{refusal:?}");
                    continue;
                }
                Err(refusal) => format!("refused: {refusal}"),
            };
            if shown != expected {
                let how = if columns { "over columns" } else { "over constants" };
                wrong.push(format!("{expression} ({how})\n     gives {shown}\n  expected {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// The type and the value of an expression, the value quoted as a literal or NULL.
pub fn evaluate(text: &str, columns: bool) -> Result<(String, String), Refusal> {
    let expr = Parser::new(&ClickHouseDialect {})
        .try_with_sql(text)
        .and_then(|mut parser| parser.parse_expr())
        .map_err(|error| Refusal::query(error.to_string()))?;
    let mut binder = Binder { columns: Vec::new(), spread: columns };
    let typed = binder.bind(&expr)?;
    let column = run(&typed, &binder.columns).map_err(|error| super::kernel::refusal(&error))?;
    assert_eq!(*column.data_type(), typed.ty.arrow(), "{text} is not of the Arrow type that {} says", typed.ty);
    let texts: Vec<String> = (0..column.len())
        .map(|row| {
            let value = column.slice(row, 1);
            if value.null_count() > 0 || typed.ty == Type::Nothing {
                return Ok("NULL".to_owned());
            }
            let text = render::text(&value, &typed.ty).map_err(|error| super::kernel::refusal(&error))?;
            let shown = ScalarValue::try_from_array(&text, 0).expect("a row of text");
            Ok(format!("{:?}", shown.to_string()))
        })
        .collect::<Result<_, Refusal>>()?;
    assert!(texts.windows(2).all(|pair| pair[0] == pair[1]), "equal rows differ: {text}: {texts:?}");
    let ty = if typed.ty == Type::Nothing { "Nullable(Nothing)".to_owned() } else { typed.ty.to_string() };
    Ok((ty, texts[0].clone()))
}

/// Computes an expression over columns `c0`, `c1`, ..
pub fn run(typed: &Typed, columns: &[ArrayRef]) -> datafusion::common::Result<ArrayRef> {
    let fields: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            datafusion::arrow::datatypes::Field::new(format!("c{at}"), column.data_type().clone(), true)
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let rows = columns.first().map_or(1, |column| column.len());
    let options = datafusion::arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(Arc::clone(&schema), columns.to_vec(), &options)?;
    let schema = DFSchema::try_from(schema)?;
    let planning = PhysicalPlanningContext::default();
    match create_physical_expr(&typed.expr, &schema, &ExecutionProps::new(), &planning)?.evaluate(&batch)? {
        ColumnarValue::Array(column) => Ok(column),
        ColumnarValue::Scalar(value) => value.to_array_of_size(rows),
    }
}

struct Binder {
    columns: Vec<ArrayRef>,
    /// Whether first constants become columns.
    spread: bool,
}

impl Binder {
    fn first(&mut self, expr: &Expr) -> Result<Typed, Refusal> {
        let typed = self.bind(expr)?;
        if self.spread { self.spread(typed) } else { Ok(typed) }
    }

    /// A constant as a column of equal rows.
    fn spread(&mut self, typed: Typed) -> Result<Typed, Refusal> {
        let Some(value) = typed.as_literal() else { return Ok(typed) };
        if typed.ty == Type::Nothing {
            return Ok(typed);
        }
        let column = value.to_array_of_size(ROWS).map_err(|error| super::kernel::refusal(&error))?;
        let name = format!("c{}", self.columns.len());
        self.columns.push(column);
        Ok(Typed::new(Plan::Column(Column::from_name(name)), typed.ty))
    }

    fn bind(&mut self, expr: &Expr) -> Result<Typed, Refusal> {
        match expr {
            Expr::Nested(inner) => self.bind(inner),
            Expr::Value(value) => match &value.value {
                Value::Number(text, _) => operators::number(text),
                Value::SingleQuotedString(text) => Ok(Typed::text(text)),
                Value::Boolean(value) => Ok(operators::boolean(*value)),
                Value::Null => Ok(operators::null()),
                other => panic!("no such literal in tables of cases: {other}"),
            },
            Expr::Identifier(name) => match name.value.as_str() {
                "nan" => Ok(Typed::literal(ScalarValue::Float64(Some(f64::NAN)), Type::Float64)),
                "inf" => Ok(Typed::literal(ScalarValue::Float64(Some(f64::INFINITY)), Type::Float64)),
                other => panic!("no columns in tables of cases: {other}"),
            },
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => match expr.as_ref() {
                Expr::Value(value) if matches!(value.value, Value::Number(..)) => {
                    let Value::Number(text, _) = &value.value else { unreachable!("just matched") };
                    operators::number(&format!("-{text}"))
                }
                other => operators::negate(self.first(other)?),
            },
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => operators::not(self.first(expr)?),
            Expr::IsNull(inner) => operators::is_null(self.first(inner)?),
            Expr::IsNotNull(inner) => operators::is_not_null(self.first(inner)?),
            Expr::BinaryOp { left, op, right } => {
                let (a, b) = (self.first(left)?, self.bind(right)?);
                match op {
                    BinaryOperator::Plus => operators::plus(a, b),
                    BinaryOperator::Minus => operators::minus(a, b),
                    BinaryOperator::Multiply => operators::multiply(a, b),
                    BinaryOperator::Divide => operators::divide(a, b),
                    BinaryOperator::Modulo => operators::modulo(a, b),
                    BinaryOperator::Eq => operators::equals(a, b),
                    BinaryOperator::NotEq => operators::not_equals(a, b),
                    BinaryOperator::Lt => operators::less(a, b),
                    BinaryOperator::LtEq => operators::less_or_equals(a, b),
                    BinaryOperator::Gt => operators::greater(a, b),
                    BinaryOperator::GtEq => operators::greater_or_equals(a, b),
                    BinaryOperator::And => operators::and(a, b),
                    BinaryOperator::Or => operators::or(a, b),
                    other => panic!("no such operator in tables of cases: {other}"),
                }
            }
            Expr::Between { expr, negated, low, high } => {
                let (a, low, high) = (self.first(expr)?, self.bind(low)?, self.bind(high)?);
                if *negated { operators::not_between(a, low, high) } else { operators::between(a, low, high) }
            }
            Expr::Like { negated, expr, pattern, .. } => {
                let (a, pattern) = (self.first(expr)?, self.bind(pattern)?);
                if *negated { operators::not_like(a, pattern) } else { operators::like(a, pattern) }
            }
            Expr::ILike { negated, expr, pattern, .. } => {
                let (a, pattern) = (self.first(expr)?, self.bind(pattern)?);
                if *negated { operators::not_ilike(a, pattern) } else { operators::ilike(a, pattern) }
            }
            Expr::InList { expr, list, negated } => {
                let a = self.first(expr)?;
                let list = list.iter().map(|one| self.bind(one)).collect::<Result<Vec<_>, _>>()?;
                if *negated { operators::not_in_list(a, list) } else { operators::in_list(a, list) }
            }
            Expr::Tuple(members) => {
                operators::tuple(members.iter().map(|one| self.bind(one)).collect::<Result<_, _>>()?)
            }
            Expr::Array(array) => {
                operators::array(array.elem.iter().map(|one| self.bind(one)).collect::<Result<_, _>>()?)
            }
            Expr::CompoundFieldAccess { root, access_chain } => {
                let mut value = self.first(root)?;
                for access in access_chain {
                    let AccessExpr::Subscript(Subscript::Index { index }) = access else {
                        panic!("no such access in tables of cases: {access}");
                    };
                    value = operators::array_element(value, self.bind(index)?)?;
                }
                Ok(value)
            }
            Expr::Interval(interval) => {
                let unit = match interval.leading_field.as_ref().expect("a unit") {
                    DateTimeField::Nanosecond => Unit::Nanosecond,
                    DateTimeField::Microsecond => Unit::Microsecond,
                    DateTimeField::Millisecond => Unit::Millisecond,
                    DateTimeField::Second => Unit::Second,
                    DateTimeField::Minute => Unit::Minute,
                    DateTimeField::Hour => Unit::Hour,
                    DateTimeField::Day => Unit::Day,
                    DateTimeField::Week(_) => Unit::Week,
                    DateTimeField::Month => Unit::Month,
                    DateTimeField::Quarter => Unit::Quarter,
                    DateTimeField::Year => Unit::Year,
                    other => panic!("no such unit: {other}"),
                };
                let amount = self.first(&interval.value)?;
                operators::interval(amount, unit)
            }
            Expr::Extract { field, expr, .. } => {
                let part = operators::Part::find(&field.to_string()).expect("a part");
                operators::extract(part, self.first(expr)?)
            }
            Expr::Case { operand, conditions, else_result, .. } => {
                let operand = operand.as_ref().map(|one| self.bind(one)).transpose()?;
                let branches = conditions
                    .iter()
                    .map(|when| Ok((self.first(&when.condition)?, self.bind(&when.result)?)))
                    .collect::<Result<_, Refusal>>()?;
                let otherwise = else_result.as_ref().map(|one| self.bind(one)).transpose()?;
                operators::case(operand, branches, otherwise)
            }
            Expr::Cast { expr, data_type, .. } => {
                let x = self.first(expr)?;
                operators::cast(x, &target(data_type))
            }
            Expr::Function(call) => {
                let name = call.name.to_string();
                self.call(&name, &call.args)
            }
            Expr::Substring { expr, substring_from, substring_for, .. } => {
                let mut arguments = vec![self.first(expr)?];
                for part in [substring_from, substring_for].into_iter().flatten() {
                    arguments.push(self.bind(part)?);
                }
                function("substring", arguments)
            }
            Expr::Trim { expr, trim_characters, .. } => {
                let mut arguments = vec![self.first(expr)?];
                for characters in trim_characters.iter().flatten() {
                    arguments.push(self.bind(characters)?);
                }
                function("trim", arguments)
            }
            Expr::Floor { expr, field } => self.round("floor", expr, field),
            Expr::Ceil { expr, field } => self.round("ceil", expr, field),
            other => panic!("no such expression in tables of cases: {other:?}"),
        }
    }

    fn round(&mut self, name: &str, expr: &Expr, places: &CeilFloorKind) -> Result<Typed, Refusal> {
        let mut arguments = vec![self.first(expr)?];
        if let CeilFloorKind::Scale(places) = places {
            arguments.push(self.bind(&Expr::Value(places.clone()))?);
        }
        function(name, arguments)
    }

    fn call(&mut self, name: &str, arguments: &FunctionArguments) -> Result<Typed, Refusal> {
        let FunctionArguments::List(list) = arguments else { panic!("{name} without arguments") };
        let mut bound = Vec::new();
        for (at, argument) in list.args.iter().enumerate() {
            let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = argument else { panic!("no such argument") };
            bound.push(if at == 0 && name != "date_trunc" { self.first(expr)? } else { self.bind(expr)? });
        }
        // Helpers of the tables that ClickHouse has too.
        let as_type = |ty: Type, bound: Vec<Typed>| {
            let [x] = <[Typed; 1]>::try_from(bound).map_err(|_| Refusal::query("one argument"))?;
            operators::convert(x, &ty)
        };
        match name {
            "materialize" => {
                let [x] = <[Typed; 1]>::try_from(bound).map_err(|_| Refusal::query("one argument"))?;
                self.spread(x)
            }
            "toNullable" => {
                let [x] = <[Typed; 1]>::try_from(bound).map_err(|_| Refusal::query("one argument"))?;
                Ok(Typed { ty: x.ty.clone().nullable(), ..x })
            }
            "toUInt8" => as_type(Type::UInt8, bound),
            "toUInt16" => as_type(Type::UInt16, bound),
            "toUInt32" => as_type(Type::UInt32, bound),
            "toUInt64" => as_type(Type::UInt64, bound),
            "toInt8" => as_type(Type::Int8, bound),
            "toInt16" => as_type(Type::Int16, bound),
            "toFloat32" => as_type(Type::Float32, bound),
            _ => function(name, bound),
        }
    }
}

fn function(name: &str, arguments: Vec<Typed>) -> Result<Typed, Refusal> {
    let function = functions::find(name).unwrap_or_else(|| panic!("no function {name}"));
    (function.call)(&Context { now_ms: NOW_MS }, arguments)
}

fn target(written: &Written) -> Type {
    let text = written.to_string().replace('\'', "");
    let (name, parameters) = text.split_once('(').unwrap_or((&text, ""));
    let parameters: Vec<&str> = parameters.trim_end_matches(')').split(',').map(str::trim).collect();
    let number = |at: usize| parameters.get(at).and_then(|text| text.parse().ok()).unwrap_or(0);
    let zone = |at: usize| parameters.get(at).and_then(|text| text.parse().ok());
    match name.to_ascii_lowercase().as_str() {
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "uint8" => Type::UInt8,
        "uint16" => Type::UInt16,
        "uint32" => Type::UInt32,
        "uint64" => Type::UInt64,
        "float32" => Type::Float32,
        "float64" => Type::Float64,
        "bool" => Type::Bool,
        "string" => Type::String,
        "date" => Type::Date,
        "datetime" => Type::DateTime(zone(0)),
        "datetime64" => Type::DateTime64(number(0), zone(1)),
        "decimal" => Type::Decimal(number(0), number(1) as i8),
        "nullable" => {
            let Written::Nullable(inner) = written else { panic!("not nullable: {written}") };
            target(inner).nullable()
        }
        "array" => {
            let Written::Array(
                sqlparser::ast::ArrayElemTypeDef::AngleBracket(inner)
                | sqlparser::ast::ArrayElemTypeDef::Parenthesis(inner),
            ) = written
            else {
                panic!("not an array: {written}")
            };
            Type::Array(Box::new(target(inner)))
        }
        other => panic!("no such type in tables of cases: {other}"),
    }
}
