#!/usr/bin/env python3
"""Sends queries to a real `keyward serve` and compares its answers with ClickHouse's.

    tests/oracle/run.py                      build the program (debug); every stored case of query/tests/sql
    tests/oracle/run.py --binary PATH        with this program
    tests/oracle/run.py --only joins         cases whose file or id holds this word
    tests/oracle/run.py --referee            also ask ClickHouse now: stored cases, and the published examples
                                             (analytics-queries.json of the contract, where it is on this machine)
    tests/oracle/run.py --random 5000        also queries made by random_queries.py (ClickHouse is asked now); --seed N
    tests/oracle/run.py --verbose            name every case

The stored cases need Python alone. What asks ClickHouse runs with the Python of an environment that has
requirements.txt.

The events go in as an operator would put them: `keyward events import`, each workspace's lines by themselves. The server
runs in test mode, and every call says that it is events.CLOCK.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests" / "sdk"))

from compare import difference, shown
from events import CLOCK, DATA
from referee import CASES, RETENTION
from server import Keyward, build

EXAMPLES = ROOT.parent.parent / "shared" / "contract" / "analytics-queries.json"
OPERATIONS = {"verifications": "analytics.getVerifications", "ratelimits": "analytics.getRatelimits"}
# Where a refusal's code stands for an HTTP status other than 400 (AN-ERR).
STATUS = {"insufficient_permissions": 403, "analytics_not_configured": 412, "query_execution_timeout": 422,
          "query_memory_limit_exceeded": 422, "query_rows_limit_exceeded": 422, "query_quota_exceeded": 429}
# The published examples fit this retention unless they say otherwise.
EXAMPLE_RETENTION = 30


class Answer:
    """What the server said to a query: rows, or the last part of a refusal's code."""

    def __init__(self, status, body):
        self.status, self.body = status, body
        self.rows = body.get("data") if status == 200 else None
        error = body.get("error", {})
        self.code = None if status == 200 else str(error.get("type", "")).rsplit("/", 1)[-1]
        self.detail = str(error.get("detail", ""))

    def __str__(self):
        return f"{len(self.rows)} rows" if self.status == 200 else f"{self.status} {self.code}: {self.detail}"


class Subject:
    """The server with the fixed events, asked as the cases want it."""

    def __init__(self, server):
        self.server = server
        self.retention = {}
        self.keys = {}
        self.main, self.main_root = server.workspace("main")
        other, _ = server.workspace("other")
        # Grants of key spaces need APIs: they live in a workspace of their own, with the same events.
        self.granted, self.granted_root = server.workspace("granted")
        for workspace in (self.main, self.granted):
            server.operate("workspace", "update", "--workspace", workspace, "--queries-per-hour", "100000000",
                           "--query-seconds-per-hour", "100000000")
        names = ["ks_1234", "ks_5678", "ks_9abc"]
        for name in names:
            server.must("apis.createApi", {"name": name.replace("_", "-")}, self.granted_root)
        apis = server.must("apis.listApis", {}, self.granted_root)
        # In the order of the ids they stand for, so that answers sorted by key space stay as they are.
        self.spaces = dict(zip(names, sorted(api["keyspaceId"] for api in apis)))
        self.apis = {api["keyspaceId"]: api["id"] for api in apis}
        ours = {"ws_main": self.main, "ws_other": other}
        for table in ("key_verifications_v1", "ratelimits_v1"):
            lines = (DATA / f"{table}.ndjson").read_text(encoding="utf-8").splitlines(keepends=True)
            for name, workspace in ours.items():
                self.load(table, workspace, [line for line in lines if json.loads(line)["workspace_id"] == name])
            self.load(table, self.granted, [self.in_spaces(line) for line in lines if '"ws_main"' in line])

    def load(self, table, workspace, lines):
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            done = self.server.operate("events", "import", "--table", table, "--workspace", workspace, file.name)
        if done != {"rows": len(lines)}:
            raise SystemExit(f"{len(lines)} rows of {table} were imported, but the answer is {done}")

    def in_spaces(self, text):
        for name, space in self.spaces.items():
            text = text.replace(name, space)
        return text

    def keep(self, workspace, days):
        """Sets a workspace's retention."""
        if self.retention.get(workspace, RETENTION) != days:
            self.server.operate("workspace", "update", "--workspace", workspace, "--logs-retention-days", str(days))
            self.retention[workspace] = days

    def key(self, workspace, grants):
        """A root key with these permissions."""
        held = (workspace, *grants)
        if held not in self.keys:
            options = [option for grant in grants for option in ("--permission", grant)]
            self.keys[held] = self.server.root_key(workspace, *options)["key"]
        return self.keys[held]

    def ask(self, case):
        """The answer to a case, with the ids of the stored files."""
        days = case.get("retention_days", RETENTION)
        workspace, key, sql = self.main, self.main_root, case["sql"]
        if "key_spaces" in case:
            workspace, sql = self.granted, self.in_spaces(sql)
            wanted = [self.apis[self.spaces[name]] for name in case["key_spaces"]] or ["api_absent"]
            key = self.key(workspace, [f"api.{api}.read_analytics" for api in wanted])
        elif "namespaces" in case:
            key = self.key(workspace, [f"ratelimit.{name}.read_analytics" for name in case["namespaces"]])
        self.keep(workspace, days)
        body = {"query": sql.replace("ws_main", self.main)}
        status, answer = self.server.post(OPERATIONS[case.get("endpoint", "verifications")], body, key,
                                          **{"X-Test-Time": str(CLOCK)})
        text = json.dumps(answer, ensure_ascii=False).replace(workspace, "ws_main")
        for name, space in self.spaces.items():
            text = text.replace(space, name)
        return Answer(status, json.loads(text))


def judge(case, answer, rows=None):
    """What is wrong with an answer, or None. `rows` where ClickHouse was asked just now."""
    wanted = case.get("rows") if rows is None else rows
    if "code" in case and rows is None:
        allowed = case.get("codes", [case["code"]])
        if answer.code not in allowed:
            return f"{' or '.join(allowed)} wanted, {answer} came"
        if answer.status != STATUS.get(answer.code, 400):
            return f"the status of {answer.code} is {answer.status}"
        if answer.code == case["code"] and case.get("detail", "") not in answer.detail:
            return f"the detail does not say {case['detail']!r}: {answer.detail}"
        told = re.search(r"ws_main|workspace_id (=|IN)|__\w+__|DataFusion|Arrow", answer.detail)
        if told and told.group() not in case["sql"]:
            return f"the detail tells what it must not (AN-ERR-15): {answer.detail}"
        return None
    if answer.rows is None:
        return f"refused with {answer}"
    return difference(case, wanted, answer.rows)


class Tally:
    """What passed and what did not."""

    def __init__(self, verbose):
        self.verbose, self.passed, self.failed = verbose, 0, 0

    def add(self, name, case, problem):
        if problem:
            self.failed += 1
            sql = case["sql"] if len(case["sql"]) < 2_000 else f"{case['sql'][:200]}..."
            print(f"  FAIL  {name}: {problem}\n        {sql}", flush=True)
        else:
            self.passed += 1
            if self.verbose:
                print(f"  ok    {name}", flush=True)


def stored(only):
    """(name, case) of the stored cases, those of one retention together."""
    found = [(f"{path.stem}/{case['id']}", case) for path in sorted(CASES.glob("*.json"))
             for case in json.loads(path.read_text(encoding="utf-8"))]
    found.sort(key=lambda named: named[1].get("retention_days", RETENTION))
    return [(name, case) for name, case in found if only in name]


def run_stored(subject, tally, only, referee):
    for name, case in stored(only):
        if case.get("retention_days") == 0:
            # The operator cannot set it; the crate's own tests run these.
            continue
        answer = subject.ask(case)
        problem = judge(case, answer)
        if problem is None and referee and "code" not in case and case.get("by") != "contract":
            problem = judge(case, answer, referee.answer(case)[2])
        tally.add(name, case, problem)


def run_examples(subject, tally, only, referee):
    """The examples of the public documentation: 100 to answer as ClickHouse does, 23 to refuse."""
    if not EXAMPLES.exists():
        print(f"  skip  the published examples: no {EXAMPLES}")
        return
    examples = json.loads(EXAMPLES.read_text(encoding="utf-8"))
    for example in examples["queries"]:
        days = max(EXAMPLE_RETENTION, example.get("min_retention_days", 0))
        case = {**example, "retention_days": days}
        if only in f"examples/{example['id']}":
            tally.add(f"examples/{example['id']}", case, judge(case, subject.ask(case), referee.answer(case)[2]))
    for example in examples["refused"]:
        case = {**example, "retention_days": EXAMPLE_RETENTION, "code": example["codes"][0]}
        if only in f"examples/{example['id']}":
            tally.add(f"examples/{example['id']}", case, judge(case, subject.ask(case)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary")
    parser.add_argument("--only", default="")
    parser.add_argument("--referee", action="store_true")
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    referee = None
    if arguments.referee or arguments.random:
        from referee import Referee

        referee = Referee()
    tally = Tally(arguments.verbose)
    with Keyward(arguments.binary or build(), "--test-mode") as server:
        missing = [operation for operation in OPERATIONS.values() if operation not in server.served]
        if missing:
            raise SystemExit(f"the server does not serve {', '.join(missing)}")
        subject = Subject(server)
        run_stored(subject, tally, arguments.only, referee if arguments.referee else None)
        if arguments.referee:
            run_examples(subject, tally, arguments.only, referee)
        if arguments.random:
            from random_queries import compare_many

            compare_many(subject, referee, tally, arguments.random, arguments.seed)
    print(f"{tally.passed} passed, {tally.failed} failed")
    sys.exit(1 if tally.failed else 0)


if __name__ == "__main__":
    main()
