"""Studies out of Optuna's own files are the same trial by trial, go on, and are refused with what is wrong; pickles run nothing."""

from __future__ import annotations

import json
import math
import pickle
import shutil
import sqlite3
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial

import ckptfmt
from ckptfmt.adapters.optuna_foreign import distribution_text
from ckptfmt.adapters.optuna_import import import_pickled_study, import_study

optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def fill(study: optuna.Study) -> None:
    """Give a study everything that Optuna can hold: all states, distributions, attributes, intermediate and special values."""
    several = len(study.directions) > 1

    def objective(trial: optuna.Trial) -> Any:
        x = trial.suggest_float("x", -5, 5)
        trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        trial.suggest_float("step", 0, 1, step=0.25)
        trial.suggest_int("n", 1, 9)
        trial.suggest_int("log n", 1, 64, log=True)
        trial.suggest_int("even", 2, 10, step=2)
        trial.suggest_categorical("kind", (1, True, 1.0, None, "ä\n", math.nan, 2**53))
        trial.set_user_attr("note", {"deep": [1, None, {"a": 2.5}], "text": "ä"})
        trial.set_constraint("c", 0.5 - x)
        if not several:
            trial.report(x, 0)
            trial.report(math.inf, 2)
            trial.report(-math.inf, 10**9)
            trial.report(math.nan, 7)
        if trial.number == 1 and not several:
            raise optuna.TrialPruned
        if trial.number == 2:
            raise ValueError
        return [x, x**2] if several else -math.inf if trial.number == 3 else x**2

    study.set_user_attr("of", ["study", 1.5])
    study.set_metric_names(["one", "two"] if several else ["loss"])
    study.optimize(objective, n_trials=6, catch=ValueError)
    study.enqueue_trial({"x": 0.5}, user_attrs={"from": "queue"})
    running = study.ask({"x": FloatDistribution(-5, 5)})
    running.set_user_attr("half", True)
    study.enqueue_trial({"x": 1.5})


def as_text(trial: FrozenTrial) -> str:
    """Everything of a trial but its id, as a text because NaN equals nothing; Optuna promises no order of intermediate values."""
    members = {**vars(trial), "intermediate_values": sorted(trial.intermediate_values.items())}
    return repr(sorted((key, repr(value)) for key, value in members.items() if key != "_trial_id"))


def assert_same(study: optuna.Study, other: optuna.Study) -> None:
    assert (other.study_name, other.directions, other.user_attrs) == (study.study_name, study.directions, study.user_attrs)
    assert other._storage.get_study_system_attrs(other._study_id) == study._storage.get_study_system_attrs(study._study_id)
    assert list(map(as_text, other.trials)) == list(map(as_text, study.trials))
    assert {type(value) for trial in other.trials for value in trial.params.values()} == {
        type(value) for trial in study.trials for value in trial.params.values()
    }


def sqlite_file(directory: Path, names: list[str], directions: list[str]) -> tuple[Path, list[optuna.Study]]:
    path = directory / "study.db"
    storage = f"sqlite:///{path}"
    return path, [optuna.create_study(storage=storage, study_name=name, directions=directions) for name in names]


def journal_file(directory: Path, names: list[str], directions: list[str]) -> tuple[Path, list[optuna.Study]]:
    path = directory / "study.log"
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    return path, [optuna.create_study(storage=storage, study_name=name, directions=directions) for name in names]


MAKERS = {"sqlite": sqlite_file, "journal": journal_file}
Maker = Callable[[Path, list[str], list[str]], tuple[Path, list[optuna.Study]]]
by_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "maximize"]], ids=["one direction", "two"])
@by_maker
def test_an_imported_study_is_the_same_and_goes_on(tmp_path: Path, make: Maker, directions: list[str]) -> None:
    path, (study,) = make(tmp_path, ["lr"], directions)
    fill(study)
    before = path.read_bytes()
    imported = import_study(path, tmp_path / "imported")
    assert (imported.name, imported.trial_count, imported.path) == ("lr", 8, str(tmp_path / "imported"))
    assert path.read_bytes() == before
    loaded = ckptfmt.load_study(tmp_path / "imported")
    assert_same(study, loaded)
    assert [trial._trial_id for trial in ckptfmt.load_study(tmp_path / "imported").trials] == list(range(8))
    loaded.enqueue_trial({"x": 2.5})
    loaded.optimize(lambda trial: [trial.suggest_float("x", -5, 5)] * len(directions), n_trials=3)
    # What waited was taken in its order.
    assert [loaded.trials[number].params["x"] for number in (7, 8)] == [1.5, 2.5]


@by_maker
def test_it_goes_on_in_a_run_with_a_total_over_all(tmp_path: Path, make: Maker) -> None:
    path, (study,) = make(tmp_path, ["older"], ["minimize"])
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=5)
    import_study(path, tmp_path / "imported")
    import_study(path, tmp_path / "run" / "studies" / "lr")
    with ckptfmt.Run(tmp_path / "run", durable=False) as run:
        for name, options in (("lr", {}), ("begun", {"start_from": tmp_path / "imported"})):
            found = run.study(name, **options)
            assert found.study_name == name
            assert [trial.params for trial in found.trials] == [trial.params for trial in study.trials]
            assert ckptfmt.optimize(found, lambda trial: trial.suggest_float("x", 0, 1), n_trials=8).restored_count == 5
            assert len(found.trials) == 8


@by_maker
def test_several_studies_are_listed_and_one_is_chosen_by_name(tmp_path: Path, make: Maker) -> None:
    path, studies = make(tmp_path, ["first", "second"], ["minimize"])
    for index, study in enumerate(studies):
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2 + index)
    with pytest.raises(ckptfmt.NameNotFoundError, match=r"study\.\w+: holds 2 studies\nName one of them: first, second"):
        import_study(path, tmp_path / "to")
    with pytest.raises(ckptfmt.NameNotFoundError, match="no study is named 'third'\nName one of them: first, second"):
        import_study(path, tmp_path / "to", name="third")
    assert not (tmp_path / "to").exists()
    assert import_study(path, tmp_path / "to", name="second").trial_count == 3
    assert_same(studies[1], ckptfmt.load_study(tmp_path / "to"))


@by_maker
def test_parents_of_a_generation_are_found_by_their_new_ids(tmp_path: Path, make: Maker) -> None:
    path, (other, study) = make(tmp_path, ["other", "nsga"], ["minimize", "maximize"])
    objective = lambda trial: (trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1))  # noqa: E731 - two lines of use
    other.optimize(objective, n_trials=3)
    study.sampler = optuna.samplers.NSGAIISampler(population_size=4, seed=1)
    study.optimize(objective, n_trials=13)
    import_study(path, tmp_path / "to", name="nsga")
    loaded = ckptfmt.load_study(tmp_path / "to", sampler=optuna.samplers.NSGAIISampler(population_size=4, seed=1))
    loaded.optimize(objective, n_trials=5)
    parents = loaded._storage.get_study_system_attrs(loaded._study_id)
    assert {one for ids in parents.values() for one in ids} <= {trial._trial_id for trial in loaded.trials}


def test_what_is_there_is_not_replaced_unasked(tmp_path: Path) -> None:
    path, (study,) = journal_file(tmp_path, ["a"], ["minimize"])
    import_study(path, tmp_path / "to")
    with pytest.raises(ckptfmt.CheckpointExistsError, match="a study is there already"):
        import_study(path, tmp_path / "to")
    study.optimize(lambda trial: 1.0, n_trials=2)
    assert import_study(path, tmp_path / "to", overwrite=True).trial_count == 2
    assert len(ckptfmt.load_study(tmp_path / "to").trials) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for target in ("mine", "mine/notes.txt"):
        with pytest.raises(ckptfmt.CheckpointExistsError, match="exists already"):
            import_study(path, tmp_path / target, overwrite=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "neither an SQLite database nor a journal file of Optuna"),
        (b"SQLite format 3\0" + b"\x10\0\x01\x01\0" * 30, "not a sound SQLite database"),
        (b'{"op_code":0,"worker_id":"a","study_name":"s","directions":[1]}\n{"op_code":4}\n', "line 2: cannot be replayed: KeyError"),
        (b'{"op_code":0,"worker_id":"a","study_name":"s","directions":[1]}\nnonsense\n{}\n', "line 2: not JSON"),
        (b'{"op_code":99,"worker_id":"a"}\n', "line 1: cannot be replayed"),
        (b'{"op_code":0,"worker_id":"a","study_name":"s","directions":[7]}\n', "line 1: cannot be replayed: ValueError"),
    ],
)
def test_a_wrong_file_is_refused_with_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ckptfmt.CorruptError, match=message):
        import_study(tmp_path / "file", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_a_database_of_something_else_and_an_old_one_are_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE songs (name TEXT)")
    with pytest.raises(ckptfmt.CorruptError, match="not a database of Optuna: expected tables studies and trials, found songs"):
        import_study(tmp_path / "other.db", tmp_path / "to")
    path, _ = sqlite_file(tmp_path, ["a"], ["minimize"])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE version_info SET schema_version = 9")
    with pytest.raises(ckptfmt.UnsupportedVersionError, match=r"expected schema version 12, found 9\nUpgrade a copy"):
        import_study(path, tmp_path / "to")
    with pytest.raises(ckptfmt.CheckpointNotFoundError):
        import_study(tmp_path / "nothing.db", tmp_path / "to")


def test_a_database_with_values_that_optuna_does_not_write_is_an_error_with_its_place(tmp_path: Path) -> None:
    path, (study,) = sqlite_file(tmp_path, ["a"], ["minimize"])
    study.optimize(lambda trial: trial.suggest_categorical("c", ("a", "b")) == "a", n_trials=2)
    for statement in (
        "UPDATE trials SET state = 'DONE'",
        "UPDATE trial_params SET param_value = 'x'",
        "UPDATE trial_params SET param_value = 7.0",
        "UPDATE trial_params SET distribution_json = '{}'",
        "UPDATE trials SET datetime_start = 'yesterday'",
        "UPDATE trial_values SET value = NULL",
        "UPDATE study_directions SET direction = 'UP'",
        "INSERT INTO trial_user_attributes (trial_id, key, value_json) VALUES (1, 'a', '{')",
    ):
        shutil.copy(path, tmp_path / "copy.db")
        with sqlite3.connect(tmp_path / "copy.db") as connection:
            connection.execute(statement)
        with pytest.raises(ckptfmt.CorruptError, match=r"copy\.db: (study 'a' holds|trial \d: )"):
            import_study(tmp_path / "copy.db", tmp_path / "to")


def test_a_locked_database_is_read_and_one_with_a_hot_journal_is_not_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt.disk.foreign_database._WAIT_SECONDS", 0.1)
    path, (study,) = sqlite_file(tmp_path, ["a"], ["minimize"])
    study.optimize(lambda trial: 1.0, n_trials=2)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN IMMEDIATE")
    assert import_study(path, tmp_path / "one").trial_count == 2
    writer.execute("CREATE TABLE large (text TEXT)")
    writer.executemany("INSERT INTO large VALUES (?)", [("x" * 3000,)] * 50)
    with pytest.raises(ckptfmt.CheckpointError, match="locked"):
        import_study(path, tmp_path / "two")
    # What a killed writer leaves.
    for name in ("study.db", "study.db-journal"):
        shutil.copy(tmp_path / name, tmp_path / name.replace("study", "killed"))
    writer.execute("ROLLBACK")
    before = (tmp_path / "killed.db").read_bytes(), (tmp_path / "killed.db-journal").read_bytes()
    with pytest.raises(ckptfmt.CheckpointError, match="cannot be read without changing it"):
        import_study(tmp_path / "killed.db", tmp_path / "three")
    assert ((tmp_path / "killed.db").read_bytes(), (tmp_path / "killed.db-journal").read_bytes()) == before


def test_the_torn_last_line_of_a_journal_is_left_out_with_a_warning(tmp_path: Path) -> None:
    path, (study,) = journal_file(tmp_path, ["a"], ["minimize"])
    study.optimize(lambda trial: 1.0, n_trials=2)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    with pytest.warns(RuntimeWarning, match="its last line was torn"):
        assert import_study(path, tmp_path / "to").trial_count == 2


@pytest.mark.filterwarnings("ignore:Choices for a categorical")
@by_maker
def test_choices_that_no_json_keeps_are_refused_by_trial_and_parameter(tmp_path: Path, make: Maker) -> None:
    path, (study,) = make(tmp_path, ["a"], ["minimize"])
    study.optimize(lambda trial: len(trial.suggest_categorical("c", ([1, 2], [3]))), n_trials=1)  # type: ignore[list-item]
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"parameter 'c'"):
        import_study(path, tmp_path / "to")


def test_distributions_of_earlier_releases_become_those_of_today() -> None:
    def told(name: str, **attributes: Any) -> Any:
        return optuna.distributions.json_to_distribution(distribution_text(json.dumps({"name": name, "attributes": attributes})))

    assert told("UniformDistribution", low=0.0, high=1.0) == FloatDistribution(0, 1)
    assert told("LogUniformDistribution", low=0.1, high=1.0) == FloatDistribution(0.1, 1, log=True)
    assert told("DiscreteUniformDistribution", low=0.0, high=1.0, q=0.5) == FloatDistribution(0, 1, step=0.5)
    assert told("IntUniformDistribution", low=1, high=9, step=2) == IntDistribution(1, 9, step=2)
    assert told("IntLogUniformDistribution", low=1, high=8, step=1) == IntDistribution(1, 8, log=True)
    assert told("CategoricalDistribution", choices=["a", None]) == CategoricalDistribution(("a", None))
    assert distribution_text("nonsense") == "nonsense"


# Pickles


SAMPLERS = {
    "TPE": lambda: optuna.samplers.TPESampler(seed=1, n_startup_trials=3),
    "CMA-ES": lambda: optuna.samplers.CmaEsSampler(seed=1, n_startup_trials=2),
    "GP": lambda: optuna.samplers.GPSampler(seed=1, n_startup_trials=3),
    "QMC": lambda: optuna.samplers.QMCSampler(seed=1),
    "random": lambda: optuna.samplers.RandomSampler(seed=1),
}


def pickled(path: Path, study: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Path:
    path.write_bytes(pickle.dumps(study, protocol))
    return path


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_pickled_study_is_read_whatever_its_sampler(tmp_path: Path, sampler: str) -> None:
    study = optuna.create_study(study_name="p", sampler=SAMPLERS[sampler](), pruner=optuna.pruners.HyperbandPruner())
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_float("y", 0, 1), n_trials=7)
    with pytest.warns(RuntimeWarning, match="nothing vouches"):
        assert import_pickled_study(pickled(tmp_path / "a.pkl", study), tmp_path / "to").trial_count == 7
    assert_same(study, ckptfmt.load_study(tmp_path / "to"))


@pytest.mark.filterwarnings("ignore:.*nothing vouches")
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "maximize"]], ids=["one direction", "two"])
def test_a_pickled_study_is_the_same_in_every_protocol(tmp_path: Path, protocol: int, directions: list[str]) -> None:
    study = optuna.create_study(study_name="p", directions=directions)
    fill(study)
    study.set_user_attr("rich", {1: (2, {3}), "when": datetime(2026, 1, 2), "scalar": np.float32(0.5)})  # noqa: DTZ001 - as a user would
    import_pickled_study(pickled(tmp_path / "a.pkl", study, protocol), tmp_path / "to")
    loaded = ckptfmt.load_study(tmp_path / "to")
    assert_same(study, loaded)
    assert type(loaded.user_attrs["rich"]["scalar"]) is np.float32


class Evil:
    ran = False

    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.modules['evil_was_here'] = 1",)


def test_names_that_no_study_needs_are_refused_all_of_them_and_nothing_is_run(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.set_user_attr("a", Evil())
    study.set_user_attr("b", shutil.rmtree)
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"2 names that are no plain data: builtins\.exec, shutil\.rmtree\nNothing was"):
        import_pickled_study(pickled(tmp_path / "a.pkl", study), tmp_path / "to")
    assert "evil_was_here" not in sys.modules
    assert not (tmp_path / "to").exists()


def test_a_pickle_is_not_read_unasked(tmp_path: Path) -> None:
    path = pickled(tmp_path / "a.pkl", optuna.create_study())
    with pytest.raises(ckptfmt.UnsupportedTypeError, match="a pickle is a program, and is not read unasked"):
        import_study(path, tmp_path / "to")


@by_maker
def test_a_pickle_without_trials_says_where_they_are(tmp_path: Path, make: Maker) -> None:
    path, (study,) = make(tmp_path, ["a"], ["minimize"])
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=f"holds no trials.*\n.*{path}: convert that"):
        import_pickled_study(pickled(tmp_path / "a.pkl", study), tmp_path / "to")


@pytest.mark.parametrize("value", [1, {"a": 2}, [], optuna.trial.create_trial(value=1.0)], ids=["int", "dict", "list", "trial"])
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ckptfmt.CorruptError, match="not a pickled study"):
        import_pickled_study(pickled(tmp_path / "a.pkl", value), tmp_path / "to")


def test_a_damaged_pickle_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    data = pickle.dumps(study)
    for end in range(0, len(data) - 1, 97):
        (tmp_path / "a.pkl").write_bytes(data[:end])
        with pytest.raises((ckptfmt.CorruptError, ckptfmt.UnsupportedTypeError)):
            import_pickled_study(tmp_path / "a.pkl", tmp_path / "to")


@pytest.mark.parametrize("value", [np.zeros(3), object()], ids=["array", "object"])
def test_attributes_that_are_no_plain_data_are_refused_by_their_key(tmp_path: Path, value: Any) -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.set_user_attr("mine", value)
    study.tell(trial, 1.0)
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"trial 0: user attribute 'mine'"):
        import_pickled_study(pickled(tmp_path / "a.pkl", study), tmp_path / "to")
