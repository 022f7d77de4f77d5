"""Both storages keep Optuna's rules for storages; the expected behaviour is that of Optuna's own storage in memory."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import TrialState

import ckptfmt

optuna.logging.set_verbosity(optuna.logging.ERROR)
X = FloatDistribution(0, 1)


@pytest.fixture(params=["memory", "run", "shared"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    if request.param == "memory":
        yield optuna.storages.InMemoryStorage()
    elif request.param == "shared":
        yield ckptfmt.optuna_storage(tmp_path)
    else:
        with ckptfmt.Run(tmp_path) as run:
            yield run.study("first")._storage


@pytest.fixture
def study_id(storage: Any) -> int:
    return int(storage.create_new_study([StudyDirection.MINIMIZE], "s"))


def test_a_study_is_created_read_and_deleted(storage: Any) -> None:
    known = len(storage.get_all_studies())
    study_id = storage.create_new_study([StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE], "s")
    assert storage.get_study_id_from_name("s") == study_id
    assert storage.get_study_name_from_id(study_id) == "s"
    assert storage.get_study_directions(study_id) == [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE]
    with pytest.raises(DuplicatedStudyError):
        storage.create_new_study([StudyDirection.MINIMIZE], "s")
    trial_id = storage.create_new_trial(study_id)
    storage.delete_study(study_id)
    assert len(storage.get_all_studies()) == known
    for read in (storage.get_study_name_from_id, storage.get_all_trials, storage.delete_study, storage.create_new_trial):
        with pytest.raises(KeyError):
            read(study_id)
    with pytest.raises(KeyError):
        storage.get_trial(trial_id)
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("s")
    assert storage.create_new_study([StudyDirection.MINIMIZE]) != study_id


def test_attributes_of_a_study_are_set_and_replaced(storage: Any, study_id: int) -> None:
    storage.set_study_user_attr(study_id, "a", [1, None])
    storage.set_study_user_attr(study_id, "a", {"b": 2.5})
    storage.set_study_system_attr(study_id, "c", "text")
    assert storage.get_study_user_attrs(study_id) == {"a": {"b": 2.5}}
    assert storage.get_study_system_attrs(study_id) == {"c": "text"}


def test_what_was_read_is_not_changed_by_a_later_write(storage: Any, study_id: int) -> None:
    trial_id = storage.create_new_trial(study_id)
    before, attributes = storage.get_trial(trial_id), storage.get_study_user_attrs(study_id)
    storage.set_trial_param(trial_id, "x", 0.5, X)
    storage.set_trial_intermediate_value(trial_id, 3, 0.25)
    storage.set_trial_user_attr(trial_id, "a", 1)
    storage.set_trial_system_attr(trial_id, "b", 2)
    storage.set_study_user_attr(study_id, "a", 1)
    assert (before.params, before.intermediate_values, before.user_attrs, before.system_attrs) == ({}, {}, {}, {})
    assert attributes == {}
    trial = storage.get_trial(trial_id)
    assert (trial.params, trial.intermediate_values, trial.user_attrs, trial.system_attrs) == ({"x": 0.5}, {3: 0.25}, {"a": 1}, {"b": 2})
    assert storage.get_trial_param(trial_id, "x") == 0.5


def test_a_finished_trial_is_not_changed_any_more(storage: Any, study_id: int) -> None:
    trial_id = storage.create_new_trial(study_id)
    assert storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [1.5])
    trial = storage.get_trial(trial_id)
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [1.5])
    assert trial.datetime_complete >= trial.datetime_start
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_param(trial_id, "x", 0.5, X)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_intermediate_value(trial_id, 0, 0.5)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_user_attr(trial_id, "a", 0.5)
    with pytest.raises(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, TrialState.FAIL)


def test_a_waiting_trial_is_claimed_once(storage: Any, study_id: int) -> None:
    template = optuna.trial.create_trial(state=TrialState.WAITING, system_attrs={"fixed_params": {"x": 1}})
    trial_id = storage.create_new_trial(study_id, template)
    assert [trial._trial_id for trial in storage.get_all_trials(study_id, states=(TrialState.WAITING,))] == [trial_id]
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING) is True
    assert storage.set_trial_state_values(trial_id, TrialState.RUNNING) is False
    assert storage.get_all_trials(study_id, states=(TrialState.WAITING,)) == []
    assert storage.get_trial(trial_id).datetime_start is not None


def test_distributions_of_one_name_must_agree(storage: Any, study_id: int) -> None:
    first, second = storage.create_new_trial(study_id), storage.create_new_trial(study_id)
    storage.set_trial_param(first, "x", 0.5, X)
    with pytest.raises(ValueError, match="distribution"):
        storage.set_trial_param(second, "x", 1, IntDistribution(1, 3))


def test_parameters_keep_value_and_type(storage: Any, study_id: int) -> None:
    choices = CategoricalDistribution((1, True, 1.0, None, "1"))
    found = []
    for index in range(5):
        trial_id = storage.create_new_trial(study_id)
        storage.set_trial_param(trial_id, "kind", index, choices)
        found.append(storage.get_trial(trial_id).params["kind"])
    assert [(type(value), value) for value in found] == [(type(value), value) for value in choices.choices]


def test_numbers_count_up_and_the_best_trial_is_known(storage: Any, study_id: int) -> None:
    ids = [storage.create_new_trial(study_id) for _ in range(4)]
    with pytest.raises(ValueError, match="No trials"):
        storage.get_best_trial(study_id)
    for trial_id, value in zip(ids[:3], [3.0, 1.0, 2.0], strict=True):
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
    assert [storage.get_trial_number_from_id(trial_id) for trial_id in ids] == [0, 1, 2, 3]
    assert storage.get_trial_id_from_study_id_trial_number(study_id, 2) == ids[2]
    with pytest.raises(KeyError):
        storage.get_trial_id_from_study_id_trial_number(study_id, 9)
    assert storage.get_best_trial(study_id).number == 1
    assert storage.get_n_trials(study_id) == 4
    assert storage.get_n_trials(study_id, TrialState.COMPLETE) == 3


def test_a_study_of_a_run_does_not_leave_its_process(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run, pytest.raises(TypeError, match="optuna_storage"):
        pickle.dumps(run.study("s")._storage)


def test_a_shared_storage_can_be_pickled_and_sees_what_others_write(tmp_path: Path) -> None:
    one = ckptfmt.optuna_storage(tmp_path)
    study_id = one.create_new_study([StudyDirection.MINIMIZE], "s")
    other = pickle.loads(pickle.dumps(one))
    trial_id = other.create_new_trial(study_id)
    other.set_trial_param(trial_id, "x", 0.5, X)
    assert one.get_trial(trial_id).params == {"x": 0.5}
    one.set_trial_user_attr(trial_id, "from", "one")
    assert other.get_all_trials(study_id)[0].user_attrs == {"from": "one"}
    assert one.create_new_trial(study_id) != trial_id
    assert one.get_all_trials(study_id) == other.get_all_trials(study_id)


def test_the_trials_of_a_dead_process_fail_and_are_retried_once(tmp_path: Path) -> None:
    one = ckptfmt.optuna_storage(tmp_path)
    study = optuna.create_study(storage=one, study_name="s")
    lost = study.ask()
    lost.suggest_float("x", 0, 1)
    study._storage.log.close()
    again = optuna.load_study(storage=ckptfmt.optuna_storage(tmp_path), study_name="s")
    assert [trial.state for trial in again.trials] == [TrialState.FAIL]
    progress = ckptfmt.optimize(again, lambda trial: trial.suggest_float("x", 0, 1), n_trials=2, retry_lost=True)
    assert progress.done_count == 2
    assert again.trials[1].params == lost.params
    assert len(again.trials) == 3


def test_processes_on_one_study_share_the_total(tmp_path: Path) -> None:
    one = optuna.create_study(storage=ckptfmt.optuna_storage(tmp_path), study_name="s")
    other = optuna.load_study(storage=ckptfmt.optuna_storage(tmp_path), study_name="s")

    def objective(trial: optuna.Trial) -> float:
        if trial.number == 2:
            # While this one runs, the other does all that is left.
            assert ckptfmt.optimize(other, objective, n_trials=6).done_count == 5
        return trial.suggest_float("x", 0, 1)

    assert ckptfmt.optimize(one, objective, n_trials=6).done_count == 6
    assert len(one.trials) == 6


FORKING = """import os, sys, optuna, ckptfmt
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.create_study(storage=ckptfmt.optuna_storage(sys.argv[1]), study_name="s")
objective = lambda trial: trial.suggest_float("x", 0, 1)
study.optimize(objective, n_trials=3)
before = study.trials
child = os.fork()
if child == 0:
    ok = study.trials == before and study._storage.log.image.study(0).done_count == 3
    study.optimize(objective, n_trials=2)
    os._exit(not (ok and len(study.trials) == 5))
assert os.waitpid(child, 0)[1] == 0
study.optimize(objective, n_trials=1)
assert study.trials[:3] == before and len(study.trials) == 6
assert study._storage.log.image.study(0).done_count == 6
"""


def test_a_forked_process_goes_on_with_a_journal_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FORKING, str(tmp_path / "s")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
