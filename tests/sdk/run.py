#!/usr/bin/env python3
"""Runs Unkey's published clients, unmodified, against a real `keyward serve` on an empty directory.

    tests/sdk/run.py                     build the program (debug) and run every suite
    tests/sdk/run.py --binary PATH       with this program
    tests/sdk/run.py --only python       suites whose name holds this word
    tests/sdk/run.py --verbose           name every step

The clients come from their registries through npm, pip and go, at the versions and hashes committed beside this file
(package-lock.json, requirements.txt, go.sum), into target/sdk/, and are used from there the next time. Needs Python
alone; a language that this machine does not have is skipped with its name. Where a registry cannot be reached and
nothing is in target/sdk/ yet, the language is skipped too - but with CI=true that is a failure, so that a broken network
cannot pass for a green run, unless KEYWARD_CI_OFFLINE is set: say so on a machine that is air-gapped on purpose.

Each suite is the story of story.py told to one client: what it gets for every operation, every kind of refusal as the
error class its users catch, lists walked to their end by its own iterators, and lost requests and answers that it tries
again through proxy.py. typescript/frameworks.test.mjs has what the story cannot tell: @unkey/ratelimit's memory of
refusals, and @unkey/hono and @unkey/nextjs, which have no setting for the server.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from install import HERE, Unavailable, do, has, install, version_of, virtual_environment
from proxy import Proxy
from server import Keyward, build, world
from story import ABSENT, CLASSES, NEWEST, NULLS, ROLE_PERMISSIONS, SEARCH, Nothing, differences, filled, story

# Operations of the clients that the server does not have yet. What else it misses is a failure. May only shrink.
NOT_YET = {}

ITEMS = 250
PAGES = [100, 100, 50]


class Tally:
    """What passed, failed and was skipped."""

    def __init__(self, name, verbose):
        self.name, self.verbose = name, verbose
        self.passed, self.failed, self.skipped = 0, 0, 0
        self.reasons = {}

    def ok(self, what):
        self.passed += 1
        if self.verbose:
            print(f"    ok    {what}")

    def fail(self, what, lines):
        self.failed += 1
        print(f"    FAIL  {self.name}: {what}")
        for line in lines:
            print(f"          {line}")

    def skip(self, what, why):
        self.skipped += 1
        self.reasons.setdefault(why, []).append(what)

    def tell_skips(self):
        """One line for each reason."""
        for why, skipped in self.reasons.items():
            print(f"    skip  {self.name}: {why}: {', '.join(dict.fromkeys(skipped))}")


class Client:
    """A driver process that makes calls with one published client."""

    def __init__(self, name, command, knows, absent=(), unknown=(), iterates=None, retries_cuts=False):
        self.name, self.command, self.knows = name, command, knows
        # Operations that this version has no method for, and members of answers that it does not pass on.
        self.absent, self.unknown = set(absent), set(unknown)
        # The lists that it has iterators for, where not for all.
        self.iterates = iterates
        # All clients try a 503 again. sdk-notes.md says the same of a connection that is cut while they wait for the
        # answer; the TypeScript one does, Python's and Go's tell their user.
        self.retries_cuts = retries_cuts

    def __enter__(self):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UNKEY")}
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(30)

    def call(self, operation, body, url, key, pages=False):
        ask = {"operation": operation, "body": body, "url": url, "key": key, "pages": pages}
        self.process.stdin.write(json.dumps(ask).encode() + b"\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: the driver ended during {operation} {body}")
        return json.loads(line)


def judge(client, step, wanted, answer):
    """What is wrong with a client's answer to a step."""
    error, result = answer.get("error"), answer.get("result")
    if step.status == 200:
        if error:
            return [f"threw {error['class']} {error['status']}: {error['text']} {error.get('cause', '')}"]
        if not isinstance(result.get("meta", {}).get("requestId"), str):
            return [f"no meta.requestId in {result}"]
        if wanted is ABSENT:
            return [f"data is there: {result}"] if "data" in result else []
        return [] if wanted is None else differences(without(client.unknown, wanted), result.get("data"))
    if not error:
        return [f"succeeded with {result}"]
    code = f"https://unkey.com/docs/errors/{step.code}"
    found = []
    name = CLASSES[step.status] if step.typed else "APIError"
    if error["class"] != name:
        found.append(f"threw {error['class']}, not {name}: {error['text']} {error.get('cause', '')}")
    if error["status"] != step.status:
        found.append(f"says status {error['status']}, not {step.status}: {error['text']}")
    told = error["typed"] if step.typed else code_of(error["text"])
    if told != code:
        found.append(f"says {told}, not {code}: {error['text']}")
    return found


def without(names, value):
    """The value without the members of these names, at any depth."""
    if isinstance(value, dict):
        return {name: without(names, member) for name, member in value.items() if name not in names}
    return [without(names, item) for item in value] if isinstance(value, list) else value


def code_of(text):
    try:
        return json.loads(text)["error"]["type"]
    except (ValueError, KeyError, TypeError):
        return None


def served_not(operation, tally):
    """Notes that the server lacks an operation."""
    if operation in NOT_YET:
        tally.skip(operation, f"not served yet, {NOT_YET[operation]}")
    else:
        tally.fail(operation, ["the server does not serve it"])


def tell_story(server, client, tally):
    """The steps of story.py."""
    workspace, credentials = world(server, client.name)
    saved = {"a resource name": f"unkey:v1:{workspace}:keyspaces/*#read_keyspace"}
    for step in story():
        if step.only and step.only not in client.knows or step.operation in client.absent and not step.raw:
            continue
        missing = [name for name in (step.operation, *step.needs) if name not in server.served]
        if missing:
            served_not(missing[0], tally)
            continue
        try:
            body, wanted = filled(step.body, saved), filled(step.data, saved)
        except Nothing as name:
            tally.skip(step.name, f"nothing has made the {name}")
            continue
        if step.raw:
            status, answer = server.post(step.operation, body, credentials["root"])
            answer = {"result": answer} if status == 200 else {"error": {"class": "", "status": status, "text": answer}}
        else:
            answer = client.call(step.operation, body, server.url, credentials[step.credential])
        if answer.get("absent"):
            tally.fail(step.name, ["the client has no such operation"])
            continue
        wrong = judge(client, step, wanted, answer)
        for name, path in step.save.items():
            if not wrong:
                saved[name] = answer["result"]["data"][path]
        tally.fail(step.name, [*wrong, f"asked: {json.dumps(body)}"]) if wrong else tally.ok(step.name)


class Lists:
    """A workspace with 250 of everything that can be listed, made once for all suites."""

    def __init__(self, server):
        self.server = server
        self.workspace, self.root = server.workspace("lists")
        must = lambda operation, body: server.must(operation, body, self.root)
        self.api = must("apis.createApi", {"name": "of 250 keys"})["apiId"]
        must("ratelimit.limit", {"namespace": "listed", "identifier": "i", "limit": 1, "duration": 60_000})
        # operation, request, the operation that makes an item, its request, where the answer has the item's id
        self.all = [
            ("apis.listKeys", {"apiId": self.api}, "keys.createKey", lambda i: {"apiId": self.api, "name": f"{i}"},
             "keyId", "keyId"),
            ("identities.listIdentities", {}, "identities.createIdentity", lambda i: {"externalId": f"user_{i}"},
             "identityId", "id"),
            ("permissions.listPermissions", {}, "permissions.createPermission",
             lambda i: {"name": "p", "slug": f"p.{i}"}, "permissionId", "id"),
            ("permissions.listRoles", {}, "permissions.createRole", lambda i: {"name": f"role {i}"}, "roleId", "id"),
            ("ratelimit.listOverrides", {"namespace": "listed"}, "ratelimit.setOverride",
             lambda i: {"namespace": "listed", "identifier": f"i{i}", "limit": i, "duration": 60_000}, "overrideId",
             "overrideId"),
            ("rootKeys.listKeys", {}, "rootKeys.createKey", lambda i: {"name": f"root {i}", "permissions": []}, "keyId",
             "keyId"),
        ]
        self.made = {}

    def items(self, entry):
        """The ids of the list's 250 items, made at the first asking."""
        listing, _, making, body, made_id, _ = entry
        if listing not in self.made:
            make = lambda i: self.server.must(making, body(i), self.root)[made_id]
            with ThreadPoolExecutor(8) as pool:
                self.made[listing] = sorted(pool.map(make, range(ITEMS)))
        return self.made[listing]


def walk_lists(server, client, lists, tally):
    """The client's iterators reach every item once and then end: a cursor on the last page would run them for ever
    (sdk-notes.md section 3; COM-PAG-02, COM-PAG-05)."""
    for entry in lists.all:
        listing, body, _, _, _, item_id = entry
        if listing.startswith("rootKeys") and NEWEST not in client.knows:
            continue
        if client.iterates is not None and listing not in client.iterates:
            continue
        made = lists.items(entry)
        for limit, pages in ((100, PAGES), (50, [50] * 5)):
            what = f"{listing} walked in pages of {limit}"
            answer = client.call(listing, {**body, "limit": limit}, server.url, lists.root, pages=True)
            if answer.get("absent"):
                tally.fail(what, ["the client has no iterator here"])
                continue
            if answer.get("error"):
                tally.fail(what, [str(answer["error"])])
                continue
            # The workspace's first root key is in the list of root keys as well.
            own = ITEMS + (1 if listing == "rootKeys.listKeys" else 0)
            ids = [item[item_id] for page in answer["pages"] for item in page]
            wrong = []
            if own == ITEMS and [len(page) for page in answer["pages"]] != pages:
                wrong.append(f"pages of {[len(page) for page in answer['pages']]}, not {pages}")
            if len(ids) != own or len(set(ids)) != own or not set(made) <= set(ids):
                wrong.append(f"{len(ids)} rows, {len(set(ids))} of them different, {len(set(made) - set(ids))} missing")
            tally.fail(what, wrong) if wrong else tally.ok(what)


def try_again(server, client, proxy, tally):
    """Lost requests are tried again, and each success that the server gave changed things once (sdk-notes.md section 5;
    COM-CON-03, COM-CODE-02). A 4xx is tried once."""
    _, credentials = world(server, f"{client.name}, trying again")
    root = credentials["root"]
    api = server.must("apis.createApi", {"name": "an api"}, root)["apiId"]
    key = server.must("keys.createKey", {"apiId": api, "credits": {"remaining": 100}}, root)["keyId"]
    left = lambda: server.must("keys.getKey", {"keyId": key}, root)["credits"]["remaining"]
    spend = {"keyId": key, "operation": "decrement", "value": 1}
    # An answer that is lost after the change is the one case in which a client makes the change again.
    again = client.retries_cuts
    lost, unanswered = ((2, 1), (2, 2)) if again else ((1, 0), (1, 1))
    for manner, (sent, carried_out) in {"unavailable": (2, 1), "lost": lost, "unanswered": unanswered}.items():
        name = re.sub(r"[^a-z0-9]+", "-", f"{client.name} {manner}".lower())
        before = left()
        answer = client.call("keys.updateCredits", spend, proxy.url(name, manner), root)
        record, after = proxy.record(name), left()
        what = f"a request through a proxy that leaves one {manner}"
        gave_up = manner != "unavailable" and not again
        came = (len(record.requests), record.forwarded, before - after, "error" in answer)
        due = (sent, carried_out, carried_out, gave_up)
        if came == due and (gave_up or answer["result"]["data"]["remaining"] == after):
            tally.ok(what)
        else:
            tally.fail(what, [f"(sent, forwarded, changes, failed) is {came}, not {due}: {answer}"])
    for credential, status in (("unknown", 401), ("limited", 429)):
        name = re.sub(r"[^a-z0-9]+", "-", f"{client.name} {status}".lower())
        client.call("keys.updateCredits", spend, proxy.url(name, "pass"), credentials[credential])
        sent = len(proxy.record(name).requests)
        what = f"a {status} is not tried again"
        tally.ok(what) if sent == 1 else tally.fail(what, [f"it was sent {sent} times"])


def habits(server, client, proxy, tally):
    """What the clients write without being asked (sdk-notes.md section 1): if these change, so has what we must take."""
    _, credentials = world(server, f"{client.name}, habits")
    name = re.sub(r"[^a-z0-9]+", "-", f"{client.name} habits".lower())
    url, root = proxy.url(name, "pass"), credentials["root"]
    record = proxy.record(name)

    def sent(operation, body):
        client.call(operation, body, url, root)
        return record.requests[-1]

    def check(what, wanted, came):
        tally.ok(what) if wanted == came else tally.fail(what, [f"wanted {wanted!r}, the client sent {came!r}"])

    path, headers, body = sent("keys.createKey", {"apiId": "api_12345678"})
    written = json.loads(body)
    check("a path prefix of the base URL is kept", "/v2/keys.createKey", path)
    check("plain JSON is asked for", "application/json", headers.get("accept"))
    check("the body is JSON", "application/json", headers.get("content-type", "").split(";")[0])
    check("the defaults of createKey are written out", (16, True, False),
          (written.get("byteLength"), written.get("enabled"), written.get("recoverable")))
    _, _, body = sent("ratelimit.multiLimit", [{"namespace": "n", "identifier": "i", "limit": 1, "duration": 1000}])
    check("multiLimit is a bare list, its cost written out", 1, json.loads(body)[0].get("cost"))
    _, _, body = sent("keys.updateKey", {"keyId": "key_1", "ratelimits": [], "permissions": [], "meta": {}})
    empty = {"keyId": "key_1", "ratelimits": [], "permissions": [], "meta": {}}
    check("empty lists and objects are sent as such", empty, json.loads(body))
    if NULLS in client.knows:
        nulls = {"keyId": "key_1", "name": None, "credits": {"remaining": None}}
        _, _, body = sent("keys.updateKey", nulls)
        check("null is sent as null", nulls, json.loads(body))


def typescript():
    has("node")
    has("npm")
    if version_of("node", "--version") < (20, 0):
        raise Unavailable("node 20 or newer is needed")
    source = HERE / "typescript"
    files = [source / "package.json", source / "package-lock.json"]

    def build(folder):
        for file in files:
            shutil.copy(file, folder)
        # next's native parts are optional and not needed for its types of requests and answers.
        do("npm", "ci", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)

    offline = r"ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ENOTCACHED|network"
    folder = install("typescript", files, build, offline)
    # Modules are looked for beside the file that imports them.
    for script in source.glob("*.mjs"):
        shutil.copy(script, folder)
    return folder




def go():
    has("go")
    source = HERE / "go"
    wanted = tuple(map(int, re.search(r"^go (\d+)\.(\d+)", (source / "go.mod").read_text(), re.MULTILINE).groups()))
    here = version_of("go", "version")
    if here < wanted:
        raise Unavailable(f"go {wanted[0]}.{wanted[1]} is needed, here is {here[0]}.{here[1]}")

    def build(folder):
        environment = {**os.environ, "GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        do("go", "build", "-o", folder / "driver", ".", cwd=source, env=environment)

    offline = r"dial tcp|no such host|i/o timeout|connection refused|module lookup disabled"
    return install("go", [source / name for name in ("go.mod", "go.sum", "main.go")], build, offline) / "driver"


def clients():
    """Every suite of a client: its name, and what makes it ready."""

    def newest_typescript():
        command = ["node", typescript() / "driver.mjs", "./"]
        return Client("typescript @unkey/api 2.5.1", command, {NULLS, ROLE_PERMISSIONS, SEARCH}, retries_cuts=True)

    def carried_along():
        command = ["node", typescript() / "driver.mjs", "./node_modules/@unkey/ratelimit/"]
        return Client("typescript @unkey/api 2.2.0", command, {NULLS}, absent=["permissions.setRolePermissions"],
                      unknown=["lastUsedAt"], iterates=[], retries_cuts=True)

    def python(half):
        program = virtual_environment("clients", HERE / "python/requirements.txt") / "python"
        knows = {NEWEST, NULLS, ROLE_PERMISSIONS, SEARCH}
        return Client(f"python unkey.py 3.2.2, {half}", [program, HERE / "python/driver.py", half], knows)

    def golang():
        return Client("go unkeyed/sdks 2.7.1", [go()], {SEARCH}, absent=["permissions.setRolePermissions"])

    return [("typescript, newest", newest_typescript), ("typescript, older", carried_along),
            ("python, blocking", lambda: python("blocking")), ("python, async", lambda: python("async")),
            ("go", golang)]


def frameworks(server, tally):
    """typescript/frameworks.test.mjs, by node's own test runner."""
    folder = typescript()
    _, credentials = world(server, "frameworks")
    environment = {**os.environ, "KEYWARD_URL": server.url, "KEYWARD_ROOT_KEY": credentials["root"],
                   "KEYWARD_WEAK_KEY": credentials["weak"], "KEYWARD_LIMITED_KEY": credentials["limited"],
                   "KEYWARD_UNKNOWN_KEY": credentials["unknown"]}
    command = ["node", "--test", "--test-reporter=tap", "frameworks.test.mjs"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    found = dict(re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE))
    count = lambda word: int(found.get(word, 0))
    tally.passed, tally.failed, tally.skipped = count("pass"), count("fail") + count("cancelled"), count("skipped")
    if done.returncode != 0 or tally.failed:
        print(done.stdout, done.stderr)
        tally.failed = max(tally.failed, 1)


def main():
    parser = argparse.ArgumentParser(description="Unkey's published clients against keyward.")
    parser.add_argument("--binary", help="the program to test; built when not given")
    parser.add_argument("--only", default="", help="run suites whose name holds this word")
    parser.add_argument("--verbose", action="store_true", help="name every step")
    options = parser.parse_args()

    totals, faults = [], 0
    with Keyward(options.binary or build()) as server:
        proxy, lists = Proxy("127.0.0.1", server.port), Lists(server)
        suites = [*clients(), ("typescript, @unkey/ratelimit, hono and nextjs", None)]
        for name, ready in suites:
            if options.only not in name:
                continue
            tally, began = Tally(name, options.verbose), time.monotonic()
            try:
                if ready is None:
                    frameworks(server, tally)
                else:
                    with ready() as client:
                        tell_story(server, client, tally)
                        walk_lists(server, client, lists, tally)
                        try_again(server, client, proxy, tally)
                        habits(server, client, proxy, tally)
            except Unavailable as reason:
                if reason.is_fault:
                    tally.fail("could not be installed", [str(reason)])
                else:
                    tally.skip("the whole suite", str(reason))
            tally.tell_skips()
            print(f"  {name}: {tally.passed} passed, {tally.failed} failed, {tally.skipped} skipped,"
                  f" {time.monotonic() - began:.1f} s", flush=True)
            totals.append(tally)
        if server.process.poll() is not None:
            faults += 1
            print(f"keyward ended by itself with {server.process.returncode}")
    failed = sum(tally.failed for tally in totals) + faults
    print(f"{sum(tally.passed for tally in totals)} passed, {failed} failed,"
          f" {sum(tally.skipped for tally in totals)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
