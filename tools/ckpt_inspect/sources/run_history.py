"""The metrics of a run by step: its journal of history, joined with what its checkpoints say."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckpt_inspect.output.visible import visible
from ckpt_inspect.sources.location import NotReadableHereError
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.run.history import History
from ckptfmt.run.steps import StepDirectory

_ABOUT = ("step", "created_at_utc")
_SHOWN_NAMES = 20


@dataclass(frozen=True, slots=True)
class RunHistory:
    """One row for each step, ascending; `names` are those of all metrics in the order of their first step."""

    path: str
    rows: Sequence[Mapping[str, Any]]
    names: Sequence[str]
    remarks: Sequence[str]

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of one metric; an integer that no float can hold is infinite."""
        return [(row["step"], _as_float(row[name])) for row in self.rows if name in row]

    def chosen(self, wanted: Sequence[str]) -> list[str]:
        """Return the metrics that were asked for, or all.

        Raises:
            NotReadableHereError: there is no such metric.
        """
        for name in wanted:
            check_metric(self.path, name, self.names)
        return list(dict.fromkeys(wanted)) or list(self.names)


def check_metric(path: str, name: str, names: Sequence[str]) -> None:
    """Raise an error that lists what there is if a metric is not among some names."""
    if name not in names:
        known = ", ".join(map(visible, names[:_SHOWN_NAMES])) + (
            f" and {len(names) - _SHOWN_NAMES:,} more" if len(names) > _SHOWN_NAMES else ""
        )
        raise NotReadableHereError(f"{path}: no metric is named {name!r}\nThere are: {known or 'none'}.")


def read_history(path: str) -> RunHistory:
    """Read the history of a run. A damaged journal is a remark, and what the checkpoints say is shown."""
    disk = AnyDisk()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows = History(disk, path, durable=False).rows(StepDirectory(disk, path).committed())
    numeric = [{name: value for name, value in row.items() if name in _ABOUT or type(value) in (int, float)} for row in rows]
    names = dict.fromkeys(name for row in numeric for name in row if name not in _ABOUT)
    return RunHistory(path, numeric, list(names), [str(warning.message) for warning in caught])


def _as_float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
