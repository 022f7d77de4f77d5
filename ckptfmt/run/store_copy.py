"""The store's side of a run that lives there: a mirror that is the truth, so that what it lacks is an error and not a warning.

Rules of the run apply to what is in the store, whatever the local directory still has.
"""

from __future__ import annotations

from datetime import UTC, datetime

from ckptfmt.checkpoint.info import CheckpointInfo
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import RunLockedError, StoreUnavailableError
from ckptfmt.run.cleaning import CleanupReport, clean_up
from ckptfmt.run.lease import Lease
from ckptfmt.run.mirror import Mirror
from ckptfmt.run.notices import warn
from ckptfmt.run.retention import Policy, plan_retention
from ckptfmt.run.steps import StepDirectory, StepEntry, step_name


class StoreCopy(Mirror):
    """Keeps the store up to date with the local directory of a run, under a lease. `disk` asks that lease before it changes the store."""

    def __init__(self, disk: Disk, local: StepDirectory, url: str, policy: Policy, lease: Lease) -> None:
        super().__init__(disk, local, url, policy)
        self.steps = self._target
        self._lease = lease
        self._taken: set[str] = set()

    def bring(self, step: int) -> None:
        """Wait until the store has a step that was just committed, verified.

        Raises:
            StoreUnavailableError, RunLockedError: it has not.
        """
        super().wait()
        if step in self.status().pending:
            raise self._what_is_missing(f"step {step}")
        if self._pending_journals:
            warn(f"{self._target.path}: step {step} is there, but {', '.join(self._pending_journals)} is not whole yet: {self._last_error}")

    def wait(self) -> None:
        """Wait until the store has everything.

        Raises:
            StoreUnavailableError, RunLockedError: it has not.
        """
        super().wait()
        self._check_whole()

    def update_and_close(self) -> None:
        """Try once more what is missing, and end the thread. Raises as `wait`."""
        self._end()
        self._check_whole()

    def _check_whole(self) -> None:
        missing = [f"step {step}" for step in self.status().pending] + list(self._pending_journals)
        if missing:
            raise self._what_is_missing(", ".join(missing))
        if self._last_error is not None:
            warn(f"{self._target.path}: {self._last_error}")

    def _what_is_missing(self, missing: str) -> StoreUnavailableError | RunLockedError:
        local = self._source.path
        try:
            self._lease.ask()
        except RunLockedError as lost:
            lost.add_note(f"Not in the store, and kept in {local}: {missing}")
            return lost
        return StoreUnavailableError(
            f"{self._target.path}: not in the store: {missing}: {self._last_error}\n"
            f"Nothing is lost: it is in {local}. The next save brings it to the store, and so does wait_until_finished().",
            path=self._target.path,
            local_path=local,
        )

    def leave_later_steps(self, last: int) -> None:
        """Set aside what is in the store of steps after `last`, before anything else is done about them.

        Raises:
            StoreUnavailableError: the store is away; nothing was changed.
        """
        try:
            aside = self.steps.set_later_steps_aside(last, reason=f"after-{step_name(last)}", now=datetime.now(UTC))
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._target.path}: going on from step {last} needs the store, to set later ones aside: {error.strerror or error}\n"
                "Nothing was saved. Save again when the store is there.",
                path=self._target.path,
            ) from error
        for step in [step for step in self._verified if step > last]:
            self._verified.pop(step, None)
        if aside:
            self._done = None
            self.steps.known_entries()

    def clean_up(self, policy: Policy, *, dry_run: bool) -> CleanupReport:
        """Remove from the store what a policy does not keep."""
        report = clean_up(self.steps, policy, dry_run=dry_run)
        for step in () if dry_run else report.removed:
            self._verified.pop(step, None)
        return report

    def find_needless(self, *, kept_count: int) -> list[int]:
        """Return the steps that need not be here: the store took them, and they are not among the newest, or are gone there."""
        wanted = self._wanted()
        newest = sorted(wanted)[-kept_count:]
        return [
            step
            for step, digest in wanted.items()
            if digest in self._taken and step != max(wanted) and (step not in newest or step not in self._verified)
        ]

    def _remove_outdated(self) -> None:
        self._taken |= set(self._verified.values())
        if not self._policy.is_empty:
            super()._remove_outdated()

    def _find_outdated(self, entries: list[StepEntry], wanted: dict[int, str]) -> set[int]:
        decisions = plan_retention([entry.stored() for entry in entries], self._policy, now=datetime.now(UTC))
        return {decision.step for decision in decisions if not decision.is_kept}


class JoinedSteps(StepDirectory):
    """The steps of a run in its store, with those that the store does not have yet; what is on this machine is read here."""

    def __init__(self, local: StepDirectory, store: StepDirectory) -> None:
        super().__init__(store.disk, store.path)
        self._local = local
        self._store = store

    def exists(self) -> bool:
        """Tell whether there is either."""
        return self._local.exists() or self._store.exists()

    def numbers(self) -> list[int]:
        """Return the steps of which there is anything, in ascending order."""
        return sorted({step for steps in (self._local, self._store) if steps.exists() for step in steps.numbers()})

    def entry_of(self, step: int) -> StepEntry | None:
        """Return the entry of a step, that of this machine if there is one."""
        local = self._local.entry_of(step)
        # What is in the store is only changed by this process, as long as it has the lease.
        return local if local is not None and local.manifest is not None else self._store.find_known(step) or local

    def info(self, step: int) -> CheckpointInfo:
        """Return what is known of a step, as it is in the store if it is there."""
        return super().info(step) if self._store.find_known(step) is not None else self._local.info(step)
