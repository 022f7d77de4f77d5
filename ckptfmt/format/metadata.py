"""The content of a metadata file: the state tree, the tensor index, and the slots of each shard. Spec 7 and 9.

`decode_metadata` returns only what has been checked: rows name existing slots, sizes agree with shapes, chunks tile
their tensors. The tree is handed on in packed form; state.tree gives it its types.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ckptfmt.errors import FormatError, LimitError
from ckptfmt.format.dtypes import itemsize_bytes
from ckptfmt.format.encodings import Encoding, OriginalShard, check_sources, checked_encodings, checked_original, pack_encodings
from ckptfmt.format.layout import (
    DATA_ALIGNMENT_BYTES,
    DIGEST_BYTES,
    HEADER_LENGTH_BYTES,
    MAX_METADATA_RAW_BYTES,
    is_shape,
    is_tensor_name,
)
from ckptfmt.format.packed import pack, unpack
from ckptfmt.format.rules import shown, violation

MEMBERS = frozenset({"tree", "tensors", "shards"})
MAX_COMPARED_CHUNKS = 256
MAX_CORNERS = 2**24


@dataclass(frozen=True, slots=True)
class ShardTable:
    """The slots of one shard, in file order. `digests` holds 32 bytes for each."""

    header_size_bytes: int
    keys: Sequence[str]
    sizes: Sequence[int]
    digests: bytes
    encodings: dict[int, Encoding] = field(default_factory=dict)
    original: OriginalShard | None = None

    def offsets(self) -> list[int]:
        """Return where each slot begins in the file, and where the last one ends."""
        return list(itertools.accumulate(self.sizes, initial=self.header_size_bytes))

    def digest(self, slot: int) -> bytes:
        """Return the digest of one slot's stored bytes."""
        return self.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES]


@dataclass(frozen=True, slots=True)
class Chunk:
    """One stored part of a tensor; offset and shape are those within the tensor."""

    shard: int
    slot: int
    offset: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TensorRow:
    """One tensor of the index."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    chunks: tuple[Chunk, ...]


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
    raw = pack(
        {
            "tree": metadata.tree,
            "tensors": [
                [row.name, row.dtype, list(row.shape), [_pack_chunk(chunk, row) for chunk in row.chunks]] for row in metadata.tensors
            ],
            "shards": [_pack_shard(shard) for shard in metadata.shards],
        }
    )
    if len(raw) > MAX_METADATA_RAW_BYTES:
        raise LimitError(f"metadata of {len(raw):,} bytes exceeds {MAX_METADATA_RAW_BYTES:,} bytes [E023]", rule="E023")
    return raw


def _pack_chunk(chunk: Chunk, row: TensorRow) -> list[Any]:
    if chunk.shape == row.shape:
        return [chunk.shard, chunk.slot]
    return [chunk.shard, chunk.slot, list(chunk.offset), list(chunk.shape)]


def _pack_shard(shard: ShardTable) -> dict[str, Any]:
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
    content = unpack(raw, where=where)
    if type(content) is not dict or not content.keys() >= MEMBERS:
        raise violation("E025", where, "metadata is not a map with tree, tensors and shards")
    if type(content["shards"]) is not list or type(content["tensors"]) is not list:
        raise violation("E025", where, "tensors and shards are not arrays")
    shards = [_checked_shard(shard, f"{where}: shards[{index}]") for index, shard in enumerate(content["shards"])]
    check_sources([shard.sizes for shard in shards], [shard.encodings for shard in shards], where)
    tensors = _Rows(shards, where).checked(content["tensors"])
    return Metadata(content["tree"], tensors, shards, tuple(sorted(content.keys() - MEMBERS)))


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
    if not all(type(size) is int and size >= 0 for size in sizes) or not all(type(key) is str for key in keys):
        raise violation("E025", where, "a key is no string or a size no unsigned integer")
    encodings = checked_encodings(shard.get("encodings", []), len(sizes), where)
    return ShardTable(header_size, keys, sizes, digests, encodings, checked_original(shard.get("original"), where))


class _Rows:
    """Checks the tensor index against the slots."""

    def __init__(self, shards: Sequence[ShardTable], where: str) -> None:
        self.shards = shards
        self.where = where
        self.itemsizes: dict[str, int] = {}

    def checked(self, rows: list[Any]) -> list[TensorRow]:
        checked = [self.checked_row(row, index) for index, row in enumerate(rows)]
        if len({row.name for row in checked}) != len(checked):
            seen: set[str] = set()
            twice = next(row.name for row in checked if row.name in seen or seen.add(row.name))  # type: ignore[func-returns-value]
            raise violation("E044", self.where, f"tensor {twice!r} stands twice in the index", tensor=twice)
        return checked

    def checked_row(self, row: Any, index: int) -> TensorRow:
        """Check one row."""
        if type(row) is not list or len(row) != 4 or type(row[0]) is not str or type(row[1]) is not str or type(row[3]) is not list:
            raise violation("E025", self.where, f"tensors[{index}] is not name, dtype, shape, chunks")
        name, dtype, shape, chunks = row
        if not is_tensor_name(name):
            raise violation("E035", self.where, f"name {name[:80]!r} is too long or holds control characters", tensor=name)
        if not is_shape(shape):
            raise violation("E036", self.where, f"shape of {name!r}", found=shown(shape), tensor=name)
        itemsize = self.itemsizes.get(dtype)
        if itemsize is None:
            try:
                itemsize = self.itemsizes[dtype] = itemsize_bytes(dtype)
            except KeyError:
                raise violation("E042", self.where, f"element type of {name!r}", found=dtype[:80], tensor=name) from None
        full = tuple(shape)
        placed = tuple([self._chunk(chunk, full, itemsize, name) for chunk in chunks])
        if len(placed) != 1 or placed[0].shape is not full:
            self._check_tiling(placed, full, name)
        return TensorRow(name, dtype, full, math.prod(full) * itemsize, placed)

    def _chunk(self, chunk: Any, full: tuple[int, ...], itemsize: int, name: str) -> Chunk:
        if type(chunk) is not list or len(chunk) not in (2, 4):
            raise violation("E025", self.where, f"a chunk of {name!r} is not shard, slot, offset, shape", tensor=name)
        shard, slot = chunk[:2]
        if (
            type(shard) is not int
            or type(slot) is not int
            or not 0 <= shard < len(self.shards)
            or not 0 <= slot < len(self.shards[shard].sizes)
        ):
            raise violation(
                "E025", self.where, f"a chunk of {name!r} names a slot that is not there", found=f"{shard}, {slot}", tensor=name
            )
        offset, shape = (0,) * len(full), full
        if len(chunk) == 4:
            if not is_shape(chunk[2]) or not is_shape(chunk[3]) or not len(chunk[2]) == len(chunk[3]) == len(full):
                raise violation("E041", self.where, f"a chunk of {name!r} has another rank than the tensor", tensor=name)
            offset, shape = tuple(chunk[2]), tuple(chunk[3])
            if any(begin + size > limit for begin, size, limit in zip(offset, shape, full, strict=True)):
                raise violation("E041", self.where, f"a chunk of {name!r} leaves the tensor", found=f"{offset} + {shape}", tensor=name)
        table = self.shards[shard]
        encoding = table.encodings.get(slot)
        size = encoding.raw_size_bytes if encoding else table.sizes[slot]
        if size != math.prod(shape) * itemsize:
            raise violation("E043", self.where, f"size of {name!r}", expected=math.prod(shape) * itemsize, found=size, tensor=name)
        return Chunk(shard, slot, offset, shape)

    def _check_tiling(self, chunks: tuple[Chunk, ...], full: tuple[int, ...], name: str) -> None:
        filled = [chunk for chunk in chunks if math.prod(chunk.shape)]
        volume = sum(math.prod(chunk.shape) for chunk in filled)
        if volume != math.prod(full):
            raise violation("E041", self.where, f"chunks of {name!r}", expected=f"{math.prod(full)} elements", found=volume, tensor=name)
        if len(filled) <= MAX_COMPARED_CHUNKS:
            overlap = _find_overlap(filled)
            found = None if overlap is None else " and ".join(f"{chunk.offset} + {chunk.shape}" for chunk in overlap)
        else:
            found = None if _covers_once(filled, full) else f"{len(filled)} chunks"
        if found is not None:
            raise violation("E041", self.where, f"chunks of {name!r} overlap", found=shown(found), tensor=name)


def _covers_once(chunks: Sequence[Chunk], full: tuple[int, ...]) -> bool:
    """Tell whether chunks cover a tensor exactly once, in time linear in their number however they lie.

    Each box is the sum of its corners, counted as 1 or -1 by the parity of the far sides on which they lie; no other sum of corners
    is that box. So the corners of the chunks add up to those of the tensor exactly if the chunks do. Dimensions that every
    chunk spans have no say; an arrangement in so many others that its corners cannot be counted is taken for none.
    """
    axes = [axis for axis, size in enumerate(full) if any(chunk.shape[axis] != size for chunk in chunks)]
    if len(chunks) << len(axes) > MAX_CORNERS:
        return False
    corners: Counter[tuple[int, ...]] = Counter()
    whole = Chunk(0, 0, (0,) * len(full), full)
    for chunk, weight in itertools.chain(zip(chunks, itertools.repeat(1)), [(whole, -1)]):
        sides = [(chunk.offset[axis], chunk.offset[axis] + chunk.shape[axis]) for axis in axes]
        for number, corner in enumerate(itertools.product(*sides)):
            corners[corner] += -weight if number.bit_count() % 2 else weight
    return not any(corners.values())


def _find_overlap(chunks: Sequence[Chunk]) -> tuple[Chunk, Chunk] | None:
    """Find two chunks that share an element.

    Straight cuts take the chunks apart, one dimension after the other, as every grid allows; only what no cut separates
    is compared pair by pair.
    """
    pending = [list(chunks)]
    while pending:
        group = pending.pop()
        if len(group) < 2:
            continue
        parts = next((parts for axis in range(len(group[0].shape)) if len(parts := _cut(group, axis)) > 1), None)
        if parts is not None:
            pending += parts
        elif (overlap := next(((a, b) for a, b in itertools.combinations(group, 2) if _overlaps(a, b)), None)) is not None:
            return overlap
    return None


def _cut(chunks: list[Chunk], axis: int) -> list[list[Chunk]]:
    """Separate chunks wherever a plane across one dimension touches none of them."""
    parts: list[list[Chunk]] = []
    end = -1
    for chunk in sorted(chunks, key=lambda chunk: chunk.offset[axis]):
        if chunk.offset[axis] >= end:
            parts.append([])
        parts[-1].append(chunk)
        end = max(end, chunk.offset[axis] + chunk.shape[axis])
    return parts


def _overlaps(a: Chunk, b: Chunk) -> bool:
    return all(i < j + t and j < i + s for i, s, j, t in zip(a.offset, a.shape, b.offset, b.shape, strict=True))


def check_one(row: Any, number: int, shard: Any, shard_count: int, *, where: str) -> tuple[TensorRow, ShardTable]:
    """Check one unpacked row of the index, and the shard in which its first chunk lies, as `decode_metadata` checks all."""
    place = row[3][0][0]
    table = _checked_shard(shard, f"{where}: shards[{place}]")
    shards = [ShardTable(0, (), (), b"")] * shard_count
    shards[place] = table
    return _Rows(shards, where).checked_row(row, number), table


def check_codecs(metadata: Metadata, requires: Sequence[str], *, where: str) -> FormatError | None:
    """Return the violation of a codec that is used but not required, if there is one."""
    used = {name for shard in metadata.shards for encoding in shard.encodings.values() for name, _ in encoding.codecs}
    missing = sorted(used - {feature.removeprefix("codec:") for feature in requires})
    return violation("E046", where, found=", ".join(missing)) if missing else None
