"""Which checkpoints of a run stay, and why. Pure: nothing is read or removed here.

Rules are OR-ed: a checkpoint stays if any rule keeps it. The newest one always stays, and so does the newest that is known to
be sound; a damaged one counts for no rule. Whoever deletes does it after the next commit, never before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

_DURATION = re.compile(r"([0-9]+)([smhdw])")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep. None means that a rule keeps nothing; all None means that everything stays."""

    keep_last: int | None = None
    keep_best: int | None = None
    keep_every: int | None = None
    keep_within: timedelta | None = None
    monitor: str | None = None
    mode: str | None = None

    def __post_init__(self) -> None:
        for name in ("keep_last", "keep_best", "keep_every"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name}={value!r}: expected a positive integer, or None")
        if self.mode not in (None, "min", "max"):
            raise ValueError(f"mode={self.mode!r}: expected 'min' or 'max'")
        if (self.monitor is None) != (self.mode is None):
            raise ValueError("monitor and mode belong together: name the metric, and say whether 'min' or 'max' is better")
        if self.keep_best is not None and self.monitor is None:
            raise ValueError("keep_best needs monitor= and mode=")

    @property
    def is_empty(self) -> bool:
        """Whether no rule is set, so that everything stays."""
        return self.keep_last is None and self.keep_best is None and self.keep_every is None and self.keep_within is None

    def keeps_for_good(self, step: int) -> bool:
        """Tell whether a step stays whatever comes after it."""
        return self.is_empty or (self.keep_every is not None and step % self.keep_every == 0)


@dataclass(frozen=True, slots=True)
class StoredStep:
    """One checkpoint of a run as retention sees it; `is_sound` is False for one that is known to be damaged."""

    step: int
    created_at: datetime
    metrics: Mapping[str, int | float]
    is_sound: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one checkpoint, and the rules that keep it (none: it goes)."""

    step: int
    reasons: tuple[str, ...]

    @property
    def is_kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


def is_by_rank(reason: str) -> bool:
    """Tell whether a checkpoint that stays for this reason takes the place of another, which would stay without it."""
    return reason.startswith(("last ", "best ", "newest"))


def parse_duration(value: str | int | float | timedelta | None, name: str = "keep_within") -> timedelta | None:
    """Return "7d", "36h", "2w3d", seconds or a timedelta as a timedelta; `name` is that of the option, for messages."""
    if value is None or isinstance(value, timedelta):
        duration = value
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        duration = timedelta(seconds=value)
    elif isinstance(value, str) and value and not _DURATION.sub("", value):
        duration = timedelta(seconds=sum(int(count) * _UNIT_SECONDS[unit] for count, unit in _DURATION.findall(value)))
    else:
        raise ValueError(f"{name}={value!r}: expected a duration such as '7d', '36h' or '1w2d', or seconds")
    if duration is not None and duration <= timedelta(0):
        raise ValueError(f"{name}={value!r}: expected a positive duration")
    return duration


def rank_by_metric(steps: Iterable[StoredStep], metric: str, mode: str) -> list[StoredStep]:
    """Return the steps that have the metric, best first; NaN is never best, and of equals the newer comes first."""
    sign = 1 if mode == "min" else -1
    measured = [step for step in steps if metric in step.metrics and not math.isnan(step.metrics[metric])]
    return sorted(measured, key=lambda step: (sign * step.metrics[metric], -step.step))


def plan_retention(steps: Sequence[StoredStep], policy: Policy, *, now: datetime) -> list[Decision]:
    """Decide for each checkpoint, in ascending order of steps."""
    ordered = sorted(steps, key=lambda step: step.step)
    sound = [step for step in ordered if step.is_sound]
    reasons: dict[int, list[str]] = {step.step: [] for step in ordered}
    if policy.is_empty:
        for step in ordered:
            reasons[step.step].append("no rule is set")
    for step in sound[-(policy.keep_last or 0) :] if policy.keep_last else ():
        reasons[step.step].append(f"last {policy.keep_last}")
    if policy.keep_best is not None and policy.monitor is not None and policy.mode is not None:
        ranked = rank_by_metric(sound, policy.monitor, policy.mode)
        for step in ranked[: policy.keep_best]:
            reasons[step.step].append(f"best {policy.keep_best} by {policy.monitor}")
        if all(policy.monitor not in step.metrics for step in sound):
            # A misspelt metric must not delete what it cannot judge. One that is NaN everywhere says that none is best.
            for step in sound:
                reasons[step.step].append(f"nothing to judge {policy.monitor} by")
    if policy.keep_every is not None:
        for step in sound:
            if step.step % policy.keep_every == 0:
                reasons[step.step].append(f"every {policy.keep_every}")
    if policy.keep_within is not None:
        for step in sound:
            if now - step.created_at <= policy.keep_within:
                reasons[step.step].append(f"within {_format_duration(policy.keep_within)}")
    if sound:
        reasons[sound[-1].step].append("newest sound")
    if ordered and not ordered[-1].is_sound:
        reasons[ordered[-1].step].append("newest")
    return [Decision(step.step, tuple(reasons[step.step])) for step in ordered]


def _format_duration(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    for unit in "wdhms":
        if seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds // _UNIT_SECONDS[unit]}{unit}"
    return f"{seconds}s"
