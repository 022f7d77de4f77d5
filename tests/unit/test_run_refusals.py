"""What a run refuses, and what goes wrong behind a save: disks that are full or read-only, wrong options, saves in the background."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.disk.memory import MemoryDisk


def state_of(step: int) -> dict[str, Any]:
    return {"model": {"w": np.full(4000, step)}, "epoch": step}


def test_a_full_disk_says_what_is_missing_and_what_a_clean_up_would_free() -> None:
    disk = MemoryDisk(capacity_bytes=6_000_000)
    with ckptfmt.Run("/run", _disk=disk) as run:
        for step in range(3):
            run.save(step, {"w": np.random.default_rng(step).random(150_000)})
        before = disk.contents()
        with pytest.raises(ckptfmt.NotEnoughSpaceError) as caught:
            run.save(3, {"w": np.random.default_rng(9).random(300_000)})
        assert caught.value.errno == errno.ENOSPC
        assert "Free at least" in str(caught.value)
        assert "run.cleanup(keep_last=1, keep_every=None, keep_within=None) would remove 2 checkpoints" in str(caught.value)
        assert disk.contents() == before
        run.cleanup(keep_last=1)
        run.save(3, {"w": np.random.default_rng(9).random(300_000)})


def test_a_run_that_cannot_be_written_can_be_read_and_says_what_to_do() -> None:
    disk = MemoryDisk()
    with ckptfmt.Run("/run", _disk=disk) as run:
        run.save(1, state_of(1), metrics={"m": 1})
    disk = MemoryDisk(disk.tree())
    disk.faults.fail("sync_directory", errno.EROFS, times=None)
    disk.faults.fail("create", errno.EROFS, times=None)
    run = ckptfmt.Run("/run", _disk=disk)
    assert run.restore() is not None
    with pytest.raises(OSError, match="Read-only") as caught:
        run.save(2, state_of(2))
    assert "make it writable" in "".join(caught.value.__notes__)
    assert run.all_steps() == [1]


def test_an_error_of_a_save_in_the_background_surfaces_and_close_waits_for_the_others(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run", keep_last=2, mirror=tmp_path / "mirror") as run:
        for step in range(4):
            run.async_save(step, state_of(step))
        run.async_save(3, state_of(3))
        run.async_save(4, state_of(4))
        with pytest.raises(ckptfmt.CheckpointExistsError):
            run.wait_until_finished()
        assert run.all_steps() == [3, 4]
        run.wait_until_finished()
        status = run.mirror_status()
        assert status is not None
        assert status.verified[-2:] == (3, 4)


def test_logging_does_not_wait_for_a_save_in_the_background(tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "run") as run:
        run.log(0, {"a": 0})
        run.async_save(1, {"w": np.random.default_rng(0).random(6_000_000)})
        began = time.monotonic()
        for step in range(2, 10):
            run.log(step, {"a": step})
        run.async_save(10, {"w": 1})
        logged = time.monotonic() - began
        run.wait_until_finished()
        assert logged < max(0.5, (time.monotonic() - began) / 2)
        assert [row["step"] for row in run.history()] == list(range(11))


def test_a_closed_run_refuses_writes(tmp_path: Path) -> None:
    run = ckptfmt.Run(tmp_path / "run")
    run.close()
    run.close()
    with pytest.raises(ValueError, match="is closed"):
        run.save(1, {})


@pytest.mark.parametrize(
    "options",
    [{"resume": "yes"}, {"on_mismatch": "no"}, {"keep_last": 0}, {"keep_best": 1}, {"monitor": "loss"}, {"keep_within": "soon"}],
)
def test_wrong_options_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|needs|belong"):
        ckptfmt.Run(tmp_path / "run", **options)
