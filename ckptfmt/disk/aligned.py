"""Memory that a disk can read without a copy.

Direct I/O wants the address, the length and the position of a write to be multiples of the block size;
4096 satisfies every common device. Writers fill such buffers and hand them to `WritableFile.write` whole.
Huge pages are asked for, because a direct write pays for each page that it pins.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress

ALIGNMENT_BYTES = 4096
_HUGE_PAGE_BYTES = 2 * 2**20
# MADV_WIPEONFORK, for which Python has no name.
_WIPE_ON_FORK = 18 if sys.platform == "linux" else None


def aligned_buffer(size_bytes: int) -> memoryview:
    """Return zeroed, writable, page-aligned memory. It is freed when nothing refers to it."""
    if size_bytes == 0:
        return memoryview(bytearray())
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return memoryview(mmap.mmap(-1, size_bytes))
    huge_bytes = size_bytes - size_bytes % _HUGE_PAGE_BYTES
    # A kernel lets memory begin at a huge page if its size is of whole huge pages.
    reserved_bytes = huge_bytes + _HUGE_PAGE_BYTES if 0 < huge_bytes < size_bytes else size_bytes
    # Private, because shared anonymous memory would be visible to forked workers and gets no huge pages.
    memory = mmap.mmap(-1, reserved_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if huge_bytes and hasattr(mmap, "MADV_HUGEPAGE"):
        # Advice only: a kernel without huge pages refuses it. Not for the rest, which would take a whole one.
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE, 0, huge_bytes)
            if huge_bytes < reserved_bytes:
                memory.madvise(mmap.MADV_NOHUGEPAGE, huge_bytes, reserved_bytes - huge_bytes)
    return memoryview(memory)[:size_bytes]


def scratch_buffer(size_bytes: int) -> memoryview:
    """Return an aligned buffer for bytes on their way, which are nothing to a forked child: there it holds zeros.

    Otherwise each child would share it, and every page that is written here would be copied first.
    """
    view = aligned_buffer(size_bytes)
    _advise(view, _WIPE_ON_FORK)
    return view


def offer_back(view: memoryview) -> None:
    """Let the system have the memory of a buffer, if it becomes short of it, until it is written again; the content is lost."""
    _advise(view, getattr(mmap, "MADV_FREE", None))


def _advise(view: memoryview, advice: int | None) -> None:
    if advice is not None and isinstance(view.obj, mmap.mmap):
        # Advice only: older kernels do not know it.
        with suppress(OSError):
            view.obj.madvise(advice)


def aligned_range(begin: int, end: int) -> tuple[int, int]:
    """Return begin and end of the whole pages around a range."""
    return begin - begin % ALIGNMENT_BYTES, end + -end % ALIGNMENT_BYTES


def is_aligned(view: memoryview) -> bool:
    """Return whether the memory starts at a multiple of the alignment.

    Read-only memory counts as unaligned: its address cannot be asked for without a native extension.
    """
    if view.readonly or view.nbytes == 0:
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) % ALIGNMENT_BYTES == 0
