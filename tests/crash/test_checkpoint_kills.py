"""P1 to P3 on the file system of this machine: SIGKILL at every system call of a save, and files that may not grow."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checkpoint_product import ROOT

NAMES = ["first save below missing directories", "overwrite", "overwrite with a base", "compress", "decompress"]
NAMES += ["compress with a base", "decompress with a base", "delete"]
COMMAND = [sys.executable, "-W", "error", "-m", "tests.crash.checkpoint_kills"]
# What a save asks of the system, by the kinds that a tracer knows; the interpreter's own are not among them.
TRACED = ["write", "fsync", "mkdir", "flock", "renameat", "linkat", "unlinkat", "rmdir"]


def run(mode: str, directory: Path, name: str, *, before: tuple[str, ...] = ()) -> Any:
    finished = subprocess.run([*before, *COMMAND, mode, str(directory), name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_system_call_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    report = run("kill", tmp_path, name)
    assert report["failures"] == []
    assert report["count"] > (15 if name == "delete" else 50)


def test_a_kill_in_the_middle_of_any_write_leaves_the_old(tmp_path: Path) -> None:
    assert run("kill-writes", tmp_path, "overwrite") == {"count": 4, "failures": []}


@pytest.mark.parametrize("name", ["overwrite", "first save"])
def test_a_file_that_may_not_grow_ends_a_save_without_a_trace(name: str, tmp_path: Path) -> None:
    report = run("limit", tmp_path, name)
    assert report["failures"] == []
    assert report["count"] > 10


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", TRACED)
@pytest.mark.parametrize("name", NAMES)
def test_a_tracer_kills_at_any_system_call(name: str, call: str, tmp_path: Path) -> None:
    for number in range(1, 200):
        directory = tmp_path / str(number)
        run("prepare", directory, name)
        inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")
        finished = subprocess.run([*inject, *COMMAND, "job", str(directory), name], cwd=ROOT, capture_output=True, text=True, check=False)
        run("check", directory, name)
        shutil.rmtree(directory)
        if finished.returncode == 0:
            break
        assert finished.returncode in (-9, 137), finished.stderr
    else:
        pytest.fail("the job was never finished")
