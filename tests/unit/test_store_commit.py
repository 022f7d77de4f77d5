"""The commit on object stores: after any failure and any kill, what was there or what is new, whole; of two saves one fails. Spec 5.2."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import ckptfmt
from ckptfmt.checkpoint import store_staging
from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.saving import check_options
from ckptfmt.checkpoint.store_staging import StoreStaging
from ckptfmt.checkpoint.verify import verify_checkpoint
from ckptfmt.checkpoint.writer import write_checkpoint
from ckptfmt.disk import patient_store, remote_files
from ckptfmt.disk.patient_store import Patience
from ckptfmt.state.tree import encode_state
from tests.fake_store import FakeStore

URL = "fake://bucket/run/step"
KEY = "bucket/run/step/"
LOST = ConnectionResetError(errno.ECONNRESET, "reset by a test")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small parts, and no pauses."""
    monkeypatch.setattr(patient_store, "PATIENCE", Patience(attempts=4, first_seconds=0.0))
    monkeypatch.setattr(remote_files, "PART_BYTES", 4096)


def state(number: int) -> dict[str, Any]:
    return {"model": {"w": np.full(2000, number, dtype=np.int64)}, "optimizer": {"m": np.full(10, number)}, "step": number}


def save(store: FakeStore, number: int, *, overwrite: bool = True, base: str | None = None) -> ckptfmt.CheckpointInfo:
    options = check_options(step=number, overwrite=overwrite, base=base)
    return write_checkpoint(store.disk(), URL, encode_state(state(number)), options)


def load(store: FakeStore) -> int | None:
    """Return the number of the state that is stored, all of it checked; None where there is no checkpoint."""
    try:
        with OpenCheckpoint(store.disk(), URL) as checkpoint:
            found = checkpoint.load()
    except (ckptfmt.CheckpointNotFoundError, ckptfmt.IncompleteError):
        return None
    number: int = found["step"]
    np.testing.assert_equal(found, state(number))
    return number


def unnamed(store: FakeStore) -> set[str]:
    """Return the objects that the manifest does not name."""
    with OpenCheckpoint(store.disk(), URL) as checkpoint:
        named = {KEY + file.name for file in checkpoint.manifest.files()} | {f"{KEY}manifest.json"}
    return set(store.objects) - named


def test_a_save_is_data_under_names_of_its_own_and_then_a_manifest() -> None:
    store = FakeStore()
    info = save(store, 1)
    assert load(store) == 1
    assert list(store.objects)[-1] == f"{KEY}manifest.json"
    assert info.size_bytes == info.unique_bytes == sum(len(found.data) for found in store.objects.values())
    assert not store.uploads
    first = set(store.objects)
    save(store, 1)
    assert first & set(store.objects) == {f"{KEY}manifest.json"}
    assert not unnamed(store)


def test_nothing_is_written_where_something_is_stored_already() -> None:
    store = FakeStore()
    save(store, 1)
    before = dict(store.objects)
    with pytest.raises(ckptfmt.CheckpointExistsError, match="stored here already"):
        save(store, 2, overwrite=False)
    assert store.objects == before


@pytest.mark.parametrize("has_previous", [False, True])
def test_after_a_kill_at_any_moment_a_reader_sees_one_whole_checkpoint_and_the_litter_goes_later(has_previous: bool) -> None:
    original = FakeStore()
    if has_previous:
        save(original, 1)
    original.states.clear()
    save(original, 2)
    seen = []
    for objects in original.states:
        store = FakeStore(objects=dict(objects))
        seen.append(load(store))
        save(store, 3)
        assert load(store) == 3
        store.wait(hours=25)
        save(store, 4)
        assert load(store) == 4
        assert not unnamed(store)
    before = 1 if has_previous else None
    assert set(seen) == {before, 2}
    assert seen == sorted(seen, key=lambda number: number == 2)


@pytest.mark.parametrize("is_after", [False, True])
@pytest.mark.parametrize("has_previous", [False, True])
def test_a_failure_that_lasts_leaves_what_was_there_or_says_that_it_does_not_know(has_previous: bool, is_after: bool) -> None:
    for nth in range(1, 60):
        store = FakeStore()
        if has_previous:
            save(store, 1)
        store.fail(LOST, nth=nth, times=10**6, is_after=is_after)
        outcome: BaseException | None = None
        try:
            save(store, 2)
        except OSError as error:
            outcome = error
        store.heal()
        found = load(store)
        if outcome is None:
            assert found == 2
        elif isinstance(outcome, ckptfmt.DurabilityUnknownError):
            assert found in (2, 1 if has_previous else None)
        else:
            assert found == (1 if has_previous else None)
            assert "reset by a test" in str(outcome)
            assert outcome.filename.startswith(URL)
        save(store, 3)
        assert load(store) == 3
        if len(store.calls) < nth:
            return
    raise AssertionError("the save never ran through")


@pytest.mark.parametrize("is_after", [False, True])
def test_a_failure_that_passes_is_not_noticed(is_after: bool) -> None:
    for nth in range(1, 60):
        store = FakeStore()
        save(store, 1)
        count = len(store.calls)
        store.fail(LOST, nth=nth, times=3, is_after=is_after)
        save(store, 2)
        assert load(store) == 2
        assert not unnamed(store)
        if len(store.calls) - count < nth:
            return
    raise AssertionError("the save never ran through")


def test_a_refusal_is_not_repeated_and_leaves_nothing() -> None:
    for kind in ("write", "begin_upload", "write_part", "complete"):
        store = FakeStore()
        save(store, 1)
        before, count = dict(store.objects), len(store.calls)
        store.fail(PermissionError(errno.EACCES, "Access Denied"), kind=kind)
        with pytest.raises(PermissionError, match="Access Denied"):
            save(store, 2)
        assert store.objects == before
        assert not store.uploads
        # Four parts are under way at a time.
        assert store.calls[count:].count(kind) <= (4 if kind == "write_part" else 1)


def test_an_interrupt_gives_the_parts_up() -> None:
    store = FakeStore()
    save(store, 1)
    before = dict(store.objects)
    store.fail(KeyboardInterrupt(), kind="write_part", nth=2)
    with pytest.raises(KeyboardInterrupt):
        save(store, 2)
    assert store.objects == before
    assert not store.uploads


def test_of_two_new_saves_the_second_to_commit_fails_and_removes_what_it_wrote() -> None:
    store = FakeStore()
    slow = _begun(store, overwrite=False)
    save(store, 1, overwrite=False)
    before = {key for key in store.objects if key not in slow[1]}
    with pytest.raises(ckptfmt.CheckpointExistsError, match="another save was committed here meanwhile"), slow[0] as staging:
        staging.publish(_other_manifest_bytes(), digest="")
    assert set(store.objects) == before
    assert load(store) == 1


def test_of_two_overwrites_the_second_to_commit_fails_and_removes_what_it_wrote() -> None:
    store = FakeStore()
    save(store, 1)
    slow = _begun(store, overwrite=True)
    save(store, 2)
    with pytest.raises(ckptfmt.RunLockedError, match="another save was committed here"), slow[0] as staging:
        staging.publish(_other_manifest_bytes(), digest="")
    assert not unnamed(store)
    assert load(store) == 2


def test_an_overwrite_of_what_is_deleted_meanwhile_fails() -> None:
    store = FakeStore()
    save(store, 1)
    slow = _begun(store, overwrite=True)
    manifest = _manifest_bytes(store)
    delete_checkpoint(store.disk(), URL)
    with pytest.raises(ckptfmt.RunLockedError, match="deleted"), slow[0] as staging:
        staging.publish(manifest, digest="")
    assert not store.objects


def test_deleting_takes_the_manifest_first_and_leaves_what_a_save_is_writing() -> None:
    store = FakeStore()
    save(store, 1)
    _begun(store, overwrite=True)
    store.states.clear()
    delete_checkpoint(store.disk(), URL)
    assert all(f"{KEY}manifest.json" not in objects for objects in store.states)
    assert len(store.objects) == 1
    store.wait(hours=25)
    delete_checkpoint(store.disk(), URL)
    assert not store.objects


def test_a_save_of_more_than_half_a_day_looks_for_its_objects_before_it_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    save(store, 1)
    manifest = _manifest_bytes(store)
    monkeypatch.setattr(store_staging, "LITTER_SECONDS", -1.0)
    with StoreStaging(store.disk(), URL, overwrite=True) as staging:
        shard = next(key for key in store.objects if "model" in key)
        del store.objects[shard]
        with pytest.raises(ckptfmt.CorruptError) as caught:
            staging.publish(manifest, digest="")
    assert caught.value.rule == "E012"


def test_a_base_in_the_same_store_is_copied_by_the_store() -> None:
    store = FakeStore()
    other = "fake://bucket/run/base"
    disk = store.disk()
    write_checkpoint(disk, other, encode_state(state(1)), check_options())
    store.calls.clear()
    changed = state(1) | {"optimizer": {"m": np.full(10, 7)}}
    write_checkpoint(disk, URL, encode_state(changed), check_options(base=other))
    assert store.calls.count("copy") == 1
    assert "write_part" not in store.calls
    delete_checkpoint(disk, other)
    with OpenCheckpoint(disk, URL) as checkpoint:
        np.testing.assert_equal(checkpoint.load(), changed)


def test_a_store_without_uploads_in_parts_gets_whole_objects() -> None:
    store = FakeStore(has_uploads=False)
    save(store, 1)
    assert load(store) == 1
    assert set(store.calls) <= {"read", "write", "list", "abort_uploads", "has_any"}


def test_damage_is_named_by_verify_and_refused_by_load() -> None:
    for damage, rule in ((None, "E012"), (lambda data: data[:-1], "E014"), (lambda data: data[:-1] + b"\x55", "E040")):
        store = FakeStore()
        save(store, 1)
        shard = next(key for key in store.objects if "model" in key)
        found = store.objects.pop(shard)
        if damage is not None:
            store.objects[shard] = replace(found, data=damage(found.data))
        report = verify_checkpoint(store.disk(), URL)
        assert next((finding.rule, finding.path) for finding in report.findings if finding.level == "error") == (rule, f"fake://{shard}")
        with pytest.raises(ckptfmt.CorruptError) as caught, OpenCheckpoint(store.disk(), URL) as checkpoint:
            checkpoint.load()
        assert caught.value.rule == rule


def _begun(store: FakeStore, *, overwrite: bool) -> tuple[StoreStaging, set[str]]:
    """Return a save that has written one file and waits before its commit, and the keys of what it wrote."""
    before = set(store.objects)
    staging = StoreStaging(store.disk(), URL, overwrite=overwrite)
    file = staging.create("model-00001", size_bytes=10)
    file.write(b"0123456789")
    staging.seal(file, staging.last_created, stem="model-00001", digest_hex="", suffix=".safetensors")
    return staging, set(store.objects) - before


def _other_manifest_bytes() -> bytes:
    other = FakeStore()
    save(other, 3)
    return _manifest_bytes(other)


def _manifest_bytes(store: FakeStore) -> bytes:
    return store.objects[f"{KEY}manifest.json"].data


def test_a_request_that_was_sent_twice_below_is_not_taken_for_the_save_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    store = FakeStore()
    write = FakeStore.write

    def twice(self: FakeStore, key: str, data: bytes, expected: Any) -> str:
        write(self, key, data, expected)
        return write(self, key, data, expected)

    monkeypatch.setattr(FakeStore, "write", twice)
    for number in (1, 2):
        save(store, number)
        assert load(store) == number
