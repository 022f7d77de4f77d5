"""One shard, open for reading: its header checked, its slots verified. Spec 6, 9, 12.

The file is mapped privately once; slots are views of that memory, verified in place and handed out without a copy, or are read
from the device into memory of their own. Encoded ones are read in pieces, and decoded by slot_decoding.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from operator import ne
from typing import NamedTuple

from ckptfmt.checkpoint.many_files import is_only_read
from ckptfmt.disk.protocol import ReadableFile
from ckptfmt.format.digest import digest_of, format_digest, shard_digest, short
from ckptfmt.format.dtypes import RAW, stored_form, stored_forms
from ckptfmt.format.layout import HEADER_LENGTH_BYTES
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.format.metadata import Metadata, ShardTable, TensorIndex
from ckptfmt.format.rules import violation
from ckptfmt.format.shard_header import StoredEntry, decode_header, header_size_bytes, is_header_of


class SlotUses(NamedTuple):
    """What the index says of slots of one shard, as columns: slot, element type and shape of every chunk that it places there."""

    slots: Sequence[int]
    dtypes: Sequence[str]
    shapes: Sequence[tuple[int, ...]]


def uses_by_shard(metadata: Metadata) -> list[SlotUses]:
    """Return for each shard what the index places there."""
    index = TensorIndex.of(metadata.tensors)
    if len(metadata.shards) == 1 and not index.parts:
        return [SlotUses(index.slots, index.dtypes, index.shapes)]
    uses: list[tuple[list[int], list[str], list[tuple[int, ...]]]] = [([], [], []) for _ in metadata.shards]
    for shard, slot, dtype, shape in zip(index.shards, index.slots, index.dtypes, index.shapes, strict=True):
        if shard >= 0:
            slots, dtypes, shapes = uses[shard]
            slots.append(slot)
            dtypes.append(dtype)
            shapes.append(shape)
    for row, chunks in index.parts.items():
        for chunk in chunks:
            slots, dtypes, shapes = uses[chunk.shard]
            slots.append(chunk.slot)
            dtypes.append(index.dtypes[row])
            shapes.append(chunk.shape)
    return [SlotUses(*columns) for columns in uses]


class ShardFile:
    """The slots of one open shard."""

    def __init__(self, file: ReadableFile, entry: ShardEntry, table: ShardTable, *, where: str) -> None:
        self.entry = entry
        self.table = table
        self.where = where
        self.is_only_read = is_only_read(file)
        self._file = file
        self._offsets = table.offsets()
        self._memory: memoryview | None = None

    def close(self) -> None:
        """Close the file; memory that was handed out stays valid."""
        self._file.close()

    def mapped(self) -> memoryview:
        """Return the whole file as private, writable memory; mapped once."""
        if self._memory is None:
            self._memory = self._file.map_private()
        return self._memory

    def range_of(self, first: int, last: int) -> tuple[int, int]:
        """Return where a range of slots begins and ends in the file."""
        return self._offsets[first], self._offsets[last + 1]

    def is_cold(self, begin: int, size_bytes: int) -> bool:
        """Tell whether a range of the file is better read than mapped."""
        return self._file.is_cold(begin, size_bytes)

    def read_into(self, begin: int, memory: memoryview) -> None:
        """Read a range of the file, which may end within the memory.

        Raises:
            OSError: the file became shorter since it was opened.
        """
        expected_bytes = min(len(memory), self.entry.size_bytes - begin)
        found_bytes = self._file.read_into(begin, memory)
        if found_bytes != expected_bytes:
            raise OSError(errno.EIO, f"the file shrank while it was open: {found_bytes} of {expected_bytes} bytes at {begin}", self.where)

    def prefetch(self, first: int, last: int) -> None:
        """Ask the system to read a range of slots ahead."""
        begin = self._offsets[first]
        self._file.prefetch(begin, self._offsets[last + 1] - begin)

    def check_header(self, uses: SlotUses, *, verify: bool = True) -> None:
        """Check the header against the shard's digest (with `verify`), the format, and what the index says of its slots."""
        header = self.read_header()
        size_bytes = len(header)
        if verify:
            self._check_digest(header)
        if size_bytes == self.table.header_size_bytes and self._is_as_written(header, uses):
            return
        entries = decode_header(header, file_size_bytes=self.entry.size_bytes, where=self.where)
        if size_bytes != self.table.header_size_bytes:
            raise violation("E032", self.where, "header size", expected=self.table.header_size_bytes, found=size_bytes)
        if [entry.key for entry in entries] != self.table.keys or [entry.size_bytes for entry in entries] != self.table.sizes:
            raise violation("E032", self.where, "header names other keys or sizes than the index")
        for slot, dtype, shape in zip(*uses, strict=True):
            self._check_stored_form(entries[slot], slot, dtype, shape)

    def read_header(self) -> bytes:
        """Return the bytes before the data, unverified but for their length."""
        prefix = self._file.read(0, HEADER_LENGTH_BYTES)
        return self._file.read(0, header_size_bytes(prefix, file_size_bytes=self.entry.size_bytes, where=self.where))

    def _is_as_written(self, header: bytes, uses: SlotUses) -> bool:
        """Tell whether the header is the one that the index gives, so that there is nothing to decode and compare."""
        sizes, encodings = self.table.sizes, self.table.encodings
        forms = stored_forms(uses.dtypes, uses.shapes, [sizes[slot] for slot in uses.slots])
        if encodings or uses.slots != list(range(len(sizes))):
            found, by_slot = forms, dict(zip(uses.slots, forms, strict=True))
            if len(by_slot) != len(sizes) or any(map(ne, map(by_slot.__getitem__, uses.slots), found)):
                return False
            by_slot.update((slot, (RAW, (sizes[slot],))) for slot in encodings)
            forms = [by_slot[slot] for slot in range(len(sizes))]
        return is_header_of(header, self.table.keys, forms, sizes)

    def _check_digest(self, header: bytes) -> None:
        actual = format_digest(shard_digest(header, self.table.digests))
        if actual != self.entry.digest:
            advice = "The header of this shard is damaged; use another copy."
            raise violation("E031", self.where, expected=short(self.entry.digest), found=short(actual), advice=advice)

    def _check_stored_form(self, entry: StoredEntry, slot: int, dtype: str, shape: tuple[int, ...]) -> None:
        is_encoded = slot in self.table.encodings
        expected = ("U8", (entry.size_bytes,)) if is_encoded else stored_form(dtype, shape, entry.size_bytes)
        if (entry.dtype, entry.shape) != expected:
            found = f"{entry.dtype} {list(entry.shape)}"
            what = f"stored form of {entry.key!r}"
            raise violation("E032", self.where, what, expected=f"{expected[0]} {list(expected[1])}", found=found, tensor=entry.key)

    def stored(self, slot: int) -> memoryview:
        """Return the stored bytes of a slot, unverified, as part of the private memory, or read into memory of their own."""
        return self.stored_run(slot, slot)

    def stored_run(self, first: int, last: int) -> memoryview:
        """Return the stored bytes of a range of slots as `stored` does."""
        begin, end = self.range_of(first, last)
        if not self.is_only_read:
            return self.mapped()[begin:end]
        memory = memoryview(bytearray(end - begin))
        self.read_into(begin, memory)
        return memory

    def read_stored(self, slot: int, begin: int, memory: memoryview) -> None:
        """Fill memory with some of a slot's stored bytes, unverified, without mapping the file."""
        self.read_into(self._offsets[slot] + begin, memory)

    def verify_slot(self, slot: int) -> None:
        """Check the bytes of a slot where they are mapped."""
        self.check_slot(slot, digest_of(self.stored(slot)))

    def check_slot(self, slot: int, actual: bytes) -> None:
        """Check the digest of what was found in a slot."""
        expected = self.table.digest(slot)
        if actual != expected:
            key = self.table.keys[slot]
            what = f"tensor {key!r} of section {self.entry.section!r}: digest differs"
            advice = "The data of this tensor is damaged; use another copy."
            raise violation("E040", self.where, what, expected=short(expected), found=short(actual), tensor=key, advice=advice)
