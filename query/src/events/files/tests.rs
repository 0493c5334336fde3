//! What files may hold, how each fault is told, and that rows come back as they went.

use std::fs::File;
use std::io::Cursor;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, DictionaryArray, Float32Array, Float64Array,
    Int32Array, Int64Array, LargeListArray, LargeStringArray, ListArray, RecordBatch, StringArray, StringViewArray,
    TimestampMicrosecondArray, TimestampSecondArray, UInt8Array, UInt64Array,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Int8Type, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use proptest::prelude::*;

use super::frames::{Decoder, Encoder, FRAME_BYTES_MAX};
use super::*;

const WS: &str = "ws_wwwwwwwwwwwwwwww";
const RATELIMIT: &str = r#"{"request_id":"req_1","workspace_id":"ws_wwwwwwwwwwwwwwww","namespace_id":"rlns_1","identifier":"ada","override_id":"","time":1710862538170,"passed":true,"latency":0.5,"limit":10,"remaining":9,"reset_at":1710862560000,"tokens":1}"#;

/// The rows of NDJSON as one batch, or what is said of it.
fn ndjson(family: Family, workspace: Option<&str>, text: &str) -> Result<RecordBatch, String> {
    let source = Box::new(Cursor::new(text.as_bytes().to_vec()));
    whole(family, RowReader::ndjson(family, workspace.map(str::to_owned), source))
}

/// The rows of a Parquet file with these columns, or what is said of it.
fn parquet(family: Family, workspace: Option<&str>, columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch, String> {
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    let mut writer = ArrowWriter::try_new(&mut file, rows.schema(), None).unwrap();
    // Several row groups.
    for row in 0..rows.num_rows() {
        writer.write(&rows.slice(row, 1)).unwrap();
        if row % 2 == 1 {
            writer.flush().unwrap();
        }
    }
    writer.close().unwrap();
    read_parquet(family, workspace, file)
}

fn read_parquet(family: Family, workspace: Option<&str>, file: File) -> Result<RecordBatch, String> {
    let reader = RowReader::parquet(family, workspace.map(str::to_owned), file).map_err(|error| error.to_string())?;
    whole(family, reader)
}

fn whole(family: Family, reader: RowReader) -> Result<RecordBatch, String> {
    let batches: Result<Vec<_>, _> = reader.collect();
    let batches = batches.map_err(|error| error.to_string())?;
    Ok(concat_batches(&raw(family).schema(), &batches).unwrap())
}

/// EXT-4: a bad row is refused with its line and column and what is wrong with it, each kind of fault in its own words.
#[test]
fn bad_lines_are_told_with_line_and_column() {
    let with = |member: &str, value: &str| {
        let start = RATELIMIT.find(&format!("\"{member}\":")).unwrap();
        let end = start + RATELIMIT[start..].find([',', '}']).unwrap();
        format!("{}\"{member}\":{value}{}", &RATELIMIT[..start], &RATELIMIT[end..])
    };
    let without = |member: &str| with(member, "0").replace(&format!("\"{member}\":0,"), "");
    let cases = [
        (
            with("time", "\"yesterday\""),
            "line 2, column time: invalid type: string \"yesterday\", expected a whole number from 0 to 253402300799999, the milliseconds since 1970 up to the year 9999",
        ),
        (
            with("time", "-1"),
            "line 2, column time: invalid value: integer `-1`, expected a whole number from 0 to 253402300799999, the milliseconds since 1970 up to the year 9999",
        ),
        (
            with("time", "253402300800000"),
            "line 2, column time: invalid value: integer `253402300800000`, expected a whole number from 0 to 253402300799999, the milliseconds since 1970 up to the year 9999",
        ),
        (
            with("time", "1.5"),
            "line 2, column time: invalid type: floating point `1.5`, expected a whole number from 0 to 253402300799999, the milliseconds since 1970 up to the year 9999",
        ),
        (
            with("reset_at", "9223372036854775808"),
            "line 2, column reset_at: invalid value: integer `9223372036854775808`, expected a whole number from -9223372036854775808 to 9223372036854775807",
        ),
        (
            with("limit", "-3"),
            "line 2, column limit: invalid value: integer `-3`, expected a whole number from 0 to 18446744073709551615",
        ),
        (
            with("tokens", "true"),
            "line 2, column tokens: invalid type: boolean `true`, expected a whole number from 0 to 18446744073709551615",
        ),
        (with("passed", "1"), "line 2, column passed: invalid type: integer `1`, expected true or false"),
        (with("latency", "\"1\""), "line 2, column latency: invalid type: string \"1\", expected a number"),
        (with("latency", "1e999"), "line 2, column latency: 1e999 is out of the range of Float64"),
        (with("identifier", "null"), "line 2, column identifier: invalid type: null, expected a text"),
        (with("identifier", "[]"), "line 2, column identifier: invalid type: sequence, expected a text"),
        (with("workspace_id", "\"acme\""), "line 2, column workspace_id: `acme` is no workspace id"),
        (with("tokens", "1,\"tokens\":1"), "line 2, column tokens: stands twice in this line"),
        (
            with("tokens", "1,\"cost\":1"),
            "line 2, column cost: ratelimits_v1 has no such column; its columns are request_id, workspace_id, namespace_id, identifier, override_id, time, passed, latency, limit, remaining, reset_at, tokens",
        ),
        (without("passed"), "line 2, column passed: is missing; only texts, tags and spent_credits may be left out"),
        (
            without("workspace_id"),
            "line 2, column workspace_id: is missing; --workspace WS puts all rows into one workspace",
        ),
        ("[]".to_owned(), "line 2: invalid type: sequence, expected an object with the row's columns"),
        ("{\"time\":1".to_owned(), "line 2: this is not one JSON object: EOF while parsing an object at byte 9"),
        (format!("{RATELIMIT} {{}}"), "line 2: this is not one JSON object: trailing characters at byte 231"),
        (String::new(), "line 2: is empty, and there are rows after it; remove it"),
        ("x".repeat(1 << 20), "line 2: has more than 1048576 bytes; is this NDJSON, one object a line?"),
    ];
    for (line, told) in cases {
        let text = format!("{RATELIMIT}\n{line}\n{RATELIMIT}\n");
        assert_eq!(ndjson(Family::Ratelimits, None, &text).unwrap_err(), told, "{}", shown(&line));
    }
    let tags = r#"{"time":1,"latency":1,"tags":["a",7]}"#;
    let told = "line 1, column tags: invalid type: integer `7`, expected a text in this list";
    assert_eq!(ndjson(Family::Verifications, Some(WS), tags).unwrap_err(), told);
    let long = with("time", &format!("\"{}\"", "é".repeat(5_000)));
    let told = ndjson(Family::Ratelimits, None, &long).unwrap_err();
    assert!(told.chars().count() < 400 && told.ends_with('…'), "{told}");
}

fn shown(line: &str) -> &str {
    &line[..line.len().min(300)]
}

/// EXT-4, AN-TAB-06: members come in any order; what an event need not have may be left out; the last line needs no end, and
/// empty ones may follow it.
#[test]
fn lines_may_leave_out_what_an_event_need_not_have() {
    let text = "{\"latency\":2,\"time\":5,\"outcome\":\"VALID\\u0000\\\"é\",\"tags\":[\"b\",\"a\",\"b\"]}\r\n {\"time\":6,\"latency\":1e-3} \n\n \n";
    let rows = ndjson(Family::Verifications, Some(WS), text).unwrap();
    let text = |name: &str, row: usize| rows.column_by_name(name).unwrap().as_string_view().value(row).to_owned();
    for name in ["request_id", "key_space_id", "key_id", "identity_id", "external_id", "region", "source", "app_id"] {
        assert_eq!((text(name, 0), text(name, 1)), (String::new(), String::new()), "{name}");
    }
    assert_eq!((text("workspace_id", 0), text("workspace_id", 1)), (WS.to_owned(), WS.to_owned()));
    assert_eq!((text("outcome", 0), text("outcome", 1)), ("VALID\0\"é".to_owned(), String::new()));
    let tags = rows.column_by_name("tags").unwrap().as_list::<i32>();
    assert_eq!(tags.value(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["b", "a", "b"]);
    assert_eq!(tags.value(1).len(), 0);
    // Whatever a row says of its workspace, a given one replaces it.
    let rows = ndjson(
        Family::Ratelimits,
        Some("ws_vvvvvvvvvvvvvvvv"),
        &RATELIMIT.replace("\"ws_w", "[1],\"identifier\":\"ws_w"),
    );
    assert_eq!(rows.unwrap_err(), "line 1, column identifier: stands twice in this line");
    let rows = ndjson(Family::Ratelimits, Some("ws_vvvvvvvvvvvvvvvv"), &RATELIMIT.replace("\"ws_w", "\"w")).unwrap();
    assert_eq!(rows.column_by_name("workspace_id").unwrap().as_string_view().value(0), "ws_vvvvvvvvvvvvvvvv");
    assert_eq!(ndjson(Family::Ratelimits, None, "").unwrap().num_rows(), 0);
}

/// The columns of three decisions, as keyward writes them.
fn ratelimits() -> Vec<(&'static str, ArrayRef)> {
    let texts = |values: [&str; 3]| Arc::new(StringViewArray::from(values.to_vec())) as ArrayRef;
    vec![
        ("request_id", texts(["req_1", "req_2", "req_3"])),
        ("workspace_id", texts([WS, WS, WS])),
        ("namespace_id", texts(["rlns_1", "rlns_2", "rlns_1"])),
        ("identifier", texts(["ada", "a text that is longer than twelve bytes", ""])),
        ("override_id", texts(["", "", ""])),
        ("time", Arc::new(Int64Array::from(vec![1_000, 2_000, 3_000]))),
        ("passed", Arc::new(BooleanArray::from(vec![true, false, true]))),
        ("latency", Arc::new(Float64Array::from(vec![0.5, 1.0, 2.25]))),
        ("limit", Arc::new(UInt64Array::from(vec![10, 200, 3]))),
        ("remaining", Arc::new(UInt64Array::from(vec![0, 1, 2]))),
        ("reset_at", Arc::new(Int64Array::from(vec![60_000, 60_000, 60_000]))),
        ("tokens", Arc::new(UInt64Array::from(vec![1, 2, 3]))),
    ]
}

fn replaced(mut columns: Vec<(&'static str, ArrayRef)>, name: &str, array: ArrayRef) -> Vec<(&'static str, ArrayRef)> {
    columns.iter_mut().filter(|(column, _)| *column == name).for_each(|(_, old)| *old = Arc::clone(&array));
    columns
}

/// EXT-4: whatever a Parquet file's columns are made of, the values are what count: other widths of integers, dictionaries,
/// bytes that are texts, timestamps of any unit, in any order.
#[test]
fn parquet_is_taken_in_any_types_that_hold_the_same_values() {
    let plain = parquet(Family::Ratelimits, None, ratelimits()).unwrap();
    assert_eq!(plain.num_rows(), 3);
    let dictionary =
        |values: [&str; 3]| Arc::new(values.into_iter().collect::<DictionaryArray<Int8Type>>()) as ArrayRef;
    let mut others = ratelimits();
    for (name, array) in [
        ("request_id", Arc::new(LargeStringArray::from(vec!["req_1", "req_2", "req_3"])) as ArrayRef),
        ("workspace_id", dictionary([WS, WS, WS])),
        ("namespace_id", Arc::new(BinaryArray::from(vec!["rlns_1".as_bytes(), b"rlns_2", b"rlns_1"]))),
        ("identifier", Arc::new(StringArray::from(vec!["ada", "a text that is longer than twelve bytes", ""]))),
        ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_000_000, 2_000_999, 3_000_001]).with_timezone("UTC"))),
        ("reset_at", Arc::new(TimestampSecondArray::from(vec![60, 60, 60]))),
        ("latency", Arc::new(Float32Array::from(vec![0.5, 1.0, 2.25]))),
        ("limit", Arc::new(UInt8Array::from(vec![10, 200, 3]))),
        ("tokens", Arc::new(Int32Array::from(vec![1, 2, 3]))),
    ] {
        others = replaced(others, name, array);
    }
    others.retain(|(name, _)| *name != "override_id");
    others.reverse();
    assert_eq!(parquet(Family::Ratelimits, None, others.clone()).unwrap(), plain);
    // The workspace is replaced whatever the column holds, and may be missing.
    let moved = replaced(others.clone(), "workspace_id", Arc::new(Int64Array::from(vec![1, 2, 3])));
    assert_eq!(parquet(Family::Ratelimits, Some(WS), moved.clone()).unwrap(), plain);
    others.retain(|(name, _)| *name != "workspace_id");
    assert_eq!(parquet(Family::Ratelimits, Some(WS), others).unwrap(), plain);

    let tags = |list: ArrayRef| {
        let times: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
        let latencies: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let columns = vec![("time", times), ("latency", latencies), ("tags", list)];
        parquet(Family::Verifications, Some(WS), columns)
    };
    let values = || Arc::new(StringArray::from(vec!["a", "b", "a"]));
    let offsets = || OffsetBuffer::from_lengths([2, 0, 1]);
    let field = |ty: DataType| Arc::new(Field::new("element", ty, false));
    let small = tags(Arc::new(ListArray::new(field(DataType::Utf8), offsets(), values(), None))).unwrap();
    let large = LargeListArray::new(
        field(DataType::Binary),
        OffsetBuffer::from_lengths([2, 0, 1]),
        Arc::new(BinaryArray::from(vec!["a".as_bytes(), b"b", b"a"])),
        None,
    );
    assert_eq!(tags(Arc::new(large)).unwrap(), small);
    let lists = small.column_by_name("tags").unwrap().as_list::<i32>().clone();
    assert_eq!(lists.value(0).as_string_view().iter().flatten().collect::<Vec<_>>(), ["a", "b"]);
    let holes = StringArray::from(vec![Some("a"), None, Some("a")]);
    let field = Arc::new(Field::new("element", DataType::Utf8, true));
    let told = tags(Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([0, 0, 3]), Arc::new(holes), None)));
    assert_eq!(told.unwrap_err(), "row 3, column tags: holds a NULL or bytes that are not UTF-8");
}

/// EXT-4: what a Parquet file holds and the table cannot is told by column, and by row where it is a row's fault.
#[test]
fn bad_parquet_is_told_with_row_and_column() {
    let (top, bottom) = (u64::try_from(i64::MAX).unwrap() + 1, -1);
    let with = |name, array: ArrayRef| replaced(ratelimits(), name, array);
    let mut unknown = ratelimits();
    unknown.push(("cost", Arc::new(Int64Array::from(vec![1, 2, 3]))));
    let mut twice = ratelimits();
    twice.push(("limit", Arc::new(UInt64Array::from(vec![1, 2, 3]))));
    let mut missing = ratelimits();
    missing.retain(|(name, _)| *name != "tokens");
    let mut two = with("limit", Arc::new(Int64Array::from(vec![1, bottom, bottom])));
    two = replaced(two, "time", Arc::new(Int64Array::from(vec![-7, 1, -8])));
    let nulls = || Some(NullBuffer::from(vec![true, true, false]));
    let cases = [
        (
            unknown,
            "column cost: ratelimits_v1 has no such column; its columns are request_id, workspace_id, namespace_id, identifier, override_id, time, passed, latency, limit, remaining, reset_at, tokens",
        ),
        (twice, "column limit: stands twice in this file"),
        (missing, "column tokens: is missing; only texts, tags and spent_credits may be left out"),
        (
            with("time", Arc::new(StringArray::from(vec!["1", "2", "3"]))),
            "column time: is of type Utf8; unix milliseconds, as integers of 64 bits, or timestamps are expected",
        ),
        (
            // Seconds, as ClickHouse has in a DateTime: read as milliseconds they would be in January 1970.
            with("time", Arc::new(Int32Array::from(vec![1_710_862_538, 2, 3]))),
            "column time: is of type Int32; unix milliseconds, as integers of 64 bits, or timestamps are expected",
        ),
        (with("passed", Arc::new(UInt8Array::from(vec![1, 0, 2]))), "row 3, column passed: 2 is neither 0 nor 1"),
        (
            with("passed", Arc::new(StringArray::from(vec!["true", "false", "true"]))),
            "column passed: is of type Utf8; booleans, or integers that are 0 or 1 are expected",
        ),
        (
            with("tokens", Arc::new(Decimal128Array::from(vec![1, 2, 3]).with_precision_and_scale(9, 2).unwrap())),
            "column tokens: is of type Decimal128(9, 2); integers are expected",
        ),
        (
            with("identifier", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            "column identifier: is of type Int64; texts are expected",
        ),
        (
            with("latency", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            "column latency: is of type Int64; floating-point numbers are expected",
        ),
        (
            with("limit", Arc::new(Int64Array::from(vec![1, 2, bottom]))),
            "row 3, column limit: -1 is out of the range of UInt64",
        ),
        (
            with("reset_at", Arc::new(UInt64Array::from(vec![1, top, top]))),
            "row 2, column reset_at: 9223372036854775808 is out of the range of Int64",
        ),
        (
            with("time", Arc::new(Int64Array::from(vec![1, 2, -3]))),
            "row 3, column time: -3 is not between 0 and 253402300799999, the milliseconds from 1970 to the year 9999",
        ),
        (
            with("latency", Arc::new(Float64Array::from(vec![1.0, f64::NAN, 1.0]))),
            "row 2, column latency: NaN is not a finite number",
        ),
        (
            with("identifier", Arc::new(BinaryArray::from(vec![b"a".as_slice(), b"\xff", b"c"]))),
            "row 2, column identifier: is not UTF-8",
        ),
        (
            with("tokens", Arc::new(UInt64Array::new(vec![1, 2, 3].into(), nulls()))),
            "row 3, column tokens: is NULL, which no column of this table holds",
        ),
        (
            with("workspace_id", Arc::new(StringArray::from(vec![WS, WS, "acme"]))),
            "row 3, column workspace_id: `acme` is no workspace id",
        ),
        // The first bad row, whatever is wrong with it.
        (
            two,
            "row 1, column time: -7 is not between 0 and 253402300799999, the milliseconds from 1970 to the year 9999",
        ),
    ];
    for (columns, told) in cases {
        assert_eq!(parquet(Family::Ratelimits, None, columns).unwrap_err(), told);
    }
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, RATELIMIT.as_bytes()).unwrap();
    let told = read_parquet(Family::Ratelimits, None, file).unwrap_err();
    assert!(told.starts_with("this is no Parquet file that can be read: "), "{told}");
}

/// A text that files and frames could stumble over.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-c]{1,3}", "\\PC{0,40}", "[\\x00-\\x1f\"\\\\/\u{7f}\u{2028}😀]{0,20}"]
}

prop_compose! {
    fn verification()(
        (texts, tags) in (proptest::collection::vec(texts(), 9), proptest::collection::vec(texts(), 0..4)),
        time in 0..=253_402_300_799_999_i64,
        spent in any::<i64>(),
        latency in any::<f64>().prop_filter("finite", |latency| latency.is_finite()),
    ) -> String {
        let names = ["request_id", "key_space_id", "key_id", "identity_id", "external_id", "region", "source", "app_id", "outcome"];
        let mut row: serde_json::Map<String, serde_json::Value> =
            names.into_iter().zip(texts).map(|(name, text)| (name.to_owned(), text.into())).collect();
        row.insert("workspace_id".to_owned(), WS.into());
        row.insert("time".to_owned(), time.into());
        row.insert("tags".to_owned(), tags.into());
        row.insert("spent_credits".to_owned(), spent.into());
        row.insert("latency".to_owned(), latency.into());
        serde_json::Value::Object(row).to_string()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// EXT-4: rows that are written come back as they were, in both formats, and through frames.
    #[test]
    fn rows_come_back_as_they_went(lines in proptest::collection::vec(verification(), 1..30), cut in 0.0..1.0) {
        let rows = ndjson(Family::Verifications, None, &lines.join("\n")).unwrap();
        prop_assert_eq!(rows.num_rows(), lines.len());
        // A slice shares what the whole holds.
        let at = (rows.num_rows() as f64 * cut) as usize;
        let rows = rows.slice(at, rows.num_rows() - at);

        let mut writer = RowWriter::new(Format::Ndjson, Family::Verifications, Vec::new()).unwrap();
        writer.write(&rows).unwrap();
        let text = String::from_utf8(writer.finish().unwrap()).unwrap();
        prop_assert_eq!(&ndjson(Family::Verifications, None, &text).unwrap(), &rows);

        let file = tempfile::tempfile().unwrap();
        let mut writer = RowWriter::new(Format::Parquet, Family::Verifications, file).unwrap();
        writer.write(&rows).unwrap();
        let file = writer.finish().unwrap();
        prop_assert_eq!(&read_parquet(Family::Verifications, None, file).unwrap(), &rows);

        prop_assert_eq!(&through_frames(Family::Verifications, &rows).0, &rows);
    }
}

/// The rows after a journey in frames, and the frames' number.
fn through_frames(family: Family, rows: &RecordBatch) -> (RecordBatch, usize) {
    let mut frames = Vec::new();
    let mut encoder = Encoder::new(family).unwrap();
    let mut send = |frame: &[u8]| {
        frames.push(frame.to_vec());
        Ok(())
    };
    encoder.encode(&rows.slice(0, rows.num_rows() / 3), &mut send).unwrap();
    encoder.encode(&rows.slice(rows.num_rows() / 3, rows.num_rows() - rows.num_rows() / 3), &mut send).unwrap();
    assert!(frames.iter().all(|frame| (1..=FRAME_BYTES_MAX).contains(&frame.len())));
    let mut decoder = Decoder::new(family);
    let count = frames.len();
    let batches: Vec<_> = frames.into_iter().map(|frame| decoder.decode(frame).unwrap()).collect();
    (concat_batches(&rows.schema(), &batches).unwrap(), count)
}

/// However large rows are, a frame is bounded: a text that all rows share is counted in each of them.
#[test]
fn large_rows_travel_in_small_frames() {
    let long = "é".repeat(100_000);
    let line = RATELIMIT.replace("ada", &long);
    let rows = ndjson(Family::Ratelimits, None, &vec![line; 300].join("\n")).unwrap();
    let (back, frames) = through_frames(Family::Ratelimits, &rows);
    assert!(back == rows && frames > 4, "{frames} frames");
    let tags = format!("{{\"time\":1,\"latency\":1,\"tags\":[{}\"\"]}}", "\"\",".repeat(200_000));
    let rows = ndjson(Family::Verifications, Some(WS), &vec![tags; 12].join("\n")).unwrap();
    assert_eq!(through_frames(Family::Verifications, &rows).0, rows);
    // What is no frame is an error, not a panic.
    for bytes in [Vec::new(), vec![1, 2, 3], vec![0xff; 64]] {
        assert!(Decoder::new(Family::Ratelimits).decode(bytes).is_err());
    }
}

/// The names of files say what is in them, and nothing else does.
#[test]
fn a_name_says_the_format() {
    for (name, format) in [
        ("a.ndjson", Some(Format::Ndjson)),
        ("dir.parquet/a.JSONL", Some(Format::Ndjson)),
        ("a.ndjson.Parquet", Some(Format::Parquet)),
        ("a.csv", None),
        ("parquet", None),
        (".parquet", None),
    ] {
        assert_eq!(Format::of(Path::new(name)), format, "{name}");
    }
}

/// EXT-4: files as pyarrow and ClickHouse write them hold what their users meant: dictionaries, timestamps with a zone,
/// decimals, integers of few bits, flags as integers, NULL-able columns without NULL, another order of columns, several row
/// groups, three compressions. `tests/oracle/foreign_files.py` wrote them.
#[test]
fn files_of_other_programs_hold_the_same_rows() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/foreign");
    for (name, family) in [
        ("pyarrow_categories_zstd", Family::Verifications),
        ("clickhouse_types_snappy", Family::Verifications),
        ("pyarrow_numbers_lz4", Family::Ratelimits),
        ("clickhouse_bools_zstd", Family::Ratelimits),
    ] {
        let wanted = std::fs::read_to_string(folder.join(format!("{}.ndjson", raw(family).name()))).unwrap();
        let wanted = ndjson(family, Some(WS), &wanted).unwrap();
        let file = File::open(folder.join(format!("{name}.parquet"))).unwrap();
        assert_eq!(read_parquet(family, Some(WS), file).unwrap(), wanted, "{name}");
        assert_eq!(wanted.num_rows(), 40);
    }
}
