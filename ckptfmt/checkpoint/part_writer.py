"""One process's share of a checkpoint that several processes write: its shards, durable, under temporary names. Spec 5.1.

Whoever publishes has made the directory and holds its lock. A process that has told of its files never touches them again, because
they may be named by a manifest from then on; if it fails before that, it removes them.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from ckptfmt.checkpoint.base_links import find_chunk_places, plan_links
from ckptfmt.checkpoint.directory import open_checkpoint_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.metadata_file import read_base_index
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.shard_plan import TensorPlan, plan_shards
from ckptfmt.checkpoint.shard_writer import ShardWriter
from ckptfmt.checkpoint.source_digests import digest_sources
from ckptfmt.checkpoint.staging import SLACK_BYTES, discard_files, naming_a_full_disk, not_enough_space
from ckptfmt.disk.protocol import Directory, Disk, WritableFile
from ckptfmt.errors import CheckpointError, CorruptError
from ckptfmt.format.layout import temporary_name
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.state.source_columns import SourceColumns
from ckptfmt.state.tensors import TensorSource

GENERATION_BYTES = 8


def new_generation() -> str:
    """Return a mark by which the temporary files of one save are known from those of any other."""
    return secrets.token_hex(GENERATION_BYTES)


def write_part(
    disk: Disk, path: str, generation: str, tensors: TensorPlan, sources: Sequence[TensorSource], options: SaveOptions
) -> ShardWriter:
    """Write chunks, each planned as a tensor of its own, and return what lies where. `options.base` is taken from where it pays."""
    with naming_a_full_disk(path), _PartStaging(disk, path, generation, durable=options.durable) as staging:
        columns = SourceColumns.of(sources)
        shards = ShardWriter(staging, columns)
        if options.base is not None:
            _link_base(disk, options.base, staging, shards, tensors, columns)
        plans = plan_shards(tensors, shards.missing(), max_shard_size_bytes=options.max_shard_size_bytes)
        staging.check_space(sum(plan.size_bytes for plan in plans))
        shards.write(plans)
        return shards


class _PartStaging:
    """New files of one process in a directory that another one publishes. Leaving it with an error removes them."""

    def __init__(self, disk: Disk, path: str, generation: str, *, durable: bool) -> None:
        self.directory = disk.open_directory(path)
        self._generation = generation
        self._durable = durable
        self._made: list[str] = []
        self._unfinished: set[WritableFile] = set()

    def __enter__(self) -> _PartStaging:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._abort()
        self.directory.close()

    def check_space(self, needed_bytes: int) -> None:
        free_bytes = self.directory.free_bytes()
        if needed_bytes + SLACK_BYTES > free_bytes:
            raise not_enough_space(self.directory.path, needed_bytes + SLACK_BYTES, free_bytes)

    def create(self, stem: str, *, size_bytes: int) -> WritableFile:
        file = self.directory.create(self._new_name(stem), size_bytes=size_bytes)
        self._unfinished.add(file)
        return file

    def _new_name(self, stem: str) -> str:
        name = temporary_name(stem, self._generation + secrets.token_hex(GENERATION_BYTES))
        self._made.append(name)
        return name

    @property
    def last_created(self) -> str:
        return self._made[-1]

    def seal(self, file: WritableFile, temporary: str, *, stem: str, digest_hex: str, suffix: str) -> str:
        """Make a written file durable. It keeps its name: the final one is given by the process that publishes."""
        try:
            if self._durable:
                file.sync()
        finally:
            self._unfinished.discard(file)
            file.close()
        return temporary

    def link(self, base: Directory, entry: ShardEntry) -> str | None:
        """Take over a shard of a base by a hard link; return its name here, or None where that is not possible."""
        name = self._new_name("linked")
        try:
            open_named_file(base, entry).close()
            if not self.directory.link_from(base, entry.name, name):
                return None
        except (FileNotFoundError, CorruptError):
            # A base that is deleted meanwhile, or has lost this file, only costs the writing.
            return None
        if self._durable:
            self.directory.sync_file(name)
        return name

    def _abort(self) -> None:
        discard_files(self.directory, self._unfinished, self._made)


def _link_base(disk: Disk, base: str, staging: _PartStaging, shards: ShardWriter, tensors: TensorPlan, sources: SourceColumns) -> None:
    try:
        directory = open_checkpoint_directory(disk, base)
    except CheckpointError:
        return
    try:
        manifest = read_manifest(directory)
        index = read_base_index(directory, manifest)
        places = find_chunk_places(tensors, manifest, index)
        for plan in plan_links(digest_sources(sources, {}), places, manifest, index):
            entry = plan.entry
            name = staging.link(directory, entry)
            if name is not None:
                linked = ShardEntry(name, entry.size_bytes, entry.digest, entry.section, entry.tensor_count)
                shards.take_over(linked, plan.table, plan.slots, number=0)
    except CheckpointError:
        # A base that is damaged, or gone by now, only costs the sharing.
        return
    finally:
        directory.close()
