"""A million units: opening takes seconds, and recording one more costs what it cost at the beginning."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import ckptfmt
from ckptfmt.disk.local import LocalDisk
from ckptfmt.run.journal import Journal
from ckptfmt.run.progress_records import Content, encode_content


def write_units(path: Path, count: int) -> None:
    with Journal.open_for_append(LocalDisk(), str(path), flush_every=100_000) as journal:
        for key in range(count):
            content = Content({"text": f"answer {key}"}, (), {"tokens": key % 100, "latency": 0.5})
            journal.append(["done", key, 1.7e9 + key * 0.01, encode_content(content)])


def seconds_per_unit(progress: ckptfmt.Progress, first: int, count: int) -> float:
    begun = time.process_time()
    for key in progress.pending(range(first, first + count)):
        progress.done(key, {"text": "answer"}, {"tokens": 1, "latency": 0.5})
    return (time.process_time() - begun) / count


def check_scale(path: Path, count: int, *, open_seconds: float) -> None:
    with ckptfmt.Run(path / "small") as small, ckptfmt.Run(path / "large") as large:
        first = small.progress("units", flush_every=100)
        seconds_per_unit(first, 0, 1000)
        write_units(path / "large/progress/units/writers/0123456789abcdef", count)
        begun = time.process_time()
        progress = large.progress("units", flush_every=100)
        # Processor time, because the machine may have other work.
        opened_seconds = time.process_time() - begun
        assert opened_seconds < open_seconds
        assert progress.completed == count
        assert next(progress.pending(range(count + 5))) == count
        costs = [(seconds_per_unit(first, 1000 * turn, 500), seconds_per_unit(progress, count + 1000 * turn, 500)) for turn in range(1, 4)]
        print(f"opening {count:,}: {opened_seconds:.2f} s; microseconds per unit: {[[int(one * 1e6) for one in pair] for pair in costs]}")
        assert min(after for _, after in costs) < 2.5 * min(before for before, _ in costs) + 1e-5


def test_recording_costs_the_same_after_many_units(tmp_path: Path) -> None:
    check_scale(tmp_path, 20_000, open_seconds=1.5)


@pytest.mark.slow
def test_a_million_units_open_in_three_seconds_and_recording_costs_the_same(tmp_path: Path) -> None:
    check_scale(tmp_path, 1_000_000, open_seconds=3.0)
