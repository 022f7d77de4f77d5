"""A disk that keeps a list of everything that was done to another disk.

Only what changes something, or makes it durable, is recorded, in the order in which it took effect; a mark says
where the caller was told that its work is safe. Crash tests derive from such a list what a power cut may leave
behind. Paths in records are those that were true at the moment of the operation, also for a directory that was
renamed while it was open.
"""

from __future__ import annotations

import posixpath
import threading
from dataclasses import dataclass, field
from weakref import WeakSet

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Buffer, Directory, Disk, LockState, ReadableFile, WritableFile


@dataclass(frozen=True)
class MadeDirectory:
    """A directory was made."""

    path: str


@dataclass(frozen=True)
class RemovedDirectory:
    """An empty directory was removed."""

    path: str


@dataclass(frozen=True)
class Created:
    """A new file got a name. `file` numbers the files in the order of their creation."""

    directory: str
    name: str
    file: int


@dataclass(frozen=True)
class Wrote:
    """Bytes were appended. Recorded also when the write failed, because some of them may have arrived."""

    file: int
    offset_bytes: int
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class SyncedFile:
    """All bytes of a file became durable."""

    file: int


@dataclass(frozen=True)
class SyncedName:
    """All bytes of the file that has this name became durable."""

    directory: str
    name: str


@dataclass(frozen=True)
class Renamed:
    """A name changed within a directory, replacing what had the new one."""

    directory: str
    source: str
    target: str


@dataclass(frozen=True)
class Linked:
    """A file got one more name."""

    source_directory: str
    source: str
    directory: str
    target: str


@dataclass(frozen=True)
class Unlinked:
    """A file lost a name."""

    directory: str
    name: str


@dataclass(frozen=True)
class SyncedDirectory:
    """All names of a directory became durable."""

    directory: str


@dataclass(frozen=True)
class Marked:
    """The caller was told something, for example that a save is safe."""

    name: str


Record = (
    MadeDirectory | RemovedDirectory | Created | Wrote | SyncedFile | SyncedName | Renamed | Linked | Unlinked | SyncedDirectory | Marked
)


class RecordingDisk:
    """Another disk, with a list of what was done to it. Attribute: `records`."""

    def __init__(self, inner: Disk) -> None:
        self._inner = inner
        self.records: list[Record] = []
        self._file_count = 0
        self._open_directories: WeakSet[RecordingDirectory] = WeakSet()
        # Held around each operation and its record, so that the list is in the order of the effects.
        self._mutex = threading.RLock()

    def record_mark(self, name: str) -> None:
        """Record that the caller was told `name`."""
        with self._mutex:
            self.records.append(Marked(name))

    def open_directory(self, path: str) -> RecordingDirectory:
        """Open an existing directory."""
        with self._mutex:
            directory = RecordingDirectory(self, self._inner.open_directory(path))
            self._open_directories.add(directory)
            return directory

    def make_directory(self, path: str) -> None:
        """Create one directory; not durable by itself."""
        with self._mutex:
            self._inner.make_directory(path)
            self.records.append(MadeDirectory(_normalise(path)))

    def remove_directory(self, path: str) -> None:
        """Remove one empty directory."""
        with self._mutex:
            self._inner.remove_directory(path)
            self.records.append(RemovedDirectory(_normalise(path)))

    def real_path(self, path: str) -> str:
        """Return the absolute path with every link followed."""
        return self._inner.real_path(path)

    def _number_file(self) -> int:
        self._file_count += 1
        return self._file_count

    def _move_directories(self, source_path: str, target_path: str) -> None:
        for directory in self._open_directories:
            if directory._current_path == source_path:
                directory._current_path = target_path
            elif directory._current_path.startswith(source_path + "/"):
                directory._current_path = target_path + directory._current_path[len(source_path) :]


class RecordingDirectory:
    """An open directory of another disk."""

    def __init__(self, disk: RecordingDisk, inner: Directory) -> None:
        self._disk = disk
        self._inner = inner
        self._current_path = _normalise(inner.path)

    @property
    def path(self) -> str:
        """The path under which it was opened."""
        return self._inner.path

    def names(self) -> list[str]:
        """Names of all entries, sorted."""
        return self._inner.names()

    def create(self, name: str, *, size_bytes: int) -> RecordingWritableFile:
        """Create a file that must not exist yet."""
        with self._disk._mutex:
            inner = self._inner.create(name, size_bytes=size_bytes)
            file = self._disk._number_file()
            self._disk.records.append(Created(self._current_path, name, file))
            return RecordingWritableFile(self._disk, inner, file)

    def open(self, name: str) -> ReadableFile:
        """Open a regular file."""
        return self._inner.open(name)

    def rename(self, source: str, target: str) -> None:
        """Rename within this directory, replacing `target` atomically."""
        with self._disk._mutex:
            self._inner.rename(source, target)
            self._disk.records.append(Renamed(self._current_path, source, target))
            self._disk._move_directories(join(self._current_path, source), join(self._current_path, target))

    def link_from(self, other: Directory, source: str, target: str) -> bool:
        """Give a file of `other` the new name `target` here, by a hard link."""
        if not isinstance(other, RecordingDirectory):
            return False
        with self._disk._mutex:
            is_linked = self._inner.link_from(other._inner, source, target)
            if is_linked:
                self._disk.records.append(Linked(other._current_path, source, self._current_path, target))
            return is_linked

    def unlink(self, name: str) -> None:
        """Remove a file's name."""
        with self._disk._mutex:
            self._inner.unlink(name)
            self._disk.records.append(Unlinked(self._current_path, name))

    def sync_file(self, name: str) -> None:
        """Make the bytes of a regular file that is here durable."""
        with self._disk._mutex:
            self._inner.sync_file(name)
            self._disk.records.append(SyncedName(self._current_path, name))

    def sync(self) -> None:
        """Make the names of this directory durable."""
        with self._disk._mutex:
            self._inner.sync()
            self._disk.records.append(SyncedDirectory(self._current_path))

    def free_bytes(self) -> int:
        """Space that an ordinary user can still write here."""
        return self._inner.free_bytes()

    def try_lock(self) -> LockState:
        """Try to become the one writer of this directory."""
        return self._inner.try_lock()

    def close(self) -> None:
        """Close and unlock."""
        self._inner.close()


class RecordingWritableFile:
    """A new file of another disk."""

    def __init__(self, disk: RecordingDisk, inner: WritableFile, file: int) -> None:
        self._disk = disk
        self._inner = inner
        self._file = file
        self._written_bytes = 0
        self._has_failed = False

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        content = bytes(data)
        with self._disk._mutex:
            try:
                self._inner.write(data)
            except OSError:
                if not self._has_failed:
                    self._record_write(content)
                self._has_failed = True
                raise
            self._record_write(content)

    def _record_write(self, content: bytes) -> None:
        self._disk.records.append(Wrote(self._file, self._written_bytes, content))
        self._written_bytes += len(content)

    def sync(self) -> None:
        """Make every byte durable; a failure poisons the file."""
        with self._disk._mutex:
            try:
                self._inner.sync()
            except OSError:
                self._has_failed = True
                raise
            self._disk.records.append(SyncedFile(self._file))

    def close(self) -> None:
        """Close."""
        self._inner.close()


def _normalise(path: str) -> str:
    return posixpath.normpath(posixpath.join("/", path))
