"""Shared studies on a disk in memory, made and read by the real code: what the merge tests and the crash tests work on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ckptfmt.adapters.optuna_shared import SharedLog
from ckptfmt.adapters.optuna_storage import new_storage
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.protocol import Disk
from ckptfmt.run.study_writers import writer_names

PATH = "/shared"
X = FloatDistribution(0, 10)
KIND = CategoricalDistribution((1, True, None, "a"))


def open_log(disk: Disk) -> SharedLog:
    return SharedLog(disk, PATH, durable=True)


def add_trial(storage: Any, value: float, *, state: TrialState = TrialState.COMPLETE) -> int:
    """Run one trial that uses every kind of record, and finish it unless `state` is RUNNING."""
    study_id = storage.get_study_id_from_name("s")
    trial_id = int(storage.create_new_trial(study_id))
    storage.set_trial_param(trial_id, "x", value, X)
    storage.set_trial_param(trial_id, "kind", trial_id % 4, KIND)
    storage.set_trial_intermediate_value(trial_id, 3, value / 2)
    storage.set_trial_user_attr(trial_id, "note", {"a": (1, value)})
    if state != TrialState.RUNNING:
        storage.set_trial_state_values(trial_id, state, [value] if state == TrialState.COMPLETE else None)
    return trial_id


def run_process(disk: Disk, values: list[float], *, is_killed: bool = False) -> None:
    """One process: opens the storage, finishes trials, and ends; if it is killed, with a trial that runs."""
    log = open_log(disk)
    storage = new_storage(log)
    if not storage.get_all_studies():
        storage.create_new_study([StudyDirection.MINIMIZE], "s")
        storage.set_study_user_attr(0, "of", "study")
        gone = storage.create_new_study([StudyDirection.MINIMIZE], "gone")
        storage.create_new_trial(gone, optuna.trial.create_trial(state=TrialState.WAITING))
        storage.delete_study(gone)
    for value in values:
        add_trial(storage, value)
    if is_killed:
        add_trial(storage, 9.0, state=TrialState.RUNNING)
    log.close()


def trials_of(disk: Disk, *, read: Callable[[Disk], SharedLog] = open_log) -> list[Any]:
    """Return all trials as another process sees them, which is then gone."""
    log = read(disk)
    try:
        return new_storage(log).get_all_trials(0)
    finally:
        log.close()


def crowded(process_count: int) -> MemoryDisk:
    """A study with the journals of so many processes that ended, one of them killed; nothing merged."""
    disk = MemoryDisk()
    logs = []
    for index in range(process_count):
        # Each is opened while the one before is there, so that none merges; all end afterwards.
        log = open_log(disk)
        storage = new_storage(log)
        if index == 0:
            storage.create_new_study([StudyDirection.MINIMIZE], "s")
        add_trial(storage, float(index))
        logs.append(log)
    for log in logs:
        log.close()
    assert len(writer_names(disk, PATH)) == process_count
    return disk
