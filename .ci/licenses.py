#!/usr/bin/env python3
"""Holds config/deny.toml's licences, bans and sources over the locked dependencies.

cargo-deny does the same and more, and takes minutes to build; this needs Python and cargo alone, so it always runs. It
reads the same file by the same rules, for the parts of it that the file uses; a setting that it does not know is an
error, so that the two cannot drift apart unseen.

Looked at is what the workspace depends on (development and build dependencies too) on the targets of [graph].
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11; pip carries a copy
    try:
        import tomli as tomllib
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent

# What is held here, and what is left to cargo-deny by intent ("advisories" needs a database; confidence is for licence
# texts, which are not read here).
KNOWN = {
    "graph": {"targets", "all-features"},
    "advisories": {"unmaintained", "unsound", "yanked", "ignore"},
    "licenses": {"allow", "confidence-threshold", "exceptions", "unused-allowed-license", "private"},
    "bans": {"multiple-versions", "wildcards", "allow-wildcard-paths", "deny", "skip", "skip-tree"},
    "sources": {"unknown-registry", "unknown-git", "allow-registry"},
}
# Settings whose other values would mean rules that are not written below.
FIXED = {
    ("graph", "all-features"): False,
    ("licenses", "private"): {"ignore": False},
    ("bans", "multiple-versions"): "deny",
    ("bans", "wildcards"): "deny",
    ("bans", "allow-wildcard-paths"): True,
    ("bans", "skip-tree"): [],
    ("sources", "unknown-registry"): "deny",
    ("sources", "unknown-git"): "deny",
}


class Spec:
    """`name` or `name@version`, where a part of a version means all that begin with it."""

    def __init__(self, entry):
        self.text = entry if isinstance(entry, str) else entry["crate"]
        self.reason = None if isinstance(entry, str) else entry.get("reason")
        self.allow = None if isinstance(entry, str) else entry.get("allow")
        self.name, _, self.version = self.text.partition("@")
        if self.version and not re.fullmatch(r"\d+(\.\d+){0,2}(-[\w.]+)?", self.version):
            raise SystemExit(f"deny.toml: {self.text}: only whole or partial versions are understood")
        self.used = False

    def matches(self, name, version):
        fits = name == self.name and (
            not self.version or version == self.version or version.startswith(self.version + ".")
        )
        self.used |= fits
        return fits


def accepts(expression, allowed):
    """Whether an SPDX expression can be met by allowed licences: any branch of OR, every one of AND."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))

    def take():
        return tokens.pop(0) if tokens else None

    def either():
        met = both()
        while tokens and tokens[0] == "OR":
            take()
            met = both() or met
        return met

    def both():
        met = one()
        while tokens and tokens[0] == "AND":
            take()
            met = one() and met
        return met

    def one():
        token = take()
        if token == "(":
            met = either()
            if take() != ")":
                raise ValueError("unbalanced parentheses")
            return met
        if token is None or token in {")", "AND", "OR", "WITH"}:
            raise ValueError(f"unexpected {token}")
        if tokens and tokens[0] == "WITH":
            take()
            token = f"{token} WITH {take()}"
        return token in allowed

    met = either()
    if tokens:
        raise ValueError(f"unexpected {tokens[0]}")
    return met


def load(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed")
    return json.loads(done.stdout)


def reachable(metadata):
    """Packages that the workspace needs on this target, by id, and who needs each."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    open_ids, seen, parents = list(metadata["workspace_members"]), set(), defaultdict(set)
    while open_ids:
        node = open_ids.pop()
        if node in seen:
            continue
        seen.add(node)
        for dependency in nodes[node]["deps"]:
            parents[dependency["pkg"]].add(packages[node]["name"])
            open_ids.append(dependency["pkg"])
    return {each: packages[each] for each in seen}, parents


def main():
    config = tomllib.loads((ROOT / "config" / "deny.toml").read_text(encoding="utf-8"))
    complaints = []
    for section, settings in config.items():
        for unknown in set(settings) - KNOWN.get(section, set()):
            complaints.append(f"deny.toml: [{section}] {unknown} is not known to .ci/licenses.py")
    for (section, name), value in FIXED.items():
        if config.get(section, {}).get(name) != value:
            complaints.append(f"deny.toml: [{section}] {name} must be {value!r}, or .ci/licenses.py be taught otherwise")

    packages, parents = {}, defaultdict(set)
    for target in config["graph"]["targets"]:
        found, needed_by = reachable(load(target))
        packages.update(found)
        for each, names in needed_by.items():
            parents[each] |= names

    allowed = set(config["licenses"]["allow"])
    exceptions = [Spec(entry) for entry in config["licenses"]["exceptions"]]
    banned = [Spec(entry) for entry in config["bans"]["deny"]]
    skipped = [Spec(entry) for entry in config["bans"]["skip"]]
    registries = {f"registry+{url}" for url in config["sources"]["allow-registry"]}

    for entry in exceptions + skipped + banned:
        if not entry.reason:
            complaints.append(f"deny.toml: {entry.text} has no reason")

    versions = defaultdict(set)
    for key, package in sorted(packages.items()):
        name, version, source = package["name"], package["version"], package["source"]
        told = f"{name} {version} (needed by {', '.join(sorted(parents[key])) or 'nobody'})"
        # Never a generator inside any(): every matching entry is to be marked as used.
        granted = [entry for entry in exceptions if entry.matches(name, version)]
        licence = package["license"]
        try:
            fine = licence and accepts(licence, allowed.union(*(entry.allow for entry in granted)))
        except ValueError as error:
            fine, licence = False, f"{licence}: {error}"
        if not fine:
            complaints.append(f"licence: {told}: {licence or 'none is named'}")
        if [entry for entry in banned if entry.matches(name, version)]:
            complaints.append(f"banned: {told}")
        if source is not None and source not in registries:
            complaints.append(f"source: {told}: {source}")
        if not [entry for entry in skipped if entry.matches(name, version)]:
            versions[name].add(told)
        for dependency in package["dependencies"]:
            if source is None and dependency["req"] == "*" and not dependency.get("path"):
                complaints.append(f"wildcard: {name} depends on any version of {dependency['name']}")
    for name, found in sorted(versions.items()):
        if len(found) > 1:
            complaints.append(f"several versions: {'; '.join(sorted(found))}")
    for entry in exceptions + skipped:
        if not entry.used:
            complaints.append(f"deny.toml: {entry.text} is excepted and not there: take it out")

    for complaint in complaints:
        print(complaint, file=sys.stderr)
    if complaints:
        return 1
    print(f"{len(packages)} packages: licences, bans, versions and sources are as config/deny.toml wants them.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
