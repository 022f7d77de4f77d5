"""Whether boxes tile a larger one: the geometry of a tensor that is stored in several chunks. Spec 9.3.

Pure and without recursion; its time is about linear in the number of boxes for everything that a grid could be.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TypeVar

MAX_CORNERS = 2**24


class Box(Protocol):
    """A rectangular part of a tensor."""

    @property
    def offset(self) -> tuple[int, ...]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


AnyBox = TypeVar("AnyBox", bound=Box)


def is_grid(offsets: Sequence[tuple[int, ...]], shapes: Sequence[tuple[int, ...]], full: tuple[int, ...]) -> bool:
    """Tell whether boxes are the cells of a grid over a tensor, each once: then they cover it exactly once."""
    count = 1
    for axis, size in enumerate(full):
        end = 0
        spans = sorted({(offset[axis], shape[axis]) for offset, shape in zip(offsets, shapes, strict=True)})
        for begin, length in spans:
            if begin != end or not length:
                return False
            end += length
        if end != size:
            return False
        count *= len(spans)
    return count == len(offsets) == len(set(offsets))


def covers_once(boxes: Sequence[Box], full: tuple[int, ...]) -> bool:
    """Tell whether boxes cover a tensor exactly once, in time linear in their number however they lie.

    Each box is the sum of its corners, counted as 1 or -1 by the parity of the far sides on which they lie; no other sum of corners
    is that box. So the corners of the boxes add up to those of the tensor exactly if the boxes do. Dimensions that every
    box spans have no say; an arrangement in so many others that its corners cannot be counted is taken for none.
    """
    axes = [axis for axis, size in enumerate(full) if any(box.shape[axis] != size for box in boxes)]
    if len(boxes) << len(axes) > MAX_CORNERS:
        return False
    corners: Counter[tuple[int, ...]] = Counter()
    placed = [(box.offset, box.shape, 1) for box in boxes]
    for offset, shape, weight in [*placed, ((0,) * len(full), full, -1)]:
        sides = [(offset[axis], offset[axis] + shape[axis]) for axis in axes]
        for number, corner in enumerate(itertools.product(*sides)):
            corners[corner] += -weight if number.bit_count() % 2 else weight
    return not any(corners.values())


def find_overlap(boxes: Sequence[AnyBox]) -> tuple[AnyBox, AnyBox] | None:
    """Find two boxes that share an element.

    Straight cuts take the boxes apart, one dimension after the other, as every grid allows; only what no cut separates
    is compared pair by pair.
    """
    pending = [list(boxes)]
    while pending:
        group = pending.pop()
        if len(group) < 2:
            continue
        parts = next((parts for axis in range(len(group[0].shape)) if len(parts := _cut(group, axis)) > 1), None)
        if parts is not None:
            pending += parts
        elif (overlap := next(((a, b) for a, b in itertools.combinations(group, 2) if _overlaps(a, b)), None)) is not None:
            return overlap
    return None


def _cut(boxes: list[AnyBox], axis: int) -> list[list[AnyBox]]:
    """Separate boxes wherever a plane across one dimension touches none of them."""
    parts: list[list[AnyBox]] = []
    end = -1
    for box in sorted(boxes, key=lambda box: box.offset[axis]):
        if box.offset[axis] >= end:
            parts.append([])
        parts[-1].append(box)
        end = max(end, box.offset[axis] + box.shape[axis])
    return parts


def _overlaps(a: Box, b: Box) -> bool:
    return all(i < j + t and j < i + s for i, s, j, t in zip(a.offset, a.shape, b.offset, b.shape, strict=True))
