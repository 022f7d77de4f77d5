"""A safetensors file from somewhere else: what it is, what its header says of itself, its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import labelled
from ckpt_inspect.output.units import age_text, count_text, exact_size_text, size_text, utc_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.safetensors_file import SafetensorsFile
from ckpt_inspect.views.checkpoint_document import section_document
from ckpt_inspect.views.totals import totals_by_section


def file_lines(file: SafetensorsFile, screen: Screen) -> Iterator[str]:
    """Yield what is known of the file as a whole."""
    size = exact_size_text if screen.verbosity else size_text
    total = totals_by_section(file.tensors, [""]).get("")
    modified = datetime.fromtimestamp(file.modified_at_seconds, UTC)
    tensors = "none"
    if total is not None:
        tensors = f"{total.tensor_count:,} with {count_text(total.element_count, 'element')}, {size(total.size_bytes)}"
    facts = [
        ("format", "safetensors; it has no digests to verify its data with"),
        ("modified", f"{utc_text(modified)} UTC ({age_text(modified, screen.now)})"),
        ("on disk", size(file.size_bytes)),
        ("tensors", tensors),
        *([("holds", total.types_text)] if total is not None else []),
        *(("remark", remark) for remark in file.remarks),
    ]
    yield screen.style.bold(visible(file.path))
    yield ""
    yield from labelled(facts, screen)
    if file.header_metadata:
        yield ""
        yield screen.style.bold("metadata")
        yield from labelled([(visible(name), visible(text[:1000])) for name, text in file.header_metadata.items()], screen)


def file_document(file: SafetensorsFile) -> dict[str, Any]:
    """Return the file as a JSON object, without its tensors."""
    totals = totals_by_section(file.tensors, [""])
    return {
        "kind": "safetensors",
        "path": file.path,
        "size_bytes": file.size_bytes,
        "tensor_count": len(file.tensors),
        "element_count": sum(total.element_count for total in totals.values()),
        "tensor_bytes": sum(total.size_bytes for total in totals.values()),
        "metadata": dict(file.header_metadata),
        "remarks": list(file.remarks),
        "sections": [section_document(name, total) for name, total in totals.items()],
    }
