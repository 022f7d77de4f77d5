"""The commit of a checkpoint that several processes have written, by the one that publishes it. Spec 5.1.

It takes the lock and sweeps before anybody writes, gives every file its final name once all have told of theirs, and goes on as a
single writer does. If one of them fails, nothing becomes visible, and what was written is known by its generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from ckptfmt.checkpoint.directory import open_named_file
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.part import Part
from ckptfmt.checkpoint.part_writer import new_generation
from ckptfmt.checkpoint.publishing import SaveOptions, publish
from ckptfmt.checkpoint.staging import Staging, naming_a_full_disk
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CorruptError, IncompleteError
from ckptfmt.format.layout import is_temporary_name, section_stem
from ckptfmt.format.manifest import ShardEntry
from ckptfmt.format.metadata import Chunk, Metadata, TensorRow


class JointStaging(Staging):
    """One save by several processes into one directory. Held from before the first of them writes until it is published or given up."""

    def __init__(self, disk: Disk, path: str, *, overwrite: bool, durable: bool) -> None:
        self.generation = new_generation()
        # Bytes of what was taken over that belong to other checkpoints too.
        self.joined_bytes = 0
        with naming_a_full_disk(path):
            super().__init__(disk, path, overwrite=overwrite, durable=durable)

    def take_over(self, entry: ShardEntry, *, stem: str) -> ShardEntry:
        """Give a file that another process has written, and will not touch any more, its final name."""
        try:
            file = open_named_file(self.directory, entry)
        except CorruptError as error:
            raise IncompleteError(
                f"{self.path}/{entry.name}: a file that another process wrote is not seen here: {error}\n"
                "All processes must save into one directory that they share.",
                path=self.path,
            ) from error
        is_shared = file.link_count > 1
        file.close()
        digest_hex = entry.digest.rpartition(":")[2]
        name = self._free_name(lambda length: f"{stem}-{digest_hex[:length]}.safetensors")
        self.directory.rename(entry.name, name)
        self._made.append(name)
        self.joined_bytes += entry.size_bytes if is_shared else 0
        return ShardEntry(name, entry.size_bytes, entry.digest, entry.section, entry.tensor_count)

    def abort(self) -> None:
        """Remove what all processes of this save have written; what was there before stays."""
        super().abort()
        with suppress(OSError):
            self._remove([name for name in self.directory.names() if is_temporary_name(name) and f".{self.generation}" in name])


def commit_parts(
    staging: JointStaging,
    tree: object,
    tensors: Mapping[str, TensorRow],
    parts: Sequence[Part],
    options: SaveOptions,
) -> CheckpointInfo:
    """Commit what several processes have written: the tree refers to `tensors`, which have no chunks yet, in their order."""
    with naming_a_full_disk(staging.path):
        entries: list[ShardEntry] = []
        chunks: dict[str, list[Chunk]] = {name: [] for name in tensors}
        numbers: dict[str, int] = {}
        for part in parts:
            for chunk in part.chunks:
                chunks[chunk.tensor].append(Chunk(len(entries) + chunk.shard, chunk.slot, chunk.offset, chunk.shape))
            entries += [staging.take_over(entry, stem=_next_stem(entry.section, numbers)) for entry in part.entries]
        rows = [TensorRow(row.name, row.dtype, row.shape, row.size_bytes, tuple(chunks[name])) for name, row in tensors.items()]
        metadata = Metadata(tree, rows, [table for part in parts for table in part.tables])
        return publish(staging, metadata, entries, options, shared_bytes=staging.joined_bytes, is_read_back=True)


def _next_stem(section: str, numbers: dict[str, int]) -> str:
    stem = section_stem(section)
    numbers[stem] = numbers.get(stem, 0) + 1
    return f"{stem}-{numbers[stem]:05d}"
