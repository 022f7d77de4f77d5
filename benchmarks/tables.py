"""Markdown tables that can also be read in a terminal, and numbers in three digits."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

MISSING = "—"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned Markdown table; the first column is text, the others are numbers on the right."""
    widths = [max(len(row[column]) for row in (headings, *rows)) for column in range(len(headings))]
    lines = [_line(headings, widths), "|" + "|".join(_rule(column, width) for column, width in enumerate(widths)) + "|"]
    return "\n".join([*lines, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))]
    return "| " + " | ".join(aligned) + " |"


def _rule(column: int, width: int) -> str:
    return "-" * (width + 1) + (":" if column else "-")


def digits(value: float) -> str:
    """Return a number with three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def duration(seconds: float | None) -> str:
    """Return a time with its unit."""
    if seconds is None:
        return MISSING
    return f"{digits(seconds)} s" if seconds >= 1 else f"{digits(seconds * 1e3)} ms"


def with_spread(values: Sequence[float], *, factor: float = 1.0) -> str:
    """Return the median, and in brackets the lowest and the highest of several values."""
    if not values:
        return MISSING
    middle = digits(median(values) * factor)
    return middle if len(values) == 1 else f"{middle} ({digits(min(values) * factor)}..{digits(max(values) * factor)})"


def megabytes(value: float | None) -> str:
    """Return bytes in MB."""
    return MISSING if value is None else f"{value / 1e6:,.0f}"
