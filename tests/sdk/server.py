"""A real `keyward serve` on an empty directory, and workspaces on it to test with."""

import http.client
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from install import ROOT, TARGET


def build():
    """The program as it stands here, in the debug profile: the same that the other tests use."""
    command = ["cargo", "build", "--locked", "--quiet", "--bin", "keyward"]
    if subprocess.run(command, cwd=ROOT).returncode != 0:
        raise SystemExit("keyward does not build")
    return str(TARGET / "debug/keyward")


class Keyward:
    """The program on an empty directory, with more options of `serve` where needed, until the end of the block."""

    def __init__(self, binary, *options):
        self.binary, self.options = binary, options

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="keyward-sdk-")
        self.data = str(Path(self.folder.name) / "data")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYWARD")}
        # Made-up requests come with made-up root keys, by the thousand.
        environment["KEYWARD_AUTH_GUESS_DELAY_MAX_MS"] = "0"
        command = [self.binary, "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0", *self.options]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.log, found = [], threading.Event()

        def follow():
            for line in self.process.stderr:
                text = re.sub(r"\x1b\[[0-9;]*m", "", line.decode("utf-8", "replace"))
                self.log.append(text)
                address = re.search(r"127\.0\.0\.1:(\d+)", text)
                if address and int(address[1]) and ("listening" in text or "ready" in text) and not found.is_set():
                    self.port = int(address[1])
                    found.set()

        threading.Thread(target=follow, daemon=True).start()
        if not found.wait(60):
            self.process.kill()
            raise SystemExit("keyward serve never said where it listens:\n" + "".join(self.log))
        self.url = f"http://127.0.0.1:{self.port}"
        self.local = threading.local()
        for _ in range(600):
            if self.get("/health/ready")[0] == 200:
                break
            time.sleep(0.05)
        self.served = {path[len("/v2/"):] for path in self.get("/openapi.json")[1]["paths"]}
        return self

    def __exit__(self, kind, *_):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit("keyward did not end after SIGTERM")
        finally:
            self.folder.cleanup()

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        reply = connection.getresponse()
        content = reply.read()
        connection.close()
        return reply.status, json.loads(content)

    def post(self, operation, body, key, **more):
        """A call without any client, with more headers where needed: (status, answer)."""
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}", **more}
        try:
            self.local.connection.request("POST", f"/v2/{operation}", json.dumps(body), headers)
        except BrokenPipeError:
            # The server has closed a connection that was not used for long.
            self.local.connection.close()
            self.local.connection.request("POST", f"/v2/{operation}", json.dumps(body), headers)
        reply = self.local.connection.getresponse()
        return reply.status, json.loads(reply.read())

    def must(self, operation, body, key):
        status, answer = self.post(operation, body, key)
        if status != 200:
            raise SystemExit(f"{operation} {body}: {status} {answer}")
        return answer.get("data")

    def operate(self, *arguments):
        """A command of the operator's."""
        command = [self.binary, *arguments, "--data-dir", self.data, "--output", "json"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return json.loads(done.stdout)

    def workspace(self, name):
        made = self.operate("workspace", "create", "--name", name)
        return made["workspaceId"], made["rootKey"]

    def root_key(self, workspace, *arguments):
        return self.operate("root-key", "create", "--workspace", workspace, "--name", "of the tests", *arguments)


def world(server, name):
    """A workspace for one suite, and the credentials that the story names."""
    workspace, root = server.workspace(name)
    disabled = server.root_key(workspace)
    server.operate("root-key", "update", "--key-id", disabled["keyId"], "--enabled", "false")
    limited, limited_root = server.workspace(f"{name}, without requests")
    server.operate("workspace", "update", "--workspace", limited, "--api-requests-per-minute", "0")
    return workspace, {
        "root": root,
        "weak": server.root_key(workspace)["key"],
        "disabled": disabled["key"],
        "limited": limited_root,
        "foreign": server.workspace(f"{name}, a neighbour")[1],
        "unknown": "unkey_nobody_has_this_one",
        "none": None,
    }
