"""What size costs: time against the bytes of a state, and against the number of its tensors.

    python -m benchmarks.scaling --quick        small sizes only
    python -m benchmarks.scaling                10 MB to 8 GB, 10 to 1,000,000 tensors; needs 9 GB of disk and 10 GB of memory

A size that the machine has no room for is left out and named. torch.save is measured beside ckptfmt as long as it takes
less than minutes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

from benchmarks import cases, machine
from benchmarks.chart import Line, Plot, line_chart
from benchmarks.measure import ROOT, Job, run_child
from benchmarks.publish import README, replace_between
from benchmarks.results import Results
from benchmarks.tables import duration, table

TENSOR_BYTES = 4 * 2**20
SMALL_TENSOR_BYTES = 256
SIZES = (10_000_000, 30_000_000, 100_000_000, 300_000_000, 1_000_000_000, 3_000_000_000, 8_000_000_000)
COUNTS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES, QUICK_COUNTS = SIZES[:3], COUNTS[:4]
MAX_PEER_COUNT = 100_000
PEERS = ("ckptfmt", "torch_save")
CASES = (cases.DURABLE_SAVE, cases.WARM_LOAD)
CHART_NAME = "scaling.svg"
_COLORS = {
    ("ckptfmt", cases.DURABLE_SAVE): "#2563eb",
    ("ckptfmt", cases.WARM_LOAD): "#0891b2",
    ("torch", cases.DURABLE_SAVE): "#9ca3af",
    ("torch", cases.WARM_LOAD): "#6b7280",
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
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="default 3")
    parser.add_argument("--scratch", default=str(ROOT / "build" / "bench"), metavar="DIR", help="deleted afterwards; default build/bench")
    parser.add_argument("--results", metavar="DIR", help="default benchmarks/results, with --quick build/bench-quick")
    options = parser.parse_args(arguments)
    by_size = [Step(max(1, round(size / TENSOR_BYTES)), TENSOR_BYTES) for size in (QUICK_SIZES if options.quick else SIZES)]
    by_count = [Step(count, SMALL_TENSOR_BYTES) for count in (QUICK_COUNTS if options.quick else COUNTS)]
    parent = Path(options.scratch)
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix="scaling-", dir=parent))
    try:
        results = Results({"repeats": options.repeats}, machine.facts(scratch))
        left_out = [step for step in (*by_size, *by_count) if not _measure(step, results, scratch, options.repeats)]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = _text(by_size, by_count, results, left_out)
    directory = Path(options.results or ROOT / ("build/bench-quick" if options.quick else "benchmarks/results"))
    results.write(directory / "scaling.json")
    (directory / CHART_NAME).write_text(line_chart(_plots(by_size, by_count, results)), "utf-8")
    if not options.quick and options.results is None:
        replace_between(README, "scaling", text)
    print(text)
    return 0


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


def _text(by_size: Sequence[Step], by_count: Sequence[Step], results: Results, left_out: Sequence[Step]) -> str:
    columns = [(row, case) for case in CASES for row in ("ckptfmt", "torch")]
    headings = [f"{row}, {case}" for row, case in columns]
    parts = []
    for title, steps in ((f"tensors of {TENSOR_BYTES // 2**20} MiB", by_size), (f"tensors of {SMALL_TENSOR_BYTES} bytes", by_count)):
        rows = []
        for step in steps:
            medians = [results.median(step.state, case, row) for row, case in columns]
            rows.append([f"{step.tensor_count:,}, {step.size_bytes / 1e6:,.2f} MB", *map(duration, medians)])
        parts.append(table([title, *headings], rows))
    if left_out:
        parts.append("No room for: " + ", ".join(f"{step.size_bytes / 1e9:.1f} GB in {step.tensor_count:,} tensors" for step in left_out))
    errors = {f"- {found.state}, {found.case}, {found.row}: {found.error}" for found in results.errors()}
    return "\n\n".join([*parts, *(["\n".join(sorted(errors))] if errors else [])])


def _plots(by_size: Sequence[Step], by_count: Sequence[Step], results: Results) -> list[Plot]:
    return [
        Plot("Time against size", "MB", "s", _lines(by_size, results, lambda step: step.size_bytes / 1e6)),
        Plot("Time against the number of tensors", "tensors", "s", _lines(by_count, results, lambda step: float(step.tensor_count))),
    ]


def _lines(steps: Sequence[Step], results: Results, x_of: Callable[[Step], float]) -> list[Line]:
    lines = []
    for (row, case), color in _COLORS.items():
        points = [(x_of(step), median) for step in steps if (median := results.median(step.state, case, row))]
        if points:
            lines.append(Line(f"{row}, {case}", points, color))
    return lines


if __name__ == "__main__":
    sys.exit(main())
