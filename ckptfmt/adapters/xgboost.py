"""XGBoost: boosters as data, and training that goes on from its last checkpoint.

    from ckptfmt.adapters import xgboost as boosting

    with ckptfmt.Run("runs/trees") as run:
        booster = boosting.train(run, params, dtrain, 300, every=100, evals=[(dvalid, "valid")])

The same lines, started again, go on from the last multiple of 100 trees, and skip the training when it is done. A model is stored as
XGBoost's own UBJSON, and XGBoost parses it: a model from a stranger is as safe as its parser.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.boosting import check_count, last_state, metrics_of, model_of
from ckptfmt.run.run import Run
from ckptfmt.state.boosters import XGBOOST, xgboost_state

if TYPE_CHECKING:
    from xgboost import Booster, DMatrix
    from xgboost.callback import TrainingCallback

_SEED_NAMES = ("seed", "random_state")


def booster_state(model: Any) -> dict[str, Any]:
    """Return a Booster, or what a model of XGBoost's scikit-learn interface has trained, as a state of plain data.

    A Booster may also be put into a state as it is: `ckptfmt.save(path, {"trees": booster})`.
    """
    return xgboost_state(model.get_booster() if hasattr(model, "get_booster") else model)


def booster_from_state(state: Any) -> Booster:
    """Return the Booster that a state was made from: it predicts the same, and can be trained further.

    Raises:
        UnsupportedTypeError: the state is none of `booster_state`.
    """
    import xgboost

    booster = xgboost.Booster(model_file=model_of(state, library=XGBOOST))
    # The model predicts without its parameters, and XGBoost promises nothing about those of other versions.
    if _version_of(state["config"]) == _version_of(booster.save_config()):
        booster.load_config(state["config"])
    return booster


def _version_of(config: str) -> Any:
    return json.loads(config).get("version")


def checkpoint_callback(run: Run, *, every: int = 100) -> TrainingCallback:
    """Return a callback for `xgboost.train`, or for the scikit-learn interface, that saves every so many trees and the last one.

    `resume` gives the booster to go on from. Trees come out as without a kill where nothing is drawn at random; with subsample,
    colsample_* or dart they differ, because XGBoost does not give its random state away: there `train` is the choice.
    """
    import xgboost

    check_count("every", every)

    class Checkpoints(xgboost.callback.TrainingCallback):
        def __init__(self) -> None:
            super().__init__()
            self.metrics: dict[str, float] = {}

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            del epoch
            self.metrics = metrics_of(_row_of(evals_log))
            if model.num_boosted_rounds() % every == 0:
                self.save(model)
            return False

        def after_training(self, model: Any) -> Any:
            if model.num_boosted_rounds() not in run.all_steps():
                self.save(model)
            return model

        def save(self, model: Any) -> None:
            run.save(model.num_boosted_rounds(), {"booster": model}, metrics=self.metrics)

    return Checkpoints()


def resume(run: Run) -> Booster | None:
    """Return the booster of the run's newest checkpoint, for `xgb_model=`; None where there is nothing.

    `booster.num_boosted_rounds()` trees are done; `xgboost.train` takes the number of those that are left.
    """
    found = last_state(run, library=XGBOOST, total=None)
    return None if found is None else booster_from_state(found[1]["booster"])


def train(
    run: Run,
    params: Mapping[str, Any] | Sequence[tuple[str, Any]],
    dtrain: DMatrix,
    num_boost_round: int,
    *,
    every: int = 100,
    evals: Sequence[tuple[DMatrix, str]] = (),
    obj: Any = None,
    custom_metric: Any = None,
    maximize: bool | None = None,
    early_stopping_rounds: int | None = None,
    evals_result: dict[str, Any] | None = None,
    verbose_eval: bool | int = False,
    callbacks: Sequence[TrainingCallback] = (),
) -> Booster:
    """Train as `xgboost.train` does, saving every so many trees, and go on from the last checkpoint. The number of trees is a total.

    A training that was killed gives the bytes of one that was not, with whatever is sampled and with dart; without sampling also those
    of `xgboost.train`. For that the booster is made anew after each checkpoint, which costs a prediction of the training data, and seeded
    with `seed` plus the number of trees; so a smaller `every` gives other trees where rows or columns are sampled. Early stopping and
    learning rates go on; parameters that a callback of another kind sets last until the next checkpoint.

    Raises:
        ValueError: the run has more trees than `num_boost_round`.
        UnsupportedTypeError: the run holds something else.
    """
    import xgboost

    check_count("every", every)
    total = check_count("num_boost_round", num_boost_round)
    found = last_state(run, library=XGBOOST, total=total)
    training = _Training(params, [dtrain, *(data for data, _ in evals)])
    done, state = (0, None) if found is None else found
    past = [] if state is None else state.get("training", {}).get("history", [])
    is_stopped = state is not None and bool(state.get("training", {}).get("is_stopped", False))

    watchers = list(callbacks)
    if verbose_eval:
        watchers.append(xgboost.callback.EvaluationMonitor(period=int(verbose_eval)))
    if early_stopping_rounds:
        watchers.append(xgboost.callback.EarlyStopping(rounds=early_stopping_rounds, maximize=maximize))
    container: Any = xgboost.callback.CallbackContainer(watchers, metric=custom_metric, output_margin=callable(obj))
    booster: Booster = container.before_training(training.booster(state, done))
    _replay(container, booster, past)

    history = list(past)
    while done < total and not is_stopped:
        _set_learning_rate(container, booster, done)
        last = min(total, done - done % every + every)
        while done < last and not is_stopped:
            is_stopped = container.before_iteration(booster, done, dtrain, evals)
            if not is_stopped:
                booster.update(dtrain, iteration=done, fobj=obj)
                is_stopped = container.after_iteration(booster, done, dtrain, evals)
                history.append(_row_of(container.history))
                done += 1
        if done not in run.all_steps():
            state = {"booster": booster_state(booster), "training": {"history": history, "is_stopped": is_stopped}}
            run.save(done, state, metrics=metrics_of(history[-1]) if history else {})
        booster = training.booster(state, done)
    booster = container.after_training(booster)
    if evals_result is not None:
        evals_result.update(container.history)
    return booster.reset()


class _Training:
    """What stays the same from part to part."""

    def __init__(self, params: Mapping[str, Any] | Sequence[tuple[str, Any]], matrices: list[DMatrix]) -> None:
        self._is_mapping = isinstance(params, Mapping)
        pairs = list(params.items()) if isinstance(params, Mapping) else list(params)
        self._seed = next((int(value) for name, value in pairs if name in _SEED_NAMES), 0)
        self._pairs = [(name, value) for name, value in pairs if name not in _SEED_NAMES]
        self._matrices = matrices

    def booster(self, state: dict[str, Any] | None, done: int) -> Booster:
        """Return the booster that goes on after `done` trees."""
        import xgboost

        model = None if state is None else model_of(state["booster"], library=XGBOOST)
        pairs = [*self._pairs, ("seed", self._seed + done)]
        # Of a mapping XGBoost takes several metrics under one name, of pairs one name several times.
        return xgboost.Booster(dict(pairs) if self._is_mapping else pairs, self._matrices, model_file=model)


def _row_of(history: Mapping[str, Mapping[str, Sequence[float]]]) -> list[Any]:
    """Return the newest value of each metric: `[data, metric, value]`."""
    return [[data, metric, float(values[-1])] for data, metrics in history.items() for metric, values in metrics.items()]


def _replay(container: Any, booster: Booster, rows: list[Any]) -> None:
    """Tell early stopping what it has seen: the scores of the past decide when to stop."""
    import xgboost

    stoppers = [callback for callback in container.callbacks if isinstance(callback, xgboost.callback.EarlyStopping)]
    for stopper in stoppers:
        # Iterations are counted from the first tree here.
        stopper.starting_round = 0
    for epoch, row in enumerate(rows):
        for data, metric, value in row:
            container.history.setdefault(data, {}).setdefault(metric, []).append(value)
        for stopper in stoppers if row else []:
            stopper.after_iteration(booster, epoch, container.history)


def _set_learning_rate(container: Any, booster: Booster, done: int) -> None:
    """Set the rate that a schedule has set after the tree before, because a new booster begins with that of the parameters."""
    import xgboost

    for callback in container.callbacks if done else []:
        if isinstance(callback, xgboost.callback.LearningRateScheduler):
            callback.after_iteration(booster, done - 1, container.history)
