"""What is known of a checkpoint without reading its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptfmt.format.manifest import Manifest


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A committed checkpoint.

    `size_bytes` counts every file of the directory that belongs to it; `unique_bytes` those that no other checkpoint
    shares by a hard link, so what deleting it would free. `digest` is the manifest's and fixes every byte.
    """

    path: str
    step: int | None
    metrics: Mapping[str, int | float]
    digest: str
    size_bytes: int
    unique_bytes: int
    tensor_count: int
    created_at_utc: str
    fingerprint: Mapping[str, Any] | None

    def __fspath__(self) -> str:
        """Return the path, so that this stands wherever a path does."""
        return self.path


def describe(path: str, manifest: Manifest, *, manifest_bytes: int, shared_bytes: int) -> CheckpointInfo:
    """Return the info of a checkpoint from its manifest."""
    size_bytes = manifest_bytes + sum(file.size_bytes for file in manifest.files())
    return CheckpointInfo(
        path=path,
        step=manifest.step,
        metrics=dict(manifest.metrics),
        digest=manifest.digest,
        size_bytes=size_bytes,
        unique_bytes=size_bytes - shared_bytes,
        tensor_count=manifest.tensor_count,
        created_at_utc=manifest.created_at_utc,
        fingerprint=manifest.fingerprint,
    )
