#!/usr/bin/env python3
"""Makes random queries that are nearly all valid, and compares the answers of keyward and ClickHouse.

    tests/oracle/run.py --random 5000 --seed 7     compare; every difference is printed as small as it can be made
    random_queries.py --show 20 --seed 7           print queries
    random_queries.py --check 2000 --seed 7        ask ClickHouse alone: how many are valid, and why others are not

A query is a tree whose expressions have types, so a difference is made small by putting something simpler of the same type
in the place of every part, and by leaving out clauses and columns, for as long as the answers still differ.

Only what has one right answer is made: no LIMIT without a total order, no `any` of different values, no rounding of sums
whose last digit depends on the order of adding.

What differs and may differ stands in accepted_differences.json, with the reason.
"""

import argparse
import collections
import random
import re
import sys

from compare import difference
from excuses import Excuses
from query_forms import Forms
from query_shapes import Shapes
from query_tree import Column, Item, Node, Query

# How often a difference is asked again while it is made small.
SHRINK_STEPS = 250

# Types: String, signed and unsigned integers, Float64, a comparison's result, Bool, Date, DateTime, DateTime64(3),
# Array(String).
KINDS = ["S", "I", "U", "F", "B", "P", "D", "T", "M", "A"]

VERIFICATIONS = {"request_id": "S", "time": "I", "workspace_id": "S", "key_space_id": "S", "key_id": "S",
                 "identity_id": "S", "external_id": "S", "region": "S", "source": "S", "app_id": "S", "outcome": "S",
                 "tags": "A", "spent_credits": "I", "latency": "F"}
RATELIMITS = {"request_id": "S", "time": "I", "workspace_id": "S", "namespace_id": "S", "identifier": "S",
              "override_id": "S", "passed": "P", "latency": "F", "limit": "U", "remaining": "U", "reset_at": "I",
              "tokens": "U"}
ROLLUP = {"time": "", "workspace_id": "S", "key_space_id": "S", "identity_id": "S", "external_id": "S", "key_id": "S",
          "outcome": "S", "source": "S", "app_id": "S", "tags": "A", "count": "I", "spent_credits": "I"}
LIMIT_ROLLUP = {"time": "", "workspace_id": "S", "namespace_id": "S", "identifier": "S", "passed": "I", "total": "I",
                "total_tokens": "I", "passed_tokens": "I"}
LEVELS = {"minute": "T", "hour": "T", "day": "D", "month": "D"}


def tables(endpoint):
    """Table -> columns with their types."""
    raw, columns, rollup, stem = (
        ("key_verifications_v1", VERIFICATIONS, ROLLUP, "key_verifications") if endpoint == "verifications"
        else ("ratelimits_v1", RATELIMITS, LIMIT_ROLLUP, "ratelimits"))
    levels = {f"{stem}_per_{level}_v1": {**rollup, "time": kind} for level, kind in LEVELS.items()}
    return {raw: columns, **levels}


TEXTS = ["'VALID'", "'EXPIRED'", "'user_123'", "''", "'us-east-1'", "'ks_1234'", "'api'", "'a'", "'key_'", "'üser_ñandú'",
         "'it''s'", "'back\\\\slash'", "'123'", "'Z z'", "' x '", "'10.0.0.1'"]
PATTERNS = ["'%'", "'user%'", "'%a%'", "'_b_'", "'%\\\\%%'", "'KEY%'", "'%_1'", "''", "'VALID'", "'%ü%'"]
FORMATS = ["'%Y-%m-%d'", "'%F %T'", "'%H:%i'", "'%j %V %G'", "'%a %b %M'", "'%W'", "'%u %w'", "'%Q'", "'%y%%'", "'%p %I'"]
UNITS = ["SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"]
ZONES = ["'America/New_York'", "'Asia/Kolkata'", "'Europe/Berlin'", "'UTC'"]


class Maker(Forms, Shapes):
    """Makes one query."""

    def __init__(self, dice, endpoint):
        self.dice, self.endpoint = dice, endpoint
        self.tables = tables(endpoint)
        self.count = 0

    def chance(self, one_of):
        return self.dice.randrange(one_of) == 0

    def pick(self, *choices):
        return self.dice.choice(choices)

    def name(self, stem="c"):
        self.count += 1
        return f"{stem}{self.count}"

    # Expressions

    def leaf(self, kind, scope):
        """A column, or a literal where there is none or for a change."""
        nulls = self.chance(4)
        columns = [column for column in scope if column.kind == kind and (nulls or not column.nullable)]
        if columns and not self.chance(4):
            return Node(kind, self.dice.choice(columns).name)
        derived = self.derived(kind, scope)
        if not columns and derived and not self.chance(3):
            return derived
        literals = {
            "S": TEXTS, "I": ["0", "1", "2", "7", "-3", "100", "300", "-129", "70000"], "U": ["0", "1", "5", "1000"],
            "F": ["0.5", "2.5", "-1.25", "1e3", "0.1", "3."], "B": ["1 = 1", "1 = 2"], "P": ["true", "false"],
            "D": ["today()", "toDate('2024-02-29')", "toDate('2024-03-31')"],
            "T": ["now()", "toDateTime('2024-02-29 12:30:45')", "toDateTime('2024-03-01 00:00:00')"],
            "M": ["now64()", "fromUnixTimestamp64Milli(1709209845678)", "toDateTime64('2024-02-29 23:59:59.999', 3)"],
            "A": ["['a', 'beta']", "['path=/api/users']", "['']"],
        }[kind]
        return Node(kind, "(" + text + ")" if " = " in (text := self.dice.choice(literals)) else text)

    def derived(self, kind, scope):
        """An expression of a type that no column has, from a column all the same."""
        for column in scope:
            if column.kind == "I" and not column.nullable and re.search(r"\b(time|reset_at)$", column.name):
                moment = f"fromUnixTimestamp64Milli({column.name})"
                if kind in "DTM":
                    return Node(kind, {"D": f"toDate({moment})", "T": f"toDateTime({moment})", "M": moment}[kind])
            if column.kind == "T" and kind in "DM":
                return Node(kind, f"toDate({column.name})" if kind == "D" else f"toDateTime64({column.name}, 3)")
            if column.kind == "D" and kind in "TM":
                return Node(kind, f"toDateTime({column.name})" if kind == "T" else f"toDateTime64({column.name}, 3)")
            if column.kind == "S" and kind == "U" and not column.nullable:
                return Node(kind, f"length({column.name})")
            if column.kind == "I" and kind == "F" and not column.nullable:
                return Node(kind, f"({column.name} / 4)")
        return None

    def number(self):
        return self.pick("I", "I", "F", "U")

    def expression(self, kind, scope, depth):
        if depth <= 0 or self.chance(5):
            return self.leaf(kind, scope)
        return getattr(self, f"make_{kind}")(scope, depth - 1)

    def any_kind(self, scope):
        kinds = [column.kind for column in scope] + ["S", "I", "F", "B"]
        return self.dice.choice(kinds)

    def conditional(self, kind, scope, depth):
        """Forms that every type has."""
        one, other = self.expression(kind, scope, depth), self.expression(kind, scope, depth)
        test = self.condition(scope, depth)
        form = self.dice.randrange(6)
        if form == 0:
            return Node(kind, "if(", test, ", ", one, ", ", other, ")")
        if form == 1:
            return Node(kind, "CASE WHEN ", test, " THEN ", one, " ELSE ", other, " END")
        if form == 2 and kind != "A":
            return Node(kind, "coalesce(if(", test, ", NULL, ", one, "), ", other, ")")
        if form == 3 and kind in "SI":
            return Node(kind, "CASE ", self.leaf(kind, scope), " WHEN ", self.leaf(kind, []), " THEN ", one, " ELSE ", other,
                        " END")
        if form == 4:
            return Node(kind, "(", test, " ? ", one, " : ", other, ")")
        return Node(kind, "if(", test, ", ", one, ", ", other, ")")

    def make_S(self, scope, depth):
        text = lambda: self.expression("S", scope, depth)
        form = self.dice.randrange(13)
        if form == 0:
            return Node("S", self.pick("lower", "upper", "trim"), "(", text(), ")")
        if form == 1:
            return Node("S", "substring(", text(), f", {self.pick(1, 2, 3, -1, -3, 9)})")
        if form == 2:
            return Node("S", "substring(", text(), f", {self.pick(1, 2, -2, 5)}, {self.pick(0, 1, 3, 100, -1)})")
        if form in (3, 4):
            more = self.expression(self.any_kind(scope), scope, depth)
            return Node("S", "concat(", text(), ", ", more, ")")
        if form == 5:
            return Node("S", "toString(", self.expression(self.dice.choice(KINDS), scope, depth), ")")
        if form == 6:
            return Node("S", self.expression("A", scope, depth), f"[{self.pick(1, 2, -1, 7)}]")
        if form == 7:
            path = self.pick("'plan'", "'seats'", "'list', 2", "'nested', 'a', 'b'", "'name'", "1", "'none'")
            return Node("S", "JSONExtractString(", text(), f", {path})")
        if form == 8:
            zone = f", {self.dice.choice(ZONES)}" if self.chance(3) else ""
            kind = self.pick("T", "M") if zone else self.pick("D", "T", "M")
            return Node("S", "formatDateTime(", self.expression(kind, scope, depth), f", {self.dice.choice(FORMATS)}{zone})")
        if form == 9:
            return Node("S", "CAST(", self.expression(self.pick("I", "S", "D", "T"), scope, depth), " AS String)")
        return self.conditional("S", scope, depth)

    def make_I(self, scope, depth):
        whole = lambda: self.expression("I", scope, depth)
        form = self.dice.randrange(15)
        if form == 14:
            return Node("I", "(", self.expression("B", scope, depth), f" {self.pick('+', '-', '*')} ", whole(), ")")
        if form in (0, 1):
            return Node("I", "(", whole(), f" {self.pick('+', '-', '*')} ", whole(), ")")
        if form == 2:
            return Node("I", "(", whole(), f" % {self.pick(2, 3, 7, 10, -4, 1000)})")
        if form == 3:
            return Node("I", "(", self.expression("U", scope, depth), " - ", self.expression("U", scope, depth), ")")
        if form == 4:
            return Node("I", f"{self.pick('round', 'floor', 'ceil')}(", whole(), f", {self.pick(-1, -2, 0, 1)})")
        if form == 5:
            return Node("I", "(- ", self.leaf(self.pick("I", "U"), scope), ")")
        if form == 6:
            return Node("I", f"{self.pick('toInt32', 'toInt64')}(", self.expression(self.pick("I", "U", "B", "D", "T"), scope, depth), ")")
        if form == 7 and any(column.name.endswith("latency") for column in scope):
            column = next(column for column in scope if column.name.endswith("latency"))
            return Node("I", f"{self.pick('toInt32', 'toInt64')}({column.name} * {self.pick(1, 10, -1)})")
        if form == 8:
            return Node("I", "toUnixTimestamp64Milli(", self.expression("M", scope, depth), ")")
        if form == 9:
            kind = self.pick("D", "T")
            return Node("I", "(", self.expression(kind, scope, depth), " - ", self.expression(kind, scope, depth), ")")
        if form == 10:
            unit = self.pick("YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND")
            return Node("I", f"EXTRACT({unit} FROM ", self.expression("T", scope, depth), ")")
        return self.conditional("I", scope, depth)

    def make_U(self, scope, depth):
        form = self.dice.randrange(6)
        if form == 0:
            return Node("U", "length(", self.expression(self.pick("S", "A"), scope, depth), ")")
        if form == 1:
            return Node("U", "abs(", self.expression("I", scope, depth), ")")
        if form == 2:
            return Node("U", "(", self.expression("U", scope, depth), f" {self.pick('+', '*')} ", self.expression("U", scope, depth), ")")
        if form == 3:
            return Node("U", "(", self.expression("U", scope, depth), f" % {self.pick(2, 5, 10)})")
        return self.conditional("U", scope, depth) if form == 4 else self.leaf("U", scope)

    def make_F(self, scope, depth):
        number = lambda: self.expression(self.number(), scope, depth)
        form = self.dice.randrange(9)
        if form in (0, 1):
            return Node("F", "(", number(), " / ", number(), ")")
        if form == 2:
            return Node("F", "(", self.expression("F", scope, depth), f" {self.pick('+', '-', '*')} ", number(), ")")
        if form in (3, 4):
            places = f", {self.pick(0, 1, 2, -1)}" if self.chance(2) else ""
            return Node("F", f"{self.pick('round', 'floor', 'ceil')}(", self.expression("F", scope, depth), f"{places})")
        if form == 5:
            return Node("F", "abs(", self.expression("F", scope, depth), ")")
        if form == 6:
            return Node("F", "toFloat64(", self.expression(self.pick("I", "U", "B", "F"), scope, depth), ")")
        if form == 7:
            return Node("F", "(", self.expression("F", scope, depth), f" % {self.pick(2, 7, '0.5')})")
        return self.conditional("F", scope, depth)

    def condition(self, scope, depth):
        return self.make_B(scope, depth)

    def filter(self, scope, depth):
        """A condition for WHERE that does not always leave nothing."""
        test = self.condition(scope, depth)
        texts = [column for column in scope if column.kind == "S" and not column.nullable]
        if not texts or self.chance(2):
            return test
        return Node("B", "(", test, " OR ", Node("B", f"({self.dice.choice(texts).name} {self.pick('<', '>=', '!=')} {self.dice.choice(TEXTS)})"), ")")

    def make_B(self, scope, depth):
        form = self.dice.randrange(15)
        if form <= 3:
            kind = self.pick("S", "S", "F", "I", "D", "T", "M", "A")
            sign = self.pick("=", "!=", "<", ">", "<=", ">=")
            one = self.expression(kind, scope, depth)
            other = self.expression({"D": self.pick("D", "T"), "T": self.pick("T", "M", "D"), "I": self.number()}.get(kind, kind),
                                    scope, depth)
            return Node("B", "(", one, f" {sign} ", other, ")")
        if form == 4:
            form = self.pick("LIKE", "NOT LIKE", "ILIKE", "NOT ILIKE")
            return Node("B", "(", self.expression("S", scope, depth), f" {form} {self.dice.choice(PATTERNS)})")
        if form == 5:
            values = ", ".join(self.dice.sample(TEXTS, self.dice.randint(1, 4)))
            return Node("B", "(", self.expression("S", scope, depth), f" {self.pick('IN', 'NOT IN')} ({values}))")
        if form == 6:
            values = ", ".join(self.dice.sample(["0", "1", "5", "7", "-3", "300"], self.dice.randint(1, 4)))
            return Node("B", "(", self.expression("I", scope, depth), f" {self.pick('IN', 'NOT IN')} ({values}))")
        if form == 7:
            kind = self.pick("F", "I", "S")
            parts = [self.expression(kind, scope, depth) for _ in range(3)]
            return Node("B", "(", parts[0], " BETWEEN ", parts[1], " AND ", parts[2], ")")
        if form == 8:
            return Node("B", "has(", self.expression("A", scope, depth), ", ", self.expression("S", scope, depth), ")")
        if form == 9:
            return Node("B", f"{self.pick('hasAny', 'hasAll')}(", self.expression("A", scope, depth), ", ", self.expression("A", scope, depth), ")")
        if form == 10:
            return Node("B", f"{self.pick('startsWith', 'endsWith')}(", self.expression("S", scope, depth), ", ", self.leaf("S", scope), ")")
        if form == 11:
            return Node("B", "(", self.condition(scope, depth - 1) if depth > 0 else self.leaf("B", scope), f" {self.pick('AND', 'OR')} ",
                        self.expression("B", scope, depth), ")")
        if form == 12:
            times = [column.name for column in scope if column.kind == "I" and column.name.endswith("time")]
            if times and self.chance(2):
                # Milliseconds meet seconds (AN-TIME-05).
                return Node("B", f"({self.dice.choice(times)} {self.pick('<', '>=', '!=')} ", self.expression("T", scope, depth), ")")
            if self.chance(4):
                return Node("B", "(", self.expression("T", scope, depth), f" {self.pick('<', '>=', '!=')} {self.pick(1710892800, 1709208000)})")
            return Node("B", "(NOT ", self.expression("B", scope, depth), ")")
        if form == 13:
            nullable = [column for column in scope if column.nullable]
            if nullable:
                return Node("B", f"({self.dice.choice(nullable).name} IS {self.pick('', 'NOT ')}NULL)")
            day = self.pick("'2024-03-01'", "'2024-02-29'", "'2024-03-18'")
            return Node("B", "(", self.expression("D", scope, depth), f" {self.pick('>=', '<', '=')} {day})")
        moment = self.pick("'2024-03-01 00:00:00'", "'2024-02-29 12:00:00'")
        return Node("B", "(", self.expression("T", scope, depth), f" {self.pick('>=', '<', '!=')} {moment})")

    def make_P(self, scope, depth):
        if self.chance(2):
            return Node("P", "(", self.leaf("P", scope), f" {self.pick('AND', 'OR')} ", self.leaf("P", scope), ")")
        return self.conditional("P", scope, depth) if self.chance(3) else Node("P", "(NOT ", self.leaf("P", scope), ")")

    def make_D(self, scope, depth):
        form = self.dice.randrange(8)
        if form in (0, 1):
            return Node("D", f"{self.pick('toDate', 'toStartOfWeek', 'toStartOfMonth', 'toStartOfQuarter', 'toStartOfYear')}(",
                        self.expression(self.pick("D", "T", "M"), scope, depth), ")")
        if form == 2:
            return Node("D", "toStartOfWeek(", self.expression(self.pick("D", "T"), scope, depth), ", 1)")
        if form == 3:
            unit = self.pick("week", "month", "quarter", "year", "MONTH")
            return Node("D", f"date_trunc('{unit}', ", self.expression(self.pick("D", "T"), scope, depth), ")")
        if form == 4:
            return Node("D", "(", self.expression("D", scope, depth), f" {self.pick('+', '-')} {self.pick(1, 7, 30)})")
        if form == 5:
            unit = self.dice.choice(UNITS[3:])
            return Node("D", "(", self.expression("D", scope, depth), f" {self.pick('+', '-')} INTERVAL {self.pick(1, 2, 13)} {unit})")
        if form == 6:
            unit = self.pick("Day", "Week", "Month", "Quarter", "Year")
            return Node("D", "(", self.expression("D", scope, depth), f" - toInterval{unit}({self.pick(1, 3, -1)}))")
        return self.conditional("D", scope, depth)

    def make_T(self, scope, depth):
        form = self.dice.randrange(9)
        if form in (0, 1):
            return Node("T", f"{self.pick('toStartOfMinute', 'toStartOfHour', 'toStartOfDay')}(", self.expression(self.pick("T", "M"), scope, depth), ")")
        if form == 2:
            return Node("T", "toStartOfDay(", self.expression("D", scope, depth), ")")
        if form == 3:
            unit = self.pick("second", "minute", "hour", "day", "DAY")
            return Node("T", f"date_trunc('{unit}', ", self.expression("T", scope, depth), ")")
        if form == 4:
            return Node("T", "(", self.expression("T", scope, depth), f" {self.pick('+', '-')} INTERVAL {self.pick(1, 5, 13)} {self.dice.choice(UNITS)})")
        if form == 5:
            return Node("T", "toDateTime(", self.expression(self.pick("D", "T", "M"), scope, depth), ")")
        if form == 6:
            return Node("T", "(", self.expression("D", scope, depth), f" {self.pick('+', '-')} INTERVAL {self.pick(1, 30)} {self.dice.choice(UNITS[:3])})")
        if form == 7:
            times = [column.name for column in scope if column.kind == "I" and re.search(r"\b(time|reset_at)$", column.name)]
            if times and self.chance(2):
                return Node("T", f"toDateTime({self.dice.choice(times)} / 1000)")
            if self.chance(2):
                unit = self.pick("Second", "Minute", "Hour", "Day", "Week", "Month", "Year")
                return Node("T", "(", self.expression("T", scope, depth), f" {self.pick('+', '-')} toInterval{unit}((length(", self.expression("S", scope, depth), ") % 40)))")
            return Node("T", "(", self.expression("T", scope, depth), f" {self.pick('+', '-')} {self.pick(1, 3600, 86400)})")
        return self.conditional("T", scope, depth)

    def make_M(self, scope, depth):
        times = [column.name for column in scope if column.kind == "I" and re.search(r"(time|reset_at)$", column.name)]
        form = self.dice.randrange(5)
        if form <= 1 and times:
            return Node("M", f"fromUnixTimestamp64Milli({self.dice.choice(times)})")
        if form == 2:
            return Node("M", "(", self.expression("M", scope, depth), f" {self.pick('+', '-')} INTERVAL {self.pick(1, 2, 11)} {self.dice.choice(UNITS)})")
        if form == 3:
            return Node("M", "toDateTime64(", self.expression(self.pick("D", "T", "M"), scope, depth), ", 3)")
        return self.leaf("M", scope)

    def make_A(self, scope, depth):
        form = self.dice.randrange(5)
        if form <= 1:
            name = self.name("x")
            inner = [*scope, Column(name, "S")]
            body = self.condition(inner, min(depth, 1))
            return Node("A", f"arrayFilter({name} -> ", body, ", ", self.leaf("A", scope), ")")
        if form == 2:
            return Node("A", "[", self.expression("S", scope, depth), ", ", self.expression("S", scope, depth), "]")
        return self.conditional("A", scope, depth) if form == 3 else self.leaf("A", scope)

    # Queries

    def table(self):
        name = self.dice.choice(list(self.tables) + [next(iter(self.tables))] * 3)
        return name, [Column(column, kind) for column, kind in self.tables[name].items()]

    def item(self, kind, scope, depth=3):
        """A column of any type, sometimes nullable."""
        node = self.expression(kind, scope, depth)
        if self.chance(7) and kind not in "A":
            test = self.condition(scope, 1)
            form = self.dice.randrange(2)
            node = (Node(kind, "if(", test, ", NULL, ", node, ")") if form
                    else Node(kind, "CASE WHEN ", test, " THEN ", node, " END"))
            return Item(node, self.name(), nullable=True)
        return Item(node, self.name())

    def source(self, depth):
        """(source, scope)"""
        form = self.dice.randrange(6) if depth > 0 else 0
        if form <= 3:
            name, scope = self.table()
            if self.chance(4):
                alias = self.name("t")
                return [f"{name} AS {alias}"], [Column(f"{alias}.{column.name}", column.kind) for column in scope]
            return [name], scope
        inner = self.query(depth - 1)
        if inner.order and not inner.limit:
            inner.order, inner.limit_by = [], None
        inner.fill = None
        if form == 4:
            alias = self.name("s")
            return [inner, f" AS {alias}"], [Column(f"{alias}.{item.alias}", item.kind, item.nullable) for item in inner.items if not item.settled]
        return [inner], [Column(item.alias, item.kind, item.nullable) for item in inner.items if not item.settled]

    def aggregate(self, scope, depth=2):
        """An item that is an aggregate."""
        form = self.dice.randrange(17)
        number = lambda: self.expression(self.number(), scope, depth)
        if form == 0:
            return Item(Node("U", "count()"), self.name())
        if form == 1:
            return Item(Node("U", "count(", self.nullable(self.any_kind(scope), scope), ")"), self.name())
        if form == 2:
            return Item(Node("U", f"{self.pick('count(DISTINCT ', 'uniqExact(', 'uniq(')}", self.expression(self.any_kind(scope), scope, depth), ")"), self.name())
        if form in (3, 4):
            kind = self.pick("I", "F", "B", "U")
            result = {"I": "I", "F": "F", "B": "U", "U": "U"}[kind]
            if kind == "I":
                # A literal would make the sum unsigned.
                return Item(Node("I", "sum(toInt64(", self.expression("I", scope, depth), "))"), self.name())
            return Item(Node(result, "sum(", self.expression(kind, scope, depth), ")"), self.name())
        if form == 5:
            kind = self.pick("I", "U")
            if self.chance(4):
                return Item(Node("F", "avg(DISTINCT ", self.expression(kind, scope, depth), ")"), self.name())
            if self.chance(4):
                return Item(Node("U", "sum(DISTINCT ", self.expression("U", scope, depth), ")"), self.name())
            return Item(Node("F", "avg(", number(), ")"), self.name())
        if form in (6, 7, 8):
            kind = self.any_kind(scope)
            return Item(Node(kind, f"{self.pick('min', 'max')}(", self.expression(kind, scope, depth), ")"), self.name())
        if form == 9:
            return Item(Node("U", "countIf(", self.condition(scope, depth), ")"), self.name())
        if form == 10:
            return Item(Node("F", "sumIf(", self.expression("F", scope, depth), ", ", self.condition(scope, 1), ")"), self.name())
        if form == 11:
            return Item(Node("F", f"quantile({self.pick('0.5', '0.9', '0.25', '0', '1')})(", number(), ")"), self.name())
        if form == 12:
            return Item(Node("A", f"{self.pick('groupUniqArray', 'groupArray')}(", self.expression("S", scope, depth), ")"), self.name(), settled=True)
        if form == 13:
            kind = self.pick("I", "F", "S")
            return Item(Node(kind, f"{self.pick('min', 'max')}(", self.nullable(kind, scope), ")"), self.name(), nullable=True)
        if form == 14:
            return Item(Node("U", "length(groupArray(3)(", self.expression("S", scope, depth), "))"), self.name())
        if form == 15:
            return Item(Node("F", "(count() / ", self.pick("4", "countIf(1 = 1)", "uniqExact(1)"), ")"), self.name())
        return Item(Node("I", "(count() - ", Node("U", "uniqExact(", self.expression(self.any_kind(scope), scope, 1), ")"), ")"), self.name())

    def nullable(self, kind, scope):
        columns = [column for column in scope if column.kind == kind and column.nullable]
        if columns and self.chance(2):
            return Node(kind, self.dice.choice(columns).name)
        if kind == "A":
            return self.expression(kind, scope, 1)
        return Node(kind, "if(", self.condition(scope, 1), ", NULL, ", self.expression(kind, scope, 1), ")")

    def ends(self, query):
        """ORDER BY over all columns, LIMIT BY and LIMIT, sometimes."""
        settled = any(item.settled for item in query.items)
        if not settled and self.chance(2):
            query.order = [(item.alias, self.pick("", "", " DESC")) for item in query.items]
            self.dice.shuffle(query.order)
            if self.chance(6):
                query.limit_by = (self.dice.randint(1, 3), self.dice.choice(query.items).alias)
            if self.chance(2):
                query.limit = self.pick("LIMIT 7", "LIMIT 20", "LIMIT 3 OFFSET 2", "LIMIT 2, 5", "LIMIT 0")
        return query

    def query(self, depth=2):
        form = self.dice.randrange(20)
        if form <= 5:
            return self.grouped(depth)
        if form <= 7:
            return self.total(depth)
        if form <= 9:
            return self.joined(depth) if depth > 0 else self.grouped(depth)
        if form == 10:
            return self.windowed(depth) if depth > 0 else self.grouped(depth)
        if form == 11:
            return self.exploded(depth)
        return self.plain(depth)

    def top(self):
        """A whole statement."""
        if self.chance(3):
            return self.shape()
        if self.chance(3):
            return self.other_form()
        form = self.dice.randrange(12)
        if form == 0:
            return self.filled()
        if form == 1:
            return self.united()
        if form == 2:
            return self.with_cte()
        if form == 3:
            return self.with_subqueries()
        return self.query(2)

    def plain(self, depth):
        query = Query()
        query.source, scope = self.source(depth)
        visible = list(scope)
        for _ in range(self.dice.randint(1, 4)):
            item = self.item(self.any_kind(visible), visible)
            query.items.append(item)
            # An alias is seen by the columns after it, and in WHERE (AN-SEM-01).
            if self.chance(2):
                visible.append(Column(item.alias, item.kind, item.nullable))
        if self.chance(12):
            # An alias that hides a column of its name.
            column = self.dice.choice(scope)
            if "." not in column.name and column.kind == "S" and not column.nullable and column.name not in query.text_of_items():
                query.items.append(Item(Node("S", "concat(", Node("S", column.name), ", '!')"), column.name))
        if not self.chance(3):
            query.where = [self.filter(visible, 2)]
        query.distinct = self.chance(4)
        self.ends(query)
        if not query.limit and depth == 2:
            # Thousands of wide rows prove no more than a few hundred.
            query.distinct = True
        return query

    def grouped(self, depth):
        query = Query()
        query.source, scope = self.source(depth)
        keys = [self.item(self.any_kind(scope), scope, 2) for _ in range(self.dice.randint(1, 2))]
        values = [self.aggregate(scope) for _ in range(self.dice.randint(1, 3))]
        query.items = keys + values
        query.group = [Node(item.kind, item.alias) for item in keys]
        if self.chance(10):
            query.sets = self.pick("ROLLUP", "CUBE")
        if not self.chance(3):
            query.where = [self.filter(scope, 2)]
        if self.chance(3):
            form = self.dice.randrange(3)
            query.having = [Node("B", "count() > ", self.pick("1", "3", "20")) if form == 0
                            else Node("B", "(", self.expression(keys[0].kind, [Column(keys[0].alias, keys[0].kind)], 1), " != ", self.leaf(keys[0].kind, []), ")")
                            if form == 1 else Node("B", "NOT (", Node("B", "uniqExact(", self.leaf("S", scope), ") < 2"), ")")]
        return self.ends(query)

    def total(self, depth):
        query = Query()
        query.source, scope = self.source(depth)
        query.items = [self.aggregate(scope) for _ in range(self.dice.randint(1, 4))]
        if not self.chance(3):
            query.where = [self.filter(scope, 2)]
        return query

    def joined(self, depth):
        sides = []
        kind = self.pick("S", "S", "D")
        for _ in range(2):
            side = Query()
            side.source, scope = self.source(0)
            side.items = [Item(self.expression(kind, scope, 1), self.name("k"))]
            side.items += [self.aggregate(scope, 1) for _ in range(self.dice.randint(1, 2))]
            side.group = [Node(kind, side.items[0].alias)]
            if self.chance(2):
                side.where = [self.filter(scope, 1)]
            sides.append(side)
        one, other = self.name("l"), self.name("r")
        key = [side.items[0].alias for side in sides]
        how = self.pick("JOIN", "INNER JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "LEFT SEMI JOIN", "LEFT ANTI JOIN", "CROSS JOIN")
        query = Query()
        on = f" ON {one}.{key[0]} = {other}.{key[1]}"
        if how == "CROSS JOIN":
            on = ""
            for side in sides:
                side.order, side.limit = [(item.alias, "") for item in side.items if not item.settled], "LIMIT 5"
                side.items = [item for item in side.items if not item.settled]
        query.source = [sides[0], f" AS {one} {how} ", sides[1], f" AS {other}{on}"]
        visible = zip((one, other), sides) if "SEMI" not in how and "ANTI" not in how else [(one, sides[0])]
        scope = [Column(f"{alias}.{item.alias}", item.kind, item.nullable) for alias, side in visible for item in side.items if not item.settled]
        if self.chance(2):
            query.items = [Item(Node(column.kind, column.name), self.name(), column.nullable) for column in scope]
            if self.chance(2):
                query.where = [self.condition(scope, 1)]
        else:
            keys = [self.item(self.any_kind(scope), scope, 1)]
            query.items = keys + [self.aggregate(scope, 1) for _ in range(2)]
            query.group = [Node(item.kind, item.alias) for item in keys]
        return self.ends(query)

    def windowed(self, depth):
        inner = Query()
        inner.source, scope = self.source(0)
        kind = self.pick("S", "D", "I")
        key = Item(self.expression(kind, scope, 1), self.name("k"))
        inner.items = [key, Item(Node("U", "count()"), self.name("n")), self.aggregate(scope, 1)]
        inner.group = [Node(kind, key.alias)]
        query = Query()
        query.source = [inner]
        count = inner.items[1].alias
        query.items = [Item(Node(kind, key.alias), self.name())]
        for _ in range(self.dice.randint(1, 2)):
            call, result = self.pick((f"sum({count})", "U"), ("count()", "U"), (f"avg({count})", "F"), (f"max({count})", "U"),
                                     (f"min({key.alias})", kind), (f"countIf({count} > 2)", "U"), (f"sumIf({count}, {count} % 2 = 0)", "U"),
                                     (f"any({count})", "U"), (f"uniqExact({count})", "U"))
            partition = self.pick("", "", f"PARTITION BY {count} % 3 ")
            frame = self.pick("", "", " ROWS BETWEEN 2 PRECEDING AND CURRENT ROW", " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
                              " ROWS UNBOUNDED PRECEDING", " ROWS BETWEEN 1 FOLLOWING AND 2 FOLLOWING", " ROWS BETWEEN 1 PRECEDING AND 1 PRECEDING",
                              " RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW", " ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING",
                              *([" RANGE BETWEEN 3 PRECEDING AND CURRENT ROW"] if kind in "D" else []))
            way = "" if "RANGE BETWEEN 3" in frame else self.pick("", " DESC")
            query.items.append(Item(Node(result, f"{call} OVER ({partition}ORDER BY {key.alias}{way}{frame})"), self.name()))
        if self.chance(3):
            query.items.append(Item(Node("U", f"sum({count}) OVER ({self.pick('', 'PARTITION BY ' + count + ' % 2')})"), self.name()))
        return self.ends(query)

    def exploded(self, depth):
        """arrayJoin."""
        query = Query()
        if self.endpoint != "verifications":
            return self.plain(depth)
        query.source, scope = self.source(0)
        array = self.expression("A", scope, 1)
        alias = self.name()
        query.items = [Item(Node("S", "arrayJoin(", array, ")"), alias)]
        query.group = [Node("S", alias)]
        query.items += [self.aggregate(scope, 1) for _ in range(2)]
        if self.chance(2):
            query.where = [self.condition(scope, 1)]
        return self.ends(query)

    def filled(self):
        query = Query()
        query.source, scope = self.source(0)
        kind = self.pick("D", "T")
        base = {"D": ["toDate(%s)", "toStartOfMonth(%s)", "toStartOfWeek(%s, 1)"], "T": ["toStartOfHour(%s)", "toStartOfDay(%s)"]}[kind]
        time = next(column for column in scope if column.name.endswith("time"))
        moment = f"fromUnixTimestamp64Milli({time.name})" if time.kind == "I" else time.name
        if time.kind == "D" and kind == "T":
            base = ["toStartOfDay(%s)"]
        grain = self.dice.choice(base)
        key = Item(Node(kind, grain % moment), self.name())
        values = [item for item in (self.aggregate(scope, 1) for _ in range(3))]
        query.items = [key, *values]
        query.group = [Node(kind, key.alias)]
        start, end = {"D": ("toDate('2024-03-01')", "toDate('2024-04-03')"),
                      "T": ("toDateTime('2024-03-18 00:00:00')", "toDateTime('2024-03-21 06:00:00')")}[kind]
        query.where = [Node("B", f"{moment} >= {start}")]
        steps = {"D": ["", " STEP 1", " STEP 2", " STEP INTERVAL 1 WEEK", " STEP INTERVAL 1 DAY", " STEP INTERVAL 1 MONTH"],
                 "T": [" STEP INTERVAL 1 HOUR", " STEP 7200", " STEP INTERVAL 90 MINUTE", " STEP toIntervalHour(6)"]}[kind]
        bounds = self.pick("", f" FROM {start}", f" TO {end}", f" FROM {start} TO {end}")
        query.order = [(key.alias, "")]
        query.fill = f"WITH FILL{bounds}{self.dice.choice(steps)}"
        return query

    def united(self):
        one = self.query(1)
        one.order, one.limit, one.limit_by, one.fill = [], None, None, None
        other = Query()
        other.source, scope = self.source(0)
        for item in one.items:
            other.items.append(Item(self.expression(item.kind, scope, 2), self.name()))
        other.distinct = True
        if self.chance(2):
            other.where = [self.condition(scope, 2)]
        operator = self.pick("UNION ALL", "UNION ALL", "UNION DISTINCT", "EXCEPT")
        if any(item.settled for item in one.items):
            operator = "UNION ALL"
        one.branch = (operator, other)
        if self.chance(2):
            return one
        outer = Query()
        outer.source = [one]
        scope = [Column(item.alias, item.kind, item.nullable) for item in one.items if not item.settled]
        outer.items = [self.aggregate(scope, 1) for _ in range(2)]
        return outer

    def with_cte(self):
        inner = self.query(1)
        if not inner.limit:
            inner.order, inner.limit_by = [], None
        name = self.name("w")
        scope = [Column(item.alias, item.kind, item.nullable) for item in inner.items if not item.settled]
        query = Query()
        query.ctes = [(name, inner)]
        query.source = [name]
        if self.chance(2) or not scope:
            query.items = [self.aggregate(scope, 2) for _ in range(2)]
        else:
            query.items = [self.item(column.kind, scope, 2) for column in scope[:3]]
            query.distinct = True
        if self.chance(2):
            query.where = [self.filter(scope, 2)]
        return query

    def with_subqueries(self):
        """Scalar and IN subqueries."""
        query = self.pick(self.grouped, self.total, self.plain)(0)
        inner = Query()
        inner.source, scope = self.source(0)
        if self.chance(2):
            kind = self.pick("I", "F")
            inner.items = [Item(Node(kind, self.pick("max", "min"), "(", self.expression(kind, scope, 1), ")"), self.name())]
            test = Node("B", self.leaf(kind, self.table_scope(query)), f" {self.pick('<', '>=', '=')} (", inner, ")")
        else:
            inner.items = [Item(self.expression("S", scope, 1), self.name())]
            inner.where = [self.condition(scope, 1)]
            test = Node("B", self.leaf("S", self.table_scope(query)), f" {self.pick('IN', 'NOT IN')} (", inner, ")")
        query.where = [Node("B", "(", query.where[0], " OR ", test, ")") if query.where[0] and self.chance(2) else test]
        return query

    def table_scope(self, query):
        name, *alias = query.source[0].split(" AS ")
        prefix = f"{alias[0]}." if alias else ""
        return [Column(f"{prefix}{column}", kind) for column, kind in self.tables[name].items()]


def made(seed, number):
    """(endpoint, query) number `number` of a seed."""
    dice = random.Random(f"{seed}:{number}")
    endpoint = dice.choice(["verifications", "verifications", "verifications", "ratelimits"])
    return endpoint, Maker(dice, endpoint).top()


# Making differences small

SIMPLEST = {"S": "'a'", "I": "1", "U": "1", "F": "2.5", "B": "(1 = 1)", "P": "true", "D": "toDate('2024-02-29')",
            "T": "toDateTime('2024-02-29 12:30:45')", "M": "toDateTime64('2024-02-29 23:59:59.999', 3)", "A": "['a']"}


def simplest(kind):
    return Node(kind, SIMPLEST[kind])


def smaller(query):
    """Ways to make a query smaller: (do, undo) each."""

    def put(holder, at, value):
        before = holder[at]

        def do():
            holder[at] = value

        def undo():
            holder[at] = before

        return do, undo

    def member(owner, name, value):
        before = getattr(owner, name)

        def do():
            setattr(owner, name, value)

        def undo():
            setattr(owner, name, before)

        return do, undo

    for each in list(query.queries()):
        if each.branch:
            yield member(each, "branch", None)
        for name in ("limit", "limit_by", "fill", "sets", "interpolate", "star", "positions", "prewhere"):
            if getattr(each, name):
                yield member(each, name, "" if name in ("sets", "interpolate", "star") else None)
        if each.order and not each.limit and not each.limit_by and not each.fill and not isinstance(each.distinct, str):
            yield member(each, "order", [])
        for holder in (each.where, each.having):
            if holder[0]:
                yield put(holder, 0, None)
        if each.distinct:
            yield member(each, "distinct", False)
        if len(each.items) > 1:
            for item in list(each.items):
                left = [other for other in each.items if other is not item]
                order = [(alias, way) for alias, way in each.order if alias != item.alias]
                group = each.group and [node for node in each.group if node.text() != item.alias]
                before = each.items, each.order, each.group

                def do(left=left, order=order, group=group, each=each):
                    each.items, each.order, each.group = left, order, group or None

                def undo(before=before, each=each):
                    each.items, each.order, each.group = before

                yield do, undo
    for holder, at in list(query.nodes()):
        node = holder[at]
        if not isinstance(node, Node) or node.kind not in SIMPLEST:
            continue
        for inner_holder, inner_at in list(node.nodes()):
            below = inner_holder[inner_at]
            if isinstance(below, Node) and below.kind == node.kind:
                yield put(holder, at, below)
        if node.text() != SIMPLEST[node.kind] and len(node.text()) > 3:
            yield put(holder, at, simplest(node.kind))


def made_small(query, still_differs):
    """Changes the query until nothing can be left out without the difference going away."""
    left = SHRINK_STEPS
    progress = True
    while progress and left > 0:
        progress = False
        for do, undo in smaller(query):
            before = len(query.text())
            do()
            left -= 1
            if len(query.text()) < before and still_differs(query):
                progress = True
                break
            undo()
            if left <= 0:
                break
    return query


# Comparing

class Verdict:
    """What came of one query: `kind` is same, both refuse, differs, refused (by keyward alone) or lenient (answered by
    keyward alone); `rows` are keyward's."""

    def __init__(self, kind, what="", rows=None):
        self.kind, self.what, self.rows = kind, what, rows


def verdict(subject, referee, case):
    from referee import Refused

    try:
        wanted = referee.answer(case)[2]
    except Refused as refusal:
        wanted, why = None, str(refusal)
    answer = subject.ask_as_is(case)
    if wanted is None:
        if answer.rows is None:
            fine = answer.code == "invalid_analytics_query"
            return Verdict("both refuse") if fine else Verdict("refused", f"{answer}; ClickHouse: {why}")
        return Verdict("lenient", f"ClickHouse refuses: {why}")
    if answer.rows is None:
        return Verdict("refused", str(answer))
    problem = difference(case, wanted, answer.rows)
    return Verdict("differs", problem, answer.rows) if problem else Verdict("same")


def caller(subject, seed, number, endpoint):
    """Who asks: mostly somebody who sees all of a workspace, sometimes one who has grants of single key spaces or
    namespaces, perhaps of none that is there."""
    dice = random.Random(f"{seed}:{number}:caller")
    if dice.randrange(3):
        return {"workspace": subject.main}
    if endpoint == "verifications":
        spaces = list(subject.spaces.values())
        return {"workspace": subject.granted, "key_spaces": dice.sample(spaces, dice.choice([0, 1, 1, 2]))}
    return {"workspace": subject.granted, "namespaces": dice.sample(["rlns_123", "rlns_456", "rlns_gone", "rlns_x"], 2)}


def compare_many(subject, referee, tally, count, seed):
    """Compares `count` queries of a seed; prints every difference that is not accepted, as small as it could be made."""
    excuses, seen, counts = Excuses(referee), collections.Counter(), collections.Counter()
    for number in range(count):
        endpoint, query = made(seed, number)
        plain = query.case(endpoint)
        if plain is None:
            continue
        who = caller(subject, seed, number, endpoint)
        case = {**plain, **who}
        found = verdict(subject, referee, case)
        counts[found.kind] += 1
        if found.kind in ("same", "both refuse", "lenient"):
            tally.passed += 1
            continue
        excuse = excuses.reason(case, found.what, found.rows)

        def still(changed):
            other = changed.case(endpoint)
            return other is not None and verdict(subject, referee, {**other, **who}).kind == found.kind

        if not excuse:
            small = {**made_small(query, still).case(endpoint), **who}
            again = verdict(subject, referee, small)
            if again.kind == found.kind:
                case, found = small, again
                excuse = excuses.reason(case, found.what, found.rows)
            else:
                found.what = f"only sometimes: {found.what}"
        if excuse:
            counts[f"accepted: {excuse}"] += 1
            tally.passed += 1
            continue
        tally.failed += 1
        shape = re.sub(r"'[^']*'|\b\d+\b|\b[a-z]+\d+\b", "", found.what if found.kind == "refused" else case["sql"])[:120]
        seen[shape] += 1
        if seen[shape] <= 3:
            print(f"  FAIL  random {seed}:{number}: {found.kind}: {found.what}\n        {case['sql']}", flush=True)
    for kind, times in counts.most_common():
        print(f"  {times:6} {kind}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--show", type=int, default=0)
    parser.add_argument("--check", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    for number in range(arguments.show):
        print(made(arguments.seed, number)[1].text())
    if arguments.check:
        from referee import Referee, Refused

        referee, why, rows = Referee(), collections.Counter(), collections.Counter()
        for number in range(arguments.check):
            endpoint, query = made(arguments.seed, number)
            case = query.case(endpoint)
            if case is None:
                print("undecided:", query.text())
                continue
            try:
                answer = referee.answer(case)[2]
                again = referee.answer(case)[2]
                if problem := difference(case, answer, again):
                    print(f"{arguments.seed}:{number} has no one answer: {problem}\n    {case['sql']}")
                rows["none" if not answer else "one" if len(answer) == 1 else "more"] += 1
            except Refused as refusal:
                text = str(refusal)
                kind = re.search(r"\(([A-Z_]+)\)\s*$", text.strip())
                if why[kind.group(1) if kind else text[:60]] < 2:
                    print(f"{text[:300]}\n    {case['sql']}")
                why[kind.group(1) if kind else text[:60]] += 1
        print(rows, why)


if __name__ == "__main__":
    main()
