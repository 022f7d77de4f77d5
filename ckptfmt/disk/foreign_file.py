"""Files of other programs: as memory of this process, as a file object for readers that want one, and written in one piece.

Links are followed, because caches of downloads consist of them. Memory of a file is writable, private and stays valid when the file goes.
"""

from __future__ import annotations

import io
import os
import secrets
from typing import TYPE_CHECKING

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.paths import make_directories, parent_of
from ckptfmt.disk.protocol import Disk, NotARegularFileError
from ckptfmt.errors import CheckpointNotFoundError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def map_file(path: str, *, disk: Disk | None = None) -> memoryview:
    """Return the content of a regular file as private memory.

    Raises:
        CheckpointNotFoundError: there is nothing, or no regular file.
    """
    disk = disk or LocalDisk()
    try:
        real = disk.real_path(path)
        directory = disk.open_directory(parent_of(real))
        try:
            file = directory.open(os.path.basename(real))
        finally:
            directory.close()
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointNotFoundError(f"{path}: no such file", path=path) from None
    except (NotARegularFileError, IsADirectoryError):
        raise CheckpointNotFoundError(f"{path}: not a regular file", path=path) from None
    try:
        return file.map_private()
    finally:
        file.close()


def is_directory(path: str, *, disk: Disk | None = None) -> bool:
    """Tell whether a path is that of a directory."""
    try:
        (disk or LocalDisk()).open_directory(path).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def names_in(path: str, *, disk: Disk | None = None) -> set[str]:
    """Return the names in a directory, none where there is no directory."""
    try:
        directory = (disk or LocalDisk()).open_directory(path)
    except (FileNotFoundError, NotADirectoryError):
        return set()
    try:
        return set(directory.names())
    finally:
        directory.close()


def open_memory(memory: memoryview) -> io.BufferedReader:
    """Return memory as a file object for reading."""
    return io.BufferedReader(_MemoryFile(memory))


class _MemoryFile(io.RawIOBase):
    def __init__(self, memory: memoryview) -> None:
        super().__init__()
        self._memory = memory
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._memory)}[whence]
        if base + offset < 0:
            raise ValueError("position before the start of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        target = memoryview(buffer).cast("B")
        found = self._memory[self._position : self._position + len(target)]
        target[: len(found)] = found
        self._position += len(found)
        return len(found)


def write_file(path: str, data: bytes, *, disk: Disk | None = None) -> None:
    """Write a small file that another program will read: whole, durable, replacing what was there. Its directory is made."""
    disk = disk or LocalDisk()
    make_directories(disk, parent_of(path))
    directory = disk.open_directory(parent_of(path))
    try:
        temporary = f".{os.path.basename(path)}.{secrets.token_hex(8)}.tmp"
        file = directory.create(temporary, size_bytes=len(data))
        try:
            file.write(data)
            file.sync()
        finally:
            file.close()
        directory.rename(temporary, os.path.basename(path))
        directory.sync()
    finally:
        directory.close()
