"""Values of Optuna as plain data and back: attributes, distributions, trials. Spec 18.2.

Parameters are stored as Optuna stores them in a database, by their internal representation, so that the choices 1, True and 1.0 stay
apart. What would not come back equal is refused, and the error names the attribute.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ckptfmt.errors import UnsupportedTypeError
from ckptfmt.state.encode_walk import END_INTEGER, MIN_INTEGER
from ckptfmt.state.tree import decode_state, encode_state

if TYPE_CHECKING:
    from collections.abc import Callable

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

_PLAIN = frozenset({type(None), bool, float, bytes})
_CHOICES = (type(None), bool, int, float, str)
_DISTRIBUTIONS_KEPT = 4096


def encode_attribute(value: Any, what: str) -> Any:
    """Encode the value of an attribute as spec 8 encodes a state without tensors.

    Raises:
        UnsupportedTypeError: it holds an array or an object; the message begins with `what`.
    """
    kind = type(value)
    if kind in _PLAIN or (kind is str and value.isascii()) or (kind is int and MIN_INTEGER <= value < END_INTEGER):
        return value
    try:
        state = encode_state(value)
    except UnsupportedTypeError as error:
        raise UnsupportedTypeError(f"{what}: {error}", path=error.path) from None
    if state.tensors:
        advice = "Save arrays as a checkpoint, and keep its path in the attribute."
        raise UnsupportedTypeError(f"{what}: an attribute of a study holds plain data, found an array or tensor\n{advice}")
    return state.tree


def decode_attribute(tree: Any) -> Any:
    """Rebuild the value of an attribute."""
    if type(tree) in (dict, list):
        return decode_state(tree, _no_tensor)
    return tree


def encode_distribution(distribution: BaseDistribution, name: str) -> str:
    """Encode a distribution as Optuna's own JSON.

    Raises:
        UnsupportedTypeError: a choice is not None, bool, int, float or str, which that JSON would change.
    """
    from optuna.distributions import distribution_to_json

    for choice in getattr(distribution, "choices", ()):
        if type(choice) not in _CHOICES:
            message = f"parameter {name!r}: a choice of type {type(choice).__name__} is not stored: expected None, bool, int, float or str"
            raise UnsupportedTypeError(f"{message}\nSuggest the name of the choice, and look the object up by it.")
    return str(distribution_to_json(distribution))


def decode_distribution(text: str) -> BaseDistribution:
    """Rebuild a distribution; equal texts share one object, which nobody changes."""
    return _distribution_decoder()(text)


@lru_cache(maxsize=1)
def _distribution_decoder() -> Callable[[str], BaseDistribution]:
    from optuna.distributions import json_to_distribution

    return lru_cache(maxsize=_DISTRIBUTIONS_KEPT)(json_to_distribution)


def encode_time(moment: datetime | None) -> str | None:
    """Encode a moment; Optuna's are naive, in local time, and stay so."""
    return None if moment is None else moment.isoformat()


def decode_time(text: str | None) -> datetime | None:
    """Rebuild a moment."""
    return None if text is None else datetime.fromisoformat(text)


def encode_trial(trial: FrozenTrial) -> dict[str, Any]:
    """Encode a whole trial, but for its number and id."""
    parameters = []
    for name, value in trial.params.items():
        distribution = trial.distributions[name]
        parameters.append([name, _stored_value(distribution, value), encode_distribution(distribution, name)])
    return {
        "state": int(trial.state),
        "values": None if trial.values is None else [float(value) for value in trial.values],
        "started_at": encode_time(trial.datetime_start),
        "finished_at": encode_time(trial.datetime_complete),
        "params": parameters,
        "user_attrs": {key: encode_attribute(value, f"user attribute {key!r}") for key, value in trial.user_attrs.items()},
        "system_attrs": {key: encode_attribute(value, f"system attribute {key!r}") for key, value in trial.system_attrs.items()},
        "intermediate": [[int(step), float(value)] for step, value in trial.intermediate_values.items()],
    }


def _stored_value(distribution: BaseDistribution, value: Any) -> Any:
    """Return the value of a parameter as it is stored; Optuna itself takes the choices 1, True and 1.0 for one another."""
    for index, choice in enumerate(getattr(distribution, "choices", ())):
        if type(choice) is type(value) and choice == value:
            return index
    return distribution.to_internal_repr(value)


def decode_trial(record: dict[str, Any], *, number: int, trial_id: int) -> FrozenTrial:
    """Rebuild a trial."""
    from optuna.trial import FrozenTrial, TrialState

    distributions = {name: decode_distribution(text) for name, _, text in record["params"]}
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState(record["state"]),
        value=None,
        values=record["values"],
        datetime_start=decode_time(record["started_at"]),
        datetime_complete=decode_time(record["finished_at"]),
        params={name: distributions[name].to_external_repr(value) for name, value, _ in record["params"]},
        distributions=distributions,
        user_attrs={key: decode_attribute(value) for key, value in record["user_attrs"].items()},
        system_attrs={key: decode_attribute(value) for key, value in record["system_attrs"].items()},
        intermediate_values=dict(record["intermediate"]),
    )


def _no_tensor(_: int) -> Any:
    raise LookupError


def check_study(study: Any) -> None:
    """Refuse what is no study of Optuna.

    Raises:
        TypeError: it is something else.
    """
    import optuna

    if not isinstance(study, optuna.Study):
        raise TypeError(f"study={study!r:.60}: expected an optuna.Study, found {type(study).__name__}")
