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

from compare import difference
from events import CLOCK
from referee import CASES, RETENTION, renamed_lines
from server import Keyward, build

# Where the contract may lie: beside the repository, or beside the folder of its worktrees.
EXAMPLES = [place / "shared" / "contract" / "analytics-queries.json" for place in (ROOT.parent, ROOT.parent.parent)]
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
        self.main, main_root = server.workspace("main")
        # Grants of key spaces need APIs: they live in a workspace of their own, with the same events.
        self.granted, granted_root = server.workspace("granted")
        self.roots = {self.main: main_root, self.granted: granted_root}
        for workspace in self.roots:
            server.operate("workspace", "update", "--workspace", workspace, "--queries-per-hour", "100000000",
                           "--query-seconds-per-hour", "100000000")
        names = ["ks_1234", "ks_5678", "ks_9abc"]
        for name in names:
            server.must("apis.createApi", {"name": name.replace("_", "-")}, granted_root)
        apis = server.must("apis.listApis", {}, granted_root)
        # In the order of the ids they stand for, so that answers sorted by key space stay as they are.
        self.spaces = dict(zip(names, sorted(api["keyspaceId"] for api in apis)))
        self.apis = {api["keyspaceId"]: api["id"] for api in apis}
        # What the names of the stored files are called here.
        self.renamings = [{"ws_main": self.main}, {"ws_other": server.workspace("other")[0]},
                          {"ws_main": self.granted, **self.spaces}]
        for table in ("key_verifications_v1", "ratelimits_v1"):
            for renaming in self.renamings:
                self.load(table, next(iter(renaming.values())), list(renamed_lines(table, renaming)))

    def load(self, table, workspace, lines):
        with tempfile.NamedTemporaryFile("w", suffix=".ndjson", encoding="utf-8") as file:
            file.writelines(lines)
            file.flush()
            done = self.server.operate("events", "import", "--table", table, "--workspace", workspace, file.name)
        if done != {"rows": len(lines)}:
            raise SystemExit(f"{len(lines)} rows of {table} were imported, but the answer is {done}")

    def keep(self, workspace, days):
        """Sets a workspace's retention."""
        if self.retention.get(workspace, RETENTION) != days:
            self.server.operate("workspace", "update", "--workspace", workspace, "--logs-retention-days", str(days))
            self.retention[workspace] = days

    def key(self, case):
        """A root key that sees what the case's caller may see."""
        workspace = case["workspace"]
        if "key_spaces" in case:
            # An API that is not there grants nothing.
            apis = [self.apis[space] for space in case["key_spaces"]] or ["api_absent"]
            grants = [f"api.{api}.read_analytics" for api in apis]
        elif "namespaces" in case:
            grants = [f"ratelimit.{name}.read_analytics" for name in case["namespaces"]]
        else:
            return self.roots[workspace]
        held = (workspace, *grants)
        if held not in self.keys:
            options = [option for grant in grants for option in ("--permission", grant)]
            self.keys[held] = self.server.root_key(workspace, *options)["key"]
        return self.keys[held]

    def ask_as_is(self, case):
        """The answer to a case that has the names of this server."""
        self.keep(case["workspace"], case.get("retention_days", RETENTION))
        operation = OPERATIONS[case.get("endpoint", "verifications")]
        clock = {"X-Test-Time": str(CLOCK)}
        return Answer(*self.server.post(operation, {"query": case["sql"]}, self.key(case), **clock))

    def ask(self, case):
        """The answer to a case, with the names of the stored files in question and answer."""
        renaming = self.renamings[2 if "key_spaces" in case else 0]
        sql = case["sql"]
        for name, other in renaming.items():
            sql = sql.replace(name, other)
        here = {**case, "sql": sql, "workspace": renaming["ws_main"]}
        if "key_spaces" in case:
            here["key_spaces"] = [self.spaces[name] for name in case["key_spaces"]]
        answer = self.ask_as_is(here)
        text = json.dumps(answer.body, ensure_ascii=False)
        for name, other in renaming.items():
            text = text.replace(other, name)
        return Answer(answer.status, json.loads(text))


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
    path = next(filter(Path.exists, EXAMPLES), None)
    if path is None:
        print(f"  skip  the published examples: no {EXAMPLES[0]}")
        return
    examples = json.loads(path.read_text(encoding="utf-8"))
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
    tally = Tally(arguments.verbose)
    with Keyward(arguments.binary or build(), "--test-mode") as server:
        missing = [operation for operation in OPERATIONS.values() if operation not in server.served]
        if missing:
            raise SystemExit(f"the server does not serve {', '.join(missing)}")
        subject, referee = Subject(server), None
        if arguments.referee or arguments.random:
            from referee import Referee

            referee = Referee(subject.renamings)
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
