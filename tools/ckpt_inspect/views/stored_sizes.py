"""What tensors take on the disk where they are encoded, and how."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ckptfmt.format.metadata import ShardTable, TensorRow


@dataclass(frozen=True, slots=True)
class StoredSize:
    """The stored bytes of a tensor, and the codecs of its chunks by name; none where it is stored as it is."""

    size_bytes: int
    codecs: tuple[str, ...]


def stored_size(row: TensorRow, tables: Sequence[ShardTable]) -> StoredSize:
    """Return what a tensor takes."""
    encodings = [tables[chunk.shard].encodings.get(chunk.slot) for chunk in row.chunks]
    codecs = dict.fromkeys(name for encoding in encodings if encoding for name, _ in encoding.codecs)
    return StoredSize(sum(tables[chunk.shard].sizes[chunk.slot] for chunk in row.chunks), tuple(codecs))


def total_stored_bytes(rows: Iterable[TensorRow], tables: Sequence[ShardTable]) -> int:
    """Return what all tensors take together: each slot that they refer to once, and no stale ones."""
    places = {(chunk.shard, chunk.slot) for row in rows for chunk in row.chunks}
    return sum(tables[shard].sizes[slot] for shard, slot in places)


def is_encoded(tables: Sequence[ShardTable]) -> bool:
    """Tell whether any tensor of a checkpoint is."""
    return any(table.encodings for table in tables)


def codec_counts(tables: Sequence[ShardTable]) -> dict[str, int]:
    """Return how many slots each codec encodes, the most frequent first."""
    counts: dict[str, int] = {}
    for table in tables:
        for encoding in table.encodings.values():
            counts[encoding.kind] = counts.get(encoding.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
