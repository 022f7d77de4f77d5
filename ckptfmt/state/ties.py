"""Which tensors share memory, and how that is kept: pure planning over ranges of addresses. Spec 9.1.

Tensors whose bytes intersect form a cluster. In a cluster of one tensor, referenced once or more, the tensor is stored.
Otherwise the first one that covers all of the cluster in C order is stored, and the others become views of it; where
none does, the covered bytes are stored as they are and all are views of those. Tensors beside one another in one buffer are
independent.

Known weakness: columns of one wide matrix intersect as ranges although they share no element, so the matrix is stored.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Extent(NamedTuple):
    """Where one tensor lies: elements from `address`, all bytes within `start` to `stop`, in one `space` of addresses.

    Equal `identity` at one address means equal tensors. `origin` is the lowest address that is known to be readable;
    a view must begin at a multiple of `alignment` from what it views. What is not `is_viewable`, or has no bytes, is tied to
    its equals only.
    """

    space: Hashable
    address: int
    start: int
    stop: int
    identity: Hashable
    is_row_major: bool
    is_viewable: bool
    origin: int
    alignment: int


@dataclass(slots=True)
class StoredRow:
    """One row of the tensor index: the tensor of extent `member`, or the bytes `start` to `stop` when `is_range`.

    `references` are the extents that refer to it: exactly, or as views, each with its offset in bytes.
    """

    member: int
    is_range: bool = False
    start: int = 0
    stop: int = 0
    exact: Sequence[int] = ()
    views: Sequence[tuple[int, int]] = ()

    def first_reference(self) -> int:
        return min(self.exact[0] if self.exact else self.views[0][0], self.views[0][0] if self.views else self.exact[0])


def plan_rows(extents: Sequence[Extent]) -> list[StoredRow]:
    """Plan the rows for tensors that are given in the order of the tree; rows are in the order of their first reference."""
    rows: list[StoredRow] = []
    spaces: dict[Hashable, list[tuple[int, int, int]]] = {}
    for number, extent in enumerate(extents):
        if extent.is_viewable and extent.stop > extent.start:
            spaces.setdefault(extent.space, []).append((extent.start, extent.stop, number))
        else:
            spaces.setdefault((extent.space, extent.address, extent.identity), []).append((0, 1, number))
    for ranges in spaces.values():
        ranges.sort()
        cluster: list[int] = []
        reached = -1
        for start, stop, number in ranges:
            if start >= reached and cluster:
                rows += _plan_cluster(cluster, extents)
                cluster = []
            cluster.append(number)
            reached = max(reached, stop)
        rows += _plan_cluster(cluster, extents)
    rows.sort(key=StoredRow.first_reference)
    return rows


def _plan_cluster(cluster: list[int], extents: Sequence[Extent]) -> list[StoredRow]:
    if len(cluster) == 1:
        return [StoredRow(cluster[0], exact=cluster)]
    cluster = sorted(cluster)
    equals: dict[Hashable, list[int]] = {}
    for number in cluster:
        equals.setdefault((extents[number].address, extents[number].identity), []).append(number)
    if len(equals) == 1:
        return [StoredRow(cluster[0], exact=cluster)]
    start = min(extents[number].start for number in cluster)
    stop = max(extents[number].stop for number in cluster)
    for exact in equals.values():
        extent = extents[exact[0]]
        if extent.is_row_major and (extent.start, extent.stop) == (start, stop) and _is_aligned(cluster, extents, start):
            views = [(number, extents[number].address - start) for number in cluster if number not in exact]
            return [StoredRow(exact[0], exact=exact, views=views)]
    origin = min(extents[number].origin for number in cluster if extents[number].start == start)
    for begin in range(start, max(origin, start - 16) - 1, -1):
        if _is_aligned(cluster, extents, begin):
            views = [(number, extents[number].address - begin) for number in cluster]
            return [StoredRow(cluster[0], is_range=True, start=begin, stop=stop, views=views)]
    return [StoredRow(exact[0], exact=exact) for exact in equals.values()]


def _is_aligned(cluster: list[int], extents: Sequence[Extent], start: int) -> bool:
    return all((extents[number].address - start) % extents[number].alignment == 0 for number in cluster)

