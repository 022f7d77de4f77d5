"""A run as it is at this moment, again and again: each look reads only what has changed since the one before.

Manifests are read when their directory changes, journals from where they ended, and everything else is a question to the file system.
Nothing is locked and nothing is written, so looking disturbs nobody.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median
from types import TracebackType
from typing import Any

from ckpt_inspect.output.plot import Point, range_of, thinned
from ckpt_inspect.output.units import parse_utc
from ckpt_inspect.sources.location import STUDIES_NAME, step_directories, work_directories
from ckpt_inspect.sources.run_directory import ListedCheckpoint, RunDirectory, list_checkpoint
from ckpt_inspect.sources.run_writer import RunWriter, find_last_writer, find_writer
from ckpt_inspect.sources.work import FoundStudies, read_studies
from ckptfmt.disk.local import LocalDisk
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, FormatError
from ckptfmt.run.history import HISTORY_NAME, HistoryRows
from ckptfmt.run.journal_follower import JournalFollower
from ckptfmt.run.progress_follower import ProgressFollower
from ckptfmt.run.run_file import find_run_file

_ABOUT = ("step", "created_at_utc")
_RECENT_SAVES = 6
_RECENT_ROWS = 100
_CHART_COLUMNS = 500
_PROGRESS = "progress"
_SETTLED_NS = 2 * 10**9

# Inode and time of change: another one means that something has to be read again.
_Identity = tuple[int, int]
_Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """The newest row of the history, and how fast its steps have come of late."""

    step: int
    at: datetime | None
    metrics: Mapping[str, int | float]
    steps_per_second: float | None


@dataclass(frozen=True, slots=True)
class Pace:
    """The usual distance between two checkpoints."""

    steps: int
    seconds: float


@dataclass(frozen=True, slots=True)
class WatchedProgress:
    """Where one progress stands; `problem` says why it may be further than that."""

    name: str
    total: int | None
    done: int
    failed: int
    units_per_second: float | None
    eta_seconds: float | None
    last_at: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that is shown of a run; `last_writer` is the writer, or whoever was it last."""

    run: RunDirectory
    begun_at: datetime | None
    free_bytes: int
    logged: Logged | None
    pace: Pace | None
    progresses: Sequence[WatchedProgress]
    studies: Sequence[FoundStudies]
    last_writer: RunWriter | None
    problems: Sequence[str]

    @property
    def writer(self) -> RunWriter | None:
        """Who writes to the run now."""
        return self.run.writer


class RunWatch:
    """Looks at a run. Use as a context manager."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._steps: dict[int, tuple[_Identity | None, ListedCheckpoint]] = {}
        self._history: tuple[_Identity, JournalFollower] | None = None
        self._rows = HistoryRows()
        self._logged: Logged | None = None
        self._points: dict[str, list[Point]] = {}
        self._progresses: dict[tuple[str, _Identity], ProgressFollower] = {}
        self._studies: dict[str, tuple[_Signature, FoundStudies]] = {}
        self._begun: tuple[int, datetime | None] | None = None

    def __enter__(self) -> RunWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop looking."""
        if self._history is not None:
            self._history[1].close()
        for follower in self._progresses.values():
            follower.close()
        self._history, self._progresses = None, {}

    def look(self) -> Snapshot | None:
        """Return the run as it is now, None where there is none."""
        try:
            checkpoints = self._look_at_steps()
            free_bytes = _free_bytes(self._path)
            begun_at = self._look_at_beginning()
        except FileNotFoundError:
            self.close()
            self._steps, self._begun = {}, None
            self._take_rows([], is_restarted=True)
            return None
        problems: list[str] = []
        logged = self._look_at_history(problems)
        progresses, studies = self._look_at_progresses(), self._look_at_studies()
        writer = find_writer(self._path)
        run = RunDirectory(self._path, checkpoints, (), (), writer)
        sound = [listed for listed in checkpoints if listed.problem is None and listed.manifest]
        if begun_at is None and sound and sound[0].manifest:
            begun_at = parse_utc(sound[0].manifest.created_at_utc)
        last_writer = writer or find_last_writer(self._path)
        return Snapshot(run, begun_at, free_bytes, logged, pace_of(sound), progresses, studies, last_writer, problems)

    def points(self, name: str) -> list[Point]:
        """Return (step, value) of one metric, in the order of the steps; of many points those that a chart shows."""
        if name not in self._points:
            points = [(step, float(row[name])) for step, row in sorted(self._rows.rows.items()) if _is_number(row.get(name))]
            self._points[name] = thinned(points, range_of([points[0][0], points[-1][0]]), _CHART_COLUMNS) if points else []
        return self._points[name]

    def _look_at_steps(self) -> list[ListedCheckpoint]:
        found = {}
        for step, path in step_directories(self._path):
            try:
                status = os.stat(path)
            except FileNotFoundError:
                # It is being deleted.
                continue
            known = self._steps.get(step)
            if known is None or known[0] != (status.st_ino, status.st_mtime_ns):
                # A directory that has just changed may change again without getting another time.
                is_settled = time.time_ns() - status.st_mtime_ns > _SETTLED_NS
                listed = list_checkpoint(step, path)
                known = ((status.st_ino, status.st_mtime_ns) if is_settled and listed.problem is None else None, listed)
            found[step] = known
        self._steps = found
        return [listed for _, listed in found.values()]

    def _look_at_beginning(self) -> datetime | None:
        try:
            modified_ns = os.stat(os.path.join(self._path, "run.json")).st_mtime_ns
        except FileNotFoundError:
            return None
        if self._begun is None or self._begun[0] != modified_ns:
            self._begun = (modified_ns, _begun_at(self._path))
        return self._begun[1]

    def _look_at_history(self, problems: list[str]) -> Logged | None:
        path = os.path.join(self._path, HISTORY_NAME)
        identity = _find_identity(path)
        if self._history is not None and self._history[0] != identity:
            # It was set aside.
            self._history[1].close()
            self._history = None
            self._take_rows([], is_restarted=True)
        with suppress(CheckpointNotFoundError):
            try:
                if self._history is None and identity is not None:
                    self._history = (identity, JournalFollower(LocalDisk(), path))
                if self._history is not None:
                    update = self._history[1].poll()
                    self._take_rows([value for _, value in update.records], is_restarted=update.is_restarted)
            except FormatError as error:
                problems.append(str(error).partition("\n")[0])
        return self._logged

    def _take_rows(self, records: Sequence[Any], *, is_restarted: bool) -> None:
        if is_restarted:
            self._rows = HistoryRows()
        if records or is_restarted:
            self._rows.add(records)
            self._logged, self._points = logged_of(self._rows.rows), {}

    def _look_at_progresses(self) -> list[WatchedProgress]:
        path = os.path.join(self._path, _PROGRESS)
        try:
            with os.scandir(path) as entries:
                found = {(entry.name, (entry.inode(), 0)) for entry in entries if entry.is_dir(follow_symlinks=False)}
        except OSError:
            found = set()
        for gone in self._progresses.keys() - found:
            self._progresses.pop(gone).close()
        watched = []
        for key in sorted(found):
            if key not in self._progresses:
                self._progresses[key] = ProgressFollower(LocalDisk(), os.path.join(path, key[0]))
            self._progresses[key].poll()
            watched.append(_watched(key[0], self._progresses[key]))
        return watched

    def _look_at_studies(self) -> list[FoundStudies]:
        found = {}
        for path in work_directories(self._path, STUDIES_NAME):
            signature = _signature(path)
            known = self._studies.get(path)
            with suppress(FileNotFoundError):
                found[path] = known if known is not None and known[0] == signature else (signature, read_studies(path))
        self._studies = found
        return [studies for _, studies in found.values()]


def _signature(path: str) -> _Signature:
    """Return what changes with every record of any journal in a directory, or in the directories in it."""
    found = []
    for directory, names, files in os.walk(path):
        names[:] = [name for name in names if not name.startswith(".")] if directory == path else []
        for name in files:
            with suppress(FileNotFoundError):
                status = os.stat(os.path.join(directory, name))
                found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(sorted(found))


def _find_identity(path: str) -> _Identity | None:
    try:
        return (os.stat(path).st_ino, 0)
    except OSError:
        return None


def _watched(name: str, follower: ProgressFollower) -> WatchedProgress:
    ledger = follower.ledger
    failed = sum(1 for key in ledger.failures if key not in ledger.units)
    rate, eta = ledger.units_per_second(), ledger.eta_seconds(ledger.total)
    return WatchedProgress(name, ledger.total, len(ledger.units), failed, rate, eta, ledger.last_at, follower.problem)


def _free_bytes(path: str) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _begun_at(path: str) -> datetime | None:
    directory = LocalDisk().open_directory(path)
    try:
        run_file = find_run_file(directory)
    except (CheckpointError, OSError):
        return None
    finally:
        directory.close()
    return parse_utc(run_file.created_at_utc) if run_file else None


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 10**300)


def logged_of(rows: Mapping[int, Mapping[str, Any]]) -> Logged | None:
    """Return the newest row, and the rate of the last ones of one session: a pause between two is not counted."""
    if not rows:
        return None
    steps = sorted(rows)[-_RECENT_ROWS:]
    newest = rows[steps[-1]]
    metrics = {name: value for name, value in newest.items() if name not in _ABOUT and type(value) in (int, float)}
    times = [(step, parse_utc(str(rows[step].get("created_at_utc")))) for step in steps]
    gaps = [
        (after - before, (at - since).total_seconds())
        for (before, since), (after, at) in pairwise(times)
        if at is not None and since is not None and at > since
    ]
    rate = None
    if gaps:
        usual = median(seconds / count for count, seconds in gaps)
        paced = [(count, seconds) for count, seconds in gaps if seconds / count <= 20 * usual]
        rate = sum(count for count, _ in paced) / sum(seconds for _, seconds in paced)
    return Logged(steps[-1], times[-1][1], metrics, rate)


def pace_of(sound: Sequence[ListedCheckpoint]) -> Pace | None:
    """Return the median distance of the last checkpoints; None of fewer than two."""
    times = [(listed.step, parse_utc(listed.manifest.created_at_utc)) for listed in sound[-_RECENT_SAVES:] if listed.manifest]
    gaps = [
        (after - before, (at - since).total_seconds())
        for (before, since), (after, at) in pairwise(times)
        if at is not None and since is not None and at > since
    ]
    if not gaps:
        return None
    return Pace(int(median(count for count, _ in gaps)), median(seconds for _, seconds in gaps))
