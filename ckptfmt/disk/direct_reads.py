"""Reading past the page cache: when it pays, and doing it. Linux only.

A transfer from the device straight into the caller's memory saves a copy and the work of filling the page cache, and leaves that
cache to the training job. It pays for large ranges that are not cached. Where several processes load one file together
it would cost a transfer for each of them; so only the reader that holds an advisory lock on the file goes past the
cache, and the others share the cache.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable

from ckptfmt.disk.aligned import ALIGNMENT_BYTES
from ckptfmt.disk.descriptor import Descriptor
from ckptfmt.disk.refusals import DIRECT_REFUSALS
from ckptfmt.disk.system_calls import MAX_TRANSFER_BYTES, count_resident, lock_alone, reopen_direct

# Below this the page cache with its read-ahead is as fast.
MIN_DIRECT_READ_BYTES = 4 * 2**20

_PROBES = 16
_ENOUGH_RESIDENT = 5


class DirectReads:
    """A second, direct description of an open file. Threads may share it: no position is ever moved."""

    def __init__(self, descriptor: Descriptor, memory: mmap.mmap, on_refused: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._on_refused = on_refused
        self._is_refused = False
        self._memory = memory
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(memory))

    def is_cold(self, offset_bytes: int, size_bytes: int) -> bool:
        """Tell whether most of a range is outside of the page cache, judged by a few of its pages.

        The kernel does not say so of files that the user could not write if their mode allowed it: those count as cached.
        """
        if self._is_refused:
            return False
        first, last = offset_bytes // ALIGNMENT_BYTES, (offset_bytes + size_bytes - 1) // ALIGNMENT_BYTES
        pages = {first + (last - first) * probe // (_PROBES - 1) for probe in range(_PROBES)}
        return count_resident(self._address, [page * ALIGNMENT_BYTES for page in pages], enough=_ENOUGH_RESIDENT) < _ENOUGH_RESIDENT

    def read_into(self, offset_bytes: int, target: memoryview) -> int:
        """Read whole pages from an aligned offset into aligned memory, up to the end of the file or a refusal; return how many bytes."""
        filled_bytes = 0
        whole_bytes = len(target) - len(target) % ALIGNMENT_BYTES
        while filled_bytes < whole_bytes and filled_bytes % ALIGNMENT_BYTES == 0 and not self._is_refused:
            # Parts of a huge transfer are whole pages as well.
            rest = target[filled_bytes : min(whole_bytes, filled_bytes + MAX_TRANSFER_BYTES)]
            try:
                taken_bytes = os.preadv(self._descriptor.number, [rest], offset_bytes + filled_bytes)
            except OSError as error:
                if error.errno not in DIRECT_REFUSALS:
                    raise
                self._is_refused = True
                self._on_refused()
                break
            if taken_bytes == 0:
                break
            filled_bytes += taken_bytes
        return filled_bytes

    def close(self) -> None:
        """Close, and let another reader go past the cache."""
        # The map has a descriptor of its own, which would keep the lock.
        self._memory.close()
        self._descriptor.close()


def start_direct_reads(number: int, size_bytes: int, path: str, on_refused: Callable[[], None]) -> DirectReads | None:
    """Return direct reads of an open file; None where there are none, or where another process reads it already."""
    direct = reopen_direct(number)
    if direct is None:
        on_refused()
        return None
    descriptor = Descriptor(direct, path)
    try:
        if not lock_alone(direct):
            descriptor.close()
            return None
        # Only to ask what is cached of it.
        memory = mmap.mmap(direct, size_bytes, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except (OSError, ValueError):
        descriptor.close()
        return None
    return DirectReads(descriptor, memory, on_refused)
