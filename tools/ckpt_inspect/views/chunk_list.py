"""Where each tensor is stored: its chunks by offset and shape, and the shard that holds each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import Table, number_column, text_column
from ckpt_inspect.output.units import size_text
from ckpt_inspect.output.visible import cut_middle, visible
from ckpt_inspect.views.tensor_table import TensorSelection, short_shard_names
from ckpt_inspect.views.values import dtype_text
from ckptfmt.format.digest import PREFIX
from ckptfmt.format.metadata import Chunk, TensorRow

_MANY_CHUNKS = 24
_SHOWN_CHUNKS = 12
_DIGEST_LENGTH = 12


def chunk_lines(selection: TensorSelection, screen: Screen) -> Iterator[str]:
    """Yield for each tensor a line of its own, and below it one for each chunk; of very many the first ones and a count."""
    names = short_shard_names(selection.shard_names)
    for number, (_, row) in enumerate(selection.rows):
        if number:
            yield ""
        facts = f"  {dtype_text(row.dtype)} {list(row.shape)} {size_text(row.size_bytes)}"
        yield screen.style.bold(cut_middle(visible(row.name), max(1, screen.cut_width - len(facts)))) + facts
        yield from _table_lines(row, selection, names, screen)


def _table_lines(row: TensorRow, selection: TensorSelection, names: Sequence[str], screen: Screen) -> Iterator[str]:
    shown = row.chunks if screen.verbosity or len(row.chunks) <= _MANY_CHUNKS else row.chunks[:_SHOWN_CHUNKS]
    cells = [_cells(chunk, selection, names, screen) for chunk in shown]
    heads = [text_column("  offset"), text_column("shape"), number_column("size"), text_column("shard"), text_column("blake3")]
    table = Table(heads, cells, screen.cut_width)
    if cells:
        yield screen.style.dim(table.header())
    yield from map(table.line, cells)
    if len(shown) < len(row.chunks):
        yield screen.style.dim(f"  ... and {len(row.chunks) - len(shown):,} more (-v shows all)")


def _cells(chunk: Chunk, selection: TensorSelection, names: Sequence[str], screen: Screen) -> tuple[str, ...]:
    size_bytes, digest = _stored(chunk, selection)
    shown = digest.removeprefix(PREFIX) if screen.verbosity else digest.removeprefix(PREFIX)[:_DIGEST_LENGTH]
    return f"  {list(chunk.offset)}", str(list(chunk.shape)), size_text(size_bytes), visible(names[chunk.shard]), shown


def _stored(chunk: Chunk, selection: TensorSelection) -> tuple[int, str]:
    """Return what a chunk takes in its shard, and the digest of these bytes."""
    table = selection.tables[chunk.shard]
    return table.sizes[chunk.slot], PREFIX + table.digest(chunk.slot).hex()


def chunk_entries(row: TensorRow, selection: TensorSelection) -> list[dict[str, Any]]:
    """Return the chunks of one tensor for JSON; `key` is the tensor's name in the shard."""
    entries = []
    for chunk in row.chunks:
        size_bytes, digest = _stored(chunk, selection)
        key = selection.tables[chunk.shard].keys[chunk.slot]
        place = {"offset": list(chunk.offset), "shape": list(chunk.shape), "shard": selection.shard_names[chunk.shard], "key": key}
        entries.append({**place, "stored_bytes": size_bytes, "digest": digest})
    return entries
