"""What one process of several has written of a checkpoint, and how it tells the one who publishes. Spec 5.1.

A part is told once, and in as many bytes as its own chunks need: nothing of it depends on how many processes there are. The
message lives in memory only, between processes that run the same program; it is no part of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ckptfmt.format.manifest import ShardEntry
from ckptfmt.format.metadata import ShardTable
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.zstd_frame import compress, decompress

_WHERE = "message of a part"


class PartChunk(NamedTuple):
    """A chunk of the tensor of this name, and the shard of the part and the slot that hold it."""

    tensor: str
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    shard: int
    slot: int


@dataclass(frozen=True, slots=True)
class Part:
    """The shards of one process, under temporary names, and what lies in them. `notes` is packed data for the one who publishes."""

    entries: Sequence[ShardEntry] = ()
    tables: Sequence[ShardTable] = ()
    chunks: Sequence[PartChunk] = ()
    notes: Any = field(default=None)


def encode_part(part: Part) -> bytes:
    """Encode a part as a message."""
    raw = pack(
        {
            "entries": [[entry.name, entry.size_bytes, entry.digest, entry.section, entry.tensor_count] for entry in part.entries],
            "tables": [[table.header_size_bytes, list(table.keys), list(table.sizes), table.digests] for table in part.tables],
            "chunks": [[chunk.tensor, list(chunk.offset), list(chunk.shape), chunk.shard, chunk.slot] for chunk in part.chunks],
            "notes": part.notes,
        }
    )
    return len(raw).to_bytes(8, "little") + compress(raw)


def decode_part(message: bytes) -> Part:
    """Decode the message of a part."""
    size_bytes = int.from_bytes(message[:8], "little")
    content = unpack(decompress(message[8:], raw_size_bytes=size_bytes, where=_WHERE), where=_WHERE)
    return Part(
        [ShardEntry(*entry) for entry in content["entries"]],
        [ShardTable(*table) for table in content["tables"]],
        [PartChunk(tensor, tuple(offset), tuple(shape), shard, slot) for tensor, offset, shape, shard, slot in content["chunks"]],
        content["notes"],
    )
