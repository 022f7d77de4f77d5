"""What this machine could do at best with the same bytes: the disk, the memory and the hash, without any format.

A library that is as fast as the limit of a case cannot be made faster on this machine. Measured in the same rounds as the
libraries, because disks and virtual machines drift.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from blake3 import blake3

from benchmarks import machine
from benchmarks.measure import Job, Measurement, timed

ROW = "limit"
DIRECT_WRITE = "direct write + fsync"
BUFFERED_WRITE = "buffered write"
BUFFERED_WRITE_SYNC = "buffered write + fsync"
DIRECT_READ = "cold direct read, 2 threads"
MEMCPY = "memcpy, 1 thread"
HASH_1 = "BLAKE3, 1 thread"
HASH_2 = "BLAKE3, 2 threads"
READ_ONE = "open and read one tensor"

BLOCK_BYTES = 16 * 2**20
MEMORY_BYTES = 2**30

Span = tuple[int, int, int]


def measure(job: Job, directory: Path) -> Iterator[Measurement]:
    """Yield every limit for the bytes of one state."""
    # Direct transfers are of whole pages; what a tail would add is lost in the noise.
    size_bytes = job.size_bytes - job.size_bytes % machine.PAGE_BYTES
    memory = mmap.mmap(-1, min(size_bytes, MEMORY_BYTES))
    noise = random.Random(1).randbytes(2**20)
    for begin in range(0, len(memory), len(noise)):
        memory[begin : begin + len(noise)] = noise[: len(memory) - begin]
    path = directory / "limit"
    # Touched here, so that no limit pays for fresh memory.
    blocks = [_touched(BLOCK_BYTES) for _ in range(2)]
    target = _touched(len(memory))
    steps: dict[str, Callable[[], None]] = {
        BUFFERED_WRITE: lambda: _buffered_write(path, memory, size_bytes, sync=False),
        BUFFERED_WRITE_SYNC: lambda: _buffered_write(path, memory, size_bytes, sync=True),
        DIRECT_WRITE: lambda: _direct_write(path, memory, size_bytes),
        DIRECT_READ: lambda: _direct_read(path, blocks, size_bytes),
        READ_ONE: lambda: _read_one(path, memoryview(target)[: min(job.one_bytes, len(target))]),
    }
    for _ in range(job.repeats):
        for case, step in steps.items():
            if case == READ_ONE:
                machine.make_warm(path)
            elif case != DIRECT_READ:
                path.unlink(missing_ok=True)
            os.sync()
            yield _timed(job, case, step, preheat_bytes=size_bytes if case in (BUFFERED_WRITE, BUFFERED_WRITE_SYNC) else 0)
        for case, threads in ((HASH_1, 1), (HASH_2, 2)):
            yield _timed(job, case, lambda threads=threads: _hash(memory, size_bytes, threads))  # type: ignore[misc]
        yield _timed(job, MEMCPY, lambda: _copy(target, memory, size_bytes))
    path.unlink(missing_ok=True)


def _timed(job: Job, case: str, step: Callable[[], None], *, preheat_bytes: int = 0) -> Measurement:
    try:
        return Measurement(job.state, case, ROW, timed(step, preheat_bytes=preheat_bytes).seconds)
    except OSError as error:
        return Measurement(job.state, case, ROW, None, error=f"{type(error).__name__}: {error.strerror}")


def _spans(size_bytes: int, memory_bytes: int) -> list[Span]:
    """Return (position in the file, position in memory, size) of every block; memory is gone through again and again."""
    spans = []
    at = 0
    while at < size_bytes:
        begin = at % memory_bytes
        size = min(BLOCK_BYTES, size_bytes - at, memory_bytes - begin)
        spans.append((at, begin, size))
        at += size
    return spans


def _buffered_write(path: Path, memory: mmap.mmap, size_bytes: int, *, sync: bool) -> None:
    view = memoryview(memory)
    with path.open("xb", buffering=0) as file:
        for _, begin, size in _spans(size_bytes, len(memory)):
            file.write(view[begin : begin + size])
        if sync:
            os.fsync(file.fileno())


def _direct_write(path: Path, memory: mmap.mmap, size_bytes: int) -> None:
    view = memoryview(memory)
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_DIRECT, 0o644)
    try:
        os.posix_fallocate(number, 0, size_bytes)

        def write(span: Span) -> None:
            at, begin, size = span
            if os.pwrite(number, view[begin : begin + size], at) != size:
                raise OSError(5, "short write")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(write, _spans(size_bytes, len(memory))))
        os.fsync(number)
    finally:
        os.close(number)


def _touched(size_bytes: int) -> mmap.mmap:
    memory = mmap.mmap(-1, size_bytes)
    for offset in range(0, size_bytes, machine.PAGE_BYTES):
        memory[offset] = 1
    return memory


def _direct_read(path: Path, blocks: list[mmap.mmap], size_bytes: int) -> None:
    number = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:

        def read(first: int) -> None:
            for at in range(first * BLOCK_BYTES, size_bytes, 2 * BLOCK_BYTES):
                if os.preadv(number, [blocks[first]], at) != min(BLOCK_BYTES, size_bytes - at):
                    raise OSError(5, "short read")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(read, range(2)))
    finally:
        os.close(number)


def _read_one(path: Path, target: memoryview) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.preadv(number, [target], 0)
    finally:
        os.close(number)


def _hash(memory: mmap.mmap, size_bytes: int, threads: int) -> None:
    view = memoryview(memory)
    spans = _spans(size_bytes, len(memory))

    def digest(part: list[Span]) -> bytes:
        hasher = blake3()
        for _, begin, size in part:
            hasher.update(view[begin : begin + size])
        return hasher.digest()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(digest, [spans[first::threads] for first in range(threads)]))


def _copy(target: mmap.mmap, source: mmap.mmap, size_bytes: int) -> None:
    to, of = ctypes.addressof(ctypes.c_char.from_buffer(target)), ctypes.addressof(ctypes.c_char.from_buffer(source))
    for _, begin, size in _spans(size_bytes, len(source)):
        ctypes.memmove(to + begin, of + begin, size)
