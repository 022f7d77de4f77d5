"""What is done with a mirror while the power is cut, and what must hold of every state that this may leave.

Run and mirror lose their power together. Once one commit has been mirrored, one sound generation is there in each state, and two after the
second, whatever is copied, removed or filled at that moment; a fresh machine has every unit that was mirrored. What a branch or a new
beginning leaves is still there, aside.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.memory_store import Tree
from ckptfmt.disk.recording import Marked, RecordingDisk
from ckptfmt.run import journal_copy, progress_writers
from tests.crash.crash_states import CrashState, iter_states
from tests.crash.test_run_crash import is_right, state_of
from tests.drive import Drive

RUN, FRESH, DRIVE = "/runs/exp", "/fresh/exp", "/drive/exp"
Job = Callable[[RecordingDisk], None]


def fingerprint(seed: int = 1, lr: float = 0.1) -> ckptfmt.Fingerprint:
    return ckptfmt.Fingerprint(seed=seed, config={"lr": lr}, environment=False, code=False)


@contextmanager
def opened(disk: Any, path: str = RUN, **options: Any) -> Iterator[ckptfmt.Run]:
    options = {"fingerprint": fingerprint(), "keep_last": 1, "allow_changes": ["*"], **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with ckptfmt.Run(path, mirror=DRIVE, _disk=Drive(disk, DRIVE), **options) as run:
            yield run


def save(disk: Any, run: ckptfmt.Run, step: int, line: str = "a") -> None:
    run.save(step, state_of(step, line), metrics={"m": step})
    run.wait_until_finished()
    status = run.mirror_status()
    assert status is not None
    assert status.pending == ()
    if isinstance(disk, RecordingDisk):
        disk.record_mark(f"{step}{line}")


def mirror_first_commits(disk: RecordingDisk) -> None:
    with opened(disk) as run:
        for step in range(4):
            save(disk, run, step)


def mirror_with_another_identity(disk: RecordingDisk) -> None:
    with opened(disk, fingerprint=fingerprint(lr=0.2)) as run:
        run.restore()
        save(disk, run, 4)


def fill_an_empty_run(disk: RecordingDisk) -> None:
    with opened(disk, FRESH) as run:
        restored = run.restore()
        assert restored is not None
        save(disk, run, restored.step + 1)


def mirror_a_branch(disk: RecordingDisk) -> None:
    with opened(disk, keep_last=None) as run:
        run.restore(step=3)
        save(disk, run, 4, "b")


def branch_from_what_is_not_mirrored(disk: RecordingDisk) -> None:
    with opened(disk, keep_last=None) as run:
        run.restore(step=1)
        save(disk, run, 2, "b")


def mirror_a_new_beginning(disk: RecordingDisk) -> None:
    with opened(disk, resume="never") as run:
        save(disk, run, 3, "b")


def finish(disk: Any, run: ckptfmt.Run, key: str) -> None:
    progress = run.progress("calls", total=9)
    progress.done(key, {"of": key}, state={"w": np.full(40, ord(key))})
    run.progress("other").done(key)
    run.wait_until_finished()
    status = run.mirror_status()
    assert status is not None
    assert (status.last_error, status.pending_journals) == (None, ())
    if isinstance(disk, RecordingDisk):
        disk.record_mark(f"unit {key}")


def mirror_units(disk: RecordingDisk) -> None:
    with opened(disk) as run:
        for key in "abc":
            finish(disk, run, key)


def mirror_units_of_a_second_session(disk: RecordingDisk) -> None:
    with opened(disk) as run:
        finish(disk, run, "d")


def mirror_compacted_units(disk: RecordingDisk) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress_writers, "_COMPACT_SEGMENTS", 1)
        patch.setattr(journal_copy, "_MANY_SEGMENTS", 2)
        with opened(disk) as run:
            finish(disk, run, "d")
            finish(disk, run, "e")


def fill_an_empty_run_with_units(disk: RecordingDisk) -> None:
    with opened(disk, FRESH) as run:
        assert run.progress("calls").completed == 3
        finish(disk, run, "d")


JOBS: dict[str, tuple[Job, str]] = {
    "first commits": (mirror_first_commits, "nothing"),
    "another identity": (mirror_with_another_identity, "mirrored"),
    "fill": (fill_an_empty_run, "mirrored"),
    "branch": (mirror_a_branch, "one more"),
    "branch from what is not mirrored": (branch_from_what_is_not_mirrored, "newest only"),
    "new beginning": (mirror_a_new_beginning, "mirrored"),
}
UNIT_JOBS: dict[str, tuple[Job, str]] = {
    "units": (mirror_units, "nothing"),
    "units, second session": (mirror_units_of_a_second_session, "units"),
    "units, compacted": (mirror_compacted_units, "units"),
    "units, fill": (fill_an_empty_run_with_units, "units"),
}

ALL_JOBS = JOBS | UNIT_JOBS


@functools.cache
def initial_trees() -> dict[str, Tree]:
    disk = MemoryDisk()
    trees = {"nothing": disk.tree()}
    with opened(disk) as run:
        for step in range(4):
            save(disk, run, step)
    trees["mirrored"] = disk.tree()
    with opened(disk, keep_last=2) as run:
        run.restore()
        save(disk, run, 4)
    trees["one more"] = disk.tree()
    disk = MemoryDisk()
    with opened(disk, keep_last=None) as run:
        for step in range(3):
            save(disk, run, step)
    # As a kill leaves it that comes when only the newest is copied.
    for step in range(2):
        delete_checkpoint(disk, f"{DRIVE}/step-{step:08d}")
    trees["newest only"] = disk.tree()
    disk = MemoryDisk()
    mirror_units(cast("RecordingDisk", disk))
    trees["units"] = disk.tree()
    return trees


def generations(disk: MemoryDisk) -> dict[str, str]:
    """Return the directory of each checkpoint in the mirror by its step and line, all of them sound."""
    found: dict[str, str] = {}
    names = disk.open_directory(DRIVE).names() if "/drive/exp" in disk.contents() else []
    for name in (name for name in names if "step-" in name):
        path = f"{DRIVE}/{name}"
        if "manifest.json" not in disk.open_directory(path).names():
            continue
        assert verify_checkpoint(disk, path).ok, f"{name} looks like a checkpoint and is none"
        with OpenCheckpoint(disk, path) as checkpoint:
            content = checkpoint.load()
        assert is_right(content, int(name[-8:])), name
        found[f"{content['step']}{content['line']}"] = name
    return found


def check(state: CrashState, initial: dict[str, str], *, name: str) -> None:
    found, is_new = generations(state.disk), name == "new beginning"
    if "branch" in name or is_new:
        assert set(found) >= set(initial), f"{sorted(initial)} was to be kept, found {sorted(found)}"
    sound = [name for name in found.values() if name.startswith("step-")]
    # A program that asked for a new beginning has no copy of it before its first commit; what it left is aside.
    # A branch may leave only the one from which it goes on.
    wanted = min(1 if is_new or "branch" in name else 2, len(state.acknowledged_marks) + (0 if is_new else len(initial)))
    assert len(sound) >= wanted, f"{sound} of {sorted(found)}"
    newest = [int(mark[:-1]) for mark in state.acknowledged_marks[-1:]]
    tree = state.disk.tree()
    for path in (FRESH if name == "fill" else RUN, "/another/exp"):
        disk = MemoryDisk(tree)
        with opened(disk, path) as run:
            restored = run.restore()
            if wanted:
                assert restored is not None
            if restored is not None:
                assert is_right(restored.state, restored.step)
                assert restored.step >= max(newest, default=0)
            step = restored.step + 1 if restored else 0
            save(disk, run, step, "c")
            assert [row["step"] for row in run.history()][-1] == step
        after = generations(disk)
        assert f"{step}c" in after
        assert len([there for there in after.values() if there.startswith("step-")]) >= wanted, f"then {sorted(after.values())}"


def check_units(state: CrashState, initial: set[str], *, name: str) -> None:
    acknowledged = initial | {mark[-1] for mark in state.acknowledged_marks}
    tree = state.disk.tree()
    for path in (FRESH if "fill" in name else RUN, "/another/exp"):
        disk = MemoryDisk(tree)
        with opened(disk, path) as run:
            progress = run.progress("calls")
            results = progress.results()
            assert acknowledged <= set(results), f"{path} has {sorted(results)} of {sorted(acknowledged)}"
            others = set(run.progress("other").results())
            assert acknowledged <= others, f"{path} has {sorted(others)} of {sorted(acknowledged)} in the other progress"
            for key, result in results.items():
                assert result == {"of": key}
                with OpenCheckpoint(disk, progress.state_path(key) or "") as checkpoint:
                    assert np.array_equal(checkpoint.load()["w"], np.full(40, ord(key)))
            finish(disk, run, "z")
        with opened(disk, "/third/exp") as run:
            assert run.progress("calls").results() == {**results, "z": {"of": "z"}}


def check_job(name: str, *, weak: bool, limit: int, seed: int = 0) -> int:
    job, before = ALL_JOBS[name]
    initial = initial_trees()[before]
    disk = RecordingDisk(MemoryDisk(initial))
    job(disk)
    assert any(isinstance(mark, Marked) for mark in disk.records)
    known, count = generations(MemoryDisk(initial)), 0
    for state in iter_states(disk.records, initial, weak=weak, limit=limit, seed=seed):
        count += 1
        try:
            if name in JOBS:
                check(state, known, name=name)
            else:
                check_units(state, set("abc" if before == "units" else ""), name=name)
        except Exception as error:
            raise AssertionError(f"{state.description}: {type(error).__name__}: {error}") from error
    return count
