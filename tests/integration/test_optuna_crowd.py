"""Many processes on one study, some of them killed: every finished trial is there exactly once."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

import ckptfmt

PROGRAM = Path(__file__).parent / "optuna_worker.py"


def start(tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", str(PROGRAM), str(tmp_path / "study"), str(tmp_path / "finished.log"), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def check_crowd(tmp_path: Path, *, processes: int, seconds: float, kills: int) -> None:
    generator = random.Random(processes)
    end = time.monotonic() + seconds
    crowd = [start(tmp_path, seconds) for _ in range(processes)]
    for process in crowd:
        assert process.stdout is not None
        process.stdout.readline()
    for _ in range(kills):
        time.sleep(generator.uniform(0.1, 2 * seconds / kills - 0.1))
        victim = crowd.pop(0)
        victim.kill()
        victim.communicate()
        crowd.append(start(tmp_path, max(1.0, end - time.monotonic())))
    for process in crowd:
        process.communicate()
        assert process.returncode == 0

    study = optuna.load_study(study_name="shared", storage=ckptfmt.optuna_storage(tmp_path / "study"))
    trials = study.get_trials(deepcopy=False)
    assert [trial.number for trial in trials] == list(range(len(trials)))
    told = [line.split() for line in (tmp_path / "finished.log").read_text().splitlines()]
    assert len(told) > 10 * processes
    assert len({number for number, _ in told}) == len(told), "a number was handed out twice"
    for number, x in told:
        trial = trials[int(number)]
        assert (trial.state.name, trial.values, trial.params) == ("COMPLETE", [float(x) ** 2], {"x": float(x)})
    # Who was killed between telling and noting has one more; everything else failed with its process.
    others = [trial for trial in trials if str(trial.number) not in {number for number, _ in told}]
    assert len(others) <= kills
    assert all(trial.state.name == "COMPLETE" or "ckptfmt:lost" in trial.system_attrs for trial in others)


def test_four_processes_with_kills_finish_each_trial_exactly_once(tmp_path: Path) -> None:
    check_crowd(tmp_path, processes=4, seconds=3, kills=3)


@pytest.mark.slow
def test_eight_processes_with_kills_finish_each_trial_exactly_once_for_a_minute(tmp_path: Path) -> None:
    check_crowd(tmp_path, processes=8, seconds=60, kills=20)
