"""A second copy of a run, on a drive that may be slow, late or away: written behind the training, verified, never trusted blindly.

One thread copies what the mirror lacks: after each commit, every half minute what the journals of history, studies and progress have
gained, and when the run is closed. Studies and progress come before checkpoints, so that who goes on from a checkpoint there has the work
of before it. Of a checkpoint first the data files, which are read back and verified against the manifest, then the manifest; of a journal
whole records. It needs no hard links, no locks and no replacing rename there. A failure is kept in the status and
tried again, with growing pauses in between; it never stops the training.

The mirror follows the run: what the run's rules do not keep goes, but never the two newest verified ones; what a new branch or a
new beginning leaves behind is set aside there too, once the mirror has a checkpoint of what is gone on from.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import UTC, datetime

from ckptfmt.disk.paths import is_within, make_directories
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointError, CorruptError
from ckptfmt.run.history import HISTORY_NAME
from ckptfmt.run.mirror_copy import MIN_GENERATIONS, copy_checkpoint, copy_run_file, delete_copy, find_identity, is_copied, is_same_state
from ckptfmt.run.mirror_fill import Brought, fill
from ckptfmt.run.mirror_journals import PROGRESS_NAME, STUDIES_NAME, MirrorJournals, find_journals
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy, plan_retention
from ckptfmt.run.steps import StepDirectory, StepEntry, step_name

LOOK_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class MirrorStatus:
    """Where the mirror stands. `pending` are committed steps that are not verified there yet, `pending_journals` the names of studies,
    progress and history whose last copying failed.
    """

    path: str
    verified: tuple[int, ...]
    pending: tuple[int, ...]
    last_error: str | None
    pending_journals: tuple[str, ...] = ()


class Mirror:
    """Keeps a second directory up to date with a run."""

    def __init__(self, disk: Disk, source: StepDirectory, target: str, policy: Policy) -> None:
        if is_within(target, source.path) or is_within(source.path, target):
            raise ValueError(
                f"mirror={target!r}: expected a directory elsewhere, not the run itself, nor one in it or around it: {source.path!r}"
            )
        self._disk = disk
        self._source = source
        self._target = StepDirectory(disk, target)
        self._journals = MirrorJournals(disk, source.path, target)
        self._policy = policy
        # Manifest digests by step: what this process knows to be whole there, what is damaged in the run, and what the run had when
        # all of it was copied. `_seen` are all steps that this process has seen in the run.
        self._verified: dict[int, str] = {}
        self._seen: set[int] = set()
        self._damaged: dict[int, str] = {}
        self._done: dict[int, str] | None = None
        self._is_same_run = False
        self._last_error: str | None = None
        self._pending_journals: tuple[str, ...] = ()
        self._changed = threading.Condition()
        self._requested = 0
        self._tried = 0
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def status(self) -> MirrorStatus:
        """Return where the mirror stands."""
        verified = dict(self._verified)
        pending = tuple(sorted((step for step, digest in self._wanted().items() if verified.get(step) != digest), reverse=True))
        return MirrorStatus(self._target.path, tuple(sorted(verified)), pending, self._last_error, self._pending_journals)

    def start(self) -> None:
        """Look from now on, in the background, for what the mirror lacks."""
        with self._changed:
            if self._thread is None and not self._is_closing:
                self._thread = threading.Thread(target=self._run, name="ckptfmt-mirror", daemon=True)
                self._thread.start()

    def update(self) -> None:
        """Copy what the mirror lacks, in the background, at once."""
        self.start()
        with self._changed:
            self._requested += 1
            self._changed.notify_all()

    def wait(self) -> None:
        """Wait until everything that the run has by now has been tried once."""
        self.update()
        with self._changed:
            request = self._requested
            self._changed.wait_for(lambda: self._tried >= request or self._is_closing)

    def update_and_close(self) -> None:
        """Try once more what is missing, end the thread, and say what is still missing."""
        self._end()
        if self._last_error is not None:
            status = self.status()
            steps = f"steps missing: {', '.join(map(str, status.pending)) or 'none'}"
            journals = f"; not whole: {', '.join(status.pending_journals)}" if status.pending_journals else ""
            warn(f"{self._target.path}: the mirror is not up to date ({steps}{journals}): {self._last_error}")

    def _end(self) -> None:
        self.start()
        with self._changed:
            self._requested += 1
            self._is_closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._journals.close()

    def has_content(self) -> bool:
        """Tell whether there is something to fill a run from."""
        if not self._target.exists():
            return False
        return next(self._target.newest_first(), None) is not None or bool(find_journals(self._disk, self._target.path))

    def fill(self) -> Brought:
        """Bring what is in the mirror into an empty run."""
        return fill(self._disk, self._target.path, self._source.path, self._policy)

    def _wanted(self) -> dict[int, str]:
        """Return the run's checkpoints, the newest first."""
        known = reversed(self._source.known_entries()) if self._source.exists() else ()
        return {entry.step: entry.manifest.digest for entry in known if entry.manifest is not None}

    def _run(self) -> None:
        failed_seconds = 0.0
        while True:
            with self._changed:
                # After a failure the next try comes with the next request, or when the pause is over.
                self._changed.wait_for(lambda: self._requested > self._tried, failed_seconds or LOOK_SECONDS)
                request, is_last = self._requested, self._is_closing
            error: str | None = None
            try:
                self._bring_up_to_date()
            except Exception as problem:  # noqa: BLE001 - nothing that happens to the mirror may end it silently; the status tells
                error = f"{type(problem).__name__}: {problem}"
            failed_seconds = 0.0 if error is None else min(2 * failed_seconds or _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
            with self._changed:
                self._last_error, self._tried = error, request
                self._changed.notify_all()
            if is_last:
                return

    def _bring_up_to_date(self) -> None:
        wanted = self._wanted()
        if not wanted and not self._journals.exist():
            return
        first_error: Exception | None = None
        if wanted != self._done:
            make_directories(self._disk, self._target.path)
            self._leave_what_the_run_left(wanted)
            copy_run_file(self._disk, self._source.path, self._target.path)
        # Read after the steps were listed, so no work that was done before one of those is missing. A history says what was saved, so it
        # comes after that.
        failed = self._journals.update((PROGRESS_NAME, STUDIES_NAME))
        if wanted != self._done:
            first_error = self._copy_steps(wanted)
        failed |= self._journals.update((HISTORY_NAME,))
        self._pending_journals = tuple(failed)
        if wanted != self._done:
            # Whatever went wrong: what goes makes room, and the two newest stay.
            self._seen |= wanted.keys()
            self._remove_outdated()
        errors = [error for error in (first_error, *failed.values()) if error is not None]
        self._done = None if errors else wanted
        if errors:
            raise errors[0]

    def _copy_steps(self, wanted: dict[int, str]) -> Exception | None:
        """Copy what is missing; return the first error."""
        first_error: Exception | None = None
        for step, digest in wanted.items():
            if self._verified.get(step) == digest or self._damaged.get(step) == digest:
                continue
            try:
                self._copy(step)
                self._verified[step] = digest
            except (OSError, CheckpointError) as error:
                # Its files are others where somebody has compressed it meanwhile.
                self._source.forget(step)
                if self._wanted().get(step) != digest:
                    # The run has deleted it meanwhile, and its copy is not wanted any more.
                    continue
                if isinstance(error, CorruptError):
                    # Damaged in the run itself. Read once, and not every minute.
                    self._damaged[step] = digest
                first_error = first_error or error
        return first_error

    def _copy(self, step: int) -> None:
        source, target = self._source.path_of(step), self._target.path_of(step)
        if is_copied(self._disk, source, target):
            return
        copy_checkpoint(self._disk, source, target)
        self._target.forget(step)

    def _leave_what_the_run_left(self, wanted: dict[int, str]) -> None:
        """Set aside in the mirror what is of another run, and steps after the newest: they are of a line that the run has left."""
        now = datetime.now(UTC)
        if not self._is_same_run:
            ours, theirs = find_identity(self._disk, self._source.path), find_identity(self._disk, self._target.path)
            is_other = ours is not None and theirs is not None and ours.created_at_utc != theirs.created_at_utc
            if is_other or (theirs is None and self.has_content()):
                self._target.set_everything_aside(reason="other-run", now=now)
            self._is_same_run = True
        there = {entry.step: entry.manifest for entry in self._target.known_entries() if entry.manifest is not None}
        ours_by_step = {entry.step: entry.manifest for entry in (self._source.known_entries() if wanted else ()) if entry.manifest}
        newest = max(wanted, default=max(there, default=0))
        kept = {step for step, found in there.items() if is_same_state(found, ours_by_step.get(step) or found)}
        left = sorted((step for step in there if step > newest or step not in kept), reverse=True)
        if left and all(step in left for step in there):
            # One that is in nobody's way comes first, so that the mirror never is without any.
            for step in [step for step in wanted if step not in left][:1]:
                self._copy(step)
        for step in left:
            self._verified.pop(step, None)
        self._target.set_aside(map(step_name, left), reason="left", now=now)

    def _remove_outdated(self) -> None:
        wanted = self._wanted()
        entries = {entry.step: entry for entry in self._target.known_entries(are_checked=True)}
        outdated = self._find_outdated(list(entries.values()), wanted)
        for step in self._target.numbers():
            if step in outdated or (step not in entries and step not in wanted):
                delete_copy(self._disk, self._target.path_of(step))
                self._target.forget(step)
                self._verified.pop(step, None)

    def _find_outdated(self, entries: list[StepEntry], wanted: dict[int, str]) -> set[int]:
        """Return what neither the run has nor its rules keep. What an earlier process left here counts by the rules alone."""
        decisions = plan_retention([entry.stored() for entry in entries], self._policy, now=datetime.now(UTC))
        gone = {
            decision.step for decision in decisions if decision.step not in wanted and (decision.step in self._seen or not decision.is_kept)
        }
        # A manifest comes after the verification, so what an earlier process left whole was verified by it.
        newest: list[int] = []
        for entry in reversed(entries if gone else []):
            if len(newest) < MIN_GENERATIONS and entry.error is None and self._target.find_damage(entry) is None:
                newest.append(entry.step)
        return gone - set(newest)
