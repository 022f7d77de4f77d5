"""A disk in memory that behaves like the local one, and fails on demand.

There is no durability here: which names and bytes survive a power cut is decided by the crash tests, from a
recording. For tests, and for checkpoints that never leave memory.
"""

from __future__ import annotations

import errno
import posixpath

from ckptfmt.disk.faults import FaultPlan
from ckptfmt.disk.memory_files import MemoryReadableFile, MemoryWritableFile
from ckptfmt.disk.memory_store import ROOT, MemoryStore, Tree, check_length, system_error
from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Directory, LockState, NotARegularFileError
from ckptfmt.disk.refusals import DIRECTORY_SYNC_REFUSALS, LINK_REFUSALS, LOCK_REFUSALS


class MemoryDisk:
    """A tree in memory. Paths are separated by "/"; relative ones start at the root."""

    def __init__(self, tree: Tree | None = None, *, capacity_bytes: int | None = None) -> None:
        self._store = MemoryStore(tree or Tree(), capacity_bytes)

    @property
    def faults(self) -> FaultPlan:
        """The failures that it is told to have."""
        return self._store.faults

    def tree(self) -> Tree:
        """Return the contents as they are now; later changes do not reach it."""
        return self._store.tree()

    def contents(self) -> dict[str, bytes | None]:
        """Return the content of every file by its path; a directory's content is None."""
        tree = self._store.tree()
        found: dict[str, bytes | None] = {}
        pending = [("", ROOT)]
        while pending:
            path, inode = pending.pop()
            for name, child in tree.directories[inode].items():
                child_path = f"{path}/{name}"
                found[child_path] = tree.files.get(child)
                if child in tree.directories:
                    pending.append((child_path, child))
        return dict(sorted(found.items()))

    def open_directory(self, path: str) -> MemoryDirectory:
        """Open an existing directory."""
        with self._store.operation("open_directory", path):
            return MemoryDirectory(self._store, self._store.find_directory(path), path)

    def make_directory(self, path: str) -> None:
        """Create one directory."""
        with self._store.operation("make_directory", path):
            entries, name = self._store.find_parent(path)
            if not name or name in entries:
                raise system_error(errno.EEXIST, path)
            entries[name] = self._store.add_directory()

    def remove_directory(self, path: str) -> None:
        """Remove one empty directory."""
        with self._store.operation("remove_directory", path):
            entries, name = self._store.find_parent(path)
            if not name:
                raise system_error(errno.EBUSY, path)
            inode = self._store.find_directory(path)
            if self._store.directories[inode]:
                raise system_error(errno.ENOTEMPTY, path)
            del entries[name], self._store.directories[inode]

    def real_path(self, path: str) -> str:
        """Return the absolute path; there are no links."""
        with self._store.mutex:
            entries, name = self._store.find_parent(path)
            if name and name not in entries:
                raise system_error(errno.ENOENT, path)
        return posixpath.normpath(posixpath.join("/", path))


class MemoryDirectory:
    """An open directory in memory; it stays itself when it is renamed."""

    def __init__(self, store: MemoryStore, inode: int, path: str) -> None:
        self._store = store
        self._inode = inode
        self._path = path
        self._is_closed = False

    @property
    def path(self) -> str:
        """The path under which it was opened."""
        return self._path

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        with self._store.operation("names", self._path):
            self._check_open()
            # As on Linux, a removed directory is empty and not an error.
            return sorted(self._store.directories.get(self._inode, ()))

    def create(self, name: str, *, size_bytes: int) -> MemoryWritableFile:
        """Create a file that must not exist yet."""
        path = join(self._path, name)
        with self._store.operation("create", path):
            entries = self._entries()
            check_length(name, path)
            if name in entries:
                raise system_error(errno.EEXIST, path)
            entries[name] = self._store.add_file()
            return MemoryWritableFile(self._store, entries[name], path)

    def open(self, name: str) -> MemoryReadableFile:
        """Open a regular file."""
        path = join(self._path, name)
        with self._store.operation("open", path):
            inode = self._find(name, path)
            if inode in self._store.directories:
                raise NotARegularFileError(errno.EISDIR, "not a regular file", path)
            return MemoryReadableFile(self._store, self._store.content(inode), path, self._store.link_count(inode))

    def rename(self, source: str, target: str) -> None:
        """Rename within this directory, replacing `target` atomically."""
        source_path, target_path = join(self._path, source), join(self._path, target)
        with self._store.operation("rename", source_path, target_path):
            entries = self._entries()
            moved = self._find(source, source_path, target_path)
            check_length(target, source_path, target_path)
            replaced = entries.get(target)
            if moved == replaced:
                # POSIX: two names of the same file stay as they are.
                return
            if replaced is not None:
                self._check_replaceable(moved, replaced, source_path, target_path)
            del entries[source]
            entries[target] = moved
            if replaced in self._store.directories:
                del self._store.directories[replaced]
            elif replaced is not None:
                self._store.forget_if_nameless(replaced)

    def _check_replaceable(self, moved: int, replaced: int, source_path: str, target_path: str) -> None:
        directories = self._store.directories
        if replaced in directories and moved not in directories:
            raise system_error(errno.EISDIR, source_path, target_path)
        if moved in directories and replaced not in directories:
            raise system_error(errno.ENOTDIR, source_path, target_path)
        if directories.get(replaced):
            raise system_error(errno.ENOTEMPTY, source_path, target_path)

    def link_from(self, other: Directory, source: str, target: str) -> bool:
        """Give a file of `other` the new name `target` here, by a hard link."""
        source_path, target_path = join(other.path, source), join(self._path, target)
        if not isinstance(other, MemoryDirectory) or other._store is not self._store:
            return False
        try:
            with self._store.operation("link", source_path, target_path):
                entries = self._entries()
                inode = other._find(source, source_path, target_path)
                check_length(target, source_path, target_path)
                if target in entries:
                    raise system_error(errno.EEXIST, source_path, target_path)
                if inode in self._store.directories:
                    raise system_error(errno.EPERM, source_path, target_path)
                entries[target] = inode
        except OSError as error:
            if error.errno in LINK_REFUSALS:
                return False
            raise
        return True

    def unlink(self, name: str) -> None:
        """Remove a file's name."""
        path = join(self._path, name)
        with self._store.operation("unlink", path):
            entries = self._entries()
            inode = self._find(name, path)
            if inode in self._store.directories:
                raise system_error(errno.EISDIR, path)
            del entries[name]
            self._store.forget_if_nameless(inode)

    def sync_file(self, name: str) -> None:
        """Count as a sync of a file that is here."""
        path = join(self._path, name)
        with self._store.operation("sync", path):
            if self._find(name, path) in self._store.directories:
                raise NotARegularFileError(errno.EISDIR, "not a regular file", path)

    def sync(self) -> None:
        """Count as a sync; there is nothing that could be lost."""
        try:
            with self._store.operation("sync_directory", self._path):
                self._check_open()
        except OSError as error:
            if error.errno not in DIRECTORY_SYNC_REFUSALS:
                raise

    def free_bytes(self) -> int:
        """Space that can still be written."""
        with self._store.operation("free_bytes", self._path):
            self._check_open()
            return self._store.free_bytes()

    def try_lock(self) -> LockState:
        """Try to become the one writer of this directory."""
        try:
            with self._store.operation("lock", self._path):
                self._check_open()
                holder = self._store.lockers.setdefault(self._inode, self)
                return LockState.HELD if holder is self else LockState.BUSY
        except OSError as error:
            if error.errno in LOCK_REFUSALS:
                return LockState.UNSUPPORTED
            raise

    def close(self) -> None:
        """Close and unlock."""
        self._is_closed = True
        with self._store.mutex:
            if self._store.lockers.get(self._inode) is self:
                del self._store.lockers[self._inode]

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._path}: already closed")

    def _entries(self) -> dict[str, int]:
        self._check_open()
        entries = self._store.directories.get(self._inode)
        if entries is None:
            raise system_error(errno.ENOENT, self._path)
        return entries

    def _find(self, name: str, path: str, target_path: str | None = None) -> int:
        inode = self._entries().get(name)
        if inode is None:
            raise system_error(errno.ENOENT, path, target_path)
        return inode
