"""Shards written anew in the place of others, and the commit that puts them there: what compressing and decompressing share. Spec 11.3.

The state stays the same: the tree, the index, `step`, `metrics`, `fingerprint` and `created_at_utc`. What was written is read again and
decoded before the manifest is replaced; files of before are removed only after that is durable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ckptfmt._version import __version__
from ckptfmt.checkpoint.block_stream import BlockStream
from ckptfmt.checkpoint.directory import describe_directory, open_named_file, read_manifest
from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.many_slots import check_slots
from ckptfmt.checkpoint.metadata_file import CODEC_PREFIX, read_metadata, required_codecs
from ckptfmt.checkpoint.shard_file import ShardFile, uses_by_shard
from ckptfmt.checkpoint.staging import Staging
from ckptfmt.checkpoint.tensor_store import TensorStore
from ckptfmt.errors import FormatError, UnsupportedVersionError
from ckptfmt.format.digest import digest_of, format_digest, shard_digest
from ckptfmt.format.layout import is_data_name, section_stem
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, decode_manifest, encode_manifest
from ckptfmt.format.metadata import Metadata, ShardTable, decode_metadata, encode_metadata
from ckptfmt.format.zstd_frame import compress


@dataclass(frozen=True, slots=True)
class NewShard:
    """A shard to be written: its table, in which digests are still missing, its header, and the bytes of each slot."""

    table: ShardTable
    header: bytes
    slots: Iterable[Iterator[memoryview]]


class ShardRewriter:
    """One checkpoint being rewritten in place. Use as a context manager: leaving it closes files."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self.manifest = read_manifest(staging.directory)
        self.metadata = read_metadata(staging.directory, self.manifest)
        self._refuse_what_would_be_lost()
        self.before = describe_directory(staging.directory, self.manifest)
        self.uses = uses_by_shard(self.metadata)
        self._entries: list[ShardEntry] = []
        self._tables: list[ShardTable] = []
        self._written: list[int] = []
        with ExitStack() as self._stack:
            self.shards = self._open(self.manifest.shards, self.metadata.shards)
            for shard, uses in zip(self.shards, self.uses, strict=True):
                shard.check_header(uses)
            self._stack = self._stack.pop_all()

    def __enter__(self) -> ShardRewriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _refuse_what_would_be_lost(self) -> None:
        if self.metadata.unknown_members:
            found = ", ".join(self.metadata.unknown_members)
            message = f"{self.staging.path}: its metadata has members that this version does not know: {found}\nUpdate ckptfmt."
            raise UnsupportedVersionError(message, rule="W004", path=self.staging.path)

    def _open(self, entries: Sequence[ShardEntry], tables: Sequence[ShardTable]) -> list[ShardFile]:
        shards = []
        for entry, table in zip(entries, tables, strict=True):
            file = open_named_file(self.staging.directory, entry)
            self._stack.callback(file.close)
            shards.append(ShardFile(file, entry, table, where=f"{self.staging.path}/{entry.name}"))
        return shards

    def keep(self, shard: int) -> None:
        """Leave a shard as it is."""
        entry = self.manifest.shards[shard]
        self.staging.adopt(self.staging.directory, entry)
        self._entries.append(entry)
        self._tables.append(self.metadata.shards[shard])

    def write(self, shard: int, new: NewShard) -> None:
        """Write one shard in the place of another, durably, under a temporary name first."""
        old = self.manifest.shards[shard]
        size_bytes = len(new.header) + sum(new.table.sizes)
        self.staging.check_space(size_bytes)
        stem = _stem_of(old)
        file = self.staging.create(stem, size_bytes=size_bytes)
        temporary = self.staging.last_created
        with BlockStream(expected_bytes=size_bytes) as stream:
            stream.begin(file)
            stream.append(new.header)
            digests = b"".join([stream.append_pieces_hashed(pieces) for pieces in new.slots])
            digest = shard_digest(new.header, digests)
            name = ""

            def seal() -> None:
                nonlocal name
                name = self.staging.seal(file, temporary, stem=stem, digest_hex=digest.hex(), suffix=".safetensors")

            stream.finish(seal)
            stream.drain()
        self._written.append(len(self._entries))
        self._entries.append(ShardEntry(name, size_bytes, format_digest(digest), old.section, old.tensor_count))
        self._tables.append(replace(new.table, digests=digests))

    def add(self, entry: ShardEntry, table: ShardTable) -> None:
        """Add a shard that the staging has taken over from another checkpoint."""
        self._entries.append(entry)
        self._tables.append(table)

    @property
    def is_changed(self) -> bool:
        """Whether any shard was written."""
        return bool(self._written)

    def section_sizes(self) -> dict[str, tuple[int, int]]:
        """Return the size of each section's shards before and after."""
        sizes = {entry.section: (0, 0) for entry in self.manifest.shards}
        # What was added, or left out at the end, holds nothing of this state.
        for old, new in zip(self.manifest.shards, self._entries, strict=False):
            before, after = sizes[old.section]
            sizes[old.section] = (before + old.size_bytes, after + new.size_bytes)
        return sizes

    def commit(self) -> CheckpointInfo:
        """Read and decode what was written, then put it in the place of what was there.

        Raises:
            CorruptError: what was written does not decode to what was there; nothing has changed.
        """
        metadata = replace(self.metadata, shards=self._tables)
        raw = encode_metadata(metadata)
        self._check(decode_metadata(raw, where=self.staging.path))
        others = {feature for feature in self.manifest.requires if not feature.startswith(CODEC_PREFIX)}
        encoded = encode_manifest(
            replace(
                self.manifest,
                writer=f"ckptfmt {__version__}",
                metadata=self._write_metadata(raw),
                shards=self._entries,
                requires=sorted(others | required_codecs(self._tables)),
            )
        )
        manifest = decode_manifest(encoded, where=self.staging.path)
        self.staging.publish(encoded, digest=manifest.digest)
        return self.describe(manifest)

    def _check(self, metadata: Metadata) -> None:
        shards = self._open(self._entries, self._tables)
        uses = uses_by_shard(metadata)
        store = TensorStore(metadata, dict(enumerate(shards)), verify=True)
        damage: list[FormatError] = []
        for shard in self._written:
            shards[shard].check_header(uses[shard])
        places = [(shard, slot) for shard in self._written for slot in range(len(self._tables[shard].sizes))]
        store.verify_slots([place for place in places if store.decoder.encoding(place) is None])
        check_slots(store.decoder, places, on_bytes=lambda _: None, on_damage=damage.append)
        if damage:
            raise damage[0]

    def _write_metadata(self, raw: bytes) -> MetadataEntry:
        data = compress(raw)
        digest = digest_of(data)
        file = self.staging.create("metadata", size_bytes=len(data))
        temporary = self.staging.last_created
        file.write(data)
        name = self.staging.seal(file, temporary, stem="metadata", digest_hex=digest.hex(), suffix=".msgpack.zst")
        return MetadataEntry(name, len(data), format_digest(digest), len(raw))

    def describe(self, manifest: Manifest) -> CheckpointInfo:
        """Return the info of the checkpoint as it is now."""
        return describe_directory(self.staging.directory, manifest)


def _stem_of(entry: ShardEntry) -> str:
    """Return what stands before the digest in a shard's name: of a name that this library gave, section and number."""
    stem = entry.name.rpartition("-")[0]
    return stem if is_data_name(entry.name) and stem else f"{section_stem(entry.section)}-00001"
