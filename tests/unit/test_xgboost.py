"""Boosters of XGBoost as data, and training that stops anywhere and goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

import ckptfmt
from ckptfmt.adapters import xgboost as boosting

TREES, EVERY = 24, 6
BASE = {"max_depth": 3, "eta": 0.4, "seed": 3, "nthread": 1}
RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(size=(400, 6))
TARGETS = INPUTS[:, 0] * INPUTS[:, 1] + RANDOM.normal(size=400) * 0.5


class StoppedError(Exception):
    """Stands for a kill."""


def matrix(first: int = 0, last: int = 300) -> xgboost.DMatrix:
    return xgboost.DMatrix(INPUTS[first:last], TARGETS[first:last])


def stop_at(epoch_to_stop_at: int, seen: list[int] | None = None) -> xgboost.callback.TrainingCallback:
    class Stop(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if seen is not None:
                seen.append(epoch)
            if epoch == epoch_to_stop_at:
                raise StoppedError
            return False

    return Stop()


def trained(
    path: Path, params: Any, stops: Sequence[int] = (), *, trees: int = TREES, callbacks: Callable[[], list[Any]] = list, **options: Any
) -> tuple[xgboost.Booster, dict[str, Any]]:
    """Train in as many sessions as there are stops, and one more."""
    for stop in (*stops, -1):
        history: dict[str, Any] = {}
        options |= {"every": EVERY, "evals": [(matrix(300, 400), "valid")], "evals_result": history}
        with ckptfmt.Run(path, durable=False) as run:
            try:
                return boosting.train(run, params, matrix(), trees, callbacks=[*callbacks(), stop_at(stop)], **options), history
            except StoppedError:
                continue
    raise AssertionError("unreachable")


@pytest.mark.parametrize(
    ("params", "is_as_plain"),
    [
        ({}, True),
        ({"nthread": 2}, True),
        ({"tree_method": "exact"}, True),
        ({"eval_metric": ["rmse", "mae"]}, True),
        ({"objective": "reg:absoluteerror", "num_parallel_tree": 2}, True),
        ({"subsample": 0.5}, False),
        ({"colsample_bytree": 0.5, "colsample_bynode": 0.5}, False),
        ({"booster": "dart", "rate_drop": 0.2}, False),
    ],
)
def test_a_training_that_was_stopped_five_times_gives_the_same_bytes(tmp_path: Path, params: dict[str, Any], is_as_plain: bool) -> None:
    booster, history = trained(tmp_path / "a", BASE | params)
    resumed, resumed_history = trained(tmp_path / "b", BASE | params, stops=(2, 5, 6, 7, 20))
    assert resumed.save_raw() == booster.save_raw()
    assert resumed_history == history
    assert len(history["valid"]["rmse" if params.get("objective") is None else "mae"]) == TREES
    plain = xgboost.train(BASE | params, matrix(), TREES)
    assert (plain.save_raw() == booster.save_raw()) is is_as_plain


def test_learning_rates_go_on_where_they_were(tmp_path: Path) -> None:
    def schedule() -> list[Any]:
        return [xgboost.callback.LearningRateScheduler(lambda epoch: 0.4 * 0.9**epoch)]

    booster, _ = trained(tmp_path / "a", BASE, callbacks=schedule)
    resumed, _ = trained(tmp_path / "b", BASE, stops=(5, 8), callbacks=schedule)
    plain = xgboost.train(BASE, matrix(), TREES, callbacks=schedule())
    assert resumed.save_raw() == booster.save_raw() == plain.save_raw()


@pytest.mark.parametrize("is_best_saved", [False, True])
def test_early_stopping_counts_over_all_sessions(tmp_path: Path, is_best_saved: bool) -> None:
    def stopper() -> list[Any]:
        return [xgboost.callback.EarlyStopping(rounds=4, save_best=is_best_saved)]

    params, trees = BASE | {"eta": 0.2}, 100
    history: dict[str, Any] = {}
    evals = [(matrix(300, 400), "valid")]
    plain = xgboost.train(params, matrix(), trees, evals=evals, callbacks=stopper(), evals_result=history, verbose_eval=False)
    last = len(history["valid"]["rmse"]) - 1
    assert 4 < last < trees - 1
    for stops in ((), (1, 5, last - 1, last)):
        booster, found = trained(tmp_path / str(len(stops)), params, stops=stops, trees=trees, callbacks=stopper)
        assert (booster.save_raw(), booster.best_iteration, booster.best_score) == (
            plain.save_raw(),
            plain.best_iteration,
            plain.best_score,
        )
        assert found == history


def test_a_training_that_is_done_is_skipped(tmp_path: Path) -> None:
    booster, history = trained(tmp_path, BASE, early_stopping_rounds=50)
    seen: list[int] = []
    again, found = trained(tmp_path, BASE, callbacks=lambda: [stop_at(-1, seen)], early_stopping_rounds=50)
    assert (again.save_raw(), found, seen) == (booster.save_raw(), history, [])
    longer, _ = trained(tmp_path, BASE, trees=TREES + 6, callbacks=lambda: [stop_at(-1, seen)], early_stopping_rounds=50)
    assert (longer.num_boosted_rounds(), seen) == (TREES + 6, list(range(TREES, TREES + 6)))
    run = ckptfmt.Run(tmp_path)
    assert run.all_steps() == [6, 12, 18, 24, 30]
    assert run.history()[0]["valid-rmse"] == history["valid"]["rmse"][5]


def test_a_booster_in_a_state_comes_back_predicting_the_same(tmp_path: Path) -> None:
    booster = xgboost.train({**BASE, "objective": "binary:logistic"}, xgboost.DMatrix(INPUTS, TARGETS > 0), 5)
    booster.set_attr(best_iteration="3")
    ckptfmt.save(tmp_path / "checkpoint", {"trees": booster, "epoch": 1})
    assert any("trees-" in path.name for path in (tmp_path / "checkpoint").glob("*.safetensors"))
    restored = boosting.booster_from_state(ckptfmt.load(tmp_path / "checkpoint")["trees"])
    assert restored.save_raw() == booster.save_raw()
    assert restored.save_config() == booster.save_config()
    assert (restored.best_iteration, restored.predict(matrix()).tolist()) == (3, booster.predict(matrix()).tolist())


def test_the_config_of_another_version_is_left_out() -> None:
    booster = xgboost.train(BASE, matrix(), 5)
    state = boosting.booster_state(booster)
    state["config"] = '{"version": [1, 0, 0], "learner": "of another kind"}'
    assert boosting.booster_from_state(state).save_raw() == booster.save_raw()


def test_the_callback_saves_for_a_training_of_ones_own(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path) as run:
        assert boosting.resume(run) is None
        saver = boosting.checkpoint_callback(run, every=4)
        xgboost.train(BASE, matrix(), 10, callbacks=[saver], evals=[(matrix(), "train")], verbose_eval=False)
        assert run.all_steps() == [4, 8, 10]
        booster = boosting.resume(run)
        assert booster is not None
        left = TREES - booster.num_boosted_rounds()
        whole = xgboost.train(BASE, matrix(), left, xgb_model=booster, callbacks=[boosting.checkpoint_callback(run, every=20)])
        assert run.all_steps() == [4, 8, 10, 20, 24]
        assert whole.save_raw() == xgboost.train(BASE, matrix(), TREES).save_raw()
        # And from the callback to `train`.
        assert boosting.train(run, BASE, matrix(), TREES).save_raw() == whole.save_raw()


def test_a_model_of_the_scikit_learn_interface_gives_its_booster(tmp_path: Path) -> None:
    """As itself it is refused: what it knows besides its booster, such as names of classes, would be lost silently."""

    class Wrapper:
        __module__ = "xgboost.sklearn"

        def get_booster(self) -> xgboost.Booster:
            return booster

    booster = xgboost.train(BASE, matrix(), 2)
    assert bytes(boosting.booster_state(Wrapper())["model"]) == bytes(booster.save_raw())
    with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"Give its booster, which is what predicts: model.get_booster\(\)"):
        ckptfmt.save(tmp_path / "checkpoint", {"model": Wrapper()})


def test_wrong_uses_say_what_to_do(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "trees") as run:
        booster = boosting.train(run, BASE, matrix(), 6, every=3)
        with pytest.raises(ValueError, match=r"has 6 iterations, and num_boost_round=5 is less\n.*there are 3, 6"):
            boosting.train(run, BASE, matrix(), 5)
        with pytest.raises(ValueError, match="every=0: expected an integer of at least 1"):
            boosting.train(run, BASE, matrix(), 9, every=0)
    with ckptfmt.Run(tmp_path / "other") as run:
        run.save(1, {"model": {"w": np.zeros(2)}})
        with pytest.raises(ckptfmt.UnsupportedTypeError, match=r"step 1 holds 'model', and no booster\n.*needs a run of its own"):
            boosting.train(run, BASE, matrix(), 5)
    state = boosting.booster_state(booster)
    for wrong in (None, {}, {"booster": state}, {**state, "library": "lightgbm"}, {**state, "model": "text"}):
        with pytest.raises(ckptfmt.UnsupportedTypeError, match="expected the state of a booster of xgboost, found"):
            boosting.booster_from_state(wrong)
