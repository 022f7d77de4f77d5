"""What a hostile checkpoint is made of, and how it is put on disk and read by a process of its own.

Attacks are made by code and sealed with correct digests, so that what is attacked is reached.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.vector_kit import Edits, Ref, build, whole

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 2.0
MEMORY_BYTES = 256 * 2**20
# A value of Python is larger than its packed form: an empty list of one byte takes 64, and 8 in what holds it.
OBJECT_BYTES_PER_PACKED_BYTE = 80


@dataclass(frozen=True)
class Special:
    """What stands in the place of a file: kind is "link", "fifo", "directory", "device" or "sparse"."""

    kind: str
    target: str = ""
    size_bytes: int = 0


@dataclass(frozen=True)
class Attack:
    """One hostile checkpoint. `refused` says that every way of loading the state must refuse it, `has_sections` that one can load sections.

    `declared_bytes` is what it declares to need, where that is more than its files; `seconds` how long reading may take;
    `lacks_memory` allows the system's own error when what is declared is more than the machine has.
    """

    name: str
    files: dict
    refused: bool = True
    declared_bytes: int = 0
    seconds: float = SECONDS
    lacks_memory: bool = False
    has_sections: bool = True

    def write(self, directory):
        path = directory / self.name / "checkpoint"
        path.mkdir(parents=True)
        for name, content in self.files.items():
            put(path / name, content)


def put(path, content):
    """Put a file or something special on the disk."""
    if isinstance(content, bytes):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    elif content.kind == "link":
        path.symlink_to(content.target)
    elif content.kind == "fifo":
        os.mkfifo(path)
    elif content.kind == "directory":
        path.mkdir()
    elif content.kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    else:
        with path.open("wb") as file:
            file.write(content.target.encode("latin-1"))
            file.truncate(content.size_bytes)


WEIGHTS = whole([("w", "float32", (4,), bytes(16)), ("b", "int64", (), bytes(8))])


def hostile(**edits):
    """The files of a sound checkpoint of two tensors, with edits of its layers."""
    shard, rows = WEIGHTS
    return build({"model": {"w": Ref(0), "b": Ref(1)}, "epoch": 3}, rows, [shard], edits=Edits(**edits))


def with_tree(node):
    """The files of a sound checkpoint of two tensors with this packed tree, which may be deeper than any walk by recursion."""
    return hostile(content=lambda content: content | {"tree": node})


def run_attacks(attacks, directory):
    """Read all attacks in one new process; return what it reports of each, by name."""
    attacks = {attack.name: attack for attack in attacks}
    for attack in attacks.values():
        attack.write(directory)
    command = [sys.executable, "-W", "error", "-m", "tests.security.attack", str(directory)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    lines = [json.loads(line) for line in process.stdout.splitlines()]
    last = lines[-1]["name"] if lines else "the start"
    assert process.returncode == 0, f"the reader died at {last}: {process.returncode}\n{process.stderr[-2000:]}"
    reports = {line["name"]: line for line in lines if "events" in line}
    assert set(reports) == {*attacks, "good vectors"}
    return reports


def complaints(attack, report):
    """What is wrong with how one attack was received."""
    found = []
    for way, (kind, detail, seconds) in report["outcomes"].items():
        if kind == "failure" or (kind == "no memory" and not attack.lacks_memory):
            found.append(f"{way}: {detail}")
        if seconds > attack.seconds:
            found.append(f"{way}: took {seconds} s")
        is_loading = way in ("load", "load without digests") or (way == "load all sections" and attack.has_sections)
        if attack.refused and is_loading and kind == "value":
            found.append(f"{way}: was not refused")
    allowed = MEMORY_BYTES + attack.declared_bytes + sum(len(file) for file in attack.files.values() if isinstance(file, bytes))
    if report["grown_bytes"] > allowed:
        found.append(f"memory grew by {report['grown_bytes'] / 2**20:.0f} MiB, allowed are {allowed / 2**20:.0f}")
    found += report["events"]
    return [f"{attack.name}: {complaint}" for complaint in found]
