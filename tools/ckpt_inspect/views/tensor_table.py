"""The tensor index as a table, with statistics if they are asked for.

Widths are known before the first row, so rows are written as their statistics arrive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import Column, Table, name_column, number_column, text_column
from ckpt_inspect.output.units import size_text
from ckpt_inspect.output.visible import visible
from ckpt_inspect.views.values import dtype_text
from ckptfmt.errors import FormatError
from ckptfmt.format.metadata import TensorRow
from ckptfmt.state.statistics import TensorStats

_DIGITS = re.compile(r"([0-9]+)")
_SHARD_NAME = re.compile(r"(.+)-[0-9a-f]{8,64}\.safetensors")
_NUMBER_WIDTH = 10
_COUNT_WIDTH = 3
_SHAPE_FROM_WIDTH = 110
_NOTHING = "-"

Statistics = TensorStats | FormatError | None


@dataclass(frozen=True, slots=True)
class TensorSelection:
    """Rows of an index, in the order in which they are shown, with their numbers in the index; and the names of its shards."""

    rows: Sequence[tuple[int, TensorRow]]
    shard_names: Sequence[str]


def select_tensors(
    rows: Sequence[TensorRow], shard_names: Sequence[str], *, matches: Callable[[str], bool] | None, order: str | None
) -> TensorSelection:
    """Choose rows by name, and order them by name (numbers in them by value), by size (largest first) or as stored."""
    chosen = [(index, row) for index, row in enumerate(rows) if matches is None or matches(row.name)]
    if order == "name":
        chosen.sort(key=lambda item: _name_key(item[1].name))
    elif order == "size":
        chosen.sort(key=lambda item: -item[1].size_bytes)
    return TensorSelection(chosen, shard_names)


def _name_key(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in _DIGITS.split(name)]


def tensor_lines(selection: TensorSelection, screen: Screen, statistics: Iterable[Statistics] | None = None) -> Iterator[str]:
    """Yield one line for each tensor; `statistics` come in the same order."""
    if not selection.rows:
        yield screen.style.dim("no tensor matches")
        return
    if statistics is None:
        yield from _index_lines(selection, screen)
    else:
        yield from _statistics_lines(selection, screen, statistics)


def _index_lines(selection: TensorSelection, screen: Screen) -> Iterator[str]:
    shown_names = _shown_shard_names(selection.shard_names)
    shapes = [(row, visible(row.name), _shards_text(row, shown_names)) for _, row in selection.rows]
    cells = [(name, dtype_text(row.dtype), str(list(row.shape)), size_text(row.size_bytes), shard) for row, name, shard in shapes]
    heads = [name_column("name"), text_column("dtype"), Column("shape"), number_column("size"), text_column("shard")]
    table = Table(heads, cells, screen.width)
    yield screen.style.bold(table.header())
    yield from map(table.line, cells)


def _statistics_lines(selection: TensorSelection, screen: Screen, statistics: Iterable[Statistics]) -> Iterator[str]:
    has_shape = screen.width is None or screen.width >= _SHAPE_FROM_WIDTH
    heads = [name_column("name"), text_column("dtype"), *([Column("shape")] if has_shape else [])]
    heads += map(number_column, ("min", "max", "mean", "NaN", "Inf"))
    known = [
        (
            visible(row.name),
            dtype_text(row.dtype),
            *([str(list(row.shape))] if has_shape else []),
            *["0" * _NUMBER_WIDTH] * 3,
            *["0" * _COUNT_WIDTH] * 2,
        )
        for _, row in selection.rows
    ]
    table = Table(heads, known, screen.width)
    yield screen.style.bold(table.header())
    for cells, stats in zip(known, statistics, strict=True):
        described = cells[: len(cells) - 5]
        if isinstance(stats, FormatError):
            yield screen.style.red(table.line((*described, *[""] * 5)) + f"  damaged [{stats.rule}]")
            continue
        line = table.line((*described, *_statistics_cells(stats)))
        has_bad = stats is not None and bool(stats.nan_count or stats.inf_count)
        yield screen.style.yellow(line) if has_bad else line


def _statistics_cells(stats: TensorStats | None) -> tuple[str, str, str, str, str]:
    if stats is None or not stats.is_numeric:
        return (_NOTHING,) * 5
    extremes = (_number_cell(stats.minimum), _number_cell(stats.maximum), _number_cell(stats.mean))
    return (*extremes, f"{stats.nan_count:,}", f"{stats.inf_count:,}")


def _number_cell(value: complex | None) -> str:
    if value is None:
        return _NOTHING
    if isinstance(value, complex):
        return f"{value.real:.2g}{value.imag:+.2g}j"
    if isinstance(value, int) and abs(value) < 10**_NUMBER_WIDTH:
        return str(value)
    return f"{value:.4g}" if len(f"{value:.4g}") <= _NUMBER_WIDTH else f"{value:.3g}"


def _shown_shard_names(names: Sequence[str]) -> list[str]:
    """Return the names without their digests where that leaves them distinct."""
    short = [match[1] if (match := _SHARD_NAME.fullmatch(name)) else name for name in names]
    return short if len(set(short)) == len(names) else list(names)


def _shards_text(row: TensorRow, names: Sequence[str]) -> str:
    shards = sorted({chunk.shard for chunk in row.chunks})
    if not shards:
        return _NOTHING
    more = f" and {len(shards) - 1} more" if len(shards) > 1 else ""
    return visible(names[shards[0]]) + more


def tensor_entries(selection: TensorSelection, statistics: Iterable[Statistics] | None = None) -> Iterator[dict[str, Any]]:
    """Yield one JSON object for each tensor."""
    each = iter(statistics) if statistics is not None else None
    for _, row in selection.rows:
        shards = [selection.shard_names[shard] for shard in sorted({chunk.shard for chunk in row.chunks})]
        entry: dict[str, Any] = {"name": row.name, "dtype": row.dtype, "shape": list(row.shape), "size_bytes": row.size_bytes}
        entry |= {"shards": shards, "chunk_count": len(row.chunks)}
        if each is not None:
            entry |= {"statistics": _statistics_document(next(each))}
        yield entry


def _statistics_document(stats: Statistics) -> Mapping[str, Any] | None:
    if stats is None:
        return None
    if isinstance(stats, FormatError):
        return {"damaged": {"rule": stats.rule, "message": str(stats).partition("\n")[0]}}
    mean = [stats.mean.real, stats.mean.imag] if isinstance(stats.mean, complex) else stats.mean
    return {
        "is_numeric": stats.is_numeric,
        "element_count": stats.element_count,
        "minimum": stats.minimum,
        "maximum": stats.maximum,
        "mean": mean,
        "nan_count": stats.nan_count,
        "inf_count": stats.inf_count,
    }
