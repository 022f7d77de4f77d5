"""The files of a checkpoint, open for reading: all of them from the beginning, or, of very many, each while it is needed. Spec 12.4.

A process may have so many files open, often 1,024, and a checkpoint of many ranks has more shards than that. Then a few are open at a
time, the last used ones; nothing of them is mapped, because a map holds a file open for as long as a tensor lies in it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from ckptfmt.checkpoint.directory import open_named_file, open_to_read
from ckptfmt.checkpoint.unread_file import UnreadFile
from ckptfmt.disk.protocol import Directory, FileStatus, ReadableFile
from ckptfmt.disk.remote import RemoteDirectory
from ckptfmt.disk.remote_files import RemoteReadableFile
from ckptfmt.disk.system_calls import open_files_limit
from ckptfmt.format.manifest import FileEntry

# Of an open file there may be a map, and for direct reads another descriptor and a map of that.
_SHARE_OF_LIMIT = 8
_OPEN_AT_A_TIME = 16


class ManyFiles:
    """Opens the files that a manifest names, of which there are `count`; with `is_mapped=False` as if they were very many. Close it."""

    def __init__(self, directory: Directory, count: int, *, is_mapped: bool = True) -> None:
        self.directory = directory
        limit = max(_OPEN_AT_A_TIME, open_files_limit() // _SHARE_OF_LIMIT)
        self._is_many = (count > limit or not is_mapped) and not isinstance(directory, RemoteDirectory)
        self._lock = Lock()
        # The last used ones last, each with the number of its users at this moment.
        self._open: OrderedDict[str, tuple[ReadableFile, int]] = OrderedDict()
        self._others: list[ReadableFile] = []

    def open(self, entry: FileEntry, *, is_read: bool = True) -> ReadableFile:
        """Open a file, and check that it is there in its full size. Of a store it is looked for now, or when it `is_read`.

        Raises:
            CorruptError: it is missing, or of another size; of one that was closed meanwhile also when it is read.
        """
        if not self._is_many:
            file = open_to_read(self.directory, entry) if is_read else open_named_file(self.directory, entry)
            self._others.append(file)
            return file
        found = open_named_file(self.directory, entry)
        found.close()
        return _SometimesOpenFile(self, entry, found.link_count)

    def close(self) -> None:
        """Close all; memory that was handed out stays valid."""
        with self._lock:
            for file in [*self._others, *(file for file, _ in self._open.values())]:
                file.close()
            self._others.clear()
            self._open.clear()

    @contextmanager
    def using(self, entry: FileEntry) -> Iterator[ReadableFile]:
        """Give a file that is open as long as the block lasts; several threads may have it."""
        file = self._take(entry)
        try:
            yield file
        finally:
            self._give_back(entry.name)

    def _take(self, entry: FileEntry) -> ReadableFile:
        with self._lock:
            found = self._open.pop(entry.name, None)
            file, users = found or (open_named_file(self.directory, entry), 0)
            self._open[entry.name] = (file, users + 1)
            return file

    def _give_back(self, name: str) -> None:
        with self._lock:
            if name not in self._open:
                return
            file, users = self._open[name]
            self._open[name] = (file, users - 1)
            if len(self._open) > _OPEN_AT_A_TIME:
                idle = next((name for name, (_, users) in self._open.items() if not users), None)
                if idle is not None:
                    self._open.pop(idle)[0].close()


class _SometimesOpenFile:
    """Does as a `ReadableFile`; reads raise a CorruptError where the file has been removed, or is of another size."""

    def __init__(self, files: ManyFiles, entry: FileEntry, link_count: int) -> None:
        self._files = files
        self._entry = entry
        self.link_count = link_count

    @property
    def size_bytes(self) -> int:
        """Size as the manifest declares it."""
        return self._entry.size_bytes

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read a range."""
        with self._files.using(self._entry) as file:
            return file.read(offset_bytes, size_bytes)

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Fill memory from a range."""
        with self._files.using(self._entry) as file:
            return file.read_into(offset_bytes, target)

    def map_private(self) -> memoryview:
        """Return the whole file as memory of the caller, which keeps it open."""
        with self._files.using(self._entry) as file:
            return file.map_private()

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Return True: nothing is mapped."""
        return True

    def prefetch(self, offset_bytes: int, size_bytes: int) -> None:
        """Do nothing: nothing is mapped."""

    def status(self) -> FileStatus | None:
        """Return size, times and inode as they are now."""
        with self._files.using(self._entry) as file:
            return file.status()

    def close(self) -> None:
        """Do nothing: the files are closed together."""


def is_only_read(file: ReadableFile) -> bool:
    """Tell whether ranges of a file are to be read and nothing is to be mapped, because it is in a store or not always open."""
    return isinstance(file, (UnreadFile, _SometimesOpenFile, RemoteReadableFile))
