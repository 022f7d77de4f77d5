"""What deleting removes, what it leaves, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptfmt.checkpoint.delete import delete_checkpoint
from ckptfmt.checkpoint.reader import OpenCheckpoint
from ckptfmt.checkpoint.writer import SaveOptions, write_checkpoint
from ckptfmt.disk.local import LocalDisk
from ckptfmt.disk.memory import MemoryDisk
from ckptfmt.disk.recording import RecordingDisk, RemovedDirectory, SyncedDirectory, Unlinked
from ckptfmt.errors import CheckpointNotFoundError, RunLockedError
from ckptfmt.format.layout import MANIFEST_NAME, temporary_name
from ckptfmt.state.tree import encode_state


def save(disk: Any, path: str, *, base: str | None = None) -> None:
    options = SaveOptions(step=None, metrics={}, fingerprint=None, overwrite=False, base=base, max_shard_size_bytes=2**31, durable=True)
    write_checkpoint(disk, path, encode_state({"model": {"w": np.arange(9)}, "epoch": 1}), options)


def put(disk: Any, path: str, name: str) -> None:
    directory = disk.open_directory(path)
    directory.create(name, size_bytes=0).close()
    directory.close()


def test_deleting_removes_the_directory_and_nothing_else() -> None:
    disk = MemoryDisk()
    save(disk, "/runs/a")
    save(disk, "/runs/b", base="/runs/a")
    before = {path: content for path, content in disk.contents().items() if not path.startswith("/runs/a")}
    delete_checkpoint(disk, "/runs/a")
    assert disk.contents() == before
    with OpenCheckpoint(disk, "/runs/b") as checkpoint:
        assert checkpoint.load()["epoch"] == 1


def test_the_manifest_goes_first_and_each_step_is_durable_before_the_next() -> None:
    disk = RecordingDisk(MemoryDisk())
    save(disk, "/runs/a")
    del disk.records[:]
    delete_checkpoint(disk, "/runs/a")
    first, second, *files, last_but_one, last = disk.records
    assert (first, second) == (Unlinked("/runs/a", MANIFEST_NAME), SyncedDirectory("/runs/a"))
    assert all(isinstance(record, Unlinked) for record in files)
    assert (last_but_one, last) == (RemovedDirectory("/runs/a"), SyncedDirectory("/runs"))


def test_what_an_interrupted_save_or_deletion_left_is_removed() -> None:
    disk = MemoryDisk()
    disk.make_directory("/a")
    for name in (temporary_name("model-00001", "0" * 32), "model-00001-01234567.safetensors", "metadata-0123456789abcdef.msgpack.zst"):
        put(disk, "/a", name)
    delete_checkpoint(disk, "/a")
    assert disk.contents() == {}


@pytest.mark.parametrize("name", ["notes.txt", "model.safetensors", "manifest.json.sig", ".hidden", "model-00001-of-00002.safetensors"])
def test_files_that_are_not_of_this_format_stay_and_so_does_their_directory(name: str) -> None:
    disk = MemoryDisk()
    save(disk, "/a")
    put(disk, "/a", name)
    delete_checkpoint(disk, "/a")
    assert disk.contents() == {"/a": None, f"/a/{name}": b""}


def test_an_empty_directory_is_removed() -> None:
    disk = MemoryDisk()
    disk.make_directory("/a")
    delete_checkpoint(disk, "/a")
    assert disk.contents() == {}


def test_what_is_not_there_is_not_found() -> None:
    disk = MemoryDisk()
    with pytest.raises(CheckpointNotFoundError) as caught:
        delete_checkpoint(disk, "/a")
    assert caught.value.path == "/a"
    put(disk, "/", "file")
    with pytest.raises(CheckpointNotFoundError, match="found a file"):
        delete_checkpoint(disk, "/file")
    assert disk.contents() == {"/file": b""}


def test_a_checkpoint_that_is_being_saved_is_not_deleted() -> None:
    disk = MemoryDisk()
    save(disk, "/a")
    writer = disk.open_directory("/a")
    writer.try_lock()
    before = disk.contents()
    with pytest.raises(RunLockedError, match="/a: another process or thread") as caught:
        delete_checkpoint(disk, "/a")
    assert caught.value.path == "/a"
    assert disk.contents() == before
    writer.close()
    delete_checkpoint(disk, "/a")
    assert disk.contents() == {}


def test_where_there_are_no_locks_deleting_goes_on() -> None:
    disk = MemoryDisk()
    save(disk, "/a")
    disk.faults.fail("lock", 38, times=None)
    delete_checkpoint(disk, "/a")
    assert disk.contents() == {}


def test_paths_may_be_relative_or_end_in_a_slash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk = LocalDisk()
    for path in ("a", "b/", "./c", f"{tmp_path}/d/"):
        save(disk, path)
        delete_checkpoint(disk, path)
    assert os.listdir(tmp_path) == []
