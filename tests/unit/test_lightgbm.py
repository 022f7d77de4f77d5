"""Boosters of LightGBM as data, and training that stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest

import ckptfmt
import ckptfmt.adapters.xgboost
from ckptfmt.adapters import lightgbm as boosting

TREES, EVERY = 24, 6
BASE = {
    "num_leaves": 7,
    "learning_rate": 0.4,
    "seed": 3,
    "verbosity": -1,
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
}
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(400, 6))
TARGETS = INPUTS[:, 0] * INPUTS[:, 1] + RANDOM.normal(size=400) * 0.5


class StoppedError(Exception):
    """Stands for a kill."""


def stop_at(iteration: int, seen: list[int] | None = None) -> Callable[[Any], None]:
    def stop(env: Any) -> None:
        if seen is not None:
            seen.append(env.iteration)
        if env.iteration == iteration:
            raise StoppedError

    return stop


def data_sets() -> tuple[lightgbm.Dataset, lightgbm.Dataset]:
    train = lightgbm.Dataset(INPUTS[:300], TARGETS[:300], free_raw_data=False)
    return train, lightgbm.Dataset(INPUTS[300:], TARGETS[300:], reference=train, free_raw_data=False)


def plainly_trained(params: Any, trees: int = TREES, callbacks: Sequence[Any] = ()) -> tuple[lightgbm.Booster, dict[str, Any]]:
    train, valid = data_sets()
    history: dict[str, Any] = {}
    callbacks = [*callbacks, lightgbm.record_evaluation(history)]
    return lightgbm.train(params, train, trees, valid_sets=[train, valid], valid_names=["own", "valid"], callbacks=callbacks), history


def trained(
    path: Path, params: Any, stops: Sequence[int] = (), *, trees: int = TREES, callbacks: Callable[[], list[Any]] = list, data: Any = None
) -> tuple[lightgbm.Booster, dict[str, Any]]:
    """Train in as many sessions as there are stops, and one more."""
    for stop in (*stops, -1):
        history: dict[str, Any] = {}
        train, valid = data or data_sets()
        watchers = [*callbacks(), lightgbm.record_evaluation(history), stop_at(stop)]
        options: dict[str, Any] = {"valid_sets": [train, valid], "valid_names": ["own", "valid"], "callbacks": watchers}
        with ckptfmt.Run(path, durable=False) as run:
            try:
                return boosting.train(run, params, train, trees, every=EVERY, **options), history
            except StoppedError:
                continue
    raise AssertionError("unreachable")


def trees_of(booster: lightgbm.Booster) -> str:
    """The text of a model without its parameters, of which the number of iterations is one."""
    return str(booster.model_to_string()).partition("parameters:")[0]


@pytest.mark.parametrize(
    ("params", "is_as_plain"),
    [
        ({}, True),
        ({"bin_construct_sample_cnt": 100}, True),
        ({"objective": "l1"}, True),
        ({"bagging_fraction": 0.5, "bagging_freq": 4}, False),
        ({"bagging_fraction": 0.5, "bagging_freq": 1, "bagging_fraction_seed": 9}, False),
        ({"feature_fraction": 0.5, "extra_trees": True, "bin_construct_sample_cnt": 100}, False),
        ({"use_quantized_grad": True}, False),
    ],
)
def test_a_training_that_was_stopped_five_times_gives_the_same_text(tmp_path: Path, params: dict[str, Any], is_as_plain: bool) -> None:
    booster, history = trained(tmp_path / "a", BASE | params)
    resumed, resumed_history = trained(tmp_path / "b", BASE | params, stops=(2, 5, 6, 7, 20))
    assert resumed.model_to_string() == booster.model_to_string()
    assert resumed_history == history
    plain, plain_history = plainly_trained(BASE | params)
    assert (trees_of(plain) == trees_of(booster)) is is_as_plain
    assert (plain_history == history) is is_as_plain


def test_changing_parameters_go_on_where_they_were(tmp_path: Path) -> None:
    def schedule() -> list[Any]:
        return [lightgbm.reset_parameter(learning_rate=[0.4 * 0.9**iteration for iteration in range(TREES)])]

    booster, _ = trained(tmp_path / "a", BASE, callbacks=schedule)
    resumed, _ = trained(tmp_path / "b", BASE, stops=(5, 8), callbacks=schedule)
    assert resumed.model_to_string() == booster.model_to_string()
    assert trees_of(booster) == trees_of(plainly_trained(BASE, callbacks=schedule())[0])


@pytest.mark.parametrize("is_by_callback", [False, True])
def test_early_stopping_counts_over_all_sessions(tmp_path: Path, is_by_callback: bool) -> None:
    def stopper() -> list[Any]:
        return [lightgbm.early_stopping(4, verbose=False)] if is_by_callback else []

    params, trees = BASE | ({} if is_by_callback else {"early_stopping_rounds": 4}), 100
    plain, history = plainly_trained(params, trees, stopper())
    last = len(history["valid"]["l2"]) - 1
    assert 4 < last < trees - 1
    found = {}
    for stops in ((), (1, 5, last - 1, last)):
        booster, found = trained(tmp_path / str(len(stops)), params, stops=stops, trees=trees, callbacks=stopper)
        assert (trees_of(booster), booster.best_iteration) == (trees_of(plain), plain.best_iteration)
        assert booster.best_score == plain.best_score
        assert found == history
    seen: list[int] = []
    again, _ = trained(tmp_path / "0", params, trees=trees, callbacks=lambda: [*stopper(), stop_at(-1, seen)])
    assert (trees_of(again), again.best_score, seen) == (trees_of(plain), plain.best_score, [])


def test_a_training_that_is_done_is_skipped_and_may_be_made_longer(tmp_path: Path) -> None:
    params = BASE | {"early_stopping_round": 50}
    booster, history = trained(tmp_path, params)
    seen: list[int] = []
    again, found = trained(tmp_path, params, callbacks=lambda: [stop_at(-1, seen)])
    assert (again.model_to_string(), found, seen) == (booster.model_to_string(), history, [])
    longer, _ = trained(tmp_path, params, trees=TREES + 6, callbacks=lambda: [stop_at(-1, seen)])
    assert (longer.num_trees(), seen) == (longer.best_iteration, list(range(TREES, TREES + 6)))
    run = ckptfmt.Run(tmp_path)
    assert run.all_steps() == [6, 12, 18, 24, 30]
    assert run.history()[0]["valid-l2"] == history["valid"]["l2"][5]


def test_one_data_set_serves_several_trainings(tmp_path: Path) -> None:
    data = data_sets()
    first, _ = trained(tmp_path / "a", BASE, data=data)
    second, _ = trained(tmp_path / "b", BASE, data=data)
    assert second.model_to_string() == first.model_to_string()


def test_a_booster_in_a_state_comes_back_predicting_the_same(tmp_path: Path) -> None:
    booster, _ = plainly_trained(BASE, 10)
    booster.best_iteration = 4
    ckptfmt.save(tmp_path / "checkpoint", {"trees": booster, "epoch": 1})
    restored = boosting.booster_from_state(ckptfmt.load(tmp_path / "checkpoint")["trees"])
    assert (restored.num_trees(), restored.best_iteration, restored.best_score) == (10, 4, booster.best_score)
    assert restored.predict(INPUTS).tolist() == booster.predict(INPUTS).tolist()
    assert restored.predict(INPUTS, num_iteration=10).tolist() == booster.predict(INPUTS, num_iteration=10).tolist()


def test_the_callback_saves_for_a_training_of_ones_own(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        assert boosting.resume(run) is None
        lightgbm.train(BASE, data_sets()[0], 10, callbacks=[boosting.checkpoint_callback(run, every=4)])
        assert run.all_steps() == [4, 8, 10]
        booster = boosting.resume(run)
        assert booster is not None
        left = TREES - booster.current_iteration()
        saver = boosting.checkpoint_callback(run, every=20)
        whole = lightgbm.train(BASE, data_sets()[0], left, init_model=booster, callbacks=[saver])
        assert run.all_steps() == [4, 8, 10, 20, 24]
        assert trees_of(whole) == trees_of(lightgbm.train(BASE, data_sets()[0], TREES))


def test_a_model_of_the_scikit_learn_interface_gives_its_booster() -> None:
    class Wrapper:
        booster_ = plainly_trained(BASE, 2)[0]

    assert bytes(boosting.booster_state(Wrapper())["model"]).decode() == Wrapper.booster_.model_to_string()


def test_wrong_uses_say_what_to_do(tmp_path: Path) -> None:
    train, _ = data_sets()
    with ckptfmt.Run(tmp_path / "trees") as run:
        boosting.train(run, BASE, train, 6, every=3)
        with pytest.raises(ValueError, match="has 6 iterations, and num_boost_round=5 is less"):
            boosting.train(run, BASE, train, 5)
        with pytest.raises(ValueError, match="boosting='dart': LightGBM cannot go on with it"):
            boosting.train(run, {**BASE, "boosting_type": "dart"}, train, 9)
        with pytest.raises(ValueError, match="make it with free_raw_data=False"):
            boosting.train(run, BASE, lightgbm.Dataset(INPUTS, TARGETS), 9)
        with pytest.raises(ValueError, match="has an init_score"):
            boosting.train(run, BASE, lightgbm.Dataset(INPUTS, TARGETS, init_score=TARGETS, free_raw_data=False), 9)
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="expected the state of a booster of xgboost, found 'lightgbm'"):
            ckptfmt.adapters.xgboost.resume(run)
