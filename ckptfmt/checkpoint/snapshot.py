"""A copy of a state that training may not change any more: what an asynchronous save writes."""

from __future__ import annotations

from collections.abc import Iterator

from ckptfmt.disk.aligned import aligned_buffer
from ckptfmt.state.tensors import LiveTensor, TensorSource
from ckptfmt.state.tree import EncodedState

_ALIGNMENT_BYTES = 64
_PIECE_BYTES = 8 * 2**20


class CopiedTensor(LiveTensor):
    """A tensor's bytes in a snapshot."""

    __slots__ = ("_data",)

    def __init__(self, source: TensorSource, data: memoryview) -> None:
        super().__init__(source.dtype, source.shape, source.size_bytes)
        self.keys = source.keys
        self.aliases = source.aliases
        self._data = data

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
    buffer = aligned_buffer(total_bytes)
    tensors: list[TensorSource] = []
    for source, start in zip(state.tensors, starts, strict=True):
        target = buffer[start : start + source.size_bytes]
        _copy(source, target)
        tensors.append(CopiedTensor(source, target))
    return EncodedState(state.tree, tensors)


def _copy(source: TensorSource, target: memoryview) -> None:
    filled = 0
    for piece in source.blocks(_PIECE_BYTES):
        target[filled : filled + len(piece)] = piece
        filled += len(piece)
