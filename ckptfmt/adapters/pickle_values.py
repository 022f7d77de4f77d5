"""From what a pickle says to values that a state may hold: instances become plain data, and the whole is bounded.

Everything is rebuilt once and what is shared stays shared, so this takes time in proportion to the pickle. Encoding the result does
not: a few lists that hold each other twice would be walked for ever, hence the count of what a walk would visit. Strategy: a table of
known names first, then modules of torch, whose parameters are what people look for, then mappings with the data of the instance.
"""

from __future__ import annotations

import argparse
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import SimpleNamespace
from typing import Any

from ckptfmt.adapters.pickle_reader import Builder, Instance
from ckptfmt.errors import CorruptError, LimitError

MAX_VALUES = 50_000_000
_MAX_DEPTH = 128
_FACTORIES = {f"builtins.{kind.__name__}": kind for kind in (int, float, str, list, dict, set, bool)}
_MODULE_MEMBERS = ("_parameters", "_buffers", "_modules")

Finisher = Callable[[Instance], Any]


def _encoded(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1", "ascii", "utf-8"):
        raise ValueError(f"text is encoded as {encoding!r}")
    return text.encode(encoding)


def _bytearray(value: Any = b"", encoding: str = "latin-1") -> bytearray:
    if isinstance(value, int):
        raise TypeError("a bytearray is made from a number")
    return bytearray(_encoded(value, encoding) if isinstance(value, str) else value)


def _made_from_items(kind: type) -> Builder:
    """Return a builder of a container; a range is not taken, because ten characters of it are a billion items."""

    def build(items: Any = (), *rest: Any) -> Any:
        if not isinstance(items, (list, tuple, set, frozenset, dict, str)):
            raise TypeError(f"{kind.__name__}: expected items, found {type(items).__name__}")
        return kind(items, *rest)

    return Builder(build)


def _defaultdict(factory: Any = None, *rest: Any) -> defaultdict[Any, Any]:
    return defaultdict(factory if factory in _FACTORIES.values() else None, *rest)


def _path_type(name: str) -> type:
    """Return the class of this name, or the pure one where this machine cannot have such paths."""
    if name == type(Path()).__name__:
        return type(Path())
    return PureWindowsPath if "Windows" in name else PurePosixPath


def _kept(name: str) -> Builder:
    return Builder(lambda *arguments, **named: Instance(name, arguments, None, [], list(named.items())))


PLAIN_NAMES: dict[str, Any] = {
    **_FACTORIES,
    "builtins.object": Builder(lambda: Instance("builtins.object")),
    "builtins.complex": Builder(complex),
    "builtins.set": _made_from_items(set),
    "builtins.frozenset": _made_from_items(frozenset),
    "builtins.bytearray": Builder(_bytearray),
    "builtins.bytes": Builder(lambda value=b"", *_: bytes(_bytearray(value))),
    "builtins.slice": Builder(slice),
    "builtins.range": Builder(range),
    "builtins.xrange": Builder(range),
    "_codecs.encode": Builder(_encoded),
    "collections.OrderedDict": _made_from_items(OrderedDict),
    "collections.defaultdict": Builder(_defaultdict),
    "collections.Counter": _made_from_items(Counter),
    "collections.deque": _made_from_items(deque),
    "datetime.datetime": Builder(datetime),
    "datetime.date": Builder(date),
    "datetime.time": Builder(time),
    "datetime.timedelta": Builder(timedelta),
    "datetime.timezone": Builder(timezone),
    "decimal.Decimal": Builder(Decimal),
    "uuid.UUID": _kept("uuid.UUID"),
    "argparse.Namespace": _kept("argparse.Namespace"),
    "types.SimpleNamespace": _kept("types.SimpleNamespace"),
    **{
        f"{module}.{name}": Builder(_path_type(name))
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
    },
}
"""Names of Python's own that stand for plain data."""

PLAIN_FINISHERS: dict[str, Finisher] = {
    "uuid.UUID": lambda made: uuid.UUID(int=made.state["int"]),
    "argparse.Namespace": lambda made: argparse.Namespace(**(made.state or {})),
    "types.SimpleNamespace": lambda made: SimpleNamespace(**(made.state or {})),
}


def finish_values(value: Any, finishers: Mapping[str, Finisher], *, where: str) -> Any:
    """Return a value with its instances replaced: by `finishers`, by name, or by a mapping of what is known of them.

    Raises:
        CorruptError: a value holds itself, or a finisher cannot make sense of an instance.
        LimitError: it is nested too deeply, or a walk over it would visit more values than any checkpoint has.
    """
    walk = _Walk(finishers, where)
    try:
        finished, count = walk.finish(value, 0)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, (CorruptError, LimitError)):
            raise
        raise CorruptError(f"{where}: holds a value that is wrong: {str(error)[:200]}\nThe file is damaged.", path=where) from error
    if count > MAX_VALUES:
        raise LimitError(f"{where}: holds more than {MAX_VALUES:,} values, counting what is shared each time", path=where)
    return finished


class _Walk:
    """One walk. `_done` keeps what was rebuilt, by identity, with the number of values in it; the original is kept alive beside it."""

    def __init__(self, finishers: Mapping[str, Finisher], where: str) -> None:
        self._finishers = finishers
        self._where = where
        self._done: dict[int, tuple[Any, int, Any]] = {}
        self._open: set[int] = set()

    def finish(self, value: Any, depth: int) -> tuple[Any, int]:
        if not isinstance(value, (dict, list, tuple, set, frozenset, deque, Instance)):
            return value, 1
        key = id(value)
        if key in self._done:
            return self._done[key][:2]
        if key in self._open:
            raise CorruptError(f"{self._where}: a {type(value).__name__} holds itself", path=self._where)
        if depth > _MAX_DEPTH:
            raise LimitError(f"{self._where}: values are nested more than {_MAX_DEPTH} deep", path=self._where)
        self._open.add(key)
        finished, count = self._rebuild(value, depth + 1)
        self._open.discard(key)
        self._done[key] = (finished, count, value)
        return finished, count

    def _rebuild(self, value: Any, depth: int) -> tuple[Any, int]:
        if isinstance(value, Instance):
            return self._finish_instance(value, depth)
        if isinstance(value, dict):
            return self._finish_mapping(value, depth)
        items, count = self._all(list(value), depth)
        if isinstance(value, deque):
            return deque(items, value.maxlen), count
        # torch.Size is a tuple that holds nothing to finish.
        return (value if type(value) not in (list, tuple, set, frozenset) else type(value)(items)), count

    def _all(self, values: list[Any], depth: int) -> tuple[list[Any], int]:
        finished = [self.finish(value, depth) for value in values]
        return [value for value, _ in finished], 1 + sum(count for _, count in finished)

    def _finish_mapping(self, value: dict[Any, Any], depth: int) -> tuple[Any, int]:
        keys, key_count = self._all(list(value), depth)
        values, value_count = self._all(list(value.values()), depth)
        if isinstance(value, defaultdict):
            finished: Any = defaultdict(value.default_factory)
        else:
            finished = type(value)()
        # Not update(), which a Counter has another meaning for.
        for key, item in zip(keys, values, strict=True):
            finished[key] = item
        if (metadata := getattr(value, "_metadata", None)) is not None:
            finished._metadata = self.finish(metadata, depth)[0]
        return finished, key_count + value_count

    def _finish_instance(self, value: Instance, depth: int) -> tuple[Any, int]:
        arguments, count = self._all(list(value.arguments), depth)
        state, state_count = self.finish(value.state, depth)
        items, item_count = self._all(value.items, depth)
        members, member_count = self._finish_mapping(dict(value.members), depth)
        made = Instance(value.name, tuple(arguments), state, items, list(members.items()))
        finisher = self._finishers.get(value.name, as_data)
        return finisher(made), count + state_count + item_count + member_count


def as_data(made: Instance) -> Any:
    """Return what is known of an object as a mapping; of a module of torch its `state_dict()`."""
    state = made.state
    if isinstance(state, dict) and all(isinstance(state.get(name), dict) for name in _MODULE_MEMBERS):
        return _module_state(state)
    parts: dict[Any, Any] = {"__class__": made.name}
    if made.arguments:
        parts["__arguments__"] = list(made.arguments)
    if made.items:
        parts["__items__"] = made.items
    parts.update(made.members)
    if isinstance(state, dict):
        parts.update(state)
    elif state is not None:
        parts["__state__"] = state
    return parts


def _module_state(state: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """Return parameters and persistent buffers of a module by their names; inner modules are state_dicts already."""
    left_out = state.get("_non_persistent_buffers_set") or ()
    found: OrderedDict[str, Any] = OrderedDict()
    found.update({name: tensor for name, tensor in state["_parameters"].items() if tensor is not None})
    found.update({name: tensor for name, tensor in state["_buffers"].items() if tensor is not None and name not in left_out})
    for name, inner in state["_modules"].items():
        if isinstance(inner, dict):
            found.update({f"{name}.{below}": tensor for below, tensor in inner.items()})
    return found
