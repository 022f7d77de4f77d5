"""The walk down a state that turns it into packed form, in the order of the tree and without recursion. Spec 8.

A container is encoded as soon as it is met, with holes where its members go; the members wait on a stack with the hole
they fill. So the depth of the state never meets the depth of the interpreter's stack, a structure that contains itself
ends at the limit of nesting, and tensors come in the order of their first appearance. What can only be done when all is
filled (the order of a set) is done at the end, innermost first. How each type is encoded is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ckptfmt.errors import LimitError
from ckptfmt.format.layout import MAX_CONTAINER_ITEMS, MAX_STATE_DEPTH
from ckptfmt.state.places import SAME, PackedKey, Place, cut_path, refuse, root_place, too_deep
from ckptfmt.state.tensors import LiveTensor
from ckptfmt.state.ties import Extent

MIN_INTEGER = -(2**63)
END_INTEGER = 2**64

Encoder = Callable[["EncodeWalk", Any, Place], Any]
_AS_IT_IS = frozenset({type(None), bool, float, bytes})


@dataclass(slots=True, eq=False)
class TensorLeaf(Extent):
    """One reference to a tensor, and where that lies.

    Its node is `{"$tensor": reference}`; `reference` is [kind, attributes] until the rows are planned.
    """

    reference: list[Any]
    source: LiveTensor
    place: Place
    owner: Any


class Instead:
    """What an encoder returns to have another value encoded in the place of its own, one level deeper."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class EncodeWalk:
    """The state of one walk. `encoder_for` gives the encoder of an object and refuses what has none."""

    __slots__ = ("_encoder_for", "_endings", "_waiting", "leaves")

    def __init__(self, encoder_for: Callable[[Any, Place], Encoder]) -> None:
        self._encoder_for = encoder_for
        self._waiting: list[tuple[Any, Any, Any, Place | None, Any]] = []
        self._endings: list[Callable[[], None]] = []
        self.leaves: list[TensorLeaf] = []

    def run(self, state: Any) -> Any:
        """Encode a state. References to tensors are in `leaves`, in order, still empty."""
        result = [None]
        waiting = self._waiting
        encoder_for = self._encoder_for
        encoders: dict[type, Encoder] = {}
        waiting.append((state, result, 0, None, None))
        while waiting:
            value, target, slot, above, step = waiting.pop()
            place = root_place() if above is None else Place(above, step, above.level + 1, above.is_key)
            kind = type(value)
            encoder = encoders.get(kind)
            if encoder is None:
                encoder = encoders[kind] = encoder_for(value, place)
            mark = len(waiting)
            node = encoder(self, value, place)
            if type(node) is Instead:
                check_room(1, place)
                waiting.append((node.value, target, slot, place, SAME))
            else:
                target[slot] = node
            if len(waiting) > mark + 1:
                waiting[mark:] = waiting[mark:][::-1]
        for ending in reversed(self._endings):
            ending()
        return result[0]

    def array(self, values: Iterable[Any], place: Place, *, step: Any = None) -> list[Any]:
        """Return the array of the encoded values; each one's step is its position, or `step` where that is given."""
        out: list[Any] = []
        for position, value in enumerate(values):
            self.put(value, out, place, position if step is None else step)
        check_room(len(out), place)
        return out

    def pairs(self, items: Iterable[tuple[Any, Any]], place: Place) -> list[Any]:
        """Return the array k1, v1, k2, v2, ... of a mapping with any keys."""
        out: list[Any] = []
        key_place = Place(place, SAME, place.level, True)
        for key, value in items:
            kind = type(key)
            self.put(key, out, key_place, SAME)
            is_plain = kind is str or kind in _AS_IT_IS or (kind is int and MIN_INTEGER <= key < END_INTEGER)
            self.put(value, out, place, key if is_plain else PackedKey(key, out, len(out) - 1))
        check_room(len(out), place)
        return out

    def members(self, items: Iterable[tuple[str, Any]], place: Place) -> dict[str, Any]:
        """Return the map of a mapping whose keys are text."""
        out: dict[str, Any] = {}
        for key, value in items:
            check_text(key, place)
            self.put(value, out, place, key)
        check_room(len(out), place)
        return out

    def content(self, value: Any, place: Place, *before: Any) -> list[Any]:
        """Return an array that ends in one value which stands at the same path: what an object says that it holds."""
        out = list(before)
        self.put(value, out, place, SAME)
        check_room(1, place)
        return out

    def at_end(self, ending: Callable[[], None]) -> None:
        """Have something done when all is encoded; later announcements are served first."""
        self._endings.append(ending)

    def put(self, value: Any, out: Any, place: Place, step: Any) -> None:
        """Add one member to an array, or under its step to a map: at once if it is plain, else when its turn comes."""
        kind = type(value)
        slot: Any = step
        if type(out) is list:
            slot = len(out)
            out.append(value)
        else:
            out[slot] = value
        if kind in _AS_IT_IS:
            return
        if kind is str:
            if not value.isascii():
                check_text(value, Place(place, step, place.level + 1, place.is_key))
        elif kind is not int or not MIN_INTEGER <= value < END_INTEGER:
            out[slot] = None
            self._waiting.append((value, out, slot, place, step))


def check_text(text: str, place: Place) -> None:
    """Refuse text that is not UTF-8: surrogates, as in names of files that are not."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        advice = "Encode it with errors='surrogateescape' and store the bytes."
        raise refuse(place, "text with surrogate characters has no UTF-8 form", advice) from None


def check_room(count: int, place: Place) -> None:
    """Raise a LimitError if a container at this place may not hold so many values. Spec 7 and 8.1."""
    if count and place.level >= MAX_STATE_DEPTH:
        raise too_deep(place)
    if count > MAX_CONTAINER_ITEMS:
        text = place.text()
        message = f"{cut_path(text)}: container is too long: expected at most {MAX_CONTAINER_ITEMS}, found {count} [E024]"
        raise LimitError(message + "\nStore numbers as an array.", rule="E024", path=text, expected=MAX_CONTAINER_ITEMS, found=count)
