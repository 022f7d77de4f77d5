"""One shard, open for reading: its header checked, its slots verified. Spec 6, 9, 12.

The file is mapped privately once; slots are views of that memory, verified in place and handed out without a copy, or are read
from the device into memory of their own. Encoded ones are read in pieces, and decoded by slot_decoding.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

from ckptfmt.disk.protocol import ReadableFile
from ckptfmt.format.digest import digest_of, format_digest, shard_digest, short
from ckptfmt.format.dtypes import stored_form
from ckptfmt.format.layout import HEADER_LENGTH_BYTES
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.format.metadata import Metadata, ShardTable
from ckptfmt.format.rules import violation
from ckptfmt.format.shard_header import StoredEntry, decode_header, header_size_bytes

SlotUse = tuple[int, str, tuple[int, ...]]


def uses_by_shard(metadata: Metadata) -> list[list[SlotUse]]:
    """Return for each shard (slot, element type, shape) of every chunk that the index places there."""
    uses: list[list[SlotUse]] = [[] for _ in metadata.shards]
    for row in metadata.tensors:
        for chunk in row.chunks:
            uses[chunk.shard].append((chunk.slot, row.dtype, chunk.shape))
    return uses


class ShardFile:
    """The slots of one open shard."""

    def __init__(self, file: ReadableFile, entry: ShardEntry, table: ShardTable, *, where: str) -> None:
        self.entry = entry
        self.table = table
        self.where = where
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

    def check_header(self, uses: Sequence[SlotUse], *, verify: bool = True) -> None:
        """Check the header against the shard's digest (with `verify`), the format, and what the index says of its slots."""
        header = self.read_header()
        size_bytes = len(header)
        if verify:
            self._check_digest(header)
        entries = decode_header(header, file_size_bytes=self.entry.size_bytes, where=self.where)
        if size_bytes != self.table.header_size_bytes:
            raise violation("E032", self.where, "header size", expected=self.table.header_size_bytes, found=size_bytes)
        if [entry.key for entry in entries] != self.table.keys or [entry.size_bytes for entry in entries] != self.table.sizes:
            raise violation("E032", self.where, "header names other keys or sizes than the index")
        for slot, dtype, shape in uses:
            self._check_stored_form(entries[slot], slot, dtype, shape)

    def read_header(self) -> bytes:
        """Return the bytes before the data, unverified but for their length."""
        prefix = self._file.read(0, HEADER_LENGTH_BYTES)
        return self._file.read(0, header_size_bytes(prefix, file_size_bytes=self.entry.size_bytes, where=self.where))

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
        """Return the stored bytes of a slot, unverified, as part of the private memory."""
        return self.mapped()[self._offsets[slot] : self._offsets[slot + 1]]

    def read_stored(self, slot: int, begin: int, size_bytes: int) -> bytes:
        """Read some of a slot's stored bytes, unverified, without mapping the file."""
        data = self._file.read(self._offsets[slot] + begin, size_bytes)
        if len(data) != size_bytes:
            where = self._offsets[slot] + begin
            raise OSError(errno.EIO, f"the file shrank while it was open: {len(data)} of {size_bytes} bytes at {where}", self.where)
        return data

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
