"""What the slots of one checkpoint have to do with each other: equal ones, and ones that are others rounded. Spec 11.2.

Equal slots are found by their digests, without reading. What a bfloat16 or float16 tensor may be the rounding of is found by a few
elements of each float32 tensor, and is then compared as a whole, by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt.format.digest import Hasher
from ckptfmt.format.encodings import ROUNDED, ROUNDED_TYPES, SAME, Codec
from ckptfmt.format.rounding import round_floats

MIN_RELATED_BYTES = 256
COMPARED_ELEMENTS = 64
PIECE_BYTES = 4 * 2**20

Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SlotFacts:
    """A slot that holds its chunk as it is; `may_change` tells whether it may be encoded, or only be a source of others."""

    place: Place
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    digest: bytes
    may_change: bool


def find_relations(slots: Sequence[SlotFacts]) -> dict[Place, Codec]:
    """Return the codec of each slot that needs no bytes of its own."""
    large = [slot for slot in slots if len(slot.data) >= MIN_RELATED_BYTES]
    first: dict[tuple[int, bytes], SlotFacts] = {}
    # Slots that cannot change come first, because they have their bytes in any case.
    for slot in sorted(large, key=lambda slot: (slot.may_change, slot.place)):
        first.setdefault((len(slot.data), slot.digest), slot)
    rounded = _find_rounded(list(first.values()))
    relations: dict[Place, Codec] = {}
    for slot in large:
        of_equal = first[len(slot.data), slot.digest]
        if not slot.may_change:
            continue
        if of_equal.place in rounded:
            relations[slot.place] = rounded[of_equal.place]
        elif of_equal is not slot:
            relations[slot.place] = (SAME, {"source": list(of_equal.place)})
    return relations


def _find_rounded(slots: Sequence[SlotFacts]) -> dict[Place, Codec]:
    wanted = [slot for slot in slots if slot.dtype in ROUNDED_TYPES and slot.may_change]
    if not wanted:
        return {}
    sources = [slot for slot in slots if slot.dtype == "float32"]
    signs: Mapping[Any, list[SlotFacts]] = _by_sign(sources, {slot.dtype for slot in wanted})
    found: dict[Place, Codec] = {}
    for slot in wanted:
        sign = (slot.dtype, slot.shape, bytes(_some(slot.data, 2)))
        for source in signs.get(sign, ()):
            if _rounded_digest(source.data, slot.dtype) == slot.digest:
                found[slot.place] = (ROUNDED, {"source": list(source.place), "to": slot.dtype})
                break
    return found


def _by_sign(sources: Sequence[SlotFacts], types: set[str]) -> dict[Any, list[SlotFacts]]:
    """Return sources by what a few of their elements are when rounded."""
    signs: dict[Any, list[SlotFacts]] = {}
    for source in sources:
        some = _some(source.data, 4)
        for to in types:
            rounded = memoryview(bytearray(len(some) // 2))
            round_floats(some, to, rounded)
            signs.setdefault((to, source.shape, bytes(rounded)), []).append(source)
    return signs


def _some(data: memoryview, item_bytes: int) -> memoryview:
    """Return elements from all over a tensor, the same ones for each size of elements."""
    count = len(data) // item_bytes
    step = max(1, count // COMPARED_ELEMENTS)
    return memoryview(b"".join(data[index * item_bytes : (index + 1) * item_bytes] for index in range(0, count, step)))


def _rounded_digest(data: memoryview, to: str) -> bytes:
    hasher = Hasher()
    for begin in range(0, len(data), PIECE_BYTES):
        piece = data[begin : begin + PIECE_BYTES]
        rounded = memoryview(bytearray(len(piece) // 2))
        round_floats(piece, to, rounded)
        hasher.update(rounded)
    return hasher.digest()
