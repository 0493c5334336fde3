#!/usr/bin/env python3
"""Holds the files of packaging/ to their forms: units, scripts, the formula, the spec, the container's recipe, the bill of
materials. Needs Python alone, and takes a second; systemd-analyze and ruby are used where they are."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
# What a unit of ours may say, by section; a misspelt key is ignored by systemd with one line in a log.
KEYS = {
    "Unit": "Description Documentation After StartLimitIntervalSec StartLimitBurst",
    "Install": "WantedBy",
    "Socket": "ListenStream Backlog NoDelay",
    "Service": "Type NotifyAccess WatchdogSec ExecStart ExecReload EnvironmentFile Restart RestartSec TimeoutStopSec "
    "TimeoutStartSec LimitNOFILE LimitCORE User Group StateDirectory StateDirectoryMode UMask LoadCredential NoNewPrivileges "
    "CapabilityBoundingSet AmbientCapabilities ProtectSystem ProtectHome PrivateTmp PrivateDevices DevicePolicy PrivateUsers "
    "PrivateMounts ProtectClock ProtectHostname ProtectKernelLogs ProtectKernelModules ProtectKernelTunables "
    "ProtectControlGroups ProtectProc ProcSubset RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID "
    "RemoveIPC KeyringMode LockPersonality MemoryDenyWriteExecute SystemCallArchitectures SystemCallFilter "
    "SystemCallErrorNumber",
}
# Without these the service would see more of the machine than it needs.
HARDENED = {
    "NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
    "MemoryDenyWriteExecute": "yes", "CapabilityBoundingSet": "", "UMask": "0077", "StateDirectoryMode": "0700",
    "SystemCallArchitectures": "native", "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX", "LimitCORE": "0",
}
# Highest score of `systemd-analyze security`, times ten.
EXPOSURE_MAX = 20

wrong = []


def complain(place, why):
    wrong.append(f"{place.relative_to(ROOT) if isinstance(place, Path) else place}: {why}")


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT, timeout=60)
    return done.returncode, done.stdout + done.stderr


def units():
    for path in sorted((PACKAGING / "systemd").iterdir()):
        said, section = {}, None
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            if found := re.fullmatch(r"\[(\w+)\]", line):
                section = found[1]
                if section not in KEYS:
                    complain(path, f"line {number}: no section {section}")
                continue
            key, equals, value = line.partition("=")
            if section is None or not equals or key not in KEYS.get(section, "").split():
                complain(path, f"line {number}: {line!r} is nothing that [{section}] says")
            said.setdefault(key, []).append(value)
        if path.suffix == ".service":
            for key, value in HARDENED.items():
                if said.get(key) != [value]:
                    complain(path, f"{key}={value} is wanted, and it says {said.get(key)}")
            if not said.get("ExecStart", [""])[0].startswith("/usr/bin/keyward serve "):
                complain(path, "ExecStart does not start the server")
    service = PACKAGING / "systemd/keyward.service"
    if shutil.which("systemd-analyze"):
        code, told = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", service)
        score = re.search(r"exposure level for \S+ ([\d.]+)", told)
        if "Unknown" in told or not score:
            print("packaging: this systemd-analyze cannot score a unit offline: that was left out")
        elif code != 0:
            complain(service, f"systemd-analyze scores it {score[1]}, at most {EXPOSURE_MAX / 10} is wanted")
        else:
            print(f"packaging: keyward.service scores {score[1]}")
    else:
        print("packaging: systemd-analyze is not here: the unit was not scored")


def scripts():
    found = 0
    for path in sorted([*PACKAGING.rglob("*"), ROOT / ".ci/run"]):
        if not path.is_file():
            continue
        first = path.read_bytes().split(b"\n", 1)[0].decode("utf-8", "replace")
        if not first.startswith("#!"):
            if path.suffix == ".sh":
                complain(path, "has no #! line")
            continue
        found += 1
        if not path.stat().st_mode & 0o111:
            complain(path, "cannot be executed")
        if "python" in first:
            compile(path.read_text(encoding="utf-8"), str(path), "exec")
            continue
        code, told = run("bash" if "bash" in first else "sh", "-n", path)
        if code != 0:
            complain(path, told.strip())
        if not re.search(r"^set -[eu]", path.read_text(encoding="utf-8"), re.MULTILINE):
            complain(path, "goes on after an error: set -e is wanted")
    if found < 8:
        complain("packaging", "its scripts were not found")


def versions_and_files():
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    version = manifest["workspace"]["package"]["version"]
    spec = PACKAGING / "rpm/keyward.spec"
    text = spec.read_text(encoding="utf-8")
    if not re.search(rf"^Version:\s+{re.escape(version)}$", text, re.MULTILINE):
        complain(spec, f"its version is not {version}")
    for section in ("prep", "build", "install", "files", "changelog", "pre", "post", "preun", "postun"):
        if not re.search(rf"^%{section}$", text, re.MULTILINE):
            complain(spec, f"has no %{section}")
    if len(re.findall(r"^%if", text, re.MULTILINE)) != len(re.findall(r"^%endif", text, re.MULTILINE)):
        complain(spec, "%if and %endif do not match")

    # What the packages take from the checkout is there; what they take from target/ is made by stage.sh.
    taken = [source for source, _, _ in manifest["package"]["metadata"]["deb"]["assets"]]
    for name in ("rpm/keyward.spec", "bundle.sh", "install.sh", "homebrew/keyward.rb"):
        taken += re.findall(r"\b((?:packaging|config)/[\w./*-]+)", (PACKAGING / name).read_text(encoding="utf-8"))
    for source in taken:
        if source.startswith(("packaging/", "config/")) and not list(ROOT.glob(source)):
            complain("Cargo.toml and packaging", f"they take {source}, which is not there")


def formula():
    path = PACKAGING / "homebrew/keyward.rb"
    if shutil.which("ruby"):
        code, told = run("ruby", "-c", path)
        if code != 0:
            complain(path, told.strip())
        return
    # Enough to notice a lost line: blocks and ends match.
    text = re.sub(r"<<~EOS.*?^\s*EOS$", "''", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    begun = len(re.findall(r"^\s*(?:class|def|begin)\b|\bdo(?:\s*\|[^|]*\|)?\s*$", text, re.MULTILINE))
    ended = len(re.findall(r"^\s*end\s*$", text, re.MULTILINE))
    if begun != ended:
        complain(path, f"{begun} blocks begin and {ended} end")
    print("packaging: ruby is not here: the formula was only looked at")


def recipe():
    path = PACKAGING / "docker/Dockerfile"
    lines = [line for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()]
    known = "ARG FROM RUN WORKDIR COPY USER ENV VOLUME EXPOSE STOPSIGNAL ENTRYPOINT CMD".split()
    words = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    for word in words:
        if word not in known:
            complain(path, f"{word} is no instruction that we use")
    last = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM")) :]
    if not any(re.match(r"USER [1-9]", line) for line in last):
        complain(path, "the image runs as root")


def bill_of_materials():
    code, told = run(sys.executable, PACKAGING / "sbom.py")
    if code != 0:
        complain("packaging/sbom.py", told.strip())
        return
    document = json.loads(told)
    refs = [part["bom-ref"] for part in document["components"]] + [document["metadata"]["component"]["bom-ref"]]
    named = {ref for entry in document["dependencies"] for ref in [entry["ref"], *entry["dependsOn"]]}
    if len(refs) != len(set(refs)) or named != set(refs) or len(refs) < 100:
        complain("packaging/sbom.py", "its parts and their dependencies do not match")
    print(f"packaging: the program has {len(refs)} parts")


def main():
    for check in (units, scripts, versions_and_files, formula, recipe, bill_of_materials):
        check()
    for line in wrong:
        print(f"packaging: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
