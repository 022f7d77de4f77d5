"""Planned shards become files: the stream of bytes, the digests, and which tensor came to lie in which slot. Spec 5, 6.

What a finished file is called is the staging's affair, so that one process which saves alone and one of several that save
together write the same bytes in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Protocol

from ckptfmt.checkpoint.block_stream import BlockStream
from ckptfmt.checkpoint.shard_plan import ShardPlan
from ckptfmt.checkpoint.source_digests import SMALL_BYTES
from ckptfmt.disk.protocol import WritableFile
from ckptfmt.format.digest import format_digest, shard_digest
from ckptfmt.format.layout import section_stem
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.format.metadata import ShardTable
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tensors import TensorSource

_PIECE_BYTES = 8 * 2**20


class ShardStaging(Protocol):
    """Where new shards go."""

    def create(self, stem: str, *, size_bytes: int) -> WritableFile:
        """Create a temporary file that `seal` gives its name."""

    @property
    def last_created(self) -> str:
        """The temporary name of the file that was created last."""

    def seal(self, file: WritableFile, temporary: str, *, stem: str, digest_hex: str, suffix: str) -> str:
        """Make a written file durable; return the name that it has from now on."""


class ShardWriter:
    """The shards of one save: `entries` and `tables` in their order, and for each tensor its shard, -1 while it has none, and slot."""

    def __init__(self, staging: ShardStaging, sources: SourceColumns) -> None:
        self.entries: list[ShardEntry] = []
        self.tables: list[ShardTable] = []
        self.shards = [-1] * len(sources)
        self.slots = [-1] * len(sources)
        self._staging = staging
        self._sources = sources
        self._numbers: dict[str, int] = {}

    def missing(self) -> list[int]:
        """Return the tensors that lie in no shard yet."""
        return [row for row, shard in enumerate(self.shards) if shard < 0]

    def write(self, plans: Sequence[ShardPlan]) -> None:
        """Write shards, and make each durable."""
        with BlockStream(expected_bytes=sum(plan.size_bytes for plan in plans)) as stream:
            for plan in plans:
                self._write_shard(stream, plan)
            stream.drain()

    def take_over(self, entry: ShardEntry, table: ShardTable, slots: Mapping[int, int], *, number: int) -> None:
        """Count in a shard that is there already, under this number of its section; `slots` are those of the tensors that it serves."""
        stem = section_stem(entry.section)
        self._numbers[stem] = max(self._numbers.get(stem, 0), number)
        shard = len(self.tables)
        for row, slot in slots.items():
            self.shards[row], self.slots[row] = shard, slot
        self.tables.append(table)
        self.entries.append(entry)

    def _write_shard(self, stream: BlockStream, plan: ShardPlan) -> None:
        stem = self._next_stem(plan.section)
        file = self._staging.create(stem, size_bytes=plan.size_bytes)
        temporary = self._staging.last_created
        stream.begin(file)
        stream.append(plan.header)
        digests = self._append_all(stream, plan)
        digest = shard_digest(plan.header, digests)
        shard = len(self.tables)
        self.tables.append(ShardTable(len(plan.header), plan.keys, plan.sizes, digests))
        self.entries.append(ShardEntry("", plan.size_bytes, format_digest(digest), plan.section, len(plan.rows)))
        for slot, row in enumerate(plan.rows):
            self.shards[row], self.slots[row] = shard, slot

        def seal() -> None:
            name = self._staging.seal(file, temporary, stem=stem, digest_hex=digest.hex(), suffix=".safetensors")
            self.entries[shard] = ShardEntry(name, plan.size_bytes, format_digest(digest), plan.section, len(plan.rows))

        stream.finish(seal)

    def _append_all(self, stream: BlockStream, plan: ShardPlan) -> bytes:
        """Append the tensors of a shard and return their digests one after the other; small neighbours are gathered first."""
        digests = []
        first = 0
        for is_small, run in groupby(map(SMALL_BYTES.__ge__, plan.sizes)):
            last = first + len(list(run))
            rows = plan.rows[first:last]
            if is_small:
                gather = lambda begin, end, target, rows=rows: self._sources.copy(rows[begin:end], target)  # noqa: E731
                digests.append(stream.append_gathered(plan.sizes[first:last], gather))
            else:
                digests += [_append(stream, self._sources[row]) for row in rows]
            first = last
        return b"".join(digests)

    def _next_stem(self, section: str) -> str:
        stem = section_stem(section)
        number = self._numbers[stem] = self._numbers.get(stem, 0) + 1
        return f"{stem}-{number:05d}"


def _append(stream: BlockStream, source: TensorSource) -> bytes:
    memory = source.memory()
    return stream.append_hashed(memory) if memory is not None else stream.append_pieces_hashed(source.blocks(_PIECE_BYTES))
