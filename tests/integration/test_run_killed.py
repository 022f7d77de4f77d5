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


@dataclass
class Job:
    """A program that works in a directory, and how often it is killed there."""

    program: str
    directory: Path
    kills: int = 0
    arguments: tuple[str, ...] = ()


def run_jobs(jobs: list[Job], *, seed: int = 0) -> list[Outcome]:
    """Run programs one after the other until each has ended."""
    for job in jobs:
        job.directory.mkdir(exist_ok=True)
    texts = [[str(HERE / job.program), job.kills, [str(job.directory), *job.arguments]] for job in jobs]
    command = [sys.executable, str(HERE / "kill_loop.py"), str(seed), json.dumps(texts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stderr
    return [_outcome(job.directory, int(count)) for job, count in zip(jobs, done.stdout.split(), strict=True)]


def _outcome(directory: Path, killed: int) -> Outcome:
    units = [int(line) for line in (directory / "units.log").read_text().split()]
    return Outcome(json.loads((directory / "result.json").read_text()), units, killed)


def check_units(outcome: Outcome, *, expected: set[int], in_flight: int) -> None:
    assert set(outcome.units) == expected
    assert len(outcome.units) - len(expected) <= outcome.killed * in_flight, "a unit was done again though its checkpoint was acknowledged"


# Arguments, and how many units may be in flight: a save in the background waits for none before it, so what its queue holds is too.
TRAINERS: dict[str, tuple[tuple[str, ...], int]] = {
    "plain": (("--plain-loader",), 2),
    "stateful": ((), 2),
    "background": (("--async",), 40),
}


def check_trainer(tmp_path: Path, name: str, *, kills: int, seed: int) -> None:
    arguments, in_flight = TRAINERS[name]
    undisturbed_arguments = tuple(argument for argument in arguments if argument != "--async")
    jobs = [Job("trainer.py", tmp_path / "undisturbed", 0, undisturbed_arguments), Job("trainer.py", tmp_path / "killed", kills, arguments)]
    undisturbed, killed = run_jobs(jobs, seed=seed)
    assert undisturbed.units == list(range(1, 41))
    assert killed.killed > 0
    assert killed.result == undisturbed.result
    check_units(killed, expected=set(range(1, 41)), in_flight=in_flight)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_that_is_killed_ends_with_the_same_weights_history_and_random_state(tmp_path: Path, name: str) -> None:
    """With a loader that has a state, with a plain one used as the README says, and with saves in the background."""
    check_trainer(tmp_path, name, kills=5, seed=1)


def check_search(tmp_path: Path, *, kills: int, seed: int) -> None:
    place = tmp_path / "killed"
    program = "architecture_search.py"
    undisturbed, killed = run_jobs([Job(program, tmp_path / "undisturbed"), Job(program, place, kills)], seed=seed)
    assert undisturbed.units == list(range(12))
    assert killed.killed > 0
    assert killed.result == undisturbed.result
    check_units(killed, expected=set(range(12)), in_flight=1)
    assert len((place / "computed.log").read_text().split()) <= 1 + killed.killed
    assert json.loads((place / "results/history.json").read_text())[-1]["step"] == 11
    # A fresh machine has the drive and nothing else.
    shutil.rmtree(place / "run")
    (place / "units.log").write_text("")
    (again,) = run_jobs([Job(program, place)])
    assert again.units == []
    assert again.result["results"] == undisturbed.result["results"]
    assert again.result["history"] == undisturbed.result["history"]


def test_an_architecture_search_that_is_killed_does_no_finished_model_twice_and_moves_to_a_fresh_machine(tmp_path: Path) -> None:
    check_search(tmp_path, kills=5, seed=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [*TRAINERS, "search"])
def test_programs_survive_many_kills(tmp_path: Path, name: str, seed: int) -> None:
    if name == "search":
        check_search(tmp_path, kills=30, seed=200 + seed)
    else:
        check_trainer(tmp_path, name, kills=30, seed=100 + seed)
