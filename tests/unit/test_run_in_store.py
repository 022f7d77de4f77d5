"""A run that lives in a store: acknowledged when it is there, gone on from on any machine, small on this one."""

from __future__ import annotations

import errno
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.disk import patient_store
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.patient_store import Patience
from tests.fake_store import FakeStore

URL = "fake://bucket/exp"
AWAY = ConnectionRefusedError(errno.ECONNREFUSED, "the store is away")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=2, first_seconds=0.0))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def state_of(step: int) -> dict[str, Any]:
    return {"frozen": {"w": np.arange(3000)}, "head": {"w": np.full(100, step)}, "step": step}


def opened(store: FakeStore, machine: Path, **options: Any) -> ckptfmt.Run:
    return ckptfmt.Run(URL, local_directory=machine, _disk=AnyDisk(store.disk()), **options)


def steps_in(store: FakeStore) -> list[int]:
    return sorted(int(key.split("/")[2][5:]) for key in store.objects if "/step-" in key and key.endswith("manifest.json"))


def steps_here(machine: Path) -> list[int]:
    return [int(manifest.parent.name[5:]) for manifest in sorted(machine.glob("step-*/manifest.json"))]


def restored_from(run: ckptfmt.Run, **options: Any) -> int:
    restored = run.restore(**options)
    assert restored is not None
    np.testing.assert_equal(restored.state, state_of(restored.step))
    return restored.step


def test_a_save_returns_when_the_store_has_it_and_a_fresh_machine_goes_on(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        run.log(0, {"loss": 9.0})
        for step in (1, 2, 3, 4):
            info = run.save(step, state_of(step), metrics={"loss": 1 / step})
            assert steps_in(store)[-1] == step
        assert info.path == f"{URL}/step-00000004"
        assert run.async_save(5, state_of(5)).result().step == 5
        assert steps_in(store) == [1, 2, 3, 4, 5]
        progress = run.progress("calls", total=2)
        progress.done("one", 1)
        run.wait_until_finished()
    assert steps_here(tmp_path / "a") == [4, 5]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = opened(store, tmp_path / "b", monitor="loss", mode="min")
    with run:
        assert steps_here(tmp_path / "b") == [4, 5]
        assert (run.all_steps(), run.latest_step(), run.best_step()) == ([1, 2, 3, 4, 5], 5, 4)
        assert restored_from(run) == 5
        assert [row["step"] for row in run.history()] == [0, 1, 2, 3, 4, 5]
        assert run.progress("calls", total=2).results() == {"one": 1}
        run.save(6, state_of(6))
    assert steps_in(store) == [1, 2, 3, 4, 5, 6]


def test_what_is_only_in_the_store_is_read_there_and_gone_back_to(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        for step in range(1, 6):
            run.save(step, state_of(step))
        assert run.checkpoint(1).path == f"{URL}/step-00000001"
        with pytest.raises(ckptfmt.CheckpointExistsError):
            run.save(1, state_of(1))
        assert restored_from(run, step=2) == 2
        with pytest.warns(RuntimeWarning, match="going on from step 2"):
            run.save(7, state_of(7))
        assert run.all_steps() == steps_in(store) == [1, 2, 7]
        run.save(8, state_of(8))
    assert steps_here(tmp_path / "a") == [7, 8]
    with opened(store, tmp_path / "b") as run:
        assert [row["step"] for row in run.history()] == [1, 2, 7, 8]
        exported = run.export(str(tmp_path / "exported"), steps=[1])
        assert exported


def test_the_rules_of_the_run_hold_in_the_store(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a", keep_last=1, keep_every=4, keep_best=1, monitor="m", mode="max") as run:
        for step in range(1, 8):
            run.save(step, state_of(step), metrics={"m": -abs(step - 2)})
        assert run.all_steps() == steps_in(store) == [2, 4, 7]
        assert steps_here(tmp_path / "a") == [7]
        report = run.cleanup(keep_last=1, keep_every=None, keep_best=None, dry_run=True)
        assert (report.removed, steps_in(store)) == ([2, 4], [2, 4, 7])
        assert run.cleanup(keep_last=1, keep_every=None, keep_best=None).removed == [2, 4]
        assert run.all_steps() == steps_in(store) == [7]
        run.save(8, state_of(8), metrics={"m": 0})
    with opened(store, tmp_path / "a") as run:
        assert run.all_steps() == [8]


def test_a_store_that_is_away_fails_the_save_and_gets_it_with_the_next_one(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        run.save(1, state_of(1))
        store.fail(AWAY, times=10**9)
        for step in (2, 3, 4):
            with pytest.raises(ckptfmt.StoreUnavailableError, match=f"not in the store: step {step}") as caught:
                run.save(step, state_of(step), metrics={"m": step})
        assert (caught.value.path, caught.value.local_path) == (URL, str(tmp_path / "a"))
        with pytest.raises(ckptfmt.StoreUnavailableError, match="step 5"):
            run.async_save(5, state_of(5)).result()
        with pytest.raises(ckptfmt.StoreUnavailableError, match="step 5, step 4, step 3, step 2"):
            run.wait_until_finished()
        assert steps_here(tmp_path / "a") == [1, 2, 3, 4, 5]
        store.heal()
        run.save(6, state_of(6))
        assert steps_in(store) == [1, 2, 3, 4, 5, 6]
        run.wait_until_finished()
    assert steps_here(tmp_path / "a") == [5, 6]


def test_a_store_that_is_away_at_the_end_is_an_error_and_the_next_opening_brings_what_is_missing(store: FakeStore, tmp_path: Path) -> None:
    run = opened(store, tmp_path / "a")
    run.save(1, state_of(1))
    store.fail(AWAY, times=10**9)
    run.log(2, {"m": 3})
    with pytest.raises(ckptfmt.StoreUnavailableError):
        run.save(2, state_of(2), metrics={"m": 1})
    with pytest.raises(ckptfmt.StoreUnavailableError, match="step 2"):
        run.close()
    store.heal()
    # Its lease could not be given up, and nobody else could have this directory's lock.
    with opened(store, tmp_path / "a") as run:
        assert restored_from(run) == 2
        run.wait_until_finished()
        assert steps_in(store) == [1, 2]
    with opened(store, tmp_path / "b") as run:
        assert [row["step"] for row in run.history()] == [1, 2]


def test_a_store_that_is_away_cannot_be_opened(store: FakeStore, tmp_path: Path) -> None:
    store.fail(AWAY, times=10**9)
    with pytest.raises(OSError, match="the store is away"):
        opened(store, tmp_path / "a")
    store.heal()
    opened(store, tmp_path / "a").close()


def test_what_somebody_else_went_on_from_wins_and_what_only_this_machine_has_is_set_aside(store: FakeStore, tmp_path: Path) -> None:
    run = opened(store, tmp_path / "a")
    run.save(1, state_of(1))
    store.fail(AWAY, times=10**9)
    with pytest.raises(ckptfmt.StoreUnavailableError):
        run.save(2, {"lost": True}, metrics={"m": 1})
    with pytest.raises(ckptfmt.StoreUnavailableError):
        run.close()
    store.heal()
    store.wait(1)
    with pytest.warns(RuntimeWarning, match="has ended without giving the run up"):
        other = opened(store, tmp_path / "b")
    with other:
        assert restored_from(other) == 1
        other.save(2, state_of(2))
        other.save(3, state_of(3))
    with pytest.warns(RuntimeWarning, match=r"what only this machine had is kept as aside-.*brought from the store: steps 2, 3"):
        run = opened(store, tmp_path / "a")
    with run:
        assert restored_from(run) == 3
        assert [row["step"] for row in run.history()] == [1, 2, 3]
        assert list((tmp_path / "a").glob("aside-*-not-in-store-step-00000002/manifest.json"))
        run.save(4, state_of(4))
    assert steps_in(store) == [1, 2, 3, 4]


def test_a_machine_that_was_only_behind_goes_on_without_a_copy_of_anything(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        run.save(1, state_of(1))
    with opened(store, tmp_path / "b") as run:
        run.save(2, state_of(2))
    with pytest.warns(RuntimeWarning, match="brought from the store: steps 2"):
        run = opened(store, tmp_path / "a")
    with run:
        assert restored_from(run) == 2
        assert [row["step"] for row in run.history()] == [1, 2]
    assert not list((tmp_path / "a").glob("aside-*"))


def test_a_directory_that_lost_its_checkpoints_gets_them_from_the_store(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        for step in (1, 2, 3):
            run.save(step, state_of(step))
    for path in sorted((tmp_path / "a").glob("step-*/*")):
        path.unlink()
    with opened(store, tmp_path / "a") as run:
        assert restored_from(run) == 3
    assert steps_in(store) == [1, 2, 3]


def test_never_sets_aside_what_the_store_has_at_once(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        run.save(1, state_of(1))
    with opened(store, tmp_path / "b", resume="never") as run:
        assert (run.all_steps(), run.restore()) == ([], None)
        run.save(1, state_of(1))
    assert steps_in(store).count(1) == 1
    assert [key for key in store.objects if "/aside-" in key and "step-00000001/manifest.json" in key]


def test_another_experiment_is_refused_by_what_the_store_says(store: FakeStore, tmp_path: Path) -> None:
    first = ckptfmt.Fingerprint(seed=1, config={"lr": 1}, environment=False)
    with opened(store, tmp_path / "a", fingerprint=first) as run:
        run.save(1, state_of(1))
    other = ckptfmt.Fingerprint(seed=1, config={"lr": 2}, environment=False)
    with pytest.raises(ckptfmt.FingerprintMismatchError, match=r"config\.lr"):
        opened(store, tmp_path / "b", fingerprint=other)
    opened(store, tmp_path / "c", fingerprint=first, resume="must").close()
    with pytest.raises(ckptfmt.CheckpointNotFoundError, match="nothing to resume"):
        ckptfmt.Run("fake://bucket/none", local_directory=tmp_path / "d", _disk=AnyDisk(store.disk()), resume="must")


def test_a_run_with_a_mirror_becomes_one_in_the_store(store: FakeStore, tmp_path: Path) -> None:
    with ckptfmt.Run(tmp_path / "a", mirror=URL, _disk=AnyDisk(store.disk())) as run:
        for step in (1, 2, 3):
            run.save(step, state_of(step))
    with opened(store, tmp_path / "a") as run:
        assert restored_from(run) == 3
        run.save(4, state_of(4))
    assert steps_in(store) == [1, 2, 3, 4]
    assert steps_here(tmp_path / "a") == [3, 4]


def test_arguments_that_do_not_go_together_are_refused(store: FakeStore, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a run in a store has none"):
        opened(store, tmp_path / "a", mirror=tmp_path / "b")
    with pytest.raises(ValueError, match="only a run in a store"):
        ckptfmt.Run(tmp_path / "a", local_directory=tmp_path / "b")
    with pytest.raises(ValueError, match="a directory of this machine"):
        ckptfmt.Run(URL, local_directory="memory://bucket/exp")
    opened(store, tmp_path / "a").close()
    with pytest.raises(ValueError, match="belongs to fake://bucket/exp"):
        ckptfmt.Run("fake://bucket/other", local_directory=tmp_path / "a", _disk=AnyDisk(store.disk()))


def test_by_default_the_directory_is_in_the_cache_and_one_for_each_url(
    store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPTFMT_CACHE_DIR", str(tmp_path / "cache"))
    for url in ("fake://bucket/a/exp", "fake://bucket/b/exp"):
        with ckptfmt.Run(url, _disk=AnyDisk(store.disk())) as run:
            run.save(1, state_of(1))
    directories = sorted((tmp_path / "cache" / "runs").iterdir())
    assert [path.name[:4] for path in directories] == ["exp-", "exp-"]
    assert {json.loads((path / ".store.json").read_bytes())["url"] for path in directories} == {
        "fake://bucket/a/exp",
        "fake://bucket/b/exp",
    }
    monkeypatch.delenv("CKPTFMT_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    ckptfmt.Run(URL, _disk=AnyDisk(store.disk())).close()
    assert list((tmp_path / "xdg" / "ckptfmt" / "runs").glob("exp-*"))


def test_a_store_that_somebody_emptied_is_a_new_run(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        run.save(1, state_of(1))
    store.objects.clear()
    with pytest.warns(RuntimeWarning, match="is empty now; what .* had of it is kept there as aside-"):
        run = opened(store, tmp_path / "a")
    with run:
        assert (run.restore(), run.all_steps(), run.history()) == (None, [], [])
        run.save(1, state_of(1))
    assert steps_in(store) == [1]
