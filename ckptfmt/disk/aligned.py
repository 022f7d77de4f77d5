"""Memory that a disk can read without a copy.

Direct I/O wants the address, the length and the position of a write to be multiples of the block size;
4096 satisfies every common device. Writers fill such buffers and hand them to `WritableFile.write` whole.
Huge pages are asked for, because a direct write pays for each page that it pins.
"""

from __future__ import annotations

import ctypes
import mmap
from contextlib import suppress

ALIGNMENT_BYTES = 4096


def aligned_buffer(size_bytes: int) -> memoryview:
    """Return zeroed, writable, page-aligned memory. It is freed when nothing refers to it."""
    if size_bytes == 0:
        return memoryview(bytearray())
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return memoryview(mmap.mmap(-1, size_bytes))
    # Private, because shared anonymous memory would be visible to forked workers and gets no huge pages.
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        # Advice only: a kernel without huge pages refuses it.
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def is_aligned(view: memoryview) -> bool:
    """Return whether the memory starts at a multiple of the alignment.

    Read-only memory counts as unaligned: its address cannot be asked for without a native extension.
    """
    if view.readonly or view.nbytes == 0:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) % ALIGNMENT_BYTES == 0
