"""Metrics by step: a journal, so that a step needs no checkpoint to be remembered, joined with what checkpoints say themselves.

Records are `{"step", "metrics", "created_at_utc"}` or `{"branch": step}`: training went on from that step, and what was recorded of later
steps is of another line. A step that is recorded again, as after a kill, counts as it was recorded last.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ckptfmt.disk.paths import join
from ckptfmt.disk.protocol import Disk
from ckptfmt.errors import CheckpointNotFoundError, CorruptError
from ckptfmt.run.journal import Journal
from ckptfmt.run.journal_reader import read_journal
from ckptfmt.run.journal_salvage import salvage
from ckptfmt.run.notices import warn
from ckptfmt.run.steps import StepDirectory, StepEntry

HISTORY_NAME = "history"
_FLUSH_SECONDS = 1.0
_COMPACT_RECORDS = 10_000


class History:
    """The metrics of one run. The journal is opened for writing with the first record."""

    def __init__(self, disk: Disk, run_path: str, *, durable: bool) -> None:
        self._disk = disk
        self._path = join(run_path, HISTORY_NAME)
        self._is_durable = durable
        self._journal: Journal | None = None
        self._mutex = threading.RLock()

    def record(self, step: int, metrics: Mapping[str, int | float], *, flush: bool) -> None:
        """Append the metrics of a step; durable at once with `flush`, otherwise about a second later or when closed."""
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._opened().append({"step": step, "metrics": dict(metrics), "created_at_utc": created}, flush=flush)

    def adopt(self, steps: StepDirectory) -> None:
        """Record checkpoints whose writer was killed before it could; otherwise they would be forgotten when they are deleted."""
        numbers = steps.numbers()
        recorded = _fold(self._records()) if numbers else {}
        for entry in steps.entries([step for step in numbers if step not in recorded]):
            if entry.manifest is not None:
                metrics, created = dict(entry.manifest.metrics), entry.manifest.created_at_utc
                self._opened().append({"step": entry.step, "metrics": metrics, "created_at_utc": created})

    def branch(self, step: int, *, asked_for: str | None = None) -> None:
        """Record that training went on from a step; `asked_for` is the digest of the checkpoint if the program named it."""
        self._opened().append({"branch": step, "asked_for": asked_for}, flush=True)

    def has_branched(self, asked_for: str) -> bool:
        """Tell whether training went on from this checkpoint before because the program named it."""
        return any(isinstance(record, dict) and record.get("asked_for") == asked_for for record in self._records())

    def flush(self) -> None:
        """Make everything recorded so far durable."""
        with self._mutex:
            if self._journal is not None:
                self._journal.flush()

    def rows(self, entries: Sequence[StepEntry]) -> list[dict[str, Any]]:
        """Return one row for each step, in ascending order."""
        self.flush()
        rows: dict[int, dict[str, Any]] = {}
        for entry in entries:
            if entry.manifest is not None:
                rows[entry.step] = {"step": entry.step, "created_at_utc": entry.manifest.created_at_utc, **entry.manifest.metrics}
        for step, recorded in _fold(self._records()).items():
            rows[step] = {**rows.get(step, {}), **recorded}
        return [rows[step] for step in sorted(rows)]

    def close(self) -> None:
        """Close the journal."""
        with self._mutex:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def _opened(self) -> Journal:
        with self._mutex:
            if self._journal is None:
                self._journal = self._open_for_append()
                self._compact_if_mostly_dead(self._journal)
            return self._journal

    def _open_for_append(self) -> Journal:
        try:
            return self._open_journal()
        except CorruptError as error:
            report = salvage(self._disk, self._path)
            message = f"{error}\nThe history goes on with the {report.kept_count} records before the damage; nothing was deleted."
            warn(message)
            return self._open_journal()

    def _open_journal(self) -> Journal:
        return Journal.open_for_append(self._disk, self._path, durable=self._is_durable, flush_after_seconds=_FLUSH_SECONDS)

    def _compact_if_mostly_dead(self, journal: Journal) -> None:
        records = [value for _, value in journal.iter_records()]
        live = _fold(records)
        if len(records) >= _COMPACT_RECORDS and len(records) >= 2 * len(live):
            names = ("step", "created_at_utc")
            journal.compact(
                {**{name: row[name] for name in names}, "metrics": {key: value for key, value in row.items() if key not in names}}
                for _, row in sorted(live.items())
            )

    def _records(self) -> Iterable[Any]:
        try:
            return [value for _, value in read_journal(self._disk, self._path).iter_records()]
        except CheckpointNotFoundError:
            return []
        except CorruptError as error:
            message = f"{error}\nOnly what the checkpoints say is shown."
            warn(message)
            return []


class HistoryRows:
    """What records of a history come to, by step. Attribute: `rows`, in the order in which their steps first came."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}

    def add(self, records: Iterable[Any]) -> None:
        """Replay records: later ones win, a branch forgets what came after it. Unknown records are of a newer version and ignored."""
        for record in records:
            if not isinstance(record, dict):
                continue
            step, metrics, branch = record.get("step"), record.get("metrics"), record.get("branch")
            if type(branch) is int:
                self.rows = {known: row for known, row in self.rows.items() if known <= branch}
            elif type(step) is int and isinstance(metrics, dict):
                self.rows[step] = {**self.rows.get(step, {}), "step": step, "created_at_utc": record.get("created_at_utc"), **metrics}


def _fold(records: Iterable[Any]) -> dict[int, dict[str, Any]]:
    folded = HistoryRows()
    folded.add(records)
    return folded.rows
