"""Saves, readers and deletions at the same time on the file system of this machine; what it is really asked; when it is full."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.recording import Created, Linked, MadeDirectory, RecordingDisk, Renamed, SyncedDirectory, SyncedFile, SyncedName, Unlinked
from ckptfmt.errors import CheckpointExistsError, NotEnoughSpaceError, RunLockedError
from tests.crash.checkpoint_check import check_tidy
from tests.crash.checkpoint_killers import UNWARNED
from tests.crash.checkpoint_product import load_product
from tests.crash.checkpoint_states import encoded, is_same, make_state

PRODUCT = load_product()
DISK = LocalDisk()


def is_whole(state: Any) -> bool:
    return is_same(state, make_state(state["epoch"]))


def test_every_recorded_step_is_a_call_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str) -> Any:
        real = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            calls[name] += 1
            return real(*arguments, **options)

        return call

    for name in ("fsync", "replace", "unlink", "link", "mkdir"):
        monkeypatch.setattr(os, name, counted(name))
    disk = RecordingDisk(DISK)
    base, path = f"{tmp_path}/runs/base", f"{tmp_path}/runs/step"
    PRODUCT.save(disk, base, encoded(1))
    PRODUCT.save(disk, path, encoded(2))
    PRODUCT.save(disk, path, encoded(2, shared=1), base=base, overwrite=True)
    PRODUCT.delete_checkpoint(disk, path)
    recorded = Counter(type(record) for record in disk.records)
    assert calls["fsync"] == recorded[SyncedFile] + recorded[SyncedName] + recorded[SyncedDirectory]
    assert calls["replace"] == recorded[Renamed]
    assert calls["unlink"] == recorded[Unlinked]
    assert calls["link"] == recorded[Linked] > 0
    assert calls["mkdir"] == recorded[MadeDirectory] == 3
    assert recorded[SyncedFile] == recorded[Created] == recorded[Renamed]


def test_without_durability_nothing_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: pytest.fail("a sync"))
    PRODUCT.save(DISK, f"{tmp_path}/new/step", encoded(1), durable=False)
    PRODUCT.save(DISK, f"{tmp_path}/new/step", encoded(2), durable=False, overwrite=True)
    assert is_same(PRODUCT.load(DISK, f"{tmp_path}/new/step"), make_state(2))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_files_are_read_only_and_honour_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        PRODUCT.save(DISK, f"{tmp_path}/step", encoded(1))
    finally:
        os.umask(before)
    for path in (tmp_path / "step").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o444 & ~umask
    assert stat.S_IMODE((tmp_path / "step").stat().st_mode) == 0o777 & ~umask


def test_the_second_of_two_writers_is_refused_and_disturbs_nothing(tmp_path: Path) -> None:
    path = f"{tmp_path}/step"
    PRODUCT.save(DISK, path, encoded(1))
    number = os.open(path, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    with pytest.raises(RunLockedError) as caught:
        PRODUCT.save(DISK, path, encoded(2), overwrite=True)
    assert caught.value.path == path
    with pytest.raises(RunLockedError):
        PRODUCT.delete_checkpoint(DISK, path)
    assert is_same(PRODUCT.load(DISK, path), make_state(1))
    os.close(number)
    PRODUCT.save(DISK, path, encoded(2), overwrite=True)
    check_tidy(PRODUCT, DISK, path)


def test_of_many_writers_some_save_and_the_others_are_refused(tmp_path: Path) -> None:
    path, counts, failures = f"{tmp_path}/new/step", Counter[str](), list[BaseException]()
    start = threading.Barrier(4)

    def write(number: int) -> None:
        start.wait()
        for _ in range(10):
            try:
                PRODUCT.save(DISK, path, encoded(number), overwrite=True)
                counts["saved"] += 1
            except RunLockedError:
                counts["refused"] += 1
            except BaseException as error:  # noqa: BLE001 - the test's thread reports it
                failures.append(error)

    run_together([threading.Thread(target=write, args=(number,)) for number in range(4)])
    assert failures == []
    assert counts["saved"] > 0
    assert counts["saved"] + counts["refused"] == 40
    assert is_whole(PRODUCT.load(DISK, path))
    check_tidy(PRODUCT, DISK, path)


def test_of_two_first_saves_at_the_same_time_one_stands(tmp_path: Path) -> None:
    for attempt in range(10):
        path, outcomes = f"{tmp_path}/{attempt}/step", list[str]()
        start = threading.Barrier(2)

        def write(number: int, path: str = path, outcomes: list[str] = outcomes, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                PRODUCT.save(DISK, path, encoded(number))
                outcomes.append("saved")
            except (RunLockedError, CheckpointExistsError):
                outcomes.append("refused")

        run_together([threading.Thread(target=write, args=(number,)) for number in range(2)])
        assert sorted(outcomes) == ["refused", "saved"]
        assert is_whole(PRODUCT.load(DISK, path))


def test_a_reader_always_sees_a_whole_state_while_a_writer_overwrites(tmp_path: Path) -> None:
    path, seen, failures = f"{tmp_path}/step", set[int](), list[BaseException]()
    PRODUCT.save(DISK, path, encoded(0))
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                state = PRODUCT.load(DISK, path)
                assert is_whole(state)
                seen.add(state["epoch"])
            except BaseException as error:  # noqa: BLE001 - the test's thread reports it
                failures.append(error)
                return

    def write() -> None:
        for number in range(50):
            PRODUCT.save(DISK, path, encoded(number), overwrite=True)
        is_over.set()

    run_together([threading.Thread(target=read), threading.Thread(target=write)])
    assert failures == []
    assert len(seen) > 1


@pytest.mark.parametrize("change", ["overwritten", "deleted"])
def test_an_open_checkpoint_stays_readable_when_it_is_overwritten_or_deleted(change: str, tmp_path: Path) -> None:
    path = f"{tmp_path}/step"
    PRODUCT.save(DISK, path, encoded(1))
    with PRODUCT.open_checkpoint(DISK, path) as checkpoint:
        if change == "deleted":
            PRODUCT.delete_checkpoint(DISK, path)
            assert not Path(path).exists()
        else:
            PRODUCT.save(DISK, path, encoded(2), overwrite=True)
            assert is_same(PRODUCT.load(DISK, path), make_state(2))
        assert is_same(checkpoint.load(), make_state(1))


def test_a_checkpoint_outlives_the_base_that_it_shares_files_with(tmp_path: Path) -> None:
    base, path = f"{tmp_path}/base", f"{tmp_path}/step"
    PRODUCT.save(DISK, base, encoded(1))
    PRODUCT.save(DISK, path, encoded(2, shared=1), base=base)
    assert any(file.stat().st_nlink == 2 for file in Path(path).iterdir())
    PRODUCT.delete_checkpoint(DISK, base)
    assert is_same(PRODUCT.load(DISK, path), make_state(2, shared=1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("page_count", range(17))
def test_a_file_system_with_few_free_pages_keeps_the_old_checkpoint(page_count: int, small_disk: Path) -> None:
    product = load_product(UNWARNED)
    path, filler = f"{small_disk}/step", small_disk / "filler"
    product.save(DISK, path, encoded(1))
    status = os.statvfs(small_disk)
    filler.write_bytes(bytes(max(0, status.f_bavail - page_count) * status.f_frsize))
    names = os.listdir(path)
    refusal: NotEnoughSpaceError | None = None
    try:
        product.save(DISK, path, encoded(2), overwrite=True)
    except NotEnoughSpaceError as error:
        refusal = error
    assert (refusal is None) == (page_count >= 6)
    if refusal is not None:
        assert (refusal.path or "").startswith(path)
        assert os.listdir(path) == names
        assert is_same(product.load(DISK, path), make_state(1))
        filler.unlink()
        product.save(DISK, path, encoded(2), overwrite=True)
    assert is_same(product.load(DISK, path), make_state(2))
    check_tidy(product, DISK, path)


def run_together(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
