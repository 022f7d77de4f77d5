"""The content of a metadata file: the state tree, the tensor index, and the slots of each shard. Spec 7 and 9.

`decode_metadata` returns only what has been checked: rows name existing slots, sizes agree with shapes, chunks tile
their tensors. The tree is handed on in packed form; state.tree gives it its types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ckptfmt.errors import FormatError, LimitError
from ckptfmt.format.encodings import Encoding, check_sources, checked_encodings, checked_original, pack_encodings
from ckptfmt.format.index_rows import RowColumns, check_row, check_rows
from ckptfmt.format.layout import BATCH_ROWS, DATA_ALIGNMENT_BYTES, DIGEST_BYTES, HEADER_LENGTH_BYTES, MAX_METADATA_RAW_BYTES
from ckptfmt.format.packed import pack, pack_array, pack_map, split_map, unpack, unpack_batches, unpack_member
from ckptfmt.format.rules import shown, violation
from ckptfmt.format.tensor_index import Chunk, ShardTable, TensorIndex, TensorRow

__all__ = ["Chunk", "Encoding", "Metadata", "ShardTable", "TensorIndex", "TensorRow", "check_codecs", "decode_metadata", "encode_metadata"]

MEMBERS = frozenset({"tree", "tensors", "shards"})


@dataclass(frozen=True, slots=True)
class Metadata:
    """A state: its tree in packed form, its tensors, and the slots of its shards in the manifest's order."""

    tree: Any
    tensors: Sequence[TensorRow]
    shards: Sequence[ShardTable]
    unknown_members: tuple[str, ...] = ()


def encode_metadata(metadata: Metadata) -> bytes:
    """Encode in packed form, before compression.

    Raises:
        LimitError: it would exceed the format's limit.
    """
    index = TensorIndex.of(metadata.tensors)
    tensors = pack_array(len(index), _rows_to_pack(index))
    raw = pack_map({"tree": pack(metadata.tree), "tensors": tensors, "shards": pack([_shard_to_pack(shard) for shard in metadata.shards])})
    if len(raw) > MAX_METADATA_RAW_BYTES:
        raise LimitError(f"metadata of {len(raw):,} bytes exceeds {MAX_METADATA_RAW_BYTES:,} bytes [E023]", rule="E023")
    return raw


def _rows_to_pack(index: TensorIndex) -> Iterator[list[Any]]:
    columns = zip(index.names, index.dtypes, map(list, index.shapes), index.shards, index.slots, strict=True)
    for number, (name, dtype, shape, shard, slot) in enumerate(columns):
        if shard >= 0:
            yield [name, dtype, shape, [[shard, slot]]]
        else:
            yield [name, dtype, shape, [_chunk_to_pack(chunk, index.shapes[number]) for chunk in index.parts[number]]]


def _chunk_to_pack(chunk: Chunk, full: tuple[int, ...]) -> list[Any]:
    if chunk.shape == full:
        return [chunk.shard, chunk.slot]
    return [chunk.shard, chunk.slot, list(chunk.offset), list(chunk.shape)]


def _shard_to_pack(shard: ShardTable) -> dict[str, Any]:
    members: dict[str, Any] = {
        "header_size_bytes": shard.header_size_bytes,
        "keys": list(shard.keys),
        "sizes": list(shard.sizes),
        "digests": shard.digests,
    }
    if shard.encodings:
        members["encodings"] = pack_encodings(shard.encodings)
    if shard.original is not None:
        members["original"] = [shard.original.name, shard.original.header, shard.original.digest]
    return members


def decode_metadata(raw: bytes, *, where: str) -> Metadata:
    """Decode and check the uncompressed content of a metadata file."""
    found = _decode_in_parts(raw, where)
    if found is not None:
        return found
    content = unpack(raw, where=where)
    if type(content) is not dict or not content.keys() >= MEMBERS:
        raise violation("E025", where, "metadata is not a map with tree, tensors and shards")
    if type(content["shards"]) is not list or type(content["tensors"]) is not list:
        raise violation("E025", where, "tensors and shards are not arrays")
    shards = [_checked_shard(shard, f"{where}: shards[{index}]") for index, shard in enumerate(content["shards"])]
    check_sources([shard.sizes for shard in shards], [shard.encodings for shard in shards], where)
    tensors = TensorIndex.of(check_rows(content["tensors"], shards, where=where))
    return Metadata(content["tree"], tensors, shards, tuple(sorted(content.keys() - MEMBERS)))


def _decode_in_parts(raw: bytes, where: str) -> Metadata | None:
    """Decode as `decode_metadata`, without ever making all rows; None where that finds something wrong."""
    parts = split_map(raw)
    if parts is None or not parts.keys() >= MEMBERS:
        return None
    members = {name: unpack_member(raw, name, part, where=where) for name, part in parts.items() if name != "tensors"}
    if type(members["shards"]) is not list:
        return None
    shards = [_checked_shard(shard, f"{where}: shards[{index}]") for index, shard in enumerate(members["shards"])]
    check_sources([shard.sizes for shard in shards], [shard.encodings for shard in shards], where)
    columns = RowColumns(shards, where=where)
    for batch in unpack_batches(raw, parts["tensors"], BATCH_ROWS):
        if batch is None or not columns.add(batch):
            return None
    tensors = columns.find_index()
    return None if tensors is None else Metadata(members["tree"], tensors, shards, tuple(sorted(parts.keys() - MEMBERS)))


def _checked_shard(shard: Any, where: str) -> ShardTable:
    if type(shard) is not dict:
        raise violation("E025", where, "not a map")
    header_size, keys, sizes, digests = (shard.get(name) for name in ("header_size_bytes", "keys", "sizes", "digests"))
    if type(header_size) is not int or header_size < HEADER_LENGTH_BYTES or header_size % DATA_ALIGNMENT_BYTES:
        raise violation("E025", where, "header_size_bytes", found=shown(header_size))
    if type(keys) is not list or type(sizes) is not list or type(digests) is not bytes:
        raise violation("E025", where, "keys, sizes or digests are missing or of a wrong type")
    if len(keys) != len(sizes) or len(digests) != len(sizes) * DIGEST_BYTES:
        raise violation("E025", where, "keys, sizes and digests differ in length")
    if not set(map(type, sizes)) <= {int} or min(sizes, default=0) < 0 or not set(map(type, keys)) <= {str}:
        raise violation("E025", where, "a key is no string or a size no unsigned integer")
    encodings = checked_encodings(shard.get("encodings", []), len(sizes), where)
    return ShardTable(header_size, keys, sizes, digests, encodings, checked_original(shard.get("original"), where))


def check_one(row: Any, number: int, shard: Any, shard_count: int, *, where: str) -> tuple[TensorRow, ShardTable]:
    """Check one unpacked row of the index, and the shard in which its first chunk lies, as `decode_metadata` checks all."""
    place = row[3][0][0]
    table = _checked_shard(shard, f"{where}: shards[{place}]")
    shards = [ShardTable(0, (), (), b"")] * shard_count
    shards[place] = table
    return check_row(row, number, shards, where=where), table


def check_codecs(metadata: Metadata, requires: Sequence[str], *, where: str) -> FormatError | None:
    """Return the violation of a codec that is used but not required, if there is one."""
    used = {name for shard in metadata.shards for encoding in shard.encodings.values() for name, _ in encoding.codecs}
    missing = sorted(used - {feature.removeprefix("codec:") for feature in requires})
    return violation("E046", where, found=", ".join(missing)) if missing else None
