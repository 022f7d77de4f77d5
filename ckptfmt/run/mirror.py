"""A second copy of a run, on a drive that may be slow, late or away: written behind the training, verified, never trusted blindly.

After each commit one thread copies what the mirror lacks, the newest first: data files, then all of them are read back and
verified against the manifest, then the manifest. It needs no hard links, no locks and no replacing rename there. A failure is kept in the
status and tried again with the next commit, with growing pauses in between, and at `close`; it never stops the training.

The mirror follows the run: what the run's rules do not keep goes, but never the two newest verified ones; what a new branch or a
new beginning leaves behind is set aside there too.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.disk.paths import make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError
from ckptfmt.run.mirror_copy import copy_checkpoint, copy_journals, copy_run_file, is_copied
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy, plan_retention
from ckptfmt.run.run_file import RunFile, find_run_file
from ckptfmt.run.steps import StepDirectory, StepEntry, step_name

MIN_GENERATIONS = 2
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """Where the mirror stands. `pending` are committed steps that are not verified there yet."""

    path: str
    verified: tuple[int, ...]
    pending: tuple[int, ...]
    last_error: str | None


class Mirror:
    """Keeps a second directory up to date with a run."""

    def __init__(self, disk: Disk, source: str, target: str, policy: Policy) -> None:
        self._disk = disk
        self._source = StepDirectory(disk, source)
        self._target = StepDirectory(disk, target)
        self._policy = policy
        # Manifest digests by step: what this process knows to be whole there, and what it has seen in the run.
        self._verified: dict[int, str] = {}
        self._seen: set[int] = set()
        self._is_same_run = False
        self._last_error: str | None = None
        self._changed = threading.Condition()
        self._requested = 0
        self._tried = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def status(self) -> MirrorStatus:
        """Return where the mirror stands."""
        pending = tuple(step for step, digest in self._wanted().items() if self._verified.get(step) != digest)
        return MirrorStatus(self._target.path, tuple(sorted(self._verified)), pending, self._last_error)

    def update(self) -> None:
        """Copy what the mirror lacks, in the background."""
        with self._changed:
            self._requested += 1
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ckptfmt-mirror", daemon=True)
                self._thread.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Wait until what was asked for so far has been tried once; tell whether nothing is pending."""
        with self._changed:
            self._changed.wait_for(lambda: self._tried >= self._requested, timeout_seconds)
        return not self.status().pending

    def update_and_close(self) -> None:
        """Try once more what is missing, end the thread, and say what is still missing."""
        if self._thread is None:
            return
        with self._changed:
            self._requested += 1
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None
        if self._last_error is not None:
            steps = ", ".join(map(str, self.status().pending)) or "none"
            warn(f"{self._target.path}: the mirror is not up to date (steps missing: {steps}): {self._last_error}")

    def has_checkpoints(self) -> bool:
        """Tell whether there is something to fill a run from."""
        return self._target.exists() and bool(self._target.committed())

    def fill(self) -> list[int]:
        """Bring the newest sound checkpoints from the mirror into an empty run; return their steps.

        The identity comes first, so that a kill in between leaves no checkpoint of which nobody knows whose it is.
        """
        copy_run_file(self._disk, self._target.path, self._source.path)
        copy_journals(self._disk, self._target.path, self._source.path)
        brought: list[int] = []
        for entry in reversed(self._target.committed()):
            if len(brought) == MIN_GENERATIONS:
                break
            try:
                copy_checkpoint(self._disk, entry.path, self._source.path_of(entry.step))
            except CheckpointError as error:
                warn(f"{entry.path}: the mirror's copy is passed over: {error}")
            else:
                brought.append(entry.step)
        return sorted(brought)

    def _wanted(self) -> dict[int, str]:
        """Return the run's checkpoints, the newest first."""
        committed = reversed(self._source.committed()) if self._source.exists() else ()
        return {entry.step: entry.manifest.digest for entry in committed if entry.manifest is not None}

    def _run(self) -> None:
        pause_seconds: float | None = None
        while True:
            with self._changed:
                # After a failure the next try comes with the next request, or when the pause is over.
                self._changed.wait_for(lambda: self._requested > self._tried, pause_seconds)
                request, is_last = self._requested, self._is_closing
            try:
                self._bring_up_to_date()
                self._last_error, pause_seconds = None, None
            except Exception as error:  # noqa: BLE001 - nothing that happens to the mirror may end it silently; the status tells
                self._last_error = f"{type(error).__name__}: {error}"
                pause_seconds = min(2 * (pause_seconds or _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            with self._changed:
                self._tried = request
                self._changed.notify_all()
            if is_last:
                return

    def _bring_up_to_date(self) -> None:
        wanted = self._wanted()
        if not wanted:
            return
        make_directories(self._disk, self._target.path)
        self._leave_what_the_run_left(wanted)
        copy_run_file(self._disk, self._source.path, self._target.path)
        first_error: Exception | None = None
        for step, digest in wanted.items():
            if self._verified.get(step) == digest:
                continue
            try:
                self._copy(step)
                self._verified[step] = digest
            except (OSError, CheckpointError) as error:
                if self._wanted().get(step) == digest:
                    first_error = first_error or error
                # Otherwise the run has deleted it meanwhile, and its copy is not wanted any more.
        self._seen |= set(wanted)
        copy_journals(self._disk, self._source.path, self._target.path)
        if first_error is not None:
            raise first_error
        self._remove_outdated()

    def _copy(self, step: int) -> None:
        source, target = self._source.path_of(step), self._target.path_of(step)
        if is_copied(self._disk, source, target):
            return
        if any(entry.step == step and entry.manifest is not None for entry in self._target.entries()):
            # A sound checkpoint of a line that the run has left.
            self._target.set_aside([step_name(step)], reason="left", now=datetime.now(UTC))
        copy_checkpoint(self._disk, source, target)

    def _leave_what_the_run_left(self, wanted: dict[int, str]) -> None:
        """Set aside in the mirror what is of another run, and steps after the newest: they are of a line that the run has left."""
        now = datetime.now(UTC)
        if not self._is_same_run:
            ours, theirs = self._run_file_of(self._source), self._run_file_of(self._target)
            is_other = ours is not None and theirs is not None and ours.created_at_utc != theirs.created_at_utc
            if is_other or (theirs is None and self._target.numbers()):
                self._target.set_everything_aside(reason="other-run", now=now)
            self._is_same_run = True
        newest = max(wanted)
        for step in [step for step in self._verified if step > newest]:
            del self._verified[step]
        self._target.set_later_steps_aside(newest, reason="left", now=now)

    def _run_file_of(self, steps: StepDirectory) -> RunFile | None:
        directory = self._disk.open_directory(steps.path)
        try:
            return find_run_file(directory)
        except CheckpointError:
            return None
        finally:
            directory.close()

    def _remove_outdated(self) -> None:
        wanted = self._wanted()
        entries = {entry.step: entry for entry in self._target.checked_entries()}
        outdated = self._find_outdated(list(entries.values()), wanted)
        for step in self._target.numbers():
            if step in outdated or (step not in entries and step not in wanted):
                with suppress(CheckpointNotFoundError):
                    delete_checkpoint(self._disk, self._target.path_of(step))
                self._verified.pop(step, None)

    def _find_outdated(self, entries: list[StepEntry], wanted: dict[int, str]) -> set[int]:
        """Return what neither the run has nor its rules keep. What an earlier process left here counts by the rules alone."""
        decisions = plan_retention([entry.stored() for entry in entries], self._policy, now=datetime.now(UTC))
        # A manifest comes after the verification, so what an earlier process left whole was verified by it.
        newest = {entry.step for entry in [entry for entry in entries if entry.error is None][-MIN_GENERATIONS:]}
        return {
            decision.step
            for decision in decisions
            if decision.step not in wanted and decision.step not in newest and (decision.step in self._seen or not decision.is_kept)
        }
