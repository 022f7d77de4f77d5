"""SIGKILL at every system call while a run is compressed or decompressed as a whole: every step stays what it was, and a second
attempt ends what the first began.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checkpoint_product import ROOT
from tests.crash.run_kills import copy_run

COMMAND = [sys.executable, "-W", "error", "-m", "tests.crash.run_kills"]
NAMES = ["compress", "decompress"]
TRACED = ["write", "fsync", "flock", "renameat", "linkat", "unlinkat"]


def run(mode: str, directory: Path, name: str) -> Any:
    finished = subprocess.run([*COMMAND, mode, str(directory), name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_system_call_leaves_every_step_and_can_be_gone_on_with(name: str, tmp_path: Path) -> None:
    report = run("kill", tmp_path, name)
    print(f"{name}: {report['count']} kills")
    assert report["failures"] == []
    assert report["count"] > 300


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("call", TRACED)
@pytest.mark.parametrize("name", NAMES)
def test_a_tracer_kills_at_any_system_call(name: str, call: str, tmp_path: Path) -> None:
    run("prepare", tmp_path, name)
    copy_run(tmp_path / "run", tmp_path / "pristine")
    for number in range(1, 400):
        inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}")
        finished = subprocess.run([*inject, *COMMAND, "job", str(tmp_path), name], cwd=ROOT, capture_output=True, text=True, check=False)
        run("check", tmp_path, name)
        if finished.returncode == 0:
            print(f"{name} at {call}: {number - 1} kills")
            return
        assert finished.returncode in (-9, 137), finished.stderr
        shutil.rmtree(tmp_path / "run")
        copy_run(tmp_path / "pristine", tmp_path / "run")
    pytest.fail("the job was never finished")
