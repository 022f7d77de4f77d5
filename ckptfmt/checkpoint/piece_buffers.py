"""Memory for pieces of tensors on their way, used again and again: fresh memory costs more than what is done with it."""

from __future__ import annotations

from threading import Lock

PIECE_BYTES = 4 * 2**20
KEPT_BUFFERS = 6
_SLACK_BYTES = 2**16


class PieceBuffers:
    """Buffers that are not in use. Each has room for a piece and a little more."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._free: list[memoryview] = []

    def take(self, size_bytes: int) -> memoryview:
        """Return memory of at least this size, with any content."""
        if size_bytes <= PIECE_BYTES + _SLACK_BYTES:
            with self._lock:
                if self._free:
                    return self._free.pop()
            size_bytes = PIECE_BYTES + _SLACK_BYTES
        return memoryview(bytearray(size_bytes))

    def give_back(self, buffer: memoryview) -> None:
        """Take a buffer back, whole as `take` gave it; nobody may look at it any more."""
        with self._lock:
            if len(buffer) == PIECE_BYTES + _SLACK_BYTES and len(self._free) < KEPT_BUFFERS:
                self._free.append(buffer)


BUFFERS = PieceBuffers()
