"""Open files of the local disk: writing, durable and if possible past the page cache; reading, by range or mapped.

A large new file gets its space reserved and is written with direct I/O as long as what is written is aligned:
that saves a copy, and leaves the page cache to the training job. The first piece that is not aligned, in
practice the tail, switches the same descriptor to ordinary writes for good. The bytes on the disk are the
same in every mode.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable
from contextlib import suppress

from ckptfmt.disk.aligned import ALIGNMENT_BYTES, is_aligned
from ckptfmt.disk.descriptor import Descriptor
from ckptfmt.disk.direct_reads import MIN_DIRECT_READ_BYTES, DirectReads, start_direct_reads
from ckptfmt.disk.paths import naming
from ckptfmt.disk.poison import Poison
from ckptfmt.disk.protocol import Buffer, FileStatus
from ckptfmt.disk.system_calls import MAX_TRANSFER_BYTES, stop_direct, sync_to_media


class LocalWritableFile:
    """A new file that was just created."""

    def __init__(self, descriptor: Descriptor, *, reserved_bytes: int, is_direct: bool, on_direct_refused: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._poison = Poison(descriptor.path)
        self._reserved_bytes = reserved_bytes
        self._is_direct = is_direct
        self._on_direct_refused = on_direct_refused
        self._written_bytes = 0

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        number = self._descriptor.number
        view = memoryview(data)
        # An empty view cannot be cast when its shape holds a zero.
        rest = view.cast("B") if view.nbytes else memoryview(b"")
        with self._poison.guard():
            while rest:
                taken_bytes = self._write_some(number, rest)
                if taken_bytes == 0:
                    raise OSError(errno.EIO, "the system wrote nothing and reported no error")
                self._written_bytes += taken_bytes
                rest = rest[taken_bytes:]

    def _write_some(self, number: int, rest: memoryview) -> int:
        # As long as the mode is direct, only aligned memory was written, so the position is aligned as well.
        if self._is_direct:
            size_bytes = min(rest.nbytes, MAX_TRANSFER_BYTES)
            direct_bytes = size_bytes - size_bytes % ALIGNMENT_BYTES
            if direct_bytes and is_aligned(rest):
                try:
                    return os.write(number, rest[:direct_bytes])
                except OSError as error:
                    if error.errno != errno.EINVAL:
                        raise
                    self._on_direct_refused()
            stop_direct(number)
            self._is_direct = False
        return os.write(number, rest[:MAX_TRANSFER_BYTES])

    def sync(self) -> None:
        """Make every byte durable; a failure poisons the file."""
        number = self._descriptor.number
        with self._poison.guard():
            self._trim()
            sync_to_media(number)

    def close(self) -> None:
        """Close, giving back what was reserved and not written."""
        try:
            with naming(self._descriptor.path):
                self._trim()
        finally:
            self._descriptor.close()

    def _trim(self) -> None:
        reserved_bytes, self._reserved_bytes = self._reserved_bytes, 0
        if reserved_bytes > self._written_bytes:
            os.ftruncate(self._descriptor.number, self._written_bytes)


class LocalReadableFile:
    """A regular file, open for reading."""

    def __init__(self, descriptor: Descriptor, size_bytes: int, link_count: int, *, on_direct_refused: Callable[[], None] | None) -> None:
        self._descriptor = descriptor
        self._size_bytes = size_bytes
        self._link_count = link_count
        self._on_direct_refused = on_direct_refused
        self._direct: DirectReads | None = None

    @property
    def size_bytes(self) -> int:
        """Size when it was opened."""
        return self._size_bytes

    @property
    def link_count(self) -> int:
        """How many names shared it when it was opened."""
        return self._link_count

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read a range; never allocates more than the file holds."""
        if offset_bytes < 0 or size_bytes < 0:
            raise ValueError(f"{self._descriptor.path}: negative range: offset {offset_bytes}, size {size_bytes}")
        wanted_bytes = min(size_bytes, self._size_bytes - offset_bytes)
        if wanted_bytes <= 0:
            return b""
        with naming(self._descriptor.path):
            first = os.pread(self._descriptor.number, min(wanted_bytes, MAX_TRANSFER_BYTES), offset_bytes)
            if len(first) == wanted_bytes or not first:
                return first
            pieces = bytearray(wanted_bytes)
            pieces[: len(first)] = first
            filled_bytes = self._read_into(memoryview(pieces), offset_bytes, len(first))
        return bytes(pieces[:filled_bytes])

    def _read_into(self, target: memoryview, offset_bytes: int, filled_bytes: int) -> int:
        while filled_bytes < len(target):
            rest = target[filled_bytes : filled_bytes + MAX_TRANSFER_BYTES]
            taken_bytes = os.preadv(self._descriptor.number, [rest], offset_bytes + filled_bytes)
            if taken_bytes == 0:
                break
            filled_bytes += taken_bytes
        return filled_bytes

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Tell whether a range is better read past the page cache; asked by one thread at a time."""
        if size_bytes < MIN_DIRECT_READ_BYTES or offset_bytes + size_bytes > self._size_bytes:
            return False
        if self._on_direct_refused is not None:
            number, on_refused = self._descriptor.number, self._on_direct_refused
            self._on_direct_refused = None
            self._direct = start_direct_reads(number, self._size_bytes, self._descriptor.path, on_refused)
        return self._direct is not None and self._direct.is_cold(offset_bytes, size_bytes)

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Fill memory from a range, past the page cache if both are aligned."""
        wanted_bytes = min(len(target), self._size_bytes - offset_bytes)
        filled_bytes = 0
        with naming(self._descriptor.path):
            if self._direct is not None and offset_bytes % ALIGNMENT_BYTES == 0 and is_aligned(target):
                filled_bytes = self._direct.read_into(offset_bytes, target)
            if filled_bytes < wanted_bytes:
                filled_bytes = self._read_into(target[:wanted_bytes], offset_bytes, filled_bytes)
        return min(filled_bytes, max(wanted_bytes, 0))

    def map_private(self) -> memoryview:
        """Return the whole file as writable memory of the caller."""
        if self._size_bytes == 0:
            return memoryview(bytearray())
        if not hasattr(mmap, "MAP_PRIVATE"):
            return memoryview(bytearray(self.read(0, self._size_bytes)))
        number = self._descriptor.number
        with naming(self._descriptor.path):
            try:
                memory = mmap.mmap(number, self._size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
            except ValueError as error:
                raise OSError(errno.EIO, f"the file shrank while it was open: {error}") from error
        return memoryview(memory)

    def sync(self) -> None:
        """Make the bytes durable; the system syncs a file through any descriptor of it."""
        with naming(self._descriptor.path):
            sync_to_media(self._descriptor.number)

    def prefetch(self, offset_bytes: int, size_bytes: int) -> None:
        """Hint that a range will be read soon."""
        if hasattr(os, "posix_fadvise"):
            # A hint that is refused changes nothing; the read that follows reports what is wrong.
            with suppress(OSError):
                os.posix_fadvise(self._descriptor.number, offset_bytes, size_bytes, os.POSIX_FADV_WILLNEED)

    def status(self) -> FileStatus | None:
        """Return size, times and inode as they are now."""
        with naming(self._descriptor.path):
            found = os.fstat(self._descriptor.number)
        return FileStatus(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def close(self) -> None:
        """Close; maps stay valid."""
        if self._direct is not None:
            self._direct.close()
        self._descriptor.close()
