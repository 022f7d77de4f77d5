"""The walk over a packed tree that rebuilds the state, without recursion. Spec 8.

Lists and maps are made when they are met and filled as their members are decoded. What needs its members first (a tuple,
a set, a mapping with any keys, an application's type) is built at the end, innermost first. Every payload is checked;
what is not as the table says is `[E027]`, and no other error leaves this walk than those of ckptfmt and of `tensor_of`.
How each tag is decoded is not known here.

References to tensors are decoded last of all nodes, together, because there may be very many of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ckptfmt.errors import CheckpointError
from ckptfmt.format.layout import MAX_STATE_DEPTH
from ckptfmt.state.places import SAME, Place, root_place, too_deep, wrong
from ckptfmt.state.row_memory import RowTable

Decoder = Callable[["DecodeWalk", Any, Place], Any]
Reference = tuple[Any, Any, Any, Place, Any]
"""The payload of a `$tensor`, where its value goes (container and slot), the place above, and the step from there."""
_AS_IT_IS = frozenset({type(None), bool, int, float, str, bytes})
_TENSOR_TAG = "$tensor"


class Later:
    """A value that is built from its members, when those are complete: `build(members)`."""

    __slots__ = ("build", "members")

    def __init__(self, members: list[Any], build: Callable[[list[Any]], Any]) -> None:
        self.members = members
        self.build = build


class DecodeWalk:
    """The state of one walk. `rows` gives the memory of tensors, `device` is where torch tensors go.

    `decode_many` is handed all references to tensors that have a place above, and returns those that it has not decoded.
    """

    __slots__ = ("_decode_many", "_decoders", "_references", "_waiting", "device", "rows")

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        rows: RowTable,
        device: Any = "cpu",
        decode_many: Callable[[list[Reference]], list[Reference]] | None = None,
    ) -> None:
        self._decoders = decoders
        self._decode_many = decode_many
        self._references: list[Reference] = []
        self._waiting: list[tuple[Any, Any, Any, Place | None, Any]] = []
        self.rows = rows
        self.device = device

    def run(self, tree: Any) -> Any:
        """Decode a packed tree."""
        result = [None]
        waiting = self._waiting
        builds: list[tuple[Later, Any, Any, Place]] = []
        waiting.append((tree, result, 0, None, None))
        while waiting:
            node, target, slot, above, step = waiting.pop()
            place = root_place() if above is None else Place(above, step, above.level + 1, above.is_key)
            mark = len(waiting)
            value = self._decode(node, place)
            if len(waiting) > mark + 1:
                waiting[mark:] = waiting[mark:][::-1]
            if type(value) is Later:
                builds.append((value, target, slot, place))
            else:
                target[slot] = value
        self._decode_references()
        for later, target, slot, place in reversed(builds):
            try:
                target[slot] = later.build(later.members)
            except (TypeError, ValueError, ArithmeticError) as error:
                if isinstance(error, CheckpointError):
                    raise
                raise wrong(place, f"members do not make a value: {error}") from None
        return result[0]

    def _decode_references(self) -> None:
        others = self._references if self._decode_many is None else self._decode_many(self._references)
        for payload, target, slot, above, step in others:
            place = Place(above, step, above.level + 1, above.is_key)
            target[slot] = self._decoders[_TENSOR_TAG](self, payload, place)

    def _put(self, node: Any, target: Any, slot: Any, above: Place, step: Any) -> None:
        """Have a node decoded into a slot of a container: a reference to a tensor at the end, anything else when its turn comes."""
        if type(node) is dict and len(node) == 1 and _TENSOR_TAG in node:
            self._references.append((node[_TENSOR_TAG], target, slot, above, step))
        else:
            self._waiting.append((node, target, slot, above, step))

    def array(self, nodes: Any, place: Place, *, step: Any = None) -> list[Any]:
        """Return a list that will hold the decoded values of an array."""
        if type(nodes) is not list:
            raise wrong(place, "payload is wrong", expected="an array", found=nodes)
        out: list[Any] = list(nodes)
        for position, node in enumerate(nodes):
            if type(node) not in _AS_IT_IS:
                self._put(node, out, position, place, position if step is None else step)
        _check_depth(out, place)
        return out

    def pairs(self, nodes: Any, place: Place) -> list[Any]:
        """Return a list that will hold k1, v1, k2, v2, ... of a mapping with any keys."""
        if type(nodes) is not list or len(nodes) % 2:
            raise wrong(place, "payload is wrong", expected="an array of keys and values", found=nodes)
        out: list[Any] = list(nodes)
        key_place = Place(place, SAME, place.level, True)
        for position, node in enumerate(nodes):
            if type(node) not in _AS_IT_IS:
                is_value = position % 2
                self._put(node, out, position, place if is_value else key_place, nodes[position - 1] if is_value else SAME)
        _check_depth(out, place)
        return out

    def members(self, nodes: Any, place: Place) -> dict[str, Any]:
        """Return a dict that will hold the decoded values of a map."""
        if type(nodes) is not dict:
            raise wrong(place, "payload is wrong", expected="a map", found=nodes)
        out: dict[str, Any] = dict(nodes)
        for key, node in nodes.items():
            if type(key) is not str:
                raise wrong(place, "key of a map is wrong", expected="str", found=key)
            if type(node) not in _AS_IT_IS:
                self._put(node, out, key, place, key)
        _check_depth(out, place)
        return out

    def content(self, node: Any, place: Place) -> list[Any]:
        """Return a list that will hold one decoded value which stands at the same path."""
        out = [node]
        if type(node) not in _AS_IT_IS:
            self._put(node, out, 0, place, SAME)
        _check_depth(out, place)
        return out

    def _decode(self, node: Any, place: Place) -> Any:
        kind = type(node)
        if kind is dict:
            if len(node) == 1:
                (tag,) = node
                if type(tag) is str and tag.startswith("$"):
                    decoder = self._decoders.get(tag)
                    if decoder is None:
                        raise wrong(place, "unknown tag", found=tag)
                    return decoder(self, node[tag], place)
            return self.members(node, place)
        if kind is list:
            return self.array(node, place)
        if kind not in _AS_IT_IS:
            raise wrong(place, "not a packed value", found=kind.__name__)
        return node


def check_items(payload: Any, count: int, place: Place) -> Sequence[Any]:
    """Return the payload, which must be an array of so many items."""
    if type(payload) is not list or len(payload) != count:
        raise wrong(place, "payload is wrong", expected=f"an array of {count}", found=payload)
    return payload


def check_kind(payload: Any, kind: type, place: Place) -> Any:
    """Return the payload, which must be of exactly this packed type."""
    if type(payload) is not kind:
        raise wrong(place, "payload is wrong", expected=kind.__name__, found=payload)
    return payload


def check_integer(payload: Any, lowest: int, highest: int, place: Place, *, rule: str = "E027") -> int:
    """Return the payload, which must be an integer of this range."""
    if type(payload) is not int or not lowest <= payload <= highest:
        raise wrong(place, "payload is wrong", expected=f"an integer from {lowest} to {highest}", found=payload, rule=rule)
    return payload


def _check_depth(members: Any, place: Place) -> None:
    if members and place.level >= MAX_STATE_DEPTH:
        raise too_deep(place)
