"""What a memory disk holds: names by directory and bytes by file, both by inode number.

Hard links, files that are open without a name, and locks come out as on a real disk because names and inodes are
kept apart. The value of a whole disk is a `Tree`: plain dictionaries, copied in microseconds.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ckptfmt.disk.faults import FaultPlan, OperationKind

ROOT = 0

_MAX_NAME_BYTES = 255
_UNLIMITED_BYTES = 1 << 50


@dataclass(frozen=True)
class Tree:
    """The contents of a disk by inode number; the root directory is inode 0."""

    directories: Mapping[int, Mapping[str, int]] = field(default_factory=lambda: {ROOT: {}})
    files: Mapping[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """The inodes of one disk, shared by all of its open directories and files.

    Attributes: `directories` (entries by inode), `files` (content of closed files), `growing` (content of files that
    are open for writing), `lockers` (the holder of each locked directory), `faults`.
    """

    def __init__(self, tree: Tree, capacity_bytes: int | None) -> None:
        self.faults = FaultPlan()
        self.directories = {inode: dict(entries) for inode, entries in tree.directories.items()}
        self.files = dict(tree.files)
        self.growing: dict[int, bytearray] = {}
        self.lockers: dict[int, object] = {}
        self.mutex = threading.RLock()
        self._capacity_bytes = _UNLIMITED_BYTES if capacity_bytes is None else capacity_bytes
        self._used_bytes = sum(map(len, tree.files.values()))
        self._next_inode = 1 + max((ROOT, *self.directories, *self.files))

    @contextmanager
    def operation(self, kind: OperationKind, path: str, target_path: str | None = None) -> Iterator[None]:
        """Run one operation alone; let it fail if that is planned."""
        with self.mutex, self.faults.operation(kind, path, target_path):
            yield

    def tree(self) -> Tree:
        """Return the contents as they are now."""
        with self.mutex:
            directories = {inode: dict(entries) for inode, entries in self.directories.items()}
            return Tree(directories, {**self.files, **{inode: bytes(content) for inode, content in self.growing.items()}})

    def content(self, inode: int) -> bytes:
        """Return what a file holds now."""
        return bytes(self.growing[inode]) if inode in self.growing else self.files[inode]

    def link_count(self, inode: int) -> int:
        """Return how many names a file has."""
        return sum(list(entries.values()).count(inode) for entries in self.directories.values())

    def add_directory(self) -> int:
        """Return the inode of a new, empty directory without a name."""
        self._next_inode += 1
        self.directories[self._next_inode] = {}
        return self._next_inode

    def add_file(self) -> int:
        """Return the inode of a new, empty file without a name, open for writing."""
        self._next_inode += 1
        self.growing[self._next_inode] = bytearray()
        return self._next_inode

    def free_bytes(self) -> int:
        """Space that can still be written."""
        return max(0, self._capacity_bytes - self._used_bytes)

    def append(self, inode: int, data: memoryview, path: str) -> int:
        """Append as one system call does: some of `data`, or ENOSPC. Return how much was taken."""
        with self.operation("write", path):
            free_bytes = self.free_bytes()
            if free_bytes == 0:
                raise system_error(errno.ENOSPC, path)
            size_bytes = min(self.faults.allowed_bytes(len(data)), free_bytes)
            self.growing[inode] += data[:size_bytes]
            self._used_bytes += size_bytes
            return size_bytes

    def seal(self, inode: int) -> None:
        """Fix the content of a file that was open for writing; it is forgotten if it has no name."""
        with self.mutex:
            self.files[inode] = bytes(self.growing.pop(inode))
            self.forget_if_nameless(inode)

    def forget_if_nameless(self, inode: int) -> None:
        """Give back the space of a file that has no name and is not open for writing."""
        if inode in self.files and not any(inode in entries.values() for entries in self.directories.values()):
            self._used_bytes -= len(self.files.pop(inode))

    def find_directory(self, path: str) -> int:
        """Return the inode of a directory (ENOENT, ENOTDIR)."""
        return self._walk(_split(path), path)

    def find_parent(self, path: str) -> tuple[dict[str, int], str]:
        """Return the entries of the parent, and the name in it; the root has no parent, and the name ""."""
        components = _split(path)
        if not components:
            return {}, ""
        check_length(components[-1], path)
        return self.directories[self._walk(components[:-1], path)], components[-1]

    def _walk(self, components: list[str], path: str) -> int:
        inode = ROOT
        for name in components:
            child = self.directories[inode].get(name)
            if child is None:
                raise system_error(errno.ENOENT, path)
            if child not in self.directories:
                raise system_error(errno.ENOTDIR, path)
            inode = child
        return inode


def check_length(name: str, path: str, target_path: str | None = None) -> None:
    """Raise ENAMETOOLONG as common file systems do."""
    if len(os.fsencode(name)) > _MAX_NAME_BYTES:
        raise system_error(errno.ENAMETOOLONG, path, target_path)


def system_error(code: int, path: str, target_path: str | None = None) -> OSError:
    """Return the error that the system would raise."""
    return OSError(code, os.strerror(code), path, None, target_path)


def _split(path: str) -> list[str]:
    components = [component for component in path.split("/") if component not in ("", ".")]
    if ".." in components:
        raise ValueError(f"{path}: a path in memory holds no '..'")
    return components
