"""Studies of a run: what is restored, what is taken back, what is refused."""

from __future__ import annotations

import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

import ckptfmt
from ckptfmt.adapters.optuna_optimize import done_trials
from ckptfmt.adapters.optuna_pickles import find_foreign_name
from ckptfmt.disk.local import LocalDisk
from ckptfmt.run import at_exit
from ckptfmt.run.journal import Journal

optuna.logging.set_verbosity(optuna.logging.ERROR)
WAITING, RUNNING, FAIL = optuna.trial.TrialState.WAITING, optuna.trial.TrialState.RUNNING, optuna.trial.TrialState.FAIL


def objective(trial: optuna.Trial) -> float:
    x: float = trial.suggest_float("x", -5, 5)
    trial.report(x, 10**9)
    trial.set_user_attr("seen", {"tuple": (1, 2.5), 3: None})
    return x**2 + trial.suggest_categorical("kind", [1, 2.0])


def killed(run: ckptfmt.Run) -> None:
    """Leave a run as its process would that is killed: nothing is closed in good order, but the lock is free."""
    for storage in run._studies.values():
        journal = storage.log._journal
        if journal._segment is not None:
            journal._segment.file.close()
        journal._directory.close()
    at_exit.forget(run)
    run._writer.close()


def test_a_study_is_restored_whole(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s", direction="maximize")
        study.set_user_attr("note", ("a", 1))
        study.enqueue_trial({"x": 1.0})
        ckptfmt.optimize(study, objective, n_trials=6)
    with ckptfmt.Run(tmp_path) as run:
        again = run.study("s")
        assert again.get_trials() == study.get_trials()
        assert again.user_attrs == study.user_attrs
        assert again.direction == study.direction
        assert again.best_trial == study.best_trial


def test_progress_is_told_through_the_logger_of_optuna(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logger = optuna.logging.get_logger("optuna.ckptfmt")
    logger.addHandler(caplog.handler)
    try:
        with ckptfmt.Run(tmp_path) as run, caplog.at_level("INFO", logger="optuna.ckptfmt"):
            ckptfmt.optimize(run.study("s"), lambda _: 0.4616, n_trials=2)
            ckptfmt.optimize(run.study("s"), lambda _: 0.4616, n_trials=3)
    finally:
        logger.removeHandler(caplog.handler)
    # Once more for each handler that has them.
    assert list(dict.fromkeys(record.getMessage() for record in caplog.records if record.name == "optuna.ckptfmt")) == [
        "1 of 2 done, best 0.4616, 1 left",
        "2 of 2 done, best 0.4616, 0 left",
        "restored 2 trials, continuing with trial 3",
        "3 of 3 done, best 0.4616, 0 left",
    ]


def test_n_trials_is_a_total_over_restarts(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        assert ckptfmt.optimize(run.study("s"), objective, n_trials=5).done_count == 5
    with ckptfmt.Run(tmp_path) as run:
        progress = ckptfmt.optimize(run.study("s"), objective, n_trials=8)
        assert (progress.restored_count, progress.done_count, progress.left_count) == (5, 8, 0)
        assert str(progress).startswith("8 of 8 done, best ")
        assert ckptfmt.optimize(run.study("s"), objective, n_trials=8).restored_count == 8


@pytest.mark.parametrize("n_trials", [-1, 2.5, None, "50"])
def test_a_total_that_is_no_number_of_trials_is_refused(tmp_path: Path, n_trials: Any) -> None:
    with ckptfmt.Run(tmp_path) as run, pytest.raises(ValueError, match=f"n_trials={n_trials!r}: expected an integer of at least 0"):
        ckptfmt.optimize(run.study("lr"), objective, n_trials=n_trials)


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    for call in (lambda: ckptfmt.optimize("lr", objective, n_trials=3), lambda: ckptfmt.save_study(tmp_path / "saved", "lr")):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"study='lr': expected an optuna.Study, found str"):
            call()


def test_the_trial_that_ran_when_its_process_died_is_suggested_again(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path)
    study = run.study("s", sampler=optuna.samplers.TPESampler(seed=1))
    ckptfmt.optimize(study, objective, n_trials=12)
    lost = study.ask()
    objective(lost)
    killed(run)
    for _ in range(2):
        run = ckptfmt.Run(tmp_path)
        again = run.study("s", sampler=optuna.samplers.TPESampler(seed=2))
        assert len(again.trials) == 12
        trial = again.ask()
        objective(trial)
        assert (trial.number, trial.params) == (lost.number, lost.params)
        killed(run)


def test_a_lost_first_trial_is_suggested_again_too(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path)
    lost = run.study("s").ask()
    objective(lost)
    killed(run)
    with ckptfmt.Run(tmp_path) as run:
        trial = run.study("s").ask()
        objective(trial)
        assert trial.params == lost.params


def test_an_enqueued_trial_that_was_lost_waits_again(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path)
    study = run.study("s")
    study.enqueue_trial({"x": 2.0})
    objective(study.ask())
    killed(run)
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
        assert [trial.state for trial in study.trials] == [WAITING]
        ckptfmt.optimize(study, objective, n_trials=1)
        assert study.trials[0].params["x"] == 2.0


def test_trials_that_ran_beside_a_finished_one_fail_and_are_retried_by_choice(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path)
    study = run.study("s")
    first, second = study.ask(), study.ask()
    value = first.suggest_float("x", 0, 1)
    study.tell(second, 1.0)
    killed(run)
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
        assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
        assert len(done_trials(study)) == 1
        ckptfmt.optimize(study, lambda trial: trial.suggest_float("x", 0, 1), n_trials=2, retry_lost=True)
        assert study.trials[2].params == {"x": value}
        assert ckptfmt.optimize(study, objective, n_trials=2, retry_lost=True).done_count == 2
        assert len(study.trials) == 3


def test_an_interrupted_trial_does_not_count(tmp_path: Path) -> None:
    def interrupted(_: optuna.Trial) -> float:
        raise KeyboardInterrupt

    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
        with pytest.raises(KeyboardInterrupt):
            ckptfmt.optimize(study, interrupted, n_trials=2)
        assert ckptfmt.optimize(study, objective, n_trials=2).done_count == 2
        assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE"]


@pytest.mark.parametrize("value", [object(), np.zeros(3), {"a": [object()]}])
def test_an_attribute_that_is_no_plain_data_is_refused_by_its_key(tmp_path: Path, value: Any) -> None:
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="'weights'"):
            study.set_user_attr("weights", value)
        trial = study.ask()
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="'weights'"):
            trial.set_user_attr("weights", value)
        trial.set_user_attr("accuracy", np.float32(0.5))
        study.tell(trial, 1.0)
    with ckptfmt.Run(tmp_path) as run:
        assert run.study("s").trials[0].user_attrs == {"accuracy": np.float32(0.5)}


def test_a_choice_that_json_would_change_is_refused_by_its_name(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="'shape'"):
            run.study("s").ask().suggest_categorical("shape", [(1, 2), (3, 4)])


def test_another_direction_is_refused(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        run.study("s", direction="maximize")
        with pytest.raises(ValueError, match="direction differs: the study has maximize, found minimize"):
            run.study("s", direction="minimize")


def test_another_sampler_is_named_and_goes_on_with_a_state_of_its_own(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        ckptfmt.optimize(run.study("s"), objective, n_trials=2)
        with pytest.warns(RuntimeWarning, match="the sampler was TPESampler and now is RandomSampler"):
            study = run.study("s", sampler=optuna.samplers.RandomSampler(seed=1))
        assert ckptfmt.optimize(study, objective, n_trials=4).done_count == 4


def test_a_trial_that_a_full_disk_did_not_take_can_be_told_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
        trial = study.ask()
        objective(trial)

        def full(*_: Any, **__: Any) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("ckptfmt.run.journal.Journal.append", full)
            with pytest.raises(OSError, match="No space"):
                study.tell(trial, 1.0)
        assert study.trials[0].state == RUNNING
        study.tell(trial, 1.0)
    with ckptfmt.Run(tmp_path) as run:
        assert run.study("s").trials == study.trials


def test_trials_added_beside_a_running_template_survive_a_kill(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path)
    study = run.study("s")
    study.add_trial(optuna.trial.create_trial(state=RUNNING))
    study.add_trial(optuna.trial.create_trial(value=1.0))
    killed(run)
    with ckptfmt.Run(tmp_path) as run:
        assert [trial.state.name for trial in run.study("s").trials] == ["FAIL", "COMPLETE"]


class DrawingSampler(optuna.samplers.RandomSampler):
    """A sampler of an application, with generators of every kind."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed)
        self.generators = [np.random.default_rng(seed), np.random.RandomState(seed), random.Random(seed)]

    def sample_independent(self, *_: Any) -> float:
        numpy_new, numpy_old, python = self.generators
        return float(numpy_new.normal() + numpy_old.normal() + python.gauss()) % 1  # type: ignore[union-attr, call-arg]


def test_generators_of_a_sampler_of_the_application_are_kept(tmp_path: Path) -> None:
    def draw(trial: optuna.Trial) -> float:
        return trial.suggest_float("x", 0, 1)

    whole = optuna.create_study(sampler=DrawingSampler(1))
    whole.optimize(draw, n_trials=9)
    for seed, n_trials in ((1, 4), (2, 9)):
        with ckptfmt.Run(tmp_path) as run:
            study = run.study("s", sampler=DrawingSampler(seed))
            ckptfmt.optimize(study, draw, n_trials=n_trials)
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials]


@pytest.mark.parametrize("record", [{"op": "param", "trial": 7}, {"op": "create_trial", "study": 0, "trial": 0}, {"op": "state"}], ids=str)
def test_records_that_nobody_here_wrote_are_an_error_that_names_the_journal(tmp_path: Path, record: dict[str, Any]) -> None:
    study = optuna.create_study()
    ckptfmt.save_study(tmp_path / "saved", study)
    with Journal.open_for_append(LocalDisk(), str(tmp_path / "saved")) as journal:
        journal.append({"op": "of a newer version"})
    assert ckptfmt.load_study(tmp_path / "saved").study_name == study.study_name
    with Journal.open_for_append(LocalDisk(), str(tmp_path / "saved")) as journal:
        journal.append(record)
    with pytest.raises(ckptfmt.CorruptError, match=r"saved: record 4: .* \[E05[89]\]"):
        ckptfmt.load_study(tmp_path / "saved")


def test_a_closed_run_takes_no_more_trials(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
    with pytest.raises(ValueError, match="closed"):
        study.ask()


def test_a_study_with_many_records_is_compacted_and_stays_the_same(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path, durable=False) as run:
        study = run.study("s", sampler=optuna.samplers.RandomSampler(seed=1))
        ckptfmt.optimize(study, objective, n_trials=420)
    for _ in range(2):
        with ckptfmt.Run(tmp_path) as run:
            assert run.study("s", sampler=optuna.samplers.RandomSampler()).trials == study.trials


@pytest.mark.parametrize("kind", ["memory", "journal", "database", "shared"])
def test_a_saved_study_is_loaded_into_any_storage(tmp_path: Path, kind: str) -> None:
    study = optuna.create_study(study_name="s", sampler=optuna.samplers.TPESampler(seed=1))
    study.set_user_attr("note", "a")
    study.optimize(objective_json, n_trials=8)
    study.enqueue_trial({"x": 1})
    study.ask().suggest_float("x", -5, 5)
    study.enqueue_trial({"x": 2})
    ckptfmt.save_study(tmp_path / "saved", study)
    ckptfmt.save_study(tmp_path / "saved", study)
    storage: Any = None
    if kind == "journal":
        storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal")))
    elif kind == "database":
        storage = f"sqlite:///{tmp_path}/study.db"
    elif kind == "shared":
        storage = ckptfmt.optuna_storage(tmp_path / "shared")
    loaded = ckptfmt.load_study(tmp_path / "saved", storage=storage)
    trials = loaded.get_trials()
    for trial, original in zip(trials, study.trials, strict=True):
        trial._trial_id = original._trial_id
    assert trials == study.trials
    assert loaded.user_attrs == study.user_attrs
    assert loaded.study_name == study.study_name
    if kind == "database":
        loaded._storage._backend.engine.dispose()


def objective_json(trial: optuna.Trial) -> float:
    x: float = trial.suggest_float("x", -5, 5)
    trial.report(x, 3)
    trial.set_user_attr("seen", [1, 2.5, None])
    return x**2 + trial.suggest_categorical("kind", [1, True, None, "a", 2.5] if trial.number < 0 else ["1", "2"]).count("1")


def test_a_loaded_sampler_goes_on_where_the_saved_one_was(tmp_path: Path) -> None:
    study = optuna.create_study(sampler=optuna.samplers.NSGAIISampler(seed=1, population_size=4), directions=["minimize"] * 2)
    goals = lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1))  # noqa: E731
    study.optimize(goals, n_trials=10)
    ckptfmt.save_study(tmp_path / "saved", study)
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage).optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    loaded = ckptfmt.load_study(tmp_path / "saved", storage=storage, sampler=optuna.samplers.NSGAIISampler(seed=2, population_size=4))
    for one in (study, loaded):
        one.optimize(goals, n_trials=10)
    assert [trial.params for trial in loaded.trials] == [trial.params for trial in study.trials]


def test_a_study_goes_on_from_another_experiment_and_is_extended(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "old") as run:
        old = run.study("search", sampler=optuna.samplers.TPESampler(seed=1))
        ckptfmt.optimize(old, objective, n_trials=20)
    for _ in range(2):
        with ckptfmt.Run(tmp_path / "new") as run:
            study = run.study("search", start_from=tmp_path / "old" / "studies" / "search")
            ckptfmt.optimize(study, objective, n_trials=30)
            assert len(study.trials) == 30
            assert study.trials[:20] == old.trials


def test_the_pickle_of_an_optimizer_is_known_and_anything_else_is_not() -> None:
    study = optuna.create_study(sampler=optuna.samplers.CmaEsSampler(seed=1))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1), n_trials=10)
    pieces = next(found for trial in reversed(study.trials) if (found := {k: v for k, v in trial.system_attrs.items() if "optimizer" in k}))
    data = bytes.fromhex("".join(pieces[f"cma:optimizer:{place}"] for place in range(len(pieces))))
    assert find_foreign_name(data) is None
    assert find_foreign_name(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.") == "it imports os.system"
    assert find_foreign_name(b"cos\nsystem\n(S'id'\ntR.") == "instruction GLOBAL"
    # The name comes from the memory, or is computed: what cannot be followed is refused.
    hidden = b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94000h\x00h\x01\x93."
    assert find_foreign_name(hidden) == "it imports os.system"


def test_a_foreign_pickle_is_left_out_with_a_warning(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        trial = run.study("s").ask()
        trial.storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", b"\x80\x04\x8c\x02os\x8c\x06system\x93.".hex())
        run.study("s").tell(trial, 1.0)
    with ckptfmt.Run(tmp_path) as run, pytest.warns(RuntimeWarning, match=r"it imports os\.system"):
        assert run.study("s").trials[0].system_attrs == {}


def test_several_jobs_are_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt.adapters.optuna_optimize._warned", set())
    with ckptfmt.Run(tmp_path) as run:
        study = run.study("s")
        with pytest.warns(RuntimeWarning, match="n_jobs > 1"):
            ckptfmt.optimize(study, objective, n_trials=4, n_jobs=2)
        assert ckptfmt.optimize(study, objective, n_trials=8, n_jobs=2).done_count == 8


def test_choices_that_are_equal_but_of_other_types_come_back_as_they_were(tmp_path: Path) -> None:
    choices = optuna.distributions.CategoricalDistribution((True, 1, 1.0, "1"))
    study = optuna.create_study()
    for value in choices.choices:
        study.add_trial(optuna.trial.create_trial(params={"c": value}, distributions={"c": choices}, value=0.0))
    ckptfmt.save_study(tmp_path / "saved", study)
    found = [trial.params["c"] for trial in ckptfmt.load_study(tmp_path / "saved").trials]
    assert [(type(value), value) for value in found] == [(type(value), value) for value in choices.choices]
