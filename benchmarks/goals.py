"""What ckptfmt wants to reach: one table. Every goal is reported as met or not met, or as not measured.

A goal compares two medians of the same run, or a median with a fixed number; each names the state and case that it is
taken from.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import cases, limits, startup
from benchmarks.results import OURS, Results

AT_LEAST_TIMES = "at least {:g} times as fast as {}"
AT_LEAST_SHARE = "at least {:.0%} of the speed of {}"
AT_MOST_MS = "at most {:g} ms longer than {}"
AT_MOST_MB = "at most {:g} MB of memory beside the state"
AT_MOST_SIZE = "at most {:g} times the bytes of the tensors on disk"
STALL_SHARE = "the caller waits at most {:.0%} of a durable save"


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
    Goal("2GB", cases.DURABLE_SAVE, AT_LEAST_TIMES, 2, "torch"),
    Goal("2GB", cases.DURABLE_SAVE, AT_LEAST_SHARE, 0.85, limits.DIRECT_WRITE),
    Goal("2GB", cases.WARM_LOAD, AT_LEAST_TIMES, 2, "torch"),
    Goal("2GB", cases.WARM_LOAD, AT_LEAST_SHARE, 0.8, limits.HASH_2),
    Goal("2GB", cases.COLD_LOAD, AT_LEAST_TIMES, 1.4, "torch"),
    Goal("2GB", cases.COLD_LOAD, AT_LEAST_TIMES, 1.4, "safetensors"),
    Goal("2GB", cases.COLD_LOAD, AT_LEAST_SHARE, 0.85, limits.DIRECT_READ),
    Goal("2GB", cases.ONE_TENSOR, AT_LEAST_TIMES, 1, "safetensors"),
    Goal("2GB", cases.ASYNC_STALL, AT_LEAST_SHARE, 0.77, limits.MEMCPY),
    Goal("2GB", cases.ASYNC_STALL, STALL_SHARE, 0.5, cases.DURABLE_SAVE),
    Goal("2GB", "incremental 1 %", AT_LEAST_SHARE, 0.6, limits.HASH_2),
    Goal("2GB", cases.DURABLE_SAVE, AT_MOST_MB, 64),
    Goal("2GB", cases.WARM_LOAD, AT_MOST_MB, 64),
    Goal("2GB", cases.COLD_LOAD, AT_MOST_MB, 96),
    Goal("2GB", cases.DURABLE_SAVE, AT_MOST_SIZE, 1.01),
    Goal("one", cases.DURABLE_SAVE, AT_LEAST_SHARE, 0.85, limits.DIRECT_WRITE),
    Goal("one", cases.COLD_LOAD, AT_LEAST_SHARE, 0.85, limits.DIRECT_READ),
    Goal("50k", cases.DURABLE_SAVE, AT_LEAST_TIMES, 5, "torch"),
    Goal("50k", cases.WARM_LOAD, AT_LEAST_TIMES, 7, "torch"),
    Goal("50k", cases.DURABLE_SAVE, AT_MOST_SIZE, 1.25),
    Goal("45MB", cases.DURABLE_SAVE, AT_LEAST_TIMES, 1.2, "torch"),
    Goal("45MB", cases.WARM_LOAD, AT_LEAST_TIMES, 1.2, "torch"),
    Goal(startup.STATE, startup.IMPORT, AT_MOST_MS, 20, startup.NOTHING),
    Goal(startup.STATE, startup.HELP, AT_MOST_MS, 150, startup.NOTHING),
    Goal(startup.STATE, startup.INSPECT, AT_MOST_MS, 500, startup.NOTHING),
)


@dataclass(frozen=True)
class Verdict:
    """What was measured for a goal; `is_met` is None where it was not measured."""

    goal: Goal
    measured: str
    is_met: bool | None


def judge(results: Results, *, tensor_bytes: dict[str, int]) -> list[Verdict]:
    """Compare every goal whose state was measured at all. `tensor_bytes` are those of each state."""
    measured = results.states()
    return [_judge(goal, results, tensor_bytes) for goal in GOALS if goal.state in measured]


def _judge(goal: Goal, results: Results, tensor_bytes: dict[str, int]) -> Verdict:
    if goal.form == AT_MOST_MB:
        extra = results.fact(goal.state, goal.case, OURS, cases.EXTRA_MEMORY)
        return _verdict(goal, None if extra is None else extra / 1e6, "{:.0f} MB", is_upper=True)
    if goal.form == AT_MOST_SIZE:
        size, tensors = results.fact(goal.state, goal.case, OURS, cases.SIZE), tensor_bytes.get(goal.state)
        return _verdict(goal, None if size is None or not tensors else size / tensors, "{:.3f} times", is_upper=True)
    ours, reference = results.median(goal.state, goal.case, OURS), _reference(goal, results)
    if ours is None or reference is None:
        return Verdict(goal, "not measured", None)
    if goal.form == AT_MOST_MS:
        return _verdict(goal, (ours - reference) * 1e3, "{:.0f} ms", is_upper=True)
    if goal.form == STALL_SHARE:
        return _verdict(goal, ours / reference, "{:.0%}", is_upper=True)
    return _verdict(goal, reference / ours, "{:.0%}" if goal.form == AT_LEAST_SHARE else "{:.2f} times", is_upper=False)


def _reference(goal: Goal, results: Results) -> float | None:
    if goal.form == AT_LEAST_TIMES:
        return results.median(goal.state, goal.case, goal.against)
    row = limits.ROW if goal.form == AT_LEAST_SHARE else OURS
    return results.median(goal.state, goal.against, row)


def _verdict(goal: Goal, value: float | None, form: str, *, is_upper: bool) -> Verdict:
    if value is None:
        return Verdict(goal, "not measured", None)
    return Verdict(goal, form.format(value), value <= goal.value if is_upper else value >= goal.value)
