//! Names of types, as CAST and `::` take them.

use chrono_tz::Tz;

use super::Parser;
use crate::error::Refusal;
use crate::sql::gate::lex::{Lexeme, tokens};
use crate::sql::gate::tree::Target;
use crate::sql::types::Type;

/// Most digits of a Decimal that 128 bits hold.
const DECIMAL_DIGITS_MAX: u8 = 38;
/// Finest DateTime64: nanoseconds.
const PRECISION_MAX: u8 = 9;

/// Reads a type.
pub(super) fn read(parser: &mut Parser<'_>) -> Result<Target, Refusal> {
    parser.nested(|parser| {
        let at = parser.at();
        let name = parser.name("a type")?;
        let mut arguments = Vec::new();
        if parser.symbol("(") {
            arguments = parser.list(argument)?;
            parser.expect_symbol(")")?;
        }
        let width = match (name.as_str(), arguments.as_slice()) {
            ("FixedString", [Argument::Number(width)]) if *width > 0 => Some(*width),
            _ => None,
        };
        let ty = width
            .map(|_| Type::String)
            .or_else(|| build(&name, &arguments))
            .ok_or_else(|| super::syntax(parser.text, at, &format!("`{name}` is no type that a query can use here")))?;
        let written: Vec<String> = arguments.iter().map(Argument::written).collect();
        let written = if written.is_empty() { name } else { format!("{name}({})", written.join(", ")) };
        Ok(Target { ty, width, written })
    })
}

/// Reads a type that is all of a text: `CAST(x, 'Int32')`.
pub(super) fn read_text(text: &str) -> Result<Target, Refusal> {
    let tokens = tokens(text)?;
    let mut parser = Parser::new(text, &tokens);
    let found = read(&mut parser)?;
    parser.end()?;
    Ok(found)
}

enum Argument {
    Number(u8),
    Text(String),
    Type(Type, String),
}

impl Argument {
    fn written(&self) -> String {
        match self {
            Argument::Number(number) => number.to_string(),
            Argument::Text(text) => format!("'{text}'"),
            Argument::Type(_, written) => written.clone(),
        }
    }
}

fn argument(parser: &mut Parser<'_>) -> Result<Argument, Refusal> {
    match parser.peek().clone() {
        Lexeme::Number(number) => {
            let number = number.parse().map_err(|_| parser.unexpected("a small whole number"))?;
            parser.advance();
            Ok(Argument::Number(number))
        }
        Lexeme::Text(text) => {
            parser.advance();
            Ok(Argument::Text(text))
        }
        _ => {
            let at = parser.at();
            let Target { ty, width, written } = read(parser)?;
            match width {
                None => Ok(Argument::Type(ty, written)),
                Some(_) => Err(super::syntax(parser.text, at, "a FixedString stands in no other type here")),
            }
        }
    }
}

fn build(name: &str, arguments: &[Argument]) -> Option<Type> {
    let decimal = |digits: u8, scale: u8| {
        (1..=DECIMAL_DIGITS_MAX).contains(&digits).then_some(())?;
        (scale <= digits).then(|| Type::Decimal(digits, i8::try_from(scale).unwrap_or(0)))
    };
    // Some names are ClickHouse's own and keep their case; those of other dialects do not.
    Some(match (name, arguments) {
        ("Int8", []) => Type::Int8,
        ("Int16", []) => Type::Int16,
        ("Int32", []) => Type::Int32,
        ("Int64", []) => Type::Int64,
        ("UInt8", []) => Type::UInt8,
        ("UInt16", []) => Type::UInt16,
        ("UInt32", []) => Type::UInt32,
        ("UInt64", []) => Type::UInt64,
        ("Float32", []) => Type::Float32,
        ("Float64", []) => Type::Float64,
        ("String", []) => Type::String,
        ("Nullable", [Argument::Type(inner, _)]) => match inner {
            Type::Array(_) | Type::Nullable(_) | Type::Nothing => return None,
            inner => inner.clone().nullable(),
        },
        ("LowCardinality", [Argument::Type(inner, _)]) => inner.clone(),
        ("Array", [Argument::Type(element, _)]) => Type::Array(Box::new(element.clone())),
        ("DateTime64", [Argument::Number(precision)]) if *precision <= PRECISION_MAX => {
            Type::DateTime64(*precision, None)
        }
        ("DateTime64", [Argument::Number(precision), Argument::Text(zone)]) if *precision <= PRECISION_MAX => {
            Type::DateTime64(*precision, self::zone(zone)?)
        }
        _ => match (name.to_ascii_lowercase().as_str(), arguments) {
            ("bool" | "boolean", []) => Type::Bool,
            ("tinyint", []) => Type::Int8,
            ("smallint", []) => Type::Int16,
            ("int" | "integer", []) => Type::Int32,
            ("bigint", []) => Type::Int64,
            ("float" | "real", []) => Type::Float32,
            ("double", []) => Type::Float64,
            ("text" | "varchar" | "char", []) => Type::String,
            ("date" | "date32", []) => Type::Date,
            ("datetime" | "timestamp", []) => Type::DateTime(None),
            ("datetime", [Argument::Text(zone)]) => Type::DateTime(self::zone(zone)?),
            ("decimal" | "numeric", [Argument::Number(digits)]) => decimal(*digits, 0)?,
            ("decimal" | "numeric", [Argument::Number(digits), Argument::Number(scale)]) => decimal(*digits, *scale)?,
            ("decimal32", [Argument::Number(scale)]) => decimal(9, *scale)?,
            ("decimal64", [Argument::Number(scale)]) => decimal(18, *scale)?,
            ("decimal128", [Argument::Number(scale)]) => decimal(38, *scale)?,
            _ => return None,
        },
    })
}

/// A time zone; UTC is the server's own and needs no mention.
fn zone(name: &str) -> Option<Option<Tz>> {
    name.parse::<Tz>().ok().map(Some)
}
