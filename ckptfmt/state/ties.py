"""Which tensors share memory, and how that is kept: pure planning over ranges of addresses. Spec 9.1.

Tensors whose bytes intersect form a cluster; a tensor alone needs no plan. In a cluster of equal tensors one is stored and all
refer to it. Otherwise the first one that covers all of the cluster in C order is stored, and the others become views of
it; where none does, the covered bytes are stored as they are and all are views of those. Tensors beside one another
in one buffer are independent.

Known weakness: columns of one wide matrix intersect as ranges although they share no element, so the matrix is stored.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import le

MAX_SHIFT_BYTES = 16


@dataclass(slots=True, eq=False)
class Extent:
    """Where one tensor lies: elements from `address`, all bytes within `start` to `stop`, in one `space` of addresses.

    Equal dtype, shape and strides at one address mean equal tensors. `origin` is the lowest address that is known to be
    readable; a view must begin at a multiple of `alignment` from what it views. An empty range is tied to its equals only.
    """

    space: Hashable
    address: int
    start: int
    stop: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    is_row_major: bool
    origin: int
    alignment: int

    def identity(self) -> Hashable:
        """Return what tells this tensor from others in its space."""
        return self.address, self.dtype, self.shape, self.strides


@dataclass(slots=True)
class SharedRow:
    """One row of the tensor index with several references, each the position of an extent, in order.

    `exact` refer to all of it. `views` refer to a part of it or in another way, each with its offset in bytes. The row is the
    tensor of `exact[0]`, or the bytes `start` to `stop` where no reference is exact.
    """

    exact: list[int]
    views: list[tuple[int, int]]
    start: int = 0
    stop: int = 0


def find_intersecting(starts: Sequence[int], stops: Sequence[int]) -> list[int]:
    """Return the positions of ranges that may intersect others; every one that does is among them. Quick where none does."""
    # Ranges are disjoint if and only if, each column sorted by itself, every stop is followed by a start.
    if all(map(le, sorted(stops), sorted(starts)[1:])):
        return []
    order = sorted(range(len(starts)), key=starts.__getitem__)
    begins = [starts[position] for position in order[1:]]
    reached = list(accumulate([stops[position] for position in order], max))
    meetings = [index for index, (begin, end) in enumerate(zip(begins, reached, strict=False)) if begin < end]
    return sorted({position for index in meetings for position in order[index : index + 2]})


def plan_shared_rows(extents: Sequence[Extent]) -> list[SharedRow]:
    """Plan the rows that have more than one reference; every other extent is a row of its own."""
    spaces: dict[Hashable, list[int]] = {}
    for position, extent in enumerate(extents):
        key = extent.space if extent.stop > extent.start else (extent.space, extent.identity())
        members = spaces.get(key)
        if members is None:
            spaces[key] = [position]
        else:
            members.append(position)
    rows: list[SharedRow] = []
    for members in spaces.values():
        for cluster in _clusters(members, extents):
            rows += _plan_cluster(sorted(cluster), extents)
    return rows


def _clusters(members: list[int], extents: Sequence[Extent]) -> list[list[int]]:
    """Return the groups of two and more whose ranges intersect, directly or through others."""
    if len(members) < 2:
        return []
    if extents[members[0]].stop == extents[members[0]].start:
        return [members]
    clusters: list[list[int]] = []
    members.sort(key=lambda position: extents[position].start)
    cluster: list[int] = []
    previous, reached = members[0], extents[members[0]].stop
    for position in members[1:]:
        extent = extents[position]
        if extent.start < reached:
            if not cluster:
                cluster.append(previous)
                clusters.append(cluster)
            cluster.append(position)
        elif cluster:
            cluster = []
        reached = max(reached, extent.stop)
        previous = position
    return clusters


def _plan_cluster(cluster: list[int], extents: Sequence[Extent]) -> list[SharedRow]:
    equals: dict[Hashable, list[int]] = {}
    for position in cluster:
        equals.setdefault(extents[position].identity(), []).append(position)
    if len(equals) == 1:
        return [SharedRow(cluster, [])]
    start = min(extents[position].start for position in cluster)
    stop = max(extents[position].stop for position in cluster)
    for exact in equals.values():
        extent = extents[exact[0]]
        if extent.is_row_major and (extent.start, extent.stop) == (start, stop) and _is_aligned(cluster, extents, start):
            return [SharedRow(exact, [(position, extents[position].address - start) for position in cluster if position not in exact])]
    origin = min(extents[position].origin for position in cluster if extents[position].start == start)
    for begin in range(start, max(origin, start - MAX_SHIFT_BYTES) - 1, -1):
        if _is_aligned(cluster, extents, begin):
            return [SharedRow([], [(position, extents[position].address - begin) for position in cluster], begin, stop)]
    return [SharedRow(exact, []) for exact in equals.values() if len(exact) > 1]


def _is_aligned(cluster: list[int], extents: Sequence[Extent], start: int) -> bool:
    return all((extents[position].address - start) % extents[position].alignment == 0 for position in cluster)
