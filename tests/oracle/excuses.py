"""Differences between ClickHouse and this server that may be: accepted_differences.json lists them, each with a reason.

`pattern` is looked for in `sql | what is different`. Where an entry has a `proof`, the words alone excuse nothing: the
difference must also be shown to have that very cause, by asking ClickHouse once more.
"""

import json
import math
import re
from pathlib import Path

from compare import difference
from lexer import calls, closing, meaningful, pieces
from referee import Refused

ACCEPTED = Path(__file__).resolve().parent / "accepted_differences.json"
BROKEN = "a character was cut"


def as_written(referee, case, rows):
    """ClickHouse gives our rows when it computes aggregates as they are written."""
    setting = "optimize_arithmetic_operations_in_aggregate_functions"
    try:
        return difference(case, referee.answer(case, {setting: 0})[2], rows) is None
    except Refused:
        return False


def cut_character(referee, case, rows):
    """The query really makes pieces of characters, with the events that are there."""
    checked = {**case, "sql": with_whole_characters(case["sql"])}
    try:
        referee.answer(checked)
    except Refused as refusal:
        return BROKEN in str(refusal)
    return False


def with_whole_characters(sql):
    """The query, refused where a `substring` is no UTF-8."""
    found = pieces(sql)
    for at, opening in calls(found):
        end = closing(found, opening)
        if found[at].text.lower() == "substring" and end is not None:
            inside = with_whole_characters("".join(piece.text for piece in found[opening + 1:end]))
            cut = f"substring({inside})"
            checked = f"if(throwIf(isValidUTF8({cut}) = 0, '{BROKEN}') = 0, {cut}, '')"
            before, after = (found[:at], found[end + 1:])
            rest = with_whole_characters("".join(piece.text for piece in after))
            return "".join(piece.text for piece in before) + checked + rest
    return sql


def sum_too_large(referee, case, rows):
    """ClickHouse gives our rows when it averages floats."""
    try:
        return difference(case, referee.answer({**case, "sql": with_averages_of_floats(case["sql"])})[2], rows) is None
    except Refused:
        return False


def with_averages_of_floats(sql):
    """The query, with `avg(x)` as `avg(toFloat64(x))`."""
    found = pieces(sql)
    for at, opening in list(calls(found)):
        end = closing(found, opening)
        if found[at].text.lower() == "avg" and end is not None:
            first = meaningful(found, opening, 1)
            distinct = first is not None and found[first].text.lower() == "distinct"
            found[first if distinct else opening].text += " toFloat64("
            found[end].text = "))"
    return "".join(piece.text for piece in found)


def signed_zeros(referee, case, rows):
    """Our rows are ClickHouse's without those that another one equals but for the sign of a zero."""
    def signs(row):
        return tuple(isinstance(value, float) and value == 0 and math.copysign(1, value) < 0 for value in row.values())

    try:
        wanted = referee.answer(case)[2]
    except Refused:
        return False
    kept = []
    for row in wanted:
        if not any(row == other and signs(row) != signs(other) for other in kept):
            kept.append(row)
    return len(kept) < len(wanted) and difference(case, kept, rows) is None


PROOFS = {"as_written": as_written, "cut_character": cut_character, "signed_zeros": signed_zeros,
          "sum_too_large": sum_too_large}


class Excuses:
    """The list."""

    def __init__(self, referee):
        self.referee = referee
        entries = json.loads(ACCEPTED.read_text(encoding="utf-8")) if ACCEPTED.exists() else []
        self.entries = [(re.compile(entry["pattern"], re.DOTALL), PROOFS.get(entry.get("proof")), entry["reason"])
                        for entry in entries]

    def reason(self, case, what, rows):
        """Why this difference may be, or None. `rows` are ours, None where we refused."""
        for pattern, proof, reason in self.entries:
            if pattern.search(f"{case['sql']} | {what}") and (
                    proof is None or (rows is not None and proof(self.referee, case, rows))):
                return reason
        return None
