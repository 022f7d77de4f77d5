"""Kills while a whole run of four steps is compressed or decompressed: a process of its own, without torch.

    python -m tests.crash.run_kills MODE DIRECTORY NAME

    kill                   SIGKILL at every system call of a job, each in a forked child
    prepare, job, check    the three steps of one job, for a tracer that kills the second

After each kill every step loads with the digests that it had, and doing the job again ends as if nothing had happened. Prints one JSON
document.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from tests.crash.checkpoint_kills import in_child, kill_at

STEPS = range(4)
MAX_CHILDREN = 3_000
JOBS: dict[str, Callable[[Path], Any]] = {
    "compress": lambda path: ckptfmt.compress_run(path, keep_last=0),
    "decompress": ckptfmt.decompress_run,
}


def state_of(step: int) -> dict[str, Any]:
    """Return the state of a step: two sections that drift, and one that stays."""
    noise = np.random.default_rng(0).standard_normal((60, 50)).astype("f4")
    drift = np.random.default_rng(step).standard_normal((60, 50)).astype("f4")
    weights = noise + np.float32(1e-4) * drift
    return {"model": {"w": weights}, "optimizer": {"m": weights * np.float32(0.1), "step": np.int64(step)}, "step": step}


def save_run(path: Path) -> None:
    """Save the run that a job begins with."""
    for step in STEPS:
        ckptfmt.save(path / f"step-{step:08d}", state_of(step), step=step, durable=False)


def copy_run(source: Path, target: Path) -> None:
    """Copy a run; files that have several names have as many there."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True)


def check_loads(path: Path) -> None:
    """Raise unless every step is sound and is what was saved."""
    for step in STEPS:
        checkpoint = path / f"step-{step:08d}"
        report = ckptfmt.verify(checkpoint)
        assert report.ok, f"{checkpoint.name}: {report.findings}"
        found, expected = ckptfmt.load(checkpoint), state_of(step)
        assert found["step"] == step, checkpoint.name
        for section in ("model", "optimizer"):
            for name, value in expected[section].items():
                assert np.array_equal(found[section][name], value), f"{checkpoint.name}: {section}.{name}"


def shards_of(path: Path) -> dict[str, list[tuple[str, str]]]:
    """Return the shards of each step with their digests, and everything else that lies there."""
    found: dict[str, list[tuple[str, str]]] = {}
    for directory in sorted(path.glob("step-*")):
        manifest = json.loads((directory / "manifest.json").read_text())
        named = {entry["name"]: entry["digest"] for entry in manifest["shards"]}
        others = sorted(set(os.listdir(directory)) - named.keys() - {"manifest.json", manifest["metadata"]["name"]})
        found[directory.name] = [*sorted(named.items()), *((name, "not named") for name in others)]
    return found


def check_again(path: Path, name: str, finished: dict[str, list[tuple[str, str]]]) -> None:
    """Check what a kill left, do the job again, and check that it ends as one that was not killed."""
    check_loads(path)
    report = JOBS[name](path)
    assert not [step.reason for step in report.steps if step.reason], report.steps
    check_loads(path)
    assert shards_of(path) == finished, "the second attempt ended otherwise"


def prepare(root: Path, name: str) -> Path:
    """Make the run that a job begins with, and one with which it has ended; return the path of the first."""
    save_run(root / "run")
    if name == "decompress":
        JOBS["compress"](root / "run")
    copy_run(root / "run", root / "finished")
    JOBS[name](root / "finished")
    return root / "run"


def sweep(root: Path, name: str) -> dict[str, Any]:
    """Kill the job at one system call after another, until it is not killed."""
    pristine = prepare(root, name)
    finished = shards_of(root / "finished")
    failures: list[str] = []
    for count in range(MAX_CHILDREN):
        work = root / "work"
        copy_run(pristine, work)
        status = in_child(lambda work=work: JOBS[name](work), kill_at(count))  # type: ignore[misc]
        try:
            assert status in (0, -signal.SIGKILL), f"the child ended with {status}"
            check_again(work, name, finished)
        except (AssertionError, ckptfmt.CheckpointError) as error:
            failures.append(f"{name}, {count}: {error}")
        shutil.rmtree(work)
        if status == 0:
            return {"count": count, "failures": failures}
    return {"count": MAX_CHILDREN, "failures": [f"{name}: the job was never finished"]}


def main(mode: str, root: Path, name: str) -> Any:
    """Do what the command line says."""
    if mode != "job":
        os.fsync = lambda number: None
    if mode == "kill":
        return sweep(root, name)
    if mode == "prepare":
        prepare(root, name)
    elif mode == "job":
        JOBS[name](root / "run")
    elif mode == "check":
        check_again(root / "run", name, shards_of(root / "finished"))
    return {}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
