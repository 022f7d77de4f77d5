"""Saving: a state goes down through plan and block stream to files, and one manifest makes it a checkpoint. Mirror of reader.

Everything that can be refused is refused before the first byte: unknown types, names that exist, a disk that is too full.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ckptfmt._version import __version__
from ckptfmt.checkpoint.base_links import LinkPlan, hash_all, plan_links, whole_chunks
from ckptfmt.checkpoint.block_stream import BlockStream
from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.frozen import match_frozen, unchanged_digests
from ckptfmt.checkpoint.info import CheckpointInfo, describe
from ckptfmt.checkpoint.metadata_file import read_metadata
from ckptfmt.checkpoint.shard_plan import PlannedTensor, ShardPlan, name_tensors, plan_shards
from ckptfmt.checkpoint.staging import Staging, became_full
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import CorruptError
from ckptfmt.format.digest import Hasher, digest_of, format_digest, shard_digest
from ckptfmt.format.layout import section_stem
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, decode_manifest, encode_manifest
from ckptfmt.format.metadata import Chunk, Metadata, ShardTable, TensorRow, encode_metadata
from ckptfmt.format.zstd_frame import compress
from ckptfmt.state.pause import collector_paused
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
        self.state = state
        self.options = options
        self.entries: list[ShardEntry] = []
        self.tables: list[ShardTable] = []
        self.places: dict[int, tuple[int, int]] = {}
        self.shared_bytes = 0
        self.numbers: dict[str, int] = {}

    def write(self) -> CheckpointInfo:
        with collector_paused():
            described = [(source.keys, source.aliases, source.dtype, source.shape, source.size_bytes) for source in self.state.tensors]
            tensors = name_tensors(described)
        frozen = match_frozen(self.options.frozen, tensors)
        if self.options.base is not None:
            self._link_base(self.options.base, tensors, frozen)
        missing = [tensor for tensor in tensors if tensor.index not in self.places]
        with collector_paused():
            plans = plan_shards(missing, max_shard_size_bytes=self.options.max_shard_size_bytes)
        needed_bytes = sum(plan.size_bytes for plan in plans)
        self.staging.check_space(needed_bytes)
        with BlockStream(expected_bytes=needed_bytes) as stream:
            for plan in plans:
                self._write_shard(stream, plan)
            stream.drain()
        with collector_paused():
            metadata = self._write_metadata(tensors)
        manifest = Manifest(
            created_at_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            writer=f"ckptfmt {__version__}",
            step=self.options.step,
            metrics=self.options.metrics,
            fingerprint=self.options.fingerprint,
            metadata=metadata,
            shards=self.entries,
            tensor_count=len(tensors),
            tensor_bytes=sum(tensor.size_bytes for tensor in tensors),
        )
        encoded = encode_manifest(manifest)
        # Decoded again before it is published: nothing is committed that the reader would refuse.
        manifest = decode_manifest(encoded, where=self.staging.path)
        self.staging.publish(encoded, digest=manifest.digest)
        return describe(self.staging.path, manifest, manifest_bytes=len(encoded), shared_bytes=self.shared_bytes)

    def _write_shard(self, stream: BlockStream, plan: ShardPlan) -> None:
        stem = self._next_stem(plan.section)
        file = self.staging.create(stem, size_bytes=plan.size_bytes)
        temporary = self.staging.last_created
        stream.begin(file)
        stream.append(plan.header)
        digests = b"".join([_append(stream, self.state.tensors[tensor.index]) for tensor in plan.tensors])
        digest = shard_digest(plan.header, digests)
        shard = len(self.tables)
        sizes = [tensor.size_bytes for tensor in plan.tensors]
        self.tables.append(ShardTable(len(plan.header), [tensor.key for tensor in plan.tensors], sizes, digests))
        self.entries.append(ShardEntry("", plan.size_bytes, format_digest(digest), plan.section, len(plan.tensors)))
        for slot, tensor in enumerate(plan.tensors):
            self.places[tensor.index] = (shard, slot)

        def seal() -> None:
            name = self.staging.seal(file, temporary, stem=stem, digest_hex=digest.hex(), suffix=".safetensors")
            self.entries[shard] = ShardEntry(name, plan.size_bytes, format_digest(digest), plan.section, len(plan.tensors))

        stream.finish(seal)

    def _next_stem(self, section: str) -> str:
        stem = section_stem(section)
        number = self.numbers[stem] = self.numbers.get(stem, 0) + 1
        return f"{stem}-{number:05d}"

    def _write_metadata(self, tensors: list[PlannedTensor]) -> MetadataEntry:
        rows = []
        for tensor in tensors:
            chunk = Chunk(*self.places[tensor.index], (0,) * len(tensor.shape), tensor.shape)
            rows.append(TensorRow(tensor.name, tensor.dtype, tensor.shape, tensor.size_bytes, (chunk,)))
        raw = encode_metadata(Metadata(self.state.tree, rows, self.tables))
        data = compress(raw)
        digest = digest_of(data)
        file = self.staging.create("metadata", size_bytes=len(data))
        temporary = self.staging.last_created
        file.write(data)
        name = self.staging.seal(file, temporary, stem="metadata", digest_hex=digest.hex(), suffix=".msgpack.zst")
        return MetadataEntry(name, len(data), format_digest(digest), len(raw))

    def _link_base(self, base: str, tensors: list[PlannedTensor], frozen: list[PlannedTensor]) -> None:
        directory = open_checkpoint_directory(self.disk, base)
        try:
            manifest = read_manifest(directory)
            metadata = read_metadata(directory, manifest)
            places = whole_chunks(manifest, metadata)
            taken = unchanged_digests(frozen, lambda index: self.state.tensors[index].memory(), places, directory, manifest, metadata)
            sizes = [0 if tensor.index in taken else tensor.size_bytes for tensor in tensors]
            digests = hash_all(sizes, lambda index: taken.get(index) or _digest(self.state.tensors[index]), threads=os.cpu_count() or 1)
            for plan in plan_links(tensors, digests, places, manifest, metadata):
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
        for index, slot in plan.slots.items():
            self.places[index] = (shard, slot)

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


def _digest(source: TensorSource) -> bytes:
    memory = source.memory()
    if memory is not None:
        return digest_of(memory)
    hasher = Hasher()
    for block in source.blocks(_PIECE_BYTES):
        hasher.update(block)
    return hasher.digest()
