"""What a run of many checkpoints costs: a save, an opening and a restore look at as many files as in a run of few."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.run.steps import StepDirectory

PATH = "/run"
STATE = {"w": np.arange(4)}
RULES: dict[str, Any] = {"keep_every": 1, "keep_last": 2, "keep_best": 2, "monitor": "m", "mode": "max"}


def filled(count: int) -> MemoryDisk:
    disk = MemoryDisk()
    with ckptfmt.Run(PATH, _disk=disk) as run:
        for step in range(count):
            run.save(step, STATE, metrics={"m": step % 7})
    return disk


def opens(disk: MemoryDisk) -> int:
    return disk.faults.calls["open"] + disk.faults.calls["open_directory"]


@pytest.mark.parametrize("has_mirror", [False, True], ids=["alone", "mirrored"])
@pytest.mark.parametrize("rules", [{}, RULES], ids=["all kept", "rules"])
def test_a_save_looks_at_no_more_files_however_many_checkpoints_there_are(rules: dict[str, Any], has_mirror: bool) -> None:
    costs, options = [], {**rules, "mirror": "/mirror" if has_mirror else None}
    for count in (10, 80):
        disk = filled(count)
        with ckptfmt.Run(PATH, _disk=disk, **options) as run:
            for step in (count, count + 1):
                run.save(step, STATE, metrics={"m": 1})
                run.wait_until_finished()
            before = opens(disk)
            run.save(count + 2, STATE, metrics={"m": 1})
            run.wait_until_finished()
            costs.append(opens(disk) - before)
    assert costs[0] == costs[1]


def test_opening_and_restoring_read_the_newest_only() -> None:
    costs = []
    for count in (10, 80):
        disk = filled(count)
        before = opens(disk)
        run = ckptfmt.Run(PATH, _disk=disk)
        restored = run.restore()
        assert restored is not None
        assert restored.step == run.latest_step() == count - 1
        costs.append(opens(disk) - before)
    assert costs[0] == costs[1]


def test_a_kept_checkpoint_that_was_damaged_meanwhile_costs_no_sound_one() -> None:
    disk = MemoryDisk()
    with ckptfmt.Run(PATH, _disk=disk, keep_last=2) as run:
        for step in range(4):
            run.save(step, {"w": np.arange(4) + step})
        assert run.all_steps() == [2, 3]
        directory = disk.open_directory(f"{PATH}/step-00000003")
        (shard,) = (name for name in directory.names() if name.endswith(".safetensors"))
        directory.unlink(shard)
        run.save(4, {"w": np.arange(4) + 4})
    assert ckptfmt.Run(PATH, _disk=disk).all_steps() == [2, 4]


def test_a_step_that_is_saved_again_after_its_deletion_is_read_again() -> None:
    disk = MemoryDisk()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ckptfmt.Run(PATH, _disk=disk, mirror="/mirror", keep_last=3) as run:
            for step in range(3):
                run.save(step, {"line": "a", "step": step})
            run.restore(step=1)
            run.save(2, {"line": "b", "step": 2})
            run.wait_until_finished()
            delete_checkpoint(disk, f"{PATH}/step-00000002")
            run.save(2, {"line": "c", "step": 2})
            run.wait_until_finished()
    restored = ckptfmt.Run("/mirror", _disk=disk).restore()
    assert restored is not None
    assert restored.state == {"line": "c", "step": 2}


def test_of_steps_with_very_many_shards_little_is_remembered_and_damage_is_found_all_the_same() -> None:
    disk = MemoryDisk()
    with ckptfmt.Run(PATH, _disk=disk) as run:
        for step in range(3):
            run.save(step, {f"section-{number}": {"w": np.arange(2) + step} for number in range(70)}, metrics={"m": step})
    steps = StepDirectory(disk, PATH)
    assert [(len(entry.manifest.shards), entry.stored().metrics["m"]) for entry in steps.entries() if entry.manifest] == [
        (0, 0),
        (0, 1),
        (0, 2),
    ]
    assert [entry.error for entry in steps.checked_entries()] == [None, None, None]
    directory = disk.open_directory(f"{PATH}/step-00000002")
    directory.unlink(next(name for name in directory.names() if name.endswith(".safetensors")))
    assert [entry.error is None for entry in steps.checked_entries()] == [True, True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        restored = ckptfmt.Run(PATH, _disk=disk).restore()
    assert restored is not None
    assert restored.step == 1
