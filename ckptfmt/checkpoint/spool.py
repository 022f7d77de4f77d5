"""Where encoded bytes wait until the size of all of a shard's slots is known: in memory, and beyond a limit in a temporary file. Spec 6.

A shard's header stands before its data and holds their sizes. The file has a temporary name, so what a kill leaves of it is swept by
the next writer.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress

from ckptfmt.checkpoint.piece_buffers import BUFFERS, PIECE_BYTES
from ckptfmt.checkpoint.staging import Staging
from ckptfmt.disk.protocol import WritableFile

MEMORY_BYTES = 16 * 2**20


class Spool:
    """Bytes that were appended, and can be read again. Use as a context manager: leaving it removes the file."""

    def __init__(self, staging: Staging) -> None:
        self.size_bytes = 0
        self._staging = staging
        self._memory = bytearray()
        self._file: WritableFile | None = None
        self._name = ""

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._staging.discard(self._file, self._name)

    def append(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self.size_bytes += len(data)
        if self._file is None and self.size_bytes <= MEMORY_BYTES:
            self._memory += data
        else:
            self._write(data)

    def _write(self, data: bytes | memoryview) -> None:
        if self._file is None:
            self._file = self._staging.create("spool", size_bytes=0)
            self._name = self._staging.last_created
            self._file.write(self._memory)
            self._memory = bytearray()
        self._file.write(data)

    def pieces(self, begin: int, end: int) -> Iterator[memoryview]:
        """Give a range again, in pieces that are valid until the next; nothing is appended after the first call."""
        if self._file is None:
            yield memoryview(self._memory)[begin:end]
            return
        with suppress(OSError):
            self._file.close()
        file = self._staging.directory.open(self._name)
        buffer = BUFFERS.take(PIECE_BYTES)
        try:
            for start in range(begin, end, PIECE_BYTES):
                piece = buffer[: min(PIECE_BYTES, end - start)]
                if file.read_into(start, piece) != len(piece):
                    raise OSError(errno.EIO, "what was written is not there", f"{self._staging.path}/{self._name}")
                yield piece
        finally:
            BUFFERS.give_back(buffer)
            file.close()
