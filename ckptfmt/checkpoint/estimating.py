"""How much compressing a checkpoint would free, estimated from a part of each tensor. Nothing is written or verified."""

from __future__ import annotations

from contextlib import ExitStack

from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.slot_encoding import MIN_TENSOR_BYTES, WORTH_A_DELTA
from ckptfmt.checkpoint.slot_relations import MIN_RELATED_BYTES
from ckptfmt.disk.protocol import Disk
from ckptfmt.format.byte_planes import encode_planes, encode_whole
from ckptfmt.format.metadata import Chunk, TensorRow
from ckptfmt.format.plane_fit import plan_differences, word_bytes_of

SAMPLE_BYTES = 2**18

Part = tuple[str, str, tuple[int, ...], tuple[int, ...]]


def estimate_checkpoint(disk: Disk, path: str, base: str | None = None) -> int:
    """Return about how many bytes compressing a checkpoint would free, given one from which differences may be taken.

    Raises:
        CheckpointError: it, or the base, cannot be read.
    """
    with ExitStack() as stack:
        checkpoint = stack.enter_context(OpenCheckpoint(disk, path, verify=False))
        of_base = None if base is None else stack.enter_context(OpenCheckpoint(disk, base, verify=False))
        others = {} if of_base is None else _parts(of_base)
        seen: set[tuple[int, bytes]] = set()
        saved = 0.0
        for part, (row, chunk) in _parts(checkpoint).items():
            table = checkpoint.metadata.shards[chunk.shard]
            size_bytes = table.sizes[chunk.slot]
            if table.encodings or table.original is not None or size_bytes < MIN_RELATED_BYTES or _is_shared(checkpoint, chunk):
                continue
            known = (size_bytes, table.digest(chunk.slot))
            if known in seen:
                saved += size_bytes
            elif size_bytes >= MIN_TENSOR_BYTES:
                other = others.get(part)
                saved += size_bytes * max(0.0, 1 - _fraction(checkpoint, row, chunk, of_base, None if other is None else other[1]))
            seen.add(known)
        return int(saved)


def _parts(checkpoint: OpenCheckpoint) -> dict[Part, tuple[TensorRow, Chunk]]:
    rows = checkpoint.metadata.tensors
    return {(row.name, row.dtype, chunk.offset, chunk.shape): (row, chunk) for row in rows for chunk in row.chunks}


def _is_shared(checkpoint: OpenCheckpoint, chunk: Chunk) -> bool:
    return checkpoint.link_count(chunk.shard) > 1


def _fraction(checkpoint: OpenCheckpoint, row: TensorRow, chunk: Chunk, base: OpenCheckpoint | None, of_base: Chunk | None) -> float:
    """Return to what fraction of its size a tensor would be coded."""
    word_bytes = word_bytes_of(row.dtype)
    size_bytes = checkpoint.metadata.shards[chunk.shard].sizes[chunk.slot]
    begin = max(0, size_bytes - SAMPLE_BYTES) // 2 // 8 * 8
    end = min(size_bytes, begin + SAMPLE_BYTES)
    data = checkpoint.store.decoder.read_range((chunk.shard, chunk.slot), begin, end)
    plain = len(encode_planes(data, row.dtype, (len(data) // word_bytes,), level=3))
    if base is not None and of_base is not None and len(data) % word_bytes == 0:
        source = base.store.decoder.read_range((of_base.shard, of_base.slot), begin, end)
        coded = min(len(encode_whole(plan, data, source)) for plan in plan_differences(data, source, row.dtype, level=3))
        plain = coded if coded < WORTH_A_DELTA * plain else plain
    return plain / len(data)
