"""A run on a disk that is full, and on one that cannot be written to: what is said, what stays, and how it goes on.

On a small file system that is mounted for this; where nothing may be mounted, on a disk in memory that is as small and refuses the same.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckpt_inspect.main import main as ckpt_inspect
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.protocol import Disk
from tests.drive import Drive

SIZE_BYTES = 4 * 2**20


@dataclass
class Place:
    """A small disk, and a path on it."""

    disk: Disk
    path: str

    def run(self, name: str = "run", **options: Any) -> ckptfmt.Run:
        return ckptfmt.Run(f"{self.path}/{name}", _disk=self.disk, **options)

    def fill(self) -> None:
        """Leave not a byte."""
        directory = self.disk.open_directory(self.path)
        for number in range(100):
            free_bytes = directory.free_bytes()
            if not free_bytes:
                break
            file = directory.create(f"filler-{number}", size_bytes=free_bytes)
            for piece_bytes in (2**16, 4096, 1):
                try:
                    while True:
                        file.write(bytes(piece_bytes))
                except OSError:
                    continue
            file.close()
        directory.close()

    def free(self) -> None:
        directory = self.disk.open_directory(self.path)
        for name in directory.names():
            if name.startswith("filler"):
                directory.unlink(name)
        directory.close()

    def make_read_only(self) -> None:
        if isinstance(self.disk, MemoryDisk):
            for kind in ("create", "rename", "unlink", "make_directory", "remove_directory", "link"):
                self.disk.faults.fail(kind, errno.EROFS, times=None)  # type: ignore[arg-type]
        else:
            subprocess.run(["mount", "-o", "remount,ro", self.path], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Place]:
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs", str(place)]
    try:
        is_mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        is_mounted = False
    if not is_mounted:
        disk = MemoryDisk(capacity_bytes=SIZE_BYTES)
        disk.make_directory("/small")
        yield Place(disk, "/small")
        return
    yield Place(LocalDisk(), str(place))
    subprocess.run(["umount", "-l", str(place)], check=True)


def state_of(step: int) -> dict[str, Any]:
    return {"model": {"w": np.full(60_000, float(step))}, "step": step}


def fill_with_steps(run: ckptfmt.Run) -> ckptfmt.NotEnoughSpaceError:
    for step in range(20):
        try:
            run.save(step, state_of(step), metrics={"loss": step})
        except ckptfmt.NotEnoughSpaceError as error:
            return error
    raise AssertionError("twenty checkpoints fit")


def test_a_full_disk_is_refused_with_what_is_missing_and_what_a_clean_up_frees(small: Place) -> None:
    with small.run() as run:
        error = fill_with_steps(run)
        steps = run.all_steps()
        assert error.path == f"{small.path}/run/step-{steps[-1] + 1:08d}"
        assert (error.errno, error.needed_bytes > error.free_bytes) == (errno.ENOSPC, True)
        first, missing, advice = str(error).splitlines()
        assert first == f"{error.path}: not enough space: needed {error.needed_bytes:,} bytes, free {error.free_bytes:,} bytes"
        assert missing == f"Free at least {error.needed_bytes - error.free_bytes:,} bytes. Nothing was changed."
        assert advice.startswith(f"run.cleanup(keep_last=1, keep_every=None, keep_within=None) would remove {len(steps) - 1} checkpoints")
        assert error.__cause__ is None, "said once"
        restored = run.restore()
        assert restored is not None
        assert np.array_equal(restored.state["model"]["w"], state_of(steps[-1])["model"]["w"])
        report = run.cleanup(keep_last=1, keep_every=None, keep_within=None)
        assert f"at least {report.freed_bytes:,} bytes" in advice
        run.save(steps[-1] + 1, state_of(steps[-1] + 1))
        assert run.all_steps() == [steps[-1], steps[-1] + 1]


def test_a_save_in_the_background_on_a_full_disk_is_said_once(small: Place) -> None:
    with small.run() as run:
        fill_with_steps(run)
        step = run.all_steps()[-1] + 1
        handle = run.async_save(step, state_of(step))
        with pytest.raises(ckptfmt.NotEnoughSpaceError):
            handle.result()
        run.cleanup(keep_last=1)
        assert run.save(step, state_of(step)).step == step
        small.fill()
        run.async_save(step + 1, state_of(step + 1))
        with pytest.raises(ckptfmt.NotEnoughSpaceError) as caught:
            run.wait_until_finished()
        assert caught.value.__notes__ == [
            f"from the asynchronous save of {small.path}/run/step-{step + 1:08d}; nothing is under way any more"
        ]
        small.free()


def test_units_on_a_full_disk_are_not_done_and_are_done_when_there_is_room(small: Place) -> None:
    with small.run() as run:
        progress = run.progress("calls")
        progress.done("a", "first")
        small.fill()
        with pytest.raises(ckptfmt.NotEnoughSpaceError, match="calls/writers") as caught:
            progress.done("b", "x" * 100_000)
        assert caught.value.path is not None
        assert not progress.is_done("b")
        small.free()
        progress.done("b", "second")
        assert progress.results() == {"a": "first", "b": "second"}
    with small.run() as run:
        assert run.progress("calls").results() == {"a": "first", "b": "second"}


def test_a_mirror_that_is_full_stops_nothing_and_says_so(small: Place, tmp_path: Path) -> None:
    is_mounted = isinstance(small.disk, LocalDisk)
    mirror = f"{small.path}/copy" if is_mounted else f"{tmp_path}/copy"
    drive = Drive(LocalDisk(), mirror)
    if is_mounted:
        small.fill()
    else:
        drive.is_away, drive.errno = True, errno.ENOSPC
    with ckptfmt.Run(tmp_path / "run", mirror=mirror, _disk=drive) as run:
        for step in range(3):
            run.save(step, state_of(step))
        run.wait_until_finished()
        status = run.mirror_status()
        assert status is not None
        assert status.pending == (2, 1, 0)
        assert f"[Errno {errno.ENOSPC}]" in (status.last_error or "")
        drive.is_away = False
        small.free()
        run.wait_until_finished()
        status = run.mirror_status()
        assert status is not None
        assert (status.verified, status.pending, status.last_error) == ((0, 1, 2), (), None)


def test_a_run_that_cannot_be_written_to_is_read_fully_and_says_so_when_written(small: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with small.run() as run:
        for step in range(3):
            run.save(step, {"w": np.full(10, step)}, metrics={"loss": step})
        run.progress("calls").done("a", 1)
        run.cached("features", lambda: [1, 2], inputs={})
    small.make_read_only()
    path = f"{small.path}/run"
    run = small.run(monitor="loss", mode="min")
    restored = run.restore()
    assert restored is not None
    assert (restored.step, run.best_step(), run.all_steps()) == (2, 0, [0, 1, 2])
    assert [row["loss"] for row in run.history()] == [0, 1, 2]
    assert run.progress("calls").results() == {"a": 1}
    assert run.cached("features", list, inputs={}) == [1, 2]
    assert run.cleanup(keep_last=1, dry_run=True).removed == [0, 1]
    writes = [
        lambda: run.save(3, {}),
        lambda: run.async_save(3, {}),
        lambda: run.log(3, {"loss": 1}),
        lambda: run.cleanup(keep_last=1),
        lambda: run.progress("calls").done("b", 2),
        lambda: run.cached("others", list, inputs={}),
        lambda: small.run(resume="never"),
        lambda: small.run("new").save(0, {}),
    ]
    for write in writes:
        with pytest.raises(OSError, match="Read-only file system") as caught:
            write()
        assert caught.value.errno == errno.EROFS
        assert str(caught.value.filename).startswith(small.path)
        assert "this run cannot be written to" in "".join(caught.value.__notes__)
    run.close()
    if isinstance(small.disk, LocalDisk):
        for command in (["inspect"], ["verify"], ["history", "--metric", "loss"], ["best", "--metric", "loss", "--mode", "min"]):
            assert ckpt_inspect([command[0], path, *command[1:]]) == 0
        assert ckpt_inspect(["cleanup", path, "--keep-last", "1", "-y"]) == 2
        assert "read-only file system" in capsys.readouterr().err
        assert os.path.isdir(f"{path}/step-00000000")
