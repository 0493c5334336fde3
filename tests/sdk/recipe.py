#!/usr/bin/env python3
"""The recipe of packaging/docs/clients-without-base-url.md, step by step, with @unkey/hono and @unkey/nextjs unmodified.

    tests/sdk/recipe.py                  with the program of run.py
    tests/sdk/recipe.py --binary PATH    with this one

An authority of one's own (`keyward tls self-signed`), a hosts entry for api.unkey.com, port 443, NODE_EXTRA_CA_CERTS. That
port and /etc/hosts are taken in namespaces of the kernel's that end with this process, so nothing of the machine is
changed. Where these, node or the packages are not to be had, it says so and skips, as run.py does.
"""

import argparse
import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from install import Unavailable, do, has, must_reach_registries
from server import build

NAME = "api.unkey.com"


def outside(binary):
    """Everything that needs the machine as it is; then once more in a namespace."""
    if sys.platform != "linux":
        raise Unavailable("namespaces are Linux's")
    has("node")
    has("unshare")
    has("mount")
    from run import typescript

    folder = typescript()
    space = ["unshare", "--user", "--map-root-user", "--net", "--mount"]
    if subprocess.run([*space, "true"], capture_output=True).returncode != 0:
        raise Unavailable("this machine lets nobody make namespaces")
    command = [*space, sys.executable, __file__, "--binary", binary, "--inside", str(folder)]
    return subprocess.run(command).returncode


def loopback_up():
    """What `ip link set lo up` does, which not every machine has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        get_flags, set_flags, up = 0x8913, 0x8914, 1
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, get_flags, request))[1]
        fcntl.ioctl(any_socket, set_flags, struct.pack("16sH14s", b"lo", flags | up, b""))


def inside(binary, folder):
    loopback_up()
    with tempfile.TemporaryDirectory(prefix="keyward-recipe-") as home:
        home = Path(home)
        # 1. An authority, and a certificate for the name.
        do(binary, "tls", "self-signed", "--dir", home / "tls", "--name", NAME)
        # 2. The server, on the port that clients call.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("KEYWARD", "UNKEY"))}
        settings = {"KEYWARD_TLS_CERT_FILE": str(home / "tls/server.pem"),
                    "KEYWARD_TLS_KEY_FILE": str(home / "tls/server.key")}
        command = [binary, "serve", "--data-dir", str(home / "data"), "--listen", "0.0.0.0:443"]
        log = open(home / "log", "w+")
        server = subprocess.Popen(command, env={**environment, **settings}, stdout=subprocess.DEVNULL, stderr=log)
        try:
            root_key = home / "data/root.key"
            for _ in range(1200):
                if "is ready" in (home / "log").read_text() or server.poll() is not None:
                    break
                time.sleep(0.05)
            # 3. The name leads to it, for this machine's programs.
            (home / "hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 {NAME}\n")
            do("mount", "--bind", home / "hosts", "/etc/hosts")
            # 4. The program trusts the authority.
            client = {**environment, "NODE_EXTRA_CA_CERTS": str(home / "tls/ca.pem"),
                      "KEYWARD_ROOT_KEY": root_key.read_text().strip()}
            run = lambda *command, **more: subprocess.run(command, env=client, capture_output=True, text=True, timeout=120,
                                                          **more)
            done = run("node", "recipe.mjs", cwd=folder)
            if done.returncode != 0:
                print(done.stdout, done.stderr, (home / "log").read_text())
                return 1
            # And without that trust there is no connection: the name alone opens nothing.
            del client["NODE_EXTRA_CA_CERTS"]
            code = f'fetch("https://{NAME}/v2/liveness").then(() => process.exit(1), (e) => console.log(e.cause.code))'
            done = run("node", "-e", code)
            if done.returncode != 0 or "CERT" not in done.stdout and "VERIFY" not in done.stdout:
                print("a client that trusts nobody was answered:", done.stdout, done.stderr)
                return 1
            # What `keyward doctor` says of it.
            client = {**environment, **settings, "KEYWARD_LISTEN": "0.0.0.0:443"}
            doctor = run(binary, "doctor", "--data-dir", str(home / "data"))
            if f"clients that only know {NAME} can be led here" not in doctor.stdout:
                print(doctor.stdout, doctor.stderr)
                return 1
            return 0
        finally:
            server.terminate()
            server.wait(30)
            log.close()


def main():
    parser = argparse.ArgumentParser(description="The recipe for clients without a base-URL setting.")
    parser.add_argument("--binary", help="the program to test; built when not given")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    options = parser.parse_args()
    binary = options.binary or build()
    if options.inside:
        return inside(binary, options.inside)
    try:
        failed = outside(os.path.abspath(binary))
    except Unavailable as reason:
        print(f"  skip  the recipe for clients without a base-URL setting: {reason}")
        return 1 if reason.is_fault and must_reach_registries() else 0
    print("  FAIL  the recipe for clients without a base-URL setting" if failed else
          "  ok    the recipe for clients without a base-URL setting: @unkey/hono, @unkey/nextjs, @unkey/api by name")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
