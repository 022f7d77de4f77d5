"""Scikit-learn: estimators as data, by skops, which writes no pickle. What is put into a state is bytes and a list of names.

skops rebuilds objects by name when it loads, so loading asks for trust: names beyond its own list must be given by the caller, and are
never trusted because a file says so. Formats and their limits: https://skops.readthedocs.io/en/stable/persistence.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckptfmt.errors import CorruptError, UnsupportedTypeError

_FORMAT = "skops"


def estimator_state(estimator: Any) -> dict[str, Any]:
    """Return an estimator, or any object that skops knows, as a part of a state."""
    import skops.io

    data = skops.io.dumps(estimator)
    return {"format": _FORMAT, "data": data, "untrusted": sorted(skops.io.get_untrusted_types(data=data))}


def estimator_from_state(state: Mapping[str, Any], *, trusted: Sequence[str] = ()) -> Any:
    """Rebuild an estimator.

    Raises:
        UnsupportedTypeError: it holds types that skops does not trust by itself, and `trusted` does not name; all of them are listed.
        CorruptError: it is no state of an estimator.
    """
    import skops.io

    if state.get("format") != _FORMAT or not isinstance(state.get("data"), bytes):
        raise CorruptError("not the state of an estimator: expected what estimator_state() gives")
    # Asked of the bytes, not of the list beside them, which anybody could have shortened.
    missing = sorted(set(skops.io.get_untrusted_types(data=state["data"])) - set(trusted))
    if missing:
        raise UnsupportedTypeError(
            f"an estimator holds types that are not trusted by themselves: {', '.join(missing)}\n"
            f"Where you know who made it, give them: estimator_from_state(state, trusted={missing!r})."
        )
    return skops.io.loads(state["data"], trusted=list(trusted))
