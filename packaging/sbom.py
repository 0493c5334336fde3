#!/usr/bin/env python3
"""Writes a bill of materials in CycloneDX 1.5 (JSON): every crate that is in the program, from Cargo.lock.

    packaging/sbom.py [FILE]         to standard output, unless FILE is named

Crates that only tests and benches use are left out: the dependencies of our own crates are read from their manifests, those of
all others are in Cargo.lock without their tests'. The same lock file gives the same bytes: the time is SOURCE_DATE_EPOCH's,
and the serial number is made from the lock file.
"""

import datetime
import hashlib
import json
import os
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "keyward"
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def manifest(name, members):
    """Names of the dependencies of one of our own crates that are in the program."""
    found = set()
    document = tomllib.loads((members[name] / "Cargo.toml").read_text(encoding="utf-8"))
    # `cfg(shuttle)` is the schedule checker's build.
    tables = [document] + [table for target, table in document.get("target", {}).items() if target != "cfg(shuttle)"]
    for table in tables:
        for kind in ("dependencies", "build-dependencies"):
            for key, value in table.get(kind, {}).items():
                found.add(value.get("package", key) if isinstance(value, dict) else key)
    return found


def reached(lock, members):
    """The packages of the lock file that the program is made of, and what each of them needs."""
    packages = lock["package"]
    by_name = {}
    for package in packages:
        by_name.setdefault(package["name"], []).append(package)

    def find(reference):
        name, *version = reference.split(" ")
        candidates = by_name[name]
        if version:
            candidates = [package for package in candidates if package["version"] == version[0]]
        if len(candidates) != 1:
            raise SystemExit(f"sbom: Cargo.lock is ambiguous about {reference}")
        return candidates[0]

    found, edges, left = {}, {}, [find(PROGRAM)]
    while left:
        package = left.pop()
        key = (package["name"], package["version"])
        if key in found:
            continue
        found[key] = package
        needs = [find(reference) for reference in package.get("dependencies", [])]
        if package["name"] in members and "source" not in package:
            wanted = manifest(package["name"], members)
            needs = [one for one in needs if one["name"] in wanted]
        edges[key] = [(one["name"], one["version"]) for one in needs]
        left += needs
    return found, edges


def document():
    text = (ROOT / "Cargo.lock").read_bytes()
    lock = tomllib.loads(text.decode("utf-8"))
    members = {}
    for place in tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["members"]:
        folder = ROOT / place
        members[tomllib.loads((folder / "Cargo.toml").read_text(encoding="utf-8"))["package"]["name"]] = folder
    found, edges = reached(lock, members)

    def purl(key):
        return f"pkg:cargo/{key[0]}@{key[1]}"

    def component(key, package):
        kind = "application" if key[0] == PROGRAM else "library"
        made = {"type": kind, "bom-ref": purl(key), "name": key[0], "version": key[1], "purl": purl(key)}
        if "checksum" in package:
            made["hashes"] = [{"alg": "SHA-256", "content": package["checksum"]}]
        if "source" not in package:
            made["licenses"] = [{"license": {"id": "Apache-2.0"}}]
        elif package["source"] != REGISTRY:
            raise SystemExit(f"sbom: {key[0]} is from {package['source']}")
        return made

    program = next(key for key in found if key[0] == PROGRAM)
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    time = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(text).hexdigest())}",
        "version": 1,
        "metadata": {"timestamp": time, "component": component(program, found[program])},
        "components": [component(key, found[key]) for key in sorted(found) if key != program],
        "dependencies": [
            {"ref": purl(key), "dependsOn": sorted({purl(one) for one in edges[key]})} for key in sorted(found)
        ],
    }


def main():
    text = json.dumps(document(), indent=2) + "\n"
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
