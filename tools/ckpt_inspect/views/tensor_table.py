"""The tensor index as a table."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import Table, name_column, number_column, text_column
from ckpt_inspect.output.units import size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.views.stored_sizes import is_encoded, stored_size
from ckpt_inspect.views.values import dtype_text
from ckptfmt.format.metadata import ShardTable, TensorRow

_DIGITS = re.compile(r"([0-9]+)")
_SHARD_NAME = re.compile(r"(.+)-[0-9a-f]{8,64}\.safetensors")
_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class TensorSelection:
    """Rows of an index, in the order in which they are shown, with their numbers in the index; the names of its shards, and their slots."""

    rows: Sequence[tuple[int, TensorRow]]
    shard_names: Sequence[str]
    tables: Sequence[ShardTable] = ()


def select_tensors(
    rows: Sequence[TensorRow],
    shard_names: Sequence[str],
    tables: Sequence[ShardTable] = (),
    *,
    matches: Callable[[str], bool] | None,
    order: str | None,
) -> TensorSelection:
    """Choose rows by name, and order them by name (numbers in them by value), by size (largest first) or as stored."""
    chosen = [(index, row) for index, row in enumerate(rows) if matches is None or matches(row.name)]
    if order == "name":
        chosen.sort(key=lambda item: _name_key(item[1].name))
    elif order == "size":
        chosen.sort(key=lambda item: -item[1].size_bytes)
    return TensorSelection(chosen, shard_names, tables)


def _name_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in _DIGITS.split(name)]


def tensor_lines(selection: TensorSelection, screen: Screen) -> Iterator[str]:
    """Yield one line for each tensor."""
    shown_names = short_shard_names(selection.shard_names)
    shapes = [(row, visible(row.name), _shards_text(row, shown_names)) for _, row in selection.rows]
    cells: list[tuple[str, ...]] = [
        (name, dtype_text(row.dtype), str(list(row.shape)), size_text(row.size_bytes), shard) for row, name, shard in shapes
    ]
    heads = [name_column("name"), text_column("dtype"), text_column("shape"), number_column("size"), text_column("shard")]
    if is_encoded(selection.tables):
        stored = [stored_size(row, selection.tables) for _, row in selection.rows]
        cells = [(*cell, size_text(each.size_bytes), ", ".join(each.codecs)) for cell, each in zip(cells, stored, strict=True)]
        heads += [number_column("stored"), text_column("codec")]
    table = Table(heads, cells, screen.width)
    yield screen.style.bold(table.header())
    yield from map(table.line, cells)


def short_shard_names(names: Sequence[str]) -> list[str]:
    """Return the names without their digests where that leaves them distinct."""
    short = [match[1] if (match := _SHARD_NAME.fullmatch(name)) else name for name in names]
    return short if len(set(short)) == len(names) else list(names)


def _shards_text(row: TensorRow, names: Sequence[str]) -> str:
    """Return the shard of a tensor, or how many chunks it has along each axis."""
    shards = sorted({chunk.shard for chunk in row.chunks})
    if not shards:
        return _NOTHING
    if len(row.chunks) == 1:
        return visible(names[shards[0]])
    grid = [len({chunk.offset[axis] for chunk in row.chunks}) for axis in range(len(row.shape))]
    return f"{'x'.join(map(str, grid)) if math.prod(grid) == len(row.chunks) else len(row.chunks)} chunks"


def tensor_entries(selection: TensorSelection) -> Iterator[dict[str, Any]]:
    """Yield one JSON object for each tensor."""
    for _, row in selection.rows:
        shards = [selection.shard_names[shard] for shard in sorted({chunk.shard for chunk in row.chunks})]
        entry: dict[str, Any] = {"name": row.name, "dtype": row.dtype, "shape": list(row.shape), "size_bytes": row.size_bytes}
        entry |= {"shards": shards, "chunk_count": len(row.chunks)}
        if selection.tables:
            stored = stored_size(row, selection.tables)
            entry |= {"stored_bytes": stored.size_bytes, "codecs": list(stored.codecs)}
        yield entry
