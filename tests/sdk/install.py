"""Puts published packages into target/sdk/, at the versions and hashes that are committed here, once."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
CACHE = TARGET / "sdk"


class Unavailable(Exception):
    """A suite that cannot run on this machine, and why. `is_fault` where CI must not pass over it."""

    def __init__(self, reason, is_fault=False):
        super().__init__(reason)
        self.is_fault = is_fault


def digest(*paths):
    sums = hashlib.sha256()
    for path in paths:
        sums.update(path.read_bytes())
    return sums.hexdigest()[:16]


# Why an installation failed, so that the next suite that needs it does not wait for the network again.
FAILED = {}


def install(name, files, build, offline):
    """A folder below target/sdk/ that `build` has filled, kept for as long as the files that decide it are the same.
    `offline` matches what the package's client says when it cannot reach its registry; any other failure is a fault."""
    folder = CACHE / f"{name}-{digest(*files)}"
    if (folder / "installed").exists():
        return folder
    if folder in FAILED:
        raise FAILED[folder]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    print(f"  installing {name} into {folder}", flush=True)
    try:
        build(folder)
    except subprocess.CalledProcessError as error:
        output = (error.stdout or "") + (error.stderr or "")
        shutil.rmtree(folder, ignore_errors=True)
        told = [line for line in output.splitlines() if re.search(offline, line)]
        if told:
            reason = f"{name} cannot be installed, its registry is out of reach: {told[-1].strip()}"
            FAILED[folder] = Unavailable(reason, is_fault=must_reach_registries())
        else:
            command = " ".join(map(str, error.cmd))
            FAILED[folder] = Unavailable(f"{command} failed:\n{output[-4000:]}", is_fault=True)
        raise FAILED[folder] from None
    (folder / "installed").touch()
    return folder


def must_reach_registries():
    return os.environ.get("CI") == "true" and not os.environ.get("KEYWARD_CI_OFFLINE")


def do(*command, **options):
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, **options)


def has(program):
    if shutil.which(program) is None:
        raise Unavailable(f"no {program} on this machine")


def version_of(*command):
    text = subprocess.run(command, capture_output=True, text=True).stdout
    return tuple(map(int, re.search(r"(\d+)\.(\d+)", text).groups()))


def virtual_environment(name, requirements):
    """The folder of programs of a Python environment that holds exactly these requirements."""
    if sys.version_info < (3, 10):
        raise Unavailable("Python 3.10 or newer is needed")

    def build(folder):
        do(sys.executable, "-m", "venv", folder / "venv")
        do(folder / "venv/bin/pip", "install", "--require-hashes", "--no-deps", "--disable-pip-version-check", "-r",
           requirements)

    offline = r"NewConnection|Failed to establish|Name or service|timed out|Timeout|Temporary failure|from versions: none"
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    return install(f"{name}-python{version}", [requirements], build, offline) / "venv/bin"
