"""Measuring in a process of its own: the parent sends one job as JSON, the child answers with a line of JSON for each measurement.

A fresh process for each library keeps one's threads, caches and memory out of another's figures. A child that dies
leaves what it has said so far and one measurement with its error, so that nothing is hidden.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class Job:
    """What one child measures: `subject` is a peer's name, `limits`, `startup` or `progress`. `cases` are all if empty.

    `size_bytes` is that of the state and `one_bytes` that of the tensor which is read alone; the limits need no more of it.
    """

    subject: str
    state: str
    scale: float
    directory: str
    size_bytes: int = 0
    one_bytes: int = 0
    repeats: int = 1
    cases: tuple[str, ...] = ()

    def wants(self, case: str) -> bool:
        """Tell whether a case is to be measured."""
        return not self.cases or case in self.cases


@dataclass(frozen=True)
class Measurement:
    """One measured call. `row` is the library, with what was added to the call; `facts` are bytes of one kind or another."""

    state: str
    case: str
    row: str
    seconds: float | None
    facts: dict[str, int] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Timing:
    """What a timed call took and gave. `extra_bytes` is the peak of memory above what there was before."""

    seconds: float
    value: Any
    extra_bytes: int | None


def timed(call: Callable[[], Any], *, preheat_bytes: int = 0) -> Timing:
    """Call once, on warm memory."""
    machine.preheat(preheat_bytes)
    before_bytes = machine.resident_bytes()
    machine.reset_peak()
    started = time.perf_counter()
    value = call()
    seconds = time.perf_counter() - started
    peak_bytes = machine.peak_bytes()
    return Timing(seconds, value, None if peak_bytes is None else max(0, peak_bytes - before_bytes))


def run_child(job: Job) -> list[Measurement]:
    """Run one job in a fresh process and return what it measured."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tools")))}
    command = [sys.executable, "-m", "benchmarks.child"]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            input=json.dumps(asdict(job)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Measurement(job.state, "all", job.subject, None, error=f"took longer than {TIMEOUT_SECONDS} seconds")]
    found = [Measurement(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        found.append(Measurement(job.state, "all", job.subject, None, error=f"exit status {done.returncode}: {last[:200]}"))
    return found
