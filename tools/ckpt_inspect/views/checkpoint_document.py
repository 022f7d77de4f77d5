"""A checkpoint as a JSON object: what the summary says, exact."""

from __future__ import annotations

from typing import Any

from ckpt_inspect.sources.checkpoint import Checkpoint, StoredFile
from ckpt_inspect.views.json_values import metrics_document
from ckpt_inspect.views.stored_sizes import total_stored_bytes
from ckpt_inspect.views.totals import SectionTotal, totals_by_section


def checkpoint_document(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the description of a checkpoint, without its tree and its tensors."""
    manifest = checkpoint.manifest
    totals = totals_by_section(checkpoint.metadata.tensors, [shard.section for shard in manifest.shards])
    return {
        "kind": "checkpoint",
        "path": checkpoint.path,
        "step": manifest.step,
        "created_at_utc": manifest.created_at_utc,
        "size_bytes": checkpoint.size_bytes,
        "unique_bytes": checkpoint.size_bytes - checkpoint.shared_bytes,
        "tensor_count": manifest.tensor_count,
        "element_count": sum(total.element_count for total in totals.values()),
        "tensor_bytes": manifest.tensor_bytes,
        "stored_tensor_bytes": total_stored_bytes(checkpoint.metadata.tensors, checkpoint.metadata.shards),
        "metrics": metrics_document(manifest.metrics),
        "digest": manifest.digest,
        "version": list(manifest.version),
        "requires": list(manifest.requires),
        "writer": manifest.writer,
        "fingerprint": manifest.fingerprint,
        "sections": [section_document(name, total) for name, total in totals.items()],
        "files": [_file_document(file) for file in checkpoint.files],
    }


def section_document(name: str, total: SectionTotal) -> dict[str, Any]:
    """Return the totals of one section."""
    types = [
        {"dtype": each.dtype, "tensor_count": each.tensor_count, "element_count": each.element_count, "size_bytes": each.size_bytes}
        for each in total.types
    ]
    return {
        "name": name,
        "tensor_count": total.tensor_count,
        "element_count": total.element_count,
        "size_bytes": total.size_bytes,
        "dtypes": types,
    }


def _file_document(file: StoredFile) -> dict[str, Any]:
    described = {"name": file.name, "size_bytes": file.size_bytes, "digest": file.digest}
    return described | {"section": file.section, "problem": file.problem, "is_shared": file.name_count > 1}
