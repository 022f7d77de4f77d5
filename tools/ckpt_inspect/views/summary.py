"""The first look at a checkpoint: what it is, its metrics, what its state holds, and its files, on one screen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import Table, labelled, name_column, number_column, text_column
from ckpt_inspect.output.units import age_text, count_text, exact_size_text, number_text, parse_utc, size_text, utc_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.checkpoint import Checkpoint, StoredFile
from ckpt_inspect.views.stored_sizes import codec_counts, total_stored_bytes
from ckpt_inspect.views.tensor_nodes import find_row
from ckpt_inspect.views.totals import SectionTotal, totals_by_section
from ckpt_inspect.views.values import dtype_text, fitted, is_inline, type_of
from ckptfmt.format.digest import PREFIX
from ckptfmt.format.metadata import TensorIndex, TensorRow
from ckptfmt.format.tree_walk import children_of

_MANY_LINES = 24
_SHOWN_LINES = 12
_DIGEST_LENGTH = 12
_MAX_VALUE = 60


def summary_lines(checkpoint: Checkpoint, screen: Screen) -> Iterator[str]:
    """Yield the summary of a checkpoint."""
    manifest = checkpoint.manifest
    totals = totals_by_section(checkpoint.metadata.tensors, [shard.section for shard in manifest.shards])
    yield screen.style.bold(visible(checkpoint.path))
    yield ""
    yield from _facts(checkpoint, totals, screen)
    if manifest.metrics:
        yield from titled("metrics", screen)
        yield from labelled([(visible(name), number_text(value)) for name, value in manifest.metrics.items()], screen)
    yield ""
    yield from _state_lines(checkpoint, totals, screen)
    yield ""
    yield from _file_lines(checkpoint.files, screen)
    if manifest.fingerprint:
        from ckpt_inspect.views.fingerprint_lines import fingerprint_lines

        yield from titled("fingerprint", screen)
        yield from shortened(fingerprint_lines(manifest.fingerprint, screen), screen)


def titled(title: str, screen: Screen) -> Iterator[str]:
    """Yield what stands above a part of a summary."""
    yield ""
    yield screen.style.bold(title)


def shortened(lines: Sequence[str], screen: Screen) -> Iterator[str]:
    """Yield lines; of very many only the first ones and a count, unless -v asks for all."""
    if len(lines) <= _MANY_LINES or screen.verbosity:
        yield from lines
        return
    yield from lines[:_SHOWN_LINES]
    yield screen.style.dim(f"  ... and {len(lines) - _SHOWN_LINES:,} more (-v shows all)")


def _facts(checkpoint: Checkpoint, totals: Mapping[str, SectionTotal], screen: Screen) -> list[str]:
    manifest = checkpoint.manifest
    created = parse_utc(manifest.created_at_utc)
    size = exact_size_text if screen.verbosity else size_text
    age = f" ({age_text(created, screen.now)})" if created else ""
    on_disk = size(checkpoint.size_bytes)
    if checkpoint.shared_bytes:
        on_disk += f", {size(checkpoint.shared_bytes)} of it shared with other checkpoints"
    elements = sum(total.element_count for total in totals.values())
    tensors = f"{manifest.tensor_count:,} with {count_text(elements, 'element')}, {size(manifest.tensor_bytes)}"
    parts = TensorIndex.of(checkpoint.metadata.tensors).parts.values()
    if chunks := sum(map(len, parts)):
        tensors += f"; {sum(map(bool, parts)):,} of them in {count_text(chunks, 'chunk')}"
    features = f", requires {', '.join(manifest.requires)}" if manifest.requires else ""
    facts = [
        ("step", "none" if manifest.step is None else f"{manifest.step:,}"),
        ("created", f"{utc_text(created, visible(manifest.created_at_utc))} UTC{age}"),
        ("on disk", on_disk),
        ("tensors", tensors if manifest.tensor_count else "none"),
        *_compression(checkpoint),
        ("format", f"ckptfmt {manifest.version[0]}.{manifest.version[1]}{features}, written by {visible(manifest.writer)}"),
        ("digest", manifest.digest if screen.verbosity else manifest.digest[: len(PREFIX) + _DIGEST_LENGTH]),
    ]
    return labelled(facts, screen)


def _compression(checkpoint: Checkpoint) -> list[tuple[str, str]]:
    tables = checkpoint.metadata.shards
    counts = codec_counts(tables)
    if not counts:
        return []
    stored_bytes = total_stored_bytes(checkpoint.metadata.tensors, tables)
    ratio = f"{100 * stored_bytes / max(1, checkpoint.manifest.tensor_bytes):.1f} %"
    codecs = ", ".join(f"{count:,} {visible(name)}" for name, count in counts.items())
    return [("encoded", f"to {size_text(stored_bytes)}, {ratio}: {codecs}")]


def _state_lines(checkpoint: Checkpoint, totals: Mapping[str, SectionTotal], screen: Screen) -> Iterator[str]:
    """Yield one line for each top-level key of the state: what tensors it holds, or its value."""
    tree = checkpoint.metadata.tree
    rows = [_state_row(key, node, totals, checkpoint.metadata.tensors) for key, node in children_of(tree) or [("state", tree)]]
    if "" in totals and not any(tensors for _, tensors, *_ in rows):
        rows.append(_tensor_row("(together)", totals[""], totals[""].types_text))
    table = Table(
        [name_column("state"), *map(number_column, ("tensors", "elements", "size")), text_column("holds")], rows, screen.cut_width
    )
    yield screen.style.bold(table.header())
    yield from shortened([table.line(row) for row in rows], screen)


Row = tuple[str, str, str, str, str]


def _state_row(key: str, node: Any, totals: Mapping[str, SectionTotal], tensors: Sequence[TensorRow]) -> Row:
    if key in totals:
        return _tensor_row(key, totals[key], totals[key].types_text)
    row = find_row(node, tensors)
    if row is not None:
        only = totals_by_section([row], [""] * (1 + max((chunk.shard for chunk in row.chunks), default=0)))
        return _tensor_row(key, next(iter(only.values())), f"{dtype_text(row.dtype)} {list(row.shape)}")
    return f"  {visible(key)}", "", "", "", _held_text(node)


def _tensor_row(key: str, total: SectionTotal, holds: str) -> Row:
    return f"  {visible(key)}", f"{total.tensor_count:,}", f"{total.element_count:,}", size_text(total.size_bytes), holds


def _held_text(node: Any) -> str:
    """Return a value that has no tensors: itself if it is short, else how much there is."""
    if is_inline(node):
        return f"{type_of(node)} {fitted(node, _MAX_VALUE)}".rstrip()
    return f"{type_of(node)} of {len(children_of(node) or ()):,}"


def _file_lines(files: Sequence[StoredFile], screen: Screen) -> Iterator[str]:
    length = None if screen.verbosity else _DIGEST_LENGTH
    rows = [(f"  {file.name}", size_text(file.size_bytes), file.digest.removeprefix(PREFIX)[:length], file.problem or "") for file in files]
    heads = [name_column("files"), number_column("size"), text_column("blake3"), text_column("")]
    table = Table(heads, rows, screen.cut_width)
    yield screen.style.bold(table.header())
    lines = [screen.style.red(table.line(row)) if row[-1] else table.line(row) for row in rows]
    yield from shortened(lines, screen)
