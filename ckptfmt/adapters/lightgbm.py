"""LightGBM: boosters as data, and training that goes on from its last checkpoint.

    from ckptfmt.adapters import lightgbm as boosting

    with ckptfmt.Run("runs/trees") as run:
        booster = boosting.train(run, params, train_set, 300, every=100, valid_sets=[valid_set])

The same lines, started again, go on from the last multiple of 100 iterations, and skip the training when it is done. A model is stored as
LightGBM's own text, and LightGBM parses it: a model from a stranger is as safe as its parser.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.boosting import check_count, last_state, metrics_of, model_of
from ckptfmt.run.run import Run
from ckptfmt.state.boosters import LIGHTGBM, lightgbm_state

if TYPE_CHECKING:
    from lightgbm import Booster, Dataset

_SEED_NAMES = ("seed", "random_seed", "random_state")
# What is drawn while training, with its names. What is drawn to make the bins of a Dataset has to stay the same.
_TRAINING_SEEDS = (
    ("bagging_seed", "bagging_fraction_seed"),
    ("feature_fraction_seed",),
    ("extra_seed",),
    ("objective_seed",),
)
_BOOSTING_NAMES = ("boosting", "boosting_type", "boost")
_EARLY_STOPPING_NAMES = ("early_stopping_round", "early_stopping_rounds", "early_stopping", "n_iter_no_change")


def booster_state(model: Any) -> dict[str, Any]:
    """Return a Booster, or what a model of LightGBM's scikit-learn interface has trained, as a state of plain data.

    A Booster may also be put into a state as it is: `ckptfmt.save(path, {"trees": booster})`.
    """
    return lightgbm_state(getattr(model, "booster_", model))


def booster_from_state(state: Any) -> Booster:
    """Return the Booster that a state was made from: it predicts the same, and can be trained further.

    Raises:
        UnsupportedTypeError: the state is none of `booster_state`.
    """
    import lightgbm

    booster = lightgbm.Booster(model_str=model_of(state, library=LIGHTGBM).decode())
    booster.best_iteration = state["best_iteration"]
    booster.best_score = state["best_score"]
    return booster


def checkpoint_callback(run: Run, *, every: int = 100) -> Callable[[Any], None]:
    """Return a callback for `lightgbm.train`, or for the scikit-learn interface, that saves every so many iterations and the last one.

    `resume` gives the booster to go on from. Trees come out as without a kill where nothing is drawn at random; with bagging,
    feature_fraction and the like they differ, because LightGBM does not give its random state away: there `train` is the choice.
    """
    check_count("every", every)

    def save(env: Any) -> None:
        done = env.iteration + 1
        if done % every == 0 or done == env.end_iteration:
            run.save(done, {"booster": env.model}, metrics=metrics_of(_row_of(env.evaluation_result_list)))

    # Before early stopping, which ends an iteration by an exception.
    save.order = 25  # type: ignore[attr-defined]
    save.before_iteration = False  # type: ignore[attr-defined]
    return save


def resume(run: Run) -> Booster | None:
    """Return the booster of the run's newest checkpoint, for `init_model=`; None where there is nothing.

    `booster.current_iteration()` iterations are done; `lightgbm.train` takes the number of those that are left.
    """
    found = last_state(run, library=LIGHTGBM, total=None)
    return None if found is None else booster_from_state(found[1]["booster"])


def train(
    run: Run,
    params: Mapping[str, Any],
    train_set: Dataset,
    num_boost_round: int = 100,
    *,
    every: int = 100,
    valid_sets: Sequence[Dataset] = (),
    valid_names: Sequence[str] | None = None,
    feval: Any = None,
    callbacks: Sequence[Callable[[Any], None]] = (),
) -> Booster:
    """Train as `lightgbm.train` does, saving every so many iterations, and go on from the last checkpoint. The number is a total.

    A training that was killed gives the model of one that was not, with whatever is sampled; without sampling its trees are also those of
    `lightgbm.train` (set deterministic=True and force_row_wise=True). For that training begins anew after each checkpoint, which costs a
    prediction of the training data, and draws with the seeds plus the number of iterations; so a smaller `every` gives other trees where
    anything is sampled. Early stopping, recorded evaluations and changing parameters go on.

    Data sets are made with `free_raw_data=False`, because the model so far has to predict them.

    Raises:
        ValueError: the run has more iterations than `num_boost_round`, or LightGBM cannot train further with these parameters or data.
        UnsupportedTypeError: the run holds something else.
    """
    import lightgbm

    check_count("every", every)
    total = check_count("num_boost_round", num_boost_round)
    _check_parameters(params, [train_set, *valid_sets])
    found = last_state(run, library=LIGHTGBM, total=total)
    done, state = (0, None) if found is None else found
    training = {} if state is None else state.get("training", {})
    history: list[Any] = list(training.get("history", []))
    watchers = _Watchers([*callbacks, *_stoppers(params)], total)
    is_stopped = bool(training.get("is_stopped", False))
    booster = None if state is None else booster_from_state(state["booster"])
    if booster is not None:
        if train_set in valid_sets and valid_names is not None:
            # Early stopping leaves out the data that is trained on.
            booster.set_train_data_name(valid_names[list(valid_sets).index(train_set)])
        is_stopped |= watchers.replay(history, params, booster)
    # Otherwise LightGBM drops what comes after the best iteration.
    options: dict[str, Any] = {"feval": feval, "keep_training_booster": True}
    if valid_sets:
        options |= {"valid_sets": list(valid_sets), "valid_names": valid_names}
    try:
        while done < total and not is_stopped:
            last = min(total, done - done % every + every)
            part = _parameters_after(params, done)
            collected: list[Any] = []
            wrapped = watchers.wrapped(collected)
            booster = lightgbm.train(part, train_set, last - done, init_model=booster, callbacks=wrapped, **options)
            history += collected
            # LightGBM ends early when there is nothing left to split.
            is_stopped = watchers.is_stopped or booster.current_iteration() < last
            done = booster.current_iteration()
            # At the last iteration early stopping always speaks up; it may go on with a larger total.
            is_over = is_stopped and done < total
            state = {"booster": booster_state(booster), "training": {"history": history, "is_stopped": is_over}}
            if done not in run.all_steps():
                run.save(done, state, metrics=metrics_of(history[-1]) if history else {})
            booster = booster_from_state(state["booster"])
    finally:
        _forget_model([train_set, *valid_sets])
    if booster is None:
        raise ValueError("nothing was trained: the first iteration was stopped by a callback")
    # As LightGBM does it: what comes after the best iteration is in the checkpoint, and not in what is returned.
    return booster.model_from_string(booster.model_to_string())


def _check_parameters(params: Mapping[str, Any], data_sets: list[Dataset]) -> None:
    boosting = next((params[name] for name in _BOOSTING_NAMES if name in params), "gbdt")
    if boosting in ("dart", "rf", "random_forest"):
        raise ValueError(
            f"boosting={boosting!r}: LightGBM cannot go on with it as it began: the trees so far are only predictions to it\n"
            "Train in one go, or use boosting='gbdt'."
        )
    for data_set in data_sets:
        if data_set.free_raw_data:
            raise ValueError("lightgbm.Dataset: make it with free_raw_data=False: to train further, the model so far has to predict it")
        if data_set.init_score is not None:
            raise ValueError("lightgbm.Dataset: has an init_score, which the model so far would replace; train without it")


def _parameters_after(params: Mapping[str, Any], done: int) -> dict[str, Any]:
    """Return the parameters of a part: other seeds after each checkpoint, or every part would draw what the first one drew."""
    part = {name: value for name, value in params.items() if name not in _EARLY_STOPPING_NAMES}
    if done:
        general = next((params[name] for name in _SEED_NAMES if name in params), 0)
        for names in _TRAINING_SEEDS:
            given = next((part.pop(name) for name in names if name in part), general)
            part[names[0]] = int(given or 0) + done
    return part


def _stoppers(params: Mapping[str, Any]) -> list[Callable[[Any], None]]:
    """Return the early stopping that the parameters ask for; left to LightGBM, it would begin anew with each part."""
    import lightgbm

    rounds = next((params[name] for name in _EARLY_STOPPING_NAMES if params.get(name)), 0)
    if rounds <= 0:
        return []
    is_first_only, min_delta = bool(params.get("first_metric_only", False)), params.get("early_stopping_min_delta", 0.0)
    return [lightgbm.early_stopping(rounds, first_metric_only=is_first_only, verbose=False, min_delta=min_delta)]


def _forget_model(data_sets: list[Dataset]) -> None:
    """Take the predictions of the model so far out of the data sets: another training with them begins from nothing."""
    for data_set in data_sets:
        if data_set.init_score is not None:
            data_set.set_init_score(None)
            data_set.set_field("init_score", None)


class _Watchers:
    """Callbacks that are to see one training where there are several parts."""

    def __init__(self, callbacks: list[Callable[[Any], None]], total: int) -> None:
        self._callbacks = callbacks
        self._total = total
        self.is_stopped = False

    def wrapped(self, collected: list[Any]) -> list[Callable[[Any], None]]:
        """Return callbacks for one part; it adds a row for each iteration to `collected`."""

        def collect(env: Any) -> None:
            collected.append(_row_of(env.evaluation_result_list))

        # Before everybody else: early stopping ends an iteration by an exception.
        collect.order = -1_000_000  # type: ignore[attr-defined]
        collect.before_iteration = False  # type: ignore[attr-defined]
        return [collect, *(self._wrap(callback, number) for number, callback in enumerate(self._callbacks))]

    def _wrap(self, callback: Callable[[Any], None], number: int) -> Callable[[Any], None]:
        import lightgbm

        def wrapped(env: Any) -> None:
            try:
                callback(replace(env, begin_iteration=0, end_iteration=self._total))
            except lightgbm.callback.EarlyStopException:
                self.is_stopped = True
                raise

        wrapped.order = getattr(callback, "order", number - len(self._callbacks))  # type: ignore[attr-defined]
        wrapped.before_iteration = getattr(callback, "before_iteration", False)  # type: ignore[attr-defined]
        return wrapped

    def replay(self, rows: list[Any], params: Mapping[str, Any], booster: Booster) -> bool:
        """Tell early stopping and recorded evaluations what they have seen; return whether that is enough to stop."""
        import lightgbm

        kinds = (type(lightgbm.early_stopping(1, verbose=False)), type(lightgbm.record_evaluation({})))
        seers: list[Any] = [callback for callback in self._callbacks if isinstance(callback, kinds)]
        seers.sort(key=lambda callback: callback.order)
        for iteration, row in enumerate(rows if seers else []):
            results = [lightgbm.EvalResult(*entry) for entry in row]
            env = lightgbm.callback.CallbackEnv(booster, dict(params), iteration, 0, self._total, results)
            for callback in seers:
                try:
                    callback(env)
                except lightgbm.callback.EarlyStopException:
                    return True
        return False


def _row_of(results: Any) -> list[Any]:
    """Return the values of one iteration: `[data, metric, value, whether more is better]`."""
    return [[one[0], one[1], float(one[2]), bool(one[3])] for one in results or []]
