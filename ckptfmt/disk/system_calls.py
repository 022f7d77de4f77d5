"""System calls that Python lacks, or that mean different things on different systems.

Each function does one thing to a descriptor and raises the OSError of the system, without a file name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from ckptfmt.disk.refusals import RESERVE_REFUSALS

if sys.platform != "win32":
    import fcntl
    import resource

# The kernel takes no more in one call.
MAX_TRANSFER_BYTES = 0x7FFFF000
# Where the system does not say.
FEW_OPEN_FILES = 512


def open_files_limit() -> int:
    """Return how many files this process may have open at a time."""
    if sys.platform == "win32":
        return FEW_OPEN_FILES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def sync_to_media(number: int) -> None:
    """Make a file or directory durable, past the cache of the drive."""
    if sys.platform == "darwin":
        try:
            fcntl.fcntl(number, fcntl.F_FULLFSYNC)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTSUP, errno.EINVAL, errno.ENOTTY):
                raise
    os.fsync(number)


def start_direct(number: int) -> bool:
    """Let writes bypass the page cache; return False where the system or the file system does not offer it.

    The flag is set after the file was created: creating with it leaves a stray file where it is refused.
    """
    if sys.platform != "linux":
        return False
    try:
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_DIRECT)
    except OSError:
        return False
    return True


def stop_direct(number: int) -> None:
    """Let writes go through the page cache again."""
    if sys.platform == "linux":
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) & ~os.O_DIRECT)


def reopen_direct(number: int) -> int | None:
    """Open the same file once more for reading past the page cache; None where that is not offered.

    A description of its own, because ordinary reads of the first need no alignment. By number, so that it is the same file
    whatever has become of its name.
    """
    if sys.platform != "linux":
        return None
    try:
        return os.open(f"/proc/self/fd/{number}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError:
        return None


def lock_alone(number: int) -> bool:
    """Lock a file without waiting, as one of those who ask; return False where another has it, or the system has no such lock."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def count_resident(address: int, offsets: Iterable[int], *, enough: int) -> int:
    """Count the pages of a map, at some offsets, that are in memory, up to `enough`; that many where the system does not say."""
    if _mincore is None:
        return enough
    page, count = ctypes.c_ubyte(), 0
    for offset in offsets:
        if _mincore(address + offset, 1, ctypes.byref(page)) != 0:
            return enough
        count += page.value & 1
        if count == enough:
            break
    return count


def reserve(number: int, size_bytes: int) -> bool:
    """Allocate space for a file and set its size; return False where the file system cannot.

    Not os.posix_fallocate: where the file system lacks the call, that one writes every block.
    """
    if _fallocate is None:
        return False
    while _fallocate(number, 0, 0, size_bytes) != 0:
        code = ctypes.get_errno()
        if code in RESERVE_REFUSALS:
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def _find(names: tuple[str, ...], *argument_types: Any) -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        libc: Any = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None
    function: Any = next((found for name in names if (found := getattr(libc, name, None)) is not None), None)
    if function is None:
        return None
    function.argtypes = argument_types
    function.restype = ctypes.c_int
    found_function: Callable[..., int] = function
    return found_function


# The plain name takes 32-bit sizes on 32-bit glibc; musl has only the plain name, with 64 bits.
_fallocate = _find(("fallocate64", "fallocate"), ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_mincore = _find(("mincore",), ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
