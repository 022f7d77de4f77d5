"""Containers of Python's standard library: mappings, sequences, sets, ranges and slices, attribute bags. Spec 8.

Only exact types are known. Each tag has an encoder and, below it, its decoder.
"""

from __future__ import annotations

import argparse
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from ckptfmt.format.packed import pack
from ckptfmt.state.decode_walk import DecodeWalk, Later, check_integer, check_items
from ckptfmt.state.encode_walk import EncodeWalk
from ckptfmt.state.places import SAME, Place, refuse, wrong

FACTORIES: dict[str, Callable[[], Any]] = {cls.__name__: cls for cls in (bool, bytes, dict, float, int, list, set, str, tuple)}
MAX_LENGTH = 2**63 - 1

_NAMESPACES: dict[type, str] = {argparse.Namespace: "argparse", SimpleNamespace: "simple"}
_METADATA = "_metadata"


def encode_list(walk: EncodeWalk, value: list[Any], place: Place) -> list[Any]:
    """Encode a list."""
    return walk.array(value, place)


def encode_tuple(walk: EncodeWalk, value: tuple[Any, ...], place: Place) -> dict[str, Any]:
    """Encode a tuple."""
    return {"$tuple": walk.array(value, place)}


def decode_tuple(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a tuple."""
    return Later(walk.array(payload, place), tuple)


def encode_dict(walk: EncodeWalk, value: dict[Any, Any], place: Place) -> dict[str, Any]:
    """Encode a dict: as a map if its keys are text which is no tag."""
    is_text = set(map(type, value)) <= {str}
    if not is_text or ("$" in "".join(value) and any(key[:1] == "$" for key in value)):
        return {"$dict": walk.pairs(value, place)}
    return walk.members(value, place)


def decode_dict(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a dict with any keys."""
    return Later(walk.pairs(payload, place), lambda members: _mapping(members, place))


def _mapping(members: list[Any], place: Place) -> dict[Any, Any]:
    mapping = dict(zip(members[::2], members[1::2], strict=True))
    if len(mapping) * 2 != len(members):
        raise wrong(place, "a key occurs twice")
    return mapping


def encode_ordered_dict(walk: EncodeWalk, value: OrderedDict[Any, Any], place: Place) -> dict[str, Any]:
    """Encode an OrderedDict; one with a metadata attribute, as modules of torch give, keeps that too."""
    pairs = walk.pairs(value, place)
    if _METADATA not in value.__dict__:
        return {"$odict": pairs}
    payload = [pairs]
    walk.put(value.__dict__[_METADATA], payload, place, SAME)
    return {"$state_dict": payload}


def decode_ordered_dict(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild an OrderedDict."""
    return Later(walk.pairs(payload, place), lambda members: OrderedDict(_mapping(members, place)))


def decode_state_dict(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild an OrderedDict with a metadata attribute."""
    pairs, metadata = check_items(payload, 2, place)
    members = walk.pairs(pairs, place)
    kept = walk.content(metadata, place)

    def build(_: list[Any]) -> OrderedDict[Any, Any]:
        value = OrderedDict(_mapping(members, place))
        value.__dict__[_METADATA] = kept[0]
        return value

    return Later([], build)


def encode_defaultdict(walk: EncodeWalk, value: defaultdict[Any, Any], place: Place) -> dict[str, Any]:
    """Encode a defaultdict whose factory is one of the table."""
    factory = value.default_factory
    name = getattr(factory, "__name__", None)
    if factory is not None and FACTORIES.get(str(name)) is not factory:
        advice = "Convert it with dict(...), or use a factory of " + ", ".join(FACTORIES) + "."
        raise refuse(place, f"the factory of this defaultdict is code: {str(name)[:60]}", advice)
    return {"$defaultdict": [name, walk.pairs(value, place)]}


def decode_defaultdict(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a defaultdict."""
    name, pairs = check_items(payload, 2, place)
    if name is not None and (type(name) is not str or name not in FACTORIES):
        raise wrong(place, "factory is wrong", expected=", ".join(FACTORIES), found=name)
    factory = None if name is None else FACTORIES[name]
    return Later(walk.pairs(pairs, place), lambda members: defaultdict(factory, _mapping(members, place)))


def encode_counter(walk: EncodeWalk, value: Counter[Any], place: Place) -> dict[str, Any]:
    """Encode a Counter."""
    return {"$counter": walk.pairs(value, place)}


def decode_counter(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a Counter; its counts may be any values."""

    def build(members: list[Any]) -> Counter[Any]:
        counter: Counter[Any] = Counter()
        dict.update(counter, _mapping(members, place))
        return counter

    return Later(walk.pairs(payload, place), build)


def encode_set(walk: EncodeWalk, value: set[Any] | frozenset[Any], place: Place) -> dict[str, Any]:
    """Encode a set or frozenset, its elements in the order of their packed bytes."""
    elements = walk.array(value, Place(place, SAME, place.level, True), step=SAME)
    walk.at_end(lambda: elements.sort(key=pack))
    return {"$set" if type(value) is set else "$frozenset": elements}


def _decode_set(kind: type[set[Any]] | type[frozenset[Any]]) -> Any:
    def decode(walk: DecodeWalk, payload: Any, place: Place) -> Later:
        members = walk.array(payload, Place(place, SAME, place.level, True), step=SAME)
        previous = b""
        for node in payload:
            packed = _packed(node, place)
            if packed < previous:
                raise wrong(place, "elements of a set are not in order")
            previous = packed
        return Later(members, lambda members: _set_of(kind, members, place))

    return decode


def _packed(node: Any, place: Place) -> bytes:
    try:
        return pack(node)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong(place, f"not a packed value: {error}") from None


def _set_of(kind: Any, members: list[Any], place: Place) -> Any:
    value = kind(members)
    if len(value) != len(members):
        raise wrong(place, "an element occurs twice")
    return value


decode_set = _decode_set(set)
decode_frozenset = _decode_set(frozenset)


def encode_deque(walk: EncodeWalk, value: deque[Any], place: Place) -> dict[str, Any]:
    """Encode a deque with its maximum length."""
    return {"$deque": [value.maxlen, walk.array(value, place)]}


def decode_deque(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a deque."""
    length, nodes = check_items(payload, 2, place)
    members = walk.array(nodes, place)
    if length is not None:
        check_integer(length, len(members), MAX_LENGTH, place)
    return Later(members, lambda members: deque(members, length))


def encode_range(walk: EncodeWalk, value: range, place: Place) -> dict[str, Any]:
    """Encode a range."""
    return {"$range": walk.array((int(value.start), int(value.stop), int(value.step)), place)}


def decode_range(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a range."""

    def build(members: list[Any]) -> range:
        if not all(type(member) is int for member in members) or members[2] == 0:
            raise wrong(place, "range is wrong", expected="three integers, the last not 0")
        return range(*members)

    return Later(walk.array(check_items(payload, 3, place), place), build)


def encode_slice(walk: EncodeWalk, value: slice, place: Place) -> dict[str, Any]:
    """Encode a slice of any values."""
    return {"$slice": walk.array((value.start, value.stop, value.step), place)}


def decode_slice(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild a slice."""
    return Later(walk.array(check_items(payload, 3, place), place), lambda members: slice(*members))


def encode_namespace(walk: EncodeWalk, value: argparse.Namespace | SimpleNamespace, place: Place) -> dict[str, Any]:
    """Encode an attribute bag."""
    attributes: Mapping[Any, Any] = vars(value)
    for name in attributes:
        if type(name) is not str or name.startswith("$"):
            what = f"the attribute {str(name)[:60]!r} of this namespace cannot be stored"
            raise refuse(place, what, "Convert it with vars(...) to a dict.")
    return {"$namespace": [_NAMESPACES[type(value)], walk.members(attributes, place)]}


def decode_namespace(walk: DecodeWalk, payload: Any, place: Place) -> Later:
    """Rebuild an attribute bag."""
    name, attributes = check_items(payload, 2, place)
    members = walk.members(attributes, place)

    def build(_: list[Any]) -> Any:
        for cls, known in _NAMESPACES.items():
            if name == known:
                value = cls()
                vars(value).update(members)
                return value
        raise wrong(place, "namespace is wrong", expected=", ".join(_NAMESPACES.values()), found=name)

    return Later([], build)
