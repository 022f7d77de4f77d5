"""The waist between what is stored and where: everything that ckptfmt does to a file system.

A disk holds directories, a directory holds files with single-component names. A directory is opened once
and addressed through its descriptor, so that renaming it or swapping a link on the way cannot redirect a
write. Nothing here knows what a checkpoint is. Implementations: local, memory, recording; all of them pass
the contract suite in tests/contract. Errors are plain OSErrors that name the path.

Durability is explicit: a file's bytes are durable after `WritableFile.sync`, a directory's names after
`Directory.sync`, and never earlier. Spec 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

# collections.abc.Buffer arrives with Python 3.12.
Buffer = bytes | bytearray | memoryview


class LockState(Enum):
    """What came of an attempt to lock a directory."""

    HELD = "held"
    BUSY = "busy"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True)
class FileStatus:
    """What a file system knows of an open file; a change of its content changes one of these, as far as its clock is fine enough."""

    size_bytes: int
    modified_ns: int
    changed_ns: int
    inode: int


class WritableFile(Protocol):
    """A new file, open for appending. Not visible under its final name until it is renamed."""

    def write(self, data: Buffer) -> None:
        """Append all of `data`; short writes of the system are continued."""

    def sync(self) -> None:
        """Make every byte durable, through the descriptor that wrote them.

        A failure poisons the file: every later `write` or `sync` raises without asking the system again,
        because a second fsync would report success for bytes that are lost.
        """

    def close(self) -> None:
        """Close; errors of the system are raised once. Closing twice is harmless."""


class ReadableFile(Protocol):
    """A regular file, open for reading. Stays readable after its name is removed."""

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""

    @property
    def link_count(self) -> int:
        """How many names shared the file when it was opened."""

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read a range; shorter than asked only at the end of the file."""

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Tell whether a range is better read with `read_into` than mapped, because it has to come from the device."""

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Fill writable memory from a range and return how many bytes there were, fewer only at the end of the file.

        Several threads may read one file. Fastest if offset and memory are aligned (disk.aligned) and the memory is of whole pages.
        """

    def map_private(self) -> memoryview:
        """Return the whole file as writable memory of the caller.

        Changes made to the memory never reach the file, and removing the file never reaches the memory.
        The memory lives as long as something refers to it.
        """

    def prefetch(self, offset_bytes: int, size_bytes: int) -> None:
        """Hint that a range will be read soon. May do nothing."""

    def status(self) -> FileStatus | None:
        """Return size, times and inode as they are now; None where this disk has no such thing."""

    def close(self) -> None:
        """Close; memory handed out by `map_private` stays valid."""


class Directory(Protocol):
    """An open directory. Names are single components; anything else is a ValueError."""

    @property
    def path(self) -> str:
        """The path under which it was opened, for messages."""

    def names(self) -> list[str]:
        """Names of all entries, sorted."""

    def create(self, name: str, *, size_bytes: int) -> WritableFile:
        """Create a file that must not exist yet; never follows links.

        `size_bytes` is what will be written, so that space can be reserved. The file is read-only for
        everybody else, with the permissions that the umask leaves of 0444.
        """

    def open(self, name: str) -> ReadableFile:
        """Open a regular file; never follows links.

        Raises:
            FileNotFoundError: there is no such name.
            NotARegularFileError: a link, directory, FIFO, socket or device.
        """

    def rename(self, source: str, target: str) -> None:
        """Rename within this directory, replacing `target` atomically."""

    def link_from(self, other: Directory, source: str, target: str) -> bool:
        """Give a file of `other` the new name `target` here, by a hard link.

        Returns False, having done nothing, where the file system cannot do that.
        """

    def unlink(self, name: str) -> None:
        """Remove a file's name."""

    def sync_file(self, name: str) -> None:
        """Make the bytes of a regular file that is here durable, whoever wrote them (errors as of `open`)."""

    def sync(self) -> None:
        """Make every creation, rename, link and removal of names in this directory durable."""

    def free_bytes(self) -> int:
        """Space that an ordinary user can still write here."""

    def try_lock(self) -> LockState:
        """Try to become the one writer of this directory, without waiting and without leaving a file.

        The lock ends with `close` or with the process, however it ends.
        """

    def close(self) -> None:
        """Close and unlock. Closing twice is harmless."""


class Disk(Protocol):
    """A tree of directories."""

    def open_directory(self, path: str) -> Directory:
        """Open an existing directory (FileNotFoundError, NotADirectoryError)."""

    def make_directory(self, path: str) -> None:
        """Create one directory whose parent exists (FileExistsError, FileNotFoundError); not durable by itself."""

    def remove_directory(self, path: str) -> None:
        """Remove one empty directory."""

    def real_path(self, path: str) -> str:
        """Return the absolute path of something that exists, with every link followed.

        Only for files of others, which are read wherever they lie; a checkpoint is never opened through it.

        Raises:
            FileNotFoundError: nothing is there, or a link leads nowhere.
        """


class NotARegularFileError(OSError):
    """A name that must be a regular file is something else."""
