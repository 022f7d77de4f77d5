"""Copying memory of this process with several threads, without holding the interpreter's lock.

One core moves 16 GB/s at best, two come near to what the memory allows. Starting a thread and asking for addresses costs
microseconds, so what is small is copied at once by the caller.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from threading import Lock, Thread

MIN_PARALLEL_BYTES = 2**18
_PIECE_BYTES = 16 * 2**20
_MAX_THREADS = 4

Copy = tuple[memoryview, memoryview]


class _Buffer(ctypes.Structure):
    """What the interpreter tells of a buffer (Py_buffer)."""

    _fields_ = (
        ("address", ctypes.c_void_p),
        ("owner", ctypes.c_void_p),
        ("size_bytes", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("is_read_only", ctypes.c_int),
        ("rank", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_get_buffer = ctypes.pythonapi.PyObject_GetBuffer
_get_buffer.argtypes = (ctypes.py_object, ctypes.POINTER(_Buffer), ctypes.c_int)
_get_buffer.restype = ctypes.c_int
_release_buffer = ctypes.pythonapi.PyBuffer_Release
_release_buffer.argtypes = (ctypes.POINTER(_Buffer),)
_release_buffer.restype = None


def address_of(view: memoryview) -> int:
    """Return the address of memory, writable or not, which must be contiguous; the caller keeps it alive."""
    buffer = _Buffer()
    _get_buffer(view, buffer, 0)
    address: int = buffer.address or 0
    _release_buffer(buffer)
    return address


def copy_all(copies: Sequence[Copy]) -> None:
    """Copy each (target, source) of equal sizes; several threads share what is large."""
    large: list[tuple[int, int, int]] = []
    for target, source in copies:
        if len(target) != len(source):
            raise ValueError(f"a target of {len(target)} bytes for a source of {len(source)}")
        if len(source) < MIN_PARALLEL_BYTES:
            target[:] = source
        else:
            large += _pieces(address_of(target), address_of(source), len(source))
    threads = min(os.cpu_count() or 1, _MAX_THREADS, len(large))
    pending = iter(large)
    lock = Lock()

    def copy() -> None:
        while True:
            with lock:
                piece = next(pending, None)
            if piece is None:
                return
            ctypes.memmove(*piece)

    others = [Thread(target=copy, name="ckptfmt-copy", daemon=True) for _ in range(threads - 1)]
    for thread in others:
        thread.start()
    copy()
    for thread in others:
        thread.join()


def _pieces(target: int, source: int, size_bytes: int) -> Iterator[tuple[int, int, int]]:
    for begin in range(0, size_bytes, _PIECE_BYTES):
        yield target + begin, source + begin, min(_PIECE_BYTES, size_bytes - begin)
