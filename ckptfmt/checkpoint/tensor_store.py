"""The tensors of an open checkpoint: which slots each needs, verifying them in parallel, and assembling chunks. Spec 9, 12."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from threading import Lock

from ckptfmt.checkpoint.shard_file import ShardFile, uses_by_shard
from ckptfmt.errors import FormatError
from ckptfmt.format.metadata import Chunk, Metadata, TensorRow
from ckptfmt.state.tensors import TensorMemory

_BATCH_BYTES = 16 * 2**20
_READ_AHEAD = 6

Slot = tuple[int, int]
Progress = Callable[[int], None]
OnDamage = Callable[[FormatError], None]


class TensorStore:
    """Rows of the index as memory. Each slot is verified once, before its bytes are handed out."""

    def __init__(self, metadata: Metadata, shards: Mapping[int, ShardFile], *, verify: bool) -> None:
        self.metadata = metadata
        self.shards = shards
        self._verify = verify
        self._verified: set[Slot] = set()

    def check_headers(self, rows: Iterable[int]) -> None:
        """Check the header of every shard that holds some of these rows."""
        uses = uses_by_shard(self.metadata)
        for shard in sorted({chunk.shard for row in rows for chunk in self.metadata.tensors[row].chunks}):
            self.shards[shard].check_header(uses[shard], verify=self._verify)

    def verify_rows(self, rows: Iterable[int], *, on_bytes: Progress | None = None) -> None:
        """Verify every slot of some rows, with all cores and read-ahead."""
        slots = {(chunk.shard, chunk.slot) for row in rows for chunk in self.metadata.tensors[row].chunks}
        if self._verify and not slots <= self._verified:
            self.verify_slots(sorted(slots - self._verified), on_bytes=on_bytes)

    def verify_slots(self, slots: Sequence[Slot], *, on_bytes: Progress | None = None, on_damage: OnDamage | None = None) -> None:
        """Verify some slots, with all cores and read-ahead.

        Raises for the first damaged one in file order; with `on_damage` tells of each and goes on. The callbacks
        are called by several threads, one at a time.
        """
        lock = Lock()

        def report(size_bytes: int, damage: FormatError | None) -> None:
            with lock:
                if damage is not None and on_damage is not None:
                    on_damage(damage)
                if on_bytes is not None:
                    on_bytes(size_bytes)

        threads = os.cpu_count() or 1
        batches = list(self._batches(slots))
        if len(batches) < 2 or threads < 2:
            for batch in batches:
                self._verify_batch(batch, report, is_strict=on_damage is None)
            return
        # Mapped here, because two threads that map at the same time would map twice.
        for shard in sorted({shard for shard, _ in slots}):
            self.shards[shard].mapped()
        for batch in batches[:_READ_AHEAD]:
            self._prefetch(batch)

        def verify(index: int) -> None:
            if index + _READ_AHEAD < len(batches):
                self._prefetch(batches[index + _READ_AHEAD])
            self._verify_batch(batches[index], report, is_strict=on_damage is None)

        with ThreadPoolExecutor(threads, thread_name_prefix="ckptfmt-verify") as pool:
            for _ in pool.map(verify, range(len(batches))):
                pass

    def is_verified(self, shard: int, slot: int) -> bool:
        """Tell whether the stored bytes of a slot have been found sound."""
        return (shard, slot) in self._verified

    def _prefetch(self, batch: Sequence[Slot]) -> None:
        for shard, slots in groupby(batch, key=itemgetter(0)):
            members = [slot for _, slot in slots]
            self.shards[shard].prefetch(members[0], members[-1])

    def _batches(self, slots: Sequence[Slot]) -> Iterator[list[Slot]]:
        batch: list[Slot] = []
        size_bytes = 0
        for shard, slot in slots:
            batch.append((shard, slot))
            size_bytes += self.shards[shard].table.sizes[slot]
            if size_bytes >= _BATCH_BYTES:
                yield batch
                batch, size_bytes = [], 0
        if batch:
            yield batch

    def _verify_batch(self, batch: Sequence[Slot], report: Callable[[int, FormatError | None], None], *, is_strict: bool) -> None:
        size_bytes = 0
        sound: list[Slot] = []
        for shard, slot in batch:
            try:
                self.shards[shard].verify_slot(slot)
                sound.append((shard, slot))
            except FormatError as error:
                if is_strict:
                    raise
                report(0, error)
            size_bytes += self.shards[shard].table.sizes[slot]
        self._verified.update(sound)
        report(size_bytes, None)

    def memory(self, row_index: int) -> TensorMemory:
        """Return one tensor's bytes, verified, in memory that belongs to the caller."""
        row = self.metadata.tensors[row_index]
        self.verify_rows([row_index])
        if len(row.chunks) == 1 and row.chunks[0].shape == row.shape:
            data = self._chunk_bytes(row.chunks[0])
        else:
            data = memoryview(bytearray(row.size_bytes))
            for chunk in row.chunks:
                _place(data, self._chunk_bytes(chunk), row, chunk)
        return TensorMemory(row.dtype, row.shape, data)

    def _chunk_bytes(self, chunk: Chunk) -> memoryview:
        return self.shards[chunk.shard].chunk_bytes(chunk.slot, verify=self._verify)


def _place(target: memoryview, source: memoryview, row: TensorRow, chunk: Chunk) -> None:
    """Copy a chunk's bytes to where they belong in the row-major bytes of the whole tensor, run by run."""
    if not len(source):
        return
    itemsize = row.size_bytes // math.prod(row.shape)
    rank = len(row.shape)
    # Trailing dimensions that the chunk covers fully are one run, together with the one before them.
    axis = rank
    while axis > 0 and chunk.shape[axis - 1] == row.shape[axis - 1]:
        axis -= 1
    axis = max(axis - 1, 0)
    run_bytes = math.prod(chunk.shape[axis:]) * itemsize
    strides = [math.prod(row.shape[dimension + 1 :]) * itemsize for dimension in range(rank)]
    base = sum(offset * stride for offset, stride in zip(chunk.offset, strides, strict=True))
    position = [0] * axis
    for begin in range(0, len(source), run_bytes):
        at = base + sum(index * stride for index, stride in zip(position, strides, strict=False))
        target[at : at + run_bytes] = source[begin : begin + run_bytes]
        for dimension in reversed(range(axis)):
            position[dimension] += 1
            if position[dimension] < chunk.shape[dimension]:
                break
            position[dimension] = 0
