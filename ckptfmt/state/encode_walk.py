"""The walk down a state that turns it into packed form, in the order of the tree and without recursion. Spec 8.

A container is encoded as soon as it is met, with holes where its members go; the members wait on a stack with the hole
they fill. So the depth of the state never meets the depth of the interpreter's stack, a structure that contains itself
ends at the limit of nesting, and tensors come in the order of their first appearance. What can only be done when all is
filled (the order of a set) is done at the end, innermost first. How each type is encoded is not known here.

Ordinary tensors are not encoded in the walk but only put down in `leaves`, because there may be very many of them: what
they need is done for all at once afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from itertools import chain
from operator import attrgetter
from typing import Any

from ckptfmt.errors import LimitError
from ckptfmt.format.layout import MAX_CONTAINER_ITEMS, MAX_STATE_DEPTH
from ckptfmt.state.encode_leaves import Leaves
from ckptfmt.state.places import SAME, PackedKey, Place, cut_path, refuse, root_place, too_deep

MIN_INTEGER = -(2**63)
END_INTEGER = 2**64

Encoder = Callable[["EncodeWalk", Any, Place], Any]
Waiting = tuple[Any, Any, Any, Place, Any]
"""A value, where its packed form goes (container and slot), the place above, and the step from there."""

_AS_IT_IS = frozenset({type(None), bool, float, bytes})
_LAYOUT = attrgetter("layout")


class Instead:
    """What an encoder returns to have another value encoded in the place of its own, one level deeper."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class EncodeWalk:
    """The state of one walk. `encoder_for` gives the encoder of an object and refuses what has none.

    `layouts` holds the types of ordinary tensors, and which `layout` makes one of them ordinary.
    """

    __slots__ = ("_encoder_for", "_endings", "_layouts", "_waiting", "leaves")

    def __init__(self, encoder_for: Callable[[Any, Place], Encoder], layouts: Mapping[type, Any] | None = None) -> None:
        self._encoder_for = encoder_for
        self._layouts = layouts or {}
        self._waiting: list[Waiting] = []
        self._endings: list[Callable[[], None]] = []
        self.leaves = Leaves()

    def run(self, state: Any) -> Any:
        """Encode a state. References to tensors are in `leaves`, in order; those to ordinary tensors still lack their nodes."""
        result = [None]
        waiting = self._waiting
        layouts = self._layouts
        encoders: dict[type, Encoder] = {}
        root = root_place()
        self._encode(state, result, 0, root, encoders)
        while waiting:
            value, target, slot, above, step = waiting.pop()
            layout = layouts.get(type(value))
            if layout is not None and value.layout is layout and not above.is_key:
                self.leaves.add(value, target, slot, above, step)
            else:
                self._encode(value, target, slot, Place(above, step, above.level + 1, above.is_key), encoders)
        for ending in reversed(self._endings):
            ending()
        return result[0]

    def _encode(self, value: Any, target: Any, slot: Any, place: Place, encoders: dict[type, Encoder]) -> None:
        kind = type(value)
        encoder = encoders.get(kind)
        if encoder is None:
            encoder = encoders[kind] = self._encoder_for(value, place)
        waiting = self._waiting
        mark = len(waiting)
        node = encoder(self, value, place)
        if type(node) is Instead:
            check_room(1, place)
            waiting.append((node.value, target, slot, place, SAME))
        else:
            target[slot] = node
        if len(waiting) > mark + 1:
            waiting[mark:] = waiting[mark:][::-1]

    def _are_ordinary(self, values: Collection[Any], place: Place) -> bool:
        """Tell whether all values are ordinary tensors. They come next in the walk, if they are all that a container holds."""
        kinds = set(map(type, values))
        if place.is_key or not kinds or not kinds <= self._layouts.keys():
            return False
        return set(map(_LAYOUT, values)) <= set(map(self._layouts.__getitem__, kinds))

    def array(self, values: Iterable[Any], place: Place, *, step: Any = None) -> list[Any]:
        """Return the array of the encoded values; each one's step is its position, or `step` where that is given."""
        out: list[Any] = []
        for position, value in enumerate(values):
            self.put(value, out, place, position if step is None else step)
        check_room(len(out), place)
        return out

    def pairs(self, mapping: Mapping[Any, Any], place: Place) -> list[Any]:
        """Return the array k1, v1, k2, v2, ... of a mapping with any keys."""
        check_room(2 * len(mapping), place)
        out: list[Any] = []
        if set(map(type, mapping)) == {str} and self._are_ordinary(mapping.values(), place):
            check_texts(mapping, place)
            out += chain.from_iterable(mapping.items())
            self.leaves.extend(list(mapping.values()), out, range(1, len(out), 2), place, list(mapping))
            return out
        key_place = Place(place, SAME, place.level, True)
        for key, value in mapping.items():
            kind = type(key)
            self.put(key, out, key_place, SAME)
            is_plain = kind is str or kind in _AS_IT_IS or (kind is int and MIN_INTEGER <= key < END_INTEGER)
            self.put(value, out, place, key if is_plain else PackedKey(key, out, len(out) - 1))
        return out

    def members(self, mapping: Mapping[str, Any], place: Place) -> dict[str, Any]:
        """Return the map of a mapping whose keys are text."""
        check_texts(mapping, place)
        check_room(len(mapping), place)
        if self._are_ordinary(mapping.values(), place):
            out: dict[str, Any] = dict.fromkeys(mapping)
            self.leaves.extend(list(mapping.values()), out, list(out), place, list(out))
            return out
        out = {}
        for key, value in mapping.items():
            self.put(value, out, place, key)
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


def check_texts(texts: Iterable[str], place: Place) -> None:
    """Refuse keys of a mapping that are not UTF-8."""
    if not "".join(texts).isascii():
        for text in texts:
            check_text(text, place)


def check_room(count: int, place: Place) -> None:
    """Raise a LimitError if a container at this place may not hold so many values. Spec 7 and 8.1."""
    if count and place.level >= MAX_STATE_DEPTH:
        raise too_deep(place)
    if count > MAX_CONTAINER_ITEMS:
        text = place.text()
        message = f"{cut_path(text)}: container is too long: expected at most {MAX_CONTAINER_ITEMS}, found {count} [E024]"
        raise LimitError(message + "\nStore numbers as an array.", rule="E024", path=text, expected=MAX_CONTAINER_ITEMS, found=count)
