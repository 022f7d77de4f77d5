"""What checkpoints cost a training: a frozen backbone, saves beside a real training loop, many small saves, and looking at long runs.

    python -m benchmarks.training                           writes its tables into benchmarks/README.md
    python -m benchmarks.training --quick                   smaller and fewer, nothing is published
    python -m benchmarks.training --only "frozen backbone"

What is compared takes turns in one process. A save is durable where nothing else is said, and so is torch.save: the file and its
directory are fsynced. Only an otherwise idle machine tells anything: beside other work, trainings with saves have come out faster than
those without.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median, quantiles
from tempfile import mkdtemp
from typing import Any

import torch
from torch.nn import functional

import ckptfmt
from benchmarks import machine
from benchmarks.measure import ROOT
from benchmarks.publish import README, replace_between
from benchmarks.tables import digits, duration, table
from benchmarks.trained import BATCH, CONTEXT, RATE, ByteModel

BACKBONE_BYTES, HEAD_BYTES, TENSOR_BYTES = 500_000_000, 5_000_000, 5_000_000
SMALL_STATE_BYTES, RATE_HZ, KEPT = 1_000_000, 100, 10
LONG_RUN_STEPS, MANY_TENSORS = 1000, 50_000
MAX_WRITTEN, MIN_FROZEN_TIMES, MAX_OVERHEAD, MAX_INSPECT_SECONDS = 1.05, 10, 0.035, 0.4

Section = tuple[str, str]
"""A title, and what was measured as Markdown."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and publish what is whole."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description="Measure what checkpoints cost a training.")
    parser.add_argument("--quick", action="store_true", help="smaller and fewer, nothing is published")
    parser.add_argument("--only", choices=list(SUBJECTS), help="one subject, nothing is published")
    parser.add_argument("--scratch", default=str(ROOT / "build" / "bench"), metavar="DIR", help="deleted afterwards; default build/bench")
    options = parser.parse_args(arguments)
    parent = Path(options.scratch)
    parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for title, measure in SUBJECTS.items():
        if options.only in (None, title):
            scratch = Path(mkdtemp(prefix="training-", dir=parent))
            try:
                parts.append(f"### {title[0].upper()}{title[1:]}\n\n{measure(scratch, 0.1 if options.quick else 1.0)}")
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            print(parts[-1] + "\n", flush=True)
    if not options.quick and options.only is None:
        replace_between(README, "training", "\n\n".join(parts))
    return 0


def frozen_backbone(scratch: Path, scale: float) -> str:
    """Fine-tune a head on a frozen backbone: save after each change of the head, with and without saying what is frozen."""
    count = max(2, round(BACKBONE_BYTES * scale / TENSOR_BYTES))
    backbone = {f"layers.{index}": torch.randn(TENSOR_BYTES // 4) for index in range(count)}
    head = {f"head.{index}": torch.randn(HEAD_BYTES // 5 // 4) for index in range(5)}
    state = {"backbone": backbone, "head": head}
    head_bytes = sum(tensor.nbytes for tensor in head.values())
    seconds: dict[str, list[float]] = {}
    written: dict[str, list[float]] = {}
    with ckptfmt.Run(scratch / "plain", keep_last=2) as plain, ckptfmt.Run(scratch / "frozen", keep_last=2) as frozen:
        ways: dict[str, Callable[[int], int]] = {
            "Run.save": lambda step: plain.save(step, state).unique_bytes,
            'Run.save, frozen="backbone.*"': lambda step: (
                frozen.save(step, state, frozen="backbone.*").unique_bytes if step else _whole(frozen, state)
            ),
            "torch.save + fsync": lambda step: _torch_save(state, scratch / "whole.pt"),
        }
        for step in range(1 + max(3, round(7 * scale))):
            for tensor in head.values():
                tensor += 1
            for way, save in ways.items():
                started = time.perf_counter()
                size_bytes = save(step)
                # The first save of a run has nothing to stand on.
                if step:
                    seconds.setdefault(way, []).append(time.perf_counter() - started)
                    written.setdefault(way, []).append(size_bytes)
    rows = [[way, _spread(seconds[way]), f"{median(written[way]) / 1e6:,.2f}"] for way in ways]
    _, ours, theirs = (median(seconds[way]) for way in ways)
    allowed_bytes = MAX_WRITTEN * head_bytes + 1e6
    most_bytes = max(max(written[way]) for way in list(ways)[:2])
    goals = [
        _goal(f"bytes of a step: at most {MAX_WRITTEN} times the head and 1 MB", f"{most_bytes / 1e6:.2f} MB", most_bytes <= allowed_bytes),
        _goal(
            f"with frozen=: at least {MIN_FROZEN_TIMES} times as fast as torch.save",
            f"{theirs / ours:.1f} times",
            theirs >= MIN_FROZEN_TIMES * ours,
        ),
    ]
    hashing = median(seconds["Run.save"]) - ours
    frozen_bytes = sum(tensor.nbytes for tensor in backbone.values())
    about = f"{frozen_bytes / 1e6:,.0f} MB are frozen, {head_bytes / 1e6:.0f} MB change. Hashing what is frozen costs {duration(hashing)}."
    return "\n\n".join([about, table(["", "durable save", "written, MB"], rows), "\n".join(goals)])


def _whole(run: ckptfmt.Run, state: Any) -> int:
    return run.save(0, state).unique_bytes


def _torch_save(state: Any, path: Path) -> int:
    path.unlink(missing_ok=True)
    torch.save(state, path)
    machine.sync_files(path)
    return path.stat().st_size


def beside_training(scratch: Path, scale: float) -> str:
    """Train with and without asynchronous saves, in turns, with a core to spare and without."""
    cores = torch.get_num_threads()
    text = torch.randint(256, (2**20,), generator=torch.Generator().manual_seed(1))
    rows, goals = [], []
    try:
        for threads in sorted({1, cores}):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            model = ByteModel()
            optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, foreach=True)
            state = {"model": model, "optimizer": optimizer}
            with ckptfmt.Run(scratch / f"threads-{threads}", keep_last=1) as run:
                for step in range(2):
                    # Memory of the copy, and of the optimizer, is made before anything is timed.
                    _train(model, optimizer, text, 3)
                    run.async_save(step, state).result()
                found = _turns(model, optimizer, text, run, steps=max(4, round(50 * scale)), pairs=max(2, round(5 * scale)))
            left = "one core is left" if threads < cores else "no core is left"
            without, saving, stall = (median(column) for column in zip(*found, strict=True))
            overheads = sorted(with_save / bare - 1 for bare, with_save, _ in found)
            overhead = median(overheads)
            rows.append(
                [
                    f"{threads} of {cores} threads: {left}",
                    duration(without),
                    duration(saving),
                    duration(stall),
                    f"{overhead:.1%} ({overheads[0]:.1%}..{overheads[-1]:.1%})",
                ]
            )
            goals.append(
                _goal(
                    f"{left}: a save costs at most {MAX_OVERHEAD:.1%} of the time between saves",
                    f"{overhead:.1%}",
                    overhead <= MAX_OVERHEAD,
                )
            )
    finally:
        torch.set_num_threads(cores)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    about = (
        f"{parameters / 1e6:.1f} million parameters in fp32 with AdamW, {parameters * 12 / 1e6:,.0f} MB in a checkpoint; "
        "one durable `async_save` in each stretch, which ends when it is committed."
    )
    return "\n\n".join([about, table(["training on", "a stretch", "with one save", "stall", "overhead"], rows), "\n".join(goals)])


def _turns(model: Any, optimizer: Any, text: torch.Tensor, run: ckptfmt.Run, *, steps: int, pairs: int) -> list[tuple[float, float, float]]:
    """Return (seconds without, seconds with a save, seconds of its stall) of neighbouring stretches, in changing order."""
    found = []
    for pair in range(pairs):
        seconds = [0.0, 0.0, 0.0]
        for is_saving in (False, True) if pair % 2 else (True, False):
            started = time.perf_counter()
            if is_saving:
                handle = run.async_save(pair + 10, {"model": model, "optimizer": optimizer})
                seconds[2] = time.perf_counter() - started
            _train(model, optimizer, text, steps)
            if is_saving:
                handle.result()
            seconds[is_saving] = time.perf_counter() - started
        found.append((seconds[0], seconds[1], seconds[2]))
    return found


def _train(model: Any, optimizer: Any, text: torch.Tensor, steps: int) -> None:
    for _ in range(steps):
        starts = torch.randint(len(text) - CONTEXT - 1, (BATCH,))
        batch = torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()])
        loss = functional.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def small_saves(scratch: Path, scale: float) -> str:
    """Save 1 MB a hundred times a second for a while, and say how long each took and whether it kept up."""
    state = {"model": {f"layers.{index}": torch.randn(SMALL_STATE_BYTES // 10 // 4) for index in range(10)}}
    rows = []
    for label, is_durable in (("durable", True), ("durable=False", False)):
        with ckptfmt.Run(scratch / label, keep_last=KEPT, durable=is_durable) as run:
            run.save(0, state)
            latencies, lateness = _at_rate(lambda step: _changed_save(run, step, state), max(30, round(500 * scale)))
        middle, last = median(latencies), quantiles(latencies, n=100)[98]
        keeps_up = "yes" if lateness <= 2 / RATE_HZ else f"no, {1 / (sum(latencies) / len(latencies)):.0f} a second"
        rows.append([f"Run.save, {label}", duration(middle), duration(last), keeps_up])
    about = f"A state of {SMALL_STATE_BYTES / 1e6:.0f} MB that changes as a whole, `keep_last={KEPT}`, asked for {RATE_HZ} times a second."
    return "\n\n".join([about, table(["", "median", "p99", "keeps up"], rows)])


def _changed_save(run: ckptfmt.Run, step: int, state: Any) -> None:
    for tensor in state["model"].values():
        tensor += 1
    run.save(step, state)


def _at_rate(save: Callable[[int], None], count: int) -> tuple[list[float], float]:
    """Return how long each save took, and how late the last one came."""
    latencies = []
    started = time.perf_counter()
    for index in range(count):
        time.sleep(max(0.0, started + index / RATE_HZ - time.perf_counter()))
        begun = time.perf_counter()
        save(index + 1)
        latencies.append(time.perf_counter() - begun)
    return latencies, begun - started - (count - 1) / RATE_HZ


def looking(scratch: Path, scale: float) -> str:
    """Look at a long run and at a checkpoint of many tensors with the shell tool: whole processes."""
    steps, tensors = round(LONG_RUN_STEPS * scale), round(MANY_TENSORS * scale)
    with ckptfmt.Run(scratch / "run", durable=False) as run:
        for step in range(steps):
            run.save(step, {"model": {"weight": torch.full((64,), float(step))}}, metrics={"loss": 1 / (step + 1)})
    ckptfmt.save(
        scratch / "many", {"model": {f"layers.{index}": torch.full((256,), float(index)) for index in range(tensors)}}, durable=False
    )
    commands = {
        "python that does nothing": ["-c", "pass"],
        f"ckpt-inspect of a run of {steps:,} steps": ["-m", "ckpt_inspect", str(scratch / "run")],
        f"ckpt-inspect history of {steps:,} steps": ["-m", "ckpt_inspect", "history", str(scratch / "run")],
        f"ckpt-inspect of {tensors:,} tensors": ["-m", "ckpt_inspect", str(scratch / "many")],
    }
    seconds: dict[str, list[float]] = {command: [] for command in commands}
    for _ in range(max(2, round(7 * scale))):
        for command, arguments in commands.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
            seconds[command].append(time.perf_counter() - started)
    slowest = median(seconds[list(commands)[-1]])
    goal = _goal(f"{list(commands)[-1]}: less than {MAX_INSPECT_SECONDS} s", duration(slowest), slowest < MAX_INSPECT_SECONDS)
    return "\n\n".join([table(["", "whole process"], [[command, _spread(values)] for command, values in seconds.items()]), goal])


def _spread(values: Sequence[float]) -> str:
    return f"{duration(median(values))} ({digits(min(values) * 1e3)}..{digits(max(values) * 1e3)} ms)"


def _goal(text: str, measured: str, is_met: bool) -> str:  # noqa: FBT001  One row of a report.
    return f"- {text}: {measured}, {'met' if is_met else 'NOT MET'}"


SUBJECTS: dict[str, Callable[[Path, float], str]] = {
    "frozen backbone": frozen_backbone,
    "saves beside a training": beside_training,
    "many small saves": small_saves,
    "looking at what is large": looking,
}


if __name__ == "__main__":
    sys.exit(main())
