"""The end of every save: metadata is written, the manifest is made, read back, and published. Spec 4, 5, 7.

Whoever wrote the shards, one process or several, hands over their entries and tables; nothing is visible before this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ckptfmt._version import __version__
from ckptfmt.checkpoint.info import CheckpointInfo, describe
from ckptfmt.checkpoint.metadata_file import LAST_WRITTEN, BaseIndex, required_codecs
from ckptfmt.checkpoint.staging import Staging
from ckptfmt.checkpoint.store_staging import StoreStaging
from ckptfmt.format.digest import digest_of, format_digest
from ckptfmt.format.manifest import Manifest, MetadataEntry, ShardEntry, decode_manifest, encode_manifest
from ckptfmt.format.metadata import Metadata, TensorIndex, decode_metadata, encode_metadata
from ckptfmt.format.references import check_references
from ckptfmt.format.zstd_frame import compress
from ckptfmt.state.pause import collector_paused


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


def publish(
    staging: Staging | StoreStaging,
    metadata: Metadata,
    entries: Sequence[ShardEntry],
    options: SaveOptions,
    *,
    shared_bytes: int,
    is_read_back: bool = False,
) -> CheckpointInfo:
    """Commit a checkpoint of shards that are written; `shared_bytes` of them belong to other checkpoints too.

    With `is_read_back` the metadata is checked as a reader does, because what is in it comes from several processes.
    """
    with collector_paused():
        raw = encode_metadata(metadata)
        if is_read_back:
            decoded = decode_metadata(raw, where=staging.path)
            check_references(decoded.tree, decoded.tensors, where=staging.path)
    written = _write_metadata(staging, raw)
    index = TensorIndex.of(metadata.tensors)
    manifest = Manifest(
        created_at_utc=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        writer=f"ckptfmt {__version__}",
        step=options.step,
        metrics=options.metrics,
        fingerprint=options.fingerprint,
        metadata=written,
        shards=entries,
        tensor_count=len(index.sizes),
        tensor_bytes=sum(index.sizes),
        requires=sorted(required_codecs(metadata.shards)),
    )
    encoded = encode_manifest(manifest)
    # Decoded again before it is published: nothing is committed that the reader would refuse.
    manifest = decode_manifest(encoded, where=staging.path)
    staging.publish(encoded, digest=manifest.digest)
    LAST_WRITTEN.remember(written.digest, BaseIndex(index, metadata.shards))
    return describe(staging.path, manifest, manifest_bytes=len(encoded), shared_bytes=shared_bytes)


def _write_metadata(staging: Staging | StoreStaging, raw: bytes) -> MetadataEntry:
    data = compress(raw)
    digest = digest_of(data)
    file = staging.create("metadata", size_bytes=len(data))
    temporary = staging.last_created
    file.write(data)
    name = staging.seal(file, temporary, stem="metadata", digest_hex=digest.hex(), suffix=".msgpack.zst")
    return MetadataEntry(name, len(data), format_digest(digest), len(raw))
