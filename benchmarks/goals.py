"""What ckptfmt wants to reach: one table. Every goal is reported as met or not met, or as not measured.

A goal compares two medians of the same run, or a median with a fixed number; each names the state and case that it is
taken from.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import cases, limits, startup, states
from benchmarks.results import OURS, Results

AT_LEAST_TIMES = "at least {:g} times as fast as {}"
AT_LEAST_TIMES_BEST = "at least {:g} times as fast as the faster of {}"
AT_LEAST_TIMES_ANY = "at least {:g} times as fast as a {} of any other library"
AT_LEAST_SHARE = "at least {:.0%} of the speed of {}"
AT_MOST_TIMES = "at most {:g} times as long as {}"
LESS_THAN_MS = "less than {:g} ms, the whole process"
AT_MOST_MB = "at most {:g} MB of memory beside the state"

MAX_EXTRA_MB = 96
BOTH = "torch, safetensors"
_WITH_MEMORY = (cases.DURABLE_SAVE, cases.WARM_LOAD, cases.COLD_LOAD)


@dataclass(frozen=True)
class Goal:
    """One goal: `value` filled into `form`, and against what (a library's row, a limit, another case)."""

    state: str
    case: str
    form: str
    value: float
    against: str = ""

    def text(self) -> str:
        """Return the goal in words."""
        return self.form.format(self.value, self.against)


GOALS = (
    Goal("2GB", cases.DURABLE_SAVE, AT_LEAST_TIMES_BEST, 2.2, BOTH),
    Goal("2GB", cases.DURABLE_SAVE, AT_LEAST_SHARE, 0.9, limits.DIRECT_WRITE),
    Goal("50k", cases.DURABLE_SAVE, AT_LEAST_TIMES, 5, "torch"),
    Goal("45MB", cases.DURABLE_SAVE, AT_LEAST_TIMES, 1.3, "torch"),
    Goal("2GB", cases.COLD_LOAD, AT_LEAST_TIMES_BEST, 1.4, BOTH),
    Goal("2GB", cases.COLD_LOAD, AT_LEAST_SHARE, 0.85, limits.DIRECT_READ),
    Goal("2GB", cases.WARM_LOAD, AT_LEAST_TIMES, 1.8, "torch"),
    Goal("2GB", cases.WARM_LOAD, AT_MOST_TIMES, 1.3, limits.HASH_2),
    Goal("50k", cases.WARM_LOAD, AT_LEAST_TIMES, 7, "torch"),
    Goal("2GB", cases.ONE_TENSOR, AT_LEAST_TIMES, 1, "safetensors"),
    Goal("2GB", cases.ASYNC_STALL, AT_MOST_TIMES, 1.3, limits.MEMCPY),
    Goal("2GB", "incremental 1 %", AT_LEAST_TIMES_ANY, 15, cases.DURABLE_SAVE),
    *(Goal(state, case, AT_MOST_MB, MAX_EXTRA_MB) for state in states.STATES for case in _WITH_MEMORY),
    *(Goal(state, case, AT_MOST_MB, MAX_EXTRA_MB) for state in cases.INCREMENTAL_STATES for case in cases.INCREMENTAL),
    Goal(startup.STATE, startup.INSPECT, LESS_THAN_MS, 400),
    Goal(startup.STATE, startup.IMPORT, LESS_THAN_MS, 80),
)


@dataclass(frozen=True)
class Verdict:
    """What was measured for a goal; `is_met` is None where it was not measured."""

    goal: Goal
    measured: str
    is_met: bool | None


def judge(results: Results) -> list[Verdict]:
    """Compare every goal whose state was measured at all."""
    measured = results.states()
    return [_judge(goal, results) for goal in GOALS if goal.state in measured]


def _judge(goal: Goal, results: Results) -> Verdict:
    if goal.form == AT_MOST_MB:
        extra = results.fact(goal.state, goal.case, OURS, cases.EXTRA_MEMORY)
        return _verdict(goal, None if extra is None else extra / 1e6, "{:.0f} MB", is_upper=True)
    ours = results.median(goal.state, goal.case, OURS)
    if goal.form == LESS_THAN_MS:
        return _verdict(goal, None if ours is None else ours * 1e3, "{:.0f} ms", is_upper=True)
    reference = _reference(goal, results)
    if ours is None or reference is None:
        return Verdict(goal, "not measured", None)
    if goal.form == AT_MOST_TIMES:
        return _verdict(goal, ours / reference, "{:.2f} times", is_upper=True)
    return _verdict(goal, reference / ours, "{:.0%}" if goal.form == AT_LEAST_SHARE else "{:.2f} times", is_upper=False)


def _reference(goal: Goal, results: Results) -> float | None:
    """Return the median that a goal is compared with; of several libraries the fastest, if all were measured."""
    if goal.form == AT_LEAST_TIMES_ANY:
        best = results.best_peer(goal.state, goal.against)
        return best[1] if best else None
    if goal.form in (AT_LEAST_SHARE, AT_MOST_TIMES):
        return results.median(goal.state, goal.against, limits.ROW)
    medians = [results.median(goal.state, goal.case, row) for row in goal.against.split(", ")]
    found = [median for median in medians if median is not None]
    return min(found) if len(found) == len(medians) else None


def _verdict(goal: Goal, value: float | None, form: str, *, is_upper: bool) -> Verdict:
    if value is None:
        return Verdict(goal, "not measured", None)
    return Verdict(goal, form.format(value), value <= goal.value if is_upper else value >= goal.value)
