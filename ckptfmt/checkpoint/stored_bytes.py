"""The stored bytes of one slot, read in order and hashed as they pass: each byte of the disk is read once. Spec 6, 12."""

from __future__ import annotations

from ckptfmt.checkpoint.shard_file import ShardFile
from ckptfmt.errors import FormatError
from ckptfmt.format.digest import Hasher

PIECE_BYTES = 4 * 2**20


class StoredBytes:
    """One slot being read. A small one is read at once, a larger one in pieces."""

    def __init__(self, shard: ShardFile, slot: int, *, verify: bool) -> None:
        self.size_bytes = shard.table.sizes[slot]
        self._shard = shard
        self._slot = slot
        self._hasher = Hasher() if verify else None
        self._position = 0
        self._whole = memoryview(shard.read_stored(slot, 0, self.size_bytes)) if self.size_bytes <= PIECE_BYTES else None

    def peek(self, begin: int, end: int) -> memoryview:
        """Return a range without counting it as verified."""
        if self._whole is not None:
            return self._whole[begin:end]
        return memoryview(self._shard.read_stored(self._slot, begin, end - begin))

    def take(self, end: int) -> memoryview:
        """Return what lies between the range that was taken last and `end`."""
        piece = self.peek(self._position, end)
        if self._hasher is not None:
            self._hasher.update(piece)
        self._position = end
        return piece

    def check(self) -> None:
        """Hash what was not taken yet, and check the digest of all.

        Raises:
            CorruptError: it differs.
        """
        if self._hasher is None:
            return
        while self._position < self.size_bytes:
            self.take(min(self.size_bytes, self._position + PIECE_BYTES))
        self._shard.check_slot(self._slot, self._hasher.digest())

    def blamed_for(self, error: FormatError) -> FormatError:
        """Return the error of damaged bytes where they are what made decoding fail, and otherwise the given one."""
        try:
            self.check()
        except FormatError as damage:
            return damage
        return error
