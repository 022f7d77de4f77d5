"""A copy of a state that training may not change any more: what an asynchronous save writes.

All tensors are copied into one buffer, with all cores. The buffer is used again by the next snapshot, because touching
fresh memory takes several times as long as the copy; the system may take it back while it lies idle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

from ckptfmt.disk.aligned import offer_back, scratch_buffer
from ckptfmt.state.memory_copy import Copy, copy_all
from ckptfmt.state.tensors import LiveTensor, TensorSource
from ckptfmt.state.tree import EncodedState

_ALIGNMENT_BYTES = 64
_PIECE_BYTES = 8 * 2**20


class _IdleBuffer:
    """The one buffer that waits for the next snapshot."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._buffer: memoryview | None = None

    def take(self, size_bytes: int) -> memoryview:
        """Return memory of at least this size; what is too small, or far too large, is let go."""
        with self._lock:
            buffer, self._buffer = self._buffer, None
        if buffer is not None and size_bytes <= len(buffer) <= 2 * size_bytes:
            return buffer
        del buffer
        return scratch_buffer(size_bytes)

    def give_back(self, buffer: memoryview) -> None:
        """Keep the larger of two buffers."""
        offer_back(buffer)
        with self._lock:
            if self._buffer is None or len(self._buffer) < len(buffer):
                self._buffer = buffer


_IDLE = _IdleBuffer()


class _Lease:
    """The use of a buffer, which ends with the last tensor that lies in it."""

    __slots__ = ("_buffer",)

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer

    def __del__(self) -> None:
        _IDLE.give_back(self._buffer)


class CopiedTensor(LiveTensor):
    """A tensor's bytes in a snapshot; they are valid while this lives."""

    __slots__ = ("_data", "_lease")

    def __init__(self, source: TensorSource, data: memoryview, lease: _Lease) -> None:
        super().__init__(source.dtype, source.shape, source.size_bytes)
        self.keys = source.keys
        self.aliases = source.aliases
        self._data = data
        self._lease = lease

    def memory(self) -> memoryview:
        """Return the bytes."""
        return self._data

    def pieces(self, block_bytes: int) -> Iterator[memoryview]:
        """Yield the bytes in one piece."""
        yield self._data


def snapshot(state: EncodedState) -> EncodedState:
    """Copy every tensor of an encoded state into one allocation."""
    starts: list[int] = []
    total_bytes = 0
    for source in state.tensors:
        starts.append(total_bytes)
        total_bytes += -(-source.size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    buffer = _IDLE.take(total_bytes)
    lease = _Lease(buffer)
    tensors: list[TensorSource] = []
    copies: list[Copy] = []
    for source, start in zip(state.tensors, starts, strict=True):
        target = buffer[start : start + source.size_bytes]
        memory = source.memory()
        if memory is not None:
            copies.append((target, memory))
        else:
            _gather(source, target)
        tensors.append(CopiedTensor(source, target, lease))
    copy_all(copies)
    return EncodedState(state.tree, tensors)


def _gather(source: TensorSource, target: memoryview) -> None:
    filled = 0
    for piece in source.blocks(_PIECE_BYTES):
        target[filled : filled + len(piece)] = piece
        filled += len(piece)
