#!/usr/bin/env python3
"""Asks ClickHouse (the chdb package) what a query over the fixed events answers, and stores it.

    referee.py --store [FILE...]     fill in the rows of the cases in query/tests/sql/*.json
    referee.py --check [FILE...]     fail where a stored answer is not what ClickHouse says
    referee.py --ask SQL [--retention N]   show names, types and rows of one query

Runs with the Python of a virtual environment that has requirements.txt. Continuous integration does not need it: what it
says is stored.

A query sees tables with the public names that hold what analytics.md lets a caller see: the events of one workspace,
of the granted key spaces or namespaces, young enough for its retention (AN-SCOPE-01, AN-RET-01), and roll-ups of them
(AN-ROLL). ClickHouse's clock cannot be set, so calls of now(), now64(), today() and CURRENT_DATE become constants of the
same type; names of result columns show the call again.
"""

import argparse
import json
import re
import sys
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from compare import difference
from events import CLOCK, CLOCK_TEXT, DATA, DAY
from lexer import calls, closing, meaningful, pieces

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "query" / "tests" / "sql"
# keyward's default (EXT-2), where a case does not say otherwise.
RETENTION = 90

COLUMNS = {
    "key_verifications_v1": [
        ("request_id", "String"), ("time", "Int64"), ("workspace_id", "String"), ("key_space_id", "String"),
        ("key_id", "String"), ("identity_id", "String"), ("external_id", "String"),
        ("region", "LowCardinality(String)"), ("source", "LowCardinality(String)"),
        ("app_id", "LowCardinality(String)"), ("outcome", "LowCardinality(String)"), ("tags", "Array(String)"),
        ("spent_credits", "Int64"), ("latency", "Float64")],
    "ratelimits_v1": [
        ("request_id", "String"), ("time", "Int64"), ("workspace_id", "String"), ("namespace_id", "String"),
        ("identifier", "String"), ("override_id", "String"), ("passed", "Bool"), ("latency", "Float64"),
        ("limit", "UInt64"), ("remaining", "UInt64"), ("reset_at", "Int64"), ("tokens", "UInt64")],
}

# Level -> (type of time, the bucket of a DateTime64).
LEVELS = {"minute": ("DateTime", "toStartOfMinute"), "hour": ("DateTime", "toStartOfHour"),
          "day": ("Date", "toDate"), "month": ("Date", "toStartOfMonth")}

ROLLUPS = {
    "key_verifications_v1": (
        "workspace_id String, key_space_id String, identity_id String, external_id String, key_id String, "
        "outcome LowCardinality(String), source LowCardinality(String), app_id LowCardinality(String), "
        "tags Array(String), count Int64, spent_credits Int64",
        "workspace_id, key_space_id, identity_id, external_id, key_id, outcome, source, app_id, tags",
        "toInt64(count()), sum(spent_credits)"),
    "ratelimits_v1": (
        "workspace_id String, namespace_id String, identifier String, passed Int64, total Int64, total_tokens Int64, "
        "passed_tokens Int64",
        "workspace_id, namespace_id, identifier",
        "toInt64(countIf(passed)), toInt64(count()), toInt64(sum(tokens)), toInt64(sumIf(tokens, passed))"),
}

# Functions of the allowlist (AN-FN-01).
ALLOWED = """count sum avg min max any groupArray groupUniqArray uniq uniqExact quantile countIf sumIf now now64 today
    toDate toDateTime toDateTime64 fromUnixTimestamp64Milli toUnixTimestamp64Milli formatDateTime toStartOfMinute
    toStartOfHour toStartOfDay toStartOfWeek toStartOfMonth toStartOfQuarter toStartOfYear date_trunc
    toIntervalNanosecond toIntervalMicrosecond toIntervalMillisecond toIntervalSecond toIntervalMinute toIntervalHour
    toIntervalDay toIntervalWeek toIntervalMonth toIntervalQuarter toIntervalYear lower upper substring concat length trim
    startsWith endsWith JSONExtractString round floor ceil abs toInt32 toInt64 toFloat64 toString if coalesce has hasAny
    hasAll arrayJoin arrayFilter""".split()

SETTINGS = """session_timezone = 'UTC', max_threads = 1, output_format_json_quote_64bit_integers = 0,
    output_format_json_quote_denormals = 0, output_format_json_quote_decimals = 1, date_time_output_format = 'iso',
    output_format_json_validate_utf8 = 0, output_format_json_map_as_array_of_tuples = 0, max_execution_time = 60,
    output_format_json_named_tuples_as_objects = 0"""


MOMENT = CLOCK_TEXT.replace("T", " ").rstrip("Z")


class Refused(Exception):
    """ClickHouse does not answer a query."""


def conditions(table, case):
    """WHERE of what the caller may see of a raw table, and of roll-ups by level."""
    days = case.get("retention_days", RETENTION)
    first = 0 if days == 0 else (CLOCK - days * DAY) // DAY * DAY
    scope = f"workspace_id = '{case.get('workspace', 'ws_main')}'"
    column = "key_space_id" if table == "key_verifications_v1" else "namespace_id"
    granted = case.get("key_spaces" if column == "key_space_id" else "namespaces")
    if granted is not None:
        scope += " AND " + (f"{column} IN ({', '.join(map(repr, granted))})" if granted else "0")
    moment = f"toDateTime({first // 1_000}, 'UTC')"
    return {"raw": f"{scope} AND time >= {first}", "minute": f"{scope} AND time >= {moment}",
            "hour": f"{scope} AND time >= {moment}", "day": f"{scope} AND time >= toDate({moment})",
            "month": f"{scope} AND time >= toDate({moment})"}


class Referee:
    """A ClickHouse that has the fixed events, and for each of `renamings` (name -> other name) the events of the
    workspaces in it once more, under the other names."""

    def __init__(self, renamings=()):
        from chdb.session import Session  # here: everything else of this file works without the package

        self.session = Session(tempfile.mkdtemp(prefix="oracle-"))
        self.session.query(f"SET {SETTINGS}")
        self.databases = {}
        folding = self.session.query("SELECT name FROM system.functions WHERE case_insensitive", "TSV").bytes()
        self.any_case = {name.lower() for name in folding.decode().split()}
        self.session.query("CREATE DATABASE every")
        for table, columns in COLUMNS.items():
            structure = ", ".join(f"`{name}` {kind}" for name, kind in columns)
            self.session.query(f"CREATE TABLE every.{table} ({structure}) ENGINE = Memory")
            self.load(table, structure, DATA / f"{table}.ndjson")
            for renaming in renamings:
                with tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8") as file:
                    file.writelines(renamed_lines(table, renaming))
                    file.flush()
                    self.load(table, structure, file.name)
            of, keys, sums = ROLLUPS[table]
            for level, (kind, bucket) in LEVELS.items():
                name = rollup(table, level)
                self.session.query(f"CREATE TABLE every.{name} (time {kind}, {of}) ENGINE = Memory")
                self.session.query(
                    f"INSERT INTO every.{name} SELECT {bucket}(fromUnixTimestamp64Milli(time, 'UTC')) AS bucket, {keys}, "
                    f"{sums} FROM every.{table} GROUP BY bucket, {keys}")

    def load(self, table, structure, path):
        self.session.query(f"INSERT INTO every.{table} SELECT * FROM file('{path}', JSONEachRow, '{structure}')")

    def database(self, case):
        """The database that holds what a case's caller may see, made at the first asking."""
        scope = json.dumps([case.get(name) for name in ("workspace", "retention_days", "key_spaces", "namespaces")])
        if scope not in self.databases:
            database = f"scope_{len(self.databases)}"
            self.session.query(f"CREATE DATABASE {database}")
            for table in COLUMNS:
                where = conditions(table, case)
                for level, name in [("raw", table), *((level, rollup(table, level)) for level in LEVELS)]:
                    self.session.query(f"CREATE TABLE {database}.{name} AS every.{name} ENGINE = MergeTree ORDER BY tuple()")
                    self.session.query(f"INSERT INTO {database}.{name} SELECT * FROM every.{name} WHERE {where[level]}")
            self.databases[scope] = database
        return self.databases[scope]

    def answer(self, case, settings=()):
        """(names, types, rows) of a case's query, rows as JSON objects of the public API. `settings`: name -> value of
        ClickHouse's settings that are to differ from what they are by default, for this query."""
        sql, shown = self.prepared(case["sql"])
        self.session.query(f"USE {self.database(case)}")
        for name in settings:
            self.session.query(f"SET {name} = {settings[name]}")
        try:
            lines = self.session.query(sql, "JSONCompactEachRowWithNamesAndTypes").bytes().decode("utf-8", "replace")
        except RuntimeError as error:
            raise Refused(str(error).split("(version")[0]) from None
        finally:
            self.session.query("USE every")
            for name in settings:
                self.session.query(f"SET {name} = DEFAULT")
        # A zero with a sign is a Float64, which an integer would lose.
        integer = lambda text: -0.0 if text == "-0" else int(text)
        names, types, *rows = [json.loads(line, parse_int=integer) for line in lines.split("\n") if line.strip()]
        for constant, call in shown.items():
            names = [name.replace(constant, call) for name in names]
        # Of two columns with one name the last wins (AN-OP-03), as in a dict.
        return names, types, [dict(zip(names, map(encoded, types, row))) for row in rows]

    def prepared(self, sql):
        """The query with a fixed clock and function names as ClickHouse has them, and constant text -> the call for it."""
        found = pieces(sql.rstrip().rstrip(";"))
        shown = {}
        canonical = {name.lower(): name for name in ALLOWED}
        for at, opening in list(calls(found)):
            word = found[at].text.lower()
            end = closing(found, opening)
            if end is None:
                continue
            inside = "".join(piece.text for piece in found[opening + 1:end]).strip()
            constant = None
            if word == "now":
                constant = f"toDateTime({CLOCK // 1_000}{', ' + inside if inside else ''})"
            elif word in ("today", "current_date"):
                constant = f"toDate({CLOCK // DAY})"
            elif word == "now64":
                scale, *zone = [part.strip() for part in inside.split(",")] if inside else ["3"]
                constant = f"toDateTime64({MOMENT!r}, {scale})"
                if zone:
                    # The same moment, not the same text.
                    constant = f"toDateTime64(toDateTime64({MOMENT!r}, {scale}, 'UTC'), {scale}, {zone[0]})"
            if constant:
                shown.setdefault(constant, f"{found[at].text}({inside})")
                found[at].text = constant
                for piece in found[opening:end + 1]:
                    piece.text = ""
            elif word in canonical and word not in self.any_case:
                found[at].text = canonical[word]
        for at, piece in enumerate(found):
            before = meaningful(found, at, -1)
            if piece.kind == "word" and piece.text.lower() == "current_date" and (
                    before is None or found[before].text.lower() not in ("as", ".")):
                piece.text = f"toDate({CLOCK // DAY})"
                shown.setdefault(piece.text, "today()")
        return "".join(piece.text for piece in found), shown


def renamed_lines(table, renaming):
    """The lines of a table's events of the workspaces in a renaming, with the other names."""
    with open(DATA / f"{table}.ndjson", encoding="utf-8") as file:
        for line in file:
            if json.loads(line)["workspace_id"] in renaming:
                for name, other in renaming.items():
                    line = line.replace(f'"{name}"', f'"{other}"')
                yield line


def rollup(table, level):
    return f"{table[:-len('_v1')]}_per_{level}_v1"


def inner(kind, wrapper):
    """T of `wrapper(T)`, or None."""
    return kind[len(wrapper) + 1:-1] if kind.startswith(f"{wrapper}(") else None


def parts(text):
    """The top-level parts of a list of types."""
    found, depth, start = [], 0, 0
    for at, sign in enumerate(text):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            found.append(text[start:at].strip())
            start = at + 1
    return [*found, text[start:].strip()]


def encoded(kind, value):
    """A value of ClickHouse's JSON as the public API has it (AN-JSON)."""
    if value is None:
        return None
    for wrapper in ("Nullable", "LowCardinality"):
        if inner(kind, wrapper):
            return encoded(inner(kind, wrapper), value)
    if inner(kind, "Array"):
        return [encoded(inner(kind, "Array"), item) for item in value]
    if inner(kind, "Tuple"):
        return [encoded(part.split(" ")[-1], item) for part, item in zip(parts(inner(kind, "Tuple")), value)]
    if inner(kind, "Map"):
        return {name: encoded(parts(inner(kind, "Map"))[1], item) for name, item in value.items()}
    if kind.startswith("DateTime"):
        return moment(kind, value)
    if kind in ("Date", "Date32"):
        return f"{value}T00:00:00Z"
    if kind.startswith("Float"):
        # So that a stored answer tells a Float64 from an integer.
        return float(value)
    if kind.startswith("Interval"):
        raise Refused("an interval is no result column (AN-JSON-13)")
    return value


def moment(kind, value):
    """AN-JSON-07 and 08 of ClickHouse's `YYYY-MM-DDThh:mm:ss[.fraction]Z`."""
    whole, _, fraction = value.rstrip("Z").partition(".")
    fraction = fraction.rstrip("0")
    zone = re.search(r"'([^']+)'", kind)
    offset = "Z"
    if zone:
        local = datetime.fromisoformat(f"{whole}+00:00").astimezone(ZoneInfo(zone.group(1)))
        whole = local.strftime("%Y-%m-%dT%H:%M:%S")
        # Go's encoder, which upstream uses, writes an offset of zero as Z.
        if local.utcoffset() != timedelta(0):
            offset = local.isoformat()[-6:]
    return f"{whole}{'.' + fraction if fraction else ''}{offset}"


def case_text(case):
    """A case as JSON that a person can read: a member, and a row, per line."""
    lines = []
    for name, value in case.items():
        if name == "rows" and value:
            text = "[\n" + ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in value) + "]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        lines.append(f"{json.dumps(name)}: {text}")
    return "  {" + ",\n   ".join(lines) + "}"


def files_of(names):
    return [Path(name) for name in names] or sorted(CASES.glob("*.json"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--store", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--ask", metavar="SQL")
    parser.add_argument("--retention", type=int, default=RETENTION)
    parser.add_argument("files", nargs="*")
    arguments = parser.parse_args()
    referee = Referee()
    if arguments.ask:
        names, types, rows = referee.answer({"sql": arguments.ask, "retention_days": arguments.retention})
        print(*(f"{name}  {kind}" for name, kind in zip(names, types)), sep="\n")
        print(*(json.dumps(row, ensure_ascii=False) for row in rows), sep="\n")
        return
    wrong = asked = 0
    for path in files_of(arguments.files):
        cases = json.loads(path.read_text(encoding="utf-8"))
        for case in cases:
            if case.get("by") == "contract":
                continue
            asked += 1
            try:
                rows = referee.answer(case)[2]
                problem = f"ClickHouse answers {rows[:3]}" if "code" in case else None
            except Refused as refusal:
                rows, problem = None, None if "code" in case else str(refusal)
            if problem is None and rows is not None:
                if arguments.store:
                    case["rows"] = rows
                else:
                    problem = difference(case, case["rows"], rows)
            if problem:
                wrong += 1
                print(f"{path.name}: {case['id']}: {problem}\n    {case['sql']}")
        if arguments.store:
            path.write_text("[\n" + ",\n".join(map(case_text, cases)) + "\n]\n", encoding="utf-8")
    print(f"{asked} cases asked, {wrong} wrong")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
