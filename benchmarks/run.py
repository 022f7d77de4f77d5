"""Measure ckptfmt beside other libraries and beside the machine's limits: `make bench`, or `python -m benchmarks.run`.

Rounds of fresh processes, one for each library and state, in an order that rotates, so that no library always comes after
the same other one. Needs at most 8 GB of disk and 8 GB of memory.

    python -m benchmarks.run --quick                    three minutes, smaller states, nothing is published
    python -m benchmarks.run                            about an hour; writes benchmarks/results and benchmarks/README.md
    python -m benchmarks.run --states 50k --peers torch_save --rounds 3

What was measured is kept after each process: the same command, called again after it was cut short, goes on where it was. It begins
anew if the code has changed since, or with --anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from blake3 import blake3

from benchmarks import machine, startup, states
from benchmarks.measure import ROOT, Job, Measurement, run_child
from benchmarks.peers.interface import NAMES, find
from benchmarks.publish import README, publish
from benchmarks.report import report
from benchmarks.results import Results, read_results

FULL_ROUNDS, QUICK_ROUNDS, QUICK_REPEATS = 5, 1, 2
QUICK_SCALES = {"2GB": 0.1, "50k": 0.2, "one": 0.1, "45MB": 1.0}
NEEDED_BYTES = 8_000_000_000
LIMITS = "limits"
UNFINISHED = "unfinished.json"
DONE = "done"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the report, keep it. Returns 0, or 2 where measuring is not possible."""
    options = _parse(arguments)
    scratch_parent = Path(options.scratch)
    scratch_parent.mkdir(parents=True, exist_ok=True)
    needed_bytes = round(NEEDED_BYTES * max(options.scales.values()))
    if (free := shutil.disk_usage(scratch_parent).free) < needed_bytes or machine.free_memory_bytes() < needed_bytes:
        _say(f"needed: {needed_bytes:,} bytes of disk and as much memory; free: {free:,} and {machine.free_memory_bytes():,}")
        return 2
    scratch = Path(mkdtemp(prefix="run-", dir=scratch_parent))
    started = time.perf_counter()
    try:
        results = _measure(options, scratch, Path(options.results) / UNFINISHED)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(scratch_parent)
    results.settings["took_seconds"] = round(time.perf_counter() - started)
    del results.settings[DONE]
    publish(results, Path(options.results), readme=README if options.is_published else None)
    (Path(options.results) / UNFINISHED).unlink()
    print(report(results))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure ckptfmt beside its peers and its limits.")
    parser.add_argument("--quick", action="store_true", help="smaller states and one round; under three minutes")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default {FULL_ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument(
        "--scale", type=float, metavar="X", help="bytes of each state, times this; default 1, with --quick 0.1, 0.2, 0.1, 1"
    )
    parser.add_argument("--states", type=_names(states.STATES), metavar="A,B", default=tuple(states.STATES), help=", ".join(states.STATES))
    parser.add_argument("--peers", type=_names(NAMES), metavar="A,B", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--anew", action="store_true", help="forget what an earlier call has measured before it was cut short")
    parser.add_argument("--scratch", default=str(ROOT / "build" / "bench"), metavar="DIR", help="deleted afterwards; default build/bench")
    parser.add_argument("--results", metavar="DIR", help="default benchmarks/results, or build/bench-quick where that would mislead")
    options = parser.parse_args(arguments)
    is_whole = not options.quick and options.scale is None and options.states == tuple(states.STATES) and options.peers == NAMES
    options.is_published = is_whole and options.results is None
    options.results = options.results or str(ROOT / ("benchmarks/results" if is_whole else "build/bench-quick"))
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else FULL_ROUNDS)
    options.repeats = QUICK_REPEATS if options.quick else 1
    options.scales = {state: options.scale or (QUICK_SCALES[state] if options.quick else 1.0) for state in options.states}
    return options


def _names(known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are: {', '.join(known)}")
        return names

    return parse


def _measure(options: argparse.Namespace, scratch: Path, unfinished: Path) -> Results:
    available = [name for name in options.peers if machine.is_importable(find(name).module)]
    sizes = {state: states.sizes(state, scale=scale) for state, scale in options.scales.items()}
    settings = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "rounds": options.rounds,
        "repeats": options.repeats,
        "scales": options.scales,
        "tensor_bytes": {state: size_bytes for state, (size_bytes, _) in sizes.items()},
        "left_out": [name for name in options.peers if name not in available],
        "code": _digest_of_code(),
        DONE: [],
    }
    results = Results(settings, machine.facts(scratch))
    earlier = None if options.anew else _find_unfinished(unfinished)
    if earlier is not None and _conditions(earlier) == _conditions(results):
        results = earlier
        _say(f"{unfinished}: goes on after {len(earlier.settings[DONE])} processes")
    jobs = [
        (round_number, Job(subject, state, scale, str(scratch), *sizes[state], repeats=options.repeats))
        for round_number in range(options.rounds)
        for state, scale in options.scales.items()
        for subject in _in_turn([LIMITS, *(name for name in available if state in find(name).states)], round_number)
    ]
    starts = [(number, Job("startup", startup.STATE, options.scale or 1.0, str(scratch), repeats=2)) for number in range(options.rounds)]
    for round_number, job in sorted([*jobs, *starts], key=itemgetter(0)):
        key = [round_number, job.state, job.subject]
        if key not in results.settings[DONE]:
            _say(f"round {round_number + 1} of {options.rounds}: {job.state}: {job.subject}")
            results.add(_run(job, scratch))
            results.settings[DONE].append(key)
            results.write(unfinished)
    return results


def _in_turn(subjects: list[str], round_number: int) -> list[str]:
    turn = round_number % len(subjects)
    return subjects[turn:] + subjects[:turn]


def _find_unfinished(path: Path) -> Results | None:
    try:
        return read_results(path)
    except (FileNotFoundError, ValueError, KeyError):
        return None


def _conditions(results: Results) -> list[Any]:
    """Return what must be the same for figures to stand in one table; a night may lie between them."""
    settings = {name: value for name, value in results.settings.items() if name not in (DONE, "date")}
    conditions: list[Any] = json.loads(json.dumps([settings, results.machine]))
    return conditions


def _digest_of_code() -> str:
    digest = blake3()
    for file in sorted([*(ROOT / "ckptfmt").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _run(job: Job, scratch: Path) -> list[Measurement]:
    found = run_child(job)
    for left in scratch.iterdir():
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
    return found


def _remove_empty(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        # Somebody else's files are in it.
        return


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
