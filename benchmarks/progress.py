"""What recording a finished unit costs, from the thousandth to the millionth, and what a long journal and a long study cost to open.

    python -m benchmarks.progress --quick      to 100,000 units and 500 trials; a minute
    python -m benchmarks.progress              to 1,000,000 units and 5,000 trials; ten minutes, 1 GB of disk and 3 GB of memory

Beside it stands what many programs do: to pickle all results anew after every unit. That is timed as single rewrites (write, fsync, rename)
of as many results as there are; nobody waits for a million of them.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import mkdtemp

from benchmarks import machine
from benchmarks.measure import ROOT, Job, Measurement, run_child, timed
from benchmarks.publish import README, replace_between
from benchmarks.results import OURS, Results
from benchmarks.tables import MISSING, digits, duration, megabytes, table

SUBJECT, PICKLE = "progress", "pickle of everything"
SIZES = (1_000, 10_000, 100_000, 1_000_000)
TRIALS, QUICK_TRIALS = 5_000, 500
FLUSH_EVERY = 100
_WINDOW_UNITS, _WINDOWS = 500, 10

RECORD, PROCESSOR, OPEN, PLAIN = "one unit", "one unit, processor", "open", "the same results in a dict"
MEMORY, DISK = "memory", "disk"
STUDY_IN_MEMORY, STUDY_KEPT, STUDY_DURABLE, STUDY_RESUMED = "trial, Optuna in memory", "trial, kept", "trial, kept with fsync", "resume"


def measure(job: Job, directory: Path) -> Iterator[Measurement]:
    """Measure what `job.state` names: `units:N` recorded one after the other, `open:N`, `pickle:N` or `study:N`."""
    kind, _, count = job.state.partition(":")
    yield from {"units": _units, "open": _open, "pickle": _pickle, "study": _study}[kind](int(count), directory)


def _result(key: int) -> dict[str, str]:
    return {"text": f"answer {key}"}


def _metrics(key: int) -> dict[str, float]:
    return {"tokens": key % 100, "latency": 0.5}


def _units(total: int, directory: Path) -> Iterator[Measurement]:
    """Record so many units, and look at the cost of one after 1,000, 10,000 and so on."""
    import ckptfmt

    with ckptfmt.Run(directory / "run") as run, run.progress("units", flush_every=FLUSH_EVERY) as progress:
        pending = progress.pending(range(total + _WINDOW_UNITS * _WINDOWS))
        done, started = 0, time.perf_counter()
        for size in [size for size in SIZES if size <= total]:
            done += _record(progress, pending, size - done)
            seconds, processor_seconds = [], []
            for _ in range(_WINDOWS):
                begun, begun_processor = time.perf_counter(), time.process_time()
                done += _record(progress, pending, _WINDOW_UNITS)
                seconds.append((time.perf_counter() - begun) / _WINDOW_UNITS)
                processor_seconds.append((time.process_time() - begun_processor) / _WINDOW_UNITS)
            yield Measurement(f"units:{size}", RECORD, OURS, median(seconds))
            yield Measurement(f"units:{size}", PROCESSOR, OURS, median(processor_seconds))
        yield Measurement("units", "each of all", OURS, (time.perf_counter() - started) / done)


def _record(progress: object, pending: object, count: int) -> int:
    for _ in range(count):
        key = next(pending)  # type: ignore[call-overload]
        progress.done(key, _result(key), _metrics(key))  # type: ignore[attr-defined]
    return count


def _open(count: int, directory: Path) -> Iterator[Measurement]:
    """Open a journal of so many units in a fresh process, and then build what is in it as a plain dict."""
    import ckptfmt

    run = ckptfmt.Run(directory / "run")
    # What is imported and paid for by any progress.
    run.progress("another")
    begun = time.process_time()
    timing = timed(lambda: run.progress("units"))
    processor_seconds = time.process_time() - begun
    progress = timing.value
    gc.collect()
    facts = {DISK: machine.size_on_disk(directory / "run/progress/units")}
    if progress.completed < count:
        yield Measurement(f"units:{count}", OPEN, OURS, None, error=f"{progress.completed:,} units were found")
        return
    before = machine.resident_bytes()
    plain = timed(lambda: {key: (_result(key), _metrics(key)) for key in range(progress.completed)})
    plain_bytes = machine.resident_bytes() - before
    yield Measurement(f"units:{count}", OPEN, OURS, timing.seconds, {**facts, MEMORY: timing.extra_bytes or 0})
    yield Measurement(f"units:{count}", f"{OPEN}, processor", OURS, processor_seconds)
    yield Measurement(f"units:{count}", PLAIN, OURS, plain.seconds, {MEMORY: plain_bytes})


def _pickle(count: int, directory: Path) -> Iterator[Measurement]:
    results = {key: (_result(key), _metrics(key)) for key in range(count)}
    path = directory / "results.pickle"

    def rewrite() -> None:
        with open(path.with_suffix(".new"), "wb") as file:
            pickle.dump(results, file, protocol=pickle.HIGHEST_PROTOCOL)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path.with_suffix(".new"), path)

    for _ in range(5 if count <= 10_000 else 3):
        yield Measurement(f"units:{count}", RECORD, PICKLE, timed(rewrite).seconds)


def _study(count: int, directory: Path) -> Iterator[Measurement]:
    """A random search with five parameters: what a trial costs on top of Optuna's own in memory, and how long a resume takes."""
    import optuna

    import ckptfmt

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        return sum(float(trial.suggest_float(f"x{index}", 0, 1)) for index in range(5))

    sampler = optuna.samplers.RandomSampler
    runs = {STUDY_KEPT: ckptfmt.Run(directory / "kept", durable=False), STUDY_DURABLE: ckptfmt.Run(directory / "durable")}
    studies = {case: run.study("s", sampler=sampler(seed=1)) for case, run in runs.items()}
    studies = {STUDY_IN_MEMORY: optuna.create_study(sampler=sampler(seed=1)), **studies}
    # In turns, because the machine may have other work.
    for part in range(1, _WINDOWS + 1):
        for case, study in studies.items():
            more = count // _WINDOWS
            begun, begun_processor = time.perf_counter(), time.process_time()
            if case == STUDY_IN_MEMORY:
                study.optimize(objective, n_trials=more)
            else:
                ckptfmt.optimize(study, objective, n_trials=part * more)
            seconds, processor_seconds = time.perf_counter() - begun, time.process_time() - begun_processor
            yield Measurement(f"study:{count}", case, OURS, seconds / more)
            yield Measurement(f"study:{count}", f"{case}, processor", OURS, processor_seconds / more)
    for run in runs.values():
        run.close()
    for _ in range(3):
        with ckptfmt.Run(directory / "durable") as run:
            timing = timed(lambda run=run: run.study("s", sampler=sampler()).get_trials(deepcopy=False))
            yield Measurement(f"study:{count}", STUDY_RESUMED, OURS, timing.seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, keep them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.progress", description="Measure units of work and studies.")
    parser.add_argument("--quick", action="store_true", help="to 100,000 units and 500 trials; nothing is published")
    parser.add_argument("--units", type=int, metavar="N", help="default 1000000, with --quick 100000")
    parser.add_argument("--scratch", default=str(ROOT / "build" / "bench"), metavar="DIR", help="deleted afterwards; default build/bench")
    parser.add_argument("--results", metavar="DIR", help="default benchmarks/results, with --quick build/bench-quick")
    options = parser.parse_args(arguments)
    total, trials = options.units or (SIZES[-2] if options.quick else SIZES[-1]), QUICK_TRIALS if options.quick else TRIALS
    sizes = [size for size in SIZES if size <= total]
    parent = Path(options.scratch)
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(mkdtemp(prefix="progress-", dir=parent))
    try:
        results = Results({"units": total, "trials": trials}, machine.facts(scratch))
        jobs = [f"units:{total}", f"open:{sizes[-1]}", *(f"pickle:{size}" for size in sizes), f"study:{trials}"]
        for state in jobs:
            print(state, file=sys.stderr, flush=True)
            results.add(run_child(Job(SUBJECT, state, 1.0, str(scratch))))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    text = report(results, sizes, trials)
    results.write(Path(options.results or ROOT / ("build/bench-quick" if options.quick else "benchmarks/results")) / "progress.json")
    if not options.quick and options.results is None:
        replace_between(README, "progress", text)
    print(text)
    return 0


def report(results: Results, sizes: Sequence[int], trials: int) -> str:
    """Return the figures and the goals as Markdown."""
    rows = []
    for size in sizes:
        state = f"units:{size}"
        ours, theirs = (results.median(state, RECORD, row) for row in (OURS, PICKLE))
        ratio = digits(theirs / ours) if ours and theirs else MISSING
        rows.append([f"{size:,}", _short(ours), _short(results.median(state, PROCESSOR, OURS)), _short(theirs), ratio])
    headings = ["units so far", "one unit", "of it processor", "one pickle of everything, fsynced", "times as fast"]
    study = []
    for case in (STUDY_IN_MEMORY, STUDY_KEPT, STUDY_DURABLE, STUDY_RESUMED):
        study.append([case, *(_short(results.median(f"study:{trials}", name, OURS)) for name in (case, f"{case}, processor"))])
    last = f"units:{sizes[-1]}"
    times = [_short(results.median(last, case, OURS)) for case in (OPEN, f"{OPEN}, processor")]
    facts = [megabytes(results.fact(last, case, OURS, fact)) for case, fact in ((OPEN, MEMORY), (PLAIN, MEMORY), (OPEN, DISK))]
    opened = table(
        ["opening", "", "of it processor", "memory, MB", "the same as a dict, MB", "disk, MB"], [[f"{sizes[-1]:,} units", *times, *facts]]
    )
    goals = [[goal, measured, outcome] for goal, measured, outcome in _goals(results, sizes[-1], trials)]
    parts = [
        table(headings, rows),
        opened,
        table([f"study of {trials:,} random trials", "", "of it processor"], study),
        table(["goal", "measured", ""], goals),
    ]
    errors = sorted({f"- {found.state}, {found.case}: {found.error}" for found in results.errors()})
    return "\n\n".join([*parts, *(["\n".join(errors)] if errors else [])])


def _short(seconds: float | None) -> str:
    return f"{digits(seconds * 1e6)} µs" if seconds is not None and seconds < 1e-3 else duration(seconds)


def _goals(results: Results, size: int, trials: int) -> Iterator[tuple[str, str, str]]:
    last, study = f"units:{size}", f"study:{trials}"
    first, cost = results.median(f"units:{SIZES[0]}", PROCESSOR, OURS), results.median(last, PROCESSOR, OURS)
    each, opened = results.median("units", "each of all", OURS), results.median(last, f"{OPEN}, processor", OURS)
    memory, plain = (results.fact(last, case, OURS, MEMORY) for case in (OPEN, PLAIN))
    more = [results.median(study, f"{case}, processor", OURS) for case in (STUDY_IN_MEMORY, STUDY_KEPT)]
    resumed = results.median(study, STUDY_RESUMED, OURS)
    added = more[1] - more[0] if more[0] is not None and more[1] is not None else None
    yield _goal(f"the processor time of a unit after {size:,}: at most 1.5 times that after 1,000", cost, first, 1.5, "times")
    yield _goal(f"durable units in a second, {FLUSH_EVERY} in a flush: at least 1,000", 1.0, each, 1_000, "", is_upper=False)
    yield _goal(f"opening {size:,} units, processor time: less than 3 s", opened, 1.0, 3, "s")
    yield _goal("memory of what is open: at most 3 times the results as a dict", memory, plain, 3, "times")
    yield _goal(f"resuming {trials:,} trials: less than 2 s", resumed, 1.0, 2, "s")
    yield _goal("what a trial costs on top of Optuna, processor time: less than 2 ms", added, 1e-3, 2, "ms")


def _goal(text: str, value: float | None, unit: float | None, limit: float, suffix: str, *, is_upper: bool = True) -> tuple[str, str, str]:
    if value is None or not unit:
        return text, "not measured", MISSING
    ratio = value / unit
    return text, f"{digits(ratio)} {suffix}".strip(), "met" if (ratio <= limit if is_upper else ratio >= limit) else "NOT MET"


if __name__ == "__main__":
    sys.exit(main())
