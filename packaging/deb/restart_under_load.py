#!/usr/bin/env python3
"""Restarts keyward behind a socket that lives on, while keys are verified, and says what the clients noticed.

    packaging/deb/restart_under_load.py --data DIR PROGRAM [PROGRAM...]

It does for the server what systemd does with keyward.socket and keyward.service: it holds the listening socket, hands it over
as descriptor 3 (LISTEN_FDS, LISTEN_PID), waits for READY=1 on NOTIFY_SOCKET, and restarts by SIGTERM, waiting for the end, and
a start. The first PROGRAM is started, then each of the others takes the place of the one before it: an upgrade has two. Half
of the clients keep their connections and half make one for each request. A client tries nothing twice: a connection that is
refused or reset, a reply that is cut, an answer that is not VALID, each counts as a request that was lost. So does a kept
connection that was closed without a reply while a request was on its way, which a client would be allowed to try again.

The directory must hold no store, or one that this made. What the clients were answered is compared with what the store says
at the end: each verification spends one credit.
"""
import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT_KEY = "unkey_restart_under_load_root_key"
CREDITS = 2_000_000_000


def call(connection, operation, body, close=False):
    headers = {"Authorization": f"Bearer {ROOT_KEY}", "Content-Type": "application/json"}
    if close:
        headers["Connection"] = "close"
    connection.request("POST", f"/v2/{operation}", json.dumps(body), headers)
    reply = connection.getresponse()
    text = reply.read()
    if reply.status != 200:
        raise RuntimeError(f"{reply.status}: {text[:200]!r}")
    return json.loads(text)["data"], reply.will_close


class Manager:
    """The part of systemd's work that matters here."""

    def __init__(self, data):
        self.data = data
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.listener.getsockname()[1]
        self.notify_dir = tempfile.TemporaryDirectory(prefix="keyward-notify-")
        self.notify_path = os.path.join(self.notify_dir.name, "notify")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.notify_path)
        self.notify.settimeout(60)
        self.server = None

    def start(self, program):
        script = 'exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=keyward.socket; exec "$@"'
        environment = {
            "PATH": "/usr/bin:/bin",
            "NOTIFY_SOCKET": self.notify_path,
            "KEYWARD_ROOT_KEY": ROOT_KEY,
        }
        self.log = open(os.path.join(self.notify_dir.name, "log"), "ab")
        self.server = subprocess.Popen(
            ["sh", "-c", script, "sh", program, "serve", "--data-dir", self.data],
            stdin=self.listener.fileno(), stdout=self.log, stderr=self.log, env=environment)
        while True:
            if b"READY=1" in self.notify.recv(4096):
                return
            if self.server.poll() is not None:
                raise SystemExit(f"{program} ended before it was ready")

    def stop(self):
        self.server.send_signal(signal.SIGTERM)
        if self.server.wait(90) != 0:
            raise SystemExit(f"the server ended with {self.server.returncode}")


class Client(threading.Thread):
    def __init__(self, port, key, kept, over):
        super().__init__(daemon=True)
        self.port, self.key, self.kept, self.over = port, key, kept, over
        self.answered, self.lost, self.longest = 0, [], 0.0

    def run(self):
        connection = None
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                if connection is None:
                    connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                    connection.connect()
                    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                data, closes = call(connection, "keys.verifyKey", {"key": self.key}, close=not self.kept)
                if data["code"] != "VALID":
                    raise RuntimeError(data["code"])
                self.answered += 1
                self.longest = max(self.longest, time.monotonic() - begun)
                if closes:
                    connection.close()
                    connection = None
            except Exception as error:  # whatever it is, the request is lost
                self.lost.append(f"{type(error).__name__}: {error}")
                if connection is not None:
                    connection.close()
                connection = None


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data", required=True)
    arguments.add_argument("--clients", type=int, default=8)
    arguments.add_argument("--between", type=float, default=3.0, help="seconds of load before and after each restart")
    arguments.add_argument("programs", nargs="+")
    options = arguments.parse_args()

    manager = Manager(options.data)
    manager.start(options.programs[0])
    first = http.client.HTTPConnection("127.0.0.1", manager.port, timeout=60)
    api, _ = call(first, "apis.createApi", {"name": "restarts"})
    made, _ = call(first, "keys.createKey", {"apiId": api["apiId"], "credits": {"remaining": CREDITS}})
    first.close()

    over = threading.Event()
    clients = [Client(manager.port, made["key"], number % 2 == 0, over) for number in range(options.clients)]
    for client in clients:
        client.start()
    restarts = []
    for program in options.programs[1:]:
        time.sleep(options.between)
        begun = time.monotonic()
        manager.stop()
        stopped = time.monotonic()
        manager.start(program)
        restarts.append((stopped - begun, time.monotonic() - stopped))
    time.sleep(options.between)
    over.set()
    for client in clients:
        client.join()

    last = http.client.HTTPConnection("127.0.0.1", manager.port, timeout=60)
    key, _ = call(last, "keys.getKey", {"keyId": made["keyId"]})
    last.close()
    manager.stop()

    answered = sum(client.answered for client in clients)
    lost = [reason for client in clients for reason in client.lost]
    spent = CREDITS - key["credits"]["remaining"]
    for stop, start in restarts:
        print(f"restart: {stop * 1000:.0f} ms from SIGTERM to the end, {start * 1000:.0f} ms from there until ready")
    print(f"answered {answered}, lost {len(lost)}, credits spent {spent}; "
          f"the longest wait was {max(client.longest for client in clients) * 1000:.0f} ms")
    for reason in sorted(set(lost)):
        print(f"   {lost.count(reason)} times {reason}")
    return 1 if lost or spent != answered else 0


if __name__ == "__main__":
    sys.exit(main())
