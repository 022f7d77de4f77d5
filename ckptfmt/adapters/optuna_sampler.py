"""The state of samplers and pruners as plain data, and back into other ones of the same make. Spec 18.5.

A sampler is built by the program each time, with any seed; what moves in it is found by walking its attributes: every random
generator, and the few fields in the table below. Everything else follows from the trials. A state is a flat map from the attribute's
path to a plain value, so that a record holds only what has changed since the one before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ckptfmt.adapters.optuna_values import decode_attribute, encode_attribute
from ckptfmt.errors import CheckpointError, FormatError
from ckptfmt.format.rules import located, violation
from ckptfmt.state.numpy_random import check_state
from ckptfmt.state.places import root_place

if TYPE_CHECKING:
    from optuna.study import Study

State = dict[str, Any]
_MAX_MEMBERS = 64
_WALKED = ("optuna.samplers", "optuna.pruners", "optuna._gp")
_GP_CACHES = ("_gprs_cache_list", "_constraints_gprs_cache_list")
_GP_ARRAYS = ("inverse_squared_lengthscales", "kernel_scale", "noise_var")
# Class, attribute: fixed when the object is made or when it has seen its first trials.
_FIELDS = {
    "QMCSampler": ("_seed",),
    "SuccessiveHalvingPruner": ("_min_resource",),
    "HyperbandPruner": ("_max_resource",),
}
_SKIPPED = {"_all_grids", "_source_trials", "_search_space", "_study", *_GP_CACHES}


class SamplerWatch:
    """Takes the state of a study's sampler and pruner again and again; keeps what is long and never changes in encoded form."""

    def __init__(self) -> None:
        self._grids: tuple[Any, Any] = (None, None)

    def take(self, study: Study) -> State:
        """Return the whole state, by path."""
        state: State = {}
        for root, thing in (("sampler", study.sampler), ("pruner", study.pruner)):
            state[root] = type(thing).__name__
            for path, owner in walk(thing, root):
                self._take_object(path, owner, state)
        return state

    def take_changes(self, study: Study, before: State) -> dict[str, Any]:
        """Return what has changed since `before`, as a record has it."""
        state = self.take(study)
        changed = {path: value for path, value in state.items() if path not in before or before[path] != value}
        return {"changed": changed, "gone": [path for path in before if path not in state]}

    def _take_object(self, path: str, owner: Any, state: State) -> None:
        if _is_generator(owner):
            _take_generator(path, owner, state)
            return
        for name in _FIELDS.get(type(owner).__name__, ()):
            value = getattr(owner, name, None)
            state[f"{path}.{name}"] = value if value is None or not hasattr(value, "item") else value.item()
        if type(owner).__name__ == "HyperbandPruner":
            state[f"{path}.has_brackets"] = bool(owner._pruners)
        grids = getattr(owner, "_all_grids", None)
        if grids is not None:
            if self._grids[0] is not grids:
                self._grids = (grids, encode_attribute(list(grids), "search space of the grid"))
            state[f"{path}._all_grids"] = self._grids[1]
        for name in _GP_CACHES:
            cached = getattr(owner, name, None)
            if cached is not None:
                state[f"{path}.{name}"] = [[getattr(one, array).tolist() for array in _GP_ARRAYS] for one in cached]


def restore_sampler(study: Study, state: State, *, where: str) -> list[str]:
    """Put a state into the study's sampler and pruner; return "sampler" and "pruner" where it is of another class and was left.

    Raises:
        CorruptError: a part of the state is nothing that its object takes (E058).
    """
    left = []
    for root, thing in (("sampler", study.sampler), ("pruner", study.pruner)):
        if state.get(root) != type(thing).__name__:
            left.append(root)
            continue
        for path, owner in walk(thing, root):
            try:
                _restore_object(path, owner, state, study)
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
                if isinstance(error, FormatError):
                    raise located(error, f"{where}: state of {path}") from error
                if isinstance(error, CheckpointError):
                    raise
                raise violation("E058", where, f"state of {path} is wrong: {type(error).__name__}: {error}") from error
    return left


def walk(thing: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield each object that may hold state, with its path; an object that is shared comes once."""
    seen: set[int] = set()
    waiting = [(path, thing)]
    while waiting:
        place, owner = waiting.pop()
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        if _is_generator(owner):
            yield place, owner
        elif isinstance(owner, dict):
            if len(owner) <= _MAX_MEMBERS:
                waiting += [(f"{place}[{key!r}]", member) for key, member in owner.items()]
        elif isinstance(owner, list | tuple):
            if len(owner) <= _MAX_MEMBERS:
                waiting += [(f"{place}[{index}]", member) for index, member in enumerate(owner)]
        elif _is_walked(owner):
            yield place, owner
            waiting += [(f"{place}.{name}", member) for name, member in vars(owner).items() if name not in _SKIPPED]


def _is_walked(thing: Any) -> bool:
    if isinstance(thing, type) or not hasattr(thing, "__dict__") or callable(thing):
        return False
    if type(thing).__module__.startswith(_WALKED):
        return True
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    return isinstance(thing, BaseSampler | BasePruner)


def _is_generator(thing: Any) -> bool:
    if isinstance(thing, random.Random):
        return True
    import numpy

    return isinstance(thing, numpy.random.RandomState | numpy.random.Generator) or type(thing).__name__ == "LazyRandomState"


def _take_generator(path: str, generator: Any, state: State) -> None:
    """The words of a Mersenne twister stand apart from its position, because they change only every 624 numbers."""
    if isinstance(generator, random.Random):
        version, words, gauss = generator.getstate()
        state[f"{path}.words"] = [version, *words[:-1]]
        state[f"{path}.position"] = [words[-1], gauss]
        return
    import numpy

    if isinstance(generator, numpy.random.Generator):
        state[f"{path}.state"] = encode_attribute(_plain(generator.bit_generator.state), path)
        return
    generator = getattr(generator, "rng", generator)
    if generator.get_state(legacy=False)["bit_generator"] != "MT19937":
        # Optuna has none of these; a sampler of the application must be seeded by itself.
        return
    name, words, position, has_gauss, gauss = generator.get_state(legacy=True)
    state[f"{path}.words"] = words.astype("<u4").tobytes()
    state[f"{path}.position"] = [str(name), int(position), int(has_gauss), float(gauss)]


def _restore_generator(path: str, generator: Any, state: State) -> None:
    """Put a state into a generator. It is checked before numpy sees it, which would read beyond its own words."""
    import numpy

    if isinstance(generator, numpy.random.Generator):
        if f"{path}.state" in state:
            bits = generator.bit_generator
            found = _with_arrays(decode_attribute(state[f"{path}.state"]), bits.state)
            check_state(found, root_place(), name=type(bits).__name__)
            bits.state = found
        return
    words, position = state.get(f"{path}.words"), state.get(f"{path}.position")
    if words is None or position is None:
        return
    if isinstance(generator, random.Random):
        generator.setstate((words[0], (*words[1:], position[0]), position[1]))
        return
    name, place, has_gauss, gauss = position
    key = numpy.frombuffer(words, dtype="<u4").astype("uint32")
    members = {"bit_generator": name, "state": {"key": key, "pos": place}, "has_gauss": has_gauss, "gauss": gauss}
    check_state(members, root_place(), name="MT19937", is_legacy=True)
    getattr(generator, "rng", generator).set_state((name, key, place, has_gauss, gauss))


def _with_arrays(value: Any, like: Any) -> Any:
    """Return the state of a bit generator with arrays where `like` has them."""
    import numpy

    if isinstance(value, dict) and isinstance(like, dict):
        return {key: _with_arrays(member, like.get(key)) for key, member in value.items()}
    return numpy.array(value, dtype=like.dtype) if isinstance(like, numpy.ndarray) else value


def _restore_object(path: str, owner: Any, state: State, study: Study) -> None:
    if _is_generator(owner):
        _restore_generator(path, owner, state)
        return
    for name in (*_FIELDS.get(type(owner).__name__, ()), "_all_grids", *_GP_CACHES):
        if f"{path}.{name}" in state:
            setattr(owner, name, _DECODERS.get(name, _decode_field)(state[f"{path}.{name}"]))
    if state.get(f"{path}.has_brackets") and not owner._pruners:
        owner._try_initialization(study)


def _decode_field(value: Any) -> Any:
    if value is not None and type(value) not in (int, float, str):
        raise TypeError(f"expected a number or a text, found {type(value).__name__}")
    return value


def _decode_grids(tree: Any) -> Any:
    grids = decode_attribute(tree)
    if type(grids) is not list:
        raise TypeError(f"expected a list, found {type(grids).__name__}")
    return grids


def _decode_regressors(regressors: list[Any]) -> list[Any]:
    """Rebuild what the fit of a Gaussian process begins from: its last parameters."""
    from types import SimpleNamespace

    import torch

    return [
        SimpleNamespace(**{name: torch.tensor(value, dtype=torch.float64) for name, value in zip(_GP_ARRAYS, one, strict=True)})
        for one in regressors
    ]


def _plain(value: Any) -> Any:
    """Return the state of a bit generator with its arrays as lists."""
    if isinstance(value, dict):
        return {key: _plain(member) for key, member in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


_DECODERS: dict[str, Callable[[Any], Any]] = {"_all_grids": _decode_grids, **dict.fromkeys(_GP_CACHES, _decode_regressors)}
