"""Charts in a terminal: one series of numbers over steps, in braille dots, or in stars where the output has only ASCII.

What is not finite is a gap. Long series are thinned to the extremes of each column of dots first, so that a spike of one step is
seen however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckpt_inspect.output.units import short_number
from ckpt_inspect.output.visible import columns

Point = tuple[int, float]

PLOT_ROWS = 10
_MIN_COLUMNS = 16
# The bits of a braille character, by row and column. https://www.unicode.org/charts/PDF/U2800.pdf
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_BRAILLE = 0x2800


@dataclass(frozen=True, slots=True)
class Range:
    """The part of an axis that is shown; never empty."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        distance = self.high - self.low
        if distance == float("inf"):
            return (value / 2 - self.low / 2) / (self.high / 2 - self.low / 2)
        return (value - self.low) / distance

    def middle(self) -> float:
        """Return the middle."""
        return self.low / 2 + self.high / 2


def range_of(values: Sequence[float]) -> Range:
    """Return the range of finite values; one value alone gets room around it."""
    low, high = min(values), max(values)
    if low == high:
        room = abs(low) / 10 or 1.0
        return Range(low - room, high + room)
    return Range(low, high)


def stretches(points: Sequence[Point]) -> Iterator[list[Point]]:
    """Yield the parts of a series between its gaps."""
    part: list[Point] = []
    for step, value in points:
        if math.isfinite(value):
            part.append((step, value))
        elif part:
            yield part
            part = []
    if part:
        yield part


def thinned(points: Sequence[Point], steps: Range, column_count: int) -> list[Point]:
    """Return the first, lowest, highest and last of the finite points in each column."""
    if len(points) <= 4 * column_count:
        return list(points)
    cells: dict[int, list[Point]] = {}
    for point in points:
        cells.setdefault(int(steps.at(point[0]) * (column_count - 1)), []).append(point)
    kept = []
    for cell in cells.values():
        chosen = {cell[0], min(cell, key=lambda point: point[1]), max(cell, key=lambda point: point[1]), cell[-1]}
        kept += sorted(chosen)
    return kept


def plot_lines(points: Sequence[Point], width: int, *, is_ascii: bool, row_count: int = PLOT_ROWS) -> list[str]:
    """Return a chart of `row_count` rows, at least three, its axis and the steps below; [] if no point is finite."""
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    if not finite:
        return []
    values, steps = range_of([value for _, value in finite]), range_of([step for step, _ in points])
    labels = [short_number(value) for value in (values.high, values.middle(), values.low)]
    label_width = max(map(len, labels))
    column_count = max(width - label_width - 2, _MIN_COLUMNS)
    canvas = _Canvas(column_count, row_count, is_ascii=is_ascii)
    for part in stretches(points):
        canvas.draw([(steps.at(step), values.at(value)) for step, value in thinned(part, steps, canvas.dot_columns)])
    tick, bar = ("+", "|") if is_ascii else ("┤", "│")
    by_row = dict(zip((0, (row_count - 1) // 2, row_count - 1), labels, strict=True))
    lines = [f"{by_row.get(row, ''):>{label_width}} {tick if row in by_row else bar}{text}" for row, text in enumerate(canvas.rows())]
    corner, edge = ("+", "-") if is_ascii else ("└", "─")
    lines.append(f"{'':{label_width}} {corner}{edge * column_count}")
    ends = [f"{step:,}" for step, _ in (points[0], points[-1])]
    lines.append(
        f"{'':{label_width}}  {ends[0]}{_step_title(ends, column_count)}{ends[1]}" if len(points) > 1 else f"{'':{label_width}}  {ends[0]}"
    )
    return [line.rstrip() for line in lines]


def _step_title(ends: Sequence[str], width: int) -> str:
    return "step".center(max(width - columns(ends[0]) - columns(ends[1]), 0))


class _Canvas:
    """Dots, eight to a character in braille, one in ASCII; (0, 0) is the lower left corner, (1, 1) the upper right one."""

    def __init__(self, column_count: int, row_count: int, *, is_ascii: bool) -> None:
        self._is_ascii = is_ascii
        self.dot_columns = column_count if is_ascii else 2 * column_count
        self._dot_rows = row_count if is_ascii else 4 * row_count
        self._cells = [[0] * column_count for _ in range(row_count)]

    def draw(self, line: Sequence[tuple[float, float]]) -> None:
        """Draw a line through points; one alone is a dot."""
        dots = [(round(x * (self.dot_columns - 1)), round((1 - y) * (self._dot_rows - 1))) for x, y in line]
        for (column, row), (next_column, next_row) in zip(dots, dots[1:] or dots, strict=False):
            count = max(abs(next_column - column), abs(next_row - row), 1)
            for index in range(count + 1):
                self._set(column + round((next_column - column) * index / count), row + round((next_row - row) * index / count))

    def _set(self, column: int, row: int) -> None:
        if self._is_ascii:
            self._cells[row][column] = 1
        else:
            self._cells[row // 4][column // 2] |= _DOTS[row % 4][column % 2]

    def rows(self) -> list[str]:
        """Return the rows as text, the upper one first."""
        return ["".join(map(self._character, cells)) for cells in self._cells]

    def _character(self, cell: int) -> str:
        if not cell:
            return " "
        return "*" if self._is_ascii else chr(_BRAILLE + cell)
