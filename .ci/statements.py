#!/usr/bin/env python3
"""Holds the tests over the contract: every statement is cited by a test, or stands in tests/statements.toml with the
reason why it is not.

    .ci/statements.py            check, and print the coverage of each contract file
    .ci/statements.py --list     the same, and name every statement that no test cites
    .ci/statements.py --write    take the ids anew from the contract, and drop reasons that are no longer needed

The contract lies outside of the repository (../shared/contract, or where KEYWARD_CONTRACT says). Its ids alone, no text,
are committed in tests/statements.txt, so that the check holds on a machine without it; where it is there, the two must
agree.

A citation is the id spelled out anywhere in test code: tests/, storage/tests/, fuzz/, files called tests.rs, testing.rs or
*_tests.rs, and what follows `#[cfg(test)]` before a module. A mention beside product code says what the code means to do,
and proves nothing, so it does not count.
"""

import argparse
import os
import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # before Python 3.11; pip carries a copy
    try:
        import tomli as tomllib
    except ModuleNotFoundError:
        from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
IDS = ROOT / "tests/statements.txt"
REASONS = ROOT / "tests/statements.toml"

# Whose statements must be covered, and whose are looked at only: parts of them belong to later versions.
HELD = ["common", "keys", "apis", "identities", "permissions", "permissions-model", "ratelimit", "analytics",
        "audit-log"]
LOOKED_AT = ["ids-and-keys", "extensions", "portal"]

FAMILIES = r"(?:COM|KEYS|APIS|ID|RB|PM|RL|IDS|KEYFMT|HASH|AL|EXT|AN|PT)"
ID = rf"{FAMILIES}(?:-[A-Z]+)*-\d+"
# A statement begins a list item, a numbered step or a table row with its id.
DEFINITION = re.compile(rf"(?:^\s*(?:- |\| )|\b\d+\. )(?:\*\*)?({ID})\b", re.MULTILINE)
CITATION = re.compile(rf"\b({ID})\b")
# `1..3`, `1 to 3` and `1, 2` behind a name look like citations of several and are of one.
RANGE = re.compile(rf"\b{ID}(?:\s*(?:\.\.|\bto\b|-|–)\s*|, )\d+\b(?!\s*%)")

SUFFIXES = {".rs", ".json", ".py", ".mjs", ".js", ".ts", ".go"}
SKIPPED = {"target", "corpus", "node_modules", "__pycache__", ".git"}


def contract_folder():
    """Where the contract lies, or None."""
    named = os.environ.get("KEYWARD_CONTRACT")
    places = [Path(named)] if named else [ROOT.parent / "shared/contract", ROOT.parent.parent / "shared/contract"]
    for place in places:
        if (place / "common.md").is_file():
            return place
    if named:
        raise SystemExit(f"statements: KEYWARD_CONTRACT={named} holds no contract")
    return None


def defined_in(folder):
    """The ids of each contract file, in its order."""
    found = {}
    for name in HELD + LOOKED_AT:
        text = (folder / f"{name}.md").read_text(encoding="utf-8")
        found[name] = list(dict.fromkeys(DEFINITION.findall(text)))
    return found


def committed():
    """The ids of tests/statements.txt."""
    found, name = {}, None
    for line in IDS.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            name = line.strip("[]")
            found[name] = []
        elif line and not line.startswith("#"):
            found[name].append(line)
    return found


def as_text(ids):
    lines = ["# The ids of the contract's statements, by file. Made by .ci/statements.py --write."]
    for name, of_file in ids.items():
        lines += ["", f"[{name}]", *of_file]
    return "\n".join(lines) + "\n"


def test_code(path, text):
    """The part of a source file that only tests run, with the number of its first line."""
    inside = path.relative_to(ROOT)
    if {"tests", "fuzz"} & set(inside.parts[:-1]) or re.fullmatch(r"(.*_)?tests\.rs|testing\.rs", path.name):
        return text, 1
    if path.suffix != ".rs":
        return "", 1
    module = re.search(r"#\[cfg\((?:test|all\(test[^)]*\))\)\]\s*(?:#\[[^\n]*\]\s*)*mod \w+ \{", text)
    return (text[module.start() :], text.count("\n", 0, module.start()) + 1) if module else ("", 1)


def citations():
    """For each cited id the places, and what is wrong with the way of citing."""
    cited, wrong = {}, []
    folders = [ROOT / name for name in ("tests", "src", "storage", "query", "fuzz")]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.suffix not in SUFFIXES or SKIPPED & set(path.relative_to(ROOT).parts):
                continue
            code, first = test_code(path, path.read_text(encoding="utf-8"))
            for number, line in enumerate(code.splitlines(), first):
                place = f"{path.relative_to(ROOT)}:{number}"
                for found in RANGE.finditer(line):
                    wrong.append(f"{place}: {found.group()}: spell every id out")
                for found in CITATION.findall(line):
                    cited.setdefault(found, []).append(place)
    return cited, wrong


def reasons():
    """The ids that need no test, with the reason."""
    table = tomllib.loads(REASONS.read_text(encoding="utf-8")) if REASONS.exists() else {}
    flat = {}
    for section, entries in table.items():
        if not isinstance(entries, dict):
            raise SystemExit(f"{REASONS.name}: {section}: entries stand under the name of their contract file")
        for name, reason in entries.items():
            if not isinstance(reason, str) or len(reason) < 10:
                raise SystemExit(f"{REASONS.name}: {name}: the reason is missing")
            flat[name] = (section, reason)
    return flat


def prune(unneeded):
    """Takes the lines of these ids out of tests/statements.toml; comments stay."""
    lines = REASONS.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.split("=", 1)[0].strip().strip('"') not in unneeded]
    REASONS.write_text("".join(kept), encoding="utf-8")
    print(f"statements: dropped {len(lines) - len(kept)} reasons")


def main():
    parser = argparse.ArgumentParser(description="Statement coverage of the tests.")
    parser.add_argument("--list", action="store_true", help="name the statements that no test cites")
    parser.add_argument("--write", action="store_true", help="bring the committed lists up to date")
    options = parser.parse_args()

    folder = contract_folder()
    if options.write:
        if folder is None:
            raise SystemExit("statements: no contract to take the ids from")
        IDS.write_text(as_text(defined_in(folder)), encoding="utf-8")
    ids = committed()
    wrong = []
    if folder is None:
        print("statements: the contract is not here; its ids are those of tests/statements.txt")
    elif defined_in(folder) != ids:
        wrong.append("tests/statements.txt is not what the contract says: run .ci/statements.py --write")

    home = {name: file for file, of_file in ids.items() for name in of_file}
    cited, badly = citations()
    wrong += badly
    if options.write:
        prune({name for name in reasons() if name in cited or name not in home})
    excused = reasons()

    for name, places in sorted(cited.items()):
        if name not in home:
            wrong.append(f"{places[0]}: {name} is no statement of the contract")
    for name, (section, _) in excused.items():
        if name not in home:
            wrong.append(f"tests/statements.toml: {name} is no statement of the contract")
        elif section != home[name]:
            wrong.append(f"tests/statements.toml: {name} stands under {section} and belongs to {home[name]}")
        elif name in cited:
            wrong.append(f"tests/statements.toml: {name} is cited now ({cited[name][0]}): drop its entry")

    print(f"{'':20} {'statements':>10} {'cited':>6} {'excused':>8} {'neither':>8}")
    for file, of_file in ids.items():
        bare = [name for name in of_file if name not in cited and name not in excused]
        tested = sum(name in cited for name in of_file)
        excuses = sum(name in excused for name in of_file)
        print(f"{file + '.md':20} {len(of_file):10} {tested:6} {excuses:8} {len(bare):8}", end="")
        print("" if file in HELD else "  (not held)")
        if file in HELD:
            wrong += [f"{name} ({file}.md) is neither cited by a test nor excused" for name in bare]
        if options.list and bare:
            print("    " + " ".join(bare))
    for line in wrong:
        print(f"statements: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
