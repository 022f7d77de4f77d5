"""Saving: a state goes down through plan and block stream to files, and one manifest makes it a checkpoint. Mirror of reader.

Everything that can be refused is refused before the first byte: unknown types, names that exist, a disk that is too full.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ckptfmt.checkpoint.base_links import LinkPlan, find_places, plan_links
from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.frozen import match_frozen, unchanged_digests
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.metadata_file import read_base_index
from ckptfmt.checkpoint.publishing import SaveOptions, publish
from ckptfmt.checkpoint.shard_plan import TensorPlan, name_tensors, plan_shards
from ckptfmt.checkpoint.shard_writer import ShardWriter
from ckptfmt.checkpoint.source_digests import digest_sources
from ckptfmt.checkpoint.staging import Staging, naming_a_full_disk
from ckptfmt.checkpoint.store_staging import StoreStaging, open_staging
from ckptfmt.disk.protocol import Directory, Disk
from ckptfmt.errors import CorruptError
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.format.metadata import Metadata, TensorIndex
from ckptfmt.state.pause import collector_paused
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tree import EncodedState

_SHARD_NUMBER = re.compile(r"-([0-9]{5,})-[0-9a-f]+\.safetensors")
_COPY_BYTES = 8 * 2**20


def write_checkpoint(disk: Disk, path: str, state: EncodedState, options: SaveOptions) -> CheckpointInfo:
    """Write a state as a checkpoint, durably and atomically, and return what was committed."""
    with naming_a_full_disk(path), open_staging(disk, path, overwrite=options.overwrite, durable=options.durable) as staging:
        return _Writer(disk, staging, state, options).write()


class _Writer:
    """One save on its way."""

    def __init__(self, disk: Disk, staging: Staging | StoreStaging, state: EncodedState, options: SaveOptions) -> None:
        self.disk = disk
        self.staging = staging
        self.tree = state.tree
        self.sources = SourceColumns.of(state.tensors)
        self.options = options
        self.shards = ShardWriter(staging, self.sources)
        self.shared_bytes = 0

    def write(self) -> CheckpointInfo:
        with collector_paused():
            sources = self.sources
            tensors = name_tensors(sources.paths, sources.ties, sources.dtypes, sources.shapes, sources.sizes)
        frozen = match_frozen(self.options.frozen, tensors.names)
        if self.options.base is not None:
            self._link_base(self.options.base, tensors, frozen)
        with collector_paused():
            plans = plan_shards(tensors, self.shards.missing(), max_shard_size_bytes=self.options.max_shard_size_bytes)
        self.staging.check_space(sum(plan.size_bytes for plan in plans))
        self.shards.write(plans)
        with collector_paused():
            index = TensorIndex(tensors.names, tensors.dtypes, tensors.shapes, tensors.sizes, self.shards.shards, self.shards.slots)
            metadata = Metadata(self.tree, index, self.shards.tables)
        return publish(self.staging, metadata, self.shards.entries, self.options, shared_bytes=self.shared_bytes)

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
        adopted = ShardEntry(name, entry.size_bytes, entry.digest, entry.section, entry.tensor_count)
        self.shards.take_over(adopted, plan.table, plan.slots, number=int(match[1]) if match else 0)
        self.shared_bytes += self.staging.shared_bytes(name)

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
