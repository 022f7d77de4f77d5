"""Saving: a state goes down through plan and block stream to files, and one manifest makes it a checkpoint. Mirror of reader.

Everything that can be refused is refused before the first byte: unknown types, names that exist, a disk that is too full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from ckptfmt._version import __version__
from ckptfmt.checkpoint.base_links import LinkPlan, find_places, plan_links
from ckptfmt.checkpoint.block_stream import BlockStream
from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.frozen import match_frozen, unchanged_digests
from ckptfmt.checkpoint.info import CheckpointInfo, describe
from ckptfmt.checkpoint.metadata_file import LAST_WRITTEN, BaseIndex, read_base_index
from ckptfmt.checkpoint.shard_plan import ShardPlan, TensorPlan, name_tensors, plan_shards
from ckptfmt.checkpoint.source_digests import SMALL_BYTES, digest_sources
from ckptfmt.checkpoint.staging import Staging, became_full
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import CorruptError
from ckptfmt.format.digest import digest_of, format_digest, shard_digest
from ckptfmt.format.layout import section_stem
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, decode_manifest, encode_manifest
from ckptfmt.format.metadata import Metadata, ShardTable, TensorIndex, encode_metadata
from ckptfmt.format.zstd_frame import compress
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tensors import TensorSource
from ckptfmt.state.tree import EncodedState

_SHARD_NUMBER = re.compile(r"-([0-9]{5,})-[0-9a-f]+\.safetensors")
_COPY_BYTES = 8 * 2**20
_PIECE_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class SaveOptions:
    """What a save was asked for, checked."""

    step: int | None
    metrics: Mapping[str, int | float]
    fingerprint: Mapping[str, Any] | None
    overwrite: bool
    base: str | None
    max_shard_size_bytes: int
    durable: bool
    frozen: Sequence[str] = ()


def write_checkpoint(disk: Disk, path: str, state: EncodedState, options: SaveOptions) -> CheckpointInfo:
    """Write a state as a checkpoint, durably and atomically, and return what was committed."""
    try:
        with Staging(disk, path, overwrite=options.overwrite, durable=options.durable) as staging:
            return _Writer(disk, staging, state, options).write()
    except OSError as error:
        if (no_space := became_full(path, error)) is not None:
            raise no_space from error
        raise


class _Writer:
    """One save on its way."""

    def __init__(self, disk: Disk, staging: Staging, state: EncodedState, options: SaveOptions) -> None:
        self.disk = disk
        self.staging = staging
        self.tree = state.tree
        self.sources = SourceColumns.of(state.tensors)
        self.options = options
        self.entries: list[ShardEntry] = []
        self.tables: list[ShardTable] = []
        self.shards = [-1] * len(self.sources)
        self.slots = [-1] * len(self.sources)
        self.shared_bytes = 0
        self.numbers: dict[str, int] = {}

    def write(self) -> CheckpointInfo:
        with collector_paused():
            sources = self.sources
            tensors = name_tensors(sources.paths, sources.ties, sources.dtypes, sources.shapes, sources.sizes)
        frozen = match_frozen(self.options.frozen, tensors.names)
        if self.options.base is not None:
            self._link_base(self.options.base, tensors, frozen)
        missing = [row for row, shard in enumerate(self.shards) if shard < 0]
        with collector_paused():
            plans = plan_shards(tensors, missing, max_shard_size_bytes=self.options.max_shard_size_bytes)
        needed_bytes = sum(plan.size_bytes for plan in plans)
        self.staging.check_space(needed_bytes)
        with BlockStream(expected_bytes=needed_bytes) as stream:
            for plan in plans:
                self._write_shard(stream, plan)
            stream.drain()
        with collector_paused():
            index = TensorIndex(tensors.names, tensors.dtypes, tensors.shapes, tensors.sizes, self.shards, self.slots)
            metadata = self._write_metadata(index)
        manifest = Manifest(
            created_at_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            writer=f"ckptfmt {__version__}",
            step=self.options.step,
            metrics=self.options.metrics,
            fingerprint=self.options.fingerprint,
            metadata=metadata,
            shards=self.entries,
            tensor_count=len(tensors.sizes),
            tensor_bytes=sum(tensors.sizes),
        )
        encoded = encode_manifest(manifest)
        # Decoded again before it is published: nothing is committed that the reader would refuse.
        manifest = decode_manifest(encoded, where=self.staging.path)
        self.staging.publish(encoded, digest=manifest.digest)
        LAST_WRITTEN.remember(metadata.digest, BaseIndex(index, self.tables))
        return describe(self.staging.path, manifest, manifest_bytes=len(encoded), shared_bytes=self.shared_bytes)

    def _write_shard(self, stream: BlockStream, plan: ShardPlan) -> None:
        stem = self._next_stem(plan.section)
        file = self.staging.create(stem, size_bytes=plan.size_bytes)
        temporary = self.staging.last_created
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
            name = self.staging.seal(file, temporary, stem=stem, digest_hex=digest.hex(), suffix=".safetensors")
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
                gather = lambda begin, end, target, rows=rows: self.sources.copy(rows[begin:end], target)  # noqa: E731
                digests.append(stream.append_gathered(plan.sizes[first:last], gather))
            else:
                digests += [_append(stream, self.sources[row]) for row in rows]
            first = last
        return b"".join(digests)

    def _next_stem(self, section: str) -> str:
        stem = section_stem(section)
        number = self.numbers[stem] = self.numbers.get(stem, 0) + 1
        return f"{stem}-{number:05d}"

    def _write_metadata(self, index: TensorIndex) -> MetadataEntry:
        raw = encode_metadata(Metadata(self.tree, index, self.tables))
        data = compress(raw)
        digest = digest_of(data)
        file = self.staging.create("metadata", size_bytes=len(data))
        temporary = self.staging.last_created
        file.write(data)
        name = self.staging.seal(file, temporary, stem="metadata", digest_hex=digest.hex(), suffix=".msgpack.zst")
        return MetadataEntry(name, len(data), format_digest(digest), len(raw))

    def _link_base(self, base: str, tensors: TensorPlan, frozen: Sequence[int]) -> None:
        directory = open_checkpoint_directory(self.disk, base)
        try:
            manifest = read_manifest(directory)
            index = read_base_index(directory, manifest)
            places = find_places(tensors, manifest, index)
            taken = unchanged_digests(frozen, self.sources, places, directory, manifest, index)
            digests = digest_sources(self.sources, taken)
            for plan in plan_links(digests, places, manifest, index):
                self._link_shard(directory, plan)
        finally:
            directory.close()

    def _link_shard(self, base: Directory, plan: LinkPlan) -> None:
        entry = plan.entry
        try:
            name = self.staging.adopt(base, entry) or self._copy_shard(base, entry)
        except (FileNotFoundError, CorruptError):
            # A base that is deleted meanwhile, or has lost this file, only costs the writing.
            return
        match = _SHARD_NUMBER.search(name)
        stem = section_stem(entry.section)
        self.numbers[stem] = max(self.numbers.get(stem, 0), int(match[1]) if match else 0)
        shard = len(self.tables)
        self.tables.append(plan.table)
        self.entries.append(ShardEntry(name, entry.size_bytes, entry.digest, entry.section, entry.tensor_count))
        self.shared_bytes += self.staging.shared_bytes(name)
        for row, slot in plan.slots.items():
            self.shards[row], self.slots[row] = shard, slot

    def _copy_shard(self, base: Directory, entry: ShardEntry) -> str:
        """Copy a shard of the base where it cannot be linked."""
        stem, _, _ = entry.name.rpartition("-")
        digest_hex = entry.digest.rpartition(":")[2]
        source = open_named_file(base, entry)
        try:
            file = self.staging.create(stem, size_bytes=entry.size_bytes)
            temporary = self.staging.last_created
            for offset in range(0, entry.size_bytes, _COPY_BYTES):
                file.write(source.read(offset, _COPY_BYTES))
        finally:
            source.close()
        return self.staging.seal(file, temporary, stem=stem, digest_hex=digest_hex, suffix=".safetensors")


def _append(stream: BlockStream, source: TensorSource) -> bytes:
    memory = source.memory()
    return stream.append_hashed(memory) if memory is not None else stream.append_pieces_hashed(source.blocks(_PIECE_BYTES))
