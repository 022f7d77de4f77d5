"""The tensors of an open checkpoint: which slots each needs, and assembling its chunks. Spec 9, 12."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from ckptfmt.checkpoint.many_slots import decode_slots
from ckptfmt.checkpoint.shard_file import ShardFile, uses_by_shard
from ckptfmt.checkpoint.slot_decoding import SlotDecoder
from ckptfmt.checkpoint.slot_pass import OnDamage, Progress, Slot, SlotPass
from ckptfmt.format.digest import digest_of
from ckptfmt.format.metadata import Chunk, Metadata, TensorIndex, TensorRow
from ckptfmt.state.tensors import TensorMemory

SMALL_PART_BYTES = 2**20
GROUP_BYTES = 64 * 2**20
_LETTERS: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


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

        Encoded slots are verified when they are decoded, and large parts of tensors that cannot be mapped when they are put together.
        """
        slots: set[Slot] = set()
        wanted: set[Slot] = set()
        for number in rows:
            row = self.metadata.tensors[number]
            places = self._plain_slots([number])
            if _is_whole(row):
                wanted.update(places)
            else:
                read = {slot for slot in places if self.shards[slot[0]].is_only_read}
                wanted.update(slot for slot in read if self.decoder.stored_size_bytes(slot) <= SMALL_PART_BYTES)
                slots.update(places - read)
        self._pass(slots | wanted, wanted)

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
            self._verified |= self._mapped_slots(found.sound - found.memory.keys())

    def _mapped_slots(self, slots: Collection[Slot]) -> set[Slot]:
        """Return the slots whose bytes will be handed out where they were verified."""
        return {slot for slot in slots if not self.shards[slot[0]].is_only_read}

    def verify_slots(self, slots: Sequence[Slot], *, on_bytes: Progress | None = None, on_damage: OnDamage | None = None) -> None:
        """Verify some slots in their files, with all cores; nothing of them is kept.

        Raises for the first damaged one in file order; with `on_damage` tells of each and goes on. The callbacks
        are called by several threads, one at a time.
        """
        found = SlotPass(self.shards, verify=True, on_bytes=on_bytes, on_damage=on_damage)
        found.run(slots)
        self._verified |= self._mapped_slots(found.sound)

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
            for chunks in self._groups(row):
                slots = {(chunk.shard, chunk.slot) for chunk in chunks}
                self._pass(plain := {slot for slot in slots if self.decoder.encoding(slot) is None}, plain)
                for chunk in chunks:
                    self._put(data, row, chunk)
        return TensorMemory(row.dtype, row.shape, data)

    def _put(self, data: memoryview, row: TensorRow, chunk: Chunk) -> None:
        """Put one chunk where it belongs in the bytes of its tensor."""
        slot = (chunk.shard, chunk.slot)
        if self.decoder.encoding(slot) is not None and (part := _find_contiguous(data, row, chunk)) is not None:
            self.decoder.decode(slot, part)
        else:
            _place(data, self.chunk_bytes(chunk), row, chunk)

    def _groups(self, row: TensorRow) -> Iterator[list[Chunk]]:
        """Yield the chunks of a tensor, so many at a time as may be in memory beside it."""
        limit_bytes = min(GROUP_BYTES, max(SMALL_PART_BYTES, row.size_bytes // 2))
        group: list[Chunk] = []
        size_bytes = 0
        for chunk in row.chunks:
            group.append(chunk)
            size_bytes += self.decoder.raw_size_bytes((chunk.shard, chunk.slot))
            if size_bytes >= limit_bytes:
                yield group
                group, size_bytes = [], 0
        if group:
            yield group

    def chunk_bytes(self, chunk: Chunk) -> memoryview:
        """Return the bytes of a chunk, in memory that belongs to the caller."""
        slot = (chunk.shard, chunk.slot)
        if self.decoder.encoding(slot) is not None:
            kept = self.decoder.kept.pop(slot, None)
            return kept if kept is not None else self.decoder.decode(slot)
        if (data := self._read.pop(slot, None)) is not None:
            return data
        shard = self.shards[chunk.shard]
        data = shard.stored(chunk.slot)
        if self._verify and shard.is_only_read:
            shard.check_slot(chunk.slot, digest_of(data))
        return data

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
    begins = [sum(offset * stride for offset, stride in zip(chunk.offset, strides, strict=True))]
    for size, stride in zip(chunk.shape[: max(axis - 1, 0)], strides, strict=False):
        begins = [begin + index * stride for begin in begins for index in range(size)]
    count, step = (chunk.shape[axis - 1], strides[axis - 1]) if axis else (1, run_bytes)
    for number, begin in enumerate(begins):
        _place_runs(target[begin:], source[number * count * run_bytes :], count, run_bytes, step, itemsize)


def _place_runs(target: memoryview, source: memoryview, count: int, run_bytes: int, step_bytes: int, itemsize: int) -> None:
    """Copy so many runs that lie one behind the other to places that lie a step apart; many short ones element by element of a run."""
    letter = _LETTERS.get(itemsize)
    if letter is None or count * itemsize <= run_bytes:
        for number in range(count):
            at = number * step_bytes
            target[at : at + run_bytes] = source[number * run_bytes : (number + 1) * run_bytes]
        return
    reach = (count - 1) * step_bytes + run_bytes
    places, values = target[:reach].cast(letter), source[: count * run_bytes].cast(letter)
    length, step = run_bytes // itemsize, step_bytes // itemsize
    for element in range(length):
        places[element::step] = values[element::length]
