"""Where encoded bytes wait until the size of all of a shard's slots is known: in memory, and beyond a limit in a temporary file. Spec 6.

A shard's header stands before its data and holds their sizes. The file has a temporary name, so what a kill leaves of it is swept by
the next writer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ckptfmt.checkpoint.staging import Staging
from ckptfmt.disk.protocol import WritableFile

MEMORY_BYTES = 32 * 2**20
PIECE_BYTES = 4 * 2**20


class Spool:
    """Bytes that were appended, and can be read again. Use as a context manager: leaving it removes the file."""

    def __init__(self, staging: Staging) -> None:
        self.size_bytes = 0
        self._staging = staging
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._file: WritableFile | None = None
        self._name = ""

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._staging.discard(self._file, self._name)

    def append(self, data: bytes) -> None:
        """Append bytes."""
        self._parts.append(data)
        self._kept_bytes += len(data)
        self.size_bytes += len(data)
        if self._kept_bytes > MEMORY_BYTES:
            self._write_out()

    def _write_out(self) -> None:
        if self._file is None:
            self._file = self._staging.create("spool", size_bytes=0)
            self._name = self._staging.last_created
        for part in self._parts:
            self._file.write(part)
        self._parts, self._kept_bytes = [], 0

    def pieces(self, begin: int, end: int) -> Iterator[memoryview]:
        """Give a range again; nothing is appended after the first call."""
        if self._file is None:
            yield from _ranges(self._parts, begin, end)
            return
        self._write_out()
        with suppress(OSError):
            self._file.close()
        file = self._staging.directory.open(self._name)
        try:
            for start in range(begin, end, PIECE_BYTES):
                size_bytes = min(PIECE_BYTES, end - start)
                piece = file.read(start, size_bytes)
                if len(piece) != size_bytes:
                    raise OSError(f"{self._staging.path}/{self._name}: ends early")
                yield memoryview(piece)
        finally:
            file.close()


def _ranges(parts: list[bytes], begin: int, end: int) -> Iterator[memoryview]:
    position = 0
    for part in parts:
        first, last = max(begin - position, 0), min(end - position, len(part))
        if first < last:
            yield memoryview(part)[first:last]
        position += len(part)
