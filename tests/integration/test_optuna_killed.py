"""A search that is killed with SIGKILL and started again has the trials of one that was not."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parent / "optuna_search.py"


def search(directory: Path, sampler: str, *, kill_after_seconds: float | None = None) -> bool:
    """Run the search; tell whether it came to its end."""
    directory.mkdir(exist_ok=True)
    command = [sys.executable, "-W", "error", str(PROGRAM), str(directory), sampler]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if kill_after_seconds is not None:
            try:
                process.wait(kill_after_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait(120)
    return process.returncode == 0


def result_of(directory: Path) -> Any:
    return json.loads((directory / "result.json").read_text())


def check_killed(tmp_path: Path, sampler: str, *, kills: int, longest_seconds: float) -> None:
    generator = random.Random(kills)
    assert search(tmp_path / "undisturbed", sampler)
    killed = 0
    while killed < kills and not search(tmp_path / "killed", sampler, kill_after_seconds=generator.uniform(0.05, longest_seconds)):
        killed += 1
    assert killed > 0
    assert search(tmp_path / "killed", sampler)
    assert result_of(tmp_path / "killed") == result_of(tmp_path / "undisturbed")


@pytest.mark.parametrize("sampler", ["RandomSampler", "TPESampler"])
def test_a_search_that_is_killed_has_the_same_trials(tmp_path: Path, sampler: str) -> None:
    check_killed(tmp_path, sampler, kills=3, longest_seconds=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["RandomSampler", "TPESampler"])
def test_a_search_that_is_killed_twenty_times_has_the_same_trials(tmp_path: Path, sampler: str) -> None:
    check_killed(tmp_path, sampler, kills=20, longest_seconds=0.15)
