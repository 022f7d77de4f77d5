"""What training by boosting has in common in XGBoost and LightGBM: checkpoints of a run, one for each so many trees.

A training is cut into parts of `every` trees, and each part begins from the bytes of the checkpoint before it, whether the program was
killed there or not. So a resumed training cannot differ from one that was not disturbed, sampling of rows and columns included:
what random state the library kept inside is given up at the end of each part, and seeded anew for the next one.
"""

from __future__ import annotations

from typing import Any

from ckptfmt.errors import FormatError, UnsupportedTypeError
from ckptfmt.run.run import Run


def check_count(name: str, value: Any) -> int:
    """Return a number of trees.

    Raises:
        ValueError: it is no integer of at least 1.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"{name}={value!r}: expected an integer of at least 1")
    return value


def model_of(state: Any, *, library: str) -> bytearray:
    """Return the bytes of the model that `booster_state` of a library gave.

    Raises:
        UnsupportedTypeError: the state is something else, or of another library.
    """
    found = state.get("library", "no library") if isinstance(state, dict) else type(state).__name__
    if found != library or getattr(state.get("model"), "dtype", None) != "uint8":
        raise UnsupportedTypeError(
            f"expected the state of a booster of {library}, found {found!r:.60}\n"
            f"booster_state of ckptfmt.adapters.{library} makes one; in a checkpoint of `train` it is state['booster'].",
            path="state",
        )
    return bytearray(state["model"])


def last_state(run: Run, *, library: str, total: int | None) -> tuple[int, dict[str, Any]] | None:
    """Return the newest checkpoint of a training: how many iterations it has, and its state; None where there is nothing.

    Raises:
        UnsupportedTypeError: the checkpoints of this run are of something else.
        ValueError: it has more iterations than `total`.
    """
    restored = run.restore()
    if restored is None:
        return None
    state = restored.state
    if "booster" not in state:
        raise UnsupportedTypeError(
            f"{run.path}: step {restored.step} holds {', '.join(map(repr, list(state)[:5]))}, and no booster\n"
            "A training by boosting needs a run of its own; give it another directory.",
            path="state",
        )
    model_of(state["booster"], library=library)
    training = state.get("training", {})
    if type(training) is not dict or type(training.get("history", [])) is not list:
        raise FormatError(f"{run.path}: step {restored.step}: training: expected what `train` stores")
    if total is not None and restored.step > total:
        raise ValueError(
            f"{run.path}: has {restored.step:,} iterations, and num_boost_round={total:,} is less\n"
            f"run.restore(step=...) goes back to an earlier step; there are {', '.join(map(str, run.all_steps()[-5:]))}."
        )
    return restored.step, state


def metrics_of(row: list[Any]) -> dict[str, float]:
    """Return the metrics of a checkpoint: of each evaluated data set, `data-metric`."""
    return {f"{data}-{metric}": float(value) for data, metric, value, *_ in row}
