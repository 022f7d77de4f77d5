"""Application types, registered by the application itself under a name, on both sides. Spec 8, `$registered`.

A name in a checkpoint is looked up in this table and nowhere else. Named tuples, dataclasses and enums need no functions:
they are kept by their fields or members.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ckptfmt.errors import CheckpointError
from ckptfmt.state.decode_walk import DecodeWalk, Later, check_items
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.places import Place, refuse, wrong

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


class Codec(NamedTuple):
    """How values of one class become plain values and back."""

    cls: type
    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]


_by_class: dict[type, Codec] = {}
_by_name: dict[str, Codec] = {}


def register_codec(
    cls: type,
    *,
    name: str,
    encode: Callable[[Any], Any] | None = None,
    decode: Callable[[Any], Any] | None = None,
) -> None:
    """Have values of exactly this class stored under a name.

    `encode(value)` gives a state of plain values and tensors, `decode(state)` gives the value back. Both may be left out for
    named tuples, dataclasses and enums. A class may have several names, for reading what was stored under older
    ones; the latest is written.

    Raises:
        ValueError: the name is malformed or belongs to another class, or the class needs functions.
    """
    if not isinstance(cls, type):
        raise TypeError(f"register_codec: expected a class, found {cls!r}")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"register_codec: name {name!r}: expected 1 to 100 letters, digits, dots, hyphens or underscores")
    taken = _by_name.get(name)
    if taken is not None and taken.cls is not cls:
        raise ValueError(f"register_codec: name {name!r} belongs to {taken.cls.__module__}.{taken.cls.__qualname__}")
    if (encode is None) != (decode is None):
        raise ValueError("register_codec: encode and decode belong together: give both or neither")
    codec = _default_codec(cls, name) if encode is None or decode is None else Codec(cls, name, encode, decode)
    _by_name[name] = _by_class[cls] = codec


def find_codec(cls: type) -> Codec | None:
    """Return the codec of a class, None if it is not registered."""
    return _by_class.get(cls)


def has_default_codec(cls: type) -> bool:
    """Tell whether a class could be registered without functions."""
    is_named_tuple = issubclass(cls, tuple) and hasattr(cls, "_fields") and hasattr(cls, "_make")
    return is_named_tuple or issubclass(cls, enum.Enum) or dataclasses.is_dataclass(cls)


def encode_registered(walk: EncodeWalk, value: Any, place: Place) -> dict[str, Any]:
    """Encode a value of a registered class."""
    codec = _by_class[type(value)]
    return {"$registered": walk.content(codec.encode(value), place, codec.name)}


def decode_registered(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a value of a registered class."""
    name, node = check_items(payload, 2, place)
    if type(name) is not str or _NAME.fullmatch(name) is None:
        raise wrong(place, "name of a registered type is wrong", found=name)
    codec = _by_name.get(name)
    if codec is None:
        advice = f"Call ckptfmt.register_codec(YourClass, name={name!r}) before loading."
        raise refuse(place, f"no class is registered under the name {name!r}", advice)

    def build(members: list[Any]) -> Any:
        try:
            return codec.decode(members[0])
        except CheckpointError:
            raise
        except Exception as error:  # The application's own code, fed with what the file holds.
            raise wrong(place, f"{name} cannot be rebuilt: {type(error).__name__}: {error}") from error

    return Later(walk.content(node, place), build)


def _default_codec(cls: type, name: str) -> Codec:
    if issubclass(cls, enum.Enum):
        return Codec(cls, name, _member_names, lambda names: _member_of(cls, names))
    if issubclass(cls, tuple) and has_default_codec(cls):
        return Codec(cls, name, list, lambda values: cls._make(_checked(values, list)))  # type: ignore[attr-defined]
    if dataclasses.is_dataclass(cls):
        return Codec(cls, name, _field_values, lambda values: _dataclass_of(cls, _checked(values, dict)))
    raise ValueError(f"register_codec: {cls.__qualname__} is no named tuple, dataclass or enum: give encode and decode")


def _checked(values: Any, kind: type) -> Any:
    if type(values) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {type(values).__name__}")
    return values


def _member_names(member: enum.Enum) -> Any:
    if isinstance(member, enum.Flag) and member.name not in type(member).__members__:
        names = [part.name for part in member]
        if _member_of(type(member), names) != member:
            raise ValueError(f"{member!r} has bits without a name")
        return names
    return member.name


def _member_of(cls: type[enum.Enum], names: Any) -> Any:
    if type(names) is str:
        return cls.__members__[names]
    if not issubclass(cls, enum.Flag):
        raise TypeError(f"expected the name of a member, found {type(names).__name__}")
    value = cls(0)
    for name in _checked(names, list):
        value |= cls[name]
    return value


def _field_values(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _dataclass_of(cls: Any, values: dict[str, Any]) -> Any:
    fields = {field.name: field for field in dataclasses.fields(cls)}
    unknown = values.keys() - fields.keys()
    if unknown:
        raise TypeError(f"no fields named {', '.join(sorted(map(str, unknown))[:5])}")
    value = cls(**{name: content for name, content in values.items() if fields[name].init})
    for name, content in values.items():
        if not fields[name].init:
            object.__setattr__(value, name, content)
    return value
