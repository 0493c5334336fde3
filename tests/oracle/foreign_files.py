#!/usr/bin/env python3
"""Writes the Parquet files of other programs that `keyward events import` is tested with: query/tests/data/foreign.

Each holds the first rows of a table of query/tests/data, as that program's users would write them: with its types, its
encodings, its order of columns. Needs pyarrow and chdb (requirements.txt).
"""

import itertools
import json
from pathlib import Path

import chdb
import pyarrow as pa
import pyarrow.parquet as pq

DATA = Path(__file__).resolve().parents[2] / "query" / "tests" / "data"
FOREIGN = DATA / "foreign"
ROWS = 40
SMALL = ["spent_credits", "limit", "remaining", "tokens"]


def rows(table):
    """Rows whose numbers are small enough for small types; what is wanted of the files is stored beside them."""
    with open(DATA / f"{table}.ndjson", encoding="utf-8") as file:
        small = (line for line in file if all(0 <= json.loads(line).get(name, 0) < 60_000 for name in SMALL))
        lines = list(itertools.islice(small, ROWS))
    (FOREIGN / f"{table}.ndjson").write_text("".join(lines), encoding="utf-8")
    return [json.loads(line) for line in lines]


def written(name, table, **options):
    pq.write_table(table, FOREIGN / name, row_group_size=15, **options)


def pyarrow_files():
    events = rows("key_verifications_v1")
    column = lambda name: [event[name] for event in events]
    text = pa.dictionary(pa.int32(), pa.string())
    # As pandas writes a frame: categories, timestamps with a zone, 32 bits where they are enough, everything nullable; and
    # the columns in an order of their own, without those that are empty.
    tags = pa.array([event["tags"] for event in events], pa.list_(pa.string()))
    written("pyarrow_categories_zstd.parquet", pa.table({
        "outcome": pa.array(column("outcome"), text), "tags": tags,
        "time": pa.array(column("time"), pa.timestamp("ms")).cast(pa.timestamp("us", "UTC")),
        "workspace_id": pa.array(column("workspace_id"), text), "latency": pa.array(column("latency"), pa.float64()),
        "spent_credits": pa.array(column("spent_credits"), pa.int32()), "key_id": pa.array(column("key_id"), pa.large_string()),
        "key_space_id": pa.array(column("key_space_id"), pa.string()), "external_id": pa.array(column("external_id"), pa.binary()),
        "identity_id": pa.array(column("identity_id"), pa.string()), "region": pa.array(column("region"), text),
        "source": pa.array(column("source"), text), "app_id": pa.array(column("app_id"), text),
        "request_id": pa.array(column("request_id"), pa.string())}), compression="zstd")
    limits = rows("ratelimits_v1")
    column = lambda name: [limit[name] for limit in limits]
    integers = {"limit": pa.uint32(), "remaining": pa.int64(), "tokens": pa.decimal128(20, 0), "passed": pa.uint8()}
    order = ["tokens", "passed", "remaining", "limit", "reset_at", "time", "latency", "override_id", "identifier", "namespace_id",
             "workspace_id", "request_id"]
    kinds = {**integers, "reset_at": pa.timestamp("ms"), "time": pa.int64(), "latency": pa.float64()}
    table = {name: pa.array([int(value) if name in integers else value for value in column(name)], kinds.get(name, pa.string()))
             for name in order}
    written("pyarrow_numbers_lz4.parquet", pa.table(table), compression="lz4", use_dictionary=False, data_page_version="2.0")


def clickhouse_files():
    source = f"file('{FOREIGN}/%s.ndjson', JSONEachRow)"
    select = ("SELECT toLowCardinality(outcome) AS outcome, fromUnixTimestamp64Milli(toInt64(time), 'UTC') AS time, toNullable(workspace_id) AS workspace_id, "
              "CAST(tags AS Array(String)) AS tags, toUInt16(spent_credits) AS spent_credits, CAST(latency AS Float64) AS latency, "
              "toLowCardinality(region) AS region, CAST(source AS Enum8('api' = 1, 'gateway' = 2)) AS source, key_id, key_space_id, identity_id, "
              "external_id, app_id, request_id")
    settings = "SETTINGS max_threads = 1, output_format_parquet_row_group_size = 15, output_format_parquet_compression_method = '%s'"
    write = lambda name, select, table, method: chdb.query(
        f"{select} FROM (SELECT * FROM {source % table}) INTO OUTFILE '{FOREIGN / name}' TRUNCATE FORMAT Parquet {settings % method}")
    write("clickhouse_types_snappy.parquet", select, "key_verifications_v1", "snappy")
    write("clickhouse_bools_zstd.parquet",
          "SELECT CAST(passed AS Bool) AS passed, CAST(limit AS UInt64) AS limit, CAST(remaining AS UInt64) AS remaining, "
          "CAST(tokens AS UInt16) AS tokens, CAST(time AS Int64) AS time, CAST(reset_at AS Int64) AS reset_at, "
          "CAST(latency AS Float64) AS latency, CAST(identifier AS Nullable(String)) AS identifier, namespace_id, override_id, workspace_id, "
          "request_id", "ratelimits_v1", "zstd")


FOREIGN.mkdir(exist_ok=True)
pyarrow_files()
clickhouse_files()
for path in sorted(FOREIGN.glob("*.parquet")):
    print(path.name, path.stat().st_size, pq.read_schema(path).to_string(show_schema_metadata=False).replace("\n", "; ")[:400])
