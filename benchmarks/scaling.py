"""What size costs: time against the bytes of a state, the number of its tensors, and the steps of a run.

    python -m benchmarks.scaling --quick        small sizes only
    python -m benchmarks.scaling                10 MB to 8 GB, 10 to 1,000,000 tensors, 10 to 10,000 steps
    python -m benchmarks.scaling --only steps   one of them, nothing is published

The whole needs 9 GB of disk and 18 GB of memory.
A size that the machine has no room for is left out and named. torch.save is measured beside ckptfmt as long as it takes
less than minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy

import ckptfmt
from benchmarks import cases, machine
from benchmarks.chart import Line, Plot, line_chart
from benchmarks.measure import ROOT, Job, Measurement, run_child
from benchmarks.publish import README, replace_between
from benchmarks.results import Results
from benchmarks.tables import duration, table

TENSOR_BYTES = 4 * 2**20
SMALL_TENSOR_BYTES = 256
SIZES = (10_000_000, 30_000_000, 100_000_000, 300_000_000, 1_000_000_000, 3_000_000_000, 8_000_000_000)
COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
STEP_COUNTS = (10, 100, 1_000, 10_000)
QUICK_SIZES, QUICK_COUNTS, QUICK_STEP_COUNTS = SIZES[:3], COUNTS[:4], STEP_COUNTS[:3]
SUBJECTS = ("size", "tensors", "steps")
MAX_PEER_COUNT = 100_000
PEERS = ("ckptfmt", "torch_save")
CASES = (cases.DURABLE_SAVE, cases.WARM_LOAD)
RUN_SAVE, RUN_RESTORE, RUN_LIST = "Run.save of one more", "open and restore the latest", "open and list all"
RUN_CASES = (RUN_SAVE, RUN_RESTORE, RUN_LIST)
MAX_GROWTH = 1.25
CHART_NAME = "scaling.svg"
_COLORS = {
    ("ckptfmt", cases.DURABLE_SAVE): "#2563eb",
    ("ckptfmt", cases.WARM_LOAD): "#0891b2",
    ("torch", cases.DURABLE_SAVE): "#9ca3af",
    ("torch", cases.WARM_LOAD): "#6b7280",
    ("ckptfmt", RUN_SAVE): "#2563eb",
    ("ckptfmt", RUN_RESTORE): "#0891b2",
    ("ckptfmt", RUN_LIST): "#7c3aed",
}


@dataclass(frozen=True)
class Step:
    """One state of equal tensors."""

    tensor_count: int
    tensor_bytes: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.tensor_count * self.tensor_bytes

    @property
    def state(self) -> str:
        """The name by which states.build makes it."""
        return f"uniform:{self.tensor_count}x{self.tensor_bytes}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, keep them with a chart."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description="Measure cost against size and number of tensors.")
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing is published")
    parser.add_argument("--only", choices=SUBJECTS, help="one of them, nothing is published")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--scratch", default=str(ROOT / "build" / "bench"), metavar="DIR", help="deleted afterwards; default build/bench")
    parser.add_argument("--results", metavar="DIR", help="default benchmarks/results, with --quick build/bench-quick")
    options = parser.parse_args(arguments)
    wanted = SUBJECTS if options.only is None else (options.only,)
    by_size = [Step(max(1, round(size / TENSOR_BYTES)), TENSOR_BYTES) for size in (QUICK_SIZES if options.quick else SIZES)]
    by_count = [Step(count, SMALL_TENSOR_BYTES) for count in (QUICK_COUNTS if options.quick else COUNTS)]
    by_size, by_count = (by_size if "size" in wanted else []), (by_count if "tensors" in wanted else [])
    runs = (QUICK_STEP_COUNTS if options.quick else STEP_COUNTS) if "steps" in wanted else ()
    parent = Path(options.scratch)
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix="scaling-", dir=parent))
    try:
        results = Results({"repeats": options.repeats}, machine.facts(scratch))
        left_out = [step for step in (*by_size, *by_count) if not _measure(step, results, scratch, options.repeats)]
        _measure_runs(runs, results, scratch / "run", options.repeats)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    lines = {
        ("Time against size", "MB"): _lines(by_size, results, lambda step: step.size_bytes / 1e6),
        ("Time against the number of tensors", "tensors"): _lines(by_count, results, lambda step: float(step.tensor_count)),
        ("Time against the steps of a run", "steps"): _run_lines(runs, results),
    }
    text = "\n\n".join(
        [*_tables(by_size, by_count, runs, results, left_out), _growth([line for found in lines.values() for line in found])]
    )
    is_published = not options.quick and options.only is None and options.results is None
    directory = Path(options.results or ROOT / ("benchmarks/results" if is_published else "build/bench-quick"))
    results.write(directory / "scaling.json")
    plots = [Plot(title, unit, "s", found) for (title, unit), found in lines.items() if found]
    (directory / CHART_NAME).write_text(line_chart(plots), "utf-8")
    if is_published:
        replace_between(README, "scaling", text)
    print(text)
    return 0


def _measure_runs(counts: Sequence[int], results: Results, path: Path, repeats: int) -> None:
    """Let a run grow, and measure it when it has so many steps; nothing is synced, so that the disk is no part of it."""
    state = {"model": {"weight": numpy.arange(64.0)}}
    done = 0
    for count in counts:
        with ckptfmt.Run(path, durable=False) as run:
            for step in range(done, count):
                run.save(step, state, metrics={"loss": 1 / (step + 1)})
            done = count
            found: dict[str, list[float]] = {RUN_SAVE: [_seconds(lambda: _save_next(run, state)) for _ in range(max(7, repeats))]}
            done += len(found[RUN_SAVE])
        found[RUN_RESTORE] = [_seconds(lambda: ckptfmt.Run(path).restore()) for _ in range(repeats)]
        found[RUN_LIST] = [_seconds(lambda: ckptfmt.Run(path).all_steps()) for _ in range(repeats)]
        for case, times in found.items():
            results.add([Measurement(f"steps:{count}", case, "ckptfmt", seconds) for seconds in times])


def _save_next(run: ckptfmt.Run, state: dict[str, Any]) -> None:
    run.save((run.latest_step() or 0) + 1, state, metrics={"loss": 0.0})


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _measure(step: Step, results: Results, scratch: Path, repeats: int) -> bool:
    """Measure one state with each library; tell whether the machine has room for it."""
    needed_bytes = step.size_bytes + step.tensor_count * 4_000 + 2**28
    if shutil.disk_usage(scratch).free < needed_bytes or machine.free_memory_bytes() < needed_bytes:
        return False
    for peer in PEERS:
        if peer == "ckptfmt" or step.tensor_count <= MAX_PEER_COUNT:
            print(f"{step.state}: {peer}", file=sys.stderr, flush=True)
            results.add(run_child(Job(peer, step.state, 1.0, str(scratch), repeats=repeats, cases=CASES)))
            for left in scratch.iterdir():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
    return True


def _tables(
    by_size: Sequence[Step], by_count: Sequence[Step], runs: Sequence[int], results: Results, left_out: Sequence[Step]
) -> Iterator[str]:
    columns = [(row, case) for case in CASES for row in ("ckptfmt", "torch")]
    headings = [f"{row}, {case}" for row, case in columns]
    for title, steps in ((f"tensors of {TENSOR_BYTES // 2**20} MiB", by_size), (f"tensors of {SMALL_TENSOR_BYTES} bytes", by_count)):
        rows = []
        for step in steps:
            medians = [results.median(step.state, case, row) for row, case in columns]
            rows.append([f"{step.tensor_count:,}, {step.size_bytes / 1e6:,.2f} MB", *map(duration, medians)])
        if rows:
            yield table([title, *headings], rows)
    if runs:
        rows = [[f"{count:,}", *(duration(results.median(f"steps:{count}", case, "ckptfmt")) for case in RUN_CASES)] for count in runs]
        yield table(["steps in a run", *RUN_CASES], rows)
    if left_out:
        yield "No room for: " + ", ".join(f"{step.size_bytes / 1e9:.1f} GB in {step.tensor_count:,} tensors" for step in left_out)
    if errors := {f"- {found.state}, {found.case}, {found.row}: {found.error}" for found in results.errors()}:
        yield "\n".join(sorted(errors))


def _growth(lines: Sequence[Line]) -> str:
    """Say where ckptfmt's time grows faster than its input from one point to the next."""
    found = []
    for line in lines:
        for (x, y), (next_x, next_y) in pairwise(line.points):
            if line.label.startswith("ckptfmt") and next_y / y > MAX_GROWTH * next_x / x:
                found.append(
                    f"{line.label} from {x:,.10g} to {next_x:,.10g}: {next_x / x:.1f} times the input, {next_y / y:.1f} times the time"
                )
    return f"Grows faster than its input (by more than {MAX_GROWTH - 1:.0%}): {'; '.join(found) or 'nothing'}."


def _lines(steps: Sequence[Step], results: Results, x_of: Callable[[Step], float]) -> list[Line]:
    lines = []
    for (row, case), color in _COLORS.items():
        points = [(x_of(step), median) for step in steps if (median := results.median(step.state, case, row))]
        if points:
            lines.append(Line(f"{row}, {case}", points, color))
    return lines


def _run_lines(runs: Sequence[int], results: Results) -> list[Line]:
    lines = []
    for case in RUN_CASES:
        points = [(float(count), median) for count in runs if (median := results.median(f"steps:{count}", case, "ckptfmt"))]
        if points:
            lines.append(Line(f"ckptfmt, {case}", points, _COLORS["ckptfmt", case]))
    return lines


if __name__ == "__main__":
    sys.exit(main())
