"""Open files of the memory disk: the mirror of local_files, with a bytearray in the place of a device."""

from __future__ import annotations

import errno

from ckptfmt.disk.memory_store import MemoryStore
from ckptfmt.disk.poison import Poison
from ckptfmt.disk.protocol import Buffer, FileStatus


class MemoryWritableFile:
    """A new file that was just created."""

    def __init__(self, store: MemoryStore, inode: int, path: str) -> None:
        self._store = store
        self._inode = inode
        self._path = path
        self._poison = Poison(path)
        self._is_closed = False

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        self._check_open()
        view = memoryview(data)
        # An empty view cannot be cast when its shape holds a zero.
        rest = view.cast("B") if view.nbytes else memoryview(b"")
        with self._poison.guard():
            while rest:
                taken_bytes = self._store.append(self._inode, rest, self._path)
                if taken_bytes == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and reported no error")
                rest = rest[taken_bytes:]

    def sync(self) -> None:
        """Count as a sync; a failure poisons the file."""
        self._check_open()
        with self._poison.guard(), self._store.operation("sync", self._path):
            pass

    def close(self) -> None:
        """Close; the content is fixed from now on."""
        if self._is_closed:
            return
        self._is_closed = True
        self._store.seal(self._inode)
        with self._store.operation("close", self._path):
            pass

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._path}: already closed")


class MemoryReadableFile:
    """A regular file, open for reading: its content as it was when it was opened."""

    def __init__(self, store: MemoryStore, content: bytes, path: str, link_count: int) -> None:
        self._store = store
        self._content = content
        self._path = path
        self._link_count = link_count
        self._is_closed = False

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""
        return len(self._content)

    @property
    def link_count(self) -> int:
        """How many names shared it when it was opened."""
        return self._link_count

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read a range."""
        if offset_bytes < 0 or size_bytes < 0:
            raise ValueError(f"{self._path}: negative range: offset {offset_bytes}, size {size_bytes}")
        self._check_open()
        with self._store.operation("read", self._path):
            return self._content[offset_bytes : offset_bytes + size_bytes]

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Return False: everything is in memory."""
        return False

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Fill memory from a range."""
        found = self.read(offset_bytes, len(target))
        target[: len(found)] = found
        return len(found)

    def map_private(self) -> memoryview:
        """Return a writable copy of the whole file."""
        self._check_open()
        with self._store.operation("map_private", self._path):
            return memoryview(bytearray(self._content))

    def prefetch(self, offset_bytes: int, size_bytes: int) -> None:
        """Do nothing."""

    def status(self) -> FileStatus | None:
        """Return None: there are no times."""
        return None

    def close(self) -> None:
        """Close; maps stay valid."""
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._path}: already closed")
