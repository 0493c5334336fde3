//! What a result column is called (section 10 of the contract).

use std::fmt::Write as _;

use datafusion::common::ScalarValue;

use super::scope::Scope;
use crate::sql::aggregates;
use crate::sql::functions;
use crate::sql::gate::tree::{Bound, Call, Expr, Frame, Kind, Over, Set, SortKey, Window};
use crate::sql::operators::{self, Part};

/// Functions that ClickHouse calls differently once they are parsed.
const RENAMED: &[(&str, &str)] = &[("trim", "trimBoth"), ("substring", "substring")];

/// The name of a select item: its alias, a column's own name, or the canonical text of its expression.
pub(super) fn name(scope: &Scope<'_>, item: &Expr) -> String {
    match &item.kind {
        Kind::Alias(_, name) => name.clone(),
        _ => {
            let mut text = String::new();
            write(scope, item, &mut text);
            text
        }
    }
}

fn write(scope: &Scope<'_>, expr: &Expr, text: &mut String) {
    match &expr.kind {
        Kind::Null => text.push_str("NULL"),
        Kind::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Kind::Number(written) => text.push_str(&number(written)),
        Kind::Text(value) => quote(value, text),
        Kind::Name(path) => match scope.column(path) {
            Some(column) if !hidden(scope, path) => text.push_str(&scope.shown(column)),
            _ => text.push_str(&path.join(".")),
        },
        Kind::Star => text.push('*'),
        Kind::QualifiedStar(table) => {
            let _ = write!(text, "{table}.*");
        }
        Kind::Call(call) => write_call(scope, call, text),
        Kind::Negate(value) => list(scope, "negate", [&**value], text),
        Kind::Not(value) => list(scope, "not", [&**value], text),
        Kind::And(parts) => list(scope, "and", parts, text),
        Kind::Or(parts) => list(scope, "or", parts, text),
        Kind::Binary(operator, left, right) => list(scope, operator.name(), [&**left, &**right], text),
        Kind::IsNull { value, negated } => {
            list(scope, if *negated { "isNotNull" } else { "isNull" }, [&**value], text);
        }
        Kind::Between { value, low, high, negated } => {
            let (both, first, second) =
                if *negated { ("or", "less", "greater") } else { ("and", "greaterOrEquals", "lessOrEquals") };
            let _ = write!(text, "{both}(");
            list(scope, first, [&**value, &**low], text);
            text.push_str(", ");
            list(scope, second, [&**value, &**high], text);
            text.push(')');
        }
        Kind::In { value, set, negated } => {
            text.push_str(if *negated { "notIn(" } else { "in(" });
            write(scope, value, text);
            text.push_str(", ");
            match set {
                Set::List(items) => match items.as_slice() {
                    [only] => write(scope, only, text),
                    several => enclosed(scope, "(", several, ")", text),
                },
                Set::Array(items) => enclosed(scope, "[", items, "]", text),
                Set::Query(_) => text.push_str("_subquery"),
                Set::Table(name) => text.push_str(name),
            }
            text.push(')');
        }
        Kind::Subquery(_) => text.push_str("_subquery"),
        Kind::Cast(value, target) => {
            text.push_str("CAST(");
            write(scope, value, text);
            text.push_str(", ");
            quote(&target.written, text);
            text.push(')');
        }
        Kind::Case { operand, branches, otherwise } => {
            text.push_str(if operand.is_some() { "caseWithExpression(" } else { "multiIf(" });
            for part in operand.iter().map(AsRef::as_ref).chain(branches.iter().flat_map(|(when, then)| [when, then])) {
                write(scope, part, text);
                text.push_str(", ");
            }
            match otherwise {
                Some(otherwise) => write(scope, otherwise, text),
                None => text.push_str("NULL"),
            }
            text.push(')');
        }
        Kind::If(parts) => list(scope, "if", parts.iter(), text),
        Kind::Array(items) => enclosed(scope, "[", items, "]", text),
        Kind::Tuple(items) => enclosed(scope, "(", items, ")", text),
        Kind::Element(array, index) => list(scope, "arrayElement", [&**array, &**index], text),
        Kind::Lambda(parameters, body) => {
            let _ = write!(text, "lambda(tuple({}), ", parameters.join(", "));
            write(scope, body, text);
            text.push(')');
        }
        Kind::Interval(amount, unit) => list(scope, &format!("toInterval{unit:?}"), [&**amount], text),
        Kind::Extract(part, value) => list(scope, extraction(*part), [&**value], text),
        Kind::Alias(_, name) => text.push_str(name),
    }
}

/// Whether an alias of the SELECT, and not a column, is what a name means here.
fn hidden(scope: &Scope<'_>, path: &[String]) -> bool {
    path.last().is_some_and(|name| scope.aliases.contains_key(name.as_str()))
}

fn write_call(scope: &Scope<'_>, call: &Call, text: &mut String) {
    let Call { name, parameters, arguments, distinct, over } = call;
    let known = aggregates::find(name)
        .map(|known| (known.name, known.case_sensitive))
        .or_else(|| functions::find(name).map(|known| (known.name, known.case_sensitive)));
    let renamed = RENAMED.iter().find(|(from, _)| from.eq_ignore_ascii_case(name));
    match (renamed, known) {
        (Some((_, name)), _) => text.push_str(name),
        (None, Some((canonical, true))) => text.push_str(canonical),
        (None, Some((_, false))) => text.push_str(name),
        (None, None) if name.eq_ignore_ascii_case("arrayJoin") => text.push_str("arrayJoin"),
        (None, None) if name.eq_ignore_ascii_case("arrayFilter") => text.push_str("arrayFilter"),
        (None, None) => text.push_str(name),
    }
    if *distinct {
        text.push_str("Distinct");
    }
    if let Some(parameters) = parameters {
        enclosed(scope, "(", parameters, ")", text);
    }
    enclosed(scope, "(", arguments, ")", text);
    match over {
        None => {}
        Some(Over::Named(name)) => {
            let _ = write!(text, " OVER {name}");
        }
        Some(Over::Window(window)) => {
            text.push_str(" OVER (");
            write_window(scope, window, text);
            text.push(')');
        }
    }
}

fn write_window(scope: &Scope<'_>, window: &Window, text: &mut String) {
    let Window { base, partition_by, order_by, frame } = window;
    let mut parts = Vec::new();
    parts.extend(base.clone());
    if !partition_by.is_empty() {
        let mut part = String::new();
        enclosed(scope, "PARTITION BY ", partition_by, "", &mut part);
        parts.push(part);
    }
    if !order_by.is_empty() {
        let mut part = "ORDER BY ".to_owned();
        for (at, SortKey { value, descending, nulls_first, fill: _ }) in order_by.iter().enumerate() {
            part.push_str(if at == 0 { "" } else { ", " });
            write(scope, value, &mut part);
            part.push_str(if *descending { " DESC" } else { " ASC" });
            part.push_str(if *nulls_first { " NULLS FIRST" } else { "" });
        }
        parts.push(part);
    }
    if let Some(Frame { range, start, end }) = frame {
        let mut part = if *range { "RANGE BETWEEN " } else { "ROWS BETWEEN " }.to_owned();
        write_bound(scope, start, &mut part);
        part.push_str(" AND ");
        write_bound(scope, end, &mut part);
        parts.push(part);
    }
    text.push_str(&parts.join(" "));
}

fn write_bound(scope: &Scope<'_>, bound: &Bound, text: &mut String) {
    let following = match bound {
        Bound::Current => {
            text.push_str("CURRENT ROW");
            return;
        }
        Bound::Unbounded { following } => {
            text.push_str("UNBOUNDED");
            following
        }
        Bound::Offset { by, following } => {
            write(scope, by, text);
            following
        }
    };
    text.push_str(if *following { " FOLLOWING" } else { " PRECEDING" });
}

fn list<'a>(scope: &Scope<'_>, function: &str, arguments: impl IntoIterator<Item = &'a Expr>, text: &mut String) {
    enclosed(scope, &format!("{function}("), arguments, ")", text);
}

fn enclosed<'a>(
    scope: &Scope<'_>,
    open: &str,
    items: impl IntoIterator<Item = &'a Expr>,
    close: &str,
    text: &mut String,
) {
    text.push_str(open);
    for (at, item) in items.into_iter().enumerate() {
        text.push_str(if at == 0 { "" } else { ", " });
        write(scope, item, text);
    }
    text.push_str(close);
}

/// A number as ClickHouse writes it: whole floats keep their point.
fn number(written: &str) -> String {
    match operators::number(written).ok().as_ref().and_then(|typed| typed.as_literal().cloned()) {
        Some(ScalarValue::Float64(Some(value))) => {
            let text = operators::render::float_text(value);
            if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') { format!("{text}.") } else { text }
        }
        Some(value) => value.to_string(),
        None => written.to_owned(),
    }
}

fn quote(value: &str, text: &mut String) {
    text.push('\'');
    for found in value.chars() {
        match found {
            '\'' => text.push_str("\\'"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            '\0' => text.push_str("\\0"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            other => text.push(other),
        }
    }
    text.push('\'');
}

/// The function that EXTRACT stands for.
fn extraction(part: Part) -> &'static str {
    match part {
        Part::Millisecond => "toMillisecond",
        Part::Second => "toSecond",
        Part::Minute => "toMinute",
        Part::Hour => "toHour",
        Part::Day => "toDayOfMonth",
        Part::Week => "toISOWeek",
        Part::Month => "toMonth",
        Part::Quarter => "toQuarter",
        Part::Year => "toYear",
        Part::DayOfWeek => "toDayOfWeek",
        Part::DayOfYear => "toDayOfYear",
        Part::Epoch => "toUnixTimestamp",
    }
}
