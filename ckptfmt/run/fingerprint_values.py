"""Plain Python values as the fields of a fingerprint. Spec fingerprint-1, 3.

A mapping becomes one field per member, whatever its class: dict, dataclass, namespace and configuration objects with the same
members are the same. A sequence of plain values is one field; a sequence that holds mappings or sequences is one field for its
kind and length, and fields for its elements. Types are kept: 1, 1.0, True and "1" are four values. Objects are never asked for
their repr, which would change from process to process.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import fractions
import json
import sys
import types
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from enum import Enum
from pathlib import PurePath
from typing import Any, NamedTuple

from ckptfmt.errors import LimitError, UnsupportedTypeError
from ckptfmt.format.fingerprint import bounded_value, escape_segment, printable, typed_segment
from ckptfmt.run.fingerprint_arrays import NotAnArrayError, find_array, find_name, find_number
from ckptfmt.run.fingerprint_secrets import Secrecy, looks_secret, secrecy_of_name

MAX_DEPTH = 64
_DECIMAL_BITS = 1024


_Texts = tuple[str, str, Sequence[str]]
_Encoder = Callable[[Any, str], _Texts]


class Leaf(NamedTuple):
    """The value of one field before it has a class: type and text, and whether it must not be shown."""

    type: str
    value: str
    is_secret: bool = False


def plain_fields(root: str, value: Any, *, skip_none: bool = True) -> dict[str, Leaf]:
    """Return the fields of a value under the name `root`. None as a whole is no field.

    Raises:
        UnsupportedTypeError: something in it is no plain data; `.path` is its field.
        LimitError: it is nested too deeply, or contains itself.
    """
    if value is None and skip_none:
        return {}
    walk = _Walk()
    walk.put(root, value, Secrecy.NONE, 0)
    return walk.fields


class _Walk:
    def __init__(self) -> None:
        self.fields: dict[str, Leaf] = {}

    def put(self, name: str, value: Any, secrecy: Secrecy, depth: int) -> None:
        """Add the fields of one value, which stands at `name`."""
        leaf = find_leaf(value, name)
        if leaf is not None:
            self._add(name, leaf, secrecy)
        else:
            self._put_container(name, value, secrecy, depth)

    def _put_container(self, name: str, value: Any, secrecy: Secrecy, depth: int) -> None:
        check_depth(name, depth)
        members, kind = find_members(value), sequence_kind(value)
        if members is not None:
            self._put_members(name, members, secrecy, depth)
        elif kind is None:
            raise unsupported(name, value)
        elif isinstance(value, Set):
            texts: list[str] = []
            self._add(name, (kind, _json(_nested(value, name, depth, texts)), texts), secrecy)
        else:
            self._put_sequence(name, kind, value, secrecy, depth)

    def _put_sequence(self, name: str, kind: str, value: Sequence[Any], secrecy: Secrecy, depth: int) -> None:
        leaves = [find_leaf(element, name) for element in value]
        if None not in leaves:
            present = [leaf for leaf in leaves if leaf is not None]
            texts = [text for leaf in present for text in leaf[2]]
            self._add(name, (kind, _json([f"{leaf[0]} {leaf[1]}" for leaf in present]), texts), secrecy)
            return
        self._add(name, (kind, str(len(leaves)), ()), Secrecy.NONE)
        for position, (leaf, element) in enumerate(zip(leaves, value, strict=True)):
            place = f"{name}.{position}"
            if leaf is not None:
                self._add(place, leaf, secrecy)
            else:
                self._put_container(place, element, secrecy, depth + 1)

    def _put_members(self, name: str, members: list[tuple[Any, Any]], secrecy: Secrecy, depth: int) -> None:
        if not members:
            self._add(name, ("mapping", "{}", ()), Secrecy.NONE)
        for key, value in members:
            segment = segment_of(key, name)
            child_secrecy = max(secrecy, secrecy_of_name(key)) if isinstance(key, str) else secrecy
            self.put(f"{name}.{segment}", value, child_secrecy, depth + 1)

    def _add(self, name: str, leaf: _Texts, secrecy: Secrecy) -> None:
        if name in self.fields:
            raise _refuse(name, "two keys give the same field of the fingerprint", "Give them names that differ as text.")
        value_type, value, texts = leaf
        is_secret = (secrecy is Secrecy.ANY and value_type not in ("none", "bool")) or (secrecy is Secrecy.TEXT and bool(texts))
        is_secret = is_secret or any(map(looks_secret, texts))
        self.fields[name] = Leaf(*bounded_value(value_type, value), is_secret)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _nested(value: Any, name: str, depth: int, texts: list[str]) -> list[Any]:
    """Return a sequence as nested JSON: plain values as `type value`, containers as arrays or `{kind: content}`."""
    elements: list[Any] = []
    for element in value:
        leaf = find_leaf(element, name)
        if leaf is not None:
            elements.append(f"{leaf[0]} {leaf[1]}")
            texts.extend(leaf[2])
            continue
        check_depth(name, depth)
        members, kind = find_members(element), sequence_kind(element)
        if members is not None:
            content = {segment_of(key, name): _nested((member,), name, depth + 1, texts)[0] for key, member in members}
            if len(content) != len(members):
                raise _refuse(name, "two keys give the same name in the fingerprint", "Give them names that differ as text.")
            elements.append({"mapping": content})
        elif kind is not None:
            elements.append({kind: _nested(element, name, depth + 1, texts)})
        else:
            raise unsupported(name, element)
    return sorted(elements, key=_json) if isinstance(value, Set) else elements


def segment_of(key: Any, name: str) -> str:
    """Return the segment of a field's name that stands for the key of a mapping at `name`."""
    if isinstance(key, str) and not isinstance(key, Enum):
        if looks_secret(key):
            what = "a key of this mapping looks like a secret, and names are stored as text"
            raise _refuse(name, what, "Use another name, and make it a value.")
        return escape_segment(check_text(key, name))
    leaf = find_leaf(key, name)
    if leaf is not None:
        return typed_segment(leaf[0], leaf[1])
    kind = sequence_kind(key)
    if kind is None:
        raise unsupported(name, key)
    return typed_segment(kind, _json(_nested(key, name, 0, [])))


def find_leaf(value: Any, name: str) -> _Texts | None:
    """Return type, text, and the texts in it that might be secret; None for a container and for what is no plain data."""
    kind = type(value)
    encode = _LEAVES.get(kind)
    if encode is not None:
        return encode(value, name)
    if kind in _CONTAINERS:
        return None
    number = find_number(value)
    if number is not None:
        return _LEAVES[type(number)](number, name)
    try:
        found = find_array(value) or find_name(value)
    except NotAnArrayError as error:
        raise _refuse(name, f"cannot be part of a fingerprint: {error}", "Give its content in another form, or leave it out.") from None
    if found is not None:
        return *found, ()
    for base, encode in _LEAVES_BY_CLASS:
        if isinstance(value, base):
            return encode(value, name)
    return _function_leaf(value, name) if callable(value) and isinstance(getattr(value, "__qualname__", None), str) else None


def check_text(text: str, name: str) -> str:
    """Return the text, or refuse one that holds surrogates."""
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            what = "cannot be part of a fingerprint: text with surrogate characters has no UTF-8 form"
            raise _refuse(name, what, "Give it as bytes (os.fsencode).") from None
    return text


def check_depth(name: str, depth: int) -> None:
    """Refuse what is nested too deeply."""
    if depth >= MAX_DEPTH:
        message = f"{_where(name)}: nested too deeply: expected at most {MAX_DEPTH} levels [E026]"
        raise LimitError(message + "\nA structure that contains itself has no end.", rule="E026", path=name)


def unsupported(name: str, value: Any) -> UnsupportedTypeError:
    """Return the error for a value that has no place in a fingerprint."""
    kind = type(value)
    what = f"cannot be part of a fingerprint: found {kind.__module__}.{kind.__qualname__}"
    advice = "Give what it was made from as plain data (dict, list, text, numbers, arrays, a dataclass), or leave it out."
    return _refuse(name, what, advice)


def _refuse(name: str, what: str, advice: str) -> UnsupportedTypeError:
    return UnsupportedTypeError(f"{_where(name)}: {what}\n{advice}", path=name)


def _where(name: str) -> str:
    return printable(name if len(name) <= 100 else f"{name[:60]} ... {name[-35:]}")


def find_members(value: Any) -> list[tuple[Any, Any]] | None:
    """Return keys and values of anything that is a mapping from names to settings, None for anything else."""
    kind = type(value)
    if kind is dict:
        return list(value.items())
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in value]
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return list(zip(kind._fields, value, strict=True))
    argparse = sys.modules.get("argparse")
    if isinstance(value, types.SimpleNamespace) or (argparse is not None and isinstance(value, argparse.Namespace)):
        return list(vars(value).items())
    # Configuration objects that follow the protocol without the base class; tables of data have a shape.
    if all(callable(getattr(kind, name, None)) for name in ("keys", "items", "__getitem__")) and not hasattr(value, "shape"):
        return [(key, value[key]) for key in value.keys()]
    return None


def sequence_kind(value: Any) -> str | None:
    """Return the type of a container of values without names, None for anything else."""
    if isinstance(value, list):
        return "list"
    if isinstance(value, tuple):
        return "tuple"
    if isinstance(value, Set):
        return "frozenset" if isinstance(value, frozenset) else "set"
    is_text = isinstance(value, str | bytes | bytearray | memoryview)
    return "list" if isinstance(value, Sequence) and not is_text else None


def float_text(number: float) -> str:
    """Return the shortest decimal that reads back as this number; every NaN is `nan`."""
    return "nan" if number != number else float.__repr__(number)


def integer_text(number: int) -> str:
    """Return a decimal, or from 1,024 bits on, where decimals are slow, a hexadecimal number."""
    return int.__repr__(number) if number.bit_length() <= _DECIMAL_BITS else int.__format__(number, "#x")


def _complex_text(number: complex) -> str:
    return f"{float_text(number.real)},{float_text(number.imag)}"


def _function_leaf(value: Any, name: str) -> _Texts:
    owner = getattr(value, "__self__", None)
    if owner is not None and not isinstance(owner, type | types.ModuleType):
        # A method of an object says nothing about the object.
        raise unsupported(name, value)
    if "<lambda>" in value.__qualname__:
        what = "cannot be part of a fingerprint: a lambda has no name that tells it from another"
        raise _refuse(name, what, "Define it as a function with a name.")
    module = value.__module__ or getattr(owner, "__module__", None) or type(value).__module__
    return "function", check_text(f"{module}.{value.__qualname__}", name), ()


def _enum_leaf(value: Any, name: str) -> _Texts:
    member = value.name if value.name is not None else f"({value.value})"
    return "enum", check_text(f"{type(value).__qualname__}.{member}", name), ()


def _text_leaf(value: str, name: str) -> _Texts:
    # str() of a subclass may be anything.
    text = check_text(str.__str__(value), name)
    return "str", text, (text,)


def _path_leaf(value: PurePath, name: str) -> _Texts:
    text = check_text(value.as_posix(), name)
    return "path", text, (text,)


def _bytes_leaf(value: bytes, name: str) -> _Texts:
    return "bytes", value.hex(), (value.decode("latin-1"),)


def _bytearray_leaf(value: bytearray, name: str) -> _Texts:
    return "bytearray", value.hex(), (value.decode("latin-1"),)


def _simple(value_type: str, text_of: Callable[[Any], str]) -> _Encoder:
    return lambda value, name: (value_type, text_of(value), ())


_LEAVES: dict[type, _Encoder] = {
    type(None): _simple("none", lambda _: "none"),
    bool: _simple("bool", lambda value: "true" if value else "false"),
    int: _simple("int", integer_text),
    float: _simple("float", float_text),
    str: _text_leaf,
    bytes: _bytes_leaf,
    bytearray: _bytearray_leaf,
    complex: _simple("complex", _complex_text),
    range: _simple("range", lambda value: f"{integer_text(value.start)},{integer_text(value.stop)},{integer_text(value.step)}"),
    datetime.datetime: _simple("datetime", lambda value: value.isoformat()),
    datetime.date: _simple("date", lambda value: value.isoformat()),
    datetime.time: _simple("time", lambda value: value.isoformat()),
    datetime.timedelta: _simple("timedelta", lambda value: f"{value.days},{value.seconds},{value.microseconds}"),
    decimal.Decimal: _simple("decimal", str),
    fractions.Fraction: _simple("fraction", lambda value: f"{integer_text(value.numerator)}/{integer_text(value.denominator)}"),
    uuid.UUID: _simple("uuid", str),
    types.FunctionType: _function_leaf,
}
_CONTAINERS = frozenset({dict, list, tuple, set, frozenset})

# Looked through in this order, for subclasses.
_LEAVES_BY_CLASS: tuple[tuple[type, _Encoder], ...] = (
    (Enum, _enum_leaf),
    (type, _simple("class", lambda value: f"{value.__module__}.{value.__qualname__}")),
    (PurePath, _path_leaf),
    *((kind, _LEAVES[kind]) for kind in (str, bytes, int, float, complex, bytearray, datetime.datetime, datetime.date)),
)
