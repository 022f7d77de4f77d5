"""Reading a checkpoint's metadata file: digest before decompression, then structure, then agreement with the manifest. Spec 7, 9."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ckptfmt.checkpoint.directory import open_to_read
from ckptfmt.disk.protocol import Directory
from ckptfmt.errors import FormatError
from ckptfmt.format.digest import digest_of, format_digest, short
from ckptfmt.format.manifest import Manifest, ShardEntry
from ckptfmt.format.metadata import Metadata, ShardTable, TensorIndex, check_codecs, decode_metadata
from ckptfmt.format.metadata_scan import OneTensor, find_one
from ckptfmt.format.rules import violation
from ckptfmt.format.zstd_frame import decompress
from ckptfmt.state.pause import collector_paused

CODEC_PREFIX = "codec:"
_MAX_REMEMBERED_CHUNKS = 200_000


@dataclass(frozen=True, slots=True)
class BaseIndex:
    """What a save needs to know of its base: the tensor index and the slots, without the state."""

    tensors: TensorIndex
    shards: Sequence[ShardTable]


def required_codecs(shards: Sequence[ShardTable]) -> set[str]:
    """Return the features that a manifest requires of who reads these shards."""
    return {f"{CODEC_PREFIX}{name}" for table in shards for encoding in table.encodings.values() for name, _ in encoding.codecs}


class _LastWritten:
    """The index that this process has written last, by the digest of its file: most saves have it as their base."""

    def __init__(self) -> None:
        self._index: tuple[str, BaseIndex] | None = None

    def remember(self, digest: str, index: BaseIndex) -> None:
        """Keep an index, unless it is so large that the memory is worth more than the time."""
        chunks = len(index.tensors) + sum(map(len, index.tensors.parts.values()))
        self._index = (digest, index) if chunks <= _MAX_REMEMBERED_CHUNKS else None

    def find(self, digest: str) -> BaseIndex | None:
        """Return the index of this file, if it is the one."""
        index = self._index
        return index[1] if index is not None and index[0] == digest else None


LAST_WRITTEN = _LastWritten()


def read_metadata(directory: Directory, manifest: Manifest) -> Metadata:
    """Read and check the metadata that a manifest names."""
    raw = read_raw_metadata(directory, manifest)
    return decode_raw_metadata(raw, manifest, where=f"{directory.path}/{manifest.metadata.name}")


def read_base_index(directory: Directory, manifest: Manifest) -> BaseIndex:
    """Read and check the metadata of a base. What this process has written itself is compared by its digest, and not decoded again."""
    where = f"{directory.path}/{manifest.metadata.name}"
    data = _read(directory, manifest, where)
    known = LAST_WRITTEN.find(manifest.metadata.digest)
    if known is not None:
        _check_agreement(manifest, Metadata(None, known.tensors, known.shards), where)
        return known
    raw = decompress(data, raw_size_bytes=manifest.metadata.raw_size_bytes, where=where)
    metadata = decode_raw_metadata(raw, manifest, where=where)
    return BaseIndex(TensorIndex.of(metadata.tensors), metadata.shards)


def read_raw_metadata(directory: Directory, manifest: Manifest) -> bytes:
    """Read and decompress the metadata that a manifest names; only its bytes are checked."""
    where = f"{directory.path}/{manifest.metadata.name}"
    return decompress(_read(directory, manifest, where), raw_size_bytes=manifest.metadata.raw_size_bytes, where=where)


def _read(directory: Directory, manifest: Manifest, where: str) -> bytes:
    entry = manifest.metadata
    file = open_to_read(directory, entry)
    try:
        data = file.read(0, entry.size_bytes)
    finally:
        file.close()
    actual = format_digest(digest_of(data))
    if actual != entry.digest:
        advice = "The metadata is damaged; use another copy."
        raise violation("E020", where, expected=short(entry.digest), found=short(actual), advice=advice)
    return data


def decode_raw_metadata(raw: bytes, manifest: Manifest, *, where: str) -> Metadata:
    """Decode and check metadata, and that it agrees with its manifest."""
    with collector_paused():
        metadata = decode_metadata(raw, where=where)
    _check_agreement(manifest, metadata, where)
    return metadata


def find_one_tensor(raw: bytes, manifest: Manifest, name: str, *, where: str) -> OneTensor | None:
    """Find one tensor without decoding the others; None where only decoding everything can tell."""
    with collector_paused():
        found = find_one(raw, name, where=where)
    if found is None:
        return None
    shard = found.row.chunks[0].shard
    if shard >= len(manifest.shards) or _find_disagreement(manifest.shards[shard], found.table, where) is not None:
        return None
    return found


def _check_agreement(manifest: Manifest, metadata: Metadata, where: str) -> None:
    if len(metadata.shards) != len(manifest.shards):
        raise violation("E032", where, "number of shards", expected=len(manifest.shards), found=len(metadata.shards))
    for entry, table in zip(manifest.shards, metadata.shards, strict=True):
        if (error := _find_disagreement(entry, table, where)) is not None:
            raise error
    totals = (manifest.tensor_count, manifest.tensor_bytes)
    found = (len(metadata.tensors), sum(TensorIndex.of(metadata.tensors).sizes))
    if totals != found:
        raise violation("E011", where, "tensors and their bytes", expected=totals, found=found)
    if (error := check_codecs(metadata, manifest.requires, where=where)) is not None:
        raise error


def _find_disagreement(entry: ShardEntry, table: ShardTable, where: str) -> FormatError | None:
    if len(table.sizes) != entry.tensor_count:
        return violation("E032", where, f"slots of {entry.name}", expected=entry.tensor_count, found=len(table.sizes))
    size_bytes = table.header_size_bytes + sum(table.sizes)
    if size_bytes != entry.size_bytes:
        return violation("E032", where, f"size of {entry.name}", expected=entry.size_bytes, found=size_bytes)
    return None
