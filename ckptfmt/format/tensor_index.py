"""What the tensor index of a checkpoint consists of: rows, chunks, and the slots of each shard. Spec 9.

A state may have a million tensors, so the rows are kept as columns; nothing here checks them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import eq
from typing import NamedTuple, overload

from ckptfmt.format.encodings import Encoding, OriginalShard
from ckptfmt.format.layout import DIGEST_BYTES


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
        return list(accumulate(self.sizes, initial=self.header_size_bytes))

    def digest(self, slot: int) -> bytes:
        """Return the digest of one slot's stored bytes."""
        return self.digests[slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES]

    def split_digests(self) -> list[bytes]:
        """Return the digests of all slots."""
        return [self.digests[begin : begin + DIGEST_BYTES] for begin in range(0, len(self.digests), DIGEST_BYTES)]


class Chunk(NamedTuple):
    """One stored part of a tensor; offset and shape are those within the tensor."""

    shard: int
    slot: int
    offset: tuple[int, ...]
    shape: tuple[int, ...]


class TensorRow(NamedTuple):
    """One tensor of the index."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    chunks: tuple[Chunk, ...]


class TensorIndex(Sequence[TensorRow]):
    """The rows of the index as columns, because a state may have a million tensors; a row is made when it is asked for.

    A tensor that is one whole chunk lies in `shards[row]`, `slots[row]`. Of every other one `parts[row]` holds the chunks, and both
    columns hold -1.
    """

    __slots__ = ("dtypes", "names", "parts", "shapes", "shards", "sizes", "slots")

    def __init__(
        self,
        names: Sequence[str],
        dtypes: Sequence[str],
        shapes: Sequence[tuple[int, ...]],
        sizes: Sequence[int],
        shards: Sequence[int],
        slots: Sequence[int],
        parts: Mapping[int, tuple[Chunk, ...]] | None = None,
    ) -> None:
        self.names = names
        self.dtypes = dtypes
        self.shapes = shapes
        self.sizes = sizes
        self.shards = shards
        self.slots = slots
        self.parts = parts or {}

    @classmethod
    def of(cls, rows: Sequence[TensorRow]) -> TensorIndex:
        """Return the columns of some rows."""
        if isinstance(rows, TensorIndex):
            return rows
        whole = [row.chunks[0] if len(row.chunks) == 1 and row.chunks[0].shape == row.shape else None for row in rows]
        return cls(
            [row.name for row in rows],
            [row.dtype for row in rows],
            [row.shape for row in rows],
            [row.size_bytes for row in rows],
            [-1 if chunk is None else chunk.shard for chunk in whole],
            [-1 if chunk is None else chunk.slot for chunk in whole],
            {number: rows[number].chunks for number, chunk in enumerate(whole) if chunk is None},
        )

    def shards_of(self, rows: Iterable[int]) -> set[int]:
        """Return the shards that hold some rows."""
        rows = list(rows)
        found = set(map(self.shards.__getitem__, rows))
        if -1 in found:
            found.remove(-1)
            found.update(chunk.shard for row in rows for chunk in self.parts.get(row, ()))
        return found

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, number: int) -> TensorRow: ...
    @overload
    def __getitem__(self, number: slice) -> list[TensorRow]: ...
    def __getitem__(self, number: int | slice) -> TensorRow | list[TensorRow]:
        if isinstance(number, slice):
            return [self[index] for index in range(*number.indices(len(self)))]
        shape = self.shapes[number]
        shard = self.shards[number]
        chunks = self.parts[number % len(self)] if shard < 0 else (Chunk(shard, self.slots[number], (0,) * len(shape), shape),)
        return TensorRow(self.names[number], self.dtypes[number], shape, self.sizes[number], chunks)

    def __iter__(self) -> Iterator[TensorRow]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(eq, self, other))

    __hash__ = None  # type: ignore[assignment]
