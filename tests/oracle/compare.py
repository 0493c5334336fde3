"""When two answers are the same: the rules of analytics-queries.json's `compare`, for any two lists of rows.

`ordered` false: the rows are a multiset. `ordered` true: one sequence; with `order_keys`, rows that share the values of
these columns may stand in any order, and where the statement has a LIMIT the last such group may be cut elsewhere.
`set_columns`: arrays whose elements have no order. `tolerance`: column -> relative difference, for estimates.
`compare` "row_count_only": nothing but the number of rows.

A wanted number with a fraction or an exponent (`2.0`, `1e21`) is a Float64: it may differ by FLOAT relative, because sums
add up in another order, and may be written in any way. Integers, booleans, texts and nulls never differ, and `1`, `true`
and `"1"` are three values.
"""

import json
import math
import re

FLOAT = 1e-9


def shown(value):
    """JSON text of a value, cut to a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}..."


def key_of(value):
    """What values are grouped and sorted by: kinds apart, fractions rounded well above FLOAT."""
    if value is None:
        return ("0",)
    if isinstance(value, bool):
        return ("1", value)
    if isinstance(value, (int, float)):
        return ("2", float(f"{float(value):.6g}"))
    if isinstance(value, str):
        return ("3", value)
    if isinstance(value, list):
        return ("4", tuple(key_of(item) for item in value))
    return ("5", tuple((name, key_of(item)) for name, item in sorted(value.items())))


def same_value(wanted, got, tolerance=None):
    """Whether a value is the wanted one."""
    if isinstance(wanted, bool) or isinstance(got, bool):
        return wanted is got
    if isinstance(wanted, (int, float)) and isinstance(got, (int, float)):
        if isinstance(wanted, int) and tolerance is None:
            return isinstance(got, int) and wanted == got
        return math.isclose(wanted, got, rel_tol=FLOAT if tolerance is None else tolerance, abs_tol=1e-12)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(same_value(one, other, tolerance) for one, other in zip(wanted, got))
    if isinstance(wanted, dict) and isinstance(got, dict):
        return wanted.keys() == got.keys() and all(same_value(wanted[name], got[name], tolerance) for name in wanted)
    return type(wanted) is type(got) and wanted == got


def same_row(wanted, got, tolerance):
    return wanted.keys() == got.keys() and all(same_value(wanted[name], got[name], tolerance.get(name)) for name in wanted)


def same_rows(wanted, got, tolerance):
    """Whether two lists hold the same rows, in any order."""
    if len(wanted) != len(got):
        return False
    # With an estimate the sorted orders need not agree: the estimates stand last in the keys.
    key = lambda row: [(name, key_of(row[name])) for name in sorted(row, key=lambda name: (name in tolerance, name))]
    text = lambda row: repr(key(row))
    ours, theirs = sorted(wanted, key=text), sorted(got, key=text)
    if all(same_row(one, other, tolerance) for one, other in zip(ours, theirs)):
        return True
    # A fraction on the border of two roundings sorts apart: look for each row's partner.
    rest = list(theirs)
    for row in ours:
        partner = next((at for at, other in enumerate(rest) if same_row(row, other, tolerance)), None)
        if partner is None:
            return False
        rest.pop(partner)
    return True


def difference(case, wanted, got):
    """What is different between two answers to a case's query, as one line, or None."""
    if case.get("compare") == "row_count_only":
        return None if len(wanted) == len(got) else f"{len(wanted)} rows wanted, {len(got)} came"
    sets = case.get("set_columns", [])
    tolerance = case.get("tolerance", {})

    def settled(row):
        return {name: sorted(value, key=key_of) if name in sets and isinstance(value, list) else value
                for name, value in row.items()}

    wanted, got = [settled(row) for row in wanted], [settled(row) for row in got]
    if len(wanted) != len(got):
        first = next((row for row in wanted if row not in got), None) or next((row for row in got if row not in wanted), None)
        return f"{len(wanted)} rows wanted, {len(got)} came; for example {shown(first)}"
    if wanted and wanted[0].keys() != got[0].keys():
        return f"columns {shown(sorted(wanted[0]))} wanted, {shown(sorted(got[0]))} came"
    if not case.get("ordered"):
        if same_rows(wanted, got, tolerance):
            return None
        missing = [row for row in wanted if not any(same_row(row, other, tolerance) for other in got)]
        spare = [row for row in got if not any(same_row(row, other, tolerance) for other in wanted)]
        return f"wanted {shown((missing or wanted)[:3])}, came {shown((spare or got)[:3])}"
    keys = case.get("order_keys")
    if not keys:
        for number, (one, other) in enumerate(zip(wanted, got)):
            if not same_row(one, other, tolerance):
                return f"row {number}: {shown(one)} wanted, {shown(other)} came"
        return None
    limited = re.search(r"\blimit\b", case["sql"], re.IGNORECASE)
    at = 0
    while at < len(wanted):
        key = [wanted[at][name] for name in keys]
        end = at
        while end < len(wanted) and same_value([wanted[end][name] for name in keys], key):
            end += 1
        for number in range(at, end):
            if not same_value([got[number][name] for name in keys], key):
                return f"row {number}: {shown(wanted[number])} wanted, {shown(got[number])} came"
        if not (limited and end == len(wanted)) and not same_rows(wanted[at:end], got[at:end], tolerance):
            return f"rows {at} to {end - 1}: {shown(wanted[at:end])} wanted, {shown(got[at:end])} came"
        at = end
    return None
