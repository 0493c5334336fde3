#!/usr/bin/env python3
"""Schemathesis against our own document: whatever it makes up from /openapi.json, no answer is a 5xx, undocumented, or
against its schema.

    .ci/schemathesis/run.py [--binary PATH] [--examples N]

Twice. Once against the document as it is served, where nearly all ids are of nothing. And once "at home": with the members
that name something narrowed to what exists in a workspace made for it, so that requests reach the answers behind the 404s.
The seed is fixed; schemathesis is pinned by hash and lives in target/sdk/ (see tests/sdk/run.py, also for what happens
without a registry).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests/sdk"))

from install import Unavailable, virtual_environment  # noqa: E402
from server import Keyward, build  # noqa: E402

SEED = 20261130
CHECKS = ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
# What analytics is asked at home: no query that somebody makes up at random is one.
QUERIES = {
    "AnalyticsGetVerifications": [
        "SELECT count() AS verifications FROM key_verifications_v1",
        "SELECT time, key_id, outcome, tags FROM key_verifications_v1 ORDER BY time DESC LIMIT 10",
        "SELECT time, sum(count) AS total, avg(spent_credits) AS mean FROM key_verifications_per_hour_v1 GROUP BY time",
    ],
    "AnalyticsGetRatelimits": [
        "SELECT namespace_id, countIf(passed) AS passed FROM ratelimits_v1 GROUP BY namespace_id",
        "SELECT time, sum(total) AS total FROM ratelimits_per_day_v1 GROUP BY time ORDER BY time",
    ],
}
# Most time for one pass, on a machine that is busy with something else; alone it takes less than one.
MINUTES = 15


def furnish(server):
    """Makes one of everything that can be named; what each member of a request may say."""
    _, root = server.workspace("at home")

    def made(operation, body, member=None):
        if operation not in server.served:
            return None
        data = server.must(operation, body, root)
        return data[member] if member else data

    api = made("apis.createApi", {"name": "home"}, "apiId")
    limits = [{"name": "requests", "limit": 1000, "duration": 60_000, "autoApply": True}]
    made("identities.createIdentity", {"externalId": "user_1", "ratelimits": limits}, "identityId")
    made("permissions.createRole", {"name": "Editor", "permissions": ["a.b"]}, "roleId")
    members = {"apiId": api, "name": "key", "externalId": "user_1", "permissions": ["a.b", "c.d"], "meta": {"a": 1},
               "credits": {"remaining": 10**9, "refill": {"interval": "daily", "amount": 5}}, "ratelimits": limits}
    key = made("keys.createKey", members)
    made("ratelimit.limit", {"namespace": "home", "identifier": "i", "limit": 10, "duration": 60_000})
    made("ratelimit.setOverride", {"namespace": "home", "identifier": "i*", "limit": 5, "duration": 60_000})
    # One for each operation that changes one: a rerolled root key is as good as gone.
    root_keys = {name: made("rootKeys.createKey", {"permissions": ["api.*.read_key"]}, "keyId")
                 for name in ("RootKeysUpdateKey", "RootKeysRerollKey")}
    role = made("permissions.getRole", {"role": "Editor"}, "id")
    migration = made("migrations.createMigration", {"name": "m", "algorithm": "sha256"}, "migrationId")
    names = {
        "apiId": api, "keyId": key["keyId"], "key": key["key"], "identity": "user_1", "role": "Editor", "roleId": role,
        "roles": "Editor", "permission": "a.b", "namespace": "home", "migrationId": migration,
    }
    return root, {name: value for name, value in names.items() if value is not None}, root_keys


def at_home(document, names, root_keys):
    """The document without what deletes, its naming members narrowed to what there is."""
    document = json.loads(json.dumps(document))
    for path in [path for path in document["paths"] if re.search(r"\.delete[A-Z]", path)]:
        del document["paths"][path]

    def narrow(schema, known):
        for name, member in schema.get("properties", {}).items():
            if name in known and member.get("type") == "array":
                member["items"] = {"type": "string", "enum": [known[name]]}
            elif name in known:
                schema["properties"][name] = {"type": "string", "enum": [known[name]]}
            else:
                narrow(member, known)
        if "items" in schema:
            narrow(schema["items"], known)

    for name, schema in document["components"]["schemas"].items():
        if name.endswith("RequestBody"):
            of_root_keys = [key for operation, key in root_keys.items() if operation in name]
            narrow(schema, {**names, "keyId": of_root_keys[0]} if of_root_keys else names)
        for operation, queries in QUERIES.items():
            if operation in name and "query" in schema.get("properties", {}):
                schema["properties"]["query"] = {"type": "string", "enum": queries}
    return document


def run(program, name, location, server, key, folder, examples, mode):
    """One pass: whether it found nothing, and for each operation how often it was answered with which status."""
    print(f"schemathesis, {name}", flush=True)
    log = Path(folder) / f"{mode}.har"
    command = [program, "run", location, "--url", server.url, "--header", f"Authorization: Bearer {key}",
               "--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--mode", mode,
               "--max-examples", str(examples), "--seed", str(SEED), "--generation-database", "none",
               "--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "20",
               "--include-path-regex", "^/v2/", "--report-har-path", str(log)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MINUTES * 60)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"schemathesis, {name}: not done after {MINUTES} minutes") from None
    clean = done.returncode == 0
    tail = done.stdout[-20_000:] if not clean else done.stdout[done.stdout.rfind("= SUMMARY =") :]
    print("\n".join(line for line in tail.splitlines() if line.strip()), flush=True)
    if not clean:
        print(done.stderr[-2_000:])
    entries = json.loads(log.read_text())["log"]["entries"] if log.exists() else []
    answered = {}
    for entry in entries:
        statuses = answered.setdefault(entry["request"]["url"].rsplit("/", 1)[-1], Counter())
        statuses[entry["response"]["status"]] += 1
    return clean, answered


def main():
    parser = argparse.ArgumentParser(description="Schemathesis against keyward's own document.")
    parser.add_argument("--binary", help="the program to test; built when not given")
    parser.add_argument("--examples", type=int, default=50, help="examples for each operation")
    options = parser.parse_args()
    try:
        program = virtual_environment("schemathesis", HERE / "requirements.txt") / "st"
    except Unavailable as reason:
        print(f"schemathesis: {reason}")
        return 1 if reason.is_fault else 0
    with Keyward(options.binary or build()) as server, tempfile.TemporaryDirectory() as folder:
        # A workspace of its own: it goes on with what answers tell, and so deletes what it finds in lists.
        _, root = server.workspace("as served")
        served = f"{server.url}/openapi.json"
        clean, _ = run(program, "as served", served, server, root, folder, options.examples, "all")
        root, names, root_keys = furnish(server)
        narrowed = Path(folder) / "at-home.json"
        narrowed.write_text(json.dumps(at_home(server.get("/openapi.json")[1], names, root_keys)))
        found, answered = run(program, "at home", str(narrowed), server, root, folder, options.examples, "positive")
        clean &= found
        for path in json.loads(narrowed.read_text())["paths"]:
            statuses = answered.get(path.removeprefix("/v2/"), Counter())
            if 200 not in statuses:
                clean = False
                print(f"at home nothing made {path} succeed, so its answers were not seen: {dict(statuses)}")
        alive = server.process.poll() is None
    if not alive:
        print("keyward ended by itself")
    return 0 if clean and alive else 1


if __name__ == "__main__":
    sys.exit(main())
