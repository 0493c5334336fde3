#!/usr/bin/env python3
"""Writes the fixed events that the stored queries run over: query/tests/data/<table>.ndjson.

    tests/oracle/events.py            write both files
    tests/oracle/events.py --check    fail when the files differ from what this would write

The columns are those of analytics.md section 4. Everything follows from SEED alone, so that a stored result stays right:
whoever changes a line here stores all results again (`referee.py --store`).

Two workspaces share the files. `ws_main` is the one whose answers are stored. `ws_other` repeats a part of its rows with
nothing changed but the workspace, and has a few rows no answer may ever hold (their texts say LEAK, their numbers are
enormous): a scan that loses its scope changes counts, extremes and sums alike.
"""

import argparse
import json
import random
import sys
from datetime import datetime, timezone
from pathlib import Path

# The clock of all queries: a Wednesday, three weeks after a leap day, ten days after New York's clocks went forward.
CLOCK_TEXT = "2024-03-20T14:23:45.678Z"
CLOCK = 1_710_944_625_678

SEED = 20_240_320
DATA = Path(__file__).resolve().parents[2] / "query" / "tests" / "data"

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
# Whole days without any event, counted back from the clock's: gaps for WITH FILL.
SILENT = {9, 10, 17, 41, 42, 43}
SPAN_DAYS = 100

OUTCOMES = ["VALID"] * 60 + ["RATE_LIMITED"] * 14 + ["INVALID"] * 8 + ["EXPIRED"] * 4 + ["DISABLED"] * 4 + [
    "INSUFFICIENT_PERMISSIONS"] * 4 + ["FORBIDDEN"] * 2 + ["USAGE_EXCEEDED"] * 4

# External ids of identities, with the share of events that are theirs. '' is a key without an identity.
PEOPLE = [("user_123", 480), ("", 140), ("user_456", 90), ("user_abc123", 60), ("user_abc", 40), ("user_xyz", 30)] + [
    (name, 9) for name in [
        "üser_ñandú", "用户_1", "o'brien", "back\\slash", "tab\there", 'quote"d', "100%", "a_b", "a%b", "  spaced  ",
        "🙂 smile", "ABC", "abc", "123", "-5", "3.14", "2024-03-01", "2024-02-29 23:59:59", "straße", "line\nbreak",
        '{"plan":"pro","seats":12,"ratio":1.5,"name":"x\\"y","list":[1,"two",null,{"k":"v"}],"none":null,"on":true}',
        '{"plan":"free","seats":0,"nested":{"a":{"b":"deep"}},"name":"ü"}', '{"plan":', "[10,20,30]"]]

TAGS = ["path=/api/v1/users", "path=/api/v1/posts", "path=/api/users", "environment=production", "environment=prod",
        "environment=staging", "team=backend", "team=frontend", "tier=premium", "beta", "", "naïve=ü", "quote='\\"]

REGIONS = ["us-east-1"] * 5 + ["eu-central-1"] * 3 + ["ap-south-1"]

# Instants whose roll-up buckets, retention or calendar are easy to get wrong.
EDGES = ["2023-12-20T23:59:59.999Z", "2023-12-21T00:00:00.000Z", "2023-12-21T14:23:45.677Z", "2023-12-31T23:59:59.999Z",
         "2024-01-01T00:00:00.000Z", "2024-01-31T12:00:00.000Z", "2024-02-18T23:59:59.999Z", "2024-02-19T00:00:00.000Z",
         "2024-02-28T23:59:59.999Z", "2024-02-29T00:00:00.000Z", "2024-02-29T12:30:30.500Z", "2024-02-29T23:59:59.999Z",
         "2024-03-01T00:00:00.000Z", "2024-03-03T00:00:00.000Z", "2024-03-10T06:59:59.999Z", "2024-03-10T07:00:00.000Z",
         "2024-03-17T23:59:59.999Z", "2024-03-18T00:00:00.000Z", "2024-03-20T00:00:00.000Z", "2024-03-20T14:00:00.000Z",
         "2024-03-20T14:23:00.000Z", "2024-03-20T14:23:45.000Z", "2024-03-20T14:23:45.678Z"]


def millis(text):
    """Unix milliseconds of an RFC 3339 text in UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return round((moment - datetime(1970, 1, 1, tzinfo=timezone.utc)).total_seconds() * 1_000)


class Dice:
    """Random choices that use nothing but `random()`, whose sequence Python guarantees for a seed."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, bound):
        return int(self.random() * bound)

    def pick(self, items):
        return items[self.below(len(items))]

    def weighted(self, pairs):
        left = self.below(sum(weight for _, weight in pairs))
        for item, weight in pairs:
            if left < weight:
                return item
            left -= weight
        raise AssertionError("the weights are positive")

    def time(self):
        """Most events are young: five of six belong to the last month."""
        while True:
            span = self.weighted([(HOUR, 4), (DAY, 12), (7 * DAY, 26), (30 * DAY, 42), (SPAN_DAYS * DAY, 16)])
            time = CLOCK - self.below(span)
            if (CLOCK // DAY - time // DAY) not in SILENT:
                # Now and then on the second, the minute or the hour.
                grain = self.weighted([(1, 80), (SECOND, 12), (MINUTE, 5), (HOUR, 3)])
                return time // grain * grain


def latency(dice):
    kind = dice.below(10)
    if kind == 0:
        return 0
    if kind == 1:
        return dice.below(50)
    if kind == 2:
        return dice.below(40) / 4
    if kind == 3:
        return 0.1 * dice.below(30)
    return round(dice.random() ** 3 * 200, 6)


def tags(dice):
    count = dice.weighted([(0, 25), (1, 25), (2, 25), (3, 15), (4, 10)])
    common = TAGS[:9] if dice.below(5) else TAGS
    # With repetition, in any order.
    return [dice.pick(common) for _ in range(count)]


def verification(dice, number, time, person=None):
    external = dice.weighted(PEOPLE) if person is None else person
    rank = [name for name, _ in PEOPLE].index(external)
    space = dice.weighted([("ks_1234", 60), ("ks_5678", 25), ("ks_9abc", 15)])
    gateway = dice.below(12) == 0
    outcome = dice.pick(OUTCOMES)
    key = "key_1234" if external == "user_123" and dice.below(2) else f"key_{rank:02}{dice.pick('abc')}"
    return {
        "request_id": f"req_{number:05}",
        "time": time,
        "workspace_id": "ws_main",
        "key_space_id": space,
        "key_id": key,
        "identity_id": f"id_{rank:02}" if external else "",
        "external_id": external,
        "region": dice.pick(REGIONS),
        "source": "gateway" if gateway else "api",
        "app_id": dice.pick(["app_1", "app_2"]) if gateway else "",
        "outcome": outcome,
        "tags": tags(dice),
        "spent_credits": dice.weighted([(0, 4), (1, 8), (5, 2), (dice.below(100), 2)]) if outcome == "VALID" else 0,
        "latency": latency(dice),
    }


def verifications():
    dice = Dice(SEED)
    rows = []
    for edge in EDGES:
        for person in ("user_123", ""):
            rows.append(verification(dice, len(rows), millis(edge), person))
    for _ in range(2_700):
        rows.append(verification(dice, len(rows), dice.time()))
    # Groups of equal rows, and of rows that differ in the order of their tags alone.
    for row in rows[200:230]:
        for twin_tags in (row["tags"], row["tags"][::-1], row["tags"] * 2):
            rows.append({**row, "request_id": f"req_{len(rows):05}", "tags": twin_tags})
    # Credits that a Float64 cannot hold.
    for credits in (2**53 + 1, 2**53 + 3, 4_611_686_018_427_387_905):
        row = verification(dice, len(rows), millis("2024-03-05T05:05:05.005Z") + credits % 7, "user_xyz")
        rows.append({**row, "key_id": "key_huge", "key_space_id": "ks_9abc", "outcome": "VALID", "spent_credits": credits})
    main = len(rows)
    for row in rows[:main:7]:
        rows.append({**row, "workspace_id": "ws_other"})
    for number in range(40):
        row = verification(dice, 90_000 + number, dice.time(), "user_123")
        rows.append({**row, "workspace_id": "ws_other", "key_id": "key_LEAK", "region": "LEAK", "tags": ["LEAK"],
                     "identity_id": "LEAK", "spent_credits": 1_000_000_007, "latency": 987_654.321})
    return shuffled(dice, rows)


def ratelimit(dice, number, time):
    limit = dice.weighted([(10, 5), (100, 5), (1_000, 2), (2**64 - 1, 1)])
    passed = dice.below(4) > 0
    tokens = dice.weighted([(1, 12), (0, 2), (3, 2), (25, 1), (2**40 + 1, 0 if number % 97 else 9)])
    override = dice.below(8) == 0
    return {
        "request_id": f"req_r{number:05}",
        "time": time,
        "workspace_id": "ws_main",
        "namespace_id": dice.weighted([("rlns_123", 6), ("rlns_456", 3), ("rlns_gone", 1)]),
        "identifier": dice.weighted([("user_123", 6), ("user_456", 3), ("10.0.0.1", 3), ("üser", 1), ("o'brien", 1),
                                     ("a b\\c", 1), ("{\"ip\":\"::1\",\"n\":[1,2]}", 1)]),
        "override_id": dice.pick(["ovr_1", "ovr_2"]) if override else "",
        "passed": passed,
        "latency": latency(dice),
        "limit": limit,
        "remaining": limit - dice.below(11) if passed else 0,
        "reset_at": (time // MINUTE + 1) * MINUTE,
        "tokens": tokens,
    }


def ratelimits():
    dice = Dice(SEED + 1)
    rows = [ratelimit(dice, number, millis(edge)) for number, edge in enumerate(EDGES)]
    for _ in range(1_500):
        rows.append(ratelimit(dice, len(rows), dice.time()))
    main = len(rows)
    for row in rows[:main:5]:
        rows.append({**row, "workspace_id": "ws_other"})
    for number in range(30):
        row = ratelimit(dice, 90_000 + number, dice.time())
        rows.append({**row, "workspace_id": "ws_other", "identifier": "LEAK", "override_id": "LEAK",
                     "latency": 987_654.321, "tokens": 1_000_000_007})
    return shuffled(dice, rows)


def shuffled(dice, rows):
    """Events arrive in no order; an import must not count on one."""
    for at in range(len(rows) - 1, 0, -1):
        other = dice.below(at + 1)
        rows[at], rows[other] = rows[other], rows[at]
    return rows


def files():
    """Path -> text of every file."""
    tables = {"key_verifications_v1": verifications(), "ratelimits_v1": ratelimits()}
    lines = lambda rows: "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    return {DATA / f"{table}.ndjson": lines(rows) for table, rows in tables.items()}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="write nothing; fail when a file would change")
    check = arguments.parse_args().check
    for path, text in files().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(f"{path} is not what events.py writes")
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"{path}: {text.count(chr(10))} rows, {len(text.encode())} bytes")


if __name__ == "__main__":
    main()
