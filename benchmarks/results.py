"""What was measured: a list of measurements, asked for medians. Kept as one JSON document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.limits import ROW as LIMIT_ROW
from benchmarks.measure import Measurement

SCHEMA_VERSION = 1
OURS = "ckptfmt"


@dataclass
class Results:
    """All measurements of a run. `settings` and `machine` are what a reader must know beside them."""

    settings: dict[str, Any]
    machine: dict[str, Any]
    measurements: list[Measurement] = field(default_factory=list)

    def add(self, measurements: Sequence[Measurement]) -> None:
        """Take over what a child has measured."""
        self.measurements += measurements

    def states(self) -> list[str]:
        """Return the states in the order in which they were first measured."""
        return list(dict.fromkeys(measurement.state for measurement in self.measurements))

    def rows(self, state: str) -> list[str]:
        """Return the libraries that were measured on a state; ckptfmt first, then in the order of their names."""
        rows = {measurement.row for measurement in self.measurements if measurement.state == state} - {LIMIT_ROW}
        return sorted(rows, key=lambda row: (not row.startswith(OURS), row.lower()))

    def seconds(self, state: str, case: str, row: str) -> list[float]:
        """Return every time of one case, in order of measurement."""
        return [found.seconds for found in self._found(state, case, row) if found.seconds is not None]

    def median(self, state: str, case: str, row: str) -> float | None:
        """Return the median time, None where nothing was measured."""
        values = self.seconds(state, case, row)
        return median(values) if values else None

    def fact(self, state: str, case: str, row: str, name: str) -> float | None:
        """Return the median of a number of bytes that was measured beside the time."""
        values = [found.facts[name] for found in self._found(state, case, row) if name in found.facts]
        return median(values) if values else None

    def best_peer(self, state: str, case: str) -> tuple[str, float] | None:
        """Return the fastest other library and its median."""
        rows = [row for row in self.rows(state) if not row.startswith(OURS)]
        medians = [(value, row) for row in rows if (value := self.median(state, case, row)) is not None]
        return (min(medians)[1], min(medians)[0]) if medians else None

    def errors(self) -> list[Measurement]:
        """Return what could not be measured."""
        return [found for found in self.measurements if found.error is not None]

    def _found(self, state: str, case: str, row: str) -> list[Measurement]:
        return [found for found in self.measurements if (found.state, found.case, found.row) == (state, case, row)]

    def write(self, path: Path) -> None:
        """Keep everything as JSON."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "settings": self.settings,
            "machine": self.machine,
            "measurements": [asdict(measurement) for measurement in self.measurements],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def read_results(path: Path) -> Results:
    """Read what `Results.write` kept."""
    document = json.loads(path.read_text("utf-8"))
    if document.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(f"{path}: schema_version: expected {SCHEMA_VERSION}, found {document.get('schema_version')!r}")
    return Results(document["settings"], document["machine"], [Measurement(**found) for found in document["measurements"]])
