"""Runs that are open for writing when the interpreter ends: they are finished as `close` would, so that nothing is lost by forgetting it.

The hook of `threading` comes before its threads are told to stop, which `atexit` does not. A forked child has none of the threads, and
leaves what it inherited alone.
"""

from __future__ import annotations

import os
import threading
import traceback
from typing import Protocol


class Finishable(Protocol):
    """A run that is open for writing."""

    def finish_at_exit(self) -> None:
        """Wait for what is under way, and close."""


_open: dict[int, Finishable] = {}
_process: list[int] = []


def remember(run: Finishable) -> None:
    """Finish this run when the interpreter ends, unless it is closed before."""
    if os.getpid() not in _process:
        # In a forked child what the parent had is the parent's to finish; a hook is inherited.
        if not _process:
            threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
        _open.clear()
        _process[:] = [os.getpid()]
    _open[id(run)] = run


def forget(run: Finishable) -> None:
    """Take note that a run was closed."""
    _open.pop(id(run), None)


def _finish_all() -> None:
    if os.getpid() in _process:
        for run in list(_open.values()):
            try:
                run.finish_at_exit()
            except Exception:  # noqa: BLE001 - nobody can catch it any more, and the other runs must be finished too
                traceback.print_exc()
