"""The second copy of a run: verified, late without harm, and enough to go on from when everything else is gone."""

from __future__ import annotations

import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.disk.local import LocalDisk
from ckptfmt.run import mirror_copy
from tests.drive import Drive


def state_of(step: int) -> dict[str, Any]:
    return {"frozen": {"w": np.arange(3000)}, "head": {"w": np.full(100, step)}, "step": step}


@pytest.fixture
def drive(tmp_path: Path) -> Drive:
    return Drive(LocalDisk(), str(tmp_path / "drive"))


def opened(tmp_path: Path, disk: Any, name: str = "run", **options: Any) -> ckptfmt.Run:
    return ckptfmt.Run(tmp_path / name, mirror=tmp_path / "drive", _disk=disk, **options)


def steps_in(path: Path) -> list[int]:
    return [int(manifest.parent.name[5:]) for manifest in sorted(path.glob("step-*/manifest.json"))]


def status_of(run: ckptfmt.Run) -> ckptfmt.MirrorStatus:
    run.wait_until_finished()
    status = run.mirror_status()
    assert status is not None
    return status


def test_each_commit_is_copied_and_a_fresh_machine_goes_on_from_the_copy(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive, keep_last=2) as run:
        for step in range(5):
            run.save(step, state_of(step), metrics={"m": step})
        assert status_of(run) == ckptfmt.MirrorStatus(str(tmp_path / "drive"), (3, 4), (), None)
    assert steps_in(tmp_path / "drive") == [3, 4]
    assert all(ckptfmt.verify(path).ok for path in (tmp_path / "drive").glob("step-*"))
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(RuntimeWarning, match="brought from the mirror: steps 3, 4"):
        run = opened(tmp_path, drive, keep_last=2)
    with run:
        restored = run.restore()
        assert restored is not None
        assert (restored.step, int(restored.state["head"]["w"][0])) == (4, 4)
        assert [row["step"] for row in run.history()] == [0, 1, 2, 3, 4]
        run.save(5, state_of(5))
        assert status_of(run).verified == (4, 5)
    assert steps_in(tmp_path / "drive") == [4, 5]


def test_progress_goes_with_the_checkpoints_to_the_mirror_and_back(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        progress = run.progress("calls", total=3)
        progress.done("a", {"price": 1})
        run.save(0, state_of(0))
    shutil.rmtree(tmp_path / "run")
    with pytest.warns(RuntimeWarning, match="brought from the mirror"):
        run = opened(tmp_path, drive)
    with run:
        assert run.progress("calls", total=3).results() == {"a": {"price": 1}}


def test_a_drive_that_is_away_does_not_stop_the_training_and_gets_everything_later(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        run.save(0, state_of(0))
        status_of(run)
        drive.is_away = True
        run.save(1, state_of(1))
        status = status_of(run)
        assert (status.verified, status.pending) == ((0,), (1,))
        assert "the drive is away" in (status.last_error or "")
        drive.is_away = False
        # Nothing else is saved: the copy is tried again by itself.
        deadline = time.monotonic() + 20
        while run.mirror_status().pending and time.monotonic() < deadline:  # type: ignore[union-attr]
            time.sleep(0.05)
        run.wait_until_finished()
        assert status_of(run) == ckptfmt.MirrorStatus(str(tmp_path / "drive"), (0, 1), (), None)


@pytest.mark.parametrize("mirror", ["run", "run/copy", "."])
def test_a_mirror_in_the_run_or_around_it_is_refused(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(ValueError, match="a directory elsewhere"):
        ckptfmt.Run(tmp_path / "run", mirror=tmp_path / mirror)


def test_what_is_missing_at_the_end_is_said(tmp_path: Path, drive: Drive) -> None:
    drive.is_away = True
    run = opened(tmp_path, drive)
    run.save(0, state_of(0))
    with pytest.warns(RuntimeWarning, match="steps missing: 0"):
        run.close()
    drive.is_away = False
    with opened(tmp_path, drive) as run:
        run.save(1, state_of(1))
        assert status_of(run).verified == (0, 1)


def test_a_new_process_copies_nothing_again_and_keeps_what_an_earlier_one_left(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive, keep_last=1) as run:
        for step in range(3):
            run.save(step, state_of(step))
            status = status_of(run)
        assert status.verified == (1, 2), "two generations stay, though the run keeps one"
    drive.created.clear()
    with opened(tmp_path, drive, keep_last=1) as run:
        run.restore()
        run.save(3, state_of(3))
        assert status_of(run).verified[-1] == 3
    assert not [path for path in drive.created if "/step-" in path and "step-00000003" not in path]
    assert steps_in(tmp_path / "drive") == [2, 3]


def test_the_best_checkpoint_of_an_earlier_machine_stays_in_the_mirror(tmp_path: Path, drive: Drive) -> None:
    rules = {"monitor": "m", "mode": "max", "keep_best": 1, "keep_last": 1}
    with opened(tmp_path, drive, **rules) as run:
        for step in range(6):
            run.save(step, state_of(step), metrics={"m": 9 if step == 1 else step})
    shutil.rmtree(tmp_path / "run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = opened(tmp_path, drive, **rules)
    with run:
        assert run.best_step() == 1
        assert run.latest_step() == 5
        run.restore()
        for step in range(6, 9):
            run.save(step, state_of(step), metrics={"m": 0})
    assert steps_in(tmp_path / "drive")[0] == 1


def test_a_copy_that_does_not_read_back_is_made_again(tmp_path: Path, drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    copy, broken = mirror_copy._copy_file, []

    def lie_once(source: Any, target: Any, name: str, target_name: str | None = None) -> None:
        copy(source, target, name, target_name)
        if name.startswith("head") and not broken:
            broken.append(name)
            path = Path(target.path) / name
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    monkeypatch.setattr(mirror_copy, "_copy_file", lie_once)
    with opened(tmp_path, drive) as run:
        run.save(0, state_of(0))
        status = status_of(run)
        assert status.pending == (0,) or status.verified == (0,)
        run.save(1, state_of(1))
        assert status_of(run).verified == (0, 1)
    assert broken
    assert all(ckptfmt.verify(path).ok for path in (tmp_path / "drive").glob("step-*"))


def test_a_damaged_copy_is_passed_over_by_a_fresh_machine(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        for step in range(3):
            run.save(step, state_of(step))
    (shard,) = (tmp_path / "drive/step-00000002").glob("head-*")
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    shutil.rmtree(tmp_path / "run")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = opened(tmp_path, drive)
    passed_over, brought = (str(warning.message) for warning in caught)
    assert "step-00000002: the mirror's copy is passed over" in passed_over
    assert "mirror: steps 0, 1" in brought
    with run:
        assert run.latest_step() == 1


def test_the_mirror_follows_a_branch_and_a_new_beginning_without_deleting(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        for step in range(4):
            run.save(step, state_of(step))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened(tmp_path, drive) as run:
            run.restore(step=1)
            run.save(2, {"line": "b"})
        assert steps_in(tmp_path / "drive") == [0, 1, 2]
        assert ckptfmt.load(tmp_path / "drive/step-00000002") == {"line": "b"}
        with opened(tmp_path, drive, resume="never") as run:
            run.save(7, {"line": "c"})
    assert steps_in(tmp_path / "drive") == [7]
    kept = list((tmp_path / "drive").glob("aside-*-step-*"))
    assert len(kept) == 5, "steps 2 and 3 of the first line; 0, 1 and 2 of the second"
    assert all(ckptfmt.verify(path).ok for path in kept)


def test_a_clean_up_by_hand_reaches_the_mirror_but_leaves_two_generations(tmp_path: Path, drive: Drive) -> None:
    with opened(tmp_path, drive) as run:
        for step in range(5):
            run.save(step, state_of(step))
        status_of(run)
        run.cleanup(keep_last=1)
        run.save(5, state_of(5))
        assert status_of(run).verified == (4, 5)
    assert steps_in(tmp_path / "drive") == [4, 5]
