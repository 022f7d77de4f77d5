"""The writing side of a run: the lock, the line of training, and each commit with what follows from it.

Order is everything here. The lock comes before the first write, the identity before the first checkpoint, setting aside before the
first step of another branch, and retention after the commit. What goes wrong after a commit is a warning, because the step is there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime

from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.checkpoint.publishing import SaveOptions
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Disk, LockState
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, FormatError, IncompleteError, NotEnoughSpaceError, RunLockedError
from ckptfmt.run.cleaning import CleanupReport, clean_up
from ckptfmt.run.compressor import Compressor
from ckptfmt.run.history import History
from ckptfmt.run.identity import Identity
from ckptfmt.run.mirror_fill import end_filling, is_being_filled, is_to_be_filled
from ckptfmt.run.notices import warn
from ckptfmt.run.places import Places
from ckptfmt.run.retention import Policy
from ckptfmt.run.steps import step_name
from ckptfmt.run.writer_lock import WriterLock, naming_a_read_only_run
from ckptfmt.state.tree import EncodedState


class RunWriter:
    """Writes to one run. Nothing is touched before the first write is asked for."""

    def __init__(
        self,
        disk: Disk,
        places: Places,
        identity: Identity,
        history: History,
        policy: Policy,
        compressor: Compressor | None = None,
    ) -> None:
        self._disk = disk
        self._steps, self._mirror, self._home = places.local, places.mirror, places.home
        self._identity = identity
        self._history = history
        self._policy = policy
        self._compressor = compressor
        self._is_open = self._home is None
        # Held for moments, so that a log does not wait for a save in the background; commits have their own.
        self._mutex = threading.RLock()
        self._commits = threading.RLock()
        self._lock: WriterLock | None = None
        self._branch: tuple[int, str | None] | None = None
        self._base: str | None = None
        self._is_ready = False

    def take_lock(self) -> None:
        """Become the one writer; make the run's directory if it is not there."""
        with self._mutex, naming_a_read_only_run(self._steps.path):
            if self._lock is None:
                make_directories(self._disk, self._steps.path)
                self._lock = WriterLock(self._disk, self._steps.path)

    def open(self, *, is_resumed: bool) -> None:
        """Bring what is elsewhere of the run: from the store in which it lives, whose writer this becomes, or from its mirror."""
        if self._home is not None:
            self.take_lock()
            self._home.open(is_alone=self._lock is not None and self._lock.state is LockState.HELD, is_resumed=is_resumed)
            self._is_open = True
        elif is_resumed:
            self._fill_from_mirror()

    def _fill_from_mirror(self) -> None:
        """Bring what is in the mirror into an empty run."""
        path = self._steps.path
        if self._mirror is None:
            if is_being_filled(self._disk, path):
                warn(f"{path}: the program was killed while it filled this run from its mirror\nOpen it with mirror= to fill the rest.")
        elif is_to_be_filled(self._disk, path) and self._mirror.has_content():
            self.take_lock()
            brought = self._mirror.fill()
            warn(f"{path}: was empty; brought from the mirror: {brought}")

    def begin_anew(self, reason: str) -> None:
        """Set everything that is there aside under a dated name."""
        self.take_lock()
        if self._home is not None:
            self._home.begin_anew(reason)
        aside = self._steps.set_everything_aside(reason=reason, now=datetime.now(UTC))
        end_filling(self._disk, self._steps.path)
        self._identity.forget()
        if aside:
            warn(f"{self._steps.path}: starting anew; what was there is kept: {', '.join(aside[:3])}{', ...' if len(aside) > 3 else ''}")

    def go_on_from(self, step: int, path: str, *, asked_for: str | None) -> None:
        """Take note of what was restored: the next step follows this one and shares what is unchanged with it."""
        with self._mutex:
            self._branch = (step, asked_for)
            self._base = path

    def begin(self, step: int | None = None) -> None:
        """Prepare for a write; `step` is the one that is written, None for what belongs to no step."""
        with self._mutex, naming_a_read_only_run(self._steps.path):
            self.take_lock()
            self._identity.establish()
            if not self._is_ready:
                self._history.adopt(self._steps)
                if self._base is None:
                    newest = (entry.path for entry in self._steps.newest_first() if entry.manifest is not None)
                    self._base = next(newest, None)
                self._is_ready = True
                if self._mirror is not None:
                    self._mirror.start()
                if self._compressor is not None:
                    self._compressor.start()
            if self._branch is not None and step is not None:
                last, asked_for = self._branch
                # Metrics of an earlier step, as of a test after training, are no new branch.
                if step > last:
                    self._leave_later_steps(last, asked_for)
                    self._branch = None

    def _leave_later_steps(self, last: int, asked_for: str | None) -> None:
        if self._home is not None:
            # Before anything here says that they are left: what is in the store counts when the run is opened again.
            self._home.copy.leave_later_steps(last)
        aside = self._steps.set_later_steps_aside(last, reason=f"after-{step_name(last)}", now=datetime.now(UTC))
        self._history.branch(last, asked_for=asked_for)
        if aside:
            count = f"{len(aside)} later checkpoints are" if len(aside) > 1 else "a later checkpoint is"
            warn(f"{self._steps.path}: going on from step {last}; {count} kept as {aside[0]}{', ...' if len(aside) > 1 else ''}")

    def log(self, step: int, metrics: Mapping[str, int | float]) -> None:
        """Record metrics of a step."""
        self.begin(step)
        self._history.record(step, metrics, flush=False)

    def commit(self, step: int, state: EncodedState, options: SaveOptions) -> CheckpointInfo:
        """Write a checkpoint, then its history, then remove what no rule keeps any more."""
        return self.commit_by(step, lambda path, options: write_checkpoint(self._disk, path, state, options), options)

    def commit_by(self, step: int, write: Callable[[str, SaveOptions], CheckpointInfo], options: SaveOptions) -> CheckpointInfo:
        """Have `write(path, options)` commit a checkpoint, and do what follows from that."""
        with self._commits:
            if self._home is not None:
                self._home.check_free(step)
            info = self._write(self._steps.path_of(step), write, options)
            self._steps.forget(step)
            self._base = info.path
            with _warning_after_commit(info.path, "its metrics are in the checkpoint only"):
                self._history.record(step, options.metrics, flush=True)
            if self._home is not None:
                return self._home.bring(info, step)
            if not self._policy.is_empty:
                with _warning_after_commit(info.path, "older checkpoints were not removed"):
                    clean_up(self._steps, self._policy, dry_run=False, just_saved=step)
            if self._mirror is not None:
                self._mirror.update()
            return info

    def clean_up(self, policy: Policy, *, dry_run: bool) -> CleanupReport:
        """Remove what a policy does not keep."""
        with self._commits:
            if not dry_run and self._steps.exists():
                self.begin()
            if self._home is not None:
                return self._home.clean_up(policy, dry_run=dry_run)
            return clean_up(self._steps, policy, dry_run=dry_run)

    def close(self) -> None:
        """Make the history durable, end compressing, bring the mirror up to date, give the lock up."""
        try:
            self._history.close()
        finally:
            try:
                if self._compressor is not None:
                    self._compressor.close()
                if self._mirror is not None and self._may_mirror():
                    self._mirror.update_and_close()
            finally:
                if self._home is not None:
                    self._home.release()
                if self._lock is not None:
                    self._lock.release()

    def _may_mirror(self) -> bool:
        """Tell whether the mirror is this process's to write. What an earlier one left to copy is copied in any case."""
        if not self._is_open:
            return False
        if self._lock is None and self._steps.exists():
            with suppress(RunLockedError, OSError):
                self.take_lock()
        return self._lock is not None

    def _write(self, path: str, write: Callable[[str, SaveOptions], CheckpointInfo], options: SaveOptions) -> CheckpointInfo:
        try:
            if self._base is not None:
                try:
                    return write(path, replace(options, base=self._base))
                except (FormatError, CheckpointNotFoundError, IncompleteError):
                    # The base is damaged, or was deleted meanwhile. It only costs the sharing.
                    self._base = None
            return write(path, options)
        except NotEnoughSpaceError as error:
            raise self._with_advice(error) from None

    def _with_advice(self, error: NotEnoughSpaceError) -> NotEnoughSpaceError:
        """Say what a clean-up would free."""
        least = replace(self._policy, keep_last=1, keep_every=None, keep_within=None)
        report = clean_up(self._steps, least, dry_run=True)
        if not report.removed:
            return error
        call = "run.cleanup(keep_last=1, keep_every=None, keep_within=None)"
        return NotEnoughSpaceError(
            f"{error}\n{call} would remove {len(report.removed)} checkpoints and free at least {report.freed_bytes:,} bytes.",
            path=error.path,
            needed_bytes=error.needed_bytes,
            free_bytes=error.free_bytes,
        )


@contextmanager
def _warning_after_commit(path: str, consequence: str) -> Iterator[None]:
    try:
        yield
    except (OSError, CheckpointError) as error:
        warn(f"{path}: is saved, but {consequence}: {type(error).__name__}: {error}")
