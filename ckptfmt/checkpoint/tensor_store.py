"""The tensors of an open checkpoint: which slots each needs, and assembling its chunks. Spec 9, 12."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from ckptfmt.checkpoint.many_slots import decode_slots
from ckptfmt.checkpoint.shard_file import ShardFile, uses_by_shard
from ckptfmt.checkpoint.slot_decoding import SlotDecoder
from ckptfmt.checkpoint.slot_pass import OnDamage, Progress, Slot, SlotPass
from ckptfmt.format.metadata import Chunk, Metadata, TensorIndex, TensorRow
from ckptfmt.state.tensors import TensorMemory


class TensorStore:
    """Rows of the index as memory. The bytes of each slot are verified before they are handed out.

    A slot that was verified where it is mapped is handed out from there, as often as it is asked for. One that was read into memory is
    handed out once, and read again after that, so that nothing is held that nobody uses.
    """

    def __init__(self, metadata: Metadata, shards: Mapping[int, ShardFile], *, verify: bool) -> None:
        self.metadata = metadata
        self.shards = shards
        self._verify = verify
        self._verified: set[Slot] = set()
        self._read: dict[Slot, memoryview] = {}
        self.decoder = SlotDecoder(shards, verify=verify)

    def check_headers(self, rows: Iterable[int]) -> None:
        """Check the header of every shard that holds some of these rows."""
        uses = uses_by_shard(self.metadata)
        for shard in sorted(TensorIndex.of(self.metadata.tensors).shards_of(rows)):
            self.shards[shard].check_header(uses[shard], verify=self._verify)

    def prepare(self, rows: Iterable[int]) -> None:
        """Verify every slot of some rows, with all cores; what lies on the device is read into memory, for `memory` to hand out.

        Encoded slots are verified when they are decoded.
        """
        slots: set[Slot] = set()
        wanted: set[Slot] = set()
        for number in rows:
            row = self.metadata.tensors[number]
            places = self._plain_slots([number])
            slots.update(places)
            if _is_whole(row):
                wanted.update(places)
        self._pass(slots, wanted)

    def decode_rows(self, rows: Iterable[int]) -> None:
        """Decode what is encoded of some rows, verified, with all cores, for `memory` to hand out."""
        whole = (self.metadata.tensors[row].chunks[0] for row in rows if _is_whole(self.metadata.tensors[row]))
        decode_slots(self.decoder, ((chunk.shard, chunk.slot) for chunk in whole))

    def prepare_slots(self, slots: Iterable[Slot]) -> None:
        """Verify some slots, with all cores, and decode what is encoded, for `chunk_bytes` to hand out."""
        found = set(slots)
        plain = {slot for slot in found if self.decoder.encoding(slot) is None}
        self._pass(plain, plain)
        decode_slots(self.decoder, found - plain)

    def _plain_slots(self, rows: Iterable[int]) -> set[Slot]:
        slots = {(chunk.shard, chunk.slot) for row in rows for chunk in self.metadata.tensors[row].chunks}
        return {slot for slot in slots if self.decoder.encoding(slot) is None}

    def verify_rows(self, rows: Iterable[int], *, on_bytes: Progress | None = None) -> None:
        """Verify every slot of some rows where it is mapped, with all cores; encoded ones are verified when they are decoded."""
        self._pass(self._plain_slots(rows), (), on_bytes)

    def _pass(self, slots: Collection[Slot], wanted: Collection[Slot], on_bytes: Progress | None = None) -> None:
        missing = sorted(slot for slot in slots if slot not in self._verified and slot not in self._read)
        if missing and (self._verify or wanted):
            found = SlotPass(self.shards, verify=self._verify, on_bytes=on_bytes)
            found.run(missing, wanted=wanted)
            self._read.update(found.memory)
            self._verified.update(found.sound - found.memory.keys())

    def verify_slots(self, slots: Sequence[Slot], *, on_bytes: Progress | None = None, on_damage: OnDamage | None = None) -> None:
        """Verify some slots in their files, with all cores; nothing of them is kept.

        Raises for the first damaged one in file order; with `on_damage` tells of each and goes on. The callbacks
        are called by several threads, one at a time.
        """
        found = SlotPass(self.shards, verify=True, on_bytes=on_bytes, on_damage=on_damage)
        found.run(slots)
        self._verified |= found.sound

    def forget_read(self) -> None:
        """Let go of memory that was read or decoded and not handed out."""
        self._read.clear()
        self.decoder.kept.clear()

    def memory(self, row_index: int) -> TensorMemory:
        """Return one tensor's bytes, verified, in memory that belongs to the caller."""
        row = self.metadata.tensors[row_index]
        self.prepare([row_index])
        if _is_whole(row):
            data = self.chunk_bytes(row.chunks[0])
        else:
            data = memoryview(bytearray(row.size_bytes))
            for chunk in row.chunks:
                if (part := _find_contiguous(data, row, chunk)) is not None and self.decoder.encoding((chunk.shard, chunk.slot)):
                    self.decoder.decode((chunk.shard, chunk.slot), part)
                else:
                    _place(data, self.chunk_bytes(chunk), row, chunk)
        return TensorMemory(row.dtype, row.shape, data)

    def chunk_bytes(self, chunk: Chunk) -> memoryview:
        """Return the bytes of a chunk, in memory that belongs to the caller."""
        slot = (chunk.shard, chunk.slot)
        if self.decoder.encoding(slot) is not None:
            kept = self.decoder.kept.pop(slot, None)
            return kept if kept is not None else self.decoder.decode(slot)
        data = self._read.pop(slot, None)
        return data if data is not None else self.shards[chunk.shard].stored(chunk.slot)

    def run_memory(self, row_index: int, begin: int, end: int) -> TensorMemory | None:
        """Return a run of a tensor's first dimension, decoding no more than its blocks; None where it is not encoded as a whole."""
        row = self.metadata.tensors[row_index]
        if not _is_whole(row) or not row.shape or self.decoder.encoding((row.chunks[0].shard, row.chunks[0].slot)) is None:
            return None
        row_bytes = row.size_bytes // max(1, row.shape[0])
        data = self.decoder.read_range((row.chunks[0].shard, row.chunks[0].slot), begin * row_bytes, end * row_bytes)
        return TensorMemory(row.dtype, (end - begin, *row.shape[1:]), data)


def _find_contiguous(data: memoryview, row: TensorRow, chunk: Chunk) -> memoryview | None:
    """Return the part of a tensor's bytes that is a chunk, None where its bytes lie apart."""
    if chunk.shape[1:] != row.shape[1:] or not row.size_bytes:
        return None
    row_bytes = row.size_bytes // row.shape[0] if row.shape else row.size_bytes
    begin = chunk.offset[0] * row_bytes if row.shape else 0
    return data[begin : begin + math.prod(chunk.shape[:1]) * row_bytes]


def _is_whole(row: TensorRow) -> bool:
    return len(row.chunks) == 1 and row.chunks[0].shape == row.shape


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
