"""Tensors with their statistics. Widths are known before the first number, so rows are written as the numbers arrive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.table import GAP, Column, Table, name_column, number_column, text_column
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.tensor_data import Outcome
from ckpt_inspect.views.tensor_table import TensorSelection, tensor_entries
from ckpt_inspect.views.values import dtype_text
from ckptfmt.errors import FormatError
from ckptfmt.format.metadata import TensorRow
from ckptfmt.state.statistics import TensorStats

_NUMBERS = ("min", "max", "mean", "NaN", "Inf")
_NUMBER_WIDTH = 10
_WIDEST = ("0" * _NUMBER_WIDTH,) * 3 + ("000",) * 2
_SHAPE_FROM_WIDTH = 110
_NOTHING = "-"


def statistics_lines(selection: TensorSelection, screen: Screen, outcomes: Iterable[Outcome]) -> Iterator[str]:
    """Yield one line for each tensor; outcomes come in the order of the selection."""
    has_shape = screen.width is None or screen.width >= _SHAPE_FROM_WIDTH
    heads = [name_column("name"), text_column("dtype"), *([Column("shape")] if has_shape else []), *map(number_column, _NUMBERS)]
    known = [_known_cells(row, has_shape=has_shape) for _, row in selection.rows]
    table = Table(heads, [(*cells, *_WIDEST) for cells in known], screen.width)
    yield screen.style.bold(table.header())
    for cells, outcome in zip(known, outcomes, strict=True):
        if isinstance(outcome, FormatError):
            yield screen.style.red(table.line((*cells, *[""] * len(_NUMBERS))) + f"{GAP}damaged [{outcome.rule}]")
            continue
        line = table.line((*cells, *_number_cells(outcome)))
        is_finite = outcome is None or not (outcome.nan_count or outcome.inf_count)
        yield line if is_finite else screen.style.yellow(line)


def _known_cells(row: TensorRow, *, has_shape: bool) -> tuple[str, ...]:
    return visible(row.name), dtype_text(row.dtype), *([str(list(row.shape))] if has_shape else [])


def _number_cells(stats: TensorStats | None) -> tuple[str, ...]:
    if stats is None or not stats.is_numeric:
        return (_NOTHING,) * len(_NUMBERS)
    extremes = (_number_cell(stats.minimum), _number_cell(stats.maximum), _number_cell(stats.mean))
    return *extremes, f"{stats.nan_count:,}", f"{stats.inf_count:,}"


def _number_cell(value: int | float | complex | None) -> str:
    """Return a number in at most ten columns, with as many digits as they hold."""
    if value is None:
        return _NOTHING
    if isinstance(value, int) and len(str(value)) <= _NUMBER_WIDTH:
        return str(value)
    if isinstance(value, int | float):
        digits = _NUMBER_WIDTH if float(value).is_integer() else 4
        text = f"{value:.{digits}g}"
        return text if len(text) <= _NUMBER_WIDTH else f"{value:.3g}"
    return f"{value.real:.2g}{value.imag:+.2g}j"


def statistics_entries(selection: TensorSelection, outcomes: Iterable[Outcome]) -> Iterator[dict[str, Any]]:
    """Yield one JSON object for each tensor."""
    for entry, outcome in zip(tensor_entries(selection), outcomes, strict=True):
        yield entry | {"statistics": _statistics_document(outcome)}


def _statistics_document(outcome: Outcome) -> dict[str, Any] | None:
    if outcome is None:
        return None
    if isinstance(outcome, FormatError):
        return {"damaged": {"rule": outcome.rule, "message": str(outcome).partition("\n")[0]}}
    mean = [outcome.mean.real, outcome.mean.imag] if isinstance(outcome.mean, complex) else outcome.mean
    return {
        "is_numeric": outcome.is_numeric,
        "element_count": outcome.element_count,
        "minimum": outcome.minimum,
        "maximum": outcome.maximum,
        "mean": mean,
        "nan_count": outcome.nan_count,
        "inf_count": outcome.inf_count,
    }
