"""The child process: one job from standard input, one line of JSON for each measurement to standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks import limits, progress, startup
from benchmarks.measure import Job, Measurement


def main() -> int:
    """Do what the parent asks."""
    job = Job(**json.load(sys.stdin))
    # Libraries print what they like; the protocol keeps the original descriptor to itself.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for measurement in measure(job):
        lines.write(json.dumps(asdict(measurement)) + "\n")
        lines.flush()
    return 0


def measure(job: Job) -> Iterator[Measurement]:
    """Yield the measurements of a job."""
    directory = Path(job.directory)
    if job.subject == "limits":
        yield from limits.measure(job, directory)
    elif job.subject == "startup":
        yield from startup.measure(job, directory)
    elif job.subject == progress.SUBJECT:
        yield from progress.measure(job, directory)
    else:
        # Imported here, because the limits need no torch, which takes longer to import than they take to measure.
        from benchmarks import cases
        from benchmarks.peers.interface import find

        yield from cases.PeerCases(find(job.subject), job, directory).measure()


if __name__ == "__main__":
    sys.exit(main())
