"""Progress for people: a line of text anywhere, a live bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_MAX_NAME_WIDTH = 30


def bar_text(completed: int, total: int | None, eta_seconds: float | None, *, failed_count: int, width: int) -> str:
    """Return one line: `[#####-----] 50/100 50.0%, 1:05 left`."""
    failed = f", {failed_count:,} failed" if failed_count else ""
    if total is None:
        return f"{completed:,} done{failed}"
    ratio = min(1.0, completed / total) if total else 1.0
    # Full only when everything is done, and rounded down: 99.97 % is not 100 %.
    filled = int(ratio * width)
    left = "" if eta_seconds is None or completed >= total else f", {clock_text(eta_seconds)} left"
    return f"[{'#' * filled}{'-' * (width - filled)}] {completed:,}/{total:,} {int(ratio * 1000) / 10:.1f}%{left}{failed}"


def clock_text(seconds: float) -> str:
    """Return a duration as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@contextmanager
def live_bar(name: str, completed: int, total: int | None, *, is_wanted: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Show a bar on standard error while the block runs, if that is a terminal; yield what moves it on.

    What is `completed` at the beginning does not count for the speed.
    """
    if not is_wanted or not sys.stderr.isatty():
        yield lambda completed, total: None
        return
    # Only who has a terminal pays for this import.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    # The numbers say more than the end of a long name.
    name_column = Column(no_wrap=True, overflow="ellipsis", max_width=_MAX_NAME_WIDTH)
    columns = (
        TextColumn("{task.description}", markup=False, table_column=name_column),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(name, total=total, completed=completed)
        yield lambda completed, total: shown.update(task, completed=completed, total=total)
