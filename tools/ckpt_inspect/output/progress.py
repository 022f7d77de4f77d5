"""A progress bar for reading many bytes: on a terminal only, and only for what takes a while.

rich draws it. It is imported when the first bar is due, because that takes longer than most checks.
"""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from ckpt_inspect.output.visible import cut_middle, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_QUIET_SECONDS = 0.5
_SECONDS_BETWEEN_LOOKS = 0.1
_LABEL_WIDTH = 30


class ByteProgress:
    """Counts bytes, of any thread, and shows them on standard error with speed and the time that is left.

    Use as a context manager.
    """

    def __init__(self, *, total_bytes: int, is_wanted: bool) -> None:
        self._total_bytes = total_bytes
        self._is_wanted = is_wanted and sys.stderr.isatty()
        self._next_look = time.monotonic() + _QUIET_SECONDS
        self._lock = threading.Lock()
        self._done_bytes = 0
        self._label = ""
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ByteProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hide()

    def hide(self) -> None:
        """Clear the bar, so that lines can be written; it comes back with the next bytes."""
        with self._lock:
            if self._bar is not None:
                self._bar.stop()
                self._bar = None

    def label(self, text: str) -> None:
        """Say what is being read now."""
        self._label = cut_middle(visible(text), _LABEL_WIDTH)

    def advance(self, size_bytes: int) -> None:
        """Take in that so many more bytes are read."""
        with self._lock:
            self._done_bytes += size_bytes
            self._show()

    def _show(self) -> None:
        now = time.monotonic()
        if not self._is_wanted or now < self._next_look:
            return
        self._next_look = now + _SECONDS_BETWEEN_LOOKS
        if self._bar is None:
            self._start()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._done_bytes, description=self._label)

    def _start(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        plain = TextColumn("{task.description}", markup=False)
        columns = (plain, BarColumn(bar_width=None), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._label, total=self._total_bytes, completed=self._done_bytes)
        self._bar.start()
