"""One writer for a run in a store: alive means refused, ended means taken over, and who has lost it changes nothing."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.disk import patient_store
from ckptfmt.disk.anywhere import AnyDisk
from ckptfmt.disk.patient_store import Patience
from ckptfmt.run import lease
from tests.fake_store import FakeStore, StoredObject

URL = "fake://bucket/exp"
KEY = "bucket/exp/.lease.json"
LOST = ConnectionResetError(errno.ECONNRESET, "reset by a test")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses, and leases that live for moments by this machine's clock; the store's stands still."""
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=2, first_seconds=0.0))
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(lease, "SAFE_SECONDS", 10.0)
    monkeypatch.setattr(lease, "EXPIRES_SECONDS", 20.0)


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def opened(store: FakeStore, machine: Path, **options: Any) -> ckptfmt.Run:
    return ckptfmt.Run(URL, local_directory=machine, _disk=AnyDisk(store.disk()), **options)


def note_in(store: FakeStore) -> dict[str, Any]:
    note: dict[str, Any] = json.loads(store.objects[KEY].data)
    return note


def steal(store: FakeStore) -> None:
    """Take the lease as another machine does for which its time is over."""
    other = lease.Lease(store.disk(), URL)
    found = store.objects[KEY]
    store.objects[KEY] = StoredObject(b"{}", "v-old", found.modified_at)
    store.wait(1)
    with pytest.warns(RuntimeWarning, match="another process has ended"):
        other.acquire("elsewhere", is_alone=False)
    # It is alive, and renews by itself no more, so that a test sees each change.
    other._ended.set()


def changed(before: dict[str, StoredObject], store: FakeStore) -> set[str]:
    return {key for key in before.keys() | store.objects.keys() if before.get(key) != store.objects.get(key)}


def test_an_owner_that_is_alive_is_named_in_a_refusal(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        run.save(1, {"w": np.zeros(3)})
        note = note_in(store)
        assert (note["pid"], note["state"], note["version"]) == (os.getpid(), "held", [1, 0])
        with pytest.raises(ckptfmt.RunLockedError, match=rf"process {os.getpid()}.* is writing to this run since") as caught:
            opened(store, tmp_path / "b")
        assert (caught.value.path, caught.value.pid) == (URL, os.getpid())
        run.save(2, {"w": np.zeros(3)})
    assert note_in(store)["state"] == "released"
    opened(store, tmp_path / "b").close()


def test_a_second_opening_of_the_same_directory_is_refused_by_its_lock(store: FakeStore, tmp_path: Path) -> None:
    with opened(store, tmp_path / "a") as run:
        with pytest.raises(ckptfmt.RunLockedError):
            opened(store, tmp_path / "a")
        run.save(1, {"w": np.zeros(3)})


@pytest.fixture
def killed(store: FakeStore, tmp_path: Path) -> FakeStore:
    """A store whose owner, in the directory a, was killed just now."""
    run = opened(store, tmp_path / "a")
    run.save(1, {"w": np.zeros(3)})
    note = store.objects[KEY]
    run.close()
    store.objects[KEY] = note
    return store


def test_a_killed_owner_of_the_same_directory_never_blocks(killed: FakeStore, tmp_path: Path) -> None:
    began = time.monotonic()
    opened(killed, tmp_path / "a").close()
    assert time.monotonic() - began < 1


def test_a_machine_that_died_long_ago_by_the_clock_of_the_store_does_not_block(killed: FakeStore, tmp_path: Path) -> None:
    killed.wait(1)
    with pytest.warns(RuntimeWarning, match=f"process {os.getpid()}.* has ended without giving the run up"):
        opened(killed, tmp_path / "b").close()


def test_a_machine_that_died_just_now_is_waited_for(killed: FakeStore, tmp_path: Path) -> None:
    threading.Timer(0.3, lambda: killed.wait(1)).start()
    began = time.monotonic()
    with pytest.warns(RuntimeWarning, match="has ended without giving the run up"):
        opened(killed, tmp_path / "b").close()
    assert time.monotonic() - began >= 0.3


def test_a_store_that_tells_no_times_is_watched(killed: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = note_in(killed) | {"expires_seconds": 0.2}
    killed.objects[KEY] = StoredObject(json.dumps(note).encode(), "v-new", None)  # type: ignore[arg-type]
    with pytest.warns(RuntimeWarning, match="has ended without giving the run up"):
        opened(killed, tmp_path / "b").close()


def test_whoever_lost_the_lease_fails_and_changes_nothing(store: FakeStore, tmp_path: Path) -> None:
    run = opened(store, tmp_path / "a", keep_last=1)
    run.save(1, {"w": np.zeros(3)})
    steal(store)
    before = dict(store.objects)
    for step in (2, 3):
        with pytest.raises(ckptfmt.RunLockedError, match="has taken this run over"):
            run.save(step, {"w": np.zeros(3)})
    for use in (run.cleanup, lambda: run.log(4, {"m": 1}), lambda: run.progress("calls"), lambda: run.study("s")):
        with pytest.raises(ckptfmt.RunLockedError):
            use()
    assert run.all_steps() == [1, 2], "what is there may be read"
    with pytest.raises(ckptfmt.RunLockedError) as caught:
        run.close()
    assert "Not in the store, and kept in" in caught.value.__notes__[-1]
    assert changed(before, store) == set()
    store.wait(1)
    with pytest.warns(RuntimeWarning, match="has ended"):
        other = opened(store, tmp_path / "b", keep_last=1)
    with other:
        other.save(2, {"w": np.ones(3)})
    assert len([key for key in store.objects if "/step-" in key]) == 3, "a manifest, metadata and a shard"


@pytest.mark.parametrize("moment", ["data", "manifest"])
def test_a_lease_that_is_stolen_during_a_save_keeps_the_checkpoint_out(store: FakeStore, tmp_path: Path, moment: str) -> None:
    run = opened(store, tmp_path / "a")
    run.save(1, {"w": np.zeros(3)})
    write = FakeStore._put
    stolen: list[dict[str, StoredObject]] = []

    def put(self: FakeStore, key: str, data: bytes, expected: Any) -> str:
        version = write(self, key, data, expected)
        is_last = ".msgpack.zst" in key
        if "step-00000002" in key and is_last == (moment == "manifest") and not stolen:
            stolen.append({})
            steal(self)
            stolen[0] = dict(self.objects)
        return version

    store._put = put.__get__(store)  # type: ignore[method-assign]
    with pytest.raises(ckptfmt.RunLockedError, match="has taken this run over"):
        run.save(2, {"w": np.ones(3)})
    assert not [key for key in changed(stolen[0], store) if "manifest" in key]
    assert "bucket/exp/step-00000002/manifest.json" not in store.objects
    with pytest.raises(ckptfmt.RunLockedError):
        run.close()


def test_an_owner_that_was_asleep_asks_before_it_writes(store: FakeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = opened(store, tmp_path / "a")
    run.save(1, {"w": np.zeros(3)})
    own = run._home._lease  # type: ignore[union-attr]
    own._ended.set()
    time.sleep(0.1)
    # Nobody took it meanwhile, so it goes on.
    own._safe_until = 0.0
    version = store.objects[KEY].version
    run.save(2, {"w": np.zeros(3)})
    assert store.objects[KEY].version != version
    assert own._safe_until > 0
    # An answer that got lost is no loss.
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=1))
    store.fail(LOST, kind="write", is_after=True)
    with pytest.raises(OSError, match="reset by a test"):
        own.renew()
    own.renew()
    run.save(3, {"w": np.zeros(3)})
    steal(store)
    own._safe_until = 0.0
    before = dict(store.objects)
    with pytest.raises(ckptfmt.RunLockedError):
        own.before_change()
    assert changed(before, store) == set()
    run.close()
    assert note_in(store)["directory"] == "elsewhere"


def test_a_lease_that_somebody_removed_is_lost(store: FakeStore, tmp_path: Path) -> None:
    run = opened(store, tmp_path / "a")
    del store.objects[KEY]
    with pytest.raises(ckptfmt.RunLockedError, match="somebody removed its lease"):
        run.save(1, {"w": np.zeros(3)})
    with pytest.raises(ckptfmt.RunLockedError):
        run.close()


def test_of_two_that_take_over_at_once_one_is_refused(killed: FakeStore, tmp_path: Path) -> None:
    killed.wait(1)
    outcomes: list[object] = []
    together = threading.Barrier(2)

    def take(name: str) -> None:
        together.wait()
        try:
            outcomes.append(opened(killed, tmp_path / name))
        except ckptfmt.RunLockedError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=take, args=(name,)) for name in "bc"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    runs = [outcome for outcome in outcomes if isinstance(outcome, ckptfmt.Run)]
    assert (len(outcomes), len(runs)) == (2, 1)
    runs[0].save(2, {"w": np.zeros(3)})
    runs[0].close()


def test_a_forked_child_may_not_write(store: FakeStore, tmp_path: Path) -> None:
    run = opened(store, tmp_path / "a")
    own = run._home._lease  # type: ignore[union-attr]
    own._pid -= 1
    with pytest.raises(ckptfmt.RunLockedError, match="was forked"):
        run.save(1, {})
    own._pid += 1
    run.close()
