"""Which units are done, which have failed, how fast it goes: the fold of all records of a progress. Spec 17.3.

Records of several writers come in any interleaving, and those of one writer may come again; the outcome does not depend on it: of two
records of one key the earlier stays, of two failures the one with more attempts. Nothing is decoded before somebody asks for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ckptfmt.format.rules import violation
from ckptfmt.run.progress_records import BEGIN, DONE, END_TIME, FAIL, TOTAL, Content, Key, decode_content, is_time, key_of

_RECENT_UNITS = 200
_EXPECTED = {
    BEGIN: "[begin, time, fingerprint or nil]",
    TOTAL: "[total, time, count or nil]",
    DONE: "[done, key, time, content]",
    FAIL: "[fail, key, time, attempts, error]",
}


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a unit, and how often it was attempted."""

    error: str
    attempts: int
    failed_at_utc: str


@dataclass(slots=True)
class MetricSummary:
    """What is known of one metric over all finished units."""

    count: int = 0
    sum: int | float = 0
    min: int | float | None = None
    max: int | float | None = None

    @property
    def mean(self) -> float | None:
        """The sum by the count; None without any value."""
        return self.sum / self.count if self.count else None

    def add(self, value: int | float) -> None:
        """Count one more value."""
        self.count += 1
        self.sum += value
        self.min = value if self.min is None or value < self.min else self.min
        self.max = value if self.max is None or value > self.max else self.max


@dataclass(slots=True)
class _Session:
    """A writer's newest session in which a unit was finished: when it began, and the times of the newest units."""

    began_at: float
    times: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT_UNITS))


class Ledger:
    """The state of a progress. `units` maps keys to their records of kind "done"; see `ordered_units` for their order."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.units: dict[Key, list[Any]] = {}
        self.failures: dict[Key, Failure] = {}
        self.total: int | None = None
        self.fingerprint: Mapping[str, Any] | None = None
        self.last_at = 0.0
        self._total_at = self._fingerprint_at = 0.0
        self._sessions: dict[str, _Session] = {}
        self._begun: dict[str, float] = {}
        self._aggregate: dict[str, MetricSummary] | None = None

    def add(self, writer: str, records: Iterable[Any]) -> None:
        """Fold records of one writer, in their order.

        Raises:
            CorruptError: a record is not as spec 17.2 says (E057).
        """
        units = self.units
        times = self._sessions[writer].times if writer in self._sessions and writer not in self._begun else None
        for record in records:
            if type(record) is not list or not record or type(record[0]) is not str:
                raise self._wrong(record, writer)
            if record[0] != DONE:
                self._add_other(record, writer)
                times = None if writer in self._begun else times
                continue
            # One comparison that neither NaN nor infinity passes.
            if len(record) < 4 or type(record[2]) is not float or not -END_TIME < record[2] < END_TIME or type(record[3]) is not bytes:
                raise self._wrong(record, writer)
            key, at = record[1], record[2]
            if type(key) is not int and type(key) is not str:
                key = key_of(key, where=self.where)
            first = units.get(key)
            if first is None:
                units[key] = record
                if self._aggregate is not None:
                    self._count(self._aggregate, record)
            elif at < first[2]:
                units[key] = record
                self._aggregate = None
            if times is None:
                times = self._start_session(writer, at)
            times.append(at)
            if at > self.last_at:
                self.last_at = at

    def forget_speed(self, writer: str) -> None:
        """Take note that the records of a writer come again from the beginning."""
        self._sessions.pop(writer, None)
        self._begun.pop(writer, None)

    def _start_session(self, writer: str, at: float) -> deque[float]:
        self._sessions[writer] = _Session(self._begun.pop(writer, at))
        return self._sessions[writer].times

    def _add_other(self, record: list[Any], writer: str) -> None:
        kind = record[0]
        if kind == FAIL:
            self._add_failure(record, writer)
        elif kind in (BEGIN, TOTAL):
            if len(record) < 3 or not is_time(record[1]):
                raise self._wrong(record, writer)
            at, value = record[1], record[2]
            if value is not None and not (type(value) is dict if kind == BEGIN else type(value) is int and value >= 0):
                raise self._wrong(record, writer)
            if kind == BEGIN:
                self._begun[writer] = at
                if value is not None and at >= self._fingerprint_at:
                    self.fingerprint, self._fingerprint_at = value, at
            elif at >= self._total_at:
                self.total, self._total_at = value, at
            self.last_at = max(self.last_at, at)

    def _add_failure(self, record: list[Any], writer: str) -> None:
        if len(record) < 5 or not is_time(record[2]) or type(record[3]) is not int or type(record[4]) is not str:
            raise self._wrong(record, writer)
        key = key_of(record[1], where=self.where)
        known = self.failures.get(key)
        if known is None or record[3] > known.attempts:
            # A time that no calendar has is damage of a kind that checksums do not see; it must not stop the reading.
            at = datetime.fromtimestamp(min(max(record[2], 0.0), 2.0**37), UTC)
            self.failures[key] = Failure(record[4], record[3], at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
        self.last_at = max(self.last_at, record[2])

    def _wrong(self, record: Any, writer: str) -> Exception:
        where = f"{self.where}/writers/{writer}" if writer else self.where
        kind = record[0] if type(record) is list and record and type(record[0]) is str else ""
        expected = _EXPECTED.get(kind, "an array that begins with its kind")
        return violation("E057", where, "record of a progress is wrong", expected=expected, found=record)

    def is_current(self, record: Any) -> bool:
        """Tell whether a record still says something that no other says: what compaction keeps."""
        if record[0] == DONE:
            return bool(self.units.get(key_of(record[1], where=self.where)) == record)
        if record[0] == FAIL:
            key = key_of(record[1], where=self.where)
            return key not in self.units and self.failures[key].attempts == record[3]
        if record[0] == BEGIN:
            return bool(record[1] == self._fingerprint_at and record[2] is not None)
        # Of a newer version, or the number of units.
        return bool(record[0] != TOTAL or record[1] == self._total_at)

    def ordered_units(self) -> list[tuple[Key, list[Any]]]:
        """Return keys and records in the order in which the units were finished."""
        return sorted(self.units.items(), key=_finished_at)

    def content(self, key: Key) -> Content:
        """Return what a finished unit left."""
        return decode_content(self.units[key][3], where=f"{self.where}: unit {key!r:.80}")

    def final_failures(self, max_attempts: int | None) -> dict[Key, Failure]:
        """Return the units that are not attempted any more."""
        if max_attempts is None:
            return {}
        return {key: failure for key, failure in self.failures.items() if failure.attempts >= max_attempts and key not in self.units}

    def aggregate(self) -> dict[str, MetricSummary]:
        """Return what is known of each metric, over all finished units."""
        if self._aggregate is None:
            found: dict[str, MetricSummary] = {}
            for record in self.units.values():
                self._count(found, record)
            self._aggregate = found
        return {name: MetricSummary(one.count, one.sum, one.min, one.max) for name, one in self._aggregate.items()}

    def _count(self, found: dict[str, MetricSummary], record: list[Any]) -> None:
        for name, value in decode_content(record[3], where=self.where).metrics.items():
            found.setdefault(name, MetricSummary()).add(value)

    def units_per_second(self) -> float | None:
        """Return how many units were finished in a second of late, by all writers whose sessions reach into the newest one."""
        sessions = [session for session in self._sessions.values() if session.times]
        if not sessions:
            return None
        newest = max(sessions, key=lambda session: session.times[-1])
        rates = [_rate_of(session) for session in sessions if session.times[-1] >= newest.began_at]
        return sum(rates) or None

    def eta_seconds(self, total: int | None) -> float | None:
        """Return how long the rest of `total` units will take at the pace of late; None where that is not known."""
        if total is None:
            return None
        left = total - len(self.units)
        rate = self.units_per_second()
        return 0.0 if left <= 0 else left / rate if rate else None


def _finished_at(item: tuple[Key, list[Any]]) -> float:
    at: float = item[1][2]
    return at


def _rate_of(session: _Session) -> float:
    is_whole = len(session.times) < _RECENT_UNITS and session.began_at < session.times[0]
    count = len(session.times) - (0 if is_whole else 1)
    seconds = session.times[-1] - (session.began_at if is_whole else session.times[0])
    return count / seconds if seconds > 0 else 0.0
