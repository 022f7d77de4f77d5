"""Removing checkpoints of a run that no rule keeps, with a reason for each one that stays."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.run.retention import Decision, Policy, plan_retention
from ckptfmt.run.steps import StepDirectory


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


def clean_up(steps: StepDirectory, policy: Policy, *, dry_run: bool) -> CleanupReport:
    """Apply a policy. The newest checkpoint whose files are all there always stays."""
    entries = steps.checked_entries()
    decisions = plan_retention([entry.stored() for entry in entries], policy, now=datetime.now(UTC))
    freed_bytes = 0
    for decision in decisions:
        if not decision.is_kept:
            freed_bytes += steps.unique_bytes(decision.step)
            if not dry_run:
                delete_checkpoint(steps.disk, steps.path_of(decision.step))
    return CleanupReport(tuple(decisions), freed_bytes, dry_run)
