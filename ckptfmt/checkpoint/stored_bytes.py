"""The stored bytes of one slot, read in order and hashed as they pass: each byte of the disk is read once. Spec 6, 12."""

from __future__ import annotations

from ckptfmt.checkpoint.piece_buffers import BUFFERS, PIECE_BYTES
from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.errors import FormatError
from ckptfmt.format.digest import Hasher

WHOLE_BYTES = 2**18


class StoredBytes:
    """One slot being read. A small one is read at once, a larger one in pieces."""

    def __init__(self, shard: ShardFile, slot: int, *, verify: bool) -> None:
        self.size_bytes = shard.table.sizes[slot]
        self._shard = shard
        self._slot = slot
        self._hasher = Hasher() if verify else None
        self._position = 0
        self._whole: memoryview | None = None
        if self.size_bytes <= WHOLE_BYTES:
            self._whole = self.peek(0, self.size_bytes)

    def peek(self, begin: int, end: int) -> memoryview:
        """Return a range, in memory of its own, without counting it as verified."""
        if self._whole is not None:
            return self._whole[begin:end]
        return self._read(begin, memoryview(bytearray(end - begin)))

    def take(self, end: int, buffer: memoryview | None = None) -> memoryview:
        """Return what lies between the range that was taken last and `end`; with `buffer`, where it has room, in that."""
        size_bytes = end - self._position
        if self._whole is not None or buffer is None or len(buffer) < size_bytes:
            piece = self.peek(self._position, end)
        else:
            piece = self._read(self._position, buffer[:size_bytes])
        if self._hasher is not None:
            self._hasher.update(piece)
        self._position = end
        return piece

    def _read(self, begin: int, memory: memoryview) -> memoryview:
        self._shard.read_stored(self._slot, begin, memory)
        return memory

    def check(self) -> None:
        """Hash what was not taken yet, and check the digest of all.

        Raises:
            CorruptError: it differs.
        """
        if self._hasher is None:
            return
        buffer = BUFFERS.take(PIECE_BYTES)
        while self._position < self.size_bytes:
            self.take(min(self.size_bytes, self._position + PIECE_BYTES), buffer)
        BUFFERS.give_back(buffer)
        self._shard.check_slot(self._slot, self._hasher.digest())

    def blamed_for(self, error: FormatError) -> FormatError:
        """Return the error of damaged bytes where they are what made decoding fail, and otherwise the given one."""
        try:
            self.check()
        except FormatError as damage:
            return damage
        return error
