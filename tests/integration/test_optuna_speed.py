"""A study of 5,000 trials: how long it takes to resume, and what a trial costs on top of Optuna."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest

import ckptfmt

TRIALS = 5000


def objective(trial: optuna.Trial) -> float:
    return sum(float(trial.suggest_float(f"x{index}", 0, 1)) for index in range(5))


@pytest.mark.slow
def test_five_thousand_trials_resume_in_two_seconds_and_cost_two_milliseconds_each(tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    in_memory = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    started = time.perf_counter()
    in_memory.optimize(objective, n_trials=TRIALS)
    plain_seconds = time.perf_counter() - started
    # What fsync takes is the disk's affair, and the disk is shared here.
    with ckptfmt.Run(tmp_path, durable=False) as run:
        study = run.study("s", sampler=optuna.samplers.RandomSampler(seed=1))
        started = time.perf_counter()
        ckptfmt.optimize(study, objective, n_trials=TRIALS)
        kept_seconds = time.perf_counter() - started
    assert (kept_seconds - plain_seconds) / TRIALS < 2e-3
    with ckptfmt.Run(tmp_path) as run:
        started = time.perf_counter()
        assert len(run.study("s", sampler=optuna.samplers.RandomSampler()).get_trials(deepcopy=False)) == TRIALS
        assert time.perf_counter() - started < 2
