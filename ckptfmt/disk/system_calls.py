"""System calls that Python lacks, or that mean different things on different systems.

Each function does one thing to a descriptor and raises the OSError of the system, without a file name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from typing import Any

from ckptfmt.disk.refusals import RESERVE_REFUSALS

if sys.platform != "win32":
    import fcntl

# The kernel takes no more in one call.
MAX_TRANSFER_BYTES = 0x7FFFF000


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


def _find_fallocate() -> Callable[..., int] | None:
    if sys.platform != "linux":
        return None
    try:
        libc: Any = ctypes.CDLL(None, use_errno=True)
        # The plain name takes 32-bit sizes on 32-bit glibc; musl has only the plain name, with 64 bits.
        function = getattr(libc, "fallocate64", None) or libc.fallocate
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    function.restype = ctypes.c_int
    found: Callable[..., int] = function
    return found


_fallocate = _find_fallocate()
