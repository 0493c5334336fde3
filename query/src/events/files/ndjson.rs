//! NDJSON to batches: each line goes from the parser straight into the columns, without a tree of values between.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, ListBuilder, RecordBatch, StringViewBuilder, UInt64Builder,
};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor};
use serde_json::value::RawValue;

use super::super::columns::TIME_MAX_MS;
use super::super::event::workspace_of;
use super::super::tables::{Column, Family, Table};
use super::{Absent, BATCH_BYTES, BATCH_ROWS, BadRow, FileError, missing, raw, stranger, when_absent};
use crate::sql::types::Type;

/// Bytes of one line, its end included: events are far smaller, and a file that is something else may have no line end.
const LINE_BYTES_MAX: usize = 1 << 20;
/// Bytes that are read from the file at once.
const READ_BYTES: usize = 1 << 18;
/// Characters of a reason: a value that is refused may be as long as a line.
const REASON_CHARS_MAX: usize = 300;

/// The rows of an NDJSON file.
pub(super) struct Ndjson {
    source: BufReader<Box<dyn Read + Send>>,
    table: Table,
    columns: Vec<Slot>,
    /// Goes into every row's `workspace_id`.
    workspace: Option<String>,
    line: Vec<u8>,
    /// Lines read.
    lines: u64,
    bytes: u64,
    ended: bool,
}

/// A column that is being filled.
struct Slot {
    column: Column,
    absent: Absent,
    cells: Cells,
}

/// Values of a column, by what may stand in it.
enum Cells {
    Text(StringViewBuilder),
    Workspace { ids: StringViewBuilder, last: String },
    Tags(ListBuilder<StringViewBuilder>),
    Time(Int64Builder),
    Signed(Int64Builder),
    Unsigned(UInt64Builder),
    Float(Float64Builder),
    Bool(BooleanBuilder),
}

impl Ndjson {
    pub fn new(family: Family, workspace: Option<String>, source: Box<dyn Read + Send>) -> Ndjson {
        let table = raw(family);
        let columns = table.columns().into_iter().map(|column| {
            let mut absent = when_absent(&column);
            if column.name == "workspace_id" && workspace.is_some() {
                absent = Absent::Nothing;
            }
            Slot { cells: Cells::new(&column), absent, column }
        });
        Ndjson {
            source: BufReader::with_capacity(READ_BYTES, source),
            table,
            columns: columns.collect(),
            workspace,
            line: Vec::new(),
            lines: 0,
            bytes: 0,
            ended: false,
        }
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next rows; `None` at the end.
    pub fn read(&mut self) -> Result<Option<RecordBatch>, FileError> {
        let (mut rows, before) = (0, self.bytes);
        while !self.ended && rows < BATCH_ROWS && self.bytes - before < BATCH_BYTES as u64 {
            if self.read_line()? {
                self.parse()?;
                rows += 1;
            }
        }
        if rows == 0 {
            return Ok(None);
        }
        let arrays = self.columns.iter_mut().map(|slot| slot.cells.finish()).collect();
        let rows = RecordBatch::try_new(self.table.schema(), arrays);
        Ok(Some(rows.map_err(|error| FileError::Disk(io::Error::other(error)))?))
    }

    /// Whether there is another line. Empty ones are an end, so that numbers of rows are numbers of lines.
    fn read_line(&mut self) -> Result<bool, FileError> {
        let mut empty_at = None;
        loop {
            self.line.clear();
            let mut bounded = (&mut self.source).take(LINE_BYTES_MAX as u64 + 1);
            let read = bounded.read_until(b'\n', &mut self.line).map_err(FileError::Disk)?;
            if read == 0 {
                self.ended = true;
                return Ok(false);
            }
            self.lines += 1;
            self.bytes += read as u64;
            if read > LINE_BYTES_MAX {
                let reason = format!("has more than {LINE_BYTES_MAX} bytes; is this NDJSON, one object a line?");
                return Err(self.refuse(None, reason));
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                break;
            }
            empty_at = empty_at.or(Some(self.lines));
        }
        match empty_at {
            None => Ok(true),
            Some(line) => {
                self.lines = line;
                Err(self.refuse(None, "is empty, and there are rows after it; remove it".to_owned()))
            }
        }
    }

    /// Adds the line's row to the columns.
    fn parse(&mut self) -> Result<(), FileError> {
        let mut place = Place::Row;
        let replaced = self.workspace.is_some();
        let row = Row { columns: &mut self.columns, table: self.table, replaced, place: &mut place };
        let mut parser = serde_json::Deserializer::from_slice(self.line.trim_ascii_end());
        let parsed = row.deserialize(&mut parser).and_then(|seen| {
            parser.end()?;
            Ok(seen)
        });
        let seen = match parsed {
            Ok(seen) => seen,
            Err(error) => {
                let column = match place {
                    Place::Row => None,
                    Place::Column(at) => Some(self.columns[at].column.name.to_owned()),
                    Place::Stranger(name) => Some(shortened(name)),
                };
                return Err(self.refuse(column, reason_of(&error)));
            }
        };
        for (at, slot) in self.columns.iter_mut().enumerate() {
            match (&mut slot.cells, &self.workspace) {
                (Cells::Workspace { ids, .. }, Some(workspace)) => ids.append_value(workspace),
                _ if seen & (1 << at) != 0 => {}
                (cells, _) if slot.absent == Absent::Nothing => cells.append_nothing(),
                _ => {
                    let name = slot.column.name;
                    return Err(self.refuse(Some(name.to_owned()), missing(name).to_owned()));
                }
            }
        }
        Ok(())
    }

    fn refuse(&self, column: Option<String>, reason: String) -> FileError {
        FileError::Row { unit: super::Format::Ndjson.unit(), bad: BadRow { row: self.lines, column, reason } }
    }
}

/// What the parser says, without the line number that it always takes for 1.
fn reason_of(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match (error.classify(), text.strip_suffix(&place)) {
        (serde_json::error::Category::Data, Some(reason)) => shortened(reason.to_owned()),
        (_, reason) => {
            let reason = reason.unwrap_or(&text);
            format!("this is not one JSON object: {} at byte {}", shortened(reason.to_owned()), error.column())
        }
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(REASON_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

impl Cells {
    fn new(column: &Column) -> Cells {
        // Ids and labels repeat, so equal texts of a batch are kept once; request ids never do.
        let texts = || StringViewBuilder::new().with_deduplicate_strings();
        match (column.name, &column.ty) {
            ("workspace_id", _) => Cells::Workspace { ids: texts(), last: String::new() },
            ("request_id", _) => Cells::Text(StringViewBuilder::new()),
            ("time", _) => Cells::Time(Int64Builder::new()),
            (_, Type::Array(element)) => {
                Cells::Tags(ListBuilder::new(texts()).with_field(Arc::new(element.field("item"))))
            }
            (_, Type::Int64) => Cells::Signed(Int64Builder::new()),
            (_, Type::UInt64) => Cells::Unsigned(UInt64Builder::new()),
            (_, Type::Float64) => Cells::Float(Float64Builder::new()),
            (_, Type::Bool) => Cells::Bool(BooleanBuilder::new()),
            _ => Cells::Text(texts()),
        }
    }

    /// Adds what stands for the absence of a value.
    fn append_nothing(&mut self) {
        match self {
            Cells::Text(texts) | Cells::Workspace { ids: texts, .. } => texts.append_value(""),
            Cells::Tags(lists) => lists.append(true),
            Cells::Time(numbers) | Cells::Signed(numbers) => numbers.append_value(0),
            Cells::Unsigned(numbers) => numbers.append_value(0),
            Cells::Float(numbers) => numbers.append_value(0.0),
            Cells::Bool(values) => values.append_value(false),
        }
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Cells::Text(texts) | Cells::Workspace { ids: texts, .. } => Arc::new(texts.finish()),
            Cells::Tags(lists) => Arc::new(lists.finish()),
            Cells::Time(numbers) | Cells::Signed(numbers) => Arc::new(numbers.finish()),
            Cells::Unsigned(numbers) => Arc::new(numbers.finish()),
            Cells::Float(numbers) => Arc::new(numbers.finish()),
            Cells::Bool(values) => Arc::new(values.finish()),
        }
    }
}

/// What is being read: for the message where it fails.
enum Place {
    Row,
    Column(usize),
    Stranger(String),
}

/// A line: an object whose members go into the columns. Gives a bit for each column that it has.
struct Row<'a> {
    columns: &'a mut [Slot],
    table: Table,
    replaced: bool,
    place: &'a mut Place,
}

impl<'de> DeserializeSeed<'de> for Row<'_> {
    type Value = u32;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u32, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Row<'_> {
    type Value = u32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the row's columns")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u32, A::Error> {
        let Row { columns, table, replaced, place } = self;
        let (mut seen, mut next) = (0_u32, 0);
        while let Some(named) = members.next_key_seed(Name { columns: &*columns, next })? {
            let at = match named {
                Ok(at) => at,
                Err(name) => {
                    *place = Place::Stranger(name);
                    return Err(A::Error::custom(stranger(table)));
                }
            };
            *place = Place::Column(at);
            if seen & (1 << at) != 0 {
                return Err(A::Error::custom("stands twice in this line"));
            }
            seen |= 1 << at;
            match &mut columns[at].cells {
                Cells::Workspace { .. } if replaced => drop(members.next_value::<IgnoredAny>()?),
                cells => members.next_value_seed(Value(cells))?,
            }
            *place = Place::Row;
            next = at + 1;
        }
        Ok(seen)
    }
}

/// A member's name: the number of its column, or the name where there is none. Members mostly come in the table's order.
struct Name<'a> {
    columns: &'a [Slot],
    next: usize,
}

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        if self.columns.get(self.next).is_some_and(|slot| slot.column.name == name) {
            return Ok(Ok(self.next));
        }
        let found = self.columns.iter().position(|slot| slot.column.name == name);
        Ok(found.ok_or_else(|| name.to_owned()))
    }
}

/// A member's value, added to its column.
struct Value<'a>(&'a mut Cells);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.0 {
            Cells::Text(_) | Cells::Workspace { .. } => deserializer.deserialize_str(self),
            Cells::Tags(_) => deserializer.deserialize_seq(self),
            Cells::Time(_) | Cells::Signed(_) => deserializer.deserialize_i64(self),
            Cells::Unsigned(_) => deserializer.deserialize_u64(self),
            Cells::Float(numbers) => {
                let text = <&RawValue>::deserialize(deserializer)?;
                numbers.append_value(float::<D::Error>(text.get())?);
                Ok(())
            }
            Cells::Bool(_) => deserializer.deserialize_bool(self),
        }
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Cells::Text(_) => f.write_str("a text"),
            Cells::Workspace { .. } => f.write_str("a workspace's id"),
            Cells::Tags(_) => f.write_str("a list of texts"),
            Cells::Time(_) => {
                write!(f, "a whole number from 0 to {TIME_MAX_MS}, the milliseconds since 1970 up to the year 9999")
            }
            Cells::Signed(_) => write!(f, "a whole number from {} to {}", i64::MIN, i64::MAX),
            Cells::Unsigned(_) => write!(f, "a whole number from 0 to {}", u64::MAX),
            Cells::Float(_) => f.write_str("a number"),
            Cells::Bool(_) => f.write_str("true or false"),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.0 {
            Cells::Text(texts) => texts.append_value(text),
            Cells::Workspace { ids, last } => {
                if last != text {
                    if workspace_of(text).is_none() {
                        return Err(E::custom(format!("`{text}` is no workspace id")));
                    }
                    last.clear();
                    last.push_str(text);
                }
                ids.append_value(text);
            }
            _ => return Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.0 {
            Cells::Bool(values) => values.append_value(value),
            _ => return Err(E::invalid_type(Unexpected::Bool(value), &self)),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        match self.0 {
            Cells::Time(numbers) if (0..=TIME_MAX_MS).contains(&number) => numbers.append_value(number),
            Cells::Signed(numbers) => numbers.append_value(number),
            Cells::Time(_) | Cells::Unsigned(_) => return Err(E::invalid_value(Unexpected::Signed(number), &self)),
            _ => return Err(E::invalid_type(Unexpected::Signed(number), &self)),
        }
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match (self.0, i64::try_from(number)) {
            (Cells::Unsigned(numbers), _) => numbers.append_value(number),
            (cells, Ok(number)) => return Value(cells).visit_i64(number),
            (cells, Err(_)) => return Err(E::invalid_value(Unexpected::Unsigned(number), &Value(cells))),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Cells::Tags(lists) = self.0 else {
            return Err(A::Error::invalid_type(Unexpected::Seq, &self));
        };
        while elements.next_element_seed(Tag(lists.values()))?.is_some() {}
        lists.append(true);
        Ok(())
    }
}

/// The number that stands in a line. The parser's own way is quicker and can be off in the last digit.
fn float<E: Error>(text: &str) -> Result<f64, E> {
    let found = match text.as_bytes().first() {
        Some(b'"') => format!("string {text}"),
        Some(b't' | b'f') => format!("boolean `{text}`"),
        Some(b'n') => "null".to_owned(),
        Some(b'[') => "sequence".to_owned(),
        Some(b'{') => "map".to_owned(),
        _ => match text.parse() {
            Ok(number) if f64::is_finite(number) => return Ok(number),
            _ => return Err(E::custom(format!("{text} is out of the range of Float64"))),
        },
    };
    Err(E::custom(format!("invalid type: {found}, expected a number")))
}

/// A text in a list.
struct Tag<'a>(&'a mut StringViewBuilder);

impl<'de> DeserializeSeed<'de> for Tag<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Tag<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text in this list")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.append_value(text);
        Ok(())
    }
}
