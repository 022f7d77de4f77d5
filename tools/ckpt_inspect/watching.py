"""Watching a run: a picture that stays up to date on a terminal, and elsewhere a line for each change.

The picture lives on the terminal's other screen, so that whatever ends the watching leaves the terminal as it was. The last picture is
then shown once more, where it stays.
"""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import FrameType

from ckpt_inspect.output.exit_status import FINE
from ckpt_inspect.output.plot import Point
from ckpt_inspect.output.screen import Screen
from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import NotReadableHereError, without_final_slash
from ckpt_inspect.sources.run_history import check_metric
from ckpt_inspect.sources.run_watch import RunWatch, Snapshot
from ckpt_inspect.views.watch_changes import changes_between
from ckpt_inspect.views.watch_lines import Wanted, best_of, snapshot_document, sound_of, watch_lines
from ckptfmt.errors import CheckpointNotFoundError
from ckptfmt.format.layout import MANIFEST_NAME

_MIN_INTERVAL, _MAX_INTERVAL = 0.1, 86_400
_SHOWN_CHARTS = 3
_TERMINATED = 128 + 15


@dataclass(frozen=True, slots=True)
class Watching:
    """How to watch."""

    wanted: Wanted
    interval_seconds: float
    is_once: bool


def watch(path: str, options: Watching, screen: Screen) -> int:
    """Show a run until somebody interrupts, or once."""
    path = without_final_slash(path)
    wanted = options.wanted
    if (wanted.metric is None) != (wanted.mode is None):
        raise NotReadableHereError("--metric and --mode belong together: name the metric, and say whether min or max is better")
    if not _MIN_INTERVAL <= options.interval_seconds <= _MAX_INTERVAL:
        raise NotReadableHereError(f"--interval: expected {_MIN_INTERVAL} to {_MAX_INTERVAL} seconds, found {options.interval_seconds}")
    _check_place(path)
    with RunWatch(path) as watching, _ended_by_signals():
        if options.is_once:
            _show_once(watching, path, wanted, screen)
        elif screen.is_json or screen.is_quiet or not _is_terminal(screen):
            _write_changes(watching, path, options, screen)
        else:
            _show_live(watching, path, options, screen)
    return FINE


def _check_place(path: str) -> None:
    """Refuse what is there and will never be a run."""
    try:
        is_file = not stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    except ValueError:
        raise CheckpointNotFoundError(f"{path!r}: no path can hold this", path=path) from None
    is_checkpoint = os.path.lexists(os.path.join(path, MANIFEST_NAME))
    if is_file or is_checkpoint:
        what = "a checkpoint" if is_checkpoint else "a file"
        raise NotReadableHereError(f"{path}: expected a run, found {what}\nGive the directory that holds the step-* directories.")


def _is_terminal(screen: Screen) -> bool:
    return screen.stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let a polite request to end unwind everything, so that the terminal is restored."""

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _show_once(watching: RunWatch, path: str, wanted: Wanted, screen: Screen) -> None:
    snapshot = watching.look()
    if snapshot is None:
        raise CheckpointNotFoundError(f"{path}: no such run", path=path)
    _check_metric(snapshot, wanted)
    if screen.is_json:
        _tell(screen, screen.now, "status", "", snapshot_document(snapshot, wanted))
    else:
        screen.write_lines(watch_lines(snapshot, wanted, screen, _charts(watching, snapshot, wanted)))


def _check_metric(snapshot: Snapshot, wanted: Wanted) -> None:
    if wanted.metric is not None and sound_of(snapshot):
        names = dict.fromkeys(name for listed in sound_of(snapshot) if listed.manifest for name in listed.manifest.metrics)
        check_metric(snapshot.run.path, wanted.metric, list(names))


def _charts(watching: RunWatch, snapshot: Snapshot, wanted: Wanted) -> dict[str, list[Point]]:
    """Return the series that are worth a chart: what was asked for, then what says which checkpoint is best, then what is logged."""
    best = best_of(snapshot, wanted)
    names = [wanted.metric, best.metric if best else None, *(snapshot.logged.metrics if snapshot.logged else ())]
    series = {name: watching.points(name) for name in dict.fromkeys(names) if name}
    return dict([(name, points) for name, points in series.items() if len(points) > 1][:_SHOWN_CHARTS])


def _write_changes(watching: RunWatch, path: str, options: Watching, screen: Screen) -> None:
    before: Snapshot | None = None
    is_told = False
    while True:
        snapshot = watching.look()
        now = datetime.now(UTC)
        if snapshot is None:
            if before is not None or not is_told:
                _tell(screen, now, "waiting", f"{visible(path)}: there is no run yet; waiting for it", {"path": path})
            is_told, before = True, None
        elif before is None:
            _check_metric(snapshot, options.wanted)
            if screen.is_json:
                _tell(screen, now, "status", "", snapshot_document(snapshot, options.wanted))
            else:
                screen.write_lines([*watch_lines(snapshot, options.wanted, replace(screen, now=now), {}), ""])
            before = snapshot
        else:
            for change in changes_between(before, snapshot):
                _tell(screen, now, change.kind, change.text, change.document)
            before = snapshot
        screen.stream.flush()
        time.sleep(options.interval_seconds)


def _tell(screen: Screen, now: datetime, kind: str, text: str, document: dict[str, object]) -> None:
    if screen.is_json:
        screen.write_line_document({"message_type": kind, "at_utc": f"{now:%Y-%m-%dT%H:%M:%S.%fZ}", **document})
    else:
        screen.write_lines([f"{now.astimezone():%H:%M:%S}  {text}"])


def _show_live(watching: RunWatch, path: str, options: Watching, screen: Screen) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=screen.stream, highlight=False, markup=False, soft_wrap=False)
    picture: list[str] = []
    try:
        with _resized() as changed, Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            while True:
                size = console.size
                shown = replace(screen, width=size.width, now=datetime.now(UTC))
                picture = _picture(watching, path, options.wanted, shown, size.height)
                live.update(Text.from_ansi("\n".join(picture), no_wrap=True, overflow="crop"), refresh=True)
                changed(options.interval_seconds)
    finally:
        screen.write_lines(picture)


def _picture(watching: RunWatch, path: str, wanted: Wanted, screen: Screen, height: int) -> list[str]:
    snapshot = watching.look()
    if snapshot is None:
        return [screen.style.bold(visible(path)), "", "  there is no run yet; waiting for it"]
    charts = _charts(watching, snapshot, wanted)
    return list(watch_lines(snapshot, wanted, screen, charts, height=height - 1))


@contextmanager
def _resized() -> Iterator[Callable[[float], None]]:
    """Yield a function that waits for some seconds, or less if the terminal gets another size."""
    number = getattr(signal, "SIGWINCH", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield time.sleep
        return
    # The system's own part of the handler writes the byte: Python's part might wait until the sleep is over.
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)

    def wait(seconds: float) -> None:
        if select.select([reading], [], [], seconds)[0]:
            os.read(reading, 4096)

    before = signal.signal(number, lambda *_: None)
    woken_before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield wait
    finally:
        signal.set_wakeup_fd(woken_before)
        signal.signal(number, before)
        os.close(reading)
        os.close(writing)
