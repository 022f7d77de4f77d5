"""A copy of a state that training may not change any more: what an asynchronous save writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ckptfmt.disk.aligned import aligned_buffer
from ckptfmt.state.tree import EncodedState, TensorSource

_ALIGNMENT_BYTES = 64
_PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class CopiedTensor:
    """A tensor source over bytes that belong to a snapshot."""

    keys: tuple[str, ...]
    aliases: list[tuple[str, ...]]
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    data: memoryview

    def memory(self) -> memoryview:
        """Return the bytes."""
        return self.data

    def blocks(self, block_bytes: int) -> Iterator[memoryview]:
        """Yield the bytes in one piece."""
        yield self.data


def snapshot(state: EncodedState) -> EncodedState:
    """Copy every tensor of an encoded state into one allocation."""
    starts: list[int] = []
    total_bytes = 0
    for source in state.tensors:
        starts.append(total_bytes)
        total_bytes += -(-source.size_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
    buffer = aligned_buffer(total_bytes)
    tensors = []
    for source, start in zip(state.tensors, starts, strict=True):
        target = buffer[start : start + source.size_bytes]
        _copy(source, target)
        tensors.append(CopiedTensor(source.keys, source.aliases, source.dtype, source.shape, source.size_bytes, target))
    return EncodedState(state.tree, tensors)


def _copy(source: TensorSource, target: memoryview) -> None:
    filled = 0
    for piece in source.blocks(_PIECE_BYTES):
        target[filled : filled + len(piece)] = piece
        filled += len(piece)
