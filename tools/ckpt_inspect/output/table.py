"""Columns of text. Where rows are wider than the screen, columns that may shrink do, the last one first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.visible import columns, cut_end, cut_middle, padded

GAP = "  "
_MIN_SHRUNK = 12


@dataclass(frozen=True, slots=True)
class Column:
    """`align` is "<" or ">"; `cut` makes cells of a column fit that may shrink, None means it keeps its width."""

    title: str
    align: str = "<"
    cut: Callable[[str, int], str] | None = None


def name_column(title: str) -> Column:
    """Return a column whose cells may lose their middles."""
    return Column(title, cut=cut_middle)


def text_column(title: str) -> Column:
    """Return a column whose cells may lose their ends."""
    return Column(title, cut=cut_end)


def number_column(title: str) -> Column:
    """Return a column of numbers."""
    return Column(title, align=">")


def fitting_count(measured: Iterable[tuple[str, Sequence[str]]], room: int) -> int:
    """Return how many columns, each (title, cells), have room beside each other and a gap before each."""
    count = 0
    for title, cells in measured:
        room -= max(columns(title), *map(columns, cells), 0) + len(GAP)
        if room < 0:
            break
        count += 1
    return count


class Table:
    """The widths that rows need, so that they can be written one after the other."""

    def __init__(self, heads: Sequence[Column], rows: Iterable[Sequence[str]], width: int | None) -> None:
        self.heads = heads
        widest = [columns(head.title) for head in heads]
        for row in rows:
            for index, cell in enumerate(row):
                size = len(cell) if cell.isascii() else columns(cell)
                if size > widest[index]:
                    widest[index] = size
        self.widths = widest
        if width is not None:
            self._shrink(width)

    def _shrink(self, width: int) -> None:
        excess = sum(self.widths) + len(GAP) * (len(self.heads) - 1) - width
        for index, head in reversed(list(enumerate(self.heads))):
            if head.cut is not None and excess > 0:
                least = min(self.widths[index], max(_MIN_SHRUNK, len(head.title)))
                taken = min(excess, self.widths[index] - least)
                self.widths[index] -= taken
                excess -= taken

    def header(self) -> str:
        """Return the line of titles."""
        return self.line([head.title for head in self.heads])

    def line(self, row: Sequence[str]) -> str:
        """Return one row as a line."""
        cells = []
        for head, cell, width in zip(self.heads, row, self.widths, strict=True):
            cells.append(padded(head.cut(cell, width) if head.cut else cell, width, align=head.align))
        return GAP.join(cells).rstrip()


def labelled(pairs: Sequence[tuple[str, str]], screen: Screen) -> list[str]:
    """Return indented lines of a label and a text, the texts below each other."""
    width = min(max((columns(label) for label, _ in pairs), default=0), screen.cut_width // 2)
    room = screen.cut_width - width - 2 * len(GAP)
    return [GAP + screen.style.dim(padded(cut_middle(label, width), width)) + GAP + cut_end(text, room) for label, text in pairs]
