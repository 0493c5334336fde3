"""When two answers are the same: the rules of analytics-queries.json's `compare`, for any two lists of rows.

`ordered` false: the rows are a multiset. `ordered` true: one sequence; with `order_keys`, rows that share the values of
these columns may stand in any order, and where the statement has a LIMIT the last such group may be cut elsewhere.
`set_columns`: arrays whose elements have no order. `tolerance`: column -> relative difference, for estimates.
`compare` "row_count_only": nothing but the number of rows.

A wanted number with a fraction or an exponent (`2.0`, `1e21`) is a Float64: it may differ by RELATIVE, because sums add
up in another order, and may be written in any way. Integers, booleans, texts and nulls never differ, and `1`, `true` and
`"1"` are three values.
"""

import json
import math
import re

RELATIVE = 1e-9
# Around zero a relative difference means nothing. A case can have its own `absolute`.
ABSOLUTE = 1e-12


def shown(value):
    """JSON text of a value, cut to a line."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}..."


def key_of(value):
    """What values are sorted by: kinds apart, fractions rounded well above RELATIVE."""
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


class Rule:
    """How much the values of a case may differ."""

    def __init__(self, case):
        self.tolerance = case.get("tolerance", {})
        self.absolute = case.get("absolute", ABSOLUTE)
        self.sets = case.get("set_columns", [])

    def settled(self, rows):
        """The rows with the elements of sets in one order."""
        return [{name: sorted(value, key=key_of) if name in self.sets and isinstance(value, list) else value
                 for name, value in row.items()} for row in rows]

    def value(self, wanted, got, tolerance=None):
        """Whether a value is the wanted one."""
        if isinstance(wanted, bool) or isinstance(got, bool):
            return wanted is got
        if isinstance(wanted, (int, float)) and isinstance(got, (int, float)):
            if isinstance(wanted, int) and tolerance is None:
                return isinstance(got, int) and wanted == got
            relative = RELATIVE if tolerance is None else tolerance
            return math.isclose(wanted, got, rel_tol=relative, abs_tol=self.absolute)
        if isinstance(wanted, list) and isinstance(got, list):
            return len(wanted) == len(got) and all(map(self.value, wanted, got, [tolerance] * len(got)))
        if isinstance(wanted, dict) and isinstance(got, dict):
            return wanted.keys() == got.keys() and all(self.value(wanted[name], got[name], tolerance) for name in wanted)
        return type(wanted) is type(got) and wanted == got

    def row(self, wanted, got):
        return wanted.keys() == got.keys() and all(
            self.value(wanted[name], got[name], self.tolerance.get(name)) for name in wanted)

    def multiset(self, wanted, got):
        """Whether two lists hold the same rows, in any order."""
        if len(wanted) != len(got):
            return False
        # With an estimate the sorted orders need not agree: the estimates stand last in the keys.
        last = lambda name: (name in self.tolerance, name)
        text = lambda row: repr([(name, key_of(row[name])) for name in sorted(row, key=last)])
        ours, theirs = sorted(wanted, key=text), sorted(got, key=text)
        if all(map(self.row, ours, theirs)):
            return True
        # A fraction on the border of two roundings sorts apart: look for each row's partner.
        for row in ours:
            partner = next((at for at, other in enumerate(theirs) if self.row(row, other)), None)
            if partner is None:
                return False
            theirs.pop(partner)
        return True

    def sequence(self, wanted, got, keys, limited):
        """What is different between two sequences that are sorted by some columns alone, or None."""
        at = 0
        while at < len(wanted):
            key = [wanted[at][name] for name in keys]
            end = at
            while end < len(wanted) and self.value([wanted[end][name] for name in keys], key):
                end += 1
            for number in range(at, end):
                if not self.value(key, [got[number][name] for name in keys]):
                    return f"row {number}: {shown(wanted[number])} wanted, {shown(got[number])} came"
            if not (limited and end == len(wanted)) and not self.multiset(wanted[at:end], got[at:end]):
                return f"rows {at} to {end - 1}: {shown(wanted[at:end])} wanted, {shown(got[at:end])} came"
            at = end
        return None


def difference(case, wanted, got):
    """What is different between two answers to a case's query, as one line, or None."""
    if case.get("compare") == "row_count_only":
        return None if len(wanted) == len(got) else f"{len(wanted)} rows wanted, {len(got)} came"
    rule = Rule(case)
    wanted, got = rule.settled(wanted), rule.settled(got)
    missing = lambda: [row for row in wanted if not any(rule.row(row, other) for other in got)][:3]
    spare = lambda: [row for row in got if not any(rule.row(other, row) for other in wanted)][:3]
    if len(wanted) != len(got):
        return f"{len(wanted)} rows wanted, {len(got)} came; missing {shown(missing())}, not wanted {shown(spare())}"
    if wanted and wanted[0].keys() != got[0].keys():
        return f"columns {shown(sorted(wanted[0]))} wanted, {shown(sorted(got[0]))} came"
    if not case.get("ordered"):
        same = rule.multiset(wanted, got)
        return None if same else f"missing {shown(missing() or wanted[:3])}, not wanted {shown(spare() or got[:3])}"
    if case.get("order_keys"):
        limited = re.search(r"\blimit\b", case["sql"], re.IGNORECASE)
        return rule.sequence(wanted, got, case["order_keys"], limited)
    for number, (one, other) in enumerate(zip(wanted, got)):
        if not rule.row(one, other):
            return f"row {number}: {shown(one)} wanted, {shown(other)} came"
    return None
