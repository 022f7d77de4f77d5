"""The write loop: bytes on their way from tensors to files.

Every byte is copied once, into a page-aligned block that is used again and again; it is hashed in that block, so the
digest is that of exactly the bytes that are written, whatever happens to the tensor meanwhile; a second thread writes full
blocks, syncs and renames, in order, while the first fills the next block. What fits into one block needs no thread. Spec 5, 6.
"""

from __future__ import annotations

import queue
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from ckptfmt.disk.aligned import ALIGNMENT_BYTES, aligned_buffer
from ckptfmt.disk.protocol import WritableFile
from ckptfmt.format.digest import Hasher, digest_of, digests_of

BLOCK_BYTES = 8 * 2**20
BLOCK_COUNT = 4

Step = Callable[[], None]


class _BlockPool:
    """Blocks that are not in use; keeps at most as many as one stream uses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: list[memoryview] = []

    def take(self, wanted_bytes: int) -> memoryview:
        with self._lock:
            if self._blocks:
                return self._blocks.pop()
        return aligned_buffer(min(BLOCK_BYTES, max(1, -(-wanted_bytes // ALIGNMENT_BYTES)) * ALIGNMENT_BYTES))

    def give_back(self, block: memoryview) -> None:
        with self._lock:
            if len(block) == BLOCK_BYTES and len(self._blocks) < BLOCK_COUNT:
                self._blocks.append(block)


_POOL = _BlockPool()


class BlockStream:
    """Writes files one after another. Use as a context manager; leaving it waits for the second thread.

    An error of the second thread is raised by the next call here, and at the latest by `drain`.
    """

    def __init__(self, *, expected_bytes: int) -> None:
        self._expected_bytes = expected_bytes
        self._block: memoryview | None = None
        self._filled = 0
        self._file: WritableFile | None = None
        self._made = 0
        self._free: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
        self._steps: queue.SimpleQueue[tuple[Step, memoryview | None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> BlockStream:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._error = self._error or error
        self._join()
        while not self._free.empty():
            _POOL.give_back(self._free.get())
        if self._block is not None:
            _POOL.give_back(self._block)

    def begin(self, file: WritableFile) -> None:
        """Start a file; the one before must have been finished."""
        self._file = file

    def append(self, data: bytes | memoryview) -> None:
        """Append bytes that need no digest."""
        view, done = memoryview(data), 0
        while done < len(view):
            done += len(self._copied(view[done:]))

    def append_hashed(self, view: memoryview) -> bytes:
        """Append one chunk that lies in memory in one piece, and return the digest of what is written."""
        if self._block is not None and len(view) <= len(self._block) - self._filled:
            return digest_of(self._copied(view))
        return self.append_pieces_hashed((view,))

    def append_gathered(self, sizes: Sequence[int], gather: Callable[[int, int, memoryview], None]) -> bytes:
        """Append many small chunks, none larger than a block, and return the digests of what is written, one after the other.

        `gather(first, last, target)` fills the target with the chunks of these positions.
        """
        ends = list(accumulate(sizes))
        digests = []
        first = begin = 0
        while first < len(sizes):
            block = self._block
            if block is None or self._filled == len(block):
                block = self._next_block()
            last = bisect_right(ends, begin + len(block) - self._filled, first)
            if last > first:
                target = block[self._filled : self._filled + ends[last - 1] - begin]
                gather(first, last, target)
                self._filled += len(target)
                digests.append(digests_of(target, sizes[first:last]))
            else:
                # It lies across the end of the block.
                last = first + 1
                piece = memoryview(bytearray(sizes[first]))
                gather(first, last, piece)
                digests.append(self.append_pieces_hashed((piece,)))
            first, begin = last, ends[last - 1]
        return b"".join(digests)

    def append_pieces_hashed(self, pieces: Iterable[memoryview]) -> bytes:
        """Append the pieces of one chunk, each valid until the next, and return the digest of what is written."""
        hasher = Hasher()
        for piece in pieces:
            done = 0
            while done < len(piece):
                part = self._copied(piece[done:])
                hasher.update(part)
                done += len(part)
        return hasher.digest()

    def finish(self, then: Step) -> None:
        """Write the rest of the file; `then` runs after that, in order with everything else."""
        self._submit()
        self._do(then)
        self._file = None
        self._raise_error()

    def drain(self) -> None:
        """Wait until everything is done, and raise what went wrong."""
        self._join()
        self._raise_error()

    def _copied(self, view: memoryview) -> memoryview:
        """Copy the start of `view` into the block and return it there."""
        block = self._block
        if block is None or self._filled == len(block):
            block = self._next_block()
        begin, size = self._filled, min(len(view), len(block) - self._filled)
        block[begin : begin + size] = view[:size]
        self._filled += size
        return block[begin : begin + size]

    def _next_block(self) -> memoryview:
        if self._block is not None:
            self._start_thread()
            self._submit()
        if self._made < BLOCK_COUNT and self._free.empty():
            self._made += 1
            self._block = _POOL.take(self._expected_bytes)
        else:
            self._block = self._free.get()
        self._filled = 0
        self._raise_error()
        return self._block

    def _submit(self) -> None:
        block, filled, file = self._block, self._filled, self._file
        if block is None or file is None or not filled:
            return
        whole_pages = filled - filled % ALIGNMENT_BYTES

        def write() -> None:
            if whole_pages:
                file.write(block[:whole_pages])
            if whole_pages < filled:
                file.write(block[whole_pages:filled])

        self._block, self._filled = None, 0
        self._do(write, block)

    def _do(self, step: Step, block: memoryview | None = None) -> None:
        if self._thread is None:
            self._run_step(step, block)
        else:
            self._steps.put((step, block))

    def _run_step(self, step: Step, block: memoryview | None) -> None:
        """Run one step, unless an earlier one failed: nothing may be renamed after that, but its block comes back."""
        try:
            if self._error is None:
                step()
        except BaseException as error:  # noqa: BLE001 - raised on the caller's thread
            self._error = error
        finally:
            if block is not None:
                self._free.put(block)

    def _start_thread(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ckptfmt-write", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (item := self._steps.get()) is not None:
            self._run_step(*item)

    def _join(self) -> None:
        if self._thread is not None:
            self._steps.put(None)
            self._thread.join()
            self._thread = None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
