"""Small tensors that lie side by side in a shard: verified together where they are mapped, and ready for use without another look.

A state may hold a hundred thousand tensors of a kilobyte, and asking for each by itself costs more than hashing it. What is not
whole, encoded, large, or among few neighbours is left to the tensor store; and so is everything if some digest differs, because
the store finds the first damaged slot and says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, pairwise

from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.format.digest import digests_of
from ckptfmt.format.layout import DIGEST_BYTES
from ckptfmt.format.metadata import Metadata, ShardTable, TensorIndex
from ckptfmt.state.row_memory import ReadyRows

SMALL_BYTES = 2**15
MIN_NEIGHBOURS = 64


def find_ready(metadata: Metadata, shards: Mapping[int, ShardFile], rows: Sequence[int], *, verify: bool) -> ReadyRows | None:
    """Return those of some rows that are small neighbours, verified; None if there are none, or one of them is damaged."""
    index = TensorIndex.of(metadata.tensors)
    members: dict[int, dict[int, int]] = {}
    for row in rows:
        if index.sizes[row] <= SMALL_BYTES and index.shards[row] >= 0:
            members.setdefault(index.shards[row], {})[index.slots[row]] = row
    memories: list[memoryview | None] = [None] * len(index)
    offsets = [-1] * len(index)
    is_found = False
    for number, row_of in members.items():
        shard = shards[number]
        begins = shard.table.offsets()
        for slots in _runs(sorted(row_of.keys() - shard.table.encodings.keys())):
            is_found = True
            shard.prefetch(slots[0], slots[-1])
            memory = shard.stored_run(slots[0], slots[-1])
            if verify and not _are_sound(shard.table, memory, slots):
                return None
            for slot in slots:
                row = row_of[slot]
                memories[row], offsets[row] = memory, begins[slot] - begins[slots.start]
    return ReadyRows(index.dtypes, index.shapes, index.sizes, memories, offsets) if is_found else None


def _runs(slots: list[int]) -> Iterator[range]:
    """Yield the runs of consecutive numbers that are long enough."""
    ends = [after for after, (one, other) in enumerate(pairwise(slots), 1) if other != one + 1]
    for first, end in pairwise(chain((0,), ends, (len(slots),))):
        if end - first >= MIN_NEIGHBOURS:
            yield range(slots[first], slots[end - 1] + 1)


def _are_sound(table: ShardTable, memory: memoryview, slots: range) -> bool:
    begin, end = slots.start, slots.stop
    return digests_of(memory, table.sizes[begin:end]) == table.digests[begin * DIGEST_BYTES : end * DIGEST_BYTES]
