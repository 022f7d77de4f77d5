"""Compressing the old checkpoints of a run while it goes on: one thread that waits, and a process behind it that works.

The work is another process's, because a thread of this one would hold the interpreter's lock while the training wants it, the longer the
lower its priority is. That process gets one core, when nobody else wants it, and ends with this one. It takes nothing that a save needs:
the newest checkpoint stays as it is, and what the next one will take stays free. A failure is kept in the status and tried again,
with growing pauses in between; a damaged checkpoint is said once. Nothing of this reaches the training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ckptfmt.checkpoint.metadata_file import CODEC_PREFIX
from ckptfmt.disk.background import start_behind
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError
from ckptfmt.run.compressing import BEING_WRITTEN, DELETED, Order, StepEncoding, compress_in_order
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy, parse_duration
from ckptfmt.run.steps import StepDirectory, StepEntry

LOOK_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 300.0
_SECONDS_TO_TIDY_UP = 2.0
_CODE = (
    "import json, sys; order = json.loads(sys.stdin.readline()); sys.path[:] = order.pop('sys_path');"
    " from ckptfmt.run.compressor_process import work; work(order)"
)


@dataclass(frozen=True, slots=True)
class CompressionStatus:
    """Where compressing old checkpoints stands.

    `done` and `pending` are committed steps that are old enough; `skipped` says of damaged ones what is wrong. So many `saved_bytes` were
    freed since the run was opened. `last_error` is why the last attempt ended early; what is pending is tried again.
    """

    done: tuple[int, ...]
    pending: tuple[int, ...]
    skipped: Mapping[int, str]
    saved_bytes: int
    last_error: str | None


class Worker(Protocol):
    """Who carries orders out."""

    def results(self, order: Order) -> Iterator[StepEncoding]:
        """Compress, and give what became of each step when it is done.

        Raises:
            OSError: it ended early.
        """

    def stop(self) -> None:
        """End what is under way, soon, and take no more orders. Called by another thread."""


class ChildProcess:
    """A process of its own for each order, behind this one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def results(self, order: Order) -> Iterator[StepEncoding]:
        """Compress in a child, which is gone when this ends."""
        with self._lock:
            if self._is_stopped:
                return
            self._child = child = start_behind(_CODE)
        is_finished = False
        try:
            if child.stdin is None or child.stdout is None:
                raise OSError("the process that compresses has no pipes")
            with suppress(BrokenPipeError):
                child.stdin.write(json.dumps({"sys_path": sys.path, **asdict(order)}).encode() + b"\n")
                child.stdin.close()
            for line in child.stdout:
                found = json.loads(line)
                if "error" in found:
                    raise OSError(found["error"])
                is_finished = "finished" in found
                if not is_finished:
                    yield StepEncoding(**found)
            if not is_finished and not self._is_stopped:
                raise OSError(f"the process that compresses ended early, with status {child.wait()}")
        finally:
            _end(child)
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def stop(self) -> None:
        """End the child; it removes what it has not finished, if it does so soon."""
        with self._lock:
            self._is_stopped = True
            child = self._child
        if child is not None:
            _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_SECONDS_TO_TIDY_UP)
    except subprocess.TimeoutExpired:
        child.kill()
        # It dies when it is given a core; nobody waits for that.
        with suppress(subprocess.TimeoutExpired):
            child.wait(_SECONDS_TO_TIDY_UP)


class SameProcess:
    """The calling thread, for disks that another process does not see."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._is_stopped = False

    def results(self, order: Order) -> Iterator[StepEncoding]:
        """Compress here."""
        for result in compress_in_order(self._disk, order):
            yield result
            if self._is_stopped:
                return

    def stop(self) -> None:
        """End after the step that is under way."""
        self._is_stopped = True


class Compressor:
    """Compresses the checkpoints of one run that are old enough, but never the newest. All of it is the writer's to start and to close."""

    def __init__(self, steps: StepDirectory, older_than: timedelta, policy: Policy, worker: Worker) -> None:
        self._steps = steps
        self._older_than = older_than
        self._policy = policy
        self._worker = worker
        # Manifest digests by step: what was compressed or gains nothing, and what is damaged.
        self._done: dict[int, str] = {}
        self._damaged: dict[int, str] = {}
        self._reasons: dict[int, str] = {}
        self._saved_bytes = 0
        self._last_error: str | None = None
        self._changed = threading.Condition()
        self._is_closing = False
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def status(self) -> CompressionStatus:
        """Return where it stands."""
        entries = self._entries()
        pending = [entry.step for entry in self._pending(entries)]
        skipped = {entry.step: self._reasons[entry.step] for entry in entries if _is_in(self._damaged, entry)}
        done = [entry.step for entry in self._old_enough(entries) if entry.step not in pending and entry.step not in skipped]
        return CompressionStatus(tuple(done), tuple(pending), skipped, self._saved_bytes, self._last_error)

    def start(self) -> None:
        """Look from now on, in the background, for what has become old enough."""
        with self._changed:
            if self._thread is None and not self._is_closing:
                self._thread = threading.Thread(target=self._run, name="ckptfmt-compress", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End what is under way, which the next session begins again, and say what went wrong."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is None or self._pid != os.getpid():
            # A forked child leaves what was under way to its parent.
            return
        self._worker.stop()
        self._thread.join()
        self._thread = None
        if self._reasons:
            found = "; ".join(f"step {step}: {reason}" for step, reason in sorted(self._reasons.items()))
            warn(f"{self._steps.path}: not compressed, because it is damaged: {found}")
        if self._last_error is not None:
            warn(f"{self._steps.path}: old checkpoints are not all compressed: {self._last_error}")

    def _entries(self) -> list[StepEntry]:
        return [entry for entry in self._steps.known_entries() if entry.manifest is not None] if self._steps.exists() else []

    def _old_enough(self, entries: list[StepEntry]) -> list[StepEntry]:
        """Return what may be compressed; the newest is what the next save builds on."""
        now = datetime.now(UTC)
        return [entry for entry in entries[:-1] if now - entry.stored().created_at >= self._older_than]

    def _pending(self, entries: list[StepEntry]) -> list[StepEntry]:
        known = (self._done, self._damaged)
        return [entry for entry in self._old_enough(entries) if not is_compressed(entry) and not any(_is_in(of, entry) for of in known)]

    def _run(self) -> None:
        failed_seconds = 0.0
        look_seconds = min(LOOK_SECONDS, max(self._older_than.total_seconds(), _FIRST_PAUSE_SECONDS))
        while True:
            error: str | None = None
            try:
                self._compress_what_is_old()
            except Exception as problem:  # noqa: BLE001 - whatever happens here, training goes on; the status tells
                error = str(problem) if isinstance(problem, CheckpointError | OSError) else f"{type(problem).__name__}: {problem}"
            failed_seconds = 0.0 if error is None else min(2 * failed_seconds or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            with self._changed:
                self._last_error = error if not self._is_closing else self._last_error
                if self._changed.wait_for(lambda: self._is_closing, failed_seconds or look_seconds):
                    return

    def _compress_what_is_old(self) -> None:
        entries = self._entries()
        pending = self._pending(entries)
        if not pending or self._is_closing:
            return
        digests = {entry.step: entry.manifest.digest for entry in entries if entry.manifest is not None}
        reserve_bytes = sum(file.size_bytes for file in entries[-1].manifest.files()) if entries[-1].manifest is not None else 0
        order = Order(self._steps.path, tuple((entry.step, self._base_of(entry, entries)) for entry in pending), reserve_bytes)
        for result in self._worker.results(order):
            self._take(result, digests[result.step])

    def _base_of(self, entry: StepEntry, entries: list[StepEntry]) -> int | None:
        """Return the step from which differences are taken: one that stays, or its files would be kept for their sake alone."""
        earlier = [other for other in entries if other.step < entry.step and self._policy.keeps_for_good(other.step)]
        return earlier[-1].step if earlier and not _is_in(self._damaged, earlier[-1]) else None

    def _take(self, result: StepEncoding, digest: str) -> None:
        """Take note of what became of a step. What is being written or was deleted is looked at again."""
        step = result.step
        self._last_error = None
        self._steps.forget(step)
        if result.reason in (BEING_WRITTEN, DELETED):
            return
        if result.reason:
            self._damaged[step], self._reasons[step] = digest, result.reason
            return
        self._saved_bytes += result.before_bytes - result.after_bytes
        entry = next(iter(self._steps.entries([step])), None)
        if entry is not None and entry.manifest is not None:
            self._done[step] = entry.manifest.digest


def make_compressor(
    steps: StepDirectory, older_than: str | float | timedelta | None, policy: Policy, disk: Disk | None
) -> Compressor | None:
    """Return what compresses checkpoints that are older than so much, None where nothing is to be; `disk` if it is none of this machine.

    Raises:
        ValueError: it is no duration.
    """
    duration = parse_duration(older_than, "compress_older_than")
    return None if duration is None else Compressor(steps, duration, policy, ChildProcess() if disk is None else SameProcess(disk))


def is_compressed(entry: StepEntry) -> bool:
    """Tell whether some of a checkpoint is encoded, which its manifest says."""
    return entry.manifest is not None and any(feature.startswith(CODEC_PREFIX) for feature in entry.manifest.requires)


def _is_in(digests: Mapping[int, str], entry: StepEntry) -> bool:
    return entry.manifest is not None and digests.get(entry.step) == entry.manifest.digest
