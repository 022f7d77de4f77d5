"""How far something is, as a bar of text."""

from __future__ import annotations

from ckpt_inspect.output.screen import Screen


def bar(done: int, total: int, width: int, screen: Screen) -> str:
    """Return a bar that is full only when everything is done."""
    filled = min(int(width * done / total), width) if total else width
    full, empty = ("#", "-") if screen.is_ascii else ("█", "░")
    return screen.style.green(full * filled) + screen.style.dim(empty * (width - filled))


def percent_text(done: int, total: int) -> str:
    """Return a share, rounded down: 100 % means everything."""
    return f"{100 * done // total if total else 100} %"
