"""The first look at a checkpoint: what it is, what its state holds, its metrics and its files, on one screen."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, NAME, Table, labelled, number_column, text_column
from ckpt_inspect.output.units import age_text, count_text, exact_size_text, number_text, parse_utc, size_text, utc_text
from ckpt_inspect.output.visible import cut_end, visible
from ckpt_inspect.sources.checkpoint import Checkpoint, StoredFile
from ckpt_inspect.views.values import dtype_text, fitted, is_inline, type_of
from ckptfmt.format.dtypes import itemsize_bytes
from ckptfmt.format.metadata import TensorRow
from ckptfmt.format.tree_walk import children_of, iter_leaves, tag_of

_MANY_ROWS = 20
_SHOWN_ROWS = 12
_SHORT_DIGEST = 12


@dataclass(slots=True)
class TypeTotal:
    """The tensors of one element type in one section."""

    dtype: str
    tensor_count: int = 0
    element_count: int = 0
    size_bytes: int = 0


def totals_by_section(rows: Iterable[TensorRow], section_of_shard: Sequence[str]) -> dict[str, list[TypeTotal]]:
    """Return for each section its element types, the largest first. Tensors at the top of the state are in section ""."""
    counts: dict[tuple[str, str], TypeTotal] = {}
    for row in rows:
        section = section_of_shard[row.chunks[0].shard] if row.chunks else row.name.partition(".")[0]
        total = counts.get((section, row.dtype))
        if total is None:
            total = counts[section, row.dtype] = TypeTotal(row.dtype)
        total.tensor_count += 1
        total.element_count += math.prod(row.shape)
        total.size_bytes += row.size_bytes
    sections: dict[str, list[TypeTotal]] = {}
    for (section, _), total in sorted(counts.items(), key=lambda item: -item[1].size_bytes):
        sections.setdefault(section, []).append(total)
    return sections


def summary_lines(checkpoint: Checkpoint, screen: Screen) -> Iterator[str]:
    """Yield the summary of a checkpoint."""
    yield screen.style.bold(visible(checkpoint.path))
    yield from _facts(checkpoint, screen)
    if checkpoint.manifest.metrics:
        yield from titled("metrics", _metric_lines(checkpoint, screen), screen)
    yield from titled("", state_lines(checkpoint, screen), screen)
    yield from titled("", _file_lines(checkpoint.files, screen), screen)
    if checkpoint.manifest.fingerprint:
        yield from titled("fingerprint", _fingerprint_lines(checkpoint.manifest.fingerprint, screen), screen)


def titled(title: str, lines: Iterable[str], screen: Screen) -> Iterator[str]:
    """Yield a part of a summary: an empty line, its title, its lines."""
    yield ""
    if title:
        yield screen.style.bold(title)
    yield from lines


def _facts(checkpoint: Checkpoint, screen: Screen) -> list[str]:
    manifest = checkpoint.manifest
    created = parse_utc(manifest.created_at_utc)
    size = size_text if not screen.verbosity else exact_size_text
    tensors = count_text(manifest.tensor_count, "tensor")
    elements = sum(math.prod(row.shape) for row in checkpoint.metadata.tensors)
    if manifest.tensor_count:
        tensors = f"{manifest.tensor_count:,} with {count_text(elements, 'element')}, {size(manifest.tensor_bytes)}"
    stored = size(checkpoint.size_bytes)
    if checkpoint.shared_bytes:
        stored += f", of which {size(checkpoint.shared_bytes)} shared with other checkpoints"
    age = f" ({age_text(created, screen.now)})" if created else ""
    features = f", needs {', '.join(manifest.requires)}" if manifest.requires else ""
    facts = [
        ("step", "none" if manifest.step is None else f"{manifest.step:,}"),
        ("created", f"{utc_text(created, visible(manifest.created_at_utc))} UTC{age}"),
        ("on disk", stored),
        ("tensors", tensors),
        ("format", f"ckptfmt {manifest.version[0]}.{manifest.version[1]}{features}, written by {visible(manifest.writer)[:60]}"),
        ("digest", manifest.digest if screen.verbosity else manifest.digest[: len("blake3:") + _SHORT_DIGEST]),
    ]
    return labelled(facts, screen)


def _metric_lines(checkpoint: Checkpoint, screen: Screen) -> list[str]:
    return labelled([(visible(name), number_text(value)) for name, value in checkpoint.manifest.metrics.items()], screen)


def state_lines(checkpoint: Checkpoint, screen: Screen) -> Iterator[str]:
    """Yield one line for each top-level key of the state: its tensors, or its value."""
    totals = totals_by_section(checkpoint.metadata.tensors, [shard.section for shard in checkpoint.manifest.shards])
    tree = checkpoint.metadata.tree
    rows = [_state_row(key, child, totals, checkpoint.metadata.tensors) for key, child in children_of(tree) or [("", tree)]]
    if "" in totals and not any(row[1] for row in rows):
        rows.append(_section_row("(all)", totals[""]))
    heads = [NAME._replaced("state"), *map(number_column, ("tensors", "elements", "size")), text_column("holds")]
    table = Table(heads, rows, width=screen.layout_width)
    yield screen.style.bold(table.header())
    yield from _shortened([table.line(row) for row in rows], screen)
