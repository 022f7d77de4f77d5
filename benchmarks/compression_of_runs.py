"""What compressing the checkpoints of a run does to its size, against files of torch.save; and what it costs to load them again.

    python -m benchmarks.trained DIRECTORY
    python -m benchmarks.compression_of_runs DIRECTORY [--count 20] [--level 3]

The last checkpoints 20 steps apart, and those 200 apart. Sizes are of the files on the disk, those with several names once. Before it
counts, the last checkpoint of a run, which stands on all others, is verified and compared with what was saved.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors.torch import load_file

import ckptfmt
from benchmarks.trained import MOMENTS, file_of, kept_steps

State = dict[str, Any]


def weights(tensors: State) -> State:
    """Return the weights of a trained checkpoint."""
    return {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith("model.")}


def bf16_weights(tensors: State) -> State:
    """Return the weights as they are used in mixed precision."""
    return {"model": {name: tensor.bfloat16() for name, tensor in weights(tensors).items()}}


def fp32_weights(tensors: State) -> State:
    """Return the weights as they are trained."""
    return {"model": weights(tensors)}


def weights_and_moments(tensors: State) -> State:
    """Return weights and both moments."""
    moments = {moment: {name: tensors[f"{moment}.{name}"] for name in weights(tensors)} for moment in MOMENTS}
    return {"model": weights(tensors), **moments}


STATES: dict[str, Callable[[State], State]] = {
    "bf16 weights": bf16_weights,
    "fp32 weights": fp32_weights,
    "fp32 weights and moments": weights_and_moments,
}


def size_on_disk(path: Path) -> int:
    """Return the size of all files below a directory, each counted once."""
    files = {status.st_ino: status.st_size for found in path.rglob("*") if found.is_file() for status in [found.stat()]}
    return sum(files.values())


def choose_steps(directory: Path, distance: int, count: int) -> list[int]:
    """Return the last steps that lie so far apart."""
    steps = [step for step in kept_steps(4000) if file_of(directory, step).exists() and step % distance == 0]
    last = max(steps)
    return [step for step in (last - distance * back for back in reversed(range(count))) if step in steps]


def measure(directory: Path, steps: Sequence[int], state_of: Callable[[State], State], level: int) -> str:
    """Save and compress a run, and return what the table says of it."""
    with TemporaryDirectory(dir=os.environ.get("TMPDIR")) as temporary:
        root, torch_bytes = Path(temporary), 0
        state: State = {}
        for step in steps:
            state = state_of(load_file(file_of(directory, step)))
            torch.save(state, root / "torch.pt")
            torch_bytes += (root / "torch.pt").stat().st_size
            (root / "torch.pt").unlink()
            ckptfmt.save(root / "run" / f"step-{step:08d}", state, step=step, durable=False)
        raw_bytes = size_on_disk(root / "run")
        began = time.perf_counter()
        guess = ckptfmt.compress_run(root / "run", level=level, keep_last=0, dry_run=True).after_bytes
        times = [time.perf_counter() - began]
        began = time.perf_counter()
        ckptfmt.compress_run(root / "run", level=level, keep_last=0)
        times.append(time.perf_counter() - began)
        size_bytes = size_on_disk(root / "run")
        newest = root / "run" / f"step-{steps[-1]:08d}"
        assert ckptfmt.verify(newest).ok
        began = time.perf_counter()
        found = ckptfmt.load(newest)
        times.append(time.perf_counter() - began)
        assert all(torch.equal(tensor, found[section][name]) for section in state for name, tensor in state[section].items())
        shutil.rmtree(root / "run")
    speeds = (raw_bytes / times[1] / 1e6, raw_bytes / len(steps) / times[2] / 1e6)
    shown = f"{torch_bytes / 1e6:,.0f} | {size_bytes / torch_bytes:.3f} | {guess / torch_bytes:.3f}"
    return f"{shown} | {speeds[0]:,.0f} | {speeds[1]:,.0f}"


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--level", type=int, default=3)
    arguments = parser.parse_args()
    print("| state | steps apart | checkpoints | torch.save, MB | of that | estimate | compress, MB/s | load the last, MB/s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for distance in (20, 200):
        steps = choose_steps(arguments.directory, distance, arguments.count)
        for name, state_of in STATES.items():
            row = measure(arguments.directory, steps, state_of, arguments.level)
            print(f"| {name} | {distance} | {len(steps)} | {row} |", flush=True)


if __name__ == "__main__":
    main()
