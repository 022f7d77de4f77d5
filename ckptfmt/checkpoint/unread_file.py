"""A file of a store that a manifest names, looked for when it is read: what is wrong with it then is what opening it would have found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ckptfmt.disk.protocol import FileStatus
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.disk.remote_files import SizeDiffersError
from ckptfmt.format.manifest import FileEntry
from ckptfmt.format.rules import violation


class UnreadFile:
    """Does as a `ReadableFile`; reads raise a CorruptError where the object is missing or of another size."""

    link_count = 1

    def __init__(self, directory: RemoteDirectory, entry: FileEntry) -> None:
        self._where = f"{directory.path}/{entry.name}"
        self._file = directory.open_declared(entry.name, entry.size_bytes)

    @property
    def size_bytes(self) -> int:
        """Size as the manifest declares it."""
        return self._file.size_bytes

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read a range."""
        with self._judging():
            return self._file.read(offset_bytes, size_bytes)

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Fill memory from a range."""
        with self._judging():
            return self._file.read_into(offset_bytes, target)

    def map_private(self) -> memoryview:
        """Read everything into memory of the caller."""
        with self._judging():
            return self._file.map_private()

    @contextmanager
    def _judging(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            advice = "The checkpoint is incomplete, or was replaced while it was read; open it again."
            raise violation("E012", self._where, advice=advice) from None
        except SizeDiffersError as error:
            expected, found = f"{self.size_bytes} bytes", f"{error.found_bytes} bytes"
            advice = "The file is truncated or damaged; use another copy."
            raise violation("E014", self._where, expected=expected, found=found, advice=advice) from None

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Return True: nothing of a store can be mapped."""
        return self._file.is_cold(offset_bytes, size_bytes)

    def prefetch(self, offset_bytes: int, size_bytes: int) -> None:
        """Do nothing: what is read is not kept."""

    def status(self) -> FileStatus | None:
        """Return None: nobody has asked."""
        return None

    def close(self) -> None:
        """Close."""
        self._file.close()
