"""A pickled study, read without running it: `pickle_reader` follows the instructions, and here the trials are picked out.

The names that such a pickle may import are those of Optuna, of numpy's arrays and generators, and of plain values. They stand for
themselves: nothing of them is imported, made or called. Everything else is refused, all of it listed; then the study can be saved by
the program that made it, with `ckptfmt.save_study`. Sampler and pruner are left out: they are built by the program anyway.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ckptfmt.adapters.joblib_file import JOBLIB_NAMES, decompress, take_array
from ckptfmt.adapters.numpy_pickles import NUMPY_FINISHERS, NUMPY_NAMES
from ckptfmt.adapters.optuna_foreign import ForeignStudy, ForeignTrial, choose_name, distribution_text
from ckptfmt.adapters.pickle_reader import Builder, Instance, read_pickle
from ckptfmt.adapters.pickle_values import PLAIN_FINISHERS, PLAIN_NAMES, finish_values
from ckptfmt.disk.foreign_file import map_file, open_memory
from ckptfmt.errors import CheckpointError, CorruptError, UnsupportedTypeError
from ckptfmt.run.study_records import CHOICE_TYPES, find_domain

_OPTUNA = "optuna."
# Of these all names stand for themselves: samplers, pruners and the generators in them are passed over.
_INERT_PREFIXES = (_OPTUNA, "numpy.random.")
_FINISHERS = {**PLAIN_FINISHERS, **NUMPY_FINISHERS}
_INERT = (
    "builtins.tuple",
    # The parameters of Gaussian processes, which are left out.
    "torch._utils._rebuild_tensor_v2",
    "torch.storage._load_from_bytes",
)


class _Names(dict[str, Any]):
    """The table of names; all of Optuna's and of numpy's generators are in it."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(_INERT_PREFIXES))

    def __missing__(self, name: str) -> Builder:
        return _inert(name)


def _inert(name: str) -> Builder:
    return Builder(lambda *arguments, **named: Instance(name, arguments, None, [], list(named.items())))


def _reconstructed(kind: Any, *_: Any) -> Any:
    if not isinstance(kind, Builder):
        raise TypeError("an object of no class")
    return kind.build()


def read_pickled_study(path: str, name: str | None) -> ForeignStudy:
    """Read a study from what `pickle.dump(study, file)` or `joblib.dump(study, path)` wrote, running nothing of it.

    Raises:
        UnsupportedTypeError: it asks for other names, all of them listed; or its trials are elsewhere.
        CorruptError: it is no pickle, or of no study.
        NameNotFoundError: it is of another study.
    """
    names = _Names({**PLAIN_NAMES, **NUMPY_NAMES, **JOBLIB_NAMES, **{name: _inert(name) for name in _INERT}})
    names["copyreg._reconstructor"] = Builder(_reconstructed)
    try:
        made = read_pickle(open_memory(decompress(map_file(path), where=path)), names, where=path, replaced=take_array)
    except UnsupportedTypeError as error:
        first = str(error).partition("\n")[0]
        advice = "Nothing was imported or run. Load it where these are known, and save it with ckptfmt.save_study(path, study)."
        raise UnsupportedTypeError(f"{first}\n{advice}", path=path) from None
    try:
        return _study_of(made, name, path)
    except CheckpointError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise CorruptError(
            f"{path}: not a study of Optuna as it is known here: {type(error).__name__}: {error}"[:400], path=path
        ) from error


def _study_of(made: Any, name: str | None, path: str) -> ForeignStudy:
    if not _is_a(made, "Study"):
        found = made.name if isinstance(made, Instance) else type(made).__name__
        raise CorruptError(f"{path}: not a pickled study: expected optuna.study.Study, found {found}", path=path)
    study_id, storage = made.state["_study_id"], made.state["_storage"]
    if not _is_a(storage, "InMemoryStorage"):
        raise _elsewhere(storage, path)
    info = storage.state["_studies"][study_id].state
    choose_name([info["name"]], name, path)
    finish = partial(finish_values, finishers=_FINISHERS, where=path)
    trials = [_trial_of(trial, finish, f"{path}: trial {number}") for number, trial in enumerate(info["trials"])]
    directions = [_number_of(direction) for direction in info["directions"]]
    user, system = (_attributes(info[f"{kind}_attrs"], finish, f"{path}: {kind} attribute") for kind in ("user", "system"))
    return ForeignStudy(info["name"], directions, user, system, trials)


def _elsewhere(storage: Any, path: str) -> UnsupportedTypeError:
    """A pickle of a study in a database holds no trials, only where they are."""
    name = storage.name if isinstance(storage, Instance) else type(storage).__name__
    state = storage.state if isinstance(storage, Instance) and isinstance(storage.state, dict) else {}
    backend = state.get("_backend")
    inner = backend.state if isinstance(backend, Instance) and isinstance(backend.state, dict) else {}
    place = inner.get("url") or inner.get("_file_path") or state.get("url")
    advice = f"They are in {place}: convert that." if isinstance(place, str) else "Convert the file of that storage."
    return UnsupportedTypeError(f"{path}: this pickle holds no trials: the study was in a {name.rpartition('.')[2]}\n{advice}", path=path)


def _trial_of(made: Any, finish: Any, where: str) -> ForeignTrial:
    if not _is_a(made, "FrozenTrial"):
        raise CorruptError(f"{where}: is none", path=where)
    state: Mapping[str, Any] = made.state
    distributions = {name: _distribution_of(one, f"{where}: parameter {name!r}") for name, one in state["_distributions"].items()}
    values = state["_values"]
    members = {
        "state": _number_of(state["state"]),
        "values": None if values is None else [float(value) for value in finish(values)],
        "started_at": _moment(state["_datetime_start"]),
        "finished_at": _moment(state["datetime_complete"]),
        "params": [[name, _stored(value, distributions[name]), distributions[name]] for name, value in finish(state["_params"]).items()],
        "user_attrs": _attributes(state["_user_attrs"], finish, f"{where}: user attribute"),
        "system_attrs": _attributes(state["_system_attrs"], finish, f"{where}: system attribute"),
        "intermediate": [[int(step), float(value)] for step, value in finish(state["intermediate_values"]).items()],
    }
    return ForeignTrial(state["_trial_id"], members)


def _attributes(attributes: Any, finish: Any, what: str) -> dict[str, Any]:
    """Return attributes as they were; an object that is no plain data is refused by its key."""
    found = {}
    for key, value in attributes.items():
        name = _find_object(value)
        if name is not None:
            raise UnsupportedTypeError(f"{what} {key!r}: expected plain data, found an object of {name}", path=str(key))
        found[key] = finish(value)
    return found


def _find_object(value: Any) -> str | None:
    """Return the name of an object somewhere in a value for which nothing plain stands, None where there is none."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Instance):
            if one.name not in _FINISHERS:
                return one.name
            waiting += [one.arguments, one.state, one.items, one.members]
        elif isinstance(one, Builder):
            return "a name"
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            waiting += one
    return None


def _is_a(made: Any, name: str) -> bool:
    is_named = isinstance(made, Instance) and made.name.startswith(_OPTUNA) and made.name.rpartition(".")[2] == name
    return is_named and isinstance(made.state, dict)


def _number_of(made: Any) -> int:
    """Return the number of a state or direction, which a pickle makes from it."""
    (number,) = made.arguments
    if type(number) is not int:
        raise TypeError(f"{made.name} of {number!r}")
    return number


def _moment(value: Any) -> str | None:
    if value is not None and type(value) is not datetime:
        raise TypeError(f"a moment of type {type(value).__name__}")
    return None if value is None else value.isoformat()


def _distribution_of(made: Any, where: str) -> str:
    """Return a distribution as Optuna's JSON of it."""
    attributes = {name.lstrip("_"): value for name, value in made.state.items()}
    choices = attributes.get("choices", ())
    if any(type(choice) not in CHOICE_TYPES for choice in choices):
        raise UnsupportedTypeError(f"{where}: a choice is not stored: expected None, bool, int, float or str, found {choices!r:.100}")
    return distribution_text(json.dumps({"name": made.name.rpartition(".")[2], "attributes": attributes}))


def _stored(value: Any, text: str) -> Any:
    """Return a parameter's value as it is stored: of a categorical the index of the choice."""
    domain = find_domain(text)
    if domain is None:
        raise TypeError(f"a distribution {text[:80]}")
    if domain.kind != "categorical":
        return float(value)
    for index, choice in enumerate(domain.choices):
        if type(choice) is type(value) and (choice == value or (choice != choice and value != value)):
            return index
    raise ValueError(f"{value!r} is none of the choices {domain.choices!r}"[:200])
