"""Removing checkpoints of a run that no rule keeps, with a reason for each one that stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.directory import open_checkpoint_directory, read_manifest
from ckptfmt.errors import CheckpointError, CheckpointNotFoundError, RunLockedError, UnsupportedVersionError
from ckptfmt.format.layout import MANIFEST_NAME
from ckptfmt.run.retention import Decision, Policy, is_by_rank, plan_retention
from ckptfmt.run.steps import StepDirectory, StepEntry


@dataclass(frozen=True, slots=True)
class CleanupReport:
    """What a clean-up did, or would do: a decision for each checkpoint, in ascending order of steps.

    `freed_bytes` counts what only the removed checkpoints used.
    """

    decisions: tuple[Decision, ...]
    freed_bytes: int
    dry_run: bool

    @property
    def kept(self) -> list[int]:
        """The steps that stay."""
        return [decision.step for decision in self.decisions if decision.is_kept]

    @property
    def removed(self) -> list[int]:
        """The steps that go."""
        return [decision.step for decision in self.decisions if not decision.is_kept]


def clean_up(steps: StepDirectory, policy: Policy, *, dry_run: bool, just_saved: int | None = None) -> CleanupReport:
    """Apply a policy. The newest sound checkpoint always stays, and so does what a newer library wrote.

    The newest one is read and verified before anything goes, unless it is the one that was `just_saved`. With `just_saved` by
    the only writer, what is known of the others is used, and those that take the place of another are looked at.
    """
    decisions = _plan(_with_newest_verified(steps), policy) if just_saved is None else _plan_after_save(steps, policy)
    freed_bytes = _freed_bytes(steps, [decision.step for decision in decisions if not decision.is_kept]) if dry_run else 0
    for index, decision in enumerate(decisions):
        if decision.is_kept:
            continue
        if dry_run:
            continue
        unique_bytes = steps.unique_bytes(decision.step)
        try:
            with suppress(CheckpointNotFoundError):
                delete_checkpoint(steps.disk, steps.path_of(decision.step))
            steps.forget(decision.step)
        except RunLockedError:
            # Somebody compresses it; the next clean-up finds it again.
            decisions[index] = Decision(decision.step, ("being written",))
            continue
        freed_bytes += unique_bytes
    if not dry_run:
        _finish_deletions(steps, {decision.step for decision in decisions})
    return CleanupReport(tuple(decisions), freed_bytes, dry_run)


def _freed_bytes(steps: StepDirectory, removed: Sequence[int]) -> int:
    """Return what deleting some steps together frees: the files of which they have all names."""
    names: Counter[tuple[int, int, int]] = Counter()
    freed_bytes = 0
    for step in removed:
        with suppress(CheckpointError), closing(open_checkpoint_directory(steps.disk, steps.path_of(step))) as directory:
            for name in (MANIFEST_NAME, *(entry.name for entry in read_manifest(directory).files())):
                with suppress(OSError), closing(directory.open(name)) as file:
                    status = file.status()
                    if status is None or file.link_count == 1:
                        freed_bytes += file.size_bytes if file.link_count == 1 else 0
                    else:
                        names[status.inode, file.link_count, file.size_bytes] += 1
    return freed_bytes + sum(size_bytes for (_, link_count, size_bytes), count in names.items() if count >= link_count)


def _plan(entries: list[StepEntry], policy: Policy) -> list[Decision]:
    foreign = [Decision(entry.step, ("of a newer version",)) for entry in entries if isinstance(entry.error, UnsupportedVersionError)]
    known = [entry.stored() for entry in entries if not isinstance(entry.error, UnsupportedVersionError)]
    return sorted([*plan_retention(known, policy, now=datetime.now(UTC)), *foreign], key=lambda decision: decision.step)


def _plan_after_save(steps: StepDirectory, policy: Policy) -> list[Decision]:
    """Plan with what is known, which costs no more than the list of names; if it turns out to be wrong, with what is there."""
    entries = steps.known_entries(are_checked=True)
    decisions = _plan(entries, policy)
    by_step = {entry.step: entry for entry in entries}
    # What is kept for its rank keeps others from that place, so it must be sound now.
    ranked = [by_step[decision.step] for decision in decisions if any(map(is_by_rank, decision.reasons))]
    if all(decision.is_kept for decision in decisions) or all(steps.find_damage(entry) is None for entry in ranked if entry.error is None):
        return decisions
    steps.forget()
    return _plan(steps.checked_entries(), policy)


def _with_newest_verified(steps: StepDirectory) -> list[StepEntry]:
    entries = steps.checked_entries()
    for index in reversed(range(len(entries))):
        entry = entries[index]
        if entry.error is None:
            entries[index] = entry = replace(entry, error=steps.find_damage(entry, is_full=True))
        if entry.error is None:
            break
    return entries


def _finish_deletions(steps: StepDirectory, with_manifest: set[int]) -> None:
    """Remove what an interrupted deletion or save left of steps before the newest checkpoint; nothing there has a manifest."""
    for step in steps.numbers():
        if step not in with_manifest and step < max(with_manifest, default=0):
            # Somebody who is saving into it holds its lock.
            with suppress(CheckpointNotFoundError, RunLockedError):
                delete_checkpoint(steps.disk, steps.path_of(step))
