"""P1, P2, P3 and P7 for runs, under every crash: a save with retention, a branch, a new beginning and a clean-up.

In each state that a kill or a power cut may leave: the newest acknowledged checkpoint is there, everything that looks like a checkpoint is
one, and the next writer goes on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import Marked, RecordingDisk
from ckptfmt.run import cleaning, steps
from tests.crash.crash_states import CrashState, iter_states

PATH = "/runs/exp"
Job = Callable[[RecordingDisk], None]


def state_of(step: int, line: str = "a") -> dict[str, Any]:
    return {"frozen": {"w": np.arange(40.0)}, "head": {"w": np.full(5, step)}, "step": step, "line": line}


def is_right(state: dict[str, Any], step: int) -> bool:
    expected = state_of(step, state["line"])
    return state["step"] == step and all(np.array_equal(state[name]["w"], expected[name]["w"]) for name in ("frozen", "head"))


@contextmanager
def opened(disk: Any, **options: Any) -> Iterator[ckptfmt.Run]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with ckptfmt.Run(PATH, _disk=disk, **options) as run:
            yield run


def save(disk: Any, run: ckptfmt.Run, step: int, line: str = "a") -> None:
    run.save(step, state_of(step, line), metrics={"m": step})
    if isinstance(disk, RecordingDisk):
        disk.record_mark(f"{step}{line}")


def save_with_retention(disk: RecordingDisk) -> None:
    with opened(disk, keep_last=1) as run:
        run.restore()
        save(disk, run, 3)
        save(disk, run, 4)


def branch(disk: RecordingDisk) -> None:
    with opened(disk) as run:
        run.restore(step=1)
        save(disk, run, 2, "b")


def start_anew(disk: RecordingDisk) -> None:
    with opened(disk, resume="never") as run:
        save(disk, run, 1, "b")


def start_other_experiment(disk: RecordingDisk) -> None:
    fingerprint = ckptfmt.Fingerprint(seed=2, environment=False, code=False)
    with opened(disk, fingerprint=fingerprint, on_mismatch="restart") as run:
        save(disk, run, 1, "b")


def clean_up(disk: RecordingDisk) -> None:
    with opened(disk) as run:
        run.cleanup(keep_last=1)


JOBS = {job.__name__: job for job in (save_with_retention, branch, start_anew, start_other_experiment, clean_up)}


@pytest.fixture(scope="module")
def before() -> MemoryDisk:
    disk = MemoryDisk()
    with opened(disk, fingerprint=ckptfmt.Fingerprint(seed=1, environment=False, code=False)) as run:
        for step in (0, 1, 2):
            save(disk, run, step)
    return disk


def record(job: Job, before: MemoryDisk) -> RecordingDisk:
    disk = RecordingDisk(MemoryDisk(before.tree()))
    disk.record_mark("2a")
    job(disk)
    return disk


def check(state: CrashState, saves: list[str]) -> None:
    """Raise unless every promise holds in this state. `saves` are all acknowledgements that the work was to get, in their order."""
    disk = state.disk
    found = set()
    for name in (name for name in disk.open_directory(PATH).names() if "step-" in name):
        path = f"{PATH}/{name}"
        if "manifest.json" not in disk.open_directory(path).names():
            continue
        assert verify_checkpoint(disk, path).ok, f"{name} looks like a checkpoint and is none"
        with OpenCheckpoint(disk, path) as checkpoint:
            content = checkpoint.load()
        assert is_right(content, int(name[-8:])), name
        found.add(f"{content['step']}{content['line']}")
    acknowledged = len(state.acknowledged_marks)
    # Newer ones than the newest acknowledged are as good; they are committed before anything goes.
    assert not acknowledged or found & set(saves[acknowledged - 1 :]), f"{saves[acknowledged - 1]} was acknowledged and is gone"
    check_next_writer(disk)


def check_next_writer(disk: MemoryDisk) -> None:
    with opened(disk) as run:
        restored = run.restore()
        step = restored.step + 1 if restored else 0
        assert restored is None or is_right(restored.state, restored.step)
        save(disk, run, step, "c")
        again = run.restore()
        assert again is not None
        assert (again.step, again.state["line"]) == (step, "c")
        history = run.history()
        assert [row["step"] for row in history] == sorted({row["step"] for row in history})
        assert history[-1]["step"] == step
        assert all(row["m"] == row["step"] for row in history)


def check_job(job: Job, before: MemoryDisk, *, weak: bool, limit: int, seed: int = 0) -> None:
    disk = record(job, before)
    saves = [mark.name for mark in disk.records if isinstance(mark, Marked)]
    for state in iter_states(disk.records, before.tree(), weak=weak, limit=limit, seed=seed):
        try:
            check(state, saves)
        except Exception as error:
            raise AssertionError(f"{state.description}: {type(error).__name__}: {error}") from error


@pytest.mark.parametrize("weak", [False, True], ids=["ordered", "weak"])
@pytest.mark.parametrize("name", JOBS)
def test_every_crash_leaves_the_newest_acknowledged_checkpoint_and_nothing_half(name: str, weak: bool, before: MemoryDisk) -> None:
    check_job(JOBS[name], before, weak=weak, limit=120)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", JOBS)
def test_no_crash_in_a_large_sample_breaks_a_promise(name: str, seed: int, before: MemoryDisk) -> None:
    check_job(JOBS[name], before, weak=bool(seed % 2), limit=5000, seed=seed)


def test_retention_before_the_commit_is_noticed(monkeypatch: pytest.MonkeyPatch, before: MemoryDisk) -> None:
    monkeypatch.setattr(cleaning, "plan_retention", lambda stored, policy, now: [cleaning.Decision(step.step, ()) for step in stored])
    with pytest.raises(AssertionError, match="acknowledged"):
        check_job(clean_up, before, weak=False, limit=200)


def test_deleting_the_manifest_last_is_noticed(monkeypatch: pytest.MonkeyPatch, before: MemoryDisk) -> None:
    def delete_data_first(disk: Any, path: str) -> None:
        directory = disk.open_directory(path)
        for name in sorted(directory.names(), reverse=True):
            directory.unlink(name)
        directory.close()

    monkeypatch.setattr(cleaning, "delete_checkpoint", delete_data_first)
    with pytest.raises(AssertionError, match="looks like a checkpoint"):
        check_job(clean_up, before, weak=True, limit=400)


def test_taking_the_identity_away_first_would_be_noticed_by_the_newest_checkpoint(
    before: MemoryDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without run.json a run is still known by its checkpoints: another experiment does not go on with them."""
    disk = MemoryDisk(before.tree())
    disk.open_directory(PATH).unlink(steps.RUN_FILE_NAME)
    with pytest.raises(ckptfmt.FingerprintMismatchError):
        ckptfmt.Run(PATH, _disk=disk, fingerprint=ckptfmt.Fingerprint(seed=2, environment=False, code=False))
