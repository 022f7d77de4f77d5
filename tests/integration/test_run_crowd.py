"""Four readers, a writer and a clean-up loop on one run, writer and clean-up killed at random: no wrong read, no lost step."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ckptfmt
from tests.integration.crowd import acknowledged, is_right

PROGRAM = Path(__file__).parent / "crowd.py"


def check_crowd(place: Path, *, seconds: float, seed: int) -> None:
    command = [sys.executable, str(PROGRAM), str(place), str(seconds), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 3, "hardly anybody was killed"
    assert acknowledged(place) > 20, "hardly anything was written"
    run = ckptfmt.Run(place / "run")
    restored = run.restore()
    assert restored is not None
    assert restored.step >= acknowledged(place)
    assert is_right(restored.step, restored.state)
    assert all(ckptfmt.verify(run.checkpoint(step)).ok for step in run.all_steps())


def test_readers_a_writer_and_a_clean_up_get_along_while_two_of_them_are_killed(tmp_path: Path) -> None:
    check_crowd(tmp_path, seconds=10, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_they_get_along_for_a_minute(tmp_path: Path, seed: int) -> None:
    check_crowd(tmp_path, seconds=60, seed=seed)
