"""Programs that are killed with SIGKILL at random moments and started again end as if nothing had happened."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


@dataclass
class Outcome:
    """How a program ended, the units that it did in all attempts, and how often it was killed."""

    result: dict[str, Any]
    units: list[int]
    killed: int


def run_program(program: str, kills: dict[Path, int], *arguments: str, seed: int = 0) -> list[Outcome]:
    """Run a program once for each directory, killing it so often there."""
    for directory in kills:
        directory.mkdir(exist_ok=True)
    jobs = [str(part) for job in kills.items() for part in job]
    command = [sys.executable, str(HERE / "kill_loop.py"), str(HERE / program), str(seed), *jobs, "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr
    counts = done.stdout.split()
    return [_outcome(directory, int(count)) for directory, count in zip(kills, counts, strict=True)]


def _outcome(directory: Path, killed: int) -> Outcome:
    units = [int(line) for line in (directory / "units.log").read_text().split()]
    return Outcome(json.loads((directory / "result.json").read_text()), units, killed)


def check_units(outcome: Outcome, *, expected: set[int], in_flight: int) -> None:
    assert set(outcome.units) == expected
    assert len(outcome.units) - len(expected) <= outcome.killed * in_flight, "a unit was done again though its checkpoint was acknowledged"


def check_trainer(tmp_path: Path, *arguments: str, kills: int, seed: int, in_flight: int) -> None:
    undisturbed, killed = run_program("trainer.py", {tmp_path / "undisturbed": 0, tmp_path / "killed": kills}, *arguments, seed=seed)
    assert undisturbed.units == list(range(1, 41))
    assert killed.killed > 0
    assert killed.result == undisturbed.result
    check_units(killed, expected=set(range(1, 41)), in_flight=in_flight)


def test_a_trainer_that_is_killed_ends_with_the_same_weights_history_and_random_state(tmp_path: Path) -> None:
    check_trainer(tmp_path, kills=6, seed=1, in_flight=2)


def test_a_trainer_that_saves_in_the_background_and_is_killed_ends_the_same(tmp_path: Path) -> None:
    # A save waits for none before it, so what the queue holds is in flight too.
    check_trainer(tmp_path, "--async", kills=4, seed=2, in_flight=40)


def test_the_way_of_the_readme_with_a_plain_loader_is_bit_identical(tmp_path: Path) -> None:
    check_trainer(tmp_path, "--plain-loader", kills=4, seed=3, in_flight=2)


def check_search(tmp_path: Path, *, kills: int, seed: int) -> None:
    place = tmp_path / "killed"
    undisturbed, killed = run_program("architecture_search.py", {tmp_path / "undisturbed": 0, place: kills}, seed=seed)
    assert undisturbed.units == list(range(12))
    assert killed.killed > 0
    assert killed.result == undisturbed.result
    check_units(killed, expected=set(range(12)), in_flight=1)
    assert len((place / "computed.log").read_text().split()) <= 1 + killed.killed
    assert json.loads((place / "results/history.json").read_text())[-1]["step"] == 11
    # A fresh machine has the drive and nothing else.
    shutil.rmtree(place / "run")
    (place / "units.log").write_text("")
    again = run_program("architecture_search.py", {place: 0})[0]
    assert again.units == []
    assert again.result["results"] == undisturbed.result["results"]
    assert again.result["history"] == undisturbed.result["history"]


def test_an_architecture_search_that_is_killed_does_no_finished_model_twice_and_moves_to_a_fresh_machine(tmp_path: Path) -> None:
    check_search(tmp_path, kills=6, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_programs_survive_many_kills(tmp_path: Path, seed: int) -> None:
    check_trainer(tmp_path, *(("--async",) if seed % 2 else ()), kills=40, seed=100 + seed, in_flight=40 if seed % 2 else 2)
    (tmp_path / "search").mkdir()
    check_search(tmp_path / "search", kills=40, seed=200 + seed)
