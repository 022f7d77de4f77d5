"""Objects of a store as files: written once, in parts, and visible when they are synced; read by ranges, several at a time.

A new object appears at its first `sync`, and never by being closed: what is closed before that is given up, so that an error cannot
publish a part. Of what is read only the start is kept, since who asks for it asks again.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime

from ckptfmt.disk.object_store import Expected, ObjectStatus, ObjectStore, Upload
from ckptfmt.disk.poison import Poison
from ckptfmt.disk.protocol import Buffer, FileStatus

# What comes with the first request for an object: all of most manifests and headers.
START_BYTES = 128 * 1024
PART_BYTES = 8 * 2**20
# With larger parts above this many; a store of S3 takes 10,000.
_MAX_PARTS = 8000
_PARTS_UNDER_WAY = 4
_READ_BYTES = 16 * 2**20
_THREADS = 16


class _Threads:
    """The threads that wait for stores, shared by all files of a process; a forked child gets its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = 0
        self._pool: ThreadPoolExecutor | None = None

    def pool(self) -> ThreadPoolExecutor:
        """Return the pool, made when it is first used."""
        with self._lock:
            if self._pool is None or self._pid != os.getpid():
                self._pid, self._pool = os.getpid(), ThreadPoolExecutor(_THREADS, thread_name_prefix="ckptfmt-store")
            return self._pool


_WAITING = _Threads()


class SizeDiffersError(OSError):
    """An object is not of the size that was declared for it. Attribute: `found_bytes`."""

    def __init__(self, path: str, found_bytes: int) -> None:
        super().__init__(errno.EIO, f"the object has {found_bytes} bytes", path)
        self.found_bytes = found_bytes


class RemoteWritableFile:
    """A new object. Parts are sent while the next one is filled; a few of them are in memory at a time."""

    def __init__(self, store: ObjectStore, key: str, path: str, expected: Expected, *, size_bytes: int) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._expected = expected
        self._poison = Poison(path)
        self._part_bytes = max(PART_BYTES, -(-size_bytes // _MAX_PARTS))
        self._part = bytearray()
        self._upload: Upload | None = None
        self._is_whole_only = False
        self._sent: list[Future[str]] = []
        self._under_way = threading.Semaphore(_PARTS_UNDER_WAY)
        self._is_published = self._is_closed = False

    def write(self, data: Buffer) -> None:
        """Append all of `data`."""
        self._check_open()
        view = memoryview(data)
        rest = view.cast("B") if view.nbytes else memoryview(b"")
        with self._poison.guard():
            if self._is_published and rest:
                raise OSError(errno.EROFS, "the object is published; a store does not append")
            while rest:
                room = len(rest) if self._is_whole_only else self._part_bytes - len(self._part)
                self._part += rest[:room]
                rest = rest[room:]
                if rest:
                    self._send_part()

    def _send_part(self) -> None:
        if self._upload is None:
            self._upload = self._store.begin_upload(self._key)
            self._is_whole_only = self._upload is None
        if self._upload is None:
            return
        for earlier in self._sent:
            if earlier.done():
                earlier.result()
        upload, part, number = self._upload, self._part, len(self._sent) + 1
        self._part = bytearray()
        self._under_way.acquire()

        def send() -> str:
            try:
                return upload.write_part(number, part)
            finally:
                self._under_way.release()

        self._sent.append(_WAITING.pool().submit(send))

    def sync(self) -> None:
        """Let the object appear, whole; a failure poisons the file.

        Raises:
            FileExistsError: the name is taken.
        """
        self._check_open()
        with self._poison.guard():
            if self._is_published:
                return
            if self._upload is None:
                self._store.write(self._key, self._part, self._expected)
            else:
                if self._part:
                    self._send_part()
                self._upload.complete([part.result() for part in self._sent], self._expected)
            self._is_published = True
            self._part = bytearray()

    def close(self) -> None:
        """Close; what was not synced is given up."""
        if self._is_closed:
            return
        self._is_closed = True
        self._part = bytearray()
        if self._upload is None or self._is_published:
            return
        for part in self._sent:
            # A part that arrives after the end would stay for ever.
            if not part.cancel():
                part.exception()
        # What cannot be given up now is by a later save.
        with suppress(OSError):
            self._upload.abort()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._path}: already closed")


class RemoteReadableFile:
    """An object that is read by ranges. With `status` and `start` comes what is known of it, with `declared_bytes` only what it should be.

    Its name is looked up anew by each read: what is removed meanwhile cannot be read any more (FileNotFoundError).
    """

    link_count = 1

    def __init__(
        self, store: ObjectStore, key: str, path: str, *, status: ObjectStatus | None, start: bytes = b"", declared_bytes: int = 0
    ) -> None:
        self._store = store
        self._key = key
        self._path = path
        self._status = status
        self._start = start
        self._size_bytes = declared_bytes if status is None else status.size_bytes
        self._is_closed = False

    @property
    def size_bytes(self) -> int:
        """Size when it was opened, or as it was declared."""
        return self._size_bytes

    def read(self, offset_bytes: int, size_bytes: int) -> bytes:
        """Read a range; shorter than asked only at the end."""
        self._check_open()
        if offset_bytes < 0 or size_bytes < 0:
            raise ValueError(f"{self._path}: negative range: offset {offset_bytes}, size {size_bytes}")
        size_bytes = max(0, min(size_bytes, self._size_bytes - offset_bytes))
        if offset_bytes + size_bytes <= len(self._start):
            return self._start[offset_bytes : offset_bytes + size_bytes]
        if offset_bytes == 0 and size_bytes < START_BYTES:
            self._start = self._read(0, min(START_BYTES, self._size_bytes))
            return self._start[:size_bytes]
        if size_bytes <= _READ_BYTES:
            return self._read(offset_bytes, size_bytes)
        memory = bytearray(size_bytes)
        filled_bytes = self.read_into(offset_bytes, memoryview(memory))
        return bytes(memoryview(memory)[:filled_bytes])

    def _read(self, offset_bytes: int, size_bytes: int) -> bytes:
        piece = self._store.read(self._key, offset_bytes, size_bytes)
        if piece.status is not None and piece.status.size_bytes != self._size_bytes:
            raise SizeDiffersError(self._path, piece.status.size_bytes)
        if len(piece.data) != size_bytes:
            raise SizeDiffersError(self._path, offset_bytes + len(piece.data))
        return piece.data

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Return True: nothing of a store can be mapped."""
        return True

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Fill memory from a range, in several requests at a time where it is long."""
        self._check_open()
        size_bytes = max(0, min(len(target), self._size_bytes - offset_bytes))
        if offset_bytes + size_bytes <= len(self._start) or size_bytes <= _READ_BYTES:
            target[:size_bytes] = self.read(offset_bytes, size_bytes)
            return size_bytes

        def read(begin: int) -> None:
            part_bytes = min(_READ_BYTES, size_bytes - begin)
            target[begin : begin + part_bytes] = self._read(offset_bytes + begin, part_bytes)

        _wait_for([_WAITING.pool().submit(read, begin) for begin in range(0, size_bytes, _READ_BYTES)])
        return size_bytes

    def map_private(self) -> memoryview:
        """Read the whole object into memory of the caller."""
        memory = memoryview(bytearray(self._size_bytes))
        self.read_into(0, memory)
        return memory

    def prefetch(self, offset_bytes: int, size_bytes: int) -> None:
        """Do nothing: what is read is not kept."""

    def status(self) -> FileStatus | None:
        """Return size, time and version as they were when it was opened."""
        if self._status is None:
            return None
        modified_at = self._status.modified_at or datetime.fromtimestamp(0, UTC)
        modified_ns = int(modified_at.timestamp() * 1e9)
        return FileStatus(self._status.size_bytes, modified_ns, modified_ns, hash(self._status.version))

    def close(self) -> None:
        """Close; there is nothing to give back."""
        self._is_closed = True

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError(f"{self._path}: already closed")


def _wait_for(reads: Sequence[Future[None]]) -> None:
    """Wait for all, even if one fails: they write into memory of the caller."""
    failed = [error for error in [read.exception() for read in reads] if error is not None]
    if failed:
        raise failed[0]
